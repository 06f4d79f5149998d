package pkcs11front

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/kms/rsapad"
	"github.com/keyward/keyward/kms/turns"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
	"github.com/keyward/keyward/pkcs11front/sessionkey"
)

// bench is a session without a connection, for tests of operations: calls go in as the octets that keyward's module would send, and answers come out so.
type bench struct {
	t       testing.TB
	front   *Front
	app     *application
	session *session
	all     []*session
	dialect p11rpc.Dialect
	keys    map[handle]*goKey
	uses    int      // of keys
	real    bool     // keys are keyward's own session keys
	env     *testEnv // keys are the KMS's, in the session's instance
	kms     keptKeys
	who     *kms.Actor
}

func newBench(t testing.TB) *bench {
	b := &bench{t: t, front: &Front{publics: newPublicCache(), computing: turns.New[uint32](4), rejection: func(spki []byte) ([]byte, error) { sum := sha256.Sum256(spki); return sum[:], nil }}, dialect: p11rpc.Keyward, keys: map[handle]*goKey{}}
	b.app = newApplication(b.front, Peer{}, &memory{max: 64 << 20}, "", "")
	for _, instance := range []string{softwareID, hardwareID} {
		b.app.logins[instance] = login{until: time.Now().Add(time.Hour)}
	}
	b.open()
	return b
}

// open opens another session, which the calls are of from then on.
func (b *bench) open() {
	b.session = &session{app: b.app, id: uint64(len(b.all) + 1), instance: softwareID, rw: true}
	b.app.sessions[b.session.id] = b.session
	b.all = append(b.all, b.session)
}

// octets and null are arguments of calls, and so are uint64 (u), byte (y) and what follows.
type (
	octets []byte             // ay
	room   int                // fy; -1: NULL
	mech   mechanismM         // M
	attrs  []p11rpc.Attribute // aA
	wants  []ck.Attribute     // fA, with much room
)

type mechanismM struct {
	m     ck.Mechanism
	param []byte // nil: none
	null  bool
}

func (b *bench) encode(args []any) []byte {
	var out []byte
	u32 := func(n int) { out = binary.BigEndian.AppendUint32(out, uint32(n)) }
	for _, a := range args {
		switch a := a.(type) {
		case uint64:
			out = binary.BigEndian.AppendUint64(out, a)
		case handle:
			out = binary.BigEndian.AppendUint64(out, uint64(a))
		case byte:
			out = append(out, a)
		case octets:
			out = append(out, 1)
			if a == nil {
				u32(1<<32 - 1)
			} else {
				u32(len(a))
				out = append(out, a...)
			}
		case room:
			switch {
			case a < 0:
				u32(0)
			case a == 0:
				u32(1<<32 - 1)
			default:
				u32(int(a))
			}
		case mech:
			if a.null {
				u32(1<<32 - 1)
				break
			}
			u32(int(a.m))
			if a.param == nil {
				u32(1<<32 - 1)
			} else {
				u32(len(a.param))
				out = append(out, a.param...)
			}
		case attrs:
			u32(len(a))
			for _, at := range a {
				u32(int(at.Type))
				out = append(out, 1, byte(at.Kind))
				switch at.Kind {
				case p11rpc.Bool:
					u32(1)
					out = append(out, byte(at.Number))
				case p11rpc.Ulong:
					u32(8)
					out = binary.BigEndian.AppendUint64(out, at.Number)
				default:
					u32(len(at.Octets))
					u32(len(at.Octets))
					out = append(out, at.Octets...)
				}
			}
		case wants:
			u32(len(a))
			for _, at := range a {
				u32(int(at))
				u32(1 << 16)
			}
		default:
			b.t.Fatalf("argument %T", a)
		}
	}
	return out
}

// reply is what a call gave: the octets of the answer behind its return value.
type reply struct {
	rv ck.RV
	b  []byte
}

// callNamed gives the number of a call.
var callNamed = func() map[string]p11rpc.CallID {
	named := map[string]p11rpc.CallID{}
	for _, c := range p11rpc.Calls {
		named[c.Name] = c.ID
	}
	return named
}()

