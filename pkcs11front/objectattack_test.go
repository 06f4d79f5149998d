package pkcs11front

import (
	"math/big"
	"slices"
	"testing"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// Attacks on tokens (reliability.md, section 2.2), as far as objects stand against them.

// TestObjectsAttackP1 tries to give a key of one use another one, after it was made.
func TestObjectsAttackP1(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Keyward, softwareID)
	h, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), is(ck.CKA_WRAP, ck.CKA_UNWRAP))
	u.wantRV(ck.CKR_OK, rv)
	_, private := u.pair(ck.CKM_RSA_PKCS_KEY_PAIR_GEN, all(number(ck.CKA_MODULUS_BITS, 2048), onToken), onToken)
	for _, a := range usageAttributes {
		for _, target := range []handle{h, private} {
			if _, rv := u.tryGet(target, p11rpc.Wanted{Type: a.attribute, Room: 1}); rv != ck.CKR_OK || u.is(target, a.attribute) {
				continue
			}
			u.wantRV(ck.CKR_ATTRIBUTE_READ_ONLY, u.set(target, is(a.attribute)))
		}
		if a.may&(useWrap|useDerive) != 0 {
			continue
		}
		if _, rv := u.tryCopy(h, is(a.attribute)); rv != ck.CKR_TEMPLATE_INCONSISTENT {
			t.Errorf("a copy with %v: %v", a.attribute, rv)
		}
	}
	if !u.is(h, ck.CKA_WRAP) || u.is(h, ck.CKA_DECRYPT) || !u.is(private, ck.CKA_SIGN) || u.is(private, ck.CKA_DECRYPT) {
		t.Error("a key does more than it did")
	}
	// It may do less, and then not more again.
	u.wantRV(ck.CKR_OK, u.set(h, isNot(ck.CKA_UNWRAP)))
	u.wantRV(ck.CKR_ATTRIBUTE_READ_ONLY, u.set(h, is(ck.CKA_UNWRAP)))
	if u.is(h, ck.CKA_UNWRAP) {
		t.Error("it unwraps again")
	}
	// Nor does it become a key of the KMS, which does not wrap.
	if _, rv := u.tryCopy(h, onToken); rv != ck.CKR_TEMPLATE_INCONSISTENT {
		t.Errorf("a wrapping key went into the token: %v", rv)
	}
}

