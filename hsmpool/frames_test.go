package hsmpool

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"
)

// sockets is what a worker and the daemon have between them: small buffers, so that they are full soon.
func sockets(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10); err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c.(*net.UnixConn)
		t.Cleanup(func() { c.Close() })
	}
	return conns[0], conns[1]
}

func writerTo(t *testing.T, conn *net.UnixConn) *frameWriter {
	t.Helper()
	w, err := newFrameWriter(conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		w.close()
	})
	return w
}

func putFrame(w *frameWriter, kind frameKind, body []byte) {
	w.put(func(b []byte) []byte {
		b, start := beginFrame(b, kind)
		return endFrame(append(b, body...), start)
	})
}

// numbered is a body of n octets that says which it is.
func numbered(i, n int) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, n), uint64(i))
	return append(b, bytes.Repeat([]byte{byte(i)}, n-8)...)
}

// TestFrameWriterDoesNotWait writes to somebody who does not read: whoever puts and flushes goes on at once, and everything
// arrives in its order when the other reads at last.
func TestFrameWriterDoesNotWait(t *testing.T) {
	conn, peer := sockets(t)
	w := writerTo(t, conn)
	const n, size = 200, 20_000 // 4 MB, many times what the socket takes
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := range n {
			putFrame(w, frameAnswers, numbered(i, size))
			w.flush()
		}
	}()
	within(t, "writing to nobody", 10*time.Second, written)
	w.mu.Lock()
	if !w.writing || len(w.pending) == 0 {
		t.Error("the socket took everything: the test does not test")
	}
	w.mu.Unlock()
	in := newFrameReader(peer)
	for i := range n {
		kind, body, err := in.next()
		if err != nil || kind != frameAnswers || !bytes.Equal(body, numbered(i, size)) {
			t.Fatalf("frame %d: kind %d, %d octets, %v", i, kind, len(body), err)
		}
	}
	if err := w.error(); err != nil {
		t.Error(err)
	}
}

// TestFrameWriterMany has many put and flush at once, on both sides of a full socket.
func TestFrameWriterMany(t *testing.T) {
	conn, peer := sockets(t)
	w := writerTo(t, conn)
	const writers, each = 8, 400
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				putFrame(w, frameKind(i+1), numbered(j, 8+(i*j)%3000))
				if j%3 != 0 || j == each-1 {
					w.flush()
				}
			}
		})
	}
	var next [writers + 1]uint64
	in := newFrameReader(peer)
	for range writers * each {
		kind, body, err := in.next()
		if err != nil {
			t.Fatal(err)
		}
		if i := binary.BigEndian.Uint64(body); i != next[kind] || !bytes.Equal(body, numbered(int(i), len(body))) {
			t.Fatalf("of writer %d came %d, not %d", kind, i, next[kind])
		}
		next[kind]++
	}
	wg.Wait()
}

// TestFrameWriterWipes looks for a secret in every buffer of the writer after it was written: at once, and by the goroutine that
// writes the rest.
func TestFrameWriterWipes(t *testing.T) {
	secret := bytes.Repeat([]byte("secret"), 10)
	for name, filler := range map[string]int{"at once": 0, "later": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			conn, peer := sockets(t)
			w := writerTo(t, conn)
			var seen [][]byte // the whole memory of each buffer that anything was put into
			w.put(func(b []byte) []byte {
				b, start := beginFrame(b, framePIN)
				b = endFrame(append(append(b, make([]byte, filler/4)...), secret...), start)
				seen = append(seen, b[:cap(b)])
				return b
			})
			w.flush()
			if filler > 0 {
				// While the first waits for its reader.
				w.put(func(b []byte) []byte {
					b, start := beginFrame(b, framePIN)
					b = endFrame(append(append(b, make([]byte, filler/4)...), secret...), start)
					seen = append(seen, b[:cap(b)])
					return b
				})
				w.flush()
			}
			in := newFrameReader(peer)
			for range seen {
				if _, body, err := in.next(); err != nil || !bytes.HasSuffix(body, secret) {
					t.Fatalf("%d octets, %v", len(body), err)
				}
			}
			// It has all been read; the turn ends in a moment.
			w.mu.Lock()
			defer w.mu.Unlock()
			for w.writing {
				w.idle.Wait()
			}
			for i, b := range append(seen, w.pending[:cap(w.pending)], w.spare[:cap(w.spare)]) {
				if bytes.Contains(b, []byte("secret")) {
					t.Errorf("buffer %d still has it", i)
				}
			}
			if cap(w.spare) > maxIdleBuffer {
				t.Errorf("%d octets are kept for the next time", cap(w.spare))
			}
		})
	}
}

