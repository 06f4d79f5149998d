package hsmpool

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/miekg/pkcs11"
)

const (
	// forgetAtOnce bounds the keys of one task.
	forgetAtOnce = 256

	// maxLate is how many keys are remembered that may be loaded though they were forgotten; then all are asked for.
	maxLate = 4096

	// forgetAgain is how long Forget waits for jobs that have a key before it looks again.
	forgetAgain = 5 * time.Millisecond
)

// Forget destroys what workers have loaded of the wrapped keys with these IDs (Key.ID), and returns when no member has a session
// object of them any more. It goes past the queue. Jobs in the hands of workers end first; one that comes later loads its key
// again. Of pinned keys nothing is loaded: see DestroyPinned.
//
// A worker that is down, or goes down meanwhile, has nothing. The error names each member that could not destroy a key or has not
// done so when ctx ends. Such a member is told all the same, and loses the key at the latest when it evicts it or its worker ends.
func (p *Pool) Forget(ctx context.Context, ids ...string) error {
	for _, id := range ids {
		if id == "" || len(id) > maxKeyID {
			return badInput("a key needs an ID of at most %d octets", maxKeyID)
		}
	}
	f := &forgetting{gone: make(map[string]bool, len(ids)), failed: map[*member]*Error{}}
	for _, id := range ids {
		f.gone[id] = true
	}
	p.mu.Lock()
	for _, m := range p.members {
		for _, w := range m.workers {
			if mine := w.mayHave(ids, f.gone); len(mine) > 0 {
				f.todo = append(f.todo, forgetter{w, mine})
			}
		}
	}
	p.mu.Unlock()
	for len(f.todo) > 0 {
		asked := p.askToForget(f)
		if f.wait(ctx, asked) {
			break
		}
	}
	var errs []error
	for m, e := range f.failed {
		errs = append(errs, m.named(e))
	}
	return errors.Join(errs...)
}

// forgetting is one call of Forget.
type forgetting struct {
	gone   map[string]bool
	begun  bool
	before uint64 // jobs with later IDs came after the first task
	todo   []forgetter
	failed map[*member]*Error
}

type forgetter struct {
	w   *worker
	ids []string
}

// mayHave gives those of the keys that the worker may have loaded, and keeps it from loading them by itself. Caller holds Pool.mu.
func (w *worker) mayHave(ids []string, gone map[string]bool) []string {
	w.toLoad = slices.DeleteFunc(w.toLoad, func(k *Key) bool { return gone[cacheID(k)] })
	if w.freeSlot == wireSlots || len(w.late) > maxLate {
		return ids // it may have evicted other keys than those that made room here
	}
	var mine []string
	for _, id := range ids {
		if w.known.Contains(id) || w.late[id] {
			mine = append(mine, id)
		}
	}
	return mine
}

// askToForget gives the workers their tasks. Those that have jobs with a key stay to be asked once more: their lanes do not keep the
// order, and one of these jobs may load the key after it was forgotten.
func (p *Pool) askToForget(f *forgetting) (asked []*ticket) {
	p.act(func(a *action) {
		if !f.begun { // jobs that are given out from here on tell the worker of their key anew
			f.begun, f.before = true, p.ids
		}
		f.todo = slices.DeleteFunc(f.todo, func(x forgetter) bool {
			w := x.w
			if !w.usable() {
				return true
			}
			busy := w.hasJobs(f.gone, f.before)
			for _, id := range x.ids {
				// A job that came after the call is not waited for, and may load the key when it was forgotten: whoever forgets it next must ask again.
				if w.hasJobs(map[string]bool{id: true}, p.ids) {
					w.late[id] = true
				} else {
					delete(w.late, id)
				}
				if k, ok := w.known.Peek(id); ok {
					w.known.Remove(id)
					w.spare = append(w.spare, k.slot)
				}
			}
			for part := range slices.Chunk(x.ids, forgetAtOnce) {
				t := &ticket{task: task{op: opForget}, wait: newWaiter(1), worker: w}
				for _, id := range part {
					t.in = putText(t.in, id)
				}
				p.give(a, w, t)
				asked = append(asked, t)
			}
			return !busy
		})
	})
	return asked
}

// hasJobs says whether the worker has a job with one of the keys, not younger than before. Caller holds Pool.mu.
func (w *worker) hasJobs(gone map[string]bool, before uint64) bool {
	for id, t := range w.inFlight {
		if id <= before && t.key != nil && gone[cacheID(t.key)] {
			return true
		}
	}
	return false
}

// wait waits for the answers, and for a moment if there is somebody to be asked once more. It says whether ctx has ended.
func (f *forgetting) wait(ctx context.Context, asked []*ticket) (over bool) {
	late := func(m *member, what string) {
		if f.failed[m] == nil {
			f.failed[m] = contextError(ctx)
			f.failed[m].Detail = what
		}
	}
	for _, t := range asked {
		select {
		case <-t.wait.done:
		case <-ctx.Done():
		}
		m := t.worker.m
		if t.state.Load() != ticketDone {
			late(m, "it was told to forget keys and has not answered")
		} else if t.err != nil && t.err.fate < fateModule { // else its worker is ended, and session objects with it
			f.failed[m] = t.err
		}
	}
	if len(f.todo) == 0 {
		return false
	}
	timer := time.NewTimer(forgetAgain)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false
	case <-ctx.Done():
	}
	for _, x := range f.todo {
		late(x.w.m, "it still has jobs with keys that it was told to forget")
	}
	return true
}

// forget destroys the loaded objects of keys.
func (l *login) forget(t *task) (e *Error) {
	c := &cursor{b: t.in}
	for len(c.b) > 0 && !c.bad {
		err := l.keys.discard(c.text(), t)
		if err == nil || err == pkcs11.Error(pkcs11.CKR_OBJECT_HANDLE_INVALID) { // it is gone
			continue
		}
		if e = l.fail(err, fnOther, stageOther, "C_DestroyObject"); e.fate == fateSession {
			// In another session it is not done again: the cache no longer knows the object.
			if e.fate = fateItem; !l.alive(t) {
				e.fate = fateLogin
			}
		}
	}
	return e
}

// checkForget checks a task that came over a socket.
func checkForget(t *task) *Error {
	c := &cursor{b: t.in}
	n := 0
	for ; len(c.b) > 0 && !c.bad; n++ {
		if id := c.text(); id == "" || len(id) > maxKeyID {
			c.bad = true
		}
	}
	if c.bad || t.key != nil || n == 0 || n > forgetAtOnce {
		return badInput("keys to forget that can't be")
	}
	return nil
}
