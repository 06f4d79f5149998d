package hsmpool

import (
	"errors"
	"time"
)

// member is one member as the pool sees it. All but cfg and pin is guarded by Pool.mu.
type member struct {
	cfg     *MemberConfig // never changed
	pin     *pinGuard
	workers []*worker // never changed
	own     fairQueue // jobs of keys that only this member has

	draining  bool          // an operator wants no more jobs on it
	retired   bool          // it is no longer configured
	leaving   bool          // it is no longer configured, and serves until another member does
	successor *member       // what is to take its place, or has
	emptied   chan struct{} // closed when the last job of a member that takes none ends; nil: nobody waits for that

	refusals [taskClasses]refusal // kinds of jobs that others had to do for it

	token, serial string

	done, failed, failovers, restarts uint64
	endings                           [len(endingNames)]uint64 // of workers' lives
	crowded                           time.Time                // until then its memory counts as full
	latency                           histogram
	codes                             codeCount // has its own lock
}

func (p *Pool) newMember(cfg MemberConfig) *member {
	m := &member{cfg: &cfg, pin: newPINGuard(&cfg), token: cfg.TokenLabel, serial: cfg.TokenSerial}
	m.own.shares = p.shared.shares
	for i := range max(cfg.Workers, 1) {
		m.workers = append(m.workers, p.newWorker(m, i))
	}
	return m
}

// inForce gives who stands for the member now: itself, or who has taken its place.
func (m *member) inForce() *member {
	for m.retired && m.successor != nil {
		m = m.successor
	}
	return m
}

// takes says whether the member is to get jobs.
func (m *member) takes() bool { return !m.draining && !m.retired }

// usable says whether a job can be given to it now, if it has room.
func (m *member) usable() bool {
	for _, w := range m.workers {
		if w.usable() {
			return true
		}
	}
	return false
}

// promising says whether a job can be given to it now or in a moment.
func (m *member) promising() bool {
	for _, w := range m.workers {
		if w.usable() || w.state == workerReviving {
			return true
		}
	}
	return false
}

func (m *member) inFlight() int {
	n := 0
	for _, w := range m.workers {
		n += len(w.inFlight)
	}
	return n
}

// quiet tells who waits for the member's last job.
func (m *member) quiet() {
	if m.emptied != nil && m.inFlight() == 0 {
		close(m.emptied)
		m.emptied = nil
	}
}

// whenEmpty gives what is closed when the member, which takes no jobs, has none any more.
func (m *member) whenEmpty() <-chan struct{} {
	if m.emptied == nil {
		m.emptied = make(chan struct{})
	}
	c := m.emptied
	m.quiet()
	return c
}

// state sums up its workers'.
func (m *member) state() (s State, reason string, since time.Time) {
	rank := map[State]int{StateDown: 0, StateHalfOpen: 1, StateUp: 2}
	s = StateDown
	for i, w := range m.workers {
		ws := w.state.public()
		if i == 0 || rank[ws] > rank[s] || ws == s && w.since.Before(since) {
			s, reason, since = ws, w.reason, w.since
		}
	}
	if m.draining {
		if s == StateDown {
			reason = "drained by an operator, and down: " + reason
		} else {
			reason = "drained by an operator"
		}
		s = StateDraining
	}
	return s, reason, since
}

// refusal is what is known of a member that did not do a kind of job which another member did then: it lacks the mechanism, say.
// Jobs are given to it while nobody else can do them, and now and then, as tries elsewhere are bounded.
type refusal struct {
	times uint8 // in a row
	until time.Time
}

// A kind of job is kept from a member that refused it so often in a row: for the first time, then twice as long each time, up to
// the last.
const (
	refusedOften = 3
	refusedFirst = time.Second
	refusedMost  = refusedOften + 6 // doublings
)

func (m *member) refuses(t *ticket, now time.Time) bool {
	r := &m.refusals[t.class()]
	return r.times >= refusedOften && now.Before(r.until)
}

