package hsmpool

import "sync/atomic"

// task is a job on its way: what a worker is told, and what it answers. The fields of the first group don't change after
// the task was queued; those of the second are written by the lane that has the task and may be read once state is
// taskDone.
type task struct {
	op    Op
	key   *Key
	in    []byte
	nonce []byte
	aad   []byte

	out   []byte
	pub   []byte // SubjectPublicKeyInfo of a generated key
	count int    // of destroyed objects
	begun bool   // a token object may exist
	err   *Error

	state    atomic.Int32
	queued   bool // in the queue and wanted; guarded by queue.mu
	wait     *waiter
	attempts int    // runs on any member
	tried    uint64 // members that failed it, a bit each
	member   int    // the one that answered
}

// States of a task. A caller who gives up abandons it: it is not run any more, and if it runs its result is dropped.
const (
	taskPending int32 = iota
	taskDone
	taskAbandoned
)

// waiter is told when its last task is done.
type waiter struct {
	left atomic.Int32
	done chan struct{} // gets one value
}

func newWaiter(n int) *waiter {
	w := &waiter{done: make(chan struct{}, 1)}
	w.left.Store(int32(n))
	return w
}

// begin says whether somebody still wants the result.
func (t *task) begin() bool {
	t.attempts++
	return t.state.Load() != taskAbandoned
}

// finish publishes the result.
func (t *task) finish() {
	if !t.state.CompareAndSwap(taskPending, taskDone) {
		clear(t.out) // abandoned: it may be a plaintext
	}
	if t.wait.left.Add(-1) == 0 {
		t.wait.done <- struct{}{}
	}
}

// fail ends a task that was never queued.
func (t *task) fail(e *Error) {
	t.err = e
	t.state.Store(taskDone)
}

// repeatable says whether the task may be run again after it failed half-way. Making a token object may not once it has begun:
// the first try may have left one, which the caller finds by its object ID. Destroying looks again each time.
func (t *task) repeatable() bool {
	return t.op != opGeneratePinned || !t.begun
}

// slow says whether the task may take seconds and so goes a way of its own.
func (t *task) slow() bool {
	switch t.op {
	case opGenerate, opProve, opGeneratePinned, opDestroyPinned, opCheck:
		return true
	}
	return false
}
