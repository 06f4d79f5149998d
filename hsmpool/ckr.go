package hsmpool

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"
)

// fate is what happens after a PKCS#11 call has failed. Whatever it is, a work session in which a call failed is closed
// and not used again: between Init and Final nobody knows what state the module left it in. (The one exception is in
// login.operate.)
type fate uint8

const (
	fateNone     fate = iota // no error, or one that is none at login (already logged in)
	fateData                 // the caller's data; nobody else would answer otherwise
	fateItem                 // this job fails here, another member may be able to
	fateSession              // the session is bad: again in another one, then on another member
	fateLogin                // logged out or handles gone: look, log in once, load again
	fateModule               // the library must be started again: member down, reopened by the supervisor
	fateDown                 // the token or its connection is gone: member down
	fateOperator             // somebody must act; nothing is tried again
)

// ckrRow is one PKCS#11 return value.
type ckrRow struct {
	fate fate
	kind Kind // if nothing helps
}

// ckrTable says what each return value means. A value that is not here is unknownCKR.
var ckrTable = map[uint]ckrRow{
	pkcs11.CKR_OK:                     {fateNone, KindInternal},
	pkcs11.CKR_USER_ALREADY_LOGGED_IN: {fateNone, KindInternal},

	// The caller's data. One kind whatever was wrong, so that nobody is an oracle.
	pkcs11.CKR_DATA_INVALID:             {fateData, KindBadData},
	pkcs11.CKR_DATA_LEN_RANGE:           {fateData, KindBadData},
	pkcs11.CKR_ENCRYPTED_DATA_INVALID:   {fateData, KindBadData},
	pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE: {fateData, KindBadData},
	pkcs11.CKR_SIGNATURE_INVALID:        {fateData, KindBadData},
	pkcs11.CKR_SIGNATURE_LEN_RANGE:      {fateData, KindBadData},

	// Our own wrapped key: another member has a say before it counts as corrupt.
	pkcs11.CKR_WRAPPED_KEY_INVALID:   {fateItem, KindBadData},
	pkcs11.CKR_WRAPPED_KEY_LEN_RANGE: {fateItem, KindBadData},

	// What this member can't do, or a mistake of ours.
	pkcs11.CKR_MECHANISM_INVALID:                {fateItem, KindUnsupported},
	pkcs11.CKR_MECHANISM_PARAM_INVALID:          {fateItem, KindUnsupported},
	pkcs11.CKR_FUNCTION_NOT_SUPPORTED:           {fateItem, KindUnsupported},
	pkcs11.CKR_CURVE_NOT_SUPPORTED:              {fateItem, KindUnsupported},
	pkcs11.CKR_DOMAIN_PARAMS_INVALID:            {fateItem, KindUnsupported},
	pkcs11.CKR_KEY_SIZE_RANGE:                   {fateItem, KindUnsupported},
	pkcs11.CKR_WRAPPING_KEY_SIZE_RANGE:          {fateItem, KindUnsupported},
	pkcs11.CKR_UNWRAPPING_KEY_SIZE_RANGE:        {fateItem, KindUnsupported},
	pkcs11.CKR_KEY_TYPE_INCONSISTENT:            {fateItem, KindInternal},
	pkcs11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT:   {fateItem, KindInternal},
	pkcs11.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT: {fateItem, KindInternal},
	pkcs11.CKR_KEY_NOT_NEEDED:                   {fateItem, KindInternal},
	pkcs11.CKR_KEY_CHANGED:                      {fateItem, KindInternal},
	pkcs11.CKR_KEY_NEEDED:                       {fateItem, KindInternal},
	pkcs11.CKR_KEY_INDIGESTIBLE:                 {fateItem, KindInternal},
	pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED:       {fateItem, KindInternal},
	pkcs11.CKR_KEY_NOT_WRAPPABLE:                {fateItem, KindInternal},
	pkcs11.CKR_KEY_UNEXTRACTABLE:                {fateItem, KindInternal},
	pkcs11.CKR_TEMPLATE_INCOMPLETE:              {fateItem, KindInternal},
	pkcs11.CKR_TEMPLATE_INCONSISTENT:            {fateItem, KindInternal},
	pkcs11.CKR_ATTRIBUTE_READ_ONLY:              {fateItem, KindInternal},
	pkcs11.CKR_ATTRIBUTE_SENSITIVE:              {fateItem, KindInternal},
	pkcs11.CKR_ATTRIBUTE_TYPE_INVALID:           {fateItem, KindInternal},
	pkcs11.CKR_ATTRIBUTE_VALUE_INVALID:          {fateItem, KindInternal},
	pkcs11.CKR_ARGUMENTS_BAD:                    {fateItem, KindInternal},
	pkcs11.CKR_ACTION_PROHIBITED:                {fateItem, KindInternal},
	pkcs11.CKR_TOKEN_WRITE_PROTECTED:            {fateItem, KindUnavailable},
	pkcs11.CKR_SESSION_READ_ONLY:                {fateItem, KindInternal},
	pkcs11.CKR_SESSION_READ_ONLY_EXISTS:         {fateItem, KindInternal},
	pkcs11.CKR_SESSION_EXISTS:                   {fateItem, KindInternal},
	pkcs11.CKR_SESSION_READ_WRITE_SO_EXISTS:     {fateItem, KindInternal},
	pkcs11.CKR_RANDOM_SEED_NOT_SUPPORTED:        {fateItem, KindUnsupported},
	pkcs11.CKR_RANDOM_NO_RNG:                    {fateItem, KindUnsupported},
	pkcs11.CKR_DEVICE_MEMORY:                    {fateItem, KindUnavailable},
	pkcs11.CKR_INFORMATION_SENSITIVE:            {fateItem, KindInternal},
	pkcs11.CKR_PUBLIC_KEY_INVALID:               {fateItem, KindInternal},
	pkcs11.CKR_NO_EVENT:                         {fateItem, KindInternal},
	pkcs11.CKR_FUNCTION_NOT_PARALLEL:            {fateItem, KindInternal},
	pkcs11.CKR_SESSION_PARALLEL_NOT_SUPPORTED:   {fateItem, KindInternal},
	pkcs11.CKR_FUNCTION_REJECTED:                {fateItem, KindUnavailable},
	pkcs11.CKR_EXCEEDED_MAX_ITERATIONS:          {fateItem, KindInternal},
	pkcs11.CKR_LIBRARY_LOAD_FAILED:              {fateModule, KindUnavailable},

	// The session.
	pkcs11.CKR_BUFFER_TOO_SMALL:          {fateSession, KindInternal},
	pkcs11.CKR_OPERATION_ACTIVE:          {fateSession, KindUnavailable},
	pkcs11.CKR_OPERATION_NOT_INITIALIZED: {fateSession, KindUnavailable},
	pkcs11.CKR_STATE_UNSAVEABLE:          {fateSession, KindUnavailable},
	pkcs11.CKR_SAVED_STATE_INVALID:       {fateSession, KindUnavailable},
	pkcs11.CKR_SESSION_HANDLE_INVALID:    {fateSession, KindUnavailable},
	pkcs11.CKR_SESSION_CLOSED:            {fateSession, KindUnavailable},
	pkcs11.CKR_SESSION_COUNT:             {fateSession, KindUnavailable},
	pkcs11.CKR_GENERAL_ERROR:             {fateSession, KindUnavailable},
	pkcs11.CKR_FUNCTION_FAILED:           {fateSession, KindUnavailable},
	pkcs11.CKR_FUNCTION_CANCELED:         {fateSession, KindUnavailable},
	pkcs11.CKR_CANCEL:                    {fateSession, KindUnavailable},
	pkcs11.CKR_DEVICE_ERROR:              {fateSession, KindUnavailable},
	pkcs11.CKR_VENDOR_DEFINED:            {fateSession, KindUnavailable},

	// Login and handles: they die together, see tokenWorker.renew.
	pkcs11.CKR_USER_NOT_LOGGED_IN:            {fateLogin, KindUnavailable},
	pkcs11.CKR_OBJECT_HANDLE_INVALID:         {fateLogin, KindUnavailable},
	pkcs11.CKR_KEY_HANDLE_INVALID:            {fateLogin, KindUnavailable},
	pkcs11.CKR_WRAPPING_KEY_HANDLE_INVALID:   {fateLogin, KindUnavailable},
	pkcs11.CKR_UNWRAPPING_KEY_HANDLE_INVALID: {fateLogin, KindUnavailable},

	// The library.
	pkcs11.CKR_HOST_MEMORY:                  {fateModule, KindUnavailable},
	pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED:     {fateModule, KindUnavailable},
	pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED: {fateModule, KindUnavailable},
	pkcs11.CKR_MUTEX_BAD:                    {fateModule, KindUnavailable},
	pkcs11.CKR_MUTEX_NOT_LOCKED:             {fateModule, KindUnavailable},
	pkcs11.CKR_NEW_PIN_MODE:                 {fateOperator, KindUnavailable},
	pkcs11.CKR_NEXT_OTP:                     {fateOperator, KindUnavailable},
	pkcs11.CKR_NEED_TO_CREATE_THREADS:       {fateOperator, KindUnavailable},
	pkcs11.CKR_CANT_LOCK:                    {fateOperator, KindUnavailable},

	// The token.
	pkcs11.CKR_TOKEN_NOT_PRESENT:     {fateDown, KindUnavailable},
	pkcs11.CKR_TOKEN_NOT_RECOGNIZED:  {fateDown, KindUnavailable},
	pkcs11.CKR_SLOT_ID_INVALID:       {fateDown, KindUnavailable},
	pkcs11.CKR_DEVICE_REMOVED:        {fateDown, KindUnavailable},
	pkcs11.CKR_FIPS_SELF_TEST_FAILED: {fateDown, KindUnavailable},

	// The operator. HSMs lock: none of these is tried again.
	pkcs11.CKR_PIN_INCORRECT:                  {fateOperator, KindUnavailable},
	pkcs11.CKR_PIN_INVALID:                    {fateOperator, KindUnavailable},
	pkcs11.CKR_PIN_LEN_RANGE:                  {fateOperator, KindUnavailable},
	pkcs11.CKR_PIN_EXPIRED:                    {fateOperator, KindUnavailable},
	pkcs11.CKR_PIN_LOCKED:                     {fateOperator, KindUnavailable},
	pkcs11.CKR_PIN_TOO_WEAK:                   {fateOperator, KindUnavailable},
	pkcs11.CKR_USER_PIN_NOT_INITIALIZED:       {fateOperator, KindUnavailable},
	pkcs11.CKR_USER_TYPE_INVALID:              {fateOperator, KindUnavailable},
	pkcs11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN: {fateOperator, KindUnavailable},
	pkcs11.CKR_USER_TOO_MANY_TYPES:            {fateOperator, KindUnavailable},
}