// call makes a call of the session, as a request does.
func (b *bench) call(name string, args ...any) reply {
	b.t.Helper()
	id, ok := callNamed[name]
	if !ok {
		b.t.Fatalf("no call %s", name)
	}
	q := &request{ctx: context.Background(), front: b.front, app: b.app, session: b.session, dialect: b.dialect, who: b.who}
	q.in, q.out = &q.reader, &q.writer
	q.reader.Reset(b.dialect, b.encode(args))
	q.writer.Reset(b.dialect, nil)
	b.session.mu.Lock()
	defer b.session.mu.Unlock()
	rv := calls[id].handle(q)
	b.invariants()
	return reply{rv, q.writer.Bytes()}
}

// invariants hold after every call.
func (b *bench) invariants() {
	held := int64(0)
	for _, s := range b.all {
		for kind, op := range s.ops.active {
			if op == nil {
				continue
			}
			held += int64(op.held)
			holds := cap(op.data) + len(op.kept)
			if op.use != nil && kind < int(messageEncrypting) {
				holds += len(op.use.AAD)
			}
			if op.kind != operationKind(kind) || op.row == nil || op.held != holds || len(op.data) > op.limit && op.kind != digesting {
				b.t.Fatalf("operation %d is %+v", kind, op)
			}
		}
	}
	if n := b.app.gathered.Load(); n != held {
		b.t.Fatalf("the application holds %d octets, and counts %d", held, n)
	}
}

// result reads an "ay" of the answer: the octets, or how many there would be.
func (a *reply) result(t testing.TB) (out []byte, needed int) {
	t.Helper()
	if a.rv != ck.CKR_OK {
		t.Fatalf("%v", a.rv)
	}
	p, n := a.b[0], binary.BigEndian.Uint32(a.b[1:])
	a.b = a.b[5:]
	if p == 0 {
		return nil, int(n)
	}
	out, a.b = a.b[:n:n], a.b[n:]
	return out, int(n)
}

// do is call for one that must succeed with octets.
func (b *bench) do(name string, args ...any) []byte {
	b.t.Helper()
	a := b.call(name, args...)
	if a.rv != ck.CKR_OK {
		b.t.Fatalf("%s: %v", name, a.rv)
	}
	out, n := a.result(b.t)
	if len(out) != n {
		b.t.Fatalf("%s wants room for %d octets", name, n)
	}
	return out
}

// ok is call for one that must succeed.
func (b *bench) ok(name string, args ...any) {
	b.t.Helper()
	if a := b.call(name, args...); a.rv != ck.CKR_OK {
		b.t.Fatalf("%s: %v", name, a.rv)
	}
}

// refused is call for one that must fail so.
func (b *bench) refused(want ck.RV, name string, args ...any) {
	b.t.Helper()
	if a := b.call(name, args...); a.rv != want {
		b.t.Fatalf("%s: %v, want %v", name, a.rv, want)
	}
}

// Parameters as they are sent.
func numbers(n ...uint64) (b []byte) {
	for _, v := range n {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func sized(v []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(v))), v...) }

