package hsmpool

import (
	"bytes"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// socketPair gives both ends of a stream, which are closed with the test.
func socketPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		ends[i] = c.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

// TestWriterForgets: what can't be written any more does not stay in memory, nor does what has moved to a larger buffer.
func TestWriterForgets(t *testing.T) {
	conn, _ := socketPair(t)
	w, err := newFrameWriter(conn)
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("a secret")
	var was []byte
	w.put(func(b []byte) []byte { was = append(b, secret...); return was })
	w.put(func(b []byte) []byte { return append(b, make([]byte, 1<<10)...) })
	if bytes.Contains(was, secret) {
		t.Error("the buffer that became too small still has what was in it")
	}
	conn.Close()
	w.close()
	w.put(func(b []byte) []byte { was = append(b, secret...); return was })
	if bytes.Contains(was, secret) || len(w.pending) > 0 {
		t.Error("a closed writer keeps what is put")
	}
}
