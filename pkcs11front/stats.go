package pkcs11front

import (
	"sync"
	"sync/atomic"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// Stats are figures of the door.
type Stats struct {
	Connections, Applications, Sessions int
	Refused                             uint64      // connections over a limit
	Calls                               []CallCount // those that were made, in order of the protocol's numbers
}

// CallCount is how often a call ended with a return value.
type CallCount struct {
	Name string
	RV   ck.RV
	N    uint64
}

// Stats gives the figures of the moment.
func (f *Front) Stats() Stats {
	f.mu.Lock()
	s := Stats{Connections: len(f.conns), Applications: len(f.all), Sessions: f.sessions}
	f.mu.Unlock()
	s.Refused = f.counters.refused.Load()
	for i := range f.counters.calls {
		s.Calls = f.counters.calls[i].list(s.Calls, nameOfCall(i))
	}
	return s
}

// unknownCall stands for calls that the protocol does not have, in figures and in the log.
const unknownCall = "unknown"

func nameOfCall(i int) string {
	if i == 0 {
		return unknownCall
	}
	return p11rpc.Calls[i-1].Name
}

// counters count calls, by the protocol's number; 0 for what is no call.
type counters struct {
	refused atomic.Uint64
	calls   [numCalls]callCounter
}

// callCounter counts one call. The usual end is counted without a lock.
type callCounter struct {
	ok     atomic.Uint64
	mu     sync.Mutex
	failed map[ck.RV]uint64
}

func (c *callCounter) count(rv ck.RV) {
	if rv == ck.CKR_OK {
		c.ok.Add(1)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed == nil {
		c.failed = map[ck.RV]uint64{}
	}
	c.failed[rv]++
}

func (c *callCounter) list(to []CallCount, name string) []CallCount {
	if n := c.ok.Load(); n > 0 {
		to = append(to, CallCount{name, ck.CKR_OK, n})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for rv, n := range c.failed {
		to = append(to, CallCount{name, rv, n})
	}
	return to
}
