package kms

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/keyward/keyward/kms/kmswire"
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
	Items     int    // of a batch; Detail says how many of them failed
	Outcome   string // "begun" (management calls, before the effect), "ok", or the error in keyward's words
	Detail    string // of an error, as the caller was told; else what there is to say, such as the alias that was changed
	Duration  time.Duration

	failed int // of Items
}

// uses is how often the call used the event's key, for the ledger.
func (e *AuditEvent) uses() int {
	switch {
	case e.Outcome != "ok":
		return 0
	case e.Items > 0:
		return e.Items - e.failed
	}
	return 1
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
	// algorithm is that of an asymmetric encryption or of a bare mode, for conditions of policies; set before the call is authorized.
	algorithm kmswire.Algorithm
	event     AuditEvent
	failed    atomic.Int64 // items
	others    []AuditEvent // of further keys: see also
	quiet     bool         // whoever made the call logs its failure
	unseen    bool         // only a failure has an event, and success is no use: of MayUse, and of later parts of one use
}

// audited runs one action: do decides and acts, audited writes the events around it and drops the answer if the event
// can't be kept. With dryRun, do must stop before its effect by calling dryRunEnd.
func audited[T any](s *Service, ctx context.Context, actor *Actor, act *action, dryRun bool, do func(*call) (*T, error)) (*T, error) {
	if actor == nil || actor.Principal == "" || actor.Account == "" {
		return nil, Errorf(Denied, "the caller is not mapped to a principal")
	}
	begin := s.now()
	c := &call{Service: s, ctx: ctx, actor: actor, action: act, dryRun: dryRun}
	c.event = AuditEvent{Time: begin, Actor: actor, Action: act.name}
	c.event.RequestID, _ = ctx.Value(requestIDKey{}).(string)

	answer, err := do(c)
	c.event.Duration = s.now().Sub(begin)
	var failure *Error
	if err != nil {
		failure = dryRunError(dryRun, AsError(err))
	}
	c.event.noteFailed(int(c.failed.Load()))
	c.event.end(failure)
	if failure != nil {
		if !c.quiet && (failure.Code == Internal || failure.Err != nil) {
			s.log.Error().Err(failure).Str("request", c.event.RequestID).Str("action", act.name).
				Str("key", c.event.KeyID).Msg("call failed")
		}
	}
	if c.unseen && failure == nil {
		return answer, nil
	}
	// The event is kept even if the caller is gone by now.
	kept := context.WithoutCancel(ctx)
	var auditErr error
	for i := range c.others {
		c.others[i].Duration = c.event.Duration
		auditErr = errors.Join(auditErr, s.audit.Record(kept, &c.others[i]))
	}
	if auditErr = errors.Join(auditErr, s.audit.Record(kept, &c.event)); auditErr != nil {
		return nil, s.noAudit("there is no answer", auditErr)
	}
	if act.kind == kindCrypto {
		c.noteUses()
	}
	if failure != nil {
		return nil, failure
	}
	return answer, nil
}

// noteUses brings what the call did with keys into the ledger.
func (c *call) noteUses() {
	now := c.event.Time.Add(c.event.Duration) // a look at the clock costs more than all the rest of this
	for i := range c.others {
		c.ledger.note(c.actor, c.others[i].KeyID, c.others[i].uses(), now)
	}
	c.ledger.note(c.actor, c.event.KeyID, c.event.uses(), now)
}

// end sets what an event is about to be kept with. What the caller gave is cut to a length that fits an ID, an alias or
// an ARN, so that nobody can fill the audit with text of their own.
func (e *AuditEvent) end(failure *Error) {
	e.KeyID, e.VersionID = cut(e.KeyID, maxReference), cut(e.VersionID, maxReference)
	e.Outcome = "ok"
	if failure != nil {
		e.Outcome, e.Detail = failure.Code.Error(), failure.Detail
	}
}

// also adds an event of its own for a further key that the call used, or was refused: no use of a key may hide behind
// the key that the call's own event names.
func (c *call) also(e AuditEvent, err error) {
	if err == nil {
		err = c.dryRunEnd()
	}
	var failure *Error
	if err != nil {
		failure = dryRunError(c.dryRun, AsError(err))
	}
	e.end(failure)
	c.others = append(c.others, e)
}

// noteFailed says in an event how many of its items failed.
func (e *AuditEvent) noteFailed(n int) {
	if e.failed = n; n > 0 {
		e.Detail = fmt.Sprintf("%d of %d items failed", n, e.Items)
	}
}

// noAudit is the error of a call whose event could not be kept. It is logged here, where nothing else will.
func (s *Service) noAudit(consequence string, err error) *Error {
	s.log.Error().Err(err).Msg("an audit event could not be kept, so a call fails")
	return &Error{Code: AuditUnavailable, Detail: "the event of this call could not be kept, so " + consequence + "; keyward's log has the cause", Err: err}
}

// begun notes a management action before its effect, so that an effect without an end is seen.
func (c *call) begun() error {
	e := c.event
	e.end(nil)
	e.Outcome = "begun"
	if err := c.audit.Record(context.WithoutCancel(c.ctx), &e); err != nil {
		return c.noAudit("nothing was done", err)
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
	case DryRunSucceeded, Internal, StoreUnavailable, HSMUnavailable, AuditUnavailable, Throttled, Canceled:
		return e
	case Denied:
		return &Error{Code: DryRunDenied, Param: e.Param, Detail: e.Detail, Err: e.Err}
	}
	return &Error{Code: DryRunInvalid, Param: e.Param, Detail: e.Code.Error() + ": " + e.Detail, Err: e.Err}
}
