package hsmpool

import "time"

// window bounds how many jobs a worker may have in its hands. Too few, and its sessions wait for the next one; too many, and jobs
// wait where they can't be given to anybody else. What is right depends on the HSM, so it is found out. A job waits for others at
// the worker, as long as those take that were before it, and in the HSM, as long as it takes more than the least that jobs of its
// kind have taken. While that is little the jobs that were added have gone through beside the others, so throughput grows with the
// window, and it may grow; where only the waiting grows it must shrink. (TCP Vegas does this for packets.) Waiting for one of this
// machine's processors is not counted: a smaller window would not shorten it. It is guarded by Pool.mu.
//
// A token that does one operation in 100 ms ends up with two jobs, one of them waiting; one with 16 sessions of 2 ms each with
// some 30; SoftHSM, where an operation takes 60 µs, with as many as take two milliseconds.
type window struct {
	size int
	most int // size never exceeds it

	lanes int           // sessions that may be at work at the same time
	took  time.Duration // what a job takes, as a moving average
	paces [taskClasses]pace
	alone int // jobs in a row that had no other beside them

	// This round, which ends with as many jobs as the window has.
	jobs    int
	limited bool // a job waited because the window was full
	over    time.Duration
	least   time.Duration
}

// pace is what tasks of a class take, as a moving average, and the least that this has been: single tasks may be fast for reasons of
// their own, as those with bad data are.
type pace struct{ usual, least time.Duration }

const (
	// patience is how long a job may wait at a worker for the sake of throughput, at least: several jobs travel together.
	patience = 2 * time.Millisecond

	// jobsPerLane bounds a window.
	jobsPerLane = 128
	maxWindow   = jobsPerLane * maxSessions
)

func newWindow(lanes int) window {
	return window{size: lanes, lanes: lanes, most: lanes * jobsPerLane}
}

// setLanes notes how many sessions may be at work.
func (w *window) setLanes(lanes int) {
	if lanes != w.lanes {
		w.lanes, w.most = lanes, lanes*jobsPerLane
		w.size = min(max(w.size, lanes), w.most)
	}
}

// done counts a job that the worker has answered. One that had to load its key says nothing of the others.
func (w *window) done(t *task) {
	if t.loaded {
		return
	}
	// An HSM that has become slow must not be measured by what it did once. What it does now shows only where nothing of ours waits,
	// and there the waiting brings the window: a job that is measured among others teaches it to take the queue for the HSM.
	if w.alone++; w.size > 1 {
		w.alone = 0
	}
	p := &w.paces[t.class()]
	if p.usual == 0 || w.alone > 1 { // the first may have begun among others
		*p = pace{t.took, t.took}
	}
	p.usual += (t.took - p.usual) / 32
	p.least = min(p.least, p.usual)
	if w.took == 0 {
		w.took = t.took
	}
	w.took += (t.took - w.took) / 8
	w.jobs++
	w.least += p.least
	w.over += w.took*time.Duration(t.ahead)/time.Duration(w.lanes) + t.took - p.least
	if w.jobs < w.size {
		return
	}
	over, tolerated := w.over/time.Duration(w.jobs), max(w.least/time.Duration(w.jobs), patience)
	switch {
	case over > tolerated:
		w.size = max(w.size-max(w.size/8, 1), 1)
	case w.limited && over < tolerated/2:
		w.size = min(w.size+max(w.size/4, 1), w.most)
	}
	w.jobs, w.over, w.least, w.limited = 0, 0, 0, false
}

// wait is how long a job would take, from now to its end, with so many before it.
func (w *window) wait(inFlight int) time.Duration {
	return w.took * time.Duration(inFlight/w.lanes+1)
}
