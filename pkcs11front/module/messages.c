// Operations on messages (PKCS #11 3.0, 5.9, 5.11, 5.14 and 5.16). The parameter of a message is a structure with pointers, so it is
// written out, and what an encryption of a whole message makes of it comes back. In parts the daemon does none with AES-GCM.

#include "functions.h"

// A message that was begun is over with its last part.
static CK_RV next(CK_SESSION_HANDLE session, enum call call, bool last, struct args args) {
	struct session *s;
	CK_RV rv = session_enter(session, &s);
	if (rv != CKR_OK)
		return rv;
	rv = session_call(s, call, args);
	if (rv == CKR_OK && last)
		session_operation(s, call_facts[call].operations)->begun = false;
	session_leave(s);
	return rv;
}

CK_RV C_EncryptMessage(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *aad, CK_ULONG aad_len, CK_BYTE *data,
		CK_ULONG data_len, CK_BYTE *out, CK_ULONG *out_len) {
	return in_session(session, CALL_EncryptMessage, ARGS(arg_parameter(parameter, parameter_len, ARG_PARAMETER_BACK), arg_in(aad, aad_len),
		arg_in(data, data_len), arg_out(out, out_len)));
}

CK_RV C_EncryptMessageBegin(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *aad, CK_ULONG aad_len) {
	return in_session(session, CALL_EncryptMessageBegin,
		ARGS(arg_parameter(parameter, parameter_len, ARG_PARAMETER), arg_in(aad, aad_len)));
}

CK_RV C_EncryptMessageNext(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *data, CK_ULONG data_len,
		CK_BYTE *out, CK_ULONG *out_len, CK_FLAGS flags) {
	return next(session, CALL_EncryptMessageNext, flags & CKF_END_OF_MESSAGE && out != NULL,
		ARGS(arg_parameter(parameter, parameter_len, ARG_PARAMETER), arg_in(data, data_len), arg_out(out, out_len), arg_ulong(flags)));
}

CK_RV C_MessageEncryptFinal(CK_SESSION_HANDLE session) {
	return in_session(session, CALL_MessageEncryptFinal, NO_ARGS);
}

CK_RV C_DecryptMessage(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *aad, CK_ULONG aad_len, CK_BYTE *data,
		CK_ULONG data_len, CK_BYTE *out, CK_ULONG *out_len) {
	return in_session(session, CALL_DecryptMessage, ARGS(arg_parameter(parameter, parameter_len, ARG_PARAMETER_TAG), arg_in(aad, aad_len),
		arg_in(data, data_len), arg_out(out, out_len)));
}

CK_RV C_DecryptMessageBegin(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *aad, CK_ULONG aad_len) {
	return in_session(session, CALL_DecryptMessageBegin, ARGS(arg_parameter(parameter, parameter_len, ARG_PARAMETER), arg_in(aad, aad_len)));
}

CK_RV C_DecryptMessageNext(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *data, CK_ULONG data_len,
		CK_BYTE *out, CK_ULONG *out_len, CK_FLAGS flags) {
	// The tag is to be checked with the last part, and need not be there before.
	bool last = flags & CKF_END_OF_MESSAGE;
	return next(session, CALL_DecryptMessageNext, last && out != NULL,
		ARGS(arg_parameter(parameter, parameter_len, last ? ARG_PARAMETER_TAG : ARG_PARAMETER), arg_in(data, data_len),
			arg_out(out, out_len), arg_ulong(flags)));
}

CK_RV C_MessageDecryptFinal(CK_SESSION_HANDLE session) {
	return in_session(session, CALL_MessageDecryptFinal, NO_ARGS);
}

CK_RV C_SignMessage(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *out,
		CK_ULONG *out_len) {
	return in_session(session, CALL_SignMessage,
		ARGS(arg_parameter(parameter, parameter_len, ARG_PARAMETER), arg_in(data, data_len), arg_out(out, out_len)));
}

CK_RV C_SignMessageBegin(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len) {
	return in_session(session, CALL_SignMessageBegin, ARGS(arg_parameter(parameter, parameter_len, ARG_PARAMETER)));
}

CK_RV C_SignMessageNext(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *out,
		CK_ULONG *out_len) {
	// The last part is the one that asks for the signature.
	CK_ULONG none = 0;
	return next(session, CALL_SignMessageNext, out_len != NULL && out != NULL,
		ARGS(arg_parameter(parameter, parameter_len, ARG_PARAMETER), arg_in(data, data_len), arg_byte(out_len != NULL),
			arg_out(out_len != NULL ? out : (CK_BYTE *)&none, out_len != NULL ? out_len : &none)));
}

CK_RV C_MessageSignFinal(CK_SESSION_HANDLE session) {
	return in_session(session, CALL_MessageSignFinal, NO_ARGS);
}

CK_RV C_VerifyMessage(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *data, CK_ULONG data_len,
		CK_BYTE *signature, CK_ULONG signature_len) {
	return in_session(session, CALL_VerifyMessage, ARGS(arg_parameter(parameter, parameter_len, ARG_PARAMETER), arg_in(data, data_len),
		arg_in(signature, signature_len)));
}

CK_RV C_VerifyMessageBegin(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len) {
	return in_session(session, CALL_VerifyMessageBegin, ARGS(arg_parameter(parameter, parameter_len, ARG_PARAMETER)));
}

CK_RV C_VerifyMessageNext(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *data, CK_ULONG data_len,
		CK_BYTE *signature, CK_ULONG signature_len) {
	return next(session, CALL_VerifyMessageNext, signature != NULL, ARGS(arg_parameter(parameter, parameter_len, ARG_PARAMETER),
		arg_in(data, data_len), arg_in(signature, signature_len)));
}

CK_RV C_MessageVerifyFinal(CK_SESSION_HANDLE session) {
	return in_session(session, CALL_MessageVerifyFinal, NO_ARGS);
}
