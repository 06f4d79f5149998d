package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/xki"
)

// The calls of the administration about external keys. The service decides who may make them, and audits them. What they change is in force when they
// have answered.

// outside is the service's administration of external keys, and who asks.
func (s *server) outside(r *http.Request) (kms.XKI, *kms.Actor) {
	return s.svc.XKI(), s.identify(r.Context()).actor
}

// inForce takes over what a call has changed, which it has even if this fails.
func (s *server) inForce() *failure {
	if err := s.external.refresh(s.stopping); err != nil {
		s.log.Error().Err(err).Msg("external keys stay as they were")
		return failf(kms.StoreUnavailable, "it is changed, but could not be taken over, and is when keyward is reloaded: %v", err)
	}
	return nil
}

func (s *server) listXKIPrefixes(r *http.Request) (any, *failure) {
	x, actor := s.outside(r)
	list, err := x.Prefixes(r.Context(), actor)
	if err != nil {
		return nil, serviceFailure(err)
	}
	out := admin.XKIPrefixes{Prefixes: []admin.XKIPrefix{}}
	for _, p := range list {
		out.Prefixes = append(out.Prefixes, wirePrefix(p))
	}
	return out, nil
}

func wirePrefix(p *keystore.XKIPrefix) admin.XKIPrefix {
	out := admin.XKIPrefix{Name: p.Name, Account: p.Account, Principal: p.Principal, Dialect: p.Dialect, Path: p.Path, Region: p.Region, PerSecond: p.PerSecond,
		Keys: p.Keys, Credentials: []admin.XKICredential{}, Rules: []admin.XKIRule{}, Created: p.Created}
	if d := xki.Dialects[p.Dialect]; d != nil {
		out.Path += d.Base()
		if d.Experimental() {
			out.Warning = experimental
		}
	}
	for _, k := range p.Credentials {
		out.Credentials = append(out.Credentials, admin.XKICredential{ID: k.ID, Created: k.Created})
	}
	for _, rule := range p.Rules {
		out.Rules = append(out.Rules, admin.XKIRule{Name: rule.Name, Operations: rule.Operations, Keys: rule.Keys, Unless: oneOf[admin.OneOf](rule.Unless)})
	}
	if out.Keys == nil {
		out.Keys = map[string]string{}
	}
	return out
}

// experimental is what is said of a dialect that is not published.
const experimental = "this dialect is experimental: nobody published it, and its names are our assumption"

func (s *server) createXKIPrefix(r *http.Request) (any, *failure) {
	x, actor := s.outside(r)
	if err := x.Refuse(r.Context(), actor); err != nil {
		return nil, serviceFailure(err)
	}
	var req admin.XKIPrefixRequest
	if f := readJSON(r, admin.MaxXKIBody, &req, `{"name":"…","keys":{"EXTERNAL-KEY-ID":"alias/…"}, …}`); f != nil {
		return nil, f
	}
	path := "/" + req.Name
	if req.Prefix != nil {
		path = *req.Prefix
	}
	if req.Dialect == "" {
		req.Dialect = xki.XKSv1.Name()
	}
	if xki.Dialects[req.Dialect] == nil {
		return nil, failf(kms.InvalidParameter, "there is no dialect %.40q; there are %s and %s", req.Dialect, xki.XKSv1.Name(), xki.XKIv1.Name())
	}
	if err := xki.CheckPath(path); err != nil {
		return nil, failf(kms.InvalidParameter, "%s", xki.AsError(err).Detail)
	}
	if f := checkPerSecond(req.PerSecond); f != nil {
		return nil, f
	}
	p, err := x.CreatePrefix(r.Context(), actor, &keystore.XKIPrefix{Name: req.Name, Account: req.Account, Principal: req.Principal, Dialect: req.Dialect, Path: path,
		Region: req.Region, PerSecond: req.PerSecond, Keys: req.Keys})
	if err != nil {
		return nil, serviceFailure(err)
	}
	return wirePrefix(p), s.inForce()
}

func checkPerSecond(n int) *failure {
	if n < 0 || n > 1_000_000 {
		return failf(kms.InvalidParameter, "per_second = %d; it must be 0, which is no limit, to 1000000", n)
	}
	return nil
}

func (s *server) updateXKIPrefix(r *http.Request) (any, *failure) {
	x, actor := s.outside(r)
	if err := x.Refuse(r.Context(), actor); err != nil {
		return nil, serviceFailure(err)
	}
	var req admin.XKIPrefixUpdate
	if f := readJSON(r, admin.MaxXKIBody, &req, `{"add_keys":{…},"remove_keys":[…],"per_second":…,"rules":[…]}`); f != nil {
		return nil, f
	}
	u := &kms.XKIPrefixUpdate{AddKeys: req.AddKeys, RemoveKeys: req.RemoveKeys, PerSecond: req.PerSecond}
	if req.PerSecond != nil {
		if f := checkPerSecond(*req.PerSecond); f != nil {
			return nil, f
		}
	}
	if req.Rules != nil {
		u.Rules = &[]keystore.XKIRule{}
		for _, rule := range *req.Rules {
			stored := keystore.XKIRule{Name: rule.Name, Operations: rule.Operations, Keys: rule.Keys, Unless: oneOf[[]string](rule.Unless)}
			if _, err := wireRule(&stored); err != nil {
				return nil, failf(kms.InvalidParameter, "%s", xki.AsError(err).Detail)
			}
			*u.Rules = append(*u.Rules, stored)
		}
		if len(*u.Rules) > maxXKIRules {
			return nil, failf(kms.LimitExceeded, "%d rules; a prefix has at most %d", len(*u.Rules), maxXKIRules)
		}
	}
	p, err := x.UpdatePrefix(r.Context(), actor, r.PathValue("name"), u)
	if err != nil {
		return nil, serviceFailure(err)
	}
	return wirePrefix(p), s.inForce()
}

// oneOf converts the values of a rule; no values stay none.
func oneOf[To, From ~[]string](values map[string]From) map[string]To {
	if values == nil {
		return nil
	}
	out := make(map[string]To, len(values))
	for name, v := range values {
		out[name] = To(v)
	}
	return out
}

// maxXKIRules bounds the rules of a prefix: each request is held against all.
const maxXKIRules = 100

func (s *server) deleteXKIPrefix(r *http.Request) (any, *failure) {
	x, actor := s.outside(r)
	if err := x.DeletePrefix(r.Context(), actor, r.PathValue("name")); err != nil {
		return nil, serviceFailure(err)
	}
	return struct{}{}, s.inForce()
}

func (s *server) createXKICredential(r *http.Request) (any, *failure) {
	x, actor := s.outside(r)
	made, err := x.CreateCredential(r.Context(), actor, r.PathValue("name"))
	if err != nil {
		return nil, serviceFailure(err)
	}
	if f := s.inForce(); f != nil {
		clear(made.Secret)
		return nil, f
	}
	return newAccessKey(made, "")
}

func (s *server) exportXKI(r *http.Request) (any, *failure) {
	x, actor := s.outside(r)
	made, _, err := x.ExportCredential(r.Context(), actor, r.PathValue("name"), r.URL.Query().Get("id"))
	if err != nil {
		return nil, serviceFailure(err)
	}
	return newAccessKey(made, "")
}

func (s *server) deleteXKICredential(r *http.Request) (any, *failure) {
	x, actor := s.outside(r)
	if err := x.DeleteCredential(r.Context(), actor, r.PathValue("name"), r.PathValue("id")); err != nil {
		return nil, serviceFailure(err)
	}
	return struct{}{}, s.inForce()
}

