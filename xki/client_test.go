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
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/kms/kmswire"
)

// clientOf makes a client of a TLS server.
func clientOf(t *testing.T, s *httptest.Server, d *Dialect, prefix string, change ...func(*ClientConfig)) *Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c := ClientConfig{Endpoint: s.URL, Prefix: prefix, Dialect: d, AccessKeyID: credentials[0].ID, Region: "eu-west-1", TLS: &tls.Config{RootCAs: roots},
		Secret: func() ([]byte, error) { return bytes.Clone(credentials[0].Secret), nil }, Budget: 5 * time.Second, UserAgent: "keyward test"}
	for _, f := range change {
		f(&c)
	}
	client, err := NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// The client against the proxy, over TLS, in both dialects.
func TestClientAndProxy(t *testing.T) {
	w := newWorld(t)
	server := httptest.NewTLSServer(w.proxy)
	defer server.Close()
	for prefix, d := range map[string]*Dialect{"/ks1": XKSv1, "": XKIv1} {
		c := clientOf(t, server, d, prefix)
		n := NewConnection(c)
		if err := n.Probe(t.Context()); err != nil || !n.Connected() {
			t.Fatal(err)
		}
		a, err := n.Do(t.Context(), &Request{Op: OpMetadata, KeyID: "hardware", Metadata: meta})
		if err != nil || a.Key.Spec != SpecAES256 {
			t.Fatalf("%+v, %v", a, err)
		}
		text, aad := []byte("to be kept elsewhere"), []byte("context")
		sealed, err := n.Do(t.Context(), &Request{Op: OpEncrypt, KeyID: "hardware", Plaintext: text, AAD: aad, Algorithm: AlgorithmGCM, Metadata: meta})
		if err != nil || (d == XKSv1) != (len(sealed.Integrity) == integritySize) {
			t.Fatalf("%+v, %v", sealed, err)
		}
		a, err = n.Do(t.Context(), &Request{Op: OpDecrypt, KeyID: "hardware", Sealed: sealed.Sealed, AAD: aad, Algorithm: AlgorithmGCM, Metadata: meta})
		if err != nil || !bytes.Equal(a.Plaintext, text) {
			t.Fatalf("%+v, %v", a, err)
		}
		if _, err = n.Do(t.Context(), &Request{Op: OpDecrypt, KeyID: "hardware", Sealed: sealed.Sealed, Algorithm: AlgorithmGCM, Metadata: meta}); AsError(err).Code != InvalidCiphertext {
			t.Errorf("without the AAD: %v", err)
		}
		if _, err = n.Do(t.Context(), &Request{Op: OpMetadata, KeyID: "none", Metadata: meta}); AsError(err).Code != KeyNotFound {
			t.Errorf("no key: %v", err)
		}
		refused := NewConnection(clientOf(t, server, d, prefix, func(c *ClientConfig) { c.Secret = func() ([]byte, error) { return []byte("wrong"), nil } }))
		if _, err = refused.Do(t.Context(), &Request{Op: OpMetadata, KeyID: "hardware", Metadata: meta}); AsError(err).Code != AuthenticationFailed || refused.Connected() {
			t.Errorf("a wrong secret: %v, connected: %v", err, refused.Connected())
		}
	}
	if _, err := w.service.DisableKey(t.Context(), root, &kmswire.DisableKeyRequest{KeyID: w.keys["software"]}); err != nil {
		t.Fatal(err)
	}
	if _, err := clientOf(t, server, XKSv1, "/ks1").Do(t.Context(), &Request{Op: OpEncrypt, KeyID: "software", Plaintext: []byte("x"), Algorithm: AlgorithmGCM, Metadata: meta}); AsError(err).Code != InvalidState {
		t.Errorf("a disabled key: %v", err)
	}
}

// A proxy that lies, or is none.
// What became of requests is counted at both ends, and over a change of what is served.
func TestCounts(t *testing.T) {
	w := newWorld(t)
	server := httptest.NewTLSServer(w.proxy)
	defer server.Close()
	c := clientOf(t, server, XKSv1, "/ks1")
	ask := func(key string) {
		_, _ = c.Do(t.Context(), &Request{Op: OpEncrypt, KeyID: key, Metadata: meta, Algorithm: AlgorithmGCM}) // what came of it is counted
	}
	ask("software")
	w.proxy.SetStores(w.stores)
	ask("software")
	ask("none")
	w.call(XKSv1, "/nowhere", &Request{Op: OpHealth, Metadata: meta}, nil)
	want := []Count{{"encrypt", "ok", 2}, {"encrypt", "key not found", 1}}
	if got := c.Counts(); !slices.Equal(got, want) {
		t.Errorf("the client counts %v", got)
	}
	all := w.proxy.Counts()
	if !slices.Equal(all["aws"], want) || len(all["ali"]) != 0 || !slices.Equal(all[""], []Count{{"none", "invalid path", 1}}) {
		t.Errorf("the proxy counts %v", all)
	}
}

