package hsmpool

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secpecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

var (
	oidECPublicKey = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
)

type subjectPublicKeyInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	PublicKey asn1.BitString
}

// maxExponent is the largest public exponent that Go's crypto/rsa takes. Keys that are made here have 65537, which is also the
// smallest that FIPS 186-5 allows.
const maxExponent = 1<<31 - 1

// marshalRSAPublic makes the SubjectPublicKeyInfo of CKA_MODULUS and CKA_PUBLIC_EXPONENT.
func marshalRSAPublic(t keyTypeRow, modulus, exponent []byte) ([]byte, error) {
	n, e := new(big.Int).SetBytes(modulus), new(big.Int).SetBytes(exponent)
	if n.BitLen() != t.octets*8 || n.Bit(0) == 0 {
		return nil, fmt.Errorf("a modulus of %d bits for %s", n.BitLen(), t.name)
	}
	if !e.IsInt64() || e.Int64() < 65537 || e.Int64() > maxExponent || e.Bit(0) == 0 {
		return nil, fmt.Errorf("the public exponent is not an odd number from 65537 to %d", maxExponent)
	}
	return x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n, E: int(e.Int64())})
}

// marshalECPublic makes the SubjectPublicKeyInfo of CKA_EC_POINT. The standard wants a DER OCTET STRING around the point;
// some modules give the bare point. Points that are not on the curve are refused.
func marshalECPublic(kt KeyType, point []byte) ([]byte, error) {
	t := keyTypes[kt]
	size := 1 + 2*t.octets
	if len(point) != size || point[0] != 4 {
		var inner []byte
		if rest, err := asn1.Unmarshal(point, &inner); err != nil || len(rest) != 0 {
			return nil, errors.New("CKA_EC_POINT is neither an octet string nor an uncompressed point")
		}
		point = inner
	}
	if len(point) != size || point[0] != 4 {
		return nil, errors.New("CKA_EC_POINT is not an uncompressed point of the curve")
	}
	if _, err := parsePoint(kt, point); err != nil {
		return nil, err
	}
	return asn1.Marshal(subjectPublicKeyInfo{
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidECPublicKey, Parameters: asn1.RawValue{FullBytes: t.ecParams}},
		PublicKey: asn1.BitString{Bytes: point, BitLength: len(point) * 8},
	})
}

// parsePoint gives *ecdsa.PublicKey or *secp256k1.PublicKey.
func parsePoint(kt KeyType, point []byte) (any, error) {
	if kt == P256 {
		return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	}
	return secp256k1.ParsePubKey(point)
}

// verifySignature checks a signature of digest under a SubjectPublicKeyInfo in software. It proves new keys before
// anybody depends on them.
func verifySignature(kt KeyType, spki, digest, signature []byte) error {
	switch keyTypes[kt].class {
	case classRSA:
		pub, err := x509.ParsePKIXPublicKey(spki)
		if err != nil {
			return err
		}
		r, ok := pub.(*rsa.PublicKey)
		if !ok {
			return errors.New("not an RSA key")
		}
		return rsa.VerifyPKCS1v15(r, crypto.SHA256, digest, signature)
	case classEC:
		if len(signature) != 64 {
			return errors.New("a signature that is not r and s")
		}
		var info subjectPublicKeyInfo
		if _, err := asn1.Unmarshal(spki, &info); err != nil {
			return err
		}
		pub, err := parsePoint(kt, info.PublicKey.Bytes)
		if err != nil {
			return err
		}
		ok := false
		switch pub := pub.(type) {
		case *ecdsa.PublicKey:
			r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
			ok = ecdsa.Verify(pub, digest, r, s)
		case *secp256k1.PublicKey:
			var r, s secp256k1.ModNScalar
			if !r.SetByteSlice(signature[:32]) && !s.SetByteSlice(signature[32:]) {
				ok = secpecdsa.NewSignature(&r, &s).Verify(digest, pub)
			}
		}
		if !ok {
			return errors.New("the signature does not verify")
		}
		return nil
	}
	return fmt.Errorf("%s does not sign", kt)
}

// proofDigest is what new signing keys sign.
var proofDigest = sha256.Sum256([]byte("keyward: proof of a new key"))

// encryptOAEP encrypts with SHA-1, which every module can decrypt.
func encryptOAEP(spki, message []byte) ([]byte, error) {
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, err
	}
	r, ok := pub.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("not an RSA key")
	}
	return rsa.EncryptOAEP(sha1.New(), rand.Reader, r, message, nil)
}

// marshalPublic is for keys made by crypto11.
func marshalPublic(kt KeyType, pub any) ([]byte, error) {
	t := keyTypes[kt]
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		return marshalRSAPublic(t, pub.N.Bytes(), big.NewInt(int64(pub.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := pub.Bytes()
		if err != nil {
			return nil, err
		}
		return marshalECPublic(kt, point)
	}
	return nil, fmt.Errorf("not a public key of type %s", t.name)
}

// verifyStandard checks a signature in the form that crypto.Signer gives.
func verifyStandard(pub any, digest, signature []byte) error {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest, signature)
	case *ecdsa.PublicKey:
		if ecdsa.VerifyASN1(pub, digest, signature) {
			return nil
		}
	}
	return errors.New("the signature does not verify")
}
