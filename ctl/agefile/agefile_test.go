package agefile

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"strings"
	"testing"

	"filippo.io/age"
)

// fakeKMS is a KMS with one key: AES-GCM, the context as additional data.
type fakeKMS struct {
	keyID string
	gcm   cipher.AEAD
	calls int
	last  map[string]string // context of the last call
}

func newFakeKMS(t *testing.T, keyID string) *fakeKMS {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeKMS{keyID: keyID, gcm: gcm}
}

func (k *fakeKMS) aad(ec map[string]string) []byte {
	k.calls++
	k.last = maps.Clone(ec)
	text, err := json.Marshal(ec) // sorted by name
	if err != nil {
		panic(err)
	}
	return text
}

func (k *fakeKMS) GenerateDataKey(_ context.Context, _ string, ec map[string]string) (string, []byte, []byte, error) {
	plaintext, nonce := make([]byte, 32), make([]byte, 12)
	rand.Read(plaintext)
	rand.Read(nonce)
	return k.keyID, plaintext, k.gcm.Seal(nonce, nonce, plaintext, k.aad(ec)), nil
}

var errBlob = errors.New("the blob is not valid")

func (k *fakeKMS) Decrypt(_ context.Context, blob []byte, ec map[string]string) (string, []byte, error) {
	if len(blob) < 12 {
		return "", nil, errBlob
	}
	plaintext, err := k.gcm.Open(nil, blob[:12], blob[12:], k.aad(ec))
	if err != nil {
		return "", nil, errBlob
	}
	return k.keyID, plaintext, nil
}

func encrypt(t *testing.T, k KMS, data []byte, pairs map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := age.Encrypt(&out, &Recipient{Ctx: t.Context(), KMS: k, KeyID: "alias/a", Context: pairs})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func decrypt(t *testing.T, id *Identity, file []byte) ([]byte, error) {
	t.Helper()
	id.Ctx = t.Context()
	r, err := age.Decrypt(bytes.NewReader(file), id)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestRoundTrip(t *testing.T) {
	k := newFakeKMS(t, "key-1")
	for _, size := range []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 300_000} {
		for _, pairs := range []map[string]string{nil, {"app": "db"}, {"z": "", "a": "b=c", "ü": "\x00"}} {
			data := make([]byte, size)
			rand.Read(data)
			file := encrypt(t, k, data, pairs)
			if k.last[PurposeName] != PurposeValue || len(k.last) != len(pairs)+1 {
				t.Fatalf("the service was given the context %v", k.last)
			}
			id := &Identity{KMS: k}
			got, err := decrypt(t, id, file)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("size %d, context %v: %v", size, pairs, err)
			}
			if id.Opened.KeyID != "key-1" || !maps.Equal(id.Opened.Context, pairs) {
				t.Fatalf("opened %+v", id.Opened)
			}
		}
	}
}

