package moduletest

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// daemon is what the module talks to in these tests: it knows the protocol by docs/pkcs11-wire.md alone, reads requests strictly by their
// signatures, and goes wrong where a test wants it to. Its cryptography is none: see the calls.
type daemon struct {
	t    testing.TB
	path string

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	apps     map[string]*app // by cookie
	epochs   uint64
	served   sync.WaitGroup

	batches   []string // what came in one read: the names of its calls without C_, joined by +
	cookies   map[string]bool
	connected int
	objects   int // that a search finds
	open      int // connections that are let in at the same time; 0: any
	broken    []string

	// fault says what goes wrong with a call; nil is nothing. It is asked under mu.
	fault func(call string) fault
	split bool // answers are written octet by octet
}

// fault is what goes wrong with one call.
type fault int

const (
	none        fault = iota
	closeBefore       // the connection is closed, and the call was not done
	closeAfter        // it is closed after the call was done
	closeHalf         // it is closed in the middle of the answer
	restart           // the daemon forgets all of the application, and closes
	badSerial         // the answer has another serial
	badCall           // the answer is of another call
	badTail           // the answer has an octet too many
	badLength         // the answer is cut off, and its frame says so
	hugeBody          // the header announces 4 GiB
	options           // the header announces options
	silent            // there is no answer
)

// app is an application: what connections with one cookie share.
type app struct {
	epoch    uint64
	next     uint64
	sessions map[uint64]*serverSession
	loggedIn map[uint64]bool // by slot
	tries    int             // logins
}

type serverSession struct {
	slot, flags uint64
	ops         map[string]*op
	search      []uint64
	searching   bool
}

type op struct {
	key   uint64
	mech  mech
	data  []byte // so far
	parts bool
}

func newDaemon(t testing.TB) *daemon {
	d := &daemon{t: t, path: filepath.Join(t.TempDir(), "p.sock"), conns: map[net.Conn]bool{}, apps: map[string]*app{}, cookies: map[string]bool{}, objects: 3}
	t.Cleanup(func() {
		d.stop()
		d.served.Wait()
		for _, b := range d.broken {
			t.Error("the daemon was sent nonsense:", b)
		}
	})
	return d
}

// start lets clients in.
func (d *daemon) start() {
	d.t.Helper()
	l, err := net.Listen("unix", d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	d.mu.Lock()
	d.listener = l
	d.mu.Unlock()
	d.served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d.mu.Lock()
			d.conns[c] = true
			d.connected++
			refused := d.open > 0 && len(d.conns) > d.open
			d.mu.Unlock()
			d.served.Go(func() {
				d.serve(c, refused)
				c.Close()
				d.mu.Lock()
				delete(d.conns, c)
				d.mu.Unlock()
			})
		}
	})
}

// hangUp closes the connections; applications live on.
func (d *daemon) hangUp() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.conns {
		c.Close()
	}
}

// stop ends the daemon: connections and applications are gone. start may begin anew.
func (d *daemon) stop() {
	d.mu.Lock()
	l := d.listener
	d.listener = nil
	d.apps = map[string]*app{}
	d.mu.Unlock()
	if l != nil {
		l.Close()
	}
	d.hangUp()
}

// took gives the batches since it was last called.
func (d *daemon) took() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := strings.Join(d.batches, " ")
	d.batches = nil
	return s
}

// came is how many reads have brought calls.
func (d *daemon) came() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.batches)
}

// connections says how many there have been.
func (d *daemon) connections() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.connected
}

// applications says how many there are, and how many cookies there have been.
func (d *daemon) applications() (apps, cookies int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.apps), len(d.cookies)
}

func (d *daemon) failWith(f func(call string) fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = f
}

// once is a fault of the next call of a name.
func once(name string, f fault) func(string) fault {
	done := false
	return func(call string) fault {
		if call != name || done {
			return none
		}
		done = true
		return f
	}
}

var callsByID = func() map[uint32]p11rpc.Call {
	m := map[uint32]p11rpc.Call{}
	for _, c := range p11rpc.Calls {
		m[uint32(c.ID)] = c
	}
	return m
}()

