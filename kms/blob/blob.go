// Package blob is the layout of the ciphertext of symmetric keys: a header that names the key, and the octets that bind
// header and EncryptionContext to the ciphertext. It does no cryptography. docs/ciphertext-blob.md has the layout, its
// reasons and test vectors.
//
//	blob = header || body
//	header = version 1 | algorithm 1 | 24 | key id | 10 | version suffix | nonce 24 or 12, or: length 1 | External Key ID
//	body = commitment 32 | ciphertext | tag 16                        (Software)
//	     = ciphertext | tag 16                                        (HSM)
//	     = length 1 | IV | length 1 | metadata | tag 16 | ciphertext  (External)
package blob

import "errors"

// ErrMalformed says that octets are not a blob, or a Header is not one that a blob can have. It never says more.
var ErrMalformed = errors.New("blob: malformed")

// Algorithm says how the body was made.
type Algorithm uint8

// The algorithms.
const (
	// Software is AES-256-GCM under a key derived for this blob from the version's key and a nonce of 24 octets, with a
	// commitment of 32 octets in front: softkey.AES.
	Software Algorithm = 1
	// HSM is AES-GCM with the version's key inside an HSM and a nonce of 12 octets; no commitment.
	HSM Algorithm = 2
	// External is AES-GCM by another key manager, behind a proxy: what it answered is the body, see Outside. In the header its name of the key
	// stands in place of a nonce, so that a blob can be opened by whoever has that key manager, and by nobody who has not.
	External Algorithm = 3
)

// layouts has what differs between algorithms: the size of the nonce, and what the body has besides the ciphertext.
// What varies for External is counted at its least.
var layouts = map[Algorithm]struct{ nonce, overhead int }{
	Software: {24, 32 + 16},
	HSM:      {12, 16},
	External: {0, 1 + 12 + 1 + outsideTag},
}

// The sizes of the fixed parts, in octets.
const (
	formatVersion = 1
	keyIDSize     = len("key-") + 20
	suffixSize    = 10
	versionIDSize = keyIDSize + 1 + suffixSize
	fixedSize     = 1 + 1 + 1 + keyIDSize + 1 + suffixSize
)

// Header is the part of a blob that is read before anything is decrypted. None of it is secret, and all of it is bound
// to the ciphertext by AppendAAD.
type Header struct {
	Algorithm Algorithm
	KeyID     string // key-<20 lower-case letters and digits>
	VersionID string // <KeyID>-<10 lower-case letters and digits>
	Nonce     []byte // 24 octets for Software, 12 for HSM, none for External

	ExternalID string // for External: 1 to 128 of A-Z a-z 0-9 - . _
}

// NonceSize is the size of the algorithm's nonce in octets; 0 for an unknown algorithm.
func (a Algorithm) NonceSize() int { return layouts[a].nonce }

// Size is the size of the blob of a plaintext of n octets; 0 for an unknown algorithm, and for External, whose blobs have no size that is known before.
func (a Algorithm) Size(n int) int {
	row, ok := layouts[a]
	if !ok || a == External {
		return 0
	}
	return fixedSize + row.nonce + row.overhead + n
}

// AppendHeader appends the header to dst. ErrMalformed, and dst as it was, when Parse would not give h back.
func AppendHeader(dst []byte, h Header) ([]byte, error) {
	row, ok := layouts[h.Algorithm]
	if !ok || len(h.Nonce) != row.nonce || !validVersionID(h.VersionID) || h.VersionID[:keyIDSize] != h.KeyID ||
		h.Algorithm == External && !validExternalID(h.ExternalID) || h.Algorithm != External && h.ExternalID != "" {
		return dst, ErrMalformed
	}
	dst = append(dst, formatVersion, byte(h.Algorithm), byte(keyIDSize))
	dst = append(dst, h.KeyID...)
	dst = append(dst, suffixSize)
	dst = append(dst, h.VersionID[keyIDSize+1:]...)
	if h.Algorithm == External {
		dst = append(dst, byte(len(h.ExternalID)))
		return append(dst, h.ExternalID...), nil
	}
	return append(dst, h.Nonce...), nil
}

// Parse reads the header of a blob and gives its size: b[:size] is what AppendAAD takes, b[size:] the body, which is
// long enough for an empty plaintext at least. Whatever parses, AppendHeader writes the same again. h.Nonce lies in b.
// Every failure is ErrMalformed.
func Parse(b []byte) (h Header, size int, err error) {
	if len(b) < fixedSize || b[0] != formatVersion {
		return Header{}, 0, ErrMalformed
	}
	row, ok := layouts[Algorithm(b[1])]
	size = fixedSize + row.nonce
	external := ""
	if Algorithm(b[1]) == External && len(b) > size {
		end := size + 1 + int(b[size])
		if len(b) < end || !validExternalID(string(b[size+1:end])) {
			return Header{}, 0, ErrMalformed
		}
		external, size = string(b[size+1:end]), end
	}
	if !ok || len(b) < size+row.overhead {
		return Header{}, 0, ErrMalformed
	}
	const suffixAt = 3 + keyIDSize + 1
	if b[2] != byte(keyIDSize) || b[suffixAt-1] != suffixSize {
		return Header{}, 0, ErrMalformed
	}
	// One string holds both ids.
	var id [versionIDSize]byte
	copy(id[:], b[3:3+keyIDSize])
	id[keyIDSize] = '-'
	copy(id[keyIDSize+1:], b[suffixAt:fixedSize])
	version := string(id[:])
	if !validVersionID(version) {
		return Header{}, 0, ErrMalformed
	}
	h = Header{Algorithm: Algorithm(b[1]), KeyID: version[:keyIDSize], VersionID: version, ExternalID: external}
	h.Nonce = b[fixedSize : fixedSize+row.nonce : fixedSize+row.nonce]
	return h, size, nil
}

// validVersionID checks the form of a version id, and so that of the key id in it.
func validVersionID(id string) bool {
	return len(id) == versionIDSize && id[:4] == "key-" && lowerAlnum(id[4:keyIDSize]) &&
		id[keyIDSize] == '-' && lowerAlnum(id[keyIDSize+1:])
}

func lowerAlnum(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
