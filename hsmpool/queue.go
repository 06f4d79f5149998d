package hsmpool

import "sync"

// queue holds the tasks that wait, and the lanes that wait for tasks. Tasks of wrapped keys can go to any member; pinned keys'
// and second tries have theirs. It is bounded, and full is an answer.
type queue struct {
	mu      sync.Mutex
	max     int
	waiting int // tasks in the fifos that somebody waits for
	dead    int // tasks in the fifos that nobody waits for any more
	closed  *Error
	shared  fifo
	members []memberQueue
	lanes   int // of members that are up
	next    int // member whose lanes are woken first, in turn
}

// memberQueue is one member's part. Guarded by queue.mu.
type memberQueue struct {
	up    bool
	lanes int
	own   fifo
	slow  fifo
	idle  []*lane // last in first out
	late  *lane   // the idle slow lane
}

// lane is a goroutine that runs tasks on a member.
type lane struct {
	member int
	slow   bool
	wake   chan struct{} // holds one
}

// maxBatch bounds what a lane takes at once.
const maxBatch = 32

// push queues tasks for one member, or for any if member is negative. Tasks that don't fit are returned with the reason.
func (q *queue) push(tasks []*task, member int) (rest []*task, reason *Error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed != nil:
		return tasks, q.closed
	case member < 0 && q.lanes == 0:
		return tasks, errorf(KindUnavailable, fateDown, "no member is up")
	case member >= 0 && !q.members[member].up:
		return tasks, errorf(KindUnavailable, fateDown, "the member is down")
	}
	// Second tries may have filled it beyond its bound.
	if room := max(0, q.max-q.waiting); len(tasks) > room {
		tasks, rest = tasks[:room], tasks[room:]
		reason = &Error{Kind: KindFull, fate: fateData}
	}
	q.add(tasks, member)
	return rest, reason
}

func (q *queue) add(tasks []*task, member int) {
	normal := 0
	for _, t := range tasks {
		q.waiting++
		t.queued = true
		switch {
		case member < 0:
			q.shared.push(t)
			normal++
		case t.slow():
			m := &q.members[member]
			m.slow.push(t)
			if m.late != nil {
				m.late.signal()
				m.late = nil
			}
		default:
			q.members[member].own.push(t)
			normal++
		}
	}
	if member >= 0 {
		q.members[member].rouse(normal)
		return
	}
	q.rouse(normal)
}

// rouse wakes lanes for n tasks that any member can do. In turn, so that one caller after the other warms every member.
func (q *queue) rouse(n int) {
	each := (n + len(q.members) - 1) / len(q.members)
	for i := 0; i < len(q.members) && n > 0; i++ {
		q.next = (q.next + 1) % len(q.members)
		if m := &q.members[q.next]; m.up {
			n -= m.rouse(min(n, each))
		}
	}
	for i := range q.members {
		if m := &q.members[i]; m.up {
			n -= m.rouse(n)
		}
	}
}

