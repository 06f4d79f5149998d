package hsmpool

import (
	"encoding/binary"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// frameReader reads frames from a stream. One goroutine uses it.
type frameReader struct {
	r    io.Reader
	buf  []byte
	at   int // what is before was given out
	have int // what was read
}

func newFrameReader(r io.Reader) *frameReader { return &frameReader{r: r, buf: make([]byte, 64<<10)} }

// next gives the next frame's kind and body, which is good until the following call.
func (f *frameReader) next() (kind frameKind, body []byte, err error) {
	if err := f.fill(headSize); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(f.buf[f.at:])
	if size < 1 || size > maxFrame {
		return 0, nil, errWire
	}
	if err := f.fill(4 + int(size)); err != nil {
		return 0, nil, err
	}
	frame := f.buf[f.at+4 : f.at+4+int(size)]
	f.at += 4 + int(size)
	return frameKind(frame[0]), frame[1:], nil
}

// fill makes n octets be there.
func (f *frameReader) fill(n int) error {
	if f.have-f.at >= n {
		return nil
	}
	if f.at+n > len(f.buf) {
		buf := f.buf
		if n > len(buf) {
			buf = make([]byte, max(n, 2*len(buf)))
		}
		f.have = copy(buf, f.buf[f.at:f.have])
		f.at, f.buf = 0, buf
	} else if f.at == f.have {
		f.at, f.have = 0, 0
	}
	for f.have-f.at < n {
		m, err := f.r.Read(f.buf[f.have:])
		f.have += m
		if err != nil && f.have-f.at < n {
			return err
		}
	}
	return nil
}

// frameWriter writes frames that anybody puts into it. Who puts one flushes: what the socket takes at once is written there and
// then, and what it does not is left to a goroutine, so that nobody waits for the other end.
type frameWriter struct {
	conn *net.UnixConn
	raw  syscallConn

	mu      sync.Mutex
	idle    sync.Cond // of mu: writing ended
	pending []byte    // guarded by mu
	spare   []byte    // guarded by mu
	writing bool      // somebody is; guarded by mu
	failed  error     // guarded by mu
	rest    chan unwritten
	done    chan struct{}
}

// unwritten is a buffer of which the first n octets are written.
type unwritten struct {
	b []byte
	n int
}

type syscallConn interface {
	Write(func(fd uintptr) bool) error
}

// newFrameWriter starts a goroutine that ends with close.
func newFrameWriter(conn *net.UnixConn) (*frameWriter, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	w := &frameWriter{conn: conn, raw: raw, rest: make(chan unwritten), done: make(chan struct{})}
	w.idle.L = &w.mu
	go w.writeRest()
	return w, nil
}

// maxIdleBuffer is what an idle writer keeps for the next time.
const maxIdleBuffer = 512 << 10

// put adds what f appends. f makes room for all of it at once if it is secret: what is left behind elsewhere is not wiped.
func (w *frameWriter) put(f func(b []byte) []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.pending
	w.pending = f(old)
	if cap(w.pending) != cap(old) {
		clear(old)
	}
	if w.failed != nil {
		clear(w.pending)
		w.pending = nil
	}
}

// flush writes what was put. It does not wait.
func (w *frameWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.writing && len(w.pending) > 0 && w.failed == nil {
		b := w.begin()
		n, err := w.tryWrite(b)
		if err == nil && n < len(b) {
			w.rest <- unwritten{b, n} // taken at once: writeRest is idle while nobody writes
			w.mu.Lock()
			return
		}
		w.end(b, err)
	}
}

// begin takes what is pending, as the only writer, and unlocks mu; end locks it again.
func (w *frameWriter) begin() []byte {
	b := w.pending
	w.pending, w.spare, w.writing = w.spare[:0], nil, true
	w.mu.Unlock()
	return b
}

// end ends a turn. Buffers are wiped: PINs and plaintexts go through them.
func (w *frameWriter) end(b []byte, err error) {
	clear(b)
	w.mu.Lock()
	w.writing = false
	w.idle.Signal()
	if err != nil {
		clear(w.pending)
		w.failed, w.pending = err, nil
	}
	if cap(b) <= maxIdleBuffer && w.spare == nil {
		w.spare = b[:0]
	}
}

// tryWrite writes what the socket takes at once.
func (w *frameWriter) tryWrite(b []byte) (n int, err error) {
	e := w.raw.Write(func(fd uintptr) bool {
		for n < len(b) {
			m, e := unix.Write(int(fd), b[n:])
			switch {
			case e == unix.EINTR:
				continue
			case e == unix.EAGAIN:
				return true
			case e != nil:
				err = e
				return true
			}
			n += m
		}
		return true
	})
	if err == nil {
		err = e
	}
	return n, err
}

// writeRest writes what the socket did not take at once, and what comes meanwhile.
func (w *frameWriter) writeRest() {
	defer close(w.done)
	for u := range w.rest {
		_, err := w.conn.Write(u.b[u.n:])
		w.end(u.b, err)
		for len(w.pending) > 0 && w.failed == nil && !w.writing {
			b := w.begin()
			_, err := w.conn.Write(b)
			w.end(b, err)
		}
		w.mu.Unlock()
	}
}

// error says why nothing can be written any more.
func (w *frameWriter) error() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// close ends the goroutine; what is not written is dropped. The connection must be closed before, so that no write waits.
func (w *frameWriter) close() {
	w.mu.Lock()
	if w.failed == nil {
		w.failed = net.ErrClosed
	}
	for w.writing {
		w.idle.Wait()
	}
	clear(w.pending)
	w.pending = nil
	w.mu.Unlock()
	close(w.rest)
	<-w.done
}
