package softkey

import (
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/kms/softkey/libcrypto"
)

// SignBy signs by any mechanism of the key: RSAPKCS1 (1 to k-11 octets), RSARaw, RSAPSS with any two hashes of SHA-1, SHA-2 and SHA-3
// and any salt that the modulus has room for, ECDSA (1 to 64 octets). ErrAlgorithm if it does not fit, ErrSize if the input does not.
func (k *PrivateKey) SignBy(m *mechanism.Mechanism, in []byte) ([]byte, error) {
	s, err := k.key.Sign(m, in)
	return s, Translate(err)
}

// DecryptBy is RSAOAEP, in constant time, and RSARaw; RSAPKCS1 is RSARaw and then kms/rsapad. The caller wipes the plaintext.
func (k *PrivateKey) DecryptBy(m *mechanism.Mechanism, in []byte) ([]byte, error) {
	return k.decrypt(m, in)
}

func (k *PrivateKey) decrypt(m *mechanism.Mechanism, in []byte) ([]byte, error) {
	p, err := k.key.Decrypt(m, in)
	return p, Translate(err)
}

// VerifyBy checks a signature by any mechanism of the key. One that is wrong is false and no error.
func (k *PublicKey) VerifyBy(m *mechanism.Mechanism, in, signature []byte) (bool, error) {
	if k.koblitz != nil {
		return verifyBareKoblitz(k.koblitz, m, in, signature)
	}
	ok, err := k.key.Verify(m, in, signature)
	return ok, Translate(err)
}

// EncryptBy is RSAPKCS1, RSAOAEP or RSARaw. ErrSize if the input is too long.
func (k *PublicKey) EncryptBy(m *mechanism.Mechanism, in []byte) ([]byte, error) {
	c, err := k.key.Encrypt(m, in)
	return c, Translate(err)
}

// verifyBareKoblitz is PublicKey.VerifyBy for secp256k1. Of a digest over 32 octets the leftmost 32 count.
func verifyBareKoblitz(key *secp256k1.PublicKey, m *mechanism.Mechanism, digest, signature []byte) (bool, error) {
	if m.Kind != mechanism.ECDSA {
		return false, ErrAlgorithm
	}
	if len(digest) == 0 || len(digest) > libcrypto.MaxDigest {
		return false, ErrSize
	}
	size := libcrypto.Secp256k1.ScalarSize()
	var r, s secp256k1.ModNScalar
	if len(signature) != 2*size || r.SetByteSlice(signature[:size]) || s.SetByteSlice(signature[size:]) || r.IsZero() || s.IsZero() {
		return false, nil
	}
	return ecdsa.NewSignature(&r, &s).Verify(digest, key), nil
}

// MaxPlaintextBy is the most that EncryptBy takes, in octets; 0 when the mechanism does not fit.
func (k *PublicKey) MaxPlaintextBy(m *mechanism.Mechanism) int { return k.key.MaxPlaintext(m) }
