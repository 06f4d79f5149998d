package xki

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/xki/xkisign"
)

func TestMain(m *testing.M) {
	hsmtest.WorkerMain()
	code := m.Run()
	shared.Close()
	os.Exit(code)
}

// shared is what all tests share: the pool of two SoftHSM2 tokens, and another token that no pool has open, because a library that is in use may not see tokens
// that are made later.
var shared struct {
	hsmtest.WholeRun
	once  sync.Once
	pool  *hsmpool.Pool
	spare *hsmtest.HSM
}

func testPool() *hsmpool.Pool {
	shared.once.Do(func() {
		hsm := hsmtest.New(&shared.WholeRun, "north", "south")
		shared.spare = hsmtest.New(&shared.WholeRun, "only")
		hsm.Ceremony(&shared.WholeRun)
		shared.spare.Ceremony(&shared.WholeRun)
		shared.pool = hsm.Open(&shared.WholeRun)
	})
	return shared.pool
}

const testAccount = "1000000000000001"

var root = &kms.Actor{Principal: "acs:ram::" + testAccount + ":root", Account: testAccount, Door: kms.DoorXKI}

type testAudit struct {
	mu  sync.Mutex
	all []kms.AuditEvent
}

func (a *testAudit) Record(_ context.Context, e *kms.AuditEvent) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, *e)
	return nil
}

