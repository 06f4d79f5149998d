package kmssign

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	testTime   = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	testSecret = []byte("testsecret")
)

// clock is a verifier's clock.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newTestVerifier(at time.Time) (*Verifier, *clock) {
	c := &clock{at}
	return NewVerifier(Options{Now: c.now}), c
}

func lookup(_ context.Context, id string) (Secret, error) {
	switch id {
	case "testid", "other":
		return Secret{Key: bytes.Clone(testSecret), Enabled: true}, nil
	case "off":
		return Secret{Key: bytes.Clone(testSecret)}, nil
	case "broken":
		return Secret{}, io.ErrUnexpectedEOF
	}
	return Secret{}, ErrUnknownKey
}

func newRequest(t testing.TB, method, target, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, "https://kms.example:8443"+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", formType)
	}
	return r
}

func signing() Signing {
	return Signing{AccessKeyID: "testid", Secret: testSecret, Time: testTime, Nonce: "nonce-1"}
}

// params gives what Verify wants: the query, with the form if the scheme is RPC.
func params(t testing.TB, r *http.Request) (url.Values, []byte) {
	t.Helper()
	all, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		t.Fatal(err)
	}
	body, err := bodyOf(r)
	if err != nil {
		t.Fatal(err)
	}
	if s := Detect(r.Header, all); s == ACS3 || s == ACS4 {
		return all, body
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, list := range form {
		all[name] = append(all[name], list...)
	}
	return all, nil
}

// verify verifies r and its body.
func verify(t testing.TB, v *Verifier, r *http.Request) error {
	t.Helper()
	all, body := params(t, r)
	got, err := v.Verify(t.Context(), r, all, lookup)
	if err != nil {
		if got != nil {
			t.Error("an answer beside an error")
		}
		return err
	}
	return got.CheckBody(body)
}

// codeOf gives the code of an error, "" for none.
func codeOf(t testing.TB, err error) Code {
	t.Helper()
	if err == nil {
		return ""
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("not a kmssign.Error: %v", err)
	}
	if e.Detail == "" || e.StringToSign != "" && strings.Contains(e.Error(), e.StringToSign) {
		t.Errorf("%+v", e)
	}
	return e.Code
}

const rpcQuery = "AccessKeyId=testid&Action=Encrypt&Format=JSON&KeyId=alias%2Fa+b%2A~&Plaintext=aGVsbG8%2B%2Fw%3D%3D&SignatureMethod=HMAC-SHA1&SignatureNonce=nonce-1&SignatureVersion=1.0&Timestamp=2026-01-02T03%3A04%3A05Z&Version=2016-01-20"

