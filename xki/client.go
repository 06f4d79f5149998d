package xki

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keyward/keyward/xki/xkisign"
)

// ClientConfig says where a proxy is, and as whom to call it.
type ClientConfig struct {
	Endpoint    string // https://host[:port]
	Prefix      string // of paths: empty, or /x
	Dialect     *Dialect
	AccessKeyID string
	Secret      func() ([]byte, error) // the caller wipes it; asked for each request, so that it is in memory no longer than that
	Region      string
	InstanceID  string        // told to xki-v1
	TLS         *tls.Config   // roots, pins and the client's certificate
	Budget      time.Duration // of one call with all of its tries; Budget if 0
	Calls       int           // at the same time; 64 if 0
	UserAgent   string
}

// Client calls a proxy. All its methods may be called at the same time.
type Client struct {
	cfg  ClientConfig
	base *url.URL
	http *http.Client
	used chan struct{} // a place for each call at the same time

	tally tally
	asked atomic.Bool // the proxy has asked for our certificate
	shows bool        // and there is one
}

// idleTimeout is below the 350 seconds after which load balancers forget a connection (§2.14).
const idleTimeout = 300 * time.Second

// NewClient makes a Client. It connects when it is first called.
func NewClient(c ClientConfig) (*Client, error) {
	base, err := url.Parse(c.Endpoint)
	if err != nil || base.Scheme != "https" || base.Host == "" || base.Path != "" || base.RawQuery != "" || base.User != nil {
		return nil, Errorf(Validation, "the endpoint %q must be https://HOST or https://HOST:PORT", c.Endpoint)
	}
	if c.Budget == 0 {
		c.Budget = Budget
	}
	if c.Calls == 0 {
		c.Calls = 64
	}
	tlsConfig := &tls.Config{}
	if c.TLS != nil {
		tlsConfig = c.TLS.Clone()
	}
	tlsConfig.MinVersion = max(tlsConfig.MinVersion, tls.VersionTLS12)
	client := &Client{cfg: c, base: base, used: make(chan struct{}, c.Calls)}
	if show := tlsConfig.Certificates; tlsConfig.GetClientCertificate == nil {
		client.shows = len(show) > 0
		tlsConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			client.asked.Store(true)
			if !client.shows {
				return &tls.Certificate{}, nil
			}
			return &show[0], nil
		}
	}
	// A connection is begun for a call, but is not the call's: net/http goes on with it when the call has ended, so that the next has it. It needs bounds of its own.
	dialer := &net.Dialer{Timeout: c.Budget, KeepAlive: 60 * time.Second}
	// HTTP/1.1, as a call that has had no answer ends its connection there, and in HTTP/2 leaves it to the next. Pings find out which connection is dead, but would have to come more
	// often than servers put up with.
	version := &http.Protocols{}
	version.SetHTTP1(true)
	client.http = &http.Client{
		Transport: &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: tlsConfig, MaxIdleConnsPerHost: c.Calls, IdleConnTimeout: idleTimeout,
			DisableCompression: true, ResponseHeaderTimeout: c.Budget, TLSHandshakeTimeout: c.Budget, Protocols: version},
		// A redirect would carry plaintext to who knows where.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return client, nil
}

// Close closes connections that are idle.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Counts gives how many calls there were, by what came of them in the end.
func (c *Client) Counts() []Count { return c.tally.counts() }

// Do makes a call: within the budget, and once more when that may help (§2.14). The error is an *Error. Answers are held against the request; for an encryption in xks-v1 an
// integrity value is asked for and verified. The caller wipes a plaintext in the answer.
func (c *Client) Do(ctx context.Context, r *Request) (*Answer, error) {
	a, err := c.do(ctx, r)
	c.tally.add(r.Op, err)
	return a, err
}

func (c *Client) do(ctx context.Context, r *Request) (*Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Budget)
	defer cancel()
	select {
	case c.used <- struct{}{}:
		defer func() { <-c.used }()
	case <-ctx.Done():
		return nil, &Error{Code: Unreachable, Detail: "all calls to the proxy are taken", Err: ctx.Err()}
	}
	own := *r
	if own.Op == OpEncrypt && c.cfg.Dialect.is(XKSv1) {
		own.IntegrityAlgorithm = IntegritySHA256
	}
	own.Metadata.InstanceID = c.cfg.InstanceID
	body, err := c.cfg.Dialect.EncodeRequest(&own)
	if err != nil {
		return nil, &Error{Code: Internal, Err: err}
	}
	defer clear(body)
	a, failure := c.try(ctx, &own, body)
	if failure != nil && failure.again {
		// Some come back at the same moment: not all of them at once.
		select {
		case <-time.After(jitter(c.cfg.Budget / 8)):
			a, failure = c.try(ctx, &own, body)
		case <-ctx.Done():
		}
	}
	if failure != nil {
		return nil, failure
	}
	return a, nil
}

