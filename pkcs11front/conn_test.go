package pkcs11front

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// handleWith replaces the handler of a call, for faults that no real part can produce.
func handleWith(t *testing.T, call p11rpc.CallID, h handler) {
	row := &callTable[call].row
	was := row.handle
	row.handle = h
	t.Cleanup(func() { row.handle = was })
}

// closes waits until the door closes a connection, whatever it sends before.
func closes(t *testing.T, c net.Conn, what string) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); err != nil && !isReset(err) {
		t.Errorf("%s: %v", what, err)
	}
}

// isReset says whether the door closed a connection on which there was something to read still.
func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }

// TestSilentClients says that who is silent in the middle of something loses the connection, and who is idle keeps it.
func TestSilentClients(t *testing.T) {
	e := newEnv(t, func(c *Config) {
		c.times = standardTimes
		c.times.start, c.times.frame = time.Second, 100*time.Millisecond
	})
	idle := e.client(t, p11rpc.Offer0)
	begin := time.Now()
	nothing, offer, half := e.raw(t), e.dial(t, p11rpc.Offer1), e.dial(t, p11rpc.Offer0)
	half.send(half.request(1, hello(testCookie))[:30])
	closes(t, nothing, "no offer")
	closes(t, offer.net, "no first frame")
	closes(t, half.net, "half of the first frame")
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		for _, n := range []int{1, 11, 12, 19} {
			c := e.client(t, d)
			whole := c.request(3, nil)
			// Half a frame behind a whole one, which is answered.
			c.send(append(whole, whole[:n]...))
			c.read()
			closes(t, c.net, "half a frame")
		}
	})
	if time.Since(begin) < 2*time.Second {
		t.Error("the deadlines came early")
	}
	idle.ok(3, nil)
}

// TestOffers says which first octets are answered, and how.
func TestOffers(t *testing.T) {
	e := newEnv(t)
	for offer := range 256 {
		want := -1
		switch {
		case offer <= 2 || offer == p11rpc.OfferKeyward:
			want = offer
		case offer <= 0x7f:
			want = 2
		}
		c := e.raw(t)
		if _, err := c.Write([]byte{byte(offer)}); err != nil {
			t.Fatal(err)
		}
		got := []byte{0}
		n, err := c.Read(got)
		switch {
		case want < 0 && (n != 0 || err == nil):
			t.Errorf("the offer %#x was answered with %#x", offer, got)
		case want >= 0 && (n != 1 || got[0] != byte(want)):
			t.Errorf("the offer %#x was answered with %#x %v", offer, got, err)
		}
		c.Close()
	}
}

// TestBrokenHeaders says that a header that is none closes the connection, and nothing is allocated for what it announces.
func TestBrokenHeaders(t *testing.T) {
	e := newEnv(t)
	for _, header := range [][3]uint32{{1, p11rpc.MaxOptions + 1, 8}, {1, 0, p11rpc.MaxDiscarded + 1}, {1, 1<<32 - 1, 1<<32 - 1}, {0, 1 << 31, 0}} {
		c := e.client(t, p11rpc.Offer2)
		c.send(args{}.room(header[0]).room(header[1]).room(header[2]))
		closes(t, c.net, "a broken header")
	}
}

