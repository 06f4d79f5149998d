package pkcs11front

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyward/keyward/kms"
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

	abandoned atomic.Bool // by abandon
}

// abandon ends all operations and the search before the session's next call. It may be called without the session's mu: at a logout, by a call of
// another session.
func (s *session) abandon() { s.abandoned.Store(true) }

// operations gives what is active, without what was abandoned: each call of an operation or a search begins with it.
func (s *session) operations() *operations {
	if s.abandoned.Load() && s.abandoned.Swap(false) {
		s.ops.wipe()
		s.endSearch()
	}
	return &s.ops
}

// searching gives the search, nil if there is none.
func (s *session) searching() *search {
	s.operations()
	return s.search
}

// close ends what the session was doing. It was taken out of its application before, and its mu is held.
func (s *session) close() {
	s.closed = true
	s.ops.wipe()
	s.endSearch()
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

// state is the session's, by the login to its token (PKCS #11 2.40 §4.4), while the principal has this PIN.
func (s *session) state(pin kms.PINName) ck.State {
	in := s.app.loggedIn(s.instance).good(pin)
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
	allowed := now.Before(a.logins[instance].until)
	a.mu.Unlock()
	if allowed {
		return true
	}
	t, rv := q.token(instance)
	if rv != ck.CKR_OK {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.logins[instance]
	switch {
	case a.principal != q.actor().Principal:
		return false
	case t.PIN != "" && !l.good(t.PIN):
		a.logOut(instance) // with another PIN, which was changed since
		return false
	}
	l.until = now.Add(a.front.cfg.times.login)
	a.logins[instance] = l
	return true
}
