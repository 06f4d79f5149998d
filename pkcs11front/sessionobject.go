package pkcs11front

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
	"github.com/keyward/keyward/pkcs11front/sessionkey"
)

// sessionObject is an object that lives in its application. It is not changed: C_SetAttributeValue puts another in its place.
type sessionObject interface {
	object
	private() bool // CKA_PRIVATE
	// destroy wipes the object, which nobody can find any more. A call of another session may be using it: that ends well. The lock of
	// the application is held.
	destroy()
	// weight is what the object takes in memory, in octets.
	weight() int
	// age orders objects as they were made.
	age() uint64
	// changed is the object with other attributes, under the same handle and with the same key.
	changed(v values) sessionObject
	// attributes are those that are kept, for a copy.
	attributes() values
}

// sessionData is a session object without a key, and what those with one have besides.
type sessionData struct {
	h      handle
	number uint64
	table  *classTable
	v      values // its own
}

// sessionObjects counts session objects, so that searches give them in order.
var sessionObjects atomic.Uint64

// newSessionData makes the object of values that are its own.
func newSessionData(table *classTable, v values) sessionData {
	return sessionData{h: drawHandle(), number: sessionObjects.Add(1), table: table, v: v}
}

func (o *sessionData) handle() handle     { return o.h }
func (o *sessionData) class() ck.Class    { return o.table.class }
func (o *sessionData) private() bool      { return o.v.is(ck.CKA_PRIVATE, false) }
func (o *sessionData) destroy()           {}
func (o *sessionData) age() uint64        { return o.number }
func (o *sessionData) attributes() values { return o.v }

func (o *sessionData) changed(v values) sessionObject {
	next := *o
	next.v = v
	return &next
}

// objectWeight is what an object takes beside its values, and attributeWeight each attribute.
const (
	objectWeight    = 512
	attributeWeight = 96
)

func (o *sessionData) weight() int {
	n := objectWeight
	for i := range o.v {
		n += attributeWeight + len(o.v[i].Octets) + 8*len(o.v[i].Numbers)
	}
	return n
}

func (o *sessionData) attribute(a ck.Attribute) (p11rpc.Value, ck.RV) {
	row := o.table.byType[a]
	switch {
	case row == nil:
		return p11rpc.Value{}, ck.CKR_ATTRIBUTE_TYPE_INVALID
	case a == ck.CKA_CLASS:
		return ulongValue(uint64(o.table.class)), ck.CKR_OK
	case a == ck.CKA_UNIQUE_ID:
		return octetsValue(uniqueID(o.h)), ck.CKR_OK
	}
	if v, ok := o.v.get(a); ok {
		return v, ck.CKR_OK
	}
	return row.preset()
}

// sessionKey is a key as a session object: one of the three.
type sessionKey struct {
	sessionData
	f      keyFacts
	secret *sessionkey.Secret
	priv   *sessionkey.Private
	public *sessionkey.Public // of a public key
}

func (k *sessionKey) facts() *keyFacts                { return &k.f }
func (k *sessionKey) secretKey() *sessionkey.Secret   { return k.secret }
func (k *sessionKey) privateKey() *sessionkey.Private { return k.priv }

// keyWeight is what a key takes outside of Go's memory, about.
const keyWeight = 4096

func (k *sessionKey) weight() int { return keyWeight + k.sessionData.weight() }

func (k *sessionKey) changed(v values) sessionObject {
	next := *k
	next.v = v
	next.f.usage, next.f.extractable = usageIn(v), v.is(ck.CKA_EXTRACTABLE, false)
	next.v = next.v.set(ck.CKA_ALLOWED_MECHANISMS, mechanismsValue(&next.f))
	return &next
}

func (k *sessionKey) destroy() {
	switch {
	case k.secret != nil:
		k.secret.Close()
	case k.priv != nil:
		k.priv.Close()
	case k.public != nil:
		k.public.Close()
	}
}

// usageIn is what the attributes of a key say that it may do.
func usageIn(v values) (u usage) {
	for _, a := range usageAttributes {
		if v.is(a.attribute, false) {
			u |= a.may
		}
	}
	return u
}

// readable: the key is neither sensitive nor unextractable (2.40 §4.9, §4.10).
func (k *sessionKey) readable() bool {
	return !k.v.is(ck.CKA_SENSITIVE, true) && k.v.is(ck.CKA_EXTRACTABLE, false)
}

