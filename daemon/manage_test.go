package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmsapi"
	"github.com/keyward/keyward/kms/kmswire"
)

// appliance is a whole one, with two SoftHSM2 tokens in this process, served on a real socket.
type appliance struct {
	dir    string
	server *server
	client *admin.Client
	log    heard
}

// heard is what was logged.
type heard struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (h *heard) Write(line []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(line)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}

// newAppliance starts one. prepare may write files into its directory, and gives what to add to the configuration.
func newAppliance(t *testing.T, prepare ...func(dir string) string) *appliance {
	t.Helper()
	module, err := findSoftHSM("")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "keyward-") // t.TempDir is too long a path for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("SOFTHSM2_CONF", "") // set by makeDev, put back after the test
	if err := makeDev(dir, module, ""); err != nil {
		t.Fatal(err)
	}
	a := &appliance{dir: dir}
	a.change(t, "\n[pool]\nisolation = \"none\"\n\n[[peer]]\nuid = 4242\nprincipal = \"acs:ram::"+config.DefaultAccount+":user/plain\"\n")
	for _, p := range prepare {
		a.change(t, p(dir))
	}
	c, err := config.Load(a.path())
	if err != nil {
		t.Fatal(err)
	}
	peers, err := newPeerTable(c)
	if err != nil {
		t.Fatal(err)
	}
	p, err := openParts(t.Context(), c, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	a.server = newServer(p, c, peers, zerolog.New(&a.log))
	if err := a.server.listenTLS(t.Context(), map[string]http.Handler{config.KMS: kmsapi.New(p.svc, tlsOptions(zerolog.Nop(), oneAccessKey{})), config.XKI: a.server.external.proxy}); err != nil {
		t.Fatal(err)
	}
	l, err := listenSockets(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- a.server.serve(ctx, l, nil, nil) }()
	a.client = admin.NewClient(c.Sockets.Admin)
	t.Cleanup(func() {
		a.client.Close()
		stop()
		err := <-served
		a.server.external.close()
		if err := errors.Join(err, p.Close()); err != nil {
			t.Error(err)
		}
	})
	return a
}

func (a *appliance) path() string { return filepath.Join(a.dir, devConfig) }

