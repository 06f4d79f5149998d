package daemon

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/xki"
)

// externalKeys is what the daemon does about external keys, both ways: the proxy, behind the listeners that serve it, and the connections of
// external instances.
type externalKeys struct {
	svc    *kms.Service
	log    zerolog.Logger
	proxy  *xki.Proxy
	health *hsmHealth

	refreshing sync.Mutex // over refresh

	mu       sync.Mutex // guards what follows, which only refresh changes; held for moments
	kept     map[string]*keptConnection
	failed   map[string]string // why a connection can't be used as it is stored, by instance
	unserved []string          // what of the store can't be used, for people

	ctx   context.Context // of what keeps connections
	end   context.CancelFunc
	tasks sync.WaitGroup
}

// keptConnection is a connection that is in use.
type keptConnection struct {
	record   *keystore.XKIConnection
	external *xki.External
	client   *xki.Client
	end      context.CancelFunc
}

// How often a proxy is asked for its health (reference xki-proxy.md §2.14).
const (
	probeEvery     = time.Minute
	probeLostEvery = 5 * time.Second // of an instance that is Disconnected, whose calls wait for it
)

func newExternalKeys(svc *kms.Service, pool *hsmpool.Pool, log zerolog.Logger) *externalKeys {
	e := &externalKeys{svc: svc, log: log, health: &hsmHealth{pool: pool, log: log}, kept: map[string]*keptConnection{}, failed: map[string]string{}}
	e.proxy = xki.New(xki.Config{Service: svc, Log: log, Health: e.health.answer, Version: Version()})
	e.ctx, e.end = context.WithCancel(context.Background())
	return e
}

// close ends what keeps connections. Calls must have ended.
func (e *externalKeys) close() {
	e.end()
	e.tasks.Wait()
	for _, k := range e.kept {
		k.client.Close()
	}
}

// refresh takes over what the store has now: prefixes from the next request on, and connections, of which those that did not change stay. What can't be used of one
// does not keep the others from being used; problems tells of it. With an error all is as it was.
func (e *externalKeys) refresh(ctx context.Context) error {
	e.refreshing.Lock()
	defer e.refreshing.Unlock()
	var unserved []string
	leave := func(what string, err error) {
		unserved = append(unserved, fmt.Sprintf("%s can't be used: %v", what, err))
		e.log.Error().Err(err).Msg(what + " can't be used")
	}
	prefixes, secrets, err := e.svc.OpenXKIPrefixes(ctx)
	switch {
	case err != nil && !errors.Is(err, keystore.ErrDamaged):
		return fmt.Errorf("the prefixes of external keys: %w", err)
	case err != nil:
		leave("a prefix of external keys", err)
	}
	records, err := e.svc.XKIConnections(ctx)
	switch {
	case err != nil && !errors.Is(err, keystore.ErrDamaged):
		return fmt.Errorf("the connections of external instances: %w", err)
	case err != nil:
		leave("a connection of an external instance", err)
	}
	var stores []xki.Store
	for _, p := range prefixes {
		s, err := wireStore(p, secrets)
		if err != nil {
			leave("the prefix "+p.Name, err)
			continue
		}
		e.warnOf(s.Dialect, "prefix", p.Name)
		stores = append(stores, s)
	}
	e.proxy.SetStores(stores)
	e.connect(ctx, records, unserved)
	return nil
}

// warnOf logs that a dialect is not published.
func (e *externalKeys) warnOf(d *xki.Dialect, kind, name string) {
	if d.Experimental() {
		e.log.Warn().Str(kind, name).Str("dialect", d.Name()).Msg("this dialect is experimental: nobody published it, and its names are our assumption")
	}
}

// wireStore words a prefix for the proxy.
func wireStore(p *keystore.XKIPrefix, secrets map[string][]byte) (xki.Store, error) {
	s := xki.Store{Name: p.Name, Prefix: p.Path, Dialect: xki.Dialects[p.Dialect], Region: p.Region, Keys: p.Keys, PerSecond: p.PerSecond,
		Actor: &kms.Actor{Principal: p.Principal, Account: p.Account, Door: kms.DoorXKI}}
	if s.Dialect == nil {
		return s, fmt.Errorf("this version knows no dialect %q", p.Dialect)
	}
	for _, k := range p.Credentials {
		s.Credentials = append(s.Credentials, xki.Credential{ID: k.ID, Secret: secrets[k.ID]})
	}
	for i := range p.Rules {
		rule, err := wireRule(&p.Rules[i])
		if err != nil {
			return s, err
		}
		s.Rules = append(s.Rules, rule)
	}
	return s, nil
}

