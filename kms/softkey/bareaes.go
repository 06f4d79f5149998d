package softkey

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"

	"github.com/keyward/keyward/kms/mechanism"
)

// BareAES is AES in the modes that mechanisms name, with nothing around them: who chooses IVs answers for them. It may be used from any
// number of goroutines. What Go's AES expands the key to can't be wiped; it goes with the garbage collector.
type BareAES struct {
	block cipher.Block
	gcm   cipher.AEAD // with the usual IV of 12 octets and tag of 16
}

// MaxIV bounds the IV of AESGCM, in octets.
const MaxIV = 256

const usualIV = 12

// NewBareAES takes a key of 16, 24 or 32 octets. The caller wipes them.
func NewBareAES(key []byte) (*BareAES, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, ErrSize
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &BareAES{block: block, gcm: gcm}, nil
}

// Block is the cipher itself, for other modes.
func (k *BareAES) Block() cipher.Block { return k.block }

// EncryptBy encrypts by AESECB, AESCBC, AESCTR or AESGCM. ErrAlgorithm if the mechanism's IV or tag does not fit, ErrSize if the input has
// to have whole blocks and has not.
func (k *BareAES) EncryptBy(m *mechanism.Mechanism, in []byte) ([]byte, error) {
	if err := fitsAES(m); err != nil {
		return nil, err
	}
	if m.Kind == mechanism.AESGCM {
		gcm, err := k.gcmOf(m)
		if err != nil {
			return nil, err
		}
		out := gcm.Seal(make([]byte, 0, len(in)+TagSize), m.IV, in, m.AAD)
		return out[:len(in)+m.TagBits/8], nil
	}
	if m.Kind != mechanism.AESCTR && len(in)%aes.BlockSize != 0 {
		return nil, ErrSize
	}
	out := make([]byte, len(in))
	switch m.Kind {
	case mechanism.AESECB:
		for i := 0; i < len(in); i += aes.BlockSize {
			k.block.Encrypt(out[i:], in[i:])
		}
	case mechanism.AESCBC:
		cipher.NewCBCEncrypter(k.block, m.IV).CryptBlocks(out, in)
	case mechanism.AESCTR:
		cipher.NewCTR(k.block, m.IV).XORKeyStream(out, in)
	}
	return out, nil
}

// DecryptBy undoes EncryptBy. ErrDecrypt whatever is wrong with the ciphertext. The caller wipes the plaintext.
func (k *BareAES) DecryptBy(m *mechanism.Mechanism, in []byte) ([]byte, error) {
	if err := fitsAES(m); err != nil {
		return nil, err
	}
	if m.Kind == mechanism.AESGCM {
		return k.open(m, in)
	}
	if m.Kind == mechanism.AESCTR {
		return k.EncryptBy(m, in)
	}
	if len(in)%aes.BlockSize != 0 {
		return nil, ErrDecrypt
	}
	out := make([]byte, len(in))
	if m.Kind == mechanism.AESCBC {
		cipher.NewCBCDecrypter(k.block, m.IV).CryptBlocks(out, in)
		return out, nil
	}
	for i := 0; i < len(in); i += aes.BlockSize {
		k.block.Decrypt(out[i:], in[i:])
	}
	return out, nil
}

func fitsAES(m *mechanism.Mechanism) error {
	ok := false
	switch m.Kind {
	case mechanism.AESECB:
		ok = true
	case mechanism.AESCBC, mechanism.AESCTR:
		ok = len(m.IV) == aes.BlockSize
	case mechanism.AESGCM:
		ok = len(m.IV) > 0 && len(m.IV) <= MaxIV && m.TagBits >= 96 && m.TagBits <= 128 && m.TagBits%8 == 0
	}
	if !ok {
		return ErrAlgorithm
	}
	return nil
}

// gcmOf gives GCM with the mechanism's size of IV, and whole tags.
func (k *BareAES) gcmOf(m *mechanism.Mechanism) (cipher.AEAD, error) {
	if len(m.IV) == usualIV {
		return k.gcm, nil
	}
	return cipher.NewGCMWithNonceSize(k.block, len(m.IV))
}

func (k *BareAES) open(m *mechanism.Mechanism, in []byte) ([]byte, error) {
	tag := m.TagBits / 8
	if len(in) < tag {
		return nil, ErrDecrypt
	}
	gcm, err := k.gcmOf(m)
	switch {
	case err != nil:
		return nil, err
	case tag == TagSize:
	case len(m.IV) == usualIV:
		if gcm, err = cipher.NewGCMWithTagSize(k.block, tag); err != nil {
			return nil, err
		}
	default:
		return openShort(gcm, m, in[:len(in)-tag], in[len(in)-tag:])
	}
	out, err := gcm.Open(nil, m.IV, in, m.AAD)
	if err != nil {
		return nil, ErrDecrypt
	}
	return out, nil
}

// openShort opens a message with an unusual IV and a tag that is cut, which the standard library does not do both at once. Sealing
// twice is one way: GCM encrypts by XOR, so sealing the ciphertext gives the plaintext, and sealing that gives the whole tag.
func openShort(gcm cipher.AEAD, m *mechanism.Mechanism, ciphertext, tag []byte) ([]byte, error) {
	n := len(ciphertext)
	plaintext := gcm.Seal(nil, m.IV, ciphertext, nil)
	plaintext = plaintext[:n]
	again := gcm.Seal(nil, m.IV, plaintext, m.AAD)
	if !bytes.Equal(again[:n], ciphertext) || subtle.ConstantTimeCompare(again[n:n+len(tag)], tag) != 1 {
		clear(plaintext)
		return nil, ErrDecrypt
	}
	return plaintext, nil
}
