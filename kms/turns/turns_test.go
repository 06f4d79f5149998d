package turns

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

// One with much work keeps another waiting for one piece of it at most.
func TestTurns(t *testing.T) {
	turns := New[string](2)
	var many sync.WaitGroup
	var done atomic.Int32
	var entered atomic.Bool
	first, release := make(chan struct{}), make(chan struct{})
	for range 10 {
		many.Go(func() {
			leave, err := turns.Enter(t.Context(), "alice")
			if err != nil {
				t.Error(err)
				return
			}
			if !entered.Swap(true) {
				close(first)
				<-release
			}
			done.Add(1)
			leave()
		})
	}
	<-first
	for range 3 {
		leave, err := turns.Enter(t.Context(), "bob")
		if err != nil {
			t.Fatal(err)
		}
		if done.Load() != 0 {
			t.Errorf("%d pieces of alice's work came first", done.Load())
		}
		leave()
	}
	close(release)
	many.Wait()
	if len(turns.own) != 0 || len(turns.places) != 2 {
		t.Errorf("%d wait, %d places are free", len(turns.own), len(turns.places))
	}
}

// Who waits can go away, for his own turn as for a place.
func TestLeave(t *testing.T) {
	turns := New[int](1)
	leave, err := turns.Enter(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, who := range []int{1, 2} {
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		go func() {
			_, err := turns.Enter(ctx, who)
			left <- err
		}()
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("%d: %v", who, err)
		}
	}
	leave()
	for _, who := range []int{2, 1} {
		leave, err := turns.Enter(t.Context(), who)
		if err != nil {
			t.Fatal(err)
		}
		leave()
	}
	if len(turns.own) != 0 || len(turns.places) != 1 {
		t.Errorf("%d wait, %d places are free", len(turns.own), len(turns.places))
	}
}
