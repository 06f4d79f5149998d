package daemon

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/xki"
)

// authority signs certificates of clients.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{testCertificate(t, name, key), key}
}

func (a *authority) write(t *testing.T, path string) {
	t.Helper()
	writePEM(t, path, "CERTIFICATE", a.cert.Raw, 0o644)
}

// issue gives a client's certificate, changed as wanted.
func (a *authority) issue(t *testing.T, commonName string, dnsNames []string, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: commonName}, DNSNames: dnsNames,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

var rootActor = &kms.Actor{Principal: "acs:ram::" + config.DefaultAccount + ":root", Account: config.DefaultAccount}

const cloudName = "cks.kms.eu-west-1.amazonaws.com"

// proxyAppliance is an appliance with a listener for external keys that wants certificates of authority, and one prefix with the key "k1".
type proxyAppliance struct {
	*appliance
	shows  *x509.Certificate // the listener's
	cloud  *authority
	id     string
	secret []byte
}

func newProxyAppliance(t *testing.T) *proxyAppliance {
	t.Helper()
	p := &proxyAppliance{cloud: newAuthority(t, "the cloud")}
	p.appliance = newAppliance(t, func(dir string) string {
		p.shows = writeCertificate(t, dir, "first")
		p.cloud.write(t, filepath.Join(dir, "clients.pem"))
		return fmt.Sprintf("\n[[listener]]\naddress = \"127.0.0.1:0\"\nserves = \"xki\"\ncert_file = \"%[1]s/cert.pem\"\nkey_file = \"%[1]s/key.pem\"\n"+
			"client_ca_file = \"%[1]s/clients.pem\"\nclient_names = [\"%[2]s\"]\nping_address = \"127.0.0.1:0\"\n", dir, cloudName)
	})
	key, err := p.server.svc.CreateKey(t.Context(), rootActor, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.client.CreateXKIPrefix(t.Context(), &admin.XKIPrefixRequest{Name: "cloud", Keys: map[string]string{"k1": key.KeyMetadata.KeyID}}); err != nil {
		t.Fatal(err)
	}
	made, err := p.client.CreateXKICredential(t.Context(), "cloud")
	if err != nil {
		t.Fatal(err)
	}
	p.id, p.secret = made.ID, made.Secret
	return p
}

func (p *proxyAppliance) addr() string { return p.server.doors[0].listener.Addr().String() }

// dials gives a client's TLS configuration that trusts these servers.
func dials(cert *tls.Certificate, servers ...*x509.Certificate) *tls.Config {
	c := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}
	for _, s := range servers {
		c.RootCAs.AddCert(s)
	}
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	return c
}

func (p *proxyAppliance) calls(t *testing.T, c *tls.Config, id string, secret []byte) *xki.Client {
	t.Helper()
	client, err := xki.NewClient(xki.ClientConfig{Endpoint: "https://" + p.addr(), Prefix: "/cloud", Dialect: xki.XKSv1, AccessKeyID: id, Region: "eu-west-1", TLS: c,
		Secret: func() ([]byte, error) { return bytes.Clone(secret), nil }, Budget: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

var cloudMetadata = xki.RequestMetadata{PrincipalARN: "arn:aws:iam::123456789012:user/Alice", KeyARN: "arn:aws:kms:eu-west-1:123456789012:key/1", Operation: "Encrypt", RequestID: "request"}

func encryptOnce(ctx context.Context, c *xki.Client) error {
	_, err := c.Do(ctx, &xki.Request{Op: xki.OpEncrypt, KeyID: "k1", Metadata: cloudMetadata, Algorithm: xki.AlgorithmGCM, Plaintext: []byte("a data key")})
	return err
}

// handshake connects and asks for something; the error is that of the connection, and answered what came over it.
func (p *proxyAppliance) handshake(c *tls.Config) (answered string, err error) {
	conn, err := tls.Dial("tcp", p.addr(), c)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	// In TLS 1.3 a client hears of it only when it reads.
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return "", err
	}
	// More than one write, as requests with a body are: what comes after the refusal must not keep the client from hearing of it.
	for _, text := range []string{"GET /ping HTTP/1.1\r\n", "Host: localhost\r\n", "X: " + strings.Repeat("x", 2000) + "\r\n", "\r\n"} {
		if _, err := conn.Write([]byte(text)); err != nil {
			return "", err
		}
	}
	b := make([]byte, 1000)
	n, err := conn.Read(b)
	return string(b[:n]), err
}

// A client that has no certificate of the authority and for the name hears nothing but the end of its handshake.
func TestMutualTLS(t *testing.T) {
	p := newProxyAppliance(t)
	for what, cert := range map[string]*tls.Certificate{
		"by DNS name":                     p.cloud.issue(t, "something", []string{"other", cloudName}, nil),
		"by common name":                  p.cloud.issue(t, cloudName, nil, nil),
		"by common name beside others":    p.cloud.issue(t, cloudName, []string{"other"}, nil),
		"of a subject with a name beside": p.cloud.issue(t, "other", []string{cloudName}, nil),
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			c := dials(cert, p.shows)
			c.MinVersion, c.MaxVersion = version, version
			if answer, err := p.handshake(c); err != nil || !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
				t.Errorf("%s, %s: %q, %v", what, tls.VersionName(version), answer, err)
			}
		}
		if err := encryptOnce(t.Context(), p.calls(t, dials(cert, p.shows), p.id, p.secret)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, cert := range map[string]*tls.Certificate{
		"none":                 nil,
		"of another authority": newAuthority(t, "the cloud").issue(t, cloudName, []string{cloudName}, nil),
		"for another name":     p.cloud.issue(t, "other", []string{"other"}, nil),
		"for a name below":     p.cloud.issue(t, "a."+cloudName, []string{"a." + cloudName, "*.kms.eu-west-1.amazonaws.com"}, nil),
		"without a name":       p.cloud.issue(t, "", nil, nil),
		"that has expired":     p.cloud.issue(t, cloudName, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }),
		"of a server": p.cloud.issue(t, cloudName, nil, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}),
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			c := dials(cert, p.shows)
			c.MinVersion, c.MaxVersion = version, version
			answer, err := p.handshake(c)
			if op, ok := errors.AsType[*net.OpError](err); answer != "" || !ok || op.Op != "remote error" {
				t.Errorf("a certificate %s, %s: %q, %v", what, tls.VersionName(version), answer, err)
			}
		}
	}
	if strings.Contains(p.log.String(), "panic") {
		t.Error(p.log.String())
	}
}

// A load balancer without a certificate asks in the clear, and finds nothing else there.
func TestPingDoor(t *testing.T) {
	p := newProxyAppliance(t)
	at := "http://" + p.server.pings[0].listener.Addr().String()
	for path, want := range map[string]int{"/ping": http.StatusOK, "/kms/xks/v1/health": http.StatusNotFound, "/cloud/kms/xks/v1/health": http.StatusNotFound, "/": http.StatusNotFound, "/metrics": http.StatusNotFound} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			want := want
			if method == http.MethodPost && want == http.StatusOK {
				want = http.StatusMethodNotAllowed
			}
			req, err := http.NewRequestWithContext(t.Context(), method, at+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s %s: %d, not %d", method, path, resp.StatusCode, want)
			}
		}
	}
}

// Whatever changes on the side of the proxy, no request is dropped: credentials, keys, rules, quotas, the listener's certificate, authority and names.
func TestProxyChanges(t *testing.T) {
	p := newProxyAppliance(t)
	cert := p.cloud.issue(t, cloudName, nil, nil)
	other := newAuthority(t, "another cloud")
	oldServer := p.shows
	firstID, firstSecret := p.id, p.secret

	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var done atomic.Int64
	kept := p.calls(t, dials(cert, oldServer), firstID, firstSecret)
	if err := encryptOnce(ctx, kept); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				if err := encryptOnce(ctx, kept); err != nil && ctx.Err() == nil {
					t.Errorf("a request was dropped: %v", err)
					return
				}
				done.Add(1)
			}
		})
	}
	after := func(what string) { // so that requests meet each change
		for until := done.Load() + 20; done.Load() < until && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
		if t.Failed() {
			t.Fatalf("after %s", what)
		}
	}
	after("the start")
	second, err := p.client.CreateXKICredential(ctx, "cloud")
	if err != nil {
		t.Fatal(err)
	}
	after("a second credential")
	if err := encryptOnce(ctx, p.calls(t, dials(cert, oldServer), second.ID, second.Secret)); err != nil {
		t.Errorf("the second credential: %v", err)
	}
	rules, perSecond := []admin.XKIRule{{Name: "alice", Operations: []string{"encrypt"}, Unless: map[string]admin.OneOf{"awsPrincipalArn": {"arn:aws:iam::123456789012:user/Bob", "arn:aws:iam::123456789012:user/Al*"}}}}, 1_000_000
	key, err := p.server.svc.CreateKey(ctx, rootActor, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.client.UpdateXKIPrefix(ctx, "cloud", &admin.XKIPrefixUpdate{AddKeys: map[string]string{"k2": key.KeyMetadata.KeyID}, Rules: &rules, PerSecond: &perSecond}); err != nil {
		t.Fatal(err)
	}
	after("new keys, rules and quota")

	newServer := writeCertificate(t, p.dir, "second")
	other.write(t, filepath.Join(p.dir, "clients.pem"))
	p.replace(t, `client_names = ["`+cloudName+`"]`, `client_names = ["new.example", "newer.example"]`)
	p.reload(t)
	after("another certificate of the listener")
	for _, want := range []string{"the certificate of an external key proxy changed", xki.FingerprintsOf(newServer).CertificateSHA256} {
		if !strings.Contains(p.log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
	listeners, err := p.client.XKIListeners(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if l := listeners.Listeners[0]; !l.MutualTLS || len(l.ClientNames) != 2 || l.Certificates[0].CertificateSHA256 != xki.FingerprintsOf(newServer).CertificateSHA256 {
		t.Errorf("%+v", l)
	}
	// New connections are judged by what is now, even those that could resume a session from before.
	if answer, err := p.handshake(dials(cert, newServer)); err == nil {
		t.Errorf("the old authority's certificate is taken: %q", answer)
	}
	now := other.issue(t, "new.example", nil, nil)
	if err := encryptOnce(ctx, p.calls(t, dials(now, newServer), second.ID, second.Secret)); err != nil {
		t.Error(err)
	}
	stop()
	load.Wait()
	// Only a credential that is removed is refused.
	if err := p.client.DeleteXKICredential(t.Context(), "cloud", firstID); err != nil {
		t.Fatal(err)
	}
	if err := encryptOnce(t.Context(), kept); xki.AsError(err).Code != xki.AuthenticationFailed {
		t.Errorf("with a removed credential: %v", err)
	}
	if err := encryptOnce(t.Context(), p.calls(t, dials(now, newServer), second.ID, second.Secret)); err != nil {
		t.Error(err)
	}
	// A listener that can't be used any more stays as it is.
	if err := os.WriteFile(filepath.Join(p.dir, "clients.pem"), []byte("no certificate\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.server.reloadNow(); err == nil || !strings.Contains(err.Error(), "has no certificate in PEM") {
		t.Errorf("the reload says %v", err)
	}
	if err := encryptOnce(t.Context(), p.calls(t, dials(now, newServer), second.ID, second.Secret)); err != nil {
		t.Error(err)
	}
}

// The health that the proxy tells is that of a test of each member, with a key that is none of the store's.
func TestProxyHealth(t *testing.T) {
	p := newProxyAppliance(t)
	s := p.server
	h := &hsmHealth{pool: s.pool, log: s.log}
	if got := h.answer(); got.Status != xki.Unavailable || len(got.Fleet) != 1 {
		t.Errorf("before a look: %+v", got)
	}
	h.look(t.Context())
	got := h.answer()
	if got.Status != xki.Active || got.Message != "OK" || len(got.Fleet) != 2 || got.Fleet[0].Status != xki.Active || got.Fleet[0].Model == "" || got.Fleet[0].ID == "" {
		t.Errorf("%+v", got)
	}
	keys, err := s.svc.ListKeys(t.Context(), rootActor, &kmswire.ListKeysRequest{})
	if err != nil || len(keys.Keys.Key) != 1 {
		t.Errorf("the store has %+v, %v", keys, err)
	}
	if _, err := p.client.Drain(t.Context(), got.Fleet[1].ID, time.Minute); err != nil {
		t.Fatal(err)
	}
	h.look(t.Context())
	if now := h.answer(); now.Status != xki.Degraded || now.Fleet[1].Status != xki.Unavailable || now.Fleet[0].Status != xki.Active || now.Message != "1 of 2 HSMs do their work" {
		t.Errorf("with one drained: %+v", now)
	}
	if _, err := p.client.Undrain(t.Context(), got.Fleet[1].ID); err != nil {
		t.Fatal(err)
	}
	h.look(t.Context())
	if now := h.answer(); now.Status != xki.Active {
		t.Errorf("when it is back: %+v", now)
	}
	// What is older than a minute counts no more.
	h.last.Load().at = time.Now().Add(-healthOld - time.Second)
	if now := h.answer(); now.Status != xki.Unavailable || now.Fleet[0].Status != xki.Unavailable || now.Fleet[1].Status != xki.Unavailable {
		t.Errorf("a minute later: %+v", now)
	}
	// Of more members than an answer may have those come first that serve.
	many := &healthLook{at: time.Now()}
	for i := range 12 {
		status := xki.Unavailable
		if i > 9 {
			status = xki.Active
		}
		many.fleet = append(many.fleet, xki.Member{ID: fmt.Sprint(i), Model: "m", Status: status})
	}
	h.last.Store(many)
	if now := h.answer(); len(now.Fleet) != maxFleet || now.Fleet[0].Status != xki.Active || now.Status != xki.Degraded || now.Message != "2 of 12 HSMs do their work" {
		t.Errorf("of twelve: %+v", now)
	}
	// The proxy answers with what the daemon's own looks found: that they run, its first answer shows.
	if err := waitHealthy(t.Context(), p.calls(t, dials(p.cloud.issue(t, cloudName, nil, nil), p.shows), p.id, p.secret)); err != nil {
		t.Error(err)
	}
}

func waitHealthy(ctx context.Context, c *xki.Client) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		a, err := c.Do(ctx, &xki.Request{Op: xki.OpHealth, Metadata: cloudMetadata})
		if err != nil {
			return err
		}
		if len(a.Health.Fleet) == 2 && a.Health.Fleet[0].Status == xki.Active {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// The administration of external keys is for roots, and only for those of the account.
func TestXKIAdministration(t *testing.T) {
	p := newProxyAppliance(t)
	for _, call := range [][3]string{
		{"GET", admin.XKIPrefixesPath, ""}, {"POST", admin.XKIPrefixesPath, `{"name":"mine"}`}, {"PATCH", admin.XKIPrefixesPath + "/cloud", `{"per_second":1}`},
		{"DELETE", admin.XKIPrefixesPath + "/cloud", ""}, {"POST", admin.XKIPrefixesPath + "/cloud/credentials", "{}"},
		{"POST", admin.XKIPrefixesPath + "/cloud/export", "{}"}, {"DELETE", admin.XKIPrefixesPath + "/cloud/credentials/" + p.id, ""},
		{"GET", admin.XKIConnectionsPath, ""}, {"DELETE", admin.XKIConnectionsPath + "/kst-external", ""}, {"PUT", admin.XKIConnectionsPath + "/kst-external", "{}\nsecret\n"},
	} {
		if rec := p.as(4242, call[0], call[1], call[2]); rec.Code != 403 || bytes.Contains(rec.Body.Bytes(), p.secret) {
			t.Errorf("%s %s: %d %s", call[0], call[1], rec.Code, rec.Body)
		}
	}
	again, err := p.client.ExportXKI(t.Context(), "cloud", "")
	if err != nil || again.ID != p.id || !bytes.Equal(again.Secret, p.secret) {
		t.Errorf("the export has %v, %v", again.ID, err)
	}
	// The secret is sealed where it is kept, and nowhere else.
	if err := filepath.WalkDir(p.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, p.secret) {
			t.Errorf("%s has the secret", path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(p.log.String(), string(p.secret)) {
		t.Error("the log has the secret")
	}
	for action, want := range map[string]string{"CreateXKIPrefix": "[begun ok]", "CreateXKICredential": "[begun ok denied by policy]", "ExportXKICredential": "[denied by policy begun ok]",
		"ManageXKI": "[denied by policy denied by policy denied by policy]"} {
		if got := fmt.Sprint(p.audited(t, action)); got != want {
			t.Errorf("%s is audited as %s, want %s", action, got, want)
		}
	}
	if err := encryptOnce(t.Context(), p.calls(t, dials(p.cloud.issue(t, cloudName, nil, nil), p.shows), p.id, p.secret)); err != nil {
		t.Error(err)
	}
	text, err := p.client.Metrics(t.Context())
	if want := `keyward_xki_requests_total{operation="encrypt",prefix="cloud",result="ok"} 1`; err != nil || !bytes.Contains(text, []byte(want)) {
		t.Errorf("the metrics have no %s: %v\n%s", want, err, text)
	}
	_, err = p.client.CreateXKIPrefix(t.Context(), &admin.XKIPrefixRequest{Name: "cloud"})
	wantStatus(t, err, 409, "there is a prefix cloud already")
	_, err = p.client.UpdateXKIPrefix(t.Context(), "cloud", &admin.XKIPrefixUpdate{AddKeys: map[string]string{"x": "alias/none"}})
	wantStatus(t, err, 404, "alias/none")
	_, err = p.client.ExportXKI(t.Context(), "none", "")
	wantStatus(t, err, 404, "none")
}

// A prefix that this version does not know how to serve does not keep the others from being served, and is told.
func TestUnservedPrefix(t *testing.T) {
	p := newProxyAppliance(t)
	if _, err := p.server.svc.XKI().CreatePrefix(t.Context(), rootActor, &keystore.XKIPrefix{Name: "newer", Dialect: "xks-v9", Path: "/newer"}); err != nil {
		t.Fatal(err)
	}
	p.reload(t)
	st, err := p.client.Status(t.Context())
	if err != nil || !strings.Contains(fmt.Sprint(st.Problems), `the prefix newer can't be used: this version knows no dialect "xks-v9"`) {
		t.Errorf("%v, %v", st, err)
	}
	if err := encryptOnce(t.Context(), p.calls(t, dials(p.cloud.issue(t, cloudName, nil, nil), p.shows), p.id, p.secret)); err != nil {
		t.Error(err)
	}
	if err := p.client.DeleteXKIPrefix(t.Context(), "newer"); err != nil {
		t.Fatal(err)
	}
	if st, err := p.client.Status(t.Context()); err != nil || len(st.Problems) != 0 {
		t.Errorf("%+v, %v", st, err)
	}
}
