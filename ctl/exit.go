package ctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/kms/kmsclient"
)

// The exit codes. Scripts rely on them; they never change their meaning.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2  // the command line is wrong
	exitDenied      = 3  // the caller may not do it
	exitNotFound    = 4  // what was named is not there
	exitState       = 5  // the key's state forbids it
	exitUnavailable = 6  // no HSM or proxy can serve the key
	exitDegraded    = 7  // status: it serves, but needs a person
	exitAudit       = 8  // audit verification failed
	exitTryAgain    = 75 // nothing was done, and the same command may work later
)

// exitCodes is the table that the help text is made from.
var exitCodes = []struct {
	code  int
	means string
}{
	{exitOK, "ok"},
	{exitFailure, "error"},
	{exitUsage, "the command line is wrong"},
	{exitDenied, "denied"},
	{exitNotFound, "not found"},
	{exitState, "the key is in the wrong state"},
	{exitUnavailable, "no HSM or proxy can serve the key"},
	{exitDegraded, "degraded (status)"},
	{exitAudit, "audit verification failed"},
	{exitTryAgain, "try again later; nothing was done"},
}

// exitText is the table for people.
func exitText() string {
	var texts []string
	for _, e := range exitCodes {
		texts = append(texts, fmt.Sprintf("%d %s", e.code, e.means))
	}
	return strings.Join(texts, ", ")
}

// apiCodes says what the API's error codes mean to a script and to a person. A code that is not here is exitFailure.
// InvalidParameter is not exitUsage: the value may come from a file, such as a blob that is cut.
var apiCodes = map[string]struct {
	exit int
	next string // what to do; empty when the message says it all
}{
	"Forbidden.NoPermission":                     {exitDenied, "keywardctl status shows who you are to keyward, as [[peer]] rows of keyward.toml decide; the root of your account can ask keywardctl policy simulate why"},
	"AccessDeniedError":                          {exitDenied, ""},
	"Forbidden.AccessKey":                        {exitDenied, ""},
	"InvalidAccessKeyId.NotFound":                {exitDenied, ""},
	"InvalidAccessKeyId.Inactive":                {exitDenied, ""},
	"MissingAccessKeyId":                         {exitDenied, ""},
	"MissingSignature":                           {exitDenied, ""},
	"MissingSignatureNonce":                      {exitDenied, ""},
	"MissingTimestamp":                           {exitDenied, ""},
	"IncompleteSignature":                        {exitDenied, ""},
	"SignatureDoesNotMatch":                      {exitDenied, ""},
	"SignatureNonceUsed":                         {exitDenied, ""},
	"InvalidTimeStamp.Format":                    {exitDenied, ""},
	"InvalidTimeStamp.Expired":                   {exitDenied, "the clocks of this machine and of keyward must agree within 15 minutes"},
	"InvalidSecurityToken.MismatchWithAccessKey": {exitDenied, ""},
	"Forbidden.KeyNotFound":                      {exitNotFound, "keywardctl key list shows the keys that you may see; an alias is written alias/NAME, a key of another account as its ARN"},
	"Forbidden.KeyVersionNotFound":               {exitNotFound, "keywardctl key versions KEY shows the versions of a key"},
	"Forbidden.AliasNotFound":                    {exitNotFound, "keywardctl alias list shows the aliases"},
	"Forbidden.ResourceNotFound":                 {exitNotFound, ""},
	"Forbidden.DKMSInstanceNotFound":             {exitNotFound, "keywardctl instance list shows the instances"},
	"Rejected.Enabled":                           {exitState, ""},
	"Rejected.Disabled":                          {exitState, "keywardctl key enable KEY makes the key usable again"},
	"Rejected.PendingDeletion":                   {exitState, "the key is waiting to be deleted; keywardctl key cancel-deletion KEY takes that back"},
	"Rejected.PendingImport":                     {exitState, "keywardctl key import KEY --material FILE gives the key its material"},
	"Rejected.StateModifiedFailed":               {exitState, "keywardctl key describe KEY shows the key's state"},
	"Rejected.Unavailable":                       {exitUnavailable, "keywardctl status says what is wrong"},
	"ServiceUnavailableTemporary":                {exitUnavailable, "keywardctl status says what is wrong"},
	"ServiceUnavailable":                         {exitUnavailable, "keywardctl status says what is wrong"},
	"Throttling":                                 {exitTryAgain, "try again a moment later"},
	"Throttling.User":                            {exitTryAgain, "try again a moment later"},
	"Rejected.Throttling":                        {exitTryAgain, "try again a moment later"},
	"Rejected.LimitExceeded":                     {exitFailure, ""},
	"AliasAlreadyExists":                         {exitFailure, "keywardctl alias move ALIAS KEY points an alias at another key"},
	"DryRunOperationError":                       {exitOK, "dry run: it would have worked"},
	"ValidationError":                            {exitFailure, ""},
	"MissingParameter":                           {exitFailure, ""},
	"InvalidParameter":                           {exitFailure, ""},
	"ParseRequestParameterException":             {exitFailure, ""},
	"RequestEntityTooLarge":                      {exitFailure, ""},
	"RequestTimeout":                             {exitFailure, ""},
	"Unsupported.Alias":                          {exitFailure, "give the key's id: keywardctl key describe ALIAS shows it"},
	"Unsupported.Origin":                         {exitFailure, ""},
	"Unsupported.ProtectionLevel":                {exitFailure, "keywardctl instance list shows the instances"},
	"UnsupportedOperation":                       {exitFailure, ""},
	"Rejected.UnsupportedOperation":              {exitFailure, ""},
	"UnsupportedHTTPMethod":                      {exitFailure, ""},
	"UnsupportedMediaType":                       {exitFailure, ""},
	"InvalidPath.NotFound":                       {exitFailure, "is this keywardd's socket?"},
	"InvalidVersion":                             {exitFailure, ""},
	"InvalidAction.NotFound":                     {exitUsage, "keywardctl api list shows the actions"},
	"Forbidden.BrowserRequest":                   {exitDenied, ""},
	"InternalFailure":                            {exitFailure, "the daemon's log says more: journalctl -u keywardd"},
	"InvalidKeyMaterial":                         {exitFailure, "is it the material of the first import? keywardctl key import --help says what is taken"},
	"InvalidImportToken":                         {exitFailure, "give the token that came with the key to wrap with"},
	"ExpiredImportToken":                         {exitFailure, "keywardctl key import-parameters KEY --out DIR gives another"},
}

