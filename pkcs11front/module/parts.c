#include "parts.h"

#include "exchange.h"

static const unsigned most_tries = 3; // of an operation that the daemon lost midway
static const CK_ULONG most_added = 32; // octets that an encryption adds at most: a block of padding, a tag

// step_in makes a call with data and, if out is not NULL, with room that out_len tells of.
static CK_RV step(struct session *s, enum call call, CK_BYTE *data, CK_ULONG len, CK_BYTE *out, CK_ULONG *out_len) {
	return out == NULL ? session_call(s, call, ARGS(arg_in(data, len))) : session_call(s, call, ARGS(arg_in(data, len), arg_out(out, out_len)));
}

// steps sends data in parts. done is how much came out.
static CK_RV steps(struct session *s, enum call call, CK_BYTE *data, CK_ULONG len, CK_BYTE *out, CK_ULONG room, CK_ULONG *done) {
	*done = 0;
	CK_RV rv = CKR_OK;
	while (len > 0 && rv == CKR_OK) {
		CK_ULONG part = len < PART_SIZE ? len : PART_SIZE, n = room - *done;
		rv = step(s, call, data, part, out == NULL ? NULL : out + *done, &n);
		if (rv == CKR_OK && out != NULL)
			*done += n;
		data += part;
		len -= part;
	}
	return rv;
}

static void calls_of(enum call call, enum call *part, enum call *last, bool *gives) {
	*gives = call == CALL_Encrypt || call == CALL_Decrypt;
	switch (call) {
	case CALL_Encrypt:
		*part = CALL_EncryptUpdate, *last = CALL_EncryptFinal;
		break;
	case CALL_Decrypt:
		*part = CALL_DecryptUpdate, *last = CALL_DecryptFinal;
		break;
	case CALL_Digest:
		*part = CALL_DigestUpdate, *last = CALL_DigestFinal;
		break;
	case CALL_Sign:
		*part = CALL_SignUpdate, *last = CALL_SignFinal;
		break;
	default:
		*part = CALL_VerifyUpdate, *last = CALL_VerifyFinal;
		break;
	}
}

// again makes an operation as if only its Init had been made.
static void again(struct operation *op) {
	op->suspect = op->suspect || op->live;
	op->active = true;
	op->live = op->begun = op->lost = false;
}

// in_parts does all of an operation with updates and a final.
static CK_RV in_parts(struct session *s, enum call call, CK_BYTE *data, CK_ULONG len, struct arg result, CK_ULONG room) {
	enum call part, last;
	bool gives;
	calls_of(call, &part, &last, &gives);
	CK_ULONG done;
	CK_RV rv = steps(s, part, data, len, gives ? result.out : NULL, room, &done);
	if (rv != CKR_OK)
		return rv;
	if (!gives)
		return session_call(s, last, ARGS(result));
	CK_ULONG n = room - done;
	CK_BYTE none;
	rv = session_call(s, last, ARGS(arg_out(done < room ? (CK_BYTE *)result.out + done : &none, &n)));
	if (rv == CKR_OK)
		*result.count = done + n;
	return rv;
}

CK_RV whole(struct session *s, enum call call, CK_BYTE *data, CK_ULONG len, struct arg result) {
	struct operation *op = session_operation(s, call_facts[call].operations);
	if (len <= PART_SIZE || data == NULL || !op->active || args_check(ARGS(result)) != CKR_OK)
		return session_call(s, call, ARGS(arg_in(data, len), result));
	bool gives = call == CALL_Encrypt || call == CALL_Decrypt;
	// What comes out is not much more than what goes in. The standard lets the answer to a question for the size be a little too large (5.2).
	CK_ULONG most = len < CK_UNAVAILABLE_INFORMATION - most_added ? len + most_added : len;
	if (gives && result.out == NULL) {
		*result.count = op->size > 0 ? op->size : most;
		return CKR_OK;
	}
	if (!gives && result.kind == ARG_OUT && op->size > 0 && (result.out == NULL || *result.count < op->size)) {
		CK_RV small = result.out == NULL ? CKR_OK : CKR_BUFFER_TOO_SMALL;
		*result.count = op->size;
		return small;
	}
	const CK_ULONG room = gives ? *result.count : 0;
	for (unsigned tries = 1;; tries++) {
		// The daemon may have been asked to begin already, and an operation that can't be done again must not be ended by its parts.
		CK_RV rv = in_parts(s, call, data, len, result, room);
		if (rv == CKR_DEVICE_ERROR && op->lost && tries < most_tries) {
			again(op);
			continue;
		}
		if (rv == CKR_BUFFER_TOO_SMALL || (rv == CKR_OK && result.kind == ARG_OUT && result.out == NULL)) {
			again(op);
			if (gives)
				*result.count = most;
		}
		return rv;
	}
}

CK_RV update(struct session *s, enum call call, CK_BYTE *data, CK_ULONG len, const struct arg *result) {
	struct operation *op = session_operation(s, call_facts[call].operations);
	CK_RV rv;
	if (len <= PART_SIZE || data == NULL || !op->active || (result != NULL && args_check(ARGS(*result)) != CKR_OK)) {
		rv = result == NULL ? session_call(s, call, ARGS(arg_in(data, len))) : session_call(s, call, ARGS(arg_in(data, len), *result));
		if (rv == CKR_OK && (result == NULL || result->out != NULL))
			op->held = (op->held + len % op->block) % op->block;
		return rv;
	}
	CK_ULONG done;
	if (result == NULL)
		return steps(s, call, data, len, NULL, 0, &done);
	// What was done can't be undone: so there must be room for all before the first part goes.
	CK_ULONG most = len - len % op->block + (op->held + len % op->block) / op->block * op->block;
	if (result->out == NULL || *result->count < most) {
		*result->count = most;
		return result->out == NULL ? CKR_OK : CKR_BUFFER_TOO_SMALL;
	}
	rv = steps(s, call, data, len, result->out, *result->count, &done);
	if (rv == CKR_OK) {
		op->held = (op->held + len % op->block) % op->block;
		*result->count = done;
	}
	return rv;
}