// rouse wakes up to n idle lanes and returns how many.
func (m *memberQueue) rouse(n int) int {
	woken := 0
	for ; woken < n && len(m.idle) > 0; woken++ {
		last := len(m.idle) - 1
		m.idle[last].signal()
		m.idle = m.idle[:last]
	}
	return woken
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// again queues a task for a second try on a member. The bound does not count: the task had its place.
func (q *queue) again(t *task, member int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed != nil || !q.members[member].up {
		return false
	}
	q.add([]*task{t}, member)
	return true
}

// take gives a lane its next batch and waits for one; nil means that the queue is closed. What is queued now is shared
// out among the lanes; nothing lingers for more.
func (q *queue) take(l *lane, buf []*task) []*task {
	for {
		q.mu.Lock()
		if q.closed != nil {
			q.mu.Unlock()
			return nil
		}
		m := &q.members[l.member]
		batch := buf[:0]
		if m.up {
			switch {
			case l.slow:
				batch = q.pop(&m.slow, batch, 1)
			case m.own.n > 0:
				batch = q.pop(&m.own, batch, share(m.own.n, m.lanes))
			}
			if !l.slow && len(batch) == 0 {
				batch = q.pop(&q.shared, batch, share(q.shared.n, q.lanes))
			}
		}
		if len(batch) > 0 {
			q.mu.Unlock()
			return batch
		}
		if l.slow {
			m.late = l
		} else {
			m.idle = append(m.idle, l)
		}
		q.mu.Unlock()
		<-l.wake
	}
}

// pop moves up to n tasks from f to batch, dead ones left out.
func (q *queue) pop(f *fifo, batch []*task, n int) []*task {
	for n > 0 && f.n > 0 {
		t := f.pop()
		if !t.queued {
			q.dead--
			continue
		}
		t.queued = false
		q.waiting--
		n--
		batch = append(batch, t)
	}
	return batch
}

// abandon makes room for others when a caller no longer waits for a task. Tasks like that are thrown out when there are
// many of them, so that callers who give up again and again don't fill the memory of a queue that stands still.
func (q *queue) abandon(tasks []*task) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, t := range tasks {
		if t.queued {
			t.queued = false
			q.waiting--
			q.dead++
		}
	}
	if q.dead <= q.max {
		return
	}
	q.shared.sweep()
	for i := range q.members {
		q.members[i].own.sweep()
		q.members[i].slow.sweep()
	}
	q.dead = 0
}

// share is what one of so many lanes takes.
func share(queued, lanes int) int {
	if lanes < 1 {
		lanes = 1
	}
	return min((queued+lanes-1)/lanes, maxBatch)
}

// setUp marks a member as up and wakes its lanes, or as down and returns the tasks that only it could have done, and those
// of all if nobody is left.
func (q *queue) setUp(member int, up bool, lanes int) (stranded []*task) {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := &q.members[member]
	if m.up == up {
		return nil
	}
	m.up = up
	if up {
		m.lanes = lanes
		q.lanes += lanes
		m.rouse(len(m.idle))
		return nil
	}
	q.lanes -= m.lanes
	stranded = q.pop(&m.own, stranded, m.own.n)
	stranded = q.pop(&m.slow, stranded, m.slow.n)
	if q.lanes == 0 {
		return q.pop(&q.shared, stranded, q.shared.n)
	}
	// A lane that was called for a task and does not look any more has used that call up.
	q.rouse(q.shared.n)
	return stranded
}

// close ends the lanes and returns all tasks that wait.
func (q *queue) close(reason *Error) (stranded []*task) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = reason
	stranded = q.pop(&q.shared, stranded, q.shared.n)
	for i := range q.members {
		m := &q.members[i]
		stranded = q.pop(&m.own, stranded, m.own.n)
		stranded = q.pop(&m.slow, stranded, m.slow.n)
		m.rouse(len(m.idle))
		if m.late != nil {
			m.late.signal()
			m.late = nil
		}
	}
	return stranded
}

// depth is how many tasks a member could take, for status.
func (q *queue) depth(member int) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := &q.members[member]
	return q.shared.n + m.own.n + m.slow.n
}

// fifo is a ring of tasks.
type fifo struct {
	ring []*task
	head int
	n    int
}

func (f *fifo) push(t *task) {
	if f.n == len(f.ring) {
		bigger := make([]*task, max(16, 2*f.n))
		for i := range f.n {
			bigger[i] = f.ring[(f.head+i)%len(f.ring)]
		}
		f.ring, f.head = bigger, 0
	}
	f.ring[(f.head+f.n)%len(f.ring)] = t
	f.n++
}

func (f *fifo) pop() *task {
	if f.n == 0 {
		return nil
	}
	t := f.ring[f.head]
	f.ring[f.head] = nil
	f.head = (f.head + 1) % len(f.ring)
	f.n--
	return t
}

// sweep throws the dead tasks out.
func (f *fifo) sweep() {
	for range f.n {
		if t := f.pop(); t.queued {
			f.push(t)
		}
	}
}
