package xkisign

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Signing is what a signature is made of beside the request.
type Signing struct {
	AccessKeyID string
	Secret      []byte // as it is: it is not decoded
	Region      string
	Time        time.Time // of the request; signatures have whole seconds
	Nonce       string    // never used before with this access key; a random one if empty. ACS4 only
}

// Sign signs a request whose body is body: it sets headers. All of the request's headers must be there, as Host must.
func (s *Scheme) Sign(r *http.Request, body []byte, with Signing) {
	at := with.Time.UTC()
	date, c := at.Format(timeForm), scope{at.Format(dayForm), with.Region}
	r.Header.Set(s.dateHeader, date)
	if s.hashHeader != "" {
		r.Header.Set(s.hashHeader, s.sum(body))
	}
	if s.keyHeader != "" {
		r.Header.Set(s.keyHeader, with.AccessKeyID)
	}
	if s.nonce != "" {
		if with.Nonce == "" {
			with.Nonce = rand.Text()
		}
		r.Header.Set(s.nonce, with.Nonce)
	}
	signed := slices.Clone(s.must)
	if s.covered != "" {
		for name := range r.Header {
			if lower := strings.ToLower(name); strings.HasPrefix(lower, s.covered) && !slices.Contains(signed, lower) {
				signed = append(signed, lower)
			}
		}
	}
	slices.Sort(signed)
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	text := s.stringToSign(date, c, s.canonical(r.Method, r.URL.EscapedPath(), s.canonicalQuery(r.URL.Query()), signed, func(name string) string {
		if name == "host" {
			return host
		}
		return r.Header.Get(name)
	}, s.sum(body)))
	r.Header.Set(headerAuthorization, s.algorithm+" "+strings.Join([]string{
		"Credential=" + with.AccessKeyID + "/" + s.scopeText(c),
		"SignedHeaders=" + strings.Join(signed, ";"),
		"Signature=" + hex.EncodeToString(s.signature(with.Secret, c, text)),
	}, s.separator))
}
