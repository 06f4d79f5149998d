package keystore

import (
	"context"
	"strings"
	"sync"
)

// watchBuffer is how many events a slow reader may be behind before it gets Lost.
const watchBuffer = 1024

// Watchers hands events to the readers of Store.Watch. It serves backends that see every commit themselves. The zero
// value is ready.
type Watchers struct {
	mu     sync.Mutex // over everything below, and over sending: only its holder sends or closes
	all    map[*watcher]struct{}
	closed bool
}

// watcher is one reader. Its channel has one place more than watchBuffer, which is kept for Lost. Lost is always the
// last event in the channel, so as long as the channel is not empty the reader has yet to see it.
type watcher struct {
	prefix string
	events chan Event
	lost   bool
	stop   func() bool // of the context.AfterFunc that ends the watch
}

// Watch is Store.Watch. It gives ErrClosed after Close.
func (w *Watchers) Watch(ctx context.Context, prefix string) (<-chan Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, ErrClosed
	}
	one := &watcher{prefix: prefix, events: make(chan Event, watchBuffer+1)}
	one.stop = context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.end(one)
	})
	if w.all == nil {
		w.all = make(map[*watcher]struct{})
	}
	w.all[one] = struct{}{}
	return one.events, nil
}

// end closes a watch once. Caller holds mu.
func (w *Watchers) end(one *watcher) {
	if _, ok := w.all[one]; !ok {
		return
	}
	delete(w.all, one)
	one.stop()
	close(one.events)
}

// Committed tells the readers about tx. Call it after the commit is visible, and in the order of commits.
func (w *Watchers) Committed(tx Txn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for one := range w.all {
		for _, p := range tx.Puts {
			one.send(p.Name)
		}
		for _, d := range tx.Deletes {
			one.send(d)
		}
	}
}

// send never blocks. Caller holds Watchers.mu.
func (one *watcher) send(name string) {
	if !strings.HasPrefix(name, one.prefix) {
		return
	}
	if one.lost {
		if len(one.events) > 0 {
			return // Lost is still to be read, and stands for this event too
		}
		one.lost = false
	}
	if len(one.events) < watchBuffer {
		one.events <- Event{Name: name}
		return
	}
	one.lost = true
	one.events <- Event{Lost: true}
}

// Close ends all watches.
func (w *Watchers) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for one := range w.all {
		w.end(one)
	}
}