// TestObjectsAttackP4 tries to make keys less secret than they were made: by changes, and by copies.
func TestObjectsAttackP4(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Keyward, softwareID)
	session, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), is(ck.CKA_WRAP_WITH_TRUSTED))
	u.wantRV(ck.CKR_OK, rv)
	token, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), onToken)
	u.wantRV(ck.CKR_OK, rv)
	for _, weaker := range [][]p11rpc.Attribute{isNot(ck.CKA_SENSITIVE), is(ck.CKA_EXTRACTABLE), isNot(ck.CKA_WRAP_WITH_TRUSTED), all(isNot(ck.CKA_SENSITIVE), is(ck.CKA_EXTRACTABLE))} {
		for _, h := range []handle{session, token} {
			u.wantRV(ck.CKR_ATTRIBUTE_READ_ONLY, u.set(h, weaker))
		}
		if _, rv := u.tryCopy(session, weaker); rv != ck.CKR_TEMPLATE_INCONSISTENT {
			t.Errorf("a copy with %v: %v", weaker, rv)
		}
		if _, rv := u.tryCopy(token, weaker); rv != ck.CKR_ACTION_PROHIBITED {
			t.Errorf("a copy of a key of the KMS with %v: %v", weaker, rv)
		}
	}
	for _, h := range []handle{session, token} {
		if !u.is(h, ck.CKA_SENSITIVE) || u.is(h, ck.CKA_EXTRACTABLE) || !u.is(h, ck.CKA_WRAP_WITH_TRUSTED) || !u.is(h, ck.CKA_ALWAYS_SENSITIVE) || !u.is(h, ck.CKA_NEVER_EXTRACTABLE) {
			t.Error("a key is weaker than it was made")
		}
		for _, a := range []ck.Attribute{ck.CKA_LOCAL, ck.CKA_ALWAYS_SENSITIVE, ck.CKA_NEVER_EXTRACTABLE, ck.CKA_KEY_GEN_MECHANISM, ck.CKA_TOKEN, ck.CKA_PRIVATE, ck.CKA_MODIFIABLE,
			ck.CKA_CLASS, ck.CKA_KEY_TYPE, ck.CKA_VALUE, ck.CKA_VALUE_LEN, ck.CKA_UNIQUE_ID, ck.CKA_ALLOWED_MECHANISMS, ck.CKA_TRUSTED} {
			kind := p11rpc.KindOf(a)
			u.wantRV(ck.CKR_ATTRIBUTE_READ_ONLY, u.set(h, p11rpc.Attribute{Type: a, Value: p11rpc.Value{Kind: kind}}))
		}
	}
	// No template makes what was never secret look as if it had been.
	_, rv = u.tryCreate(class(ck.CKO_SECRET_KEY), keyType(ck.CKK_AES), text(ck.CKA_VALUE, "0123456789abcdef"), is(ck.CKA_NEVER_EXTRACTABLE))
	u.wantRV(ck.CKR_ATTRIBUTE_READ_ONLY, rv)
	// A key that was readable for a time stays one that was.
	open := u.create(class(ck.CKO_SECRET_KEY), keyType(ck.CKK_AES), text(ck.CKA_VALUE, "0123456789abcdef"), isNot(ck.CKA_SENSITIVE), is(ck.CKA_EXTRACTABLE))
	u.wantRV(ck.CKR_OK, u.set(open, is(ck.CKA_SENSITIVE), isNot(ck.CKA_EXTRACTABLE)))
	if _, rv := u.tryGet(open, p11rpc.Wanted{Type: ck.CKA_VALUE, Room: 100}); rv != ck.CKR_ATTRIBUTE_SENSITIVE {
		t.Errorf("its value: %v", rv)
	}
	if u.is(open, ck.CKA_ALWAYS_SENSITIVE) || u.is(open, ck.CKA_NEVER_EXTRACTABLE) {
		t.Error("it forgot that it was readable")
	}
	copied, rv := u.tryCopy(open)
	u.wantRV(ck.CKR_OK, rv)
	if u.is(copied, ck.CKA_ALWAYS_SENSITIVE) || u.is(copied, ck.CKA_NEVER_EXTRACTABLE) || !u.is(copied, ck.CKA_SENSITIVE) {
		t.Error("the copy has another history")
	}
	// A key of the KMS is never made extractable, in any way.
	for _, template := range [][]p11rpc.Attribute{all(is(ck.CKA_EXTRACTABLE)), all(is(ck.CKA_EXTRACTABLE), isNot(ck.CKA_SENSITIVE))} {
		_, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), onToken, template)
		u.wantRV(ck.CKR_TEMPLATE_INCONSISTENT, rv)
		_, rv = u.tryCreate(class(ck.CKO_SECRET_KEY), keyType(ck.CKK_AES), text(ck.CKA_VALUE, "0123456789abcdef0123456789abcdef"), onToken, template)
		u.wantRV(ck.CKR_TEMPLATE_INCONSISTENT, rv)
		_, _, rv = u.tryPair(ck.CKM_EC_KEY_PAIR_GEN, all(text(ck.CKA_EC_PARAMS, p256Params), onToken), all(onToken, template))
		u.wantRV(ck.CKR_TEMPLATE_INCONSISTENT, rv)
	}
	for _, h := range u.find(100, onToken) {
		if h != token && h != 0 {
			t.Errorf("%x was made all the same", uint64(h))
		}
	}
}

// TestObjectsAttackP3 brings a key along a second time with other attributes: each copy says what it is, and none has what the first had.
func TestObjectsAttackP3(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Keyward, softwareID)
	value := text(ck.CKA_VALUE, "0123456789abcdef0123456789abcdef")
	first := u.create(class(ck.CKO_SECRET_KEY), keyType(ck.CKK_AES), value, onToken)
	second, rv := u.tryCreate(class(ck.CKO_SECRET_KEY), keyType(ck.CKK_AES), value, is(ck.CKA_WRAP))
	if rv == ck.CKR_OK && (u.is(second, ck.CKA_DECRYPT) || u.is(second, ck.CKA_TOKEN) || u.is(second, ck.CKA_ALWAYS_SENSITIVE)) {
		t.Error("a copy of it wraps and decrypts")
	}
	if u.is(first, ck.CKA_WRAP) || u.is(first, ck.CKA_NEVER_EXTRACTABLE) {
		t.Error("the first one is not what it was")
	}
	for _, u := range []*tokenUser{u} {
		_, rv := u.tryCreate(class(ck.CKO_SECRET_KEY), keyType(ck.CKK_AES), value, onToken, is(ck.CKA_WRAP))
		u.wantRV(ck.CKR_TEMPLATE_INCONSISTENT, rv)
	}
}

