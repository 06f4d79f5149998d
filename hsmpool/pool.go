package hsmpool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Pool is a group of members. See Open.
type Pool struct {
	queue   queue
	members []*member
	probe   time.Duration

	stop   context.CancelFunc // ends the supervisors
	lanes  sync.WaitGroup
	closed atomic.Bool

	// mu guards group, turn, and the state of the members, which changes together with the queue's: it is taken before
	// queue.mu.
	mu    sync.Mutex
	turn  int
	group string
}

const (
	defaultQueue = 4096
	maxAttempts  = 3

	// probeInterval is how often a member is looked at: up, whether it still is; down, whether it is back.
	probeInterval = 5 * time.Second

	// closeWait bounds how long Close waits for C calls, which nobody can cancel.
	closeWait = 10 * time.Second
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
	}
	return nil
}

// Open opens the group. It succeeds when at least one member can serve; the others stay down with a reason in Status
// and are tried again in the background. A refused PIN, a missing token or foreign master keys on every member give an
// error that says so, and what to do.
func Open(ctx context.Context, c Config) (*Pool, error) {
	return open(ctx, c, func(cfg *MemberConfig) worker { return &tokenWorker{cfg: cfg} })
}

func open(ctx context.Context, c Config, newWorker func(*MemberConfig) worker) (*Pool, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	p := &Pool{group: c.Group, probe: c.Probe}
	if p.probe <= 0 {
		p.probe = probeInterval
	}
	p.queue.max = c.Queue
	if p.queue.max <= 0 {
		p.queue.max = defaultQueue
	}
	p.queue.members = make([]memberQueue, len(c.Members))
	for i := range c.Members {
		cfg := c.Members[i] // a copy that outlives the caller's
		p.members = append(p.members, &member{index: i, cfg: &cfg, worker: newWorker(&cfg), since: time.Now(),
			reason: "it has not answered yet", kick: make(chan struct{}, 1)})
	}

	// All at once, for a token may be slow to refuse; admitted in their order, so that the first decides about the group.
	life, stop := context.WithCancel(context.Background())
	p.stop = stop
	for _, m := range p.members {
		m.first = make(chan struct{})
		go func() {
			defer close(m.first)
			m.id, m.err = m.worker.open()
		}()
	}
	var errs []error
	up := 0
	for _, m := range p.members {
		supervised := false
		select {
		case <-m.first:
			supervised = true
			if err := p.admit(m, m.id, m.err); err != nil {
				errs = append(errs, err)
			} else {
				up++
			}
		case <-ctx.Done():
			e := contextError(ctx)
			e.Member = m.cfg.Name
			errs = append(errs, e)
		}
		p.lanes.Go(func() { p.supervise(life, m, supervised) })
	}
	if up == 0 {
		err := errors.Join(errs...)
		return nil, errors.Join(&Error{Kind: KindUnavailable, Detail: "no HSM member can serve", Err: err}, p.Close())
	}
	return p, nil
}

