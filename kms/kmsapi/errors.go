package kmsapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmssign"
	"github.com/keyward/keyward/kms/kmswire"
)

// apiError is an error as the caller sees it: a code of the original service, its HTTP status, and a sentence.
type apiError struct {
	code    string
	status  int
	message string // if param is %q in it, the parameter's name goes there
}

// errorTable gives every code of the service its form on the wire: reference section 3, and section 10 where the
// original is silent.
var errorTable = map[kms.Code]apiError{
	kms.Internal:              {"InternalFailure", http.StatusInternalServerError, "The request failed because of an internal failure. Nothing more is told here; the log of keyward has the cause under this RequestId."},
	kms.MissingParameter:      {"MissingParameter", http.StatusBadRequest, "The parameter %q is needed but not provided."},
	kms.InvalidParameter:      {"InvalidParameter", http.StatusBadRequest, "The specified parameter %q is not valid."},
	kms.KeyNotFound:           {"Forbidden.KeyNotFound", http.StatusNotFound, "The specified Key is not found."},
	kms.VersionNotFound:       {"Forbidden.KeyVersionNotFound", http.StatusNotFound, "The specified Key version is not found."},
	kms.AliasNotFound:         {"Forbidden.AliasNotFound", http.StatusNotFound, "The specified Alias is not found."},
	kms.ResourceNotFound:      {"Forbidden.ResourceNotFound", http.StatusNotFound, "The specified resource is not found."},
	kms.Denied:                {"Forbidden.NoPermission", http.StatusForbidden, "This operation is forbidden by permission system."},
	kms.KeyDisabled:           {"Rejected.Disabled", http.StatusConflict, "The request was rejected because the key state is Disabled."},
	kms.KeyPendingDeletion:    {"Rejected.PendingDeletion", http.StatusConflict, "The request was rejected because the key state is PendingDeletion."},
	kms.KeyPendingImport:      {"Rejected.PendingImport", http.StatusConflict, "The request was rejected because the key state is PendingImport."},
	kms.KeyUnavailable:        {"Rejected.Unavailable", http.StatusConflict, "The request was rejected because the key state is Unavailable."},
	kms.StateNotAllowed:       {"Rejected.StateModifiedFailed", http.StatusConflict, "Keystate modified failed."},
	kms.KeyProtected:          {"Rejected.StateModifiedFailed", http.StatusConflict, "Keystate modified failed, because deletion protection is on."},
	kms.LimitExceeded:         {"Rejected.LimitExceeded", http.StatusBadRequest, "The quota of resources that may be created is exceeded."},
	kms.AliasExists:           {"AliasAlreadyExists", http.StatusBadRequest, "The specified Alias already exists."},
	kms.UnsupportedAlias:      {"Unsupported.Alias", http.StatusBadRequest, "An alias is not accepted by this action."},
	kms.UnsupportedOrigin:     {"Unsupported.Origin", http.StatusBadRequest, "The Origin of the key does not fit this action."},
	kms.UnsupportedProtection: {"Unsupported.ProtectionLevel", http.StatusBadRequest, "The protection level is not available."},
	kms.UnsupportedOperation:  {"UnsupportedOperation", http.StatusBadRequest, "This action is not supported."},
	kms.InvalidKeyMaterial:    {"InvalidKeyMaterial", http.StatusBadRequest, "The key material is not valid."},
	kms.InvalidImportToken:    {"InvalidImportToken", http.StatusBadRequest, "The import token is not valid."},
	kms.ExpiredImportToken:    {"ExpiredImportToken", http.StatusBadRequest, "The import token has expired. GetParametersForImport gives another."},
	kms.OperationRejected:     {"Rejected.UnsupportedOperation", http.StatusBadRequest, "Unsupported operation."},
	kms.Throttled:             {"Throttling", http.StatusBadRequest, "The request was throttled. Nothing was done; try again later."},
	kms.HSMUnavailable:        {"ServiceUnavailableTemporary", http.StatusServiceUnavailable, "The service is temporarily unavailable: no HSM could serve the request. Try again later."},
	kms.StoreUnavailable:      {"ServiceUnavailableTemporary", http.StatusServiceUnavailable, "The service is temporarily unavailable: its store can't be used. Try again later."},
	kms.AuditUnavailable:      {"ServiceUnavailableTemporary", http.StatusServiceUnavailable, "The service is temporarily unavailable: its audit can't be written. Try again later."},
	kms.Canceled:              {"ServiceUnavailableTemporary", http.StatusServiceUnavailable, "The service is temporarily unavailable: the request was not finished in time. Try again later."},
	kms.DryRunSucceeded:       {"DryRunOperationError", http.StatusBadRequest, "The request would have succeeded, but DryRun is set."},
	kms.DryRunInvalid:         {"ValidationError", http.StatusBadRequest, "The request would have failed: a parameter is not valid, or the key's state forbids it. DryRun is set."},
	kms.DryRunDenied:          {"AccessDeniedError", http.StatusForbidden, "The request would have been forbidden by permission system. DryRun is set."},
}

// doorError is an error of the door itself: what the service never sees.
type doorError struct {
	apiError
	detail string
}

// Error renders the error for the log.
func (e *doorError) Error() string { return strings.TrimSpace(e.message + " " + e.detail) }

// with gives the error with a detail for the caller.
func (e *doorError) with(format string, args ...any) *doorError {
	return &doorError{e.apiError, fmt.Sprintf(format, args...)}
}

