#include "evp.h"

#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
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

void kw_error_text(unsigned long err, char *buf, size_t len) { ERR_error_string_n(err, buf, len); }

// describe finds kind and size, and refuses what is not ours: RSA-PSS keys, other curves, other sizes are left to Go.
static void describe(kw_key *k) {
	char group[32];
	k->bits = EVP_PKEY_get_bits(k->key);
	if (EVP_PKEY_is_a(k->key, "RSA")) {
		k->kind = KW_RSA;
	} else if (EVP_PKEY_is_a(k->key, "EC") && EVP_PKEY_get_group_name(k->key, group, sizeof group, NULL)) {
		if (strcmp(group, SN_X9_62_prime256v1) == 0) k->kind = KW_P256;
		if (strcmp(group, SN_secp256k1) == 0) k->kind = KW_SECP256K1;
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
	// Decoders leave errors of the forms they tried behind even when one of them fitted.
	ERR_clear_error();
	return k;
}

kw_key kw_generate(int kind, int bits) {
	EVP_PKEY *key = NULL;
	switch (kind) {
	case KW_RSA: key = EVP_PKEY_Q_keygen(lib, NULL, "RSA", (size_t)bits); break;
	case KW_P256: key = EVP_PKEY_Q_keygen(lib, NULL, "EC", "P-256"); break;
	case KW_SECP256K1: key = EVP_PKEY_Q_keygen(lib, NULL, "EC", "secp256k1"); break;
	}
	return finish(key, key != NULL);
}

// rsa_public_ok: an odd modulus, and an odd exponent of at least 3 and at most 64 bits, which is OpenSSL's own limit for
// the larger keys.
static int rsa_public_ok(EVP_PKEY *key) {
	BIGNUM *n = NULL, *e = NULL;
	int ok = EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_N, &n) && EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &e);
	ok = ok && BN_is_odd(n) && !BN_is_negative(n);
	ok = ok && BN_is_odd(e) && !BN_is_one(e) && !BN_is_negative(e) && BN_num_bits(e) <= 64;
	BN_free(n);
	BN_free(e);
	return ok;
}

// rsa_parts_agree checks everything about a two-prime private key but that its primes are prime: n = pq, p and q of half
// the size, and all exponents and the coefficient as RFC 8017 section 3.2 has them. Testing primes takes 36 ms at 2048
// bits and 250 ms at 4096, too long for every load of a key we made ourselves; kw_check does it for imported ones.
static int rsa_parts_agree(EVP_PKEY *key) {
	enum { N, E, D, P, Q, DP, DQ, QI, COUNT };
	static const char *const names[COUNT] = {
		OSSL_PKEY_PARAM_RSA_N, OSSL_PKEY_PARAM_RSA_E, OSSL_PKEY_PARAM_RSA_D, OSSL_PKEY_PARAM_RSA_FACTOR1,
		OSSL_PKEY_PARAM_RSA_FACTOR2, OSSL_PKEY_PARAM_RSA_EXPONENT1, OSSL_PKEY_PARAM_RSA_EXPONENT2,
		OSSL_PKEY_PARAM_RSA_COEFFICIENT1,
	};
	BIGNUM *v[COUNT] = {0}, *extra = NULL;
	BN_CTX *ctx = BN_CTX_secure_new_ex(lib);
	int ok = ctx != NULL;
	for (int i = 0; ok && i < COUNT; i++) ok = EVP_PKEY_get_bn_param(key, names[i], &v[i]);
	if (ok && EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_FACTOR3, &extra)) ok = 0;
	if (ctx != NULL) BN_CTX_start(ctx);
	BIGNUM *t = ctx ? BN_CTX_get(ctx) : NULL, *m = ctx ? BN_CTX_get(ctx) : NULL;
	ok = ok && m != NULL;
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
	if (ctx != NULL) {
		if (t != NULL) BN_clear(t);
		if (m != NULL) BN_clear(m);
		BN_CTX_end(ctx);
	}
	BN_CTX_free(ctx);
	for (int i = 0; i < COUNT; i++) BN_clear_free(v[i]);
	BN_clear_free(extra);
	return ok;
}

kw_result kw_check(EVP_PKEY *key) {
	kw_result r = {0};
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(lib, key, NULL);
	r.ok = ctx != NULL && EVP_PKEY_check(ctx) == 1;
	EVP_PKEY_CTX_free(ctx);
	r.err = take_error();
	return r;
}

kw_key kw_parse_pkcs8(const unsigned char *der, size_t len) {
	const unsigned char *p = der;
	EVP_PKEY *key = NULL;
	PKCS8_PRIV_KEY_INFO *info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &p, (long)len);
	if (info != NULL && p == der + len) key = EVP_PKCS82PKEY_ex(info, lib, NULL);
	PKCS8_PRIV_KEY_INFO_free(info); // wipes
	int ok = key != NULL;
	if (ok && EVP_PKEY_is_a(key, "RSA")) {
		ok = rsa_public_ok(key) && rsa_parts_agree(key);
	} else if (ok) {
		ok = kw_check(key).ok; // 70 us on P-256: the scalar in range, the point on the curve, the one the other's
	}
	return finish(key, ok);
}

