package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/policy"
)

// Principals is the administration of who there is: users and roles of the accounts, what identity policies they have, and
// their access keys. An account's root manages its own account's, and the root of the first account, which is the appliance's
// administrator, those of all. Nobody else sees any of it.
type Principals struct{ s *Service }

// Principals gives the administration of principals.
func (s *Service) Principals() Principals { return Principals{s} }

// Limits of principals.
const (
	maxAccessKeys       = 2 // of one principal: one in use and one to change over to
	maxIdentityPolicies = 10
	maxPolicyName       = 128
	maxDescription      = 1024 // characters, of a principal

	accessIDPrefix  = "KWAK"
	accessIDLen     = 20
	accessSecretLen = 40 // of 36 characters: over 200 bits
)

// The acts of this administration, for the audit. They are no actions of the API and need no permission but being root.
var (
	actCreatePrincipal = &action{name: "CreatePrincipal", kind: kindManage}
	actDeletePrincipal = &action{name: "DeletePrincipal", kind: kindManage}
	actListPrincipals  = &action{name: "ListPrincipals", kind: kindRead}
	actAttachPolicy    = &action{name: "AttachPolicy", kind: kindManage}
	actDetachPolicy    = &action{name: "DetachPolicy", kind: kindManage}
	actCreateAccessKey = &action{name: "CreateAccessKey", kind: kindManage}
	actUpdateAccessKey = &action{name: "UpdateAccessKey", kind: kindManage}
	actRotateAccessKey = &action{name: "RotateAccessKey", kind: kindManage}
	actDeleteAccessKey = &action{name: "DeleteAccessKey", kind: kindManage}
	actSimulatePolicy  = &action{name: "SimulatePolicy", kind: kindRead}
)

// Accounts lists the accounts that the actor may manage the principals of.
func (p Principals) Accounts(actor *Actor) []string {
	if !isRoot(actor) {
		return nil
	}
	if actor.Account == p.s.account {
		return slices.Clone(p.s.accounts)
	}
	return []string{actor.Account}
}

// mayManage lets an account's root at the principals of account.
func (c *call) mayManage(account string) error {
	if isRoot(c.actor) && (c.actor.Account == account || c.actor.Account == c.account) {
		if !slices.Contains(c.accounts, account) {
			return Errorf(ResourceNotFound, "there is no account %q here; accounts are made in the configuration file", cut(account, 64))
		}
		return nil
	}
	also := ""
	if account != c.account {
		also = ", and that of " + c.account
	}
	return Errorf(Denied, "%s may not manage the principals of account %s: its root may%s", c.actor.Principal, cut(account, 64), also)
}

// named checks that the actor may manage the principal with this ARN. root says whether it may be an account's root.
func (c *call) named(arn string, root bool) (policy.Principal, error) {
	who, err := policy.ParsePrincipal(arn)
	if err != nil {
		return who, Invalid("Principal", "%v", err)
	}
	c.event.Detail = arn
	if err := c.mayManage(who.Account()); err != nil {
		return who, err
	}
	if !root && strings.HasSuffix(arn, ":root") {
		return who, Errorf(OperationRejected, "%s is always there; make users and roles", arn)
	}
	return who, nil
}

// existing is the record of a principal. An account's root has one as soon as it is needed.
func (c *call) existing(arn string) (*keystore.Principal, error) {
	p, err := c.store.Principal(c.ctx, arn)
	if err != nil {
		return nil, storeError(err)
	}
	if !p.Absent {
		return p, nil
	}
	if !strings.HasSuffix(arn, ":root") {
		return nil, Errorf(ResourceNotFound, "there is no principal %s; create it first", arn)
	}
	record := &keystore.Principal{ARN: arn, Account: p.Account, Created: c.now().UTC().Truncate(time.Second)}
	if err := c.store.Change().CreatePrincipal(record).Commit(c.ctx); err != nil && !errors.Is(err, keystore.ErrConflict) {
		return nil, storeError(err)
	}
	p, err = c.store.Principal(c.ctx, arn)
	return p, storeErrorOrNil(err)
}

func storeErrorOrNil(err error) error {
	if err == nil {
		return nil
	}
	return storeError(err)
}

