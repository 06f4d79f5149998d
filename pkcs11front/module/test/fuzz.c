// Fuzzes what reads the daemon's answers. fuzz FILE... feeds it files; fuzz -t SECONDS DIR feeds it what it makes of the files in DIR, and
// adds those that get further to them. The first octet of an input chooses the call, the rest is the body of an answer to it.
//
// Buffers for results are pieces of memory of their own, so that AddressSanitizer sees whatever is written beside them.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../calls.h"
#include "../mechanism.h"

// Coverage: which ways from one place of the code to the next were gone, with -fsanitize-coverage=trace-pc.
static unsigned char *seen;
static size_t new_places, last_place;
#define PLACES (1u << 16)

void __sanitizer_cov_trace_pc(void);
__attribute__((no_sanitize("address", "undefined"), no_sanitize_coverage)) void __sanitizer_cov_trace_pc(void) {
	if (seen == NULL)
		return;
	size_t here = (size_t)__builtin_return_address(0) * 0x9e3779b97f4a7c15u >> 40, way = (here ^ last_place) % PLACES;
	last_place = here >> 1;
	if (!seen[way]) {
		seen[way] = 1;
		new_places++;
	}
}

// Memory of one run.
static void *pieces[64];
static size_t n_pieces;

static void *piece(size_t len) {
	void *p = malloc(len);
	if (p == NULL || n_pieces == 64)
		abort();
	return pieces[n_pieces++] = memset(p, 1, len);
}

static CK_ATTRIBUTE attribute(CK_ATTRIBUTE_TYPE type, size_t len) {
	return (CK_ATTRIBUTE){ type, len > 0 ? piece(len) : NULL, len };
}

static CK_ULONG *number(CK_ULONG n) {
	CK_ULONG *p = piece(sizeof n);
	*p = n;
	return p;
}

// The calls that answers are read for: one for each way in which an answer looks.
static const enum call calls[] = { CALL_GetSlotInfo, CALL_GetTokenInfo, CALL_GetMechanismList, CALL_GetMechanismList, CALL_GetSessionInfo, CALL_GenerateRandom,
	CALL_Sign, CALL_Sign, CALL_EncryptMessage, CALL_GetAttributeValue, CALL_GetAttributeValue, CALL_GenerateKeyPair, CALL_CloseSession, CALL_SignInit };
#define CALLS_N (sizeof calls / sizeof calls[0])

static size_t arguments(size_t which, struct arg *a) {
	size_t n = 0;
	CK_ATTRIBUTE *t, *nested;
	CK_GCM_MESSAGE_PARAMS *g;
	switch (which) {
	case 0:
		a[n++] = arg_result_text(piece(64), 64);
		a[n++] = arg_result_text(piece(32), 32);
		a[n++] = arg_result(number(0));
		a[n++] = arg_result_version(piece(2));
		a[n++] = arg_result_version(piece(2));
		break;
	case 1:
		for (size_t k = 0; k < 4; k++)
			a[n++] = arg_result_text(piece(k < 2 ? 32 : 16), k < 2 ? 32 : 16);
		for (size_t k = 0; k < 11; k++)
			a[n++] = arg_result(number(0));
		a[n++] = arg_result_version(piece(2));
		a[n++] = arg_result_version(piece(2));
		a[n++] = arg_result_text(piece(16), 16);
		break;
	case 2:
		a[n++] = arg_list(piece(3 * sizeof(CK_ULONG)), number(3));
		break;
	case 3:
		a[n++] = arg_list(NULL, number(3));
		break;
	case 4:
		for (size_t k = 0; k < 4; k++)
			a[n++] = arg_result(number(0));
		break;
	case 5:
		a[n++] = arg_out(piece(16), number(16));
		break;
	case 6:
		a[n++] = arg_in(piece(1), 1);
		a[n++] = arg_out(NULL, number(5));
		break;
	case 7:
		a[n++] = arg_out(piece(1), number(0));
		break;
	case 8:
		g = piece(sizeof *g);
		*g = (CK_GCM_MESSAGE_PARAMS){ piece(12), 12, 0, 0, piece(15), 117 };
		a[n++] = arg_parameter(g, sizeof *g, ARG_PARAMETER_BACK);
		a[n++] = arg_out(piece(20), number(20));
		break;
	case 9:
		nested = piece(2 * sizeof *nested);
		nested[0] = attribute(CKA_CLASS, 8);
		nested[1] = attribute(CKA_LABEL, 3);
		t = piece(9 * sizeof *t);
		t[0] = attribute(CKA_CLASS, 8);
		t[1] = attribute(CKA_TOKEN, 1);
		t[2] = attribute(CKA_LABEL, 7);
		t[3] = attribute(CKA_START_DATE, 8);
		t[4] = attribute(CKA_ALLOWED_MECHANISMS, 16);
		t[5] = (CK_ATTRIBUTE){ CKA_WRAP_TEMPLATE, nested, 2 * sizeof *nested };
		t[6] = attribute(CKA_UNWRAP_TEMPLATE, 0);
		t[7] = attribute(CKA_VALUE, 2);
		t[8] = attribute(CKA_MODULUS, 1);
		a[n++] = arg_wanted(t, 9);
		break;
	case 10:
		t = piece(3 * sizeof *t);
		t[0] = attribute(CKA_LABEL, 0);
		t[1] = attribute(CKA_ALLOWED_MECHANISMS, 0);
		t[2] = attribute(CKA_KEY_TYPE, 0);
		a[n++] = arg_wanted(t, 3);
		break;
	case 11:
		a[n++] = arg_result(number(0));
		a[n++] = arg_result(number(0));
		break;
	case 13:
		a[n++] = arg_result(number(0));
		break;
	default:
		break;
	}
	return n;
}

