package hsmpool

import (
	"errors"
	"slices"
	"time"

	"github.com/miekg/pkcs11"
)

// Who does a job is decided here, at three moments: when it comes, when an answer makes room, and when a worker comes or goes. All
// of it happens under Pool.mu and waits for nothing: tasks are put into the buffers of links, which are flushed afterwards, and
// tickets that are done are finished afterwards. (See Pool.act.)

// action collects what is to be done when Pool.mu is free again.
type action struct {
	finished []*ticket
	touched  []link
}

// act runs f under Pool.mu, gives out what can be given out, and does the rest without the lock.
func (p *Pool) act(f func(a *action)) {
	var finished [maxBatch]*ticket
	var touched [4]link
	a := action{finished: finished[:0], touched: touched[:0]}
	p.mu.Lock()
	f(&a)
	p.dispatch(&a)
	p.mu.Unlock()
	for _, l := range a.touched {
		l.flush()
	}
	for _, t := range a.finished {
		t.finish()
	}
}

// end finishes a ticket with an error.
func (a *action) end(t *ticket, e *Error) {
	t.err = e
	a.finished = append(a.finished, t)
}

// waiting counts the jobs that wait and that somebody wants.
func (p *Pool) waiting() int {
	n := p.shared.waiting() + len(p.slow) + len(p.again)
	for _, m := range p.members {
		n += m.own.waiting()
	}
	return n
}

// push queues tickets. Those that there is no room for, or nobody to do them, are returned with the reason.
func (p *Pool) push(tickets []*ticket) (rest []*ticket, reason *Error) {
	p.act(func(a *action) {
		if p.closed != nil {
			rest, reason = tickets, p.closed
			return
		}
		free := p.room - p.waiting()
		for i, t := range tickets {
			if t.only != nil {
				t.only = t.only.inForce() // it may have been replaced since its name was looked up
			}
			if !p.hope(t) {
				rest, reason = append(rest, t), p.nobody(t.only)
				continue
			}
			q := &p.shared
			if t.only != nil {
				q = &t.only.own
			}
			if free <= 0 || q.room(t.principal, free) == 0 || t.slow() && len(p.slow) >= slowRoom(p.room) {
				p.totals.Throttled += uint64(len(tickets) - i)
				rest, reason = append(rest, tickets[i:]...), &Error{Kind: KindFull, fate: fateData, Detail: p.full(t, free)}
				return
			}
			free--
			p.budget = min(p.budget+1, maxBudget)
			t.queued = true
			if t.slow() {
				p.slow = append(p.slow, t)
				continue
			}
			t.line = q
			q.push(t)
		}
	})
	return rest, reason
}

// slowRoom is how much of the queue jobs may fill that take seconds.
func slowRoom(room int) int { return max(room/4, 1) }

func (p *Pool) full(t *ticket, free int) string {
	switch {
	case free <= 0:
		return "the queue is full"
	case t.slow() && len(p.slow) >= slowRoom(p.room):
		return "too many keys are being made"
	}
	return "the principal's part of the queue is full"
}

// abandon makes room for others when a caller no longer waits for tickets.
func (p *Pool) abandon(tickets []*ticket) {
	type inFlight struct {
		l  link
		id uint64
	}
	var cancel []inFlight
	p.mu.Lock()
	for _, t := range tickets {
		p.totals.Abandoned++
		switch {
		case t.queued && t.line != nil:
			t.line.abandon(t, p.room)
		case t.queued:
			t.queued = false
			gone := func(x *ticket) bool { return x == t }
			p.slow, p.again = slices.DeleteFunc(p.slow, gone), slices.DeleteFunc(p.again, gone)
		case t.to != nil && t.to.link != nil && t.to.inFlight[t.id] == t:
			cancel = append(cancel, inFlight{t.to.link, t.id})
		}
	}
	p.mu.Unlock()
	for _, c := range cancel {
		c.l.cancel(c.id)
	}
}

// dispatch gives out whatever can be given out. Caller holds mu.
func (p *Pool) dispatch(a *action) {
	// Second tries first: they have waited longest. These lists are short.
	p.again = p.giveList(a, p.again)
	p.slow = p.giveList(a, p.slow)
	// Jobs of keys that one member has and those that any can do take turns, so that neither shuts the other out.
	if p.ownBefore && p.giveQueue(a, &p.shared) {
		p.ownBefore = false
	}
	for _, m := range p.members {
		if p.giveQueue(a, &m.own) {
			p.ownBefore = true
		}
	}
	if p.giveQueue(a, &p.shared) {
		p.ownBefore = false
	}
	p.warm(a)
}

func (p *Pool) giveList(a *action, list []*ticket) (rest []*ticket) {
	if len(list) == 0 {
		return list
	}
	rest = list[:0]
	for _, t := range list {
		if w := p.choose(t, 0); w != nil {
			t.queued = false
			p.give(a, w, t)
			continue
		}
		rest = append(rest, t)
	}
	clear(list[len(rest):])
	return rest
}

// giveQueue gives out what it can, and says whether that was anything.
func (p *Pool) giveQueue(a *action, q *fairQueue) (gave bool) {
	for q.n > 0 {
		t := q.peek()
		if t == nil {
			break
		}
		w := p.choose(t, q.n)
		if w == nil {
			break
		}
		q.pop()
		p.give(a, w, t)
		gave = true
	}
	return gave
}

// strangerCost is what it is taken to cost to use a key where it is not loaded.
const strangerCost = 500 * time.Microsecond

// crowdedFor is how long a member whose memory is full gets no new keys, if others can take them.
const crowdedFor = time.Minute

func (m *member) crowdedAt(now time.Time) bool { return now.Before(m.crowded) }

// refusedCost is more than any wait: who refuses a kind of job gets it if nobody else is there.
const refusedCost = time.Hour

// stale says whether what is known of a worker is so old that it should get a job although others seem faster: so it is noticed
// when it no longer is slow, and no member forgets the keys that are in use. A job in so many is what that costs.
func (w *worker) stale(now time.Time) bool { return now.Sub(w.given) > 32*w.window.took }

// choose finds the worker that will have done a ticket first, or nil if it should wait; behind is how many others wait with it.
func (p *Pool) choose(t *ticket, behind int) *worker {
	var best *worker
	var bestWait, fullWait time.Duration
	full := 0
	members := p.members
	if t.only != nil {
		members = []*member{t.only}
	}
	now := time.Now()
	preferred := t.prefer != nil && t.prefer.takes() && t.prefer.usable() && p.may(t, t.prefer)
	for _, m := range members {
		if !m.takes() || !m.usable() || !p.may(t, m) || preferred && m != t.prefer {
			continue
		}
		for _, w := range m.workers {
			if !w.usable() {
				continue
			}
			if t.slow() {
				if w.long == 0 && (best == nil || m.crowdedAt(now) == best.m.crowdedAt(now) && len(w.inFlight) < len(best.inFlight) ||
					best.m.crowdedAt(now) && !m.crowdedAt(now)) {
					best = w
				}
				continue
			}
			wait := w.window.wait(len(w.inFlight))
			if w.full() {
				w.window.limited = true
				full++
				fullWait += wait
				continue
			}
			switch {
			case t.only == nil && m.refuses(t, now):
				wait += refusedCost
			case len(w.inFlight) == 0 && w.stale(now):
				wait = min(wait, bestWait) // what is known of it is old
			case t.key != nil && !w.known.Contains(cacheID(t.key)):
				wait += strangerCost
				if m.crowdedAt(now) {
					wait += crowdedFor
				}
			}
			if best == nil || clearly(wait, bestWait) || !clearly(bestWait, wait) && w.given.Before(best.given) {
				best, bestWait = w, wait
			}
		}
	}
	// If those who are busy will be through with all that waits long before, it goes to one of them.
	if best != nil && full > 0 && !t.slow() {
		soon := fullWait/time.Duration(full) + best.othersTake(p)*time.Duration(behind)
		if bestWait > 4*soon+10*time.Millisecond && (bestWait >= refusedCost || !best.stale(now)) {
			return nil
		}
	}
	return best
}

