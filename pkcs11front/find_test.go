package pkcs11front

import (
	"fmt"
	"slices"
	"testing"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// TestFind searches by all that programs search by.
func TestFind(t *testing.T) {
	e := newEnv(t)
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		u := e.user(t, d, softwareID)
		label := fmt.Sprint("search ", d)
		data := u.create(dataClass, onToken, text(ck.CKA_LABEL, label))
		own := u.create(dataClass, text(ck.CKA_LABEL, label))
		pub, prv := u.pair(ck.CKM_EC_KEY_PAIR_GEN, all(text(ck.CKA_EC_PARAMS, p256Params), onToken, text(ck.CKA_LABEL, label), text(ck.CKA_ID, label)),
			all(onToken, text(ck.CKA_LABEL, label), text(ck.CKA_ID, label)))
		session, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), text(ck.CKA_LABEL, label))
		u.wantRV(ck.CKR_OK, rv)

		u.wantFound([]handle{own, session, prv, pub, data}, text(ck.CKA_LABEL, label))
		u.wantFound([]handle{prv, pub, data}, text(ck.CKA_LABEL, label), onToken)
		u.wantFound([]handle{own, session}, text(ck.CKA_LABEL, label), isNot(ck.CKA_TOKEN))
		u.wantFound([]handle{prv, pub}, text(ck.CKA_ID, label))
		u.wantFound([]handle{pub}, text(ck.CKA_ID, label), class(ck.CKO_PUBLIC_KEY))
		u.wantFound([]handle{prv}, text(ck.CKA_ID, label), is(ck.CKA_PRIVATE))
		u.wantFound([]handle{prv}, text(ck.CKA_ID, label), is(ck.CKA_SIGN), keyType(ck.CKK_EC))
		u.wantFound(nil, text(ck.CKA_ID, label), keyType(ck.CKK_RSA))
		u.wantFound(nil, text(ck.CKA_ID, label), class(ck.CKO_CERTIFICATE))
		u.wantFound([]handle{pub}, u.attribute(pub, ck.CKA_EC_POINT), class(ck.CKO_PUBLIC_KEY))
		u.wantFound([]handle{prv, pub}, u.attribute(pub, ck.CKA_PUBLIC_KEY_INFO))
		for _, h := range []handle{data, prv, pub} {
			u.wantFound([]handle{h}, u.attribute(h, ck.CKA_UNIQUE_ID))
		}
		u.wantFound([]handle{own}, u.attribute(own, ck.CKA_UNIQUE_ID))
		u.wantFound(nil, u.attribute(pub, ck.CKA_UNIQUE_ID), class(ck.CKO_PRIVATE_KEY))
		u.wantFound(nil, text(ck.CKA_UNIQUE_ID, "3000000000f00001"))
		u.wantFound(nil, text(ck.CKA_UNIQUE_ID, "x"))
		u.wantFound(nil, text(0x80001234, "nobody knows it"))
		u.wantFound(nil, class(0xce534353))
		u.wantFound(nil, text(ck.CKA_LABEL, "\xff\xfe"))
		u.wantFound(nil, text(ck.CKA_VALUE, ""), class(ck.CKO_SECRET_KEY))
		u.wantFound(nil, number(ck.CKA_MODULUS_BITS, 2048), text(ck.CKA_LABEL, label))
		if d >= p11rpc.Offer1 {
			u.wantFound(nil, p11rpc.Attribute{Type: ck.CKA_WRAP_TEMPLATE, Value: p11rpc.Value{Kind: p11rpc.Template, Nested: all(dataClass)}})
		}
		// A key has default names until a client gives it others.
		bare, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), onToken)
		u.wantRV(ck.CKR_OK, rv)
		if id := u.get(bare, ck.CKA_ID).Octets; len(id) != 16 {
			t.Errorf("CKA_ID is %x by default", id)
		}
		u.wantFound([]handle{bare}, u.attribute(bare, ck.CKA_ID))
		u.wantFound([]handle{bare}, u.attribute(bare, ck.CKA_LABEL))
		u.wantRV(ck.CKR_OK, u.set(bare, text(ck.CKA_LABEL, "named "+label)))
		u.wantFound([]handle{bare}, text(ck.CKA_LABEL, "named "+label))

		// All of them, in the same order each time.
		if a, b := u.find(7), u.find(100); !slices.Equal(a, b) || !slices.Contains(a, prv) {
			t.Errorf("%x and %x", a, b)
		}
		for _, h := range []handle{data, own, session, prv, bare} {
			u.wantRV(ck.CKR_OK, u.destroy(h))
		}
		u.wantFound(nil)
	})
}

// attribute is an attribute of an object, for a template.
func (u *tokenUser) attribute(h handle, a ck.Attribute) p11rpc.Attribute {
	u.t.Helper()
	return p11rpc.Attribute{Type: a, Value: u.get(h, a)}
}

// TestFindCalls says what the three calls of a search return out of turn, and that searches of sessions are apart.
func TestFindCalls(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Keyward, softwareID)
	for range 3 {
		u.create(dataClass)
	}
	begin := func() ck.RV { _, rv := u.call(26, u.in(func(w *p11rpc.Writer) { w.Template(nil) })); return rv }
	fetch := func(n uint32) (int, ck.RV) {
		r, rv := u.call(27, u.in(func(w *p11rpc.Writer) { w.Room(p11rpc.Room{Size: n}) }))
		list, _ := r.Ulongs()
		return len(list), rv
	}
	end := func() ck.RV { _, rv := u.call(28, u.in(nil)); return rv }
	_, rv := fetch(1)
	u.wantRV(ck.CKR_OPERATION_NOT_INITIALIZED, rv)
	u.wantRV(ck.CKR_OPERATION_NOT_INITIALIZED, end())
	u.wantRV(ck.CKR_OK, begin())
	u.wantRV(ck.CKR_OPERATION_ACTIVE, begin())
	if n, rv := fetch(2); n != 2 || rv != ck.CKR_OK {
		t.Error(n, rv)
	}
	before := u.open(softwareID, false)
	u.wantRV(ck.CKR_OPERATION_NOT_INITIALIZED, end())
	u.s = before
	if n, rv := fetch(1<<32 - 2); n != 1 || rv != ck.CKR_OK {
		t.Error(n, rv)
	}
	if n, rv := fetch(10); n != 0 || rv != ck.CKR_OK {
		t.Error(n, rv)
	}
	u.wantRV(ck.CKR_OK, end())
}