func wireRule(r *keystore.XKIRule) (xki.Rule, error) {
	rule := xki.Rule{Name: r.Name, Keys: r.Keys, Unless: r.Unless}
	for _, name := range r.Operations {
		op, err := xki.OperationNamed(name)
		if err != nil {
			return rule, err
		}
		rule.Operations = append(rule.Operations, op)
	}
	return rule, rule.Check()
}

// connect uses the connections of the records and no others. Caller holds refreshing.
func (e *externalKeys) connect(ctx context.Context, records []*keystore.XKIConnection, unserved []string) {
	next, external, failed := map[string]*keptConnection{}, map[string]kms.ExternalKeys{}, map[string]string{}
	for _, r := range records {
		k := e.kept[r.Instance]
		if k == nil || !reflect.DeepEqual(k.record, r) {
			client, err := e.newClient(r)
			if err != nil {
				failed[r.Instance] = err.Error()
				e.log.Error().Err(err).Str("instance", r.Instance).Msg("the connection of an external instance can't be used as it is: keywardctl xki connect sets another")
				continue
			}
			e.warnOf(xki.Dialects[r.Dialect], "instance", r.Instance)
			k = &keptConnection{record: r, client: client, external: &xki.External{Connection: xki.NewConnection(client), Instance: r.Instance}}
			if e.kept[r.Instance] != nil { // calls go on over that one until it is known how the new one is
				trying, end := context.WithTimeout(ctx, tryWithin)
				k.try(trying)
				end()
			}
			e.keep(k)
		}
		next[r.Instance], external[r.Instance] = k, k.external
	}
	was := e.kept
	e.mu.Lock()
	e.kept, e.failed, e.unserved = next, failed, unserved
	e.mu.Unlock()
	e.svc.SetExternal(external)
	for instance, k := range was {
		if next[instance] != k {
			k.end()
			k.client.Close()
		}
	}
}

// tryWithin bounds how long a takeover waits for a proxy.
const tryWithin = 5 * time.Second

// try asks the proxy for its health if nobody has yet. What is wrong is in the status then.
func (k *keptConnection) try(ctx context.Context) {
	if k.external.Status().Probed.IsZero() {
		_ = k.external.Probe(ctx)
	}
}

// keep probes a connection until it is ended.
func (e *externalKeys) keep(k *keptConnection) {
	ctx, end := context.WithCancel(e.ctx)
	k.end = end
	e.tasks.Go(func() {
		defer end()
		k.external.Keep(ctx, probeEvery, probeLostEvery, func(connected bool, err error) {
			if connected {
				e.log.Info().Str("instance", k.record.Instance).Str("endpoint", k.record.Endpoint).Msg("an external instance is connected")
				return
			}
			e.log.Warn().Err(err).Str("instance", k.record.Instance).Str("endpoint", k.record.Endpoint).Msg("an external instance is disconnected: its keys can't be used")
		})
	})
}

func (e *externalKeys) newClient(r *keystore.XKIConnection) (*xki.Client, error) {
	d := xki.Dialects[r.Dialect]
	if d == nil {
		return nil, fmt.Errorf("this version knows no dialect %q", r.Dialect)
	}
	d, err := d.With(r.Names)
	if err != nil {
		return nil, err
	}
	cert, err := e.clientCertificate(r)
	if err != nil {
		return nil, err
	}
	config, err := xki.ClientTLS([]byte(r.Roots), r.Pins, cert)
	if err != nil {
		return nil, err
	}
	return xki.NewClient(xki.ClientConfig{
		Endpoint: r.Endpoint, Prefix: r.Path, Dialect: d, AccessKeyID: r.AccessKeyID, Region: r.Region, InstanceID: r.Instance, TLS: config, Budget: r.Budget,
		UserAgent: "keyward/" + Version(),
		Secret: func() ([]byte, error) {
			secret, key, err := e.svc.OpenXKIConnection(r)
			clear(key)
			return secret, err
		},
	})
}

// clientCertificate gives the certificate that a connection shows, nil if it shows none.
func (e *externalKeys) clientCertificate(r *keystore.XKIConnection) (*tls.Certificate, error) {
	if r.Certificate == "" {
		return nil, nil
	}
	secret, key, err := e.svc.OpenXKIConnection(r)
	clear(secret)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	cert, err := tls.X509KeyPair([]byte(r.Certificate), key)
	if err != nil {
		return nil, fmt.Errorf("the client's certificate and its key: %w", err)
	}
	return &cert, nil
}

