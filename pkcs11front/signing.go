package pkcs11front

import (
	"crypto"
	"crypto/subtle"
	"errors"

	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
	"github.com/keyward/keyward/pkcs11front/sessionkey"
)

// maxECDSAInput is the longest digest that is signed bare, in octets.
const maxECDSAInput = 64

// digestInfo is what comes before a digest in a signature by PKCS #1 v1.5 (RFC 8017 §9.2; for SHA-3 RFC 8702's identifiers): the DER of a
// DigestInfo without the digest.
var digestInfo = func() map[crypto.Hash][]byte {
	const nist = "\x60\x86\x48\x01\x65\x03\x04\x02" // 2.16.840.1.101.3.4.2, without the last number
	prefixes := map[crypto.Hash][]byte{}
	for h, oid := range map[crypto.Hash]string{
		crypto.SHA1:     "\x2b\x0e\x03\x02\x1a",
		crypto.SHA224:   nist + "\x04",
		crypto.SHA256:   nist + "\x01",
		crypto.SHA384:   nist + "\x02",
		crypto.SHA512:   nist + "\x03",
		crypto.SHA3_224: nist + "\x07",
		crypto.SHA3_256: nist + "\x08",
		crypto.SHA3_384: nist + "\x09",
		crypto.SHA3_512: nist + "\x0a",
	} {
		n := len(oid)
		p := []byte{0x30, byte(8 + n + h.Size()), 0x30, byte(4 + n), 0x06, byte(n)}
		p = append(p, oid...)
		prefixes[h] = append(p, 0x05, 0x00, 0x04, byte(h.Size()))
	}
	return prefixes
}()

// signInit is C_SignInit.
func (q *request) signInit() ck.RV { return q.signingInit(signing) }

// verifyInit is C_VerifyInit.
func (q *request) verifyInit() ck.RV { return q.signingInit(verifying) }

func (q *request) signingInit(kind operationKind) ck.RV {
	op, k, param, rv := q.begin(kind)
	if rv != ck.CKR_OK || op == nil {
		return q.initializedBut(kind, rv)
	}
	if rv = op.forSignature(k, param); rv != ck.CKR_OK {
		return rv
	}
	if rv = q.start(op, k); rv != ck.CKR_OK {
		return rv
	}
	if kind != signing {
		return ck.CKR_OK
	}
	return q.initialized(op.size)
}

// initialized writes the answer of an Init: with keyward's own module, how many octets the operation gives if that is known.
func (q *request) initialized(size int) ck.RV {
	if q.dialect == p11rpc.Keyward {
		q.out.Ulong(uint64(size))
	}
	return ck.CKR_OK
}

// initializedBut is the answer of an Init that failed or ended an operation.
func (q *request) initializedBut(kind operationKind, rv ck.RV) ck.RV {
	if rv != ck.CKR_OK || kind == verifying || kind >= messageEncrypting {
		return rv
	}
	return q.initialized(0)
}

// forSignature readies an operation that makes or checks signatures.
func (op *operation) forSignature(k key, param any) ck.RV {
	facts := k.facts()
	switch op.row.does {
	case familyHMAC, familyCMAC:
		size, rv := op.row.macSize(param)
		if rv != ck.CKR_OK {
			return rv
		}
		secret := secretOf(k)
		if secret == nil {
			return ck.CKR_KEY_FUNCTION_NOT_PERMITTED
		}
		op.size = size
		return op.startMAC(secret)
	case familyHashed, familyBare:
		use, rv := op.row.use(param, facts)
		if rv != ck.CKR_OK {
			return rv
		}
		op.use, op.size = use, signatureSize(facts)
		if op.row.does == familyHashed {
			op.pool = hashPools[op.row.hash]
			op.hash = op.pool.get()
		}
		op.limit = op.longestInput()
		return ck.CKR_OK
	}
	return ck.CKR_MECHANISM_INVALID
}

// secretOf and privateOf give what a session key is, nil if it is something else.
func secretOf(k key) *sessionkey.Secret {
	if local, ok := k.(localKey); ok {
		return local.secretKey()
	}
	return nil
}

func privateOf(k key) *sessionkey.Private {
	if local, ok := k.(localKey); ok {
		return local.privateKey()
	}
	return nil
}

// signatureSize is how long signatures of an asymmetric key are, in octets.
func signatureSize(facts *keyFacts) int {
	n := (facts.bits + 7) / 8
	if facts.keyType == ck.CKK_EC {
		return 2 * n
	}
	return n
}

// longestInput is what a bare signature takes at most. What is gathered is no longer than that.
func (op *operation) longestInput() int {
	switch op.use.Kind {
	case mechanism.RSAPKCS1:
		return op.size - pkcs1Overhead
	case mechanism.RSAPSS:
		return op.use.Hash.Size()
	case mechanism.ECDSA:
		return maxECDSAInput
	}
	return op.size
}

// pkcs1Overhead is the least that the padding of PKCS #1 v1.5 takes (RFC 8017 §7.2 and §9.2), in octets.
const pkcs1Overhead = 11

// bareInput makes of gathered input what the key's primitive takes.
func (op *operation) bareInput(in []byte) ([]byte, ck.RV) {
	switch {
	case len(in) > op.limit,
		op.use.Kind == mechanism.RSAPSS && len(in) != op.limit,
		op.use.Kind == mechanism.ECDSA && len(in) == 0:
		return nil, ck.CKR_DATA_LEN_RANGE
	case op.use.Kind == mechanism.RSARaw:
		return leftPadded(in, op.size), ck.CKR_OK
	}
	return in, ck.CKR_OK
}

