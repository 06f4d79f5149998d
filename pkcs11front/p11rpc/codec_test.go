package p11rpc

import (
	"fmt"
	"testing"
)

// letters splits a signature into the types of the protocol.
func letters(signature string) []string {
	var all []string
	for i := 0; i < len(signature); i++ {
		n := 1
		if signature[i] == 'a' || signature[i] == 'f' {
			n = 2
		}
		all = append(all, signature[i:i+n])
		i += n - 1
	}
	return all
}

// result is an "ay" or "au" of an answer.
type result struct {
	Octets  []byte
	Numbers []uint64
	Needed  int
}

// decode reads what a signature says.
func decode(r *Reader, signature string, answer bool) []any {
	values := []any{}
	for _, l := range letters(signature) {
		switch l {
		case "y", "P":
			values = append(values, r.Byte())
		case "u":
			values = append(values, r.Ulong())
		case "v":
			major, minor := r.Version()
			values = append(values, [2]byte{major, minor})
		case "s", "z":
			values = append(values, r.Text())
		case "ay":
			if answer {
				b, n := r.Result()
				values = append(values, result{Octets: b, Needed: n})
				continue
			}
			b, _ := r.Octets()
			values = append(values, b)
		case "au":
			list, n := r.Ulongs()
			values = append(values, result{Numbers: list, Needed: n})
		case "fy", "fu":
			values = append(values, r.Room())
		case "aA":
			if answer {
				values = append(values, r.Results())
				continue
			}
			values = append(values, r.Template())
		case "fA":
			values = append(values, r.Wanted())
		case "M":
			values = append(values, r.Mechanism())
		default:
			panic(fmt.Sprintf("%q in the signature %q", l, signature))
		}
	}
	return values
}

// encode writes what decode gives.
func encode(d Dialect, signature string, values []any) []byte {
	var w Writer
	w.Reset(d, nil)
	everything := Room{Size: 1<<32 - 1}
	for i, l := range letters(signature) {
		switch v := values[i].(type) {
		case byte:
			w.Byte(v)
		case uint64:
			w.Ulong(v)
		case [2]byte:
			w.Version(v[0], v[1])
		case string:
			if l == "z" {
				w.Text(v)
			} else {
				w.Padded(v, len(v))
			}
		case []byte:
			w.Octets(v)
		case result:
			switch {
			case v.Octets != nil:
				w.Result(everything, v.Octets)
			case v.Numbers != nil:
				w.Ulongs(everything, v.Numbers)
			default:
				w.Needed(v.Needed)
			}
		case Room:
			w.Room(v)
		case []Attribute:
			w.Template(v)
		case []Wanted:
			w.Wanted(v)
		case Mechanism:
			w.Mechanism(v)
		default:
			panic(fmt.Sprintf("%T", v))
		}
	}
	return w.Bytes()
}

// TestEverySignature says that there is a reader and a writer for each letter of the table, and that calls are where their numbers say.
func TestEverySignature(t *testing.T) {
	for i, call := range Calls {
		if call.ID != CallID(i+1) {
			t.Errorf("%s has the number %d at %d", call.Name, call.ID, i+1)
		}
		for d := Offer0; d <= Keyward; d++ {
			var r Reader
			r.Reset(d, nil)
			decode(&r, call.Request, false)
			decode(&r, Response(d, call), true)
		}
	}
	for name := range keywardAnswers {
		found := false
		for _, call := range Calls {
			found = found || call.Name == name
		}
		if !found {
			t.Errorf("there is no call %s", name)
		}
	}
}
