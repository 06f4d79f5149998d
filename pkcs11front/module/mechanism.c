#include "mechanism.h"

#include <string.h>

#define MAX_IV 256u // octets: what PKCS #11 allows for GCM, the longest of all

// What a mechanism's parameter is.
enum parameter { UNKNOWN, NONE, PSS, OAEP, IV, CTR, GCM, ECDH1, MAC_LENGTH };

static enum parameter parameter_of(CK_MECHANISM_TYPE type) {
	switch (type) {
	case CKM_RSA_PKCS_PSS:
	case CKM_SHA1_RSA_PKCS_PSS:
	case CKM_SHA224_RSA_PKCS_PSS:
	case CKM_SHA256_RSA_PKCS_PSS:
	case CKM_SHA384_RSA_PKCS_PSS:
	case CKM_SHA512_RSA_PKCS_PSS:
	case CKM_SHA3_224_RSA_PKCS_PSS:
	case CKM_SHA3_256_RSA_PKCS_PSS:
	case CKM_SHA3_384_RSA_PKCS_PSS:
	case CKM_SHA3_512_RSA_PKCS_PSS:
		return PSS;
	case CKM_RSA_PKCS_OAEP:
		return OAEP;
	case CKM_AES_CBC:
	case CKM_AES_CBC_PAD:
	case CKM_AES_KEY_WRAP:
	case CKM_AES_KEY_WRAP_PAD:
	case CKM_AES_KEY_WRAP_KWP:
		return IV;
	case CKM_AES_CTR:
		return CTR;
	case CKM_AES_GCM:
		return GCM;
	case CKM_ECDH1_DERIVE:
	case CKM_ECDH1_COFACTOR_DERIVE:
		return ECDH1;
	case CKM_SHA_1_HMAC_GENERAL:
	case CKM_SHA224_HMAC_GENERAL:
	case CKM_SHA256_HMAC_GENERAL:
	case CKM_SHA384_HMAC_GENERAL:
	case CKM_SHA512_HMAC_GENERAL:
	case CKM_SHA3_224_HMAC_GENERAL:
	case CKM_SHA3_256_HMAC_GENERAL:
	case CKM_SHA3_384_HMAC_GENERAL:
	case CKM_SHA3_512_HMAC_GENERAL:
	case CKM_AES_CMAC_GENERAL:
		return MAC_LENGTH;
	case CKM_RSA_PKCS_KEY_PAIR_GEN:
	case CKM_RSA_PKCS:
	case CKM_RSA_X_509:
	case CKM_SHA1_RSA_PKCS:
	case CKM_SHA224_RSA_PKCS:
	case CKM_SHA256_RSA_PKCS:
	case CKM_SHA384_RSA_PKCS:
	case CKM_SHA512_RSA_PKCS:
	case CKM_SHA3_224_RSA_PKCS:
	case CKM_SHA3_256_RSA_PKCS:
	case CKM_SHA3_384_RSA_PKCS:
	case CKM_SHA3_512_RSA_PKCS:
	case CKM_EC_KEY_PAIR_GEN:
	case CKM_ECDSA:
	case CKM_ECDSA_SHA1:
	case CKM_ECDSA_SHA224:
	case CKM_ECDSA_SHA256:
	case CKM_ECDSA_SHA384:
	case CKM_ECDSA_SHA512:
	case CKM_ECDSA_SHA3_224:
	case CKM_ECDSA_SHA3_256:
	case CKM_ECDSA_SHA3_384:
	case CKM_ECDSA_SHA3_512:
	case CKM_AES_KEY_GEN:
	case CKM_GENERIC_SECRET_KEY_GEN:
	case CKM_AES_ECB:
	case CKM_AES_CMAC:
	case CKM_SHA_1:
	case CKM_SHA_1_HMAC:
	case CKM_SHA224:
	case CKM_SHA224_HMAC:
	case CKM_SHA256:
	case CKM_SHA256_HMAC:
	case CKM_SHA384:
	case CKM_SHA384_HMAC:
	case CKM_SHA512:
	case CKM_SHA512_HMAC:
	case CKM_SHA3_224:
	case CKM_SHA3_224_HMAC:
	case CKM_SHA3_256:
	case CKM_SHA3_256_HMAC:
	case CKM_SHA3_384:
	case CKM_SHA3_384_HMAC:
	case CKM_SHA3_512:
	case CKM_SHA3_512_HMAC:
		return NONE;
	default:
		return UNKNOWN;
	}
}

