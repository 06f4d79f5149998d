package pkcs11front

import (
	"crypto"
	_ "crypto/sha1" // CKM_SHA_1 and what is built on it: old certificates and TPMs
	_ "crypto/sha256"
	_ "crypto/sha3"
	_ "crypto/sha512"
	"slices"

	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/sessionkey"
)

// family is what a mechanism does, and with it the code that does it.
type family uint8

const (
	familyBare     family = iota + 1 // signs its input as it is, which is short
	familyHashed                     // signs a digest that is made here
	familyHMAC                       // RFC 2104, with session keys
	familyCMAC                       // SP 800-38B, with session keys
	familyRSA                        // encrypts or decrypts one block of RSA
	familyBlocks                     // AES in parts of any length: ECB, CBC, CTR
	familyPadded                     // CBC-PAD: the same, with the padding of RFC 5652 §6.3 (PKCS #7)
	familyGCM                        // gathers its input
	familyDigest                     // needs no key
	familyKeyWrap                    // RFC 3394, RFC 5649: of keys only, never of data
	familyECDH                       // SEC 1 §3.3.1
	familyGenerate                   // makes keys: objectcalls.go
)

// parameter is what comes with a mechanism.
type parameter uint8

const (
	parameterNone parameter = iota
	parameterPSS
	parameterOAEP
	parameterIV
	parameterCTR
	parameterGCM
	parameterMAC
	parameterECDH
)

// noKey stands in a row for: the mechanism uses no key.
const noKey = ck.KeyType(ck.Unavailable)

// mechanismRow is all that the door knows of a mechanism. C_GetMechanismList, C_GetMechanismInfo, CKA_ALLOWED_MECHANISMS and what an Init
// accepts follow from it.
type mechanismRow struct {
	mechanism ck.Mechanism
	keyType   ck.KeyType
	does      family
	flags     ck.Flags // CKF_ENCRYPT and so on: what it may be used for with a key that may be used so
	parameter parameter
	hash      crypto.Hash
	kind      mechanism.Kind // of the use of the key
	// inside: a hardware key does it in its HSM.
	inside bool

	// plain is the use of the key if the mechanism has no parameter: one for all.
	plain *mechanism.Mechanism
}

// What mechanisms are for.
const (
	forSigning    = ck.CKF_SIGN | ck.CKF_VERIFY | ck.CKF_MESSAGE_SIGN | ck.CKF_MESSAGE_VERIFY
	forEncrypting = ck.CKF_ENCRYPT | ck.CKF_DECRYPT
	forWrapping   = ck.CKF_WRAP | ck.CKF_UNWRAP
	forMessages   = ck.CKF_MESSAGE_ENCRYPT | ck.CKF_MESSAGE_DECRYPT
)

