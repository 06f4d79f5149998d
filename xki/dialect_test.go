package xki

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// messages are a full request of each operation and a full answer to it.
func messages() map[Operation]struct {
	r *Request
	a *Answer
} {
	sealed := Sealed{Ciphertext: []byte("abc"), IV: make([]byte, 12), Tag: make([]byte, TagSize), Metadata: []byte{1, 0, 0, 0, 7}}
	meta := RequestMetadata{PrincipalARN: "p", KeyARN: "k", Operation: "Op", RequestID: "r", ViaService: "v", SourceVPC: "c"}
	aad := []byte("a")
	return map[Operation]struct {
		r *Request
		a *Answer
	}{
		OpMetadata: {&Request{Metadata: meta}, &Answer{Key: KeyMetadata{SpecAES256, []string{UsageEncrypt, UsageDecrypt}, StatusEnabled}}},
		OpEncrypt: {&Request{Metadata: meta, Plaintext: []byte("xyz"), Algorithm: AlgorithmGCM, AAD: aad, IntegrityAlgorithm: IntegritySHA256},
			&Answer{Sealed: sealed, Integrity: sealed.integrity(aad)}},
		OpDecrypt: {&Request{Metadata: meta, Sealed: sealed, Algorithm: AlgorithmGCM, AAD: aad}, &Answer{Plaintext: []byte("xyz")}},
		OpHealth: {&Request{Metadata: meta}, &Answer{Health: Health{Vendor: "v", Model: "m", Manager: "k", Status: Active,
			Fleet: []Member{{"1", "m", Active}}}}},
		OpRandom: {&Request{Metadata: meta, Length: 4}, &Answer{Random: []byte("1234"), OutForm: "PLAIN"}},
	}
}

func TestRoundTrip(t *testing.T) {
	for _, d := range Dialects {
		for op, m := range messages() {
			if !d.Has(op) {
				continue
			}
			r, a := m.r, m.a
			r.Op = op
			if op.ofKey() {
				r.KeyID = "ext.1"
			}
			if d == XKIv1 {
				r.IntegrityAlgorithm, a.Integrity, a.Health.Fleet = "", nil, nil
				a.RequestID = "id"
			} else {
				a.Health.Status = ""
			}
			body, err := d.EncodeRequest(r)
			if err != nil {
				t.Fatal(err)
			}
			path := strings.TrimPrefix(d.path(op, r.KeyID), d.base)
			gotOp, id, ok := d.Route(path)
			if gotOp != op || id != r.KeyID || !ok {
				t.Errorf("%s: %s is %v of %q", d.name, path, gotOp, id)
			}
			got, err := d.DecodeRequest(op, r.KeyID, body)
			if err != nil || !reflect.DeepEqual(got, r) {
				t.Errorf("%s, %v: %s is\n%+v instead of\n%+v, %v", d.name, op, body, got, r, err)
			}
			if body, err = d.EncodeAnswer(op, a); err != nil {
				t.Fatal(err)
			}
			gotA, err := d.DecodeAnswer(r, body)
			if err != nil || !reflect.DeepEqual(gotA, a) {
				t.Errorf("%s, %v: %s is\n%+v instead of\n%+v, %v", d.name, op, body, gotA, a, err)
			}
		}
	}
}

// Each code that proxies answer has a name of its own in each dialect, and is read again.
func TestErrors(t *testing.T) {
	for _, d := range Dialects {
		for code := Validation; code < BadAnswer; code++ {
			status, body := d.EncodeError(&Error{Code: code, Detail: "schön\n" + strings.Repeat("x", 600)}, "id")
			if status < 400 || status > 599 || codeNames[code] == "" {
				t.Errorf("%s: %v is %d", d.name, code, status)
			}
			var members map[string]string
			if err := json.Unmarshal(body, &members); err != nil {
				t.Fatal(err)
			}
			for _, text := range members {
				if len(text) > maxMessage || strings.Trim(text, printable) != "" {
					t.Errorf("%s, %v: %q", d.name, code, text)
				}
			}
			want := code
			if code == MethodNotAllowed && d == XKSv1 {
				want = BadAnswer // it has no name there
			}
			if got := d.DecodeError(status, body); got.Code != want {
				t.Errorf("%s: %v of %s is read as %v", d.name, code, body, got.Code)
			}
		}
		for status, want := range map[int]Code{200: BadAnswer, 302: BadAnswer, 401: AuthenticationFailed, 429: Throttling, 503: DependencyTimeout, 500: BadAnswer} {
			if got := d.DecodeError(status, []byte("<html>")); got.Code != want {
				t.Errorf("%s: %d with HTML is %v", d.name, status, got.Code)
			}
		}
	}
}

