package hsmpool_test

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
)

// wrappedKey makes a wrapped key of the type.
func wrappedKey(t testing.TB, p *hsmpool.Pool, kt hsmpool.KeyType, u hsmpool.Usage) (*hsmpool.Key, *hsmpool.Generated) {
	t.Helper()
	g, err := p.Generate(testContext(t), kt, u)
	if err != nil {
		t.Fatal(err)
	}
	return &hsmpool.Key{ID: "key-" + t.Name() + kt.String() + string('0'+rune(u)), Type: kt, Usage: u, Wrapped: g.Wrapped}, g
}

// roundTrip encrypts and decrypts n times.
func roundTrip(ctx context.Context, p *hsmpool.Pool, k *hsmpool.Key, n int) error {
	for range n {
		e := &hsmpool.Job{Op: hsmpool.EncryptGCM, Key: k, In: []byte("some text"), Nonce: make([]byte, 12)}
		if err := p.Do(ctx, e); err != nil {
			return err
		}
		d := &hsmpool.Job{Op: hsmpool.DecryptGCM, Key: k, In: e.Out, Nonce: e.Nonce}
		if err := p.Do(ctx, d); err != nil {
			return err
		}
		if string(d.Out) != "some text" {
			return context.DeadlineExceeded
		}
	}
	return nil
}

func state(p *hsmpool.Pool, name string) (state, reason string) {
	for _, s := range p.Status() {
		if s.Name == name {
			return string(s.State), s.Reason
		}
	}
	return "", ""
}

// await waits for a member's state.
func await(t testing.TB, p *hsmpool.Pool, name, want string) string {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if s, reason := state(p, name); s == want {
			return reason
		}
	}
	s, reason := state(p, name)
	t.Fatalf("member %s is %s (%s), not %s", name, s, reason, want)
	return ""
}

// untilDone gives a context that ends after a time, but not before enough is done: how much that is in a time, the machine decides.
func untilDone(t *testing.T, least time.Duration, enough func() bool) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), least+time.Minute)
	t.Cleanup(cancel)
	go func() {
		time.Sleep(least)
		for ctx.Err() == nil && !enough() {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	return ctx
}

func TestSessionsLost(t *testing.T) {
	defer hsmpool.NoRenewLimit()()
	h := hsmtest.New(t, "a")
	h.Ceremony(t)
	c := h.Config()
	var logins atomic.Int32
	pin := c.Members[0].PIN
	c.Members[0].PIN = func() ([]byte, error) { logins.Add(1); return pin() }
	c.Probe = time.Hour // only the jobs themselves find out
	p := hsmtest.OpenConfig(t, c)
	k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
	ctx := testContext(t)
	if err := roundTrip(ctx, p, k, 1); err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		name string
		do   func() error
	}{
		{"work sessions", func() error { return hsmpool.KillSessions(p, "a", false) }},
		{"all sessions", func() error { return hsmpool.KillSessions(p, "a", true) }},
		{"login", func() error { return hsmpool.Logout(p, "a") }},
	} {
		if err := f.do(); err != nil {
			t.Fatal(err)
		}
		if err := roundTrip(ctx, p, k, 3); err != nil {
			t.Errorf("after losing %s: %v", f.name, err)
		}
		if err := f.do(); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Generate(ctx, hsmpool.P256, hsmpool.UseSign); err != nil {
			t.Errorf("generate after losing %s: %v", f.name, err)
		}
		if err := f.do(); err != nil {
			t.Fatal(err)
		}
		id := []byte(f.name)
		if _, err := p.GeneratePinned(ctx, hsmpool.P256, hsmpool.UseSign, id, ""); err != nil {
			t.Logf("generate pinned after losing %s (it may be refused once, never repeated): %v", f.name, err)
			await(t, p, "a", "up")
			if _, err := p.DestroyPinned(ctx, "a", id); err != nil {
				t.Fatal(err)
			}
			if _, err := p.GeneratePinned(ctx, hsmpool.P256, hsmpool.UseSign, id, ""); err != nil {
				t.Errorf("generate pinned again after losing %s: %v", f.name, err)
			}
		}
	}
	if n := logins.Load(); n < 3 || n > 8 {
		t.Errorf("%d logins", n)
	}
}

func TestTokenRemovedAndBack(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	p := h.Open(t)
	ctx := testContext(t)
	k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
	if err := roundTrip(ctx, p, k, 10); err != nil {
		t.Fatal(err)
	}
	h.Remove(t, "b")
	for range 3 {
		// New keys must be loaded, so the member that lost its token can't hide it.
		k2, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
		if err := roundTrip(ctx, p, k2, 5); err != nil {
			t.Fatal(err)
		}
	}
	t.Log("reason:", await(t, p, "b", "down"))
	if err := roundTrip(ctx, p, k, 10); err != nil {
		t.Fatal(err)
	}
	h.Restore(t, "b")
	await(t, p, "b", "up")
	if err := roundTrip(ctx, p, k, 10); err != nil {
		t.Fatal(err)
	}
	if st, _ := state(p, "a"); st != "up" {
		t.Error("the other member went down too")
	}
}

func TestAllTokensRemovedAndBack(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	p := h.Open(t)
	ctx := testContext(t)
	k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
	h.Remove(t, "a")
	h.Remove(t, "b")
	await(t, p, "a", "down")
	await(t, p, "b", "down")
	start := time.Now()
	err := roundTrip(ctx, p, k, 1)
	if hsmpool.KindOf(err) != hsmpool.KindUnavailable || time.Since(start) > time.Second {
		t.Fatalf("with no member: %v after %v", err, time.Since(start))
	}
	if !strings.Contains(err.Error(), "a: ") || !strings.Contains(err.Error(), "b: ") {
		t.Errorf("the error gives no reasons: %v", err)
	}
	t.Log(err)
	h.Restore(t, "b")
	await(t, p, "b", "up")
	if err := roundTrip(ctx, p, k, 3); err != nil {
		t.Fatal(err)
	}
	h.Restore(t, "a")
	await(t, p, "a", "up") // by a restart of the library under b
	if err := roundTrip(ctx, p, k, 10); err != nil {
		t.Fatal(err)
	}
}

func TestTokenMissingAtOpen(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	h.Remove(t, "a")
	p := h.Open(t)
	k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
	if err := roundTrip(testContext(t), p, k, 10); err != nil {
		t.Fatal(err)
	}
	s, reason := state(p, "a")
	if s != "down" || !strings.Contains(reason, "no token with label") {
		t.Errorf("member a: %s, %s", s, reason)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	h.Remove(t, "b")
	_, err := hsmpool.Open(testContext(t), h.Config())
	if err == nil || hsmpool.KindOf(err) != hsmpool.KindUnavailable || !strings.Contains(err.Error(), "no token with label") {
		t.Fatalf("Open without a token: %v", err)
	}
	h.Restore(t, "a")
	h.Restore(t, "b")
}

func TestWrongPINOnce(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	c := h.Config()
	var asked atomic.Int32
	wrong, right := []byte("wrong-pin"), []byte(hsmtest.PIN)
	c.Members[0].PIN = func() ([]byte, error) { asked.Add(1); return wrong, nil }
	c.Members[1].PIN = func() ([]byte, error) { return right, nil }
	p := hsmtest.OpenConfig(t, c)
	for _, pin := range [][]byte{wrong, right} {
		if !bytes.Equal(pin, make([]byte, len(pin))) {
			t.Errorf("the PIN %q was not wiped", pin)
		}
	}
	reason := await(t, p, "a", "down")
	if !strings.Contains(reason, "PIN was refused") || !strings.Contains(reason, "tried once") || !strings.Contains(reason, "member a") {
		t.Errorf("reason: %s", reason)
	}
	// Many times the probe interval later it still was one.
	k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
	for end := time.Now().Add(5 * c.Probe); time.Now().Before(end); {
		if err := roundTrip(testContext(t), p, k, 1); err != nil {
			t.Fatal(err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the PIN was asked for %d times", n)
	}
}

func TestForeignGroup(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	members := h.Members()
	ctx := testContext(t)
	ra, err := hsmpool.Ceremony(ctx, hsmpool.Config{Members: members[:1]}, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	rb, err := hsmpool.Ceremony(ctx, hsmpool.Config{Members: members[1:]}, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	if ra.Group == rb.Group || len(ra.Group) != 32 {
		t.Fatalf("groups %q and %q", ra.Group, rb.Group)
	}
	p := hsmtest.OpenConfig(t, hsmpool.Config{Members: members, Group: rb.Group})
	if s, reason := state(p, "a"); s != "down" || !strings.Contains(reason, "group") {
		t.Errorf("member a of group %s: %s, %s", ra.Group, s, reason)
	}
	if p.Group() != rb.Group {
		t.Errorf("Group %s, want %s", p.Group(), rb.Group)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = hsmpool.Open(ctx, hsmpool.Config{Members: members, Group: strings.Repeat("0", 32)})
	if err == nil || !strings.Contains(err.Error(), "group") {
		t.Errorf("Open of foreign members: %v", err)
	}
	// Without a group the first decides.
	p = hsmtest.OpenConfig(t, hsmpool.Config{Members: members})
	if p.Group() != ra.Group {
		t.Errorf("Group %s, want %s", p.Group(), ra.Group)
	}
}

// TestOpenGivenUp: a member that is no longer wanted while it is opened in this process leaves no session behind.
func TestOpenGivenUp(t *testing.T) {
	h := hsmtest.New(t, "a")
	h.Ceremony(t)
	if hsmpool.OpenGivenUp(h.Members()[0]) {
		t.Error("it stays open")
	}
}
