package kms

import (
	"sync/atomic"
	"time"
)

// rateLimit lets so many operations through a second, with bursts of a second's worth. It keeps one number, the time at
// which all that was taken will have been earned (the generic cell rate algorithm), so taking needs neither lock nor memory.
type rateLimit struct {
	perSecond int
	earned    atomic.Int64 // nanoseconds of Service.uptime
}

// rateBurst is how far ahead of its time the limit may be used.
const rateBurst = int64(time.Second)

// take takes n operations at now, all or none. More than a second's worth at once, as a large batch is, needs a limit that is not
// used at all, and then holds it back for as long as it takes to earn them.
func (l *rateLimit) take(now time.Duration, n int) bool {
	cost := int64(n) * int64(time.Second) / int64(l.perSecond)
	for {
		was := l.earned.Load()
		from := max(was, int64(now))
		if from+min(cost, rateBurst) > int64(now)+rateBurst {
			return false
		}
		if l.earned.CompareAndSwap(was, from+cost) {
			return true
		}
	}
}

// used tells how many operations are taken and not earned yet at now.
func (l *rateLimit) used(now time.Duration) int {
	ahead := max(0, l.earned.Load()-int64(now))
	return int((ahead*int64(l.perSecond) + int64(time.Second) - 1) / int64(time.Second))
}
