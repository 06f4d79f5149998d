package kms

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// allTokenKeys lists the keys of an instance's token in pages of at most limit keys.
func allTokenKeys(t testing.TB, s *Service, actor *Actor, instance string, limit int) (all []*TokenKey) {
	t.Helper()
	for after := (KeyPlace{}); ; {
		keys, next, more, err := s.TokenKeys(context.Background(), actor, instance, after, limit)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, keys...)
		if !more {
			return all
		}
		after = next
	}
}

// tokenLabels are the labels of keys in their first class, in order.
func tokenLabels(keys []*TokenKey) (labels []string) {
	for _, k := range keys {
		labels = append(labels, k.Names[keyClasses(k.Spec)[0]].Label)
	}
	return labels
}

// findLabel wants exactly one object to be found by a label.
func findLabel(t testing.TB, s *Service, actor *Actor, label string) *TokenKey {
	t.Helper()
	found, err := s.TokenKeysNamed(context.Background(), actor, "kst-software", SomeNames{Label: &label})
	if err != nil || len(found) != 1 {
		t.Fatalf("%q: %d objects, %v", label, len(found), err)
	}
	return found[0]
}

func (w *world) createNamed(instance string, spec kmswire.KeySpec, alias string) string {
	w.t.Helper()
	r, err := w.CreateKey(context.Background(), root, &kmswire.CreateKeyRequest{DKMSInstanceID: instance, KeySpec: spec, AliasName: alias})
	if err != nil {
		w.t.Fatal(err)
	}
	return r.KeyMetadata.KeyID
}

