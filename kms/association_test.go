package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

func (u *useFixture) startCheck(keyID string) *kmswire.StartKeyAssociationCheckResponse {
	u.t.Helper()
	r, err := u.StartKeyAssociationCheck(context.Background(), user, &kmswire.StartKeyAssociationCheckRequest{KeyID: keyID})
	if err != nil {
		u.t.Fatal(err)
	}
	return r
}

func (u *useFixture) list(a *Actor, keyID string, page kmswire.Page) *kmswire.ListKeyAssociationsResponse {
	u.t.Helper()
	r, err := u.ListKeyAssociations(context.Background(), a, &kmswire.ListKeyAssociationsRequest{KeyID: keyID, Page: page})
	if err != nil {
		u.t.Fatal(err)
	}
	return r
}

// check starts a check and gives the list when it is over.
func (u *useFixture) check(keyID string) *kmswire.ListKeyAssociationsResponse {
	u.t.Helper()
	started := u.startCheck(keyID)
	for {
		if r := u.list(user, keyID, kmswire.Page{}); r.CheckID != started.CheckID || r.CheckStatus != kmswire.CheckRunning {
			return r
		}
	}
}

func names(r *kmswire.ListKeyAssociationsResponse) string {
	var all []string
	for _, a := range r.Associations.Association {
		all = append(all, fmt.Sprintf("%s:%s:%d", a.ServiceType, a.ServiceName, a.Calls))
	}
	return strings.Join(all, " ")
}

// TestAssociations goes the way of a person who asks who uses a key.
func TestAssociations(t *testing.T) {
	u := newUseFixture(t)
	key := u.create(software, kmswire.AES256, "").KeyID
	r := u.list(user, key, kmswire.Page{})
	if r.CheckID != "" || r.CheckStatus != "" || r.CheckTime != "" || r.TotalCount != 0 || r.Associations.Association == nil {
		t.Errorf("before any check: %+v", r)
	}
	u.encrypt(volumes, key)
	u.goTo(1 * day)
	u.encrypt(nginx, key)
	u.goTo(2 * day)
	moved := again(volumes)
	moved.Door, moved.RemoteAddr = DoorXKI, "192.0.2.8:1"
	u.encrypt(moved, key)

	r = u.check(key)
	if r.CheckStatus != kmswire.CheckSucceeded || !strings.HasPrefix(r.CheckID, "chk-") || r.CheckTime != formatTime(day0.Add(2*day)) {
		t.Errorf("after a check: %+v", r)
	}
	if got := names(r); got != "Service:Volumes:2 Program:nginx.service:1" || r.TotalCount != 2 {
		t.Fatalf("the list has %s", got)
	}
	if v := r.Associations.Association[0]; v.PrincipalArn != volumes.Principal || v.Door != "XKI" || v.ServiceEntry != "https://volumes.example" ||
		v.FirstCalledAt != formatTime(day0) || v.LastCalledAt != formatTime(day0.Add(2*day)) || v.UID != nil || v.Unit != "" {
		t.Errorf("the service is %+v", v)
	}
	if p := r.Associations.Association[1]; p.PrincipalArn != nginx.Principal || p.Door != "API" || p.ServiceEntry != "" || p.UID == nil || *p.UID != 33 ||
		p.Unit != nginx.Unit || p.Executable != nginx.Executable || p.LastCalledAt != formatTime(day0.Add(day)) {
		t.Errorf("the program is %+v", p)
	}

	// Pages.
	if r := u.list(user, key, kmswire.Page{PageNumber: 2, PageSize: 1}); r.TotalCount != 2 || names(r) != "Program:nginx.service:1" {
		t.Errorf("page 2: %s of %d", names(r), r.TotalCount)
	}
	if r := u.list(user, key, kmswire.Page{PageNumber: 3, PageSize: 1}); names(r) != "" || r.Associations.Association == nil {
		t.Errorf("page 3: %s", names(r))
	}
	_, err := u.ListKeyAssociations(context.Background(), user, &kmswire.ListKeyAssociationsRequest{KeyID: key, Page: kmswire.Page{PageSize: 101}})
	wantCode(t, "a page too large", err, InvalidParameter)

	// A service that is no longer declared keeps the name that it had in records.
	u.SetServices(nil)
	if r := u.list(user, key, kmswire.Page{}); names(r) != "Service:volumes:2 Program:nginx.service:1" || r.Associations.Association[0].ServiceEntry != "" {
		t.Errorf("without its declaration: %s", names(r))
	}

	// Strangers.
	_, err = u.ListKeyAssociations(context.Background(), other, &kmswire.ListKeyAssociationsRequest{KeyID: key})
	wantCode(t, "a list for a stranger", err, KeyNotFound)
	_, err = u.StartKeyAssociationCheck(context.Background(), other, &kmswire.StartKeyAssociationCheckRequest{KeyID: key})
	wantCode(t, "a check for a stranger", err, KeyNotFound)
}

// TestAges goes over the edges of 365 and 730 days.
func TestAges(t *testing.T) {
	u := newUseFixture(t)
	key := u.create(software, kmswire.AES256, "").KeyID
	u.encrypt(nginx, key)
	for _, at := range []struct {
		after string
		d     int64
		want  string
		last  bool
	}{
		{"365 days", int64(usageShown), "Program:nginx.service:1", true},
		{"a nanosecond more", int64(usageShown) + 1, "Program:nginx.service:1", false},
		{"730 days", int64(usageKept), "Program:nginx.service:1", false},
		{"a nanosecond more than that", int64(usageKept) + 1, "", false},
	} {
		u.clock.Store(at.d)
		r := u.check(key)
		if names(r) != at.want {
			t.Errorf("after %s the list has %q", at.after, names(r))
			continue
		}
		if at.want != "" && (r.Associations.Association[0].LastCalledAt != "") != at.last {
			t.Errorf("after %s the last call is at %q", at.after, r.Associations.Association[0].LastCalledAt)
		}
	}
	if all, err := u.db.Usage(context.Background(), key, 10); err != nil || len(all) != 0 {
		t.Errorf("what is too old is still in the store: %+v, %v", all, err)
	}
}

// TestAnotherAccountSeesItsOwn words a list for a principal of another account, which a key's policy may let in.
func TestAnotherAccountSeesItsOwn(t *testing.T) {
	u := newUseFixture(t)
	key := u.create(software, kmswire.AES256, "").KeyID
	foreign := again(nginx)
	foreign.Principal, foreign.Account = other.Principal, other.Account
	u.ledger.note(foreign, key, 1, day0)
	u.ledger.note(nginx, key, 1, day0)
	u.ledger.note(volumes, key, 1, day0)
	u.used(key)
	used, err := u.db.Usage(context.Background(), key, 10)
	if err != nil {
		t.Fatal(err)
	}
	used = append(used, &keystore.Usage{KeyID: key, Caller: keystore.OtherCallers, First: day0, Last: day0, Calls: 9})
	k, err := u.db.Key(context.Background(), key)
	if err != nil {
		t.Fatal(err)
	}
	rows := u.associations(other, k, used)
	if len(rows) != 1 || rows[0].PrincipalArn != other.Principal || rows[0].Unit != "" || rows[0].Executable != "" || rows[0].UID != nil || rows[0].ServiceName != "root" {
		t.Errorf("another account sees %+v", rows)
	}
	rows = u.associations(user, k, used)
	if len(rows) != 4 || !slices.ContainsFunc(rows, func(a kmswire.KeyAssociation) bool {
		return a.ServiceName == "others" && a.PrincipalArn == "" && a.Calls == 9
	}) {
		t.Errorf("the owner sees %+v", rows)
	}
}

func TestProgramNames(t *testing.T) {
	p := root.Principal
	for want, use := range map[string]keystore.Usage{
		"nginx.service": {Caller: "c", Principal: p, Unit: "nginx.service", Executable: "/usr/sbin/nginx"},
		"nginx":         {Caller: "c", Principal: p, Executable: "/usr/sbin/nginx"},
		"[/bin/x]":      {Caller: "c", Principal: p, Executable: "[/bin/x]"},
		"root":          {Caller: "c", Principal: p},
		"role/web":      {Caller: "c", Principal: nginx.Principal},
		"others":        {Caller: keystore.OtherCallers},
	} {
		if got := programName(&use); got != want {
			t.Errorf("%+v is called %q, want %q", use, got, want)
		}
	}
}

