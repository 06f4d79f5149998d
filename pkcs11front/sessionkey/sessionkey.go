// Package sessionkey is the keys that live in the daemon's memory as session objects of PKCS #11: secret keys, private keys and public
// keys, and what can be done with them. It knows mechanisms, octets and DER, and nothing of attributes, sessions or who may do what:
// which mechanisms a key object allows is the door's to say.
//
// A key is made from numbers, from an encoding or by chance, may be used from any number of goroutines, and has to be closed. Close wipes
// it; calls that are running end well, and later ones give ErrClosed. What Go's AES and HMAC make of a key can't be wiped and goes with
// the garbage collector. Whatever comes in is bounded before memory is taken for it.
package sessionkey

import (
	"github.com/keyward/keyward/kms/softkey"
	"github.com/keyward/keyward/kms/softkey/libcrypto"
)

// Errors: those of software keys. ErrDecrypt and a false verification never say which check failed.
var (
	ErrAlgorithm = softkey.ErrAlgorithm // CKR_MECHANISM_INVALID, CKR_MECHANISM_PARAM_INVALID or CKR_KEY_TYPE_INCONSISTENT
	ErrSize      = softkey.ErrSize      // of the input, or of the key that is asked for
	ErrDecrypt   = softkey.ErrDecrypt   // also what can't be unwrapped
	ErrMalformed = softkey.ErrMalformed // key material that is no key, or whose parts do not fit each other
	ErrClosed    = softkey.ErrClosed
)

// Kind is what kind of key it is.
type Kind uint8

// The kinds.
const (
	AES     Kind = iota + 1 // 16, 24 or 32 octets
	Generic                 // a generic secret, 1 to MaxSecret octets
	RSA
	EC
)

// Bounds. Sizes are in octets.
const (
	MaxSecret = 512
	MinRSA    = libcrypto.MinRSA // bits. The modulus is a multiple of 64
	MaxRSA    = libcrypto.MaxRSA
	MaxShared = 4096 // shared data of a KDF
)
