package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// good is the least configuration that is right; %DIR% is the test's directory, which holds pin (mode 0600).
const good = `
[[member]]
name = "a"
module = "/usr/lib/softhsm/libsofthsm2.so"
token_label = "keyward-a"
pin_file = "%DIR%/pin"

[[instance]]
id = "kst-software"
type = "software"
`

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// load loads text as the main file.
func load(t *testing.T, text string) (*Config, error) {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "pin"), "1234\n", 0o600)
	path := filepath.Join(dir, "keyward.toml")
	write(t, path, strings.ReplaceAll(text, "%DIR%", dir), 0o600)
	return Load(path)
}

func TestShippedFiles(t *testing.T) {
	loaded := 0
	err := filepath.WalkDir("../../configs", func(path string, d os.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".toml" {
			return err
		}
		if _, err := Load(path); err != nil {
			t.Errorf("%s does not load: %v", path, err)
		}
		loaded++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if loaded < 2 {
		t.Fatalf("only %d files found", loaded)
	}
}

// TestShippedDefaults holds the values that configs/keyward.toml calls defaults against the real ones, and sees that it
// shows every key.
func TestShippedDefaults(t *testing.T) {
	c, err := Load("../../configs/keyward.toml")
	if err != nil {
		t.Fatal(err)
	}
	d := defaults()
	if c.Region != d.Region || c.StateDir != d.StateDir || c.ShutdownTimeout != d.ShutdownTimeout || c.Sockets != d.Sockets || c.PKCS11 != d.PKCS11 ||
		c.Log != d.Log || c.Audit != d.Audit || c.Pool != d.Pool || strings.Join(c.Accounts, " ") != strings.Join(d.Accounts, " ") {
		t.Errorf("the shipped file has\n%+v\nand the defaults are\n%+v", c, d)
	}
	text, err := os.ReadFile("../../configs/keyward.toml")
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range [][]string{{}, {"sockets"}, {"pkcs11"}, {"log"}, {"audit"}, {"pool"}, {"member"}, {"share"}, {"instance"}, {"service"}, {"listener"}} {
		known, ok := keysOf(table)
		if !ok {
			t.Fatalf("no table %v", table)
		}
		for _, key := range known {
			if !strings.Contains(string(text), key+" = ") && !strings.Contains(string(text), "["+key+"]") {
				t.Errorf("configs/keyward.toml does not show %v %s", table, key)
			}
		}
	}
}

func TestGood(t *testing.T) {
	c, err := load(t, good)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Members) != 1 || c.Members[0].TokenLabel != "keyward-a" || c.Sockets.Admin != DefaultAdminSocket || c.Log.Level != "info" {
		t.Errorf("loaded %+v", c)
	}
	pin, err := c.Members[0].PIN()
	if err != nil || string(pin) != "1234" {
		t.Errorf("PIN gave %d octets and %v", len(pin), err)
	}
}

// TestMistakes has one row for each thing that can be wrong: what is changed in or added to the good file, and what the
// message must say.
func TestMistakes(t *testing.T) {
	member := "\n[[member]]\nname = \"b\"\nmodule = \"/m.so\"\ntoken_label = \"keyward-b\"\npin_file = \"%DIR%/pin\"\n"
	service := "\n[[service]]\ncode = \"db\"\nprincipals = [\"acs:ram::1000000000000001:role/db\"]\n"
	listener := func(address, more string) string {
		return fmt.Sprintf("\n[[listener]]\naddress = %q\ncert_file = \"/c\"\n%s\n", address, more)
	}
	rows := []struct {
		name     string
		old, new string // replaced in good; an empty old adds new at the end
		want     []string
	}{
		{"syntax", "", "\nregion = ", []string{"keyward.toml:12:"}},
		{"wrong type", `name = "a"`, `name = 5`, []string{"keyward.toml", "name"}},
		{"typo in the main table", "\n[[member]]", "regoin = \"x\"\n[[member]]", []string{"keyward.toml:1:", `"regoin"`, `did you mean "region"?`}},
		{"typo in a member", "token_label", "token_labl", []string{"keyward.toml:5:", `"token_labl" in [member]`, `did you mean "token_label"?`}},
		{"unknown table", "", "\n[sokets]\nadmin = \"/x\"\n", []string{"keyward.toml:12:", `"sokets"`, `"sockets"`}},
		{"unlike anything", "", "\n[log]\nwhatsoever = 1\n", []string{"keyward.toml:13:", `"whatsoever" in [log]`, "known here are level"}},
		{"typo in the second of two", "", strings.Replace(member, "module", "modul", 1), []string{"keyward.toml:14:", `"modul"`, `"module"`}},
		{"region", "\n[[member]]", "region = \"A B\"\n[[member]]", []string{"keyward.toml:1:", "region"}},
		{"account", "\n[[member]]", "accounts = [\"12\"]\n[[member]]", []string{"keyward.toml:1:", "16 digits"}},
		{"same account", "\n[[member]]", "accounts = [\"1000000000000001\", \"1000000000000001\"]\n[[member]]", []string{"twice"}},
		{"relative state", "\n[[member]]", "state_dir = \"state\"\n[[member]]", []string{"keyward.toml:1:", "state_dir", "relative"}},
		{"relative module", "/usr/lib/softhsm/", "", []string{"keyward.toml:4:", "relative"}},
		{"relative PIN file", "%DIR%/pin", "pin", []string{"keyward.toml:6:", "relative"}},
		{"missing PIN file", "%DIR%/pin", "%DIR%/nip", []string{"keyward.toml:6:", `member "a"`, "nip is not there"}},
		{"no PIN", `pin_file = "%DIR%/pin"`, "", []string{"keyward.toml:2:", "no PIN", "pin_credential"}},
		{"two PINs", "pin_file", "pin_credential = \"x\"\npin_file", []string{"both"}},
		{"PIN in the file", "pin_file", "pin = \"1234\"\npin_file", []string{"keyward.toml:6:", `"pin"`}},
		{"credential path", `pin_file = "%DIR%/pin"`, `pin_credential = "/etc/x"`, []string{"not a path"}},
		{"no token", `token_label = "keyward-a"`, "", []string{"exactly one of token_label and token_serial"}},
		{"label and serial", "token_label", "token_serial = \"1\"\ntoken_label", []string{"exactly one"}},
		{"same member", "", strings.Replace(member, `"b"`, `"a"`, 1), []string{"keyward.toml:13:", `member "a" is there twice`}},
		{"same token", "", strings.NewReplacer("keyward-b", "keyward-a", "/m.so", "/usr/lib/softhsm/libsofthsm2.so").Replace(member), []string{"keyward.toml:15:", "same token"}},
		{"sessions", "pin_file", "max_sessions = -1\npin_file", []string{"max_sessions"}},
		{"instance type", `"software"`, `"firmware"`, []string{"keyward.toml:10:", `"firmware"`, "software, hardware"}},
		{"instance id", "kst-software", "software", []string{"keyward.toml:9:", "kst-"}},
		{"same instance", "", "\n[[instance]]\nid = \"kst-software\"\ntype = \"hardware\"\n", []string{"keyward.toml:13:", "twice"}},
		{"no instance", "[[instance]]\nid = \"kst-software\"\ntype = \"software\"\n", "", []string{"no [[instance]]"}},
		{"shared external instance", `type = "software"`, "type = \"external\"\nshared_with = [\"2000000000000002\"]", []string{"can be shared"}},
		{"no keys", "", "keys = 0\n", []string{"keyward.toml:11:", `instance "kst-software": keys = 0`, "1 to"}},
		{"negative access", "", "access = -1\n", []string{"keyward.toml:11:", "access = -1"}},
		{"negative qps", "", "qps = -1\n", []string{"keyward.toml:11:", "qps = -1"}},
		{"instance of a stranger", "", "account = \"1000000000000009\"\n", []string{"keyward.toml:11:", `"1000000000000009" is not among accounts`}},
		{"shared with a stranger", "", "shared_with = [\"1000000000000009\"]\n", []string{"keyward.toml:11:", "in shared_with is not among accounts"}},
		{"shared with its owner", "", "shared_with = [\"1000000000000001\"]\n", []string{"keyward.toml:11:", "owns it"}},
		{"shared twice", "\n[[member]]", "accounts = [\"1000000000000001\", \"1000000000000002\"]\n[[instance]]\nid = \"kst-x\"\ntype = \"software\"\nshared_with = [\"1000000000000002\", \"1000000000000002\"]\n[[member]]", []string{"keyward.toml:5:", "in shared_with twice"}},
		{"shared with too many", "\n[[member]]", "accounts = [\"1000000000000001\", \"1000000000000002\"]\n[[instance]]\nid = \"kst-x\"\ntype = \"software\"\naccess = 0\nshared_with = [\"1000000000000002\"]\n[[member]]", []string{"1 accounts share it", "access = 0"}},
		{"two defaults", "", "default = true\n\n[[instance]]\nid = \"kst-b\"\ntype = \"hardware\"\ndefault = true\n", []string{"keyward.toml:16:", `"kst-software" and "kst-b"`, "account 1000000000000001"}},
		{"bad principal", "", "\n[[peer]]\nuid = 1\nprincipal = \"acs:ram::*:root\"\n", []string{"keyward.toml:14:", "without wildcards"}},
		{"foreign principal", "", "\n[[peer]]\nuid = 1\nprincipal = \"acs:ram::1000000000000009:root\"\n", []string{"not among accounts"}},
		{"no principal", "", "\n[[peer]]\nuid = 1\n", []string{"keyward.toml:12:", "no principal"}},
		{"nobody", "", "\n[[peer]]\nuid = 65534\nprincipal = \"acs:ram::1000000000000001:root\"\n", []string{"nobody"}},
		{"unit alone", "", "\n[[peer]]\nunit = \"a.service\"\nprincipal = \"acs:ram::1000000000000001:root\"\n", []string{"keyward.toml:13:", "only a unit"}},
		{"nobody at all", "", "\n[[peer]]\nprincipal = \"acs:ram::1000000000000001:root\"\n", []string{"keyward.toml:12:", "who it is"}},
		{"level", "", "\n[log]\nlevel = \"loud\"\n", []string{"keyward.toml:13:", `"loud"`, "debug, info, warn, error"}},
		{"duration", "\n[[member]]", "shutdown_timeout = \"soon\"\n[[member]]", []string{"keyward.toml:1", "soon", "such as"}},
		{"number for text", `name = "a"`, "name = 5", []string{"keyward.toml:3: member.name is a whole number; it must be a text in quotes"}},
		{"text for list", "\n[[member]]", "accounts = \"1000000000000001\"\n[[member]]", []string{"keyward.toml:1: accounts is a text in quotes; it must be a list in brackets"}},
		{"socket path", "", "\n[sockets]\nadmin = \"/" + strings.Repeat("x", 120) + "\"\n", []string{"keyward.toml:13:", "107"}},
		{"private group", "", "\n[sockets]\nprivate = true\ngroup = \"x\"\n", []string{"keyward.toml:14:", "private"}},
		{"connections", "", "\n[sockets]\nmax_connections = 0\n", []string{"max_connections"}},
		{"PKCS #11 socket's path", "", "\n[pkcs11]\nsocket = \"/" + strings.Repeat("x", 120) + "\"\n", []string{"keyward.toml:13:", "107"}},
		{"PKCS #11 socket not absolute", "", "\n[pkcs11]\nsocket = \"p.sock\"\n", []string{"keyward.toml:13:", "p.sock", "whole path"}},
		{"one socket for both", "", "\n[pkcs11]\nsocket = \"" + DefaultAdminSocket + "\"\n", []string{"keyward.toml:13:", "sockets.admin too"}},
		{"no PKCS #11 connections", "", "\n[pkcs11]\nmax_connections = 0\n", []string{"keyward.toml:13:", "1 to 100000"}},
		{"more for one than for all", "", "\n[pkcs11]\nmax_connections = 10\nmax_connections_per_user = 11\n", []string{"keyward.toml:14:", "max_connections_per_user"}},
		{"queue", "", "\n[pool]\nqueue = 0\n", []string{"queue"}},
		{"isolation", "", "\n[pool]\nisolation = \"vm\"\n", []string{"keyward.toml:13:", `"vm"`, "process", "none"}},
		{"no workers", "pin_file", "workers = 0\npin_file", []string{"keyward.toml:6:", `member "a"`, "1 to 16"}},
		{"too many workers", "pin_file", "workers = 17\npin_file", []string{"keyward.toml:6:", "1 to 16"}},
		{"unit with a PIN file", "pin_file", "unit = true\npin_file", []string{"keyward.toml:6:", `member "a"`, "with a pin_credential"}},
		{"unit of two", "", strings.Replace(member, "pin_file = \"%DIR%/pin\"", "pin_credential = \"b\"\nunit = true\nworkers = 2", 1), []string{"keyward.toml:17:", "there is one worker"}},
		{"workers in one process", "\n[[member]]", "pool.isolation = \"none\"\n[[member]]\nworkers = 2", []string{"keyward.toml:3:", "workers = 2", `isolation = "none"`}},
		{"short call", "pin_file", "call_timeout = \"99ms\"\npin_file", []string{"keyward.toml:6:", "call_timeout", "100ms to 10m"}},
		{"long call", "pin_file", "call_timeout = \"601s\"\npin_file", []string{"call_timeout", "100ms to 10m"}},
		{"call of no time", "pin_file", "call_timeout = 5\npin_file", []string{"keyward.toml:6:", "span of time"}},
		{"listener without address", "", listener("", `key = "k"`), []string{"keyward.toml:13:", "IP address and a port"}},
		{"listener at a name", "", listener("localhost:8443", `key = "k"`), []string{"keyward.toml:13:", "localhost"}},
		{"same listener", "", listener("[::]:8443", `key = "k"`) + listener("[::]:8443", `key = "k"`), []string{"keyward.toml:18:", "twice"}},
		{"listener without key", "", listener("[::]:8443", ""), []string{"keyward.toml:12:", "exactly one of key_file"}},
		{"listener with two keys", "", listener("[::]:8443", "key = \"k\"\nkey_file = \"/k\""), []string{"exactly one of key_file"}},
		{"listener without certificate", "", strings.Replace(listener("[::]:8443", `key = "k"`), "cert_file = \"/c\"", "", 1), []string{"keyward.toml:12:", "TLS only"}},
		{"relative certificate", "", strings.Replace(listener("[::]:8443", `key = "k"`), "/c", "c", 1), []string{"keyward.toml:14:", "relative"}},
		{"relative key", "", listener("[::]:8443", `key_file = "k"`), []string{"keyward.toml:15:", "relative"}},
		{"listener's connections", "", listener("[::]:8443", "key = \"k\"\nmax_connections = 0"), []string{"keyward.toml:16:", "1 to 100000"}},
		{"address's connections", "", listener("[::]:8443", "key = \"k\"\nmax_connections_per_address = 0"), []string{"keyward.toml:16:", "1 to 100000"}},
		{"share of nobody", "", "\n[[share]]\nweight = 2\n", []string{"keyward.toml:12:", "this share has no principal"}},
		{"share of a wildcard", "", "\n[[share]]\nprincipal = \"acs:ram::*:root\"\n", []string{"keyward.toml:13:", "without wildcards"}},
		{"share of a stranger", "", "\n[[share]]\nprincipal = \"acs:ram::1000000000000009:root\"\n", []string{"keyward.toml:13:", "not among accounts"}},
		{"two shares", "", strings.Repeat("\n[[share]]\nprincipal = \"acs:ram::1000000000000001:role/web\"\n", 2), []string{"keyward.toml:16:", "two shares"}},
		{"no weight", "", "\n[[share]]\nprincipal = \"acs:ram::1000000000000001:root\"\nweight = 0\n", []string{"keyward.toml:14:", "1 to 1000"}},
		{"weight", "", "\n[[share]]\nprincipal = \"acs:ram::1000000000000001:root\"\nweight = 1001\n", []string{"keyward.toml:14:", "1 to 1000"}},
		{"share of the queue", "", "\n[[share]]\nprincipal = \"acs:ram::1000000000000001:root\"\nqueue = -1\n", []string{"keyward.toml:14:", "queue = -1"}},
		{"typo in a share", "", "\n[[share]]\nwieght = 2\n", []string{"keyward.toml:13:", `"wieght" in [share]`, `"weight"`}},
		{"service without a code", "", "\n[[service]]\nprincipals = [\"acs:ram::1000000000000001:role/db\"]\n", []string{"keyward.toml:12:", "this service needs a code"}},
		{"service in capitals", "", "\n[[service]]\ncode = \"OSS\"\nprincipals = [\"acs:ram::1000000000000001:role/db\"]\n", []string{"keyward.toml:13:", `service "OSS" needs a code`}},
		{"same service", "", service + service, []string{"keyward.toml:17:", `service "db" is there twice`}},
		{"service of nobody", "", "\n[[service]]\ncode = \"db\"\nunit = \"db.service\"\n", []string{"keyward.toml:12:", `service "db" has no principals`}},
		{"service of a wildcard", "", "\n[[service]]\ncode = \"db\"\nprincipals = [\"acs:ram::1000000000000001:role/*\"]\n", []string{"keyward.toml:14:", "without wildcards"}},
		{"service of a stranger", "", "\n[[service]]\ncode = \"db\"\nprincipals = [\"acs:ram::1000000000000009:role/db\"]\n", []string{"keyward.toml:14:", "not among accounts"}},
		{"service of all roots", "", "\n[[service]]\ncode = \"db\"\nprincipals = [\"acs:ram::1000000000000001:root\"]\n", []string{"keyward.toml:14:", "every administrator", "unit"}},
		{"caller of two services", "", service + strings.Replace(service, `"db"`, `"other"`, 1), []string{"keyward.toml:18:", `so is service "db"`}},
		{"service with two lines", "", service + "entry = \"a\\nb\"\n", []string{"keyward.toml:15:", "entry must be one line"}},
		{"service with a long name", "", service + "name = \"" + strings.Repeat("x", 65) + "\"\n", []string{"keyward.toml:15:", "name must be one line"}},
		{"typo in a service", "", service + "entri = \"x\"\n", []string{"keyward.toml:15:", `"entri" in [service]`, `"entry"`}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			text := good + row.new
			if row.old != "" {
				text = strings.Replace(good, row.old, row.new, 1)
			}
			_, err := load(t, text)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, w := range row.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("the message is\n%v\nand does not say %q", err, w)
				}
			}
		})
	}
}

