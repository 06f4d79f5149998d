package pkcs11front

import (
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// Each of these moves to the file of whoever writes it.

// search is between C_FindObjectsInit and C_FindObjectsFinal.
type search struct{}

// sessionObject is an object that lives in its application: see application.addObject.
type sessionObject struct{}

// destroy wipes the object, which nobody can find any more. A call of another session may be using it: the object sees to that. The lock of
// the application is held.
func (o *sessionObject) destroy() {}

// private is CKA_PRIVATE.
func (o *sessionObject) private() bool { return false }

// Of objects.
var placeholderKey func(q *request, h handle) (key, ck.RV)

func (q *request) key(h handle) (key, ck.RV) { return placeholderKey(q, h) }

var placeholderNew func(q *request, octets []byte, template []p11rpc.Attribute) (handle, ck.RV)

func (q *request) newSessionKey(octets []byte, template []p11rpc.Attribute) (handle, ck.RV) {
	return placeholderNew(q, octets, template)
}
