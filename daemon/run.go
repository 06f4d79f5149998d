package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	sdnotify "github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"

	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmsapi"
	"github.com/keyward/keyward/pkcs11front"
)

// server is a daemon that runs. What a reload may change is behind atomic pointers and swapped as a whole.
type server struct {
	log       zerolog.Logger
	started   time.Time
	config    atomic.Pointer[config.Config]
	peers     atomic.Pointer[peerTable]
	reloading sync.Mutex // held by the one reload that runs
	reloads   atomic.Int64
	refused   atomic.Pointer[string] // why the last reload was refused; nil: it was not
	store     *keystore.DB
	pool      *hsmpool.Pool
	audit     *auditLog
	svc       *kms.Service
	kms       http.Handler       // the KMS API
	doors     []*tlsDoor         // what listenTLS opened
	pings     []*pingDoor        // beside them
	front     *pkcs11front.Front // the PKCS #11 door; serves only if there is a socket for it
	external  *externalKeys
	// pkcs11Socket is where the PKCS #11 door is; nil: nowhere.
	pkcs11Socket atomic.Pointer[string]
	signing      keyService      // makes the signatures of certificates whose key keyward has
	metrics      http.Handler    // what GET /metrics answers
	stopping     context.Context // ends when the daemon begins to stop: calls that only wait end then
	beginStop    context.CancelFunc
}

// newServer makes a server of parts that are open.
func newServer(p *parts, c *config.Config, peers *peerTable, log zerolog.Logger) *server {
	s := &server{log: log, started: time.Now(), store: p.store, pool: p.pool, audit: p.audit, svc: p.svc,
		kms: kmsHandler(p.svc, log), signing: p.svc}
	s.stopping, s.beginStop = context.WithCancel(context.Background())
	s.front = s.newFront(&c.PKCS11)
	s.external = newExternalKeys(p.svc, p.pool, log)
	s.metrics = metricsHandler(s.observe, log)
	s.config.Store(c)
	s.peers.Store(peers)
	return s
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
		return misconfigured{err}
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
	s := newServer(p, c, peers, log)
	defer s.external.close()
	// What is wrong with external keys must not keep all others from being used.
	if err := s.external.refresh(ctx); err != nil {
		log.Error().Err(err).Msg("external keys can't be used; keywardctl xki changes what is wrong")
	}
	if err := s.listenTLS(ctx, map[string]http.Handler{config.KMS: kmsapi.New(p.svc, tlsOptions(log, p.svc)), config.XKI: s.external.proxy}); err != nil {
		return err
	}
	sockets, err := listenSockets(c)
	if err != nil {
		return errors.Join(err, s.closeDoors())
	}
	return s.serve(ctx, sockets, hangup, opt.ready)
}

// serve answers at the sockets and the TLS doors until ctx ends, then lets running calls end. It closes them.
func (s *server) serve(ctx context.Context, sockets *unixSockets, hangup <-chan os.Signal, ready func()) error {
	h := &http.Server{
		Handler:     s.handler(),
		ConnContext: s.withPeer,
		ErrorLog:    httpLog(s.log),
		// The body has no limit of time here: batches stream for as long as they like. Each action has its own deadline.
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    1 << 20,
	}
	defer s.beginStop()
	if sockets.pkcs11 != nil {
		path := sockets.pkcs11.Addr().String()
		s.pkcs11Socket.Store(&path)
	}
	s.takeOverPKCS11(sockets.held)
	served := make(chan error, 2+len(s.doors)+len(s.pings))
	go func() { served <- h.Serve(sockets.admin) }()
	if sockets.pkcs11 != nil {
		go func() { served <- s.servePKCS11(sockets.pkcs11) }()
	}
	for _, d := range s.doors {
		go func() { served <- d.server.ServeTLS(d.listener, "", "") }()
		s.log.Info().Stringer("address", d.listener.Addr()).Str("serves", d.serves).Msg("other machines are served with TLS")
	}

	for _, p := range s.pings {
		go func() { served <- p.server.Serve(p.listener) }()
	}

	var background sync.WaitGroup
	defer background.Wait()
	watchCtx, stopWatch := context.WithCancel(context.Background())
	defer stopWatch()
	background.Go(func() { watchdog(watchCtx, s.log, s.check) })
	if slices.ContainsFunc(s.doors, func(d *tlsDoor) bool { return d.serves == config.XKI }) {
		background.Go(func() { s.external.health.watch(watchCtx) })
	}

	s.log.Info().Str("version", Version()).Stringer("socket", sockets.admin.Addr()).Msg("ready")
	notify(s.log, sdnotify.SdNotifyReady)
	background.Go(func() { s.watchMembers(watchCtx) }) // which tells systemd how it is
	if ready != nil {
		ready()
	}
	for {
		select {
		case err := <-served:
			now, end := context.WithCancel(context.Background())
			end()
			return fmt.Errorf("serving: %w", errors.Join(err, h.Close(), s.closeDoors(), s.front.Shutdown(now)))
		case <-hangup:
			_, _ = s.reloadNow() // the log and the status have what is wrong
		case <-ctx.Done():
			return s.drain(h)
		}
	}
}

