package hsmpool

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// hostileMode is the variable that makes this test's program a worker that does not keep to the rules. Nothing else of the
// program is run then.
const hostileMode = "KEYWARD_TEST_HOSTILE_WORKER"

func init() {
	if mode, ok := os.LookupEnv(hostileMode); ok {
		hostileWorker(mode)
		os.Exit(7)
	}
}

// hostileWorker is opened, and misbehaves, at once or when it is given its first tasks. Mode good answers as echo does.
func hostileWorker(mode string) {
	file := os.NewFile(workerFile, "daemon")
	conn, err := net.FileConn(file)
	if err != nil || file.Close() != nil {
		return
	}
	sock := conn.(*net.UnixConn)
	write := func(b []byte) {
		_, _ = sock.Write(b) // who does not want to hear it ends us
	}
	forever := func() { time.Sleep(time.Hour) }
	in := newFrameReader(sock)
	identityFrame := frameOf(frameOpened, putIdentity(nil, &identity{Token: "hostile", Group: "fake", Lanes: 4, Width: 4})...)
	var slots keySlots
	first := true
	for {
		kind, body, err := in.next()
		if err != nil {
			return
		}
		switch kind {
		case frameOpen:
			switch mode {
			case "garbage":
				r := rand.NewChaCha8([32]byte{1})
				b := make([]byte, 64<<10)
				_, _ = r.Read(b) // never fails
				b[0] = 0xff      // a length beyond any
				write(b)
				forever()
			case "stuck before opened":
				write(frameOf(frameStuck, putStuck(nil, opCheck, time.Second)...))
			case "ends when opened":
				write(identityFrame)
				os.Exit(3)
			case "asks on and on":
				for range 100_000 {
					write(frameOf(frameNeedPIN))
				}
				forever()
			case "refuses on and on":
				for range 100_000 {
					write(frameOf(frameRefuse, putText(nil, "no")...))
				}
				forever()
			}
			write(identityFrame)
			if mode == "two identities" {
				write(identityFrame)
			}
		case frameClose:
			if mode != "never closes" {
				os.Exit(0)
			}
		case frameTasks:
			c := &cursor{b: slices.Clone(body)}
			var done []*task
			for len(c.b) > 0 {
				x := c.task(&slots)
				if c.bad {
					return
				}
				x.err = echo(x)
				done = append(done, x)
			}
			reply := func(done ...*task) {
				b, start := beginFrame(nil, frameAnswers)
				for _, x := range done {
					b = putAnswer(b, x)
				}
				write(endFrame(b, start))
			}
			if !first || done[0].op == opCheck {
				if mode != "silent" || first {
					reply(done...)
				}
				continue
			}
			first = false
			switch mode {
			case "garbage later":
				write([]byte{0, 0, 0, 9, byte(frameAnswers), 1, 2, 3, 4, 5, 6, 7, 8})
			case "huge":
				write([]byte{255, 255, 255, 255, byte(frameAnswers)})
			case "empty":
				write(make([]byte, headSize))
			case "unknown kind":
				write(frameOf(99))
			case "twice":
				reply(done...)
				reply(done...)
				continue
			case "one twice, one never":
				// That as many come as were given hides nothing.
				reply(done[0], done[0])
				continue
			case "not asked":
				other := *done[0]
				other.id += 1 << 40
				reply(&other)
			case "too long":
				done[0].out = append(done[0].out, 1)
				reply(done...)
				continue
			case "silent":
				continue
			case "closes":
				_ = sock.Close() // all that it still does
				forever()
			case "half a frame":
				write(frameOf(frameAnswers, make([]byte, 100)...)[:50])
				_ = sock.Close() // all that it still does
				forever()
			case "floods":
				f := &figures{load: load{1, 1, 4}}
				var b []byte
				for range 1000 {
					b = append(b, frameOf(frameAlive, putFigures(nil, f)...)...)
				}
				for {
					write(b)
				}
			default:
				reply(done...)
				continue
			}
			forever()
		}
	}
}

// hostileOpener starts workers of a mode.
func hostileOpener(mode string) *workerProcess {
	cfg := &MemberConfig{Name: mode, Module: "none", TokenLabel: mode, Environment: map[string]string{hostileMode: mode},
		PIN: func() ([]byte, error) { return []byte("1234"), nil }}
	return &workerProcess{cfg: cfg, command: []string{"/proc/self/exe"}, pin: newPINGuard(cfg)}
}

// toldEvents notes what a worker's link tells.
type toldEvents struct {
	mu     sync.Mutex
	got    map[uint64]int
	failed chan *Error // holds some
	came   chan struct{}
}

func newToldEvents() *toldEvents {
	return &toldEvents{got: map[uint64]int{}, failed: make(chan *Error, 16), came: make(chan struct{}, 1000)}
}

