package xki

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/kms"
)

// eventually waits until something is so, for much longer than it takes.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for until := time.Now().Add(30 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// accept hands each connection of a new listener to do, in a goroutine of its own, and closes it after that. It gives the address.
func accept(t *testing.T, do func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		tasks.Wait()
	})
	tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() {
				defer conn.Close()
				do(conn)
			})
		}
	})
	return l.Addr().String()
}

// A proxy that takes connections and never finishes TLS costs no connection for longer than a call may take.
func TestSilentListener(t *testing.T) {
	var came, open atomic.Int32
	address := accept(t, func(conn net.Conn) {
		came.Add(1)
		open.Add(1)
		_, _ = io.Copy(io.Discard, conn) // until the client closes it
		open.Add(-1)
	})
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	c := clientOf(t, server, XKSv1, "", func(c *ClientConfig) { c.Endpoint, c.Budget = "https://"+address, 50*time.Millisecond })
	for range 10 {
		if _, err := c.Do(t.Context(), &Request{Op: OpHealth, Metadata: meta}); AsError(err).Code != Unreachable {
			t.Errorf("%v", err)
		}
	}
	eventually(t, "all connections are closed", func() bool { return came.Load() > 0 && open.Load() == 0 })
}

// relay stands between a client and a server. After die, it swallows what comes over connections that there are, and keeps them open, as a firewall does that has
// forgotten them. New ones work.
type relay struct {
	address string
	epoch   atomic.Int32
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	r := &relay{}
	r.address = accept(t, func(near net.Conn) {
		far, err := net.Dial("tcp", to)
		if err != nil {
			t.Error(err)
			return
		}
		defer far.Close()
		born := r.epoch.Load()
		pass := func(to, from net.Conn) {
			b := make([]byte, 4096)
			for {
				n, err := from.Read(b)
				if err != nil {
					return
				}
				if r.epoch.Load() == born {
					_, _ = to.Write(b[:n]) // whoever is gone hears nothing
				}
			}
		}
		go func() {
			pass(near, far)
			near.Close()
		}()
		pass(far, near)
	})
	return r
}

func (r *relay) die() { r.epoch.Add(1) }

// A connection that has died without a word costs the one call that meets it.
func TestDeadConnection(t *testing.T) {
	w := newWorld(t)
	server := httptest.NewUnstartedServer(w.proxy)
	server.EnableHTTP2 = true // which would have one connection for all calls, and keep it when they have no answer
	server.StartTLS()
	defer server.Close()
	r := newRelay(t, server.Listener.Addr().String())
	c := clientOf(t, server, XKSv1, "/ks1", func(c *ClientConfig) { c.Endpoint, c.Budget = "https://"+r.address, 2*time.Second })
	health := func() error {
		_, err := c.Do(t.Context(), &Request{Op: OpHealth, Metadata: meta})
		return err
	}
	if err := health(); err != nil {
		t.Fatal(err)
	}
	r.die()
	if err := health(); AsError(err).Code != Unreachable {
		t.Errorf("over a dead connection: %v", err)
	}
	if err := health(); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

// The first probe decides, and calls go through before it.
func TestFirstProbe(t *testing.T) {
	w := newWorld(t)
	server := httptest.NewTLSServer(w.proxy)
	n := NewConnection(clientOf(t, server, XKSv1, "/ks1"))
	if _, err := n.Do(t.Context(), &Request{Op: OpMetadata, KeyID: "hardware", Metadata: meta}); err != nil {
		t.Errorf("before it: %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := n.Probe(ended); err == nil || !n.Connected() || !n.Status().Probed.IsZero() {
		t.Errorf("a probe that was ended: %v, %+v", err, n.Status())
	}
	server.Close()
	if err := n.Probe(t.Context()); err == nil || n.Connected() || n.Status().Connected || n.Status().Trouble == "" {
		t.Errorf("a proxy that is away: %v, %+v", err, n.Status())
	}
}

// A proxy that throttles health checks is there. What it did not say, though, is that it takes our access key again.
func TestThrottledProbe(t *testing.T) {
	var status atomic.Int32
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(int(status.Load())) }))
	defer server.Close()
	n := NewConnection(clientOf(t, server, XKSv1, ""))
	for i, row := range []struct {
		status int32
		want   bool
	}{{429, true}, {429, true}, {429, true}, {429, true}, {500, true}, {500, true}, {429, true}, {500, true}, {500, true}, {500, false}, {429, false}} {
		status.Store(row.status)
		if err := n.Probe(t.Context()); err == nil || n.Connected() != row.want || n.Status().Connected != row.want {
			t.Errorf("probe %d: %v, connected: %v", i+1, err, n.Connected())
		}
	}
}