// attribute gives what is secret, of a key that is readable, in memory of its own.
func (k *sessionKey) attribute(a ck.Attribute) (p11rpc.Value, ck.RV) {
	row := k.table.byType[a]
	if row == nil || !row.secret {
		return k.sessionData.attribute(a)
	}
	if !k.readable() {
		return p11rpc.Value{}, ck.CKR_ATTRIBUTE_SENSITIVE
	}
	b, err := k.secretPart(a)
	if err != nil {
		return p11rpc.Value{}, ck.CKR_OBJECT_HANDLE_INVALID
	}
	return octetsValue(b), ck.CKR_OK
}

func (k *sessionKey) secretPart(a ck.Attribute) ([]byte, error) {
	switch {
	case k.secret != nil:
		return k.secret.Marshal()
	case k.f.keyType == ck.CKK_EC:
		return k.priv.Value()
	}
	n, err := k.priv.Numbers()
	if err != nil {
		return nil, err
	}
	defer n.Wipe()
	var b *[]byte
	switch a {
	case ck.CKA_PRIVATE_EXPONENT:
		b = &n.PrivateExponent
	case ck.CKA_PRIME_1:
		b = &n.Prime1
	case ck.CKA_PRIME_2:
		b = &n.Prime2
	case ck.CKA_EXPONENT_1:
		b = &n.Exponent1
	case ck.CKA_EXPONENT_2:
		b = &n.Exponent2
	case ck.CKA_COEFFICIENT:
		b = &n.Coefficient
	default:
		return nil, errors.New("pkcs11front: " + a.String() + " is no part of an RSA key")
	}
	out := *b
	*b = nil // it is not wiped with the others
	return out, nil
}

func (k *sessionKey) may(context.Context, kms.Verb, *mechanism.Mechanism) ck.RV { return ck.CKR_OK }

func (k *sessionKey) sign(_ context.Context, m *mechanism.Mechanism, in []byte) ([]byte, ck.RV) {
	if k.priv == nil {
		return nil, ck.CKR_KEY_FUNCTION_NOT_PERMITTED
	}
	s, err := k.priv.SignBy(m, in)
	return s, localError(err)
}

func (k *sessionKey) verify(_ context.Context, m *mechanism.Mechanism, in, signature []byte) ck.RV {
	if k.public == nil {
		return ck.CKR_KEY_FUNCTION_NOT_PERMITTED
	}
	return verifyLocally(k.public, m, in, signature)
}

func (k *sessionKey) encrypt(_ context.Context, m *mechanism.Mechanism, in []byte, _ bool) (out []byte, rv ck.RV) {
	var err error
	switch {
	case k.secret != nil:
		out, err = k.secret.EncryptBy(m, in)
	case k.public != nil:
		out, err = k.public.EncryptBy(m, in)
	default:
		return nil, ck.CKR_KEY_FUNCTION_NOT_PERMITTED
	}
	return out, localError(err)
}

func (k *sessionKey) decrypt(_ context.Context, m *mechanism.Mechanism, in []byte, _ bool) (out []byte, rv ck.RV) {
	var err error
	switch {
	case k.secret != nil:
		out, err = k.secret.DecryptBy(m, in)
	case k.priv != nil:
		out, err = k.priv.DecryptBy(m, in)
	default:
		return nil, ck.CKR_KEY_FUNCTION_NOT_PERMITTED
	}
	return out, localError(err)
}

func verifyLocally(public *sessionkey.Public, m *mechanism.Mechanism, in, signature []byte) ck.RV {
	ok, err := public.VerifyBy(m, in, signature)
	if err == nil && !ok {
		return ck.CKR_SIGNATURE_INVALID
	}
	return localError(err)
}

// localError is the return value for an error of a key that is here.
func localError(err error) ck.RV {
	switch {
	case err == nil:
		return ck.CKR_OK
	case errors.Is(err, sessionkey.ErrClosed):
		return ck.CKR_KEY_HANDLE_INVALID // it was destroyed meanwhile
	case errors.Is(err, sessionkey.ErrDecrypt):
		return ck.CKR_ENCRYPTED_DATA_INVALID
	case errors.Is(err, sessionkey.ErrSize):
		return ck.CKR_DATA_LEN_RANGE
	case errors.Is(err, sessionkey.ErrAlgorithm):
		return ck.CKR_MECHANISM_INVALID
	}
	return ck.CKR_FUNCTION_FAILED
}
