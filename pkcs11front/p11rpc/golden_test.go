package p11rpc

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"github.com/keyward/keyward/pkcs11front/ck"
)

// octetsOf reads hexadecimal digits with blanks.
func octetsOf(digits string) []byte {
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(digits))
	if err != nil {
		panic(err)
	}
	return b
}

func signed(d Dialect, id CallID, answer bool) string {
	if answer {
		return Response(d, Calls[id-1])
	}
	return Calls[id-1].Request
}

var (
	yes    = Value{Kind: Bool, Number: 1}
	number = func(n uint64) Value { return Value{Kind: Ulong, Number: n} }
	text   = func(s string) Value { return Value{Kind: Bytes, Octets: []byte(s)} }
)

const uncompressed = "04000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"

// golden are arguments and results as they go over the wire. Those of p11-kit's dialects were captured from its clients (reference
// p11kit-rpc.md, section 10).
var golden = []struct {
	name   string
	d      Dialect
	call   CallID
	answer bool
	octets string
	values []any
}{
	{"C_Initialize", Offer0, 1, false, "01 00000029 505249564154452d474e4f4d452d4b455952494e472d504b435331312d50524f544f434f4c2d562d31 00 01 00000001 00",
		[]any{[]byte("PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1"), byte(0), []byte{0}}},
	{"C_GetSlotList", Offer0, 4, false, "01 00000004", []any{byte(1), Room{Size: 4}}},
	{"C_GetSlotList", Offer0, 4, true, "01 00000001 0000000000000001", []any{result{Numbers: []uint64{1}, Needed: 1}}},
	{"C_OpenSession", Offer0, 10, false, "0000000000000001 0000000000000006", []any{uint64(1), uint64(6)}},
	{"C_Login", Offer0, 18, false, "0000000000000001 0000000000000001 01 00000004 31323334", []any{uint64(1), uint64(1), []byte("1234")}},
	{"C_Login with NULL", Offer0, 18, false, "0000000000000001 0000000000000001 00 00000000", []any{uint64(1), uint64(1), []byte(nil)}},
	{"C_Login with NULL", Offer1, 18, false, "0000000000000001 0000000000000001 01 ffffffff", []any{uint64(1), uint64(1), []byte(nil)}},
	{"C_Login with NULL", Keyward, 18, false, "0000000000000001 0000000000000001 01 ffffffff", []any{uint64(1), uint64(1), []byte(nil)}},
	{"C_FindObjectsInit", Offer0, 26, false, "0000000000000001 00000002 00000000 01 00000008 0000000000000003 00000003 01 00000003 00000003 656331",
		[]any{uint64(1), []Attribute{{ck.CKA_CLASS, number(3)}, {ck.CKA_LABEL, text("ec1")}}}},
	{"C_FindObjects", Offer0, 27, false, "0000000000000001 00000001", []any{uint64(1), Room{Size: 1}}},
	{"C_GetAttributeValue", Offer0, 24, false,
		"0000000000000001 0000000000000003 00000005 00000001 00000001 00000100 00000008 00000003 00000008 40000600 00000000 00000011 00000000",
		[]any{uint64(1), uint64(3), []Wanted{{Type: ck.CKA_TOKEN, Room: 1}, {Type: ck.CKA_KEY_TYPE, Room: 8}, {Type: ck.CKA_LABEL, Room: 8},
			{Type: ck.CKA_ALLOWED_MECHANISMS, Null: true}, {Type: ck.CKA_VALUE, Null: true}}}},
	{"C_SignInit", Offer0, 42, false, "0000000000000001 00001041 ffffffff 0000000000000003", []any{uint64(1), Mechanism{Type: ck.CKM_ECDSA}, uint64(3)}},
	{"C_SignInit", Offer2, 42, false, "0000000000000001 00001041 0000000000000003", []any{uint64(1), Mechanism{Type: ck.CKM_ECDSA}, uint64(3)}},
	{"C_SignInit", Keyward, 42, false, "0000000000000001 00001041 ffffffff 0000000000000003", []any{uint64(1), Mechanism{Type: ck.CKM_ECDSA}, uint64(3)}},
	{"C_SignInit cancels", Offer1, 42, false, "0000000000000001 ffffffff 0000000000000003", []any{uint64(1), Mechanism{Null: true}, uint64(3)}},
	{"C_SignInit cancels", Offer2, 42, false, "0000000000000001 ffffffff 0000000000000003", []any{uint64(1), Mechanism{Null: true}, uint64(3)}},
	{"C_SignInit cancels", Keyward, 42, false, "0000000000000001 ffffffff 0000000000000003", []any{uint64(1), Mechanism{Null: true}, uint64(3)}},
	{"C_Sign, too little room", Offer0, 43, true, "00 00000040", []any{result{Needed: 64}}},
	{"C_SignFinal for the size", Offer1, 45, false, "0000000000000001 00000000", []any{uint64(1), Room{Null: true}}},
	{"C_SignFinal into nothing", Offer1, 45, false, "0000000000000001 ffffffff", []any{uint64(1), Room{}}},
	{"C_SignFinal into all there is", Offer0, 45, false, "0000000000000001 ffffffff", []any{uint64(1), Room{Size: 1<<32 - 1}}},
	{"PSS", Offer0, 42, false, "0000000000000001 0000000d 0000000000000250 0000000000000002 0000000000000020 0000000000000004",
		[]any{uint64(1), Mechanism{Type: ck.CKM_RSA_PKCS_PSS, Param: &PSS{ck.CKM_SHA256, 2, 32}}, uint64(4)}},
	{"PSS", Keyward, 42, false, "0000000000000001 0000000d 00000018 0000000000000250 0000000000000002 0000000000000020 0000000000000004",
		[]any{uint64(1), Mechanism{Type: ck.CKM_RSA_PKCS_PSS, Param: &PSS{ck.CKM_SHA256, 2, 32}}, uint64(4)}},
	{"OAEP", Offer0, 29, false, "0000000000000001 00000009 0000000000000250 0000000000000002 0000000000000001 00000001 4c 0000000000000004",
		[]any{uint64(1), Mechanism{Type: ck.CKM_RSA_PKCS_OAEP, Param: &OAEP{ck.CKM_SHA256, 2, 1, []byte("L")}}, uint64(4)}},
	{"OAEP without a label", Offer0, 29, false, "0000000000000001 00000009 0000000000000250 0000000000000002 0000000000000001 ffffffff 0000000000000004",
		[]any{uint64(1), Mechanism{Type: ck.CKM_RSA_PKCS_OAEP, Param: &OAEP{ck.CKM_SHA256, 2, 1, nil}}, uint64(4)}},
	{"GCM", Offer2, 29, false, "0000000000000001 00001087 01 0000000c 0102030405060708090a0b0c 0000000000000060 00000003 616164 0000000000000080 0000000000000005",
		[]any{uint64(1), Mechanism{Type: ck.CKM_AES_GCM, Param: &GCM{octetsOf("0102030405060708090a0b0c"), 96, []byte("aad"), 128}}, uint64(5)}},
	{"GCM", Keyward, 29, false, "0000000000000001 00001087 00000026 0000000c 0102030405060708090a0b0c 0000000000000060 00000002 6161 0000000000000080 0000000000000005",
		[]any{uint64(1), Mechanism{Type: ck.CKM_AES_GCM, Param: &GCM{octetsOf("0102030405060708090a0b0c"), 96, []byte("aa"), 128}}, uint64(5)}},
	{"GCM without a parameter", Offer2, 29, false, "0000000000000001 00001087 00 0000000000000005", []any{uint64(1), Mechanism{Type: ck.CKM_AES_GCM}, uint64(5)}},
	{"CBC", Offer1, 29, false, "0000000000000001 00001082 00000010 0102030405060708090a0b0c0d0e0f10 0000000000000005",
		[]any{uint64(1), Mechanism{Type: ck.CKM_AES_CBC, Param: IV(octetsOf("0102030405060708090a0b0c0d0e0f10"))}, uint64(5)}},
	{"CBC", Offer2, 29, false, "0000000000000001 00001082 01 00000010 0102030405060708090a0b0c0d0e0f10 0000000000000005",
		[]any{uint64(1), Mechanism{Type: ck.CKM_AES_CBC, Param: IV(octetsOf("0102030405060708090a0b0c0d0e0f10"))}, uint64(5)}},
	{"CBC", Keyward, 29, false, "0000000000000001 00001082 00000010 0102030405060708090a0b0c0d0e0f10 0000000000000005",
		[]any{uint64(1), Mechanism{Type: ck.CKM_AES_CBC, Param: IV(octetsOf("0102030405060708090a0b0c0d0e0f10"))}, uint64(5)}},
	{"CTR", Offer1, 29, false, "0000000000000001 00001086 0000000000000080 00000010 0102030405060708090a0b0c0d0e0f10 0000000000000005",
		[]any{uint64(1), Mechanism{Type: ck.CKM_AES_CTR, Param: &CTR{128, octetsOf("0102030405060708090a0b0c0d0e0f10")}}, uint64(5)}},
	{"CTR", Keyward, 29, false, "0000000000000001 00001086 00000018 0000000000000080 0102030405060708090a0b0c0d0e0f10 0000000000000005",
		[]any{uint64(1), Mechanism{Type: ck.CKM_AES_CTR, Param: &CTR{128, octetsOf("0102030405060708090a0b0c0d0e0f10")}}, uint64(5)}},
	{"HMAC of a length", Offer2, 42, false, "0000000000000001 00000252 01 000000000000000a 0000000000000005",
		[]any{uint64(1), Mechanism{Type: ck.CKM_SHA256_HMAC_GENERAL, Param: MACLength(10)}, uint64(5)}},
	{"C_DeriveKey2", Offer2, 89, false, "0000000000000001 00001050 01 0000000000000001 ffffffff 00000041" + uncompressed + "0000000000000006 00000000",
		[]any{uint64(1), Mechanism{Type: ck.CKM_ECDH1_DERIVE, Param: &ECDH1{1, nil, octetsOf(uncompressed)}}, uint64(6), []Attribute(nil)}},
	{"C_DeriveKey2", Offer2, 89, true, "0000000000000000 00 000000000000004d", []any{uint64(0), byte(0), uint64(77)}},
	{"an IV of a key wrap", Keyward, 60, false, "0000000000000001 00002109 00000008 a6a6a6a6a6a6a6a6 0000000000000002 0000000000000003 00000040",
		[]any{uint64(1), Mechanism{Type: ck.CKM_AES_KEY_WRAP, Param: IV(octetsOf("a6a6a6a6a6a6a6a6"))}, uint64(2), uint64(3), Room{Size: 64}}},
	{"a later release's digest", Offer2, 37, false, "0000000000000001 0000ffff", []any{uint64(1), Mechanism{Type: 0xffff}}},
	{"a later release's signature", Offer2, 42, false, "0000000000000001 0000ffff 0000000000000003", []any{uint64(1), Mechanism{Type: 0xffff}, uint64(3)}},
	{"a template with odd kinds", Offer0, 20, false, `0000000000000001 00000006
		00000001 01 00000001 01
		40000600 01 00000010 00000002 0000000000000001 0000000000001041
		00000110 01 00000008 00000008 3230323631313234
		00000102 01 00000000 00000000
		40000211 01 00000018 00000001  00000000 01 00000008 0000000000000004
		00000172 01 00000001 00000001 01`,
		[]any{uint64(1), []Attribute{{ck.CKA_TOKEN, yes}, {ck.CKA_ALLOWED_MECHANISMS, Value{Kind: Ulongs, Numbers: []uint64{1, 0x1041}}},
			{ck.CKA_START_DATE, Value{Kind: Date, Octets: []byte("20261124")}}, {ck.CKA_ID, Value{Octets: []byte{}}},
			{ck.CKA_WRAP_TEMPLATE, Value{Kind: Template, Nested: []Attribute{{ck.CKA_CLASS, number(4)}}}}, {ck.CKA_DESTROYABLE, yes}}}},
	{"the same", Keyward, 20, false, `0000000000000001 00000006
		00000001 01 01 00000001 01
		40000600 01 04 00000010 00000002 0000000000000001 0000000000001041
		00000110 01 03 00000008 00000008 3230323631313234
		00000102 01 00 00000000 00000000
		40000211 01 05 00000018 00000001  00000000 01 02 00000008 0000000000000004
		00000172 01 01 00000001 01`,
		[]any{uint64(1), []Attribute{{ck.CKA_TOKEN, yes}, {ck.CKA_ALLOWED_MECHANISMS, Value{Kind: Ulongs, Numbers: []uint64{1, 0x1041}}},
			{ck.CKA_START_DATE, Value{Kind: Date, Octets: []byte("20261124")}}, {ck.CKA_ID, Value{Octets: []byte{}}},
			{ck.CKA_WRAP_TEMPLATE, Value{Kind: Template, Nested: []Attribute{{ck.CKA_CLASS, number(4)}}}}, {ck.CKA_DESTROYABLE, yes}}}},
	{"values of the wrong size", Offer0, 26, false, `0000000000000001 00000005
		00000001 01 00000000 00
		00000002 01 00000001 02
		00000100 01 00000004 0000000000000003
		00000000 01 00000000 0000000000000000
		00000172 01 00000002 00000002 0100`,
		[]any{uint64(1), []Attribute{{ck.CKA_TOKEN, Value{Octets: []byte{}}}, {ck.CKA_PRIVATE, text("\x02")}, {ck.CKA_KEY_TYPE, text("\x00\x00\x00\x03")},
			{ck.CKA_CLASS, Value{Octets: []byte{}}}, {ck.CKA_DESTROYABLE, text("\x01\x00")}}}},
	{"rooms in an array", Offer2, 24, false, "0000000000000001 0000000000000003 00000002 40000211 00000018 00000001 00000000 00000008 40000212 00000000",
		[]any{uint64(1), uint64(3), []Wanted{{Type: ck.CKA_WRAP_TEMPLATE, Room: 24, Nested: []Wanted{{Type: ck.CKA_CLASS, Room: 8}}}, {Type: ck.CKA_UNWRAP_TEMPLATE, Null: true}}}},
	{"rooms in an array", Keyward, 24, false, "0000000000000001 0000000000000003 00000002 40000211 00000018 00000001 00000000 00000000 40000212 ffffffff",
		[]any{uint64(1), uint64(3), []Wanted{{Type: ck.CKA_WRAP_TEMPLATE, Room: 24, Nested: []Wanted{{Type: ck.CKA_CLASS}}}, {Type: ck.CKA_UNWRAP_TEMPLATE, Null: true}}}},
	{"rooms in an array", Offer0, 24, false, "0000000000000001 0000000000000003 00000002 40000211 00000018 00000000 00000008",
		[]any{uint64(1), uint64(3), []Wanted{{Type: ck.CKA_WRAP_TEMPLATE, Room: 24}, {Type: ck.CKA_CLASS, Room: 8}}}},
	{"C_EncryptMessage", Keyward, 69, true, "01 00000004 61626364 00 00000010", []any{result{Octets: []byte("abcd"), Needed: 4}, result{Needed: 16}}},
}