// mechanismTable is in the order in which C_GetMechanismList gives it: what makes keys first, for programs that take the first that they know.
var mechanismTable = []mechanismRow{
	{mechanism: ck.CKM_RSA_PKCS_KEY_PAIR_GEN, keyType: ck.CKK_RSA, does: familyGenerate, flags: ck.CKF_GENERATE_KEY_PAIR, inside: true},
	{mechanism: ck.CKM_EC_KEY_PAIR_GEN, keyType: ck.CKK_EC, does: familyGenerate, flags: ck.CKF_GENERATE_KEY_PAIR, inside: true},
	{mechanism: ck.CKM_AES_KEY_GEN, keyType: ck.CKK_AES, does: familyGenerate, flags: ck.CKF_GENERATE, inside: true},
	{mechanism: ck.CKM_GENERIC_SECRET_KEY_GEN, keyType: ck.CKK_GENERIC_SECRET, does: familyGenerate, flags: ck.CKF_GENERATE},

	// CKM_RSA_PKCS unwraps but does not wrap: nobody should make what only implicit rejection can read safely.
	{mechanism: ck.CKM_RSA_PKCS, keyType: ck.CKK_RSA, does: familyBare, flags: forSigning | forEncrypting | ck.CKF_UNWRAP, kind: mechanism.RSAPKCS1, inside: true},
	{mechanism: ck.CKM_RSA_X_509, keyType: ck.CKK_RSA, does: familyBare, flags: forSigning | forEncrypting, kind: mechanism.RSARaw, inside: true}, // Config.RawRSA
	{mechanism: ck.CKM_RSA_PKCS_OAEP, keyType: ck.CKK_RSA, does: familyRSA, flags: forEncrypting | forWrapping, parameter: parameterOAEP, kind: mechanism.RSAOAEP, inside: true},
	{mechanism: ck.CKM_RSA_PKCS_PSS, keyType: ck.CKK_RSA, does: familyBare, flags: forSigning, parameter: parameterPSS, kind: mechanism.RSAPSS, inside: true},

	rsaHashed(ck.CKM_SHA1_RSA_PKCS, crypto.SHA1), rsaHashed(ck.CKM_SHA224_RSA_PKCS, crypto.SHA224), rsaHashed(ck.CKM_SHA256_RSA_PKCS, crypto.SHA256),
	rsaHashed(ck.CKM_SHA384_RSA_PKCS, crypto.SHA384), rsaHashed(ck.CKM_SHA512_RSA_PKCS, crypto.SHA512),
	rsaHashed(ck.CKM_SHA3_224_RSA_PKCS, crypto.SHA3_224), rsaHashed(ck.CKM_SHA3_256_RSA_PKCS, crypto.SHA3_256),
	rsaHashed(ck.CKM_SHA3_384_RSA_PKCS, crypto.SHA3_384), rsaHashed(ck.CKM_SHA3_512_RSA_PKCS, crypto.SHA3_512),

	pssHashed(ck.CKM_SHA1_RSA_PKCS_PSS, crypto.SHA1), pssHashed(ck.CKM_SHA224_RSA_PKCS_PSS, crypto.SHA224), pssHashed(ck.CKM_SHA256_RSA_PKCS_PSS, crypto.SHA256),
	pssHashed(ck.CKM_SHA384_RSA_PKCS_PSS, crypto.SHA384), pssHashed(ck.CKM_SHA512_RSA_PKCS_PSS, crypto.SHA512),
	pssHashed(ck.CKM_SHA3_224_RSA_PKCS_PSS, crypto.SHA3_224), pssHashed(ck.CKM_SHA3_256_RSA_PKCS_PSS, crypto.SHA3_256),
	pssHashed(ck.CKM_SHA3_384_RSA_PKCS_PSS, crypto.SHA3_384), pssHashed(ck.CKM_SHA3_512_RSA_PKCS_PSS, crypto.SHA3_512),

	{mechanism: ck.CKM_ECDSA, keyType: ck.CKK_EC, does: familyBare, flags: forSigning, kind: mechanism.ECDSA, inside: true},
	ecdsaHashed(ck.CKM_ECDSA_SHA1, crypto.SHA1), ecdsaHashed(ck.CKM_ECDSA_SHA224, crypto.SHA224), ecdsaHashed(ck.CKM_ECDSA_SHA256, crypto.SHA256),
	ecdsaHashed(ck.CKM_ECDSA_SHA384, crypto.SHA384), ecdsaHashed(ck.CKM_ECDSA_SHA512, crypto.SHA512),
	ecdsaHashed(ck.CKM_ECDSA_SHA3_224, crypto.SHA3_224), ecdsaHashed(ck.CKM_ECDSA_SHA3_256, crypto.SHA3_256),
	ecdsaHashed(ck.CKM_ECDSA_SHA3_384, crypto.SHA3_384), ecdsaHashed(ck.CKM_ECDSA_SHA3_512, crypto.SHA3_512),

	// The cofactor of these curves is 1, so both do the same.
	{mechanism: ck.CKM_ECDH1_DERIVE, keyType: ck.CKK_EC, does: familyECDH, flags: ck.CKF_DERIVE, parameter: parameterECDH},
	{mechanism: ck.CKM_ECDH1_COFACTOR_DERIVE, keyType: ck.CKK_EC, does: familyECDH, flags: ck.CKF_DERIVE, parameter: parameterECDH},

	{mechanism: ck.CKM_AES_ECB, keyType: ck.CKK_AES, does: familyBlocks, flags: forEncrypting, kind: mechanism.AESECB, inside: true},
	{mechanism: ck.CKM_AES_CBC, keyType: ck.CKK_AES, does: familyBlocks, flags: forEncrypting, parameter: parameterIV, kind: mechanism.AESCBC, inside: true},
	{mechanism: ck.CKM_AES_CBC_PAD, keyType: ck.CKK_AES, does: familyPadded, flags: forEncrypting, parameter: parameterIV, kind: mechanism.AESCBC, inside: true},
	{mechanism: ck.CKM_AES_CTR, keyType: ck.CKK_AES, does: familyBlocks, flags: forEncrypting, parameter: parameterCTR, kind: mechanism.AESCTR, inside: true},
	{mechanism: ck.CKM_AES_GCM, keyType: ck.CKK_AES, does: familyGCM, flags: forEncrypting | forMessages, parameter: parameterGCM, kind: mechanism.AESGCM, inside: true},
	{mechanism: ck.CKM_AES_CMAC, keyType: ck.CKK_AES, does: familyCMAC, flags: forSigning},
	{mechanism: ck.CKM_AES_CMAC_GENERAL, keyType: ck.CKK_AES, does: familyCMAC, flags: forSigning, parameter: parameterMAC},
	// CKM_AES_KEY_WRAP_PAD and CKM_AES_KEY_WRAP_KWP are RFC 5649, as PKCS #11 3.0 says; some 2.40 tokens meant something else by the former.
	{mechanism: ck.CKM_AES_KEY_WRAP, keyType: ck.CKK_AES, does: familyKeyWrap, flags: forWrapping},
	{mechanism: ck.CKM_AES_KEY_WRAP_PAD, keyType: ck.CKK_AES, does: familyKeyWrap, flags: forWrapping},
	{mechanism: ck.CKM_AES_KEY_WRAP_KWP, keyType: ck.CKK_AES, does: familyKeyWrap, flags: forWrapping},

	digestRow(ck.CKM_SHA_1, crypto.SHA1), hmacRow(ck.CKM_SHA_1_HMAC, crypto.SHA1, parameterNone), hmacRow(ck.CKM_SHA_1_HMAC_GENERAL, crypto.SHA1, parameterMAC),
	digestRow(ck.CKM_SHA224, crypto.SHA224), hmacRow(ck.CKM_SHA224_HMAC, crypto.SHA224, parameterNone), hmacRow(ck.CKM_SHA224_HMAC_GENERAL, crypto.SHA224, parameterMAC),
	digestRow(ck.CKM_SHA256, crypto.SHA256), hmacRow(ck.CKM_SHA256_HMAC, crypto.SHA256, parameterNone), hmacRow(ck.CKM_SHA256_HMAC_GENERAL, crypto.SHA256, parameterMAC),
	digestRow(ck.CKM_SHA384, crypto.SHA384), hmacRow(ck.CKM_SHA384_HMAC, crypto.SHA384, parameterNone), hmacRow(ck.CKM_SHA384_HMAC_GENERAL, crypto.SHA384, parameterMAC),
	digestRow(ck.CKM_SHA512, crypto.SHA512), hmacRow(ck.CKM_SHA512_HMAC, crypto.SHA512, parameterNone), hmacRow(ck.CKM_SHA512_HMAC_GENERAL, crypto.SHA512, parameterMAC),
	digestRow(ck.CKM_SHA3_224, crypto.SHA3_224), hmacRow(ck.CKM_SHA3_224_HMAC, crypto.SHA3_224, parameterNone), hmacRow(ck.CKM_SHA3_224_HMAC_GENERAL, crypto.SHA3_224, parameterMAC),
	digestRow(ck.CKM_SHA3_256, crypto.SHA3_256), hmacRow(ck.CKM_SHA3_256_HMAC, crypto.SHA3_256, parameterNone), hmacRow(ck.CKM_SHA3_256_HMAC_GENERAL, crypto.SHA3_256, parameterMAC),
	digestRow(ck.CKM_SHA3_384, crypto.SHA3_384), hmacRow(ck.CKM_SHA3_384_HMAC, crypto.SHA3_384, parameterNone), hmacRow(ck.CKM_SHA3_384_HMAC_GENERAL, crypto.SHA3_384, parameterMAC),
	digestRow(ck.CKM_SHA3_512, crypto.SHA3_512), hmacRow(ck.CKM_SHA3_512_HMAC, crypto.SHA3_512, parameterNone), hmacRow(ck.CKM_SHA3_512_HMAC_GENERAL, crypto.SHA3_512, parameterMAC),
}

