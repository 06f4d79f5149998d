package xkisign

import (
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// vectors are those of the reference (xki-proxy.md, 2.10 and 3.3).
var vectors = []struct {
	name      string
	scheme    *Scheme
	id        string
	secret    string
	url       string
	date      string
	region    string
	nonce     string
	headers   map[string]string
	body      string
	key       string // in hexadecimal digits
	canonical string // its hash
	signature string
}{
	{name: "SigV4", scheme: SigV4, id: "KEYWARDTESTVECTOR234567", secret: "a2V5d2FyZC10ZXN0LXZlY3Rvci1zZWNyZXQtMDEyMzQ1Njc4OQ==",
		url: "https://xks.example.com/ks1/kms/xks/v1/health", date: "20260102T030405Z", region: "eu-west-1",
		body:      `{"requestMetadata":{"kmsOperation":"KmsHealthCheck","kmsRequestId":"req-1"}}`,
		canonical: "706d21733f9808b3e74442066364000fd8711ecf02e0dc25efc2c92dc232b572",
		signature: "b2fb7cd93493f44a898200409428713d29aa26a7a100d8005c9f122f40fd59bf"},
	{name: "ACS4", scheme: ACS4, id: "AccessKeyId", secret: "AccessKeySecret",
		url: "https://xki.example.com/kms/xki/v1/keys/ExternalKeyId/meta", date: "20230928T080458Z", region: "cn-hangzhou", nonce: "20230928-MkuBibyazkY1o2GJe",
		headers: map[string]string{"Content-Type": "application/json; charset=utf-8", "X-Acs-Action": "POST", "X-Acs-Version": "1.0.0"},
		body:    `{"TestParameter": "TestValue"}`, canonical: "f901bab4045fde8a6dc53e6b686f745b59e11ffc9b21ab8cc0d3fac7d15420a7",
		signature: "1766e8039e9cf67d0e58bdfc87363c0c49fbb7ef66d9ec4c3821ea5fd23dc77c"},
	{name: "ACS4 with a query", scheme: ACS4, id: "AccessKeyId", secret: "AccessKeySecret",
		url: "https://xki.example.com/kms/xki/v1/keys/ExternalKeyId/meta?Key2=Value2&Key1=Value1", date: "20230928T080458Z", region: "cn-hangzhou", nonce: "20230928-MkuBibyazkY1o2GJe",
		headers: map[string]string{"Content-Type": "application/json; charset=utf-8", "X-Acs-Action": "POST", "X-Acs-Version": "1.0.0"},
		body:    `{"TestParameter": "TestValue"}`, canonical: "527f6c2f24a070c0c224daeed4dbc0220d18336c847a83709ad473f39c4cd3c4",
		signature: "4219b341256c07c1b310888c0363d1ab952a2a94fb4ea21fa185be7c1d01b302"},
}

func request(t testing.TB, url string, headers map[string]string, body string) *http.Request {
	t.Helper()
	r := httptest.NewRequest("POST", url, strings.NewReader(body))
	for name, v := range headers {
		r.Header.Set(name, v)
	}
	return r
}

func TestVectors(t *testing.T) {
	for _, v := range vectors {
		at, err := time.Parse(timeForm, v.date)
		if err != nil {
			t.Fatal(err)
		}
		r := request(t, v.url, v.headers, v.body)
		v.scheme.Sign(r, []byte(v.body), Signing{AccessKeyID: v.id, Secret: []byte(v.secret), Region: v.region, Time: at, Nonce: v.nonce})
		if got := r.Header.Get("Authorization"); !strings.HasSuffix(got, "Signature="+v.signature) {
			t.Errorf("%s: %s", v.name, got)
		}
		c, err := v.scheme.Read(r, at)
		if err != nil {
			t.Fatalf("%s: %v", v.name, err)
		}
		canonical := v.scheme.canonical("POST", r.URL.EscapedPath(), v.scheme.canonicalQuery(r.URL.Query()), c.signed, func(name string) string {
			if name == "host" {
				return r.Host
			}
			return r.Header.Get(name)
		}, v.scheme.sum([]byte(v.body)))
		if got := v.scheme.sum([]byte(canonical)); got != v.canonical {
			t.Errorf("%s: the canonical request is\n%s\nof %s", v.name, canonical, got)
		}
		if c.AccessKeyID != v.id || c.Region != v.region || c.Nonce != v.nonce || !c.Verify(r, []byte(v.body), []byte(v.secret)) {
			t.Errorf("%s: %+v", v.name, c)
		}
	}
}

// What the AWS SDK signs is verified, also with more headers than AWS KMS signs.
func TestAWSSigner(t *testing.T) {
	body := `{"requestMetadata":{}}`
	at := time.Now()
	for _, headers := range []map[string]string{{}, {"Content-Type": "application/json", "X-Other": "  a   b "}} {
		r := request(t, "https://xks.example.com:8443/kms/xks/v1/keys/a.b_c-d/encrypt", headers, body)
		r.ContentLength = -1 // not signed then
		err := v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: "ABCDEFGHIJKLMNOPQRST", SecretAccessKey: "secret/+="}, r,
			SigV4.sum([]byte(body)), "kms-xks-proxy", "us-east-1", at)
		if err != nil {
			t.Fatal(err)
		}
		c, err := SigV4.Read(r, at)
		if err != nil {
			t.Fatal(err)
		}
		if !c.Verify(r, []byte(body), []byte("secret/+=")) {
			t.Errorf("%v: %s", headers, r.Header.Get("Authorization"))
		}
	}
}

