package libcrypto

// #include "evp.h"
import "C"

import (
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Keys are taken out of their DER here and not by OpenSSL: its decoder takes other forms too (negative numbers, wrong
// versions, curves spelt out in parameters), and 0.4 ms.

// The AlgorithmIdentifiers that are accepted, as whole DER elements: named curves only, and NULL parameters for RSA
// (RFC 3279 section 2.3.1, RFC 5480 section 2.1.1, SEC 2 for secp256k1). Comparing octets leaves no room for RSA-PSS
// keys, curves with explicit parameters, or other spellings.
var algorithms = func() map[string]Kind {
	all := map[string]Kind{"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00": RSA}
	for kind, c := range curves {
		if c.size == 0 {
			continue
		}
		body := "\x06\x07\x2a\x86\x48\xce\x3d\x02\x01" + c.oid // id-ecPublicKey
		all["\x30"+string(rune(len(body)))+body] = Kind(kind)
	}
	return all
}()

// curve is one by its identifier, a DER element, and the octets of a scalar.
type curve struct {
	oid  string
	size int
}

var curves = [...]curve{
	P256:      {"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", 32},
	Secp256k1: {"\x06\x05\x2b\x81\x04\x00\x0a", 32},
	P384:      {"\x06\x05\x2b\x81\x04\x00\x22", 48},
	P521:      {"\x06\x05\x2b\x81\x04\x00\x23", 66},
}

// Bounds of what is parsed, in octets.
const (
	maxDER     = 8 << 10 // a 4096-bit private key needs 2.4 KiB
	maxRSAPart = MaxRSA / 8
	maxScalar  = 66 // of P-521
)

// ParseSPKI reads a public key as DER SubjectPublicKeyInfo (RFC 5280 section 4.1). It refuses RSA keys that are not of
// 1024 to 4096 bits in steps of 64 or have an even exponent or one under 3 or over 64 bits, other curves, points that are
// compressed or not on the curve, and anything that is not DER, with ErrKey. So what it takes, MarshalSPKI gives again.
func ParseSPKI(der []byte) (*Key, error) {
	if err := start(); err != nil {
		return nil, err
	}
	in := cryptobyte.String(der)
	var info, id cryptobyte.String
	var octets []byte
	if len(der) > maxDER ||
		!in.ReadASN1(&info, asn1.SEQUENCE) || !in.Empty() ||
		!info.ReadASN1Element(&id, asn1.SEQUENCE) ||
		!info.ReadASN1BitStringAsBytes(&octets) || !info.Empty() {
		return nil, ErrKey
	}
	switch kind, ok := algorithms[string(id)]; {
	case !ok:
		return nil, ErrKey
	case kind == RSA:
		return parseRSA(octets, false)
	default:
		return NewEC(kind, nil, octets)
	}
}

// ParsePKCS8 reads a private key as DER PrivateKeyInfo (RFC 5208) and checks that its parts fit each other; attributes
// are ignored. Besides what ParseSPKI refuses it refuses RSA keys that have not two primes of half the size. That they
// are primes is for Check to say. The caller wipes der; copies made here are wiped here.
func ParsePKCS8(der []byte) (*Key, error) {
	if err := start(); err != nil {
		return nil, err
	}
	in := cryptobyte.String(der)
	var info, id, octets cryptobyte.String
	var version int64
	if len(der) > maxDER ||
		!in.ReadASN1(&info, asn1.SEQUENCE) || !in.Empty() ||
		!info.ReadASN1Integer(&version) || version != 0 ||
		!info.ReadASN1Element(&id, asn1.SEQUENCE) ||
		!info.ReadASN1(&octets, asn1.OCTET_STRING) ||
		!info.SkipOptionalASN1(asn1.Tag(0).Constructed().ContextSpecific()) || !info.Empty() {
		return nil, ErrKey
	}
	switch kind, ok := algorithms[string(id)]; {
	case !ok:
		return nil, ErrKey
	case kind == RSA:
		return parseRSA(octets, true)
	default:
		return parseCurve(kind, octets)
	}
}

// parseRSA reads RSAPublicKey or RSAPrivateKey (RFC 8017 appendix A.1).
func parseRSA(octets cryptobyte.String, private bool) (*Key, error) {
	var numbers cryptobyte.String
	if !octets.ReadASN1(&numbers, asn1.SEQUENCE) || !octets.Empty() {
		return nil, ErrKey
	}
	count := 2
	if private {
		var version int64
		if !numbers.ReadASN1Integer(&version) || version != 0 { // 1 has more than two primes
			return nil, ErrKey
		}
		count = 8
	}
	var parts [8][]byte
	for i := range count {
		if !numbers.ReadASN1Integer(&parts[i]) || len(parts[i]) == 0 { // big-endian, without leading zeros, in der
			return nil, ErrKey
		}
	}
	if !numbers.Empty() {
		return nil, ErrKey
	}
	return NewRSA(parts[:count])
}

// NewRSA makes a public key of n and e, or a private one of n, e, d, p, q, dp, dq and qi (RFC 8017 section 3.2), which are unsigned and
// big-endian. It checks what ParseSPKI and ParsePKCS8 check. The caller wipes the numbers; copies made here are wiped here.
func NewRSA(parts [][]byte) (*Key, error) {
	if err := start(); err != nil {
		return nil, err
	}
	if len(parts) != 2 && len(parts) != 8 {
		return nil, ErrKey
	}
	var sizes [8]C.size_t
	buf := make([]byte, 0, 8*maxRSAPart)
	defer func() { clear(buf) }()
	for i, n := range parts {
		n = trim(n)
		if len(n) == 0 || len(n) > maxRSAPart {
			return nil, ErrKey
		}
		at := len(buf)
		buf = append(buf, n...)
		slices.Reverse(buf[at:])
		sizes[i] = C.size_t(len(n))
	}
	return newParsed(C.kw_rsa(first(buf), &sizes[0], C.int(len(parts))), len(parts) == 8)
}

// trim takes leading zeros off a number.
func trim(n []byte) []byte {
	for len(n) > 0 && n[0] == 0 {
		n = n[1:]
	}
	return n
}

// parseCurve reads ECPrivateKey (RFC 5915), whose curve, if it is there, must be the one of the PrivateKeyInfo.
func parseCurve(kind Kind, octets cryptobyte.String) (*Key, error) {
	var key, d, params, public cryptobyte.String
	var version int64
	var hasParams, hasPublic bool
	var point []byte
	if !octets.ReadASN1(&key, asn1.SEQUENCE) || !octets.Empty() ||
		!key.ReadASN1Integer(&version) || version != 1 ||
		!key.ReadASN1(&d, asn1.OCTET_STRING) || len(d) != kind.ScalarSize() ||
		!key.ReadOptionalASN1(&params, &hasParams, asn1.Tag(0).Constructed().ContextSpecific()) ||
		hasParams && string(params) != kind.OID() ||
		!key.ReadOptionalASN1(&public, &hasPublic, asn1.Tag(1).Constructed().ContextSpecific()) ||
		hasPublic && (!public.ReadASN1BitStringAsBytes(&point) || !public.Empty() || len(point) == 0) ||
		!key.Empty() {
		return nil, ErrKey
	}
	return NewEC(kind, d, point)
}

// NewEC makes a private key of a number d, unsigned and big-endian, and its point if that is given; or, without d, a public key of a
// point. Points are uncompressed. It checks what ParseSPKI and ParsePKCS8 check. The caller wipes d; copies made here are wiped here.
func NewEC(kind Kind, d, point []byte) (*Key, error) {
	if err := start(); err != nil {
		return nil, err
	}
	size := kind.ScalarSize()
	if size == 0 || len(d) == 0 && len(point) == 0 || len(point) != 0 && (len(point) != kind.PointSize() || point[0] != 4) {
		return nil, ErrKey
	}
	if len(d) == 0 {
		return newParsed(C.kw_curve(C.int(kind), nil, first(point)), false)
	}
	if d = trim(d); len(d) > size {
		return nil, ErrKey
	}
	var scalar [maxScalar]byte
	defer clear(scalar[:])
	copy(scalar[:], d)
	slices.Reverse(scalar[:len(d)])
	var at *C.uchar // first of an empty slice need not be NULL
	if len(point) != 0 {
		at = first(point)
	}
	return newParsed(C.kw_curve(C.int(kind), first(scalar[:]), at), true)
}

// newParsed is newKey for what may have been refused.
func newParsed(c C.kw_key, private bool) (*Key, error) {
	if c.key == nil {
		return nil, ErrKey
	}
	return newKey(c, private)
}
