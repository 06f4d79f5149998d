package hsmpool

import (
	"crypto/rand"
	"encoding/binary"
	"math"
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

// operate does a task that is one call on one key.
func (l *login) operate(t *task, w *tokenWorker) *Error {
	// The session comes before the key: a token that has one session loads keys in it too.
	s, err := l.session(t)
	if err != nil {
		return l.fail(err, fnOther, stageOther, "C_OpenSession")
	}
	if e := l.operateIn(s, t, w); e != nil {
		l.failSession(s, e)
		return e
	}
	l.putSession(s)
	return nil
}

// load brings a key in.
func (l *login) load(t *task) *Error {
	return l.inWorkFor(t, func(s pkcs11.SessionHandle) *Error {
		k, e := l.loadKey(s, t)
		if e == nil {
			l.keys.release(k)
		}
		return e
	})
}

func (l *login) operateIn(s pkcs11.SessionHandle, t *task, w *tokenWorker) *Error {
	switch t.op {
	case opSealGCM, opOpenGCM:
		var e *Error
		l.in(t, s, func() { e = l.perform(s, l.seal, t, w) })
		return e
	}
	k, e := l.loadKey(s, t)
	if e != nil {
		return e
	}
	l.in(t, s, func() { e = l.perform(s, k.handle, t, w) })
	if e != nil && e.fate == fateLogin {
		l.keys.forget(k)
	}
	l.keys.release(k)
	return e
}

// perform makes the call with a key's handle.
func (l *login) perform(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, t *task, w *tokenWorker) *Error {
	r := ops[t.op]
	c := call{fn: r.fn, mech: r.mech, param: r.param, in: t.in}
	var kt keyTypeRow
	if t.key != nil {
		kt = keyTypes[t.key.Type]
	}
	n, exact := r.out(kt, t)
	room := n
	var oaep *atomic.Uint32 // what is known of the module
	switch r.mech {
	case pkcs11.CKM_AES_GCM:
		c.tag, c.nonce, c.aad = t.tag(), t.nonce, t.aad
		if r.fn == fnDecrypt {
			room += c.tag // SoftHSM wants room for the tag in the output of a decryption too
		}
	case pkcs11.CKM_AES_CBC:
		c.param = t.nonce
	case pkcs11.CKM_AES_CTR:
		return l.counterMode(s, h, t, &w.meter)
	case pkcs11.CKM_RSA_PKCS_PSS:
		if c.param == nil {
			c.param = pssParam(t.told)
		}
	case pkcs11.CKM_RSA_PKCS_OAEP:
		hash, mgf := t.oaep()
		i, j := hashPlace(hash), hashPlace(mgf)
		oaep = &w.oaep[i][j]
		if len(t.choices().label) > 0 || oaep.Load() == oaepOurs {
			return l.rawOAEP(s, h, t, kt, &w.meter)
		}
		c.param, room = oaepParams[i][j], kt.octets
	case pkcs11.CKM_RSA_X_509:
		if r.fn == fnDecrypt {
			var e *Error
			t.out, e = l.rawDecrypt(s, h, t, kt, &w.meter)
			return e
		}
	}
	c.out = make([]byte, room)
	got, st, err := l.mod.fns.operate(s, h, &c, &w.meter)
	if err != nil {
		e := l.failOperation(err, r, st)
		if oaep != nil && oaep.Load() != oaepModule && refusesParameter(err) {
			// This module's OAEP has not these hashes. The session is dropped by the caller like after any error.
			oaep.Store(oaepOurs)
			e.fate = fateSession
		}
		return e
	}
	if exact && got != n || got > n {
		clear(c.out)
		return errImpossible
	}
	if oaep != nil && oaep.Load() != oaepModule {
		oaep.Store(oaepModule)
	}
	t.out = c.out[:got]
	return nil
}

// failOperation makes the error of an operation. Choices of hashes that its Init refuses, as they were checked, the module has not.
func (l *login) failOperation(err error, r *opRow, st stage) *Error {
	e := l.fail(err, r.fn, st, r.name)
	if st == stageInit && (r.takes == hashAndSalt || r.takes == hashAndLabel) && refusesParameter(err) {
		e.Kind = KindUnsupported
	}
	return e
}

// counterMode is CryptCTR. After the last counter comes zero, where modules refuse to go on: so from there on it is another call.
func (l *login) counterMode(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, t *task, m *meter) *Error {
	r := ops[t.op]
	out := make([]byte, len(t.in))
	counter, from := t.nonce, 0
	for to := counterEnd(counter, len(out)); from < len(out); from, to = to, len(out) {
		c := call{fn: r.fn, mech: r.mech, param: ctrParam(counter), in: t.in[from:to], out: out[from:to]}
		n, st, err := l.mod.fns.operate(s, h, &c, m)
		if err != nil {
			clear(out)
			return l.failOperation(err, r, st)
		}
		if n != to-from {
			clear(out)
			return errImpossible
		}
		counter = make([]byte, aesBlock)
	}
	t.out = out
	return nil
}

// counterEnd is how many of n octets there are before the counter is zero. n is far below 2^64 blocks.
func counterEnd(counter []byte, n int) int {
	left := -binary.BigEndian.Uint64(counter[8:]) // blocks before the lower half is zero; 0: 2^64
	if binary.BigEndian.Uint64(counter) != math.MaxUint64 || left == 0 || left > uint64(n)/aesBlock {
		return n
	}
	return int(left) * aesBlock
}

// refusesParameter says whether a module may have refused a mechanism parameter: SoftHSM calls it CKR_ARGUMENTS_BAD.
func refusesParameter(err error) bool {
	switch err {
	case pkcs11.Error(pkcs11.CKR_ARGUMENTS_BAD), pkcs11.Error(pkcs11.CKR_MECHANISM_PARAM_INVALID),
		pkcs11.Error(pkcs11.CKR_MECHANISM_INVALID):
		return true
	}
	return false
}

// rawOAEP decrypts OAEP with hashes and labels that the module has not: the private operation happens in the HSM, and what is left
// of the padding is undone here. It gives nothing of a message whose padding is wrong.
func (l *login) rawOAEP(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, t *task, kt keyTypeRow, m *meter) *Error {
	em, e := l.rawDecrypt(s, h, t, kt, m)
	if e != nil {
		return e
	}
	hash, mgf := t.oaep()
	message, ok := unpadOAEP(em, hash, mgf, t.choices().label)
	if !ok {
		return &Error{Kind: KindBadData, fate: fateData, Detail: ops[t.op].name}
	}
	t.out = append(make([]byte, 0, len(message)), message...)
	clear(em)
	return nil
}

// rawDecrypt is the bare operation with a private key on t.in, to as many octets as the modulus has. The caller wipes them.
func (l *login) rawDecrypt(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, t *task, kt keyTypeRow, m *meter) ([]byte, *Error) {
	c := call{fn: fnDecrypt, mech: pkcs11.CKM_RSA_X_509, in: t.in, out: make([]byte, kt.octets)}
	n, st, err := l.mod.fns.operate(s, h, &c, m)
	if err != nil {
		return nil, l.failOperation(err, ops[t.op], st)
	}
	// Some modules take leading zeros off. They are put back in the same way whether there are any or not: good padding begins with one.
	em := make([]byte, len(c.out))
	copy(em[len(em)-n:], c.out[:n])
	clear(c.out)
	return em, nil
}

// loadKey gives the handle of a key, and brings the key in if it is not there yet. s is the caller's work session.
func (l *login) loadKey(s pkcs11.SessionHandle, t *task) (*cachedKey, *Error) {
	k := t.key
	return l.keys.get(cacheID(k), t, func() (h pkcs11.ObjectHandle, owned bool, e *Error) {
		t.loaded = true
		if k.Member != "" {
			l.in(t, s, func() { h, e = l.findPinned(s, k) })
			return h, false, e
		}
		h, e = l.unwrap(t)
		return h, true, e
	})
}

// cacheID is what a key is cached under: pinned keys by their object, so that its destruction finds them.
func cacheID(k *Key) string {
	if k.Member != "" {
		return pinnedCacheID(k.ObjectID)
	}
	return k.ID
}

func pinnedCacheID(objectID []byte) string { return "\x00" + string(objectID) }

// unwrap makes a wrapped key a session object of the anchor session.
func (l *login) unwrap(t *task) (h pkcs11.ObjectHandle, e *Error) {
	k := t.key
	kt := keyTypes[k.Type]
	template := unwrapTemplate(kt, secretUsage(kt, k.Usage), loaded)
	err := l.inAnchor(t, func(s pkcs11.SessionHandle) (err error) {
		h, err = l.mod.ctx.UnwrapKey(s, keyWrap(), l.wrap, k.Wrapped, template)
		return err
	})
	if err != nil {
		e = l.fail(err, fnUnwrap, stageOther, "C_UnwrapKey")
		if e.fate == fateSession && !l.alive(t) {
			e.fate = fateLogin
		}
		return 0, e
	}
	return h, nil
}

// findPinned finds the private or secret object of a pinned key.
func (l *login) findPinned(s pkcs11.SessionHandle, k *Key) (pkcs11.ObjectHandle, *Error) {
	class, ckk := secretClass(keyTypes[k.Type])
	found, err := l.findObjects(s, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, class),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, ckk),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_ID, k.ObjectID),
	})
	if err != nil {
		return 0, l.fail(err, fnOther, stageOther, "C_FindObjects")
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return 0, errorf(KindKeyMissing, fateItem, "no key object with ID %x in the token", k.ObjectID)
	}
	return 0, errorf(KindInternal, fateItem, "%d key objects with ID %x in the token", len(found), k.ObjectID)
}

// random fills b from the operating system.
func random(b []byte) {
	rand.Read(b) // never fails: it ends the process instead
}
