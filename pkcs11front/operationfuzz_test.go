package pkcs11front

import (
	"testing"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// FuzzParameters: no parameter makes an Init panic, and what an Init takes is within the limits.
func FuzzParameters(f *testing.F) {
	for i := range mechanismTable {
		row := &mechanismTable[i]
		f.Add(uint16(i), true, rowParam(row))
		f.Add(uint16(i), false, []byte{})
	}
	b := newBench(f)
	aes := b.secret(ck.CKK_AES, message(32), mayEncrypt|mayDecrypt|maySign|mayVerify)
	secret := b.secret(ck.CKK_GENERIC_SECRET, message(32), maySign|mayVerify)
	rsa := b.add(&goKey{cls: ck.CKO_PRIVATE_KEY, rsa: testRSA(), f: keyFacts{keyType: ck.CKK_RSA, bits: 2048, usage: maySign | mayVerify | mayEncrypt | mayDecrypt}})
	f.Fuzz(func(t *testing.T, at uint16, with bool, param []byte) {
		b.t = t
		row := &mechanismTable[int(at)%len(mechanismTable)]
		m := mech{m: row.mechanism}
		if with {
			m.param = append([]byte{}, param...)
		}
		for _, init := range []string{"C_EncryptInit", "C_DecryptInit", "C_SignInit", "C_VerifyInit", "C_MessageEncryptInit", "C_MessageSignInit"} {
			for _, k := range []handle{aes, secret, rsa} {
				b.call(init, m, k)
				for _, op := range b.session.ops.active {
					if op == nil || op.use == nil {
						continue
					}
					if n := len(op.use.IV); n > maxGCMIV || len(op.use.AAD) > maxAAD || len(op.use.Label) > maxOAEPLabel || op.use.Salt < 0 || op.use.Salt > 254 ||
						row.parameter == parameterGCM && op.kind < messageEncrypting && (n == 0 || op.use.TagBits < 96 || op.use.TagBits > 128) {
						t.Fatalf("%s by %v takes %+v", init, row.mechanism, op.use)
					}
				}
				b.session.ops.wipe()
			}
		}
	})
}

// FuzzOperations makes any sequence of calls in a session: two octets each, of which one says which call and the other with what. Nothing panics, and after
// each call the invariants hold; at the end nothing is left.
func FuzzOperations(f *testing.F) {
	f.Add([]byte{0, 0, 1, 5, 2, 0})
	f.Add([]byte{0, 1, 1, 200, 1, 16, 2, 255, 3, 1, 4, 17, 5, 32, 17, 0})
	f.Add([]byte{9, 0, 10, 1, 10, 2, 11, 0, 12, 0, 13, 3, 14, 1})
	f.Add([]byte{15, 0, 16, 0, 18, 7, 19, 0, 20, 1, 21, 3, 22, 0, 23, 0, 24, 3, 25, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 200 {
			script = script[:200]
		}
		b := newBench(t)
		k := b.secret(ck.CKK_AES, make([]byte, 32), mayEncrypt|mayDecrypt)
		mac := b.secret(ck.CKK_GENERIC_SECRET, make([]byte, 32), maySign|mayVerify)
		ciphers := []mech{{m: ck.CKM_AES_ECB}, {m: ck.CKM_AES_CBC, param: make([]byte, 16)}, {m: ck.CKM_AES_CBC_PAD, param: make([]byte, 16)},
			{m: ck.CKM_AES_CTR, param: append(numbers(4), make([]byte, 16)...)}, {m: ck.CKM_AES_GCM, param: gcmParam(make([]byte, 12), nil, 128)}, {null: true}, {m: 99}}
		macs := []mech{{m: ck.CKM_SHA256_HMAC}, {m: ck.CKM_SHA512_HMAC_GENERAL, param: numbers(10)}, {null: true}, {m: ck.CKM_RSA_PKCS}}
		// The last ciphertext, so that some decryptions succeed.
		last := []byte{}
		for ; len(script) >= 2; script = script[2:] {
			with := script[1]
			in := octets(make([]byte, with))
			r := room(int(with)*3 - 1)
			if with > 250 {
				r = -1
			}
			keep := func(a reply) {
				if a.rv == ck.CKR_OK {
					if out, n := a.result(t); len(out) == n && n > 0 {
						last = append(last[:0], out...)
					}
				}
			}
			sealed := octets(last)
			if with%2 == 0 {
				sealed = in
			}
			switch script[0] % 28 {
			case 0:
				b.call("C_EncryptInit", ciphers[int(with)%len(ciphers)], k)
			case 1:
				keep(b.call("C_EncryptUpdate", in, r))
			case 2:
				keep(b.call("C_EncryptFinal", r))
			case 3:
				b.call("C_DecryptInit", ciphers[int(with)%len(ciphers)], k)
			case 4:
				b.call("C_DecryptUpdate", sealed, r)
			case 5:
				b.call("C_DecryptFinal", r)
			case 6:
				keep(b.call("C_Encrypt", in, r))
			case 7:
				b.call("C_Decrypt", sealed, r)
			case 8:
				b.call("C_DigestInit", mech{m: ck.CKM_SHA256, null: with == 0})
			case 9:
				b.call("C_SignInit", macs[int(with)%len(macs)], mac)
			case 10:
				b.call("C_SignUpdate", in)
			case 11:
				keep(b.call("C_SignFinal", r))
			case 12:
				b.call("C_VerifyInit", macs[int(with)%len(macs)], mac)
			case 13:
				b.call("C_VerifyUpdate", in)
			case 14:
				b.call("C_VerifyFinal", sealed)
			case 15:
				b.call("C_DigestUpdate", in)
			case 16:
				b.call("C_DigestFinal", r)
			case 17:
				b.call("C_DigestEncryptUpdate", in, r)
			case 18:
				b.call("C_DecryptVerifyUpdate", sealed, r)
			case 19:
				b.call("C_MessageEncryptInit", mech{m: ck.CKM_AES_GCM, null: with == 0}, k)
			case 20:
				b.call("C_EncryptMessage", messageParam(make([]byte, 12), 0, uint64(with%4), nil, 128), octets(nil), in, r)
			case 21:
				b.call("C_MessageDecryptInit", mech{m: ck.CKM_AES_GCM, null: with == 0}, k)
			case 22:
				b.call("C_DecryptMessage", messageParam(make([]byte, 12), 0, 0, make([]byte, 16), 128), octets(nil), sealed, r)
			case 23:
				b.call("C_MessageSignInit", macs[int(with)%len(macs)], mac)
			case 24:
				b.call("C_SignMessageNext", octets(nil), in, with%2, r)
			case 25:
				b.call("C_SignMessageBegin", octets(nil))
			case 26:
				b.call("C_SessionCancel", uint64(1)<<(with%32))
			case 27:
				b.session.abandon()
			}
		}
		b.session.ops.wipe()
		b.invariants()
		if b.app.gathered.Load() != 0 {
			t.Fatal("something is left")
		}
	})
}

// BenchmarkSign is C_SignInit and C_Sign without the key: what the door itself costs.
func BenchmarkSign(bm *testing.B) {
	b := newBench(bm)
	h := b.add(&goKey{cls: ck.CKO_PRIVATE_KEY, f: keyFacts{keyType: ck.CKK_RSA, bits: 2048, token: true, usage: maySign}})
	b.keys[h].canned = make([]byte, 256)
	initArgs := b.encode([]any{mech{m: ck.CKM_SHA256_RSA_PKCS}, h})
	signArgs := b.encode([]any{octets(message(32)), room(256)})
	q := &request{ctx: bm.Context(), front: b.front, app: b.app, session: b.session, dialect: p11rpc.Keyward}
	q.in, q.out = &q.reader, &q.writer
	var out []byte
	bm.ReportAllocs()
	for bm.Loop() {
		q.reader.Reset(q.dialect, initArgs)
		q.writer.Reset(q.dialect, out[:0])
		if rv := q.signInit(); rv != ck.CKR_OK {
			bm.Fatal(rv)
		}
		q.reader.Reset(q.dialect, signArgs)
		if rv := q.sign(); rv != ck.CKR_OK {
			bm.Fatal(rv)
		}
		out = q.writer.Bytes()
	}
}
