package hsmpool

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/miekg/pkcs11"
)

// login is one login epoch on one token: everything whose handles are valid together. Any new login begins a new one.
//
// The anchor session holds the login and owns the session objects of loaded keys, so both last as long as it. It runs
// only calls that are complete in themselves, one at a time. Work that has an Init and a Final happens in work sessions,
// which come and go. A token that allows two sessions in all (crypto11 keeps one) works in the anchor session; then one
// operation that fails for other reasons than its data costs the epoch.
type login struct {
	*attachment
	anchor   pkcs11.SessionHandle
	shared   bool // the anchor is the work session
	work     *sessionStack
	lanes    int // sessions that may work at once
	seal     pkcs11.ObjectHandle
	wrap     pkcs11.ObjectHandle
	group    string // of the master keys
	keys     *keyCache
	anchored sync.Mutex // one call in the anchor session at a time
	alone    sync.Mutex // one task at a time, if the anchor is the work session
}

// oneByOne keeps two tasks from one session when there is no more than one: work in it and what is asked of the anchor would
// meet there. It gives what ends the turn.
func (l *login) oneByOne() (done func()) {
	if !l.shared {
		return func() {}
	}
	l.alone.Lock()
	return l.alone.Unlock
}

const (
	defaultLanes = 16 // more than enough to fill a network HSM's pipe for now
	maxLanes     = 64
)

// planSessions divides what the token allows. crypto11 keeps one session and may open another; the anchor is one.
func planSessions(info pkcs11.TokenInfo, max int, software bool) (lanes int, shared bool, err error) {
	total := maxLanes
	for _, n := range []uint{info.MaxRwSessionCount, info.MaxSessionCount} {
		// Zero means no limit, all ones that the token does not say.
		if n != pkcs11.CK_EFFECTIVELY_INFINITE && n != pkcs11.CK_UNAVAILABLE_INFORMATION && n < uint(total) {
			total = int(n)
		}
	}
	if max > 0 && max < total {
		total = max
	}
	switch {
	case total < 2:
		return 0, false, errorf(KindUnavailable, fateOperator, "%d sessions are too few: 2 are the least", total)
	case total == 2:
		return 1, true, nil
	case total < 6:
		return total - 2, false, nil
	}
	lanes = total - 3
	limit := defaultLanes
	if software {
		// It computes on our processors: as many threads keep them busy. With 2 processors, 2 to 16 sessions signed alike
		// fast, so more would only be idle threads.
		limit = runtime.GOMAXPROCS(0)
	}
	if max == 0 {
		lanes = min(lanes, limit)
	}
	return lanes, false, nil
}

// Bits of CK_TOKEN_INFO.flags that decide about a login.
const (
	flagLoginRequired = pkcs11.CKF_LOGIN_REQUIRED
	flagPINFinalTry   = pkcs11.CKF_USER_PIN_FINAL_TRY
	flagPINLocked     = pkcs11.CKF_USER_PIN_LOCKED
)

