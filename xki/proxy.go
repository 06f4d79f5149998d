package xki

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/xki/xkisign"
)

// Proxy serves keys of a kms.Service to other key management services: an http.Handler for all listeners and prefixes.
type Proxy struct {
	service *kms.Service
	log     zerolog.Logger
	version string
	health  func() Health // not older than a minute
	now     func() time.Time
	dummy   []byte // the secret of access keys that do not exist

	deadline time.Duration // of a request: ProxyDeadline but in tests

	stores  atomic.Pointer[map[string]*store] // by prefix and base
	nowhere tally                             // of requests to no store
}

// store is a logical key store that is being served: a prefix of a dialect, with what may be done behind it. It does not change.
type store struct {
	Store
	// They are shared with the store at the same path before a change.
	limit  *limiter
	tally  *tally
	nonces *nonces
}

// Store describes a logical key store (§7, 2).
type Store struct {
	Name        string
	Prefix      string // of paths: empty, or /x
	Dialect     *Dialect
	Region      string // that signatures must be for; empty: any
	Credentials []Credential
	Keys        map[string]string // External Key IDs and the keys of the KMS that they name
	PerSecond   int               // requests; 0 is no limit
	Rules       []Rule
	Actor       *kms.Actor
}

// Config is what a Proxy is made of.
type Config struct {
	Service *kms.Service
	Log     zerolog.Logger
	Health  func() Health    // how the HSMs are; called for each question, so it must not wait, and tell nothing older than a minute (§2.8)
	Now     func() time.Time // time.Now if nil
	Version string           // of this build, for those who ask
}

// maxNonces is how many nonces of a store are remembered: those of 2,300 requests a second.
const maxNonces = 4 << 20

// New makes a Proxy that serves nothing until SetStores.
func New(c Config) *Proxy {
	p := &Proxy{service: c.Service, log: c.Log, version: c.Version, health: c.Health, now: c.Now, dummy: []byte(rand.Text()), deadline: ProxyDeadline}
	if p.now == nil {
		p.now = time.Now
	}
	p.stores.Store(&map[string]*store{})
	return p
}

// SetStores serves these stores from the next request on, in place of those before. Requests that are being answered go on with what they began with. Of two with the
// same prefix and base the later one counts; whoever calls has seen that there are none. A store keeps its quota over a change.
func (p *Proxy) SetStores(all []Store) {
	next, old := make(map[string]*store, len(all)), *p.stores.Load()
	for _, s := range all {
		path := s.Prefix + s.Dialect.base
		own := &store{Store: s, limit: newLimiter(s.PerSecond), tally: &tally{}, nonces: newNonces(2*xkisign.ACS4.Skew(), maxNonces)}
		if was := old[path]; was != nil && was.Name == s.Name {
			own.tally, own.nonces = was.tally, was.nonces
			if was.PerSecond == s.PerSecond {
				own.limit = was.limit
			}
		}
		next[path] = own
	}
	p.stores.Store(&next)
}

// Counts gives how many requests there were of each prefix, by its name, since the daemon began or the prefix was made; under the empty name are those to none.
func (p *Proxy) Counts() map[string][]Count {
	all := map[string][]Count{"": p.nowhere.counts()}
	for _, s := range *p.stores.Load() {
		all[s.Name] = s.tally.counts()
	}
	return all
}

// Credential is an access key of the proxy. A store should have two or more, so that they can be exchanged one after the other.
type Credential struct {
	ID     string
	Secret []byte
}

// ServeHTTP answers a request.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := p.now()
	path := r.URL.EscapedPath()
	if path == PingPath {
		Ping(w, r)
		return
	}
	x := &exchange{proxy: p, w: w, r: r, began: began, id: requestID()}
	defer x.recover()
	x.answer(x.serve(path))
}

// PingPath is what load balancers ask (§2.8): unsigned, and answered as long as the daemon serves.
const PingPath = "/ping"

// Ping answers at PingPath.
func Ping(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "pong\n") // a client that is gone needs none
}

