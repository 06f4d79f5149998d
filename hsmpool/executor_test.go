package hsmpool

import (
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// execBench is an executor whose calls last as long as a test says, and what it emits. Tests of it run in a bubble with a clock of its
// own: time passes when everybody waits, so nothing here depends on how fast the machine is.
type execBench struct {
	*executor
	start time.Time

	mu sync.Mutex
	seen
}

type seen struct {
	emitted [][]uint64 // IDs, batch by batch
	tasks   map[uint64]*task
	stuckOp []Op
	stuckAt []time.Duration // since the beginning
	inside  int
	most    int // at once
}

// bubble runs a test with a clock of its own, which goes on only when everybody waits: whatever can happen before a time is over has
// happened then, however slow the machine is.
func bubble(t *testing.T, test func(t *testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		old := zeroTime
		zeroTime = time.Now().Add(-time.Hour)
		t.Cleanup(func() { zeroTime = old }) // after those of the test, which close its pools
		test(t)
	})
}

// inBubble runs a test of an executor with the lanes. lasts says how long the call of a task is.
func inBubble(t *testing.T, lanes, width int, limits *callLimits, lasts func(*task) time.Duration, test func(t *testing.T, b *execBench)) {
	bubble(t, func(t *testing.T) {
		b := &execBench{seen: seen{tasks: map[uint64]*task{}}, start: time.Now()}
		run := func(x *task) *Error {
			b.mu.Lock()
			b.inside++
			b.most = max(b.most, b.inside)
			b.mu.Unlock()
			time.Sleep(lasts(x))
			b.mu.Lock()
			b.inside--
			b.mu.Unlock()
			return nil
		}
		emit := func(tasks []*task) {
			b.mu.Lock()
			defer b.mu.Unlock()
			var ids []uint64
			for _, x := range tasks {
				ids = append(ids, x.id)
				if b.tasks[x.id] != nil {
					t.Errorf("task %d was answered twice", x.id)
				}
				b.tasks[x.id] = x
			}
			b.emitted = append(b.emitted, ids)
		}
		stuck := func(o Op, d time.Duration) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.stuckOp = append(b.stuckOp, o)
			b.stuckAt = append(b.stuckAt, time.Since(b.start))
		}
		b.executor = newExecutor(lanes, width, limits, run, emit, stuck)
		synctest.Wait() // all lanes are idle
		test(t, b)
		b.close()
		if !b.join(time.Hour) {
			t.Error("the lanes did not end")
		}
	})
}

// done gives the answered tasks in their order.
func (b *execBench) done() (ids []uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Concat(b.emitted...)
}

// sleep lets time pass, until all that happens in it has happened.
func (b *execBench) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// now is a copy of what was seen so far.
func (b *execBench) now() (s seen) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s = b.seen
	s.tasks, s.emitted = maps.Clone(b.tasks), slices.Clone(b.emitted)
	s.stuckOp, s.stuckAt = slices.Clone(b.stuckOp), slices.Clone(b.stuckAt)
	return s
}

// numberedTasks are n tasks from the first ID on.
func numberedTasks(first, n int) []*task {
	var tasks []*task
	for i := range n {
		tasks = append(tasks, &task{id: uint64(first + i), op: opSealGCM})
	}
	return tasks
}

func lasting(d time.Duration) func(*task) time.Duration {
	return func(*task) time.Duration { return d }
}

func TestExecutorRunsAll(t *testing.T) {
	inBubble(t, 4, 4, &callLimits{fixed: time.Hour}, lasting(time.Millisecond), func(t *testing.T, b *execBench) {
		b.submit(numberedTasks(1, 100))
		if !b.working() {
			t.Error("it has tasks and does not work")
		}
		b.sleep(25 * time.Millisecond)
		if n := len(b.done()); n != 100 || b.working() || b.now().most != 4 {
			t.Errorf("%d of 100 are done after the time that they take, %d at most at once", n, b.now().most)
		}
		for id, x := range b.now().tasks {
			if x.took != time.Millisecond {
				t.Errorf("task %d took %v", id, x.took)
			}
			if x.ahead != int(id)-1 {
				t.Errorf("%d were before task %d", x.ahead, id)
			}
		}
	})
}

