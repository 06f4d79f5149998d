package pkcs11front

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
	"github.com/keyward/keyward/pkcs11front/sessionkey"
)

// specRow is a KeySpec in the words of PKCS #11.
type specRow struct {
	keyType  ck.KeyType
	bits     int
	curve    sessionkey.Curve
	generate ck.Mechanism
}

// specRows are the specs that keys of tokens have.
var specRows = map[kmswire.KeySpec]specRow{
	kmswire.AES128:  {ck.CKK_AES, 128, "", ck.CKM_AES_KEY_GEN},
	kmswire.AES192:  {ck.CKK_AES, 192, "", ck.CKM_AES_KEY_GEN},
	kmswire.AES256:  {ck.CKK_AES, 256, "", ck.CKM_AES_KEY_GEN},
	kmswire.RSA2048: {ck.CKK_RSA, 2048, "", ck.CKM_RSA_PKCS_KEY_PAIR_GEN},
	kmswire.RSA3072: {ck.CKK_RSA, 3072, "", ck.CKM_RSA_PKCS_KEY_PAIR_GEN},
	kmswire.RSA4096: {ck.CKK_RSA, 4096, "", ck.CKM_RSA_PKCS_KEY_PAIR_GEN},
	kmswire.ECP256:  {ck.CKK_EC, 256, sessionkey.P256, ck.CKM_EC_KEY_PAIR_GEN},
	kmswire.ECP256K: {ck.CKK_EC, 256, sessionkey.Secp256k1, ck.CKM_EC_KEY_PAIR_GEN},
}

// specOf finds the spec of a key; empty if the KMS has none such.
func specOf(t ck.KeyType, bits int, curve sessionkey.Curve) kmswire.KeySpec {
	for spec, row := range specRows {
		if row.keyType == t && row.bits == bits && row.curve == curve {
			return spec
		}
	}
	return ""
}

// kmsKey is a version of a key of the KMS as an object. Its material never comes here.
type kmsKey struct {
	*kms.TokenKey
	service *kms.Service
	actor   *kms.Actor
	public  *publicParts // nil of a secret key
	table   *classTable
	f       keyFacts
}

