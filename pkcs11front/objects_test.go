package pkcs11front

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
	"github.com/keyward/keyward/pkcs11front/p11rpc/p11rpctest"
	"github.com/keyward/keyward/pkcs11front/sessionkey"
)

// tokenUser is a client with a session of a token.
type tokenUser struct {
	t testing.TB
	*p11rpctest.Client
	s uint64
}

// user opens a session for reading and writing, over a connection of its own.
func (e *testEnv) user(t testing.TB, d p11rpc.Dialect, instance string) *tokenUser {
	t.Helper()
	c, err := p11rpctest.Dial(e.path, offers[d])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	cookie := ""
	if d == p11rpc.Keyward {
		cookie = testCookie
	}
	if rv, err := c.Initialize(cookie); err != nil || rv != ck.CKR_OK {
		t.Fatal(rv, err)
	}
	u := &tokenUser{t: t, Client: c}
	u.open(instance, true)
	return u
}

// open opens another session, which the calls are of from then on, and gives the one before.
func (u *tokenUser) open(instance string, rw bool) uint64 {
	u.t.Helper()
	before, flags := u.s, ck.CKF_SERIAL_SESSION
	if rw {
		flags |= ck.CKF_RW_SESSION
	}
	u.s = u.must(10, func(w *p11rpc.Writer) { w.Ulong(uint64(slotNumber(instance))); w.Ulong(uint64(flags)) }).Ulong()
	return before
}

func (u *tokenUser) call(id p11rpc.CallID, arguments func(*p11rpc.Writer)) (*p11rpc.Reader, ck.RV) {
	u.t.Helper()
	r, rv, err := u.Call(id, arguments)
	if err != nil {
		u.t.Fatal(err)
	}
	return r, rv
}

func (u *tokenUser) must(id p11rpc.CallID, arguments func(*p11rpc.Writer)) *p11rpc.Reader {
	u.t.Helper()
	r, rv := u.call(id, arguments)
	if rv != ck.CKR_OK {
		u.t.Fatalf("%s: %v", p11rpc.Calls[id-1].Name, rv)
	}
	return r
}

// in makes the arguments of a call of the session.
func (u *tokenUser) in(arguments func(*p11rpc.Writer)) func(*p11rpc.Writer) {
	return func(w *p11rpc.Writer) {
		w.Ulong(u.s)
		if arguments != nil {
			arguments(w)
		}
	}
}

// A template in words.
func class(c ck.Class) p11rpc.Attribute { return number(ck.CKA_CLASS, uint64(c)) }
func keyType(t ck.KeyType) p11rpc.Attribute {
	return number(ck.CKA_KEY_TYPE, uint64(t))
}
func number(a ck.Attribute, n uint64) p11rpc.Attribute {
	return p11rpc.Attribute{Type: a, Value: ulongValue(n)}
}
func text(a ck.Attribute, s string) p11rpc.Attribute {
	return p11rpc.Attribute{Type: a, Value: octetsValue([]byte(s))}
}
func is(types ...ck.Attribute) (t []p11rpc.Attribute) {
	for _, a := range types {
		t = append(t, p11rpc.Attribute{Type: a, Value: boolValue(true)})
	}
	return t
}
func isNot(types ...ck.Attribute) (t []p11rpc.Attribute) {
	for _, a := range types {
		t = append(t, p11rpc.Attribute{Type: a, Value: boolValue(false)})
	}
	return t
}
func all(parts ...any) (t []p11rpc.Attribute) {
	for _, p := range parts {
		switch p := p.(type) {
		case p11rpc.Attribute:
			t = append(t, p)
		case []p11rpc.Attribute:
			t = append(t, p...)
		}
	}
	return t
}

func (u *tokenUser) tryCreate(template ...any) (handle, ck.RV) {
	u.t.Helper()
	r, rv := u.call(20, u.in(func(w *p11rpc.Writer) { w.Template(all(template...)) }))
	if rv != ck.CKR_OK {
		return 0, rv
	}
	return handle(r.Ulong()), rv
}

func (u *tokenUser) create(template ...any) handle {
	u.t.Helper()
	h, rv := u.tryCreate(template...)
	if rv != ck.CKR_OK {
		u.t.Fatalf("C_CreateObject: %v", rv)
	}
	return h
}

func (u *tokenUser) tryGenerate(m ck.Mechanism, template ...any) (handle, ck.RV) {
	u.t.Helper()
	r, rv := u.call(58, u.in(func(w *p11rpc.Writer) { w.Mechanism(p11rpc.Mechanism{Type: m}); w.Template(all(template...)) }))
	if rv != ck.CKR_OK {
		return 0, rv
	}
	return handle(r.Ulong()), rv
}

func (u *tokenUser) tryPair(m ck.Mechanism, public, private []p11rpc.Attribute) (pub, prv handle, rv ck.RV) {
	u.t.Helper()
	r, rv := u.call(59, u.in(func(w *p11rpc.Writer) {
		w.Mechanism(p11rpc.Mechanism{Type: m})
		w.Template(public)
		w.Template(private)
	}))
	if rv != ck.CKR_OK {
		return 0, 0, rv
	}
	return handle(r.Ulong()), handle(r.Ulong()), rv
}

func (u *tokenUser) pair(m ck.Mechanism, public, private []p11rpc.Attribute) (pub, prv handle) {
	u.t.Helper()
	pub, prv, rv := u.tryPair(m, public, private)
	if rv != ck.CKR_OK {
		u.t.Fatalf("C_GenerateKeyPair: %v", rv)
	}
	return pub, prv
}

func (u *tokenUser) tryCopy(h handle, template ...any) (handle, ck.RV) {
	u.t.Helper()
	r, rv := u.call(21, u.in(func(w *p11rpc.Writer) { w.Ulong(uint64(h)); w.Template(all(template...)) }))
	if rv != ck.CKR_OK {
		return 0, rv
	}
	return handle(r.Ulong()), rv
}

func (u *tokenUser) destroy(h handle) ck.RV {
	u.t.Helper()
	_, rv := u.call(22, u.in(func(w *p11rpc.Writer) { w.Ulong(uint64(h)) }))
	return rv
}

func (u *tokenUser) set(h handle, template ...any) ck.RV {
	u.t.Helper()
	_, rv := u.call(25, u.in(func(w *p11rpc.Writer) { w.Ulong(uint64(h)); w.Template(all(template...)) }))
	return rv
}

// get gives an attribute, which must be there.
func (u *tokenUser) get(h handle, a ck.Attribute) p11rpc.Value {
	u.t.Helper()
	results, rv := u.tryGet(h, p11rpc.Wanted{Type: a, Room: 65536})
	if rv != ck.CKR_OK {
		u.t.Fatalf("%v of %x: %v", a, uint64(h), rv)
	}
	return results[0].Value
}

func (u *tokenUser) is(h handle, a ck.Attribute) bool {
	u.t.Helper()
	return u.get(h, a).Number == 1
}

func (u *tokenUser) tryGet(h handle, wanted ...p11rpc.Wanted) ([]p11rpc.Result, ck.RV) {
	u.t.Helper()
	r, rv := u.call(24, u.in(func(w *p11rpc.Writer) { w.Ulong(uint64(h)); w.Wanted(wanted) }))
	if rv != ck.CKR_OK {
		return nil, rv
	}
	results := r.Results()
	for i := range results {
		results[i].Octets = bytes.Clone(results[i].Octets)
	}
	rv = ck.RV(r.Ulong())
	if err := r.End(); err != nil {
		u.t.Fatal(err)
	}
	return results, rv
}

