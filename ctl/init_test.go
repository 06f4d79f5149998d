package ctl

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/daemon/admin"
)

func writeAnswers(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "answers.toml")
	if err := os.WriteFile(filepath.Join(dir, "pin"), []byte("1234\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "DIR", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const goodAnswers = `shares_dir = "/media/usb"
[[member]]
name = "hsm-a"
module = "/usr/lib/x.so"
token_label = "east"
pin_file = "DIR/pin"
environment = { B = "2 \"quoted\"", A = "1" }
`

func TestAnswers(t *testing.T) {
	plan, err := (&cli{}).readAnswers(t.Context(), writeAnswers(t, goodAnswers))
	if err != nil || plan.check() != nil {
		t.Fatalf("%v, %v", err, plan.check())
	}
	if plan.Shares != 3 || plan.Threshold != 2 || string(plan.Members[0].pin) != "1234" {
		t.Errorf("%+v", plan)
	}
	// What is written is read as it was meant, and has no PIN.
	rows := plan.memberRows()
	var back struct {
		Member []struct {
			Name, Module  string
			TokenLabel    string `toml:"token_label"`
			PINCredential string `toml:"pin_credential"`
			Environment   map[string]string
			Unit          bool
		}
	}
	meta, err := toml.Decode(rows, &back)
	if err != nil || len(meta.Undecoded()) > 0 || len(back.Member) != 1 {
		t.Fatalf("%s\n%v, %v", rows, err, meta.Undecoded())
	}
	m := back.Member[0]
	if m.Name != "hsm-a" || m.Module != "/usr/lib/x.so" || m.TokenLabel != "east" || m.PINCredential != "hsm-a" || !m.Unit || m.Environment["A"] != "1" || m.Environment["B"] != `2 "quoted"` || strings.Contains(rows, "1234") {
		t.Errorf("%s", rows)
	}
	pin := plan.Members[0].pin
	plan.wipe()
	if !bytes.Equal(pin, make([]byte, 4)) {
		t.Error("the PIN is not wiped")
	}
	for what, row := range map[string][2]string{
		"a word nobody knows": {strings.Replace(goodAnswers, "module", "modul", 1), "nothing called member.modul"},
		"no place for shares": {strings.Replace(goodAnswers, "shares_dir", "# shares_dir", 1), "shares_dir is needed"},
		"no PIN":              {strings.Replace(goodAnswers, "DIR/pin", "DIR/none", 1), "pin_file of hsm-a"},
		"no TOML":             {"[[member", "answers.toml"},
	} {
		if _, err := (&cli{}).readAnswers(t.Context(), writeAnswers(t, row[0])); err == nil || !strings.Contains(err.Error(), row[1]) {
			t.Errorf("%s: %v", what, err)
		}
	}
	open := writeAnswers(t, goodAnswers)
	if err := os.Chmod(filepath.Join(filepath.Dir(open), "pin"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := (&cli{}).readAnswers(t.Context(), open); err == nil || !strings.Contains(err.Error(), "mode 0644") {
		t.Errorf("a PIN that everybody may read: %v", err)
	}
	if _, err := (&cli{}).readAnswers(t.Context(), "/nowhere/answers.toml"); err == nil {
		t.Error("there is no file, and no error")
	}
}

func TestPlanCheck(t *testing.T) {
	member := func(name, label string) initMember {
		return initMember{Name: name, Module: "/m.so", TokenLabel: label, pin: []byte("1")}
	}
	good := initPlan{Shares: 3, Threshold: 2, Members: []initMember{member("a", "east"), member("b", "west")}}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	serials := initPlan{Shares: 3, Threshold: 2, Members: []initMember{member("a", ""), member("b", "west")}}
	serials.Members[0].TokenSerial = "0001"
	if err := serials.check(); err != nil || !strings.Contains(serials.memberRows(), "\ntoken_serial = \"0001\"\n") {
		t.Errorf("%v\n%s", err, serials.memberRows())
	}
	for want, change := range map[string]func(*initPlan){
		"there is no token":     func(p *initPlan) { p.Members = nil },
		"at least 2 must":       func(p *initPlan) { p.Threshold = 1 },
		"2 of 1 shares":         func(p *initPlan) { p.Shares = 1 },
		"at most 64":            func(p *initPlan) { p.Shares = 65 },
		"is no name":            func(p *initPlan) { p.Members[0].Name = "../x" },
		"two members":           func(p *initPlan) { p.Members[1].Name = "a" },
		"needs module, and":     func(p *initPlan) { p.Members[0].TokenSerial = "1" },
		"needs module":          func(p *initPlan) { p.Members[0].Module = "" },
		"the PIN of a is empty": func(p *initPlan) { p.Members[0].pin = nil },
		`"ea" is how "east"`:    func(p *initPlan) { p.Members[1].TokenLabel = "ea" },
		`"east" is how "east"`:  func(p *initPlan) { p.Members[1].TokenLabel = "east" },
	} {
		p := good
		p.Members = append([]initMember(nil), good.Members...)
		change(&p)
		if err := p.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestSuggestedNames(t *testing.T) {
	for label, want := range map[string]string{"East 1": "east-1", "keyward_a": "keyward-a", "--": "hsm-3", "": "hsm-3", strings.Repeat("x", 40): "hsm-3", "Ωmega": "mega"} {
		if got := suggestName(label, 2); got != want {
			t.Errorf("%q is called %q, want %q", label, got, want)
		}
	}
	for want, token := range map[string]admin.Token{
		"not initialized": {Label: "x"}, "no user PIN": {Label: "x", Initialized: true}, "locked": {Label: "x", Initialized: true, UserPIN: true, Locked: true},
		"no label": {Initialized: true, UserPIN: true},
	} {
		if usable(&token) || !strings.Contains(why(&token), want) {
			t.Errorf("%+v: %s", token, why(&token))
		}
	}
}

func TestSecretFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := writeSecret(path, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := writeSecret(path, []byte("two")); err == nil {
		t.Error("a secret is written over")
	}
	if err := replaceSecret(path, []byte("three")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	held, err := os.Open(path) // what a process that has it open would still read
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	uid := uint32(os.Getuid())
	if err := wipeFile(path, uid); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(held); err != nil || !bytes.Equal(rest, make([]byte, 5)) {
		t.Errorf("%q is left, %v", rest, err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("it is there: %v", err)
	}
	if err := (&machine{uid: uid, gid: uint32(os.Getgid())}).lendSecret(path, []byte("lent")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o400 { // people are in the group
		t.Errorf("%v, %v", info, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	// Nobody has another file read or wiped in its place.
	victim := path + "-victim"
	if err := writeSecret(victim, []byte("victim")); err != nil {
		t.Fatal(err)
	}
	for what, plant := range map[string]func() error{
		"a symbolic link": func() error { return os.Symlink(victim, path) },
		"a second name":   func() error { return os.Link(victim, path) },
		"a directory":     func() error { return os.Mkdir(path, 0o700) },
		"a pipe":          func() error { return unix.Mkfifo(path, 0o600) },
	} {
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		if text, err := readOwned(path, uid); err == nil {
			t.Errorf("%s is read: %q", what, text)
		}
		if err := wipeFile(path, uid); err == nil {
			t.Errorf("%s is wiped", what)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := readOwned(victim, uid); err != nil || string(text) != "victim" {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := readOwned(victim, uid+1); err == nil {
		t.Errorf("a file of another user is read: %q", text)
	}
}

func TestSharesDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "shares")
	if err := checkSharesDir(dir); err == nil {
		t.Error("a directory that is not there is good")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := checkSharesDir(dir); err != nil {
		t.Error(err)
	}
	file := filepath.Join(dir, "share-1-of-3-0a0b0c0d")
	for range 2 { // an init that was cut off goes on
		if err := keepSecret(file, []byte("one")); err != nil {
			t.Fatal(err)
		}
	}
	if err := keepSecret(file, []byte("two")); err == nil {
		t.Error("a share is written over")
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "one" {
		t.Errorf("%q, %v", text, err)
	}
	if err := checkSharesDir(file); err == nil {
		t.Error("a file is a good directory")
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := checkSharesDir(dir); err == nil || !strings.Contains(err.Error(), "others than root") {
		t.Errorf("shares that everybody may read: %v", err)
	}
}

func TestWorkerRights(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "softhsm2.conf")
	if err := os.WriteFile(conf, []byte("log.level = ERROR\ndirectories.tokendir = /var/lib/hsm\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	soft := initMember{Module: "/usr/lib/softhsm/libsofthsm2.so", Environment: map[string]string{"SOFTHSM2_CONF": conf}}
	for _, line := range []string{"ReadWritePaths=/var/lib/hsm\n", "PrivateNetwork=yes\n", "User=keyward\n", "Environment=\"SOFTHSM2_CONF=" + conf + "\"\n"} {
		if got := soft.workerRights([]string{"nfast"}); !strings.Contains(got, line) {
			t.Errorf("%q is not in\n%s", line, got)
		}
	}
	other := initMember{Module: "/opt/vendor.so", Environment: map[string]string{"B": `2 % "x"`, "A": "1"}}
	if got := other.workerRights([]string{"nfast", "usb"}); got != "Environment=\"A=1\"\nEnvironment=\"B=2 %% \\\"x\\\"\"\nSupplementaryGroups=nfast usb\n" {
		t.Errorf("%q", got)
	}
}
