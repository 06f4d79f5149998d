// Data that is longer than a frame: the module sends it in parts.
#ifndef KEYWARD_PARTS_H
#define KEYWARD_PARTS_H

#include "session.h"

#define PART_SIZE (512ul * 1024) // octets that go in one frame; a multiple of all block sizes
#define RANDOM_SIZE (64ul * 1024) // octets that the daemon gives at once

// whole does C_Encrypt and its like: if the data is long, with updates and a final. result is what the final gives, or takes.
CK_RV whole(struct session *session, enum call call, CK_BYTE *data, CK_ULONG len, struct arg result);

// update does C_EncryptUpdate and its like. result: where the output goes; NULL for those without.
CK_RV update(struct session *session, enum call call, CK_BYTE *data, CK_ULONG len, const struct arg *result);

#endif