// TestMalformedCalls sends every call with all kinds of wrong frames. Each is answered with an error, and the connection goes on.
func TestMalformedCalls(t *testing.T) {
	e := newEnv(t)
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		c := e.client(t, d)
		s := c.session(softwareID)
		refused := func(what string, want ck.RV, frame []byte) {
			t.Helper()
			c.send(frame)
			got := c.read()
			if got.rv == ck.CKR_OK || want != ck.CKR_OK && got.rv != want {
				t.Errorf("%s: %v", what, got.rv)
			}
			if got.serial != binary.BigEndian.Uint32(frame) {
				t.Errorf("%s: serial %d", what, got.serial)
			}
		}
		for _, call := range p11rpc.Calls {
			for _, signature := range []string{call.Request + "u", "x" + call.Request, strings.Repeat("u", 300)} {
				refused(call.Name+" with signature "+signature, ck.CKR_ARGUMENTS_BAD, rawFrame(7, call.ID, signature, args{}.u(s).u(s).u(s)))
			}
			if call.Request != "" {
				refused(call.Name+" without signature", ck.CKR_ARGUMENTS_BAD, rawFrame(8, call.ID, "", nil))
				refused(call.Name+" without arguments", 0, rawFrame(9, call.ID, call.Request, nil))
				refused(call.Name+" with long counts", 0, rawFrame(9, call.ID, call.Request, args{}.u(s).y(1).room(1<<31).room(1<<31)))
			}
			refused(call.Name+" with too much", 0, rawFrame(10, call.ID, call.Request, args{}.u(s).u(1<<63).u(0).octets(make([]byte, 1000))))
		}
		for _, number := range []p11rpc.CallID{0, numCalls, 1000, 1<<32 - 1} {
			refused("a call that is none", ck.CKR_FUNCTION_NOT_SUPPORTED, rawFrame(11, number, "u", args{}.u(s)))
		}
		refused("no body", ck.CKR_ARGUMENTS_BAD, args{}.room(12).room(0).room(0))
		refused("half a call", ck.CKR_ARGUMENTS_BAD, append(args{}.room(12).room(0).room(6), 0, 0, 0, 3, 0, 0))
		refused("a signature longer than the body", ck.CKR_ARGUMENTS_BAD, append(args{}.room(13).room(0).room(8).room(3), 0xff, 0xff, 0xff, 0xff))
		// Options are read over.
		withOptions := args{}.room(14).room(6).room(8)
		c.send(append(append(withOptions, "client"...), 0, 0, 0, 3, 0, 0, 0, 0))
		if got := c.read(); got.rv != ck.CKR_OK || got.serial != 14 {
			t.Errorf("with options: %+v", got)
		}
	})
}

// TestFloodWithoutReading is a client that sends and never reads. Others are served, and it is closed when it had its time.
func TestFloodWithoutReading(t *testing.T) {
	e := newEnv(t, func(c *Config) {
		c.times = standardTimes
		c.times.write = 100 * time.Millisecond
	})
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		flood := e.client(t, d)
		// Lanes too, with an error each.
		frames := bytes.Repeat(append(flood.request(3, nil), flood.request(43, args{}.u(flood.session(softwareID)).octets(nil).room(0))...), 500)
		ended := make(chan error, 1)
		go func() {
			for {
				if _, err := flood.net.Write(frames); err != nil {
					ended <- err
					return
				}
			}
		}()
		other := e.client(t, d)
		for served := 0; ; served++ {
			begin := time.Now()
			other.ok(3, nil)
			if took := time.Since(begin); took > time.Second {
				t.Errorf("another client waited %v", took)
			}
			select {
			case err := <-ended:
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the flood was never closed")
				}
				if served < 10 {
					t.Errorf("the other client was served %d times", served)
				}
				return
			default:
			}
		}
	})
}

// TestManyConnections is one user with 2,000 connections. It gets as many as it may have; others are served meanwhile.
func TestManyConnections(t *testing.T) {
	e := newEnv(t, func(c *Config) { c.ConnectionsPerUser = 100 })
	other := e.door(t, func(p *Peer) { p.UID++ })
	var all []net.Conn
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	for range 2000 {
		c, err := net.Dial("unix", e.path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	begin := time.Now()
	c := other.client(t, p11rpc.Offer0)
	c.session(softwareID)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("another user waited %v", took)
	}
	// All that are too many are closed, and those of the limit go on. There are 101 for a moment too when the door has not accepted the rest yet.
	for s := e.front.Stats(); s.Connections != 101 || s.Refused < 1900; s = e.front.Stats() {
		time.Sleep(10 * time.Millisecond)
	}
	if n := e.front.Stats().Refused; n != 1900 {
		t.Errorf("%d were refused", n)
	}
	// One that is too many and behaves is told so.
	late := e.dial(t, p11rpc.Offer0)
	late.want(ck.CKR_HOST_MEMORY, 1, hello(testCookie))
	closes(t, late.net, "a refused connection")
}

// TestOrder says that the calls of one session are done in their order, whichever thread's they are, and those of others at the same time.
func TestOrder(t *testing.T) {
	e := newEnv(t)
	release := make(chan struct{})
	held := atomic.Uint64{}
	handleWith(t, 43, func(q *request) ck.RV { // C_Sign
		q.in.Octets()
		if q.session.id == held.Load() {
			<-release
		}
		q.out.Result(p11rpc.Room{Size: 100}, nil)
		return ck.CKR_OK
	})
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		if d == p11rpc.Keyward {
			return // one thread uses such a connection at a time
		}
		release = make(chan struct{})
		c := e.client(t, d)
		slow, quick := c.session(softwareID), c.session(softwareID)
		held.Store(slow)
		sign := args{}.octets([]byte("data")).room(100)
		var slowSerials []uint32
		for range 20 {
			for _, call := range []p11rpc.CallID{43, 13} { // C_GetSessionInfo, which is quick, must not overtake
				f := c.request(call, append(args{}.u(slow), map[p11rpc.CallID]args{43: sign}[call]...))
				slowSerials = append(slowSerials, c.serial)
				c.send(f)
			}
		}
		// The other session, and calls without one, are answered meanwhile.
		for range 20 {
			c.ok(43, append(args{}.u(quick), sign...))
			c.ok(13, args{}.u(quick))
			c.ok(3, nil)
		}
		close(release)
		for _, want := range slowSerials {
			if got := c.read(); got.rv != ck.CKR_OK || got.serial != want {
				t.Fatalf("%d %v came for %d", got.serial, got.rv, want)
			}
		}
	})
}

