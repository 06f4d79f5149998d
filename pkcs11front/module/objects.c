// Objects, their keys, and random numbers (PKCS #11 3.0, 5.7, 5.18 and 5.19).

#include <string.h>

#include "functions.h"
#include "parts.h"
#include "search.h"

// changing makes a call that may change what a key can do, and forgets which Inits are known to succeed.
static CK_RV changing(CK_SESSION_HANDLE session, enum call call, struct args args) {
	CK_RV rv = in_session(session, call, args);
	cache_clear();
	return rv;
}

CK_RV C_CreateObject(CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *object) {
	return in_session(session, CALL_CreateObject, ARGS(arg_template(template, count), arg_result(object)));
}

CK_RV C_CopyObject(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *copy) {
	return in_session(session, CALL_CopyObject, ARGS(arg_ulong(object), arg_template(template, count), arg_result(copy)));
}

CK_RV C_DestroyObject(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object) {
	return changing(session, CALL_DestroyObject, ARGS(arg_ulong(object)));
}

CK_RV C_GetObjectSize(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ULONG *size) {
	return in_session(session, CALL_GetObjectSize, ARGS(arg_ulong(object), arg_result(size)));
}

CK_RV C_GetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *template, CK_ULONG count) {
	return in_session(session, CALL_GetAttributeValue, ARGS(arg_ulong(object), arg_wanted(template, count)));
}

CK_RV C_SetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *template, CK_ULONG count) {
	return changing(session, CALL_SetAttributeValue, ARGS(arg_ulong(object), arg_template(template, count)));
}

CK_RV C_FindObjectsInit(CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count) {
	struct session *s;
	CK_RV rv = session_enter(session, &s);
	if (rv != CKR_OK)
		return rv;
	rv = search_init(s, template, count);
	session_leave(s);
	return rv;
}

CK_RV C_FindObjects(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *objects, CK_ULONG max, CK_ULONG *count) {
	if (count == NULL || (objects == NULL && max > 0))
		return CKR_ARGUMENTS_BAD;
	struct session *s;
	CK_RV rv = session_enter(session, &s);
	if (rv != CKR_OK)
		return rv;
	rv = search_next(s, objects, max, count);
	session_leave(s);
	return rv;
}

CK_RV C_FindObjectsFinal(CK_SESSION_HANDLE session) {
	struct session *s;
	CK_RV rv = session_enter(session, &s);
	if (rv != CKR_OK)
		return rv;
	rv = search_final(s);
	session_leave(s);
	return rv;
}

CK_RV C_GenerateKey(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *key) {
	return in_session(session, CALL_GenerateKey, ARGS(arg_mechanism(mechanism), arg_template(template, count), arg_result(key)));
}

CK_RV C_GenerateKeyPair(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_ATTRIBUTE *public_template, CK_ULONG public_count,
		CK_ATTRIBUTE *private_template, CK_ULONG private_count, CK_OBJECT_HANDLE *public_key, CK_OBJECT_HANDLE *private_key) {
	return in_session(session, CALL_GenerateKeyPair,
		ARGS(arg_mechanism(mechanism), arg_template(public_template, public_count), arg_template(private_template, private_count),
			arg_result(public_key), arg_result(private_key)));
}

CK_RV C_WrapKey(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE wrapping, CK_OBJECT_HANDLE key, CK_BYTE *out,
		CK_ULONG *out_len) {
	return in_session(session, CALL_WrapKey, ARGS(arg_mechanism(mechanism), arg_ulong(wrapping), arg_ulong(key), arg_out(out, out_len)));
}

CK_RV C_UnwrapKey(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE unwrapping, CK_BYTE *wrapped, CK_ULONG wrapped_len,
		CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *key) {
	return in_session(session, CALL_UnwrapKey,
		ARGS(arg_mechanism(mechanism), arg_ulong(unwrapping), arg_in(wrapped, wrapped_len), arg_template(template, count), arg_result(key)));
}

CK_RV C_DeriveKey(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE base, CK_ATTRIBUTE *template, CK_ULONG count,
		CK_OBJECT_HANDLE *key) {
	return in_session(session, CALL_DeriveKey,
		ARGS(arg_mechanism(mechanism), arg_ulong(base), arg_template(template, count), arg_result(key)));
}

CK_RV C_SeedRandom(CK_SESSION_HANDLE session, CK_BYTE *seed, CK_ULONG seed_len) {
	return in_session(session, CALL_SeedRandom, ARGS(arg_in(seed, seed_len)));
}

CK_RV C_GenerateRandom(CK_SESSION_HANDLE session, CK_BYTE *random, CK_ULONG random_len) {
	if (random == NULL && random_len > 0)
		return CKR_ARGUMENTS_BAD;
	struct session *s;
	CK_RV rv = session_enter(session, &s);
	if (rv != CKR_OK)
		return rv;
	while (random_len > 0 && rv == CKR_OK) {
		CK_ULONG wanted = random_len < RANDOM_SIZE ? random_len : RANDOM_SIZE, got = wanted;
		rv = session_call(s, CALL_GenerateRandom, ARGS(arg_out(random, &got)));
		if (rv == CKR_OK && got != wanted)
			rv = CKR_DEVICE_ERROR;
		random += wanted;
		random_len -= wanted;
	}
	session_leave(s);
	return rv;
}
