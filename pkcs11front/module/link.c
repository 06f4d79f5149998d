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
// A daemon works on a call for two minutes at the most. One that does not read or answer for longer is none.
#ifndef ANSWER_SECONDS
#define ANSWER_SECONDS 150
#endif
static const size_t in_keep = 64 * 1024; // a larger buffer is given back after use

// The octets that begin p11-kit's protocol.
static const char handshake[] = "PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1";

// Where the daemon is, and who we are to it. Set by link_start, then only read.
static struct {
	struct sockaddr_un address;
	bool addressable;
	unsigned timeout; // seconds
	char cookie[COOKIE + 1];
} peer;

// descriptors is held while a descriptor is opened or closed and written down, so that a child of fork knows which it has inherited.
static pthread_mutex_t descriptors = PTHREAD_MUTEX_INITIALIZER;

CK_RV link_start(void) {
	uint8_t drawn[COOKIE / 2];
	for (size_t got = 0; got < sizeof drawn;) {
		ssize_t n = getrandom(drawn + got, sizeof drawn - got, 0);
		if (n < 0 && errno != EINTR)
			return CKR_GENERAL_ERROR;
		got += n > 0 ? (size_t)n : 0;
	}
	for (size_t k = 0; k < sizeof drawn; k++)
		snprintf(peer.cookie + 2 * k, 3, "%02x", drawn[k]);

	const char *path = secure_getenv("KEYWARD_PKCS11_SOCKET");
	if (path == NULL || *path == '\0')
		path = default_path;
	peer.address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	peer.addressable = strlen(path) < sizeof peer.address.sun_path;
	if (peer.addressable)
		memcpy(peer.address.sun_path, path, strlen(path));

	peer.timeout = default_timeout;
	const char *timeout = secure_getenv("KEYWARD_PKCS11_TIMEOUT");
	if (timeout != NULL && *timeout >= '0' && *timeout <= '9') {
		char *end;
		unsigned long n = strtoul(timeout, &end, 10);
		if (*end == '\0' && n <= 24 * 60 * 60)
			peer.timeout = (unsigned)n;
	}
	return CKR_OK;
}

void link_stop(void) {
	explicit_bzero(peer.cookie, sizeof peer.cookie);
}

unsigned link_timeout(void) {
	return peer.timeout;
}

static void link_open(struct link *link) {
	pthread_mutex_lock(&descriptors);
	link->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pthread_mutex_unlock(&descriptors);
}

void link_close(struct link *link) {
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

// timed_out says of a call that just failed whether it waited for too long.
static bool timed_out(void) {
	return errno == EAGAIN || errno == EWOULDBLOCK;
}

enum sent link_send(struct link *link) {
	const uint8_t *p = link->out.data;
	size_t left = link->out.len;
	while (left > 0) {
		ssize_t n = send(link->fd, p, left, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return timed_out() ? SILENT : UNSENT; // the end of the last frame is not out
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
		if (n < 0 && timed_out())
			return SILENT;
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

void link_impatient(struct link *link, unsigned seconds) {
	const struct timeval t = { .tv_sec = (time_t)seconds };
	setsockopt(link->fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
	setsockopt(link->fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
}

CK_RV link_connect(struct link *link) {
	if (!peer.addressable)
		return CKR_DEVICE_ERROR;
	link_open(link);
	if (link->fd < 0)
		return CKR_DEVICE_ERROR;
	link_impatient(link, peer.timeout > 0 ? peer.timeout : 1);
	int connected;
	do
		connected = connect(link->fd, (const struct sockaddr *)&peer.address, sizeof peer.address);
	while (connected != 0 && errno == EINTR);
	if (connected != 0)
		return CKR_DEVICE_ERROR;

	CK_ULONG epoch = 0;
	struct args args = ARGS(arg_in((const CK_BYTE *)handshake, sizeof handshake - 1), arg_byte(1),
		arg_in((const CK_BYTE *)peer.cookie, COOKIE), arg_result(&epoch));
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
	link_impatient(link, ANSWER_SECONDS);
	link->epoch = epoch;
	link->fresh = true;
	return rv;
}

void link_free(struct link *link) {
	out_free(&link->out);
	free(link->in);
	*link = (struct link){ .fd = -1 };
}

void link_shutdown(struct link *link) {
	pthread_mutex_lock(&descriptors);
	if (link->fd >= 0)
		shutdown(link->fd, SHUT_RDWR);
	pthread_mutex_unlock(&descriptors);
}

void link_before_fork(void) {
	pthread_mutex_lock(&descriptors);
}

void link_after_fork(void) {
	pthread_mutex_unlock(&descriptors);
}

void link_inherited(struct link *link, bool idle) {
	if (link->fd >= 0)
		close(link->fd);
	if (idle)
		link_free(link);
	*link = (struct link){ .fd = -1 };
}
