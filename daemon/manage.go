package daemon

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/kms"
)

// The calls of the administration that change something.

// failure is why a call of the administration is refused or failed: what it is for the audit and the HTTP status, and the
// words for people.
type failure struct {
	code    kms.Code
	message string
}

func failf(code kms.Code, format string, args ...any) *failure {
	return &failure{code, fmt.Sprintf(format, args...)}
}

// failureStatus is the HTTP status of each code. admin's package comment says what they mean.
var failureStatus = map[kms.Code]int{
	kms.Internal:              http.StatusInternalServerError,
	kms.MissingParameter:      http.StatusUnprocessableEntity,
	kms.InvalidParameter:      http.StatusUnprocessableEntity,
	kms.KeyNotFound:           http.StatusNotFound,
	kms.VersionNotFound:       http.StatusNotFound,
	kms.AliasNotFound:         http.StatusNotFound,
	kms.ResourceNotFound:      http.StatusNotFound,
	kms.Denied:                http.StatusForbidden,
	kms.KeyDisabled:           http.StatusConflict,
	kms.KeyPendingDeletion:    http.StatusConflict,
	kms.KeyPendingImport:      http.StatusConflict,
	kms.KeyUnavailable:        http.StatusConflict,
	kms.StateNotAllowed:       http.StatusConflict,
	kms.KeyProtected:          http.StatusConflict,
	kms.LimitExceeded:         http.StatusConflict,
	kms.AliasExists:           http.StatusConflict,
	kms.UnsupportedAlias:      http.StatusUnprocessableEntity,
	kms.UnsupportedOrigin:     http.StatusConflict,
	kms.UnsupportedProtection: http.StatusConflict,
	kms.UnsupportedOperation:  http.StatusConflict,
	kms.InvalidKeyMaterial:    http.StatusUnprocessableEntity,
	kms.InvalidImportToken:    http.StatusUnprocessableEntity,
	kms.ExpiredImportToken:    http.StatusUnprocessableEntity,
	kms.OperationRejected:     http.StatusConflict,
	kms.Throttled:             http.StatusTooManyRequests,
	kms.HSMUnavailable:        http.StatusConflict,
	kms.StoreUnavailable:      http.StatusServiceUnavailable,
	kms.AuditUnavailable:      http.StatusServiceUnavailable,
	kms.Canceled:              http.StatusConflict,
	kms.DryRunSucceeded:       http.StatusConflict,
	kms.DryRunInvalid:         http.StatusConflict,
	kms.DryRunDenied:          http.StatusForbidden,
}

// serviceFailure words an error of the service, nil for nil.
func serviceFailure(err error) *failure {
	if err == nil {
		return nil
	}
	e := kms.AsError(err)
	text := e.Code.Error()
	if e.Param != "" {
		text += " " + e.Param
	}
	switch {
	case e.Code == kms.Internal: // its cause is for the log
	case e.Detail != "" && e.Param == "":
		text = e.Detail
	case e.Detail != "":
		text = e.Param + ": " + e.Detail
	}
	return &failure{e.Code, text}
}

func (f *failure) status() int {
	if status, ok := failureStatus[f.code]; ok {
		return status
	}
	return http.StatusInternalServerError
}

// run does one call. One that changes something is audited: an event before the effect, so that an effect without an end is
// seen, and one after it, without which there is no answer.
func (s *server) run(rt *route, r *http.Request, actor *kms.Actor) (any, *failure) {
	if rt.action == "" || rt.action == byService {
		return rt.serve(s, r)
	}
	begin := time.Now()
	event := kms.AuditEvent{Time: begin, Actor: actor, Action: rt.action, Outcome: "begun"}
	if event.Detail = r.PathValue("name"); len(event.Detail) > maxMemberName {
		event.Detail = event.Detail[:maxMemberName]
	}
	var answer any
	f := s.mayManage(actor)
	if f == nil {
		if unkept := s.keep(r.Context(), &event, "nothing was done"); unkept != nil {
			return nil, unkept
		}
		answer, f = rt.serve(s, r)
	}
	event.Outcome, event.Duration = "ok", time.Since(begin)
	if f != nil {
		event.Outcome = f.code.Error()
		event.Detail = strings.TrimPrefix(event.Detail+": "+f.message, ": ")
	}
	if unkept := s.keep(r.Context(), &event, "there is no answer"); unkept != nil {
		return nil, unkept
	}
	return answer, f
}

