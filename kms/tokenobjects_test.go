package kms

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

func certificate(label string) *TokenObject {
	return &TokenObject{Instance: "kst-software", Class: ClassCertificate, Modifiable: true, ObjectNames: ObjectNames{ID: []byte("id of " + label), Label: label},
		Value: []byte("value of " + label)}
}

func (w *world) keepObject(actor *Actor, o *TokenObject) *TokenObject {
	w.t.Helper()
	kept, err := w.CreateTokenObject(context.Background(), actor, o)
	if err != nil {
		w.t.Fatal(err)
	}
	return kept
}

// letObjects lets a principal do some actions with token objects.
func (w *world) letObjects(arn, effect, action, resource string) {
	w.t.Helper()
	ctx := context.Background()
	if p, err := w.db.Principal(ctx, arn); err != nil || p.Absent {
		if _, err := w.Principals().Create(ctx, root, arn, ""); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := w.Principals().AttachPolicy(ctx, root, arn, "objects", identityPolicyText(effect, action, resource)); err != nil {
		w.t.Fatal(err)
	}
}

func objectLabels(objects []*TokenObject) (labels []string) {
	for _, o := range objects {
		labels = append(labels, o.Label)
	}
	return labels
}

func TestTokenObjects(t *testing.T) {
	w := newWorld(t, nil)
	w.onDisk()
	ctx := context.Background()
	a := w.keepObject(root, certificate("a"))
	data := certificate("a")
	data.Class, data.Modifiable, data.Private = ClassData, false, true
	b := w.keepObject(root, data)
	if a.Number != 1 || b.Number != 2 || a.Owner != root.Principal || !a.Created.Equal(w.now().Truncate(1e9)) {
		t.Errorf("%+v %+v", a, b)
	}
	label, class := "a", ClassData
	for range 2 {
		for _, c := range []struct {
			id    []byte
			label *string
			class *ObjectClass
			want  int
		}{{nil, nil, nil, 2}, {nil, &label, nil, 2}, {[]byte("id of a"), nil, nil, 2}, {[]byte("id of a"), &label, &class, 1}, {nil, nil, &class, 1},
			{[]byte{}, nil, nil, 0}, {[]byte("id of b"), &label, nil, 0}} {
			found, err := w.TokenObjects(ctx, root, "kst-software", c.id, c.label, c.class)
			if err != nil || len(found) != c.want {
				t.Errorf("%q %v %v: %d objects, %v", c.id, c.label, c.class, len(found), err)
			}
		}
		if o, err := w.TokenObject(ctx, root, "kst-software", 1); err != nil || string(o.Value) != "value of a" || string(o.ID) != "id of a" {
			t.Errorf("%+v %v", o, err)
		}
		w.restart()
	}
	a, err := w.TokenObject(ctx, root, "kst-software", 1)
	if err != nil {
		t.Fatal(err)
	}
	next := *a
	next.Label, next.Value = "c", []byte("other")
	changed, err := w.UpdateTokenObject(ctx, root, a, &next)
	if err != nil || changed.Label != "c" || string(changed.Value) != "other" || a.Label != "a" {
		t.Errorf("%+v %v", changed, err)
	}
	_, err = w.UpdateTokenObject(ctx, root, a, &next)
	wantCode(t, "an old one", err, Throttled)
	if b, err = w.TokenObject(ctx, root, "kst-software", 2); err != nil {
		t.Fatal(err)
	}
	_, err = w.UpdateTokenObject(ctx, root, b, b)
	wantCode(t, "one that can't be changed", err, OperationRejected)
	forged := *b
	forged.Modifiable = true
	_, err = w.UpdateTokenObject(ctx, root, &forged, &forged)
	wantCode(t, "one that says it can", err, OperationRejected)
	if err := w.DeleteTokenObject(ctx, root, "kst-software", 2); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "twice", w.DeleteTokenObject(ctx, root, "kst-software", 2), ResourceNotFound)
	if c := w.keepObject(root, certificate("d")); c.Number != 3 {
		t.Errorf("number %d", c.Number)
	}
	for action, want := range map[string]int{"CreateTokenObject": 3, "UpdateTokenObject": 1, "DeleteTokenObject": 1} {
		if got := w.count(action, "ok"); got != want {
			t.Errorf("%s: %d events", action, got)
		}
		if e := w.lastOf(action); e.Outcome == "ok" && !strings.Contains(e.Detail, "kst-software") {
			t.Errorf("%+v", e)
		}
	}
	for what, c := range map[string]struct {
		edit func(*TokenObject)
		want Code
	}{
		"a private key":    {func(o *TokenObject) { o.Class = ClassPrivateKey }, InvalidParameter},
		"a secret key":     {func(o *TokenObject) { o.Class = ClassSecretKey }, InvalidParameter},
		"a large value":    {func(o *TokenObject) { o.Value = make([]byte, MaxTokenObject+1) }, InvalidParameter},
		"a long ID":        {func(o *TokenObject) { o.ID = make([]byte, MaxObjectID+1) }, InvalidParameter},
		"a long label":     {func(o *TokenObject) { o.Label = strings.Repeat("x", MaxObjectLabel+1) }, InvalidParameter},
		"no UTF-8":         {func(o *TokenObject) { o.Label = "\xff" }, InvalidParameter},
		"no such instance": {func(o *TokenObject) { o.Instance = "kst-none" }, ResourceNotFound},
	} {
		o := certificate("x")
		c.edit(o)
		_, err := w.CreateTokenObject(ctx, root, o)
		wantCode(t, what, err, c.want)
	}
	largest := certificate(strings.Repeat("x", MaxObjectLabel))
	largest.ID, largest.Value = make([]byte, MaxObjectID), make([]byte, MaxTokenObject)
	if kept := w.keepObject(root, largest); len(kept.Value) != MaxTokenObject {
		t.Errorf("%d octets", len(kept.Value))
	}
}

