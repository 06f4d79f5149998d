package sessionkey

import (
	"github.com/keyward/keyward/kms/rsapad"
	"github.com/keyward/keyward/kms/softkey"
)

// DecryptKey takes a secret key of size octets out of an RSA PKCS #1 v1.5 ciphertext. It gives size octets whatever is in there, the same for the same
// ciphertext: see rsapad.UnpadKey. ErrSize if no such key can be in there, ErrDecrypt for ciphertexts that are not as long as the modulus and below it. The
// caller wipes the key.
func (k *Private) DecryptKey(ciphertext []byte, size int) ([]byte, error) {
	if k.Kind() != RSA {
		return nil, ErrAlgorithm
	}
	if size < 1 || size > k.Bits()/8-pkcs1Overhead {
		return nil, ErrSize
	}
	secret, err := k.rejectionSecret()
	if err != nil {
		return nil, err
	}
	defer clear(secret[:])
	em, err := k.key.Decrypt(&rawRSA, ciphertext)
	if err != nil {
		return nil, softkey.Translate(err)
	}
	return rsapad.UnpadKey(em, ciphertext, secret[:], size), nil
}

// pkcs1Overhead is the least that the padding takes, in octets.
const pkcs1Overhead = 11
