package hsmpool

import "time"

// supervise gives a worker one life after the other, until its member is closed. turn, if not nil, is what the first admission waits
// for: while the group is not known the first member decides about it.
func (p *Pool) supervise(w *worker, turn <-chan struct{}) {
	defer close(w.ended)
	for {
		err := p.live(w, &epoch{p: p, w: w}, turn)
		turn = nil
		p.mu.Lock()
		if err != nil {
			w.backoff = min(max(2*w.backoff, p.probe/20), p.probe)
		}
		wait := w.backoff
		p.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-w.again:
		case <-w.life.Done():
		}
		timer.Stop()
		if w.life.Err() != nil {
			return
		}
	}
}

// live is one life: it opens the worker, looks at it now and then, and closes it when it was taken down or is to be closed. An
// error is why the worker could not serve.
func (p *Pool) live(w *worker, ev *epoch, turn <-chan struct{}) error {
	var l link
	var id *identity
	err := error(nil)
	if refused := w.m.pin.wasRefused(); refused != nil {
		err = refused
	} else {
		giveUp := time.AfterFunc(revival, func() { p.giveUp(w) })
		l, id, err = w.opener.open(w.life, ev)
		giveUp.Stop()
	}
	if turn != nil {
		<-turn
	}
	if err == nil {
		if err = p.admit(w, ev, l, id); err != nil {
			_ = l.close(true) // why it was not admitted is what matters
		}
	}
	if err != nil {
		e := w.m.named(err)
		p.act(func(a *action) { p.setDown(a, w, e.Error()) })
		w.wasTried(e)
		return e
	}
	w.wasTried(nil)
	gently := p.serve(w, ev)
	giveUp := time.AfterFunc(revival, func() { p.giveUp(w) })
	err = l.close(gently)
	giveUp.Stop()
	if err != nil {
		e := w.m.named(err)
		p.act(func(a *action) { p.setDown(a, w, e.Error()) })
		return e
	}
	return nil
}

// admit puts a worker that has logged in to work.
func (p *Pool) admit(w *worker, ev *epoch, l link, id *identity) (err error) {
	p.act(func(a *action) {
		if p.closed != nil {
			err = p.closed
			return
		}
		if ev.lost != nil {
			err = ev.lost
			return
		}
		if p.group == "" {
			p.group = id.Group
		}
		if id.Group != p.group {
			err = errorf(KindUnavailable, fateOperator, "its master keys are of group %s, not of %s: it is another group's HSM, or was "+
				"initialised again; connect the right one, or recover the master keys on it", id.Group, p.group)
			return
		}
		w.begin(ev, l, id.Width)
		w.state, w.reason = workerUp, ""
		if isClosed(w.tried) { // one that failed must show that it is well
			w.state, w.reason = workerTrying, "it is back, and gets one job at a time until some went well"
		}
		if w.lives++; w.lives > 1 {
			w.restarts++
			w.m.restarts++
		}
		w.since = time.Now()
		w.admitted = w.since
		w.m.token, w.m.serial = id.Token, id.Serial
		select {
		case <-w.kick: // of the life before
		default:
		}
		p.replace(w.m)
		if w.m.takes() && !w.m.leaving {
			p.relieve(a, w.m)
		}
	})
	return err
}

// wasTried tells Open how the first try ended.
func (w *worker) wasTried(err error) {
	if !isClosed(w.tried) {
		w.err = err
		close(w.tried)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// serve looks at a worker now and then, until it was taken down, or until its member is closed and its jobs are done. It says
// whether the library is believed to be well.
func (p *Pool) serve(w *worker, ev *epoch) (gently bool) {
	down := func(e *Error) {
		p.act(func(a *action) {
			if w.epoch == ev {
				p.takeDown(a, w, e)
			}
		})
	}
	for p.isTrying(w, ev) && w.life.Err() == nil {
		if e := p.look(w); e != nil {
			down(e)
		}
	}
	tick := time.NewTicker(p.probe)
	defer tick.Stop()
	for {
		select {
		case gently := <-w.kick:
			return gently
		case <-w.life.Done():
			p.finishJobs(w.m)
			down(&Error{Kind: KindUnavailable, fate: fateDown, Member: w.m.cfg.Name, Detail: "the member is closed"})
			return <-w.kick
		case <-tick.C:
			if e := p.look(w); e != nil && e.fate == fateItem {
				down(e) // it is not the library's fault, but a member that can't be looked at can't be trusted
			}
		}
	}
}

func (p *Pool) isTrying(w *worker, ev *epoch) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return w.epoch == ev && w.state == workerTrying
}

// look has a worker check its login and its master keys. Who answers that something is wrong with it was taken down if it must be.
func (p *Pool) look(w *worker) *Error {
	t := &ticket{task: task{op: opCheck}, wait: newWaiter(1)}
	p.ask(w, t)
	<-t.wait.done // a call that hangs ends with its worker
	return t.err
}

// finishJobs waits until a member that gets no more jobs has done those that it has.
func (p *Pool) finishJobs(m *member) {
	p.mu.Lock()
	empty := m.whenEmpty()
	p.mu.Unlock()
	select {
	case <-empty:
	case <-time.After(closeWait):
	}
}

const (
	// closeWait bounds how long Close waits for jobs that are in the hands of workers.
	closeWait = 10 * time.Second

	// revival is how long jobs wait for a worker that was well and is being started again.
	revival = 3 * time.Second

	// backoffFor is how long a worker that has ended may keep jobs waiting before it is started again.
	backoffFor = time.Second
)

// takeDown ends a worker's life: it gets no more jobs, and those that it has are given to others. Its supervisor closes it and
// starts it again. The first reason stays: what fails afterwards fails because of it.
func (p *Pool) takeDown(a *action, w *worker, e *Error) {
	inFlight := w.inFlight
	if p.closed == nil && !w.m.retired {
		w.m.endings[e.ending]++
	}
	w.backoff = min(max(2*w.backoff, p.probe/20), p.probe)
	if time.Since(w.admitted) >= p.probe {
		w.backoff = 0
	}
	w.state, w.reason, w.since = workerDown, e.Error(), time.Now()
	if e.fate != fateOperator && w.backoff <= backoffFor && w.life.Err() == nil {
		w.state = workerReviving
	}
	w.begin(nil, nil, 1)
	w.kick <- e.fate != fateModule // empty: a life ends once
	for _, t := range inFlight {
		t.err = &Error{Kind: KindUnavailable, Member: w.m.cfg.Name, fate: fateDown, Detail: "the member went down: " + e.Detail, Err: e.Err}
		t.begun = true // for all that is known
		p.retry(a, t)
	}
	p.sweep(a)
	w.m.quiet()
}

// setDown notes why a worker could not be opened.
func (p *Pool) setDown(a *action, w *worker, reason string) {
	if w.state != workerDown {
		w.since = time.Now()
	}
	w.state, w.reason = workerDown, reason
	p.sweep(a)
}

// giveUp lets no more jobs wait for a worker.
func (p *Pool) giveUp(w *worker) {
	p.act(func(a *action) {
		if w.state == workerReviving {
			w.state = workerDown
			p.sweep(a)
		}
	})
}
