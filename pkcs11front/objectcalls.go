package pkcs11front

import "github.com/keyward/keyward/pkcs11front/ck"

// createObject is C_CreateObject.
func (q *request) createObject() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// copyObject is C_CopyObject.
func (q *request) copyObject() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// destroyObject is C_DestroyObject.
func (q *request) destroyObject() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// getObjectSize is C_GetObjectSize.
func (q *request) getObjectSize() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// getAttributeValue is C_GetAttributeValue.
func (q *request) getAttributeValue() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// setAttributeValue is C_SetAttributeValue.
func (q *request) setAttributeValue() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// findObjectsInit is C_FindObjectsInit.
func (q *request) findObjectsInit() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// findObjects is C_FindObjects.
func (q *request) findObjects() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// findObjectsFinal is C_FindObjectsFinal.
func (q *request) findObjectsFinal() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// generateKey is C_GenerateKey.
func (q *request) generateKey() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// generateKeyPair is C_GenerateKeyPair.
func (q *request) generateKeyPair() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }
