package pkcs11front

import (
	"sync"
	"time"

	"github.com/keyward/keyward/pkcs11front/ck"
)

// session is a PKCS #11 session.
type session struct {
	app      *application
	id       uint64
	instance string // its slot's
	rw       bool

	// mu is held while a call of the session is answered. It guards what follows. The locks of Front and application are taken
	// under it, never the other way round, and never that of another session.
	mu     sync.Mutex
	closed bool
	search *search    // between C_FindObjectsInit and C_FindObjectsFinal
	ops    operations // what is between an Init and its end
}

// close ends what the session was doing. It was taken out of its application before, and its mu is held.
func (s *session) close() {
	s.closed = true
	s.ops.wipe()
	s.search = nil
}

// closeSessions closes sessions that were taken out of an application of the user. It waits for those that are answering a call, so
// no session's mu may be held.
func (f *Front) closeSessions(uid uint32, all []*session) {
	for _, s := range all {
		s.mu.Lock()
		s.close()
		s.mu.Unlock()
	}
	f.giveSessions(uid, len(all))
}

// state is the session's, by the login to its token (PKCS #11 2.40 §4.4).
func (s *session) state() ck.State {
	in := s.app.loggedIn(s.instance).in
	switch {
	case s.rw && in:
		return ck.CKS_RW_USER_FUNCTIONS
	case s.rw:
		return ck.CKS_RW_PUBLIC_SESSION
	case in:
		return ck.CKS_RO_USER_FUNCTIONS
	}
	return ck.CKS_RO_PUBLIC_SESSION
}

// privateAllowed says whether private objects (CKA_PRIVATE) exist for the request, which is one of a session: without a PIN always,
// with one after a login with it. If it can't be told, they do not.
func (q *request) privateAllowed() bool {
	a, instance := q.app, q.session.instance
	a.mu.Lock()
	now := time.Now()
	allowed := a.logins[instance].pin || now.Before(a.pinless)
	a.mu.Unlock()
	if allowed {
		return true
	}
	t, rv := q.token(instance)
	if rv != ck.CKR_OK || t.PIN {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.principal != q.actor().Principal {
		return false
	}
	a.pinless = now.Add(a.front.cfg.times.pinless)
	return true
}