// TestAllMistakesAtOnce sees that one look tells of every mistake.
func TestAllMistakesAtOnce(t *testing.T) {
	_, err := load(t, good+"\n[log]\nlevel = \"loud\"\n[pool]\nqueue = -1\n")
	if err == nil || len(strings.Split(err.Error(), "\n")) != 2 {
		t.Errorf("got %v", err)
	}
}

func TestEnvironmentsMustAgree(t *testing.T) {
	base := strings.Replace(good, "token_label", "environment = { A = \"1\" }\ntoken_label", 1)
	second := "\n[[member]]\nname = \"b\"\nmodule = \"/m.so\"\ntoken_serial = \"77\"\npin_file = \"%DIR%/pin\"\nenvironment = { A = \"VALUE\" }\n"
	if _, err := load(t, base+strings.Replace(second, "VALUE", "1", 1)); err != nil {
		t.Errorf("the same value is refused: %v", err)
	}
	differ := base + strings.Replace(second, "VALUE", "2", 1)
	if _, err := load(t, differ); err != nil {
		t.Errorf("each has a process of its own, and yet: %v", err)
	}
	if _, err := load(t, "pool.isolation = \"none\"\n"+differ); err == nil || !strings.Contains(err.Error(), "another value") {
		t.Errorf("another value in one process gave %v", err)
	}
}

