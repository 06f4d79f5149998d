package hsmpool_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/hsmpool/hsmtest/faulty"
)

// underLoad runs f while callers use the keys without pause, and fails the test if a call fails.
func underLoad(t *testing.T, p *hsmpool.Pool, keys []*hsmpool.Key, f func(done *atomic.Int64)) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var done atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for ctx.Err() == nil {
				mine, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				if err := roundTrip(mine, p, keys[i%len(keys)], 1); err != nil {
					t.Errorf("under load: %v", err)
				}
				cancel()
				done.Add(1)
			}
		})
	}
	defer wg.Wait() // also if f ends the test
	defer stop()
	f(&done)
}

// progress waits until so many more calls are done.
func progress(t *testing.T, done *atomic.Int64, n int64) {
	t.Helper()
	want := done.Load() + n
	for end := time.Now().Add(20 * time.Second); done.Load() < want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing is done")
		}
	}
}

// bothWays runs a test with worker processes and without.
func bothWays(t *testing.T, h *hsmtest.HSM, test func(t *testing.T, c hsmpool.Config)) {
	t.Run("process", func(t *testing.T) { test(t, h.Isolated(1)) })
	t.Run("none", func(t *testing.T) { test(t, h.Config()) })
}

func loadKeys(t *testing.T, p *hsmpool.Pool) (keys []*hsmpool.Key) {
	for i := range 4 {
		k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
		k.ID = fmt.Sprint("load ", i)
		keys = append(keys, k)
	}
	return keys
}

// TestUpdate adds a member, configures it otherwise, has it fail to open with that, and removes it, all under load.
func TestUpdate(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	bothWays(t, h, func(t *testing.T, c hsmpool.Config) {
		both := c.Members
		c.Members = both[:1]
		p := hsmtest.OpenConfig(t, c)
		keys := loadKeys(t, p)
		pinned := &hsmpool.Key{ID: "pinned", Type: hsmpool.AES256, Usage: hsmpool.UseEncrypt, Member: "b", ObjectID: []byte(t.Name())}
		update := func(members ...hsmpool.MemberConfig) {
			t.Helper()
			c.Members = members
			if err := p.Update(c); err != nil {
				t.Fatal(err)
			}
		}
		underLoad(t, p, keys, func(done *atomic.Int64) {
			update(both[0], both[1])
			await(t, p, "b", "up")
			progress(t, done, 100)
			if _, err := p.GeneratePinned(testContext(t), hsmpool.AES256, hsmpool.UseEncrypt, pinned.ObjectID, "b"); err != nil {
				t.Fatal(err)
			}
			update(both[0], both[1]) // nothing has changed
			if s := p.Status(); len(s) != 2 || s[1].Since.After(time.Now()) || s[1].Restarts != 0 {
				t.Errorf("after an update that changed nothing: %+v", s)
			}

			changed := both[1]
			changed.MaxSessions = 5
			update(both[0], changed)
			progress(t, done, 200)
			if err := roundTrip(testContext(t), p, pinned, 3); err != nil {
				t.Errorf("a pinned key on a member that is replaced: %v", err)
			}
			await(t, p, "b", "up")

			wrong := changed
			wrong.TokenLabel = "no such token"
			update(both[0], wrong)
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				if s, reason := state(p, "b"); s == "up" && strings.Contains(reason, "no token with label") {
					break
				} else if time.Now().After(end) {
					t.Fatalf("a member whose new configuration is wrong is %s: %s", s, reason)
				}
			}
			if err := roundTrip(testContext(t), p, pinned, 3); err != nil {
				t.Errorf("a pinned key on a member whose new configuration is wrong: %v", err)
			}
			update(both[0], both[1])
			await(t, p, "b", "up")
			if _, err := p.DestroyPinned(testContext(t), "b", pinned.ObjectID); err != nil {
				t.Error(err)
			}
			update(both[0])
			progress(t, done, 100)
			update(both[1]) // one for the other
			await(t, p, "b", "up")
			progress(t, done, 100)
		})
		if s := p.Status(); len(s) != 1 || s[0].Name != "b" {
			t.Errorf("afterwards: %+v", s)
		}
		c.Members = nil
		if err := p.Update(c); err == nil {
			t.Error("took a configuration without members")
		}
	})
}

