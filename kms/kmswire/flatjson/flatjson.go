// Package flatjson reads the small JSON texts of the KMS API: an EncryptionContext, an item of a batch, the array of
// items. It is strict where encoding/json is lenient: names are compared exactly, a name may occur once only, text must
// be valid UTF-8, and an escaped surrogate must have its partner. It allocates the strings that it returns and nothing
// else. It imports the standard library only.
package flatjson

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep values that are skipped may be nested.
const MaxDepth = 32

// ErrSyntax is wrapped by every error that means that the text is not JSON at all. Other errors mean that it is JSON
// of another shape than was asked for.
var ErrSyntax = errors.New("malformed JSON")

func syntax(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSyntax, fmt.Sprintf(format, args...))
}

// Scanner reads one JSON text from front to back. It does not copy the text.
type Scanner struct {
	text []byte
	pos  int
}

// NewScanner gives a scanner at the beginning of text.
func NewScanner(text []byte) Scanner { return Scanner{text: text} }

// Pos is the offset of the next octet.
func (s *Scanner) Pos() int { return s.pos }

func (s *Scanner) skipSpace() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// Peek skips white space and gives the next octet, 0 at the end.
func (s *Scanner) Peek() byte {
	s.skipSpace()
	if s.pos == len(s.text) {
		return 0
	}
	return s.text[s.pos]
}

// Take skips white space and takes the octet c, which must come next.
func (s *Scanner) Take(c byte) error {
	if s.Peek() != c || s.pos == len(s.text) {
		return syntax("expected %q", c)
	}
	s.pos++
	return nil
}

// More is asked after '{' or '[' was taken and before each element; first says that none was read yet. It takes the
// comma between elements, or the end character, in which case it gives false.
func (s *Scanner) More(end byte, first bool) (bool, error) {
	c := s.Peek()
	switch {
	case c == end && s.pos < len(s.text):
		s.pos++
		return false, nil
	case first:
		return true, nil
	case c == ',':
		s.pos++
		return true, nil
	}
	return false, syntax("expected ',' or %q", end)
}

// End checks that only white space is left.
func (s *Scanner) End() error {
	if s.Peek() != 0 || s.pos < len(s.text) {
		return syntax("text after the end")
	}
	return nil
}

// plain says that b is ASCII without control characters and backslashes. It looks at eight octets at a time; base64
// makes up most of what is read here.
func plain(b []byte) bool {
	const ones = 0x0101010101010101
	for ; len(b) >= 8; b = b[8:] {
		x := binary.LittleEndian.Uint64(b)
		y := x ^ '\\'*ones
		if (x|(x-0x20*ones)|(y-ones)&^y)&(0x80*ones) != 0 {
			return false
		}
	}
	for _, c := range b {
		if c < 0x20 || c >= utf8.RuneSelf || c == '\\' {
			return false
		}
	}
	return true
}

// raw takes a string and gives what is between the quotes, and whether there are escapes in it.
func (s *Scanner) raw() (text []byte, escaped bool, err error) {
	if err := s.Take('"'); err != nil {
		return nil, false, err
	}
	start := s.pos
	rest := s.text[start:]
	if end := bytes.IndexByte(rest, '"'); end >= 0 && plain(rest[:end]) {
		s.pos = start + end + 1
		return rest[:end], false, nil
	}
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '"':
			if !utf8.Valid(rest[:i]) {
				return nil, false, syntax("a string is not valid UTF-8")
			}
			s.pos = start + i + 1
			return rest[:i], escaped, nil
		case c == '\\':
			escaped = true
			i++
		case c < 0x20:
			return nil, false, syntax("control character in a string")
		}
	}
	return nil, false, syntax("unfinished string")
}

