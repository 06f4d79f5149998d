package kmsapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmssign"
	"github.com/keyward/keyward/kms/kmswire"
)

// testKeys are access keys of the test actor: "on", "off", and one that can't be looked up.
type testKeys struct {
	lookups atomic.Int64
	clock   atomic.Pointer[error] // why the clock is not trusted
}

func (k *testKeys) ClockTrusted() error {
	if why := k.clock.Load(); why != nil {
		return *why
	}
	return nil
}

const testSecret = "a secret of 30 octets, or so.."

func (k *testKeys) AccessKey(_ context.Context, id string) ([]byte, string, string, bool, error) {
	k.lookups.Add(1)
	switch id {
	case "on", "off":
		return []byte(testSecret), testActor.Principal, testActor.Account, id == "on", nil
	case "broken":
		return nil, "", "", false, kms.Errorf(kms.StoreUnavailable, "")
	}
	return nil, "", "", false, kms.Errorf(kms.ResourceNotFound, "")
}

// signedServer is the handler for a network, with TLS, and a client for it.
type signedServer struct {
	*http.Client
	url   string
	keys  *testKeys
	log   *bytes.Buffer
	actor atomic.Pointer[kms.Actor] // of the last call
}

func newSignedServer(t testing.TB, http2 bool) *signedServer {
	s := &signedServer{keys: &testKeys{}, log: &bytes.Buffer{}}
	table := append(testTable(), op("DescribeKey", func(_ *kms.Service, _ context.Context, actor *kms.Actor, _ *kmswire.DescribeKeyRequest) (*kmswire.DescribeKeyResponse, error) {
		s.actor.Store(actor)
		return &kmswire.DescribeKeyResponse{}, nil
	}))
	h := newHandler(nil, Options{Log: zerolog.New(zerolog.SyncWriter(s.log)), AccessKeys: s.keys, BodyTimeout: 10 * time.Second}, table)
	server := httptest.NewUnstartedServer(h)
	server.EnableHTTP2 = http2
	server.Config.WriteTimeout = time.Minute
	server.StartTLS()
	t.Cleanup(server.Close)
	s.Client, s.url = server.Client(), server.URL
	return s
}

// testSchemes are the three ways of signing.
var testSchemes = []struct {
	name string
	sign func(*http.Request, kmssign.Signing) error
}{{"RPC", kmssign.SignRPC}, {"ACS3", kmssign.SignACS3}, {"ACS4", kmssign.SignACS4}}

// signing signs as the access key. Its clock is a second ahead, so that no request is from before the verifier's start.
func signing(id string) kmssign.Signing {
	return kmssign.Signing{AccessKeyID: id, Secret: []byte(testSecret), Time: time.Now().Add(time.Second)}
}

func (s *signedServer) request(t testing.TB, method string, params url.Values, body, mediaType string) *http.Request {
	t.Helper()
	params.Set("Version", kmswire.APIVersion)
	r, err := http.NewRequest(method, s.url+"/?"+params.Encode(), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if mediaType != "" {
		r.Header.Set("Content-Type", mediaType)
	}
	return r
}

// do sends a request and gives status, body, and the code of an error.
func (s *signedServer) do(t testing.TB, r *http.Request) (status int, body, code string) {
	t.Helper()
	resp, err := s.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		var e kmswire.ErrorBody
		if err := json.Unmarshal(text, &e); err != nil || e.Code == "" || e.Message == "" || e.RequestID == "" || e.HostID != r.URL.Host || e.HTTPStatus != resp.StatusCode {
			t.Fatalf("%d %s: %v", resp.StatusCode, text, err)
		}
		code = e.Code
	}
	return resp.StatusCode, string(text), code
}

// both runs a test over HTTP/1.1 and HTTP/2.
func both(t *testing.T, test func(t *testing.T, s *signedServer)) {
	for _, http2 := range []bool{false, true} {
		t.Run(map[bool]string{false: "HTTP1", true: "HTTP2"}[http2], func(t *testing.T) { test(t, newSignedServer(t, http2)) })
	}
}

const formMedia = "application/x-www-form-urlencoded"

