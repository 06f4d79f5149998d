// Package turns shares out a few places for work that takes much of the machine among those who want it done. It is pure, and imports the
// standard library only.
package turns

import (
	"context"
	"sync"
)

// Turns has a number of places. Whoever wants one waits for his own earlier work first and for that of others after it, so he has one place at a time, and
// keeps nobody else waiting for more than one piece of his work, however much he brings.
type Turns[Who comparable] struct {
	places chan struct{} // has an element for each free place

	mu  sync.Mutex
	own map[Who]*own // of those that wait or work; guarded by mu
}

// own is where the work of one waits for its turn.
type own struct {
	turn chan struct{} // holds one element
	n    int           // that wait or work; guarded by Turns.mu
}

// New makes Turns with so many places.
func New[Who comparable](places int) *Turns[Who] {
	t := &Turns[Who]{places: make(chan struct{}, places), own: map[Who]*own{}}
	for range places {
		t.places <- struct{}{}
	}
	return t
}

// Enter waits for a place. The caller calls leave when the work is done. The error is that of ctx, when that ended first.
func (t *Turns[Who]) Enter(ctx context.Context, who Who) (leave func(), err error) {
	o := t.wait(who)
	select {
	case <-o.turn:
	case <-ctx.Done():
		t.gone(who, o)
		return nil, ctx.Err()
	}
	select {
	case <-t.places:
	case <-ctx.Done():
		o.turn <- struct{}{}
		t.gone(who, o)
		return nil, ctx.Err()
	}
	return func() {
		t.places <- struct{}{}
		o.turn <- struct{}{}
		t.gone(who, o)
	}, nil
}

func (t *Turns[Who]) wait(who Who) *own {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.own[who]
	if o == nil {
		o = &own{turn: make(chan struct{}, 1)}
		o.turn <- struct{}{}
		t.own[who] = o
	}
	o.n++
	return o
}

func (t *Turns[Who]) gone(who Who, o *own) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o.n--; o.n == 0 {
		delete(t.own, who)
	}
}