CK_ULONG mechanism_block(CK_MECHANISM_TYPE type) {
	switch (type) {
	case CKM_AES_ECB:
	case CKM_AES_CBC:
	case CKM_AES_CBC_PAD:
		return 16;
	default:
		return 1;
	}
}

// octets writes a byte string of a parameter, or of a shape nothing.
static void octets(struct out *o, const void *data, CK_ULONG len, enum extent extent) {
	if (data == NULL && len > 0)
		out_fail(o, CKR_MECHANISM_PARAM_INVALID);
	else if (extent == WHOLE)
		out_bytes(o, data, len);
}

// structure copies the caller's parameter, which need not be aligned, if it is of the right size.
static bool structure(struct out *o, const CK_MECHANISM *m, void *to, size_t size) {
	if (m->ulParameterLen != size) {
		out_fail(o, CKR_MECHANISM_PARAM_INVALID);
		return false;
	}
	memcpy(to, m->pParameter, size);
	return true;
}

static void pss(struct out *o, const CK_MECHANISM *m) {
	CK_RSA_PKCS_PSS_PARAMS p;
	if (!structure(o, m, &p, sizeof p))
		return;
	out_u64(o, p.hashAlg);
	out_u64(o, p.mgf);
	out_u64(o, p.sLen);
}

static void oaep(struct out *o, const CK_MECHANISM *m, enum extent extent) {
	CK_RSA_PKCS_OAEP_PARAMS p;
	if (!structure(o, m, &p, sizeof p))
		return;
	out_u64(o, p.hashAlg);
	out_u64(o, p.mgf);
	out_u64(o, p.source);
	octets(o, p.pSourceData, p.ulSourceDataLen, extent);
}

static void iv(struct out *o, const CK_MECHANISM *m, enum extent extent) {
	if (m->ulParameterLen > MAX_IV)
		out_fail(o, CKR_MECHANISM_PARAM_INVALID);
	else if (extent == WHOLE)
		out_raw(o, m->pParameter, m->ulParameterLen);
	else
		out_u32(o, (uint32_t)m->ulParameterLen);
}

static void ctr(struct out *o, const CK_MECHANISM *m, enum extent extent) {
	CK_AES_CTR_PARAMS p;
	if (!structure(o, m, &p, sizeof p))
		return;
	out_u64(o, p.ulCounterBits);
	if (extent == WHOLE)
		out_raw(o, p.cb, sizeof p.cb);
}

static void gcm(struct out *o, const CK_MECHANISM *m, enum extent extent) {
	CK_GCM_PARAMS p;
	CK_GCM_PARAMS_2_40 old;
	if (m->ulParameterLen == sizeof old && structure(o, m, &old, sizeof old))
		p = (CK_GCM_PARAMS){ .pIv = old.pIv, .ulIvLen = old.ulIvLen, .pAAD = old.pAAD, .ulAADLen = old.ulAADLen, .ulTagBits = old.ulTagBits };
	else if (!structure(o, m, &p, sizeof p))
		return;
	if (extent == SHAPE)
		out_u64(o, p.ulIvLen);
	octets(o, p.pIv, p.ulIvLen, extent);
	out_u64(o, p.ulIvBits);
	octets(o, p.pAAD, p.ulAADLen, extent);
	out_u64(o, p.ulTagBits);
}

static void ecdh1(struct out *o, const CK_MECHANISM *m, enum extent extent) {
	CK_ECDH1_DERIVE_PARAMS p;
	if (!structure(o, m, &p, sizeof p))
		return;
	out_u64(o, p.kdf);
	octets(o, p.pSharedData, p.ulSharedDataLen, extent);
	octets(o, p.pPublicData, p.ulPublicDataLen, extent);
}

static void mac_length(struct out *o, const CK_MECHANISM *m) {
	CK_MAC_GENERAL_PARAMS p;
	if (structure(o, m, &p, sizeof p))
		out_u64(o, p);
}

