package pkcs11front

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// The tests of this package speak to a door over real sockets, with a real service behind it: newEnv. All share one pool of two SoftHSM2
// tokens, since making it takes a second; each has a store of its own.

// TestMain closes the pool after the tests, and fails when a goroutine is left then.
func TestMain(m *testing.M) {
	hsmtest.WorkerMain()
	code := m.Run()
	shared.Close()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

const (
	testAccount = "1000000000000001"
	softwareID  = "kst-software"
	hardwareID  = "kst-hardware"
)

// Actors of tests. root may do everything; alice what policies let her.
var (
	root  = &kms.Actor{Principal: "acs:ram::" + testAccount + ":root", Account: testAccount, Door: kms.DoorPKCS11}
	alice = &kms.Actor{Principal: "acs:ram::" + testAccount + ":user/alice", Account: testAccount, Door: kms.DoorPKCS11}
)

// shared is what all tests share.
var shared struct {
	hsmtest.WholeRun
	once sync.Once
	pool *hsmpool.Pool
}

// testPool gives the pool that all tests share.
func testPool() *hsmpool.Pool {
	shared.once.Do(func() {
		hsm := hsmtest.New(&shared.WholeRun, "north", "south")
		hsm.Ceremony(&shared.WholeRun)
		c := hsm.Config()
		c.Probe = time.Hour // what it allocates would count in tests of what a call allocates
		shared.pool = hsmtest.OpenConfig(&shared.WholeRun, c)
	})
	return shared.pool
}

// testEvents is an Auditor that remembers.
type testEvents struct {
	mu  sync.Mutex
	all []kms.AuditEvent
}

func (e *testEvents) Record(_ context.Context, ev *kms.AuditEvent) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, *ev)
	return nil
}

// take gives the events since it was last called.
func (e *testEvents) take() []kms.AuditEvent {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.all
	e.all = nil
	return all
}

// testEnv is a door, and the service behind it.
type testEnv struct {
	t       testing.TB
	service *kms.Service
	db      *keystore.DB
	events  *testEvents
	front   *Front
	path    string // of the socket

	actor atomic.Pointer[kms.Actor] // who all peers are; nil: nobody

	serving *sync.WaitGroup
}

// newEnv starts a door with the instances kst-software and kst-hardware, to which every caller is root until the test says otherwise. It
// ends with the test.
func newEnv(t testing.TB, change ...func(*Config)) *testEnv {
	t.Helper()
	e := &testEnv{t: t, events: &testEvents{}, serving: new(sync.WaitGroup)}
	store := keystore.NewMem()
	if err := keystore.Create(t.Context(), store, testPool()); err != nil {
		t.Fatal(err)
	}
	var err error
	if e.db, err = keystore.Open(t.Context(), store, testPool()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.db.Close() })
	e.service, err = kms.New(t.Context(), kms.Config{
		Store: e.db, Pool: testPool(), Region: "local", Account: testAccount, Audit: e.events, Log: zerolog.Nop(), Tick: make(chan struct{}),
		Instances: []kms.Instance{{ID: softwareID, Type: kms.SoftwareInstance}, {ID: hardwareID, Type: kms.HardwareInstance}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.service.Close)
	e.actor.Store(root)
	c := Config{Service: e.service, Log: zerolog.New(zerolog.NewTestWriter(t)), Version: "v1.2.3"}
	for _, f := range change {
		f(&c)
	}
	e.front = New(c)
	e.listen(t, func(*Peer) {})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := e.front.Shutdown(ctx); err != nil {
			t.Error("shutdown:", err)
		}
		e.serving.Wait()
		if s := e.front.Stats(); s.Connections != 0 || s.Applications != 0 || s.Sessions != 0 || len(e.front.users) != 0 {
			t.Errorf("after the end there are %+v, of %d users", s, len(e.front.users))
		}
	})
	return e
}

