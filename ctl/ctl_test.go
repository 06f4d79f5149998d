package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/kms/kmsapi"
	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

func TestExitCodes(t *testing.T) {
	dial := func(errno syscall.Errno) error { return &kmsclient.UnreachableError{Socket: "/s", Err: errno} }
	for _, row := range []struct {
		err  error
		code int
		next string // part of what to do next
	}{
		{errors.New("x"), 1, ""},
		{usagef("x"), 2, ""},
		{&kmsclient.Error{Code: "Forbidden.NoPermission"}, 3, "[[peer]]"},
		{&kmsclient.Error{Code: "AccessDeniedError"}, 3, ""},
		{fmt.Errorf("k: %w", &kmsclient.Error{Code: "Forbidden.KeyNotFound"}), 4, "key list"},
		{&kmsclient.Error{Code: "Forbidden.KeyVersionNotFound"}, 4, "key versions"},
		{&kmsclient.Error{Code: "Forbidden.AliasNotFound"}, 4, "alias list"},
		{&kmsclient.Error{Code: "Rejected.Disabled"}, 5, "key enable"},
		{&kmsclient.Error{Code: "Rejected.PendingDeletion"}, 5, ""},
		{&kmsclient.Error{Code: "Rejected.PendingImport"}, 5, ""},
		{&kmsclient.Error{Code: "Rejected.StateModifiedFailed"}, 5, ""},
		{&kmsclient.Error{Code: "Rejected.Unavailable"}, 6, "keywardctl status"},
		{&kmsclient.Error{Code: "ServiceUnavailableTemporary"}, 6, "status"},
		{&kmsclient.Error{Code: "Throttling"}, 75, "again"},
		{&kmsclient.Error{Code: "InvalidParameter"}, 1, ""},
		{&kmsclient.Error{Code: "Something.New"}, 1, ""},
		{&kmsclient.Error{Code: "DryRunOperationError"}, 0, "would have worked"},
		{&admin.Error{Status: http.StatusForbidden}, 3, ""},
		{&admin.Error{Status: http.StatusNotFound}, 4, ""},
		{&admin.Error{Status: http.StatusServiceUnavailable}, 75, ""},
		{&admin.Error{Status: http.StatusInternalServerError}, 1, ""},
		{dial(syscall.ENOENT), 75, "start it"},
		{dial(syscall.ECONNREFUSED), 75, "start it"},
		{dial(syscall.EACCES), 3, "group"},
		{context.DeadlineExceeded, 1, "--timeout"},
		{fs.ErrNotExist, 1, ""}, // a file, not the socket
		{hint(&kmsclient.Error{Code: "Rejected.Disabled"}, "do that"), 5, "do that"},
	} {
		code, next := verdict(row.err)
		if code != row.code || !strings.Contains(next, row.next) {
			t.Errorf("%v: %d, %q; want %d, %q", row.err, code, next, row.code, row.next)
		}
	}
}

// TestEveryCodeOfTheDoor holds the table complete: each code that the API door can answer has a row here.
func TestEveryCodeOfTheDoor(t *testing.T) {
	codes := kmsapi.ErrorCodes()
	if len(codes) < 30 {
		t.Errorf("the door has only %d codes", len(codes))
	}
	for _, code := range codes {
		if _, ok := apiCodes[code]; !ok {
			t.Errorf("the door can answer %q, and there is no exit code for it", code)
		}
	}
}

// TestEveryActionIsListed holds api list complete: each request of kmswire has a row.
func TestEveryActionIsListed(t *testing.T) {
	files, err := filepath.Glob("../kms/kmswire/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	known := map[string]bool{}
	for _, req := range actions {
		known[strings.TrimPrefix(fmt.Sprintf("%T", req), "*kmswire.")] = true
	}
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for name := range file.Scope.Objects {
			if strings.HasSuffix(name, "Request") && !known[name] {
				t.Errorf("%s is not in actions", name)
			}
		}
	}
	for action, req := range actions {
		if want := strings.Replace(action, "KeyId", "KeyID", 1) + "Request"; !known[want] {
			t.Errorf("action %s has a %T", action, req)
		}
	}
}