func TestExecutorCancel(t *testing.T) {
	inBubble(t, 1, 1, &callLimits{fixed: time.Hour}, lasting(time.Second), func(t *testing.T, b *execBench) {
		b.submit(numberedTasks(1, 1))
		synctest.Wait() // the lane has it
		b.submit(append(numberedTasks(2, 3), &task{id: 9, op: opProve, key: wireKeys[0]}, &task{id: 10, op: opProve, key: wireKeys[0]}))
		synctest.Wait()
		for range 3 {
			b.cancel(3)
			b.cancel(10)
			b.cancel(1)  // runs
			b.cancel(99) // never was
		}
		if ids := b.done(); !slices.Equal(ids, []uint64{3, 10}) {
			t.Fatalf("answered at once: %v", ids)
		}
		for _, id := range []uint64{3, 10} {
			if e := b.now().tasks[id].err; e == nil || e.Kind != KindCanceled || e.fate != fateData {
				t.Errorf("task %d: %v", id, e)
			}
		}
		b.sleep(time.Minute)
		b.cancel(2) // done long since
		ids := b.done()
		slices.Sort(ids)
		if !slices.Equal(ids, []uint64{1, 2, 3, 4, 9, 10}) {
			t.Errorf("answered at the end: %v", ids)
		}
		if b.now().tasks[1].err != nil {
			t.Errorf("a task that ran when it was canceled: %v", b.now().tasks[1].err)
		}
	})
}

func TestExecutorStuck(t *testing.T) {
	const limit = 300 * time.Millisecond
	hang := func(x *task) time.Duration {
		if x.id >= 100 {
			return time.Hour
		}
		return limit - time.Millisecond
	}
	inBubble(t, 2, 2, &callLimits{fixed: limit}, hang, func(t *testing.T, b *execBench) {
		b.submit(numberedTasks(1, 20)) // just within the limit, one after the other
		b.sleep(10 * limit)
		if len(b.done()) != 20 || b.now().stuckOp != nil {
			t.Fatalf("%d done, stuck: %v", len(b.done()), b.now().stuckOp)
		}
		began := time.Since(b.start)
		b.submit(numberedTasks(100, 2)) // both lanes hang
		b.sleep(limit)
		if b.now().stuckOp != nil {
			t.Errorf("stuck after %v", b.now().stuckAt[0]-began)
		}
		b.sleep(time.Minute)
		if len(b.now().stuckOp) != 1 || b.now().stuckOp[0] != opSealGCM {
			t.Fatalf("stuck: %v", b.now().stuckOp)
		}
		// The limit is what such tasks take, several times, if that is more than was configured.
		if want := stuckFactor * (limit - time.Millisecond); b.now().stuckAt[0]-began < want || b.now().stuckAt[0]-began > want+2*watchInterval {
			t.Errorf("stuck after %v, should be %v", b.now().stuckAt[0]-began, want)
		}
		if !b.working() {
			t.Error("a lane that hangs is not at work")
		}
		b.close()
		if b.join(time.Second) {
			t.Error("joined a lane that hangs")
		}
		b.sleep(2 * time.Hour) // it comes back at last
	})
}

func TestExecutorAllow(t *testing.T) {
	const limit = 300 * time.Millisecond
	for _, c := range []struct {
		name  string
		allow time.Duration
		want  time.Duration
	}{{"no grace", 0, limit}, {"grace", 5 * time.Second, 5 * time.Second}} {
		inBubble(t, 1, 1, &callLimits{fixed: limit}, lasting(time.Hour), func(t *testing.T, b *execBench) {
			b.submit(numberedTasks(1, 1))
			if c.allow > 0 {
				b.allow(c.allow)
			}
			b.sleep(time.Minute)
			if len(b.now().stuckAt) != 1 || b.now().stuckAt[0] < c.want || b.now().stuckAt[0] > c.want+2*watchInterval {
				t.Errorf("%s: stuck at %v, should be %v", c.name, b.now().stuckAt, c.want)
			}
			b.sleep(2 * time.Hour)
		})
	}
	// A grace that ends before the call leaves no trace.
	inBubble(t, 1, 1, &callLimits{fixed: limit}, lasting(2*time.Second), func(t *testing.T, b *execBench) {
		b.allow(10 * time.Second)
		b.submit(numberedTasks(1, 4))
		b.sleep(9 * time.Second)
		if b.now().stuckAt != nil || len(b.done()) != 4 {
			t.Errorf("stuck at %v, %d done", b.now().stuckAt, len(b.done()))
		}
	})
}

