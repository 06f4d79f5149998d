package kmssign

import "fmt"

// Code is why a request is not taken for what it says, in the original's words.
type Code string

// The codes.
const (
	MissingAccessKeyID    Code = "MissingAccessKeyId"                         // the request is not signed at all
	MissingSignature      Code = "MissingSignature"                           // it names an access key and has no signature
	MissingParameter      Code = "MissingParameter"                           // the RPC scheme: Action or Version is not among what is signed
	MissingTimestamp      Code = "MissingTimestamp"                           // it does not say when it was made
	MissingSignatureNonce Code = "MissingSignatureNonce"                      // it has no nonce
	IncompleteSignature   Code = "IncompleteSignature"                        // the signature is malformed, or leaves out what it must cover
	SignatureDoesNotMatch Code = "SignatureDoesNotMatch"                      // another secret, or another request, was signed
	BadTimestamp          Code = "InvalidTimeStamp.Format"                    // the time is not YYYY-MM-DDThh:mm:ssZ
	ExpiredTimestamp      Code = "InvalidTimeStamp.Expired"                   // the time is more than MaxSkew away
	NonceUsed             Code = "SignatureNonceUsed"                         // the nonce was there already
	UnknownAccessKey      Code = "InvalidAccessKeyId.NotFound"                // there is no such access key
	DisabledAccessKey     Code = "Forbidden.AccessKey"                        // there is, and it is disabled
	TokenNotTaken         Code = "InvalidSecurityToken.MismatchWithAccessKey" // access keys here have no temporary tokens
	TooManyRequests       Code = "Throttling"                                 // no room to remember the nonce in
	TryAgain              Code = "ServiceUnavailableTemporary"                // signed before the start, when nonces were forgotten
)

// Codes lists every Code, for completeness tests.
func Codes() []Code {
	return []Code{MissingAccessKeyID, MissingSignature, MissingParameter, MissingTimestamp, MissingSignatureNonce, IncompleteSignature,
		SignatureDoesNotMatch, BadTimestamp, ExpiredTimestamp, NonceUsed, UnknownAccessKey, DisabledAccessKey, TokenNotTaken, TooManyRequests, TryAgain}
}

// maxShown is how many octets of a string to sign an answer may show. SDKs only compare it with their own.
const maxShown = 64 << 10

// Error is why a request is refused.
type Error struct {
	Code   Code
	Detail string // for the caller and the log: what is wrong, and what to do

	// StringToSign is what the signature was compared over, for the caller only: it holds the parameters, also
	// plaintext. Empty if there is none to show.
	StringToSign string
}

// Error gives code and detail. It never has the string to sign in it.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Detail }

// CallerMessage gives the detail, and after it the string to sign behind the marker that the original's SDKs look for,
// to tell a wrong secret from a wrong encoding.
func (e *Error) CallerMessage() string {
	if e.StringToSign == "" {
		return e.Detail
	}
	return e.Detail + " server string to sign is:" + e.StringToSign
}

func refuse(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// mismatch says that a signature is not right for text.
func mismatch(text string) *Error {
	e := refuse(SignatureDoesNotMatch, "The signature does not match the request. Check the secret of the access key; if it is right, the request was encoded in another way than it was signed, or changed on its way.")
	if len(text) <= maxShown {
		e.StringToSign = text
	}
	return e
}
