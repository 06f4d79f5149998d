package hsmpool

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/pkcs11"
)

// fakeToken opens at most max sessions, whatever it says.
type fakeToken struct {
	mu   sync.Mutex
	max  int
	next pkcs11.SessionHandle
	open map[pkcs11.SessionHandle]bool
}

func (f *fakeToken) openSession() (pkcs11.SessionHandle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.open) >= f.max {
		return 0, pkcs11.Error(pkcs11.CKR_SESSION_COUNT)
	}
	f.next++
	f.open[f.next] = true
	return f.next, nil
}

func (f *fakeToken) closeSession(h pkcs11.SessionHandle) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, h)
}

func TestSessionStackLearns(t *testing.T) {
	f := &fakeToken{max: 3, open: map[pkcs11.SessionHandle]bool{}}
	s := newSessionStack(16, f.openSession, f.closeSession)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range 50 {
				h, err := s.get()
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(10 * time.Microsecond) // so that several are wanted at once
				if i%7 == 0 {
					s.drop(h)
				} else {
					s.put(h)
				}
			}
		})
	}
	wg.Wait()
	if left := cap(s.places) - len(s.places); left > 3 || left < 1 || s.size() > 3 {
		t.Errorf("%d places left, %d open", left, s.size())
	}
	s.closeIdle()
	if len(f.open) != 0 {
		t.Errorf("%d sessions leaked", len(f.open))
	}
}

func TestSessionStackLIFO(t *testing.T) {
	f := &fakeToken{max: 9, open: map[pkcs11.SessionHandle]bool{}}
	s := newSessionStack(9, f.openSession, f.closeSession)
	var h [3]pkcs11.SessionHandle
	for i := range h {
		h[i], _ = s.get()
	}
	for _, x := range h {
		s.put(x)
	}
	if got, _ := s.get(); got != h[2] {
		t.Errorf("got session %d, want the last given back, %d", got, h[2])
	}
}

// TestSessionStackFair has somebody wait for the one session while its owner gives it back and wants it again at once.
func TestSessionStackFair(t *testing.T) { synctest.Test(t, testSessionStackFair) }

func testSessionStackFair(t *testing.T) {
	f := &fakeToken{max: 1, open: map[pkcs11.SessionHandle]bool{}}
	s := newSessionStack(1, f.openSession, f.closeSession)
	h, _ := s.get()
	var served atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		h, err := s.get()
		if err != nil {
			t.Error(err)
		}
		served.Store(true)
		s.put(h)
	})
	synctest.Wait() // until it waits
	s.put(h)
	h, _ = s.get()
	if !served.Load() {
		t.Error("who came later was served first")
	}
	s.put(h)
	wg.Wait()
}

func TestSessionStackNone(t *testing.T) {
	f := &fakeToken{}
	s := newSessionStack(4, f.openSession, f.closeSession)
	if _, err := s.get(); err != pkcs11.Error(pkcs11.CKR_SESSION_COUNT) {
		t.Errorf("from a token without sessions: %v", err)
	}
}

func TestGate(t *testing.T) {
	var g gate
	g.enter()
	if start := time.Now(); g.lock(20*time.Millisecond) || time.Since(start) < 20*time.Millisecond {
		t.Fatal("locked with somebody inside")
	}
	if !g.tryEnter() { // it is open again
		t.Fatal("shut after a lock that failed")
	}
	g.leave()
	locked := make(chan bool)
	go func() { locked <- g.lock(10 * time.Second) }()
	for g.tryEnter() { // until it is shut
		g.leave()
	}
	g.leave()
	if !<-locked {
		t.Fatal("not locked when empty")
	}
	if g.lock(time.Millisecond) {
		t.Fatal("locked twice")
	}
	entered := make(chan struct{})
	go func() { g.enter(); close(entered) }()
	select {
	case <-entered:
		t.Fatal("entered a shut gate")
	case <-time.After(20 * time.Millisecond):
	}
	g.unlock()
	<-entered
	g.leave()

	// Owners and callers by turns, never together.
	var wg sync.WaitGroup
	shared := 0
	for range 4 {
		wg.Go(func() {
			for range 500 {
				g.enter()
				_ = shared // the race detector looks
				g.leave()
			}
		})
		wg.Go(func() {
			for range 50 {
				if g.lock(10 * time.Second) {
					shared++
					g.unlock()
				}
			}
		})
	}
	wg.Wait()
	if shared != 200 {
		t.Errorf("%d owners of 200", shared)
	}
}

// TestSessionStackClosing: how many sessions there are can be asked while closing one hangs.
func TestSessionStackClosing(t *testing.T) {
	hold, closing := make(chan struct{}), make(chan struct{})
	s := newSessionStack(2, func() (pkcs11.SessionHandle, error) { return 1, nil }, func(pkcs11.SessionHandle) {
		close(closing)
		<-hold
	})
	h, err := s.get()
	if err != nil {
		t.Fatal(err)
	}
	s.put(h)
	ended := make(chan struct{})
	go func() { s.closeIdle(); close(ended) }()
	<-closing
	defer close(hold) // also if it waits
	asked := make(chan int, 1)
	go func() { asked <- s.size() }()
	within(t, "the number of sessions", 20*time.Second, asked)
	hold <- struct{}{}
	<-ended
	if n := s.size(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}
