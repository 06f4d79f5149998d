package pkcs11front

import (
	"crypto"
	"errors"
	"hash"

	"github.com/keyward/keyward/kms/keywrap"
	"github.com/keyward/keyward/pkcs11front/ck"
)

var errNotYet = errors.New("not yet")

func (op *operation) startCMAC(k localKey) ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

func wrapKW(kek, octets []byte) ([]byte, error)  { return nil, errNotYet }
func unwrapKW(kek, blob []byte) ([]byte, error)  { return nil, errNotYet }
func wrapKWP(kek, octets []byte) ([]byte, error) { return keywrap.Wrap(kek, octets) }
func unwrapKWP(kek, blob []byte) ([]byte, error) { return keywrap.Unwrap(kek, blob) }

func ecdhAgree(curve string, pkcs8, point []byte) ([]byte, error) { return nil, errNotYet }

func x963(h crypto.Hash, z, shared []byte, n int) []byte { return nil }

func unwrapPKCS1(pkcs8, blob []byte, n int) ([]byte, error) { return nil, errNotYet }

var _ hash.Hash