const printable = " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"

func b64(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }

// What is wrong with a request's members, one at a time.
func TestBadRequests(t *testing.T) {
	meta := map[string]any{"awsPrincipalArn": "p", "kmsKeyArn": "k", "kmsOperation": "Encrypt", "kmsRequestId": "r"}
	good := map[Operation]map[string]any{
		OpEncrypt: {"requestMetadata": meta, "plaintext": b64(3), "encryptionAlgorithm": AlgorithmGCM},
		OpDecrypt: {"requestMetadata": meta, "ciphertext": b64(3), "encryptionAlgorithm": AlgorithmGCM, "initializationVector": b64(12),
			"authenticationTag": b64(16), "ciphertextMetadata": b64(20)},
		OpHealth: {"requestMetadata": map[string]any{"kmsOperation": "KmsHealthCheck", "kmsRequestId": "r"}},
	}
	for op, members := range good {
		body, _ := json.Marshal(members)
		if _, err := XKSv1.DecodeRequest(op, "k", body); err != nil {
			t.Fatal(err)
		}
	}
	without := func(m map[string]any, name string) map[string]any {
		m = maps.Clone(m)
		delete(m, name)
		return m
	}
	with := func(m map[string]any, name string, v any) map[string]any {
		m = maps.Clone(m)
		m[name] = v
		return m
	}
	type row struct {
		op   Operation
		body any
		want Code
	}
	var rows []row
	for op, m := range good {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			if name != "ciphertextMetadata" {
				rows = append(rows, row{op, without(m, name), Validation}, row{op, with(m, name, nil), Validation})
			}
			rows = append(rows, row{op, with(m, name, 5), Validation}, row{op, with(m, name, []string{}), Validation})
			if text, ok := m[name].(string); ok && strings.HasSuffix(text, "=") || ok && strings.HasSuffix(text, "A") {
				for _, odd := range []string{text + "\n", text[:len(text)-1], text + "====", strings.Replace(text, "A", "_", 1), "A" + text, " " + text} {
					rows = append(rows, row{op, with(m, name, odd), Validation})
				}
			}
		}
		for _, name := range []string{"kmsOperation", "kmsRequestId"} {
			own := m["requestMetadata"].(map[string]any)
			for _, v := range []any{nil, 7, strings.Repeat("x", maxARN+1)} {
				rows = append(rows, row{op, with(m, "requestMetadata", with(own, name, v)), Validation})
			}
		}
	}
	rows = append(rows,
		row{OpEncrypt, with(good[OpEncrypt], "plaintext", b64(MaxText+1)), Unsupported},
		row{OpEncrypt, with(good[OpEncrypt], "additionalAuthenticatedData", b64(MaxAAD+1)), Unsupported},
		row{OpDecrypt, with(good[OpDecrypt], "ciphertextMetadata", b64(MaxMetadata+1)), Validation},
		row{OpDecrypt, with(good[OpDecrypt], "ciphertext", b64(MaxText+1)), Unsupported},
		row{OpHealth, "text", Validation}, row{OpHealth, 5, Validation}, row{OpHealth, []int{}, Validation},
	)
	for _, row := range rows {
		body, err := json.Marshal(row.body)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := XKSv1.DecodeRequest(row.op, "k", body); err == nil || AsError(err).Code != row.want {
			t.Errorf("%v %.200s: %v", row.op, body, err)
		}
	}
	for _, text := range []string{"", "{", "nul", `{"requestMetadata":{"kmsOperation":"a","kmsRequestId":"b"}} x`, `{"requestMetadata":{},"requestMetadata":{}}`,
		`{"requestMetadata":{"kmsOperation":"a","kmsOperation":"a","kmsRequestId":"b"}}`, strings.Repeat("[", 100), `{"a":` + strings.Repeat("[", 100)} {
		if _, err := XKSv1.DecodeRequest(OpHealth, "", []byte(text)); err == nil || AsError(err).Code != Validation {
			t.Errorf("%s: %v", text, err)
		}
	}
	// What the specification says must be taken.
	m := with(good[OpEncrypt], "plaintext", b64(4300))
	m["additionalAuthenticatedData"], m["later"] = b64(8192), map[string]any{"x": []int{1}}
	m["requestMetadata"] = with(with(with(meta, "kmsOperation", "SomethingNew"), "later", 5), "kmsRequestId", "")
	body, _ := json.Marshal(m)
	if _, err := XKSv1.DecodeRequest(OpEncrypt, "k", body); err != nil {
		t.Error(err)
	}
}