// tryAgain says whether another try may help after an answer (§2.14). An encryption or a decryption that is done twice does no harm. Unreachable is that of a load balancer.
func (c Code) tryAgain() bool {
	return c == Unreachable || c == Throttling || c == DependencyTimeout || c == Internal
}

// lost says of an error before any octet of an answer whether the connection was refused, or ended by the other side.
func lost(err error, reused bool) bool {
	return reused || slices.ContainsFunc([]error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF}, func(is error) bool { return errors.Is(err, is) })
}

// jitter is a random time of at most d.
func jitter(d time.Duration) time.Duration {
	n, err := rand.Int(rand.Reader, big.NewInt(int64(max(d, 1))))
	if err != nil {
		return d
	}
	return time.Duration(n.Int64())
}

// try makes one request.
func (c *Client) try(ctx context.Context, r *Request, body []byte) (*Answer, *Error) {
	u := *c.base
	u.Path = c.cfg.Prefix + c.cfg.Dialect.path(r.Op, r.KeyID)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, &Error{Code: Internal, Err: err}
	}
	req.Header.Set("Content-Type", c.cfg.Dialect.contentType)
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	if c.cfg.Dialect.is(XKIv1) {
		req.Header.Set("X-Acs-Action", http.MethodPost)
		req.Header.Set("X-Acs-Version", xkiSpecification)
	}
	secret, err := c.cfg.Secret()
	if err != nil {
		return nil, &Error{Code: NoSecret, Err: err}
	}
	c.cfg.Dialect.schemes[0].Sign(req, body, xkisign.Signing{AccessKeyID: c.cfg.AccessKeyID, Secret: secret, Region: c.cfg.Region, Time: time.Now()})
	clear(secret)
	var reused, answered atomic.Bool
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:              func(conn httptrace.GotConnInfo) { reused.Store(conn.Reused) },
		GotFirstResponseByte: func() { answered.Store(true) },
	}))
	resp, err := c.http.Do(req)
	if err != nil {
		failure := c.unreachable(ctx, err)
		failure.again = failure.Code == Unreachable && !answered.Load() && lost(err, reused.Load())
		return nil, failure
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	defer clear(answer)
	switch {
	case err != nil:
		return nil, c.unreachable(ctx, err)
	case len(answer) > maxBody:
		return nil, Errorf(BadAnswer, "the answer has more than %d octets", maxBody)
	case resp.StatusCode != http.StatusOK:
		failure := c.cfg.Dialect.DecodeError(resp.StatusCode, answer)
		failure.again = failure.Code.tryAgain()
		return nil, failure
	case !isJSON(resp.Header.Get("Content-Type")):
		return nil, Errorf(BadAnswer, "the answer is of the type %.80q", resp.Header.Get("Content-Type"))
	}
	a, err := c.cfg.Dialect.DecodeAnswer(r, answer)
	if err != nil {
		return nil, AsError(err)
	}
	return a, nil
}

// isJSON says whether a Content-Type is that of JSON, in any case and with any parameters.
func isJSON(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil && t == "application/json"
}

// unreachable words why no answer came.
func (c *Client) unreachable(ctx context.Context, err error) *Error {
	if of, ok := errors.AsType[*url.Error](err); ok { // whose text has the URL again
		err = of.Err
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e // of our own, by way of crypto/tls
	}
	if of, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return untrusted(of.UnverifiedCertificates[0], of.Err)
	}
	if of, ok := errors.AsType[*net.DNSError](err); ok && of.IsNotFound {
		return Errorf(Misconfigured, "there is no host %s", of.Name)
	}
	of, _ := errors.AsType[*net.OpError](err)
	refused := of != nil && of.Op == "remote error" // an alert of TLS
	wants := c.asked.Load() && !c.shows
	e := &Error{Code: Unreachable, Detail: "the proxy can't be reached", Err: err}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		e.Detail = fmt.Sprintf("the proxy did not answer in time (%v; keywardctl xki connect --budget sets another)", c.cfg.Budget)
	case refused && wants:
		return Errorf(Misconfigured, "the proxy wants a certificate of ours, and none is set (%v)", err)
	case refused:
		return Errorf(Misconfigured, "the proxy refuses our certificate, or how we use TLS (%v)", err)
	case errors.Is(err, syscall.ECONNREFUSED): // before any TLS
	case wants: // with TLS 1.3 the end of the connection may be all that is seen of an alert
		e.Detail = "the proxy can't be reached, or wants a certificate of ours, and none is set"
	case c.asked.Load():
		e.Detail = "the proxy can't be reached, or does not take our certificate"
	}
	return e
}

