package sessionkey

import (
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/kms/softkey"
	"github.com/keyward/keyward/kms/softkey/libcrypto"
)

// Public is a public key: RSA or EC.
type Public struct {
	key               *libcrypto.Key
	spki              []byte
	modulus, exponent []byte // of RSA, big-endian without leading zeros
	point             []byte // of EC, uncompressed
}

// ParsePublic reads DER SubjectPublicKeyInfo. ErrMalformed for RSA keys of other sizes than 1024 to 4096 bits in steps of 64 or with an
// even exponent or one under 3 or over 64 bits, other curves, points that are compressed or not on the curve, and what is not DER.
func ParsePublic(spki []byte) (*Public, error) {
	key, err := libcrypto.ParseSPKI(spki)
	if err != nil {
		return nil, softkey.Translate(err)
	}
	return newPublic(key)
}

// NewRSAPublic makes a key of CKA_MODULUS and CKA_PUBLIC_EXPONENT. ErrMalformed as ParsePublic.
func NewRSAPublic(modulus, exponent []byte) (*Public, error) {
	key, err := libcrypto.NewRSA([][]byte{modulus, exponent})
	if err != nil {
		return nil, softkey.Translate(err)
	}
	return newPublic(key)
}

// NewECPublic makes a key of a point, in either form that Curve.Point takes.
func NewECPublic(curve Curve, point []byte) (*Public, error) {
	point, err := curve.Point(point)
	if err != nil {
		return nil, err
	}
	key, err := libcrypto.NewEC(curves[curve].kind, nil, point)
	if err != nil {
		return nil, softkey.Translate(err)
	}
	return newPublic(key)
}

// newPublic takes ownership of key.
func newPublic(key *libcrypto.Key) (*Public, error) {
	spki, err := key.MarshalSPKI()
	if err != nil {
		key.Close()
		return nil, softkey.Translate(err)
	}
	p := &Public{key: key, spki: spki}
	var in, info, id cryptobyte.String = spki, nil, nil
	var octets []byte
	ok := in.ReadASN1(&info, asn1.SEQUENCE) && info.ReadASN1(&id, asn1.SEQUENCE) && info.ReadASN1BitStringAsBytes(&octets)
	if ok && key.Kind() == libcrypto.RSA {
		var numbers cryptobyte.String
		in = octets
		ok = in.ReadASN1(&numbers, asn1.SEQUENCE) && numbers.ReadASN1Integer(&p.modulus) && numbers.ReadASN1Integer(&p.exponent)
	} else {
		p.point = octets
	}
	if !ok { // can't be: libcrypto wrote it
		key.Close()
		return nil, ErrMalformed
	}
	return p, nil
}

// Kind is RSA or EC.
func (k *Public) Kind() Kind { return kindOf(k.key) }

func kindOf(k *libcrypto.Key) Kind {
	if k.Kind() == libcrypto.RSA {
		return RSA
	}
	return EC
}

// Bits is the size of the modulus, or of the order of the curve.
func (k *Public) Bits() int { return k.key.Bits() }

// Curve is the key's, "" for RSA.
func (k *Public) Curve() Curve { return curveOf(k.key.Kind()) }

// Modulus is CKA_MODULUS, big-endian without leading zeros; nil for EC. It is read-only.
func (k *Public) Modulus() []byte { return k.modulus }

// Exponent is CKA_PUBLIC_EXPONENT, otherwise like Modulus.
func (k *Public) Exponent() []byte { return k.exponent }

// Point is the point, uncompressed; nil for RSA. It is read-only. EncodePoint makes CKA_EC_POINT of it.
func (k *Public) Point() []byte { return k.point }

// Marshal gives the key as DER SubjectPublicKeyInfo. The caller owns it.
func (k *Public) Marshal() []byte { return slices.Clone(k.spki) }

// VerifyBy checks a signature by RSAPKCS1, RSARaw, RSAPSS or ECDSA. One that is wrong is false and no error. ErrAlgorithm if the mechanism
// does not fit the key, ErrSize if the input does not fit the mechanism.
func (k *Public) VerifyBy(m *mechanism.Mechanism, in, signature []byte) (bool, error) {
	ok, err := k.key.Verify(m, in, signature)
	return ok, softkey.Translate(err)
}

// EncryptBy is RSAPKCS1, RSAOAEP or RSARaw: also what wraps a secret key, whose octets are the input. ErrSize if that is too long.
func (k *Public) EncryptBy(m *mechanism.Mechanism, in []byte) ([]byte, error) {
	out, err := k.key.Encrypt(m, in)
	return out, softkey.Translate(err)
}

// Close frees the key. What it is made of can still be read.
func (k *Public) Close() { k.key.Close() }