// unknownCKR is for vendors' codes and codes that are none: try elsewhere, and three of them take the member down.
var unknownCKR = ckrRow{fateSession, KindUnavailable}

// stage is where in an operation a call failed.
type stage uint8

const (
	stageOther stage = iota // a call that is complete in itself
	stageInit
	stageOp
)

// quirkRow overrides ckrTable for one kind of module.
type quirkRow struct {
	code  uint
	fn    function
	stage stage
	row   ckrRow
}

// quirks is what is known of a kind of module.
type quirks struct {
	manufacturer string // start of CK_INFO.manufacturerID
	rows         []quirkRow

	// forgetful: the module knows the tokens that it found when it was initialised, and gives up for good on one that fails.
	forgetful bool
}

// knownQuirks has a row for each kind of module that differs; noQuirks is for the rest.
var knownQuirks = []*quirks{{
	manufacturer: "SoftHSM",
	forgetful:    true,
	rows: []quirkRow{
		// Every decryption that OpenSSL refuses (tag, padding, size) is a general error there.
		{pkcs11.CKR_GENERAL_ERROR, fnDecrypt, stageOp, ckrRow{fateData, KindBadData}},
		// An unwrap that fails inside OpenSSL.
		{pkcs11.CKR_GENERAL_ERROR, fnUnwrap, stageOther, ckrRow{fateItem, KindBadData}},
	},
}}

