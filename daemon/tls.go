package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/kms/kmsapi"
	"github.com/keyward/keyward/xki"
)

// tlsTimes bound the steps of a connection. The callers are strangers until their request was heard, so each step has an end
// of its own.
type tlsTimes struct {
	head  time.Duration // handshake, and head of a request
	body  time.Duration // body of a request, and writing of an answer
	idle  time.Duration // between requests
	whole time.Duration // from the head to the end of the answer: more than a body and the longest action take
	ping  time.Duration // how long a connection of HTTP/2 may be silent before it is asked whether it lives; the answer has half of it
}

var strangerTimes = tlsTimes{head: 10 * time.Second, body: 30 * time.Second, idle: 60 * time.Second, whole: 3 * time.Minute, ping: 30 * time.Second}

const (
	maxHead      = 1 << 20 // octets of a request's head; the door has closer limits, which it can say
	http2Streams = 64      // requests on one connection at the same time
)

// cipherSuites are those of TLS 1.2: ephemeral keys and authenticated encryption only. TLS 1.3 has no others.
var cipherSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// tlsDoor is one [[listener]]: its socket, its server, and the certificate of the moment.
type tlsDoor struct {
	address  string // as configured
	listener net.Listener
	server   *http.Server
	serves   string // config.KMS or config.XKI
	cert     atomic.Pointer[tls.Certificate]
	clients  atomic.Pointer[tls.Config] // how clients must show who they are, with cert; nil: by no certificate
}

// doorIdentity is what a door shows, and what it wants to see.
type doorIdentity struct {
	cert    *tls.Certificate
	clients *tls.Config
}

func (d *tlsDoor) take(id doorIdentity) {
	d.cert.Store(id.cert)
	d.clients.Store(id.clients)
}

// tlsOptions are those of the one API handler behind all TLS doors.
func tlsOptions(log zerolog.Logger, keys kmsapi.AccessKeys) kmsapi.Options {
	return kmsapi.Options{Log: log, AccessKeys: keys, BodyTimeout: strangerTimes.body, StreamIdle: strangerTimes.body}
}

// listenTLS opens a door for each [[listener]], with the handler behind it of what it serves: nothing of the administration.
func (s *server) listenTLS(ctx context.Context, handlers map[string]http.Handler) error {
	c := s.config.Load()
	for i := range c.Listeners {
		row := &c.Listeners[i]
		id, err := s.identity(ctx, row)
		if err == nil {
			times := strangerTimes
			if row.Serves == config.XKI {
				times.idle = xkiIdle
			}
			err = s.listen(ctx, row, id, handlers[row.Serves], times)
		}
		if err == nil && row.PingAddress != "" {
			err = s.listenPing(ctx, row)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("the listener %s: %w", row.Address, err), s.closeDoors())
		}
	}
	return nil
}

// xkiIdle is how long a key management service may keep a connection without a request: a new one costs it most of the time that a call has. Load
// balancers in between forget one after 350 seconds (reference xki-proxy.md §2.14).
const xkiIdle = 6 * time.Minute

// identity reads certificate and client_ca_file of a listener.
func (s *server) identity(ctx context.Context, row *config.Listener) (doorIdentity, error) {
	cert, err := s.certificate(ctx, row)
	if err != nil {
		return doorIdentity{}, err
	}
	clients, err := clientCheck(row, cert)
	return doorIdentity{cert, clients}, err
}

// clientCheck makes of client_ca_file and client_names how clients must show who they are: in the handshake, which ends if they don't.
func clientCheck(row *config.Listener, cert *tls.Certificate) (*tls.Config, error) {
	if row.ClientCAFile == "" {
		return nil, nil
	}
	text, err := readPEM(row.ClientCAFile, false)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: cipherSuites, Certificates: []tls.Certificate{*cert}, ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs: x509.NewCertPool(), NextProtos: []string{"h2", "http/1.1"},
		SessionTicketsDisabled: true, // so that each connection is judged by what client_ca_file is now
	}
	if !c.ClientCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate in PEM", row.ClientCAFile)
	}
	if names := slices.Clone(row.ClientNames); len(names) > 0 {
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if !isNamed(s.PeerCertificates[0], names) {
				return fmt.Errorf("the client's certificate is for none of %s", strings.Join(names, ", "))
			}
			return nil
		}
	}
	return c, nil
}

