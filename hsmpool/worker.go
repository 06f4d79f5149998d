package hsmpool

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// worker is one worker of a member as the pool sees it, over all its lives. All but m, name and opener is guarded by Pool.mu.
type worker struct {
	m      *member
	opener opener
	life   context.Context // ends when the member is to be closed
	retire context.CancelFunc
	ended  chan struct{} // closed when its supervisor has ended
	tried  chan struct{} // closed after the first try to open it
	err    error         // of that try; may be read when tried is closed

	state  workerState
	reason string // of not being up
	since  time.Time
	kick   chan bool     // tells the supervisor that the life is over, and whether the library is believed to be well; holds one
	again  chan struct{} // tells it to try again now; holds one

	// Of one life.
	epoch    *epoch
	link     link
	window   window
	inFlight map[uint64]*ticket
	long     int // of these, slow ones
	given    time.Time
	known    *simplelru.LRU[string, *knownKey] // keys that are loaded, or are about to be
	freeSlot uint32
	evicted  uint32   // slot of the key that had to make room
	spare    []uint32 // slots below freeSlot that hold no key any more
	// late are keys that are not in known and may be loaded all the same: Forget took them out while jobs had them that came after its call. See mayHave.
	late   map[string]bool
	toLoad []*Key // that were used most in the life before

	failures []time.Time // since the last success
	wellFor  int         // successes while half-open
	admitted time.Time   // beginning of the life

	lives    uint64
	restarts uint64
	backoff  time.Duration // how long to wait before the next life
}

// workerState is what a worker is good for.
type workerState uint8

const (
	workerDown     workerState = iota
	workerReviving             // it is new, or was well and is being started again: jobs wait for it for a moment
	workerTrying               // half-open: one job at a time
	workerUp
)

func (s workerState) public() State {
	switch s {
	case workerUp:
		return StateUp
	case workerTrying:
		return StateHalfOpen
	}
	return StateDown
}

// knownKey is a key that a worker was told of.
type knownKey struct {
	key  *Key
	slot uint32
	uses uint64
}

// epoch is one life of a worker. It carries what its link tells to the pool, which knows by it what comes late.
type epoch struct {
	p *Pool
	w *worker

	lost *Error // why it is of no use, if that came while it was not admitted; guarded by Pool.mu
}

func (ev *epoch) answers(tasks []*task, width int) { ev.p.answers(ev, tasks, width) }

func (ev *epoch) counted(codes *codeCount) {
	for code, n := range codes.take() {
		ev.w.m.codes.addN(code, n)
	}
}

func (ev *epoch) failed(e *Error) {
	ev.p.act(func(a *action) {
		if ev.w.epoch == ev {
			ev.p.takeDown(a, ev.w, ev.w.m.named(e))
		} else {
			ev.lost = e // it comes once: admit must know
		}
	})
}

func (p *Pool) newWorker(m *member, i int) *worker {
	w := &worker{m: m, state: workerReviving, since: time.Now(), reason: "it has not answered yet", kick: make(chan bool, 1), again: make(chan struct{}, 1),
		ended: make(chan struct{}), tried: make(chan struct{})}
	w.life, w.retire = context.WithCancel(context.Background())
	w.opener = p.newOpener(m)
	w.begin(nil, nil, 1)
	return w
}

// begin begins a life, or ends one if ev is nil.
func (w *worker) begin(ev *epoch, l link, lanes int) {
	w.epoch, w.link, w.window = ev, l, newWindow(lanes)
	w.inFlight, w.long, w.failures, w.wellFor = map[uint64]*ticket{}, 0, nil, 0
	if w.known != nil && w.known.Len() > 0 && ev == nil {
		w.toLoad = w.busiest()
	}
	w.freeSlot, w.spare, w.late = 0, nil, map[string]bool{}
	// Only a size that can't be is an error.
	w.known, _ = simplelru.NewLRU(wireSlots, func(_ string, k *knownKey) { w.evicted = k.slot })
}

