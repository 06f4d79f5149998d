package sessionkey

import (
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// RSANumbers are what an RSA private key is made of (RFC 8017 section 3.2), by the names that PKCS #11 has for them: unsigned and big-endian.
type RSANumbers struct {
	Modulus, PublicExponent, PrivateExponent, Prime1, Prime2, Exponent1, Exponent2, Coefficient []byte
}

// Wipe clears the numbers.
func (n *RSANumbers) Wipe() {
	for _, b := range [][]byte{n.Modulus, n.PublicExponent, n.PrivateExponent, n.Prime1, n.Prime2, n.Exponent1, n.Exponent2, n.Coefficient} {
		clear(b)
	}
}

// Numbers gives those of an RSA key, for attributes of a key that is not sensitive. ErrAlgorithm if it is none. The caller wipes them.
func (k *Private) Numbers() (*RSANumbers, error) {
	if k.Kind() != RSA {
		return nil, ErrAlgorithm
	}
	der, inner, err := k.inner()
	if err != nil {
		return nil, err
	}
	defer clear(der)
	n := &RSANumbers{}
	var numbers cryptobyte.String
	var version int
	ok := inner.ReadASN1(&numbers, asn1.SEQUENCE) && numbers.ReadASN1Integer(&version)
	for _, to := range []*[]byte{&n.Modulus, &n.PublicExponent, &n.PrivateExponent, &n.Prime1, &n.Prime2, &n.Exponent1, &n.Exponent2, &n.Coefficient} {
		var v []byte
		ok = ok && numbers.ReadASN1Integer(&v)
		*to = append([]byte(nil), v...) // v is a part of der
	}
	if !ok { // can't be: libcrypto wrote it
		n.Wipe()
		return nil, ErrMalformed
	}
	return n, nil
}

// Value gives the private number of an EC key, CKA_VALUE, as long as the order of the curve. ErrAlgorithm if it is none. The caller wipes
// it.
func (k *Private) Value() ([]byte, error) {
	if k.Kind() != EC {
		return nil, ErrAlgorithm
	}
	der, inner, err := k.inner()
	if err != nil {
		return nil, err
	}
	defer clear(der)
	var key, d cryptobyte.String
	var version int
	if !inner.ReadASN1(&key, asn1.SEQUENCE) || !key.ReadASN1Integer(&version) || !key.ReadASN1(&d, asn1.OCTET_STRING) || len(d) > k.Curve().Size() {
		return nil, ErrMalformed // can't be: libcrypto wrote it
	}
	value := make([]byte, k.Curve().Size())
	copy(value[len(value)-len(d):], d)
	return value, nil
}

// inner gives the key's PKCS #8, which the caller wipes, and the part of it that is the key.
func (k *Private) inner() (der []byte, inner cryptobyte.String, err error) {
	if der, err = k.Marshal(); err != nil {
		return nil, nil, err
	}
	var in, info, id cryptobyte.String = der, nil, nil
	var version int
	if !in.ReadASN1(&info, asn1.SEQUENCE) || !info.ReadASN1Integer(&version) || !info.ReadASN1(&id, asn1.SEQUENCE) || !info.ReadASN1(&inner, asn1.OCTET_STRING) {
		clear(der)
		return nil, nil, ErrMalformed
	}
	return der, inner, nil
}
