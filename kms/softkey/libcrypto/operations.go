package libcrypto

// #include "evp.h"
import "C"

import (
	"crypto"
	"runtime"

	"github.com/keyward/keyward/kms/mechanism"
)

// op matches enum kw_op.
type op uint8

const (
	opSign    op = C.KW_SIGN
	opVerify  op = C.KW_VERIFY
	opEncrypt op = C.KW_ENCRYPT
	opDecrypt op = C.KW_DECRYPT
)

// setup is what a context is initialised with, but for a label. It names the shelf of a key that has such contexts.
type setup struct {
	op        op
	padding   uint8  // enum kw_padding
	hash, mgf uint8  // enum kw_md
	salt      uint16 // octets
}

// digests gives what C calls a hash.
var digests = [...]uint8{
	crypto.SHA1:       C.KW_SHA1,
	crypto.SHA224:     C.KW_SHA224,
	crypto.SHA256:     C.KW_SHA256,
	crypto.SHA384:     C.KW_SHA384,
	crypto.SHA512:     C.KW_SHA512,
	crypto.SHA512_224: C.KW_SHA512_224,
	crypto.SHA512_256: C.KW_SHA512_256,
	crypto.SHA3_224:   C.KW_SHA3_224,
	crypto.SHA3_256:   C.KW_SHA3_256,
	crypto.SHA3_384:   C.KW_SHA3_384,
	crypto.SHA3_512:   C.KW_SHA3_512,
}

func digest(h crypto.Hash) uint8 {
	if int(h) >= len(digests) {
		return C.KW_NO_MD
	}
	return digests[h]
}

// Bounds of inputs, in octets.
const (
	MaxDigest = 64   // of ECDSA
	MaxLabel  = 4096 // of OAEP
)

// What padding takes of the k octets of the modulus (RFC 8017).
const pkcs1Overhead = 11             // sections 7.2.1 and 9.2
func oaepOverhead(h crypto.Hash) int { return 2*h.Size() + 2 } // section 7.1.1
func pssOverhead(h crypto.Hash) int  { return h.Size() + 2 }   // section 9.1.1, for a modulus of whole octets

// size is the size of an RSA block in octets.
func (k *Key) size() int { return k.bits / 8 }

// plan says how an operation by a mechanism is set up. false if there is none.
func (k *Key) plan(o op, m *mechanism.Mechanism) (s setup, ok bool) {
	signs := o == opSign || o == opVerify
	s.op = o
	if (m.Kind == mechanism.ECDSA) != (k.kind != RSA) || !k.private && (o == opSign || o == opDecrypt) {
		return s, false
	}
	switch m.Kind {
	case mechanism.ECDSA:
		s.padding = C.KW_NO_PADDING
		return s, signs
	case mechanism.RSARaw:
		s.padding = C.KW_RAW
		return s, true
	case mechanism.RSAPKCS1:
		s.padding = C.KW_PKCS1
		return s, o != opDecrypt
	case mechanism.RSAPSS:
		s.padding = C.KW_PSS
		s.hash, s.mgf = digest(m.Hash), digest(m.MGF)
		if !signs || s.hash == 0 || s.mgf == 0 || m.Salt < 0 || m.Salt > k.size()-pssOverhead(m.Hash) {
			return s, false
		}
		s.salt = uint16(m.Salt)
		return s, true
	case mechanism.RSAOAEP:
		s.padding = C.KW_OAEP
		s.hash, s.mgf = digest(m.Hash), digest(m.MGF)
		return s, !signs && s.hash != 0 && s.mgf != 0 && len(m.Label) <= MaxLabel && oaepOverhead(m.Hash) <= k.size()
	}
	return s, false
}

// signable says whether an input of n octets can be signed.
func (k *Key) signable(m *mechanism.Mechanism, n int) bool {
	switch m.Kind {
	case mechanism.ECDSA:
		return n > 0 && n <= MaxDigest
	case mechanism.RSARaw:
		return n == k.size()
	case mechanism.RSAPKCS1:
		return n > 0 && n <= k.size()-pkcs1Overhead
	}
	return n == m.Hash.Size() // RSAPSS
}

