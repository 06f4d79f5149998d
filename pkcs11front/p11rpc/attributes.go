package p11rpc

import (
	"encoding/binary"

	"github.com/keyward/keyward/pkcs11front/ck"
)

// Value is the value of an attribute. Which field counts, Kind says.
//
// A Reader gives it the kind that the attribute has by PKCS #11 (KindOf), whatever the dialect writes. A value that is none of that kind,
// such as a CK_ULONG of four octets or a CK_BBOOL of 2, comes as Bytes: CKR_ATTRIBUTE_VALUE_INVALID to who expects something else.
type Value struct {
	Kind    Kind
	Octets  []byte      // Bytes, Date: a part of the frame that it came in. nil: NULL, and no octets
	Number  uint64      // Bool (0 or 1), Ulong
	Numbers []uint64    // Ulongs
	Nested  []Attribute // Template
}

// Attribute is an element of a template.
type Attribute struct {
	Type ck.Attribute
	Value
}

// Sizes in the memory of a client: of its CK_ULONG and CK_ATTRIBUTE.
const (
	ulongSize     = 8
	attributeSize = 24
)

// size is what a value takes in the memory of a client (ulValueLen).
func (v *Value) size() int {
	switch v.Kind {
	case Bool:
		return 1
	case Ulong:
		return ulongSize
	case Ulongs:
		return ulongSize * len(v.Numbers)
	case Template:
		return attributeSize * len(v.Nested)
	}
	return len(v.Octets)
}

// The least octets that an element of an "aA" has, and one of an "fA".
const (
	leastAttribute = 5
	leastWanted    = 8
)

// elements reads how many elements follow. MaxAttributes is of a template with all that it nests, so that what is allocated is bounded by that
// and by what is left to read.
func (r *Reader) elements(depth int, budget *int, least uint64) int {
	n := uint64(r.u32())
	if depth > MaxDepth || n > uint64(*budget) || n*least > uint64(len(r.b)) {
		r.fail()
		return 0
	}
	*budget -= int(n)
	return int(n)
}

// Template reads an "aA" of a request.
func (r *Reader) Template() []Attribute {
	if r.lost {
		return nil
	}
	budget := MaxAttributes
	return r.template(1, &budget)
}

func (r *Reader) template(depth int, budget *int) []Attribute {
	n := r.elements(depth, budget, leastAttribute)
	if n == 0 {
		return nil
	}
	all := make([]Attribute, n)
	for i := range all {
		a := &all[i]
		a.Type = ck.Attribute(r.u32())
		if r.Byte() != 1 { // a length of CK_UNAVAILABLE_INFORMATION, in a request
			r.fail()
		}
		if length := r.value(a.Type, &a.Value, depth, budget); uint64(length) != uint64(a.size()) {
			r.fail() // also NULL of a length that is not 0
		}
		if r.bad {
			return nil
		}
	}
	return all
}

// value reads a value that is there: its kind if the dialect has that on the wire, its length in the client's memory, and itself. It gives
// the length.
func (r *Reader) value(a ck.Attribute, v *Value, depth int, budget *int) (length uint32) {
	kind := wireKind(r.d, a)
	if r.d == Keyward && Kind(r.Byte()) != kind {
		r.fail()
	}
	length = r.u32()
	v.Kind = kind
	switch kind {
	case Bool:
		r.number(v, length, r.take(1))
	case Ulong:
		r.number(v, length, r.take(ulongSize))
	case Ulongs:
		v.Numbers = r.numbers()
	case Template:
		v.Nested = r.template(depth+1, budget)
	case Bytes, Date:
		v.Octets = r.bytes()
		if kind == Bytes && KindOf(a) != Bytes {
			v.fromMemory(KindOf(a))
		}
		if kind == Date && len(v.Octets) != 0 && len(v.Octets) != 8 {
			r.fail()
		}
	}
	return length
}

// number makes a Bool or an Ulong of the octets b of the wire, of which the client's value had the last length. They are there even if it had
// none.
func (r *Reader) number(v *Value, length uint32, b []byte) {
	n := uint32(len(b))
	if length > n || r.d == Keyward && length != n {
		r.fail()
		return
	}
	if length == n && (n == ulongSize || n == 1 && b[0] <= 1) {
		for _, o := range b {
			v.Number = v.Number<<8 | uint64(o)
		}
		return
	}
	for _, o := range b[:n-length] {
		if o != 0 {
			r.fail()
		}
	}
	v.Kind, v.Octets = Bytes, b[n-length:]
}

// fromMemory makes a value of its octets in the client's memory, which is of this machine, if they can be one of that kind.
func (v *Value) fromMemory(kind Kind) {
	switch {
	case kind == Bool && len(v.Octets) == 1 && v.Octets[0] <= 1:
		v.Number = uint64(v.Octets[0])
	case kind == Ulong && len(v.Octets) == ulongSize:
		v.Number = binary.NativeEndian.Uint64(v.Octets)
	default:
		return
	}
	v.Kind, v.Octets = kind, nil
}

// Template writes an "aA" of a request.
func (w *Writer) Template(all []Attribute) {
	w.u32(uint32(len(all)))
	for i := range all {
		w.u32(uint32(all[i].Type))
		w.Byte(1)
		w.value(all[i].Type, &all[i].Value, false)
	}
}

// value writes what Reader.value reads; with lengthOnly, octets are left out.
func (w *Writer) value(a ck.Attribute, v *Value, lengthOnly bool) {
	kind := wireKind(w.d, a)
	if w.d == Keyward {
		w.Byte(byte(kind))
	}
	w.u32(uint32(v.size()))
	switch {
	case kind == Template:
		w.Template(v.Nested)
	case kind == Ulongs:
		w.numbers(v.Numbers)
	case kind == Bool && v.Kind == Bool:
		w.Byte(byte(v.Number))
	case kind == Ulong && v.Kind == Ulong:
		w.Ulong(v.Number)
	case kind == Bool:
		w.padded(v.Octets, 1)
	case kind == Ulong:
		w.padded(v.Octets, ulongSize)
	case lengthOnly:
		w.u32(null)
	case v.Kind == Bool:
		w.u32(1)
		w.Byte(byte(v.Number))
	case v.Kind == Ulong:
		w.u32(ulongSize)
		w.room(ulongSize)
		w.b = binary.NativeEndian.AppendUint64(w.b, v.Number)
	default:
		w.bytes(v.Octets)
	}
}

// padded writes octets behind zeros.
func (w *Writer) padded(b []byte, width int) {
	for range width - len(b) {
		w.Byte(0)
	}
	w.append(b)
}