// find gives what a search finds, fetched by so many at once.
func (u *tokenUser) find(most uint32, template ...any) (found []handle) {
	u.t.Helper()
	u.must(26, u.in(func(w *p11rpc.Writer) { w.Template(all(template...)) }))
	for {
		list, _ := u.must(27, u.in(func(w *p11rpc.Writer) { w.Room(p11rpc.Room{Size: most}) })).Ulongs()
		if len(list) > int(most) {
			u.t.Fatalf("%d objects came at once", len(list))
		}
		for _, h := range list {
			found = append(found, handle(h))
		}
		if len(list) == 0 {
			break
		}
	}
	u.must(28, u.in(nil))
	return found
}

func (u *tokenUser) wantFound(want []handle, template ...any) {
	u.t.Helper()
	for _, most := range []uint32{1, 100} {
		if got := u.find(most, template...); !slices.Equal(got, want) {
			u.t.Errorf("%v finds %x, not %x", all(template...), got, want)
		}
	}
}

func (u *tokenUser) wantRV(want, got ck.RV) {
	u.t.Helper()
	if got != want {
		u.t.Errorf("%v, not %v", got, want)
	}
}

// testPEM's own certificate.
var certificateOnce = sync.OnceValue(func() []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(4711), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return der
})

func testCertificate(testing.TB) []byte { return certificateOnce() }

var (
	p256Params = string(sessionkey.P256.Params())
	onToken    = is(ck.CKA_TOKEN)
	certClass  = class(ck.CKO_CERTIFICATE)
	dataClass  = class(ck.CKO_DATA)
)

// TestCertificates keeps certificates in the token and the session, in every dialect.
func TestCertificates(t *testing.T) {
	e := newEnv(t)
	der := testCertificate(t)
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha1.Sum(der)
	serial, _ := asn1.Marshal(parsed.SerialNumber)
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		u := e.user(t, d, softwareID)
		for _, token := range []bool{true, false} {
			in := p11rpc.Attribute{Type: ck.CKA_TOKEN, Value: boolValue(token)}
			h := u.create(certClass, in, text(ck.CKA_VALUE, string(der)), text(ck.CKA_LABEL, "a label"), text(ck.CKA_ID, "id"))
			for a, want := range map[ck.Attribute][]byte{ck.CKA_VALUE: der, ck.CKA_SUBJECT: parsed.RawSubject, ck.CKA_ISSUER: parsed.RawIssuer, ck.CKA_SERIAL_NUMBER: serial,
				ck.CKA_PUBLIC_KEY_INFO: parsed.RawSubjectPublicKeyInfo, ck.CKA_LABEL: []byte("a label"), ck.CKA_ID: []byte("id"), ck.CKA_CHECK_VALUE: sum[:3], ck.CKA_URL: nil} {
				if got := u.get(h, a); !bytes.Equal(got.Octets, want) {
					t.Errorf("%v is %x, not %x", a, got.Octets, want)
				}
			}
			for a, want := range map[ck.Attribute]uint64{ck.CKA_CLASS: uint64(ck.CKO_CERTIFICATE), ck.CKA_TOKEN: boolValue(token).Number, ck.CKA_PRIVATE: 0, ck.CKA_MODIFIABLE: 1, ck.CKA_DESTROYABLE: 1,
				ck.CKA_TRUSTED: 0, ck.CKA_CERTIFICATE_TYPE: ck.CKC_X_509, ck.CKA_CERTIFICATE_CATEGORY: 0} {
				if got := u.get(h, a); got.Number != want {
					t.Errorf("%v is %d, not %d", a, got.Number, want)
				}
			}
			u.wantFound([]handle{h}, certClass, text(ck.CKA_SUBJECT, string(parsed.RawSubject)))
			u.wantFound([]handle{h}, text(ck.CKA_LABEL, "a label"), in)
			u.wantFound([]handle{h}, text(ck.CKA_ISSUER, string(parsed.RawIssuer)), text(ck.CKA_SERIAL_NUMBER, string(serial)))
			u.wantFound(nil, text(ck.CKA_LABEL, "another"))
			u.wantFound(nil, text(ck.CKA_ID, "id"), class(ck.CKO_DATA))
			u.wantRV(ck.CKR_OK, u.set(h, text(ck.CKA_LABEL, "new"), text(ck.CKA_ID, "other")))
			u.wantFound([]handle{h}, text(ck.CKA_LABEL, "new"), text(ck.CKA_ID, "other"))
			u.wantFound(nil, text(ck.CKA_LABEL, "a label"))
			u.wantRV(ck.CKR_ATTRIBUTE_READ_ONLY, u.set(h, text(ck.CKA_VALUE, "x")))
			u.wantRV(ck.CKR_ATTRIBUTE_TYPE_INVALID, u.set(h, is(ck.CKA_SIGN)))
			if size := u.must(23, u.in(func(w *p11rpc.Writer) { w.Ulong(uint64(h)) })).Ulong(); size < uint64(len(der)) {
				t.Errorf("it has %d octets", size)
			}
			other, rv := u.tryCopy(h, text(ck.CKA_LABEL, "copy"))
			u.wantRV(ck.CKR_OK, rv)
			if got := u.get(other, ck.CKA_VALUE); !bytes.Equal(got.Octets, der) || u.is(other, ck.CKA_TOKEN) != token || string(u.get(other, ck.CKA_ID).Octets) != "other" {
				t.Error("the copy is another")
			}
			_, rv = u.tryCopy(h, class(ck.CKO_PUBLIC_KEY))
			u.wantRV(ck.CKR_ATTRIBUTE_READ_ONLY, rv)
			u.wantRV(ck.CKR_OK, u.destroy(other))
			u.wantRV(ck.CKR_OK, u.destroy(h))
			u.wantRV(ck.CKR_OBJECT_HANDLE_INVALID, u.destroy(h))
			u.wantFound(nil, certClass)
		}
	})
	u := e.user(t, p11rpc.Keyward, softwareID)
	for i, test := range []struct {
		rv       ck.RV
		template []p11rpc.Attribute
	}{
		{ck.CKR_TEMPLATE_INCOMPLETE, all(text(ck.CKA_VALUE, string(der)))},
		{ck.CKR_TEMPLATE_INCOMPLETE, all(certClass, number(ck.CKA_CERTIFICATE_TYPE, ck.CKC_X_509))},
		{ck.CKR_OK, all(certClass, text(ck.CKA_URL, "http://x"), text(ck.CKA_SUBJECT, "somebody"))},
		{ck.CKR_TEMPLATE_INCOMPLETE, all(certClass, text(ck.CKA_VALUE, "no certificate"))}, // whose it is, nobody says
		{ck.CKR_OK, all(certClass, text(ck.CKA_VALUE, "no certificate"), text(ck.CKA_SUBJECT, "somebody"))},
		{ck.CKR_ATTRIBUTE_READ_ONLY, all(certClass, text(ck.CKA_VALUE, string(der)), is(ck.CKA_TRUSTED))},
		{ck.CKR_OK, all(certClass, text(ck.CKA_VALUE, string(der)), isNot(ck.CKA_TRUSTED))},
		{ck.CKR_ATTRIBUTE_VALUE_INVALID, all(certClass, text(ck.CKA_VALUE, string(der)), number(ck.CKA_CERTIFICATE_TYPE, ck.CKC_WTLS))},
		{ck.CKR_ATTRIBUTE_VALUE_INVALID, all(certClass, text(ck.CKA_VALUE, string(der)), text(ck.CKA_CHECK_VALUE, "abc"))},
		{ck.CKR_ATTRIBUTE_TYPE_INVALID, all(certClass, text(ck.CKA_VALUE, string(der)), is(ck.CKA_SIGN))},
		{ck.CKR_ATTRIBUTE_TYPE_INVALID, all(certClass, text(ck.CKA_VALUE, string(der)), text(0x80001234, "x"))},
		{ck.CKR_OK, all(certClass, text(ck.CKA_VALUE, string(der)), text(nssEmail, "somebody@example.com"))},
		{ck.CKR_ATTRIBUTE_READ_ONLY, all(certClass, text(ck.CKA_VALUE, string(der)), text(ck.CKA_UNIQUE_ID, "x"))},
		{ck.CKR_TEMPLATE_INCONSISTENT, all(certClass, text(ck.CKA_VALUE, string(der)), text(ck.CKA_LABEL, "a"), text(ck.CKA_LABEL, "b"))},
		{ck.CKR_OK, all(certClass, text(ck.CKA_VALUE, string(der)), text(ck.CKA_LABEL, "a"), text(ck.CKA_LABEL, "a"))},
		{ck.CKR_ATTRIBUTE_VALUE_INVALID, all(class(0xce534353))}, // CKO_NSS_TRUST
		{ck.CKR_ATTRIBUTE_VALUE_INVALID, all(class(ck.CKO_HW_FEATURE))},
		{ck.CKR_ATTRIBUTE_VALUE_INVALID, all(certClass, text(ck.CKA_VALUE, string(der)), text(ck.CKA_LABEL, string(make([]byte, kms.MaxObjectLabel+1))))},
		{ck.CKR_ATTRIBUTE_VALUE_INVALID, all(dataClass, onToken, text(ck.CKA_VALUE, string(make([]byte, kms.MaxTokenObject+1))))},
		{ck.CKR_ATTRIBUTE_VALUE_INVALID, all(certClass, text(ck.CKA_VALUE, string(der)), p11rpc.Attribute{Type: ck.CKA_START_DATE, Value: p11rpc.Value{Kind: p11rpc.Date, Octets: []byte("20261331")}})},
	} {
		if _, rv := u.tryCreate(test.template); rv != test.rv {
			t.Errorf("template %d: %v, not %v", i, rv, test.rv)
		}
	}
}