// listXKIListeners tells where external keys are served. Whoever may list prefixes may know.
func (s *server) listXKIListeners(r *http.Request) (any, *failure) {
	x, actor := s.outside(r)
	if _, err := x.Prefixes(r.Context(), actor); err != nil {
		return nil, serviceFailure(err)
	}
	out := admin.XKIListeners{Listeners: []admin.XKIListener{}}
	rows := s.config.Load().Listeners
	for i, d := range s.doors {
		if d.serves != config.XKI {
			continue
		}
		l := admin.XKIListener{Address: d.listener.Addr().String(), MutualTLS: d.clients.Load() != nil, ClientNames: append([]string{}, rows[i].ClientNames...)}
		for _, der := range d.cert.Load().Certificate {
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				return nil, failf(kms.Internal, "the certificate of the listener %s: %v", d.address, err)
			}
			f := xki.FingerprintsOf(cert)
			l.Certificates = append(l.Certificates, admin.XKICertificate{Subject: cert.Subject.String(), NotAfter: cert.NotAfter,
				CertificateSHA256: f.CertificateSHA256, KeySHA256: f.KeySHA256, CertificateSM3: f.CertificateSM3, KeySM3: f.KeySM3})
		}
		out.Listeners = append(out.Listeners, l)
	}
	return out, nil
}

func (s *server) listXKIConnections(r *http.Request) (any, *failure) {
	x, actor := s.outside(r)
	list, err := x.Connections(r.Context(), actor)
	if err != nil {
		return nil, serviceFailure(err)
	}
	out := admin.XKIConnections{Connections: []admin.XKIConnection{}}
	for _, conn := range list {
		out.Connections = append(out.Connections, s.wireConnection(conn))
	}
	return out, nil
}

func (s *server) wireConnection(conn *keystore.XKIConnection) admin.XKIConnection {
	status, failed := s.external.connection(conn.Instance)
	budget := conn.Budget
	if budget == 0 {
		budget = xki.Budget
	}
	out := admin.XKIConnection{Instance: conn.Instance, Endpoint: conn.Endpoint, Path: conn.Path, Dialect: conn.Dialect, Region: conn.Region, AccessKeyID: conn.AccessKeyID,
		Roots: conn.Roots != "", Pins: append([]string{}, conn.Pins...), Names: conn.Names, Budget: float64(budget) / float64(time.Millisecond), Changed: conn.Changed,
		Connected: status.Connected, Since: status.Since, Probed: status.Probed, Trouble: status.Trouble, Vendor: status.Health.Vendor, Model: status.Health.Model}
	if d := xki.Dialects[conn.Dialect]; d != nil {
		out.Path += d.Base()
	}
	if certs, err := xki.Certificates([]byte(conn.Certificate)); err == nil {
		out.Certificate = certs[0].Subject.String()
	}
	if failed != "" {
		out.Trouble = failed
	}
	return out
}

// connectXKI sets a connection, and tries it: what can't be reached now is kept all the same, as it may come.
func (s *server) connectXKI(r *http.Request) (any, *failure) {
	x, actor := s.outside(r)
	if err := x.Refuse(r.Context(), actor); err != nil {
		return nil, serviceFailure(err)
	}
	body, f := readBody(r, admin.MaxXKIBody)
	if f != nil {
		return nil, f
	}
	defer clear(body[:cap(body)])
	head, rest, _ := bytes.Cut(body, []byte{'\n'})
	secret, key, _ := bytes.Cut(rest, []byte{'\n'})
	var req admin.XKIConnectRequest
	if err := json.Unmarshal(head, &req); err != nil || len(secret) == 0 || len(secret) > maxXKISecret {
		return nil, failf(kms.InvalidParameter, `the body is {"endpoint":"https://…","path":"…","region":"…","access_key_id":"…", …}, a line with the secret, and the key of a certificate if there is one`)
	}
	conn, f := checkConnection(r.PathValue("instance"), &req, key)
	if f != nil {
		return nil, f
	}
	if err := x.Connect(r.Context(), actor, conn, secret, key); err != nil {
		return nil, serviceFailure(err)
	}
	if f := s.inForce(); f != nil {
		return nil, f
	}
	s.external.settle(r.Context(), conn.Instance)
	return s.wireConnection(conn), nil
}

// maxXKISecret bounds the secret of an access key, in octets.
const maxXKISecret = 256

