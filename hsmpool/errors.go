package hsmpool

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

var kindNames = [...]string{
	KindInternal:    "internal error",
	KindBadData:     "data not valid",
	KindUnsupported: "not supported",
	KindUnavailable: "unavailable",
	KindFull:        "queue full",
	KindKeyMissing:  "key missing",
	KindCanceled:    "canceled",
}

// String names the kind in words.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Error is the one error type that leaves the pool. Its text is for logs and operators: it names members and PKCS#11
// codes, never data, keys or PINs.
type Error struct {
	Kind   Kind
	Member string // empty: no particular one
	Detail string // what happened and, where somebody can help, what to do
	Err    error  // the cause: a pkcs11.Error or a context's error

	fate   fate   // what the pool does next
	ending ending // how a worker ended, if that is what the error says
}

// ending is how a worker's life ended, for the metrics.
type ending uint8

// The endings.
const (
	endFailed  ending = iota // calls of the library failed
	endCrashed               // its process ended by itself
	endStuck                 // a call did not return
	endSilent                // its process was stopped, or hung
	endGarbled               // it sent what no worker sends
)

var endingNames = [...]string{"failed", "crashed", "stuck", "silent", "garbled"}

// Error renders the error for the log.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("hsm")
	if e.Member != "" {
		b.WriteString(" member ")
		b.WriteString(e.Member)
	}
	b.WriteString(": ")
	switch {
	case e.Detail == "" && e.Err == nil:
		b.WriteString(e.Kind.String())
	case e.Err == nil:
		b.WriteString(e.Detail)
	case e.Detail == "":
		b.WriteString(e.Err.Error())
	default:
		b.WriteString(e.Detail + ": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf tells what an error of this package means. An error of another type is KindInternal.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindInternal
}

// wontHelp says that trying the same again where it failed gives the same.
func (e *Error) wontHelp() bool { return e != nil && e.fate == fateItem && e.Kind != KindUnavailable }

// fateOf tells what the pool does about an error.
func fateOf(err error) fate {
	var e *Error
	if errors.As(err, &e) {
		return e.fate
	}
	return fateSession
}

func errorf(k Kind, f fate, format string, args ...any) *Error {
	return &Error{Kind: k, fate: f, Detail: fmt.Sprintf(format, args...)}
}

// badInput is for a job that no call is made for.
func badInput(format string, args ...any) *Error {
	return errorf(KindInternal, fateData, format, args...)
}

func contextError(ctx context.Context) *Error {
	cause := context.Cause(ctx)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) { // whatever cause was given for it
		return &Error{Kind: KindUnavailable, fate: fateData, Detail: "no member answered in time", Err: cause}
	}
	return &Error{Kind: KindCanceled, fate: fateData, Detail: "the caller gave up", Err: cause}
}
