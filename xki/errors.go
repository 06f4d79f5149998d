package xki

import (
	"errors"
	"fmt"
	"strings"
)

// Code is what went wrong, whatever the dialect calls it.
type Code uint8

// The codes, but for the last four, are those that a proxy answers (§2.9).
const (
	Validation           Code = iota + 1 // a member is missing or malformed
	InvalidState                         // the key can't be used as it is
	InvalidCiphertext                    // it does not decrypt
	InvalidKeyUsage                      // the key is not for that
	AuthenticationFailed                 // signature, access key or time
	AccessDenied                         // a rule of the operator says no
	KeyNotFound                          // no such key in this prefix
	InvalidURIPath                       // no such path or prefix
	MethodNotAllowed                     // only POST is
	Throttling                           // over the quota, or too much to do
	Internal                             // anything else
	Unsupported                          // not done here, or too large
	DependencyTimeout                    // the HSM did not answer in time

	BadAnswer     // of the client: what came is no answer
	Unreachable   // of the client: nothing came, or no connection
	Misconfigured // of the client: it can't work as it is set: the proxy's certificate or name, or our certificate. Detail says which
	NoSecret      // of the client: the secret of its access key can't be opened
	numCodes
)

var codeNames = [numCodes]string{Validation: "validation", InvalidState: "invalid state", InvalidCiphertext: "invalid ciphertext", InvalidKeyUsage: "invalid key usage",
	AuthenticationFailed: "authentication failed", AccessDenied: "access denied", KeyNotFound: "key not found", InvalidURIPath: "invalid path",
	MethodNotAllowed: "method not allowed", Throttling: "throttling", Internal: "internal", Unsupported: "unsupported operation",
	DependencyTimeout: "dependency timeout", BadAnswer: "bad answer", Unreachable: "unreachable",
	Misconfigured: "misconfigured", NoSecret: "no secret"}

// String gives the code in words.
func (c Code) String() string { return codeNames[c] }

// Error is an error of either end. Its text may be shown to the other end and in logs: nothing secret is in it.
type Error struct {
	Code   Code
	Member string // of Validation: the request's member, by its name in the dialect
	Absent bool   // of Validation: it is missing

	Disabled bool // of InvalidState: the key is disabled
	Pending  bool // of InvalidState: it will be deleted
	Detail   string
	Err      error // the cause, for the log only
	again    bool  // of the client: another try may help
}

// Error gives the code and what is known.
func (e *Error) Error() string {
	text := e.Code.String()
	if e.Member != "" {
		text += ": " + e.Member
	}
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// AsError gives an error as an Error; others are Internal.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: Internal, Err: err}
}

// message is what the other end is told: printable ASCII of at most maxMessage octets (§2.9).
func (e *Error) message() string {
	text := e.Detail
	if e.Member != "" {
		text = e.Member + ": " + text
	}
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
	return text[:min(len(text), maxMessage)]
}