// TestData keeps data, which may say that it can't be changed, copied or destroyed.
func TestData(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Keyward, hardwareID)
	for _, in := range [][]p11rpc.Attribute{onToken, nil} {
		h := u.create(dataClass, in, text(ck.CKA_VALUE, "value"), text(ck.CKA_APPLICATION, "app"))
		u.wantRV(ck.CKR_OK, u.set(h, text(ck.CKA_VALUE, "another")))
		if string(u.get(h, ck.CKA_VALUE).Octets) != "another" || string(u.get(h, ck.CKA_APPLICATION).Octets) != "app" {
			t.Error("a value was not set, or another was")
		}
		u.wantRV(ck.CKR_ATTRIBUTE_TYPE_INVALID, u.set(h, text(ck.CKA_ID, "data has none")))
		fixed := u.create(dataClass, in, isNot(ck.CKA_MODIFIABLE, ck.CKA_COPYABLE, ck.CKA_DESTROYABLE))
		u.wantRV(ck.CKR_ACTION_PROHIBITED, u.set(fixed, text(ck.CKA_VALUE, "x")))
		_, rv := u.tryCopy(fixed)
		u.wantRV(ck.CKR_ACTION_PROHIBITED, rv)
		u.wantRV(ck.CKR_ACTION_PROHIBITED, u.destroy(fixed))
		u.wantFound([]handle{h, fixed}, dataClass)
		// Copyable may become false and not true again.
		u.wantRV(ck.CKR_OK, u.set(h, isNot(ck.CKA_COPYABLE)))
		u.wantRV(ck.CKR_ATTRIBUTE_READ_ONLY, u.set(h, is(ck.CKA_COPYABLE)))
		u.wantRV(ck.CKR_OK, u.destroy(h))
		if in != nil {
			s := u.s
			u.open(hardwareID, false)
			u.wantFound([]handle{fixed}, dataClass)
			u.s = s
			all, err := e.service.TokenObjects(t.Context(), root, hardwareID, nil, nil, nil)
			if err != nil || len(all) != 1 {
				t.Fatal(all, err)
			}
			if err := e.service.DeleteTokenObject(t.Context(), root, hardwareID, all[0].Number); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestReadOnlySession says that such a session changes nothing in the token, and its own objects as it likes.
func TestReadOnlySession(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Keyward, softwareID)
	kept := u.create(dataClass, onToken, text(ck.CKA_LABEL, "kept"))
	pub, prv := u.pair(ck.CKM_EC_KEY_PAIR_GEN, all(text(ck.CKA_EC_PARAMS, p256Params), onToken), onToken)
	u.open(softwareID, false)
	_, rv := u.tryCreate(dataClass, onToken)
	u.wantRV(ck.CKR_SESSION_READ_ONLY, rv)
	_, rv = u.tryGenerate(ck.CKM_AES_KEY_GEN, onToken, number(ck.CKA_VALUE_LEN, 32))
	u.wantRV(ck.CKR_SESSION_READ_ONLY, rv)
	for _, templates := range [][2][]p11rpc.Attribute{{onToken, nil}, {nil, onToken}} {
		_, _, rv = u.tryPair(ck.CKM_EC_KEY_PAIR_GEN, all(text(ck.CKA_EC_PARAMS, p256Params), templates[0]), templates[1])
		u.wantRV(ck.CKR_SESSION_READ_ONLY, rv)
	}
	for _, h := range []handle{kept, pub, prv} {
		u.wantRV(ck.CKR_SESSION_READ_ONLY, u.set(h, text(ck.CKA_LABEL, "x")))
		u.wantRV(ck.CKR_SESSION_READ_ONLY, u.destroy(h))
	}
	_, rv = u.tryCopy(kept)
	u.wantRV(ck.CKR_SESSION_READ_ONLY, rv)
	own, rv := u.tryCopy(kept, isNot(ck.CKA_TOKEN))
	u.wantRV(ck.CKR_OK, rv)
	u.wantRV(ck.CKR_OK, u.set(own, text(ck.CKA_LABEL, "x")))
	u.wantRV(ck.CKR_OK, u.destroy(own))
	if _, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32)); rv != ck.CKR_OK {
		t.Error(rv)
	}
}

