package daemon

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/daemon/config"
)

func sockets(t *testing.T) *config.Sockets {
	return &config.Sockets{Admin: filepath.Join(t.TempDir(), "run", "admin.sock"), MaxConnections: 2}
}

// listenAdmin opens the admin socket alone.
func listenAdmin(c *config.Sockets) (net.Listener, error) {
	s, err := listenSockets(&config.Config{Sockets: *c})
	if err != nil {
		return nil, err
	}
	return s.admin, nil
}

func TestListenModes(t *testing.T) {
	for private, want := range map[bool]os.FileMode{false: 0o660, true: 0o600} {
		s := sockets(t)
		s.Private = private
		l, err := listenAdmin(s)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(s.Admin)
		if err != nil {
			t.Fatal(err)
		}
		dir, err := os.Stat(filepath.Dir(s.Admin))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want || dir.Mode().Perm() != 0o750 {
			t.Errorf("private %v: modes %04o in %04o", private, info.Mode().Perm(), dir.Mode().Perm())
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(s.Admin); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket stays after Close: %v", err)
		}
	}
}

// TestListenPKCS11 says who may connect to the other socket, and that it need not be.
func TestListenPKCS11(t *testing.T) {
	for private, want := range map[bool]os.FileMode{false: 0o666, true: 0o600} {
		c := &config.Config{Sockets: *sockets(t)}
		c.Sockets.Private = private
		c.PKCS11.Socket = filepath.Join(t.TempDir(), "door", "pkcs11.sock")
		s, err := listenSockets(c)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(c.PKCS11.Socket)
		if err != nil {
			t.Fatal(err)
		}
		dir, err := os.Stat(filepath.Dir(c.PKCS11.Socket))
		if err != nil {
			t.Fatal(err)
		}
		if reachable := dir.Mode().Perm()&0o001 != 0; info.Mode().Perm() != want || reachable == private {
			t.Errorf("private %v: modes %04o in %04o", private, info.Mode().Perm(), dir.Mode().Perm())
		}
		if _, err := listenUnix("pkcs11.socket", c.PKCS11.Socket, want, ""); err == nil || !strings.Contains(err.Error(), "another path for pkcs11.socket") {
			t.Errorf("the socket of a live daemon: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{c.Sockets.Admin, c.PKCS11.Socket} {
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s stays after Close: %v", path, err)
			}
		}
	}
	s, err := listenSockets(&config.Config{Sockets: *sockets(t)})
	if err != nil {
		t.Fatal(err)
	}
	if s.pkcs11 != nil {
		t.Error("there is a socket that nobody wants")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestListenTakesOverStaleSocketOnly leaves a socket behind as a killed daemon does, then a live one, then a file.
func TestListenTakesOverStaleSocketOnly(t *testing.T) {
	s := sockets(t)
	l, err := listenAdmin(s)
	if err != nil {
		t.Fatal(err)
	}
	l.(*bounded).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	live, err := listenAdmin(s)
	if err != nil {
		t.Fatalf("a stale socket is not taken over: %v", err)
	}
	defer live.Close()
	if _, err := listenAdmin(s); err == nil || !strings.Contains(err.Error(), "listens at") {
		t.Errorf("the socket of a live daemon: %v", err)
	}
	c, err := net.Dial("unix", s.Admin)
	if err != nil {
		t.Fatalf("the live daemon lost its socket: %v", err)
	}
	c.Close()

	file := sockets(t)
	if err := os.MkdirAll(filepath.Dir(file.Admin), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file.Admin, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenAdmin(file); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file in the way: %v", err)
	}
	if text, err := os.ReadFile(file.Admin); err != nil || string(text) != "mine" {
		t.Errorf("the file is %q, %v", text, err)
	}
}

// TestBounded opens one connection more than there are places: it is served when another goes.
func TestBounded(t *testing.T) {
	s := sockets(t)
	l, err := listenAdmin(s)
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn)
	done := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				done <- err
				return
			}
			accepted <- c
		}
	}()
	for range s.MaxConnections + 1 {
		c, err := net.Dial("unix", s.Admin)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first := <-accepted
	second := <-accepted
	defer second.Close()
	select {
	case <-accepted:
		t.Fatal("more connections than places")
	case <-time.After(50 * time.Millisecond):
	}
	// Closing twice gives one place back, not two.
	first.Close()
	first.Close()
	third := <-accepted
	defer third.Close()
	if n := len(l.(*bounded).places); n != s.MaxConnections {
		t.Errorf("%d places are taken, want %d", n, s.MaxConnections)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept ended with %v", err)
	}
}

func TestLockDir(t *testing.T) {
	dir := t.TempDir()
	first, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDir(dir); err == nil || errors.Is(err, syscall.EWOULDBLOCK) || !strings.Contains(err.Error(), "another keywardd") {
		t.Errorf("a second lock gave %v", err)
	}
	first.Close()
	again, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// A socket that systemd passed is served if the configuration wants one like it, and no other way round.
func TestMayServe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := listenUnix("x", path, 0o666, "")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, row := range []struct {
		socket  string
		private bool
		mode    os.FileMode
		says    string
	}{
		{"/run/keyward/pkcs11.sock", false, 0o666, ""},
		{"/run/keyward/pkcs11.sock", true, 0o600, ""},
		{"/run/keyward/pkcs11.sock", true, 0o660, "sockets.private"},
		{"", false, 0o600, "pkcs11.socket is empty"},
	} {
		if err := os.Chmod(path, row.mode); err != nil {
			t.Fatal(err)
		}
		err := mayServe(l, &config.Config{PKCS11: config.PKCS11{Socket: row.socket}, Sockets: config.Sockets{Private: row.private}})
		if (err == nil) != (row.says == "") || err != nil && !strings.Contains(err.Error(), row.says) {
			t.Errorf("%+v: %v", row, err)
		}
	}
}
