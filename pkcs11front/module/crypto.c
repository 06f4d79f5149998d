// Encryption, digests, signatures, and their multi-part forms (PKCS #11 3.0, 5.8 to 5.17).

#include "functions.h"
#include "parts.h"

static CK_RV init(CK_SESSION_HANDLE session, enum call call, const CK_MECHANISM *mechanism, const CK_OBJECT_HANDLE *key) {
	struct session *s;
	CK_RV rv = session_enter(session, &s);
	if (rv != CKR_OK)
		return rv;
	rv = session_init(s, call, mechanism, key);
	session_leave(s);
	return rv;
}

static CK_RV all_of(CK_SESSION_HANDLE session, enum call call, CK_BYTE *data, CK_ULONG len, struct arg result) {
	struct session *s;
	CK_RV rv = session_enter(session, &s);
	if (rv != CKR_OK)
		return rv;
	rv = whole(s, call, data, len, result);
	session_leave(s);
	return rv;
}

static CK_RV part_of(CK_SESSION_HANDLE session, enum call call, CK_BYTE *data, CK_ULONG len, const struct arg *result) {
	struct session *s;
	CK_RV rv = session_enter(session, &s);
	if (rv != CKR_OK)
		return rv;
	rv = update(s, call, data, len, result);
	session_leave(s);
	return rv;
}

CK_RV C_EncryptInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key) {
	return init(session, CALL_EncryptInit, mechanism, &key);
}

CK_RV C_Encrypt(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *out, CK_ULONG *out_len) {
	return all_of(session, CALL_Encrypt, data, data_len, arg_out(out, out_len));
}

CK_RV C_EncryptUpdate(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *out, CK_ULONG *out_len) {
	struct arg result = arg_out(out, out_len);
	return part_of(session, CALL_EncryptUpdate, data, data_len, &result);
}

CK_RV C_EncryptFinal(CK_SESSION_HANDLE session, CK_BYTE *out, CK_ULONG *out_len) {
	return in_session(session, CALL_EncryptFinal, ARGS(arg_out(out, out_len)));
}

CK_RV C_DecryptInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key) {
	return init(session, CALL_DecryptInit, mechanism, &key);
}

CK_RV C_Decrypt(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *out, CK_ULONG *out_len) {
	return all_of(session, CALL_Decrypt, data, data_len, arg_out(out, out_len));
}

CK_RV C_DecryptUpdate(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *out, CK_ULONG *out_len) {
	struct arg result = arg_out(out, out_len);
	return part_of(session, CALL_DecryptUpdate, data, data_len, &result);
}

CK_RV C_DecryptFinal(CK_SESSION_HANDLE session, CK_BYTE *out, CK_ULONG *out_len) {
	return in_session(session, CALL_DecryptFinal, ARGS(arg_out(out, out_len)));
}

CK_RV C_DigestInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism) {
	return init(session, CALL_DigestInit, mechanism, NULL);
}

CK_RV C_Digest(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *out, CK_ULONG *out_len) {
	return all_of(session, CALL_Digest, data, data_len, arg_out(out, out_len));
}

CK_RV C_DigestUpdate(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len) {
	return part_of(session, CALL_DigestUpdate, data, data_len, NULL);
}

CK_RV C_DigestKey(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key) {
	return in_session(session, CALL_DigestKey, ARGS(arg_ulong(key)));
}

CK_RV C_DigestFinal(CK_SESSION_HANDLE session, CK_BYTE *out, CK_ULONG *out_len) {
	return in_session(session, CALL_DigestFinal, ARGS(arg_out(out, out_len)));
}

CK_RV C_SignInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key) {
	return init(session, CALL_SignInit, mechanism, &key);
}

CK_RV C_Sign(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *out, CK_ULONG *out_len) {
	return all_of(session, CALL_Sign, data, data_len, arg_out(out, out_len));
}

CK_RV C_SignUpdate(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len) {
	return part_of(session, CALL_SignUpdate, data, data_len, NULL);
}

CK_RV C_SignFinal(CK_SESSION_HANDLE session, CK_BYTE *out, CK_ULONG *out_len) {
	return in_session(session, CALL_SignFinal, ARGS(arg_out(out, out_len)));
}

CK_RV C_SignRecoverInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key) {
	return init(session, CALL_SignRecoverInit, mechanism, &key);
}