// admit puts a member that opened to work, or writes down why not.
func (p *Pool) admit(m *member, id *identity, err error) error {
	if err == nil {
		p.mu.Lock()
		if p.group == "" {
			p.group = id.Group
		}
		if id.Group != p.group {
			err = errorf(KindUnavailable, fateOperator, "its master keys are of group %s, not of %s: it is another group's HSM, or was "+
				"initialised again; connect the right one, or recover the master keys on it", id.Group, p.group)
		}
		p.mu.Unlock()
		if err != nil {
			err = errors.Join(err, m.worker.close())
		}
	}
	if err != nil {
		e := m.named(err)
		m.setDown(&p.mu, e.Error())
		return e
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m.state, m.reason, m.since = true, "", time.Now()
	m.token, m.serial = id.Token, id.Serial
	m.failures.reset()
	p.startLanes(m, id.Lanes)
	p.queue.setUp(m.index, true, id.Lanes)
	return nil
}

// startLanes brings a member's lanes to n. They live until the pool closes.
func (p *Pool) startLanes(m *member, n int) {
	if m.lanes == 0 {
		p.startLane(m, true)
	}
	for ; m.lanes < n; m.lanes++ {
		p.startLane(m, false)
	}
}

func (p *Pool) startLane(m *member, slow bool) {
	l := &lane{member: m.index, slow: slow, wake: make(chan struct{}, 1)}
	p.lanes.Go(func() {
		var buf [maxBatch]*task
		settle := func(t *task) { p.settle(m, t) }
		for {
			batch := p.queue.take(l, buf[:0])
			if batch == nil {
				return
			}
			m.worker.run(batch, settle)
			clear(batch) // an idle lane keeps nobody's data alive
		}
	})
}

// settle decides what becomes of a task that a member has run: its result, another member, or its error.
func (p *Pool) settle(m *member, t *task) {
	t.member = m.index
	if t.err == nil {
		m.done.Add(1)
		t.finish()
		return
	}
	e := m.named(t.err)
	t.err = e
	if e.fate != fateData {
		m.failed.Add(1)
	} else {
		m.done.Add(1)
	}
	switch e.fate {
	case fateSession, fateLogin:
		if m.failures.add(time.Now()) {
			p.takeDown(m, e)
		}
	case fateModule, fateDown, fateOperator:
		p.takeDown(m, e)
	}
	if e.fate != fateData && t.state.Load() != taskAbandoned && p.elsewhere(m, t) {
		return
	}
	t.finish()
}

// elsewhere sends a task to a member that has not tried it yet.
func (p *Pool) elsewhere(m *member, t *task) bool {
	t.tried |= 1 << m.index
	if t.key != nil && t.key.Member != "" || !t.repeatable() || t.op == opCheck || t.attempts >= maxAttempts {
		return false
	}
	// t belongs to another lane as soon as it is queued, so its error is taken off before.
	err := t.err
	for i := 1; i < len(p.members); i++ {
		next := (m.index + i) % len(p.members)
		if t.tried&(1<<next) != 0 {
			continue
		}
		t.err = nil
		if p.queue.again(t, next) {
			return true
		}
		t.err = err
	}
	return false
}

// takeDown stops giving a member work. Its supervisor brings it back. The first reason stays: what fails afterwards fails
// because of it.
func (p *Pool) takeDown(m *member, e *Error) {
	p.mu.Lock()
	if !m.state {
		p.mu.Unlock()
		return
	}
	m.state, m.reason, m.since = false, e.Error(), time.Now()
	stranded := p.queue.setUp(m.index, false, 0)
	p.mu.Unlock()
	for _, t := range stranded {
		t.err = &Error{Kind: KindUnavailable, Member: m.cfg.Name, fate: fateDown, Detail: "the member went down", Err: e.Err}
		if !p.elsewhere(m, t) {
			t.finish()
		}
	}
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// supervise looks at a member now and then, and opens it again when it is down. It ends with life.
func (p *Pool) supervise(life context.Context, m *member, admitted bool) {
	if !admitted {
		select {
		case <-m.first:
			_ = p.admit(m, m.id, m.err) // the reason is in Status
		case <-life.Done():
			return
		}
	}
	tick := time.NewTicker(p.probe)
	defer tick.Stop()
	opened := time.Now()
	for {
		select {
		case <-life.Done():
			return
		case <-m.kick:
			// Its sessions go at once, so that the library starts afresh if nobody else has it. If it was well for long, it may
			// be so again at once.
			if m.isUp(&p.mu) {
				continue
			}
			if err := m.worker.close(); err != nil {
				m.setDown(&p.mu, m.named(err).Error())
				continue
			}
			if time.Since(opened) < p.probe {
				continue
			}
		case <-tick.C:
		}
		if m.isUp(&p.mu) {
			t := &task{op: opCheck, wait: newWaiter(1)}
			if _, err := p.queue.push([]*task{t}, m.index); err != nil {
				continue
			}
			select {
			case <-t.wait.done: // settle has taken it down if it must be
			case <-life.Done():
				t.state.CompareAndSwap(taskPending, taskAbandoned)
				return
			}
			continue
		}
		opened = time.Now()
		id, err := m.worker.open()
		if life.Err() != nil {
			return
		}
		_ = p.admit(m, id, err)
	}
}

// Close ends the workers and closes the modules. Jobs that wait end with KindUnavailable. It waits up to ten seconds for C
// calls in flight, which nobody can cancel; if one stays, Close says so, and its library stays open.
func (p *Pool) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	p.stop()
	reason := &Error{Kind: KindUnavailable, fate: fateData, Detail: "the pool is closed"}
	for _, t := range p.queue.close(reason) {
		t.err = reason
		t.finish()
	}
	ended := make(chan error, 1)
	go func() {
		p.lanes.Wait()
		var errs []error
		for _, m := range p.members {
			<-m.first
			errs = append(errs, m.worker.close())
		}
		ended <- errors.Join(errs...)
	}()
	select {
	case err := <-ended:
		return err
	case <-time.After(closeWait):
		return errorf(KindUnavailable, fateDown, "a call into an HSM's library does not return; it is left behind")
	}
}

// Do runs the job and returns its Err. ctx bounds the waiting: a C call in flight runs to its end and its result is
// wiped and dropped. It may go on reading In, Nonce and AAD after a context error, so the job must not be used again. Its
// memory may: what the call then reads changes nothing but the result that nobody sees.
func (p *Pool) Do(ctx context.Context, j *Job) error {
	t := task{op: j.Op, key: j.Key, nonce: j.Nonce, aad: j.AAD}
	j.Out = nil
	j.Err = nil
	if e := p.submitJob(ctx, j, &t); e != nil {
		j.Err = e
		return e
	}
	return j.Err
}

func (p *Pool) submitJob(ctx context.Context, j *Job, t *task) *Error {
	member, e := p.checkJob(j)
	if e != nil {
		return e
	}
	t.in = j.Op.input(j.In)
	if e := p.do(ctx, t, member); e != nil {
		return e
	}
	j.Out = t.out
	return nil
}

// checkJob checks a job before anything is called, and gives the member that must do it, or -1.
func (p *Pool) checkJob(j *Job) (int, *Error) {
	if j.Op >= opGenerate {
		return 0, badInput("operation %d is not known", j.Op)
	}
	if e := checkKey(j.Key); e != nil {
		return 0, e
	}
	if e := checkInput(j.Op, j.Key, j.In, j.Nonce, j.AAD); e != nil {
		return 0, e
	}
	if j.Key.Member == "" {
		return -1, nil
	}
	return p.memberNamed(j.Key.Member)
}

func (p *Pool) memberNamed(name string) (int, *Error) {
	for i, m := range p.members {
		if m.cfg.Name == name {
			return i, nil
		}
	}
	return 0, &Error{Kind: KindUnavailable, fate: fateData, Member: name, Detail: "the configuration has no such member"}
}

// do queues a task and waits for it.
func (p *Pool) do(ctx context.Context, t *task, member int) *Error {
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	t.wait = newWaiter(1)
	if _, e := p.queue.push([]*task{t}, member); e != nil {
		if e.fate != fateDown || member < 0 || !p.elsewhere(p.members[member], t) {
			return p.explain(e, member)
		}
	}
	select {
	case <-t.wait.done:
		return t.err
	case <-ctx.Done():
	}
	if t.state.CompareAndSwap(taskPending, taskAbandoned) {
		p.queue.abandon([]*task{t})
		return contextError(ctx)
	}
	<-t.wait.done // it was just done
	return t.err
}

// explain adds the members' reasons to an error of the queue, for who wants to know why nobody is up.
func (p *Pool) explain(e *Error, member int) *Error {
	if e.fate != fateDown {
		return e
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if member >= 0 {
		m := p.members[member]
		return &Error{Kind: e.Kind, fate: e.fate, Member: m.cfg.Name, Detail: "down: " + m.reason}
	}
	detail := e.Detail
	for _, m := range p.members {
		detail += fmt.Sprintf("; %s: %s", m.cfg.Name, m.reason)
	}
	return &Error{Kind: e.Kind, fate: e.fate, Detail: detail}
}

// DoAll runs the jobs, over all members at once, and returns when each has its Out or Err.
func (p *Pool) DoAll(ctx context.Context, jobs []*Job) {
	// Larger groups go in parts, so that one caller can't fill the queue.
	part := max(1, p.queue.max/4)
	for len(jobs) > part {
		p.doPart(ctx, jobs[:part])
		jobs = jobs[part:]
	}
	p.doPart(ctx, jobs)
}

func (p *Pool) doPart(ctx context.Context, jobs []*Job) {
	tasks := make([]task, len(jobs))
	wait := newWaiter(1) // one for us, until all are queued
	byMember := make([][]*task, len(p.members)+1)
	for i, j := range jobs {
		t := &tasks[i]
		j.Out, j.Err = nil, nil
		member, e := p.checkJob(j)
		if e == nil && ctx.Err() != nil {
			e = contextError(ctx)
		}
		if e != nil {
			t.fail(e)
			continue
		}
		t.op, t.key, t.in, t.nonce, t.aad, t.wait = j.Op, j.Key, j.Op.input(j.In), j.Nonce, j.AAD, wait
		byMember[member+1] = append(byMember[member+1], t)
	}
	for i, group := range byMember {
		if len(group) == 0 {
			continue
		}
		wait.left.Add(int32(len(group)))
		rest, e := p.queue.push(group, i-1)
		for _, t := range rest {
			wait.left.Add(-1)
			t.fail(p.explain(e, i-1))
		}
	}
	if wait.left.Add(-1) > 0 {
		select {
		case <-wait.done:
		case <-ctx.Done():
		}
	}
	var abandoned []*task
	for i, j := range jobs {
		t := &tasks[i]
		if t.state.CompareAndSwap(taskPending, taskAbandoned) {
			j.Err = contextError(ctx)
			abandoned = append(abandoned, t)
		} else if t.err != nil {
			j.Err = t.err
		} else {
			j.Out = t.out
		}
	}
	if len(abandoned) > 0 {
		p.queue.abandon(abandoned)
	}
}
