package daemon

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/pkcs11front"
)

// The FileDescriptorName= of the sockets in keywardd.socket and keywardd-pkcs11.socket.
const (
	adminName  = "admin"
	pkcs11Name = "pkcs11"
)

// unixSockets are the daemon's Unix sockets. The caller closes them; sockets of our own are then removed.
type unixSockets struct {
	admin  net.Listener
	pkcs11 *net.UnixListener // nil: there is none
	held   pkcs11front.Held  // connections that are to go on
}

// Close closes those that are open.
func (u *unixSockets) Close() (err error) {
	if u.admin != nil {
		err = u.admin.Close()
	}
	if u.pkcs11 != nil {
		err = errors.Join(err, u.pkcs11.Close())
	}
	return err
}

// listenSockets gives each socket: systemd's if it passed one, else a new one at the configured path. systemd may pass the admin socket only,
// for a daemon without the other door, and the other door's only.
func listenSockets(c *config.Config) (_ *unixSockets, err error) {
	passed, held, err := passedSockets()
	if err != nil {
		return nil, fmt.Errorf("socket activation: %w", err)
	}
	s := &unixSockets{held: held}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	admin := passed[adminName]
	if admin == nil {
		if admin, err = listenUnix("sockets.admin", c.Sockets.Admin, adminMode(&c.Sockets), c.Sockets.Group); err != nil {
			return nil, err
		}
	}
	s.admin = newBounded(admin, c.Sockets.MaxConnections)
	if s.pkcs11 = passed[pkcs11Name]; s.pkcs11 != nil {
		return s, mayServe(s.pkcs11, c)
	}
	if c.PKCS11.Socket != "" {
		s.pkcs11, err = listenUnix("pkcs11.socket", c.PKCS11.Socket, pkcs11Mode(&c.Sockets), "")
	}
	return s, err
}

// mayServe says whether a PKCS #11 socket of systemd's is what the configuration wants. What it does not want is not served because systemd was not told.
func mayServe(l *net.UnixListener, c *config.Config) error {
	const off = "systemctl disable --now keywardd-pkcs11.socket"
	if c.PKCS11.Socket == "" {
		return fmt.Errorf("systemd passed a PKCS #11 socket, %v, and pkcs11.socket is empty, which is to say that there is none: %s, or set pkcs11.socket", l.Addr(), off)
	}
	if !c.Sockets.Private {
		return nil
	}
	info, err := os.Stat(l.Addr().String())
	if err != nil {
		return fmt.Errorf("the PKCS #11 socket that systemd passed: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("systemd passed a PKCS #11 socket, %v, that others may connect to (mode %#o), and sockets.private is set: %s, set SocketMode=0600 there, or unset sockets.private", l.Addr(), info.Mode().Perm(), off)
	}
	return nil
}

// adminMode is who may connect to the admin socket, apart from root.
func adminMode(c *config.Sockets) os.FileMode {
	if c.Private {
		return 0o600
	}
	return 0o660
}

// pkcs11Mode is who may connect to the PKCS #11 socket: everybody, as policies say what they get.
func pkcs11Mode(c *config.Sockets) os.FileMode {
	if c.Private {
		return 0o600
	}
	return 0o666
}

// passedSockets gives what systemd passed: sockets to listen at, by name, and what an earlier daemon had it keep.
func passedSockets() (passed map[string]*net.UnixListener, held pkcs11front.Held, err error) {
	files := activation.Files(true)
	passed = map[string]*net.UnixListener{}
	var state []*os.File
	defer func() {
		for _, f := range state {
			err = errors.Join(err, f.Close())
		}
	}()
	for _, f := range files {
		switch name := f.Name(); name {
		case heldName:
			held.Files = append(held.Files, f)
		case heldStateName:
			state = append(state, f)
		case adminName, pkcs11Name:
			l, err := net.FileListener(f)
			err = errors.Join(err, f.Close()) // l has a copy
			if err != nil {
				return nil, held, fmt.Errorf("the socket %q: %w", name, err)
			}
			u, ok := l.(*net.UnixListener)
			if !ok {
				return nil, held, fmt.Errorf("the socket %q is at %v; it must be a Unix socket, because callers are known by it", name, l.Addr())
			}
			if passed[name] != nil {
				return nil, held, oneOfEach(files)
			}
			passed[name] = u
		default:
			return nil, held, oneOfEach(files)
		}
	}
	// The last is that of the last daemon.
	if len(state) > 0 {
		if held.State, err = readState(state[len(state)-1]); err != nil {
			return nil, held, fmt.Errorf("the state of PKCS #11 connections: %w", err)
		}
	}
	return passed, held, nil
}

func oneOfEach(files []*os.File) error {
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	return fmt.Errorf("systemd must pass one socket called %q and at most one called %q (FileDescriptorName=); it passed %v", adminName, pkcs11Name, names)
}

// maxState is far more than the state of as many connections as there may be has, in octets.
const maxState = 256 << 20

// readState reads what writeState wrote.
func readState(f *os.File) ([]byte, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, maxState))
}

