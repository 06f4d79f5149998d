#include "session.h"

#include <stdlib.h>

// A handle is the number of a place in the table, from 1, and above that how often the place was used before: a handle that was closed
// is not soon another's.
#define PLACE_BITS 16
static const size_t most_sessions = (1 << PLACE_BITS) - 2;

static struct {
	// lock guards what follows. It is never held while anything waits, and pool's lock may be taken while it is.
	pthread_mutex_t lock;
	pthread_cond_t left; // inside is 0
	bool open;
	size_t inside; // calls that have entered and not left
	struct place {
		struct session *session; // NULL: free
		uint64_t before;         // how often the place was used
		size_t next_free;        // the next free place; 0 is the end
	} *places;
	size_t n, cap;     // places that were ever used; the first is not
	size_t first_free; // of those
} table = { .lock = PTHREAD_MUTEX_INITIALIZER, .left = PTHREAD_COND_INITIALIZER };

CK_RV enter(void) {
	pthread_mutex_lock(&table.lock);
	bool open = table.open;
	table.inside += open ? 1 : 0;
	pthread_mutex_unlock(&table.lock);
	return open ? CKR_OK : CKR_CRYPTOKI_NOT_INITIALIZED;
}

// depart counts a call out, under the lock.
static void depart(void) {
	if (--table.inside == 0 && !table.open)
		pthread_cond_broadcast(&table.left);
}

void leave(void) {
	pthread_mutex_lock(&table.lock);
	depart();
	pthread_mutex_unlock(&table.lock);
}

static size_t place_of(CK_SESSION_HANDLE handle) {
	return handle & ((1u << PLACE_BITS) - 1);
}

// find gives the session of a handle, under the lock.
static struct session *find(CK_SESSION_HANDLE handle) {
	size_t place = place_of(handle);
	if (place == 0 || place >= table.n || table.places[place].session == NULL || table.places[place].session->handle != handle)
		return NULL;
	return table.places[place].session;
}

