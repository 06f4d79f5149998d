// The control file of the faulty PKCS#11 module: what its orders and counts are, for module.c, which includes this file,
// and for control.go, which embeds it. Everything is in this machine's byte order.

#ifndef KEYWARD_FAULTY_LAYOUT_H
#define KEYWARD_FAULTY_LAYOUT_H

#include <stdatomic.h>
#include <stdint.h>

// The function list in its order. X is passed on as it is; S has a function of its own in module.c. control.go reads the names
// here.
#define FUNCTIONS(X, S) \
	S(C_Initialize, (P a), (a)) \
	S(C_Finalize, (P a), (a)) \
	S(C_GetInfo, (P a), (a)) \
	S(C_GetFunctionList, (P a), (a)) \
	X(C_GetSlotList, (B a, P b, P c), (a, b, c)) \
	X(C_GetSlotInfo, (U a, P b), (a, b)) \
	S(C_GetTokenInfo, (U a, P b), (a, b)) \
	X(C_GetMechanismList, (U a, P b, P c), (a, b, c)) \
	X(C_GetMechanismInfo, (U a, U b, P c), (a, b, c)) \
	X(C_InitToken, (U a, P b, U c, P d), (a, b, c, d)) \
	X(C_InitPIN, (U a, P b, U c), (a, b, c)) \
	X(C_SetPIN, (U a, P b, U c, P d, U e), (a, b, c, d, e)) \
	S(C_OpenSession, (U a, U b, P c, P d, P e), (a, b, c, d, e)) \
	S(C_CloseSession, (U a), (a)) \
	S(C_CloseAllSessions, (U a), (a)) \
	X(C_GetSessionInfo, (U a, P b), (a, b)) \
	X(C_GetOperationState, (U a, P b, P c), (a, b, c)) \
	X(C_SetOperationState, (U a, P b, U c, U d, U e), (a, b, c, d, e)) \
	X(C_Login, (U a, U b, P c, U d), (a, b, c, d)) \
	X(C_Logout, (U a), (a)) \
	X(C_CreateObject, (U a, P b, U c, P d), (a, b, c, d)) \
	X(C_CopyObject, (U a, U b, P c, U d, P e), (a, b, c, d, e)) \
	X(C_DestroyObject, (U a, U b), (a, b)) \
	X(C_GetObjectSize, (U a, U b, P c), (a, b, c)) \
	X(C_GetAttributeValue, (U a, U b, P c, U d), (a, b, c, d)) \
	X(C_SetAttributeValue, (U a, U b, P c, U d), (a, b, c, d)) \
	X(C_FindObjectsInit, (U a, P b, U c), (a, b, c)) \
	X(C_FindObjects, (U a, P b, U c, P d), (a, b, c, d)) \
	X(C_FindObjectsFinal, (U a), (a)) \
	X(C_EncryptInit, (U a, P b, U c), (a, b, c)) \
	X(C_Encrypt, (U a, P b, U c, P d, P e), (a, b, c, d, e)) \
	X(C_EncryptUpdate, (U a, P b, U c, P d, P e), (a, b, c, d, e)) \
	X(C_EncryptFinal, (U a, P b, P c), (a, b, c)) \
	X(C_DecryptInit, (U a, P b, U c), (a, b, c)) \
	X(C_Decrypt, (U a, P b, U c, P d, P e), (a, b, c, d, e)) \
	X(C_DecryptUpdate, (U a, P b, U c, P d, P e), (a, b, c, d, e)) \
	X(C_DecryptFinal, (U a, P b, P c), (a, b, c)) \
	X(C_DigestInit, (U a, P b), (a, b)) \
	X(C_Digest, (U a, P b, U c, P d, P e), (a, b, c, d, e)) \
	X(C_DigestUpdate, (U a, P b, U c), (a, b, c)) \
	X(C_DigestKey, (U a, U b), (a, b)) \
	X(C_DigestFinal, (U a, P b, P c), (a, b, c)) \
	X(C_SignInit, (U a, P b, U c), (a, b, c)) \
	X(C_Sign, (U a, P b, U c, P d, P e), (a, b, c, d, e)) \
	X(C_SignUpdate, (U a, P b, U c), (a, b, c)) \
	X(C_SignFinal, (U a, P b, P c), (a, b, c)) \
	X(C_SignRecoverInit, (U a, P b, U c), (a, b, c)) \
	X(C_SignRecover, (U a, P b, U c, P d, P e), (a, b, c, d, e)) \
	X(C_VerifyInit, (U a, P b, U c), (a, b, c)) \
	X(C_Verify, (U a, P b, U c, P d, U e), (a, b, c, d, e)) \
	X(C_VerifyUpdate, (U a, P b, U c), (a, b, c)) \
	X(C_VerifyFinal, (U a, P b, U c), (a, b, c)) \
	X(C_VerifyRecoverInit, (U a, P b, U c), (a, b, c)) \
	X(C_VerifyRecover, (U a, P b, U c, P d, P e), (a, b, c, d, e)) \
	X(C_DigestEncryptUpdate, (U a, P b, U c, P d, P e), (a, b, c, d, e)) \
	X(C_DecryptDigestUpdate, (U a, P b, U c, P d, P e), (a, b, c, d, e)) \
	X(C_SignEncryptUpdate, (U a, P b, U c, P d, P e), (a, b, c, d, e)) \
	X(C_DecryptVerifyUpdate, (U a, P b, U c, P d, P e), (a, b, c, d, e)) \
	X(C_GenerateKey, (U a, P b, P c, U d, P e), (a, b, c, d, e)) \
	X(C_GenerateKeyPair, (U a, P b, P c, U d, P e, U f, P g, P h), (a, b, c, d, e, f, g, h)) \
	X(C_WrapKey, (U a, P b, U c, U d, P e, P f), (a, b, c, d, e, f)) \
	X(C_UnwrapKey, (U a, P b, U c, P d, U e, P f, U g, P h), (a, b, c, d, e, f, g, h)) \
	X(C_DeriveKey, (U a, P b, U c, P d, U e, P f), (a, b, c, d, e, f)) \
	X(C_SeedRandom, (U a, P b, U c), (a, b, c)) \
	X(C_GenerateRandom, (U a, P b, U c), (a, b, c)) \
	X(C_GetFunctionStatus, (U a), (a)) \
	X(C_CancelFunction, (U a), (a)) \
	X(C_WaitForSlotEvent, (U a, P b, P c), (a, b, c))

