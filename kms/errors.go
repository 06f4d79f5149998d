package kms

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// Code is what went wrong, in keyward's own words. Every door has one table from Code to its own tongue (the KMS API's
// codes and HTTP statuses, PKCS#11's CKR values, XKS exceptions), and a test that ranges over Codes.
type Code uint8

// The codes. The comment says when each is used.
const (
	Internal              Code = iota // a bug or a fault inside keyward; details go to the log, not to the caller
	MissingParameter                  // a required parameter is absent or empty; Param says which
	InvalidParameter                  // a parameter's value is not acceptable; Param says which
	KeyNotFound                       // no such key, or none that this caller may know of
	VersionNotFound                   // the key has no such version
	AliasNotFound                     // no such alias in the caller's account
	ResourceNotFound                  // anything else that is named and is not there
	Denied                            // no policy allows it
	KeyDisabled                       // the key is Disabled
	KeyPendingDeletion                // the key is PendingDeletion
	KeyPendingImport                  // the key is PendingImport
	KeyUnavailable                    // the key's material can't be reached or failed its integrity check
	StateNotAllowed                   // the wanted change of state is not one that the key's state allows
	KeyProtected                      // the deletion protection of the key, or of its instance, is on
	LimitExceeded                     // a quota of things that may exist
	AliasExists                       // the alias is taken
	UnsupportedAlias                  // an alias was given where only a key ID or ARN is accepted
	UnsupportedOrigin                 // the key's Origin does not fit the action
	UnsupportedProtection             // the instance has no such protection level
	UnsupportedOperation              // keyward does not do this, at all or for this kind of key
	InvalidKeyMaterial                // imported material is of the wrong size, badly wrapped, or not what was imported first
	InvalidImportToken                // an import token is damaged, or another key's
	ExpiredImportToken                // an import token is too old
	OperationRejected                 // the key's type, usage, algorithm or version forbids it
	Throttled                         // a queue or rate limit is full; nothing was done; try again later
	HSMUnavailable                    // no HSM could serve the call in time; try again later
	StoreUnavailable                  // the store can't be read or written now (disk full, damaged, read-only)
	AuditUnavailable                  // the audit event could not be kept, so there is no answer
	Canceled                          // the caller went away or its deadline passed
	DryRunSucceeded                   // DryRun: everything but the operation itself was done, and it would have worked
	DryRunInvalid                     // DryRun: a parameter or the key's state forbids it
	DryRunDenied                      // DryRun: no policy allows it
	numCodes
)

// Codes lists every Code, for the completeness tests of the doors' tables.
func Codes() []Code {
	all := make([]Code, numCodes)
	for i := range all {
		all[i] = Code(i)
	}
	return all
}

// Error lets a Code be the target of errors.Is.
func (c Code) Error() string { return codeNames[c] }

var codeNames = [numCodes]string{
	Internal:              "internal failure",
	MissingParameter:      "missing parameter",
	InvalidParameter:      "invalid parameter",
	KeyNotFound:           "key not found",
	VersionNotFound:       "key version not found",
	AliasNotFound:         "alias not found",
	ResourceNotFound:      "resource not found",
	Denied:                "denied by policy",
	KeyDisabled:           "key is disabled",
	KeyPendingDeletion:    "key is pending deletion",
	KeyPendingImport:      "key is pending import",
	KeyUnavailable:        "key material unavailable",
	StateNotAllowed:       "change of state not allowed",
	KeyProtected:          "deletion protection is on",
	LimitExceeded:         "limit exceeded",
	AliasExists:           "alias exists",
	UnsupportedAlias:      "alias not accepted here",
	UnsupportedOrigin:     "origin does not fit",
	UnsupportedProtection: "protection level not available",
	UnsupportedOperation:  "unsupported operation",
	InvalidKeyMaterial:    "invalid key material",
	InvalidImportToken:    "invalid import token",
	ExpiredImportToken:    "expired import token",
	OperationRejected:     "operation does not fit the key",
	Throttled:             "throttled",
	HSMUnavailable:        "HSM unavailable",
	StoreUnavailable:      "store unavailable",
	AuditUnavailable:      "audit unavailable",
	Canceled:              "canceled",
	DryRunSucceeded:       "dry run: would have succeeded",
	DryRunInvalid:         "dry run: invalid",
	DryRunDenied:          "dry run: denied",
}

// Error is the one error type that leaves the service. Detail is for the caller: what happened, to what, and what to do
// next; it never carries secrets. Err is for the log only.
type Error struct {
	Code   Code
	Param  string // the parameter at fault, for MissingParameter and InvalidParameter
	Detail string
	Err    error
}

// Error renders the error for the log.
func (e *Error) Error() string {
	s := codeNames[e.Code]
	if e.Param != "" {
		s += " " + e.Param
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Is makes errors.Is(err, kms.KeyNotFound) work.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error with a detail for the caller.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: cut(fmt.Sprintf(format, args...), maxDetail)}
}

// maxDetail bounds a Detail, in octets, because it can quote what the caller gave.
const maxDetail = 1024

// cut gives at most n octets of s, and no half of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// Missing says that a required parameter was not given.
func Missing(param string) *Error { return &Error{Code: MissingParameter, Param: param} }

// Invalid says that a parameter's value is not acceptable, and why.
func Invalid(param, format string, args ...any) *Error {
	e := Errorf(InvalidParameter, format, args...)
	e.Param = param
	return e
}

// AsError gives err as an *Error. An error that is not one becomes Internal, its text kept for the log.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: Internal, Err: err}
}
