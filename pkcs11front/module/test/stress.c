// Threads that use a module all at once: stress MODULE THREADS SECONDS none|fork|finalize [LABEL]. Each signs with a key of its own, and has the
// signature verified, so that an answer that gets to the wrong thread is noticed; they share a session too, and open and close others. fork:
// processes are forked meanwhile, and use the module themselves. finalize: the module is finalized while they are at it. All the while
// signals interrupt system calls. It prints how many rounds were made.
//
// Without LABEL the daemon is the one of these tests, with slot 1, where a handle is a key's number. With it the daemon is a real one: the token is the
// one that has an EC key pair of that label, which is used too, and each thread makes a secret key.
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../pkcs11.h"

static CK_FUNCTION_LIST *p11;
static CK_SESSION_HANDLE shared;
static CK_SLOT_ID slot = 1;
static char *label;
static CK_OBJECT_HANDLE kept[2]; // the pair of that label: private, public
static atomic_bool over, finalizing;
static atomic_ulong rounds;

static void check(CK_RV rv, const char *what) {
	if (rv == CKR_OK || (finalizing && (rv == CKR_CRYPTOKI_NOT_INITIALIZED || rv == CKR_DEVICE_ERROR || rv == CKR_SESSION_HANDLE_INVALID ||
			rv == CKR_OPERATION_NOT_INITIALIZED)))
		return;
	fprintf(stderr, "%s: %#lx\n", what, rv);
	_exit(1);
}

#define TRY(call) check(p11->call, #call)

static void sign(CK_SESSION_HANDLE session, CK_ULONG key, CK_ULONG round) {
	CK_MECHANISM hmac = { CKM_SHA256_HMAC, NULL, 0 };
	CK_BYTE data[32], signature[64];
	CK_ULONG len = 0;
	memset(data, 0, sizeof data);
	memcpy(data, &round, sizeof round);
	memcpy(data + 8, &key, sizeof key);
	TRY(C_SignInit(session, &hmac, key));
	TRY(C_Sign(session, data, sizeof data, NULL, &len));
	if (len > sizeof signature)
		abort();
	TRY(C_Sign(session, data, sizeof data, signature, &len));
	TRY(C_VerifyInit(session, &hmac, key));
	TRY(C_Verify(session, data, sizeof data, signature, len));
}

static void sign_kept(CK_SESSION_HANDLE session, CK_ULONG round) {
	CK_MECHANISM ecdsa = { CKM_ECDSA, NULL, 0 };
	CK_BYTE digest[32] = { 0 }, signature[64];
	CK_ULONG len = sizeof signature;
	memcpy(digest, &session, sizeof session);
	memcpy(digest + 8, &round, sizeof round);
	TRY(C_SignInit(session, &ecdsa, kept[0]));
	TRY(C_Sign(session, digest, sizeof digest, signature, &len));
	TRY(C_VerifyInit(session, &ecdsa, kept[1]));
	TRY(C_Verify(session, digest, sizeof digest, signature, len));
}

// own_key gives a key that a thread signs with.
static CK_OBJECT_HANDLE own_key(CK_SESSION_HANDLE session, CK_ULONG number) {
	if (label == NULL)
		return number;
	CK_OBJECT_HANDLE key = 0;
	CK_MECHANISM m = { CKM_GENERIC_SECRET_KEY_GEN, NULL, 0 };
	CK_BBOOL yes = CK_TRUE;
	CK_ULONG size = 32;
	CK_ATTRIBUTE t[] = { { CKA_SIGN, &yes, 1 }, { CKA_VERIFY, &yes, 1 }, { CKA_VALUE_LEN, &size, sizeof size } };
	TRY(C_GenerateKey(session, &m, t, 3, &key));
	return key;
}

// kept_in looks for the pair in a token.
static bool kept_in(CK_SLOT_ID in) {
	CK_ULONG n = 1;
	TRY(C_OpenSession(in, CKF_SERIAL_SESSION, NULL, NULL, &shared));
	for (CK_OBJECT_CLASS k = 0; k < 2 && n == 1; k++) {
		CK_OBJECT_CLASS class = k == 0 ? CKO_PRIVATE_KEY : CKO_PUBLIC_KEY;
		CK_ATTRIBUTE t[] = { { CKA_CLASS, &class, sizeof class }, { CKA_LABEL, label, strlen(label) } };
		TRY(C_FindObjectsInit(shared, t, 2));
		TRY(C_FindObjects(shared, &kept[k], 1, &n));
		TRY(C_FindObjectsFinal(shared));
	}
	if (n == 0)
		TRY(C_CloseSession(shared));
	return n == 1;
}

// begin initializes the module and opens the session that all share.
static void begin(void *args) {
	CK_SLOT_ID slots[16];
	CK_ULONG n = 16;
	TRY(C_Initialize(args));
	if (label == NULL) {
		TRY(C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &shared));
		return;
	}
	TRY(C_GetSlotList(CK_TRUE, slots, &n));
	while (n > 0 && !kept_in(slot = slots[n - 1]))
		n--;
	if (n == 0) {
		fprintf(stderr, "no token has a pair with the label %s\n", label);
		_exit(1);
	}
}

static void together(void) {
	CK_BYTE random[16] = { 0 };
	TRY(C_GenerateRandom(shared, random, sizeof random));
	CK_OBJECT_CLASS class = 0;
	CK_ATTRIBUTE wanted = { CKA_CLASS, &class, sizeof class };
	TRY(C_GetAttributeValue(shared, label == NULL ? 1 : kept[0], &wanted, 1));
	if (class != 3 && !finalizing)
		abort();
}

static void find(CK_SESSION_HANDLE session) {
	CK_OBJECT_HANDLE found[8];
	CK_ULONG n = 0;
	TRY(C_FindObjectsInit(session, NULL, 0));
	TRY(C_FindObjects(session, found, 8, &n));
	TRY(C_FindObjectsFinal(session));
	if ((label == NULL ? n != 3 : n < 2) && !finalizing)
		abort();
}

static void *work(void *number) {
	CK_ULONG mine = (CK_ULONG)number;
	CK_SESSION_HANDLE session = 0, other = 0;
	TRY(C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &session));
	CK_OBJECT_HANDLE key = own_key(session, mine);
	for (CK_ULONG round = 0; !over; round++) {
		sign(session, key, round);
		together();
		if (label != NULL && round % 4 == 0)
			sign_kept(session, round);
		if (round % 16 == mine % 16) {
			find(session);
			TRY(C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &other));
			sign(other, key, round);
			TRY(C_CloseSession(other));
		}
		rounds++;
	}
	TRY(C_CloseSession(session));
	return NULL;
}

// use_forked uses the module in a child, where it must be as if nobody had ever.
static void use_forked(void) {
	CK_SESSION_HANDLE session = 0;
	if (p11->C_GenerateRandom(shared, NULL, 0) != CKR_CRYPTOKI_NOT_INITIALIZED || p11->C_Finalize(NULL) != CKR_CRYPTOKI_NOT_INITIALIZED)
		_exit(3);
	begin(NULL);
	TRY(C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &session));
	CK_OBJECT_HANDLE key = own_key(session, 1000);
	for (CK_ULONG round = 0; round < 20; round++) {
		sign(session, key, round);
		if (label != NULL)
			sign_kept(session, round);
	}
	TRY(C_Finalize(NULL));
	_exit(0);
}

static void fork_some(time_t until) {
	while (time(NULL) < until) {
		pid_t pid = fork();
		if (pid == 0)
			use_forked();
		int status = -1;
		while (waitpid(pid, &status, 0) != pid && errno == EINTR) {
		}
		if (status != 0) {
			fprintf(stderr, "a child ended with %x\n", status);
			_exit(1);
		}
	}
}

static void nothing(int number) {
	(void)number;
}

// interrupt has a signal come every 3 milliseconds, which no system call is restarted after.
static void interrupt(void) {
	struct sigaction action = { .sa_handler = nothing };
	struct itimerval often = { { 0, 3000 }, { 0, 3000 } };
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
}

int main(int argc, char **argv) {
	if (argc < 5)
		return 2;
	unsigned long threads = strtoul(argv[2], NULL, 10);
	time_t until = time(NULL) + atoi(argv[3]);
	bool forks = strcmp(argv[4], "fork") == 0, finalizes = strcmp(argv[4], "finalize") == 0;
	if (argc > 5)
		label = argv[5];
	void *module = dlopen(argv[1], RTLD_NOW);
	CK_RV (*get)(CK_FUNCTION_LIST **) = NULL;
	if (module != NULL)
		*(void **)&get = dlsym(module, "C_GetFunctionList");
	if (get == NULL || get(&p11) != CKR_OK)
		return 2;
	CK_C_INITIALIZE_ARGS args = { .flags = CKF_OS_LOCKING_OK };
	begin(&args);
	interrupt();
	pthread_t all[256];
	if (threads > 256)
		return 2;
	for (unsigned long k = 0; k < threads; k++)
		if (pthread_create(&all[k], NULL, work, (void *)(k + 1)) != 0)
			return 2;
	if (forks)
		fork_some(until);
	else
		while (time(NULL) < until)
			usleep(10000);
	if (finalizes) {
		finalizing = true;
		TRY(C_Finalize(NULL));
		usleep(100000);
	}
	over = true;
	for (unsigned long k = 0; k < threads; k++)
		pthread_join(all[k], NULL);
	if (!finalizes)
		TRY(C_Finalize(NULL));
	printf("%lu\n", rounds);
	return 0;
}
