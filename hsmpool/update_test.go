package hsmpool

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// openFunc is an opener that does what a test says.
type openFunc func(ctx context.Context, ev events) (link, *identity, error)

func (f openFunc) open(ctx context.Context, ev events) (link, *identity, error) { return f(ctx, ev) }

func (openFunc) enrol(context.Context, *enrolFrame) error { return errors.New("not here") }

// fakeGroup opens a pool of members that openers stand for by their module, and closes it with the test.
func fakeGroup(t *testing.T, openers map[string]opener, members ...MemberConfig) *Pool {
	t.Helper()
	for i := range members {
		members[i].TokenLabel = members[i].Name
	}
	p, err := open(t.Context(), Config{Members: members, Probe: 5 * time.Millisecond, Group: "fake"},
		func(m *member) opener { return openers[m.cfg.Module] })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func pinnedJob(member string) *Job {
	return &Job{Op: EncryptGCM, Key: &Key{ID: "pinned", Type: AES256, Usage: UseEncrypt, Member: member, ObjectID: []byte{1}},
		In: []byte("text"), Nonce: make([]byte, gcmNonce)}
}

func wrappedJob() *Job {
	return &Job{Op: EncryptGCM, Key: &Key{ID: "any", Type: AES256, Usage: UseEncrypt, Wrapped: make([]byte, 40)},
		In: []byte("text"), Nonce: make([]byte, gcmNonce)}
}

// shortly gives a context that ends before a test does.
func shortly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func stateOf(p *Pool, name string) State {
	for _, s := range p.Status() {
		if s.Name == name {
			return s.State
		}
	}
	return ""
}

// TestDownMemberCorrected gives a member that is down a configuration that works.
func TestDownMemberCorrected(t *testing.T) {
	p := fakeGroup(t, map[string]opener{
		"good":  &fakeWorker{t: t, lanes: 1, do: echo},
		"wrong": openFunc(func(context.Context, events) (link, *identity, error) { return nil, nil, errors.New("no such library") }),
		"right": &fakeWorker{t: t, lanes: 1, do: echo},
	}, MemberConfig{Name: "a", Module: "good"}, MemberConfig{Name: "b", Module: "wrong"})
	eventually(t, "b is down", func() bool { return stateOf(p, "b") == StateDown })
	err := p.Update(Config{Members: []MemberConfig{{Name: "a", Module: "good", TokenLabel: "a"}, {Name: "b", Module: "right", TokenLabel: "b"}}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "b is up", func() bool { return stateOf(p, "b") == StateUp })
	if err := p.Do(shortly(t), pinnedJob("b")); err != nil {
		t.Error(err)
	}
}

// TestRemovedMemberEndsItsQueue removes a member that jobs wait for that nobody else can do.
func TestRemovedMemberEndsItsQueue(t *testing.T) {
	hold := make(chan struct{})
	var inside atomic.Int32
	p := fakeGroup(t, map[string]opener{
		"good": &fakeWorker{t: t, lanes: 1, do: echo},
		"slow": &fakeWorker{t: t, lanes: 1, do: func(x *task) *Error {
			if x.op != opCheck {
				inside.Add(1)
				<-hold
			}
			return echo(x)
		}},
	}, MemberConfig{Name: "a", Module: "good"}, MemberConfig{Name: "b", Module: "slow"})
	ended := make(chan error, 3)
	for range 3 {
		go func() { ended <- p.Do(shortly(t), pinnedJob("b")) }()
	}
	eventually(t, "one is at work and two wait", func() bool { return inside.Load() == 1 && p.Totals().Waiting == 2 })
	if err := p.Update(Config{Members: []MemberConfig{{Name: "a", Module: "good", TokenLabel: "a"}}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-ended; err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a job of a member that is gone: %v", err)
		}
	}
	close(hold)
	if err := <-ended; err != nil {
		t.Errorf("a job that was at work: %v", err)
	}
}

// TestChangedMemberKeepsItsJobs changes a member while a job is on its way to it, and while one is in its hands.
func TestChangedMemberKeepsItsJobs(t *testing.T) {
	fails := make(chan *Error)
	var held atomic.Bool
	letIn := make(chan struct{})
	next := &fakeWorker{t: t, lanes: 1, do: echo}
	p := fakeGroup(t, map[string]opener{
		"old": &fakeWorker{t: t, lanes: 1, do: func(x *task) *Error {
			if x.op != opCheck && x.key.ID == "pinned" && !held.Swap(true) {
				return <-fails
			}
			return echo(x)
		}},
		"new": openFunc(func(ctx context.Context, ev events) (link, *identity, error) {
			<-letIn
			return next.open(ctx, ev)
		}),
	}, MemberConfig{Name: "a", Module: "old"})
	old, e := p.memberNamed("a")
	if e != nil {
		t.Fatal(e)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.Do(shortly(t), pinnedJob("a")) }()
	eventually(t, "it is at work", held.Load)
	if err := p.Update(Config{Members: []MemberConfig{{Name: "a", Module: "new", TokenLabel: "a"}}}); err != nil {
		t.Fatal(err)
	}
	// Give up on the successor for the moment, as if its token were slow.
	m := old.successor
	p.act(func(*action) { m.workers[0].state = workerDown })
	fails <- errorf(KindUnavailable, fateSession, "by chance")
	if err := <-ended; err != nil {
		t.Errorf("a second try while the old configuration is in force: %v", err)
	}
	close(letIn)
	eventually(t, "the new configuration is in force", func() bool { now, _ := p.memberNamed("a"); return now != old })
	j := pinnedJob("a")
	x := &ticket{}
	if e := p.prepare(j, x); e != nil {
		t.Fatal(e)
	}
	x.only = old // as it was just before
	if e := p.do(shortly(t), x); e != nil {
		t.Errorf("a job that was on its way: %v", e)
	}
}

// TestDrainOutlastsUpdate drains a member whose new configuration is not in force yet.
func TestDrainOutlastsUpdate(t *testing.T) {
	letIn := make(chan struct{})
	next := &fakeWorker{t: t, lanes: 1, do: echo}
	p := fakeGroup(t, map[string]opener{
		"good": &fakeWorker{t: t, lanes: 1, do: echo},
		"old":  &fakeWorker{t: t, lanes: 1, do: echo},
		"new": openFunc(func(ctx context.Context, ev events) (link, *identity, error) {
			<-letIn
			return next.open(ctx, ev)
		}),
	}, MemberConfig{Name: "a", Module: "good"}, MemberConfig{Name: "b", Module: "old"})
	old, _ := p.memberNamed("b")
	shares := map[string]Share{"x": {Weight: 7}}
	err := p.Update(Config{Shares: shares, Members: []MemberConfig{{Name: "a", Module: "good", TokenLabel: "a"}, {Name: "b", Module: "new", TokenLabel: "b"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Drain(shortly(t), "b"); err != nil {
		t.Fatal(err)
	}
	close(letIn)
	eventually(t, "the new configuration is in force", func() bool { now, _ := p.memberNamed("b"); return now != old })
	if s := stateOf(p, "b"); s != StateDraining {
		t.Errorf("it is %s", s)
	}
	now, _ := p.memberNamed("b")
	p.mu.Lock()
	weight := now.own.shareOf("x").Weight
	p.mu.Unlock()
	if weight != 7 {
		t.Errorf("its queue is shared by %d", weight)
	}
}

// TestUpdateWhileLoggingIn updates a pool while a token hangs in C_Login with the PIN.
func TestUpdateWhileLoggingIn(t *testing.T) {
	hold := make(chan struct{})
	var g atomic.Pointer[pinGuard]
	var inside atomic.Bool
	bad := openFunc(func(ctx context.Context, _ events) (link, *identity, error) {
		err := g.Load().present(func([]byte) error { inside.Store(true); <-hold; return nil })
		return nil, nil, errors.Join(errors.New("not today"), err)
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ms := []MemberConfig{{Name: "a", Module: "good", TokenLabel: "a"},
		{Name: "b", Module: "bad", TokenLabel: "b", PIN: func() ([]byte, error) { return []byte("1234"), nil }}}
	good := &fakeWorker{t: t, lanes: 1, do: echo}
	p, err := open(ctx, Config{Members: ms, Probe: 5 * time.Millisecond}, func(m *member) opener {
		if m.cfg.Name == "a" {
			return openFunc(func(ctx context.Context, ev events) (link, *identity, error) {
				go func() { <-m.workers[0].tried; cancel() }() // the other one is not waited for any longer
				return good.open(ctx, ev)
			})
		}
		g.Store(m.pin)
		return bad
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	defer close(hold)
	eventually(t, "it logs in", inside.Load)
	updated := make(chan error, 1)
	go func() { updated <- p.Update(Config{Members: ms}) }()
	select {
	case err := <-updated:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("Update waits for the token")
	}
}
