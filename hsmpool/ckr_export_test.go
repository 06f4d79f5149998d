package hsmpool

import (
	"slices"

	"github.com/miekg/pkcs11"
)

// CKRRow gives what the external tests need of a code's row: whether it is no error, whether it is the caller's data, and
// the kind of error that remains if nothing helps. A code without a row is an unknown one.
func CKRRow(code uint) (none, data bool, kind Kind) {
	r := noQuirks.classify(code, fnOther, stageOther)
	return r.fate == fateNone, r.fate == fateData, r.kind
}

// CKROperator says whether a code is one that nothing is tried again after.
func CKROperator(code uint) bool {
	return noQuirks.classify(code, fnLogin, stageOther).fate == fateOperator
}

// CKRLoginAgain says whether a login that failed with code is tried again, however often.
func CKRLoginAgain(code uint) bool { return slices.Contains(pinUntouched, pkcs11.Error(code)) }
