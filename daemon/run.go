package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	sdnotify "github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"

	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
)

// server is a daemon that runs. What a reload may change is behind atomic pointers and swapped as a whole.
type server struct {
	log     zerolog.Logger
	started time.Time
	config  atomic.Pointer[config.Config]
	peers   atomic.Pointer[peerTable]
	reloads atomic.Int64
	refused atomic.Pointer[string] // why the last reload was refused; nil: it was not
	store   *keystore.DB
	pool    *hsmpool.Pool
	kms     http.Handler // the KMS API
}

// runOptions are what keywardd dev does differently: nothing but these.
type runOptions struct {
	ready          func() // called when the socket answers
	userNamespaces bool   // accept a user namespace that is not the machine's own
}

// run runs the daemon of a configuration until SIGTERM or SIGINT.
func run(path string, opt runOptions) error {
	tuneMemory()
	if err := harden(); err != nil {
		return err
	}
	log := newLogger(os.Stderr)
	if !opt.userNamespaces {
		if err := checkUserNamespace(); err != nil {
			return err
		}
	}
	c, err := config.Load(path)
	if err != nil {
		return err
	}
	peers, err := newPeerTable(c)
	if err != nil {
		return err
	}
	if err := setLevel(c.Log.Level); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return fmt.Errorf("the state directory: %w", err)
	}
	lock, err := lockDir(c.StateDir)
	if err != nil {
		return whoseFiles(c.StateDir, err)
	}
	defer lock.Close()

	p, err := openParts(ctx, c, log)
	if err != nil {
		return whoseFiles(c.StateDir, err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			log.Error().Err(err).Msg("closing")
		}
	}()
	s := &server{log: log, started: time.Now(), store: p.store, pool: p.pool, kms: kmsHandler(p.svc, log)}
	s.config.Store(c)
	s.peers.Store(peers)

	l, err := listenAdmin(&c.Sockets)
	if err != nil {
		return err
	}
	return s.serve(ctx, l, hangup, opt.ready)
}

// serve answers at l until ctx ends, then lets running calls end. It closes l.
func (s *server) serve(ctx context.Context, l net.Listener, hangup <-chan os.Signal, ready func()) error {
	h := &http.Server{
		Handler:     s.handler(),
		ConnContext: s.withPeer,
		ErrorLog:    httpLog(s.log),
		// The body has no limit of time here: batches stream for as long as they like. Each action has its own deadline.
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    1 << 20,
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(l) }()

	var background sync.WaitGroup
	defer background.Wait()
	watchCtx, stopWatch := context.WithCancel(context.Background())
	defer stopWatch()
	background.Go(func() { watchdog(watchCtx, s.log, s.check) })
	background.Go(func() { s.watchMembers(watchCtx) })

	s.log.Info().Str("version", Version()).Str("socket", l.Addr().String()).Msg("ready")
	notify(s.log, sdnotify.SdNotifyReady+"\nSTATUS="+s.summary())
	if ready != nil {
		ready()
	}
	for {
		select {
		case err := <-served:
			return fmt.Errorf("serving: %w", errors.Join(err, h.Close()))
		case <-hangup:
			s.reloadNow()
		case <-ctx.Done():
			return s.drain(h)
		}
	}
}

// drain stops accepting and waits for the calls that run, as long as shutdown_timeout.
func (s *server) drain(h *http.Server) error {
	notify(s.log, sdnotify.SdNotifyStopping+"\nSTATUS=finishing the calls that run")
	s.log.Info().Msg("stopping")
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(s.config.Load().ShutdownTimeout))
	defer cancel()
	if err := h.Shutdown(ctx); err != nil {
		s.log.Warn().Err(err).Msg("calls were cut off: they ran longer than shutdown_timeout")
		return errors.Join(h.Close(), nil)
	}
	return nil
}

// check is the watchdog's question: does the store read, does the pool answer. It says nothing about HSMs that are
// away, because a restart would not bring them back.
func (s *server) check(ctx context.Context) error {
	if _, err := s.store.Intents(ctx); err != nil && !errors.Is(err, keystore.ErrDamaged) {
		return fmt.Errorf("reading the store: %w", err)
	}
	s.pool.Status()
	return nil
}

// memberInterval is how often the members are looked at: far more often than a person looks at the log.
const memberInterval = time.Second

// watchMembers logs it when an HSM member goes away or comes back, and tells systemd, until ctx ends. A member that is
// away at the start is one that went away.
func (s *server) watchMembers(ctx context.Context) {
	tick := time.NewTicker(memberInterval)
	defer tick.Stop()
	away := map[string]string{} // why, by name
	for {
		if s.logMembers(away) {
			notify(s.log, "STATUS="+s.summary())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// logMembers logs what is different from away, brings away up to date, and says whether anything was different.
func (s *server) logMembers(away map[string]string) bool {
	different := false
	for _, m := range s.pool.Status() {
		why, known := away[m.Name]
		switch {
		case m.State != hsmpool.StateUp && (!known || why != m.Reason):
			s.log.Warn().Str("member", m.Name).Str("reason", m.Reason).Msg("an HSM member is down")
			away[m.Name] = m.Reason
		case m.State == hsmpool.StateUp && known:
			s.log.Info().Str("member", m.Name).Msg("an HSM member is up again")
			delete(away, m.Name)
		default:
			continue
		}
		different = true
	}
	return different
}

// summary is one line for systemctl status.
func (s *server) summary() string {
	up, all := 0, s.pool.Status()
	for _, m := range all {
		if m.State == hsmpool.StateUp {
			up++
		}
	}
	return fmt.Sprintf("%d keys, %d of %d HSM members up", s.store.Health().Keys, up, len(all))
}
