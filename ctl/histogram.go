package ctl

import (
	"math"
	"time"
)

// histogram counts durations in buckets that are 2 % wide, from 1 us to about 20 minutes, in fixed memory.
type histogram struct {
	buckets [1050]uint64
	count   uint64
	longest time.Duration
}

const (
	bucketGrowth = 1.02
	bucketUnit   = time.Microsecond
)

func (h *histogram) add(d time.Duration) {
	i := 0
	if d > bucketUnit {
		i = int(math.Log(float64(d)/float64(bucketUnit)) / math.Log(bucketGrowth))
	}
	h.buckets[min(i, len(h.buckets)-1)]++
	h.count++
	h.longest = max(h.longest, d)
}

// merge adds what o counted.
func (h *histogram) merge(o *histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.count += o.count
	h.longest = max(h.longest, o.longest)
}

// quantile gives the duration that a share q of all stayed under, to within a bucket.
func (h *histogram) quantile(q float64) time.Duration {
	if h.count == 0 {
		return 0
	}
	rank := max(uint64(math.Ceil(q*float64(h.count))), 1)
	var seen uint64
	for i, n := range h.buckets {
		if seen += n; seen >= rank {
			return time.Duration(math.Pow(bucketGrowth, float64(i)+0.5) * float64(bucketUnit))
		}
	}
	return 0
}