// maxMemberName is the most octets of a member's name.
const maxMemberName = 32

// keep keeps an audit event, also when the caller is gone.
func (s *server) keep(ctx context.Context, e *kms.AuditEvent, consequence string) *failure {
	if err := s.audit.Record(context.WithoutCancel(ctx), e); err != nil {
		s.log.Error().Err(err).Msg("an audit event could not be kept, so a call fails")
		return failf(kms.AuditUnavailable, "the audit event of this call could not be kept, so %s; keyward's log has the cause", consequence)
	}
	return nil
}

// mayManage lets the appliance's administrator change it: the root of the first account. All accounts live on it, so the roots of
// the others are users of it like any other.
func (s *server) mayManage(actor *kms.Actor) *failure {
	administrator := rootOf(s.config.Load().FirstAccount())
	if actor.Principal == administrator {
		return nil
	}
	return failf(kms.Denied, "you are %s, and only the appliance's administrator may do this: run it as the Unix user root, or as one that a [[peer]] row maps to %s",
		actor.Principal, administrator)
}

// member finds the member that a call is about.
func (s *server) member(r *http.Request) (admin.Member, *failure) {
	var names []string
	for _, m := range s.pool.Status() {
		if m.Name == r.PathValue("name") {
			return wireMember(&m), nil
		}
		names = append(names, m.Name)
	}
	return admin.Member{}, failf(kms.ResourceNotFound, "there is no HSM member %q; there are %s", r.PathValue("name"), strings.Join(names, ", "))
}

// poolFailure words an error of the pool.
func poolFailure(err error) *failure {
	switch hsmpool.KindOf(err) {
	case hsmpool.KindBadData:
		return &failure{kms.InvalidParameter, err.Error()}
	case hsmpool.KindUnavailable:
		return &failure{kms.HSMUnavailable, err.Error()}
	case hsmpool.KindCanceled:
		return &failure{kms.Canceled, err.Error()}
	}
	return &failure{kms.OperationRejected, err.Error()}
}

// The bounds of a DrainRequest's time, and of its body.
const (
	drainTimeout    = 30 * time.Second
	maxDrainTimeout = time.Hour
	maxDrainBody    = 4096
)

