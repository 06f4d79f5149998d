#include "login.h"

#include <string.h>
#include <sys/mman.h>

#include "exchange.h"

#define LOGINS 32   // tokens that one process is logged in to and that are remembered
#define PAGE 4096   // octets of locked memory for one; a longer login is not remembered
#define USER_LEN 8u // a login begins with the type of the user

static struct {
	// lock is held while a login is repeated, so that one does it and the others wait.
	pthread_mutex_t lock;
	struct login {
		bool used;
		CK_SLOT_ID slot;
		enum call call;
		uint64_t epoch; // at which the daemon has it
		bool pin;
		uint8_t *page; // of locked memory; made when it is needed, and kept until all is over
		size_t len;
	} all[LOGINS];
} logins = { .lock = PTHREAD_MUTEX_INITIALIZER };

static uint8_t *page_new(void) {
	void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return NULL;
	if (mlock(page, PAGE) != 0 || madvise(page, PAGE, MADV_DONTDUMP) != 0 || madvise(page, PAGE, MADV_WIPEONFORK) != 0) {
		munmap(page, PAGE); // then nothing is remembered
		return NULL;
	}
	return page;
}

static void wipe(struct login *l) {
	l->used = false;
	if (l->page != NULL)
		explicit_bzero(l->page, PAGE);
	l->len = 0;
}

static struct login *find(CK_SLOT_ID slot) {
	for (size_t k = 0; k < LOGINS; k++)
		if (logins.all[k].used && logins.all[k].slot == slot)
			return &logins.all[k];
	return NULL;
}

static struct login *find_or_free(CK_SLOT_ID slot) {
	struct login *l = find(slot);
	for (size_t k = 0; k < LOGINS && l == NULL; k++)
		if (!logins.all[k].used)
			l = &logins.all[k];
	return l;
}

// put writes a login, under the lock.
static void put(struct login *l, CK_SLOT_ID slot, enum call call, struct args args, uint64_t epoch) {
	struct out o = { .data = NULL };
	encode_args(&o, args);
	if (l->page == NULL)
		l->page = page_new();
	wipe(l);
	if (o.rv == CKR_OK && l->page != NULL && o.len <= PAGE) {
		memcpy(l->page, o.data, o.len);
		*l = (struct login){ .used = true, .slot = slot, .call = call, .epoch = epoch, .pin = args.at[1].in != NULL, .page = l->page, .len = o.len };
	}
	out_free(&o);
}

void login_remember(CK_SLOT_ID slot, enum call call, struct args args, uint64_t epoch) {
	pthread_mutex_lock(&logins.lock);
	struct login *l = find_or_free(slot);
	if (l != NULL)
		put(l, slot, call, args, epoch);
	pthread_mutex_unlock(&logins.lock);
}

void login_forget(CK_SLOT_ID slot) {
	pthread_mutex_lock(&logins.lock);
	struct login *l = find(slot);
	if (l != NULL)
		wipe(l);
	pthread_mutex_unlock(&logins.lock);
}

void login_forget_all(void) {
	pthread_mutex_lock(&logins.lock);
	for (size_t k = 0; k < LOGINS; k++) {
		struct login *l = &logins.all[k];
		wipe(l);
		if (l->page != NULL)
			munmap(l->page, PAGE);
		l->page = NULL;
	}
	pthread_mutex_unlock(&logins.lock);
}

void login_new_pin(CK_SLOT_ID slot, const CK_BYTE *pin, CK_ULONG len) {
	pthread_mutex_lock(&logins.lock);
	struct login *l = find(slot);
	if (l != NULL && l->pin && l->call == CALL_Login) {
		struct in i = { .at = l->page, .end = l->page + USER_LEN };
		put(l, slot, CALL_Login, ARGS(arg_ulong(in_u64(&i)), arg_in(pin, len)), l->epoch);
	} else if (l != NULL && l->pin) {
		wipe(l); // its PIN may be wrong now
	}
	pthread_mutex_unlock(&logins.lock);
}

enum sent login_restore(struct link *link, CK_SLOT_ID slot, uint64_t server) {
	enum sent sent = SENT;
	pthread_mutex_lock(&logins.lock);
	struct login *l = find(slot);
	if (l != NULL && l->epoch != link->epoch) {
		struct exchange x;
		struct out login = { .data = l->page, .len = l->len };
		exchange_begin(&x, link);
		exchange_add(&x, l->call, &server, &login, NO_ARGS);
		sent = exchange_run(&x);
		if (sent == SENT && (x.frames[0].rv == CKR_OK || x.frames[0].rv == CKR_USER_ALREADY_LOGGED_IN))
			l->epoch = link->epoch;
		else if (sent == SENT)
			wipe(l);
	}
	pthread_mutex_unlock(&logins.lock);
	return sent;
}

void login_after_fork_child(void) {
	pthread_mutex_init(&logins.lock, NULL);
	for (size_t k = 0; k < LOGINS; k++) {
		if (logins.all[k].page != NULL)
			munmap(logins.all[k].page, PAGE); // empty here, and not locked
		logins.all[k] = (struct login){ .used = false };
	}
}