func rsaHashed(m ck.Mechanism, h crypto.Hash) mechanismRow {
	return mechanismRow{mechanism: m, keyType: ck.CKK_RSA, does: familyHashed, flags: forSigning, hash: h, kind: mechanism.RSAPKCS1, inside: true}
}

func pssHashed(m ck.Mechanism, h crypto.Hash) mechanismRow {
	// PSS hashes inside of the HSM, and hardly any has SHA-3.
	inside := h < crypto.SHA3_224
	return mechanismRow{mechanism: m, keyType: ck.CKK_RSA, does: familyHashed, flags: forSigning, parameter: parameterPSS, hash: h, kind: mechanism.RSAPSS, inside: inside}
}

func ecdsaHashed(m ck.Mechanism, h crypto.Hash) mechanismRow {
	return mechanismRow{mechanism: m, keyType: ck.CKK_EC, does: familyHashed, flags: forSigning, hash: h, kind: mechanism.ECDSA, inside: true}
}

func digestRow(m ck.Mechanism, h crypto.Hash) mechanismRow {
	return mechanismRow{mechanism: m, keyType: noKey, does: familyDigest, flags: ck.CKF_DIGEST, hash: h}
}

func hmacRow(m ck.Mechanism, h crypto.Hash, p parameter) mechanismRow {
	return mechanismRow{mechanism: m, keyType: ck.CKK_GENERIC_SECRET, does: familyHMAC, flags: forSigning, hash: h, parameter: p}
}

