#include "attribute.h"

#include <string.h>

enum kind attribute_kind(CK_ATTRIBUTE_TYPE type) {
	switch (type) {
	case CKA_TOKEN:
	case CKA_PRIVATE:
	case CKA_TRUSTED:
	case CKA_SENSITIVE:
	case CKA_ENCRYPT:
	case CKA_DECRYPT:
	case CKA_WRAP:
	case CKA_UNWRAP:
	case CKA_SIGN:
	case CKA_SIGN_RECOVER:
	case CKA_VERIFY:
	case CKA_VERIFY_RECOVER:
	case CKA_DERIVE:
	case CKA_EXTRACTABLE:
	case CKA_LOCAL:
	case CKA_NEVER_EXTRACTABLE:
	case CKA_ALWAYS_SENSITIVE:
	case CKA_MODIFIABLE:
	case CKA_COPYABLE:
	case CKA_DESTROYABLE:
	case CKA_SECONDARY_AUTH:
	case CKA_ALWAYS_AUTHENTICATE:
	case CKA_WRAP_WITH_TRUSTED:
	case CKA_OTP_USER_FRIENDLY_MODE:
	case CKA_RESET_ON_INIT:
	case CKA_HAS_RESET:
	case CKA_COLOR:
		return KIND_BOOL;
	case CKA_CLASS:
	case CKA_CERTIFICATE_TYPE:
	case CKA_CERTIFICATE_CATEGORY:
	case CKA_JAVA_MIDP_SECURITY_DOMAIN:
	case CKA_NAME_HASH_ALGORITHM:
	case CKA_KEY_TYPE:
	case CKA_MODULUS_BITS:
	case CKA_PRIME_BITS:
	case CKA_SUBPRIME_BITS:
	case CKA_VALUE_BITS:
	case CKA_VALUE_LEN:
	case CKA_KEY_GEN_MECHANISM:
	case CKA_AUTH_PIN_FLAGS:
	case CKA_OTP_FORMAT:
	case CKA_OTP_LENGTH:
	case CKA_OTP_TIME_INTERVAL:
	case CKA_OTP_CHALLENGE_REQUIREMENT:
	case CKA_OTP_TIME_REQUIREMENT:
	case CKA_OTP_COUNTER_REQUIREMENT:
	case CKA_OTP_PIN_REQUIREMENT:
	case CKA_HW_FEATURE_TYPE:
	case CKA_PIXEL_X:
	case CKA_PIXEL_Y:
	case CKA_RESOLUTION:
	case CKA_CHAR_ROWS:
	case CKA_CHAR_COLUMNS:
	case CKA_BITS_PER_PIXEL:
	case CKA_MECHANISM_TYPE:
	case CKA_PROFILE_ID:
		return KIND_ULONG;
	case CKA_START_DATE:
	case CKA_END_DATE:
		return KIND_DATE;
	case CKA_ALLOWED_MECHANISMS:
		return KIND_MECHANISMS;
	case CKA_WRAP_TEMPLATE:
	case CKA_UNWRAP_TEMPLATE:
	case CKA_DERIVE_TEMPLATE:
		return KIND_TEMPLATE;
	default:
		return KIND_BYTES;
	}
}

static bool countable(struct out *o, const CK_ATTRIBUTE *template, CK_ULONG count, unsigned depth) {
	if (template == NULL && count > 0)
		out_fail(o, CKR_ARGUMENTS_BAD);
	if (count > MAX_ATTRIBUTES || depth > MAX_DEPTH)
		out_fail(o, CKR_ARGUMENTS_BAD);
	return o->rv == CKR_OK;
}

// type_of writes the type, which has 32 bits on the wire.
static void type_of(struct out *o, const CK_ATTRIBUTE *a) {
	if (a->type > UINT32_MAX)
		out_fail(o, CKR_ATTRIBUTE_TYPE_INVALID);
	out_u32(o, (uint32_t)a->type);
}

static void encode_values(struct out *o, const CK_ATTRIBUTE *template, CK_ULONG count, unsigned depth);