// TestObjectsAttackP5 tries to make something trusted.
func TestObjectsAttackP5(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Keyward, softwareID)
	trusted := is(ck.CKA_TRUSTED)
	_, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), trusted)
	u.wantRV(ck.CKR_ATTRIBUTE_READ_ONLY, rv)
	_, rv = u.tryCreate(class(ck.CKO_PUBLIC_KEY), keyType(ck.CKK_EC), text(ck.CKA_EC_PARAMS, p256Params), text(ck.CKA_EC_POINT, string(ecPoint(t, mustEC(t)))), trusted)
	u.wantRV(ck.CKR_ATTRIBUTE_READ_ONLY, rv)
	h, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), is(ck.CKA_WRAP))
	u.wantRV(ck.CKR_OK, rv)
	u.wantRV(ck.CKR_ATTRIBUTE_READ_ONLY, u.set(h, trusted))
	_, rv = u.tryCopy(h, trusted)
	u.wantRV(ck.CKR_ATTRIBUTE_READ_ONLY, rv)
	if u.is(h, ck.CKA_TRUSTED) {
		t.Error("it is trusted")
	}
}

// TestObjectsAttackP10 gives one key the names of another: a handle goes on naming its own key, and both are found by the name.
func TestObjectsAttackP10(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Keyward, softwareID)
	params := text(ck.CKA_EC_PARAMS, p256Params)
	names := all(text(ck.CKA_ID, "victim"), text(ck.CKA_LABEL, "victim"))
	_, victim := u.pair(ck.CKM_EC_KEY_PAIR_GEN, all(params, onToken), all(onToken, names))
	_, other := u.pair(ck.CKM_EC_KEY_PAIR_GEN, all(params, onToken), onToken)
	before := u.get(victim, ck.CKA_PUBLIC_KEY_INFO)
	u.wantRV(ck.CKR_OK, u.set(other, names))
	u.wantFound([]handle{victim, other}, text(ck.CKA_ID, "victim"))
	if !sameValue(before, u.get(victim, ck.CKA_PUBLIC_KEY_INFO)) || sameValue(before, u.get(other, ck.CKA_PUBLIC_KEY_INFO)) {
		t.Error("a handle names another key than it did")
	}
	// Somebody who may see a key but not manage it can't rename it.
	e.alice(t, `{"Version":"1","Statement":[{"Effect":"Deny","Action":["kms:SetTokenNames","kms:ScheduleKeyDeletion"],"Resource":["*"]}]}`)
	a := e.user(t, p11rpc.Offer0, softwareID)
	a.wantFound([]handle{victim, other}, text(ck.CKA_ID, "victim"))
	a.wantRV(ck.CKR_ACTION_PROHIBITED, a.set(victim, text(ck.CKA_LABEL, "mine")))
	a.wantRV(ck.CKR_ACTION_PROHIBITED, a.destroy(victim))
	if _, rv := a.tryCreate(dataClass, onToken); rv != ck.CKR_ACTION_PROHIBITED {
		t.Errorf("she made an object: %v", rv)
	}
	if _, rv := a.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), onToken); rv != ck.CKR_ACTION_PROHIBITED {
		t.Errorf("she made a key: %v", rv)
	}
	e.actor.Store(root)
}

// alice makes the user alice with a policy, and everybody her.
func (e *testEnv) alice(t testing.TB, policy string) {
	t.Helper()
	admin := e.service.Principals()
	if _, err := admin.Create(t.Context(), root, alice.Principal, ""); err != nil {
		t.Fatal(err)
	}
	if policy != "" {
		if err := admin.AttachPolicy(t.Context(), root, alice.Principal, "test", policy); err != nil {
			t.Fatal(err)
		}
	}
	e.actor.Store(alice)
}

// TestObjectsAttackP11 uses handles of other applications, instances and principals.
func TestObjectsAttackP11(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Offer0, softwareID)
	session := u.create(dataClass)
	kept := u.create(dataClass, onToken)
	hidden := u.create(dataClass, onToken, is(ck.CKA_PRIVATE))
	public, private := u.pair(ck.CKM_EC_KEY_PAIR_GEN, all(text(ck.CKA_EC_PARAMS, p256Params), onToken), onToken)
	unseen := func(u *tokenUser, handles ...handle) {
		t.Helper()
		for _, h := range handles {
			if _, rv := u.tryGet(h, p11rpc.Wanted{Type: ck.CKA_CLASS, Room: 8}); rv != ck.CKR_OBJECT_HANDLE_INVALID {
				t.Errorf("%x: %v", uint64(h), rv)
			}
			u.wantRV(ck.CKR_OBJECT_HANDLE_INVALID, u.set(h, text(ck.CKA_LABEL, "mine")))
			u.wantRV(ck.CKR_OBJECT_HANDLE_INVALID, u.destroy(h))
			if _, rv := u.tryCopy(h); rv != ck.CKR_OBJECT_HANDLE_INVALID {
				t.Errorf("a copy: %v", rv)
			}
			_, rv := u.call(42, u.in(func(w *p11rpc.Writer) { w.Mechanism(p11rpc.Mechanism{Type: ck.CKM_ECDSA}); w.Ulong(uint64(h)) }))
			u.wantRV(ck.CKR_KEY_HANDLE_INVALID, rv)
		}
		u.wantFound(nil, dataClass)
	}
	other := e.user(t, p11rpc.Offer0, softwareID)
	other.wantFound([]handle{kept, hidden}, dataClass)
	if _, rv := other.tryGet(session, p11rpc.Wanted{Type: ck.CKA_CLASS, Room: 8}); rv != ck.CKR_OBJECT_HANDLE_INVALID {
		t.Errorf("a session object of another application: %v", rv)
	}
	other.wantRV(ck.CKR_OBJECT_HANDLE_INVALID, other.destroy(session))
	// The same application, with a session of another token.
	first := u.open(hardwareID, true)
	unseen(u, session, kept, hidden, public, private)
	u.s = first
	u.wantFound([]handle{session, kept, hidden}, dataClass)
	// Another principal: what is private is its maker's, and keys are there for who may describe them.
	e.alice(t, `{"Version":"1","Statement":[{"Effect":"Deny","Action":["kms:DescribeKey"],"Resource":["*"]}]}`)
	a := e.user(t, p11rpc.Offer0, softwareID)
	unseenKeys := []handle{public, private, hidden, session}
	for _, h := range unseenKeys {
		if _, rv := a.tryGet(h, p11rpc.Wanted{Type: ck.CKA_CLASS, Room: 8}); rv != ck.CKR_OBJECT_HANDLE_INVALID {
			t.Errorf("%x: %v", uint64(h), rv)
		}
	}
	a.wantFound([]handle{kept}, onToken)
}

// TestPrivateObjects says that before the login that a PIN asks for, private objects are neither there nor made.
func TestPrivateObjects(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Offer0, softwareID)
	public, private := u.pair(ck.CKM_EC_KEY_PAIR_GEN, all(text(ck.CKA_EC_PARAMS, p256Params), onToken), onToken)
	hidden := u.create(dataClass, onToken, is(ck.CKA_PRIVATE))
	if err := e.service.Principals().SetPIN(t.Context(), root, root.Principal, []byte("12345678")); err != nil {
		t.Fatal(err)
	}
	u = e.user(t, p11rpc.Offer1, softwareID)
	u.wantFound([]handle{public})
	for _, h := range []handle{private, hidden} {
		if _, rv := u.tryGet(h, p11rpc.Wanted{Type: ck.CKA_CLASS, Room: 8}); rv != ck.CKR_OBJECT_HANDLE_INVALID {
			t.Errorf("%x: %v", uint64(h), rv)
		}
		u.wantRV(ck.CKR_OBJECT_HANDLE_INVALID, u.destroy(h))
	}
	u.wantFound(nil, u.uniqueID(private))
	_, rv := u.tryCreate(dataClass, is(ck.CKA_PRIVATE))
	u.wantRV(ck.CKR_USER_NOT_LOGGED_IN, rv)
	_, rv = u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32))
	u.wantRV(ck.CKR_USER_NOT_LOGGED_IN, rv)
	_, rv = u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), onToken, isNot(ck.CKA_PRIVATE))
	u.wantRV(ck.CKR_USER_NOT_LOGGED_IN, rv) // it would be private whatever the template says
	own, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), isNot(ck.CKA_PRIVATE))
	u.wantRV(ck.CKR_OK, rv)
	u.must(18, u.in(func(w *p11rpc.Writer) { w.Ulong(uint64(ck.CKU_USER)); w.Octets([]byte("12345678")) }))
	u.wantFound([]handle{own, hidden, private, public})
	secret := u.create(dataClass, is(ck.CKA_PRIVATE))
	u.must(19, u.in(nil)) // C_Logout
	u.wantFound([]handle{own, public})
	u.wantRV(ck.CKR_OBJECT_HANDLE_INVALID, u.destroy(secret))
}