// TestSigned calls with every scheme, as the SDKs do and as others may.
func TestSigned(t *testing.T) {
	both(t, func(t *testing.T, s *signedServer) {
		encrypt := func() url.Values {
			return url.Values{"Action": {"Encrypt"}, "KeyId": {"k"}, "Plaintext": {"aGk+"}, "EncryptionContext": {`{"a":"1 *~ü"}`}}
		}
		for _, scheme := range testSchemes {
			for _, method := range []string{"GET", "POST"} {
				r := s.request(t, method, encrypt(), "", "")
				if err := scheme.sign(r, signing("on")); err != nil {
					t.Fatal(err)
				}
				if status, body, _ := s.do(t, r); status != 200 || !strings.Contains(body, `"CiphertextBlob"`) {
					t.Errorf("%s %s: %d %s", scheme.name, method, status, body)
				}
			}
			// The parameters in a form; the action of the header schemes in the header only.
			r := s.request(t, "POST", url.Values{"Action": {"Encrypt"}}, "KeyId=k&Plaintext=aGk%2B&DryRun=", formMedia)
			if err := scheme.sign(r, signing("on")); err != nil {
				t.Fatal(err)
			}
			if scheme.name != "RPC" {
				r.URL.RawQuery = ""
				if err := scheme.sign(r, signing("on")); err != nil {
					t.Fatal(err)
				}
			}
			if status, body, _ := s.do(t, r); status != 200 || !strings.Contains(body, `"CiphertextBlob"`) {
				t.Errorf("%s, form: %d %s", scheme.name, status, body)
			}
			// XML, of an answer and of an error.
			for key, want := range map[string]string{"k": "<EncryptResponse>", "l": "<Error>"} {
				p := encrypt()
				p.Set("Format", "XML")
				p.Set("KeyId", key)
				r = s.request(t, "POST", p, "", "")
				if err := scheme.sign(r, signing("on")); err != nil {
					t.Fatal(err)
				}
				if _, body, _ := s.do(t, r); !strings.Contains(body, want) {
					t.Errorf("%s: %s", scheme.name, body)
				}
			}
			// A long query.
			p := encrypt()
			p.Set("EncryptionContext", `{"a":"`+strings.Repeat("ü", 30<<10)+`"}`)
			p.Set("Unknown", strings.Repeat("+", 100<<10))
			r = s.request(t, "POST", p, "", "")
			if err := scheme.sign(r, signing("on")); err != nil {
				t.Fatal(err)
			}
			if status, _, code := s.do(t, r); status == 431 || status == 413 || code == "SignatureDoesNotMatch" || code == "IncompleteSignature" {
				t.Errorf("%s: %d octets of query: %d %s", scheme.name, len(r.URL.RawQuery), status, code)
			}
		}
	})
}

// TestSignedActor has in the actor who called, from where, with which access key.
func TestSignedActor(t *testing.T) {
	both(t, func(t *testing.T, s *signedServer) {
		r := s.request(t, "POST", url.Values{"Action": {"DescribeKey"}, "KeyId": {"k"}}, "", "")
		if err := kmssign.SignACS3(r, signing("on")); err != nil {
			t.Fatal(err)
		}
		if status, body, _ := s.do(t, r); status != 200 {
			t.Fatal(status, body)
		}
		a := s.actor.Load()
		if a.Principal != testActor.Principal || a.Account != testActor.Account || a.Door != kms.DoorAPI || a.AccessKeyID != "on" ||
			a.SourceIP != netip.MustParseAddr("127.0.0.1") || !strings.HasPrefix(a.RemoteAddr, "127.0.0.1:") {
			t.Errorf("%+v", a)
		}
	})
}

