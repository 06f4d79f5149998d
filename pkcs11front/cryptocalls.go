package pkcs11front

import (
	"crypto/rand"

	"github.com/keyward/keyward/pkcs11front/ck"
)

// maxRandom is what C_GenerateRandom gives at most, in octets: the room is a client's claim, and an answer fits into a frame.
const maxRandom = 64 << 10

// getOperationState is C_GetOperationState. A state that is given out could be set again in another session, after a logout, or for another key (P12): no
// state is ever saved, so there is no such function, and none to set one.
func (q *request) getOperationState() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// setOperationState is C_SetOperationState.
func (q *request) setOperationState() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// signRecoverInit is C_SignRecoverInit. Signatures with recovery are ISO 9796 and PKCS #1 v1.5 without a hash; nobody verifies such any more, and they
// would be a second way to the bare RSA operation.
func (q *request) signRecoverInit() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// signRecover is C_SignRecover.
func (q *request) signRecover() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// verifyRecoverInit is C_VerifyRecoverInit.
func (q *request) verifyRecoverInit() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// verifyRecover is C_VerifyRecover.
func (q *request) verifyRecover() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// digestEncryptUpdate is C_DigestEncryptUpdate.
func (q *request) digestEncryptUpdate() ck.RV { return q.dual(encrypting, digesting) }

// decryptDigestUpdate is C_DecryptDigestUpdate.
func (q *request) decryptDigestUpdate() ck.RV { return q.dual(decrypting, digesting) }

// signEncryptUpdate is C_SignEncryptUpdate.
func (q *request) signEncryptUpdate() ck.RV { return q.dual(encrypting, signing) }

// decryptVerifyUpdate is C_DecryptVerifyUpdate.
func (q *request) decryptVerifyUpdate() ck.RV { return q.dual(decrypting, verifying) }

// dual is an Update of two operations, of which the second sees the plaintext. An error ends both.
func (q *request) dual(kind, other operationKind) ck.RV {
	ops := q.session.operations()
	alongside := ops.active[other]
	if alongside == nil || ops.active[kind] == nil {
		return ck.CKR_OPERATION_NOT_INITIALIZED
	}
	rv := q.cipherWith(kind, update, alongside)
	if ops.active[kind] == nil {
		ops.finish(other)
	}
	return rv
}

// seedRandom is C_SeedRandom: the kernel's generator needs nobody's help.
func (q *request) seedRandom() ck.RV {
	q.in.Octets()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	return ck.CKR_RANDOM_SEED_NOT_SUPPORTED
}

// generateRandom is C_GenerateRandom. The room is how many octets are wanted.
func (q *request) generateRandom() ck.RV {
	room := q.in.Room()
	switch {
	case q.arguments() != ck.CKR_OK, room.Null && room.Size > 0:
		return ck.CKR_ARGUMENTS_BAD
	case room.Size > maxRandom:
		return ck.CKR_DATA_LEN_RANGE
	}
	b := make([]byte, room.Size)
	rand.Read(b) // never fails
	q.out.Result(room, b)
	clear(b)
	return ck.CKR_OK
}