func join(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func gcmParam(iv, aad []byte, tagBits uint64) []byte {
	return join(sized(iv), numbers(uint64(8*len(iv))), sized(aad), numbers(tagBits))
}

// goKey is a key made of Go's cryptography: the other opinion on what keys of the KMS and session keys do.
type goKey struct {
	h      handle
	cls    ck.Class
	f      keyFacts
	octets []byte // of a secret
	rsa    *rsa.PrivateKey
	ec     *ecdsa.PrivateKey
	refuse ck.RV // by may
	values map[ck.Attribute]uint64
	open   bool // CKA_VALUE is given out
	secret *sessionkey.Secret
	priv   *sessionkey.Private
	canned []byte // what sign gives, for benchmarks
	b      *bench
}

// localGoKey is a goKey as a session key.
type localGoKey struct{ *goKey }

// look is what q.key gives.
func (k *goKey) look() key {
	if k.f.token {
		return k
	}
	return localGoKey{k}
}

func (k *goKey) handle() handle   { return k.h }
func (k *goKey) class() ck.Class  { return k.cls }
func (k *goKey) facts() *keyFacts { return &k.f }
func (k *goKey) attribute(a ck.Attribute) (p11rpc.Value, ck.RV) {
	flag := func(b bool) (p11rpc.Value, ck.RV) { return boolValue(b), ck.CKR_OK }
	switch {
	case a == ck.CKA_SENSITIVE && k.cls != ck.CKO_PUBLIC_KEY:
		return flag(!k.open)
	case a == ck.CKA_EXTRACTABLE && k.cls != ck.CKO_PUBLIC_KEY:
		return flag(k.open || k.f.extractable)
	}
	if v, ok := k.values[a]; ok {
		return p11rpc.Value{Kind: p11rpc.Bool, Number: v}, ck.CKR_OK
	}
	return p11rpc.Value{}, ck.CKR_ATTRIBUTE_TYPE_INVALID
}

// secretKey and privateKey are keyward's own idea of the key: what wraps, derives and makes MACs.
func (k localGoKey) secretKey() *sessionkey.Secret {
	kind := sessionkey.Generic
	if k.f.keyType == ck.CKK_AES {
		kind = sessionkey.AES
	}
	if k.cls != ck.CKO_SECRET_KEY {
		return nil
	}
	if k.secret == nil {
		var err error
		if k.secret, err = sessionkey.NewSecret(kind, k.octets); err != nil {
			k.b.t.Fatal(err)
		}
	}
	return k.secret
}

func (k localGoKey) privateKey() *sessionkey.Private {
	if k.cls != ck.CKO_PRIVATE_KEY {
		return nil
	}
	if k.priv == nil {
		var private any = k.rsa
		if k.ec != nil {
			private = k.ec
		}
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			k.b.t.Fatal(err)
		}
		if k.priv, err = sessionkey.ParsePrivate(der); err != nil {
			k.b.t.Fatal(err)
		}
	}
	return k.priv
}

func (k *goKey) may(_ context.Context, _ kms.Verb, _ *mechanism.Mechanism) ck.RV { return k.refuse }

func (k *goKey) sign(_ context.Context, m *mechanism.Mechanism, in []byte) ([]byte, ck.RV) {
	k.b.uses++
	if k.canned != nil {
		return k.canned, ck.CKR_OK
	}
	var s []byte
	var err error
	switch m.Kind {
	case mechanism.RSAPKCS1:
		s, err = rsa.SignPKCS1v15(nil, k.rsa, 0, in)
	case mechanism.RSARaw:
		return k.raw(in, k.rsa.D)
	case mechanism.RSAPSS:
		if m.MGF != m.Hash {
			return nil, ck.CKR_MECHANISM_PARAM_INVALID // Go has no other
		}
		s, err = rsa.SignPSS(rand.Reader, k.rsa, m.Hash, in, &rsa.PSSOptions{SaltLength: m.Salt})
		if m.Salt == 0 {
			err = fmt.Errorf("Go draws another length for 0")
		}
	case mechanism.ECDSA:
		r, v, e := ecdsa.Sign(rand.Reader, k.ec, in)
		if e != nil {
			return nil, ck.CKR_FUNCTION_FAILED
		}
		n := (k.f.bits + 7) / 8
		s = append(r.FillBytes(make([]byte, n)), v.FillBytes(make([]byte, n))...)
	}
	if err != nil {
		k.b.t.Error(err)
		return nil, ck.CKR_FUNCTION_FAILED
	}
	return s, ck.CKR_OK
}

func (k *goKey) raw(in []byte, e *big.Int) ([]byte, ck.RV) {
	x := new(big.Int).SetBytes(in)
	if len(in) != k.f.bits/8 || x.Cmp(k.rsa.N) >= 0 {
		return nil, ck.CKR_DATA_INVALID
	}
	return x.Exp(x, e, k.rsa.N).FillBytes(make([]byte, k.f.bits/8)), ck.CKR_OK
}

func (k *goKey) verify(_ context.Context, m *mechanism.Mechanism, in, s []byte) ck.RV {
	k.b.uses++
	ok := false
	switch m.Kind {
	case mechanism.RSAPKCS1:
		ok = rsa.VerifyPKCS1v15(&k.rsa.PublicKey, 0, in, s) == nil
	case mechanism.RSARaw:
		out, rv := k.raw(s, big.NewInt(int64(k.rsa.E)))
		ok = rv == ck.CKR_OK && subtle.ConstantTimeCompare(out, in) == 1
	case mechanism.RSAPSS:
		ok = rsa.VerifyPSS(&k.rsa.PublicKey, m.Hash, in, s, &rsa.PSSOptions{SaltLength: m.Salt}) == nil
	case mechanism.ECDSA:
		n := len(s) / 2
		ok = ecdsa.Verify(&k.ec.PublicKey, in, new(big.Int).SetBytes(s[:n]), new(big.Int).SetBytes(s[n:]))
	}
	if !ok {
		return ck.CKR_SIGNATURE_INVALID
	}
	return ck.CKR_OK
}