// TestInFlight says that a connection with many calls under way is not read any further, and that nobody else minds.
func TestInFlight(t *testing.T) {
	e := newEnv(t)
	release, started := make(chan struct{}), atomic.Int32{}
	handleWith(t, 43, func(q *request) ck.RV {
		started.Add(1)
		<-release
		return ck.CKR_FUNCTION_FAILED
	})
	for _, size := range []int{10, 200 << 10} {
		c := e.client(t, p11rpc.Offer2)
		var sessions []uint64
		for range 100 {
			sessions = append(sessions, c.session(softwareID))
		}
		want := min(maxInFlight, maxInFlightOctets/size)
		started.Store(0)
		release = make(chan struct{})
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for _, s := range sessions {
				c.send(c.request(43, args{}.u(s).octets(make([]byte, size)).room(0)))
			}
		}()
		for int(started.Load()) < want {
			runtime.Gosched()
		}
		other := e.client(t, p11rpc.Offer2)
		for range 100 {
			other.ok(3, nil)
		}
		if n := int(started.Load()); n != want {
			t.Errorf("%d calls of %d octets are under way", n, size)
		}
		close(release)
		for range sessions {
			c.read()
		}
		<-sent
	}
}

// TestPanic says that a call that panics is one that fails: the session, the connection and the daemon go on.
func TestPanic(t *testing.T) {
	e := newEnv(t)
	handleWith(t, 43, func(q *request) ck.RV { panic("on order") })
	handleWith(t, 6, func(q *request) ck.RV { panic("on order") })
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		c := e.client(t, d)
		s := c.session(hardwareID)
		c.want(ck.CKR_GENERAL_ERROR, 43, args{}.u(s).octets(nil).room(0))
		c.want(ck.CKR_GENERAL_ERROR, 6, args{}.u(1))
		c.ok(13, args{}.u(s))
	})
}

// TestPipeline says that frames that come together are answered in order, and together.
func TestPipeline(t *testing.T) {
	e := newEnv(t)
	c := e.client(t, p11rpc.Keyward)
	s := c.session(softwareID)
	frames := append(c.request(13, args{}.u(s)), c.request(3, nil)...)
	frames = append(frames, c.request(13, args{}.u(s+1))...)
	c.send(frames)
	buf := make([]byte, 4096)
	n, err := c.net.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	var got []uint32
	for at := 0; at < n; at += 12 + int(binary.BigEndian.Uint32(buf[at+8:])) {
		got = append(got, binary.BigEndian.Uint32(buf[at:]))
	}
	if len(got) != 3 || got[0] != c.serial-2 || got[1] != c.serial-1 || got[2] != c.serial {
		t.Errorf("one read gave the answers %v", got)
	}
}

