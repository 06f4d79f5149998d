package hsmpool

import "context"

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

// ImportRequest says what is to be imported as what.
type ImportRequest struct {
	Transport  *Key // as GenerateTransport made it: RSA2048, UseUnwrap, Wrapped
	Algorithm  ImportAlgorithm
	Ciphertext []byte
	Type       KeyType
	Usage      Usage
	Member     string // of a pinned key: the member whose token is to hold it
	ObjectID   []byte // of a pinned key: CKA_ID
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

// GenerateTransport makes an RSA2048 pair that does nothing but unwrap what Import brings in. Its private half is wrapped
// like that of a key that Generate makes.
func (p *Pool) GenerateTransport(ctx context.Context) (*Generated, error) {
	return nil, errorf(KindUnsupported, fateData, "not implemented")
}

// Import makes a key of material that somebody has encrypted under a transport key's public half. Material that is not
// what it should be gives KindBadData, whatever is wrong. With Member it makes a token object there, like GeneratePinned:
// it is not repeated by itself once the object may be there, and after KindUnavailable DestroyPinned makes sure.
func (p *Pool) Import(ctx context.Context, r *ImportRequest) (*Imported, error) {
	return nil, errorf(KindUnsupported, fateData, "not implemented")
}
