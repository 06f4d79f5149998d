package policy

// Request is one question to policies. Principal and Action are parsed once, ahead; the rest is plain data, so that a
// caller can keep a Request and change a field for the next question.
type Request struct {
	Principal Principal
	Action    Action
	Resource  Resource // only identity policies look at it
	Context   Context
}

// Evaluate says what this document alone says to the request. It allocates nothing. Its time is bounded by the limits
// of documents and the lengths of the request's values.
func (d *Document) Evaluate(r *Request) Effect {
	effect := NoMatch
	for i := range d.statements {
		st := &d.statements[i]
		if st.effect == Allow && effect == Allow {
			continue // can't change anything
		}
		if !st.matches(r) {
			continue
		}
		if st.effect == Deny {
			return Deny
		}
		effect = Allow
	}
	return effect
}

func (st *statement) matches(r *Request) bool {
	return st.hasPrincipal(r) && st.hasAction(r) && st.hasResource(r) && st.failing(r) == nil
}

func (st *statement) hasPrincipal(r *Request) bool {
	for i := range st.principals {
		if st.principals[i].matches(&r.Principal) {
			return true
		}
	}
	return st.ofIdentity
}

func (st *statement) hasAction(r *Request) bool {
	for i := range st.actions {
		if st.actions[i].matches(&r.Action) {
			return true
		}
	}
	return false
}

func (st *statement) hasResource(r *Request) bool {
	for i := range st.resources {
		if st.resources[i].matches(&r.Resource) {
			return true
		}
	}
	return !st.ofIdentity
}

// failing gives the first condition that does not hold, or nil.
func (st *statement) failing(r *Request) *condition {
	for i := range st.conditions {
		if !st.conditions[i].holds(&r.Context) {
			return &st.conditions[i]
		}
	}
	return nil
}

// Decide says whether r is allowed by a key's policy and by the identity policies of the one who asks, all of them
// together. It allocates nothing.
//
// A nil key stands for a key without a policy of its own: Default(owner) applies. A zero Document stands for what has
// no key policy: for an alias or a container, with owner.Account the account that it belongs to.
//
//   - An explicit Deny of either side wins, always but for this: the owner account's root can't be denied
//     kms:GetKeyPolicy, kms:SetKeyPolicy and kms:DescribeKey. Otherwise one wrong statement would make a key that
//     nobody can use, repair or delete.
//   - A root has all rights that its account can give, as if by an identity policy.
//   - The owner's and co-owners' accounts: an Allow of either side is enough.
//   - Other accounts: both sides must allow it, and only what uses a key, whatever the key policy says: it can be older
//     than the end of a co-ownership.
func Decide(owner KeyOwner, key *Document, identity []*Document, r *Request) bool {
	a := NoMatch
	switch {
	case key != nil:
		a = key.Evaluate(r)
	case owner.has(r.Principal.account):
		a = Allow
	}
	b := NoMatch
	for _, d := range identity {
		if e := d.Evaluate(r); e > b { // Deny > Allow > NoMatch
			b = e
		}
	}
	return combine(&owner, a, b, r).allows()
}

// verdict is what a decision rests on.
type verdict uint8

const (
	byUnlocked  verdict = iota // the owner's root and an action that can't be denied to it
	byKeyPolicy                // an Allow of the key policy
	byIdentity                 // an Allow of an identity policy
	byRoot                     // the root of an owning account
	byBoth                     // another account: both; the last that allows

	nobody            // no principal or no action in the request
	deniedByKeyPolicy // explicit Deny
	deniedByIdentity  // explicit Deny
	notAllowed        // same account: no Allow
	notForOthers      // another account: not an action of use
	notByKeyPolicy    // another account
	notByIdentity     // another account
	notByEither       // another account
)

func (v verdict) allows() bool { return v <= byBoth }

// combine is the rule of Decide: a is what the key policy says, b what the identity policies say.
func combine(owner *KeyOwner, a, b Effect, r *Request) verdict {
	p := &r.Principal
	if p.kind == 0 || r.Action.folded == "" {
		return nobody
	}
	root := p.kind == rootOfAccount
	switch {
	case root && p.account == owner.Account && r.Action.unlocked:
		return byUnlocked
	case a == Deny:
		return deniedByKeyPolicy
	case b == Deny:
		return deniedByIdentity
	}
	if owner.has(p.account) {
		switch {
		case a == Allow:
			return byKeyPolicy
		case b == Allow:
			return byIdentity
		case root:
			return byRoot
		}
		return notAllowed
	}
	switch {
	case !r.Action.use:
		return notForOthers
	case a != Allow && b != Allow && !root:
		return notByEither
	case a != Allow:
		return notByKeyPolicy
	case b != Allow && !root:
		return notByIdentity
	}
	return byBoth
}