// refused notes that another member did what this one did not.
func (m *member) refused(t *ticket, now time.Time) {
	r := &m.refusals[t.class()]
	if now.Before(r.until) {
		return // it was given before
	}
	if r.times = min(r.times+1, refusedMost); r.times >= refusedOften {
		r.until = now.Add(refusedFirst << (r.times - refusedOften))
	}
}

// named gives the error the member's name. The error may be shared, so a copy is made.
func (m *member) named(err error) *Error {
	if own, ok := err.(*Error); err == nil || ok && own == nil {
		return nil
	}
	e := &Error{Kind: KindUnavailable, fate: fateDown}
	if own := (*Error)(nil); errors.As(err, &own) {
		*e = *own
	} else {
		e.Err = err
	}
	e.Member = m.cfg.Name
	return e
}

// sessionsOfEach is how many sessions each worker of a member may open.
func (c *MemberConfig) sessionsOfEach() int {
	if c.MaxSessions == 0 {
		return 0
	}
	return min(max(1, c.MaxSessions/max(c.Workers, 1)), maxSessions)
}

// histogram counts how long jobs took. The zero histogram is empty.
type histogram struct {
	counts [latencyBuckets + 1]uint64
	sum    time.Duration
}

const latencyBuckets = 18

// latencyBounds go from 32 µs to 4 s, each twice the one before.
var latencyBounds = func() (bounds []time.Duration) {
	for i := range latencyBuckets {
		bounds = append(bounds, 32*time.Microsecond<<i)
	}
	return bounds
}()

func (h *histogram) add(d time.Duration) {
	i := 0
	for i < latencyBuckets && d > latencyBounds[i] {
		i++
	}
	h.counts[i]++
	h.sum += d
}

func (h *histogram) public() Histogram {
	return Histogram{Bounds: latencyBounds, Counts: append([]uint64(nil), h.counts[:]...), Sum: h.sum}
}

// Status reports every member's.
func (p *Pool) Status() []Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	shared := p.shared.waiting() + len(p.slow) + len(p.again)
	out := make([]Status, 0, len(p.members))
	for _, m := range p.members {
		s := Status{Name: m.cfg.Name, Token: m.token, Serial: m.serial, Module: m.cfg.Module, Queue: shared + m.own.waiting(),
			Done: m.done, Failed: m.failed, Failovers: m.failovers, Restarts: m.restarts, Codes: m.codes.names(), Latency: m.latency.public()}
		s.State, s.Reason, s.Since = m.state()
		s.Endings = make(map[string]uint64, len(endingNames))
		for i, name := range endingNames {
			s.Endings[name] = m.endings[i]
		}
		if next := m.successor; next != nil {
			_, why, _ := next.state()
			s.Reason = "its new configuration is not in force, as the member can't serve with it: " + why
		}
		if m.leaving {
			s.Reason = "it is no longer configured, and serves until another member does"
		}
		for _, w := range m.workers {
			ws := WorkerStatus{State: w.state.public(), Reason: w.reason, InFlight: len(w.inFlight), Restarts: w.restarts}
			if w.link != nil {
				ws.PID = w.link.pid()
				ws.Sessions, ws.Keys = w.link.load()
				ws.Lanes, ws.Window = w.window.lanes, w.window.size
			}
			s.Sessions += ws.Sessions
			s.Keys += ws.Keys
			s.Lanes += ws.Lanes
			s.Window += ws.Window
			s.InFlight += ws.InFlight
			s.Workers = append(s.Workers, ws)
		}
		out = append(out, s)
	}
	return out
}

// Totals reports the figures of the pool as a whole.
func (p *Pool) Totals() Totals {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.totals
	t.Waiting, t.Room = p.waiting(), p.room
	principals := map[string]bool{}
	queues := []*fairQueue{&p.shared}
	for _, m := range p.members {
		queues = append(queues, &m.own)
	}
	for _, q := range queues {
		for name, l := range q.lines {
			if l.live > 0 {
				principals[name] = true
			}
		}
	}
	t.Principals = len(principals)
	return t
}