func (k *goKey) encrypt(_ context.Context, m *mechanism.Mechanism, in []byte, _ bool) ([]byte, ck.RV) {
	k.b.uses++
	switch m.Kind {
	case mechanism.RSAPKCS1:
		return pkcs1Encrypted(&k.rsa.PublicKey, in), ck.CKR_OK
	case mechanism.RSARaw:
		return k.raw(in, big.NewInt(int64(k.rsa.E)))
	case mechanism.RSAOAEP:
		out, err := rsa.EncryptOAEPWithOptions(rand.Reader, &k.rsa.PublicKey, in, &rsa.OAEPOptions{Hash: m.Hash, MGFHash: m.MGF, Label: m.Label})
		return out, rvIf(err, ck.CKR_DATA_LEN_RANGE)
	}
	return k.aes(m, in, true)
}

func (k *goKey) decrypt(_ context.Context, m *mechanism.Mechanism, in []byte, _ bool) ([]byte, ck.RV) {
	k.b.uses++
	switch m.Kind {
	case mechanism.RSAPKCS1:
		em, rv := k.raw(in, k.rsa.D)
		if rv != ck.CKR_OK {
			return nil, ck.CKR_ENCRYPTED_DATA_INVALID
		}
		return rsapad.Unpad(em, in, make([]byte, rsapad.SecretSize)), ck.CKR_OK
	case mechanism.RSARaw:
		return k.raw(in, k.rsa.D)
	case mechanism.RSAOAEP:
		out, err := k.rsa.Decrypt(nil, in, &rsa.OAEPOptions{Hash: m.Hash, MGFHash: m.MGF, Label: m.Label})
		return out, rvIf(err, ck.CKR_ENCRYPTED_DATA_INVALID)
	}
	return k.aes(m, in, false)
}

// pkcs1Encrypted encrypts by PKCS #1 v1.5.
func pkcs1Encrypted(k *rsa.PublicKey, in []byte) []byte {
	//lint:ignore SA1019 it is what is tested
	out, err := rsa.EncryptPKCS1v15(rand.Reader, k, in)
	if err != nil {
		panic(err)
	}
	return out
}

func rvIf(err error, rv ck.RV) ck.RV {
	if err != nil {
		return rv
	}
	return ck.CKR_OK
}

func (k *goKey) aes(m *mechanism.Mechanism, in []byte, encrypt bool) ([]byte, ck.RV) {
	block, err := aes.NewCipher(k.octets)
	if err != nil {
		return nil, ck.CKR_KEY_SIZE_RANGE
	}
	out := make([]byte, len(in))
	switch m.Kind {
	case mechanism.AESECB:
		for i := 0; i < len(in); i += blockSize {
			if encrypt {
				block.Encrypt(out[i:], in[i:i+blockSize])
			} else {
				block.Decrypt(out[i:], in[i:i+blockSize])
			}
		}
	case mechanism.AESCBC:
		if encrypt {
			cipher.NewCBCEncrypter(block, m.IV).CryptBlocks(out, in)
		} else {
			cipher.NewCBCDecrypter(block, m.IV).CryptBlocks(out, in)
		}
	case mechanism.AESCTR:
		cipher.NewCTR(block, m.IV).XORKeyStream(out, in)
	case mechanism.AESGCM:
		iv, drawn := m.IV, []byte(nil)
		if iv == nil && encrypt {
			iv = make([]byte, gcmIV)
			rand.Read(iv)
			drawn = iv
		}
		var gcm cipher.AEAD
		if m.TagBits == 128 {
			gcm, err = cipher.NewGCMWithNonceSize(block, len(iv))
		} else {
			gcm, err = cipher.NewGCMWithTagSize(block, m.TagBits/8)
		}
		if err != nil {
			return nil, ck.CKR_MECHANISM_PARAM_INVALID
		}
		if encrypt {
			return gcm.Seal(append([]byte(nil), drawn...), iv, in, m.AAD), ck.CKR_OK
		}
		out, err = gcm.Open(nil, iv, in, m.AAD)
		return out, rvIf(err, ck.CKR_ENCRYPTED_DATA_INVALID)
	}
	return out, ck.CKR_OK
}

