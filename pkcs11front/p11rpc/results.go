package p11rpc

import "github.com/keyward/keyward/pkcs11front/ck"

// Wanted is an attribute that a client asks for, and how much room it has in its own memory's terms: 8 for a CK_ULONG, 1 for a CK_BBOOL.
type Wanted struct {
	Type ck.Attribute
	Null bool // only the length is asked for
	Room uint32
	// Nested is what is asked for inside an attribute array; what types the client wrote there means nothing.
	Nested []Wanted
}

// Result is an attribute in the answer of C_GetAttributeValue.
type Result struct {
	Type ck.Attribute
	// RV is CKR_OK, or why there is no value: CKR_ATTRIBUTE_SENSITIVE or CKR_ATTRIBUTE_TYPE_INVALID. A Reader, which can't tell, gives the latter.
	RV ck.RV
	Value
	Length uint32 // in a Reader's: of the value in the client's memory, which may have come without it
}

// Wanted reads an "fA".
func (r *Reader) Wanted() []Wanted {
	if r.lost {
		return nil
	}
	before, budget := *r, MaxAttributes
	all := r.wanted(1, &budget, r.d != Offer0)
	if r.d == Offer1 && (r.bad || len(r.b) > 0) {
		// p11-kit 0.25.0 to 0.25.3: an array says nothing of what is in it. An "fA" is the last argument of the one call that has it, so it is
		// what reads to the end.
		*r, budget = before, MaxAttributes
		all = r.wanted(1, &budget, false)
	}
	return all
}

func (r *Reader) wanted(depth int, budget *int, nests bool) []Wanted {
	n := r.elements(depth, budget, leastWanted)
	if n == 0 {
		return nil
	}
	all := make([]Wanted, n)
	for i := range all {
		w := &all[i]
		w.Type, w.Room = ck.Attribute(r.u32()), r.u32()
		if r.d == Keyward && w.Room == null || r.d != Keyward && w.Room == 0 {
			w.Null, w.Room = true, 0
		}
		if nests && !w.Null && KindOf(w.Type) == Template {
			w.Nested = r.wanted(depth+1, budget, nests)
		}
		if r.bad {
			return nil
		}
	}
	return all
}

// Wanted writes an "fA". A client of Offer1 is one from 0.25.4 on.
func (w *Writer) Wanted(all []Wanted) {
	w.u32(uint32(len(all)))
	for i := range all {
		a := &all[i]
		w.u32(uint32(a.Type))
		if a.Null && w.d == Keyward {
			w.u32(null)
		} else {
			w.u32(a.Room)
		}
		if w.d != Offer0 && !a.Null && KindOf(a.Type) == Template {
			w.Wanted(a.Nested)
		}
	}
}

// Results writes the "aAu" of C_GetAttributeValue, which answers wanted one by one, and gives the return value of the call: anything but
// CKR_OK is an error in place of the answer.
//
// An attribute for which there is too little room is unavailable, like one that is sensitive or not there (PKCS #11 2.40 §5.7,
// C_GetAttributeValue); what the client's call returns is in the answer then.
func (w *Writer) Results(wanted []Wanted, results []Result) ck.RV {
	if len(wanted) == 0 {
		return ck.CKR_ARGUMENTS_BAD // a client up to 0.24.1 would abort its process on an answer
	}
	if len(wanted) != len(results) {
		return ck.CKR_GENERAL_ERROR
	}
	if w.d == Offer0 || w.d == Offer1 {
		for i := range wanted {
			if KindOf(wanted[i].Type) == Template {
				return refusedTemplate(len(wanted))
			}
		}
	}
	begin := len(w.b)
	w.u32(uint32(len(wanted)))
	said := ck.CKR_OK
	for i := range wanted {
		r := &results[i]
		if r.Type != wanted[i].Type || r.RV == ck.CKR_OK && r.Kind != KindOf(r.Type) {
			return ck.CKR_GENERAL_ERROR // the client would read it as something else
		}
		rv := r.RV
		if rv == ck.CKR_OK {
			rv = w.found(&wanted[i], r.Type, &r.Value)
		} else {
			w.unavailable(r.Type)
		}
		said = graver(said, rv)
		if len(w.b)-begin > MaxBody { // one large value asked for many times, say
			return ck.CKR_DEVICE_MEMORY
		}
	}
	w.Ulong(uint64(said))
	return ck.CKR_OK
}

// refusedTemplate is what a client gets that asks for an attribute array and takes no answer with one, even if it says that there is none
// (p11-kit 0.24.1, reference p11kit-rpc.md, section 5). If it asks for others too, it must not take what is in its buffers for their values.
func refusedTemplate(wanted int) ck.RV {
	if wanted == 1 {
		return ck.CKR_ATTRIBUTE_TYPE_INVALID
	}
	return ck.CKR_FUNCTION_FAILED
}

// graver gives the return value that tells more of two attributes.
func graver(a, b ck.RV) ck.RV {
	for _, rv := range []ck.RV{ck.CKR_ATTRIBUTE_SENSITIVE, ck.CKR_ATTRIBUTE_TYPE_INVALID, ck.CKR_BUFFER_TOO_SMALL} {
		if a == rv || b == rv {
			return rv
		}
	}
	return ck.CKR_OK
}

func (w *Writer) unavailable(a ck.Attribute) {
	w.u32(uint32(a))
	w.Byte(0)
}

// found writes an attribute that there is.
func (w *Writer) found(wanted *Wanted, a ck.Attribute, v *Value) ck.RV {
	if !wanted.Null && uint64(wanted.Room) < uint64(v.size()) {
		w.unavailable(a)
		return ck.CKR_BUFFER_TOO_SMALL
	}
	w.u32(uint32(a))
	w.Byte(1)
	if v.Kind != Template || wanted.Null {
		w.value(a, v, wanted.Null)
		return ck.CKR_OK
	}
	if w.d == Keyward {
		w.Byte(byte(Template))
	}
	w.u32(uint32(v.size()))
	w.u32(uint32(len(v.Nested)))
	said := ck.CKR_OK
	for i := range v.Nested {
		room := Wanted{Null: true}
		if i < len(wanted.Nested) {
			room = wanted.Nested[i]
		}
		said = graver(said, w.found(&room, v.Nested[i].Type, &v.Nested[i].Value))
	}
	return said
}

// Results reads the "aA" of C_GetAttributeValue's answer.
func (r *Reader) Results() []Result {
	budget := MaxAttributes
	n := r.elements(1, &budget, leastAttribute)
	if n == 0 {
		return nil
	}
	all := make([]Result, n)
	for i := range all {
		a := &all[i]
		a.Type = ck.Attribute(r.u32())
		switch r.Byte() {
		case 0:
			a.RV = ck.CKR_ATTRIBUTE_TYPE_INVALID
		case 1:
			a.Length = r.value(a.Type, &a.Value, 1, &budget)
			lengthOnly := (a.Kind == Bytes || a.Kind == Date) && a.Octets == nil
			if uint64(a.Length) != uint64(a.size()) && !lengthOnly {
				r.fail()
			}
		default:
			r.fail()
		}
		if r.bad {
			return nil
		}
	}
	return all
}
