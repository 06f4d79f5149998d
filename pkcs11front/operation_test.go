package pkcs11front

import (
	"bytes"
	"crypto/elliptic"
	"testing"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// What each call of an operation does to it (PKCS #11 2.40 §5.2 and §5.8 to §5.13, 3.0 §5.8.1).

func TestOneOperationOfAKind(t *testing.T) {
	b := newBench(t)
	k := b.secret(ck.CKK_AES, message(32), mayEncrypt|mayDecrypt)
	ecb := mech{m: ck.CKM_AES_ECB}
	b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_Encrypt", octets(message(16)), room(16))
	b.ok("C_EncryptInit", ecb, k)
	b.refused(ck.CKR_OPERATION_ACTIVE, "C_EncryptInit", ecb, k)
	b.ok("C_DecryptInit", ecb, k) // another kind
	b.ok("C_DigestInit", mech{m: ck.CKM_SHA256})
	b.refused(ck.CKR_OPERATION_ACTIVE, "C_DigestInit", mech{m: ck.CKM_SHA256})
	b.do("C_Encrypt", octets(message(16)), room(16)) // the refused Init left the first one alone
	b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_EncryptFinal", room(16))
	// An Init without a mechanism ends what is active, and need not find anything.
	for range 2 {
		b.ok("C_DecryptInit", mech{null: true}, uint64(0))
		b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_Decrypt", octets(message(16)), room(16))
	}
	b.ok("C_DigestInit", mech{null: true})
	b.ok("C_DigestInit", mech{m: ck.CKM_SHA256})
	// A call for all of it is not the end of one in parts, and ends the operation as an error.
	b.ok("C_DigestUpdate", octets(message(16)))
	b.refused(ck.CKR_OPERATION_ACTIVE, "C_Digest", octets(message(16)), room(32))
	b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_DigestFinal", room(32))
	// A Final without parts is the end of an empty message.
	b.ok("C_DigestInit", mech{m: ck.CKM_SHA256})
	if got := b.do("C_DigestFinal", room(32)); got[0] != 0xe3 || got[31] != 0x55 {
		t.Errorf("SHA-256 of nothing is not %x", got)
	}
}

func TestInitRefusals(t *testing.T) {
	b := newBench(t)
	aes := b.secret(ck.CKK_AES, message(32), mayEncrypt)
	prv, pub := b.rsaPair(maySign, mayVerify)
	hw := b.add(&goKey{cls: ck.CKO_SECRET_KEY, octets: message(32), f: keyFacts{keyType: ck.CKK_AES, bits: 256, token: true, hardware: true, usage: mayEncrypt | mayDecrypt}})
	iv := bytes.Repeat([]byte{1}, 16)
	sha256 := uint64(ck.CKM_SHA256)
	for _, c := range []struct {
		want ck.RV
		call string
		m    mech
		key  handle
	}{
		{ck.CKR_MECHANISM_INVALID, "C_EncryptInit", mech{m: 0x7fffffff}, aes},
		{ck.CKR_MECHANISM_INVALID, "C_EncryptInit", mech{m: ck.CKM_SHA256}, aes},
		{ck.CKR_MECHANISM_INVALID, "C_EncryptInit", mech{m: ck.CKM_AES_KEY_WRAP}, aes},
		{ck.CKR_MECHANISM_INVALID, "C_EncryptInit", mech{m: ck.CKM_AES_KEY_GEN}, aes},
		{ck.CKR_KEY_HANDLE_INVALID, "C_EncryptInit", mech{m: ck.CKM_AES_ECB}, 999},
		{ck.CKR_KEY_TYPE_INCONSISTENT, "C_EncryptInit", mech{m: ck.CKM_RSA_PKCS}, aes},
		{ck.CKR_KEY_TYPE_INCONSISTENT, "C_SignInit", mech{m: ck.CKM_SHA256_HMAC}, aes},
		{ck.CKR_KEY_FUNCTION_NOT_PERMITTED, "C_DecryptInit", mech{m: ck.CKM_AES_ECB}, aes},
		{ck.CKR_KEY_FUNCTION_NOT_PERMITTED, "C_SignInit", mech{m: ck.CKM_RSA_PKCS}, pub},
		{ck.CKR_KEY_FUNCTION_NOT_PERMITTED, "C_DecryptInit", mech{m: ck.CKM_RSA_PKCS}, prv},
		{ck.CKR_MECHANISM_PARAM_INVALID, "C_EncryptInit", mech{m: ck.CKM_AES_CBC}, aes},
		{ck.CKR_MECHANISM_PARAM_INVALID, "C_EncryptInit", mech{m: ck.CKM_AES_CBC, param: iv[:15]}, aes},
		{ck.CKR_MECHANISM_PARAM_INVALID, "C_EncryptInit", mech{m: ck.CKM_AES_CTR, param: append(numbers(0), iv...)}, aes},
		{ck.CKR_MECHANISM_PARAM_INVALID, "C_EncryptInit", mech{m: ck.CKM_AES_CTR, param: append(numbers(129), iv...)}, aes},
		{ck.CKR_MECHANISM_PARAM_INVALID, "C_EncryptInit", mech{m: ck.CKM_AES_GCM, param: gcmParam(nil, nil, 128)}, aes},
		{ck.CKR_MECHANISM_PARAM_INVALID, "C_EncryptInit", mech{m: ck.CKM_AES_GCM, param: gcmParam(make([]byte, 257), nil, 128)}, aes},
		{ck.CKR_MECHANISM_PARAM_INVALID, "C_EncryptInit", mech{m: ck.CKM_AES_GCM, param: gcmParam(iv[:12], nil, 64)}, aes},
		{ck.CKR_MECHANISM_PARAM_INVALID, "C_EncryptInit", mech{m: ck.CKM_AES_GCM, param: gcmParam(iv[:12], nil, 1<<63+128)}, aes},
		{ck.CKR_MECHANISM_PARAM_INVALID, "C_EncryptInit", mech{m: ck.CKM_AES_GCM, param: gcmParam(iv[:12], make([]byte, maxAAD+1), 128)}, aes},
		{ck.CKR_MECHANISM_PARAM_INVALID, "C_EncryptInit", mech{m: ck.CKM_AES_GCM, param: gcmParam(iv, nil, 128)}, hw},
		{ck.CKR_OK, "C_EncryptInit", mech{m: ck.CKM_AES_GCM, param: gcmParam(iv[:12], nil, 128)}, hw},
		{ck.CKR_OK, "C_EncryptInit", mech{m: ck.CKM_AES_GCM, param: join(sized(iv), numbers(64), sized(nil), numbers(128))}, aes}, // ulIvBits means nothing
		{ck.CKR_MECHANISM_PARAM_INVALID, "C_SignInit", mech{m: ck.CKM_RSA_PKCS_PSS}, prv},
		{ck.CKR_MECHANISM_PARAM_INVALID, "C_SignInit", mech{m: ck.CKM_SHA512_RSA_PKCS_PSS, param: numbers(sha256, ck.CKG_MGF1_SHA256, 32)}, prv},
		{ck.CKR_MECHANISM_PARAM_INVALID, "C_SignInit", mech{m: ck.CKM_SHA256_RSA_PKCS_PSS, param: numbers(sha256, 99, 32)}, prv},
		{ck.CKR_MECHANISM_PARAM_INVALID, "C_SignInit", mech{m: ck.CKM_SHA256_RSA_PKCS_PSS, param: numbers(sha256, ck.CKG_MGF1_SHA256, 256-32-1)}, prv},
		{ck.CKR_MECHANISM_PARAM_INVALID, "C_SignInit", mech{m: ck.CKM_SHA256_RSA_PKCS_PSS, param: numbers(sha256, ck.CKG_MGF1_SHA256, 1<<63)}, prv},
		{ck.CKR_OK, "C_SignInit", mech{m: ck.CKM_SHA256_RSA_PKCS_PSS, param: numbers(sha256, ck.CKG_MGF1_SHA256, 256-32-2)}, prv},
	} {
		b.refused(c.want, c.call, c.m, c.key)
		if c.want != ck.CKR_OK && b.session.ops.active != [operationKinds]*operation{} {
			t.Errorf("%s with %v failed, and something is active", c.call, c.m.m)
		}
		b.session.ops.wipe()
	}
	// What the service refuses is refused by the Init.
	b.keys[prv].refuse = ck.CKR_KEY_FUNCTION_NOT_PERMITTED
	b.refused(ck.CKR_KEY_FUNCTION_NOT_PERMITTED, "C_SignInit", mech{m: ck.CKM_RSA_PKCS}, prv)
	b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_Sign", octets("x"), room(256))
}

// TestLengthQueries: a question for a length, and too little room, leave the operation as it is and do not use the key.
func TestLengthQueries(t *testing.T) {
	b := newBench(t)
	prv, pub := b.rsaPair(maySign|mayDecrypt, mayVerify|mayEncrypt)
	ecPrv, _ := b.ecPair(elliptic.P521())
	k := b.secret(ck.CKK_AES, message(32), mayEncrypt|mayDecrypt)
	oaep := mech{m: ck.CKM_RSA_PKCS_OAEP, param: append(numbers(uint64(ck.CKM_SHA_1), ck.CKG_MGF1_SHA1, 0), sized(nil)...)}
	gcm := mech{m: ck.CKM_AES_GCM, param: gcmParam(make([]byte, 12), nil, 96)}
	for _, c := range []struct {
		init string
		m    mech
		key  handle
		call string
		in   int
		size int
	}{
		{"C_SignInit", mech{m: ck.CKM_SHA256_RSA_PKCS}, prv, "C_Sign", 5, 256},
		{"C_SignInit", mech{m: ck.CKM_ECDSA_SHA256}, ecPrv, "C_Sign", 5, 132},
		{"C_EncryptInit", mech{m: ck.CKM_RSA_PKCS}, pub, "C_Encrypt", 5, 256},
		{"C_DecryptInit", mech{m: ck.CKM_RSA_PKCS}, prv, "C_Decrypt", 256, 256},
		{"C_DecryptInit", oaep, prv, "C_Decrypt", 256, 256},
		{"C_EncryptInit", gcm, k, "C_Encrypt", 5, 17},
		{"C_DecryptInit", gcm, k, "C_Decrypt", 17, 5},
		{"C_EncryptInit", mech{m: ck.CKM_AES_CBC_PAD, param: make([]byte, 16)}, k, "C_Encrypt", 32, 48},
		{"C_DecryptInit", mech{m: ck.CKM_AES_CBC_PAD, param: make([]byte, 16)}, k, "C_Decrypt", 32, 31},
		{"C_EncryptInit", mech{m: ck.CKM_AES_ECB}, k, "C_Encrypt", 32, 32},
		{"C_EncryptInit", mech{m: ck.CKM_AES_CTR, param: append(numbers(128), make([]byte, 16)...)}, k, "C_EncryptUpdate", 5, 5},
	} {
		b.ok(c.init, c.m, c.key)
		for range 2 {
			a := b.call(c.call, octets(message(c.in)), room(-1))
			if _, n := a.result(t); n != c.size {
				t.Errorf("%s by %v needs %d octets, not %d", c.call, c.m.m, n, c.size)
			}
		}
		if c.call != "C_Decrypt" {
			a := b.call(c.call, octets(message(c.in)), room(c.size-1))
			if _, n := a.result(t); n != c.size {
				t.Errorf("%s by %v needs %d octets, not %d", c.call, c.m.m, n, c.size)
			}
		}
		b.session.ops.wipe()
	}
	if b.uses != 0 {
		t.Errorf("keys were used %d times", b.uses)
	}
}

// TestResultThatDidNotFit: a result whose length only the key tells is kept for the call that fetches it, and the key is used once.
func TestResultThatDidNotFit(t *testing.T) {
	b := newBench(t)
	prv, pub := b.rsaPair(mayDecrypt, mayEncrypt)
	k := b.secret(ck.CKK_AES, message(16), mayEncrypt|mayDecrypt)
	pad := mech{m: ck.CKM_AES_CBC_PAD, param: make([]byte, 16)}
	oaep := mech{m: ck.CKM_RSA_PKCS_OAEP, param: append(numbers(uint64(ck.CKM_SHA256), ck.CKG_MGF1_SHA256, 1), sized(nil)...)}
	for _, c := range []struct {
		m        mech
		enc, dec handle
	}{{pad, k, k}, {oaep, pub, prv}} {
		b.ok("C_EncryptInit", c.m, c.enc)
		ct := b.do("C_Encrypt", octets("a secret"), room(256))
		b.ok("C_DecryptInit", c.m, c.dec)
		b.uses = 0
		for _, r := range []room{0, 7} {
			a := b.call("C_Decrypt", octets(ct), r)
			if _, n := a.result(t); n != 8 {
				t.Errorf("%v: needs %d octets", c.m.m, n)
			}
		}
		kept := b.session.ops.active[decrypting].kept
		if got := b.do("C_Decrypt", octets(ct), room(8)); string(got) != "a secret" {
			t.Errorf("%v: %q", c.m.m, got)
		}
		if b.uses != 1 || !bytes.Equal(kept, make([]byte, 8)) {
			t.Errorf("%v: the key was used %d times, and %q is left", c.m.m, b.uses, kept)
		}
		// Another ciphertext does not get it.
		b.ok("C_DecryptInit", c.m, c.dec)
		b.call("C_Decrypt", octets(ct), room(7))
		kept = b.session.ops.active[decrypting].kept
		ct[0] ^= 1
		b.refused(ck.CKR_OPERATION_ACTIVE, "C_Decrypt", octets(ct), room(256))
		if !bytes.Equal(kept, make([]byte, 8)) {
			t.Errorf("%v: %q is left", c.m.m, kept)
		}
		// Neither does one in parts.
		ct[0] ^= 1
		b.ok("C_DecryptInit", c.m, c.dec)
		b.do("C_DecryptUpdate", octets(ct), room(256))
		a := b.call("C_DecryptFinal", room(7))
		if _, n := a.result(t); n != 8 {
			t.Errorf("%v: needs %d octets", c.m.m, n)
		}
		if got := b.do("C_DecryptFinal", room(8)); string(got) != "a secret" {
			t.Errorf("%v: %q", c.m.m, got)
		}
	}
}

// TestEmptyResults: clients of p11-kit up to 0.24.1 say the same for a NULL pointer and for a buffer of no octets. A Final whose result is empty must be right for both.
func TestEmptyResults(t *testing.T) {
	b := newBench(t)
	k := b.secret(ck.CKK_AES, message(32), mayEncrypt|mayDecrypt)
	ecb := mech{m: ck.CKM_AES_ECB}
	for _, r := range []room{-1, 0} {
		b.ok("C_EncryptInit", ecb, k)
		b.do("C_EncryptUpdate", octets(message(16)), room(16))
		if a := b.call("C_EncryptFinal", r); !bytes.Equal(a.b, []byte{1, 0, 0, 0, 0}) {
			t.Errorf("%v %x", a.rv, a.b)
		}
		b.do("C_EncryptFinal", r) // once more
		b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_EncryptFinal", r)
		// And whoever does not ask again can go on.
		b.ok("C_EncryptInit", ecb, k)
		b.do("C_EncryptFinal", r)
		b.ok("C_EncryptInit", ecb, k)
		b.do("C_EncryptFinal", r)
		b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_DecryptFinal", r) // another call is no repeat
		b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_EncryptFinal", r) // nor is one after another
	}
	b.ok("C_EncryptInit", ecb, k)
	b.do("C_EncryptFinal", room(16))
	b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_EncryptFinal", room(16)) // it is known that the first was no question

	// An Update of which nothing comes yet is not done when it is a question.
	b.ok("C_EncryptInit", ecb, k)
	b.ok("C_EncryptUpdate", octets("half"), room(-1))
	b.do("C_EncryptUpdate", octets("half"), room(0))
	b.refused(ck.CKR_DATA_LEN_RANGE, "C_EncryptFinal", room(16))

	// An empty message that is not authentic is no success, whatever was meant.
	gcm := mech{m: ck.CKM_AES_GCM, param: gcmParam(make([]byte, 12), []byte("aad"), 128)}
	b.ok("C_EncryptInit", gcm, k)
	tag := b.do("C_Encrypt", octets{}, room(16))
	for _, r := range []room{-1, 0, 100} {
		b.ok("C_DecryptInit", gcm, k)
		b.do("C_Decrypt", octets(tag), r)
		if r < 1 {
			b.do("C_Decrypt", octets(tag), r)
		}
		tag[3] ^= 1
		b.ok("C_DecryptInit", gcm, k)
		b.refused(ck.CKR_ENCRYPTED_DATA_INVALID, "C_Decrypt", octets(tag), r)
		b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_Decrypt", octets(tag), r)
		tag[3] ^= 1
	}
	b.ok("C_DecryptInit", gcm, k)
	b.do("C_Decrypt", octets(tag), room(-1))
	tag[3] ^= 1
	b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_Decrypt", octets(tag), room(-1)) // a repeat has the same input
}

// TestGCMGivesNothingBeforeItsTag: neither one call nor parts give plaintext that was not checked.
func TestGCMGivesNothingBeforeItsTag(t *testing.T) {
	b := newBench(t)
	k := b.secret(ck.CKK_AES, message(32), mayEncrypt|mayDecrypt)
	gcm := mech{m: ck.CKM_AES_GCM, param: gcmParam(make([]byte, 12), nil, 128)}
	b.ok("C_EncryptInit", gcm, k)
	ct := b.do("C_Encrypt", octets(message(1000)), room(2000))
	ct[len(ct)-1] ^= 1
	b.ok("C_DecryptInit", gcm, k)
	for _, p := range parts(ct) {
		if got := b.do("C_DecryptUpdate", octets(p), room(2000)); len(got) > 0 {
			t.Fatal("plaintext before the tag")
		}
	}
	b.refused(ck.CKR_ENCRYPTED_DATA_INVALID, "C_DecryptFinal", room(2000))
	b.ok("C_DecryptInit", gcm, k)
	b.refused(ck.CKR_ENCRYPTED_DATA_LEN_RANGE, "C_Decrypt", octets(ct[:15]), room(2000))
}

// TestCounterEnds: a counter of fewer bits than the block does not wrap around.
func TestCounterEnds(t *testing.T) {
	b := newBench(t)
	k := b.secret(ck.CKK_AES, message(32), mayEncrypt|mayDecrypt)
	for _, c := range []struct {
		bits   uint64
		last   []byte // the counter's last octets
		blocks int    // that fit
	}{
		{1, []byte{0xfe}, 2}, {1, []byte{0xff}, 1}, {8, []byte{0xfd}, 3}, {32, []byte{0xff, 0xff, 0xff, 0xfc}, 4},
		{64, bytes.Repeat([]byte{0xff}, 8), 1}, {65, append([]byte{1}, bytes.Repeat([]byte{0xff}, 8)...), 1},
	} {
		iv := make([]byte, blockSize)
		copy(iv[blockSize-len(c.last):], c.last)
		m := mech{m: ck.CKM_AES_CTR, param: append(numbers(c.bits), iv...)}
		b.ok("C_EncryptInit", m, k)
		b.do("C_Encrypt", octets(message(blockSize*c.blocks)), room(1000))
		b.ok("C_EncryptInit", m, k)
		b.refused(ck.CKR_DATA_LEN_RANGE, "C_Encrypt", octets(message(blockSize*c.blocks+1)), room(1000))
		b.ok("C_EncryptInit", m, k)
		for range blockSize * c.blocks {
			b.do("C_EncryptUpdate", octets("x"), room(1))
		}
		b.refused(ck.CKR_DATA_LEN_RANGE, "C_EncryptUpdate", octets("x"), room(1))
	}
	for _, bits := range []uint64{66, 127, 128} {
		b.ok("C_EncryptInit", mech{m: ck.CKM_AES_CTR, param: append(numbers(bits), make([]byte, 16)...)}, k)
		b.do("C_Encrypt", octets(message(1000)), room(1000))
	}
	b.ok("C_EncryptInit", mech{m: ck.CKM_AES_CTR, param: append(numbers(128), bytes.Repeat([]byte{0xff}, 16)...)}, k)
	b.do("C_Encrypt", octets(message(1000)), room(1000)) // all of the block wraps around as it should
}

func TestLengths(t *testing.T) {
	b := newBench(t)
	prv, pub := b.rsaPair(maySign|mayDecrypt, mayVerify|mayEncrypt)
	ec, _ := b.ecPair(elliptic.P256())
	k := b.secret(ck.CKK_AES, message(32), mayEncrypt|mayDecrypt)
	iv := make([]byte, 16)
	oaep := mech{m: ck.CKM_RSA_PKCS_OAEP, param: append(numbers(uint64(ck.CKM_SHA256), ck.CKG_MGF1_SHA256, 1), sized(nil)...)}
	pss := mech{m: ck.CKM_RSA_PKCS_PSS, param: numbers(uint64(ck.CKM_SHA256), ck.CKG_MGF1_SHA256, 32)}
	for _, c := range []struct {
		want ck.RV
		init string
		m    mech
		key  handle
		call string
		in   int
	}{
		{ck.CKR_OK, "C_SignInit", mech{m: ck.CKM_RSA_PKCS}, prv, "C_Sign", 245},
		{ck.CKR_DATA_LEN_RANGE, "C_SignInit", mech{m: ck.CKM_RSA_PKCS}, prv, "C_Sign", 246},
		{ck.CKR_OK, "C_SignInit", mech{m: ck.CKM_ECDSA}, ec, "C_Sign", 64},
		{ck.CKR_DATA_LEN_RANGE, "C_SignInit", mech{m: ck.CKM_ECDSA}, ec, "C_Sign", 65},
		{ck.CKR_DATA_LEN_RANGE, "C_SignInit", mech{m: ck.CKM_ECDSA}, ec, "C_Sign", 0},
		{ck.CKR_DATA_LEN_RANGE, "C_SignInit", pss, prv, "C_Sign", 31},
		{ck.CKR_DATA_LEN_RANGE, "C_SignInit", pss, prv, "C_Sign", 33},
		{ck.CKR_OK, "C_EncryptInit", mech{m: ck.CKM_RSA_PKCS}, pub, "C_Encrypt", 245},
		{ck.CKR_DATA_LEN_RANGE, "C_EncryptInit", mech{m: ck.CKM_RSA_PKCS}, pub, "C_Encrypt", 246},
		{ck.CKR_OK, "C_EncryptInit", oaep, pub, "C_Encrypt", 190},
		{ck.CKR_DATA_LEN_RANGE, "C_EncryptInit", oaep, pub, "C_Encrypt", 191},
		{ck.CKR_ENCRYPTED_DATA_LEN_RANGE, "C_DecryptInit", oaep, prv, "C_Decrypt", 255},
		{ck.CKR_ENCRYPTED_DATA_LEN_RANGE, "C_DecryptInit", oaep, prv, "C_Decrypt", 257},
		{ck.CKR_ENCRYPTED_DATA_LEN_RANGE, "C_DecryptInit", mech{m: ck.CKM_RSA_PKCS}, prv, "C_Decrypt", 255},
		{ck.CKR_DATA_LEN_RANGE, "C_EncryptInit", mech{m: ck.CKM_AES_ECB}, k, "C_Encrypt", 17},
		{ck.CKR_DATA_LEN_RANGE, "C_EncryptInit", mech{m: ck.CKM_AES_CBC, param: iv}, k, "C_Encrypt", 17},
		{ck.CKR_ENCRYPTED_DATA_LEN_RANGE, "C_DecryptInit", mech{m: ck.CKM_AES_CBC, param: iv}, k, "C_Decrypt", 17},
		{ck.CKR_ENCRYPTED_DATA_LEN_RANGE, "C_DecryptInit", mech{m: ck.CKM_AES_CBC_PAD, param: iv}, k, "C_Decrypt", 17},
		{ck.CKR_ENCRYPTED_DATA_LEN_RANGE, "C_DecryptInit", mech{m: ck.CKM_AES_CBC_PAD, param: iv}, k, "C_Decrypt", 0},
	} {
		b.ok(c.init, c.m, c.key)
		b.refused(c.want, c.call, octets(message(c.in)), room(1000))
		b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, c.call, octets(message(c.in)), room(1000))
	}
}

