package hsmpool

import (
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"slices"

	"github.com/miekg/pkcs11"
)

// importKey unwraps material inside the token, wraps it under the wrap key, and uses what that gives. A pinned key is
// unwrapped once more, to a token object: so none was ever extractable, and a crash before leaves nothing.
func (l *login) importKey(t *task, w *tokenWorker) *Error {
	e, doubt := l.importWrapped(t, w)
	if doubt {
		e, doubt = l.importWrapped(t, w)
	}
	if doubt {
		e = badMaterial()
		e.fate = fateItem // another member has a say
	}
	if e != nil || t.op == opImport {
		return e
	}
	kt := keyTypes[t.key.Type]
	usage := secretUsage(kt, t.key.Usage)
	wrapped := t.out
	t.out = nil
	return l.pin(t, w, wantedOf(classOf(kt), kept, usage), func() *Error {
		template := append(unwrapTemplate(kt, usage, kept), pkcs11.NewAttribute(pkcs11.CKA_ID, t.key.ObjectID),
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, pinnedLabel(t.key.ObjectID)))
		return l.inWork(func(s pkcs11.SessionHandle) *Error {
			if _, err := l.mod.ctx.UnwrapKey(s, keyWrap(), l.wrap, wrapped, template); err != nil {
				e := l.fail(err, fnUnwrap, stageOther, "C_UnwrapKey to a token object")
				if e.Kind == KindBadData {
					e.Kind = KindInternal // the wrapping is ours
				}
				return e
			}
			return nil
		})
	})
}

// badMaterial is the one answer to material that can't be used.
func badMaterial() *Error {
	return &Error{Kind: KindBadData, fate: fateData, Detail: "the key material is not what it should be"}
}

// importWrapped makes material a wrapped key in t.out, and its public key or check value in t.pub. With doubt its error is
// one of the material or of the token, who knows.
func (l *login) importWrapped(t *task, w *tokenWorker) (e *Error, doubt bool) {
	s, err := l.workSession(t)
	if err != nil {
		return l.fail(err, fnOther, stageOther, "C_OpenSession"), false
	}
	r := &importRun{login: l, t: t, w: w, s: s}
	e = r.run()
	end := e
	if r.doubt {
		end = badMaterial() // the session is as good as it was
	}
	if err := r.destroy(); err != nil {
		end = l.fail(err, fnOther, stageOther, "destroy the objects of an import")
		if e == nil {
			e = end
		}
	}
	if end != nil {
		l.failSession(s, end)
		return e, r.doubt
	}
	l.putSession(s)
	if keyTypes[t.key.Type].class == classAES {
		return nil, false
	}
	e = l.prove(&task{op: opProve, key: &Key{ID: newName("import"), Type: t.key.Type, Usage: t.key.Usage, Wrapped: t.out}, pub: t.pub}, w)
	switch {
	case e == nil:
		return nil, false
	case e.Kind == KindBadData || errors.Is(e, errUnproven):
		return badMaterial(), false
	}
	return e, e.fate == fateSession && l.alive(t) && l.masterKeysUsable()
}

// importRun is one try to import in one session. The objects that it makes are destroyed whatever comes of it, as the session
// may be one that stays.
type importRun struct {
	*login
	t     *task
	w     *tokenWorker
	s     pkcs11.SessionHandle
	made  []pkcs11.ObjectHandle
	doubt bool
}

func (r *importRun) destroy() (err error) {
	for _, h := range r.made {
		err = errors.Join(err, r.mod.ctx.DestroyObject(r.s, h))
	}
	r.made = nil
	return err
}

// keep notes an object that a call has made, if it has.
func (r *importRun) keep(h pkcs11.ObjectHandle, err error) (pkcs11.ObjectHandle, error) {
	if err == nil {
		r.made = append(r.made, h)
	}
	return h, err
}

