package pkcs11front

import (
	"testing"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
)

// TestHandlesDontCollide makes a handle of everything at the edges, and takes it apart.
func TestHandlesDontCollide(t *testing.T) {
	seen := map[handle]string{0: "nothing", handle(ck.Unavailable): "unavailable"}
	note := func(h handle, what string) {
		if other, ok := seen[h]; ok {
			t.Errorf("%#x is %s and %s", h, what, other)
		}
		seen[h] = what
	}
	sequences := []uint64{1, 2, 1<<20 - 1, 1 << 20, 1<<39 + 1, 1<<40 - 1}
	ordinals := []uint32{1, 2, 1<<19 + 1, 1<<20 - 1}
	for class := ck.CKO_PUBLIC_KEY; class <= ck.CKO_SECRET_KEY; class++ {
		for _, sequence := range sequences {
			for _, ordinal := range ordinals {
				at := kms.KeyPlace{Sequence: sequence, Ordinal: ordinal}
				h := keyHandle(class, at)
				note(h, class.String())
				gotClass, got, ok := h.key()
				if !ok || gotClass != class || got != at {
					t.Errorf("%#x is %v %+v %v, not %v %+v", h, gotClass, got, ok, class, at)
				}
				if _, ok := h.tokenObject(); ok || h.isSessionObject() {
					t.Errorf("%#x, a key, is something else too", h)
				}
			}
		}
	}
	for _, number := range []uint64{1, 2, 1<<59 + 1, 1<<60 - 1} {
		h := tokenObjectHandle(number)
		note(h, "token object")
		if got, ok := h.tokenObject(); !ok || got != number {
			t.Errorf("%#x is %d %v, not %d", h, got, ok, number)
		}
		if _, _, ok := h.key(); ok || h.isSessionObject() {
			t.Errorf("%#x, a token object, is something else too", h)
		}
	}
	for range 1000 {
		h := drawHandle()
		note(h, "session object")
		_, _, isKey := h.key()
		if _, ok := h.tokenObject(); ok || isKey || !h.isSessionObject() {
			t.Errorf("%#x is no session object, or something else too", h)
		}
	}
	for _, h := range []handle{
		keyHandle(ck.CKO_SECRET_KEY, kms.KeyPlace{Sequence: 0, Ordinal: 1}), keyHandle(ck.CKO_SECRET_KEY, kms.KeyPlace{Sequence: 1, Ordinal: 0}),
		keyHandle(ck.CKO_SECRET_KEY, kms.KeyPlace{Sequence: 1 << 40, Ordinal: 1}), keyHandle(ck.CKO_SECRET_KEY, kms.KeyPlace{Sequence: 1, Ordinal: 1 << 20}),
		keyHandle(ck.CKO_CERTIFICATE, kms.KeyPlace{Sequence: 1, Ordinal: 1}), keyHandle(ck.CKO_HW_FEATURE, kms.KeyPlace{Sequence: 1, Ordinal: 1}),
		keyHandle(ck.Class(ck.Unavailable), kms.KeyPlace{Sequence: 1, Ordinal: 1}), tokenObjectHandle(0), tokenObjectHandle(1 << 60),
	} {
		if h != 0 {
			t.Errorf("%#x is the handle of what can have none", h)
		}
	}
}

// FuzzHandle says that a handle names one thing at most, and is the only one for it.
func FuzzHandle(f *testing.F) {
	for _, h := range []uint64{0, 1, 1 << 60, 1<<60 | 1, 2<<60 | 1<<20 | 1, 3<<60 | 1<<20, 4<<60 | 1, 5<<60 | 1<<20 | 1, 8 << 60, 8<<60 | 1, 1<<64 - 1} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, n uint64) {
		h, names := handle(n), 0
		if class, at, ok := h.key(); ok {
			if names++; keyHandle(class, at) != h {
				t.Errorf("%#x is %#x as the key %v %+v", h, keyHandle(class, at), class, at)
			}
		}
		if number, ok := h.tokenObject(); ok {
			if names++; tokenObjectHandle(number) != h {
				t.Errorf("%#x is %#x as the object %d", h, tokenObjectHandle(number), number)
			}
		}
		if h.isSessionObject() {
			names++
		}
		if names > 1 {
			t.Errorf("%#x names %d things", h, names)
		}
	})
}
