package pkcs11front

import (
	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
)

// subject is what an error of the service is about, for the return values in which PKCS #11 tells that.
type subject uint8

const (
	aboutToken      subject = iota // a slot, a login
	aboutObject                    // an object handle, or an attribute of what it names
	aboutKey                       // a key handle: whether it may be used so
	aboutData                      // what is signed, encrypted, digested
	aboutCiphertext                // what is decrypted
	aboutSignature                 // what is verified
	aboutTemplate                  // what is to be made
	aboutWrapped                   // what is unwrapped
	numSubjects
)

// errorRow is a Code in the words of PKCS #11.
type errorRow struct {
	rv ck.RV
	// other has the subjects in which the code has another value.
	other map[subject]ck.RV
}

// notThere is what an object is that is not there, or that the caller may not know of.
var notThere = map[subject]ck.RV{aboutKey: ck.CKR_KEY_HANDLE_INVALID, aboutData: ck.CKR_KEY_HANDLE_INVALID, aboutCiphertext: ck.CKR_KEY_HANDLE_INVALID,
	aboutSignature: ck.CKR_KEY_HANDLE_INVALID, aboutToken: ck.CKR_TOKEN_NOT_PRESENT, aboutTemplate: ck.CKR_TOKEN_NOT_PRESENT, aboutWrapped: ck.CKR_UNWRAPPING_KEY_HANDLE_INVALID}

// notWith is what is said of a key that may not be used so.
var notWith = map[subject]ck.RV{aboutKey: ck.CKR_KEY_FUNCTION_NOT_PERMITTED, aboutData: ck.CKR_KEY_FUNCTION_NOT_PERMITTED,
	aboutCiphertext: ck.CKR_KEY_FUNCTION_NOT_PERMITTED, aboutSignature: ck.CKR_KEY_FUNCTION_NOT_PERMITTED, aboutWrapped: ck.CKR_KEY_FUNCTION_NOT_PERMITTED}

// badValue is what is said of a value that is not acceptable. All that can be wrong with a ciphertext is one value.
var badValue = map[subject]ck.RV{aboutKey: ck.CKR_MECHANISM_PARAM_INVALID, aboutData: ck.CKR_DATA_INVALID, aboutCiphertext: ck.CKR_ENCRYPTED_DATA_INVALID,
	aboutSignature: ck.CKR_SIGNATURE_INVALID, aboutTemplate: ck.CKR_ATTRIBUTE_VALUE_INVALID, aboutWrapped: ck.CKR_WRAPPED_KEY_INVALID,
	aboutObject: ck.CKR_ATTRIBUTE_VALUE_INVALID}

// errorTable gives every code of the service its return value. Programs know few of them and give up on the rest, so what another
// try can mend is CKR_FUNCTION_FAILED, and CKR_DEVICE_ERROR is what an operator must see to.
var errorTable = map[kms.Code]errorRow{
	kms.Internal:              {ck.CKR_GENERAL_ERROR, nil},
	kms.MissingParameter:      {ck.CKR_ARGUMENTS_BAD, map[subject]ck.RV{aboutTemplate: ck.CKR_TEMPLATE_INCOMPLETE}},
	kms.InvalidParameter:      {ck.CKR_ARGUMENTS_BAD, badValue},
	kms.KeyNotFound:           {ck.CKR_OBJECT_HANDLE_INVALID, notThere},
	kms.VersionNotFound:       {ck.CKR_OBJECT_HANDLE_INVALID, notThere},
	kms.AliasNotFound:         {ck.CKR_OBJECT_HANDLE_INVALID, notThere},
	kms.ResourceNotFound:      {ck.CKR_OBJECT_HANDLE_INVALID, notThere},
	kms.Denied:                {ck.CKR_ACTION_PROHIBITED, notWith},
	kms.KeyDisabled:           {ck.CKR_ACTION_PROHIBITED, notWith},
	kms.KeyPendingDeletion:    {ck.CKR_OBJECT_HANDLE_INVALID, notThere}, // such keys are no objects
	kms.KeyPendingImport:      {ck.CKR_OBJECT_HANDLE_INVALID, notThere},
	kms.KeyUnavailable:        {ck.CKR_DEVICE_ERROR, nil},
	kms.StateNotAllowed:       {ck.CKR_ACTION_PROHIBITED, nil},
	kms.KeyProtected:          {ck.CKR_ACTION_PROHIBITED, nil},
	kms.LimitExceeded:         {ck.CKR_DEVICE_MEMORY, nil},
	kms.AliasExists:           {ck.CKR_ATTRIBUTE_VALUE_INVALID, nil},
	kms.UnsupportedAlias:      {ck.CKR_ARGUMENTS_BAD, nil},
	kms.UnsupportedOrigin:     {ck.CKR_ACTION_PROHIBITED, nil},
	kms.UnsupportedProtection: {ck.CKR_TEMPLATE_INCONSISTENT, nil},
	kms.UnsupportedOperation: {ck.CKR_FUNCTION_NOT_SUPPORTED, map[subject]ck.RV{aboutKey: ck.CKR_MECHANISM_INVALID, aboutData: ck.CKR_MECHANISM_INVALID,
		aboutCiphertext: ck.CKR_MECHANISM_INVALID, aboutSignature: ck.CKR_MECHANISM_INVALID, aboutWrapped: ck.CKR_MECHANISM_INVALID, aboutTemplate: ck.CKR_TEMPLATE_INCONSISTENT}},
	kms.InvalidKeyMaterial: {ck.CKR_ATTRIBUTE_VALUE_INVALID, map[subject]ck.RV{aboutWrapped: ck.CKR_WRAPPED_KEY_INVALID}},
	kms.InvalidImportToken: {ck.CKR_FUNCTION_FAILED, nil}, // the door's imports have none that a client sees
	kms.ExpiredImportToken: {ck.CKR_FUNCTION_FAILED, nil},
	kms.OperationRejected:  {ck.CKR_ACTION_PROHIBITED, notWith},
	kms.Throttled:          {ck.CKR_FUNCTION_FAILED, nil},
	kms.HSMUnavailable:     {ck.CKR_DEVICE_ERROR, nil},
	kms.StoreUnavailable:   {ck.CKR_DEVICE_ERROR, nil},
	kms.AuditUnavailable:   {ck.CKR_DEVICE_ERROR, nil},
	kms.Canceled:           {ck.CKR_FUNCTION_FAILED, nil},
	kms.DryRunSucceeded:    {ck.CKR_GENERAL_ERROR, nil}, // the door never asks so
	kms.DryRunInvalid:      {ck.CKR_GENERAL_ERROR, nil},
	kms.DryRunDenied:       {ck.CKR_GENERAL_ERROR, nil},
}

// rvOf gives the return value for an error of the service; CKR_OK for none. The service has logged what is wrong inside of it if
// it was asked to use or to change something; who only looks at something calls request.failed instead.
func rvOf(err error, about subject) ck.RV {
	if err == nil {
		return ck.CKR_OK
	}
	row, ok := errorTable[kms.AsError(err).Code]
	if !ok {
		return ck.CKR_GENERAL_ERROR
	}
	if rv, ok := row.other[about]; ok {
		return rv
	}
	return row.rv
}

// failed is rvOf, and logs what is wrong inside of keyward: for what the service does not audit and so does not log itself.
func (q *request) failed(err error, about subject) ck.RV {
	if err != nil && kms.AsError(err).Code == kms.Internal {
		q.front.cfg.Log.Error().Str("call", q.name()).Err(err).Msg("a PKCS #11 call failed")
	}
	return rvOf(err, about)
}