// TestSignedRefusals has what is refused before the service is asked.
func TestSignedRefusals(t *testing.T) {
	both(t, func(t *testing.T, s *signedServer) {
		replayed := s.request(t, "GET", url.Values{"Action": {"Encrypt"}, "KeyId": {"k"}, "Plaintext": {"aGk="}}, "", "")
		if err := kmssign.SignRPC(replayed, signing("on")); err != nil {
			t.Fatal(err)
		}
		if status, body, _ := s.do(t, replayed); status != 200 {
			t.Fatal(status, body)
		}
		if status, _, code := s.do(t, replayed); status != 400 || code != "SignatureNonceUsed" {
			t.Errorf("replayed: %d %s", status, code)
		}
		for _, test := range []struct {
			name   string
			id     string // empty: not signed
			change func(*kmssign.Signing)
			body   string
			media  string
			status int
			code   string
		}{
			{"anonymous", "", nil, "", "", 400, "MissingAccessKeyId"},
			{"anonymous with a form", "", nil, "Format=JSON", formMedia, 400, "MissingAccessKeyId"},
			{"anonymous with a batch", "", nil, "{}", "application/json", 400, "MissingAccessKeyId"},
			{"unknown", "nobody", nil, "", "", 404, "InvalidAccessKeyId.NotFound"},
			{"disabled", "off", nil, "", "", 403, "Forbidden.AccessKey"},
			{"wrong secret", "on", func(s *kmssign.Signing) { s.Secret = []byte("x") }, "", "", 400, "SignatureDoesNotMatch"},
			{"old", "on", func(s *kmssign.Signing) { s.Time = time.Now().Add(-time.Hour) }, "", "", 400, "InvalidTimeStamp.Expired"},
			{"before the start", "on", func(s *kmssign.Signing) { s.Time = time.Now().Add(-time.Minute) }, "", "", 503, "ServiceUnavailableTemporary"},
			{"no store", "broken", nil, "", "", 503, "ServiceUnavailableTemporary"},
		} {
			for _, scheme := range testSchemes {
				r := s.request(t, "POST", url.Values{"Action": {"Encrypt"}, "KeyId": {"k"}, "Plaintext": {"c2VjcmV0IQ=="}}, test.body, test.media)
				if test.id != "" {
					sg := signing(test.id)
					if test.change != nil {
						test.change(&sg)
					}
					if err := scheme.sign(r, sg); err != nil {
						t.Fatal(err)
					}
				}
				status, body, code := s.do(t, r)
				if status != test.status || code != test.code {
					t.Errorf("%s, %s: %d %s", scheme.name, test.name, status, body)
				}
				if code == "SignatureDoesNotMatch" && !strings.Contains(body, "server string to sign is:") {
					t.Errorf("%s: no string to sign in %s", scheme.name, body)
				}
			}
		}
		// Other paths and methods need no signature to be told that they are not there.
		for target, want := range map[string]int{"/v1/status": 404, "/metrics": 404} {
			resp, err := s.Get(s.url + target)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != want || resp.Header.Get("Content-Type") != "application/json;charset=utf-8" {
				t.Errorf("%s: %v", target, resp)
			}
		}
		r := s.request(t, "PUT", url.Values{}, "", "")
		if status, _, code := s.do(t, r); status != 405 || code != "UnsupportedHTTPMethod" {
			t.Errorf("PUT: %d %s", status, code)
		}
		if log := s.log.String(); strings.Contains(log, "c2VjcmV0IQ") || strings.Contains(log, testSecret) {
			t.Errorf("the log has a parameter in it:\n%s", log)
		}
	})
}

// TestSignedActionInHeader does not let a header that is not signed say what is done.
func TestSignedActionInHeader(t *testing.T) {
	s := newSignedServer(t, false)
	r := s.request(t, "POST", url.Values{"Action": {"Encrypt"}, "KeyId": {"k"}, "Plaintext": {"aGk="}}, "", "")
	if err := kmssign.SignRPC(r, signing("on")); err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Acs-Action", "Decrypt")
	if status, body, code := s.do(t, r); code != "IncompleteSignature" {
		t.Errorf("%d %s", status, body)
	}
	r.Header.Set("X-Acs-Action", "Encrypt")
	if status, body, _ := s.do(t, r); status != 200 {
		t.Errorf("%d %s", status, body)
	}
}

