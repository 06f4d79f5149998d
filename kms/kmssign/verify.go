package kmssign

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// MaxSkew is how far the time of a request may be from the verifier's, either way.
const MaxSkew = 15 * time.Minute

// Limits of what is compared, in octets.
const (
	maxAccessKeyID   = 128
	maxAuthorization = 4096
)

// ErrUnknownKey is what a Lookup gives for an access key that does not exist.
var ErrUnknownKey = errors.New("kmssign: there is no such access key")

// Secret is what a Lookup knows of an access key. The Verifier owns Key and wipes it.
type Secret struct {
	Key     []byte
	Enabled bool
}

// Lookup gives the secret of an access key, ErrUnknownKey, or why it can't tell, which Verify passes on. It is asked for
// any ID that a caller makes up, of at most 128 octets.
type Lookup func(ctx context.Context, accessKeyID string) (Secret, error)

// Options are the settings of a Verifier. The zero value works.
type Options struct {
	Now func() time.Time // time.Now if nil; needs its monotonic reading, so that a clock that is set does not forget nonces

	// MaxNonces is how many nonces are remembered, about; 4 million if 0, which take some 150 MiB. A nonce is kept 30 to
	// 45 minutes, so this bounds the signed requests of that time. Beyond it requests are refused, not forgotten. One
	// access key gets half of it at most, and always some thousands, whatever the others use.
	MaxNonces int
}

// Verifier verifies requests. There must be one only for all places where an access key is taken, as it is what knows
// the nonces. It may be used by many goroutines.
type Verifier struct {
	now    func() time.Time
	nonces *nonces
	dummy  []byte // the secret of access keys that do not exist
}

// NewVerifier makes a Verifier. It knows of no nonce from before, so a request that was signed before this moment is
// refused: it could be one that was taken then.
func NewVerifier(opts Options) *Verifier {
	v := &Verifier{now: opts.Now, dummy: []byte(rand.Text())}
	if v.now == nil {
		v.now = time.Now
	}
	v.nonces = newNonces(v.now(), cmp.Or(opts.MaxNonces, 4<<20))
	return v
}

// Verified is what a request's signature vouches for.
type Verified struct {
	Scheme      Scheme
	AccessKeyID string

	bodyHash string // of the header schemes
}

// CheckBody says whether body is the one that was signed, for the header schemes. Until it has said so, nothing of the
// body may be believed. The RPC scheme covers a form by its parameters, and no other body: then only an empty one is right.
func (v *Verified) CheckBody(body []byte) error {
	if v.Scheme == RPC {
		if len(body) > 0 {
			return refuse(IncompleteSignature, "This signature does not cover a body that is no form. Use %s.", acs3Name)
		}
		return nil
	}
	// Not a secret, so it need not take the same time always.
	if bodySum(body) != v.bodyHash {
		return refuse(IncompleteSignature, "The body is not the one whose SHA-256 is in the header x-acs-content-sha256.")
	}
	return nil
}

// Verify verifies the head of a request. params are its parameters: those of the query, and for the RPC scheme also those of
// a form in its body. The error is an *Error, or the Lookup's own.
//
// A body is not read here, so that nobody without an access key can make the caller keep one: see Verified.CheckBody.
func (v *Verifier) Verify(ctx context.Context, r *http.Request, params url.Values, lookup Lookup) (*Verified, error) {
	if name, twice := twiceIn(params); twice {
		return nil, refuse(IncompleteSignature, "The parameter %.40q is there twice, so what was signed can't be told.", name)
	}
	var c *claim
	var err error
	switch scheme := Detect(r.Header, params); scheme {
	case RPC:
		c, err = rpcClaim(r, params)
	case ACS3, ACS4:
		c, err = headerClaim(scheme, r, params)
	default:
		if params.Has("AccessKeyId") {
			return nil, refuse(MissingSignature, "The request names an access key and is not signed.")
		}
		return nil, refuse(MissingAccessKeyID, "Requests must be signed here, and this one is not.")
	}
	if err != nil {
		return nil, err
	}
	defer clear(c.text)
	now := v.now()
	at, err := parseTime(c.time, now)
	if err != nil {
		return nil, err
	}
	if err := v.checkSignature(ctx, c, lookup); err != nil {
		return nil, err
	}
	if c.token != "" {
		return nil, refuse(TokenNotTaken, "The request has a temporary token; access keys of keyward have none. Leave it out.")
	}
	if err := v.nonces.use(c.accessKeyID, c.nonce, at, now); err != nil {
		return nil, err
	}
	return &Verified{Scheme: c.scheme, AccessKeyID: c.accessKeyID, bodyHash: c.bodyHash}, nil
}