// writeState makes a file in memory.
func writeState(state []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("keyward-pkcs11", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), heldStateName)
	if _, err := f.Write(state); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// listenUnix makes a socket, of which key is the path's key in the configuration. A socket that a dead daemon left is removed, one that somebody
// answers at never is.
func listenUnix(key, path string, mode os.FileMode, group string) (*net.UnixListener, error) {
	dir := os.FileMode(0o750)
	if mode&0o006 != 0 {
		dir = 0o755
	}
	if err := os.MkdirAll(filepath.Dir(path), dir); err != nil {
		return nil, fmt.Errorf("the directory of the socket: %w", err)
	}
	addr := &net.UnixAddr{Name: path, Net: "unix"}
	l, err := net.ListenUnix("unix", addr)
	if errors.Is(err, unix.EADDRINUSE) {
		if err := removeStale(key, path); err != nil {
			return nil, err
		}
		l, err = net.ListenUnix("unix", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("the socket %s: %w", path, err)
	}
	// Between bind and this the socket is as open as umask says; the directory and the check of each caller stand before
	// it all the same.
	err = os.Chmod(path, mode)
	if err == nil && group != "" {
		err = chgrp(path, group)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the socket %s: %w", path, err), l.Close())
	}
	return l, nil
}

func chgrp(path, group string) error {
	gid, err := groupID(group)
	if err != nil {
		return err
	}
	return os.Chown(path, -1, gid)
}

func groupID(group string) (int, error) {
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, fmt.Errorf("sockets.group: there is no group %q on this machine", group)
	}
	return strconv.Atoi(g.Gid)
}

// removeStale removes a socket that nobody listens at. The daemon holds its lock on the state directory by now, so no
// other daemon of the same configuration comes in between.
func removeStale(key, path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("the socket %s: %w", path, err)
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s is there and no socket; keywardd does not remove it: choose another path for %s", path, key)
	}
	c, err := net.DialTimeout("unix", path, 5*time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("somebody listens at %s already, probably another keywardd; stop it, or choose another path for %s", path, key), c.Close())
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("the socket %s is in use or unreachable: %w", path, err)
	}
	return os.Remove(path)
}

// bounded accepts only so many connections at a time; the rest wait in the kernel's queue.
type bounded struct {
	*net.UnixListener
	places chan struct{} // one element for each open connection
	closed chan struct{}
	once   sync.Once
}

func newBounded(l *net.UnixListener, n int) *bounded {
	return &bounded{UnixListener: l, places: make(chan struct{}, n), closed: make(chan struct{})}
}

// Accept waits for a free place, then for a caller.
func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.places <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	c, err := b.AcceptUnix()
	if err != nil {
		<-b.places
		return nil, err
	}
	return &boundedConn{UnixConn: c, leave: sync.OnceFunc(func() { <-b.places })}, nil
}

// Close stops accepting.
func (b *bounded) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.UnixListener.Close()
}

// boundedConn gives its place back when it is closed.
type boundedConn struct {
	*net.UnixConn
	leave func()
}

// Close closes the connection.
func (c *boundedConn) Close() error {
	err := c.UnixConn.Close()
	c.leave()
	return err
}
