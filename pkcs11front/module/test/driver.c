// A program that makes the calls that it is told of, line by line, and prints what came of each: driver MODULE. The tests in
// moduletest drive it. Every buffer that it gives to the module is a piece of memory of its own, exactly as long as it says, so that
// AddressSanitizer and valgrind see whatever is written or read beside it.
//
// A line is the name of a function and its arguments, separated by blanks:
//
//	12, 0x1f        a number
//	x0102, x, z1000 octets; none; a thousand that are 7
//	-               NULL, with length 0; -5 NULL with length 5
//	@16             room for 16 octets or numbers; @- asks for the size; @! is a NULL pointer to the length
//	=               where a number is to be put; =! is NULL
//	[a,b,...]       a template. An element is TYPE:NUMBER (a CK_ULONG), TYPE:b1 (a CK_BBOOL), TYPE:xHEX, TYPE:@16 (room), TYPE:- (NULL),
//	                TYPE:m1;2 (mechanisms), TYPE:(...) with elements separated by ; (a template)
//	m13             a mechanism; m13:xHEX with octets for a parameter, or one of m13:pss,1,2,3 oaep,1,2,3,xHEX ctr,128,xHEX
//	                gcm,xIV,BITS,xAAD,TAG gcm240,xIV,xAAD,TAG ecdh,KDF,xSHARED,xPUBLIC mac,8
// Lines that are no calls: exit; fork, after which a child reads on until it exits; sockets, which counts open sockets; executed, which
// has a program that is executed count them.
//
//	g:xIV,FIXED,GENERATOR,xTAG,TAGBITS   the parameter of a message
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../pkcs11.h"

static CK_FUNCTION_LIST_3_0 *p11;

// Memory of one line.
static void *pieces[4096];
static size_t n_pieces;

static void *piece(size_t len) {
	void *p = malloc(len);
	if (p == NULL || n_pieces == sizeof pieces / sizeof pieces[0])
		abort();
	pieces[n_pieces++] = p;
	return p;
}

static void release(void) {
	while (n_pieces > 0)
		free(pieces[--n_pieces]);
}

static void bad(const char *what) {
	fprintf(stderr, "driver: bad line: %s\n", what);
	exit(2);
}

// The arguments of the line that are left.
static char *words;

static char *word(void) {
	char *w = strsep(&words, " ");
	if (w == NULL)
		bad("an argument is missing");
	return w;
}

static CK_ULONG number(const char *w) {
	char *end;
	CK_ULONG n = strtoul(w, &end, 0);
	if (end == w || *end != '\0')
		bad(w);
	return n;
}

static CK_BYTE *hex(const char *w, CK_ULONG *len) {
	if (*w++ != 'x')
		bad(w - 1);
	*len = strlen(w) / 2;
	CK_BYTE *p = piece(*len);
	for (CK_ULONG k = 0; k < *len; k++) {
		unsigned b;
		if (sscanf(w + 2 * k, "%2x", &b) != 1)
			bad(w);
		p[k] = (CK_BYTE)b;
	}
	return p;
}

struct octets {
	CK_BYTE *p;
	CK_ULONG len;
};

static struct octets octets_of(const char *w) {
	struct octets o = { NULL, 0 };
	if (*w == '-')
		o.len = w[1] != '\0' ? number(w + 1) : 0;
	else if (*w == 'z')
		o.len = number(w + 1), o.p = memset(piece(o.len), 7, o.len);
	else
		o.p = hex(w, &o.len);
	return o;
}

static struct octets octets(void) { return octets_of(word()); }

// What comes back from the call is printed after it.
static struct {
	enum { OCTETS, NUMBERS, NUMBER, TEMPLATE, MESSAGE } kind;
	void *p;
	CK_ULONG *len;
} results[8];
static size_t n_results;

struct room {
	void *p;
	CK_ULONG *len;
};

static struct room room(size_t size, int kind) {
	char *w = word();
	struct room r = { NULL, NULL };
	if (*w != '@')
		bad(w);
	if (strcmp(w, "@!") == 0)
		return r;
	r.len = piece(sizeof *r.len);
	*r.len = strcmp(w, "@-") == 0 ? 0 : number(w + 1);
	if (strcmp(w, "@-") != 0)
		r.p = piece(*r.len * size);
	results[n_results].kind = kind == 0 ? OCTETS : NUMBERS;
	results[n_results].p = r.p;
	results[n_results++].len = r.len;
	return r;
}

static CK_ULONG *result(void) {
	char *w = word();
	if (strcmp(w, "=!") == 0)
		return NULL;
	CK_ULONG *p = piece(sizeof *p);
	*p = 0;
	results[n_results].kind = NUMBER;
	results[n_results].len = NULL;
	results[n_results++].p = p;
	return p;
}

struct template {
	CK_ATTRIBUTE *p;
	CK_ULONG count;
};

static void element(char *w, CK_ATTRIBUTE *a);

static struct template elements(char *w, const char *separator) {
	struct template t = { NULL, 0 };
	if (*w == '\0')
		return t;
	for (const char *c = w; *c != '\0'; c++)
		t.count += *c == *separator;
	t.count++;
	t.p = piece(t.count * sizeof *t.p);
	char *rest = w;
	for (CK_ULONG k = 0; k < t.count; k++)
		element(strsep(&rest, separator), &t.p[k]);
	return t;
}

static void element(char *w, CK_ATTRIBUTE *a) {
	char *value = strchr(w, ':');
	if (value == NULL)
		bad(w);
	*value++ = '\0';
	a->type = number(w);
	if (*value == '@') {
		a->ulValueLen = number(value + 1);
		a->pValue = piece(a->ulValueLen);
	} else if (*value == '-') {
		a->pValue = NULL;
		a->ulValueLen = value[1] != '\0' ? number(value + 1) : 0;
	} else if (*value == 'b') {
		a->ulValueLen = 1;
		a->pValue = piece(1);
		*(CK_BYTE *)a->pValue = (CK_BYTE)number(value + 1);
	} else if (*value == 'x' || *value == 'z') {
		struct octets o = octets_of(value);
		a->pValue = o.p;
		a->ulValueLen = o.len;
	} else if (*value == '(') {
		value[strlen(value) - 1] = '\0';
		struct template t = elements(value + 1, ";");
		a->pValue = t.p;
		a->ulValueLen = t.count * sizeof *t.p;
	} else if (*value == 'm') {
		CK_ULONG *all = piece(64 * sizeof *all), n = 0;
		for (char *rest = value + 1, *one; n < 64 && (one = strsep(&rest, ";")) != NULL;)
			all[n++] = number(one);
		a->ulValueLen = n * sizeof *all;
		a->pValue = all;
	} else {
		CK_ULONG n = number(value);
		a->ulValueLen = sizeof n;
		a->pValue = memcpy(piece(sizeof n), &n, sizeof n);
	}
}

static struct template template(void) {
	char *w = word();
	struct template t = { NULL, 0 };
	if (*w == '-') {
		t.count = w[1] != '\0' ? number(w + 1) : 0;
		return t;
	}
	if (*w != '[' || w[strlen(w) - 1] != ']')
		bad(w);
	w[strlen(w) - 1] = '\0';
	return elements(w + 1, ",");
}

static struct template wanted(void) {
	struct template t = template();
	results[n_results].kind = TEMPLATE;
	results[n_results].p = t.p;
	results[n_results].len = piece(sizeof t.count);
	*results[n_results++].len = t.count;
	return t;
}

static CK_MECHANISM *mechanism(void) {
	char *w = word();
	if (strcmp(w, "-") == 0)
		return NULL;
	if (*w++ != 'm')
		bad(w - 1);
	CK_MECHANISM *m = piece(sizeof *m);
	char *parameter = strchr(w, ':');
	if (parameter != NULL)
		*parameter++ = '\0';
	*m = (CK_MECHANISM){ .mechanism = number(w) };
	if (parameter == NULL)
		return m;
	char *kind = strsep(&parameter, ",");
#define NEXT strsep(&parameter, ",")
#define SET(type, ...) \
	type *p = piece(sizeof *p); \
	*p = (type){ __VA_ARGS__ }; \
	m->pParameter = p; \
	m->ulParameterLen = sizeof *p
	if (*kind == 'x' || *kind == '-' || *kind == 'z') {
		struct octets o = octets_of(kind);
		m->pParameter = o.p;
		m->ulParameterLen = o.len;
	} else if (strcmp(kind, "pss") == 0) {
		CK_ULONG hash = number(NEXT), mgf = number(NEXT), salt = number(NEXT);
		SET(CK_RSA_PKCS_PSS_PARAMS, hash, mgf, salt);
	} else if (strcmp(kind, "oaep") == 0) {
		CK_ULONG hash = number(NEXT), mgf = number(NEXT), source = number(NEXT);
		struct octets o = octets_of(NEXT);
		SET(CK_RSA_PKCS_OAEP_PARAMS, hash, mgf, source, o.p, o.len);
	} else if (strcmp(kind, "ctr") == 0) {
		CK_ULONG bits = number(NEXT);
		struct octets o = octets_of(NEXT);
		SET(CK_AES_CTR_PARAMS, bits, { 0 });
		memcpy(p->cb, o.p, o.len < 16 ? o.len : 16);
	} else if (strcmp(kind, "gcm") == 0) {
		struct octets iv = octets_of(NEXT);
		CK_ULONG bits = number(NEXT);
		struct octets aad = octets_of(NEXT);
		CK_ULONG tag = number(NEXT);
		SET(CK_GCM_PARAMS, iv.p, iv.len, bits, aad.p, aad.len, tag);
	} else if (strcmp(kind, "gcm240") == 0) {
		struct octets iv = octets_of(NEXT), aad = octets_of(NEXT);
		CK_ULONG tag = number(NEXT);
		SET(CK_GCM_PARAMS_2_40, iv.p, iv.len, aad.p, aad.len, tag);
	} else if (strcmp(kind, "ecdh") == 0) {
		CK_ULONG kdf = number(NEXT);
		struct octets shared = octets_of(NEXT), public = octets_of(NEXT);
		SET(CK_ECDH1_DERIVE_PARAMS, kdf, shared.len, shared.p, public.len, public.p);
	} else if (strcmp(kind, "mac") == 0) {
		CK_MAC_GENERAL_PARAMS *p = piece(sizeof *p);
		*p = number(NEXT);
		m->pParameter = p;
		m->ulParameterLen = sizeof *p;
	} else {
		bad(kind);
	}
	return m;
}

static struct octets message(void) {
	char *w = word();
	if (strncmp(w, "g:", 2) != 0)
		return octets_of(w);
	char *parameter = w + 2;
	struct octets iv = octets_of(NEXT);
	CK_ULONG fixed = number(NEXT), generator = number(NEXT);
	struct octets tag = octets_of(NEXT);
	CK_ULONG bits = number(NEXT);
	CK_GCM_MESSAGE_PARAMS *p = piece(sizeof *p);
	*p = (CK_GCM_MESSAGE_PARAMS){ iv.p, iv.len, fixed, generator, tag.p, bits };
	results[n_results].kind = MESSAGE;
	results[n_results].len = NULL;
	results[n_results++].p = p;
	return (struct octets){ (CK_BYTE *)p, sizeof *p };
}

static void print_hex(const CK_BYTE *p, CK_ULONG len) {
	putchar('x');
	for (CK_ULONG k = 0; k < len; k++)
		printf("%02x", p[k]);
}

static void print_template(const CK_ATTRIBUTE *t, CK_ULONG count) {
	putchar('[');
	for (CK_ULONG k = 0; t != NULL && k < count; k++) {
		printf("%s%#lx:", k > 0 ? "," : "", t[k].type);
		if (t[k].ulValueLen == CK_UNAVAILABLE_INFORMATION)
			printf("unavailable");
		else if (t[k].pValue == NULL)
			printf("%lu", t[k].ulValueLen);
		else if ((t[k].type & 0x40000000) != 0 && t[k].type != CKA_ALLOWED_MECHANISMS)
			print_template(t[k].pValue, t[k].ulValueLen / sizeof *t);
		else
			print_hex(t[k].pValue, t[k].ulValueLen);
	}
	putchar(']');
}

