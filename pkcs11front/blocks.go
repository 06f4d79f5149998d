package pkcs11front

import (
	"crypto/subtle"
	"encoding/binary"

	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/pkcs11front/ck"
)

// maxPart is how many octets of a stream go to the key at once: a part of a frame for an HSM.
const maxPart = 64 << 10

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
	if kmsKey, ok := k.(*kmsKey); ok && !op.continued {
		op.ended = kmsKey.endOfParts(q.ctx, kindRows[op.kind].verb, m)
	}
	op.continued = true
	op.uses++
	op.octets += int64(len(in))
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
