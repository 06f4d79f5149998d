package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

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

// takeOverPKCS11 goes on with the connections that an earlier daemon had systemd keep.
func (s *server) takeOverPKCS11(held pkcs11front.Held) {
	if held.State == nil && len(held.Files) == 0 {
		return
	}
	n, err := s.front.Restore(held, s.pkcs11Peer)
	if err != nil {
		s.log.Error().Err(err).Msg("some PKCS #11 connections could not be taken over")
	}
	// From now on they are this daemon's alone: systemd's copies would keep them open.
	notify(s.log, "FDSTOREREMOVE=1\nFDNAME="+heldName)
	notify(s.log, "FDSTOREREMOVE=1\nFDNAME="+heldStateName)
	s.log.Info().Int("connections", n).Msg("PKCS #11 connections were taken over")
}

// shutPKCS11 ends the door. Under systemd the connections of clients that can't come back by themselves are kept for the next daemon.
func (s *server) shutPKCS11(ctx context.Context) error {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return s.front.Shutdown(ctx)
	}
	held, err := s.front.Hold(ctx)
	if keepErr := keepHeld(held); keepErr != nil {
		s.log.Warn().Err(keepErr).Int("connections", len(held.Files)).Msg("PKCS #11 connections could not be kept for the next daemon")
	}
	return err
}

// keepHeld has systemd keep connections, and closes this process's files of them.
func keepHeld(held pkcs11front.Held) (err error) {
	defer func() {
		for _, f := range held.Files {
			err = errors.Join(err, f.Close())
		}
	}()
	if len(held.Files) == 0 {
		return nil
	}
	state, err := writeState(held.State)
	if err != nil {
		return err
	}
	defer state.Close()
	if err := keepFiles(heldStateName, []*os.File{state}); err != nil {
		return err
	}
	if err := keepFiles(heldName, held.Files); err != nil {
		return err
	}
	return notifyBarrier()
}