// TestGatheredLimits: what an operation gathers is bounded, for each and for an application.
func TestGatheredLimits(t *testing.T) {
	b := newBench(t)
	k := b.secret(ck.CKK_AES, message(32), mayEncrypt)
	hw := b.add(&goKey{cls: ck.CKO_SECRET_KEY, octets: message(32), f: keyFacts{keyType: ck.CKK_AES, bits: 256, token: true, hardware: true, usage: mayEncrypt}})
	gcm := mech{m: ck.CKM_AES_GCM, param: gcmParam(make([]byte, 12), nil, 128)}
	part := octets(make([]byte, 16<<10))
	fill := func(n int) ck.RV {
		for range n / len(part) {
			if a := b.call("C_EncryptUpdate", part, room(0)); a.rv != ck.CKR_OK {
				return a.rv
			}
		}
		return ck.CKR_OK
	}
	b.ok("C_EncryptInit", gcm, hw)
	if rv := fill(64 << 10); rv != ck.CKR_OK {
		t.Fatal(rv)
	}
	b.refused(ck.CKR_DATA_LEN_RANGE, "C_EncryptUpdate", octets("x"), room(0))
	b.ok("C_EncryptInit", gcm, k)
	if rv := fill(1 << 20); rv != ck.CKR_DATA_LEN_RANGE {
		t.Fatal(rv)
	}
	fit := 0
	for rv := ck.CKR_OK; rv == ck.CKR_OK; fit++ {
		b.open()
		b.ok("C_EncryptInit", gcm, k)
		if rv = fill(960 << 10); rv != ck.CKR_OK && rv != ck.CKR_HOST_MEMORY {
			t.Fatal(rv)
		}
	}
	if fit < 13 || fit > 18 {
		t.Errorf("%d operations of 960 KiB fit", fit)
	}
	for _, s := range b.all {
		s.ops.wipe()
	}
	b.invariants()
}