type toldLink struct{ *toldEvents }

func (l toldLink) answers(tasks []*task, _ int) {
	l.mu.Lock()
	for _, x := range tasks {
		l.got[x.id]++
	}
	l.mu.Unlock()
	for range tasks {
		select {
		case l.came <- struct{}{}:
		default:
		}
	}
}

func (l toldLink) counted(*codeCount) {}
func (l toldLink) failed(e *Error)    { l.toldEvents.failed <- e }

// openFiles counts this process's.
func openFiles(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// filesBack waits until no more files are open than before: the kernel's handle of a process goes a moment after it.
func filesBack(t *testing.T, before int) {
	t.Helper()
	var after int
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if after = openFiles(t); after <= before {
			return
		}
	}
	t.Errorf("%d files are open, %d were", after, before)
}

// within fails the test if c gives nothing for so long.
func within[T any](t *testing.T, what string, d time.Duration, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(d):
		t.Fatalf("%s: nothing for %v", what, d)
	}
	return v
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

// silentOrKilled is for a worker that has closed its socket and stays: what ends it first, that it is silent with work in its hands
// or that it did not go, is a matter of moments.
const silentOrKilled = "has told nothing|by the signal SIGKILL"

// saysOneOf says whether text has one of the parts in it.
func saysOneOf(text, parts string) bool {
	return slices.ContainsFunc(strings.Split(parts, "|"), func(part string) bool { return strings.Contains(text, part) })
}

// TestHostileWorker has worker processes that break the rules when they get their first task: each must be noticed, with a
// reason, and nothing of it may be left.
func TestHostileWorker(t *testing.T) {
	const sent = "what no worker sends"
	for _, c := range []struct {
		mode   string
		reason string
	}{
		{"two identities", sent},
		{"garbage later", sent},
		{"huge", sent},
		{"empty", sent},
		{"unknown kind", sent},
		{"twice", sent},
		{"silent", "has told nothing for 1s"},
		{"closes", silentOrKilled},
		{"half a frame", silentOrKilled},
	} {
		t.Run(c.mode, func(t *testing.T) {
			before := openFiles(t)
			told := newToldEvents()
			l, id, err := hostileOpener(c.mode).open(t.Context(), toldLink{told})
			if err != nil {
				t.Fatal(err)
			}
			if id.Token != "hostile" || id.Lanes != 4 {
				t.Errorf("%+v", id)
			}
			pid := l.pid()
			l.post(&task{id: 1, op: EncryptGCM, key: wireKeys[0], in: []byte("x"), nonce: make([]byte, gcmNonce)}, 1, true)
			l.flush()
			e := within(t, "the end", time.Minute, told.failed)
			if e.fate != fateModule || !saysOneOf(e.Error(), c.reason) {
				t.Errorf("the reason is %v", e)
			}
			if err := l.close(false); err != nil {
				t.Error(err)
			}
			if !gone(pid) {
				t.Error("the process is still there")
			}
			filesBack(t, before)
			select {
			case e := <-told.failed:
				t.Errorf("and once more: %v", e)
			default:
			}
			// What comes late goes nowhere, and is not kept.
			l.post(&task{id: 2, op: opCheck}, noSlot, false)
			l.flush()
			l.cancel(2)
			if w := l.(*child).out; len(w.pending) != 0 {
				t.Errorf("%d octets wait for a process that is gone", len(w.pending))
			}
		})
	}
}

// TestHostileWorkerAtOpen has worker processes that don't get as far as an identity, or hardly.
func TestHostileWorkerAtOpen(t *testing.T) {
	for _, c := range []struct{ mode, reason string }{
		{"garbage", "what no worker sends"},
		{"asks on and on", "what no worker sends"},
		{"refuses on and on", ""}, // the refusal itself or its repetition, whichever is seen first
	} {
		t.Run(c.mode, func(t *testing.T) {
			before := openFiles(t)
			_, _, err := hostileOpener(c.mode).open(t.Context(), toldLink{newToldEvents()})
			if err == nil || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("opened, or: %v", err)
			}
			filesBack(t, before)
		})
	}
}

// TestHostileFlood has a worker tell without end that it is there. That is nothing to be ended for, but what is asked of the link
// meanwhile must not wait for it, and its end must not either.
func TestHostileFlood(t *testing.T) {
	told := newToldEvents()
	l, _, err := hostileOpener("floods").open(t.Context(), toldLink{told})
	if err != nil {
		t.Fatal(err)
	}
	pid := l.pid()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// It reads nothing any more: 40 MB of tasks fit into no socket.
		for i := range 300 {
			l.post(&task{id: uint64(i + 1), op: EncryptGCM, key: wireKeys[0], in: make([]byte, maxAESText), nonce: make([]byte, gcmNonce),
				aad: make([]byte, maxGCMAAD)}, 1, i == 0)
			l.flush()
		}
		_ = l.close(false) // its error is for libraries in this process
	}()
	within(t, "posting and closing", time.Minute, ended)
	if !gone(pid) {
		t.Error("the process is still there")
	}
}

