package hsmpool

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"github.com/miekg/pkcs11"
)

// login is one login epoch on one token: everything whose handles are valid together. Any new login begins a new one.
//
// The anchor session holds the login and owns the session objects of loaded keys, so both last as long as it. It runs
// only calls that are complete in themselves, one at a time. Work that has an Init and a Final happens in work sessions,
// which come and go. Where the token has few sessions each counts, so the anchor takes an operation too when all others are at
// work; one that fails there for other reasons than its data costs the epoch.
type login struct {
	*attachment
	sessionPlan
	anchor   pkcs11.SessionHandle
	work     *sessionStack
	width    int // sessions that are to be at work, for now
	seal     pkcs11.ObjectHandle
	wrap     pkcs11.ObjectHandle
	group    string // of the master keys
	keys     *keyCache
	codes    *codeCount    // nil: nobody counts
	anchored sync.Mutex    // one call in the anchor session at a time
	lent     chan struct{} // holds one while an operation has the anchor
	alone    sync.Mutex    // one task at a time, if there is one session
}

// oneByOne keeps two tasks from one session when there is no more than one: work in it and what is asked of the anchor would
// meet there. It gives what ends the turn.
func (l *login) oneByOne(t *task) (done func()) {
	if !l.shared {
		return func() {}
	}
	t.waits(l.alone.Lock)
	return l.alone.Unlock
}

// sessionPlan is how the sessions that a token allows are used.
type sessionPlan struct {
	lanes  int  // sessions that can be at work at the same time
	shared bool // there is one in all, the anchor: it does everything
	scarce bool // there are few: the anchor works too, and crypto11 keeps none where nobody else is in this process
}

const (
	defaultLanes   = 16 // enough to fill a network HSM's pipe
	maxSessions    = 64
	scarceSessions = 20
)

// planSessions divides what the token allows, or the configuration if that is less (0: it says nothing). alone says that nobody
// else in this process uses the token: then crypto11's session can be closed.
func planSessions(info pkcs11.TokenInfo, most int, alone bool) sessionPlan {
	total := maxSessions
	for _, n := range []uint{info.MaxRwSessionCount, info.MaxSessionCount} {
		// Zero means no limit, all ones that the token does not say.
		if n != pkcs11.CK_EFFECTIVELY_INFINITE && n != pkcs11.CK_UNAVAILABLE_INFORMATION && n < uint(total) {
			total = int(n)
		}
	}
	if most > 0 && most < total {
		total = most
	}
	if total > 1 && !alone {
		total-- // crypto11's
	}
	switch {
	case total == 1:
		return sessionPlan{lanes: 1, shared: true}
	case total < scarceSessions:
		return sessionPlan{lanes: total, scarce: true}
	}
	lanes := total - 3 // the anchor, and two for crypto11 when it makes a key
	if most == 0 {
		lanes = min(lanes, defaultLanes)
	}
	return sessionPlan{lanes: lanes}
}

// beginLogin opens the anchor session and logs in. It does not look for master keys.
func beginLogin(a *attachment, cfg *MemberConfig, pin pinKeeper, codes *codeCount) (_ *login, err error) {
	l := &login{attachment: a, codes: codes, lent: make(chan struct{}, 1),
		sessionPlan: planSessions(a.info, cfg.MaxSessions, a.mod.alone)}
	l.width = l.lanes
	if (l.scarce || l.shared) && a.mod.alone {
		// crypto11 keeps a session that it has no use for.
		if err := a.mod.ctx.CloseAllSessions(a.slot); err != nil {
			return nil, l.fail(err, fnOther, stageOther, "C_CloseAllSessions")
		}
	}
	if l.anchor, err = l.openSession(); err != nil {
		return nil, l.fail(err, fnOther, stageOther, "C_OpenSession")
	}
	l.keys = newKeyCache(defaultCachedKeys, l.destroyLoaded)
	switch {
	case l.shared:
		l.work = newSessionStack(1, func() (pkcs11.SessionHandle, error) {
			return 0, pkcs11.Error(pkcs11.CKR_SESSION_CLOSED)
		}, func(pkcs11.SessionHandle) {})
		l.work.count, l.work.idle = 1, []pkcs11.SessionHandle{l.anchor}
	case l.scarce:
		l.work = newSessionStack(l.lanes-1, l.openSession, l.closeSession)
	default:
		l.work = newSessionStack(l.lanes, l.openSession, l.closeSession)
	}
	if err := l.logIn(pin); err != nil {
		l.end()
		return nil, err
	}
	return l, nil
}

