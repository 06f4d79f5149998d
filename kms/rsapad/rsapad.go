// Package rsapad takes PKCS #1 v1.5 encryption padding off (RFC 8017 section 7.2.2) without ever saying whether it was good: implicit
// rejection, as draft-irtf-cfrg-rsa-guidance constructs it. Standard library only.
//
// Whoever can tell good padding from bad, by an error, by a time or by a length, can decrypt anything with a few thousand questions
// (Bleichenbacher 1998). So bad padding gives a message too: one that the key's secret and the ciphertext determine, of a length that
// they determine as well. It is the same each time, and to one who has not the secret it looks like any other message.
package rsapad

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"hash"
)

// What surrounds a message: 00, 02, at least eight octets that are not zero, 00.
const (
	minSeparator = 10               // where the last zero stands at the earliest
	overhead     = minSeparator + 1 // octets
)

// lengths is how many lengths are drawn for a fake message; the last that is possible is taken. At least every other one is possible,
// so that none is has a probability of 2^-128.
const lengths = 128

// SecretSize is how many octets of secret a key should have.
const SecretSize = 32

// Unpad gives the message in em, which is what the raw RSA operation made of ciphertext: k octets like it. It never fails: if em is not
// padded as it should be, it gives a fake message of 0 to k-11 octets. secret belongs to the key: whoever has it can tell fakes from
// messages. It must stay the same as long as the key does, in every copy of the key, so that the same question has one answer: if two
// differ, the padding was bad.
//
// The message is the end of em, which is overwritten; the octets before it are zero, and what was made on the way is wiped, but for
// what HMAC keeps. The caller wipes the message.
//
// Time and memory accesses depend on k only. So the length of the result is the first thing that shows, and it shows nothing to one who
// does not know the message anyway, as the lengths of fakes are spread over all that are possible. A caller who expects one length, such
// as that of a session key, must go on with any other as with a wrong key, and not with an error of its own that others see: that error
// would tell bad padding from good but for one time in k.
//
// em with fewer than 11 octets has no message: the result is empty. No RSA key is so short.
func Unpad(em, ciphertext, secret []byte) []byte {
	k := len(em)
	if k < overhead {
		clear(em)
		return em[k:]
	}
	fake, fakeLength := reject(k, ciphertext, secret)
	good, separator := inspect(em)
	subtle.ConstantTimeCopy(1-good, em, fake)
	clear(fake)
	start := k - subtle.ConstantTimeSelect(good, k-1-separator, fakeLength)
	for i := range em {
		em[i] &= byte(-subtle.ConstantTimeLessOrEq(start, i))
	}
	return em[start:]
}

// inspect says whether em is well padded, as 1 or 0, and where the separator is, if it is.
func inspect(em []byte) (good, separator int) {
	good = subtle.ConstantTimeByteEq(em[0], 0) & subtle.ConstantTimeByteEq(em[1], 2)
	found := 0
	for i, b := range em[2:] {
		zero := subtle.ConstantTimeByteEq(b, 0)
		separator = subtle.ConstantTimeSelect(zero&^found, i+2, separator)
		found |= zero
	}
	return good & found & subtle.ConstantTimeLessOrEq(minSeparator, separator), separator
}

// keyed is the PRF from which all that is fake is made: HMAC-SHA-256 under a key of the secret and the ciphertext.
func keyed(ciphertext, secret []byte) hash.Hash {
	mac := hmac.New(sha256.New, secret)
	mac.Write(ciphertext)
	key := mac.Sum(nil)
	defer clear(key)
	return hmac.New(sha256.New, key)
}

// reject makes the fake message, which is the end of k octets, and its length.
func reject(k int, ciphertext, secret []byte) (fake []byte, length int) {
	mac := keyed(ciphertext, secret)
	fake = expand(mac, "message", k)
	// Candidates are cut to as many bits as the longest message needs.
	longest := k - overhead
	mask := longest
	for shift := 1; shift < 16; shift *= 2 {
		mask |= mask >> shift
	}
	candidates := expand(mac, "length", 2*lengths)
	for i := range lengths {
		c := int(binary.BigEndian.Uint16(candidates[2*i:])) & mask
		length = subtle.ConstantTimeSelect(subtle.ConstantTimeLessOrEq(c, longest), c, length)
	}
	clear(candidates)
	return fake, length
}

// expand is the draft's IRPRF: size octets of HMAC-SHA-256 blocks over a counter, a label, and the size in bits.
func expand(mac hash.Hash, label string, size int) []byte {
	out := make([]byte, 0, size+sha256.Size)
	in := make([]byte, 2, 16)
	in = append(in, label...)
	in = binary.BigEndian.AppendUint16(in, uint16(8*size))
	for i := 0; len(out) < size; i++ {
		binary.BigEndian.PutUint16(in, uint16(i))
		mac.Reset()
		mac.Write(in)
		out = mac.Sum(out)
	}
	clear(out[size:])
	return out[:size]
}
