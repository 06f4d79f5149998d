package kms

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/keyward/keyward/keystore"
)

// Keys of a token by the names that clients know them by.

// TokenKeysNamed finds versions by those names that are not nil, of which there must be one, in any class. It reads indexes, and costs the same however
// many keys there are. The values are shared and immutable.
func (s *Service) TokenKeysNamed(ctx context.Context, actor *Actor, instance string, names SomeNames) ([]*TokenKey, error) {
	c, err := s.looking(ctx, actor)
	if err != nil {
		return nil, err
	}
	if s.instances.Load().byID[instance] == nil {
		return nil, nil // nor is an index made for whatever name comes
	}
	var places []KeyPlace
	switch {
	case names.ID != nil:
		places, err = c.placesByID(instance, names.ID)
	case names.Label != nil:
		places, err = c.placesByLabel(instance, *names.Label)
	case names.Subject != nil:
		places, err = c.placesBySubject(instance, names.Subject)
	default:
		return nil, Missing("Label")
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(places, comparePlaces)
	var keys []*TokenKey
	for _, place := range slices.Compact(places) {
		t, err := c.tokenKey(instance, place)
		if errors.Is(err, KeyNotFound) || errors.Is(err, KeyUnavailable) {
			continue
		} else if err != nil {
			return nil, err
		}
		if t.named(names) {
			keys = append(keys, t)
		}
	}
	return keys, nil
}

// placesByID gives the places that may have a CKA_ID.
func (c *call) placesByID(instance string, id []byte) ([]KeyPlace, error) {
	named, err := c.store.TokenNamesByID(c.ctx, c.actor.Account, instance, id)
	if err != nil {
		return nil, storeError(err)
	}
	places, err := c.placesNamed(named)
	if place, ok := c.tokens.ids.place(c.actor.Account, id); ok && err == nil {
		places = append(places, place)
	}
	return places, err
}

// placesNamed gives the places of versions that clients have named.
func (c *call) placesNamed(named []*keystore.TokenNames) ([]KeyPlace, error) {
	var places []KeyPlace
	for _, n := range named {
		k, err := c.store.Key(c.ctx, n.KeyID)
		if errors.Is(err, keystore.ErrNotFound) || errors.Is(err, keystore.ErrDamaged) {
			continue
		} else if err != nil {
			return nil, storeError(err)
		}
		places = append(places, KeyPlace{k.Sequence, uint32(min(n.Ordinal, maxOrdinal))})
	}
	return places, nil
}

// placesBySubject gives the places that have a CKA_SUBJECT, which nothing but a client gives.
func (c *call) placesBySubject(instance string, subject []byte) ([]KeyPlace, error) {
	named, err := c.store.TokenNamesBySubject(c.ctx, c.actor.Account, instance, subject)
	if err != nil {
		return nil, storeError(err)
	}
	return c.placesNamed(named)
}

// placesByLabel gives the places that may have a CKA_LABEL: by default it is an alias without its prefix or a key ID, of the newest
// version, or with the ordinal of another.
func (c *call) placesByLabel(instance, label string) ([]KeyPlace, error) {
	named, err := c.store.TokenNamesByLabel(c.ctx, c.actor.Account, instance, label)
	if err != nil {
		return nil, storeError(err)
	}
	places, err := c.placesNamed(named)
	if err != nil {
		return nil, err
	}
	if err := c.placesOf(&places, label, 0); err != nil {
		return nil, err
	}
	if base, end, ok := cutLast(label, '#'); ok {
		if n, err := strconv.ParseUint(end, 10, 20); err == nil && n > 0 {
			if err := c.placesOf(&places, base, uint32(n)); err != nil {
				return nil, err
			}
		}
	}
	return places, nil
}

// placesOf adds the place of a version, 0 for the newest, of the keys that have a name: an alias without its prefix, or a key ID.
func (c *call) placesOf(places *[]KeyPlace, name string, ordinal uint32) error {
	var ids [2]string
	if len(name) <= maxAliasName {
		a, err := c.store.Alias(c.ctx, c.actor.Account, aliasPrefix+name)
		if err == nil {
			ids[0] = a.KeyID
		} else if !errors.Is(err, keystore.ErrNotFound) && !errors.Is(err, keystore.ErrDamaged) {
			return storeError(err)
		}
	}
	if strings.HasPrefix(name, keyIDPrefix) && len(name) == len(keyIDPrefix)+keyIDLen {
		ids[1] = name
	}
	for _, id := range ids {
		if id == "" {
			continue
		}
		k, err := c.store.Key(c.ctx, id)
		if errors.Is(err, keystore.ErrNotFound) || errors.Is(err, keystore.ErrDamaged) {
			continue
		} else if err != nil {
			return storeError(err)
		}
		n := ordinal
		if n == 0 {
			n = uint32(min(k.Versions, maxOrdinal))
		}
		if k.Account == c.actor.Account {
			*places = append(*places, KeyPlace{k.Sequence, n})
		}
	}
	return nil
}

// named says whether the object has, in one of its classes, the names that are given.
func (t *TokenKey) named(names SomeNames) bool {
	for _, n := range t.Names {
		if (names.ID == nil || string(names.ID) == string(n.ID)) && (names.Label == nil || *names.Label == n.Label) &&
			(names.Subject == nil || string(names.Subject) == string(n.Subject)) {
			return true
		}
	}
	return false
}

func comparePlaces(a, b KeyPlace) int {
	switch {
	case a == b:
		return 0
	case a.Sequence < b.Sequence, a.Sequence == b.Sequence && a.Ordinal < b.Ordinal:
		return -1
	}
	return 1
}

// cutLast is strings.Cut at the last separator.
func cutLast(text string, separator byte) (before, after string, found bool) {
	i := strings.LastIndexByte(text, separator)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+1:], true
}
