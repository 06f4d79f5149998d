//go:build appliance

package appliance

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// terminal is a program in the machine at a terminal, at which somebody types.
type terminal struct {
	m    *machine
	cmd  *exec.Cmd
	keys io.WriteCloser

	mu   sync.Mutex
	said bytes.Buffer
	read int // octets of said that were waited for
}

func (t *terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.said.Write(p)
}

// terminal starts a program with variables of its environment, each NAME=VALUE.
func (m *machine) terminal(program string, environment ...string) *terminal {
	m.t.Helper()
	t := &terminal{m: m, cmd: m.command(append(environment, "script", "--quiet", "--return", "--command", "exec "+program, "/dev/null")...)}
	t.cmd.Stdout, t.cmd.Stderr = t, t
	t.cmd.WaitDelay = 5 * time.Second
	var err error
	if t.keys, err = t.cmd.StdinPipe(); err != nil {
		m.t.Fatal(err)
	}
	if err := t.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	return t
}

// expect waits until it says what the pattern matches, after what was waited for before.
func (t *terminal) expect(pattern string) []string {
	t.m.t.Helper()
	for deadline := time.Now().Add(waiting); ; time.Sleep(10 * time.Millisecond) {
		t.mu.Lock()
		rest := t.said.String()[t.read:]
		found := regexp.MustCompile(pattern).FindStringSubmatchIndex(rest)
		if found != nil {
			t.read += found[1]
		}
		t.mu.Unlock()
		if found != nil {
			var groups []string
			for i := 0; i < len(found); i += 2 {
				groups = append(groups, rest[found[i]:found[i+1]])
			}
			return groups
		}
		if time.Now().After(deadline) {
			t.m.t.Fatalf("this does not say %q:\n%s", pattern, rest)
		}
	}
}

func (t *terminal) types(text string) {
	t.m.t.Helper()
	if _, err := io.WriteString(t.keys, text); err != nil {
		t.m.t.Fatal(err)
	}
}

// ends waits for the program, and gives all that it said.
func (t *terminal) ends(code int) string {
	t.m.t.Helper()
	timer := time.AfterFunc(waiting, func() { _ = t.cmd.Process.Kill() }) // it asks for more than the test has to say
	defer timer.Stop()
	_ = t.cmd.Wait() // the code is looked at
	said := t.said.String()
	if got := t.cmd.ProcessState.ExitCode(); got != code {
		t.m.t.Fatalf("the exit code is %d, not %d:\n%s", got, code, said)
	}
	return said
}

// answer answers what init asks from the first token on; pins are by label, names what keyward shall call tokens beside their labels.
func (t *terminal) answer(pins, names map[string]string) {
	t.m.t.Helper()
	for range pins {
		label := t.expect(`Use "(east|west)" .*\[yes\] $`)[1]
		t.types("\n")
		t.expect(`keyward call it\? \[` + label + `\] $`)
		t.types(names[label] + "\n")
		t.expect("PIN of " + label + ": $")
		t.types(pins[label] + "\n")
	}
	t.expect(`recovery share\? \[3\] $`)
	t.types("\n")
	t.expect(`master keys back\? \[2\] $`)
	t.types("\n")
	t.expect(`Make them\? \[no\] $`)
	t.types("yes\n")
}

const ctrlC = "\x03"

// shares looks at the first n shares, and ends the last of them with keys.
func (t *terminal) shares(n int, keys string) {
	t.m.t.Helper()
	for i := range n {
		t.expect(`Recovery share ` + string(rune('1'+i)) + ` of 3[^\x1b]*\[done\] $`)
		if i < n-1 {
			t.types("\n")
		}
	}
	t.types(keys)
}

