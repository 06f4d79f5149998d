package hsmpool_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/hsmpool/hsmtest/faulty"
)

// TestScarceSessions has many callers use a token that has few sessions, or one, through a worker process. The anchor session works
// too there, and must neither be lost for a caller's bad data nor cost a call when it fails.
func TestScarceSessions(t *testing.T) {
	for _, limit := range []uint{16, 4, 2, 1} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) { testScarceSessions(t, limit) })
	}
}

func testScarceSessions(t *testing.T, limit uint) {
	h := hsmtest.New(t, "a")
	h.Ceremony(t)
	m := faulty.New(t, hsmtest.Module)
	m.SessionLimit(limit)
	c := h.Isolated(1)
	c.Members[0].Module = m.Path
	c.Probe = 50 * time.Millisecond // the member is looked at while it works
	p := hsmtest.OpenConfig(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()

	// Who watches the token sees every session that anybody opens.
	watched, stop := make(chan struct{}), make(chan struct{})
	most := 0
	go func() {
		defer close(watched)
		for {
			most = max(most, m.Sessions())
			select {
			case <-stop:
				return
			case <-time.After(500 * time.Microsecond):
			}
		}
	}()
	aes, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
	ec, g := wrappedKey(t, p, hsmpool.P256, hsmpool.UseSign)
	if len(g.PublicKey) == 0 {
		t.Error("no public key")
	}
	m.Delay("C_Encrypt", time.Millisecond, 0) // so that all sessions are wanted at once

	// load has 32 callers work, each so many times, one of eight with bad data among the good.
	load := func(name string, times int) {
		t.Helper()
		var wg sync.WaitGroup
		var failed atomic.Int32
		for caller := range 32 {
			wg.Go(func() {
				for i := range times {
					var err error
					switch {
					case caller%8 == 3:
						bad := &hsmpool.Job{Op: hsmpool.DecryptGCM, Key: aes, In: bytes.Repeat([]byte{byte(i)}, 40), Nonce: make([]byte, 12)}
						if got := p.Do(ctx, bad); hsmpool.KindOf(got) != hsmpool.KindBadData || got == nil {
							err = fmt.Errorf("bad data: %w", got)
						}
					case caller%8 == 4:
						j := &hsmpool.Job{Op: hsmpool.SignECDSA, Key: ec, In: make([]byte, 32)}
						err = p.Do(ctx, j)
					default:
						err = roundTrip(ctx, p, aes, 1)
					}
					if err != nil && failed.Add(1) <= 3 {
						t.Errorf("%s: caller %d: %v", name, caller, err)
					}
				}
			})
		}
		wg.Wait()
		if n := failed.Load(); n > 3 {
			t.Errorf("%s: %d calls failed", name, n)
		}
	}
	load("well", 20)
	if n := m.Calls("C_Login"); n != 1 {
		t.Errorf("%d logins: bad data cost the login", n)
	}
	s := p.Status()[0]
	if n := s.Codes["CKR_SESSION_COUNT"]; n != 0 {
		t.Errorf("the token had to refuse a session %d times", n)
	}
	if s.Restarts != 0 || s.State != hsmpool.StateUp || s.Lanes > int(limit) || s.Lanes < 1 {
		t.Errorf("%+v", s)
	}
	// A session fails in the middle of the load, once in an operation that has begun and once in one that has not.
	for _, fn := range []string{"C_EncryptInit", "C_Encrypt"} {
		m.Fail(fn, pkcs11.CKR_DEVICE_ERROR, faulty.Before, 1)
		load(fn+" fails", 10)
		if m.Fired(fn) != 1 {
			t.Errorf("%s did not fail", fn)
		}
	}
	close(stop)
	<-watched
	if most > int(limit) || most < 1 {
		t.Errorf("%d sessions were open, of %d", most, limit)
	}
	if most < int(min(limit, 2)) { // how many are worth it is the window's affair
		t.Errorf("%d sessions of %d were used by 32 callers", most, limit)
	}
	t.Logf("%d sessions at most, %d logins, %d restarts, codes %v", most, m.Calls("C_Login"), p.Status()[0].Restarts, p.Status()[0].Codes)
}

// TestScarceAnchorFails has operations fail on a token with two sessions until one in the anchor was among them, which a new login
// shows: whoever worked in it gets a result all the same.
func TestScarceAnchorFails(t *testing.T) {
	h := hsmtest.New(t, "a")
	h.Ceremony(t)
	m := faulty.New(t, hsmtest.Module)
	m.SessionLimit(2)
	c := h.Isolated(1)
	c.Members[0].Module = m.Path
	c.Members[0].MaxSessions = 2 // both are to be at work, however many processors there are
	p := hsmtest.OpenConfig(t, c)
	ctx := testContext(t)
	k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
	m.Delay("C_Encrypt", 5*time.Millisecond, 0)
	var wg sync.WaitGroup
	var ended atomic.Bool
	for range 8 {
		wg.Go(func() {
			for !ended.Load() {
				if err := roundTrip(ctx, p, k, 1); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 60 {
		if m.Calls("C_Login") > 1 {
			break
		}
		m.Fail("C_Encrypt", pkcs11.CKR_DEVICE_ERROR, faulty.Before, 1)
		for end := time.Now().Add(10 * time.Second); m.Fired("C_Encrypt") == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		}
		if m.Fired("C_Encrypt") != 1 {
			t.Error("nothing failed")
		}
		// Until what came of it is seen.
		if err := roundTrip(ctx, p, k, 4); err != nil {
			t.Error(err)
		}
	}
	ended.Store(true)
	wg.Wait()
	if n := m.Calls("C_Login"); n < 2 {
		t.Errorf("%d logins: the anchor never failed", n)
	}
	await(t, p, "a", "up")
	if n := m.Sessions(); n > 2 {
		t.Errorf("%d sessions", n)
	}
}
