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

	// places holds a value for each session that somebody has, and one for each that the token turned out not to have. It is
	// full at the limit. Who waits is served in order: a long task gets its session however busy the others are.
	places chan struct{}

	mu    sync.Mutex
	idle  []pkcs11.SessionHandle
	count int // open, idle or not
}

func newSessionStack(limit int, open func() (pkcs11.SessionHandle, error), close func(pkcs11.SessionHandle)) *sessionStack {
	return &sessionStack{open: open, close: close, places: make(chan struct{}, limit)}
}

// get gives a session, a new one if none is idle and the limit allows, and else waits until one is given back: who
// has one is in a call that ends.
func (s *sessionStack) get() (pkcs11.SessionHandle, error) {
	for {
		s.places <- struct{}{}
		if h, err, ok := s.fill(); ok {
			return h, err
		}
	}
}

// tryGet is get that does not wait: ok is false if it would have to.
func (s *sessionStack) tryGet() (h pkcs11.SessionHandle, err error, ok bool) {
	for {
		select {
		case s.places <- struct{}{}:
		default:
			return 0, nil, false
		}
		if h, err, ok := s.fill(); ok {
			return h, err, true
		}
	}
}

// fill gives the session of a place that was just taken. It is not ok if the token has fewer sessions than it said: the place stays
// taken then, and as the others have theirs, one is left.
func (s *sessionStack) fill() (h pkcs11.SessionHandle, err error, ok bool) {
	s.mu.Lock()
	if n := len(s.idle); n > 0 {
		h := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		return h, nil, true
	}
	s.count++
	s.mu.Unlock()
	if h, err = s.open(); err == nil {
		return h, nil, true
	}
	s.mu.Lock()
	s.count--
	others := s.count
	s.mu.Unlock()
	if others == 0 || !errors.Is(err, pkcs11.Error(pkcs11.CKR_SESSION_COUNT)) {
		<-s.places
		return 0, err, true
	}
	return 0, nil, false
}

// put gives a session back in which every call succeeded.
func (s *sessionStack) put(h pkcs11.SessionHandle) {
	s.mu.Lock()
	s.idle = append(s.idle, h)
	s.mu.Unlock()
	<-s.places
}

// drop closes a session in which a call failed.
func (s *sessionStack) drop(h pkcs11.SessionHandle) {
	s.close(h)
	s.mu.Lock()
	s.count--
	s.mu.Unlock()
	<-s.places
}

// closeIdle closes the idle sessions: all, if nobody has one.
func (s *sessionStack) closeIdle() {
	s.mu.Lock()
	idle := s.idle
	s.idle = nil
	s.mu.Unlock()
	for _, h := range idle {
		s.close(h) // without the lock: status asks for the count, and this may take
	}
	s.mu.Lock()
	s.count -= len(idle)
	s.mu.Unlock()
}

// open sessions, for status.
func (s *sessionStack) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}
