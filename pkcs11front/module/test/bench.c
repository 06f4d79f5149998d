// Measures a PKCS #11 module: any, by its path.
//
//	bench [-v] [-n THREADS] [-t SECONDS] [-s SLOT] [-p PIN] [-k LABEL] MODULE OPERATION...
//
// OPERATION is one of: random (C_GenerateRandom of 16 octets), p256 and rsa (C_SignInit and C_Sign, CKM_ECDSA of 32 octets and
// CKM_SHA256_RSA_PKCS of 32), gcm (C_EncryptInit and C_Encrypt of 1 KiB, with an IV of its own each time), find (a search for a private
// key by its CKA_LABEL, and its CKA_ID). Keys are found by CKA_LABEL -k; without it session keys are made.
// -v: what was signed with a key that was found is verified, which counts. SLOT counts the slots with a token from 0. It prints, for each, how many were done in a
// second, and the median and the 99th percentile of how long one took. SIGUSR1 ends an operation before its SECONDS are over.
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../pkcs11.h"

static CK_FUNCTION_LIST *p11;
static CK_SLOT_ID slot;
static unsigned threads = 1, seconds = 1;
static const char *pin, *label, *operation;
static bool verifies;
static atomic_bool over;
static sigset_t enough; // SIGUSR1, which is blocked in all threads: one that comes early is not lost

static void die(const char *what, CK_RV rv) {
	fprintf(stderr, "bench: %s: %#lx\n", what, rv);
	exit(1);
}

#define TRY(call) \
	do { \
		CK_RV tried = p11->call; \
		if (tried != CKR_OK) \
			die(#call, tried); \
	} while (0)

struct worker {
	pthread_t thread;
	CK_SESSION_HANDLE session;
	CK_OBJECT_HANDLE key, public; // public: 0 if nothing is verified
	float *took; // microseconds
	size_t n, cap;
};

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static CK_OBJECT_HANDLE find(CK_SESSION_HANDLE session, CK_OBJECT_CLASS class) {
	CK_ATTRIBUTE t[] = { { CKA_CLASS, &class, sizeof class }, { CKA_LABEL, strdup(label), strlen(label) } };
	CK_OBJECT_HANDLE key;
	CK_ULONG n = 0;
	TRY(C_FindObjectsInit(session, t, 2));
	TRY(C_FindObjects(session, &key, 1, &n));
	TRY(C_FindObjectsFinal(session));
	if (n == 0)
		die("no key with that label", 0);
	free(t[1].pValue);
	return key;
}

static CK_OBJECT_HANDLE make(CK_SESSION_HANDLE session) {
	CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
	CK_ULONG bits = 2048, octets = 32;
	CK_BYTE curve[] = { 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7 };
	CK_OBJECT_HANDLE public, private;
	if (strcmp(operation, "gcm") == 0) {
		CK_MECHANISM m = { CKM_AES_KEY_GEN, NULL, 0 };
		CK_ATTRIBUTE t[] = { { CKA_TOKEN, &no, 1 }, { CKA_ENCRYPT, &yes, 1 }, { CKA_DECRYPT, &yes, 1 }, { CKA_VALUE_LEN, &octets, sizeof octets } };
		TRY(C_GenerateKey(session, &m, t, 4, &private));
		return private;
	}
	bool rsa = strcmp(operation, "rsa") == 0;
	CK_MECHANISM m = { rsa ? CKM_RSA_PKCS_KEY_PAIR_GEN : CKM_EC_KEY_PAIR_GEN, NULL, 0 };
	CK_ATTRIBUTE of_public[] = { { CKA_TOKEN, &no, 1 }, { CKA_VERIFY, &yes, 1 }, { rsa ? CKA_MODULUS_BITS : CKA_EC_PARAMS, rsa ? (void *)&bits : curve, rsa ? sizeof bits : sizeof curve } };
	CK_ATTRIBUTE of_private[] = { { CKA_TOKEN, &no, 1 }, { CKA_SIGN, &yes, 1 } };
	TRY(C_GenerateKeyPair(session, &m, of_public, 3, of_private, 2, &public, &private));
	return private;
}

static void once(struct worker *w, unsigned long count) {
	CK_BYTE in[1024] = { 0 }, out[2048], iv[12] = { 0 };
	CK_ULONG len = sizeof out;
	memcpy(in, &count, sizeof count);
	if (strcmp(operation, "random") == 0) {
		TRY(C_GenerateRandom(w->session, out, 16));
	} else if (strcmp(operation, "find") == 0) {
		CK_ATTRIBUTE id = { CKA_ID, out, sizeof out };
		TRY(C_GetAttributeValue(w->session, find(w->session, CKO_PRIVATE_KEY), &id, 1));
	} else if (strcmp(operation, "gcm") == 0) {
		memcpy(iv, &count, sizeof count);
		memcpy(iv + 8, &w->session, 4);
		CK_GCM_PARAMS p = { iv, sizeof iv, 96, NULL, 0, 128 };
		CK_MECHANISM m = { CKM_AES_GCM, &p, sizeof p };
		TRY(C_EncryptInit(w->session, &m, w->key));
		TRY(C_Encrypt(w->session, in, sizeof in, out, &len));
	} else {
		CK_MECHANISM m = { strcmp(operation, "rsa") == 0 ? CKM_SHA256_RSA_PKCS : CKM_ECDSA, NULL, 0 };
		TRY(C_SignInit(w->session, &m, w->key));
		TRY(C_Sign(w->session, in, 32, out, &len));
		if (w->public != 0) {
			TRY(C_VerifyInit(w->session, &m, w->public));
			TRY(C_Verify(w->session, in, 32, out, len));
		}
	}
}

static void *work(void *worker) {
	struct worker *w = worker;
	for (unsigned long count = 0; !over; count++) {
		double began = now();
		once(w, count);
		if (w->n == w->cap) {
			w->cap = w->cap == 0 ? 4096 : 2 * w->cap;
			w->took = realloc(w->took, w->cap * sizeof *w->took);
			if (w->took == NULL)
				abort();
		}
		w->took[w->n++] = (float)((now() - began) * 1e6);
	}
	return NULL;
}

static int order(const void *a, const void *b) {
	float x = *(const float *)a, y = *(const float *)b;
	return (x > y) - (x < y);
}

static void measure(void) {
	struct worker *w = calloc(threads, sizeof *w);
	if (w == NULL)
		abort();
	for (unsigned k = 0; k < threads; k++) {
		TRY(C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &w[k].session));
		if (k == 0 && pin != NULL) {
			CK_RV rv = p11->C_Login(w[0].session, CKU_USER, (CK_UTF8CHAR *)strdup(pin), strlen(pin));
			if (rv != CKR_OK && rv != CKR_USER_ALREADY_LOGGED_IN)
				die("C_Login", rv);
		}
		if (strcmp(operation, "random") == 0 || strcmp(operation, "find") == 0)
			continue;
		bool secret = strcmp(operation, "gcm") == 0;
		w[k].key = label != NULL ? find(w[k].session, secret ? CKO_SECRET_KEY : CKO_PRIVATE_KEY) : k > 0 ? w[0].key : make(w[0].session);
		if (verifies && label != NULL && !secret)
			w[k].public = find(w[k].session, CKO_PUBLIC_KEY);
	}
	over = false;
	double began = now();
	for (unsigned k = 0; k < threads; k++)
		if (pthread_create(&w[k].thread, NULL, work, &w[k]) != 0)
			abort();
	sigtimedwait(&enough, NULL, &(struct timespec){ .tv_sec = seconds });
	over = true;
	size_t n = 0;
	for (unsigned k = 0; k < threads; k++) {
		pthread_join(w[k].thread, NULL);
		n += w[k].n;
	}
	double took = now() - began;
	float *all = malloc((n + 1) * sizeof *all);
	if (all == NULL)
		abort();
	size_t at = 0;
	for (unsigned k = 0; k < threads; k++) {
		memcpy(all + at, w[k].took, w[k].n * sizeof *all);
		at += w[k].n;
		free(w[k].took);
	}
	qsort(all, n, sizeof *all, order);
	printf("%-8s %3u threads %9.0f/s   median %7.0f us   99%% %7.0f us\n", operation, threads, (double)n / took, n > 0 ? all[n / 2] : 0, n > 0 ? all[n * 99 / 100] : 0);
	fflush(stdout);
	for (unsigned k = 0; k < threads; k++)
		TRY(C_CloseSession(w[k].session));
	free(all);
	free(w);
}

int main(int argc, char **argv) {
	unsigned number = 0;
	int option;
	while ((option = getopt(argc, argv, "vn:t:s:p:k:")) != -1) {
		switch (option) {
		case 'v':
			verifies = true;
			break;
		case 'n':
			threads = (unsigned)atoi(optarg);
			break;
		case 't':
			seconds = (unsigned)atoi(optarg);
			break;
		case 's':
			number = (unsigned)atoi(optarg);
			break;
		case 'p':
			pin = optarg;
			break;
		case 'k':
			label = optarg;
			break;
		default:
			return 2;
		}
	}
	if (optind + 2 > argc || threads == 0) {
		fprintf(stderr, "bench [-v] [-n THREADS] [-t SECONDS] [-s SLOT] [-p PIN] [-k LABEL] MODULE random|p256|rsa|gcm|find...\n");
		return 2;
	}
	sigemptyset(&enough);
	sigaddset(&enough, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &enough, NULL);
	void *module = dlopen(argv[optind], RTLD_NOW);
	CK_RV (*get)(CK_FUNCTION_LIST **) = NULL;
	if (module != NULL)
		*(void **)&get = dlsym(module, "C_GetFunctionList");
	if (get == NULL || get(&p11) != CKR_OK) {
		fprintf(stderr, "bench: %s is no PKCS #11 module\n", argv[optind]);
		return 1;
	}
	CK_C_INITIALIZE_ARGS args = { .flags = CKF_OS_LOCKING_OK };
	TRY(C_Initialize(&args));
	CK_SLOT_ID slots[64];
	CK_ULONG n = 64;
	TRY(C_GetSlotList(CK_TRUE, slots, &n));
	if (number >= n)
		die("there are fewer slots", 0);
	slot = slots[number];
	for (int k = optind + 1; k < argc; k++) {
		operation = argv[k];
		measure();
	}
	TRY(C_Finalize(NULL));
	return 0;
}
