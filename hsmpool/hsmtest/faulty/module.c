//go:build ignore

// A PKCS#11 2.40 module for tests: it passes every call on to another module, and adds what goes wrong in the field:
// latency, return values before or after the effect, hangs, crashes, few sessions. It is never installed.
//
// It is told what to do by the file <its own path>.control (or KEYWARD_FAULTY_CONTROL), which it maps into memory, as
// who gives the orders does. So an order costs a call nothing but a few loads, and the counts are there to be read.
// control/layout.h says what is in it; the Go package of that folder makes it and gives the orders.
//
// A copy of this file under another path is another module with its own orders and its own initialised state. Copies in
// one process share what they wrap: it is initialised with the first copy and finalised with the last.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "control/layout.h"

// PKCS#11 by its binary layout: all that matters to pass a call on.
// U, P and B are the types of the table of functions.
typedef unsigned long U;
typedef void *P;
typedef unsigned char B;
typedef unsigned long CK_RV;
typedef void (*any_function)(void);

enum {
	CKR_OK = 0x0,
	CKR_HOST_MEMORY = 0x2,
	CKR_GENERAL_ERROR = 0x5,
	CKR_ARGUMENTS_BAD = 0x7,
	CKR_FUNCTION_NOT_SUPPORTED = 0x54,
	CKR_SESSION_COUNT = 0xb1,
	CKR_CRYPTOKI_NOT_INITIALIZED = 0x190,
	CKR_CRYPTOKI_ALREADY_INITIALIZED = 0x191,
};

struct info { // CK_INFO
	B version[2], manufacturer[32];
	U flags;
	B description[32], library_version[2];
};

struct token_info { // CK_TOKEN_INFO
	B label[32], manufacturer[32], model[16], serial[16];
	U flags, max_sessions, sessions, max_rw_sessions, rw_sessions, rest[6];
	B hardware_version[2], firmware_version[2], utc_time[16];
};

struct function_list {
	B version[2];
	any_function fn[functions_count];
};

static const uint32_t no_end = UINT32_MAX;

// hub is what the copies in one process share: how many have each wrapped module initialised. The first copy's is everybody's.
struct hub {
	pthread_mutex_t mutex;
	struct shared {
		struct function_list *list;
		int users;
		int foreign; // somebody else has initialised it, and will finalise it
	} shared[8];
} keyward_faulty_hub = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static struct hub *hub;
static struct control *control;
static struct process *mine; // our row of control, for as long as lock is open
static int lock = -1;
static struct function_list *inner; // never changed
static struct function_list list;   // ours
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t serial = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int initialised;
static _Thread_local int hidden; // the call's success will be hidden from the caller

// Sessions that this copy has open.
static struct {
	pthread_mutex_t mutex;
	struct session { U handle, slot; int told; } *all;
	size_t count, room;
	size_t opening; // calls on their way
} sessions = { .mutex = PTHREAD_MUTEX_INITIALIZER };

// find_hub makes this copy the first, or finds who is. Constructors run one at a time.
__attribute__((constructor)) static void find_hub(void) {
	// The program's handle means what is visible to all, and not what only this copy has.
	void *everybody = dlopen(NULL, RTLD_NOW);
	if (everybody != NULL && (hub = dlsym(everybody, "keyward_faulty_hub")) != NULL) return;
	Dl_info self;
	// By a static object: the name of the hub may be bound to another copy's.
	if (dladdr(&control, &self) != 0 && self.dli_fname != NULL)
		// Makes the symbols of this copy visible to the others, and keeps it loaded.
		(void)dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL | RTLD_NODELETE);
	hub = &keyward_faulty_hub;
}

static void complain(const char *what, const char *path) {
	fprintf(stderr, "faulty PKCS#11 module: %s %s\n", what, path);
}

static struct control *map_control(const char *path) {
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		complain(strerror(errno), path);
		return NULL;
	}
	struct stat st;
	struct control *c = NULL;
	if (fstat(fd, &st) == 0 && (uint64_t)st.st_size == sizeof *c) {
		void *p = mmap(NULL, sizeof *c, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (p != MAP_FAILED) c = p;
	}
	close(fd);
	if (c == NULL || memcmp(c->magic, "KWFAULT2", 8) != 0 || c->size != sizeof *c || memchr(c->inner, 0, sizeof c->inner) == NULL) {
		complain("not a control file:", path);
		return NULL;
	}
	return c;
}

static int lock_octet(int fd, int cmd, short how, off_t octet) {
	struct flock l = { .l_type = how, .l_whence = SEEK_SET, .l_start = octet, .l_len = 1 };
	int rv;
	while ((rv = fcntl(fd, cmd, &l)) < 0 && errno == EINTR) {}
	return rv;
}

