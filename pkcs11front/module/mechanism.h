// Mechanisms and their parameters on the wire.
#ifndef KEYWARD_MECHANISM_H
#define KEYWARD_MECHANISM_H

#include "wire.h"

// How much of a mechanism is written. The shape leaves out what an Init's success does not depend on: the octets of IVs, counters,
// labels and additional data. Two mechanisms of one shape are alike to an Init.
enum extent { WHOLE, SHAPE };

// encode_mechanism writes an "M". NULL is the mechanism of an Init that cancels.
void encode_mechanism(struct out *o, const CK_MECHANISM *m, enum extent extent);

// mechanism_block is by how many octets a mechanism encrypts or decrypts: 16 for the block modes, else 1.
CK_ULONG mechanism_block(CK_MECHANISM_TYPE type);

// The parameter of a message (PKCS #11 3.0), as octets of an "ay". with_tag: the tag goes along, for it is to be checked.
void encode_message_parameter(struct out *o, const void *parameter, CK_ULONG len, bool with_tag);

// decode_message_parameter gives the caller the IV and the tag that an encryption made. parameter is as it was encoded.
void decode_message_parameter(struct in *i, void *parameter, CK_ULONG len);

#endif