static void session_free(struct session *s) {
	for (size_t k = 0; k < OPERATIONS; k++)
		operation_free(&s->operations[k]);
	search_free(&s->search);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

// give_up ends the operations of a session that was abandoned. The session is locked.
static void give_up(struct session *s) {
	pthread_mutex_lock(&table.lock);
	bool abandoned = s->abandoned;
	s->abandoned = false;
	pthread_mutex_unlock(&table.lock);
	for (size_t k = 0; k < OPERATIONS && abandoned; k++)
		operation_end(&s->operations[k], false);
}

CK_RV session_enter(CK_SESSION_HANDLE handle, struct session **session) {
	pthread_mutex_lock(&table.lock);
	struct session *s = table.open ? find(handle) : NULL;
	bool open = table.open, abandoned = false;
	if (s != NULL) {
		s->users++;
		table.inside++;
		abandoned = s->abandoned;
	}
	pthread_mutex_unlock(&table.lock);
	if (!open)
		return CKR_CRYPTOKI_NOT_INITIALIZED;
	if (s == NULL)
		return CKR_SESSION_HANDLE_INVALID;
	pthread_mutex_lock(&s->lock);
	if (s->closed) {
		session_leave(s);
		return CKR_SESSION_HANDLE_INVALID;
	}
	if (abandoned)
		give_up(s);
	*session = s;
	return CKR_OK;
}

// unuse takes one user away, under the table's lock. True: it was the last.
static bool unuse(struct session *s) {
	return --s->users == 0;
}

void session_leave(struct session *s) {
	pthread_mutex_unlock(&s->lock);
	pthread_mutex_lock(&table.lock);
	bool gone = unuse(s);
	depart();
	pthread_mutex_unlock(&table.lock);
	if (gone)
		session_free(s);
}

// place_take finds a free place, under the lock. 0: there is none.
static size_t place_take(void) {
	if (table.first_free != 0) {
		size_t place = table.first_free;
		table.first_free = table.places[place].next_free;
		return place;
	}
	if (table.n == 0)
		table.n = 1;
	if (table.n > most_sessions)
		return 0;
	if (table.n >= table.cap) {
		size_t cap = table.cap == 0 ? 64 : table.cap * 2;
		struct place *places = realloc(table.places, cap * sizeof *places);
		if (places == NULL)
			return 0;
		table.places = places;
		table.cap = cap;
	}
	table.places[table.n] = (struct place){ .session = NULL };
	return table.n++;
}

CK_RV session_add(CK_SLOT_ID slot, CK_FLAGS flags, uint64_t server, uint64_t epoch, CK_SESSION_HANDLE *handle) {
	struct session *s = calloc(1, sizeof *s);
	if (s == NULL)
		return CKR_HOST_MEMORY;
	pthread_mutex_init(&s->lock, NULL);
	s->slot = slot;
	s->flags = flags;
	s->server = server;
	s->epoch = epoch;
	s->users = 1;
	pthread_mutex_lock(&table.lock);
	size_t place = place_take();
	if (place != 0) {
		struct place *p = &table.places[place];
		*handle = s->handle = p->before++ << PLACE_BITS | place;
		p->session = s;
	}
	pthread_mutex_unlock(&table.lock);
	if (place == 0) {
		session_free(s);
		return CKR_SESSION_COUNT;
	}
	return CKR_OK;
}

// take_out takes a session out of the table, under the lock. False: another did so before.
static bool take_out(struct session *s) {
	size_t place = place_of(s->handle);
	if (find(s->handle) != s)
		return false;
	table.places[place].session = NULL;
	table.places[place].next_free = table.first_free;
	table.first_free = place;
	return true;
}

void session_close(struct session *s, bool *last) {
	s->closed = true;
	*last = true;
	pthread_mutex_lock(&table.lock);
	if (take_out(s))
		(void)unuse(s); // the caller still uses it
	for (size_t k = 1; k < table.n && *last; k++)
		*last = table.places[k].session == NULL || table.places[k].session->slot != s->slot;
	pthread_mutex_unlock(&table.lock);
}

void sessions_close(CK_SLOT_ID slot) {
	pthread_mutex_lock(&table.lock);
	for (size_t k = 1; k < table.n; k++) {
		struct session *s = table.places[k].session;
		if (s == NULL || s->slot != slot || !take_out(s))
			continue;
		// The table's use of it becomes ours.
		pthread_mutex_unlock(&table.lock);
		pthread_mutex_lock(&s->lock);
		s->closed = true;
		pthread_mutex_unlock(&s->lock);
		pthread_mutex_lock(&table.lock);
		if (unuse(s))
			session_free(s);
	}
	pthread_mutex_unlock(&table.lock);
}

void sessions_abandon(CK_SLOT_ID slot) {
	pthread_mutex_lock(&table.lock);
	for (size_t k = 1; k < table.n; k++)
		if (table.places[k].session != NULL && table.places[k].session->slot == slot)
			table.places[k].session->abandoned = true;
	pthread_mutex_unlock(&table.lock);
}

struct operation *session_operation(struct session *s, unsigned operations) {
	size_t k = 0;
	while ((operations >> k & 1) == 0)
		k++;
	return &s->operations[k];
}

void search_free(struct search *search) {
	free(search->handles);
	out_free(&search->template);
	*search = (struct search){ .active = false };
}

void sessions_start(void) {
	pthread_mutex_lock(&table.lock);
	table.open = true;
	pthread_mutex_unlock(&table.lock);
}

bool sessions_stop(void) {
	pthread_mutex_lock(&table.lock);
	bool was = table.open;
	table.open = false;
	pthread_mutex_unlock(&table.lock);
	return was;
}

// clear frees the sessions that nobody but the table uses, and empties it, under the lock.
static void clear(void) {
	for (size_t k = 1; k < table.n; k++) {
		struct session *s = table.places[k].session;
		if (s != NULL && s->users == 1)
			session_free(s);
	}
	free(table.places);
	table.places = NULL;
	table.n = table.cap = table.first_free = 0;
}

void sessions_wait(void) {
	pthread_mutex_lock(&table.lock);
	while (table.inside > 0)
		pthread_cond_wait(&table.left, &table.lock);
	clear();
	pthread_mutex_unlock(&table.lock);
}

void sessions_before_fork(void) {
	pthread_mutex_lock(&table.lock);
}

void sessions_after_fork_parent(void) {
	pthread_mutex_unlock(&table.lock);
}

void sessions_after_fork_child(void) {
	// Sessions that other threads were in when the process was copied may be in any state: they stay where they are.
	table.open = false;
	table.inside = 0;
	clear();
	pthread_cond_init(&table.left, NULL);
	pthread_mutex_unlock(&table.lock);
}
