package hsmpool

import "time"

// window bounds how many jobs a worker may have in its hands. Too few, and its sessions wait for the next one; too many, and jobs
// wait where they can't be given to anybody else. What is right depends on the HSM, so it is found out, in two parts.
//
// Jobs beyond the sessions that may be at work wait at the worker. That is good while it is no longer than a job takes, or
// patience: several jobs then travel together, and a session never waits for one. So the window grows while jobs wait for it and
// not at the worker, and shrinks when they wait there for longer.
//
// Whether as many sessions are worth having at work, only a trial can tell: when jobs take much longer than the least that they
// have taken, they may be waiting for each other in the HSM, or this machine may be busy. Half of them are tried; if the rate
// stays, the others only waited. (A trial is made under full load only, takes a tenth of a second or some jobs, and comes rarer
// each time that it changes nothing.)
//
// A token that does one operation in 100 ms ends up with two or three jobs; one with 16 sessions of 2 ms each with some 30; SoftHSM,
// where an operation takes 60 µs, with as many as take two milliseconds. It is guarded by Pool.mu.
type window struct {
	size  int
	lanes int           // sessions that may be at work at the same time
	took  time.Duration // what a job takes, as a moving average

	paces [taskClasses]pace
	alone int // jobs in a row that had no other beside them

	// This round, which ends with as many jobs as the window has.
	jobs    int
	limited bool // a job waited because the window was full
	waited  time.Duration
	taken   time.Duration
	least   time.Duration

	// This period, which a rate is measured over.
	began    time.Time
	done     int
	saturate bool // every round of it was limited
	trial    trial
	rest     time.Duration // between trials
	next     time.Time     // no trial to halve it before that
	nextMore time.Time     // no trial to make it larger before that
	failed   bool          // the last was to halve it, and cost too much: more may be worth it
}

// trial is a change of the window on probation.
type trial struct {
	from int     // size before; 0: there is none
	rate float64 // before, in jobs a second
}

// pace is what tasks of a class take, as a moving average, and the least that this has been: single tasks may be fast for reasons of
// their own, as those with bad data are. It is forgotten only where a job was alone: one that is measured among others teaches the
// window to take its own queue for the HSM.
type pace struct{ usual, lowest time.Duration }

const (
	patience = 2 * time.Millisecond

	// jobsPerLane bounds a window.
	jobsPerLane = 128
	maxWindow   = jobsPerLane * maxSessions

	// firstSize is where a window begins, if there are as many sessions.
	firstSize = 4

	// trialLanes is how many sessions are so few that it does not matter if they wait for each other.
	trialLanes = 4

	trialSpan  = 100 * time.Millisecond
	trialJobs  = 16
	firstRest  = 10 * time.Second
	moreRest   = 2 * time.Second // a larger window on trial costs little
	longestGap = 5 * time.Minute

	// A window is halved for good if so much of the rate stays, and made larger for good if it grows by so much.
	rateKept  = 0.75
	rateGrown = 1.15
)

func newWindow(lanes int) window {
	return window{size: min(lanes, firstSize), lanes: lanes, rest: firstRest}
}

// setLanes notes how many sessions may be at work.
func (w *window) setLanes(lanes int) { w.lanes = lanes }

// add counts a job that the worker has answered. One that had to load its key says nothing of the others.
func (w *window) add(t *task, now time.Time) {
	if t.loaded {
		return
	}
	if w.took == 0 {
		w.took = t.took
	}
	w.took += (t.took - w.took) / 8
	w.jobs++
	w.done++
	w.taken += t.took
	if w.alone++; w.size > 1 {
		w.alone = 0
	}
	w.least += w.paces[t.class()].least(t.took, w.alone > 1) // the first may have begun among others
	w.waited += w.took * time.Duration(t.ahead) / time.Duration(w.lanes)
	if w.jobs < w.size {
		return
	}
	n := time.Duration(w.jobs)
	waited, taken, least, limited := w.waited/n, w.taken/n, w.least/n, w.limited
	w.jobs, w.waited, w.taken, w.least, w.limited = 0, 0, 0, 0, false
	w.saturate = w.saturate && limited
	if w.trial.from == 0 {
		w.adjust(waited, taken, least, limited)
	}
	w.endPeriod(taken, least, now)
}

// adjust ends a round.
func (w *window) adjust(waited, taken, least time.Duration, limited bool) {
	tolerated := max(taken, patience)
	switch {
	case w.size > w.lanes && waited > 2*tolerated: // another kind of job, or the HSM has become slow
		w.size = max(w.size/2, w.lanes)
	case w.size > w.lanes && waited > tolerated:
		w.size = max(w.size-max(w.size/8, 1), w.lanes)
	case limited && w.size >= w.lanes && waited < tolerated/2:
		w.size = min(w.size+max(w.size/4, 1), w.lanes*jobsPerLane)
	case limited && w.size < w.lanes && taken < least+least/2:
		w.size = min(w.size+max(w.size/4, 1), w.lanes)
	}
}

// endPeriod begins and ends trials.
func (w *window) endPeriod(taken, least time.Duration, now time.Time) {
	span := now.Sub(w.began)
	if w.done < trialJobs || span < trialSpan {
		return
	}
	rate, saturated := float64(w.done)/span.Seconds(), w.saturate
	w.began, w.done, w.saturate = now, 0, true
	if t := w.trial; t.from != 0 {
		w.trial = trial{}
		w.failed = false
		if good := w.size < t.from && rate >= rateKept*t.rate || w.size > t.from && rate >= rateGrown*t.rate; good {
			w.rest = firstRest
			return
		}
		w.failed = w.size < t.from
		w.size = t.from
		if w.failed {
			w.rest = min(2*w.rest, longestGap)
			w.next = now.Add(w.rest)
		} else {
			w.nextMore = now.Add(moreRest)
		}
		return
	}
	if !saturated || w.lanes <= trialLanes {
		return
	}
	at := min(w.size, w.lanes)
	switch {
	case taken > 2*least && at > 1 && (w.size >= w.lanes || !w.failed) && !now.Before(w.next):
		w.trial = trial{w.size, rate}
		w.size = at / 2
	case w.size < w.lanes && taken >= least+least/2 && !now.Before(w.nextMore): // also right after a trial to halve it: there may be more to do than before
		w.trial = trial{w.size, rate}
		w.size = min(at+at/2+1, w.lanes)
	}
}

// least notes what a task has taken, and gives the best pace of its class.
func (p *pace) least(took time.Duration, anew bool) time.Duration {
	if p.usual == 0 || anew {
		*p = pace{took, took}
	}
	p.usual += (took - p.usual) / 32
	p.lowest = min(p.lowest, p.usual)
	return p.lowest
}

// wait is how long a job would take, from now to its end, with so many before it.
func (w *window) wait(inFlight int) time.Duration {
	return w.took * time.Duration(inFlight/w.lanes+1)
}