// feed reads one answer.
static void feed(const unsigned char *data, size_t len) {
	if (len == 0)
		return;
	size_t which = data[0] % CALLS_N;
	unsigned char *body = malloc(len - 1 > 0 ? len - 1 : 1);
	if (body == NULL)
		abort();
	memcpy(body, data + 1, len - 1);
	struct arg a[32];
	struct args args = { a, arguments(which, a) };
	CK_ULONG room[32];
	for (size_t k = 0; k < args.n; k++)
		room[k] = a[k].count != NULL ? *a[k].count : 0;
	CK_RV rv = CKR_OK;
	bool fits = true;
	enum answer answer = decode_answer((struct in){ .at = body, .end = body + len - 1 }, calls[which], args, &rv, &fits);
	for (size_t k = 0; k < args.n && answer == ANSWER_OK && rv == CKR_OK; k++)
		if (a[k].count != NULL && a[k].out != NULL && *a[k].count > room[k])
			abort(); // more than there was room for
	free(body);
	while (n_pieces > 0)
		free(pieces[--n_pieces]);
}

// The corpus.
#define MOST 4096
#define LONGEST 2048
static struct input {
	unsigned char *data;
	size_t len;
} corpus[MOST];
static size_t n_corpus;

static bool add(const unsigned char *data, size_t len) {
	if (n_corpus == MOST)
		return false;
	unsigned char *copy = malloc(len > 0 ? len : 1);
	if (copy == NULL)
		abort();
	memcpy(copy, data, len);
	corpus[n_corpus++] = (struct input){ copy, len };
	return true;
}

static void load(const char *path) {
	unsigned char data[LONGEST];
	FILE *f = fopen(path, "rb");
	if (f == NULL) {
		perror(path);
		exit(2);
	}
	add(data, fread(data, 1, sizeof data, f));
	fclose(f);
}

static void load_all(const char *dir) {
	DIR *d = opendir(dir);
	if (d == NULL) {
		perror(dir);
		exit(2);
	}
	for (struct dirent *e; (e = readdir(d)) != NULL;) {
		char path[4096];
		snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
		if (e->d_name[0] != '.')
			load(path);
	}
	closedir(d);
	for (size_t k = 0; k < CALLS_N; k++) { // the beginning of an answer, and nothing
		unsigned char data[512] = { (unsigned char)k };
		const char *signature = call_facts[calls[k]].answer;
		data[4] = (unsigned char)calls[k];
		data[8] = (unsigned char)strlen(signature);
		memcpy(data + 9, signature, strlen(signature));
		add(data, 9 + strlen(signature));
		add(data, sizeof data);
	}
}

