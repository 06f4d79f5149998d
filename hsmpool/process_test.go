package hsmpool

import (
	"bytes"
	"context"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// socketPair gives both ends of a stream, which are closed with the test.
func socketPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		ends[i] = c.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

// testChild is a child without a process.
func testChild(t *testing.T) *child {
	t.Helper()
	conn, _ := socketPair(t)
	out, err := newFrameWriter(conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); out.close() })
	cfg := &MemberConfig{}
	return &child{conn: conn, out: out, pin: newPINGuard(cfg), ev: noEvents{}, opened: make(chan openResult, 1),
		tried: make(chan error, 1), dead: make(chan struct{})}
}

// TestWorkerLeavesAHelper has a worker process end and leave a process behind that has its socket and its standard error, as a
// library does that starts a helper.
func TestWorkerLeavesAHelper(t *testing.T) {
	for _, script := range []string{"sleep 20 & exit 1", "sleep 20 & exit 0", "sleep 20 & kill -9 $$"} {
		o := &workerProcess{cfg: &MemberConfig{}, command: []string{"/bin/sh", "-c", script}, pin: newPINGuard(&MemberConfig{})}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		began := time.Now()
		_, _, err := o.open(ctx, noEvents{})
		cancel()
		if err == nil || time.Since(began) > 5*time.Second {
			t.Errorf("%s: after %v: %v", script, time.Since(began), err)
		}
		t.Log(err)
	}
}

// TestCancelBetweenTasks puts other frames between tasks, while the ones before are being written, of every length.
func TestCancelBetweenTasks(t *testing.T) {
	for size := 32; size < 32+13; size++ {
		for cancels := range 16 {
			c := testChild(t)
			c.out.mu.Lock()
			c.out.writing = true // somebody is: flush does nothing
			c.out.mu.Unlock()
			x := &task{op: SignECDSA, key: &Key{ID: "k", Type: P256, Usage: UseSign, Wrapped: make([]byte, size)}, in: make([]byte, 32)}
			c.post(x, 0, true)
			c.out.mu.Lock()
			c.out.pending = nil // taken to be written
			c.out.mu.Unlock()
			for id := range cancels {
				c.cancel(uint64(id))
			}
			c.post(x, 0, true)
			c.out.mu.Lock()
			in := newFrameReader(bytes.NewReader(c.out.pending))
			c.out.writing = false
			c.out.mu.Unlock()
			for range cancels {
				if kind, body, err := in.next(); err != nil || kind != frameCancel || len(body) != 8 {
					t.Fatalf("a key of %d octets, %d times: %d of %d octets, %v", size, cancels, kind, len(body), err)
				}
			}
			if kind, _, err := in.next(); err != nil || kind != frameTasks {
				t.Fatalf("a key of %d octets, %d times: %d, %v", size, cancels, kind, err)
			}
		}
	}
}

// TestWorkerAsksAgain has a worker ask for the PIN again and again: it must not keep the daemon busy.
func TestWorkerAsksAgain(t *testing.T) {
	for _, ask := range []frameKind{frameNeedPIN, frameRefuse} {
		c := testChild(t)
		hold := make(chan struct{})
		c.pin = slowPIN(hold)
		body := putText(nil, "")
		if ask == frameNeedPIN {
			body = nil
		}
		if err := c.handle(ask, &cursor{b: body}); err != nil {
			t.Error(err)
		}
		if err := c.handle(ask, &cursor{b: body}); err != errWire {
			t.Errorf("asked %d twice: %v", ask, err)
		}
		close(hold)
		eventually(t, "it may ask again", func() bool { return c.handle(ask, &cursor{b: body}) == nil })
	}
	c := testChild(t)
	if err := c.handle(frameTried, &cursor{b: putError(nil, nil)}); err != errWire {
		t.Errorf("tried what it was not given: %v", err)
	}
}

// slowPIN is a keeper that takes until it is closed.
type slowPIN chan struct{}

func (p slowPIN) present(func([]byte) error) error { <-p; return nil }
func (p slowPIN) refuse(string) error              { <-p; return nil }

// TestDeadWorkersGetNoPIN has workers end while they wait for their turn to log in: these are no tries.
func TestDeadWorkersGetNoPIN(t *testing.T) {
	g := newPINGuard(&MemberConfig{PIN: func() ([]byte, error) { return []byte("1234"), nil }})
	for i := range 2 * maxVague {
		c := testChild(t)
		c.pin = g
		if c.cause.Store(errStuck); i%2 == 0 {
			close(c.dead)
		}
		c.present()
	}
	if why := g.wasRefused(); why != nil {
		t.Error(why)
	}
}

// TestWriterForgets: what can't be written any more does not stay in memory, nor does what has moved to a larger buffer.
func TestWriterForgets(t *testing.T) {
	conn, _ := socketPair(t)
	w, err := newFrameWriter(conn)
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("a secret")
	var was []byte
	w.put(func(b []byte) []byte { was = append(b, secret...); return was })
	w.put(func(b []byte) []byte { return append(b, make([]byte, 1<<10)...) })
	if bytes.Contains(was, secret) {
		t.Error("the buffer that became too small still has what was in it")
	}
	conn.Close()
	w.close()
	w.put(func(b []byte) []byte { was = append(b, secret...); return was })
	if bytes.Contains(was, secret) || len(w.pending) > 0 {
		t.Error("a closed writer keeps what is put")
	}
}