// TestGetAttributeValue goes through the cases of C_GetAttributeValue (2.40 §5.7).
func TestGetAttributeValue(t *testing.T) {
	e := newEnv(t)
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		u := e.user(t, d, softwareID)
		_, prv := u.pair(ck.CKM_EC_KEY_PAIR_GEN, all(text(ck.CKA_EC_PARAMS, p256Params), onToken), all(onToken, text(ck.CKA_LABEL, "a label")))
		want := func(rv ck.RV, wanted ...p11rpc.Wanted) []p11rpc.Result {
			t.Helper()
			results, got := u.tryGet(prv, wanted...)
			if got != rv || len(results) != len(wanted) {
				t.Fatalf("%d results, %v, not %v", len(results), got, rv)
			}
			for i := range results {
				if results[i].Type != wanted[i].Type {
					t.Fatalf("%v in place of %v", results[i].Type, wanted[i].Type)
				}
			}
			return results
		}
		label := p11rpc.Wanted{Type: ck.CKA_LABEL, Room: 100}
		r := want(ck.CKR_OK, label, p11rpc.Wanted{Type: ck.CKA_TOKEN, Room: 1}, p11rpc.Wanted{Type: ck.CKA_KEY_TYPE, Room: 8})
		if string(r[0].Octets) != "a label" || r[1].Number != 1 || ck.KeyType(r[2].Number) != ck.CKK_EC {
			t.Errorf("%v", r)
		}
		// What can't be given is unavailable; the others are given all the same.
		r = want(ck.CKR_ATTRIBUTE_SENSITIVE, p11rpc.Wanted{Type: ck.CKA_VALUE, Room: 100}, label)
		if r[0].RV == ck.CKR_OK || string(r[1].Octets) != "a label" {
			t.Errorf("%v", r)
		}
		r = want(ck.CKR_ATTRIBUTE_TYPE_INVALID, label, p11rpc.Wanted{Type: ck.CKA_MODULUS, Room: 100}, p11rpc.Wanted{Type: 0x80001234, Room: 8})
		if string(r[0].Octets) != "a label" || r[1].RV == ck.CKR_OK || r[2].RV == ck.CKR_OK {
			t.Errorf("%v", r)
		}
		r = want(ck.CKR_BUFFER_TOO_SMALL, p11rpc.Wanted{Type: ck.CKA_LABEL, Room: 3}, label, p11rpc.Wanted{Type: ck.CKA_CLASS, Room: 4})
		if r[0].RV == ck.CKR_OK || string(r[1].Octets) != "a label" || r[2].RV == ck.CKR_OK {
			t.Errorf("%v", r)
		}
		want(ck.CKR_ATTRIBUTE_SENSITIVE, p11rpc.Wanted{Type: ck.CKA_LABEL, Room: 3}, p11rpc.Wanted{Type: ck.CKA_VALUE, Null: true}, p11rpc.Wanted{Type: ck.CKA_MODULUS, Null: true})
		// Lengths.
		r = want(ck.CKR_OK, p11rpc.Wanted{Type: ck.CKA_LABEL, Null: true}, p11rpc.Wanted{Type: ck.CKA_SIGN, Null: true}, p11rpc.Wanted{Type: ck.CKA_ALLOWED_MECHANISMS, Null: true},
			p11rpc.Wanted{Type: ck.CKA_SUBJECT, Null: true}, p11rpc.Wanted{Type: ck.CKA_START_DATE, Null: true}, p11rpc.Wanted{Type: ck.CKA_DESTROYABLE, Null: true})
		if n := uint32(8 * len(allowedMechanisms(&keyFacts{keyType: ck.CKK_EC, bits: 256, usage: maySign, token: true}))); r[0].Length != 7 || r[1].Length != 1 || r[2].Length != n ||
			r[3].Length != 0 || r[4].Length != 0 || r[5].Length != 1 {
			t.Errorf("%v", r)
		}
		r = want(ck.CKR_OK, p11rpc.Wanted{Type: ck.CKA_ALLOWED_MECHANISMS, Room: 8 * 100})
		if !slices.Contains(r[0].Numbers, uint64(ck.CKM_ECDSA)) || slices.Contains(r[0].Numbers, uint64(ck.CKM_ECDH1_DERIVE)) {
			t.Errorf("%v", r[0].Numbers)
		}
		want(ck.CKR_BUFFER_TOO_SMALL, p11rpc.Wanted{Type: ck.CKA_ALLOWED_MECHANISMS, Room: 8})
		// Errors of the whole call.
		if _, rv := u.tryGet(prv); rv != ck.CKR_ARGUMENTS_BAD {
			t.Errorf("nothing was asked for: %v", rv)
		}
		for _, h := range []handle{0, 1, prv + 1, prv ^ 1<<62, handleSessionObject<<60 | 5, 1<<64 - 1} {
			if _, rv := u.tryGet(h, label); rv != ck.CKR_OBJECT_HANDLE_INVALID {
				t.Errorf("%x: %v", uint64(h), rv)
			}
		}
	})
}

// specsOf has a key of each spec made, and gives its handles.
func specKey(u *tokenUser, spec kmswire.KeySpec) (public, private handle) {
	u.t.Helper()
	row := specRows[spec]
	switch row.keyType {
	case ck.CKK_RSA:
		return u.pair(row.generate, all(number(ck.CKA_MODULUS_BITS, uint64(row.bits)), onToken), onToken)
	case ck.CKK_EC:
		return u.pair(row.generate, all(text(ck.CKA_EC_PARAMS, string(row.curve.Params())), onToken), onToken)
	}
	h, rv := u.tryGenerate(row.generate, number(ck.CKA_VALUE_LEN, uint64(row.bits/8)), onToken)
	if rv != ck.CKR_OK {
		u.t.Fatal(rv)
	}
	return 0, h
}

// TestKMSKeys holds every attribute of keys that were made, in software and in an HSM, against what the service says of them.
func TestKMSKeys(t *testing.T) {
	e := newEnv(t)
	for instance, specs := range map[string][]kmswire.KeySpec{softwareID: {kmswire.AES256, kmswire.RSA2048, kmswire.ECP256, kmswire.ECP256K}, hardwareID: {kmswire.AES128, kmswire.ECP256}} {
		u := e.user(t, p11rpc.Keyward, instance)
		for _, spec := range specs {
			public, private := specKey(u, spec)
			_, place, _ := private.key()
			key, err := e.service.TokenKey(t.Context(), root, instance, place)
			if err != nil || key.Spec != spec {
				t.Fatal(key, err)
			}
			for _, h := range []handle{public, private} {
				if h != 0 {
					checkKMSKey(t, u, h, key)
				}
			}
		}
	}
}

func checkKMSKey(t *testing.T, u *tokenUser, h handle, key *kms.TokenKey) {
	t.Helper()
	cls := ck.Class(u.get(h, ck.CKA_CLASS).Number)
	row := specRows[key.Spec]
	table := tableOf(cls, row.keyType)
	for _, r := range table.rows {
		_, rv := u.tryGet(h, p11rpc.Wanted{Type: r.attribute, Room: 4096})
		switch {
		case r.secret:
			u.wantRV(ck.CKR_ATTRIBUTE_SENSITIVE, rv)
		case r.otherwise == absent:
			u.wantRV(ck.CKR_ATTRIBUTE_TYPE_INVALID, rv)
		case rv != ck.CKR_OK:
			t.Errorf("%v of %v, %s: %v", r.attribute, cls, key.Spec, rv)
		}
	}
	private := cls != ck.CKO_PUBLIC_KEY
	flags := map[ck.Attribute]bool{ck.CKA_TOKEN: true, ck.CKA_PRIVATE: private, ck.CKA_MODIFIABLE: true, ck.CKA_LOCAL: !key.Imported, ck.CKA_COPYABLE: false, ck.CKA_DESTROYABLE: true,
		ck.CKA_DERIVE: false}
	if private {
		for a, want := range map[ck.Attribute]bool{ck.CKA_SENSITIVE: true, ck.CKA_ALWAYS_SENSITIVE: !key.Imported, ck.CKA_EXTRACTABLE: false, ck.CKA_NEVER_EXTRACTABLE: !key.Imported} {
			flags[a] = want
		}
	}
	may := ofKMS(key.Usage, key.Secondary) & halves[cls]
	for _, a := range usageAttributes {
		if table.byType[a.attribute] != nil {
			flags[a.attribute] = may&a.may != 0
		}
	}
	for a, want := range flags {
		if got := u.is(h, a); got != want {
			t.Errorf("%v of %v, %s is %v", a, cls, key.Spec, got)
		}
	}
	by := uint64(row.generate)
	if key.Imported {
		by = ck.Unavailable
	}
	if got := u.get(h, ck.CKA_KEY_GEN_MECHANISM).Number; got != by {
		t.Errorf("%s was made by %x", key.Spec, got)
	}
	names := key.Names[kms.ObjectClass(cls)]
	if string(u.get(h, ck.CKA_LABEL).Octets) != names.Label || !bytes.Equal(u.get(h, ck.CKA_ID).Octets, names.ID) {
		t.Errorf("the names of %s are others", key.Spec)
	}
	if key.PublicKey == nil {
		if got := u.get(h, ck.CKA_VALUE_LEN).Number; got != uint64(row.bits/8) {
			t.Errorf("%s has %d octets", key.Spec, got)
		}
		return
	}
	if !bytes.Equal(u.get(h, ck.CKA_PUBLIC_KEY_INFO).Octets, key.PublicKey) {
		t.Errorf("CKA_PUBLIC_KEY_INFO of %s is another", key.Spec)
	}
	if row.curve != "" {
		public, err := sessionkey.NewECPublic(row.curve, u.get(h, ck.CKA_EC_POINT).Octets)
		if err != nil || !bytes.Equal(public.Marshal(), key.PublicKey) || string(u.get(h, ck.CKA_EC_PARAMS).Octets) != string(row.curve.Params()) {
			t.Errorf("the point of %s is another: %v", key.Spec, err)
		}
		return
	}
	parsed, _ := x509.ParsePKIXPublicKey(key.PublicKey)
	if p := parsed.(*rsa.PublicKey); !bytes.Equal(u.get(h, ck.CKA_MODULUS).Octets, p.N.Bytes()) || string(u.get(h, ck.CKA_PUBLIC_EXPONENT).Octets) != "\x01\x00\x01" {
		t.Errorf("the numbers of %s are others", key.Spec)
	}
	if cls == ck.CKO_PUBLIC_KEY && u.get(h, ck.CKA_MODULUS_BITS).Number != uint64(row.bits) {
		t.Errorf("%s has the wrong length", key.Spec)
	}
}

