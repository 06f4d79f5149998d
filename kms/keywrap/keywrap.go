// Package keywrap is AES key wrap with padding, RFC 5649 (SP 800-38F calls it KWP): the second half of the layout of
// CKM_RSA_AES_KEY_WRAP, in which private keys are imported. And it is key wrap without padding, RFC 3394 (KW), for PKCS #11 programs
// that know that only. Standard library only.
package keywrap

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
)

// MaxPlaintext bounds what is wrapped, in octets. The PKCS#8 form of an RSA-4096 key has 2,400.
const MaxPlaintext = 1 << 16

// Errors.
var (
	ErrSize      = errors.New("keywrap: the input has the wrong size")
	ErrIntegrity = errors.New("keywrap: the wrapped data fails its check")
)

// semiblock is what the algorithm counts in, in octets.
const semiblock = 8

// icvWhole is the initial value of RFC 3394 section 2.2.3.1.
const icvWhole = 0xa6a6a6a6a6a6a6a6

// icv is the constant half of the alternative initial value; the other half is the length.
var icv = []byte{0xa6, 0x59, 0x59, 0xa6}

// Wrap encrypts 1 to MaxPlaintext octets under an AES key of 16, 24 or 32 octets. The result has the next multiple of eight octets,
// and eight more. The same input gives the same result, so a key should wrap one thing only.
func Wrap(key, plaintext []byte) ([]byte, error) {
	if len(plaintext) == 0 || len(plaintext) > MaxPlaintext {
		return nil, ErrSize
	}
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, ErrSize
	}
	n := (len(plaintext) + semiblock - 1) / semiblock
	out := make([]byte, semiblock*(1+n))
	copy(out, icv)
	binary.BigEndian.PutUint32(out[len(icv):], uint32(len(plaintext)))
	copy(out[semiblock:], plaintext)
	encrypt(b, out, n)
	return out, nil
}

// WrapWhole encrypts 16 to MaxPlaintext octets, in multiples of eight, under an AES key of 16, 24 or 32 octets, without padding (RFC
// 3394). The result has eight octets more. The same input gives the same result.
func WrapWhole(key, plaintext []byte) ([]byte, error) {
	n := len(plaintext) / semiblock
	if len(plaintext)%semiblock != 0 || n < 2 || len(plaintext) > MaxPlaintext {
		return nil, ErrSize
	}
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, ErrSize
	}
	out := make([]byte, semiblock*(1+n))
	binary.BigEndian.PutUint64(out, icvWhole)
	copy(out[semiblock:], plaintext)
	encrypt(b, out, n)
	return out, nil
}

// UnwrapWhole undoes WrapWhole. The caller wipes the result. ErrSize tells only what anybody can see of wrapped.
func UnwrapWhole(key, wrapped []byte) ([]byte, error) {
	n := len(wrapped)/semiblock - 1
	if len(wrapped)%semiblock != 0 || n < 2 || n > MaxPlaintext/semiblock {
		return nil, ErrSize
	}
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, ErrSize
	}
	all := make([]byte, len(wrapped))
	copy(all, wrapped)
	decrypt(b, all, n)
	var want [semiblock]byte
	binary.BigEndian.PutUint64(want[:], icvWhole)
	if subtle.ConstantTimeCompare(all[:semiblock], want[:]) != 1 {
		clear(all)
		return nil, ErrIntegrity
	}
	return all[semiblock:], nil
}

// Unwrap undoes Wrap. The caller wipes the result. ErrSize tells only what anybody can see of wrapped; whatever else is wrong is
// ErrIntegrity, and takes the same work.
func Unwrap(key, wrapped []byte) ([]byte, error) {
	n := len(wrapped)/semiblock - 1
	if len(wrapped)%semiblock != 0 || n < 1 || n > MaxPlaintext/semiblock {
		return nil, ErrSize
	}
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, ErrSize
	}
	all := make([]byte, len(wrapped))
	copy(all, wrapped)
	decrypt(b, all, n)
	head, data := all[:semiblock], all[semiblock:]
	// A length that is not one of the last eight fails; the octets after it must be zero.
	size := binary.BigEndian.Uint32(head[len(icv):])
	pad := uint32(len(data)) - size
	bad := 1 - subtle.ConstantTimeCompare(head[:len(icv)], icv)
	bad |= 1 - subtle.ConstantTimeLessOrEq(int(pad&0x7fffffff), semiblock-1) | int(pad>>31)
	var rest byte
	for i := 1; i < semiblock; i++ { // i octets from the end
		inPad := subtle.ConstantTimeLessOrEq(i, int(pad&0x7fffffff))
		rest |= data[len(data)-i] & byte(-inPad)
	}
	bad |= 1 - subtle.ConstantTimeByteEq(rest, 0)
	if bad != 0 {
		clear(all)
		return nil, ErrIntegrity
	}
	clear(head)
	return data[:size:size], nil
}

// encrypt is W of SP 800-38F over n semiblocks and the initial value before them, in place; or one block of AES if there is one.
func encrypt(b cipher.Block, all []byte, n int) {
	if n == 1 {
		b.Encrypt(all, all)
		return
	}
	var block [aes.BlockSize]byte
	defer clear(block[:])
	for t := 1; t <= 6*n; t++ {
		r := all[semiblock*(1+(t-1)%n):][:semiblock]
		copy(block[:semiblock], all)
		copy(block[semiblock:], r)
		b.Encrypt(block[:], block[:])
		binary.BigEndian.PutUint64(all, binary.BigEndian.Uint64(block[:])^uint64(t))
		copy(r, block[semiblock:])
	}
}

// decrypt undoes encrypt.
func decrypt(b cipher.Block, all []byte, n int) {
	if n == 1 {
		b.Decrypt(all, all)
		return
	}
	var block [aes.BlockSize]byte
	defer clear(block[:])
	for t := 6 * n; t > 0; t-- {
		r := all[semiblock*(1+(t-1)%n):][:semiblock]
		binary.BigEndian.PutUint64(block[:], binary.BigEndian.Uint64(all)^uint64(t))
		copy(block[semiblock:], r)
		b.Decrypt(block[:], block[:])
		copy(all, block[:semiblock])
		copy(r, block[semiblock:])
	}
}