// TestHostileFarewell has a worker that does not end when it is told to.
func TestHostileFarewell(t *testing.T) {
	l, _, err := hostileOpener("never closes").open(t.Context(), toldLink{newToldEvents()})
	if err != nil {
		t.Fatal(err)
	}
	pid, start := l.pid(), time.Now()
	if err := l.close(true); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); !gone(pid) || d < farewell || d > farewell+5*time.Second {
		t.Errorf("after %v, gone: %v", d, gone(pid))
	}
}

// hostilePool has a member whose workers are of a mode beside a good one.
func hostilePool(t *testing.T, mode string) *Pool {
	t.Helper()
	c := Config{Probe: time.Hour, Worker: []string{"/proc/self/exe"}}
	for _, m := range []string{mode, "good"} {
		c.Members = append(c.Members, MemberConfig{Name: m, Module: "none", TokenLabel: m, Environment: map[string]string{hostileMode: m},
			PIN: func() ([]byte, error) { return []byte("1234"), nil }})
	}
	p, err := Open(t.Context(), c)
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

func anyJob(principal string) *Job {
	return &Job{Op: EncryptGCM, Key: wireKeys[0], In: []byte("text"), Nonce: make([]byte, gcmNonce), Principal: principal}
}

// TestHostilePool has the pool find out what only it can: no caller may notice, and the member is down with the reason.
func TestHostilePool(t *testing.T) {
	for _, c := range []struct{ mode, reason string }{
		{"twice", ""}, // by the link or by the pool
		{"one twice, one never", "what it was not asked"},
		{"not asked", "what it was not asked"},
		{"too long", "impossible length"},
		{"garbage later", "what no worker sends"},
		{"closes", silentOrKilled},
		{"silent", "has told nothing"},
	} {
		t.Run(c.mode, func(t *testing.T) {
			p := hostilePool(t, c.mode)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			jobs := make([]*Job, 64)
			for i := range jobs {
				jobs[i] = anyJob("")
				jobs[i].In = binary.BigEndian.AppendUint64(nil, uint64(i))
			}
			var reason string
			for reason == "" && ctx.Err() == nil {
				p.DoAll(ctx, jobs)
				for _, j := range jobs {
					if j.Err != nil || string(j.Out) != string(j.In)+string(make([]byte, gcmTag)) {
						t.Fatalf("%x, %v", j.Out, j.Err)
					}
				}
				p.mu.Lock()
				if w := p.members[0].workers[0]; w.state != workerUp {
					reason = w.reason
				}
				p.mu.Unlock()
			}
			if !saysOneOf(reason, c.reason) || reason == "" {
				t.Errorf("the reason is %q", reason)
			}
		})
	}
}

// TestGoneBeforeAdmission has workers that end when they are open and not yet admitted. If nobody noticed that, they would be
// given jobs that are never answered.
func TestGoneBeforeAdmission(t *testing.T) {
	for _, mode := range []string{"ends when opened", "stuck before opened"} {
		t.Run(mode, func(t *testing.T) {
			p := hostilePool(t, mode)
			for range 20 {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				if err := p.Do(ctx, anyJob("")); err != nil {
					t.Fatal(err)
				}
				cancel()
			}
			for _, s := range p.Status() {
				if up := s.State == StateUp; up != (s.Name == "good") || !up && s.Reason == "" {
					t.Errorf("member %s is %s: %s", s.Name, s.State, s.Reason)
				}
			}
		})
	}
	// The same at a moment of the test's choosing.
	early := &earlyEnd{fakeWorker: &fakeWorker{t: t, lanes: 1, do: echo}}
	c := Config{Probe: time.Hour, Members: []MemberConfig{{Name: "a", Module: "fake", TokenLabel: "a"}}}
	if p, err := open(t.Context(), c, func(*member) opener { return early }); err == nil || !strings.Contains(err.Error(), "just now") {
		t.Errorf("opened, or: %v", err)
		if p != nil {
			_ = p.Close() // the test has failed
		}
	}
	if early.opened.Load() {
		t.Error("it was not closed")
	}
}

// earlyEnd is a worker that fails between its login and its admission.
type earlyEnd struct{ *fakeWorker }

func (w *earlyEnd) open(ctx context.Context, ev events) (link, *identity, error) {
	l, id, err := w.fakeWorker.open(ctx, ev)
	ev.failed(errorf(KindUnavailable, fateModule, "it ended just now"))
	return l, id, err
}