// change adds to the configuration file.
func (a *appliance) change(t *testing.T, text string) {
	t.Helper()
	f, err := os.OpenFile(a.path(), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// replace changes the configuration file.
func (a *appliance) replace(t *testing.T, old, new string) {
	t.Helper()
	text, err := os.ReadFile(a.path())
	if err == nil && !bytes.Contains(text, []byte(old)) {
		err = fmt.Errorf("the configuration has no %q", old)
	}
	if err == nil {
		err = os.WriteFile(a.path(), bytes.Replace(text, []byte(old), []byte(new), 1), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// audited gives the outcomes of an action in the audit, in order.
func (a *appliance) audited(t *testing.T, action string) (outcomes []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(a.dir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var e struct{ Action, Outcome, Detail, Principal string }
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if e.Action == action && e.Principal != "" {
			outcomes = append(outcomes, e.Outcome)
		}
	}
	return outcomes
}

// as sends a request as the user with that uid would.
func (a *appliance) as(uid uint32, method, path, body string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req = req.WithContext(context.WithValue(req.Context(), peerKey{}, &peer{uid: uid}))
	rec := httptest.NewRecorder()
	a.server.handler().ServeHTTP(rec, req)
	return rec
}

// wantStatus sees that an error of the client has that status and says these words.
func wantStatus(t *testing.T, err error, status int, words ...string) {
	t.Helper()
	e, ok := errors.AsType[*admin.Error](err)
	if !ok || e.Status != status {
		t.Errorf("the error is %v; want status %d", err, status)
		return
	}
	for _, w := range words {
		if !strings.Contains(e.Message, w) {
			t.Errorf("%q does not say %q", e.Message, w)
		}
	}
}

// TestRoutesAreDocumented holds the table of routes against the list in admin's package comment.
func TestRoutesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("admin/admin.go")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^//\t(GET|POST|PUT|PATCH|DELETE) +(\S+) +(all|root) +\S`).FindAllStringSubmatch(string(text), -1) {
		documented[strings.Join(m[1:], " ")] = true
	}
	for _, rt := range routes {
		who := "all"
		if rt.action != "" {
			who = "root"
		}
		row := rt.method + " " + rt.path + " " + who
		if !documented[row] {
			t.Errorf("admin does not document %s", row)
		}
		delete(documented, row)
		if rt.method != http.MethodGet && rt.action == "" {
			t.Errorf("%s %s changes something and is not audited", rt.method, rt.path)
		}
	}
	for row := range documented {
		t.Errorf("admin documents %s, which is not there", row)
	}
}

// TestWhoMayManage calls everything as a user who is no root.
func TestWhoMayManage(t *testing.T) {
	a := newAppliance(t)
	for _, rt := range routes {
		path := strings.Replace(rt.path, "{name}", "east", 1)
		rec := a.as(4242, rt.method, path, "")
		if rt.action == "" {
			if rec.Code != http.StatusOK {
				t.Errorf("%s %s: %d, %s", rt.method, path, rec.Code, rec.Body)
			}
			continue
		}
		if rt.action == byService {
			continue // see TestWhoMayManagePrincipals
		}
		if rec.Code != http.StatusForbidden || !strings.Contains(rec.Body.String(), "user/plain, and only the appliance's administrator") {
			t.Errorf("%s %s: %d, %s", rt.method, path, rec.Code, rec.Body)
		}
		if got := fmt.Sprint(a.audited(t, rt.action)); got != "[denied by policy]" {
			t.Errorf("%s %s is audited as %s", rt.method, path, got)
		}
	}
}

// TestEveryCodeHasAStatus holds the table of statuses complete.
func TestEveryCodeHasAStatus(t *testing.T) {
	for _, code := range kms.Codes() {
		if status := failureStatus[code]; status < 400 || status > 599 {
			t.Errorf("%q has the status %d", code, status)
		}
		if f := serviceFailure(&kms.Error{Code: code}); f.message == "" || f.status() != failureStatus[code] {
			t.Errorf("%q becomes %+v", code, f)
		}
	}
	if len(failureStatus) != len(kms.Codes()) {
		t.Errorf("%d statuses for %d codes", len(failureStatus), len(kms.Codes()))
	}
	if f := serviceFailure(&kms.Error{Code: kms.Internal, Detail: "a path", Err: io.ErrUnexpectedEOF}); f.message != "internal failure" {
		t.Errorf("an internal failure tells %q", f.message)
	}
}

// TestNoAuditNoChange sees that a call whose event can't be kept has no effect.
func TestNoAuditNoChange(t *testing.T) {
	a := newAppliance(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	a.server.audit.file.Store(full) // the appliance closes it
	before := a.server.reloads.Load()
	_, err = a.client.Reload(t.Context())
	wantStatus(t, err, http.StatusServiceUnavailable, "nothing was done")
	if a.server.reloads.Load() != before {
		t.Error("it reloaded all the same")
	}
}

// TestDrainAndUndrain takes one of two members out of service and back.
func TestDrainAndUndrain(t *testing.T) {
	a := newAppliance(t)
	ctx := t.Context()
	_, err := a.client.Drain(ctx, "eats", 0)
	wantStatus(t, err, http.StatusNotFound, `no HSM member "eats"`, "east, west")
	_, err = a.client.Undrain(ctx, "..")
	wantStatus(t, err, http.StatusNotFound)
	if rec := a.as(0, http.MethodPost, "/v1/members/east/drain", `{"timeout_seconds":3601}`); rec.Code != http.StatusUnprocessableEntity {
		t.Errorf("a long wait: %d, %s", rec.Code, rec.Body)
	}
	if rec := a.as(0, http.MethodPost, "/v1/members/east/drain", `[]`); rec.Code != http.StatusUnprocessableEntity {
		t.Errorf("no object: %d, %s", rec.Code, rec.Body)
	}
	if rec := a.as(0, http.MethodPost, "/v1/members/east/drain", strings.Repeat(" ", maxDrainBody+1)); rec.Code != http.StatusUnprocessableEntity {
		t.Errorf("a long body: %d, %s", rec.Code, rec.Body)
	}

	d, err := a.client.Drain(ctx, "east", 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if !d.Idle || d.Member.Name != "east" || d.Member.State != admin.Draining {
		t.Errorf("drained: %+v", d)
	}
	st, err := a.client.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if st.State != admin.Degraded || len(st.Problems) != 1 || st.Problems[0] != "member east: drained by an operator: keywardctl hsm undrain east" {
		t.Errorf("the status is %s, %q", st.State, st.Problems)
	}
	mark := filepath.Join(a.server.config.Load().StateDir, admin.SharesNotGiven)
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if st, err := a.client.Status(ctx); err != nil || !strings.Contains(st.Problems[0], "the recovery shares were given to nobody") {
		t.Errorf("shares that were not given: %v, %v", st, err)
	}
	if err := os.Remove(mark); err != nil {
		t.Fatal(err)
	}
	if got := a.server.summary(); !strings.HasSuffix(got, "1 of 2 HSM members up, 1 drained") {
		t.Errorf("systemd is told %q", got)
	}
	m, err := a.client.Undrain(ctx, "east")
	if err != nil {
		t.Fatal(err)
	}
	if !m.State.Serves() {
		t.Errorf("after the drain it is %+v", m)
	}
	if st, err := a.client.Status(ctx); err != nil || st.State != admin.OK {
		t.Errorf("after the drain the status is %+v, %v", st, err)
	}
	if got := fmt.Sprint(a.audited(t, "DrainMember")); !strings.HasPrefix(got, "[begun resource not found begun ") || !strings.HasSuffix(got, " begun ok]") {
		t.Errorf("the audit has %s", got)
	}
}

// TestReload takes over what can be taken over, and says what can't.
func TestReload(t *testing.T) {
	a := newAppliance(t)
	ctx := t.Context()
	whole, err := os.ReadFile(a.path())
	if err != nil {
		t.Fatal(err)
	}

	a.change(t, "levl = 1\n")
	_, err = a.client.Reload(ctx)
	wantStatus(t, err, http.StatusUnprocessableEntity, devConfig+":", `"levl"`)
	if st, err := a.client.Status(ctx); err != nil || st.State != admin.Degraded || !strings.Contains(st.Problems[0], "not in force") {
		t.Errorf("after a mistake the status is %+v, %v", st, err)
	}
	if err := os.WriteFile(a.path(), whole, 0o600); err != nil {
		t.Fatal(err)
	}

	// What needs a restart stays as it is.
	a.replace(t, "isolation = \"none\"", "isolation = \"process\"\nqueue = 100")
	a.change(t, "\n[[share]]\nprincipal = \"acs:ram::"+config.DefaultAccount+":user/plain\"\nweight = 3\n"+
		"\n[[service]]\ncode = \"db\"\nprincipals = [\"acs:ram::"+config.DefaultAccount+":role/db\"]\n")
	r, err := a.client.Reload(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(r.NeedRestart) != "[pool.isolation]" {
		t.Errorf("a restart is needed for %v", r.NeedRestart)
	}
	if c := a.server.config.Load(); c.Pool.Queue != 100 || c.Pool.Isolation != config.None || len(c.Shares) != 1 || len(c.Services) != 1 {
		t.Errorf("in force are %+v, %+v, %+v", c.Pool, c.Shares, c.Services)
	}
	if st, err := a.client.Status(ctx); err != nil || st.State != admin.OK || st.Reloads != 2 {
		t.Errorf("the status is %+v, %v", st, err)
	}

	// Libraries that are loaded read the environment, so it is not changed under them.
	a.replace(t, "environment = { SOFTHSM2_CONF", "environment = { NEW = \"1\", SOFTHSM2_CONF")
	_, err = a.client.Reload(ctx)
	wantStatus(t, err, http.StatusUnprocessableEntity, "NEW", "restart")
	if got := fmt.Sprint(a.audited(t, "ReloadConfiguration")); got != "[begun invalid parameter begun ok begun invalid parameter]" {
		t.Errorf("the audit has %s", got)
	}
}

// TestReloadInstances changes quotas and sharing while the daemon runs, and sees that no key is left without its instance.
func TestReloadInstances(t *testing.T) {
	a := newAppliance(t)
	ctx := t.Context()
	const other = "2000000000000002"
	root := &kms.Actor{Principal: "acs:ram::" + config.DefaultAccount + ":root", Account: config.DefaultAccount}
	guest := &kms.Actor{Principal: "acs:ram::" + other + ":root", Account: other}
	makeKey := func(actor *kms.Actor, instance string) error {
		_, err := a.server.svc.CreateKey(ctx, actor, &kmswire.CreateKeyRequest{DKMSInstanceID: instance})
		return err
	}
	if err := makeKey(guest, "kst-software"); !errors.Is(err, kms.InvalidParameter) {
		t.Errorf("before it is shared: %v", err)
	}
	if seen, all := a.server.status(guest).Instances, a.server.status(root).Instances; len(seen) != 0 || len(all) == 0 {
		t.Errorf("before it is shared the status shows %v, and to the operator %v", seen, all)
	}
	whole, err := os.ReadFile(a.path())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.path(), append([]byte("accounts = [\""+config.DefaultAccount+"\", \""+other+"\"]\n"), whole...), 0o600); err != nil {
		t.Fatal(err)
	}
	a.replace(t, "id = \"kst-software\"", "id = \"kst-software\"\nshared_with = [\""+other+"\"]\nkeys = 1")
	a.change(t, "\n[[instance]]\nid = \"kst-new\"\ntype = \"software\"\n")
	r, err := a.client.Reload(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(r.NeedRestart) != "[accounts]" {
		t.Errorf("a restart is needed for %v", r.NeedRestart)
	}
	if err := makeKey(guest, "kst-software"); err != nil {
		t.Error(err)
	}
	if err := makeKey(root, "kst-software"); !errors.Is(err, kms.LimitExceeded) {
		t.Errorf("above the quota: %v", err)
	}
	if err := makeKey(root, "kst-new"); err != nil {
		t.Error(err)
	}
	if st, err := a.client.Status(ctx); err != nil || len(st.Instances) != 3 {
		t.Errorf("the status is %+v, %v", st, err)
	}

	before, err := os.ReadFile(a.path())
	if err != nil {
		t.Fatal(err)
	}
	a.replace(t, "id = \"kst-new\"", "id = \"kst-newer\"")
	_, err = a.client.Reload(ctx)
	wantStatus(t, err, http.StatusConflict, "kst-new can't be removed", "1 key versions")
	if err := makeKey(root, "kst-newer"); !errors.Is(err, kms.InvalidParameter) {
		t.Errorf("a refused instance: %v", err)
	}
	if err := os.WriteFile(a.path(), before, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.client.Reload(ctx); err != nil {
		t.Error(err)
	}
}

// TestNeedRestart sees that a table in single brackets is told by its keys.
func TestNeedRestart(t *testing.T) {
	a := &config.Config{Region: "a"}
	b := &config.Config{Region: "b", Sockets: config.Sockets{Admin: "/b", Private: true}, Instances: []config.Instance{{ID: "kst-b"}}}
	if got := fmt.Sprint(needRestart(a, b)); got != "[region sockets.admin sockets.private instance]" {
		t.Errorf("got %s", got)
	}
}

// TestEnrollRefuses has a row for each request that gives the pool nothing to do. No answer repeats what was sent.
func TestEnrollRefuses(t *testing.T) {
	a := newAppliance(t)
	const secret = "kws1-SECRET"
	many := strings.Repeat(`"`+secret+`",`, admin.MaxShares) + `"` + secret + `"`
	for name, row := range map[string]struct {
		member, body string
		status       int
		want         string
	}{
		"no member":  {"north", `{"shares":["` + secret + `"]}`, http.StatusNotFound, "north"},
		"no body":    {"east", ``, http.StatusUnprocessableEntity, "the body is not"},
		"no JSON":    {"east", secret, http.StatusUnprocessableEntity, "the body is not"},
		"no list":    {"east", `{"shares":"` + secret + `"}`, http.StatusUnprocessableEntity, "the body is not"},
		"cut":        {"east", `{"shares":["` + secret, http.StatusUnprocessableEntity, "the body is not"},
		"no shares":  {"east", `{"shares":[]}`, http.StatusUnprocessableEntity, "0 shares"},
		"too many":   {"east", `{"shares":[` + many + `]}`, http.StatusUnprocessableEntity, "65 shares"},
		"no text":    {"east", `{"shares":["` + secret + `",12345]}`, http.StatusUnprocessableEntity, "share 2"},
		"escapes":    {"east", `{"shares":["` + secret + `\n"]}`, http.StatusUnprocessableEntity, "share 1"},
		"empty text": {"east", `{"shares":[""]}`, http.StatusUnprocessableEntity, "share 1"},
		"too long":   {"east", `{"shares":["` + strings.Repeat(secret, 6000) + `"]}`, http.StatusUnprocessableEntity, "65536"},
	} {
		rec := a.as(0, http.MethodPost, "/v1/members/"+row.member+"/enroll", row.body)
		if rec.Code != row.status || !strings.Contains(rec.Body.String(), row.want) || strings.Contains(rec.Body.String(), "SECRET") {
			t.Errorf("%s: %d, %s", name, rec.Code, rec.Body)
		}
	}
	if err := os.Remove(filepath.Join(a.dir, "state", recoveryFile)); err != nil {
		t.Fatal(err)
	}
	_, err := a.client.Enroll(t.Context(), "east", [][]byte{[]byte(secret)})
	wantStatus(t, err, http.StatusConflict, recoveryFile, "restore it from a backup")
	_, err = a.client.Enroll(t.Context(), "east", [][]byte{[]byte(`a"b`)})
	if err == nil || !strings.Contains(err.Error(), "share 1") {
		t.Errorf("a share with a quote: %v", err)
	}
	audit, err := os.ReadFile(filepath.Join(a.dir, "audit.log"))
	if err != nil || bytes.Contains(audit, []byte("SECRET")) {
		t.Errorf("a share is in the audit, or: %v", err)
	}
}

// TestEnrollMemberWithKeys gives good shares for a member that has its master keys: the pool refuses.
func TestEnrollMemberWithKeys(t *testing.T) {
	a := newAppliance(t)
	var shares [][]byte
	for i := range 2 {
		share, err := os.ReadFile(filepath.Join(a.dir, "shares", fmt.Sprintf("share-%d-of-3", i+1)))
		if err != nil {
			t.Fatal(err)
		}
		shares = append(shares, share)
	}
	_, err := a.client.Enroll(t.Context(), "east", shares)
	wantStatus(t, err, http.StatusConflict, "master keys")
}

// TestSharesAreWiped sees that what readShares gives, once wiped, leaves no share in memory that was allocated for it.
func TestSharesAreWiped(t *testing.T) {
	body := []byte(`{"shares":["kws1-one","kws1-two"]}`)
	shares, f := readShares(body)
	if f != nil || len(shares) != 2 || string(shares[0]) != "kws1-one" || string(shares[1]) != "kws1-two" {
		t.Fatalf("%q, %v", shares, f)
	}
	for _, s := range shares {
		clear(s)
	}
	if !bytes.Contains(body, []byte("kws1-one")) {
		t.Error("the shares are parts of the body; then it need not be wiped too")
	}
}

// TestPoolConfig words a configuration for the pool, with isolation and without.
func TestPoolConfig(t *testing.T) {
	here, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &config.Config{
		StateDir: t.TempDir(), Pool: config.Pool{Queue: 7, Isolation: config.Process},
		Members: []config.Member{
			{Name: "a", Module: here, TokenLabel: "a", PINFile: "/a.pin", Workers: 3, CallTimeout: config.Duration(time.Second), Environment: map[string]string{"KEYWARD_TEST_A": "1"}},
			{Name: "b", Module: here, TokenSerial: "b", PINCredential: "cred", Workers: 1, Environment: map[string]string{"KEYWARD_TEST_A": "2"}},
		},
		Shares: []config.Share{{Principal: "p", Weight: 2, Queue: 3}},
	}
	pool, err := poolConfig(c, "group", true)
	if err != nil {
		t.Fatal(err)
	}
	m := pool.Members[0]
	if pool.Queue != 7 || pool.Group != "group" || strings.Join(pool.Worker, " ") != "/proc/self/exe hsm-worker" || pool.Shares["p"] != (hsmpool.Share{Weight: 2, Queue: 3}) ||
		m.Workers != 3 || m.CallTimeout != time.Second || m.Environment["KEYWARD_TEST_A"] != "1" || m.PINName != "file /a.pin" || pool.Members[1].PINName != "credential cred" {
		t.Errorf("%+v", pool)
	}
	if _, set := os.LookupEnv("KEYWARD_TEST_A"); set {
		t.Error("the daemon's own environment was changed")
	}
	if pool, err = poolConfig(c, "", false); err != nil || pool.Worker != nil || pool.Members[0].Workers != 1 {
		t.Errorf("without isolation: %+v, %v", pool, err)
	}
	t.Setenv("KEYWARD_TEST_A", "")
	if err := setEnvironment(c); err == nil || !strings.Contains(err.Error(), `"a" and "b" set KEYWARD_TEST_A`) {
		t.Errorf("two values in one process: %v", err)
	}
	c.Members = c.Members[:1]
	if err := errors.Join(setEnvironment(c), environmentIsSet(c)); err != nil {
		t.Error(err)
	}
	c.Members[0].Environment["KEYWARD_TEST_A"] = "3"
	if err := environmentIsSet(c); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("another value: %v", err)
	}
	c.Members[0].Module = "/no/such.so"
	if _, err := poolConfig(c, "", true); err == nil || !strings.Contains(err.Error(), "/no/such.so") {
		t.Errorf("no module: %v", err)
	}
}

// TestHelp lists the commands that are for people, and no others.
func TestHelp(t *testing.T) {
	var text bytes.Buffer
	help(&text)
	for _, c := range commands() {
		if strings.Contains(text.String(), "keywardd "+c.name) != (c.short != "") {
			t.Errorf("%s: for people %v; the help is\n%s", c.name, c.short != "", &text)
		}
	}
}