// encode_value writes a value, whose length has been held against what its kind must have. Values need not be aligned.
static void encode_value(struct out *o, const CK_ATTRIBUTE *a, enum kind kind, unsigned depth) {
	CK_ULONG n;
	switch (kind) {
	case KIND_BOOL:
		out_raw(o, a->pValue, 1);
		break;
	case KIND_ULONG:
		memcpy(&n, a->pValue, sizeof n);
		out_u64(o, n);
		break;
	case KIND_DATE:
	case KIND_BYTES:
		out_bytes(o, a->ulValueLen == 0 ? "" : a->pValue, a->ulValueLen);
		break;
	case KIND_MECHANISMS:
		out_u32(o, (uint32_t)(a->ulValueLen / sizeof n));
		for (CK_ULONG at = 0; at < a->ulValueLen && o->rv == CKR_OK; at += sizeof n) {
			memcpy(&n, (const CK_BYTE *)a->pValue + at, sizeof n);
			out_u64(o, n);
		}
		break;
	case KIND_TEMPLATE:
		encode_values(o, a->pValue, a->ulValueLen / sizeof(CK_ATTRIBUTE), depth + 1);
		break;
	}
}

static bool fits_kind(const CK_ATTRIBUTE *a, enum kind kind) {
	if (a->ulValueLen > WIRE_MAX_BODY)
		return false;
	switch (kind) {
	case KIND_BOOL:
		return a->ulValueLen == 1;
	case KIND_ULONG:
		return a->ulValueLen == sizeof(CK_ULONG);
	case KIND_DATE:
		return a->ulValueLen == 0 || a->ulValueLen == 8;
	case KIND_MECHANISMS:
		return a->ulValueLen % sizeof(CK_ULONG) == 0;
	case KIND_TEMPLATE:
		return a->ulValueLen % sizeof(CK_ATTRIBUTE) == 0;
	case KIND_BYTES:
		break;
	}
	return true;
}

static void encode_values(struct out *o, const CK_ATTRIBUTE *template, CK_ULONG count, unsigned depth) {
	if (!countable(o, template, count, depth))
		return;
	out_u32(o, (uint32_t)count);
	for (CK_ULONG k = 0; k < count && o->rv == CKR_OK; k++) {
		const CK_ATTRIBUTE *a = &template[k];
		enum kind kind = attribute_kind(a->type);
		if (a->pValue == NULL && a->ulValueLen > 0)
			out_fail(o, CKR_ARGUMENTS_BAD);
		if (!fits_kind(a, kind))
			out_fail(o, CKR_ATTRIBUTE_VALUE_INVALID);
		if (o->rv != CKR_OK)
			return;
		type_of(o, a);
		out_u8(o, 1);
		out_u8(o, (uint8_t)kind);
		out_u32(o, (uint32_t)a->ulValueLen);
		encode_value(o, a, kind, depth);
	}
}

void encode_template(struct out *o, const CK_ATTRIBUTE *template, CK_ULONG count) {
	encode_values(o, template, count, 1);
}

static void encode_rooms(struct out *o, const CK_ATTRIBUTE *template, CK_ULONG count, unsigned depth) {
	if (!countable(o, template, count, depth))
		return;
	out_u32(o, (uint32_t)count);
	for (CK_ULONG k = 0; k < count && o->rv == CKR_OK; k++) {
		const CK_ATTRIBUTE *a = &template[k];
		type_of(o, a);
		if (a->pValue == NULL) {
			out_u32(o, WIRE_NULL);
			continue;
		}
		out_u32(o, a->ulValueLen < WIRE_NULL ? (uint32_t)a->ulValueLen : WIRE_NULL - 1);
		if (attribute_kind(a->type) == KIND_TEMPLATE)
			encode_rooms(o, a->pValue, a->ulValueLen / sizeof(CK_ATTRIBUTE), depth + 1);
	}
}

void encode_wanted(struct out *o, const CK_ATTRIBUTE *template, CK_ULONG count) {
	encode_rooms(o, template, count, 1);
}

static void decode_values(struct in *i, CK_ATTRIBUTE *template, CK_ULONG count, unsigned depth);

// put gives a value to the caller, or says that there was no room for it.
static void put(CK_ATTRIBUTE *a, const void *value, CK_ULONG len) {
	if (a->pValue == NULL) {
		a->ulValueLen = len;
	} else if (len > a->ulValueLen) {
		a->ulValueLen = CK_UNAVAILABLE_INFORMATION;
	} else {
		if (len > 0)
			memcpy(a->pValue, value, len);
		a->ulValueLen = len;
	}
}