// Sign signs by ECDSA (r and s, each as long as the order), RSAPKCS1, RSAPSS or RSARaw. ErrScheme if the mechanism does not fit the key,
// ErrSize if the input does not fit the mechanism. Nothing is hashed here, and an empty input is never signed.
func (k *Key) Sign(m *mechanism.Mechanism, in []byte) ([]byte, error) {
	s, ok := k.plan(opSign, m)
	if !ok {
		return nil, ErrScheme
	}
	if !k.signable(m, len(in)) {
		return nil, ErrSize
	}
	if m.Kind == mechanism.ECDSA {
		var der [maxSignature]byte
		n, err := k.signDER(&s, der[:], in)
		if err != nil {
			return nil, err
		}
		return k.bare(der[:n])
	}
	out := make([]byte, k.size())
	r, err := k.run(&s, nil, out, in)
	switch {
	case err != nil:
		return nil, err
	case r.large == 1:
		return nil, ErrSize
	case r.ok != 1 || int(r.len) != len(out):
		return nil, failure("signing", r.err)
	}
	return out, nil
}

// Decrypt undoes RSAOAEP, in constant time and every failure being ErrDecrypt, or is RSARaw. The caller wipes the plaintext.
func (k *Key) Decrypt(m *mechanism.Mechanism, ciphertext []byte) ([]byte, error) {
	s, ok := k.plan(opDecrypt, m)
	if !ok {
		return nil, ErrScheme
	}
	if len(ciphertext) != k.size() {
		return nil, ErrDecrypt
	}
	out := make([]byte, k.size())
	r, err := k.run(&s, m.Label, out, ciphertext)
	if err != nil {
		return nil, err
	}
	if r.ok != 1 {
		clear(out)
		return nil, ErrDecrypt
	}
	return out[:r.len], nil
}

// Encrypt is RSAOAEP, RSAPKCS1 or RSARaw. ErrSize if the plaintext is longer than MaxPlaintext, or for RSARaw not as long as the modulus
// and below it.
func (k *Key) Encrypt(m *mechanism.Mechanism, plaintext []byte) ([]byte, error) {
	s, ok := k.plan(opEncrypt, m)
	if !ok {
		return nil, ErrScheme
	}
	if len(plaintext) > k.MaxPlaintext(m) || m.Kind == mechanism.RSARaw && len(plaintext) != k.size() {
		return nil, ErrSize
	}
	out := make([]byte, k.size())
	r, err := k.run(&s, m.Label, out, plaintext)
	switch {
	case err != nil:
		return nil, err
	case r.large == 1:
		return nil, ErrSize
	case r.ok != 1 || int(r.len) != len(out):
		return nil, failure("encrypting", r.err)
	}
	return out, nil
}

// MaxPlaintext is the most that Encrypt takes, in octets; 0 when the mechanism does not fit.
func (k *Key) MaxPlaintext(m *mechanism.Mechanism) int {
	if _, ok := k.plan(opEncrypt, m); !ok {
		return 0
	}
	switch m.Kind {
	case mechanism.RSAOAEP:
		return k.size() - oaepOverhead(m.Hash)
	case mechanism.RSAPKCS1:
		return k.size() - pkcs1Overhead
	}
	return k.size()
}

// Verify checks a signature as Sign makes it. One that does not verify, of whatever form, is false and no error.
func (k *Key) Verify(m *mechanism.Mechanism, in, signature []byte) (bool, error) {
	s, ok := k.plan(opVerify, m)
	if !ok {
		return false, ErrScheme
	}
	if !k.signable(m, len(in)) {
		return false, ErrSize
	}
	if m.Kind == mechanism.ECDSA {
		var der [maxSignature]byte
		n := k.encode(der[:], signature)
		if n == 0 {
			return false, nil
		}
		return k.verify(&s, in, der[:n])
	}
	if len(signature) != k.size() {
		return false, nil
	}
	return k.verify(&s, in, signature)
}

// verify runs a verification. Neither input is empty.
func (k *Key) verify(s *setup, in, signature []byte) (bool, error) {
	defer runtime.KeepAlive(k)
	ctx, err := k.handle.borrow(s, nil)
	if err != nil {
		return false, err
	}
	r := C.kw_verify(ctx, first(signature), C.size_t(len(signature)), first(in), C.size_t(len(in)))
	if r.ok != 1 {
		s = nil
	}
	k.handle.giveBack(s, ctx)
	return r.ok == 1, nil
}

// run does an operation, into out.
func (k *Key) run(s *setup, label, out, in []byte) (C.kw_result, error) {
	defer runtime.KeepAlive(k)
	ctx, err := k.handle.borrow(s, label)
	if err != nil {
		return C.kw_result{}, err
	}
	r := C.kw_run(ctx, C.int(s.op), first(out), C.size_t(len(out)), first(in), C.size_t(len(in)))
	if r.ok != 1 || len(label) != 0 {
		s = nil
	}
	k.handle.giveBack(s, ctx)
	return r, nil
}
