package hsmpool

import (
	"crypto"
	"crypto/elliptic"
	"encoding/hex"
	"errors"

	"github.com/ThalesGroup/crypto11"
	"github.com/miekg/pkcs11"
)

func pinnedLabel(objectID []byte) string { return "kw/" + hex.EncodeToString(objectID) }

// generatePinned makes a token object. crypto11 makes the pairs and secret keys that it knows how to make; its public halves
// are token objects too, and go when the key goes. secp256k1, and tokens that have no session to spare for crypto11, go
// through our own session.
func (l *login) generatePinned(t *task, w *tokenWorker) *Error {
	k := t.key
	kt := keyTypes[k.Type]
	want := generated(wantedOf(classOf(kt), kept, secretUsage(kt, k.Usage)), kept)
	return l.pin(t, w, want, func() *Error {
		if k.Type != Secp256k1 && !l.shared && !l.scarce {
			return l.generateCrypto11(t)
		}
		return l.inWork(func(s pkcs11.SessionHandle) *Error {
			_, public, err := l.generateObjects(s, k, kept, k.ObjectID)
			if err == nil && public != 0 {
				if t.pub, err = l.publicKey(s, public, k.Type); err == nil {
					err = l.mod.ctx.DestroyObject(s, public)
				}
			}
			if err != nil {
				return l.fail(err, fnOther, stageOther, "generate "+kt.name)
			}
			return nil
		})
	})
}

// pin has a token object made, looks whether it is as wanted, and uses it; whatever is wrong, it is destroyed again. A general error
// is no reason to give up at once: SoftHSM has it now and then when another process or session changes the token at the same
// moment, or says that the template contradicts itself, which is the same each time. Nothing is left then of the first try, or the second refuses to begin.
func (l *login) pin(t *task, w *tokenWorker, want []wanted, create func() *Error) *Error {
	e := l.pinOnce(t, w, want, create)
	if code, ok := errors.AsType[pkcs11.Error](causeOf(e)); ok && (code == pkcs11.CKR_GENERAL_ERROR || code == pkcs11.CKR_TEMPLATE_INCONSISTENT) {
		e = l.pinOnce(t, w, want, create)
	}
	return e
}

// causeOf is what made an error, nil for none.
func causeOf(e *Error) error {
	if e == nil {
		return nil
	}
	return e.Err
}

func (l *login) pinOnce(t *task, w *tokenWorker, want []wanted, create func() *Error) (e *Error) {
	k := t.key
	if n, err := l.countPinned(k.ObjectID); err != nil || n > 0 {
		if err != nil {
			return err
		}
		return errorf(KindInternal, fateItem, "the token already has an object with ID %x", k.ObjectID)
	}
	t.begun = true
	defer func() {
		if e != nil {
			_ = l.keys.discard(cacheID(k), nil) // it is not ours to destroy
			if _, err := l.removePinned(k.ObjectID); err != nil {
				more := *e // it may be shared
				more.Detail += " (and what was made could not be destroyed: object ID " + hex.EncodeToString(k.ObjectID) + ")"
				e = &more
			}
		}
	}()
	if e = create(); e != nil {
		return e
	}
	e = l.inWork(func(s pkcs11.SessionHandle) *Error {
		h, e := l.findPinned(s, k)
		if e != nil {
			return e
		}
		if err := readBack(l.mod.ctx, s, h, want); err != nil {
			return l.fail(err, fnOther, stageOther, "read a new key's attributes back")
		}
		return nil
	})
	if e != nil {
		return e
	}
	return l.prove(&task{op: opProve, key: k, pub: t.pub}, w)
}