// uniqueID is CKA_UNIQUE_ID of a handle, for a template.
func (u *tokenUser) uniqueID(h handle) p11rpc.Attribute {
	return text(ck.CKA_UNIQUE_ID, string(uniqueID(h)))
}

// decrypt is C_DecryptInit and C_Decrypt by PKCS #1 v1.5.
func (u *tokenUser) decryptPKCS1(h handle, ciphertext []byte) string {
	u.t.Helper()
	u.must(33, u.in(func(w *p11rpc.Writer) { w.Mechanism(p11rpc.Mechanism{Type: ck.CKM_RSA_PKCS}); w.Ulong(uint64(h)) }))
	plaintext, _ := u.must(34, u.in(func(w *p11rpc.Writer) { w.Octets(ciphertext); w.Room(p11rpc.Room{Size: 512}) })).Octets()
	return string(plaintext)
}

// TestObjectsAttackP7 asks two copies of one key, in the token, in an HSM and in a session, what a badly padded ciphertext decrypts to: were the answers
// different, they would tell that it is badly padded.
func TestObjectsAttackP7(t *testing.T) {
	e := newEnv(t)
	rsaKey := all(rsaTemplate(testRSA(), true), is(ck.CKA_DECRYPT))
	bad := new(big.Int).Exp(big.NewInt(12345), big.NewInt(int64(testRSA().E)), testRSA().N).FillBytes(make([]byte, 256))
	answers := map[string]int{}
	for _, instance := range []string{softwareID, hardwareID} {
		u := e.user(t, p11rpc.Offer2, instance)
		for _, where := range [][]p11rpc.Attribute{onToken, nil, nil} {
			answers[u.decryptPKCS1(u.create(rsaKey, where), bad)]++
		}
		if got := u.decryptPKCS1(u.create(rsaKey), pkcs1Encrypted(&testRSA().PublicKey, []byte("good"))); got != "good" {
			t.Errorf("%q", got)
		}
	}
	if len(answers) != 1 {
		t.Errorf("six copies of a key have %d answers to one ciphertext", len(answers))
	}
}

// TestObjectsAttackP2 brings a known key in by unwrapping, to wrap others with it: what comes in never wraps, also not when it was narrowed to nothing first.
func TestObjectsAttackP2(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Keyward, softwareID)
	wrapping, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), is(ck.CKA_WRAP, ck.CKA_UNWRAP))
	u.wantRV(ck.CKR_OK, rv)
	leaving, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), is(ck.CKA_EXTRACTABLE, ck.CKA_ENCRYPT))
	u.wantRV(ck.CKR_OK, rv)
	kw := p11rpc.Mechanism{Type: ck.CKM_AES_KEY_WRAP}
	blob, _ := u.must(60, u.in(func(w *p11rpc.Writer) {
		w.Mechanism(kw)
		w.Ulong(uint64(wrapping))
		w.Ulong(uint64(leaving))
		w.Room(p11rpc.Room{Size: 100})
	})).Octets()
	blob = append([]byte(nil), blob...)
	unwrap := func(template ...any) (handle, ck.RV) {
		r, rv := u.call(61, u.in(func(w *p11rpc.Writer) {
			w.Mechanism(kw)
			w.Ulong(uint64(wrapping))
			w.Octets(blob)
			w.Template(all(class(ck.CKO_SECRET_KEY), keyType(ck.CKK_AES), all(template...)))
		}))
		if rv != ck.CKR_OK {
			return 0, rv
		}
		return handle(r.Ulong()), rv
	}
	for _, a := range []ck.Attribute{ck.CKA_WRAP, ck.CKA_UNWRAP} {
		if h, rv := unwrap(is(a)); rv == ck.CKR_OK && (u.is(h, ck.CKA_WRAP) || u.is(h, ck.CKA_UNWRAP)) {
			t.Errorf("an unwrapped key has %v", a)
		}
	}
	_, rv = unwrap(isNot(ck.CKA_ENCRYPT), isNot(ck.CKA_DECRYPT), isNot(ck.CKA_SIGN), isNot(ck.CKA_VERIFY)) // only wrapping is left
	u.wantRV(ck.CKR_TEMPLATE_INCONSISTENT, rv)
	plain, rv := unwrap(is(ck.CKA_ENCRYPT))
	u.wantRV(ck.CKR_OK, rv)
	u.wantRV(ck.CKR_OK, u.set(plain, isNot(ck.CKA_ENCRYPT), isNot(ck.CKA_DECRYPT)))
	for _, a := range usageAttributes {
		if u.is(plain, a.attribute) {
			t.Errorf("a key that was narrowed to nothing has %v", a.attribute)
		}
		if _, rv := u.tryGet(plain, p11rpc.Wanted{Type: a.attribute, Room: 1}); rv != ck.CKR_OK {
			continue
		}
		u.wantRV(ck.CKR_ATTRIBUTE_READ_ONLY, u.set(plain, is(a.attribute)))
		if h, rv := u.tryCopy(plain, is(a.attribute)); rv == ck.CKR_OK && u.is(h, a.attribute) {
			t.Errorf("a copy of it has %v", a.attribute)
		}
	}
	// A key that is narrowed to nothing does not leave, and a copy of it neither.
	u.wantRV(ck.CKR_OK, u.set(leaving, isNot(ck.CKA_ENCRYPT), isNot(ck.CKA_DECRYPT)))
	copied, rv := u.tryCopy(leaving)
	u.wantRV(ck.CKR_OK, rv)
	for _, h := range []handle{leaving, copied} {
		_, rv := u.call(60, u.in(func(w *p11rpc.Writer) {
			w.Mechanism(kw)
			w.Ulong(uint64(wrapping))
			w.Ulong(uint64(h))
			w.Room(p11rpc.Room{Size: 100})
		}))
		u.wantRV(ck.CKR_KEY_NOT_WRAPPABLE, rv)
	}
}

// TestObjectsAttackNames keeps a public key and a certificate of one's own under the names of a key of the KMS, for others to encrypt to. They are refused;
// and where the attacker does not see the key, the key is found before them.
func TestObjectsAttackNames(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Offer2, softwareID)
	params := text(ck.CKA_EC_PARAMS, p256Params)
	public, private := u.pair(ck.CKM_EC_KEY_PAIR_GEN, all(params, onToken), all(onToken, text(ck.CKA_ID, "web id"), text(ck.CKA_LABEL, "web")))
	u.wantRV(ck.CKR_OK, u.set(public, text(ck.CKA_ID, "web id"), text(ck.CKA_LABEL, "web")))
	own := all(class(ck.CKO_PUBLIC_KEY), keyType(ck.CKK_EC), params, text(ck.CKA_EC_POINT, string(ecPoint(t, mustEC(t)))), onToken)
	certificate := all(class(ck.CKO_CERTIFICATE), number(ck.CKA_CERTIFICATE_TYPE, 0), text(ck.CKA_VALUE, string(testCertificate(t))), onToken)
	for _, planted := range [][]p11rpc.Attribute{all(own, text(ck.CKA_ID, "web id")), all(own, text(ck.CKA_LABEL, "web")), all(certificate, text(ck.CKA_ID, "web id"))} {
		if _, rv := u.tryCreate(planted); rv != ck.CKR_ATTRIBUTE_VALUE_INVALID {
			t.Errorf("it was planted: %v", rv)
		}
	}
	other := u.create(own, text(ck.CKA_LABEL, "mine"))
	u.wantRV(ck.CKR_ATTRIBUTE_VALUE_INVALID, u.set(other, text(ck.CKA_LABEL, "web")))
	u.wantRV(ck.CKR_ATTRIBUTE_VALUE_INVALID, u.set(other, text(ck.CKA_ID, "web id")))
	u.create(certificate, text(ck.CKA_LABEL, "web")) // that of another key says so itself
	// The key's own public key and certificate may have its names.
	point := u.get(public, ck.CKA_EC_POINT).Octets
	u.create(class(ck.CKO_PUBLIC_KEY), keyType(ck.CKK_EC), params, text(ck.CKA_EC_POINT, string(point)), onToken, text(ck.CKA_ID, "web id"), text(ck.CKA_LABEL, "web"))

	e.alice(t, `{"Version":"1","Statement":[{"Effect":"Allow","Action":["kms:*"],"Resource":["*"]},{"Effect":"Deny","Action":["kms:DescribeKey"],"Resource":["*"]}]}`)
	a := e.user(t, p11rpc.Offer2, softwareID)
	a.create(own, text(ck.CKA_ID, "web id"), text(ck.CKA_LABEL, "web"))
	e.actor.Store(root)
	for _, name := range []p11rpc.Attribute{text(ck.CKA_ID, "web id"), text(ck.CKA_LABEL, "web")} {
		if found := u.find(10, name); len(found) < 3 || found[0] != private || found[1] != public {
			t.Errorf("found first: %x", found)
		}
		if found := u.find(1, name, class(ck.CKO_PUBLIC_KEY)); len(found) < 2 || found[0] != public {
			t.Errorf("the public key is %x", found)
		}
	}
}

// TestObjectsAttackHashKey computes GCM's hash key, the encryption of the zero block, with a key that the API encrypts under: with raw_aes = false no mode does
// that with a key of an HSM, and GCM that keyward draws the IV of still works. Software keys have nothing to hide so: what the API encrypts under is another key.
func TestObjectsAttackHashKey(t *testing.T) {
	e := newEnv(t, func(c *Config) { c.NoRawAES = true })
	zero := make([]byte, blockSize)
	mechanisms := []p11rpc.Mechanism{{Type: ck.CKM_AES_ECB}, {Type: ck.CKM_AES_CBC, Param: p11rpc.IV(zero)}, {Type: ck.CKM_AES_CBC_PAD, Param: p11rpc.IV(zero)},
		{Type: ck.CKM_AES_CTR, Param: &p11rpc.CTR{Bits: 128, Counter: zero}}, {Type: ck.CKM_AES_GCM, Param: &p11rpc.GCM{IV: zero[:12], IVBits: 96, TagBits: 128}}}
	for instance, want := range map[string]ck.RV{softwareID: ck.CKR_OK, hardwareID: ck.CKR_MECHANISM_INVALID} {
		u := e.user(t, p11rpc.Keyward, instance)
		token, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), onToken)
		u.wantRV(ck.CKR_OK, rv)
		session, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32))
		u.wantRV(ck.CKR_OK, rv)
		for _, m := range mechanisms {
			for _, init := range []p11rpc.CallID{p11rpc.C_EncryptInit, p11rpc.C_DecryptInit} {
				for h, want := range map[handle]ck.RV{token: want, session: ck.CKR_OK} {
					if m.Type == ck.CKM_AES_GCM && init == p11rpc.C_DecryptInit {
						want = ck.CKR_OK // it gives nothing before the tag is right
					}
					_, rv := u.call(init, u.in(func(w *p11rpc.Writer) { w.Mechanism(m); w.Ulong(uint64(h)) }))
					if rv != want {
						t.Errorf("%s, call %d by %v: %v, not %v", instance, init, m.Type, rv, want)
					}
					u.must(p11rpc.C_SessionCancel, u.in(func(w *p11rpc.Writer) { w.Ulong(uint64(ck.CKF_ENCRYPT | ck.CKF_DECRYPT)) }))
				}
			}
		}
		listed := u.get(token, ck.CKA_ALLOWED_MECHANISMS).Numbers
		if got := slices.Contains(listed, uint64(ck.CKM_AES_ECB)); got != (want == ck.CKR_OK) || !slices.Contains(listed, uint64(ck.CKM_AES_GCM)) {
			t.Errorf("%s: CKA_ALLOWED_MECHANISMS is %x", instance, listed)
		}
		u.must(p11rpc.C_MessageEncryptInit, u.in(func(w *p11rpc.Writer) { w.Mechanism(p11rpc.Mechanism{Type: ck.CKM_AES_GCM}); w.Ulong(uint64(token)) }))
		for _, drawn := range []bool{true, false} {
			m := p11rpc.GCMMessage{IV: make([]byte, 12), TagBits: 128}
			if drawn {
				m.Generator = ck.CKG_GENERATE_RANDOM
			}
			_, rv := u.call(p11rpc.C_EncryptMessage, u.in(func(w *p11rpc.Writer) {
				w.Parameter(&m)
				w.Octets(nil)
				w.Octets(zero)
				w.Room(p11rpc.Room{Size: 16})
			}))
			if (rv == ck.CKR_OK) != (drawn || want == ck.CKR_OK) {
				t.Errorf("%s: a message, with an IV that is drawn: %v, gives %v", instance, drawn, rv)
			}
		}
	}
}

