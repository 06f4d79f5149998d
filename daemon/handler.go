package daemon

import (
	"encoding/json"
	"fmt"
	"io"
	stdlog "log"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmsapi"
)

func kmsHandler(svc *kms.Service, log zerolog.Logger) http.Handler {
	return kmsapi.New(svc, kmsapi.Options{Log: log})
}

// route is one call of the administration. serve gives the answer, which is JSON unless it is an http.Handler. A call with
// an action changes something: only the root of the first account may make it, and it is audited under that name. With the action
// byService, the service says who may make it, and audits it.
type route struct {
	method, path string
	action       string
	serve        func(*server, *http.Request) (any, *failure)
}

// byService is the action of calls whose right and audit are the service's.
const byService = "(the service's)"

// routes is the whole administration, as the package comment of admin lists it.
var routes = []route{
	{http.MethodGet, admin.StatusPath, "", (*server).serveStatus},
	{http.MethodGet, admin.MembersPath, "", (*server).serveMembers},
	{http.MethodPost, admin.DrainPath, "DrainMember", (*server).drainMember},
	{http.MethodPost, admin.UndrainPath, "UndrainMember", (*server).undrainMember},
	{http.MethodPost, admin.EnrollPath, "EnrollMember", (*server).enrollMember},
	{http.MethodPost, admin.ReloadPath, "ReloadConfiguration", (*server).serveReload},
	{http.MethodPost, admin.ClockConfirmPath, "ConfirmClock", (*server).confirmClock},
	{http.MethodGet, admin.MetricsPath, "", func(s *server, _ *http.Request) (any, *failure) { return s.metrics, nil }},

	{http.MethodGet, admin.AccountsPath, "", (*server).serveAccounts},
	{http.MethodGet, admin.PrincipalsPath, byService, (*server).listPrincipals},
	{http.MethodPost, admin.PrincipalsPath, byService, (*server).createPrincipal},
	{http.MethodGet, admin.PrincipalPath, byService, (*server).servePrincipal},
	{http.MethodDelete, admin.PrincipalPath, byService, (*server).deletePrincipal},
	{http.MethodGet, admin.PoliciesPath, byService, (*server).servePolicies},
	{http.MethodPut, admin.PoliciesPath, byService, (*server).attachPolicy},
	{http.MethodDelete, admin.PoliciesPath, byService, (*server).detachPolicy},
	{http.MethodPut, admin.PINPath, byService, (*server).setPIN},
	{http.MethodDelete, admin.PINPath, byService, (*server).removePIN},
	{http.MethodGet, admin.AccessKeysPath, byService, (*server).listAccessKeys},
	{http.MethodPost, admin.AccessKeysPath, byService, (*server).createAccessKey},
	{http.MethodPost, admin.EnableAccessKeyPath, byService, (*server).enableAccessKey},
	{http.MethodPost, admin.DisableAccessKeyPath, byService, (*server).disableAccessKey},
	{http.MethodPost, admin.RotateAccessKeyPath, byService, (*server).rotateAccessKey},
	{http.MethodDelete, admin.AccessKeyPath, byService, (*server).deleteAccessKey},
	{http.MethodPost, admin.SimulatePath, byService, (*server).simulate},

	{http.MethodGet, admin.XKIPrefixesPath, byService, (*server).listXKIPrefixes},
	{http.MethodPost, admin.XKIPrefixesPath, byService, (*server).createXKIPrefix},
	{http.MethodPatch, admin.XKIPrefixPath, byService, (*server).updateXKIPrefix},
	{http.MethodDelete, admin.XKIPrefixPath, byService, (*server).deleteXKIPrefix},
	{http.MethodPost, admin.XKICredentialsPath, byService, (*server).createXKICredential},
	{http.MethodDelete, admin.XKICredentialPath, byService, (*server).deleteXKICredential},
	{http.MethodPost, admin.XKIExportPath, byService, (*server).exportXKI},
	{http.MethodGet, admin.XKIListenersPath, byService, (*server).listXKIListeners},
	{http.MethodGet, admin.XKIConnectionsPath, byService, (*server).listXKIConnections},
	{http.MethodPut, admin.XKIConnectionPath, byService, (*server).connectXKI},
	{http.MethodDelete, admin.XKIConnectionPath, byService, (*server).disconnectXKI},
}

