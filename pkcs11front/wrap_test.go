package pkcs11front

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"testing"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
	"github.com/keyward/keyward/pkcs11front/sessionkey"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// leaving adds a secret session key that may be wrapped.
func (b *bench) leaving(t ck.KeyType, octets []byte, u usage) handle {
	h := b.secret(t, octets, u)
	b.keys[h].f.extractable = true
	return h
}

// wrapping adds an AES key that wraps, made here.
func (b *bench) wrapping(octets []byte) handle {
	h := b.secret(ck.CKK_AES, octets, mayWrap|mayUnwrap)
	b.keys[h].values = map[ck.Attribute]uint64{ck.CKA_ALWAYS_SENSITIVE: 1}
	return h
}

// TestWrapVectors: RFC 3394 §4.6 and RFC 5649 §6, both ways.
func TestWrapVectors(t *testing.T) {
	b := newBench(t)
	for _, v := range []struct {
		m              ck.Mechanism
		kek, key, blob string
	}{
		{ck.CKM_AES_KEY_WRAP, "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F", "00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F",
			"28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21"},
		{ck.CKM_AES_KEY_WRAP_PAD, "5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8", "c37b7e6492584340bed12207808941155068f738", "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a"},
		{ck.CKM_AES_KEY_WRAP_KWP, "5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8", "466f7250617369", "afbeb0f07dfbf5419200f2ccb50bb24f"},
	} {
		kek := b.wrapping(unhex(t, v.kek))
		k := b.leaving(ck.CKK_GENERIC_SECRET, unhex(t, v.key), maySign|mayVerify)
		for _, r := range []room{-1, 1} {
			a := b.call("C_WrapKey", mech{m: v.m}, kek, k, r)
			if _, n := a.result(t); n != len(v.blob)/2 {
				t.Errorf("%v needs %d octets", v.m, n)
			}
		}
		if got := b.do("C_WrapKey", mech{m: v.m}, kek, k, room(100)); !bytes.Equal(got, unhex(t, v.blob)) {
			t.Errorf("%v: %x", v.m, got)
		}
		back := b.doHandle("C_UnwrapKey", mech{m: v.m}, kek, octets(unhex(t, v.blob)), keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_GENERIC_SECRET, withTrue(ck.CKA_SIGN, ck.CKA_VERIFY)))
		if !bytes.Equal(b.keys[back].octets, unhex(t, v.key)) {
			t.Errorf("%v: not what was wrapped", v.m)
		}
		spoiled := unhex(t, v.blob)
		for i := range spoiled {
			spoiled[i] ^= 1
			b.refused(ck.CKR_WRAPPED_KEY_INVALID, "C_UnwrapKey", mech{m: v.m}, kek, octets(spoiled), keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_GENERIC_SECRET))
			b.refused(ck.CKR_WRAPPED_KEY_INVALID, "C_UnwrapKey", mech{m: v.m}, kek, octets(spoiled[:i]), keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_GENERIC_SECRET))
			spoiled[i] ^= 1
		}
	}
}

// TestWrapPrivateKeys: RSA and EC keys travel as PKCS #8 under AES-KWP.
func TestWrapPrivateKeys(t *testing.T) {
	b := newBench(t)
	kek := b.wrapping(message(32))
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []*goKey{
		{cls: ck.CKO_PRIVATE_KEY, rsa: testRSA(), f: keyFacts{keyType: ck.CKK_RSA, bits: 2048, usage: maySign, extractable: true}},
		{cls: ck.CKO_PRIVATE_KEY, ec: ec, f: keyFacts{keyType: ck.CKK_EC, bits: 384, usage: maySign, extractable: true}},
	} {
		h := b.add(k)
		blob := b.do("C_WrapKey", mech{m: ck.CKM_AES_KEY_WRAP_KWP}, kek, h, room(4000))
		back := b.keys[b.doHandle("C_UnwrapKey", mech{m: ck.CKM_AES_KEY_WRAP_KWP}, kek, octets(blob), keyTemplate(ck.CKO_PRIVATE_KEY, k.f.keyType, withTrue(ck.CKA_SIGN)))]
		if k.rsa != nil && !k.rsa.Equal(back.rsa) || k.ec != nil && !k.ec.Equal(back.ec) {
			t.Error("another key came back")
		}
		if back.f.extractable || back.values[ck.CKA_SENSITIVE] != 1 || back.f.usage != maySign {
			t.Errorf("it came back with %v", back.values)
		}
		// Some fill PKCS #8 with zeros; anything else behind it is no key.
		der, err := x509.MarshalPKCS8PrivateKey(map[bool]any{true: k.rsa, false: k.ec}[k.rsa != nil])
		if err != nil {
			t.Fatal(err)
		}
		der = append(der, make([]byte, 16-len(der)%8)...)
		kw, err := b.keys[kek].look().(localKey).secretKey().Wrap(false, der)
		if err != nil {
			t.Fatal(err)
		}
		b.doHandle("C_UnwrapKey", mech{m: ck.CKM_AES_KEY_WRAP}, kek, octets(kw), keyTemplate(ck.CKO_PRIVATE_KEY, k.f.keyType, withTrue(ck.CKA_SIGN)))
		der[len(der)-1] = 1
		if got := withoutZeros(der); len(got) != len(der) {
			t.Error("what is not zero was taken away")
		}
		oaep := mech{m: ck.CKM_RSA_PKCS_OAEP, param: append(numbers(uint64(ck.CKM_SHA256), ck.CKG_MGF1_SHA256, 1), sized(nil)...)}
		pub := b.add(&goKey{cls: ck.CKO_PUBLIC_KEY, rsa: testRSA(), f: keyFacts{keyType: ck.CKK_RSA, bits: 2048, usage: mayWrap}})
		k.open = true
		b.refused(ck.CKR_KEY_SIZE_RANGE, "C_WrapKey", oaep, pub, h, room(4000))
	}
}

// TestWrapRSA: secret keys travel under RSA-OAEP, and come in under PKCS #1 v1.5 too.
func TestWrapRSA(t *testing.T) {
	b := newBench(t)
	pub := b.add(&goKey{cls: ck.CKO_PUBLIC_KEY, rsa: testRSA(), f: keyFacts{keyType: ck.CKK_RSA, bits: 2048, usage: mayWrap}})
	prv := b.add(&goKey{cls: ck.CKO_PRIVATE_KEY, rsa: testRSA(), f: keyFacts{keyType: ck.CKK_RSA, bits: 2048, usage: mayUnwrap}})
	k := b.leaving(ck.CKK_AES, message(32), mayEncrypt|mayDecrypt)
	b.keys[k].open = true
	oaep := mech{m: ck.CKM_RSA_PKCS_OAEP, param: append(numbers(uint64(ck.CKM_SHA_1), ck.CKG_MGF1_SHA1, 1), sized(nil)...)}
	blob := b.do("C_WrapKey", oaep, pub, k, room(256))
	template := keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_AES, withTrue(ck.CKA_ENCRYPT, ck.CKA_DECRYPT))
	if back := b.doHandle("C_UnwrapKey", oaep, prv, octets(blob), template); !bytes.Equal(b.keys[back].octets, b.keys[k].octets) {
		t.Error("another key came back")
	}
	blob[9] ^= 1
	b.refused(ck.CKR_WRAPPED_KEY_INVALID, "C_UnwrapKey", oaep, prv, octets(blob), template)
	b.refused(ck.CKR_WRAPPED_KEY_LEN_RANGE, "C_UnwrapKey", oaep, prv, octets(blob[1:]), template)
	b.refused(ck.CKR_MECHANISM_INVALID, "C_WrapKey", mech{m: ck.CKM_RSA_PKCS}, pub, k, room(256))

	blob = pkcs1Encrypted(&testRSA().PublicKey, b.keys[k].octets)
	pkcs1 := mech{m: ck.CKM_RSA_PKCS}
	b.refused(ck.CKR_TEMPLATE_INCOMPLETE, "C_UnwrapKey", pkcs1, prv, octets(blob), template)
	if back := b.doHandle("C_UnwrapKey", pkcs1, prv, octets(blob), append(template, withNumber(ck.CKA_VALUE_LEN, 32)...)); !bytes.Equal(b.keys[back].octets, b.keys[k].octets) {
		t.Error("another key came back")
	}
}

