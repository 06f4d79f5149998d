package p11rpc

// CallID is the number of a call.
type CallID uint32

// ErrorReply is the number of an answer that is an error; its signature is "u".
const ErrorReply CallID = 0

// The calls, by the names of PKCS #11 (p11-kit's rpc-message.h; reference p11kit-rpc.md, section 7).
const (
	C_Initialize          CallID = 1
	C_Finalize            CallID = 2
	C_GetInfo             CallID = 3
	C_GetSlotList         CallID = 4
	C_GetSlotInfo         CallID = 5
	C_GetTokenInfo        CallID = 6
	C_GetMechanismList    CallID = 7
	C_GetMechanismInfo    CallID = 8
	C_InitToken           CallID = 9
	C_OpenSession         CallID = 10
	C_CloseSession        CallID = 11
	C_CloseAllSessions    CallID = 12
	C_GetSessionInfo      CallID = 13
	C_InitPIN             CallID = 14
	C_SetPIN              CallID = 15
	C_GetOperationState   CallID = 16
	C_SetOperationState   CallID = 17
	C_Login               CallID = 18
	C_Logout              CallID = 19
	C_CreateObject        CallID = 20
	C_CopyObject          CallID = 21
	C_DestroyObject       CallID = 22
	C_GetObjectSize       CallID = 23
	C_GetAttributeValue   CallID = 24
	C_SetAttributeValue   CallID = 25
	C_FindObjectsInit     CallID = 26
	C_FindObjects         CallID = 27
	C_FindObjectsFinal    CallID = 28
	C_EncryptInit         CallID = 29
	C_Encrypt             CallID = 30
	C_EncryptUpdate       CallID = 31
	C_EncryptFinal        CallID = 32
	C_DecryptInit         CallID = 33
	C_Decrypt             CallID = 34
	C_DecryptUpdate       CallID = 35
	C_DecryptFinal        CallID = 36
	C_DigestInit          CallID = 37
	C_Digest              CallID = 38
	C_DigestUpdate        CallID = 39
	C_DigestKey           CallID = 40
	C_DigestFinal         CallID = 41
	C_SignInit            CallID = 42
	C_Sign                CallID = 43
	C_SignUpdate          CallID = 44
	C_SignFinal           CallID = 45
	C_SignRecoverInit     CallID = 46
	C_SignRecover         CallID = 47
	C_VerifyInit          CallID = 48
	C_Verify              CallID = 49
	C_VerifyUpdate        CallID = 50
	C_VerifyFinal         CallID = 51
	C_VerifyRecoverInit   CallID = 52
	C_VerifyRecover       CallID = 53
	C_DigestEncryptUpdate CallID = 54
	C_DecryptDigestUpdate CallID = 55
	C_SignEncryptUpdate   CallID = 56
	C_DecryptVerifyUpdate CallID = 57
	C_GenerateKey         CallID = 58
	C_GenerateKeyPair     CallID = 59
	C_WrapKey             CallID = 60
	C_UnwrapKey           CallID = 61
	C_DeriveKey           CallID = 62
	C_SeedRandom          CallID = 63
	C_GenerateRandom      CallID = 64
	C_WaitForSlotEvent    CallID = 65
	C_LoginUser           CallID = 66
	C_SessionCancel       CallID = 67
	C_MessageEncryptInit  CallID = 68
	C_EncryptMessage      CallID = 69
	C_EncryptMessageBegin CallID = 70
	C_EncryptMessageNext  CallID = 71
	C_MessageEncryptFinal CallID = 72
	C_MessageDecryptInit  CallID = 73
	C_DecryptMessage      CallID = 74
	C_DecryptMessageBegin CallID = 75
	C_DecryptMessageNext  CallID = 76
	C_MessageDecryptFinal CallID = 77
	C_MessageSignInit     CallID = 78
	C_SignMessage         CallID = 79
	C_SignMessageBegin    CallID = 80
	C_SignMessageNext     CallID = 81
	C_MessageSignFinal    CallID = 82
	C_MessageVerifyInit   CallID = 83
	C_VerifyMessage       CallID = 84
	C_VerifyMessageBegin  CallID = 85
	C_VerifyMessageNext   CallID = 86
	C_MessageVerifyFinal  CallID = 87
	C_InitToken2          CallID = 88
	C_DeriveKey2          CallID = 89
)

