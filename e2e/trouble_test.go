package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

// refused runs a daemon that must not start, and returns what it said.
func refused(t *testing.T, args ...string) string {
	t.Helper()
	return refusedWith(t, 1, args...)
}

// refusedWith runs keywardd, which must end with that exit code, and gives what it says.
func refusedWith(t *testing.T, code int, args ...string) string {
	t.Helper()
	out, err := exec.Command("keywardd", args...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != code {
		t.Fatalf("keywardd %v ended with %v:\n%s", args, err, out)
	}
	return string(out)
}

func mustSay(t *testing.T, said string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(said, w) {
			t.Errorf("this does not say %q:\n%s", w, said)
		}
	}
}

func copyFile(t *testing.T, to, from string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestPINTrouble takes PINs away and makes them wrong. A wrong one is tried once, which the token counts.
func TestPINTrouble(t *testing.T) {
	dir := shortDir(t)
	p := startDev(t, "keywardd", dir)
	key := createKey(t, p, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware"})
	p.stop()
	k := filepath.Join(dir, "k")
	conf := filepath.Join(k, "keyward.toml")
	east, west := filepath.Join(k, "east.pin"), filepath.Join(k, "west.pin")
	pins := map[string][]byte{}
	for _, f := range []string{east, west} {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		pins[f] = data
	}
	put := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}

	if err := os.Remove(east); err != nil {
		t.Fatal(err)
	}
	mustSay(t, refusedWith(t, 78, "run", "--config", conf), "keyward.toml:", `member "east"`, "east.pin is not there")
	put(east, string(pins[east]), 0o644)
	mustSay(t, refusedWith(t, 78, "run", "--config", conf), `member "east"`, "mode 0644", "chmod 0600")

	// One wrong PIN: the other member serves, and the daemon says which is refused.
	put(east, "not-the-pin", 0o600)
	p = startDev(t, "keywardd", dir)
	p.mustWork(key)
	client := admin.NewClient(p.socket)
	st, err := client.Status(context.Background())
	client.Close()
	if err != nil {
		t.Fatal(err)
	}
	if st.State != admin.Degraded || st.Members[0].State != "down" || !strings.Contains(st.Members[0].Reason, "PIN") {
		t.Errorf("with a wrong PIN the status is %+v", st)
	}
	// An operator mends it while the daemon runs; without the mark taken away a reload does not try.
	put(east, string(pins[east]), 0o600)
	if code, said := keywardctl(t, p, "reload"); code != 0 {
		t.Errorf("reload: %d, %s", code, said)
	}
	mustSay(t, eastReason(t, p), "down", "PIN", "keywardctl reload")
	if err := os.Remove(filepath.Join(k, "state", "pin-refused-east")); err != nil {
		t.Fatal(err)
	}
	if code, said := keywardctl(t, p, "reload"); code != 0 {
		t.Errorf("reload: %d, %s", code, said)
	}
	deadline := time.Now().Add(startTimeout)
	for reason := eastReason(t, p); reason != ""; reason = eastReason(t, p) {
		if time.Now().After(deadline) {
			t.Fatalf("with the right PIN it stays down: %s\n%s", reason, p.log)
		}
		time.Sleep(20 * time.Millisecond) // between two looks
	}
	p.stop()
	mustSay(t, p.log.String(), "an HSM member is down", `"member":"east"`, "the PIN was refused")

	// All wrong: it does not start, and says why.
	put(east, "not-the-pin", 0o600)
	put(west, "not-the-pin", 0o600)
	// The exit code keeps systemd from starting it again, which would try the PIN again.
	said := refusedWith(t, 78, "run", "--config", conf)
	mustSay(t, said, "PIN", "east", "west")
	if strings.Contains(said, "not-the-pin") {
		t.Errorf("the PIN is in the message:\n%s", said)
	}

	// A refusal outlives the process: even the right PIN waits for an operator, who is told what to do.
	put(east, string(pins[east]), 0o600)
	put(west, string(pins[west]), 0o600)
	said = refusedWith(t, 78, "run", "--config", conf)
	for _, name := range []string{"east", "west"} {
		mark := filepath.Join(k, "state", "pin-refused-"+name)
		mustSay(t, said, "rm "+mark)
		if err := os.Remove(mark); err != nil {
			t.Fatal(err)
		}
	}
	p = startDev(t, "keywardd", dir)
	p.mustWork(key)
}

// eastReason gives why the first member of keywardd dev does not serve, "" when it does.
func eastReason(t *testing.T, p *process) string {
	t.Helper()
	client := admin.NewClient(p.socket)
	defer client.Close()
	all, err := client.Members(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if m := all.Members[0]; !m.State.Serves() {
		return string(m.State) + ": " + m.Reason
	}
	return ""
}

// keywardctl runs the program against a daemon, and gives its exit code and all that it says.
func keywardctl(t testing.TB, p *process, args ...string) (int, string) {
	t.Helper()
	out, err := exec.Command("keywardctl", append([]string{"--socket", p.socket}, args...)...).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), string(out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0, string(out)
}

// TestTokensGone takes both tokens away.
func TestTokensGone(t *testing.T) {
	dir := shortDir(t)
	p := startDev(t, "keywardd", dir)
	key := createKey(t, p, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software"})
	p.stop()
	k := filepath.Join(dir, "k")
	if err := os.Rename(filepath.Join(k, "tokens"), filepath.Join(k, "away")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(k, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	mustSay(t, refused(t, "dev", "--dir", k), "east-keyward", "west-keyward")
	if err := errors.Join(os.Remove(filepath.Join(k, "tokens")), os.Rename(filepath.Join(k, "away"), filepath.Join(k, "tokens"))); err != nil {
		t.Fatal(err)
	}
	p = startDev(t, "keywardd", dir)
	p.mustWork(key)
}

// TestForeignStore brings the store of one appliance to the HSMs of another.
func TestForeignStore(t *testing.T) {
	one, two := shortDir(t), shortDir(t)
	p := startDev(t, "keywardd", one)
	key := createKey(t, p, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software"})
	p.stop()
	startDev(t, "keywardd", two).stop()
	store := filepath.Join(two, "k", "state", "store.db")
	copyFile(t, store, filepath.Join(one, "k", "state", "store.db"))
	mustSay(t, refused(t, "dev", "--dir", filepath.Join(two, "k")), "belongs to other master keys", store)

	// With the group's name too, it is the HSMs that do not fit.
	copyFile(t, filepath.Join(two, "k", "state", "hsm-group"), filepath.Join(one, "k", "state", "hsm-group"))
	mustSay(t, refused(t, "dev", "--dir", filepath.Join(two, "k")), "master keys")

	p = startDev(t, "keywardd", one)
	p.mustWork(key)
}

// TestInitTwice sees that a second ceremony changes nothing, and that a start before the first says what to do.
func TestInitTwice(t *testing.T) {
	dir := shortDir(t)
	k := filepath.Join(dir, "k")
	p := startDev(t, "keywardd", dir)
	key := createKey(t, p, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware"})
	p.stop()
	conf := filepath.Join(k, "keyward.toml")
	shares := filepath.Join(dir, "shares")
	mustSay(t, refused(t, "init", "--config", conf, "--shares-dir", shares), "store.db is there already", "Nothing was changed")

	// The state is lost, but not the HSMs: nothing is made over their master keys.
	state := filepath.Join(k, "state")
	if err := os.Rename(state, state+".lost"); err != nil {
		t.Fatal(err)
	}
	mustSay(t, refused(t, "run", "--config", conf), "holds no key store yet", "keywardd init")
	mustSay(t, refused(t, "init", "--config", conf, "--shares-dir", shares), "master keys")
	if err := errors.Join(os.RemoveAll(state), os.Rename(state+".lost", state)); err != nil {
		t.Fatal(err)
	}
	p = startDev(t, "keywardd", dir)
	p.mustWork(key)
}

// TestUnmappedCaller calls as a user that the configuration does not know.
func TestUnmappedCaller(t *testing.T) {
	dir := shortDir(t)
	p := startDev(t, "keywardd", dir)
	p.stop()
	// The same appliance, with a socket that everybody reaches, and without the row of the maker.
	conf := filepath.Join(dir, "k", "keyward.toml")
	config, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(config), "\n[[peer]]")
	run := filepath.Join(dir, "run")
	text = strings.NewReplacer(filepath.Join(dir, "k", "admin.sock"), filepath.Join(run, "admin.sock"), "private = true", "private = false").Replace(text)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	keywardd, err := exec.LookPath("keywardd")
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(run, "admin.sock")
	asRoot := os.Getuid() == 0
	uid := uint32(os.Getuid())
	cmd := exec.Command("keywardctl", "--socket", socket, "key", "list")
	if asRoot {
		uid = 54321
		start(t, socket, keywardd, "run", "--config", conf)
		programs, err := build()
		if err != nil {
			t.Fatal(err)
		}
		// The other user must get at the program and the socket.
		bin := filepath.Join(dir, "keywardctl")
		copyFile(t, bin, programs.keywardctl)
		if err := errors.Join(os.Chmod(bin, 0o755), os.Chmod(dir, 0o755), os.Chmod(run, 0o755), os.Chmod(socket, 0o666)); err != nil {
			t.Fatal(err)
		}
		cmd = exec.Command(bin, "--socket", socket, "key", "list")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		cmd.Dir = "/"
	} else {
		// waitReady needs a known caller, so the log tells.
		daemon := exec.Command(keywardd, "run", "--config", conf)
		pipe, err := daemon.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := daemon.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := errors.Join(daemon.Process.Signal(syscall.SIGTERM), daemon.Wait()); err != nil {
				t.Error(err)
			}
		})
		if err := readUntil(pipe, `"ready"`); err != nil {
			t.Fatal(err)
		}
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("keywardctl as uid %d ended with %v:\n%s", uid, err, out)
	}
	mustSay(t, string(out), "Forbidden.NoPermission", "[[peer]]", fmt.Sprintf("uid = %d", uid))
	status := exec.Command(cmd.Path, "--socket", socket, "status")
	status.SysProcAttr, status.Dir = cmd.SysProcAttr, cmd.Dir
	out, err = status.CombinedOutput()
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("keywardctl status as uid %d ended with %v:\n%s", uid, err, out)
	}
	mustSay(t, string(out), fmt.Sprintf("uid %d", uid), "[[peer]]")
}

// readUntil reads a daemon's log up to a word, and goes on reading in the background so that the daemon never waits.
func readUntil(r io.Reader, word string) error {
	var seen []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(seen, []byte(word)) {
		n, err := r.Read(buf)
		seen = append(seen, buf[:n]...)
		if err != nil {
			return fmt.Errorf("the log ended: %w\n%s", err, seen)
		}
	}
	go io.Copy(io.Discard, r)
	return nil
}

// TestFullDisk fills the disk under the store: what can't be kept is refused with words, the rest goes on, and when
// there is room again so is everything else.
func TestFullDisk(t *testing.T) {
	dir := shortDir(t)
	k := filepath.Join(dir, "k")
	mountTmpfs(t, k, "96m")
	startDev(t, "keywardd", dir).stop()
	p := startDev(t, "keywardd", dir)
	old := createKey(t, p, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software"})
	hard := createKey(t, p, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware"})
	fill(t, filepath.Join(k, "filler"))

	var acknowledged []string
	var refusal *kmsclient.Error
	for range 2000 {
		var answer kmswire.CreateKeyResponse
		err := kmsclient.Call(context.Background(), p.client, "CreateKey", &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", Description: strings.Repeat("x", 4000)}, &answer)
		if err == nil {
			acknowledged = append(acknowledged, answer.KeyMetadata.KeyID)
			continue
		}
		if !errors.As(err, &refusal) {
			t.Fatal(err)
		}
		break
	}
	if refusal == nil {
		t.Fatal("2000 keys fit on a full disk")
	}
	if refusal.Code != "ServiceUnavailableTemporary" || !strings.Contains(refusal.Message, "disk is full") {
		t.Errorf("the refusal is %v", refusal)
	}
	t.Logf("after %d keys: %v", len(acknowledged), refusal)

	// Keys work, and can be disabled, on a full disk.
	p.mustWork(old)
	p.mustWork(hard)
	call[kmswire.EmptyResponse](t, p, "DisableKey", &kmswire.DisableKeyRequest{KeyID: hard})

	if err := os.Remove(filepath.Join(k, "filler")); err != nil {
		t.Fatal(err)
	}
	call[kmswire.EmptyResponse](t, p, "EnableKey", &kmswire.EnableKeyRequest{KeyID: hard})
	for _, key := range append(acknowledged, old, hard) {
		p.mustWork(key)
	}
	again := createKey(t, p, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software"})
	p.stop()
	p = startDev(t, "keywardd", dir)
	for _, key := range append(acknowledged, old, hard, again) {
		p.mustWork(key)
	}
	p.stop()
}

// mountTmpfs mounts a small file system at dir, as root or with sudo.
func mountTmpfs(t *testing.T, dir, size string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	as := func(args ...string) {
		t.Helper()
		if os.Getuid() != 0 {
			args = append([]string{"sudo", "-n"}, args...)
		}
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v (this test needs root, or sudo without a password): %v\n%s", args, err, out)
		}
	}
	as("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%s,mode=0700,uid=%d", size, os.Getuid()), "keyward-test", dir)
	t.Cleanup(func() { as("umount", dir) })
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			size /= 2
		}
	}
}