// newService makes a service with a store of its own.
func newService(t *testing.T, pool *hsmpool.Pool, audit kms.Auditor, instances ...kms.Instance) *kms.Service {
	t.Helper()
	store := keystore.NewMem()
	if err := keystore.Create(t.Context(), store, pool); err != nil {
		t.Fatal(err)
	}
	db, err := keystore.Open(t.Context(), store, pool)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s, err := kms.New(t.Context(), kms.Config{Store: db, Pool: pool, Region: "local", Account: testAccount, Audit: audit, Log: zerolog.Nop(),
		Tick: make(chan struct{}), Instances: instances})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// world is a proxy over TLS-less HTTP with a service behind it.
type world struct {
	t       *testing.T
	service *kms.Service
	proxy   *Proxy
	server  *httptest.Server
	log     *bytes.Buffer
	audit   *testAudit
	keys    map[string]string
	stores  []Store

	deadline time.Duration // that the proxy has when nobody changes it
}

var credentials = []Credential{{"KEYWARDTESTKEY2345672", []byte("secret/one+with=43-and-more-characters-00000")}, {"KEYWARDTESTKEY2345673", []byte("another")}}

// patience is the deadline of requests in tests of anything else: the 200 ms of ProxyDeadline are over on a slow machine before a hundred requests have had their turn.
const patience = time.Minute

func newWorld(t *testing.T) *world { return newWorldOn(t, testPool()) }

func newWorldOn(t *testing.T, pool *hsmpool.Pool) *world {
	t.Helper()
	w := &world{t: t, log: &bytes.Buffer{}, audit: &testAudit{}, keys: map[string]string{}}
	w.service = newService(t, pool, w.audit, kms.Instance{ID: "kst-software", Type: kms.SoftwareInstance}, kms.Instance{ID: "kst-hardware", Type: kms.HardwareInstance})
	for name, r := range map[string]*kmswire.CreateKeyRequest{
		"hardware": {DKMSInstanceID: "kst-hardware"}, "software": {DKMSInstanceID: "kst-software"},
		"signs": {DKMSInstanceID: "kst-hardware", KeySpec: kmswire.ECP256, KeyUsage: kmswire.SignVerify},
	} {
		k, err := w.service.CreateKey(t.Context(), root, r)
		if err != nil {
			t.Fatal(err)
		}
		w.keys[name] = k.KeyMetadata.KeyID
	}
	var mu sync.Mutex
	w.proxy = New(Config{Service: w.service, Log: zerolog.New(lockedWriter{&mu, w.log}), Health: func() Health {
		return Health{Vendor: "keyward", Model: "keyward test", Manager: "SoftHSM2", Status: Active, Fleet: []Member{{"north", "SoftHSM2", Active}}}
	}})
	w.stores = []Store{
		{Name: "aws", Prefix: "/ks1", Dialect: XKSv1, Credentials: credentials, Keys: w.keys, Actor: root},
		{Name: "ali", Dialect: XKIv1, Credentials: credentials[:1], Keys: w.keys, Actor: root},
	}
	w.deadline, w.proxy.deadline = w.proxy.deadline, patience
	w.proxy.SetStores(w.stores)
	w.server = httptest.NewServer(w.proxy)
	t.Cleanup(w.server.Close)
	return w
}

// stopClock has the proxy's clock stand still, so that a quota is used up however long the requests take.
func (w *world) stopClock() {
	at := time.Now()
	w.proxy.now = func() time.Time { return at }
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// call signs and sends a request, which change may spoil after it is signed.
func (w *world) call(d *Dialect, prefix string, r *Request, change func(*http.Request)) (int, []byte) {
	w.t.Helper()
	body, err := d.EncodeRequest(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.raw(d, prefix+d.path(r.Op, r.KeyID), body, change)
}

func (w *world) raw(d *Dialect, path string, body []byte, change func(*http.Request)) (int, []byte) {
	w.t.Helper()
	req, err := http.NewRequest(http.MethodPost, w.server.URL+path, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", d.contentType)
	d.schemes[0].Sign(req, body, xkisign.Signing{AccessKeyID: credentials[0].ID, Secret: credentials[0].Secret, Region: "eu-west-1", Time: time.Now()})
	if change != nil {
		change(req)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if resp.Header.Get("Content-Type") != d.contentType {
		w.t.Errorf("%s: content type %q", path, resp.Header.Get("Content-Type"))
	}
	return resp.StatusCode, answer
}

var meta = RequestMetadata{PrincipalARN: "arn:aws:iam::123456789012:user/Alice", KeyARN: "arn:aws:kms:k", Operation: "Encrypt", RequestID: "req-1"}

// good makes a call that must succeed.
func (w *world) good(d *Dialect, prefix string, r *Request) *Answer {
	w.t.Helper()
	r.Metadata = meta
	status, body := w.call(d, prefix, r, nil)
	if status != 200 {
		w.t.Fatalf("%v: %d %s", r.Op, status, body)
	}
	a, err := d.DecodeAnswer(r, body)
	if err != nil {
		w.t.Fatalf("%v: %v in %s", r.Op, err, body)
	}
	return a
}

func TestProxy(t *testing.T) {
	w := newWorld(t)
	for prefix, d := range map[string]*Dialect{"/ks1": XKSv1, "": XKIv1} {
		for _, key := range []string{"hardware", "software"} {
			if a := w.good(d, prefix, &Request{Op: OpMetadata, KeyID: key}); a.Key.Spec != SpecAES256 || a.Key.Status != StatusEnabled || len(a.Key.Usage) != 2 {
				t.Errorf("%+v", a.Key)
			}
			for _, size := range []int{0, 1, 32, 4300} {
				text, aad := bytes.Repeat([]byte{7}, size), bytes.Repeat([]byte{8}, 8192)
				r := &Request{Op: OpEncrypt, KeyID: key, Plaintext: text, AAD: aad, Algorithm: AlgorithmGCM}
				if d == XKSv1 {
					r.IntegrityAlgorithm = IntegritySHA256
				}
				sealed := w.good(d, prefix, r).Sealed
				if len(sealed.Metadata) != 5 || bytes.Contains(sealed.Ciphertext, bytes.Repeat([]byte{7}, 8)) {
					t.Errorf("%+v", sealed)
				}
				// After a rotation the version is found by the metadata.
				if size == 32 {
					if _, err := w.service.CreateKeyVersion(t.Context(), root, &kmswire.CreateKeyVersionRequest{KeyID: w.keys[key]}); err != nil && key == "software" {
						t.Fatal(err)
					}
				}
				a := w.good(d, prefix, &Request{Op: OpDecrypt, KeyID: key, Sealed: sealed, AAD: aad, Algorithm: AlgorithmGCM})
				if !bytes.Equal(a.Plaintext, text) {
					t.Errorf("%s: %d octets came back as %d", key, len(text), len(a.Plaintext))
				}
				for what, spoil := range map[string]func(*Request){
					"the tag":      func(r *Request) { r.Sealed.Tag = bytes.Repeat([]byte{1}, 16) },
					"the AAD":      func(r *Request) { r.AAD = nil },
					"the metadata": func(r *Request) { r.Sealed.Metadata = []byte{1, 0, 0, 0, 99} },
					"no metadata":  func(r *Request) { r.Sealed.Metadata = nil },
					"an IV of 13":  func(r *Request) { r.Sealed.IV = make([]byte, 13) },
					"an IV of 16":  func(r *Request) { r.Sealed.IV = make([]byte, 16) },
					"a tag of 15":  func(r *Request) { r.Sealed.Tag = make([]byte, 15) },
					"an octet too few": func(r *Request) {
						r.Sealed.Ciphertext = append(r.Sealed.Ciphertext[:0:0], r.Sealed.Ciphertext[:max(size-1, 0)]...)
					},
				} {
					if what == "an octet too few" && size == 0 {
						continue
					}
					r := &Request{Op: OpDecrypt, KeyID: key, Sealed: sealed, AAD: aad, Algorithm: AlgorithmGCM, Metadata: meta}
					spoil(r)
					status, body := w.call(d, prefix, r, nil)
					if e := d.DecodeError(status, body); e.Code != InvalidCiphertext {
						t.Errorf("%s: %d %s", what, status, body)
					}
				}
			}
		}
		if a := w.good(d, prefix, &Request{Op: OpHealth}); a.Health.Manager != "SoftHSM2" {
			t.Errorf("%+v", a.Health)
		}
	}
	if a := w.good(XKIv1, "", &Request{Op: OpRandom, Length: 40}); len(a.Random) != 40 {
		t.Errorf("%+v", a)
	}
	for _, secret := range []string{base64.StdEncoding.EncodeToString([]byte{7, 7, 7, 7, 7, 7}), string(credentials[0].Secret), "AWS4-HMAC"} {
		if strings.Contains(w.log.String(), secret) {
			t.Errorf("the log has %q", secret)
		}
	}
}

// Every row of the reference's table of errors (§2.9).
func TestProxyErrors(t *testing.T) {
	w := newWorld(t)
	encrypt := func() *Request {
		return &Request{Op: OpEncrypt, KeyID: "software", Plaintext: []byte("x"), Algorithm: AlgorithmGCM, Metadata: meta}
	}
	type row struct {
		what   string
		want   string
		status int
		send   func() (int, []byte)
	}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	signed := func(change func(*http.Request)) func() (int, []byte) {
		return func() (int, []byte) { return w.call(XKSv1, "/ks1", encrypt(), change) }
	}
	with := func(change func(*Request)) func() (int, []byte) {
		return func() (int, []byte) {
			r := encrypt()
			change(r)
			return w.call(XKSv1, "/ks1", r, nil)
		}
	}
	resigned := func(with xkisign.Signing) func() (int, []byte) {
		return signed(func(r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			XKSv1.schemes[0].Sign(r, body, with)
		})
	}
	mine := xkisign.Signing{AccessKeyID: credentials[1].ID, Secret: credentials[1].Secret, Region: "r", Time: time.Now()}
	off := func(d time.Duration) xkisign.Signing { s := mine; s.Time = s.Time.Add(d); return s }
	wrong := mine
	wrong.Secret = []byte("wrong")
	unknown := mine
	unknown.AccessKeyID = "NOBODYNOBODYNOBODY22"
	for _, row := range []row{
		{"another credential", "", 200, resigned(mine)},
		{"no signature", "AuthenticationFailedException", 401, signed(func(r *http.Request) { r.Header.Del("Authorization") })},
		{"a broken signature", "AuthenticationFailedException", 401, signed(header("Authorization", "AWS4-HMAC-SHA256 Credential=x"))},
		{"another date", "AuthenticationFailedException", 401, signed(header("X-Amz-Date", "20200101T000000Z"))},
		{"6 minutes late", "AuthenticationFailedException", 401, resigned(off(-6 * time.Minute))},
		{"6 minutes early", "AuthenticationFailedException", 401, resigned(off(6 * time.Minute))},
		{"a wrong secret", "AuthenticationFailedException", 401, resigned(wrong)},
		{"an unknown credential", "AuthenticationFailedException", 401, resigned(unknown)},
		{"another body", "AuthenticationFailedException", 401, signed(func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("{}")); r.ContentLength = 2 })},
		{"GET", "", 405, signed(func(r *http.Request) { r.Method = http.MethodGet })},
		{"an unknown prefix", "InvalidUriPathException", 404, func() (int, []byte) { return w.call(XKSv1, "/other", encrypt(), nil) }},
		{"no prefix", "InvalidUriPathException", 404, func() (int, []byte) { return w.call(XKSv1, "", encrypt(), nil) }},
		{"no operation", "InvalidUriPathException", 404, func() (int, []byte) { return w.raw(XKSv1, "/ks1/kms/xks/v1/keys/a/sign", nil, nil) }},
		{"nothing at all", "InvalidUriPathException", 404, func() (int, []byte) { return w.raw(XKSv1, "/", nil, nil) }},
		{"a huge body", "UnsupportedOperationException", 501, func() (int, []byte) {
			return w.raw(XKSv1, "/ks1/kms/xks/v1/health", make([]byte, maxBody+1), nil)
		}},
		{"no JSON", "ValidationException", 400, func() (int, []byte) { return w.raw(XKSv1, "/ks1/kms/xks/v1/health", []byte("<xml>"), nil) }},
		{"no metadata", "ValidationException", 400, func() (int, []byte) { return w.raw(XKSv1, "/ks1/kms/xks/v1/health", []byte("{}"), nil) }},
		{"another algorithm", "ValidationException", 400, with(func(r *Request) { r.Algorithm = "AES_CBC" })},
		{"another integrity value", "ValidationException", 400, with(func(r *Request) { r.IntegrityAlgorithm = "SHA_1" })},
		{"a long plaintext", "UnsupportedOperationException", 501, with(func(r *Request) { r.Plaintext = make([]byte, MaxText+1) })},
		// In the order of the checks (§2.9).
		{"an unknown key and a long plaintext", "KeyNotFoundException", 404, with(func(r *Request) { r.KeyID, r.Plaintext = "none", make([]byte, MaxText+1) })},
		{"a long plaintext and no algorithm", "ValidationException", 400, func() (int, []byte) {
			text := base64.StdEncoding.EncodeToString(make([]byte, MaxText+1))
			return w.raw(XKSv1, "/ks1/kms/xks/v1/keys/software/encrypt", []byte(`{"requestMetadata":{"awsPrincipalArn":"a","kmsKeyArn":"b","kmsOperation":"c","kmsRequestId":"d"},"plaintext":"`+text+`"}`), nil)
		}},
		{"an unknown key", "KeyNotFoundException", 404, with(func(r *Request) { r.KeyID = "none" })},
		{"a key that signs", "InvalidKeyUsageException", 400, with(func(r *Request) { r.KeyID = "signs" })},
	} {
		status, body := row.send()
		var e xksError
		if err := json.Unmarshal(body, &e); err != nil || status != row.status || e.Name != row.want {
			t.Errorf("%s: %d %s, %v", row.what, status, body, err)
		}
	}
	if _, err := w.service.DisableKey(t.Context(), root, &kmswire.DisableKeyRequest{KeyID: w.keys["software"]}); err != nil {
		t.Fatal(err)
	}
	sealed := func(iv, metadata []byte) *Request {
		return &Request{Op: OpDecrypt, KeyID: "software", Algorithm: AlgorithmGCM, Metadata: meta, Sealed: Sealed{Ciphertext: []byte("x"), IV: iv, Tag: make([]byte, TagSize), Metadata: metadata}}
	}
	long := encrypt()
	long.Plaintext = make([]byte, MaxText+1)
	for what, r := range map[string]*Request{"a long plaintext": long, "an odd IV": sealed(make([]byte, 13), versionMetadata(1)), "no metadata": sealed(make([]byte, 12), nil),
		"an unknown version": sealed(make([]byte, 12), versionMetadata(9))} {
		if status, body := w.call(XKSv1, "/ks1", r, nil); status != 400 || !bytes.Contains(body, []byte("InvalidStateException")) || bytes.Contains(body, []byte(w.keys["software"])) {
			t.Errorf("%s with a disabled key: %d %s", what, status, body)
		}
	}
	if status, body := signed(nil)(); status != 400 || !bytes.Contains(body, []byte("InvalidStateException")) {
		t.Errorf("a disabled key: %d %s", status, body)
	}
	if a := w.good(XKSv1, "/ks1", &Request{Op: OpMetadata, KeyID: "software"}); a.Key.Status != StatusDisabled {
		t.Errorf("%+v", a.Key)
	}
	inXKI := func(status int, code string) {
		t.Helper()
		if got, body := w.call(XKIv1, "", encrypt(), nil); got != status || !bytes.Contains(body, []byte(`"`+code+`"`)) {
			t.Errorf("%d %s instead of %d %s", got, body, status, code)
		}
	}
	inXKI(403, "KeyDisabledForbidden")
	if _, err := w.service.ScheduleKeyDeletion(t.Context(), root, &kmswire.ScheduleKeyDeletionRequest{KeyID: w.keys["software"], PendingWindowInDays: 7}); err != nil {
		t.Fatal(err)
	}
	inXKI(400, "KeyPendingDeletionForbidden")
	if status, body := signed(nil)(); status != 400 || !bytes.Contains(body, []byte("InvalidStateException")) {
		t.Errorf("a key that will be deleted: %d %s", status, body)
	}
	// Rules, and the quota. Health is under neither rule.
	w.stores[0].Rules = []Rule{{Name: "only Bob", Unless: map[string][]string{"awsPrincipalArn": {"arn:aws:iam::123456789012:user/Bob"}}}}
	w.stores[0].PerSecond = 5
	w.proxy.SetStores(w.stores)
	w.stopClock()
	if status, body := signed(nil)(); status != 403 || !bytes.Contains(body, []byte("only Bob")) {
		t.Errorf("a rule: %d %s", status, body)
	}
	w.good(XKSv1, "/ks1", &Request{Op: OpHealth})
	throttled := false
	for range 10 {
		status, _ := signed(nil)()
		throttled = throttled || status == 429
	}
	if !throttled {
		t.Error("there is no end to requests")
	}
	w.good(XKSv1, "/ks1", &Request{Op: OpHealth}) // nor is it counted
	resp, err := http.Get(w.server.URL + PingPath)
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("%v, %v", resp, err)
	}
	resp.Body.Close()
}

// The same in xki-v1, whose names depend on the member (§3.2).
func TestProxyErrorsXKI(t *testing.T) {
	w := newWorld(t)
	encrypt := func() *Request {
		return &Request{Op: OpEncrypt, KeyID: "software", Plaintext: []byte("x"), Algorithm: AlgorithmGCM, Metadata: meta}
	}
	signed := func(change func(*http.Request)) func() (int, []byte) {
		return func() (int, []byte) { return w.call(XKIv1, "", encrypt(), change) }
	}
	without := func(header string) func() (int, []byte) {
		return signed(func(r *http.Request) { r.Header.Del(header) })
	}
	with := func(change func(*Request)) func() (int, []byte) {
		return func() (int, []byte) {
			r := encrypt()
			change(r)
			return w.call(XKIv1, "", r, nil)
		}
	}
	body := func(op, text string) func() (int, []byte) {
		return func() (int, []byte) { return w.raw(XKIv1, "/kms/xki/v1/"+op, []byte(text), nil) }
	}
	resigned := func(scheme *xkisign.Scheme, change func(*xkisign.Signing)) func() (int, []byte) {
		return signed(func(r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			for _, name := range []string{"X-Acs-Content-Sha256", "X-Acs-Content-Sm3", "X-Acs-Signature-Nonce", "X-Acs-Date", "Authorization"} {
				r.Header.Del(name)
			}
			s := xkisign.Signing{AccessKeyID: credentials[0].ID, Secret: credentials[0].Secret, Region: "cn-hangzhou", Time: time.Now()}
			change(&s)
			scheme.Sign(r, body, s)
		})
	}
	const metadata = `"RequestMetadata":{"KmsRequestId":"r"}`
	for _, row := range []struct {
		what   string
		status int
		want   string
		send   func() (int, []byte)
	}{
		{"SM3", 200, "", resigned(xkisign.ACS4SM3, func(*xkisign.Signing) {})},
		{"14 minutes late", 200, "", resigned(xkisign.ACS4, func(s *xkisign.Signing) { s.Time = s.Time.Add(-14 * time.Minute) })},
		{"16 minutes late", 400, "InvalidAcsDate", resigned(xkisign.ACS4, func(s *xkisign.Signing) { s.Time = s.Time.Add(-16 * time.Minute) })},
		{"16 minutes early", 400, "InvalidAcsDate", resigned(xkisign.ACS4, func(s *xkisign.Signing) { s.Time = s.Time.Add(16 * time.Minute) })},
		{"a wrong secret", 401, "Unauthorized", resigned(xkisign.ACS4, func(s *xkisign.Signing) { s.Secret = []byte("wrong") })},
		{"an unknown credential", 401, "Unauthorized", resigned(xkisign.ACS4, func(s *xkisign.Signing) { s.AccessKeyID = credentials[1].ID })},
		{"no signature", 401, "Unauthorized", without("Authorization")},
		{"no hash of the body", 401, "Unauthorized", without("X-Acs-Content-Sha256")},
		{"no nonce", 401, "Unauthorized", without("X-Acs-Signature-Nonce")},
		{"another body", 401, "Unauthorized", signed(func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("{}")); r.ContentLength = 2 })},
		{"GET", 405, "MethodNotAllowed", signed(func(r *http.Request) { r.Method = http.MethodGet })},
		{"an unknown prefix", 404, "XkiNotFound", func() (int, []byte) { return w.call(XKIv1, "/other", encrypt(), nil) }},
		{"no operation", 404, "XkiNotFound", body("sign", "{}")},
		{"an unknown key", 404, "KeyNotFound", with(func(r *Request) { r.KeyID = "none" })},
		{"a key that signs", 403, "KeyUsageForbidden", with(func(r *Request) { r.KeyID = "signs" })},
		{"a long plaintext", 400, "InvalidOperation", with(func(r *Request) { r.Plaintext = make([]byte, MaxText+1) })},
		{"a huge body", 400, "InvalidOperation", body("health", strings.Repeat(" ", maxBody+1))},
		{"no JSON", 400, "InvalidRequest", body("health", "<xml>")},
		{"no metadata", 400, "RequestMetadataRequired", body("health", "{}")},
		{"metadata of another type", 400, "InvalidRequestMetadata", body("health", `{"RequestMetadata":5}`)},
		{"no request ID", 400, "InvalidRequestMetadata", body("health", `{"RequestMetadata":{}}`)},
		{"a blank request ID", 400, "InvalidRequestMetadata", body("health", `{"RequestMetadata":{"KmsRequestId":""}}`)},
		{"no plaintext", 400, "PlaintextRequired", body("keys/software/encrypt", `{`+metadata+`,"Algorithm":"AES_GCM"}`)},
		{"odd base64", 400, "InvalidPlaintext", body("keys/software/encrypt", `{`+metadata+`,"Algorithm":"AES_GCM","Plaintext":"eA="}`)},
		{"no algorithm", 400, "AlgorithmRequired", body("keys/software/encrypt", `{`+metadata+`,"Plaintext":"eA=="}`)},
		{"another algorithm", 400, "InvalidAlgorithm", with(func(r *Request) { r.Algorithm = "SM4_GCM" })},
		{"a long version", 400, "InvalidKeyVersion", body("keys/software/decrypt", `{`+metadata+`,"Algorithm":"AES_GCM","Ciphertext":"eA==","Iv":"AAAAAAAAAAAAAAAA","Tag":"AAAAAAAAAAAAAAAAAAAAAA==","KeyVersion":"`+b64(21)+`"}`)},
		{"an IV of 13", 400, "InvalidCiphertext", body("keys/software/decrypt", `{`+metadata+`,"Algorithm":"AES_GCM","Ciphertext":"eA==","Iv":"`+b64(13)+`","Tag":"AAAAAAAAAAAAAAAAAAAAAA=="}`)},
		{"a tag of 15", 400, "InvalidCiphertext", body("keys/software/decrypt", `{`+metadata+`,"Algorithm":"AES_GCM","Ciphertext":"eA==","Iv":"`+b64(12)+`","Tag":"`+b64(15)+`"}`)},
	} {
		status, answer := row.send()
		var e xkiError
		if err := json.Unmarshal(answer, &e); err != nil || status != row.status || e.Code != row.want || e.RequestID == "" {
			t.Errorf("%s: %d %s, %v", row.what, status, answer, err)
		}
	}
	w.stores[1].Rules = []Rule{{Name: "nobody"}}
	w.stores[1].PerSecond = 3
	w.proxy.SetStores(w.stores)
	w.stopClock()
	seen := map[int]string{}
	for range 10 {
		status, answer := signed(nil)()
		var e xkiError
		_ = json.Unmarshal(answer, &e)
		seen[status] = e.Code
	}
	if seen[403] != "AccessForbidden" || seen[429] != "TooManyRequests" {
		t.Errorf("a rule and a quota are %v", seen)
	}
}

