package kms

import (
	"errors"
	"strings"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// grant is the proof that the caller may do an action with a key now. Only authorize makes one, and whatever reaches
// key material asks for one, so that no path around the checks can be written by accident.
type grant struct {
	key  *keystore.Key
	spec *spec
}

// authorizeRef finds the key that a KeyId parameter names and authorizes the call's action on it.
func (c *call) authorizeRef(keyID string) (grant, error) {
	c.event.KeyID = keyID
	ref, err := c.parseReference("KeyId", keyID, c.actor)
	if err != nil {
		return grant{}, err
	}
	return c.authorizeFound(ref, c.action)
}

// authorizeManage is authorizeRef for actions that take a key ID or ARN, but no alias.
func (c *call) authorizeManage(keyID string) (grant, error) {
	return c.authorizeNamed("KeyId", keyID)
}

// authorizeNamed is authorizeManage for a key that is named by another parameter.
func (c *call) authorizeNamed(param, keyID string) (grant, error) {
	c.event.KeyID = keyID
	ref, err := c.parseReference(param, keyID, c.actor)
	if err != nil {
		return grant{}, err
	}
	if ref.alias != "" {
		return grant{}, Errorf(UnsupportedAlias, "%s takes a key ID or ARN, not %s", c.action.name, ref.alias)
	}
	return c.authorizeFound(ref, c.action)
}

func (c *call) authorizeFound(ref reference, act *action) (grant, error) {
	k, err := c.find(c.ctx, ref)
	if err != nil {
		return grant{}, err
	}
	g, err := c.authorize(k, act)
	if ref.alias != "" && errors.Is(err, KeyNotFound) {
		err = aliasNotFound(ref.account, ref.alias) // as if the alias were not there: its key may not be known either
	}
	return g, err
}

// authorize decides by policy, then by what kind of key it is, then by state. A caller of another account who is not allowed learns only that the key
// is not there.
func (c *call) authorize(k *keystore.Key, act *action) (grant, error) {
	if c.event.KeyID != k.ID {
		c.event.KeyID = k.ID
	}
	allowed := c.isServiceOf(k)
	if !allowed {
		var err error
		allowed, err = c.permits(k, act)
		if c.actor.Account != k.Account && (errors.Is(err, KeyUnavailable) || errors.Is(err, Denied)) {
			missing := keyNotFound(k.ID)
			missing.Err = err // a policy can't be read: the log says so, the caller may not know that there is one
			return grant{}, missing
		}
		if err != nil {
			return grant{}, err
		}
	}
	if !allowed {
		if c.actor.Account != k.Account {
			return grant{}, keyNotFound(k.ID)
		}
		return grant{}, Errorf(Denied, "no policy lets %s do kms:%s with %s, or one denies it", c.actor.Principal, act.name, k.ID)
	}
	if err := c.checkRole(k, act); err != nil {
		return grant{}, err
	}
	state := c.state(k)
	if code := act.states.check(state); code != pass {
		if k.State != string(state) {
			return grant{}, Errorf(code, "the material of %s expired at %s; import it again", k.ID, formatTime(*k.MaterialExpires))
		}
		return grant{}, Errorf(code, "%s is %s", k.ID, state)
	}
	sp := specs[kmswire.KeySpec(k.Spec)]
	if sp == nil {
		return grant{}, Errorf(KeyUnavailable, "%s has spec %q, which this version of keyward does not know", k.ID, k.Spec)
	}
	return grant{k, sp}, nil
}

// state is the state that a key is in: that of its record, but for imported material that has expired and is not destroyed yet.
func (s *Service) state(k *keystore.Key) kmswire.KeyState {
	state := kmswire.KeyState(k.State)
	if k.MaterialExpires != nil && state != kmswire.PendingDeletion && s.clock.past(*k.MaterialExpires, k.MaterialAfter) {
		return kmswire.PendingImport
	}
	return state
}

func isRoot(a *Actor) bool {
	rest, ok := strings.CutPrefix(a.Principal, "acs:ram::")
	return ok && rest == a.Account+":root"
}

// symmetric refuses asymmetric keys where the API knows symmetric ones only.
func (g grant) symmetric(act *action) error {
	if !g.spec.symmetric() {
		return Errorf(UnsupportedOperation, "%s works with symmetric keys, %s is %s", act.name, g.key.ID, g.key.Spec)
	}
	if kmswire.KeyUsage(g.key.Usage) != kmswire.EncryptDecrypt {
		return errUsage(g)
	}
	return nil
}