#define PLACE(name, decl, args) I_##name,
enum { FUNCTIONS(PLACE, PLACE) functions_count };
_Static_assert(functions_count == 68, "PKCS#11 2.40 has 68 functions");

// What a rule does.
enum { DO_NOTHING, FAIL_BEFORE, FAIL_AFTER, HANG, CRASH, EXIT };

// rule is the orders for one function, and what became of them.
struct rule {
	// How many more calls it is for in the low half, all ones for no end; in the high half a version, odd while the rest is
	// being written. In one word, so that nobody takes from a rule that has just been replaced.
	_Atomic uint64_t ticket;
	_Atomic uint32_t what, every; // every: only each so many-th call, counted by seen
	_Atomic uint64_t code;        // return value, or exit status
	_Atomic uint64_t seen;
	_Atomic uint64_t delay, jitter; // ns, of every call
	_Atomic uint64_t slow;          // bits of a double: every call takes so many times as long; 0: as long as it takes
	_Atomic uint64_t calls, fired;
};

// Octets of the file whose locks, of the kind F_OFD_SETLK, mean something. The kernel drops them with the process.
enum {
	LOCK_FILE,    // held by who writes an order, takes a row of processes, or adds them up: for an instant
	LOCK_PROCESS, // and the octets after it, one for each row of processes: held by the process that the row is of
};

// process is what one copy of the module in one process has. The row of a process that is gone means nothing, and is for
// the next that comes.
struct process {
	_Atomic uint64_t opened, closed; // sessions that the caller was told of
	_Atomic uint64_t hanging;        // calls
};

enum { processes_count = 128 };

struct control {
	char magic[8];
	uint64_t size;
	_Atomic uint64_t session_limit;  // 0: what the token allows
	_Atomic uint64_t session_report; // what C_GetTokenInfo says of it
	_Atomic uint64_t serialise;
	char manufacturer[32];           // of C_GetInfo, padded with blanks; first octet 0: that of the wrapped module
	char inner[1024];                // path of the wrapped module; empty: KEYWARD_FAULTY_MODULE
	struct process processes[processes_count];
	struct rule rules[functions_count];
};

#endif
