package hsmpool

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"
)

// workerFile is the file that a worker process has its socket as.
const workerFile = 3

// WorkerMain is a worker process: it serves one member over the stream socket that it has as file 3, and returns the exit
// code when it is told to end. When the socket closes it ends the process, whatever the library is doing.
func WorkerMain() int {
	f := os.NewFile(workerFile, "daemon")
	conn, err := net.FileConn(f)
	if err != nil {
		fmt.Fprintln(os.Stderr, "keywardd hsm-worker is started by keywardd, with a socket as file 3:", err)
		return 1
	}
	f.Close()
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		fmt.Fprintln(os.Stderr, "keywardd hsm-worker is started by keywardd, with a Unix socket as file 3")
		return 1
	}
	aWorkerProcess.Store(true)
	out, err := newFrameWriter(unix)
	if err != nil {
		fmt.Fprintln(os.Stderr, "keywardd hsm-worker:", err)
		return 1
	}
	s := &workerServer{in: newFrameReader(unix), out: out, pins: make(chan []byte, 1), verdicts: make(chan *Error, 1), todo: make(chan func(), 1)}
	go s.read()
	for f := range s.todo {
		f()
	}
	return 0
}

// workerServer is the worker's end of the socket.
type workerServer struct {
	in  *frameReader
	out *frameWriter

	pins     chan []byte // framePIN; holds one
	verdicts chan *Error // frameVerdict; holds one

	// todo is what the main goroutine does, one after the other: opening and closing. Tasks are run by exec.
	todo chan func()

	token *tokenWorker // made by frameOpen
	slots keySlots     // of the reading goroutine

	mu   sync.Mutex
	exec *executor // guarded by mu; nil until the login
}

// read reads frames until the socket closes; then it ends the process.
func (s *workerServer) read() {
	for {
		kind, body, err := s.in.next()
		if err == nil {
			err = s.handle(kind, body)
		}
		if err != nil {
			// The daemon is gone, or can't be understood. Calls may hang in the library, and its handlers of exit too.
			os.Exit(0)
		}
	}
}

func (s *workerServer) handle(kind frameKind, body []byte) error {
	c := &cursor{b: body}
	switch kind {
	case frameTasks:
		// The tasks keep it.
		own := slices.Clone(body)
		clear(body)
		return s.tasks(&cursor{b: own})
	case frameCancel:
		id := c.u64()
		if err := c.end(); err != nil {
			return err
		}
		if e := s.executor(); e != nil {
			e.cancel(id)
		}
		return nil
	case frameOpen, frameEnroll:
		f := c.open()
		var enrol *enrolFrame
		if kind == frameEnroll {
			enrol = c.enrol()
			enrol.key, enrol.wrapped[0], enrol.wrapped[1] = slices.Clone(enrol.key), slices.Clone(enrol.wrapped[0]), slices.Clone(enrol.wrapped[1])
		}
		if err := c.end(); err != nil {
			return err
		}
		clear(body) // a recovery key
		return s.do(func() { s.open(f, enrol) })
	case framePIN:
		pin := slices.Clone(c.octets())
		if err := c.end(); err != nil {
			return err
		}
		clear(body)
		select {
		case s.pins <- pin:
			return nil
		default:
			return errWire // nobody asked
		}
	case frameVerdict:
		e := c.error()
		if err := c.end(); err != nil {
			return err
		}
		select {
		case s.verdicts <- e:
			return nil
		default:
			return errWire
		}
	case frameClose:
		if err := c.end(); err != nil {
			return err
		}
		return s.do(func() {
			if e := s.executor(); e != nil {
				e.close()
				e.join(farewell / 2)
			}
			if s.token != nil {
				_ = s.token.close() // the process ends anyway
			}
			os.Exit(0)
		})
	}
	return errWire
}

// do has the main goroutine do something. One thing at a time is ever asked for.
func (s *workerServer) do(f func()) error {
	select {
	case s.todo <- f:
		return nil
	default:
		return errWire
	}
}

func (s *workerServer) executor() *executor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exec
}

func (s *workerServer) tasks(c *cursor) error {
	var tasks []*task
	for len(c.b) > 0 {
		t := c.task(&s.slots)
		if c.bad {
			return errWire
		}
		tasks = append(tasks, t)
	}
	e := s.executor()
	if e == nil {
		return errWire
	}
	e.submit(tasks)
	return nil
}

