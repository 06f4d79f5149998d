#include "evp.h"

#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

// A library context of our own: openssl.cnf is not read into it, so no configured provider or engine can get between
// the daemon and its keys (one that is set up to use keyward's own PKCS#11 module would call back into the daemon), and
// a vendor's PKCS#11 library that uses OpenSSL in this process can't change ours. Set once by kw_init.
static OSSL_LIB_CTX *lib;

int kw_init(void) {
	lib = OSSL_LIB_CTX_new();
	int ok = lib != NULL && OSSL_PROVIDER_load(lib, "default") != NULL;
	ERR_clear_error();
	return ok;
}

unsigned long kw_version(void) { return OpenSSL_version_num(); }

// take_error gives the thread's oldest error, which is the cause, and empties the queue.
static unsigned long take_error(void) {
	unsigned long err = ERR_peek_error();
	ERR_clear_error();
	return err;
}

unsigned long kw_pending_error(void) { return ERR_peek_error(); }

void kw_error_text(unsigned long err, char *buf, size_t len) { ERR_error_string_n(err, buf, len); }

// curves by kind; size is that of a scalar and of a coordinate, in octets.
enum { CURVES = KW_P521 + 1, MAX_SCALAR = 66, MAX_POINT = 1 + 2 * MAX_SCALAR };

static const struct {
	const char *name;
	int nid, size;
} curves[CURVES] = {
	[KW_P256] = {SN_X9_62_prime256v1, NID_X9_62_prime256v1, 32},
	[KW_SECP256K1] = {SN_secp256k1, NID_secp256k1, 32},
	[KW_P384] = {SN_secp384r1, NID_secp384r1, 48},
	[KW_P521] = {SN_secp521r1, NID_secp521r1, 66},
};

static int is_curve(int kind) { return kind >= 0 && kind < CURVES && curves[kind].name != NULL; }

static size_t point_size(int kind) { return 1 + 2 * (size_t)curves[kind].size; }

// describe finds kind and size. Go refuses what is not ours.
static void describe(kw_key *k) {
	char group[32];
	k->bits = EVP_PKEY_get_bits(k->key);
	if (EVP_PKEY_is_a(k->key, "RSA")) {
		k->kind = KW_RSA;
	} else if (EVP_PKEY_is_a(k->key, "EC") && EVP_PKEY_get_group_name(k->key, group, sizeof group, NULL)) {
		for (int kind = 0; kind < CURVES; kind++) {
			if (curves[kind].name != NULL && strcmp(group, curves[kind].name) == 0) k->kind = kind;
		}
	}
}

static kw_key finish(EVP_PKEY *key, int ok) {
	kw_key k = {0};
	if (ok) {
		k.key = key;
		describe(&k);
	} else {
		EVP_PKEY_free(key);
		k.err = take_error();
	}
	ERR_clear_error(); // what OpenSSL tried in vain on the way to success
	return k;
}

kw_key kw_generate(int kind, int bits) {
	EVP_PKEY *key = NULL;
	if (kind == KW_RSA) key = EVP_PKEY_Q_keygen(lib, NULL, "RSA", (size_t)bits);
	else if (is_curve(kind)) key = EVP_PKEY_Q_keygen(lib, NULL, "EC", curves[kind].name);
	return finish(key, key != NULL);
}

enum { N, E, D, P, Q, DP, DQ, QI, RSA_PARTS };

static const char *const rsa_names[RSA_PARTS] = {
	OSSL_PKEY_PARAM_RSA_N, OSSL_PKEY_PARAM_RSA_E, OSSL_PKEY_PARAM_RSA_D, OSSL_PKEY_PARAM_RSA_FACTOR1,
	OSSL_PKEY_PARAM_RSA_FACTOR2, OSSL_PKEY_PARAM_RSA_EXPONENT1, OSSL_PKEY_PARAM_RSA_EXPONENT2,
	OSSL_PKEY_PARAM_RSA_COEFFICIENT1,
};

// rsa_public_ok: an odd modulus, and an odd exponent of at least 3 and at most 64 bits, which is OpenSSL's own limit for
// the larger keys.
static int rsa_public_ok(BIGNUM *v[]) {
	return BN_is_odd(v[N]) && BN_is_odd(v[E]) && !BN_is_one(v[E]) && BN_num_bits(v[E]) <= 64;
}