// Who may see objects, and who may change them.
func TestTokenObjectAccess(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	w.letObjects(user.Principal, "Allow", "kms:*", "*")
	shared := w.keepObject(root, certificate("everybody's"))
	private := certificate("alice's")
	private.Private = true
	private = w.keepObject(user, private)
	hidden := certificate("root's")
	hidden.Private = true
	hidden = w.keepObject(root, hidden)
	sees := func(what string, actor *Actor, want ...*TokenObject) {
		t.Helper()
		all, err := w.TokenObjects(ctx, actor, "kst-software", nil, nil, nil)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got, want := objectLabels(all), objectLabels(want); !slices.Equal(got, want) {
			t.Errorf("%s sees %q, want %q", what, got, want)
		}
		for _, o := range []*TokenObject{shared, private, hidden} {
			there := slices.ContainsFunc(want, func(w *TokenObject) bool { return w.Number == o.Number })
			got, err := w.TokenObject(ctx, actor, "kst-software", o.Number)
			if there != (err == nil) {
				t.Errorf("%s: %q: %v", what, o.Label, err)
			}
			if !there {
				wantCode(t, what, err, ResourceNotFound)
				_, none := w.TokenObject(ctx, actor, "kst-software", o.Number+100)
				if a, b := AsError(err).Detail, AsError(none).Detail; strings.ReplaceAll(a, fmt.Sprint(o.Number), "N") != strings.ReplaceAll(b, fmt.Sprint(o.Number+100), "N") {
					t.Errorf("%q and %q", a, b)
				}
				// Nor can it be changed, or deleted.
				wantCode(t, what, w.DeleteTokenObject(ctx, actor, "kst-software", o.Number), ResourceNotFound)
				_, err = w.UpdateTokenObject(ctx, actor, o, o)
				wantCode(t, what, err, ResourceNotFound)
			} else if !bytes.Equal(got.Value, o.Value) {
				t.Errorf("%q has the value %q", o.Label, got.Value)
			}
		}
	}
	sees("root", root, shared, private, hidden)
	sees("alice", user, shared, private)
	sees("bob", bob, shared)
	sees("another account", other)
	if all, err := w.TokenObjects(ctx, root, "kst-hardware", nil, nil, nil); err != nil || len(all) > 0 {
		t.Errorf("another instance: %d objects, %v", len(all), err)
	}
	// Without a policy nobody but root changes anything.
	_, err := w.CreateTokenObject(ctx, bob, certificate("x"))
	wantCode(t, "bob creates", err, Denied)
	_, err = w.UpdateTokenObject(ctx, bob, shared, shared)
	wantCode(t, "bob changes", err, Denied)
	wantCode(t, "bob deletes", w.DeleteTokenObject(ctx, bob, "kst-software", shared.Number), Denied)
	// With one as far as it reaches.
	w.letObjects(bob.Principal, "Allow", "kms:CreateTokenObject", "acs:kms:*:*:keystore/kst-hardware")
	_, err = w.CreateTokenObject(ctx, bob, certificate("x"))
	wantCode(t, "bob creates elsewhere", err, Denied)
	w.letObjects(bob.Principal, "Allow", "kms:CreateTokenObject", "acs:kms:*:*:keystore/kst-software")
	own := w.keepObject(bob, certificate("bob's"))
	wantCode(t, "bob deletes his own", w.DeleteTokenObject(ctx, bob, "kst-software", own.Number), Denied)
	if err := w.DeleteTokenObject(ctx, root, "kst-software", own.Number); err != nil {
		t.Error(err)
	}
	w.letObjects(bob.Principal, "Deny", "kms:DescribeTokenObject", "*")
	sees("a blind bob", bob)
	for _, actor := range []*Actor{nil, {}} {
		_, err := w.TokenObjects(ctx, actor, "kst-software", nil, nil, nil)
		wantCode(t, "nobody", err, Denied)
	}
}

// All objects together have a bound too, as they are in memory.
func TestTokenObjectQuota(t *testing.T) {
	was := tokenQuota
	t.Cleanup(func() { tokenQuota = was })
	ctx := context.Background()
	for _, quota := range []keystore.ObjectQuota{{Objects: 3, Octets: 1 << 20}, {Objects: 100, Octets: 40}} {
		tokenQuota = quota
		w := newWorld(t, nil)
		for n := range 4 {
			_, err := w.CreateTokenObject(ctx, root, &TokenObject{Instance: "kst-software", Class: ClassData, Value: make([]byte, 11)})
			if n < 3 && err != nil {
				t.Fatal(err)
			}
			if n == 3 {
				wantCode(t, "a fourth", err, LimitExceeded)
			}
		}
	}
}

// The process dies at each commit of a life of objects and names: what was answered is there, and each thing is whole.
func TestTokenObjectsDie(t *testing.T) {
	ctx := context.Background()
	for _, torn := range []bool{false, true} {
		for budget := 1; ; budget++ {
			w := newWorld(t, nil)
			w.createNamed("kst-software", kmswire.ECP256, "")
			w.disk.mu.Lock()
			w.disk.budget, w.disk.torn = budget, torn
			w.disk.mu.Unlock()
			label := "named"
			var last *TokenObject
			var err error
			steps := []func(){
				func() { last, err = w.CreateTokenObject(ctx, root, certificate("a")) },
				func() {
					err = w.NameTokenKey(ctx, root, "kst-software", KeyPlace{1, 1}, ClassPrivateKey, SomeNames{Label: &label})
				},
				func() { _, err = w.UpdateTokenObject(ctx, root, last, certificate("b")) },
				func() { err = w.DeleteTokenObject(ctx, root, "kst-software", last.Number) },
			}
			done := 0
			for _, step := range steps {
				if step(); err != nil {
					break
				}
				done++
			}
			w.restart()
			all, listErr := w.TokenObjects(ctx, root, "kst-software", nil, nil, nil)
			k, keyErr := w.TokenKey(ctx, root, "kst-software", KeyPlace{1, 1})
			if listErr != nil || keyErr != nil || len(w.db.Health().Damaged) > 0 {
				t.Fatal(listErr, keyErr, w.db.Health().Damaged)
			}
			got := fmt.Sprint(objectLabels(all), k.Names[ClassPrivateKey].Label == label)
			states := []string{"[] false", "[a] false", "[a] true", "[b] true", "[] true"}
			if got != states[done] && (done == len(steps) || !torn || got != states[done+1]) {
				t.Fatalf("budget %d, torn %t: %d steps done, and then %s", budget, torn, done, got)
			}
			if _, err := w.CreateTokenObject(ctx, root, certificate("after")); err != nil {
				t.Fatal(err)
			}
			if done == len(steps) {
				break
			}
		}
	}
}

// Many change a token at the same time, and each sees what it has done.
func TestTokenObjectsAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	var done sync.WaitGroup
	for i := range 8 {
		done.Go(func() {
			for n := range 20 {
				o, err := w.CreateTokenObject(ctx, root, certificate(fmt.Sprint(i)))
				if err != nil {
					t.Error(err)
					return
				}
				next := *o
				next.Label = fmt.Sprint(i, " ", n)
				if o, err = w.UpdateTokenObject(ctx, root, o, &next); err != nil || o.Label != next.Label {
					t.Errorf("%+v %v", o, err)
					return
				}
				if n%2 == 0 {
					if err := w.DeleteTokenObject(ctx, root, "kst-software", o.Number); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	done.Wait()
	all, err := w.TokenObjects(ctx, root, "kst-software", nil, nil, nil)
	if err != nil || len(all) != 80 || !slices.IsSortedFunc(all, func(a, b *TokenObject) int { return int(a.Number) - int(b.Number) }) {
		t.Errorf("%d objects, %v", len(all), err)
	}
}