func TestExecutorWiden(t *testing.T) {
	inBubble(t, 8, 2, &callLimits{fixed: time.Hour}, lasting(time.Second), func(t *testing.T, b *execBench) {
		b.submit(numberedTasks(1, 40))
		b.sleep(4*time.Second + time.Millisecond)
		if b.now().most != 2 || b.lanesAtWork() != 2 {
			t.Errorf("%d lanes of 2 at once", b.now().most)
		}
		b.widen()
		if b.lanesAtWork() != 8 {
			t.Errorf("%d lanes may be at work", b.lanesAtWork())
		}
		b.sleep(500 * time.Millisecond)
		if n := b.now().inside; n != 8 {
			t.Errorf("%d lanes of 8 are at work", n)
		}
		b.sleep(time.Minute)
		if len(b.done()) != 40 {
			t.Errorf("%d of 40 are done", len(b.done()))
		}
		b.widen() // nothing to do
	})
}

// TestExecutorShares gives all lanes something at once rather than a batch to one.
func TestExecutorShares(t *testing.T) {
	inBubble(t, 16, 16, &callLimits{fixed: time.Hour}, lasting(time.Second), func(t *testing.T, b *execBench) {
		b.submit(numberedTasks(1, 16))
		b.sleep(time.Second)
		if n := len(b.done()); n != 16 {
			t.Errorf("%d of 16 tasks are done by 16 lanes after the time of one", n)
		}
	})
}

func TestExecutorSlowTasks(t *testing.T) {
	lasts := func(x *task) time.Duration {
		if x.slow() {
			return 5 * time.Second
		}
		return 10 * time.Millisecond
	}
	inBubble(t, 2, 2, &callLimits{fixed: time.Hour}, lasts, func(t *testing.T, b *execBench) {
		var slow []*task
		for i := range 3 {
			slow = append(slow, &task{id: uint64(1000 + i), op: opGenerate, key: &Key{Type: RSA4096, Usage: UseSign}})
		}
		b.submit(slow)
		for i := range 50 {
			b.submit(numberedTasks(1+2*i, 2))
			b.sleep(10 * time.Millisecond)
		}
		if n := len(b.done()); n != 100 {
			t.Errorf("beside a long task %d of 100 short ones are done in their time", n)
		}
		b.sleep(15 * time.Second)
		if n := len(b.done()); n != 103 {
			t.Errorf("%d of 103 are done", n)
		}
		if b.now().most != 3 {
			t.Errorf("%d at once, should be two and a long one", b.now().most)
		}
	})
}

// TestExecutorEmits looks at when answers leave: at the end of a batch, or when the first has waited long enough.
func TestExecutorEmits(t *testing.T) {
	for _, c := range []struct {
		name  string
		lasts time.Duration
		sizes []int
	}{
		{"fast", 10 * time.Microsecond, []int{maxBatch, 8}},
		{"slow", time.Millisecond, slices.Repeat([]int{1}, 40)},
		{"between", emitWithin / 4, slices.Repeat([]int{4}, 10)},
	} {
		inBubble(t, 1, 1, &callLimits{fixed: time.Hour}, lasting(c.lasts), func(t *testing.T, b *execBench) {
			b.submit(numberedTasks(1, 40))
			b.sleep(time.Second)
			var sizes []int
			for _, ids := range b.now().emitted {
				sizes = append(sizes, len(ids))
			}
			if !slices.Equal(sizes, c.sizes) {
				t.Errorf("%s: batches of %v, want %v", c.name, sizes, c.sizes)
			}
			if ids := b.done(); !slices.IsSorted(ids) || len(ids) != 40 {
				t.Errorf("%s: answered %v", c.name, ids)
			}
		})
	}
}

