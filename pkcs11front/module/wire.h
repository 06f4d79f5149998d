// Octets of the protocol: integers big-endian, byte strings with a length before them. See docs/pkcs11-wire.md.
//
// Both ends are sticky: after the first failure nothing more is written or read, and what is read is zero, so that who calls
// looks once, at the end.
#ifndef KEYWARD_WIRE_H
#define KEYWARD_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pkcs11.h"

#define WIRE_HEADER 12u            // serial, length of the options, length of the body
#define WIRE_MAX_BODY (1u << 20)   // octets of a frame's body
#define WIRE_NULL 0xffffffffu      // in place of a length: a NULL pointer

// out is a buffer that grows as it is written, up to two frames of the largest size.
struct out {
	uint8_t *data;
	size_t len, cap;
	CK_RV rv; // CKR_OK, or what went wrong first
};

// in is a part of a buffer that is read.
struct in {
	const uint8_t *at, *end;
	bool failed;
};

void out_reset(struct out *o);        // empty and in order again; the octets that were in it are wiped
void out_free(struct out *o);         // wiped, too
void out_fail(struct out *o, CK_RV rv);
void out_u8(struct out *o, uint8_t n);
void out_u32(struct out *o, uint32_t n);
void out_u64(struct out *o, uint64_t n);
void out_raw(struct out *o, const void *data, size_t len);
void out_bytes(struct out *o, const void *data, CK_ULONG len); // length and octets; NULL is written as such
void out_patch_u32(struct out *o, size_t at, uint32_t n);

uint8_t in_u8(struct in *i);
uint32_t in_u32(struct in *i);
uint64_t in_u64(struct in *i);
const uint8_t *in_raw(struct in *i, size_t len); // NULL on failure
size_t in_left(const struct in *i);
void in_fail(struct in *i);

uint32_t get_u32(const uint8_t *p);

#endif
