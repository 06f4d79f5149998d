package hsmpool

import (
	"bytes"
	"fmt"

	"github.com/miekg/pkcs11"
)

// generate makes a key in a work session, wraps it under the wrap key and destroys it. A crash anywhere in between
// leaves nothing: the object dies with its session.
func (l *login) generate(t *task) *Error {
	return l.inWork(func(s pkcs11.SessionHandle) *Error {
		kt := keyTypes[t.key.Type]
		h, public, err := l.generateObjects(s, t.key, temporary, nil)
		if err != nil {
			return l.fail(err, fnOther, stageOther, "generate "+kt.name)
		}
		// An error closes the session, and that destroys them.
		want := generated(wantedOf(classOf(kt), temporary, secretUsage(kt, t.key.Usage)), temporary)
		if err := readBack(l.mod.ctx, s, h, want); err != nil {
			return l.fail(err, fnOther, stageOther, "read a new key's attributes back")
		}
		if public != 0 {
			if t.pub, err = l.publicKey(s, public, t.key.Type); err != nil {
				return l.fail(err, fnOther, stageOther, "read a new public key")
			}
			if err := l.mod.ctx.DestroyObject(s, public); err != nil {
				return l.fail(err, fnOther, stageOther, "destroy a public key object")
			}
		}
		wrapped, err := l.mod.ctx.WrapKey(s, keyWrap(), l.wrap, h)
		if err != nil {
			return l.fail(err, fnOther, stageOther, "C_WrapKey")
		}
		if err := l.mod.ctx.DestroyObject(s, h); err != nil {
			return l.fail(err, fnOther, stageOther, "destroy a wrapped key object")
		}
		// RFC 5649 wraps n octets to n rounded up to eight, and eight more. PKCS#8 of an EC key has some 60 at least.
		if n := len(wrapped); n%8 != 0 || n > maxWrapped || kt.class == classAES && n != kt.octets+8 || n < 24 {
			return errImpossible
		}
		t.out = wrapped
		return nil
	})
}

func classOf(t keyTypeRow) uint {
	class, _ := secretClass(t)
	return class
}

// generateObjects makes a secret key, or a pair whose public half is always a session object. objectID is for token
// objects.
func (l *login) generateObjects(s pkcs11.SessionHandle, k *Key, g guard, objectID []byte) (secret, public pkcs11.ObjectHandle, err error) {
	kt := keyTypes[k.Type]
	class, ckk := secretClass(kt)
	a := append(g.attributes(), secretUsage(kt, k.Usage).attributes(class)...)
	if objectID != nil {
		a = append(a, pkcs11.NewAttribute(pkcs11.CKA_ID, objectID), pkcs11.NewAttribute(pkcs11.CKA_LABEL, pinnedLabel(objectID)))
	}
	if kt.class == classAES {
		a = append(a, pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, kt.octets))
		secret, err = l.mod.ctx.GenerateKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, a)
		return secret, 0, err
	}
	p := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, ckk),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, false),
	}
	p = append(p, publicUsage(kt, k.Usage).attributes(pkcs11.CKO_PUBLIC_KEY)...)
	mech := uint(pkcs11.CKM_EC_KEY_PAIR_GEN)
	if kt.class == classRSA {
		mech = pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN
		p = append(p, pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, kt.octets*8),
			pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}))
	} else {
		p = append(p, pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, kt.ecParams))
	}
	a = append(a, pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, ckk))
	public, secret, err = l.mod.ctx.GenerateKeyPair(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(mech, nil)}, p, a)
	return secret, public, err
}

