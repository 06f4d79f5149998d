// Package libcrypto is RSA, and ECDSA and ECDH on four curves, on OpenSSL 3's libcrypto, through its EVP interface: just the
// operations that software keys need. A key is parsed once and then used from any number of goroutines; each use borrows a context
// that OpenSSL has already initialised, so that nothing is looked up or parsed per call.
//
// There is no decryption of PKCS #1 v1.5, on purpose: who needs it does the raw operation and gives it to kms/rsapad. An RSA operation
// that a fault in the CRT spoiled never comes out: OpenSSL (rsa_ossl_mod_exp) holds each result against the public exponent, and
// computes it once more without the CRT if it is wrong.
package libcrypto

/*
#cgo pkg-config: libcrypto
#cgo CFLAGS: -Wall -Wextra -O2

#cgo noescape kw_rsa
#cgo noescape kw_curve
#cgo noescape kw_ctx_new
#cgo noescape kw_run
#cgo noescape kw_ecdh
#cgo noescape kw_verify
#cgo noescape kw_error_text
#cgo nocallback kw_rsa
#cgo nocallback kw_curve
#cgo nocallback kw_ctx_new
#cgo nocallback kw_run
#cgo nocallback kw_ecdh
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
	P384      Kind = C.KW_P384
	P521      Kind = C.KW_P521
)

// DigestSize is the size of what SignDER and VerifyDER take, in octets: a SHA-256 digest.
const DigestSize = 32

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

// GenerateRSA makes a key pair of 1024 to 4096 bits in steps of 64, with the exponent 65537.
func GenerateRSA(bits int) (*Key, error) {
	if !sizeOK(bits) {
		return nil, ErrSize
	}
	return generate(RSA, bits)
}

// GenerateEC makes a key pair on a curve.
func GenerateEC(kind Kind) (*Key, error) {
	if kind.ScalarSize() == 0 {
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

func sizeOK(bits int) bool { return bits >= MinRSA && bits <= MaxRSA && bits%64 == 0 }

// Bounds of RSA moduli, in bits. Fewer than 2048 protect little today (NIST SP 800-131A): a package that takes keys for more than a session's
// work asks for more itself.
const (
	MinRSA = 1024
	MaxRSA = 4096
)

// curve is what is known of a kind; nothing of RSA.
func (k Kind) curve() curve {
	if k < 0 || int(k) >= len(curves) {
		return curve{}
	}
	return curves[k]
}

// ScalarSize is the size of a private number of a curve, of a coordinate, and of r and s, in octets; 0 for RSA.
func (k Kind) ScalarSize() int { return k.curve().size }

// PointSize is the size of an uncompressed point of a curve, in octets; 0 for RSA.
func (k Kind) PointSize() int {
	if k.curve().size == 0 {
		return 0
	}
	return 1 + 2*k.curve().size
}

// OID is the object identifier of a curve as a DER element, which is its ECParameters too; "" for RSA.
func (k Kind) OID() string { return k.curve().oid }

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
