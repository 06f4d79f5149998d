package pkcs11front

import (
	"errors"
	"fmt"
	"testing"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
)

// TestErrorTable says that every code of the service has a return value, that none is success, and that none depends on what an attacker
// wants to know.
func TestErrorTable(t *testing.T) {
	for _, code := range kms.Codes() {
		if _, ok := errorTable[code]; !ok {
			t.Errorf("%v has no return value", code)
		}
		for about := range numSubjects {
			if rv := rvOf(&kms.Error{Code: code}, about); rv == ck.CKR_OK {
				t.Errorf("%v about %d is no error", code, about)
			}
		}
	}
	if len(errorTable) != len(kms.Codes()) {
		t.Error("the table has rows that are no codes")
	}
	for _, test := range []struct {
		err   error
		about subject
		want  ck.RV
	}{
		{nil, aboutKey, ck.CKR_OK},
		{errors.New("anything"), aboutKey, ck.CKR_GENERAL_ERROR},
		{fmt.Errorf("wrapped: %w", kms.Errorf(kms.KeyNotFound, "")), aboutKey, ck.CKR_KEY_HANDLE_INVALID},
		{kms.Errorf(kms.KeyNotFound, ""), aboutObject, ck.CKR_OBJECT_HANDLE_INVALID},
		{kms.Invalid("CiphertextBlob", ""), aboutCiphertext, ck.CKR_ENCRYPTED_DATA_INVALID},
		{kms.Invalid("Value", ""), aboutSignature, ck.CKR_SIGNATURE_INVALID},
		{kms.Errorf(kms.Denied, ""), aboutKey, ck.CKR_KEY_FUNCTION_NOT_PERMITTED},
		{kms.Errorf(kms.Denied, ""), aboutTemplate, ck.CKR_ACTION_PROHIBITED},
		{kms.Errorf(kms.InvalidKeyMaterial, ""), aboutWrapped, ck.CKR_WRAPPED_KEY_INVALID},
	} {
		if got := rvOf(test.err, test.about); got != test.want {
			t.Errorf("%v about %d is %v, not %v", test.err, test.about, got, test.want)
		}
	}
}
