// Slots, tokens, sessions and logins (PKCS #11 3.0, 5.5 to 5.6).

#include <string.h>

#include "functions.h"
#include "login.h"

#define LABEL 32u // octets of a token's label

CK_RV C_GetSlotList(CK_BBOOL present, CK_SLOT_ID *slots, CK_ULONG *count) {
	CK_RV rv = enter();
	if (rv != CKR_OK)
		return rv;
	// A program may be up before the daemon: it sees no slots, at once, and asks again some time. A daemon that was there is waited for.
	bool early = pool_epoch() == 0;
	rv = call_daemon(CALL_GetSlotList, early ? NO_WAIT : 0, ARGS(arg_byte(present ? 1 : 0), arg_list(slots, count)));
	if (rv == CKR_DEVICE_ERROR && early && pool_epoch() == 0) {
		*count = 0;
		rv = CKR_OK;
	}
	leave();
	return rv;
}

CK_RV C_GetSlotInfo(CK_SLOT_ID slot, CK_SLOT_INFO *info) {
	if (info == NULL)
		return CKR_ARGUMENTS_BAD;
	return in_library(CALL_GetSlotInfo, ARGS(arg_ulong(slot),
		arg_result_text(info->slotDescription, sizeof info->slotDescription), arg_result_text(info->manufacturerID, sizeof info->manufacturerID),
		arg_result(&info->flags), arg_result_version(&info->hardwareVersion), arg_result_version(&info->firmwareVersion)));
}

#define TOKEN_INFO_ARGS(info) \
	arg_result_text((info)->label, sizeof(info)->label), arg_result_text((info)->manufacturerID, sizeof(info)->manufacturerID), \
	arg_result_text((info)->model, sizeof(info)->model), arg_result_text((info)->serialNumber, sizeof(info)->serialNumber), \
	arg_result(&(info)->flags), \
	arg_result(&(info)->ulMaxSessionCount), arg_result(&(info)->ulSessionCount), \
	arg_result(&(info)->ulMaxRwSessionCount), arg_result(&(info)->ulRwSessionCount), \
	arg_result(&(info)->ulMaxPinLen), arg_result(&(info)->ulMinPinLen), \
	arg_result(&(info)->ulTotalPublicMemory), arg_result(&(info)->ulFreePublicMemory), \
	arg_result(&(info)->ulTotalPrivateMemory), arg_result(&(info)->ulFreePrivateMemory), \
	arg_result_version(&(info)->hardwareVersion), arg_result_version(&(info)->firmwareVersion), \
	arg_result_text((info)->utcTime, sizeof(info)->utcTime)

CK_RV C_GetTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO *info) {
	if (info == NULL)
		return CKR_ARGUMENTS_BAD;
	return in_library(CALL_GetTokenInfo, ARGS(arg_ulong(slot), TOKEN_INFO_ARGS(info)));
}

CK_RV C_GetMechanismList(CK_SLOT_ID slot, CK_MECHANISM_TYPE *types, CK_ULONG *count) {
	return in_library(CALL_GetMechanismList, ARGS(arg_ulong(slot), arg_list(types, count)));
}

CK_RV C_GetMechanismInfo(CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info) {
	if (info == NULL)
		return CKR_ARGUMENTS_BAD;
	return in_library(CALL_GetMechanismInfo, ARGS(arg_ulong(slot), arg_ulong(type),
		arg_result(&info->ulMinKeySize), arg_result(&info->ulMaxKeySize), arg_result(&info->flags)));
}

CK_RV C_InitToken(CK_SLOT_ID slot, CK_UTF8CHAR *pin, CK_ULONG pin_len, CK_UTF8CHAR *label) {
	return in_library(CALL_InitToken2, ARGS(arg_ulong(slot), arg_in(pin, pin_len), arg_text(label, LABEL)));
}

CK_RV C_InitPIN(CK_SESSION_HANDLE session, CK_UTF8CHAR *pin, CK_ULONG pin_len) {
	return in_session(session, CALL_InitPIN, ARGS(arg_in(pin, pin_len)));
}

CK_RV C_SetPIN(CK_SESSION_HANDLE session, CK_UTF8CHAR *old, CK_ULONG old_len, CK_UTF8CHAR *new, CK_ULONG new_len) {
	struct session *s;
	CK_RV rv = session_enter(session, &s);
	if (rv != CKR_OK)
		return rv;
	rv = session_call(s, CALL_SetPIN, ARGS(arg_in(old, old_len), arg_in(new, new_len)));
	if (rv == CKR_OK)
		login_new_pin(s->slot, new, new_len);
	session_leave(s);
	return rv;
}

// opening is a session that is being opened.
struct opening {
	CK_SLOT_ID slot;
	CK_FLAGS flags;
	CK_ULONG server;
	uint64_t epoch;
};

static enum sent attempt_open(struct link *link, struct session *none, void *what, CK_RV *rv) {
	(void)none;
	struct opening *o = what;
	struct exchange x;
	struct args args = ARGS(arg_ulong(o->slot), arg_ulong(o->flags), arg_result(&o->server));
	exchange_begin(&x, link);
	exchange_add(&x, CALL_OpenSession, NULL, NULL, args);
	enum sent sent = exchange_run(&x);
	*rv = x.frames[0].rv;
	o->epoch = link->epoch;
	if (sent != SENT || *rv != CKR_OK)
		return sent;
	return login_restore(link, o->slot, o->server); // who is logged in, is so in all sessions
}

CK_RV C_OpenSession(CK_SLOT_ID slot, CK_FLAGS flags, void *application, CK_NOTIFY notify, CK_SESSION_HANDLE *session) {
	(void)application; // the daemon never calls back
	(void)notify;
	if (session == NULL)
		return CKR_ARGUMENTS_BAD;
	if ((flags & CKF_SERIAL_SESSION) == 0)
		return CKR_SESSION_PARALLEL_NOT_SUPPORTED;
	CK_RV rv = enter();
	if (rv != CKR_OK)
		return rv;
	struct opening o = { .slot = slot, .flags = flags };
	rv = with_link(NULL, REPEAT, attempt_open, &o);
	if (rv == CKR_OK)
		rv = session_add(slot, flags, o.server, o.epoch, session);
	if (rv == CKR_SESSION_COUNT || rv == CKR_HOST_MEMORY)
		(void)call_daemon(CALL_CloseSession, NO_WAIT, ARGS(arg_ulong(o.server))); // else it ends with the application
	leave();
	return rv;
}

static enum sent attempt_close(struct link *link, struct session *s, void *what, CK_RV *rv) {
	(void)what;
	if (s->epoch != link->epoch)
		return SENT; // the daemon does not have it
	struct exchange x;
	exchange_begin(&x, link);
	exchange_add(&x, CALL_CloseSession, &s->server, NULL, NO_ARGS);
	enum sent sent = exchange_run(&x);
	*rv = x.frames[0].rv;
	return sent;
}

CK_RV C_CloseSession(CK_SESSION_HANDLE session) {
	struct session *s;
	CK_RV rv = session_enter(session, &s);
	if (rv != CKR_OK)
		return rv;
	bool last;
	session_close(s, &last);
	if (last)
		login_forget(s->slot); // PKCS #11 3.0, 5.6.7: logged out
	// It is closed whatever the daemon says, and without a daemon too.
	(void)with_link(s, REPEAT | NO_WAIT | AS_IT_IS, attempt_close, NULL);
	session_leave(s);
	return CKR_OK;
}

CK_RV C_CloseAllSessions(CK_SLOT_ID slot) {
	CK_RV rv = enter();
	if (rv != CKR_OK)
		return rv;
	sessions_close(slot);
	login_forget(slot);
	rv = call_daemon(CALL_CloseAllSessions, NO_WAIT, ARGS(arg_ulong(slot)));
	leave();
	return rv == CKR_DEVICE_ERROR ? CKR_OK : rv; // without a daemon there are none
}

CK_RV C_GetSessionInfo(CK_SESSION_HANDLE session, CK_SESSION_INFO *info) {
	if (info == NULL)
		return CKR_ARGUMENTS_BAD;
	return in_session(session, CALL_GetSessionInfo,
		ARGS(arg_result(&info->slotID), arg_result(&info->state), arg_result(&info->flags), arg_result(&info->ulDeviceError)));
}

CK_RV C_GetOperationState(CK_SESSION_HANDLE session, CK_BYTE *state, CK_ULONG *state_len) {
	return in_session(session, CALL_GetOperationState, ARGS(arg_out(state, state_len)));
}

