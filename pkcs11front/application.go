package pkcs11front

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
)

// Limits of one application's session objects, which are in the daemon's memory.
const (
	maxSessionObjects      = 4096
	maxSessionObjectOctets = 8 << 20
)

// application is one process's use of the library: what PKCS #11 calls an application. It begins with C_Initialize and is ended by
// C_Finalize, or when its last connection is gone (for keyward's module a while later, so that it can come back).
//
// It belongs to one principal. When a reload makes somebody else of the peer, everything in it is void: see admit.
type application struct {
	front  *Front
	peer   Peer   // of the first connection; those that join have the same user, group and process
	cookie string // empty: a client of p11-kit, with one connection
	epoch  uint64 // tells a client that comes back whether it is the application that it knew

	gathered atomic.Int64 // octets that operations and searches hold: see holdMore
	memory   *memory      // of the user: what gathered and octets count, counts there too

	// Guarded by Front.mu.
	conns  int         // that it has
	linger *time.Timer // ends it; nil while it has connections
	left   time.Time   // when the last one went
	gone   bool        // it is ending, and nobody can join

	mu        sync.Mutex // guards what follows; held for moments, and no other lock is taken under it
	ended     bool
	principal string // whose it is; empty: nobody's that keyward knows
	sessions  map[uint64]*session
	objects   map[handle]*heldObject
	octets    int              // of objects, and reserved
	reserved  int              // objects that are going to be added
	destroyed []kms.KeyPlace   // of keys of the KMS: the latest few
	logins    map[string]login // by instance
}

// heldObject is a session object in its application.
type heldObject struct {
	sessionObject
	owner *session // ends it
}

// login is a user's login to a token, or that a token was found to need none.
type login struct {
	in    bool
	pin   kms.PINName // that was checked; empty: the principal had none
	until time.Time   // private objects exist for the application until the principal's PIN is looked at again
}

// good says whether a login is one while the principal has this PIN: a login from before it was set is none any more, and one with a PIN that
// is gone since is as good as one without.
func (l login) good(now kms.PINName) bool { return l.in && (now == "" || l.pin == now) }

func newApplication(f *Front, peer Peer, of *memory, cookie, principal string) *application {
	return &application{front: f, peer: peer, memory: of, cookie: cookie, epoch: draw(), principal: principal,
		sessions: map[uint64]*session{}, objects: map[handle]*heldObject{}, logins: map[string]login{}}
}

// samePeer says whether a connection may join.
func (a *application) samePeer(p Peer) bool {
	return a.peer.UID == p.UID && a.peer.GID == p.GID && a.peer.PID == p.PID
}

// admit begins a call of the actor's, nil for somebody that keyward does not know, and finds the session that it names, if it is one of a session.
//
// If the application was somebody else's until now, its sessions, logins and session objects end first: what one principal has unlocked
// or made is nothing that another may use.
func (a *application) admit(actor *kms.Actor, ofSession bool, id uint64) (*session, ck.RV) {
	principal := ""
	if actor != nil {
		principal = actor.Principal
	}
	a.mu.Lock()
	if a.ended {
		a.mu.Unlock()
		return nil, ck.CKR_CRYPTOKI_NOT_INITIALIZED
	}
	if a.principal != principal {
		closing := a.clear()
		a.principal = principal
		a.mu.Unlock()
		a.front.closeSessions(a.peer.UID, closing)
		a.mu.Lock()
	}
	s := a.sessions[id]
	a.mu.Unlock()
	if ofSession && s == nil {
		return nil, ck.CKR_SESSION_HANDLE_INVALID
	}
	return s, ck.CKR_OK
}

// clear takes everything out of the application, and gives the sessions that are to be closed. a.mu is held.
func (a *application) clear() []*session {
	closing := make([]*session, 0, len(a.sessions))
	for _, s := range a.sessions {
		closing = append(closing, s)
	}
	clear(a.sessions)
	a.removeObjects(func(*heldObject) bool { return true })
	clear(a.logins)
	a.destroyed = nil
	return closing
}