// claim_row makes a row of the control file ours: the first that no living process has. Its lock is with a file of its own,
// and not with the mapping, so that it ends exactly when this process does, or unloads the module. A child that was forked
// and runs no other program counts with its parent.
static int claim_row(struct control *c, const char *path) {
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || lock_octet(fd, F_OFD_SETLKW, F_WRLCK, LOCK_FILE) < 0) {
		complain(strerror(errno), path);
		if (fd >= 0) close(fd);
		return 0;
	}
	for (int i = 0; i < processes_count && mine == NULL; i++) {
		if (lock_octet(fd, F_OFD_SETLK, F_WRLCK, LOCK_PROCESS + i) < 0) continue;
		mine = &c->processes[i];
		atomic_store(&mine->opened, 0);
		atomic_store(&mine->closed, 0);
		atomic_store(&mine->hanging, 0);
	}
	(void)lock_octet(fd, F_OFD_SETLK, F_UNLCK, LOCK_FILE);
	if (mine == NULL) {
		complain("more processes than it has rows for share", path);
		close(fd);
		return 0;
	}
	lock = fd;
	return 1;
}

// Unloaded, we have nothing open. The mapping stays: threads may be on their way out.
__attribute__((destructor)) static void give_row_back(void) {
	if (lock >= 0) close(lock);
	lock = -1;
}

static struct function_list *load_inner(const char *path) {
	void *lib = dlopen(path, RTLD_NOW);
	if (lib == NULL) {
		complain("can't load", path);
		return NULL;
	}
	CK_RV (*get)(struct function_list **);
	*(void **)&get = dlsym(lib, "C_GetFunctionList");
	struct function_list *l = NULL;
	if (get == NULL || get(&l) != CKR_OK || l == NULL) {
		complain("no PKCS#11 module:", path);
		return NULL;
	}
	return l;
}

static uint64_t random_below(uint64_t n) {
	static _Thread_local uint64_t x;
	if (x == 0) x = (uint64_t)(uintptr_t)&x ^ 0x9e3779b97f4a7c15;
	x ^= x << 13, x ^= x >> 7, x ^= x << 17;
	return x % n;
}

static uint64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

// By the end and not by the length: the Go runtime interrupts its threads with signals.
static void sleep_until(uint64_t ns) {
	struct timespec t = { .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000) };
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {}
}

// sleep_for is right in the mean: what the kernel adds is much beside an HSM's latency. A thread that sleeps here keeps the least
// timer slack, in place of 50 us. How late it is woken up then, a virtual machine by some 30 us, it learns, and sleeps shorter by so
// much. It never waits awake: with many threads that would take the processors from those who measure.
static void sleep_for(uint64_t ns) {
	static _Thread_local int precise;
	static _Thread_local uint64_t late; // in the mean of the last times
	if (!precise) (void)prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL), precise = 1;
	if (ns <= late) {
		late -= late / 8; // not slept at all: short delays alone must not be left out for ever
		return;
	}
	uint64_t wake = now() + ns - late;
	sleep_until(wake);
	uint64_t this_time = now() - wake;
	if (this_time > 100000) this_time = 100000; // a busy machine is no reason to sleep too short
	late = (7 * late + this_time) / 8;
}

// shot is what a call gets of its rule.
struct shot {
	uint32_t what, version;
	CK_RV code;
	int locked;
	double slow;    // times as long as the effect takes; 0: as long
	uint64_t began; // the effect, if slow
};

// take gives a call its part of the rule.
static struct shot take(struct rule *r) {
	uint64_t ticket = atomic_load(&r->ticket);
	for (uint64_t nth = 0;;) {
		uint32_t version = (uint32_t)(ticket >> 32), left = (uint32_t)ticket;
		if (version & 1) { // the writer is at it
			ticket = atomic_load(&r->ticket);
			continue;
		}
		if (left == 0) return (struct shot){ 0 };
		struct shot s = { .what = atomic_load(&r->what), .version = version, .code = atomic_load(&r->code) };
		uint32_t every = atomic_load(&r->every);
		if (nth == 0) nth = atomic_fetch_add(&r->seen, 1) + 1;
		if (every > 1 && nth % every != 0) return (struct shot){ 0 };
		if (left == no_end) {
			if (atomic_load(&r->ticket) != ticket) {
				ticket = atomic_load(&r->ticket);
				continue;
			}
		} else if (!atomic_compare_exchange_strong(&r->ticket, &ticket, ticket - 1)) {
			continue;
		}
		atomic_fetch_add(&r->fired, 1);
		return s;
	}
}