// What a lying proxy answers is told from what it should.
func TestBadAnswers(t *testing.T) {
	for op, m := range messages() {
		if !XKSv1.Has(op) {
			continue
		}
		m.r.Op = op
		for name, spoil := range map[string]func(*Answer){
			"longer":       func(a *Answer) { a.Sealed.Ciphertext, a.Plaintext = []byte("abcd"), []byte("wxyz") },
			"shorter":      func(a *Answer) { a.Sealed.Ciphertext, a.Plaintext = []byte("ab"), []byte("xy") },
			"other text":   func(a *Answer) { a.Sealed.Ciphertext = []byte("abd") },
			"IV":           func(a *Answer) { a.Sealed.IV = make([]byte, 13) },
			"tag":          func(a *Answer) { a.Sealed.Tag = make([]byte, 15) },
			"metadata":     func(a *Answer) { a.Sealed.Metadata = make([]byte, 21) },
			"integrity":    func(a *Answer) { a.Integrity = make([]byte, 32) },
			"no integrity": func(a *Answer) { a.Integrity = nil },
			"no fleet":     func(a *Answer) { a.Health.Fleet = nil },
			"11 members":   func(a *Answer) { a.Health.Fleet = make([]Member, 11) },
			"a status":     func(a *Answer) { a.Health.Fleet = []Member{{Status: "FINE"}} },
		} {
			a := *m.a
			spoil(&a)
			if reflect.DeepEqual(&a, m.a) || (op == OpEncrypt) == (name == "no fleet" || name == "11 members" || name == "a status") ||
				op == OpMetadata || op == OpDecrypt && name != "longer" && name != "shorter" || op == OpHealth && (name != "no fleet" && name != "11 members" && name != "a status") {
				continue
			}
			body, err := XKSv1.EncodeAnswer(op, &a)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := XKSv1.DecodeAnswer(m.r, body); err == nil || AsError(err).Code != BadAnswer {
				t.Errorf("%v, %s: %v", op, name, err)
			}
		}
	}
}

// The reference's values (§2.6, §2.7).
func TestIntegrityVectors(t *testing.T) {
	un := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	s := Sealed{Ciphertext: un("821c642b5b71783367deaf18"), IV: un("1ccae5470f39700254779031"), Tag: un("bc1c4dda7707d6812447c5955e99b261"), Metadata: []byte("key_version=1")}
	if got := base64.StdEncoding.EncodeToString(s.integrity([]byte("project=nile,department=marketing"))); got != "qHA/ImC9h5HsLRXqCyPmWgYx7tzyoTplzILbP0fPXsc=" {
		t.Error(got)
	}
	if got := hex.EncodeToString(framedAAD([]byte("project=nile"), un("0100000007"))); got != "000c70726f6a6563743d6e696c65050100000007" {
		t.Error(got)
	}
	if got := framedAAD(nil, nil); !bytes.Equal(got, []byte{0, 0, 0}) {
		t.Errorf("%x", got)
	}
}

