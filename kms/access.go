package kms

import (
	"net/netip"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/policy"
)

// compiled keeps policies as they are evaluated, so that none is parsed for a call. An entry is found by what the store handed
// out, so that a changed policy can't be mixed up with the one before it.
type compiled struct {
	keys   *lru.Cache[string, *policy.Document] // by text
	people *lru.Cache[string, *identity]        // by ARN
}

// identity is what a principal's record says, compiled.
type identity struct {
	record *keystore.Principal
	docs   []*policy.Document
}

// How many policies are kept compiled. A document of the largest size takes some 100 KiB, a usual one takes 1 KiB.
const (
	maxKeyPolicies = 4096
	maxIdentities  = 4096
)

func newCompiled() *compiled {
	c := new(compiled)
	c.keys, _ = lru.New[string, *policy.Document](maxKeyPolicies) // fails only for sizes below 1
	c.people, _ = lru.New[string, *identity](maxIdentities)
	return c
}

// keyPolicy gives the compiled policy of a key, nil for the default one.
func (s *Service) keyPolicy(k *keystore.Key) (*policy.Document, error) {
	if k.Policy == "" {
		return nil, nil
	}
	if doc, ok := s.policies.keys.Get(k.Policy); ok {
		return doc, nil
	}
	doc, err := policy.LoadKey([]byte(k.Policy))
	if err != nil {
		return nil, &Error{Code: KeyUnavailable, Detail: "the policy of " + k.ID + " can't be read; set another one", Err: err}
	}
	s.policies.keys.Add(k.Policy, doc)
	return doc, nil
}

// identityOf gives the compiled identity policies of a caller; most have none.
func (c *call) identityOf(actor *Actor) ([]*policy.Document, error) {
	p, err := c.store.Principal(c.ctx, actor.Principal)
	if err != nil {
		return nil, storeError(err)
	}
	return c.compile(p)
}

// compile gives the compiled identity policies of a principal's record, in its order.
func (s *Service) compile(p *keystore.Principal) ([]*policy.Document, error) {
	if len(p.Policies) == 0 {
		return nil, nil
	}
	if known, ok := s.policies.people.Get(p.ARN); ok && known.record == p {
		return known.docs, nil
	}
	id := &identity{record: p}
	for _, text := range p.Policies {
		doc, err := policy.ParseIdentity([]byte(text.Document))
		if err != nil {
			return nil, &Error{Code: Denied, Detail: "the identity policy " + text.Name + " of " + p.ARN + " can't be read; put another one in its place", Err: err}
		}
		id.docs = append(id.docs, doc)
	}
	s.policies.people.Add(p.ARN, id)
	return id.docs, nil
}

// keyOwner says whose key it is: its account, and the account whose instance it lies in (reference section 7.4, joint
// ownership).
func (s *Service) keyOwner(k *keystore.Key) policy.KeyOwner {
	owners := s.owners(k)
	return policy.KeyOwner{Account: owners[0], CoOwners: owners[1:]}
}

// permits decides by the policy of the key and those of the caller.
func (c *call) permits(k *keystore.Key, act *action) (bool, error) {
	docs, err := c.identityOf(c.actor)
	if err != nil {
		return false, err
	}
	if k.Policy == "" && len(docs) == 0 && c.actor.Account == k.Account {
		return true, nil // what nearly every call is: the default policy, and nobody has said more
	}
	doc, err := c.keyPolicy(k)
	if err != nil {
		// Whoever may mend it must get through to do so.
		mends := act == actDescribeKey || act == actGetKeyPolicy || act == actSetKeyPolicy
		if !mends || !isRoot(c.actor) || c.actor.Account != k.Account {
			return false, err
		}
		doc = &policy.Document{}
	}
	r, err := c.question(act)
	if err != nil {
		return false, err
	}
	r.Resource.Account, r.Resource.Kind, r.Resource.ID = k.Account, policy.Key, k.ID
	r.Context.Tags = keyTags{k}
	switch {
	case act.kind != kindCrypto:
	case c.algorithm != "":
		r.Context.EncryptionAlgorithm = string(c.algorithm)
	case strings.HasPrefix(k.Spec, aliyunPrefix):
		r.Context.EncryptionAlgorithm = symmetricDefault
	}
	return policy.Decide(c.keyOwner(k), doc, docs, r), nil
}