// TestDrain takes a member out of use, and puts it back, under load.
func TestDrain(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	bothWays(t, h, func(t *testing.T, c hsmpool.Config) {
		p := hsmtest.OpenConfig(t, c)
		keys := loadKeys(t, p)
		underLoad(t, p, keys, func(done *atomic.Int64) {
			for range 3 {
				if err := p.Drain(testContext(t), "a"); err != nil {
					t.Fatal(err)
				}
				before := p.Status()[0]
				if before.State != hsmpool.StateDraining || !strings.Contains(before.Reason, "operator") {
					t.Errorf("drained: %s, %s", before.State, before.Reason)
				}
				progress(t, done, 100)
				// It may be looked at, and that is all.
				if after := p.Status()[0]; after.InFlight > 1 || after.Latency.Sum != before.Latency.Sum {
					t.Errorf("a drained member works: %+v", after)
				}
				if err := p.Undrain("a"); err != nil {
					t.Fatal(err)
				}
				for end := time.Now().Add(10 * time.Second); p.Status()[0].Latency.Sum == before.Latency.Sum; time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Fatal("it does not work again")
					}
				}
			}
		})
		for _, m := range []string{"a", "b"} {
			if err := p.Drain(testContext(t), m); err != nil {
				t.Fatal(err)
			}
		}
		err := roundTrip(testContext(t), p, keys[0], 1)
		if hsmpool.KindOf(err) != hsmpool.KindUnavailable || !strings.Contains(err.Error(), "drained by an operator") {
			t.Errorf("with all members drained: %v", err)
		}
		if err := p.Drain(testContext(t), "nobody"); err == nil {
			t.Error("drained nobody")
		}
		for _, m := range []string{"a", "b"} {
			if err := p.Undrain(m); err != nil {
				t.Fatal(err)
			}
		}
		if err := roundTrip(testContext(t), p, keys[0], 3); err != nil {
			t.Error(err)
		}
	})
}

// TestEnroll brings the master keys into a third member while the others are used.
func TestEnroll(t *testing.T) {
	h := hsmtest.New(t, "a", "b", "c", "d")
	members := h.Members()
	ctx := testContext(t)
	r, err := hsmpool.Ceremony(ctx, hsmpool.Config{Members: members[:2]}, 3, 2)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := hsmpool.Ceremony(ctx, hsmpool.Config{Members: members[3:]}, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	// In this process enrolment is Recover, which has its own tests.
	c := h.Isolated(1)
	c.Group = r.Group
	c.Members = c.Members[:3]
	p := hsmtest.OpenConfig(t, c)
	keys := loadKeys(t, p)
	if s, reason := state(p, "c"); s != "down" || !strings.Contains(reason, "no master keys") {
		t.Errorf("a member without master keys is %s: %s", s, reason)
	}
	underLoad(t, p, keys, func(done *atomic.Int64) {
		if _, err := p.Enroll(ctx, "c", foreign.Recovery, foreign.Shares); hsmpool.KindOf(err) != hsmpool.KindBadData {
			t.Errorf("enrolled with another group's recovery data: %v", err)
		}
		if _, err := p.Enroll(ctx, "c", r.Recovery, r.Shares[:1]); err == nil {
			t.Error("enrolled with one share of two")
		}
		if _, err := p.Enroll(ctx, "a", r.Recovery, r.Shares[:2]); err == nil {
			t.Error("enrolled a member that has master keys")
		}
		group, err := p.Enroll(ctx, "c", r.Recovery, r.Shares[1:])
		// SoftHSM can say that a token has no PIN while another process logs in to it, which counts as a refusal as long as the
		// PIN was never taken. Then an operator has a look and reloads.
		for try := 0; err != nil && strings.Contains(err.Error(), "CKR_USER_PIN_NOT_INITIALIZED") && try < 3; try++ {
			if err := p.Update(c); err != nil {
				t.Fatal(err)
			}
			group, err = p.Enroll(ctx, "c", r.Recovery, r.Shares[1:])
		}
		if err != nil || group != r.Group {
			t.Fatalf("enrol: %s, %v", group, err)
		}
		await(t, p, "c", "up")
		before := p.Status()[2].Latency.Sum
		for end := time.Now().Add(10 * time.Second); p.Status()[2].Latency.Sum == before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the new member does not work")
			}
		}
	})
}

// workerOf gives the process of a member's first worker, and waits until it has one: a signal to the process 0 is one to everybody who runs this test.
func workerOf(t *testing.T, p *hsmpool.Pool, member int) int {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if pid := p.Status()[member].Workers[0].PID; pid != 0 {
			return pid
		}
	}
	t.Fatalf("no process: %+v", p.Status()[member])
	return 0
}

