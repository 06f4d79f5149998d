package hsmpool

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// TestEndsWhileItIsAdmitted has a worker end between its login and its first job, when nobody looks.
func TestEndsWhileItIsAdmitted(t *testing.T) {
	good := &fakeWorker{t: t, lanes: 1, do: echo}
	var opened atomic.Int32
	dying := &fakeWorker{t: t, lanes: 1, do: echo}
	p := fakeGroup(t, map[string]opener{
		"good": good,
		"dies": openFunc(func(ctx context.Context, ev events) (link, *identity, error) {
			l, id, err := dying.open(ctx, ev)
			if opened.Add(1) == 1 && err == nil {
				l.(*fakeLink).exec.close() // answers nothing any more
				ev.failed(errorf(KindUnavailable, fateModule, "gone"))
			}
			return l, id, err
		}),
	}, MemberConfig{Name: "a", Module: "good"}, MemberConfig{Name: "b", Module: "dies"})
	eventually(t, "it is opened again", func() bool { return opened.Load() > 1 && stateOf(p, "b") == StateUp })
	if err := p.Do(shortly(t), pinnedJob("b")); err != nil {
		t.Error(err)
	}
}

// slowClose is a link that takes long to close.
type slowClose struct {
	link
	closing *atomic.Bool
	wait    <-chan struct{}
}

func (l slowClose) close(gently bool) error {
	l.closing.Store(true)
	<-l.wait
	return l.link.close(gently)
}

// TestCloseHangs has jobs wait for a worker that went down and can't be closed: for a moment and no longer.
func TestCloseHangs(t *testing.T) { bubble(t, testCloseHangs) }

func testCloseHangs(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	var closing, fail atomic.Bool
	bad := &fakeWorker{t: t, lanes: 1, do: func(x *task) *Error {
		if fail.Load() {
			return errorf(KindUnavailable, fateDown, "gone")
		}
		return echo(x)
	}}
	p := fakeGroup(t, map[string]opener{
		"good": &fakeWorker{t: t, lanes: 1, do: echo},
		"bad": openFunc(func(ctx context.Context, ev events) (link, *identity, error) {
			l, id, err := bad.open(ctx, ev)
			return slowClose{l, &closing, hold}, id, err
		}),
	}, MemberConfig{Name: "a", Module: "good"}, MemberConfig{Name: "b", Module: "bad"})
	time.Sleep(2 * p.probe) // it has been well for a while
	fail.Store(true)
	eventually(t, "it is being closed", closing.Load)
	ctx, cancel := context.WithTimeout(t.Context(), revival+2*time.Second)
	defer cancel()
	if err := p.Do(ctx, pinnedJob("b")); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a job of a member that can't be closed: %v", err)
	}
}

// TestAnswerToNothing has a worker answer what it was not asked, which hides that it owes an answer.
func TestAnswerToNothing(t *testing.T) {
	var ev atomic.Pointer[events]
	bad := &fakeWorker{t: t, lanes: 1, do: echo}
	p := fakeGroup(t, map[string]opener{
		"good": &fakeWorker{t: t, lanes: 1, do: echo},
		"bad": openFunc(func(ctx context.Context, e events) (link, *identity, error) {
			ev.Store(&e)
			return bad.open(ctx, e)
		}),
	}, MemberConfig{Name: "a", Module: "good"}, MemberConfig{Name: "b", Module: "bad"})
	(*ev.Load()).answers([]*task{{id: 1 << 40, out: make([]byte, 8)}}, 1)
	eventually(t, "it was started again", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.members[1].restarts > 0
	})
}

// TestOpenInTime opens a pool of which one member hangs: the other serves.
func TestOpenInTime(t *testing.T) { bubble(t, testOpenInTime) }

func testOpenInTime(t *testing.T) {
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		c := Config{Group: "fake", Members: []MemberConfig{{Name: "a", Module: "hangs", TokenLabel: "a"}, {Name: "b", Module: "good", TokenLabel: "b"}}}
		p, err := open(ctx, c, func(m *member) opener {
			if m.cfg.Name == "b" {
				return &fakeWorker{t: t, lanes: 1, do: echo}
			}
			return openFunc(func(ctx context.Context, _ events) (link, *identity, error) {
				<-ctx.Done()
				return nil, nil, ctx.Err()
			})
		})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}
