package pkcs11front

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
	"github.com/keyward/keyward/pkcs11front/sessionkey"
)

// A certificate, data, or a public key that a client keeps in a token is a kms.TokenObject. Its Value has the attributes that are not
// fields of it:
//
//	1 octet    version, 1
//	then for each attribute, in ascending order of types:
//	4 octets   type
//	1 octet    kind: 0 octets, 1 boolean, 2 number, 3 date
//	4 octets   length of the value
//	           the value; a boolean is 1 octet, 0 or 1, a number 8
//
// Numbers are big-endian.

const (
	storedVersion       = 1
	storedHeader        = 4 + 1 + 4
	maxStoredAttributes = 64
)

var errStored = errors.New("pkcs11front: the attributes of a token object are malformed")

// fieldsOf are the attributes that a kms.TokenObject has fields for, or that follow from what it is.
var fieldsOf = []ck.Attribute{ck.CKA_CLASS, ck.CKA_TOKEN, ck.CKA_PRIVATE, ck.CKA_MODIFIABLE, ck.CKA_LABEL, ck.CKA_ID, ck.CKA_UNIQUE_ID, ck.CKA_ALLOWED_MECHANISMS}

// encodeStored gives the encoding of attributes.
func encodeStored(v values) ([]byte, error) {
	if len(v) > maxStoredAttributes {
		return nil, errStored
	}
	out := []byte{storedVersion}
	for i := range v {
		a := &v[i]
		var b []byte
		switch a.Kind {
		case p11rpc.Bytes, p11rpc.Date:
			b = a.Octets
		case p11rpc.Bool:
			b = []byte{byte(a.Number)}
		case p11rpc.Ulong:
			b = binary.BigEndian.AppendUint64(nil, a.Number)
		default:
			return nil, errStored
		}
		if a.Type > 1<<32-1 || len(b) > kms.MaxTokenObject || i > 0 && a.Type <= v[i-1].Type {
			return nil, errStored
		}
		out = binary.BigEndian.AppendUint32(out, uint32(a.Type))
		out = append(out, byte(a.Kind))
		out = binary.BigEndian.AppendUint32(out, uint32(len(b)))
		out = append(out, b...)
	}
	return out, nil
}

// nextStored reads the next attribute; b has no version. Its value is a part of b.
func nextStored(b []byte) (a p11rpc.Attribute, rest []byte, err error) {
	if len(b) < storedHeader {
		return a, nil, errStored
	}
	a.Type, a.Kind = ck.Attribute(binary.BigEndian.Uint32(b)), p11rpc.Kind(b[4])
	n := binary.BigEndian.Uint32(b[5:])
	b = b[storedHeader:]
	if uint64(n) > uint64(len(b)) {
		return a, nil, errStored
	}
	value := b[:n:n]
	switch {
	case a.Kind == p11rpc.Bytes:
		a.Octets = value
	case a.Kind == p11rpc.Date && validDate(value):
		a.Octets = value
	case a.Kind == p11rpc.Bool && n == 1 && value[0] <= 1:
		a.Number = uint64(value[0])
	case a.Kind == p11rpc.Ulong && n == 8:
		a.Number = binary.BigEndian.Uint64(value)
	default:
		return a, nil, errStored
	}
	return a, b[n:], nil
}

// decodeStored undoes encodeStored. Values are parts of b.
func decodeStored(b []byte) (values, error) {
	if len(b) == 0 || len(b) > kms.MaxTokenObject || b[0] != storedVersion {
		return nil, errStored
	}
	var v values
	for b = b[1:]; len(b) > 0; {
		a, rest, err := nextStored(b)
		if err != nil || len(v) == maxStoredAttributes || len(v) > 0 && a.Type <= v[len(v)-1].Type {
			return nil, errStored
		}
		v, b = append(v, a), rest
	}
	return v, nil
}

// storedValue finds one attribute without allocating anything. Nothing in b can make it fail but by not finding it.
func storedValue(b []byte, t ck.Attribute) (p11rpc.Value, bool) {
	if len(b) == 0 || b[0] != storedVersion {
		return p11rpc.Value{}, false
	}
	for b = b[1:]; len(b) > 0; {
		a, rest, err := nextStored(b)
		switch {
		case err != nil || a.Type > t:
			return p11rpc.Value{}, false
		case a.Type == t:
			return a.Value, true
		}
		b = rest
	}
	return p11rpc.Value{}, false
}

// storedObject is what a client keeps in a token.
type storedObject struct {
	*kms.TokenObject
	table *classTable
}

// newStoredObject looks at a token object.
func (f *Front) newStoredObject(o *kms.TokenObject) (object, error) {
	keyType := noKey
	if o.Class == kms.ClassPublicKey {
		t, ok := storedValue(o.Value, ck.CKA_KEY_TYPE)
		if !ok {
			return nil, errStored
		}
		keyType = ck.KeyType(t.Number)
	}
	s := storedObject{o, tableOf(ck.Class(o.Class), keyType)}
	switch {
	case s.table == nil:
		return nil, errStored
	case keyType != noKey:
		return &storedKey{storedObject: s, f: publicFacts(s.attribute, true, f.cfg.RawRSA)}, nil
	}
	return &s, nil
}

