// A connection to the daemon: frames out, answers in. It belongs to the thread that has taken it from the pool.
#ifndef KEYWARD_LINK_H
#define KEYWARD_LINK_H

#include "calls.h"

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
	SILENT,   // nothing came for longer than the daemon works on a call
};

// link_start reads where the daemon is and draws the cookie of a new application; link_stop forgets that.
CK_RV link_start(void);
void link_stop(void);

// link_timeout is for how many seconds a call waits for a daemon that is away.
unsigned link_timeout(void);

// link_connect connects and says who we are: one write, one read. CKR_DEVICE_ERROR: nobody is there; anything else is what the daemon said. Whatever
// came of it, link_close closes the connection, and link_free gives the memory back too. link_shutdown ends what another thread waits for on it.
CK_RV link_connect(struct link *link);
void link_close(struct link *link);
void link_free(struct link *link);
void link_shutdown(struct link *link);

// link_impatient sets how many seconds the daemon may take to accept, read or answer.
void link_impatient(struct link *link, unsigned seconds);

// link_frame adds a frame to what is sent; link_send sends it all. After that the answers are received in order. link_receive gives
// the body of the next one, which is good until the next is received.
void link_begin(struct link *link);
void link_frame(struct link *link, enum call call, const uint64_t *session, const struct out *before, struct args args);
enum sent link_send(struct link *link);
enum sent link_receive(struct link *link, struct in *body);

// frame_header reads the header of an answer and gives the length of its body. False: it is none that answers serial.
bool frame_header(const uint8_t header[WIRE_HEADER], uint32_t serial, uint32_t *body);

// For fork: no descriptor is opened or closed while the process is copied, and the child closes what it inherited. Buffers that another thread was at,
// of a link that was not idle, may be in any state: they stay where they are.
void link_before_fork(void);
void link_after_fork(void);
void link_inherited(struct link *link, bool idle);

#endif