// rsa_parts_agree checks everything about a two-prime private key but that its primes are prime: n = pq, p and q of half
// the size, and all exponents and the coefficient as RFC 8017 section 3.2 has them. Testing primes takes 36 ms at 2048
// bits and 250 ms at 4096, too long for every load of a key we made ourselves; kw_check does it for imported ones.
static int rsa_parts_agree(BIGNUM *v[]) {
	BN_CTX *ctx = BN_CTX_secure_new_ex(lib);
	if (ctx == NULL) return 0;
	BN_CTX_start(ctx);
	BIGNUM *t = BN_CTX_get(ctx), *m = BN_CTX_get(ctx);
	int ok = m != NULL;
	ok = ok && BN_num_bits(v[P]) * 2 == BN_num_bits(v[N]) && BN_num_bits(v[Q]) * 2 == BN_num_bits(v[N]);
	ok = ok && BN_is_odd(v[P]) && BN_is_odd(v[Q]) && BN_cmp(v[P], v[Q]) != 0;
	ok = ok && BN_mul(t, v[P], v[Q], ctx) && BN_cmp(t, v[N]) == 0;
	ok = ok && BN_cmp(v[D], v[N]) < 0;
	for (int i = 0; ok && i < 2; i++) {
		BIGNUM *prime = v[i == 0 ? P : Q], *exponent = v[i == 0 ? DP : DQ];
		ok = BN_sub(m, prime, BN_value_one());
		ok = ok && BN_mod_mul(t, v[E], v[D], m, ctx) && BN_is_one(t);
		ok = ok && BN_mod(t, v[D], m, ctx) && BN_cmp(t, exponent) == 0;
	}
	ok = ok && BN_cmp(v[QI], v[P]) < 0 && BN_mod_mul(t, v[QI], v[Q], v[P], ctx) && BN_is_one(t);
	if (t != NULL) BN_clear(t);
	if (m != NULL) BN_clear(m);
	BN_CTX_end(ctx);
	BN_CTX_free(ctx);
	return ok;
}

// from_params makes a key of the parameters, which OpenSSL copies.
static EVP_PKEY *from_params(const char *type, int selection, OSSL_PARAM *params) {
	EVP_PKEY *key = NULL;
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(lib, type, NULL);
	int ok = ctx != NULL && EVP_PKEY_fromdata_init(ctx) > 0 && EVP_PKEY_fromdata(ctx, &key, selection, params) > 0;
	EVP_PKEY_CTX_free(ctx);
	if (ok) return key;
	EVP_PKEY_free(key);
	return NULL;
}

kw_key kw_rsa(unsigned char *buf, const size_t *sizes, int count) {
	BIGNUM *v[RSA_PARTS] = {0};
	OSSL_PARAM params[RSA_PARTS + 1];
	int ok = count == 2 || count == RSA_PARTS;
	for (int i = 0; ok && i < count; i++) {
		v[i] = BN_lebin2bn(buf, (int)sizes[i], NULL);
		ok = v[i] != NULL;
		params[i] = OSSL_PARAM_construct_BN(rsa_names[i], buf, sizes[i]);
		params[i + 1] = OSSL_PARAM_construct_end();
		buf += sizes[i];
	}
	ok = ok && rsa_public_ok(v) && (count == 2 || rsa_parts_agree(v));
	for (int i = 0; i < RSA_PARTS; i++) BN_clear_free(v[i]);
	EVP_PKEY *key = ok ? from_params("RSA", count == 2 ? EVP_PKEY_PUBLIC_KEY : EVP_PKEY_KEYPAIR, params) : NULL;
	return finish(key, key != NULL);
}

// point_of gives the point of the private number d, or 0 when d is not from 1 to n-1. It takes the same time for all d.
static int point_of(int kind, const unsigned char *d, unsigned char *out) {
	EC_GROUP *group = EC_GROUP_new_by_curve_name_ex(lib, NULL, curves[kind].nid);
	EC_POINT *point = group != NULL ? EC_POINT_new(group) : NULL;
	BIGNUM *scalar = BN_secure_new();
	BN_CTX *ctx = BN_CTX_secure_new_ex(lib);
	int ok = point != NULL && scalar != NULL && ctx != NULL && BN_lebin2bn(d, curves[kind].size, scalar) != NULL;
	if (ok) BN_set_flags(scalar, BN_FLG_CONSTTIME);
	ok = ok && !BN_is_zero(scalar) && BN_cmp(scalar, EC_GROUP_get0_order(group)) < 0;
	ok = ok && EC_POINT_mul(group, point, scalar, NULL, NULL, ctx);
	ok = ok && EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, out, point_size(kind), ctx) == point_size(kind);
	BN_CTX_free(ctx);
	BN_clear_free(scalar);
	EC_POINT_free(point);
	EC_GROUP_free(group);
	return ok;
}

