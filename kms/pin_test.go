package kms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/keystore"
)

const testPIN = "a PIN of alice's"

// newPINWorld is a world where alice has a PIN.
func newPINWorld(t testing.TB) *world {
	t.Helper()
	w := newWorld(t, nil)
	ctx := context.Background()
	if _, err := w.Principals().Create(ctx, root, user.Principal, ""); err != nil {
		t.Fatal(err)
	}
	if err := w.Principals().SetPIN(ctx, root, user.Principal, []byte(testPIN)); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) pinFailures() int {
	w.t.Helper()
	tokens, err := w.Tokens(context.Background(), user)
	if err != nil || len(tokens) == 0 || tokens[0].PIN == "" {
		w.t.Fatalf("%+v %v", tokens, err)
	}
	return tokens[0].PINFailures
}

// errWith is errOf for the name of a PIN, of which there is none with an error.
func errWith(name PINName, err error) error {
	if err != nil && name != "" {
		return fmt.Errorf("the name %x comes with the error %w", name, err)
	}
	return err
}

func TestPIN(t *testing.T) {
	w := newPINWorld(t)
	ctx := context.Background()
	check := func(pin string) error { return errWith(w.CheckPIN(ctx, user, []byte(pin))) }
	if err := errWith(w.CheckPIN(ctx, bob, []byte("anything"))); err != nil {
		t.Errorf("without a PIN: %v", err)
	}
	if err := check(testPIN); err != nil || w.pinFailures() != 0 {
		t.Fatalf("the right one: %v, %d failures", err, w.pinFailures())
	}
	wrong := []string{"", testPIN[:len(testPIN)-1], testPIN + "x", strings.ToUpper(testPIN), strings.Repeat("x", MaxPIN+1)}
	for i, pin := range wrong {
		wantCode(t, pin, check(pin), Denied)
		if n := w.pinFailures(); n != i+1 {
			t.Errorf("%d failures after %d", n, i+1)
		}
	}
	w.restart()
	if err := check(testPIN); err != nil || w.pinFailures() != 0 {
		t.Errorf("the right one after wrong ones: %v, %d failures", err, w.pinFailures())
	}
	for range MaxPINFailures {
		wantCode(t, "wrong", check("wrong"), Denied)
	}
	wantCode(t, "the right one, locked", check(testPIN), Throttled)
	w.restart()
	wantCode(t, "the right one, locked, after a restart", check(testPIN), Throttled)
	wantCode(t, "changing it, locked", errWith(w.Principals().SetOwnPIN(ctx, user, []byte(testPIN), []byte("another PIN"))), Throttled)
	// Nothing else that is done to the principal unlocks it.
	if err := w.Principals().AttachPolicy(ctx, root, user.Principal, "p", identityPolicyText("Allow", "kms:*", "*")); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "with a policy", check(testPIN), Throttled)
	wantCode(t, "by alice", w.Principals().SetPIN(ctx, user, user.Principal, []byte(testPIN)), Denied)
	if err := w.Principals().SetPIN(ctx, root, user.Principal, []byte("another PIN")); err != nil {
		t.Fatal(err)
	}
	if err := check("another PIN"); err != nil {
		t.Errorf("after it was set again: %v", err)
	}
	wantCode(t, "the old one", check(testPIN), Denied)
	// Alice changes it.
	wantCode(t, "changing it without it", errWith(w.Principals().SetOwnPIN(ctx, user, []byte(testPIN), []byte("a third PIN"))), Denied)
	wantCode(t, "to a short one", errWith(w.Principals().SetOwnPIN(ctx, user, []byte("another PIN"), []byte("1234567"))), InvalidParameter)
	if err := errWith(w.Principals().SetOwnPIN(ctx, user, []byte("another PIN"), []byte("a third PIN"))); err != nil {
		t.Fatal(err)
	}
	if err := check("a third PIN"); err != nil {
		t.Error(err)
	}
	wantCode(t, "of who has none", errWith(w.Principals().SetOwnPIN(ctx, bob, nil, []byte("bob's first PIN"))), OperationRejected)
	wantCode(t, "of nobody", errWith(w.CheckPIN(ctx, nil, nil)), Denied)
	wantCode(t, "of who is not there", w.Principals().SetPIN(ctx, root, bob.Principal, []byte(testPIN)), ResourceNotFound)
	for _, pin := range []string{"", "1234567", strings.Repeat("x", MaxPIN+1)} {
		wantCode(t, pin, w.Principals().SetPIN(ctx, root, user.Principal, []byte(pin)), InvalidParameter)
	}
	wantCode(t, "removing it as alice", w.Principals().RemovePIN(ctx, user, user.Principal), Denied)
	if err := w.Principals().RemovePIN(ctx, root, user.Principal); err != nil {
		t.Fatal(err)
	}
	if err := check("whatever"); err != nil {
		t.Errorf("without a PIN any more: %v", err)
	}
	wantCode(t, "removing none", w.Principals().RemovePIN(ctx, root, user.Principal), ResourceNotFound)
	// What is kept and told has nothing of a PIN in it.
	if err := w.Principals().SetPIN(ctx, root, root.Principal, []byte(testPIN)); err != nil {
		t.Fatal(err)
	}
	for _, e := range w.events.all {
		if text := fmt.Sprintf("%+v", e); strings.Contains(text, testPIN) || strings.Contains(text, "another PIN") {
			t.Errorf("%s", text)
		}
	}
	rows, err := w.mem.Scan(ctx, "", "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	p, err := w.db.Principal(ctx, root.Principal)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := w.db.OpenSecret(keystore.PINName(root.Principal), p.PIN.Sealed)
	if err != nil || len(plain) != pinLength || bytes.Contains(plain, []byte(testPIN)) {
		t.Fatalf("%d octets are kept, %v", len(plain), err)
	}
	for _, r := range rows {
		if bytes.Contains(r.Value, []byte(testPIN)) || bytes.Contains(r.Value, plain[10:]) {
			t.Errorf("%s has it", r.Name)
		}
	}
	// A hash that is put into another's record is no PIN there.
	other := *p
	other.ARN, other.PIN = bob.Principal, &keystore.PIN{Sealed: p.PIN.Sealed}
	if err := w.db.Change().CreatePrincipal(&other).Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := errWith(w.CheckPIN(ctx, bob, []byte(testPIN))); err == nil {
		t.Error("somebody else's hash opened")
	}
}

