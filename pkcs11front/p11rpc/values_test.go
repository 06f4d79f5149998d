package p11rpc

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"github.com/keyward/keyward/pkcs11front/ck"
)

// TestNull reads all forms of a NULL pointer, and refuses what is like one.
func TestNull(t *testing.T) {
	for _, test := range []struct {
		octets           string
		isNull, ok, ours bool // ours: in the dialect Keyward too
	}{
		{"00 00000000", true, true, false},
		{"01 ffffffff", true, true, true},
		{"01 00000000", false, true, true},
		{"00 00000005", true, false, false}, // NULL of 5 octets
		{"00 ffffffff", true, false, false},
		{"02 00000000", true, false, false},
	} {
		for d := Offer0; d <= Keyward; d++ {
			var r Reader
			r.Reset(d, octetsOf(test.octets))
			_, isNull := r.Octets()
			ok := r.End() == nil
			if want := test.ok && (test.ours || d != Keyward); ok != want || ok && isNull != test.isNull {
				t.Errorf("dialect %d reads %s: %v, NULL %v", d, test.octets, ok, isNull)
			}
		}
	}
}

// TestResult says what goes into which room.
func TestResult(t *testing.T) {
	for _, test := range []struct {
		room   Room
		octets string
		fits   bool
		want   string
	}{
		{Room{Size: 3}, "abc", true, "01 00000003 616263"},
		{Room{Size: 1<<32 - 1}, "abc", true, "01 00000003 616263"},
		{Room{Size: 2}, "abc", false, "00 00000003"},
		{Room{}, "abc", false, "00 00000003"},
		{Room{Null: true}, "abc", false, "00 00000003"},
		{Room{Null: true, Size: 100}, "abc", false, "00 00000003"},
		// No octets are a result wherever they go.
		{Room{Null: true}, "", true, "01 00000000"},
		{Room{}, "", true, "01 00000000"},
		{Room{Size: 5}, "", true, "01 00000000"},
	} {
		var w Writer
		w.Reset(Offer0, nil)
		if fits := w.Result(test.room, []byte(test.octets)); fits != test.fits || !bytes.Equal(w.Bytes(), octetsOf(test.want)) {
			t.Errorf("%q for %+v: %v, %x", test.octets, test.room, fits, w.Bytes())
		}
		var list []uint64
		for _, c := range test.octets {
			list = append(list, uint64(c))
		}
		w.Reset(Offer0, nil)
		if fits := w.Ulongs(test.room, list); fits != test.fits {
			t.Errorf("%v for %+v: %v", list, test.room, fits)
		}
		var r Reader
		r.Reset(Offer0, w.Bytes())
		if got, needed := r.Ulongs(); needed != len(list) || test.fits && len(got) != len(list) || r.End() != nil {
			t.Errorf("%v for %+v is read as %v, %d", list, test.room, got, needed)
		}
	}
}

// TestPadded says how text is padded and cut.
func TestPadded(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "        "}, {"keyward", "keyward "}, {"12345678", "12345678"}, {"123456789", "12345678"}, {"1234567é", "1234567 "}, {"123456é9", "123456é"},
		{"日本語", "日本  "}, {"\x80\x80\x80\x80\x80\x80\x80\x80\x80", "        "},
	} {
		var w Writer
		w.Reset(Offer0, nil)
		w.Padded(test.text, 8)
		var r Reader
		r.Reset(Offer0, w.Bytes())
		if got := r.Text(); got != test.want || r.End() != nil {
			t.Errorf("%q is padded to %q", test.text, got)
		}
	}
}