// TestPool reads what says how members are driven, and sees the defaults.
func TestPool(t *testing.T) {
	c, err := load(t, good+"\n[[share]]\nprincipal = \"acs:ram::1000000000000001:role/web\"\n")
	if err != nil {
		t.Fatal(err)
	}
	if m := c.Members[0]; c.Pool.Isolation != Process || m.Workers != 1 || m.CallTimeout != 0 || c.Shares[0] != (Share{"acs:ram::1000000000000001:role/web", 1, 0}) {
		t.Errorf("the defaults are %+v", c)
	}
	c, err = load(t, strings.Replace(good, "pin_file", "workers = 16\ncall_timeout = \"2s\"\npin_file", 1)+
		"\n[[share]]\nprincipal = \"acs:ram::1000000000000001:root\"\nweight = 1000\nqueue = 7\n[pool]\nisolation = \"process\"\n")
	if err != nil {
		t.Fatal(err)
	}
	if m := c.Members[0]; m.Workers != 16 || m.CallTimeout != Duration(2*time.Second) || c.Shares[0] != (Share{"acs:ram::1000000000000001:root", 1000, 7}) {
		t.Errorf("loaded %+v", c)
	}
}

// TestInstances reads what says whose instances are and how much goes into them, and sees the defaults.
func TestInstances(t *testing.T) {
	c, err := load(t, good)
	if err != nil {
		t.Fatal(err)
	}
	want := Instance{ID: "kst-software", Type: Software, Account: DefaultAccount, Keys: DefaultKeys, Access: DefaultAccess}
	if !reflect.DeepEqual(c.Instances[0], want) {
		t.Errorf("the defaults are %+v", c.Instances[0])
	}
	two := "accounts = [\"1000000000000001\", \"1000000000000002\"]\n"
	c, err = load(t, two+good+"account = \"1000000000000002\"\nshared_with = [\"1000000000000001\"]\nkeys = 7\naccess = 1\nqps = 9\ndefault = true\n"+
		"\n[[instance]]\nid = \"kst-b\"\ntype = \"hardware\"\naccess = 0\ndefault = true\n")
	if err != nil {
		t.Fatal(err)
	}
	want = Instance{"kst-software", Software, "", "1000000000000002", []string{"1000000000000001"}, 7, 1, 9, true}
	if !reflect.DeepEqual(c.Instances[0], want) || c.Instances[1].Access != 0 || !c.Instances[1].Default {
		t.Errorf("loaded %+v", c.Instances)
	}
}

