package pkcs11front

import (
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// handler answers one call: it reads the arguments of q, acts, and writes the results. When it returns anything but CKR_OK, what it
// wrote is dropped and the answer is that error.
type handler func(q *request) ck.RV

// callRow is how a call is answered.
type callRow struct {
	handle handler
	// session: the first argument is a session, and calls of one session are answered one after the other.
	session bool
}

// calls has a row for each of p11rpc.Calls; a test says so.
var calls = map[p11rpc.CallID]callRow{
	1:  {(*request).initialize, false},         // C_Initialize
	2:  {(*request).finalize, false},           // C_Finalize
	3:  {(*request).getInfo, false},            // C_GetInfo
	4:  {(*request).getSlotList, false},        // C_GetSlotList
	5:  {(*request).getSlotInfo, false},        // C_GetSlotInfo
	6:  {(*request).getTokenInfo, false},       // C_GetTokenInfo
	7:  {(*request).getMechanismList, false},   // C_GetMechanismList
	8:  {(*request).getMechanismInfo, false},   // C_GetMechanismInfo
	9:  {(*request).initToken, false},          // C_InitToken
	10: {(*request).openSession, false},        // C_OpenSession
	11: {(*request).closeSession, true},        // C_CloseSession
	12: {(*request).closeAllSessions, false},   // C_CloseAllSessions
	13: {(*request).getSessionInfo, true},      // C_GetSessionInfo
	14: {(*request).initPIN, true},             // C_InitPIN
	15: {(*request).setPIN, true},              // C_SetPIN
	16: {(*request).getOperationState, true},   // C_GetOperationState
	17: {(*request).setOperationState, true},   // C_SetOperationState
	18: {(*request).login, true},               // C_Login
	19: {(*request).logout, true},              // C_Logout
	20: {(*request).createObject, true},        // C_CreateObject
	21: {(*request).copyObject, true},          // C_CopyObject
	22: {(*request).destroyObject, true},       // C_DestroyObject
	23: {(*request).getObjectSize, true},       // C_GetObjectSize
	24: {(*request).getAttributeValue, true},   // C_GetAttributeValue
	25: {(*request).setAttributeValue, true},   // C_SetAttributeValue
	26: {(*request).findObjectsInit, true},     // C_FindObjectsInit
	27: {(*request).findObjects, true},         // C_FindObjects
	28: {(*request).findObjectsFinal, true},    // C_FindObjectsFinal
	29: {(*request).encryptInit, true},         // C_EncryptInit
	30: {(*request).encrypt, true},             // C_Encrypt
	31: {(*request).encryptUpdate, true},       // C_EncryptUpdate
	32: {(*request).encryptFinal, true},        // C_EncryptFinal
	33: {(*request).decryptInit, true},         // C_DecryptInit
	34: {(*request).decrypt, true},             // C_Decrypt
	35: {(*request).decryptUpdate, true},       // C_DecryptUpdate
	36: {(*request).decryptFinal, true},        // C_DecryptFinal
	37: {(*request).digestInit, true},          // C_DigestInit
	38: {(*request).digest, true},              // C_Digest
	39: {(*request).digestUpdate, true},        // C_DigestUpdate
	40: {(*request).digestKey, true},           // C_DigestKey
	41: {(*request).digestFinal, true},         // C_DigestFinal
	42: {(*request).signInit, true},            // C_SignInit
	43: {(*request).sign, true},                // C_Sign
	44: {(*request).signUpdate, true},          // C_SignUpdate
	45: {(*request).signFinal, true},           // C_SignFinal
	46: {(*request).signRecoverInit, true},     // C_SignRecoverInit
	47: {(*request).signRecover, true},         // C_SignRecover
	48: {(*request).verifyInit, true},          // C_VerifyInit
	49: {(*request).verify, true},              // C_Verify
	50: {(*request).verifyUpdate, true},        // C_VerifyUpdate
	51: {(*request).verifyFinal, true},         // C_VerifyFinal
	52: {(*request).verifyRecoverInit, true},   // C_VerifyRecoverInit
	53: {(*request).verifyRecover, true},       // C_VerifyRecover
	54: {(*request).digestEncryptUpdate, true}, // C_DigestEncryptUpdate
	55: {(*request).decryptDigestUpdate, true}, // C_DecryptDigestUpdate
	56: {(*request).signEncryptUpdate, true},   // C_SignEncryptUpdate
	57: {(*request).decryptVerifyUpdate, true}, // C_DecryptVerifyUpdate
	58: {(*request).generateKey, true},         // C_GenerateKey
	59: {(*request).generateKeyPair, true},     // C_GenerateKeyPair
	60: {(*request).wrapKey, true},             // C_WrapKey
	61: {(*request).unwrapKey, true},           // C_UnwrapKey
	62: {(*request).deriveKey, true},           // C_DeriveKey
	63: {(*request).seedRandom, true},          // C_SeedRandom
	64: {(*request).generateRandom, true},      // C_GenerateRandom
	65: {(*request).waitForSlotEvent, false},   // C_WaitForSlotEvent
	66: {(*request).loginUser, true},           // C_LoginUser
	67: {(*request).sessionCancel, true},       // C_SessionCancel
	68: {(*request).messageEncryptInit, true},  // C_MessageEncryptInit
	69: {(*request).encryptMessage, true},      // C_EncryptMessage
	70: {(*request).encryptMessageBegin, true}, // C_EncryptMessageBegin
	71: {(*request).encryptMessageNext, true},  // C_EncryptMessageNext
	72: {(*request).messageEncryptFinal, true}, // C_MessageEncryptFinal
	73: {(*request).messageDecryptInit, true},  // C_MessageDecryptInit
	74: {(*request).decryptMessage, true},      // C_DecryptMessage
	75: {(*request).decryptMessageBegin, true}, // C_DecryptMessageBegin
	76: {(*request).decryptMessageNext, true},  // C_DecryptMessageNext
	77: {(*request).messageDecryptFinal, true}, // C_MessageDecryptFinal
	78: {(*request).messageSignInit, true},     // C_MessageSignInit
	79: {(*request).signMessage, true},         // C_SignMessage
	80: {(*request).signMessageBegin, true},    // C_SignMessageBegin
	81: {(*request).signMessageNext, true},     // C_SignMessageNext
	82: {(*request).messageSignFinal, true},    // C_MessageSignFinal
	83: {(*request).messageVerifyInit, true},   // C_MessageVerifyInit
	84: {(*request).verifyMessage, true},       // C_VerifyMessage
	85: {(*request).verifyMessageBegin, true},  // C_VerifyMessageBegin
	86: {(*request).verifyMessageNext, true},   // C_VerifyMessageNext
	87: {(*request).messageVerifyFinal, true},  // C_MessageVerifyFinal
	88: {(*request).initToken2, false},         // C_InitToken2
	89: {(*request).deriveKey2, true},          // C_DeriveKey2
}
