package pkcs11front

import (
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// longCalls make keys, which can take many seconds in an HSM.
var longCalls = [numCalls]bool{p11rpc.C_CreateObject: true, p11rpc.C_GenerateKey: true, p11rpc.C_GenerateKeyPair: true, p11rpc.C_UnwrapKey: true}

// watch cancels the connection's calls when the client goes away. It is for when the connection's goroutine is in a call and can't see that itself;
// stop ends it.
func (c *conn) watch() (stop func()) {
	raw, err := rawConn(c.net)
	if err != nil {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		gone := false
		_ = raw.Read(func(fd uintptr) bool { // an error is that of stop
			n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
			gone = n == 0 && err == nil
			return !errors.Is(err, unix.EAGAIN)
		})
		if gone && !c.front.isDraining() { // which looks the same from here
			c.cancel()
		}
	}()
	return func() {
		_ = c.net.SetReadDeadline(time.Unix(1, 0)) // if it fails the connection is closed, and so is the watch
		<-done
		_ = c.net.SetReadDeadline(time.Time{})
	}
}

func rawConn(nc net.Conn) (syscall.RawConn, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return sc.SyscallConn()
}
