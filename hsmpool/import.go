package hsmpool

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/miekg/pkcs11"
)

// ImportAlgorithm is how material that is to be imported is encrypted under a transport key. OAEP has an empty label and
// MGF1 with the same hash.
type ImportAlgorithm uint8

// The import algorithms. The first three take AES material only, which is the message; the last two take the layout of
// CKM_RSA_AES_KEY_WRAP, for material of every type: the RSA block with a temporary AES key, then the material under that
// by AES key wrap with padding (RFC 5649). AES material is the key's octets, a private key is its PKCS#8 DER.
const (
	ImportPKCS1         ImportAlgorithm = iota + 1 // RSAES_PKCS1_V1_5
	ImportOAEPSHA1                                 // RSAES_OAEP_SHA_1
	ImportOAEPSHA256                               // RSAES_OAEP_SHA_256
	ImportOAEPSHA1KWP                              // RSAES_OAEP_SHA_1, then AES-KWP
	ImportOAEPSHA256KWP                            // RSAES_OAEP_SHA_256, then AES-KWP
)

// importRow is what there is to know of an ImportAlgorithm.
type importRow struct {
	name   string
	mech   uint
	param  []byte // of mech
	sha256 bool   // a module may have it with SHA-1 only
	kwp    bool   // the RSA block has a temporary key for AES-KWP
}

// imports has a row for each ImportAlgorithm.
var imports = map[ImportAlgorithm]importRow{
	ImportPKCS1:         {"RSAES_PKCS1_V1_5", pkcs11.CKM_RSA_PKCS, nil, false, false},
	ImportOAEPSHA1:      {"RSAES_OAEP_SHA_1", pkcs11.CKM_RSA_PKCS_OAEP, oaepSHA1, false, false},
	ImportOAEPSHA256:    {"RSAES_OAEP_SHA_256", pkcs11.CKM_RSA_PKCS_OAEP, oaepSHA256, true, false},
	ImportOAEPSHA1KWP:   {"RSAES_OAEP_SHA_1 and AES-KWP", pkcs11.CKM_RSA_PKCS_OAEP, oaepSHA1, false, true},
	ImportOAEPSHA256KWP: {"RSAES_OAEP_SHA_256 and AES-KWP", pkcs11.CKM_RSA_PKCS_OAEP, oaepSHA256, true, true},
}

// String names the algorithm.
func (a ImportAlgorithm) String() string {
	if r, ok := imports[a]; ok {
		return r.name
	}
	return fmt.Sprintf("import algorithm %d", uint8(a))
}

// ImportRequest says what is to be imported as what.
type ImportRequest struct {
	Transport  *Key // of what GenerateTransport made: RSA2048, UseUnwrap, Wrapped
	Algorithm  ImportAlgorithm
	Ciphertext []byte // must not change meanwhile
	Type       KeyType
	Usage      Usage
	Member     string // of a pinned key: the member whose token is to hold it
	ObjectID   []byte // of a pinned key: CKA_ID

	// Same says whether the material with this Imported.Check is the one that is wanted; nil if any is. Other material gives
	// KindBadData, after the same work in the HSM as material that is not good at all.
	Same func(check []byte) bool
}

// Imported is an imported key.
type Imported struct {
	Wrapped   []byte // wrapped keys: the material under the wrap key
	Member    string // pinned keys: where it is
	ObjectID  []byte // pinned keys: CKA_ID
	PublicKey []byte // asymmetric keys: DER SubjectPublicKeyInfo

	// Check is 32 octets that are the same for the same material of the same type and for no other, and tell nothing of it.
	// It is not secret.
	Check []byte
}

