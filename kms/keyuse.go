package kms

import (
	"context"

	"github.com/keyward/keyward/kms/mechanism"
)

// KeyUse is one use of one version of a key by a mechanism, for callers who know PKCS #11. The rules are those of the API: policy,
// state, usage of the key, quota, audit. Which permissions a mechanism needs is in the table keyUses.
type KeyUse struct {
	KeyID     string // an ID, of the caller's own account
	VersionID string
	Mechanism *mechanism.Mechanism
	Input     []byte // must not change before the call returns
	Signature []byte // of VerifyWith

	// Continued marks a later part of an operation whose first part has its event in the audit: policy and state are asked
	// again, but there is no event of success, and it counts as no use in the ledger.
	Continued bool
}

// Verb is what a KeyUse does.
type Verb uint8

// The verbs.
const (
	Sign Verb = iota + 1
	Verify
	Encrypt
	Decrypt
)

// MayUse says whether a use would be allowed now: key, policy, state, usage and mechanism, but not the input. A refusal is audited,
// a permission is not: the use will be. It charges nothing.
func (s *Service) MayUse(ctx context.Context, actor *Actor, verb Verb, use *KeyUse) error {
	return Errorf(UnsupportedOperation, "not yet")
}

// SignWith makes a signature: AsymmetricSign by any mechanism of the key.
func (s *Service) SignWith(ctx context.Context, actor *Actor, use *KeyUse) ([]byte, error) {
	return nil, Errorf(UnsupportedOperation, "not yet")
}

// VerifyWith checks a signature: AsymmetricVerify by any mechanism of the key. A wrong signature is false and no error.
func (s *Service) VerifyWith(ctx context.Context, actor *Actor, use *KeyUse) (bool, error) {
	return false, Errorf(UnsupportedOperation, "not yet")
}

// EncryptWith encrypts: AsymmetricEncrypt with a public key, or with a symmetric key the bare mode, which is no blob of the API.
// By AES-GCM without an IV it draws one, which comes before the ciphertext; that alone of the bare modes needs kms:Encrypt only, as an IV
// that the caller chooses turns encryption into decryption.
func (s *Service) EncryptWith(ctx context.Context, actor *Actor, use *KeyUse) ([]byte, error) {
	return nil, Errorf(UnsupportedOperation, "not yet")
}

// DecryptWith undoes EncryptWith. The caller wipes the plaintext. Whatever is wrong with a ciphertext is one error, InvalidParameter
// of CiphertextBlob; RSAPKCS1 gives a random message instead (implicit rejection).
func (s *Service) DecryptWith(ctx context.Context, actor *Actor, use *KeyUse) ([]byte, error) {
	return nil, Errorf(UnsupportedOperation, "not yet")
}
