package kms

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/policy"
)

// XKI is the administration of external keys, both ways: the prefixes under which keys of an account are served to other key management services, with
// the access keys for them, and the connections of external instances. An account's root manages its own account's, and the root of the first
// account those of all. What paths, dialects and rules mean is package xki's business: whoever calls has checked them.
type XKI struct{ s *Service }

// XKI gives the administration of external keys.
func (s *Service) XKI() XKI { return XKI{s} }

// Limits of prefixes.
const (
	maxXKIPrefixes    = 256
	maxXKIKeys        = 1000 // of one prefix
	maxXKICredentials = 4    // of one prefix: two in use, or one in use and one to change over to, and room for a mistake
	maxXKIName        = 64
)

// The acts of this administration, for the audit.
var (
	actManageXKI           = &action{name: "ManageXKI", kind: kindManage}
	actListXKI             = &action{name: "ListXKI", kind: kindRead}
	actCreateXKIPrefix     = &action{name: "CreateXKIPrefix", kind: kindManage}
	actUpdateXKIPrefix     = &action{name: "UpdateXKIPrefix", kind: kindManage}
	actDeleteXKIPrefix     = &action{name: "DeleteXKIPrefix", kind: kindManage}
	actCreateXKICredential = &action{name: "CreateXKICredential", kind: kindManage}
	actExportXKICredential = &action{name: "ExportXKICredential", kind: kindManage}
	actDeleteXKICredential = &action{name: "DeleteXKICredential", kind: kindManage}
	actConnectXKI          = &action{name: "ConnectXKI", kind: kindManage}
	actDisconnectXKI       = &action{name: "DisconnectXKI", kind: kindManage}
)

// Refuse gives the error of an actor who may manage nothing here, audited, before what he sends is looked at. nil: he may manage something.
func (x XKI) Refuse(ctx context.Context, actor *Actor) error {
	if isRoot(actor) {
		return nil
	}
	_, err := audited(x.s, ctx, actor, actManageXKI, false, func(c *call) (*struct{}, error) { return nil, c.mayManage(actor.Account) })
	return err
}

// Prefixes lists the prefixes that the actor may manage, by name.
func (x XKI) Prefixes(ctx context.Context, actor *Actor) (list []*keystore.XKIPrefix, err error) {
	_, err = audited(x.s, ctx, actor, actListXKI, false, func(c *call) (*struct{}, error) {
		if err := c.mayManage(actor.Account); err != nil {
			return nil, err
		}
		all, err := c.store.XKIPrefixes(ctx)
		for _, p := range all {
			if c.mayManage(p.Account) == nil {
				list = append(list, p)
			}
		}
		return done(storeErrorOrNil(err))
	})
	return list, err
}

// CreatePrefix makes a prefix. p has no credentials yet, and in place of IDs its Keys may have aliases and ARNs. Without an Account it is the actor's,
// without a Principal its root's: the keys that the prefix names are all that can be used, whatever else the principal may.
func (x XKI) CreatePrefix(ctx context.Context, actor *Actor, p *keystore.XKIPrefix) (*keystore.XKIPrefix, error) {
	return audited(x.s, ctx, actor, actCreateXKIPrefix, false, func(c *call) (*keystore.XKIPrefix, error) {
		next := *p
		if next.Account == "" {
			next.Account = actor.Account
		}
		c.event.Detail = cut(next.Name, maxXKIName)
		if err := c.mayManage(next.Account); err != nil {
			return nil, err
		}
		if next.Name == "" || len(next.Name) > maxXKIName || strings.Trim(next.Name, idCharacters+"-") != "" {
			return nil, Invalid("Name", "%.80q is none: it has 1 to %d lower-case letters, digits and hyphens", next.Name, maxXKIName)
		}
		if err := c.xkiPrincipal(&next); err != nil {
			return nil, err
		}
		keys, err := c.xkiKeys(next.Account, next.Keys)
		if err != nil {
			return nil, err
		}
		next.Keys, next.Credentials, next.Created = keys, nil, c.now().UTC().Truncate(time.Second)
		all, err := c.store.XKIPrefixes(ctx)
		if err != nil {
			return nil, storeError(err)
		}
		if len(all) >= maxXKIPrefixes {
			return nil, Errorf(LimitExceeded, "there are %d prefixes, the most that there may be; delete one first", len(all))
		}
		for _, other := range all {
			switch {
			case other.Name == next.Name:
				return nil, Errorf(OperationRejected, "there is a prefix %s already", next.Name)
			case other.Path == next.Path && other.Dialect == next.Dialect:
				return nil, Errorf(OperationRejected, "the path %q of the dialect %s is that of the prefix %s", next.Path, next.Dialect, other.Name)
			}
		}
		if err := c.begun(); err != nil {
			return nil, err
		}
		err = c.store.Change().PutXKIPrefix(nil, &next).Commit(ctx)
		return &next, storeErrorOrNil(err)
	})
}

// xkiPrincipal sets and checks as whom a prefix uses keys.
func (c *call) xkiPrincipal(p *keystore.XKIPrefix) error {
	root := "acs:ram::" + p.Account + ":root"
	if p.Principal == "" {
		p.Principal = root
	}
	who, err := policy.ParsePrincipal(p.Principal)
	if err != nil {
		return Invalid("Principal", "%v", err)
	}
	if who.Account() != p.Account {
		return Invalid("Principal", "%s is not of account %s, whose keys the prefix serves", p.Principal, p.Account)
	}
	if p.Principal == root {
		return nil
	}
	switch record, err := c.store.Principal(c.ctx, p.Principal); {
	case err != nil:
		return storeError(err)
	case record.Absent:
		return Errorf(ResourceNotFound, "there is no principal %s; create it first", p.Principal)
	}
	return nil
}

// xkiKeys finds the keys that a prefix is to serve: keys of its account that encrypt with AES-256 and are in an instance.
func (c *call) xkiKeys(account string, named map[string]string) (map[string]string, error) {
	keys := make(map[string]string, len(named))
	for external, name := range named {
		if external == "" || len(external) > maxExternalID || strings.Trim(external, externalIDCharacters) != "" {
			return nil, Invalid("Keys", "%.140q can't be an External Key ID: it has 1 to %d letters, digits, hyphens, dots and underscores", external, maxExternalID)
		}
		ref, err := c.parseReference("Keys", name, &Actor{Account: account})
		if err != nil {
			return nil, err
		}
		k, err := c.find(c.ctx, ref)
		switch {
		case err != nil:
			return nil, err
		case k.Account != account:
			return nil, keyNotFound(k.ID)
		case kmswire.KeySpec(k.Spec) != kmswire.AES256 || kmswire.KeyUsage(k.Usage) != kmswire.EncryptDecrypt:
			return nil, Invalid("Keys", "%s is a key of %s for %s; other key management services take %s for %s only", name, k.Spec, k.Usage, kmswire.AES256, kmswire.EncryptDecrypt)
		case k.ExternalID != "":
			return nil, Invalid("Keys", "%s is another key manager's; let that one serve it", name)
		case k.Instance == "":
			return nil, Invalid("Keys", "%s is in no instance; make a key in one: keywardctl key create --instance", name)
		}
		keys[external] = k.ID
	}
	return keys, nil
}

// XKIPrefixUpdate is what changes of a prefix. nil stays as it is.
type XKIPrefixUpdate struct {
	AddKeys    map[string]string // as in CreatePrefix; one that is there is replaced
	RemoveKeys []string          // External Key IDs
	PerSecond  *int
	Rules      *[]keystore.XKIRule
}

// UpdatePrefix changes a prefix.
func (x XKI) UpdatePrefix(ctx context.Context, actor *Actor, name string, u *XKIPrefixUpdate) (*keystore.XKIPrefix, error) {
	return audited(x.s, ctx, actor, actUpdateXKIPrefix, false, func(c *call) (*keystore.XKIPrefix, error) {
		return c.editPrefix(name, len(u.RemoveKeys) > 0, func(p *keystore.XKIPrefix) error {
			for _, external := range u.RemoveKeys {
				if p.Keys[external] == "" {
					return Errorf(ResourceNotFound, "the prefix %s has no key %.140q", name, external)
				}
				c.event.Detail += " -" + external
				delete(p.Keys, external)
			}
			add, err := c.xkiKeys(p.Account, u.AddKeys)
			if err != nil {
				return err
			}
			if p.Keys == nil {
				p.Keys = map[string]string{}
			}
			for external, id := range add {
				c.event.Detail += " " + external + "=" + id
				p.Keys[external] = id
			}
			if len(p.Keys) > maxXKIKeys {
				return Errorf(LimitExceeded, "a prefix has at most %d keys; make another prefix", maxXKIKeys)
			}
			if u.PerSecond != nil {
				c.event.Detail += fmt.Sprintf(" per_second=%d", *u.PerSecond)
				p.PerSecond = *u.PerSecond
			}
			if u.Rules != nil {
				c.event.Detail += fmt.Sprintf(" %d rules", len(*u.Rules))
				p.Rules = *u.Rules
			}
			return nil
		})
	})
}

