package pkcs11front

import "github.com/keyward/keyward/pkcs11front/ck"

// initialize is C_Initialize.
func (q *request) initialize() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// finalize is C_Finalize.
func (q *request) finalize() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// getInfo is C_GetInfo.
func (q *request) getInfo() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// getSlotList is C_GetSlotList.
func (q *request) getSlotList() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// getSlotInfo is C_GetSlotInfo.
func (q *request) getSlotInfo() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// getTokenInfo is C_GetTokenInfo.
func (q *request) getTokenInfo() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// getMechanismList is C_GetMechanismList.
func (q *request) getMechanismList() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// getMechanismInfo is C_GetMechanismInfo.
func (q *request) getMechanismInfo() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// initToken is C_InitToken.
func (q *request) initToken() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// openSession is C_OpenSession.
func (q *request) openSession() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// closeSession is C_CloseSession.
func (q *request) closeSession() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// closeAllSessions is C_CloseAllSessions.
func (q *request) closeAllSessions() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// getSessionInfo is C_GetSessionInfo.
func (q *request) getSessionInfo() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// initPIN is C_InitPIN.
func (q *request) initPIN() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// setPIN is C_SetPIN.
func (q *request) setPIN() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// login is C_Login.
func (q *request) login() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// logout is C_Logout.
func (q *request) logout() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// waitForSlotEvent is C_WaitForSlotEvent.
func (q *request) waitForSlotEvent() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// loginUser is C_LoginUser.
func (q *request) loginUser() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// initToken2 is C_InitToken2.
func (q *request) initToken2() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }
