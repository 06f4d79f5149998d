package hsmpool_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
)

func TestCeremony(t *testing.T) {
	h := hsmtest.New(t, "a", "b", "c")
	ctx := testContext(t)
	members := h.Members()
	two := hsmpool.Config{Members: members[:2]}
	if _, err := hsmpool.Open(ctx, two); err == nil || !errors.Is(err, hsmpool.ErrNoMasterKeys) {
		t.Errorf("Open before the ceremony: %v", err)
	}
	for _, c := range [][2]int{{1, 1}, {3, 1}, {2, 3}, {65, 2}} {
		if _, err := hsmpool.Ceremony(ctx, two, c[0], c[1]); err == nil {
			t.Errorf("%d of %d shares accepted", c[1], c[0])
		}
	}
	r, err := hsmpool.Ceremony(ctx, two, 5, 3)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Group) != 32 || len(r.Shares) != 5 || len(r.Recovery) == 0 {
		t.Fatalf("%+v", r)
	}
	for _, s := range r.Shares {
		for _, b := range s {
			if b < 0x21 || b > 0x7e {
				t.Fatalf("share %q is not printable", s)
			}
		}
	}
	before := [2]map[string][]byte{h.Snapshot(t, "a"), h.Snapshot(t, "b")}

	// It refuses members that have keys, also in other company, and changes nothing.
	for _, c := range []hsmpool.Config{two, {Members: members[1:]}, {Members: members}} {
		if _, err := hsmpool.Ceremony(ctx, c, 2, 2); err == nil || !strings.Contains(err.Error(), "already has master keys") {
			t.Errorf("a second ceremony: %v", err)
		}
	}
	if _, err := hsmpool.Recover(ctx, members[0], r.Recovery, r.Shares); err == nil || !strings.Contains(err.Error(), "already has master keys") {
		t.Errorf("recovery on a member with keys: %v", err)
	}
	for i, name := range []string{"a", "b"} {
		after := h.Snapshot(t, name)
		for file, b := range before[i] {
			if strings.HasSuffix(file, ".object") && file != "token.object" && !bytes.Equal(after[file], b) {
				t.Errorf("%s/%s changed", name, file)
			}
		}
		if len(after) != len(before[i]) {
			t.Errorf("%s: %d files, then %d", name, len(before[i]), len(after))
		}
	}

	// A store's key sealed and a user's key wrapped on a and b ...
	p := hsmtest.OpenConfig(t, hsmpool.Config{Members: members[:2], Group: r.Group})
	if p.Group() != r.Group {
		t.Errorf("Group %s, want %s", p.Group(), r.Group)
	}
	sealed, err := p.Seal(ctx, []byte("store key"), []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
	jobs := gcmJobs(k, 1)
	if err := p.Do(ctx, jobs[0]); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}

	// ... open on c, which gets the master keys from the shares.
	if _, err := hsmpool.Recover(ctx, members[2], r.Recovery, r.Shares[:2]); err == nil || !strings.Contains(err.Error(), "too few") {
		t.Errorf("recovery with two shares: %v", err)
	}
	bad := bytes.Clone(r.Recovery)
	bad[50] ^= 1
	if _, err := hsmpool.Recover(ctx, members[2], bad, r.Shares); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("recovery from damaged data: %v", err)
	}
	other, err := hsmpool.Recover(ctx, members[2], r.Recovery, [][]byte{r.Shares[4], r.Shares[0], r.Shares[2]})
	if err != nil || other != r.Group {
		t.Fatalf("Recover: %s, %v", other, err)
	}
	q := hsmtest.OpenConfig(t, hsmpool.Config{Members: members[2:], Group: r.Group})
	if got, err := q.Open(ctx, sealed, []byte("aad")); err != nil || string(got) != "store key" {
		t.Errorf("Open on c: %q, %v", got, err)
	}
	d := &hsmpool.Job{Op: hsmpool.DecryptGCM, Key: k, In: jobs[0].Out, Nonce: jobs[0].Nonce}
	if err := q.Do(ctx, d); err != nil || !bytes.Equal(d.Out, jobs[0].In) {
		t.Errorf("decrypt on c: %q, %v", d.Out, err)
	}

	// No master key lies extractable on any token, and nothing else was left there.
	for _, m := range []string{"c"} {
		err := hsmpool.WithLogin(q, m, func(ctx *pkcs11.Ctx, s session, seal, wrap object) error {
			if err := ctx.FindObjectsInit(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)}); err != nil {
				return err
			}
			found, _, err := ctx.FindObjects(s, 10)
			if err != nil {
				return err
			}
			if len(found) != 2 {
				t.Errorf("%d token objects on %s", len(found), m)
			}
			return ctx.FindObjectsFinal(s)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// relabel changes the labels of the master keys of a member, to make what an interruption leaves.
func relabel(t *testing.T, p *hsmpool.Pool, name string, seal, wrap string) {
	t.Helper()
	err := hsmpool.WithLogin(p, name, func(ctx *pkcs11.Ctx, s session, sealKey, wrapKey object) error {
		for h, label := range map[object]string{sealKey: seal, wrapKey: wrap} {
			if label == "" {
				if err := ctx.DestroyObject(s, h); err != nil {
					return err
				}
				continue
			}
			if err := ctx.SetAttributeValue(s, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCeremonyInterrupted(t *testing.T) {
	const seal, wrap, unfinished = "keyward seal key", "keyward wrap key", " (unfinished)"
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	open := func() *hsmpool.Pool {
		c := h.Config()
		c.Probe = time.Hour // it must not notice what is done to its keys
		return hsmtest.OpenConfig(t, c)
	}
	p := open()
	for _, c := range []struct {
		name string
		a, b [2]string // labels, empty: never made
		want string    // in the error of the next ceremony; empty: it works, and the next case goes on from there
	}{
		{"between two members", [2]string{seal, wrap}, [2]string{seal + unfinished, wrap + unfinished}, "interrupted in its last step"},
		{"between two names", [2]string{seal, wrap + unfinished}, [2]string{seal + unfinished, wrap + unfinished}, "interrupted in its last step"},
		{"before the names", [2]string{seal + unfinished, wrap + unfinished}, [2]string{seal + unfinished, wrap + unfinished}, ""},
		{"after the first key", [2]string{seal + unfinished, ""}, [2]string{"", ""}, ""},
		{"one key lost", [2]string{seal, ""}, [2]string{"", ""}, "already has master keys"},
	} {
		relabel(t, p, "a", c.a[0], c.a[1])
		relabel(t, p, "b", c.b[0], c.b[1])
		ctx := testContext(t)
		if _, err := hsmpool.Open(ctx, hsmpool.Config{Members: h.Members()[1:]}); err == nil {
			t.Errorf("%s: a member with no finished keys opened", c.name)
		}
		r, err := hsmpool.Ceremony(ctx, hsmpool.Config{Members: h.Members()}, 2, 2)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: the next ceremony: %v", c.name, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		h.Result = r
		p = open()
		for _, s := range p.Status() {
			if s.State != "up" {
				t.Errorf("%s: %+v", c.name, s)
			}
		}
	}
}

func TestCeremonyGivenUp(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := hsmpool.Ceremony(ctx, h.Config(), 3, 2); hsmpool.KindOf(err) != hsmpool.KindCanceled {
		t.Errorf("a ceremony nobody waits for: %v", err)
	}
	// The next waits for nothing of it: whatever it had begun is cleared away.
	h.Ceremony(t)
	p := h.Open(t)
	if _, err := p.Seal(testContext(t), []byte("x"), nil); err != nil {
		t.Error(err)
	}
}

func TestWrongConfig(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	m := h.Members()
	change := func(f func(m []hsmpool.MemberConfig)) []hsmpool.MemberConfig {
		m := h.Members()
		f(m)
		return m
	}
	for name, members := range map[string][]hsmpool.MemberConfig{
		"no members":       nil,
		"no name":          change(func(m []hsmpool.MemberConfig) { m[0].Name = "" }),
		"one name twice":   change(func(m []hsmpool.MemberConfig) { m[0].Name = m[1].Name }),
		"one token twice":  change(func(m []hsmpool.MemberConfig) { m[0].TokenLabel = m[1].TokenLabel }),
		"label and serial": change(func(m []hsmpool.MemberConfig) { m[0].TokenSerial = "1" }),
		"no token":         change(func(m []hsmpool.MemberConfig) { m[0].TokenLabel = "" }),
		"no module":        change(func(m []hsmpool.MemberConfig) { m[0].Module = "" }),
		"module missing":   {{Name: "a", Module: "/nonexistent/lib.so", TokenLabel: "x", PIN: m[0].PIN}},
		"no library":       {{Name: "a", Module: "ceremony_test.go", TokenLabel: "x", PIN: m[0].PIN}},
		"no PKCS#11":       {{Name: "a", Module: "libm.so.6", TokenLabel: "x", PIN: m[0].PIN}},
		"label's prefix":   {{Name: "a", Module: m[0].Module, TokenLabel: m[0].TokenLabel[:7], PIN: m[0].PIN}},
		"no PIN":           {{Name: "a", Module: m[0].Module, TokenLabel: m[0].TokenLabel}},
	} {
		p, err := hsmpool.Open(testContext(t), hsmpool.Config{Members: members})
		if err == nil {
			p.Close()
			t.Errorf("%s: opened", name)
			continue
		}
		t.Logf("%s: %v", name, err)
		if _, err := hsmpool.Ceremony(testContext(t), hsmpool.Config{Members: members}, 2, 2); err == nil {
			t.Errorf("%s: a ceremony was held", name)
		}
	}
}

func TestFewSessions(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	for _, n := range []int{1, 2, 3, 4, 6, 64} {
		c := h.Config()
		c.Members[0].MaxSessions = n
		c.Members = c.Members[:1]
		p := hsmtest.OpenConfig(t, c)
		k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
		jobs := gcmJobs(k, 500)
		p.DoAll(testContext(t), jobs)
		for _, j := range jobs {
			if j.Err != nil {
				t.Fatal(n, j.Err)
			}
		}
		for _, kt := range []hsmpool.KeyType{hsmpool.P256, hsmpool.Secp256k1} {
			if _, err := p.GeneratePinned(testContext(t), kt, hsmpool.UseSign, []byte("few"), ""); err != nil {
				t.Errorf("%d sessions: pinned: %v", n, err)
			}
			if _, err := p.DestroyPinned(testContext(t), "a", []byte("few")); err != nil {
				t.Errorf("%d sessions: destroy: %v", n, err)
			}
		}
		bad := &hsmpool.Job{Op: hsmpool.DecryptGCM, Key: k, In: make([]byte, 32), Nonce: make([]byte, 12)}
		for range 3 {
			if err := p.Do(testContext(t), bad); hsmpool.KindOf(err) != hsmpool.KindBadData {
				t.Errorf("%d sessions: bad data: %v", n, err)
			}
			if err := roundTrip(testContext(t), p, k, 2); err != nil {
				t.Errorf("%d sessions: after bad data: %v", n, err)
			}
		}
		s := p.Status()[0]
		// crypto11 keeps one beside ours where we share the process with it.
		if used, err := hsmpool.OpenSessions(p, "a"); err != nil || int(used) > max(n, 2) || s.Sessions > n {
			t.Errorf("%d sessions allowed: %d open (%d known), %v", n, used, s.Sessions, err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOneSession has a token with one session for us work, make keys, be looked at and lose its session, all at once.
// SoftHSM crashes if the session is closed while another thread is in it.
func TestOneSession(t *testing.T) {
	defer hsmpool.NoRenewLimit()()
	h := hsmtest.New(t, "a")
	h.Ceremony(t)
	c := h.Config()
	c.Members[0].MaxSessions = 2
	c.Probe = time.Millisecond
	p := hsmtest.OpenConfig(t, c)
	k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
	var wg sync.WaitGroup
	var done, made atomic.Int32
	ctx := untilDone(t, 500*time.Millisecond, func() bool { return done.Load() > 0 && made.Load() > 0 })
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := roundTrip(testContext(t), p, k, 1); err == nil {
					done.Add(1)
				} else if hsmpool.KindOf(err) != hsmpool.KindUnavailable {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			if _, err := p.Generate(testContext(t), hsmpool.AES256, hsmpool.UseEncrypt); err == nil {
				made.Add(1)
			} else if hsmpool.KindOf(err) != hsmpool.KindUnavailable {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			_ = hsmpool.KillSessions(p, "a", false) // closed: it is being opened
			time.Sleep(10 * time.Millisecond)
		}
	})
	wg.Wait()
	if done.Load() == 0 || made.Load() == 0 {
		t.Errorf("%d round trips, %d keys", done.Load(), made.Load())
	}
}
