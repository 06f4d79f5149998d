package kmsclient

import (
	"errors"
	"fmt"
	"syscall"
)

// Error is an answer of keyward that says no.
type Error struct {
	Action     string // what was asked for
	Code       string // wire code, such as "Forbidden.KeyNotFound"; empty when something other than keyward answered
	Message    string // what happened, to what, and what to do next; never holds secrets
	RequestID  string // finds the call in keyward's audit; empty for one item of a batch
	HTTPStatus int    // 0 for one item of a batch
}

// Error gives the message with its code.
func (e *Error) Error() string {
	s := e.Action
	if s == "" {
		s = "batch item"
	}
	s += ": " + e.Message
	if e.Code != "" {
		s += " (" + e.Code + ")"
	}
	return s
}

// UnreachableError says that no connection could be made. Nothing was sent.
type UnreachableError struct {
	Socket string
	Err    error // such as os.ErrNotExist, os.ErrPermission or syscall.ECONNREFUSED
}

func (e *UnreachableError) Error() string {
	// The system's own word says it all; what net puts around it repeats the socket.
	if errno, ok := errors.AsType[syscall.Errno](e.Err); ok {
		return fmt.Sprintf("cannot connect to %s: %v", e.Socket, errno)
	}
	return fmt.Sprintf("cannot connect to %s: %v", e.Socket, e.Err)
}

// Unwrap gives the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }
