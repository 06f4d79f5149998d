package xki

import (
	"hash/maphash"
	"sync"
	"time"
)

// limiter is a token bucket: so many requests a second, and as many at once.
type limiter struct {
	perSecond float64

	mu   sync.Mutex // guards what follows
	left float64
	last time.Time
}

// newLimiter makes one; nil takes everything.
func newLimiter(perSecond int) *limiter {
	if perSecond <= 0 {
		return nil
	}
	return &limiter{perSecond: float64(perSecond), left: float64(perSecond)}
}

func (l *limiter) take(now time.Time) bool {
	if l == nil {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if passed := now.Sub(l.last).Seconds(); passed > 0 {
		l.left = min(l.left+passed*l.perSecond, l.perSecond)
		l.last = now
	}
	if l.left < 1 {
		return false
	}
	l.left--
	return true
}

// nonces remembers the nonces of xki-v1 for as long as a request with them could be taken: twice the allowed difference of the clocks. Memory is bounded: beyond it
// requests are refused and nothing is forgotten.
type nonces struct {
	seed maphash.Seed
	span time.Duration
	max  int

	mu       sync.Mutex // guards what follows
	began    time.Time  // of current
	current  map[uint64]struct{}
	previous map[uint64]struct{} // of the span before
}

func newNonces(span time.Duration, most int) *nonces {
	return &nonces{seed: maphash.MakeSeed(), span: span, max: most, current: map[uint64]struct{}{}}
}

// errNonceUsed and errNoncesFull are what use gives.
var (
	errNonceUsed  = Errorf(AuthenticationFailed, "the nonce was used before")
	errNoncesFull = Errorf(Throttling, "there were too many requests to remember the nonces of more")
)

// use notes a nonce, if it is new and there is room for it.
func (n *nonces) use(keyID, nonce string, now time.Time) error {
	var h maphash.Hash
	h.SetSeed(n.seed)
	_, _ = h.WriteString(keyID) // never fail
	_ = h.WriteByte(0)
	_, _ = h.WriteString(nonce)
	sum := h.Sum64()
	n.mu.Lock()
	defer n.mu.Unlock()
	if passed := now.Sub(n.began); passed >= n.span {
		n.previous = n.current
		if passed >= 2*n.span {
			n.previous = nil
		}
		n.current, n.began = map[uint64]struct{}{}, now
	}
	_, here := n.current[sum]
	_, before := n.previous[sum]
	switch {
	case here || before:
		return errNonceUsed
	case len(n.current) >= n.max:
		return errNoncesFull
	}
	n.current[sum] = struct{}{}
	return nil
}