// isNamed says whether a certificate is for one of the names: by a DNS name or by its common name (reference xki-proxy.md §2.11).
func isNamed(cert *x509.Certificate, names []string) bool {
	return slices.Contains(names, cert.Subject.CommonName) || slices.ContainsFunc(cert.DNSNames, func(name string) bool { return slices.Contains(names, name) })
}

func listenTCP(ctx context.Context, address string) (*net.TCPListener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, fmt.Errorf("%w: the service has no network; delete /etc/systemd/system/keywardd.service.d/network.conf, then: systemctl daemon-reload, systemctl restart keywardd", err)
	} else if err != nil {
		return nil, err
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("it is a %T", l), l.Close())
	}
	return tcp, nil
}

func (s *server) listen(ctx context.Context, row *config.Listener, id doorIdentity, handler http.Handler, times tlsTimes) error {
	tcp, err := listenTCP(ctx, row.Address)
	if err != nil {
		return err
	}
	d := &tlsDoor{address: row.Address, serves: row.Serves, listener: newTCPLimits(tcp, row.MaxConnections, row.MaxPerAddress)}
	d.take(id)
	d.server = &http.Server{
		Handler:           handler,
		ErrorLog:          stdlog.New(strangerWriter{s.log}, "", 0),
		ReadHeaderTimeout: times.head, // the handshake's too
		ReadTimeout:       times.whole,
		WriteTimeout:      times.whole,
		IdleTimeout:       times.idle,
		MaxHeaderBytes:    maxHead,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: http2Streams, SendPingTimeout: times.ping, PingTimeout: times.ping / 2,
			WriteByteTimeout: times.body},
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, CipherSuites: cipherSuites,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return d.cert.Load(), nil },
			GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				return lingering(d.clients.Load(), hello.Conn), nil
			}, // nil: this one
		},
	}
	s.doors = append(s.doors, d)
	return nil
}

// lingering has a connection linger until its handshake is done: a client that is refused hears why, instead of a connection that is gone. That takes a
// configuration of its own for each; nil stays nil.
func lingering(c *tls.Config, conn net.Conn) *tls.Config {
	limited, ok := conn.(*limitedConn)
	if c == nil || !ok {
		return c
	}
	limited.lingers.Store(true)
	own, check := c.Clone(), c.VerifyConnection
	own.VerifyConnection = func(s tls.ConnectionState) error { // the last that is asked
		if check != nil {
			if err := check(s); err != nil {
				return err
			}
		}
		limited.lingers.Store(false)
		return nil
	}
	return own
}

