package daemon

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/kms"
)

// nobody is the uid that the kernel shows for a caller whose user has no name in this user namespace. Several callers may
// share it, so it is nobody's.
const nobody = 65534

// maxGroups is what the kernel allows (NGROUPS_MAX).
const maxGroups = 65536

// peer is a local caller as the kernel named it when it connected. It is made once for each connection and does not
// change. Who it is in keyward's terms is looked up in the peerTable of the moment, so that a reload reaches
// connections that are open.
type peer struct {
	uid, gid uint32
	groups   []uint32
	pid      int32  // for the audit only: a process can hand its connection on
	unit     string // systemd unit, of the pid
	exe      string // executable, of the pid: see executableOf
	door     kms.Door

	known atomic.Pointer[identity] // last answer of a peerTable
}

// peerOf asks the kernel who is at the other end of a Unix socket.
func peerOf(c *net.UnixConn, door kms.Door) (*peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("peer: %w", err)
	}
	p := &peer{door: door}
	var credErr error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); credErr != nil {
			return
		}
		p.uid, p.gid, p.pid = cred.Uid, cred.Gid, cred.Pid
		p.groups, credErr = peerGroups(fd)
	})
	if err = errors.Join(err, credErr); err != nil {
		return nil, fmt.Errorf("peer: %w", err)
	}
	p.unit = unitOf(p.pid)
	p.exe = executableOf("/proc/" + strconv.Itoa(int(p.pid)))
	return p, nil
}

// executableOf names the program of a process by its directory in /proc: the path of its executable. The kernel shows that
// only to who may trace the process, so a daemon that is not root sees it of its own user's processes only. Of others it
// gets the name that the process gives itself, in brackets so that no name passes for a path. It is "" when the process is
// gone.
func executableOf(proc string) string {
	if path, err := os.Readlink(proc + "/exe"); err == nil {
		return path
	}
	name, err := os.ReadFile(proc + "/comm")
	if err != nil {
		return ""
	}
	return "[" + strings.TrimSuffix(string(name), "\n") + "]"
}

// peerGroups gives the supplementary groups of the other end as it connected.
func peerGroups(fd uintptr) ([]uint32, error) {
	buf := make([]byte, 4*64)
	for {
		size := uint32(len(buf))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == unix.ERANGE && size <= 4*maxGroups && int(size) > len(buf):
			buf = make([]byte, size)
		case errno != 0:
			return nil, fmt.Errorf("SO_PEERGROUPS: %w", errno)
		default:
			groups := make([]uint32, size/4)
			for i := range groups {
				groups[i] = binary.NativeEndian.Uint32(buf[4*i:])
			}
			return groups, nil
		}
	}
}

// unitOf finds the systemd unit that a process belongs to, "" if none. It is the outermost one in the process's cgroup
// path, the one that the system's manager made: what stands further in can be named by the unit itself, for instance by
// a user's own systemd.
func unitOf(pid int32) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(int(pid)) + "/cgroup")
	if err != nil {
		return ""
	}
	return unitInCgroup(string(text))
}

func unitInCgroup(text string) string {
	for line := range strings.Lines(text) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controller, path, ok := strings.Cut(rest, ":")
		if !ok || (controller != "" && controller != "name=systemd") {
			continue
		}
		for part := range strings.SplitSeq(path, "/") {
			if strings.HasSuffix(part, ".service") || strings.HasSuffix(part, ".scope") {
				return part
			}
		}
	}
	return ""
}

// String names the caller in messages.
func (p *peer) String() string {
	name := ""
	if u, err := user.LookupId(strconv.FormatUint(uint64(p.uid), 10)); err == nil {
		name = " (" + u.Username + ")"
	}
	return fmt.Sprintf("uid %d%s", p.uid, name)
}

// identity is what a peerTable says of a peer.
type identity struct {
	table *peerTable
	actor *kms.Actor // nil: nobody here knows it
	why   string     // of a nil actor: what to do
}