kw_key kw_curve(int kind, unsigned char *d, unsigned char *point) {
	OSSL_PARAM params[4], *next = params;
	unsigned char made[MAX_POINT];
	int ok = is_curve(kind);
	if (ok && d != NULL) {
		ok = point_of(kind, d, made) && (point == NULL || CRYPTO_memcmp(made, point, point_size(kind)) == 0);
		point = made;
		*next++ = OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_PRIV_KEY, d, (size_t)curves[kind].size);
	}
	if (ok) {
		*next++ = OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)curves[kind].name, 0);
		*next++ = OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, point_size(kind));
	}
	*next = OSSL_PARAM_construct_end();
	// OpenSSL refuses a point that is not on the curve, and the cofactor is 1.
	EVP_PKEY *key = ok ? from_params("EC", d == NULL ? EVP_PKEY_PUBLIC_KEY : EVP_PKEY_KEYPAIR, params) : NULL;
	return finish(key, key != NULL);
}

kw_result kw_ecdh(EVP_PKEY *key, int kind, const unsigned char *point, unsigned char *out, size_t cap) {
	kw_result r = {.len = cap};
	kw_key peer = kw_curve(kind, NULL, (unsigned char *)point);
	EVP_PKEY_CTX *ctx = peer.key != NULL ? EVP_PKEY_CTX_new_from_pkey(lib, key, NULL) : NULL;
	r.ok = ctx != NULL && EVP_PKEY_derive_init(ctx) > 0 && EVP_PKEY_derive_set_peer(ctx, peer.key) > 0 &&
		EVP_PKEY_derive(ctx, out, &r.len) > 0;
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(peer.key);
	if (!r.ok) r.err = take_error();
	ERR_clear_error();
	return r;
}

kw_result kw_check(EVP_PKEY *key) {
	kw_result r = {0};
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(lib, key, NULL);
	r.ok = ctx != NULL && EVP_PKEY_check(ctx) == 1;
	EVP_PKEY_CTX_free(ctx);
	r.err = take_error();
	return r;
}

kw_der kw_marshal_pkcs8(EVP_PKEY *key) {
	kw_der d = {0};
	PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
	int n = info != NULL ? i2d_PKCS8_PRIV_KEY_INFO(info, &d.der) : -1;
	PKCS8_PRIV_KEY_INFO_free(info);
	if (n > 0) d.len = (size_t)n;
	else d.err = take_error();
	ERR_clear_error();
	return d;
}

kw_der kw_marshal_spki(EVP_PKEY *key) {
	kw_der d = {0};
	int n = i2d_PUBKEY(key, &d.der);
	if (n > 0) d.len = (size_t)n;
	else d.err = take_error();
	ERR_clear_error();
	return d;
}

void kw_der_free(unsigned char *der, size_t len) { OPENSSL_clear_free(der, len); }

void kw_key_free(EVP_PKEY *key) { EVP_PKEY_free(key); }

void kw_ctx_free(EVP_PKEY_CTX *ctx) { EVP_PKEY_CTX_free(ctx); }

static const EVP_MD *digest(int md) {
	switch (md) {
	case KW_SHA1: return EVP_sha1();
	case KW_SHA224: return EVP_sha224();
	case KW_SHA256: return EVP_sha256();
	case KW_SHA384: return EVP_sha384();
	case KW_SHA512: return EVP_sha512();
	case KW_SHA512_224: return EVP_sha512_224();
	case KW_SHA512_256: return EVP_sha512_256();
	case KW_SHA3_224: return EVP_sha3_224();
	case KW_SHA3_256: return EVP_sha3_256();
	case KW_SHA3_384: return EVP_sha3_384();
	case KW_SHA3_512: return EVP_sha3_512();
	}
	return NULL;
}

