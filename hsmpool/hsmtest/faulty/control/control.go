// Package control gives orders to faulty PKCS#11 modules, through the control file that a module and whoever orders it
// map into memory. It needs no cgo and no test, and the process that gives the orders need not be the one that has the
// module open: a module's control file is at Path of its library, for anybody who may write it.
//
//	f, err := control.Open(control.Path("bin/faulty/east.so"))
//	err = f.Fail("C_Sign", code, control.Before, control.Always)
//
// layout.h is the contract with the module.
package control

import (
	_ "embed"
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Layout is the header that the module is compiled with, as control/layout.h.
//
//go:embed layout.h
var Layout string

// functions are the names of the function list in its order, from the module's own table.
var functions = func() (names []string) {
	for _, m := range regexp.MustCompile(`(?m)^\t[XS]\((C_\w+), `).FindAllStringSubmatch(Layout, -1) {
		names = append(names, m[1])
	}
	return names
}()

// functionsCount is the length of the function list of PKCS#11 2.40.
const functionsCount = 68

// Functions gives the names of all functions that orders can be for, in the order of PKCS#11.
func Functions() []string { return slices.Clone(functions) }

// When is when a call fails.
type When uint32

// The times. They are values of rule.what.
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

// MaxSlow is the greatest factor of Slow.
const MaxSlow = 1_000_000

// magic begins a control file of this layout.
const magic = "KWFAULT2"

// rule, process and layout are struct rule, process and control in layout.h, which says what the fields are.
type rule struct {
	ticket        atomic.Uint64
	what, every   atomic.Uint32
	code, seen    atomic.Uint64
	delay, jitter atomic.Uint64
	slow          atomic.Uint64
	calls, fired  atomic.Uint64
}

type process struct{ opened, closed, hanging atomic.Uint64 }

// processesCount is how many processes can have the module open at once.
const processesCount = 128

type layout struct {
	magic         [8]byte
	size          uint64
	sessionLimit  atomic.Uint64
	sessionReport atomic.Uint64
	serialise     atomic.Uint64
	manufacturer  [32]byte
	inner         [1024]byte
	processes     [processesCount]process
	rules         [functionsCount]rule
}

const size = int(unsafe.Sizeof(layout{}))

// Path is where the module at the path library looks for its control file.
func Path(library string) string { return library + ".control" }

// File is an open control file. An order holds for the calls that begin after it, in every process that has the module
// open. The methods may be called at any time from any goroutine, but not after Close.
type File struct {
	mu   sync.Mutex // guards the lock of file, which all goroutines of this process would share
	file *os.File
	mem  []byte  // the mapping of file
	c    *layout // in mem
}

// Create makes a control file for a module that wraps the one at the path inner, and does nothing else yet. The file must
// not exist: a module that has the old one open would not see the new one.
func Create(path, inner string) (*File, error) {
	if inner == "" || len(inner) >= len(layout{}.inner) {
		return nil, fmt.Errorf("the path of the module to wrap must have 1 to %d octets, not %d", len(layout{}.inner)-1, len(inner))
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("control file: %w", err)
	}
	if err := file.Truncate(int64(size)); err != nil {
		return nil, errors.Join(fmt.Errorf("control file: %w", err), file.Close(), os.Remove(path))
	}
	f, err := mapped(file)
	if err != nil {
		return nil, errors.Join(err, file.Close(), os.Remove(path))
	}
	copy(f.c.inner[:], inner)
	f.c.size = uint64(size)
	copy(f.c.magic[:], magic)
	return f, nil
}

// Open opens a control file that Create made.
func Open(path string) (*File, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("control file: %w", err)
	}
	info, err := file.Stat()
	if err == nil && info.Size() != int64(size) {
		err = fmt.Errorf("%s has %d octets, and a control file of this version has %d: make the module and its control file again", path, info.Size(), size)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	f, err := mapped(file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if string(f.c.magic[:]) != magic || f.c.size != uint64(size) {
		return nil, errors.Join(fmt.Errorf("%s is not a control file of this version: make the module and its control file again", path), f.Close())
	}
	return f, nil
}

// mapped maps a file of the right size, and takes it over if there is no error.
func mapped(file *os.File) (*File, error) {
	mem, err := syscall.Mmap(int(file.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("control file: %w", os.NewSyscallError("mmap", err))
	}
	return &File{file: file, mem: mem, c: (*layout)(unsafe.Pointer(&mem[0]))}, nil
}

// Close lets the file go. What was ordered stays ordered.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.c = nil
	return errors.Join(os.NewSyscallError("munmap", syscall.Munmap(f.mem)), f.file.Close())
}

// Locks of the open file, which the kernel drops with the process that holds them. The package syscall has no names for them.
const (
	getLock     = 36 // F_OFD_GETLK
	setLock     = 37 // F_OFD_SETLK
	setLockWait = 38 // F_OFD_SETLKW
)

// The octets of the file whose locks mean something, as in layout.h.
const (
	lockFile = iota
	lockProcess
)

// locked runs do while no other goroutine or process is in locked for the same control file, or takes a row of processes.
func (f *File) locked(do func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.lock(setLockWait, syscall.F_WRLCK, lockFile); err != nil {
		return err
	}
	err := do()
	_, unlock := f.lock(setLock, syscall.F_UNLCK, lockFile)
	return errors.Join(err, unlock)
}

// lock does cmd for a lock of one octet. With getLock it says what kind of lock of somebody else is in the way, F_UNLCK for
// none.
func (f *File) lock(cmd int, how int16, octet int) (int16, error) {
	for {
		l := syscall.Flock_t{Type: how, Start: int64(octet), Len: 1}
		err := syscall.FcntlFlock(f.file.Fd(), cmd, &l)
		if err != syscall.EINTR {
			return l.Type, os.NewSyscallError("fcntl", err)
		}
	}
}

// alive calls visit for the row of every process that has the module open.
func (f *File) alive(visit func(*process)) error {
	return f.locked(func() error {
		for i := range f.c.processes {
			held, err := f.lock(getLock, syscall.F_WRLCK, lockProcess+i)
			if err != nil {
				return err
			}
			if held != syscall.F_UNLCK {
				visit(&f.c.processes[i])
			}
		}
		return nil
	})
}

func (f *File) rule(fn string) (*rule, error) {
	i := slices.Index(functions, fn)
	if i < 0 {
		return nil, fmt.Errorf("PKCS#11 2.40 has no function %q", fn)
	}
	return &f.c.rules[i], nil
}

// order gives the rule of a function what to do. The delay stays.
func (f *File) order(fn string, what uint32, code uint, every, times int) error {
	r, err := f.rule(fn)
	if err != nil {
		return err
	}
	if times < Always || times > math.MaxInt32 || every < 1 || every > math.MaxInt32 {
		return fmt.Errorf("a fault can't be for %d times, or every %d calls", times, every)
	}
	return f.locked(func() error {
		r.fired.Store(0)
		r.write(what, code, every, times)
		return nil
	})
}

// write is for who holds the lock. A version is odd while it is written, and stays so if the writer dies: the next one goes
// on from there.
func (r *rule) write(what uint32, code uint, every, times int) {
	writing := r.ticket.Load()>>32 | 1
	r.ticket.Store(writing << 32) // calls wait for us
	r.what.Store(what)
	r.every.Store(uint32(every))
	r.code.Store(uint64(code))
	r.seen.Store(0)
	r.ticket.Store((writing+1)<<32 | uint64(uint32(times)))
}

// Fail makes the next calls of a function, so many or Always, return code.
func (f *File) Fail(fn string, code uint, when When, times int) error {
	if when != Before && when != After {
		return fmt.Errorf("a call fails before or after its effect, not at %d", when)
	}
	return f.order(fn, uint32(when), code, 1, times)
}

// FailEvery makes every k-th call of a function return code, without end.
func (f *File) FailEvery(fn string, code uint, when When, k int) error {
	if when != Before && when != After {
		return fmt.Errorf("a call fails before or after its effect, not at %d", when)
	}
	return f.order(fn, uint32(when), code, k, Always)
}

// Hang makes all calls of a function that begin now hang until Release or another order for that function, and go on then.
func (f *File) Hang(fn string) error { return f.order(fn, hang, 0, 1, Always) }

// Crash makes the next call of a function end its process with SIGSEGV.
func (f *File) Crash(fn string) error { return f.order(fn, crash, 0, 1, 1) }

// Exit makes the next call of a function end its process with a status.
func (f *File) Exit(fn string, status uint8) error { return f.order(fn, exit, uint(status), 1, 1) }

// Release ends all faults, hanging calls included. Delays and the token's settings stay, and so does what Fired says.
func (f *File) Release() error {
	return f.locked(func() error {
		for i := range f.c.rules {
			f.c.rules[i].write(doNothing, 0, 1, 0)
		}
		return nil
	})
}

// Delay makes each call of a function take longer by d and up to jitter more, drawn evenly.
func (f *File) Delay(fn string, d, jitter time.Duration) error {
	r, err := f.rule(fn)
	if err != nil {
		return err
	}
	r.delay.Store(uint64(max(d, 0)))
	r.jitter.Store(uint64(max(jitter, 0)))
	return nil
}

// Slow makes each call of a function take factor times as long as it would, and its Delay on top. A factor of 1 takes that
// back.
func (f *File) Slow(fn string, factor float64) error {
	r, err := f.rule(fn)
	if err != nil {
		return err
	}
	if !(factor >= 1 && factor <= MaxSlow) {
		return fmt.Errorf("a call can take 1 to %d times as long, not %g", MaxSlow, factor)
	}
	var bits uint64
	if factor > 1 {
		bits = math.Float64bits(factor)
	}
	r.slow.Store(bits)
	return nil
}

// SessionLimit makes the token one that has n sessions for each process, and says so; 0 is the wrapped module's own limit.
func (f *File) SessionLimit(n uint) { f.sessionLimit(uint64(n), uint64(n)) }

// SessionLimitUnreported makes the token one that has n sessions for each process, and says that it does not know
// (CK_UNAVAILABLE_INFORMATION).
func (f *File) SessionLimitUnreported(n uint) { f.sessionLimit(uint64(n), math.MaxUint64) }

func (f *File) sessionLimit(n, report uint64) {
	f.c.sessionReport.Store(report)
	f.c.sessionLimit.Store(n)
}

// Serialise makes the module do one call at a time in each process, its delay included.
func (f *File) Serialise(on bool) {
	var v uint64
	if on {
		v = 1
	}
	f.c.serialise.Store(v)
}

// Manufacturer makes C_GetInfo name another manufacturer, of up to 32 octets, so that nobody knows the wrapped module's
// ways; empty is its own. It is to be called before the library is opened.
func (f *File) Manufacturer(name string) error {
	if len(name) > len(f.c.manufacturer) {
		return fmt.Errorf("the manufacturer's name %q is longer than %d octets", name, len(f.c.manufacturer))
	}
	if name == "" {
		f.c.manufacturer = [32]byte{}
		return nil
	}
	copy(f.c.manufacturer[:], fmt.Sprintf("%-32s", name))
	return nil
}

// Inner gives the path of the module that is wrapped.
func (f *File) Inner() string {
	path, _, _ := strings.Cut(string(f.c.inner[:]), "\x00")
	return path
}

// Ordered says whether anything that was ordered is still in force, the manufacturer's name aside.
func (f *File) Ordered() bool {
	for i := range f.c.rules {
		r := &f.c.rules[i]
		if uint32(r.ticket.Load()) != 0 || r.delay.Load() != 0 || r.jitter.Load() != 0 || r.slow.Load() != 0 {
			return true
		}
	}
	return f.c.sessionLimit.Load() != 0 || f.c.serialise.Load() != 0
}

// Calls counts the calls of a function since Create, in all processes, faults included.
func (f *File) Calls(fn string) (int, error) {
	r, err := f.rule(fn)
	if err != nil {
		return 0, err
	}
	return int(r.calls.Load()), nil
}

// Fired counts the calls that met the last order for a function, from that order to the next.
func (f *File) Fired(fn string) (int, error) {
	r, err := f.rule(fn)
	if err != nil {
		return 0, err
	}
	return int(r.fired.Load()), nil
}

// Processes counts the processes that have the module open at the moment.
func (f *File) Processes() (n int, err error) {
	err = f.alive(func(*process) { n++ })
	return n, err
}

// Hanging counts the calls that hang at the moment. Those of a process that is gone hang no longer.
func (f *File) Hanging() (n int, err error) {
	err = f.alive(func(p *process) { n += int(p.hanging.Load()) })
	return n, err
}

// Sessions counts the sessions that were opened and are not closed, and whose process still has the module open. A session
// whose opening was hidden from the caller is not counted: nobody could close it.
func (f *File) Sessions() (n int, err error) {
	err = f.alive(func(p *process) {
		closed := p.closed.Load() // first: a session is opened before it is closed
		n += int(p.opened.Load() - closed)
	})
	return n, err
}

// Reset ends all faults, delays, slowness and limits. The counts go on, and so does the manufacturer's name.
func (f *File) Reset() error {
	for i := range f.c.rules {
		f.c.rules[i].slow.Store(0)
		f.c.rules[i].delay.Store(0)
		f.c.rules[i].jitter.Store(0)
	}
	f.SessionLimit(0)
	f.Serialise(false)
	return f.Release()
}