// TestGolden holds both directions against octets that are known.
func TestGolden(t *testing.T) {
	for _, g := range golden {
		want := octetsOf(g.octets)
		signature := signed(g.d, g.call, g.answer)
		var r Reader
		r.Reset(g.d, want)
		if got := decode(&r, signature, g.answer); r.End() != nil || !reflect.DeepEqual(got, g.values) {
			t.Errorf("%s, dialect %d, is read as\n%+v (%v), not\n%+v", g.name, g.d, got, r.End(), g.values)
		}
		if got := encode(g.d, signature, g.values); !bytes.Equal(got, want) {
			t.Errorf("%s, dialect %d, is written as\n%x, not\n%x", g.name, g.d, got, want)
		}
		if strings.HasPrefix(g.name, "a later release") {
			continue // its parameter would be as long as what there is
		}
		// Nothing less is enough, and nothing more.
		for n := range want {
			r.Reset(g.d, want[:n])
			if decode(&r, signature, g.answer); r.End() == nil {
				t.Errorf("%s, dialect %d, is complete with %d of %d octets", g.name, g.d, n, len(want))
			}
		}
		r.Reset(g.d, append(want[:len(want):len(want)], 0))
		if decode(&r, signature, g.answer); r.End() == nil {
			t.Errorf("%s, dialect %d, is right with an octet more", g.name, g.d)
		}
	}
}