// Whoever kills the process while a PIN is looked at has no free try: it dies before or after any commit, again and again.
func TestPINDies(t *testing.T) {
	w := newPINWorld(t)
	ctx := context.Background()
	looked := 0
	for range 3 * MaxPINFailures {
		for _, budget := range []int{1, 2} {
			w.disk.mu.Lock()
			w.disk.budget, w.disk.torn = budget, budget == 1
			w.disk.mu.Unlock()
			err := errWith(w.CheckPIN(ctx, user, []byte("a guess")))
			if errors.Is(err, Denied) {
				looked++
			}
			w.restart()
		}
	}
	if n := w.pinFailures(); n != MaxPINFailures || looked > MaxPINFailures {
		t.Errorf("%d failures are noted, %d guesses were answered", n, looked)
	}
	wantCode(t, "the right one", errWith(w.CheckPIN(ctx, user, []byte(testPIN))), Throttled)
}

// Guesses at the same time are not more than guesses one after the other, and those who know the PIN do not lock each other out.
func TestPINAtOnce(t *testing.T) {
	w := newPINWorld(t)
	ctx := context.Background()
	for range MaxPINFailures - 1 {
		wantCode(t, "wrong", errWith(w.CheckPIN(ctx, user, []byte("wrong"))), Denied)
	}
	var done sync.WaitGroup
	for range 6 {
		done.Go(func() {
			if err := errWith(w.CheckPIN(ctx, user, []byte(testPIN))); err != nil {
				t.Errorf("the right one: %v", err)
			}
		})
	}
	done.Wait()
	var looked atomic.Int64
	for i := range 3 * MaxPINFailures {
		done.Go(func() {
			if err := errWith(w.CheckPIN(ctx, user, fmt.Append(nil, "guess ", i))); errors.Is(err, Denied) {
				looked.Add(1)
			} else if !errors.Is(err, Throttled) {
				t.Error(err)
			}
		})
	}
	done.Wait()
	if looked.Load() != MaxPINFailures {
		t.Errorf("%d guesses were answered", looked.Load())
	}
	// Who waits for a turn can go away.
	leave, err := w.pins.Enter(ctx, user.Principal)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	wantCode(t, "in a full lane", errWith(w.CheckPIN(short, user, []byte(testPIN))), Canceled)
	leave()
}

func FuzzPIN(f *testing.F) {
	f.Add(hashPIN([]byte(testPIN)).marshal())
	f.Add([]byte{pinForm})
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := parsePIN(b); ok && !bytes.Equal(p.marshal(), b) {
			t.Errorf("%x came back as %x", b, p.marshal())
		}
	})
}