// TestSlices sends frames in pieces of all sizes, and large ones.
func TestSlices(t *testing.T) {
	e := newEnv(t)
	handleWith(t, 39, func(q *request) ck.RV { // C_DigestUpdate
		b, _ := q.in.Octets()
		if q.in.End() != nil || len(b) > 0 && (b[0] != 1 || b[len(b)-1] != 2) {
			return ck.CKR_DATA_INVALID
		}
		return ck.CKR_OK
	})
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		c := e.client(t, d)
		s := c.session(softwareID)
		r := rand.New(rand.NewPCG(3, 4))
		var stream []byte
		calls := 0
		for _, size := range []int{2, 4000, 4073, 4074, 5000, 64 << 10, p11rpc.MaxBody - 40, 3, 100} {
			b := make([]byte, size)
			b[0], b[size-1] = 1, 2
			stream = append(stream, c.request(39, args{}.u(s).octets(b))...)
			calls++
		}
		first := c.serial - uint32(calls) + 1
		go func() {
			for len(stream) > 0 {
				n := min(len(stream), 1+r.IntN(1+r.IntN(20000)))
				if _, err := c.net.Write(stream[:n]); err != nil {
					return
				}
				stream = stream[n:]
			}
		}()
		for i := range calls {
			if got := c.read(); got.rv != ck.CKR_OK || got.serial != first+uint32(i) {
				t.Fatalf("answer %d is %d %v", i, got.serial-first, got.rv)
			}
		}
	})
}

// TestShutdown says that calls under way and requests that have come are answered, and nothing after that.
func TestShutdown(t *testing.T) {
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		e := newEnv(t)
		release, started := make(chan struct{}), make(chan struct{}, 10)
		handleWith(t, 58, func(q *request) ck.RV {
			started <- struct{}{}
			select {
			case <-release:
				return ck.CKR_FUNCTION_FAILED
			case <-q.ctx.Done():
				t.Error("a call was cancelled")
				return ck.CKR_FUNCTION_CANCELED
			}
		})
		c := e.client(t, d)
		s := c.session(softwareID)
		idle := e.client(t, d)
		sign := c.request(58, args{}.u(s).octets(nil).room(0))
		c.send(sign, sign, sign)
		<-started
		ended := make(chan error)
		go func() { ended <- e.front.Shutdown(context.Background()) }()
		closes(t, idle.net, "an idle connection")
		if _, err := c.net.Write(sign); err == nil {
			// The door may be slower than this. What it takes now it answers, so once more, until it takes nothing.
			for err == nil {
				_, err = c.net.Write(sign)
			}
		}
		close(release)
		answers := 0
		for {
			if _, err := c.tryRead(); err != nil {
				if !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				break
			}
			answers++
		}
		if answers < 3 {
			t.Errorf("%d of 3 requests were answered", answers)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, err := net.Dial("unix", e.path); err == nil {
			t.Error("a connection was accepted afterwards")
		}
	})
}

// TestShutdownInTime says that a call that does not end is cancelled when the time is up.
func TestShutdownInTime(t *testing.T) {
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		e := newEnv(t)
		started := make(chan struct{})
		handleWith(t, 43, func(q *request) ck.RV {
			close(started)
			<-q.ctx.Done()
			return ck.CKR_FUNCTION_FAILED
		})
		c := e.client(t, d)
		c.send(c.request(43, args{}.u(c.session(softwareID)).octets(nil).room(0)))
		<-started
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if err := e.front.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// TestClientGone says that the calls of a client of p11-kit, and those of keyward's module that take long, end when the client does.
func TestClientGone(t *testing.T) {
	e := newEnv(t)
	started, ended := make(chan struct{}), make(chan struct{})
	wait := func(q *request) ck.RV {
		started <- struct{}{}
		<-q.ctx.Done()
		ended <- struct{}{}
		return ck.CKR_FUNCTION_FAILED
	}
	handleWith(t, 43, wait)
	handleWith(t, 58, wait)
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		for _, call := range []p11rpc.CallID{43, 58} {
			if d == p11rpc.Keyward && call == 43 {
				continue
			}
			c := e.client(t, d)
			c.send(c.request(call, args{}.u(c.session(softwareID)).octets(nil).room(0)))
			<-started
			c.net.Close()
			<-ended
		}
	})
}

// TestLongCalls says that a connection goes on after a call that was watched, and that what comes meanwhile is answered afterwards.
func TestLongCalls(t *testing.T) {
	e := newEnv(t)
	handleWith(t, 58, func(q *request) ck.RV {
		time.Sleep(5 * time.Millisecond) // it takes its time
		return ck.CKR_FUNCTION_FAILED
	})
	c := e.client(t, p11rpc.Keyward)
	s := c.session(softwareID)
	generate := args{}.u(s).octets(nil).room(0)
	for range 3 {
		c.want(ck.CKR_FUNCTION_FAILED, 58, generate)
		c.ok(3, nil)
		c.send(c.request(58, generate), c.request(3, nil))
		if first, second := c.read(), c.read(); first.rv != ck.CKR_FUNCTION_FAILED || second.rv != ck.CKR_OK {
			t.Errorf("%v %v", first.rv, second.rv)
		}
	}
}

