package hsmpool_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/hsmpool/hsmtest/faulty"
)

// unit plays systemd's part for a member: whoever connects to its socket gets a new worker process, which has the PIN as a credential.
type unit struct {
	socket string

	mu      sync.Mutex // guards what follows
	started int
	running *exec.Cmd
}

func startUnit(t *testing.T, h *hsmtest.HSM, pin string) *unit {
	t.Helper()
	dir, err := os.MkdirTemp("", "keyward-unit-") // t.TempDir is too long a path for a socket
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, hsmpool.OwnPIN), []byte(pin+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u := &unit{socket: filepath.Join(dir, "worker.sock")}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: u.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	command := h.Isolated(1).Worker
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return // closed
			}
			file, err := conn.File()
			conn.Close()
			if err != nil {
				t.Error(err)
				return
			}
			cmd := exec.Command(command[0], command[1:]...)
			cmd.ExtraFiles = []*os.File{file}
			cmd.Env = append(os.Environ(), "CREDENTIALS_DIRECTORY="+dir)
			cmd.Stderr = os.Stderr
			err = cmd.Start()
			file.Close()
			if err != nil {
				t.Error(err)
				return
			}
			u.mu.Lock()
			u.started, u.running = u.started+1, cmd
			u.mu.Unlock()
			all.Go(func() { _ = cmd.Wait() }) // however it ends
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
		os.RemoveAll(dir)
	})
	return u
}

// times gives how many processes were started, and kill ends the last.
func (u *unit) times() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.started
}

func (u *unit) kill(t *testing.T) {
	t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.running.Process.Kill(); err != nil {
		t.Error(err)
	}
}

func unitPool(t *testing.T, u *unit, module string, h *hsmtest.HSM, change func(*hsmpool.MemberConfig)) hsmpool.Config {
	t.Helper()
	c := h.Isolated(1)
	c.Worker = []string{"/nonexistent"} // nothing is to be started by the pool itself
	m := &c.Members[0]
	m.Socket, m.Module = u.socket, module
	m.PIN = func() ([]byte, error) { return []byte{}, nil }
	if change != nil {
		change(m)
	}
	return c
}

// A member whose worker is a unit does all that one with a child does: it works, comes back when it is killed and when a call hangs, and the
// pool has no PIN of it.
func TestUnitWorker(t *testing.T) {
	h := hsmtest.New(t, "a")
	h.Ceremony(t)
	u := startUnit(t, h, hsmtest.PIN)
	m := faulty.New(t, h.Members()[0].Module)
	p := hsmtest.OpenConfig(t, unitPool(t, u, m.Path, h, func(c *hsmpool.MemberConfig) { c.CallTimeout = 500 * time.Millisecond }))
	_, g := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
	key := &hsmpool.Key{ID: "key", Type: hsmpool.AES256, Usage: hsmpool.UseEncrypt, Wrapped: g.Wrapped}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	works := func(after string) {
		t.Helper()
		for {
			err := roundTrip(ctx, p, key, 1)
			if err == nil {
				return
			}
			if ctx.Err() != nil {
				t.Fatalf("after %s: %v, %+v", after, err, p.Status()[0])
			}
		}
	}
	works("the start")
	if u.times() != 1 {
		t.Errorf("%d processes were started", u.times())
	}
	u.kill(t)
	works("a kill")
	if u.times() != 2 {
		t.Errorf("%d processes were started", u.times())
	}
	m.Hang("C_Encrypt")
	hung, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- roundTrip(hung, p, key, 1) }()
	for u.times() < 3 && ctx.Err() == nil { // until it was noticed
		time.Sleep(time.Millisecond)
	}
	end()
	if err := <-ended; err == nil {
		t.Error("a hanging call went well")
	}
	m.Release()
	works("a hang")
	if s := p.Status()[0]; u.times() < 3 || s.Restarts < 2 {
		t.Errorf("%d processes, %+v", u.times(), s)
	}
}

// A wrong PIN of a unit is tried once, and never by a new process of it.
func TestUnitPIN(t *testing.T) {
	h := hsmtest.New(t, "a")
	h.Ceremony(t)
	for name, pin := range map[string]string{"wrong": "0000-wrong", "none": ""} {
		t.Run(name, func(t *testing.T) {
			u := startUnit(t, h, pin)
			if pin == "" {
				if err := os.Remove(filepath.Join(filepath.Dir(u.socket), hsmpool.OwnPIN)); err != nil {
					t.Fatal(err)
				}
			}
			refused := 0
			c := unitPool(t, u, h.Members()[0].Module, h, func(m *hsmpool.MemberConfig) {
				m.Refused = func() (string, error) { refused++; return "do something", nil }
			})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			p, err := hsmpool.Open(ctx, c)
			if err == nil {
				t.Fatal("it opened", p.Close())
			}
			text := "no such file"
			if name == "wrong" {
				text = "CKR_PIN_INCORRECT"
			}
			if !strings.Contains(err.Error(), text) || name == "wrong" && refused != 1 || name == "none" && refused != 0 {
				t.Errorf("refused %d times: %v", refused, err)
			}
		})
	}
}

// Without a socket the reason is one that can be acted upon.
func TestUnitAway(t *testing.T) {
	h := hsmtest.New(t, "a")
	h.Ceremony(t)
	u := &unit{socket: filepath.Join(t.TempDir(), "none.sock")}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	p, err := hsmpool.Open(ctx, unitPool(t, u, h.Members()[0].Module, h, nil))
	if err == nil {
		t.Fatal("it opened", p.Close())
	}
	if !strings.Contains(err.Error(), "systemctl start keyward-hsm@a.socket") {
		t.Error(err)
	}
}
