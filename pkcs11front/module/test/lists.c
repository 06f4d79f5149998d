// Checks what a module shows before it is used: lists MODULE. The lists of functions have all functions, the interfaces are found as the standard
// has it (3.0, 5.4.5 and 5.4.6), and C_Initialize takes what it must and nothing else (5.4.1).
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "../pkcs11.h"

static int failures;

#define CHECK(what) \
	do { \
		if (!(what)) { \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
			failures++; \
		} \
	} while (0)

static void complete(const void *list, size_t size) {
	for (size_t at = offsetof(CK_FUNCTION_LIST, C_Initialize); at < size; at += sizeof(void *)) {
		void *function;
		memcpy(&function, (const char *)list + at, sizeof function);
		CHECK(function != NULL);
	}
}

static CK_RV mutex(void **m) { return m == NULL; }
static CK_RV lock(void *m) { return m == NULL; }

static void initialize(CK_FUNCTION_LIST *p11) {
	CK_INFO info;
	CHECK(p11->C_GetInfo(&info) == CKR_CRYPTOKI_NOT_INITIALIZED);
	CHECK(p11->C_Finalize(NULL) == CKR_CRYPTOKI_NOT_INITIALIZED);
	CK_C_INITIALIZE_ARGS all = { mutex, lock, lock, lock, 0, NULL }, some = { mutex, lock, NULL, lock, CKF_OS_LOCKING_OK, NULL }, none = { .flags = 0 },
		reserved = { .pReserved = &all };
	CHECK(p11->C_Initialize(&all) == CKR_CANT_LOCK);
	CHECK(p11->C_Initialize(&some) == CKR_ARGUMENTS_BAD);
	CHECK(p11->C_Initialize(&reserved) == CKR_ARGUMENTS_BAD);
	all.flags = CKF_OS_LOCKING_OK;
	CK_C_INITIALIZE_ARGS *good[] = { NULL, &none, &all };
	for (size_t k = 0; k < sizeof good / sizeof good[0]; k++) {
		CHECK(p11->C_Initialize(good[k]) == CKR_OK);
		CHECK(p11->C_Initialize(good[k]) == CKR_CRYPTOKI_ALREADY_INITIALIZED);
		CHECK(p11->C_GetInfo(NULL) == CKR_ARGUMENTS_BAD);
		CHECK(p11->C_GetInfo(&info) == CKR_OK);
		CHECK(info.cryptokiVersion.major == p11->version.major && info.cryptokiVersion.minor == p11->version.minor);
		CHECK(memcmp(info.manufacturerID, "keyward                         ", 32) == 0);
		CHECK(p11->C_Finalize(&info) == CKR_ARGUMENTS_BAD);
		CHECK(p11->C_Finalize(NULL) == CKR_OK);
	}
}

int main(int argc, char **argv) {
	void *module = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
	if (module == NULL)
		return 2;
	CK_RV (*get_list)(CK_FUNCTION_LIST **);
	CK_RV (*get)(CK_UTF8CHAR *, CK_VERSION *, CK_INTERFACE **, CK_FLAGS);
	CK_RV (*get_all)(CK_INTERFACE *, CK_ULONG *);
	*(void **)&get_list = dlsym(module, "C_GetFunctionList");
	*(void **)&get = dlsym(module, "C_GetInterface");
	*(void **)&get_all = dlsym(module, "C_GetInterfaceList");

	CK_FUNCTION_LIST *list;
	CHECK(get_list(NULL) == CKR_ARGUMENTS_BAD);
	CHECK(get_list(&list) == CKR_OK && list->version.major == 2 && list->version.minor == 40);
	complete(list, sizeof *list);

	CK_INTERFACE all[2], *one;
	CK_ULONG n = 0;
	CHECK(get_all(NULL, NULL) == CKR_ARGUMENTS_BAD);
	CHECK(get_all(NULL, &n) == CKR_OK && n == 2);
	n = 1;
	CHECK(get_all(all, &n) == CKR_BUFFER_TOO_SMALL && n == 2);
	CHECK(get_all(all, &n) == CKR_OK && n == 2);

	CK_UTF8CHAR name[] = "PKCS 11", other[] = "Vendor";
	CK_VERSION v2 = { 2, 40 }, v3 = { 3, 0 }, v9 = { 9, 0 };
	CHECK(get(NULL, NULL, NULL, 0) == CKR_ARGUMENTS_BAD);
	CHECK(get(NULL, NULL, &one, 0) == CKR_OK && memcmp(one->pFunctionList, &v3, sizeof v3) == 0);
	complete(one->pFunctionList, sizeof(CK_FUNCTION_LIST_3_0));
	initialize(one->pFunctionList);
	CHECK(get(name, &v2, &one, 0) == CKR_OK && one->pFunctionList == list);
	CHECK(get(name, &v3, &one, 0) == CKR_OK && one->pFunctionList == all[0].pFunctionList);
	CHECK(get(name, &v9, &one, 0) == CKR_ARGUMENTS_BAD);
	CHECK(get(other, NULL, &one, 0) == CKR_ARGUMENTS_BAD);
	CHECK(get(NULL, NULL, &one, 1) == CKR_ARGUMENTS_BAD); // CKF_INTERFACE_FORK_SAFE: a child has to begin anew
	initialize(list);
	CHECK(dlclose(module) == 0);
	return failures > 0;
}