// Create makes a user or role. Whoever is mapped to a name by a [[peer]] row is that principal with or without this; a record
// is for what is attached to it.
func (p Principals) Create(ctx context.Context, actor *Actor, arn, description string) (*keystore.Principal, error) {
	return audited(p.s, ctx, actor, actCreatePrincipal, false, func(c *call) (*keystore.Principal, error) {
		who, err := c.named(arn, false)
		if err != nil {
			return nil, err
		}
		if !utf8.ValidString(description) || utf8.RuneCountInString(description) > maxDescription {
			return nil, Invalid("Description", "it must be valid UTF-8 of at most %d characters", maxDescription)
		}
		if err := c.begun(); err != nil {
			return nil, err
		}
		record := &keystore.Principal{ARN: arn, Account: who.Account(), Description: description, Created: c.now().UTC().Truncate(time.Second)}
		err = c.store.Change().CreatePrincipal(record).Commit(ctx)
		if errors.Is(err, keystore.ErrConflict) {
			return nil, Errorf(OperationRejected, "there is a principal %s already", arn)
		}
		return record, storeErrorOrNil(err)
	})
}

// Delete removes a user or role, with what is attached to it and its access keys. A [[peer]] row that names it goes on doing
// so, and key policies too.
func (p Principals) Delete(ctx context.Context, actor *Actor, arn string) error {
	_, err := audited(p.s, ctx, actor, actDeletePrincipal, false, func(c *call) (*struct{}, error) {
		if _, err := c.named(arn, false); err != nil {
			return nil, err
		}
		return done(c.edit(arn, true, func(ch *keystore.Change, was *keystore.Principal) error {
			ch.DeletePrincipal(was)
			return nil
		}))
	})
	return err
}

func done(err error) (*struct{}, error) { return &struct{}{}, err }

// edit makes a change to a principal, again when somebody else was faster.
func (c *call) edit(arn string, urgent bool, change func(*keystore.Change, *keystore.Principal) error) error {
	for try := 0; ; try++ {
		was, err := c.existing(arn)
		if err != nil {
			return err
		}
		ch := c.store.Change()
		if urgent {
			ch.Urgent() // taking rights away works on a full disk
		}
		if err := change(ch, was); err != nil {
			return err
		}
		if try == 0 {
			if err := c.begun(); err != nil {
				return err
			}
		}
		if err = ch.Commit(c.ctx); err == nil {
			return nil
		}
		if !errors.Is(err, keystore.ErrConflict) || try == 5 {
			return storeError(err)
		}
	}
}

// List lists the principals of an account that have a record, by name: limit of them from offset, and how many there are.
func (p Principals) List(ctx context.Context, actor *Actor, account string, offset, limit int) (list []*keystore.Principal, total int, err error) {
	_, err = audited(p.s, ctx, actor, actListPrincipals, false, func(c *call) (*struct{}, error) {
		c.event.Detail = cut(account, 64)
		if err := c.mayManage(account); err != nil {
			return nil, err
		}
		var err error
		list, total, err = c.store.Principals(ctx, account, offset, limit)
		return &struct{}{}, storeErrorOrNil(err)
	})
	return list, total, err
}

// Get gives one principal, Absent if it has no record.
func (p Principals) Get(ctx context.Context, actor *Actor, arn string) (*keystore.Principal, error) {
	return audited(p.s, ctx, actor, actListPrincipals, false, func(c *call) (*keystore.Principal, error) {
		if _, err := c.named(arn, true); err != nil {
			return nil, err
		}
		record, err := c.store.Principal(ctx, arn)
		return record, storeErrorOrNil(err)
	})
}

// AttachPolicy gives a principal an identity policy, in place of an earlier one of that name.
func (p Principals) AttachPolicy(ctx context.Context, actor *Actor, arn, name, document string) error {
	_, err := audited(p.s, ctx, actor, actAttachPolicy, false, func(c *call) (*struct{}, error) {
		if _, err := c.named(arn, true); err != nil {
			return nil, err
		}
		if err := checkPolicyName(name); err != nil {
			return nil, err
		}
		if _, err := policy.ParseIdentity([]byte(document)); err != nil {
			return nil, Invalid("Policy", "%v", err)
		}
		c.event.Detail = arn + " " + name
		return done(c.edit(arn, false, func(ch *keystore.Change, was *keystore.Principal) error {
			next := *was
			next.Policies = slices.DeleteFunc(slices.Clone(was.Policies), func(o keystore.IdentityPolicy) bool { return o.Name == name })
			if len(next.Policies) >= maxIdentityPolicies {
				return Errorf(LimitExceeded, "%s has %d identity policies, the most that a principal may have; detach one first", arn, len(next.Policies))
			}
			next.Policies = append(next.Policies, keystore.IdentityPolicy{Name: name, Document: document})
			ch.UpdatePrincipal(was, &next)
			return nil
		}))
	})
	return err
}

func checkPolicyName(name string) error {
	if name == "" {
		return Missing("PolicyName")
	}
	if len(name) > maxPolicyName || strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	}) {
		return Invalid("PolicyName", "it has 1 to %d letters, digits, hyphens, underscores and dots", maxPolicyName)
	}
	return nil
}

