package p11rpc

import (
	"testing"

	"github.com/keyward/keyward/pkcs11front/ck"
)

// TestResultsAreBounded asks for one large value as often as a request can: the answer ends at the size of a frame, not at the sum of the values.
func TestResultsAreBounded(t *testing.T) {
	value := make([]byte, 1_000_000)
	wanted, results := make([]Wanted, MaxAttributes), make([]Result, MaxAttributes)
	for i := range wanted {
		wanted[i] = Wanted{Type: ck.CKA_VALUE, Room: 1<<32 - 2}
		results[i] = Result{Type: ck.CKA_VALUE, Value: Value{Octets: value}}
	}
	for _, d := range []Dialect{Offer0, Offer1, Offer2, Keyward} {
		var w Writer
		w.Reset(d, nil)
		if rv := w.Results(wanted, results); rv != ck.CKR_DEVICE_MEMORY || len(w.Bytes()) > 2*MaxBody+64 {
			t.Errorf("dialect %d: %v after %d octets", d, rv, len(w.Bytes()))
		}
	}
}