// clearly says whether one time is so much less than another that it means something. Between those that are alike turns are
// taken, so that one caller after the other keeps every member warm.
func clearly(a, b time.Duration) bool { return a+a/4+20*time.Microsecond < b }

// othersTake is what a job costs the pool's other workers together, at their rate.
func (w *worker) othersTake(p *Pool) time.Duration {
	rate := 0.0 // jobs a second
	for _, m := range p.members {
		for _, x := range m.workers {
			if x != w && m.takes() && x.usable() && x.window.took > 0 {
				rate += float64(x.window.lanes) / x.window.took.Seconds()
			}
		}
	}
	if rate == 0 {
		return 0
	}
	return time.Duration(float64(time.Second) / rate)
}

// may says whether a ticket may be given to a member, by who had it already: one who had not, if there is any; else, for what
// was no fault of the job, anybody a second time.
func (p *Pool) may(t *ticket, m *member) bool {
	ran := t.hasRun(m)
	if t.only == nil && (ran || m == t.avoid) {
		for _, other := range p.members {
			if other == m || !other.takes() || !other.promising() {
				continue
			}
			if m == t.avoid && (!t.hasRun(other) || t.err.wontHelp()) || m != t.avoid && other != t.avoid && !t.hasRun(other) {
				return false
			}
		}
	}
	return !ran || t.ran(m) < 2 && !t.err.wontHelp()
}

// hope says whether there is anybody who can do a ticket, now or soon.
func (p *Pool) hope(t *ticket) bool {
	if t.only != nil {
		return t.only.takes() && t.only.promising() && p.may(t, t.only)
	}
	for _, m := range p.members {
		if m.takes() && m.promising() && p.may(t, m) {
			return true
		}
	}
	return false
}

// give hands a ticket to a worker.
func (p *Pool) give(a *action, w *worker, t *ticket) {
	p.ids++
	t.id, t.to, t.sent = p.ids, w, time.Now()
	if t.runs == nil {
		t.runs = t.room[:0]
	}
	t.runs = append(t.runs, w.m)
	w.inFlight[t.id] = t
	switch {
	case t.slow():
		w.long++
	case t.worker == nil:
		w.given = t.sent
	}
	slot, tell := w.slotOf(t)
	w.link.post(&t.task, slot, tell)
	if !slices.Contains(a.touched, w.link) {
		a.touched = append(a.touched, w.link)
	}
}

// ask gives a worker a ticket that is about it.
func (p *Pool) ask(w *worker, t *ticket) {
	t.worker = w
	p.act(func(a *action) {
		if w.link == nil || !w.usable() {
			a.end(t, errorf(KindUnavailable, fateDown, "the member is down"))
			return
		}
		p.give(a, w, t)
	})
}

// warm has idle workers load the keys that were used most before they were started again.
func (p *Pool) warm(a *action) {
	if p.shared.n > 0 {
		return
	}
	for _, m := range p.members {
		for _, w := range m.workers {
			for len(w.toLoad) > 0 && len(w.inFlight) == 0 && w.state == workerUp && m.takes() {
				k := w.toLoad[0]
				w.toLoad = w.toLoad[1:]
				if !w.known.Contains(cacheID(k)) {
					p.give(a, w, &ticket{task: task{op: opLoad, key: k}, worker: w})
				}
			}
		}
	}
}

// answers takes what a worker has answered.
func (p *Pool) answers(ev *epoch, tasks []*task, width int) {
	now := time.Now()
	p.act(func(a *action) {
		w := ev.w
		if w.epoch != ev {
			for _, x := range tasks {
				clear(x.out) // who waited for it has gone elsewhere
			}
			return
		}
		w.window.setLanes(width)
		for _, x := range tasks {
			t := w.inFlight[x.id]
			if t == nil {
				// Each task is answered once. Who answers more hides from watch that it owes something.
				clear(x.out)
				p.takeDown(a, w, w.m.named(errUnasked))
				break
			}
			w.took(t)
			p.settle(a, w, t, x, now)
			if w.epoch != ev {
				break // taken down; who is left was given to others
			}
		}
		w.m.quiet()
	})
}

var errUnasked = &Error{Kind: KindInternal, fate: fateModule, Detail: "the worker answered what it was not asked"}