// Only what may go better is tried again: a connection that was refused or lost before any octet of an answer. What has to be set otherwise says so.
func TestTries(t *testing.T) {
	health := &Request{Op: OpHealth, Metadata: meta}
	w := newWorld(t)
	var tries atomic.Int32
	// answering gives a server whose answers are octets, after which the connection ends. The first good of them are the proxy's, and leave it open.
	answering := func(good int32, octets string) *httptest.Server {
		tries.Store(0)
		s := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if tries.Add(1) <= good {
				w.proxy.ServeHTTP(rw, r)
				return
			}
			conn, _, err := rw.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, octets)
		}))
		t.Cleanup(s.Close)
		return s
	}
	for what, row := range map[string]struct {
		octets string
		tries  int32
	}{
		"nothing":                        {"", 2},
		"cut in the status line":         {"HTTP/1.1 2", 1},
		"cut in the headers":             {"HTTP/1.1 200 OK\r\nContent-", 1},
		"cut in the body":                {"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", 1},
		"cut in the body of a throttled": {"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 100\r\n\r\n{", 1},
	} {
		if _, err := clientOf(t, answering(0, row.octets), XKSv1, "/ks1").Do(t.Context(), health); AsError(err).Code != Unreachable || tries.Load() != row.tries {
			t.Errorf("%s: %v after %d tries", what, err, tries.Load())
		}
	}
	c := clientOf(t, answering(1, ""), XKSv1, "/ks1")
	if _, err := c.Do(t.Context(), health); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(t.Context(), health); err == nil || tries.Load() != 3 {
		t.Errorf("a connection that was good, and ends: %v after %d tries", err, tries.Load())
	}

	// Nobody listens, until the second try.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	tries.Store(0)
	c = clientOf(t, answering(9, ""), XKSv1, "/ks1", func(c *ClientConfig) {
		c.Endpoint = "https://" + l.Addr().String()
		c.Secret = countSecrets(&tries, c.Secret)
	})
	if _, err := c.Do(t.Context(), health); AsError(err).Code != Unreachable || tries.Load() != 2 {
		t.Errorf("nobody listens: %v after %d tries", err, tries.Load())
	}
	broken := errors.New("no disk")
	tries.Store(0)
	c = clientOf(t, answering(9, ""), XKSv1, "/ks1", func(c *ClientConfig) {
		c.Secret = countSecrets(&tries, func() ([]byte, error) { return nil, broken })
	})
	if _, err := c.Do(t.Context(), health); AsError(err).Code != NoSecret || !errors.Is(err, broken) || tries.Load() != 1 {
		t.Errorf("a secret that can't be read: %v after %d tries", err, tries.Load())
	}
}

func countSecrets(n *atomic.Int32, secret func() ([]byte, error)) func() ([]byte, error) {
	return func() ([]byte, error) {
		n.Add(1)
		return secret()
	}
}