// closeDoors closes all doors, with the connections of those that serve.
func (s *server) closeDoors() error {
	errs := []error{s.closePings()}
	for _, d := range s.doors {
		errs = append(errs, d.server.Close())
		if err := d.listener.Close(); !errors.Is(err, net.ErrClosed) { // one that does not serve yet is not the server's
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// readCertificates reads the certificates anew that the configuration next has for the doors that are open, and puts into running
// where they are. takeOver has the doors use them; connections that are open stay.
func (s *server) readCertificates(running, next *config.Config) (takeOver func(), err error) {
	running.Listeners = slices.Clone(running.Listeners)
	ctx, cancel := context.WithTimeout(context.Background(), strangerTimes.head)
	defer cancel()
	fresh := map[*tlsDoor]doorIdentity{}
	var errs []error
	for i, d := range s.doors {
		row := &running.Listeners[i] // doors are in the order of the rows that they were opened for
		at := slices.IndexFunc(next.Listeners, func(l config.Listener) bool { return l.Address == d.address })
		if at < 0 {
			continue // until the restart it stays as it is
		}
		row.CertFile, row.KeyFile, row.Key = next.Listeners[at].CertFile, next.Listeners[at].KeyFile, next.Listeners[at].Key
		row.ClientCAFile, row.ClientNames = next.Listeners[at].ClientCAFile, next.Listeners[at].ClientNames
		id, err := s.identity(ctx, row)
		if err != nil {
			errs = append(errs, fmt.Errorf("the listener %s: %w", d.address, err))
			continue
		}
		fresh[d] = id
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return func() {
		for d, id := range fresh {
			if old, is := d.cert.Load().Leaf, id.cert.Leaf; d.serves == config.XKI && !old.Equal(is) {
				s.log.Warn().Str("address", d.address).Str("fingerprint", xki.FingerprintsOf(is).CertificateSHA256).
					Msg("the certificate of an external key proxy changed: a cloud that pins the old one will not connect until it is told the new fingerprint; keywardctl xki listeners shows it")
			}
			d.take(id)
		}
	}, nil
}

// strangerWriter logs what a server says of connections whose other end is anybody: at debug level, as they could fill the log.
type strangerWriter struct{ log zerolog.Logger }

// Write logs one line.
func (l strangerWriter) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	level := zerolog.WarnLevel
	if strings.HasPrefix(text, "http: TLS handshake error") || strings.HasPrefix(text, "http2: ") {
		level = zerolog.DebugLevel
	}
	l.log.WithLevel(level).Str("part", "https").Msg(text)
	return len(line), nil
}

// tcpLimits accepts only so many connections at a time: in all, where the rest waits in the kernel's queue, and from one
// address, where the rest is closed at once, so that nobody takes all places.
type tcpLimits struct {
	*net.TCPListener
	places chan struct{} // one element for each open connection
	closed chan struct{}
	once   sync.Once

	max    int
	mu     sync.Mutex
	counts map[netip.Prefix]int
}

func newTCPLimits(l *net.TCPListener, most, perAddress int) *tcpLimits {
	return &tcpLimits{TCPListener: l, places: make(chan struct{}, most), closed: make(chan struct{}), max: perAddress, counts: map[netip.Prefix]int{}}
}

// Accept waits for a free place, then for a caller that may have it.
func (t *tcpLimits) Accept() (net.Conn, error) {
	select {
	case t.places <- struct{}{}:
	case <-t.closed:
		return nil, net.ErrClosed
	}
	for {
		c, err := t.AcceptTCP()
		if err != nil {
			<-t.places
			return nil, err
		}
		from := network(c.RemoteAddr())
		if t.enter(from) {
			return &limitedConn{TCPConn: c, closing: t.closed, leave: sync.OnceFunc(func() { t.leave(from); <-t.places })}, nil
		}
		_ = c.SetLinger(0) // keep nothing of it, not even a port that waits
		_ = c.Close()
	}
}

// enter counts a connection, unless there are too many from its network.
func (t *tcpLimits) enter(from netip.Prefix) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts[from] >= t.max {
		return false
	}
	t.counts[from]++
	return true
}

func (t *tcpLimits) leave(from netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts[from]--; t.counts[from] == 0 {
		delete(t.counts, from)
	}
}

// Close stops accepting.
func (t *tcpLimits) Close() error {
	t.once.Do(func() { close(t.closed) })
	return t.TCPListener.Close()
}

// network gives what counts as one address: an IPv4 address, or the 64 bits of IPv6 that one site has at least.
func network(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	prefix, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// limitedConn gives its place back when it is closed.
type limitedConn struct {
	*net.TCPConn
	leave   func()
	lingers atomic.Bool   // what was sent last is to arrive
	closing chan struct{} // closed with the listener
}

// lingerTime is for how long a connection lingers.
const lingerTime = time.Second

// Close closes the connection. One that lingers reads on for a moment: with octets that nobody has read, closing would throw away what the
// other end has not read yet.
func (c *limitedConn) Close() error {
	select {
	case <-c.closing: // nobody waits then
	default:
		if c.lingers.Swap(false) && c.CloseWrite() == nil && c.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(c.TCPConn, maxHead)) // whatever ends it, it is closed then
		}
	}
	err := c.TCPConn.Close()
	c.leave()
	return err
}