static int init_op(EVP_PKEY_CTX *c, int op) {
	switch (op) {
	case KW_SIGN: return EVP_PKEY_sign_init(c);
	case KW_VERIFY: return EVP_PKEY_verify_init(c);
	case KW_ENCRYPT: return EVP_PKEY_encrypt_init(c);
	case KW_DECRYPT: return EVP_PKEY_decrypt_init(c);
	}
	return 0;
}

// init_padding sets the padding and what belongs to it. PKCS #1 v1.5 and ECDSA get no digest: what is signed is the caller's, as it is.
// PKCS #1 v1.5 is never decrypted: whether the padding was good would show.
static int init_padding(EVP_PKEY_CTX *c, const kw_setup *s, const unsigned char *label, size_t label_len) {
	const EVP_MD *md = digest(s->md), *mgf = digest(s->mgf);
	switch (s->padding) {
	case KW_NO_PADDING: return 1;
	case KW_RAW: return EVP_PKEY_CTX_set_rsa_padding(c, RSA_NO_PADDING) > 0;
	case KW_PKCS1: return s->op != KW_DECRYPT && EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_PADDING) > 0;
	case KW_PSS:
		return md != NULL && mgf != NULL && s->salt >= 0 && EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_PSS_PADDING) > 0 &&
			EVP_PKEY_CTX_set_signature_md(c, md) > 0 && EVP_PKEY_CTX_set_rsa_mgf1_md(c, mgf) > 0 &&
			EVP_PKEY_CTX_set_rsa_pss_saltlen(c, s->salt) > 0;
	case KW_OAEP:
		if (md == NULL || mgf == NULL || EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_OAEP_PADDING) <= 0 ||
			EVP_PKEY_CTX_set_rsa_oaep_md(c, md) <= 0 || EVP_PKEY_CTX_set_rsa_mgf1_md(c, mgf) <= 0) return 0;
		if (label_len == 0) return 1;
		OSSL_PARAM params[] = {
			OSSL_PARAM_construct_octet_string(OSSL_ASYM_CIPHER_PARAM_OAEP_LABEL, (void *)label, label_len),
			OSSL_PARAM_construct_end(),
		};
		return EVP_PKEY_CTX_set_params(c, params) > 0;
	}
	return 0;
}

kw_ctx kw_ctx_new(EVP_PKEY *key, kw_setup setup, const unsigned char *label, size_t label_len) {
	kw_ctx c = {0};
	c.ctx = EVP_PKEY_CTX_new_from_pkey(lib, key, NULL);
	if (c.ctx == NULL || init_op(c.ctx, setup.op) <= 0 || !init_padding(c.ctx, &setup, label, label_len)) {
		EVP_PKEY_CTX_free(c.ctx);
		c.ctx = NULL;
		c.err = take_error();
	}
	ERR_clear_error();
	return c;
}

kw_result kw_run(EVP_PKEY_CTX *ctx, int op, unsigned char *out, size_t cap, const unsigned char *in, size_t len) {
	static const unsigned char nothing[1];
	kw_result r = {.len = cap};
	if (in == NULL) in = nothing;
	switch (op) {
	case KW_SIGN: r.ok = EVP_PKEY_sign(ctx, out, &r.len, in, len) == 1; break;
	case KW_ENCRYPT: r.ok = EVP_PKEY_encrypt(ctx, out, &r.len, in, len) == 1; break;
	case KW_DECRYPT: r.ok = EVP_PKEY_decrypt(ctx, out, &r.len, in, len) == 1; break;
	}
	if (r.ok && r.len > cap) r.ok = 0; // can't be; out would not hold it
	if (!r.ok) r.err = take_error();
	r.large = ERR_GET_LIB(r.err) == ERR_LIB_RSA && ERR_GET_REASON(r.err) == RSA_R_DATA_TOO_LARGE_FOR_MODULUS;
	return r;
}

kw_result kw_verify(EVP_PKEY_CTX *ctx, const unsigned char *sig, size_t len, const unsigned char *digest, size_t dlen) {
	kw_result r = {0};
	r.ok = EVP_PKEY_verify(ctx, sig, len, digest, dlen) == 1;
	if (!r.ok) r.err = take_error();
	return r;
}
