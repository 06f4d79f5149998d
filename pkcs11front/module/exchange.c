#include "exchange.h"

#include <string.h>

#include "login.h"
#include "mechanism.h"

// A request that ends the daemon is not sent for ever. One that is innocent can be hit a few times in a row, by a daemon that only hangs up.
static const unsigned most_broken = 8;

void exchange_begin(struct exchange *x, struct link *link) {
	x->link = link;
	x->n = 0;
	link_begin(link);
}

void exchange_add(struct exchange *x, enum call call, const uint64_t *session, const struct out *before, struct args args) {
	link_frame(x->link, call, session, before, args);
	x->frames[x->n].call = call;
	x->frames[x->n].args = args;
	x->frames[x->n].rv = CKR_OK;
	x->frames[x->n].fits = true;
	x->n++;
}

enum sent exchange_run(struct exchange *x) {
	if (x->link->out.rv != CKR_OK) {
		x->frames[x->n - 1].rv = x->link->out.rv;
		return SENT;
	}
	enum sent sent = link_send(x->link);
	for (size_t k = 0; k < x->n && sent == SENT; k++) {
		struct in body;
		sent = link_receive(x->link, &body);
		if (sent == SENT && decode_answer(body, x->frames[k].call, x->frames[k].args, &x->frames[k].rv, &x->frames[k].fits) != ANSWER_OK)
			sent = NONSENSE;
	}
	return sent;
}

// restore opens a session at a daemon that does not have it, and logs in. The operations that the daemon had are not there any more.
static enum sent restore(struct link *link, struct session *s, CK_RV *rv) {
	CK_ULONG server = 0;
	struct exchange x;
	struct args args = ARGS(arg_ulong(s->slot), arg_ulong(s->flags), arg_result(&server));
	exchange_begin(&x, link);
	exchange_add(&x, CALL_OpenSession, NULL, NULL, args);
	enum sent sent = exchange_run(&x);
	*rv = x.frames[0].rv;
	if (sent != SENT || *rv != CKR_OK)
		return sent;
	sent = login_restore(link, s->slot, server);
	if (sent != SENT)
		return sent;
	s->server = server;
	s->epoch = link->epoch;
	for (size_t k = 0; k < OPERATIONS; k++)
		s->operations[k].live = s->operations[k].suspect = false;
	s->search.live = s->search.stale = false;
	return SENT;
}

CK_RV with_link(struct session *s, unsigned manner, attempt_fn attempt, void *what) {
	struct patience patience = { .started = false };
	for (;;) {
		struct link *link;
		CK_RV rv = pool_take(&link, manner & NO_WAIT ? NULL : &patience);
		if (rv != CKR_OK)
			return rv;
		enum sent sent = SENT;
		bool restoring = s != NULL && s->epoch != link->epoch && !(manner & AS_IT_IS);
		if (restoring)
			sent = restore(link, s, &rv);
		if (sent == SENT && rv == CKR_OK) {
			restoring = false;
			sent = attempt(link, s, what, &rv);
		}
		if (sent == SENT) {
			pool_give(link);
			return rv;
		}
		bool fresh = link->fresh;
		pool_drop(link);
		if (sent == NONSENSE || sent == SILENT)
			return CKR_DEVICE_ERROR;
		// A session that was opened again for nothing does no harm.
		bool again = sent == UNSENT || restoring || manner & REPEAT;
		if (sent == BROKEN && ++patience.broken >= most_broken)
			again = false;
		if (!again || (manner & NO_WAIT && fresh))
			return CKR_DEVICE_ERROR;
		rv = fresh ? pool_pause(&patience) : CKR_OK; // a new connection that breaks is not followed by another at once
		if (rv != CKR_OK)
			return rv;
	}
}

struct plain {
	enum call call;
	struct args args;
};

static enum sent attempt_plain(struct link *link, struct session *s, void *what, CK_RV *rv) {
	const struct plain *p = what;
	struct exchange x;
	exchange_begin(&x, link);
	exchange_add(&x, p->call, s != NULL ? &s->server : NULL, NULL, p->args);
	enum sent sent = exchange_run(&x);
	*rv = x.frames[0].rv;
	return sent;
}

CK_RV call_daemon(enum call call, unsigned manner, struct args args) {
	struct plain p = { .call = call, .args = args };
	CK_RV rv = args_check(args);
	if (rv != CKR_OK)
		return rv;
	return with_link(NULL, manner | (call_facts[call].repeat ? REPEAT : 0), attempt_plain, &p);
}

// use is a call that uses operations of its session.
struct use {
	enum call call;
	struct args args;
	bool fits;
};

// begun says of a set of operations whether a part of one of them is done.
static bool begun(struct session *s, unsigned operations) {
	for (size_t k = 0; k < OPERATIONS; k++)
		if (operations >> k & 1 && s->operations[k].begun)
			return true;
	return false;
}

