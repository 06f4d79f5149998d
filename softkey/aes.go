package softkey

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"sync"
)

// AES is a symmetric software key: AES-256-GCM under a key derived afresh for each message, with a commitment to the
// version's key. See docs/ciphertext-blob.md. It may be used from any number of goroutines.
type AES struct {
	mu     sync.RWMutex
	prk    [sha256.Size]byte // of HKDF-Extract; changed only by Close
	closed bool
}

// Sizes of what Seal adds.
const (
	NonceSize      = 24 // random, chosen by Seal's caller
	CommitmentSize = 32
	TagSize        = 16
	aesKeySize     = 32
)

// The labels of the derivation: salt of HKDF-Extract, and first part of the info of HKDF-Expand.
const (
	extractSalt = "keyward software key v1"
	expandInfo  = "keyward AES-256-GCM and commitment v1"
)

// NewAES takes 32 octets of key. The caller wipes them.
func NewAES(key []byte) (*AES, error) {
	if len(key) != aesKeySize {
		return nil, ErrSize
	}
	prk, err := hkdf.Extract(sha256.New, key, []byte(extractSalt))
	if err != nil {
		return nil, err
	}
	k := &AES{}
	copy(k.prk[:], prk)
	clear(prk)
	return k, nil
}

// derive gives the AEAD of one message and its commitment. The key that Go's AES expands for itself can't be wiped;
// everything else here is.
func (k *AES) derive(nonce []byte) (cipher.AEAD, [CommitmentSize]byte, error) {
	var commitment [CommitmentSize]byte
	if len(nonce) != NonceSize {
		return nil, commitment, ErrSize
	}
	k.mu.RLock()
	if k.closed {
		k.mu.RUnlock()
		return nil, commitment, ErrClosed
	}
	okm, err := hkdf.Expand(sha256.New, k.prk[:], expandInfo+string(nonce), aesKeySize+CommitmentSize)
	k.mu.RUnlock()
	if err != nil {
		return nil, commitment, err
	}
	defer clear(okm)
	copy(commitment[:], okm[aesKeySize:])
	block, err := aes.NewCipher(okm[:aesKeySize])
	if err != nil {
		return nil, commitment, err
	}
	aead, err := cipher.NewGCM(block)
	return aead, commitment, err
}

// zeroNonce is GCM's: the key is new for each message, so the nonce need not be.
var zeroNonce [12]byte

// Seal appends commitment, ciphertext and tag of plaintext to dst. nonce has NonceSize random octets and must never be
// used twice with one key. dst must not overlap plaintext. Like the standard library's AEADs it panics when nonce has
// the wrong size, and when the key is closed: there is no right answer then, and both are bugs of the caller.
func (k *AES) Seal(dst, nonce, plaintext, aad []byte) []byte {
	aead, commitment, err := k.derive(nonce)
	if err != nil {
		panic("softkey: Seal: " + err.Error())
	}
	return aead.Seal(append(dst, commitment[:]...), zeroNonce[:], plaintext, aad)
}

// Open checks the commitment in constant time, then the tag, and appends the plaintext to dst. Every failure is
// ErrDecrypt, but for ErrClosed.
func (k *AES) Open(dst, nonce, sealed, aad []byte) ([]byte, error) {
	if len(nonce) != NonceSize || len(sealed) < CommitmentSize+TagSize {
		return nil, ErrDecrypt
	}
	aead, commitment, err := k.derive(nonce)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(commitment[:], sealed[:CommitmentSize]) != 1 {
		return nil, ErrDecrypt
	}
	out, err := aead.Open(dst, zeroNonce[:], sealed[CommitmentSize:], aad)
	if err != nil {
		return nil, ErrDecrypt
	}
	return out, nil
}

// Close wipes the key. Calls that are running end well; later ones fail, see Seal and Open.
func (k *AES) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.prk[:])
	k.closed = true
}