func TestExecutorClose(t *testing.T) {
	inBubble(t, 2, 2, &callLimits{fixed: time.Hour}, lasting(time.Second), func(t *testing.T, b *execBench) {
		b.submit(numberedTasks(1, 2))
		synctest.Wait()
		b.submit(numberedTasks(3, 10))
		b.close()
		b.close()
		if b.join(500 * time.Millisecond) {
			t.Error("joined while calls are inside")
		}
		if !b.join(time.Second) {
			t.Error("not joined after the calls")
		}
		if ids := b.done(); len(ids) != 2 {
			t.Errorf("answered: %v; what waits is dropped", ids)
		}
		b.submit(numberedTasks(20, 1)) // nobody is there for it
		b.sleep(time.Minute)
		if len(b.done()) != 2 {
			t.Error("a closed executor works")
		}
	})
}

func TestCallLimits(t *testing.T) {
	aes, rsa := &task{op: EncryptGCM, key: wireKeys[0]}, &task{op: SignPSSSHA256, key: wireKeys[1]}
	make4096 := &task{op: opGenerate, key: &Key{Type: RSA4096, Usage: UseSign}}
	c := &callLimits{}
	if c.of(aes) != 2*time.Second || c.of(rsa) != 4*time.Second || c.of(make4096) != 2*time.Minute {
		t.Errorf("at first %v, %v, %v", c.of(aes), c.of(rsa), c.of(make4096))
	}
	done := func(x *task, took time.Duration, loaded bool) {
		y := *x
		y.took, y.loaded = took, loaded
		c.learn(&y)
	}
	done(aes, time.Hour, true) // loading says nothing
	if c.of(aes) != 2*time.Second {
		t.Errorf("after loading a key: %v", c.of(aes))
	}
	done(aes, time.Millisecond, false)
	if c.of(aes) != time.Second || c.of(rsa) != 4*time.Second {
		t.Errorf("once known: %v, and of another kind %v", c.of(aes), c.of(rsa))
	}
	for range 100 {
		done(aes, time.Second, false)
	}
	if d := c.of(aes); d < 7*time.Second || d > stuckFactor*time.Second {
		t.Errorf("of what takes a second: %v", d)
	}
	c = &callLimits{fixed: 100 * time.Millisecond}
	if c.of(aes) != 100*time.Millisecond || c.of(make4096) != 2*time.Minute {
		t.Errorf("configured: %v, and for making a key %v", c.of(aes), c.of(make4096))
	}
}

// stoppedMode makes this test's program a process with an executor that its parent stops in the middle of a call.
const stoppedMode = "KEYWARD_TEST_STOPPED"

func init() {
	if _, ok := os.LookupEnv(stoppedMode); ok {
		stoppedProcess()
	}
}

func stoppedProcess() {
	const limit = time.Second
	done := make(chan string, 2)
	e := newExecutor(1, 1, &callLimits{fixed: limit}, func(x *task) *Error {
		if x.id == 1 { // until the executor watches
			time.Sleep(3 * watchInterval)
			return nil
		}
		os.Stdout.WriteString("in a call\n")
		// In pieces, so that most of the call is still to come when the process goes on.
		for range 20 {
			time.Sleep(10 * time.Millisecond)
		}
		return nil
	}, func(tasks []*task) {
		if tasks[0].id == 2 {
			done <- "answered\n"
		}
	}, func(Op, time.Duration) { done <- "stuck\n" })
	e.submit([]*task{{id: 1, op: opSealGCM}, {id: 2, op: opSealGCM}})
	os.Stdout.WriteString(<-done)
	os.Exit(0)
}

// TestExecutorStopped stops a process in the middle of a call for much longer than the call may take. That is not the library's fault.
func TestExecutorStopped(t *testing.T) {
	for range 2 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), stoppedMode+"=1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		if _, err := out.Read(buf); err != nil || !strings.HasPrefix(string(buf), "in a call") {
			t.Fatalf("%q, %v", buf, err)
		}
		if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second) // several times what the call may take
		if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		n, err := out.Read(buf)
		if err != nil || string(buf[:n]) != "answered\n" {
			t.Errorf("%q, %v", buf[:n], err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}
