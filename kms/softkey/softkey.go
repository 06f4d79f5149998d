// Package softkey is the cryptography that runs in the daemon's own process: software keys, and the public half of every
// key. RSA, P-256 and the private half of secp256k1 run on OpenSSL's libcrypto, the public half of secp256k1 on decred's
// library, and everything on AES in Go's own.
//
// It speaks kmswire's words, so that a spec or algorithm has one name everywhere.
package softkey

import (
	"crypto"
	"errors"

	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/kms/softkey/libcrypto"
)

// Errors. ErrDecrypt and a false Verify never say which check failed.
var (
	ErrAlgorithm = errors.New("softkey: the algorithm does not fit the key")
	ErrSize      = errors.New("softkey: the input has the wrong size")
	ErrDecrypt   = errors.New("softkey: decryption failed")
	ErrMalformed = errors.New("softkey: malformed key")
	ErrClosed    = errors.New("softkey: the key is closed")
)

// specs gives what libcrypto calls a spec. bits is the modulus of RSA keys.
var specs = map[kmswire.KeySpec]struct {
	kind libcrypto.Kind
	bits int
}{
	kmswire.RSA2048: {libcrypto.RSA, 2048},
	kmswire.RSA3072: {libcrypto.RSA, 3072},
	kmswire.RSA4096: {libcrypto.RSA, 4096},
	kmswire.ECP256:  {libcrypto.P256, 256},
	kmswire.ECP256K: {libcrypto.Secp256k1, 256},
}

// scheme is an algorithm of the API: a mechanism with a SHA-256 digest as its input. ECDSA signatures of the API are DER.
type scheme struct {
	mechanism  mechanism.Mechanism
	digestInfo bool // the digest is wrapped in a DigestInfo first
}

var schemes = map[kmswire.Algorithm]*scheme{
	kmswire.RSAPKCS1SHA256: {mechanism: mechanism.Mechanism{Kind: mechanism.RSAPKCS1}, digestInfo: true},
	kmswire.RSAPSSSHA256:   {mechanism: mechanism.Mechanism{Kind: mechanism.RSAPSS, Hash: crypto.SHA256, MGF: crypto.SHA256, Salt: 32}},
	kmswire.ECDSASHA256:    {mechanism: mechanism.Mechanism{Kind: mechanism.ECDSA}},
	kmswire.RSAOAEPSHA1:    {mechanism: mechanism.Mechanism{Kind: mechanism.RSAOAEP, Hash: crypto.SHA1, MGF: crypto.SHA1}},
	kmswire.RSAOAEPSHA256:  {mechanism: mechanism.Mechanism{Kind: mechanism.RSAOAEP, Hash: crypto.SHA256, MGF: crypto.SHA256}},
}

// digestInfoSHA256 is the DER of a DigestInfo up to its digest (RFC 8017 section 9.2, note 1).
const digestInfoSHA256 = "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"

// input is what the mechanism takes for a digest of the API. buf is room for it.
func (s *scheme) input(buf *[len(digestInfoSHA256) + kmswire.DigestSize]byte, digest []byte) []byte {
	if !s.digestInfo {
		return digest
	}
	copy(buf[copy(buf[:], digestInfoSHA256):], digest)
	return buf[:]
}

// specOf is the spec of a key, or ErrMalformed when it is none of ours.
func specOf(k *libcrypto.Key) (kmswire.KeySpec, error) {
	for spec, row := range specs {
		if row.kind == k.Kind() && row.bits == k.Bits() {
			return spec, nil
		}
	}
	return "", ErrMalformed
}

// Translate gives a libcrypto error its name in this package. Others pass with their text: they are OpenSSL failing. It is exported for
// who uses keys of libcrypto that are none of the API's.
func Translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, libcrypto.ErrKey):
		return ErrMalformed
	case errors.Is(err, libcrypto.ErrScheme):
		return ErrAlgorithm
	case errors.Is(err, libcrypto.ErrSize):
		return ErrSize
	case errors.Is(err, libcrypto.ErrDecrypt):
		return ErrDecrypt
	case errors.Is(err, libcrypto.ErrClosed):
		return ErrClosed
	}
	return err
}
