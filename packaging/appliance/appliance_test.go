//go:build appliance

// Package appliance installs keyward's package on a Debian 12 that really boots, in a container, and does what administrators do with it. make appliance
// builds what it needs and runs it. It is for root.
package appliance

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// machine is a booted container. What it writes is in memory, and gone with it.
type machine struct {
	t      *testing.T
	nspawn *exec.Cmd
	leader int // its first process
}

// waiting is how long anything may take that has no limit of its own.
const waiting = 90 * time.Second

// boot starts the tree with the folders of packages and programs in it.
func boot(t *testing.T, tree string, binds ...string) *machine {
	t.Helper()
	args := []string{"--quiet", "--directory", tree, "--volatile=overlay", "--register=no", "--keep-unit", "--private-network", "--console=pipe", "--boot"}
	for _, b := range binds {
		args = append(args, "--bind-ro="+b)
	}
	console := &bytes.Buffer{}
	m := &machine{t: t, nspawn: exec.Command("systemd-nspawn", args...)}
	m.nspawn.Stdout, m.nspawn.Stderr = console, console
	m.nspawn.WaitDelay = 5 * time.Second
	if err := m.nspawn.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.nspawn.Process.Signal(os.Interrupt); err == nil {
			_ = m.nspawn.Process.Kill() // nothing in it is to be kept
		}
		_ = m.nspawn.Wait() // it was killed
		if m.leader != 0 {
			_ = (&os.Process{Pid: m.leader}).Kill() // with all that is in its namespace
		}
	})
	for deadline := time.Now().Add(waiting); ; time.Sleep(50 * time.Millisecond) {
		out, _ := exec.Command("pgrep", "-P", strconv.Itoa(m.nspawn.Process.Pid)).Output() // none yet
		if pid, err := strconv.Atoi(strings.TrimSpace(string(out))); err == nil {
			m.leader = pid
			if state, _ := m.try("systemctl", "is-system-running"); strings.HasPrefix(state, "running") {
				return m
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not boot:\n%s", console)
		}
	}
}

func (m *machine) command(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--target", strconv.Itoa(m.leader), "--all", "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"}, args...)...)
}

// try runs a program in the machine, and gives what it said and its exit code.
func (m *machine) try(args ...string) (said string, code int) {
	m.t.Helper()
	out, err := m.command(args...).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(out), exit.ExitCode()
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return string(out), 0
}

// run runs a program that must end with 0.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	said, code := m.try(args...)
	if code != 0 {
		log, _ := m.try("bash", "-c", "journalctl -u keywardd --no-pager | grep -v audit | tail -30")
		m.t.Fatalf("%s: exit code %d\n%s\n%s", strings.Join(args, " "), code, said, log)
	}
	return said
}

// sh runs a shell script that must end with 0.
func (m *machine) sh(script string) string {
	m.t.Helper()
	return m.run("bash", "-euo", "pipefail", "-c", script)
}

// says sees that a text has all words.
func (m *machine) says(text string, words ...string) {
	m.t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			m.t.Errorf("this does not say %q:\n%s", w, text)
		}
	}
}

// show is a property of the service.
func (m *machine) show(property string) string {
	m.t.Helper()
	return strings.TrimSpace(m.run("systemctl", "show", "--value", "-p", property, "keywardd.service"))
}

