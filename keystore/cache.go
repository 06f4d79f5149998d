package keystore

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// Bounds of what DB keeps in memory, in octets as stored plus cacheOverhead each.
const (
	cacheKeys       = 48 << 20
	cacheVersions   = 48 << 20
	cacheAliases    = 16 << 20
	cachePrincipals = 16 << 20
	cacheAccessKeys = 4 << 20
	cacheOldest     = 16 << 20

	cacheOverhead = 400 // of an entry: struct, strings, map
	cacheShards   = 32
)

// cache keeps immutable values by name, up to a number of octets. A hit takes one shard's read lock and sets one bit;
// what goes first is what was not hit since the hand passed it last (the clock algorithm).
type cache[K comparable, V any] struct {
	hash   func(K) uint64
	budget int // octets per shard
	shards [cacheShards]cacheShard[K, V]
}

type cacheShard[K comparable, V any] struct {
	mu      sync.RWMutex // over everything below
	entries map[K]*cacheEntry[K, V]
	ring    []*cacheEntry[K, V]
	hand    int
	size    int
	loads   map[K]*cacheLoad[V]
	off     bool // nothing is kept
}

type cacheEntry[K comparable, V any] struct {
	name  K
	value *V
	size  int
	place int // in ring
	hit   atomic.Bool
}

// cacheLoad is one load that is under way. value and err are written before done is closed.
type cacheLoad[V any] struct {
	done  chan struct{}
	stale bool // evicted meanwhile: what it brings must not be kept. Guarded by the shard's mu
	value *V
	err   error
}

func newCache[K comparable, V any](budget int, hash func(K) uint64) *cache[K, V] {
	c := &cache[K, V]{hash: hash, budget: budget / cacheShards}
	for i := range c.shards {
		c.shards[i].entries = make(map[K]*cacheEntry[K, V])
		c.shards[i].loads = make(map[K]*cacheLoad[V])
	}
	return c
}

func (c *cache[K, V]) shard(name K) *cacheShard[K, V] {
	return &c.shards[c.hash(name)%cacheShards]
}

// get returns a kept value, or nil.
func (c *cache[K, V]) get(name K) *V {
	s := c.shard(name)
	s.mu.RLock()
	e := s.entries[name]
	s.mu.RUnlock()
	if e == nil {
		return nil
	}
	if !e.hit.Load() { // writing always would bounce the cache line between cores
		e.hit.Store(true)
	}
	return e.value
}

// load returns the value that fetch brings, and keeps it. Callers who come while a fetch is under way wait for it; when
// it ends by its own caller's context, one of them fetches again. fetch also returns the value's size in octets.
func (c *cache[K, V]) load(ctx context.Context, name K, fetch func() (*V, int, error)) (*V, error) {
	s := c.shard(name)
	for {
		s.mu.Lock()
		if e := s.entries[name]; e != nil {
			s.mu.Unlock()
			return e.value, nil
		}
		l := s.loads[name]
		if l == nil {
			l = &cacheLoad[V]{done: make(chan struct{})}
			s.loads[name] = l
			s.mu.Unlock()
			return c.fill(s, name, l, fetch)
		}
		s.mu.Unlock()
		select {
		case <-l.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if !errors.Is(l.err, context.Canceled) && !errors.Is(l.err, context.DeadlineExceeded) {
			return l.value, l.err
		}
	}
}

func (c *cache[K, V]) fill(s *cacheShard[K, V], name K, l *cacheLoad[V], fetch func() (*V, int, error)) (*V, error) {
	value, size, err := fetch()
	if err != nil {
		value = nil
	}
	l.value, l.err = value, err
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loads[name] == l {
		delete(s.loads, name)
	}
	if err == nil && !l.stale && !s.off {
		s.keep(name, value, size+cacheOverhead, c.budget)
	}
	close(l.done)
	return value, err
}

// keep adds an entry and makes room. Caller holds mu.
func (s *cacheShard[K, V]) keep(name K, value *V, size, budget int) {
	if size > budget {
		return
	}
	s.drop(name)
	for s.size+size > budget {
		if s.hand >= len(s.ring) {
			s.hand = 0
		}
		if e := s.ring[s.hand]; e.hit.Swap(false) {
			s.hand++
		} else {
			s.drop(e.name)
		}
	}
	e := &cacheEntry[K, V]{name: name, value: value, size: size, place: len(s.ring)}
	s.entries[name] = e
	s.ring = append(s.ring, e)
	s.size += size
}

// drop removes an entry, if there is one. Caller holds mu.
func (s *cacheShard[K, V]) drop(name K) {
	e := s.entries[name]
	if e == nil {
		return
	}
	delete(s.entries, name)
	last := s.ring[len(s.ring)-1]
	s.ring[e.place], last.place = last, e.place
	s.ring[len(s.ring)-1] = nil
	s.ring = s.ring[:len(s.ring)-1]
	s.size -= e.size
}

// evict forgets a value. A fetch under way is told not to keep what it brings, and callers from now on do not wait for
// it.
func (c *cache[K, V]) evict(name K) {
	s := c.shard(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(name)
	if l := s.loads[name]; l != nil {
		l.stale = true
		delete(s.loads, name)
	}
}

// purge forgets everything. With off it keeps nothing from then on, until it is purged without.
func (c *cache[K, V]) purge(off bool) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.off = off
		clear(s.entries)
		clear(s.ring)
		s.ring, s.size, s.hand = s.ring[:0], 0, 0
		for _, l := range s.loads {
			l.stale = true
		}
		clear(s.loads)
		s.mu.Unlock()
	}
}
