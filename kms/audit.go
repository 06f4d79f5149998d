package kms

import (
	"context"
	"time"
)

// AuditEvent is what is remembered of one call: who did what to which key through which door, and how it ended. It never
// holds plaintext, digests, signatures or PINs.
type AuditEvent struct {
	Time      time.Time
	RequestID string
	Actor     *Actor
	Action    string
	KeyID     string // as resolved; as given when it could not be
	VersionID string
	Items     int    // of a batch
	Outcome   string // "begun" (management calls, before the effect), "ok", or the error in keyward's words
	Detail    string // of an error, as the caller was told
	Duration  time.Duration
}

// Auditor keeps audit events. Record returns when the event is kept; a call whose event can't be kept fails.
type Auditor interface {
	Record(ctx context.Context, e *AuditEvent) error
}

type requestIDKey struct{}

// WithRequestID carries a door's request ID to the audit event.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// call is one call under way.
type call struct {
	*Service
	ctx    context.Context
	actor  *Actor
	action *action
	dryRun bool
	event  AuditEvent
}

// audited runs one action: do decides and acts, audited writes the events around it and drops the answer if the event
// can't be kept. With dryRun, do must stop before its effect by calling dryRunEnd.
func audited[T any](s *Service, ctx context.Context, actor *Actor, act *action, dryRun bool, do func(*call) (*T, error)) (*T, error) {
	if actor == nil || actor.Principal == "" || actor.Account == "" {
		return nil, Errorf(Denied, "the caller is not mapped to a principal")
	}
	begin := time.Now()
	c := &call{Service: s, ctx: ctx, actor: actor, action: act, dryRun: dryRun}
	c.event = AuditEvent{Time: begin, Actor: actor, Action: act.name}
	c.event.RequestID, _ = ctx.Value(requestIDKey{}).(string)

	answer, err := do(c)
	c.event.Duration = time.Since(begin)
	c.event.Outcome = "ok"
	var failure *Error
	if err != nil {
		failure = dryRunError(dryRun, AsError(err))
		c.event.Outcome, c.event.Detail = failure.Code.Error(), failure.Detail
		if failure.Code == Internal || failure.Err != nil {
			s.log.Error().Err(failure).Str("request", c.event.RequestID).Str("action", act.name).
				Str("key", c.event.KeyID).Msg("call failed")
		}
	}
	// The event is kept even if the caller is gone by now.
	if auditErr := s.audit.Record(context.WithoutCancel(ctx), &c.event); auditErr != nil {
		return nil, &Error{Code: Internal, Detail: "the audit event could not be kept, so there is no answer", Err: auditErr}
	}
	if failure != nil {
		return nil, failure
	}
	return answer, nil
}

// begun notes a management action before its effect, so that an effect without an end is seen.
func (c *call) begun() error {
	e := c.event
	e.Outcome = "begun"
	if err := c.audit.Record(context.WithoutCancel(c.ctx), &e); err != nil {
		return &Error{Code: Internal, Detail: "the audit event could not be kept, so nothing was done", Err: err}
	}
	return nil
}

// dryRunEnd ends a call that was asked only whether it would work.
func (c *call) dryRunEnd() error {
	if c.dryRun {
		return Errorf(DryRunSucceeded, "the request would have succeeded, DryRun is set")
	}
	return nil
}

func dryRunError(dryRun bool, e *Error) *Error {
	if !dryRun {
		return e
	}
	switch e.Code {
	case DryRunSucceeded, Internal, StoreUnavailable, HSMUnavailable, Throttled, Canceled:
		return e
	case Denied:
		return &Error{Code: DryRunDenied, Param: e.Param, Detail: e.Detail, Err: e.Err}
	}
	return &Error{Code: DryRunInvalid, Param: e.Param, Detail: e.Code.Error() + ": " + e.Detail, Err: e.Err}
}
