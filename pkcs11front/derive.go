package pkcs11front

import (
	"crypto"
	"errors"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
	"github.com/keyward/keyward/pkcs11front/sessionkey"
)

// minDerived is how short a derived key may be, in octets: with shorter ones, a secret could be found part by part (P6).
const minDerived = sessionkey.MinDerived

// derivations are the key derivation functions of ECDH (2.40 §2.3.8; the function of ANSI X9.63).
var derivations = map[uint64]crypto.Hash{
	ck.CKD_NULL:       0,
	ck.CKD_SHA1_KDF:   crypto.SHA1,
	ck.CKD_SHA224_KDF: crypto.SHA224,
	ck.CKD_SHA256_KDF: crypto.SHA256,
	ck.CKD_SHA384_KDF: crypto.SHA384,
	ck.CKD_SHA512_KDF: crypto.SHA512,
}

// deriveKey is C_DeriveKey.
func (q *request) deriveKey() ck.RV {
	h, rv := q.derived()
	if rv == ck.CKR_OK {
		q.out.Ulong(uint64(h))
	}
	return rv
}

// deriveKey2 is C_DeriveKey2, by which newer clients of p11-kit send C_DeriveKey: return value, a parameter that comes back, which no mechanism here has,
// and the handle. An error is an error of the call.
func (q *request) deriveKey2() ck.RV {
	h, rv := q.derived()
	if rv == ck.CKR_OK {
		q.out.Ulong(uint64(ck.CKR_OK))
		q.out.Byte(0)
		q.out.Ulong(uint64(h))
	}
	return rv
}

func (q *request) derived() (handle, ck.RV) {
	m := q.in.Mechanism()
	base := handle(q.in.Ulong())
	template := q.in.Template()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return 0, rv
	}
	row := mechanismRows[m.Type]
	if m.Null || row == nil || row.flags&ck.CKF_DERIVE == 0 {
		return 0, ck.CKR_MECHANISM_INVALID
	}
	k, rv := q.key(base)
	if rv != ck.CKR_OK {
		return 0, rv
	}
	if rv = row.allows(k.facts(), ck.CKF_DERIVE); rv != ck.CKR_OK {
		return 0, rv
	}
	private := privateOf(k)
	if private == nil {
		return 0, ck.CKR_KEY_FUNCTION_NOT_PERMITTED
	}
	p, ok := m.Param.(*p11rpc.ECDH1)
	if !ok {
		return 0, ck.CKR_MECHANISM_PARAM_INVALID
	}
	incoming, rv := readIncoming(template, true)
	if rv != ck.CKR_OK {
		return 0, rv
	}
	// A second derivation must not read out what the first one made (P4).
	if !incoming.open() {
		private.GiveSecret()
	} else if private.GaveSecret() && !readable(k) {
		return 0, ck.CKR_TEMPLATE_INCONSISTENT
	}
	if incoming.class != ck.CKO_SECRET_KEY {
		return 0, ck.CKR_TEMPLATE_INCONSISTENT
	}
	octets, rv := agreed(private, p, incoming)
	if rv != ck.CKR_OK {
		return 0, rv
	}
	defer clear(octets)
	return q.newSessionKey(octets, incoming.narrowed(template))
}

// agreed is the octets of the derived key. The caller wipes them.
func agreed(k *sessionkey.Private, p *p11rpc.ECDH1, incoming *incomingKey) ([]byte, ck.RV) {
	hash, ok := derivations[p.KDF]
	if !ok || hash == 0 && len(p.Shared) > 0 || len(p.Shared) > maxShared {
		return nil, ck.CKR_MECHANISM_PARAM_INVALID
	}
	if incoming.length == 0 && (hash != 0 || incoming.keyType != ck.CKK_GENERIC_SECRET) {
		return nil, ck.CKR_TEMPLATE_INCOMPLETE
	}
	length := incoming.length
	if length != 0 && (length < minDerived || length > maxSecret) || incoming.keyType == ck.CKK_AES && length != 16 && length != 24 && length != 32 {
		return nil, ck.CKR_ATTRIBUTE_VALUE_INVALID
	}
	octets, err := k.ECDH(p.Public, hash, p.Shared, int(length))
	switch {
	case errors.Is(err, sessionkey.ErrMalformed):
		return nil, ck.CKR_MECHANISM_PARAM_INVALID // no point of the curve
	case errors.Is(err, sessionkey.ErrSize):
		return nil, ck.CKR_ATTRIBUTE_VALUE_INVALID
	}
	return octets, keyError(err)
}
