package kmsapi

import (
	"bytes"
	"context"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
)

// hotCodec is a hot decoder with its type taken off, for tests that go over all of them.
type hotCodec struct {
	action string
	fresh  func() any
	decode func(query string, req any) bool
}

func codecOf[Req any](action string, decode func(string, *Req) bool) hotCodec {
	return hotCodec{action, func() any { return new(Req) }, func(query string, req any) bool { return decode(query, req.(*Req)) }}
}

var hotCodecs = []hotCodec{
	codecOf("Encrypt", decodeEncrypt),
	codecOf("Decrypt", decodeDecrypt),
	codecOf("GenerateDataKey", decodeGenerateDataKey),
	codecOf("AsymmetricSign", decodeAsymmetricSign),
	codecOf("AsymmetricVerify", decodeAsymmetricVerify),
}

// ordinary decodes a query the way that every action can be.
func ordinary(c hotCodec, query string) (any, bool) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, false
	}
	// Given at all, these must be given as they should be, and always the same.
	for name, want := range map[string]string{"Action": c.action, "Version": kmswire.APIVersion, "Format": "JSON"} {
		for _, v := range values[name] {
			if v != values[name][0] || v != want && (name != "Format" || v != "json") {
				return nil, false
			}
		}
	}
	req := c.fresh()
	if kmswire.Decode(values, req) != nil {
		return nil, false
	}
	return req, true
}

// compare checks that the hot decoder accepts no query that the ordinary one does not, with the same values. must says
// that it has to accept it if the ordinary one does.
func compare(t *testing.T, c hotCodec, query string, must bool) {
	t.Helper()
	got := c.fresh()
	accepted := c.decode(query, got)
	want, ok := ordinary(c, query)
	if accepted && !ok {
		t.Fatalf("%s: %q was accepted, as %+v", c.action, query, got)
	}
	if accepted && !reflect.DeepEqual(got, want) {
		t.Fatalf("%s: %q\n got %+v\nwant %+v", c.action, query, got, want)
	}
	if must && ok && !accepted {
		t.Fatalf("%s: %q was left to the ordinary way", c.action, query)
	}
}

var hotQueries = []string{
	"Action=Encrypt&KeyId=k&Plaintext=aGk%3D",
	"Action=Encrypt&KeyId=alias%2Fa+b%2A~&Plaintext=aGVsbG8%2B%2Fw%3D%3D&Format=JSON&Version=2016-01-20&RegionId=x%20y&EncryptionContext=%7B%22a%22%3A%22b%22%7D&DryRun=true",
	"Action=Decrypt&CiphertextBlob=AAAA%0AAAAA&Recipient=&DryRun=",
	"Action=GenerateDataKey&KeyId=k&NumberOfBytes=0&KeySpec=AES_256&&",
	"KeyId=k&KeyVersionId=v&Algorithm=ECDSA_SHA_256&Digest=AAAA&Value=BBBB&DryRun=false",
	"Action=Encrypt&KeyId=k&Plaintext=aGk=&Plaintext=aGk=", "KeyId=k;Plaintext=aGk=", "KeyId=k&Plaintext=aG+k=", "KeyId=k&Plaintext=aGl=", "KeyId=k&Plaintext=aGk",
	"KeyId=k&Plaintext=aGk=%3", "KeyId=k&Plaintext=aGk=%zz", "KeyId=k&Plaintext=aGk=&x=%zz", "KeyId=k&Plaintext=aGk=&%zz=x", "KeyId=k&Plaintext=aGk=&Key%49d=l", "KeyId=%ff&Plaintext=aGk=",
	"KeyId=%00&Plaintext=aGk=", "KeyId=&Plaintext=aGk=", "KeyId=k&Plaintext=", "KeyId=k&Plaintext=%0A", "KeyId=k&Plaintext=%20", "KeyId&Plaintext=aGk=", "Action=&KeyId=k&Plaintext=aGk=",
	"KeyId=k&Plaintext=aGk=&EncryptionContext={}", "KeyId=k&Plaintext=aGk=&EncryptionContext=%20", "KeyId=k&Plaintext=aGk=&EncryptionContext=null", "KeyId=k&Plaintext=aGk=&DryRun=True",
	"KeyId=k&Plaintext=aGk=&Version=&Format=", "KeyId=k&Plaintext=aGk=&Format=xml", "KeyId=k&NumberOfBytes=+5", "KeyId=k&NumberOfBytes=%2B5", "KeyId=k&NumberOfBytes=-5", "KeyId=k&NumberOfBytes=1e3", "=&KeyId=k",
	"KeyId=k&Plaintext=%61%47%6b%3d", "KeyId=k&Plaintext=aGk%3d%0d%0a", "KeyId=k&Plaintext=aGk%3d%09", "KeyId=k&Plaintext=aG=k",
}