// Connection is what is known of the way to a proxy: it is asked for its health now and then, and a refused credential counts at once.
type Connection struct {
	client *Client
	lost   atomic.Int32 // probes in a row that failed, or lostAfter

	refused chan error // for Keep: a call's credential was refused, and that has disconnected

	mu     sync.Mutex // guards what follows
	status ConnectionStatus
}

// ConnectionStatus is how a connection is, for people.
type ConnectionStatus struct {
	Connected bool
	Since     time.Time // of Connected
	Probed    time.Time // the last time; zero: not yet
	Trouble   string    // what was wrong the last time that something was; empty: nothing
	Health    Health    // as the proxy told it the last time
}

// lostAfter is after how many failed probes in a row a proxy counts as disconnected.
const lostAfter = 3

// NewConnection makes one. Calls go through until something is known of it, as to refuse them would be a guess; its first Probe decides.
func NewConnection(c *Client) *Connection {
	n := &Connection{client: c, refused: make(chan error, 1), status: ConnectionStatus{Connected: true, Since: time.Now()}}
	n.lost.Store(lostAfter - 1)
	return n
}

// Connected says whether keys behind the proxy can be used.
func (n *Connection) Connected() bool { return n.lost.Load() < lostAfter }

// Status tells more.
func (n *Connection) Status() ConnectionStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.status
}

// Keep probes now, and then until ctx ends: every so often while it is Connected, and while it is not after about every lost. changed, which may be nil, hears what Connected is
// after the first probe, and of each change.
func (n *Connection) Keep(ctx context.Context, every, lost time.Duration, changed func(connected bool, err error)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	was, first := false, true
	for {
		var err error
		select {
		case <-timer.C:
			err = n.Probe(ctx)
		case err = <-n.refused:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return
		}
		is := n.Connected()
		if changed != nil && (first || is != was) {
			changed(is, err)
		}
		was, first = is, false
		wait := every
		if !is {
			wait = lost/2 + jitter(lost) // many callers lose a proxy at the same moment: not all of them at once
		}
		timer.Reset(wait)
	}
}

// Probe asks the proxy for its health. A connection is as it was before when ctx ends first.
func (n *Connection) Probe(ctx context.Context) error {
	a, err := n.client.Do(ctx, &Request{Op: OpHealth, Metadata: RequestMetadata{Operation: n.client.cfg.Dialect.healthCheck, RequestID: requestID()}})
	if err == nil && a.Health.dead() {
		err = Errorf(Unreachable, "the proxy says that no key manager behind it is available")
	}
	if err != nil && ctx.Err() != nil {
		return err
	}
	n.note(err)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.status.Probed, n.status.Trouble = time.Now(), ""
	if err != nil {
		n.status.Trouble = err.Error()
	}
	if a != nil {
		n.status.Health = a.Health
	}
	return err
}

// Do is Client.Do, and notes what it says of the connection.
func (n *Connection) Do(ctx context.Context, r *Request) (*Answer, error) {
	if !n.Connected() {
		return nil, Errorf(Unreachable, "the instance is Disconnected: the proxy does not answer, or refuses our access key")
	}
	a, err := n.client.Do(ctx, r)
	if err != nil && AsError(err).Code == AuthenticationFailed && n.note(err) {
		select {
		case n.refused <- err:
		default: // one is enough
		}
	}
	return a, err
}

// note counts what came of a call. changed says whether Connected has.
func (n *Connection) note(err error) (changed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case err == nil:
		n.lost.Store(0)
	case AsError(err).Code == AuthenticationFailed:
		n.lost.Store(lostAfter)
	case !n.Connected(): // until an answer is good
	case AsError(err).Code == Throttling:
		n.lost.Store(0) // a proxy that has much to do is there
	default:
		n.lost.Add(1)
	}
	if err != nil {
		n.status.Trouble = err.Error()
	}
	is := n.Connected()
	if changed = is != n.status.Connected; changed {
		n.status.Connected, n.status.Since = is, time.Now()
	}
	return changed
}

// dead says that nothing behind the proxy serves.
func (h *Health) dead() bool {
	if len(h.Fleet) == 0 {
		return h.Status == Unavailable
	}
	for _, m := range h.Fleet {
		if m.Status != Unavailable {
			return false
		}
	}
	return true
}