// TestEveryCommandHelps holds that each command says what it does and shows an example that it would take.
func TestEveryCommandHelps(t *testing.T) {
	c := &cli{}
	root := c.root()
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Name() == "help" || cmd.Name() == "__complete" {
			return
		}
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("%s has no short text or no example", cmd.CommandPath())
		}
		for _, line := range strings.Split(cmd.Example, "\n") {
			_, rest, ok := strings.Cut(line, "keywardctl ")
			if !ok {
				continue
			}
			var words []string
			for _, w := range strings.Fields(rest) {
				if strings.HasPrefix(w, "-") && w != "-" || strings.ContainsAny(w, "|<>)") {
					break
				}
				words = append(words, w)
			}
			found, _, err := root.Find(words)
			if err != nil || !found.HasParent() {
				t.Errorf("%s: the example %q names no command: %v", cmd.CommandPath(), line, err)
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
	for _, e := range exitCodes {
		if !strings.Contains(root.Long, fmt.Sprintf("%d %s", e.code, e.means)) {
			t.Errorf("the help does not tell exit code %d", e.code)
		}
	}
}

func TestUsage(t *testing.T) {
	d := startFake(t)
	for _, row := range []struct {
		args string
		want string
	}{
		{"", "Usage:"},
		{"key", "Usage:"},
		{"kee", `there is no command "keywardctl kee"; did you mean "key"?`},
		{"key lst", `did you mean "list" or "csr"?`},
		{"key describe", "KEY is missing"},
		{"key describe a b", `"b" is too much`},
		{"key create --spek x", "unknown flag: --spek"},
		{"key create extra", "takes no arguments"},
		{"key create --tag nonsense", "--tag takes NAME=VALUE"},
		{"key update k", "--description is missing"},
		{"-o xml key list", "table or json"},
		{"--timeout 0s key list", "--timeout"},
		{"--timeout x key list", "invalid argument"},
		{"encrypt", "--key is missing"},
		{"sign", "--key is missing"},
		{"encrypt --key k --context a=1 --context a=2", "given twice"},
		{"encrypt --key k --context keyward:purpose=x", "keyward's own"},
		{"encrypt --key k --binary", "go with --direct"},
		{"sign --key k --format cms", "go together"},
		{"batch encrypt", "--key is missing"},
		{"batch encrypt --key k --format csv", "ndjson or octets"},
		{"completion tcsh", `no completion for "tcsh"`},
		{"api", "ACTION is missing"},
		{"api Encrypt --KeyId", "--KeyId has no value"},
		{"api Encrypt --KeyId a --KeyId b", "given twice"},
		{"api Encrypt --keyid a", "begin with a capital"},
		{"api Encrypt --Action x", "set by keywardctl"},
		{"bench --mode x", "--mode"},
		{"bench --row nothing-like-this", "no row"},
		{"bench --clients 0", "--clients"},
		{"bench --fault x.so", "MODULE:ORDER"},
		{"bench --fault :serialise", "MODULE:ORDER"},
		{"bench --fault x.so:crush=C_Sign", "crash, exit, hang, fail, delay, slow, sessions, serialise"},
		{"bench --fault x.so:crash", "crash=FUNCTION is wanted"},
		{"bench --fault x.so:crash=sign", "C_Sign,"},
		{"bench --fault x.so:crash=C_Sign:1", "crash=FUNCTION is wanted"},
		{"bench --fault x.so:fail=C_Sign", "fail=FUNCTION:CODE is wanted"},
		{"bench --fault x.so:fail=C_Sign:DEVICE_EROR", "CKR_DEVICE_ERROR"},
		{"bench --fault x.so:delay=C_Sign:2", "write it like 2ms"},
		{"bench --fault x.so:slow=C_Sign:1", "write it like 100"},
		{"bench --fault x.so:sessions=0", "of 1 and more"},
		{"bench --fault x.so:serialise=on", "takes nothing more"},
		{"bench --fault x.so:hang=C_Sign --mode latency", "throughput mode only"},
		{"bench --fault x.so:hang=C_Sign --fault x.so:crash=C_Sign", "one another's place"},
		{"bench --fault-every 99ms", "--fault-every"},
		{"policy set k", "--file or a role is missing"},
		{"policy set k --file a --users user/b --yes", "give either"},
		{"policy attach user/a", "--file or --preset is missing"},
		{"policy attach user/a --file a --preset full", "drop one"},
		{"policy attach user/a --preset fool", "create-keys"},
		{"policy attach user/a --file a", "--name is missing"},
		{"policy detach user/a", "NAME is missing"},
		{"policy simulate --action kms:Encrypt", "--principal is missing"},
		{"policy simulate --principal user/a", "--action is missing"},
		{"policy simulate --principal user/a --action kms:Encrypt --source-ip 10.1", "--source-ip"},
		{"policy simulate --principal user/a --action kms:Encrypt --time now", "--time"},
		{"policy simulate --principal user/a --action kms:Encrypt --file x", "--key"},
		{"principal create", "PRINCIPAL is missing"},
		{"principal create alice", "write user/NAME"},
		{"principal show acs:ram::1:user/a", "16 digits"},
		{"access-key delete KWAK1", "--yes"},
		{"access-key disable KWAK1", "--yes"},
		{"access-key rotate KWAK1 --disable-old", "--yes"},
		{"key create --users user/a --policy f", "give either"},
		{"key create --import - --policy -", "both read stdin"},
		{"key disable k", "--yes"},
		{"alias delete k", "--yes"},
		{"key delete k", "--days"},
		{"key delete k --days 7", "--yes"},
		{"key delete k --days 6 --yes", "--days is 7 to 366, not 6"},
		{"key delete k --days 367 --yes", "--days is 7 to 366, not 367"},
		{"key delete k --days x", "\"x\" for \"--days\" flag\n"},
		{"key delete k --days 99999999999999999999", "flag: it is out of range\n"},
		{"key list --limit -1", "--limit is a number of keys"},
		{"key create --rotate-every 90d --no-rotation", "exclude"},
		{"key create --rotate-every 90", "like 90d"},
		{"key create --rotate-every d", "like 90d"},
		{"key create --rotate-every -9d", "like 90d"},
		{"key rotation k --every 3mo", "like 90d"},
		{"key rotation k --every", "needs an argument"},
		{"key rotation k --every 9d --off", "exclude"},
		{"clock confirm", "--yes"},
		{"clock confirm now", "takes no arguments"},
	} {
		code, stdout, stderr := d.ctl(t, "", strings.Fields(row.args)...)
		if code != exitUsage || !strings.Contains(stderr, row.want) || stdout != "" {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", row.args, code, stdout, stderr)
		}
	}
	if len(d.calls) > 0 {
		t.Errorf("the daemon was called: %v", d.calls)
	}
}

func TestNoDaemon(t *testing.T) {
	d := &fakeDaemon{socket: filepath.Join(t.TempDir(), "none")}
	for _, args := range [][]string{{"key", "list"}, {"status"}, {"hsm", "list"}, {"api", "ListKeys"}, {"batch", "encrypt", "--key", "k"}} {
		code, stdout, stderr := d.ctl(t, "", args...)
		want := "cannot connect to " + d.socket + ": no such file or directory\n  next: is the daemon running?"
		if code != exitTryAgain || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%v: exit code %d, %q", args, code, stderr)
		}
	}
	os.WriteFile(d.socket, nil, 0o600)
	if code, _, stderr := d.ctl(t, "", "key", "list"); code != exitTryAgain || !strings.Contains(stderr, "connection refused") {
		t.Errorf("a dead socket: exit code %d, %q", code, stderr)
	}
}

