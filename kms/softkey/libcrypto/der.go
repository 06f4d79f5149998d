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
var algorithms = map[string]Kind{
	"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00": RSA,
	"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01" + oidP256:       P256,
	"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01" + oidSecp256k1:  Secp256k1,
}

const (
	oidP256      = "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
	oidSecp256k1 = "\x06\x05\x2b\x81\x04\x00\x0a"
)

// Bounds of what is parsed, in octets.
const (
	maxDER     = 8 << 10 // a 4096-bit private key needs 2.4 KiB
	maxRSAPart = 4096 / 8
	scalarSize = 32
	pointSize  = 65 // uncompressed
)

// ParseSPKI reads a public key as DER SubjectPublicKeyInfo (RFC 5280 section 4.1). It refuses RSA keys that are not of
// 2048, 3072 or 4096 bits or have an even exponent or one under 3 or over 64 bits, other curves, points that are
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
	switch kind := algorithms[string(id)]; kind {
	case RSA:
		return parseRSA(octets, false)
	case P256, Secp256k1:
		if !uncompressed(octets) {
			return nil, ErrKey
		}
		return newParsed(C.kw_curve(C.int(kind), nil, first(octets)), false)
	}
	return nil, ErrKey
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
	switch kind := algorithms[string(id)]; kind {
	case RSA:
		return parseRSA(octets, true)
	case P256:
		return parseCurve(kind, oidP256, octets)
	case Secp256k1:
		return parseCurve(kind, oidSecp256k1, octets)
	}
	return nil, ErrKey
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
	var sizes [8]C.size_t
	buf := make([]byte, 0, 8*maxRSAPart)
	defer func() { clear(buf) }()
	for i := range count {
		var n []byte // big-endian, without leading zeros, in der
		if !numbers.ReadASN1Integer(&n) || len(n) == 0 || len(n) > maxRSAPart {
			return nil, ErrKey
		}
		at := len(buf)
		buf = append(buf, n...)
		slices.Reverse(buf[at:])
		sizes[i] = C.size_t(len(n))
	}
	if !numbers.Empty() {
		return nil, ErrKey
	}
	return newParsed(C.kw_rsa(first(buf), &sizes[0], C.int(count)), private)
}

// parseCurve reads ECPrivateKey (RFC 5915), whose curve, if it is there, must be the one of the PrivateKeyInfo.
func parseCurve(kind Kind, oid string, octets cryptobyte.String) (*Key, error) {
	var key, d, params, public cryptobyte.String
	var version int64
	var hasParams, hasPublic bool
	var point []byte
	if !octets.ReadASN1(&key, asn1.SEQUENCE) || !octets.Empty() ||
		!key.ReadASN1Integer(&version) || version != 1 ||
		!key.ReadASN1(&d, asn1.OCTET_STRING) || len(d) != scalarSize ||
		!key.ReadOptionalASN1(&params, &hasParams, asn1.Tag(0).Constructed().ContextSpecific()) ||
		hasParams && string(params) != oid ||
		!key.ReadOptionalASN1(&public, &hasPublic, asn1.Tag(1).Constructed().ContextSpecific()) ||
		hasPublic && (!public.ReadASN1BitStringAsBytes(&point) || !public.Empty() || !uncompressed(point)) ||
		!key.Empty() {
		return nil, ErrKey
	}
	var scalar [scalarSize]byte
	defer clear(scalar[:])
	copy(scalar[:], d)
	slices.Reverse(scalar[:])
	return newParsed(C.kw_curve(C.int(kind), first(scalar[:]), first(point)), true)
}

func uncompressed(point []byte) bool { return len(point) == pointSize && point[0] == 4 }

// newParsed is newKey for what may have been refused.
func newParsed(c C.kw_key, private bool) (*Key, error) {
	if c.key == nil {
		return nil, ErrKey
	}
	return newKey(c, private)
}
