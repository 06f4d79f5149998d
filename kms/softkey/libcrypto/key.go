package libcrypto

// #include "evp.h"
import "C"

import (
	"runtime"
	"sync"
	"unsafe"
)

// maxIdle bounds the contexts that a key keeps for one setup. More goroutines than this may use a key at once; they make contexts and
// free them after. maxShelves bounds the setups: a program uses few, and one who tries them all gets slower calls and no more memory.
const (
	maxIdle    = 16
	maxShelves = 8
)

// Key is a private or public key. It is freed by Close, or when it becomes unreachable.
type Key struct {
	kind    Kind
	bits    int
	private bool
	handle  *handle // outlives Key by its cleanup
}

// handle owns the C memory of a key. It is apart from Key so that Key's cleanup can hold it.
type handle struct {
	mu      sync.Mutex
	key     *C.EVP_PKEY // nil once freed
	shelves []shelf
	turn    uint64 // counts uses of shelves
	users   int    // contexts or keys that are borrowed now
	closed  bool
}

// shelf has the idle contexts of one setup.
type shelf struct {
	setup setup
	idle  []*C.EVP_PKEY_CTX
	used  uint64 // the turn of the last use
}

// newKey takes ownership of c.
func newKey(c C.kw_key, private bool) (*Key, error) {
	k := &Key{kind: Kind(c.kind), bits: int(c.bits), private: private, handle: &handle{key: c.key}}
	if k.kind.ScalarSize() == 0 && (k.kind != RSA || !sizeOK(k.bits)) {
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
	for _, s := range h.shelves {
		s.free()
	}
	h.shelves = nil
	if h.key != nil {
		C.kw_key_free(h.key)
		h.key = nil
	}
}

func (s *shelf) free() {
	for _, ctx := range s.idle {
		C.kw_ctx_free(ctx)
	}
	s.idle = nil
}

// shelf finds that of a setup, or gives nil. The caller holds mu.
func (h *handle) shelf(s *setup) *shelf {
	for i := range h.shelves {
		if h.shelves[i].setup == *s {
			h.turn++
			h.shelves[i].used = h.turn
			return &h.shelves[i]
		}
	}
	return nil
}

// newShelf makes room for a setup, at the cost of the one whose last use is longest ago. The caller holds mu.
func (h *handle) newShelf(s *setup) *shelf {
	h.turn++
	if len(h.shelves) < maxShelves {
		h.shelves = append(h.shelves, shelf{setup: *s, used: h.turn})
		return &h.shelves[len(h.shelves)-1]
	}
	oldest := &h.shelves[0]
	for i := range h.shelves {
		if h.shelves[i].used < oldest.used {
			oldest = &h.shelves[i]
		}
	}
	oldest.free()
	*oldest = shelf{setup: *s, used: h.turn}
	return oldest
}

// borrow takes an initialised context from the key's shelf, or makes one; one with a label is always made. Each needs one giveBack.
func (h *handle) borrow(s *setup, label []byte) (*C.EVP_PKEY_CTX, error) {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil, ErrClosed
	}
	h.users++
	if len(label) == 0 {
		if shelf := h.shelf(s); shelf != nil && len(shelf.idle) > 0 {
			last := len(shelf.idle) - 1
			ctx := shelf.idle[last]
			shelf.idle = shelf.idle[:last]
			h.mu.Unlock()
			return ctx, nil
		}
	}
	key := h.key // stays while users > 0
	h.mu.Unlock()
	c := C.kw_ctx_new(key, C.kw_setup{op: C.int(s.op), padding: C.int(s.padding), md: C.int(s.hash), mgf: C.int(s.mgf), salt: C.int(s.salt)},
		first(label), C.size_t(len(label)))
	if c.ctx == nil {
		h.giveBack(nil, nil)
		return nil, failure("preparing an operation", c.err)
	}
	return c.ctx, nil
}

// giveBack ends a borrow. With a setup the context is kept for the next one; a context whose operation failed, or that has a label, is
// not used again.
func (h *handle) giveBack(s *setup, ctx *C.EVP_PKEY_CTX) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users--
	if ctx != nil {
		var home *shelf
		if s != nil && !h.closed {
			if home = h.shelf(s); home == nil {
				home = h.newShelf(s)
			}
		}
		if home != nil && len(home.idle) < maxIdle {
			home.idle = append(home.idle, ctx)
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
	return h.key, func() { h.giveBack(nil, nil) }, nil
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
