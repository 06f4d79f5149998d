package kmswire

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"github.com/keyward/keyward/kms/kmswire/flatjson"
)

// Encode gives the wire parameters of req, a request struct or a pointer to one. Fields with a zero value are left out,
// except in the elements of lists. It refuses values that Decode would not give back: text that is not UTF-8 or
// contains NUL, JSON that is not well formed, a context that is too long. Those errors are *ParamError.
//
// Encode does not check that required parameters are there; the service does.
func Encode(req any) (url.Values, error) {
	v := reflect.ValueOf(req)
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return nil, fmt.Errorf("kmswire: %T is not a request", req)
	}
	p, err := planOf(v.Type())
	if err != nil {
		return nil, err
	}
	values := make(url.Values, len(p.fields))
	if err := p.encode(values, "", v, false); err != nil {
		return nil, err
	}
	return values, nil
}

// Decode sets the fields of req, a pointer to a zero request struct, from wire parameters. Parameters that req has no
// field for are ignored; so a sender may use newer ones. A parameter that is there but empty counts as absent. A
// parameter that is given twice must have the same value both times. Errors that are the sender's fault are
// *ParamError, and name the first parameter at fault in the order of the fields.
func Decode(values url.Values, req any) error {
	v := reflect.ValueOf(req)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("kmswire: %T is not a pointer to a request", req)
	}
	p, err := planOf(v.Elem().Type())
	if err != nil {
		return err
	}
	return p.decode(values, "", v.Elem())
}

// Parameter describes one parameter of an action.
type Parameter struct {
	Name     string
	Type     string      // string, base64, integer, boolean, map, JSON, or list
	Required bool        // it must be there; some may be empty then
	Elements []Parameter // of a list of structs: what follows after Name.N and a dot
}

// Parameters lists the parameters of req, a request struct or a pointer to one, in the order of its fields.
func Parameters(req any) ([]Parameter, error) {
	t := reflect.TypeOf(req)
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("kmswire: %T is not a request", req)
	}
	p, err := planOf(t)
	if err != nil {
		return nil, err
	}
	return p.parameters(), nil
}

func (p *plan) parameters() []Parameter {
	list := make([]Parameter, len(p.fields))
	for i, f := range p.fields {
		list[i] = Parameter{Name: f.name, Type: f.kind.name, Required: f.required || f.present}
		if f.elem != nil && f.elem.plan != nil {
			list[i].Elements = f.elem.plan.parameters()
		}
	}
	return list
}

// plan is how a struct is bound to parameters. It is made once for each type, and never changed.
type plan struct {
	fields []field
}

type field struct {
	name     string
	required bool  // it must be there and not be empty
	present  bool  // it must be there
	index    []int // for reflect.Value.FieldByIndex
	kind     *kind
	elem     *element // of a list
}

// element is what a list consists of: structs by plan, or else strings.
type element struct {
	plan *plan
}

// kind is how one type of field becomes text and back. text is never empty for decode. encode gives "" for a value to
// leave out.
type kind struct {
	name   string
	decode func(text string, v reflect.Value) error
	encode func(v reflect.Value) (string, error)
}

var (
	stringKind = &kind{"string",
		func(text string, v reflect.Value) error {
			v.SetString(text)
			return CheckText(text)
		},
		func(v reflect.Value) (string, error) { return v.String(), CheckText(v.String()) },
	}
	bytesKind = &kind{"base64",
		func(text string, v reflect.Value) error {
			b, err := DecodeBase64(nil, []byte(text))
			if len(b) > 0 {
				v.SetBytes(b)
			}
			return err
		},
		func(v reflect.Value) (string, error) { return base64.StdEncoding.EncodeToString(v.Bytes()), nil },
	}
	intKind = &kind{"integer",
		func(text string, v reflect.Value) error {
			n, err := ParseInt(text)
			if err == nil && n == 0 {
				err = errors.New("0 is not a value of it")
			}
			v.SetInt(int64(n))
			return err
		},
		func(v reflect.Value) (string, error) {
			if v.Int() == 0 {
				return "", nil
			}
			return strconv.FormatInt(v.Int(), 10), nil
		},
	}
	intPointerKind = &kind{"integer",
		func(text string, v reflect.Value) error {
			n, err := ParseInt(text)
			if err == nil {
				v.Set(reflect.ValueOf(&n))
			}
			return err
		},
		func(v reflect.Value) (string, error) {
			if v.IsNil() {
				return "", nil
			}
			return strconv.FormatInt(v.Elem().Int(), 10), nil
		},
	}
	boolKind = &kind{"boolean",
		func(text string, v reflect.Value) error {
			b, err := ParseBool(text)
			v.SetBool(b)
			return err
		},
		func(v reflect.Value) (string, error) {
			if !v.Bool() {
				return "", nil
			}
			return "true", nil
		},
	}
	mapKind = &kind{"map",
		func(text string, v reflect.Value) error {
			m, err := ParseContext([]byte(text))
			v.Set(reflect.ValueOf(m))
			return err
		},
		func(v reflect.Value) (string, error) {
			if v.Len() == 0 {
				return "", nil
			}
			return contextText(v.Interface().(map[string]string))
		},
	}
	jsonKind = &kind{"JSON",
		func(text string, v reflect.Value) error {
			raw, err := parseJSON(text)
			v.SetBytes(raw)
			return err
		},
		func(v reflect.Value) (string, error) {
			if v.Len() == 0 {
				return "", nil
			}
			raw, err := parseJSON(string(v.Bytes()))
			return string(raw), err
		},
	}
	listKind = &kind{name: "list"}
)

