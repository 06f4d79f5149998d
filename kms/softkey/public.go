package softkey

import (
	"encoding/pem"
	"slices"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/kms/softkey/libcrypto"
)

// PublicKey is an asymmetric public key, parsed once and used from any number of goroutines.
type PublicKey struct {
	spec kmswire.KeySpec
	der  []byte
	key  *libcrypto.Key
	// koblitz is set for secp256k1, whose signatures decred checks three times as fast as OpenSSL. It has no code for
	// this curve in constant time, so it only gets to see what is public.
	koblitz *secp256k1.PublicKey
}

// pointSize is the size of an uncompressed point, with which the encoding of a public key on a curve ends.
const pointSize = 65

// ParsePublicKey reads DER SubjectPublicKeyInfo, including secp256k1, and tells the spec. RSA keys of other sizes, other
// curves, points in compressed form and anything that is not DER give ErrMalformed.
func ParsePublicKey(der []byte) (*PublicKey, error) {
	key, err := libcrypto.ParseSPKI(der)
	if err != nil {
		return nil, Translate(err)
	}
	p := &PublicKey{key: key, der: slices.Clone(der)} // there is one encoding only
	if p.spec, err = specOf(key); err != nil {
		key.Close()
		return nil, err
	}
	if p.spec == kmswire.ECP256K {
		if p.koblitz, err = secp256k1.ParsePubKey(der[len(der)-pointSize:]); err != nil {
			return nil, ErrMalformed
		}
	}
	return p, nil
}

// Spec is the key's.
func (k *PublicKey) Spec() kmswire.KeySpec { return k.spec }

// Marshal gives the key as DER SubjectPublicKeyInfo. The caller owns it.
func (k *PublicKey) Marshal() []byte { return slices.Clone(k.der) }

// PEM gives the key as PEM SubjectPublicKeyInfo with LF line ends.
func (k *PublicKey) PEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.der}))
}

// Verify checks a signature over a 32-octet SHA-256 digest. A signature that does not verify, or can't be parsed, is
// false and no error. ECDSA signatures must be DER; both s and n-s are accepted, as FIPS 186-5 has it.
func (k *PublicKey) Verify(alg kmswire.Algorithm, digest, signature []byte) (bool, error) {
	if k.koblitz != nil {
		return verifyKoblitz(k.koblitz, alg, digest, signature)
	}
	s := schemes[alg]
	if s == nil {
		return false, ErrAlgorithm
	}
	if s.mechanism.Kind == mechanism.ECDSA {
		ok, err := k.key.VerifyDER(digest, signature)
		return ok, Translate(err)
	}
	if err := k.fits(s, digest); err != nil {
		return false, err
	}
	var buf [len(digestInfoSHA256) + kmswire.DigestSize]byte
	ok, err := k.key.Verify(&s.mechanism, s.input(&buf, digest), signature)
	return ok, Translate(err)
}

// fits says whether an RSA key can sign a digest of the API; the size of the digest comes second.
func (k *PublicKey) fits(s *scheme, digest []byte) error {
	switch {
	case k.key.Kind() != libcrypto.RSA || s.mechanism.Kind == mechanism.RSAOAEP:
		return ErrAlgorithm
	case len(digest) != kmswire.DigestSize:
		return ErrSize
	}
	return nil
}

// Encrypt is RSA-OAEP with an empty label. ErrSize when the plaintext is too long: MaxPlaintext says how long it may be.
func (k *PublicKey) Encrypt(alg kmswire.Algorithm, plaintext []byte) ([]byte, error) {
	if !encryption(alg) {
		return nil, ErrAlgorithm
	}
	c, err := k.key.Encrypt(&schemes[alg].mechanism, plaintext)
	return c, Translate(err)
}

// MaxPlaintext is the most that Encrypt takes with alg, in octets; 0 when the algorithm does not fit.
func (k *PublicKey) MaxPlaintext(alg kmswire.Algorithm) int {
	if !encryption(alg) {
		return 0
	}
	return k.key.MaxPlaintext(&schemes[alg].mechanism)
}

// encryption says whether an algorithm of the API encrypts. PKCS #1 v1.5 could, as a mechanism, but is none of the API.
func encryption(alg kmswire.Algorithm) bool {
	s := schemes[alg]
	return s != nil && s.mechanism.Kind == mechanism.RSAOAEP
}

// Close frees the key's memory, with the end of the last call that is using it. Nobody has to: it is also freed when the
// key becomes unreachable. But the garbage collector does not see how much that is, so who parses a key for one call
// should close it. Later calls give ErrClosed; Spec, Marshal and PEM still work.
func (k *PublicKey) Close() { k.key.Close() }