// TestAttackP7Unwrap is Bleichenbacher's attack by C_UnwrapKey: bad padding, and a key of another length, give a key like any other, and the same each time.
func TestAttackP7Unwrap(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	prv := b.add(&goKey{cls: ck.CKO_PRIVATE_KEY, rsa: testRSA(), f: keyFacts{keyType: ck.CKK_RSA, bits: 2048, usage: mayUnwrap}})
	template := keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_AES, withTrue(ck.CKA_ENCRYPT, ck.CKA_DECRYPT), withNumber(ck.CKA_VALUE_LEN, 32))
	seen := map[string]int{}
	for i := range 300 {
		blob := message(256)
		blob[0] = 0
		if i%3 == 0 { // good padding, the wrong length
			blob = pkcs1Encrypted(&testRSA().PublicKey, message(i%31))
		}
		for range 2 {
			h := b.doHandle("C_UnwrapKey", mech{m: ck.CKM_RSA_PKCS}, prv, octets(blob), template)
			k := b.keys[h].octets
			if len(k) != 32 {
				t.Fatalf("a key of %d octets", len(k))
			}
			seen[string(k)]++
		}
	}
	if len(seen) != 300 {
		t.Errorf("%d keys", len(seen))
	}
}

// secretWorld is a session in which an attacker may make any call. target is what it wants to know: an extractable key, the most that a rule-abiding program
// leaves open, under a wrapping key that was made here.
type secretWorld struct {
	*bench
	kek, target handle
	secret      []byte
}

func newSecretWorld(t *testing.T) *secretWorld {
	b := newBench(t)
	w := &secretWorld{bench: b, secret: message(32)}
	w.kek = b.wrapping(message(32))
	w.target = b.leaving(ck.CKK_AES, w.secret, mayEncrypt|mayDecrypt)
	return w
}

// TestAttackP1 wraps a key and decrypts the blob under the same key.
func TestAttackP1(t *testing.T) {
	w := newSecretWorld(t)
	blob := w.do("C_WrapKey", mech{m: ck.CKM_AES_KEY_WRAP}, w.kek, w.target, room(100))
	for _, m := range []ck.Mechanism{ck.CKM_AES_ECB, ck.CKM_AES_CBC, ck.CKM_AES_CTR, ck.CKM_AES_GCM} {
		w.refused(ck.CKR_KEY_FUNCTION_NOT_PERMITTED, "C_DecryptInit", mech{m: m}, w.kek)
		w.refused(ck.CKR_KEY_FUNCTION_NOT_PERMITTED, "C_EncryptInit", mech{m: m}, w.kek)
	}
	w.refused(ck.CKR_MECHANISM_INVALID, "C_DecryptInit", mech{m: ck.CKM_AES_KEY_WRAP}, w.target)
	// Were there an object with both, it would not wrap or unwrap.
	both := w.bench.secret(ck.CKK_AES, message(32), mayWrap|mayUnwrap|mayDecrypt)
	w.refused(ck.CKR_KEY_FUNCTION_NOT_PERMITTED, "C_WrapKey", mech{m: ck.CKM_AES_KEY_WRAP}, both, w.target, room(100))
	w.refused(ck.CKR_KEY_FUNCTION_NOT_PERMITTED, "C_UnwrapKey", mech{m: ck.CKM_AES_KEY_WRAP}, both, octets(blob), keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_AES))
}

