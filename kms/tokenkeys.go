package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// The bounds of a KeyPlace. What lies beyond them has no place, and is no object.
const (
	maxSequence = 1<<40 - 1
	maxOrdinal  = 1<<20 - 1
)

// maxTokenPlaces bounds the places that are kept; one takes about 1 KiB.
const maxTokenPlaces = 16384

// tokenKeys is what is kept of keys as objects of tokens.
type tokenKeys struct {
	ids    *defaultIDs
	places *lru.Cache[accountPlace, *tokenPlace]
}

type accountPlace struct {
	account string
	KeyPlace
}

// tokenPlace says which version is at a place, which never changes, and how it looked last.
type tokenPlace struct {
	keyID, versionID string
	last             atomic.Pointer[tokenView]
}

// tokenView is a version as an object, and the records that it was made of. The store hands the same records out as long as they are the
// newest and it keeps them. What is shown of the version's own record never changes.
type tokenView struct {
	key   *keystore.Key
	alias *keystore.Alias
	names *keystore.TokenNames // nil: no client has set any
	shown *TokenKey
}

func newTokenKeys(store *keystore.DB) (*tokenKeys, error) {
	ids, err := newDefaultIDs(store)
	if err != nil {
		return nil, err
	}
	t := &tokenKeys{ids: ids}
	t.places, _ = lru.New[accountPlace, *tokenPlace](maxTokenPlaces) // fails only for sizes below 1
	return t, nil
}

// looking begins a look at a token's objects: by whom. It is no call of the audit, as nothing is done.
func (s *Service) looking(ctx context.Context, actor *Actor) (call, error) {
	if actor == nil || actor.Principal == "" || actor.Account == "" {
		return call{}, Errorf(Denied, "the caller is not mapped to a principal")
	}
	return call{Service: s, ctx: ctx, actor: actor, action: actDescribeKey}, nil
}

// notThere is the one answer to a place where the caller sees nothing, whatever the reason.
func notThere(place KeyPlace) *Error {
	return Errorf(KeyNotFound, "there is no version %d of a key %d that this caller may know of", place.Ordinal, place.Sequence)
}

// sees says whether versions of a key are objects of an instance's token for the caller. A key whose policy can't be read is none, so
// that the others can be used.
func (c *call) sees(k *keystore.Key, instance string) (bool, error) {
	if k.Instance != instance || k.Account != c.actor.Account || k.ExternalID != "" {
		return false, nil
	}
	if state := c.state(k); state != kmswire.Enabled && state != kmswire.Disabled {
		return false, nil
	}
	ok, err := c.permits(k, actDescribeKey)
	if errors.Is(err, KeyUnavailable) || errors.Is(err, Denied) {
		if _, err := c.identityOf(c.actor); err != nil {
			return false, err // it is not about this key
		}
		return false, nil
	}
	return ok, err
}

// placed gives what is at a place of the caller's account: versions have the ordinals from 1 to Key.Versions.
func (c *call) placed(place KeyPlace) (*tokenPlace, error) {
	if at, ok := c.tokens.places.Get(accountPlace{c.actor.Account, place}); ok {
		return at, nil
	}
	if place.Sequence < 1 || place.Sequence > maxSequence || place.Ordinal < 1 || place.Ordinal > maxOrdinal {
		return nil, notThere(place)
	}
	keyID, err := c.store.KeyAt(c.ctx, c.actor.Account, place.Sequence)
	if err == nil {
		var versionID string
		if versionID, err = c.store.VersionAt(c.ctx, keyID, uint64(place.Ordinal)); err == nil {
			return c.place(place, keyID, versionID), nil
		}
	}
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, notThere(place)
	}
	return nil, storeError(err)
}

// place keeps what is at a place of the caller's account.
func (c *call) place(place KeyPlace, keyID, versionID string) *tokenPlace {
	in := accountPlace{c.actor.Account, place}
	if at, ok := c.tokens.places.Get(in); ok {
		return at
	}
	at := &tokenPlace{keyID: keyID, versionID: versionID}
	c.tokens.places.Add(in, at)
	return at
}

// TokenKey gives the version at a place, KeyNotFound if there is none that the actor may describe in that instance. The value is
// shared and immutable.
func (s *Service) TokenKey(ctx context.Context, actor *Actor, instance string, place KeyPlace) (*TokenKey, error) {
	c, err := s.looking(ctx, actor)
	if err != nil {
		return nil, err
	}
	return c.tokenKey(instance, place)
}

func (c *call) tokenKey(instance string, place KeyPlace) (*TokenKey, error) {
	at, err := c.placed(place)
	if err != nil {
		return nil, err
	}
	k, err := c.store.Key(c.ctx, at.keyID)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, notThere(place)
	} else if err != nil {
		return nil, storeError(err)
	}
	if ok, err := c.sees(k, instance); err != nil {
		return nil, err
	} else if !ok {
		return nil, notThere(place)
	}
	return c.show(k, at, place)
}

// show makes an object of a version that the caller sees, or gives the one that is made already.
func (c *call) show(k *keystore.Key, at *tokenPlace, place KeyPlace) (*TokenKey, error) {
	alias, err := c.store.OldestAlias(c.ctx, k)
	if err != nil {
		return nil, storeError(err)
	}
	names, err := c.store.TokenNames(c.ctx, k.Account, k.Instance, at.versionID)
	if err != nil {
		return nil, storeError(err)
	}
	if last := at.last.Load(); last != nil && last.key == k && last.alias == alias && last.names == names {
		return last.shown, nil
	}
	v, err := c.store.Version(c.ctx, k.ID, at.versionID)
	if errors.Is(err, keystore.ErrNotFound) || err == nil && specs[kmswire.KeySpec(k.Spec)] == nil {
		return nil, notThere(place)
	} else if err != nil {
		return nil, storeError(err)
	}
	view := &tokenView{k, alias, names, c.newTokenKey(k, v, alias, names, place)}
	at.last.Store(view)
	return view.shown, nil
}

