#include "calls.h"

#include <string.h>

#include "attribute.h"
#include "mechanism.h"

#define FACTS(number, name, request, answer, role, operations, repeat) [number] = { request, answer, role, operations, repeat },
const struct call_facts call_facts[CALL_END] = { CALLS(FACTS) };
#undef FACTS

CK_RV args_check(struct args args) {
	for (size_t k = 0; k < args.n; k++) {
		const struct arg *a = &args.at[k];
		bool good = true;
		switch (a->kind) {
		case ARG_IN:
		case ARG_TEMPLATE:
			good = a->in != NULL || a->number == 0;
			break;
		case ARG_TEXT:
		case ARG_MECHANISM:
			good = a->in != NULL;
			break;
		case ARG_OUT:
		case ARG_LIST:
			good = a->count != NULL;
			break;
		case ARG_WANTED:
			good = a->out != NULL && a->number > 0;
			break;
		case ARG_PARAMETER:
		case ARG_PARAMETER_TAG:
		case ARG_PARAMETER_BACK:
			good = a->in != NULL || a->number == 0;
			break;
		case ARG_RESULT:
		case ARG_RESULT_TEXT:
		case ARG_RESULT_VERSION:
			good = a->out != NULL;
			break;
		case ARG_ULONG:
		case ARG_BYTE:
			break;
		}
		if (!good)
			return CKR_ARGUMENTS_BAD;
	}
	return CKR_OK;
}

// encode_room writes an "fy" or "fu".
static void encode_room(struct out *o, const void *p, CK_ULONG room) {
	if (p == NULL)
		out_u32(o, 0);
	else if (room == 0)
		out_u32(o, WIRE_NULL);
	else
		out_u32(o, room < WIRE_NULL ? (uint32_t)room : WIRE_NULL - 1);
}

void encode_args(struct out *o, struct args args) {
	for (size_t k = 0; k < args.n && o->rv == CKR_OK; k++) {
		const struct arg *a = &args.at[k];
		switch (a->kind) {
		case ARG_ULONG:
			out_u64(o, a->number);
			break;
		case ARG_BYTE:
			out_u8(o, (uint8_t)a->number);
			break;
		case ARG_IN:
			out_u8(o, 1);
			out_bytes(o, a->in, a->number);
			break;
		case ARG_TEXT:
			out_bytes(o, a->in, a->number);
			break;
		case ARG_OUT:
		case ARG_LIST:
			encode_room(o, a->out, *a->count);
			break;
		case ARG_TEMPLATE:
			encode_template(o, a->in, a->number);
			break;
		case ARG_WANTED:
			encode_wanted(o, a->out, a->number);
			break;
		case ARG_MECHANISM:
			encode_mechanism(o, a->in, WHOLE);
			break;
		case ARG_PARAMETER:
		case ARG_PARAMETER_TAG:
		case ARG_PARAMETER_BACK:
			out_u8(o, 1);
			encode_message_parameter(o, a->in, a->number, a->kind == ARG_PARAMETER_TAG);
			break;
		case ARG_RESULT:
		case ARG_RESULT_TEXT:
		case ARG_RESULT_VERSION:
			break;
		}
	}
}

void encode_frame(struct out *o, uint32_t serial, enum call call, const uint64_t *session, const struct out *before, struct args args) {
	const char *signature = call_facts[call].request;
	size_t start = o->len;
	out_u32(o, serial);
	out_u32(o, 0); // no options
	out_u32(o, 0); // the length of the body, when it is known
	out_u32(o, call);
	out_bytes(o, signature, strlen(signature));
	if (session != NULL)
		out_u64(o, *session);
	if (before != NULL)
		out_raw(o, before->data, before->len);
	encode_args(o, args);
	size_t body = o->len - start - WIRE_HEADER;
	if (o->rv == CKR_OK && body > WIRE_MAX_BODY)
		out_fail(o, CKR_DATA_LEN_RANGE);
	out_patch_u32(o, start + 8, (uint32_t)body);
}

