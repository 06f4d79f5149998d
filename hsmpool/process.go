package hsmpool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// workerProcess is an opener whose worker is a process of its own: a library that crashes, hangs or leaks takes nothing along.
type workerProcess struct {
	cfg     *MemberConfig
	command []string
	pin     pinKeeper
}

const (
	// silence is how long a worker that has work may tell nothing. It tells every aliveInterval that it is there, whatever its calls
	// into the library are doing; a process that was stopped does not.
	silence       = time.Second
	aliveInterval = 200 * time.Millisecond

	// farewell is how long a worker gets to close its sessions.
	farewell = 2 * time.Second

	// leftovers is how long what a worker process has written is read when it has ended.
	leftovers = 200 * time.Millisecond
)

// openTimeout bounds how long a worker may take to find its token and log in.
var openTimeout = 20 * time.Second

// child is one process. It is a link.
type child struct {
	cmd  *exec.Cmd // nil: it is a unit's, and all that is known of it is the connection
	conn *net.UnixConn
	out  *frameWriter
	pin  pinKeeper
	ev   events
	said lastWords

	opened chan openResult // gets one
	tried  chan error      // what C_Login gave; holds one
	dead   chan struct{}   // closed when the process is gone and read has ended
	why    *Error          // of the end; may be read when dead is closed

	resulted bool         // opened has got its one; of read
	over     atomic.Bool  // the owner has closed it: nothing is told any more
	told     atomic.Bool  // failed was
	waiting  atomic.Int64 // tasks that are not answered
	heard    atomic.Int64 // when the last frame came, since zeroTime
	width    atomic.Int64
	sessions atomic.Int64
	keys     atomic.Int64
	cause    atomic.Pointer[Error] // why it was killed
	asking   atomic.Bool           // it has asked for the PIN, or refused it, and has no verdict yet
	refused  atomic.Pointer[Error] // why the PIN was not presented, or what came of it

	// The frame of tasks that is being filled. Guarded by out.mu.
	filling bool
	start   int
	length  int
}

type openResult struct {
	id  *identity
	err error
}

// notForWorkers are the variables of our environment, by how they begin, that systemd, the caller or Go's tools meant for this process
// alone. All others may be something that a library reads.
var notForWorkers = []string{"NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_", "CREDENTIALS_DIRECTORY=", "JOURNAL_STREAM=", "INVOCATION_ID=", "MAINPID=",
	"MEMORY_PRESSURE_", "KEYWARD_", "GOTRACEBACK=", "GODEBUG="}

// environment is what a worker process gets. No PIN is in it, ever.
func environment(extra map[string]string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return slices.ContainsFunc(notForWorkers, func(prefix string) bool { return strings.HasPrefix(v, prefix) })
	})
	// A crash shows no more than it must.
	env = append(env, "GOTRACEBACK=none")
	for name, v := range extra {
		env = append(env, name+"="+v)
	}
	return env
}

// spawn starts the process, or connects to it.
func (o *workerProcess) spawn(ev events) (*child, error) {
	if o.cfg.Socket != "" {
		return o.connect(ev)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "worker"), os.NewFile(uintptr(fds[1]), "daemon")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	ours.Close() // FileConn has a copy
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	c := o.newChild(conn.(*net.UnixConn), ev)
	c.cmd = exec.Command(o.command[0], o.command[1:]...)
	c.cmd.Args[0] = "keywardd" // what ps shows
	c.cmd.Env = environment(o.cfg.Environment)
	c.cmd.ExtraFiles = []*os.File{theirs}
	c.cmd.Stderr = &c.said
	c.cmd.WaitDelay = leftovers // somebody else may have its standard error
	c.cmd.Dir = "/"
	// An interrupt from the terminal is for the daemon, which ends its workers when they are no longer needed.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.out, err = newFrameWriter(c.conn); err != nil {
		return nil, errors.Join(fmt.Errorf("socketpair: %w", err), c.conn.Close())
	}
	if err := c.cmd.Start(); err != nil {
		c.conn.Close()
		c.out.close()
		return nil, fmt.Errorf("starting a worker process: %w", err)
	}
	go c.life()
	return c, nil
}

func (o *workerProcess) newChild(conn *net.UnixConn, ev events) *child {
	c := &child{conn: conn, pin: o.pin, ev: ev, opened: make(chan openResult, 1), tried: make(chan error, 1), dead: make(chan struct{})}
	c.width.Store(1)
	return c
}

