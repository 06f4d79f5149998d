package kms

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestRateLimit(t *testing.T) {
	l := &rateLimit{perSecond: 10}
	at := time.Hour
	for i := range 10 {
		if !l.take(at, 1) {
			t.Fatalf("operation %d of a second's worth is refused", i+1)
		}
	}
	if l.take(at, 1) || l.used(at) != 10 {
		t.Errorf("more than a second's worth is let through, used %d", l.used(at))
	}
	if at += 100*time.Millisecond - 1; l.take(at, 1) {
		t.Error("one is let through before it was earned")
	}
	if at++; !l.take(at, 1) || l.take(at, 1) {
		t.Error("a tenth of a second does not earn one operation")
	}
	if at += time.Hour; l.used(at) != 0 || !l.take(at, 10) || l.take(at, 1) {
		t.Error("a long rest earns another amount than a second's worth")
	}
	// A batch that is larger than that needs all of it, and is paid off before anybody goes on.
	if at += time.Second - 1; l.take(at, 25) {
		t.Error("a large batch is let through while the limit is in use")
	}
	if at++; !l.take(at, 25) || l.used(at) != 25 {
		t.Errorf("a large batch is refused by an unused limit, used %d", l.used(at))
	}
	if at += 1600*time.Millisecond - 1; l.take(at, 1) {
		t.Error("a large batch is not paid off")
	}
	if at++; !l.take(at, 1) {
		t.Error("a large batch is paid for twice")
	}
}

// No more than the limit gets through however many try at once, and none is lost.
func TestRateLimitAtOnce(t *testing.T) {
	l := &rateLimit{perSecond: 1000}
	var got atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				if l.take(time.Minute, 1) {
					got.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if got.Load() != 1000 {
		t.Errorf("%d of 4000 got through, want 1000", got.Load())
	}
}

func TestRateLimitCosts(t *testing.T) {
	s := newStoreFixture(t, Instance{ID: "kst-limited", Type: SoftwareInstance, QPS: 1_000_000})
	m := s.make("kst-limited", root)
	k, err := s.store.Key(t.Context(), m.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	g := grant{key: k}
	if n := testing.AllocsPerRun(100, func() {
		if err := s.charge(g, 1); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("a charge allocates %v times", n)
	}
}
