// The calls of the protocol: one table of what each is, and how the arguments of a PKCS #11 function become a request's body and an
// answer's body its results.
#ifndef KEYWARD_CALLS_H
#define KEYWARD_CALLS_H

#include "wire.h"

// The calls that are sent: CALL(number, name, request, answer, role, operations, repeat). The strings are the protocol's signatures
// (pkcs11front/p11rpc/calls.go, and docs/pkcs11-wire.md where the dialect differs).
//
// repeat: the call may be sent again if the connection broke before its answer came, because it changes nothing.
#define CALLS(CALL) \
	CALL(1, Initialize, "ayyay", "u", PLAIN, 0, true) \
	CALL(2, Finalize, "", "", PLAIN, 0, false) \
	CALL(4, GetSlotList, "yfu", "au", PLAIN, 0, true) \
	CALL(5, GetSlotInfo, "u", "ssuvv", PLAIN, 0, true) \
	CALL(6, GetTokenInfo, "u", "ssssuuuuuuuuuuuvvs", PLAIN, 0, true) \
	CALL(7, GetMechanismList, "ufu", "au", PLAIN, 0, true) \
	CALL(8, GetMechanismInfo, "uu", "uuu", PLAIN, 0, true) \
	CALL(10, OpenSession, "uu", "u", PLAIN, 0, true) \
	CALL(11, CloseSession, "u", "", PLAIN, 0, true) \
	CALL(12, CloseAllSessions, "u", "", PLAIN, 0, true) \
	CALL(13, GetSessionInfo, "u", "uuuu", PLAIN, 0, true) \
	CALL(14, InitPIN, "uay", "", PLAIN, 0, false) \
	CALL(15, SetPIN, "uayay", "", PLAIN, 0, false) \
	CALL(16, GetOperationState, "ufy", "ay", PLAIN, 0, true) \
	CALL(17, SetOperationState, "uayuu", "", PLAIN, 0, false) \
	CALL(18, Login, "uuay", "", PLAIN, 0, false) \
	CALL(19, Logout, "u", "", PLAIN, 0, true) \
	CALL(20, CreateObject, "uaA", "u", PLAIN, 0, false) \
	CALL(21, CopyObject, "uuaA", "u", PLAIN, 0, false) \
	CALL(22, DestroyObject, "uu", "", PLAIN, 0, false) \
	CALL(23, GetObjectSize, "uu", "u", PLAIN, 0, true) \
	CALL(24, GetAttributeValue, "uufA", "aAu", PLAIN, 0, true) \
	CALL(25, SetAttributeValue, "uuaA", "", PLAIN, 0, false) \
	CALL(26, FindObjectsInit, "uaA", "", PLAIN, 0, true) \
	CALL(27, FindObjects, "ufu", "au", PLAIN, 0, true) \
	CALL(28, FindObjectsFinal, "u", "", PLAIN, 0, true) \
	CALL(29, EncryptInit, "uMu", "u", INIT, ENCRYPT, true) \
	CALL(30, Encrypt, "uayfy", "ay", ONCE, ENCRYPT, true) \
	CALL(31, EncryptUpdate, "uayfy", "ay", PART, ENCRYPT, true) \
	CALL(32, EncryptFinal, "ufy", "ay", LAST, ENCRYPT, true) \
	CALL(33, DecryptInit, "uMu", "u", INIT, DECRYPT, true) \
	CALL(34, Decrypt, "uayfy", "ay", ONCE, DECRYPT, true) \
	CALL(35, DecryptUpdate, "uayfy", "ay", PART, DECRYPT, true) \
	CALL(36, DecryptFinal, "ufy", "ay", LAST, DECRYPT, true) \
	CALL(37, DigestInit, "uM", "u", INIT, DIGEST, true) \
	CALL(38, Digest, "uayfy", "ay", ONCE, DIGEST, true) \
	CALL(39, DigestUpdate, "uay", "", PART, DIGEST, true) \
	CALL(40, DigestKey, "uu", "", PART, DIGEST, true) \
	CALL(41, DigestFinal, "ufy", "ay", LAST, DIGEST, true) \
	CALL(42, SignInit, "uMu", "u", INIT, SIGN, true) \
	CALL(43, Sign, "uayfy", "ay", ONCE, SIGN, true) \
	CALL(44, SignUpdate, "uay", "", PART, SIGN, true) \
	CALL(45, SignFinal, "ufy", "ay", LAST, SIGN, true) \
	CALL(46, SignRecoverInit, "uMu", "", INIT, SIGN_RECOVER, true) \
	CALL(47, SignRecover, "uayfy", "ay", ONCE, SIGN_RECOVER, true) \
	CALL(48, VerifyInit, "uMu", "", INIT, VERIFY, true) \
	CALL(49, Verify, "uayay", "", ONCE, VERIFY, true) \
	CALL(50, VerifyUpdate, "uay", "", PART, VERIFY, true) \
	CALL(51, VerifyFinal, "uay", "", LAST, VERIFY, true) \
	CALL(52, VerifyRecoverInit, "uMu", "", INIT, VERIFY_RECOVER, true) \
	CALL(53, VerifyRecover, "uayfy", "ay", ONCE, VERIFY_RECOVER, true) \
	CALL(54, DigestEncryptUpdate, "uayfy", "ay", PART, DIGEST | ENCRYPT, true) \
	CALL(55, DecryptDigestUpdate, "uayfy", "ay", PART, DECRYPT | DIGEST, true) \
	CALL(56, SignEncryptUpdate, "uayfy", "ay", PART, SIGN | ENCRYPT, true) \
	CALL(57, DecryptVerifyUpdate, "uayfy", "ay", PART, DECRYPT | VERIFY, true) \
	CALL(58, GenerateKey, "uMaA", "u", PLAIN, 0, false) \
	CALL(59, GenerateKeyPair, "uMaAaA", "uu", PLAIN, 0, false) \
	CALL(60, WrapKey, "uMuufy", "ay", PLAIN, 0, true) \
	CALL(61, UnwrapKey, "uMuayaA", "u", PLAIN, 0, false) \
	CALL(62, DeriveKey, "uMuaA", "u", PLAIN, 0, false) \
	CALL(63, SeedRandom, "uay", "", PLAIN, 0, true) \
	CALL(64, GenerateRandom, "ufy", "ay", PLAIN, 0, true) \
	CALL(65, WaitForSlotEvent, "u", "u", PLAIN, 0, true) \
	CALL(66, LoginUser, "uuayay", "", PLAIN, 0, false) \
	CALL(67, SessionCancel, "uu", "", PLAIN, 0, true) \
	CALL(68, MessageEncryptInit, "uMu", "", INIT, MESSAGE_ENCRYPT, true) \
	CALL(69, EncryptMessage, "uayayayfy", "ayay", MESSAGE, MESSAGE_ENCRYPT, true) \
	CALL(70, EncryptMessageBegin, "uayay", "", PART, MESSAGE_ENCRYPT, true) \
	CALL(71, EncryptMessageNext, "uayayfyu", "ay", PART, MESSAGE_ENCRYPT, true) \
	CALL(72, MessageEncryptFinal, "u", "", LAST, MESSAGE_ENCRYPT, true) \
	CALL(73, MessageDecryptInit, "uMu", "", INIT, MESSAGE_DECRYPT, true) \
	CALL(74, DecryptMessage, "uayayayfy", "ay", MESSAGE, MESSAGE_DECRYPT, true) \
	CALL(75, DecryptMessageBegin, "uayay", "", PART, MESSAGE_DECRYPT, true) \
	CALL(76, DecryptMessageNext, "uayayfyu", "ay", PART, MESSAGE_DECRYPT, true) \
	CALL(77, MessageDecryptFinal, "u", "", LAST, MESSAGE_DECRYPT, true) \
	CALL(78, MessageSignInit, "uMu", "", INIT, MESSAGE_SIGN, true) \
	CALL(79, SignMessage, "uayayfy", "ay", MESSAGE, MESSAGE_SIGN, true) \
	CALL(80, SignMessageBegin, "uay", "", PART, MESSAGE_SIGN, true) \
	CALL(81, SignMessageNext, "uayayyfy", "ay", PART, MESSAGE_SIGN, true) \
	CALL(82, MessageSignFinal, "u", "", LAST, MESSAGE_SIGN, true) \
	CALL(83, MessageVerifyInit, "uMu", "", INIT, MESSAGE_VERIFY, true) \
	CALL(84, VerifyMessage, "uayayay", "", MESSAGE, MESSAGE_VERIFY, true) \
	CALL(85, VerifyMessageBegin, "uay", "", PART, MESSAGE_VERIFY, true) \
	CALL(86, VerifyMessageNext, "uayayay", "", PART, MESSAGE_VERIFY, true) \
	CALL(87, MessageVerifyFinal, "u", "", LAST, MESSAGE_VERIFY, true) \
	CALL(88, InitToken2, "uays", "", PLAIN, 0, false)