// connect reaches the worker of a unit, which systemd starts when somebody connects.
func (o *workerProcess) connect(ev events) (*child, error) {
	conn, err := net.DialTimeout("unix", o.cfg.Socket, dialTimeout)
	if err != nil {
		return nil, fmt.Errorf("the worker of %s: %w; systemctl start keyward-hsm@%s.socket", o.cfg.Name, err, o.cfg.Name)
	}
	c := o.newChild(conn.(*net.UnixConn), ev)
	if c.out, err = newFrameWriter(c.conn); err != nil {
		return nil, errors.Join(err, c.conn.Close())
	}
	go c.life()
	return c, nil
}

// dialTimeout is how long a connection to a listening socket of this machine may take: it waits only if others wait too.
const dialTimeout = 5 * time.Second

func (o *workerProcess) open(ctx context.Context, ev events) (link, *identity, error) {
	c, id, err := o.start(ctx, ev, nil)
	if err != nil {
		return nil, nil, err
	}
	go c.watch()
	return c, id, nil
}

func (o *workerProcess) enrol(ctx context.Context, f *enrolFrame) error {
	c, _, err := o.start(ctx, noEvents{}, f)
	if err != nil {
		return err
	}
	return c.close(true)
}

// noEvents is for a worker that gets no tasks.
type noEvents struct{}

func (noEvents) answers([]*task, int) {}
func (noEvents) counted(*codeCount)   {}
func (noEvents) failed(*Error)        {}

// start spawns a process and waits until it has logged in. After an error nothing is left of it.
func (o *workerProcess) start(ctx context.Context, ev events, enrol *enrolFrame) (*child, *identity, error) {
	c, err := o.spawn(ev)
	if err != nil {
		return nil, nil, &Error{Kind: KindUnavailable, fate: fateDown, Err: err}
	}
	module := o.cfg.Module
	if strings.Contains(module, "/") { // else the loader looks for it
		if module, err = filepath.Abs(module); err != nil {
			module = o.cfg.Module
		}
	}
	f := &openFrame{module: module, label: o.cfg.TokenLabel, serial: o.cfg.TokenSerial, callTimeout: o.cfg.CallTimeout,
		maxSessions: o.cfg.sessionsOfEach(), workers: o.cfg.Workers}
	c.out.put(func(b []byte) []byte {
		kind := frameOpen
		if enrol != nil {
			kind = frameEnroll
		}
		b, start := beginFrame(b, kind)
		b = putOpen(b, f)
		if enrol != nil {
			b = putEnrol(b, enrol)
		}
		return endFrame(b, start)
	})
	c.out.flush()
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	var failure *Error
	select {
	case r := <-c.opened:
		if r.err == nil {
			return c, r.id, nil
		}
		c.over.Store(true)
		_ = c.close(true) // what it failed for is what matters
		if e := c.refused.Load(); e != nil {
			return nil, nil, e // our own, with its causes
		}
		return nil, nil, r.err
	case <-c.dead:
		failure = c.why
	case <-ctx.Done():
		failure = errorf(KindUnavailable, fateDown, "it did not log in within %v, and was ended: the library hangs, or the HSM does not answer", openTimeout)
		if errors.Is(ctx.Err(), context.Canceled) {
			failure = errorf(KindUnavailable, fateDown, "it was ended while it logged in: nobody needs it any more")
			c.letLogIn()
		}
		c.kill(failure)
	}
	c.over.Store(true)
	_ = c.close(false)
	return nil, nil, failure
}

// leaveLogin is how long a worker that nobody needs any more may go on logging in.
const leaveLogin = 5 * time.Second

// letLogIn waits a while for a login that is under way. Some modules write to the token then, and one that is killed in the middle leaves it damaged: SoftHSM2
// rewrites the file that says that there is a token.
func (c *child) letLogIn() {
	select {
	case <-c.opened:
	case <-c.dead:
	case <-time.After(leaveLogin):
	}
}

// life reads until the process is gone, and buries it.
func (c *child) life() {
	if c.cmd == nil {
		c.lifeOfUnit()
		return
	}
	ended := make(chan error, 1)
	go func() {
		err := c.cmd.Wait()
		// What it sent is read, but not for longer: somebody that its library has started may have its socket too.
		_ = c.conn.SetReadDeadline(time.Now().Add(leftovers)) // it may be closed already
		ended <- err
	}()
	readErr := c.read()
	if readErr == errWire {
		c.kill(wireError("what no worker sends"))
	}
	// Whoever closed the socket: without it the process ends, and if it is too sick for that it is ended.
	c.conn.Close()
	var err error
	select {
	case err = <-ended:
	case <-time.After(farewell):
		_ = c.cmd.Process.Kill() // it may be gone just now
		err = <-ended
	}
	c.out.close()
	if c.why = c.cause.Load(); c.why == nil {
		c.why = &Error{Kind: KindUnavailable, fate: fateModule, ending: endCrashed, Detail: c.epitaph(err)}
	}
	close(c.dead)
	c.tell(c.why)
}

