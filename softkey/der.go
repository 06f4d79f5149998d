package softkey

import (
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyward/keyward/kms/kmswire"
)

// The AlgorithmIdentifiers that are accepted, as whole DER elements: named curves only, and NULL parameters for RSA
// (RFC 3279 section 2.3.1, RFC 5480 section 2.1.1, SEC 2 for secp256k1). Comparing octets leaves no room for RSA-PSS
// keys, curves with explicit parameters, or other spellings.
const (
	algorithmRSA       = "\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00"
	algorithmP256      = "\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
	algorithmSecp256k1 = "\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x0a"
)

// algorithmOf is the AlgorithmIdentifier of a spec, empty when it has none.
func algorithmOf(spec kmswire.KeySpec) string {
	switch spec {
	case kmswire.RSA2048, kmswire.RSA3072, kmswire.RSA4096:
		return algorithmRSA
	case kmswire.ECP256:
		return algorithmP256
	case kmswire.ECP256K:
		return algorithmSecp256k1
	}
	return ""
}

// splitSPKI takes a SubjectPublicKeyInfo (RFC 5280 section 4.1) apart: the AlgorithmIdentifier and the octets of the key.
// Points must be uncompressed, the one form that everything reads.
func splitSPKI(der []byte) (alg string, key []byte, ok bool) {
	in := cryptobyte.String(der)
	var spki, id cryptobyte.String
	if !in.ReadASN1(&spki, asn1.SEQUENCE) || !in.Empty() ||
		!spki.ReadASN1Element(&id, asn1.SEQUENCE) ||
		!spki.ReadASN1BitStringAsBytes(&key) || !spki.Empty() {
		return "", nil, false
	}
	switch string(id) {
	case algorithmRSA:
		return algorithmRSA, key, true
	case algorithmP256, algorithmSecp256k1:
		return string(id), key, len(key) == 65 && key[0] == 4
	}
	return "", nil, false
}

// plainPKCS8 says whether der is one PrivateKeyInfo (RFC 5958) with the AlgorithmIdentifier of spec and nothing after
// it, and the key in it has the version that such keys have: 0 for RSA with two primes (RFC 8017 appendix A.1.2), 1 for
// curves (RFC 5915). Nothing of the key is copied.
func plainPKCS8(spec kmswire.KeySpec, der []byte) bool {
	in := cryptobyte.String(der)
	var info, id, octets, key cryptobyte.String
	var version, keyVersion, want int64
	if algorithmOf(spec) != algorithmRSA {
		want = 1
	}
	return in.ReadASN1(&info, asn1.SEQUENCE) && in.Empty() &&
		info.ReadASN1Integer(&version) && (version == 0 || version == 1) &&
		info.ReadASN1Element(&id, asn1.SEQUENCE) && len(id) > 0 && string(id) == algorithmOf(spec) &&
		info.ReadASN1(&octets, asn1.OCTET_STRING) &&
		octets.ReadASN1(&key, asn1.SEQUENCE) && octets.Empty() &&
		key.ReadASN1Integer(&keyVersion) && keyVersion == want
}
