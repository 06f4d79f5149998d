// Package libcrypto is RSA, P-256 and secp256k1 on OpenSSL 3's libcrypto, through its EVP interface: just the operations
// that software keys need. A key is parsed once and then used from any number of goroutines; each use borrows a context
// that OpenSSL has already initialised, so that nothing is looked up or parsed per call.
//
// All digests are SHA-256 and have 32 octets. There is no decryption of PKCS #1 v1.5, on purpose.
package libcrypto

/*
#cgo pkg-config: libcrypto
#cgo CFLAGS: -Wall -Wextra -O2

#cgo noescape kw_rsa
#cgo noescape kw_curve
#cgo noescape kw_run
#cgo noescape kw_verify
#cgo noescape kw_error_text
#cgo nocallback kw_rsa
#cgo nocallback kw_curve
#cgo nocallback kw_run
#cgo nocallback kw_verify
#cgo nocallback kw_error_text

#include "evp.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"
)

// Errors. ErrOperation is what a failed C call gives, with OpenSSL's reason in the text where that can't help an
// attacker; ErrDecrypt never has one.
var (
	ErrKey       = errors.New("libcrypto: not an acceptable key")
	ErrScheme    = errors.New("libcrypto: the scheme does not fit the key")
	ErrSize      = errors.New("libcrypto: the input has the wrong size")
	ErrDecrypt   = errors.New("libcrypto: decryption failed")
	ErrClosed    = errors.New("libcrypto: the key is closed")
	ErrOperation = errors.New("libcrypto: OpenSSL failed")
)

// Kind is what kind of key a key is.
type Kind int

// The kinds.
const (
	RSA       Kind = C.KW_RSA
	P256      Kind = C.KW_P256
	Secp256k1 Kind = C.KW_SECP256K1
)

// Scheme is a way of signing or encrypting.
type Scheme uint8

// The schemes.
const (
	PKCS1SHA256 Scheme = iota + 1 // RSASSA-PKCS1-v1_5
	PSSSHA256                     // RSASSA-PSS, salt 32, MGF1 with SHA-256
	ECDSASHA256                   // signature is ASN.1 DER
	OAEPSHA1                      // RSAES-OAEP, empty label, MGF1 with SHA-1
	OAEPSHA256                    // RSAES-OAEP, empty label, MGF1 with SHA-256
)

// DigestSize is the size of what is signed, in octets.
const DigestSize = 32

// op is an operation with its scheme, the index of a key's context lists. It matches enum kw_op.
type op int

const (
	signPKCS1         op = C.KW_SIGN_PKCS1
	signPSS           op = C.KW_SIGN_PSS
	signECDSA         op = C.KW_SIGN_ECDSA
	verifyPKCS1       op = C.KW_VERIFY_PKCS1
	verifyPSS         op = C.KW_VERIFY_PSS
	verifyECDSA       op = C.KW_VERIFY_ECDSA
	encryptOAEPSHA1   op = C.KW_ENCRYPT_OAEP_SHA1
	encryptOAEPSHA256 op = C.KW_ENCRYPT_OAEP_SHA256
	decryptOAEPSHA1   op = C.KW_DECRYPT_OAEP_SHA1
	decryptOAEPSHA256 op = C.KW_DECRYPT_OAEP_SHA256
	numOps               = decryptOAEPSHA256 + 1
)

// schemes says which operations a scheme has (-1: none) and what it needs.
var schemes = map[Scheme]struct {
	rsa                            bool
	sign, verify, encrypt, decrypt op
	overhead                       int // OAEP: what padding takes of the modulus, RFC 8017 section 7.1.1: 2 hLen + 2
}{
	PKCS1SHA256: {rsa: true, sign: signPKCS1, verify: verifyPKCS1, encrypt: -1, decrypt: -1},
	PSSSHA256:   {rsa: true, sign: signPSS, verify: verifyPSS, encrypt: -1, decrypt: -1},
	ECDSASHA256: {rsa: false, sign: signECDSA, verify: verifyECDSA, encrypt: -1, decrypt: -1},
	OAEPSHA1:    {rsa: true, sign: -1, verify: -1, encrypt: encryptOAEPSHA1, decrypt: decryptOAEPSHA1, overhead: 42},
	OAEPSHA256:  {rsa: true, sign: -1, verify: -1, encrypt: encryptOAEPSHA256, decrypt: decryptOAEPSHA256, overhead: 66},
}

// start makes the library context, once. Its error is given by every function that makes a key.
var start = sync.OnceValue(func() error {
	if v := C.kw_version(); v>>28 != 3 {
		return fmt.Errorf("libcrypto: OpenSSL 3 is needed, this is %d (%#x)", v>>28, uint64(v))
	}
	if C.kw_init() != 1 {
		return errors.New("libcrypto: can't load OpenSSL's default provider")
	}
	return nil
})

// GenerateRSA makes a key pair of 2048, 3072 or 4096 bits, with the exponent 65537.
func GenerateRSA(bits int) (*Key, error) {
	if !sizeOK(bits) {
		return nil, ErrSize
	}
	return generate(RSA, bits)
}

// GenerateEC makes a key pair on P-256 or secp256k1.
func GenerateEC(kind Kind) (*Key, error) {
	if kind != P256 && kind != Secp256k1 {
		return nil, ErrKey
	}
	return generate(kind, 0)
}

func generate(kind Kind, bits int) (*Key, error) {
	if err := start(); err != nil {
		return nil, err
	}
	c := C.kw_generate(C.int(kind), C.int(bits))
	if c.key == nil {
		return nil, failure("generating a key", c.err)
	}
	return newKey(c, true)
}

func sizeOK(bits int) bool { return bits == 2048 || bits == 3072 || bits == 4096 }

// first is a pointer to the first octet, or NULL. The slice must not be empty where C reads it.
func first(b []byte) *C.uchar { return (*C.uchar)(unsafe.SliceData(b)) }

// failure is ErrOperation with what was being done and OpenSSL's reason.
func failure(doing string, code C.ulong) error {
	if code == 0 {
		return fmt.Errorf("%w: %s", ErrOperation, doing)
	}
	var buf [160]byte
	C.kw_error_text(code, (*C.char)(unsafe.Pointer(&buf[0])), C.size_t(len(buf)))
	n := 0
	for n < len(buf) && buf[n] != 0 {
		n++
	}
	return fmt.Errorf("%w: %s: %s", ErrOperation, doing, buf[:n])
}

// pendingError is what this thread's error queue holds. It is 0 whenever Go code runs; the tests see to that.
func pendingError() uint64 { return uint64(C.kw_pending_error()) }
