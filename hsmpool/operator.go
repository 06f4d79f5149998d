package hsmpool

import (
	"bytes"
	"context"
	"crypto/rand"
	"maps"
	"slices"
)

// Drain keeps new jobs from a member, so that it can be taken away, and waits until those that it has are done or ctx ends. It
// lasts until Undrain, or until the pool is closed. A drained member stays logged in.
func (p *Pool) Drain(ctx context.Context, name string) error {
	m, e := p.memberNamed(name)
	if e != nil {
		return e
	}
	var empty <-chan struct{}
	p.act(func(a *action) {
		m.draining = true
		p.sweep(a)
		empty = m.whenEmpty()
	})
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		e := contextError(ctx)
		e.Member, e.Detail = name, "it is drained and gets no more jobs, but has not ended those that it has"
		return e
	}
}

// Undrain ends Drain.
func (p *Pool) Undrain(name string) error {
	m, e := p.memberNamed(name)
	if e != nil {
		return e
	}
	p.act(func(*action) { m.draining = false })
	return nil
}

// Enroll puts the group's master keys on a member whose token has none, from the recovery data of the ceremony and at least
// threshold of its shares, which the caller wipes, while the others go on. It gives the group. The member serves soon after.
func (p *Pool) Enroll(ctx context.Context, name string, recovery []byte, shares [][]byte) (string, error) {
	set, group, wrapped, err := decodeRecovery(recovery)
	if err != nil {
		return "", err
	}
	if ours := p.Group(); group != ours {
		return "", &Error{Kind: KindBadData, fate: fateOperator, Member: name, Detail: "the recovery data are of the group " + group +
			", not of " + ours}
	}
	key, err := combineShares(shares, set)
	if err != nil {
		return "", err
	}
	defer clear(key)
	m, e := p.memberNamed(name)
	if e != nil {
		return "", e
	}
	p.mu.Lock()
	serves := m.usable()
	p.mu.Unlock()
	if serves {
		return "", &Error{Kind: KindInternal, fate: fateData, Member: name, Detail: "it serves, so it has the master keys already"}
	}
	if err := m.workers[0].opener.enrol(ctx, &enrolFrame{key: key, group: group, wrapped: wrapped}); err != nil {
		return "", m.named(err)
	}
	m.tryNow()
	return group, nil
}

// tryNow has the member's workers tried again at once.
func (m *member) tryNow() {
	for _, w := range m.workers {
		select {
		case w.again <- struct{}{}:
		default:
		}
	}
}

// Update takes over another configuration while jobs go on: new members are opened, those that are no longer there finish
// what they have and are closed (as soon as another can serve), and one that is configured otherwise is replaced as soon as
// the new one serves. A member
// that is down is tried again, also if its PIN was refused: Update is an operator's act. Group, Probe and Worker stay as they
// were. An error means that nothing was changed.
func (p *Pool) Update(c Config) error {
	c.Worker = p.command
	if err := c.check(); err != nil {
		return err
	}
	var err error
	p.act(func(a *action) {
		if p.closed != nil {
			err = p.closed
			return
		}
		old := map[string]*member{}
		for _, m := range p.members {
			old[m.cfg.Name] = m
		}
		members := make([]*member, 0, len(c.Members))
		for i := range c.Members {
			m := old[c.Members[i].Name]
			delete(old, c.Members[i].Name)
			members = append(members, p.updated(m, &c.Members[i]))
		}
		// If nobody who stays can serve now, those who leave stay until somebody can.
		alone := !slices.ContainsFunc(members, func(m *member) bool { return m.takes() && m.usable() })
		for _, m := range p.members {
			if old[m.cfg.Name] == nil {
				continue
			}
			if m.leaving = alone && m.usable(); m.leaving {
				members = append(members, m)
			} else {
				p.dismiss(a, m)
			}
		}
		p.members = members
		p.setQueue(c.Queue, c.Shares)
		p.sweep(a)
	})
	return err
}