// rsaTemplate is a private key as programs bring it along: with all numbers, or only with those that must be there.
func rsaTemplate(k *rsa.PrivateKey, whole bool) []p11rpc.Attribute {
	t := all(class(ck.CKO_PRIVATE_KEY), keyType(ck.CKK_RSA), text(ck.CKA_MODULUS, string(k.N.Bytes())), text(ck.CKA_PRIVATE_EXPONENT, string(k.D.Bytes())))
	if whole {
		k.Precompute()
		t = all(t, text(ck.CKA_PUBLIC_EXPONENT, "\x01\x00\x01"), text(ck.CKA_PRIME_1, string(k.Primes[0].Bytes())), text(ck.CKA_PRIME_2, string(k.Primes[1].Bytes())),
			text(ck.CKA_EXPONENT_1, string(k.Precomputed.Dp.Bytes())), text(ck.CKA_EXPONENT_2, string(k.Precomputed.Dq.Bytes())),
			text(ck.CKA_COEFFICIENT, string(k.Precomputed.Qinv.Bytes())))
	}
	return t
}

func ecTemplate(k *ecdsa.PrivateKey) []p11rpc.Attribute {
	d, _ := k.Bytes()
	return all(class(ck.CKO_PRIVATE_KEY), keyType(ck.CKK_EC), text(ck.CKA_EC_PARAMS, p256Params), text(ck.CKA_VALUE, string(d)))
}

// TestImportedKeys brings keys along, into the KMS and as session objects.
func TestImportedKeys(t *testing.T) {
	e := newEnv(t)
	ec := mustEC(t)
	ecInfo, _ := x509.MarshalPKIXPublicKey(ec.Public())
	rsaInfo, _ := x509.MarshalPKIXPublicKey(testRSA().Public())
	secret := bytes.Repeat([]byte{7}, 32)
	for _, test := range []struct {
		name     string
		template []p11rpc.Attribute
		info     []byte
	}{
		{"RSA", rsaTemplate(testRSA(), true), rsaInfo},
		{"RSA of two numbers", rsaTemplate(testRSA(), false), rsaInfo},
		{"EC", ecTemplate(ec), ecInfo},
		{"AES", all(class(ck.CKO_SECRET_KEY), keyType(ck.CKK_AES), text(ck.CKA_VALUE, string(secret))), nil},
	} {
		for _, instance := range []string{softwareID, hardwareID} {
			u := e.user(t, p11rpc.Keyward, instance)
			h := u.create(test.template, onToken, text(ck.CKA_ID, "brought"), text(ck.CKA_LABEL, test.name))
			_, place, ok := h.key()
			key, err := e.service.TokenKey(t.Context(), root, instance, place)
			if err != nil || !ok || !key.Imported || !bytes.Equal(key.PublicKey, test.info) {
				t.Fatalf("%s in %s: %v, %v", test.name, instance, key, err)
			}
			checkKMSKey(t, u, h, key)
			want := []handle{h}
			if test.info != nil {
				want = append(want, keyHandle(ck.CKO_PUBLIC_KEY, place))
			}
			u.wantFound(want, text(ck.CKA_ID, "brought"), text(ck.CKA_LABEL, test.name))
		}
		u := e.user(t, p11rpc.Keyward, softwareID)
		h := u.create(test.template, isNot(ck.CKA_SENSITIVE), is(ck.CKA_EXTRACTABLE))
		if u.is(h, ck.CKA_TOKEN) || u.is(h, ck.CKA_LOCAL) || u.is(h, ck.CKA_ALWAYS_SENSITIVE) || u.is(h, ck.CKA_NEVER_EXTRACTABLE) || !u.is(h, ck.CKA_PRIVATE) {
			t.Errorf("%s as a session object", test.name)
		}
		for _, a := range test.template { // it gives back what came
			if got := u.get(h, a.Type); !sameValue(got, a.Value) {
				t.Errorf("%v of %s came back as %x", a.Type, test.name, got.Octets)
			}
		}
		h = u.create(test.template)
		for _, a := range test.template {
			if !slices.Contains(secretParts, a.Type) {
				continue
			}
			if _, rv := u.tryGet(h, p11rpc.Wanted{Type: a.Type, Room: 4096}); rv != ck.CKR_ATTRIBUTE_SENSITIVE {
				t.Errorf("%v of %s: %v", a.Type, test.name, rv)
			}
			u.wantFound(nil, a) // nor can it be tried
		}
	}
	u := e.user(t, p11rpc.Keyward, softwareID)
	other := rsaTemplate(testRSA(), true)
	other[7].Octets = slices.Clone(other[7].Octets)
	other[7].Octets[9] ^= 1
	for name, template := range map[string][]p11rpc.Attribute{
		"numbers that do not fit":        other,
		"a point that is another's":      all(ecTemplate(ec), text(ck.CKA_EC_POINT, string(ecPoint(t, mustEC(t))))),
		"an exponent that is no inverse": all(class(ck.CKO_PRIVATE_KEY), keyType(ck.CKK_RSA), text(ck.CKA_MODULUS, string(testRSA().N.Bytes())), text(ck.CKA_PRIVATE_EXPONENT, "\x07")),
		"a modulus that is a square": all(class(ck.CKO_PRIVATE_KEY), keyType(ck.CKK_RSA), text(ck.CKA_MODULUS, string(new(big.Int).Mul(testRSA().Primes[0], testRSA().Primes[0]).Bytes())),
			text(ck.CKA_PRIVATE_EXPONENT, "\x07")),
		"a prime modulus":         all(class(ck.CKO_PRIVATE_KEY), keyType(ck.CKK_RSA), text(ck.CKA_MODULUS, string(testRSA().Primes[0].Bytes())), text(ck.CKA_PRIVATE_EXPONENT, "\x07")),
		"an AES key of 17 octets": all(class(ck.CKO_SECRET_KEY), keyType(ck.CKK_AES), text(ck.CKA_VALUE, "12345678901234567")),
		"a number that is 0":      all(class(ck.CKO_PRIVATE_KEY), keyType(ck.CKK_EC), text(ck.CKA_EC_PARAMS, p256Params), text(ck.CKA_VALUE, string(make([]byte, 32)))),
	} {
		for _, in := range [][]p11rpc.Attribute{nil, onToken} {
			if _, rv := u.tryCreate(template, in); rv != ck.CKR_ATTRIBUTE_VALUE_INVALID {
				t.Errorf("%s: %v", name, rv)
			}
		}
	}
}

func ecPoint(t *testing.T, k *ecdsa.PrivateKey) []byte {
	point, err := k.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return sessionkey.EncodePoint(point)
}

