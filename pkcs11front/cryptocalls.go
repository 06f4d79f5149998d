package pkcs11front

import "github.com/keyward/keyward/pkcs11front/ck"

// getOperationState is C_GetOperationState.
func (q *request) getOperationState() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// setOperationState is C_SetOperationState.
func (q *request) setOperationState() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// encryptInit is C_EncryptInit.
func (q *request) encryptInit() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// encrypt is C_Encrypt.
func (q *request) encrypt() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// encryptUpdate is C_EncryptUpdate.
func (q *request) encryptUpdate() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// encryptFinal is C_EncryptFinal.
func (q *request) encryptFinal() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// decryptInit is C_DecryptInit.
func (q *request) decryptInit() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// decrypt is C_Decrypt.
func (q *request) decrypt() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// decryptUpdate is C_DecryptUpdate.
func (q *request) decryptUpdate() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// decryptFinal is C_DecryptFinal.
func (q *request) decryptFinal() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// digestInit is C_DigestInit.
func (q *request) digestInit() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// digest is C_Digest.
func (q *request) digest() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// digestUpdate is C_DigestUpdate.
func (q *request) digestUpdate() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// digestKey is C_DigestKey.
func (q *request) digestKey() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// digestFinal is C_DigestFinal.
func (q *request) digestFinal() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// signInit is C_SignInit.
func (q *request) signInit() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// sign is C_Sign.
func (q *request) sign() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// signUpdate is C_SignUpdate.
func (q *request) signUpdate() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// signFinal is C_SignFinal.
func (q *request) signFinal() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// signRecoverInit is C_SignRecoverInit.
func (q *request) signRecoverInit() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// signRecover is C_SignRecover.
func (q *request) signRecover() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// verifyInit is C_VerifyInit.
func (q *request) verifyInit() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// verify is C_Verify.
func (q *request) verify() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// verifyUpdate is C_VerifyUpdate.
func (q *request) verifyUpdate() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// verifyFinal is C_VerifyFinal.
func (q *request) verifyFinal() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// verifyRecoverInit is C_VerifyRecoverInit.
func (q *request) verifyRecoverInit() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// verifyRecover is C_VerifyRecover.
func (q *request) verifyRecover() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// digestEncryptUpdate is C_DigestEncryptUpdate.
func (q *request) digestEncryptUpdate() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// decryptDigestUpdate is C_DecryptDigestUpdate.
func (q *request) decryptDigestUpdate() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// signEncryptUpdate is C_SignEncryptUpdate.
func (q *request) signEncryptUpdate() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// decryptVerifyUpdate is C_DecryptVerifyUpdate.
func (q *request) decryptVerifyUpdate() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// wrapKey is C_WrapKey.
func (q *request) wrapKey() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// unwrapKey is C_UnwrapKey.
func (q *request) unwrapKey() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// deriveKey is C_DeriveKey.
func (q *request) deriveKey() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// seedRandom is C_SeedRandom.
func (q *request) seedRandom() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// generateRandom is C_GenerateRandom.
func (q *request) generateRandom() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// sessionCancel is C_SessionCancel.
func (q *request) sessionCancel() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// messageEncryptInit is C_MessageEncryptInit.
func (q *request) messageEncryptInit() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// encryptMessage is C_EncryptMessage.
func (q *request) encryptMessage() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// encryptMessageBegin is C_EncryptMessageBegin.
func (q *request) encryptMessageBegin() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// encryptMessageNext is C_EncryptMessageNext.
func (q *request) encryptMessageNext() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// messageEncryptFinal is C_MessageEncryptFinal.
func (q *request) messageEncryptFinal() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// messageDecryptInit is C_MessageDecryptInit.
func (q *request) messageDecryptInit() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// decryptMessage is C_DecryptMessage.
func (q *request) decryptMessage() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// decryptMessageBegin is C_DecryptMessageBegin.
func (q *request) decryptMessageBegin() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// decryptMessageNext is C_DecryptMessageNext.
func (q *request) decryptMessageNext() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// messageDecryptFinal is C_MessageDecryptFinal.
func (q *request) messageDecryptFinal() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// messageSignInit is C_MessageSignInit.
func (q *request) messageSignInit() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// signMessage is C_SignMessage.
func (q *request) signMessage() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// signMessageBegin is C_SignMessageBegin.
func (q *request) signMessageBegin() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// signMessageNext is C_SignMessageNext.
func (q *request) signMessageNext() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// messageSignFinal is C_MessageSignFinal.
func (q *request) messageSignFinal() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// messageVerifyInit is C_MessageVerifyInit.
func (q *request) messageVerifyInit() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// verifyMessage is C_VerifyMessage.
func (q *request) verifyMessage() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// verifyMessageBegin is C_VerifyMessageBegin.
func (q *request) verifyMessageBegin() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// verifyMessageNext is C_VerifyMessageNext.
func (q *request) verifyMessageNext() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// messageVerifyFinal is C_MessageVerifyFinal.
func (q *request) messageVerifyFinal() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// deriveKey2 is C_DeriveKey2.
func (q *request) deriveKey2() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }
