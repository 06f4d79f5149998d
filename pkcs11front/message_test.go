package pkcs11front

import (
	"bytes"
	"testing"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

func messageParam(iv []byte, fixed, generator uint64, tag []byte, tagBits uint64) octets {
	return join(sized(iv), numbers(fixed, generator), sized(tag), numbers(tagBits))
}

// TestMessages: IVs that are given and that are drawn, with keys of the KMS and of the session.
func TestMessages(t *testing.T) {
	b := newBench(t)
	local := b.secret(ck.CKK_AES, message(32), mayEncrypt|mayDecrypt)
	kept := b.add(&goKey{cls: ck.CKO_SECRET_KEY, octets: message(32), f: keyFacts{keyType: ck.CKK_AES, bits: 256, token: true, usage: mayEncrypt | mayDecrypt}})
	gcm := mech{m: ck.CKM_AES_GCM}
	for _, k := range []handle{local, kept} {
		b.ok("C_MessageEncryptInit", gcm, k)
		b.ok("C_MessageDecryptInit", gcm, k)
		ivs := map[string]bool{}
		for _, generator := range []uint64{ck.CKG_NO_GENERATE, ck.CKG_GENERATE, ck.CKG_GENERATE_RANDOM, ck.CKG_GENERATE_RANDOM} {
			for _, n := range []int{0, 1, 1000} {
				iv, in, aad := message(12), message(n), []byte("aad")
				a := b.call("C_EncryptMessage", messageParam(iv, 0, generator, nil, 128), octets(aad), octets(in), room(n))
				back, _ := a.result(t)
				ct, got := a.result(t)
				if got != n || len(a.b) != 0 {
					t.Fatalf("%d octets of ciphertext for %d", got, n)
				}
				m, ok := p11rpc.ParseGCMMessage(back)
				if !ok || len(m.Tag) != 16 || len(m.IV) != 12 || m.Generator != generator || m.TagBits != 128 {
					t.Fatalf("%x came back", back)
				}
				if given := bytes.Equal(m.IV, iv); given != (generator == ck.CKG_NO_GENERATE) || ivs[string(m.IV)] {
					t.Errorf("generator %d: IV %x for %x", generator, m.IV, iv)
				}
				ivs[string(m.IV)] = true
				if pt := b.do("C_DecryptMessage", octets(back), octets(aad), octets(ct), room(n)); !bytes.Equal(pt, in) {
					t.Error("not what was encrypted")
				}
				// A message that is not authentic fails, whatever its length, and the next one does not care.
				b.refused(ck.CKR_AEAD_DECRYPT_FAILED, "C_DecryptMessage", octets(back), octets("aae"), octets(ct), room(max(n, 1)))
			}
		}
		a := b.call("C_EncryptMessage", messageParam(message(12), 0, 3, nil, 128), octets(nil), octets(message(10)), room(-1))
		a.result(t)
		if _, n := a.result(t); n != 10 {
			t.Errorf("needs %d octets", n)
		}
		for _, p := range []octets{
			messageParam(message(12), 32, ck.CKG_GENERATE, nil, 128), messageParam(message(12), 0, ck.CKG_GENERATE_COUNTER, nil, 128),
			messageParam(message(12), 0, 99, nil, 128), messageParam(message(16), 0, ck.CKG_GENERATE, nil, 128), messageParam(nil, 0, 0, nil, 128),
			messageParam(message(12), 0, 0, nil, 64), messageParam(message(12), 0, 0, nil, 127),
		} {
			b.refused(ck.CKR_MECHANISM_PARAM_INVALID, "C_EncryptMessage", p, octets(nil), octets("x"), room(1))
		}
		b.refused(ck.CKR_ARGUMENTS_BAD, "C_EncryptMessage", octets("short"), octets(nil), octets("x"), room(1))
		b.refused(ck.CKR_MECHANISM_PARAM_INVALID, "C_DecryptMessage", messageParam(message(12), 0, 0, message(12), 128), octets(nil), octets("x"), room(1))
		b.ok("C_MessageEncryptFinal")
		b.ok("C_MessageDecryptFinal")
		b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_MessageDecryptFinal")
	}
	b.refused(ck.CKR_MECHANISM_INVALID, "C_MessageEncryptInit", mech{m: ck.CKM_AES_CTR}, local)
	b.dialect = p11rpc.Offer2
	b.refused(ck.CKR_FUNCTION_NOT_SUPPORTED, "C_MessageEncryptInit", gcm, local)
}

// TestSignedMessages: messages come in turn, and one that fails does not end the operation.
func TestSignedMessages(t *testing.T) {
	b := newBench(t)
	k := b.secret(ck.CKK_GENERIC_SECRET, message(32), maySign|mayVerify)
	prv, _ := b.rsaPair(maySign, mayVerify)
	b.ok("C_MessageSignInit", mech{m: ck.CKM_SHA256_HMAC}, k)
	b.ok("C_MessageVerifyInit", mech{m: ck.CKM_SHA256_HMAC}, k)
	b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_SignMessageNext", octets(nil), octets("x"), byte(1), room(32))
	b.ok("C_SignMessageBegin", octets(nil))
	b.refused(ck.CKR_OPERATION_ACTIVE, "C_SignMessageBegin", octets(nil))
	b.refused(ck.CKR_OPERATION_ACTIVE, "C_SignMessage", octets(nil), octets("x"), room(32))
	b.refused(ck.CKR_OPERATION_ACTIVE, "C_MessageSignFinal")
	b.do("C_SignMessageNext", octets(nil), octets("x"), byte(0), room(0))
	b.ok("C_SignMessageNext", octets(nil), octets("y"), byte(1), room(-1)) // a question
	two := b.do("C_SignMessageNext", octets(nil), octets("y"), byte(1), room(32))
	if one := b.do("C_SignMessage", octets(nil), octets("xy"), room(32)); !bytes.Equal(one, two) {
		t.Error("in parts it is another signature")
	}
	b.refused(ck.CKR_MECHANISM_PARAM_INVALID, "C_SignMessage", octets("parameter"), octets("xy"), room(32))
	b.refused(ck.CKR_SIGNATURE_INVALID, "C_VerifyMessage", octets(nil), octets("yx"), octets(two))
	b.refused(ck.CKR_SIGNATURE_LEN_RANGE, "C_VerifyMessage", octets(nil), octets("xy"), octets(two[1:]))
	b.ok("C_VerifyMessage", octets(nil), octets("xy"), octets(two))
	b.ok("C_MessageSignFinal")
	// A bare message that is too long is forgotten.
	b.ok("C_MessageSignInit", mech{m: ck.CKM_RSA_PKCS}, prv)
	b.ok("C_SignMessageBegin", octets(nil))
	b.do("C_SignMessageNext", octets(nil), octets(message(200)), byte(0), room(0))
	b.refused(ck.CKR_DATA_LEN_RANGE, "C_SignMessageNext", octets(nil), octets(message(200)), byte(0), room(0))
	b.do("C_SignMessage", octets(nil), octets("xy"), room(256))
}