// DeletePrefix removes a prefix with its credentials. Keys stay.
func (x XKI) DeletePrefix(ctx context.Context, actor *Actor, name string) error {
	_, err := audited(x.s, ctx, actor, actDeleteXKIPrefix, false, func(c *call) (*keystore.XKIPrefix, error) {
		was, err := c.xkiPrefix(name)
		if err != nil {
			return nil, err
		}
		if err := c.begun(); err != nil {
			return nil, err
		}
		return was, storeErrorOrNil(c.store.Change().PutXKIPrefix(was, nil).Urgent().Commit(ctx))
	})
	return err
}

// xkiPrefix finds a prefix that the actor may manage.
func (c *call) xkiPrefix(name string) (*keystore.XKIPrefix, error) {
	c.event.Detail = cut(name, maxXKIName)
	if err := c.mayManage(c.actor.Account); err != nil {
		return nil, err
	}
	p, err := c.store.XKIPrefix(c.ctx, name)
	if errors.Is(err, keystore.ErrNotFound) || err == nil && c.mayManage(p.Account) != nil {
		return nil, Errorf(ResourceNotFound, "there is no prefix %.80q that you may manage", name)
	}
	return p, storeErrorOrNil(err)
}

// editPrefix changes a prefix, again when somebody else was faster.
func (c *call) editPrefix(name string, urgent bool, change func(*keystore.XKIPrefix) error) (*keystore.XKIPrefix, error) {
	for try := 0; ; try++ {
		was, err := c.xkiPrefix(name)
		if err != nil {
			return nil, err
		}
		next, err := c.xkiPrefix(name) // a copy that shares nothing
		if err != nil {
			return nil, err
		}
		if err := change(next); err != nil {
			return nil, err
		}
		if try == 0 {
			if err := c.begun(); err != nil {
				return nil, err
			}
		}
		ch := c.store.Change().PutXKIPrefix(was, next)
		if urgent {
			ch.Urgent()
		}
		err = ch.Commit(c.ctx)
		if errors.Is(err, keystore.ErrConflict) && try < 5 {
			continue
		}
		return next, storeErrorOrNil(err)
	}
}

// CreateCredential makes an access key of a prefix. AWS wants an ID of 20 to 30 of A-Z and 2-7, and a secret of 43 to 64 characters with 256 bits
// (reference xki-proxy.md §2.10).
func (x XKI) CreateCredential(ctx context.Context, actor *Actor, name string) (*NewAccessKey, error) {
	return audited(x.s, ctx, actor, actCreateXKICredential, false, func(c *call) (_ *NewAccessKey, err error) {
		var random [16 + 32]byte
		rand.Read(random[:]) // never fails
		defer clear(random[:])
		made := &NewAccessKey{ID: base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(random[:16]), Secret: make([]byte, base64.StdEncoding.EncodedLen(32))}
		base64.StdEncoding.Encode(made.Secret, random[16:])
		defer func() {
			if err != nil {
				clear(made.Secret)
			}
		}()
		sealed, err := c.store.SealSecret(keystore.XKISecretName(name, made.ID), made.Secret)
		if err != nil {
			return nil, storeError(err)
		}
		_, err = c.editPrefix(name, false, func(p *keystore.XKIPrefix) error {
			if len(p.Credentials) >= maxXKICredentials {
				var ids []string
				for _, k := range p.Credentials {
					ids = append(ids, k.ID)
				}
				return Errorf(LimitExceeded, "the prefix %s has %d credentials, the most that it may have; delete one first: %s", name, len(ids), strings.Join(ids, ", "))
			}
			made.Principal = p.Principal
			c.event.Detail += " " + made.ID
			p.Credentials = append(p.Credentials, keystore.XKICredential{ID: made.ID, Sealed: sealed, Created: c.now().UTC().Truncate(time.Second)})
			return nil
		})
		return made, err
	})
}

