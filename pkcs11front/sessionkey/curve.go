package sessionkey

import (
	"bytes"
	"slices"

	"github.com/keyward/keyward/kms/softkey/libcrypto"
)

// Curve is an elliptic curve, by the name that keyward calls it.
type Curve string

// The curves.
const (
	P256      Curve = "P-256"
	P384      Curve = "P-384"
	P521      Curve = "P-521"
	Secp256k1 Curve = "secp256k1"
)

// curves gives what libcrypto calls a curve, and the bits of its order.
var curves = map[Curve]struct {
	kind libcrypto.Kind
	bits int
}{
	P256:      {libcrypto.P256, 256},
	P384:      {libcrypto.P384, 384},
	P521:      {libcrypto.P521, 521},
	Secp256k1: {libcrypto.Secp256k1, 256},
}

// curveOf is the curve of a kind of libcrypto, "" for RSA.
func curveOf(kind libcrypto.Kind) Curve {
	for c, row := range curves {
		if row.kind == kind {
			return c
		}
	}
	return ""
}

// CurveOf reads CKA_EC_PARAMS: the DER of an object identifier. Curves that are spelt out, or named by a string, are ErrMalformed like
// unknown ones.
func CurveOf(params []byte) (Curve, error) {
	for c, row := range curves {
		if string(params) == row.kind.OID() {
			return c, nil
		}
	}
	return "", ErrMalformed
}

// Params is CKA_EC_PARAMS.
func (c Curve) Params() []byte { return []byte(curves[c].kind.OID()) }

// Bits is the size of the order; 0 if there is no such curve.
func (c Curve) Bits() int { return curves[c].bits }

// Size is the size of a private number, a coordinate, r, and s, in octets.
func (c Curve) Size() int { return curves[c].kind.ScalarSize() }

// Point takes a point as clients give it, uncompressed or as the DER OCTET STRING of that, which CKA_EC_POINT has, and gives it
// uncompressed; it is a part of octets. Which form it is the length tells. Whether it is on the curve is not looked at.
func (c Curve) Point(octets []byte) ([]byte, error) {
	size := curves[c].kind.PointSize()
	if head := octetString(size); len(octets) == len(head)+size && bytes.HasPrefix(octets, head) {
		octets = octets[len(head):]
	}
	if size == 0 || len(octets) != size || octets[0] != 4 {
		return nil, ErrMalformed
	}
	return octets, nil
}

// EncodePoint gives an uncompressed point as a DER OCTET STRING: CKA_EC_POINT.
func EncodePoint(point []byte) []byte { return slices.Concat(octetString(len(point)), point) }

// octetString is the header of a DER OCTET STRING of less than 256 octets.
func octetString(size int) []byte {
	if size < 128 {
		return []byte{4, byte(size)}
	}
	return []byte{4, 0x81, byte(size)}
}