// The signatures of the reference's vectors (§2.10, §3.3) are right for the proxy, at their time, to the octet.
func TestProxyVectors(t *testing.T) {
	w := newWorld(t)
	for what, v := range map[string]struct {
		at            time.Time
		host, path    string
		body          string
		credential    Credential
		prefix        string
		dialect       *Dialect
		header        map[string]string
		status        int
		answer, wrong string
	}{
		"SigV4": {time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), "xks.example.com", "/ks1/kms/xks/v1/health", `{"requestMetadata":{"kmsOperation":"KmsHealthCheck","kmsRequestId":"req-1"}}`,
			Credential{"KEYWARDTESTVECTOR234567", []byte("a2V5d2FyZC10ZXN0LXZlY3Rvci1zZWNyZXQtMDEyMzQ1Njc4OQ==")}, "/ks1", XKSv1,
			map[string]string{"X-Amz-Date": "20260102T030405Z", "Authorization": "AWS4-HMAC-SHA256 Credential=KEYWARDTESTVECTOR234567/20260102/eu-west-1/kms-xks-proxy/aws4_request, " +
				"SignedHeaders=host;x-amz-date, Signature=b2fb7cd93493f44a898200409428713d29aa26a7a100d8005c9f122f40fd59bf"}, 200, `"xksProxyFleetSize":1`, "AuthenticationFailedException"},
		// The vector's body is no request: that it is looked at shows that the signature was right.
		"ACS4": {time.Date(2023, 9, 28, 8, 4, 58, 0, time.UTC), "xki.example.com", "/kms/xki/v1/keys/ExternalKeyId/meta", `{"TestParameter": "TestValue"}`,
			Credential{"AccessKeyId", []byte("AccessKeySecret")}, "", XKIv1,
			map[string]string{"Content-Type": "application/json; charset=utf-8", "X-Acs-Accesskey-Id": "AccessKeyId", "X-Acs-Action": "POST", "X-Acs-Version": "1.0.0", "X-Acs-Date": "20230928T080458Z",
				"X-Acs-Signature-Nonce": "20230928-MkuBibyazkY1o2GJe", "X-Acs-Content-Sha256": "50a36650aa0bfa2d833b7dfa32ce1c7ed0465a67cd870618a0147ae91f6c4898",
				"Authorization": "ACS4-HMAC-SHA256 Credential=AccessKeyId/20230928/cn-hangzhou/kms/aliyun_v4_request,SignedHeaders=content-type;host;x-acs-accesskey-id;x-acs-action;x-acs-content-sha256;" +
					"x-acs-date;x-acs-signature-nonce;x-acs-version,Signature=1766e8039e9cf67d0e58bdfc87363c0c49fbb7ef66d9ec4c3821ea5fd23dc77c"}, 400, "RequestMetadataRequired", "Unauthorized"},
	} {
		p := New(Config{Service: w.service, Log: zerolog.Nop(), Health: w.proxy.health, Now: func() time.Time { return v.at }})
		p.SetStores([]Store{{Name: "v", Prefix: v.prefix, Dialect: v.dialect, Credentials: []Credential{credentials[0], v.credential}, Actor: root}})
		for _, wrong := range []bool{true, false} { // a nonce counts once it was signed rightly
			r := httptest.NewRequest(http.MethodPost, v.path, strings.NewReader(v.body))
			r.Host = v.host
			for name, value := range v.header {
				if wrong && name == "Authorization" {
					value = value[:len(value)-1] + string("0123456789abcdef0"[strings.IndexByte("0123456789abcdef", value[len(value)-1])+1])
				}
				r.Header.Set(name, value)
			}
			rec := httptest.NewRecorder()
			p.ServeHTTP(rec, r)
			if wrong && !strings.Contains(rec.Body.String(), v.wrong) || !wrong && (rec.Code != v.status || !strings.Contains(rec.Body.String(), v.answer)) {
				t.Errorf("%s, wrong %t: %d %s", what, wrong, rec.Code, rec.Body)
			}
		}
	}
}