static void print_results(CK_RV rv) {
	printf("%#lx", rv);
	for (size_t k = 0; k < n_results; k++) {
		if (results[k].kind == NUMBER && rv != CKR_OK)
			continue;
		putchar(' ');
		const CK_GCM_MESSAGE_PARAMS *g;
		CK_ULONG len = results[k].len != NULL ? *results[k].len : 0;
		switch (results[k].kind) {
		case OCTETS:
			if (rv != CKR_OK || results[k].p == NULL)
				printf("%lu", len);
			else
				print_hex(results[k].p, len);
			break;
		case NUMBERS:
			if (rv != CKR_OK || results[k].p == NULL)
				printf("%lu", len);
			for (CK_ULONG n = 0; rv == CKR_OK && results[k].p != NULL && n < len; n++)
				printf("%s%#lx", n > 0 ? "," : "", ((CK_ULONG *)results[k].p)[n]);
			break;
		case NUMBER:
			printf("%#lx", *(CK_ULONG *)results[k].p);
			break;
		case TEMPLATE:
			print_template(results[k].p, len);
			break;
		case MESSAGE:
			g = results[k].p;
			print_hex(g->pIv, g->ulIvLen);
			putchar(',');
			print_hex(g->pTag, g->ulTagBits / 8);
			break;
		}
	}
	putchar('\n');
	fflush(stdout);
	n_results = 0;
}

static void text(const CK_BYTE *p, int len) {
	while (len > 0 && p[len - 1] == ' ')
		len--;
	printf(" %.*s;", len, p);
}

// call makes a call by its name.
#define N number(word())
#define NUMBERS_ROOM room(sizeof(CK_ULONG), 1)
#define OCTETS_ROOM room(1, 0)
#define IS(function) else if (strcmp(name, #function) == 0)
#define INIT(function) IS(function) { CK_ULONG s = N; CK_MECHANISM *m = mechanism(); rv = p11->function(s, m, N); }
#define IN_OUT(function) IS(function) { CK_ULONG s = N; struct octets i = octets(); struct room o = OCTETS_ROOM; rv = p11->function(s, i.p, i.len, o.p, o.len); }
#define IN(function) IS(function) { CK_ULONG s = N; struct octets i = octets(); rv = p11->function(s, i.p, i.len); }
#define OUT(function) IS(function) { CK_ULONG s = N; struct room o = OCTETS_ROOM; rv = p11->function(s, o.p, o.len); }
#define SESSION(function) IS(function) { rv = p11->function(N); }