// TestSessionKeyAttributes holds all attributes of session keys that were made against their tables.
func TestSessionKeyAttributes(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Keyward, softwareID)
	var handles []handle
	pub, prv := u.pair(ck.CKM_RSA_PKCS_KEY_PAIR_GEN, all(number(ck.CKA_MODULUS_BITS, 2048)), nil)
	handles = append(handles, pub, prv)
	for _, params := range []string{p256Params, string(sessionkey.P521.Params()), "\x13\x0asecp256k1"[:2] + "secp256k1", "\x13\x05P-384"} {
		if params[0] == 0x13 {
			params = "\x13" + string(rune(len(params)-2)) + params[2:]
		}
		pub, prv := u.pair(ck.CKM_EC_KEY_PAIR_GEN, all(text(ck.CKA_EC_PARAMS, params)), is(ck.CKA_DERIVE))
		handles = append(handles, pub, prv)
	}
	for _, m := range []ck.Mechanism{ck.CKM_AES_KEY_GEN, ck.CKM_GENERIC_SECRET_KEY_GEN} {
		h, rv := u.tryGenerate(m, number(ck.CKA_VALUE_LEN, 32))
		u.wantRV(ck.CKR_OK, rv)
		handles = append(handles, h)
	}
	for _, h := range handles {
		table := tableOf(ck.Class(u.get(h, ck.CKA_CLASS).Number), ck.KeyType(u.get(h, ck.CKA_KEY_TYPE).Number))
		for _, row := range table.rows {
			_, rv := u.tryGet(h, p11rpc.Wanted{Type: row.attribute, Room: 4096})
			if want := map[bool]ck.RV{true: ck.CKR_ATTRIBUTE_SENSITIVE}[row.secret]; rv != want && row.otherwise != absent {
				t.Errorf("%v of %v, %v: %v", row.attribute, table.class, table.keyType, rv)
			}
		}
		if !u.is(h, ck.CKA_LOCAL) || u.get(h, ck.CKA_KEY_GEN_MECHANISM).Number == ck.Unavailable {
			t.Errorf("%v was not made here", table.class)
		}
		if secretClass(table.class) && (!u.is(h, ck.CKA_SENSITIVE) || !u.is(h, ck.CKA_ALWAYS_SENSITIVE) || u.is(h, ck.CKA_EXTRACTABLE) || !u.is(h, ck.CKA_NEVER_EXTRACTABLE)) {
			t.Errorf("%v is less secret than it should be", table.class)
		}
	}
	for _, test := range []struct {
		rv     ck.RV
		public []p11rpc.Attribute
		m      ck.Mechanism
	}{
		{ck.CKR_KEY_SIZE_RANGE, all(number(ck.CKA_MODULUS_BITS, 512)), ck.CKM_RSA_PKCS_KEY_PAIR_GEN},
		{ck.CKR_KEY_SIZE_RANGE, all(number(ck.CKA_MODULUS_BITS, 1024), onToken), ck.CKM_RSA_PKCS_KEY_PAIR_GEN}, // a key of the KMS is longer
		{ck.CKR_KEY_SIZE_RANGE, all(number(ck.CKA_MODULUS_BITS, 1<<40)), ck.CKM_RSA_PKCS_KEY_PAIR_GEN},
		{ck.CKR_KEY_SIZE_RANGE, all(number(ck.CKA_MODULUS_BITS, 2049)), ck.CKM_RSA_PKCS_KEY_PAIR_GEN},
		{ck.CKR_ATTRIBUTE_VALUE_INVALID, all(number(ck.CKA_MODULUS_BITS, 2048), text(ck.CKA_PUBLIC_EXPONENT, "\x03")), ck.CKM_RSA_PKCS_KEY_PAIR_GEN},
		{ck.CKR_TEMPLATE_INCOMPLETE, nil, ck.CKM_RSA_PKCS_KEY_PAIR_GEN},
		{ck.CKR_TEMPLATE_INCOMPLETE, nil, ck.CKM_EC_KEY_PAIR_GEN},
		{ck.CKR_CURVE_NOT_SUPPORTED, all(text(ck.CKA_EC_PARAMS, "\x13\x05P-224")), ck.CKM_EC_KEY_PAIR_GEN},
		{ck.CKR_CURVE_NOT_SUPPORTED, all(text(ck.CKA_EC_PARAMS, "")), ck.CKM_EC_KEY_PAIR_GEN},
		{ck.CKR_MECHANISM_INVALID, nil, ck.CKM_AES_KEY_GEN},
		{ck.CKR_MECHANISM_INVALID, nil, ck.CKM_ECDSA},
		{ck.CKR_TEMPLATE_INCONSISTENT, all(class(ck.CKO_PRIVATE_KEY), number(ck.CKA_MODULUS_BITS, 2048)), ck.CKM_RSA_PKCS_KEY_PAIR_GEN},
		{ck.CKR_ATTRIBUTE_READ_ONLY, all(text(ck.CKA_MODULUS, "x"), number(ck.CKA_MODULUS_BITS, 2048)), ck.CKM_RSA_PKCS_KEY_PAIR_GEN},
		{ck.CKR_CURVE_NOT_SUPPORTED, all(text(ck.CKA_EC_PARAMS, string(sessionkey.P384.Params())), onToken), ck.CKM_EC_KEY_PAIR_GEN}, // the KMS has none
	} {
		private := []p11rpc.Attribute(nil)
		if values(test.public).is(ck.CKA_TOKEN, false) || len(test.public) > 0 && test.public[len(test.public)-1].Type == ck.CKA_TOKEN {
			private = onToken
		}
		if _, _, rv := u.tryPair(test.m, test.public, private); rv != test.rv {
			t.Errorf("%v with %v: %v, not %v", test.m, test.public, rv, test.rv)
		}
	}
	_, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 17))
	u.wantRV(ck.CKR_KEY_SIZE_RANGE, rv)
	_, rv = u.tryGenerate(ck.CKM_AES_KEY_GEN)
	u.wantRV(ck.CKR_TEMPLATE_INCOMPLETE, rv)
	_, rv = u.tryGenerate(ck.CKM_GENERIC_SECRET_KEY_GEN, number(ck.CKA_VALUE_LEN, 1<<60))
	u.wantRV(ck.CKR_KEY_SIZE_RANGE, rv)
	_, rv = u.tryGenerate(ck.CKM_GENERIC_SECRET_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), onToken)
	u.wantRV(ck.CKR_TEMPLATE_INCONSISTENT, rv) // the KMS has none
}

