package pkcs11front

import (
	"testing"

	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/pkcs11front/ck"
)

// eachWish calls f with every template of usage: each attribute true, false or not there.
func eachWish(f func(values, wish)) {
	n := len(usageAttributes)
	total := 1
	for range n {
		total *= 3
	}
	for code := range total {
		var v values
		for i, rest := 0, code; i < n; i, rest = i+1, rest/3 {
			switch rest % 3 {
			case 1:
				v = v.set(usageAttributes[i].attribute, boolValue(true))
			case 2:
				v = v.set(usageAttributes[i].attribute, boolValue(false))
			}
		}
		f(v, wishOf(v))
	}
}

// TestUsageAttackP1 makes keys from every template of usage there is, anywhere, and holds what they may do against the rule: one set or a pair that does not
// wrap, of those that the template asks for, nothing that it denies.
func TestUsageAttackP1(t *testing.T) {
	single := map[usage]bool{}
	for _, set := range []usage{useSign, useEncrypt, useWrap, useDerive} {
		single[set] = true
	}
	within := func(u usage, token bool, in place, keyType ck.KeyType) bool {
		for set := range single {
			if u&^set == 0 {
				return true
			}
		}
		return in != inSoftware && keyType == ck.CKK_RSA && u&^(useSign|useEncrypt) == 0 || in == inSession && keyType == ck.CKK_EC && u&^(useSign|useDerive) == 0
	}
	made := 0
	for _, table := range classTables {
		if !secretClass(table.class) {
			continue
		}
		for _, in := range []place{inSession, inSoftware, inHardware} {
			eachWish(func(v values, w wish) {
				for i := range v {
					if table.byType[v[i].Type] == nil {
						return
					}
				}
				have := halves[table.class]
				u, rv := w.choose(table.keyType, in, have)
				if rv != ck.CKR_OK {
					if u != 0 {
						t.Fatalf("%v %v in %d, %v: %v with %b", table.class, table.keyType, in, w, rv, u)
					}
					return
				}
				made++
				token := in != inSession
				switch {
				case !within(u, token, in, table.keyType):
					t.Fatalf("%v %v in %d: %+v gives %b", table.class, table.keyType, in, w, u)
				case token && u&(useWrap|useDerive) != 0:
					t.Fatalf("a key of the KMS wraps or derives: %+v gives %b", w, u)
				case u&w.denied != 0:
					t.Fatalf("%+v gives %b, which it denies", w, u)
				case u&^have != 0:
					t.Fatalf("%v may %b", table.class, u)
				case w.asked != 0 && u != 0 && !asksFor(w.asked, u):
					t.Fatalf("%+v gives %b, which it does not ask for", w, u)
				case token && u == 0:
					t.Fatalf("%+v gives a key of the KMS that can do nothing", w)
				}
				// The object says so.
				kept := withKey(table, v.clone(), u, keyOrigin{})
				if usageIn(kept) != u {
					t.Fatalf("a key that may %b says %b", u, usageIn(kept))
				}
			})
		}
	}
	if made < 1000 {
		t.Errorf("only %d keys were made", made)
	}
}

// asksFor says whether each set that u is of was asked for.
func asksFor(asked, u usage) bool {
	for _, set := range []usage{useSign, useEncrypt, useWrap, useDerive} {
		if u&set != 0 && asked&set == 0 {
			return false
		}
	}
	return true
}

// TestUsageOfPrograms says what keys the templates of real programs give. What each sends was seen with pkcs11-spy.
func TestUsageOfPrograms(t *testing.T) {
	for _, test := range []struct {
		program         string
		keyType         ck.KeyType
		private, public usage
		software        usage
		hardware        usage
		session         usage
	}{
		{"pkcs11-tool --keypairgen rsa", ck.CKK_RSA, maySign | mayDecrypt, mayVerify | mayEncrypt, useSign, useSign | useEncrypt, useSign | useEncrypt},
		{"pkcs11-tool --keypairgen EC", ck.CKK_EC, maySign | mayDerive, mayVerify | mayDerive, useSign, useSign, useSign | useDerive},
		{"p11tool --generate-ecdsa", ck.CKK_EC, maySign, mayVerify, useSign, useSign, useSign},
		{"certutil -S", ck.CKK_RSA, maySign | mayDecrypt | mayUnwrap, mayVerify | mayEncrypt, useSign, useSign | useEncrypt, useSign | useEncrypt},
		{"keytool -genkeypair", ck.CKK_RSA, 0, 0, useSign, useSign, useSign},
		{"decryption only", ck.CKK_RSA, mayDecrypt, mayEncrypt, useEncrypt, useEncrypt, useEncrypt},
		{"the public half says it", ck.CKK_RSA, 0, mayEncrypt, useEncrypt, useEncrypt, useEncrypt},
		{"derivation only", ck.CKK_EC, mayDerive, 0, 0, 0, useDerive},
		{"unwrapping only", ck.CKK_RSA, mayUnwrap, mayWrap, 0, 0, useWrap},
	} {
		w := ofPair(wish{asked: test.private}, wish{asked: test.public})
		have := halves[ck.CKO_PRIVATE_KEY] | halves[ck.CKO_PUBLIC_KEY]
		for in, want := range map[place]usage{inSoftware: test.software, inHardware: test.hardware, inSession: test.session} {
			u, rv := w.choose(test.keyType, in, have)
			if u != want || (want == 0) != (rv == ck.CKR_TEMPLATE_INCONSISTENT) {
				t.Errorf("%s in %d: %b, %v; want %b", test.program, in, u, rv, want)
			}
		}
	}
}

func TestKMSUsages(t *testing.T) {
	for _, u := range []usage{useSign, useEncrypt, useSign | useEncrypt} {
		first, second := kmsUsages(u)
		if first == second || ofKMS(first, second) != u {
			t.Errorf("%b is %q and %q", u, first, second)
		}
	}
	if first, second := kmsUsages(mayVerify | maySign); first != kmswire.SignVerify || second != "" {
		t.Errorf("%q, %q", first, second)
	}
}

// TestPublicUsage says that a public key that wraps does nothing else.
func TestPublicUsage(t *testing.T) {
	for _, keyType := range []ck.KeyType{ck.CKK_RSA, ck.CKK_EC} {
		for _, token := range []bool{false, true} {
			eachWish(func(_ values, w wish) {
				u, rv := w.choosePublic(keyType, token)
				if rv != ck.CKR_OK {
					return
				}
				if u&mayWrap != 0 && (u != mayWrap || token || w.asked&mayWrap == 0) || u&^halves[ck.CKO_PUBLIC_KEY] != 0 || u&w.denied != 0 {
					t.Fatalf("%+v gives %b", w, u)
				}
			})
		}
	}
}