// Every octet that is signed matters, and each part of the signature.
func TestRefused(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	body := []byte(`{"a":1}`)
	secret := []byte("0123456789012345678901234567890123456789012")
	for _, s := range []*Scheme{SigV4, ACS4, ACS4SM3} {
		sign := func() *http.Request {
			r := request(t, "https://h.example/kms/x?q=1", map[string]string{"Content-Type": "application/json"}, string(body))
			s.Sign(r, body, Signing{AccessKeyID: "ID", Secret: secret, Region: "r", Time: at})
			return r
		}
		edit := func(old, next string) func(*http.Request) {
			return func(r *http.Request) {
				was := r.Header.Get("Authorization")
				now := strings.Replace(was, old, next, 1)
				if was == now {
					t.Errorf("%v: nothing is %q in %s", s, old, was)
				}
				r.Header.Set("Authorization", now)
			}
		}
		for name, spoil := range map[string]func(*http.Request){
			"no signature":      func(r *http.Request) { r.Header.Del("Authorization") },
			"two signatures":    func(r *http.Request) { r.Header.Add("Authorization", r.Header.Get("Authorization")) },
			"a long one":        func(r *http.Request) { r.Header.Set("Authorization", strings.Repeat("x", maxAuthorization+1)) },
			"another algorithm": edit("HMAC-S", "HMAC-T"),
			"no credential":     edit("Credential=", "Credentials="),
			"an empty signature": func(r *http.Request) {
				a := r.Header.Get("Authorization")
				r.Header.Set("Authorization", a[:strings.LastIndex(a, "=")+1])
			},
			"a short signature": func(r *http.Request) { a := r.Header.Get("Authorization"); r.Header.Set("Authorization", a[:len(a)-2]) },
			"no hexadecimal digits": func(r *http.Request) {
				a := r.Header.Get("Authorization")
				r.Header.Set("Authorization", a[:len(a)-2]+"zz")
			},
			"another key":            edit("Credential=ID", "Credential=IE"),
			"another service":        edit("/"+s.service+"/", "/s3/"),
			"another end":            edit("/"+s.end, "/other"),
			"another day":            edit("/20260102/", "/20260103/"),
			"another region":         edit("/r/", "/q/"),
			"fewer parts of scope":   edit("/r/", "/"),
			"a header in upper case": edit("host", "Host"),
			"a header twice":         edit("host", "host;host"),
			"host not signed":        edit("host;", ""),
			"a header not there":     edit(";x-", ";w-none;x-"),
			"another method":         func(r *http.Request) { r.Method = "PUT" },
			"another path":           func(r *http.Request) { r.URL.Path += "y" },
			"another query":          func(r *http.Request) { r.URL.RawQuery = "q=2" },
			"a query that is none":   func(r *http.Request) { r.URL.RawQuery = "q=%zz" },
			"another host":           func(r *http.Request) { r.Host = "g.example" },
			"another time":           func(r *http.Request) { r.Header.Set(s.dateHeader, "20260102T030406Z") },
			"no time":                func(r *http.Request) { r.Header.Del(s.dateHeader) },
			"a time in another form": func(r *http.Request) { r.Header.Set(s.dateHeader, "2026-01-02T03:04:05Z") },
			"the date header twice":  func(r *http.Request) { r.Header.Add(s.dateHeader, r.Header.Get(s.dateHeader)) },
		} {
			r := sign()
			spoil(r)
			if c, err := s.Read(r, at); err == nil && c.Verify(r, body, secret) && c.AccessKeyID == "ID" {
				t.Errorf("%v, %s: taken", s, name)
			}
		}
		r := sign()
		c, err := s.Read(r, at)
		if err != nil {
			t.Fatal(err)
		}
		if !c.Verify(r, body, secret) || c.Verify(r, append(body, ' '), secret) || c.Verify(r, body, secret[1:]) {
			t.Errorf("%v: body and secret don't matter", s)
		}
		for _, off := range []time.Duration{s.skew, -s.skew} {
			if _, err := s.Read(r, at.Add(off)); err != nil {
				t.Errorf("%v, off by %v: %v", s, off, err)
			}
			if _, err := s.Read(r, at.Add(off+off/300)); !errors.Is(err, ErrTime) {
				t.Errorf("%v, off by more than %v: %v", s, off, err)
			}
		}
	}
}

