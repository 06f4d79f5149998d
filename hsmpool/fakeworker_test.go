package hsmpool

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fakeWorker does what a test says. It sees to it that the pool keeps to opener's and link's contracts.
type fakeWorker struct {
	t     *testing.T
	lanes int
	fails func() error // of open
	do    func(*task) *Error

	opened atomic.Bool
	inside atomic.Int32
}

func (w *fakeWorker) open(_ context.Context, ev events) (link, *identity, error) {
	if w.fails != nil {
		if err := w.fails(); err != nil {
			return nil, nil, err
		}
	}
	if w.opened.Swap(true) {
		w.t.Error("opened while it was open")
	}
	l := &fakeLink{w: w}
	l.exec = newExecutor(w.lanes, w.lanes, &callLimits{fixed: time.Minute}, w.run, func(tasks []*task) { ev.answers(tasks, w.lanes) },
		func(Op, time.Duration) {})
	return l, &identity{Token: "fake", Serial: "0", Group: "fake", Lanes: w.lanes, Width: w.lanes}, nil
}

func (w *fakeWorker) enrol(context.Context, *enrolFrame) error { return errors.New("not here") }

func (w *fakeWorker) run(t *task) *Error {
	if n := w.inside.Add(1); int(n) > w.lanes+1 {
		w.t.Errorf("%d runs at once in a worker of %d lanes", n, w.lanes)
	}
	defer w.inside.Add(-1)
	if !w.opened.Load() {
		return errClosed
	}
	return w.do(t)
}

// fakeLink is a life of a fakeWorker.
type fakeLink struct {
	w       *fakeWorker
	exec    *executor
	mu      sync.Mutex
	pending []*task
}

func (l *fakeLink) post(t *task, _ uint32, _ bool) {
	own := *t
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = append(l.pending, &own)
}

func (l *fakeLink) flush() {
	l.mu.Lock()
	tasks := l.pending
	l.pending = nil
	l.mu.Unlock()
	l.exec.submit(tasks)
}

func (l *fakeLink) cancel(id uint64) { l.exec.cancel(id) }

func (l *fakeLink) close(bool) error {
	l.exec.close()
	l.exec.lanes.Wait()
	l.w.opened.Store(false)
	return nil
}

func (l *fakeLink) load() (sessions, keys int) { return 0, 0 }
func (l *fakeLink) pid() int                   { return 0 }

