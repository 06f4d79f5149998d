package hsmpool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Pool is a group of members. See Open.
type Pool struct {
	command    []string // of a worker process; empty: no isolation
	probe      time.Duration
	openWith   func(m *member) opener // nil, or a test's
	background sync.WaitGroup         // supervisors

	// mu guards what follows and the members. It is held for moments only: nothing that waits happens under it.
	mu      sync.Mutex
	closed  *Error // why no job is taken any more
	group   string
	members []*member // in the order of the configuration
	shared  fairQueue // jobs that any member can do
	slow    []*ticket // jobs that may take seconds, for any member or for one
	again   []*ticket // jobs for another try
	room    int       // jobs that may wait

	ownBefore bool // the last jobs were given out of a member's own queue

	budget int    // what retries may still cost
	ids    uint64 // of tasks
	turn   int    // of PinTarget
	totals Totals // the counts of it
}

const (
	defaultQueue = 4096

	// probeInterval is how often a member is looked at: up, whether it still is; down, whether it is back.
	probeInterval = 5 * time.Second
)

func (c *Config) check() error {
	if len(c.Members) == 0 {
		return errorf(KindInternal, fateOperator, "no HSM members are configured")
	}
	if len(c.Members) > 64 {
		return errorf(KindInternal, fateOperator, "%d HSM members are more than 64", len(c.Members))
	}
	seen := map[string]bool{}
	for i := range c.Members {
		m := &c.Members[i]
		if m.Name == "" || seen[m.Name] {
			return errorf(KindInternal, fateOperator, "HSM member %d needs a name of its own, not %q", i+1, m.Name)
		}
		seen[m.Name] = true
		if (m.TokenLabel == "") == (m.TokenSerial == "") {
			return errorf(KindInternal, fateOperator, "HSM member %s needs a token label or a token serial, exactly one", m.Name)
		}
		if m.Module == "" {
			return errorf(KindInternal, fateOperator, "HSM member %s needs the path of its PKCS#11 library", m.Name)
		}
		token := m.Module + "\x00" + m.TokenLabel + "\x00" + m.TokenSerial
		if seen[token] {
			return errorf(KindInternal, fateOperator, "HSM member %s is the same token as another", m.Name)
		}
		seen[token] = true
		switch {
		case m.Workers < 0 || m.Workers > maxWorkers:
			return errorf(KindInternal, fateOperator, "HSM member %s may have 1 to %d workers, not %d", m.Name, maxWorkers, m.Workers)
		case m.Socket != "" && (m.Workers > 1 || len(c.Worker) == 0):
			return errorf(KindInternal, fateOperator, "HSM member %s has a worker in a unit: there is one, and it is a process", m.Name)
		case m.Workers > 1 && len(c.Worker) == 0:
			return errorf(KindInternal, fateOperator, "HSM member %s can have one worker only, as there is no isolation", m.Name)
		case m.MaxSessions > 0 && m.MaxSessions < m.Workers:
			return errorf(KindInternal, fateOperator, "HSM member %s has %d workers and may open %d sessions; each needs one", m.Name, m.Workers, m.MaxSessions)
		}
	}
	return nil
}

const maxWorkers = 16

// Open opens the group. It succeeds when at least one member can serve; the others stay down with a reason in Status
// and are tried again in the background. A refused PIN, a missing token or foreign master keys on every member give an
// error that says so, and what to do.
func Open(ctx context.Context, c Config) (*Pool, error) { return open(ctx, c, nil) }

func open(ctx context.Context, c Config, openWith func(*member) opener) (*Pool, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	p := &Pool{group: c.Group, command: c.Worker, probe: c.Probe, openWith: openWith, budget: maxBudget}
	if p.probe <= 0 {
		p.probe = probeInterval
	}
	p.setQueue(c.Queue, c.Shares)
	// All at once, for a token may be slow to refuse; admitted in their order if the first is to decide about the group.
	var workers []*worker
	var turn <-chan struct{}
	p.mu.Lock()
	for i := range c.Members {
		m := p.newMember(c.Members[i])
		p.members = append(p.members, m)
		for _, w := range m.workers {
			p.begin(w, turn)
			workers = append(workers, w)
			if p.group == "" {
				turn = w.tried
			}
		}
	}
	p.mu.Unlock()
	var errs []error
	up := 0
	for _, w := range workers {
		select {
		case <-w.tried:
		case <-ctx.Done():
		}
		switch {
		case !isClosed(w.tried): // one that was tried counts, however late it is
			e := contextError(ctx)
			e.Member = w.m.cfg.Name
			errs = append(errs, e)
		case w.err == nil:
			up++
		default:
			errs = append(errs, w.err)
		}
	}
	if up == 0 {
		err := errors.Join(errs...)
		return nil, errors.Join(&Error{Kind: KindUnavailable, Detail: "no HSM member can serve", Err: err}, p.Close())
	}
	return p, nil
}

// begin starts a worker's supervisor.
func (p *Pool) begin(w *worker, turn <-chan struct{}) {
	p.background.Go(func() { p.supervise(w, turn) })
}

func (p *Pool) newOpener(m *member) opener {
	switch {
	case p.openWith != nil:
		return p.openWith(m)
	case len(p.command) > 0:
		return &workerProcess{cfg: m.cfg, command: p.command, pin: m.pin}
	}
	return newInProcess(m.cfg, m.pin)
}

// setQueue takes over how many jobs may wait, and how they are shared out. Caller holds mu.
func (p *Pool) setQueue(room int, shares map[string]Share) {
	if p.room = room; p.room <= 0 {
		p.room = defaultQueue
	}
	p.shared.setShares(shares)
	for _, m := range p.members {
		m.own.setShares(shares)
	}
}

