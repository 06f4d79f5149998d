package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

// process is a daemon under test.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	log    *text
	ended  chan error // gets what Wait said, once
	socket string
	client *kmsclient.Client
}

// text is a bytes.Buffer that a process may write while the test reads.
type text struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

// Write adds to the text.
func (w *text) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

// String gives the text so far.
func (w *text) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// shortDir makes a directory whose path is short enough for a socket.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "keyward-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// startDev starts keywardd dev in dir/k and waits until it answers. It is stopped at the end of the test.
func startDev(t testing.TB, keywardd, dir string) *process {
	t.Helper()
	k := filepath.Join(dir, "k")
	return start(t, filepath.Join(k, "admin.sock"), keywardd, "dev", "--dir", k)
}

// start starts a daemon and waits until it answers at socket.
func start(t testing.TB, socket, keywardd string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(keywardd, args...), log: &text{}, ended: make(chan error, 1),
		socket: socket, client: &kmsclient.Client{Socket: socket}}
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(p.stop)
	if err := waitReady(socket, startTimeout); err != nil {
		t.Fatalf("%v\n%s", err, p.log)
	}
	return p
}

// stop ends the daemon as systemd does, if it still runs, and sees that it ends well.
func (p *process) stop() {
	p.t.Helper()
	p.client.CloseIdle()
	if p.cmd == nil {
		return
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Errorf("stopping: %v\n%s", err, p.log)
	}
	if err := <-p.ended; err != nil {
		p.t.Errorf("keywardd ended with %v\n%s", err, p.log)
	}
	p.cmd = nil
}

// kill ends the daemon with no chance to do anything.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Errorf("killing: %v", err)
	}
	<-p.ended
	p.cmd = nil
	p.client.CloseIdle()
}

// call does one action that must work.
func call[T any](t testing.TB, p *process, action string, req any) *T {
	t.Helper()
	answer := new(T)
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := kmsclient.Call(ctx, p.client, action, req, answer); err != nil {
		t.Fatalf("%v\n%s", err, p.log)
	}
	return answer
}

// createKey makes a key and returns its id.
func createKey(t testing.TB, p *process, req kmswire.CreateKeyRequest) string {
	t.Helper()
	return call[kmswire.CreateKeyResponse](t, p, "CreateKey", &req).KeyMetadata.KeyID
}

// mustWork sees that the key still encrypts and decrypts.
func (p *process) mustWork(key string) {
	p.t.Helper()
	plain := []byte("a secret of " + key)
	blob := call[kmswire.EncryptResponse](p.t, p, "Encrypt", &kmswire.EncryptRequest{KeyID: key, Plaintext: plain}).CiphertextBlob
	back := call[kmswire.DecryptResponse](p.t, p, "Decrypt", &kmswire.DecryptRequest{CiphertextBlob: blob}).Plaintext
	if !bytes.Equal(plain, back) {
		p.t.Errorf("the key %s decrypts to something else", key)
	}
}

// build builds both programs as they are shipped, without the race detector, and the PKCS #11 module beside them, and returns their paths.
var build = sync.OnceValues(func() (programs, error) {
	dir, err := filepath.Abs("../bin/e2e") // ignored by git, and kept for the next run
	if err != nil {
		return programs{}, err
	}
	p := programs{filepath.Join(dir, "keywardd"), filepath.Join(dir, "keywardctl")}
	for out, pkg := range map[string]string{p.keywardd: "daemon/keywardd", p.keywardctl: "ctl/keywardctl"} {
		cmd := exec.Command("go", "build", "-o", out, "github.com/keyward/keyward/"+pkg)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return programs{}, err
		}
	}
	cmd := exec.Command("make", "-s", "-C", "..", "module")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return programs{}, err
	}
	module, err := os.ReadFile("../bin/libkeyward-pkcs11.so")
	if err != nil {
		return programs{}, err
	}
	return p, os.WriteFile(filepath.Join(dir, "libkeyward-pkcs11.so"), module, 0o755)
})

type programs struct{ keywardd, keywardctl string }