// errQuiet ends a command whose talk is already printed.
var errQuiet = errors.New("")

// codedError carries an exit code that the error alone would not give, and what to do next.
type codedError struct {
	code int
	err  error
	next string
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// usagef says that the command line is wrong.
func usagef(format string, a ...any) error {
	return &codedError{code: exitUsage, err: fmt.Errorf(format, a...)}
}

// hint adds what to do next to an error.
func hint(err error, format string, a ...any) error {
	code, _ := verdict(err)
	return &codedError{code: code, err: err, next: fmt.Sprintf(format, a...)}
}

// verdict gives the exit code of an error, and what to do next if there is something to say.
func verdict(err error) (code int, next string) {
	if e, ok := errors.AsType[*codedError](err); ok {
		return e.code, e.next
	}
	if e, ok := errors.AsType[*kmsclient.Error](err); ok {
		if row, ok := apiCodes[e.Code]; ok {
			return row.exit, row.next
		}
		return exitFailure, ""
	}
	if e, ok := errors.AsType[*admin.Error](err); ok {
		switch e.Status {
		case http.StatusForbidden, http.StatusUnauthorized:
			return exitDenied, "" // the message says who was not known, and where to add it
		case http.StatusNotFound:
			return exitNotFound, "" // the message says what there is, or that this daemon has no such call
		case http.StatusTooManyRequests, http.StatusServiceUnavailable:
			return exitTryAgain, ""
		}
		return exitFailure, ""
	}
	_, dial := errors.AsType[*kmsclient.UnreachableError](err)
	switch {
	case dial && errors.Is(err, fs.ErrPermission):
		return exitDenied, "the owner and the group of the socket may use it, as ls -l shows: join that group, or ask root"
	case dial:
		return exitTryAgain, "is the daemon running? start it with: systemctl start keywardd (or: keywardd dev), or name its socket with --socket or KEYWARD_SOCKET"
	case errors.Is(err, context.DeadlineExceeded):
		return exitFailure, "no answer came in time, and it is not known whether it was done; --timeout gives it longer"
	}
	return exitFailure, ""
}

// reached turns the failure to connect of any client into an UnreachableError. It returns other errors as they are.
func (c *cli) reached(err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
		return &kmsclient.UnreachableError{Socket: c.socket, Err: e}
	}
	return err
}

// fail prints an error and returns its exit code.
func (c *cli) fail(cmd *cobra.Command, err error) int {
	code, next := verdict(err)
	if code == exitOK {
		c.say("%s", next)
		return code
	}
	if !errors.Is(err, errQuiet) {
		who := "keywardctl"
		if cmd != nil {
			who = cmd.CommandPath()
		}
		fmt.Fprintf(c.stderr, "%s: %s\n", who, describe(err))
		if code == exitUsage && next == "" {
			next = who + " --help shows how"
		}
		if next != "" {
			fmt.Fprintf(c.stderr, "  next: %s\n", next)
		}
	}
	return code
}

// describe gives an error in words.
func describe(err error) string {
	if e, ok := errors.AsType[*kmsclient.Error](err); ok {
		s := strings.TrimSuffix(e.Message, ".")
		switch {
		case s == "":
			s = e.Code
		case e.Code != "":
			s += " (" + e.Code + ")"
		}
		if e.RequestID != "" && e.Code == "InternalFailure" {
			s += ", request " + e.RequestID
		}
		// What the command wrapped around it, such as the name of the key, stays.
		return strings.Replace(err.Error(), e.Error(), s, 1)
	}
	if e, ok := errors.AsType[*kmsclient.UnreachableError](err); ok {
		return e.Error()
	}
	return strings.TrimPrefix(err.Error(), "kmsclient: ")
}
