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
//
// Package control gives the same orders outside of tests, and from other processes.
package faulty

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/hsmpool/hsmtest/faulty/control"
)

//go:embed module.c
var source []byte

// When is when a call fails.
type When = control.When

// The times.
const (
	Before = control.Before // the wrapped module is not called
	After  = control.After  // it is called, and whatever it did is done, but the caller gets the error
)

// Always is for a number of times without end.
const Always = control.Always

// Module is one faulty module. Its methods may be called at any time from any goroutine; an order holds for the calls that
// begin after it. An order that can't be given fails the test.
type Module struct {
	Path string // of the library

	t    testing.TB
	file *control.File
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
	built.Do(func() { built.library, built.err = Compile() })
	if built.err != nil {
		t.Fatal(built.err)
	}
	path := filepath.Join(t.TempDir(), "faulty.so")
	if err := os.WriteFile(path, built.library, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// Compile builds the module with gcc and returns the library.
func Compile() (library []byte, err error) {
	dir, err := os.MkdirTemp("", "keyward-faulty-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.Mkdir(filepath.Join(dir, "control"), 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "control", "layout.h"), []byte(control.Layout), 0o600); err != nil {
		return nil, err
	}
	out := filepath.Join(dir, "faulty.so")
	cmd := exec.Command("gcc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror",
		"-I", dir, "-fPIC", "-shared", "-pthread", "-x", "c", "-o", out, "-", "-ldl")
	cmd.Stdin = bytes.NewReader(source)
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("the faulty module needs gcc and a C library (Debian packages gcc and libc6-dev): %w\n%s", err, text)
	}
	return os.ReadFile(out)
}

// New makes a module that wraps the one at the path inner, and does nothing else yet. It goes with the test, after the pools
// that were opened later. Modules in use at the same time must not be of different tests.
func New(t testing.TB, inner string) *Module {
	t.Helper()
	path := Build(t)
	file, err := control.Create(control.Path(path), inner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := file.Reset(); err != nil {
			t.Error(err)
		}
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
	return &Module{Path: path, t: t, file: file}
}

func (m *Module) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// Fail makes the next calls of a function, so many or Always, return code.
func (m *Module) Fail(fn string, code uint, when When, times int) {
	m.t.Helper()
	m.must(m.file.Fail(fn, code, when, times))
}

// FailEvery makes every k-th call of a function return code, without end.
func (m *Module) FailEvery(fn string, code uint, when When, k int) {
	m.t.Helper()
	m.must(m.file.FailEvery(fn, code, when, k))
}

// Hang makes all calls of a function that begin now hang until Release or another order for that function, and go on then.
func (m *Module) Hang(fn string) {
	m.t.Helper()
	m.must(m.file.Hang(fn))
}

// Crash makes the next call of a function end its process with SIGSEGV.
func (m *Module) Crash(fn string) {
	m.t.Helper()
	m.must(m.file.Crash(fn))
}

// Exit makes the next call of a function end its process with a status.
func (m *Module) Exit(fn string, status uint8) {
	m.t.Helper()
	m.must(m.file.Exit(fn, status))
}

// Release ends all faults, hanging calls included. Delays and the token's settings stay, and so does what Fired says.
func (m *Module) Release() {
	m.t.Helper()
	m.must(m.file.Release())
}

// Delay makes each call of a function take longer by d and up to jitter more, drawn evenly.
func (m *Module) Delay(fn string, d, jitter time.Duration) {
	m.t.Helper()
	m.must(m.file.Delay(fn, d, jitter))
}

// Slow makes each call of a function take factor times as long as it would, and its Delay on top. A factor of 1 takes that
// back.
func (m *Module) Slow(fn string, factor float64) {
	m.t.Helper()
	m.must(m.file.Slow(fn, factor))
}

// SessionLimit makes the token one that has n sessions for each process, and says so; 0 is the wrapped module's own limit.
func (m *Module) SessionLimit(n uint) { m.file.SessionLimit(n) }

// SessionLimitUnreported makes the token one that has n sessions for each process, and says by all ones that it does not
// know.
func (m *Module) SessionLimitUnreported(n uint) { m.file.SessionLimitUnreported(n) }

// Serialise makes the module do one call at a time in each process, its delay included.
func (m *Module) Serialise(on bool) { m.file.Serialise(on) }

// Manufacturer makes C_GetInfo name another manufacturer, of up to 32 octets, so that nobody knows the wrapped module's
// ways; empty is its own. It is to be called before the library is opened.
func (m *Module) Manufacturer(name string) {
	m.t.Helper()
	m.must(m.file.Manufacturer(name))
}

// Calls counts the calls of a function since New, faults included.
func (m *Module) Calls(fn string) int {
	m.t.Helper()
	n, err := m.file.Calls(fn)
	m.must(err)
	return n
}

// Fired counts the calls that met the last order for a function, from that order to the next.
func (m *Module) Fired(fn string) int {
	m.t.Helper()
	n, err := m.file.Fired(fn)
	m.must(err)
	return n
}

// Hanging counts the calls that hang at the moment. Those of a process that is gone hang no longer.
func (m *Module) Hanging() int {
	m.t.Helper()
	n, err := m.file.Hanging()
	m.must(err)
	return n
}

// Sessions counts the sessions that were opened and are not closed, and whose process still has the module open. A session
// whose opening was hidden from the caller is not counted: nobody could close it.
func (m *Module) Sessions() int {
	m.t.Helper()
	n, err := m.file.Sessions()
	m.must(err)
	return n
}

// Reset ends all faults, delays, slowness and limits. The counts go on, and so does the manufacturer's name.
func (m *Module) Reset() {
	m.t.Helper()
	m.must(m.file.Reset())
}
