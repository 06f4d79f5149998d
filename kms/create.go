package kms

import (
	"context"
	"errors"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// draft is a key that is about to be made: the parameters of CreateKey, checked and turned into records.
type draft struct {
	key      *keystore.Key
	spec     *spec
	instance Instance              // where; zero for keys that are in none, which have a role
	alias    *keystore.Alias       // or nil
	token    *keystore.ClientToken // or nil
	names    []keystore.ClassNames // of the first version; see CreateTokenKey
}

// draftSteps check the parameters of CreateKey, each its own, and add to the draft what they mean. A step may rely on what
// those before it have set.
var draftSteps = []func(*call, *draft, *kmswire.CreateKeyRequest) error{
	(*call).draftPlace,
	(*call).draftSpec,
	(*call).draftUsage,
	(*call).draftStorage,
	(*call).draftExternal,
	(*call).draftOrigin,
	(*call).draftRotation,
	(*call).draftDescription,
	(*call).draftTags,
	(*call).draftPolicy,
	(*call).draftAlias,
	(*call).draftToken,
	(*call).draftRole,
	(*call).checkExternal, // the last, as it asks others
}

// CreateKey makes a key with its first version, and its alias if one is given: all of it or nothing. Without an instance it is in
// the account's default instance, or the account's default key; see also EnableDefaultKey.
func (s *Service) CreateKey(ctx context.Context, actor *Actor, req *kmswire.CreateKeyRequest) (*kmswire.CreateKeyResponse, error) {
	return audited(s, ctx, actor, actCreateKey, false, func(c *call) (*kmswire.CreateKeyResponse, error) {
		role := c.roleWithout(req.DKMSInstanceID)
		if err := c.authorizeNew(role); err != nil {
			return nil, err
		}
		k, err := c.once(req, func() (*keystore.Key, error) { return c.newKey(role, req) })
		if err != nil {
			return nil, err
		}
		return &kmswire.CreateKeyResponse{KeyMetadata: s.metadata(k)}, nil
	})
}

// draft checks the parameters of CreateKey, for a key with a role or none.
func (c *call) draft(role string, req *kmswire.CreateKeyRequest) (*draft, error) {
	now := c.now().UTC().Truncate(time.Second)
	d := &draft{key: &keystore.Key{
		ID: newKeyID(), Account: c.actor.Account, Creator: c.actor.Account, Origin: kmswire.OriginKMS,
		State: string(kmswire.Enabled), Created: now, LastRotation: now, Role: role,
	}}
	for _, step := range draftSteps {
		if err := step(c, d, req); err != nil {
			return nil, err
		}
	}
	c.event.KeyID = d.key.ID
	return d, nil
}

// create makes the key of a draft.
func (c *call) create(d *draft) error {
	var err error
	if d.key.Origin == kmswire.OriginExternal {
		ch := c.store.Change()
		c.putDraft(ch, d, d.key, nil)
		err = c.commitError(d.key, ch.Commit(c.ctx)) // the first import makes the version
	} else {
		err = c.createVersion(d)
	}
	return c.createError(d, err)
}

// putDraft puts the records of a draft into ch, with the key as it is to be, and its first version if there is one.
func (c *call) putDraft(ch *keystore.Change, d *draft, k *keystore.Key, v *keystore.Version) {
	ch.At(c.now()).CreateKey(k)
	if d.alias != nil {
		ch.CreateAlias(d.alias)
	}
	if d.token != nil {
		ch.CreateClientToken(d.token)
	}
	if len(k.OtherAccounts) > 0 {
		ch.Quota(k.Instance, -1, c.accessQuota(k.Instance))
	}
	if v == nil {
		return
	}
	ch.CreateVersion(v)
	if len(d.names) > 0 {
		ch.SetTokenNames(nil, &keystore.TokenNames{Account: k.Account, Instance: k.Instance, KeyID: k.ID, Version: v.ID, Ordinal: 1, Names: d.names})
	}
}

// createError words the error of the commit that makes the key of a draft.
func (c *call) createError(d *draft, err error) error {
	if !errors.Is(err, keystore.ErrConflict) {
		return err
	}
	// Taken meanwhile is the role or the alias: a key ID can't be.
	if d.alias == nil || d.key.Role != "" {
		return storeError(err)
	}
	return aliasExists(d.alias.Name)
}

// createVersion makes the first version, and commits it with the key.
func (c *call) createVersion(d *draft) error {
	d.key.Versions = 1
	v, err := c.makeVersion(d.key, d.spec, intentCreateKey, func(ch *keystore.Change, v *keystore.Version) {
		if d.spec.symmetric() {
			d.key.Primary = v.ID
		}
		c.putDraft(ch, d, d.key, v)
	})
	if err != nil {
		return err
	}
	c.event.VersionID = v.ID
	return nil
}

func (c *call) draftSpec(d *draft, req *kmswire.CreateKeyRequest) error {
	name := req.KeySpec
	if name == "" {
		name = kmswire.AES256
	}
	d.spec = specs[name]
	if d.spec == nil {
		return Invalid("KeySpec", "%q is not a spec that keyward knows", name)
	}
	if d.instance.Type == SoftwareInstance && !d.spec.software {
		return Invalid("KeySpec", "%s is for hardware instances, %s is a software one", name, d.instance.ID)
	}
	d.key.Spec = string(name)
	return nil
}

func (c *call) draftUsage(d *draft, req *kmswire.CreateKeyRequest) error {
	usage, fitting := req.KeyUsage, d.spec.usages()
	if usage == "" {
		usage = fitting[0]
	}
	if !slices.Contains(fitting, usage) {
		return Invalid("KeyUsage", "%s keys can be made for %v, not for %q", d.spec.name, fitting, usage)
	}
	d.key.Usage = string(usage)
	return d.setSecondaryUsage(req.SecondaryKeyUsage)
}

func (c *call) draftStorage(d *draft, req *kmswire.CreateKeyRequest) (err error) {
	d.key.Storage, d.key.Protection, err = storage(d.instance, req.KeyStorageMechanism)
	return err
}

func (c *call) draftDescription(d *draft, req *kmswire.CreateKeyRequest) error {
	d.key.Description = req.Description
	return checkDescription(req.Description)
}

func (c *call) draftTags(d *draft, req *kmswire.CreateKeyRequest) (err error) {
	d.key.Tags, err = parseTags("Tags", req.Tags)
	return err
}

func (c *call) draftAlias(d *draft, req *kmswire.CreateKeyRequest) error {
	if req.AliasName == "" {
		return nil
	}
	if err := checkAlias(req.AliasName); err != nil {
		return err
	}
	c.event.Detail = req.AliasName
	d.alias = &keystore.Alias{Account: d.key.Account, Name: req.AliasName, KeyID: d.key.ID, Created: d.key.Created}
	switch _, err := c.store.Alias(c.ctx, d.key.Account, req.AliasName); {
	case err == nil:
		return aliasExists(req.AliasName)
	case !errors.Is(err, keystore.ErrNotFound):
		return storeError(err)
	}
	return nil
}

// storage decides where an instance's keys have their material.
func storage(in Instance, mechanism string) (storage, protection string, err error) {
	if in.Type != HardwareInstance && mechanism != "" {
		return "", "", Invalid("KeyStorageMechanism", "it is for keys of hardware instances, and this is none")
	}
	switch in.Type {
	case ExternalInstance:
		return "", kmswire.ProtectionExternal, nil
	case HardwareInstance:
	default:
		return "", kmswire.ProtectionSoftware, nil
	}
	switch mechanism {
	case "":
		mechanism = kmswire.HsmEncryptedDatabase
	case kmswire.HsmEncryptedDatabase, kmswire.HsmInternal:
	default:
		return "", "", Invalid("KeyStorageMechanism", "%q is neither %s nor %s", mechanism, kmswire.HsmEncryptedDatabase, kmswire.HsmInternal)
	}
	return mechanism, kmswire.ProtectionHSM, nil
}

func checkDescription(text string) error {
	if !utf8.ValidString(text) {
		return Invalid("Description", "it is not valid UTF-8")
	}
	if n := utf8.RuneCountInString(text); n > kmswire.MaxDescription {
		return Invalid("Description", "%d characters, at most %d are allowed", n, kmswire.MaxDescription)
	}
	return nil
}
