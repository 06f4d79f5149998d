// The operations of a session (what is between an Init and its end), and the Inits that are known to succeed.
//
// An Init is kept as it was encoded, so that it can be sent again: with the call that uses it, if the same Init has succeeded before, or
// after the daemon was away.
#ifndef KEYWARD_OPERATION_H
#define KEYWARD_OPERATION_H

#include "wire.h"

struct operation {
	bool active;  // as the caller sees it
	bool live;    // the daemon has it, in the session as it is now
	bool begun;   // a part of it is done: it can't be begun again
	bool lost;    // it was active and begun when the daemon forgot it
	bool suspect; // the daemon may have one that the caller does not know of: it is cancelled before the next Init
	CK_ULONG size;  // of the result in octets, if that does not depend on the input; else 0
	CK_ULONG block; // see mechanism_block
	CK_ULONG held;  // octets of input that may be held back until there is a block
	unsigned init_call;
	struct out init;  // the Init's arguments after the session
	struct out shape; // what makes it alike to another: see cache_known
};

// operation_end ends it for the caller. clean: the daemon has ended it too.
void operation_end(struct operation *op, bool clean);
void operation_free(struct operation *op);

// The Inits that have succeeded in this process, by their shape: session's slot, call, key, and the mechanism's shape. An entry holds
// for one epoch.
bool cache_known(const struct out *shape, uint64_t epoch, CK_ULONG *size);
void cache_store(const struct out *shape, uint64_t epoch, CK_ULONG size);
void cache_forget(const struct out *shape);
void cache_clear(void);
void cache_after_fork_child(void);

#endif