// TestPublicKeys keeps somebody else's public keys and verifies with them.
func TestPublicKeys(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Keyward, softwareID)
	ec := mustEC(t)
	digest := bytes.Repeat([]byte{3}, 32)
	r, s, err := ecdsa.Sign(rand.Reader, ec, digest)
	if err != nil {
		t.Fatal(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	for _, in := range [][]p11rpc.Attribute{nil, onToken} {
		h := u.create(class(ck.CKO_PUBLIC_KEY), keyType(ck.CKK_EC), text(ck.CKA_EC_PARAMS, p256Params), text(ck.CKA_EC_POINT, string(ecPoint(t, ec))), in, text(ck.CKA_ID, "somebody"))
		for _, row := range tableOf(ck.CKO_PUBLIC_KEY, ck.CKK_EC).rows {
			if _, rv := u.tryGet(h, p11rpc.Wanted{Type: row.attribute, Room: 4096}); rv != ck.CKR_OK {
				t.Errorf("%v: %v", row.attribute, rv)
			}
		}
		if u.is(h, ck.CKA_PRIVATE) || u.is(h, ck.CKA_LOCAL) || !u.is(h, ck.CKA_VERIFY) || u.is(h, ck.CKA_WRAP) {
			t.Error("it is not what it should be")
		}
		for _, last := range []byte{signature[63], signature[63] ^ 1} {
			u.must(48, u.in(func(w *p11rpc.Writer) { w.Mechanism(p11rpc.Mechanism{Type: ck.CKM_ECDSA}); w.Ulong(uint64(h)) }))
			_, rv := u.call(49, u.in(func(w *p11rpc.Writer) { w.Octets(digest); w.Octets(append(bytes.Clone(signature[:63]), last)) }))
			if want := map[bool]ck.RV{false: ck.CKR_SIGNATURE_INVALID}[last == signature[63]]; rv != want {
				t.Errorf("%v, not %v", rv, want)
			}
		}
		u.wantFound([]handle{h}, text(ck.CKA_ID, "somebody"))
		u.wantFound([]handle{h}, text(ck.CKA_EC_POINT, string(ecPoint(t, ec))))
		other, rv := u.tryCopy(h, isNot(ck.CKA_TOKEN), text(ck.CKA_ID, "copy"))
		u.wantRV(ck.CKR_OK, rv)
		if !bytes.Equal(u.get(other, ck.CKA_EC_POINT).Octets, ecPoint(t, ec)) || u.is(other, ck.CKA_TOKEN) {
			t.Error("the copy is another")
		}
		kept, rv := u.tryCopy(other, onToken)
		u.wantRV(ck.CKR_OK, rv)
		if !bytes.Equal(u.get(kept, ck.CKA_EC_POINT).Octets, ecPoint(t, ec)) || !u.is(kept, ck.CKA_TOKEN) || len(u.get(kept, ck.CKA_ALLOWED_MECHANISMS).Numbers) == 0 {
			t.Error("the copy in the token is another")
		}
		for _, h := range []handle{other, kept, h} {
			u.wantRV(ck.CKR_OK, u.destroy(h))
		}
	}
	_, rv := u.tryCreate(class(ck.CKO_PUBLIC_KEY), keyType(ck.CKK_EC), text(ck.CKA_EC_PARAMS, p256Params), text(ck.CKA_EC_POINT, string(append([]byte{4}, make([]byte, 64)...))))
	u.wantRV(ck.CKR_ATTRIBUTE_VALUE_INVALID, rv)
	_, rv = u.tryCreate(class(ck.CKO_PUBLIC_KEY), keyType(ck.CKK_RSA), text(ck.CKA_MODULUS, "short"), text(ck.CKA_PUBLIC_EXPONENT, "\x03"))
	u.wantRV(ck.CKR_ATTRIBUTE_VALUE_INVALID, rv)
	_, rv = u.tryCreate(class(ck.CKO_PUBLIC_KEY), keyType(ck.CKK_DSA), text(ck.CKA_VALUE, "short"))
	u.wantRV(ck.CKR_ATTRIBUTE_VALUE_INVALID, rv)
}

// Programs that destroy a pair destroy both halves, one after the other: if the private one is the first the public one went with it, and that is no
// error. Of keys that somebody else destroyed nothing else is said than before.
func TestDestroyPair(t *testing.T) {
	e := newEnv(t)
	u, other := e.user(t, p11rpc.Offer2, softwareID), e.user(t, p11rpc.Offer1, softwareID)
	pair := func() (public, private handle) {
		return u.pair(ck.CKM_EC_KEY_PAIR_GEN, all(text(ck.CKA_EC_PARAMS, p256Params), onToken), onToken)
	}
	public, private := pair()
	u.wantRV(ck.CKR_OK, u.destroy(private))
	u.wantRV(ck.CKR_OK, u.destroy(public))
	u.wantRV(ck.CKR_OBJECT_HANDLE_INVALID, u.destroy(private))
	other.wantRV(ck.CKR_OBJECT_HANDLE_INVALID, other.destroy(public))
	for range maxDestroyed {
		_, private := pair()
		u.wantRV(ck.CKR_OK, u.destroy(private))
	}
	u.wantRV(ck.CKR_OBJECT_HANDLE_INVALID, u.destroy(public)) // forgotten
}

// A public key can be destroyed before its private one, or alone: it is an object less, for everybody and for good, and no key less.
func TestDestroyPublic(t *testing.T) {
	e := newEnv(t)
	for _, instance := range []string{softwareID, hardwareID} {
		u, other := e.user(t, p11rpc.Keyward, instance), e.user(t, p11rpc.Offer1, instance)
		public, private := u.pair(ck.CKM_EC_KEY_PAIR_GEN, all(text(ck.CKA_EC_PARAMS, p256Params), text(ck.CKA_ID, "id"), onToken), all(text(ck.CKA_ID, "id"), text(ck.CKA_LABEL, "mine"), onToken))
		info := u.get(public, ck.CKA_PUBLIC_KEY_INFO).Octets
		point := u.get(public, ck.CKA_EC_POINT).Octets
		writing := u.open(instance, false)
		u.wantRV(ck.CKR_SESSION_READ_ONLY, u.destroy(public))
		u.s = writing
		u.wantFound([]handle{private, public}, text(ck.CKA_ID, "id"))
		u.wantRV(ck.CKR_OK, u.destroy(public))
		for _, u := range []*tokenUser{u, other} {
			u.wantRV(ck.CKR_OBJECT_HANDLE_INVALID, u.destroy(public))
			u.wantFound([]handle{private}, text(ck.CKA_ID, "id"))
			u.wantFound(nil, class(ck.CKO_PUBLIC_KEY))
		}
		u.must(42, u.in(func(w *p11rpc.Writer) { w.Mechanism(p11rpc.Mechanism{Type: ck.CKM_ECDSA}); w.Ulong(uint64(private)) }))
		u.must(43, u.in(func(w *p11rpc.Writer) { w.Octets(make([]byte, 32)); w.Room(p11rpc.Room{Size: 64}) }))
		if got := u.get(private, ck.CKA_PUBLIC_KEY_INFO).Octets; !bytes.Equal(got, info) {
			t.Error("the private key does not know the public one any more")
		}
		u.wantRV(ck.CKR_OK, u.set(private, text(ck.CKA_LABEL, "new"))) // and does not bring it back
		u.wantFound(nil, class(ck.CKO_PUBLIC_KEY))
		// It can be brought along again.
		again := u.create(class(ck.CKO_PUBLIC_KEY), keyType(ck.CKK_EC), text(ck.CKA_EC_PARAMS, p256Params), text(ck.CKA_EC_POINT, string(point)), text(ck.CKA_ID, "id"), onToken)
		other.wantFound([]handle{again}, class(ck.CKO_PUBLIC_KEY))
		u.wantRV(ck.CKR_OK, u.destroy(again))
		u.wantRV(ck.CKR_OK, u.destroy(private))
		u.wantFound(nil, text(ck.CKA_ID, "id"))
	}
}

// Every call that leaves an event in the audit has a request ID of its own there.
func TestRequestIDs(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Offer2, softwareID)
	_, private := u.pair(ck.CKM_EC_KEY_PAIR_GEN, all(text(ck.CKA_EC_PARAMS, p256Params), onToken), onToken)
	e.events.take()
	for range 3 {
		u.must(42, u.in(func(w *p11rpc.Writer) { w.Mechanism(p11rpc.Mechanism{Type: ck.CKM_ECDSA}); w.Ulong(uint64(private)) }))
		u.must(43, u.in(func(w *p11rpc.Writer) { w.Octets(make([]byte, 32)); w.Room(p11rpc.Room{Size: 64}) }))
	}
	ids := map[string]bool{}
	for _, event := range e.events.take() {
		if event.RequestID == "" || ids[event.RequestID] {
			t.Errorf("the event of %s has the request ID %q", event.Action, event.RequestID)
		}
		ids[event.RequestID] = true
	}
	if len(ids) != 3 {
		t.Errorf("three signatures have %d events", len(ids))
	}
}

