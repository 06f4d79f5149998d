package hsmpool

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// manyJobs has callers do jobs, so many in all, and counts those that failed.
func manyJobs(t *testing.T, p *Pool, callers, n int, job func(i int) *Job) (failed int64) {
	t.Helper()
	var bad, next atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if err := p.Do(t.Context(), job(int(i))); err != nil && bad.Add(1) == 1 {
					t.Log(err)
				}
			}
		})
	}
	wg.Wait()
	return bad.Load()
}

// TestRefusesForGood has a member refuse each job, or each of one kind, in a way that is only the job's fault by its code.
func TestRefusesForGood(t *testing.T) {
	for _, part := range []int{1, 3} {
		t.Run(fmt.Sprintf("one in %d", part), func(t *testing.T) {
			var refused atomic.Int64
			p := fakePool(t, 0, &fakeWorker{lanes: 2, do: echo}, &fakeWorker{lanes: 2, do: func(x *task) *Error {
				if x.key != nil && x.key.Type == AES128 {
					refused.Add(1)
					return errorf(KindUnsupported, fateItem, "no such mechanism")
				}
				return echo(x)
			}})
			can := wrappedJob().Key
			cannot := &Key{ID: "cannot", Type: AES128, Usage: UseEncrypt, Wrapped: make([]byte, 40)}
			const n = 20000
			failed := manyJobs(t, p, 16, n, func(i int) *Job {
				j := wrappedJob()
				if j.Key = can; i%part == 0 {
					j.Key = cannot
				}
				return j
			})
			t.Logf("%d refused, %+v", refused.Load(), p.Totals())
			if failed > 0 {
				t.Errorf("%d of %d jobs failed", failed, n)
			}
		})
	}
}

// TestPinnedFlood has one principal keep a member busy with its pinned key. Another one's job comes to its turn.
func TestPinnedFlood(t *testing.T) { bubble(t, testPinnedFlood) }

func testPinnedFlood(t *testing.T) {
	p := fakePool(t, 0, &fakeWorker{lanes: 1, do: func(x *task) *Error {
		time.Sleep(100 * time.Microsecond)
		return echo(x)
	}})
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for ctx.Err() == nil {
				j := pinnedJob("a")
				j.Principal = "flood"
				p.Do(ctx, j)
			}
		})
	}
	eventually(t, "there is a flood", func() bool { return p.Totals().Waiting > 20 })
	for range 20 {
		mine, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		j := wrappedJob()
		j.Principal = "other"
		if err := p.Do(mine, j); err != nil {
			t.Error(err)
		}
		cancel()
	}
	stop()
	wg.Wait()
}

// TestGenerateFlood fills the queue with keys to be made: there is room for other jobs.
func TestGenerateFlood(t *testing.T) {
	hold := make(chan struct{})
	p := fakePool(t, 64, &fakeWorker{lanes: 1, do: func(x *task) *Error {
		if x.op == opGenerate {
			<-hold
		}
		return echo(x)
	}})
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var full atomic.Int32
	for range 100 {
		wg.Go(func() {
			if _, err := p.Generate(ctx, AES256, UseEncrypt); KindOf(err) == KindFull {
				full.Add(1)
			}
		})
	}
	eventually(t, "some keys are refused", func() bool { return full.Load() > 0 })
	eventually(t, "all are in or out", func() bool { return int(full.Load())+p.Totals().Waiting >= 99 })
	if err := p.Do(shortly(t), wrappedJob()); err != nil {
		t.Error(err)
	}
	stop()
	close(hold)
	wg.Wait()
}

// TestBadDataKeepsWindow has jobs fail fast for their data: the others must not look slow by it.
func TestBadDataKeepsWindow(t *testing.T) { bubble(t, testBadDataKeepsWindow) }

func testBadDataKeepsWindow(t *testing.T) {
	p := fakePool(t, 0, &fakeWorker{lanes: 16, do: func(x *task) *Error {
		if string(x.in) == "bad" {
			return errorf(KindBadData, fateData, "bad")
		}
		time.Sleep(10 * time.Millisecond)
		return echo(x)
	}})
	manyJobs(t, p, 32, 512, func(i int) *Job {
		j := wrappedJob()
		if i%10 == 0 {
			j.In = []byte("bad")
		}
		return j
	})
	if s := p.Status()[0]; s.Window < 16 {
		t.Errorf("the window is %d", s.Window)
	}
}
