package p11rpc

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/keyward/keyward/pkcs11front/ck"
)

// TestResults says what C_GetAttributeValue answers, as octets for the dialect of each kind of client, and what a client makes of it.
func TestResults(t *testing.T) {
	exchange := []Result{
		{Type: ck.CKA_TOKEN, Value: yes}, {Type: ck.CKA_KEY_TYPE, Value: number(3)}, {Type: ck.CKA_LABEL, Value: text("ec1")},
		{Type: ck.CKA_ALLOWED_MECHANISMS, Value: Value{Kind: Ulongs, Numbers: []uint64{1, 0xd, 0x1041}}}, {Type: ck.CKA_VALUE, RV: ck.CKR_ATTRIBUTE_TYPE_INVALID},
	}
	wanted := []Wanted{{Type: ck.CKA_TOKEN, Room: 1}, {Type: ck.CKA_KEY_TYPE, Room: 8}, {Type: ck.CKA_LABEL, Room: 8},
		{Type: ck.CKA_ALLOWED_MECHANISMS, Null: true}, {Type: ck.CKA_VALUE, Null: true}}
	one := func(a ck.Attribute, v Value, w Wanted) ([]Wanted, []Result) {
		w.Type = a
		return []Wanted{w}, []Result{{Type: a, Value: v}}
	}
	null, all := Wanted{Null: true}, Wanted{Room: 1 << 20}
	template := Value{Kind: Template, Nested: []Attribute{{ck.CKA_CLASS, number(4)}, {ck.CKA_LABEL, text("abc")}}}
	for _, test := range []struct {
		name   string
		d      Dialect
		make   func() ([]Wanted, []Result)
		octets string
	}{
		{"of p11-kit 0.24.1", Offer0, func() ([]Wanted, []Result) { return wanted, exchange }, `00000005
			00000001 01 00000001 01
			00000100 01 00000008 0000000000000003
			00000003 01 00000003 00000003 656331
			40000600 01 00000018 00000003 0000000000000001 000000000000000d 0000000000001041
			00000011 00
			0000000000000012`},
		{"the same", Keyward, func() ([]Wanted, []Result) { return wanted, exchange }, `00000005
			00000001 01 01 00000001 01
			00000100 01 02 00000008 0000000000000003
			00000003 01 00 00000003 00000003 656331
			40000600 01 04 00000018 00000003 0000000000000001 000000000000000d 0000000000001041
			00000011 00
			0000000000000012`},
		{"the length of octets", Offer0, func() ([]Wanted, []Result) { return one(ck.CKA_LABEL, text("abc"), null) }, "00000001 00000003 01 00000003 ffffffff 0000000000000000"},
		{"the length of octets", Keyward, func() ([]Wanted, []Result) { return one(ck.CKA_LABEL, text("abc"), null) }, "00000001 00000003 01 00 00000003 ffffffff 0000000000000000"},
		{"the length of a date", Offer1, func() ([]Wanted, []Result) {
			return one(ck.CKA_START_DATE, Value{Kind: Date, Octets: []byte("20261124")}, null)
		},
			"00000001 00000110 01 00000008 ffffffff 0000000000000000"},
		{"no date", Offer1, func() ([]Wanted, []Result) { return one(ck.CKA_START_DATE, Value{Kind: Date, Octets: []byte{}}, all) },
			"00000001 00000110 01 00000000 00000000 0000000000000000"},
		{"the length of a flag", Offer2, func() ([]Wanted, []Result) { return one(ck.CKA_SIGN, yes, null) }, "00000001 00000108 01 00000001 01 0000000000000000"},
		{"the length of a flag that p11-kit does not know", Offer2, func() ([]Wanted, []Result) { return one(ck.CKA_DESTROYABLE, yes, null) },
			"00000001 00000172 01 00000001 ffffffff 0000000000000000"},
		{"a flag that p11-kit does not know", Offer2, func() ([]Wanted, []Result) { return one(ck.CKA_DESTROYABLE, yes, all) },
			"00000001 00000172 01 00000001 00000001 01 0000000000000000"},
		{"a flag that p11-kit does not know", Keyward, func() ([]Wanted, []Result) { return one(ck.CKA_DESTROYABLE, yes, all) },
			"00000001 00000172 01 01 00000001 01 0000000000000000"},
		{"too little room", Offer0, func() ([]Wanted, []Result) { return one(ck.CKA_LABEL, text("abc"), Wanted{Room: 2}) }, "00000001 00000003 00 0000000000000150"},
		{"too little room", Keyward, func() ([]Wanted, []Result) { return one(ck.CKA_CLASS, number(3), Wanted{Room: 7}) }, "00000001 00000000 00 0000000000000150"},
		{"no room", Keyward, func() ([]Wanted, []Result) { return one(ck.CKA_SIGN, yes, Wanted{}) }, "00000001 00000108 00 0000000000000150"},
		{"nothing, and no room", Keyward, func() ([]Wanted, []Result) { return one(ck.CKA_ID, Value{Octets: []byte{}}, Wanted{}) },
			"00000001 00000102 01 00 00000000 00000000 0000000000000000"},
		{"enough room for an array", Offer2, func() ([]Wanted, []Result) {
			return one(ck.CKA_WRAP_TEMPLATE, template, Wanted{Room: 48, Nested: []Wanted{{Room: 8}, {Room: 3}}})
		}, "00000001 40000211 01 00000030 00000002 00000000 01 00000008 0000000000000004 00000003 01 00000003 00000003 616263 0000000000000000"},
		{"too little room in an array", Keyward, func() ([]Wanted, []Result) {
			return one(ck.CKA_WRAP_TEMPLATE, template, Wanted{Room: 48, Nested: []Wanted{{Room: 8}, {Room: 2}}})
		}, "00000001 40000211 01 05 00000030 00000002 00000000 01 02 00000008 0000000000000004 00000003 00 0000000000000150"},
		{"lengths in an array", Keyward, func() ([]Wanted, []Result) {
			return one(ck.CKA_WRAP_TEMPLATE, template, Wanted{Room: 48, Nested: []Wanted{{Null: true}, {Null: true}}})
		}, "00000001 40000211 01 05 00000030 00000002 00000000 01 02 00000008 0000000000000004 00000003 01 00 00000003 ffffffff 0000000000000000"},
	} {
		w := Writer{}
		w.Reset(test.d, nil)
		wanted, results := test.make()
		if rv := w.Results(wanted, results); rv != ck.CKR_OK || !bytes.Equal(w.Bytes(), octetsOf(test.octets)) {
			t.Errorf("%s, dialect %d: %v and\n%x, not\n%x", test.name, test.d, rv, w.Bytes(), octetsOf(test.octets))
		}
	}
	w := Writer{}
	w.Reset(Keyward, nil)
	w.Results(wanted, exchange)
	var r Reader
	r.Reset(Keyward, w.Bytes())
	for i, got := range r.Results() {
		want := exchange[i]
		if got.Length = 0; !reflect.DeepEqual(got, want) {
			t.Errorf("%+v is read as %+v", want, got)
		}
	}
	if rv := ck.RV(r.Ulong()); rv != ck.CKR_ATTRIBUTE_TYPE_INVALID || r.End() != nil {
		t.Errorf("the return value is %v (%v)", rv, r.End())
	}
}