// A nonce of xki-v1 counts once.
func TestProxyReplay(t *testing.T) {
	w := newWorld(t)
	body, _ := XKIv1.EncodeRequest(&Request{Op: OpHealth, Metadata: meta})
	var saved http.Header
	status, answer := w.raw(XKIv1, "/kms/xki/v1/health", body, func(r *http.Request) { saved = r.Header.Clone() })
	if status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
	w.proxy.SetStores(w.stores) // which forgets nothing
	status, answer = w.raw(XKIv1, "/kms/xki/v1/health", body, func(r *http.Request) { r.Header = saved })
	if e := XKIv1.DecodeError(status, answer); e.Code != AuthenticationFailed {
		t.Errorf("%d %s", status, answer)
	}
	// Who has used up the room for nonces is throttled, and nobody else.
	(*w.proxy.stores.Load())[XKIv1.base].nonces.max = 1
	status, answer = w.raw(XKIv1, "/kms/xki/v1/health", body, nil)
	if e := XKIv1.DecodeError(status, answer); e.Code != Throttling {
		t.Errorf("%d %s", status, answer)
	}
	w.stores = append(w.stores, Store{Name: "another", Prefix: "/x", Dialect: XKIv1, Credentials: credentials[:1], Keys: w.keys, Actor: root})
	w.proxy.SetStores(w.stores)
	if status, answer = w.raw(XKIv1, "/x/kms/xki/v1/health", body, nil); status != 200 {
		t.Errorf("%d %s", status, answer)
	}
}

