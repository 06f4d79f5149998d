package xki

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
)

// framedAAD is what the tag of a ciphertext covers: the caller's associated data and the proxy's metadata, each behind its length, so that nothing
// can be moved from one to the other (§2.6).
func framedAAD(aad, metadata []byte) []byte {
	b := make([]byte, 0, 3+len(aad)+len(metadata))
	b = binary.BigEndian.AppendUint16(b, uint16(len(aad)))
	b = append(b, aad...)
	b = append(b, byte(len(metadata)))
	return append(b, metadata...)
}

// integrity is the ciphertext data integrity value (§2.7), without lengths: it tells of faults, and keeps nobody out.
func (s *Sealed) integrity(aad []byte) []byte {
	h := sha256.New()
	for _, part := range [][]byte{aad, s.Metadata, s.IV, s.Ciphertext, s.Tag} {
		h.Write(part)
	}
	return h.Sum(nil)
}

func (s *Sealed) hasIntegrity(aad, value []byte) bool { return hmac.Equal(s.integrity(aad), value) }