// lifeOfUnit is life for the worker of a unit: it has ended when its connection has, and systemd looks after the process.
func (c *child) lifeOfUnit() {
	if c.read() == errWire {
		c.kill(wireError("what no worker sends"))
	}
	c.conn.Close()
	c.out.close()
	if c.why = c.cause.Load(); c.why == nil {
		c.why = &Error{Kind: KindUnavailable, fate: fateModule, ending: endCrashed, Detail: "the worker's unit ended; journalctl -u 'keyward-hsm@*' says why"}
	}
	close(c.dead)
	c.tell(c.why)
}

// epitaph says how the process ended.
func (c *child) epitaph(err error) string {
	how := "with exit code 0"
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		how = fmt.Sprintf("with exit code %d", exit.ExitCode())
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			how = "by the signal " + unix.SignalName(status.Signal())
		}
	} else if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		how = "in a way that is not known: " + err.Error()
	}
	if words := c.said.String(); words != "" {
		how += " (" + words + ")"
	}
	return "the worker process ended " + how
}

// tell tells the owner that the process is of no more use, once.
func (c *child) tell(e *Error) {
	if !c.over.Load() && !c.told.Swap(true) {
		c.ev.failed(e)
	}
}

// kill ends the process at once.
func (c *child) kill(why *Error) {
	c.cause.CompareAndSwap(nil, why)
	c.end()
}

// end ends the process. That of a unit ends itself when its connection does, whatever its library is doing.
func (c *child) end() {
	if c.cmd == nil {
		c.conn.Close()
		return
	}
	_ = c.cmd.Process.Kill() // it may be gone already
}

// read reads frames until the socket closes.
func (c *child) read() error {
	in := newFrameReader(c.conn)
	for {
		kind, body, err := in.next()
		if err != nil {
			return err
		}
		c.heard.Store(sinceEpoch())
		if err := c.handle(kind, &cursor{b: body}); err != nil {
			return err
		}
		clear(body) // plaintexts
	}
}

func (c *child) handle(kind frameKind, body *cursor) error {
	switch kind {
	case frameAnswers:
		return c.answers(body)
	case frameAlive:
		f := body.figures()
		if err := body.end(); err != nil {
			return err
		}
		c.width.Store(int64(f.width))
		c.sessions.Store(int64(f.sessions))
		c.keys.Store(int64(f.keys))
		if len(f.codes) > 0 && !c.over.Load() {
			c.ev.counted(&codeCount{n: f.codes})
		}
		return nil
	case frameStuck:
		e := body.stuck()
		if err := body.end(); err != nil {
			return err
		}
		c.tell(e) // its owner kills it
		return nil
	case frameOpened:
		id := body.identity()
		if err := body.end(); err != nil {
			return err
		}
		c.width.Store(int64(id.Width))
		return c.result(openResult{id: id})
	case frameFailed:
		e := body.error()
		if err := body.end(); err != nil || e == nil {
			return errWire
		}
		return c.result(openResult{err: e})
	case frameNeedPIN:
		if err := body.end(); err != nil || c.asking.Swap(true) {
			return errWire
		}
		go c.present()
		return nil
	case frameRefuse:
		why := body.text()
		if err := body.end(); err != nil || c.asking.Swap(true) {
			return errWire
		}
		go func() { c.verdict(c.pin.refuse(why)) }()
		return nil
	case frameTried:
		e := body.error()
		if err := body.end(); err != nil || !c.asking.Load() {
			return errWire
		}
		var outcome error
		if e != nil {
			outcome = e.Err
		}
		select {
		case c.tried <- outcome:
			return nil
		default:
			return errWire
		}
	}
	return errWire
}

func (c *child) result(r openResult) error {
	if c.resulted {
		return errWire
	}
	c.resulted = true
	c.opened <- r
	return nil
}

func (c *child) answers(body *cursor) error {
	var tasks []*task
	for len(body.b) > 0 {
		t := body.answer()
		if body.bad {
			return errWire
		}
		tasks = append(tasks, t)
	}
	if c.waiting.Add(-int64(len(tasks))) < 0 {
		return errWire // more than it has
	}
	if !c.over.Load() {
		c.ev.answers(tasks, int(c.width.Load()))
		return nil
	}
	for _, t := range tasks {
		clear(t.out) // nobody waits for it
	}
	return nil
}

