package pkcs11front

import (
	"slices"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// origin is a call that gives an object attributes. They are bits.
type origin uint8

const (
	byCreate   origin = 1 << iota // C_CreateObject
	byGenerate                    // C_GenerateKey, C_GenerateKeyPair
	byUnwrap                      // C_UnwrapKey, C_DeriveKey
	byCopy                        // C_CopyObject
	bySet                         // C_SetAttributeValue

	byMaker   = byCreate | byGenerate | byUnwrap
	byAny     = byMaker | byCopy
	byAnyTime = byAny | bySet
)

// preset is what an attribute is when no template has given it.
type preset uint8

const (
	absent preset = iota // the object has none: CKR_ATTRIBUTE_TYPE_INVALID
	empty                // no octets, or 0, or false
	yes                  // true
	made                 // the door makes it for each object, or the service knows it
)

// attributeRow is an attribute of a class of objects (PKCS #11 2.40 and 3.0, §4).
type attributeRow struct {
	attribute ck.Attribute
	kind      p11rpc.Kind
	given     origin // the calls whose template may have it; with others it is CKR_ATTRIBUTE_READ_ONLY
	needed    origin // the calls whose template must have it
	otherwise preset
	// secret: it is given out only by a key that is neither sensitive nor unextractable.
	secret bool
}

const (
	asOctets = p11rpc.Bytes
	asBool   = p11rpc.Bool
	asUlong  = p11rpc.Ulong
	asDate   = p11rpc.Date
	asList   = p11rpc.Ulongs
)

// storageRows are those of all objects (§4.4).
var storageRows = []attributeRow{
	{attribute: ck.CKA_CLASS, kind: asUlong, given: byAny, needed: byCreate, otherwise: made},
	{attribute: ck.CKA_TOKEN, kind: asBool, given: byAny, otherwise: empty},
	{attribute: ck.CKA_PRIVATE, kind: asBool, given: byAny, otherwise: made}, // true for what is secret
	{attribute: ck.CKA_MODIFIABLE, kind: asBool, given: byAny, otherwise: yes},
	{attribute: ck.CKA_COPYABLE, kind: asBool, given: byAny | bySet, otherwise: yes},
	{attribute: ck.CKA_DESTROYABLE, kind: asBool, given: byAny, otherwise: yes},
	{attribute: ck.CKA_LABEL, kind: asOctets, given: byAnyTime, otherwise: empty},
	{attribute: ck.CKA_UNIQUE_ID, kind: asOctets, otherwise: made},
}

// dataRows are those of CKO_DATA (§4.5).
var dataRows = []attributeRow{
	{attribute: ck.CKA_APPLICATION, kind: asOctets, given: byAnyTime, otherwise: empty},
	{attribute: ck.CKA_OBJECT_ID, kind: asOctets, given: byAnyTime, otherwise: empty},
	{attribute: ck.CKA_VALUE, kind: asOctets, given: byAnyTime, otherwise: empty},
}

// nssEmail is CKA_NSS_EMAIL, by which NSS finds certificates of people; it is in the template of every certificate that has an address.
const nssEmail ck.Attribute = 0xce534352

// certificateRows are those of X.509 certificates (§4.6); there are no others.
var certificateRows = []attributeRow{
	{attribute: ck.CKA_CERTIFICATE_TYPE, kind: asUlong, given: byCreate | byCopy, otherwise: made}, // X.509, which is all that there is
	{attribute: ck.CKA_TRUSTED, kind: asBool, given: byCreate | byCopy, otherwise: empty},          // false: a security officer would say true, and there is none
	{attribute: ck.CKA_CERTIFICATE_CATEGORY, kind: asUlong, given: byCreate | byCopy, otherwise: empty},
	{attribute: ck.CKA_CHECK_VALUE, kind: asOctets, given: byCreate, otherwise: made},
	{attribute: ck.CKA_START_DATE, kind: asDate, given: byCreate | byCopy, otherwise: empty},
	{attribute: ck.CKA_END_DATE, kind: asDate, given: byCreate | byCopy, otherwise: empty},
	{attribute: ck.CKA_PUBLIC_KEY_INFO, kind: asOctets, given: byCreate | byCopy, otherwise: made},
	{attribute: ck.CKA_SUBJECT, kind: asOctets, given: byCreate | byCopy, otherwise: made}, // needed, but what is in CKA_VALUE will do
	{attribute: ck.CKA_ID, kind: asOctets, given: byAnyTime, otherwise: empty},
	{attribute: ck.CKA_ISSUER, kind: asOctets, given: byCreate | byCopy | bySet, otherwise: made},
	{attribute: ck.CKA_SERIAL_NUMBER, kind: asOctets, given: byCreate | byCopy | bySet, otherwise: made},
	{attribute: ck.CKA_VALUE, kind: asOctets, given: byCreate, otherwise: empty},
	{attribute: ck.CKA_URL, kind: asOctets, given: byCreate, otherwise: empty},
	{attribute: ck.CKA_HASH_OF_SUBJECT_PUBLIC_KEY, kind: asOctets, given: byCreate, otherwise: empty},
	{attribute: ck.CKA_HASH_OF_ISSUER_PUBLIC_KEY, kind: asOctets, given: byCreate, otherwise: empty},
	{attribute: ck.CKA_JAVA_MIDP_SECURITY_DOMAIN, kind: asUlong, given: byCreate | byCopy, otherwise: empty},
	{attribute: ck.CKA_NAME_HASH_ALGORITHM, kind: asUlong, given: byCreate, otherwise: absent},
	{attribute: nssEmail, kind: asOctets, given: byAnyTime, otherwise: absent},
}

// keyRows are those of all keys (§4.7).
var keyRows = []attributeRow{
	{attribute: ck.CKA_KEY_TYPE, kind: asUlong, given: byMaker, needed: byCreate | byUnwrap, otherwise: made},
	{attribute: ck.CKA_ID, kind: asOctets, given: byAnyTime, otherwise: empty},
	{attribute: ck.CKA_START_DATE, kind: asDate, given: byAnyTime, otherwise: empty},
	{attribute: ck.CKA_END_DATE, kind: asDate, given: byAnyTime, otherwise: empty},
	{attribute: ck.CKA_DERIVE, kind: asBool, given: byAnyTime, otherwise: made},
	{attribute: ck.CKA_LOCAL, kind: asBool, otherwise: made},
	{attribute: ck.CKA_KEY_GEN_MECHANISM, kind: asUlong, otherwise: made},
	{attribute: ck.CKA_ALLOWED_MECHANISMS, kind: asList, given: byMaker, otherwise: made}, // those of them by which the key can be used for anything
}

// publicRows are those of public keys (§4.8).
var publicRows = []attributeRow{
	{attribute: ck.CKA_SUBJECT, kind: asOctets, given: byAnyTime, otherwise: empty},
	{attribute: ck.CKA_ENCRYPT, kind: asBool, given: byAnyTime, otherwise: made},
	{attribute: ck.CKA_VERIFY, kind: asBool, given: byAnyTime, otherwise: made},
	{attribute: ck.CKA_VERIFY_RECOVER, kind: asBool, given: byAnyTime, otherwise: empty},
	{attribute: ck.CKA_WRAP, kind: asBool, given: byAnyTime, otherwise: made},
	{attribute: ck.CKA_TRUSTED, kind: asBool, given: byAny, otherwise: empty},
	{attribute: ck.CKA_PUBLIC_KEY_INFO, kind: asOctets, given: byCreate, otherwise: made},
}

// privateRows are those of private keys (§4.9).
var privateRows = []attributeRow{
	{attribute: ck.CKA_SUBJECT, kind: asOctets, given: byAnyTime, otherwise: empty},
	{attribute: ck.CKA_SENSITIVE, kind: asBool, given: byAnyTime, otherwise: made},
	{attribute: ck.CKA_DECRYPT, kind: asBool, given: byAnyTime, otherwise: made},
	{attribute: ck.CKA_SIGN, kind: asBool, given: byAnyTime, otherwise: made},
	{attribute: ck.CKA_SIGN_RECOVER, kind: asBool, given: byAnyTime, otherwise: empty},
	{attribute: ck.CKA_UNWRAP, kind: asBool, given: byAnyTime, otherwise: made},
	{attribute: ck.CKA_EXTRACTABLE, kind: asBool, given: byAnyTime, otherwise: made},
	{attribute: ck.CKA_ALWAYS_SENSITIVE, kind: asBool, otherwise: made},
	{attribute: ck.CKA_NEVER_EXTRACTABLE, kind: asBool, otherwise: made},
	{attribute: ck.CKA_WRAP_WITH_TRUSTED, kind: asBool, given: byAnyTime, otherwise: empty},
	{attribute: ck.CKA_ALWAYS_AUTHENTICATE, kind: asBool, given: byMaker, otherwise: empty},
	{attribute: ck.CKA_PUBLIC_KEY_INFO, kind: asOctets, given: byCreate | byUnwrap, otherwise: made},
}

// secretRows are those of secret keys (§4.10).
var secretRows = []attributeRow{
	{attribute: ck.CKA_SENSITIVE, kind: asBool, given: byAnyTime, otherwise: made},
	{attribute: ck.CKA_ENCRYPT, kind: asBool, given: byAnyTime, otherwise: made},
	{attribute: ck.CKA_DECRYPT, kind: asBool, given: byAnyTime, otherwise: made},
	{attribute: ck.CKA_SIGN, kind: asBool, given: byAnyTime, otherwise: made},
	{attribute: ck.CKA_VERIFY, kind: asBool, given: byAnyTime, otherwise: made},
	{attribute: ck.CKA_WRAP, kind: asBool, given: byAnyTime, otherwise: made},
	{attribute: ck.CKA_UNWRAP, kind: asBool, given: byAnyTime, otherwise: made},
	{attribute: ck.CKA_EXTRACTABLE, kind: asBool, given: byAnyTime, otherwise: made},
	{attribute: ck.CKA_ALWAYS_SENSITIVE, kind: asBool, otherwise: made},
	{attribute: ck.CKA_NEVER_EXTRACTABLE, kind: asBool, otherwise: made},
	{attribute: ck.CKA_CHECK_VALUE, kind: asOctets, given: byMaker, otherwise: absent}, // session keys for AES have one
	{attribute: ck.CKA_WRAP_WITH_TRUSTED, kind: asBool, given: byAnyTime, otherwise: empty},
	{attribute: ck.CKA_TRUSTED, kind: asBool, given: byAny, otherwise: empty},
	{attribute: ck.CKA_VALUE, kind: asOctets, given: byCreate, needed: byCreate, otherwise: made, secret: true},
	{attribute: ck.CKA_VALUE_LEN, kind: asUlong, given: byGenerate | byUnwrap | byCreate, needed: byGenerate, otherwise: made},
}

// The rows of key types (PKCS #11 Current Mechanisms 2.40, §2.1 and §2.3). CKA_EC_POINT of a private key is beyond the standard: programs
// that have only that look for it there.
var (
	rsaPublicRows = []attributeRow{
		{attribute: ck.CKA_MODULUS, kind: asOctets, given: byCreate, needed: byCreate, otherwise: made},
		{attribute: ck.CKA_MODULUS_BITS, kind: asUlong, given: byGenerate, needed: byGenerate, otherwise: made},
		{attribute: ck.CKA_PUBLIC_EXPONENT, kind: asOctets, given: byCreate | byGenerate, needed: byCreate, otherwise: made},
	}
	rsaPrivateRows = []attributeRow{
		{attribute: ck.CKA_MODULUS, kind: asOctets, given: byCreate, needed: byCreate, otherwise: made},
		{attribute: ck.CKA_PUBLIC_EXPONENT, kind: asOctets, given: byCreate, otherwise: made},
		{attribute: ck.CKA_PRIVATE_EXPONENT, kind: asOctets, given: byCreate, needed: byCreate, otherwise: made, secret: true},
		{attribute: ck.CKA_PRIME_1, kind: asOctets, given: byCreate, otherwise: made, secret: true},
		{attribute: ck.CKA_PRIME_2, kind: asOctets, given: byCreate, otherwise: made, secret: true},
		{attribute: ck.CKA_EXPONENT_1, kind: asOctets, given: byCreate, otherwise: made, secret: true},
		{attribute: ck.CKA_EXPONENT_2, kind: asOctets, given: byCreate, otherwise: made, secret: true},
		{attribute: ck.CKA_COEFFICIENT, kind: asOctets, given: byCreate, otherwise: made, secret: true},
	}
	ecPublicRows = []attributeRow{
		{attribute: ck.CKA_EC_PARAMS, kind: asOctets, given: byCreate | byGenerate, needed: byCreate | byGenerate, otherwise: made},
		{attribute: ck.CKA_EC_POINT, kind: asOctets, given: byCreate, needed: byCreate, otherwise: made},
	}
	ecPrivateRows = []attributeRow{
		{attribute: ck.CKA_EC_PARAMS, kind: asOctets, given: byCreate, needed: byCreate, otherwise: made},
		{attribute: ck.CKA_EC_POINT, kind: asOctets, given: byCreate, otherwise: made},
		{attribute: ck.CKA_VALUE, kind: asOctets, given: byCreate, needed: byCreate, otherwise: made, secret: true},
	}
)

// notHere are the attributes that no object of a token has, and why.
var notHere = map[string][]ck.Attribute{
	"of attribute certificates and WTLS certificates, which nobody uses": {ck.CKA_AC_ISSUER, ck.CKA_OWNER, ck.CKA_ATTR_TYPES},
	"templates for keys that a key wraps, unwraps or derives: the door's own rules are stricter (wrap.go)": {ck.CKA_WRAP_TEMPLATE, ck.CKA_UNWRAP_TEMPLATE,
		ck.CKA_DERIVE_TEMPLATE},
	"of domain parameters and key types that are not made": {ck.CKA_PRIME, ck.CKA_SUBPRIME, ck.CKA_BASE, ck.CKA_PRIME_BITS, ck.CKA_SUBPRIME_BITS,
		ck.CKA_VALUE_BITS, ck.CKA_GOSTR3410_PARAMS, ck.CKA_GOSTR3411_PARAMS, ck.CKA_GOST28147_PARAMS},
	"deprecated since 2.20": {ck.CKA_SECONDARY_AUTH, ck.CKA_AUTH_PIN_FLAGS},
	"of one-time passwords": {ck.CKA_OTP_FORMAT, ck.CKA_OTP_LENGTH, ck.CKA_OTP_TIME_INTERVAL, ck.CKA_OTP_USER_FRIENDLY_MODE,
		ck.CKA_OTP_CHALLENGE_REQUIREMENT, ck.CKA_OTP_TIME_REQUIREMENT, ck.CKA_OTP_COUNTER_REQUIREMENT, ck.CKA_OTP_PIN_REQUIREMENT,
		ck.CKA_OTP_USER_IDENTIFIER, ck.CKA_OTP_SERVICE_IDENTIFIER, ck.CKA_OTP_SERVICE_LOGO, ck.CKA_OTP_SERVICE_LOGO_TYPE, ck.CKA_OTP_COUNTER, ck.CKA_OTP_TIME},
	"of hardware features": {ck.CKA_HW_FEATURE_TYPE, ck.CKA_RESET_ON_INIT, ck.CKA_HAS_RESET, ck.CKA_PIXEL_X, ck.CKA_PIXEL_Y, ck.CKA_RESOLUTION,
		ck.CKA_CHAR_ROWS, ck.CKA_CHAR_COLUMNS, ck.CKA_COLOR, ck.CKA_BITS_PER_PIXEL, ck.CKA_CHAR_SETS, ck.CKA_ENCODING_METHODS, ck.CKA_MIME_TYPES},
	"of mechanism objects, CMS and profiles: there are no such objects": {ck.CKA_MECHANISM_TYPE, ck.CKA_REQUIRED_CMS_ATTRIBUTES, ck.CKA_DEFAULT_CMS_ATTRIBUTES,
		ck.CKA_SUPPORTED_CMS_ATTRIBUTES, ck.CKA_PROFILE_ID},
}

// classTable is what an object of a class, and for keys of a type, consists of.
type classTable struct {
	class   ck.Class
	keyType ck.KeyType // noKey if it is no key
	rows    []attributeRow
	byType  map[ck.Attribute]*attributeRow
}

func newTable(class ck.Class, t ck.KeyType, parts ...[]attributeRow) *classTable {
	table := &classTable{class: class, keyType: t, rows: slices.Concat(append([][]attributeRow{storageRows}, parts...)...), byType: map[ck.Attribute]*attributeRow{}}
	slices.SortFunc(table.rows, func(a, b attributeRow) int { return int(int64(a.attribute) - int64(b.attribute)) })
	for i := range table.rows {
		table.byType[table.rows[i].attribute] = &table.rows[i]
	}
	return table
}

// classTables are all kinds of objects that there are.
var classTables = []*classTable{
	newTable(ck.CKO_DATA, noKey, dataRows),
	newTable(ck.CKO_CERTIFICATE, noKey, certificateRows),
	newTable(ck.CKO_PUBLIC_KEY, ck.CKK_RSA, keyRows, publicRows, rsaPublicRows),
	newTable(ck.CKO_PUBLIC_KEY, ck.CKK_EC, keyRows, publicRows, ecPublicRows),
	newTable(ck.CKO_PRIVATE_KEY, ck.CKK_RSA, keyRows, privateRows, rsaPrivateRows),
	newTable(ck.CKO_PRIVATE_KEY, ck.CKK_EC, keyRows, privateRows, ecPrivateRows),
	newTable(ck.CKO_SECRET_KEY, ck.CKK_AES, keyRows, secretRows),
	newTable(ck.CKO_SECRET_KEY, ck.CKK_GENERIC_SECRET, keyRows, secretRows),
}

// tableOf gives the table of a class and key type; nil if there is none. Of what is no key, the key type is noKey.
func tableOf(class ck.Class, t ck.KeyType) *classTable {
	for _, table := range classTables {
		if table.class == class && table.keyType == t {
			return table
		}
	}
	return nil
}
