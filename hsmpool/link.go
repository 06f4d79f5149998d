package hsmpool

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// opener starts one worker of a member, again and again: a process of its own, or without isolation a part of this one.
type opener interface {
	// open starts it, logs in and finds the master keys. ctx ends the waiting, if not always the calls. What was opened before must
	// be closed.
	open(ctx context.Context, ev events) (link, *identity, error)

	// enrol gives the token the group's master keys. Nothing may be open.
	enrol(ctx context.Context, f *enrolFrame) error
}

// link is one life of a worker, from its login to its end.
type link interface {
	// post hands a task over; it goes with the next flush. The task's key is to be known under slot, and is told if tell is set. It
	// is called with Pool.mu held, and waits for nothing.
	post(t *task, slot uint32, tell bool)
	flush()

	// cancel says that nobody wants a task any more. It is answered all the same.
	cancel(id uint64)

	// close ends the life, gently if the library is believed to be well: sessions are closed, the library is finalised. No event
	// comes after it.
	close(gently bool) error

	// load is for status.
	load() (sessions, keys int)
	pid() int
}

// events are what a link tells of its worker. They come from any goroutine, without a lock of the link.
type events interface {
	// answers gives tasks with answers, in structures that are no longer the link's, and how many sessions may be at work.
	answers(tasks []*task, width int)

	// counted gives the return values that were errors since the last time.
	counted(codes *codeCount)

	// failed says that the worker is gone or of no more use. It comes once at most.
	failed(e *Error)
}

// inProcess is an opener without isolation: the library is loaded into this process. A call that hangs can't be ended here, and a
// crash is everybody's.
type inProcess struct {
	cfg   *MemberConfig
	token *tokenWorker
}

func newInProcess(cfg *MemberConfig, pin pinKeeper) *inProcess {
	return &inProcess{cfg: cfg, token: &tokenWorker{cfg: cfg, pin: pin}}
}

func (o *inProcess) open(ctx context.Context, ev events) (link, *identity, error) {
	type opened struct {
		id  *identity
		err error
	}
	done := make(chan opened, 1)
	go func() {
		id, err := o.token.open()
		done <- opened{id, err}
	}()
	select {
	case r := <-done:
		ev.counted(&o.token.codes)
		if r.err != nil {
			return nil, nil, r.err
		}
		return newLocalLink(o.token, r.id, ev), r.id, nil
	case <-ctx.Done():
	}
	// Nobody wants it any more, but its sessions are not to stay.
	ended := make(chan struct{})
	go func() {
		if r := <-done; r.err == nil {
			_ = o.token.close() // nobody has begun a call
		}
		close(ended)
	}()
	select {
	case <-ended:
		return nil, nil, errClosed
	case <-time.After(gateWait):
		return nil, nil, errStuck
	}
}

func (o *inProcess) enrol(_ context.Context, f *enrolFrame) error { return o.token.enrol(f) }

// localLink is the life of a worker in this process.
type localLink struct {
	token *tokenWorker
	exec  *executor
	ev    events
	over  atomic.Bool // nothing is told any more

	mu      sync.Mutex
	pending []*task // guarded by mu
}

func newLocalLink(w *tokenWorker, id *identity, ev events) *localLink {
	l := &localLink{token: w, ev: ev}
	l.exec = executorOf(w, id, l.emit, func(op Op, d time.Duration) {
		if !l.over.Load() {
			ev.failed(stuckError(op, d))
		}
	})
	return l
}

// executorOf starts the lanes for a worker that is logged in.
func executorOf(w *tokenWorker, id *identity, emit func([]*task), stuck func(Op, time.Duration)) *executor {
	var e *executor
	ready := make(chan struct{})
	e = newExecutor(id.Lanes, id.Width, &callLimits{fixed: w.cfg.CallTimeout}, func(t *task) *Error {
		err := w.do(t)
		if w.meter.waits() {
			<-ready
			e.widen()
		}
		return err
	}, emit, stuck)
	close(ready)
	w.allow = e.allow
	return e
}

func (l *localLink) emit(tasks []*task) {
	if l.over.Load() {
		for _, t := range tasks {
			clear(t.out)
		}
		return
	}
	l.ev.counted(&l.token.codes)
	l.ev.answers(tasks, l.exec.lanesAtWork())
}

func (l *localLink) post(t *task, _ uint32, _ bool) {
	// Its own structure: a call that hangs may write into it when the task has long been given to somebody else.
	own := *t
	l.mu.Lock()
	l.pending = append(l.pending, &own)
	l.mu.Unlock()
}

func (l *localLink) flush() {
	l.mu.Lock()
	tasks := l.pending
	l.pending = nil
	l.mu.Unlock()
	if len(tasks) > 0 {
		l.exec.submit(tasks)
	}
}

func (l *localLink) cancel(id uint64) { l.exec.cancel(id) }

func (l *localLink) close(bool) error {
	l.exec.close()
	joined := l.exec.join(gateWait)
	l.over.Store(true)
	if !joined {
		return errStuck
	}
	return l.token.close()
}

func (l *localLink) load() (sessions, keys int) { return l.token.load() }

func (l *localLink) pid() int { return 0 }