// beginLogin opens the anchor session and logs in. It does not look for master keys.
func beginLogin(a *attachment, cfg *MemberConfig, pin *pinGuard) (_ *login, err error) {
	l := &login{attachment: a}
	if l.lanes, l.shared, err = planSessions(a.info, cfg.MaxSessions, a.quirks.software); err != nil {
		return nil, err
	}
	if l.anchor, err = l.openSession(); err != nil {
		return nil, l.fail(err, fnOther, stageOther, "C_OpenSession")
	}
	l.keys = newKeyCache(defaultCachedKeys, l.destroyLoaded)
	if l.shared {
		l.work = newSessionStack(1, func() (pkcs11.SessionHandle, error) {
			return 0, pkcs11.Error(pkcs11.CKR_SESSION_CLOSED)
		}, func(pkcs11.SessionHandle) {})
		l.work.count, l.work.idle = 1, []pkcs11.SessionHandle{l.anchor}
	} else {
		l.work = newSessionStack(l.lanes, l.openSession, l.closeSession)
	}
	if err := pin.login(l, cfg); err != nil {
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

func (l *login) fail(err error, fn function, st stage, what string) *Error {
	return l.quirks.fail(err, fn, st, what)
}

// end closes the sessions, and with them the session objects. No job may be in one. The login ends with the last session of
// the process on that token; C_Logout is never called, as it would end it for others too.
func (l *login) end() {
	l.work.closeIdle()
	l.closeSession(l.anchor)
}

// inAnchor runs f, one call or a few that are complete in themselves, in the anchor session.
func (l *login) inAnchor(f func(s pkcs11.SessionHandle) error) error {
	l.anchored.Lock()
	defer l.anchored.Unlock()
	return f(l.anchor)
}

// inWork runs f in a work session, which is closed if f fails.
func (l *login) inWork(f func(s pkcs11.SessionHandle) *Error) *Error {
	s, err := l.work.get()
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

func (l *login) destroyLoaded(h pkcs11.ObjectHandle) {
	// An object that can't be destroyed ends with its session.
	_ = l.inAnchor(func(s pkcs11.SessionHandle) error { return l.mod.ctx.DestroyObject(s, h) })
}

// alive says whether the anchor session is open and logged in.
func (l *login) alive() bool {
	var info pkcs11.SessionInfo
	err := l.inAnchor(func(s pkcs11.SessionHandle) (err error) {
		info, err = l.mod.ctx.GetSessionInfo(s)
		return err
	})
	if err != nil {
		return false
	}
	return l.loggedIn(info)
}

// pinGuard presents a member's PIN, and never again once it was refused: HSMs lock.
type pinGuard struct {
	mu      sync.Mutex
	refused *Error
	vague   int // logins in a row that failed with a code that may mean anything
}

// maxVague is how many logins in a row may fail with a code that does not say whether the token has looked at the PIN.
// HSMs lock after three wrong PINs at the earliest, counted since the last right one.
const maxVague = 2

// pinUntouched are the codes of C_Login that say that the token did not get to the PIN, so that it may be presented again.
// vaguePIN may mean anything. All other codes, vendors' own among them, count as a refusal.
var (
	pinUntouched = []pkcs11.Error{
		pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_SESSION_COUNT, pkcs11.CKR_SESSION_READ_ONLY_EXISTS,
		pkcs11.CKR_OPERATION_ACTIVE, pkcs11.CKR_OPERATION_NOT_INITIALIZED, pkcs11.CKR_FUNCTION_CANCELED, pkcs11.CKR_CANCEL,
		pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED, pkcs11.CKR_HOST_MEMORY, pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_MUTEX_BAD,
		pkcs11.CKR_MUTEX_NOT_LOCKED, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED, pkcs11.CKR_SLOT_ID_INVALID,
		pkcs11.CKR_DEVICE_REMOVED,
	}
	vaguePIN = []pkcs11.Error{pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_DEVICE_ERROR}
)

// countsAsRefused says whether a failed C_Login must be taken for a refusal of the PIN. Caller holds mu.
func (g *pinGuard) countsAsRefused(err error) bool {
	var code pkcs11.Error
	switch {
	case !errors.As(err, &code) || slices.Contains(pinUntouched, code):
		return false
	case slices.Contains(vaguePIN, code):
		g.vague++
		return g.vague > maxVague
	}
	return true
}

func (g *pinGuard) wasRefused() *Error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refused
}

func (g *pinGuard) login(l *login, cfg *MemberConfig) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refused != nil {
		return g.refused
	}
	info, err := l.mod.ctx.GetTokenInfo(l.slot)
	if err != nil {
		return l.fail(err, fnOther, stageOther, "C_GetTokenInfo")
	}
	switch {
	case info.Flags&flagLoginRequired == 0:
		return nil
	case info.Flags&flagPINLocked != 0:
		return g.refuse("the token says that the user PIN is locked; it was not tried. The token's security officer must set a new one")
	case info.Flags&flagPINFinalTry != 0:
		return g.refuse("the token allows the user PIN one last try, which is left to you; it was not tried. Log in once with " +
			"another program, then open the pool again")
	}
	if cfg.PIN == nil {
		return g.refuse("no PIN is configured")
	}
	pin, err := cfg.PIN()
	defer clear(pin)
	if err != nil {
		return &Error{Kind: KindUnavailable, fate: fateOperator, Detail: "the PIN can't be read", Err: err}
	}
	err = l.mod.fns.login(l.anchor, pin)
	if err == nil {
		g.vague = 0
		return nil
	}
	e := l.fail(err, fnLogin, stageOther, "C_Login")
	if e == nil { // somebody of ours has logged in
		return nil
	}
	if g.countsAsRefused(err) {
		advice := "correct it before the pool is opened anew"
		if cfg.Refused != nil {
			words, err := cfg.Refused()
			if err != nil {
				words += fmt.Sprintf(" (that it was refused could not be written down: %v)", err)
			}
			advice = words
		}
		refused := g.refuse("the PIN was refused. It was tried once and is not tried again, because HSMs lock: " + advice)
		refused.Err = e.Err
		return refused
	}
	return e
}

func (g *pinGuard) refuse(why string) *Error {
	g.refused = &Error{Kind: KindUnavailable, fate: fateOperator, Detail: why}
	return g.refused
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
