// The library as a whole: its lists of functions, its beginning and end, and what fork does to it.

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "functions.h"
#include "login.h"

// opening is held while the library is initialised or finalised.
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

// In the child of a fork the library is as before C_Initialize, and the parent's connections are closed: they are the parent's.
// The locks that are ever held are taken over the fork, in the order in which they are taken elsewhere, so that what they guard is in order
// in the child. Those that are held while something waits can't be; what they guard is left alone or made anew.
static void before_fork(void) {
	sessions_before_fork();
	pool_before_fork();
}

static void after_fork_parent(void) {
	pool_after_fork_parent();
	sessions_after_fork_parent();
}

static void after_fork_child(void) {
	pool_after_fork_child();
	sessions_after_fork_child();
	login_after_fork_child();
	cache_after_fork_child();
	pthread_mutex_init(&opening, NULL);
}

static void prepare(void) {
	pool_prepare();
	pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

// check_args holds CK_C_INITIALIZE_ARGS against the standard (5.4.1). The module locks with the system's mutexes, or not at all.
static CK_RV check_args(const CK_C_INITIALIZE_ARGS *a) {
	if (a == NULL)
		return CKR_OK;
	if (a->pReserved != NULL)
		return CKR_ARGUMENTS_BAD;
	int given = (a->CreateMutex != NULL) + (a->DestroyMutex != NULL) + (a->LockMutex != NULL) + (a->UnlockMutex != NULL);
	if (given != 0 && given != 4)
		return CKR_ARGUMENTS_BAD;
	return given == 4 && (a->flags & CKF_OS_LOCKING_OK) == 0 ? CKR_CANT_LOCK : CKR_OK;
}

CK_RV C_Initialize(void *args) {
	CK_RV rv = check_args(args);
	if (rv != CKR_OK)
		return rv;
	pthread_once(&once, prepare);
	pthread_mutex_lock(&opening);
	rv = enter();
	if (rv == CKR_OK) {
		leave();
		rv = CKR_CRYPTOKI_ALREADY_INITIALIZED;
	} else {
		rv = pool_start();
		if (rv == CKR_OK)
			sessions_start();
	}
	pthread_mutex_unlock(&opening);
	return rv;
}

CK_RV C_Finalize(void *reserved) {
	if (reserved != NULL)
		return CKR_ARGUMENTS_BAD;
	pthread_mutex_lock(&opening);
	bool was = sessions_stop();
	if (was) {
		pool_interrupt();
		sessions_wait();
		pool_stop();
		login_forget_all();
		cache_clear();
	}
	pthread_mutex_unlock(&opening);
	return was ? CKR_OK : CKR_CRYPTOKI_NOT_INITIALIZED;
}

static void pad(CK_UTF8CHAR *to, size_t len, const char *text) {
	memset(to, ' ', len);
	memcpy(to, text, strlen(text));
}

// The release, by the build.
#ifndef MODULE_MAJOR
#define MODULE_MAJOR 0
#define MODULE_MINOR 0
#endif

static CK_RV get_info(CK_INFO *info, CK_VERSION version) {
	if (info == NULL)
		return CKR_ARGUMENTS_BAD;
	CK_RV rv = enter();
	if (rv != CKR_OK)
		return rv;
	leave();
	*info = (CK_INFO){ .cryptokiVersion = version, .libraryVersion = { MODULE_MAJOR, MODULE_MINOR } };
	pad(info->manufacturerID, sizeof info->manufacturerID, "keyward");
	pad(info->libraryDescription, sizeof info->libraryDescription, "keyward PKCS #11 module");
	return CKR_OK;
}

static const CK_VERSION version_2_40 = { 2, 40 }, version_3_0 = { 3, 0 };

CK_RV C_GetInfo(CK_INFO *info) {
	return get_info(info, version_3_0);
}

// Programs that take the list of version 2.40 are told that version: some know none above.
static CK_RV get_info_2_40(CK_INFO *info) {
	return get_info(info, version_2_40);
}

static CK_FUNCTION_LIST list_2_40;
static CK_FUNCTION_LIST_3_0 list_3_0;
static CK_UTF8CHAR interface_name[] = "PKCS 11";
// Not CKF_INTERFACE_FORK_SAFE, which would mean that a child of fork goes on with its parent's sessions.
static CK_INTERFACE interfaces[] = {
	{ interface_name, &list_3_0, 0 }, // the first is the default
	{ interface_name, &list_2_40, 0 },
};
#define INTERFACES (sizeof interfaces / sizeof interfaces[0])

#define POINTER(name, parameters) .name = name,
static CK_FUNCTION_LIST list_2_40 = { .version = { 2, 40 }, PKCS11_FUNCTIONS_2_40(POINTER) };
static CK_FUNCTION_LIST_3_0 list_3_0 = { .version = { 3, 0 }, PKCS11_FUNCTIONS_2_40(POINTER) PKCS11_FUNCTIONS_3_0(POINTER) };
#undef POINTER

__attribute__((constructor)) static void loaded(void) {
	list_2_40.C_GetInfo = get_info_2_40;
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list) {
	if (list == NULL)
		return CKR_ARGUMENTS_BAD;
	*list = &list_2_40;
	return CKR_OK;
}

CK_RV C_GetInterfaceList(CK_INTERFACE *list, CK_ULONG *count) {
	if (count == NULL)
		return CKR_ARGUMENTS_BAD;
	CK_ULONG room = *count;
	*count = INTERFACES;
	if (list == NULL)
		return CKR_OK;
	if (room < INTERFACES)
		return CKR_BUFFER_TOO_SMALL;
	memcpy(list, interfaces, sizeof interfaces);
	return CKR_OK;
}

CK_RV C_GetInterface(CK_UTF8CHAR *name, CK_VERSION *version, CK_INTERFACE **interface, CK_FLAGS flags) {
	if (interface == NULL)
		return CKR_ARGUMENTS_BAD;
	for (size_t k = 0; k < INTERFACES; k++) {
		CK_INTERFACE *i = &interfaces[k];
		const CK_VERSION *has = i->pFunctionList;
		if (name != NULL && strcmp((const char *)name, (const char *)i->pInterfaceName) != 0)
			continue;
		if (version != NULL && (version->major != has->major || version->minor != has->minor))
			continue;
		if ((flags & i->flags) != flags)
			continue;
		*interface = i;
		return CKR_OK;
	}
	return CKR_ARGUMENTS_BAD;
}