var kindsByType = map[reflect.Type]*kind{
	reflect.TypeFor[[]byte]():            bytesKind,
	reflect.TypeFor[json.RawMessage]():   jsonKind,
	reflect.TypeFor[int]():               intKind,
	reflect.TypeFor[*int]():              intPointerKind,
	reflect.TypeFor[bool]():              boolKind,
	reflect.TypeFor[map[string]string](): mapKind,
}

var plans sync.Map // reflect.Type to *plan

func planOf(t reflect.Type) (*plan, error) {
	if p, ok := plans.Load(t); ok {
		return p.(*plan), nil
	}
	p := &plan{}
	if err := p.add(t, nil, true); err != nil {
		return nil, fmt.Errorf("kmswire: %v: %w", t, err)
	}
	plans.Store(t, p)
	return p, nil
}

// add compiles the fields of t, which is at index within the request. lists says whether there may be lists in it.
func (p *plan) add(t reflect.Type, index []int, lists bool) error {
	for i := range t.NumField() {
		sf := t.Field(i)
		at := append(index[:len(index):len(index)], i)
		tag, tagged := sf.Tag.Lookup("param")
		if !tagged {
			if sf.Anonymous && sf.Type.Kind() == reflect.Struct {
				if err := p.add(sf.Type, at, lists); err != nil {
					return err
				}
			}
			continue
		}
		name, option, _ := strings.Cut(tag, ",")
		f := field{name: name, required: option == "required", present: option == "present", index: at, kind: kindsByType[sf.Type]}
		switch {
		case name == "", option != "" && !f.required && !f.present, !sf.IsExported():
			return fmt.Errorf("field %s has a bad param tag", sf.Name)
		case f.kind != nil:
		case sf.Type.Kind() == reflect.String:
			f.kind = stringKind
		case sf.Type.Kind() == reflect.Slice && lists:
			f.kind, f.elem = listKind, &element{}
			switch e := sf.Type.Elem(); e.Kind() {
			case reflect.String:
			case reflect.Struct:
				f.elem.plan = &plan{}
				if err := f.elem.plan.add(e, nil, false); err != nil {
					return err
				}
			default:
				return fmt.Errorf("field %s is a list of something that has no wire form", sf.Name)
			}
		default:
			return fmt.Errorf("field %s has a type that has no wire form", sf.Name)
		}
		for _, other := range p.fields {
			if other.name == name {
				return fmt.Errorf("two fields are bound to %s", name)
			}
		}
		p.fields = append(p.fields, f)
	}
	return nil
}

func invalid(name string, err error) error { return &ParamError{Param: name, Reason: err.Error()} }

// encode adds the parameters of v, each name after prefix. all keeps zero values, as empty parameters.
func (p *plan) encode(values url.Values, prefix string, v reflect.Value, all bool) error {
	for _, f := range p.fields {
		name, fv := prefix+f.name, v.FieldByIndex(f.index)
		if f.kind == listKind {
			for i := range fv.Len() {
				at := name + "." + strconv.Itoa(i+1)
				var err error
				if f.elem.plan != nil {
					err = f.elem.plan.encode(values, at+".", fv.Index(i), true)
				} else if err = CheckText(fv.Index(i).String()); err != nil {
					err = invalid(at, err)
				}
				if err != nil {
					return err
				}
				if f.elem.plan == nil {
					values.Set(at, fv.Index(i).String())
				}
			}
			continue
		}
		text, err := f.kind.encode(fv)
		if err != nil {
			return invalid(name, err)
		}
		if text == "" && f.required && f.kind == boolKind {
			text = "false" // a choice that must be made, not one that was left out
		}
		if text != "" || all || f.present {
			values.Set(name, text)
		}
	}
	return nil
}

