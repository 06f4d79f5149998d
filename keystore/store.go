// Package keystore keeps keys, versions, aliases and intents.
//
// It has two layers. Store is the contract of a backend: an ordered map from names to octets with revisions,
// compare-and-swap and watch. Backends are untrusted: DB, the upper layer, seals every secret and tags every record
// before a Store sees it, and checks on the way back.
package keystore

import (
	"context"
	"errors"
	"fmt"
)

// Errors of a Store. They may be wrapped; use errors.Is.
var (
	ErrNotFound = errors.New("keystore: no such record")
	ErrConflict = errors.New("keystore: the record changed meanwhile")
	ErrFull     = errors.New("keystore: the disk is full")
	ErrDamaged  = errors.New("keystore: the store is damaged")
	ErrReadOnly = errors.New("keystore: the store is read-only")
	ErrClosed   = errors.New("keystore: the store is closed")
)

// Limits of every backend. A Commit that passes one of them is refused with ErrLimit.
const (
	MaxName  = 1024    // octets of a name, at least 1
	MaxValue = 1 << 20 // octets of a value; etcd takes 1.5 MiB in one request
)

// ErrLimit means that a Txn cannot be stored anywhere: a name or value is too long, or one name is changed twice.
var ErrLimit = errors.New("keystore: the change breaks a limit")

// Store is what a backend does. All methods may be called at the same time from several goroutines. A backend passes
// the suite in storetest.
type Store interface {
	// Get returns the record called name, or ErrNotFound.
	Get(ctx context.Context, name string) (Record, error)

	// Scan returns up to limit records whose names begin with prefix and sort after the name after (octet order), in
	// order. An empty after begins at the first. Fewer than limit records mean the end.
	Scan(ctx context.Context, prefix, after string, limit int) ([]Record, error)

	// Commit applies tx as a whole or not at all, and returns when it is durable. A check that does not hold gives
	// ErrConflict. ErrFull means that nothing was written and the store goes on; after any other write error the store
	// refuses writes (ErrReadOnly) until it is opened again, because an fsync that failed must not be tried again.
	Commit(ctx context.Context, tx Txn) error

	// Watch reports the names of records under prefix that were changed by commits after the call, by this process or
	// another, until ctx ends; then the channel is closed. A slow reader may get one Event with Lost set in place of
	// events that were dropped, and must then forget what it has cached.
	Watch(ctx context.Context, prefix string) (<-chan Event, error)

	// Close waits for running calls, ends all watches and releases the backend. Calls after it give ErrClosed, and so
	// does a second Close.
	Close() error
}

// Record is one stored record. Value belongs to the caller.
type Record struct {
	Name     string
	Value    []byte
	Revision uint64 // of the last write, assigned by the backend; never 0, grows with every write of this record
}

// Txn is a set of changes that happen together.
type Txn struct {
	Checks  []Check
	Puts    []Put
	Deletes []string // a name that is not there is no error
	Urgent  bool     // may use the space kept in reserve: disabling and deleting work on a full disk
}

// Validate reports ErrLimit when no backend could take tx. Backends call it first in Commit.
func (tx Txn) Validate() error {
	changed := make(map[string]bool, len(tx.Puts)+len(tx.Deletes))
	name := func(n string, writes bool) error {
		if n == "" || len(n) > MaxName {
			return fmt.Errorf("%w: a name of %d octets; 1 to %d are allowed", ErrLimit, len(n), MaxName)
		}
		if writes && changed[n] {
			return fmt.Errorf("%w: %q is changed twice in one commit", ErrLimit, n)
		}
		changed[n] = changed[n] || writes
		return nil
	}
	for _, c := range tx.Checks {
		if err := name(c.Name, false); err != nil {
			return err
		}
	}
	for _, p := range tx.Puts {
		if err := name(p.Name, true); err != nil {
			return err
		}
		if len(p.Value) > MaxValue {
			return fmt.Errorf("%w: the value of %q has %d octets; %d are allowed", ErrLimit, p.Name, len(p.Value), MaxValue)
		}
	}
	for _, d := range tx.Deletes {
		if err := name(d, true); err != nil {
			return err
		}
	}
	return nil
}

// Reporter is implemented by a Store that can tell more of its state than errors do.
type Reporter interface {
	// Problem says why the backend refuses changes, and what to do; empty while it takes them. It does no I/O.
	Problem() string
}

// Scrubber is implemented by a Store whose medium keeps what was deleted.
type Scrubber interface {
	// Scrub overwrites what was deleted before the last commit. It may take long, holds calls up for moments only, and may be
	// ended by ctx at any time. ErrConflict means that it can't be done before the next commit. What a file system or a disk keeps below the Store is not in its reach.
	Scrub(ctx context.Context) error
}

// Check makes a Txn conditional: name must be at Revision; 0 means that it must not exist.
type Check struct {
	Name     string
	Revision uint64
}

// Put writes one record.
type Put struct {
	Name  string
	Value []byte
}

// Event says that a record changed or went away, or, with Lost, that events were dropped.
type Event struct {
	Name string
	Lost bool
}
