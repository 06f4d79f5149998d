package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

const plainUser = "acs:ram::" + config.DefaultAccount + ":user/plain"

// auditLines counts the lines of the audit.
func (a *appliance) auditLines(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(a.dir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(text, []byte("\n"))
}

// TestWhoMayManagePrincipals makes every call that the service decides about as a user who is no root: it is refused, and
// audited once.
func TestWhoMayManagePrincipals(t *testing.T) {
	a := newAppliance(t)
	made, err := a.client.CreateAccessKey(t.Context(), rootOf(config.DefaultAccount))
	if err != nil {
		t.Fatal(err)
	}
	bodies := map[string]string{
		"POST " + admin.PrincipalsPath: `{"arn":"` + plainUser + `"}`,
		"POST " + admin.AccessKeysPath: `{"principal":"` + plainUser + `"}`,
		"POST " + admin.SimulatePath:   `{"principal":"` + plainUser + `","action":"kms:CreateKey"}`,
	}
	for _, rt := range routes {
		if rt.action != byService {
			continue
		}
		before := a.auditLines(t)
		path := strings.NewReplacer("{id}", made.ID, "{name}", "n", "{instance}", "kst-n").Replace(rt.path)
		rec := a.as(4242, rt.method, path+"?arn="+plainUser+"&principal="+plainUser+"&name=n", bodies[rt.method+" "+rt.path])
		// An access key that one may not manage is not told of.
		want := http.StatusForbidden
		if strings.Contains(rt.path, "access-keys/{id}") {
			want = http.StatusNotFound
		}
		if rec.Code != want || !strings.Contains(rec.Body.String(), `{"error":"`) {
			t.Errorf("%s %s: %d, %s", rt.method, rt.path, rec.Code, rec.Body)
		}
		if n := a.auditLines(t) - before; n != 1 {
			t.Errorf("%s %s left %d events", rt.method, rt.path, n)
		}
	}
	rec := a.as(4242, http.MethodGet, admin.AccountsPath, "")
	if rec.Code != http.StatusOK || strings.TrimSpace(rec.Body.String()) != `{"accounts":[]}` {
		t.Errorf("accounts of a user: %d, %s", rec.Code, rec.Body)
	}
}

// TestPrincipals goes through the life of a user.
func TestPrincipals(t *testing.T) {
	a := newAppliance(t)
	ctx := t.Context()
	c := a.client
	root := rootOf(config.DefaultAccount)
	alice := "acs:ram::" + config.DefaultAccount + ":user/alice"

	if got, err := c.Accounts(ctx); err != nil || fmt.Sprint(got.Accounts) != "["+config.DefaultAccount+"]" {
		t.Errorf("accounts: %v, %v", got, err)
	}
	// Nobody was created, and two are mapped.
	list, err := c.Principals(ctx, config.DefaultAccount, 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	if list.Total != 2 || len(list.Principals) != 2 || list.Principals[0].ARN != root || list.Principals[1].ARN != plainUser ||
		!list.Principals[1].Mapped || list.Principals[1].Recorded {
		t.Errorf("at first: %+v", list)
	}
	if p, err := c.Principal(ctx, alice); err != nil || p.Recorded || p.Mapped || p.ARN != alice {
		t.Errorf("one that is not there: %+v, %v", p, err)
	}

	p, err := c.CreatePrincipal(ctx, &admin.PrincipalRequest{ARN: alice, Description: "Alice"})
	if err != nil {
		t.Fatal(err)
	}
	if !p.Recorded || p.Mapped || p.Description != "Alice" || p.Created.IsZero() {
		t.Errorf("created: %+v", p)
	}
	_, err = c.CreatePrincipal(ctx, &admin.PrincipalRequest{ARN: alice})
	wantStatus(t, err, http.StatusConflict, "already")
	_, err = c.CreatePrincipal(ctx, &admin.PrincipalRequest{ARN: "alice"})
	wantStatus(t, err, http.StatusUnprocessableEntity, "Principal", "acs:ram::")
	_, err = c.CreatePrincipal(ctx, &admin.PrincipalRequest{ARN: "acs:ram::9999999999999999:user/a"})
	wantStatus(t, err, http.StatusNotFound, "9999999999999999")

	// Pages: one that is recorded, then those that are mapped only.
	var got []string
	for offset := range 4 {
		page, err := c.Principals(ctx, config.DefaultAccount, offset, 1)
		if err != nil || page.Total != 3 {
			t.Fatalf("%+v, %v", page, err)
		}
		for _, p := range page.Principals {
			got = append(got, p.ARN)
		}
	}
	if want := fmt.Sprint([]string{alice, root, plainUser}); fmt.Sprint(got) != want {
		t.Errorf("page by page: %v, want %s", got, want)
	}
	for _, query := range []string{"limit=0", "limit=1001", "limit=x", "offset=-1", "offset=99999999999999999999"} {
		if rec := a.as(0, http.MethodGet, admin.PrincipalsPath+"?"+query, ""); rec.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d, %s", query, rec.Code, rec.Body)
		}
	}

	document := `{"Version":"1","Statement":[{"Effect":"Allow","Action":["kms:CreateKey"],"Resource":["acs:kms:*:*:key"]}]}`
	if err := c.AttachPolicy(ctx, alice, "make", []byte(document)); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, c.AttachPolicy(ctx, alice, "bad", []byte(`{"Version":"1","Statement":[{"Effect":"Alow","Action":"kms:*","Resource":"*"}]}`)),
		http.StatusUnprocessableEntity, "Statement[0].Effect", "Allow or Deny")
	wantStatus(t, c.AttachPolicy(ctx, alice, "long", bytes.Repeat([]byte(" "), admin.MaxPolicy+1)), http.StatusUnprocessableEntity, "octets")
	wantStatus(t, c.AttachPolicy(ctx, alice, "a b", []byte(document)), http.StatusUnprocessableEntity, "PolicyName")
	ps, err := c.Policies(ctx, alice)
	if err != nil || len(ps.Policies) != 1 || ps.Policies[0].Name != "make" || string(ps.Policies[0].Document) != document {
		t.Errorf("policies: %+v, %v", ps, err)
	}
	d, err := c.Simulate(ctx, &admin.Simulation{Principal: alice, Action: "kms:CreateKey"})
	if err != nil {
		t.Fatal(err)
	}
	if !d.Allowed || len(d.Policies) != 2 || d.Policies[1].Policy != "identity policy make" || !d.Policies[1].Statements[0].Matched {
		t.Errorf("simulated: %+v", d)
	}
	if err := c.DetachPolicy(ctx, alice, "make"); err != nil {
		t.Error(err)
	}
	wantStatus(t, c.DetachPolicy(ctx, alice, "make"), http.StatusNotFound, "make")
	if d, err := c.Simulate(ctx, &admin.Simulation{Principal: alice, Action: "kms:CreateKey"}); err != nil || d.Allowed || d.Reason == "" {
		t.Errorf("simulated after that: %+v, %v", d, err)
	}

	// A PIN is set, told about, locked, set again and removed, and is in no answer and not in the audit.
	const pin = "alice's first PIN"
	if err := c.SetPIN(ctx, alice, []byte(pin)); err != nil {
		t.Fatal(err)
	}
	actor := &kms.Actor{Principal: alice, Account: config.DefaultAccount}
	for i := range kms.MaxPINFailures {
		if _, err := a.server.svc.CheckPIN(ctx, actor, []byte("wrong")); !errors.Is(err, kms.Denied) {
			t.Error(err)
		}
		if i == 0 {
			if p, err := c.Principal(ctx, alice); err != nil || p.PIN == nil || p.PIN.Failures != 1 || p.PIN.Locked || p.PIN.Set.IsZero() {
				t.Errorf("%+v, %v", p.PIN, err)
			}
		}
	}
	if p, err := c.Principal(ctx, alice); err != nil || p.PIN == nil || !p.PIN.Locked {
		t.Errorf("%+v, %v", p.PIN, err)
	}
	if err := c.SetPIN(ctx, alice, []byte(pin)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.server.svc.CheckPIN(ctx, actor, []byte(pin)); err != nil {
		t.Error(err)
	}
	wantStatus(t, c.SetPIN(ctx, alice, []byte("short")), http.StatusUnprocessableEntity, "8 to 256")
	wantStatus(t, c.SetPIN(ctx, alice, make([]byte, admin.MaxPINBody+1)), http.StatusUnprocessableEntity, "256")
	wantStatus(t, c.SetPIN(ctx, alice+"x", []byte(pin)), http.StatusNotFound)
	if rec := a.as(4242, http.MethodPut, admin.PINPath+"?arn="+alice, pin); rec.Code != http.StatusForbidden {
		t.Errorf("by a user: %d, %s", rec.Code, rec.Body)
	}
	if err := c.RemovePIN(ctx, alice); err != nil {
		t.Error(err)
	}
	wantStatus(t, c.RemovePIN(ctx, alice), http.StatusNotFound, "has no PIN")
	if p, err := c.Principal(ctx, alice); err != nil || p.PIN != nil {
		t.Errorf("%+v, %v", p.PIN, err)
	}
	if log, err := os.ReadFile(filepath.Join(a.dir, "audit.log")); err != nil || strings.Contains(string(log), pin) || !strings.Contains(string(log), "CheckPIN") {
		t.Errorf("the audit has the PIN, or nothing of it, %v", err)
	}

	if err := c.DeletePrincipal(ctx, alice); err != nil {
		t.Error(err)
	}
	wantStatus(t, c.DeletePrincipal(ctx, alice), http.StatusNotFound, "alice")
	wantStatus(t, c.DeletePrincipal(ctx, root), http.StatusConflict, "always there")
	if got := fmt.Sprint(a.audited(t, "CreatePrincipal")); got != "[begun ok begun operation does not fit the key invalid parameter resource not found]" {
		t.Errorf("the audit has %s", got)
	}
	for _, row := range [][2]string{
		{admin.PrincipalsPath, `{"arm":"x"}`}, {admin.PrincipalsPath, `{} {}`}, {admin.AccessKeysPath, `[]`}, {admin.SimulatePath, `{"door":"SSH"}`},
		{admin.SimulatePath, `{"source_ip":"10.1.2"}`}, {admin.PrincipalsPath, strings.Repeat(" ", admin.MaxPrincipalBody+1)},
	} {
		if rec := a.as(0, http.MethodPost, row[0], row[1]); rec.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s %.40s: %d, %s", row[0], row[1], rec.Code, rec.Body)
		}
	}
}