// mechanismRows finds a row by its mechanism.
var mechanismRows = func() map[ck.Mechanism]*mechanismRow {
	rows := make(map[ck.Mechanism]*mechanismRow, len(mechanismTable))
	for i := range mechanismTable {
		row := &mechanismTable[i]
		if row.kind != 0 && row.parameter == parameterNone {
			row.plain = &mechanism.Mechanism{Kind: row.kind}
		}
		rows[row.mechanism] = row
	}
	return rows
}()

// offered says whether the mechanism is offered at all, with the configuration as it is.
func (row *mechanismRow) offered(rawRSA bool) bool {
	return row.mechanism != ck.CKM_RSA_X_509 || rawRSA
}

// mechanismList is C_GetMechanismList: the same for every token, as session keys live anywhere.
func mechanismList(rawRSA bool) []uint64 {
	list := make([]uint64, 0, len(mechanismTable))
	for i := range mechanismTable {
		if row := &mechanismTable[i]; row.offered(rawRSA) {
			list = append(list, uint64(row.mechanism))
		}
	}
	return list
}

// mechanismInfo is C_GetMechanismInfo of a token, hardware or not. Sizes are in the unit that the standard gives for the mechanism: bits for RSA, EC
// and the making of generic secrets, else octets.
func mechanismInfo(m ck.Mechanism, hardware, rawRSA bool) (least, most uint64, flags ck.Flags, rv ck.RV) {
	row := mechanismRows[m]
	if row == nil || !row.offered(rawRSA) {
		return 0, 0, 0, ck.CKR_MECHANISM_INVALID
	}
	flags = row.flags
	if hardware && row.inside {
		flags |= ck.CKF_HW
	}
	switch row.keyType {
	case ck.CKK_RSA:
		least, most = minRSA, maxRSA // keys of the KMS have 2048 bits and more
	case ck.CKK_EC:
		least, most = minEC, maxEC // keys of the KMS have 256 bits; session keys may be larger
		flags |= ck.CKF_EC_F_P | ck.CKF_EC_OID | ck.CKF_EC_UNCOMPRESS
	case ck.CKK_AES:
		least, most = 16, 32
	case ck.CKK_GENERIC_SECRET:
		least, most = minSecret, maxSecret
		if row.does == familyGenerate {
			least, most = 8*least, 8*most
		}
	}
	return least, most, flags, ck.CKR_OK
}

