package kms

import (
	"context"
	"errors"
	"time"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/policy"
)

// Keys without an instance have a role: the default key, of which an account has one, and the service keys, of which it has one
// for each service. Both are software keys, cost no quota, and have no key policy. What may be done with them is in roles.go.

// roleInterval is how often keys with a role are rotated, if they are (reference section 6.8).
const roleInterval = 365 * 24 * time.Hour

// EnableDefaultKey makes the default key of the caller's account, or gives the one that is there. A service gets its own key.
func (s *Service) EnableDefaultKey(ctx context.Context, actor *Actor, _ *kmswire.EnableDefaultKeyRequest) (*kmswire.EnableDefaultKeyResponse, error) {
	return audited(s, ctx, actor, actEnableDefaultKey, false, func(c *call) (*kmswire.EnableDefaultKeyResponse, error) {
		role := keystore.RoleDefault
		if _, ok := c.serviceOf(actor); ok {
			role = keystore.RoleService
		}
		if err := c.authorizeNew(role); err != nil {
			return nil, err
		}
		k, err := c.newKey(role, &kmswire.CreateKeyRequest{})
		if err != nil {
			return nil, err
		}
		return &kmswire.EnableDefaultKeyResponse{KeyMetadata: s.metadata(k)}, nil
	})
}

// roleWithout is the role of a key that is made when no instance is named: a service's own key, none if the account has a default
// instance, or its default key.
func (c *call) roleWithout(instance string) string {
	if instance != "" {
		return ""
	}
	if _, ok := c.serviceOf(c.actor); ok {
		return keystore.RoleService
	}
	if _, ok := c.defaultInstance(c.actor.Account); ok {
		return ""
	}
	return keystore.RoleDefault
}

// authorizeNew is for whoever makes a key. A service needs no permission for a key that only it can use.
func (c *call) authorizeNew(role string) error {
	if role == keystore.RoleService {
		return nil
	}
	return c.authorizeContainer(policy.Key)
}

// newKey makes a key, for a caller who may: see authorizeNew. Of a service's key, and of the default key when EnableDefaultKey asks, it gives the one that is there.
func (c *call) newKey(role string, req *kmswire.CreateKeyRequest) (*keystore.Key, error) {
	d, err := c.draft(role, req)
	if err != nil {
		return nil, err
	}
	there, err := c.keyInRole(d.key)
	if err != nil {
		return nil, err
	}
	if there == nil {
		if err := c.begun(); err != nil {
			return nil, err
		}
		if err = c.create(d); err == nil {
			return d.key, nil
		}
		// Perhaps somebody else made it meanwhile. If that can't be told, the first error says enough.
		if there, _ = c.keyInRole(d.key); there == nil {
			return nil, err
		}
	}
	c.event.KeyID, c.event.VersionID = there.ID, ""
	if role == keystore.RoleDefault && c.action != actEnableDefaultKey {
		return nil, Errorf(LimitExceeded, "account %s has its default key, %s, and can have one only; use that (EnableDefaultKey gives it), or name an instance: %s",
			there.Account, there.ID, c.instanceList(there.Account))
	}
	return there, nil
}

// keyInRole gives the key that has the role of k in k's account already; nil if there is none, or if k has no role.
func (c *call) keyInRole(k *keystore.Key) (*keystore.Key, error) {
	var id string
	var err error
	switch k.Role {
	case "":
		return nil, nil
	case keystore.RoleDefault:
		id, err = c.store.DefaultKey(c.ctx, k.Account)
	default:
		id, err = c.store.ServiceKey(c.ctx, k.Account, k.Creator)
	}
	var there *keystore.Key
	if err == nil {
		there, err = c.store.Key(c.ctx, id)
	}
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, storeError(err)
	}
	return there, nil
}

// draftPlace finds the instance, or the service whose key it is.
func (c *call) draftPlace(d *draft, req *kmswire.CreateKeyRequest) error {
	switch d.key.Role {
	case keystore.RoleDefault:
		return nil
	case keystore.RoleService:
		service, ok := c.serviceOf(c.actor)
		if !ok { // a reload came between
			return Errorf(Denied, "%s is no service any more", c.actor.Principal)
		}
		d.key.Creator = service.Code
		return nil
	}
	in, ok := c.defaultInstance(c.actor.Account)
	if req.DKMSInstanceID != "" || !ok {
		var err error
		if in, err = c.instanceFor(c.actor.Account, req.DKMSInstanceID); err != nil {
			return Invalid("DKMSInstanceId", "%s", AsError(err).Detail)
		}
	}
	d.instance, d.key.Instance = in, in.ID
	return nil
}

// draftRole holds a key with a role against what such keys can be, and gives a service's key its name and rotation.
func (c *call) draftRole(d *draft, req *kmswire.CreateKeyRequest) error {
	if d.key.Role == "" {
		return nil
	}
	if d.spec.name != kmswire.AES256 {
		return Invalid("KeySpec", "a key in no instance can be %s only, not %s; name an instance in DKMSInstanceId: %s",
			kmswire.AES256, d.spec.name, c.instanceList(d.key.Account))
	}
	if p := req.ProtectionLevel; p != "" && p != d.key.Protection {
		return Errorf(UnsupportedProtection, "a key in no instance has protection %s, not %q; name an instance in DKMSInstanceId: %s",
			d.key.Protection, p, c.instanceList(d.key.Account))
	}
	if len(req.Policy) > 0 {
		return Invalid("Policy", "only keys in instances have a key policy")
	}
	if d.key.Role == keystore.RoleDefault {
		if d.key.AutoRotate {
			return checkRoleInterval(d.key.RotationInterval)
		}
		return nil
	}
	if req.AliasName != "" {
		return Invalid("AliasName", "the key of service %s has the name %s", d.key.Creator, serviceKeyAlias(d.key.Creator))
	}
	if d.key.Origin != kmswire.OriginKMS {
		return Invalid("Origin", "the key of a service can't be imported")
	}
	d.alias = &keystore.Alias{Account: d.key.Account, Name: serviceKeyAlias(d.key.Creator), KeyID: d.key.ID, Created: d.key.Created}
	d.key.AutoRotate, d.key.RotationInterval = true, roleInterval
	return nil
}

// checkRoleInterval holds the rotation interval of a key with a role against the one that it can have.
func checkRoleInterval(every time.Duration) error {
	if every != roleInterval {
		return Invalid("RotationInterval", "the default key rotates every 365 days or not at all")
	}
	return nil
}

// serviceKeyAlias is the name of a service's key in every account.
func serviceKeyAlias(code string) string { return serviceAlias + "/" + code }