// TestSignedBatch sends batches of all three types, and bodies that are not what was signed.
func TestSignedBatch(t *testing.T) {
	both(t, func(t *testing.T, s *signedServer) {
		params := func() url.Values { return url.Values{"Action": {"BatchEncrypt"}, "KeyId": {"k"}} }
		bodies := map[string]string{
			typeJSON:   `{"Items":[{"Plaintext":"YQ=="},{"Plaintext":"Yg=="}]}`,
			typeLines:  "{\"Plaintext\":\"YQ==\"}\n{\"Plaintext\":\"Yg==\"}\n",
			typeOctets: "\x00\x00\x00\x01a\x00\x00\x00\x01b",
		}
		for media, body := range bodies {
			r := s.request(t, "POST", params(), body, media)
			if err := kmssign.SignACS3(r, signing("on")); err != nil {
				t.Fatal(err)
			}
			status, answer, _ := s.do(t, r)
			if status != 200 || media == typeOctets && len(answer) != 12 || media != typeOctets && strings.Count(answer, "CiphertextBlob") != 2 {
				t.Errorf("%s: %d %q", media, status, answer)
			}
			// Another body, and one that is cut.
			for _, other := range []string{strings.Replace(body, "a", "b", 1) + "\n", body[:len(body)-1], ""} {
				r := s.request(t, "POST", params(), body, media)
				if err := kmssign.SignACS3(r, signing("on")); err != nil {
					t.Fatal(err)
				}
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader(other)), -1
				if status, answer, code := s.do(t, r); code != "IncompleteSignature" {
					t.Errorf("%s, another body: %d %q", media, status, answer)
				}
			}
			// A signature that does not cover the body.
			r = s.request(t, "POST", params(), "", "")
			if err := kmssign.SignRPC(r, signing("on")); err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", media)
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
			if status, answer, code := s.do(t, r); code != "UnsupportedMediaType" {
				t.Errorf("%s, by RPC: %d %q", media, status, answer)
			}
		}
	})
}

// TestUnknownBodies reads no body of a caller that is not known, and of a form no more than one may have.
func TestUnknownBodies(t *testing.T) {
	h := newHandler(nil, Options{AccessKeys: &testKeys{}}, testTable())
	for _, media := range []string{typeJSON, typeLines, typeOctets, formMedia} {
		r := httptest.NewRequest("POST", "/?Action=BatchEncrypt&Version=2016-01-20&KeyId=k", nil)
		r.Body = http.NoBody
		r.Header.Set("Content-Type", media)
		sg := signing("on")
		sg.Secret = []byte("guess")
		if err := kmssign.SignACS3(r, sg); err != nil {
			t.Fatal(err)
		}
		r.Body, r.ContentLength = io.NopCloser(readerFunc(func([]byte) (int, error) { t.Error("the body is read"); return 0, io.EOF })), 1000
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); !strings.Contains(w.Body.String(), "SignatureDoesNotMatch") {
			t.Errorf("%s: %d %s", media, w.Code, w.Body)
		}
	}
	read := 0
	endless := func(b []byte) (int, error) { read += len(b); return len(b), nil }
	r := httptest.NewRequest("POST", "/?Action=Encrypt", readerFunc(endless))
	r.ContentLength = -1
	r.Header.Set("Content-Type", formMedia)
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != 413 || read > 2*maxForm {
		t.Errorf("%d %s after %d octets", w.Code, w.Body, read)
	}
}

type readerFunc func([]byte) (int, error)

func (read readerFunc) Read(b []byte) (int, error) { return read(b) }

