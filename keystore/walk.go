package keystore

import (
	"bytes"
	"context"
)

// KeyFacts is what lists of keys are filtered by.
type KeyFacts struct {
	ID         string
	Account    string
	Creator    string
	Instance   string
	Spec       string
	Usage      string
	Protection string
	State      string
	Role       string
	Tags       []Tag
	Sequence   uint64
}

// Facts are the facts of a key.
func (k *Key) Facts() *KeyFacts {
	return &KeyFacts{
		ID: k.ID, Account: k.Account, Creator: k.Creator, Instance: k.Instance, Spec: k.Spec, Usage: k.Usage,
		Protection: k.Protection, State: k.State, Role: k.Role, Tags: k.Tags, Sequence: k.Sequence,
	}
}

// walkPage is how many records a walk reads at a time.
const walkPage = 1024

// WalkKeys calls visit for every key of an account, in no order that means anything; Sequence has the order of creation. What
// visit gets is its own for the time of the call only, strings excepted. The walk reads the records themselves, of all
// accounts, and keeps none of them; a key that is made or deleted meanwhile may be missed or seen. It ends with the first error: visit's,
// that of ctx, or ErrDamaged for a record that fails its check, as nobody can tell what it says.
func (db *DB) WalkKeys(ctx context.Context, account string, visit func(*KeyFacts) error) error {
	known := texts{}
	var f KeyFacts
	for after := ""; ; {
		if db.closed.Load() {
			return ErrClosed
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rows, err := db.store.Scan(ctx, prefixKey, after, walkPage)
		if err != nil {
			return err
		}
		for _, r := range rows {
			after = r.Name
			st, err := db.checked(r)
			if err != nil {
				return err
			}
			if !f.scan(st.payload, known) {
				var k Key
				if err := db.decodeRecord(st, &k); err != nil {
					return err
				}
				f = *k.Facts()
			}
			if f.Account != account {
				continue
			}
			if err := visit(&f); err != nil {
				return err
			}
		}
		if len(rows) < walkPage {
			return nil
		}
	}
}

// texts keeps one copy of each text that occurs in many records.
type texts map[string]string

// maxTexts bounds it: beyond that texts are not shared any more.
const maxTexts = 4096

func (t texts) of(b []byte) string {
	if s, ok := t[string(b)]; ok { // does not allocate
		return s
	}
	s := string(b)
	if len(t) < maxTexts {
		t[s] = s
	}
	return s
}

// scan reads the facts out of the record of a key, and steps over all else: decoding a whole record takes ten times as long, and
// a walk has many. It takes what encode writes and gives false for anything that it is not sure of, such as an escape in a
// text that it wants; then the record is to be decoded.
func (f *KeyFacts) scan(payload []byte, known texts) bool {
	*f = KeyFacts{Tags: f.Tags[:0]}
	s := cursor{rest: payload}
	if !s.take('{') {
		return false
	}
	for first := true; !s.take('}'); first = false {
		if !first && !s.take(',') {
			return false
		}
		name, ok := s.text()
		if !ok || !s.take(':') {
			return false
		}
		var into *string
		switch string(name) {
		case "ID":
			id, ok := s.text()
			if !ok {
				return false
			}
			f.ID = string(id)
			continue
		case "Account":
			into = &f.Account
		case "Creator":
			into = &f.Creator
		case "Instance":
			into = &f.Instance
		case "Spec":
			into = &f.Spec
		case "Usage":
			into = &f.Usage
		case "Protection":
			into = &f.Protection
		case "State":
			into = &f.State
		case "Role":
			into = &f.Role
		case "Tags":
			if !f.scanTags(&s, known) {
				return false
			}
			continue
		case "Sequence":
			if f.Sequence, ok = s.number(); !ok {
				return false
			}
			continue
		default:
			if !s.skip() {
				return false
			}
			continue
		}
		text, ok := s.text()
		if !ok {
			return false
		}
		*into = known.of(text)
	}
	return len(s.rest) == 0 && f.ID != ""
}

func (f *KeyFacts) scanTags(s *cursor, known texts) bool {
	if !s.take('[') {
		return false
	}
	for first := true; !s.take(']'); first = false {
		if !first && !s.take(',') || !s.literal(`{"Key":`) {
			return false
		}
		key, ok := s.text()
		if !ok || !s.literal(`,"Value":`) {
			return false
		}
		value, ok := s.text()
		if !ok || !s.take('}') {
			return false
		}
		f.Tags = append(f.Tags, Tag{Key: known.of(key), Value: known.of(value)})
	}
	return true
}

// cursor goes over JSON as encode writes it: well formed, and without white space.
type cursor struct{ rest []byte }

func (s *cursor) take(c byte) bool {
	if len(s.rest) == 0 || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

func (s *cursor) literal(text string) bool {
	if len(s.rest) < len(text) || string(s.rest[:len(text)]) != text {
		return false
	}
	s.rest = s.rest[len(text):]
	return true
}

// text takes a string without escapes.
func (s *cursor) text() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	end := bytes.IndexByte(s.rest, '"')
	if end < 0 || bytes.IndexByte(s.rest[:end], '\\') >= 0 {
		return nil, false
	}
	text := s.rest[:end]
	s.rest = s.rest[end+1:]
	return text, true
}

// number takes an integer that is not negative.
func (s *cursor) number() (n uint64, ok bool) {
	for len(s.rest) > 0 && s.rest[0] >= '0' && s.rest[0] <= '9' {
		digit := uint64(s.rest[0] - '0')
		if n > (1<<64-1-digit)/10 {
			return 0, false
		}
		n, ok = 10*n+digit, true
		s.rest = s.rest[1:]
	}
	return n, ok
}

// skip takes a value of any kind.
func (s *cursor) skip() bool {
	depth := 0
	for i := 0; i < len(s.rest); i++ {
		switch s.rest[i] {
		case '"':
			for i++; i < len(s.rest) && s.rest[i] != '"'; i++ {
				if s.rest[i] == '\\' {
					i++
				}
			}
			if i >= len(s.rest) {
				return false
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			if depth == 0 { // the end of what the value is in
				s.rest = s.rest[i:]
				return i > 0
			}
			depth--
		case ',':
			if depth == 0 {
				s.rest = s.rest[i:]
				return i > 0
			}
			continue
		default:
			continue
		}
		if depth == 0 {
			s.rest = s.rest[i+1:]
			return true
		}
	}
	return false
}