static CK_RV call(const char *name) {
	CK_RV rv = CKR_GENERAL_ERROR;
	if (strcmp(name, "C_Initialize") == 0)
		rv = p11->C_Initialize(NULL);
	IS(C_Finalize) rv = p11->C_Finalize(NULL);
	IS(C_GetSlotList) { CK_BBOOL present = (CK_BBOOL)N; struct room r = NUMBERS_ROOM; rv = p11->C_GetSlotList(present, r.p, r.len); }
	IS(C_GetSlotInfo) {
		CK_SLOT_INFO i;
		rv = p11->C_GetSlotInfo(N, &i);
		if (rv == CKR_OK) {
			printf("%d.%d %d.%d %lx", i.hardwareVersion.major, i.hardwareVersion.minor, i.firmwareVersion.major, i.firmwareVersion.minor, i.flags);
			text(i.slotDescription, sizeof i.slotDescription), text(i.manufacturerID, sizeof i.manufacturerID), putchar(' ');
		}
	}
	IS(C_GetTokenInfo) {
		CK_TOKEN_INFO i;
		rv = p11->C_GetTokenInfo(N, &i);
		if (rv == CKR_OK) {
			printf("%lx %lu %lu", i.flags, i.ulMaxSessionCount, i.ulFreePrivateMemory);
			text(i.label, sizeof i.label), text(i.model, sizeof i.model), text(i.serialNumber, sizeof i.serialNumber), text(i.utcTime, sizeof i.utcTime);
			putchar(' ');
		}
	}
	IS(C_GetMechanismList) { CK_ULONG slot = N; struct room r = NUMBERS_ROOM; rv = p11->C_GetMechanismList(slot, r.p, r.len); }
	IS(C_GetMechanismInfo) {
		CK_MECHANISM_INFO i;
		CK_ULONG slot = N;
		rv = p11->C_GetMechanismInfo(slot, N, &i);
		if (rv == CKR_OK)
			printf("%lu %lu %lx ", i.ulMinKeySize, i.ulMaxKeySize, i.flags);
	}
	IS(C_InitToken) { CK_ULONG slot = N; struct octets pin = octets(), label = octets(); rv = p11->C_InitToken(slot, pin.p, pin.len, label.p); }
	IN(C_InitPIN)
	IS(C_SetPIN) { CK_ULONG s = N; struct octets old = octets(), new = octets(); rv = p11->C_SetPIN(s, old.p, old.len, new.p, new.len); }
	IS(C_OpenSession) { CK_ULONG slot = N, flags = N; rv = p11->C_OpenSession(slot, flags, NULL, NULL, result()); }
	SESSION(C_CloseSession)
	SESSION(C_CloseAllSessions)
	IS(C_GetSessionInfo) {
		CK_SESSION_INFO i;
		rv = p11->C_GetSessionInfo(N, &i);
		if (rv == CKR_OK)
			printf("%lu %lu %lx %lu ", i.slotID, i.state, i.flags, i.ulDeviceError);
	}
	OUT(C_GetOperationState)
	IS(C_SetOperationState) { CK_ULONG s = N; struct octets i = octets(); CK_ULONG e = N; rv = p11->C_SetOperationState(s, i.p, i.len, e, N); }
	IS(C_Login) { CK_ULONG s = N, user = N; struct octets pin = octets(); rv = p11->C_Login(s, user, pin.p, pin.len); }
	SESSION(C_Logout)
	IS(C_CreateObject) { CK_ULONG s = N; struct template t = template(); rv = p11->C_CreateObject(s, t.p, t.count, result()); }
	IS(C_CopyObject) { CK_ULONG s = N, o = N; struct template t = template(); rv = p11->C_CopyObject(s, o, t.p, t.count, result()); }
	IS(C_DestroyObject) { CK_ULONG s = N; rv = p11->C_DestroyObject(s, N); }
	IS(C_GetObjectSize) { CK_ULONG s = N, o = N; rv = p11->C_GetObjectSize(s, o, result()); }
	IS(C_GetAttributeValue) { CK_ULONG s = N, o = N; struct template t = wanted(); rv = p11->C_GetAttributeValue(s, o, t.p, t.count); }
	IS(C_SetAttributeValue) { CK_ULONG s = N, o = N; struct template t = template(); rv = p11->C_SetAttributeValue(s, o, t.p, t.count); }
	IS(C_FindObjectsInit) { CK_ULONG s = N; struct template t = template(); rv = p11->C_FindObjectsInit(s, t.p, t.count); }
	IS(C_FindObjects) { CK_ULONG s = N; struct room r = NUMBERS_ROOM; rv = p11->C_FindObjects(s, r.p, r.len != NULL ? *r.len : 0, r.len); }
	SESSION(C_FindObjectsFinal)
	INIT(C_EncryptInit) IN_OUT(C_Encrypt) IN_OUT(C_EncryptUpdate) OUT(C_EncryptFinal)
	INIT(C_DecryptInit) IN_OUT(C_Decrypt) IN_OUT(C_DecryptUpdate) OUT(C_DecryptFinal)
	IS(C_DigestInit) { CK_ULONG s = N; rv = p11->C_DigestInit(s, mechanism()); }
	IN_OUT(C_Digest) IN(C_DigestUpdate) OUT(C_DigestFinal)
	IS(C_DigestKey) { CK_ULONG s = N; rv = p11->C_DigestKey(s, N); }
	INIT(C_SignInit) IN_OUT(C_Sign) IN(C_SignUpdate) OUT(C_SignFinal)
	INIT(C_SignRecoverInit) IN_OUT(C_SignRecover)
	INIT(C_VerifyInit) IN(C_VerifyUpdate) IN(C_VerifyFinal)
	IS(C_Verify) { CK_ULONG s = N; struct octets i = octets(), g = octets(); rv = p11->C_Verify(s, i.p, i.len, g.p, g.len); }
	INIT(C_VerifyRecoverInit) IN_OUT(C_VerifyRecover)
	IN_OUT(C_DigestEncryptUpdate) IN_OUT(C_DecryptDigestUpdate) IN_OUT(C_SignEncryptUpdate) IN_OUT(C_DecryptVerifyUpdate)
	IS(C_GenerateKey) { CK_ULONG s = N; CK_MECHANISM *m = mechanism(); struct template t = template(); rv = p11->C_GenerateKey(s, m, t.p, t.count, result()); }
	IS(C_GenerateKeyPair) {
		CK_ULONG s = N;
		CK_MECHANISM *m = mechanism();
		struct template a = template(), b = template();
		CK_ULONG *public = result();
		rv = p11->C_GenerateKeyPair(s, m, a.p, a.count, b.p, b.count, public, result());
	}
	IS(C_WrapKey) { CK_ULONG s = N; CK_MECHANISM *m = mechanism(); CK_ULONG w = N, k = N; struct room o = OCTETS_ROOM; rv = p11->C_WrapKey(s, m, w, k, o.p, o.len); }
	IS(C_UnwrapKey) {
		CK_ULONG s = N;
		CK_MECHANISM *m = mechanism();
		CK_ULONG k = N;
		struct octets i = octets();
		struct template t = template();
		rv = p11->C_UnwrapKey(s, m, k, i.p, i.len, t.p, t.count, result());
	}
	IS(C_DeriveKey) { CK_ULONG s = N; CK_MECHANISM *m = mechanism(); CK_ULONG k = N; struct template t = template(); rv = p11->C_DeriveKey(s, m, k, t.p, t.count, result()); }
	IN(C_SeedRandom)
	IS(C_GenerateRandom) { CK_ULONG s = N; struct room o = OCTETS_ROOM; rv = p11->C_GenerateRandom(s, o.p, *o.len); }
	SESSION(C_GetFunctionStatus)
	SESSION(C_CancelFunction)
	IS(C_WaitForSlotEvent) { CK_ULONG flags = N; rv = p11->C_WaitForSlotEvent(flags, result(), NULL); }
	IS(C_LoginUser) { CK_ULONG s = N, user = N; struct octets pin = octets(), user_name = octets(); rv = p11->C_LoginUser(s, user, pin.p, pin.len, user_name.p, user_name.len); }
	IS(C_SessionCancel) { CK_ULONG s = N; rv = p11->C_SessionCancel(s, N); }
	INIT(C_MessageEncryptInit) INIT(C_MessageDecryptInit) INIT(C_MessageSignInit) INIT(C_MessageVerifyInit)
	SESSION(C_MessageEncryptFinal)
	SESSION(C_MessageDecryptFinal)
	SESSION(C_MessageSignFinal)
	SESSION(C_MessageVerifyFinal)
#define MESSAGE_CALL(function) \
	IS(function) { CK_ULONG s = N; struct octets g = message(), a = octets(), i = octets(); struct room o = OCTETS_ROOM; rv = p11->function(s, g.p, g.len, a.p, a.len, i.p, i.len, o.p, o.len); }
#define MESSAGE_BEGIN(function) IS(function) { CK_ULONG s = N; struct octets g = message(), a = octets(); rv = p11->function(s, g.p, g.len, a.p, a.len); }
#define MESSAGE_NEXT(function) \
	IS(function) { CK_ULONG s = N; struct octets g = message(), i = octets(); struct room o = OCTETS_ROOM; rv = p11->function(s, g.p, g.len, i.p, i.len, o.p, o.len, N); }
	MESSAGE_CALL(C_EncryptMessage) MESSAGE_CALL(C_DecryptMessage)
	MESSAGE_BEGIN(C_EncryptMessageBegin) MESSAGE_BEGIN(C_DecryptMessageBegin)
	MESSAGE_NEXT(C_EncryptMessageNext) MESSAGE_NEXT(C_DecryptMessageNext)
	IS(C_SignMessage) { CK_ULONG s = N; struct octets g = message(), i = octets(); struct room o = OCTETS_ROOM; rv = p11->C_SignMessage(s, g.p, g.len, i.p, i.len, o.p, o.len); }
	IS(C_SignMessageBegin) { CK_ULONG s = N; struct octets g = message(); rv = p11->C_SignMessageBegin(s, g.p, g.len); }
	IS(C_SignMessageNext) { CK_ULONG s = N; struct octets g = message(), i = octets(); struct room o = OCTETS_ROOM; rv = p11->C_SignMessageNext(s, g.p, g.len, i.p, i.len, o.p, o.len); }
	IS(C_VerifyMessage) { CK_ULONG s = N; struct octets g = message(), i = octets(), v = octets(); rv = p11->C_VerifyMessage(s, g.p, g.len, i.p, i.len, v.p, v.len); }
	IS(C_VerifyMessageBegin) { CK_ULONG s = N; struct octets g = message(); rv = p11->C_VerifyMessageBegin(s, g.p, g.len); }
	IS(C_VerifyMessageNext) { CK_ULONG s = N; struct octets g = message(), i = octets(), v = octets(); rv = p11->C_VerifyMessageNext(s, g.p, g.len, i.p, i.len, v.p, v.len); }
	else bad(name);
	return rv;
}

