package pkcs11front

import (
	"time"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// The version of PKCS #11 that is spoken. keyward's module tells programs itself which of its function lists is of which version.
const cryptokiMajor, cryptokiMinor = 2, 40

// handshake is what p11-kit's clients send first of all.
const handshake = "PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1"

// initialize is C_Initialize: the connection gets its application.
func (q *request) initialize() ck.RV {
	hello, _ := q.in.Octets()
	has := q.in.Byte()
	reserved, _ := q.in.Octets()
	if q.in.End() != nil {
		return ck.CKR_ARGUMENTS_BAD
	}
	if string(hello) != handshake {
		return ck.CKR_GENERAL_ERROR
	}
	cookie := ""
	if q.dialect == p11rpc.Keyward {
		if has != 1 || !validCookie(reserved) {
			return ck.CKR_ARGUMENTS_BAD
		}
		cookie = string(reserved)
	}
	if rv := q.conn.initialize(cookie, q.actor()); rv != ck.CKR_OK {
		return rv
	}
	if q.dialect == p11rpc.Keyward {
		q.out.Ulong(q.conn.app.epoch)
	}
	return ck.CKR_OK
}

// cookieLength is that of a cookie, in hexadecimal digits.
const cookieLength = 32

func validCookie(b []byte) bool {
	if len(b) == cookieLength+1 && b[cookieLength] == 0 {
		b = b[:cookieLength] // a string of C may come with its end
	}
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(b) == cookieLength
}

// finalize is C_Finalize: it ends the application, for all its connections.
func (q *request) finalize() ck.RV {
	if q.in.End() != nil {
		return ck.CKR_ARGUMENTS_BAD
	}
	q.conn.finalize()
	return ck.CKR_OK
}

// getInfo is C_GetInfo.
func (q *request) getInfo() ck.RV {
	if q.in.End() != nil {
		return ck.CKR_ARGUMENTS_BAD
	}
	q.out.Version(cryptokiMajor, cryptokiMinor)
	q.out.Padded(manufacturer, widthManufacturer)
	q.out.Ulong(0) // flags: there are none
	q.out.Padded("keyward PKCS #11", widthLibrary)
	q.out.Version(q.front.major, q.front.minor)
	return ck.CKR_OK
}

// getSlotList is C_GetSlotList. There is a token in every slot.
func (q *request) getSlotList() ck.RV {
	q.in.Byte() // tokenPresent
	room := q.in.Room()
	if q.in.End() != nil {
		return ck.CKR_ARGUMENTS_BAD
	}
	all, rv := q.slots()
	if rv != ck.CKR_OK {
		return rv
	}
	ids := make([]uint64, len(all))
	for i, s := range all {
		ids[i] = uint64(s.id)
	}
	q.out.Ulongs(room, ids)
	return ck.CKR_OK
}

// slotArgument reads the number of a slot, the call's only argument or its first one.
func (q *request) slotArgument() slotID { return slotID(q.in.Ulong()) }

// getSlotInfo is C_GetSlotInfo.
func (q *request) getSlotInfo() ck.RV {
	id := q.slotArgument()
	if q.in.End() != nil {
		return ck.CKR_ARGUMENTS_BAD
	}
	s, rv := q.slot(id)
	if rv != ck.CKR_OK {
		return rv
	}
	flags := ck.CKF_TOKEN_PRESENT
	if s.Type == kms.HardwareInstance {
		flags |= ck.CKF_HW_SLOT
	}
	q.out.Padded("keyward "+s.Instance, widthSlot)
	q.out.Padded(manufacturer, widthManufacturer)
	q.out.Ulong(uint64(flags))
	q.out.Version(0, 0)
	q.out.Version(q.front.major, q.front.minor)
	return ck.CKR_OK
}

// getTokenInfo is C_GetTokenInfo.
func (q *request) getTokenInfo() ck.RV {
	id := q.slotArgument()
	if q.in.End() != nil {
		return ck.CKR_ARGUMENTS_BAD
	}
	s, rv := q.slot(id)
	if rv != ck.CKR_OK {
		return rv
	}
	flags := ck.CKF_RNG | ck.CKF_TOKEN_INITIALIZED | ck.CKF_USER_PIN_INITIALIZED | ck.CKF_CLOCK_ON_TOKEN | ck.CKF_DUAL_CRYPTO_OPERATIONS
	shortest := uint64(0) // without a PIN any will do
	if s.PIN != "" {
		flags |= ck.CKF_LOGIN_REQUIRED | pinFlags(s.PINFailures)
		shortest = kms.MinPIN
	}
	all, rw := q.app.counts(s.Instance)
	most := uint64(q.front.cfg.SessionsPerApplication)
	q.out.Padded(s.label(), widthLabel)
	q.out.Padded(manufacturer, widthManufacturer)
	q.out.Padded(s.Type, widthModel)
	q.out.Padded(s.serial(), widthSerial)
	for _, n := range [...]uint64{uint64(flags), most, uint64(all), most, uint64(rw), kms.MaxPIN, shortest,
		ck.Unavailable, ck.Unavailable, ck.Unavailable, ck.Unavailable} {
		q.out.Ulong(n)
	}
	q.out.Version(0, 0)
	q.out.Version(q.front.major, q.front.minor)
	q.out.Padded(time.Now().UTC().Format("20060102150405")+"00", widthTime)
	return ck.CKR_OK
}

// pinFlags tell how near the PIN is to being locked (2.40, §3.2, CK_TOKEN_INFO).
func pinFlags(failures int) (flags ck.Flags) {
	if failures > 0 {
		flags |= ck.CKF_USER_PIN_COUNT_LOW
	}
	switch {
	case failures >= kms.MaxPINFailures:
		flags |= ck.CKF_USER_PIN_LOCKED
	case failures == kms.MaxPINFailures-1:
		flags |= ck.CKF_USER_PIN_FINAL_TRY
	}
	return flags
}

// getMechanismList is C_GetMechanismList.
func (q *request) getMechanismList() ck.RV {
	id, room := q.slotArgument(), q.in.Room()
	if q.in.End() != nil {
		return ck.CKR_ARGUMENTS_BAD
	}
	if _, rv := q.slot(id); rv != ck.CKR_OK {
		return rv
	}
	q.out.Ulongs(room, q.front.mechanisms)
	return ck.CKR_OK
}

// getMechanismInfo is C_GetMechanismInfo.
func (q *request) getMechanismInfo() ck.RV {
	id, m := q.slotArgument(), ck.Mechanism(q.in.Ulong())
	if q.in.End() != nil {
		return ck.CKR_ARGUMENTS_BAD
	}
	s, rv := q.slot(id)
	if rv != ck.CKR_OK {
		return rv
	}
	least, most, flags, rv := mechanismInfo(m, s.Type == kms.HardwareInstance, q.front.cfg.RawRSA)
	if rv != ck.CKR_OK {
		return rv
	}
	q.out.Ulong(least)
	q.out.Ulong(most)
	q.out.Ulong(uint64(flags))
	return ck.CKR_OK
}

// initToken is C_InitToken: instances are configured, not initialized.
func (q *request) initToken() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// initToken2 is C_InitToken as newer clients send it.
func (q *request) initToken2() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// initPIN is C_InitPIN, which a security officer would call; a token has none.
func (q *request) initPIN() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// setPIN is C_SetPIN: a principal that has a PIN may set another.
func (q *request) setPIN() ck.RV {
	old, _ := q.in.Octets()
	pin, _ := q.in.Octets()
	defer clear(old)
	defer clear(pin)
	switch {
	case q.in.End() != nil:
		return ck.CKR_ARGUMENTS_BAD
	case !q.session.rw:
		return ck.CKR_SESSION_READ_ONLY
	}
	t, rv := q.token(q.session.instance)
	switch {
	case rv != ck.CKR_OK:
		return rv
	case t.PIN == "":
		return ck.CKR_USER_PIN_NOT_INITIALIZED // the first one is set by keywardctl
	case len(pin) < kms.MinPIN || len(pin) > kms.MaxPIN:
		return ck.CKR_PIN_LEN_RANGE
	case len(old) == 0:
		return ck.CKR_PIN_INCORRECT
	}
	name, err := q.front.cfg.Service.Principals().SetOwnPIN(q.ctx, q.actor(), old, pin)
	if err == nil {
		q.app.renewPIN(t.PIN, name)
	}
	return q.pinRV(err)
}

// pinRV gives the return value for what the service says of a PIN.
func (q *request) pinRV(err error) ck.RV {
	switch {
	case err == nil:
		return ck.CKR_OK
	case kms.AsError(err).Code == kms.Denied:
		return ck.CKR_PIN_INCORRECT
	case kms.AsError(err).Code == kms.Throttled:
		return ck.CKR_PIN_LOCKED
	}
	return rvOf(err, aboutToken)
}

// openSession is C_OpenSession.
func (q *request) openSession() ck.RV {
	id, flags := q.slotArgument(), ck.Flags(q.in.Ulong())
	if q.in.End() != nil {
		return ck.CKR_ARGUMENTS_BAD
	}
	s, rv := q.slot(id)
	if rv != ck.CKR_OK {
		return rv
	}
	if flags&ck.CKF_SERIAL_SESSION == 0 {
		return ck.CKR_SESSION_PARALLEL_NOT_SUPPORTED
	}
	opened, rv := q.app.open(q.actor(), s.Instance, flags&ck.CKF_RW_SESSION != 0)
	if rv != ck.CKR_OK {
		return rv
	}
	q.out.Ulong(opened.id)
	return ck.CKR_OK
}

// closeSession is C_CloseSession.
func (q *request) closeSession() ck.RV {
	if q.in.End() != nil {
		return ck.CKR_ARGUMENTS_BAD
	}
	if !q.app.take(q.session) {
		return ck.CKR_SESSION_HANDLE_INVALID // C_CloseAllSessions was faster
	}
	q.session.close()
	q.front.giveSessions(q.app.peer.UID, 1)
	return ck.CKR_OK
}

// closeAllSessions is C_CloseAllSessions. Calls of the sessions that are being answered end first.
func (q *request) closeAllSessions() ck.RV {
	id := q.slotArgument()
	if q.in.End() != nil {
		return ck.CKR_ARGUMENTS_BAD
	}
	s, rv := q.slot(id)
	if rv != ck.CKR_OK {
		return rv
	}
	q.front.closeSessions(q.app.peer.UID, q.app.takeAll(s.Instance))
	return ck.CKR_OK
}

// getSessionInfo is C_GetSessionInfo.
func (q *request) getSessionInfo() ck.RV {
	if q.in.End() != nil {
		return ck.CKR_ARGUMENTS_BAD
	}
	s, rv := q.token(q.session.instance)
	if rv != ck.CKR_OK {
		return rv
	}
	flags := ck.CKF_SERIAL_SESSION
	if q.session.rw {
		flags |= ck.CKF_RW_SESSION
	}
	q.out.Ulong(uint64(s.id))
	q.out.Ulong(uint64(q.session.state(s.PIN)))
	q.out.Ulong(uint64(flags))
	q.out.Ulong(0) // ulDeviceError
	return ck.CKR_OK
}

// login is C_Login.
func (q *request) login() ck.RV {
	user := ck.UserType(q.in.Ulong())
	pin, _ := q.in.Octets()
	defer clear(pin)
	if q.in.End() != nil {
		return ck.CKR_ARGUMENTS_BAD
	}
	return q.logIn(user, pin)
}

// loginUser is C_LoginUser. A token has one user, so a name is not looked at.
func (q *request) loginUser() ck.RV {
	user := ck.UserType(q.in.Ulong())
	pin, _ := q.in.Octets()
	defer clear(pin)
	q.in.Octets() // the name
	if q.in.End() != nil {
		return ck.CKR_ARGUMENTS_BAD
	}
	return q.logIn(user, pin)
}

// logIn logs the user in. Without a PIN any PIN is right, and gives nothing that the program did not have: many programs log in whether
// a token wants it or not.
func (q *request) logIn(user ck.UserType, pin []byte) ck.RV {
	switch user {
	case ck.CKU_USER:
	case ck.CKU_CONTEXT_SPECIFIC:
		return ck.CKR_OPERATION_NOT_INITIALIZED // no key asks for it (CKA_ALWAYS_AUTHENTICATE)
	default:
		return ck.CKR_USER_TYPE_INVALID // of CKU_SO too: a token has no security officer
	}
	t, rv := q.token(q.session.instance)
	if rv != ck.CKR_OK {
		return rv
	}
	if q.app.loggedIn(q.session.instance).good(t.PIN) {
		return ck.CKR_USER_ALREADY_LOGGED_IN
	}
	if t.PIN == "" {
		return q.app.logIn(q.session, "")
	}
	if len(pin) == 0 {
		return ck.CKR_PIN_INCORRECT // no PIN is empty, and programs that only try do not lock it
	}
	name, err := q.front.cfg.Service.CheckPIN(q.ctx, q.actor(), pin)
	if err != nil {
		return q.pinRV(err)
	}
	return q.app.logIn(q.session, name)
}

// logout is C_Logout.
func (q *request) logout() ck.RV {
	if q.in.End() != nil {
		return ck.CKR_ARGUMENTS_BAD
	}
	q.app.mu.Lock()
	was := q.app.logOut(q.session.instance)
	q.app.mu.Unlock()
	if !was {
		return ck.CKR_USER_NOT_LOGGED_IN
	}
	return ck.CKR_OK
}

// waitForSlotEvent is C_WaitForSlotEvent. Slots come and go with the configuration only, and nobody is told: programs that would wait
// look themselves when this is not supported.
func (q *request) waitForSlotEvent() ck.RV {
	flags := ck.Flags(q.in.Ulong())
	switch {
	case q.in.End() != nil:
		return ck.CKR_ARGUMENTS_BAD
	case flags&ck.CKF_DONT_BLOCK != 0:
		return ck.CKR_NO_EVENT
	}
	return ck.CKR_FUNCTION_NOT_SUPPORTED
}