// TestVersions says that each version of a key is an object of its own, of which only the newest is found by the alias.
func TestVersions(t *testing.T) {
	e := newEnv(t)
	made, err := e.service.CreateKey(t.Context(), root, &kmswire.CreateKeyRequest{DKMSInstanceID: softwareID, KeySpec: kmswire.ECP256, KeyUsage: kmswire.SignVerify})
	if err != nil {
		t.Fatal(err)
	}
	id := made.KeyMetadata.KeyID
	if _, err := e.service.CreateAlias(t.Context(), root, &kmswire.CreateAliasRequest{KeyID: id, AliasName: "alias/web"}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.service.CreateKeyVersion(t.Context(), root, &kmswire.CreateKeyVersionRequest{KeyID: id}); err != nil {
		t.Fatal(err)
	}
	u := e.user(t, p11rpc.Keyward, softwareID)
	if all := u.find(10, class(ck.CKO_PRIVATE_KEY)); len(all) != 2 {
		t.Fatalf("%x", all)
	}
	newest := u.find(10, class(ck.CKO_PRIVATE_KEY), text(ck.CKA_LABEL, "web"))
	older := u.find(10, class(ck.CKO_PRIVATE_KEY), text(ck.CKA_LABEL, "web#1"))
	if len(newest) != 1 || len(older) != 1 || newest[0] == older[0] {
		t.Errorf("%x, %x", newest, older)
	}
	u.wantRV(ck.CKR_ACTION_PROHIBITED, u.destroy(older[0])) // one of two: not by this door
	if _, err := e.service.DisableKey(t.Context(), root, &kmswire.DisableKeyRequest{KeyID: id}); err != nil {
		t.Fatal(err)
	}
	u.wantFound(newest, class(ck.CKO_PRIVATE_KEY), text(ck.CKA_LABEL, "web")) // it is disabled, and there
	if _, err := e.service.ScheduleKeyDeletion(t.Context(), root, &kmswire.ScheduleKeyDeletionRequest{KeyID: id, PendingWindowInDays: 7}); err != nil {
		t.Fatal(err)
	}
	u.wantFound(nil)
}

// benchmarkKeys is how many keys the benchmarks search among.
const benchmarkKeys = 10_000

// BenchmarkFind measures searches among 10,000 keys, as calls of the door without a connection.
func BenchmarkFind(b *testing.B) {
	e := newEnv(b)
	var some *kms.TokenKey
	for i := range benchmarkKeys {
		name := fmt.Sprint("bench-", i)
		key, err := e.service.CreateTokenKey(b.Context(), root, &kms.NewTokenKey{Instance: softwareID, Spec: kmswire.ECP256, Usage: kmswire.SignVerify,
			Names: map[kms.ObjectClass]kms.ObjectNames{kms.ClassPrivateKey: {ID: []byte(name), Label: name}}})
		if err != nil {
			b.Fatal(err)
		}
		if i == benchmarkKeys/2 {
			some = key
		}
	}
	u := e.user(b, p11rpc.Keyward, softwareID)
	h := keyHandle(ck.CKO_PRIVATE_KEY, some.KeyPlace)
	name := string(some.Names[kms.ClassPrivateKey].Label)
	for _, test := range []struct {
		name     string
		template []p11rpc.Attribute
	}{
		{"label", all(class(ck.CKO_PRIVATE_KEY), text(ck.CKA_LABEL, name))},
		{"id", all(class(ck.CKO_PRIVATE_KEY), text(ck.CKA_ID, name))},
		{"default-id", all(class(ck.CKO_PUBLIC_KEY), u.attribute(keyHandle(ck.CKO_PUBLIC_KEY, some.KeyPlace), ck.CKA_ID))},
		{"unique-id", all(u.attribute(h, ck.CKA_UNIQUE_ID))},
		{"walk-by-point", all(class(ck.CKO_PRIVATE_KEY), u.attribute(h, ck.CKA_EC_POINT))},
	} {
		b.Run(test.name, func(b *testing.B) {
			for b.Loop() {
				if got := u.find(10, test.template); len(got) != 1 {
					b.Fatalf("%x", got)
				}
			}
		})
	}
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			if got := u.find(1000, class(ck.CKO_PRIVATE_KEY)); len(got) != benchmarkKeys {
				b.Fatal(len(got))
			}
		}
	})
	b.Run("attributes", func(b *testing.B) {
		b.ReportAllocs()
		wanted := []p11rpc.Wanted{{Type: ck.CKA_KEY_TYPE, Room: 8}, {Type: ck.CKA_LABEL, Room: 100}, {Type: ck.CKA_EC_PARAMS, Room: 100}, {Type: ck.CKA_EC_POINT, Room: 100}, {Type: ck.CKA_SIGN, Room: 1}}
		for b.Loop() {
			if _, rv := u.tryGet(h, wanted...); rv != ck.CKR_OK {
				b.Fatal(rv)
			}
		}
	})
}
