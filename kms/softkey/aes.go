package softkey

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"hash"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/keyward/keyward/kms/mechanism"
)

// AES is a symmetric software key: AES-256-GCM under a key derived afresh for each message, with a commitment to the
// version's key. See docs/ciphertext-blob.md. It may be used from any number of goroutines.
type AES struct {
	mu     sync.RWMutex
	prk    [sha256.Size]byte // of HKDF-Extract; changed only by Close
	key    [aesKeySize]byte  // for bare modes; changed only by Close
	closed bool
	// bare is made by the first use of a bare mode: most keys have none.
	bare atomic.Pointer[BareAES]
	// derivers keeps HMACs that have absorbed prk: hkdf.Expand absorbs it twice per message, which is a third of the time
	// of sealing 1 KiB. Close can't wipe what is in here; it leaves it to the garbage collector.
	derivers sync.Pool
}

// deriver is the work space of one derivation.
type deriver struct {
	mac  hash.Hash // HMAC-SHA256 under prk
	info [len(expandInfo) + NonceSize + 1]byte
	okm  [aesKeySize + CommitmentSize]byte
}

// expand is HKDF-Expand (RFC 5869 section 2.3) with SHA-256, to 64 octets: two blocks, each an HMAC of the one before,
// the info and a counter.
func (d *deriver) expand(nonce []byte) {
	counter := len(d.info) - 1
	copy(d.info[:], expandInfo)
	copy(d.info[len(expandInfo):], nonce)
	d.info[counter] = 1
	d.mac.Reset()
	d.mac.Write(d.info[:])
	first := d.mac.Sum(d.okm[:0])
	d.info[counter] = 2
	d.mac.Reset()
	d.mac.Write(first)
	d.mac.Write(d.info[:])
	d.mac.Sum(first)
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
	expandInfo  = "keyward AES-256-GCM v1" // with nonce and counter it fits one block of SHA-256
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
	copy(k.key[:], key)
	return k, nil
}

// derive gives the AEAD of one message and its commitment, and wipes the derived octets. What Go's AES expands the key
// to can't be wiped; it opens one message.
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
	d, ok := k.derivers.Get().(*deriver)
	if !ok {
		d = &deriver{mac: hmac.New(sha256.New, k.prk[:])}
	}
	k.mu.RUnlock()
	d.expand(nonce)
	copy(commitment[:], d.okm[aesKeySize:])
	aead, err := newGCM(d.okm[:aesKeySize])
	clear(d.okm[:])
	k.derivers.Put(d)
	return aead, commitment, err
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
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
	dst = slices.Grow(dst, CommitmentSize+len(plaintext)+TagSize)
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
	clear(k.key[:])
	k.bare.Store(nil)
	k.closed = true
}

// EncryptBy is a bare mode of AES under the key itself, see BareAES. It shares nothing with what Seal makes, whose keys are derived.
func (k *AES) EncryptBy(m *mechanism.Mechanism, in []byte) ([]byte, error) {
	bare, err := k.bareAES()
	if err != nil {
		return nil, err
	}
	return bare.EncryptBy(m, in)
}

// DecryptBy undoes EncryptBy. ErrDecrypt whatever is wrong with the ciphertext. The caller wipes the plaintext.
func (k *AES) DecryptBy(m *mechanism.Mechanism, in []byte) ([]byte, error) {
	bare, err := k.bareAES()
	if err != nil {
		return nil, err
	}
	return bare.DecryptBy(m, in)
}

func (k *AES) bareAES() (*BareAES, error) {
	if bare := k.bare.Load(); bare != nil {
		return bare, nil
	}
	k.mu.RLock()
	defer k.mu.RUnlock() // so Close comes before or after, and nothing is stored behind it
	if k.closed {
		return nil, ErrClosed
	}
	bare, err := NewBareAES(k.key[:])
	if err == nil {
		k.bare.Store(bare)
	}
	return bare, err
}