// end ends the application. It waits for calls of its sessions that are being answered.
func (a *application) end() {
	a.mu.Lock()
	a.ended = true
	closing := a.clear()
	a.mu.Unlock()
	a.front.closeSessions(a.peer.UID, closing)
}

// has says whether there is a session with this number. a may be nil.
func (a *application) has(id uint64) bool {
	if a == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sessions[id] != nil
}

func (a *application) isEnded() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ended
}

// open opens a session for the actor, who was there when the call began.
func (a *application) open(actor *kms.Actor, instance string, rw bool) (*session, ck.RV) {
	if !a.front.takeSession(a.peer.UID) {
		return nil, ck.CKR_SESSION_COUNT
	}
	s := &session{app: a, instance: instance, rw: rw}
	rv := a.addSession(actor, s)
	if rv != ck.CKR_OK {
		a.front.giveSessions(a.peer.UID, 1)
		return nil, rv
	}
	return s, ck.CKR_OK
}

func (a *application) addSession(actor *kms.Actor, s *session) ck.RV {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.ended:
		return ck.CKR_CRYPTOKI_NOT_INITIALIZED
	case a.principal != actor.Principal:
		return ck.CKR_SLOT_ID_INVALID
	case len(a.sessions) >= a.front.cfg.SessionsPerApplication:
		return ck.CKR_SESSION_COUNT
	}
	for s.id == 0 || a.sessions[s.id] != nil {
		s.id = draw() >> 1 // some programs keep it in a signed number
	}
	a.sessions[s.id] = s
	return ck.CKR_OK
}

// take takes a session out, with its objects, so that nobody finds it any more. If it was the last one with its token the user is
// logged out (PKCS #11 2.40 §5.6, C_CloseSession). It says whether it was there. The caller, who may hold its mu, ends its operations.
func (a *application) take(s *session) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sessions[s.id] != s {
		return false
	}
	delete(a.sessions, s.id)
	a.removeObjects(func(o *heldObject) bool { return o.owner == s })
	if all, _ := a.count(s.instance); all == 0 {
		a.logOut(s.instance)
	}
	return true
}

// takeAll is take for all sessions with a token; it gives them.
func (a *application) takeAll(instance string) []*session {
	a.mu.Lock()
	defer a.mu.Unlock()
	var closing []*session
	for id, s := range a.sessions {
		if s.instance == instance {
			closing = append(closing, s)
			delete(a.sessions, id)
		}
	}
	a.removeObjects(func(o *heldObject) bool { return o.owner.instance == instance })
	a.logOut(instance)
	return closing
}

// count counts the sessions with a token. a.mu is held.
func (a *application) count(instance string) (all, rw int) {
	for _, s := range a.sessions {
		if s.instance == instance {
			all++
			if s.rw {
				rw++
			}
		}
	}
	return all, rw
}

// counts is count.
func (a *application) counts(instance string) (all, rw int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count(instance)
}

// logIn notes a login to the token of the session s, with the PIN that was checked, or without.
func (a *application) logIn(s *session, pin kms.PINName) ck.RV {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sessions[s.id] != s {
		return ck.CKR_SESSION_HANDLE_INVALID
	}
	a.logins[s.instance] = login{in: true, pin: pin}
	return ck.CKR_OK
}

// renewPIN keeps the application's logins when it has set another PIN itself.
func (a *application) renewPIN(old, next kms.PINName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for instance, l := range a.logins {
		if l.in && l.pin == old {
			l.pin = next
			a.logins[instance] = l
		}
	}
}

// logOut ends a login: private session objects are destroyed, and the operations and searches of the token's sessions end before their next call
// (2.40 §5.6, C_Logout). It says whether there was one. a.mu is held.
func (a *application) logOut(instance string) bool {
	was := a.logins[instance].in
	delete(a.logins, instance)
	if !was {
		return false
	}
	a.removeObjects(func(o *heldObject) bool { return o.owner.instance == instance && o.private() })
	for _, s := range a.sessions {
		if s.instance == instance {
			s.abandon()
		}
	}
	return true
}

// loggedIn tells of the login to a token.
func (a *application) loggedIn(instance string) login {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.logins[instance]
}
