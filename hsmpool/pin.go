package hsmpool

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/miekg/pkcs11"
)

// pinKeeper has a member's PIN. It is a pinGuard, or what speaks to one over a worker's socket.
type pinKeeper interface {
	// present calls login with the PIN, unless it was refused before, and remembers what came of it. login gives the return
	// value of C_Login, nil too if somebody of ours was logged in already, and keeps nothing of the PIN.
	present(login func(pin []byte) error) error

	// refuse notes that the PIN must not be presented, and why: the token itself says so.
	refuse(why string) error
}

// Bits of CK_TOKEN_INFO.flags that decide about a login.
const (
	flagLoginRequired = pkcs11.CKF_LOGIN_REQUIRED
	flagPINFinalTry   = pkcs11.CKF_USER_PIN_FINAL_TRY
	flagPINLocked     = pkcs11.CKF_USER_PIN_LOCKED
)

// logIn logs in at the anchor session.
func (l *login) logIn(keeper pinKeeper) error {
	info, err := l.mod.ctx.GetTokenInfo(l.slot)
	if err != nil {
		return l.fail(err, fnOther, stageOther, "C_GetTokenInfo")
	}
	switch {
	case info.Flags&flagLoginRequired == 0:
		return nil
	case info.Flags&flagPINLocked != 0:
		return keeper.refuse("the token says that the user PIN is locked; it was not tried. The token's security officer must set a new one")
	case info.Flags&flagPINFinalTry != 0:
		return keeper.refuse("the token allows the user PIN one last try, which is left to you; it was not tried. Log in once with " +
			"another program, then let keyward try again")
	}
	return keeper.present(func(pin []byte) error {
		err := l.mod.fns.login(l.anchor, pin)
		if err == pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN) {
			return nil
		}
		if code, ok := err.(pkcs11.Error); ok && l.codes != nil {
			l.codes.add(code)
		}
		return err
	})
}

// pinGuard presents a member's PIN, one worker after the other, and never again once it was refused: HSMs lock.
type pinGuard struct {
	read    func() ([]byte, error) // its result is wiped; nil: there is no PIN
	refused func() (string, error) // see MemberConfig.Refused; may be nil

	turn     sync.Mutex // held while a PIN is presented, which may take for ever; taken before mu
	key      []byte     // of accepted, random
	accepted []byte     // keyed hash of the PIN that the token took last; guarded by turn

	mu    sync.Mutex // held for moments only: the pool asks under its own lock
	why   *Error     // why it is not presented any more; guarded by mu
	vague int        // tries in a row of which nobody knows whether the token has looked at the PIN; guarded by mu
}

func newPINGuard(cfg *MemberConfig) *pinGuard {
	g := &pinGuard{read: cfg.PIN, refused: cfg.Refused, key: make([]byte, sha256.Size)}
	random(g.key)
	return g
}

// maxVague is how many tries in a row may end with nobody knowing whether the token has looked at the PIN. HSMs lock after three
// wrong PINs at the earliest, counted since the last right one.
const maxVague = 2

// errUnknown says that nobody knows how a C_Login ended: the worker was gone before it told.
var errUnknown = errors.New("the worker ended while it logged in")

// errNotTried says that the worker was gone when its turn came.
var errNotTried = errors.New("the worker ended before it logged in")

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

// counts notes how a C_Login ended, and says whether it must be taken for a refusal of the PIN, which the token is known to have
// taken before or not.
func (g *pinGuard) counts(err error, known bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	var code pkcs11.Error
	switch {
	case err == nil:
		g.vague = 0
		return false
	case errors.Is(err, errUnknown) || errors.As(err, &code) && slices.Contains(vaguePIN, code):
		if known { // a right PIN locks nothing
			return false
		}
		g.vague++
		return g.vague > maxVague
	case code == 0 || slices.Contains(pinUntouched, code):
		return false
	case known && code == pkcs11.CKR_USER_PIN_NOT_INITIALIZED:
		// There is nothing that could lock, and there was a PIN: SoftHSM says so while another process logs in.
		return false
	}
	return true
}

func (g *pinGuard) wasRefused() *Error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.why
}

// forgive lets the PIN be presented once more: an operator has acted.
func (g *pinGuard) forgive() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.why, g.vague = nil, 0
}

func (g *pinGuard) present(login func(pin []byte) error) error {
	g.turn.Lock()
	defer g.turn.Unlock()
	if why := g.wasRefused(); why != nil {
		return why
	}
	if g.read == nil {
		return g.refuse("no PIN is configured")
	}
	pin, err := g.read()
	defer clear(pin)
	if err != nil {
		return &Error{Kind: KindUnavailable, fate: fateOperator, Detail: "the PIN can't be read", Err: err}
	}
	h := hmac.New(sha256.New, g.key)
	h.Write(pin)
	sum := h.Sum(nil)
	known := subtle.ConstantTimeCompare(sum, g.accepted) == 1
	err = login(pin)
	refused := g.counts(err, known)
	if err == nil {
		g.accepted = sum
		return nil
	}
	e := noQuirks.fail(err, fnLogin, stageOther, "C_Login")
	if !refused {
		return e
	}
	advice := "correct it before the pool is opened anew"
	if g.refused != nil {
		words, err := g.refused()
		if err != nil {
			words += fmt.Sprintf(" (that it was refused could not be written down: %v)", err)
		}
		advice = words
	}
	return g.note(&Error{Kind: KindUnavailable, fate: fateOperator, Err: e.Err,
		Detail: "the PIN was refused. It was tried once and is not tried again, because HSMs lock: " + advice})
}

func (g *pinGuard) refuse(why string) error {
	return g.note(&Error{Kind: KindUnavailable, fate: fateOperator, Detail: why})
}

func (g *pinGuard) note(why *Error) *Error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.why = why
	return why
}
