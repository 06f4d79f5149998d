package hsmpool

import (
	"crypto"
	_ "crypto/sha1" // of hashes
	"crypto/sha256"
	_ "crypto/sha512" // of hashes
	"slices"

	"github.com/miekg/pkcs11"
)

// Internal operations. They travel like the others, so that a worker needs one way in. None can be asked for by a Job.
const (
	opGenerate       Op = iota + 64 // key: type and usage; out: wrapped, pub: SubjectPublicKeyInfo
	opProve                         // load the key and use it; in: SubjectPublicKeyInfo or empty
	opGeneratePinned                // key: type, usage and ObjectID; pub
	opDestroyPinned                 // key: ObjectID; count
	opCheck                         // nothing, or the reason why the member can't serve
	opSealGCM                       // EncryptGCM with the seal key
	opOpenGCM                       // DecryptGCM with the seal key
	opLoad                          // bring the key in, so that its next use finds it there

	// key: type, usage and, if pinned, ObjectID; from, algorithm; in: the ciphertext; out: wrapped; pub: SubjectPublicKeyInfo, or for
	// AES the check value
	opImport
	opImportPinned

	opForget // in: IDs of wrapped keys, each with its length; what is loaded of them is destroyed
)

// function is the kind of PKCS#11 call.
type function uint8

const (
	fnOther function = iota
	fnEncrypt
	fnDecrypt
	fnSign
	fnUnwrap
	fnLogin
)

// keyClass is what mechanism family a key belongs to.
type keyClass uint8

const (
	classAES keyClass = iota + 1
	classRSA
	classEC
)

// keyTypeRow is what there is to know of a KeyType.
type keyTypeRow struct {
	name     string
	class    keyClass
	octets   int    // AES: the key; RSA: the modulus; EC: one coordinate
	ecParams []byte // EC: DER of the curve's OID, for CKA_EC_PARAMS
	usages   Usage  // what it can be made for

	transport bool // it can be a transport key, which is made for nothing else
}

// may says whether a key of the type can have a usage.
func (t keyTypeRow) may(u Usage) bool {
	return u != 0 && u&^t.usages == 0 || u == UseUnwrap && t.transport
}

// keyTypes has a row for each KeyType.
var keyTypes = map[KeyType]keyTypeRow{
	AES128:    {"AES-128", classAES, 16, nil, UseEncrypt, false},
	AES192:    {"AES-192", classAES, 24, nil, UseEncrypt, false},
	AES256:    {"AES-256", classAES, 32, nil, UseEncrypt, false},
	RSA2048:   {"RSA-2048", classRSA, 256, nil, UseEncrypt | UseSign, true},
	RSA3072:   {"RSA-3072", classRSA, 384, nil, UseEncrypt | UseSign, false},
	RSA4096:   {"RSA-4096", classRSA, 512, nil, UseEncrypt | UseSign, false},
	P256:      {"P-256", classEC, 32, []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}, UseSign, false},
	Secp256k1: {"secp256k1", classEC, 32, []byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a}, UseSign, false},
}

// String names the type.
func (t KeyType) String() string {
	if r, ok := keyTypes[t]; ok {
		return r.name
	}
	return "unknown key type"
}

// Limits of AES here, in octets. The API asks for less.
const (
	maxAESText = 64 << 10
	maxGCMAAD  = 64 << 10
	gcmNonce   = 12
	gcmTag     = 16
	minGCMTag  = 12 // SP 800-38D §5.2.1.2, without the tags that are for special uses
	aesBlock   = 16
)

// maxLabel bounds a label of OAEP, in octets.
const maxLabel = 1024

// hashRow is a hash and how PKCS #11 names it, and MGF1 with it.
type hashRow struct {
	hash      crypto.Hash
	mech, mgf uint
}

// hashes are those that a Job may name.
var hashes = [...]hashRow{
	{crypto.SHA1, pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1},
	{crypto.SHA224, pkcs11.CKM_SHA224, pkcs11.CKG_MGF1_SHA224},
	{crypto.SHA256, pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256},
	{crypto.SHA384, pkcs11.CKM_SHA384, pkcs11.CKG_MGF1_SHA384},
	{crypto.SHA512, pkcs11.CKM_SHA512, pkcs11.CKG_MGF1_SHA512},
}

// hashPlace is the place of a hash in hashes, -1 for none.
func hashPlace(h crypto.Hash) int {
	return slices.IndexFunc(hashes[:], func(r hashRow) bool { return r.hash == h })
}

// KnownHash says whether a Job may name the hash.
func KnownHash(h crypto.Hash) bool { return hashPlace(h) >= 0 }

