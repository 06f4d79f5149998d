package hsmpool

import (
	"runtime"
	"sync/atomic"
	"time"
)

// meter finds out whether a token computes on this machine's processors (SoftHSM) or whether calls wait for it. In the first case
// more sessions at work than processors are only idle threads; in the second they are what fills the pipe. A thread that waits for
// a processor counts as computing: this machine is busy then, not the token.
type meter struct {
	calls    atomic.Uint32
	long     atomic.Bool // calls take so long that measuring each costs nothing
	measured atomic.Int32
	blocked  atomic.Int32 // of these, calls that were blocked nearly all the time
}

const (
	// meterEvery is how many calls there are to one that is measured, which costs some 10 µs.
	meterEvery = 64
	meterLong  = 500 * time.Microsecond

	// meterEnough is how many measured calls a judgement is made of. Two threads that wait for each other (SoftHSM locks its tokens)
	// are blocked in every second call.
	meterEnough = 32
	meterMost   = 28

	// A call that waits is blocked for so much of its time, in percent, and takes so long at least.
	waitsAbove = 80
	waitsFor   = 200 * time.Microsecond
)

func (m *meter) due() bool { return m.calls.Add(1)%meterEvery == 0 || m.long.Load() }

// add counts a call: how long it took, and for how much of that it was computing or waiting for a processor.
func (m *meter) add(wall, busy time.Duration) {
	m.long.Store(wall > meterLong)
	if wall > waitsFor && (wall-busy)*100 > wall*waitsAbove {
		m.blocked.Add(1)
	}
	m.measured.Add(1)
}

// waits says whether calls wait for the token, as far as is known.
func (m *meter) waits() bool {
	if m.measured.Load() < meterEnough {
		return false
	}
	m.measured.Store(0)
	return m.blocked.Swap(0) >= meterMost
}

// computes says whether f spends most of its time computing, or waiting for a processor.
func computes(f func() error) (bool, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began, before := time.Now(), threadBusy()
	if err := f(); err != nil {
		return false, err
	}
	return (threadBusy()-before)*2 > time.Since(began), nil
}