// TestUnknownBodiesAreFew reads only so many forms of unknown callers at a time; the others, and whoever sends no form, are
// served all the same.
func TestUnknownBodiesAreFew(t *testing.T) {
	s := newSignedServer(t, true)
	h := newHandler(nil, Options{AccessKeys: s.keys, BodyTimeout: 50 * time.Millisecond}, testTable())
	for range maxUnknownBodies {
		h.signatures.bodies <- struct{}{}
	}
	form := func() *http.Request {
		r := s.request(t, "POST", url.Values{"Action": {"Encrypt"}, "KeyId": {"k"}}, "Plaintext=aGk%3D", formMedia)
		if err := kmssign.SignRPC(r, signing("on")); err != nil {
			t.Fatal(err)
		}
		return r
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, form())
	if !strings.Contains(w.Body.String(), "Throttling") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	r := s.request(t, "GET", url.Values{"Action": {"Encrypt"}, "KeyId": {"k"}, "Plaintext": {"aGk="}}, "", "")
	r.Body, r.ContentLength = http.NoBody, 0
	if err := kmssign.SignRPC(r, signing("on")); err != nil {
		t.Fatal(err)
	}
	w = httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestContextIsNoDoor takes no actor from the context where signatures are asked for.
func TestContextIsNoDoor(t *testing.T) {
	h := newHandler(nil, Options{AccessKeys: &testKeys{}}, testTable())
	r := httptest.NewRequest("GET", "/?Action=Encrypt&KeyId=k&Plaintext=aGk%3D", nil)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r.WithContext(WithActor(r.Context(), testActor)))
	if w.Code != 400 || !strings.Contains(w.Body.String(), "MissingAccessKeyId") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestSignStatus has a status for each code that kmssign can refuse with.
func TestSignStatus(t *testing.T) {
	for _, code := range kmssign.Codes() {
		if status := signStatus[code]; status < 400 || status > 599 {
			t.Errorf("%s has the status %d", code, status)
		}
	}
	if len(signStatus) != len(kmssign.Codes()) {
		t.Errorf("%d statuses for %d codes", len(signStatus), len(kmssign.Codes()))
	}
	e, internal := describe(errors.Join(&kmssign.Error{Code: kmssign.UnknownAccessKey, Detail: "It."}))
	if e.code != "InvalidAccessKeyId.NotFound" || e.message != "It." || internal {
		t.Errorf("%+v", e)
	}
}

func BenchmarkSigned(b *testing.B) {
	h := newHandler(nil, Options{AccessKeys: &testKeys{}}, testTable())
	for _, scheme := range testSchemes {
		b.Run(scheme.name, func(b *testing.B) {
			all := make([]*http.Request, b.N)
			for i := range all {
				r := httptest.NewRequest("POST", "/?Action=Encrypt&Version=2016-01-20&KeyId=k&Plaintext="+strings.Repeat("YWFh", 340), nil)
				r.Body, r.ContentLength = http.NoBody, 0
				if err := scheme.sign(r, signing("on")); err != nil {
					b.Fatal(err)
				}
				all[i] = r
			}
			b.ReportAllocs()
			b.ResetTimer()
			for _, r := range all {
				w := httptest.NewRecorder()
				if h.ServeHTTP(w, r); w.Code != 200 {
					b.Fatal(w.Code, w.Body)
				}
			}
		})
	}
}

// A clock that can't be right says nothing of the age of a signature: what was signed long ago would be taken again.
func TestSignedWithoutClock(t *testing.T) {
	both(t, func(t *testing.T, s *signedServer) {
		why := errors.New("the clock says 1999")
		s.keys.clock.Store(&why)
		signed := func(scheme func(*http.Request, kmssign.Signing) error, id string, params url.Values) (int, string, string) {
			r := s.request(t, http.MethodPost, params, "", "")
			if err := scheme(r, signing(id)); err != nil {
				t.Fatal(err)
			}
			return s.do(t, r)
		}
		for _, scheme := range testSchemes {
			for _, id := range []string{"on", "nobody"} {
				status, body, code := signed(scheme.sign, id, url.Values{"Action": {"DescribeKey"}, "KeyId": {"k"}})
				if status != http.StatusServiceUnavailable || code != string(kmssign.TryAgain) || strings.Contains(body, "1999") {
					t.Errorf("%s of %s: %d %s", scheme.name, id, status, body)
				}
			}
		}
		if status, body, _ := signed(kmssign.SignRPC, "on", url.Values{"Action": {"DescribeKey"}, "KeyId": {"k"}, "Format": {"XML"}}); status != http.StatusServiceUnavailable || !strings.Contains(body, "<Code>"+string(kmssign.TryAgain)) {
			t.Errorf("as XML: %d %s", status, body)
		}
		if s.actor.Load() != nil || s.keys.lookups.Load() != 0 {
			t.Error("a request was heard while the clock was not trusted")
		}
		s.keys.clock.Store(nil)
		if status, body, _ := signed(kmssign.SignACS3, "on", url.Values{"Action": {"DescribeKey"}, "KeyId": {"k"}}); status != http.StatusOK {
			t.Errorf("with the clock right again: %d %s", status, body)
		}
	})
}
