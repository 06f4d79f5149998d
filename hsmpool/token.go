package hsmpool

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

// identity is what a worker found.
type identity struct {
	Token  string
	Serial string
	Group  string
	Lanes  int // sessions that can be at work at the same time
	Width  int // of these, so many are to be, for now
}

// tokenWorker drives one token in this process: it holds the login and does tasks. It is what a worker process is there for.
type tokenWorker struct {
	cfg   *MemberConfig
	pin   pinKeeper
	allow func(time.Duration) // keeps calls from counting as stuck for so long; nil: nobody counts
	codes codeCount
	meter meter

	// Tasks use login inside the gate; who has it locked is alone with the token and may change it and what follows.
	gate    gate
	login   *login // nil: closed
	renewed time.Time
	lost    *Error // why login is nil, when that was no close

	// oaep is what is known of the module's OAEP, by the places of hash and mask generation function in hashes: unknown, done by it, or
	// by us over raw RSA.
	oaep [len(hashes)][len(hashes)]atomic.Uint32

	// unwrapSHA256 is the same for C_UnwrapKey with SHA-256.
	unwrapSHA256 atomic.Uint32
}

const (
	oaepUnknown uint32 = iota
	oaepModule
	oaepOurs
)

// renewAtLeast is the shortest time between two logins for lost handles. A token that loses its login faster is down.
var renewAtLeast = 10 * time.Second

// gateWait bounds how long a new login waits for the calls of the old one to return.
const gateWait = 5 * time.Second

var (
	errClosed   = &Error{Kind: KindUnavailable, fate: fateDown, Detail: "the member is closed"}
	errReplaced = &Error{Kind: KindUnavailable, fate: fateDown, Detail: "the master keys have changed: the token was replaced"}
	errStuck    = &Error{Kind: KindUnavailable, fate: fateDown, Detail: "a call into the library does not return; the library can't be " +
		"started again in this process while it is there"}
)

func (w *tokenWorker) open() (*identity, error) {
	mod, err := openModule(w.cfg.Module)
	if err != nil {
		return nil, err
	}
	id, err := w.openIn(mod)
	if err != nil && fateOf(err) != fateOperator && mod.restart() {
		if id, err = w.openIn(mod); err == nil {
			mod.restartHelped()
		}
	}
	return id, err
}

func (w *tokenWorker) openIn(mod *module) (*identity, error) {
	if !w.gate.lock(gateWait) {
		return nil, errStuck
	}
	defer w.gate.unlock()
	w.closeLocked()
	a, err := mod.attach(w.cfg)
	if err != nil {
		return nil, err
	}
	// Whether the group is the right one, the pool decides before it gives out work.
	if err := w.begin(a, ""); err != nil {
		a.detach()
		return nil, err
	}
	w.renewed = time.Time{}
	mod.join(w)
	return &identity{Token: a.info.Label, Serial: a.info.SerialNumber, Group: w.login.group,
		Lanes: w.login.lanes, Width: w.login.width}, nil
}

// begin begins a login epoch. The gate is locked. An epoch that follows another must find the same group (empty: any):
// jobs go on in it with nobody in between to look, and what they seal or wrap under other master keys is lost.
func (w *tokenWorker) begin(a *attachment, group string) error {
	l, err := beginLogin(a, w.cfg, w.pin, &w.codes)
	if err != nil {
		return err
	}
	if e := l.findMasterKeys(""); e != nil {
		l.end()
		return e
	}
	if group != "" && l.group != group {
		l.end()
		return errReplaced
	}
	if w.cfg.MaxSessions == 0 {
		here, err := l.computesHere()
		if err != nil {
			l.end()
			return err
		}
		if here {
			l.width = min(l.lanes, max(1, runtime.NumCPU()/max(w.cfg.Workers, 1)))
		}
	}
	w.login, w.lost = l, nil
	return nil
}

// computesHere says whether the token computes on this machine's processors.
func (l *login) computesHere() (here bool, err error) {
	e := l.inWork(func(s pkcs11.SessionHandle) *Error {
		if here, err = computes(func() error { _, err := l.checkValues(s); return err }); err != nil {
			return l.fail(err, fnOther, stageOther, "check values of the master keys")
		}
		return nil
	})
	if e != nil {
		return false, e
	}
	return here, nil
}

func (w *tokenWorker) close() error {
	if !w.gate.lock(gateWait) {
		return errStuck
	}
	defer w.gate.unlock()
	w.closeLocked()
	return nil
}