func TestTokenKeys(t *testing.T) {
	w := newWorld(t, nil)
	w.onDisk()
	ctx := context.Background()
	plain := w.createNamed("kst-software", kmswire.AES256, "")
	named := w.createNamed("kst-software", kmswire.ECP256, "alias/web/tls")
	w.pass(time.Second)
	if _, err := w.CreateAlias(ctx, root, &kmswire.CreateAliasRequest{AliasName: "alias/a-younger-one", KeyID: named}); err != nil {
		t.Fatal(err)
	}
	rotated := w.createNamed("kst-software", kmswire.AES256, "alias/data")
	for range 2 {
		if _, err := w.CreateKeyVersion(ctx, root, &kmswire.CreateKeyVersionRequest{KeyID: rotated}); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{plain, "web/tls", "data#1", "data#2", "data"}
	var before []*TokenKey
	for restart := range 2 {
		for limit := 1; limit < 5; limit++ {
			all := allTokenKeys(t, w.Service, root, "kst-software", limit)
			if got := tokenLabels(all); !slices.Equal(got, want) {
				t.Fatalf("pages of %d: %q, want %q", limit, got, want)
			}
			if before != nil && !reflect.DeepEqual(before, all) {
				t.Fatalf("after a restart:\n%+v\n%+v", before, all)
			}
			before = all
		}
		for _, k := range before {
			at, err := w.TokenKey(ctx, root, "kst-software", k.KeyPlace)
			if err != nil || !reflect.DeepEqual(at, k) {
				t.Errorf("%v: %+v %v", k.KeyPlace, at, err)
			}
			for class, names := range k.Names {
				found, err := w.TokenKeysNamed(ctx, root, "kst-software", SomeNames{ID: names.ID})
				if err != nil || len(found) != 1 || !reflect.DeepEqual(found[0], k) {
					t.Errorf("%v %d by ID: %v %v", k.KeyPlace, class, found, err)
				}
				found, err = w.TokenKeysNamed(ctx, root, "kst-software", SomeNames{ID: names.ID, Label: &names.Label})
				if err != nil || len(found) != 1 {
					t.Errorf("%v %d by both: %v %v", k.KeyPlace, class, found, err)
				}
				if found := findLabel(t, w.Service, root, names.Label); !reflect.DeepEqual(found, k) {
					t.Errorf("%q: %+v", names.Label, found)
				}
			}
		}
		if restart == 0 {
			w.restart()
		}
	}
	// From inside a key.
	keys, _, more, err := w.TokenKeys(ctx, root, "kst-software", before[2].KeyPlace, 10)
	if err != nil || more || !slices.Equal(tokenLabels(keys), []string{"data#2", "data"}) {
		t.Errorf("after %v: %q %t %v", before[2].KeyPlace, tokenLabels(keys), more, err)
	}
	for _, label := range []string{"a-younger-one", "data#3", "data#0", "data#01", "data#", "#1", "", plain + "#1", "alias/data", named, "nothing"} {
		if found, err := w.TokenKeysNamed(ctx, root, "kst-software", SomeNames{Label: &label}); err != nil || len(found) != 0 {
			t.Errorf("%q: %d objects, %v", label, len(found), err)
		}
	}
	if _, err := w.TokenKeysNamed(ctx, root, "kst-software", SomeNames{}); err == nil {
		t.Error("a search for nothing")
	}
	// An alias that moves takes the label along, at once.
	if _, err := w.UpdateAlias(ctx, root, &kmswire.UpdateAliasRequest{AliasName: "alias/web/tls", KeyID: plain}); err != nil {
		t.Fatal(err)
	}
	if k := findLabel(t, w.Service, root, "web/tls"); k.KeyID != plain {
		t.Errorf("web/tls is %s", k.KeyID)
	}
	if k := findLabel(t, w.Service, root, "a-younger-one"); k.KeyID != named {
		t.Errorf("a-younger-one is %s", k.KeyID)
	}
	tokens, err := w.Tokens(ctx, user)
	if err != nil || len(tokens) != 2 || tokens[0].Instance != "kst-software" || tokens[0].Type != SoftwareInstance || tokens[0].PIN != "" {
		t.Errorf("tokens: %+v %v", tokens, err)
	}
	for range 10 {
		id := make([]byte, 16)
		binaryRandom(id)
		if found, err := w.TokenKeysNamed(ctx, root, "kst-software", SomeNames{ID: id}); err != nil || len(found) > 0 {
			t.Errorf("%x: %v %v", id, found, err)
		}
	}
}

func binaryRandom(b []byte) {
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
}

// Who sees what: an object that a caller does not see and one that is not there are the same, on every way to it.
func TestTokenKeysSeen(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	open := w.createNamed("kst-software", kmswire.ECP256, "alias/open")
	secret := w.createNamed("kst-software", kmswire.ECP256, "alias/secret")
	deny := fmt.Sprintf(`{"Version":"1","Statement":[{"Effect":"Allow","Principal":{"RAM":["%s"]},"Action":["kms:*"],"Resource":["*"]}]}`, root.Principal)
	if _, err := w.SetKeyPolicy(ctx, root, &kmswire.SetKeyPolicyRequest{KeyID: secret, Policy: []byte(deny)}); err != nil {
		t.Fatal(err)
	}
	all := allTokenKeys(t, w.Service, root, "kst-software", 10)
	if len(all) != 2 {
		t.Fatalf("root sees %d keys", len(all))
	}
	events := len(w.events.all)
	sees := func(what string, actor *Actor, instance string, want ...string) {
		t.Helper()
		var got []string
		for _, k := range allTokenKeys(t, w.Service, actor, instance, 10) {
			got = append(got, k.KeyID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: the list has %v, want %v", what, got, want)
		}
		for _, k := range all {
			there := slices.Contains(want, k.KeyID)
			_, err := w.TokenKey(ctx, actor, instance, k.KeyPlace)
			_, none := w.TokenKey(ctx, actor, instance, KeyPlace{k.Sequence, 1 + k.Ordinal})
			if there != (err == nil) {
				t.Errorf("%s: %s by its place: %v", what, k.KeyID, err)
			}
			if !there {
				wantCode(t, what, err, KeyNotFound)
				if a, b := fmt.Sprint(err), fmt.Sprint(none); !slices.Equal(bytes.ReplaceAll([]byte(a), []byte("version 1"), nil), bytes.ReplaceAll([]byte(b), []byte("version 2"), nil)) {
					t.Errorf("%s: %q and %q", what, a, b)
				}
			}
			names := k.Names[ClassPrivateKey]
			byID, err := w.TokenKeysNamed(ctx, actor, instance, SomeNames{ID: names.ID})
			byLabel, err2 := w.TokenKeysNamed(ctx, actor, instance, SomeNames{Label: &names.Label})
			if err != nil || err2 != nil || there != (len(byID) == 1) || there != (len(byLabel) == 1) {
				t.Errorf("%s: %s by ID %d, by label %d, %v %v", what, k.KeyID, len(byID), len(byLabel), err, err2)
			}
		}
	}
	sees("root", root, "kst-software", open, secret)
	sees("a user", user, "kst-software", open)
	sees("another instance", root, "kst-hardware")
	sees("an instance that is not there", root, "kst-none")
	sees("another account", other, "kst-software")
	if n := len(w.events.all); n != events {
		t.Errorf("looking made %d events", n-events)
	}
	// An identity policy hides a key, and all keys.
	for _, c := range []struct {
		resource string
		want     []string
	}{{"acs:kms:*:*:key/" + secret, []string{open}}, {"*", nil}} {
		text := fmt.Sprintf(`{"Version":"1","Statement":[{"Effect":"Deny","Action":["kms:DescribeKey"],"Resource":["%s"]}]}`, c.resource)
		if err := w.Principals().AttachPolicy(ctx, root, root.Principal, "blind", text); err != nil {
			t.Fatal(err)
		}
		if c.resource == "*" {
			sees("a blind root", root, "kst-software", open, secret) // nobody locks out the owner's root
		}
		if err := w.Principals().DetachPolicy(ctx, root, root.Principal, "blind"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Principals().Create(ctx, root, user.Principal, ""); err != nil && c.resource != "*" {
			t.Fatal(err)
		}
		if err := w.Principals().AttachPolicy(ctx, root, user.Principal, "blind", text); err != nil {
			t.Fatal(err)
		}
		sees("a user with a policy", user, "kst-software", c.want...)
	}
	if err := w.Principals().DetachPolicy(ctx, root, user.Principal, "blind"); err != nil {
		t.Fatal(err)
	}
	// Disabled keys are objects, those that wait for deletion or material are none.
	if _, err := w.DisableKey(ctx, root, &kmswire.DisableKeyRequest{KeyID: open}); err != nil {
		t.Fatal(err)
	}
	sees("a disabled key", user, "kst-software", open)
	if _, err := w.ScheduleKeyDeletion(ctx, root, &kmswire.ScheduleKeyDeletionRequest{KeyID: open, PendingWindowInDays: 7}); err != nil {
		t.Fatal(err)
	}
	sees("a key that waits for deletion", root, "kst-software", secret)
	if _, err := w.CancelKeyDeletion(ctx, root, &kmswire.CancelKeyDeletionRequest{KeyID: open}); err != nil {
		t.Fatal(err)
	}
	sees("a key that was taken back", root, "kst-software", open, secret)
	if _, err := w.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", Origin: kmswire.OriginExternal}); err != nil {
		t.Fatal(err)
	}
	sees("a key without material", root, "kst-software", open, secret)
	for _, actor := range []*Actor{nil, {}, {Principal: root.Principal}} {
		_, err := w.TokenKey(ctx, actor, "kst-software", all[0].KeyPlace)
		wantCode(t, "nobody", err, Denied)
	}
}

// IDs are injective, come back as their places, and are the store's own.
func TestDefaultIDs(t *testing.T) {
	a, b := newWorld(t, nil), newWorld(t, nil)
	seen := map[string]KeyPlace{}
	edges := []uint64{1, 2, 1<<28 - 1, 1 << 28, 1<<36 - 1, 1 << 36, maxSequence}
	for _, sequence := range edges {
		for _, ordinal := range []uint32{1, 2, 1 << 10, maxOrdinal} {
			p := KeyPlace{sequence, ordinal}
			for _, account := range []string{"0000000000000000", testAccount, "9999999999999999"} {
				id := a.tokens.ids.of(account, p)
				if was, twice := seen[string(id)]; twice || len(id) != 16 {
					t.Fatalf("%v and %v have %x", was, p, id)
				}
				seen[string(id)] = p
				if back, ok := a.tokens.ids.place(account, id); !ok || back != p {
					t.Errorf("%v came back as %v", p, back)
				}
				if _, ok := a.tokens.ids.place("1000000000000002", id); ok {
					t.Errorf("%v is in another account too", p)
				}
				if bytes.Equal(id, b.tokens.ids.of(account, p)) {
					t.Errorf("%v has the same ID in another store", p)
				}
			}
		}
	}
	for _, account := range []string{"", "1", "10000000000000001", "+000000000000001", "100000000000000x"} {
		if id := a.tokens.ids.of(account, KeyPlace{1, 1}); id != nil {
			t.Errorf("account %q: %x", account, id)
		}
	}
	for _, id := range [][]byte{nil, {}, make([]byte, 15), make([]byte, 17)} {
		if _, ok := a.tokens.ids.place(testAccount, id); ok {
			t.Errorf("%x is an ID", id)
		}
	}
}

func TestTokenKeyAllocatesNothing(t *testing.T) {
	store := newCounting(keystore.NewMem())
	f := newSoftFixture(t, store)
	ctx := context.Background()
	if _, err := f.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", KeySpec: kmswire.ECP256, AliasName: "alias/x"}); err != nil {
		t.Fatal(err)
	}
	store.settled() // else what the watch tells late is read anew
	look := func() {
		if _, err := f.TokenKey(ctx, user, "kst-software", KeyPlace{1, 1}); err != nil {
			t.Fatal(err)
		}
	}
	look()
	if n := testing.AllocsPerRun(100, look); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// A label that a client has set to what the key's alias says is on the newest version alone after a rotation, and an earlier one is found by its own.
func TestTokenLabelsAfterRotation(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	id := w.createNamed("kst-software", kmswire.AES256, "alias/data")
	keys := allTokenKeys(t, w.Service, root, "kst-software", 10)
	label, own := "data", "of the client"
	if err := w.NameTokenKey(ctx, root, "kst-software", keys[0].KeyPlace, ClassSecretKey, SomeNames{Label: &label}); err != nil {
		t.Fatal(err)
	}
	found := func(label string, want ...uint32) {
		t.Helper()
		keys, err := w.TokenKeysNamed(ctx, root, "kst-software", SomeNames{Label: &label})
		var got []uint32
		for _, k := range keys {
			got = append(got, k.Ordinal)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q finds the versions %v, %v; want %v", label, got, err, want)
		}
	}
	found("data", 1)
	if _, err := w.CreateKeyVersion(ctx, root, &kmswire.CreateKeyVersionRequest{KeyID: id}); err != nil {
		t.Fatal(err)
	}
	found("data", 2)
	found("data#1", 1)
	if err := w.NameTokenKey(ctx, root, "kst-software", keys[0].KeyPlace, ClassSecretKey, SomeNames{Label: &own}); err != nil {
		t.Fatal(err)
	}
	found(own, 1)
	found("data#1")
}
