// Package xkisign signs and verifies requests between a KMS and an external-key proxy: SigV4 of xks-v1 (reference xki-proxy.md, section
// 2.10) and ACS4 of xki-v1 (section 3.3). The two are one construction with other names, which are in one table.
//
// A signature covers method, path, query, the headers that it lists, and the body by its hash. Neither scheme keeps a request from being sent
// again: TLS does, and for ACS4 the nonce, which the caller of Verify remembers.
package xkisign

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/emmansun/gmsm/sm3"
)

// Scheme is a way of signing. There are SigV4, ACS4 and ACS4SM3.
type Scheme struct {
	algorithm string // as it stands in the header Authorization
	prefix    string // of the secret, when keys are made of it
	service   string // of the credential's scope
	end       string // of the credential's scope
	separator string // between the parts of the header Authorization
	hash      func() hash.Hash

	dateHeader string // in net/http's spelling
	hashHeader string // that has the body's hash; empty if there is none
	keyHeader  string // that has the ID of the access key; empty if there is none
	nonce      string // the header with the nonce; empty if there is none
	covered    string // headers that begin so must be signed
	must       []string

	scoped bool // the string to sign has date and scope
	skew   time.Duration
}

// The schemes.
var (
	SigV4 = &Scheme{algorithm: "AWS4-HMAC-SHA256", prefix: "AWS4", service: "kms-xks-proxy", end: "aws4_request", separator: ", ",
		hash: sha256.New, dateHeader: "X-Amz-Date", must: []string{"host", "x-amz-date"}, scoped: true, skew: 5 * time.Minute}
	ACS4 = &Scheme{algorithm: "ACS4-HMAC-SHA256", prefix: "aliyun_v4", service: "kms", end: "aliyun_v4_request", separator: ",",
		hash: sha256.New, dateHeader: "X-Acs-Date", hashHeader: "X-Acs-Content-Sha256", keyHeader: "X-Acs-Accesskey-Id", nonce: "X-Acs-Signature-Nonce",
		covered: "x-acs-", must: []string{"content-type", "host", "x-acs-content-sha256", "x-acs-date", "x-acs-signature-nonce"}, skew: 15 * time.Minute}
	ACS4SM3 = func() *Scheme {
		s := *ACS4
		s.algorithm, s.hash, s.hashHeader = "ACS4-HMAC-SM3", sm3.New, "X-Acs-Content-Sm3"
		s.must = []string{"content-type", "host", "x-acs-content-sm3", "x-acs-date", "x-acs-signature-nonce"}
		return &s
	}()
)

// Skew is how far the time of a request may be from the verifier's, either way.
func (s *Scheme) Skew() time.Duration { return s.skew }

// String gives the name that stands in the header Authorization.
func (s *Scheme) String() string { return s.algorithm }

const (
	timeForm = "20060102T150405Z"
	dayForm  = "20060102"

	headerAuthorization = "Authorization"
)

// scope is what a signing key is for.
type scope struct{ day, region string }

func (s *Scheme) scopeText(c scope) string {
	return c.day + "/" + c.region + "/" + s.service + "/" + s.end
}

// canonical gives the canonical request. signed are lower-case names in order, and value gives the value of each.
func (s *Scheme) canonical(method, path, query string, signed []string, value func(name string) string, bodyHash string) string {
	var b strings.Builder
	b.WriteString(method + "\n" + path + "\n" + query + "\n")
	for _, name := range signed {
		b.WriteString(name + ":" + fold(value(name)) + "\n")
	}
	b.WriteString("\n" + strings.Join(signed, ";") + "\n" + bodyHash)
	return b.String()
}

// canonicalQuery sorts a query by names and values and encodes it; an empty value has no sign of equality in ACS4.
func (s *Scheme) canonicalQuery(query url.Values) string {
	names := make([]string, 0, len(query))
	for name := range query {
		names = append(names, name)
	}
	slices.Sort(names)
	var parts []string
	for _, name := range names {
		values := slices.Sorted(slices.Values(query[name]))
		for _, v := range values {
			part := escape(name)
			if v != "" || s.scoped {
				part += "=" + escape(v)
			}
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "&")
}

// escape percent-encodes all but the unreserved characters.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// fold trims a header's value and makes one space of each run of them.
func fold(v string) string { return strings.Join(strings.Fields(v), " ") }

// stringToSign gives what is signed.
func (s *Scheme) stringToSign(date string, c scope, canonical string) string {
	text := s.algorithm + "\n"
	if s.scoped {
		text += date + "\n" + s.scopeText(c) + "\n"
	}
	return text + s.sum([]byte(canonical))
}

// signature signs text with the key that is made of secret for the scope.
func (s *Scheme) signature(secret []byte, c scope, text string) []byte {
	key := append(append(make([]byte, 0, len(s.prefix)+len(secret)), s.prefix...), secret...)
	for _, step := range [...]string{c.day, c.region, s.service, s.end} {
		next := s.mac(key, step)
		clear(key)
		key = next
	}
	defer clear(key)
	return s.mac(key, text)
}

func (s *Scheme) mac(key []byte, text string) []byte {
	m := hmac.New(s.hash, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// sum is the hash of b in the form in which it stands in headers and texts.
func (s *Scheme) sum(b []byte) string {
	h := s.hash()
	h.Write(b)
	return hex.EncodeToString(h.Sum(nil))
}
