package xkisign

import (
	"crypto/hmac"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Limits, in octets.
const (
	maxAuthorization = 4096
	maxSigned        = 64 // names of headers
)

// Claim is what a request says of its signature. Nothing of it may be believed before Verify.
type Claim struct {
	AccessKeyID string
	Region      string
	Nonce       string // empty if the scheme has none
	Time        time.Time

	scheme    *Scheme
	scope     scope
	date      string
	signed    []string
	signature []byte
}

// ErrTime is of a request whose time is not acceptable; errors.Is tells it.
var ErrTime = errors.New("the time of the request is not acceptable")

// Read reads the claim of a request of which method, URL, Host and headers are there. now is the verifier's time. The error says what is wrong, and
// nothing that is secret.
func (s *Scheme) Read(r *http.Request, now time.Time) (*Claim, error) {
	list := r.Header[headerAuthorization]
	if len(list) != 1 || len(list[0]) > maxAuthorization {
		return nil, fmt.Errorf("there must be one header Authorization, of at most %d octets", maxAuthorization)
	}
	algorithm, rest, _ := strings.Cut(list[0], " ")
	if algorithm != s.algorithm {
		return nil, fmt.Errorf("the signature's algorithm must be %s", s.algorithm)
	}
	c := &Claim{scheme: s}
	parts := strings.Split(rest, ",")
	names := [...]string{"Credential=", "SignedHeaders=", "Signature="}
	if len(parts) != len(names) {
		return nil, fmt.Errorf("the header Authorization must be %s Credential=...%sSignedHeaders=...%sSignature=DIGITS", s.algorithm, s.separator, s.separator)
	}
	for i, name := range names {
		value, ok := strings.CutPrefix(strings.TrimSpace(parts[i]), name)
		if !ok || value == "" {
			return nil, fmt.Errorf("the header Authorization must be %s Credential=...%sSignedHeaders=...%sSignature=DIGITS", s.algorithm, s.separator, s.separator)
		}
		parts[i] = value
	}
	if err := c.readCredential(parts[0]); err != nil {
		return nil, err
	}
	if err := c.readSigned(parts[1], r.Header); err != nil {
		return nil, err
	}
	var err error
	if c.signature, err = hex.DecodeString(parts[2]); err != nil || len(c.signature) != s.hash().Size() {
		return nil, errors.New("the signature must be that of the algorithm, in hexadecimal digits")
	}
	c.date = r.Header.Get(s.dateHeader)
	if c.Time, err = time.Parse(timeForm, c.date); err != nil {
		return nil, fmt.Errorf("%w: the header %s must be YYYYMMDDTHHMMSSZ", ErrTime, strings.ToLower(s.dateHeader))
	}
	if c.date[:len(dayForm)] != c.scope.day {
		return nil, fmt.Errorf("%w: the day of the credential is not that of the header %s", ErrTime, strings.ToLower(s.dateHeader))
	}
	if off := now.Sub(c.Time).Abs(); off > s.skew {
		return nil, fmt.Errorf("%w: it is %v away from the time here, %s; %v are allowed", ErrTime, off.Round(time.Second), now.UTC().Format(timeForm), s.skew)
	}
	if s.keyHeader != "" && len(r.Header[s.keyHeader]) > 0 && r.Header.Get(s.keyHeader) != c.AccessKeyID {
		return nil, fmt.Errorf("the header %s names another access key than the credential", strings.ToLower(s.keyHeader))
	}
	if s.nonce != "" {
		if c.Nonce = r.Header.Get(s.nonce); c.Nonce == "" {
			return nil, fmt.Errorf("the header %s is empty", strings.ToLower(s.nonce))
		}
	}
	return c, nil
}

func (c *Claim) readCredential(text string) error {
	parts := strings.Split(text, "/")
	if len(parts) != 5 || parts[0] == "" || parts[2] == "" || parts[3] != c.scheme.service || parts[4] != c.scheme.end {
		return fmt.Errorf("the credential must be ID/YYYYMMDD/REGION/%s/%s", c.scheme.service, c.scheme.end)
	}
	c.AccessKeyID, c.Region, c.scope = parts[0], parts[2], scope{parts[1], parts[2]}
	return nil
}

// readSigned reads the names of the signed headers: each once and in order, so that there is one spelling only; those that must be there,
// and of each header one value.
func (c *Claim) readSigned(text string, header http.Header) error {
	c.signed = strings.Split(text, ";")
	if len(c.signed) > maxSigned {
		return fmt.Errorf("at most %d headers can be signed", maxSigned)
	}
	for i, name := range c.signed {
		if name == "" || name != strings.ToLower(name) || i > 0 && c.signed[i-1] >= name {
			return errors.New("the signed headers must be named in lower case, each once and in the order of their octets")
		}
		if n := len(header[http.CanonicalHeaderKey(name)]); n != 1 && name != "host" {
			return fmt.Errorf("the signed header %.40q is there %d times; it must be there once", name, n)
		}
	}
	for _, name := range c.scheme.must {
		if _, ok := slices.BinarySearch(c.signed, name); !ok {
			return fmt.Errorf("the header %s must be signed", name)
		}
	}
	if c.scheme.covered == "" {
		return nil
	}
	for name := range header {
		lower := strings.ToLower(name)
		if _, ok := slices.BinarySearch(c.signed, lower); !ok && strings.HasPrefix(lower, c.scheme.covered) {
			return fmt.Errorf("the header %.40q must be signed, as all that begin with %s", lower, c.scheme.covered)
		}
	}
	return nil
}

// Verify says whether the request, with this body, was signed with secret. It takes the same time for any signature.
func (c *Claim) Verify(r *http.Request, body, secret []byte) bool {
	s := c.scheme
	bodyHash := s.sum(body)
	if s.hashHeader != "" && r.Header.Get(s.hashHeader) != bodyHash { // no secret
		return false
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return false
	}
	text := s.stringToSign(c.date, c.scope, s.canonical(r.Method, r.URL.EscapedPath(), s.canonicalQuery(query), c.signed, func(name string) string {
		if name == "host" {
			return r.Host
		}
		return r.Header.Get(name)
	}, bodyHash))
	return hmac.Equal(s.signature(secret, c.scope, text), c.signature)
}
