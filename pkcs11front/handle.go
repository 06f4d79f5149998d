package pkcs11front

import (
	"crypto/rand"
	"encoding/binary"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
)

// A handle is 64 bits. The uppermost four say what it names, the other 60 which:
//
//	1       an object that a client keeps in a token; 60 bits: its number
//	2, 3, 4 a key of the KMS as an object of that class (CKO_PUBLIC_KEY, CKO_PRIVATE_KEY, CKO_SECRET_KEY);
//	        40 bits: the key's place in its account, 20 bits: the version's in its key
//	8       a session object; 60 bits that are drawn
//
// The rest names nothing, and so does a number that is 0. A handle is no secret and gives no right: what it names is looked up for
// the actor and the instance of the session, each time.
const (
	handleKindShift = 60
	handleNumber    = 1<<handleKindShift - 1

	handleTokenObject   = 1 // 2 to 4 are classes
	handleSessionObject = 8

	ordinalBits  = 20
	sequenceBits = 40
)

// keyHandle is the handle of a version of a key, as an object of the class. It is 0 for a place that is none.
func keyHandle(class ck.Class, at kms.KeyPlace) handle {
	if class < ck.CKO_PUBLIC_KEY || class > ck.CKO_SECRET_KEY || at.Sequence == 0 || at.Sequence>>sequenceBits != 0 ||
		at.Ordinal == 0 || at.Ordinal>>ordinalBits != 0 {
		return 0
	}
	return handle(class)<<handleKindShift | handle(at.Sequence)<<ordinalBits | handle(at.Ordinal)
}

// key undoes keyHandle.
func (h handle) key() (class ck.Class, at kms.KeyPlace, ok bool) {
	class = ck.Class(h >> handleKindShift)
	at = kms.KeyPlace{Sequence: uint64(h & handleNumber >> ordinalBits), Ordinal: uint32(h & (1<<ordinalBits - 1))}
	return class, at, h != 0 && keyHandle(class, at) == h
}

// tokenObjectHandle is the handle of an object that a client keeps in a token. It is 0 for a number that is none.
func tokenObjectHandle(number uint64) handle {
	if number == 0 || number > handleNumber {
		return 0
	}
	return handleTokenObject<<handleKindShift | handle(number)
}

// tokenObject undoes tokenObjectHandle.
func (h handle) tokenObject() (number uint64, ok bool) {
	number = uint64(h & handleNumber)
	return number, h>>handleKindShift == handleTokenObject && number != 0
}

// isSessionObject says whether h can be the handle of a session object.
func (h handle) isSessionObject() bool {
	return h>>handleKindShift == handleSessionObject && h&handleNumber != 0
}

// drawHandle draws the handle of a session object.
func drawHandle() handle {
	return handleSessionObject<<handleKindShift | handle(draw()&handleNumber)
}

// draw gives 64 bits that nobody can guess, and not 0.
func draw() uint64 {
	var b [8]byte
	for {
		rand.Read(b[:]) // never fails
		if n := binary.LittleEndian.Uint64(b[:]); n&handleNumber != 0 {
			return n
		}
	}
}
