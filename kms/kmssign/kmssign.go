// Package kmssign signs and verifies requests of the KMS API in the three ways of the original's SDKs. It imports the
// standard library only, so that clients can use it too.
//
//	RPC   parameters SignatureVersion=1.0, Signature and so on; HMAC-SHA1 over method, query and form
//	ACS3  header Authorization: ACS3-HMAC-SHA256; over method, path, query, headers and the body's hash
//	ACS4  the same with ACS4-HMAC-SHA256, and a key that is derived for a day and a region
//
// A Verifier holds what it takes against replays: a window of time, and the nonces that were used. What it verifies has
// one spelling only: a parameter or a signed header that is there twice is refused.
package kmssign

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Scheme is a way of signing.
type Scheme uint8

// The schemes.
const (
	Anonymous Scheme = iota // not signed
	RPC                     // signature 1.0, HMAC-SHA1, in the parameters
	ACS3                    // ACS3-HMAC-SHA256, in the headers
	ACS4                    // ACS4-HMAC-SHA256, in the headers
)

// String gives the name by which the original calls the scheme.
func (s Scheme) String() string {
	return [...]string{"anonymous", "HMAC-SHA1", acs3Name, acs4Name}[s]
}

const (
	acs3Name = "ACS3-HMAC-SHA256"
	acs4Name = "ACS4-HMAC-SHA256"

	rpcMethod  = "HMAC-SHA1"
	rpcVersion = "1.0"

	acs4Product = "Kms"
	acs4End     = "aliyun_v4_request"
	acs4Prefix  = "aliyun_v4"

	timeForm = "2006-01-02T15:04:05Z"
	dayForm  = "20060102"
)

// The headers of the header schemes, in net/http's spelling.
const (
	headerAuthorization = "Authorization"
	headerAction        = "X-Acs-Action"
	headerVersion       = "X-Acs-Version"
	headerDate          = "X-Acs-Date"
	headerNonce         = "X-Acs-Signature-Nonce"
	headerContentHash   = "X-Acs-Content-Sha256"
	headerToken         = "X-Acs-Security-Token"
	headerAccessKey     = "X-Acs-Accesskey-Id"
	headerPrefix        = "X-Acs-"
)

// named are what a request is told apart by: a parameter, or a header.
var named = [...]struct{ param, header string }{{"Action", headerAction}, {"Version", headerVersion}}

// Detect tells how a request is signed, or claims to be. params are those of the query, or of query and form.
func Detect(header http.Header, params url.Values) Scheme {
	for _, value := range header[headerAuthorization] {
		switch {
		case strings.HasPrefix(value, "ACS3-"):
			return ACS3
		case strings.HasPrefix(value, "ACS4-"):
			return ACS4
		}
	}
	if params.Has("Signature") {
		return RPC
	}
	return Anonymous
}

// plain says which octets percent-encoding leaves as they are.
var plain = func() (t [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~") {
		t[c] = true
	}
	return t
}()

// appendEncoded percent-encodes s as signatures want it: unreserved characters stay, all else is %XX in upper case.
func appendEncoded[T string | []byte](dst []byte, s T) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; plain[c] {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', digits[c>>4], digits[c&15])
		}
	}
	return dst
}

// appendQuery appends the canonical query of params, each of which has one value: sorted by name, encoded, joined by &.
// The RPC scheme leaves out the parameter Signature, and ACS4 writes an empty value as the name alone.
func appendQuery(dst []byte, scheme Scheme, params url.Values) []byte {
	names := make([]string, 0, len(params))
	for name := range params {
		if scheme != RPC || name != "Signature" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for i, name := range names {
		if i > 0 {
			dst = append(dst, '&')
		}
		dst = appendEncoded(dst, name)
		value := params.Get(name)
		if value != "" || scheme != ACS4 {
			dst = append(dst, '=')
		}
		dst = appendEncoded(dst, value)
	}
	return dst
}

// rpcString gives the string to sign of the RPC scheme. It holds the parameters, so the caller wipes it.
func rpcString(method string, params url.Values) []byte {
	query := appendQuery(nil, RPC, params)
	defer clear(query)
	text := make([]byte, 0, len(method)+len("&%2F&")+2*len(query))
	text = append(append(text, strings.ToUpper(method)...), "&%2F&"...)
	if need := len(text) + 3*len(query); need > cap(text) { // no growing: the smaller copy would not be wiped
		text = append(make([]byte, 0, need), text...)
	}
	return appendEncoded(text, query)
}

// rpcSignature signs a string in the RPC scheme.
func rpcSignature(secret, text []byte) string {
	key := append(append(make([]byte, 0, len(secret)+1), secret...), '&')
	defer clear(key)
	return base64.StdEncoding.EncodeToString(mac(sha1.New, key, text))
}

// headerString gives the string to sign of a header scheme. signed are lower-case names in order, and value gives the
// value of each.
func headerString(scheme Scheme, method, path string, query url.Values, signed []string, value func(name string) string, bodyHash string) string {
	if path == "" {
		path = "/"
	}
	text := append([]byte(strings.ToUpper(method)), '\n')
	text = append(append(text, path...), '\n')
	text = append(appendQuery(text, scheme, query), '\n')
	for _, name := range signed {
		text = append(append(text, name...), ':')
		text = append(append(text, strings.TrimSpace(value(name))...), '\n')
	}
	text = append(text, '\n')
	text = append(append(text, strings.Join(signed, ";")...), '\n')
	text = append(text, bodyHash...)
	sum := sha256.Sum256(text)
	clear(text)
	return scheme.String() + "\n" + hex.EncodeToString(sum[:])
}

// headerSignature signs a string in a header scheme. day and region are ACS4's.
func headerSignature(scheme Scheme, secret []byte, day, region, text string) string {
	key := secret
	if scheme == ACS4 {
		key = append(append(make([]byte, 0, len(acs4Prefix)+len(secret)), acs4Prefix...), secret...)
		for _, step := range [...]string{day, region, acs4Product, acs4End} {
			next := mac(sha256.New, key, []byte(step))
			clear(key)
			key = next
		}
		defer clear(key)
	}
	return hex.EncodeToString(mac(sha256.New, key, []byte(text)))
}

func mac(h func() hash.Hash, key, text []byte) []byte {
	m := hmac.New(h, key)
	m.Write(text)
	return m.Sum(nil)
}

// bodySum is the form in which a body's hash stands in the header.
func bodySum(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// hostOf gives the host as it is signed. A request that is to be sent may have it in its URL only.
func hostOf(r *http.Request) string {
	if r.URL == nil {
		return r.Host
	}
	return cmp.Or(r.Host, r.URL.Host)
}
