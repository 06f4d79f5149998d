package kms

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/keystore/boltstore"
	"github.com/keyward/keyward/kms/kmswire"
)

func (f *fixture) createWith(a *Actor, token string, edit func(*kmswire.CreateKeyRequest)) (string, error) {
	req := &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", ClientToken: token}
	if edit != nil {
		edit(req)
	}
	r, err := f.CreateKey(context.Background(), a, req)
	if err != nil {
		return "", err
	}
	return r.KeyMetadata.KeyID, nil
}

func (f *fixture) countKeys() int {
	f.t.Helper()
	_, n, err := f.db.Keys(context.Background(), testAccount, 0, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

func TestClientToken(t *testing.T) {
	ctx := context.Background()
	f := newSoftFixture(t, keystore.NewMem())
	begin := time.Date(2026, 5, 1, 0, 0, 0, 500, time.UTC)
	f.setNow(begin)
	// The answer of the first call is lost: its event can't be kept at the end.
	lossy := &secondFails{events: f.events}
	f.audit = lossy
	full := func(r *kmswire.CreateKeyRequest) {
		r.AliasName, r.Description, r.Tags = "alias/once", "a key", []byte(`[{"TagKey":"a","TagValue":"b"}]`)
	}
	_, err := f.createWith(root, "t-1", full)
	wantCode(t, "no event, no answer", err, AuditUnavailable)
	f.audit = f.events
	if n := f.countKeys(); n != 1 {
		t.Fatalf("%d keys", n)
	}
	first, err := f.createWith(root, "t-1", full)
	if err != nil || f.countKeys() != 1 {
		t.Fatalf("the call made again: %v, %d keys", err, f.countKeys())
	}
	if e := f.events.last(); e.KeyID != first || e.Outcome != "ok" || e.Detail != "made before with the same ClientToken" {
		t.Errorf("event %+v", e)
	}
	for _, e := range f.events.all {
		if strings.Contains(e.Detail, "t-1") {
			t.Errorf("the token is in an event: %+v", e)
		}
	}
	// The key as it is now.
	if _, err := f.DisableKey(ctx, root, &kmswire.DisableKeyRequest{KeyID: first}); err != nil {
		t.Fatal(err)
	}
	r, err := f.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", ClientToken: "t-1", AliasName: "alias/once", Description: "a key", Tags: []byte(`[{"TagKey":"a","TagValue":"b"}]`)})
	if err != nil || r.KeyMetadata.KeyState != kmswire.Disabled {
		t.Errorf("%+v %v", r, err)
	}

	for name, edit := range map[string]func(*kmswire.CreateKeyRequest){
		"description": func(r *kmswire.CreateKeyRequest) { full(r); r.Description = "another" },
		"alias":       func(r *kmswire.CreateKeyRequest) { full(r); r.AliasName = "alias/other" },
		"tags":        func(r *kmswire.CreateKeyRequest) { full(r); r.Tags = nil },
		"spec":        func(r *kmswire.CreateKeyRequest) { full(r); r.KeySpec = kmswire.AES256 },
		"none":        nil,
	} {
		_, err := f.createWith(root, "t-1", edit)
		wantCode(t, "other "+name, err, InvalidParameter)
		if AsError(err).Param != "ClientToken" {
			t.Errorf("other %s: %v", name, err)
		}
	}
	_, err = f.createWith(root, "", full)
	wantCode(t, "without a token", err, AliasExists)
	_, err = f.createWith(root, "t-2", full)
	wantCode(t, "the alias under another token", err, AliasExists)
	_, err = f.createWith(user, "t-1", full)
	wantCode(t, "somebody who may not create", err, Denied)
	// Somebody who may make keys need not be allowed to see this one.
	if _, err := f.Principals().Create(ctx, root, user.Principal, ""); err != nil {
		t.Fatal(err)
	}
	if err := f.Principals().AttachPolicy(ctx, root, user.Principal, "makes", identityPolicyText("Allow", "kms:CreateKey", "*")); err != nil {
		t.Fatal(err)
	}
	if id, err := f.createWith(user, "t-1", func(r *kmswire.CreateKeyRequest) { full(r); r.AliasName = "" }); err != nil || id == first {
		t.Errorf("the token of another principal: %s %v", id, err)
	}
	_, err = f.createWith(user, "t-1x", full)
	wantCode(t, "the alias of the token of another principal", err, AliasExists)
	f.SetInstances([]Instance{{ID: "kst-software", Type: SoftwareInstance, Access: 1, SharedWith: []string{other.Account}}})
	if id, err := f.createWith(other, "t-1", full); err != nil || id == first {
		t.Errorf("the token of another account: %s %v", id, err)
	}
	for token, want := range map[string]bool{
		strings.Repeat("x", 64): true, strings.Repeat("x", 65): false, "a b": false, "ä": false, "\x7f": false, "a\n": false, "!~": true, "x": true,
	} {
		_, err := f.createWith(root, token, nil)
		if (err == nil) != want {
			t.Errorf("%q: %v", token, err)
		}
	}

	// A failed call leaves no token.
	_, err = f.createWith(root, "t-3", func(r *kmswire.CreateKeyRequest) { r.KeySpec = "DES" })
	wantCode(t, "a bad call", err, InvalidParameter)
	third, err := f.createWith(root, "t-3", nil)
	if err != nil {
		t.Fatal(err)
	}

	// To the second for 24 hours.
	f.setNow(begin.Add(24*time.Hour - time.Second))
	if id, err := f.createWith(root, "t-3", nil); err != nil || id != third {
		t.Errorf("after less than 24 hours: %s %v", id, err)
	}
	f.setNow(begin.Add(24 * time.Hour))
	next, err := f.createWith(root, "t-3", nil)
	if err != nil || next == third {
		t.Errorf("after 24 hours: %s %v", next, err)
	}
	if id, err := f.createWith(root, "t-3", nil); err != nil || id != next {
		t.Errorf("the token of the next day: %s %v", id, err)
	}
	// Tokens that expired are gone from the store, and this one is not.
	if n, err := f.db.DropClientTokens(ctx, f.now(), 100); n != 0 || err != nil {
		t.Errorf("%d expired tokens were left (%v)", n, err)
	}

	k, err := f.db.Key(ctx, next)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.db.Change().DeleteKey(k, f.now()).Commit(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = f.createWith(root, "t-3", nil)
	wantCode(t, "a key that was deleted", err, KeyNotFound)
	if !strings.Contains(err.Error(), next) || !strings.Contains(err.Error(), "deleted") {
		t.Errorf("it says %v", err)
	}
}

// secondFails keeps the event that a call begins, and not that it ends.
type secondFails struct{ *events }

func (s *secondFails) Record(ctx context.Context, e *AuditEvent) error {
	if e.Outcome != "begun" {
		return errors.New("the log is full")
	}
	return s.events.Record(ctx, e)
}

// meet is an Auditor at which n calls wait for each other before their effect.
type meet struct {
	*events
	arrived, go_ chan struct{}
}

func (m *meet) Record(ctx context.Context, e *AuditEvent) error {
	if e.Outcome == "begun" {
		m.arrived <- struct{}{}
		<-m.go_
	}
	return m.events.Record(ctx, e)
}

// Of calls at the same time one makes the key, and all give it: also when all of them have seen that there is none, and also
// after a restart.
func TestClientTokensAtTheSameTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	open := func() keystore.Store {
		store, err := boltstore.Open(path, boltstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	f := newSoftFixture(t, open())
	const callers = 6
	for _, alias := range []string{"", "alias/once"} {
		m := &meet{f.events, make(chan struct{}), make(chan struct{})}
		f.audit = m
		before := f.countKeys()
		ids, errs := make(chan string, callers), make(chan error, callers)
		token := "token" + strings.ReplaceAll(alias, "/", "-")
		call := func() (string, error) {
			return f.createWith(root, token, func(r *kmswire.CreateKeyRequest) { r.AliasName = alias })
		}
		for range callers {
			go func() {
				id, err := call()
				ids <- id
				errs <- err
			}()
		}
		for range callers {
			<-m.arrived
		}
		close(m.go_)
		seen := map[string]bool{}
		for range callers {
			seen[<-ids] = true
			if err := <-errs; err != nil {
				t.Errorf("%q: %v", alias, err)
			}
		}
		if len(seen) != 1 || f.countKeys() != before+1 {
			t.Errorf("%q: %d callers got %v, and there are %d keys more", alias, callers, seen, f.countKeys()-before)
		}
		f.audit = f.events
		f.Service.Close()
		if err := f.db.Close(); err != nil {
			t.Fatal(err)
		}
		f.reopen(open())
		if id, err := call(); err != nil || !seen[id] {
			t.Errorf("%q after a restart: %s %v", alias, id, err)
		}
	}
	losers := 0
	for _, e := range f.events.all {
		if strings.Contains(e.Detail, "was not made") {
			losers++
		}
	}
	if losers != 2*(callers-1) {
		t.Errorf("%d calls say which key they did not make, want %d", losers, 2*(callers-1))
	}
}

func TestAliasRules(t *testing.T) {
	ctx := context.Background()
	f := newSoftFixture(t, keystore.NewMem())
	k, l := f.put(keystore.Key{}), f.put(keystore.Key{})
	service := f.put(keystore.Key{Role: keystore.RoleService, Creator: "OSS"})
	if err := f.db.Change().CreateAlias(&keystore.Alias{Account: testAccount, Name: "alias/acs/oss", KeyID: service.ID}).Commit(ctx); err != nil {
		t.Fatal(err)
	}
	create := func(name, key string) error {
		_, err := f.CreateAlias(ctx, root, &kmswire.CreateAliasRequest{AliasName: name, KeyID: key})
		return err
	}
	for c := rune(0); c < 128; c++ {
		want := strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-/", c)
		if err := create("alias/x"+string(c), k.ID); (err == nil) != want {
			t.Errorf("%q: %v", c, err)
		}
	}
	for name, want := range map[string]Code{
		"": MissingParameter, "alias/": InvalidParameter, "x": InvalidParameter, "Alias/x": InvalidParameter, "alias/ä": InvalidParameter,
		"alias/" + strings.Repeat("a", 255): pass, "alias/" + strings.Repeat("b", 256): InvalidParameter, "alias/" + strings.Repeat("ä", 255): InvalidParameter,
		"alias/acs": InvalidParameter, "alias/acs/mine": InvalidParameter, "alias/acsomething": InvalidParameter, "alias/ac": pass, "alias/ACS": pass, "alias/x/acs": pass,
		"acs:kms:local:" + testAccount + ":alias/arn": InvalidParameter,
	} {
		err := create(name, k.ID)
		if want == pass && err != nil || want != pass && !errors.Is(err, want) {
			t.Errorf("%s: %v", cut(name, 30), err)
		}
	}
	wantCode(t, "an alias of a service key", create("alias/mine", service.ID), Denied)
	_, err := f.UpdateAlias(ctx, root, &kmswire.UpdateAliasRequest{AliasName: "alias/acs/oss", KeyID: k.ID})
	wantCode(t, "a service's alias is moved", err, InvalidParameter)
	_, err = f.UpdateAlias(ctx, root, &kmswire.UpdateAliasRequest{AliasName: "alias/ac", KeyID: service.ID})
	wantCode(t, "an alias is moved to a service key", err, Denied)
	_, err = f.DeleteAlias(ctx, root, &kmswire.DeleteAliasRequest{AliasName: "alias/acs/oss"})
	wantCode(t, "a service's alias is deleted", err, InvalidParameter)
	_, err = f.UpdateAlias(ctx, root, &kmswire.UpdateAliasRequest{AliasName: "alias/none", KeyID: k.ID})
	wantCode(t, "an alias that is not there is moved", err, AliasNotFound)

	describe := func(a *Actor, ref string) (string, error) {
		r, err := f.DescribeKey(ctx, a, &kmswire.DescribeKeyRequest{KeyID: ref})
		if err != nil {
			return "", err
		}
		return r.KeyMetadata.KeyID, nil
	}
	arn := "acs:kms:local:" + testAccount + ":alias/ac"
	for _, ref := range []string{"alias/ac", arn} {
		if id, err := describe(user, ref); err != nil || id != k.ID {
			t.Errorf("%s: %s %v", ref, id, err)
		}
	}
	if id, err := describe(user, "alias/acs/oss"); err != nil || id != service.ID {
		t.Errorf("a service's alias: %s %v", id, err)
	}
	// To another account an alias that is there looks like one that is not.
	_, there := describe(other, arn)
	_, absent := describe(other, "acs:kms:local:"+testAccount+":alias/none")
	wantCode(t, "the alias of another account", there, AliasNotFound)
	if there == nil || strings.ReplaceAll(there.Error(), "alias/ac ", "alias/none ") != absent.Error() {
		t.Errorf("%v differs from %v", there, absent)
	}
	_, err = describe(other, "alias/ac")
	wantCode(t, "an alias of one's own account", err, AliasNotFound)
	for _, bad := range []string{"acs:kms:local:" + testAccount + ":x", "acs:kms:local", "acs:kms:elsewhere:" + testAccount + ":alias/ac"} {
		_, err := describe(root, bad)
		wantCode(t, bad, err, InvalidParameter)
	}

	// One alias, two who move it at the same time: the last one to be decided wins, and nobody is refused.
	errs := make(chan error)
	for _, id := range []string{k.ID, l.ID} {
		go func() {
			_, err := f.UpdateAlias(ctx, root, &kmswire.UpdateAliasRequest{AliasName: "alias/ac", KeyID: id})
			errs <- err
		}()
	}
	for range 2 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	// As many as a key may have.
	_, n, err := f.db.AliasesOf(ctx, l.ID, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	ch := f.db.Change()
	for i := n; i < maxAliases; i++ {
		ch.CreateAlias(&keystore.Alias{Account: testAccount, Name: fmt.Sprint("alias/many/", i), KeyID: l.ID})
	}
	if err := ch.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "one alias more than a key may have", create("alias/one-more", l.ID), LimitExceeded)
	_, err = f.UpdateAlias(ctx, root, &kmswire.UpdateAliasRequest{AliasName: "alias/x/acs", KeyID: l.ID})
	wantCode(t, "one moved to it", err, LimitExceeded)
	if err := create("alias/one-more", k.ID); err != nil {
		t.Error(err)
	}
}
