// Package softkey is the cryptography that runs in the daemon's own process: software keys, and the public half of every
// key. RSA, P-256 and the private half of secp256k1 run on OpenSSL's libcrypto, the public half of secp256k1 on decred's
// library, and everything on AES in Go's own.
//
// It speaks kmswire's words, so that a spec or algorithm has one name everywhere.
package softkey

import (
	"errors"

	"github.com/keyward/keyward/kms/kmswire"
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

// schemes gives what libcrypto calls an algorithm.
var schemes = map[kmswire.Algorithm]libcrypto.Scheme{
	kmswire.RSAPKCS1SHA256: libcrypto.PKCS1SHA256,
	kmswire.RSAPSSSHA256:   libcrypto.PSSSHA256,
	kmswire.ECDSASHA256:    libcrypto.ECDSASHA256,
	kmswire.RSAOAEPSHA1:    libcrypto.OAEPSHA1,
	kmswire.RSAOAEPSHA256:  libcrypto.OAEPSHA256,
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

// translate gives a libcrypto error its name in this package. Others pass with their text: they are OpenSSL failing.
func translate(err error) error {
	switch {
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
