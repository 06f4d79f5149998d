package pkcs11front

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// times are how long things wait. A connection that is idle is never closed: the next call of a program with p11-kit's client would be its
// last, by SIGPIPE.
type times struct {
	start    time.Duration // until the offer and the first frame have come
	frame    time.Duration // for the rest of a frame that has begun
	write    time.Duration // for a client to read its answers; twice that at most
	refusal  time.Duration // for all of a connection that is one too many
	call     time.Duration // for a call; twice that at most, see conn.context
	linger   time.Duration // for a client with a cookie to come back
	stranger time.Duration // that the connection of somebody whom keyward does not know may be idle
	login    time.Duration // until the PIN of a principal is looked at again: so long applications go on when it is set or changed
}

var standardTimes = times{start: 10 * time.Second, frame: 10 * time.Second, write: 30 * time.Second, refusal: 2 * time.Second,
	call: time.Minute, linger: 30 * time.Second, login: time.Second, stranger: time.Minute}

// Limits of a connection.
const (
	maxInFlight       = 64      // requests that are being answered; then no more are read
	maxInFlightOctets = 4 << 20 // of their bodies
	keptBuffer        = 64 << 10
	flushAt           = 256 << 10 // octets of answers that wait for the rest of a pipeline
	maxRefusing       = 64        // connections over a limit, of all users, that are told so; others are just closed
)

// conn is a connection. Its goroutine reads requests, and answers itself those of the dialect Keyward, whose clients use a connection from one
// thread at a time, and those that name no session. The other dialects have one connection for all threads of a client: calls of their sessions
// are answered in lanes, one for each session that has something to do.
type conn struct {
	front   *Front
	net     net.Conn
	peer    Peer
	dialect p11rpc.Dialect
	refused bool        // it is one too many
	strange bool        // keyward did not know the peer when it connected: little is kept for it, and not for long
	counted bool        // for its user. Guarded by Front.mu
	started atomic.Bool // the dialect is known
	frozen  atomic.Bool // no more is to be read: see Hold
	held    bool        // it is kept for the next daemon; of the connection's goroutine
	memory  *memory     // of its user

	ctx    context.Context // ends with the connection
	cancel context.CancelFunc

	// Of the connection's goroutine.
	app    *application // between C_Initialize and C_Finalize
	name   string       // begins the request IDs of its calls
	calls  uint64       // that were read
	in     p11rpc.Input // wiped as it is done with: there are PINs, keys and plaintexts among the arguments
	inline request
	out    []byte // answers that are not written yet
	timed  bool   // there is a deadline for reading

	callCtx    context.Context
	callCancel context.CancelFunc // is not called: earlier calls may still use it, and it ends with ctx
	until      time.Time          // as long as callCtx is good for new calls

	writing  sync.Mutex // held while something is written; guards what follows
	deadline time.Time
	broken   error // of a write: half an answer may be out, and nothing can follow that

	running sync.WaitGroup // goroutines of lanes

	mu       sync.Mutex          // guards what follows; no other lock is taken under it
	lanes    map[uint64]*request // by session: the last call of a lane
	inFlight int                 // calls in lanes
	octets   int                 // of their bodies
	room     sync.Cond           // of mu: something was answered
}

func newConn(f *Front, nc net.Conn) *conn {
	c := &conn{front: f, net: nc, lanes: map[uint64]*request{}}
	c.room.L = &c.mu
	c.name = rand.Text()[:12] + "-"
	c.ctx, c.cancel = context.WithCancel(f.ctx)
	return c
}

// run serves the connection to its end.
func (c *conn) run(who func(net.Conn) (Peer, error)) {
	defer c.end()
	peer, err := who(c.net)
	if err != nil {
		c.front.cfg.Log.Warn().Err(err).Msg("a PKCS #11 client could not be identified")
		return
	}
	c.peer = peer
	c.front.identified(c)
	if c.refused {
		c.front.counters.refused.Add(1)
		if c.front.refusing.Add(1) > maxRefusing {
			c.front.refusing.Add(-1)
			return
		}
		defer c.front.refusing.Add(-1)
	}
	c.log(c.serve())
}

// log tells why a connection has ended, and notes it if it is to be held.
func (c *conn) log(err error) {
	c.held = err == errHeld
	if err != nil && !c.held && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		c.front.cfg.Log.Debug().Uint32("uid", c.peer.UID).Int32("pid", c.peer.PID).Err(err).Msg("a PKCS #11 connection was closed")
	}
}

// end closes the connection, when calls that are being answered have ended. Unless the door is closing they are cancelled: nobody waits for
// them any more.
func (c *conn) end() {
	if !c.front.isDraining() {
		c.cancel()
	}
	c.running.Wait()
	if c.held {
		c.hold()
	}
	c.cancel()
	c.net.Close()
	if c.app != nil {
		c.front.leave(c.app)
	}
	c.in.Wipe()
	clear(c.out[:cap(c.out)])
}

// drain lets no more requests in. Those that have come as a whole are read and answered still, so that a client whose next write fails knows
// that this request was not executed.
func (c *conn) drain() {
	if half, ok := c.net.(interface{ CloseRead() error }); ok && half.CloseRead() == nil {
		return
	}
	c.net.Close() // no kind of connection that the daemon has
}

// serve reads and answers until the client is gone or sends what is no frame.
func (c *conn) serve() error {
	if err := c.start(); err != nil {
		return err
	}
	c.started.Store(true)
	return c.loop(true)
}

// loop is serve when the dialect is known. first: the first frame is under the deadline of the start.
func (c *conn) loop(first bool) error {
	for ; ; first = false {
		f, err := c.next(first)
		if err == errHeld {
			if err := c.flush(); err != nil {
				return err
			}
			return errHeld
		}
		if err != nil {
			return errors.Join(err, c.flush())
		}
		if c.strange {
			if err := c.front.recognize(c); err != nil {
				return err
			}
		}
		if err := c.handle(f); err != nil {
			return err
		}
		more := c.in.Buffered()
		c.in.Done()
		if (!more || len(c.out) > flushAt) && len(c.out) > 0 {
			if err := c.flush(); err != nil {
				return err
			}
		}
		if c.refused {
			return nil
		}
	}
}

// start reads the offer, the first octet, and answers it.
func (c *conn) start() error {
	limit := c.front.cfg.times.start
	if c.refused {
		limit = c.front.cfg.times.refusal
	}
	if err := c.net.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	c.timed = true
	if err := c.in.Fill(c.net); err != nil {
		return err
	}
	offer, ok := c.in.Octet()
	d, answer, known := p11rpc.DialectOf(offer)
	if !ok || !known {
		return errors.New("the offer is none of a PKCS #11 client")
	}
	c.dialect = d
	return c.write([]byte{answer})
}

// next reads a frame. The first one is under the deadline of the start; later ones may be waited for, but not for their rest.
func (c *conn) next(first bool) (p11rpc.Frame, error) {
	for {
		f, ok, err := c.in.Next()
		switch {
		case err != nil:
			return f, err
		case ok && !c.timed:
			return f, nil
		case ok:
			c.timed = false
			return f, c.net.SetReadDeadline(time.Time{})
		}
		if c.frozen.Load() {
			return f, errHeld
		}
		begun := c.in.Begun()
		if wait := c.patience(begun); wait > 0 && !c.timed && !first {
			if err := c.net.SetReadDeadline(time.Now().Add(wait)); err != nil {
				return f, err
			}
			c.timed = begun
		}
		if err := c.in.Fill(c.net); err != nil {
			if c.frozen.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
				return f, errHeld
			}
			if begun && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return f, err
		}
	}
}

// patience is how long the next octets are waited for; 0: for ever.
func (c *conn) patience(begun bool) time.Duration {
	switch {
	case begun:
		return c.front.cfg.times.frame
	case c.strange:
		return c.front.cfg.times.stranger
	}
	return 0
}

// handle answers a request, or puts it into its lane: if its session is there, and its user may hold so much.
func (c *conn) handle(f p11rpc.Frame) error {
	q := &c.inline
	c.begin(q, f)
	if c.dialect == p11rpc.Keyward || q.early != ck.CKR_OK || !q.row.session || c.quick(q, f) || !c.app.has(q.sessionID) {
		stop := func() {}
		if longCalls[q.number] {
			stop = c.watch()
		}
		c.out = q.answer(c.out)
		stop()
		return nil
	}
	if err := c.flush(); err != nil { // of what was answered before
		return err
	}
	if !c.queue(f) {
		c.out = p11rpc.AppendError(c.out, f.Serial, ck.CKR_HOST_MEMORY)
		p11rpc.FinishFrame(c.out)
	}
	return nil
}

// begin makes a request of a frame.
func (c *conn) begin(q *request, f p11rpc.Frame) {
	c.calls++
	*q = request{front: c.front, conn: c, app: c.app, dialect: c.dialect, ctx: c.context(), call: c.calls, serial: f.Serial, raw: f.Body, body: q.body, reader: q.reader, writer: q.writer}
	if f.TooLong {
		q.in, q.out = &q.reader, &q.writer
		q.early = ck.CKR_DATA_LEN_RANGE
		return
	}
	q.parse(f.Body)
}

// context gives the context of a new call. Making one for each costs more than many a call, so one is for all that begin within a minute.
func (c *conn) context() context.Context {
	if now := time.Now(); now.After(c.until) {
		c.until = now.Add(c.front.cfg.times.call)
		c.callCtx, c.callCancel = context.WithDeadline(c.ctx, now.Add(2*c.front.cfg.times.call))
	}
	return c.callCtx
}

// flush writes what was answered.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	err := c.write(c.out)
	clear(c.out)
	c.out = c.out[:0]
	if cap(c.out) > keptBuffer {
		c.out = nil
	}
	return err
}

// write writes whole answers. A client that does not read them holds up nobody but itself, and not for ever.
func (c *conn) write(b []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.broken != nil {
		return c.broken
	}
	// Setting a deadline costs as much as a small write, so one is good for several writes.
	if now := time.Now(); c.deadline.Sub(now) < c.front.cfg.times.write {
		c.deadline = now.Add(2 * c.front.cfg.times.write)
		c.broken = c.net.SetWriteDeadline(c.deadline)
	}
	if c.broken == nil {
		_, c.broken = c.net.Write(b)
	}
	return c.broken
}

// initialize gives the connection its application.
func (c *conn) initialize(cookie string, actor *kms.Actor) ck.RV {
	if c.app != nil {
		if !c.app.isEnded() {
			return ck.CKR_CRYPTOKI_ALREADY_INITIALIZED
		}
		c.front.leave(c.app) // another connection has finalized it
		c.app = nil
	}
	a, rv := c.front.join(c, cookie, actor)
	if rv == ck.CKR_OK {
		c.app = a
	}
	return rv
}

// finalize ends the application.
func (c *conn) finalize() {
	c.front.endApplication(c.app)
	c.front.leave(c.app)
	c.app = nil
}
