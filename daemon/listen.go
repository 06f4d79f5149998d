package daemon

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/daemon/config"
)

// socketName is the FileDescriptorName= of the admin socket in keywardd.socket.
const socketName = "admin"

// listenAdmin gives the admin socket: systemd's if it passed one, else a new one at the configured path. The caller
// closes it; a socket of our own is then removed.
func listenAdmin(c *config.Sockets) (net.Listener, error) {
	passed, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("socket activation: %w", err)
	}
	if len(passed) > 0 {
		all := passed[socketName]
		if len(passed) > 1 || len(all) != 1 {
			return nil, fmt.Errorf("socket activation: systemd must pass one socket, called %q (FileDescriptorName=%s); it passed %v", socketName, socketName, slices.Collect(maps.Keys(passed)))
		}
		l, ok := all[0].(*net.UnixListener)
		if !ok {
			return nil, fmt.Errorf("socket activation: the socket is at %v; it must be a Unix socket, because callers are known by it", all[0].Addr())
		}
		return newBounded(l, c.MaxConnections), nil
	}
	l, err := listenUnix(c)
	if err != nil {
		return nil, err
	}
	return newBounded(l, c.MaxConnections), nil
}

// listenUnix makes the socket. A socket that a dead daemon left is removed, one that somebody answers at never is.
func listenUnix(c *config.Sockets) (*net.UnixListener, error) {
	path := c.Admin
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("the directory of the socket: %w", err)
	}
	addr := &net.UnixAddr{Name: path, Net: "unix"}
	l, err := net.ListenUnix("unix", addr)
	if errors.Is(err, unix.EADDRINUSE) {
		if err := removeStale(path); err != nil {
			return nil, err
		}
		l, err = net.ListenUnix("unix", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("the socket %s: %w", path, err)
	}
	// Between bind and this the socket is as open as umask says; the directory and the check of each caller stand before
	// it all the same.
	mode := os.FileMode(0o660)
	if c.Private {
		mode = 0o600
	}
	err = os.Chmod(path, mode)
	if err == nil && c.Group != "" {
		err = chgrp(path, c.Group)
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
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("the socket %s: %w", path, err)
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s is there and no socket; keywardd does not remove it: choose another path for sockets.admin", path)
	}
	c, err := net.DialTimeout("unix", path, 5*time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("somebody listens at %s already, probably another keywardd; stop it, or choose another path for sockets.admin", path), c.Close())
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
