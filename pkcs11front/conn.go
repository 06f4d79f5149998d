package pkcs11front

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// times are how long things wait. A connection that is idle is never closed: the next call of a program with p11-kit's client would be its
// last, by SIGPIPE.
type times struct {
	start   time.Duration // until the offer and the first frame have come
	frame   time.Duration // for the rest of a frame that has begun
	write   time.Duration // for a client to read its answers; twice that at most
	refusal time.Duration // for all of a connection that is one too many
	call    time.Duration // for a call; twice that at most, see conn.context
	linger  time.Duration // for a client with a cookie to come back
	pinless time.Duration // until a principal without a PIN is looked at again: so long applications go on when one is set
}

var standardTimes = times{start: 10 * time.Second, frame: 10 * time.Second, write: 30 * time.Second, refusal: 2 * time.Second,
	call: time.Minute, linger: 30 * time.Second, pinless: time.Second}

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
	refused bool // it is one too many
	counted bool // for its user. Guarded by Front.mu

	ctx      context.Context // ends with the connection
	cancel   context.CancelFunc
	stranger sync.Once // who logs that keyward does not know the peer

	// Of the connection's goroutine.
	app    *application // between C_Initialize and C_Finalize
	in     []byte       // what was read: in[done:]
	done   int
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
	if err := c.serve(); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
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
	c.cancel()
	c.net.Close()
	if c.app != nil {
		c.front.leave(c.app)
	}
	clear(c.in[:cap(c.in)])
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
	for first := true; ; first = false {
		f, err := c.next(first)
		if err != nil {
			return errors.Join(err, c.flush())
		}
		if err := c.handle(f); err != nil {
			return err
		}
		c.done += f.size
		if (!c.whole() || len(c.out) > flushAt) && len(c.out) > 0 {
			if err := c.flush(); err != nil {
				return err
			}
		}
		if c.refused {
			return nil
		}
		if c.done == len(c.in) {
			c.recycle()
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
	for len(c.in) == 0 {
		if err := c.fill(1); err != nil {
			return err
		}
	}
	d, answer, ok := p11rpc.DialectOf(c.in[0])
	if !ok {
		return errors.New("the offer is none of a PKCS #11 client")
	}
	c.done = 1
	c.dialect = d
	return c.write([]byte{answer})
}

// frame is a request. The body is a part of the connection's buffer.
type frame struct {
	serial uint32
	body   []byte
	size   int // octets of all of it
}

// next reads a frame. The first one is under the deadline of the start; later ones may be waited for, but not for their rest.
func (c *conn) next(first bool) (frame, error) {
	for {
		have := c.in[c.done:]
		need := p11rpc.HeaderSize
		if len(have) >= need {
			h, err := p11rpc.ParseHeader(have)
			if err != nil {
				return frame{}, err
			}
			need += h.Options + h.Body
			if len(have) >= need {
				if c.timed {
					c.timed = false
					if err := c.net.SetReadDeadline(time.Time{}); err != nil {
						return frame{}, err
					}
				}
				return frame{h.Serial, have[need-h.Body : need], need}, nil
			}
		}
		if len(have) > 0 && !c.timed && !first {
			if err := c.net.SetReadDeadline(time.Now().Add(c.front.cfg.times.frame)); err != nil {
				return frame{}, err
			}
			c.timed = true
		}
		if err := c.fill(need); err != nil {
			if len(have) > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return frame{}, err
		}
	}
}

// whole says whether the next frame has come already.
func (c *conn) whole() bool {
	have := c.in[c.done:]
	if len(have) < p11rpc.HeaderSize {
		return false
	}
	h, err := p11rpc.ParseHeader(have)
	return err != nil || len(have) >= p11rpc.HeaderSize+h.Options+h.Body
}

const firstBuffer = 4 << 10

// fill reads once, towards need octets after c.done. The buffer grows with what has come, not with what a header announces.
func (c *conn) fill(need int) error {
	if c.done > 0 && cap(c.in)-c.done < need {
		n := copy(c.in, c.in[c.done:])
		clear(c.in[n:])
		c.in, c.done = c.in[:n], 0
	}
	if len(c.in) == cap(c.in) {
		grown := make([]byte, len(c.in), max(firstBuffer, min(need, 4*cap(c.in))))
		copy(grown, c.in)
		clear(c.in)
		c.in = grown
	}
	n, err := c.net.Read(c.in[len(c.in):cap(c.in)])
	c.in = c.in[:len(c.in)+n]
	if n > 0 {
		return nil
	}
	return err
}

// recycle empties the buffer, of which all was answered.
func (c *conn) recycle() {
	clear(c.in)
	c.in, c.done = c.in[:0], 0
	if cap(c.in) > keptBuffer {
		c.in = nil
	}
}

// handle answers a request, or puts it into its lane.
func (c *conn) handle(f frame) error {
	q := &c.inline
	c.begin(q, f)
	if c.dialect == p11rpc.Keyward || q.early != ck.CKR_OK || !q.row.session || c.quick(q, f) {
		stop := func() {}
		if longCalls[q.number] {
			stop = c.watch()
		}
		c.out = q.answer(c.out)
		stop()
		clear(f.body) // it may have been a PIN, a key, a plaintext
		return nil
	}
	if err := c.flush(); err != nil { // of what was answered before
		return err
	}
	c.queue(f)
	clear(f.body)
	return nil
}

// longCalls make keys, which can take many seconds in an HSM.
var longCalls = [numCalls]bool{20: true, 58: true, 59: true, 61: true} // C_CreateObject, C_GenerateKey, C_GenerateKeyPair, C_UnwrapKey

// watch cancels the connection's calls when the client goes away. It is for when the connection's goroutine is in a call and can't see that itself;
// stop ends it.
func (c *conn) watch() (stop func()) {
	raw, err := rawConn(c.net)
	if err != nil {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		gone := false
		_ = raw.Read(func(fd uintptr) bool { // an error is that of stop
			n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
			gone = n == 0 && err == nil
			return !errors.Is(err, unix.EAGAIN)
		})
		if gone && !c.front.isDraining() { // which looks the same from here
			c.cancel()
		}
	}()
	return func() {
		_ = c.net.SetReadDeadline(time.Unix(1, 0)) // if it fails the connection is closed, and so is the watch
		<-done
		_ = c.net.SetReadDeadline(time.Time{})
	}
}

func rawConn(nc net.Conn) (syscall.RawConn, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return sc.SyscallConn()
}

// quickCalls wait for nothing: no HSM, no disk. Answered at once they keep the other threads of a client waiting for less than a lane costs,
// which is 8 us.
var quickCalls = func() (quick [numCalls]bool) {
	for _, call := range []p11rpc.CallID{
		11, 13, 19, // C_CloseSession, C_GetSessionInfo, C_Logout
		23, 24, 26, 27, 28, // C_GetObjectSize, C_GetAttributeValue, C_FindObjects*
		29, 33, 42, 48, // Inits
		37, 38, 39, 40, 41, 44, 50, // digests, C_SignUpdate, C_VerifyUpdate
		63, 64, 67, // C_SeedRandom, C_GenerateRandom, C_SessionCancel
	} {
		quick[call] = true
	}
	return quick
}()

const quickOctets = 4 << 10 // of a body

// quick says whether a call of a session is answered at once: it must not overtake others of the session either.
func (c *conn) quick(q *request, f frame) bool {
	if !quickCalls[q.number] || len(f.body) > quickOctets {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lanes[q.sessionID] == nil
}

// begin makes a request of a frame.
func (c *conn) begin(q *request, f frame) {
	*q = request{front: c.front, conn: c, app: c.app, dialect: c.dialect, ctx: c.context(), serial: f.serial, body: q.body, reader: q.reader, writer: q.writer}
	q.parse(f.body)
}

// context gives the context of a new call. Making one for each costs more than many a call, so one is for all that begin within a minute.
func (c *conn) context() context.Context {
	if now := time.Now(); now.After(c.until) {
		c.until = now.Add(c.front.cfg.times.call)
		c.callCtx, c.callCancel = context.WithDeadline(c.ctx, now.Add(2*c.front.cfg.times.call))
	}
	return c.callCtx
}

var requests = sync.Pool{New: func() any { return new(request) }}

// queue puts a request into the lane of its session, when there is room for it.
func (c *conn) queue(f frame) {
	q := requests.Get().(*request)
	q.body = append(q.body[:0], f.body...)
	c.begin(q, frame{serial: f.serial, body: q.body})
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.inFlight > 0 && (c.inFlight >= maxInFlight || c.octets+len(q.body) > maxInFlightOctets) {
		c.room.Wait()
	}
	c.inFlight++
	c.octets += len(q.body)
	last := c.lanes[q.sessionID]
	c.lanes[q.sessionID] = q
	if last != nil {
		last.next = q
		return
	}
	c.running.Add(1)
	go c.runLane(q)
}

// runLane answers the calls of a session, one after the other, until there are no more.
func (c *conn) runLane(q *request) {
	defer c.running.Done()
	for q != nil {
		q.frame = q.answer(q.frame[:0])
		if err := c.write(q.frame); err != nil {
			c.cancel() // nobody reads the answers of the others either
			c.net.Close()
		}
		c.mu.Lock()
		c.inFlight--
		c.octets -= len(q.body)
		c.room.Signal()
		next := q.next
		if next == nil {
			delete(c.lanes, q.sessionID)
		}
		c.mu.Unlock()
		q.recycle()
		q = next
	}
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
