#include "search.h"

#include <stdlib.h>
#include <string.h>

#include "attribute.h"
#include "exchange.h"

#define FIRST 512  // handles that come with the Init
#define MORE 16384 // and at most with each call after it

// attempt_fetch gets handles into the buffer. If the daemon does not have the search any more, it is made again from its beginning.
static enum sent attempt_fetch(struct link *link, struct session *s, void *what, CK_RV *rv) {
	CK_ULONG *count = what; // how much room there is, and how many came
	struct search *search = &s->search;
	struct exchange x;
	struct args find = ARGS(arg_list(search->handles, count));
	const CK_ULONG room = *count;

	exchange_begin(&x, link);
	if (!search->live) {
		if (search->stale)
			exchange_add(&x, CALL_FindObjectsFinal, &s->server, NULL, NO_ARGS);
		exchange_add(&x, CALL_FindObjectsInit, &s->server, &search->template, NO_ARGS);
	}
	const size_t init = x.n - (search->live ? 0 : 1);
	exchange_add(&x, CALL_FindObjects, &s->server, NULL, find);
	enum sent sent = exchange_run(&x);
	if (sent != SENT) {
		search->live = false;
		search->stale = true;
		return sent;
	}
	*rv = x.frames[init].rv; // of the Init, if there is one
	if (*rv == CKR_OK && !search->live) {
		search->live = true;
		search->stale = false;
		search->seen = 0;
	}
	if (*rv == CKR_OK)
		*rv = x.frames[x.n - 1].rv;
	if (*rv == CKR_OK) {
		search->seen += *count;
		search->complete = *count < room;
	}
	return SENT;
}

// fetch gets the next handles that the caller has not had.
static CK_RV fetch(struct session *s) {
	struct search *search = &s->search;
	const uint64_t had = search->given;
	const CK_ULONG room = search->live || had > 0 ? MORE : FIRST;
	search->count = search->next = 0;
	CK_ULONG *handles = realloc(search->handles, room * sizeof *handles);
	if (handles == NULL)
		return CKR_HOST_MEMORY;
	search->handles = handles;
	CK_ULONG count;
	do {
		count = room;
		CK_RV rv = with_link(s, REPEAT, attempt_fetch, &count);
		if (rv != CKR_OK)
			return rv;
	} while (!search->complete && search->seen <= had);
	const uint64_t first = search->seen - count; // how many were before those in the buffer
	search->next = first < had ? (size_t)(had - first) : 0;
	search->count = count;
	if (search->next > count)
		search->next = count;
	search->given = search->seen > had ? search->seen : had;
	return CKR_OK;
}

CK_RV search_init(struct session *s, const CK_ATTRIBUTE *template, CK_ULONG count) {
	struct search *search = &s->search;
	if (search->active)
		return CKR_OPERATION_ACTIVE;
	out_reset(&search->template);
	encode_template(&search->template, template, count);
	if (search->template.rv != CKR_OK)
		return search->template.rv;
	search->given = search->seen = 0;
	search->complete = false;
	CK_RV rv = fetch(s);
	search->active = rv == CKR_OK;
	if (rv != CKR_OK && search->live) {
		search->stale = true;
		search->live = false;
	}
	return rv;
}

CK_RV search_next(struct session *s, CK_OBJECT_HANDLE *objects, CK_ULONG max, CK_ULONG *count) {
	struct search *search = &s->search;
	if (!search->active)
		return CKR_OPERATION_NOT_INITIALIZED;
	CK_ULONG n = 0;
	while (n < max) {
		if (search->next == search->count) {
			if (search->complete)
				break;
			CK_RV rv = fetch(s);
			if (rv != CKR_OK && n > 0)
				break; // the next call will say so
			if (rv != CKR_OK)
				return rv;
			continue;
		}
		objects[n++] = search->handles[search->next++];
	}
	*count = n;
	return CKR_OK;
}

CK_RV search_final(struct session *s) {
	struct search *search = &s->search;
	if (!search->active)
		return CKR_OPERATION_NOT_INITIALIZED;
	search->active = false;
	search->stale = search->stale || search->live;
	search->live = false;
	search->count = search->next = 0;
	free(search->handles);
	search->handles = NULL;
	return CKR_OK;
}