// TestAttackP2 unwraps to a key with attributes that it must not have.
func TestAttackP2(t *testing.T) {
	w := newSecretWorld(t)
	blob := octets(w.do("C_WrapKey", mech{m: ck.CKM_AES_KEY_WRAP}, w.kek, w.target, room(100)))
	kw := mech{m: ck.CKM_AES_KEY_WRAP}
	for _, a := range []attrs{withTrue(ck.CKA_WRAP), withTrue(ck.CKA_UNWRAP), withTrue(ck.CKA_DERIVE), withTrue(ck.CKA_TOKEN), withTrue(ck.CKA_TRUSTED), withTrue(ck.CKA_LOCAL), withFalse(ck.CKA_ALWAYS_SENSITIVE), withTrue(ck.CKA_NEVER_EXTRACTABLE)} {
		if r := w.call("C_UnwrapKey", kw, w.kek, blob, keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_AES, a)); r.rv != ck.CKR_TEMPLATE_INCONSISTENT && r.rv != ck.CKR_ATTRIBUTE_READ_ONLY {
			t.Errorf("%v: %v", a[0].Type, r.rv)
		}
	}
	for _, a := range []attrs{withTrue(ck.CKA_EXTRACTABLE), withFalse(ck.CKA_SENSITIVE)} {
		w.refused(ck.CKR_TEMPLATE_INCONSISTENT, "C_UnwrapKey", kw, w.kek, blob, keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_AES, a))
	}
	k := w.keys[w.doHandle("C_UnwrapKey", kw, w.kek, blob, keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_AES, withTrue(ck.CKA_ENCRYPT, ck.CKA_DECRYPT, ck.CKA_SENSITIVE, ck.CKA_UNWRAP, ck.CKA_DERIVE), withFalse(ck.CKA_EXTRACTABLE, ck.CKA_WRAP)))]
	if k.f.usage != mayEncrypt|mayDecrypt || k.f.extractable || k.open || k.values[ck.CKA_SENSITIVE] != 1 {
		t.Errorf("it came back with %v", k.values)
	}
	// A part of a key is none (P6), and a key is not another kind of object.
	w.refused(ck.CKR_TEMPLATE_INCONSISTENT, "C_UnwrapKey", kw, w.kek, blob, keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_AES, withNumber(ck.CKA_VALUE_LEN, 16)))
	w.refused(ck.CKR_TEMPLATE_INCONSISTENT, "C_UnwrapKey", kw, w.kek, blob, keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_DES3))
	w.refused(ck.CKR_TEMPLATE_INCONSISTENT, "C_UnwrapKey", kw, w.kek, blob, keyTemplate(ck.CKO_DATA, ck.CKK_AES))
	w.refused(ck.CKR_TEMPLATE_INCOMPLETE, "C_UnwrapKey", kw, w.kek, blob, withNumber(ck.CKA_CLASS, uint64(ck.CKO_SECRET_KEY)))
}

// TestAttackP3 makes a Trojan copy in several steps: the wrapping key itself leaves under a second one, comes back as a key that decrypts, and takes the wrapping off
// the target block by block; or a derived key is made twice, once to wrap and once to decrypt.
func TestAttackP3(t *testing.T) {
	w := newSecretWorld(t)
	kw := mech{m: ck.CKM_AES_KEY_WRAP}
	w.keys[w.kek].f.extractable = true
	second := w.bench.secret(ck.CKK_AES, message(32), mayWrap|mayUnwrap)
	w.refused(ck.CKR_KEY_NOT_WRAPPABLE, "C_WrapKey", kw, second, w.kek, room(100))
	base := w.add(&goKey{cls: ck.CKO_PRIVATE_KEY, ec: mustEC(t), f: keyFacts{keyType: ck.CKK_EC, bits: 256, curve: "P-256", usage: mayDerive, extractable: true}})
	w.refused(ck.CKR_KEY_NOT_WRAPPABLE, "C_WrapKey", mech{m: ck.CKM_AES_KEY_WRAP_KWP}, second, base, room(1000))
	// Narrowed to nothing it is the same key still.
	narrowed := w.bench.secret(ck.CKK_AES, message(32), 0)
	w.keys[narrowed].f.extractable = true
	w.refused(ck.CKR_KEY_NOT_WRAPPABLE, "C_WrapKey", kw, second, narrowed, room(100))
	// The other way round: a data key that leaves does not come back as one that wraps.
	blob := octets(w.do("C_WrapKey", kw, w.kek, w.target, room(100)))
	for _, a := range []ck.Attribute{ck.CKA_WRAP, ck.CKA_UNWRAP, ck.CKA_DERIVE} {
		w.refused(ck.CKR_TEMPLATE_INCONSISTENT, "C_UnwrapKey", kw, w.kek, blob, keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_AES, withTrue(a)))
		w.refused(ck.CKR_TEMPLATE_INCONSISTENT, "C_DeriveKey", ecdhMech(nil, ck.CKD_NULL, mustEC(t)), base, keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_AES, withTrue(a), withNumber(ck.CKA_VALUE_LEN, 32)))
	}
	// And what came back does not leave again, to lose more on the way.
	copied := w.doHandle("C_UnwrapKey", kw, w.kek, blob, keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_AES, withTrue(ck.CKA_SIGN, ck.CKA_VERIFY)))
	w.refused(ck.CKR_KEY_UNEXTRACTABLE, "C_WrapKey", kw, w.kek, copied, room(100))
}

// TestAttackP4 derives a second time what was derived as a sensitive key, to read it out.
func TestAttackP4(t *testing.T) {
	b := newBench(t)
	peer := mustEC(t)
	base := b.add(&goKey{cls: ck.CKO_PRIVATE_KEY, ec: mustEC(t), f: keyFacts{keyType: ck.CKK_EC, bits: 256, curve: "P-256", usage: mayDerive, extractable: true}})
	m := ecdhMech(nil, ck.CKD_NULL, peer)
	template := keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_GENERIC_SECRET, withTrue(ck.CKA_SIGN))
	k := b.keys[b.doHandle("C_DeriveKey", m, base, template)]
	if k.f.extractable || k.open {
		t.Error("a derived key can be read")
	}
	for _, a := range []attrs{withTrue(ck.CKA_EXTRACTABLE), withFalse(ck.CKA_SENSITIVE), append(withTrue(ck.CKA_EXTRACTABLE), withFalse(ck.CKA_SENSITIVE)...)} {
		b.refused(ck.CKR_TEMPLATE_INCONSISTENT, "C_DeriveKey", m, base, append(template, a...))
	}
	b.keys[base].open = true // whoever can read the base key could compute it anyway
	k = b.keys[b.doHandle("C_DeriveKey", m, base, append(append(template, withTrue(ck.CKA_EXTRACTABLE)...), withFalse(ck.CKA_SENSITIVE)...))]
	if !k.open {
		t.Error("a key derived from one that is no secret can't be read")
	}
}

// TestAttackP5 wraps keys under a key of the attacker's: a public key whose private half he has, or a secret that he knows.
func TestAttackP5(t *testing.T) {
	b := newBench(t)
	public := b.add(&goKey{cls: ck.CKO_PUBLIC_KEY, rsa: testRSA(), f: keyFacts{keyType: ck.CKK_RSA, bits: 2048, usage: mayWrap}})
	known := b.secret(ck.CKK_AES, make([]byte, 32), mayWrap|mayUnwrap)
	oaep := mech{m: ck.CKM_RSA_PKCS_OAEP, param: append(numbers(uint64(ck.CKM_SHA_1), ck.CKG_MGF1_SHA1, 1), sized(nil)...)}
	kwp := mech{m: ck.CKM_AES_KEY_WRAP_KWP}
	prv, _ := b.rsaPair(maySign, mayVerify)
	kms := b.add(&goKey{cls: ck.CKO_SECRET_KEY, octets: message(32), f: keyFacts{keyType: ck.CKK_AES, bits: 256, token: true, extractable: true, usage: mayEncrypt | mayDecrypt}})
	plain := b.secret(ck.CKK_AES, message(32), mayEncrypt|mayDecrypt) // made without CKA_EXTRACTABLE
	trusting := b.leaving(ck.CKK_AES, message(32), mayEncrypt|mayDecrypt)
	b.keys[trusting].values = map[ck.Attribute]uint64{ck.CKA_WRAP_WITH_TRUSTED: 1}
	sensitive := b.leaving(ck.CKK_AES, message(32), mayEncrypt|mayDecrypt)
	for _, c := range []struct {
		target handle
		want   ck.RV
	}{{prv, ck.CKR_KEY_UNEXTRACTABLE}, {kms, ck.CKR_KEY_UNEXTRACTABLE}, {plain, ck.CKR_KEY_UNEXTRACTABLE}, {trusting, ck.CKR_KEY_NOT_WRAPPABLE}, {sensitive, ck.CKR_KEY_NOT_WRAPPABLE}} {
		b.refused(c.want, "C_WrapKey", oaep, public, c.target, room(4000))
		b.refused(c.want, "C_WrapKey", kwp, known, c.target, room(4000))
	}
	// A key of the KMS wraps nothing either, whatever its object says.
	b.keys[kms].f.usage = mayWrap
	b.refused(ck.CKR_KEY_FUNCTION_NOT_PERMITTED, "C_WrapKey", kwp, kms, plain, room(4000))
	// Nor does a key that encrypts stand in for one that wraps.
	_, kmsPub := b.rsaPair(mayDecrypt, mayEncrypt)
	b.refused(ck.CKR_KEY_FUNCTION_NOT_PERMITTED, "C_WrapKey", oaep, kmsPub, plain, room(4000))
}