// exchange is one request.
type exchange struct {
	proxy   *Proxy
	w       http.ResponseWriter
	r       *http.Request
	began   time.Time
	actor   *kms.Actor // the store's, with what is known of this request
	id      string     // of the request, for xki-v1 and the audit
	dialect *Dialect
	store   *store
	op      Operation
	keyID   string // External Key ID
	text    []byte // the body, once it is read
	request *Request
	claim   string // the access key that the request says it is signed with, believed or not
}

// serve does the checks in the order of §2.9, and the operation.
func (x *exchange) serve(path string) (*Answer, error) {
	if err := x.route(path); err != nil {
		return nil, err
	}
	if x.r.Method != http.MethodPost {
		return nil, Errorf(MethodNotAllowed, "only POST is answered here")
	}
	body, err := x.body()
	if err != nil {
		return nil, err
	}
	x.text = body
	if err := x.authenticate(body); err != nil {
		return nil, err
	}
	// Health is not counted: whoever throttles it is thought to be down.
	if x.op != OpHealth && !x.store.limit.take(x.proxy.now()) {
		return nil, Errorf(Throttling, "more than %d requests a second", x.store.PerSecond)
	}
	request, tooLarge := x.dialect.DecodeRequest(x.op, x.keyID, body)
	if tooLarge != nil && AsError(tooLarge).Code != Unsupported {
		return nil, tooLarge
	}
	x.request = request
	defer clear(x.request.Plaintext)
	if x.op == OpHealth {
		return &Answer{Health: x.proxy.health()}, nil
	}
	key := ""
	if x.op.ofKey() {
		if key = x.store.Keys[x.keyID]; key == "" {
			return nil, Errorf(KeyNotFound, "there is no key %s here", x.keyID)
		}
	}
	if rule := denying(x.store.Rules, x.request); rule != "" {
		return nil, Errorf(AccessDenied, "the rule %s denies it", rule)
	}
	ctx, cancel := context.WithTimeout(kms.WithRequestID(x.r.Context(), x.id), x.proxy.deadline-x.proxy.now().Sub(x.began))
	defer cancel()
	answer, err := x.operate(ctx, key, tooLarge)
	// What is wrong with the request matters only of a key that can be used.
	if code := AsError(err).Code; err != nil && x.op.ofKey() && (code == Unsupported || code == InvalidCiphertext) {
		if state := x.proxy.usable(ctx, x.actor, key); state != nil {
			return nil, state
		}
	}
	return answer, err
}

func (x *exchange) operate(ctx context.Context, key string, tooLarge error) (*Answer, error) {
	switch {
	case tooLarge != nil:
		return nil, tooLarge
	case x.op == OpMetadata:
		return x.proxy.metadata(ctx, x.actor, key)
	case x.op == OpEncrypt:
		return x.proxy.encrypt(ctx, x.actor, key, x.request)
	case x.op == OpDecrypt:
		return x.proxy.decrypt(ctx, x.actor, key, x.request)
	}
	return random(x.request)
}

// route finds store and operation. Which dialect a path that is none is answered in, its base says.
func (x *exchange) route(path string) error {
	x.dialect = XKSv1
	for _, d := range Dialects {
		prefix, rest, found := strings.Cut(path, d.base)
		if !found {
			continue
		}
		x.dialect = d
		s := (*x.proxy.stores.Load())[prefix+d.base]
		if s == nil {
			return Errorf(InvalidURIPath, "there is no key store at this path")
		}
		x.dialect, x.store = s.Dialect, s
		var ok bool
		if x.op, x.keyID, ok = s.Dialect.Route(rest); !ok {
			return Errorf(InvalidURIPath, "there is no such operation")
		}
		return nil
	}
	return Errorf(InvalidURIPath, "there is nothing at this path")
}

