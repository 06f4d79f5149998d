package hsmpool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

func forgetJob(id, in string) *Job {
	return &Job{Op: EncryptGCM, Key: &Key{ID: id, Type: AES256, Usage: UseEncrypt, Wrapped: make([]byte, 40)}, In: []byte(in), Nonce: make([]byte, gcmNonce)}
}

// TestForgetWaitsForJobs has a job with the key in a worker's hands when the key is forgotten: it may load the key afterwards, so
// the worker is asked again until the job has ended. Jobs that come later are not waited for.
func TestForgetWaitsForJobs(t *testing.T) { bubble(t, testForgetWaitsForJobs) }

func testForgetWaitsForJobs(t *testing.T) {
	var asked atomic.Int32
	runs := make(chan string, 2)
	hold := map[string]chan struct{}{"first": make(chan struct{}), "later": make(chan struct{})}
	p := fakePool(t, 0, &fakeWorker{lanes: 4, do: func(x *task) *Error {
		switch x.op {
		case opForget:
			asked.Add(1)
		case EncryptGCM:
			runs <- string(x.in)
			<-hold[string(x.in)]
		}
		return echo(x)
	}})
	done := make(chan error, 2)
	begin := func(in string) {
		t.Helper()
		go func() { done <- p.Do(context.Background(), forgetJob("k", in)) }()
		if got := <-runs; got != in {
			t.Fatalf("%s runs", got)
		}
	}
	begin("first")
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	var e *Error
	if err := p.Forget(short, "k"); !errors.As(err, &e) || e.Member != "a" || e.Kind != KindUnavailable || asked.Load() == 0 {
		t.Errorf("with a job that does not end: %v, told %d times", err, asked.Load())
	}
	begin("later") // the worker is told of the key again
	forgotten := make(chan error, 1)
	before := asked.Load()
	go func() { forgotten <- p.Forget(context.Background(), "k") }()
	eventually(t, "it is told twice", func() bool { return asked.Load() > before+1 })
	close(hold["first"])
	close(hold["later"])
	if err := <-forgotten; err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}

	hold["first"], hold["later"] = make(chan struct{}), make(chan struct{})
	begin("first")
	before = asked.Load()
	go func() { forgotten <- p.Forget(context.Background(), "k") }()
	eventually(t, "it is told", func() bool { return asked.Load() > before })
	begin("later")
	close(hold["first"])
	select {
	case err := <-forgotten:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for a job that came later")
	}
	close(hold["later"])
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	// The later job may have loaded the key after it was forgotten: who forgets it next asks the worker, and then it has nothing.
	for _, want := range []int32{1, 0} {
		before = asked.Load()
		if err := p.Forget(context.Background(), "k"); err != nil || asked.Load() != before+want {
			t.Errorf("the worker was asked %d times instead of %d, %v", asked.Load()-before, want, err)
		}
	}
}

// TestForgetNamesMembers has one member fail to destroy a key, one not answer, one go down and one that has nothing.
func TestForgetNamesMembers(t *testing.T) { bubble(t, testForgetNamesMembers) }

func testForgetNamesMembers(t *testing.T) {
	silent := make(chan struct{})
	var nothing atomic.Bool
	with := func(forget func() *Error) *fakeWorker {
		return &fakeWorker{lanes: 1, do: func(x *task) *Error {
			if x.op == opForget {
				return forget()
			}
			return echo(x)
		}}
	}
	p := fakePool(t, 0,
		with(func() *Error { return errorf(KindUnavailable, fateItem, "it can't") }),
		with(func() *Error { <-silent; return nil }),
		with(func() *Error { return errorf(KindUnavailable, fateDown, "gone") }),
		with(func() *Error { nothing.Store(true); return nil }),
	)
	defer close(silent)
	know(p, &Key{ID: "k", Wrapped: make([]byte, 40)}, "a", "b", "c")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := p.Forget(ctx, "k")
	var named []string
	for _, err := range err.(interface{ Unwrap() []error }).Unwrap() {
		named = append(named, err.(*Error).Member)
	}
	slices.Sort(named)
	if !slices.Equal(named, []string{"a", "b"}) {
		t.Errorf("%q are named: %v", named, err)
	}
	if nothing.Load() {
		t.Error("a member was asked that has nothing")
	}
}

// know has members' workers know a key.
func know(p *Pool, k *Key, members ...string) {
	p.act(func(*action) {
		for _, m := range p.members {
			if slices.Contains(members, m.cfg.Name) {
				m.workers[0].slotOf(&ticket{task: task{op: EncryptGCM, key: k}})
			}
		}
	})
}

// TestForgottenIsNotLoadedAgain has a worker go down: it does not load by itself what was forgotten, before or after that.
func TestForgottenIsNotLoadedAgain(t *testing.T) {
	w := &fakeWorker{lanes: 1, do: echo}
	p := fakePool(t, 0, w)
	for _, id := range []string{"before", "after", "kept"} {
		know(p, &Key{ID: id, Wrapped: make([]byte, 40)}, "a")
	}
	if err := p.Forget(shortly(t), "before"); err != nil {
		t.Fatal(err)
	}
	var m *member
	p.act(func(a *action) {
		m = p.members[0]
		m.draining = true // it loads nothing while the test looks
		p.takeDown(a, m.workers[0], errorf(KindUnavailable, fateDown, "gone"))
	})
	if err := p.Forget(shortly(t), "after"); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var ids []string
	for _, k := range m.workers[0].toLoad {
		ids = append(ids, k.ID)
	}
	if !slices.Equal(ids, []string{"kept"}) {
		t.Errorf("it is to load %q", ids)
	}
}

// TestForgottenSlots gives the numbers of forgotten keys to others: no two keys have the same, and none is lost.
func TestForgottenSlots(t *testing.T) {
	var asked atomic.Int32
	p := fakePool(t, 0, &fakeWorker{lanes: 1, do: func(x *task) *Error {
		if x.op == opForget {
			asked.Add(1)
		}
		return echo(x)
	}})
	key := func(i int) *Key { return &Key{ID: fmt.Sprint(i), Wrapped: make([]byte, 40)} }
	for i := range wireSlots {
		know(p, key(i), "a")
	}
	if err := p.Forget(shortly(t), "1", "7", "4000"); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		know(p, key(wireSlots+i), "a")
	}
	p.mu.Lock()
	seen := map[uint32]bool{}
	known := p.members[0].workers[0].known.Values()
	for _, k := range known {
		seen[k.slot] = true
	}
	p.mu.Unlock()
	if len(known) != wireSlots || len(seen) != wireSlots {
		t.Errorf("%d keys have %d numbers", len(known), len(seen))
	}
	// A worker whose memory was full may have others than those that are known.
	before := asked.Load()
	if err := p.Forget(shortly(t), "never seen"); err != nil || asked.Load() != before+1 {
		t.Errorf("told %d times, %v", asked.Load()-before, err)
	}
}
