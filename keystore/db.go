package keystore

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"
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
	revision uint64 // the Store's
	writes   uint64 // the generation of the commit that wrote it, which the tag covers
}

// DB is the store of keys over a Store. See the package comment.
//
// Reads of one record come from memory when they can. Every commit changes the root record, so all commits to a store
// are in one line, here and on other appliances: simple to reason about, and as fast as the backend's fsync.
type DB struct {
	store   Store
	secrets *secrets

	keys     *cache[string, Key]        // by ID
	versions *cache[string, Version]    // by ID
	aliases  *cache[aliasOf, Alias]     // by account and name
	people   *cache[string, Principal]  // by ARN; also those that have no record
	access   *cache[string, AccessKey]  // by ID
	oldest   *cache[string, Alias]      // by key; see OldestAlias
	tokens   tokenIndexes               //
	closed   atomic.Bool                // Close was called
	ctx      context.Context            // of the tasks; ended by Close
	cancel   context.CancelFunc         //
	tasks    sync.WaitGroup             // watch and scan
	root     atomic.Pointer[rootState]  // as of the last commit seen; nil when the root record is damaged
	rootErr  string                     // why root is nil; set by Open only
	census   atomic.Pointer[censusFail] // what the last full scan found wrong with the set of records, or nil
	looked   chan struct{}              // closed when the first full scan is over, whatever it found

	committing chan struct{} // one token: its holder commits, or reloads root, and owns the fields down to the blank line
	stale      bool          // root may not be the newest
	foreign    uint64        // how often root turned out to be somebody else's
	scan       *scanState    // the scan under way, or nil

	health struct {
		sync.Mutex
		damaged  map[string]bool // names of records that failed their check
		verified time.Time       // when a full scan last found all in place
	}
}

type aliasOf struct{ account, name string }

// censusFail is a finding about the set of records: some are missing, replaced by older ones, or unreadable.
type censusFail struct{ problem string }

// scanNow is the number of records up to which Open waits for the scan of all records; it takes some 50 ms.
const scanNow = 20_000

// Open opens the store key with sealer and checks the store. DB owns store from here and closes it; when Open fails it
// stays the caller's. A store with damaged records opens, and Health says what is wrong. A large store is scanned in the
// background: what is there is served meanwhile, and only the answer ErrNotFound waits for the end of that first scan.
func Open(ctx context.Context, store Store, sealer Sealer) (*DB, error) {
	return open(ctx, store, sealer, scanNow)
}

func open(ctx context.Context, store Store, sealer Sealer, scanNow uint64) (*DB, error) {
	boot, damaged, err := readBootstrap(ctx, store)
	if err != nil {
		return nil, err
	}
	secrets, err := openSecrets(ctx, boot, sealer)
	if err != nil {
		return nil, err
	}
	seed := maphash.MakeSeed()
	byID := func(id string) uint64 { return maphash.String(seed, id) }
	db := &DB{
		store: store, secrets: secrets,
		keys:     newCache[string, Key](cacheKeys, byID),
		versions: newCache[string, Version](cacheVersions, byID),
		aliases: newCache[aliasOf, Alias](cacheAliases, func(a aliasOf) uint64 {
			return maphash.String(seed, a.account)*31 + maphash.String(seed, a.name)
		}),
		people:     newCache[string, Principal](cachePrincipals, byID),
		access:     newCache[string, AccessKey](cacheAccessKeys, byID),
		oldest:     newCache[string, Alias](cacheOldest, byID),
		committing: make(chan struct{}, 1), looked: make(chan struct{}),
	}
	db.committing <- struct{}{}
	db.ctx, db.cancel = context.WithCancel(context.Background())
	db.health.damaged = make(map[string]bool)
	for _, name := range damaged {
		db.noteDamaged(name)
	}
	if err := db.begin(ctx, scanNow); err != nil {
		db.cancel()
		db.tasks.Wait()
		secrets.wipe()
		return nil, err
	}
	return db, nil
}

// begin reads the root record and starts the tasks.
func (db *DB) begin(ctx context.Context, scanNow uint64) error {
	root, err := db.secrets.readRoot(ctx, db.store)
	rootErr := err
	switch {
	case err == nil:
		db.root.Store(&root)
	case errors.Is(err, ErrDamaged):
		db.noteDamaged(nameRoot)
		db.rootErr = fmt.Sprintf("the root record is damaged (%v): keys can be used as far as they pass their checks, and all changes are refused. Restore the newest backup", err)
		db.census.Store(&censusFail{db.rootErr})
	default:
		return err
	}
	events, err := db.store.Watch(db.ctx, "")
	if err != nil {
		return err
	}
	db.tasks.Go(func() { db.watch(events) })
	if rootErr == nil && root.records <= scanNow {
		if err := db.scanAll(ctx); err != nil {
			return err
		}
		close(db.looked)
		db.tasks.Go(func() { db.scanLater(scanEvery) })
		return nil
	}
	db.tasks.Go(func() {
		wait := db.scanAgain()
		close(db.looked)
		db.scanLater(wait)
	})
	return nil
}