// checkSignature compares the signature of a claim with the right one. For an access key that does not exist the same
// work is done.
func (v *Verifier) checkSignature(ctx context.Context, c *claim, lookup Lookup) error {
	secret, err := lookup(ctx, c.accessKeyID)
	unknown := errors.Is(err, ErrUnknownKey)
	if err != nil && !unknown {
		return err
	}
	defer clear(secret.Key)
	key := secret.Key
	if unknown || len(key) == 0 {
		key, unknown = v.dummy, true
	}
	right := hmac.Equal([]byte(c.sign(key)), []byte(c.signature))
	switch {
	case unknown:
		return refuse(UnknownAccessKey, "The specified access key is not found.")
	case !right:
		return mismatch(string(c.text))
	case !secret.Enabled:
		return refuse(DisabledAccessKey, "The access key is disabled.")
	}
	return nil
}

// claim is what a request says of itself.
type claim struct {
	scheme      Scheme
	accessKeyID string
	time, nonce string
	token       string
	text        []byte // the string to sign
	signature   string
	day, region string // of ACS4
	bodyHash    string // of the header schemes
}

// sign gives the right signature for a claim.
func (c *claim) sign(secret []byte) string {
	if c.scheme == RPC {
		return rpcSignature(secret, c.text)
	}
	return headerSignature(c.scheme, secret, c.day, c.region, string(c.text))
}

// check looks for what every scheme must have.
func (c *claim) check() error {
	switch {
	case c.accessKeyID == "":
		return refuse(MissingAccessKeyID, "The signature does not say of which access key it is.")
	case len(c.accessKeyID) > maxAccessKeyID:
		return refuse(UnknownAccessKey, "The specified access key is not found.")
	case c.time == "":
		return refuse(MissingTimestamp, "The request does not say when it was signed.")
	case c.nonce == "":
		return refuse(MissingSignatureNonce, "The request has no nonce. Give it one that was never used before, such as a random UUID.")
	}
	return nil
}

func rpcClaim(r *http.Request, params url.Values) (*claim, error) {
	c := &claim{scheme: RPC, accessKeyID: params.Get("AccessKeyId"), time: params.Get("Timestamp"), nonce: params.Get("SignatureNonce"),
		token: params.Get("SecurityToken"), signature: params.Get("Signature")}
	if err := c.check(); err != nil {
		return nil, err
	}
	switch {
	case c.signature == "":
		return nil, refuse(MissingSignature, "The parameter Signature is empty.")
	case params.Get("SignatureMethod") != rpcMethod || params.Get("SignatureVersion") != rpcVersion:
		return nil, refuse(IncompleteSignature, "A signature in the parameters is SignatureMethod=%s and SignatureVersion=%s. Others are in the header Authorization.", rpcMethod, rpcVersion)
	case params.Get("SignatureType") != "":
		return nil, refuse(IncompleteSignature, "SignatureType must be empty: keyward takes signatures, and no bearer tokens.")
	}
	// The headers x-acs-action and x-acs-version are not signed in this scheme, so they must not stand in for these.
	for _, n := range named {
		if params.Get(n.param) == "" {
			return nil, refuse(MissingParameter, "The parameter %q is needed but not provided.", n.param)
		}
		if err := agree(r.Header[n.header], params, n.param); err != nil {
			return nil, err
		}
	}
	c.text = rpcString(r.Method, params)
	return c, nil
}

// mustSign are the headers that a header signature must cover.
var mustSign = [...]string{"host", "x-acs-action", "x-acs-content-sha256", "x-acs-date", "x-acs-signature-nonce", "x-acs-version"}

func headerClaim(scheme Scheme, r *http.Request, query url.Values) (*claim, error) {
	list := r.Header[headerAuthorization]
	if len(list) != 1 || len(list[0]) > maxAuthorization {
		return nil, refuse(IncompleteSignature, "There must be one header Authorization, of at most %d octets.", maxAuthorization)
	}
	c := &claim{scheme: scheme}
	credential, names, err := c.parse(list[0])
	if err != nil {
		return nil, err
	}
	signed := strings.Split(names, ";")
	value := func(name string) string {
		if name == "host" {
			return r.Host
		}
		return r.Header.Get(name)
	}
	c.time, c.nonce, c.token = value("x-acs-date"), value("x-acs-signature-nonce"), value("x-acs-security-token")
	c.bodyHash = value("x-acs-content-sha256")
	if err := c.parseCredential(credential); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := checkSigned(r, signed); err != nil {
		return nil, err
	}
	if sum, err := hex.DecodeString(c.bodyHash); err != nil || len(sum) != sha256.Size || c.bodyHash != strings.ToLower(c.bodyHash) {
		return nil, refuse(IncompleteSignature, "The header x-acs-content-sha256 must be the SHA-256 of the body in lower-case hexadecimal digits.")
	}
	if id := value("x-acs-accesskey-id"); id != "" && id != c.accessKeyID {
		return nil, refuse(IncompleteSignature, "The header x-acs-accesskey-id names another access key than the signature.")
	}
	for _, n := range named {
		if value(n.header) == "" {
			return nil, refuse(IncompleteSignature, "The header %s is empty.", strings.ToLower(n.header))
		}
		if err := agree(r.Header[n.header], query, n.param); err != nil {
			return nil, err
		}
	}
	c.text = []byte(headerString(scheme, r.Method, r.URL.EscapedPath(), query, signed, value, c.bodyHash))
	return c, nil
}