// add makes a key known to the session's calls, as a session object; what it says that it is, is another matter.
func (b *bench) add(k *goKey) handle {
	k.h, k.b = handle(len(b.keys)+1), b
	b.keys[k.h] = k
	b.show(k)
	return k.h
}

func (b *bench) show(k *goKey) {
	o := sessionObject(k)
	if b.real {
		b.app.objects[k.h] = &heldObject{b.sessionKeyOf(k), b.session}
		return
	}
	if !k.f.token {
		o = localGoKey{k}
	}
	b.app.objects[k.h] = &heldObject{o, b.session}
}

// sessionKeyOf is the same key as keyward has it in a session.
func (b *bench) sessionKeyOf(k *goKey) *sessionKey {
	k.f.token = false
	s := &sessionKey{f: k.f}
	s.sessionData = newSessionData(tableOf(k.cls, k.f.keyType), nil)
	s.h = k.h
	local := localGoKey{k}
	s.secret, s.priv = local.secretKey(), local.privateKey()
	if k.cls == ck.CKO_PUBLIC_KEY {
		var public any
		if k.rsa != nil {
			public = &k.rsa.PublicKey
		} else {
			public = &k.ec.PublicKey
		}
		spki, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			b.t.Fatal(err)
		}
		if s.public, err = sessionkey.ParsePublic(spki); err != nil {
			b.t.Fatal(err)
		}
	}
	return s
}

// What a session object has besides.
func (k *goKey) private() bool                { return false }
func (k *goKey) destroy()                     {}
func (k *goKey) weight() int                  { return 0 }
func (k *goKey) age() uint64                  { return uint64(k.h) }
func (k *goKey) changed(values) sessionObject { return k }
func (k *goKey) attributes() values           { return nil }

// adopt makes a goKey of a session key that a call has made.
func (b *bench) adopt(h handle) {
	held := b.app.objects[h]
	if held == nil || b.keys[h] != nil {
		return
	}
	made, ok := held.sessionObject.(*sessionKey)
	if !ok {
		return
	}
	k := &goKey{h: h, cls: made.class(), f: made.f, open: made.readable(), values: map[ck.Attribute]uint64{}, b: b}
	for _, a := range made.v {
		k.values[a.Type] = a.Number
	}
	b.keys[h] = k
	if made.secret != nil {
		k.octets, _ = made.secret.Marshal()
		return
	}
	der, err := made.priv.Marshal()
	if err != nil {
		b.t.Fatal(err)
	}
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return // Go does not know the curve
	}
	switch p := private.(type) {
	case *rsa.PrivateKey:
		k.rsa = p
	case *ecdsa.PrivateKey:
		k.ec = p
	}
}

// secret adds a secret session key.
func (b *bench) secret(t ck.KeyType, octets []byte, u usage) handle {
	if b.env != nil {
		k := b.kept(map[int]kmswire.KeySpec{16: kmswire.AES128, 24: kmswire.AES192, 32: kmswire.AES256}[len(octets)], u, octets)
		return b.knows(keyHandle(ck.CKO_SECRET_KEY, k.KeyPlace), &goKey{octets: k.material})
	}
	return b.add(&goKey{cls: ck.CKO_SECRET_KEY, octets: octets, f: keyFacts{keyType: t, bits: 8 * len(octets), usage: u}})
}

var testRSA = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// rsaPair adds both halves of a key of the KMS.
func (b *bench) rsaPair(private, public usage) (prv, pub handle) {
	if b.env != nil {
		der, err := x509.MarshalPKCS8PrivateKey(testRSA())
		if err != nil {
			b.t.Fatal(err)
		}
		k := b.kept(kmswire.RSA2048, private, der)
		return b.knows(keyHandle(ck.CKO_PRIVATE_KEY, k.KeyPlace), &goKey{}), b.knows(keyHandle(ck.CKO_PUBLIC_KEY, k.KeyPlace), &goKey{rsa: testRSA()})
	}
	f := keyFacts{keyType: ck.CKK_RSA, bits: 2048, token: true, rawRSA: b.front.cfg.RawRSA}
	f.usage = private
	prv = b.add(&goKey{cls: ck.CKO_PRIVATE_KEY, rsa: testRSA(), f: f})
	f.usage = public
	return prv, b.add(&goKey{cls: ck.CKO_PUBLIC_KEY, rsa: testRSA(), f: f})
}

