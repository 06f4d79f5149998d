// Connections to the daemon, and the pool of them that the threads of a process share.
//
// A call takes a connection for itself, writes its frames at once, reads the answers and gives the connection back. The one that was
// given back last is taken first, so that there are as many as calls go on at the same time. All belong to one application: they carry
// the same cookie. Each knows the epoch that the daemon told it; what a session has at the daemon is good on connections of one epoch.
#ifndef KEYWARD_LINK_H
#define KEYWARD_LINK_H

#include <time.h>

#include "calls.h"

#define POOL_LINKS 16 // calls that go on at the same time; more wait
#define WAIT_LINKS 4  // calls of C_WaitForSlotEvent, which have their own

struct link {
	int fd; // -1: none. Changed under the lock of the descriptors
	uint64_t epoch;
	bool fresh;           // no call has been answered on it yet
	uint32_t serial;      // of the next frame
	uint32_t next_answer; // the serial that the next answer must have
	struct out out;       // frames that are to be sent
	uint8_t *in;          // what was received: answers in octets start to end
	size_t in_cap, in_start, in_end;
};

// How sending or receiving ended.
enum sent {
	SENT,     // as it should
	UNSENT,   // the connection is gone, and the daemon surely has not read the last frame
	BROKEN,   // the connection is gone, and what the daemon did is not known
	NONSENSE, // what came is no answer
};

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

// wait_take makes a connection of its own for a call that blocks. It is given back with pool_drop.
CK_RV wait_take(struct link **link, struct patience *patience);

// link_frame adds a frame to what is sent; link_send sends it all. After that the answers are received in order. link_receive gives
// the body of the next one, which is good until the next is received.
void link_begin(struct link *link);
void link_frame(struct link *link, enum call call, const uint64_t *session, const struct out *before, struct args args);
enum sent link_send(struct link *link);
enum sent link_receive(struct link *link, struct in *body);

// frame_header reads the header of an answer and gives the length of its body. False: it is none that answers serial.
bool frame_header(const uint8_t header[WIRE_HEADER], uint32_t serial, uint32_t *body);

// For fork: the locks are held while the process is copied, and the child closes what it inherited.
void pool_before_fork(void);
void pool_after_fork_parent(void);
void pool_after_fork_child(void);

#endif