func (r *importRun) run() *Error {
	k := r.t.key
	kt := keyTypes[k.Type]
	if kt.class == classAES {
		return r.runAES()
	}
	h, e := r.material()
	if e != nil {
		return e
	}
	want := wantedOf(classOf(kt), temporary, secretUsage(kt, k.Usage))
	if err := readBack(r.mod.ctx, r.s, h, want); err != nil {
		return r.fail(err, fnOther, stageOther, "read an imported key's attributes back")
	}
	if e := r.public(h); e != nil {
		return e
	}
	return r.wrapped(h)
}

// runAES imports an AES key. Its size shows in that it encrypts, as AES knows three sizes, and in the length of its wrapping, in
// which these differ. A key that is made here stands in for material that is not good, so that the same calls are made to
// the end: of PKCS#1 v1.5 neither errors nor times are to tell how far it came.
func (r *importRun) runAES() *Error {
	k := r.t.key
	kt := keyTypes[k.Type]
	standIn, _, err := r.generateObjects(r.s, k, temporary, nil)
	if _, err = r.keep(standIn, err); err != nil {
		return r.fail(err, fnOther, stageOther, "generate "+kt.name)
	}
	h, bad := r.material()
	if bad != nil && bad.Kind != KindBadData {
		return bad
	}
	if bad != nil {
		h = standIn
	}
	check, e := r.checkValue(h)
	if e != nil && e.Kind != KindBadData {
		return e
	}
	if e != nil {
		h, bad = standIn, e
	}
	if _, e := r.checkValue(standIn); e != nil {
		return e
	}
	want := wantedOf(classOf(kt), temporary, secretUsage(kt, k.Usage))
	if err := readBack(r.mod.ctx, r.s, h, want); err != nil {
		return r.fail(err, fnOther, stageOther, "read an imported key's attributes back")
	}
	if e := r.wrapped(h); e != nil {
		return e
	}
	if bad == nil && len(r.t.out) != kt.octets+8 {
		bad = badMaterial()
	}
	if bad != nil {
		r.t.out = nil
		return bad
	}
	r.t.pub = check
	return nil
}

// wrapped wraps the key under the wrap key.
func (r *importRun) wrapped(h pkcs11.ObjectHandle) *Error {
	out, err := r.mod.ctx.WrapKey(r.s, keyWrap(), r.wrap, h)
	if err != nil {
		return r.fail(err, fnOther, stageOther, "C_WrapKey")
	}
	if n := len(out); n%8 != 0 || n > maxWrapped || n < 24 {
		return errImpossible
	}
	r.t.out = out
	return nil
}

// material unwraps the key that was asked for, as a session object that can be wrapped.
func (r *importRun) material() (pkcs11.ObjectHandle, *Error) {
	k := r.t.key
	kt := keyTypes[k.Type]
	row := imports[r.t.algorithm]
	template := unwrapTemplate(kt, secretUsage(kt, k.Usage), temporary)
	size := keyTypes[r.t.from.Type].octets
	block, rest := r.t.in[:size], r.t.in[size:]
	if !row.kwp {
		return r.unwrapBlock(row, block, template, kt.octets)
	}
	inner, e := r.unwrapBlock(row, block, unwrapTemplate(keyTypes[AES256], usageBits{unwrap: true}, loaded), 16, 24, 32)
	if e != nil {
		return 0, e
	}
	h, err := r.keep(r.mod.ctx.UnwrapKey(r.s, keyWrap(), inner, rest, template))
	if err != nil {
		return 0, r.failMaterial(err, fnUnwrap, stageOther, "C_UnwrapKey of key material")
	}
	return h, nil
}