// symmetricDefault is the algorithm of symmetric keys in conditions (reference section 6.1). Their specs begin so, and no others.
const (
	symmetricDefault = "SYMMETRIC_DEFAULT"
	aliyunPrefix     = "Aliyun_"
)

// question is what policies are asked about an action of the caller, but for the resource.
func (c *call) question(act *action) (*policy.Request, error) {
	return newQuestion(c.Service, c.actor, act.perm)
}

func newQuestion(s *Service, actor *Actor, perm policy.Action) (*policy.Request, error) {
	who, err := policy.ParsePrincipal(actor.Principal)
	if err != nil {
		return nil, Errorf(Denied, "%q is no principal that policies can name", actor.Principal)
	}
	r := &policy.Request{Principal: who, Action: perm, Resource: policy.Resource{Region: s.region}}
	r.Context = policy.Context{
		SourceIP: actor.SourceIP, Time: s.now(), SecureTransport: true, Unit: actor.Unit, Executable: actor.Executable, Door: actor.Door.String(),
	}
	if actor.SourceIP == (netip.Addr{}) {
		r.Context.UID, r.Context.HasUID = actor.UID, true
	}
	return r, nil
}

// keyTags lets conditions look at the tags of a key.
type keyTags struct{ key *keystore.Key }

// Tag gives the value of one.
func (t keyTags) Tag(name string) (string, bool) {
	for _, tag := range t.key.Tags {
		if tag.Key == name {
			return tag.Value, true
		}
	}
	return "", false
}

// authorizeContainer is for actions that are about no key yet, or about all of them. Making something is for the account's
// root and for whom an identity policy lets. Looking at the lists is for every principal of the account, as the default key policy
// shows each of them every key, unless an identity policy denies it.
func (c *call) authorizeContainer(kind policy.ResourceKind) error {
	return c.authorizeInstance(kind, "")
}

// authorizeInstance is authorizeContainer for what is in one instance, whose ID policies can name; empty: the container.
func (c *call) authorizeInstance(kind policy.ResourceKind, id string) error {
	docs, err := c.identityOf(c.actor)
	if err != nil {
		return err
	}
	r, err := c.question(c.action)
	if err != nil {
		return err
	}
	r.Resource.Account, r.Resource.Kind, r.Resource.ID = c.actor.Account, kind, id
	if policy.Decide(policy.KeyOwner{Account: c.actor.Account}, &policy.Document{}, docs, r) {
		return nil
	}
	if c.action.kind != kindContainer {
		if !deniedBy(docs, r) {
			return nil
		}
		return Errorf(Denied, "an identity policy of %s denies kms:%s", c.actor.Principal, c.action.name)
	}
	return Errorf(Denied, "%s is not the account's root, and no identity policy lets it do kms:%s with %s", c.actor.Principal, c.action.name, &r.Resource)
}

// authorizeAlias is for actions that change an alias, whose right is that of its key: an identity policy can deny it for the
// alias all the same.
func (c *call) authorizeAlias(account, name string) error {
	docs, err := c.identityOf(c.actor)
	if err != nil || len(docs) == 0 {
		return err
	}
	r, err := c.question(c.action)
	if err != nil {
		return err
	}
	r.Resource.Account, r.Resource.Kind, r.Resource.ID = account, policy.Alias, strings.TrimPrefix(name, aliasPrefix)
	if deniedBy(docs, r) {
		return Errorf(Denied, "an identity policy of %s denies kms:%s with %s", c.actor.Principal, c.action.name, name)
	}
	return nil
}

func deniedBy(docs []*policy.Document, r *policy.Request) bool {
	for _, d := range docs {
		if d.Evaluate(r) == policy.Deny {
			return true
		}
	}
	return false
}
