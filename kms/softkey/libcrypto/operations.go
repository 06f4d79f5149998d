package libcrypto

// #include "evp.h"
import "C"

import "runtime"

// maxECDSA is the longest DER signature on a 256-bit curve: two integers of 33 octets with their headers.
const maxECDSA = 72

// size is the size of an RSA block in octets.
func (k *Key) size() int { return k.bits / 8 }

// fits says whether there is such an operation and the key is of its kind.
func (k *Key) fits(o op, rsa bool) bool { return o >= 0 && rsa == (k.kind == RSA) }

// Sign signs a digest of DigestSize octets.
func (k *Key) Sign(s Scheme, digest []byte) ([]byte, error) {
	row, ok := schemes[s]
	if !ok || !k.private || !k.fits(row.sign, row.rsa) {
		return nil, ErrScheme
	}
	if len(digest) != DigestSize {
		return nil, ErrSize
	}
	n := maxECDSA
	if row.rsa {
		n = k.size()
	}
	out, r, err := k.run(row.sign, n, digest)
	if err != nil {
		return nil, err
	}
	if r.ok != 1 || row.rsa && len(out) != n {
		return nil, failure("signing", r.err)
	}
	return out, nil
}

// Decrypt undoes RSA-OAEP. OpenSSL looks at the padding in constant time, and every failure is ErrDecrypt.
func (k *Key) Decrypt(s Scheme, ciphertext []byte) ([]byte, error) {
	row, ok := schemes[s]
	if !ok || !k.private || !k.fits(row.decrypt, row.rsa) {
		return nil, ErrScheme
	}
	if len(ciphertext) != k.size() {
		return nil, ErrDecrypt
	}
	out, r, err := k.run(row.decrypt, k.size(), ciphertext)
	if err != nil {
		return nil, err
	}
	if r.ok != 1 {
		clear(out)
		return nil, ErrDecrypt
	}
	return out, nil
}

// Encrypt is RSA-OAEP. ErrSize when plaintext is longer than MaxPlaintext.
func (k *Key) Encrypt(s Scheme, plaintext []byte) ([]byte, error) {
	row, ok := schemes[s]
	if !ok || !k.fits(row.encrypt, row.rsa) {
		return nil, ErrScheme
	}
	if len(plaintext) > k.size()-row.overhead {
		return nil, ErrSize
	}
	out, r, err := k.run(row.encrypt, k.size(), plaintext)
	if err != nil {
		return nil, err
	}
	if r.ok != 1 || len(out) != k.size() {
		return nil, failure("encrypting", r.err)
	}
	return out, nil
}

// MaxPlaintext is the most that Encrypt takes, in octets; 0 when the scheme does not fit.
func (k *Key) MaxPlaintext(s Scheme) int {
	row, ok := schemes[s]
	if !ok || !k.fits(row.encrypt, row.rsa) {
		return 0
	}
	return k.size() - row.overhead
}

// Verify checks a signature over a digest of DigestSize octets. A signature that does not verify, or can't be parsed,
// is false and no error.
func (k *Key) Verify(s Scheme, digest, signature []byte) (bool, error) {
	row, ok := schemes[s]
	if !ok || !k.fits(row.verify, row.rsa) {
		return false, ErrScheme
	}
	if len(digest) != DigestSize {
		return false, ErrSize
	}
	if len(signature) == 0 || row.rsa && len(signature) != k.size() || !row.rsa && len(signature) > maxECDSA {
		return false, nil
	}
	defer runtime.KeepAlive(k)
	ctx, err := k.handle.borrow(row.verify)
	if err != nil {
		return false, err
	}
	r := C.kw_verify(ctx, first(signature), C.size_t(len(signature)), first(digest), DigestSize)
	k.handle.giveBack(row.verify, ctx, r.ok == 1)
	return r.ok == 1, nil
}

// run does an operation whose output takes at most size octets.
func (k *Key) run(o op, size int, in []byte) ([]byte, C.kw_result, error) {
	defer runtime.KeepAlive(k)
	ctx, err := k.handle.borrow(o)
	if err != nil {
		return nil, C.kw_result{}, err
	}
	out := make([]byte, size)
	r := C.kw_run(ctx, C.int(o), first(out), C.size_t(size), first(in), C.size_t(len(in)))
	k.handle.giveBack(o, ctx, r.ok == 1)
	if r.ok == 1 {
		out = out[:r.len]
	}
	return out, r, nil
}
