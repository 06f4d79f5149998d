// The pool of connections that the threads of a process share.
//
// A call takes a connection for itself, writes its frames at once, reads the answers and gives the connection back. The one that was
// given back last is taken first, so that there are as many as calls go on at the same time. All belong to one application: they carry
// the same cookie. Each knows the epoch that the daemon told it; what a session has at the daemon is good on connections of one epoch.
#ifndef KEYWARD_POOL_H
#define KEYWARD_POOL_H

#include <time.h>

#include "link.h"

#define POOL_LINKS 16 // calls that go on at the same time; more wait

// patience is how long one call waits for the daemon in all.
struct patience {
	bool started;
	struct timespec until;
	long pause; // milliseconds
	unsigned broken; // how often the connection broke after a request was sent
};

// pool_prepare is called once, before all else.
void pool_prepare(void);

// pool_start begins the application: it draws its cookie. pool_stop ends the application at the daemon and closes the connections;
// pool_interrupt, before it, ends the calls that go on.
CK_RV pool_start(void);
void pool_interrupt(void);
void pool_stop(void);

// pool_take takes a connection. It waits for the daemon as long as patience allows, and for a connection that is in use without end.
// patience NULL: it does not wait for the daemon. CKR_DEVICE_ERROR: there is no daemon.
CK_RV pool_take(struct link **link, struct patience *patience);
void pool_give(struct link *link);
void pool_drop(struct link *link); // closed instead

// pool_pause waits a while before something is tried again. CKR_DEVICE_ERROR: there is no time left.
CK_RV pool_pause(struct patience *patience);

// pool_epoch is the epoch that the daemon told last; 0: there was no daemon yet.
uint64_t pool_epoch(void);

// For fork: the locks are held while the process is copied, and the child closes what it inherited.
void pool_before_fork(void);
void pool_after_fork_parent(void);
void pool_after_fork_child(void);

#endif