// TestAttackP6 uses weak ways to wrap and to derive: none is there.
func TestAttackP6(t *testing.T) {
	w := newSecretWorld(t)
	for _, m := range []ck.Mechanism{ck.CKM_AES_ECB, ck.CKM_AES_CBC, ck.CKM_AES_CBC_PAD, ck.CKM_AES_CTR, ck.CKM_DES_ECB, ck.CKM_DES3_ECB, ck.CKM_DES3_CBC_PAD, ck.CKM_RSA_X_509, ck.CKM_RSA_PKCS} {
		w.refused(ck.CKR_MECHANISM_INVALID, "C_WrapKey", mech{m: m}, w.kek, w.target, room(100))
	}
	for _, m := range []ck.Mechanism{ck.CKM_AES_ECB, ck.CKM_AES_CBC, ck.CKM_AES_CBC_PAD, ck.CKM_AES_CTR, ck.CKM_DES3_ECB, ck.CKM_RSA_X_509} {
		w.refused(ck.CKR_MECHANISM_INVALID, "C_UnwrapKey", mech{m: m}, w.kek, octets(message(32)), keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_AES))
	}
	for _, m := range []ck.Mechanism{ck.CKM_CONCATENATE_BASE_AND_KEY, ck.CKM_CONCATENATE_BASE_AND_DATA, ck.CKM_CONCATENATE_DATA_AND_BASE, ck.CKM_XOR_BASE_AND_DATA,
		ck.CKM_EXTRACT_KEY_FROM_KEY, ck.CKM_AES_ECB_ENCRYPT_DATA, ck.CKM_AES_CBC_ENCRYPT_DATA, ck.CKM_SHA256_KEY_DERIVATION, ck.CKM_MD5_KEY_DERIVATION} {
		w.refused(ck.CKR_MECHANISM_INVALID, "C_DeriveKey", mech{m: m}, w.target, keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_AES))
	}
	// Nor does a short RSA key wrap.
	short := keyFacts{keyType: ck.CKK_RSA, bits: 1024, usage: mayWrap}
	pub := w.add(&goKey{cls: ck.CKO_PUBLIC_KEY, rsa: testRSA(), f: short})
	short.usage = mayUnwrap
	prv := w.add(&goKey{cls: ck.CKO_PRIVATE_KEY, rsa: testRSA(), f: short})
	oaep := mech{m: ck.CKM_RSA_PKCS_OAEP, param: join(numbers(uint64(ck.CKM_SHA256), ck.CKG_MGF1_SHA256, 1), sized(nil))}
	w.refused(ck.CKR_WRAPPING_KEY_SIZE_RANGE, "C_WrapKey", oaep, pub, w.target, room(4000))
	for _, m := range []mech{oaep, {m: ck.CKM_RSA_PKCS}} {
		w.refused(ck.CKR_UNWRAPPING_KEY_SIZE_RANGE, "C_UnwrapKey", m, prv, octets(message(128)), keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_AES))
	}
	// A derived key of a few octets could be found by trying, and then the next few.
	base := w.add(&goKey{cls: ck.CKO_PRIVATE_KEY, ec: mustEC(t), f: keyFacts{keyType: ck.CKK_EC, bits: 256, curve: "P-256", usage: mayDerive}})
	for _, kdf := range []uint64{ck.CKD_NULL, ck.CKD_SHA256_KDF} {
		for _, n := range []uint64{1, 8, 15, 1 << 40} {
			w.refused(ck.CKR_ATTRIBUTE_VALUE_INVALID, "C_DeriveKey", ecdhMech(nil, kdf, mustEC(t)), base, keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_GENERIC_SECRET, withNumber(ck.CKA_VALUE_LEN, n)))
		}
	}
	for m := range mechanismRows {
		switch m {
		case ck.CKM_DES_ECB, ck.CKM_DES3_ECB, ck.CKM_MD5, ck.CKM_MD5_RSA_PKCS, ck.CKM_XOR_BASE_AND_DATA:
			t.Errorf("%v is offered", m)
		}
	}
}

func mustEC(testing.TB) *ecdsa.PrivateKey { return mustCurve(elliptic.P256()) }

func mustCurve(c elliptic.Curve) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

func ecdhMech(shared []byte, kdf uint64, peer *ecdsa.PrivateKey) mech {
	pub, err := peer.PublicKey.ECDH()
	if err != nil {
		panic(err)
	}
	return mech{m: ck.CKM_ECDH1_DERIVE, param: join(numbers(kdf), sized(shared), sized(pub.Bytes()))}
}