// TestKinds holds the table of kinds against p11-kit's (reference p11kit-rpc.md, section 5).
func TestKinds(t *testing.T) {
	want := map[ck.Attribute]Kind{0x110: Date, 0x111: Date, 0x40000600: Ulongs, 0x40000211: Template, 0x40000212: Template, 0x40000213: Template}
	for _, a := range []ck.Attribute{0x1, 0x2, 0x86, 0x103, 0x104, 0x105, 0x106, 0x107, 0x108, 0x109, 0x10a, 0x10b, 0x10c, 0x162, 0x163, 0x164, 0x165, 0x170, 0x171,
		0x200, 0x202, 0x210, 0x301, 0x302, 0x405} {
		want[a] = Bool
	}
	for _, a := range []ck.Attribute{0x0, 0x80, 0x87, 0x88, 0x100, 0x121, 0x133, 0x134, 0x160, 0x161, 0x166, 0x201, 0x300, 0x400, 0x401, 0x402, 0x403, 0x404, 0x406, 0x500} {
		want[a] = Ulong
	}
	got := map[ck.Attribute]Kind{}
	for a := range kinds {
		if kind := wireKind(Offer2, a); kind != Bytes {
			got[a] = kind
		} else if KindOf(a) == Bytes {
			t.Errorf("%v is in the table for nothing", a)
		}
		if wireKind(Keyward, a) != KindOf(a) {
			t.Errorf("%v has another kind in the dialect Keyward", a)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("p11-kit's kinds are %v, not %v", got, want)
	}
	if wireKind(Offer0, ck.CKA_DERIVE_TEMPLATE) != Bytes || wireKind(Offer1, ck.CKA_DERIVE_TEMPLATE) != Template {
		t.Error("CKA_DERIVE_TEMPLATE is an array since p11-kit 0.25.0")
	}
	for a := range vendorKinds {
		if KindOf(a) != Bytes || wireKind(Offer0, a) != Bytes || wireKind(Offer1, a) == Bytes || wireKind(Keyward, a) != Bytes {
			t.Errorf("%#x", uint64(a))
		}
	}
}

// TestEveryParameter writes and reads a parameter of each mechanism with one, in all dialects.
func TestEveryParameter(t *testing.T) {
	examples := map[parameter]any{
		pss: &PSS{ck.CKM_SHA256, ck.CKG_MGF1_SHA256, 32}, oaep: &OAEP{ck.CKM_SHA256, ck.CKG_MGF1_SHA256, ck.CKZ_DATA_SPECIFIED, []byte("label")},
		iv: IV("0123456789abcdef"), ctr: &CTR{128, []byte("0123456789abcdef")}, gcm: &GCM{[]byte("0123456789ab"), 96, nil, 128},
		ecdh1: &ECDH1{ck.CKD_NULL, nil, []byte("point")}, macLength: MACLength(7), octets: IV("public"), none: nil,
	}
	for m, p := range parameters {
		example, ok := examples[p]
		if !ok {
			t.Fatalf("no example for %v", m)
		}
		for d := Offer0; d <= Keyward; d++ {
			want := []any{uint64(5), Mechanism{Type: m, Param: example}, uint64(6)}
			var r Reader
			r.Reset(d, encode(d, "uMu", want))
			if got := decode(&r, "uMu", false); r.End() != nil || fmt.Sprint(got) == "" || !reflect.DeepEqual(got, want) {
				t.Errorf("%v, dialect %d: %+v (%v)", m, d, got, r.End())
			}
		}
	}
}

// TestNoAllocations says that frames, and the arguments and results of calls that are made often, cost no memory.
func TestNoAllocations(t *testing.T) {
	stream := bytes.Repeat(octetsOf("0000001c 00000006 00000041 636c69656e74 0000002b 00000005 7561796679"+
		"0000000000000001 01 00000020 000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f 00000040 00 0000"), 4)
	signature := make([]byte, 64)
	var in Input
	var r Reader
	var w Writer
	var out []byte
	from := bytes.NewReader(nil)
	if n := testing.AllocsPerRun(100, func() {
		from.Reset(stream)
		if err := in.Fill(from); err != nil {
			t.Fatal(err)
		}
		out = out[:0]
		frames := 0
		for {
			f, ok, err := in.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			call, _, arguments, ok := ParseBody(f.Body)
			r.Reset(Offer0, arguments[:len(arguments)-3])
			session, octets, room := r.Ulong(), first(r.Octets()), r.Room()
			if !ok || call != 43 || session != 1 || len(octets) != 32 || r.End() != nil {
				t.Fatal("C_Sign is not read")
			}
			begin := len(out)
			w.Reset(Offer0, AppendAnswer(out, f.Serial, call, "ay"))
			w.Result(room, signature)
			out = w.Bytes()
			FinishFrame(out[begin:])
			in.Done()
			frames++
		}
		if frames != 4 {
			t.Fatalf("%d frames", frames)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func first(b []byte, _ bool) []byte { return b }

func BenchmarkSign(b *testing.B) {
	request := octetsOf("0000002b 00000005 7561796679 0000000000000001 01 00000020 000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f 00000040")
	signature := make([]byte, 64)
	var r Reader
	var w Writer
	out := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		call, _, arguments, _ := ParseBody(request)
		r.Reset(Offer0, arguments)
		r.Ulong()
		r.Octets()
		room := r.Room()
		w.Reset(Offer0, AppendAnswer(out, 1, call, "ay"))
		w.Result(room, signature)
		FinishFrame(w.Bytes())
	}
}

func BenchmarkGetAttributeValue(b *testing.B) {
	for _, d := range []Dialect{Offer0, Keyward} {
		b.Run(fmt.Sprint(d), func(b *testing.B) {
			wanted := []Wanted{{Type: ck.CKA_TOKEN, Room: 1}, {Type: ck.CKA_KEY_TYPE, Room: 8}, {Type: ck.CKA_LABEL, Room: 8}, {Type: ck.CKA_ID, Null: true}}
			results := []Result{{Type: ck.CKA_TOKEN, Value: yes}, {Type: ck.CKA_KEY_TYPE, Value: number(3)}, {Type: ck.CKA_LABEL, Value: text("ec1")},
				{Type: ck.CKA_ID, Value: text("0123456789abcdef")}}
			request := encode(d, "uufA", []any{uint64(1), uint64(2), wanted})
			var r Reader
			var w Writer
			out := make([]byte, 0, 256)
			b.ReportAllocs()
			for b.Loop() {
				r.Reset(d, request)
				r.Ulong()
				r.Ulong()
				wanted := r.Wanted()
				w.Reset(d, out)
				w.Results(wanted, results)
			}
		})
	}
}

// A buffer that a Writer leaves as it was too small is wiped, however it came to be too small.
func TestWriterWipes(t *testing.T) {
	secret := []byte("a secret that must not be left behind")
	for name, grow := range map[string]func(w *Writer){
		"Octets":  func(w *Writer) { w.Octets(make([]byte, 1000)) },
		"Byte":    func(w *Writer) { w.Byte(1) },
		"Ulong":   func(w *Writer) { w.Ulong(1) },
		"Text":    func(w *Writer) { w.Text("text") },
		"Padded":  func(w *Writer) { w.Padded("text", 32) },
		"Version": func(w *Writer) { w.Version(1, 2) },
		"Result":  func(w *Writer) { w.Result(Room{Size: 1000}, make([]byte, 1000)) },
		"Ulongs":  func(w *Writer) { w.Ulongs(Room{Size: 10}, make([]uint64, 10)) },
		"answer":  func(w *Writer) { w.Reset(Offer2, AppendAnswer(w.Bytes(), 1, 10, "u")) },
	} {
		old := append(make([]byte, 0, len(secret)), secret...)
		var w Writer
		w.Reset(Offer2, old)
		grow(&w)
		if !bytes.HasPrefix(w.Bytes(), secret) {
			t.Errorf("%s: %q is written", name, w.Bytes())
		}
		if !bytes.Equal(old, make([]byte, len(old))) {
			t.Errorf("%s leaves %q behind", name, old)
		}
	}
}
