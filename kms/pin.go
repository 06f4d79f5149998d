package kms

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/keyward/keyward/keystore"
)

// A PIN is a second factor that a principal may have: programs that know PKCS #11 give it at C_Login. The kernel says who is calling; the
// PIN says that somebody is there who knows it. It is kept as a hash that is slow to make, sealed besides, so that a copy of the store
// alone is no use for guessing.

// Limits of PINs.
const (
	MinPIN         = 8 // octets
	MaxPIN         = 256
	MaxPINFailures = 10 // in a row; then it is locked until it is set again
)

// What hashing a PIN costs: the second recommendation of the OWASP Password Storage Cheat Sheet for Argon2id, as the first would let
// callers fill the memory.
const (
	pinMemory = 19 << 10 // KiB
	pinPasses = 2
	pinLanes  = 1
	pinSalt   = 16 // octets
	pinHash   = 32
	pinForm   = 1 // version of marshal
	pinLength = 1 + 4 + 4 + 1 + pinSalt + pinHash
)

// pinsAtOnce bounds the memory and the time that PINs take. Those of one principal are looked at one after the other, so that programs that log in together
// do not count each other's tries.
const pinsAtOnce = 2

// pinTries is how often a look at a PIN is begun anew because it was changed meanwhile.
const pinTries = 3

var (
	actCheckPIN  = &action{name: "CheckPIN", kind: kindRead}
	actSetPIN    = &action{name: "SetPIN", kind: kindManage}
	actRemovePIN = &action{name: "RemovePIN", kind: kindManage}
)

// PINName tells a PIN from the one that was set before or after it, and tells nothing else of it. Empty: no PIN.
type PINName string

func pinName(p *keystore.PIN) PINName {
	if p == nil {
		return ""
	}
	sum := sha256.Sum256(p.Sealed) // sealed anew each time that a PIN is set
	return PINName(sum[:])
}

// hashedPIN is how a PIN is kept.
type hashedPIN struct {
	memory, passes uint32
	lanes          uint8
	salt, hash     []byte
}

func hashPIN(pin []byte) *hashedPIN {
	p := &hashedPIN{memory: pinMemory, passes: pinPasses, lanes: pinLanes, salt: make([]byte, pinSalt)}
	rand.Read(p.salt) // never fails
	p.hash = p.of(pin)
	return p
}

// of hashes another PIN in the same way.
func (p *hashedPIN) of(pin []byte) []byte {
	return argon2.IDKey(pin, p.salt, p.passes, p.memory, p.lanes, pinHash)
}

// marshal writes it. The caller wipes the result.
//
//	PIN = form 1 | KiB of memory, big-endian 4 | passes 4 | lanes 1 | salt 16 | hash 32
func (p *hashedPIN) marshal() []byte {
	b := make([]byte, 0, pinLength)
	b = append(b, pinForm)
	b = binary.BigEndian.AppendUint32(b, p.memory)
	b = binary.BigEndian.AppendUint32(b, p.passes)
	b = append(b, p.lanes)
	b = append(b, p.salt...)
	return append(b, p.hash...)
}

// parsePIN reads what marshal gave, and is a part of b. It refuses what would cost far more than a PIN does.
func parsePIN(b []byte) (*hashedPIN, bool) {
	if len(b) != pinLength || b[0] != pinForm {
		return nil, false
	}
	p := &hashedPIN{memory: binary.BigEndian.Uint32(b[1:]), passes: binary.BigEndian.Uint32(b[5:]), lanes: b[9], salt: b[10 : 10+pinSalt], hash: b[10+pinSalt:]}
	ok := p.memory >= 8 && p.memory <= 4*pinMemory && p.passes >= 1 && p.passes <= 4*pinPasses && p.lanes >= 1 && p.lanes <= 4
	return p, ok
}

// CheckPIN holds a PIN against that of the actor's principal, in constant time, and counts failures durably before it answers: after
// MaxPINFailures in a row it is locked until it is set again. Denied if it is wrong, Throttled if it is locked. Without a PIN set
// every PIN is right. It gives the name of the PIN that was right.
func (s *Service) CheckPIN(ctx context.Context, actor *Actor, pin []byte) (PINName, error) {
	if _, err := s.looking(ctx, actor); err != nil {
		return "", err
	}
	who, err := s.store.Principal(ctx, actor.Principal)
	if err != nil {
		return "", storeError(err)
	}
	if who.PIN == nil {
		return "", nil
	}
	var checked PINName
	_, err = audited(s, ctx, actor, actCheckPIN, false, func(c *call) (*struct{}, error) {
		p, err := c.checkPIN(pin)
		checked = pinName(p)
		return done(err)
	})
	if err != nil {
		return "", err
	}
	return checked, nil
}