CK_RV C_SignRecover(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *out, CK_ULONG *out_len) {
	return in_session(session, CALL_SignRecover, ARGS(arg_in(data, data_len), arg_out(out, out_len)));
}

CK_RV C_VerifyInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key) {
	return init(session, CALL_VerifyInit, mechanism, &key);
}

CK_RV C_Verify(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *signature, CK_ULONG signature_len) {
	return all_of(session, CALL_Verify, data, data_len, arg_in(signature, signature_len));
}

CK_RV C_VerifyUpdate(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len) {
	return part_of(session, CALL_VerifyUpdate, data, data_len, NULL);
}

CK_RV C_VerifyFinal(CK_SESSION_HANDLE session, CK_BYTE *signature, CK_ULONG signature_len) {
	return in_session(session, CALL_VerifyFinal, ARGS(arg_in(signature, signature_len)));
}

CK_RV C_VerifyRecoverInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key) {
	return init(session, CALL_VerifyRecoverInit, mechanism, &key);
}

CK_RV C_VerifyRecover(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *out, CK_ULONG *out_len) {
	return in_session(session, CALL_VerifyRecover, ARGS(arg_in(data, data_len), arg_out(out, out_len)));
}

CK_RV C_DigestEncryptUpdate(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *out, CK_ULONG *out_len) {
	return in_session(session, CALL_DigestEncryptUpdate, ARGS(arg_in(data, data_len), arg_out(out, out_len)));
}

CK_RV C_DecryptDigestUpdate(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *out, CK_ULONG *out_len) {
	return in_session(session, CALL_DecryptDigestUpdate, ARGS(arg_in(data, data_len), arg_out(out, out_len)));
}

CK_RV C_SignEncryptUpdate(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *out, CK_ULONG *out_len) {
	return in_session(session, CALL_SignEncryptUpdate, ARGS(arg_in(data, data_len), arg_out(out, out_len)));
}

CK_RV C_DecryptVerifyUpdate(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *out, CK_ULONG *out_len) {
	return in_session(session, CALL_DecryptVerifyUpdate, ARGS(arg_in(data, data_len), arg_out(out, out_len)));
}

// The flag of C_SessionCancel for each operation, in order of the operations' bits.
static const CK_FLAGS cancel_flags[OPERATIONS] = {
	CKF_DIGEST, CKF_ENCRYPT, CKF_DECRYPT, CKF_SIGN, CKF_VERIFY, CKF_SIGN_RECOVER, CKF_VERIFY_RECOVER,
	CKF_MESSAGE_ENCRYPT, CKF_MESSAGE_DECRYPT, CKF_MESSAGE_SIGN, CKF_MESSAGE_VERIFY,
};

CK_RV C_SessionCancel(CK_SESSION_HANDLE session, CK_FLAGS flags) {
	struct session *s;
	CK_RV rv = session_enter(session, &s);
	if (rv != CKR_OK)
		return rv;
	CK_FLAGS there = 0; // what of it the daemon has
	for (size_t k = 0; k < OPERATIONS; k++)
		if (flags & cancel_flags[k] && (s->operations[k].live || s->operations[k].suspect))
			there |= cancel_flags[k];
	if (flags & CKF_FIND_OBJECTS && (s->search.live || s->search.stale))
		there |= CKF_FIND_OBJECTS;
	if (there != 0)
		rv = session_call(s, CALL_SessionCancel, ARGS(arg_ulong(there)));
	for (size_t k = 0; k < OPERATIONS; k++)
		if (flags & cancel_flags[k])
			operation_end(&s->operations[k], rv == CKR_OK);
	if (flags & CKF_FIND_OBJECTS) {
		s->search.stale = rv != CKR_OK && (s->search.live || s->search.stale);
		s->search.active = s->search.live = false;
	}
	session_leave(s);
	return rv;
}

CK_RV C_MessageEncryptInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key) {
	return init(session, CALL_MessageEncryptInit, mechanism, &key);
}

CK_RV C_MessageDecryptInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key) {
	return init(session, CALL_MessageDecryptInit, mechanism, &key);
}

CK_RV C_MessageSignInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key) {
	return init(session, CALL_MessageSignInit, mechanism, &key);
}

CK_RV C_MessageVerifyInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key) {
	return init(session, CALL_MessageVerifyInit, mechanism, &key);
}
