package keystore

import (
	"context"
	"errors"
)

// ErrForeign means that the store's key was sealed by another HSM group: it belongs to other master keys.
var ErrForeign = errors.New("keystore: the store belongs to another HSM group")

// Sealer protects the store key: the seal key of an HSM group, or a stand-in in tests.
type Sealer interface {
	// Group names the HSM group by the check values of its master keys. It is not secret.
	Group() string
	// Seal encrypts up to 64 octets, bound to aad.
	Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error)
	// Open undoes Seal.
	Open(ctx context.Context, sealed, aad []byte) ([]byte, error)
}

// recordState is what DB remembers about a record it read, for the compare-and-swap of a later Change.
type recordState struct {
	revision uint64
	writes   uint64
}

// DB is the store of keys over a Store. See the package comment.
type DB struct{}

// Create makes the store key, seals it, and writes the first records into an empty store. A store that is not empty
// gives ErrConflict.
func Create(ctx context.Context, store Store, sealer Sealer) error { panic("contract") }

// Open opens the store key with sealer and checks the store. DB owns store from here and closes it.
func Open(ctx context.Context, store Store, sealer Sealer) (*DB, error) { panic("contract") }

// Close closes the Store and wipes the store key.
func (db *DB) Close() error { panic("contract") }

// Seal encrypts material for the version called versionID, which is bound to it.
func (db *DB) Seal(versionID string, material []byte) ([]byte, error) { panic("contract") }

// Unseal undoes Seal for v.Sealed. The caller wipes the result.
func (db *DB) Unseal(v *Version) ([]byte, error) { panic("contract") }

// Key returns a key by its ID, from the cache if it can. ErrNotFound, or ErrDamaged when the record fails its check or
// is missing from a store that is known to be damaged.
func (db *DB) Key(ctx context.Context, id string) (*Key, error) { panic("contract") }

// Version returns a version by the IDs of key and version, from the cache if it can.
func (db *DB) Version(ctx context.Context, keyID, versionID string) (*Version, error) {
	panic("contract")
}

// Versions lists a key's versions in order of creation: limit of them from offset, and how many there are.
func (db *DB) Versions(ctx context.Context, keyID string, offset, limit int) ([]*Version, int, error) {
	panic("contract")
}

// Keys lists an account's keys in order of creation: limit of their IDs from offset, and how many there are. A page
// costs the same wherever it lies.
func (db *DB) Keys(ctx context.Context, account string, offset, limit int) ([]string, int, error) {
	panic("contract")
}

// Alias returns an alias, from the cache if it can.
func (db *DB) Alias(ctx context.Context, account, name string) (*Alias, error) { panic("contract") }

// Aliases lists an account's aliases by name, as Keys does.
func (db *DB) Aliases(ctx context.Context, account string, offset, limit int) ([]*Alias, int, error) {
	panic("contract")
}

// AliasesOf lists a key's aliases by name.
func (db *DB) AliasesOf(ctx context.Context, keyID string, offset, limit int) ([]*Alias, int, error) {
	panic("contract")
}

// Intents lists what was begun and not ended.
func (db *DB) Intents(ctx context.Context) ([]*Intent, error) { panic("contract") }

// ReserveCalls durably adds n to the count of a version's calls and returns the new total: the caller may make n calls
// up to it. A crash loses the rest of a reservation, never a call that was made.
func (db *DB) ReserveCalls(ctx context.Context, versionID string, n uint64) (uint64, error) {
	panic("contract")
}

// Health is what DB knows of the state of the store.
type Health struct {
	Keys     int
	Damaged  []string // names of records that failed their check, as far as seen
	Problem  string   // set when the store as a whole is damaged or read-only: what to do
	Sequence uint64   // generation: number of commits
}

// Health reports it without touching the disk.
func (db *DB) Health() Health { panic("contract") }

// Change is a set of changes that are committed together. Its methods only note what is wanted; nothing is read or
// written before Commit.
type Change struct{}

// Change begins one.
func (db *DB) Change() *Change { panic("contract") }

// Urgent lets the change use the space kept in reserve.
func (c *Change) Urgent() *Change { panic("contract") }

// CreateKey adds a key. It must not exist.
func (c *Change) CreateKey(k *Key) *Change { panic("contract") }

// UpdateKey replaces old, which DB handed out, by k. Commit gives ErrConflict when old is not the newest.
func (c *Change) UpdateKey(old, k *Key) *Change { panic("contract") }

// CreateVersion adds a version. It must not exist.
func (c *Change) CreateVersion(v *Version) *Change { panic("contract") }

// CreateAlias adds an alias. Commit gives ErrConflict when the name is taken.
func (c *Change) CreateAlias(a *Alias) *Change { panic("contract") }

// UpdateAlias points old, which DB handed out, at another key.
func (c *Change) UpdateAlias(old *Alias, keyID string) *Change { panic("contract") }

// DeleteAlias removes old, which DB handed out.
func (c *Change) DeleteAlias(old *Alias) *Change { panic("contract") }

// PutIntent writes an intent.
func (c *Change) PutIntent(i *Intent) *Change { panic("contract") }

// DeleteIntent removes one. It must still be there, so that of two who end the same work one gets ErrConflict.
func (c *Change) DeleteIntent(i *Intent) *Change { panic("contract") }

// Commit makes the changes durable and visible to readers of this DB before it returns.
func (c *Change) Commit(ctx context.Context) error { panic("contract") }
