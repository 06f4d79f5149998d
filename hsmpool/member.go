package hsmpool

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// member is one member as the pool sees it.
type member struct {
	index  int
	cfg    *MemberConfig
	worker worker
	lanes  int           // goroutines; owned by Open, then by the supervisor
	kick   chan struct{} // tells the supervisor that the member went down; holds one

	// The first try to open, made by Open. id and err may be read after first is closed.
	first chan struct{}
	id    *identity
	err   error

	done, failed atomic.Uint64
	failures     failureCount

	// Guarded by Pool.mu.
	state  bool // up; changed by Pool.admit and Pool.takeDown only
	reason string
	since  time.Time
	token  string
	serial string
}

func (m *member) setDown(mu *sync.Mutex, reason string) {
	mu.Lock()
	defer mu.Unlock()
	if m.state {
		m.since = time.Now()
	}
	m.state, m.reason = false, reason
}

func (m *member) isUp(mu *sync.Mutex) bool {
	mu.Lock()
	defer mu.Unlock()
	return m.state
}

// named gives the error the member's name. The error may be shared, so a copy is made.
func (m *member) named(err error) *Error {
	e := &Error{Kind: KindUnavailable, fate: fateDown}
	if own := (*Error)(nil); errors.As(err, &own) {
		*e = *own
	} else {
		e.Err = err
	}
	e.Member = m.cfg.Name
	return e
}

// failureCount counts failures that might be a session's or the whole token's.
type failureCount struct {
	mu    sync.Mutex
	times [failuresMax]time.Time
}

// So many failures of this kind within so long are the token's.
const (
	failuresMax    = 3
	failuresWithin = 10 * time.Second
)

// add counts one, and says whether it was one too many.
func (f *failureCount) add(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	copy(f.times[:], f.times[1:])
	f.times[failuresMax-1] = now
	return !f.times[0].IsZero() && now.Sub(f.times[0]) < failuresWithin
}

func (f *failureCount) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.times = [failuresMax]time.Time{}
}

// Status reports every member's.
func (p *Pool) Status() []Status {
	out := make([]Status, len(p.members))
	for i, m := range p.members {
		s := &out[i]
		s.Queue = p.queue.depth(i)
		s.Sessions, s.Keys = m.worker.load()
		s.Done, s.Failed = m.done.Load(), m.failed.Load()
		p.mu.Lock()
		s.Name, s.Module, s.Token, s.Serial = m.cfg.Name, m.cfg.Module, m.token, m.serial
		if s.Token == "" {
			s.Token = m.cfg.TokenLabel
		}
		if s.Serial == "" {
			s.Serial = m.cfg.TokenSerial
		}
		s.State, s.Reason, s.Since = StateDown, m.reason, m.since
		if m.state {
			s.State = StateUp
		}
		p.mu.Unlock()
	}
	return out
}
