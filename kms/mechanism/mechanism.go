// Package mechanism is the vocabulary for ways to use a key that have more choices than the API's algorithms: what remains of a
// PKCS #11 mechanism when the data is hashed, buffered and padded to blocks. It is pure, and below everything.
//
// RSA works on whole blocks of k octets, the length of the modulus. ECDSA signatures are r and s, each as long as the order of the
// curve (PKCS #11 2.40 §2.3.1), never DER.
package mechanism

import "crypto"

// Kind is a family of mechanisms.
type Kind uint8

// The kinds.
const (
	RSAPKCS1 Kind = iota + 1 // RFC 8017 §8.2 and §7.2. Signing: the input, at most k-11 octets, is padded as it is: a DigestInfo is the caller's affair. Decrypting never fails for what the padding is: see kms/rsapad
	RSARaw                   // the bare operation, k octets in and out; smaller than the modulus
	RSAPSS                   // RFC 8017 §8.1; the input is a digest of Hash. Uses Hash, MGF, Salt
	RSAOAEP                  // RFC 8017 §7.1. Uses Hash, MGF, Label
	ECDSA                    // FIPS 186-5 §6.4; the input is a digest of any length up to 64 octets, of which the leftmost bits count
	AESECB                   // whole blocks
	AESCBC                   // whole blocks. Uses IV, 16 octets
	AESCTR                   // any length. Uses IV, 16 octets: the whole block is the counter
	AESGCM                   // the tag follows the ciphertext. Uses IV, AAD, TagBits. An encryption without an IV draws one, of 12 octets, where the key is, and gives it before the ciphertext
)

// Mechanism is one way to use a key. What a Kind does not use is zero. It is immutable once it is given away.
type Mechanism struct {
	Kind    Kind
	Hash    crypto.Hash
	MGF     crypto.Hash // of MGF1
	Salt    int         // octets
	Label   []byte
	IV      []byte
	AAD     []byte
	TagBits int // 96, 104, 112, 120 or 128
}
