package hsmpool

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// The few types of PKCS#11 2.40 that the hot path needs, by its own binary layout (no packing: that is for Windows).
typedef unsigned long kw_ulong;
typedef struct { kw_ulong mechanism; void *param; kw_ulong len; } kw_mechanism;
typedef struct { void *iv; kw_ulong iv_len, iv_bits; void *aad; kw_ulong aad_len, tag_bits; } kw_gcm;
typedef struct { unsigned char major, minor; void *fn[68]; } kw_functions;
typedef kw_ulong (*kw_get_list)(kw_functions **);
typedef kw_ulong (*kw_init)(kw_ulong session, kw_mechanism *m, kw_ulong key);
typedef kw_ulong (*kw_op)(kw_ulong session, void *in, kw_ulong in_len, void *out, kw_ulong *out_len);
typedef struct { kw_ulong type; void *value; kw_ulong len; } kw_attribute;
typedef kw_ulong (*kw_create)(kw_ulong session, kw_attribute *a, kw_ulong count, kw_ulong *object);
typedef kw_ulong (*kw_login)(kw_ulong session, kw_ulong user, void *pin, kw_ulong pin_len);

// Places in the function list; each operation follows its init.
enum { KW_LOGIN = 18, KW_CREATE_OBJECT = 20, KW_ENCRYPT_INIT = 29, KW_DECRYPT_INIT = 33, KW_SIGN_INIT = 42 };

static kw_functions *kw_open(const char *path) {
	// The same library that crypto11 has open: dlopen counts.
	void *lib = dlopen(path, RTLD_LAZY);
	if (lib == NULL) return NULL;
	kw_get_list get = (kw_get_list)dlsym(lib, "C_GetFunctionList");
	kw_functions *list = NULL;
	if (get == NULL || get(&list) != 0) { dlclose(lib); return NULL; }
	return list;
}

enum { KW_ATTRIBUTES = 32 }; // of one object, at most

typedef struct { int64_t wall, busy; } kw_times; // ns

