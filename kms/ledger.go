package kms

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/keystore"
)

// Bounds of the ledger of use.
const (
	ledgerEvery    = 10 * time.Second     // between flushes to the store, and so the most that a crash loses
	ledgerLastWait = 5 * time.Second      // for the flush at the end
	ledgerShards   = 64                   // as shardOf says
	ledgerRoom     = 256                  // callers and keys that a shard notes between two flushes; half of that asks for a flush
	ledgerUnsaved  = 16 << 10             // callers and keys that wait for a store that does not take them
	ledgerChunk    = 256                  // of them in one commit
	ledgerCallers  = 256                  // callers of one key that are told apart; the rest are one entry
	usageShown     = 365 * 24 * time.Hour // after the last use its time is not told any more
	usageKept      = 730 * 24 * time.Hour // after the last use a caller is forgotten
)

// ledger counts who uses which key. A call only adds to a counter in memory; the counters go to the store every
// ledgerEvery, before a check looks, and when the service closes. It never makes a call wait for the store, nor fail:
// what finds no room is counted as lost, and logged.
type ledger struct {
	store    *keystore.DB
	services func() *serviceTable
	log      zerolog.Logger
	shards   [ledgerShards]ledgerShard
	wake     chan struct{} // asks for a flush; holds one

	flushing sync.Mutex                 // over what follows
	unsaved  map[string]*keystore.Usage // by key/caller: taken from the shards, not in the store yet
	failing  bool                       // the last flush was not taken by the store, which was logged
}

// ledgerShard has the counters of some pairs of caller and key.
type ledgerShard struct {
	mu    sync.Mutex
	index map[usePair]int32 // place in uses
	uses  []use
	spare []use  // to swap with uses
	lost  uint64 // calls of pairs that had no room
	_     [40]byte
}

// usePair is a caller and a key. A local connection has one Actor. From a network there is one for each request, so these
// callers are told apart by what the ledger keeps of them.
type usePair struct {
	local     *Actor // nil: a caller on a network
	principal string
	door      Door
	keyID     string
}

func pairOf(a *Actor, keyID string) usePair {
	if a.RemoteAddr != "" {
		return usePair{principal: a.Principal, door: a.Door, keyID: keyID}
	}
	return usePair{local: a, keyID: keyID}
}

type use struct {
	usePair
	actor       *Actor // one of the pair's
	first, last time.Time
	calls       uint64
}

func newLedger(store *keystore.DB, services func() *serviceTable, log zerolog.Logger) *ledger {
	l := &ledger{store: store, services: services, log: log, wake: make(chan struct{}, 1), unsaved: map[string]*keystore.Usage{}}
	for i := range l.shards {
		l.shards[i].index = map[usePair]int32{}
	}
	return l
}

// note counts successful calls of a caller with a key. It allocates nothing for a pair that it knows.
func (l *ledger) note(a *Actor, keyID string, calls int, now time.Time) {
	if calls <= 0 || keyID == "" {
		return
	}
	pair := pairOf(a, keyID)
	s := &l.shards[shardOf(a, keyID)]
	s.mu.Lock()
	i, known := s.index[pair]
	if !known {
		if len(s.uses) == ledgerRoom {
			s.lost += uint64(calls)
			s.mu.Unlock()
			l.poke()
			return
		}
		i = int32(len(s.uses))
		s.index[pair] = i
		s.uses = append(s.uses, use{usePair: pair, actor: a, first: now, last: now})
	}
	u := &s.uses[i]
	u.calls += uint64(calls)
	if now.After(u.last) {
		u.last = now
	}
	crowded := !known && len(s.uses) >= ledgerRoom/2
	s.mu.Unlock()
	if crowded {
		l.poke()
	}
}

// shardOf spreads pairs by the end of the key's ID, which is random, and by the process or the port of the caller, so that
// those who use one key seldom meet; a pair may be in more than one. It need not be fair, only cheap.
func shardOf(a *Actor, keyID string) uint {
	h := (tail(keyID) ^ tail(a.RemoteAddr)<<1 ^ uint64(a.PID)) * 0x9e3779b97f4a7c15 // 2^64 over the golden ratio (Fibonacci hashing)
	return uint(h >> 58)
}

// tail is the last octets of a text as a number.
func tail(s string) uint64 {
	var end [8]byte
	copy(end[:], s[max(0, len(s)-len(end)):])
	return binary.LittleEndian.Uint64(end[:])
}

// poke asks for a flush soon.
func (l *ledger) poke() {
	select {
	case l.wake <- struct{}{}:
	default: // one is asked for already
	}
}