// newKMSKey looks at a version as an object of the class; nil if it is none of that class.
func (f *Front) newKMSKey(actor *kms.Actor, t *kms.TokenKey, class ck.Class) (*kmsKey, error) {
	spec, ok := specRows[t.Spec]
	if _, named := t.Names[kms.ObjectClass(class)]; !ok || !named {
		return nil, nil
	}
	k := &kmsKey{TokenKey: t, service: f.cfg.Service, actor: actor, table: tableOf(class, spec.keyType)}
	k.f = keyFacts{keyType: spec.keyType, bits: spec.bits, curve: string(spec.curve), usage: ofKMS(t.Usage, t.Secondary) & halves[class],
		only: t.Names[kms.ObjectClass(class)].Mechanisms, token: true, hardware: t.Hardware, rawRSA: f.cfg.RawRSA, sealsOnly: f.cfg.NoRawAES && t.Hardware}
	if class != ck.CKO_SECRET_KEY {
		var err error
		if k.public, err = f.publicParts(t); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func (k *kmsKey) handle() handle   { return keyHandle(k.table.class, k.KeyPlace) }
func (k *kmsKey) class() ck.Class  { return k.table.class }
func (k *kmsKey) facts() *keyFacts { return &k.f }
func (k *kmsKey) private() bool    { return k.table.class != ck.CKO_PUBLIC_KEY }

// attribute tells what is so; nothing here depends on what a client said when the key was made, but for its names.
func (k *kmsKey) attribute(a ck.Attribute) (p11rpc.Value, ck.RV) {
	row := k.table.byType[a]
	switch {
	case row == nil:
		return p11rpc.Value{}, ck.CKR_ATTRIBUTE_TYPE_INVALID
	case row.secret:
		return p11rpc.Value{}, ck.CKR_ATTRIBUTE_SENSITIVE
	}
	names := k.Names[kms.ObjectClass(k.table.class)]
	switch a {
	case ck.CKA_CLASS:
		return ulongValue(uint64(k.table.class)), ck.CKR_OK
	case ck.CKA_TOKEN, ck.CKA_DESTROYABLE, ck.CKA_MODIFIABLE: // its names can be changed
		return boolValue(true), ck.CKR_OK
	case ck.CKA_PRIVATE, ck.CKA_SENSITIVE, ck.CKA_WRAP_WITH_TRUSTED: // it is never wrapped for a client
		return boolValue(k.private()), ck.CKR_OK
	case ck.CKA_COPYABLE, ck.CKA_EXTRACTABLE, ck.CKA_TRUSTED, ck.CKA_ALWAYS_AUTHENTICATE, ck.CKA_SIGN_RECOVER, ck.CKA_VERIFY_RECOVER:
		return boolValue(false), ck.CKR_OK
	case ck.CKA_LOCAL, ck.CKA_ALWAYS_SENSITIVE, ck.CKA_NEVER_EXTRACTABLE: // what was brought along was somewhere else before
		return boolValue(!k.Imported), ck.CKR_OK
	case ck.CKA_KEY_GEN_MECHANISM:
		if k.Imported {
			return ulongValue(ck.Unavailable), ck.CKR_OK
		}
		return ulongValue(uint64(specRows[k.Spec].generate)), ck.CKR_OK
	case ck.CKA_LABEL:
		return octetsValue([]byte(names.Label)), ck.CKR_OK
	case ck.CKA_ID:
		return octetsValue(names.ID), ck.CKR_OK
	case ck.CKA_UNIQUE_ID:
		return octetsValue(uniqueID(k.handle())), ck.CKR_OK
	case ck.CKA_KEY_TYPE:
		return ulongValue(uint64(k.f.keyType)), ck.CKR_OK
	case ck.CKA_START_DATE, ck.CKA_END_DATE:
		return p11rpc.Value{Kind: p11rpc.Date}, ck.CKR_OK
	case ck.CKA_SUBJECT:
		return octetsValue(names.Subject), ck.CKR_OK
	case ck.CKA_ALLOWED_MECHANISMS:
		return p11rpc.Value{Kind: p11rpc.Ulongs, Numbers: mechanismsFor(&k.f)}, ck.CKR_OK
	case ck.CKA_VALUE_LEN:
		return ulongValue(uint64(k.f.bits / 8)), ck.CKR_OK
	}
	if v, ok := usageValue(k.f.usage, a); ok {
		return v, ck.CKR_OK
	}
	if k.public != nil {
		if v, ok := k.public.attribute(a); ok {
			return v, ck.CKR_OK
		}
	}
	return p11rpc.Value{}, ck.CKR_ATTRIBUTE_TYPE_INVALID
}

// uniqueID is CKA_UNIQUE_ID: the handle, which is never used for another object.
func uniqueID(h handle) []byte { return []byte(fmt.Sprintf("%016x", uint64(h))) }

// byUniqueID undoes uniqueID; 0 for what is none.
func byUniqueID(id []byte) handle {
	var h [8]byte
	if len(id) != 16 {
		return 0
	}
	if _, err := hex.Decode(h[:], id); err != nil {
		return 0
	}
	n := handle(0)
	for _, b := range h {
		n = n<<8 | handle(b)
	}
	return n
}

func (k *kmsKey) use(m *mechanism.Mechanism, in []byte, continued bool) *kms.KeyUse {
	return &kms.KeyUse{KeyID: k.KeyID, VersionID: k.VersionID, Mechanism: m, Input: in, Continued: continued}
}

func (k *kmsKey) may(ctx context.Context, verb kms.Verb, m *mechanism.Mechanism) ck.RV {
	return rvOf(k.service.MayUse(ctx, k.actor, verb, k.use(m, nil, false)), aboutKey)
}

func (k *kmsKey) sign(ctx context.Context, m *mechanism.Mechanism, in []byte) ([]byte, ck.RV) {
	s, err := k.service.SignWith(ctx, k.actor, k.use(m, in, false))
	return s, rvOf(err, aboutData)
}

func (k *kmsKey) verify(ctx context.Context, m *mechanism.Mechanism, in, signature []byte) ck.RV {
	use := k.use(m, in, false)
	use.Signature = signature
	ok, err := k.service.VerifyWith(ctx, k.actor, use)
	if err == nil && !ok {
		return ck.CKR_SIGNATURE_INVALID
	}
	return rvOf(err, aboutSignature)
}

func (k *kmsKey) encrypt(ctx context.Context, m *mechanism.Mechanism, in []byte, continued bool) ([]byte, ck.RV) {
	out, err := k.service.EncryptWith(ctx, k.actor, k.use(m, in, continued))
	return out, rvOf(err, aboutData)
}

func (k *kmsKey) decrypt(ctx context.Context, m *mechanism.Mechanism, in []byte, continued bool) ([]byte, ck.RV) {
	out, err := k.service.DecryptWith(ctx, k.actor, k.use(m, in, continued))
	return out, rvOf(err, aboutCiphertext)
}

// endOfParts gives what tells the audit of the end of an operation that used the key in parts.
func (k *kmsKey) endOfParts(ctx context.Context, verb kms.Verb, m *mechanism.Mechanism) func(uses int, octets int64) {
	ctx = context.WithoutCancel(ctx)
	return func(uses int, octets int64) {
		// It is in the log if the audit could not keep it: what was done was done, and there is nobody to give an error to.
		_ = k.service.PartsEnded(ctx, k.actor, verb, k.use(m, nil, true), uses, octets)
	}
}

// publicParts is a public key in the attributes of PKCS #11. It is immutable.
type publicParts struct {
	info              []byte // DER SubjectPublicKeyInfo
	modulus, exponent []byte // of RSA, without leading zeros
	params, point     []byte // of EC: DER of the curve's name, and of an octet string
}

// maxPublicParts is how many public keys of the KMS stay taken apart; one takes 200 octets and the key's DER, which the store keeps too.
const maxPublicParts = 16384

func newPublicCache() *lru.Cache[string, *publicParts] {
	c, _ := lru.New[string, *publicParts](maxPublicParts) // fails only for sizes below 1
	return c
}

// publicParts gives those of a version, whose public key never changes.
func (f *Front) publicParts(t *kms.TokenKey) (*publicParts, error) {
	if p, ok := f.publics.Get(t.VersionID); ok {
		return p, nil
	}
	p, err := readPublic(t.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("pkcs11front: the public key of %s: %w", t.VersionID, err)
	}
	f.publics.Add(t.VersionID, p)
	return p, nil
}

var errPublicKey = errors.New("it is no RSA or EC key in DER")

// readPublic takes a SubjectPublicKeyInfo apart, and keeps parts of it. Whether the numbers are a good key it does not look at.
func readPublic(info []byte) (*publicParts, error) {
	p := &publicParts{info: info}
	var in, seq, algorithm, numbers cryptobyte.String = info, nil, nil, nil
	var oid cryptobyte.String
	var key []byte
	if !in.ReadASN1(&seq, asn1.SEQUENCE) || !in.Empty() || !seq.ReadASN1(&algorithm, asn1.SEQUENCE) || !seq.ReadASN1BitStringAsBytes(&key) ||
		!algorithm.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) {
		return nil, errPublicKey
	}
	switch string(oid) {
	case oidRSA, oidPSS:
		in = key
		if !in.ReadASN1(&numbers, asn1.SEQUENCE) || !numbers.ReadASN1Integer(&p.modulus) || !numbers.ReadASN1Integer(&p.exponent) {
			return nil, errPublicKey
		}
		return p, nil
	case oidEC:
		p.params = slices.Clone([]byte(algorithm))
		p.point = sessionkey.EncodePoint(key)
		return p, nil
	}
	return nil, errPublicKey
}

// The algorithms of SubjectPublicKeyInfo: the contents of their object identifiers (RFC 3279 §2.3, and RFC 4055 §1.2 for a key that signs by RSASSA-PSS only).
const (
	oidPSS = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a"
	oidRSA = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01"
	oidEC  = "\x2a\x86\x48\xce\x3d\x02\x01"
)

// attribute gives the value of an attribute of a public key, or of the public part of a private one.
func (p *publicParts) attribute(a ck.Attribute) (p11rpc.Value, bool) {
	switch a {
	case ck.CKA_PUBLIC_KEY_INFO:
		return octetsValue(p.info), true
	case ck.CKA_MODULUS:
		return octetsValue(p.modulus), p.modulus != nil
	case ck.CKA_MODULUS_BITS:
		if len(p.modulus) == 0 {
			return p11rpc.Value{}, false
		}
		return ulongValue(uint64(8*(len(p.modulus)-1) + bits.Len8(p.modulus[0]))), true
	case ck.CKA_PUBLIC_EXPONENT:
		return octetsValue(p.exponent), p.exponent != nil
	case ck.CKA_EC_PARAMS:
		return octetsValue(p.params), p.params != nil
	case ck.CKA_EC_POINT:
		return octetsValue(p.point), p.point != nil
	}
	return p11rpc.Value{}, false
}