// TestDerive: ECDH against Go's, with and without a KDF, and a point in both forms.
func TestDerive(t *testing.T) {
	b := newBench(t)
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		peer, _ := ecdsa.GenerateKey(curve, rand.Reader)
		base := b.add(&goKey{cls: ck.CKO_PRIVATE_KEY, ec: k, f: keyFacts{keyType: ck.CKK_EC, bits: curve.Params().BitSize, curve: curve.Params().Name, usage: mayDerive}})
		priv, _ := k.ECDH()
		z, err := priv.ECDH(must(peer.PublicKey.ECDH()))
		if err != nil {
			t.Fatal(err)
		}
		secret := keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_GENERIC_SECRET, withTrue(ck.CKA_SIGN))
		aes32 := keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_AES, withTrue(ck.CKA_ENCRYPT, ck.CKA_DECRYPT), withNumber(ck.CKA_VALUE_LEN, 32))
		if got := b.keys[b.doHandle("C_DeriveKey", ecdhMech(nil, ck.CKD_NULL, peer), base, secret)].octets; !bytes.Equal(got, z) {
			t.Errorf("%x, want %x", got, z)
		}
		if got := b.keys[b.doHandle("C_DeriveKey", ecdhMech(nil, ck.CKD_NULL, peer), base, aes32)].octets; !bytes.Equal(got, z[len(z)-32:]) {
			t.Errorf("%x, want the end of %x", got, z)
		}
		// ANSI X9.63, first block.
		want := hashOf(crypto.SHA512, join(z, []byte{0, 0, 0, 1}, []byte("shared")))[:32]
		m := ecdhMech([]byte("shared"), ck.CKD_SHA512_KDF, peer)
		if got := b.keys[b.doHandle("C_DeriveKey", m, base, aes32)].octets; !bytes.Equal(got, want) {
			t.Errorf("%x, want %x", got, want)
		}
		m.m = ck.CKM_ECDH1_COFACTOR_DERIVE
		if got := b.keys[b.doHandle("C_DeriveKey", m, base, aes32)].octets; !bytes.Equal(got, want) {
			t.Errorf("%x, want %x", got, want)
		}
		point := must(peer.PublicKey.ECDH()).Bytes()
		der := mech{m: ck.CKM_ECDH1_DERIVE, param: join(numbers(ck.CKD_SHA512_KDF), sized([]byte("shared")), sized(sessionkey.EncodePoint(point)))}
		if got := b.keys[b.doHandle("C_DeriveKey", der, base, aes32)].octets; !bytes.Equal(got, want) {
			t.Errorf("%x, want %x", got, want)
		}
		if a := b.call("C_DeriveKey2", der, base, aes32); a.rv != ck.CKR_OK || len(a.b) != 17 {
			t.Errorf("C_DeriveKey2: %v %x", a.rv, a.b)
		}
		// Points that are none of the curve's.
		point[5] ^= 1
		for _, p := range [][]byte{nil, {0}, {4}, point, point[1:], make([]byte, len(point)), message(4000)} {
			bad := mech{m: ck.CKM_ECDH1_DERIVE, param: join(numbers(ck.CKD_NULL), sized(nil), sized(p))}
			b.refused(ck.CKR_MECHANISM_PARAM_INVALID, "C_DeriveKey", bad, base, secret)
		}
		b.refused(ck.CKR_MECHANISM_PARAM_INVALID, "C_DeriveKey", ecdhMech([]byte("x"), ck.CKD_NULL, peer), base, secret)
		b.refused(ck.CKR_MECHANISM_PARAM_INVALID, "C_DeriveKey", ecdhMech(nil, 99, peer), base, secret)
		b.refused(ck.CKR_MECHANISM_PARAM_INVALID, "C_DeriveKey", ecdhMech(message(maxShared+1), ck.CKD_SHA256_KDF, peer), base, aes32)
		b.refused(ck.CKR_TEMPLATE_INCOMPLETE, "C_DeriveKey", ecdhMech(nil, ck.CKD_SHA256_KDF, peer), base, secret)
	}
}

