package kmswire

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/keyward/keyward/kms/kmswire/flatjson"
)

// ParamError says that one parameter is absent, or why its text is not acceptable. The API door turns it into
// MissingParameter or InvalidParameter. It never carries the parameter's value.
type ParamError struct {
	Param   string // as on the wire, with its index if it is part of a list: Tag.2.Key
	Missing bool   // required, and absent or empty
	Reason  string // if not Missing
}

// Error renders the error.
func (e *ParamError) Error() string {
	if e.Missing {
		return "parameter " + e.Param + " is missing"
	}
	return "parameter " + e.Param + ": " + e.Reason
}

// CheckText refuses what no text of the API may contain: octets that are not UTF-8, and NUL.
func CheckText(s string) error {
	if !utf8.ValidString(s) {
		return fmt.Errorf("it is not valid UTF-8")
	}
	if strings.IndexByte(s, 0) >= 0 {
		return fmt.Errorf("it contains NUL")
	}
	return nil
}

// base64Text refuses trailing bits that are not zero, so that octets have one spelling only (but for white space).
var base64Text = base64.StdEncoding.Strict()

// DecodeBase64 decodes standard base64 with padding and appends the octets to dst. ASCII white space is dropped, so
// wrapped text is accepted. A lone space in the middle of a group of four is refused, though: that is what a plus sign
// becomes in a query when the sender forgot to escape it, and dropping it could decode to other octets.
func DecodeBase64(dst []byte, text []byte) ([]byte, error) {
	start := len(dst)
	dst = growBy(dst, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64Text.Decode(dst[start:cap(dst)], text) // drops CR and LF by itself
	if err == nil {
		return dst[:start+n], nil
	}
	clear(dst[start:cap(dst)])
	packed := make([]byte, 0, len(text))
	defer func() { clear(packed[:cap(packed)]) }()
	for _, c := range text {
		switch c {
		case '\t', '\n', '\v', '\f', '\r':
		case ' ':
			if len(packed)%4 != 0 {
				return nil, fmt.Errorf("it is not base64: a space stands inside a group of four (is a + not escaped as %%2B?)")
			}
		default:
			packed = append(packed, c)
		}
	}
	n, err = base64Text.Decode(dst[start:cap(dst)], packed)
	if err != nil {
		clear(dst[start:cap(dst)])
		return nil, fmt.Errorf("it is not base64 in the standard alphabet with padding")
	}
	return dst[:start+n], nil
}

// growBy gives b with room for n more octets.
func growBy(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	grown := make([]byte, len(b), len(b)+n)
	copy(grown, b)
	return grown
}

// ParseInt reads a decimal integer: digits, with a minus sign before them if it is negative.
func ParseInt(s string) (int, error) {
	if s != "" && s[0] != '+' {
		if n, err := strconv.Atoi(s); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("it is not a decimal integer")
}

// ParseBool reads "true" or "false".
func ParseBool(s string) (bool, error) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("it is neither true nor false")
}

// ParseContext reads an EncryptionContext: one JSON object whose members are strings, at most MaxContextText characters
// of text, no name twice. An empty object gives nil, because it means the same as no context.
func ParseContext(text []byte) (map[string]string, error) {
	if len(text) > MaxContextText*utf8.UTFMax || len(text) > MaxContextText && utf8.RuneCount(text) > MaxContextText {
		return nil, fmt.Errorf("its JSON text is longer than %d characters", MaxContextText)
	}
	context, err := flatjson.Strings(text)
	if err != nil {
		return nil, fmt.Errorf("it is not one JSON object of strings: %w", err)
	}
	return context, nil
}

// parseJSON checks that s is one JSON text in UTF-8.
func parseJSON(s string) (json.RawMessage, error) {
	if !utf8.ValidString(s) {
		return nil, fmt.Errorf("it is not valid UTF-8")
	}
	raw := json.RawMessage(s)
	if !json.Valid(raw) {
		return nil, fmt.Errorf("it is not well-formed JSON")
	}
	return raw, nil
}

// contextText renders a context, and refuses one that ParseContext would not give back.
func contextText(context map[string]string) (string, error) {
	for name, value := range context {
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return "", fmt.Errorf("it is not valid UTF-8")
		}
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(context); err != nil {
		return "", err
	}
	text := strings.TrimSuffix(b.String(), "\n")
	if utf8.RuneCountInString(text) > MaxContextText {
		return "", fmt.Errorf("its JSON text is longer than %d characters", MaxContextText)
	}
	return text, nil
}
