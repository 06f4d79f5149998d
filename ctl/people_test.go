package ctl

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/kms/policy"
)

const (
	fakeAccount = "1000000000000001"
	fakeSecret  = "s3cr3ts3cr3ts3cr3t"
	fakeAlice   = "acs:ram::" + fakeAccount + ":user/alice"
)

// people answers the calls about principals. It says whether it was one.
func (d *fakeDaemon) people(w http.ResponseWriter, r *http.Request) bool {
	if !strings.HasPrefix(r.URL.Path, "/v1/") {
		return false // a batch's body does not end before its answer begins
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	q := r.URL.Query()
	find := func(arn string) *admin.Principal {
		for _, p := range d.principals {
			if p.ARN == arn {
				return p
			}
		}
		return &admin.Principal{ARN: arn, Account: fakeAccount, Policies: []string{}, AccessKeys: []string{}}
	}
	secret := func(arn, advice string) {
		p := find(arn)
		id := "KWAK" + string(rune('1'+len(p.AccessKeys)))
		p.AccessKeys = append(p.AccessKeys, id)
		text, err := (&admin.NewAccessKey{ID: id, Principal: arn, Advice: advice, Secret: []byte(fakeSecret)}).Text()
		if err != nil {
			panic(err)
		}
		w.Write(text)
	}
	owner := func(id string) *admin.Principal {
		for _, p := range d.principals {
			if slices.Contains(p.AccessKeys, id) {
				return p
			}
		}
		return nil
	}
	var answer any = struct{}{}
	switch r.Method + " " + r.URL.Path {
	case "GET " + admin.AccountsPath:
		answer = admin.Accounts{Accounts: []string{fakeAccount}}
	case "GET " + admin.PrincipalsPath:
		list := admin.Principals{Principals: []admin.Principal{}, Total: len(d.principals)}
		if q.Get("offset") == "0" || q.Get("offset") == "1" { // two pages
			for i, p := range d.principals {
				if (i == 0) == (q.Get("offset") == "0") {
					list.Principals = append(list.Principals, *p)
				}
			}
		}
		answer = list
	case "POST " + admin.PrincipalsPath:
		var req admin.PrincipalRequest
		if err := json.Unmarshal(body, &req); err != nil {
			panic(err)
		}
		p := &admin.Principal{ARN: req.ARN, Account: fakeAccount, Description: req.Description, Recorded: true}
		d.principals = append(d.principals, p)
		answer = p
	case "GET " + admin.PrincipalPath:
		answer = find(q.Get("arn"))
	case "DELETE " + admin.PrincipalPath:
		d.principals = slices.DeleteFunc(d.principals, func(p *admin.Principal) bool { return p.ARN == q.Get("arn") })
	case "GET " + admin.PoliciesPath:
		list := admin.Policies{}
		for _, name := range find(q.Get("arn")).Policies {
			list.Policies = append(list.Policies, admin.IdentityPolicy{Name: name, Document: json.RawMessage(d.documents[q.Get("arn")+" "+name])})
		}
		answer = list
	case "PUT " + admin.PoliciesPath:
		p := find(q.Get("arn"))
		p.Policies = append(p.Policies, q.Get("name"))
		d.documents[p.ARN+" "+q.Get("name")] = string(body)
	case "DELETE " + admin.PoliciesPath:
		p := find(q.Get("arn"))
		p.Policies = slices.DeleteFunc(p.Policies, func(name string) bool { return name == q.Get("name") })
	case "PUT " + admin.PINPath:
		find(q.Get("arn")).PIN, d.pin = &admin.PIN{}, string(body)
	case "DELETE " + admin.PINPath:
		find(q.Get("arn")).PIN = nil
	case "GET " + admin.AccessKeysPath:
		list := admin.AccessKeys{}
		for _, id := range find(q.Get("principal")).AccessKeys {
			list.AccessKeys = append(list.AccessKeys, admin.AccessKey{ID: id, Principal: q.Get("principal"), Active: !d.disabled[id]})
		}
		answer = list
	case "POST " + admin.AccessKeysPath:
		var req admin.AccessKeyRequest
		if err := json.Unmarshal(body, &req); err != nil {
			panic(err)
		}
		secret(req.Principal, "")
		return true
	case "POST " + admin.SimulatePath:
		d.asked = admin.Simulation{}
		if err := json.Unmarshal(body, &d.asked); err != nil {
			panic(err)
		}
		answer = d.simulated
	default:
		rest, ok := strings.CutPrefix(r.URL.Path, admin.AccessKeysPath+"/")
		if !ok {
			return false
		}
		id, verb, _ := strings.Cut(rest, "/")
		p := owner(id)
		if p == nil {
			w.WriteHeader(http.StatusNotFound)
			json.NewEncoder(w).Encode(admin.Failure{Message: "there is no access key " + id})
			return true
		}
		switch verb {
		case "enable", "disable":
			d.disabled[id] = verb == "disable"
		case "rotate":
			d.disabled[id] = strings.Contains(string(body), "true")
			secret(p.ARN, "give every client the new one")
			return true
		default:
			p.AccessKeys = slices.DeleteFunc(p.AccessKeys, func(k string) bool { return k == id })
		}
	}
	json.NewEncoder(w).Encode(answer)
	return true
}

func TestPrincipalCommands(t *testing.T) {
	d := startFake(t)
	if out, _ := d.must(t, "account", "list"); out != "ACCOUNT\n"+fakeAccount+"\n" {
		t.Errorf("accounts: %q", out)
	}
	out, talk := d.must(t, "principal", "create", "user/alice", "--description", "Alice")
	if out != fakeAlice+"\n" || !strings.Contains(talk, "access-key create user/alice") {
		t.Errorf("create: %q, %q", out, talk)
	}
	d.must(t, "principal", "create", "acs:ram::1000000000000002:role/ops")
	out, _ = d.must(t, "principal", "list")
	if !strings.Contains(out, fakeAlice) || !strings.Contains(out, "1000000000000002:role/ops") {
		t.Errorf("list, of two pages: %s", out)
	}
	d.must(t, "policy", "attach", "user/alice", "--preset", "create-keys")
	if out, _ := d.must(t, "principal", "show", "user/alice"); !strings.Contains(out, "create-keys") || !strings.Contains(out, "no [[peer]] row") {
		t.Errorf("show: %s", out)
	}
	if code, _, talk := d.ctl(t, "", "principal", "show", "user/bob"); code != exitNotFound || !strings.Contains(talk, "user/bob") {
		t.Errorf("show nobody: %d, %q", code, talk)
	}
	if code, _, talk := d.ctl(t, "", "principal", "delete", "user/alice"); code != exitUsage || !strings.Contains(talk, "identity policies (1) and access keys (0), which go with it") {
		t.Errorf("delete without --yes: %d, %q", code, talk)
	}
	for args, want := range map[string]string{
		"principal show":                             "user/alice\n",
		"principal list --account":                   fakeAccount,
		"policy detach user/alice":                   "create-keys\n",
		"policy attach user/alice --name n --preset": "read-only\n",
		"policy simulate --action":                   "kms:ReEncryptTo\n",
		"policy simulate --door":                     "XKI\n",
		"key create --users":                         "user/alice\n",
	} {
		if out, _ := d.must(t, append(append([]string{"__complete"}, strings.Fields(args)...), "")...); !strings.Contains(out, want) {
			t.Errorf("completion of %s: %q", args, out)
		}
	}
	d.must(t, "principal", "delete", "user/alice", "--yes")
	if len(d.principals) != 1 {
		t.Errorf("%d principals are left", len(d.principals))
	}
}

func TestAccessKeyCommands(t *testing.T) {
	d := startFake(t)
	d.must(t, "principal", "create", "user/alice")
	out, talk := d.must(t, "access-key", "create", "user/alice")
	if out != "ID      KWAK1\nSecret  "+fakeSecret+"\n" || !strings.Contains(talk, "only time") || strings.Contains(talk, fakeSecret) {
		t.Errorf("create: %q, %q", out, talk)
	}
	file := filepath.Join(t.TempDir(), "alice.json")
	out, talk = d.must(t, "access-key", "create", "user/alice", "--out", file)
	if out != "KWAK2\n" || strings.Contains(talk, fakeSecret) {
		t.Errorf("create --out: %q, %q", out, talk)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var kept struct{ ID, Principal, Secret string }
	if err := json.Unmarshal(text, &kept); err != nil || info.Mode().Perm() != 0o600 || kept.ID != "KWAK2" || kept.Secret != fakeSecret || kept.Principal != fakeAlice {
		t.Errorf("the file: %v, %+v, %v", info.Mode(), kept, err)
	}
	// A file that is there is not replaced, and no access key is made for it.
	if code, _, talk := d.ctl(t, "", "access-key", "create", "user/alice", "--out", file); code != exitFailure || !strings.Contains(talk, "already there") || len(d.principals[0].AccessKeys) != 2 {
		t.Errorf("a file that is there: %d, %q", code, talk)
	}
	out, _ = d.must(t, "access-key", "list", "user/alice")
	if !strings.Contains(out, "KWAK1  enabled") || strings.Contains(out, fakeSecret) {
		t.Errorf("list: %s", out)
	}
	d.must(t, "access-key", "disable", "KWAK1", "--yes")
	if out, _ = d.must(t, "access-key", "list", "user/alice"); !strings.Contains(out, "KWAK1  disabled") {
		t.Errorf("disabled: %s", out)
	}
	d.must(t, "access-key", "enable", "KWAK1")
	d.must(t, "access-key", "delete", "KWAK2", "--yes")
	out, talk = d.must(t, "-o", "json", "access-key", "rotate", "KWAK1", "--disable-old", "--yes")
	if err := json.Unmarshal([]byte(out), &kept); err != nil || kept.Secret != fakeSecret || !strings.Contains(talk, "give every client") || !d.disabled["KWAK1"] {
		t.Errorf("rotate: %s, %q, %v", out, talk, err)
	}
	if code, _, talk := d.ctl(t, "", "access-key", "delete", "KWAK9", "--yes"); code != exitNotFound || !strings.Contains(talk, "KWAK9") {
		t.Errorf("none: %d, %q", code, talk)
	}
	if out, _ := d.must(t, "__complete", "access-key", "rotate", ""); !strings.Contains(out, "KWAK1\n") {
		t.Errorf("completion: %q", out)
	}
}

func TestPolicyCommands(t *testing.T) {
	d := startFake(t)
	owner := policy.KeyOwner{Account: fakeAccount}
	allowed := func(key, who, action string) bool {
		t.Helper()
		doc, err := policy.ParseKey([]byte(d.policies[key]), owner)
		if err != nil {
			t.Fatal(err)
		}
		p, err := policy.ParsePrincipal("acs:ram::" + fakeAccount + ":" + who)
		if err != nil {
			t.Fatal(err)
		}
		return policy.Decide(owner, doc, nil, &policy.Request{Principal: p, Action: policy.MustAction(action)})
	}
	const other = "acs:ram::1000000000000002:user/eve"
	_, talk := d.must(t, "key", "create", "--administrators", "role/ops", "--users", "user/app,user/batch", "--signers", "user/build", "--other-account-users", other, "--exclusive")
	if strings.Contains(talk, "note:") {
		t.Errorf("exclusive: %q", talk)
	}
	for _, row := range []struct {
		who, action string
		want        bool
	}{
		{"role/ops", "kms:DisableKey", true}, {"role/ops", "kms:Encrypt", false}, {"user/app", "kms:Encrypt", true}, {"user/batch", "kms:Decrypt", true},
		{"user/app", "kms:DisableKey", false}, {"user/build", "kms:AsymmetricSign", true}, {"user/build", "kms:Decrypt", false}, {"user/none", "kms:DescribeKey", false},
		{"root", "kms:Encrypt", true},
	} {
		if got := allowed("key-1", row.who, row.action); got != row.want {
			t.Errorf("%s %s: %t", row.who, row.action, got)
		}
	}
	if !strings.Contains(d.policies["key-1"], other) {
		t.Errorf("the user of another account is not in %s", d.policies["key-1"])
	}
	if _, talk = d.must(t, "key", "create", "--users", "user/app"); !strings.Contains(talk, "--exclusive takes it out") || !allowed("key-2", "user/none", "kms:Encrypt") {
		t.Errorf("not exclusive: %q", talk)
	}
	if _, talk = d.must(t, "key", "create"); strings.Contains(talk, "note:") || d.policies["key-3"] != "" {
		t.Errorf("no roles: %q, %s", talk, d.policies["key-3"])
	}

	file := filepath.Join(t.TempDir(), "p.json")
	out, _ := d.must(t, "policy", "show", "key-1")
	if err := os.WriteFile(file, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	d.must(t, "policy", "set", "key-3", "--file", file)
	if allowed("key-3", "user/none", "kms:Encrypt") || !allowed("key-3", "user/app", "kms:Encrypt") {
		t.Errorf("a policy that was shown and set is %s", d.policies["key-3"])
	}
	d.must(t, "policy", "reset", "key-3", "--yes")
	if d.policies["key-3"] != string(policy.Default(owner)) {
		t.Errorf("reset: %s", d.policies["key-3"])
	}
	if _, talk := d.must(t, "policy", "set", "key-3", "--signers", "user/build"); !strings.Contains(talk, "note:") || !strings.Contains(d.policies["key-3"], "AsymmetricSign") {
		t.Errorf("roles: %q, %s", talk, d.policies["key-3"])
	}

	// In a shared instance the owner of the instance owns the key too, and the policies that are made here say so.
	d.must(t, "key", "create", "--instance", "kst-theirs", "--users", "user/app", "--exclusive")
	both := policy.KeyOwner{Account: fakeAccount, CoOwners: []string{"2000000000000002"}}
	if got := d.policies["key-4"]; !strings.Contains(got, "acs:ram::2000000000000002:root") {
		t.Errorf("roles of a new key in a shared instance: %s", got)
	}
	d.must(t, "policy", "set", "key-4", "--administrators", "acs:ram::2000000000000002:role/ops")
	if got := d.policies["key-4"]; !strings.Contains(got, "acs:ram::2000000000000002:*") || !strings.Contains(got, "acs:ram::2000000000000002:role/ops") {
		t.Errorf("roles in a shared instance: %s", got)
	}
	if code, _, talk := d.ctl(t, "", "policy", "reset", "key-4"); code != exitUsage || !strings.Contains(talk, "Every principal of accounts "+fakeAccount+" and 2000000000000002 may") {
		t.Errorf("reset in a shared instance, unasked: %d, %q", code, talk)
	}
	d.must(t, "policy", "reset", "key-4", "--yes")
	if d.policies["key-4"] != string(policy.Default(both)) {
		t.Errorf("reset in a shared instance: %s", d.policies["key-4"])
	}

	// What is wrong is told with its place, and nothing is sent.
	d.calls = nil
	bad := `{"Version":"1","Statement":[{"Effect":"Allow","Principal":{"RAM":["acs:ram::` + fakeAccount + `:*"]},"Action":["kms:*","Encrypt"],"Resource":"*"}]}`
	if code, _, talk := d.ctl(t, bad, "policy", "set", "key-1", "--file", "-"); code != exitFailure || !strings.Contains(talk, "stdin: Statement[0].Action[1]: ") {
		t.Errorf("a bad document: %d, %q", code, talk)
	}
	if code, _, talk := d.ctl(t, bad, "policy", "attach", "user/alice", "--name", "n", "--file", "-"); code != exitFailure || !strings.Contains(talk, "Statement[0].Principal: ") {
		t.Errorf("a key policy for an identity: %d, %q", code, talk)
	}
	for _, row := range [][]string{
		{"--users", other, "--users[0]", "--other-account-users"},
		{"--other-account-users", "user/app", "--other-account-users[0]", "one of --users"},
	} {
		if code, _, talk := d.ctl(t, "", "policy", "set", "key-1", row[0], row[1]); code != exitUsage || !strings.Contains(talk, row[2]) || !strings.Contains(talk, row[3]) {
			t.Errorf("%v: %d, %q", row, code, talk)
		}
	}
	if slices.Contains(d.calls, "SetKeyPolicy") {
		t.Error("a policy was set")
	}

	d.must(t, "principal", "create", "user/alice")
	for _, preset := range policy.PresetNames() {
		d.must(t, "policy", "attach", "user/alice", "--preset", preset)
		if _, err := policy.ParseIdentity([]byte(d.documents[fakeAlice+" "+preset])); err != nil {
			t.Errorf("%s: %v", preset, err)
		}
	}
	if out, _ := d.must(t, "policy", "list", "user/alice"); !strings.Contains(out, "crypto") || !strings.Contains(out, `"kms:*"`) {
		t.Errorf("list: %s", out)
	}
	d.must(t, "policy", "detach", "user/alice", "crypto")
	if slices.Contains(d.principals[0].Policies, "crypto") {
		t.Error("it is still attached")
	}
}

func TestPolicySimulate(t *testing.T) {
	d := startFake(t)
	d.simulated = admin.Simulated{Allowed: true, Reason: "user/app may do it: so it is", Policies: []admin.PolicyTrace{
		{Policy: "key policy", Effect: "Allow", Statements: []admin.StatementTrace{{Sid: "s", Effect: "Allow", Matched: true}, {Effect: "Deny", Missed: "Action", Why: "kms:Encrypt is not among kms:Decrypt"}}},
	}}
	args := strings.Fields("policy simulate --principal user/app --action kms:Encrypt --key alias/a --source-ip 192.0.2.7 --time 2026-01-31T18:00:00Z --unit a.service --uid 0 --executable /bin/a --door pkcs11 --algorithm RSAES_OAEP_SHA_256")
	out, _ := d.must(t, args...)
	if !strings.HasPrefix(out, "ALLOWED: user/app may do it") || !strings.Contains(out, "0 s        Allow   yes") || !strings.Contains(out, "Action: kms:Encrypt is not among") {
		t.Errorf("%s", out)
	}
	q := d.asked
	if q.Principal != "acs:ram::"+fakeAccount+":user/app" || q.Key != "alias/a" || q.SourceIP.String() != "192.0.2.7" || q.Time.IsZero() || q.Unit != "a.service" ||
		q.UID == nil || *q.UID != 0 || q.Executable != "/bin/a" || q.Door != "PKCS11" || q.Algorithm != "RSAES_OAEP_SHA_256" {
		t.Errorf("asked: %+v", q)
	}
	d.simulated.Allowed = false
	code, out, talk := d.ctl(t, "", "-o", "json", "policy", "simulate", "--principal", "user/app", "--action", "kms:CreateKey")
	if code != exitDenied || talk != "" || !strings.Contains(out, `"allowed": false`) || d.asked.UID != nil {
		t.Errorf("denied: %d, %q, %s", code, talk, out)
	}
	text := string(policy.Default(policy.KeyOwner{Account: fakeAccount}))
	if code, _, _ := d.ctl(t, text, "policy", "simulate", "--principal", "user/app", "--action", "kms:Encrypt", "--key", "k", "--file", "-"); code != exitDenied || d.asked.Policy != text {
		t.Errorf("with a policy: %d, %q", code, d.asked.Policy)
	}
}