func (w *tokenWorker) closeLocked() {
	if w.login == nil {
		return
	}
	w.login.mod.quit(w)
	w.login.end()
	w.login.detach()
	w.login, w.lost = nil, nil
}

// load is for status.
func (w *tokenWorker) load() (sessions, keys int) {
	// A worker whose login is being renewed shows nothing rather than keep status waiting.
	if !w.gate.tryEnter() {
		return 0, 0
	}
	defer w.gate.leave()
	if w.login == nil {
		return 0, 0
	}
	sessions = w.login.work.size() + 1
	if w.login.shared {
		sessions = 1
	}
	return sessions, w.login.keys.size()
}

// do does one task, a second time in a new session, or after logging in again, if that can help.
func (w *tokenWorker) do(t *task) *Error {
	l, err := w.try(t)
	if err == nil {
		return nil
	}
	switch err.fate {
	case fateSession:
		// If not one session but all are gone, whoever closed them took the login along.
		if !w.goesOn(l, t) {
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
	if t.repeatable() {
		_, err = w.try(t)
	}
	return err
}

// goesOn says whether a login of which a session failed still holds, and makes the next task in it begin in a new session:
// what ended one may have ended those that are idle.
func (w *tokenWorker) goesOn(l *login, t *task) bool {
	w.gate.enter()
	defer w.gate.leave()
	if w.login != l {
		return true // another login has begun: no need for a third
	}
	defer l.oneByOne(t)()
	if !l.alive(t) {
		return false
	}
	l.work.closeIdle()
	return true
}

// try does one task once. The login that it was done in is nil only with an error that logging in again does not help
// against.
func (w *tokenWorker) try(t *task) (*login, *Error) {
	w.gate.enter()
	defer w.gate.leave()
	l := w.login
	if l == nil {
		if w.lost != nil {
			return nil, w.lost
		}
		return nil, errClosed
	}
	defer l.oneByOne(t)()
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
		return l, l.check(t)
	case opLoad:
		return l, l.load(t)
	case opImport, opImportPinned:
		return l, l.importKey(t, w)
	case opForget:
		return l, l.forget(t)
	}
	return l, l.operate(t, w)
}

// renew ends the login epoch of l and begins another, unless somebody already has.
func (w *tokenWorker) renew(l *login) *Error {
	if !w.gate.lock(gateWait) {
		return errStuck
	}
	defer w.gate.unlock()
	if w.login != l {
		return nil
	}
	if l.alive(nil) && l.masterKeysUsable() {
		return nil // one key's handle was bad, and is out of the cache
	}
	if time.Since(w.renewed) < renewAtLeast {
		return errorf(KindUnavailable, fateDown, "the token lost its login or its objects twice within %v", renewAtLeast)
	}
	w.renewed = time.Now()
	if w.allow != nil {
		w.allow(openTimeout)
		defer w.allow(time.Second)
	}
	a := l.attachment
	l.end()
	w.login = nil
	a.mod.quit(w)
	err := a.reattach(w.cfg) // crypto11's session may have gone with the others
	if err == nil {
		if err = w.begin(a, l.group); err == nil {
			a.mod.join(w)
			return nil
		}
		a.detach()
	}
	e := l.fail(err, fnOther, stageOther, "log in again")
	w.lost = down(e)
	return w.lost
}

// down is e as a reason for a member to be down.
func down(e *Error) *Error {
	if e.fate == fateOperator {
		return e
	}
	return &Error{Kind: KindUnavailable, Detail: e.Detail, Err: e.Err, fate: fateDown}
}

func (l *login) masterKeysUsable() bool {
	return l.inWork(func(s pkcs11.SessionHandle) *Error {
		g, err := l.checkValues(s)
		if err != nil {
			return l.fail(err, fnOther, stageOther, "check values of the master keys")
		}
		if g != l.group {
			return errReplaced
		}
		return nil
	}) == nil
}

// check finds out whether the member can serve: its login, and its master keys by their check values, which a token
// that was initialised anew or swapped does not have.
func (l *login) check(t *task) *Error {
	if !l.alive(t) {
		return errorf(KindUnavailable, fateLogin, "the anchor session is gone or logged out")
	}
	return l.inWorkFor(t, func(s pkcs11.SessionHandle) *Error {
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
			return errReplaced
		}
		return nil
	})
}