// TestObjectsAttackP9 looks for the keys that keep others: the master keys of the HSMs, which are objects of the same tokens. There is no object that is one, none
// that wraps or unwraps, and what a key of the KMS is stored as is nothing that a program's own key opens.
func TestObjectsAttackP9(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Keyward, hardwareID)
	u.wantFound(nil) // of tokens that hold master keys
	aesKey, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), onToken)
	u.wantRV(ck.CKR_OK, rv)
	u.pair(ck.CKM_EC_KEY_PAIR_GEN, all(text(ck.CKA_EC_PARAMS, p256Params), onToken), onToken)
	found := u.find(100)
	if len(found) != 3 {
		t.Errorf("%d objects are there", len(found))
	}
	for _, h := range found {
		for _, a := range []ck.Attribute{ck.CKA_WRAP, ck.CKA_UNWRAP} {
			if _, rv := u.tryGet(h, p11rpc.Wanted{Type: a, Room: 1}); rv == ck.CKR_OK && u.is(h, a) {
				t.Errorf("%x has %v", uint64(h), a)
			}
		}
	}
	_, place, _ := aesKey.key()
	kept, err := e.service.TokenKey(t.Context(), root, hardwareID, place)
	if err != nil {
		t.Fatal(err)
	}
	v, err := e.db.Version(t.Context(), kept.KeyID, kept.VersionID)
	if err != nil || len(v.Wrapped) == 0 {
		t.Fatalf("%+v, %v", v, err)
	}
	wrapping, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), is(ck.CKA_WRAP, ck.CKA_UNWRAP))
	u.wantRV(ck.CKR_OK, rv)
	for _, by := range []handle{aesKey, wrapping} {
		for _, m := range []ck.Mechanism{ck.CKM_AES_KEY_WRAP, ck.CKM_AES_KEY_WRAP_KWP} {
			_, rv := u.call(p11rpc.C_UnwrapKey, u.in(func(w *p11rpc.Writer) {
				w.Mechanism(p11rpc.Mechanism{Type: m})
				w.Ulong(uint64(by))
				w.Octets(v.Wrapped)
				w.Template(all(class(ck.CKO_SECRET_KEY), keyType(ck.CKK_AES)))
			}))
			want := ck.CKR_WRAPPED_KEY_INVALID
			if by == aesKey {
				want = ck.CKR_KEY_FUNCTION_NOT_PERMITTED
			}
			if rv != want && !(by == wrapping && rv == ck.CKR_WRAPPED_KEY_LEN_RANGE) {
				t.Errorf("%v with %x: %v", m, uint64(by), rv)
			}
		}
	}
}

// TestObjectsAttackP8 spoils each octet of a padded ciphertext: with keys of both instances and of the session, all that is wrong is one error.
func TestObjectsAttackP8(t *testing.T) {
	e := newEnv(t)
	for _, instance := range []string{softwareID, hardwareID} {
		u := e.user(t, p11rpc.Keyward, instance)
		for _, where := range [][]p11rpc.Attribute{onToken, nil} {
			h, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), where)
			u.wantRV(ck.CKR_OK, rv)
			cipher := func(init, call p11rpc.CallID, in []byte) ([]byte, ck.RV) {
				u.must(init, u.in(func(w *p11rpc.Writer) {
					w.Mechanism(p11rpc.Mechanism{Type: ck.CKM_AES_CBC_PAD, Param: p11rpc.IV(make([]byte, blockSize))})
					w.Ulong(uint64(h))
				}))
				r, rv := u.call(call, u.in(func(w *p11rpc.Writer) { w.Octets(in); w.Room(p11rpc.Room{Size: 100}) }))
				if rv != ck.CKR_OK {
					return nil, rv
				}
				out, _ := r.Octets()
				return append([]byte(nil), out...), rv
			}
			sealed, rv := cipher(p11rpc.C_EncryptInit, p11rpc.C_Encrypt, []byte("seventeen octets."))
			u.wantRV(ck.CKR_OK, rv)
			if plain, rv := cipher(p11rpc.C_DecryptInit, p11rpc.C_Decrypt, sealed); rv != ck.CKR_OK || string(plain) != "seventeen octets." {
				t.Fatalf("%q, %v", plain, rv)
			}
			bad := 0
			for i := range sealed {
				spoiled := append([]byte(nil), sealed...)
				spoiled[i] ^= 0x55
				if _, rv := cipher(p11rpc.C_DecryptInit, p11rpc.C_Decrypt, spoiled); rv == ck.CKR_ENCRYPTED_DATA_INVALID {
					bad++
				} else if rv != ck.CKR_OK { // the padding came out right by chance, or only the text is spoiled
					t.Errorf("octet %d: %v", i, rv)
				}
			}
			if bad < blockSize {
				t.Errorf("only %d of %d changes were noticed", bad, len(sealed))
			}
		}
	}
}
