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
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !f(); time.Sleep(time.Millisecond) {
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

// TestUpdateWhileLoggingIn updates a pool while a token hangs in C_Login with the PIN.
func TestUpdateWhileLoggingIn(t *testing.T) {
	hold := make(chan struct{})
	var g atomic.Pointer[pinGuard]
	var inside atomic.Bool
	bad := openFunc(func(ctx context.Context, _ events) (link, *identity, error) {
		err := g.Load().present(func([]byte) error { inside.Store(true); <-hold; return nil })
		return nil, nil, errors.Join(errors.New("not today"), err)
	})
	good := &fakeWorker{t: t, lanes: 1, do: echo}
	ms := []MemberConfig{{Name: "a", Module: "good", TokenLabel: "a"},
		{Name: "b", Module: "bad", TokenLabel: "b", PIN: func() ([]byte, error) { return []byte("1234"), nil }}}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	p, err := open(ctx, Config{Members: ms, Probe: 5 * time.Millisecond}, func(m *member) opener {
		if m.cfg.Name == "a" {
			return good
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
	case <-time.After(time.Second):
		t.Error("Update waits for the token")
	}
}
