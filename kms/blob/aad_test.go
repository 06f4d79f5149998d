package blob

import (
	"bytes"
	"encoding/binary"
	"maps"
	"testing"
)

func TestAADLayout(t *testing.T) {
	got := mustAAD(t, []byte("head"), map[string]string{"b": "", "a": "xy", "ab": "z"})
	want := "\x00\x00\x00\x04head\x00\x00\x00\x03" +
		"\x00\x00\x00\x01a\x00\x00\x00\x02xy" +
		"\x00\x00\x00\x02ab\x00\x00\x00\x01z" +
		"\x00\x00\x00\x01b\x00\x00\x00\x00"
	if string(got) != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := mustAAD(t, nil, nil); !bytes.Equal(got, make([]byte, 8)) {
		t.Errorf("empty: %x", got)
	}
	if !bytes.Equal(mustAAD(t, []byte("h"), nil), mustAAD(t, []byte("h"), map[string]string{})) {
		t.Error("nil and empty differ")
	}
	if got, _ := AppendAAD([]byte("before"), nil, nil); !bytes.HasPrefix(got, []byte("before")) {
		t.Errorf("dst was lost: %q", got)
	}
}

// Contexts that only differ in where one string ends and the next begins.
func TestAADNotConfusable(t *testing.T) {
	contexts := []map[string]string{
		nil,
		{"": ""},
		{"a": ""},
		{"": "a"},
		{"ab": "c"},
		{"a": "bc"},
		{"abc": ""},
		{"": "abc"},
		{"a": "b", "c": ""},
		{"a": "", "b": "c"},
		{"a": "b", "": "c"},
		{"a": "b", "c": "d"},
		{"a": "d", "c": "b"},
		{"a": "bcd"},
		{"a": "b\x00\x00\x00\x01c\x00\x00\x00\x01d"},
		{"a\x00\x00\x00\x01b": "c"},
		{"A": "bc"},
		{"\u00e9": ""},  // precomposed
		{"e\u0301": ""}, // looks the same
		{"\u00e9 ": ""},
	}
	seen := map[string]int{}
	for i, c := range contexts {
		aad := string(mustAAD(t, []byte("h"), c))
		if j, ok := seen[aad]; ok {
			t.Errorf("%q and %q have one AAD", contexts[j], c)
		}
		seen[aad] = i
	}
	// Octets between header and context.
	a := mustAAD(t, []byte("h"), map[string]string{"x": "y"})
	b := mustAAD(t, append([]byte("h"), a[5:]...), nil)
	if bytes.Equal(a, b) {
		t.Error("a header can hold a context")
	}
}

func TestAADRefusesBadText(t *testing.T) {
	for _, c := range []map[string]string{{"\xff": ""}, {"": "a\xc0\xaf"}, {"ok": "\xed\xa0\x80"}} {
		if got, err := AppendAAD([]byte("x"), nil, c); err != ErrContext || string(got) != "x" {
			t.Errorf("%q: %q, %v", c, got, err)
		}
	}
}

// The order in which a map is walked must not show, with more keys than fit on the stack too.
func TestAADOrder(t *testing.T) {
	c := map[string]string{}
	for i := range 40 {
		c[string(rune('a'+i*7))] = "v"
	}
	want := mustAAD(t, nil, c)
	for range 50 {
		if !bytes.Equal(mustAAD(t, nil, maps.Clone(c)), want) {
			t.Fatal("the AAD depends on the order of the map")
		}
	}
}

// FuzzAAD reads the context back: what can be read back can't be confused with anything else.
func FuzzAAD(f *testing.F) {
	f.Add([]byte("h"), "a", "b", "c", "d")
	f.Add([]byte{}, "", "", "", "")
	f.Add([]byte("h"), "\xff", "", "b", "a")
	f.Fuzz(func(t *testing.T, header []byte, k1, v1, k2, v2 string) {
		context := map[string]string{k1: v1, k2: v2}
		aad, err := AppendAAD(nil, header, context)
		if err != nil {
			return
		}
		next := func() string {
			n := binary.BigEndian.Uint32(aad)
			s := string(aad[4 : 4+n])
			aad = aad[4+n:]
			return s
		}
		if next() != string(header) {
			t.Fatal("header")
		}
		pairs := binary.BigEndian.Uint32(aad)
		aad = aad[4:]
		got, last := map[string]string{}, ""
		for i := range pairs {
			k := next()
			if i > 0 && k <= last {
				t.Fatalf("%q after %q", k, last)
			}
			got[k], last = next(), k
		}
		if len(aad) != 0 || !maps.Equal(got, context) {
			t.Fatalf("%q came back as %q with %d octets left", context, got, len(aad))
		}
	})
}
