package kmssign

import (
	"hash/maphash"
	"sync"
	"time"
)

// A nonce is remembered for three periods at least two of which are whole: longer than the two MaxSkew for which a request
// can be taken, from MaxSkew before its time to MaxSkew after it.
const (
	noncePeriod = MaxSkew
	nonceSpans  = 3
)

// minNonces is how many nonces any access key may have remembered, however many the others have.
const minNonces = 4096

// nonces remembers which nonces were used with which access key. Memory is bounded: a nonce is 8 octets of a keyed hash,
// which can be mistaken for another's once in 2^64, and then a good request is refused.
//
// What is forgotten can't come back: horizon is the latest time of any request whose nonce is forgotten, and requests are
// refused up to it. While the clock only goes forward these have expired long before; after it was set back they have not.
type nonces struct {
	seed     maphash.Seed
	max      int // in all, but for minNonces of each access key
	maxOfKey int

	mu      sync.Mutex
	start   time.Time // requests from before it may have been taken by an earlier process
	horizon time.Time
	began   time.Time // of the current period, with a monotonic reading
	spans   [nonceSpans]nonceSpan
}

// nonceSpan is what was used in one period. spans[0] is the current one.
type nonceSpan struct {
	used   map[string]map[uint64]struct{} // by access key
	total  int
	latest time.Time // of the requests
}

func newNonces(start time.Time, most int) *nonces {
	return &nonces{seed: maphash.MakeSeed(), max: most, maxOfKey: most / 2, start: start, began: start}
}

// use remembers the nonce of a request with a right signature, or says why the request can't be taken. at is the request's
// time.
func (n *nonces) use(accessKeyID, nonce string, at, now time.Time) error {
	sum := maphash.String(n.seed, nonce)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forget(now)
	if at.Before(n.start) {
		return refuse(TryAgain, "keyward was started after this request was signed, and can't tell whether it was made before. Sign it again and send it again.")
	}
	if !at.After(n.horizon) {
		return refuse(TryAgain, "keyward's clock was set back, and it can't tell whether this request was made before. Sign it again later than %s.", n.horizon.UTC().Format(timeForm))
	}
	ofKey, total := 0, 0
	for i := range n.spans {
		set := n.spans[i].used[accessKeyID]
		if _, used := set[sum]; used {
			return refuse(NonceUsed, "The nonce of this request was used before. Each request needs a new one, a retry too.")
		}
		ofKey += len(set)
		total += n.spans[i].total
	}
	if ofKey >= minNonces && (ofKey >= n.maxOfKey || total >= n.max) {
		return refuse(TooManyRequests, "The request was throttled: too many were signed with this access key in the last %v. Nothing was done; try again later.", nonceSpans*noncePeriod)
	}
	span := &n.spans[0]
	if span.used == nil {
		span.used = map[string]map[uint64]struct{}{}
	}
	set := span.used[accessKeyID]
	if set == nil {
		set = map[uint64]struct{}{}
		span.used[accessKeyID] = set
	}
	set[sum] = struct{}{}
	span.total++
	if at.After(span.latest) {
		span.latest = at
	}
	return nil
}

// forget begins new periods as time goes by.
func (n *nonces) forget(now time.Time) {
	for passed := 0; now.Sub(n.began) >= noncePeriod; passed++ {
		if passed == nonceSpans { // all is forgotten
			n.began = now
			return
		}
		if last := n.spans[nonceSpans-1].latest; last.After(n.horizon) {
			n.horizon = last
		}
		copy(n.spans[1:], n.spans[:nonceSpans-1])
		n.spans[0] = nonceSpan{}
		n.began = n.began.Add(noncePeriod)
	}
}