// TestAllGone kills both members' workers while their tokens are away: a clear error at once, and recovery alone.
func TestAllGone(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	p := hsmtest.OpenConfig(t, h.Isolated(1))
	keys := loadKeys(t, p)
	workers := []int{workerOf(t, p, 0), workerOf(t, p, 1)}
	h.Remove(t, "a")
	h.Remove(t, "b")
	for _, pid := range workers {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH { // who looks at a member may have ended it already
			t.Fatal(err)
		}
	}
	await(t, p, "a", "down")
	await(t, p, "b", "down")
	_ = roundTrip(testContext(t), p, keys[0], 1) // it may wait for workers that are being started again
	for range 10 {
		start := time.Now()
		err := roundTrip(testContext(t), p, keys[0], 1)
		if hsmpool.KindOf(err) != hsmpool.KindUnavailable || !strings.Contains(err.Error(), "a: ") || !strings.Contains(err.Error(), "b: ") {
			t.Fatalf("with no member: %v", err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("it took %v to say so", d)
		}
	}
	h.Restore(t, "b")
	await(t, p, "b", "up")
	if err := roundTrip(testContext(t), p, keys[0], 3); err != nil {
		t.Fatal(err)
	}
	h.Restore(t, "a")
	await(t, p, "a", "up")
}

// TestWarm kills the only member's worker: it comes back with the keys that were used most, and jobs wait for it.
func TestWarm(t *testing.T) {
	h := hsmtest.New(t, "a")
	h.Ceremony(t)
	m := faulty.New(t, hsmtest.Module)
	c := h.Isolated(1)
	c.Members[0].Module = m.Path
	c.Probe = 200 * time.Millisecond
	p := hsmtest.OpenConfig(t, c)
	keys := loadKeys(t, p)
	ctx := testContext(t)
	for _, k := range keys {
		if err := roundTrip(ctx, p, k, 2); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(2 * c.Probe); time.Now().Before(end); { // it is well for long enough to be worth waiting for
		if err := roundTrip(ctx, p, keys[0], 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Kill(workerOf(t, p, 0), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// There is nobody else, so the job waits.
	if err := roundTrip(ctx, p, keys[0], 1); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); p.Status()[0].Keys < len(keys) || p.Status()[0].Restarts != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d keys are loaded again: %+v", p.Status()[0].Keys, p.Status())
		}
	}
	before := m.Calls("C_UnwrapKey")
	for _, k := range keys {
		if err := roundTrip(ctx, p, k, 2); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.Calls("C_UnwrapKey") - before; n != 0 {
		t.Errorf("%d keys had to be loaded", n)
	}
}

// TestWrongPINIsolated gives a member with three workers a wrong PIN: the module sees it once, until an operator acts.
func TestWrongPINIsolated(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	m := faulty.New(t, hsmtest.Module)
	c := h.Isolated(1)
	c.Probe = 20 * time.Millisecond
	c.Members[0].Module = m.Path
	c.Members[0].Workers = 3
	right := c.Members[0].PIN
	var wrong atomic.Bool
	wrong.Store(true)
	var marks atomic.Int32
	c.Members[0].PIN = func() ([]byte, error) {
		if wrong.Load() {
			return []byte("wrong pin"), nil
		}
		return right()
	}
	c.Members[0].Refused = func() (string, error) { marks.Add(1); return "do something", nil }
	p := hsmtest.OpenConfig(t, c)
	await(t, p, "a", "down")
	looks := p.Status()[1].Done
	for p.Status()[1].Done < looks+20 { // the other is looked at as often as this one is tried
		time.Sleep(time.Millisecond)
	}
	s, reason := state(p, "a")
	if n := m.Calls("C_Login"); n != 1 || s != "down" || marks.Load() != 1 || !strings.Contains(reason, "do something") {
		t.Errorf("%d logins, %d marks; it is %s: %s", n, marks.Load(), s, reason)
	}
	// An operator's act that mends nothing is one more try, and no more.
	if err := p.Update(c); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); m.Calls("C_Login") < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not tried again")
		}
	}
	looks = p.Status()[1].Done
	for p.Status()[1].Done < looks+20 {
		time.Sleep(time.Millisecond)
	}
	if n := m.Calls("C_Login"); n != 2 {
		t.Errorf("%d logins", n)
	}
	wrong.Store(false)
	if err := p.Update(c); err != nil {
		t.Fatal(err)
	}
	await(t, p, "a", "up")
	k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
	if err := roundTrip(testContext(t), p, k, 10); err != nil {
		t.Error(err)
	}
}

// TestSwappedToken puts another group's token in the place of one that is known by its label: it is refused by its check value.
func TestSwappedToken(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	members := h.Members()
	ctx := testContext(t)
	ra, err := hsmpool.Ceremony(ctx, hsmpool.Config{Members: members[:1]}, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hsmpool.Ceremony(ctx, hsmpool.Config{Members: members[1:]}, 2, 2); err != nil {
		t.Fatal(err)
	}
	c := h.Isolated(1)
	c.Group = ra.Group
	p := hsmtest.OpenConfig(t, c)
	if s, reason := state(p, "b"); s != "down" || !strings.Contains(reason, "another group's HSM") {
		t.Errorf("a token of another group is %s: %s", s, reason)
	}
	k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
	if err := roundTrip(ctx, p, k, 3); err != nil {
		t.Error(err)
	}
	var e *hsmpool.Error
	if err := p.Drain(ctx, "c"); !errors.As(err, &e) {
		t.Errorf("%v", err)
	}
}