func TestLyingProxies(t *testing.T) {
	sealed := Sealed{Ciphertext: []byte("abc"), IV: make([]byte, 12), Tag: make([]byte, TagSize)}
	good := &Answer{Sealed: sealed, Integrity: sealed.integrity(nil)}
	encoded := func(change func(*Answer)) string {
		a := *good
		change(&a)
		body, err := XKSv1.EncodeAnswer(OpEncrypt, &a)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	for _, row := range []struct {
		what    string
		status  int
		body    string
		tries   int32
		want    Code
		headers map[string]string
	}{
		{"good", 200, encoded(func(*Answer) {}), 1, 0, nil},
		{"a wrong integrity value", 200, encoded(func(a *Answer) { a.Integrity = make([]byte, 32) }), 1, BadAnswer, nil},
		{"no integrity value", 200, encoded(func(a *Answer) { a.Integrity = nil }), 1, BadAnswer, nil},
		{"a longer ciphertext", 200, encoded(func(a *Answer) { a.Sealed.Ciphertext = []byte("abcd") }), 1, BadAnswer, nil},
		{"long metadata", 200, encoded(func(a *Answer) { a.Sealed.Metadata = make([]byte, 21) }), 1, BadAnswer, nil},
		{"HTML", 200, "<html>", 1, BadAnswer, map[string]string{"Content-Type": "text/html"}},
		{"JSON by another case", 200, encoded(func(*Answer) {}), 1, 0, map[string]string{"Content-Type": `Application/JSON; Charset="UTF-8"`}},
		{"JSON that is called something like it", 200, encoded(func(*Answer) {}), 1, BadAnswer, map[string]string{"Content-Type": "application/jsonlines"}},
		{"JSON that is called nothing", 200, encoded(func(*Answer) {}), 1, BadAnswer, map[string]string{"Content-Type": ""}},
		{"JSON that is called HTML", 200, encoded(func(*Answer) {}), 1, BadAnswer, map[string]string{"Content-Type": "text/html"}},
		{"no JSON", 200, "{", 1, BadAnswer, nil},
		{"a redirect", 302, "", 1, BadAnswer, map[string]string{"Location": "https://127.0.0.1:1/"}},
		{"500 with HTML", 500, "<html>", 1, BadAnswer, nil},
		{"502 of a load balancer", 502, "<html>", 2, Unreachable, map[string]string{"Content-Type": "text/html"}},
		{"503 of a load balancer", 503, "<html>", 2, DependencyTimeout, map[string]string{"Content-Type": "text/html"}},
		{"504 of a load balancer", 504, "<html>", 2, DependencyTimeout, map[string]string{"Content-Type": "text/html"}},
		{"502 with an error that is final", 502, `{"errorName":"KeyNotFoundException"}`, 1, KeyNotFound, nil},
		{"an endless body", 200, strings.Repeat(" ", maxBody+1), 1, BadAnswer, nil},
		{"400", 400, `{"errorName":"ValidationException"}`, 1, Validation, nil},
		{"401", 401, `{"errorName":"AuthenticationFailedException"}`, 1, AuthenticationFailed, nil},
		{"403", 403, `{"errorName":"AccessDeniedException"}`, 1, AccessDenied, nil},
		{"404", 404, `{"errorName":"KeyNotFoundException"}`, 1, KeyNotFound, nil},
		{"501", 501, `{"errorName":"UnsupportedOperationException"}`, 1, Unsupported, nil},
		{"429", 429, `{"errorName":"ThrottlingException"}`, 2, Throttling, nil},
		{"503", 503, `{"errorName":"DependencyTimeoutException"}`, 2, DependencyTimeout, nil},
		{"500", 500, `{"errorName":"InternalException"}`, 2, Internal, nil},
	} {
		var tries atomic.Int32
		s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			tries.Add(1)
			w.Header().Set("Content-Type", "application/json")
			for name, v := range row.headers {
				w.Header().Set(name, v)
			}
			w.WriteHeader(row.status)
			io.WriteString(w, row.body)
		}))
		_, err := clientOf(t, s, XKSv1, "").Do(t.Context(), &Request{Op: OpEncrypt, KeyID: "k", Plaintext: []byte("xyz"), Algorithm: AlgorithmGCM, Metadata: meta})
		if got := tries.Load(); (err == nil) != (row.want == 0) || err != nil && AsError(err).Code != row.want || got != row.tries {
			t.Errorf("%s: %v after %d tries", row.what, err, got)
		}
		s.Close()
	}
}

// A budget is one for a call with all its tries: a proxy that is slow, gone, or hangs up.
func TestBudget(t *testing.T) {
	release := make(chan struct{})
	slow := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-release }))
	defer slow.Close()
	defer close(release)
	hangsUp := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }))
	defer hangsUp.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	short := func(c *ClientConfig) { c.Budget = 100 * time.Millisecond }
	for what, c := range map[string]*Client{"slow": clientOf(t, slow, XKSv1, "", short), "hangs up": clientOf(t, hangsUp, XKSv1, "", short),
		"nobody": clientOf(t, slow, XKSv1, "", short, func(c *ClientConfig) { c.Endpoint = "https://" + nobody })} {
		began := time.Now()
		_, err := c.Do(t.Context(), &Request{Op: OpHealth, Metadata: meta})
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != Unreachable || time.Since(began) > 2*time.Second {
			t.Errorf("%s: %v after %v", what, err, time.Since(began))
		}
	}
	// Probes that fail end the connection; the first that is good begins it.
	n := NewConnection(clientOf(t, hangsUp, XKSv1, "", short))
	n.lost.Store(0)
	for i := range lostAfter {
		if !n.Connected() {
			t.Errorf("disconnected after %d probes", i)
		}
		if err := n.Probe(context.Background()); err == nil {
			t.Error("a probe went well")
		}
	}
	if n.Connected() {
		t.Error("connected still")
	}
	if _, err := n.Do(t.Context(), &Request{Op: OpHealth}); err == nil {
		t.Error("a call through a connection that is lost")
	}
}

func TestEndpoints(t *testing.T) {
	for endpoint, good := range map[string]bool{"https://a.example": true, "https://a.example:8443": true, "http://a.example": false, "https://": false,
		"https://a.example/x": false, "https://u:p@a.example": false, "https://a.example?x": false, "%": false} {
		if _, err := NewClient(ClientConfig{Endpoint: endpoint, Dialect: XKSv1}); (err == nil) != good {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}
