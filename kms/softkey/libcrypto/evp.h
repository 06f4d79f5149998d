// What libcrypto.go calls. Each function is one whole operation, so that OpenSSL's error queue, which belongs to the
// thread, is read and emptied before the thread goes back to Go's scheduler.
#ifndef KW_EVP_H
#define KW_EVP_H

#include <stddef.h>

#include <openssl/evp.h>

// kw_op matches the Go constants of type op.
enum kw_op { KW_SIGN, KW_VERIFY, KW_ENCRYPT, KW_DECRYPT };

// kw_padding says how RSA fills its block. It matches the Go constants of type padding. ECDSA has none.
enum kw_padding { KW_NO_PADDING, KW_RAW, KW_PKCS1, KW_PSS, KW_OAEP };

// kw_md numbers the digests. It matches the Go table digests.
enum kw_md {
	KW_NO_MD,
	KW_SHA1,
	KW_SHA224,
	KW_SHA256,
	KW_SHA384,
	KW_SHA512,
	KW_SHA512_224,
	KW_SHA512_256,
	KW_SHA3_224,
	KW_SHA3_256,
	KW_SHA3_384,
	KW_SHA3_512,
};

// kw_setup is what a context is initialised with.
typedef struct {
	int op, padding, md, mgf;
	int salt; // octets
} kw_setup;

// kw_kind matches the Go constants of type Kind.
enum kw_kind { KW_UNKNOWN, KW_RSA, KW_P256, KW_SECP256K1, KW_P384, KW_P521 };

// kw_result is what an operation gives. ok is 1 or 0; err is OpenSSL's first error code when ok is 0, or 0; large says that the error
// is an input of RSA that is not below the modulus.
typedef struct {
	int ok, large;
	unsigned long err;
	size_t len;
} kw_result;

// kw_key is a key and what is known of it. key is NULL on failure.
typedef struct {
	EVP_PKEY *key;
	unsigned long err;
	int kind;
	int bits;
} kw_key;

// kw_ctx is an initialised context, NULL on failure.
typedef struct {
	EVP_PKEY_CTX *ctx;
	unsigned long err;
} kw_ctx;

// kw_der is a DER encoding that kw_der_free wipes and frees, NULL on failure.
typedef struct {
	unsigned char *der;
	unsigned long err;
	size_t len;
} kw_der;

int kw_init(void);
unsigned long kw_version(void);

kw_key kw_generate(int kind, int bits);
// Keys from their numbers, which lie one after another in buf, little-endian. RSA: n e, or n e d p q dp dq qi. Curves: d
// in as many octets as the order has, or NULL; point is uncompressed, or NULL when there is a d to make it from.
kw_key kw_rsa(unsigned char *buf, const size_t *sizes, int count);
kw_key kw_curve(int kind, unsigned char *d, unsigned char *point);
kw_result kw_check(EVP_PKEY *key);
kw_der kw_marshal_pkcs8(EVP_PKEY *key);
kw_der kw_marshal_spki(EVP_PKEY *key);
void kw_der_free(unsigned char *der, size_t len);
void kw_key_free(EVP_PKEY *key);

// A label is OAEP's, and copied.
kw_ctx kw_ctx_new(EVP_PKEY *key, kw_setup setup, const unsigned char *label, size_t label_len);
void kw_ctx_free(EVP_PKEY_CTX *ctx);
kw_result kw_run(EVP_PKEY_CTX *ctx, int op, unsigned char *out, size_t cap, const unsigned char *in, size_t len);
kw_result kw_verify(EVP_PKEY_CTX *ctx, const unsigned char *sig, size_t len, const unsigned char *digest, size_t dlen);
// kw_ecdh gives the x coordinate of a private key times a point of its curve, which is uncompressed and is checked.
kw_result kw_ecdh(EVP_PKEY *key, int kind, const unsigned char *point, unsigned char *out, size_t cap);

unsigned long kw_pending_error(void);
void kw_error_text(unsigned long err, char *buf, size_t len);

#endif