var noQuirks = &quirks{}

func quirksOf(manufacturer string) *quirks {
	for _, q := range knownQuirks {
		if strings.HasPrefix(manufacturer, q.manufacturer) {
			return q
		}
	}
	return noQuirks
}

// codeCount counts return values that were errors.
type codeCount struct {
	mu sync.Mutex
	n  map[pkcs11.Error]uint64 // guarded by mu
}

func (c *codeCount) add(code pkcs11.Error) { c.addN(code, 1) }

// codesMost bounds the map: a module can give as many numbers as it likes.
const codesMost = 256

func (c *codeCount) addN(code pkcs11.Error, n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[pkcs11.Error]uint64{}
	}
	if _, known := c.n[code]; !known && len(c.n) >= codesMost-1 { // one is for the rest
		code = pkcs11.CKR_VENDOR_DEFINED
	}
	c.n[code] += n
}

// take gives the counts and begins anew.
func (c *codeCount) take() map[pkcs11.Error]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.n
	c.n = nil
	return n
}

// names gives the counts by name.
func (c *codeCount) names() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := make(map[string]uint64, len(c.n))
	for code, n := range c.n {
		names[codeName(code)] += n
	}
	return names
}

// codeName is CKR_DEVICE_ERROR, or the number of a value that has no name.
func codeName(code pkcs11.Error) string {
	text := code.Error() // pkcs11: 0x30: CKR_DEVICE_ERROR
	if i := strings.LastIndex(text, ": "); i >= 0 && strings.HasPrefix(text[i+2:], "CKR_") {
		return text[i+2:]
	}
	return fmt.Sprintf("CKR_%#x", uint(code))
}

// classify looks a return value up.
func (q *quirks) classify(code uint, fn function, st stage) ckrRow {
	for i := range q.rows {
		r := &q.rows[i]
		if r.code == code && r.fn == fn && r.stage == st {
			return r.row
		}
	}
	if r, ok := ckrTable[code]; ok {
		return r
	}
	return unknownCKR
}

// fail makes the error of a call that returned err, which the caller may add to. what says what was being done. It is nil
// for a login that was there already, and for nothing else.
func (q *quirks) fail(err error, fn function, st stage, what string) *Error {
	var own *Error
	if errors.As(err, &own) {
		e := *own // it may be shared
		return &e
	}
	var code pkcs11.Error
	if !errors.As(err, &code) {
		return &Error{Kind: KindUnavailable, fate: fateSession, Detail: what, Err: err}
	}
	r := q.classify(uint(code), fn, st)
	if r.fate == fateNone {
		if fn == fnLogin {
			return nil
		}
		r = unknownCKR // an answer that can't be
	}
	return &Error{Kind: r.kind, fate: r.fate, Detail: what, Err: code}
}