// TestInitInTerminal sets an appliance up as a person does who makes mistakes.
func TestInitInTerminal(t *testing.T) {
	m := boot(t, os.Getenv("KEYWARD_TREE"), os.Getenv("KEYWARD_DIST")+":/dist")
	m.run("dpkg", "--install", "/dist/keyward_1.0.0-1_amd64.deb")

	// Nothing is asked for nothing.
	if said := m.terminal("keywardctl init").ends(1); !strings.Contains(said, "there is no token to use") || strings.Contains(said, "How many people") {
		t.Errorf("no token: %s", said)
	}

	// The configuration of the library is for a group that the user keyward is in.
	makeTokens := "rm -rf /var/lib/hsm/*; for n in east west; do setpriv --reuid keyward --regid keyward --init-groups env SOFTHSM2_CONF=/etc/keyward/softhsm2.conf softhsm2-util --init-token --free --label $n --so-pin 12345678 --pin " + pin + " >/dev/null; done"
	m.sh("groupadd nfast; usermod --append --groups nfast keyward; install -d -m 700 -o keyward -g keyward /var/lib/hsm; echo directories.tokendir = /var/lib/hsm >/etc/keyward/softhsm2.conf; " +
		"chown root:nfast /etc/keyward/softhsm2.conf; chmod 640 /etc/keyward/softhsm2.conf; " + makeTokens)
	pins, mistyped := map[string]string{"east": pin, "west": pin}, map[string]string{"east": "9999", "west": pin}

	// What this shell has, and the service will not have, does not help.
	c := m.terminal("keywardctl init", "SOFTHSM2_CONF=/etc/keyward/softhsm2.conf")
	c.expect(`SOFTHSM2_CONF=/etc/keyward/softhsm2.conf is set here.*\[yes\] $`)
	c.types("no\n")
	m.says(c.ends(1), "there is no token to use")

	// A PIN is mistyped.
	c = m.terminal("keywardctl init", "SOFTHSM2_CONF=/etc/keyward/softhsm2.conf")
	c.expect(`SOFTHSM2_CONF=/etc/keyward/softhsm2.conf is set here.*\[yes\] $`)
	c.types("\n")
	c.answer(mistyped, nil)
	m.says(c.ends(1), "the PIN that you typed for east was refused", "run keywardctl init again")
	again := "keywardctl init --environment SOFTHSM2_CONF=/etc/keyward/softhsm2.conf"
	c = m.terminal(again)
	c.answer(pins, nil)
	c.shares(2, ctrlC)
	m.says(c.ends(1), "master keys:    made, in 2 tokens", "interrupted", "in memory (/run) and lost when this machine restarts")

	// It restarts, as far as the shares can tell.
	m.sh("rm -rf /run/keyward-init-*")
	m.says(m.terminal(again).ends(1), "the recovery shares were never given, and are lost", "rm -rf /var/lib/keyward/*")
	said, code := m.try("keywardctl", "doctor")
	if code != 7 {
		t.Errorf("doctor ends with %d", code)
	}
	m.says(said, "the recovery shares were never given, and are lost")

	// Begun again, with another name for one of them.
	m.sh("systemctl stop keywardd.service 2>/dev/null; rm -rf /var/lib/keyward/*; " + makeTokens)
	c = m.terminal(again)
	c.answer(pins, map[string]string{"east": "first"})
	c.shares(2, ctrlC)
	m.says(c.ends(1), "interrupted", "in memory (/run)")
	m.says(m.sh("ls /etc/systemd/system /etc/keyward/credentials"), "keyward-hsm@first.service.d", "first.cred")
	if said := m.sh("find /etc/systemd/system /etc/keyward/credentials -path '*east*' -type f"); said != "" {
		t.Errorf("this is left of another name: %s", said)
	}
	said, code = m.try("keywardctl", "doctor")
	m.says(said, "the recovery shares were given to nobody yet")
	if code != 7 {
		t.Errorf("doctor ends with %d", code)
	}

	// The user keyward can't put another file in a share's place; if somebody could, it would be noticed.
	share := strings.TrimSpace(m.sh("umask 077; echo victim >/root/victim; ls /run/keyward-init-*/shares/share-1-of-3"))
	if said, code := m.try("setpriv", "--reuid", "keyward", "--regid", "keyward", "--clear-groups", "ln", "-sf", "/root/victim", share); code == 0 {
		t.Errorf("the user keyward replaced a share: %s", said)
	}
	m.sh("mv " + share + " /run/share; ln -s /root/victim " + share)
	if said := m.terminal(again).ends(1); strings.Contains(said, "victim\n") || strings.Contains(said, "Recovery share") {
		t.Errorf("another file is shown: %s", said)
	}
	m.says(m.run("cat", "/root/victim"), "victim")
	m.sh("mv /run/share " + share)

	// Interrupted once more, and at last done.
	c = m.terminal(again)
	c.shares(1, ctrlC)
	m.says(c.ends(1), "interrupted", "in memory (/run)")
	c = m.terminal(again)
	c.shares(3, "\n")
	m.says(c.ends(0), "signed test:    good", "keyward runs")
	m.says(m.run("keywardctl", "doctor"), "2, and all serve")
	m.says(m.sh("ls -d /run/keyward-init-* /var/lib/keyward/shares-not-given 2>&1 || true"), "cannot access '/run/keyward-init-*'", "cannot access '/var/lib/keyward/shares-not-given'")
}
