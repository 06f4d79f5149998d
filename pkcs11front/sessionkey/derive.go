package sessionkey

import (
	"crypto"
	"encoding/binary"
	"slices"
)

// MinDerived is how much of a coordinate has to be taken without a KDF, in octets. Less would give the secret away piece by piece: a key
// of a few octets can be found by trying.
const MinDerived = 16

// kdfHashes are those of the KDFs of PKCS #11 2.40 §2.3.8.
var kdfHashes = map[crypto.Hash]bool{
	crypto.SHA1: true, crypto.SHA224: true, crypto.SHA256: true, crypto.SHA384: true, crypto.SHA512: true,
}

// derivedSize checks what is asked for, and says how many octets to give.
func derivedSize(kdf crypto.Hash, shared []byte, size, field int) (int, error) {
	if kdf == 0 {
		switch {
		case len(shared) != 0:
			return 0, ErrAlgorithm
		case size == 0:
			return field, nil
		case size < MinDerived || size > field:
			return 0, ErrSize
		}
		return size, nil
	}
	switch {
	case !kdfHashes[kdf] || len(shared) > MaxShared:
		return 0, ErrAlgorithm
	case size == 0:
		return kdf.Size(), nil
	case size < 1 || size > MaxSecret:
		return 0, ErrSize
	}
	return size, nil
}

// derive is the KDF of ANSI X9.63 (SEC 1 section 3.6.1): hashes over z, a counter and shared. Without a hash it gives the end of z: what
// is cut off is cut off in front (PKCS #11 2.40 §2.3.8).
func derive(z []byte, kdf crypto.Hash, shared []byte, size int) []byte {
	if kdf == 0 {
		return slices.Clone(z[len(z)-size:])
	}
	h := kdf.New()
	out := make([]byte, 0, size+kdf.Size())
	for i := uint32(1); len(out) < size; i++ {
		h.Reset()
		h.Write(z)
		var counter [4]byte
		binary.BigEndian.PutUint32(counter[:], i)
		h.Write(counter[:])
		h.Write(shared)
		out = h.Sum(out)
	}
	h.Reset()
	clear(out[size:])
	return out[:size:size]
}
