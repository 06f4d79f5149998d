package pkcs11front

import (
	"context"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
	"github.com/keyward/keyward/pkcs11front/sessionkey"
)

// object is what a handle names. An object is found anew for each call: it is a look at something at that moment, belongs to the
// call, and is not changed.
type object interface {
	handle() handle
	class() ck.Class
	// attribute gives the value of an attribute; CKR_ATTRIBUTE_TYPE_INVALID if the object has none of that type, CKR_ATTRIBUTE_SENSITIVE
	// if it is not given out.
	attribute(a ck.Attribute) (p11rpc.Value, ck.RV)
}

// key is an object that operations work with. There are two kinds: kmsKey, whose material never comes here, and sessionKey, which lives
// in its application.
type key interface {
	object
	facts() *keyFacts

	// The primitives. Which mechanisms there are for a key, mechanisms.go says. may is asked by an Init, without an effect.
	may(ctx context.Context, verb kms.Verb, m *mechanism.Mechanism) ck.RV
	sign(ctx context.Context, m *mechanism.Mechanism, in []byte) ([]byte, ck.RV)
	verify(ctx context.Context, m *mechanism.Mechanism, in, signature []byte) ck.RV // CKR_SIGNATURE_INVALID
	encrypt(ctx context.Context, m *mechanism.Mechanism, in []byte, continued bool) ([]byte, ck.RV)
	decrypt(ctx context.Context, m *mechanism.Mechanism, in []byte, continued bool) ([]byte, ck.RV)
}

// localKey is a session key: what KMS keys can't do is done with it as it is in the daemon's memory.
type localKey interface {
	key
	secretKey() *sessionkey.Secret   // nil if it is none
	privateKey() *sessionkey.Private // nil if it is none
}

// keyFacts is what operations need to know of a key.
type keyFacts struct {
	keyType ck.KeyType
	bits    int    // of the modulus, of the order of the curve, of a secret key
	curve   string // of an EC key: P-256, secp256k1, P-384, P-521
	usage   usage
	only    []uint64 // the mechanisms that it is restricted to, as its maker wanted; nil: it is not
	token   bool
	// extractable: it may be wrapped, by a key that wraps. Never true for a key of the KMS.
	extractable bool
	hardware    bool
	// sealsOnly: a hardware AES key for GCM with drawn IVs alone (Config.NoRawAES).
	sealsOnly bool
	// rawRSA: CKM_RSA_X_509 is offered (Config.RawRSA).
	rawRSA bool
}

// usage is what a key may do: the attributes from CKA_ENCRYPT to CKA_DERIVE.
type usage uint16

const (
	mayEncrypt usage = 1 << iota
	mayDecrypt
	maySign
	mayVerify
	mayWrap
	mayUnwrap
	mayDerive
)

// handle names an object in an application. 0 names nothing. Handles of token objects are made of the numbers by which kms knows them, so
// that they outlive the daemon; those of session objects are drawn. See handle.go.
type handle uint64
