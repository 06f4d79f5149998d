package hsmpool_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
)

// loadOn uses a key on each member.
func loadOn(t *testing.T, p *hsmpool.Pool, k *hsmpool.Key, members ...string) {
	t.Helper()
	for _, m := range members {
		for _, other := range members {
			if other != m {
				if err := p.Drain(testContext(t), other); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := roundTrip(testContext(t), p, k, 1); err != nil {
			t.Fatalf("on %s: %v", m, err)
		}
		for _, other := range members {
			if err := p.Undrain(other); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// keysOn waits until each member says that it has so many keys loaded. Worker processes tell a moment later.
func keysOn(t *testing.T, p *hsmpool.Pool, want int) {
	t.Helper()
	var got []int
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		got = nil
		for _, s := range p.Status() {
			got = append(got, s.Keys)
		}
		if !slices.ContainsFunc(got, func(n int) bool { return n != want }) {
			return
		}
	}
	t.Fatalf("%v keys are loaded, want %d on each", got, want)
}

func objectsOn(t *testing.T, p *hsmpool.Pool, want int) {
	t.Helper()
	for _, m := range []string{"a", "b"} {
		if n, err := hsmpool.SessionKeys(p, m); n != want || err != nil {
			t.Errorf("%d session objects on %s, want %d, %v", n, m, want, err)
		}
	}
}

// TestForget has members forget keys that they have loaded, in this process and in others.
func TestForget(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	for name, c := range map[string]hsmpool.Config{"in process": h.Config(), "isolated": h.Isolated(1)} {
		t.Run(name, func(t *testing.T) {
			c.Probe = time.Hour // in the members' hands is what the test asks for, and nothing else
			p := hsmtest.OpenConfig(t, c)
			inProcess := len(c.Worker) == 0
			ctx := testContext(t)
			var keys []*hsmpool.Key
			var ids []string
			for i := range 3 {
				k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
				k.ID = fmt.Sprint("key", i)
				loadOn(t, p, k, "a", "b")
				keys, ids = append(keys, k), append(ids, k.ID)
			}
			keysOn(t, p, 3)
			if inProcess {
				objectsOn(t, p, 3)
			}
			// A drained member has its keys still.
			if err := p.Drain(ctx, "b"); err != nil {
				t.Fatal(err)
			}
			if err := p.Forget(ctx, ids[0], ids[2], "never seen"); err != nil {
				t.Fatal(err)
			}
			if err := p.Undrain("b"); err != nil {
				t.Fatal(err)
			}
			if inProcess {
				objectsOn(t, p, 1)
			}
			keysOn(t, p, 1)
			for _, k := range keys {
				loadOn(t, p, k, "a", "b")
			}
			keysOn(t, p, 3)
			if err := p.Forget(ctx, ids...); err != nil {
				t.Fatal(err)
			}
			if inProcess {
				objectsOn(t, p, 0)
			}
			keysOn(t, p, 0)
			for _, id := range []string{"", string(make([]byte, 129))} {
				if err := p.Forget(ctx, id); err == nil {
					t.Errorf("a key is called %q", id)
				}
			}
			for _, s := range p.Status() {
				if s.State != hsmpool.StateUp || s.Restarts != 0 || s.InFlight != 0 {
					t.Errorf("afterwards: %+v", s)
				}
			}
		})
	}
}

// TestForgetInUse has members forget keys all the time while they are used: every result is right, and nothing stays behind.
func TestForgetInUse(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	for name, c := range map[string]hsmpool.Config{"in process": h.Config(), "isolated": h.Isolated(1)} {
		t.Run(name, func(t *testing.T) {
			p := hsmtest.OpenConfig(t, c)
			ctx := testContext(t)
			var keys []*hsmpool.Key
			var ids []string
			for i := range 4 {
				k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
				k.ID = fmt.Sprint("key", i)
				keys, ids = append(keys, k), append(ids, k.ID)
			}
			var users, forgetters sync.WaitGroup
			used := make(chan struct{})
			for i := range 8 {
				users.Go(func() {
					for j := range 60 {
						k := keys[(i+j)%len(keys)]
						if err := roundTrip(ctx, p, k, 1); err != nil {
							t.Errorf("%s: %v", k.ID, err)
							return
						}
						if j%10 == 0 { // who gives up leaves a job in a worker's hands
							gone, cancel := context.WithTimeout(ctx, 50*time.Microsecond)
							_ = p.Do(gone, &hsmpool.Job{Op: hsmpool.EncryptGCM, Key: k, In: []byte("x"), Nonce: make([]byte, 12)})
							cancel()
						}
					}
				})
			}
			times := 0
			forgetters.Go(func() {
				for {
					select {
					case <-used:
						return
					default:
					}
					if err := p.Forget(ctx, ids...); err != nil {
						t.Error(err)
						return
					}
					times++
				}
			})
			users.Wait()
			close(used)
			forgetters.Wait()
			if times < 3 {
				t.Errorf("forgotten %d times only", times)
			}
			// The last callers may have given up: their jobs, which come after those that Forget waits for, load keys still.
			drained(t, p)
			if err := p.Forget(ctx, ids...); err != nil {
				t.Fatal(err)
			}
			if len(c.Worker) == 0 {
				objectsOn(t, p, 0)
			}
			keysOn(t, p, 0)
		})
	}
}
