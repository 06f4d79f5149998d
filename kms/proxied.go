package kms

import (
	"context"
	"errors"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/mechanism"
)

// Keys that a proxy serves to other key management services (package xki): bare AES-GCM whose IV keyward draws, by the version that is primary, and undone by the
// version that a ciphertext names. The rules are those of the API: policy, state, quota, audit.

// ProxiedKey is what a proxy tells of a key.
type ProxiedKey struct {
	Spec  kmswire.KeySpec
	Usage kmswire.KeyUsage
	State kmswire.KeyState
}

// proxiedTag is the tag of all that proxies seal, in bits.
const proxiedTag = 128

// ProxiedKey describes a key of the caller's own account by its ID. It needs kms:DescribeKey.
func (s *Service) ProxiedKey(ctx context.Context, actor *Actor, keyID string) (*ProxiedKey, error) {
	return audited(s, ctx, actor, actDescribeKey, false, func(c *call) (*ProxiedKey, error) {
		g, err := c.authorizeRef(keyID)
		if err != nil {
			return nil, err
		}
		return &ProxiedKey{Spec: kmswire.KeySpec(g.key.Spec), Usage: kmswire.KeyUsage(g.key.Usage), State: c.state(g.key)}, nil
	})
}

// ProxiedSeal encrypts with the primary version of a key. It gives the version's ordinal, and IV, ciphertext and tag in one. aad gives what the tag covers beside the
// ciphertext, which may depend on the ordinal. It needs kms:Encrypt.
func (s *Service) ProxiedSeal(ctx context.Context, actor *Actor, keyID string, plaintext []byte, aad func(ordinal uint32) []byte) (ordinal uint32, sealed []byte, err error) {
	k, err := s.ownKey(ctx, actor, keyID)
	if err != nil {
		return 0, nil, err
	}
	if k.Primary == "" {
		return 0, nil, Errorf(OperationRejected, "%s is no key that encrypts so", keyID)
	}
	ordinal = uint32(k.Versions)
	primary, err := s.versionAt(ctx, keyID, ordinal)
	if err != nil {
		return 0, nil, err
	}
	if primary != k.Primary {
		return 0, nil, Errorf(KeyUnavailable, "the primary version of %s is not its newest", keyID)
	}
	sealed, err = s.EncryptWith(ctx, actor, &KeyUse{KeyID: keyID, VersionID: primary, Input: plaintext,
		Mechanism: &mechanism.Mechanism{Kind: mechanism.AESGCM, AAD: aad(ordinal), TagBits: proxiedTag}})
	return ordinal, sealed, err
}

// ProxiedOpen undoes ProxiedSeal. sealed is the ciphertext with the tag behind it. A version that there is not is InvalidParameter of CiphertextBlob, as all that is
// wrong with a ciphertext. It needs kms:Decrypt. The caller wipes the plaintext.
func (s *Service) ProxiedOpen(ctx context.Context, actor *Actor, keyID string, ordinal uint32, iv, sealed, aad []byte) ([]byte, error) {
	if _, err := s.ownKey(ctx, actor, keyID); err != nil {
		return nil, err
	}
	version, err := s.versionAt(ctx, keyID, ordinal)
	if err != nil {
		return nil, err
	}
	return s.DecryptWith(ctx, actor, &KeyUse{KeyID: keyID, VersionID: version, Input: sealed,
		Mechanism: &mechanism.Mechanism{Kind: mechanism.AESGCM, IV: iv, AAD: aad, TagBits: proxiedTag}})
}

// ownKey gives a key of the actor's account, without a right to anything.
func (s *Service) ownKey(ctx context.Context, actor *Actor, keyID string) (*keystore.Key, error) {
	k, err := s.store.Key(ctx, keyID)
	switch {
	case errors.Is(err, keystore.ErrNotFound) || err == nil && k.Account != actor.Account:
		return nil, keyNotFound(keyID)
	case err != nil:
		return nil, storeError(err)
	}
	return k, nil
}

// versionAt gives the ID of a version by its ordinal.
func (s *Service) versionAt(ctx context.Context, keyID string, ordinal uint32) (string, error) {
	id, err := s.store.VersionAt(ctx, keyID, uint64(ordinal))
	switch {
	case errors.Is(err, keystore.ErrNotFound):
		return "", Invalid("CiphertextBlob", "it was made with a version of %s that there is not", keyID)
	case err != nil:
		return "", storeError(err)
	}
	return id, nil
}