// body reads the body once; what was signed and what is decoded are the same octets.
func (x *exchange) body() ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(x.w, x.r.Body, maxBody))
	if err == nil {
		return body, nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, Errorf(Unsupported, "the request has more than %d octets", maxBody)
	}
	return nil, &Error{Code: Validation, Detail: "the request was cut off", Err: err}
}

// authenticate says whether the request is signed with a credential of the store. What is wrong with a signature that could be one is not told.
func (x *exchange) authenticate(body []byte) error {
	now := x.proxy.now()
	var scheme *xkisign.Scheme
	for _, s := range x.dialect.schemes {
		if scheme == nil || strings.HasPrefix(x.r.Header.Get("Authorization"), s.String()+" ") {
			scheme = s
		}
	}
	claim, err := scheme.Read(x.r, now)
	if err != nil {
		return &Error{Code: AuthenticationFailed, Detail: err.Error(), Err: err}
	}
	x.claim = claim.AccessKeyID
	secret, known := x.proxy.dummy, false
	for i := range x.store.Credentials {
		if x.store.Credentials[i].ID == claim.AccessKeyID {
			secret, known = x.store.Credentials[i].Secret, true
		}
	}
	if right := claim.Verify(x.r, body, secret); !right || !known || x.store.Region != "" && x.store.Region != claim.Region {
		return Errorf(AuthenticationFailed, "the signature is not one of a credential of this key store")
	}
	if claim.Nonce != "" {
		if err := x.store.nonces.use(claim.AccessKeyID, claim.Nonce, now); err != nil {
			return err
		}
	}
	actor := *x.store.Actor
	actor.RemoteAddr, actor.AccessKeyID = x.r.RemoteAddr, claim.AccessKeyID
	if from, err := netip.ParseAddrPort(x.r.RemoteAddr); err == nil {
		actor.SourceIP = from.Addr().Unmap()
	}
	x.actor = &actor
	return nil
}

// answer writes what came of the request, and logs it.
func (x *exchange) answer(a *Answer, err error) {
	status, body := http.StatusOK, []byte(nil)
	if err == nil {
		a.RequestID = x.id
		body, err = x.dialect.EncodeAnswer(x.op, a)
		clear(a.Plaintext)
	}
	var failure *Error
	if err != nil {
		failure = AsError(err)
		status, body = x.dialect.EncodeError(failure, x.id)
	}
	count := &x.proxy.nowhere
	if x.store != nil {
		count = x.store.tally
	}
	count.add(x.op, err)
	h := x.headers()
	if status == http.StatusMethodNotAllowed {
		h.Set("Allow", http.MethodPost)
	}
	x.w.WriteHeader(status)
	_, _ = x.w.Write(body) // a client that is gone needs none
	clear(body)
	x.logged(status, failure)
}

// headers sets those of every answer. The request ID is an echo of what the request says, believed or not.
func (x *exchange) headers() http.Header {
	h := x.w.Header()
	h.Set("Content-Type", x.dialect.contentType)
	if x.dialect.experimental {
		h.Set(headerSpecification, xkiSpecification)
		h.Set(headerServer, "keyward/"+x.proxy.version)
		h.Set(headerKMSRequestID, printableHeader(x.metadata().RequestID))
	}
	return h
}

// metadata is what the request says of itself, as far as it can be read.
func (x *exchange) metadata() *RequestMetadata {
	r := x.request
	if r == nil && x.text != nil {
		r, _ = x.dialect.DecodeRequest(x.op, x.keyID, x.text)
		clear(r.Plaintext)
	}
	if r == nil {
		return &RequestMetadata{}
	}
	return &r.Metadata
}

