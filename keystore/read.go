package keystore

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// fetch reads a record and checks its tag. A record that is not there, in a store that is known to have lost some, is
// ErrDamaged: "no such key" must not be a guess.
func (db *DB) fetch(ctx context.Context, name string) (stored, error) {
	r, err := db.store.Get(ctx, name)
	if err != nil {
		return stored{}, db.missing(name, err)
	}
	return db.checked(r)
}

// lookUp is fetch for readers. It answers ErrNotFound only after the first scan, which may find that records are missing.
// Whoever holds committing must use fetch, for the scan needs that too.
func (db *DB) lookUp(ctx context.Context, name string) (stored, error) {
	st, err := db.fetch(ctx, name)
	if !errors.Is(err, ErrNotFound) {
		return st, err
	}
	select {
	case <-db.looked:
		// Read above, maybe before the scan was over: its finding counts, and so does what was written meanwhile.
		return db.fetch(ctx, name)
	case <-ctx.Done():
		return stored{}, ctx.Err()
	case <-db.ctx.Done():
		return stored{}, ErrClosed
	}
}

func (db *DB) missing(name string, err error) error {
	if lost := db.census.Load(); lost != nil && errors.Is(err, ErrNotFound) {
		return fmt.Errorf("%w: %q is not there and may have been lost; %s", ErrDamaged, name, lost.problem)
	}
	return err
}

// checked checks the tag of a record, and keeps the name of one that fails for Health.
func (db *DB) checked(r Record) (stored, error) {
	st, err := db.secrets.check(r)
	if errors.Is(err, ErrDamaged) {
		db.noteDamaged(r.Name)
	}
	return st, err
}

// decodeRecord decodes a payload whose tag was right.
func (db *DB) decodeRecord(st stored, v any) error {
	if err := decode(st.payload, v); err != nil {
		db.noteDamaged(st.name)
		return fmt.Errorf("%w: the record %q cannot be read: %w", ErrDamaged, st.name, err)
	}
	return nil
}

func (st stored) state() recordState {
	return recordState{revision: st.revision, writes: st.generation}
}

// Key returns a key by its ID, from the cache if it can. ErrNotFound, or ErrDamaged when the record fails its check or
// is missing from a store that is known to be damaged.
func (db *DB) Key(ctx context.Context, id string) (*Key, error) {
	if db.closed.Load() {
		return nil, ErrClosed
	}
	if k := db.keys.get(id); k != nil {
		return k, nil
	}
	return db.keys.load(ctx, id, func() (*Key, int, error) {
		st, err := db.lookUp(ctx, nameKey(id))
		if err != nil {
			return nil, 0, err
		}
		k := &Key{record: st.state()}
		return k, len(st.payload), db.decodeRecord(st, k)
	})
}

// Version returns a version by the IDs of key and version, from the cache if it can.
func (db *DB) Version(ctx context.Context, keyID, versionID string) (*Version, error) {
	if db.closed.Load() {
		return nil, ErrClosed
	}
	v := db.versions.get(versionID)
	if v == nil {
		// The version ID alone names the record, so that a wrong keyID can neither be kept nor evict anything.
		key, ok := keyOfVersion(versionID)
		if !ok {
			return nil, ErrNotFound
		}
		var err error
		v, err = db.versions.load(ctx, versionID, func() (*Version, int, error) {
			st, err := db.lookUp(ctx, nameVer(key, versionID))
			if err != nil {
				return nil, 0, err
			}
			v := &Version{record: st.state()}
			return v, len(st.payload), db.decodeRecord(st, v)
		})
		if err != nil {
			return nil, err
		}
	}
	if v.KeyID != keyID {
		return nil, ErrNotFound
	}
	return v, nil
}

// Alias returns an alias, from the cache if it can.
func (db *DB) Alias(ctx context.Context, account, name string) (*Alias, error) {
	if db.closed.Load() {
		return nil, ErrClosed
	}
	if a := db.aliases.get(aliasOf{account, name}); a != nil {
		return a, nil
	}
	a, err := db.aliases.load(ctx, aliasOf{account, name}, func() (*Alias, int, error) {
		st, err := db.lookUp(ctx, nameAlias(account, name))
		if err != nil {
			return nil, 0, err
		}
		a := &Alias{record: st.state()}
		if err := db.decodeRecord(st, a); err != nil {
			return nil, 0, err
		}
		if a.Account != account || a.Name != name { // slashes shifted between the two
			return nil, 0, ErrNotFound
		}
		return a, len(st.payload), nil
	})
	return a, err
}