// drain stops accepting and waits for the calls that run, as long as shutdown_timeout.
func (s *server) drain(h *http.Server) error {
	s.beginStop()
	notify(s.log, sdnotify.SdNotifyStopping+"\nSTATUS=finishing the calls that run")
	s.log.Info().Msg("stopping")
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(s.config.Load().ShutdownTimeout))
	defer cancel()
	if err := s.closePings(); err != nil { // who asks shall go elsewhere
		s.log.Warn().Err(err).Msg("what answers load balancers was not closed")
	}
	shut := make(chan error)
	for _, d := range s.doors {
		go func() { shut <- d.server.Shutdown(ctx) }()
	}
	go func() { shut <- s.shutPKCS11(ctx) }()
	err := h.Shutdown(ctx)
	for range len(s.doors) + 1 {
		err = errors.Join(err, <-shut)
	}
	if err != nil {
		s.log.Warn().Err(err).Msg("calls were cut off: they ran longer than shutdown_timeout")
		return errors.Join(h.Close(), s.closeDoors())
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

// statusEvery is after how many looks systemd is told how much there was to do.
const statusEvery = 10

// watchMembers logs it when an HSM member goes away or comes back, and tells systemd how it is whenever that is something else, until ctx ends. A member that is
// away at the start is one that went away.
func (s *server) watchMembers(ctx context.Context) {
	tick := time.NewTicker(memberInterval)
	defer tick.Stop()
	away := map[string]string{} // why, by name
	// Events of the audit are about as many as there were requests.
	told, before, since := "", s.audit.recorded.Load(), time.Now()
	rate := uint64(0)
	for look := 1; ; look++ {
		s.logMembers(away)
		if look%statusEvery == 0 {
			now, passed := s.audit.recorded.Load(), time.Since(since).Seconds()
			rate, before, since = uint64(float64(now-before)/passed+0.5), now, time.Now()
		}
		if text := fmt.Sprintf("%s, %d requests/s", s.summary(), rate); text != told {
			told = text
			notify(s.log, "STATUS="+text)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// logMembers logs what is different from away, and brings away up to date. A member that
// is half open is on its way: whether it is up again is said when that is sure. Drains are logged by who asks for them.
func (s *server) logMembers(away map[string]string) {
	all := s.pool.Status()
	for name := range away {
		if !slices.ContainsFunc(all, func(m hsmpool.Status) bool { return m.Name == name }) {
			s.log.Info().Str("member", name).Msg("an HSM member that was away is no longer configured")
			delete(away, name)
		}
	}
	for _, m := range all {
		why, known := away[m.Name]
		switch {
		case m.State == hsmpool.StateDown && (!known || why != m.Reason):
			s.log.Warn().Str("member", m.Name).Str("reason", m.Reason).Msg("an HSM member is down")
			away[m.Name] = m.Reason
		case m.State == hsmpool.StateDraining && (!known || why != drained):
			away[m.Name] = drained
		case serves(m.State) && why == drained:
			delete(away, m.Name)
		case m.State == hsmpool.StateUp && known:
			s.log.Info().Str("member", m.Name).Msg("an HSM member is up again")
			delete(away, m.Name)
		}
	}
}

// summary is one line for systemctl status.
func (s *server) summary() string {
	up, draining, all := 0, 0, s.pool.Status()
	for _, m := range all {
		switch {
		case serves(m.State):
			up++
		case m.State == hsmpool.StateDraining:
			draining++
		}
	}
	text := fmt.Sprintf("%d keys, %d of %d HSM members up", s.store.Health().Keys, up, len(all))
	if draining > 0 {
		text += fmt.Sprintf(", %d drained", draining)
	}
	return text
}

// drained is why a member is away that an operator drains.
const drained = "drained by an operator"

// serves says whether a member in this state does jobs. One that is half open does.
func serves(state hsmpool.State) bool {
	return state == hsmpool.StateUp || state == hsmpool.StateHalfOpen
}