// unwrapBlock makes an AES key of an RSA block. Where C_UnwrapKey has no SHA-256 the raw operation is done in the token and the
// padding undone here, so that the key, which must have one of sizes, is in this process's memory for a moment.
func (r *importRun) unwrapBlock(row importRow, block []byte, template []*pkcs11.Attribute, sizes ...int) (pkcs11.ObjectHandle, *Error) {
	if !row.sha256 || r.w.unwrapSHA256.Load() != oaepOurs {
		transport, e := r.transport(usageBits{unwrap: true})
		if e != nil {
			return 0, e
		}
		var param any
		if row.param != nil {
			param = row.param
		}
		h, err := r.keep(r.mod.ctx.UnwrapKey(r.s, []*pkcs11.Mechanism{pkcs11.NewMechanism(row.mech, param)}, transport, block, template))
		switch {
		case err == nil && row.sha256:
			r.w.unwrapSHA256.Store(oaepModule)
			return h, nil
		case err == nil:
			return h, nil
		case !row.sha256 || r.w.unwrapSHA256.Load() == oaepModule || !refusesParameter(err):
			return 0, r.failMaterial(err, fnUnwrap, stageOther, "C_UnwrapKey of an RSA block")
		}
		r.w.unwrapSHA256.Store(oaepOurs)
	}
	transport, e := r.transport(usageBits{decrypt: true})
	if e != nil {
		return 0, e
	}
	u := &task{op: DecryptOAEPSHA256, in: block}
	if e := r.rawOAEP(r.s, transport, u, keyTypes[r.t.from.Type], &r.w.meter); e != nil {
		if e.Kind == KindBadData {
			e = badMaterial()
		}
		return 0, e
	}
	defer clear(u.out)
	if !slices.Contains(sizes, len(u.out)) {
		return 0, badMaterial()
	}
	h, err := r.keep(r.mod.fns.createObject(r.s, template, u.out))
	if err != nil {
		return 0, r.failMaterial(err, fnOther, stageOther, "C_CreateObject of key material")
	}
	return h, nil
}

// transport loads the transport key in this session, for one thing.
func (r *importRun) transport(u usageBits) (pkcs11.ObjectHandle, *Error) {
	from := r.t.from
	kt := keyTypes[from.Type]
	h, err := r.keep(r.mod.ctx.UnwrapKey(r.s, keyWrap(), r.wrap, from.Wrapped, unwrapTemplate(kt, u, loaded)))
	if err != nil {
		e := r.fail(err, fnUnwrap, stageOther, "C_UnwrapKey of a transport key")
		if e.Kind == KindBadData {
			e.Kind = KindInternal // it is ours, and nobody's material is to blame
		}
		return 0, e
	}
	if err := readBack(r.mod.ctx, r.s, h, wantedOf(classOf(kt), loaded, u)); err != nil {
		return 0, r.fail(err, fnOther, stageOther, "read a transport key's attributes back")
	}
	return h, nil
}

// materialCodes are return values that say that a key does not fit its template. The templates are ours and fit good material.
var materialCodes = []uint{pkcs11.CKR_KEY_SIZE_RANGE, pkcs11.CKR_KEY_TYPE_INCONSISTENT, pkcs11.CKR_TEMPLATE_INCONSISTENT,
	pkcs11.CKR_TEMPLATE_INCOMPLETE, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID, pkcs11.CKR_DOMAIN_PARAMS_INVALID,
	pkcs11.CKR_CURVE_NOT_SUPPORTED, pkcs11.CKR_KEY_INDIGESTIBLE}

// failMaterial makes the error of a call on material. Some modules have nothing but a general error for what is not valid: if our
// own keys work in the same session, it is in doubt who is to blame. Else anybody could take members down with bad material.
func (r *importRun) failMaterial(err error, fn function, st stage, what string) *Error {
	e := r.fail(err, fn, st, what)
	var code pkcs11.Error
	if e.Kind == KindBadData || errors.As(err, &code) && slices.Contains(materialCodes, uint(code)) {
		return badMaterial()
	}
	if e.fate == fateSession {
		group, err := r.checkValues(r.s)
		r.doubt = err == nil && group == r.group
	}
	return e
}

const checkSize = 32

var checkBlocks = sha256.Sum256([]byte("keyward: check value of imported material"))

