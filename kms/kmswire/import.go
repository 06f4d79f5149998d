package kmswire

// The actions that bring key material from outside.

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
