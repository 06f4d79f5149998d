package hsmpool

import (
	"slices"
	"sync/atomic"
	"time"
)

// ticket is a caller's place in the pool: what is to be done, for whom, and what became of it. The fields of the first group
// don't change; those of the second are guarded by Pool.mu, and the answer in task may be read once state is ticketDone.
type ticket struct {
	task
	principal string
	prefer    *member // who is to do it, if it can
	avoid     *member // who is to do it only if nobody else can
	wait      *waiter // nil: nobody waits

	only   *member    // who alone can do it; nil: any member. Update may put its successor in its place
	worker *worker    // who alone may do it, as it is about the worker itself; it is not queued and not tried again
	queued bool       // waits, and somebody wants it
	line   *fairQueue // where it is queued; nil: in one of the lists
	to     *worker    // who has it, or had it last
	sent   time.Time  // when to got it
	runs   []*member  // who had it
	room   [maxAttempts]*member

	state atomic.Int32
}

// States of a ticket. A caller who gives up abandons it: it is not run any more, and if it runs its result is dropped.
const (
	ticketPending int32 = iota
	ticketDone
	ticketAbandoned
)

// waiter is told when its last ticket is done.
type waiter struct {
	left atomic.Int32
	done chan struct{} // gets one value
}

func newWaiter(n int) *waiter {
	w := &waiter{done: make(chan struct{}, 1)}
	w.left.Store(int32(n))
	return w
}

// finish publishes the answer. It is called once, without Pool.mu.
func (t *ticket) finish() {
	if !t.state.CompareAndSwap(ticketPending, ticketDone) {
		clear(t.out) // abandoned: it may be a plaintext
	}
	if t.wait != nil && t.wait.left.Add(-1) == 0 {
		t.wait.done <- struct{}{}
	}
}

// fail ends a ticket that was never queued.
func (t *ticket) fail(e *Error) {
	t.err = e
	t.state.Store(ticketDone)
}

func (t *ticket) wanted() bool { return t.state.Load() != ticketAbandoned }

// ran counts the runs on m.
func (t *ticket) ran(m *member) int {
	n := 0
	for _, r := range t.runs {
		if r == m {
			n++
		}
	}
	return n
}

func (t *ticket) hasRun(m *member) bool { return slices.Contains(t.runs, m) }
