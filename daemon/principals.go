package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/policy"
)

// The calls of the administration about who there is and what they may do. The service decides who may make them, and audits
// them.

// people is the service's administration of principals, and who asks.
func (s *server) people(r *http.Request) (kms.Principals, *kms.Actor) {
	return s.svc.Principals(), s.identify(r.Context()).actor
}

// done is the answer of calls that have nothing to tell.
func done(err error) (any, *failure) { return struct{}{}, serviceFailure(err) }

func (s *server) serveAccounts(r *http.Request) (any, *failure) {
	p, actor := s.people(r)
	return admin.Accounts{Accounts: append([]string{}, p.Accounts(actor)...)}, nil
}

// principalsPage is how many principals an answer has if nothing is said.
const principalsPage = 100

func (s *server) listPrincipals(r *http.Request) (any, *failure) {
	q := r.URL.Query()
	p, actor := s.people(r)
	account := q.Get("account")
	if account == "" {
		account = actor.Account
	}
	offset, f := pageNumber(q.Get("offset"), "offset", 0, 0, 1<<31-1)
	if f != nil {
		return nil, f
	}
	limit, f := pageNumber(q.Get("limit"), "limit", principalsPage, 1, admin.MaxPrincipalsPage)
	if f != nil {
		return nil, f
	}
	list, recorded, err := p.List(r.Context(), actor, account, offset, limit)
	if err != nil {
		return nil, serviceFailure(err)
	}
	mapped, err := s.onlyMapped(r.Context(), account)
	if err != nil {
		s.log.Error().Err(err).Msg("listing principals")
		return nil, serviceFailure(err)
	}
	out := admin.Principals{Principals: []admin.Principal{}, Total: recorded + len(mapped)}
	for _, record := range list {
		out.Principals = append(out.Principals, s.wirePrincipal(record))
	}
	from := min(max(offset-recorded, 0), len(mapped))
	for _, record := range mapped[from:min(from+limit-len(list), len(mapped))] {
		out.Principals = append(out.Principals, s.wirePrincipal(record))
	}
	return out, nil
}

// pageNumber reads a number of a query, which is within bounds; otherwise if it is not there.
func pageNumber(text, name string, otherwise, least, most int) (int, *failure) {
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, failf(kms.InvalidParameter, "%s must be %d to %d", name, least, most)
	}
	return n, nil
}

// onlyMapped gives the principals of an account that [[peer]] rows name and that have no record, by name.
func (s *server) onlyMapped(ctx context.Context, account string) ([]*keystore.Principal, error) {
	var list []*keystore.Principal
	for _, arn := range s.peers.Load().principals(account) {
		record, err := s.store.Principal(ctx, arn)
		if err != nil {
			return nil, fmt.Errorf("the record of %s: %w", arn, err)
		}
		if record.Absent {
			list = append(list, record)
		}
	}
	return list, nil
}