void encode_mechanism(struct out *o, const CK_MECHANISM *m, enum extent extent) {
	if (m == NULL) {
		out_u32(o, WIRE_NULL);
		return;
	}
	if (m->mechanism >= WIRE_NULL) {
		out_fail(o, CKR_MECHANISM_INVALID);
		return;
	}
	out_u32(o, (uint32_t)m->mechanism);
	if (m->pParameter == NULL && m->ulParameterLen > 0) {
		out_fail(o, CKR_MECHANISM_PARAM_INVALID);
		return;
	}
	if (m->pParameter == NULL || m->ulParameterLen == 0) {
		out_u32(o, WIRE_NULL);
		return;
	}
	size_t start = o->len;
	out_u32(o, 0); // the length, when it is known
	switch (parameter_of(m->mechanism)) {
	case PSS:
		pss(o, m);
		break;
	case OAEP:
		oaep(o, m, extent);
		break;
	case IV:
		iv(o, m, extent);
		break;
	case CTR:
		ctr(o, m, extent);
		break;
	case GCM:
		gcm(o, m, extent);
		break;
	case ECDH1:
		ecdh1(o, m, extent);
		break;
	case MAC_LENGTH:
		mac_length(o, m);
		break;
	case NONE:
		out_fail(o, CKR_MECHANISM_PARAM_INVALID);
		break;
	case UNKNOWN:
		out_fail(o, CKR_MECHANISM_INVALID);
		break;
	}
	out_patch_u32(o, start, (uint32_t)(o->len - start - 4));
}

// message copies the one structure that messages have today, for AES-GCM. Its octets are held to be sound before any is touched.
static bool message(const void *parameter, CK_ULONG len, CK_GCM_MESSAGE_PARAMS *p) {
	if (parameter == NULL || len != sizeof *p)
		return false;
	memcpy(p, parameter, sizeof *p);
	return p->ulIvLen <= MAX_IV && (p->pIv != NULL || p->ulIvLen == 0) && p->ulTagBits <= 128 && (p->pTag != NULL || p->ulTagBits == 0);
}

static CK_ULONG tag_len(const CK_GCM_MESSAGE_PARAMS *p) {
	return (p->ulTagBits + 7) / 8;
}

void encode_message_parameter(struct out *o, const void *parameter, CK_ULONG len, bool with_tag) {
	if (parameter == NULL && len == 0) {
		out_u32(o, WIRE_NULL);
		return;
	}
	CK_GCM_MESSAGE_PARAMS p;
	if (!message(parameter, len, &p)) {
		out_fail(o, CKR_MECHANISM_PARAM_INVALID);
		return;
	}
	size_t start = o->len;
	out_u32(o, 0); // the length, when it is known
	out_bytes(o, p.pIv, p.ulIvLen);
	out_u64(o, p.ulIvFixedBits);
	out_u64(o, p.ivGenerator);
	out_bytes(o, with_tag && p.pTag != NULL ? (const void *)p.pTag : "", with_tag ? tag_len(&p) : 0);
	out_u64(o, p.ulTagBits);
	out_patch_u32(o, start, (uint32_t)(o->len - start - 4));
}

// back reads a byte string into the caller's, whose length it must have; or nothing, which leaves it alone.
static void back(struct in *i, CK_BYTE *to, CK_ULONG len) {
	uint32_t n = in_u32(i);
	if (n == 0 || n == WIRE_NULL)
		return;
	const uint8_t *value = in_raw(i, n);
	if (value == NULL || n != len)
		in_fail(i);
	else
		memcpy(to, value, n);
}

void decode_message_parameter(struct in *i, void *parameter, CK_ULONG len) {
	if (in_u8(i) != 1) {
		in_fail(i);
		return;
	}
	uint32_t n = in_u32(i);
	if (n == WIRE_NULL)
		return;
	const uint8_t *all = in_raw(i, n);
	CK_GCM_MESSAGE_PARAMS p;
	if (all == NULL || !message(parameter, len, &p)) {
		in_fail(i);
		return;
	}
	struct in part = { .at = all, .end = all + n };
	back(&part, p.pIv, p.ulIvLen);
	in_u64(&part); // what the caller said of the IV's fixed bits and generator
	in_u64(&part);
	back(&part, p.pTag, tag_len(&p));
	if (in_u64(&part) != p.ulTagBits || part.failed || in_left(&part) != 0)
		in_fail(i);
}