// Sizes of keys that the door takes: bits for RSA and EC, octets for generic secrets. A client may have short RSA keys of its own, for old signatures
// and old programs, but none that wraps: that is attack P6. A short secret is only good for HMAC, wraps nothing, and comes from the client.
const (
	minRSA         = sessionkey.MinRSA
	minRSAWrapping = 2048
	maxRSA         = sessionkey.MaxRSA
	minEC          = 256
	maxEC          = 521
	minSecret      = 1
	maxSecret      = sessionkey.MaxSecret
)

type usageFlag struct {
	flag ck.Flags
	may  usage
}

// usageFlags says what a key must be allowed for each thing that mechanisms do.
var usageFlags = []usageFlag{
	{ck.CKF_ENCRYPT, mayEncrypt},
	{ck.CKF_DECRYPT, mayDecrypt},
	{ck.CKF_MESSAGE_ENCRYPT, mayEncrypt},
	{ck.CKF_MESSAGE_DECRYPT, mayDecrypt},
	{ck.CKF_SIGN, maySign},
	{ck.CKF_VERIFY, mayVerify},
	{ck.CKF_WRAP, mayWrap},
	{ck.CKF_UNWRAP, mayUnwrap},
	{ck.CKF_DERIVE, mayDerive},
}

// local: only keys whose octets are here can do it.
func (row *mechanismRow) local() bool { return row.kind == 0 }

// rawAES says that who encrypts or decrypts by the mechanism chooses what goes through the block cipher, and so can compute GCM's hash key: everything but GCM
// that decrypts, and messages, whose IV keyward may draw.
func (row *mechanismRow) rawAES(flag ck.Flags) bool {
	return row.does == familyBlocks || row.does == familyPadded || row.does == familyGCM && flag == ck.CKF_ENCRYPT
}

// allows says whether a key may be used by the mechanism for what flag says, one of usageFlags.
func (row *mechanismRow) allows(facts *keyFacts, flag ck.Flags) ck.RV {
	if row.flags&flag == 0 {
		return ck.CKR_MECHANISM_INVALID
	}
	if row.keyType != facts.keyType {
		return ck.CKR_KEY_TYPE_INCONSISTENT
	}
	for _, u := range usageFlags {
		if u.flag == flag && facts.usage&u.may == 0 {
			return ck.CKR_KEY_FUNCTION_NOT_PERMITTED
		}
	}
	switch {
	case row.local() && facts.token:
		return ck.CKR_KEY_FUNCTION_NOT_PERMITTED
	case facts.only != nil && !slices.Contains(facts.only, uint64(row.mechanism)):
		return ck.CKR_MECHANISM_INVALID
	case !row.inside && facts.token && facts.hardware && flag == ck.CKF_SIGN,
		facts.sealsOnly && row.rawAES(flag):
		return ck.CKR_MECHANISM_INVALID
	}
	return ck.CKR_OK
}

// allowedMechanisms is CKA_ALLOWED_MECHANISMS: every mechanism by which a key can be used for anything.
func allowedMechanisms(facts *keyFacts) []ck.Mechanism {
	var list []ck.Mechanism
	for i := range mechanismTable {
		row := &mechanismTable[i]
		allows := func(u usageFlag) bool { return row.allows(facts, u.flag) == ck.CKR_OK }
		if row.offered(facts.rawRSA) && slices.ContainsFunc(usageFlags, allows) {
			list = append(list, row.mechanism)
		}
	}
	return list
}