#define CALL_NUMBER(number, name, request, answer, role, operations, repeat) CALL_##name = number,
enum call { CALLS(CALL_NUMBER) CALL_ERROR = 0, CALL_END = 90 };
#undef CALL_NUMBER

// What a call does with the operations of its session.
enum role {
	PLAIN,   // nothing
	INIT,    // begins one
	ONCE,    // does all of one and ends it
	PART,    // does a part of one
	LAST,    // ends one
	MESSAGE, // does a whole message of one, which goes on
};

// The operations that a session can have active, at most one of each; a set of them is a mask.
enum operation_bit {
	DIGEST = 1 << 0,
	ENCRYPT = 1 << 1,
	DECRYPT = 1 << 2,
	SIGN = 1 << 3,
	VERIFY = 1 << 4,
	SIGN_RECOVER = 1 << 5,
	VERIFY_RECOVER = 1 << 6,
	MESSAGE_ENCRYPT = 1 << 7,
	MESSAGE_DECRYPT = 1 << 8,
	MESSAGE_SIGN = 1 << 9,
	MESSAGE_VERIFY = 1 << 10,
};
#define OPERATIONS 11

struct call_facts {
	const char *request, *answer; // NULL: there is no such call
	enum role role;
	unsigned operations;
	bool repeat;
};