kw_key kw_parse_spki(const unsigned char *der, size_t len) {
	const unsigned char *p = der;
	EVP_PKEY *key = d2i_PUBKEY_ex(NULL, &p, (long)len, lib, NULL);
	int ok = key != NULL && p == der + len;
	if (ok && EVP_PKEY_is_a(key, "RSA")) {
		ok = rsa_public_ok(key);
	} else if (ok) {
		EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(lib, key, NULL);
		ok = ctx != NULL && EVP_PKEY_public_check_quick(ctx) == 1; // on the curve; the cofactor is 1
		EVP_PKEY_CTX_free(ctx);
	}
	return finish(key, ok);
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

// init_signature sets what signing and verifying have in common.
static int init_signature(EVP_PKEY_CTX *ctx, int padding) {
	if (EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()) <= 0) return 0;
	if (padding == 0) return 1;
	if (EVP_PKEY_CTX_set_rsa_padding(ctx, padding) <= 0) return 0;
	if (padding != RSA_PKCS1_PSS_PADDING) return 1;
	return EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, EVP_sha256()) > 0 && EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, 32) > 0;
}

static int init_oaep(EVP_PKEY_CTX *ctx, const EVP_MD *md) {
	return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) > 0 && EVP_PKEY_CTX_set_rsa_oaep_md(ctx, md) > 0 &&
		EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, md) > 0;
}

static int init_ctx(EVP_PKEY_CTX *c, int op) {
	switch (op) {
	case KW_SIGN_PKCS1: return EVP_PKEY_sign_init(c) > 0 && init_signature(c, RSA_PKCS1_PADDING);
	case KW_SIGN_PSS: return EVP_PKEY_sign_init(c) > 0 && init_signature(c, RSA_PKCS1_PSS_PADDING);
	case KW_SIGN_ECDSA: return EVP_PKEY_sign_init(c) > 0 && init_signature(c, 0);
	case KW_VERIFY_PKCS1: return EVP_PKEY_verify_init(c) > 0 && init_signature(c, RSA_PKCS1_PADDING);
	case KW_VERIFY_PSS: return EVP_PKEY_verify_init(c) > 0 && init_signature(c, RSA_PKCS1_PSS_PADDING);
	case KW_VERIFY_ECDSA: return EVP_PKEY_verify_init(c) > 0 && init_signature(c, 0);
	case KW_ENCRYPT_OAEP_SHA1: return EVP_PKEY_encrypt_init(c) > 0 && init_oaep(c, EVP_sha1());
	case KW_ENCRYPT_OAEP_SHA256: return EVP_PKEY_encrypt_init(c) > 0 && init_oaep(c, EVP_sha256());
	case KW_DECRYPT_OAEP_SHA1: return EVP_PKEY_decrypt_init(c) > 0 && init_oaep(c, EVP_sha1());
	case KW_DECRYPT_OAEP_SHA256: return EVP_PKEY_decrypt_init(c) > 0 && init_oaep(c, EVP_sha256());
	}
	return 0;
}

kw_ctx kw_ctx_new(EVP_PKEY *key, int op) {
	kw_ctx c = {0};
	c.ctx = EVP_PKEY_CTX_new_from_pkey(lib, key, NULL);
	if (c.ctx == NULL || !init_ctx(c.ctx, op)) {
		EVP_PKEY_CTX_free(c.ctx);
		c.ctx = NULL;
		c.err = take_error();
	}
	return c;
}

kw_result kw_run(EVP_PKEY_CTX *ctx, int op, unsigned char *out, size_t cap, const unsigned char *in, size_t len) {
	kw_result r = {.len = cap};
	switch (op) {
	case KW_SIGN_PKCS1:
	case KW_SIGN_PSS:
	case KW_SIGN_ECDSA: r.ok = EVP_PKEY_sign(ctx, out, &r.len, in, len) == 1; break;
	case KW_ENCRYPT_OAEP_SHA1:
	case KW_ENCRYPT_OAEP_SHA256: r.ok = EVP_PKEY_encrypt(ctx, out, &r.len, in, len) == 1; break;
	case KW_DECRYPT_OAEP_SHA1:
	case KW_DECRYPT_OAEP_SHA256: r.ok = EVP_PKEY_decrypt(ctx, out, &r.len, in, len) == 1; break;
	}
	if (r.ok && r.len > cap) r.ok = 0; // can't be; out would not hold it
	if (!r.ok) r.err = take_error();
	return r;
}

kw_result kw_verify(EVP_PKEY_CTX *ctx, const unsigned char *sig, size_t len, const unsigned char *digest, size_t dlen) {
	kw_result r = {0};
	r.ok = EVP_PKEY_verify(ctx, sig, len, digest, dlen) == 1;
	if (!r.ok) r.err = take_error();
	return r;
}