// listen serves a socket, whose peers are this process but for what is changed.
func (e *testEnv) listen(t testing.TB, change func(*Peer)) {
	t.Helper()
	e.path = filepath.Join(t.TempDir(), "pkcs11.sock")
	l, err := net.Listen("unix", e.path)
	if err != nil {
		t.Fatal(err)
	}
	who := func(net.Conn) (Peer, error) {
		p := Peer{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), PID: int32(os.Getpid()), Identify: e.identify}
		change(&p)
		return p, nil
	}
	e.serving.Go(func() {
		if err := e.front.Serve(context.Background(), l, who); err != nil {
			t.Error(err)
		}
	})
}

// door is another socket of the same door, for other peers.
func (e *testEnv) door(t testing.TB, change func(*Peer)) *testEnv {
	t.Helper()
	other := &testEnv{t: t, service: e.service, db: e.db, events: e.events, front: e.front, serving: e.serving}
	other.actor.Store(e.actor.Load())
	other.listen(t, change)
	return other
}

func (e *testEnv) identify() (*kms.Actor, string) {
	if a := e.actor.Load(); a != nil {
		return a, ""
	}
	return nil, "the test says so"
}

// testClient speaks the protocol octet by octet. It belongs to one goroutine.
type testClient struct {
	t       testing.TB
	net     net.Conn
	dialect p11rpc.Dialect
	serial  uint32
}

var offers = map[p11rpc.Dialect]byte{p11rpc.Offer0: 0, p11rpc.Offer1: 1, p11rpc.Offer2: 2, p11rpc.Keyward: p11rpc.OfferKeyward}

var dialectNames = map[p11rpc.Dialect]string{p11rpc.Offer0: "Offer0", p11rpc.Offer1: "Offer1", p11rpc.Offer2: "Offer2", p11rpc.Keyward: "Keyward"}

// inDialects runs a test in each dialect.
func inDialects(t *testing.T, f func(*testing.T, p11rpc.Dialect)) {
	for d := p11rpc.Offer0; d <= p11rpc.Keyward; d++ {
		t.Run(dialectNames[d], func(t *testing.T) { f(t, d) })
	}
}

// raw connects and says nothing.
func (e *testEnv) raw(t testing.TB) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", e.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

// dial connects and agrees on the dialect.
func (e *testEnv) dial(t testing.TB, d p11rpc.Dialect) *testClient {
	t.Helper()
	c := &testClient{t: t, net: e.raw(t), dialect: d, serial: 0x10}
	if _, err := c.net.Write([]byte{offers[d]}); err != nil {
		t.Fatal(err)
	}
	answer := []byte{0}
	if _, err := io.ReadFull(c.net, answer); err != nil {
		t.Fatal(err)
	}
	if answer[0] != offers[d] {
		t.Fatalf("the offer %#x was answered with %#x", offers[d], answer[0])
	}
	return c
}

const testCookie = "00112233445566778899aabbccddeeff"

// client is dial and C_Initialize.
func (e *testEnv) client(t testing.TB, d p11rpc.Dialect) *testClient {
	t.Helper()
	c := e.dial(t, d)
	c.ok(1, hello(testCookie))
	return c
}

// Arguments of calls, as octets.
type args []byte

func (a args) u(n uint64) args      { return binary.BigEndian.AppendUint64(a, n) }
func (a args) y(b byte) args        { return append(a, b) }
func (a args) room(n uint32) args   { return binary.BigEndian.AppendUint32(a, n) }
func (a args) octets(b []byte) args { return append(a.y(1).room(uint32(len(b))), b...) }

func hello(cookie string) args {
	return args{}.octets([]byte(handshake)).y(1).octets([]byte(cookie + "\x00"))
}

// request makes the frame of a call.
func (c *testClient) request(call p11rpc.CallID, a args) []byte {
	signature := ""
	for _, row := range p11rpc.Calls {
		if row.ID == call {
			signature = row.Request
		}
	}
	c.serial++
	return rawFrame(c.serial, call, signature, a)
}

func rawFrame(serial uint32, call p11rpc.CallID, signature string, a args) []byte {
	body := args{}.room(uint32(call)).room(uint32(len(signature)))
	body = append(append(body, signature...), a...)
	return append(args{}.room(serial).room(0).room(uint32(len(body))), body...)
}

