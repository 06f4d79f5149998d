package kms

import (
	"bytes"
	"context"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/policy"
)

// SetKeyPolicy replaces the policy of a key (reference section 4.6).
func (s *Service) SetKeyPolicy(ctx context.Context, actor *Actor, req *kmswire.SetKeyPolicyRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actSetKeyPolicy, false, func(c *call) (*kmswire.EmptyResponse, error) {
		if req.PolicyName != "" && req.PolicyName != kmswire.DefaultPolicyName {
			return nil, Invalid("PolicyName", "a key has one policy, and it is called %s", kmswire.DefaultPolicyName)
		}
		g, err := c.authorizeManage(req.KeyID)
		if err != nil {
			return nil, err
		}
		if g.key.Instance == "" {
			return nil, noPolicy(g.key)
		}
		owner := s.keyOwner(g.key)
		doc, err := parsePolicy(req.Policy, owner)
		if err != nil {
			return nil, err
		}
		text := ownPolicy(req.Policy, owner)
		_, err = c.updateKey(req.KeyID, func(k *keystore.Key) {
			k.Policy, k.OtherAccounts = text, doc.OtherAccounts(owner)
		})
		return &kmswire.EmptyResponse{}, err
	})
}

// GetKeyPolicy gives the policy of a key; of one that has none of its own, the default one. It tells who owns the key, too.
func (s *Service) GetKeyPolicy(ctx context.Context, actor *Actor, req *kmswire.GetKeyPolicyRequest) (*kmswire.GetKeyPolicyResponse, error) {
	return audited(s, ctx, actor, actGetKeyPolicy, false, func(c *call) (*kmswire.GetKeyPolicyResponse, error) {
		g, err := c.authorizeManage(req.KeyID)
		if err != nil {
			return nil, err
		}
		if g.key.Instance == "" {
			return nil, noPolicy(g.key)
		}
		if req.PolicyName != "" && req.PolicyName != kmswire.DefaultPolicyName {
			return nil, Errorf(ResourceNotFound, "%s has no policy %q; its one policy is called %s", g.key.ID, req.PolicyName, kmswire.DefaultPolicyName)
		}
		owner := s.keyOwner(g.key)
		out := &kmswire.GetKeyPolicyResponse{Policy: g.key.Policy}
		if out.Policy == "" {
			out.Policy = string(policy.Default(owner))
		}
		out.Owners.Account = append([]string{owner.Account}, owner.CoOwners...)
		return out, nil
	})
}

// ownPolicy is what a key keeps of a policy that it is given. The default one is kept as none, so that it goes on following who
// owns the key.
func ownPolicy(text []byte, owner policy.KeyOwner) string {
	if bytes.Equal(text, policy.Default(owner)) {
		return ""
	}
	return string(text)
}

// noPolicy says that a key is in no instance, and so has no policy (reference section 6.8).
func noPolicy(k *keystore.Key) *Error {
	return Errorf(UnsupportedOperation, "%s is in no instance: default and service keys have no key policy", k.ID)
}

func parsePolicy(text []byte, owner policy.KeyOwner) (*policy.Document, error) {
	doc, err := policy.ParseKey(text, owner)
	if err != nil {
		return nil, Invalid("Policy", "%v", err)
	}
	return doc, nil
}

// draftPolicy reads the key policy of a new key.
func (c *call) draftPolicy(d *draft, req *kmswire.CreateKeyRequest) error {
	if len(req.Policy) == 0 {
		return nil
	}
	if d.key.Instance == "" {
		return Errorf(UnsupportedOperation, "only keys in an instance have a policy; name one with DKMSInstanceId")
	}
	owner := c.keyOwner(d.key)
	doc, err := parsePolicy(req.Policy, owner)
	if err != nil {
		return err
	}
	d.key.Policy, d.key.OtherAccounts = ownPolicy(req.Policy, owner), doc.OtherAccounts(owner)
	return nil
}

// accessQuotaUsed words keystore.ErrAccessQuota where a policy would let in more accounts than the instance has room for.
func (s *Service) accessQuotaUsed(instance string, err error) *Error {
	return &Error{Code: LimitExceeded, Detail: "the access management quota of " + instance + " is used up: each other account that key policies or sharing let in " +
		"takes one, and it comes back five minutes after the last policy stopped naming it", Err: err}
}