// TestVectorsRPC has signatures that the original's SDK made.
func TestVectorsRPC(t *testing.T) {
	for method, want := range map[string]string{"GET": "tAa4mk5LSkW1X01QkHtkZ/CZgdI=", "POST": "ArYH+kO/noQjGMk7HUYdYQBLCdY="} {
		r := newRequest(t, method, "/?Action=Encrypt&Version=2016-01-20&Format=JSON&KeyId=alias%2Fa%20b*%7E&Plaintext=aGVsbG8%2B%2Fw%3D%3D", "")
		if err := SignRPC(r, signing()); err != nil {
			t.Fatal(err)
		}
		if got := r.URL.Query().Get("Signature"); got != want {
			t.Errorf("%s: signed as %s, want %s", method, got, want)
		}
		// As the SDK sends it: in its encoding, with two headers that are not signed.
		r = newRequest(t, method, "/?"+rpcQuery+"&Signature="+url.QueryEscape(want), "")
		r.Header.Set("x-acs-action", "Encrypt")
		r.Header.Set("x-acs-version", "2016-01-20")
		v, _ := newTestVerifier(testTime)
		if err := verify(t, v, r); err != nil {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// TestVectorPublished has the example of the original's documentation. It has no nonce, and its string to sign, as printed
// there, keeps the & between parameters, which the SDKs encode like everything else: so it fixes the HMAC and its key only.
func TestVectorPublished(t *testing.T) {
	printed := "GET&%2F&AccessKeyId%3Dtestid&Action%3DCreateKey&Format%3Djson&SignatureMethod%3DHMAC-SHA1&SignatureVersion%3D1.0&Timestamp%3D2016-03-28T03%253A13%253A08Z&Version%3D2016-01-20"
	const want = "s/OdVWMTmNGagvWlljdAJ7Itsew="
	if got := rpcSignature(testSecret, []byte(printed)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	p := url.Values{"AccessKeyId": {"testid"}, "Action": {"CreateKey"}, "Format": {"json"}, "SignatureMethod": {"HMAC-SHA1"},
		"SignatureVersion": {"1.0"}, "Timestamp": {"2016-03-28T03:13:08Z"}, "Version": {"2016-01-20"}, "Signature": {want}}
	if got := string(rpcString("GET", p)); got != "GET&%2F&"+strings.ReplaceAll(printed[len("GET&%2F&"):], "&", "%26") {
		t.Errorf("the string to sign is %s", got)
	}
	v, _ := newTestVerifier(time.Date(2016, 3, 28, 3, 13, 0, 0, time.UTC))
	if code := codeOf(t, verify(t, v, newRequest(t, "GET", "/?"+p.Encode(), ""))); code != MissingSignatureNonce {
		t.Errorf("without a nonce: %q", code)
	}
}

// TestVectorsHeader has signatures that the original's SDK made.
func TestVectorsHeader(t *testing.T) {
	for _, test := range []struct {
		scheme     Scheme
		sign       func(*http.Request, Signing) error
		credential string
		want       string
	}{
		{ACS3, SignACS3, "testid", "8a62ae1bf5f95178bc16d5f413a17a54fc92eb4ea7a12922444e5adccff66f9d"},
		{ACS4, SignACS4, "testid/20260102/center/Kms/aliyun_v4_request", "f924817a1a9495c685f2096a52ae31b12d07cc88db17eb6951a020743d28f155"},
	} {
		r := newRequest(t, "POST", "/?KeyId=alias%2Fa+b%2A~&Plaintext=aGVsbG8%2B%2Fw%3D%3D&DryRun=", "")
		r.Header.Set("x-acs-action", "Encrypt")
		r.Header.Set("x-acs-version", "2016-01-20")
		if err := test.sign(r, signing()); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("%s Credential=%s,SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,Signature=%s",
			test.scheme, test.credential, test.want)
		if got := r.Header.Get("Authorization"); got != want {
			t.Errorf("signed as\n%s, want\n%s", got, want)
		}
		v, _ := newTestVerifier(testTime)
		if err := verify(t, v, r); err != nil {
			t.Errorf("%v: %v", test.scheme, err)
		}
	}
	// The hash in the middle, by itself.
	signed := []string{"host", "x-acs-action", "x-acs-content-sha256", "x-acs-date", "x-acs-signature-nonce", "x-acs-version"}
	values := map[string]string{"host": "kms.example:8443", "x-acs-action": "Encrypt", "x-acs-content-sha256": bodySum(nil),
		"x-acs-date": "2026-01-02T03:04:05Z", "x-acs-signature-nonce": "nonce-1", "x-acs-version": "2016-01-20"}
	query := url.Values{"KeyId": {"alias/a b*~"}, "Plaintext": {"aGVsbG8+/w=="}, "DryRun": {""}}
	got := headerString(ACS3, "POST", "/", query, signed, func(name string) string { return values[name] }, bodySum(nil))
	if want := "ACS3-HMAC-SHA256\n305ce5e503eeba373c190cd9c0fd73695133b34d46266066f7b8c44775ae8ada"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// schemes are the three, for tests that hold for all.
var schemes = []struct {
	name string
	sign func(*http.Request, Signing) error
}{{"RPC", SignRPC}, {"ACS3", SignACS3}, {"ACS4", SignACS4}}

// TestOddValues signs and verifies what encodings stumble over.
func TestOddValues(t *testing.T) {
	for _, value := range []string{"", " ", "+", "a b", "*", "~", "%", "%20", "=", "&", "ü€𝄞", "\x00\xFF", "a/b?c#d", "-_.", strings.Repeat("x", 130<<10)} {
		for _, s := range schemes {
			for _, body := range []string{"", "Form=1&" + url.Values{"In Form": {value}}.Encode()} {
				r := newRequest(t, "POST", "/?"+url.Values{"Action": {"Encrypt"}, "Version": {"2016-01-20"}, "Odd " + value[:min(len(value), 9)]: {"1"}, "Value": {value}}.Encode(), body)
				if err := s.sign(r, signing()); err != nil {
					t.Fatal(err)
				}
				v, _ := newTestVerifier(testTime)
				if err := verify(t, v, r); err != nil {
					t.Errorf("%s %.40q: %v", s.name, value, err)
				}
				// The same request in other spellings of the query.
				r.URL.RawQuery = strings.ReplaceAll(r.URL.RawQuery, "+", "%20")
				r.URL.RawQuery = strings.ReplaceAll(r.URL.RawQuery, "%2A", "*")
				pairs := strings.Split(r.URL.RawQuery, "&")
				slices.Reverse(pairs)
				r.URL.RawQuery = strings.Join(pairs, "&")
				v, _ = newTestVerifier(testTime)
				if err := verify(t, v, r); err != nil {
					t.Errorf("%s %.40q, in another order: %v", s.name, value, err)
				}
			}
		}
	}
}

// TestTampering changes every part of a request that was signed.
func TestTampering(t *testing.T) {
	query := func(change func(url.Values)) func(*http.Request) {
		return func(r *http.Request) {
			q := r.URL.Query()
			change(q)
			r.URL.RawQuery = q.Encode()
		}
	}
	body := func(text string) func(*http.Request) {
		return func(r *http.Request) {
			r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
			r.ContentLength = int64(len(text))
		}
	}
	both := map[string]func(*http.Request){
		"method":           func(r *http.Request) { r.Method = "GET" },
		"parameter":        query(func(q url.Values) { q.Set("KeyId", "alias/b") }),
		"parameter's case": query(func(q url.Values) { q.Set("keyid", q.Get("KeyId")); q.Del("KeyId") }),
		"parameter gone":   query(func(q url.Values) { q.Del("KeyId") }),
		"parameter more":   query(func(q url.Values) { q.Set("DryRun", "false") }),
		"parameter twice":  query(func(q url.Values) { q.Add("KeyId", q.Get("KeyId")) }),
		"empty parameter":  query(func(q url.Values) { q.Del("Empty") }),
		"empty name":       query(func(q url.Values) { q.Set("", "1") }),
		"action":           query(func(q url.Values) { q.Set("Action", "Decrypt") }),
		"version":          query(func(q url.Values) { q.Set("Version", "2015-01-20") }),
		"body":             body("Form=2"),
		"body longer":      body("Form=1&More=1"),
		"body gone":        body(""),
		"moved to query":   func(r *http.Request) { query(func(q url.Values) { q.Set("Form", "1") })(r); body("Form=1")(r) },
	}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	resigned := func(old, new string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, new, 1))
		}
	}
	headerSchemes := map[string]func(*http.Request){
		"host":                  func(r *http.Request) { r.Host = "kms2.example:8443" },
		"host's port":           func(r *http.Request) { r.Host = "kms.example:8444" },
		"host without port":     func(r *http.Request) { r.Host = "kms.example" },
		"path":                  func(r *http.Request) { r.URL.Path = "/v1/" },
		"x-acs-action":          header("x-acs-action", "Decrypt"),
		"x-acs-version":         header("x-acs-version", "2015-01-20"),
		"x-acs-date":            header("x-acs-date", "2026-01-02T03:04:06Z"),
		"x-acs-signature-nonce": header("x-acs-signature-nonce", "nonce-2"),
		"x-acs-content-sha256":  header("x-acs-content-sha256", bodySum([]byte("Form=2"))),
		"sha256 in upper case": func(r *http.Request) {
			r.Header.Set("x-acs-content-sha256", strings.ToUpper(r.Header.Get("x-acs-content-sha256")))
		},
		"sha256 gone":         func(r *http.Request) { r.Header.Del("x-acs-content-sha256") },
		"content-type":        header("content-type", "application/json"),
		"unsigned x-acs-":     header("x-acs-more", "1"),
		"token":               header("x-acs-security-token", "token"),
		"other key's header":  header("x-acs-accesskey-id", "other"),
		"header twice":        func(r *http.Request) { r.Header.Add("x-acs-date", r.Header.Get("x-acs-date")) },
		"authorization twice": func(r *http.Request) { r.Header.Add("Authorization", r.Header.Get("Authorization")) },
		"another key":         resigned("Credential=testid", "Credential=other!"),
		"other algorithm":     resigned("-HMAC-SHA256", "-HMAC-SM3"),
		"rsa":                 resigned("-HMAC-SHA256", "-RSA-SHA256"),
		"no host":             resigned("host;", ""),
		"no action":           resigned("x-acs-action;", ""),
		"no hash":             resigned("x-acs-content-sha256;", ""),
		"no date":             resigned("x-acs-date;", ""),
		"no nonce":            resigned("x-acs-signature-nonce;", ""),
		"no version":          resigned(";x-acs-version", ""),
		"no content-type":     resigned("content-type;", ""),
		"no headers": func(r *http.Request) {
			r.Header.Set("Authorization", r.Header.Get("Authorization")[:16]+" Credential=testid,SignedHeaders=,Signature=00")
		},
		"header that is not":    resigned("x-acs-version", "x-acs-version;x-acs-zzz"),
		"header in upper case":  resigned("host", "Host"),
		"header in wrong order": resigned("host;x-acs-action", "x-acs-action;host"),
		"header signed twice":   resigned("host;", "host;host;"),
		"spaces":                resigned(",Signed", ", Signed"),
		"signature empty": func(r *http.Request) {
			a, _, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
			r.Header.Set("Authorization", a+"Signature=")
		},
		"signature in uppercase": func(r *http.Request) {
			a, b, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
			r.Header.Set("Authorization", a+"Signature="+strings.ToUpper(b))
		},
	}
	v4 := map[string]func(*http.Request){
		"day":         resigned("/20260102/", "/20260103/"),
		"region":      resigned("/center/", "/east/"),
		"no region":   resigned("/center/", "//"),
		"product":     resigned("/Kms/", "/kms/"),
		"end":         resigned("aliyun_v4_request", "aliyun_v4_requests"),
		"few parts":   resigned("/center", ""),
		"bare acs3":   resigned("ACS4", "ACS3"),
		"date, empty": header("x-acs-date", ""),
	}
	v1 := map[string]func(*http.Request){
		"timestamp":         query(func(q url.Values) { q.Set("Timestamp", "2026-01-02T03:04:06Z") }),
		"nonce":             query(func(q url.Values) { q.Set("SignatureNonce", "nonce-2") }),
		"access key":        query(func(q url.Values) { q.Set("AccessKeyId", "other") }),
		"token":             query(func(q url.Values) { q.Set("SecurityToken", "token") }),
		"method":            query(func(q url.Values) { q.Set("SignatureMethod", "HMAC-SHA256") }),
		"signature version": query(func(q url.Values) { q.Set("SignatureVersion", "2.0") }),
		"bearer":            query(func(q url.Values) { q.Set("SignatureType", "BEARERTOKEN") }),
		"signature empty":   query(func(q url.Values) { q.Set("Signature", "") }),
		"signature cut":     query(func(q url.Values) { q.Set("Signature", q.Get("Signature")[:20]) }),
		"signature's bits":  query(func(q url.Values) { q.Set("Signature", strings.TrimSuffix(q.Get("Signature"), "=")) }),
		"no action":         query(func(q url.Values) { q.Del("Action") }),
		"unsigned action": func(r *http.Request) {
			query(func(q url.Values) { q.Del("Action") })(r)
			header("x-acs-action", "Encrypt")(r)
		},
		"other action":  header("x-acs-action", "Decrypt"),
		"other version": header("x-acs-version", "2015-01-20"),
	}
	for _, s := range schemes {
		all := []map[string]func(*http.Request){both, headerSchemes}
		switch s.name {
		case "RPC":
			all[1] = v1
		case "ACS4":
			all = append(all, v4)
		}
		for _, set := range all {
			for name, change := range set {
				r := newRequest(t, "POST", "/?Action=Encrypt&Version=2016-01-20&KeyId=alias/a&Empty=", "Form=1")
				if err := s.sign(r, signing()); err != nil {
					t.Fatal(err)
				}
				v, _ := newTestVerifier(testTime)
				change(r)
				if code := codeOf(t, verify(t, v, r)); code == "" || code == UnknownAccessKey && name != "another key" && name != "bare acs3" {
					t.Errorf("%s: %s was changed: %q", s.name, name, code)
				}
			}
		}
	}
}

// TestCodes has one request for each code.
func TestCodes(t *testing.T) {
	for _, test := range []struct {
		name   string
		sign   func(*Signing)
		change func(*http.Request)
		want   Code
	}{
		{"nothing", nil, nil, ""},
		{"unknown key", func(s *Signing) { s.AccessKeyID = "nobody" }, nil, UnknownAccessKey},
		{"unknown key and wrong secret", func(s *Signing) { s.AccessKeyID, s.Secret = "nobody", []byte("x") }, nil, UnknownAccessKey},
		{"long key", func(s *Signing) { s.AccessKeyID = strings.Repeat("x", 129) }, nil, UnknownAccessKey},
		{"wrong secret", func(s *Signing) { s.Secret = []byte("x") }, nil, SignatureDoesNotMatch},
		{"disabled", func(s *Signing) { s.AccessKeyID = "off" }, nil, DisabledAccessKey},
		{"disabled, and wrong secret", func(s *Signing) { s.AccessKeyID, s.Secret = "off", []byte("x") }, nil, SignatureDoesNotMatch},
		{"just old enough", func(s *Signing) { s.Time = testTime.Add(MaxSkew) }, nil, ""},
		{"too new", func(s *Signing) { s.Time = testTime.Add(MaxSkew + time.Second) }, nil, ExpiredTimestamp},
		{"too old", func(s *Signing) { s.Time = testTime.Add(-MaxSkew - time.Second) }, nil, ExpiredTimestamp},
		{"before the start", func(s *Signing) { s.Time = testTime.Add(-time.Second) }, nil, TryAgain},
		{"not signed", nil, func(r *http.Request) { r.Header.Del("Authorization"); r.URL.RawQuery = "Action=Encrypt" }, MissingAccessKeyID},
		{"no signature", nil, func(r *http.Request) { r.Header.Del("Authorization"); r.URL.RawQuery = "AccessKeyId=testid" }, MissingSignature},
	} {
		for _, s := range schemes {
			r := newRequest(t, "GET", "/?Action=Encrypt&Version=2016-01-20", "")
			sg := signing()
			if test.sign != nil {
				test.sign(&sg)
			}
			if err := s.sign(r, sg); err != nil {
				t.Fatal(err)
			}
			if test.change != nil {
				test.change(r)
			}
			v, _ := newTestVerifier(testTime)
			if code := codeOf(t, verify(t, v, r)); code != test.want {
				t.Errorf("%s, %s: %q, want %q", s.name, test.name, code, test.want)
			}
		}
	}
	// What is missing in the parameters and in the headers.
	for name, want := range map[string]Code{"Timestamp": MissingTimestamp, "SignatureNonce": MissingSignatureNonce, "AccessKeyId": MissingAccessKeyID,
		"Action": MissingParameter, "Version": MissingParameter, "SignatureMethod": IncompleteSignature} {
		r := newRequest(t, "GET", "/?"+rpcQuery+"&Signature=x", "")
		q := r.URL.Query()
		q.Del(name)
		r.URL.RawQuery = q.Encode()
		v, _ := newTestVerifier(testTime)
		if code := codeOf(t, verify(t, v, r)); code != want {
			t.Errorf("without %s: %q, want %q", name, code, want)
		}
	}
	for name, want := range map[string]Code{"x-acs-date": MissingTimestamp, "x-acs-signature-nonce": MissingSignatureNonce, "x-acs-content-sha256": IncompleteSignature, "x-acs-action": IncompleteSignature} {
		r := newRequest(t, "GET", "/?Action=Encrypt&Version=2016-01-20", "")
		if err := SignACS3(r, signing()); err != nil {
			t.Fatal(err)
		}
		r.Header.Del(name)
		v, _ := newTestVerifier(testTime)
		if code := codeOf(t, verify(t, v, r)); code != want {
			t.Errorf("without %s: %q, want %q", name, code, want)
		}
	}
	for _, text := range []string{"2026-01-02T03:04:05", "2026-01-02 03:04:05Z", "2026-01-02T03:04:05.000Z", "2026-01-02T03:04:05+00:00", "2026-13-02T03:04:05Z", "x"} {
		r := newRequest(t, "GET", "/?"+strings.Replace(rpcQuery, "2026-01-02T03%3A04%3A05Z", url.QueryEscape(text), 1)+"&Signature=x", "")
		v, _ := newTestVerifier(testTime)
		if code := codeOf(t, verify(t, v, r)); code != BadTimestamp {
			t.Errorf("%s: %q", text, code)
		}
	}
}

// TestToken refuses a temporary token that is signed.
func TestToken(t *testing.T) {
	v, _ := newTestVerifier(testTime)
	r := newRequest(t, "GET", "/?Action=Encrypt&Version=2016-01-20&SecurityToken=x", "")
	if err := SignRPC(r, signing()); err != nil {
		t.Fatal(err)
	}
	if code := codeOf(t, verify(t, v, r)); code != TokenNotTaken {
		t.Errorf("%q", code)
	}
	r = newRequest(t, "GET", "/?Action=Encrypt&Version=2016-01-20", "")
	r.Header.Set("x-acs-security-token", "x")
	r.Header.Set("x-acs-accesskey-id", "testid")
	if err := SignACS3(r, signing()); err != nil {
		t.Fatal(err)
	}
	if code := codeOf(t, verify(t, v, r)); code != TokenNotTaken {
		t.Errorf("%q", code)
	}
	// An empty one is none.
	r = newRequest(t, "GET", "/?Action=Encrypt&Version=2016-01-20&SecurityToken=&SignatureType=", "")
	if err := SignRPC(r, signing()); err != nil {
		t.Fatal(err)
	}
	if err := verify(t, v, r); err != nil {
		t.Error(err)
	}
}

// TestStringToSign shows the caller what was compared, and nobody else.
func TestStringToSign(t *testing.T) {
	v, _ := newTestVerifier(testTime)
	r := newRequest(t, "GET", "/?"+rpcQuery+"&Signature=x", "")
	all, _ := params(t, r)
	_, err := v.Verify(t.Context(), r, all, lookup)
	var e *Error
	if !errors.As(err, &e) || e.Code != SignatureDoesNotMatch {
		t.Fatal(err)
	}
	want := "server string to sign is:GET&%2F&AccessKeyId%3Dtestid%26Action%3DEncrypt%26Format%3DJSON%26KeyId%3Dalias%252Fa%2520b%252A~%26Plaintext%3DaGVsbG8%252B%252Fw%253D%253D%26SignatureMethod%3DHMAC-SHA1%26SignatureNonce%3Dnonce-1%26SignatureVersion%3D1.0%26Timestamp%3D2026-01-02T03%253A04%253A05Z%26Version%3D2016-01-20"
	if !strings.HasSuffix(e.CallerMessage(), want) {
		t.Errorf("the caller is told %q", e.CallerMessage())
	}
	if strings.Contains(e.Error(), "aGVsbG8") {
		t.Errorf("the log is told %q", e.Error())
	}
	r = newRequest(t, "GET", "/?"+rpcQuery+"&Signature=x&More="+strings.Repeat("x", maxShown), "")
	all, _ = params(t, r)
	if _, err = v.Verify(t.Context(), r, all, lookup); !errors.As(err, &e) || e.StringToSign != "" {
		t.Errorf("a very long string is shown, or %v", err)
	}
}

// TestLookup passes on what a lookup says, and wipes the secret that it gave.
func TestLookup(t *testing.T) {
	v, _ := newTestVerifier(testTime)
	r := newRequest(t, "GET", "/?"+strings.Replace(rpcQuery, "testid", "broken", 1)+"&Signature=x", "")
	if err := verify(t, v, r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
	r = newRequest(t, "GET", "/?Action=Encrypt&Version=2016-01-20", "")
	if err := SignACS4(r, signing()); err != nil {
		t.Fatal(err)
	}
	key := bytes.Clone(testSecret)
	got, err := v.Verify(t.Context(), r, r.URL.Query(), func(context.Context, string) (Secret, error) { return Secret{Key: key, Enabled: true}, nil })
	if err != nil || got.AccessKeyID != "testid" || got.Scheme != ACS4 {
		t.Fatal(got, err)
	}
	if !bytes.Equal(key, make([]byte, len(key))) {
		t.Error("the secret was not wiped")
	}
	// An access key without a secret is none: nobody may sign with nothing.
	r.Header.Set("x-acs-signature-nonce", "2")
	if _, err := v.Verify(t.Context(), r, r.URL.Query(), func(context.Context, string) (Secret, error) { return Secret{Enabled: true}, nil }); codeOf(t, err) != UnknownAccessKey {
		t.Error(err)
	}
}

// TestCheckBodyRPC does not take a body that nobody signed.
func TestCheckBodyRPC(t *testing.T) {
	v := &Verified{Scheme: RPC}
	if err := v.CheckBody(nil); err != nil {
		t.Error(err)
	}
	if code := codeOf(t, v.CheckBody([]byte("{}"))); code != IncompleteSignature {
		t.Errorf("%q", code)
	}
}

// TestSignRefuses refuses what would not be verified.
func TestSignRefuses(t *testing.T) {
	const target = "/?Action=Encrypt&Version=2016-01-20"
	stream := newRequest(t, "POST", target, "x")
	stream.GetBody = nil
	json := newRequest(t, "POST", target, "{}")
	json.Header.Set("Content-Type", "application/json")
	double := newRequest(t, "POST", target, "")
	double.Header["X-Acs-More"] = []string{"1", "2"}
	for name, test := range map[string]struct {
		sign func(*http.Request, Signing) error
		r    *http.Request
	}{
		"a stream": {SignACS3, stream}, "a stream by RPC": {SignRPC, stream}, "JSON by RPC": {SignRPC, json}, "a header twice": {SignACS4, double},
		"no action": {SignACS3, newRequest(t, "GET", "/", "")}, "twice by RPC": {SignRPC, newRequest(t, "GET", target+"&A=1&A=1", "")},
		"twice": {SignACS3, newRequest(t, "GET", target+"&A=1&A=1", "")}, "bad query": {SignACS3, newRequest(t, "GET", target+"&A=%zz", "")},
		"bad query by RPC": {SignRPC, newRequest(t, "GET", target+"&A=%zz", "")},
	} {
		if err := test.sign(test.r, signing()); err == nil {
			t.Errorf("%s was signed", name)
		}
	}
	if err := SignRPC(newRequest(t, "GET", target, ""), Signing{AccessKeyID: "x"}); err == nil {
		t.Error("signed without a secret")
	}
	// What is left out is filled in.
	r := newRequest(t, "GET", target, "")
	if err := SignRPC(r, Signing{AccessKeyID: "testid", Secret: testSecret}); err != nil {
		t.Fatal(err)
	}
	v := NewVerifier(Options{})
	v.nonces.start = time.Time{}
	if err := verify(t, v, r); err != nil {
		t.Error(err)
	}
}

func TestCodesComplete(t *testing.T) {
	seen := map[Code]bool{}
	for _, c := range Codes() {
		if c == "" || seen[c] {
			t.Errorf("%q is empty or there twice", c)
		}
		seen[c] = true
	}
}

// FuzzSigned signs what it is given, verifies it, and changes one octet.
func FuzzSigned(f *testing.F) {
	f.Add(uint8(0), "KeyId", "alias/a b*~", "Form=1", uint16(7), uint8(1))
	f.Add(uint8(1), "", "", "", uint16(0), uint8(32))
	f.Add(uint8(2), "Ü", "\x00", "{}", uint16(100), uint8(255))
	f.Fuzz(func(t *testing.T, scheme uint8, name, value, body string, at uint16, flip uint8) {
		s := schemes[int(scheme)%len(schemes)]
		switch name {
		case "Action", "Version", "AccessKeyId", "Signature", "SignatureMethod", "SignatureVersion", "SignatureNonce", "Timestamp", "SignatureType", "SecurityToken":
			return
		}
		r := newRequest(t, "POST", "/?"+url.Values{"Action": {"Encrypt"}, "Version": {"2016-01-20"}, name: {value}}.Encode(), body)
		if s.sign(r, signing()) != nil {
			return // a body that is no form, or a parameter twice
		}
		form, err := url.ParseQuery(body)
		if err != nil && s.name == "RPC" {
			t.Fatal("a malformed form was signed")
		}
		if _, twice := form["SignatureType"]; twice || form.Has("SecurityToken") {
			return
		}
		v, _ := newTestVerifier(testTime)
		if err := verify(t, v, r); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if flip == 0 {
			return
		}
		// One octet of the query, as sent.
		before := r.URL.Query()
		q := []byte(r.URL.RawQuery)
		q[int(at)%len(q)] ^= flip
		after, err := url.ParseQuery(string(q))
		if err != nil {
			return
		}
		r.URL.RawQuery = string(q)
		v, _ = newTestVerifier(testTime)
		all := after
		if s.name == "RPC" {
			for n, list := range form {
				all[n] = append(slices.Clone(all[n]), list...)
				before[n] = append(before[n], list...)
			}
		}
		_, err = v.Verify(t.Context(), r, all, lookup)
		if same := before.Encode() == all.Encode(); (err == nil) != same {
			t.Fatalf("%s: %q became %q: %v", s.name, before.Encode(), all.Encode(), err)
		}
	})
}

// FuzzVerify gives the verifier anything.
func FuzzVerify(f *testing.F) {
	f.Add("POST", "a=1", "ACS3-HMAC-SHA256 Credential=testid,SignedHeaders=host,Signature=00", "host", "2026-01-02T03:04:05Z")
	f.Add("GET", rpcQuery+"&Signature=x", "", "", "")
	f.Add("GET", "", "ACS4-HMAC-SHA256 Credential=testid/20260102/center/Kms/aliyun_v4_request,SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,Signature=00", "x-acs-more", "2026-01-02T03:04:05Z")
	f.Fuzz(func(t *testing.T, method, query, authorization, header, date string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		r := &http.Request{Method: method, Host: header, URL: &url.URL{Path: "/", RawQuery: query}, ContentLength: int64(len(date)), Header: http.Header{
			"Authorization": {authorization}, "X-Acs-Date": {date}, "X-Acs-Signature-Nonce": {"1"}, "X-Acs-Action": {"Encrypt"}, "X-Acs-Version": {"2016-01-20"},
			"X-Acs-Content-Sha256": {hex.EncodeToString(make([]byte, sha256.Size))}, http.CanonicalHeaderKey(header): {"x"}}}
		v, _ := newTestVerifier(testTime)
		if _, err := v.Verify(t.Context(), r, q, lookup); err == nil {
			t.Fatal("a signature was guessed")
		}
	})
}