// decode_out reads an "ay" into the caller's buffer. A result that is empty may come whatever the room was.
static CK_RV decode_out(struct in *i, const struct arg *a, bool *fits) {
	if (a->out == NULL)
		*fits = false;
	uint8_t present = in_u8(i);
	uint32_t n = in_u32(i);
	if (n == WIRE_NULL && present == 1)
		n = 0;
	if (present == 0 && n != WIRE_NULL && !i->failed) {
		*a->count = n;
		*fits = false;
		return a->out == NULL ? CKR_OK : CKR_BUFFER_TOO_SMALL;
	}
	const uint8_t *value = in_raw(i, n);
	if (present != 1 || value == NULL || (n > 0 && (a->out == NULL || n > *a->count))) {
		in_fail(i);
		return CKR_OK;
	}
	if (n > 0)
		memcpy(a->out, value, n);
	*a->count = n;
	return CKR_OK;
}

// decode_list reads an "au" into the caller's array.
static CK_RV decode_list(struct in *i, const struct arg *a, bool *fits) {
	uint8_t present = in_u8(i);
	uint32_t n = in_u32(i);
	if (present == 0 && !i->failed) {
		*a->count = n;
		*fits = false;
		return a->out == NULL ? CKR_OK : CKR_BUFFER_TOO_SMALL;
	}
	if (present != 1 || n > in_left(i) / 8 || (n > 0 && (a->out == NULL || n > *a->count))) {
		in_fail(i);
		return CKR_OK;
	}
	for (uint32_t k = 0; k < n; k++)
		((CK_ULONG *)a->out)[k] = in_u64(i);
	*a->count = n;
	return CKR_OK;
}

static CK_RV decode_wanted(struct in *i, const struct arg *a) {
	decode_attributes(i, a->out, a->number);
	CK_RV rv = in_u64(i);
	switch (rv) {
	case CKR_OK:
	case CKR_ATTRIBUTE_SENSITIVE:
	case CKR_ATTRIBUTE_TYPE_INVALID:
	case CKR_BUFFER_TOO_SMALL:
		break;
	default:
		in_fail(i);
	}
	return rv;
}

static void decode_text(struct in *i, const struct arg *a) {
	const uint8_t *text = in_u32(i) == a->number ? in_raw(i, a->number) : NULL;
	if (text == NULL)
		in_fail(i);
	else
		memcpy(a->out, text, a->number);
}

static void decode_version(struct in *i, const struct arg *a) {
	CK_VERSION *v = a->out;
	v->major = in_u8(i);
	v->minor = in_u8(i);
}

// decode_result reads what the answer has for an argument, and gives what the function returns if that is not CKR_OK.
static CK_RV decode_result(struct in *i, const struct arg *a, bool *fits) {
	switch (a->kind) {
	case ARG_OUT:
		return decode_out(i, a, fits);
	case ARG_LIST:
		return decode_list(i, a, fits);
	case ARG_WANTED:
		return decode_wanted(i, a);
	case ARG_PARAMETER_BACK:
		decode_message_parameter(i, a->out, a->number);
		break;
	case ARG_RESULT:
		*(CK_ULONG *)a->out = in_u64(i);
		break;
	case ARG_RESULT_TEXT:
		decode_text(i, a);
		break;
	case ARG_RESULT_VERSION:
		decode_version(i, a);
		break;
	default: // only in the request
		break;
	}
	return CKR_OK;
}

enum answer decode_answer(struct in body, enum call call, struct args args, CK_RV *rv, bool *fits) {
	*fits = true;
	uint32_t number = in_u32(&body);
	uint32_t len = in_u32(&body);
	const uint8_t *signature = in_raw(&body, len);
	if (signature == NULL)
		return ANSWER_MALFORMED;
	if (number == CALL_ERROR) {
		*rv = in_u64(&body);
		bool good = len == 1 && *signature == 'u' && !body.failed && in_left(&body) == 0 && *rv != CKR_OK;
		return good ? ANSWER_OK : ANSWER_MALFORMED;
	}
	const char *expected = call_facts[call].answer;
	if (number != (uint32_t)call || len != strlen(expected) || memcmp(signature, expected, len) != 0)
		return ANSWER_MALFORMED;
	*rv = CKR_OK;
	for (size_t k = 0; k < args.n && !body.failed; k++) {
		CK_RV result = decode_result(&body, &args.at[k], fits);
		if (result != CKR_OK)
			*rv = result;
	}
	return body.failed || in_left(&body) != 0 ? ANSWER_MALFORMED : ANSWER_OK;
}