CK_RV C_SetOperationState(CK_SESSION_HANDLE session, CK_BYTE *state, CK_ULONG state_len, CK_OBJECT_HANDLE encryption,
		CK_OBJECT_HANDLE authentication) {
	return in_session(session, CALL_SetOperationState, ARGS(arg_in(state, state_len), arg_ulong(encryption), arg_ulong(authentication)));
}

// logging_in is a login that is being made.
struct logging_in {
	enum call call;
	struct args args;
	CK_TOKEN_INFO token;
	uint64_t epoch;
};

static enum sent attempt_login(struct link *link, struct session *s, void *what, CK_RV *rv) {
	struct logging_in *l = what;
	struct exchange x;
	struct args info = ARGS(arg_ulong(s->slot), TOKEN_INFO_ARGS(&l->token));
	exchange_begin(&x, link);
	exchange_add(&x, CALL_GetTokenInfo, NULL, NULL, info);
	exchange_add(&x, l->call, &s->server, NULL, l->args);
	enum sent sent = exchange_run(&x);
	*rv = x.frames[1].rv;
	if (x.frames[0].rv != CKR_OK)
		l->token.flags = 0;
	l->epoch = link->epoch;
	return sent;
}

// login makes a login and remembers it: without the PIN, in no_pin, if the token does not ask for one.
static CK_RV login(CK_SESSION_HANDLE session, CK_USER_TYPE user, enum call call, struct args args, struct args no_pin) {
	struct session *s;
	CK_RV rv = session_enter(session, &s);
	if (rv != CKR_OK)
		return rv;
	struct logging_in l = { .call = call, .args = args };
	rv = args_check(args);
	if (rv == CKR_OK)
		rv = with_link(s, 0, attempt_login, &l);
	// A login for one use of one key (CKU_CONTEXT_SPECIFIC) is over with it.
	if (rv == CKR_OK && user != CKU_CONTEXT_SPECIFIC) {
		login_remember(s->slot, call, l.token.flags & CKF_LOGIN_REQUIRED ? args : no_pin, l.epoch);
		cache_clear();
	}
	session_leave(s);
	return rv;
}

CK_RV C_Login(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR *pin, CK_ULONG pin_len) {
	return login(session, user, CALL_Login, ARGS(arg_ulong(user), arg_in(pin, pin_len)), ARGS(arg_ulong(user), arg_in(NULL, 0)));
}

CK_RV C_LoginUser(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR *pin, CK_ULONG pin_len, CK_UTF8CHAR *name, CK_ULONG name_len) {
	return login(session, user, CALL_LoginUser, ARGS(arg_ulong(user), arg_in(pin, pin_len), arg_in(name, name_len)),
		ARGS(arg_ulong(user), arg_in(NULL, 0), arg_in(name, name_len)));
}

CK_RV C_Logout(CK_SESSION_HANDLE session) {
	struct session *s;
	CK_RV rv = session_enter(session, &s);
	if (rv != CKR_OK)
		return rv;
	rv = session_call(s, CALL_Logout, NO_ARGS);
	login_forget(s->slot); // whatever came of it
	sessions_abandon(s->slot);
	cache_clear();
	session_leave(s);
	return rv;
}

// C_WaitForSlotEvent has no event to tell of: slots come and go with the daemon's configuration only. Programs that would wait for one look for themselves
// now and then when that is not supported.
CK_RV C_WaitForSlotEvent(CK_FLAGS flags, CK_SLOT_ID *slot, void *reserved) {
	if (slot == NULL || reserved != NULL)
		return CKR_ARGUMENTS_BAD;
	CK_RV rv = enter();
	if (rv != CKR_OK)
		return rv;
	leave();
	return flags & CKF_DONT_BLOCK ? CKR_NO_EVENT : CKR_FUNCTION_NOT_SUPPORTED;
}

CK_RV C_GetFunctionStatus(CK_SESSION_HANDLE session) {
	(void)session;
	return CKR_FUNCTION_NOT_PARALLEL;
}

CK_RV C_CancelFunction(CK_SESSION_HANDLE session) {
	(void)session;
	return CKR_FUNCTION_NOT_PARALLEL;
}