func TestKeys(t *testing.T) {
	d := startFake(t)
	out, talk := d.must(t, "key", "create", "--alias", "app/db", "--tag", "team=a", "--tag", "env=b=c", "--description", "the database")
	if out != "key-1\n" || !strings.Contains(talk, "keywardctl encrypt --key alias/app/db FILE") {
		t.Errorf("create: %q, %q", out, talk)
	}
	out, talk = d.must(t, "-o", "json", "key", "create", "--spec", "ec_p256", "--instance", "kst-hardware", "--storage", "hsminternal", "--usage", "sign")
	var created kmswire.CreateKeyResponse
	if err := json.Unmarshal([]byte(out), &created); err != nil || created.KeyMetadata.KeySpec != kmswire.ECP256 ||
		created.KeyMetadata.KeyStorageMechanism != kmswire.HsmInternal || created.KeyMetadata.DKMSInstanceID != "kst-hardware" {
		t.Errorf("create as JSON: %v %s", err, out)
	}
	if !strings.Contains(talk, "keywardctl sign --key key-2 FILE") {
		t.Errorf("create: %q", talk)
	}
	if _, talk = d.must(t, "-q", "key", "create"); talk != "" {
		t.Errorf("--quiet talks: %q", talk)
	}

	out, _ = d.must(t, "key", "list")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "KEY") || !strings.Contains(lines[1], "alias/app/db") || !strings.Contains(lines[2], "EC_P256") {
		t.Errorf("list:\n%s", out)
	}
	var listed []keyRow
	out, _ = d.must(t, "key", "list", "-o", "json")
	if err := json.Unmarshal([]byte(out), &listed); err != nil || len(listed) != 3 || listed[0].Aliases[0] != "alias/app/db" {
		t.Errorf("list as JSON: %v\n%s", err, out)
	}
	for args, want := range map[string]string{"--ids": "key-1\nkey-2\nkey-3\n", "--ids --limit 2": "key-1\nkey-2\n"} {
		if out, _ = d.must(t, append([]string{"key", "list"}, strings.Fields(args)...)...); out != want {
			t.Errorf("list %s: %q", args, out)
		}
	}
	if out, _ = d.must(t, "key", "list", "--ids", "-o", "json"); !json.Valid([]byte(out)) || !strings.Contains(out, `"key-3"`) {
		t.Errorf("ids as JSON: %s", out)
	}

	out, _ = d.must(t, "key", "describe", "alias/app/db")
	for _, want := range []string{"key-1", "the database", "team=a env=b=c", "alias/app/db", "Aliyun_AES_256"} {
		if !strings.Contains(out, want) {
			t.Errorf("describe lacks %q:\n%s", want, out)
		}
	}
	// Actions that take no alias get the id of the key behind it.
	d.must(t, "key", "disable", "alias/app/db", "--yes")
	if code, _, stderr := d.ctl(t, "x", "encrypt", "--direct", "--key", "alias/app/db"); code != exitState || !strings.Contains(stderr, "key enable") {
		t.Errorf("a disabled key: %d, %q", code, stderr)
	}
	d.must(t, "key", "enable", "alias/app/db")
	d.must(t, "key", "update", "alias/app/db", "--description", "")
	if d.keys[0].KeyState != kmswire.Enabled || d.keys[0].Description != "" {
		t.Errorf("%+v", d.keys[0].KeyMetadata)
	}
	if out, _ = d.must(t, "key", "rotate", "alias/app/db"); out != "key-1-v2\n" {
		t.Errorf("rotate: %q", out)
	}
	out, _ = d.must(t, "key", "versions", "alias/app/db")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); len(lines) != 3 || !strings.HasSuffix(lines[1], "-") || !strings.HasSuffix(lines[2], "yes") {
		t.Errorf("versions:\n%s", out)
	}
	if out, _ = d.must(t, "key", "public-key", "key-2"); !strings.HasPrefix(out, "-----BEGIN PUBLIC KEY-----") {
		t.Errorf("public-key: %q", out)
	}
	if code, _, stderr := d.ctl(t, "", "key", "describe", "nothing"); code != exitNotFound || !strings.Contains(stderr, "nothing: The specified Key is not found (Forbidden.KeyNotFound)") {
		t.Errorf("no such key: %d, %q", code, stderr)
	}
}