static void decode_mechanisms(struct in *i, CK_ATTRIBUTE *a, uint32_t len) {
	uint32_t count = in_u32(i);
	if (count > in_left(i) / 8 || (CK_ULONG)count * sizeof(CK_ULONG) != len) {
		in_fail(i);
		return;
	}
	bool fits = a->pValue != NULL && len <= a->ulValueLen;
	for (uint32_t k = 0; k < count; k++) {
		CK_ULONG n = in_u64(i);
		if (fits)
			memcpy((CK_BYTE *)a->pValue + k * sizeof n, &n, sizeof n);
	}
	a->ulValueLen = a->pValue == NULL || fits ? len : CK_UNAVAILABLE_INFORMATION;
}

static void decode_nested(struct in *i, CK_ATTRIBUTE *a, uint32_t len, unsigned depth) {
	// Elements can be read only into as many as the caller has; the count comes first and says whether they are the same.
	struct in ahead = *i;
	uint32_t count = in_u32(&ahead);
	if (ahead.failed || count > MAX_ATTRIBUTES || (CK_ULONG)count * sizeof(CK_ATTRIBUTE) != len) {
		in_fail(i);
		return;
	}
	if (a->pValue != NULL && len <= a->ulValueLen) {
		decode_values(i, a->pValue, count, depth + 1);
		a->ulValueLen = len;
		return;
	}
	CK_ATTRIBUTE dropped[MAX_ATTRIBUTES];
	memset(dropped, 0, sizeof dropped);
	decode_values(i, dropped, count, depth + 1);
	a->ulValueLen = a->pValue == NULL ? len : CK_UNAVAILABLE_INFORMATION;
}

static void decode_octets(struct in *i, CK_ATTRIBUTE *a, uint32_t len) {
	uint32_t n = in_u32(i);
	if (n == WIRE_NULL && a->pValue == NULL) { // the length alone, as was asked for
		a->ulValueLen = len;
		return;
	}
	const uint8_t *value = in_raw(i, n);
	if (value == NULL || n != len)
		in_fail(i);
	else
		put(a, value, n);
}

static void decode_value(struct in *i, CK_ATTRIBUTE *a, unsigned depth) {
	uint8_t kind = in_u8(i);
	uint32_t len = in_u32(i);
	CK_ULONG n;
	uint8_t b;
	switch (kind) {
	case KIND_BOOL:
		b = in_u8(i);
		if (len != 1)
			in_fail(i);
		else
			put(a, &b, len);
		break;
	case KIND_ULONG:
		n = in_u64(i);
		if (len != sizeof n)
			in_fail(i);
		else
			put(a, &n, len);
		break;
	case KIND_BYTES:
	case KIND_DATE:
		decode_octets(i, a, len);
		break;
	case KIND_MECHANISMS:
		decode_mechanisms(i, a, len);
		break;
	case KIND_TEMPLATE:
		if (depth < MAX_DEPTH)
			decode_nested(i, a, len, depth);
		else
			in_fail(i);
		break;
	default:
		in_fail(i);
	}
}

static void decode_values(struct in *i, CK_ATTRIBUTE *template, CK_ULONG count, unsigned depth) {
	if (in_u32(i) != count)
		in_fail(i);
	for (CK_ULONG k = 0; k < count && !i->failed; k++) {
		CK_ATTRIBUTE *a = &template[k];
		uint32_t type = in_u32(i);
		// The elements of an array that was asked for tell the caller their types (PKCS #11 2.40, CKF_ARRAY_ATTRIBUTE).
		if (depth > 1)
			a->type = type;
		else if (type != a->type)
			in_fail(i);
		switch (in_u8(i)) {
		case 0:
			a->ulValueLen = CK_UNAVAILABLE_INFORMATION;
			break;
		case 1:
			decode_value(i, a, depth);
			break;
		default:
			in_fail(i);
		}
	}
}

void decode_attributes(struct in *i, CK_ATTRIBUTE *template, CK_ULONG count) {
	decode_values(i, template, count, 1);
}