// open logs in, or enrols the token.
func (s *workerServer) open(f *openFrame, enrol *enrolFrame) {
	if s.token == nil {
		cfg := &MemberConfig{Module: f.module, TokenLabel: f.label, TokenSerial: f.serial, MaxSessions: f.maxSessions, Workers: f.workers, CallTimeout: f.callTimeout}
		s.token = &tokenWorker{cfg: cfg, pin: &pinByWire{s}}
	}
	if enrol != nil {
		err := s.token.enrol(enrol)
		clear(enrol.key)
		if err != nil {
			s.failed(err)
			return
		}
		s.send(frameOpened, func(b []byte) []byte { return putIdentity(b, &identity{Group: enrol.group, Lanes: 1, Width: 1}) })
		return
	}
	id, err := s.token.open()
	if err != nil {
		s.failed(err)
		return
	}
	// A goroutine keeps its processor, in Go's sense, for a while after it has gone into the library: with as many as sessions none
	// waits for one.
	runtime.GOMAXPROCS(runtime.NumCPU() + id.Lanes)
	s.mu.Lock()
	s.exec = executorOf(s.token, id, s.answer, func(op Op, d time.Duration) {
		s.send(frameStuck, func(b []byte) []byte { return putStuck(b, op, d) })
	})
	s.mu.Unlock()
	s.send(frameOpened, func(b []byte) []byte { return putIdentity(b, id) })
	go s.alive()
}

func (s *workerServer) failed(err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Kind: KindUnavailable, fate: fateDown, Err: err}
	}
	s.figures() // the codes that were met
	s.send(frameFailed, func(b []byte) []byte { return putError(b, e) })
}

func (s *workerServer) send(kind frameKind, body func([]byte) []byte) {
	s.out.put(func(b []byte) []byte {
		b, start := beginFrame(b, kind)
		return endFrame(body(b), start)
	})
	s.out.flush()
}

// answer sends answers. Lanes call it.
func (s *workerServer) answer(tasks []*task) {
	s.out.put(func(b []byte) []byte {
		b, start := beginFrame(b, frameAnswers)
		for _, t := range tasks {
			if len(b)-start > fullFrame {
				b, start = beginFrame(endFrame(b, start), frameAnswers)
			}
			b = putAnswer(b, t)
			clear(t.out)
		}
		return endFrame(b, start)
	})
	s.out.flush()
}

// alive tells now and then, while there is work and when something has changed, that the process is there, whatever its calls
// are doing. It ends with the process.
func (s *workerServer) alive() {
	var last load
	for range time.Tick(aliveInterval) {
		if now := s.load(); s.exec.working() || now != last {
			last = now
			s.figures()
		}
	}
}

func (s *workerServer) load() load {
	sessions, keys := s.token.load()
	l := load{sessions, keys, 1}
	if e := s.executor(); e != nil {
		l.width = e.lanesAtWork()
	}
	return l
}

func (s *workerServer) figures() {
	f := &figures{load: s.load(), codes: s.token.codes.take()}
	s.send(frameAlive, func(b []byte) []byte { return putFigures(b, f) })
}

// pinByWire is the worker's way to its member's PIN, which the daemon keeps.
type pinByWire struct{ s *workerServer }

func (p *pinByWire) present(login func(pin []byte) error) error {
	p.s.send(frameNeedPIN, func(b []byte) []byte { return b })
	var outcome error
	select {
	case pin := <-p.s.pins:
		if len(pin) == 0 { // it is ours
			pin, outcome = ownPIN()
		}
		if outcome == nil {
			outcome = login(pin)
		}
		clear(pin)
	case e := <-p.s.verdicts: // there will be none
		return orNil(e)
	}
	p.s.send(frameTried, func(b []byte) []byte {
		if outcome == nil {
			return putError(b, nil)
		}
		return putError(b, &Error{Kind: KindUnavailable, fate: fateDown, Err: outcome})
	})
	return orNil(<-p.s.verdicts)
}

// OwnPIN is the name of the systemd credential with the PIN of a worker that is a unit.
const OwnPIN = "pin"

// ownPIN reads the PIN that systemd has given to this process. The caller wipes it.
func ownPIN() ([]byte, error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return nil, errors.New("the daemon leaves the PIN to this worker, and its unit has no credential: LoadCredentialEncrypted=" + OwnPIN + ":FILE")
	}
	pin, err := os.ReadFile(filepath.Join(dir, OwnPIN))
	return bytes.TrimRight(pin, "\r\n"), err
}

func (p *pinByWire) refuse(why string) error {
	p.s.send(frameRefuse, func(b []byte) []byte { return putText(b, why) })
	return orNil(<-p.s.verdicts)
}

func orNil(e *Error) error {
	if e == nil {
		return nil
	}
	return e
}
