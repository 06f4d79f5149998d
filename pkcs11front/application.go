package pkcs11front

import (
	"slices"
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

// addObject keeps a session object that a call of the session s made. Its mu is held.
func (a *application) addObject(s *session, o sessionObject) (handle, ck.RV) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h, octets := o.handle(), o.weight()
	switch {
	case a.sessions[s.id] != s:
		return 0, ck.CKR_SESSION_HANDLE_INVALID // it ended while the object was made
	case a.objects[h] != nil:
		return 0, ck.CKR_GENERAL_ERROR // two handles of 60 bits that were drawn are the same: never
	case len(a.objects)+a.reserved >= maxSessionObjects || a.octets+octets > maxSessionObjectOctets || !a.memory.take(octets):
		return 0, ck.CKR_DEVICE_MEMORY
	}
	a.objects[h] = &heldObject{o, s}
	a.octets += octets
	return h, ck.CKR_OK
}

// maxDestroyed is how many keys an application is remembered to have destroyed.
const maxDestroyed = 64

// noteDestroyed remembers that the application has destroyed a key of the KMS.
func (a *application) noteDestroyed(place kms.KeyPlace) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.destroyed) == maxDestroyed {
		a.destroyed = slices.Delete(a.destroyed, 0, 1)
	}
	a.destroyed = append(a.destroyed, place)
}

// hasDestroyed says whether the application has destroyed the key of an object: programs that destroy one half of a pair and then the other
// find that it went with the first.
func (a *application) hasDestroyed(h handle) bool {
	class, place, ok := h.key()
	a.mu.Lock()
	defer a.mu.Unlock()
	return ok && class == ck.CKO_PUBLIC_KEY && slices.Contains(a.destroyed, place)
}

// holdMore counts octets that an operation or a search is going to hold, and says whether the application and its user may hold so many.
func (a *application) holdMore(n int) bool {
	if a.gathered.Add(int64(n)) > maxGatheredApplication || !a.memory.take(n) {
		a.gathered.Add(int64(-n))
		return false
	}
	return true
}

// holdLess undoes holdMore.
func (a *application) holdLess(n int) {
	a.gathered.Add(int64(-n))
	a.memory.give(n)
}

// reservedOctets is what reserve counts for an object: a public key with names takes less.
const reservedOctets = 16 << 10

// reserve makes room for an object that is going to be added, and gives its end: called before the object is added, or when there is none. So that
// nothing is made in a token of which the other half has no room here.
func (a *application) reserve() (end func(), rv ck.RV) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.objects)+a.reserved >= maxSessionObjects || a.octets+reservedOctets > maxSessionObjectOctets || !a.memory.take(reservedOctets) {
		return nil, ck.CKR_DEVICE_MEMORY
	}
	a.reserved++
	a.octets += reservedOctets
	return sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.reserved--
		a.octets -= reservedOctets
		a.memory.give(reservedOctets)
	}), ck.CKR_OK
}

// replaceObject puts next in the place of a session object, if that is still there. The key of the two is the same: nothing is destroyed.
func (a *application) replaceObject(instance string, o, next sessionObject) ck.RV {
	a.mu.Lock()
	defer a.mu.Unlock()
	held := a.objects[o.handle()]
	more := next.weight() - o.weight()
	switch {
	case held == nil || held.owner.instance != instance:
		return ck.CKR_OBJECT_HANDLE_INVALID
	case held.sessionObject != o:
		return ck.CKR_FUNCTION_FAILED // another session was faster
	case a.octets+more > maxSessionObjectOctets || !a.memory.take(more):
		return ck.CKR_DEVICE_MEMORY
	}
	held.sessionObject = next
	a.octets += more
	return ck.CKR_OK
}

// object gives a session object of the instance by its handle; nil if there is none.
func (a *application) object(instance string, h handle) sessionObject {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o := a.objects[h]; o != nil && o.owner.instance == instance {
		return o.sessionObject
	}
	return nil
}

// eachObject gives all session objects of the instance, in no order. The function must not call the application.
func (a *application) eachObject(instance string, f func(handle, sessionObject)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for h, o := range a.objects {
		if o.owner.instance == instance {
			f(h, o.sessionObject)
		}
	}
}

// removeObject destroys a session object of the instance, and says whether it was there.
func (a *application) removeObject(instance string, h handle) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.objects[h]
	if o == nil || o.owner.instance != instance {
		return false
	}
	a.dropObject(h, o)
	return true
}

// removeObjects destroys the objects that are meant. a.mu is held.
func (a *application) removeObjects(meant func(*heldObject) bool) {
	for h, o := range a.objects {
		if meant(o) {
			a.dropObject(h, o)
		}
	}
}

// dropObject destroys one. a.mu is held.
func (a *application) dropObject(h handle, o *heldObject) {
	delete(a.objects, h)
	a.octets -= o.weight()
	a.memory.give(o.weight())
	o.destroy()
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
