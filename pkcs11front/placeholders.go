package pkcs11front

import "github.com/keyward/keyward/pkcs11front/ck"

// Each of these moves to the file of whoever writes it.

// search is between C_FindObjectsInit and C_FindObjectsFinal.
type search struct{}

// operations is what a session has between an Init and its end.
type operations struct{}

// wipe ends all operations. The session's mu is held.
func (o *operations) wipe() {}

// abandon ends all operations before the session's next call. It may be called without the session's mu.
func (o *operations) abandon() {}

// sessionObject is an object that lives in its application: see application.addObject.
type sessionObject struct{}

// destroy wipes the object, which nobody can find any more. A call of another session may be using it: the object sees to that. The lock of
// the application is held.
func (o *sessionObject) destroy() {}

// private is CKA_PRIVATE.
func (o *sessionObject) private() bool { return false }

// mechanismList is C_GetMechanismList.
func mechanismList(rawRSA bool) []uint64 { return []uint64{} }

// mechanismInfo is C_GetMechanismInfo.
func mechanismInfo(m ck.Mechanism, hardware, rawRSA bool) (least, most uint64, flags ck.Flags, rv ck.RV) {
	return 0, 0, 0, ck.CKR_MECHANISM_INVALID
}