// TestGoldenFrames holds whole frames against an exchange of p11-kit 0.24.1.
func TestGoldenFrames(t *testing.T) {
	request := octetsOf("00000012 00000006 0000001a 636c69656e74 0000000a 00000002 7575  0000000000000001 0000000000000006")
	got := AppendRequest(nil, 0x12, "client", 10, "uu")
	var w Writer
	w.Reset(Offer0, got)
	w.Ulong(1)
	w.Ulong(6)
	FinishFrame(w.Bytes())
	if !bytes.Equal(w.Bytes(), request) {
		t.Errorf("C_OpenSession is\n%x, not\n%x", w.Bytes(), request)
	}
	w.Reset(Offer0, AppendAnswer(w.Bytes()[:0], 0x12, 10, "u"))
	w.Ulong(1)
	FinishFrame(w.Bytes())
	if want := octetsOf("00000012 00000000 00000011 0000000a 00000001 75 0000000000000001"); !bytes.Equal(w.Bytes(), want) {
		t.Errorf("its answer is\n%x, not\n%x", w.Bytes(), want)
	}
	failed := AppendError(nil, 0x12, ck.CKR_SESSION_HANDLE_INVALID)
	FinishFrame(failed)
	if want := octetsOf("00000012 00000000 00000011 00000000 00000001 75 00000000000000b3"); !bytes.Equal(failed, want) {
		t.Errorf("an error is\n%x, not\n%x", failed, want)
	}
}