// Close closes the Store and wipes the store key.
func (db *DB) Close() error {
	if db.closed.Swap(true) {
		return ErrClosed
	}
	db.cancel()
	db.tasks.Wait()
	err := db.store.Close() // waits for calls that run
	db.purge(true)
	db.secrets.wipe()
	return err
}

// watchPause is the time between attempts to watch again after a watch broke.
const watchPause = time.Second

// watch evicts what changed, until db.ctx ends.
func (db *DB) watch(events <-chan Event) {
	for {
		db.follow(events)
		if db.ctx.Err() != nil {
			return
		}
		// The backend ended the watch by itself. Until there is a new one nothing may be kept.
		db.purge(true)
		for {
			select {
			case <-time.After(watchPause):
			case <-db.ctx.Done():
				return
			}
			var err error
			if events, err = db.store.Watch(db.ctx, ""); err == nil {
				break
			}
		}
		db.purge(false)
	}
}

func (db *DB) purge(off bool) {
	db.keys.purge(off)
	db.versions.purge(off)
	db.aliases.purge(off)
	db.people.purge(off)
	db.access.purge(off)
	db.oldest.purge(off)
	db.tokens.purge(off)
}

func (db *DB) follow(events <-chan Event) {
	rootChanged := false
	for e := range events {
		if e.Lost {
			db.purge(false)
			rootChanged = true
		}
		db.evict(e.Name)
		rootChanged = rootChanged || e.Name == nameRoot
		if !rootChanged || len(events) > 0 {
			continue
		}
		select {
		case <-db.committing:
			// A failure is found again by the next commit, which checks the root's revision.
			if _, err := db.reloadRoot(db.ctx); err != nil {
				db.stale = true
			}
			db.committing <- struct{}{}
			rootChanged = false
		default: // whoever commits now learns of a foreign root by a conflict
		}
	}
}

// reloadRoot reads the root record and tells whether it is another than DB knew. Caller holds committing.
func (db *DB) reloadRoot(ctx context.Context) (changed bool, err error) {
	if db.root.Load() == nil {
		return false, fmt.Errorf("%w: %s", ErrReadOnly, db.rootErr)
	}
	root, err := db.secrets.readRoot(ctx, db.store)
	if err != nil {
		if errors.Is(err, ErrDamaged) {
			db.noteDamaged(nameRoot)
		}
		return false, err
	}
	switch known := db.root.Load(); {
	case root.generation < known.generation, root.generation == known.generation && root.census != known.census:
		// Sound in itself, but commits that were seen are gone: the next one must not seal that.
		db.census.Store(&censusFail{fmt.Sprintf("the store was replaced by an older or another state of itself (it is at commit %d and was at %d). "+
			"Keys can be used; changes are refused until the daemon is started again. Find out first who restored it", root.generation, known.generation)})
		return false, fmt.Errorf("%w: %s", ErrDamaged, db.census.Load().problem)
	case root.revision == known.revision:
		db.stale = false
		return false, nil
	}
	db.stale = false
	db.root.Store(&root)
	db.foreign++
	return true, nil
}

// Scrub has the Store overwrite what was deleted, if it keeps that. What is deleted by the very last commit may stay; see
// Scrubber.
func (db *DB) Scrub(ctx context.Context) error {
	if db.closed.Load() {
		return ErrClosed
	}
	if s, ok := db.store.(Scrubber); ok {
		return s.Scrub(ctx)
	}
	return nil
}

// Health is what DB knows of the state of the store.
type Health struct {
	Keys     int
	Damaged  []string  // names of records that failed their check, as far as seen, at most 1,000
	Problem  string    // set when the store as a whole is damaged or read-only: what to do
	Sequence uint64    // generation: number of commits
	Verified time.Time // end of the last scan of all records that found each in place; zero before the first
}

// maxDamaged bounds the list of damaged records.
const maxDamaged = 1000

// Health reports it without touching the disk.
func (db *DB) Health() Health {
	var h Health
	if root := db.root.Load(); root != nil {
		h.Keys, h.Sequence = int(root.keys), root.generation
	}
	if r, ok := db.store.(Reporter); ok {
		h.Problem = r.Problem()
	}
	if c := db.census.Load(); c != nil && h.Problem == "" {
		h.Problem = c.problem
	}
	db.health.Lock()
	defer db.health.Unlock()
	for name := range db.health.damaged {
		h.Damaged = append(h.Damaged, name)
	}
	slices.Sort(h.Damaged)
	h.Verified = db.health.verified
	return h
}

func (db *DB) noteDamaged(name string) {
	db.health.Lock()
	defer db.health.Unlock()
	if len(db.health.damaged) < maxDamaged {
		db.health.damaged[name] = true
	}
}
