package hsmpool

import (
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// meter finds out whether a token computes on this machine's processors (SoftHSM) or whether calls wait for it. In the first case
// more sessions at work than processors are only idle threads; in the second they are what fills the pipe.
type meter struct {
	calls     atomic.Uint32
	wall, cpu atomic.Int64 // ns, of the calls that were measured
	measured  atomic.Int32
}

const (
	// meterEvery is how many calls there are to one that is measured: a look at a thread's processor time is a system call.
	meterEvery = 16

	// meterEnough is how many measured calls are needed for a judgement.
	meterEnough = 16

	// waitsBelow is the part of a call's time spent computing below which it counts as waiting, and waitsAbove how long it takes
	// at least. Threads that wait for each other or for a processor reach no tenth with as few lanes as processors.
	waitsBelow = 10 // percent
	waitsAbove = 200 * time.Microsecond
)

func (m *meter) due() bool { return m.calls.Add(1)%meterEvery == 0 }

func (m *meter) add(wall, cpu int64) {
	m.wall.Add(wall)
	m.cpu.Add(cpu)
	m.measured.Add(1)
}

// waits says whether calls wait for the token, as far as is known, and begins anew.
func (m *meter) waits() bool {
	n := m.measured.Load()
	if n < meterEnough {
		return false
	}
	m.measured.Store(0)
	wall, cpu := m.wall.Swap(0), m.cpu.Swap(0)
	return time.Duration(wall/int64(n)) > waitsAbove && cpu*100 < wall*waitsBelow
}

// computes says whether f spends most of its time computing.
func computes(f func() error) (bool, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cpu := func() time.Duration {
		var t unix.Timespec
		if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
			return 0
		}
		return time.Duration(t.Nano())
	}
	wall, used := time.Now(), cpu()
	if err := f(); err != nil {
		return false, err
	}
	return (cpu()-used)*2 > time.Since(wall), nil
}