// parse takes the header Authorization apart. It has one form only.
func (c *claim) parse(text string) (credential, signed string, err error) {
	algorithm, rest, _ := strings.Cut(text, " ")
	if algorithm != c.scheme.String() {
		return "", "", refuse(IncompleteSignature, "The signature's algorithm is not one that keyward has: they are %s and %s.", acs3Name, acs4Name)
	}
	parts := strings.Split(rest, ",")
	names := [...]string{"Credential=", "SignedHeaders=", "Signature="}
	if len(parts) != len(names) {
		parts = make([]string, len(names))
	}
	for i, name := range names {
		value, ok := strings.CutPrefix(parts[i], name)
		if !ok || value == "" {
			return "", "", refuse(IncompleteSignature, "The header Authorization must be: %s Credential=...,SignedHeaders=...,Signature=...", c.scheme)
		}
		parts[i] = value
	}
	c.signature = parts[2]
	return parts[0], parts[1], nil
}

// parseCredential sets access key, day and region. The day must be that of the request's time.
func (c *claim) parseCredential(text string) error {
	if c.scheme == ACS3 {
		c.accessKeyID = text
		return nil
	}
	parts := strings.Split(text, "/")
	if len(parts) != 5 || parts[2] == "" || parts[3] != acs4Product || parts[4] != acs4End {
		return refuse(IncompleteSignature, "The Credential of %s must be ACCESSKEY/YYYYMMDD/REGION/%s/%s.", acs4Name, acs4Product, acs4End)
	}
	c.accessKeyID, c.day, c.region = parts[0], parts[1], parts[2]
	if len(c.time) < 10 || strings.ReplaceAll(c.time[:10], "-", "") != c.day {
		return refuse(IncompleteSignature, "The day in the Credential is not that of the header x-acs-date.")
	}
	return nil
}

// checkSigned says whether the signature covers what it must: each name once, in order and in lower case, so that there is one
// spelling only; all that keyward reads, and nothing that is not there.
func checkSigned(r *http.Request, signed []string) error {
	for i, name := range signed {
		if name == "" || name != strings.ToLower(name) || i > 0 && signed[i-1] >= name {
			return refuse(IncompleteSignature, "SignedHeaders must be names in lower case, each once, in the order of their octets.")
		}
		if name == "host" {
			continue
		}
		if n := len(r.Header[http.CanonicalHeaderKey(name)]); n != 1 {
			return refuse(IncompleteSignature, "SignedHeaders names %.40q, which the request has %d times; it must have it once.", name, n)
		}
	}
	covered := func(name string) bool {
		_, ok := slices.BinarySearch(signed, name)
		return ok
	}
	for _, name := range mustSign {
		if !covered(name) {
			return refuse(IncompleteSignature, "The header %s must be signed, and is not among SignedHeaders.", name)
		}
	}
	for name := range r.Header {
		lower := strings.ToLower(name)
		if strings.HasPrefix(lower, "x-acs-") && !covered(lower) {
			return refuse(IncompleteSignature, "The header %.40q must be signed, as all that begin with x-acs-.", lower)
		}
	}
	// It says how the body is to be understood.
	if len(r.Header["Content-Type"]) > 0 && r.ContentLength != 0 && !covered("content-type") {
		return refuse(IncompleteSignature, "The header content-type must be signed when there is a body.")
	}
	return nil
}

// agree says whether the headers of a name say the same as the parameter, if both are there.
func agree(header []string, params url.Values, param string) error {
	for _, h := range header {
		if params.Has(param) && params.Get(param) != h {
			return refuse(IncompleteSignature, "The parameter %s and the header x-acs-%s differ.", param, strings.ToLower(param))
		}
	}
	return nil
}

// parseTime reads the time of a request and holds it against the clock.
func parseTime(text string, now time.Time) (time.Time, error) {
	at, err := time.Parse(timeForm, text)
	if err != nil || at.Format(timeForm) != text {
		return at, refuse(BadTimestamp, "The time of a request is UTC in the form YYYY-MM-DDThh:mm:ssZ.")
	}
	if skew := now.Sub(at); skew > MaxSkew || skew < -MaxSkew {
		return at, refuse(ExpiredTimestamp, "The request was signed at %s and it is %s here; these may be %v apart. If the request is new, set the clock.",
			text, now.UTC().Format(timeForm), MaxSkew)
	}
	return at, nil
}