func TestHotDecodersAgree(t *testing.T) {
	for _, c := range hotCodecs {
		for _, query := range hotQueries {
			compare(t, c, query, false)
		}
		compare(t, c, "KeyId=k&Plaintext=aGk="+strings.Repeat("&x=y", 20000), false)
	}
}

// What clients send must go the hot way, or it is of no use.
func TestHotDecodersAccept(t *testing.T) {
	for i, codec := range []int{0, 0, 1, 2, 4} {
		c, query := hotCodecs[codec], hotQueries[i]
		if got := c.fresh(); !c.decode(query, got) {
			t.Errorf("%s: %q was left to the ordinary way", c.action, query)
		}
		compare(t, c, query, true)
	}
}

func FuzzHotDecode(f *testing.F) {
	for _, query := range hotQueries {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		for _, c := range hotCodecs {
			compare(t, c, query, false)
		}
	})
}

// Every request that a client of ours can encode is decoded the hot way, to the same request.
func FuzzHotRequests(f *testing.F) {
	f.Add("k", "v", []byte("data"), []byte("more"), "a", "b", 32, true)
	f.Add("alias/x y", "\u2028", []byte{0xfb, 0xef, 0xbe}, []byte{}, "", "", 0, false)
	f.Fuzz(func(t *testing.T, key, text string, data, more []byte, name, value string, n int, dry bool) {
		var context map[string]string
		if dry || name != "" {
			context = map[string]string{name: value}
		}
		for i, req := range []any{
			kmswire.EncryptRequest{KeyID: key, Plaintext: data, EncryptionContext: context, DryRun: dry},
			kmswire.DecryptRequest{CiphertextBlob: data, EncryptionContext: context, Recipient: text, DryRun: dry},
			kmswire.GenerateDataKeyRequest{KeyID: key, KeySpec: text, NumberOfBytes: &n, EncryptionContext: context, Recipient: value, DryRun: dry},
			kmswire.AsymmetricSignRequest{KeyID: key, KeyVersionID: text, Algorithm: kmswire.Algorithm(name), Digest: data, DryRun: dry},
			kmswire.AsymmetricVerifyRequest{KeyID: key, KeyVersionID: text, Algorithm: kmswire.Algorithm(name), Digest: data, Value: more, DryRun: dry},
		} {
			values, err := kmswire.Encode(req)
			if err != nil {
				continue
			}
			values.Set("Action", hotCodecs[i].action)
			compare(t, hotCodecs[i], values.Encode(), true)
		}
	})
}