// settle decides what becomes of a ticket that a worker has answered: its result, another try, or its error.
func (p *Pool) settle(a *action, w *worker, t *ticket, x *task, now time.Time) {
	m := w.m
	if x.err == nil && !plausible(&t.task, x) {
		clear(x.out)
		x.err = errImpossible
	}
	if x.err != nil && x.err.Kind == KindCanceled {
		if !t.wanted() {
			a.end(t, x.err)
			return
		}
		x.err = errUnasked
	}
	if !t.slow() && t.worker == nil {
		if x.err == nil { // one that fails at once says nothing of what others take
			w.window.add(x, now)
		}
		m.latency.add(now.Sub(t.sent))
	}
	t.begun = t.begun || x.begun
	if x.err == nil || x.err.fate == fateData {
		m.done++
		w.well()
		if x.err == nil {
			m.refusals[t.class()].times = 0
			if n := len(t.runs); t.err != nil && t.err.fate == fateItem && n > 1 && t.runs[n-2] != m {
				t.runs[n-2].refused(t, now)
			}
		}
		t.out, t.count, t.err = x.out, x.count, m.named(x.err)
		if x.pub != nil {
			t.pub = x.pub
		}
		a.finished = append(a.finished, t)
		return
	}
	m.failed++
	t.err = m.named(x.err)
	if errors.Is(x.err.Err, pkcs11.Error(pkcs11.CKR_DEVICE_MEMORY)) && (x.loaded || t.slow()) {
		m.crowded = now.Add(crowdedFor)
	}
	if x.err.Kind == KindKeyMissing || x.err.fate >= fateLogin {
		w.forget(t.key)
	}
	switch x.err.fate {
	case fateSession, fateLogin:
		if w.unwell(now) {
			p.takeDown(a, w, t.err)
		}
	case fateModule, fateDown, fateOperator:
		p.takeDown(a, w, t.err)
	}
	p.retry(a, t)
}

// plausible holds a result against what the operation gives: the library in the worker is a stranger's code.
func plausible(t, x *task) bool {
	r, ok := ops[t.op]
	if !ok {
		return len(x.out) <= maxWrapped
	}
	var kt keyTypeRow
	if t.key != nil {
		kt = keyTypes[t.key.Type]
	}
	n, exact := r.out(kt, t)
	return len(x.out) == n || !exact && len(x.out) < n
}

// retry queues a ticket once more, or ends it with the error that it has.
func (p *Pool) retry(a *action, t *ticket) {
	if t.only != nil {
		t.only = t.only.inForce()
	}
	switch {
	case t.worker != nil, !t.wanted(), !t.repeatable(), len(t.runs) >= maxAttempts, p.closed != nil, !p.hope(t):
		a.finished = append(a.finished, t)
		return
	case p.budget < retryCost:
		p.totals.NoBudget++
		a.finished = append(a.finished, t)
		return
	}
	p.budget -= retryCost
	p.totals.Retries++
	t.to.m.failovers++
	t.queued, t.line = true, nil
	p.again = append(p.again, t)
}

// Retries are bounded to a tenth of the jobs, and what came of many jobs may be used at once when an HSM fails.
const (
	maxAttempts = 3
	retryCost   = 10
	maxBudget   = 2048 * retryCost
)

// sweep ends the tickets that nobody is left for. It is called when a worker or a member has gone.
func (p *Pool) sweep(a *action) {
	keep := func(list []*ticket) []*ticket {
		rest := list[:0]
		for _, t := range list {
			if p.hope(t) {
				rest = append(rest, t)
				continue
			}
			t.queued = false
			if t.err == nil {
				t.err = p.nobody(t.only)
			}
			a.finished = append(a.finished, t)
		}
		clear(list[len(rest):])
		return rest
	}
	p.again, p.slow = keep(p.again), keep(p.slow)
	all := true
	for _, m := range p.members {
		if m.takes() && m.promising() {
			all = false
			continue
		}
		for _, t := range m.own.all() {
			a.end(t, p.nobody(m))
		}
	}
	if all {
		for _, t := range p.shared.all() {
			a.end(t, p.nobody(nil))
		}
	}
}