// handler is all that admin.sock answers: the administration under /v1/, the metrics, the KMS API everywhere else.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range routes {
		mux.HandleFunc(rt.method+" "+rt.path, s.known(func(w http.ResponseWriter, r *http.Request, actor *kms.Actor) {
			body, f := s.run(&rt, r, actor)
			if f != nil {
				s.fail(w, f.status(), f.message)
				return
			}
			if h, ok := body.(http.Handler); ok {
				h.ServeHTTP(w, r)
				return
			}
			s.answer(w, http.StatusOK, body)
		}))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, http.StatusNotFound, "there is no "+r.Method+" "+r.URL.Path+" in this version")
	})
	administration := s.noBrowsers(mux)
	// The API does not go through the mux: it has one path, and is called often.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/") || r.URL.Path == admin.MetricsPath {
			administration.ServeHTTP(w, r)
			return
		}
		ctx := r.Context()
		if id := s.identify(ctx); id.actor != nil {
			ctx = kmsapi.WithActor(ctx, id.actor)
		} else {
			ctx = kmsapi.WithStranger(ctx, id.why)
		}
		s.kms.ServeHTTP(w, r.WithContext(ctx))
	})
}

// noBrowsers refuses requests that a browser sends on behalf of a page: nothing here is for one, and a proxy in front of
// the socket would otherwise open it to every page. Browsers send at least one of these headers. (The KMS API sees to
// that itself.)
func (s *server) noBrowsers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Origin", "Referer", "Sec-Fetch-Site"} {
			if r.Header.Get(name) != "" {
				s.fail(w, http.StatusForbidden, "requests of web pages are refused here")
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// known lets only callers in that are mapped to a principal.
func (s *server) known(next func(http.ResponseWriter, *http.Request, *kms.Actor)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := s.identify(r.Context())
		if id.actor == nil {
			s.fail(w, http.StatusForbidden, id.why)
			return
		}
		next(w, r, id.actor)
	}
}

func (s *server) serveStatus(r *http.Request) (any, *failure) {
	return s.status(s.identify(r.Context()).actor), nil
}

func (s *server) serveMembers(*http.Request) (any, *failure) {
	t := s.pool.Totals()
	return admin.Members{Members: s.members(), Pool: admin.Pool{Waiting: t.Waiting, Room: t.Room, Principals: t.Principals,
		Throttled: t.Throttled, Retries: t.Retries, NoBudget: t.NoBudget, Abandoned: t.Abandoned}}, nil
}

func (s *server) fail(w http.ResponseWriter, status int, message string) {
	s.answer(w, status, admin.Failure{Message: message})
}

