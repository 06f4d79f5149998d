package policy

import (
	"fmt"
	"strings"
)

// Decision is a decision with its reasons.
type Decision struct {
	Allowed   bool
	Reason    string // one sentence
	KeyPolicy DocumentTrace
	Identity  []DocumentTrace // in the order of the identity policies
}

// DocumentTrace says what one document said, and why.
type DocumentTrace struct {
	Effect     Effect
	Statements []StatementTrace // in the document's order
}

// StatementTrace says whether a statement matched the request, and if not, what did not match first.
type StatementTrace struct {
	Sid     string
	Effect  Effect // what it would do, matched or not
	Matched bool
	Missed  Part   // if not Matched: the first part that does not fit
	Why     string // if not Matched: what the request has there, and what the statement wants
}

// Part is a part of a statement, in the order in which they are looked at.
type Part string

// The parts.
const (
	MissedPrincipal Part = "Principal"
	MissedAction    Part = "Action"
	MissedResource  Part = "Resource"
	MissedCondition Part = "Condition"
)

// Explain decides as Decide does, and says why. names has what the identity policies are called, in their order. It shows values of
// the request: tags, addresses, paths.
func Explain(owner KeyOwner, key *Document, identity []*Document, names []string, r *Request) Decision {
	of := "the key policy"
	if key == nil {
		key = defaultDocument(owner)
		of = "the default key policy"
	}
	d := Decision{KeyPolicy: key.trace(r)}
	b, decisive := NoMatch, 0
	for i, doc := range identity {
		t := doc.trace(r)
		d.Identity = append(d.Identity, t)
		if t.Effect > b {
			b, decisive = t.Effect, i
		}
	}
	v := combine(&owner, d.KeyPolicy.Effect, b, r)
	d.Allowed = v.allows()
	what := fmt.Sprintf("%s may do %s", r.Principal, r.Action)
	if !d.Allowed {
		what = fmt.Sprintf("%s may not do %s", r.Principal, r.Action)
	}
	byKey := func() string { return d.KeyPolicy.decisive() + " of " + of }
	byID := func() string {
		return fmt.Sprintf("%s of the identity policy %s", d.Identity[decisive].decisive(), names[decisive])
	}
	switch v {
	case byUnlocked:
		d.Reason = what + ": this can't be denied to the root of the account that owns the key, so that no key can be locked for good"
	case byKeyPolicy:
		d.Reason = what + ": " + byKey() + " allows it"
	case byIdentity:
		d.Reason = what + ": " + byID() + " allows it"
	case byRoot:
		d.Reason = what + ": it is the root of an account that owns the key, and nothing denies it"
	case byBoth:
		d.Reason = what + ": " + byKey() + " allows it, and "
		if b == Allow {
			d.Reason += byID() + " does"
		} else {
			d.Reason += "it is the root of its own account"
		}
	case nobody:
		d.Reason = "the request names no principal or no action"
	case deniedByKeyPolicy:
		d.Reason = what + ": " + byKey() + " denies it"
	case deniedByIdentity:
		d.Reason = what + ": " + byID() + " denies it"
	case notAllowed:
		d.Reason = what + ": neither " + of + " nor an identity policy allows it"
	case notForOthers:
		d.Reason = what + ": another account owns the key, and other accounts may use a key but not manage it"
	case notByKeyPolicy:
		d.Reason = what + ": another account owns the key, and " + of + " does not allow it"
	case notByIdentity:
		d.Reason = what + ": another account owns the key, and no identity policy of the caller's account allows it, as is needed besides the key policy"
	case notByEither:
		d.Reason = what + ": another account owns the key, and neither " + of + " nor an identity policy of the caller's account allows it, where both are needed"
	}
	return d
}

func (d *Document) trace(r *Request) DocumentTrace {
	t := DocumentTrace{Effect: d.Evaluate(r), Statements: make([]StatementTrace, len(d.statements))}
	for i := range d.statements {
		st := &d.statements[i]
		s := StatementTrace{Sid: st.sid, Effect: st.effect}
		switch {
		case !st.hasPrincipal(r):
			s.Missed = MissedPrincipal
			s.Why = fmt.Sprintf("%s is not among %s", r.Principal, few(len(st.principals), func(i int) string { return st.principals[i].String() }))
		case !st.hasAction(r):
			s.Missed = MissedAction
			s.Why = fmt.Sprintf("%s is not among %s", r.Action, few(len(st.actions), func(i int) string { return st.actions[i].text }))
		case !st.hasResource(r):
			s.Missed = MissedResource
			s.Why = fmt.Sprintf("%s is not among %s", &r.Resource, few(len(st.resources), func(i int) string { return st.resources[i].text }))
		default:
			c := st.failing(r)
			if s.Matched = c == nil; s.Matched {
				break
			}
			s.Missed = MissedCondition
			has := "the request has none"
			if v := c.value(&r.Context); v != "" {
				has = "the request has " + v
			}
			s.Why = fmt.Sprintf("%s %s %s: %s", c.keyName(), c.op.name, few(len(c.texts), func(i int) string { return c.texts[i] }), has)
		}
		t.Statements[i] = s
	}
	return t
}

// decisive names the first statement that has the document's effect.
func (t *DocumentTrace) decisive() string {
	for i, s := range t.Statements {
		if s.Matched && s.Effect == t.Effect {
			if s.Sid != "" {
				return fmt.Sprintf("Statement[%d] (%q)", i, s.Sid)
			}
			return fmt.Sprintf("Statement[%d]", i)
		}
	}
	return "no statement"
}

// few joins the first of n texts, each cut to 100 characters, so that a sentence stays one.
func few(n int, text func(int) string) string {
	const most = 8
	var out []string
	for i := range min(n, most) {
		out = append(out, fmt.Sprintf("%.100s", text(i)))
	}
	s := strings.Join(out, ", ")
	if n > most {
		s += fmt.Sprintf(" and %d more", n-most)
	}
	return s
}