// enter is before the effect. It says whether there is to be one; if not, *rv is what to answer.
static int enter(int i, struct shot *s, CK_RV *rv) {
	struct rule *r = &control->rules[i];
	atomic_fetch_add_explicit(&r->calls, 1, memory_order_relaxed);
	*s = take(r);
	s->locked = atomic_load_explicit(&control->serialise, memory_order_relaxed) != 0 && i != I_C_WaitForSlotEvent;
	if (s->locked) pthread_mutex_lock(&serial);
	uint64_t delay = atomic_load_explicit(&r->delay, memory_order_relaxed);
	uint64_t jitter = atomic_load_explicit(&r->jitter, memory_order_relaxed);
	if (jitter != 0) delay += random_below(jitter + 1);
	if (delay != 0) sleep_for(delay);
	switch (s->what) {
	case FAIL_BEFORE:
		*rv = s->code;
		return 0;
	case HANG:
		atomic_fetch_add(&mine->hanging, 1);
		while ((uint32_t)(atomic_load(&r->ticket) >> 32) == s->version) sleep_until(now() + 200000);
		atomic_fetch_sub(&mine->hanging, 1);
		break;
	case CRASH: {
		int *volatile nowhere = NULL;
		*(volatile int *)nowhere = 1;
		break;
	}
	case EXIT:
		_exit((int)s->code);
	}
	if (!atomic_load_explicit(&initialised, memory_order_acquire) && i != I_C_Initialize && i != I_C_GetFunctionList) {
		*rv = CKR_CRYPTOKI_NOT_INITIALIZED;
		return 0;
	}
	hidden = s->what == FAIL_AFTER;
	uint64_t slow = atomic_load_explicit(&r->slow, memory_order_relaxed);
	if (slow != 0) {
		memcpy(&s->slow, &slow, sizeof s->slow);
		s->began = now();
	}
	return 1;
}

// leave is after the effect, or what was instead.
static CK_RV leave(const struct shot *s, CK_RV rv) {
	hidden = 0;
	if (s->slow > 1) sleep_for((uint64_t)((s->slow - 1) * (double)(now() - s->began)));
	if (s->locked) pthread_mutex_unlock(&serial);
	return s->what == FAIL_AFTER ? s->code : rv;
}

