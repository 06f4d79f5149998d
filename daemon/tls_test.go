package daemon

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmsapi"
	"github.com/keyward/keyward/kms/kmssign"
	"github.com/keyward/keyward/kms/kmswire"
)

// oneAccessKey is an access key of root.
type oneAccessKey struct{}

func (oneAccessKey) ClockTrusted() error { return nil }

const testSecret = "thirty letters that nobody may know"

func (oneAccessKey) AccessKey(_ context.Context, id string) ([]byte, string, string, bool, error) {
	if id != "AKroot" {
		return nil, "", "", false, kms.Errorf(kms.ResourceNotFound, "")
	}
	return []byte(testSecret), "acs:ram::" + config.DefaultAccount + ":root", config.DefaultAccount, true, nil
}

// testCertificate gives a certificate for 127.0.0.1 and localhost, signed by itself.
func testCertificate(t *testing.T, name string, key crypto.Signer) *x509.Certificate {
	t.Helper()
	// A signer of keyward only does SHA-256.
	algorithm := x509.SHA256WithRSA
	if _, ok := key.Public().(*ecdsa.PublicKey); ok {
		algorithm = x509.ECDSAWithSHA256
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, SignatureAlgorithm: algorithm,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func writePEM(t *testing.T, path, kind string, der []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		t.Fatal(err)
	}
}

// writeCertificate makes cert.pem and key.pem in dir.
func writeCertificate(t *testing.T, dir, name string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := testCertificate(t, name, key)
	writePEM(t, filepath.Join(dir, "cert.pem"), "CERTIFICATE", cert.Raw, 0o644)
	writePEM(t, filepath.Join(dir, "key.pem"), "PRIVATE KEY", der, 0o600)
	return cert
}

func listenerRow(dir string) config.Listener {
	return config.Listener{Address: "127.0.0.1:0", CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"),
		MaxConnections: config.DefaultMaxConnections, MaxPerAddress: config.DefaultMaxPerAddress}
}

// trusting is the TLS configuration of a client that knows one certificate.
func trusting(cert *x509.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{RootCAs: pool, ServerName: "localhost"}
}

// httpsClient is a client that trusts cert, and speaks HTTP/2 or not.
func httpsClient(t *testing.T, cert *x509.Certificate, http2 bool) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: trusting(cert), Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetHTTP2(http2)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// signedCall makes a call and gives its answer. Its clock is a second ahead, so that no request is from before the start.
func signedCall(t *testing.T, client *http.Client, addr string, sign func(*http.Request, kmssign.Signing) error, params url.Values) (status int, body []byte) {
	t.Helper()
	params.Set("Version", kmswire.APIVersion)
	r, err := http.NewRequest(http.MethodPost, "https://"+addr+"/?"+params.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := sign(r, kmssign.Signing{AccessKeyID: "AKroot", Secret: []byte(testSecret), Time: time.Now().Add(time.Second)}); err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// TestTLS runs the whole daemon and calls it as the SDKs do, changes its certificates while it runs, and has its own key in
// the HSM make the signatures of handshakes.
func TestTLS(t *testing.T) {
	var cert *x509.Certificate
	a := newAppliance(t, func(dir string) string {
		cert = writeCertificate(t, dir, "first")
		return fmt.Sprintf("\n[[listener]]\naddress = \"127.0.0.1:0\"\ncert_file = %q\nkey_file = %q\n", filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	})
	addr := a.server.doors[0].listener.Addr().String()
	var keyID string
	for _, http2 := range []bool{false, true} {
		client := httpsClient(t, cert, http2)
		for _, sign := range []func(*http.Request, kmssign.Signing) error{kmssign.SignRPC, kmssign.SignACS3, kmssign.SignACS4} {
			status, body := signedCall(t, client, addr, sign, url.Values{"Action": {"CreateKey"}, "DKMSInstanceId": {"kst-software"}})
			var made kmswire.CreateKeyResponse
			if err := json.Unmarshal(body, &made); err != nil || status != 200 || made.KeyMetadata.KeyID == "" {
				t.Fatalf("%d %s", status, body)
			}
			keyID = made.KeyMetadata.KeyID
			status, body = signedCall(t, client, addr, sign, url.Values{"Action": {"Encrypt"}, "KeyId": {keyID}, "Plaintext": {"aGVsbG8+/w=="}, "EncryptionContext": {`{"a":"1 *~ü"}`}})
			var sealed struct{ CiphertextBlob string }
			if err := json.Unmarshal(body, &sealed); err != nil || status != 200 {
				t.Fatalf("%d %s", status, body)
			}
			status, body = signedCall(t, client, addr, sign, url.Values{"Action": {"Decrypt"}, "CiphertextBlob": {sealed.CiphertextBlob}, "EncryptionContext": {`{"a":"1 *~ü"}`}})
			if status != 200 || !bytes.Contains(body, []byte(`"aGVsbG8+/w=="`)) {
				t.Fatalf("%d %s", status, body)
			}
			status, body = signedCall(t, client, addr, sign, url.Values{"Action": {"DescribeKey"}, "KeyId": {keyID}, "Format": {"XML"}})
			if status != 200 || !bytes.HasPrefix(body, []byte("<")) || !bytes.Contains(body, []byte("<KeyId>"+keyID)) {
				t.Fatalf("%d %s", status, body)
			}
		}
		// The administration is not here, signed or not.
		for _, path := range []string{admin.StatusPath, admin.MetricsPath, admin.ReloadPath, "/v1/", "/favicon.ico"} {
			resp, err := client.Get("https://" + addr + path)
			if err != nil {
				t.Fatal(err)
			}
			var e kmswire.ErrorBody
			err = json.NewDecoder(resp.Body).Decode(&e)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != 404 || e.Code != "InvalidPath.NotFound" || e.HostID != addr {
				t.Errorf("%s: %d %+v %v", path, resp.StatusCode, e, err)
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(a.dir, "audit.log"))
	if err != nil || !bytes.Contains(text, []byte(`"access_key":"AKroot"`)) || !bytes.Contains(text, []byte(`"remote":"127.0.0.1:`)) || bytes.Contains(text, []byte(testSecret)) {
		t.Errorf("the audit has no access key, or %v:\n%s", err, text)
	}

	// A broken file changes nothing, and says why; nor does a key of another certificate.
	old := httpsClient(t, cert, true)
	if status, body := signedCall(t, old, addr, kmssign.SignACS3, url.Values{"Action": {"ListKeys"}}); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	if err := os.WriteFile(filepath.Join(a.dir, "cert.pem"), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.server.reloadNow(); err == nil || !strings.Contains(err.Error(), "cert.pem") || !strings.Contains(err.Error(), "127.0.0.1:0") {
		t.Errorf("a broken certificate: %v", err)
	}
	if status, body := signedCall(t, httpsClient(t, cert, true), addr, kmssign.SignACS3, url.Values{"Action": {"ListKeys"}}); status != 200 {
		t.Fatalf("after a refused reload: %d %s", status, body)
	}
	// One that has run out is a problem that the status names.
	valid := a.server.doors[0].cert.Load()
	expired := *valid
	leaf := *valid.Leaf
	leaf.NotAfter = time.Now().Add(-time.Second)
	expired.Leaf = &leaf
	a.server.doors[0].cert.Store(&expired)
	if problems := fmt.Sprint(a.server.status(ownActor(config.DefaultAccount)).Problems); !strings.Contains(problems, "listener 127.0.0.1:0") {
		t.Errorf("the problems are %s", problems)
	}
	a.server.doors[0].cert.Store(valid)
	// A new one is there for new connections, and the old connection goes on.
	second := writeCertificate(t, a.dir, "second")
	if waiting, err := a.server.reloadNow(); err != nil || len(waiting) != 0 {
		t.Fatal(waiting, err)
	}
	for who, client := range map[string]*http.Client{"new": httpsClient(t, second, true), "old": old} {
		if status, body := signedCall(t, client, addr, kmssign.SignACS3, url.Values{"Action": {"ListKeys"}}); status != 200 {
			t.Fatalf("the %s connection: %d %s", who, status, body)
		}
	}
	// An address waits for a restart.
	a.change(t, "\n[[listener]]\naddress = \"127.0.0.1:1\"\ncert_file = \"/none\"\nkey_file = \"/none\"\n")
	if waiting, err := a.server.reloadNow(); err != nil || fmt.Sprint(waiting) != "[listener]" {
		t.Errorf("%v %v", waiting, err)
	}

	client := httpsClient(t, second, false)
	for _, spec := range []string{"RSA_2048", "EC_P256"} {
		for _, instance := range []string{"kst-software", "kst-hardware"} {
			alias := "alias/tls/" + strings.ToLower(spec) + "/" + instance
			status, body := signedCall(t, client, addr, kmssign.SignACS3, url.Values{"Action": {"CreateKey"}, "DKMSInstanceId": {instance}, "KeySpec": {spec},
				"KeyUsage": {"SIGN/VERIFY"}, "AliasName": {alias}})
			if status != 200 {
				t.Fatalf("%d %s", status, body)
			}
			third := writeKeywardCertificate(t, a, alias)
			// The row of the first listener, whose key is now keyward's.
			a.replace(t, fmt.Sprintf("key_file = %q", filepath.Join(a.dir, "key.pem")), fmt.Sprintf("key = %q", alias))
			if _, err := a.server.reloadNow(); err != nil {
				t.Fatal(err)
			}
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				client := httpsClient(t, third, true)
				client.Transport.(*http.Transport).TLSClientConfig.MaxVersion = version
				if status, body := signedCall(t, client, addr, kmssign.SignACS3, url.Values{"Action": {"ListKeys"}}); status != 200 {
					t.Errorf("%s: %d %s", alias, status, body)
				}
			}
			// A key that can't sign is told where an operator looks first, until it can.
			key := a.server.doors[0].cert.Load().PrivateKey.(*keySigner).keyID
			for _, step := range []struct {
				action string
				works  bool
			}{{"DisableKey", false}, {"EnableKey", true}} {
				if status, body := signedCall(t, old, addr, kmssign.SignACS3, url.Values{"Action": {step.action}, "KeyId": {key}}); status != 200 {
					t.Fatalf("%s: %d %s", step.action, status, body)
				}
				c, err := tls.Dial("tcp", addr, trusting(third))
				if err == nil {
					c.Close()
				}
				told := strings.Contains(strings.Join(a.server.status(ownActor(config.DefaultAccount)).Problems, "\n"), "its key "+key+" could not sign")
				if (err == nil) != step.works || told == step.works {
					t.Errorf("%s after %s: %v, told %t", alias, step.action, err, told)
				}
			}
			// A certificate for another key is refused.
			writeCertificate(t, a.dir, "another")
			if _, err := a.server.reloadNow(); err == nil || !strings.Contains(err.Error(), "none of the key's versions") {
				t.Errorf("%s with a certificate for another key: %v", alias, err)
			}
			a.replace(t, fmt.Sprintf("key = %q", alias), fmt.Sprintf("key_file = %q", filepath.Join(a.dir, "key.pem")))
		}
	}
	if len(a.audited(t, "AsymmetricSign")) == 0 {
		t.Error("the signatures of handshakes are not in the audit")
	}
}

// writeKeywardCertificate makes a certificate for a key of keyward, which signs it itself.
func writeKeywardCertificate(t *testing.T, a *appliance, alias string) *x509.Certificate {
	t.Helper()
	svc, actor := a.server.signing, ownActor(config.DefaultAccount)
	list, err := svc.ListKeyVersions(t.Context(), actor, &kmswire.ListKeyVersionsRequest{KeyID: alias})
	if err != nil {
		t.Fatal(err)
	}
	version := list.KeyVersions.KeyVersion[0].KeyVersionID
	answer, err := svc.GetPublicKey(t.Context(), actor, &kmswire.GetPublicKeyRequest{KeyID: alias, KeyVersionID: version})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(answer.PublicKey))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	cert := testCertificate(t, alias, &keySigner{svc: svc, actor: actor, keyID: alias, version: version, public: public})
	writePEM(t, filepath.Join(a.dir, "cert.pem"), "CERTIFICATE", cert.Raw, 0o644)
	return cert
}

// TestKeySignerRefuses signs nothing but what keyward can.
func TestKeySignerRefuses(t *testing.T) {
	k := &keySigner{public: &ecdsa.PublicKey{Curve: elliptic.P256()}}
	if _, err := k.Sign(nil, make([]byte, 48), crypto.SHA384); err == nil {
		t.Error("SHA-384 was signed")
	}
}

// TestCertificateFiles refuses what a listener can't use.
func TestCertificateFiles(t *testing.T) {
	dir := t.TempDir()
	writeCertificate(t, dir, "a")
	row := listenerRow(dir)
	if _, err := readCertificate(&row); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o644, 0o604, 0o660, 0o602} {
		if err := os.Chmod(row.KeyFile, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := readCertificate(&row); err == nil || !strings.Contains(err.Error(), "chmod 0600") {
			t.Errorf("a private key with mode %o: %v", mode, err)
		}
	}
	for name, change := range map[string]func(*config.Listener){
		"no certificate": func(l *config.Listener) { l.CertFile = filepath.Join(dir, "none") },
		"no key":         func(l *config.Listener) { l.KeyFile = filepath.Join(dir, "none") },
		"a directory":    func(l *config.Listener) { l.CertFile = dir },
	} {
		other := listenerRow(dir)
		change(&other)
		if _, err := readCertificate(&other); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	writePEM(t, filepath.Join(dir, "cert.pem"), "NOTHING", []byte{1}, 0o600)
	if _, err := keywardCertificate(t.Context(), &config.Listener{CertFile: row.CertFile, Key: "k"}, nil, nil); err == nil || !strings.Contains(err.Error(), "no certificate") {
		t.Errorf("%v", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, "cert.pem"), "CERTIFICATE", testCertificate(t, "P-384", key).Raw, 0o600)
	if _, err := keywardCertificate(t.Context(), &config.Listener{CertFile: row.CertFile, Key: "k"}, nil, nil); err == nil || !strings.Contains(err.Error(), "P-384") {
		t.Errorf("%v", err)
	}
}

// shortTimes are over soon, where a test waits for their end; not so soon that a busy machine can't shake hands.
var shortTimes = tlsTimes{head: 3 * time.Second, body: 2 * time.Second, idle: 3 * time.Second, whole: 6 * time.Second, ping: 2 * time.Second}

// newDoor serves handler at a door of its own.
func newDoor(t *testing.T, handler http.Handler, times tlsTimes, most, perAddress int) (addr string, cert *x509.Certificate) {
	t.Helper()
	dir := t.TempDir()
	cert = writeCertificate(t, dir, "door")
	row := listenerRow(dir)
	row.MaxConnections, row.MaxPerAddress = most, perAddress
	s := &server{log: zerolog.Nop()}
	s.config.Store(&config.Config{})
	pair, err := s.certificate(t.Context(), &row)
	if err == nil {
		err = s.listen(t.Context(), &row, doorIdentity{cert: pair}, handler, times)
	}
	if err != nil {
		t.Fatal(err)
	}
	d := s.doors[0]
	served := make(chan error, 1)
	go func() { served <- d.server.ServeTLS(d.listener, "", "") }()
	t.Cleanup(func() {
		if err := s.closeDoors(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return d.listener.Addr().String(), cert
}

// api is the handler of the TLS doors, with a body timeout. It has no service, so no call may get through.
func api(times tlsTimes) http.Handler {
	o := tlsOptions(zerolog.Nop(), oneAccessKey{})
	o.BodyTimeout = times.body
	return kmsapi.New(nil, o)
}

// dial opens a TLS connection from a local address, with a protocol.
func dial(t *testing.T, addr string, cert *x509.Certificate, protocol string) *tls.Conn {
	t.Helper()
	c := trusting(cert)
	c.NextProtos = []string{protocol}
	conn, err := tls.Dial("tcp", addr, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// wantClosed waits until the other end closes, and gives what came before.
func wantClosed(t *testing.T, conn net.Conn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil { // of the test, not of the server
		t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection stays open")
	}
	return string(text)
}

// TestSlowClients ends every connection that does not get on with it.
func TestSlowClients(t *testing.T) {
	addr, cert := newDoor(t, api(shortTimes), shortTimes, 100, 100)
	plain := func(text string) net.Conn {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	secure := func(protocol, text string) net.Conn {
		conn := dial(t, addr, cert, protocol)
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	const form = "POST /?Action=Encrypt HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\n"
	for name, test := range map[string]struct {
		conn net.Conn
		want string
	}{
		"nothing":               {plain(""), ""},
		"half a handshake":      {plain("\x16\x03\x01\x02\x00\x01"), ""},
		"no request":            {secure("http/1.1", ""), ""},
		"half a head":           {secure("http/1.1", "GET / HTTP/1.1\r\nHost: h\r\nX-"), ""},
		"half a form":           {secure("http/1.1", form+"Content-Length: 100\r\n\r\nKeyId="), `"Code":"RequestTimeout"`},
		"half a chunk":          {secure("http/1.1", form+"Transfer-Encoding: chunked\r\n\r\n5\r\nKey"), `"Code":"RequestTimeout"`},
		"nothing after":         {secure("http/1.1", "GET / HTTP/1.1\r\nHost: h\r\n\r\n"), `"Code":"MissingAccessKeyId"`},
		"HTTP/2: no preface":    {secure("h2", ""), ""},
		"HTTP/2: only preface":  {secure("h2", preface), ""},
		"HTTP/2: half a head":   {secure("h2", preface+frame(1, 0, 1, headers("/"))), ""},
		"HTTP/2: no CONTINUED":  {secure("h2", preface+frame(1, 1, 1, headers("/")[:3])+frame(9, 0, 1, "\x84")), ""},
		"HTTP/2: half a form":   {secure("h2", preface+frame(1, 4, 1, "\x83\x87\x01\x01h\x04\x01/\x0f\x10\x21application/x-www-form-urlencoded")+frame(0, 0, 1, "KeyId=")), `"Code":"RequestTimeout"`},
		"plain HTTP":            {plain("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), "400 Bad Request"},
		"a head without an end": {secure("http/1.1", "GET / HTTP/1.1\r\nHost: h\r\nX: "+strings.Repeat("x", 2*maxHead)), "431 "},
	} {
		if text := wantClosed(t, test.conn); !strings.Contains(text, test.want) {
			t.Errorf("%s: got %q", name, text)
		}
	}
}

// TestNeverReads ends a call whose answer nobody reads.
func TestNeverReads(t *testing.T) {
	ended := make(chan error, 2)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := w.Write(make([]byte, 64<<20))
		ended <- err
	})
	addr, cert := newDoor(t, handler, shortTimes, 100, 100)
	conn := dial(t, addr, cert, "http/1.1")
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("HTTP/1.1: all was written")
	}
	// A window that takes everything, and a reader that does not.
	conn = dial(t, addr, cert, "h2")
	if _, err := io.WriteString(conn, preface+frame(4, 0, 0, "\x00\x04\x7f\xff\xff\xff")+frame(8, 0, 0, "\x7f\xff\x00\x00")+frame(1, 5, 1, headers("/"))); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("HTTP/2: all was written")
	}
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// frame is one of HTTP/2.
func frame(kind, flags byte, stream uint32, payload string) string {
	n := len(payload)
	b := []byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags}
	return string(binary.BigEndian.AppendUint32(b, stream)) + payload
}

// headers is the head of a GET, in HPACK.
func headers(path string) string {
	return "\x82\x87\x01\x01h\x04" + string(rune(len(path))) + path
}

// TestRapidReset begins and gives up requests by the thousand: only so many run at a time, and others are served.
func TestRapidReset(t *testing.T) {
	var running, most atomic.Int64
	hold := make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			return
		}
		n := running.Add(1)
		defer running.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		<-hold
	})
	addr, cert := newDoor(t, handler, strangerTimes, 100, 100)
	conn := dial(t, addr, cert, "h2")
	drained := make(chan struct{})
	go func() { defer close(drained); _, _ = io.Copy(io.Discard, conn) }()
	w := bufio.NewWriter(conn)
	_, err := w.WriteString(preface)
	for stream := uint32(1); stream < 20_000 && err == nil; stream += 2 {
		_, err = w.WriteString(frame(1, 5, stream, headers("/hold")) + frame(3, 0, stream, "\x00\x00\x00\x08"))
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		t.Logf("the server had enough of it while it was sent: %v", err)
	}
	<-waitFor(func() bool { return most.Load() == http2Streams })
	<-drained // it ends the connection
	resp, err := httpsClient(t, cert, true).Get("https://" + addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	close(hold)
	if n := most.Load(); n > http2Streams {
		t.Errorf("%d requests of one connection ran at a time", n)
	}
}

// waitFor closes the channel when something has become true.
func waitFor(what func() bool) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(time.Millisecond); !what(); <-tick.C {
		}
	}()
	return done
}

// from dials from a local address.
func from(ip string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
}

// TestManyConnections opens a thousand connections from one address, and another is served at once.
func TestManyConnections(t *testing.T) {
	const perAddress = 16
	addr, cert := newDoor(t, api(strangerTimes), strangerTimes, 32, perAddress)
	var all sync.WaitGroup
	open := make(chan net.Conn, 1000)
	for range 20 {
		all.Go(func() {
			for range 50 {
				if c, err := from("127.0.0.1").Dial("tcp", addr); err == nil {
					open <- c
				}
			}
		})
	}
	all.Wait()
	close(open)
	client := httpsClient(t, cert, false)
	client.Transport.(*http.Transport).DialContext = from("127.0.0.2").DialContext
	resp, err := client.Get("https://" + addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 400 {
		t.Errorf("%d", resp.StatusCode)
	}
	for c := range open {
		_ = c.Close()
	}
	// The places are free again.
	client = httpsClient(t, cert, false)
	<-waitFor(func() bool {
		resp, err := client.Get("https://" + addr + "/")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return true
	})
}

// TestConnectionLimits counts connections in all and by network.
func TestConnectionLimits(t *testing.T) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	limits := newTCPLimits(l, 1, 1)
	addr := l.Addr().String()
	first, err := from("127.0.0.1").Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	a, err := limits.Accept()
	if err != nil {
		t.Fatal(err)
	}
	second, err := from("127.0.0.2").Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn)
	go func() {
		c, err := limits.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	select {
	case <-accepted:
		t.Error("there was no place")
	default:
	}
	for range 2 { // closing twice gives one place
		_ = a.Close()
	}
	b := <-accepted
	if b.RemoteAddr().String() != second.LocalAddr().String() {
		t.Errorf("%v came", b.RemoteAddr())
	}
	refused := make(chan error)
	go func() { _, err := limits.Accept(); refused <- err }()
	if err := limits.Close(); err != nil {
		t.Error(err)
	}
	if err := <-refused; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	for _, c := range []net.Conn{first, second, b} {
		_ = c.Close()
	}
	if len(limits.counts) != 0 || len(limits.places) != 0 {
		t.Errorf("%v, and %d places are taken", limits.counts, len(limits.places))
	}
	for text, want := range map[string]string{"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64"} {
		if got := network(&net.TCPAddr{IP: net.ParseIP(text)}).String(); got != want {
			t.Errorf("%s counts as %s", text, got)
		}
	}
}

// TestTLSVersions takes no old TLS, and no cipher without forward secrecy and authentication.
func TestTLSVersions(t *testing.T) {
	addr, cert := newDoor(t, api(strangerTimes), strangerTimes, 100, 100)
	for name, change := range map[string]func(*tls.Config){
		"TLS 1.1": func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 },
		"RSA": func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
		},
		"CBC": func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
		},
		"stranger": func(c *tls.Config) { c.RootCAs = x509.NewCertPool() },
	} {
		c := trusting(cert)
		change(c)
		if conn, err := tls.Dial("tcp", addr, c); err == nil {
			_ = conn.Close()
			t.Errorf("%s was taken", name)
		}
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := trusting(cert)
		c.MaxVersion = version
		conn, err := tls.Dial("tcp", addr, c)
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.ConnectionState().Version; got != version {
			t.Errorf("%x", got)
		}
		_ = conn.Close()
	}
}

// TestStrangerWriter keeps what strangers do out of the log.
func TestStrangerWriter(t *testing.T) {
	var buf bytes.Buffer
	w := strangerWriter{zerolog.New(&buf).Level(zerolog.InfoLevel)}
	for _, line := range []string{"http: TLS handshake error from 192.0.2.1:1: EOF\n", "http: panic serving\n"} {
		if n, err := w.Write([]byte(line)); n != len(line) || err != nil {
			t.Error(n, err)
		}
	}
	if text := buf.String(); strings.Contains(text, "handshake") || !strings.Contains(text, "panic serving") {
		t.Errorf("%s", text)
	}
}
