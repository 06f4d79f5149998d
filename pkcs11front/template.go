package pkcs11front

import (
	"bytes"
	"slices"
	"time"
	"unsafe"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// values are attributes in order of their types, each once, in the kind that the standard gives it. What an object is made of is
// immutable and its own; what was read from a request is a part of the frame.
type values []p11rpc.Attribute

func (v values) at(a ck.Attribute) (int, bool) {
	return slices.BinarySearchFunc(v, a, func(e p11rpc.Attribute, a ck.Attribute) int {
		switch {
		case e.Type < a:
			return -1
		case e.Type > a:
			return 1
		}
		return 0
	})
}

// get gives the value of an attribute, if it is there.
func (v values) get(a ck.Attribute) (p11rpc.Value, bool) {
	if i, ok := v.at(a); ok {
		return v[i].Value, true
	}
	return p11rpc.Value{}, false
}

func (v values) has(a ck.Attribute) bool {
	_, ok := v.at(a)
	return ok
}

// octets gives an attribute of octets, nil if it is not there.
func (v values) octets(a ck.Attribute) []byte {
	value, _ := v.get(a)
	return value.Octets
}

// number gives a number or a boolean, and otherwise if it is not there.
func (v values) number(a ck.Attribute, otherwise uint64) uint64 {
	if value, ok := v.get(a); ok {
		return value.Number
	}
	return otherwise
}

// is gives a boolean, and otherwise if it is not there.
func (v values) is(a ck.Attribute, otherwise bool) bool {
	if value, ok := v.get(a); ok {
		return value.Number != 0
	}
	return otherwise
}

// set puts a value in, or another in its place. It may change v.
func (v values) set(a ck.Attribute, value p11rpc.Value) values {
	i, ok := v.at(a)
	if ok {
		v[i].Value = value
		return v
	}
	return slices.Insert(v, i, p11rpc.Attribute{Type: a, Value: value})
}

// without gives the values without some attributes. It shares them with v, which it does not change.
func (v values) without(types ...ck.Attribute) values {
	rest := make(values, 0, len(v)+8) // some are set afterwards
	for i := range v {
		if !slices.Contains(types, v[i].Type) {
			rest = append(rest, v[i])
		}
	}
	return rest
}

// clone gives values that share nothing with v.
func (v values) clone() values {
	own := slices.Clone(v)
	for i := range own {
		own[i].Octets = bytes.Clone(own[i].Octets)
		own[i].Numbers = slices.Clone(own[i].Numbers)
		own[i].Nested = nil // no attribute of an object is an attribute array
	}
	return own
}

// weight is about how many octets of memory the values take.
func (v values) weight() int {
	n := cap(v) * int(unsafe.Sizeof(p11rpc.Attribute{}))
	for i := range v {
		n += len(v[i].Octets) + 8*len(v[i].Numbers)
	}
	return n
}

// wipe wipes values that are v's own.
func (v values) wipe() {
	for i := range v {
		clear(v[i].Octets)
	}
}

func octetsValue(b []byte) p11rpc.Value { return p11rpc.Value{Kind: p11rpc.Bytes, Octets: b} }
func ulongValue(n uint64) p11rpc.Value  { return p11rpc.Value{Kind: p11rpc.Ulong, Number: n} }
func boolValue(b bool) p11rpc.Value {
	if b {
		return p11rpc.Value{Kind: p11rpc.Bool, Number: 1}
	}
	return p11rpc.Value{Kind: p11rpc.Bool}
}

// sameValue says whether two values of an attribute are the same.
func sameValue(a, b p11rpc.Value) bool {
	return a.Kind == b.Kind && a.Number == b.Number && bytes.Equal(a.Octets, b.Octets) && slices.Equal(a.Numbers, b.Numbers)
}

// validDate: a CK_DATE is 8 digits of a day that there is, or empty.
func validDate(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	_, err := time.Parse("20060102", string(b))
	return err == nil && len(b) == 8
}

// readTemplate puts a template into order. Attributes that nobody knows stay as they are: what a call may be given is checked against
// the table of what it makes. The result is a part of the frame.
func readTemplate(given []p11rpc.Attribute) (values, ck.RV) {
	v := values(slices.Clone(given))
	slices.SortStableFunc(v, func(a, b p11rpc.Attribute) int {
		switch {
		case a.Type < b.Type:
			return -1
		case a.Type > b.Type:
			return 1
		}
		return 0
	})
	for i := range v {
		switch kind := p11rpc.KindOf(v[i].Type); {
		case v[i].Kind != kind, kind == p11rpc.Date && !validDate(v[i].Octets):
			return nil, ck.CKR_ATTRIBUTE_VALUE_INVALID
		}
	}
	for i := 1; i < len(v); i++ {
		if v[i].Type == v[i-1].Type && !sameValue(v[i].Value, v[i-1].Value) {
			return nil, ck.CKR_TEMPLATE_INCONSISTENT
		}
	}
	return slices.CompactFunc(v, func(a, b p11rpc.Attribute) bool { return a.Type == b.Type }), ck.CKR_OK
}

// check says whether a call may be given the template for an object of the table (§4.1.1 of the standard).
func (t *classTable) check(v values, by origin) ck.RV {
	for i := range v {
		row := t.byType[v[i].Type]
		switch {
		case row == nil:
			return ck.CKR_ATTRIBUTE_TYPE_INVALID
		case row.given&by == 0:
			return ck.CKR_ATTRIBUTE_READ_ONLY
		}
	}
	for i := range t.rows {
		if row := &t.rows[i]; row.needed&by != 0 && !v.has(row.attribute) {
			return ck.CKR_TEMPLATE_INCOMPLETE
		}
	}
	if by == byCopy || by == bySet {
		return ck.CKR_OK
	}
	if class, ok := v.get(ck.CKA_CLASS); ok && ck.Class(class.Number) != t.class {
		return ck.CKR_TEMPLATE_INCONSISTENT
	}
	if keyType, ok := v.get(ck.CKA_KEY_TYPE); ok && ck.KeyType(keyType.Number) != t.keyType {
		return ck.CKR_TEMPLATE_INCONSISTENT
	}
	return t.checkFixed(v)
}

// checkFixed refuses values that no object here has.
func (t *classTable) checkFixed(v values) ck.RV {
	switch {
	case v.is(ck.CKA_TRUSTED, false): // only a security officer makes something trusted (P5)
		return ck.CKR_ATTRIBUTE_READ_ONLY
	case v.is(ck.CKA_ALWAYS_AUTHENTICATE, false):
		return ck.CKR_TEMPLATE_INCONSISTENT
	}
	return checkRange(v)
}

// checkRange refuses what does not fit the limits of names.
func checkRange(v values) ck.RV {
	if len(v.octets(ck.CKA_ID)) > kms.MaxObjectID || len(v.octets(ck.CKA_LABEL)) > kms.MaxObjectLabel {
		return ck.CKR_ATTRIBUTE_VALUE_INVALID
	}
	return ck.CKR_OK
}
