// Package faulty is a second kind of HSM for tests: a real PKCS#11 module, in C, that passes every call on to another one
// (SoftHSM2, say) and adds latency, return values, hangs, crashes and session limits where a test wants them.
//
//	m := faulty.New(t, hsmtest.Module)
//	config.Members[0].Module = m.Path
//	m.Fail("C_Sign", pkcs11.CKR_DEVICE_ERROR, faulty.After, 1)
//
// Each Module is a library of its own, with its own orders, counts and sessions, in this process or in any other that opens
// its path. Those that wrap the same module share it within a process: it is initialised with the first and finalised
// with the last. The module is built with gcc, once per process.
package faulty

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/miekg/pkcs11"
)

//go:embed module.c
var source []byte

// functions are the names of the function list in its order, from the module's own table.
var functions = func() (names []string) {
	for _, m := range regexp.MustCompile(`(?m)^\t[XS]\((C_\w+), `).FindAllSubmatch(source, -1) {
		names = append(names, string(m[1]))
	}
	return names
}()

// functionsCount is the length of the function list of PKCS#11 2.40.
const functionsCount = 68

// When is when a call fails.
type When uint32

// The times. They are values of the module's rule.what.
const (
	Before When = iota + 1 // the wrapped module is not called
	After                  // it is called, and whatever it did is done, but the caller gets the error
)

// The other values of rule.what.
const (
	doNothing = 0
	hang      = iota + 2
	crash
	exit
)

// Always is for a number of times without end.
const Always = -1

// rule and control are the structures of the same name in module.c, which says what the fields are.
type rule struct {
	ticket        atomic.Uint64
	what, every   atomic.Uint32
	code, seen    atomic.Uint64
	delay, jitter atomic.Uint64
	calls, fired  atomic.Uint64
}

type control struct {
	magic         [8]byte
	size          uint64
	sessionLimit  atomic.Uint64
	sessionReport atomic.Uint64
	serialise     atomic.Uint64
	opened        atomic.Uint64
	closed        atomic.Uint64
	hanging       atomic.Uint64
	manufacturer  [32]byte
	inner         [1024]byte
	rules         [functionsCount]rule
}

// Module is one faulty module. Its methods may be called at any time from any goroutine; an order holds for the calls that
// begin after it.
type Module struct {
	Path string // of the library

	t  testing.TB
	mu sync.Mutex // one writer of orders at a time
	c  *control   // shared with whoever has the library open
}

var built struct {
	sync.Once
	library []byte
	err     error
}