func (s *server) answer(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		s.log.Error().Err(err).Msg("encoding an answer")
		status, text = http.StatusInternalServerError, []byte(`{"error":"internal failure"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A caller that has gone needs no answer.
	_, _ = w.Write(append(text, '\n'))
}

// status gathers what is known of the appliance. It waits for nothing.
func (s *server) status(actor *kms.Actor) *admin.Status {
	c, health := s.config.Load(), s.store.Health()
	st := &admin.Status{
		Version: Version(), Region: c.Region, Principal: actor.Principal,
		Started: s.started, Uptime: time.Since(s.started).Seconds(),
		Reloads: int(s.reloads.Load()),
		State:   admin.OK, Problems: []string{},
		Store:   admin.Store{Keys: health.Keys, Sequence: health.Sequence, Problem: health.Problem, Damaged: health.Damaged},
		Members: s.members(), Instances: []admin.Instance{},
	}
	if path := s.pkcs11Socket.Load(); path != nil {
		f := s.front.Stats()
		st.PKCS11 = &admin.PKCS11{Socket: *path, Connections: f.Connections, Applications: f.Applications, Sessions: f.Sessions}
	}
	software := false // keys that need no HSM once the daemon runs
	for _, in := range c.Instances {
		// Those of others are as if they were not there, but for the first account, whose root looks after the appliance.
		if actor.Account == c.FirstAccount() || actor.Account == in.Account || slices.Contains(in.SharedWith, actor.Account) {
			st.Instances = append(st.Instances, admin.Instance{ID: in.ID, Type: in.Type, Name: in.Name})
		}
		software = software || in.Type == config.Software
	}
	if why := s.refused.Load(); why != nil {
		st.Problems = append(st.Problems, "the configuration was changed, but is not in force: "+*why)
	}
	if health.Problem != "" {
		st.Problems = append(st.Problems, "store: "+health.Problem)
	}
	if len(health.Damaged) > 0 {
		st.Problems = append(st.Problems, "store: records failed their check ("+strings.Join(health.Damaged, ", ")+"); restore them from a backup")
	}
	if _, err := os.Lstat(filepath.Join(c.StateDir, admin.SharesNotGiven)); err == nil {
		st.Problems = append(st.Problems, "the recovery shares were given to nobody: keywardctl init goes on with them, or says what to do if they are lost")
	}
	st.Problems = append(st.Problems, s.svc.Problems()...)
	st.Problems = append(st.Problems, s.external.problems()...)
	for _, d := range s.doors {
		if leaf := d.cert.Load().Leaf; time.Now().After(leaf.NotAfter) {
			st.Problems = append(st.Problems, "listener "+d.address+": its certificate was valid until "+leaf.NotAfter.UTC().Format(time.RFC3339)+"; put a new one into its cert_file and reload")
		}
		if k, ok := d.cert.Load().PrivateKey.(*keySigner); ok {
			if why := k.failed.Load(); why != nil {
				st.Problems = append(st.Problems, "listener "+d.address+": no connection can be made, because its key "+k.keyID+" could not sign: "+*why)
			}
		}
	}
	up := 0
	for _, m := range st.Members {
		switch {
		case m.State.Serves():
			up++
		case m.State == admin.Draining:
			st.Problems = append(st.Problems, "member "+m.Name+": "+drained+": keywardctl hsm undrain "+m.Name)
		default:
			st.Problems = append(st.Problems, "member "+m.Name+": "+m.Reason)
		}
	}
	if up == 0 && software {
		st.Problems = append(st.Problems, "no HSM member is up: hardware keys don't work, and software keys go on")
	}
	switch {
	case up == 0 && !software:
		st.State = admin.Unavailable
	case len(st.Problems) > 0:
		st.State = admin.Degraded
	}
	if actor.Account != c.FirstAccount() {
		forTenant(st, c, actor.Account)
	}
	return st
}

// forTenant takes out of a status what is no business of an account that does not run the appliance: the instances of others, and
// texts that name their keys and records.
func forTenant(st *admin.Status, c *config.Config, account string) {
	st.Instances = []admin.Instance{}
	for _, in := range c.Instances {
		if in.Account == account || slices.Contains(in.SharedWith, account) {
			st.Instances = append(st.Instances, admin.Instance{ID: in.ID, Type: in.Type, Name: in.Name})
		}
	}
	st.Store.Problem, st.Store.Damaged = "", nil
	st.PKCS11 = nil
	if n := len(st.Problems); n > 0 {
		st.Problems = []string{fmt.Sprintf("%d things want the appliance's administrator, %s", n, rootOf(c.FirstAccount()))}
	}
}

func (s *server) members() []admin.Member {
	all := []admin.Member{}
	for _, m := range s.pool.Status() {
		all = append(all, wireMember(&m))
	}
	return all
}

// wireMember words a member for the wire.
func wireMember(m *hsmpool.Status) admin.Member {
	plain := func(reason string) string { return strings.TrimPrefix(reason, "hsm member "+m.Name+": ") } // the name stands beside it
	count, _ := cumulative(&m.Latency)
	micro := func(q float64) float64 { return float64(quantile(&m.Latency, q)) / float64(time.Microsecond) }
	out := admin.Member{
		Name: m.Name, Token: m.Token, Serial: m.Serial, Module: m.Module,
		State: admin.MemberState(m.State), Reason: plain(m.Reason), Since: m.Since,
		Sessions: m.Sessions, Lanes: m.Lanes, Window: m.Window, InFlight: m.InFlight, Keys: m.Keys, Queue: m.Queue,
		Done: m.Done, Failed: m.Failed, Failovers: m.Failovers, Restarts: m.Restarts, Codes: map[string]uint64{}, Endings: map[string]uint64{},
		Latency: admin.Latency{Count: count, P50: micro(0.5), P99: micro(0.99)}, Workers: []admin.Worker{},
	}
	maps.Copy(out.Codes, m.Codes)
	maps.Copy(out.Endings, m.Endings)
	for _, w := range m.Workers {
		out.Workers = append(out.Workers, admin.Worker{
			PID: w.PID, State: admin.MemberState(w.State), Reason: plain(w.Reason), Sessions: w.Sessions, Lanes: w.Lanes,
			Window: w.Window, InFlight: w.InFlight, Keys: w.Keys, Restarts: w.Restarts,
		})
	}
	return out
}

// httpLog passes what http.Server complains about to the log.
func httpLog(log zerolog.Logger) *stdlog.Logger {
	return stdlog.New(lineWriter{log}, "", 0)
}

type lineWriter struct{ log zerolog.Logger }

// Write logs one line.
func (l lineWriter) Write(line []byte) (int, error) {
	l.log.Warn().Str("part", "http").Msg(strings.TrimSpace(string(line)))
	return len(line), nil
}

var _ io.Writer = lineWriter{}