// TestOffers says which first octets there are, and what they are answered.
func TestOffers(t *testing.T) {
	for offer := range 256 {
		d, answer, ok := DialectOf(byte(offer))
		switch {
		case offer == OfferKeyward:
			if !ok || d != Keyward || answer != OfferKeyward {
				t.Errorf("%#x: %d %#x %v", offer, d, answer, ok)
			}
		case offer > 0x7f:
			if ok {
				t.Errorf("%#x is answered", offer)
			}
		case !ok || int(d) != min(offer, 2) || int(answer) != min(offer, 2):
			t.Errorf("%#x: %d %#x %v", offer, d, answer, ok)
		}
	}
}

// TestUnread says what comes of a mechanism with a parameter that nobody here knows: the call can be refused for the right reason.
func TestUnread(t *testing.T) {
	for _, test := range []struct {
		d      Dialect
		octets string
	}{
		{Offer0, "0000ffff 0000000000000001 0000000000000003"},
		{Offer1, "0000ffff 00000010 000102030405060708090a0b0c0d0e0f 0000000000000003"},
		{Offer2, "0000ffff 01 00000010 000102030405060708090a0b0c0d0e0f 0000000000000003"},
		{Keyward, "0000ffff 00000004 00010203 0000000000000003"},
		{Keyward, "00001041 00000004 00010203 0000000000000003"}, // CKM_ECDSA has none
	} {
		var r Reader
		r.Reset(test.d, octetsOf(test.octets))
		m := r.Mechanism()
		if _, unread := m.Param.(Unread); !unread {
			t.Errorf("dialect %d reads %s as %+v", test.d, test.octets, m)
		}
		want := uint64(0)
		if test.d == Keyward {
			want = 3
		}
		if key := r.Ulong(); key != want {
			t.Errorf("dialect %d: the key is %d", test.d, key)
		}
		if test.d != Keyward {
			if b, isNull := r.Octets(); b != nil || !isNull || r.Template() != nil || r.Wanted() != nil || r.Room() != (Room{Null: true}) || r.Text() != "" {
				t.Errorf("dialect %d: something was read behind it", test.d)
			}
		}
		if err := r.End(); err != nil {
			t.Errorf("dialect %d: %v", test.d, err)
		}
	}
}
