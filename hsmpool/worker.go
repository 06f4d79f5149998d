package hsmpool

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

// worker is what serves one member. The pool knows nothing else of it, and everything that passes is plain data, so
// that a process at the other end of a socket can be one.
type worker interface {
	// open finds the token, logs in and checks its master keys. It is called again after a failure; the jobs in flight
	// then must have ended.
	open() (*identity, error)

	// run does the tasks one after the other and hands each to settle when its result is in it. It blocks, and runs in
	// as many goroutines at once as identity.Lanes says, and one more for long tasks.
	run(batch []*task, settle func(*task))

	// close ends the sessions and lets go of the library. open may follow.
	close()

	// load is for status.
	load() (sessions, keys int)
}

// identity is what a worker found.
type identity struct {
	Token  string
	Serial string
	Group  string
	Lanes  int
}

// tokenWorker is the worker in this process.
type tokenWorker struct {
	cfg *MemberConfig
	pin pinGuard

	// mu guards login, and is held for reading while a task uses it: who holds it for writing is alone with the token.
	mu    sync.RWMutex
	login *login // nil: closed

	// oaepSHA256 is what is known of the module's OAEP with SHA-256: unknown, done by it, or by us over raw RSA.
	oaepSHA256 atomic.Uint32
}

const (
	oaepUnknown uint32 = iota
	oaepModule
	oaepOurs
)

// renewAtLeast is the shortest time between two logins for lost handles. A token that loses its login faster is down.
const renewAtLeast = 10 * time.Second

var errClosed = &Error{Kind: KindUnavailable, fate: fateDown, Detail: "the member is closed"}

func (w *tokenWorker) open() (*identity, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closeLocked()
	if e := w.pin.wasRefused(); e != nil {
		return nil, e
	}
	mod, err := openModule(w.cfg.Module)
	if err != nil {
		return nil, err
	}
	a, err := mod.attach(w.cfg)
	if err != nil {
		return nil, err
	}
	if err := w.begin(a); err != nil {
		a.detach()
		return nil, err
	}
	return &identity{Token: a.info.Label, Serial: a.info.SerialNumber, Group: w.login.group, Lanes: w.login.lanes}, nil
}

// begin begins a login epoch. w.mu is held for writing.
func (w *tokenWorker) begin(a *attachment) error {
	l, err := beginLogin(a, w.cfg, &w.pin)
	if err != nil {
		return err
	}
	if e := l.findMasterKeys(""); e != nil {
		l.end()
		return e
	}
	w.login = l
	return nil
}

func (w *tokenWorker) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closeLocked()
}

func (w *tokenWorker) closeLocked() {
	if w.login == nil {
		return
	}
	w.login.end()
	w.login.detach()
	w.login = nil
}

func (w *tokenWorker) load() (sessions, keys int) {
	// A worker whose login is being renewed shows nothing rather than keep status waiting.
	if !w.mu.TryRLock() {
		return 0, 0
	}
	defer w.mu.RUnlock()
	if w.login == nil {
		return 0, 0
	}
	sessions = w.login.work.size() + 1
	if w.login.shared {
		sessions = 1
	}
	return sessions, w.login.keys.size()
}

func (w *tokenWorker) run(batch []*task, settle func(*task)) {
	for _, t := range batch {
		if t.begin() {
			t.err = w.do(t)
		}
		settle(t)
	}
}

// do does one task, a second time in a new session, or after logging in again, if that can help.
func (w *tokenWorker) do(t *task) *Error {
	l, err := w.try(t)
	if err == nil || !t.repeatable() {
		return err
	}
	switch err.fate {
	case fateSession:
		if l != nil && !l.alive() {
			// Not one session but all: whoever closed them took the login along.
			if e := w.renew(l); e != nil {
				return e
			}
		}
	case fateLogin:
		if e := w.renew(l); e != nil {
			return e
		}
	default:
		return err
	}
	_, err = w.try(t)
	return err
}

func (w *tokenWorker) try(t *task) (*login, *Error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	l := w.login
	if l == nil {
		return nil, errClosed
	}
	switch t.op {
	case opGenerate:
		return l, l.generate(t)
	case opProve:
		return l, l.prove(t, w)
	case opGeneratePinned:
		return l, l.generatePinned(t, w)
	case opDestroyPinned:
		return l, l.destroyPinned(t)
	case opCheck:
		return l, l.check()
	}
	return l, l.operate(t, w)
}

// renew ends the login epoch of l and begins another, unless somebody already has.
func (w *tokenWorker) renew(l *login) *Error {
	if l == nil {
		return errClosed
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.login != l {
		return nil
	}
	if l.alive() && l.masterKeysUsable() {
		return nil // one key's handle was bad, and is out of the cache
	}
	if time.Since(l.began) < renewAtLeast {
		return errorf(KindUnavailable, fateDown, "the token lost its login or its objects twice within %v", renewAtLeast)
	}
	a := l.attachment
	l.end()
	w.login = nil
	err := a.reattach(w.cfg) // crypto11's session may have gone with the others
	if err == nil {
		err = w.begin(a)
	}
	if err != nil {
		a.detach()
		e := l.fail(err, fnOther, stageOther, "log in again")
		if e.fate != fateOperator {
			e.fate = fateDown
		}
		return e
	}
	return nil
}

func (l *login) masterKeysUsable() bool {
	return l.inWork(func(s pkcs11.SessionHandle) *Error {
		g, err := l.checkValues(s)
		if err != nil {
			return l.fail(err, fnOther, stageOther, "check values of the master keys")
		}
		if g != l.group {
			return errorf(KindUnavailable, fateOperator, "the master keys have changed")
		}
		return nil
	}) == nil
}

// check finds out whether the member can serve: its login, and its master keys by their check values, which a token
// that was initialised anew or swapped does not have.
func (l *login) check() *Error {
	if !l.alive() {
		return errorf(KindUnavailable, fateLogin, "the anchor session is gone or logged out")
	}
	return l.inWork(func(s pkcs11.SessionHandle) *Error {
		// A module may go on with what it has in memory, so the token itself is asked.
		found, err := l.findObjects(s, secretKeyLabelled(labelSeal))
		if err != nil {
			return l.fail(err, fnOther, stageOther, "C_FindObjects")
		}
		if len(found) == 0 {
			return errorf(KindUnavailable, fateDown, "the token no longer has its master keys: it was removed or initialised anew")
		}
		group, err := l.checkValues(s)
		if err != nil {
			return l.fail(err, fnOther, stageOther, "check values of the master keys")
		}
		if group != l.group {
			return errorf(KindUnavailable, fateDown, "the master keys have changed: the token was replaced")
		}
		return nil
	})
}