// A client may have short RSA keys of its own: to check old signatures, or because its program knows no others. The KMS has none.
func TestShortRSA(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Keyward, hardwareID)
	public, private := u.pair(ck.CKM_RSA_PKCS_KEY_PAIR_GEN, all(number(ck.CKA_MODULUS_BITS, 1024)), nil)
	sign := func(m p11rpc.Mechanism, data string) ([]byte, ck.RV) {
		if _, rv := u.call(42, u.in(func(w *p11rpc.Writer) { w.Mechanism(m); w.Ulong(uint64(private)) })); rv != ck.CKR_OK {
			return nil, rv
		}
		r := u.must(43, u.in(func(w *p11rpc.Writer) { w.Octets([]byte(data)); w.Room(p11rpc.Room{Size: 128}) }))
		signature, _ := r.Octets()
		return bytes.Clone(signature), ck.CKR_OK
	}
	signature, rv := sign(p11rpc.Mechanism{Type: ck.CKM_SHA256_RSA_PKCS}, "data")
	u.wantRV(ck.CKR_OK, rv)
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(u.get(public, ck.CKA_MODULUS).Octets), E: 65537}
	digest := sha256.Sum256([]byte("data"))
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature); err != nil || key.N.BitLen() != 1024 {
		t.Errorf("%d bits: %v", key.N.BitLen(), err)
	}
	_, rv = sign(p11rpc.Mechanism{Type: ck.CKM_SHA512_RSA_PKCS_PSS, Param: &p11rpc.PSS{Hash: ck.CKM_SHA512, MGF: ck.CKG_MGF1_SHA512, Salt: 64}}, "data") // no room
	u.wantRV(ck.CKR_MECHANISM_PARAM_INVALID, rv)
	// Elsewhere the public half is brought along.
	brought := u.create(class(ck.CKO_PUBLIC_KEY), keyType(ck.CKK_RSA), text(ck.CKA_MODULUS, string(key.N.Bytes())), text(ck.CKA_PUBLIC_EXPONENT, "\x01\x00\x01"))
	u.must(48, u.in(func(w *p11rpc.Writer) {
		w.Mechanism(p11rpc.Mechanism{Type: ck.CKM_SHA256_RSA_PKCS})
		w.Ulong(uint64(brought))
	}))
	u.must(49, u.in(func(w *p11rpc.Writer) { w.Octets([]byte("data")); w.Octets(signature) }))
	_, rv = u.tryCopy(private, onToken)
	u.wantRV(ck.CKR_KEY_SIZE_RANGE, rv)
}

// NSS sets CKA_SUBJECT on keys that it brings along, to find them by their certificates.
func TestSubject(t *testing.T) {
	e := newEnv(t)
	u, other := e.user(t, p11rpc.Offer2, softwareID), e.user(t, p11rpc.Keyward, softwareID)
	name := text(ck.CKA_SUBJECT, "\x30\x0d1")
	public, private := u.pair(ck.CKM_EC_KEY_PAIR_GEN, all(text(ck.CKA_EC_PARAMS, p256Params), onToken, name), onToken)
	other.wantFound([]handle{public}, name)
	u.wantRV(ck.CKR_OK, u.set(private, name, text(ck.CKA_LABEL, "mine")))
	other.wantFound([]handle{private, public}, name)
	other.wantFound([]handle{private}, name, text(ck.CKA_LABEL, "mine"))
	other.wantFound(nil, name, text(ck.CKA_LABEL, "another"))
	u.wantRV(ck.CKR_OK, u.set(public, text(ck.CKA_SUBJECT, "")))
	other.wantFound([]handle{private}, name, class(ck.CKO_PRIVATE_KEY))
	other.wantFound(nil, name, class(ck.CKO_PUBLIC_KEY))
	other.wantFound([]handle{public}, text(ck.CKA_SUBJECT, ""), class(ck.CKO_PUBLIC_KEY))
	u.wantRV(ck.CKR_ATTRIBUTE_VALUE_INVALID, u.set(private, text(ck.CKA_SUBJECT, string(make([]byte, kms.MaxObjectSubject+1)))))
	other.wantFound([]handle{private}, name)
}

// Whoever makes a key can restrict it to some of the mechanisms that it could be used with; for good, and for everybody.
func TestRestrictedMechanisms(t *testing.T) {
	e := newEnv(t)
	only := func(m ...uint64) p11rpc.Attribute {
		return p11rpc.Attribute{Type: ck.CKA_ALLOWED_MECHANISMS, Value: p11rpc.Value{Kind: p11rpc.Ulongs, Numbers: m}}
	}
	pss := only(uint64(ck.CKM_SHA256_RSA_PKCS_PSS), uint64(ck.CKM_AES_ECB), uint64(ck.CKM_RSA_PKCS_PSS), uint64(ck.CKM_RSA_PKCS_PSS))
	param := &p11rpc.PSS{Hash: ck.CKM_SHA256, MGF: ck.CKG_MGF1_SHA256, Salt: 32}
	for _, in := range [][]p11rpc.Attribute{onToken, nil} {
		u := e.user(t, p11rpc.Keyward, softwareID)
		public, private := u.pair(ck.CKM_RSA_PKCS_KEY_PAIR_GEN, all(number(ck.CKA_MODULUS_BITS, 2048), in), all(pss, in))
		other := e.user(t, p11rpc.Keyward, softwareID)
		if got := other.get(private, ck.CKA_ALLOWED_MECHANISMS).Numbers; !slices.Equal(got, []uint64{uint64(ck.CKM_RSA_PKCS_PSS), uint64(ck.CKM_SHA256_RSA_PKCS_PSS)}) {
			t.Errorf("it is restricted to %x", got)
		}
		if got := other.get(public, ck.CKA_ALLOWED_MECHANISMS).Numbers; len(got) < 10 {
			t.Errorf("the public half is restricted to %x", got)
		}
		begin := func(h handle, m p11rpc.Mechanism) ck.RV {
			_, rv := other.call(42, other.in(func(w *p11rpc.Writer) { w.Mechanism(m); w.Ulong(uint64(h)) }))
			return rv
		}
		other.wantRV(ck.CKR_MECHANISM_INVALID, begin(private, p11rpc.Mechanism{Type: ck.CKM_SHA256_RSA_PKCS}))
		other.wantRV(ck.CKR_OK, begin(private, p11rpc.Mechanism{Type: ck.CKM_SHA256_RSA_PKCS_PSS, Param: param}))
		other.wantRV(ck.CKR_ATTRIBUTE_READ_ONLY, other.set(private, only(uint64(ck.CKM_RSA_PKCS))))
		if in == nil { // a copy is no way out, and neither is one in the token
			for _, to := range [][]p11rpc.Attribute{nil, onToken} {
				copied, rv := u.tryCopy(private, to)
				u.wantRV(ck.CKR_OK, rv)
				if got := u.get(copied, ck.CKA_ALLOWED_MECHANISMS).Numbers; len(got) != 2 {
					t.Errorf("the copy is restricted to %x", got)
				}
			}
			_, rv := u.tryCopy(private, only(uint64(ck.CKM_RSA_PKCS)))
			u.wantRV(ck.CKR_ATTRIBUTE_READ_ONLY, rv)
		}
	}
	u := e.user(t, p11rpc.Keyward, softwareID)
	h, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), only(), onToken) // restricts nothing
	u.wantRV(ck.CKR_OK, rv)
	if got := u.get(h, ck.CKA_ALLOWED_MECHANISMS).Numbers; len(got) < 4 {
		t.Errorf("it is restricted to %x", got)
	}
	_, rv = u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), only(many(kms.MaxObjectMechanisms+1)...), onToken)
	u.wantRV(ck.CKR_ATTRIBUTE_VALUE_INVALID, rv)
}

func many(n int) []uint64 {
	all := make([]uint64, n)
	for i := range all {
		all[i] = uint64(i)
	}
	return all
}
