package pkcs11front

import (
	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// encryptInit is C_EncryptInit.
func (q *request) encryptInit() ck.RV { return q.cipherInit(encrypting) }

// decryptInit is C_DecryptInit.
func (q *request) decryptInit() ck.RV { return q.cipherInit(decrypting) }

func (q *request) cipherInit(kind operationKind) ck.RV {
	op, k, param, rv := q.begin(kind)
	if rv != ck.CKR_OK || op == nil {
		return q.initializedBut(kind, rv)
	}
	if rv = op.forCipher(k, param); rv != ck.CKR_OK {
		op.wipe()
		return rv
	}
	if rv = q.start(op, k); rv != ck.CKR_OK {
		return rv
	}
	return q.initialized(op.size)
}

// forCipher readies an operation that encrypts or decrypts.
func (op *operation) forCipher(k key, param any) ck.RV {
	facts := k.facts()
	use, rv := op.row.use(param, facts)
	if rv != ck.CKR_OK {
		return rv
	}
	if use == nil {
		return ck.CKR_MECHANISM_INVALID
	}
	op.use = use
	switch use.Kind {
	case mechanism.RSAPKCS1, mechanism.RSARaw, mechanism.RSAOAEP:
		op.size = (facts.bits + 7) / 8
		op.limit = op.longestPlaintext()
		if op.kind == decrypting {
			op.limit = op.size
		}
		if op.limit < 0 {
			return ck.CKR_KEY_SIZE_RANGE
		}
	case mechanism.AESCTR:
		copy(op.chain[:], use.IV)
		op.blocksLeft, op.limited = counterRoom(use.IV, param.(*p11rpc.CTR).Bits)
	case mechanism.AESCBC:
		copy(op.chain[:], use.IV)
	case mechanism.AESGCM:
		if op.kind == decrypting {
			op.limit += use.TagBits / 8
		}
		return op.hold(len(use.AAD))
	}
	return ck.CKR_OK
}

// longestPlaintext is what an RSA key encrypts at most (RFC 8017 §7.1.1 and §7.2.1).
func (op *operation) longestPlaintext() int {
	switch op.use.Kind {
	case mechanism.RSAPKCS1:
		return op.size - pkcs1Overhead
	case mechanism.RSAOAEP:
		return op.size - 2*op.use.Hash.Size() - 2
	}
	return op.size
}

// stream: the operation gives results in parts.
func (op *operation) stream() bool { return op.row.does == familyBlocks || op.row.does == familyPadded }

// resultSize is how many octets a call gives for n octets of input; less says that it may be fewer, which only the result shows.
//
// Decryption by PKCS #1 v1.5 asks for room for the longest plaintext, whatever the ciphertext holds: if too little room were told only when a message is
// longer, a program with room for just the message that it expects would tell a stranger whether the padding was good, as the message that stands in for
// a bad one has any length.
func (op *operation) resultSize(call callName, n int) (size int, less bool) {
	n += len(op.data)
	switch op.row.does {
	case familyBlocks:
		if op.use.Kind == mechanism.AESCTR {
			return n, false
		}
		return n - n%blockSize, false
	case familyPadded:
		switch {
		case call == update && op.kind == decrypting:
			return max(0, n-1) / blockSize * blockSize, false // the last block is held back until it is known to be no padding
		case call == update:
			return n - n%blockSize, false
		case op.kind == decrypting:
			return max(0, n-1), true
		}
		return n - n%blockSize + blockSize, false
	case familyGCM:
		switch {
		case call == update:
			return 0, false
		case op.kind == decrypting:
			return max(0, n-op.use.TagBits/8), false
		}
		return n + op.use.TagBits/8, false
	}
	switch { // RSA
	case call == update:
		return 0, false
	case op.kind == decrypting && op.use.Kind == mechanism.RSAPKCS1:
		return op.size, false
	case op.kind == decrypting && op.use.Kind == mechanism.RSAOAEP:
		return op.size, true
	}
	return op.size, false
}

// leastRoom is what there must be room for before the key is used.
func (op *operation) leastRoom(size int, less bool) int {
	switch {
	case less:
		return 0
	case op.kind == decrypting && op.use.Kind == mechanism.RSAPKCS1:
		return op.longestPlaintext()
	}
	return size
}

// encrypt is C_Encrypt.
func (q *request) encrypt() ck.RV { return q.cipher(encrypting, oneShot) }

// encryptUpdate is C_EncryptUpdate.
func (q *request) encryptUpdate() ck.RV { return q.cipher(encrypting, update) }

// encryptFinal is C_EncryptFinal.
func (q *request) encryptFinal() ck.RV { return q.cipher(encrypting, final) }

// decrypt is C_Decrypt.
func (q *request) decrypt() ck.RV { return q.cipher(decrypting, oneShot) }

// decryptUpdate is C_DecryptUpdate.
func (q *request) decryptUpdate() ck.RV { return q.cipher(decrypting, update) }

// decryptFinal is C_DecryptFinal.
func (q *request) decryptFinal() ck.RV { return q.cipher(decrypting, final) }

// cipher answers the six calls above.
func (q *request) cipher(kind operationKind, call callName) ck.RV {
	return q.cipherWith(kind, call, nil)
}

// cipherWith is cipher with a second operation, which digests, signs or verifies the plaintext of an Update.
func (q *request) cipherWith(kind operationKind, call callName, alongside *operation) ck.RV {
	var in []byte
	if call != final {
		in, _ = q.in.Octets()
	}
	room := q.in.Room()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	ops := q.session.operations()
	op := ops.active[kind]
	before := ops.repeatable
	ops.repeatable = callKey{}
	if op == nil {
		this := callKey{}
		if before.call != 0 {
			this = keyFor(kind, call, in)
		}
		if before.call == 0 || !before.is(&this) {
			return ck.CKR_OPERATION_NOT_INITIALIZED
		}
		q.out.Result(room, nil)
		return ck.CKR_OK
	}
	if call == oneShot && op.parts {
		return q.done(op, ck.CKR_OPERATION_ACTIVE)
	}
	size, less := op.resultSize(call, len(in))
	// A length is told without the key, but for one of 0 at the end: the client may take that answer for the result, and must not
	// believe that an empty message was authentic when nobody looked.
	last := call != update
	if size > 0 && (room.Null || !fits(room, op.leastRoom(size, less))) || room.Null && !last {
		q.out.Needed(size)
		return ck.CKR_OK
	}
	result, rv := op.result(q, call, in, alongside)
	if rv != ck.CKR_OK {
		return q.done(op, rv)
	}
	if !q.out.Result(room, result) {
		if rv := op.keep(result, keyFor(kind, call, in)); rv != ck.CKR_OK {
			return q.done(op, rv)
		}
		return ck.CKR_OK
	}
	if kind == decrypting {
		clear(result)
	}
	if !last {
		return ck.CKR_OK
	}
	if len(result) == 0 && (room.Null || room.Size == 0) {
		ops.repeatable = keyFor(kind, call, in)
	}
	return q.done(op, ck.CKR_OK)
}

// result does what the call is for, or gives what was kept for it. The caller wipes plaintext.
func (op *operation) result(q *request, call callName, in []byte, alongside *operation) ([]byte, ck.RV) {
	k, rv := q.keyOf(op)
	if rv != ck.CKR_OK {
		return nil, rv
	}
	if op.kept != nil {
		if this := keyFor(op.kind, call, in); op.keptFor.is(&this) {
			return op.kept, ck.CKR_OK
		}
		// The operation is at its end, and only the call that brought it there gets the result.
		return nil, ck.CKR_OPERATION_ACTIVE
	}
	if call == update {
		op.parts = true
	}
	var out []byte
	switch {
	case op.stream() && call == update:
		out, rv = op.next(q, k, in)
	case op.stream():
		out, rv = op.last(q, k, in)
	case call == update:
		return nil, op.gather(in)
	default:
		out, rv = op.whole(q, k, in)
	}
	if rv == ck.CKR_OK && alongside != nil {
		plaintext := in
		if op.kind == decrypting {
			plaintext = out
		}
		rv = alongside.digested(plaintext)
	}
	return out, rv
}

// whole encrypts or decrypts what was gathered and the rest of it.
func (op *operation) whole(q *request, k key, in []byte) ([]byte, ck.RV) {
	if len(op.data) > 0 {
		if rv := op.gather(in); rv != ck.CKR_OK {
			return nil, rv
		}
		in = op.data
	}
	if len(in) > op.limit {
		return nil, op.wrongLength()
	}
	if op.kind == decrypting {
		switch {
		case op.use.Kind == mechanism.AESGCM && len(in) < op.use.TagBits/8,
			op.use.Kind != mechanism.AESGCM && len(in) != op.size:
			return nil, ck.CKR_ENCRYPTED_DATA_LEN_RANGE
		}
		return k.decrypt(q.ctx, op.use, in, false)
	}
	if op.use.Kind == mechanism.RSARaw {
		in = leftPadded(in, op.size)
	}
	return k.encrypt(q.ctx, op.use, in, false)
}