// serve speaks with one client to its end.
func (d *daemon) serve(c net.Conn, refused bool) {
	in := bufio.NewReaderSize(c, 1<<22)
	offer, err := in.ReadByte()
	if err != nil {
		return
	}
	if offer != 0xa1 {
		d.nonsense(fmt.Sprintf("offer %x", offer))
		return
	}
	if _, err := c.Write([]byte{0xa1}); err != nil {
		return
	}
	var a *app
	for {
		batch, err := readBatch(in)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrUnexpectedEOF) && !isReset(err) {
				d.nonsense(err.Error())
			}
			return
		}
		var names []string
		for _, f := range batch {
			names = append(names, strings.TrimPrefix(callsByID[f.call].Name, "C_"))
		}
		d.mu.Lock()
		d.batches = append(d.batches, strings.Join(names, "+"))
		d.mu.Unlock()
		var out []byte
		for i, f := range batch {
			var goOn bool
			if refused {
				out = append(out, frameOf(f.serial, 0, "u", ulong(2))...)
				c.Write(out)
				return
			}
			out, goOn = d.one(c, &a, f, names[i], out)
			if !goOn {
				return
			}
		}
		if !d.send(c, out) {
			return
		}
	}
}

func (d *daemon) send(c net.Conn, out []byte) bool {
	d.mu.Lock()
	split := d.split
	d.mu.Unlock()
	if !split {
		_, err := c.Write(out)
		return err == nil
	}
	for i := range out {
		if _, err := c.Write(out[i : i+1]); err != nil {
			return false
		}
	}
	return true
}

// one does a call and adds its answer to out. False: the connection is over.
func (d *daemon) one(c net.Conn, a **app, f request, name string, out []byte) ([]byte, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	what := none
	if d.fault != nil {
		what = d.fault(name)
	}
	if what == closeBefore {
		return nil, false
	}
	answer := d.do(a, f, name)
	switch what {
	case closeAfter:
		return nil, false
	case silent:
		return out, true
	case closeHalf:
		c.Write(append(out, answer[:len(answer)/2]...))
		return nil, false
	case restart:
		d.apps = map[string]*app{}
		for other := range d.conns {
			other.Close()
		}
		return nil, false
	case badSerial:
		answer[3] ^= 1
	case badCall:
		answer[15] ^= 1
	case badTail:
		answer = append(answer, 0)
		binary.BigEndian.PutUint32(answer[8:], uint32(len(answer)-12))
	case badLength:
		answer = answer[:len(answer)-1]
		binary.BigEndian.PutUint32(answer[8:], uint32(len(answer)-12))
	case hugeBody:
		binary.BigEndian.PutUint32(answer[8:], 0xffffffff)
	case options:
		binary.BigEndian.PutUint32(answer[4:], 1)
	}
	return append(out, answer...), true
}

func (d *daemon) nonsense(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = append(d.broken, what)
}

// request is a frame from the client.
type request struct {
	serial, call uint32
	signature    string
	args         []byte
}

// readBatch reads the frames that are there, and waits for one.
func readBatch(in *bufio.Reader) ([]request, error) {
	var all []request
	for {
		var h [12]byte
		if _, err := io.ReadFull(in, h[:]); err != nil {
			return nil, err
		}
		if n := binary.BigEndian.Uint32(h[8:]); binary.BigEndian.Uint32(h[4:]) != 0 || n > 1<<20 || n < 8 {
			return nil, fmt.Errorf("header %x", h)
		}
		body := make([]byte, binary.BigEndian.Uint32(h[8:]))
		if _, err := io.ReadFull(in, body); err != nil {
			return nil, err
		}
		n := binary.BigEndian.Uint32(body[4:])
		if int(n) > len(body)-8 {
			return nil, fmt.Errorf("body %x", body)
		}
		all = append(all, request{binary.BigEndian.Uint32(h[:]), binary.BigEndian.Uint32(body), string(body[8 : 8+n]), body[8+n:]})
		if in.Buffered() == 0 {
			return all, nil
		}
	}
}

func frameOf(serial, call uint32, signature string, results []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, serial)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(8+len(signature)+len(results)))
	b = binary.BigEndian.AppendUint32(b, call)
	b = binary.BigEndian.AppendUint32(b, uint32(len(signature)))
	b = append(b, signature...)
	return append(b, results...)
}

// do does a call and gives the frame of its answer.
func (d *daemon) do(a **app, f request, name string) []byte {
	call, ok := callsByID[f.call]
	if !ok || f.signature != call.Request {
		d.broken = append(d.broken, fmt.Sprintf("call %d with signature %q", f.call, f.signature))
		return frameOf(f.serial, 0, "u", ulong(5))
	}
	v, err := parse(f.signature, f.args)
	if err != nil {
		d.broken = append(d.broken, fmt.Sprintf("%s: %v in %x", name, err, f.args[:min(len(f.args), 200)]))
		return frameOf(f.serial, 0, "u", ulong(5))
	}
	c := &doing{d: d, name: name, v: v, app: *a}
	rv := c.do()
	*a = c.app
	if rv != 0 {
		return frameOf(f.serial, 0, "u", ulong(rv))
	}
	response := call.Response
	switch name {
	case "Initialize", "SignInit", "DigestInit", "EncryptInit", "DecryptInit":
		response = "u"
	case "EncryptMessage":
		response = "ayay"
	}
	return frameOf(f.serial, f.call, response, c.out)
}