// TestFrameWriterCloses closes a writer in the middle of a write that the other end does not take.
func TestFrameWriterCloses(t *testing.T) {
	conn, _ := sockets(t)
	w, err := newFrameWriter(conn)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if i < 100 {
					putFrame(w, frameAnswers, numbered(i, 30_000))
				}
				w.flush()
			}
		})
	}
	for { // until a write waits
		w.mu.Lock()
		waits := w.writing && len(w.pending) > 0
		w.mu.Unlock()
		if waits {
			break
		}
		time.Sleep(time.Millisecond)
	}
	closed := make(chan struct{})
	go func() {
		conn.Close()
		w.close()
		close(closed)
	}()
	within(t, "close", 10*time.Second, closed)
	close(stop)
	wg.Wait()
	if w.error() == nil {
		t.Error("a closed writer has no error")
	}
	putFrame(w, frameAnswers, []byte("late"))
	w.flush()
	if len(w.pending) != 0 {
		t.Errorf("%d octets wait for nobody", len(w.pending))
	}
}

// TestFrameWriterPeerGone writes to somebody who has gone, before and while the writer waits for them.
func TestFrameWriterPeerGone(t *testing.T) {
	for _, early := range []bool{true, false} {
		conn, peer := sockets(t)
		w := writerTo(t, conn)
		if early {
			peer.Close()
		}
		putFrame(w, frameAnswers, make([]byte, 1<<19))
		w.flush()
		peer.Close()
		ended := make(chan struct{})
		go func() {
			w.mu.Lock()
			for w.writing {
				w.idle.Wait()
			}
			w.mu.Unlock()
			close(ended)
		}()
		within(t, "the write", 10*time.Second, ended)
		if w.error() == nil {
			t.Errorf("gone early: %v: no error", early)
		}
		putFrame(w, frameAnswers, []byte("late"))
		w.flush()
		if len(w.pending) != 0 {
			t.Errorf("gone early: %v: %d octets wait for nobody", early, len(w.pending))
		}
	}
}

// TestFrameReaderPieces gives a reader its frames an octet at a time, and all at once.
func TestFrameReaderPieces(t *testing.T) {
	var stream []byte
	sizes := []int{8, 9, 100, 64 << 10, 8, 200_000, 8, maxFrame - 1, 8, 65_530, 65_531, 65_532}
	for i, n := range sizes {
		stream = append(stream, frameOf(frameAnswers, numbered(i, n)...)...)
	}
	for name, r := range map[string]io.Reader{
		"octets":        iotest.OneByteReader(bytes.NewReader(stream)),
		"halves":        iotest.HalfReader(bytes.NewReader(stream)),
		"whole":         bytes.NewReader(stream),
		"end with data": iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		in := newFrameReader(r)
		for i, n := range sizes {
			kind, body, err := in.next()
			if err != nil || kind != frameAnswers || !bytes.Equal(body, numbered(i, n)) {
				t.Fatalf("%s: frame %d of %d octets: %d, %v", name, i, n, len(body), err)
			}
			clear(body) // as the daemon does: what follows must not suffer
		}
		if _, _, err := in.next(); err != io.EOF {
			t.Errorf("%s: at the end: %v", name, err)
		}
		if len(in.buf) > 2*maxFrame+2*headSize {
			t.Errorf("%s: a buffer of %d", name, len(in.buf))
		}
	}
}
