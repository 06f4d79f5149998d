package hsmpool

import (
	"context"
	"errors"
	"time"

	"github.com/miekg/pkcs11"
)

// CKRTable and the like let the external tests, which can use hsmtest, look inside.

// CKRCodes lists the table's codes.
func CKRCodes() map[uint]bool {
	m := map[uint]bool{}
	for c := range ckrTable {
		m[c] = true
	}
	return m
}

// KillSessions closes every session of a member behind its worker's back, the anchor included if all is set, and
// crypto11's too.
func KillSessions(p *Pool, name string, all bool) error {
	return withToken(p, name, func(l *login) error {
		if all {
			return l.mod.ctx.CloseAllSessions(l.slot)
		}
		for _, h := range l.work.idle {
			l.closeSession(h)
		}
		return nil
	})
}

// Logout ends the login of a member behind its worker's back.
func Logout(p *Pool, name string) error {
	return withToken(p, name, func(l *login) error { return l.mod.ctx.Logout(l.anchor) })
}

// tokenOf gives the worker of a member that runs in this process.
func tokenOf(p *Pool, name string) (*tokenWorker, error) {
	m, e := p.memberNamed(name)
	if e != nil {
		return nil, e
	}
	return m.workers[0].opener.(*inProcess).token, nil
}

// withToken runs f between two calls into the token: SoftHSM crashes when a session is closed in the middle of one.
func withToken(p *Pool, name string, f func(*login) error) error {
	w, e := tokenOf(p, name)
	if e != nil {
		return e
	}
	if !w.gate.lock(gateWait) {
		return errStuck
	}
	defer w.gate.unlock()
	if w.login == nil {
		return errors.New("closed")
	}
	return f(w.login)
}

func withAnchor(p *Pool, name string, f func(*login) error) error {
	w, e := tokenOf(p, name)
	if e != nil {
		return e
	}
	w.gate.enter()
	defer w.gate.leave()
	if w.login == nil {
		return errors.New("closed")
	}
	return f(w.login)
}

// WithLogin gives a test the raw handles of a member: the miekg context, a session, and the master keys.
func WithLogin(p *Pool, name string, f func(ctx *pkcs11.Ctx, s pkcs11.SessionHandle, seal, wrap pkcs11.ObjectHandle) error) error {
	return withAnchor(p, name, func(l *login) error {
		l.anchored.Lock()
		defer l.anchored.Unlock()
		return f(l.mod.ctx, l.anchor, l.seal, l.wrap)
	})
}

// LoadedHandle loads a key on a member and gives its handle.
func LoadedHandle(p *Pool, name string, k *Key) (h pkcs11.ObjectHandle, err error) {
	err = withAnchor(p, name, func(l *login) error {
		e := l.inWork(func(s pkcs11.SessionHandle) *Error {
			c, e := l.loadKey(s, &task{key: k})
			if e != nil {
				return e
			}
			h = c.handle
			l.keys.release(c)
			return nil
		})
		if e != nil {
			return e
		}
		return nil
	})
	return h, err
}

// SetCachedKeys bounds a member's cache.
func SetCachedKeys(p *Pool, name string, n int) error {
	return withAnchor(p, name, func(l *login) error {
		l.keys.mu.Lock()
		defer l.keys.mu.Unlock()
		l.keys.max = n
		return nil
	})
}

// NoRenewLimit lets tests lose a login more often than ten seconds allow.
func NoRenewLimit() (restore func()) {
	old := renewAtLeast
	renewAtLeast = 0
	return func() { renewAtLeast = old }
}

var (
	UnpadOAEP       = unpadOAEP
	MarshalECPublic = marshalECPublic
	ParseShare      = func(b []byte) error { _, err := parseShare(b); return err }
	DecodeRecovery  = func(b []byte) error { _, _, _, err := decodeRecovery(b); return err }
	PlanSessions    = planSessions
	ErrNoMasterKeys = errNoMasterKeys
)

// OpsOfJobs is how many numbers operations of jobs take.
const OpsOfJobs = opsOfJobs

// SessionKeys counts the secret and private session objects on a member, between two tasks: some have objects for a moment, such as those that look
// at it.
func SessionKeys(p *Pool, name string) (n int, err error) {
	err = withToken(p, name, func(l *login) error {
		return l.inAnchor(nil, func(s pkcs11.SessionHandle) error {
			for _, class := range []uint{pkcs11.CKO_SECRET_KEY, pkcs11.CKO_PRIVATE_KEY} {
				found, err := l.findObjects(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class),
					pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false)})
				if err != nil {
					return err
				}
				n += len(found)
			}
			return nil
		})
	})
	return n, err
}

// Stall keeps all members from working until release.
func Stall(p *Pool) (release func()) {
	for _, m := range p.members {
		for !m.workers[0].opener.(*inProcess).token.gate.lock(time.Second) {
		}
	}
	return func() {
		for _, m := range p.members {
			m.workers[0].opener.(*inProcess).token.gate.unlock()
		}
	}
}

// OpenSessions asks the token how many sessions are open.
func OpenSessions(p *Pool, name string) (n uint, err error) {
	err = withAnchor(p, name, func(l *login) error {
		info, err := l.mod.ctx.GetTokenInfo(l.slot)
		n = info.SessionCount
		return err
	})
	return n, err
}

// Direct gives a benchmark a session of its own.
func Direct(p *Pool, name string, f func(ctx *pkcs11.Ctx, s pkcs11.SessionHandle) error) error {
	return withAnchor(p, name, func(l *login) error {
		s, err := l.openSession()
		if err != nil {
			return err
		}
		defer l.closeSession(s)
		return f(l.mod.ctx, s)
	})
}

// OpenGivenUp opens a member in this process for somebody who has given up already, and says whether it stays open.
func OpenGivenUp(cfg MemberConfig) bool {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	o := newInProcess(&cfg, newPINGuard(&cfg))
	for !o.token.gate.lock(time.Second) {
	}
	time.AfterFunc(10*time.Millisecond, o.token.gate.unlock)
	if _, _, err := o.open(ctx, noEvents{}); err == nil {
		return true
	}
	time.Sleep(200 * time.Millisecond)
	for !o.token.gate.lock(time.Second) {
	}
	defer o.token.gate.unlock()
	return o.token.login != nil
}

// ForgetRefusals makes the pool forget which members did not do a kind of job that others did.
func ForgetRefusals(p *Pool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.members {
		clear(m.refusals[:])
	}
}