func TestPINFileMode(t *testing.T) {
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: true, 0o644: false, 0o604: false, 0o660: false, 0o601: false} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "pin"), "1234", mode)
		path := filepath.Join(dir, "keyward.toml")
		write(t, path, strings.ReplaceAll(good, "%DIR%", dir), 0o600)
		if _, err := Load(path); (err == nil) != ok {
			t.Errorf("mode %04o gave %v", mode, err)
		}
	}
}

func TestPIN(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	for text, want := range map[string]string{"1234": "1234", "1234\n": "1234", "12 34\r\n": "12 34", "": "", "\n": ""} {
		write(t, filepath.Join(dir, "hsm"), text, 0o644)
		pin, err := (&Member{Name: "a", PINCredential: "hsm"}).PIN()
		if string(pin) != want || (err == nil) != (want != "") {
			t.Errorf("the file %q gave %d octets and %v", text, len(pin), err)
		}
	}
	if _, err := (&Member{Name: "a", PINCredential: "other"}).PIN(); err == nil || !strings.Contains(err.Error(), "LoadCredentialEncrypted=other") {
		t.Errorf("a missing credential gave %v", err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := (&Member{Name: "a", PINCredential: "hsm"}).PIN(); err == nil || !strings.Contains(err.Error(), "systemd unit") {
		t.Errorf("no credentials directory gave %v", err)
	}
}

func TestConfD(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "pin"), "1234", 0o600)
	path := filepath.Join(dir, "keyward.toml")
	write(t, path, "region = \"one\"\n"+strings.ReplaceAll(good, "%DIR%", dir), 0o600)
	write(t, filepath.Join(dir, "conf.d", "20.toml"), "region = \"three\"\n[log]\nlevel = \"warn\"\n", 0o600)
	write(t, filepath.Join(dir, "conf.d", "10.toml"), "region = \"two\"\n[[instance]]\nid = \"kst-more\"\ntype = \"hardware\"\n", 0o600)
	write(t, filepath.Join(dir, "conf.d", "30.toml.bak"), "nonsense", 0o600)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.Region != "three" || c.Log.Level != "warn" || len(c.Instances) != 2 || c.Instances[1].ID != "kst-more" || len(c.Members) != 1 || len(c.Files) != 3 {
		t.Errorf("loaded %+v", c)
	}
	// A mistake there is placed there, also when it shows only in the whole.
	write(t, filepath.Join(dir, "conf.d", "40.toml"), "\n[[instance]]\nid = \"kst-more\"\ntype = \"hardware\"\n", 0o600)
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "40.toml:3:") {
		t.Errorf("got %v", err)
	}
}

