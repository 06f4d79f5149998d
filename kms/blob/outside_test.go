package blob

import (
	"bytes"
	"testing"
)

func TestOutside(t *testing.T) {
	for _, good := range []Outside{
		{IV: make([]byte, 12), Tag: make([]byte, 16)},
		{IV: bytes.Repeat([]byte{1}, 16), Tag: bytes.Repeat([]byte{2}, 16), Metadata: bytes.Repeat([]byte{3}, 20), Ciphertext: []byte("text")},
	} {
		b, err := AppendOutside([]byte("x"), good)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseOutside(b[1:])
		if err != nil || !bytes.Equal(got.IV, good.IV) || !bytes.Equal(got.Tag, good.Tag) || !bytes.Equal(got.Metadata, good.Metadata) || !bytes.Equal(got.Ciphertext, good.Ciphertext) {
			t.Errorf("%+v, %v", got, err)
		}
		for n := range len(b) - 1 - len(good.Ciphertext) {
			if _, err := ParseOutside(b[1 : 1+n]); err != ErrMalformed {
				t.Errorf("%d octets: %v", n, err)
			}
		}
	}
	for what, bad := range map[string]Outside{
		"no IV":         {Tag: make([]byte, 16)},
		"an IV of 13":   {IV: make([]byte, 13), Tag: make([]byte, 16)},
		"a tag of 15":   {IV: make([]byte, 12), Tag: make([]byte, 15)},
		"long metadata": {IV: make([]byte, 12), Tag: make([]byte, 16), Metadata: make([]byte, 21)},
	} {
		if b, err := AppendOutside([]byte("x"), bad); err != ErrMalformed || string(b) != "x" {
			t.Errorf("%s: %x, %v", what, b, err)
		}
	}
}

func FuzzOutside(f *testing.F) {
	f.Add([]byte{})
	f.Add(append([]byte{12}, make([]byte, 40)...))
	f.Add(append([]byte{16}, make([]byte, 60)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseOutside(b)
		if err != nil {
			return
		}
		again, err := AppendOutside(nil, o)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("read %x, wrote %x, %v", b, again, err)
		}
	})
}