// TestDualOperations: an Update of two operations is one of each, also when there was too little room at first.
func TestDualOperations(t *testing.T) {
	b := newBench(t)
	k := b.secret(ck.CKK_AES, message(32), mayEncrypt|mayDecrypt)
	mac := b.secret(ck.CKK_GENERIC_SECRET, message(32), maySign|mayVerify)
	in := message(64)
	ecb, sha, hm := mech{m: ck.CKM_AES_ECB}, mech{m: ck.CKM_SHA256}, mech{m: ck.CKM_SHA256_HMAC}
	b.ok("C_EncryptInit", ecb, k)
	b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_DigestEncryptUpdate", octets(in), room(64))
	b.ok("C_DigestInit", sha)
	b.ok("C_DigestEncryptUpdate", octets(in), room(-1))
	b.ok("C_DigestEncryptUpdate", octets(in), room(63))
	ct := b.do("C_DigestEncryptUpdate", octets(in), room(64))
	b.do("C_EncryptFinal", room(16))
	sum := b.do("C_DigestFinal", room(32))
	b.ok("C_DigestInit", sha)
	if want := b.do("C_Digest", octets(in), room(32)); !bytes.Equal(sum, want) {
		t.Error("the digest is not that of the plaintext")
	}
	b.ok("C_DecryptInit", ecb, k)
	b.ok("C_DigestInit", sha)
	if got := b.do("C_DecryptDigestUpdate", octets(ct), room(64)); !bytes.Equal(got, in) || !bytes.Equal(b.do("C_DigestFinal", room(32)), sum) {
		t.Error("decrypted and digested is not the same")
	}
	b.session.ops.wipe()
	b.ok("C_EncryptInit", ecb, k)
	b.ok("C_SignInit", hm, mac)
	b.do("C_SignEncryptUpdate", octets(in), room(64))
	s := b.do("C_SignFinal", room(32))
	b.ok("C_DecryptInit", ecb, k)
	b.ok("C_VerifyInit", hm, mac)
	b.do("C_DecryptVerifyUpdate", octets(ct), room(64))
	b.ok("C_VerifyFinal", octets(s))
}