// fork_here goes on in a child, until it is told to exit or the input ends, and prints how it ended.
static void fork_here(void) {
	pid_t pid = fork();
	if (pid < 0)
		exit(2);
	if (pid == 0) {
		printf("child\n");
		fflush(stdout);
		return;
	}
	int status;
	if (waitpid(pid, &status, 0) != pid)
		exit(2);
	printf("parent %d\n", status);
	fflush(stdout);
}

// sockets counts the descriptors that are sockets.
static int sockets(void) {
	int n = 0;
	for (int fd = 3; fd < 1024; fd++) {
		struct stat s;
		n += fstat(fd, &s) == 0 && S_ISSOCK(s.st_mode);
	}
	return n;
}

// executed runs this program once more, which counts the sockets that it was given.
static void executed(void) {
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		execl("/proc/self/exe", "driver", "sockets", (char *)NULL);
		_exit(2);
	}
	int status;
	if (waitpid(pid, &status, 0) != pid || status != 0)
		exit(2);
}

int main(int argc, char **argv) {
	if (argc != 2)
		bad("driver MODULE");
	if (strcmp(argv[1], "sockets") == 0) {
		printf("%d\n", sockets());
		return 0;
	}
	void *module = dlopen(argv[1], RTLD_NOW);
	if (module == NULL)
		bad(dlerror());
	CK_RV (*get)(CK_UTF8CHAR *, CK_VERSION *, CK_INTERFACE **, CK_FLAGS);
	*(void **)&get = dlsym(module, "C_GetInterface");
	CK_INTERFACE *interface;
	CK_VERSION version = { 3, 0 };
	if (get == NULL || get(NULL, &version, &interface, 0) != CKR_OK)
		bad("no interface");
	p11 = interface->pFunctionList;

	char *line = NULL;
	size_t cap = 0;
	setvbuf(stdin, NULL, _IONBF, 0); // so that parent and child of a fork read on where the other stopped
	while (getline(&line, &cap, stdin) > 0) {
		line[strcspn(line, "\n")] = '\0';
		words = line;
		char *name = word();
		if (strcmp(name, "exit") == 0)
			break;
		if (strcmp(name, "sockets") == 0) {
			printf("%d\n", sockets());
			fflush(stdout);
			continue;
		}
		if (strcmp(name, "executed") == 0) {
			executed();
			continue;
		}
		if (strcmp(name, "fork") == 0) {
			fork_here();
			continue;
		}
		CK_RV rv = call(name);
		if (words != NULL)
			bad("too many arguments");
		print_results(rv);
		release();
	}
	free(line);
	return 0;
}