// connection tells of the connection of an instance: how it is, and why it can't be used as it is stored.
func (e *externalKeys) connection(instance string) (status xki.ConnectionStatus, failed string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if k := e.kept[instance]; k != nil {
		status = k.external.Status()
	}
	return status, e.failed[instance]
}

// connectionCounts is what metrics tell of a connection.
type connectionCounts struct {
	instance  string
	connected bool
	calls     []xki.Count
}

// observe gives all connections.
func (e *externalKeys) observe() (all []connectionCounts) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for instance, k := range e.kept {
		all = append(all, connectionCounts{instance, k.external.Connected(), k.client.Counts()})
	}
	return all
}

// hsmHealth knows how the HSMs are: it has each member encrypt and decrypt now and then, with a key that is for that alone and is nowhere kept (reference
// xki-proxy.md §2.8).
type hsmHealth struct {
	pool *hsmpool.Pool
	log  zerolog.Logger
	last atomic.Pointer[healthLook]
	key  *hsmpool.Key // made by the first look; only look uses it
}

// healthLook is what a look found.
type healthLook struct {
	at    time.Time
	fleet []xki.Member
}

const (
	healthEvery  = 20 * time.Second
	healthWithin = 5 * time.Second // of one look
	healthOld    = time.Minute     // from when on what was found counts no more
	maxFleet     = 10              // of members in an answer (§2.8)
)

// watch looks until ctx ends.
func (h *hsmHealth) watch(ctx context.Context) {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for {
		h.look(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// look exercises all members.
func (h *hsmHealth) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, healthWithin)
	defer cancel()
	if h.key == nil {
		made, err := h.pool.Generate(ctx, hsmpool.AES256, hsmpool.UseEncrypt)
		if err != nil {
			h.log.Warn().Err(err).Msg("no HSM makes a key to test them with")
		} else {
			h.key = &hsmpool.Key{ID: "xki-health", Type: hsmpool.AES256, Usage: hsmpool.UseEncrypt, Wrapped: made.Wrapped}
		}
	}
	all := h.pool.Status()
	found := &healthLook{fleet: make([]xki.Member, len(all))}
	var wait sync.WaitGroup
	for i := range all {
		m := &all[i]
		found.fleet[i] = xki.Member{ID: m.Name, Model: filepath.Base(m.Module), Status: xki.Unavailable}
		if h.key == nil || !serves(m.State) {
			continue
		}
		wait.Go(func() {
			switch err := h.pool.Exercise(ctx, m.Name, h.key); {
			case err != nil:
				h.log.Warn().Err(err).Str("member", m.Name).Msg("an HSM member fails the test of the health check")
			case m.State == hsmpool.StateHalfOpen:
				found.fleet[i].Status = xki.Degraded
			default:
				found.fleet[i].Status = xki.Active
			}
		})
	}
	wait.Wait()
	found.at = time.Now()
	h.last.Store(found)
}

// rank orders by how well a member is.
func rank(status string) int {
	return slices.Index([]string{xki.Active, xki.Degraded, xki.Unavailable}, status)
}

// answer is xki.Config.Health.
func (h *hsmHealth) answer() xki.Health {
	out := xki.Health{Vendor: "keyward", Model: "keyward " + Version(), Manager: "PKCS #11"}
	last := h.last.Load()
	up, down := 0, 0
	if last != nil {
		for _, m := range last.fleet {
			if time.Since(last.at) > healthOld {
				m.Status = xki.Unavailable
			}
			if m.Status == xki.Unavailable {
				down++
			} else {
				up++
			}
			out.Fleet = append(out.Fleet, m)
		}
	}
	if len(out.Fleet) > maxFleet { // an answer must not look worse than it is because of those that it leaves out
		slices.SortStableFunc(out.Fleet, func(a, b xki.Member) int { return cmp.Compare(rank(a.Status), rank(b.Status)) })
		out.Fleet = out.Fleet[:maxFleet]
	}
	if len(out.Fleet) == 0 {
		out.Fleet = []xki.Member{{ID: "none", Model: "none", Status: xki.Unavailable}}
	}
	switch {
	case up == 0:
		out.Status, out.Message = xki.Unavailable, "no HSM does its work"
	case down > 0:
		out.Status, out.Message = xki.Degraded, fmt.Sprintf("%d of %d HSMs do their work", up, up+down)
	default:
		out.Status, out.Message = xki.Active, "OK"
	}
	return out
}