// checkValue is two known blocks under an AES key: one would leave room for a second key with the same value.
func (r *importRun) checkValue(h pkcs11.ObjectHandle) ([]byte, *Error) {
	c := call{fn: fnEncrypt, mech: pkcs11.CKM_AES_ECB, in: checkBlocks[:], out: make([]byte, checkSize)}
	n, st, err := r.mod.fns.operate(r.s, h, &c, &r.w.meter)
	if err != nil {
		e := r.failMaterial(err, fnEncrypt, st, "encrypt with an imported key")
		if e.fate == fateItem && e.Kind != KindUnavailable {
			e = badMaterial() // this token could do the same with the seal key when it logged in
		}
		return nil, e
	}
	if n != checkSize {
		return nil, errImpossible
	}
	return c.out, nil
}

// public finds the public key of an imported private key.
func (r *importRun) public(h pkcs11.ObjectHandle) *Error {
	k := r.t.key
	kt := keyTypes[k.Type]
	var err error
	if kt.class == classRSA {
		r.t.pub, err = r.publicKey(r.s, h, k.Type)
	} else {
		var a []*pkcs11.Attribute
		a, err = r.mod.ctx.GetAttributeValue(r.s, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, nil)})
		if err == nil && string(a[0].Value) != string(kt.ecParams) {
			return badMaterial()
		}
	}
	var code pkcs11.Error
	switch {
	case errors.Is(err, pkcs11.Error(pkcs11.CKR_ATTRIBUTE_TYPE_INVALID)):
		return errorf(KindUnsupported, fateItem, "the module does not tell the public part of an imported %s key", kt.name)
	case errors.As(err, &code):
		return r.failMaterial(err, fnOther, stageOther, "read an imported key's public part")
	case err != nil:
		e := badMaterial()
		e.Err = err
		return e
	case kt.class == classRSA:
		return nil
	}
	// A private key object has no point.
	var signatures [len(recoveryDigests)][]byte
	for i := range signatures {
		c := call{fn: fnSign, mech: pkcs11.CKM_ECDSA, in: recoveryDigests[i][:], out: make([]byte, 2*kt.octets)}
		n, st, err := r.mod.fns.operate(r.s, h, &c, &r.w.meter)
		if err != nil {
			return r.failMaterial(err, fnSign, st, "sign with an imported key")
		}
		if n != len(c.out) {
			return errImpossible
		}
		signatures[i] = c.out
	}
	if r.t.pub, err = recoverECPublic(k.Type, signatures); err != nil {
		e := badMaterial()
		e.Err = err
		return e
	}
	return nil
}

// errUnproven says that a key does not do what it should.
var errUnproven = errors.New("a new key does not do what it should")

// proveTransport has a transport key bring in a key that is known here.
func (l *login) proveTransport(t *task, w *tokenWorker) *Error {
	known := make([]byte, keyTypes[AES256].octets)
	random(known)
	want := make([]byte, checkSize)
	b, err := aes.NewCipher(known)
	if err != nil {
		return &Error{Kind: KindInternal, fate: fateData, Err: err}
	}
	b.Encrypt(want, checkBlocks[:])
	b.Encrypt(want[aes.BlockSize:], checkBlocks[aes.BlockSize:])
	pub, err := x509.ParsePKIXPublicKey(t.pub)
	if err != nil {
		return &Error{Kind: KindInternal, fate: fateItem, Detail: "a new public key can't be used", Err: err}
	}
	r, ok := pub.(*rsa.PublicKey)
	if !ok {
		return errorf(KindInternal, fateItem, "a new public key can't be used: not an RSA key")
	}
	block, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, r, known, nil)
	if err != nil {
		return &Error{Kind: KindInternal, fate: fateItem, Detail: "a new public key can't be used", Err: err}
	}
	u := &task{op: opImport, key: &Key{ID: newName("transport"), Type: AES256, Usage: UseEncrypt}, from: t.key,
		algorithm: ImportOAEPSHA256, in: block}
	if e, _ := l.importWrapped(u, w); e != nil {
		if e.Kind == KindBadData {
			return &Error{Kind: KindInternal, fate: fateItem, Detail: "a new transport key brings nothing in", Err: errUnproven}
		}
		return e
	}
	if string(u.pub) != string(want) {
		return &Error{Kind: KindInternal, fate: fateItem, Detail: "a new transport key brings in something else", Err: errUnproven}
	}
	return nil
}