func (l *login) openSession() (pkcs11.SessionHandle, error) {
	return l.mod.ctx.OpenSession(l.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
}

func (l *login) closeSession(h pkcs11.SessionHandle) {
	// A session that can't be closed is gone already, or goes with the library.
	_ = l.mod.ctx.CloseSession(h)
}

// fail makes the error of a call that returned err, and counts it.
func (l *login) fail(err error, fn function, st stage, what string) *Error {
	if code, ok := err.(pkcs11.Error); ok && l.codes != nil {
		l.codes.add(code)
	}
	return l.quirks.fail(err, fn, st, what)
}

// end closes the sessions, and with them the session objects. No job may be in one. The login ends with the last session of
// the process on that token; C_Logout is never called, as it would end it for others too.
func (l *login) end() {
	l.work.closeIdle()
	l.closeSession(l.anchor)
}

// inAnchor runs f, one call or a few that are complete in themselves, in the anchor session. t is the task that it is for, or nil.
func (l *login) inAnchor(t *task, f func(s pkcs11.SessionHandle) error) error {
	t.waits(l.anchored.Lock)
	defer l.anchored.Unlock()
	return f(l.anchor)
}

// inWork runs f in a work session, which is closed if f fails.
func (l *login) inWork(f func(s pkcs11.SessionHandle) *Error) *Error { return l.inWorkFor(nil, f) }

func (l *login) inWorkFor(t *task, f func(s pkcs11.SessionHandle) *Error) *Error {
	s, err := l.workSession(t)
	if err != nil {
		return l.fail(err, fnOther, stageOther, "C_OpenSession")
	}
	if e := f(s); e != nil {
		l.dropSession(s)
		return e
	}
	l.work.put(s)
	return nil
}

func (l *login) dropSession(s pkcs11.SessionHandle) {
	if l.shared {
		l.closeSession(l.anchor)
	}
	l.work.drop(s)
}

// session gives an operation a session, and the caller gives it back to putSession or failSession. It may be the anchor, in which
// calls are made with in.
func (l *login) session(t *task) (pkcs11.SessionHandle, error) {
	if l.scarce {
		if s, err, ok := l.work.tryGet(); ok {
			return s, err
		}
		select {
		case l.lent <- struct{}{}:
			return l.anchor, nil
		default:
		}
	}
	return l.workSession(t)
}

// workSession gives a work session, and waits for one.
func (l *login) workSession(t *task) (s pkcs11.SessionHandle, err error) {
	s, err, ok := l.work.tryGet()
	if !ok {
		t.waits(func() { s, err = l.work.get() })
	}
	return s, err
}

func (l *login) isAnchor(s pkcs11.SessionHandle) bool { return s == l.anchor && !l.shared }

func (l *login) putSession(s pkcs11.SessionHandle) {
	if l.isAnchor(s) {
		<-l.lent
		return
	}
	l.work.put(s)
}

// failSession gives back a session in which an operation failed.
func (l *login) failSession(s pkcs11.SessionHandle, e *Error) {
	switch {
	case (l.shared || l.isAnchor(s)) && e.fate == fateData:
		// By the standard an operation that failed for its data has ended. That is relied on only where the session is the
		// anchor: there a caller's bad ciphertext must not cost everybody's keys.
		l.putSession(s)
	case l.isAnchor(s):
		l.closeSession(s) // goesOn will find out
		<-l.lent
	default:
		l.dropSession(s)
	}
}

// in makes a few calls in a session of an operation; in the anchor's case nobody else's come between.
func (l *login) in(t *task, s pkcs11.SessionHandle, f func()) {
	if l.isAnchor(s) {
		t.waits(l.anchored.Lock)
		defer l.anchored.Unlock()
	}
	f()
}

func (l *login) destroyLoaded(t *task, h pkcs11.ObjectHandle) error {
	return l.inAnchor(t, func(s pkcs11.SessionHandle) error { return l.mod.ctx.DestroyObject(s, h) })
}

// alive says whether the anchor session is open and logged in.
func (l *login) alive(t *task) bool {
	var info pkcs11.SessionInfo
	err := l.inAnchor(t, func(s pkcs11.SessionHandle) (err error) {
		info, err = l.mod.ctx.GetSessionInfo(s)
		return err
	})
	if err != nil {
		return false
	}
	return l.loggedIn(info)
}

// findObjects gives every object that fits.
func (l *login) findObjects(s pkcs11.SessionHandle, template []*pkcs11.Attribute) (found []pkcs11.ObjectHandle, err error) {
	if err := l.mod.ctx.FindObjectsInit(s, template); err != nil {
		return nil, err
	}
	for {
		h, _, err := l.mod.ctx.FindObjects(s, 64)
		if err != nil {
			return nil, err
		}
		if len(h) == 0 {
			break
		}
		found = append(found, h...)
	}
	if err := l.mod.ctx.FindObjectsFinal(s); err != nil {
		return nil, err
	}
	// Without a login private objects are not found, and no error says so.
	info, err := l.mod.ctx.GetSessionInfo(s)
	if err != nil {
		return nil, err
	}
	if !l.loggedIn(info) {
		return nil, pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN)
	}
	return found, nil
}

