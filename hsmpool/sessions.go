package hsmpool

import (
	"errors"
	"sync"

	"github.com/miekg/pkcs11"
)

// sessionStack keeps the work sessions of one login epoch, last in first out, so that the few that are needed stay warm.
// A session belongs to one thread between get and put or drop.
type sessionStack struct {
	open  func() (pkcs11.SessionHandle, error)
	close func(pkcs11.SessionHandle)

	mu    sync.Mutex
	freed *sync.Cond
	idle  []pkcs11.SessionHandle
	count int // open, idle or not
	limit int // shrinks when the token says that it has no more
}

func newSessionStack(limit int, open func() (pkcs11.SessionHandle, error), close func(pkcs11.SessionHandle)) *sessionStack {
	s := &sessionStack{open: open, close: close, limit: limit}
	s.freed = sync.NewCond(&s.mu)
	return s
}

// get gives a session, a new one if none is idle and the limit allows, and else waits until one is given back: who
// has one is in a call that ends.
func (s *sessionStack) get() (pkcs11.SessionHandle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if n := len(s.idle); n > 0 {
			h := s.idle[n-1]
			s.idle = s.idle[:n-1]
			return h, nil
		}
		if s.count < s.limit {
			s.count++
			s.mu.Unlock()
			h, err := s.open()
			s.mu.Lock()
			if err == nil {
				return h, nil
			}
			s.count--
			if !errors.Is(err, pkcs11.Error(pkcs11.CKR_SESSION_COUNT)) || s.count == 0 {
				s.freed.Signal()
				return 0, err
			}
			// The token has fewer than it said: it stays at what is open.
			s.limit = s.count
			continue
		}
		s.freed.Wait()
	}
}

// put gives a session back in which every call succeeded.
func (s *sessionStack) put(h pkcs11.SessionHandle) {
	s.mu.Lock()
	s.idle = append(s.idle, h)
	s.mu.Unlock()
	s.freed.Signal()
}

// drop closes a session in which a call failed.
func (s *sessionStack) drop(h pkcs11.SessionHandle) {
	s.close(h)
	s.mu.Lock()
	s.count--
	s.mu.Unlock()
	s.freed.Signal()
}

// closeAll closes the idle sessions. Nobody may have one.
func (s *sessionStack) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.idle {
		s.close(h)
	}
	s.idle, s.count = nil, 0
}

// open sessions, for status.
func (s *sessionStack) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}
