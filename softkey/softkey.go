// Package softkey is the cryptography that runs in the daemon's own process: software keys, and the public half of every
// key. RSA and P-256 run on OpenSSL's libcrypto, secp256k1 on decred's library, and everything on AES in Go's own.
//
// It speaks kmswire's words, so that a spec or algorithm has one name everywhere.
package softkey

import (
	"errors"

	"github.com/keyward/keyward/kms/kmswire"
)

// Errors. ErrDecrypt and a false Verify never say which check failed.
var (
	ErrAlgorithm = errors.New("softkey: the algorithm does not fit the key")
	ErrSize      = errors.New("softkey: the input has the wrong size")
	ErrDecrypt   = errors.New("softkey: decryption failed")
	ErrMalformed = errors.New("softkey: malformed key")
)

// PrivateKey is an asymmetric private key, parsed once and used from any number of goroutines.
type PrivateKey struct{}

// GenerateKey makes a key pair of an RSA or EC spec.
func GenerateKey(spec kmswire.KeySpec) (*PrivateKey, error) { panic("contract") }

// ParsePrivateKey reads what Marshal gave: PKCS#8 DER. It checks the key against spec. The caller wipes der.
func ParsePrivateKey(spec kmswire.KeySpec, der []byte) (*PrivateKey, error) { panic("contract") }

// Marshal gives the key as PKCS#8 DER. The caller wipes it.
func (k *PrivateKey) Marshal() ([]byte, error) { panic("contract") }

// Public returns the public half.
func (k *PrivateKey) Public() *PublicKey { panic("contract") }

// Sign signs a 32-octet SHA-256 digest. RSA signatures are the bare block, ECDSA ones ASN.1 DER.
func (k *PrivateKey) Sign(alg kmswire.Algorithm, digest []byte) ([]byte, error) { panic("contract") }

// Decrypt undoes RSA-OAEP with an empty label, in constant time.
func (k *PrivateKey) Decrypt(alg kmswire.Algorithm, ciphertext []byte) ([]byte, error) {
	panic("contract")
}

// Close wipes the key and frees its memory. The key must not be in use. It is also freed when it becomes unreachable.
func (k *PrivateKey) Close() { panic("contract") }

// PublicKey is an asymmetric public key, parsed once and used from any number of goroutines.
type PublicKey struct{}

// ParsePublicKey reads DER SubjectPublicKeyInfo, including secp256k1, and tells the spec. RSA keys of other sizes and other
// curves give ErrMalformed.
func ParsePublicKey(der []byte) (*PublicKey, error) { panic("contract") }

// Spec is the key's.
func (k *PublicKey) Spec() kmswire.KeySpec { panic("contract") }

// Marshal gives the key as DER SubjectPublicKeyInfo.
func (k *PublicKey) Marshal() []byte { panic("contract") }

// PEM gives the key as PEM SubjectPublicKeyInfo with LF line ends.
func (k *PublicKey) PEM() string { panic("contract") }

// Verify checks a signature over a 32-octet SHA-256 digest. A signature that does not verify, or can't be parsed, is
// false and no error.
func (k *PublicKey) Verify(alg kmswire.Algorithm, digest, signature []byte) (bool, error) {
	panic("contract")
}

// Encrypt is RSA-OAEP with an empty label. ErrSize when the plaintext is too long: MaxPlaintext says how long it may be.
func (k *PublicKey) Encrypt(alg kmswire.Algorithm, plaintext []byte) ([]byte, error) {
	panic("contract")
}

// MaxPlaintext is the most that Encrypt takes with alg, in octets; 0 when the algorithm does not fit.
func (k *PublicKey) MaxPlaintext(alg kmswire.Algorithm) int { panic("contract") }

// AES is a symmetric software key: AES-256-GCM under a key derived afresh for each message, with a commitment to the
// version's key. See docs/ciphertext-blob.md.
type AES struct{}

// NewAES takes 32 octets of key. The caller wipes them.
func NewAES(key []byte) (*AES, error) { panic("contract") }

// Sizes of what Seal adds.
const (
	NonceSize      = 24 // random, chosen by Seal's caller
	CommitmentSize = 32
	TagSize        = 16
)

// Seal appends commitment, ciphertext and tag of plaintext to dst. nonce has NonceSize random octets and must never be
// used twice with one key. dst must not overlap plaintext.
func (k *AES) Seal(dst, nonce, plaintext, aad []byte) []byte { panic("contract") }

// Open checks the commitment in constant time, then the tag, and appends the plaintext to dst. Every failure is
// ErrDecrypt.
func (k *AES) Open(dst, nonce, sealed, aad []byte) ([]byte, error) { panic("contract") }

// Close wipes the key.
func (k *AES) Close() { panic("contract") }