// Call is what the protocol fixes of a call: its number, its name in PKCS #11, and the signatures of request and answer.
type Call struct {
	ID                CallID
	Name              string
	Request, Response string
}

// Calls are the protocol's calls in order of their numbers, without the error (p11-kit's rpc-message.h; reference p11kit-rpc.md, section 7).
var Calls = []Call{
	{C_Initialize, "C_Initialize", "ayyay", ""},
	{C_Finalize, "C_Finalize", "", ""},
	{C_GetInfo, "C_GetInfo", "", "vsusv"},
	{C_GetSlotList, "C_GetSlotList", "yfu", "au"},
	{C_GetSlotInfo, "C_GetSlotInfo", "u", "ssuvv"},
	{C_GetTokenInfo, "C_GetTokenInfo", "u", "ssssuuuuuuuuuuuvvs"},
	{C_GetMechanismList, "C_GetMechanismList", "ufu", "au"},
	{C_GetMechanismInfo, "C_GetMechanismInfo", "uu", "uuu"},
	{C_InitToken, "C_InitToken", "uayz", ""},
	{C_OpenSession, "C_OpenSession", "uu", "u"},
	{C_CloseSession, "C_CloseSession", "u", ""},
	{C_CloseAllSessions, "C_CloseAllSessions", "u", ""},
	{C_GetSessionInfo, "C_GetSessionInfo", "u", "uuuu"},
	{C_InitPIN, "C_InitPIN", "uay", ""},
	{C_SetPIN, "C_SetPIN", "uayay", ""},
	{C_GetOperationState, "C_GetOperationState", "ufy", "ay"},
	{C_SetOperationState, "C_SetOperationState", "uayuu", ""},
	{C_Login, "C_Login", "uuay", ""},
	{C_Logout, "C_Logout", "u", ""},
	{C_CreateObject, "C_CreateObject", "uaA", "u"},
	{C_CopyObject, "C_CopyObject", "uuaA", "u"},
	{C_DestroyObject, "C_DestroyObject", "uu", ""},
	{C_GetObjectSize, "C_GetObjectSize", "uu", "u"},
	{C_GetAttributeValue, "C_GetAttributeValue", "uufA", "aAu"},
	{C_SetAttributeValue, "C_SetAttributeValue", "uuaA", ""},
	{C_FindObjectsInit, "C_FindObjectsInit", "uaA", ""},
	{C_FindObjects, "C_FindObjects", "ufu", "au"},
	{C_FindObjectsFinal, "C_FindObjectsFinal", "u", ""},
	{C_EncryptInit, "C_EncryptInit", "uMu", ""},
	{C_Encrypt, "C_Encrypt", "uayfy", "ay"},
	{C_EncryptUpdate, "C_EncryptUpdate", "uayfy", "ay"},
	{C_EncryptFinal, "C_EncryptFinal", "ufy", "ay"},
	{C_DecryptInit, "C_DecryptInit", "uMu", ""},
	{C_Decrypt, "C_Decrypt", "uayfy", "ay"},
	{C_DecryptUpdate, "C_DecryptUpdate", "uayfy", "ay"},
	{C_DecryptFinal, "C_DecryptFinal", "ufy", "ay"},
	{C_DigestInit, "C_DigestInit", "uM", ""},
	{C_Digest, "C_Digest", "uayfy", "ay"},
	{C_DigestUpdate, "C_DigestUpdate", "uay", ""},
	{C_DigestKey, "C_DigestKey", "uu", ""},
	{C_DigestFinal, "C_DigestFinal", "ufy", "ay"},
	{C_SignInit, "C_SignInit", "uMu", ""},
	{C_Sign, "C_Sign", "uayfy", "ay"},
	{C_SignUpdate, "C_SignUpdate", "uay", ""},
	{C_SignFinal, "C_SignFinal", "ufy", "ay"},
	{C_SignRecoverInit, "C_SignRecoverInit", "uMu", ""},
	{C_SignRecover, "C_SignRecover", "uayfy", "ay"},
	{C_VerifyInit, "C_VerifyInit", "uMu", ""},
	{C_Verify, "C_Verify", "uayay", ""},
	{C_VerifyUpdate, "C_VerifyUpdate", "uay", ""},
	{C_VerifyFinal, "C_VerifyFinal", "uay", ""},
	{C_VerifyRecoverInit, "C_VerifyRecoverInit", "uMu", ""},
	{C_VerifyRecover, "C_VerifyRecover", "uayfy", "ay"},
	{C_DigestEncryptUpdate, "C_DigestEncryptUpdate", "uayfy", "ay"},
	{C_DecryptDigestUpdate, "C_DecryptDigestUpdate", "uayfy", "ay"},
	{C_SignEncryptUpdate, "C_SignEncryptUpdate", "uayfy", "ay"},
	{C_DecryptVerifyUpdate, "C_DecryptVerifyUpdate", "uayfy", "ay"},
	{C_GenerateKey, "C_GenerateKey", "uMaA", "u"},
	{C_GenerateKeyPair, "C_GenerateKeyPair", "uMaAaA", "uu"},
	{C_WrapKey, "C_WrapKey", "uMuufy", "ay"},
	{C_UnwrapKey, "C_UnwrapKey", "uMuayaA", "u"},
	{C_DeriveKey, "C_DeriveKey", "uMuaA", "u"},
	{C_SeedRandom, "C_SeedRandom", "uay", ""},
	{C_GenerateRandom, "C_GenerateRandom", "ufy", "ay"},
	{C_WaitForSlotEvent, "C_WaitForSlotEvent", "u", "u"},
	{C_LoginUser, "C_LoginUser", "uuayay", ""},
	{C_SessionCancel, "C_SessionCancel", "uu", ""},
	{C_MessageEncryptInit, "C_MessageEncryptInit", "uMu", ""},
	{C_EncryptMessage, "C_EncryptMessage", "uayayayfy", "ay"},
	{C_EncryptMessageBegin, "C_EncryptMessageBegin", "uayay", ""},
	{C_EncryptMessageNext, "C_EncryptMessageNext", "uayayfyu", "ay"},
	{C_MessageEncryptFinal, "C_MessageEncryptFinal", "u", ""},
	{C_MessageDecryptInit, "C_MessageDecryptInit", "uMu", ""},
	{C_DecryptMessage, "C_DecryptMessage", "uayayayfy", "ay"},
	{C_DecryptMessageBegin, "C_DecryptMessageBegin", "uayay", ""},
	{C_DecryptMessageNext, "C_DecryptMessageNext", "uayayfyu", "ay"},
	{C_MessageDecryptFinal, "C_MessageDecryptFinal", "u", ""},
	{C_MessageSignInit, "C_MessageSignInit", "uMu", ""},
	{C_SignMessage, "C_SignMessage", "uayayfy", "ay"},
	{C_SignMessageBegin, "C_SignMessageBegin", "uay", ""},
	{C_SignMessageNext, "C_SignMessageNext", "uayayyfy", "ay"},
	{C_MessageSignFinal, "C_MessageSignFinal", "u", ""},
	{C_MessageVerifyInit, "C_MessageVerifyInit", "uMu", ""},
	{C_VerifyMessage, "C_VerifyMessage", "uayayay", ""},
	{C_VerifyMessageBegin, "C_VerifyMessageBegin", "uay", ""},
	{C_VerifyMessageNext, "C_VerifyMessageNext", "uayayay", ""},
	{C_MessageVerifyFinal, "C_MessageVerifyFinal", "u", ""},
	{C_InitToken2, "C_InitToken2", "uays", ""},
	{C_DeriveKey2, "C_DeriveKey2", "uMuaA", "uPu"},
}

// keywardAnswers are the calls whose answer says more in the dialect Keyward, and its signature there (docs/pkcs11-wire.md).
var keywardAnswers = map[string]string{
	"C_Initialize":     "u",
	"C_SignInit":       "u",
	"C_DigestInit":     "u",
	"C_EncryptInit":    "u",
	"C_DecryptInit":    "u",
	"C_EncryptMessage": "ayay",
}

// Response is the signature of a call's answer in a dialect.
func Response(d Dialect, c Call) string {
	if signature, ok := keywardAnswers[c.Name]; ok && d == Keyward {
		return signature
	}
	return c.Response
}
