package kms

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/softkey"
)

// Kinds of intent.
const (
	intentCreateKey     = "create-key"
	intentCreateVersion = "create-version"
)

// maxVersions bounds the versions of one key (reference section 6.2).
const maxVersions = 50

// recoverEvery is how often unfinished work is looked at again while an HSM that it needs is away.
const recoverEvery = 10 * time.Second

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

// Limits of tags (reference section 6.6).
const (
	maxTags    = 20
	maxTagText = 128
)

// parseTags reads the JSON form [{"TagKey":"k","TagValue":"v"}] and checks it.
func parseTags(param string, text json.RawMessage) ([]keystore.Tag, error) {
	if len(text) == 0 {
		return nil, nil
	}
	var wire []kmswire.Tag
	if err := json.Unmarshal(text, &wire); err != nil {
		return nil, Invalid(param, `it must be JSON like [{"TagKey":"k","TagValue":"v"}]`)
	}
	if len(wire) > maxTags {
		return nil, Invalid(param, "%d tags, a key has at most %d", len(wire), maxTags)
	}
	var tags []keystore.Tag
	for _, t := range wire {
		if t.TagKey == "" {
			return nil, Invalid(param, "a tag has no TagKey")
		}
		if strings.HasPrefix(t.TagKey, "aliyun") || strings.HasPrefix(t.TagKey, "acs:") {
			return nil, Invalid(param, "a tag key must not begin with aliyun or acs:")
		}
		for _, text := range []string{t.TagKey, t.TagValue} {
			if err := checkTagText(param, text); err != nil {
				return nil, err
			}
		}
		if slices.ContainsFunc(tags, func(o keystore.Tag) bool { return o.Key == t.TagKey }) {
			return nil, Invalid(param, "tag key %q is given twice", t.TagKey)
		}
		tags = append(tags, keystore.Tag{Key: t.TagKey, Value: t.TagValue})
	}
	return tags, nil
}

func checkTagText(param, text string) error {
	if len(text) > maxTagText {
		return Invalid(param, "a tag has more than %d characters", maxTagText)
	}
	for _, r := range text {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(`/\_-.+=:@ `, r):
		default:
			return Invalid(param, `%q may not stand in a tag: letters, digits, / \ _ - . + = : @ and space may`, r)
		}
	}
	return nil
}

// makeVersion makes the material of a new version of k and commits it together with what add puts into the change. Work
// in an HSM is announced by an intent that the same commit removes (two phases: what a crash leaves is undone at the
// next start).
func (c *call) makeVersion(k *keystore.Key, sp *spec, kind string, add func(*keystore.Change, *keystore.Version)) (*keystore.Version, error) {
	v := &keystore.Version{ID: newVersionID(k.ID), KeyID: k.ID, Created: k.LastRotation}
	if k.Protection == kmswire.ProtectionSoftware {
		if err := c.softwareMaterial(v, sp); err != nil {
			return nil, err
		}
		ch := c.store.Change()
		add(ch, v)
		return v, commitError(ch.Commit(c.ctx))
	}

	intent := &keystore.Intent{ID: newIntentID(), Kind: kind, KeyID: k.ID, Version: v.ID, Started: c.now().UTC()}
	if k.Storage == kmswire.HsmInternal {
		member, err := c.pool.PinTarget()
		if err != nil {
			return nil, poolError(err, nil)
		}
		intent.Member = member
	}
	if err := c.store.Change().PutIntent(intent).Commit(c.ctx); err != nil {
		return nil, storeError(err)
	}
	// From here on the caller's going away must not leave half the work: only its deadline for the HSM counts.
	if err := c.hardwareMaterial(v, k, sp, intent); err != nil {
		c.abandon(intent)
		return nil, err
	}
	ch := c.store.Change()
	add(ch, v)
	if err := ch.DeleteIntent(intent).Commit(context.WithoutCancel(c.ctx)); err != nil {
		// After any other error the commit may have happened all the same. The next start knows: it happened exactly if
		// the intent is gone.
		if errors.Is(err, keystore.ErrConflict) || errors.Is(err, keystore.ErrFull) {
			c.abandon(intent)
		}
		return nil, commitError(err)
	}
	return v, nil
}

// commitError leaves ErrConflict to the caller, who knows what it means.
func commitError(err error) error {
	if err == nil || errors.Is(err, keystore.ErrConflict) {
		return err
	}
	return storeError(err)
}

func (s *Service) softwareMaterial(v *keystore.Version, sp *spec) error {
	var secret []byte
	if sp.symmetric() {
		secret = make([]byte, sp.aesBytes)
		rand.Read(secret) // never fails
	} else {
		private, err := softkey.GenerateKey(sp.name)
		if err != nil {
			return &Error{Code: Internal, Err: err}
		}
		defer private.Close()
		if secret, err = private.Marshal(); err != nil {
			return &Error{Code: Internal, Err: err}
		}
		v.PublicKey = private.Public().Marshal()
	}
	defer clear(secret)
	var err error
	if v.Sealed, err = s.store.Seal(v.ID, secret); err != nil {
		return storeError(err)
	}
	return nil
}

