package hsmpool

import (
	"sync"
	"time"
)

// gate lets any number of calls into a module at once, or one owner alone. It is a sync.RWMutex whose owner can stop waiting: a
// call that never returns must not take everybody else along. The zero gate is open.
type gate struct {
	mu     sync.Mutex
	inside int
	shut   bool
	opened chan struct{} // closed when shut ends
	empty  chan struct{} // closed when the last call leaves a gate that is being shut
}

// enter waits until the gate is open, and counts the caller in.
func (g *gate) enter() {
	g.mu.Lock()
	for g.shut {
		opened := g.opened
		g.mu.Unlock()
		<-opened
		g.mu.Lock()
	}
	g.inside++
	g.mu.Unlock()
}

// tryEnter is enter that does not wait.
func (g *gate) tryEnter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return false
	}
	g.inside++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.inside == 0 && g.empty != nil {
		close(g.empty)
		g.empty = nil
	}
}

// lock shuts the gate and waits until nobody is inside, for so long. If it says false the gate is as it was.
func (g *gate) lock(wait time.Duration) bool {
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	g.mu.Lock()
	for g.shut {
		opened := g.opened
		g.mu.Unlock()
		select {
		case <-opened:
		case <-timeout.C:
			return false
		}
		g.mu.Lock()
	}
	g.shut, g.opened = true, make(chan struct{})
	if g.inside == 0 {
		g.mu.Unlock()
		return true
	}
	empty := make(chan struct{})
	g.empty = empty
	g.mu.Unlock()
	select {
	case <-empty:
		return true
	case <-timeout.C:
	}
	g.mu.Lock()
	left := g.inside == 0 // just now
	g.empty = nil
	g.mu.Unlock()
	if !left {
		g.unlock()
	}
	return left
}

// unlock opens the gate again.
func (g *gate) unlock() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = false
	close(g.opened)
}
