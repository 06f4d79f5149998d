package softkey

import "github.com/keyward/keyward/kms/mechanism"

// SignBy signs by any mechanism of the key. ErrAlgorithm if it does not fit, ErrSize if the input does not.
func (k *PrivateKey) SignBy(m *mechanism.Mechanism, in []byte) ([]byte, error) {
	return nil, ErrAlgorithm
}

// DecryptBy is RSAOAEP, in constant time, and RSARaw; RSAPKCS1 is RSARaw and then kms/rsapad. The caller wipes the plaintext.
func (k *PrivateKey) DecryptBy(m *mechanism.Mechanism, in []byte) ([]byte, error) {
	return nil, ErrAlgorithm
}

// VerifyBy checks a signature by any mechanism of the key. One that is wrong is false and no error.
func (k *PublicKey) VerifyBy(m *mechanism.Mechanism, in, signature []byte) (bool, error) {
	return false, ErrAlgorithm
}

// EncryptBy is RSAPKCS1, RSAOAEP or RSARaw. ErrSize if the input is too long.
func (k *PublicKey) EncryptBy(m *mechanism.Mechanism, in []byte) ([]byte, error) {
	return nil, ErrAlgorithm
}

// EncryptBy is a bare mode of AES under the key itself. It shares nothing with what Seal makes, whose keys are derived.
func (k *AES) EncryptBy(m *mechanism.Mechanism, in []byte) ([]byte, error) { return nil, ErrAlgorithm }

// DecryptBy undoes EncryptBy. ErrDecrypt whatever is wrong with the ciphertext.
func (k *AES) DecryptBy(m *mechanism.Mechanism, in []byte) ([]byte, error) { return nil, ErrAlgorithm }
