package pkcs11front

import (
	"bytes"
	"crypto/aes"
	"math/big"
	"testing"

	"github.com/keyward/keyward/pkcs11front/ck"
)

// The attacks on tokens of reliability.md, section 2.2, as far as they are about operations. Each is made, and fails.

// TestAttackP7 is Bleichenbacher's: thousands of ciphertexts, most of them badly padded, and an attacker who looks at return values and at what the answer
// looks like, with every size of room. There is nothing to see: all are decrypted, and the answer for too little room does not depend on the ciphertext.
func TestAttackP7(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.real = true
	prv := b.add(&goKey{cls: ck.CKO_PRIVATE_KEY, rsa: testRSA(), f: keyFacts{keyType: ck.CKK_RSA, bits: 2048, usage: mayDecrypt}})
	public := &testRSA().PublicKey
	good := pkcs1Encrypted(public, message(48))
	pkcs1 := mech{m: ck.CKM_RSA_PKCS}
	const k = 256
	c, e := new(big.Int).SetBytes(good), big.NewInt(int64(public.E))
	lengths := map[int]int{}
	for i := range 2000 {
		// c * s^e is the ciphertext of m * s, as in the attack.
		s := new(big.Int).Exp(big.NewInt(int64(i+1)), e, public.N)
		forged := s.Mul(s, c).Mod(s, public.N).FillBytes(make([]byte, k))
		b.ok("C_DecryptInit", pkcs1, prv)
		for _, r := range []room{-1, 0, 48, k - 12} {
			a := b.call("C_Decrypt", octets(forged), r)
			if !bytes.Equal(a.b, []byte{0, 0, 0, k >> 8, k & 0xff}) {
				t.Fatalf("ciphertext %d with room for %d: %v %x", i, r, a.rv, a.b)
			}
		}
		first := b.do("C_Decrypt", octets(forged), room(k-11))
		lengths[len(first)]++
		if i%100 == 0 { // the same again, and in parts
			b.ok("C_DecryptInit", pkcs1, prv)
			b.do("C_DecryptUpdate", octets(forged[:50]), room(k))
			b.do("C_DecryptUpdate", octets(forged[50:]), room(k))
			if again := b.do("C_DecryptFinal", room(k)); !bytes.Equal(first, again) {
				t.Fatalf("ciphertext %d has two plaintexts", i)
			}
		}
	}
	if len(lengths) < k/2 || lengths[48] > 100 {
		t.Errorf("the lengths of fakes tell them from messages: %v", lengths)
	}
}

// TestAttackP8 is Vaudenay's: CBC-PAD tells no more of a bad padding than that, whatever is wrong with it.
func TestAttackP8(t *testing.T) {
	b := newBench(t)
	k := b.secret(ck.CKK_AES, message(32), mayEncrypt|mayDecrypt)
	block, _ := aes.NewCipher(b.keys[k].octets)
	iv := make([]byte, blockSize)
	pad := mech{m: ck.CKM_AES_CBC_PAD, param: iv}
	for last := range 256 {
		for _, spoiled := range []int{-1, 0, 14} { // an octet before the last that is not as the padding would have it
			plain := bytes.Repeat([]byte{byte(last)}, blockSize)
			if spoiled >= 0 {
				plain[spoiled] ^= 0x80
			}
			ct := make([]byte, blockSize)
			block.Encrypt(ct, plain)
			good := last >= 1 && last <= blockSize && (spoiled < 0 || spoiled < blockSize-last)
			b.ok("C_DecryptInit", pad, k)
			if good {
				if got := b.do("C_Decrypt", octets(ct), room(16)); !bytes.Equal(got, plain[:blockSize-last]) {
					t.Errorf("padding of %d: %x", last, got)
				}
				continue
			}
			a := b.call("C_Decrypt", octets(ct), room(16))
			if a.rv != ck.CKR_ENCRYPTED_DATA_INVALID {
				t.Errorf("padding of %d: %v", last, a.rv)
			}
			b.ok("C_DecryptInit", pad, k)
			b.do("C_DecryptUpdate", octets(ct), room(16))
			b.refused(ck.CKR_ENCRYPTED_DATA_INVALID, "C_DecryptFinal", room(16))
		}
	}
}

// TestAttackP12 is the use of an operation after what allowed it is gone: a logout, the key's object, the service's leave; and in another session.
func TestAttackP12(t *testing.T) {
	b := newBench(t)
	prv, _ := b.rsaPair(maySign, mayVerify)
	k := b.secret(ck.CKK_AES, message(32), mayEncrypt|mayDecrypt)
	sign := mech{m: ck.CKM_SHA256_RSA_PKCS}
	start := func() {
		b.ok("C_SignInit", sign, prv)
		b.ok("C_SignUpdate", octets("pay"))
	}
	start()
	b.session.abandon() // what C_Logout does to every session
	b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_SignFinal", room(256))
	b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_SignUpdate", octets("pay"))

	start() // a logout between two calls does not make an Init possible only
	b.session.abandon()
	start()
	b.session.abandon()
	b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_DigestFinal", room(256))
	b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_SignFinal", room(256))

	// A result that waits to be fetched is gone too.
	pad := mech{m: ck.CKM_AES_CBC_PAD, param: make([]byte, 16)}
	b.ok("C_EncryptInit", pad, k)
	ct := b.do("C_Encrypt", octets("a secret"), room(16))
	b.ok("C_DecryptInit", pad, k)
	b.call("C_Decrypt", octets(ct), room(1))
	kept := b.session.ops.active[decrypting].kept
	b.session.abandon()
	b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_Decrypt", octets(ct), room(16))
	if !bytes.Equal(kept, make([]byte, 8)) {
		t.Errorf("%q is left", kept)
	}

	// The object of a key that is destroyed takes operations with it, in its own session at once and in others at their next call.
	b.ok("C_DecryptInit", pad, k)
	b.session.ops.endKey(k)
	b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_Decrypt", octets(ct), room(16))
	b.ok("C_DecryptInit", pad, k)
	gone := b.keys[k]
	b.app.removeObject(b.session.instance, k)
	b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_Decrypt", octets(ct), room(16))
	b.show(gone)

	// A state can be neither taken away nor brought along.
	start()
	b.refused(ck.CKR_FUNCTION_NOT_SUPPORTED, "C_GetOperationState", room(1000))
	b.refused(ck.CKR_FUNCTION_NOT_SUPPORTED, "C_SetOperationState", octets(message(100)), prv, prv)
	other := b.session
	b.open()
	b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_SignFinal", room(256))
	b.session = other
	b.do("C_SignFinal", room(256))
}