func (o *storedObject) handle() handle  { return tokenObjectHandle(o.Number) }
func (o *storedObject) class() ck.Class { return o.table.class }
func (o *storedObject) private() bool   { return o.Private }

func (o *storedObject) attribute(a ck.Attribute) (p11rpc.Value, ck.RV) {
	row := o.table.byType[a]
	if row == nil {
		return p11rpc.Value{}, ck.CKR_ATTRIBUTE_TYPE_INVALID
	}
	switch a {
	case ck.CKA_CLASS:
		return ulongValue(uint64(o.table.class)), ck.CKR_OK
	case ck.CKA_TOKEN:
		return boolValue(true), ck.CKR_OK
	case ck.CKA_PRIVATE:
		return boolValue(o.Private), ck.CKR_OK
	case ck.CKA_MODIFIABLE:
		return boolValue(o.Modifiable), ck.CKR_OK
	case ck.CKA_LABEL:
		return octetsValue([]byte(o.Label)), ck.CKR_OK
	case ck.CKA_ID:
		return octetsValue(o.ID), ck.CKR_OK
	case ck.CKA_UNIQUE_ID:
		return octetsValue(uniqueID(o.handle())), ck.CKR_OK
	}
	if v, ok := storedValue(o.Value, a); ok && v.Kind == row.kind {
		return v, ck.CKR_OK
	}
	return row.preset()
}

// preset is the value of an attribute that nobody has given.
func (row *attributeRow) preset() (p11rpc.Value, ck.RV) {
	switch row.otherwise {
	case empty:
		return p11rpc.Value{Kind: row.kind}, ck.CKR_OK
	case yes:
		return p11rpc.Value{Kind: row.kind, Number: 1}, ck.CKR_OK
	}
	return p11rpc.Value{}, ck.CKR_ATTRIBUTE_TYPE_INVALID
}

// values gives the attributes that are not fields.
func (o *storedObject) values() (values, error) { return decodeStored(o.Value) }

// publicFacts are those of a public key that a client brought along, from its attributes.
func publicFacts(attribute func(ck.Attribute) (p11rpc.Value, ck.RV), token, rawRSA bool) keyFacts {
	number := func(a ck.Attribute) uint64 { v, _ := attribute(a); return v.Number }
	f := keyFacts{keyType: ck.KeyType(number(ck.CKA_KEY_TYPE)), token: token, rawRSA: rawRSA}
	if f.keyType == ck.CKK_RSA {
		f.bits = int(number(ck.CKA_MODULUS_BITS))
	} else {
		params, _ := attribute(ck.CKA_EC_PARAMS)
		curve, _ := sessionkey.CurveOf(params.Octets) // it was looked at when the object was made
		f.bits, f.curve = curve.Bits(), string(curve)
	}
	for _, u := range usageAttributes {
		if number(u.attribute) != 0 {
			f.usage |= u.may
		}
	}
	return f
}

// storedKey is a public key that a client keeps in a token: of somebody else, or of a key that it brings along later.
type storedKey struct {
	storedObject
	f keyFacts
}

func (k *storedKey) facts() *keyFacts { return &k.f }

func (k *storedKey) attribute(a ck.Attribute) (p11rpc.Value, ck.RV) {
	if a == ck.CKA_ALLOWED_MECHANISMS {
		return mechanismsValue(&k.f), ck.CKR_OK
	}
	return k.storedObject.attribute(a)
}

// with lets f use the key. It is made for the call: nobody uses such keys often.
func (k *storedKey) with(f func(*sessionkey.Public) ck.RV) ck.RV {
	info, _ := k.attribute(ck.CKA_PUBLIC_KEY_INFO)
	public, err := sessionkey.ParsePublic(info.Octets)
	if err != nil {
		return ck.CKR_KEY_HANDLE_INVALID
	}
	defer public.Close()
	return f(public)
}

func (k *storedKey) may(context.Context, kms.Verb, *mechanism.Mechanism) ck.RV { return ck.CKR_OK }

func (k *storedKey) sign(context.Context, *mechanism.Mechanism, []byte) ([]byte, ck.RV) {
	return nil, ck.CKR_KEY_FUNCTION_NOT_PERMITTED
}

func (k *storedKey) verify(_ context.Context, m *mechanism.Mechanism, in, signature []byte) ck.RV {
	return k.with(func(public *sessionkey.Public) ck.RV { return verifyLocally(public, m, in, signature) })
}

func (k *storedKey) encrypt(_ context.Context, m *mechanism.Mechanism, in []byte, _ bool) (out []byte, rv ck.RV) {
	rv = k.with(func(public *sessionkey.Public) ck.RV {
		var err error
		out, err = public.EncryptBy(m, in)
		return localError(err)
	})
	return out, rv
}

func (k *storedKey) decrypt(context.Context, *mechanism.Mechanism, []byte, bool) ([]byte, ck.RV) {
	return nil, ck.CKR_KEY_FUNCTION_NOT_PERMITTED
}