static int64_t kw_clock(clockid_t id) {
	struct timespec t;
	clock_gettime(id, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// How long this thread has computed, and how long it has waited for a processor: all the time that it was not blocked. The first
// figure of schedstat (proc(5)) is of the last tick, so the clock is asked.
static int64_t kw_busy(void) {
	char text[96];
	int fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	if (fd < 0) return -1;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	if (n <= 0) return -1;
	text[n] = 0;
	char *second = strchr(text, ' ');
	if (second == NULL) return -1;
	return kw_clock(CLOCK_THREAD_CPUTIME_ID) + strtoll(second, NULL, 10);
}

static kw_ulong kw_operate(kw_functions *list, int init, kw_ulong session, kw_ulong mech, void *param, kw_ulong param_len,
		void *iv, kw_ulong iv_len, void *aad, kw_ulong aad_len, kw_ulong tag_bits,
		kw_ulong key, void *in, kw_ulong in_len, void *out, kw_ulong *out_len, int *stage, kw_times *times) {
	if (times != NULL) {
		times->wall = kw_clock(CLOCK_MONOTONIC);
		times->busy = kw_busy();
	}
	kw_mechanism m = { mech, param, param_len };
	kw_gcm gcm;
	if (tag_bits != 0) {
		gcm.iv = iv; gcm.iv_len = iv_len; gcm.iv_bits = iv_len * 8;
		gcm.aad = aad_len ? aad : NULL; gcm.aad_len = aad_len; gcm.tag_bits = tag_bits;
		m.param = &gcm; m.len = sizeof gcm;
	}
	*stage = 1;
	kw_ulong rv = ((kw_init)list->fn[init])(session, &m, key);
	if (rv != 0) return rv;
	*stage = 2;
	rv = ((kw_op)list->fn[init + 1])(session, in, in_len, out, out_len);
	if (times != NULL) {
		times->wall = kw_clock(CLOCK_MONOTONIC) - times->wall;
		times->busy = times->busy < 0 ? times->wall : kw_busy() - times->busy;
	}
	return rv;
}

// Attributes lie in packed one after the other: type, length, and the value in as many words as it needs.
static kw_ulong kw_do_create(kw_functions *list, kw_ulong session, kw_ulong *packed, kw_ulong count, kw_ulong *object) {
	kw_attribute a[KW_ATTRIBUTES];
	for (kw_ulong i = 0; i < count && i < KW_ATTRIBUTES; i++) {
		a[i].type = packed[0];
		a[i].len = packed[1];
		a[i].value = packed + 2;
		packed += 2 + (a[i].len + sizeof(kw_ulong) - 1) / sizeof(kw_ulong);
	}
	return ((kw_create)list->fn[KW_CREATE_OBJECT])(session, a, count, object);
}

static kw_ulong kw_do_login(kw_functions *list, kw_ulong session, void *pin, kw_ulong pin_len) {
	return ((kw_login)list->fn[KW_LOGIN])(session, 1, pin, pin_len); // CKU_USER
}
*/
import "C"

import (
	"encoding/binary"
	"time"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// functions is the hot path into a library: Init and operation in one crossing from Go to C, into a buffer of ours whose
// length is known beforehand. The miekg binding needs four crossings and six allocations for the same, and loses its
// output buffer whenever the operation fails, which a caller with bad ciphertexts could make it do without end.
type functions struct{ list *C.kw_functions }

func openFunctions(path string) (functions, bool) {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	l := C.kw_open(p)
	return functions{l}, l != nil
}

var initOf = map[function]C.int{fnEncrypt: C.KW_ENCRYPT_INIT, fnDecrypt: C.KW_DECRYPT_INIT, fnSign: C.KW_SIGN_INIT}

// call is one operation.
type call struct {
	fn    function
	mech  uint
	param []byte
	tag   int // octets; 0: it is not AES-GCM, which has its parameter made of this, nonce and aad
	nonce []byte
	aad   []byte
	in    []byte
	out   []byte // as long as the output can get
}

// empty is what a pointer to no octets points at: some modules refuse NULL.
var empty [1]byte

func ptr(b []byte) unsafe.Pointer {
	if len(b) == 0 {
		return unsafe.Pointer(&empty[0])
	}
	return unsafe.Pointer(&b[0])
}

// operate runs c in session with key and returns the length of the output. On an error the session is not to be used
// again.
func (f functions) operate(session pkcs11.SessionHandle, key pkcs11.ObjectHandle, c *call, m *meter) (int, stage, error) {
	var times *C.kw_times
	if m.due() {
		times = new(C.kw_times)
	}
	var param unsafe.Pointer
	if len(c.param) > 0 {
		param = unsafe.Pointer(&c.param[0])
	}
	n := C.kw_ulong(len(c.out))
	var st C.int
	rv := C.kw_operate(f.list, initOf[c.fn], C.kw_ulong(session), C.kw_ulong(c.mech), param, C.kw_ulong(len(c.param)),
		ptr(c.nonce), C.kw_ulong(len(c.nonce)), ptr(c.aad), C.kw_ulong(len(c.aad)), C.kw_ulong(c.tag*8),
		C.kw_ulong(key), ptr(c.in), C.kw_ulong(len(c.in)), ptr(c.out), &n, &st, times)
	if rv != 0 {
		clear(c.out)
		return 0, stage(st), pkcs11.Error(rv)
	}
	if times != nil {
		m.add(time.Duration(times.wall), time.Duration(times.busy))
	}
	if uint64(n) > uint64(len(c.out)) {
		clear(c.out)
		return 0, stageOp, errImpossible
	}
	return int(n), stageOp, nil
}

// createObject makes an object of a secret value. miekg's binding would leave a copy of it in C's memory.
func (f functions) createObject(session pkcs11.SessionHandle, template []*pkcs11.Attribute, value []byte) (pkcs11.ObjectHandle, error) {
	if len(template) >= C.KW_ATTRIBUTES || len(value) == 0 {
		return 0, errImpossible
	}
	const word = int(unsafe.Sizeof(C.kw_ulong(0)))
	words := func(b []byte) int { return (len(b) + word - 1) / word }
	n := 2 + words(value)
	for _, a := range template {
		n += 2 + words(a.Value)
	}
	packed := make([]C.kw_ulong, n)
	defer clear(packed)
	octets := unsafe.Slice((*byte)(unsafe.Pointer(&packed[0])), n*word)
	at := 0
	put := func(t uint, v []byte) {
		packed[at], packed[at+1] = C.kw_ulong(t), C.kw_ulong(len(v))
		copy(octets[(at+2)*word:], v)
		at += 2 + words(v)
	}
	for _, a := range template {
		put(a.Type, a.Value)
	}
	put(pkcs11.CKA_VALUE, value)
	var h C.kw_ulong
	if rv := C.kw_do_create(f.list, C.kw_ulong(session), &packed[0], C.kw_ulong(len(template)+1), &h); rv != 0 {
		return 0, pkcs11.Error(rv)
	}
	return pkcs11.ObjectHandle(h), nil
}

// threadBusy is how long this thread has computed and waited for a processor. It stands still where the kernel does not tell.
func threadBusy() time.Duration { return time.Duration(C.kw_busy()) }

// login logs the user in. The PIN is handed over where it is, with no copy: the caller wipes it.
func (f functions) login(session pkcs11.SessionHandle, pin []byte) error {
	if rv := C.kw_do_login(f.list, C.kw_ulong(session), ptr(pin), C.kw_ulong(len(pin))); rv != 0 {
		return pkcs11.Error(rv)
	}
	return nil
}

var errImpossible = &Error{Kind: KindInternal, fate: fateModule, Detail: "the module gave an output of an impossible length"}

// ulongs encodes a structure of CK_ULONGs.
func ulongs(v ...uint) []byte {
	b := make([]byte, 0, len(v)*8)
	for _, x := range v {
		b = binary.NativeEndian.AppendUint64(b, uint64(x))
	}
	return b
}

// oaepParam encodes CK_RSA_PKCS_OAEP_PARAMS with an empty label: SoftHSM has no other, so those are undone here: see rawOAEP.
func oaepParam(hash, mgf uint) []byte {
	return ulongs(hash, mgf, pkcs11.CKZ_DATA_SPECIFIED, 0, 0)
}

// oaepParams are all of them, by the places of hash and mask generation function in hashes.
var oaepParams = func() (all [len(hashes)][len(hashes)][]byte) {
	for i, hash := range hashes {
		for j, mgf := range hashes {
			all[i][j] = oaepParam(hash.mech, mgf.mgf)
		}
	}
	return all
}()

// pssParam encodes CK_RSA_PKCS_PSS_PARAMS.
func pssParam(c *choices) []byte {
	return ulongs(hashes[hashPlace(c.hash)].mech, hashes[hashPlace(c.mgf)].mgf, uint(c.salt))
}

// ctrParam encodes CK_AES_CTR_PARAMS with a counter that is the whole block.
func ctrParam(counter []byte) []byte { return append(ulongs(8*aesBlock), counter...) }