// choices are what an operation can be told besides data, as Job has it. What an operation does not take is zero.
type choices struct {
	hash, mgf crypto.Hash
	salt      int // octets
	label     []byte
	tagBits   int // 0: 128
}

func (c *choices) none() bool {
	return c.hash == 0 && c.mgf == 0 && c.salt == 0 && len(c.label) == 0 && c.tagBits == 0
}

// takes says which choices an operation has.
type takes uint8

const (
	nothing takes = iota
	hashAndSalt
	hashAndLabel
	tagSize
)

// opRow is what there is to know of an Op. SoftHSM ends the process for some parameters that don't fit a key, so all of
// it is checked before a call.
type opRow struct {
	name  string
	fn    function
	mech  uint
	param []byte // nil, or the mechanism parameter if it is always the same
	class keyClass
	usage Usage // the key must have it

	// Input: between min and max octets; the length of the modulus in place of both when modulus is set; to pad octets less than
	// the modulus when that is set; the length of the hash for hashAndSalt; whole blocks for blocks.
	min, max int
	modulus  bool
	pad      int
	blocks   bool
	prefix   []byte // what the call gets before the input
	digest   bool   // the call gets as many octets of the input as the order of the curve has

	iv    int // octets of Nonce
	aad   bool
	takes takes
	hash  crypto.Hash // of OAEP, with MGF1 and without a label, if it is always the same

	// out gives the expected length of the output, or its largest and exact false.
	out func(k keyTypeRow, t *task) (n int, exact bool)
}

func outModulus(k keyTypeRow, _ *task) (int, bool) { return k.octets, true }

var (
	oaepSHA1   = oaepParam(pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1)
	oaepSHA256 = oaepParam(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256)
	pssSHA256  = ulongs(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, sha256.Size)
)

func outSame(_ keyTypeRow, t *task) (int, bool) { return len(t.in), true }

func outEncryptGCM(_ keyTypeRow, t *task) (int, bool) { return len(t.in) + t.tag(), true }

func outDecryptGCM(_ keyTypeRow, t *task) (int, bool) { return len(t.in) - t.tag(), true }

func outSignECDSA(k keyTypeRow, _ *task) (int, bool) { return 2 * k.octets, true }

func outOAEP(k keyTypeRow, t *task) (int, bool) {
	return k.octets - 2*t.choices().hash.Size() - 2, false
}

// outOAEPWith is for an operation that has always the same hash.
func outOAEPWith(hash crypto.Hash) func(keyTypeRow, *task) (int, bool) {
	return func(k keyTypeRow, _ *task) (int, bool) { return k.octets - 2*hash.Size() - 2, false }
}