func TestLongList(t *testing.T) {
	d := startFake(t)
	for i := range 250 {
		d.keys = append(d.keys, &fakeKey{KeyMetadata: kmswire.KeyMetadata{KeyID: fmt.Sprint("key-", i+1)}})
	}
	out, _ := d.must(t, "key", "list", "--ids")
	if lines := strings.Fields(out); len(lines) != 250 || lines[249] != "key-250" {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
}

func TestAliases(t *testing.T) {
	d := startFake(t)
	d.must(t, "key", "create")
	d.must(t, "key", "create")
	d.must(t, "alias", "create", "app", "key-1")
	d.must(t, "alias", "create", "alias/other", "alias/app")
	d.must(t, "alias", "move", "app", "key-2")
	if d.aliases["alias/app"] != "key-2" || d.aliases["alias/other"] != "key-1" {
		t.Errorf("%v", d.aliases)
	}
	if code, _, stderr := d.ctl(t, "", "alias", "create", "app", "key-1"); code != exitFailure || !strings.Contains(stderr, "alias move") {
		t.Errorf("taken: %d, %q", code, stderr)
	}
	if out, _ := d.must(t, "alias", "list"); !strings.Contains(out, "alias/app") || !strings.Contains(out, "alias/other") {
		t.Errorf("list: %q", out)
	}
	if out, _ := d.must(t, "alias", "list", "--key", "alias/app"); !strings.Contains(out, "alias/app") || strings.Contains(out, "alias/other") {
		t.Errorf("list of one key: %q", out)
	}
	d.must(t, "alias", "delete", "app", "--yes")
	if _, there := d.aliases["alias/app"]; there {
		t.Error("still there")
	}
}

func TestStatus(t *testing.T) {
	d := startFake(t)
	out, _ := d.must(t, "status")
	if !strings.Contains(out, "acs:ram::"+fakeAccount+":root") || !strings.Contains(out, "2 of 2 up") {
		t.Errorf("%s", out)
	}
	d.must(t, "hsm", "status")
	d.status.State, d.status.Problems = admin.Degraded, []string{"hsm-b is down: plug it in"}
	d.status.Members[1] = admin.Member{Name: "hsm-b", State: "down", Reason: "CKR_DEVICE_REMOVED", Since: time.Now().Add(-90 * time.Second)}
	if code, out, talk := d.ctl(t, "", "status"); code != exitDegraded || !strings.Contains(out, "hsm-b is down for 1m: CKR_DEVICE_REMOVED") || talk != "problem: hsm-b is down: plug it in\n" {
		t.Errorf("degraded: %d\n%s%s", code, out, talk)
	}
	if code, out, _ := d.ctl(t, "", "hsm", "status"); code != exitDegraded || !strings.Contains(out, "CKR_DEVICE_REMOVED") {
		t.Errorf("hsm status: %d\n%s", code, out)
	}
	if out, _ = d.must(t, "hsm", "list", "-o", "json"); !json.Valid([]byte(out)) {
		t.Errorf("hsm list: %s", out)
	}
	d.status.State = admin.Unavailable
	d.status.Members = d.status.Members[1:]
	for _, noun := range [][]string{{"status"}, {"hsm", "status"}, {"status", "-o", "json"}} {
		if code, _, _ := d.ctl(t, "", noun...); code != exitUnavailable {
			t.Errorf("%v: %d", noun, code)
		}
	}
}

func TestAPI(t *testing.T) {
	d := startFake(t)
	d.must(t, "key", "create", "--alias", "a")
	out, _ := d.must(t, "api", "DescribeKey", "--KeyId", "alias/a")
	if !strings.Contains(out, `"KeyId": "key-1"`) {
		t.Errorf("%s", out)
	}
	out, _ = d.must(t, "api", "--KeyId=key-1", "UpdateKeyDescription", "--Description=--dash = and space")
	if d.keys[0].Description != "--dash = and space" || !strings.Contains(out, "RequestId") {
		t.Errorf("%q %s", d.keys[0].Description, out)
	}
	// Global flags stay flags, before and after.
	if code, _, _ := d.ctl(t, "", "api", "DescribeKey", "--socket", "/nowhere", "--KeyId", "x"); code != exitTryAgain {
		t.Errorf("--socket after the action: %d", code)
	}
	if out, _ = d.must(t, "api", "--help"); !strings.Contains(out, "Usage:") {
		t.Errorf("%s", out)
	}
	if out, _ = d.must(t, "api", "list"); !strings.Contains(out, "KeyId! Plaintext! EncryptionContext DryRun") {
		t.Errorf("%s", out)
	}
	if out, _ = d.must(t, "api", "list", "-o", "json"); !json.Valid([]byte(out)) {
		t.Errorf("%s", out)
	}
	if code, _, stderr := d.ctl(t, "", "api", "NoSuchThing"); code != exitUsage || !strings.Contains(stderr, "api list") {
		t.Errorf("unknown action: %d %q", code, stderr)
	}
	// keywardd passes over a parameter that it does not know, so keywardctl tells.
	if code, out, talk := d.ctl(t, "", "api", "DescribeKey", "--KeyId", "key-1", "--KeyID", "x"); code != exitOK || !json.Valid([]byte(out)) || !strings.Contains(talk, "no parameter KeyID") {
		t.Errorf("unknown parameter: %d %q", code, talk)
	}
	if code, _, stderr := d.ctl(t, "", "api", "BatchSign", "--KeyId", "key-1"); code != exitUsage || !strings.Contains(stderr, "keywardctl batch sign") {
		t.Errorf("batch: %d %q", code, stderr)
	}
	d.refuse["Encrypt"] = problem(400, "DryRunOperationError", "")
	if code, _, talk := d.ctl(t, "", "api", "Encrypt", "--DryRun", "true"); code != exitOK || !strings.Contains(talk, "would have worked") {
		t.Errorf("dry run: %d %q", code, talk)
	}
	d.refuse["Encrypt"] = problem(500, "InternalFailure", "The request failed.")
	if code, _, stderr := d.ctl(t, "", "api", "Encrypt"); code != exitFailure || !strings.Contains(stderr, "request req-1") {
		t.Errorf("internal failure: %d %q", code, stderr)
	}
}

func TestOthers(t *testing.T) {
	d := startFake(t)
	if out, _ := d.must(t, "instance", "list"); !strings.Contains(out, "kst-software") {
		t.Errorf("%s", out)
	}
	if out, _ := d.must(t, "random-password", "--length", "12"); out != "xxxxxxxxxxxx\n" {
		t.Errorf("%q", out)
	}
	if out, _ := d.must(t, "version"); !strings.HasPrefix(out, "keywardctl ") {
		t.Errorf("%q", out)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out, _ := d.must(t, "completion", shell); !strings.Contains(out, "__complete") {
			t.Errorf("%s: %q", shell, out)
		}
	}
	d.must(t, "key", "create", "--alias", "app/db")
	if out, _ := d.must(t, "__complete", "key", "describe", ""); !strings.Contains(out, "alias/app/db") {
		t.Errorf("completion of keys: %q", out)
	}
	for _, verb := range []string{"drain", "undrain", "enroll"} {
		if out, _ := d.must(t, "__complete", "hsm", verb, ""); !strings.Contains(out, "hsm-a\nhsm-b\n") {
			t.Errorf("completion of members: %q", out)
		}
	}
}

func TestPlain(t *testing.T) {
	if got := plain("a\x1b[31mb\nc\u009bd ü"); got != "a?[31mb?c?d ü" {
		t.Errorf("%q", got)
	}
	if got := quote("it's a file"); got != `'it'\''s a file'` {
		t.Errorf("%q", got)
	}
}

// TestUnknownParameters sees that a typo is told of, and a numbered part of a list is none.
func TestUnknownParameters(t *testing.T) {
	for name, known := range map[string]bool{"RegionId": true, "Tag.1.Key": true, "ResourceId.2": true, "Tag": true, "Tags": false, "RegionId.1": false, "Tags.1.Key": false} {
		var stderr strings.Builder
		c := &cli{stderr: &stderr}
		if err := c.checkParams("TagResources", url.Values{name: {"x"}}); err != nil {
			t.Fatal(err)
		}
		if told := strings.Contains(stderr.String(), "no parameter "+name+" "); told == known {
			t.Errorf("%s: %q", name, stderr.String())
		}
	}
}
