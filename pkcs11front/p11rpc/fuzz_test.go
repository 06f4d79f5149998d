package p11rpc

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"runtime"
	"testing"
)

// FuzzArguments reads arguments and results of all calls in all dialects. What is read is written, to the same octets if there is one way to
// write it, and reads as the same again.
func FuzzArguments(f *testing.F) {
	for _, g := range golden {
		f.Add(byte(g.d), byte(g.call), g.answer, octetsOf(g.octets))
	}
	f.Fuzz(func(t *testing.T, dialect, call byte, answer bool, b []byte) {
		d := Dialect(dialect % 4)
		signature := signed(d, CallID(int(call)%len(Calls)+1), answer)
		var r Reader
		r.Reset(d, b)
		values := decode(&r, signature, answer)
		if r.End() != nil || r.lost || cannotBeWritten(values) {
			return
		}
		written := encode(d, signature, values)
		if !bytes.Equal(written, b) {
			if d == Keyward || len(written) != len(b) && d != Offer1 {
				t.Fatalf("%x is written as %x: %+v", b, written, values)
			}
			r.Reset(d, written)
			if again := decode(&r, signature, answer); r.End() != nil || !reflect.DeepEqual(again, values) {
				t.Fatalf("%x is %+v, which is written as %x, which is %+v", b, values, written, again)
			}
		}
	})
}

// cannotBeWritten says whether there is no way to write values as they were read: results that only a server makes, and parameters that
// nobody knows.
func cannotBeWritten(values []any) bool {
	for _, v := range values {
		switch v := v.(type) {
		case []Result:
			return true
		case Mechanism:
			if _, unread := v.Param.(Unread); unread {
				return true
			}
		}
	}
	return false
}

// FuzzGCMMessage is the same for the parameter of messages.
func FuzzGCMMessage(f *testing.F) {
	f.Add(octetsOf("0000000c 0102030405060708090a0b0c 0000000000000000 0000000000000001 00000000 0000000000000080"))
	f.Add(octetsOf("ffffffff 0000000000000000 0000000000000001 00000010 000102030405060708090a0b0c0d0e0f 0000000000000080"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := ParseGCMMessage(b)
		if !ok {
			return
		}
		var w Writer
		w.Reset(Keyward, nil)
		w.Parameter(&m)
		var r Reader
		r.Reset(Keyward, w.Bytes())
		if got, isNull := r.Octets(); isNull || r.End() != nil || !bytes.Equal(got, b) {
			t.Fatalf("%x is written as %x", b, got)
		}
	})
}

// pieces is a Reader that gives what it has in pieces.
type pieces struct {
	b    []byte
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.b[:min(p.size, len(p.b))])
	p.b = p.b[n:]
	return n, nil
}

// FuzzInput takes frames out of a stream that comes in pieces. They are what was sent, however it came, and the memory follows what came.
func FuzzInput(f *testing.F) {
	f.Add(1, octetsOf("00000012 00000006 0000001a 636c69656e74 0000000a 00000002 7575  0000000000000001 0000000000000006"))
	f.Add(5, append(bytes.Repeat(octetsOf("00000012 00000000 00000008 00000003 00000000"), 9), octetsOf("00000001 00000000 00000fff 00")...))
	f.Add(4096, octetsOf("00000001 00000400 00100000 0000"))
	f.Fuzz(func(t *testing.T, size int, b []byte) {
		size = min(max(size, 1), 1<<20)
		in, stream, rest := Input{}, &pieces{b, size}, b
		for {
			frame, ok, err := in.Next()
			if buffered := in.Buffered(); !ok && buffered != (err != nil) {
				t.Fatalf("Buffered is %v where Next gives %v, %v", buffered, ok, err)
			}
			if err != nil {
				if !errors.Is(err, ErrFrame) {
					t.Fatal(err)
				}
				return
			}
			if ok {
				call, signature, arguments, whole := ParseBody(frame.Body)
				if whole {
					again := AppendRequest(nil, frame.Serial, string(frame.Options), call, string(signature))
					again = append(again, arguments...)
					if FinishFrame(again); !bytes.HasPrefix(rest, again) {
						t.Fatalf("%x was read as %x", rest, again)
					}
				}
				n := HeaderSize + len(frame.Options) + len(frame.Body)
				copied := append([]byte(nil), frame.Body...)
				if !bytes.Equal(copied, rest[HeaderSize+len(frame.Options):n]) {
					t.Fatalf("the body of %x is %x", rest[:n], copied)
				}
				rest = rest[n:]
				in.Done()
				for _, o := range frame.Body {
					if o != 0 {
						t.Fatal("a body was not wiped")
					}
				}
				continue
			}
			if begun := in.Begun(); begun != (len(rest) > len(stream.b)) {
				t.Fatalf("Begun is %v with %d octets", begun, len(rest)-len(stream.b))
			}
			if err := in.Fill(stream); err != nil {
				if !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				return
			}
			if came := len(b) - len(stream.b); cap(in.buf) > max(firstBuffer, 4*came) {
				t.Fatalf("%d octets of memory for %d that came", cap(in.buf), came)
			}
		}
	})
}

