package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/kms/kmswire"
)

// manager plays systemd's part: it passes sockets, hears messages, and keeps files from one daemon to the next.
type manager struct {
	t      *testing.T
	path   string
	notify *net.UnixConn
	admin  *os.File
	pkcs11 *os.File

	mu    sync.Mutex // guards what follows
	heard []string
	store []*os.File // by the name under which the daemon wants them kept
}

func newManager(t *testing.T, dir string) *manager {
	t.Helper()
	m := &manager{t: t, path: filepath.Join(dir, "notify")}
	listen := func(name string) *os.File {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		if err := os.Chmod(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	m.admin, m.pkcs11 = listen("admin.sock"), listen("pkcs11.sock")
	var err error
	if m.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	var listening sync.WaitGroup
	listening.Go(m.listen)
	t.Cleanup(func() {
		m.notify.Close()
		listening.Wait()
		m.forget("")
	})
	return m
}

func (m *manager) listen() {
	buf, oob := make([]byte, 4096), make([]byte, 4096)
	for {
		n, oobn, _, _, err := m.notify.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		message := string(buf[:n])
		var files []*os.File
		all, _ := syscall.ParseSocketControlMessage(oob[:oobn]) // none, if it can't be read
		for i := range all {
			fds, _ := syscall.ParseUnixRights(&all[i])
			for _, fd := range fds {
				syscall.CloseOnExec(fd)
				files = append(files, os.NewFile(uintptr(fd), strings.TrimPrefix(message, "FDSTORE=1\nFDNAME=")))
			}
		}
		m.mu.Lock()
		m.heard = append(m.heard, message)
		m.mu.Unlock()
		switch name, removed := strings.CutPrefix(message, "FDSTOREREMOVE=1\nFDNAME="); {
		case removed:
			m.forget(name)
		case strings.HasPrefix(message, "FDSTORE=1\n"):
			m.mu.Lock()
			m.store = append(m.store, files...)
			m.mu.Unlock()
		default: // a barrier ends when its file does
			for _, f := range files {
				f.Close()
			}
		}
	}
}

// forget closes what is kept under a name; empty: all.
func (m *manager) forget(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.store = slices.DeleteFunc(m.store, func(f *os.File) bool {
		gone := name == "" || f.Name() == name
		if gone {
			f.Close()
		}
		return gone
	})
}

// start starts a daemon, and waits until it is ready.
func (m *manager) start(conf string) (end func()) {
	m.t.Helper()
	m.mu.Lock()
	before := len(m.heard)
	files, names := []*os.File{m.admin, m.pkcs11}, []string{"admin", "pkcs11"}
	for _, f := range m.store {
		files, names = append(files, f), append(names, f.Name())
	}
	m.mu.Unlock()
	log := &text{}
	cmd := exec.Command("sh", "-c", `export LISTEN_PID=$$; exec keywardd run --config "$1"`, "sh", conf)
	cmd.Env = append(os.Environ(), fmt.Sprint("LISTEN_FDS=", len(files)), "LISTEN_FDNAMES="+strings.Join(names, ":"), "NOTIFY_SOCKET="+m.path)
	cmd.ExtraFiles, cmd.Stderr = files, log
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(5 * time.Millisecond) {
		m.mu.Lock()
		ready := slices.ContainsFunc(m.heard[before:], func(s string) bool { return strings.HasPrefix(s, "READY=1") })
		m.mu.Unlock()
		if ready {
			break
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			m.t.Fatalf("it does not become ready\n%s", log)
		}
	}
	return func() {
		m.t.Helper()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			m.t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			m.t.Errorf("%v\n%s", err, log)
		}
		for line := range strings.Lines(log.String()) {
			if !strings.Contains(line, "\"audit\"") {
				m.t.Log(strings.TrimSpace(line))
			}
		}
	}
}

// TestUpgrade replaces the daemon three times under programs that use its keys without a pause through p11-kit's own client, which can't connect again: their
// connections go on with the next daemon, and no call fails.
func TestUpgrade(t *testing.T) {
	programs, err := build()
	if err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	bench := filepath.Join(dir, "bench")
	if out, err := exec.Command("gcc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-pthread", "-o", bench, "../pkcs11front/module/test/bench.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p := startDev(t, programs.keywardd, dir)
	for _, instance := range []string{"kst-software", "kst-hardware"} {
		key := createKey(t, p, kmswire.CreateKeyRequest{DKMSInstanceID: instance, KeySpec: kmswire.ECP256, KeyUsage: kmswire.SignVerify})
		call[kmswire.Answer](t, p, "CreateAlias", &kmswire.CreateAliasRequest{KeyID: key, AliasName: "alias/sign-" + instance})
	}
	p.stop()
	m := newManager(t, dir)
	conf := filepath.Join(dir, "k", "keyward.toml")
	end := m.start(conf)
	client := p11kitClient(t)
	var all []*exec.Cmd
	var said []*text
	for _, args := range [][]string{{"-n", "4", client, "random"}, {"-n", "4", "-k", "sign-kst-software", client, "p256"}, {"-n", "4", "-s", "1", "-k", "sign-kst-hardware", client, "p256"},
		{"-n", "2", "-k", "sign-kst-software", client, "find"}} {
		cmd := exec.Command(bench, append([]string{"-v", "-t", "600"}, args...)...)
		cmd.Env = append(os.Environ(), "P11_KIT_SERVER_ADDRESS=unix:path="+filepath.Join(dir, "pkcs11.sock"))
		out := &text{}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all, said = append(all, cmd), append(said, out)
		t.Cleanup(func() {
			if cmd.ProcessState == nil { // the test has given up
				_ = cmd.Process.Kill()
				_ = cmd.Wait() // it was killed
			}
		})
	}
	status := admin.NewClient(filepath.Join(dir, "admin.sock"))
	defer status.Close()
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(5 * time.Millisecond) {
		st, err := status.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.PKCS11.Sessions == 14 { // all threads of all programs
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the programs don't get to work: %+v\n%s", st.PKCS11, said)
		}
	}
	for range 3 {
		time.Sleep(time.Second) // the programs are at work meanwhile
		end()
		m.mu.Lock()
		kept := len(m.store)
		m.mu.Unlock()
		if kept != len(all)+1 { // and the state
			t.Errorf("%d files are kept, not %d", kept, len(all)+1)
		}
		end = m.start(conf)
	}
	for _, cmd := range all {
		if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil { // it is enough
			t.Error(err)
		}
	}
	for i, cmd := range all {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v\n%s", cmd.Args[1:], err, said[i])
		}
		t.Logf("%s", said[i])
	}
	end()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.store) != 0 {
		t.Errorf("%d files are kept of programs that have ended", len(m.store))
	}
}
