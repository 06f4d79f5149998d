package daemon

import (
	"context"
	"fmt"
	"net"

	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front"
)

// newFront makes the PKCS #11 door.
func (s *server) newFront(c *config.PKCS11) *pkcs11front.Front {
	return pkcs11front.New(pkcs11front.Config{
		Service: s.svc, Log: s.log, Version: Version(), RawRSA: c.RawRSA, NoRawAES: !c.RawAES,
		Connections: c.MaxConnections, ConnectionsPerUser: c.MaxConnectionsPerUser,
	})
}

// pkcs11Peer says who is at the other end of a connection of the PKCS #11 door. The kernel is asked once for each; who that is in keyward's terms
// is looked up for each call, so that a reload reaches programs that are connected.
func (s *server) pkcs11Peer(c net.Conn) (pkcs11front.Peer, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return pkcs11front.Peer{}, fmt.Errorf("a connection from %v, which is no Unix socket", c.RemoteAddr())
	}
	p, err := peerOf(u, kms.DoorPKCS11)
	if err != nil {
		return pkcs11front.Peer{}, err
	}
	return pkcs11front.Peer{UID: p.uid, GID: p.gid, PID: p.pid, Identify: func() (*kms.Actor, string) {
		id := s.peers.Load().identify(p)
		return id.actor, id.why
	}}, nil
}

// servePKCS11 serves the door until it is shut down; nil then.
func (s *server) servePKCS11(l *net.UnixListener) error {
	s.log.Info().Stringer("socket", l.Addr()).Msg("PKCS #11 is served")
	return s.front.Serve(context.Background(), l, s.pkcs11Peer) // Shutdown ends it
}