// present gives the worker the PIN, as soon as it is its turn.
func (c *child) present() {
	err := c.pin.present(func(pin []byte) error {
		if c.cause.Load() != nil || isClosed(c.dead) {
			return errNotTried
		}
		c.send(framePIN, func(b []byte) []byte { return putOctets(b, pin) })
		select {
		case outcome := <-c.tried:
			return outcome
		case <-c.dead:
			return errUnknown
		}
	})
	c.verdict(err)
}

// verdict tells the worker what became of its login. A worker that was not given the PIN learns from it that it won't be.
func (c *child) verdict(err error) {
	var e *Error
	if err != nil && !errors.As(err, &e) {
		e = &Error{Kind: KindUnavailable, fate: fateOperator, Err: err}
	}
	c.refused.Store(e)
	c.asking.Store(false)
	c.send(frameVerdict, func(b []byte) []byte { return putError(b, e) })
}

// watch ends the process when it has work and is silent. It ends with the process.
func (c *child) watch() {
	tick := time.NewTicker(silence / 4)
	defer tick.Stop()
	last := sinceEpoch()
	for {
		select {
		case <-c.dead:
			return
		case <-tick.C:
		}
		now := sinceEpoch()
		late := now-last > int64(silence/2) // this process was stopped itself, or had no processor
		last = now
		if late {
			c.heard.Store(now)
		}
		if c.waiting.Load() > 0 && now-c.heard.Load() > int64(silence) {
			e := errorf(KindUnavailable, fateModule, "the worker process has work and has told nothing for %v: it was ended", silence)
			e.ending = endSilent
			c.kill(e)
			c.tell(e)
			return
		}
	}
}

func (c *child) post(t *task, slot uint32, tell bool) {
	if c.waiting.Add(1) == 1 {
		c.heard.Store(sinceEpoch())
	}
	c.out.put(func(b []byte) []byte {
		// Tasks that are posted one after the other travel in one frame, until it is flushed or full.
		if !c.filling || c.length != len(b) || len(b)-c.start > fullFrame {
			b, c.start = beginFrame(b, frameTasks)
		}
		b = endFrame(putTask(b, t, slot, tell), c.start)
		c.filling, c.length = true, len(b)
		return b
	})
}

func (c *child) flush() { c.out.flush() }

// send writes a frame of its own.
func (c *child) send(kind frameKind, body func([]byte) []byte) {
	c.out.put(func(b []byte) []byte {
		c.filling = false // what comes next can't be added to the tasks before it
		b, start := beginFrame(b, kind)
		return endFrame(body(b), start)
	})
	c.out.flush()
}

func (c *child) cancel(id uint64) {
	c.send(frameCancel, func(b []byte) []byte { return putID(b, id) })
}

// close may be called while others post or flush: that goes nowhere then.
func (c *child) close(gently bool) error {
	c.over.Store(true)
	if gently {
		c.send(frameClose, func(b []byte) []byte { return b })
		select {
		case <-c.dead:
			return nil
		case <-time.After(farewell):
		}
	}
	c.end()
	<-c.dead
	return nil
}

func (c *child) load() (sessions, keys int) { return int(c.sessions.Load()), int(c.keys.Load()) }

// pid is 0 for the worker of a unit, which systemd knows.
func (c *child) pid() int {
	if c.cmd == nil {
		return 0
	}
	return c.cmd.Process.Pid
}

// lastWords keeps the beginning of what a process writes, as it may say why it ends, and passes all of it on.
type lastWords struct {
	mu   sync.Mutex
	text []byte // guarded by mu
}

const mostWords = 4 << 10

// registers is a line of the dump of a crash in C: what is in them may be a part of a key.
var registers = regexp.MustCompile(`(?m)^(r[a-z0-9]{1,3}|rflags|[cefgs][sp]|lr|pc|pstate|fault)\s+0x[0-9a-f]+\n?`)

// Write takes what the process wrote.
func (w *lastWords) Write(p []byte) (int, error) {
	shown := registers.ReplaceAll(p, nil)
	w.mu.Lock()
	w.text = append(w.text, shown...)
	if n := len(w.text) - mostWords; n > 0 {
		w.text = append(w.text[:0], w.text[n:]...)
	}
	w.mu.Unlock()
	if _, err := os.Stderr.Write(shown); err != nil {
		return 0, err
	}
	return len(p), nil
}

// String gives the line that says most.
func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := ""
	for line := range strings.Lines(string(bytes.ToValidUTF8(w.text, []byte("?")))) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[signal ") || strings.HasPrefix(line, "panic: ") {
			return strings.Trim(line, "[]")
		}
		if line != "" {
			last = line
		}
	}
	return last[:min(len(last), 200)]
}

var _ io.Writer = (*lastWords)(nil)