func (l *login) loggedIn(info pkcs11.SessionInfo) bool {
	return info.State == pkcs11.CKS_RW_USER_FUNCTIONS || l.info.Flags&flagLoginRequired == 0
}

func secretKeyLabelled(label string) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
	}
}

var (
	sealUsage = usageBits{encrypt: true, decrypt: true}
	wrapUsage = usageBits{wrap: true, unwrap: true}
)

// errNoMasterKeys means that the member never was in a ceremony.
var errNoMasterKeys = errors.New("the token has no master keys: run the ceremony, or recover them from the recovery shares")

// findMasterKeys finds the two master keys, checks that neither can do more than it should, and names their group.
func (l *login) findMasterKeys(suffix string) *Error {
	return l.inWork(func(s pkcs11.SessionHandle) *Error {
		var handles [2]pkcs11.ObjectHandle
		missing := 0
		for i, m := range []struct {
			label string
			usage usageBits
		}{{labelSeal, sealUsage}, {labelWrap, wrapUsage}} {
			found, err := l.findObjects(s, secretKeyLabelled(m.label+suffix))
			if err != nil {
				return l.fail(err, fnOther, stageOther, "C_FindObjects")
			}
			switch len(found) {
			case 0:
				missing++
				continue
			case 1:
				handles[i] = found[0]
			default:
				return errorf(KindUnavailable, fateOperator, "the token has %d objects with the label %q: remove all but the right one",
					len(found), m.label+suffix)
			}
			if err := readBack(l.mod.ctx, s, found[0], wantedOf(pkcs11.CKO_SECRET_KEY, kept, m.usage)); err != nil {
				e := l.fail(err, fnOther, stageOther, "C_GetAttributeValue")
				e.fate = fateOperator
				return e
			}
		}
		switch missing {
		case 2:
			return &Error{Kind: KindUnavailable, fate: fateOperator, Err: errNoMasterKeys}
		case 1:
			return errorf(KindUnavailable, fateOperator, "the token has one of the two master keys %q and %q: "+
				"initialise the token again and recover both", labelSeal+suffix, labelWrap+suffix)
		}
		l.seal, l.wrap = handles[0], handles[1]
		var err error
		if l.group, err = l.checkValues(s); err != nil {
			return l.fail(err, fnOther, stageOther, "check values of the master keys")
		}
		return nil
	})
}

// checkValues names the group of the master keys: a hash over one block under the seal key and a known key wrapped by the
// wrap key, 128 bits of each. Keys that differ give another name; the name gives nothing of the keys.
func (l *login) checkValues(s pkcs11.SessionHandle) (string, error) {
	ctx := l.mod.ctx
	block := sha256.Sum256([]byte("keyward: check value of the seal key"))
	if err := ctx.EncryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_ECB, nil)}, l.seal); err != nil {
		return "", err
	}
	seal, err := ctx.Encrypt(s, block[:16])
	if err != nil {
		return "", err
	}
	known := sha256.Sum256([]byte("keyward: check value of the wrap key"))
	a := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE, known[:]),
	}
	a = append(a, guard{extractable: true}.attributes()...)
	a = append(a, usageBits{}.attributes(pkcs11.CKO_SECRET_KEY)...)
	k, err := ctx.CreateObject(s, a)
	if err != nil {
		return "", err
	}
	wrap, err := ctx.WrapKey(s, keyWrap(), l.wrap, k)
	if err := errors.Join(err, ctx.DestroyObject(s, k)); err != nil {
		return "", err
	}
	if len(seal) != 16 || len(wrap) != 40 {
		return "", errImpossible
	}
	h := sha256.New()
	fmt.Fprintf(h, "keyward group 1\n%x\n%x\n", seal[:16], wrap[:16])
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// keyWrap is AES key wrap with padding (RFC 5649).
func keyWrap() []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP_PAD, nil)}
}