func FuzzHotAnswers(f *testing.F) {
	f.Add("id", "k", "v", []byte("data"), []byte("more"), true)
	f.Add("\"\\\x00\x7f\u2028<>&", "\xff", "é", []byte{}, []byte(nil), false)
	f.Fuzz(func(t *testing.T, id, key, version string, data, more []byte, good bool) {
		a := kmswire.Answer{RequestID: id}
		check := func(hot, ordinary []byte) {
			t.Helper()
			if !bytes.Equal(hot, ordinary) {
				t.Fatalf("\n got %s\nwant %s", hot, ordinary)
			}
		}
		enc := kmswire.EncryptResponse{Answer: a, KeyID: key, KeyVersionID: version, CiphertextBlob: data}
		check(appendEncrypt([]byte("x"), &enc), appendAnswer([]byte("x"), &enc))
		dec := kmswire.DecryptResponse{Answer: a, KeyID: key, KeyVersionID: version, Plaintext: data}
		check(appendDecrypt(nil, &dec), appendAnswer(nil, &dec))
		gen := kmswire.GenerateDataKeyResponse{Answer: a, KeyID: key, KeyVersionID: version, Plaintext: data, CiphertextBlob: more}
		check(appendGenerateDataKey(nil, &gen), appendAnswer(nil, &gen))
		sign := kmswire.AsymmetricSignResponse{Answer: a, KeyID: key, KeyVersionID: version, Value: data}
		check(appendAsymmetricSign(nil, &sign), appendAnswer(nil, &sign))
		verify := kmswire.AsymmetricVerifyResponse{Answer: a, KeyID: key, KeyVersionID: version, Value: good}
		check(appendAsymmetricVerify(nil, &verify), appendAnswer(nil, &verify))
		keys := kmswire.BatchGenerateDataKeyResponse{Answer: a, KeyID: key, KeyVersionID: version}
		check(appendBatchGenerateDataKey([]byte("x"), &keys), appendAnswer([]byte("x"), &keys))
		keys.Items = []kmswire.BatchDataKey{{Plaintext: data, CiphertextBlob: append([]byte{1}, more...)},
			{ItemError: &kmswire.ItemError{Code: key, Message: version}}, {CiphertextBlob: []byte{1}}}
		check(appendBatchGenerateDataKey(nil, &keys), appendAnswer(nil, &keys))
	})
}

// The SDKs that sign in headers name the action in one, and nowhere else. They get the hot path too, with its checks.
func TestHotActionInTheHeader(t *testing.T) {
	row := hotOp("Encrypt", benchEncrypt, decodeEncrypt, appendEncrypt)
	row.run = func(*call) error { return kms.Errorf(kms.Throttled, "not hot") }
	h := newHandler(nil, Options{}, []operation{row})
	for _, c := range []struct {
		query  string
		header []string
		hot    bool
	}{
		{"KeyId=k&Plaintext=aGk%3D", []string{"Encrypt"}, true},
		{"KeyId=k&Plaintext=aGk%3D&Action=Encrypt", []string{"Encrypt"}, true},
		{"KeyId=k&Plaintext=aGk%3D&Action=Encrypt", nil, true},
		{"KeyId=k&Plaintext=aGk%3D", []string{"Encrypt", "Decrypt"}, false},
		{"KeyId=k&Plaintext=aGk%3D", []string{""}, false},
		{"KeyId=k&Plaintext=aGk%3D&Action=", []string{"Encrypt"}, false},
		{"KeyId=k&Plaintext=aGk%3D&Action=Decrypt", []string{"Encrypt"}, false},
		{"KeyId=k&Plaintext=aGk%3D&%41ction=Decrypt", []string{"Encrypt"}, false},
	} {
		r := httptest.NewRequestWithContext(WithActor(context.Background(), testActor), "POST", "/?"+c.query, nil)
		if c.header != nil {
			r.Header["X-Acs-Action"] = c.header
		}
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); (w.Code == 200) != c.hot {
			t.Errorf("%s with %q: %d %s", c.query, c.header, w.Code, w.Body)
		}
	}
}

// What encoding/json renders stays in its pools, so it must not see plaintext; and the buffer must not grow on the way,
// because the octets that it leaves behind are not wiped.
func TestDataKeysAreRenderedInPlace(t *testing.T) {
	resp := &kmswire.BatchGenerateDataKeyResponse{Items: make([]kmswire.BatchDataKey, 10)}
	for i := range resp.Items {
		resp.Items[i] = kmswire.BatchDataKey{Plaintext: make([]byte, 1024), CiphertextBlob: make([]byte, 1152)}
	}
	if allocs := testing.AllocsPerRun(100, func() { appendBatchGenerateDataKey(nil, resp) }); allocs > 2 { // one more than needed under the race detector
		t.Errorf("%v allocations", allocs)
	}
}

// An answer that was rendered does not keep plaintext in memory.
func TestPlaintextIsWiped(t *testing.T) {
	plaintext := []byte("secret")
	wipeAnswer(&kmswire.DecryptResponse{Plaintext: plaintext})
	if !bytes.Equal(plaintext, make([]byte, 6)) {
		t.Errorf("%q", plaintext)
	}
	buf := &buffer{append(make([]byte, 0, 16), "secret"...)}
	held := buf.b
	buf.release()
	if !bytes.Equal(held, make([]byte, 6)) {
		t.Errorf("%q", held)
	}
}
