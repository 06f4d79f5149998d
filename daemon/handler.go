package daemon

import (
	"encoding/json"
	"io"
	stdlog "log"
	"net/http"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmsapi"
)

func kmsHandler(svc *kms.Service, log zerolog.Logger) http.Handler {
	return kmsapi.New(svc, kmsapi.Options{Log: log})
}

// handler is all that admin.sock answers: the administration under /v1/, the KMS API everywhere else.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+admin.StatusPath, s.known(s.serveStatus))
	mux.HandleFunc("GET "+admin.MembersPath, s.known(s.serveMembers))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, http.StatusNotFound, "there is no "+r.Method+" "+r.URL.Path+" in this version")
	})
	administration := s.noBrowsers(mux)
	// The API does not go through the mux: it has one path, and is called often.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/") {
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

func (s *server) serveStatus(w http.ResponseWriter, _ *http.Request, actor *kms.Actor) {
	s.answer(w, http.StatusOK, s.status(actor))
}

func (s *server) serveMembers(w http.ResponseWriter, _ *http.Request, _ *kms.Actor) {
	s.answer(w, http.StatusOK, admin.Members{Members: s.members()})
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
	for _, in := range c.Instances {
		st.Instances = append(st.Instances, admin.Instance{ID: in.ID, Type: in.Type, Name: in.Name})
	}
	if why := s.refused.Load(); why != nil {
		st.Problems = append(st.Problems, "the configuration was changed, but has a mistake and is not in force: "+*why)
	}
	if health.Problem != "" {
		st.Problems = append(st.Problems, "store: "+health.Problem)
	}
	if len(health.Damaged) > 0 {
		st.Problems = append(st.Problems, "store: records failed their check ("+strings.Join(health.Damaged, ", ")+"); restore them from a backup")
	}
	up := 0
	for _, m := range st.Members {
		if m.State == string(hsmpool.StateUp) {
			up++
			continue
		}
		st.Problems = append(st.Problems, "member "+m.Name+": "+m.Reason)
	}
	switch {
	case up == 0:
		st.State = admin.Unavailable
	case len(st.Problems) > 0:
		st.State = admin.Degraded
	}
	return st
}

func (s *server) members() []admin.Member {
	all := []admin.Member{}
	for _, m := range s.pool.Status() {
		all = append(all, admin.Member{
			Name: m.Name, Token: m.Token, Serial: m.Serial, Module: m.Module, State: string(m.State),
			Reason:   strings.TrimPrefix(m.Reason, "hsm member "+m.Name+": "), // the name stands beside it
			Sessions: m.Sessions, Keys: m.Keys, Queue: m.Queue, Done: m.Done, Failed: m.Failed, Since: m.Since,
		})
	}
	return all
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
