package libcrypto

// #include "evp.h"
import "C"

import (
	"runtime"

	"github.com/keyward/keyward/kms/mechanism"
)

// maxSignature bounds a DER signature: a SEQUENCE of two INTEGERs of a scalar of P-521, which has no room for a sign octet, or of a
// smaller one, which may need it.
const maxSignature = 3 + 2*(2+maxScalar+1)

var ecdsa = mechanism.Mechanism{Kind: mechanism.ECDSA}

// SignDER signs a digest of DigestSize octets by ECDSA. The signature is ASN.1 DER (RFC 3279 section 2.2.3).
func (k *Key) SignDER(digest []byte) ([]byte, error) {
	s, ok := k.plan(opSign, &ecdsa)
	if !ok {
		return nil, ErrScheme
	}
	if len(digest) != DigestSize {
		return nil, ErrSize
	}
	out := make([]byte, k.maxDER())
	n, err := k.signDER(&s, out, digest)
	if err != nil {
		return nil, err
	}
	return out[:n], nil
}

// maxDER is the size of the longest signature of the curve in DER.
func (k *Key) maxDER() int {
	n := 2 * (2 + (k.bits+8)/8) // a sign octet where the top bit is in use
	if n < 128 {
		return 2 + n
	}
	return 3 + n
}

func (k *Key) signDER(s *setup, out, digest []byte) (int, error) {
	r, err := k.run(s, nil, out, digest)
	if err != nil {
		return 0, err
	}
	if r.ok != 1 {
		return 0, failure("signing", r.err)
	}
	return int(r.len), nil
}

// VerifyDER checks a signature as SignDER makes it. One that does not verify, or is not DER, is false and no error.
func (k *Key) VerifyDER(digest, signature []byte) (bool, error) {
	s, ok := k.plan(opVerify, &ecdsa)
	if !ok {
		return false, ErrScheme
	}
	if len(digest) != DigestSize {
		return false, ErrSize
	}
	if len(signature) == 0 || len(signature) > k.maxDER() {
		return false, nil
	}
	return k.verify(&s, digest, signature)
}

// bare gives r and s of a signature in DER, each as long as the order. The DER is OpenSSL's; it is read by hand because cryptobyte would
// put it on the heap.
func (k *Key) bare(der []byte) ([]byte, error) {
	size := k.kind.ScalarSize()
	out := make([]byte, 2*size)
	pair, _, ok := element(der, 0x30)
	for i := range 2 {
		var v []byte
		if ok {
			v, pair, ok = element(pair, 2)
		}
		if v = trim(v); !ok || len(v) > size {
			return nil, failure("reading a signature", 0)
		}
		copy(out[(i+1)*size-len(v):], v)
	}
	return out, nil
}

// element takes an element of DER with a length under 256 apart.
func element(der []byte, tag byte) (value, rest []byte, ok bool) {
	if len(der) < 3 || der[0] != tag {
		return nil, nil, false
	}
	n, head := int(der[1]), 2
	if n == 0x81 {
		n, head = int(der[2]), 3
	} else if n > 0x7f {
		return nil, nil, false
	}
	if head+n > len(der) {
		return nil, nil, false
	}
	return der[head : head+n], der[head+n:], true
}

// encode is bare undone, into out. It gives the octets that it took, 0 if the signature has not the right size.
func (k *Key) encode(out, signature []byte) int {
	size := k.kind.ScalarSize()
	if len(signature) != 2*size {
		return 0
	}
	body, n := out[3:], 0 // room for a header with two octets of length
	for i := range 2 {
		v := trim(signature[i*size : (i+1)*size])
		sign := 0
		if len(v) == 0 || v[0]&0x80 != 0 {
			sign = 1
		}
		body[n], body[n+1], body[n+2] = 2, byte(sign+len(v)), 0
		n += 2 + sign
		n += copy(body[n:], v)
	}
	if n < 128 {
		out[0], out[1] = 0x30, byte(n)
		return 2 + copy(out[2:], body[:n])
	}
	out[0], out[1], out[2] = 0x30, 0x81, byte(n)
	return 3 + n
}

// ECDH gives the x coordinate of the private key times a point (SP 800-56A section 5.7.1.2; the cofactor of all curves is 1), as long
// as the order. ErrKey if the point is not an uncompressed one of the same curve. The caller wipes the result.
func (k *Key) ECDH(point []byte) ([]byte, error) {
	if !k.private || k.kind == RSA {
		return nil, ErrScheme
	}
	if len(point) != k.kind.PointSize() || point[0] != 4 {
		return nil, ErrKey
	}
	key, done, err := k.handle.hold()
	if err != nil {
		return nil, err
	}
	defer runtime.KeepAlive(k)
	defer done()
	out := make([]byte, k.kind.ScalarSize())
	r := C.kw_ecdh(key, C.int(k.kind), first(point), first(out), C.size_t(len(out)))
	if r.ok != 1 || int(r.len) != len(out) {
		clear(out)
		return nil, ErrKey
	}
	return out, nil
}
