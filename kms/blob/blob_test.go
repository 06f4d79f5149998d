package blob

import (
	"bytes"
	"strings"
	"testing"
)

const (
	testKey     = "key-0123456789abcdefghij"
	testVersion = testKey + "-klmnopqrst"
)

func header(a Algorithm) Header {
	h := Header{Algorithm: a, KeyID: testKey, VersionID: testVersion, Nonce: bytes.Repeat([]byte{0xa5}, a.NonceSize())}
	if a == External {
		h.ExternalID = "Some-key_1.x"
	}
	return h
}

// sample is a blob with an empty plaintext.
func sample(t testing.TB, a Algorithm) []byte {
	t.Helper()
	b, err := AppendHeader(nil, header(a))
	if err != nil {
		t.Fatal(err)
	}
	return append(b, make([]byte, layouts[a].overhead)...)
}

func TestRoundTrip(t *testing.T) {
	for a, row := range layouts {
		b := sample(t, a)
		if a != External && len(b) != a.Size(0) {
			t.Errorf("algorithm %d: %d octets, Size says %d", a, len(b), a.Size(0))
		}
		h, n, err := Parse(b)
		if err != nil || h.Algorithm != a || h.KeyID != testKey || h.VersionID != testVersion || len(b)-n != row.overhead ||
			!bytes.Equal(h.Nonce, header(a).Nonce) || h.ExternalID != header(a).ExternalID {
			t.Errorf("algorithm %d: got %+v, %d, %v", a, h, n, err)
		}
	}
	if Algorithm(4).Size(1) != 0 || Algorithm(0).NonceSize() != 0 {
		t.Error("an unknown algorithm has sizes")
	}
}

func TestParseCut(t *testing.T) {
	for a := range layouts {
		b := sample(t, a)
		for n := range b {
			if _, _, err := Parse(b[:n]); err != ErrMalformed {
				t.Errorf("algorithm %d, %d of %d octets: %v", a, n, len(b), err)
			}
		}
	}
}

// A flipped bit is either not a header any more, or another header that is written just so: nothing is read leniently.
func TestParseFlipped(t *testing.T) {
	for a := range layouts {
		good := sample(t, a)
		_, size, err := Parse(good)
		if err != nil {
			t.Fatal(err)
		}
		aad := mustAAD(t, good[:size], nil)
		refused := 0
		for bit := range size * 8 {
			b := bytes.Clone(good)
			b[bit/8] ^= 1 << (bit % 8)
			h, n, err := Parse(b)
			if err != nil {
				if err != ErrMalformed {
					t.Fatalf("bit %d: %v", bit, err)
				}
				refused++
				continue
			}
			again, err := AppendHeader(nil, h)
			if err != nil || !bytes.Equal(again, b[:n]) {
				t.Errorf("bit %d: parsed, and written differently (%v)", bit, err)
			}
			if bytes.Equal(mustAAD(t, b[:n], nil), aad) {
				t.Errorf("bit %d: the AAD is the same", bit)
			}
		}
		if refused < 5*8 { // all of version, lengths and the dash's prefix at least
			t.Errorf("only %d flipped bits were refused", refused)
		}
	}
}

func TestAppendHeaderRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(h *Header)
	}{
		{"no algorithm", func(h *Header) { h.Algorithm = 0 }},
		{"unknown algorithm", func(h *Header) { h.Algorithm = 4 }},
		{"external without its ID", func(h *Header) { h.Algorithm, h.Nonce = External, nil }},
		{"external with a bad ID", func(h *Header) { *h = header(External); h.ExternalID = "a/b" }},
		{"external with a long ID", func(h *Header) { *h = header(External); h.ExternalID = strings.Repeat("a", maxExternalID+1) }},
		{"an ID that is not external's", func(h *Header) { h.ExternalID = "a" }},
		{"short nonce", func(h *Header) { h.Nonce = h.Nonce[1:] }},
		{"the other nonce", func(h *Header) { h.Nonce = make([]byte, HSM.NonceSize()) }},
		{"no nonce", func(h *Header) { h.Nonce = nil }},
		{"other key", func(h *Header) { h.KeyID = "key-0123456789abcdefghik" }},
		{"no key", func(h *Header) { h.KeyID = "" }},
		{"short version", func(h *Header) { h.VersionID = testVersion[:len(testVersion)-1] }},
		{"long version", func(h *Header) { h.VersionID = testVersion + "a" }},
		{"capital", func(h *Header) { h.VersionID = testKey + "-klmnopqrsT" }},
		{"other prefix", func(h *Header) {
			h.KeyID, h.VersionID = "kez"+testKey[3:], "kez"+testVersion[3:]
		}},
		{"no dash", func(h *Header) { h.VersionID = testKey + "0klmnopqrst" }},
		{"not ASCII", func(h *Header) { h.VersionID = testKey + "-klmnopqr\u00e9" }},
	}
	for _, tt := range tests {
		h := header(Software)
		tt.change(&h)
		if got, err := AppendHeader([]byte("x"), h); err != ErrMalformed || string(got) != "x" {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
}

func TestNonceCannotGrow(t *testing.T) {
	b := sample(t, Software)
	h, n, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	before := bytes.Clone(b)
	_ = append(h.Nonce, 1, 2, 3)
	if !bytes.Equal(b, before) {
		t.Errorf("appending to the nonce wrote to the body at %d", n)
	}
}

func TestParseAllocations(t *testing.T) {
	b := sample(t, Software)
	if n := testing.AllocsPerRun(100, func() { _, _, _ = Parse(b) }); n > 1 {
		t.Errorf("Parse allocates %v times, want one string", n)
	}
	dst := make([]byte, 0, 1024)
	context := map[string]string{"a": "1", "b": "2"}
	if n := testing.AllocsPerRun(100, func() { _, _ = AppendAAD(dst, b[:60], context) }); n > 0 {
		t.Errorf("AppendAAD allocates %v times", n)
	}
}

func FuzzParse(f *testing.F) {
	for a := range layouts {
		f.Add(sample(f, a))
	}
	f.Add([]byte{})
	f.Add([]byte{1, 1, 24})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := Parse(b)
		if err != nil {
			if err != ErrMalformed || n != 0 || h.KeyID != "" || h.Nonce != nil {
				t.Fatalf("%+v, %d, %v", h, n, err)
			}
			return
		}
		again, err := AppendHeader(nil, h)
		if err != nil || !bytes.Equal(again, b[:n]) {
			t.Fatalf("read %x\nwrote %x, %v", b[:n], again, err)
		}
		if !strings.HasPrefix(h.VersionID, h.KeyID+"-") || len(b) < h.Algorithm.Size(0) {
			t.Fatalf("%+v of %d octets", h, len(b))
		}
	})
}

func BenchmarkParse(b *testing.B) {
	octets := sample(b, Software)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Parse(octets); err != nil {
			b.Fatal(err)
		}
	}
}

func mustAAD(t testing.TB, header []byte, context map[string]string) []byte {
	t.Helper()
	aad, err := AppendAAD(nil, header, context)
	if err != nil {
		t.Fatal(err)
	}
	return aad
}
