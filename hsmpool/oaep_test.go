package hsmpool

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"math/big"
	"testing"
)

// TestUnpadOAEP undoes what crypto/rsa padded, and breaks each octet of it once.
func TestUnpadOAEP(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	raw := func(c []byte) []byte {
		m := new(big.Int).Exp(new(big.Int).SetBytes(c), key.D, key.N)
		return m.FillBytes(make([]byte, 256))
	}
	for _, n := range []int{0, 1, 100, 190} {
		want := bytes.Repeat([]byte{1}, n) // the separator's value too
		c, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &key.PublicKey, want, nil)
		if err != nil {
			t.Fatal(err)
		}
		em := raw(c)
		got, ok := unpadOAEPSHA256(bytes.Clone(em))
		if !ok || !bytes.Equal(got, want) {
			t.Fatalf("%d octets: %x, %v", n, got, ok)
		}
		for i := range em {
			bad := bytes.Clone(em)
			bad[i] ^= 0x80
			got, ok := unpadOAEPSHA256(bad)
			if ok && i < 1+32+32 {
				t.Errorf("octet %d changed and not noticed", i)
			}
			if ok && bytes.Equal(got, want) && n > 0 && i >= 256-n {
				t.Errorf("octet %d of the message changed to no effect", i)
			}
			if !ok && !bytes.Equal(bad, make([]byte, 256)) {
				t.Fatal("a refused message is left in memory")
			}
		}
	}
	for n := range 67 {
		if _, ok := unpadOAEPSHA256(make([]byte, n)); ok {
			t.Errorf("%d octets accepted", n)
		}
	}
}

func FuzzUnpadOAEP(f *testing.F) {
	f.Add(make([]byte, 256))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, em []byte) {
		n := len(em)
		if m, ok := unpadOAEPSHA256(em); ok && len(m) > n-66 {
			t.Errorf("%d octets out of %d", len(m), n)
		}
	})
}
