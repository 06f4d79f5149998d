// Calls to the daemon: frames that are sent together over one link, and tried again when the daemon has been away.
#ifndef KEYWARD_EXCHANGE_H
#define KEYWARD_EXCHANGE_H

#include "pool.h"
#include "session.h"

#define EXCHANGE_FRAMES 5 // two operations with their cancels, and the call itself

// exchange is frames that go out in one write, and their answers.
struct exchange {
	struct link *link;
	size_t n;
	struct {
		enum call call;
		struct args args; // must live until the exchange has run
		CK_RV rv;         // CKR_OK, or what the daemon answered
		bool fits;        // see decode_answer
	} frames[EXCHANGE_FRAMES];
	struct arg cancels[EXCHANGE_FRAMES][3]; // args of frames that cancel
};

void exchange_begin(struct exchange *x, struct link *link);
void exchange_add(struct exchange *x, enum call call, const uint64_t *session, const struct out *before, struct args args);

// exchange_run sends and receives. SENT: each frame has its rv. If a frame can't be encoded nothing is sent, and the last has the reason.
enum sent exchange_run(struct exchange *x);

// attempt is one try at something over a link. If it gives SENT, rv is what the function returns.
typedef enum sent (*attempt_fn)(struct link *link, struct session *session, void *what, CK_RV *rv);

// What with_link may do.
enum manner {
	REPEAT = 1,  // try again although the daemon may have done it already
	NO_WAIT = 2, // not wait for a daemon that is away
	AS_IT_IS = 4 // leave the session as it is, even if the daemon does not have it
};

// with_link tries until something is SENT, or the daemon is away for too long, or it must not be tried again: CKR_DEVICE_ERROR. Before
// each try it sees to it that the daemon has the session (which may be NULL, or is entered).
CK_RV with_link(struct session *session, unsigned manner, attempt_fn attempt, void *what);

// call_daemon makes a call that has no session.
CK_RV call_daemon(enum call call, unsigned manner, struct args args);

// session_call makes a call in a session that is entered. It begins the operations that the call needs and the daemon does not have,
// in the same write, and keeps account of them.
CK_RV session_call(struct session *session, enum call call, struct args args);

// session_init makes an Init of the session's operation, or remembers it for the call that will use it.
CK_RV session_init(struct session *session, enum call call, const CK_MECHANISM *mechanism, const CK_OBJECT_HANDLE *key);

#endif
