// What the functions of the library share: entering a session for one call.
#ifndef KEYWARD_FUNCTIONS_H
#define KEYWARD_FUNCTIONS_H

#include "exchange.h"
#include "session.h"

// in_session makes one call in a session.
static inline CK_RV in_session(CK_SESSION_HANDLE handle, enum call call, struct args args) {
	struct session *s;
	CK_RV rv = session_enter(handle, &s);
	if (rv != CKR_OK)
		return rv;
	rv = session_call(s, call, args);
	session_leave(s);
	return rv;
}

// in_library makes one call without a session.
static inline CK_RV in_library(enum call call, struct args args) {
	CK_RV rv = enter();
	if (rv != CKR_OK)
		return rv;
	rv = call_daemon(call, 0, args);
	leave();
	return rv;
}

#endif