// publicKey reads a public key object as SubjectPublicKeyInfo.
func (l *login) publicKey(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, kt KeyType) ([]byte, error) {
	t := keyTypes[kt]
	if t.class == classRSA {
		a, err := l.mod.ctx.GetAttributeValue(s, h, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_MODULUS, nil), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, nil)})
		if err != nil {
			return nil, err
		}
		return marshalRSAPublic(t, a[0].Value, a[1].Value)
	}
	a, err := l.mod.ctx.GetAttributeValue(s, h, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, nil), pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil)})
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(a[0].Value, t.ecParams) {
		return nil, fmt.Errorf("the module made a key on another curve than %s", t.name)
	}
	return marshalECPublic(kt, a[1].Value)
}

// prove loads a key from its wrapping and uses it: what it signs must verify with the public key; what it encrypts it must
// decrypt, and answers in t.out with a ciphertext that any other member must decrypt too. A task with such an answer in
// it (nonce and in) decrypts that one first.
func (l *login) prove(t *task, w *tokenWorker) *Error {
	kt := keyTypes[t.key.Type]
	// Nobody asks for the key by this name again.
	defer func() { _ = l.keys.discard(cacheID(t.key), nil) }()
	if err := l.proveLoaded(t.key); err != nil {
		return err
	}
	if kt.class == classAES {
		return l.proveAES(t, w)
	}
	if t.key.Usage == UseUnwrap {
		return l.proveTransport(t, w)
	}
	if t.key.Usage&UseSign != 0 {
		op := SignECDSA
		if kt.class == classRSA {
			op = SignPKCS1SHA256
		}
		u := &task{op: op, key: t.key, in: op.input(t.key.Type, proofDigest[:])}
		if err := l.operate(u, w); err != nil {
			return err
		}
		if err := verifySignature(t.key.Type, t.pub, proofDigest[:], u.out); err != nil {
			return &Error{Kind: KindInternal, fate: fateItem, Detail: err.Error(), Err: errUnproven}
		}
	}
	if t.key.Usage&UseEncrypt != 0 {
		c, err := encryptOAEP(t.pub, proofDigest[:])
		if err != nil {
			return &Error{Kind: KindInternal, fate: fateItem, Detail: "a new public key can't be used", Err: err}
		}
		u := &task{op: DecryptOAEPSHA1, key: t.key, in: c}
		if err := l.operate(u, w); err != nil {
			return err
		}
		if !bytes.Equal(u.out, proofDigest[:]) {
			return &Error{Kind: KindInternal, fate: fateItem, Detail: "a wrong decryption", Err: errUnproven}
		}
	}
	return nil
}

func (l *login) proveAES(t *task, w *tokenWorker) *Error {
	nonce := t.nonce
	ciphertext := t.in
	if len(ciphertext) == 0 {
		nonce = make([]byte, gcmNonce)
		random(nonce)
		u := &task{op: EncryptGCM, key: t.key, in: proofDigest[:], nonce: nonce}
		if err := l.operate(u, w); err != nil {
			return err
		}
		ciphertext = u.out
	}
	u := &task{op: DecryptGCM, key: t.key, in: ciphertext, nonce: nonce}
	if err := l.operate(u, w); err != nil {
		return err
	}
	if !bytes.Equal(u.out, proofDigest[:]) {
		return &Error{Kind: KindInternal, fate: fateItem, Detail: "a wrong decryption", Err: errUnproven}
	}
	t.out = append(append([]byte(nil), nonce...), ciphertext...)
	return nil
}

// proveLoaded checks that a key came out of its wrapping as it should: not to be extracted, and with its usage only.
func (l *login) proveLoaded(k *Key) *Error {
	return l.inWork(func(s pkcs11.SessionHandle) *Error {
		c, e := l.loadKey(s, &task{key: k})
		if e != nil {
			return e
		}
		defer l.keys.release(c)
		kt := keyTypes[k.Type]
		g := loaded
		if k.Member != "" {
			g = kept
		}
		if err := readBack(l.mod.ctx, s, c.handle, wantedOf(classOf(kt), g, secretUsage(kt, k.Usage))); err != nil {
			return l.fail(err, fnOther, stageOther, "read a loaded key's attributes back")
		}
		return nil
	})
}