func (c *testClient) send(frames ...[]byte) {
	c.t.Helper()
	for _, f := range frames {
		if _, err := c.net.Write(f); err != nil {
			c.t.Fatal(err)
		}
	}
}

// answer is what came back for a request.
type answer struct {
	serial    uint32
	call      p11rpc.CallID
	signature string
	rv        ck.RV
	*p11rpc.Reader
}

// read reads the next answer.
func (c *testClient) read() answer {
	c.t.Helper()
	a, err := c.tryRead()
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

func (c *testClient) tryRead() (answer, error) {
	head := make([]byte, 12)
	if _, err := io.ReadFull(c.net, head); err != nil {
		return answer{}, err
	}
	if n := binary.BigEndian.Uint32(head[4:]); n != 0 {
		return answer{}, fmt.Errorf("the answer has options of %d octets", n)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[8:]))
	if _, err := io.ReadFull(c.net, body); err != nil {
		return answer{}, err
	}
	a := answer{serial: binary.BigEndian.Uint32(head), call: p11rpc.CallID(binary.BigEndian.Uint32(body)), Reader: new(p11rpc.Reader)}
	n := binary.BigEndian.Uint32(body[4:])
	a.signature = string(body[8 : 8+n])
	a.Reader.Reset(c.dialect, body[8+n:])
	if a.call == p11rpc.ErrorReply {
		a.rv = ck.RV(a.Ulong())
		if a.rv == ck.CKR_OK || a.signature != "u" || a.End() != nil {
			return answer{}, fmt.Errorf("a malformed error: %+v", a)
		}
	}
	return a, nil
}

// call makes a call and gives its answer.
func (c *testClient) call(call p11rpc.CallID, a args) answer {
	c.t.Helper()
	c.send(c.request(call, a))
	got := c.read()
	if got.serial != c.serial {
		c.t.Fatalf("the answer of %d has the serial %d", c.serial, got.serial)
	}
	if got.rv == ck.CKR_OK && got.call != call {
		c.t.Fatalf("the answer of call %d is one of %d", call, got.call)
	}
	return got
}

// want makes a call that must end so.
func (c *testClient) want(rv ck.RV, call p11rpc.CallID, a args) answer {
	c.t.Helper()
	got := c.call(call, a)
	if got.rv != rv {
		c.t.Errorf("%s gives %v, not %v", p11rpc.Calls[call-1].Name, got.rv, rv)
	}
	return got
}

func (c *testClient) ok(call p11rpc.CallID, a args) answer {
	c.t.Helper()
	got := c.call(call, a)
	if got.rv != ck.CKR_OK {
		c.t.Fatalf("%s gives %v", p11rpc.Calls[call-1].Name, got.rv)
	}
	return got
}

// ulongs reads an "au".
func (a answer) ulongs(t testing.TB) []uint64 {
	t.Helper()
	if a.Byte() != 1 {
		t.Fatal("only a count came")
	}
	b := [4]byte{a.Byte(), a.Byte(), a.Byte(), a.Byte()}
	list := make([]uint64, binary.BigEndian.Uint32(b[:]))
	for i := range list {
		list[i] = a.Ulong()
	}
	return list
}

// slot gives the number of the slot of an instance.
func (c *testClient) slot(instance string) uint64 {
	c.t.Helper()
	for _, id := range c.ok(4, args{}.y(1).room(64)).ulongs(c.t) {
		if info := c.ok(5, args{}.u(id)); string(trim(info.Text())) == "keyward "+instance {
			return id
		}
	}
	c.t.Fatalf("there is no slot of %s", instance)
	return 0
}

func trim(s string) string {
	for len(s) > 0 && s[len(s)-1] == ' ' {
		s = s[:len(s)-1]
	}
	return s
}

// session opens a session for reading and writing.
func (c *testClient) session(instance string) uint64 {
	c.t.Helper()
	return c.ok(10, args{}.u(c.slot(instance)).u(uint64(ck.CKF_SERIAL_SESSION|ck.CKF_RW_SESSION))).Ulong()
}
