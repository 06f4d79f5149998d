// Sessions as the caller sees them. A handle is the module's own and never changes; what the daemon calls the session does, when
// the daemon has been away and the session is opened there again.
//
// Every function of the library enters here before it does anything, and leaves, so that C_Finalize can wait for those that are inside.
#ifndef KEYWARD_SESSION_H
#define KEYWARD_SESSION_H

#include <pthread.h>

#include "calls.h"
#include "operation.h"

// search is what is between C_FindObjectsInit and C_FindObjectsFinal.
struct search {
	bool active;   // as the caller sees it
	bool live;     // the daemon has it, in the session as it is now
	bool stale;    // the daemon has one that the caller has ended
	bool complete; // the daemon has no more
	CK_ULONG *handles; // fetched; of them the caller has had those before next
	size_t count, next;
	uint64_t seen, given; // by the daemon in its present search; to the caller in all
	struct out template;
};

struct session {
	// lock is held while a call of the session goes on. It guards what follows, as far as that changes.
	pthread_mutex_t lock;
	CK_SESSION_HANDLE handle;
	CK_SLOT_ID slot;
	CK_FLAGS flags;
	bool closed;
	uint64_t server; // the daemon's handle
	uint64_t epoch;  // for which that is good
	struct operation operations[OPERATIONS];
	struct search search;

	// The table's lock guards what follows.
	unsigned users; // calls that have it, and the table itself
	bool abandoned; // its operations are over: someone logged out
};

// enter and leave are for functions without a session. CKR_CRYPTOKI_NOT_INITIALIZED.
CK_RV enter(void);
void leave(void);

// session_enter gives the session locked. session_leave gives it back.
CK_RV session_enter(CK_SESSION_HANDLE handle, struct session **session);
void session_leave(struct session *session);

// session_add makes a session of one that the daemon has opened.
CK_RV session_add(CK_SLOT_ID slot, CK_FLAGS flags, uint64_t server, uint64_t epoch, CK_SESSION_HANDLE *handle);

// session_close closes it for the caller; the caller has it entered. last: there is no other session with its slot.
void session_close(struct session *session, bool *last);
// sessions_close closes all of a slot, when the calls in them have ended.
void sessions_close(CK_SLOT_ID slot);

// sessions_abandon ends the operations of all sessions with a slot, each before its next call.
void sessions_abandon(CK_SLOT_ID slot);

// session_operation is the operation of the first bit of operations.
struct operation *session_operation(struct session *session, unsigned operations);

void search_free(struct search *search);

// sessions_start opens the library; sessions_stop closes it: enter fails from then on. sessions_wait waits until all have left, and
// frees what there is.
void sessions_start(void);
bool sessions_stop(void); // false: it was not open
void sessions_wait(void);

void sessions_before_fork(void);
void sessions_after_fork_parent(void);
void sessions_after_fork_child(void);

#endif
