package engine

import (
	"errors"
	"fmt"
	"time"
)

// Code is the kind of an Error; the server maps each to one HTTP status.
type Code int

// The codes.
const (
	Internal         Code = iota // our fault
	Invalid                      // a bad field, named by Param
	Unauthorized                 // key missing or wrong
	Forbidden                    // key right, not allowed
	NotFound                     // no such model or route
	MethodNotAllowed             //
	TooLarge                     // body over the limit
	UnsupportedMedia             // content type is not JSON
	TooLong                      // prompt and completion do not fit the model
	Busy                         // queue full; RetryAfter says when to come back
	Unavailable                  // not ready yet, or draining
	Timeout                      // a time limit of ours ran out
	Canceled                     // the client went away
	Upstream                     // a proxied server failed
)

// Error is the only error type that crosses Engine. Message is shown to the client: no path, address or stack in it.
// Err is for the log and is never shown.
type Error struct {
	Code       Code
	Param      string // JSON path of the bad field, "" if none
	Message    string
	RetryAfter time.Duration // for Busy and Unavailable
	Err        error
}

// Error returns the message and the hidden cause, for logs.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

// Unwrap returns the hidden cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error without a field.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// BadField makes an Invalid error that names the field.
func BadField(param, format string, args ...any) *Error {
	return &Error{Code: Invalid, Param: param, Message: fmt.Sprintf(format, args...)}
}

// AsError returns err as an *Error; any other error becomes an Internal one that hides it. nil stays nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: Internal, Message: "internal error", Err: err}
}