// Close ends the workers and closes the modules. Jobs that wait end with KindUnavailable. It waits up to ten seconds for jobs in
// the hands of workers. If a library in this process is stuck in a call then, Close says so, and the library stays open.
func (p *Pool) Close() error {
	reason := &Error{Kind: KindUnavailable, fate: fateData, Detail: "the pool is closed"}
	var workers []*worker
	first := false
	p.act(func(a *action) {
		if first = p.closed == nil; !first {
			return
		}
		p.closed = reason
		for _, m := range p.members {
			for m := m; m != nil; m = m.successor {
				m.retired = true
				workers = append(workers, m.workers...)
			}
		}
		p.sweep(a)
	})
	if !first {
		return nil
	}
	for _, w := range workers {
		w.retire()
	}
	ended := make(chan struct{})
	go func() { p.background.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-time.After(closeWait + 2*gateWait):
		return errorf(KindUnavailable, fateDown, "a call into an HSM's library does not return; it is left behind")
	}
}

// Do runs the job and returns its Err. ctx bounds the waiting: a C call in flight runs to its end and its result is
// wiped and dropped. It may go on reading In, Nonce, AAD and Label after a context error, so the job must not be used again. Its
// memory may: what the call then reads changes nothing but the result that nobody sees.
func (p *Pool) Do(ctx context.Context, j *Job) error {
	j.Out, j.Err = nil, nil
	t := &ticket{principal: j.Principal}
	e := p.prepare(j, t)
	if e == nil {
		e = p.do(ctx, t)
	}
	if e != nil {
		j.Err = e
		return e
	}
	j.Out = t.out
	return nil
}

// prepare checks a job before anything is called, and makes its ticket.
func (p *Pool) prepare(j *Job, t *ticket) *Error {
	if j.Op >= opGenerate {
		return badInput("operation %d is not known", j.Op)
	}
	if e := checkKey(j.Key); e != nil {
		return e
	}
	t.op, t.key, t.nonce, t.aad, t.principal = j.Op, j.Key, j.Nonce, j.AAD, j.Principal
	if c := (choices{j.Hash, j.MGF, j.Salt, j.Label, j.TagBits}); !c.none() {
		told := c // only this one is kept
		t.told = &told
	}
	if e := t.checkInput(len(j.In)); e != nil {
		return e
	}
	t.in = j.Op.input(j.Key.Type, j.In)
	if j.Key.Member == "" {
		return nil
	}
	var e *Error
	t.only, e = p.memberNamed(j.Key.Member)
	return e
}

func (p *Pool) memberNamed(name string) (*member, *Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.members {
		if m.cfg.Name == name {
			return m, nil
		}
	}
	return nil, noMember(name)
}

func noMember(name string) *Error {
	return &Error{Kind: KindUnavailable, fate: fateData, Member: name, Detail: "the configuration has no such member"}
}

// do queues a ticket and waits for it.
func (p *Pool) do(ctx context.Context, t *ticket) *Error {
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	t.wait = newWaiter(1)
	if _, e := p.push([]*ticket{t}); e != nil {
		return e
	}
	select {
	case <-t.wait.done:
		return t.err
	case <-ctx.Done():
	}
	if t.state.CompareAndSwap(ticketPending, ticketAbandoned) {
		p.abandon([]*ticket{t})
		return contextError(ctx)
	}
	<-t.wait.done // it was just done
	return t.err
}

// nobody says why no member, or not the only one, can do a job. Caller holds mu.
func (p *Pool) nobody(only *member) *Error {
	if p.closed != nil {
		return p.closed
	}
	if only != nil {
		s, reason, _ := only.state()
		return &Error{Kind: KindUnavailable, fate: fateDown, Member: only.cfg.Name, Detail: string(s) + ": " + reason}
	}
	detail := "no member is up"
	for _, m := range p.members {
		_, reason, _ := m.state()
		detail += fmt.Sprintf("; %s: %s", m.cfg.Name, reason)
	}
	return &Error{Kind: KindUnavailable, fate: fateDown, Detail: detail}
}

// DoAll runs the jobs, over all members at once, and returns when each has its Out or Err.
func (p *Pool) DoAll(ctx context.Context, jobs []*Job) {
	p.mu.Lock()
	part := max(1, p.room/16) // larger groups go in parts, so that one caller can't fill the queue
	p.mu.Unlock()
	for len(jobs) > part {
		p.doPart(ctx, jobs[:part])
		jobs = jobs[part:]
	}
	p.doPart(ctx, jobs)
}

func (p *Pool) doPart(ctx context.Context, jobs []*Job) {
	all := make([]ticket, len(jobs))
	queued := make([]*ticket, 0, len(jobs))
	wait := newWaiter(1) // one for us, until all are queued
	for i, j := range jobs {
		t := &all[i]
		j.Out, j.Err = nil, nil
		e := p.prepare(j, t)
		if e == nil && ctx.Err() != nil {
			e = contextError(ctx)
		}
		if e != nil {
			t.fail(e)
			continue
		}
		t.wait = wait
		queued = append(queued, t)
	}
	wait.left.Add(int32(len(queued)))
	rest, e := p.push(queued)
	for _, t := range rest {
		wait.left.Add(-1)
		t.fail(e)
	}
	if wait.left.Add(-1) > 0 {
		select {
		case <-wait.done:
		case <-ctx.Done():
		}
	}
	var abandoned []*ticket
	for i, j := range jobs {
		t := &all[i]
		if t.state.CompareAndSwap(ticketPending, ticketAbandoned) {
			j.Err = contextError(ctx)
			abandoned = append(abandoned, t)
		} else if t.err != nil {
			j.Err = t.err
		} else {
			j.Out = t.out
		}
	}
	if len(abandoned) > 0 {
		p.abandon(abandoned)
	}
}