// lose ends the operations of a set: the daemon does not have them any more, or nobody knows how far they are.
static void lose(struct session *s, unsigned operations) {
	for (size_t k = 0; k < OPERATIONS; k++) {
		if (operations >> k & 1) {
			s->operations[k].lost = true;
			s->operations[k].active = s->operations[k].live = false;
			s->operations[k].suspect = true;
		}
	}
}

// cancel adds the Init that ends an operation of the daemon's. Its answer may have a size like that of any Init, which means nothing.
static void cancel(struct exchange *x, const struct session *s, enum call init, CK_ULONG *ignored) {
	struct arg *args = x->cancels[x->n];
	size_t n = 0;
	args[n++] = arg_mechanism(NULL);
	if (call_facts[init].request[2] != '\0') // not C_DigestInit
		args[n++] = arg_ulong(CK_INVALID_HANDLE);
	if (call_facts[init].answer[0] != '\0')
		args[n++] = arg_result(ignored);
	exchange_add(x, init, &s->server, NULL, (struct args){ .at = args, .n = n });
}

static enum sent attempt_use(struct link *link, struct session *s, void *what, CK_RV *rv) {
	struct use *u = what;
	const unsigned operations = call_facts[u->call].operations;
	struct exchange x;
	struct operation *inits[EXCHANGE_FRAMES] = { NULL }; // whose Init a frame is
	CK_ULONG sizes[EXCHANGE_FRAMES] = { 0 };
	struct arg size_args[EXCHANGE_FRAMES];
	CK_ULONG ignored;

	exchange_begin(&x, link);
	for (size_t k = 0; k < OPERATIONS; k++) {
		struct operation *op = &s->operations[k];
		if (!(operations >> k & 1) || op->live)
			continue;
		if (op->begun) { // and the daemon has been away
			lose(s, operations);
			*rv = CKR_DEVICE_ERROR;
			return SENT;
		}
		if (op->suspect)
			cancel(&x, s, op->init_call, &ignored);
		inits[x.n] = op;
		size_args[x.n] = arg_result(&sizes[x.n]);
		bool tells = call_facts[op->init_call].answer[0] != '\0';
		exchange_add(&x, op->init_call, &s->server, &op->init, (struct args){ .at = &size_args[x.n], .n = tells ? 1 : 0 });
	}
	exchange_add(&x, u->call, &s->server, NULL, u->args);
	enum sent sent = exchange_run(&x);
	for (size_t k = 0; k < OPERATIONS && sent != SENT; k++) {
		struct operation *op = &s->operations[k];
		if (!(operations >> k & 1))
			continue;
		op->live = op->live && sent == UNSENT; // it got no further than it was
		op->suspect = !op->live;
	}
	if (sent != SENT)
		return sent;
	*rv = x.frames[x.n - 1].rv;
	u->fits = x.frames[x.n - 1].fits;
	if (link->out.rv != CKR_OK)
		return SENT; // the daemon has seen nothing
	for (size_t k = 0; k < x.n; k++) {
		struct operation *op = inits[k];
		if (op == NULL)
			continue;
		if (x.frames[k].rv == CKR_OK) {
			op->live = true;
			op->suspect = false;
			op->size = sizes[k];
			cache_store(&op->shape, link->epoch, op->size);
		} else { // the Init's answer is the one to believe
			*rv = x.frames[k].rv;
			u->fits = true;
			op->suspect = *rv == CKR_OPERATION_ACTIVE;
			cache_forget(&op->shape);
		}
	}
	return SENT;
}

// account notes what an answer means for the operations of a call.
static void account(struct session *s, enum call call, CK_RV rv, bool fits) {
	const struct call_facts *facts = &call_facts[call];
	// An error ends an operation, but not one on messages (PKCS #11 3.0, 5.10 and its like).
	bool goes_on = (rv == CKR_OK && !fits) || rv == CKR_BUFFER_TOO_SMALL;
	bool ends = rv == CKR_OK ? facts->role == ONCE || facts->role == LAST : facts->operations < MESSAGE_ENCRYPT;
	for (size_t k = 0; k < OPERATIONS; k++) {
		struct operation *op = &s->operations[k];
		if (!(facts->operations >> k & 1) || goes_on || op->lost)
			continue;
		if (ends || !op->live)
			operation_end(op, rv == CKR_OK);
		else if (facts->role == PART && rv == CKR_OK)
			op->begun = true;
	}
}

// known answers a question for the size of a result, if that is known without the daemon.
static bool known(struct session *s, enum call call, struct args args, CK_RV *rv) {
	const struct call_facts *facts = &call_facts[call];
	if (facts->role != ONCE && facts->role != LAST)
		return false;
	const struct operation *op = session_operation(s, facts->operations);
	for (size_t k = 0; k < args.n; k++) {
		const struct arg *a = &args.at[k];
		if (a->kind != ARG_OUT || op->size == 0)
			continue;
		// What comes out of a decryption may be shorter.
		bool small = a->out != NULL && *a->count < op->size && facts->operations != DECRYPT;
		if (a->out != NULL && !small)
			continue;
		*a->count = op->size;
		*rv = small ? CKR_BUFFER_TOO_SMALL : CKR_OK;
		return true;
	}
	return false;
}

