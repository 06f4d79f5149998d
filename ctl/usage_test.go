package ctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

// fakeUse is what the fake knows of who uses any of its keys.
type fakeUse struct {
	rows    []kmswire.KeyAssociation
	looks   int  // how often a check is under way before it is over
	fails   bool // and then it failed
	started int
}

func (d *fakeDaemon) associations(action string, q url.Values) (any, *kmswire.ErrorBody) {
	if _, no := d.key(q.Get("KeyId")); no != nil {
		return nil, no
	}
	u := &d.usage
	if action == "StartKeyAssociationCheck" {
		u.started++
		return kmswire.StartKeyAssociationCheckResponse{CheckID: "chk-1", CheckStatus: kmswire.CheckRunning}, nil
	}
	var answer kmswire.ListKeyAssociationsResponse
	answer.Associations.Association, answer.Paged = page(u.rows, into[kmswire.ListKeyAssociationsRequest](q).Page)
	switch {
	case u.started == 0:
		return answer, nil
	case u.looks > 0:
		u.looks--
		answer.CheckStatus = kmswire.CheckRunning
	case u.fails:
		answer.CheckStatus = kmswire.CheckFailed
	default:
		answer.CheckStatus = kmswire.CheckSucceeded
	}
	answer.CheckID, answer.CheckTime = "chk-1", "2027-01-03T00:00:00Z"
	return answer, nil
}

func uid(n int) *int { return &n }

var someUsers = []kmswire.KeyAssociation{
	{ServiceName: "Volumes", ServiceType: "Service", PrincipalArn: "acs:ram::1:role/volumes", Door: "API", FirstCalledAt: "2027-01-01T00:00:00Z",
		LastCalledAt: "2027-01-02T00:00:00Z", Calls: 7, ServiceEntry: "https://volumes.example"},
	{ServiceName: "nginx.service", ServiceType: "Program", PrincipalArn: "acs:ram::1:role/web", Unit: "nginx.service", Executable: "/usr/sbin/nginx", UID: uid(33),
		Door: "API", FirstCalledAt: "2025-01-01T00:00:00Z", Calls: 3},
}

func TestKeyUsage(t *testing.T) {
	d := startFake(t)
	d.must(t, "key", "create", "--alias", "app")
	d.usage.rows, d.usage.looks = someUsers, 2
	out, talk := d.must(t, "key", "usage", "alias/app")
	for _, want := range []string{
		"USED BY        TYPE     LAST USED             CALLS  PRINCIPAL                UNIT           EXECUTABLE       UID  DOOR  SEE",
		"Volumes        Service  2027-01-02T00:00:00Z  7      acs:ram::1:role/volumes  -              -                -    API   https://volumes.example",
		"nginx.service  Program  over a year ago       3      acs:ram::1:role/web      nginx.service  /usr/sbin/nginx  33   API   -",
	} {
		if !strings.Contains(out, want+"\n") {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
	if talk != "checking who uses alias/app\n" || d.usage.looks != 0 {
		t.Errorf("talk %q, and %d looks left", talk, d.usage.looks)
	}
	out, _ = d.must(t, "key", "usage", "alias/app", "-o", "json")
	var all kmswire.ListKeyAssociationsResponse
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all.Associations.Association) != 2 || all.CheckStatus != kmswire.CheckSucceeded ||
		*all.Associations.Association[1].UID != 33 || all.TotalCount != 2 {
		t.Errorf("%v: %s", err, out)
	}
}

// TestKeyUsageOfMany has more callers than one page has.
func TestKeyUsageOfMany(t *testing.T) {
	d := startFake(t)
	d.must(t, "key", "create", "--alias", "app")
	for i := range 250 {
		d.usage.rows = append(d.usage.rows, kmswire.KeyAssociation{ServiceName: fmt.Sprintf("p%03d\x1b[2J", i), ServiceType: "Program"})
	}
	out, _ := d.must(t, "key", "usage", "alias/app")
	if n := strings.Count(out, "\n"); n != 251 || !strings.Contains(out, "p249?[2J") || strings.Contains(out, "\x1b") {
		t.Errorf("%d lines:\n%s", n, out)
	}
}

func TestKeyUsageWithoutCheck(t *testing.T) {
	d := startFake(t)
	d.must(t, "key", "create", "--alias", "app")
	out, talk := d.must(t, "key", "usage", "alias/app", "--no-check")
	if out != "" || !strings.Contains(talk, "there was no check yet") || !strings.Contains(talk, "no use of alias/app was recorded since it was made at 2026-01-01T00:00:00Z") || d.usage.started != 0 {
		t.Errorf("%q, %q, %d checks", out, talk, d.usage.started)
	}
	d.usage.started, d.usage.fails = 1, true
	if _, talk := d.must(t, "key", "usage", "alias/app", "--no-check"); !strings.Contains(talk, "the last check (2027-01-03T00:00:00Z) failed") {
		t.Errorf("talk %q", talk)
	}
}

func TestKeyUsageFails(t *testing.T) {
	d := startFake(t)
	if code, _, talk := d.ctl(t, "", "key", "usage", "alias/none"); code != exitNotFound || !strings.Contains(talk, "alias/none") {
		t.Errorf("no such key: %d, %s", code, talk)
	}
	d.must(t, "key", "create", "--alias", "app")
	d.usage.fails = true
	if code, out, talk := d.ctl(t, "", "key", "usage", "alias/app"); code != exitTryAgain || out != "" || !strings.Contains(talk, "keyward's log says why") || !strings.Contains(talk, "--no-check") {
		t.Errorf("a failed check: %d, %q, %s", code, out, talk)
	}
	if code, _, _ := d.ctl(t, "", "key", "usage"); code != exitUsage {
		t.Errorf("without a key: %d", code)
	}
}

// TestSayUsers sees what a person is told before a key is stopped, and that nothing of it stops the command.
func TestSayUsers(t *testing.T) {
	d := startFake(t)
	d.must(t, "key", "create", "--alias", "app")
	say := func() string {
		var out, talk bytes.Buffer
		c := &cli{stdout: &out, stderr: &talk, timeout: 10 * time.Second, client: &kmsclient.Client{Socket: d.socket}}
		c.sayUsers(t.Context(), "alias/app")
		if out.Len() > 0 {
			t.Errorf("it wrote to stdout: %s", out.String())
		}
		return talk.String()
	}
	if got := say(); !strings.HasPrefix(got, "no use of alias/app was recorded") {
		t.Errorf("unused: %q", got)
	}
	d.usage.rows = someUsers
	if got, want := say(), `alias/app is used by:
  service Volumes as acs:ram::1:role/volumes, last 2027-01-02T00:00:00Z, 7 calls
  nginx.service (/usr/sbin/nginx) as acs:ram::1:role/web, uid 33, last over a year ago, 3 calls
`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for range 5 {
		d.usage.rows = append(d.usage.rows, someUsers[1])
	}
	if got := say(); !strings.HasSuffix(got, "\n  and 2 more: keywardctl key usage alias/app\n") {
		t.Errorf("many: %q", got)
	}
	d.usage.fails = true
	if got := say(); !strings.HasPrefix(got, "who used alias/app in the last seconds can't be told: ") || !strings.Contains(got, "service Volumes") {
		t.Errorf("a failed check: %q", got)
	}
	d.refuse["ListKeyAssociations"] = problem(403, "Forbidden.NoPermission", "This operation is forbidden.")
	if got := say(); !strings.HasPrefix(got, "who uses alias/app can't be told: ") || strings.Count(got, "\n") > 2 {
		t.Errorf("refused: %q", got)
	}
}