func TestChecksBeforeTheCall(t *testing.T) {
	k := newFakeKMS(t, "key-1")
	file := encrypt(t, k, []byte("data"), map[string]string{"app": "db"})
	k.calls = 0
	for name, row := range map[string]struct {
		id   Identity
		want string
	}{
		"other value": {Identity{Expect: map[string]string{"app": "web"}}, `app="db"`},
		"no such":     {Identity{Expect: map[string]string{"team": "x"}}, `without context "team"`},
		"other key":   {Identity{ExpectKeyID: "key-2"}, "under key key-1, not key-2"},
	} {
		row.id.KMS = k
		if _, err := decrypt(t, &row.id, file); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if k.calls != 0 {
		t.Errorf("the service was asked %d times", k.calls)
	}
	if _, err := decrypt(t, &Identity{KMS: k, Expect: map[string]string{"app": "db"}, ExpectKeyID: "key-1"}, file); err != nil {
		t.Errorf("checks that hold: %v", err)
	}
}

func TestWrongKey(t *testing.T) {
	file := encrypt(t, newFakeKMS(t, "key-1"), []byte("data"), nil)
	if _, err := decrypt(t, &Identity{KMS: newFakeKMS(t, "key-1")}, file); !errors.Is(err, errBlob) {
		t.Errorf("another service opened the file: %v", err)
	}
}

// TestEveryOctetCounts changes, cuts and lengthens a file everywhere: nothing may decrypt to the end, and what came out
// before is never wrong.
func TestEveryOctetCounts(t *testing.T) {
	k := newFakeKMS(t, "key-1")
	data := []byte("the quick brown fox")
	file := encrypt(t, k, data, map[string]string{"app": "db"})
	for i := range file {
		for bit := range 8 {
			bad := bytes.Clone(file)
			bad[i] ^= 1 << bit
			if got, err := decrypt(t, &Identity{KMS: k}, bad); err == nil {
				t.Fatalf("bit %d of octet %d is not protected: %q", bit, i, got)
			}
		}
		if got, err := decrypt(t, &Identity{KMS: k}, file[:i]); err == nil {
			t.Fatalf("a file of %d octets instead of %d decrypts to %q", i, len(file), got)
		}
	}
	if _, err := decrypt(t, &Identity{KMS: k}, append(bytes.Clone(file), 0)); err == nil {
		t.Error("trailing data is accepted")
	}
}

// TestStanzaIsBound swaps parts between two files of one key and context: each part is good by itself.
func TestStanzaIsBound(t *testing.T) {
	k := newFakeKMS(t, "key-1")
	wrap := func(fileKey string) *Stanza {
		r := &Recipient{Ctx: t.Context(), KMS: k, Context: map[string]string{"a": "1"}}
		stanzas, err := r.Wrap([]byte(fileKey))
		if err != nil {
			t.Fatal(err)
		}
		s, err := Parse(stanzas[0])
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	one, two := wrap("0123456789abcdef"), wrap("fedcba9876543210")
	unwrap := func(stanzas ...*age.Stanza) ([]byte, error) {
		return (&Identity{Ctx: t.Context(), KMS: k}).Unwrap(stanzas)
	}
	if got, err := unwrap(one.marshal()); err != nil || string(got) != "0123456789abcdef" {
		t.Fatalf("%q, %v", got, err)
	}
	mixed := *one
	mixed.Wrapped = two.Wrapped
	if _, err := unwrap(mixed.marshal()); !errors.Is(err, errChanged) {
		t.Errorf("another file's wrapped key: %v", err)
	}
	renamed := *one
	renamed.KeyID = "key-2"
	if _, err := unwrap(renamed.marshal()); !errors.Is(err, errChanged) {
		t.Errorf("another key's name: %v", err)
	}
	if _, err := unwrap(one.marshal(), two.marshal()); err == nil {
		t.Error("two keyward stanzas are accepted")
	}
	if _, err := unwrap(&age.Stanza{Type: "X25519"}); !errors.Is(err, age.ErrIncorrectIdentity) {
		t.Errorf("a file without keyward: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	good := (&Stanza{KeyID: "key-1", Context: map[string]string{"a": "1", "b": "2"}, Blob: []byte("blob"), Wrapped: make([]byte, 32)}).marshal()
	if _, err := Parse(good); err != nil {
		t.Fatal(err)
	}
	body := func(b string) *age.Stanza {
		return &age.Stanza{Type: StanzaType, Args: good.Args, Body: append([]byte(b), make([]byte, 32)...)}
	}
	for name, bad := range map[string]*age.Stanza{
		"type":           {Type: "x", Args: good.Args, Body: good.Body},
		"newer":          {Type: StanzaType, Args: []string{"v2", "key-1"}, Body: good.Body},
		"no key":         {Type: StanzaType, Args: []string{"v1"}, Body: good.Body},
		"three args":     {Type: StanzaType, Args: []string{"v1", "key-1", "x"}, Body: good.Body},
		"empty":          {Type: StanzaType, Args: good.Args},
		"short":          {Type: StanzaType, Args: good.Args, Body: good.Body[:len(good.Body)-1]},
		"long":           {Type: StanzaType, Args: good.Args, Body: append(bytes.Clone(good.Body), 0)},
		"65 pairs":       body("\x41"),
		"unsorted":       body("\x02\x00\x01b\x00\x00\x00\x01a\x00\x00\x00\x01x"),
		"twice":          body("\x02\x00\x01a\x00\x00\x00\x01a\x00\x00\x00\x01x"),
		"no name":        body("\x01\x00\x00\x00\x01x\x00\x01x"),
		"reserved name":  body("\x01\x00\x09keyward:x\x00\x00\x00\x01x"),
		"empty blob":     body("\x00\x00\x00"),
		"length too big": body("\x00\xff\xff"),
	} {
		if s, err := Parse(bad); err == nil {
			t.Errorf("%s: accepted as %+v", name, s)
		}
	}
}

func TestCheckContext(t *testing.T) {
	many := map[string]string{}
	for i := range MaxContextPairs + 1 {
		many[strings.Repeat("x", i+1)] = ""
	}
	for name, bad := range map[string]map[string]string{
		"reserved": {"keyward:purpose": "secret"},
		"no name":  {"": "x"},
		"long":     {"a": strings.Repeat("x", 9000)},
		"many":     many,
	} {
		if CheckContext(bad) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// FuzzParse holds that a stanza has one spelling, and that nothing read from a file can do worse than an error.
func FuzzParse(f *testing.F) {
	f.Add("v1", "key-1", (&Stanza{Blob: []byte("blob"), Wrapped: make([]byte, 32)}).marshal().Body)
	f.Add("v1", "key-1", (&Stanza{Context: map[string]string{"a": "1", "b": ""}, Blob: []byte("b"), Wrapped: make([]byte, 32)}).marshal().Body)
	f.Fuzz(func(t *testing.T, version, keyID string, body []byte) {
		st := &age.Stanza{Type: StanzaType, Args: []string{version, keyID}, Body: body}
		s, err := Parse(st)
		if err != nil {
			return
		}
		again := s.marshal()
		if again.Args[0] != version || again.Args[1] != keyID || !bytes.Equal(again.Body, body) {
			t.Fatalf("%x is spelled %x the second time", body, again.Body)
		}
	})
}