extern const struct call_facts call_facts[CALL_END];

// An argument of a function, which is in the request, or the answer, or both.
enum arg_kind {
	ARG_ULONG,         // u
	ARG_BYTE,          // y
	ARG_IN,            // ay: octets that go to the daemon
	ARG_TEXT,          // s: octets that go to the daemon, of fixed length
	ARG_OUT,           // fy, and ay in the answer: octets that come back
	ARG_LIST,          // fu, and au in the answer: numbers that come back
	ARG_TEMPLATE,      // aA
	ARG_WANTED,        // fA, and aA and u in the answer
	ARG_MECHANISM,     // M
	ARG_PARAMETER,     // ay: the parameter of a message
	ARG_PARAMETER_TAG, // ay: the same, with the tag to check
	ARG_PARAMETER_BACK, // ay, and ay in the answer: the same, with the IV and the tag to be made
	ARG_RESULT,        // u in the answer
	ARG_RESULT_TEXT,   // s in the answer
	ARG_RESULT_VERSION, // v in the answer
};

struct arg {
	enum arg_kind kind;
	CK_ULONG number; // the value, the length or the count that goes with the pointer
	const void *in;
	void *out;
	CK_ULONG *count; // of ARG_OUT and ARG_LIST: how much room there is, and how much came
};

static inline struct arg arg_ulong(CK_ULONG n) { return (struct arg){ .kind = ARG_ULONG, .number = n }; }
static inline struct arg arg_byte(CK_BYTE n) { return (struct arg){ .kind = ARG_BYTE, .number = n }; }
static inline struct arg arg_in(const CK_BYTE *p, CK_ULONG len) { return (struct arg){ .kind = ARG_IN, .in = p, .number = len }; }
static inline struct arg arg_text(const CK_BYTE *p, CK_ULONG len) { return (struct arg){ .kind = ARG_TEXT, .in = p, .number = len }; }
static inline struct arg arg_out(CK_BYTE *p, CK_ULONG *len) { return (struct arg){ .kind = ARG_OUT, .out = p, .count = len }; }
static inline struct arg arg_list(CK_ULONG *p, CK_ULONG *count) { return (struct arg){ .kind = ARG_LIST, .out = p, .count = count }; }
static inline struct arg arg_template(const CK_ATTRIBUTE *t, CK_ULONG count) { return (struct arg){ .kind = ARG_TEMPLATE, .in = t, .number = count }; }
static inline struct arg arg_wanted(CK_ATTRIBUTE *t, CK_ULONG count) { return (struct arg){ .kind = ARG_WANTED, .out = t, .number = count }; }
static inline struct arg arg_mechanism(const CK_MECHANISM *m) { return (struct arg){ .kind = ARG_MECHANISM, .in = m }; }
static inline struct arg arg_result(CK_ULONG *p) { return (struct arg){ .kind = ARG_RESULT, .out = p }; }
static inline struct arg arg_result_text(CK_BYTE *p, CK_ULONG len) { return (struct arg){ .kind = ARG_RESULT_TEXT, .out = p, .number = len }; }
static inline struct arg arg_result_version(CK_VERSION *p) { return (struct arg){ .kind = ARG_RESULT_VERSION, .out = p }; }
static inline struct arg arg_parameter(void *p, CK_ULONG len, enum arg_kind kind) { return (struct arg){ .kind = kind, .in = p, .out = p, .number = len }; }

// args is the arguments of a call in the order of its signature, those that are only in the answer after the others.
struct args {
	const struct arg *at;
	size_t n;
};
#define ARGS(...) ((struct args){ .at = (const struct arg[]){ __VA_ARGS__ }, .n = sizeof((const struct arg[]){ __VA_ARGS__ }) / sizeof(struct arg) })
#define NO_ARGS ((struct args){ .at = NULL, .n = 0 })

// args_check says CKR_ARGUMENTS_BAD for pointers that are NULL and must not be.
CK_RV args_check(struct args args);

// encode_args writes arguments; encode_frame a whole frame: its header, the call, the session if that is not NULL, then arguments that
// have been encoded before, then args.
void encode_args(struct out *o, struct args args);
void encode_frame(struct out *o, uint32_t serial, enum call call, const uint64_t *session, const struct out *before, struct args args);

// What an answer's body says.
enum answer {
	ANSWER_OK,        // the results are decoded, or it is an error: see rv
	ANSWER_MALFORMED, // not an answer to this call: the connection is not to be trusted any more
};

// decode_answer reads the body of an answer to a call into the results among args. rv becomes what the function returns; fits false if
// a result was only told in length, because there was no room for it.
enum answer decode_answer(struct in body, enum call call, struct args args, CK_RV *rv, bool *fits);

#endif