// leftPadded is the number in big-endian with size octets.
func leftPadded(in []byte, size int) []byte {
	if len(in) == size {
		return in
	}
	b := make([]byte, size)
	copy(b[size-len(in):], in)
	return b
}

// startMAC begins a MAC with a session key.
func (op *operation) startMAC(k *sessionkey.Secret) ck.RV {
	var err error
	if op.row.does == familyHMAC {
		op.hash, err = k.HMAC(op.row.hash)
	} else {
		op.hash, err = k.CMAC()
	}
	return keyError(err)
}

// keyError is the return value for an error of a session key that nothing in the call explains: it was closed meanwhile.
func keyError(err error) ck.RV {
	switch {
	case err == nil:
		return ck.CKR_OK
	case errors.Is(err, sessionkey.ErrClosed):
		return ck.CKR_KEY_HANDLE_INVALID
	}
	return ck.CKR_FUNCTION_FAILED
}

// sign is C_Sign.
func (q *request) sign() ck.RV {
	in, _ := q.in.Octets()
	return q.signLast(signing, oneShot, in)
}

// signUpdate is C_SignUpdate.
func (q *request) signUpdate() ck.RV { return q.signingUpdate(signing) }

// verifyUpdate is C_VerifyUpdate.
func (q *request) verifyUpdate() ck.RV { return q.signingUpdate(verifying) }

func (q *request) signingUpdate(kind operationKind) ck.RV {
	in, _ := q.in.Octets()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	op, rv := q.operation(kind)
	if rv != ck.CKR_OK {
		return rv
	}
	if rv = op.digested(in); rv != ck.CKR_OK {
		return q.done(op, rv)
	}
	return ck.CKR_OK
}

// digested takes a part of what is signed or verified.
func (op *operation) digested(in []byte) ck.RV {
	op.parts = true
	if op.hash != nil {
		op.hash.Write(in)
		return ck.CKR_OK
	}
	return op.gather(in)
}

// signFinal is C_SignFinal.
func (q *request) signFinal() ck.RV { return q.signLast(signing, final, nil) }

// signLast is C_Sign and C_SignFinal. The size of the result is known, so the key is used only when there is room for it.
func (q *request) signLast(kind operationKind, call callName, in []byte) ck.RV {
	room := q.in.Room()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	op, rv := q.operation(kind)
	if rv != ck.CKR_OK {
		return rv
	}
	if call == oneShot && op.parts {
		return q.done(op, ck.CKR_OPERATION_ACTIVE)
	}
	if !fits(room, op.size) {
		q.out.Needed(op.size)
		return ck.CKR_OK
	}
	k, rv := q.keyOf(op)
	if rv != ck.CKR_OK {
		return q.done(op, rv)
	}
	signature, rv := op.signature(q, k, in)
	if rv == ck.CKR_OK {
		q.out.Result(room, signature)
	}
	return q.done(op, rv)
}

// signature signs what was gathered and the rest of it.
func (op *operation) signature(q *request, k key, in []byte) ([]byte, ck.RV) {
	var room [128]byte
	input, rv := op.signedInput(in, room[:0])
	if rv != ck.CKR_OK {
		return nil, rv
	}
	if op.use == nil {
		return append([]byte(nil), input[:op.size]...), ck.CKR_OK
	}
	return k.sign(q.ctx, op.use, input)
}

// signedInput is what goes into the key's primitive: the digest, with its DigestInfo for PKCS #1 v1.5, the MAC, or the bare input. It may be made in room.
func (op *operation) signedInput(in, room []byte) ([]byte, ck.RV) {
	if op.hash == nil {
		if len(op.data) > 0 {
			if rv := op.gather(in); rv != ck.CKR_OK {
				return nil, rv
			}
			in = op.data
		}
		return op.bareInput(in)
	}
	op.hash.Write(in)
	if op.use != nil && op.use.Kind == mechanism.RSAPKCS1 {
		room = append(room, digestInfo[op.row.hash]...)
	}
	return op.hash.Sum(room), ck.CKR_OK
}

// verify is C_Verify.
func (q *request) verify() ck.RV {
	in, _ := q.in.Octets()
	return q.verifyLast(oneShot, in)
}

// verifyFinal is C_VerifyFinal.
func (q *request) verifyFinal() ck.RV { return q.verifyLast(final, nil) }

func (q *request) verifyLast(call callName, in []byte) ck.RV {
	signature, _ := q.in.Octets()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	op, rv := q.operation(verifying)
	if rv != ck.CKR_OK {
		return rv
	}
	if call == oneShot && op.parts {
		return q.done(op, ck.CKR_OPERATION_ACTIVE)
	}
	return q.done(op, op.verified(q, in, signature))
}

// verified checks a signature of what was gathered and the rest of it. Of a wrong one it tells no more than that, and whether its length is wrong.
func (op *operation) verified(q *request, in, signature []byte) ck.RV {
	k, rv := q.keyOf(op)
	if rv != ck.CKR_OK {
		return rv
	}
	if len(signature) != op.size {
		return ck.CKR_SIGNATURE_LEN_RANGE
	}
	var room [128]byte
	input, rv := op.signedInput(in, room[:0])
	switch {
	case rv != ck.CKR_OK:
		return rv
	case op.use != nil:
		return k.verify(q.ctx, op.use, input, signature)
	case subtle.ConstantTimeCompare(input[:op.size], signature) != 1:
		return ck.CKR_SIGNATURE_INVALID
	}
	return ck.CKR_OK
}

// fits says whether a result of that size has room. A client that asks for the length has none.
func fits(room p11rpc.Room, size int) bool {
	return !room.Null && uint64(size) <= uint64(room.Size)
}
