package softkey

import (
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/kms/softkey/libcrypto"
)

// PrivateKey is an asymmetric private key, parsed once and used from any number of goroutines.
type PrivateKey struct {
	key    *libcrypto.Key
	public *PublicKey
}

// GenerateKey makes a key pair of an RSA or EC spec. ErrAlgorithm for other specs.
func GenerateKey(spec kmswire.KeySpec) (*PrivateKey, error) {
	row, ok := specs[spec]
	if !ok {
		return nil, ErrAlgorithm
	}
	var key *libcrypto.Key
	var err error
	if row.kind == libcrypto.RSA {
		key, err = libcrypto.GenerateRSA(row.bits)
	} else {
		key, err = libcrypto.GenerateEC(row.kind)
	}
	if err != nil {
		return nil, Translate(err)
	}
	return newPrivateKey(spec, key)
}

// ParsePrivateKey reads what Marshal gave: PKCS#8 DER. It checks the key against spec, and its parts against each other;
// Check does more, for keys from outside. ErrMalformed when any of that fails. The caller wipes der.
func ParsePrivateKey(spec kmswire.KeySpec, der []byte) (*PrivateKey, error) {
	key, err := libcrypto.ParsePKCS8(der)
	if err != nil {
		return nil, Translate(err)
	}
	return newPrivateKey(spec, key)
}

// newPrivateKey takes ownership of key.
func newPrivateKey(spec kmswire.KeySpec, key *libcrypto.Key) (*PrivateKey, error) {
	got, err := specOf(key)
	if err == nil && got != spec {
		err = ErrMalformed
	}
	var der []byte
	if err == nil {
		der, err = key.MarshalSPKI()
	}
	var public *PublicKey
	if err == nil {
		public, err = ParsePublicKey(der)
	}
	if err != nil {
		key.Close()
		return nil, Translate(err)
	}
	return &PrivateKey{key: key, public: public}, nil
}

// Check tests the key as thoroughly as OpenSSL can, and that the primes of an RSA key are prime. It is for imported
// keys: RSA takes 36 ms at 2048 bits and 250 ms at 4096. ErrMalformed when the key is bad.
func (k *PrivateKey) Check() error { return Translate(k.key.Check()) }

// Marshal gives the key as PKCS#8 DER. The caller wipes it.
func (k *PrivateKey) Marshal() ([]byte, error) {
	der, err := k.key.MarshalPKCS8()
	return der, Translate(err)
}

// Public returns the public half. It lives on when the private key is closed.
func (k *PrivateKey) Public() *PublicKey { return k.public }

// Sign signs a 32-octet SHA-256 digest. RSA signatures are the bare block, ECDSA ones ASN.1 DER.
func (k *PrivateKey) Sign(alg kmswire.Algorithm, digest []byte) ([]byte, error) {
	s := schemes[alg]
	if s == nil {
		return nil, ErrAlgorithm
	}
	if s.mechanism.Kind == mechanism.ECDSA {
		signature, err := k.key.SignDER(digest)
		return signature, Translate(err)
	}
	if err := k.public.fits(s, digest); err != nil {
		return nil, err
	}
	var buf [len(digestInfoSHA256) + kmswire.DigestSize]byte
	signature, err := k.key.Sign(&s.mechanism, s.input(&buf, digest))
	return signature, Translate(err)
}

// Decrypt undoes RSA-OAEP with an empty label, in constant time. The caller wipes the plaintext. A ciphertext of a wrong
// length is ErrDecrypt like any other that can't be decrypted.
func (k *PrivateKey) Decrypt(alg kmswire.Algorithm, ciphertext []byte) ([]byte, error) {
	s := schemes[alg]
	if s == nil {
		return nil, ErrAlgorithm
	}
	return k.decrypt(&s.mechanism, ciphertext)
}

// Close wipes the key and frees its memory, with the end of the last call that is using it. Later calls give ErrClosed.
// The memory is also freed when the key becomes unreachable.
func (k *PrivateKey) Close() { k.key.Close() }