func TestNoFile(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.toml")); err == nil || !strings.Contains(err.Error(), "keywardd dev") {
		t.Errorf("got %v", err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(good)
	f.Add("[[member]]\n[member.environment]\nA = '''\nx = 1\n'''\n")
	f.Add("a.b.c = [[1]]\n[x]\n[[y.z]]\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "keyward.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := Load(path); (c == nil) == (err == nil) {
			t.Errorf("%v and %v", c, err)
		}
	})
}

// TestServices sees that rows of several files add up, and that root may be a service when a unit narrows it.
func TestServices(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "pin"), "1234\n", 0o600)
	path := filepath.Join(dir, "keyward.toml")
	write(t, path, strings.ReplaceAll(good, "%DIR%", dir)+"\n[[service]]\ncode = \"disks\"\nname = \"Disks\"\nentry = \"https://disks.example/\"\nprincipals = [\"acs:ram::1000000000000001:root\"]\nunit = \"disks.service\"\n", 0o600)
	write(t, filepath.Join(dir, "conf.d", "queue.toml"), "[[service]]\ncode = \"queue\"\nprincipals = [\"acs:ram::1000000000000001:role/queue\", \"acs:ram::1000000000000001:user/queue\"]\n", 0o600)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Services) != 2 || c.Services[0].Unit != "disks.service" || c.Services[0].Name != "Disks" || len(c.Services[1].Principals) != 2 {
		t.Errorf("loaded %+v", c.Services)
	}
}
