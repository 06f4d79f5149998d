#include "pool.h"

#include <pthread.h>
#include <string.h>

static const long first_pause = 10, last_pause = 500; // milliseconds between attempts to connect
static const long refused_pause = 1000;               // milliseconds until the daemon is asked for one more connection after it refused

static struct pool {
	// lock guards what follows, and is never held while anything waits for the daemon.
	pthread_mutex_t lock;
	pthread_cond_t changed; // a connection is free, or there may be room for another, or all is over
	struct link *free[POOL_LINKS];
	size_t n_free;
	bool used[POOL_LINKS]; // the link is taken, free, or being connected
	size_t n_used;
	size_t enough;                      // no more than these, until retry: the daemon has refused one
	struct timespec retry;
	uint64_t epoch;
	bool stopped;

	struct link links[POOL_LINKS];
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER, .stopped = true };

void pool_prepare(void) {
	for (size_t k = 0; k < POOL_LINKS; k++)
		pool.links[k].fd = -1;
}

static void monotonic(pthread_cond_t *cond) {
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attributes);
	pthread_condattr_destroy(&attributes);
}

CK_RV pool_start(void) {
	CK_RV rv = link_start();
	if (rv != CKR_OK)
		return rv;
	monotonic(&pool.changed);
	pthread_mutex_lock(&pool.lock);
	pool.n_free = pool.n_used = 0;
	pool.enough = POOL_LINKS;
	memset(pool.used, 0, sizeof pool.used);
	pool.epoch = 0;
	pool.stopped = false;
	pthread_mutex_unlock(&pool.lock);
	return CKR_OK;
}

static struct timespec now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t;
}

static struct timespec after(struct timespec t, long milliseconds) {
	t.tv_sec += milliseconds / 1000;
	t.tv_nsec += milliseconds % 1000 * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

static bool before(struct timespec a, struct timespec b) {
	return a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec < b.tv_nsec);
}

// pause_for waits a while before the next attempt, under the lock. False: there was no time left.
static bool pause_for(struct patience *p) {
	struct timespec t = now();
	if (!p->started) {
		p->started = true;
		p->until = after(t, (long)link_timeout() * 1000);
		p->pause = first_pause;
	}
	if (!before(t, p->until) || pool.stopped)
		return false;
	struct timespec until = after(t, p->pause);
	if (before(p->until, until))
		until = p->until;
	p->pause = p->pause * 2 < last_pause ? p->pause * 2 : last_pause;
	while (!pool.stopped && pool.n_free == 0 && pthread_cond_timedwait(&pool.changed, &pool.lock, &until) == 0) {
	}
	return true;
}

// release marks a link as not in use, under the lock.
static void release(struct link *link) {
	size_t k = (size_t)(link - pool.links);
	pool.used[k] = false;
	pool.n_used--;
	pthread_cond_broadcast(&pool.changed);
}

// connect_new connects a link that is not in use, of which there must be one, and gives the lock up meanwhile.
static CK_RV connect_new(struct link **link) {
	size_t k = 0;
	while (pool.used[k])
		k++;
	struct link *l = &pool.links[k];
	pool.used[k] = true;
	pool.n_used++;
	pthread_mutex_unlock(&pool.lock);
	CK_RV rv = link_connect(l);
	if (rv != CKR_OK)
		link_close(l);
	pthread_mutex_lock(&pool.lock);
	if (rv != CKR_OK) {
		release(l);
		return rv;
	}
	pool.epoch = l->epoch;
	*link = l;
	return CKR_OK;
}

// take_once takes a free link or connects one, under the lock.
static CK_RV take_once(struct link **link) {
	for (;;) {
		if (pool.stopped)
			return CKR_CRYPTOKI_NOT_INITIALIZED;
		while (pool.n_free > 0) {
			struct link *l = pool.free[--pool.n_free];
			if (l->epoch == pool.epoch) {
				*link = l;
				return CKR_OK;
			}
			link_close(l); // of a daemon that is gone
			release(l);
		}
		if (pool.enough < POOL_LINKS && !before(now(), pool.retry))
			pool.enough = POOL_LINKS;
		if (pool.n_used < pool.enough) {
			CK_RV rv = connect_new(link);
			if (rv == CKR_OK || rv == CKR_DEVICE_ERROR || pool.n_used == 0)
				return rv;
			// A daemon that has had enough of our connections answers on those that there are.
			pool.enough = pool.n_used;
			pool.retry = after(now(), refused_pause);
			continue;
		}
		pthread_cond_wait(&pool.changed, &pool.lock);
	}
}