// principals lists whom the rows name of an account, by name, and its root if that is root's own.
func (t *peerTable) principals(account string) []string {
	var list []string
	if account == t.account {
		list = append(list, rootOf(account))
	}
	for _, row := range t.rows {
		if row.account == account {
			list = append(list, row.principal)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// mentioned refuses a principal that nothing says anything of: neither a record nor a [[peer]] row, and that is no root.
func (s *server) mentioned(p *keystore.Principal) *failure {
	if p.Absent && p.ARN != rootOf(p.Account) && !slices.Contains(s.peers.Load().principals(p.Account), p.ARN) {
		return failf(kms.ResourceNotFound, "there is no principal %s", p.ARN)
	}
	return nil
}

func (s *server) wirePrincipal(p *keystore.Principal) admin.Principal {
	out := admin.Principal{ARN: p.ARN, Account: p.Account, Description: p.Description, Recorded: !p.Absent, Created: p.Created, Policies: []string{},
		AccessKeys: append([]string{}, p.AccessKeys...), Mapped: slices.Contains(s.peers.Load().principals(p.Account), p.ARN)}
	for _, o := range p.Policies {
		out.Policies = append(out.Policies, o.Name)
	}
	if p.PIN != nil {
		out.PIN = &admin.PIN{Set: p.PIN.Set, Failures: p.PIN.Failures, Locked: p.PIN.Failures >= kms.MaxPINFailures}
	}
	return out
}

func (s *server) createPrincipal(r *http.Request) (any, *failure) {
	var req admin.PrincipalRequest
	if f := readJSON(r, admin.MaxPrincipalBody, &req, `{"arn":"…","description":"…"}`); f != nil {
		return nil, f
	}
	p, actor := s.people(r)
	record, err := p.Create(r.Context(), actor, req.ARN, req.Description)
	if err != nil {
		return nil, serviceFailure(err)
	}
	return s.wirePrincipal(record), nil
}

func (s *server) servePrincipal(r *http.Request) (any, *failure) {
	p, actor := s.people(r)
	record, err := p.Get(r.Context(), actor, r.URL.Query().Get("arn"))
	if err != nil {
		return nil, serviceFailure(err)
	}
	return s.wirePrincipal(record), nil
}

func (s *server) deletePrincipal(r *http.Request) (any, *failure) {
	p, actor := s.people(r)
	return done(p.Delete(r.Context(), actor, r.URL.Query().Get("arn")))
}

func (s *server) servePolicies(r *http.Request) (any, *failure) {
	p, actor := s.people(r)
	record, err := p.Get(r.Context(), actor, r.URL.Query().Get("arn"))
	if err != nil {
		return nil, serviceFailure(err)
	}
	if f := s.mentioned(record); f != nil {
		return nil, f
	}
	out := admin.Policies{Policies: []admin.IdentityPolicy{}}
	for _, o := range record.Policies {
		out.Policies = append(out.Policies, admin.IdentityPolicy{Name: o.Name, Document: json.RawMessage(o.Document)})
	}
	return out, nil
}

func (s *server) attachPolicy(r *http.Request) (any, *failure) {
	document, f := readBody(r, admin.MaxPolicy)
	if f != nil {
		return nil, f
	}
	q := r.URL.Query()
	p, actor := s.people(r)
	return done(p.AttachPolicy(r.Context(), actor, q.Get("arn"), q.Get("name"), string(document)))
}

func (s *server) detachPolicy(r *http.Request) (any, *failure) {
	q := r.URL.Query()
	p, actor := s.people(r)
	return done(p.DetachPolicy(r.Context(), actor, q.Get("arn"), q.Get("name")))
}

func (s *server) setPIN(r *http.Request) (any, *failure) {
	pin, f := readBody(r, admin.MaxPINBody)
	if f != nil {
		return nil, f
	}
	defer clear(pin)
	p, actor := s.people(r)
	return done(p.SetPIN(r.Context(), actor, r.URL.Query().Get("arn"), pin))
}

func (s *server) removePIN(r *http.Request) (any, *failure) {
	p, actor := s.people(r)
	return done(p.RemovePIN(r.Context(), actor, r.URL.Query().Get("arn")))
}

func (s *server) listAccessKeys(r *http.Request) (any, *failure) {
	p, actor := s.people(r)
	record, err := p.Get(r.Context(), actor, r.URL.Query().Get("principal"))
	if err != nil {
		return nil, serviceFailure(err)
	}
	if f := s.mentioned(record); f != nil {
		return nil, f
	}
	list, err := p.AccessKeys(r.Context(), actor, record.ARN)
	if err != nil {
		return nil, serviceFailure(err)
	}
	out := admin.AccessKeys{AccessKeys: []admin.AccessKey{}}
	for _, k := range list {
		out.AccessKeys = append(out.AccessKeys, admin.AccessKey{ID: k.ID, Principal: k.Principal, Active: k.Active, Created: k.Created})
	}
	return out, nil
}

// secretAnswer is an answer that is wiped once it is written.
type secretAnswer []byte

// ServeHTTP writes it, once.
func (a secretAnswer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	defer clear(a)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	// A caller that has gone can delete the access key whose secret it did not get.
	_, _ = w.Write(a)
}

// newAccessKey makes the one answer that has the secret of an access key.
func newAccessKey(made *kms.NewAccessKey, advice string) (any, *failure) {
	defer clear(made.Secret)
	text, err := (&admin.NewAccessKey{ID: made.ID, Principal: made.Principal, Advice: advice, Secret: made.Secret}).Text()
	if err != nil {
		return nil, serviceFailure(err)
	}
	return secretAnswer(text), nil
}

func (s *server) createAccessKey(r *http.Request) (any, *failure) {
	var req admin.AccessKeyRequest
	if f := readJSON(r, admin.MaxPrincipalBody, &req, `{"principal":"…"}`); f != nil {
		return nil, f
	}
	p, actor := s.people(r)
	made, err := p.CreateAccessKey(r.Context(), actor, req.Principal)
	if err != nil {
		return nil, serviceFailure(err)
	}
	return newAccessKey(made, "")
}

func (s *server) rotateAccessKey(r *http.Request) (any, *failure) {
	var req admin.RotateRequest
	if f := readJSON(r, admin.MaxPrincipalBody, &req, `{"disable":false}`); f != nil {
		return nil, f
	}
	id := r.PathValue("id")
	p, actor := s.people(r)
	made, err := p.RotateAccessKey(r.Context(), actor, id, req.Disable)
	if err != nil {
		return nil, serviceFailure(err)
	}
	if req.Disable {
		return newAccessKey(made, fmt.Sprintf("Requests signed with %s are refused from now on: give every client of %s the new ID and secret at once. "+
			"If one can't have it yet, enable %s again; delete it when all have changed over.", id, made.Principal, id))
	}
	return newAccessKey(made, fmt.Sprintf("Both access keys work now: give every client of %s the new ID and secret, then disable %s, and delete it when nothing has failed.",
		made.Principal, id))
}

func (s *server) enableAccessKey(r *http.Request) (any, *failure) {
	p, actor := s.people(r)
	return done(p.SetAccessKeyActive(r.Context(), actor, r.PathValue("id"), true))
}

func (s *server) disableAccessKey(r *http.Request) (any, *failure) {
	p, actor := s.people(r)
	return done(p.SetAccessKeyActive(r.Context(), actor, r.PathValue("id"), false))
}

func (s *server) deleteAccessKey(r *http.Request) (any, *failure) {
	p, actor := s.people(r)
	return done(p.DeleteAccessKey(r.Context(), actor, r.PathValue("id")))
}

func (s *server) simulate(r *http.Request) (any, *failure) {
	var req admin.Simulation
	if f := readJSON(r, admin.MaxSimulation, &req, `{"principal":"…","action":"kms:…","key":"…", …}`); f != nil {
		return nil, f
	}
	switch req.Door {
	case "", kms.DoorAPI.String(), kms.DoorPKCS11.String(), kms.DoorXKI.String():
	default:
		return nil, failf(kms.InvalidParameter, "door must be %s, %s or %s", kms.DoorAPI, kms.DoorPKCS11, kms.DoorXKI)
	}
	q := &kms.Simulation{Principal: req.Principal, Action: req.Action, Key: req.Key, Policy: req.Policy, Context: policy.Context{
		SourceIP: req.SourceIP, SourceVPC: req.SourceVPC, Time: req.Time, SecureTransport: true, EncryptionAlgorithm: req.Algorithm,
		Unit: req.Unit, Executable: req.Executable, Door: req.Door,
	}}
	if req.UID != nil {
		q.Context.UID, q.Context.HasUID = *req.UID, true
	}
	p, actor := s.people(r)
	d, err := p.Simulate(r.Context(), actor, q)
	if err != nil {
		return nil, serviceFailure(err)
	}
	out := admin.Simulated{Allowed: d.Allowed, Reason: d.Reason, Policies: []admin.PolicyTrace{wireTrace("key policy", &d.KeyPolicy)}}
	for i := range d.Identity {
		out.Policies = append(out.Policies, wireTrace("identity policy "+d.Policies[i], &d.Identity[i]))
	}
	return out, nil
}

func wireTrace(name string, t *policy.DocumentTrace) admin.PolicyTrace {
	out := admin.PolicyTrace{Policy: name, Effect: t.Effect.String(), Statements: []admin.StatementTrace{}}
	for _, st := range t.Statements {
		out.Statements = append(out.Statements, admin.StatementTrace{Sid: st.Sid, Effect: st.Effect.String(), Matched: st.Matched, Missed: string(st.Missed), Why: st.Why})
	}
	return out
}

// readJSON reads a body of at most limit octets into req. form shows what it should be. No body is an empty object.
func readJSON(r *http.Request, limit int, req any, form string) *failure {
	body, f := readBody(r, limit)
	if f != nil {
		return f
	}
	if len(body) == 0 {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(req); err != nil {
		return failf(kms.InvalidParameter, "the body is not %s: %v", form, err)
	}
	if dec.More() {
		return failf(kms.InvalidParameter, "the body is more than %s", form)
	}
	return nil
}

func rootOf(account string) string { return "acs:ram::" + account + ":root" }