func (s *Service) newTokenKey(k *keystore.Key, v *keystore.Version, alias *keystore.Alias, names *keystore.TokenNames, place KeyPlace) *TokenKey {
	t := &TokenKey{
		KeyPlace: place, KeyID: k.ID, VersionID: v.ID, Instance: k.Instance, Spec: kmswire.KeySpec(k.Spec),
		Usage: kmswire.KeyUsage(k.Usage), Secondary: kmswire.KeyUsage(k.SecondaryUsage), State: kmswire.KeyState(k.State), Created: v.Created,
		Newest:   int(place.Ordinal) == k.Versions,
		Imported: k.Origin == kmswire.OriginExternal, Hardware: k.Protection == kmswire.ProtectionHSM, PublicKey: v.PublicKey,
		Names: map[ObjectClass]ObjectNames{},
	}
	byDefault := ObjectNames{ID: s.tokens.ids.of(k.Account, place), Label: k.ID}
	if alias.Name != "" {
		byDefault.Label = strings.TrimPrefix(alias.Name, aliasPrefix)
	}
	newest := byDefault.Label
	if !t.Newest {
		byDefault.Label = fmt.Sprint(byDefault.Label, "#", place.Ordinal)
	}
	for _, class := range keyClasses(t.Spec) {
		t.Names[class] = byDefault
	}
	if names == nil {
		return t
	}
	for _, set := range names.Names {
		n, ok := t.Names[ObjectClass(set.Class)]
		if !ok {
			continue
		}
		if set.Gone {
			delete(t.Names, ObjectClass(set.Class))
			continue
		}
		if set.ID != nil {
			n.ID = *set.ID
		}
		// An earlier version does not keep the name that the newest has.
		if set.Label != nil && (t.Newest || *set.Label != newest) {
			n.Label = *set.Label
		}
		if set.Subject != nil {
			n.Subject = *set.Subject
		}
		n.Mechanisms = set.Mechanisms
		t.Names[ObjectClass(set.Class)] = n
	}
	return t
}

// keyClasses are the classes of the objects that a key of a spec is.
func keyClasses(name kmswire.KeySpec) []ObjectClass {
	if specs[name].symmetric() {
		return []ObjectClass{ClassSecretKey}
	}
	return []ObjectClass{ClassPublicKey, ClassPrivateKey}
}

// TokenKeys lists versions of keys in an instance that the actor may describe, in order: those after the place after, of at most limit
// keys that it looks at. It gives where to go on; more is false at the end. Keys that wait for deletion or for their material are none.
// The values are shared and immutable.
func (s *Service) TokenKeys(ctx context.Context, actor *Actor, instance string, after KeyPlace, limit int) (keys []*TokenKey, next KeyPlace, more bool, err error) {
	c, err := s.looking(ctx, actor)
	if err != nil {
		return nil, KeyPlace{}, false, err
	}
	limit = max(limit, 1)
	rows, err := s.store.KeyRows(ctx, keystore.AccountKeys(actor.Account), after.Sequence, limit)
	if err != nil {
		return nil, KeyPlace{}, false, storeError(err)
	}
	if more = len(rows) == limit; more {
		next = KeyPlace{Sequence: rows[limit-1].Sequence, Ordinal: maxOrdinal}
	}
	if after.Sequence > 0 && after.Ordinal < maxOrdinal {
		id, err := s.store.KeyAt(ctx, actor.Account, after.Sequence)
		if err == nil {
			rows = slices.Insert(rows, 0, keystore.KeyRow{Sequence: after.Sequence, ID: id})
		} else if !errors.Is(err, keystore.ErrNotFound) {
			return nil, KeyPlace{}, false, storeError(err)
		}
	}
	for _, row := range rows {
		from := uint64(0)
		if row.Sequence == after.Sequence {
			from = uint64(after.Ordinal)
		}
		if keys, err = c.showVersions(keys, instance, row, from); err != nil {
			return nil, KeyPlace{}, false, err
		}
	}
	return keys, next, more, nil
}

// showVersions adds the versions of a key after an ordinal to keys, as far as the caller sees them. What is damaged is in Health, and is
// no object; the rest is.
func (c *call) showVersions(keys []*TokenKey, instance string, row keystore.KeyRow, from uint64) ([]*TokenKey, error) {
	k, err := c.store.PeekKey(c.ctx, row.ID)
	if errors.Is(err, keystore.ErrNotFound) || errors.Is(err, keystore.ErrDamaged) {
		return keys, nil
	} else if err != nil {
		return nil, storeError(err)
	}
	if ok, err := c.sees(k, instance); err != nil || !ok {
		return keys, err
	}
	for n := from + 1; n <= uint64(min(k.Versions, maxOrdinal)) && row.Sequence <= maxSequence; n++ {
		place := KeyPlace{row.Sequence, uint32(n)}
		at, err := c.placed(place)
		var t *TokenKey
		if err == nil {
			t, err = c.show(k, at, place)
		}
		if errors.Is(err, KeyNotFound) || errors.Is(err, KeyUnavailable) {
			continue
		} else if err != nil {
			return nil, err
		}
		keys = append(keys, t)
	}
	return keys, nil
}
