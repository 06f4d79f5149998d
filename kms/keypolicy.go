package kms

import (
	"context"

	"github.com/keyward/keyward/kms/kmswire"
)

// SetKeyPolicy replaces the policy of a key.
func (s *Service) SetKeyPolicy(ctx context.Context, actor *Actor, req *kmswire.SetKeyPolicyRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actSetKeyPolicy, false, notAvailable[kmswire.EmptyResponse])
}

// GetKeyPolicy gives the policy of a key.
func (s *Service) GetKeyPolicy(ctx context.Context, actor *Actor, req *kmswire.GetKeyPolicyRequest) (*kmswire.GetKeyPolicyResponse, error) {
	return audited(s, ctx, actor, actGetKeyPolicy, false, notAvailable[kmswire.GetKeyPolicyResponse])
}

// draftPolicy reads the key policy of a new key.
func (c *call) draftPolicy(_ *draft, req *kmswire.CreateKeyRequest) error {
	if len(req.Policy) > 0 {
		return Errorf(UnsupportedOperation, "key policies are not available in this version; the default policy applies")
	}
	return nil
}