// Import makes a key of material that somebody has encrypted under a transport key's public half. Material that is not
// what it should be gives KindBadData: another size, type or curve, a private key that does not fit its public key, a
// public exponent under 65537. With Member it makes a token object there, like GeneratePinned: that is never repeated by
// itself once the object may be there, and after KindUnavailable DestroyPinned makes sure.
//
// PKCS#1 v1.5 gives one error whatever was wrong, other material than Same wants too, and does the same work; but that material was good shows, as a key then
// is there. So a caller must let only those import who may make keys, and should offer OAEP first.
func (p *Pool) Import(ctx context.Context, r *ImportRequest) (*Imported, error) {
	key := &Key{ID: newName("import"), Type: r.Type, Usage: r.Usage, Member: r.Member, ObjectID: r.ObjectID}
	if e := checkImport(key, r.Transport, r.Algorithm, r.Ciphertext); e != nil {
		return nil, e
	}
	made := &ticket{task: task{op: opImport, key: key, in: r.Ciphertext, from: r.Transport, algorithm: r.Algorithm}}
	if r.Member != "" {
		var e *Error
		if made.only, e = p.memberNamed(r.Member); e != nil {
			return nil, e
		}
		if r.Same != nil { // it is looked at before there is an object
			tried := &ticket{task: made.task, only: made.only}
			tried.key = &Key{ID: newName("import"), Type: r.Type, Usage: r.Usage}
			if e := p.do(ctx, tried); e != nil {
				return nil, e
			}
			if !r.Same(checkOf(tried)) {
				return nil, otherMaterial(tried)
			}
		}
		made.op = opImportPinned
	}
	if e := p.do(ctx, made); e != nil {
		return nil, e
	}
	i := &Imported{Wrapped: made.out, Member: r.Member, ObjectID: r.ObjectID, Check: checkOf(made)}
	if len(i.Check) != checkSize {
		return nil, errImpossible
	}
	if r.Same != nil && !r.Same(i.Check) {
		return nil, otherMaterial(made)
	}
	if r.Member == "" {
		if e := p.proveElsewhere(ctx, made); e != nil {
			return nil, e
		}
	}
	if keyTypes[r.Type].class != classAES {
		i.PublicKey = made.pub
	}
	return i, nil
}

// otherMaterial is badMaterial as the worker would have given it.
func otherMaterial(made *ticket) *Error {
	e := badMaterial()
	e.Member = made.to.m.cfg.Name
	return e
}

// checkOf gives the Check of material that was imported.
func checkOf(made *ticket) []byte {
	if keyTypes[made.key.Type].class == classAES {
		return made.pub
	}
	sum := sha256.Sum256(made.pub)
	return sum[:]
}

// checkImport checks an import before anything is called.
func checkImport(k, transport *Key, a ImportAlgorithm, ciphertext []byte) *Error {
	row, ok := imports[a]
	if !ok {
		return badInput("%s is not known", a)
	}
	if e := checkKey(transport); e != nil {
		return e
	}
	if e := checkTransport(transport); e != nil {
		return e
	}
	if transport.Member != "" {
		return badInput("a transport key is wrapped, not pinned")
	}
	if e := checkNew(k); e != nil {
		return e
	}
	switch {
	case k.ID == "" || len(k.ID) > maxKeyID:
		return badInput("a key needs an ID of at most %d octets", maxKeyID)
	case k.Member != "" && (len(k.ObjectID) == 0 || len(k.ObjectID) > maxObjectID):
		return badInput("an object ID has 1 to %d octets, not %d", maxObjectID, len(k.ObjectID))
	case k.Member == "" && len(k.ObjectID) != 0:
		return badInput("an object ID without a member")
	case !row.kwp && keyTypes[k.Type].class != classAES:
		return badInput("a key of type %s is not imported with %s, which takes a few octets only", k.Type, a)
	}
	block, rest := keyTypes[transport.Type].octets, len(ciphertext)-keyTypes[transport.Type].octets
	// The shortest material of AES-KWP here has 16 octets.
	if !row.kwp && rest != 0 || row.kwp && (rest < 24 || rest > maxWrapped || rest%8 != 0) {
		e := badInput("%s gives %d octets%s, not %d", a, block, map[bool]string{true: " and some in eights"}[row.kwp], len(ciphertext))
		e.Kind = KindBadData
		return e
	}
	return nil
}
