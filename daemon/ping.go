package daemon

import (
	"context"
	"errors"
	stdlog "log"
	"net"
	"net/http"
	"time"

	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/xki"
)

// pingDoor answers load balancers that have no certificate to show: GET /ping in the clear, and nothing else.
type pingDoor struct {
	listener net.Listener
	server   *http.Server
}

// Connections of a pingDoor, in all and from one address. Each asks once and ends, or soon after.
const (
	maxPings           = 64
	maxPingsPerAddress = 16
	maxPingHead        = 8 << 10 // octets
	pingIdle           = 15 * time.Second
)

func (s *server) listenPing(ctx context.Context, row *config.Listener) error {
	l, err := listenTCP(ctx, row.PingAddress)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc(xki.PingPath, xki.Ping)
	s.pings = append(s.pings, &pingDoor{listener: newTCPLimits(l, maxPings, maxPingsPerAddress), server: &http.Server{
		Handler:     mux,
		ErrorLog:    stdlog.New(strangerWriter{s.log}, "", 0),
		ReadTimeout: strangerTimes.head, WriteTimeout: strangerTimes.head, IdleTimeout: pingIdle, MaxHeaderBytes: maxPingHead,
	}})
	return nil
}

// closePings closes all ping doors. They may be closed already.
func (s *server) closePings() error {
	var errs []error
	for _, p := range s.pings {
		errs = append(errs, p.server.Close())
		if err := p.listener.Close(); !errors.Is(err, net.ErrClosed) { // one that does not serve yet is not the server's
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