#define INNER(name, decl, args) \
	(inner->fn[I_##name] == NULL ? (CK_RV)CKR_FUNCTION_NOT_SUPPORTED : ((CK_RV (*)decl)inner->fn[I_##name])args)

static struct shared *shared_inner(void) {
	for (size_t i = 0; i < sizeof hub->shared / sizeof hub->shared[0]; i++) {
		struct shared *s = &hub->shared[i];
		if (s->list == NULL) s->list = inner;
		if (s->list == inner) return s;
	}
	return NULL;
}

static CK_RV do_C_Initialize(P args) {
	if (atomic_load(&initialised)) return CKR_CRYPTOKI_ALREADY_INITIALIZED;
	pthread_mutex_lock(&hub->mutex);
	struct shared *s = shared_inner();
	CK_RV rv = s == NULL ? CKR_HOST_MEMORY : CKR_OK;
	if (rv == CKR_OK && s->users == 0) {
		rv = INNER(C_Initialize, (P), (args));
		s->foreign = rv == CKR_CRYPTOKI_ALREADY_INITIALIZED;
		if (s->foreign) rv = CKR_OK;
	}
	if (rv == CKR_OK) {
		s->users++;
		atomic_store(&initialised, 1);
	}
	pthread_mutex_unlock(&hub->mutex);
	return rv;
}

// forget_sessions drops those of a slot, or all, and closes them if asked to.
static void forget_sessions(int every, U slot, int close_them) {
	pthread_mutex_lock(&sessions.mutex);
	size_t kept = 0;
	for (size_t i = 0; i < sessions.count; i++) {
		struct session *s = &sessions.all[i];
		if (!every && s->slot != slot) {
			sessions.all[kept++] = *s;
			continue;
		}
		if (s->told) atomic_fetch_add(&mine->closed, 1);
		if (close_them) (void)INNER(C_CloseSession, (U), (s->handle));
	}
	sessions.count = kept;
	pthread_mutex_unlock(&sessions.mutex);
}

static CK_RV do_C_Finalize(P args) {
	pthread_mutex_lock(&hub->mutex);
	struct shared *s = shared_inner();
	if (s == NULL || !atomic_load(&initialised)) {
		pthread_mutex_unlock(&hub->mutex);
		return CKR_CRYPTOKI_NOT_INITIALIZED;
	}
	int last = s->users == 1 && !s->foreign;
	CK_RV rv = CKR_OK;
	forget_sessions(1, 0, 1);
	if (last) rv = INNER(C_Finalize, (P), (args));
	if (rv == CKR_OK) {
		s->users--;
		atomic_store(&initialised, 0);
	}
	pthread_mutex_unlock(&hub->mutex);
	return rv;
}

static CK_RV do_C_GetInfo(P p) {
	CK_RV rv = INNER(C_GetInfo, (P), (p));
	if (rv == CKR_OK && control->manufacturer[0] != 0)
		memcpy(((struct info *)p)->manufacturer, control->manufacturer, sizeof control->manufacturer);
	return rv;
}

static CK_RV do_C_GetFunctionList(P p) {
	if (p == NULL) return CKR_ARGUMENTS_BAD;
	*(struct function_list **)p = &list;
	return CKR_OK;
}

static CK_RV do_C_GetTokenInfo(U slot, P p) {
	CK_RV rv = INNER(C_GetTokenInfo, (U, P), (slot, p));
	if (rv == CKR_OK && atomic_load(&control->session_limit) != 0) {
		struct token_info *t = p;
		t->max_sessions = t->max_rw_sessions = (U)atomic_load(&control->session_report);
	}
	return rv;
}

static CK_RV do_C_OpenSession(U slot, U flags, P application, P notify, P out) {
	int told = !hidden;
	uint64_t limit = atomic_load(&control->session_limit);
	pthread_mutex_lock(&sessions.mutex);
	if (limit != 0 && sessions.count + sessions.opening >= limit) {
		pthread_mutex_unlock(&sessions.mutex);
		return CKR_SESSION_COUNT;
	}
	if (sessions.count + sessions.opening >= sessions.room) {
		size_t room = 2 * sessions.room + 64;
		struct session *all = realloc(sessions.all, room * sizeof *all);
		if (all == NULL) {
			pthread_mutex_unlock(&sessions.mutex);
			return CKR_HOST_MEMORY;
		}
		sessions.all = all, sessions.room = room;
	}
	sessions.opening++;
	pthread_mutex_unlock(&sessions.mutex);

	U handle = 0;
	CK_RV rv = INNER(C_OpenSession, (U, U, P, P, P), (slot, flags, application, notify, &handle));

	pthread_mutex_lock(&sessions.mutex);
	sessions.opening--;
	if (rv == CKR_OK) {
		sessions.all[sessions.count++] = (struct session){ handle, slot, told };
		if (told) {
			*(U *)out = handle;
			atomic_fetch_add(&mine->opened, 1);
		}
	}
	pthread_mutex_unlock(&sessions.mutex);
	return rv;
}

static CK_RV do_C_CloseSession(U handle) {
	CK_RV rv = INNER(C_CloseSession, (U), (handle));
	if (rv != CKR_OK) return rv;
	pthread_mutex_lock(&sessions.mutex);
	for (size_t i = 0; i < sessions.count; i++) {
		if (sessions.all[i].handle != handle) continue;
		if (sessions.all[i].told) atomic_fetch_add(&mine->closed, 1);
		sessions.all[i] = sessions.all[--sessions.count];
		break;
	}
	pthread_mutex_unlock(&sessions.mutex);
	return rv;
}

static CK_RV do_C_CloseAllSessions(U slot) {
	CK_RV rv = INNER(C_CloseAllSessions, (U), (slot));
	if (rv == CKR_OK) forget_sessions(0, slot, 0);
	return rv;
}

#define PASS(name, decl, args) \
	static CK_RV pass_##name decl { \
		struct shot s; \
		CK_RV rv; \
		if (enter(I_##name, &s, &rv)) rv = INNER(name, decl, args); \
		return leave(&s, rv); \
	}
#define SPECIAL(name, decl, args) \
	static CK_RV pass_##name decl { \
		struct shot s; \
		CK_RV rv; \
		if (enter(I_##name, &s, &rv)) rv = do_##name args; \
		return leave(&s, rv); \
	}
FUNCTIONS(PASS, SPECIAL)

#define ENTRY(name, decl, args) (any_function)pass_##name,
static const any_function entries[functions_count] = { FUNCTIONS(ENTRY, ENTRY) };

static void start(void) {
	char path[4096];
	const char *given = getenv("KEYWARD_FAULTY_CONTROL");
	Dl_info self;
	if (dladdr(&control, &self) == 0 || self.dli_fname == NULL) return;
	if (snprintf(path, sizeof path, "%s.control", self.dli_fname) >= (int)sizeof path) return;
	// Its own file comes first: the variable is one for all copies of a process.
	const char *file = given != NULL && access(path, F_OK) != 0 ? given : path;
	struct control *c = map_control(file);
	if (c == NULL) return;
	const char *wrapped = c->inner[0] != 0 ? c->inner : getenv("KEYWARD_FAULTY_MODULE");
	if (wrapped == NULL || (inner = load_inner(wrapped)) == NULL) return;
	memcpy(list.version, inner->version, sizeof list.version);
	memcpy(list.fn, entries, sizeof list.fn);
	if (!claim_row(c, file)) return;
	control = c;
}

__attribute__((visibility("default"))) CK_RV C_GetFunctionList(P p);

CK_RV C_GetFunctionList(P p) {
	pthread_once(&once, start);
	if (control == NULL) return CKR_GENERAL_ERROR;
	return pass_C_GetFunctionList(p);
}
