package hsmpool_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/hsmpool/hsmtest/faulty"
)

// TestWaitingIsNotStuck has tasks wait for others in a worker for longer than a call may take: for the one session while a key is
// made, for a session of few, and for their turn to load a key where that is slow.
func TestWaitingIsNotStuck(t *testing.T) {
	h := hsmtest.New(t, "a")
	h.Ceremony(t)
	for _, c := range []struct {
		name     string
		sessions int
		slow     string
		delay    time.Duration
		keys     int
		generate bool
	}{
		{"one session", 1, "C_GenerateKey", 1500 * time.Millisecond, 1, true},
		{"two sessions", 2, "C_GenerateKey", 1500 * time.Millisecond, 1, true},
		{"loading", 19, "C_UnwrapKey", 100 * time.Millisecond, 16, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := faulty.New(t, h.Members()[0].Module)
			config := h.Isolated(1)
			config.Members[0].Module = m.Path
			config.Members[0].MaxSessions = c.sessions
			config.Members[0].CallTimeout = 500 * time.Millisecond
			p := hsmtest.OpenConfig(t, config)
			_, g := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			m.Delay(c.slow, c.delay, 0)
			var wg sync.WaitGroup
			if c.generate {
				wg.Go(func() {
					if _, err := p.Generate(ctx, hsmpool.AES256, hsmpool.UseEncrypt); err != nil {
						t.Error(err)
					}
				})
				for m.Calls(c.slow) < 2 && ctx.Err() == nil {
					time.Sleep(time.Millisecond)
				}
			}
			for i := range 2 * c.keys {
				k := &hsmpool.Key{ID: fmt.Sprint("key ", i%c.keys), Type: hsmpool.AES256, Usage: hsmpool.UseEncrypt, Wrapped: g.Wrapped}
				wg.Go(func() {
					if err := roundTrip(ctx, p, k, 1); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if s := p.Status()[0]; s.Restarts != 0 || s.State != hsmpool.StateUp {
				t.Errorf("it is %s (%s) after %d restarts", s.State, s.Reason, s.Restarts)
			}
		})
	}
}