// generateCrypto11 makes the key with crypto11, and proves a signing pair as the crypto.Signer that it is there.
func (l *login) generateCrypto11(t *task) *Error {
	k := t.key
	kt := keyTypes[k.Type]
	secret := attributeSet(kept.attributes(), secretUsage(kt, k.Usage).attributes(classOf(kt)), k.ObjectID)
	public := attributeSet([]*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, false)},
		publicUsage(kt, k.Usage).attributes(pkcs11.CKO_PUBLIC_KEY), k.ObjectID)
	var signer crypto11.Signer
	var err error
	switch kt.class {
	case classAES:
		_, err = l.c11.GenerateSecretKeyWithAttributes(secret, kt.octets*8, crypto11.CipherAES)
	case classRSA:
		signer, err = l.c11.GenerateRSAKeyPairWithAttributes(public, secret, kt.octets*8)
	case classEC:
		signer, err = l.c11.GenerateECDSAKeyPairWithAttributes(public, secret, elliptic.P256())
	default:
		err = errors.New("no such class")
	}
	if err != nil {
		return l.crypto11Error(err, "generate "+kt.name)
	}
	if signer == nil {
		return nil
	}
	if t.pub, err = marshalPublic(k.Type, signer.Public()); err != nil {
		return l.fail(err, fnOther, stageOther, "read a new public key")
	}
	if k.Usage&UseSign != 0 {
		sig, err := signer.Sign(nil, proofDigest[:], crypto.SHA256)
		if err != nil {
			return l.crypto11Error(err, "sign with a new key")
		}
		if err := verifyStandard(signer.Public(), proofDigest[:], sig); err != nil {
			return &Error{Kind: KindInternal, fate: fateItem, Detail: "a new key does not do what it should", Err: err}
		}
	}
	return nil
}

// crypto11Error classifies an error of crypto11, which has put the session back into its pool whatever happened to it:
// the login is marked as spent, so that crypto11's context is replaced.
func (l *login) crypto11Error(err error, what string) *Error {
	e := l.fail(err, fnOther, stageOther, what)
	switch e.fate {
	case fateSession, fateLogin:
		e.fate = fateDown // the supervisor opens the member anew, crypto11 included
	}
	return e
}

func attributeSet(guard, usage []*pkcs11.Attribute, objectID []byte) crypto11.AttributeSet {
	set := crypto11.NewAttributeSet()
	set.AddIfNotPresent(guard)
	set.AddIfNotPresent(usage)
	set.AddIfNotPresent([]*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_ID, objectID),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, pinnedLabel(objectID)),
	})
	return set
}

// objectsWithID finds every object with a CKA_ID, whatever its class.
func (l *login) objectsWithID(s pkcs11.SessionHandle, objectID []byte) ([]pkcs11.ObjectHandle, *Error) {
	found, err := l.findObjects(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, objectID)})
	if err != nil {
		return nil, l.fail(err, fnOther, stageOther, "C_FindObjects")
	}
	return found, nil
}

func (l *login) countPinned(objectID []byte) (n int, e *Error) {
	e = l.inWork(func(s pkcs11.SessionHandle) *Error {
		found, e := l.objectsWithID(s, objectID)
		n = len(found)
		return e
	})
	return n, e
}

// removePinned destroys what has the ID and looks again in a session that was not open before: a destroyed object can
// show up again in the old one's view, or the other way round.
func (l *login) removePinned(objectID []byte) (destroyed int, e *Error) {
	e = l.inWork(func(s pkcs11.SessionHandle) *Error {
		found, e := l.objectsWithID(s, objectID)
		if e != nil {
			return e
		}
		for _, h := range found {
			if err := l.mod.ctx.DestroyObject(s, h); err != nil {
				return l.fail(err, fnOther, stageOther, "C_DestroyObject")
			}
			destroyed++
		}
		return nil
	})
	if e != nil {
		return destroyed, e
	}
	again := l.inWork
	if s, err := l.openSession(); err == nil {
		defer l.closeSession(s)
		again = func(f func(pkcs11.SessionHandle) *Error) *Error { return f(s) }
	} // else the token has no more sessions than those at work: one of them looks
	e = again(func(s pkcs11.SessionHandle) *Error {
		left, e := l.objectsWithID(s, objectID)
		if e == nil && len(left) > 0 {
			e = errorf(KindUnavailable, fateItem, "%d objects with ID %x are still there after being destroyed", len(left), objectID)
		}
		return e
	})
	return destroyed, e
}

func (l *login) destroyPinned(t *task) *Error {
	_ = l.keys.discard(pinnedCacheID(t.key.ObjectID), t) // the object is found by its ID
	var e *Error
	t.count, e = l.removePinned(t.key.ObjectID)
	return e
}