func (s *server) drainMember(r *http.Request) (any, *failure) {
	m, f := s.member(r)
	if f != nil {
		return nil, f
	}
	body, f := readBody(r, maxDrainBody)
	if f != nil {
		return nil, f
	}
	timeout := drainTimeout
	if len(body) > 0 {
		var req admin.DrainRequest
		if err := json.Unmarshal(body, &req); err != nil {
			return nil, failf(kms.InvalidParameter, `the body is not {"timeout_seconds":N}`)
		}
		if req.Timeout != nil {
			if seconds := *req.Timeout; !(seconds >= 0 && seconds <= maxDrainTimeout.Seconds()) {
				return nil, failf(kms.InvalidParameter, "timeout_seconds must be 0 to %v", maxDrainTimeout.Seconds())
			}
			timeout = time.Duration(*req.Timeout * float64(time.Second))
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)() // a stop of the daemon does not wait for the jobs
	err := s.pool.Drain(ctx, m.Name)
	if err != nil && ctx.Err() == nil {
		return nil, poolFailure(err)
	}
	s.log.Info().Str("member", m.Name).Bool("idle", err == nil).Msg("an HSM member is drained")
	if now, f := s.member(r); f == nil {
		m = now
	}
	return admin.Drained{Idle: err == nil, Member: m}, nil
}

func (s *server) undrainMember(r *http.Request) (any, *failure) {
	m, f := s.member(r)
	if f != nil {
		return nil, f
	}
	if err := s.pool.Undrain(m.Name); err != nil {
		return nil, poolFailure(err)
	}
	s.log.Info().Str("member", m.Name).Msg("the drain of an HSM member is over")
	now, f := s.member(r)
	return now, f
}

// maxRecovery is far more than the recovery data of a ceremony has, in octets.
const maxRecovery = 64 << 10

func (s *server) enrollMember(r *http.Request) (any, *failure) {
	m, f := s.member(r)
	if f != nil {
		return nil, f
	}
	body, f := readBody(r, admin.MaxEnroll)
	defer clear(body)
	if f != nil {
		return nil, f
	}
	shares, f := readShares(body)
	defer func() {
		for _, share := range shares {
			clear(share)
		}
	}()
	if f != nil {
		return nil, f
	}
	recovery, f := readRecovery(s.config.Load().StateDir)
	if f != nil {
		return nil, f
	}
	ctx, cancel := context.WithTimeout(r.Context(), openTimeout)
	defer cancel()
	group, err := s.pool.Enroll(ctx, m.Name, recovery, shares)
	if err != nil {
		return nil, poolFailure(err)
	}
	s.log.Info().Str("member", m.Name).Str("group", group).Msg("an HSM member has got the master keys")
	return admin.Enrolled{Member: m.Name, Group: group}, nil
}

// readShares takes the shares out of the body of an EnrollRequest, without a string of any of them. Its errors name no part of
// the body. The caller wipes the shares.
func readShares(body []byte) ([][]byte, *failure) {
	var req admin.EnrollRequest
	err := json.Unmarshal(body, &req)
	shares := make([][]byte, len(req.Shares))
	for i, text := range req.Shares {
		shares[i] = text
	}
	if err != nil {
		return shares, failf(kms.InvalidParameter, `the body is not {"shares":["…", …]}`)
	}
	if len(shares) == 0 || len(shares) > admin.MaxShares {
		return shares, failf(kms.InvalidParameter, "there are %d shares; it must be 1 to %d", len(shares), admin.MaxShares)
	}
	for i, text := range shares {
		if len(text) < 3 || text[0] != '"' || bytes.IndexByte(text, '\\') >= 0 {
			return shares, failf(kms.InvalidParameter, "share %d is not the text of a share", i+1)
		}
		shares[i] = text[1 : len(text)-1]
	}
	return shares, nil
}

// readRecovery reads what the ceremony left in the state directory.
func readRecovery(stateDir string) ([]byte, *failure) {
	path := filepath.Join(stateDir, recoveryFile)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, failf(kms.OperationRejected, "%s is not there, and without it shares open nothing; restore it from a backup", path)
	}
	if err != nil {
		return nil, failf(kms.OperationRejected, "the recovery data: %v", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRecovery+1))
	if err != nil {
		return nil, failf(kms.OperationRejected, "the recovery data: %v", err)
	}
	if len(data) > maxRecovery {
		return nil, failf(kms.OperationRejected, "%s has more than %d octets, which is no recovery data; restore it from a backup", path, maxRecovery)
	}
	return data, nil
}

// confirmClock takes an operator's word for the clock.
func (s *server) confirmClock(r *http.Request) (any, *failure) {
	if err := s.svc.ConfirmClock(r.Context(), s.identify(r.Context()).actor); err != nil {
		e := kms.AsError(err)
		return nil, &failure{e.Code, cmp.Or(e.Detail, e.Code.Error()+"; keyward's log says more")}
	}
	return admin.ClockConfirmed{Time: s.svc.ClockStatus().Wall}, nil
}

func (s *server) serveReload(*http.Request) (any, *failure) {
	waiting, err := s.reloadNow()
	switch {
	case isPartRefusal(err):
		return nil, &failure{kms.OperationRejected, err.Error()}
	case err != nil:
		return nil, &failure{kms.InvalidParameter, err.Error()}
	}
	return admin.Reloaded{NeedRestart: append([]string{}, waiting...)}, nil
}

// readBody reads the body of a request, of at most limit octets. Its buffer never grows, so that the caller can wipe all of it.
func readBody(r *http.Request, limit int) ([]byte, *failure) {
	buf := make([]byte, limit+1)
	n, err := io.ReadFull(r.Body, buf)
	switch {
	case n > limit:
		clear(buf)
		return nil, failf(kms.InvalidParameter, "the body has more than %d octets", limit)
	case err != io.EOF && err != io.ErrUnexpectedEOF:
		clear(buf)
		return nil, failf(kms.InvalidParameter, "the body did not arrive")
	}
	return buf[:n], nil
}
