package keystore

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"testing"
)

func newTestCache(budget int) *cache[string, int] {
	seed := maphash.MakeSeed()
	return newCache[string, int](budget, func(s string) uint64 { return maphash.String(seed, s) })
}

// TestCacheLoadsOnce has many callers miss at once: one of them fetches.
func TestCacheLoadsOnce(t *testing.T) {
	c := newTestCache(1 << 20)
	var fetches atomic.Int32
	release := make(chan struct{})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			v, err := c.load(t.Context(), "a", func() (*int, int, error) {
				fetches.Add(1)
				<-release
				n := 7
				return &n, 1, nil
			})
			if err != nil || *v != 7 {
				t.Errorf("%v, %v", v, err)
			}
		})
	}
	close(release)
	wg.Wait()
	if fetches.Load() != 1 {
		t.Errorf("%d fetches", fetches.Load())
	}
}

// TestCacheStaleLoad evicts while a fetch is under way: what it brings is not kept.
func TestCacheStaleLoad(t *testing.T) {
	c := newTestCache(1 << 20)
	for _, evict := range []func(){func() { c.evict("a") }, func() { c.purge(false) }} {
		old := 1
		if _, err := c.load(t.Context(), "a", func() (*int, int, error) {
			evict()
			return &old, 1, nil
		}); err != nil {
			t.Fatal(err)
		}
		if v := c.get("a"); v != nil {
			t.Errorf("the stale value %d was kept", *v)
		}
	}
}

// TestCacheOff turns a cache off and on while a fetch is under way, and before one begins.
func TestCacheOff(t *testing.T) {
	c := newTestCache(1 << 20)
	n := 1
	load := func(during func()) {
		t.Helper()
		if v, err := c.load(t.Context(), "a", func() (*int, int, error) { during(); return &n, 1, nil }); err != nil || v != &n {
			t.Fatal(v, err)
		}
	}
	load(func() { c.purge(true) })
	load(func() {})
	if c.get("a") != nil {
		t.Error("a cache that is off keeps something")
	}
	load(func() { c.purge(false) })
	if c.get("a") != nil {
		t.Error("what was fetched while the cache was off is kept")
	}
	load(func() {})
	if c.get("a") == nil {
		t.Error("a cache that is on again keeps nothing")
	}
}

// TestCacheContexts: a caller whose own context ends stops waiting, and the end of the loader's context is not passed
// on to others.
func TestCacheContexts(t *testing.T) {
	c := newTestCache(1 << 20)
	began, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := c.load(t.Context(), "a", func() (*int, int, error) {
			close(began)
			<-release
			return nil, 0, context.Canceled
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the loader got %v", err)
		}
	})
	<-began
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.load(ended, "a", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a waiter whose context ended got %v", err)
	}
	wg.Go(func() {
		n := 3
		v, err := c.load(t.Context(), "a", func() (*int, int, error) { return &n, 1, nil })
		if err != nil || v != &n {
			t.Errorf("a waiter got %v, %v", v, err)
		}
	})
	close(release)
	wg.Wait()
}

// TestCacheBudget fills a cache far beyond its budget: it stays within, keeps what is hit, and its parts agree.
func TestCacheBudget(t *testing.T) {
	const budget = cacheShards * 10 * (cacheOverhead + 100)
	c := newTestCache(budget)
	n := 1
	load := func(name string, size int) {
		if _, err := c.load(t.Context(), name, func() (*int, int, error) { return &n, size, nil }); err != nil {
			t.Fatal(err)
		}
	}
	load("hot", 100)
	hits := 0
	for i := range 5000 {
		load(string(rune('a'+i%26))+string(rune(i)), 100)
		if c.get("hot") != nil {
			hits++
		}
	}
	if hits != 5000 {
		t.Errorf("what was hit all the time went away: %d hits", hits)
	}
	load("huge", budget)
	if c.get("huge") != nil {
		t.Error("a value beyond the budget was kept")
	}
	for i := range c.shards {
		s := &c.shards[i]
		size := 0
		for place, e := range s.ring {
			size += e.size
			if e.place != place || s.entries[e.name] != e {
				t.Fatal("ring and map disagree")
			}
		}
		if size != s.size || size > c.budget || len(s.ring) != len(s.entries) || len(s.loads) != 0 {
			t.Errorf("shard %d: size %d, counted %d, budget %d, %d in the ring, %d in the map", i, s.size, size, c.budget, len(s.ring), len(s.entries))
		}
	}
}