// ops has a row for each Op that is one call on one key.
var ops = map[Op]*opRow{
	EncryptGCM: {name: "EncryptGCM", fn: fnEncrypt, mech: pkcs11.CKM_AES_GCM, class: classAES, usage: UseEncrypt,
		max: maxAESText, iv: gcmNonce, aad: true, takes: tagSize, out: outEncryptGCM},
	DecryptGCM: {name: "DecryptGCM", fn: fnDecrypt, mech: pkcs11.CKM_AES_GCM, class: classAES, usage: UseEncrypt,
		min: minGCMTag, max: maxAESText + gcmTag, iv: gcmNonce, aad: true, takes: tagSize, out: outDecryptGCM},
	SignPKCS1SHA256: {name: "SignPKCS1SHA256", fn: fnSign, mech: pkcs11.CKM_RSA_PKCS, class: classRSA, usage: UseSign,
		min: sha256.Size, max: sha256.Size, prefix: digestInfoSHA256, out: outModulus},
	SignPSSSHA256: {name: "SignPSSSHA256", fn: fnSign, mech: pkcs11.CKM_RSA_PKCS_PSS, param: pssSHA256, class: classRSA,
		usage: UseSign, min: sha256.Size, max: sha256.Size, out: outModulus},
	SignECDSA: {name: "SignECDSA", fn: fnSign, mech: pkcs11.CKM_ECDSA, class: classEC, usage: UseSign,
		min: 1, max: maxDigest, digest: true, out: outSignECDSA},
	DecryptOAEPSHA1: {name: "DecryptOAEPSHA1", fn: fnDecrypt, mech: pkcs11.CKM_RSA_PKCS_OAEP, hash: crypto.SHA1,
		class: classRSA, usage: UseEncrypt, modulus: true, out: outOAEPWith(crypto.SHA1)},
	DecryptOAEPSHA256: {name: "DecryptOAEPSHA256", fn: fnDecrypt, mech: pkcs11.CKM_RSA_PKCS_OAEP, hash: crypto.SHA256,
		class: classRSA, usage: UseEncrypt, modulus: true, out: outOAEPWith(crypto.SHA256)},

	SignPKCS1: {name: "SignPKCS1", fn: fnSign, mech: pkcs11.CKM_RSA_PKCS, class: classRSA, usage: UseSign,
		min: 1, pad: pkcs1Overhead, out: outModulus},
	SignPSS: {name: "SignPSS", fn: fnSign, mech: pkcs11.CKM_RSA_PKCS_PSS, class: classRSA, usage: UseSign,
		takes: hashAndSalt, out: outModulus},
	SignRaw: {name: "SignRaw", fn: fnSign, mech: pkcs11.CKM_RSA_X_509, class: classRSA, usage: UseSign,
		modulus: true, out: outModulus},
	DecryptOAEP: {name: "DecryptOAEP", fn: fnDecrypt, mech: pkcs11.CKM_RSA_PKCS_OAEP, class: classRSA, usage: UseEncrypt,
		modulus: true, takes: hashAndLabel, out: outOAEP},
	DecryptRaw: {name: "DecryptRaw", fn: fnDecrypt, mech: pkcs11.CKM_RSA_X_509, class: classRSA, usage: UseEncrypt,
		modulus: true, out: outModulus},
	EncryptECB: {name: "EncryptECB", fn: fnEncrypt, mech: pkcs11.CKM_AES_ECB, class: classAES, usage: UseEncrypt,
		min: aesBlock, max: maxAESText, blocks: true, out: outSame},
	DecryptECB: {name: "DecryptECB", fn: fnDecrypt, mech: pkcs11.CKM_AES_ECB, class: classAES, usage: UseEncrypt,
		min: aesBlock, max: maxAESText, blocks: true, out: outSame},
	EncryptCBC: {name: "EncryptCBC", fn: fnEncrypt, mech: pkcs11.CKM_AES_CBC, class: classAES, usage: UseEncrypt,
		min: aesBlock, max: maxAESText, blocks: true, iv: aesBlock, out: outSame},
	DecryptCBC: {name: "DecryptCBC", fn: fnDecrypt, mech: pkcs11.CKM_AES_CBC, class: classAES, usage: UseEncrypt,
		min: aesBlock, max: maxAESText, blocks: true, iv: aesBlock, out: outSame},
	CryptCTR: {name: "CryptCTR", fn: fnEncrypt, mech: pkcs11.CKM_AES_CTR, class: classAES, usage: UseEncrypt,
		min: 1, max: maxAESText, iv: aesBlock, out: outSame},

	opSealGCM: {name: "seal", fn: fnEncrypt, mech: pkcs11.CKM_AES_GCM, class: classAES, usage: UseEncrypt,
		max: maxSealed, iv: gcmNonce, aad: true, out: outEncryptGCM},
	opOpenGCM: {name: "open", fn: fnDecrypt, mech: pkcs11.CKM_AES_GCM, class: classAES, usage: UseEncrypt,
		min: gcmTag, max: maxSealed + gcmTag, iv: gcmNonce, aad: true, out: outDecryptGCM},
}

// opsOfJobs is how many numbers the operations of jobs take.
const opsOfJobs = int(CryptCTR) + 1

// Bounds of signatures, in octets: of a digest for ECDSA, and what PKCS #1 v1.5 adds at least (RFC 8017 §9.2).
const (
	maxDigest     = 64
	pkcs1Overhead = 11
)

// String names the operation.
func (o Op) String() string {
	if r, ok := ops[o]; ok {
		return r.name
	}
	switch o {
	case opGenerate:
		return "generate"
	case opProve:
		return "prove"
	case opGeneratePinned:
		return "generate pinned"
	case opDestroyPinned:
		return "destroy pinned"
	case opCheck:
		return "check"
	case opLoad:
		return "load"
	case opImport:
		return "import"
	case opImportPinned:
		return "import pinned"
	case opForget:
		return "forget"
	}
	return "unknown operation"
}

// input is what the call gets for in. It is made before a task is queued: after that nothing but the library reads what is
// the caller's.
//
// Of a digest the leftmost bits count, as many as the order has (FIPS 186-5 §6.4.1). Some modules refuse other lengths, some make a
// wrong signature, so they never see any: a long digest is cut, and a short one, a smaller number, gets zeros before it.
func (o Op) input(k KeyType, in []byte) []byte {
	r := ops[o]
	if r.prefix != nil {
		return append(append(make([]byte, 0, len(r.prefix)+len(in)), r.prefix...), in...)
	}
	if !r.digest {
		return in
	}
	size := keyTypes[k].octets // of the curves here the order has as many octets as a coordinate, and all bits of them
	switch {
	case len(in) > size:
		return in[:size]
	case len(in) < size:
		return append(make([]byte, size-len(in), size), in...)
	}
	return in
}