// TestMemory says that nothing costs more memory than a fixed multiple of its octets, whatever it announces.
func TestMemory(t *testing.T) {
	const multiple = 16
	attribute := map[Dialect]string{
		Offer0: "00000001 01 00000001 01", Offer1: "00000001 01 00000001 01", Offer2: "00000001 01 00000001 01", Keyward: "00000001 01 01 00000001 01",
	}
	for d := Offer0; d <= Keyward; d++ {
		many := octetsOf("0000000000000001 00000100")
		for range 256 {
			many = append(many, octetsOf(attribute[d])...)
		}
		for _, test := range []struct {
			call   CallID
			octets []byte
		}{
			{20, many},
			{20, octetsOf("0000000000000001 ffffffff")},
			{20, octetsOf("0000000000000001 00000001 40000600 01 04 00000000 10000000")},
			{20, octetsOf("0000000000000001 00000001 40000600 01 00000000 1fffffff 0000000000000000")},
			{24, octetsOf("0000000000000001 0000000000000003 000000ff 00000000 00000000")},
			{24, append(octetsOf("0000000000000001 0000000000000003 00000100"), bytes.Repeat(octetsOf("00000001 00000001"), 256)...)},
			{30, octetsOf("0000000000000001 01 7fffffff 0000 ffffffff")},
			{27, octetsOf("0000000000000001 fffffffe")},
			{42, octetsOf("0000000000000001 00001087 7ffffffe 7ffffffe 7ffffffe 7ffffffe")},
		} {
			const times = 100
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range times {
				var r Reader
				r.Reset(d, test.octets)
				decode(&r, Calls[test.call-1].Request, false)
			}
			runtime.ReadMemStats(&after)
			// decode itself has a list of its own.
			if n := int(after.TotalAlloc-before.TotalAlloc) / times; n > multiple*len(test.octets)+512 {
				t.Errorf("dialect %d, call %d: %d octets cost %d of memory", d, test.call, len(test.octets), n)
			}
		}
	}
}

// nested is a template in templates, to a depth.
func nested(d Dialect, depth int) []byte {
	if depth == 0 {
		return octetsOf("00000000")
	}
	b := octetsOf("00000001 40000211 01")
	if d == Keyward {
		b = append(b, 5)
	}
	size := "00000018"
	if depth == 1 {
		size = "00000000"
	}
	return append(append(b, octetsOf(size)...), nested(d, depth-1)...)
}

// TestDepth says how deep templates nest, in requests for attributes too.
func TestDepth(t *testing.T) {
	for d := Offer0; d <= Keyward; d++ {
		for depth := range 5 {
			var r Reader
			r.Reset(d, nested(d, depth))
			r.Template()
			if ok := r.End() == nil; ok != (depth < MaxDepth) {
				t.Errorf("dialect %d: a template %d deep is read: %v", d, depth, ok)
			}
		}
		var r Reader
		r.Reset(d, append(bytes.Repeat(octetsOf("00000001 40000211 00000018"), 10_000), 0, 0, 0, 0))
		if r.Wanted(); r.End() == nil {
			t.Errorf("dialect %d reads 10,000 arrays in each other", d)
		}
	}
}