// Each code of the service is one of proxies.
func TestKMSCodes(t *testing.T) {
	for _, code := range kms.Codes() {
		if kmsCodes[code] == 0 {
			t.Errorf("%v has no code", code)
		}
	}
}

// Every answer of xki-v1 has its three headers, those to strangers too (§3.2); and the log of what was refused says where it came from, with which access key, and how it
// was answered (§2.13).
func TestProxyHeadersAndLog(t *testing.T) {
	w := newWorld(t)
	w.proxy.version = "1.2"
	r := &Request{Op: OpEncrypt, KeyID: "software", Plaintext: []byte("plaintext"), Algorithm: AlgorithmGCM, Metadata: meta}
	body, err := XKIv1.EncodeRequest(r)
	if err != nil {
		t.Fatal(err)
	}
	for path, row := range map[string]struct {
		method   string
		status   int
		echo, is string
	}{
		XKIv1.path(OpEncrypt, "software"): {http.MethodPost, 401, meta.RequestID, "Unauthorized"},
		XKIv1.base + "/nothing":           {http.MethodPost, 404, "", "XkiNotFound"},
		XKIv1.path(OpHealth, ""):          {http.MethodGet, 405, "", "MethodNotAllowed"},
	} {
		w.log.Reset()
		req, err := http.NewRequest(row.method, w.server.URL+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", XKIv1.contentType)
		signing := xkisign.Signing{AccessKeyID: credentials[0].ID, Secret: []byte("wrong"), Region: "r", Time: time.Now()}
		XKIv1.schemes[0].Sign(req, body, signing)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		h := resp.Header
		if resp.StatusCode != row.status || h.Get("X-Xki-Server") != "keyward/1.2" || h.Get("X-Xki-Specification") != "1.0.0" || h.Get("X-Xki-Kms-Request-Id") != row.echo {
			t.Errorf("%s: %d %s %v", path, resp.StatusCode, answer, h)
		}
		var line map[string]any
		if err := json.Unmarshal(w.log.Bytes(), &line); err != nil {
			t.Fatal(err, w.log)
		}
		if remote, _ := line["remote"].(string); !strings.HasPrefix(remote, "127.0.0.1:") || line["error"] != row.is || (row.status == 401) != (line["access_key"] == credentials[0].ID) {
			t.Errorf("%s: %v", path, line)
		}
		if row.status == 401 && line["PrincipalArn"] != nil {
			t.Errorf("the log believes a stranger: %v", line)
		}
	}
	w.log.Reset()
	r.Metadata = RequestMetadata{PrincipalARN: "arn:p", KeyARN: "arn:k", Operation: "Encrypt", RequestID: "id", SourceVPC: "vpc-1", SourceVPCE: "vpce-1", ViaService: "ebs"}
	if status, body := w.call(XKSv1, "/ks1", r, nil); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	for _, want := range []string{`"awsSourceVpc":"vpc-1"`, `"awsSourceVpce":"vpce-1"`, `"kmsViaService":"ebs"`, `"awsPrincipalArn":"arn:p"`, `"kmsKeyArn":"arn:k"`, `"kmsOperation":"Encrypt"`, `"kmsRequestId":"id"`} {
		if !strings.Contains(w.log.String(), want) {
			t.Errorf("the log has not %s: %s", want, w.log)
		}
	}
}