// stopped makes the service's goroutine of the ledger end, so that a test does its rounds itself.
func (u *useFixture) stopped() {
	u.stop()
	u.done.Wait()
}

// TestOneCheckAtATime sees that a second start joins the first, and that a list tells of it.
func TestOneCheckAtATime(t *testing.T) {
	u := newUseFixture(t)
	u.stopped()
	key := u.create(software, kmswire.AES256, "").KeyID
	first := u.startCheck(key)
	if first.CheckStatus != kmswire.CheckRunning {
		t.Errorf("a start answers %+v", first)
	}
	if second := u.startCheck(key); second.CheckID != first.CheckID {
		t.Errorf("a second start began %s, not %s", second.CheckID, first.CheckID)
	}
	if r := u.list(user, key, kmswire.Page{}); r.CheckStatus != kmswire.CheckRunning || r.CheckID != first.CheckID || r.CheckTime == "" {
		t.Errorf("meanwhile a list says %+v", r)
	}
	u.checkRound(context.Background())
	if r := u.list(user, key, kmswire.Page{}); r.CheckStatus != kmswire.CheckSucceeded || r.CheckID != first.CheckID {
		t.Errorf("then a list says %+v", r)
	}
	if third := u.startCheck(key); third.CheckID == first.CheckID {
		t.Error("a start after the end gave the old check")
	}
}

// TestCheckCutOff leaves a check half way, as a crash does.
func TestCheckCutOff(t *testing.T) {
	u := newUseFixture(t)
	u.stopped()
	key := u.create(software, kmswire.AES256, "").KeyID
	lost := u.startCheck(key)
	u.Service = u.begin()
	if r := u.list(user, key, kmswire.Page{}); r.CheckStatus != kmswire.CheckFailed || r.CheckID != lost.CheckID {
		t.Errorf("after a crash a list says %+v", r)
	}
	if r := u.check(key); r.CheckStatus != kmswire.CheckSucceeded || r.CheckID == lost.CheckID {
		t.Errorf("the next check: %+v", r)
	}
}

// TestChecksFail has the store refuse at each step of a check.
func TestChecksFail(t *testing.T) {
	u := newUseFixture(t)
	u.stopped()
	ctx := context.Background()
	key := u.create(software, kmswire.AES256, "").KeyID
	status := func() kmswire.CheckStatus {
		t.Helper()
		return u.list(user, key, kmswire.Page{}).CheckStatus
	}

	set(&u.store.refuse, keystore.ErrFull)
	_, err := u.StartKeyAssociationCheck(ctx, user, &kmswire.StartKeyAssociationCheckRequest{KeyID: key})
	wantCode(t, "a start on a full disk", err, StoreUnavailable)
	set(&u.store.refuse, nil)
	if got := status(); got != "" {
		t.Errorf("a check that did not begin is %q", got)
	}

	// The store can't be read.
	u.startCheck(key)
	set(&u.store.unread, errors.New("the disk is gone"))
	u.checkRound(ctx)
	set(&u.store.unread, nil)
	if got := status(); got != kmswire.CheckFailed {
		t.Errorf("a check that could not read is %q", got)
	}

	// The ledger can't be saved, nor the end of the check.
	u.encrypt(nginx, key)
	u.startCheck(key)
	set(&u.store.refuse, keystore.ErrFull)
	u.checkRound(ctx)
	set(&u.store.refuse, nil)
	if got := status(); got != kmswire.CheckFailed {
		t.Errorf("a check that could not save the ledger is %q", got)
	}

	// The next one has it all.
	u.startCheck(key)
	u.checkRound(ctx)
	if r := u.list(user, key, kmswire.Page{}); r.CheckStatus != kmswire.CheckSucceeded || names(r) != "Program:nginx.service:1" {
		t.Errorf("the next check: %+v", r)
	}
}

// TestManyChecks starts more checks than one round takes.
func TestManyChecks(t *testing.T) {
	u := newUseFixture(t)
	var keys []string
	for range checksAtOnce + 10 {
		keys = append(keys, u.create(software, kmswire.AES256, "").KeyID)
	}
	for _, key := range keys {
		u.startCheck(key)
	}
	for _, key := range keys {
		if r := u.check(key); r.CheckStatus != kmswire.CheckSucceeded {
			t.Errorf("%s: %+v", key, r)
		}
	}
}