// DetachPolicy takes an identity policy away.
func (p Principals) DetachPolicy(ctx context.Context, actor *Actor, arn, name string) error {
	_, err := audited(p.s, ctx, actor, actDetachPolicy, false, func(c *call) (*struct{}, error) {
		if _, err := c.named(arn, true); err != nil {
			return nil, err
		}
		if err := checkPolicyName(name); err != nil {
			return nil, err
		}
		c.event.Detail = arn + " " + name
		return done(c.edit(arn, true, func(ch *keystore.Change, was *keystore.Principal) error {
			next := *was
			next.Policies = slices.DeleteFunc(slices.Clone(was.Policies), func(o keystore.IdentityPolicy) bool { return o.Name == name })
			if len(next.Policies) == len(was.Policies) {
				return Errorf(ResourceNotFound, "%s has no identity policy %q", arn, name)
			}
			ch.UpdatePrincipal(was, &next)
			return nil
		}))
	})
	return err
}

// NewAccessKey is an access key with its secret, which is shown this once.
type NewAccessKey struct {
	ID, Principal string
	Secret        []byte // the caller wipes it
}

// CreateAccessKey makes an access key for a principal.
func (p Principals) CreateAccessKey(ctx context.Context, actor *Actor, arn string) (*NewAccessKey, error) {
	return audited(p.s, ctx, actor, actCreateAccessKey, false, func(c *call) (*NewAccessKey, error) {
		if _, err := c.named(arn, true); err != nil {
			return nil, err
		}
		made, sealed, err := c.newAccessKey()
		if err != nil {
			return nil, err
		}
		made.Principal = arn
		c.event.Detail = arn + " " + made.ID
		err = c.edit(arn, false, func(ch *keystore.Change, was *keystore.Principal) error {
			return c.addAccessKey(ch, was, made, sealed)
		})
		if err != nil {
			clear(made.Secret)
			return nil, err
		}
		return made, nil
	})
}

// RotateAccessKey makes another access key for the principal of the access key id, which stays as it is or, with disable, can't
// be used any more from then on; both in one step or neither. Whoever has the old one must be given the new one: until then its
// requests are refused, if it is disabled.
func (p Principals) RotateAccessKey(ctx context.Context, actor *Actor, id string, disable bool) (*NewAccessKey, error) {
	return audited(p.s, ctx, actor, actRotateAccessKey, false, func(c *call) (*NewAccessKey, error) {
		made, sealed, err := c.newAccessKey()
		if err != nil {
			return nil, err
		}
		for try := 0; ; try++ {
			if err = c.rotate(id, made, sealed, disable, try == 0); !errors.Is(err, keystore.ErrConflict) || try == 5 {
				break
			}
		}
		if err != nil {
			clear(made.Secret)
			return nil, err
		}
		return made, nil
	})
}

// rotate does what RotateAccessKey does, once: it fails with ErrConflict when somebody else was faster.
func (c *call) rotate(id string, made *NewAccessKey, sealed []byte, disable, first bool) error {
	old, err := c.accessKey(id)
	if err != nil {
		return err
	}
	made.Principal = old.Principal
	c.event.Detail = fmt.Sprintf("%s %s to %s disabled=%t", old.Principal, old.ID, made.ID, disable)
	was, err := c.existing(old.Principal)
	if err != nil {
		return err
	}
	if first {
		if err := c.begun(); err != nil {
			return err
		}
	}
	ch := c.store.Change()
	if disable {
		next := *old
		next.Active = false
		ch.UpdateAccessKey(old, &next)
	}
	if err := c.addAccessKey(ch, was, made, sealed); err != nil {
		return err
	}
	return storeErrorOrNil(ch.Commit(c.ctx))
}

// newAccessKey makes one that is nobody's yet, and its sealed secret. The caller clears the secret when it is not given out.
func (c *call) newAccessKey() (*NewAccessKey, []byte, error) {
	made := &NewAccessKey{ID: accessIDPrefix + strings.ToUpper(newID(accessIDLen)), Secret: []byte(newID(accessSecretLen))}
	sealed, err := c.store.SealSecret(keystore.AccessSecretName(made.ID), made.Secret)
	if err != nil {
		clear(made.Secret)
		return nil, nil, storeError(err)
	}
	return made, sealed, nil
}