// A connection that can't work as it is set is not tried again, and whoever uses a key behind it hears what to set.
func TestMisconfigured(t *testing.T) {
	w := newWorld(t)
	var shakes atomic.Int32
	server := httptest.NewUnstartedServer(w.proxy)
	server.TLS = &tls.Config{MaxVersion: tls.VersionTLS12, // in which a client always hears why it is refused
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { shakes.Add(1); return nil, nil }}
	server.StartTLS()
	defer server.Close()
	own := FingerprintsOf(server.Certificate()).CertificateSHA256
	mutual := httptest.NewUnstartedServer(w.proxy)
	mutual.TLS = &tls.Config{MaxVersion: tls.VersionTLS12, ClientAuth: tls.RequireAnyClientCert, GetConfigForClient: server.TLS.GetConfigForClient}
	mutual.StartTLS()
	defer mutual.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	pinning, err := ClientTLS(nil, []string{"sha256-" + strings.Repeat("0", 64)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	noHosts := nameServer(t)
	for what, row := range map[string]struct {
		endpoint string
		tls      *tls.Config
		says     []string
	}{
		"other roots":        {server.URL, &tls.Config{RootCAs: x509.NewCertPool()}, []string{own, "signed by unknown authority", "--roots or --pin", "keywardctl xki connect"}},
		"another name":       {server.URL, &tls.Config{RootCAs: roots, ServerName: "other"}, []string{own, "not other", "keywardctl xki connect"}},
		"another pin":        {server.URL, pinning, []string{own, "fingerprint that is pinned", "--roots or --pin", "keywardctl xki connect"}},
		"no certificate":     {mutual.URL, &tls.Config{RootCAs: roots}, []string{"wants a certificate of ours", "keywardctl xki connect"}},
		"no cipher suite":    {server.URL, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, []string{"how we use TLS", "keywardctl xki connect"}},
		"a host of no place": {"https://nowhere.invalid.", nil, []string{"there is no host nowhere.invalid", "keywardctl xki connect"}},
	} {
		shakes.Store(0)
		noHosts.Store(0)
		c := clientOf(t, server, XKSv1, "/ks1", func(c *ClientConfig) { c.Endpoint, c.TLS = row.endpoint, row.tls })
		e := &External{Instance: "kst-external", Connection: NewConnection(c)}
		_, err := e.Describe(t.Context(), &kms.ExternalUse{ExternalID: "hardware", Principal: "p", Action: "Encrypt", RequestID: "r"})
		if asked := shakes.Load() + noHosts.Load(); !errors.Is(err, kms.KeyUnavailable) || asked != 1 {
			t.Errorf("%s: %v after %d tries", what, err, asked)
			continue
		}
		text := err.(*kms.Error).Detail
		for _, want := range row.says {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q does not say %q", what, text, want)
			}
		}
		if strings.Contains(text, "try again") {
			t.Errorf("%s: %q", what, text)
		}
	}
}

// nameServer has names looked up, until the end of the test, where there are none. It counts the questions for IPv4.
func nameServer(t *testing.T) *atomic.Int32 {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := &atomic.Int32{}
	var serving sync.WaitGroup
	serving.Go(func() {
		b := make([]byte, 1024)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			end := 12 + bytes.IndexByte(b[12:n], 0) // of the name; its type follows
			if b[end+2] == 1 {
				asked.Add(1)
			}
			answer := slices.Concat(b[:2], []byte{0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0}, b[12:end+5]) // RFC 1035: the question, and "no such name"
			_, _ = conn.WriteTo(answer, from)
		}
	})
	was := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = was
		conn.Close()
		serving.Wait()
	})
	return asked
}

// A proxy that is lost is asked often, and one that is not, seldom. Whoever keeps a connection hears of a refused credential at once.
func TestKeep(t *testing.T) {
	w := newWorld(t)
	var away, refuses atomic.Bool
	var asked atomic.Int32
	server := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case away.Load():
			panic(http.ErrAbortHandler)
		case refuses.Load():
			rw.WriteHeader(http.StatusUnauthorized)
		default:
			asked.Add(1)
			w.proxy.ServeHTTP(rw, r)
		}
	}))
	defer server.Close()
	keep := func(every, lost time.Duration) (*Connection, chan bool) {
		n := NewConnection(clientOf(t, server, XKSv1, "/ks1"))
		ctx, end := context.WithCancel(context.Background())
		heard := make(chan bool, 1000)
		var kept sync.WaitGroup
		kept.Go(func() { n.Keep(ctx, every, lost, func(is bool, _ error) { heard <- is }) })
		t.Cleanup(func() {
			end()
			kept.Wait()
		})
		return n, heard
	}
	hears := func(heard chan bool, want bool, what string) {
		t.Helper()
		select {
		case is := <-heard:
			if is != want {
				t.Fatalf("%s: connected: %v", what, is)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: nothing is heard for 30 s", what)
		}
	}
	n, heard := keep(time.Hour, 20*time.Millisecond)
	hears(heard, true, "the first probe")
	if _, err := n.Do(t.Context(), &Request{Op: OpMetadata, KeyID: "hardware", Metadata: meta}); err != nil {
		t.Error(err)
	}
	refuses.Store(true)
	if _, err := n.Do(t.Context(), &Request{Op: OpMetadata, KeyID: "hardware", Metadata: meta}); AsError(err).Code != AuthenticationFailed {
		t.Error(err)
	}
	hears(heard, false, "a refused credential")
	refuses.Store(false)
	hears(heard, true, "it is taken again")

	away.Store(true)
	_, heard = keep(time.Hour, 20*time.Millisecond)
	hears(heard, false, "a proxy that is away")
	away.Store(false)
	hears(heard, true, "it is back")

	asked.Store(0)
	_, heard = keep(10*time.Millisecond, time.Hour)
	hears(heard, true, "a proxy that is there")
	eventually(t, "it is asked every 10 ms", func() bool { return asked.Load() > 5 })
}
