package pkcs11front

import (
	"crypto/subtle"
	"encoding/binary"

	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// maxPart is how many octets of a stream go to the key at once: a part of a frame for an HSM.
const maxPart = 64 << 10

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
	ops := q.session.ops.current()
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
	if op.kept != nil {
		if this := keyFor(op.kind, call, in); op.keptFor.is(&this) {
			return op.kept, ck.CKR_OK
		}
		// The operation is at its end, and only the call that brought it there gets the result.
		return nil, ck.CKR_OPERATION_ACTIVE
	}
	k, rv := q.keyOf(op)
	if rv != ck.CKR_OK {
		return nil, rv
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

// next takes a part of a stream.
func (op *operation) next(q *request, k key, in []byte) ([]byte, ck.RV) {
	n := len(op.data) + len(in)
	if op.use.Kind == mechanism.AESCTR {
		return op.blocks(q, k, in)
	}
	ready := n - n%blockSize
	if op.row.does == familyPadded && op.kind == decrypting {
		ready = max(0, n-1) / blockSize * blockSize
	}
	if ready == 0 {
		return nil, op.gather(in)
	}
	// What is ready is what waited and the beginning of in; the rest of in waits. What waits is never longer than a block.
	fromIn := ready - len(op.data)
	whole, rest := in[:fromIn], in[fromIn:]
	if len(op.data) > 0 {
		whole = append(append(make([]byte, 0, ready), op.data...), whole...)
		defer clear(whole)
	}
	out, rv := op.blocks(q, k, whole)
	if rv != ck.CKR_OK {
		return nil, rv
	}
	clear(op.data)
	op.data = op.data[:0]
	return out, op.gather(rest)
}

// last takes the last part of a stream.
func (op *operation) last(q *request, k key, in []byte) ([]byte, ck.RV) {
	n := len(op.data) + len(in)
	if op.use.Kind == mechanism.AESCTR {
		return op.blocks(q, k, in)
	}
	if op.row.does == familyPadded && op.kind == encrypting {
		n += blockSize - n%blockSize
	}
	if n%blockSize != 0 || n == 0 && op.row.does == familyPadded {
		return nil, op.wrongLength()
	}
	whole := in
	if len(op.data) > 0 || n != len(in) {
		whole = append(append(make([]byte, 0, n), op.data...), in...)
		defer clear(whole[:n])
		for pad := byte(n - len(whole)); len(whole) < n; {
			whole = append(whole, pad)
		}
	}
	out, rv := op.blocks(q, k, whole)
	if rv != ck.CKR_OK || op.row.does != familyPadded || op.kind == encrypting {
		return out, rv
	}
	plain := unpadded(out)
	if plain < 0 {
		clear(out)
		return nil, ck.CKR_ENCRYPTED_DATA_INVALID
	}
	return out[:plain], ck.CKR_OK
}

// unpadded gives the length without the padding, -1 if the padding is wrong. What is wrong with it, the time does not tell. b has at least one block.
func unpadded(b []byte) int {
	pad := int(b[len(b)-1])
	good := subtle.ConstantTimeLessOrEq(1, pad) & subtle.ConstantTimeLessOrEq(pad, blockSize)
	for i := 1; i <= blockSize; i++ {
		inPad := subtle.ConstantTimeLessOrEq(i, pad)
		good &= 1 ^ inPad&(1^subtle.ConstantTimeByteEq(b[len(b)-i], byte(pad)))
	}
	return subtle.ConstantTimeSelect(good, len(b)-pad, -1)
}

// blocks sends octets through the key, in parts that an HSM takes, and carries the chaining on: whole blocks, or any number in counter mode.
func (op *operation) blocks(q *request, k key, in []byte) (out []byte, rv ck.RV) {
	if op.use.Kind == mechanism.AESCTR {
		return op.counted(q, k, in)
	}
	for len(in) > 0 {
		n := min(len(in), maxPart)
		part, rv := op.part(q, k, in[:n])
		if rv != ck.CKR_OK {
			clear(out)
			return nil, rv
		}
		switch {
		case op.use.Kind != mechanism.AESCBC:
		case op.kind == encrypting:
			copy(op.chain[:], part[n-blockSize:])
		default:
			copy(op.chain[:], in[n-blockSize:n])
		}
		out, in = joined(out, part, len(in)), in[n:]
	}
	return out, ck.CKR_OK
}

// part is one use of the key.
func (op *operation) part(q *request, k key, in []byte) (out []byte, rv ck.RV) {
	m := op.use
	if op.continued && m.IV != nil {
		m = &mechanism.Mechanism{Kind: m.Kind, IV: cloned(op.chain[:])}
	}
	if op.kind == encrypting {
		out, rv = k.encrypt(q.ctx, m, in, op.continued)
	} else {
		out, rv = k.decrypt(q.ctx, m, in, op.continued)
	}
	op.continued = true
	if rv == ck.CKR_OK && len(out) != len(in) {
		return nil, ck.CKR_DEVICE_ERROR
	}
	return out, rv
}

// counted is blocks for counter mode. A part that begins in the middle of a block is sent with as many octets before it as are used of the block.
func (op *operation) counted(q *request, k key, in []byte) (out []byte, rv ck.RV) {
	for len(in) > 0 {
		n := min(len(in), maxPart-op.offset)
		used := op.offset
		blocks := uint64(used+n) / blockSize
		if op.limited && uint64(used+n+blockSize-1)/blockSize > op.blocksLeft {
			clear(out)
			return nil, op.wrongLength()
		}
		text := in[:n]
		if used > 0 {
			text = make([]byte, used+n)
			copy(text[used:], in)
		}
		part, rv := op.part(q, k, text)
		if used > 0 {
			clear(text)
		}
		if rv != ck.CKR_OK {
			clear(out)
			return nil, rv
		}
		count(&op.chain, blocks)
		op.blocksLeft -= blocks
		op.offset = (used + n) % blockSize
		out, in = joined(out, part[used:], len(in)), in[n:]
		clear(part[:used])
	}
	return out, ck.CKR_OK
}

// count adds blocks to a counter of 128 bits.
func count(counter *[blockSize]byte, blocks uint64) {
	low := binary.BigEndian.Uint64(counter[8:])
	binary.BigEndian.PutUint64(counter[8:], low+blocks)
	if low+blocks < low {
		binary.BigEndian.PutUint64(counter[:8], binary.BigEndian.Uint64(counter[:8])+1)
	}
}

// joined appends a part to what there is, with room for so many octets in all from the beginning of the part; a part that is all is not copied. Parts are wiped.
func joined(out, part []byte, rest int) []byte {
	if out == nil && len(part) == rest {
		return part
	}
	if out == nil {
		out = make([]byte, 0, rest)
	}
	out = append(out, part...)
	clear(part)
	return out
}