// ExportCredential gives an access key of a prefix with its secret, for the configuration of the other side. Without an ID it is the newest. The
// caller wipes the secret.
func (x XKI) ExportCredential(ctx context.Context, actor *Actor, name, id string) (*NewAccessKey, *keystore.XKIPrefix, error) {
	var p *keystore.XKIPrefix
	made, err := audited(x.s, ctx, actor, actExportXKICredential, false, func(c *call) (_ *NewAccessKey, err error) {
		if p, err = c.xkiPrefix(name); err != nil {
			return nil, err
		}
		at := len(p.Credentials) - 1
		if id != "" {
			at = slices.IndexFunc(p.Credentials, func(k keystore.XKICredential) bool { return k.ID == id })
		}
		if at < 0 {
			return nil, Errorf(ResourceNotFound, "the prefix %s has no such credential; keywardctl xki credential create %s", name, name)
		}
		k := &p.Credentials[at]
		c.event.Detail += " " + k.ID
		if err := c.begun(); err != nil {
			return nil, err
		}
		secret, err := c.store.OpenSecret(keystore.XKISecretName(name, k.ID), k.Sealed)
		return &NewAccessKey{ID: k.ID, Principal: p.Principal, Secret: secret}, storeErrorOrNil(err)
	})
	return made, p, err
}

// DeleteCredential removes an access key of a prefix.
func (x XKI) DeleteCredential(ctx context.Context, actor *Actor, name, id string) error {
	_, err := audited(x.s, ctx, actor, actDeleteXKICredential, false, func(c *call) (*keystore.XKIPrefix, error) {
		return c.editPrefix(name, true, func(p *keystore.XKIPrefix) error {
			c.event.Detail += " " + cut(id, 64)
			had := len(p.Credentials)
			p.Credentials = slices.DeleteFunc(p.Credentials, func(k keystore.XKICredential) bool { return k.ID == id })
			if len(p.Credentials) == had {
				return Errorf(ResourceNotFound, "the prefix %s has no credential %.80q", name, id)
			}
			return nil
		})
	})
	return err
}

// Connections lists the connections of the external instances that the actor may manage.
func (x XKI) Connections(ctx context.Context, actor *Actor) (list []*keystore.XKIConnection, err error) {
	_, err = audited(x.s, ctx, actor, actListXKI, false, func(c *call) (*struct{}, error) {
		if err := c.mayManage(actor.Account); err != nil {
			return nil, err
		}
		all, err := c.store.XKIConnections(ctx)
		for _, conn := range all {
			if in := c.instances.Load().byID[conn.Instance]; in == nil && c.mayManage(c.account) == nil || in != nil && c.mayManage(in.Account) == nil {
				list = append(list, conn)
			}
		}
		return done(storeErrorOrNil(err))
	})
	return list, err
}

// Connect sets the way to the key manager behind an external instance. conn has no sealed secrets yet. key, PKCS #8 of its Certificate, may be empty.
func (x XKI) Connect(ctx context.Context, actor *Actor, conn *keystore.XKIConnection, secret, key []byte) error {
	_, err := audited(x.s, ctx, actor, actConnectXKI, false, func(c *call) (*struct{}, error) {
		c.event.Detail = cut(conn.Instance, maxXKIName) + " " + cut(conn.Endpoint+conn.Path, 256) + " as " + cut(conn.AccessKeyID, 64)
		in := c.instances.Load().byID[conn.Instance]
		if in == nil || in.Type != ExternalInstance || c.mayManage(in.Account) != nil {
			return nil, Errorf(ResourceNotFound, "there is no external instance %.80q that you may manage; an [[instance]] row of type %q in the configuration makes one", conn.Instance, ExternalInstance)
		}
		next := *conn
		next.Changed = c.now().UTC().Truncate(time.Second)
		name := keystore.XKIConnectionName(conn.Instance)
		var err error
		if next.Sealed, err = c.store.SealSecret(name, secret); err != nil {
			return nil, storeError(err)
		}
		next.SealedKey = nil
		if len(key) > 0 {
			if next.SealedKey, err = c.store.SealSecret(name+" key", key); err != nil {
				return nil, storeError(err)
			}
		}
		return done(c.putConnection(conn.Instance, &next))
	})
	return err
}

