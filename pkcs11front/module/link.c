#include "link.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define OFFER 0xa1u // the octet that says which dialect is spoken
#define COOKIE 32   // hexadecimal digits

static const char default_path[] = "/run/keyward/pkcs11.sock";
static const unsigned default_timeout = 10; // seconds
static const long first_pause = 10, last_pause = 500; // milliseconds between attempts to connect
static const long refused_pause = 1000;               // milliseconds until the daemon is asked for one more connection after it refused
static const size_t in_keep = 64 * 1024; // a larger buffer is given back after use

// The octets that begin p11-kit's protocol.
static const char handshake[] = "PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1";

static struct pool {
	// lock guards what follows, and is never held while anything waits for the daemon.
	pthread_mutex_t lock;
	pthread_cond_t changed; // a connection is free, or there may be room for another, or all is over
	struct link *free[POOL_LINKS];
	size_t n_free;
	bool used[POOL_LINKS + WAIT_LINKS]; // the link is taken, free, or being connected
	size_t n_used;                      // of the first POOL_LINKS
	size_t enough;                      // no more than these, until retry: the daemon has refused one
	struct timespec retry;
	uint64_t epoch;
	bool stopped;

	// Set by pool_start, then only read.
	struct sockaddr_un address;
	bool addressable;
	unsigned timeout; // seconds
	char cookie[COOKIE + 1];
	struct link links[POOL_LINKS + WAIT_LINKS];
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER, .stopped = true };

// descriptors is held while a descriptor is opened or closed and written down, so that a child of fork knows which it has inherited.
static pthread_mutex_t descriptors = PTHREAD_MUTEX_INITIALIZER;