// flush brings the counters into the store. What the store does not take waits for the next flush.
func (l *ledger) flush(ctx context.Context) error {
	l.flushing.Lock()
	defer l.flushing.Unlock()
	if lost := l.collect(); lost > 0 {
		l.log.Warn().Uint64("calls", lost).Msg("the ledger of who uses which key had no room for some calls; they are in the audit only")
	}
	err := l.save(ctx)
	if err != nil && !l.failing {
		l.log.Warn().Err(err).Msg("the ledger of who uses which key can't be saved now, and is tried again")
	}
	l.failing = err != nil
	return err
}

// collect empties the shards into unsaved and gives the number of calls that are lost. Caller holds flushing.
func (l *ledger) collect() (lost uint64) {
	services := l.services()
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		uses := s.uses
		if len(uses) > 0 {
			s.uses = s.spare[:0]
			clear(s.index)
		}
		lost += s.lost
		s.lost = 0
		s.mu.Unlock()
		for i := range uses {
			lost += l.add(&uses[i], services)
		}
		if len(uses) > 0 {
			clear(uses) // connections that are gone are not held
			s.mu.Lock()
			s.spare = uses
			s.mu.Unlock()
		}
	}
	return lost
}

// add adds one counter to unsaved and gives the calls that found no room there. Caller holds flushing.
func (l *ledger) add(u *use, services *serviceTable) (lost uint64) {
	caller := callerOf(u.actor, services)
	caller.KeyID, caller.First, caller.Last, caller.Calls = u.keyID, u.first.UTC(), u.last.UTC(), u.calls
	name := caller.KeyID + "/" + caller.Caller
	known := l.unsaved[name]
	switch {
	case known == nil && len(l.unsaved) >= ledgerUnsaved:
		return u.calls
	case known == nil:
		l.unsaved[name] = caller
		return 0
	}
	known.Calls += caller.Calls
	if caller.First.Before(known.First) {
		known.First = caller.First
	}
	if caller.Last.After(known.Last) {
		known.Last = caller.Last
	}
	return 0
}

// save writes unsaved to the store and forgets what it took. Caller holds flushing.
func (l *ledger) save(ctx context.Context) error {
	names := make([]string, 0, len(l.unsaved))
	for name := range l.unsaved {
		names = append(names, name)
	}
	slices.Sort(names) // callers of one key together: the store counts them once for each commit
	for part := range slices.Chunk(names, ledgerChunk) {
		err := l.commit(ctx, part)
		if errors.Is(err, keystore.ErrDamaged) {
			err = l.commitEach(ctx, part)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *ledger) commit(ctx context.Context, names []string) error {
	ch := l.store.Change()
	for _, name := range names {
		ch.AddUsage(l.unsaved[name], ledgerCallers)
	}
	if err := ch.Commit(ctx); err != nil {
		return err
	}
	for _, name := range names {
		delete(l.unsaved, name)
	}
	return nil
}

// commitEach is for a part with a record in it that is damaged, which must not keep the others waiting. What would go into
// a damaged record is given up.
func (l *ledger) commitEach(ctx context.Context, names []string) error {
	for i := range names {
		err := l.commit(ctx, names[i:i+1])
		if errors.Is(err, keystore.ErrDamaged) {
			l.log.Warn().Err(err).Str("key", l.unsaved[names[i]].KeyID).Msg("a record of who uses a key is damaged, and is not brought up to date")
			delete(l.unsaved, names[i])
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// callerOf says who an actor is in the ledger: what tells its callers apart, and stays the same from one connection to
// the next.
func callerOf(a *Actor, services *serviceTable) *keystore.Usage {
	u := &keystore.Usage{Principal: a.Principal, Door: a.Door.String(), Unit: lastingUnit(a.Unit),
		Executable: strings.TrimSuffix(a.Executable, " (deleted)")} // as the kernel says of a program that was replaced while it ran
	if d := services.of(a); d != nil {
		u.Service = d.Code
	}
	uid := ""
	if a.RemoteAddr == "" {
		n := a.UID // not a pointer into the Actor, which is a connection's
		u.UID, uid = &n, fmt.Sprint(n)
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{u.Principal, u.Service, u.Unit, u.Executable, uid, u.Door}, "\x00")))
	u.Caller = hex.EncodeToString(sum[:])
	return u
}

// temporaryUnit is what is new each time: login sessions, and what systemd-run makes without a name.
var temporaryUnit = regexp.MustCompile(`^(session-c?[0-9]+\.scope|run-(u[0-9]+|p[0-9]+-i[0-9]+|r[0-9a-f]{32})\.(scope|service))$`)

// lastingUnit leaves temporary units out. Else they would fill a key's ledger with callers that are one.
func lastingUnit(unit string) string {
	if temporaryUnit.MatchString(unit) {
		return ""
	}
	return unit
}