func TestRoute(t *testing.T) {
	for path, want := range map[string]string{
		"/health": "health of ", "/keys/a/encrypt": "encrypt of a", "/keys/A-b._9/metadata": "metadata of A-b._9", "/keys/a/decrypt": "decrypt of a",
		"": "", "/": "", "/health/": "", "/Health": "", "/keys//encrypt": "", "/keys/a/b/encrypt": "", "/keys/a%2fb/encrypt": "", "/keys/encrypt": "",
		"/keys/a/meta": "", "/random": "", "/keys/" + strings.Repeat("a", 129) + "/encrypt": "", "/keys/../encrypt": "encrypt of ..",
	} {
		op, id, ok := XKSv1.Route(path)
		if got := fmt.Sprintf("%v of %s", op, id); ok != (want != "") || ok && got != want {
			t.Errorf("%s: %s, %v", path, got, ok)
		}
	}
}

func TestWith(t *testing.T) {
	d, err := XKIv1.With(map[string]string{"Aad": "AdditionalData", "Iv": "IV"})
	if err != nil {
		t.Fatal(err)
	}
	body, err := d.EncodeRequest(&Request{Op: OpEncrypt, AAD: []byte("x")})
	if err != nil || !strings.Contains(string(body), `"AdditionalData":"eA=="`) || strings.Contains(string(body), "Aad") {
		t.Errorf("%s, %v", body, err)
	}
	if XKIv1.requests[OpEncrypt][3].name != "Aad" {
		t.Error("the dialect itself has changed")
	}
	if _, err := XKSv1.With(map[string]string{"plaintext": "text"}); err == nil {
		t.Error("a published dialect is changed")
	}
	for _, names := range []map[string]string{{"None": "X"}, {"Iv": ""}, {"Iv": "Tag"}} {
		if _, err := XKIv1.With(names); err == nil {
			t.Errorf("%v is taken", names)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for op, m := range messages() {
		m.r.Op = op
		for _, d := range Dialects {
			if d.Has(op) {
				body, _ := d.EncodeRequest(m.r)
				f.Add(uint8(op), body)
			}
		}
	}
	f.Fuzz(func(t *testing.T, op uint8, body []byte) {
		for _, d := range Dialects {
			if op == 0 || op >= uint8(numOperations) || !d.Has(Operation(op)) {
				continue
			}
			r, err := d.DecodeRequest(Operation(op), "", body)
			if err != nil {
				if e, ok := errors.AsType[*Error](err); !ok || e.Code != Validation && e.Code != Unsupported {
					t.Fatalf("%v", err)
				}
				continue
			}
			again, err := d.EncodeRequest(r)
			if err != nil {
				t.Fatal(err)
			}
			if r2, err := d.DecodeRequest(Operation(op), "", again); err != nil || !reflect.DeepEqual(r, r2) {
				t.Fatalf("%+v\n%+v\n%v", r, r2, err)
			}
		}
	})
}

func FuzzAnswer(f *testing.F) {
	for op, m := range messages() {
		for _, d := range Dialects {
			if d.Has(op) {
				body, _ := d.EncodeAnswer(op, m.a)
				f.Add(uint8(op), body)
			}
		}
	}
	f.Fuzz(func(t *testing.T, op uint8, body []byte) {
		for _, d := range Dialects {
			if op == 0 || op >= uint8(numOperations) || !d.Has(Operation(op)) {
				continue
			}
			d.DecodeError(500, body)
			a, err := d.DecodeAnswer(&Request{Op: Operation(op), IntegrityAlgorithm: IntegritySHA256}, body)
			if err != nil && AsError(err).Code != BadAnswer || err == nil && len(a.Sealed.Metadata) > MaxMetadata {
				t.Fatalf("%v, %v", a, err)
			}
		}
	})
}