// TestResultsThatAreNone says what is answered with an error.
func TestResultsThatAreNone(t *testing.T) {
	label := Result{Type: ck.CKA_LABEL, Value: text("abc")}
	array := Result{Type: ck.CKA_WRAP_TEMPLATE, RV: ck.CKR_ATTRIBUTE_TYPE_INVALID}
	for d := Offer0; d <= Keyward; d++ {
		old := d == Offer0 || d == Offer1
		for _, test := range []struct {
			name     string
			results  []Result
			old, new ck.RV
		}{
			{"nothing", nil, ck.CKR_ARGUMENTS_BAD, ck.CKR_ARGUMENTS_BAD},
			{"an array", []Result{array}, ck.CKR_ATTRIBUTE_TYPE_INVALID, ck.CKR_OK},
			// The client would take what is in its buffer for the label, if it were told that it got some.
			{"a label and an array", []Result{label, array}, ck.CKR_FUNCTION_FAILED, ck.CKR_OK},
			{"a value of another kind", []Result{{Type: ck.CKA_SIGN, Value: text("y")}}, ck.CKR_GENERAL_ERROR, ck.CKR_GENERAL_ERROR},
		} {
			var wanted []Wanted
			for _, r := range test.results {
				wanted = append(wanted, Wanted{Type: r.Type, Null: true})
			}
			want := test.new
			if old {
				want = test.old
			}
			w := Writer{}
			w.Reset(d, nil)
			if rv := w.Results(wanted, test.results); rv != want {
				t.Errorf("%s, dialect %d: %v", test.name, d, rv)
			}
		}
		w := Writer{}
		w.Reset(d, nil)
		if rv := w.Results([]Wanted{{Type: ck.CKA_LABEL}, {Type: ck.CKA_ID}}, []Result{label}); rv != ck.CKR_GENERAL_ERROR {
			t.Errorf("one result for two: %v", rv)
		}
	}
}

// TestGraver says which of several return values C_GetAttributeValue has.
func TestGraver(t *testing.T) {
	said := ck.CKR_OK
	for _, rv := range []ck.RV{ck.CKR_OK, ck.CKR_BUFFER_TOO_SMALL, ck.CKR_ATTRIBUTE_TYPE_INVALID, ck.CKR_ATTRIBUTE_SENSITIVE} {
		if said = graver(said, rv); said != rv || graver(rv, ck.CKR_OK) != rv || graver(ck.CKR_BUFFER_TOO_SMALL, rv) != graver(rv, ck.CKR_BUFFER_TOO_SMALL) {
			t.Errorf("%v is taken for %v", rv, said)
		}
	}
}
