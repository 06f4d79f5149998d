package daemon

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
	"github.com/keyward/keyward/pkcs11front/p11rpc/p11rpctest"
)

const (
	callOpenSession    = 10
	callGetSlotList    = 4
	callGetSessionInfo = 13
	callGetInfo        = 3
)

// dialAs connects to a socket as a user, if this process may say who it is; else as its own. It gives the uid.
func dialAs(t *testing.T, path string, uid int) (net.Conn, int) {
	t.Helper()
	if os.Getuid() != 0 {
		uid = os.Getuid()
	} else {
		// Only this thread becomes somebody else, for as long as connecting takes: the kernel keeps who connected.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		become := func(uid int) {
			t.Helper()
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
				t.Fatal("setresuid:", errno)
			}
		}
		become(uid)
		defer become(0)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c, uid
}

// pkcs11Client is a client of the door that has initialized the library.
func pkcs11Client(t *testing.T, conn net.Conn) *p11rpctest.Client {
	t.Helper()
	c, err := p11rpctest.NewClient(conn, 0)
	if err != nil {
		t.Fatal(err)
	}
	if rv, err := c.Initialize(""); err != nil || rv != ck.CKR_OK {
		t.Fatal("C_Initialize:", rv, err)
	}
	return c
}

// slotsOf is C_GetSlotList.
func slotsOf(t *testing.T, c *p11rpctest.Client) []uint64 {
	t.Helper()
	r, rv, err := c.Call(callGetSlotList, func(w *p11rpc.Writer) {
		w.Byte(1)
		w.Room(p11rpc.Room{Size: 100})
	})
	if err != nil || rv != ck.CKR_OK {
		t.Fatal("C_GetSlotList:", rv, err)
	}
	slots, _ := r.Ulongs()
	if err := r.End(); err != nil {
		t.Fatal(err)
	}
	return append([]uint64(nil), slots...)
}

// openSession is C_OpenSession.
func openSession(t *testing.T, c *p11rpctest.Client, slot uint64) uint64 {
	t.Helper()
	r, rv, err := c.Call(callOpenSession, func(w *p11rpc.Writer) {
		w.Ulong(slot)
		w.Ulong(uint64(ck.CKF_SERIAL_SESSION))
	})
	if err != nil || rv != ck.CKR_OK {
		t.Fatal("C_OpenSession:", rv, err)
	}
	return r.Ulong()
}

// openSocket lets everybody at the PKCS #11 socket, as that of an appliance is.
func (a *appliance) openSocket(t *testing.T) string {
	t.Helper()
	path := filepath.Join(a.dir, devPKCS11)
	if err := errors.Join(os.Chmod(a.dir, 0o711), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	return path
}

// reload is what SIGHUP does.
func (a *appliance) reload(t *testing.T) {
	t.Helper()
	if _, err := a.server.reloadNow(); err != nil {
		t.Fatal(err)
	}
}

// TestPKCS11Callers connects as a user whom the configuration does not know. It sees no token, and the log says what to do. When that is
// done it has its tokens, on the same connection, and loses them with the row.
func TestPKCS11Callers(t *testing.T) {
	a := newAppliance(t)
	if os.Getuid() != 0 { // this process's own user has a row
		a.replace(t, "\nuid = "+strconv.Itoa(os.Getuid()), "\nuid = 4243")
		a.reload(t)
	}
	conn, uid := dialAs(t, a.openSocket(t), 54321)
	c := pkcs11Client(t, conn)
	if slots := slotsOf(t, c); len(slots) != 0 {
		t.Errorf("a stranger sees the slots %v", slots)
	}
	slotsOf(t, c)
	if said := a.log.String(); strings.Count(said, "uid = "+strconv.Itoa(uid)) != 1 || !strings.Contains(said, "[[peer]]") {
		t.Errorf("the log says of the stranger:\n%s", said)
	}
	row := "\n[[peer]]\nuid = " + strconv.Itoa(uid) + "\nprincipal = \"acs:ram::1000000000000001:user/late\"\n"
	a.change(t, row)
	a.reload(t)
	slots := slotsOf(t, c)
	if len(slots) != 2 {
		t.Fatalf("after its row came, it sees the slots %v", slots)
	}
	session := openSession(t, c, slots[0])
	info := func() ck.RV {
		_, rv, err := c.Call(callGetSessionInfo, func(w *p11rpc.Writer) { w.Ulong(session) })
		if err != nil {
			t.Fatal(err)
		}
		return rv
	}
	if rv := info(); rv != ck.CKR_OK {
		t.Errorf("its session: %v", rv)
	}
	if os.Getuid() == 0 {
		st, err := a.client.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if p := st.PKCS11; p == nil || p.Socket != filepath.Join(a.dir, devPKCS11) || p.Connections != 1 || p.Applications != 1 || p.Sessions != 1 {
			t.Errorf("the status has %+v", p)
		}
	}
	a.replace(t, row, "")
	a.reload(t)
	if rv := info(); rv == ck.CKR_OK {
		t.Error("its session outlives its row")
	}
	if slots := slotsOf(t, c); len(slots) != 0 {
		t.Errorf("after its row went, it sees the slots %v", slots)
	}
	// The connection stays open: the daemon ends all the same.
}

// dialAgain connects, also while the queue of the socket is full.
func dialAgain(t *testing.T, path string) net.Conn {
	t.Helper()
	for {
		c, err := net.Dial("unix", path)
		if err == nil {
			return c
		}
		if !errors.Is(err, syscall.EAGAIN) {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
}

// TestPKCS11Crowd has 10,000 connections, clients that stop in the middle of a frame, clients that never read, and some that send all
// the time, while one that was there before is served.
func TestPKCS11Crowd(t *testing.T) {
	const most, mostPerUser = 300, 100
	a := newAppliance(t, func(dir string) string {
		(&appliance{dir: dir}).replace(t, "\n[pkcs11]\n", "\n[pkcs11]\nmax_connections = "+strconv.Itoa(most)+"\nmax_connections_per_user = "+strconv.Itoa(mostPerUser)+"\n")
		return ""
	})
	path := a.openSocket(t)
	conn, _ := dialAs(t, path, 4242)
	served := pkcs11Client(t, conn)

	var crowd sync.WaitGroup
	var all []net.Conn
	defer func() {
		for _, c := range all {
			c.Close()
		}
		crowd.Wait()
	}()
	hold := func(c net.Conn) net.Conn {
		all = append(all, c)
		return c
	}
	frame := func(c net.Conn) []byte { // of C_GetInfo, on a connection that was begun
		client, err := p11rpctest.NewClient(c, 1)
		if err != nil {
			t.Fatal(err)
		}
		if rv, err := client.Initialize(""); err != nil || rv != ck.CKR_OK {
			t.Fatal(rv, err)
		}
		f := p11rpc.AppendRequest(nil, 1, "", callGetInfo, "")
		p11rpc.FinishFrame(f)
		return f
	}
	for range 10 {
		c := hold(dialAgain(t, path))
		if _, err := c.Write(frame(c)[:15]); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 {
		c := hold(dialAgain(t, path))
		flood := []byte(strings.Repeat(string(frame(c)), 1000))
		reads := i%2 == 0
		crowd.Go(func() {
			if reads {
				crowd.Go(func() { _, _ = io.Copy(io.Discard, c) }) // until it is closed
			}
			for {
				if _, err := c.Write(flood); err != nil {
					return
				}
			}
		})
	}

	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	n := int(min(10_000, limit.Cur-3*most))
	begin, longest := time.Now(), time.Duration(0)
	for i := range n {
		hold(dialAgain(t, path))
		if i%100 != 0 {
			continue
		}
		before := time.Now()
		if slots := slotsOf(t, served); len(slots) != 2 {
			t.Fatalf("it sees the slots %v", slots)
		}
		longest = max(longest, time.Since(before))
	}
	t.Logf("%d connections in %v; a call took %v at most", n, time.Since(begin), longest)
	if longest > time.Minute { // no figure of speed: so long only waits who is kept waiting
		t.Errorf("a call took %v meanwhile", longest)
	}
	if s := a.server.front.Stats(); s.Connections > 2*most || s.Refused == 0 {
		t.Errorf("there are %+v", s)
	}
}
