package p11rpc

import "github.com/keyward/keyward/pkcs11front/ck"

// Kind is how the value of an attribute is written.
type Kind uint8

// The kinds. The dialect Keyward has their numbers on the wire.
const (
	Bytes    Kind = iota // octets
	Bool                 // CK_BBOOL
	Ulong                // CK_ULONG
	Date                 // CK_DATE, 8 digits, or empty
	Ulongs               // CK_MECHANISM_TYPE array
	Template             // CK_ATTRIBUTE array
)

// KindOf is the kind of an attribute's value, by PKCS #11: Bytes for those that are not known. It is the kind that a Reader gives out in all
// dialects.
func KindOf(a ck.Attribute) Kind { return kindRowOf(a).kind }

type kindRow struct {
	kind Kind
	// outside: p11-kit does not know that, and its clients send the value as it is in their memory.
	outside bool
}

// kinds are the attributes whose values are not octets.
var kinds = map[ck.Attribute]kindRow{
	ck.CKA_CLASS:                     {kind: Ulong},
	ck.CKA_TOKEN:                     {kind: Bool},
	ck.CKA_PRIVATE:                   {kind: Bool},
	ck.CKA_CERTIFICATE_TYPE:          {kind: Ulong},
	ck.CKA_TRUSTED:                   {kind: Bool},
	ck.CKA_CERTIFICATE_CATEGORY:      {kind: Ulong},
	ck.CKA_JAVA_MIDP_SECURITY_DOMAIN: {kind: Ulong},
	ck.CKA_NAME_HASH_ALGORITHM:       {kind: Ulong, outside: true},
	ck.CKA_KEY_TYPE:                  {kind: Ulong},
	ck.CKA_SENSITIVE:                 {kind: Bool},
	ck.CKA_ENCRYPT:                   {kind: Bool},
	ck.CKA_DECRYPT:                   {kind: Bool},
	ck.CKA_WRAP:                      {kind: Bool},
	ck.CKA_UNWRAP:                    {kind: Bool},
	ck.CKA_SIGN:                      {kind: Bool},
	ck.CKA_SIGN_RECOVER:              {kind: Bool},
	ck.CKA_VERIFY:                    {kind: Bool},
	ck.CKA_VERIFY_RECOVER:            {kind: Bool},
	ck.CKA_DERIVE:                    {kind: Bool},
	ck.CKA_START_DATE:                {kind: Date},
	ck.CKA_END_DATE:                  {kind: Date},
	ck.CKA_MODULUS_BITS:              {kind: Ulong},
	ck.CKA_PRIME_BITS:                {kind: Ulong},
	ck.CKA_SUBPRIME_BITS:             {kind: Ulong},
	ck.CKA_VALUE_BITS:                {kind: Ulong},
	ck.CKA_VALUE_LEN:                 {kind: Ulong},
	ck.CKA_EXTRACTABLE:               {kind: Bool},
	ck.CKA_LOCAL:                     {kind: Bool},
	ck.CKA_NEVER_EXTRACTABLE:         {kind: Bool},
	ck.CKA_ALWAYS_SENSITIVE:          {kind: Bool},
	ck.CKA_KEY_GEN_MECHANISM:         {kind: Ulong},
	ck.CKA_MODIFIABLE:                {kind: Bool},
	ck.CKA_COPYABLE:                  {kind: Bool},
	ck.CKA_DESTROYABLE:               {kind: Bool, outside: true},
	ck.CKA_SECONDARY_AUTH:            {kind: Bool},
	ck.CKA_AUTH_PIN_FLAGS:            {kind: Ulong},
	ck.CKA_ALWAYS_AUTHENTICATE:       {kind: Bool},
	ck.CKA_WRAP_WITH_TRUSTED:         {kind: Bool},
	ck.CKA_OTP_FORMAT:                {kind: Ulong, outside: true},
	ck.CKA_OTP_LENGTH:                {kind: Ulong, outside: true},
	ck.CKA_OTP_TIME_INTERVAL:         {kind: Ulong, outside: true},
	ck.CKA_OTP_USER_FRIENDLY_MODE:    {kind: Bool, outside: true},
	ck.CKA_OTP_CHALLENGE_REQUIREMENT: {kind: Ulong, outside: true},
	ck.CKA_OTP_TIME_REQUIREMENT:      {kind: Ulong, outside: true},
	ck.CKA_OTP_COUNTER_REQUIREMENT:   {kind: Ulong, outside: true},
	ck.CKA_OTP_PIN_REQUIREMENT:       {kind: Ulong, outside: true},
	ck.CKA_HW_FEATURE_TYPE:           {kind: Ulong},
	ck.CKA_RESET_ON_INIT:             {kind: Bool},
	ck.CKA_HAS_RESET:                 {kind: Bool},
	ck.CKA_PIXEL_X:                   {kind: Ulong},
	ck.CKA_PIXEL_Y:                   {kind: Ulong},
	ck.CKA_RESOLUTION:                {kind: Ulong},
	ck.CKA_CHAR_ROWS:                 {kind: Ulong},
	ck.CKA_CHAR_COLUMNS:              {kind: Ulong},
	ck.CKA_COLOR:                     {kind: Bool},
	ck.CKA_BITS_PER_PIXEL:            {kind: Ulong},
	ck.CKA_MECHANISM_TYPE:            {kind: Ulong},
	ck.CKA_PROFILE_ID:                {kind: Ulong, outside: true},
	ck.CKA_WRAP_TEMPLATE:             {kind: Template},
	ck.CKA_UNWRAP_TEMPLATE:           {kind: Template},
	ck.CKA_DERIVE_TEMPLATE:           {kind: Template},
	ck.CKA_ALLOWED_MECHANISMS:        {kind: Ulongs},
}

// lowKinds are those with small numbers, nearly all, as an array: they are looked up for each attribute of each template.
var lowKinds = func() (low [ck.CKA_PROFILE_ID + 1]kindRow) {
	for a, row := range kinds {
		if a < ck.Attribute(len(low)) {
			low[a] = row
		}
	}
	return low
}()

func kindRowOf(a ck.Attribute) kindRow {
	if a < ck.Attribute(len(lowKinds)) {
		return lowKinds[a]
	}
	return kinds[a]
}

// vendorKinds are attributes of a vendor that p11-kit knows since 0.25.0 (the last two came between 0.25.0 and 0.26.4): to read over them,
// their size must be known. Nothing here has them.
var vendorKinds = map[ck.Attribute]Kind{
	0x80010001: Bool, 0x80010002: Bool, 0x80010003: Bool, 0x80010004: Bool, 0x80010008: Bool, 0x8001000c: Bool, 0x8001000d: Bool,
	0x80010005: Ulong, 0x8001000a: Ulong, 0x800d0001: Ulong, 0x800d0009: Ulong, 0x800d0101: Ulong,
}

// wireKind is how a value is written: as what it is, or as p11-kit's table says, which the standard's is ahead of (reference p11kit-rpc.md,
// section 5).
func wireKind(d Dialect, a ck.Attribute) Kind {
	row := kindRowOf(a)
	switch {
	case d == Keyward:
		return row.kind
	case row.outside || d == Offer0 && a == ck.CKA_DERIVE_TEMPLATE:
		return Bytes
	case row.kind == Bytes && d != Offer0:
		return vendorKinds[a]
	}
	return row.kind
}
