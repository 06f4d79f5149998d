package hsmpool

import (
	"crypto"
	"crypto/subtle"
	"encoding/binary"
)

// unpadOAEP undoes EME-OAEP (RFC 8017 §7.1.2) with MGF1 on em, the output of the raw RSA operation, which it overwrites. Which check
// failed takes the same time and gives the same answer; only the length of a valid message shows.
func unpadOAEP(em []byte, hash, mgf crypto.Hash, label []byte) (message []byte, ok bool) {
	h := hash.Size()
	if len(em) < 2*h+2 {
		return nil, false
	}
	seed, db := em[1:1+h], em[1+h:]
	mgf1XOR(seed, db, mgf)
	mgf1XOR(db, seed, mgf)

	lHash := hash.New()
	lHash.Write(label)
	bad := 1 - subtle.ConstantTimeByteEq(em[0], 0)
	bad |= 1 - subtle.ConstantTimeCompare(db[:h], lHash.Sum(nil))

	// After the hash come zeros, a one, and the message. looking stays 1 until the one is seen.
	looking, index := 1, 0
	rest := db[h:]
	for i, b := range rest {
		zero := subtle.ConstantTimeByteEq(b, 0)
		one := subtle.ConstantTimeByteEq(b, 1)
		index = subtle.ConstantTimeSelect(looking&one, i, index)
		bad |= looking & (1 - zero) & (1 - one)
		looking &= 1 - one
	}
	if bad|looking != 0 {
		clear(em)
		return nil, false
	}
	return rest[index+1:], true
}

// mgf1XOR adds MGF1(seed) to out (RFC 8017 §B.2.1).
func mgf1XOR(out, seed []byte, mgf crypto.Hash) {
	var counter [4]byte
	var digest [64]byte // as the longest hash
	hash := mgf.New()
	for n, c := 0, uint32(0); n < len(out); c++ {
		binary.BigEndian.PutUint32(counter[:], c)
		hash.Reset()
		hash.Write(seed)
		hash.Write(counter[:])
		sum := hash.Sum(digest[:0])
		n += subtle.XORBytes(out[n:], out[n:], sum)
	}
	clear(digest[:])
}
