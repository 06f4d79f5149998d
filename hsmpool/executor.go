package hsmpool

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// executor runs a worker's tasks: it has as many lanes (goroutines) as sessions may be at work, and one for long tasks. It is the
// same in a worker process and, without isolation, in the daemon.
type executor struct {
	run    func(*task) *Error      // does one task; blocks
	emit   func([]*task)           // gets tasks that are done, from any lane
	stuck  func(Op, time.Duration) // is told once when a call does not return in time
	limits *callLimits

	lanes sync.WaitGroup
	stop  chan struct{} // closed by close; ends watch

	mu     sync.Mutex
	ready  []*task // wait, the first first
	slow   []*task
	idle   []*execLane // last in first out
	late   *execLane   // the idle lane for long tasks
	width  int         // lanes that may be at work
	all    []*execLane // the last is the one for long tasks
	closed bool
	grace  atomic.Int64 // no call counts as stuck before that, in nanoseconds since zeroTime
}

type execLane struct {
	slow bool
	wake chan struct{} // holds one

	// What watch reads while the lane works.
	op    atomic.Uint32
	began atomic.Int64 // nanoseconds since zeroTime; 0: idle
	limit atomic.Int64
}

// zeroTime is a moment that times in atomic integers count from, by the monotonic clock.
var zeroTime = time.Now()

func sinceEpoch() int64 { return int64(time.Since(zeroTime)) }

const (
	// maxBatch bounds what a lane takes at once.
	maxBatch = 32

	// emitWithin is how long an answer may wait for the next of its batch.
	emitWithin = 500 * time.Microsecond

	watchInterval = 50 * time.Millisecond
)

// newExecutor starts the lanes, of which width may be at work until widen. close ends them.
func newExecutor(lanes, width int, limits *callLimits, run func(*task) *Error, emit func([]*task), stuck func(Op, time.Duration)) *executor {
	e := &executor{run: run, emit: emit, stuck: stuck, limits: limits, stop: make(chan struct{}), width: width}
	for i := range lanes + 1 {
		l := &execLane{slow: i == lanes, wake: make(chan struct{}, 1)}
		e.all = append(e.all, l)
		e.lanes.Go(func() { e.work(l) })
	}
	e.lanes.Go(e.watch)
	return e
}

// submit gives the executor tasks. They are its own until they are emitted.
func (e *executor) submit(tasks []*task) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, t := range tasks {
		t.ahead = len(e.ready)
		if t.slow() {
			e.slow = append(e.slow, t)
			continue
		}
		e.ready = append(e.ready, t)
		n++
	}
	if len(e.slow) > 0 && e.late != nil {
		e.late.signal()
		e.late = nil
	}
	e.rouse(n)
}

// rouse wakes lanes for n tasks. Caller holds mu.
func (e *executor) rouse(n int) {
	working := len(e.all) - 1 - len(e.idle)
	for n = min(n, e.width-working); n > 0 && len(e.idle) > 0; n-- {
		last := len(e.idle) - 1
		e.idle[last].signal()
		e.idle = e.idle[:last]
	}
}

// widen lets all lanes work: the token turned out not to be busy with what the first do.
func (e *executor) widen() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.width = len(e.all) - 1
	e.rouse(len(e.ready))
}

// lanesAtWork is how many may be.
func (e *executor) lanesAtWork() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.width
}

func (l *execLane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// cancel takes out a task that no lane has yet, and answers it.
func (e *executor) cancel(id uint64) {
	e.mu.Lock()
	var found *task
	for _, q := range []*[]*task{&e.ready, &e.slow} {
		for i, t := range *q {
			if t.id == id {
				found = t
				*q = append((*q)[:i], (*q)[i+1:]...)
				break
			}
		}
	}
	e.mu.Unlock()
	if found != nil {
		found.err = &Error{Kind: KindCanceled, fate: fateData}
		e.emit([]*task{found})
	}
}

// working says whether there is a task that is not done.
func (e *executor) working() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.ready)+len(e.slow) > 0 {
		return true
	}
	for _, l := range e.all {
		if l.began.Load() != 0 {
			return true
		}
	}
	return false
}

// close drops what waits and ends the lanes, as soon as their calls return; join waits for that.
func (e *executor) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	e.closed = true
	e.ready, e.slow = nil, nil
	close(e.stop)
	for _, l := range e.all {
		l.signal()
	}
}