func TestSessionCancel(t *testing.T) {
	b := newBench(t)
	k := b.secret(ck.CKK_AES, message(32), mayEncrypt|mayDecrypt)
	all := func() {
		b.ok("C_EncryptInit", mech{m: ck.CKM_AES_ECB}, k)
		b.ok("C_DecryptInit", mech{m: ck.CKM_AES_ECB}, k)
		b.ok("C_DigestInit", mech{m: ck.CKM_SHA256})
		b.ok("C_MessageEncryptInit", mech{m: ck.CKM_AES_GCM}, k)
		b.session.search = &search{}
	}
	all()
	b.ok("C_SessionCancel", uint64(ck.CKF_DECRYPT|ck.CKF_MESSAGE_ENCRYPT))
	b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_DecryptFinal", room(1))
	b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_MessageEncryptFinal")
	b.do("C_EncryptFinal", room(1))
	b.do("C_DigestFinal", room(32))
	all()
	b.ok("C_SessionCancel", ^uint64(0))
	if b.session.ops.active != [operationKinds]*operation{} || b.session.search != nil {
		t.Error("something is active")
	}
}

func TestRandom(t *testing.T) {
	b := newBench(t)
	if x, y := b.do("C_GenerateRandom", room(32)), b.do("C_GenerateRandom", room(32)); bytes.Equal(x, y) || len(x) != 32 {
		t.Error("not random")
	}
	if got := b.do("C_GenerateRandom", room(0)); len(got) != 0 {
		t.Error("octets that nobody wanted")
	}
	b.refused(ck.CKR_DATA_LEN_RANGE, "C_GenerateRandom", room(maxRandom+1))
	b.refused(ck.CKR_DATA_LEN_RANGE, "C_GenerateRandom", room(1<<32-2))
	if got := b.do("C_GenerateRandom", room(maxRandom)); len(got) != maxRandom {
		t.Error("too few")
	}
	b.refused(ck.CKR_RANDOM_SEED_NOT_SUPPORTED, "C_SeedRandom", octets("x"))
}

