package sessionkey

import (
	"bytes"
	"testing"
)

// FuzzParsePrivate: what parses can be written, and read again as the same key, from DER and from its numbers.
func FuzzParsePrivate(f *testing.F) {
	for _, k := range []*Private{rsaKey(f), ecKey(f, P256), ecKey(f, P384), ecKey(f, P521), ecKey(f, Secp256k1)} {
		der, err := k.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		k, err := ParsePrivate(der)
		if err != nil {
			if err != ErrMalformed {
				t.Fatal(err)
			}
			return
		}
		defer k.Close()
		var again *Private
		if k.Kind() == RSA {
			n, err := k.Numbers()
			if err != nil {
				t.Fatal(err)
			}
			again, err = NewRSAPrivate(n)
			if err != nil {
				t.Fatal(err)
			}
		} else {
			value, err := k.Value()
			if err != nil {
				t.Fatal(err)
			}
			again, err = NewECPrivate(k.Curve(), value, k.Public().Point())
			if err != nil {
				t.Fatal(err)
			}
		}
		defer again.Close()
		if !bytes.Equal(again.Public().Marshal(), k.Public().Marshal()) || !bytes.Equal(copyOf(t, k).Public().Marshal(), k.Public().Marshal()) {
			t.Fatal("another key")
		}
	})
}

// FuzzParsePublic: what parses is written the same again, and its numbers make the same key.
func FuzzParsePublic(f *testing.F) {
	for _, k := range []*Private{rsaKey(f), ecKey(f, P384), ecKey(f, P521), ecKey(f, Secp256k1)} {
		f.Add(k.Public().Marshal())
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		k, err := ParsePublic(der)
		if err != nil {
			if err != ErrMalformed {
				t.Fatal(err)
			}
			return
		}
		defer k.Close()
		var again *Public
		if k.Kind() == RSA {
			again, err = NewRSAPublic(k.Modulus(), k.Exponent())
		} else {
			again, err = NewECPublic(k.Curve(), EncodePoint(k.Point()))
		}
		if err != nil || !bytes.Equal(again.Marshal(), der) || !bytes.Equal(k.Marshal(), der) {
			t.Fatalf("%v: read %x\nwrote %x", err, der, k.Marshal())
		}
		again.Close()
	})
}

// FuzzNumbers: parts of keys as C_CreateObject gives them make a key that works, or ErrMalformed.
func FuzzNumbers(f *testing.F) {
	point := ecKey(f, P384).Public().Point()
	f.Add(P384.Params(), []byte{1}, EncodePoint(point))
	f.Add(P384.Params(), []byte{}, point)
	f.Add([]byte{}, rsaKey(f).Public().Modulus(), rsaKey(f).Public().Exponent())
	f.Fuzz(func(t *testing.T, params, a, b []byte) {
		curve, err := CurveOf(params)
		if err == nil {
			if !bytes.Equal(curve.Params(), params) {
				t.Fatalf("%x is %s", params, curve)
			}
			if k, err := NewECPrivate(curve, a, b); err == nil {
				if s, err := k.SignBy(ecdsaBare, []byte{1}); err != nil || len(s) != 2*curve.Size() {
					t.Fatal(err)
				}
				k.Close()
			} else if err != ErrMalformed {
				t.Fatal(err)
			}
			if k, err := NewECPublic(curve, b); err == nil {
				k.Close()
			} else if err != ErrMalformed {
				t.Fatal(err)
			}
		} else if err != ErrMalformed {
			t.Fatal(err)
		}
		if k, err := NewRSAPublic(a, b); err == nil {
			if k.Bits() < MinRSA || k.Bits() > MaxRSA {
				t.Fatal(k.Bits())
			}
			k.Close()
		} else if err != ErrMalformed {
			t.Fatal(err)
		}
		if k, err := NewRSAPrivate(&RSANumbers{a, b, a, b, a, b, a, b}); err == nil {
			t.Fatal("a private key of two numbers: ", k)
		} else if err != ErrMalformed {
			t.Fatal(err)
		}
	})
}

// FuzzUnwrap: whatever unwraps is what wraps to it.
func FuzzUnwrap(f *testing.F) {
	k, err := NewSecret(AES, make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	for _, padded := range []bool{false, true} {
		wrapped, err := k.Wrap(padded, make([]byte, 24))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(padded, wrapped)
	}
	f.Fuzz(func(t *testing.T, padded bool, wrapped []byte) {
		out, err := k.Unwrap(padded, wrapped)
		if err != nil {
			if err != ErrDecrypt || out != nil {
				t.Fatal(err)
			}
			return
		}
		if again, err := k.Wrap(padded, out); err != nil || !bytes.Equal(again, wrapped) {
			t.Fatalf("%x, %v", again, err)
		}
	})
}
