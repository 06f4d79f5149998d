package hsmpool_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
)

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestSeal(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	p := h.Open(t)
	ctx := testContext(t)
	secret := bytes.Repeat([]byte{7}, 32)
	sealed, err := p.Seal(ctx, secret, []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	for range 8 { // on both members
		got, err := p.Open(ctx, sealed, []byte("aad"))
		if err != nil || !bytes.Equal(got, secret) {
			t.Fatalf("Open: %x, %v", got, err)
		}
	}
	if _, err := p.Open(ctx, sealed, []byte("bad")); hsmpool.KindOf(err) != hsmpool.KindBadData {
		t.Fatalf("Open with other aad: %v", err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := p.Open(ctx, bad, []byte("aad")); hsmpool.KindOf(err) != hsmpool.KindBadData {
			t.Fatalf("Open with octet %d changed: %v", i, err)
		}
	}
	for _, s := range p.Status() {
		if s.State != "up" {
			t.Errorf("%+v", s)
		}
	}
}
func TestGenerate(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	p := h.Open(t)
	ctx := testContext(t)
	for _, c := range []struct {
		t hsmpool.KeyType
		u hsmpool.Usage
	}{{hsmpool.AES128, 1}, {hsmpool.AES192, 1}, {hsmpool.AES256, 1}, {hsmpool.RSA2048, 2}, {hsmpool.RSA2048, 1}, {hsmpool.P256, 2}, {hsmpool.Secp256k1, 2}} {
		start := time.Now()
		g, err := p.Generate(ctx, c.t, c.u)
		if err != nil {
			t.Fatal(c.t, err)
		}
		t.Log(c.t, time.Since(start), len(g.Wrapped), len(g.PublicKey))
		g, err = p.GeneratePinned(ctx, c.t, c.u, []byte("id "+c.t.String()), "a")
		if err != nil {
			t.Fatal(c.t, err)
		}
		n, err := p.DestroyPinned(ctx, "a", []byte("id "+c.t.String()))
		if err != nil {
			t.Fatal(c.t, err)
		}
		t.Log(n, len(g.PublicKey))
	}
	for _, s := range p.Status() {
		t.Logf("%+v", s)
	}
}