static void save(const char *dir, const unsigned char *data, size_t len) {
	uint64_t hash = 0xcbf29ce484222325;
	for (size_t k = 0; k < len; k++)
		hash = (hash ^ data[k]) * 0x100000001b3;
	char path[4096];
	snprintf(path, sizeof path, "%s/%016llx", dir, (unsigned long long)hash);
	FILE *f = fopen(path, "wb");
	if (f == NULL || fwrite(data, 1, len, f) != len || fclose(f) != 0) {
		perror(path);
		exit(2);
	}
}

static uint64_t state;

static size_t any(size_t n) { // xorshift
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return n > 0 ? (size_t)(state % n) : 0;
}

// mutate changes an input in one to eight ways, and gives its new length.
static size_t mutate(unsigned char *data, size_t len) {
	static const uint32_t numbers[] = { 0, 1, 2, 3, 8, 12, 16, 24, 32, 48, 64, 128, 255, 256, 257, 0xffff, 1 << 20, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff,
		CKA_CLASS, CKA_LABEL, CKA_WRAP_TEMPLATE, CKA_UNWRAP_TEMPLATE, CKA_ALLOWED_MECHANISMS, 0x150, 0x11, 0x12 };
	for (size_t times = 1 + any(8); times > 0; times--) {
		size_t at = any(len), n;
		const struct input *other;
		switch (any(8)) {
		case 0:
			if (len > 0)
				data[at] ^= (unsigned char)(1u << any(8));
			break;
		case 1:
			if (len > 0)
				data[at] = (unsigned char)any(256);
			break;
		case 2:
			if (len >= 4) {
				uint32_t v = numbers[any(sizeof numbers / sizeof numbers[0])];
				at = any(len - 3);
				for (size_t k = 0; k < 4; k++)
					data[at + k] = (unsigned char)(v >> (24 - 8 * k));
			}
			break;
		case 3: // take some out
			n = any(len - at < 16 ? len - at : 16);
			memmove(data + at, data + at + n, len - at - n);
			len -= n;
			break;
		case 4: // put some in
			n = any(16);
			if (len + n <= LONGEST) {
				memmove(data + at + n, data + at, len - at);
				memset(data + at, (int)any(3), n);
				len += n;
			}
			break;
		case 5: // repeat some
			n = any(len - at < 32 ? len - at : 32);
			if (len + n <= LONGEST) {
				memmove(data + at + n, data + at, len - at);
				len += n;
			}
			break;
		case 6: // go on as another does
			other = &corpus[any(n_corpus)];
			n = any(other->len);
			if (at + other->len - n <= LONGEST) {
				memcpy(data + at, other->data + n, other->len - n);
				len = at + other->len - n;
			}
			break;
		default:
			len = at > 9 ? at : len;
		}
	}
	return len;
}

int main(int argc, char **argv) {
	if (argc < 2 || strcmp(argv[1], "-t") != 0) {
		for (int k = 1; k < argc; k++)
			load(argv[k]);
		for (size_t k = 0; k < n_corpus; k++)
			feed(corpus[k].data, corpus[k].len);
		printf("%zu inputs\n", n_corpus);
		for (size_t k = 0; k < n_corpus; k++)
			free(corpus[k].data);
		return 0;
	}
	if (argc != 4 || (seen = calloc(1, PLACES)) == NULL)
		return 2;
	load_all(argv[3]);
	state = (uint64_t)time(NULL) * 0x9e3779b97f4a7c15u | 1;
	for (size_t k = 0; k < n_corpus; k++)
		feed(corpus[k].data, corpus[k].len);
	size_t began = new_places;
	unsigned long runs = 0;
	for (time_t until = time(NULL) + atoi(argv[2]); runs % 1024 != 0 || time(NULL) < until; runs++) {
		unsigned char data[LONGEST];
		const struct input *i = &corpus[any(n_corpus)];
		memcpy(data, i->data, i->len);
		size_t len = mutate(data, i->len), before = new_places;
		feed(data, len);
		if (new_places > before && add(data, len))
			save(argv[3], data, len);
	}
	printf("%lu runs, %zu ways through the code, %zu of them new\n", runs, new_places, new_places - began);
	free(seen);
	for (size_t k = 0; k < n_corpus; k++)
		free(corpus[k].data);
	return 0;
}