// digestInfoSHA256 is what PKCS#1 v1.5 puts before a SHA-256 digest (RFC 8017 §9.2, note 1).
var digestInfoSHA256 = []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
	0x05, 0x00, 0x04, 0x20}

// checkKey checks what a key says of itself.
func checkKey(k *Key) *Error {
	if k == nil {
		return badInput("a job without a key")
	}
	t, ok := keyTypes[k.Type]
	switch {
	case !ok:
		return badInput("key type %d is not known", k.Type)
	case !t.may(k.Usage):
		return badInput("a key of type %s can't have usage %#x", t.name, uint8(k.Usage))
	case k.ID == "" || len(k.ID) > maxKeyID:
		return badInput("a key needs an ID of at most %d octets", maxKeyID)
	case k.Member == "" && (len(k.Wrapped) < 24 || len(k.Wrapped) > maxWrapped || len(k.Wrapped)%8 != 0):
		return &Error{Kind: KindBadData, fate: fateData, Detail: "wrapped key of an impossible length"}
	case k.Member != "" && (len(k.ObjectID) == 0 || len(k.ObjectID) > maxObjectID):
		return badInput("a pinned key needs an object ID of at most %d octets", maxObjectID)
	}
	return nil
}

// Bounds of what names and holds a key, in octets. A PKCS#8 RSA-4096 key has about 2,400.
const (
	maxKeyID    = 128
	maxObjectID = 64
	maxWrapped  = 8 << 10
)

// checkInput checks a task that is one call on one key, with n octets of input before input() saw it.
func (t *task) checkInput(n int) *Error {
	r, ok := ops[t.op]
	if !ok {
		return badInput("operation %d is not known", t.op)
	}
	k := keyTypes[t.key.Type]
	if k.class != r.class || t.key.Usage&r.usage == 0 {
		return badInput("%s can't be done with a key of type %s and usage %#x", r.name, k.name, uint8(t.key.Usage))
	}
	if e := t.checkChoices(r, k); e != nil {
		return e
	}
	min, max := r.min, r.max
	switch {
	case r.modulus:
		min, max = k.octets, k.octets
	case r.pad > 0:
		max = k.octets - r.pad
	case r.takes == hashAndSalt:
		min = t.told.hash.Size()
		max = min
	case r.takes == tagSize && r.fn == fnDecrypt:
		min, max = t.tag(), maxAESText+t.tag()
	}
	if n < min || n > max || r.blocks && n%aesBlock != 0 {
		e := badInput("%s takes %d to %d octets, not %d", r.name, min, max, n)
		if r.fn == fnDecrypt {
			e.Kind = KindBadData // a ciphertext of that length is not valid, and that is all to say
		}
		return e
	}
	if len(t.nonce) != r.iv {
		// Of AES-GCM SoftHSM makes wrong ciphertext from long IVs, and any length but 12 costs security.
		return badInput("%s takes a nonce of %d octets, not %d", r.name, r.iv, len(t.nonce))
	}
	if !r.aad && len(t.aad) != 0 || len(t.aad) > maxGCMAAD {
		return badInput("%s does not take %d octets of AAD", r.name, len(t.aad))
	}
	return nil
}

// checkChoices checks what an operation is told besides data. A hash that is not known is no mistake: others may know it.
func (t *task) checkChoices(r *opRow, k keyTypeRow) *Error {
	c := t.choices()
	left := *c
	switch r.takes {
	case hashAndSalt, hashAndLabel:
		if hashPlace(c.hash) < 0 || hashPlace(c.mgf) < 0 {
			return errorf(KindUnsupported, fateData, "%s does not know these hashes", r.name)
		}
		left.hash, left.mgf = 0, 0
		if r.takes == hashAndLabel {
			if len(c.label) > maxLabel {
				return badInput("%s takes a label of at most %d octets, not %d", r.name, maxLabel, len(c.label))
			}
			left.label = nil
			break
		}
		// RFC 8017 §9.1.1, step 3; a modulus has whole octets here.
		if most := k.octets - c.hash.Size() - 2; c.salt < 0 || c.salt > most {
			return badInput("%s takes a salt of at most %d octets, not %d", r.name, most, c.salt)
		}
		left.salt = 0
	case tagSize:
		if b := c.tagBits; b != 0 && (b < 8*minGCMTag || b > 8*gcmTag || b%8 != 0) {
			return badInput("%s takes a tag of %d to %d bits, not %d", r.name, 8*minGCMTag, 8*gcmTag, b)
		}
		left.tagBits = 0
	}
	if !left.none() {
		return badInput("%s does not take what it was told", r.name)
	}
	return nil
}
