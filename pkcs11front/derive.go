package pkcs11front

import (
	"crypto"
	"encoding/asn1"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// minDerived is how short a derived key may be, in octets: with shorter ones, a secret could be found part by part (P6).
const minDerived = 16

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
	local, ok := k.(localKey)
	if !ok || k.class() != ck.CKO_PRIVATE_KEY {
		return 0, ck.CKR_KEY_FUNCTION_NOT_PERMITTED
	}
	p, ok := m.Param.(*p11rpc.ECDH1)
	if !ok {
		return 0, ck.CKR_MECHANISM_PARAM_INVALID
	}
	incoming, rv := readIncoming(template)
	if rv != ck.CKR_OK {
		return 0, rv
	}
	if incoming.class != ck.CKO_SECRET_KEY {
		return 0, ck.CKR_TEMPLATE_INCONSISTENT
	}
	// What comes from a key is as secret as the key: a second derivation must not read out what the first one made (P4).
	_, unread := k.attribute(ck.CKA_VALUE)
	readable := unread == ck.CKR_OK
	if !readable && incoming.widens() {
		return 0, ck.CKR_TEMPLATE_INCONSISTENT
	}
	octets, rv := agreed(local, p, incoming)
	if rv != ck.CKR_OK {
		return 0, rv
	}
	defer clear(octets)
	return q.newSessionKey(octets, incoming.narrowed(template, readable))
}

// agreed is the octets of the derived key. The caller wipes them.
func agreed(k localKey, p *p11rpc.ECDH1, incoming *incomingKey) ([]byte, ck.RV) {
	hash, ok := derivations[p.KDF]
	if !ok || hash == 0 && len(p.Shared) > 0 || len(p.Shared) > maxShared || len(p.Public) == 0 || len(p.Public) > maxPoint {
		return nil, ck.CKR_MECHANISM_PARAM_INVALID
	}
	field := (k.facts().bits + 7) / 8
	length := incoming.length
	if length == 0 {
		if hash != 0 || incoming.keyType != ck.CKK_GENERIC_SECRET {
			return nil, ck.CKR_TEMPLATE_INCOMPLETE
		}
		length = uint64(field)
	}
	if length < minDerived || length > maxSecret || hash == 0 && length > uint64(field) ||
		incoming.keyType == ck.CKK_AES && length != 16 && length != 24 && length != 32 {
		return nil, ck.CKR_ATTRIBUTE_VALUE_INVALID
	}
	z, rv := agreement(k, p.Public)
	if rv != ck.CKR_OK {
		return nil, rv
	}
	defer clear(z)
	if hash == 0 {
		// Octets are taken away from the beginning (2.40 §2.3.8).
		return append([]byte(nil), z[uint64(len(z))-length:]...), ck.CKR_OK
	}
	return x963(hash, z, p.Shared, int(length)), ck.CKR_OK
}

// maxPoint is the longest point that is looked at, in octets: a DER octet string of an uncompressed one of the largest curve.
const maxPoint = 256

// agreement computes the shared secret with a public point, raw or as a DER octet string: PKCS #11 has had both. An uncompressed point begins as an octet string
// does, so the length tells them apart.
func agreement(k localKey, public []byte) ([]byte, ck.RV) {
	facts := k.facts()
	if field := (facts.bits + 7) / 8; len(public) != 1+2*field && len(public) != 1+field {
		var point []byte
		if rest, err := asn1.Unmarshal(public, &point); err == nil && len(rest) == 0 {
			public = point
		}
	}
	z, err := ecdhAgree(facts.curve, k.material(), public)
	if err != nil {
		return nil, ck.CKR_MECHANISM_PARAM_INVALID
	}
	return z, ck.CKR_OK
}