// AppendString takes a string and appends its value to dst.
func (s *Scanner) AppendString(dst []byte) ([]byte, error) {
	raw, escaped, err := s.raw()
	if err != nil {
		return nil, err
	}
	if !escaped {
		return append(dst, raw...), nil
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			dst = append(dst, raw[i])
			continue
		}
		i++ // raw never ends in the middle of an escape of two
		switch c := raw[i]; c {
		case '"', '\\', '/':
			dst = append(dst, c)
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, ok := hex4(raw[i+1:])
			if !ok {
				return nil, syntax(`\u without four hexadecimal digits`)
			}
			i += 4
			if utf16.IsSurrogate(r) {
				var low rune
				ok := false
				if i+2 < len(raw) && raw[i+1] == '\\' && raw[i+2] == 'u' {
					low, ok = hex4(raw[i+3:])
				}
				r = utf16.DecodeRune(r, low)
				if !ok || r == utf8.RuneError {
					return nil, syntax("half of a surrogate pair")
				}
				i += 6
			}
			dst = utf8.AppendRune(dst, r)
		default:
			return nil, syntax("unknown escape in a string")
		}
	}
	return dst, nil
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// Text takes a string and gives its value. Without escapes that is a part of the scanner's own text, else a new slice.
func (s *Scanner) Text() ([]byte, error) {
	start := s.pos
	raw, escaped, err := s.raw()
	if err != nil {
		return nil, err
	}
	if escaped {
		s.pos = start
		return s.AppendString(make([]byte, 0, len(raw)))
	}
	return raw, nil
}

// Value takes one value of any kind, checks it, and gives its text.
func (s *Scanner) Value() ([]byte, error) {
	s.skipSpace()
	start := s.pos
	if err := s.skip(0); err != nil {
		return nil, err
	}
	return s.text[start:s.pos], nil
}

func (s *Scanner) skip(depth int) error {
	if depth > MaxDepth {
		return syntax("nested deeper than %d", MaxDepth)
	}
	switch c := s.Peek(); {
	case c == '"':
		_, err := s.Text()
		return err
	case c == '{', c == '[':
		s.pos++
		for first := true; ; first = false {
			more, err := s.More(c+2, first) // in ASCII the closing one is two further on, for both
			if err != nil || !more {
				return err
			}
			if c == '{' {
				if _, err := s.Text(); err != nil {
					return err
				}
				if err := s.Take(':'); err != nil {
					return err
				}
			}
			if err := s.skip(depth + 1); err != nil {
				return err
			}
		}
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	}
	for _, word := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(s.text[s.pos:], []byte(word)) {
			s.pos += len(word)
			return nil
		}
	}
	return syntax("expected a value")
}

func (s *Scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.text) && '0' <= s.text[s.pos] && s.text[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}

// at takes the next octet if it is one of set.
func (s *Scanner) at(set string) bool {
	if s.pos < len(s.text) && bytes.IndexByte([]byte(set), s.text[s.pos]) >= 0 {
		s.pos++
		return true
	}
	return false
}

func (s *Scanner) number() error {
	s.at("-")
	ok := s.at("0") || s.digits()
	if ok && s.at(".") {
		ok = s.digits()
	}
	if ok && s.at("eE") {
		s.at("+-")
		ok = s.digits()
	}
	if !ok {
		return syntax("malformed number")
	}
	return nil
}

// Strings reads a text that is one object whose members are all strings. No name may occur twice. An empty object
// gives nil.
func Strings(text []byte) (map[string]string, error) {
	s := NewScanner(text)
	if c := s.Peek(); c != '{' {
		if _, err := s.Value(); err != nil {
			return nil, err
		}
		return nil, errors.New("it is not an object")
	}
	s.pos++
	var m map[string]string
	for first := true; ; first = false {
		more, err := s.More('}', first)
		if err != nil {
			return nil, err
		}
		if !more {
			return m, s.End()
		}
		name, err := s.Text()
		if err != nil {
			return nil, err
		}
		if err := s.Take(':'); err != nil {
			return nil, err
		}
		if s.Peek() != '"' {
			return nil, errors.New("a member is not a string")
		}
		value, err := s.Text()
		if err != nil {
			return nil, err
		}
		if _, ok := m[string(name)]; ok {
			return nil, errors.New("a name occurs twice")
		}
		if m == nil {
			m = make(map[string]string)
		}
		m[string(name)] = string(value)
	}
}
