package keystore

import (
	"context"
	"errors"
	"strings"
)

// Keys have a number in their account and versions one in their key. Neither is ever used again, so both name for good what
// clients keep handles of.

// KeyAt gives the ID of the key of an account that has a sequence number. It reads one record. ErrNotFound when there was none or it
// is gone.
func (db *DB) KeyAt(ctx context.Context, account string, sequence uint64) (string, error) {
	return db.rowAt(ctx, keysOf(account), "account", account, sequence)
}

// VersionAt gives the ID of the version of a key that has an ordinal, from 1 in order of creation. It reads one record.
func (db *DB) VersionAt(ctx context.Context, keyID string, ordinal uint64) (string, error) {
	return db.rowAt(ctx, versionsOf(keyID), "key", keyID, ordinal)
}

func (db *DB) rowAt(ctx context.Context, l list, what, of string, n uint64) (string, error) {
	if db.closed.Load() {
		return "", ErrClosed
	}
	if checkPart(what, of) != nil {
		return "", ErrNotFound
	}
	st, err := db.lookUp(ctx, l.rows+sequenceRow(n))
	if err != nil {
		return "", err
	}
	var row listRow
	return row.ID, db.decodeRecord(st, &row)
}

// noAlias is what is cached of a key without aliases.
var noAlias = new(Alias)

// OldestAlias gives the alias of a key's own account that was made first, by name if several were, from the cache if it can. Its Name
// is empty when the key has none. The value is the same one as long as the key's aliases are the same and it is cached.
func (db *DB) OldestAlias(ctx context.Context, k *Key) (*Alias, error) {
	if db.closed.Load() {
		return nil, ErrClosed
	}
	if a := db.oldest.get(k.ID); a != nil {
		return a, nil
	}
	return db.oldest.load(ctx, k.ID, func() (*Alias, int, error) {
		first, size := noAlias, 0
		for offset, total := 0, 1; offset < total; offset += bucketRows {
			rows, n, err := db.page(ctx, aliasesOfKey(k.ID), offset, bucketRows)
			if err != nil {
				return nil, 0, err
			}
			total = n
			for _, r := range rows {
				a, err := db.aliasOfRow(ctx, r)
				if errors.Is(err, ErrNotFound) {
					continue // deleted since the page was read
				}
				if err != nil {
					return nil, 0, err
				}
				if a.KeyID == k.ID && a.Account == k.Account && (first == noAlias || a.Created.Before(first.Created)) {
					first, size = a, len(a.Name)
				}
			}
		}
		return first, size, nil
	})
}

// aliasOfRow reads the alias that a row of the aliases of a key names. It does not ask the cache, from which a commit that moves an
// alias takes the alias and the lists one after the other: an old alias must not be kept as that of a new list.
func (db *DB) aliasOfRow(ctx context.Context, r Record) (*Alias, error) {
	st, err := db.checked(r)
	if err != nil {
		return nil, err
	}
	var row aliasRow
	if err := db.decodeRecord(st, &row); err != nil {
		return nil, err
	}
	if st, err = db.lookUp(ctx, nameAlias(row.Account, row.Name)); err != nil {
		return nil, err
	}
	a := &Alias{record: st.state()}
	return a, db.decodeRecord(st, a)
}

// evictOldest forgets the oldest alias of a key when the list of its aliases changed, of which name is the head.
func (db *DB) evictOldest(name string) {
	if key, ok := strings.CutPrefix(name, aliasesOfKey("").head); ok {
		db.oldest.evict(key)
	}
}