// addAccessKey adds to ch that a principal has one more access key, which holds against the record that was counted.
func (c *call) addAccessKey(ch *keystore.Change, was *keystore.Principal, made *NewAccessKey, sealed []byte) error {
	if len(was.AccessKeys) >= maxAccessKeys {
		return Errorf(LimitExceeded, "%s has %d access keys, the most that a principal may have; delete one first: %s",
			was.ARN, len(was.AccessKeys), strings.Join(was.AccessKeys, ", "))
	}
	ch.UpdatePrincipal(was, was).CreateAccessKey(&keystore.AccessKey{
		ID: made.ID, Principal: was.ARN, Account: was.Account, Sealed: sealed, Active: true, Created: c.now().UTC().Truncate(time.Second),
	})
	return nil
}

// accessKey finds an access key that the actor may manage.
func (c *call) accessKey(id string) (*keystore.AccessKey, error) {
	c.event.Detail = cut(id, 64)
	k, err := c.store.AccessKey(c.ctx, id)
	missing := Errorf(ResourceNotFound, "there is no access key %q that you may manage", cut(id, 64))
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, missing
	} else if err != nil {
		return nil, storeError(err)
	}
	c.event.Detail = k.Principal + " " + id
	if c.mayManage(k.Account) != nil {
		return nil, missing
	}
	return k, nil
}

// AccessKeys gives a principal's access keys.
func (p Principals) AccessKeys(ctx context.Context, actor *Actor, arn string) (list []*keystore.AccessKey, err error) {
	_, err = audited(p.s, ctx, actor, actListPrincipals, false, func(c *call) (*struct{}, error) {
		if _, err := c.named(arn, true); err != nil {
			return nil, err
		}
		record, err := c.store.Principal(ctx, arn)
		if err != nil {
			return nil, storeError(err)
		}
		for _, id := range record.AccessKeys {
			k, err := c.store.AccessKey(ctx, id)
			if errors.Is(err, keystore.ErrNotFound) {
				continue // deleted meanwhile
			} else if err != nil {
				return nil, storeError(err)
			}
			list = append(list, k)
		}
		return &struct{}{}, nil
	})
	return list, err
}

// SetAccessKeyActive disables an access key, or enables it again. It counts for requests that come after it has answered.
func (p Principals) SetAccessKeyActive(ctx context.Context, actor *Actor, id string, active bool) error {
	_, err := audited(p.s, ctx, actor, actUpdateAccessKey, false, func(c *call) (*struct{}, error) {
		for try := 0; ; try++ {
			k, err := c.accessKey(id)
			if err != nil {
				return nil, err
			}
			c.event.Detail += fmt.Sprintf(" active=%t", active)
			if try == 0 {
				if err := c.begun(); err != nil {
					return nil, err
				}
			}
			next := *k
			next.Active = active
			ch := c.store.Change().UpdateAccessKey(k, &next)
			if !active {
				ch.Urgent()
			}
			err = ch.Commit(ctx)
			if errors.Is(err, keystore.ErrConflict) && try < 5 {
				continue
			}
			return done(storeErrorOrNil(err))
		}
	})
	return err
}

// DeleteAccessKey removes an access key.
func (p Principals) DeleteAccessKey(ctx context.Context, actor *Actor, id string) error {
	_, err := audited(p.s, ctx, actor, actDeleteAccessKey, false, func(c *call) (*struct{}, error) {
		for try := 0; ; try++ {
			k, err := c.accessKey(id)
			if err != nil {
				return nil, err
			}
			if try == 0 {
				if err := c.begun(); err != nil {
					return nil, err
				}
			}
			err = c.store.Change().DeleteAccessKey(k).Urgent().Commit(ctx)
			if errors.Is(err, keystore.ErrConflict) && try < 5 {
				continue
			}
			return done(storeErrorOrNil(err))
		}
	})
	return err
}

// AccessKey opens an access key for whoever checks a signature: its secret, which the caller wipes, whose it is, and whether it
// may be used. It says ResourceNotFound of one that is not there, or whose account the configuration no longer has, as nobody could
// take it away any more. It is no call of anybody, and leaves no audit event: the call that was signed does.
func (s *Service) AccessKey(ctx context.Context, id string) (secret []byte, principal, account string, active bool, err error) {
	k, err := s.store.AccessKey(ctx, id)
	if errors.Is(err, keystore.ErrNotFound) || err == nil && !slices.Contains(s.accounts, k.Account) {
		return nil, "", "", false, Errorf(ResourceNotFound, "there is no access key %q", cut(id, 64))
	} else if err != nil {
		return nil, "", "", false, storeError(err)
	}
	secret, err = s.store.OpenSecret(keystore.AccessSecretName(k.ID), k.Sealed)
	if err != nil {
		return nil, "", "", false, storeError(err)
	}
	return secret, k.Principal, k.Account, k.Active, nil
}