func (c *call) hardwareMaterial(v *keystore.Version, k *keystore.Key, sp *spec, intent *keystore.Intent) error {
	usage := hsmUsage(kmswire.KeyUsage(k.Usage))
	var made *hsmpool.Generated
	var err error
	if intent.Member != "" {
		made, err = c.pool.GeneratePinned(c.ctx, sp.hsm, usage, intentObjectID(intent), intent.Member)
	} else {
		made, err = c.pool.Generate(c.ctx, sp.hsm, usage)
	}
	if err != nil {
		return poolError(err, nil)
	}
	v.Wrapped, v.Member, v.ObjectID, v.PublicKey = made.Wrapped, made.Member, made.ObjectID, made.PublicKey
	return nil
}

// abandon undoes what an intent announced, now if it can be done, in the background otherwise.
func (s *Service) abandon(intent *keystore.Intent) {
	ctx, cancel := context.WithTimeout(context.Background(), recoverEvery)
	defer cancel()
	if err := s.undo(ctx, intent); err != nil {
		s.log.Warn().Err(err).Str("intent", intent.ID).Str("key", intent.KeyID).
			Msg("unfinished work could not be undone now; it will be at the next start")
	}
}

// undo removes what an unfinished intent may have left: nothing for a wrapped key, a token object for a pinned one.
func (s *Service) undo(ctx context.Context, intent *keystore.Intent) error {
	if intent.Member != "" {
		n, err := s.pool.DestroyPinned(ctx, intent.Member, intentObjectID(intent))
		if err != nil {
			return err
		}
		if n > 0 {
			s.log.Info().Str("intent", intent.ID).Str("member", intent.Member).Int("objects", n).
				Msg("objects of an unfinished key destroyed")
		}
	}
	err := s.store.Change().DeleteIntent(intent).Commit(ctx)
	if errors.Is(err, keystore.ErrConflict) {
		return nil // somebody else ended it
	}
	return err
}

// recover undoes what an earlier process left. Nobody was told that it had worked.
func (s *Service) recover(ctx, background context.Context) error {
	intents, err := s.store.Intents(ctx)
	if err != nil {
		return fmt.Errorf("kms: reading unfinished work: %w", err)
	}
	rest := s.undoAll(ctx, intents)
	if len(rest) == 0 {
		return nil
	}
	s.done.Go(func() {
		tick := time.NewTicker(recoverEvery)
		defer tick.Stop()
		for len(rest) > 0 {
			select {
			case <-background.Done():
				return
			case <-tick.C:
				rest = s.undoAll(background, rest)
			}
		}
	})
	return nil
}

func (s *Service) undoAll(ctx context.Context, intents []*keystore.Intent) (rest []*keystore.Intent) {
	for _, i := range intents {
		if err := s.undo(ctx, i); err != nil {
			s.log.Warn().Err(err).Str("intent", i.ID).Str("member", i.Member).Msg("unfinished work can't be undone yet")
			rest = append(rest, i)
		}
	}
	return rest
}

func newIntentID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// intentObjectID is the CKA_ID of what an intent makes. An ID that is no hexadecimal names nothing.
func intentObjectID(i *keystore.Intent) []byte {
	b, err := hex.DecodeString(i.ID)
	if err != nil {
		return []byte(i.ID)
	}
	return b
}

// CreateKeyVersion makes a new version. Of a symmetric key it becomes the primary one.
func (s *Service) CreateKeyVersion(ctx context.Context, actor *Actor, req *kmswire.CreateKeyVersionRequest) (*kmswire.CreateKeyVersionResponse, error) {
	return audited(s, ctx, actor, actCreateKeyVersion, false, func(c *call) (*kmswire.CreateKeyVersionResponse, error) {
		g, err := c.authorizeRef(req.KeyID)
		if err != nil {
			return nil, err
		}
		if g.key.Origin != kmswire.OriginKMS {
			return nil, Errorf(UnsupportedOrigin, "%s has imported material and keeps one version", g.key.ID)
		}
		if g.key.Storage == kmswire.HsmInternal {
			return nil, Errorf(OperationRejected, "%s lives inside one HSM (%s) and keeps one version", g.key.ID, kmswire.HsmInternal)
		}
		if g.key.Versions >= maxVersions {
			return nil, Errorf(LimitExceeded, "%s has %d versions, the most that a key may have", g.key.ID, g.key.Versions)
		}
		if err := c.begun(); err != nil {
			return nil, err
		}
		next := *g.key
		next.LastRotation = s.now().UTC().Truncate(time.Second)
		next.Versions++
		v, err := c.makeVersion(&next, g.spec, intentCreateVersion, func(ch *keystore.Change, v *keystore.Version) {
			if g.spec.symmetric() {
				next.Primary = v.ID
			}
			ch.UpdateKey(g.key, &next).CreateVersion(v)
		})
		if err != nil {
			return nil, storeError(err)
		}
		c.event.VersionID = v.ID
		return &kmswire.CreateKeyVersionResponse{KeyVersion: versionInfo(v)}, nil
	})
}