func door(code string, status int, message string) *doorError {
	doorCodes = append(doorCodes, code)
	return &doorError{apiError: apiError{code, status, message}}
}

// doorCodes collects the codes of the door's errors as the package starts.
var doorCodes []string

// ErrorCodes lists every Code that an answer or an item can carry, sorted.
func ErrorCodes() []string {
	all := slices.Clone(doorCodes)
	for _, e := range errorTable {
		all = append(all, e.code)
	}
	for code := range signStatus {
		all = append(all, string(code))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// The errors of the door. InvalidAction.NotFound, InvalidVersion, UnsupportedHTTPMethod and
// ParseRequestParameterException are codes of the original; the others have none there.
var (
	errBrowser   = door("Forbidden.BrowserRequest", http.StatusForbidden, "Requests from web pages are refused: an Origin, Referer or Sec-Fetch-Site header was sent.")
	errNoActor   = door("Forbidden.NoPermission", http.StatusForbidden, "This operation is forbidden by permission system. The caller is not mapped to a principal by any [[peer]] row of the configuration.")
	errPath      = door("InvalidPath.NotFound", http.StatusNotFound, "There is nothing at this path. The API is at / only.")
	errMethod    = door("UnsupportedHTTPMethod", http.StatusMethodNotAllowed, "This HTTP method is not supported.")
	errAction    = door("InvalidAction.NotFound", http.StatusNotFound, "The specified action is not found.")
	errVersion   = door("InvalidVersion", http.StatusNotFound, "The specified version is not valid. It is "+kmswire.APIVersion+".")
	errParse     = door("ParseRequestParameterException", http.StatusBadRequest, "The request can't be parsed.")
	errTooLarge  = door("RequestEntityTooLarge", http.StatusRequestEntityTooLarge, "The request is too large.")
	errMediaType = door("UnsupportedMediaType", http.StatusUnsupportedMediaType, "This action does not take a body of this Content-Type.")
	errSlowBody  = door("RequestTimeout", http.StatusRequestTimeout, "The request did not arrive in time.")
)

// describe gives the wire form of any error. internal says that the caller was told nothing of the cause, so that it
// must be logged.
func describe(err error) (e apiError, internal bool) {
	var de *doorError
	if errors.As(err, &de) {
		e = de.apiError
		e.message = de.Error()
		return e, false
	}
	var refused *kmssign.Error
	if errors.As(err, &refused) {
		return apiError{string(refused.Code), signStatus[refused.Code], refused.CallerMessage()}, false
	}
	var known *kms.Error
	if !errors.As(err, &known) {
		known = kms.AsError(err)
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			known = &kms.Error{Code: kms.Canceled, Err: err}
		}
	}
	e, ok := errorTable[known.Code]
	if !ok || known.Code == kms.Internal {
		return errorTable[kms.Internal], true
	}
	if strings.Contains(e.message, "%q") {
		e.message = fmt.Sprintf(e.message, known.Param)
	}
	if known.Detail != "" {
		e.message = strings.TrimSuffix(e.message, ".") + ": " + strings.TrimSuffix(known.Detail, ".") + "."
	}
	return e, false
}

// paramError turns what kmswire found wrong into an error of the service. dryRun is whether the caller asked what
// would happen.
func paramError(err error, dryRun bool) error {
	var pe *kmswire.ParamError
	if !errors.As(err, &pe) {
		return err
	}
	switch {
	case dryRun:
		return kms.Errorf(kms.DryRunInvalid, "%v.", pe)
	case pe.Missing:
		return kms.Missing(pe.Param)
	}
	return kms.Invalid(pe.Param, "it is refused because %s.", pe.Reason)
}

// drainTimeout is how long the rest of a body is waited for when it is not wanted.
const drainTimeout = time.Second

// fail answers err. It must be called before anything is written.
func (c *call) fail(err error) {
	e, internal := describe(err)
	switch {
	case internal:
		c.h.log.Error().Str("request_id", c.id).Str("action", c.logName()).Err(err).Msg("KMS API call failed")
	default:
		c.h.log.Debug().Str("request_id", c.id).Str("action", c.logName()).Str("code", e.code).Err(err).Msg("KMS API call refused")
	}
	body, jsonErr := json.Marshal(kmswire.ErrorBody{RequestID: c.id, HostID: c.r.Host, Code: e.code, Message: e.message, HTTPStatus: e.status})
	if jsonErr != nil { // strings and an int always render
		panic(jsonErr)
	}
	if e.status == http.StatusMethodNotAllowed {
		c.w.Header()["Allow"] = []string{"GET, POST"}
	}
	switch {
	case e.status == http.StatusRequestTimeout:
		c.w.Header()["Connection"] = []string{"close"} // answer now: waiting for the rest of the body was tried
	case c.r.ContentLength != 0:
		// The server reads what is left of the body before it answers. It may not wait long for that.
		_ = http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(drainTimeout))
	}
	c.write(e.status, append(body, '\n'))
}

// itemError gives the form that a failed item of a batch has. Faults inside keyward are logged, as for whole calls.
func (c *call) itemError(err error) *kmswire.ItemError {
	e, internal := describe(err)
	if internal {
		c.h.log.Error().Str("request_id", c.id).Str("action", c.logName()).Err(err).Msg("item of a batch failed")
	}
	return &kmswire.ItemError{Code: e.code, Message: e.message}
}