void pool_prepare(void) {
	for (size_t k = 0; k < POOL_LINKS + WAIT_LINKS; k++)
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
	uint8_t drawn[COOKIE / 2];
	for (size_t got = 0; got < sizeof drawn;) {
		ssize_t n = getrandom(drawn + got, sizeof drawn - got, 0);
		if (n < 0 && errno != EINTR)
			return CKR_GENERAL_ERROR;
		got += n > 0 ? (size_t)n : 0;
	}
	for (size_t k = 0; k < sizeof drawn; k++)
		snprintf(pool.cookie + 2 * k, 3, "%02x", drawn[k]);

	const char *path = secure_getenv("KEYWARD_PKCS11_SOCKET");
	if (path == NULL || *path == '\0')
		path = default_path;
	pool.address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	pool.addressable = strlen(path) < sizeof pool.address.sun_path;
	if (pool.addressable)
		memcpy(pool.address.sun_path, path, strlen(path));

	pool.timeout = default_timeout;
	const char *timeout = secure_getenv("KEYWARD_PKCS11_TIMEOUT");
	if (timeout != NULL && *timeout >= '0' && *timeout <= '9') {
		char *end;
		unsigned long n = strtoul(timeout, &end, 10);
		if (*end == '\0' && n <= 24 * 60 * 60)
			pool.timeout = (unsigned)n;
	}

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

// Links.

static void link_open(struct link *link) {
	pthread_mutex_lock(&descriptors);
	link->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pthread_mutex_unlock(&descriptors);
}

static void link_close(struct link *link) {
	pthread_mutex_lock(&descriptors);
	int fd = link->fd;
	link->fd = -1;
	if (fd >= 0)
		close(fd);
	pthread_mutex_unlock(&descriptors);
}

static void in_reset(struct link *link) {
	if (link->in_end > 0)
		explicit_bzero(link->in, link->in_end);
	if (link->in_cap > in_keep) {
		free(link->in);
		link->in = NULL;
		link->in_cap = 0;
	}
	link->in_start = link->in_end = 0;
}

void link_begin(struct link *link) {
	out_reset(&link->out);
	in_reset(link);
	link->next_answer = link->serial;
}

void link_frame(struct link *link, enum call call, const uint64_t *session, const struct out *before, struct args args) {
	encode_frame(&link->out, link->serial, call, session, before, args);
	link->serial++;
	if (link->serial == 0) // is no serial; the answers follow it there
		link->serial = 1;
}

enum sent link_send(struct link *link) {
	const uint8_t *p = link->out.data;
	size_t left = link->out.len;
	while (left > 0) {
		ssize_t n = send(link->fd, p, left, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return UNSENT; // the end of the last frame is not out
		p += n;
		left -= (size_t)n;
	}
	return SENT;
}

// in_room makes room for so many octets from in_start on.
static bool in_room(struct link *link, size_t len) {
	if (len <= link->in_cap - link->in_start)
		return true;
	size_t have = link->in_end - link->in_start;
	if (len > link->in_cap) {
		size_t cap = link->in_cap == 0 ? 4096 : link->in_cap;
		while (cap < len)
			cap *= 2;
		uint8_t *in = malloc(cap);
		if (in == NULL)
			return false;
		if (have > 0)
			memcpy(in, link->in + link->in_start, have);
		if (link->in_end > 0)
			explicit_bzero(link->in, link->in_end);
		free(link->in);
		link->in = in;
		link->in_cap = cap;
	} else {
		memmove(link->in, link->in + link->in_start, have);
	}
	link->in_start = 0;
	link->in_end = have;
	return true;
}

// in_fill receives until there are len octets from in_start on.
static enum sent in_fill(struct link *link, size_t len) {
	if (!in_room(link, len))
		return BROKEN;
	while (link->in_end - link->in_start < len) {
		ssize_t n = recv(link->fd, link->in + link->in_end, link->in_cap - link->in_end, 0);
		if (n < 0 && errno == EINTR)
			continue;
		// A Unix socket says ECONNRESET if its peer closed with something unread: at least the end of our last frame.
		if (n < 0 && errno == ECONNRESET)
			return UNSENT;
		if (n <= 0)
			return BROKEN;
		link->in_end += (size_t)n;
	}
	return SENT;
}

bool frame_header(const uint8_t header[WIRE_HEADER], uint32_t serial, uint32_t *body) {
	*body = get_u32(header + 8);
	return get_u32(header) == serial && get_u32(header + 4) == 0 && *body <= WIRE_MAX_BODY;
}

enum sent link_receive(struct link *link, struct in *body) {
	uint32_t len;
	enum sent got = in_fill(link, WIRE_HEADER);
	if (got != SENT)
		return got;
	if (!frame_header(link->in + link->in_start, link->next_answer, &len))
		return NONSENSE;
	link->next_answer = link->next_answer + 1 == 0 ? 1 : link->next_answer + 1;
	got = in_fill(link, WIRE_HEADER + (size_t)len);
	if (got != SENT)
		return got;
	const uint8_t *at = link->in + link->in_start + WIRE_HEADER;
	*body = (struct in){ .at = at, .end = at + len };
	link->in_start += WIRE_HEADER + (size_t)len;
	return SENT;
}

// impatient sets how long the daemon may take to accept, read or answer; 0 is for ever.
static void impatient(struct link *link, unsigned seconds) {
	const struct timeval t = { .tv_sec = (time_t)seconds };
	setsockopt(link->fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
	setsockopt(link->fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
}

// connect_link connects and says who we are: one write, one read. CKR_DEVICE_ERROR: nobody is there; anything else is what the daemon said.
static CK_RV connect_link(struct link *link) {
	if (!pool.addressable)
		return CKR_DEVICE_ERROR;
	link_open(link);
	if (link->fd < 0)
		return CKR_DEVICE_ERROR;
	impatient(link, pool.timeout > 0 ? pool.timeout : 1);
	int connected;
	do
		connected = connect(link->fd, (const struct sockaddr *)&pool.address, sizeof pool.address);
	while (connected != 0 && errno == EINTR);
	if (connected != 0)
		return CKR_DEVICE_ERROR;

	CK_ULONG epoch = 0;
	struct args args = ARGS(arg_in((const CK_BYTE *)handshake, sizeof handshake - 1), arg_byte(1),
		arg_in((const CK_BYTE *)pool.cookie, COOKIE), arg_result(&epoch));
	link->serial = 1;
	link_begin(link);
	out_u8(&link->out, OFFER);
	link_frame(link, CALL_Initialize, NULL, NULL, args);
	if (link->out.rv != CKR_OK)
		return link->out.rv;
	struct in body;
	if (link_send(link) != SENT || in_fill(link, 1) != SENT || link->in[link->in_start++] != OFFER || link_receive(link, &body) != SENT)
		return CKR_DEVICE_ERROR;
	CK_RV rv;
	bool fits;
	if (decode_answer(body, CALL_Initialize, args, &rv, &fits) != ANSWER_OK)
		return CKR_DEVICE_ERROR;
	impatient(link, 0);
	link->epoch = epoch;
	link->fresh = true;
	return rv;
}

// The pool.

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
		p->until = after(t, (long)pool.timeout * 1000);
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
	if (k < POOL_LINKS)
		pool.n_used--;
	pthread_cond_broadcast(&pool.changed);
}

// connect_new connects a link out of [from, to) that is not in use, and gives the lock up meanwhile.
static CK_RV connect_new(size_t from, size_t to, struct link **link) {
	size_t k = from;
	while (k < to && pool.used[k])
		k++;
	if (k == to)
		return CKR_GENERAL_ERROR;
	struct link *l = &pool.links[k];
	pool.used[k] = true;
	if (k < POOL_LINKS)
		pool.n_used++;
	pthread_mutex_unlock(&pool.lock);
	CK_RV rv = connect_link(l);
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
			CK_RV rv = connect_new(0, POOL_LINKS, link);
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

CK_RV wait_take(struct link **link, struct patience *patience) {
	pthread_mutex_lock(&pool.lock);
	CK_RV rv;
	do
		rv = pool.stopped ? CKR_CRYPTOKI_NOT_INITIALIZED : connect_new(POOL_LINKS, POOL_LINKS + WAIT_LINKS, link);
	while (rv == CKR_DEVICE_ERROR && pause_for(patience));
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
	bool idle[POOL_LINKS + WAIT_LINKS] = { false };
	for (size_t k = 0; k < pool.n_free; k++)
		idle[pool.free[k] - pool.links] = true;
	pthread_mutex_lock(&descriptors);
	for (size_t k = 0; k < POOL_LINKS + WAIT_LINKS; k++)
		if (!idle[k] && pool.links[k].fd >= 0)
			shutdown(pool.links[k].fd, SHUT_RDWR);
	pthread_mutex_unlock(&descriptors);
	pthread_mutex_unlock(&pool.lock);
}

// farewell ends the application at the daemon, if it is there and answers soon.
static void farewell(struct link *link) {
	struct in body;
	impatient(link, 1);
	link_begin(link);
	link_frame(link, CALL_Finalize, NULL, NULL, NO_ARGS);
	if (link->out.rv == CKR_OK && link_send(link) == SENT)
		(void)link_receive(link, &body); // the application ends anyhow, a while after its connections
}

void pool_stop(void) {
	if (pool.n_free > 0)
		farewell(pool.free[pool.n_free - 1]);
	for (size_t k = 0; k < POOL_LINKS + WAIT_LINKS; k++) {
		struct link *link = &pool.links[k];
		link_begin(link);
		link_close(link);
		out_free(&link->out);
		free(link->in);
		*link = (struct link){ .fd = -1 };
	}
	pool.n_free = 0;
	explicit_bzero(pool.cookie, sizeof pool.cookie);
	pthread_cond_destroy(&pool.changed);
}

void pool_before_fork(void) {
	pthread_mutex_lock(&pool.lock);
	pthread_mutex_lock(&descriptors);
}

void pool_after_fork_parent(void) {
	pthread_mutex_unlock(&descriptors);
	pthread_mutex_unlock(&pool.lock);
}

void pool_after_fork_child(void) {
	bool idle[POOL_LINKS + WAIT_LINKS] = { false };
	for (size_t k = 0; k < pool.n_free; k++)
		idle[pool.free[k] - pool.links] = true;
	for (size_t k = 0; k < POOL_LINKS + WAIT_LINKS; k++) {
		struct link *link = &pool.links[k];
		if (link->fd >= 0)
			close(link->fd);
		// Buffers that another thread was at may be in any state: they stay where they are.
		if (idle[k]) {
			out_free(&link->out);
			free(link->in);
		}
		*link = (struct link){ .fd = -1 };
	}
	pool.n_free = pool.n_used = 0;
	pool.stopped = true;
	explicit_bzero(pool.cookie, sizeof pool.cookie);
	pthread_mutex_unlock(&descriptors);
	pthread_mutex_unlock(&pool.lock);
	// changed is made anew by pool_start.
}