func (b *bench) ecPair(curve elliptic.Curve) (prv, pub handle) {
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	if b.env != nil {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			b.t.Fatal(err)
		}
		at := b.kept(kmswire.ECP256, maySign, der)
		return b.knows(keyHandle(ck.CKO_PRIVATE_KEY, at.KeyPlace), &goKey{}), b.knows(keyHandle(ck.CKO_PUBLIC_KEY, at.KeyPlace), &goKey{})
	}
	f := keyFacts{keyType: ck.CKK_EC, bits: curve.Params().BitSize, curve: curve.Params().Name, token: true, usage: maySign}
	prv = b.add(&goKey{cls: ck.CKO_PRIVATE_KEY, ec: k, f: f})
	f.usage = mayVerify
	return prv, b.add(&goKey{cls: ck.CKO_PUBLIC_KEY, ec: k, f: f})
}

// hashOf is the digest by Go.
func hashOf(h crypto.Hash, in []byte) []byte {
	d := h.New()
	d.Write(in)
	return d.Sum(nil)
}

// Attributes of templates.
func withTrue(types ...ck.Attribute) (t attrs) {
	for _, a := range types {
		t = append(t, p11rpc.Attribute{Type: a, Value: p11rpc.Value{Kind: p11rpc.Bool, Number: 1}})
	}
	return t
}

func withFalse(types ...ck.Attribute) (t attrs) {
	t = withTrue(types...)
	for i := range t {
		t[i].Number = 0
	}
	return t
}

func withNumber(a ck.Attribute, n uint64) attrs {
	return attrs{{Type: a, Value: p11rpc.Value{Kind: p11rpc.Ulong, Number: n}}}
}

func keyTemplate(c ck.Class, t ck.KeyType, more ...attrs) attrs {
	all := append(withNumber(ck.CKA_CLASS, uint64(c)), withNumber(ck.CKA_KEY_TYPE, uint64(t))...)
	for _, m := range more {
		all = append(all, m...)
	}
	return all
}

// doHandle is call for one that must succeed with a handle.
func (b *bench) doHandle(name string, args ...any) handle {
	b.t.Helper()
	a := b.call(name, args...)
	if a.rv != ck.CKR_OK || len(a.b) != 8 {
		b.t.Fatalf("%s: %v %x", name, a.rv, a.b)
	}
	h := handle(binary.BigEndian.Uint64(a.b))
	b.adopt(h)
	return h
}

// keptKeys are keys that were brought into the KMS, by what they are. They are made once, as that takes an HSM a second.
type keptKeys map[string]*keptKey

type keptKey struct {
	*kms.TokenKey
	material []byte
}

// newKMSBench is a bench whose keys are the KMS's.
func newKMSBench(t testing.TB, e *testEnv, instance string, keys keptKeys) *bench {
	b := newBench(t)
	b.front, b.env, b.who, b.kms = e.front, e, root, keys
	b.app.front, b.app.principal = e.front, root.Principal
	b.session.instance = instance
	return b
}

// kept gives a key of the KMS, which gets the material if it is not there yet.
func (b *bench) kept(spec kmswire.KeySpec, u usage, material []byte) *keptKey {
	use := kmswire.SignVerify
	if u&useEncrypt != 0 {
		use = kmswire.EncryptDecrypt
	}
	name := fmt.Sprint(b.session.instance, spec, use)
	if b.kms[name] == nil {
		k, err := b.env.service.CreateTokenKey(b.env.t.Context(), root, &kms.NewTokenKey{Instance: b.session.instance, Spec: spec, Usage: use, Material: bytes.Clone(material)})
		if err != nil {
			b.t.Fatal(err)
		}
		b.kms[name] = &keptKey{k, material}
	}
	return b.kms[name]
}

// knows notes what Go knows of a key of the KMS.
func (b *bench) knows(h handle, k *goKey) handle {
	b.keys[h] = k
	return h
}
