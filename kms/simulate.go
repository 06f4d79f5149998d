package kms

import (
	"context"
	"fmt"
	"strings"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/policy"
)

// Simulation is a question to policies: may Principal do Action with the key? The rest is what conditions would see.
type Simulation struct {
	Principal string
	Action    string // kms:<action>
	// Key is an ID, alias or ARN; empty for actions that are about no key, such as CreateKey and ListKeys; for those about what clients keep
	// in a token, such as CreateTokenObject, the ID of the instance.
	Key string
	// Context is what the request would have. Two things are filled in as a call has them: the time now, and the algorithm of a
	// symmetric key. Tags are those of the key.
	Context policy.Context
	// Policy is asked in place of the key's own, if it is not empty: to try one before it is set.
	Policy string
}

// Simulated is the answer to a Simulation.
type Simulated struct {
	policy.Decision
	Policies []string // the names of the identity policies, in the order of Decision.Identity
}

// Simulate decides as a call would be decided, and says why. The actor must be the root of the principal's account or of the
// first one, and be allowed to see the key's policy. Nothing is done.
func (p Principals) Simulate(ctx context.Context, actor *Actor, q *Simulation) (*Simulated, error) {
	return audited(p.s, ctx, actor, actSimulatePolicy, false, func(c *call) (*Simulated, error) {
		who, err := c.named(q.Principal, true)
		if err != nil {
			return nil, err
		}
		act, err := simulatedAction(q)
		if err != nil {
			return nil, err
		}
		record, err := c.store.Principal(ctx, q.Principal)
		if err != nil {
			return nil, storeError(err)
		}
		docs, err := c.compile(record)
		if err != nil {
			return nil, err
		}
		out := &Simulated{}
		for _, o := range record.Policies {
			out.Policies = append(out.Policies, o.Name)
		}
		r := &policy.Request{Principal: who, Action: act.perm, Resource: policy.Resource{Region: c.region}, Context: q.Context}
		if r.Context.Time.IsZero() {
			r.Context.Time = c.now()
		}
		if kind, ok := act.container(); ok {
			r.Resource.Account, r.Resource.Kind, r.Resource.ID = who.Account(), kind, q.Key
			out.Decision = policy.Explain(policy.KeyOwner{Account: who.Account()}, &policy.Document{}, docs, out.Policies, r)
			if !out.Allowed && act.kind != kindContainer && !deniedBy(docs, r) { // see authorizeContainer
				out.Allowed = true
				out.Reason = fmt.Sprintf("%s may do %s: every principal of an account may look at its lists, and no identity policy denies it", who, act.perm)
			}
			return out, nil
		}
		k, doc, err := c.simulatedKey(q)
		if err != nil {
			return nil, err
		}
		r.Resource.Account, r.Resource.Kind, r.Resource.ID = k.Account, policy.Key, k.ID
		r.Context.Tags = keyTags{k}
		if act.kind == kindCrypto && r.Context.EncryptionAlgorithm == "" && strings.HasPrefix(k.Spec, aliyunPrefix) {
			r.Context.EncryptionAlgorithm = symmetricDefault
		}
		out.Decision = policy.Explain(c.keyOwner(k), doc, docs, out.Policies, r)
		c.simulateRole(q, who, k, act, out)
		return out, nil
	})
}

// simulateRole brings in what the role of a key says besides policies: see authorize.
func (c *call) simulateRole(q *Simulation, who policy.Principal, k *keystore.Key, act *action, out *Simulated) {
	if k.Role == "" {
		return
	}
	as := &call{Service: c.Service, ctx: c.ctx, action: act, actor: &Actor{Principal: q.Principal, Account: who.Account(), Unit: q.Context.Unit}}
	if as.isServiceOf(k) {
		out.Allowed, out.Reason = true, fmt.Sprintf("%s is service %s, whose key it is, and needs no policy", q.Principal, k.Creator)
	}
	if !out.Allowed {
		return
	}
	if err := as.checkRole(k, act); err != nil {
		out.Allowed, out.Reason = false, AsError(err).Detail
	}
}

// simulatedAction finds the action of a simulation. Its name is read as policies do, whatever its case.
func simulatedAction(q *Simulation) (*action, error) {
	perm, err := policy.ParseAction(q.Action)
	if err != nil {
		return nil, Invalid("Action", "%s", strings.TrimPrefix(err.Error(), "policy: Action: "))
	}
	var act *action
	for _, a := range actions {
		if strings.EqualFold(a.perm.String(), perm.String()) {
			act = a
		}
	}
	switch {
	case act == nil:
		return nil, Invalid("Action", "there is no action %s; batch forms need the right of the single one, such as kms:Encrypt", cut(q.Action, 64))
	case act == actReEncrypt:
		return nil, Invalid("Action", "ReEncrypt needs kms:ReEncryptFrom for the key that the ciphertext has, and kms:ReEncryptTo for the other; ask for each")
	}
	if kind, ok := act.container(); kind == policy.Keystore {
		if q.Key == "" {
			return nil, Errorf(MissingParameter, "%s is about the token of an instance; name one in place of a key, such as kst-software", act.perm)
		}
	} else if ok && q.Key != "" {
		return nil, Invalid("Key", "%s is about no key; leave it out", act.perm)
	} else if !ok && q.Key == "" {
		return nil, Errorf(MissingParameter, "%s is decided by the policy of a key; name one", act.perm)
	}
	return act, nil
}

// container says that an action is about no key but about all that there are of a kind: see authorizeContainer.
func (a *action) container() (policy.ResourceKind, bool) {
	switch {
	case a == actListAliases:
		return policy.Alias, true
	case a == actDescribeTokenObject, a == actCreateTokenObject, a == actUpdateTokenObject, a == actDeleteTokenObject:
		return policy.Keystore, true // of one instance: see authorizeInstance
	case a == actListKeys, a.kind == kindContainer:
		return policy.Key, true
	}
	return 0, false
}

// simulatedKey finds the key of a simulation, whose policy the actor must be allowed to see.
func (c *call) simulatedKey(q *Simulation) (*keystore.Key, *policy.Document, error) {
	ref, err := c.parseReference("KeyId", q.Key, c.actor)
	if err != nil {
		return nil, nil, err
	}
	act := actGetKeyPolicy
	if k, err := c.find(c.ctx, ref); err == nil && k.Role != "" {
		act = actDescribeKey // it has no policy to see
	}
	g, err := c.authorizeFound(ref, act)
	if err != nil {
		return nil, nil, err
	}
	c.event.KeyID = g.key.ID
	if q.Policy != "" {
		doc, err := parsePolicy([]byte(q.Policy), c.keyOwner(g.key))
		return g.key, doc, err
	}
	doc, err := c.keyPolicy(g.key)
	return g.key, doc, err
}