func (x *exchange) logged(status int, failure *Error) {
	line := x.proxy.log.Info()
	if status >= http.StatusInternalServerError {
		line = x.proxy.log.Error()
	}
	line.Str("request", x.id).Int("status", status).Dur("ms", x.proxy.now().Sub(x.began)).Str("remote", x.r.RemoteAddr)
	optional := func(name, value string) {
		if value != "" {
			line.Str(name, value)
		}
	}
	optional("access_key", printableHeader(x.claim)) // a stranger's is no more than what he says
	if x.store != nil {
		line.Str("prefix", x.store.Name).Stringer("operation", x.op).Str("external_key", x.keyID)
	}
	if x.request != nil { // from here on it is signed
		for i := range x.dialect.metadata {
			f := &x.dialect.metadata[i]
			optional(f.name, *f.value(&x.request.Metadata))
		}
	}
	if failure != nil {
		line.Str("error", cmp.Or(x.dialect.failures[failure.Code].name, failure.Code.String())).Str("detail", failure.message()).AnErr("cause", failure.Err)
	}
	line.Msg("external key proxy")
}

func (x *exchange) recover() {
	if v := recover(); v != nil {
		x.proxy.log.Error().Interface("panic", v).Str("request", x.id).Msg("a request of the external key proxy panicked")
		status, body := x.dialect.EncodeError(Errorf(Internal, "a fault inside keyward"), x.id)
		x.headers()
		x.w.WriteHeader(status)
		_, _ = x.w.Write(body)
	}
}

// printableHeader makes a header's value of what a caller said.
func printableHeader(s string) string {
	return (&Error{Detail: s[:min(len(s), 256)]}).message()
}

func requestID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func (p *Proxy) metadata(ctx context.Context, actor *kms.Actor, key string) (*Answer, error) {
	k, err := p.service.ProxiedKey(ctx, actor, key)
	if err != nil {
		return nil, fromKMS(err)
	}
	m := KeyMetadata{Spec: string(k.Spec), Status: StatusDisabled}
	if k.Spec == kmswire.AES256 {
		m.Spec = SpecAES256
	}
	m.Usage = []string{"SIGN", "VERIFY"}
	if k.Usage == kmswire.EncryptDecrypt {
		m.Usage = []string{UsageEncrypt, UsageDecrypt}
	}
	if k.State == kmswire.Enabled {
		m.Status = StatusEnabled
	}
	return &Answer{Key: m}, nil
}

// usable says InvalidState of a key that is not enabled.
func (p *Proxy) usable(ctx context.Context, actor *kms.Actor, key string) error {
	k, err := p.service.ProxiedKey(ctx, actor, key)
	switch {
	case err != nil:
		return fromKMS(err)
	case k.State != kmswire.Enabled:
		return &Error{Code: InvalidState, Detail: told[InvalidState], Disabled: k.State == kmswire.Disabled, Pending: k.State == kmswire.PendingDeletion}
	}
	return nil
}

// told is what others hear of an error of the service, whose own words have keyward's names of keys in them. They are in the log.
var told = map[Code]string{
	KeyNotFound: "there is no such key", AccessDenied: "the key's policy denies it", InvalidState: "the key is not enabled", InvalidKeyUsage: "the key is not for that",
	InvalidCiphertext: "it was not made with this key, or was changed", Throttling: "there is too much to do", Validation: "the service refuses it",
}

// metadataScheme is how keyward writes the metadata of a ciphertext: this octet, and the version's ordinal (§2.6).
const metadataScheme = 1

func versionMetadata(ordinal uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{metadataScheme}, ordinal)
}

func (p *Proxy) encrypt(ctx context.Context, actor *kms.Actor, key string, r *Request) (*Answer, error) {
	ordinal, sealed, err := p.service.ProxiedSeal(ctx, actor, key, r.Plaintext, func(ordinal uint32) []byte {
		return framedAAD(r.AAD, versionMetadata(ordinal))
	})
	if err != nil {
		return nil, fromKMS(err)
	}
	iv, text, tag := sealed[:12], sealed[12:len(sealed)-TagSize], sealed[len(sealed)-TagSize:]
	a := &Answer{Sealed: Sealed{Ciphertext: text, IV: iv, Tag: tag, Metadata: versionMetadata(ordinal)}}
	if r.IntegrityAlgorithm == "" {
		return a, nil
	}
	// The order is the contract (§2.7): the value first, then a decryption of the very values that are answered.
	a.Integrity = a.Sealed.integrity(r.AAD)
	again, err := p.service.ProxiedOpen(ctx, actor, key, ordinal, iv, sealed[12:], framedAAD(r.AAD, a.Sealed.Metadata))
	if err != nil {
		if AsError(fromKMS(err)).Code == InvalidCiphertext {
			return nil, &Error{Code: Internal, Detail: "the ciphertext did not decrypt", Err: err}
		}
		return nil, fromKMS(err)
	}
	defer clear(again)
	if !bytes.Equal(again, r.Plaintext) {
		return nil, Errorf(Internal, "the ciphertext decrypts to something else")
	}
	return a, nil
}