// The headers of ACS4 that are not signed are refused, and a header that names another key.
func TestUnsignedHeaders(t *testing.T) {
	at := time.Now()
	r := request(t, "https://h.example/kms", map[string]string{"Content-Type": "application/json"}, "")
	ACS4.Sign(r, nil, Signing{AccessKeyID: "ID", Secret: []byte("s"), Region: "r", Time: at})
	r.Header.Set("X-Acs-Other", "1")
	if _, err := ACS4.Read(r, at); err == nil {
		t.Error("x-acs-other is not signed")
	}
	r.Header.Del("X-Acs-Other")
	r.Header.Set("X-Acs-Accesskey-Id", "Other")
	if _, err := ACS4.Read(r, at); err == nil {
		t.Error("another key in its header")
	}
}

func FuzzRead(f *testing.F) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, v := range vectors {
		r := request(f, v.url, v.headers, v.body)
		v.scheme.Sign(r, []byte(v.body), Signing{AccessKeyID: v.id, Secret: []byte(v.secret), Region: v.region, Time: at})
		f.Add(r.Header.Get("Authorization"), r.Header.Get(v.scheme.dateHeader))
	}
	f.Fuzz(func(t *testing.T, authorization, date string) {
		for _, s := range []*Scheme{SigV4, ACS4, ACS4SM3} {
			r := &http.Request{Method: "POST", URL: httptest.NewRequest("POST", "/a", nil).URL, Host: "h", Header: http.Header{}, Body: io.NopCloser(strings.NewReader(""))}
			r.Header.Set("Authorization", authorization)
			r.Header.Set(s.dateHeader, date)
			if c, err := s.Read(r, at); err == nil && c.Verify(r, nil, []byte(hex.EncodeToString([]byte(authorization)))) {
				t.Error("a signature of a secret that depends on it")
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	v := vectors[0]
	at, _ := time.Parse(timeForm, v.date)
	r := request(b, v.url, v.headers, v.body)
	v.scheme.Sign(r, []byte(v.body), Signing{AccessKeyID: v.id, Secret: []byte(v.secret), Region: v.region, Time: at})
	b.ReportAllocs()
	for b.Loop() {
		if c, err := v.scheme.Read(r, at); err != nil || !c.Verify(r, []byte(v.body), []byte(v.secret)) {
			b.Fatal(err)
		}
	}
}