// join waits for the lanes of a closed executor, for so long.
func (e *executor) join(wait time.Duration) bool {
	ended := make(chan struct{})
	go func() { e.lanes.Wait(); close(ended) }()
	select {
	case <-ended:
		return true
	case <-time.After(wait):
		return false
	}
}

func (e *executor) work(l *execLane) {
	var buf [maxBatch]*task
	for {
		batch := e.take(l, buf[:0])
		if batch == nil {
			return
		}
		start := time.Now()
		told, answered := start, 0
		for i, t := range batch {
			l.op.Store(uint32(t.op))
			l.limit.Store(int64(e.limits.of(t)))
			l.began.Store(int64(start.Sub(zeroTime)))
			t.err = e.run(t)
			l.began.Store(0)
			end := time.Now()
			t.took = end.Sub(start)
			e.limits.learn(t)
			start = end
			if i+1 < len(batch) && end.Sub(told) < emitWithin {
				continue
			}
			e.emit(batch[answered : i+1])
			told, answered = end, i+1
		}
		clear(batch) // an idle lane keeps nobody's data alive
	}
}

// take gives a lane its next batch and waits for one; nil means that the executor is closed. What is ready now is shared out
// among the lanes; nothing lingers for more.
func (e *executor) take(l *execLane, buf []*task) []*task {
	for {
		e.mu.Lock()
		if e.closed {
			e.mu.Unlock()
			return nil
		}
		from, n := &e.ready, min((len(e.ready)+e.width-1)/e.width, maxBatch)
		if l.slow {
			from, n = &e.slow, min(len(e.slow), 1)
		}
		if n > 0 {
			batch := append(buf, (*from)[:n]...)
			rest := copy(*from, (*from)[n:])
			clear((*from)[rest:])
			*from = (*from)[:rest]
			e.mu.Unlock()
			return batch
		}
		if l.slow {
			e.late = l
		} else {
			e.idle = append(e.idle, l)
		}
		e.mu.Unlock()
		<-l.wake
	}
}

// allow keeps calls from counting as stuck for so long: a new login keeps all lanes waiting.
func (e *executor) allow(d time.Duration) { e.grace.Store(sinceEpoch() + int64(d)) }

// watch looks for a call that does not return. Nobody can end such a call but by ending its process.
func (e *executor) watch() {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-e.stop:
			return
		case <-tick.C:
		}
		now := time.Now()
		// If this process itself was stopped, its calls were too.
		if gap := now.Sub(last); gap > 4*watchInterval {
			e.allow(gap)
		}
		last = now
		at := int64(now.Sub(zeroTime))
		if at < e.grace.Load() {
			continue
		}
		for _, l := range e.all {
			began := l.began.Load()
			if began != 0 && at-began > l.limit.Load() {
				e.stuck(Op(l.op.Load()), time.Duration(at-began))
				return
			}
		}
	}
}

// callLimits says how long a task may take before its call counts as stuck: what the operator says, or a value for its kind, and
// never less than several times what such tasks have taken.
type callLimits struct {
	fixed time.Duration
	usual [taskClasses]atomic.Int64 // moving average
}

// stuckFactor is how many times as long as usual a task may take.
const stuckFactor = 8

func (c *callLimits) of(t *task) time.Duration {
	usual := time.Duration(c.usual[t.class()].Load())
	limit := c.fixed
	if limit <= 0 || t.slow() {
		limit = startLimit(t)
		if usual == 0 && !t.slow() {
			limit *= 2
		}
	}
	return max(limit, stuckFactor*usual)
}

func (c *callLimits) learn(t *task) {
	if t.loaded {
		return
	}
	u := &c.usual[t.class()]
	if old := u.Load(); old != 0 {
		u.Store(old + (int64(t.took)-old)/4)
		return
	}
	u.Store(int64(t.took))
}

// startLimit is for a kind of task of which little is known. Loading the key is part of a task. A YubiHSM takes most of a second for
// an RSA-4096 signature, and smart cards more.
func startLimit(t *task) time.Duration {
	class := keyClass(0)
	if t.key != nil {
		class = keyTypes[t.key.Type].class
	}
	switch {
	case t.slow() && class == classRSA:
		return 2 * time.Minute
	case t.slow():
		return 10 * time.Second
	case class == classRSA || t.op == opCheck:
		return 2 * time.Second
	}
	return time.Second
}

func stuckError(op Op, d time.Duration) *Error {
	return &Error{Kind: KindUnavailable, fate: fateModule, ending: endStuck,
		Detail: fmt.Sprintf("a call into the library (%s) has not returned for %v", op, d.Round(100*time.Millisecond))}
}