// Build gives the path of a fresh copy of the module, which goes with the test, as its control file must be made by New
// or by hand. It fails without gcc.
func Build(t testing.TB) string {
	t.Helper()
	built.Do(func() { built.library, built.err = compile() })
	if built.err != nil {
		t.Fatal(built.err)
	}
	path := filepath.Join(t.TempDir(), "faulty.so")
	if err := os.WriteFile(path, built.library, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func compile() (library []byte, err error) {
	dir, err := os.MkdirTemp("", "keyward-faulty-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "faulty.so")
	cmd := exec.Command("gcc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror",
		"-fPIC", "-shared", "-pthread", "-x", "c", "-o", out, "-", "-ldl")
	cmd.Stdin = bytes.NewReader(source)
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("the faulty module needs gcc and a C library: %w\n%s", err, text)
	}
	return os.ReadFile(out)
}

// New makes a module that wraps the one at the path inner, and does nothing else yet. It goes with the test, after the pools
// that were opened later. Modules in use at the same time must not be of different tests.
func New(t testing.TB, inner string) *Module {
	t.Helper()
	path := Build(t)
	f, err := os.OpenFile(path+".control", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := int(unsafe.Sizeof(control{}))
	if err := f.Truncate(int64(size)); err != nil {
		t.Fatal(err)
	}
	mem, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	c := (*control)(unsafe.Pointer(&mem[0]))
	m := &Module{Path: path, t: t, c: c}
	if len(inner) >= len(c.inner) {
		t.Fatalf("the path of the module is longer than %d octets", len(c.inner)-1)
	}
	copy(c.inner[:], inner)
	c.size = uint64(size)
	copy(c.magic[:], "KWFAULT1")
	t.Cleanup(func() {
		m.Reset()
		m.c = nil
		if err := syscall.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	return m
}

func (m *Module) rule(fn string) *rule {
	m.t.Helper()
	i := slices.Index(functions, fn)
	if i < 0 {
		m.t.Fatalf("PKCS#11 2.40 has no function %q", fn)
	}
	return &m.c.rules[i]
}

// order gives a rule what to do. The delay stays.
func (m *Module) order(r *rule, what uint32, code uint, every, times int) {
	m.t.Helper()
	if times < Always || times > 1<<30 || every < 1 {
		m.t.Fatalf("%d times, every %d calls", times, every)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	version := r.ticket.Load() >> 32
	r.ticket.Store((version + 1) << 32) // odd: calls wait for us
	r.what.Store(what)
	r.every.Store(uint32(every))
	r.code.Store(uint64(code))
	r.seen.Store(0)
	r.fired.Store(0)
	r.ticket.Store((version+2)<<32 | uint64(uint32(times)))
}

// Fail makes the next calls of a function, so many or Always, return code.
func (m *Module) Fail(fn string, code uint, when When, times int) {
	m.t.Helper()
	m.order(m.rule(fn), uint32(when), code, 1, times)
}

// FailEvery makes every k-th call of a function return code, without end.
func (m *Module) FailEvery(fn string, code uint, when When, k int) {
	m.t.Helper()
	m.order(m.rule(fn), uint32(when), code, k, Always)
}

// Hang makes all calls of a function that begin now hang until Release or another order for that function, and go on then.
func (m *Module) Hang(fn string) {
	m.t.Helper()
	m.order(m.rule(fn), hang, 0, 1, Always)
}

// Crash makes the next call of a function end its process with SIGSEGV.
func (m *Module) Crash(fn string) {
	m.t.Helper()
	m.order(m.rule(fn), crash, 0, 1, 1)
}

// Exit makes the next call of a function end its process with a status.
func (m *Module) Exit(fn string, status uint8) {
	m.t.Helper()
	m.order(m.rule(fn), exit, uint(status), 1, 1)
}

// Release ends all faults, hanging calls included. Delays and the token's settings stay.
func (m *Module) Release() {
	m.t.Helper()
	for i := range m.c.rules {
		m.order(&m.c.rules[i], doNothing, 0, 1, 0)
	}
}

// Delay makes each call of a function take longer by d and up to jitter more, drawn evenly. The kernel adds some 50 µs.
func (m *Module) Delay(fn string, d, jitter time.Duration) {
	m.t.Helper()
	r := m.rule(fn)
	r.delay.Store(uint64(max(d, 0)))
	r.jitter.Store(uint64(max(jitter, 0)))
}

// SessionLimit makes the token one that has n sessions and says so; 0 is the wrapped module's own limit.
func (m *Module) SessionLimit(n uint) { m.sessionLimit(n, n) }

// SessionLimitUnreported makes the token one that has n sessions, and says by all ones that it does not know.
func (m *Module) SessionLimitUnreported(n uint) { m.sessionLimit(n, pkcs11.CK_UNAVAILABLE_INFORMATION) }

func (m *Module) sessionLimit(n, report uint) {
	m.c.sessionReport.Store(uint64(report))
	m.c.sessionLimit.Store(uint64(n))
}

// Serialise makes the module do one call at a time, its delay included.
func (m *Module) Serialise(on bool) {
	var v uint64
	if on {
		v = 1
	}
	m.c.serialise.Store(v)
}

// Manufacturer makes C_GetInfo name another manufacturer, of up to 32 octets, so that nobody knows the wrapped module's
// ways; empty is its own. It is to be called before the library is opened.
func (m *Module) Manufacturer(name string) {
	m.t.Helper()
	if len(name) > len(m.c.manufacturer) {
		m.t.Fatalf("the name %q is longer than %d octets", name, len(m.c.manufacturer))
	}
	if name == "" {
		m.c.manufacturer = [32]byte{}
		return
	}
	copy(m.c.manufacturer[:], fmt.Sprintf("%-32s", name))
}

// Calls counts the calls of a function since New, faults included.
func (m *Module) Calls(fn string) int {
	m.t.Helper()
	return int(m.rule(fn).calls.Load())
}

// Fired counts what became of the last order for a function: the calls that met it.
func (m *Module) Fired(fn string) int {
	m.t.Helper()
	return int(m.rule(fn).fired.Load())
}

// Hanging counts the calls that hang at the moment.
func (m *Module) Hanging() int { return int(m.c.hanging.Load()) }

// Sessions counts the sessions that were opened and are not closed. A session whose opening was hidden from the caller is
// not counted: nobody could close it.
func (m *Module) Sessions() int {
	closed := m.c.closed.Load() // first: a session is opened before it is closed
	return int(m.c.opened.Load() - closed)
}

// Reset ends all faults, delays and limits. The counts go on, and so does the manufacturer's name.
func (m *Module) Reset() {
	m.t.Helper()
	m.Release()
	for i := range m.c.rules {
		m.c.rules[i].delay.Store(0)
		m.c.rules[i].jitter.Store(0)
	}
	m.SessionLimit(0)
	m.Serialise(false)
}