func (p *Proxy) decrypt(ctx context.Context, actor *kms.Actor, key string, r *Request) (*Answer, error) {
	s := &r.Sealed
	if err := s.check(); err != nil {
		return nil, err
	}
	if len(s.Metadata) != 5 || s.Metadata[0] != metadataScheme || len(s.IV) != 12 {
		return nil, Errorf(InvalidCiphertext, "it was not made here")
	}
	sealed := append(append(make([]byte, 0, len(s.Ciphertext)+TagSize), s.Ciphertext...), s.Tag...)
	plaintext, err := p.service.ProxiedOpen(ctx, actor, key, binary.BigEndian.Uint32(s.Metadata[1:]), s.IV, sealed, framedAAD(r.AAD, s.Metadata))
	if err != nil {
		return nil, fromKMS(err)
	}
	return &Answer{Plaintext: plaintext}, nil
}

// fromKMS gives an error of the service as one of a proxy.
func fromKMS(err error) error {
	e := kms.AsError(err)
	out := &Error{Code: kmsCodes[e.Code], Err: e, Disabled: e.Code == kms.KeyDisabled, Pending: e.Code == kms.KeyPendingDeletion}
	switch {
	case e.Code == kms.InvalidParameter && e.Param == "CiphertextBlob":
		out.Code = InvalidCiphertext
	case e.Code == kms.HSMUnavailable && errors.Is(err, context.DeadlineExceeded): // our deadline's: the HSM may still be at it
		out.Code, out.Detail = DependencyTimeout, "the HSM did not answer in time"
	}
	if out.Detail == "" {
		out.Detail = told[out.Code]
	}
	return out
}

// kmsCodes is what codes of the service are to those who use a proxy. It has each of them; a test says so.
var kmsCodes = map[kms.Code]Code{
	kms.Internal: Internal, kms.MissingParameter: Validation, kms.InvalidParameter: Validation, kms.KeyNotFound: KeyNotFound, kms.VersionNotFound: InvalidCiphertext,
	kms.AliasNotFound: KeyNotFound, kms.ResourceNotFound: KeyNotFound, kms.Denied: AccessDenied, kms.KeyDisabled: InvalidState, kms.KeyPendingDeletion: InvalidState,
	kms.KeyPendingImport: InvalidState, kms.KeyUnavailable: InvalidState, kms.StateNotAllowed: InvalidState, kms.KeyProtected: InvalidState,
	kms.LimitExceeded: Throttling, kms.AliasExists: Internal, kms.UnsupportedAlias: Internal, kms.UnsupportedOrigin: InvalidKeyUsage,
	kms.UnsupportedProtection: InvalidKeyUsage, kms.UnsupportedOperation: InvalidKeyUsage, kms.InvalidKeyMaterial: Internal, kms.InvalidImportToken: Internal,
	kms.ExpiredImportToken: Internal, kms.OperationRejected: InvalidKeyUsage, kms.Throttled: Throttling, kms.HSMUnavailable: Internal,
	kms.StoreUnavailable: Internal, kms.AuditUnavailable: Internal, kms.Canceled: DependencyTimeout, kms.DryRunSucceeded: Internal, kms.DryRunInvalid: Internal,
	kms.DryRunDenied: Internal,
}
