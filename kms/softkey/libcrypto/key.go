package libcrypto

// #include "evp.h"
import "C"

import (
	"runtime"
	"sync"
	"unsafe"
)

// maxIdle bounds the contexts that a key keeps for one operation. More goroutines than this may use a key at once; they
// make contexts and free them after.
const maxIdle = 16

// Key is a private or public key. It is freed by Close, or when it becomes unreachable.
type Key struct {
	kind    Kind
	bits    int
	private bool
	handle  *handle // outlives Key by its cleanup
}

// handle owns the C memory of a key. It is apart from Key so that Key's cleanup can hold it.
type handle struct {
	mu     sync.Mutex
	key    *C.EVP_PKEY // nil once freed
	idle   [numOps][]*C.EVP_PKEY_CTX
	users  int // contexts or keys that are borrowed now
	closed bool
}

// newKey takes ownership of c.
func newKey(c C.kw_key, private bool) (*Key, error) {
	k := &Key{kind: Kind(c.kind), bits: int(c.bits), private: private, handle: &handle{key: c.key}}
	switch k.kind {
	case P256, Secp256k1:
	case RSA:
		if sizeOK(k.bits) {
			break
		}
		fallthrough
	default:
		k.handle.close()
		return nil, ErrKey
	}
	runtime.AddCleanup(k, (*handle).close, k.handle)
	return k, nil
}

// Kind is what kind of key it is.
func (k *Key) Kind() Kind { return k.kind }

// Bits is the size of the modulus, or of the curve.
func (k *Key) Bits() int { return k.bits }

// Private says whether the private half is there.
func (k *Key) Private() bool { return k.private }

// Close frees the key; OpenSSL wipes it. Calls that are running end well, and the memory is freed with the last of them.
// Later calls give ErrClosed. A second Close does nothing.
func (k *Key) Close() { k.handle.close() }

func (h *handle) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.users == 0 {
		h.free()
	}
}

// free gives everything back to C. The caller holds mu, and nothing is borrowed.
func (h *handle) free() {
	for i, list := range h.idle {
		for _, ctx := range list {
			C.kw_ctx_free(ctx)
		}
		h.idle[i] = nil
	}
	if h.key != nil {
		C.kw_key_free(h.key)
		h.key = nil
	}
}

// borrow takes an initialised context from the key's list, or makes one. Each needs one giveBack.
func (h *handle) borrow(o op) (*C.EVP_PKEY_CTX, error) {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil, ErrClosed
	}
	h.users++
	if list := h.idle[o]; len(list) > 0 {
		ctx := list[len(list)-1]
		h.idle[o] = list[:len(list)-1]
		h.mu.Unlock()
		return ctx, nil
	}
	key := h.key // stays while users > 0
	h.mu.Unlock()
	c := C.kw_ctx_new(key, C.int(o))
	if c.ctx == nil {
		h.giveBack(o, nil, false)
		return nil, failure("preparing an operation", c.err)
	}
	return c.ctx, nil
}

// giveBack ends a borrow. A context whose operation failed is not used again.
func (h *handle) giveBack(o op, ctx *C.EVP_PKEY_CTX, good bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users--
	if ctx != nil {
		if good && !h.closed && len(h.idle[o]) < maxIdle {
			h.idle[o] = append(h.idle[o], ctx)
		} else {
			C.kw_ctx_free(ctx)
		}
	}
	if h.closed && h.users == 0 {
		h.free()
	}
}

// hold keeps the EVP_PKEY itself from being freed until the returned function is called.
func (h *handle) hold() (*C.EVP_PKEY, func(), error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, nil, ErrClosed
	}
	h.users++
	return h.key, func() { h.giveBack(0, nil, false) }, nil
}

// Check tests a private key fully, primes included. It is for keys from outside: it takes 36 ms for RSA-2048 and 250 ms
// for RSA-4096. ErrKey when the key is bad.
func (k *Key) Check() error {
	if !k.private {
		return ErrScheme
	}
	key, done, err := k.handle.hold()
	if err != nil {
		return err
	}
	defer runtime.KeepAlive(k)
	defer done()
	if C.kw_check(key).ok != 1 {
		return ErrKey
	}
	return nil
}

// MarshalPKCS8 gives a private key as DER PKCS #8. The caller wipes it.
func (k *Key) MarshalPKCS8() ([]byte, error) {
	if !k.private {
		return nil, ErrScheme
	}
	return k.marshal(func(key *C.EVP_PKEY) C.kw_der { return C.kw_marshal_pkcs8(key) })
}

// MarshalSPKI gives the public half as DER SubjectPublicKeyInfo.
func (k *Key) MarshalSPKI() ([]byte, error) {
	return k.marshal(func(key *C.EVP_PKEY) C.kw_der { return C.kw_marshal_spki(key) })
}

func (k *Key) marshal(encode func(*C.EVP_PKEY) C.kw_der) ([]byte, error) {
	key, done, err := k.handle.hold()
	if err != nil {
		return nil, err
	}
	defer runtime.KeepAlive(k)
	defer done()
	d := encode(key)
	if d.der == nil {
		return nil, failure("encoding a key", d.err)
	}
	defer C.kw_der_free(d.der, d.len)
	return C.GoBytes(unsafe.Pointer(d.der), C.int(d.len)), nil
}