func TestDigestKey(t *testing.T) {
	b := newBench(t)
	k := b.secret(ck.CKK_GENERIC_SECRET, message(32), maySign)
	prv, _ := b.rsaPair(maySign, mayVerify)
	for _, h := range []handle{k, prv} {
		b.ok("C_DigestInit", mech{m: ck.CKM_SHA256})
		b.refused(ck.CKR_KEY_INDIGESTIBLE, "C_DigestKey", h)
		b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_DigestFinal", room(32))
	}
	b.keys[k].open = true
	b.ok("C_DigestInit", mech{m: ck.CKM_SHA256})
	b.ok("C_DigestKey", k)
	sum := b.do("C_DigestFinal", room(32))
	b.ok("C_DigestInit", mech{m: ck.CKM_SHA256})
	if !bytes.Equal(sum, b.do("C_Digest", octets(b.keys[k].octets), room(32))) {
		t.Error("not the digest of the key's value")
	}
}

// TestAnswersOfInits: keyward's module is told how long results are, p11-kit's clients are told nothing.
func TestAnswersOfInits(t *testing.T) {
	b := newBench(t)
	prv, pub := b.rsaPair(maySign|mayDecrypt, mayVerify|mayEncrypt)
	k := b.secret(ck.CKK_AES, message(32), mayEncrypt|mayDecrypt)
	for _, c := range []struct {
		init string
		m    mech
		key  handle
		want []byte
	}{
		{"C_SignInit", mech{m: ck.CKM_RSA_PKCS}, prv, numbers(256)},
		{"C_VerifyInit", mech{m: ck.CKM_RSA_PKCS}, pub, nil},
		{"C_DecryptInit", mech{m: ck.CKM_RSA_PKCS}, prv, numbers(256)},
		{"C_EncryptInit", mech{m: ck.CKM_RSA_PKCS}, pub, numbers(256)},
		{"C_EncryptInit", mech{m: ck.CKM_AES_ECB}, k, numbers(0)},
		{"C_EncryptInit", mech{null: true}, k, numbers(0)},
		{"C_VerifyInit", mech{null: true}, k, nil},
		{"C_MessageEncryptInit", mech{m: ck.CKM_AES_GCM}, k, nil},
		{"C_MessageSignInit", mech{m: ck.CKM_RSA_PKCS}, prv, nil},
	} {
		if a := b.call(c.init, c.m, c.key); a.rv != ck.CKR_OK || !bytes.Equal(a.b, c.want) {
			t.Errorf("%s by %v: %v %x", c.init, c.m.m, a.rv, a.b)
		}
		b.session.ops.wipe()
	}
	b.dialect = p11rpc.Offer2
	q := &request{front: b.front, app: b.app, session: b.session, dialect: b.dialect}
	q.out = &q.writer
	if q.initialized(5) != ck.CKR_OK || len(q.out.Bytes()) != 0 {
		t.Error("p11-kit's client is told a size")
	}
}
