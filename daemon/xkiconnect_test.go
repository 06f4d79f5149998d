package daemon

import (
	"bytes"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/xki"
)

// callingAppliance is an appliance that uses its own key "k1" as an external one, through a server that does with requests what a test wants.
type callingAppliance struct {
	*proxyAppliance
	request admin.XKIConnectRequest
	hold    atomic.Pointer[heldRequests] // if it is set, health checks wait
	away    atomic.Bool                  // every request loses its connection
	by      atomic.Value                 // string: the signature of the last other request
	blob    []byte
}

// heldRequests are requests that wait. came has one octet for each, and all go on when release is closed.
type heldRequests struct{ came, release chan struct{} }

func newCallingAppliance(t *testing.T) *callingAppliance {
	t.Helper()
	c := &callingAppliance{proxyAppliance: newProxyAppliance(t)}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.away.Load() {
			panic(http.ErrAbortHandler)
		}
		if h := c.hold.Load(); h != nil && strings.HasSuffix(r.URL.Path, "/health") {
			h.came <- struct{}{}
			<-h.release
		} else {
			c.by.Store(r.Header.Get("Authorization"))
		}
		c.server.external.proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	waitUntil(t, "the HSMs were looked at", func() bool { return c.server.external.health.answer().Status == xki.Active })
	c.change(t, "\n[[instance]]\nid = \"kst-external\"\ntype = \"external\"\n")
	c.reload(t)
	c.request = admin.XKIConnectRequest{Endpoint: server.URL, Path: "/cloud/kms/xks/v1", Region: "local", AccessKeyID: c.id, Budget: 20_000,
		Roots: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))}
	if conn := c.connect(t, c.id, c.secret); !conn.Connected {
		t.Fatalf("%+v", conn)
	}
	key, err := c.server.svc.CreateKey(t.Context(), rootActor, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-external", ExternalKeyID: "k1"})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := c.server.svc.Encrypt(t.Context(), rootActor, &kmswire.EncryptRequest{KeyID: key.KeyMetadata.KeyID, Plaintext: []byte("kept elsewhere")})
	if err != nil {
		t.Fatal(err)
	}
	c.blob = sealed.CiphertextBlob
	return c
}

func (c *callingAppliance) connect(t *testing.T, id string, secret []byte) *admin.XKIConnection {
	t.Helper()
	r := c.request
	r.AccessKeyID = id
	conn, err := c.client.ConnectXKI(t.Context(), "kst-external", &r, bytes.Clone(secret), nil)
	if err != nil {
		t.Error(err)
		return &admin.XKIConnection{}
	}
	return conn
}

func (c *callingAppliance) decrypt(t *testing.T) error {
	t.Helper()
	_, err := c.server.svc.Decrypt(t.Context(), rootActor, &kmswire.DecryptRequest{CiphertextBlob: c.blob})
	return err
}

// holdHealth has health checks wait, from now on until the end of the test or release.
func (c *callingAppliance) holdHealth(t *testing.T) (h *heldRequests, release func()) {
	t.Helper()
	h = &heldRequests{make(chan struct{}, 100), make(chan struct{})}
	c.hold.Store(h)
	var once atomic.Bool
	release = func() {
		if once.CompareAndSwap(false, true) {
			c.hold.Store(nil)
			close(h.release)
		}
	}
	t.Cleanup(release)
	return h, release
}

// No call is refused while a connection changes to one that works, or the daemon starts, however late the proxy answers.
func TestConnectionChanges(t *testing.T) {
	c := newCallingAppliance(t)
	second, err := c.client.CreateXKICredential(t.Context(), "cloud")
	if err != nil {
		t.Fatal(err)
	}
	h, release := c.holdHealth(t)
	done := make(chan *admin.XKIConnection, 1)
	go func() { done <- c.connect(t, second.ID, second.Secret) }()
	<-h.came
	if err := c.decrypt(t); err != nil || !strings.Contains(c.by.Load().(string), c.id) {
		t.Errorf("while the proxy has not said whether it takes the new credential: %v, as %v", err, c.by.Load())
	}
	release()
	if conn := <-done; !conn.Connected || conn.AccessKeyID != second.ID {
		t.Errorf("%+v", conn)
	}
	if err := c.decrypt(t); err != nil || !strings.Contains(c.by.Load().(string), second.ID) {
		t.Errorf("%v, as %v", err, c.by.Load())
	}

	h, release = c.holdHealth(t)
	started := newExternalKeys(c.server.svc, c.server.pool, c.server.log)
	defer started.close()
	if err := started.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-h.came
	if err := c.decrypt(t); err != nil {
		t.Errorf("at a start, before the proxy has answered: %v", err)
	}
	release()

	// One that does not work takes effect too: it is what was asked for.
	if conn := c.connect(t, second.ID, []byte("wrong")); conn.Connected || !strings.Contains(conn.Trouble, "authentication failed") {
		t.Errorf("%+v", conn)
	}
	if err := c.decrypt(t); err == nil {
		t.Error("the credential is wrong, and it works")
	}
	if conn := c.connect(t, second.ID, second.Secret); !conn.Connected {
		t.Errorf("%+v", conn)
	}
	if err := c.decrypt(t); err != nil {
		t.Error(err)
	}
}

// An instance comes back long before the next minute when its proxy does.
func TestConnectionComesBack(t *testing.T) {
	c := newCallingAppliance(t)
	c.away.Store(true)
	if conn := c.connect(t, c.id, c.secret); conn.Connected {
		t.Errorf("%+v", conn)
	}
	if err := c.decrypt(t); err == nil {
		t.Error("the proxy is away, and it works")
	}
	said := "an external instance is disconnected: its keys can't be used"
	waitUntil(t, "the log tells of it", func() bool { return strings.Contains(c.log.String(), said) })
	c.away.Store(false)
	waitUntil(t, "calls go well again", func() bool { return c.decrypt(t) == nil })
	waitUntil(t, "the log tells of that", func() bool {
		_, after, _ := strings.Cut(c.log.String(), said)
		return strings.Contains(after, "an external instance is connected")
	})
}

// waitUntil waits until something is so, for less than the time from one health check to the next.
func waitUntil(t *testing.T, what string, so func() bool) {
	t.Helper()
	for until := time.Now().Add(probeEvery * 2 / 3); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
