#include "wire.h"

#include <stdlib.h>
#include <string.h>

// Above this a buffer is given back after use instead of being kept.
static const size_t keep = 64 * 1024;
static const size_t most = 2 * ((size_t)WIRE_HEADER + WIRE_MAX_BODY);

void out_reset(struct out *o) {
	if (o->len > 0)
		explicit_bzero(o->data, o->len);
	if (o->cap > keep) {
		free(o->data);
		o->data = NULL;
		o->cap = 0;
	}
	o->len = 0;
	o->rv = CKR_OK;
}

void out_free(struct out *o) {
	out_reset(o);
	free(o->data);
	*o = (struct out){ .data = NULL };
}

void out_fail(struct out *o, CK_RV rv) {
	if (o->rv == CKR_OK)
		o->rv = rv;
}

// room gives the place for len more octets, or NULL. It does not use realloc, which may leave a copy of what was there.
static uint8_t *room(struct out *o, size_t len) {
	if (o->rv != CKR_OK)
		return NULL;
	if (len > most - o->len) {
		out_fail(o, CKR_DATA_LEN_RANGE);
		return NULL;
	}
	if (len > o->cap - o->len) {
		size_t cap = o->cap == 0 ? 1024 : o->cap;
		while (cap - o->len < len)
			cap *= 2;
		uint8_t *data = malloc(cap);
		if (data == NULL) {
			out_fail(o, CKR_HOST_MEMORY);
			return NULL;
		}
		if (o->len > 0) {
			memcpy(data, o->data, o->len);
			explicit_bzero(o->data, o->len);
		}
		free(o->data);
		o->data = data;
		o->cap = cap;
	}
	uint8_t *at = o->data + o->len;
	o->len += len;
	return at;
}

static void put_u32(uint8_t *p, uint32_t n) {
	for (int i = 3; i >= 0; i--, n >>= 8)
		p[i] = (uint8_t)n;
}

void out_u8(struct out *o, uint8_t n) {
	uint8_t *p = room(o, 1);
	if (p != NULL)
		*p = n;
}

void out_u32(struct out *o, uint32_t n) {
	uint8_t *p = room(o, 4);
	if (p != NULL)
		put_u32(p, n);
}

void out_u64(struct out *o, uint64_t n) {
	uint8_t *p = room(o, 8);
	if (p != NULL) {
		put_u32(p, (uint32_t)(n >> 32));
		put_u32(p + 4, (uint32_t)n);
	}
}

void out_raw(struct out *o, const void *data, size_t len) {
	uint8_t *p = len > 0 ? room(o, len) : NULL;
	if (p != NULL)
		memcpy(p, data, len);
}

void out_bytes(struct out *o, const void *data, CK_ULONG len) {
	if (data == NULL) {
		out_u32(o, WIRE_NULL);
		return;
	}
	if (len > WIRE_MAX_BODY) {
		out_fail(o, CKR_DATA_LEN_RANGE);
		return;
	}
	out_u32(o, (uint32_t)len);
	out_raw(o, data, len);
}

void out_patch_u32(struct out *o, size_t at, uint32_t n) {
	if (o->rv == CKR_OK)
		put_u32(o->data + at, n);
}

uint32_t get_u32(const uint8_t *p) {
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

size_t in_left(const struct in *i) {
	return (size_t)(i->end - i->at);
}

void in_fail(struct in *i) {
	i->failed = true;
	i->at = i->end;
}

const uint8_t *in_raw(struct in *i, size_t len) {
	if (i->failed || len > in_left(i)) {
		in_fail(i);
		return NULL;
	}
	const uint8_t *p = i->at;
	i->at += len;
	return p;
}

uint8_t in_u8(struct in *i) {
	const uint8_t *p = in_raw(i, 1);
	return p != NULL ? *p : 0;
}

uint32_t in_u32(struct in *i) {
	const uint8_t *p = in_raw(i, 4);
	return p != NULL ? get_u32(p) : 0;
}

uint64_t in_u64(struct in *i) {
	const uint8_t *p = in_raw(i, 8);
	return p != NULL ? (uint64_t)get_u32(p) << 32 | get_u32(p + 4) : 0;
}