// one gives the single value of a parameter.
func one(values url.Values, name string) (text string, given bool, err error) {
	list := values[name]
	for _, other := range list {
		if other != list[0] {
			return "", true, &ParamError{Param: name, Reason: "it is given twice, with different values"}
		}
	}
	if len(list) == 0 {
		return "", false, nil
	}
	return list[0], true, nil
}

func (p *plan) decode(values url.Values, prefix string, v reflect.Value) error {
	for _, f := range p.fields {
		name, fv := prefix+f.name, v.FieldByIndex(f.index)
		if f.kind == listKind {
			if err := f.elem.decode(values, name, fv); err != nil {
				return err
			}
			if f.required && fv.Len() == 0 {
				return &ParamError{Param: name, Missing: true}
			}
			continue
		}
		text, given, err := one(values, name)
		if err != nil {
			return err
		}
		if text != "" {
			if err := f.kind.decode(text, fv); err != nil {
				return invalid(name, err)
			}
		}
		if f.present && !given || f.required && (text == "" || fv.IsZero() && f.kind == bytesKind) {
			return &ParamError{Param: name, Missing: true}
		}
	}
	return nil
}

// numbered gives the parameters Name.1, Name.2 and so on that the JSON text of a list stands for.
func numbered(name string, text []byte) (url.Values, error) {
	s := flatjson.NewScanner(text)
	if err := s.Take('['); err != nil {
		return nil, err
	}
	values := make(url.Values)
	for n := 1; ; n++ {
		more, err := s.More(']', n == 1)
		if err != nil {
			return nil, err
		}
		if !more {
			return values, s.End()
		}
		at := name + "." + strconv.Itoa(n)
		if s.Peek() == '"' {
			element, err := s.Text()
			if err != nil {
				return nil, err
			}
			values.Set(at, string(element))
			continue
		}
		object, err := s.Value()
		if err != nil {
			return nil, err
		}
		members, err := flatjson.Strings(object)
		if err != nil {
			return nil, err
		}
		if len(members) == 0 {
			return nil, errors.New("an object in it is empty")
		}
		for member, value := range members {
			values.Set(at+"."+member, value)
		}
	}
}

// decode reads Name.1, Name.2 and so on into list, a slice, or all of it from the JSON array Name. There is no more
// room made than parameters are there.
func (e *element) decode(values url.Values, name string, list reflect.Value) error {
	text, _, err := one(values, name)
	if err != nil {
		return err
	}
	if text != "" {
		for other := range values {
			if strings.HasPrefix(other, name+".") {
				return &ParamError{Param: name, Reason: "it is given twice, as JSON and numbered"}
			}
		}
		if values, err = numbered(name, []byte(text)); err != nil {
			return &ParamError{Param: name, Reason: "it is not a JSON array of strings, or of objects of strings: " + err.Error()}
		}
	}
	count, highest := 0, 0
	seen := make(map[int]bool)
	for key := range values {
		rest, ok := strings.CutPrefix(key, name+".")
		if !ok {
			continue
		}
		digits, _, dotted := strings.Cut(rest, ".")
		n, err := strconv.Atoi(digits)
		if err != nil || n < 1 || strconv.Itoa(n) != digits || dotted != (e.plan != nil) {
			return &ParamError{Param: name, Reason: "its parts are not numbered as " + name + ".1 and so on"}
		}
		if !seen[n] {
			seen[n] = true
			count++
			highest = max(highest, n)
		}
	}
	if count == 0 {
		return nil
	}
	if highest != count {
		return &ParamError{Param: name, Reason: "its numbers have a gap"}
	}
	list.Set(reflect.MakeSlice(list.Type(), count, count))
	for i := range count {
		at := name + "." + strconv.Itoa(i+1)
		if e.plan != nil {
			if err := e.plan.decode(values, at+".", list.Index(i)); err != nil {
				return err
			}
			continue
		}
		text, _, err := one(values, at)
		if err != nil {
			return err
		}
		if err := stringKind.decode(text, list.Index(i)); err != nil {
			return invalid(at, err)
		}
	}
	return nil
}
