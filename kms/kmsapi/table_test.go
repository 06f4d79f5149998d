package kmsapi

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
)

// notHere are methods of the service that are the PKCS #11 door's.
var notHere = []string{"CreateTokenKey", "CreateTokenObject", "SignWith", "VerifyWith", "EncryptWith", "DecryptWith"}

// Every action of the service has a row that takes its request, and every row is an action of the service.
func TestTableIsComplete(t *testing.T) {
	rows := make(map[string]operation)
	for _, o := range operations {
		rows[o.action] = o
	}
	service := reflect.TypeFor[*kms.Service]()
	for i := range service.NumMethod() {
		m := service.Method(i)
		if m.Type.NumIn() != 4 || m.Type.In(1) != reflect.TypeFor[context.Context]() || m.Type.In(2) != reflect.TypeFor[*kms.Actor]() ||
			m.Type.NumOut() != 2 || m.Type.In(3).Kind() != reflect.Pointer || slices.Contains(notHere, m.Name) {
			continue // not an action
		}
		action := strings.Replace(m.Name, "KeyID", "KeyId", 1)
		row, ok := rows[action]
		if !ok {
			t.Errorf("no row for %s", action)
			continue
		}
		if row.request != m.Type.In(3).Elem() {
			t.Errorf("the row of %s takes %v", action, row.request)
		}
		delete(rows, action)
	}
	for action := range rows {
		t.Errorf("there is a row for %s, which is no action of the service", action)
	}
}

func TestTableIsSorted(t *testing.T) {
	byName := func(a, b operation) int { return strings.Compare(a.action, b.action) }
	if !slices.IsSortedFunc(operations, byName) || !slices.IsSorted(notDone) {
		t.Error("keep the tables sorted")
	}
	for _, action := range notDone {
		if slices.ContainsFunc(operations, func(o operation) bool { return o.action == action }) {
			t.Errorf("%s is done, and not done", action)
		}
	}
}

// Rows are complete: limits, a body or not, a hot codec exactly where programs need it.
func TestRows(t *testing.T) {
	var hot []string
	for _, o := range operations {
		if o.timeout <= 0 || o.maxBody <= 0 || (o.run == nil) == (o.batch == nil) {
			t.Errorf("row %s is incomplete", o.action)
		}
		if _, items := o.request.FieldByName("Items"); items != (o.batch != nil) {
			t.Errorf("%s takes items: %v", o.action, items)
		}
		if o.hot != nil {
			hot = append(hot, o.action)
		}
	}
	if want := []string{"AsymmetricSign", "AsymmetricVerify", "Decrypt", "Encrypt", "GenerateDataKey"}; !slices.Equal(hot, want) {
		t.Errorf("hot rows: %v", hot)
	}
}

func TestActions(t *testing.T) {
	list := Actions()
	if len(list) != len(operations) {
		t.Fatalf("%d actions", len(list))
	}
	i := slices.IndexFunc(list, func(a ActionInfo) bool { return a.Name == "BatchSign" })
	want := ActionInfo{"BatchSign", []kmswire.Parameter{
		{Name: "KeyId", Type: "string", Required: true}, {Name: "KeyVersionId", Type: "string", Required: true},
		{Name: "Algorithm", Type: "string", Required: true}, {Name: "DryRun", Type: "boolean"}}, true}
	if i < 0 || !reflect.DeepEqual(list[i], want) {
		t.Errorf("got %+v", list[max(i, 0)])
	}
}

func TestErrorTableIsComplete(t *testing.T) {
	for _, code := range kms.Codes() {
		e, ok := errorTable[code]
		if !ok || e.code == "" || e.status < 400 || !strings.HasSuffix(e.message, ".") {
			t.Errorf("%v has no complete row: %+v", code, e)
			continue
		}
		if named := code == kms.MissingParameter || code == kms.InvalidParameter; strings.Contains(e.message, "%q") != named || strings.Count(e.message, "%") > 1 {
			t.Errorf("%v: %s", code, e.message)
		}
	}
	if len(errorTable) != len(kms.Codes()) {
		t.Errorf("%d rows for %d codes", len(errorTable), len(kms.Codes()))
	}
}

func TestDescribe(t *testing.T) {
	for _, c := range []struct {
		err      error
		code     string
		status   int
		contains string
		internal bool
	}{
		{kms.Missing("KeyId"), "MissingParameter", 400, `The parameter "KeyId" is needed but not provided.`, false},
		{kms.Invalid("KeySpec", "it is not 100%% known."), "InvalidParameter", 400, `The specified parameter "KeySpec" is not valid: it is not 100% known.`, false},
		{kms.Errorf(kms.KeyDisabled, "enable it first."), "Rejected.Disabled", 409, "state is Disabled: enable it first.", false},
		{kms.Errorf(kms.StateNotAllowed, ""), "Rejected.StateModifiedFailed", 409, "Keystate modified failed.", false},
		{kms.Errorf(kms.DryRunDenied, ""), "AccessDeniedError", 403, "", false},
		{&kms.Error{Code: kms.Internal, Detail: "secret cause", Err: context.Canceled}, "InternalFailure", 500, "log", true},
		{http.ErrServerClosed, "InternalFailure", 500, "log", true},
		{context.DeadlineExceeded, "ServiceUnavailableTemporary", 503, "in time", false},
		{&kms.Error{Code: kms.Code(250)}, "InternalFailure", 500, "", true},
		{errTooLarge.with("The body may have 3 octets."), "RequestEntityTooLarge", 413, "too large. The body may have 3 octets.", false},
	} {
		e, internal := describe(c.err)
		if e.code != c.code || e.status != c.status || internal != c.internal || !strings.Contains(e.message, c.contains) || strings.Contains(e.message, "secret") {
			t.Errorf("%v: got %+v, %v", c.err, e, internal)
		}
	}
}