// TestAccessKeys makes, rotates, disables and deletes, and looks where secrets are.
func TestAccessKeys(t *testing.T) {
	a := newAppliance(t)
	ctx := t.Context()
	c := a.client
	if _, err := c.CreatePrincipal(ctx, &admin.PrincipalRequest{ARN: plainUser}); err != nil {
		t.Fatal(err)
	}
	first, err := c.CreateAccessKey(ctx, plainUser)
	if err != nil {
		t.Fatal(err)
	}
	active := func(id string) bool {
		t.Helper()
		secret, _, _, active, err := a.server.svc.AccessKey(ctx, id)
		if err != nil || len(secret) < 30 {
			t.Fatal(err)
		}
		return active
	}
	if secret, who, _, _, err := a.server.svc.AccessKey(ctx, first.ID); err != nil || !bytes.Equal(secret, first.Secret) || who != plainUser || first.Principal != plainUser {
		t.Errorf("the first: %s, %v", who, err)
	}
	second, err := c.RotateAccessKey(ctx, first.ID, false)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(first.Secret, second.Secret) || !active(first.ID) || !active(second.ID) || !strings.Contains(second.Advice, "disable "+first.ID) {
		t.Errorf("rotated: %s, %q", second.ID, second.Advice)
	}
	_, err = c.RotateAccessKey(ctx, second.ID, true)
	wantStatus(t, err, http.StatusConflict, first.ID, "delete one")
	if err := c.DeleteAccessKey(ctx, first.ID); err != nil {
		t.Error(err)
	}
	third, err := c.RotateAccessKey(ctx, second.ID, true)
	if err != nil {
		t.Fatal(err)
	}
	if active(second.ID) || !active(third.ID) || !strings.Contains(third.Advice, "refused from now on") {
		t.Errorf("rotated: %q", third.Advice)
	}
	if err := c.SetAccessKeyActive(ctx, second.ID, true); err != nil || !active(second.ID) {
		t.Errorf("enabled again: %v", err)
	}
	if err := c.SetAccessKeyActive(ctx, second.ID, false); err != nil || active(second.ID) {
		t.Errorf("disabled: %v", err)
	}
	list, err := c.AccessKeys(ctx, plainUser)
	if err != nil || len(list.AccessKeys) != 2 || list.AccessKeys[0].Active == list.AccessKeys[1].Active {
		t.Errorf("list: %+v, %v", list, err)
	}
	for _, id := range []string{"", ".", "..", "a/b", "KWAKNONE"} {
		wantStatus(t, c.DeleteAccessKey(ctx, id), http.StatusNotFound)
		wantStatus(t, c.SetAccessKeyActive(ctx, id, true), http.StatusNotFound)
		_, err := c.RotateAccessKey(ctx, id, false)
		wantStatus(t, err, http.StatusNotFound)
	}

	// A secret is in no other answer, and not in the audit.
	log, err := os.ReadFile(filepath.Join(a.dir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	all := string(log)
	for _, path := range []string{admin.AccessKeysPath + "?principal=" + plainUser, admin.PrincipalPath + "?arn=" + plainUser, admin.PrincipalsPath, admin.StatusPath} {
		all += a.as(0, http.MethodGet, path, "").Body.String()
	}
	for _, k := range []*admin.NewAccessKey{first, second, third} {
		if strings.Contains(all, string(k.Secret)) {
			t.Errorf("the secret of %s is there again", k.ID)
		}
	}
}

// TestSecretAnswerIsWiped sees that nothing of the answer stays in its buffer.
func TestSecretAnswerIsWiped(t *testing.T) {
	made := &kms.NewAccessKey{ID: "KWAK1", Principal: plainUser, Secret: []byte("s3cret")}
	body, f := newAccessKey(made, "say so")
	if f != nil {
		t.Fatal(f)
	}
	text := body.(secretAnswer)
	k, err := admin.ParseNewAccessKey(text)
	if err != nil || string(k.Secret) != "s3cret" || k.ID != "KWAK1" || k.Advice != "say so" {
		t.Errorf("%+v, %v", k, err)
	}
	var whole struct{ ID, Secret string }
	if err := json.Unmarshal(text, &whole); err != nil || whole.Secret != "s3cret" {
		t.Errorf("it is no JSON: %v", err)
	}
	text.ServeHTTP(discard{}, nil)
	if len(bytes.Trim(text, "\x00")) > 0 || len(bytes.Trim(made.Secret, "\x00")) > 0 {
		t.Error("it is not wiped")
	}
	for _, bad := range []string{"", "{}", `{"id":"a","secret":""}`, `{"id":"a","secret":"a\"b"}`, `{"id":"","secret":"x"}`, `{"id":"a","secret":"x`, `{"id":1,"secret":"x"}`} {
		if _, err := admin.ParseNewAccessKey([]byte(bad)); err == nil {
			t.Errorf("%q is taken for a new access key", bad)
		}
	}
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

// TestSimulateKey asks about a key, and tries a policy for it.
func TestSimulateKey(t *testing.T) {
	a := newAppliance(t)
	ctx := t.Context()
	api := &kmsclient.Client{Socket: filepath.Join(a.dir, devSocket)}
	defer api.CloseIdle()
	var made kmswire.CreateKeyResponse
	if err := kmsclient.Call(ctx, api, "CreateKey", &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software"}, &made); err != nil {
		t.Fatal(err)
	}
	ask := func(q admin.Simulation) *admin.Simulated {
		t.Helper()
		q.Principal, q.Action, q.Key = plainUser, "kms:Encrypt", made.KeyMetadata.KeyID
		d, err := a.client.Simulate(context.WithoutCancel(ctx), &q)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if d := ask(admin.Simulation{}); !d.Allowed {
		t.Errorf("under the default policy: %+v", d)
	}
	uid := uint32(7)
	for _, row := range []struct {
		condition string
		q         admin.Simulation
	}{
		{`"NumericEquals":{"keyward:Uid":"7"}`, admin.Simulation{UID: &uid}},
		{`"StringEquals":{"keyward:Unit":"a.service"}`, admin.Simulation{Unit: "a.service"}},
		{`"StringEquals":{"keyward:Executable":"/bin/a"}`, admin.Simulation{Executable: "/bin/a"}},
		{`"StringEquals":{"keyward:Door":"PKCS11"}`, admin.Simulation{Door: "PKCS11"}},
		{`"StringEquals":{"acs:SourceVpc":"vpc-1"}`, admin.Simulation{SourceVPC: "vpc-1"}},
	} {
		q := row.q
		q.Policy = `{"Version":"1","Statement":[{"Sid":"s","Effect":"Allow","Principal":{"RAM":["` + plainUser + `"]},"Action":["kms:Encrypt"],"Resource":["*"],"Condition":{` + row.condition + `}}]}`
		if d := ask(q); !d.Allowed {
			t.Errorf("%s: %+v", row.condition, d)
		}
		d := ask(admin.Simulation{Policy: q.Policy})
		if st := d.Policies[0].Statements[0]; d.Allowed || st.Matched || st.Missed != "Condition" || st.Sid != "s" || st.Why == "" {
			t.Errorf("%s without it: %+v", row.condition, d)
		}
	}
}