// evict forgets what is cached of a record.
func (db *DB) evict(name string) {
	if id, ok := strings.CutPrefix(name, prefixKey); ok {
		db.keys.evict(id)
	} else if both, ok := strings.CutPrefix(name, prefixVer); ok {
		if _, version, ok := strings.Cut(both, "/"); ok {
			db.versions.evict(version)
		}
	} else if both, ok := strings.CutPrefix(name, prefixAlias); ok {
		if account, alias, ok := strings.Cut(both, "/"); ok {
			db.aliases.evict(aliasOf{account, alias})
		}
	} else if arn, ok := principalOfName(name); ok {
		db.people.evict(arn)
	} else if id, ok := strings.CutPrefix(name, prefixAccess); ok {
		db.access.evict(id)
	} else if token, ok := tokenOf(name); ok {
		db.tokens.evict(token, name)
	} else {
		db.evictOldest(name)
	}
}

// Versions lists a key's versions in order of creation: limit of them from offset, and how many there are.
func (db *DB) Versions(ctx context.Context, keyID string, offset, limit int) ([]*Version, int, error) {
	rows, total, err := db.page(ctx, versionsOf(keyID), offset, limit)
	if err != nil {
		return nil, 0, err
	}
	var found []*Version
	for _, r := range rows {
		id, err := db.rowID(r)
		if err != nil {
			return nil, 0, err
		}
		v, err := db.Version(ctx, keyID, id)
		if errors.Is(err, ErrNotFound) {
			continue // deleted since the page was read
		}
		if err != nil {
			return nil, 0, err
		}
		found = append(found, v)
	}
	return found, total, nil
}

// Keys lists an account's keys in order of creation: limit of their IDs from offset, and how many there are. A page
// costs the same wherever it lies.
func (db *DB) Keys(ctx context.Context, account string, offset, limit int) ([]string, int, error) {
	rows, total, err := db.page(ctx, keysOf(account), offset, limit)
	if err != nil {
		return nil, 0, err
	}
	var found []string
	for _, r := range rows {
		id, err := db.rowID(r)
		if err != nil {
			return nil, 0, err
		}
		found = append(found, id)
	}
	return found, total, nil
}

// Aliases lists an account's aliases by name, as Keys does.
func (db *DB) Aliases(ctx context.Context, account string, offset, limit int) ([]*Alias, int, error) {
	rows, total, err := db.page(ctx, aliasesIn(account), offset, limit)
	if err != nil {
		return nil, 0, err
	}
	var found []*Alias
	for _, r := range rows {
		st, err := db.checked(r)
		if err != nil {
			return nil, 0, err
		}
		a := &Alias{record: st.state()}
		if err := db.decodeRecord(st, a); err != nil {
			return nil, 0, err
		}
		found = append(found, a)
	}
	return found, total, nil
}

// AliasesOf lists a key's aliases by account, then name.
func (db *DB) AliasesOf(ctx context.Context, keyID string, offset, limit int) ([]*Alias, int, error) {
	rows, total, err := db.page(ctx, aliasesOfKey(keyID), offset, limit)
	if err != nil {
		return nil, 0, err
	}
	var found []*Alias
	for _, r := range rows {
		st, err := db.checked(r)
		if err != nil {
			return nil, 0, err
		}
		var row aliasRow
		if err := db.decodeRecord(st, &row); err != nil {
			return nil, 0, err
		}
		a, err := db.Alias(ctx, row.Account, row.Name)
		if errors.Is(err, ErrNotFound) || err == nil && a.KeyID != keyID {
			continue // moved or deleted since the page was read
		}
		if err != nil {
			return nil, 0, err
		}
		found = append(found, a)
	}
	return found, total, nil
}

// intentPage is how many intents are read at a time.
const intentPage = 256

// Intents lists what was begun and not ended. When some records are damaged it returns the others, and ErrDamaged.
func (db *DB) Intents(ctx context.Context) ([]*Intent, error) {
	if db.closed.Load() {
		return nil, ErrClosed
	}
	var found []*Intent
	var damage error
	for after := ""; ; {
		rs, err := db.store.Scan(ctx, prefixIntent, after, intentPage)
		if err != nil {
			return found, err
		}
		for _, r := range rs {
			after = r.Name
			st, err := db.checked(r)
			i := &Intent{record: st.state()}
			if err == nil {
				err = db.decodeRecord(st, i)
			}
			if err != nil {
				damage = errors.Join(damage, err)
				continue
			}
			found = append(found, i)
		}
		if len(rs) < intentPage {
			return found, damage
		}
	}
}

// Tombstone returns what is left of a deleted key, or ErrNotFound.
func (db *DB) Tombstone(ctx context.Context, id string) (*Tombstone, error) {
	if db.closed.Load() {
		return nil, ErrClosed
	}
	st, err := db.lookUp(ctx, nameGone(id))
	if err != nil {
		return nil, err
	}
	t := new(Tombstone)
	return t, db.decodeRecord(st, t)
}
