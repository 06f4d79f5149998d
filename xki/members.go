package xki

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// A message of either dialect is a flat JSON object. What differs are the names, so a dialect has for each operation a list of members, and
// this file does the rest.

// member is a member of a request or an answer.
type member struct {
	name     string
	value    func(*message) any // a pointer: *[]byte for base64, *string, *[]string, *int, *RequestMetadata, *[]Member
	required bool
	max      int // octets; more is Unsupported in a request if the member is not of fixed size, else Validation
	small    bool
	only     string // of a *string: the one value that it may have; empty: any
}

// message is a request or an answer.
type message struct {
	*Request
	*Answer
}

// metadataMember is a member of the request metadata.
type metadataMember struct {
	name     string
	value    func(*RequestMetadata) *string
	required [numOperations]bool
	filled   bool // where it is required, it must not be empty. Else what is in it is nobody's business: it is for logs and rules
}

// maxDepth is how deep members that nobody knows may be nested.
const maxDepth = 16

// decode reads an object of which only the members are looked at. Members that are there twice are refused, as one end could see the first and the
// other the last. null is absent. A member that is too large (Unsupported) is told of when all others have been read.
func decode(body []byte, members []member, of *message, metadata func(json.RawMessage, *RequestMetadata) error) error {
	raw, err := object(body)
	if err != nil {
		return err
	}
	var tooLarge error
	for _, m := range members {
		text, ok := raw[m.name]
		if !ok || string(text) == "null" {
			if m.required {
				return &Error{Code: Validation, Member: m.name, Absent: true, Detail: "it is missing"}
			}
			continue
		}
		err := m.decode(text, of, metadata)
		switch {
		case err != nil && AsError(err).Code == Unsupported:
			tooLarge = err
		case err != nil:
			return err
		}
	}
	return tooLarge
}

func (m *member) decode(text json.RawMessage, of *message, metadata func(json.RawMessage, *RequestMetadata) error) error {
	bad := func(format string, args ...any) error {
		return &Error{Code: Validation, Member: m.name, Detail: fmt.Sprintf(format, args...)}
	}
	switch v := m.value(of).(type) {
	case *[]byte:
		var s string
		if json.Unmarshal(text, &s) != nil {
			return bad("it must be a string of base64")
		}
		if base64.StdEncoding.DecodedLen(len(s)) > m.max+2 {
			return m.tooLong()
		}
		b, err := decodeBase64(s)
		if err != nil {
			return bad("it must be base64 (RFC 4648, section 4), with padding")
		}
		if len(b) > m.max {
			return m.tooLong()
		}
		if len(b) > 0 { // empty is absent
			*v = b
		}
	case *string:
		if json.Unmarshal(text, v) != nil {
			return bad("it must be a string")
		}
		if len(*v) > m.max {
			return bad("it has more than %d octets", m.max)
		}
		if m.only != "" && *v != m.only {
			return bad("it must be %s", m.only)
		}
	case *int:
		if json.Unmarshal(text, v) != nil {
			return bad("it must be a whole number")
		}
	case *[]string:
		if json.Unmarshal(text, v) != nil || len(*v) > m.max {
			return bad("it must be a list of at most %d strings", m.max)
		}
	case *[]Member:
		if json.Unmarshal(text, v) != nil || len(*v) == 0 || len(*v) > m.max {
			return bad("it must be a list of 1 to %d objects", m.max)
		}
	case *RequestMetadata:
		return metadata(text, v)
	default:
		panic(fmt.Sprintf("xki: member %s is a %T", m.name, v))
	}
	return nil
}

func (m *member) tooLong() error {
	if m.small {
		return &Error{Code: Validation, Member: m.name, Detail: fmt.Sprintf("it has more than %d octets", m.max)}
	}
	return &Error{Code: Unsupported, Member: m.name, Detail: fmt.Sprintf("it has more than %d octets", m.max)}
}

// decodeBase64 is strict: Go's decoder would skip line ends.
func decodeBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, base64.CorruptInputError(0)
	}
	return base64.StdEncoding.Strict().DecodeString(s)
}

// object takes an object apart.
func object(text []byte) (map[string]json.RawMessage, error) {
	bad := func(detail string) error { return &Error{Code: Validation, Detail: detail} }
	if tooDeep(text) {
		return nil, bad("the JSON is nested too deep")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, bad("it must be a JSON object")
	}
	raw := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, bad("it must be a JSON object")
		}
		name, _ := t.(string)
		if _, twice := raw[name]; twice {
			return nil, bad("a member is there twice")
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, bad("it must be a JSON object")
		}
		raw[name] = v
	}
	if _, err := d.Token(); err != nil {
		return nil, bad("it must be a JSON object")
	}
	if d.More() || len(bytes.TrimSpace(text[d.InputOffset():])) > 0 {
		return nil, bad("something follows the JSON object")
	}
	return raw, nil
}

// tooDeep counts brackets; those in strings count too, which only refuses what nobody sends.
func tooDeep(text []byte) bool {
	depth, inString, escaped := 0, false, false
	for _, c := range text {
		switch {
		case escaped:
			escaped = false
		case inString:
			escaped, inString = c == '\\', c != '"'
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// encode writes an object. Members that are not required and empty are left out.
func encode(members []member, of *message, metadata func(*RequestMetadata) map[string]string) ([]byte, error) {
	out := make(map[string]any, len(members))
	for _, m := range members {
		switch v := m.value(of).(type) {
		case *[]byte:
			if m.required || len(*v) > 0 {
				out[m.name] = append([]byte{}, *v...) // base64 by encoding/json; nil would be null
			}
		case *string:
			if m.required || *v != "" {
				out[m.name] = *v
			}
		case *int:
			if m.required || *v != 0 {
				out[m.name] = *v
			}
		case *RequestMetadata:
			out[m.name] = metadata(v)
		default:
			out[m.name] = v
		}
	}
	return json.Marshal(out)
}
