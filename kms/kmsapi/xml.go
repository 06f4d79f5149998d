package kmsapi

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
)

// xmlType is the media type of an answer that was asked for with Format=XML. No SDK asks for it by default.
var xmlType = []string{"application/xml"}

// appendXML appends an answer, given as JSON, as XML: members become elements of their name, and the elements of a list
// repeat the name of the list.
func appendXML(dst []byte, root string, answer []byte) ([]byte, error) {
	out := bytes.NewBuffer(append(dst, xml.Header...))
	in := json.NewDecoder(bytes.NewReader(answer))
	in.UseNumber()
	if err := writeElement(out, root, in); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// writeElement writes the next value as an element. Names are those of kmswire, and need no escapes.
func writeElement(out *bytes.Buffer, name string, in *json.Decoder) error {
	value, err := in.Token()
	if err != nil {
		return err
	}
	if value == json.Delim('[') {
		for in.More() {
			if err := writeElement(out, name, in); err != nil {
				return err
			}
		}
		_, err = in.Token()
		return err
	}
	out.WriteString("<" + name + ">")
	switch value := value.(type) {
	case json.Delim: // an object
		for in.More() {
			member, err := in.Token()
			if err != nil {
				return err
			}
			memberName, ok := member.(string)
			if !ok {
				return io.ErrUnexpectedEOF
			}
			if err := writeElement(out, memberName, in); err != nil {
				return err
			}
		}
		if _, err := in.Token(); err != nil {
			return err
		}
	case string:
		if err := xml.EscapeText(out, []byte(value)); err != nil {
			return err
		}
	case json.Number:
		out.WriteString(value.String())
	case bool:
		if value {
			out.WriteString("true")
		} else {
			out.WriteString("false")
		}
	}
	out.WriteString("</" + name + ">")
	return nil
}