// updated gives what stands for a member from now on: itself, if nothing has changed or if it goes on until its successor serves.
func (p *Pool) updated(m *member, cfg *MemberConfig) *member {
	if m != nil && m.cfg.same(cfg) {
		m.leaving = false
		p.drop(m.successor)
		m.successor = nil
		if m.pin.wasRefused() != nil {
			m.pin.forgive()
		}
		if !m.usable() {
			m.tryNow()
		}
		return m
	}
	next := p.newMember(*cfg)
	for _, w := range next.workers {
		p.begin(w, nil)
	}
	if m == nil {
		return next
	}
	if m.promising() {
		p.drop(m.successor)
		m.successor = next
		return m
	}
	p.leave(m) // and who was to succeed it before
	m.successor = next
	p.inherit(m, next)
	return next
}

// drop gives a successor up that never served.
func (p *Pool) drop(m *member) {
	if m != nil {
		p.leave(m)
	}
}

// dismiss lets a member go that is no longer configured.
func (p *Pool) dismiss(a *action, m *member) {
	p.leave(m)
	for _, t := range m.own.all() {
		a.end(t, noMember(m.cfg.Name))
	}
}

// relieve lets those go who stayed until somebody else could serve.
func (p *Pool) relieve(a *action, by *member) {
	p.members = slices.DeleteFunc(p.members, func(m *member) bool {
		if !m.leaving || m == by {
			return false
		}
		p.dismiss(a, m)
		return true
	})
}

// leave lets a member finish what it has, and closes it.
func (p *Pool) leave(m *member) {
	p.drop(m.successor)
	m.retired = true
	for _, w := range m.workers {
		w.retire()
	}
}

// replace puts a successor that serves in the place of who it succeeds.
func (p *Pool) replace(next *member) {
	i := slices.IndexFunc(p.members, func(m *member) bool { return m.successor == next })
	if i < 0 {
		return
	}
	m := p.members[i]
	p.members[i] = next
	next.own.setShares(p.shared.shares)
	m.retired = true
	for _, w := range m.workers {
		w.retire()
	}
	p.inherit(m, next)
}

// inherit gives what waits for a member to its successor, and what an operator wants of it.
func (p *Pool) inherit(m, next *member) {
	next.draining = m.draining
	for _, t := range m.own.all() {
		t.only, t.line = next, &next.own
		next.own.push(t)
	}
	for _, list := range [][]*ticket{p.slow, p.again} {
		for _, t := range list {
			if t.only == m {
				t.only = next
			}
		}
	}
}

// same says whether two configurations mean the same member, driven in the same way.
func (c *MemberConfig) same(d *MemberConfig) bool {
	return c.Name == d.Name && c.Module == d.Module && c.TokenLabel == d.TokenLabel && c.TokenSerial == d.TokenSerial &&
		c.MaxSessions == d.MaxSessions && max(c.Workers, 1) == max(d.Workers, 1) && c.CallTimeout == d.CallTimeout &&
		c.PINName == d.PINName && c.Socket == d.Socket && maps.Equal(c.Environment, d.Environment)
}

// Exercise encrypts and decrypts on one member with a wrapped AES key that is nobody's, and so says whether the member does its work. It waits in the queue
// like any job.
func (p *Pool) Exercise(ctx context.Context, member string, k *Key) error {
	only, e := p.memberNamed(member)
	if e != nil {
		return e
	}
	text := []byte("keyward exercise")
	nonce := make([]byte, gcmNonce)
	rand.Read(nonce) // never fails
	run := func(j *Job) ([]byte, error) {
		t := &ticket{}
		if e := p.prepare(j, t); e != nil {
			return nil, e
		}
		t.only = only
		if e := p.do(ctx, t); e != nil {
			return nil, e
		}
		return t.out, nil
	}
	sealed, err := run(&Job{Op: EncryptGCM, Key: k, In: text, Nonce: nonce})
	if err != nil {
		return err
	}
	again, err := run(&Job{Op: DecryptGCM, Key: k, In: sealed, Nonce: nonce})
	if err != nil {
		return err
	}
	if !bytes.Equal(again, text) {
		return errorf(KindInternal, fateItem, "the member decrypts to something else than what it encrypted")
	}
	return nil
}