// back waits until another process serves than was before.
func (m *machine) back(was string, within time.Duration) time.Duration {
	m.t.Helper()
	began := time.Now()
	for {
		if now := m.show("MainPID"); now != was && now != "0" {
			if _, code := m.try("keywardctl", "status"); code == 0 {
				return time.Since(began)
			}
		}
		if time.Since(began) > within {
			m.t.Fatalf("after %v it does not serve again:\n%s", within, m.run("bash", "-c", "journalctl -u keywardd --no-pager | grep -v audit | tail -30"))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// load is a program that uses keys through PKCS #11 without a pause. It ends with the first call that fails.
type load struct {
	m    *machine
	cmd  *exec.Cmd
	said bytes.Buffer
}

// loads starts some as the unprivileged user, for so many seconds. stock: through p11-kit's own module too, which can't connect again.
func (m *machine) loads(seconds int, stock bool) (all []*load) {
	m.t.Helper()
	module := strings.TrimSpace(m.sh("ls /usr/lib/*/pkcs11/libkeyward-pkcs11.so"))
	programs := [][]string{{"-s", "1", "-k", "web", module, "p256"}, {"-s", "0", "-k", "soft", module, "p256"}, {module, "random"}}
	if stock {
		client := strings.TrimSpace(m.sh("ls /usr/lib/*/pkcs11/p11-kit-client.so"))
		programs = append(programs, []string{"-s", "1", "-k", "web", client, "p256"}, []string{"-s", "0", "-k", "soft", client, "p256"})
	}
	for _, args := range programs {
		l := &load{m: m, cmd: m.command(append([]string{"KEYWARD_PKCS11_TIMEOUT=60", "P11_KIT_SERVER_ADDRESS=unix:path=/run/keyward/pkcs11.sock", "setpriv", "--reuid", "app", "--regid", "app", "--clear-groups", "/programs/bench", "-v", "-n", "4", "-t",
			strconv.Itoa(seconds)}, args...)...)}
		l.cmd.Stdout, l.cmd.Stderr = &l.said, &l.said
		if err := l.cmd.Start(); err != nil {
			m.t.Fatal(err)
		}
		all = append(all, l)
	}
	time.Sleep(time.Second) // they are at work when what comes comes
	return all
}

// unharmed waits for the end of loads, of which no call may have failed.
func (m *machine) unharmed(what string, all []*load) {
	m.t.Helper()
	for _, l := range all {
		if err := l.cmd.Wait(); err != nil {
			m.t.Errorf("%s: %v: %v\n%s", what, l.cmd.Args[len(l.cmd.Args)-1], err, &l.said)
		}
		m.t.Logf("%s: %s", what, strings.TrimSpace(l.said.String()))
	}
}

const answers = `
shares_dir = "/setup/shares"
[[member]]
name = "hsm-a"
module = "/usr/lib/softhsm/libsofthsm2.so"
token_label = "east"
pin_file = "/setup/east.pin"
environment = { SOFTHSM2_CONF = "/etc/keyward/softhsm2.conf" }
[[member]]
name = "hsm-b"
module = "/usr/lib/softhsm/libsofthsm2.so"
token_label = "west"
pin_file = "/setup/west.pin"
environment = { SOFTHSM2_CONF = "/etc/keyward/softhsm2.conf" }
`

const pin = "4711-not-to-be-found"

// peers maps the unprivileged user to a principal.
const peers = "[[peer]]\nuid = %s\nprincipal = \"acs:ram::1000000000000001:user/app\"\n"

const openssl = `openssl_conf = init
[init]
engines = engines
[engines]
pkcs11 = pkcs11
[pkcs11]
engine_id = pkcs11
MODULE_PATH = %s
init = 0
[req]
distinguished_name = dn
[dn]
`

func TestAppliance(t *testing.T) {
	tree, dist, programs := os.Getenv("KEYWARD_TREE"), os.Getenv("KEYWARD_DIST"), os.Getenv("KEYWARD_PROGRAMS")
	if tree == "" || dist == "" || programs == "" {
		t.Fatal("make appliance sets KEYWARD_TREE, KEYWARD_DIST and KEYWARD_PROGRAMS")
	}
	m := boot(t, tree, dist+":/dist", programs+":/programs")
	m.run("mkdir", "-m", "700", "/setup")
	write := func(name, text string) {
		t.Helper()
		cmd := m.command("tee", name)
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}

	// Installed, and nothing runs before it is set up.
	m.says(m.run("dpkg", "--install", "/dist/keyward_1.0.0-1_amd64.deb"), "Next: keywardctl init")
	m.run("systemctl", "start", "keywardd.socket", "keywardd-pkcs11.socket", "keywardd.service") // as a boot does
	if said, code := m.try("systemctl", "is-active", "keywardd.socket", "keywardd-pkcs11.socket", "keywardd.service"); code == 0 || strings.TrimSpace(said) != "inactive\ninactive\ninactive" {
		t.Errorf("something runs before it is set up: %s", said)
	}
	said, code := m.try("keywardctl", "doctor")
	if code != 7 {
		t.Errorf("doctor ends with %d", code)
	}
	m.says(said, "keywardctl init makes master keys and store")
	if said, code := m.try("keywardctl", "init"); code != 2 {
		t.Errorf("init with nobody to ask: %d %s", code, said)
	}

	// Set up, with two tokens of SoftHSM2.
	m.sh("install -d -m 700 -o keyward -g keyward /var/lib/hsm; echo directories.tokendir = /var/lib/hsm >/etc/keyward/softhsm2.conf; export SOFTHSM2_CONF=/etc/keyward/softhsm2.conf; " +
		"for n in east west; do setpriv --reuid keyward --regid keyward --clear-groups softhsm2-util --init-token --free --label $n --so-pin 12345678 --pin " + pin +
		" >/dev/null; (umask 077; echo " + pin + " >/setup/$n.pin); done")
	write("/setup/answers.toml", answers+"oops = 1\n")
	if said, code := m.try("keywardctl", "init", "--answers", "/setup/answers.toml"); code != 1 || !strings.Contains(said, "nothing called member.oops") {
		t.Errorf("a word that is not known: %d %s", code, said)
	}
	// The medium for the shares is not there: nothing is made.
	write("/setup/answers.toml", answers)
	said, code = m.try("keywardctl", "init", "--answers", "/setup/answers.toml")
	m.says(said, "shares_dir: ", "mount the medium")
	if code != 1 {
		t.Errorf("an init without a place for the shares: %d", code)
	}
	m.run("mkdir", "-m", "700", "/setup/shares")
	m.says(m.run("keywardctl", "init", "--answers", "/setup/answers.toml"), "encrypted by systemd", "master keys:    made, in 2 tokens", "shares:         3 files in /setup/shares", "signed test:    good")
	m.says(m.sh("ls -d /run/keyward-init-* 2>&1 || true"), "No such file")
	if said, code := m.try("keywardctl", "init", "--answers", "/setup/answers.toml"); code != 1 || !strings.Contains(said, "is set up here already") {
		t.Errorf("a second init: %d %s", code, said)
	}
	m.run("keywardctl", "doctor")
	if n := strings.Count(m.run("find", "/setup/shares", "-name", "share-*-of-3-*", "-perm", "600"), "\n"); n != 3 {
		t.Errorf("there are %d shares", n)
	}
	m.sh("rm /setup/*.pin")
	m.says(m.sh("grep -rl "+pin+" /etc /var /run /setup /home 2>/dev/null | grep -v -e ^/run/credentials/keyward-hsm@hsm- -e ^/var/log/journal/ || echo nowhere"), "nowhere")
	// Of the journal only what is not the command line by which this test made the tokens.
	if said := m.sh("journalctl -o json | grep -v softhsm2-util | grep -c " + pin + " || true"); strings.TrimSpace(said) != "0" {
		t.Errorf("the journal has the PIN, %s times", said)
	}

	// What a reviewer looks at.
	if said := m.run("systemd-analyze", "verify", "--man=no", "keywardd.service", "keywardd.socket", "keywardd-pkcs11.socket", "keyward-hsm@hsm-a.socket", "keyward-hsm@hsm-a.service"); said != "" {
		t.Errorf("systemd-analyze verify: %s", said)
	}
	for _, unit := range []string{"keywardd.service", "keyward-hsm@hsm-a.service"} {
		review := m.run("systemd-analyze", "security", "--no-pager", unit)
		score := regexp.MustCompile(`exposure level for [^:]*: ([0-9.]+)`).FindStringSubmatch(review)
		t.Logf("systemd-analyze security:\n%s\n%s", strings.Join(regexp.MustCompile(`(?m)^✗.*`).FindAllString(review, -1), "\n"), score[0])
		if value, err := strconv.ParseFloat(score[1], 64); err != nil || value > 1.5 {
			t.Errorf("the exposure level is %v", score)
		}
	}
	// The daemon has no library of an HSM in it, no PIN, and no network.
	pid := m.show("MainPID")
	if said := m.sh("grep -c softhsm /proc/" + pid + "/maps || true"); strings.TrimSpace(said) != "0" {
		t.Error("the daemon has SoftHSM2 in it")
	}
	if said := m.sh("nsenter --target " + pid + " --net ip -brief link 2>/dev/null || nsenter --target " + pid + " --net cat /proc/net/dev"); strings.Contains(said, "host0") || strings.Contains(said, "eth") {
		t.Errorf("the daemon has a network: %s", said)
	}
	if said, code := m.try("ls", "/run/credentials/keywardd.service"); code == 0 {
		t.Errorf("the daemon has credentials: %s", said)
	}

	// A user without any rights uses keys through OpenSSL and the ctl.
	m.sh("useradd --create-home app && usermod --append --groups keyward app")
	write("/etc/keyward/conf.d/peers.toml", fmt.Sprintf(peers, strings.TrimSpace(m.run("id", "--user", "app"))))
	m.run("systemctl", "reload", "keywardd")
	m.sh("echo 'oops = 1' >/etc/keyward/conf.d/oops.toml")
	if said, code := m.try("systemctl", "reload", "keywardd"); code == 0 {
		t.Errorf("a reload of a configuration with a mistake: %s", said)
	}
	m.sh("rm /etc/keyward/conf.d/oops.toml; systemctl reload keywardd")
	m.sh("keywardctl principal create user/app; for p in pkcs11 crypto; do keywardctl policy attach user/app --preset $p; done; " +
		"keywardctl key create --instance kst-hardware --spec EC_P256 --usage SIGN/VERIFY --alias web; keywardctl key create --instance kst-software --spec EC_P256 --usage SIGN/VERIFY --alias soft; " +
		"keywardctl key create --instance kst-hardware --spec RSA_2048 --alias tls")
	module := strings.TrimSpace(m.sh("ls /usr/lib/*/pkcs11/libkeyward-pkcs11.so"))
	write("/home/app/openssl.cnf", fmt.Sprintf(openssl, module))
	m.says(m.run("runuser", "-u", "app", "--", "bash", "-euc", `cd; export OPENSSL_CONF=$HOME/openssl.cnf
		openssl req -new -engine pkcs11 -keyform engine -key 'pkcs11:token=kst-hardware;object=tls;type=private' -subj /CN=app -out app.csr
		openssl req -in app.csr -verify -noout
		echo hello >letter; keywardctl sign --key alias/web letter && keywardctl verify --key alias/web --signature letter.sig letter
		keywardctl encrypt --key alias/web letter 2>&1 || echo refused`), "Certificate request self-signature verify OK", "refused")
	m.says(m.run("p11-kit", "list-modules"), "libkeyward-pkcs11.so")

	// It starts with the first client of either socket.
	for _, client := range [][]string{{"keywardctl", "status"}, {"pkcs11-tool", "--module", module, "-L"}} {
		m.sh("systemctl stop keywardd.service 2>/dev/null")
		if state, _ := m.try("systemctl", "is-active", "keywardd.service"); strings.TrimSpace(state) != "inactive" {
			t.Errorf("stopped it is %s", state)
		}
		m.run(client...)
		if state, _ := m.try("systemctl", "is-active", "keywardd.service"); strings.TrimSpace(state) != "active" {
			t.Errorf("after %v it is %s", client, state)
		}
	}

	// An upgrade under load.
	was := m.show("MainPID")
	all := m.loads(12, true)
	m.run("dpkg", "--install", "/dist/keyward_1.0.1-1_amd64.deb")
	t.Logf("upgrade: served again %v after dpkg ended", m.back(was, waiting))
	m.unharmed("upgrade", all)
	m.says(m.run("keywardctl", "status"), "1.0.1")
	m.run("keywardctl", "doctor")

	// The daemon is killed.
	was = m.show("MainPID")
	all = m.loads(8, false)
	m.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "keywardd")
	if took := m.back(was, waiting); took > 2*time.Second {
		t.Errorf("kill -9: served again after %v", took)
	} else {
		t.Logf("kill -9: served again after %v", took)
	}
	m.unharmed("kill -9", all)

	// The processes of an HSM are killed.
	was = m.show("MainPID")
	all = m.loads(5, true)
	m.run("systemctl", "kill", "--signal=KILL", "keyward-hsm@hsm-a.service")
	m.unharmed("a worker killed", all)
	if now := m.show("MainPID"); now != was {
		t.Errorf("the daemon was %s and is %s", was, now)
	}

	// It hangs, and systemd sees that.
	m.sh("mkdir -p /run/systemd/system/keywardd.service.d; printf '[Service]\\nWatchdogSec=3s\\n' >/run/systemd/system/keywardd.service.d/test.conf; systemctl daemon-reload; systemctl restart keywardd")
	was = m.show("MainPID")
	m.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "keywardd")
	t.Logf("stopped: the watchdog had it serve again after %v", m.back(was, waiting))
	m.says(m.run("journalctl", "-u", "keywardd", "--no-pager"), "Watchdog timeout")

	// systemd knows how it is, and the journal has fields to look for.
	for deadline := time.Now().Add(waiting); !strings.Contains(m.show("StatusText"), "keys, 2 of 2 HSM members up, 0 requests/s"); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the status is %q", m.show("StatusText"))
		}
	}
	m.says(m.run("journalctl", "--no-pager", "-o", "cat", "VERSION=1.0.1"), "ready")

	// The journal has the audit of all of it.
	if said, code := m.try("bash", "-c", "journalctl --no-pager | grep Suppressed"); code == 0 {
		t.Errorf("the journal dropped messages: %s", said)
	}

	// All HSMs are lost. New tokens, two of the three shares, and the store goes on.
	m.sh("cd /setup; echo hello >letter; keywardctl sign --key alias/web letter; keywardctl key create --instance kst-hardware --alias files; echo secret | keywardctl encrypt --key alias/files >secret.age")
	m.sh("systemctl stop keywardd.service; rm -rf /var/lib/hsm/*; export SOFTHSM2_CONF=/etc/keyward/softhsm2.conf; " +
		"for n in east west; do setpriv --reuid keyward --regid keyward --clear-groups softhsm2-util --init-token --free --label $n --so-pin 12345678 --pin " + pin + " >/dev/null; (umask 077; echo " + pin + " >/setup/$n.pin); done")
	one, three := strings.TrimSpace(m.sh("ls /setup/shares/share-1-of-3-*")), strings.TrimSpace(m.sh("ls /setup/shares/share-3-of-3-*"))
	if said, code := m.try("keywardctl", "init", "--recover", "--answers", "/setup/answers.toml", "--share", one); code == 0 || !strings.Contains(said, "too few") {
		t.Errorf("one share: %d %s", code, said)
	}
	m.says(m.run("keywardctl", "init", "--recover", "--answers", "/setup/answers.toml", "--share", one, "--share", three), "recovered, in 2 tokens", "signed test:    good")
	m.says(m.sh("cd /setup; rm /setup/*.pin; keywardctl verify --key alias/web --signature letter.sig letter; keywardctl sign --key alias/web --force letter 2>&1 || true; keywardctl decrypt <secret.age"), "secret")
	m.run("keywardctl", "doctor")

	// Removed, the keys are still there; purged they are only when it is said twice.
	m.run("dpkg", "--remove", "keyward")
	m.run("test", "-s", "/var/lib/keyward/store.db")
	if _, code := m.try("systemctl", "is-active", "keywardd.socket"); code == 0 {
		t.Error("the socket is there still")
	}
	m.run("dpkg", "--install", "/dist/keyward_1.0.1-1_amd64.deb")
	m.run("keywardctl", "key", "describe", "alias/web") // all that ran runs again
	m.run("keywardctl", "doctor")
	m.run("dpkg", "--remove", "keyward")
	said, code = m.try("dpkg", "--purge", "keyward")
	m.says(said, "a purge would destroy them", "touch /var/lib/keyward/purge-the-keys")
	if code == 0 {
		t.Error("a purge destroyed the keys")
	}
	m.run("test", "-s", "/var/lib/keyward/store.db", "-a", "-s", "/etc/keyward/keyward.toml")
	m.run("touch", "/var/lib/keyward/purge-the-keys")
	m.run("dpkg", "--purge", "keyward")
	for _, path := range []string{"/var/lib/keyward", "/etc/keyward", "/run/keyward"} {
		if said, code := m.try("ls", "-A", path); code == 0 {
			t.Errorf("%s is there after a purge: %s", path, said)
		}
	}
}
