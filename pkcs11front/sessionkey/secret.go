package sessionkey

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	_ "crypto/sha1" // what HMAC can be asked for
	_ "crypto/sha256"
	_ "crypto/sha3"
	_ "crypto/sha512"
	"errors"
	"hash"
	"slices"
	"sync"

	"github.com/keyward/keyward/kms/keywrap"
	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/kms/softkey"
)

// Secret is a secret key: AES or Generic.
type Secret struct {
	kind Kind
	size int

	mu     sync.RWMutex // guards what follows; only Close changes it
	octets []byte
	aes    *softkey.BareAES // of AES
	closed bool
}

// NewSecret makes a key of its octets. ErrSize if its kind has no keys of that size. The caller wipes octets.
func NewSecret(kind Kind, octets []byte) (*Secret, error) {
	if !sizeOK(kind, len(octets)) {
		return nil, ErrSize
	}
	k := &Secret{kind: kind, size: len(octets), octets: slices.Clone(octets)}
	if kind == AES {
		var err error
		if k.aes, err = softkey.NewBareAES(octets); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// GenerateSecret makes a random key of size octets.
func GenerateSecret(kind Kind, size int) (*Secret, error) {
	if !sizeOK(kind, size) {
		return nil, ErrSize
	}
	octets := make([]byte, size)
	defer clear(octets)
	if _, err := rand.Read(octets); err != nil {
		return nil, err
	}
	return NewSecret(kind, octets)
}

func sizeOK(kind Kind, size int) bool {
	switch kind {
	case AES:
		return size == 16 || size == 24 || size == 32
	case Generic:
		return size >= 1 && size <= MaxSecret
	}
	return false
}

// Kind is AES or Generic.
func (k *Secret) Kind() Kind { return k.kind }

// Size is the key's, in octets.
func (k *Secret) Size() int { return k.size }

// Marshal gives the key's octets. The caller wipes them.
func (k *Secret) Marshal() ([]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return nil, ErrClosed
	}
	return slices.Clone(k.octets), nil
}

// CheckValue is CKA_CHECK_VALUE of an AES key: the first three octets of a block of zeros under it (PKCS #11 3.0 §4.10.2). A generic
// secret has none (ErrAlgorithm): it may be short enough to be found from it.
func (k *Secret) CheckValue() ([]byte, error) {
	zeros, err := k.EncryptBy(&mechanism.Mechanism{Kind: mechanism.AESECB}, make([]byte, 16))
	if err != nil {
		return nil, err
	}
	return zeros[:3], nil
}

// EncryptBy encrypts by a mode of AES: see softkey.BareAES.
func (k *Secret) EncryptBy(m *mechanism.Mechanism, in []byte) ([]byte, error) {
	aes, err := k.bare()
	if err != nil {
		return nil, err
	}
	return aes.EncryptBy(m, in)
}

// DecryptBy undoes EncryptBy. ErrDecrypt whatever is wrong with the ciphertext. The caller wipes the plaintext.
func (k *Secret) DecryptBy(m *mechanism.Mechanism, in []byte) ([]byte, error) {
	aes, err := k.bare()
	if err != nil {
		return nil, err
	}
	return aes.DecryptBy(m, in)
}

func (k *Secret) bare() (*softkey.BareAES, error) {
	if k.kind != AES {
		return nil, ErrAlgorithm
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return nil, ErrClosed
	}
	return k.aes, nil
}

// HMAC starts an HMAC with a hash of SHA-1, SHA-2 or SHA-3, under a key of either kind; an AES key is its octets. What is started goes
// on when the key is closed. The caller compares results in constant time (crypto/subtle), cut or not.
func (k *Secret) HMAC(h crypto.Hash) (hash.Hash, error) {
	if !hmacHashes[h] {
		return nil, ErrAlgorithm
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return nil, ErrClosed
	}
	return hmac.New(h.New, k.octets), nil
}

var hmacHashes = map[crypto.Hash]bool{
	crypto.SHA1: true, crypto.SHA224: true, crypto.SHA256: true, crypto.SHA384: true, crypto.SHA512: true,
	crypto.SHA512_224: true, crypto.SHA512_256: true,
	crypto.SHA3_224: true, crypto.SHA3_256: true, crypto.SHA3_384: true, crypto.SHA3_512: true,
}

// CMAC starts an AES-CMAC (RFC 4493), otherwise like HMAC.
func (k *Secret) CMAC() (hash.Hash, error) {
	aes, err := k.bare()
	if err != nil {
		return nil, err
	}
	return newCMAC(aes.Block()), nil
}

// Wrap is AES key wrap: without padding (RFC 3394: whole multiples of eight octets, 16 at least), or padded (RFC 5649: any length but
// 0). ErrSize if in has another size. The same input gives the same result.
func (k *Secret) Wrap(padded bool, in []byte) ([]byte, error) {
	if padded {
		return k.wrap(keywrap.Wrap, in)
	}
	return k.wrap(keywrap.WrapWhole, in)
}

// Unwrap undoes Wrap. ErrDecrypt whatever is wrong. The caller wipes the result.
func (k *Secret) Unwrap(padded bool, wrapped []byte) ([]byte, error) {
	unwrap := keywrap.UnwrapWhole
	if padded {
		unwrap = keywrap.Unwrap
	}
	out, err := k.wrap(unwrap, wrapped)
	if err == ErrSize {
		err = ErrDecrypt
	}
	return out, err
}

func (k *Secret) wrap(f func(key, in []byte) ([]byte, error), in []byte) ([]byte, error) {
	if k.kind != AES {
		return nil, ErrAlgorithm
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return nil, ErrClosed
	}
	out, err := f(k.octets, in)
	switch {
	case errors.Is(err, keywrap.ErrSize):
		return nil, ErrSize
	case errors.Is(err, keywrap.ErrIntegrity):
		return nil, ErrDecrypt
	}
	return out, err
}

// Close wipes the key.
func (k *Secret) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.octets)
	k.aes = nil
	k.closed = true
}