// Arguments.

type room struct {
	null bool
	n    uint32
}

type attr struct {
	typ   uint32
	kind  byte
	len   uint32
	value any // []byte, uint64, []uint64, []attr
}

type want struct {
	typ    uint32
	null   bool
	room   uint32
	nested []want
}

type mech struct {
	typ   uint32
	null  bool
	param []byte // nil: none
}

type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n > len(r.b) {
		r.err = errors.New("too short")
		return make([]byte, min(n, 64))
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}
func (r *reader) u8() byte    { return r.take(1)[0] }
func (r *reader) u32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

// octets are nil for NULL.
func (r *reader) octets() []byte {
	n := r.u32()
	if n == 1<<32-1 {
		return nil
	}
	return append([]byte{}, r.take(int(n))...)
}

func (r *reader) attrs(depth int) (all []attr) {
	n := r.u32()
	if n > 256 || depth > 2 {
		r.err = errors.New("too many attributes")
		return nil
	}
	for ; n > 0 && r.err == nil; n-- {
		a := attr{typ: r.u32()}
		if r.u8() != 1 {
			r.err = errors.New("presence")
		}
		a.kind, a.len = r.u8(), r.u32()
		size := a.len
		switch a.kind {
		case 0, 3:
			b := r.octets()
			a.value, size = b, uint32(len(b))
		case 1:
			a.value, size = uint64(r.u8()), 1
		case 2:
			a.value, size = r.u64(), 8
		case 4:
			var list []uint64
			for k := r.u32(); k > 0 && r.err == nil; k-- {
				list = append(list, r.u64())
			}
			a.value, size = list, uint32(8*len(list))
		case 5:
			nested := r.attrs(depth + 1)
			a.value, size = nested, uint32(24*len(nested))
		default:
			r.err = fmt.Errorf("kind %d", a.kind)
		}
		if size != a.len && r.err == nil {
			r.err = fmt.Errorf("attribute %#x has length %d and size %d", a.typ, a.len, size)
		}
		all = append(all, a)
	}
	return all
}

func (r *reader) wants(depth int) (all []want) {
	n := r.u32()
	if n > 256 || depth > 2 {
		r.err = errors.New("too many attributes")
		return nil
	}
	for ; n > 0 && r.err == nil; n-- {
		w := want{typ: r.u32(), room: r.u32()}
		w.null = w.room == 1<<32-1
		if !w.null && w.typ >= 0x40000211 && w.typ <= 0x40000213 {
			w.nested = r.wants(depth + 1)
		}
		all = append(all, w)
	}
	return all
}

func parse(signature string, b []byte) (values []any, err error) {
	r := &reader{b: b}
	for s := signature; s != ""; {
		token := s[:1]
		if token == "a" || token == "f" {
			token = s[:2]
		}
		s = s[len(token):]
		switch token {
		case "u":
			values = append(values, r.u64())
		case "y":
			values = append(values, r.u8())
		case "s", "z":
			values = append(values, string(r.octets()))
		case "ay":
			if r.u8() != 1 {
				r.err = errors.New("presence")
			}
			values = append(values, r.octets())
		case "fy", "fu":
			n := r.u32()
			values = append(values, room{null: n == 0, n: map[bool]uint32{true: 0, false: n}[n == 1<<32-1]})
		case "aA":
			values = append(values, r.attrs(1))
		case "fA":
			values = append(values, r.wants(1))
		case "M":
			m := mech{typ: r.u32()}
			if m.null = m.typ == 1<<32-1; !m.null {
				m.param = r.octets()
			}
			values = append(values, m)
		default:
			panic(token)
		}
	}
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("%d octets too many", len(r.b))
	}
	return values, r.err
}

func ulong(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func octets(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

func padded(s string, width int) []byte {
	return octets([]byte(s + strings.Repeat(" ", width-len(s))))
}

// sign is what this daemon calls a signature, a MAC or a digest: SHA-256 over the key's number and the data.
func sign(key uint64, data []byte) []byte {
	sum := sha256.Sum256(append(ulong(key), data...))
	return sum[:]
}

// xor is its encryption: each octet with 0x55.
func xor(data []byte) []byte {
	out := make([]byte, len(data))
	for i, b := range data {
		out[i] = b ^ 0x55
	}
	return out
}
