package kmswire

// The actions that bring key material from outside.

// How material is wrapped. Those with RSAES in front are one block of RSA, into which only the material of a symmetric key fits:
// OAEP has an empty label and MGF1 with the same hash. The two with AES_256_KWP are keyward's own and for private keys: one block
// of OAEP with a temporary AES key, then the material under that by AES key wrap with padding (RFC 5649), which is the
// layout of CKM_RSA_AES_KEY_WRAP. A private key is its PKCS#8 DER. RSAES_OAEP_SHA_1 and _SHA_256 are RSAOAEPSHA1 and RSAOAEPSHA256.
const (
	WrapPKCS1         Algorithm = "RSAES_PKCS1_V1_5"
	WrapOAEPSHA1KWP   Algorithm = "RSA_OAEP_SHA_1_AES_256_KWP"
	WrapOAEPSHA256KWP Algorithm = "RSA_OAEP_SHA_256_AES_256_KWP"
)

// MaxImportToken bounds an import token, in octets.
const MaxImportToken = 4096

type GetParametersForImportRequest struct {
	KeyID             string    `param:"KeyId,required"`
	WrappingAlgorithm Algorithm `param:"WrappingAlgorithm,required"`
	WrappingKeySpec   KeySpec   `param:"WrappingKeySpec,required"`
}

type GetParametersForImportResponse struct {
	Answer
	KeyID           string `json:"KeyId"`
	PublicKey       []byte // DER SubjectPublicKeyInfo
	ImportToken     []byte
	TokenExpireTime string
}

// ImportKeyMaterialRequest carries material under the public key of GetParametersForImport.
type ImportKeyMaterialRequest struct {
	KeyID                 string `param:"KeyId,required"`
	EncryptedKeyMaterial  []byte `param:"EncryptedKeyMaterial,required"`
	ImportToken           []byte `param:"ImportToken,required"`
	KeyMaterialExpireUnix *int   `param:"KeyMaterialExpireUnix"` // seconds since 1970; 0 or left out: never
}

type DeleteKeyMaterialRequest struct {
	KeyID string `param:"KeyId,required"`
}