// mostToLoad is how many keys are loaded again before anybody asks for them.
const mostToLoad = 1024

// busiest lists the keys that were used most, the most used first.
func (w *worker) busiest() []*Key {
	all := w.known.Values()
	slices.SortFunc(all, func(a, b *knownKey) int { return int(min(b.uses, 1<<30)) - int(min(a.uses, 1<<30)) })
	keys := make([]*Key, 0, min(len(all), mostToLoad))
	for _, k := range all[:min(len(all), mostToLoad)] {
		keys = append(keys, k.key)
	}
	return keys
}

// usable says whether it can be given jobs.
func (w *worker) usable() bool { return w.state == workerUp || w.state == workerTrying }

// full says whether it has as many jobs as it may.
func (w *worker) full() bool {
	n := len(w.inFlight) - w.long
	if w.state == workerTrying {
		return n >= 1
	}
	return n >= w.window.size
}

// slotOf gives the number under which the worker knows a ticket's key, and whether it is to be told the key now.
func (w *worker) slotOf(t *ticket) (slot uint32, tell bool) {
	if t.key == nil {
		return noSlot, false
	}
	if t.slow() {
		return noSlot, true // keys of a moment
	}
	id := cacheID(t.key)
	k, ok := w.known.Get(id)
	if ok && (k.key == t.key || sameKey(k.key, t.key)) {
		k.uses++
		return k.slot, false
	}
	if ok { // the same name for something else: the worker's cache does not take that
		k.key = t.key
		return k.slot, true
	}
	k = &knownKey{key: t.key, uses: 1}
	if last := len(w.spare) - 1; last >= 0 {
		k.slot = w.spare[last]
		w.spare = w.spare[:last]
		w.known.Add(id, k)
		return k.slot, true
	}
	if w.freeSlot < wireSlots {
		k.slot = w.freeSlot
		w.freeSlot++
		w.known.Add(id, k)
		return k.slot, true
	}
	w.known.Add(id, k) // sets evicted
	k.slot = w.evicted
	return k.slot, true
}

func sameKey(a, b *Key) bool {
	return a.ID == b.ID && a.Type == b.Type && a.Usage == b.Usage && a.Member == b.Member && bytes.Equal(a.Wrapped, b.Wrapped) &&
		bytes.Equal(a.ObjectID, b.ObjectID)
}

// forget says that the worker may no longer have a key loaded. It still knows it under its slot.
func (w *worker) forget(k *Key) {
	if k == nil {
		return
	}
	if known, ok := w.known.Peek(cacheID(k)); ok {
		known.uses /= 2
	}
}

// took ends a worker's hold on a ticket.
func (w *worker) took(t *ticket) {
	delete(w.inFlight, t.id)
	if t.slow() {
		w.long--
	}
}

// So many failures that might be a session's or the whole token's, with no success between them, within so long, are the token's.
const (
	failuresMost   = 3
	failuresWithin = 10 * time.Second
)

// unwell counts a failure, and says whether it was one too many.
func (w *worker) unwell(now time.Time) bool {
	w.failures = append(w.failures, now)
	if n := len(w.failures); n > failuresMost {
		w.failures = w.failures[n-failuresMost:]
	}
	return w.state == workerTrying || len(w.failures) == failuresMost && now.Sub(w.failures[0]) < failuresWithin
}

// wellAfter is how many jobs a half-open worker must do.
const wellAfter = 3

// well counts a success.
func (w *worker) well() {
	w.failures = w.failures[:0]
	if w.state != workerTrying {
		return
	}
	if w.wellFor++; w.wellFor >= wellAfter {
		w.state, w.since, w.reason = workerUp, time.Now(), ""
	}
}

// String names the worker in messages.
func (w *worker) String() string {
	if len(w.m.workers) == 1 {
		return w.m.cfg.Name
	}
	return fmt.Sprintf("%s/%d", w.m.cfg.Name, slices.Index(w.m.workers, w)+1)
}