// Disconnect removes the way to the key manager behind an external instance. Its keys stay, and can't be used until there is one again.
func (x XKI) Disconnect(ctx context.Context, actor *Actor, instance string) error {
	_, err := audited(x.s, ctx, actor, actDisconnectXKI, false, func(c *call) (*struct{}, error) {
		c.event.Detail = cut(instance, maxXKIName)
		if err := c.mayManage(actor.Account); err != nil {
			return nil, err
		}
		if in := c.instances.Load().byID[instance]; in != nil && c.mayManage(in.Account) != nil || in == nil && c.mayManage(c.account) != nil {
			return nil, Errorf(ResourceNotFound, "there is no external instance %.80q that you may manage", instance)
		}
		return done(c.putConnection(instance, nil))
	})
	return err
}

// putConnection replaces the connection of an instance, whatever it was; next may be nil.
func (c *call) putConnection(instance string, next *keystore.XKIConnection) error {
	for try := 0; ; try++ {
		was, err := c.store.XKIConnection(c.ctx, instance)
		if errors.Is(err, keystore.ErrNotFound) {
			was, err = nil, nil
		}
		if err != nil {
			return storeError(err)
		}
		if was == nil && next == nil {
			return Errorf(ResourceNotFound, "%.80q has no connection", instance)
		}
		if try == 0 {
			if err := c.begun(); err != nil {
				return err
			}
		}
		err = c.store.Change().PutXKIConnection(was, next).Commit(c.ctx)
		if errors.Is(err, keystore.ErrConflict) && try < 5 {
			continue
		}
		return storeErrorOrNil(err)
	}
}

// OpenXKIPrefixes gives all prefixes, for whoever serves them, with their secrets by the IDs of the credentials. Those of accounts that the configuration no longer has
// are not among them; with an error, those that are damaged are not either. It is no call of anybody.
func (s *Service) OpenXKIPrefixes(ctx context.Context) ([]*keystore.XKIPrefix, map[string][]byte, error) {
	all, err := s.store.XKIPrefixes(ctx)
	errs := []error{storeErrorOrNil(err)}
	secrets := map[string][]byte{}
	all = slices.DeleteFunc(all, func(p *keystore.XKIPrefix) bool {
		if !slices.Contains(s.accounts, p.Account) {
			return true
		}
		for _, k := range p.Credentials {
			secret, err := s.store.OpenSecret(keystore.XKISecretName(p.Name, k.ID), k.Sealed)
			if err != nil {
				errs = append(errs, fmt.Errorf("the secret of %s of the prefix %s: %w", k.ID, p.Name, err))
				return true
			}
			secrets[k.ID] = secret
		}
		return false
	})
	return all, secrets, errors.Join(errs...)
}

// XKIConnections gives the connections of all external instances, for whoever keeps them; with an error, those that are not damaged. It is no call of anybody.
func (s *Service) XKIConnections(ctx context.Context) ([]*keystore.XKIConnection, error) {
	all, err := s.store.XKIConnections(ctx)
	return all, storeErrorOrNil(err)
}

// OpenXKIConnection opens the secrets of a connection: that of the access key, and PKCS #8 of the certificate's key, nil if there is none. The caller wipes
// them.
func (s *Service) OpenXKIConnection(conn *keystore.XKIConnection) (secret, key []byte, err error) {
	name := keystore.XKIConnectionName(conn.Instance)
	if secret, err = s.store.OpenSecret(name, conn.Sealed); err != nil {
		return nil, nil, storeError(err)
	}
	if conn.SealedKey != nil {
		if key, err = s.store.OpenSecret(name+" key", conn.SealedKey); err != nil {
			clear(secret)
			return nil, nil, storeError(err)
		}
	}
	return secret, key, nil
}
