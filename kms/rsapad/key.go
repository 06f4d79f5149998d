package rsapad

import "crypto/subtle"

// UnpadKey is Unpad for one who expects a message of size octets, such as a key that is unwrapped: em with good padding around a message of another length is
// as bad as one with bad padding, and both give size octets that the secret and the ciphertext determine. So there is nothing that the length could show.
// Fakes of one ciphertext for two sizes, and that of Unpad, have nothing in common: if one were a part of another, who can see both would know that neither is
// real. size is at most k-11; the rest is as with Unpad.
func UnpadKey(em, ciphertext, secret []byte, size int) []byte {
	k := len(em)
	if size < 0 || size > k-overhead {
		clear(em)
		return em[k:]
	}
	fake := expand(keyed(ciphertext, secret), "key", size)
	good, separator := inspect(em)
	good &= subtle.ConstantTimeEq(int32(k-1-separator), int32(size))
	key := em[k-size:]
	subtle.ConstantTimeCopy(1-good, key, fake)
	clear(fake)
	clear(em[:k-size])
	return key
}