func must[T *ecdh.PublicKey](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// testCMACRow: against SP 800-38B's own vectors, which are RFC 4493 §4.
func testCMACRow(b *bench, row *mechanismRow) {
	t := b.t
	k := b.secret(ck.CKK_AES, unhex(t, "2b7e151628aed2a6abf7158809cf4f3c"), maySign|mayVerify)
	in := unhex(t, "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")
	m := mech{m: row.mechanism, param: rowParam(row)}
	for n, want := range map[int]string{0: "bb1d6929e95937287fa37d129b756746", 16: "070a16b46b4d4144f79bdd9dd04a287c", 40: "dfa66747de9ae63030ca32611497c827", 64: "51f0bebf7e3b9d92fc49741779363cfe"} {
		mac := unhex(t, want)
		if row.parameter == parameterMAC {
			mac = mac[:10]
		}
		b.ok("C_SignInit", m, k)
		for _, p := range parts(in[:n]) {
			b.ok("C_SignUpdate", octets(p))
		}
		if got := b.do("C_SignFinal", room(16)); !bytes.Equal(got, mac) {
			t.Errorf("%x, want %x", got, mac)
		}
		b.ok("C_VerifyInit", m, k)
		b.ok("C_Verify", octets(in[:n]), octets(mac))
		mac[0] ^= 1
		b.ok("C_VerifyInit", m, k)
		b.refused(ck.CKR_SIGNATURE_INVALID, "C_Verify", octets(in[:n]), octets(mac))
	}
}

// TestDerivedSecrets: a program may read the secret that it agrees on, as most of them want to, but not one that was derived to be kept secret, by another
// derivation from the same key or a copy of it (P4).
func TestDerivedSecrets(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Keyward, softwareID)
	pair := func() (public []byte, private handle) {
		pub, private := u.pair(ck.CKM_EC_KEY_PAIR_GEN, all(text(ck.CKA_EC_PARAMS, p256Params)), all(is(ck.CKA_SIGN, ck.CKA_DERIVE)))
		return u.get(pub, ck.CKA_EC_POINT).Octets, private
	}
	derive := func(base handle, point []byte, template ...any) (handle, ck.RV) {
		r, rv := u.call(62, u.in(func(w *p11rpc.Writer) {
			w.Mechanism(p11rpc.Mechanism{Type: ck.CKM_ECDH1_DERIVE, Param: &p11rpc.ECDH1{KDF: ck.CKD_NULL, Public: point}})
			w.Ulong(uint64(base))
			w.Template(all(append(template, class(ck.CKO_SECRET_KEY), keyType(ck.CKK_GENERIC_SECRET), number(ck.CKA_VALUE_LEN, 32))...))
		}))
		if rv != ck.CKR_OK {
			return 0, rv
		}
		return handle(r.Ulong()), rv
	}
	mine, a := pair()
	theirs, b := pair()
	open := all(isNot(ck.CKA_SENSITIVE), is(ck.CKA_EXTRACTABLE))
	var secrets [2][]byte
	for i, side := range []struct {
		base  handle
		point []byte
	}{{a, theirs}, {b, mine}} {
		h, rv := derive(side.base, side.point, open)
		u.wantRV(ck.CKR_OK, rv)
		secrets[i] = bytes.Clone(u.get(h, ck.CKA_VALUE).Octets)
		if u.is(h, ck.CKA_ALWAYS_SENSITIVE) || u.is(h, ck.CKA_NEVER_EXTRACTABLE) {
			t.Error("it says that it always was secret")
		}
	}
	if len(secrets[0]) != 32 || !bytes.Equal(secrets[0], secrets[1]) {
		t.Errorf("%x and %x", secrets[0], secrets[1])
	}
	copied, rv := u.tryCopy(a)
	u.wantRV(ck.CKR_OK, rv)
	h, rv := derive(a, theirs)
	u.wantRV(ck.CKR_OK, rv)
	if !u.is(h, ck.CKA_SENSITIVE) || u.is(h, ck.CKA_EXTRACTABLE) || u.is(h, ck.CKA_ALWAYS_SENSITIVE) {
		t.Error("it is less secret than it should be")
	}
	later, rv := u.tryCopy(a)
	u.wantRV(ck.CKR_OK, rv)
	for _, base := range []handle{a, copied, later} {
		for _, template := range [][]p11rpc.Attribute{open, isNot(ck.CKA_SENSITIVE), is(ck.CKA_EXTRACTABLE)} {
			_, rv = derive(base, theirs, template)
			u.wantRV(ck.CKR_TEMPLATE_INCONSISTENT, rv)
		}
	}
	_, rv = derive(b, mine, open) // the other side is another key
	u.wantRV(ck.CKR_OK, rv)
}