CK_RV pool_take(struct link **link, struct patience *patience) {
	pthread_mutex_lock(&pool.lock);
	CK_RV rv = take_once(link);
	while (rv == CKR_DEVICE_ERROR && patience != NULL && pause_for(patience))
		rv = take_once(link);
	pthread_mutex_unlock(&pool.lock);
	return rv;
}

void pool_give(struct link *link) {
	link_begin(link); // nothing of the call stays
	link->fresh = false;
	pthread_mutex_lock(&pool.lock);
	pool.free[pool.n_free++] = link;
	pthread_cond_signal(&pool.changed);
	pthread_mutex_unlock(&pool.lock);
}

void pool_drop(struct link *link) {
	link_begin(link);
	link_close(link);
	pthread_mutex_lock(&pool.lock);
	release(link);
	pthread_mutex_unlock(&pool.lock);
}

CK_RV pool_pause(struct patience *patience) {
	pthread_mutex_lock(&pool.lock);
	CK_RV rv = pause_for(patience) ? CKR_OK : CKR_DEVICE_ERROR;
	if (pool.stopped)
		rv = CKR_CRYPTOKI_NOT_INITIALIZED;
	pthread_mutex_unlock(&pool.lock);
	return rv;
}

uint64_t pool_epoch(void) {
	pthread_mutex_lock(&pool.lock);
	uint64_t epoch = pool.epoch;
	pthread_mutex_unlock(&pool.lock);
	return epoch;
}

void pool_interrupt(void) {
	pthread_mutex_lock(&pool.lock);
	pool.stopped = true;
	pthread_cond_broadcast(&pool.changed);
	// Those that wait for an answer get the end of the stream. The free ones are left for the good-bye.
	bool idle[POOL_LINKS] = { false };
	for (size_t k = 0; k < pool.n_free; k++)
		idle[pool.free[k] - pool.links] = true;
	for (size_t k = 0; k < POOL_LINKS; k++)
		if (!idle[k])
			link_shutdown(&pool.links[k]);
	pthread_mutex_unlock(&pool.lock);
}

// farewell ends the application at the daemon, if it is there and answers soon.
static void farewell(struct link *link) {
	struct in body;
	link_impatient(link, 1);
	link_begin(link);
	link_frame(link, CALL_Finalize, NULL, NULL, NO_ARGS);
	if (link->out.rv == CKR_OK && link_send(link) == SENT)
		(void)link_receive(link, &body); // the application ends anyhow, a while after its connections
}

void pool_stop(void) {
	if (pool.n_free > 0)
		farewell(pool.free[pool.n_free - 1]);
	for (size_t k = 0; k < POOL_LINKS; k++) {
		struct link *link = &pool.links[k];
		link_begin(link);
		link_close(link);
		link_free(link);
	}
	pool.n_free = 0;
	link_stop();
	pthread_cond_destroy(&pool.changed);
}

void pool_before_fork(void) {
	pthread_mutex_lock(&pool.lock);
	link_before_fork();
}

void pool_after_fork_parent(void) {
	link_after_fork();
	pthread_mutex_unlock(&pool.lock);
}

void pool_after_fork_child(void) {
	bool idle[POOL_LINKS] = { false };
	for (size_t k = 0; k < pool.n_free; k++)
		idle[pool.free[k] - pool.links] = true;
	for (size_t k = 0; k < POOL_LINKS; k++)
		link_inherited(&pool.links[k], idle[k]);
	pool.n_free = pool.n_used = 0;
	pool.stopped = true;
	link_stop();
	link_after_fork();
	pthread_mutex_unlock(&pool.lock);
	// changed is made anew by pool_start.
}