// The bounds of a connection's budget.
const (
	minBudget = 20 * time.Millisecond
	maxBudget = 30 * time.Second
)

// checkConnection makes a record of a request, with all that can be checked without a proxy.
func checkConnection(instance string, req *admin.XKIConnectRequest, key []byte) (*keystore.XKIConnection, *failure) {
	bad := func(format string, args ...any) (*keystore.XKIConnection, *failure) {
		return nil, failf(kms.InvalidParameter, format, args...)
	}
	conn := &keystore.XKIConnection{Instance: instance, Endpoint: req.Endpoint, Region: req.Region, AccessKeyID: req.AccessKeyID, Roots: req.Roots, Pins: req.Pins,
		Certificate: req.Certificate, Names: req.Names, Budget: time.Duration(req.Budget * float64(time.Millisecond))}
	for name, d := range xki.Dialects {
		if prefix, ok := strings.CutSuffix(req.Path, d.Base()); ok {
			conn.Dialect, conn.Path = name, prefix
		}
	}
	if conn.Dialect == "" {
		return bad("the path %.200q must end with %s or %s", req.Path, xki.XKSv1.Base(), xki.XKIv1.Base())
	}
	if err := xki.CheckPath(conn.Path); err != nil {
		return bad("%s", xki.AsError(err).Detail)
	}
	if _, err := xki.Dialects[conn.Dialect].With(conn.Names); err != nil {
		return bad("%s", xki.AsError(err).Detail)
	}
	for what, v := range map[string]string{"access_key_id": req.AccessKeyID, "region": req.Region} {
		if v == "" || len(v) > 128 || strings.ContainsFunc(v, func(c rune) bool { return c <= ' ' || c >= 0x7f || strings.ContainsRune(`/,="\`, c) }) {
			return bad("%s: %.140q has 1 to 128 letters, digits and punctuation, but none of / , = and quotes", what, v)
		}
	}
	if conn.Budget != 0 && (conn.Budget < minBudget || conn.Budget > maxBudget) {
		return bad("a budget of %v; it is %v to %v", conn.Budget, minBudget, maxBudget)
	}
	var cert *tls.Certificate
	if req.Certificate != "" {
		pair, err := tls.X509KeyPair([]byte(req.Certificate), key)
		if err != nil {
			return bad("the certificate and its key: %v", err)
		}
		cert = &pair
	} else if len(bytes.TrimSpace(key)) > 0 {
		return bad("there is a private key without its certificate")
	}
	config, err := xki.ClientTLS([]byte(req.Roots), req.Pins, cert)
	if err != nil {
		return bad("%v", err)
	}
	if _, err := xki.NewClient(xki.ClientConfig{Endpoint: req.Endpoint, Dialect: xki.Dialects[conn.Dialect], TLS: config}); err != nil {
		return bad("%s", xki.AsError(err).Detail)
	}
	return conn, nil
}

func (s *server) disconnectXKI(r *http.Request) (any, *failure) {
	x, actor := s.outside(r)
	if err := x.Disconnect(r.Context(), actor, r.PathValue("instance")); err != nil {
		return nil, serviceFailure(err)
	}
	return struct{}{}, s.inForce()
}

// settle asks a proxy for its health, so that whoever has just set a connection hears how it is.
func (e *externalKeys) settle(ctx context.Context, instance string) {
	e.mu.Lock()
	k := e.kept[instance]
	e.mu.Unlock()
	if k != nil {
		k.try(ctx)
	}
}

// problems are what is wrong with connections.
func (e *externalKeys) problems() (all []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	all = append(all, e.unserved...)
	for instance, why := range e.failed {
		all = append(all, fmt.Sprintf("instance %s: its connection can't be used: %s; set another: keywardctl xki connect %s", instance, why, instance))
	}
	for instance, k := range e.kept {
		if st := k.external.Status(); !st.Connected && !st.Probed.IsZero() {
			all = append(all, fmt.Sprintf("instance %s is Disconnected, so its keys can't be used: %s", instance, st.Trouble))
		}
	}
	slices.Sort(all)
	return all
}
