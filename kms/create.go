package kms

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// CreateKey makes a key with its first version, and its alias if one is given: all of it or nothing.
func (s *Service) CreateKey(ctx context.Context, actor *Actor, req *kmswire.CreateKeyRequest) (*kmswire.CreateKeyResponse, error) {
	return audited(s, ctx, actor, actCreateKey, false, func(c *call) (*kmswire.CreateKeyResponse, error) {
		if err := c.authorizeContainer(); err != nil {
			return nil, err
		}
		k, sp, err := c.newKey(req)
		if err != nil {
			return nil, err
		}
		c.event.KeyID = k.ID
		var alias *keystore.Alias
		if req.AliasName != "" {
			c.event.Detail = req.AliasName
			alias = &keystore.Alias{Account: k.Account, Name: req.AliasName, KeyID: k.ID, Created: k.Created}
			if _, err := s.store.Alias(ctx, k.Account, req.AliasName); err == nil {
				return nil, aliasExists(req.AliasName)
			} else if !errors.Is(err, keystore.ErrNotFound) {
				return nil, storeError(err)
			}
		}
		if err := c.begun(); err != nil {
			return nil, err
		}
		v, err := c.makeVersion(k, sp, intentCreateKey, func(ch *keystore.Change, v *keystore.Version) {
			if sp.symmetric() {
				k.Primary = v.ID
			}
			ch.CreateKey(k).CreateVersion(v)
			if alias != nil {
				ch.CreateAlias(alias)
			}
		})
		if errors.Is(err, keystore.ErrConflict) && alias != nil {
			return nil, aliasExists(req.AliasName) // taken meanwhile: a key ID can't be
		} else if err != nil {
			return nil, err
		}
		c.event.VersionID = v.ID
		return &kmswire.CreateKeyResponse{KeyMetadata: s.metadata(k)}, nil
	})
}

// newKey checks the parameters of CreateKey and makes the record, without its version.
func (c *call) newKey(req *kmswire.CreateKeyRequest) (*keystore.Key, *spec, error) {
	if req.DKMSInstanceID == "" {
		e := Missing("DKMSInstanceId")
		e.Detail = "name the instance to create the key in: " + c.instanceList()
		return nil, nil, e
	}
	in, err := c.instance(req.DKMSInstanceID)
	if err != nil {
		return nil, nil, Invalid("DKMSInstanceId", "there is no instance %q; there are %s", req.DKMSInstanceID, c.instanceList())
	}
	name := req.KeySpec
	if name == "" {
		name = kmswire.AES256
	}
	sp := specs[name]
	if sp == nil {
		return nil, nil, Invalid("KeySpec", "%q is not a spec that keyward knows", name)
	}
	if in.Type == SoftwareInstance && !sp.software {
		return nil, nil, Invalid("KeySpec", "%s is for hardware instances, %s is a software one", name, in.ID)
	}
	usage := req.KeyUsage
	if usage == "" {
		usage = sp.usages()[0]
	}
	if !slices.Contains(sp.usages(), usage) {
		return nil, nil, Invalid("KeyUsage", "%s keys can be made for %v, not for %q", name, sp.usages(), usage)
	}
	now := c.now().UTC().Truncate(time.Second)
	k := &keystore.Key{
		ID: newKeyID(), Account: c.actor.Account, Creator: c.actor.Account, Instance: in.ID,
		Spec: string(name), Usage: string(usage), Origin: kmswire.OriginKMS, State: string(kmswire.Enabled),
		Description: req.Description, Created: now, LastRotation: now, Versions: 1,
	}
	if k.Storage, k.Protection, err = storage(in, req.KeyStorageMechanism); err != nil {
		return nil, nil, err
	}
	if err := checkDescription(req.Description); err != nil {
		return nil, nil, err
	}
	if k.Tags, err = parseTags("Tags", req.Tags); err != nil {
		return nil, nil, err
	}
	if req.AliasName != "" {
		if err := checkAlias(req.AliasName); err != nil {
			return nil, nil, err
		}
	}
	return k, sp, notYet(req)
}

// notYet refuses what the API knows and this version of keyward does not do, so that nothing is silently ignored.
func notYet(req *kmswire.CreateKeyRequest) error {
	switch {
	case req.Origin == kmswire.OriginExternal:
		return Errorf(UnsupportedOperation, "importing key material (Origin %s) is not available in this version", req.Origin)
	case req.Origin != "" && req.Origin != kmswire.OriginKMS:
		return Invalid("Origin", "%q is neither %s nor %s", req.Origin, kmswire.OriginKMS, kmswire.OriginExternal)
	case req.EnableAutomaticRotation || req.RotationInterval != "":
		return Errorf(UnsupportedOperation, "automatic rotation is not available in this version; CreateKeyVersion rotates by hand")
	case len(req.Policy) > 0:
		return Errorf(UnsupportedOperation, "key policies are not available in this version; the default policy applies")
	case req.SecondaryKeyUsage != "":
		return Errorf(UnsupportedOperation, "a secondary key usage is not available in this version")
	case req.ExternalKeyID != "":
		return Errorf(UnsupportedOperation, "external keys are not available in this version")
	case req.ClientToken != "":
		return Errorf(UnsupportedOperation, "ClientToken is not available in this version")
	}
	return nil
}

func (s *Service) instanceList() string {
	var ids []string
	for _, in := range s.instances {
		ids = append(ids, in.ID)
	}
	return strings.Join(ids, ", ")
}

// storage decides where an instance's keys have their material.
func storage(in Instance, mechanism string) (storage, protection string, err error) {
	if in.Type == SoftwareInstance {
		if mechanism != "" {
			return "", "", Invalid("KeyStorageMechanism", "it is for hardware instances, %s is a software one", in.ID)
		}
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