// TestTimeLimit says that a call has its time and no more.
func TestTimeLimit(t *testing.T) {
	e := newEnv(t, func(c *Config) {
		c.times = standardTimes
		c.times.call = 300 * time.Millisecond // enough for all calls but the one that never ends
	})
	handleWith(t, 43, func(q *request) ck.RV {
		<-q.ctx.Done()
		return ck.CKR_FUNCTION_FAILED
	})
	c := e.client(t, p11rpc.Keyward)
	s := c.session(softwareID)
	for range 3 {
		c.want(ck.CKR_FUNCTION_FAILED, 43, args{}.u(s).octets(nil).room(0))
	}
}

// TestNothingIsKept says that the octets of a request are wiped from the connection's memory when it was answered: they may have been a PIN.
func TestNothingIsKept(t *testing.T) {
	e := newEnv(t)
	var seen []byte
	handleWith(t, 18, func(q *request) ck.RV { // C_Login
		q.in.Ulong()
		seen, _ = q.in.Octets()
		return ck.CKR_OK
	})
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		c := e.client(t, d)
		s := c.session(softwareID)
		c.ok(18, args{}.u(s).u(1).octets([]byte("a secret PIN")))
		c.ok(3, nil) // the login's lane is done with it, or will be
		var wg sync.WaitGroup
		wg.Go(func() { c.net.Close() })
		wg.Wait()
		for e.front.Stats().Connections > 0 {
			time.Sleep(time.Millisecond)
		}
		if len(seen) != 12 || !bytes.Equal(seen, make([]byte, 12)) {
			t.Errorf("%q is left", seen)
		}
	})
}

// TestHotPath says that a call costs no memory.
func TestHotPath(t *testing.T) {
	e := newEnv(t)
	c := e.client(t, p11rpc.Keyward)
	f := c.request(3, nil)
	buf := make([]byte, 4096)
	if n := testing.AllocsPerRun(2000, func() {
		if _, err := c.net.Write(f); err != nil {
			t.Fatal(err)
		}
		if _, err := c.net.Read(buf); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("a call makes %v allocations", n)
	}
}

// TestChurn has many clients open, use, close, log in and end at once, all over the same few applications. The race detector looks on, and nothing is
// left.
func TestChurn(t *testing.T) {
	e := newEnv(t)
	handleWith(t, 43, func(q *request) ck.RV {
		runtime.Gosched()
		return ck.CKR_FUNCTION_FAILED
	})
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			d := []p11rpc.Dialect{p11rpc.Offer0, p11rpc.Offer2, p11rpc.Keyward, p11rpc.Keyward}[i%4]
			c := e.dial(t, d)
			var sessions []uint64
			for range 400 {
				one := uint64(r.Uint32())
				if len(sessions) > 0 {
					one = sessions[r.IntN(len(sessions))]
				}
				switch r.IntN(12) {
				case 0:
					c.call(1, hello(testCookie))
				case 1:
					c.call(2, nil)
				case 2, 3, 4:
					if got := c.call(10, args{}.u(slotIDOf(softwareID)).u(serial)); got.rv == ck.CKR_OK {
						sessions = append(sessions, got.Ulong())
					}
				case 5:
					c.call(11, args{}.u(one))
				case 6:
					c.call(12, args{}.u(slotIDOf(softwareID)))
				case 7:
					c.call(18, loginArgs(one, ck.CKU_USER, ""))
				case 8:
					c.call(19, args{}.u(one))
				default: // several at once
					frames := [][]byte{}
					for range 5 {
						frames = append(frames, c.request(43, args{}.u(one).octets(nil).room(0)), c.request(13, args{}.u(one)))
					}
					c.send(bytes.Join(frames, nil))
					for range frames {
						c.read()
					}
				}
			}
		})
	}
	all.Wait()
	s := e.front.Stats()
	total := uint64(0)
	for _, call := range s.Calls {
		if call.Name == unknownCall || call.N == 0 {
			t.Errorf("%+v", call)
		}
		total += call.N
	}
	if total < 12*400 {
		t.Errorf("%d calls were counted", total)
	}
}
