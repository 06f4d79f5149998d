package hsmpool

import (
	"crypto/sha256"

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

// Limits of AES-GCM here, in octets. The service asks for less.
const (
	maxGCMText = 64 << 10
	maxGCMAAD  = 64 << 10
	gcmNonce   = 12
	gcmTag     = 16
)

// opRow is what there is to know of an Op. SoftHSM ends the process for some parameters that don't fit a key, so all of
// it is checked before a call.
type opRow struct {
	name  string
	fn    function
	mech  uint
	param []byte // nil, or the mechanism parameter; GCM's is made for each call
	class keyClass
	usage Usage // the key must have it

	// Input: between min and max octets; the length of the modulus in place of both when modulus is set.
	min, max int
	modulus  bool
	prefix   []byte // what the call gets before the input

	// out gives the expected length of the output, or its largest and exact false.
	out func(t keyTypeRow, in int) (n int, exact bool)
}

func outModulus(t keyTypeRow, _ int) (int, bool) { return t.octets, true }

var (
	oaepSHA1   = oaepParam(pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1)
	oaepSHA256 = oaepParam(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256)
	pssSHA256  = ulongs(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, sha256.Size)
)

func outEncryptGCM(_ keyTypeRow, in int) (int, bool) { return in + gcmTag, true }

func outDecryptGCM(_ keyTypeRow, in int) (int, bool) { return in - gcmTag, true }

func outSignECDSA(t keyTypeRow, _ int) (int, bool) { return 2 * t.octets, true }

func outOAEP(hash int) func(keyTypeRow, int) (int, bool) {
	return func(t keyTypeRow, _ int) (int, bool) { return t.octets - 2*hash - 2, false }
}

// ops has a row for each Op that is one call on one key.
var ops = map[Op]opRow{
	EncryptGCM: {name: "EncryptGCM", fn: fnEncrypt, mech: pkcs11.CKM_AES_GCM, class: classAES, usage: UseEncrypt,
		max: maxGCMText, out: outEncryptGCM},
	DecryptGCM: {name: "DecryptGCM", fn: fnDecrypt, mech: pkcs11.CKM_AES_GCM, class: classAES, usage: UseEncrypt,
		min: gcmTag, max: maxGCMText + gcmTag, out: outDecryptGCM},
	SignPKCS1SHA256: {name: "SignPKCS1SHA256", fn: fnSign, mech: pkcs11.CKM_RSA_PKCS, class: classRSA, usage: UseSign,
		min: sha256.Size, max: sha256.Size, prefix: digestInfoSHA256, out: outModulus},
	SignPSSSHA256: {name: "SignPSSSHA256", fn: fnSign, mech: pkcs11.CKM_RSA_PKCS_PSS, param: pssSHA256, class: classRSA,
		usage: UseSign, min: sha256.Size, max: sha256.Size, out: outModulus},
	SignECDSA: {name: "SignECDSA", fn: fnSign, mech: pkcs11.CKM_ECDSA, class: classEC, usage: UseSign,
		min: sha256.Size, max: sha256.Size, out: outSignECDSA},
	DecryptOAEPSHA1: {name: "DecryptOAEPSHA1", fn: fnDecrypt, mech: pkcs11.CKM_RSA_PKCS_OAEP, param: oaepSHA1,
		class: classRSA, usage: UseEncrypt, modulus: true, out: outOAEP(20)},
	DecryptOAEPSHA256: {name: "DecryptOAEPSHA256", fn: fnDecrypt, mech: pkcs11.CKM_RSA_PKCS_OAEP, param: oaepSHA256,
		class: classRSA, usage: UseEncrypt, modulus: true, out: outOAEP(32)},
	opSealGCM: {name: "seal", fn: fnEncrypt, mech: pkcs11.CKM_AES_GCM, class: classAES, usage: UseEncrypt,
		max: maxSealed, out: outEncryptGCM},
	opOpenGCM: {name: "open", fn: fnDecrypt, mech: pkcs11.CKM_AES_GCM, class: classAES, usage: UseEncrypt,
		min: gcmTag, max: maxSealed + gcmTag, out: outDecryptGCM},
}

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
func (o Op) input(in []byte) []byte {
	p := ops[o].prefix
	if p == nil {
		return in
	}
	return append(append(make([]byte, 0, len(p)+len(in)), p...), in...)
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

// checkInput checks a job that is one call on one key.
func checkInput(o Op, k *Key, in, nonce, aad []byte) *Error {
	r, ok := ops[o]
	if !ok {
		return badInput("operation %d is not known", o)
	}
	t := keyTypes[k.Type]
	if t.class != r.class || k.Usage&r.usage == 0 {
		return badInput("%s can't be done with a key of type %s and usage %#x", r.name, k.Type, uint8(k.Usage))
	}
	min, max := r.min, r.max
	if r.modulus {
		min, max = t.octets, t.octets
	}
	if len(in) < min || len(in) > max {
		e := badInput("%s takes %d to %d octets, not %d", r.name, min, max, len(in))
		if r.fn == fnDecrypt {
			e.Kind = KindBadData // a ciphertext of that length is not valid, and that is all to say
		}
		return e
	}
	if r.mech == pkcs11.CKM_AES_GCM {
		// SoftHSM makes wrong ciphertext from long IVs, and any length but 12 costs security.
		if len(nonce) != gcmNonce {
			return badInput("%s takes a nonce of %d octets, not %d", r.name, gcmNonce, len(nonce))
		}
		if len(aad) > maxGCMAAD {
			return badInput("%s takes at most %d octets of AAD, not %d", r.name, maxGCMAAD, len(aad))
		}
	} else if len(nonce) != 0 || len(aad) != 0 {
		return badInput("%s takes neither nonce nor AAD", r.name)
	}
	return nil
}
