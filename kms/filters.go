package kms

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/kmswire/flatjson"
)

// Limits of Filters (reference section 4.2).
const (
	maxFilters      = 10
	maxFilterValues = 10
	maxFiltersJSON  = 256 << 10 // octets: 100 values of the longest kind whose every character is escaped are less
)

// keyFilters are what ListKeys filters by. The values of one filter key are alternatives, and all filter keys must fit.
type keyFilters map[string][]string

// The filter keys of which the service knows more than that an attribute must have the value.
const (
	filterKeyID    = "KeyId"
	filterAlias    = "AliasName"
	filterTagKey   = "TagKey"
	filterTagValue = "TagValue"
)

// attributeFilters are the filter keys that are about one attribute of a key.
var attributeFilters = map[string]func(*keystore.KeyFacts) string{
	filterKeyID:       func(k *keystore.KeyFacts) string { return k.ID },
	"KeyState":        func(k *keystore.KeyFacts) string { return k.State },
	"KeySpec":         func(k *keystore.KeyFacts) string { return k.Spec },
	"KeyUsage":        func(k *keystore.KeyFacts) string { return k.Usage },
	"ProtectionLevel": func(k *keystore.KeyFacts) string { return k.Protection },
	"DKMSInstanceId":  func(k *keystore.KeyFacts) string { return k.Instance },
	"Creator":         func(k *keystore.KeyFacts) string { return k.Creator },
	"CreatorType": func(k *keystore.KeyFacts) string {
		if k.Role == keystore.RoleService {
			return "Service"
		}
		return "User"
	},
}

// closedFilters are the filter keys whose values the API lists once and for all: another one is a mistake. A spec, a usage and the
// like that keyward does not have only match nothing.
var closedFilters = map[string][]string{
	"KeyState":    {string(kmswire.Enabled), string(kmswire.Disabled), string(kmswire.PendingDeletion), string(kmswire.PendingImport), "Unavailable"},
	"CreatorType": {"User", "Service"},
}

func filterNames() []string {
	names := append(slices.Collect(maps.Keys(attributeFilters)), filterAlias, filterTagKey, filterTagValue)
	slices.Sort(names)
	return names
}

// parseFilters reads the JSON form [{"Key":"KeyState","Values":["Enabled"]}] and checks it.
func parseFilters(text json.RawMessage) (keyFilters, error) {
	if len(text) == 0 {
		return nil, nil
	}
	if len(text) > maxFiltersJSON {
		return nil, Invalid("Filters", "longer than %d octets", maxFiltersJSON)
	}
	filters, entries := keyFilters{}, 0
	err := jsonArray(text, func(s *flatjson.Scanner) error {
		if entries++; entries > maxFilters {
			return Invalid("Filters", "more than %d entries", maxFilters)
		}
		return filters.parseEntry(s)
	})
	if err != nil {
		if known := (*Error)(nil); errors.As(err, &known) {
			return nil, known
		}
		return nil, Invalid("Filters", `it must be JSON like [{"Key":"KeyState","Values":["Enabled"]}]: %v`, err)
	}
	return filters, nil
}