CK_RV session_call(struct session *s, enum call call, struct args args) {
	const struct call_facts *facts = &call_facts[call];
	CK_RV rv = args_check(args);
	if (rv != CKR_OK) {
		if (facts->operations < MESSAGE_ENCRYPT) // as any error of the daemon's would end it
			account(s, call, rv, true);
		return rv;
	}
	if (facts->operations == 0) {
		struct plain p = { .call = call, .args = args };
		return with_link(s, facts->repeat ? REPEAT : 0, attempt_plain, &p);
	}
	for (size_t k = 0; k < OPERATIONS; k++)
		if (facts->operations >> k & 1 && !s->operations[k].active)
			return CKR_OPERATION_NOT_INITIALIZED;
	if (known(s, call, args, &rv))
		return rv;
	for (size_t k = 0; k < OPERATIONS; k++)
		if (facts->operations >> k & 1)
			s->operations[k].lost = false;
	// What is begun can't be done again, if the daemon may have done it.
	struct use u = { .call = call, .args = args };
	bool midway = begun(s, facts->operations);
	rv = with_link(s, midway ? 0 : REPEAT, attempt_use, &u);
	if (rv == CKR_DEVICE_ERROR && midway && !session_operation(s, facts->operations)->live)
		lose(s, facts->operations);
	account(s, call, rv, u.fits);
	return rv;
}

// describe writes down an Init: as it is sent, and its shape.
static CK_RV describe(struct session *s, struct operation *op, enum call call, const CK_MECHANISM *m, const CK_OBJECT_HANDLE *key) {
	// The parameters of messages come with them (3.0 §5.9). What some callers give here is one of those, of which an operation knows nothing.
	CK_MECHANISM bare = { .mechanism = m->mechanism };
	if (call == CALL_MessageEncryptInit || call == CALL_MessageDecryptInit)
		m = &bare;
	op->init_call = call;
	op->block = mechanism_block(m->mechanism);
	op->held = 0;
	out_reset(&op->init);
	encode_mechanism(&op->init, m, WHOLE);
	out_reset(&op->shape);
	out_u64(&op->shape, s->slot);
	out_u32(&op->shape, call);
	encode_mechanism(&op->shape, m, SHAPE);
	if (key != NULL) {
		out_u64(&op->init, *key);
		out_u64(&op->shape, *key);
	}
	return op->init.rv;
}

struct init {
	enum call call;
	struct operation *op;
	bool cancel; // it ends the operation instead
};

static enum sent attempt_init(struct link *link, struct session *s, void *what, CK_RV *rv) {
	struct init *i = what;
	struct operation *op = i->op;
	struct exchange x;
	CK_ULONG size = 0, ignored;
	struct args result = ARGS(arg_result(&size));
	if (call_facts[i->call].answer[0] == '\0')
		result.n = 0;

	if (i->cancel && !op->live && !op->suspect)
		return SENT; // the daemon has none
	exchange_begin(&x, link);
	if (op->suspect || i->cancel)
		cancel(&x, s, i->call, &ignored);
	if (!i->cancel)
		exchange_add(&x, i->call, &s->server, &op->init, result);
	enum sent sent = exchange_run(&x);
	if (sent != SENT) {
		op->suspect = true;
		return sent;
	}
	*rv = x.frames[x.n - 1].rv;
	if (i->cancel)
		return SENT;
	op->active = op->live = *rv == CKR_OK;
	op->size = size;
	if (*rv == CKR_OK) {
		op->suspect = false;
		cache_store(&op->shape, link->epoch, size);
	} else {
		op->suspect = *rv == CKR_OPERATION_ACTIVE;
		cache_forget(&op->shape);
	}
	return SENT;
}

CK_RV session_init(struct session *s, enum call call, const CK_MECHANISM *m, const CK_OBJECT_HANDLE *key) {
	struct operation *op = session_operation(s, call_facts[call].operations);
	struct init i = { .call = call, .op = op, .cancel = m == NULL };
	if (m == NULL) { // PKCS #11 3.0: ends the operation; where there is none it is a mistake, as in 2.40
		if (!op->active)
			return CKR_ARGUMENTS_BAD;
		bool there = op->live || op->suspect;
		op->init_call = call;
		CK_RV rv = there ? with_link(s, REPEAT, attempt_init, &i) : CKR_OK;
		operation_end(op, rv == CKR_OK);
		return rv;
	}
	if (op->active)
		return CKR_OPERATION_ACTIVE;
	CK_RV rv = describe(s, op, call, m, key);
	if (rv != CKR_OK)
		return rv;
	op->size = 0;
	op->begun = false;
	if (call_facts[call].operations < SIGN_RECOVER && cache_known(&op->shape, s->epoch, &op->size)) {
		op->active = true;
		op->live = false;
		return CKR_OK;
	}
	return with_link(s, REPEAT, attempt_init, &i);
}