// fakePool opens a pool of fake workers, which is closed with the test.
func fakePool(t *testing.T, queue int, workers ...*fakeWorker) *Pool {
	t.Helper()
	c := Config{Queue: queue, Probe: 5 * time.Millisecond}
	byName := map[string]*fakeWorker{}
	for i, w := range workers {
		w.t = t
		name := string('a' + rune(i))
		byName[name] = w
		c.Members = append(c.Members, MemberConfig{Name: name, Module: "fake", TokenLabel: name})
	}
	p, err := open(t.Context(), c, func(m *member) opener { return byName[m.cfg.Name] })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// echo answers with what came in, and a key of zeros.
func echo(x *task) *Error {
	switch x.op {
	case opGenerate:
		x.out = make([]byte, 40)
	case opProve:
		x.out = make([]byte, gcmNonce+gcmTag)
	case opCheck:
	default:
		x.out = append(append([]byte(nil), x.in...), make([]byte, gcmTag)...)
	}
	return nil
}

// TestGenerateNeedsAnother fails the proof of new keys on the other member than their maker's: because it can't use them,
// and because it went down.
func TestGenerateNeedsAnother(t *testing.T) {
	for _, c := range []struct {
		name string
		err  *Error
		want Kind // KindUnavailable: it works
	}{
		{"wrong", errorf(KindInternal, fateItem, "a wrong decryption"), KindInternal},
		{"not loaded", errorf(KindBadData, fateItem, "unwrap"), KindBadData},
		{"down", errorf(KindUnavailable, fateDown, "gone"), KindUnavailable},
	} {
		for _, kt := range []KeyType{AES256, P256} {
			t.Run(c.name+" "+kt.String(), func(t *testing.T) {
				var maker atomic.Int32
				maker.Store(-1)
				bad := func(i int32) func(*task) *Error {
					return func(x *task) *Error {
						if x.op == opGenerate {
							maker.Store(i)
						}
						if x.op == opProve && maker.Load() != i {
							return c.err
						}
						return echo(x)
					}
				}
				p := fakePool(t, 0, &fakeWorker{lanes: 1, do: bad(0)}, &fakeWorker{lanes: 1, do: bad(1)})
				usage := UseEncrypt
				if kt == P256 {
					usage = UseSign
				}
				_, err := p.Generate(t.Context(), kt, usage)
				if c.want == KindUnavailable && err != nil || c.want != KindUnavailable && KindOf(err) != c.want || c.want == KindInternal && err == nil {
					t.Errorf("%v", err)
				}
			})
		}
	}
}

// TestHandOver has members fail in every way, go down and come back, and callers give up, one job or a thousand at a time.
// Every job must end, with its own result or a fitting error, and nothing may stay behind.
func TestHandOver(t *testing.T) {
	t.Run("crowded", func(t *testing.T) { handOver(t, 16, 40) })
	t.Run("quiet", func(t *testing.T) { handOver(t, 4096, 2) }) // nobody else's traffic helps a job that was forgotten
}

func handOver(t *testing.T, queue, callers int) {
	fates := []fate{fateData, fateItem, fateSession, fateLogin, fateModule, fateDown, fateOperator}
	some := func(int) *fakeWorker {
		return &fakeWorker{lanes: 3,
			fails: func() error {
				if rand.IntN(3) == 0 {
					return errors.New("not yet")
				}
				return nil
			},
			do: func(x *task) *Error {
				if rand.IntN(10) == 0 {
					time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
				}
				if rand.IntN(200) == 0 {
					return errorf(KindUnavailable, fates[rand.IntN(len(fates))], "by chance")
				}
				return echo(x)
			}}
	}
	sure := some(0) // so that the pool opens
	sure.fails = nil
	p := fakePool(t, queue, sure, some(1), some(2))
	var ok, bad, gone atomic.Int64
	enough := func() bool { return ok.Load() >= 100 && bad.Load() > 0 && gone.Load() > 0 }
	least, most := time.Now().Add(800*time.Millisecond), time.Now().Add(time.Minute)
	over := func() bool { return time.Now().After(least) && enough() || time.Now().After(most) }
	count := func(j *Job) {
		switch {
		case j.Err == nil:
			if string(j.Out) != string(j.In)+string(make([]byte, gcmTag)) {
				t.Errorf("the answer to %q is %q", j.In, j.Out)
			}
			ok.Add(1)
		case j.Out != nil:
			t.Errorf("an error and a result: %v", j.Err)
		default:
			switch KindOf(j.Err) {
			case KindUnavailable, KindFull:
				bad.Add(1)
			case KindCanceled:
				gone.Add(1)
			default:
				t.Errorf("%v", j.Err)
			}
		}
	}
	wrapped := &Key{ID: "any", Type: AES256, Usage: UseEncrypt, Wrapped: make([]byte, 40)}
	pinned := &Key{ID: "pinned", Type: AES256, Usage: UseEncrypt, Member: "b", ObjectID: []byte{1}}
	newJob := func() *Job {
		k := wrapped
		if rand.IntN(4) == 0 {
			k = pinned
		}
		in := make([]byte, 8)
		random(in)
		return &Job{Op: EncryptGCM, Key: k, In: in, Nonce: make([]byte, gcmNonce)}
	}
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for !over() {
				mine, cancel := context.WithCancel(context.Background())
				if rand.IntN(3) == 0 {
					go func() {
						time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
						cancel()
					}()
				}
				if caller%8 == 0 {
					jobs := make([]*Job, rand.IntN(200))
					for i := range jobs {
						jobs[i] = newJob()
					}
					p.DoAll(mine, jobs)
					for _, j := range jobs {
						count(j)
					}
				} else {
					j := newJob()
					p.Do(mine, j)
					count(j)
				}
				if caller == 1 {
					p.Status()
					_, _ = p.Generate(mine, AES256, UseEncrypt)
				}
				cancel()
			}
		})
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(2 * time.Minute):
		t.Fatal("jobs hang")
	}
	t.Logf("%d done, %d failed, %d given up", ok.Load(), bad.Load(), gone.Load())
	if !enough() {
		t.Error("the test does not test")
	}
	left := func() (waiting, flying int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, m := range p.members {
			flying += m.inFlight()
		}
		return p.waiting(), flying
	}
	// Jobs whose callers gave up may be with a worker for a moment yet, and the supervisors may be looking.
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		waiting, flying := left()
		if waiting == 0 && flying <= 3 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d jobs wait, %d are in flight", waiting, flying)
		}
	}
}
