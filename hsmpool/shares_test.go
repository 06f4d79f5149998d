package hsmpool

import (
	"bytes"
	"strings"
	"testing"
)

func TestShares(t *testing.T) {
	set := [4]byte{1, 2, 0xab, 0xff}
	key, texts, err := newRecovery(5, 3, set)
	if err != nil || len(key) != 32 || len(texts) != 5 {
		t.Fatal(err)
	}
	for a := range texts {
		for b := range texts {
			for c := range texts {
				got, err := combineShares([][]byte{texts[a], texts[b], texts[c]}, set)
				if a == b || b == c || a == c {
					if err == nil || !strings.Contains(err.Error(), "another has too") {
						t.Errorf("%d %d %d: %v", a, b, c, err)
					}
				} else if err != nil || !bytes.Equal(got, key) {
					t.Errorf("%d %d %d: %v", a, b, c, err)
				}
			}
		}
	}
	if got, err := combineShares(texts, set); err != nil || !bytes.Equal(got, key) {
		t.Errorf("all five: %v", err)
	}
	// People type.
	typed := [][]byte{bytes.ToLower(texts[1]), append([]byte("  "), append(texts[2], '\n')...), texts[4]}
	if got, err := combineShares(typed, set); err != nil || !bytes.Equal(got, key) {
		t.Errorf("typed: %v", err)
	}
	if _, err := combineShares(texts[:2], set); err == nil || !strings.Contains(err.Error(), "3 are needed") {
		t.Errorf("two: %v", err)
	}
	if _, err := combineShares(nil, set); err == nil {
		t.Error("none")
	}
	if _, err := combineShares(texts, [4]byte{}); err == nil || !strings.Contains(err.Error(), "set") {
		t.Errorf("other set: %v", err)
	}
	_, others, err := newRecovery(5, 2, set)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := combineShares([][]byte{texts[0], texts[1], others[2]}, set); err == nil {
		t.Error("mixed thresholds")
	}
	for i := range texts[0] {
		for _, d := range []byte{1, 2, 16} {
			bad := bytes.Clone(texts[0])
			bad[i] ^= d
			if bytes.EqualFold(bad, texts[0]) {
				continue
			}
			if _, err := parseShare(bad); err == nil {
				t.Errorf("octet %d mistyped: %q accepted", i, bad)
			} else if strings.Contains(err.Error(), string(bad[20:40])) {
				t.Error("the error shows the share")
			}
		}
		if _, err := parseShare(texts[0][:i]); err == nil {
			t.Errorf("cut to %d: accepted", i)
		}
	}
	for _, c := range [][2]int{{3, 1}, {2, 3}, {65, 2}, {0, 0}} {
		if _, _, err := newRecovery(c[0], c[1], set); err == nil {
			t.Errorf("%d of %d accepted", c[1], c[0])
		}
	}
	_, again, err := newRecovery(5, 3, set)
	if err != nil || bytes.Equal(again[0], texts[0]) {
		t.Error("the same share twice")
	}
}

func TestRecoveryData(t *testing.T) {
	wrapped := [2][]byte{bytes.Repeat([]byte{1}, 40), bytes.Repeat([]byte{2}, 40)}
	group := strings.Repeat("ab", 16)
	set := [4]byte{9, 8, 7, 6}
	b := encodeRecovery(set, group, wrapped)
	s, g, w, err := decodeRecovery(b)
	if err != nil || s != set || g != group || !bytes.Equal(w[0], wrapped[0]) || !bytes.Equal(w[1], wrapped[1]) {
		t.Fatal(s, g, w, err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if _, _, _, err := decodeRecovery(bad); err == nil {
			t.Errorf("octet %d changed: accepted", i)
		}
		if _, _, _, err := decodeRecovery(b[:i]); err == nil {
			t.Errorf("cut to %d: accepted", i)
		}
	}
}

func FuzzParseShare(f *testing.F) {
	_, texts, err := newRecovery(2, 2, [4]byte{1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(texts[0])
	f.Add([]byte("kws1-00000000-2-1--"))
	f.Add([]byte("kws1------"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseShare(text)
		if err == nil && (s.index < 1 || s.index > maxShares || s.threshold < minThreshold || s.value == nil) {
			t.Errorf("%+v", s)
		}
	})
}

func FuzzMarshalECPublic(f *testing.F) {
	f.Add(make([]byte, 65))
	f.Add([]byte{4, 65, 4})
	f.Fuzz(func(t *testing.T, point []byte) {
		for _, kt := range []KeyType{P256, Secp256k1} {
			if spki, err := marshalECPublic(kt, point); err == nil && len(spki) < 88 {
				t.Errorf("%x", spki)
			}
		}
	})
}
