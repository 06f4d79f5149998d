package flatjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"strings"
	"testing"
	"unicode/utf8"
)

// reference reads an object of strings with encoding/json's tokens, and says whether it is one.
func reference(text []byte) (map[string]string, bool) {
	if !utf8.Valid(text) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if tok, err := d.Token(); err != nil || tok != json.Delim('{') {
		return nil, false
	}
	m := make(map[string]string)
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, false
		}
		value, err := d.Token()
		if err != nil {
			return nil, false
		}
		v, ok := value.(string)
		if _, twice := m[name.(string)]; !ok || twice {
			return nil, false
		}
		m[name.(string)] = v
	}
	if _, err := d.Token(); err != nil {
		return nil, false
	}
	_, err := d.Token()
	return m, err == io.EOF
}

var texts = []string{
	`{}`, ` { } `, `{"a":"b"}`, `{"a" : "b" , "c":""}`, `{"\u0041\n\"\\\/\b\f\r\t":"\ud83d\ude00é"}`, `{"a":"b",}`, `{,}`, `{"a"}`, `{"a":}`,
	`{"a":1}`, `{"a":null}`, `{"a":["b"]}`, `{"a":"b","a":"c"}`, `{"a":"b"}x`, `[]`, `null`, `"a"`, ``, ` `, `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"` + "\x01" + `"}`,
	`{"a":"b`, `{"a":"b\`, `{"a":"` + "\xff" + `"}`, `{"\u0061":"1","a":"2"}`, `{"a":"\u0000"}`, "{\"a\":\"\x00\"}", "\x00", `{"a":"b"}` + "\x00", "\uFEFF{}",
}

func check(t *testing.T, text []byte) {
	got, err := Strings(text)
	want, ok := reference(text)
	lone := bytes.Contains(text, []byte(`\u`)) // encoding/json replaces lone surrogates, we refuse them
	if ok != (err == nil) && !(ok && lone) {
		t.Fatalf("%q: err %v, encoding/json says %v", text, err, ok)
	}
	if err == nil && !maps.Equal(got, want) {
		t.Fatalf("%q: got %q, want %q", text, got, want)
	}
	if _, err := (&Scanner{text: text}).whole(); utf8.Valid(text) && (err == nil) != json.Valid(text) {
		if depth := bytes.Count(text, []byte("[")) + bytes.Count(text, []byte("{")); depth <= MaxDepth && !lone {
			t.Fatalf("%q: err %v, encoding/json says %v", text, err, json.Valid(text))
		}
	}
}

func (s *Scanner) whole() ([]byte, error) {
	v, err := s.Value()
	if err == nil {
		err = s.End()
	}
	return v, err
}

func TestStrings(t *testing.T) {
	for _, text := range texts {
		check(t, []byte(text))
	}
	for _, text := range []string{`{"a":"\ud800"}`, `{"a":"\ud800\u0041"}`, `{"a":"\udc00\ud800"}`, `{"a":"\ud800x"}`} {
		if m, err := Strings([]byte(text)); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: got %q, %v", text, m, err)
		}
	}
	if m, err := Strings([]byte(`{}`)); m != nil || err != nil {
		t.Errorf("an empty object gave %v, %v", m, err)
	}
}

func TestDepth(t *testing.T) {
	for depth, ok := range map[int]bool{MaxDepth: true, MaxDepth + 2: false, 1 << 20: false} {
		s := NewScanner([]byte(strings.Repeat("[", depth) + strings.Repeat("]", depth)))
		if _, err := s.whole(); (err == nil) != ok {
			t.Errorf("depth %d: %v", depth, err)
		}
	}
}

func FuzzStrings(f *testing.F) {
	for _, text := range texts {
		f.Add([]byte(text))
	}
	for _, text := range []string{`-0.1e+5`, `01`, `[1,-,2]`, `[true,false,nul]`, `{"a":[{"b":"c"}]}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(check)
}