// checkPIN holds a PIN against that of the caller's principal, and gives what it was held against; nil if there is none.
func (c *call) checkPIN(pin []byte) (*keystore.PIN, error) {
	leave, err := c.pins.Enter(c.ctx, c.actor.Principal)
	if err != nil {
		return nil, &Error{Code: Canceled, Err: err}
	}
	defer leave()
	for try := 1; ; try++ {
		who, err := c.store.Principal(c.ctx, c.actor.Principal)
		if err != nil {
			return nil, storeError(err)
		}
		if who.PIN == nil {
			return nil, nil
		}
		// The try counts before it is made: whoever ends the process while it is looked at has used it up.
		err = c.store.Change().CountPINFailure(who.ARN, who.PIN, MaxPINFailures).Commit(c.ctx)
		switch {
		case errors.Is(err, keystore.ErrConflict) && try < pinTries:
			continue
		case errors.Is(err, keystore.ErrPINLocked):
			return nil, Errorf(Throttled, "the PIN of %s was wrong %d times in a row and is locked; its account's root sets another: keywardctl principal pin set", who.ARN, MaxPINFailures)
		case err != nil:
			return nil, storeError(err)
		}
		right, err := c.rightPIN(who, pin)
		if err != nil {
			return nil, err
		}
		if !right {
			return nil, Errorf(Denied, "the PIN is not that of %s; after %d wrong ones in a row it is locked", who.ARN, MaxPINFailures)
		}
		err = c.store.Change().ClearPINFailures(who.ARN, who.PIN).Commit(context.WithoutCancel(c.ctx))
		if errors.Is(err, keystore.ErrConflict) && try < pinTries {
			continue // it was changed meanwhile, and that is what counts
		}
		return who.PIN, storeErrorOrNil(err)
	}
}

// rightPIN compares a PIN.
func (c *call) rightPIN(who *keystore.Principal, pin []byte) (bool, error) {
	b, err := c.store.OpenSecret(keystore.PINName(who.ARN), who.PIN.Sealed)
	if err != nil {
		return false, storeError(err)
	}
	defer clear(b)
	want, ok := parsePIN(b)
	if !ok {
		return false, Errorf(StoreUnavailable, "the PIN of %s is kept in a way that this version of keyward does not know; set it again", who.ARN)
	}
	if len(pin) > MaxPIN {
		return false, nil // nobody's
	}
	got := want.of(pin)
	defer clear(got)
	return subtle.ConstantTimeCompare(got, want.hash) == 1, nil
}

func checkNewPIN(pin []byte) error {
	if len(pin) < MinPIN || len(pin) > MaxPIN {
		return Invalid("PIN", "it has %d octets; %d to %d are allowed", len(pin), MinPIN, MaxPIN)
	}
	return nil
}

// sealPIN makes what is kept of a PIN.
func (c *call) sealPIN(arn string, pin []byte) (*keystore.PIN, error) {
	leave, err := c.pins.Enter(c.ctx, arn)
	if err != nil {
		return nil, &Error{Code: Canceled, Err: err}
	}
	defer leave()
	b := hashPIN(pin).marshal()
	defer clear(b)
	sealed, err := c.store.SealSecret(keystore.PINName(arn), b)
	if err != nil {
		return nil, storeError(err)
	}
	return &keystore.PIN{Sealed: sealed, Set: c.now().UTC().Truncate(time.Second)}, nil
}

// SetPIN gives a principal a PIN, in place of an earlier one, and unlocks it. The caller wipes pin.
func (p Principals) SetPIN(ctx context.Context, actor *Actor, arn string, pin []byte) error {
	_, err := audited(p.s, ctx, actor, actSetPIN, false, func(c *call) (*struct{}, error) {
		if _, err := c.named(arn, true); err != nil {
			return nil, err
		}
		if err := checkNewPIN(pin); err != nil {
			return nil, err
		}
		if _, err := c.existing(arn); err != nil {
			return nil, err // before work is done for it
		}
		kept, err := c.sealPIN(arn, pin)
		if err != nil {
			return nil, err
		}
		return done(c.edit(arn, false, func(ch *keystore.Change, was *keystore.Principal) error {
			next := *was
			next.PIN = kept
			ch.UpdatePrincipal(was, &next)
			return nil
		}))
	})
	return err
}

// RemovePIN takes the PIN of a principal away: from then on none is asked for.
func (p Principals) RemovePIN(ctx context.Context, actor *Actor, arn string) error {
	_, err := audited(p.s, ctx, actor, actRemovePIN, false, func(c *call) (*struct{}, error) {
		if _, err := c.named(arn, true); err != nil {
			return nil, err
		}
		return done(c.edit(arn, false, func(ch *keystore.Change, was *keystore.Principal) error {
			if was.PIN == nil {
				return Errorf(ResourceNotFound, "%s has no PIN", arn)
			}
			next := *was
			next.PIN = nil
			ch.UpdatePrincipal(was, &next)
			return nil
		}))
	})
	return err
}

// SetOwnPIN replaces the PIN of the actor's own principal, who knows the old one: a wrong one counts as in CheckPIN. The first PIN is set by
// its account's root, as else any program of a principal could lock the others out. The caller wipes both. It gives the name of the new PIN.
func (p Principals) SetOwnPIN(ctx context.Context, actor *Actor, old, pin []byte) (PINName, error) {
	var set PINName
	_, err := audited(p.s, ctx, actor, actSetPIN, false, func(c *call) (*struct{}, error) {
		c.event.Detail = actor.Principal
		if err := checkNewPIN(pin); err != nil {
			return nil, err
		}
		checked, err := c.checkPIN(old)
		if err != nil {
			return nil, err
		}
		if checked == nil {
			return nil, Errorf(OperationRejected, "%s has no PIN; its account's root sets the first: keywardctl principal pin set", actor.Principal)
		}
		kept, err := c.sealPIN(actor.Principal, pin)
		if err != nil {
			return nil, err
		}
		return done(c.edit(actor.Principal, false, func(ch *keystore.Change, was *keystore.Principal) error {
			if was.PIN == nil || !bytes.Equal(was.PIN.Sealed, checked.Sealed) {
				return Errorf(Throttled, "somebody else changed the PIN of %s at the same time", actor.Principal)
			}
			next := *was
			next.PIN = kept
			set = pinName(kept)
			ch.UpdatePrincipal(was, &next)
			return nil
		}))
	})
	if err != nil {
		return "", err
	}
	return set, nil
}