// parseEntry adds one entry. Entries with the same key are as one.
func (f keyFilters) parseEntry(s *flatjson.Scanner) error {
	if err := s.Take('{'); err != nil {
		return err
	}
	var key *string
	var values []string
	for first := true; ; first = false {
		more, err := s.More('}', first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		name, err := s.Text()
		if err != nil {
			return err
		}
		if err := s.Take(':'); err != nil {
			return err
		}
		switch {
		case string(name) == "Key" && key == nil:
			text, err := s.Text()
			if err != nil {
				return err
			}
			given := string(text)
			key = &given
		case string(name) == "Values" && values == nil:
			if values, err = filterValues(s); err != nil {
				return err
			}
		default:
			return fmt.Errorf("an entry has Key and Values, once, and no %q", cut(string(name), maxTagText))
		}
	}
	if key == nil || values == nil {
		return errors.New("an entry has no Key, or no Values")
	}
	if *key == "keyId" {
		*key = filterKeyID // the original documents it so, beside names that all begin with a capital
	}
	if names := filterNames(); !slices.Contains(names, *key) {
		return Invalid("Filters", "no filter is called %q; there are %s", cut(*key, maxTagText), strings.Join(names, ", "))
	}
	if len(values) == 0 {
		return Invalid("Filters", "%s has no values", *key)
	}
	if closed := closedFilters[*key]; closed != nil {
		for _, v := range values {
			if !slices.Contains(closed, v) {
				return Invalid("Filters", "%s is never %q; it is one of %s", *key, cut(v, maxTagText), strings.Join(closed, ", "))
			}
		}
	}
	for _, v := range values {
		if !slices.Contains(f[*key], v) {
			f[*key] = append(f[*key], v)
		}
	}
	return nil
}

func filterValues(s *flatjson.Scanner) ([]string, error) {
	if err := s.Take('['); err != nil {
		return nil, err
	}
	values := []string{}
	for first := true; ; first = false {
		more, err := s.More(']', first)
		if err != nil || !more {
			return values, err
		}
		if len(values) == maxFilterValues {
			return nil, Invalid("Filters", "an entry with more than %d values", maxFilterValues)
		}
		text, err := s.Text()
		if err != nil {
			return nil, err
		}
		if len(text) > maxReference {
			return nil, Invalid("Filters", "a value of more than %d octets", maxReference)
		}
		values = append(values, string(text))
	}
}

// fit says whether a key has all that is asked for, but for its aliases: see keys.
func (f keyFilters) fit(k *keystore.KeyFacts) bool {
	for name, values := range f {
		if of := attributeFilters[name]; of != nil && !slices.Contains(values, of(k)) {
			return false
		}
	}
	keys, values := f[filterTagKey], f[filterTagValue]
	if keys == nil && values == nil {
		return true
	}
	// One tag must fit both: who asks for the key env and the value prod wants what is tagged env=prod.
	return slices.ContainsFunc(k.Tags, func(t keystore.Tag) bool {
		return (keys == nil || slices.Contains(keys, t.Key)) && (values == nil || slices.Contains(values, t.Value))
	})
}

// set gives the set of keys that the filters ask for, if it is one that the store keeps.
func (f keyFilters) set(account string) (keystore.KeySet, bool) {
	keys, values := f[filterTagKey], f[filterTagValue]
	switch {
	case len(f) == 0:
		return keystore.AccountKeys(account), true
	case len(f) == 1 && len(keys) == 1:
		return keystore.TaggedKeys(account, keys[0]), true
	case len(f) == 2 && len(keys) == 1 && len(values) == 1:
		return keystore.TagValueKeys(account, keystore.Tag{Key: keys[0], Value: values[0]}), true
	}
	return keystore.KeySet{}, false
}

// filterKeys lists the keys of the caller's account that have what filters ask for: limit of them from offset, in order of creation,
// and how many there are. What the store keeps a set of costs a page; what names keys, aliases or tag keys costs those; anything
// else costs a walk over all keys.
func (c *call) filterKeys(f keyFilters, offset, limit int) ([]keystore.KeyRow, int, error) {
	if set, ok := f.set(c.actor.Account); ok {
		rows, total, err := c.store.KeyPage(c.ctx, set, offset, limit)
		if err != nil {
			return nil, 0, storeError(err)
		}
		return rows, total, nil
	}
	var rows []keystore.KeyRow
	add := func(k *keystore.KeyFacts) error {
		if f.fit(k) {
			rows = append(rows, keystore.KeyRow{Sequence: k.Sequence, ID: k.ID})
		}
		return nil
	}
	ids, named, err := c.candidates(f)
	switch {
	case err != nil:
	case named:
		err = c.peek(ids, add)
	default:
		err = c.store.WalkKeys(c.ctx, c.actor.Account, add)
	}
	if err != nil {
		return nil, 0, storeError(err)
	}
	sortRows(rows)
	total := len(rows)
	offset = min(offset, total)
	return rows[offset:min(offset+limit, total)], total, nil
}

// candidates gives the IDs of keys among which all that filters ask for are, if it need not be all keys.
func (c *call) candidates(f keyFilters) (ids []string, named bool, err error) {
	if names := f[filterAlias]; names != nil {
		for _, name := range names {
			a, err := c.store.Alias(c.ctx, c.actor.Account, name)
			if errors.Is(err, keystore.ErrNotFound) {
				continue
			} else if err != nil {
				return nil, false, err
			}
			ids = append(ids, a.KeyID)
		}
		return ids, true, nil
	}
	if ids := f[filterKeyID]; ids != nil {
		return slices.Clone(ids), true, nil
	}
	for _, key := range f[filterTagKey] {
		sets := []keystore.KeySet{keystore.TaggedKeys(c.actor.Account, key)}
		if values := f[filterTagValue]; values != nil {
			sets = nil
			for _, v := range values {
				sets = append(sets, keystore.TagValueKeys(c.actor.Account, keystore.Tag{Key: key, Value: v}))
			}
		}
		for _, set := range sets {
			rows, err := c.store.KeyRows(c.ctx, set, 0, maxPeeked+1)
			if err != nil {
				return nil, false, err
			}
			// A set that is a good part of all keys is not worth it: one by one they cost more than a walk does.
			if len(ids)+len(rows) > maxPeeked {
				return nil, false, nil
			}
			for _, row := range rows {
				ids = append(ids, row.ID)
			}
		}
	}
	return ids, f[filterTagKey] != nil, nil
}

// maxPeeked is the most keys that are looked at one by one.
const maxPeeked = 2000

// peek calls visit for the keys of the caller's account among ids, once each.
func (c *call) peek(ids []string, visit func(*keystore.KeyFacts) error) error {
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		k, err := c.store.PeekKey(c.ctx, id)
		if errors.Is(err, keystore.ErrNotFound) {
			continue
		} else if err != nil {
			return err
		}
		if k.Account != c.actor.Account {
			continue
		}
		if err := visit(k.Facts()); err != nil {
			return err
		}
	}
	return nil
}
