package kmswire

// The actions that use asymmetric keys.

type AsymmetricEncryptRequest struct {
	KeyID        string    `param:"KeyId,required"`
	KeyVersionID string    `param:"KeyVersionId,required"`
	Algorithm    Algorithm `param:"Algorithm,required"`
	Plaintext    []byte    `param:"Plaintext,required"`
	DryRun       bool      `param:"DryRun"`
}

type AsymmetricEncryptResponse = EncryptResponse

type AsymmetricDecryptRequest struct {
	KeyID          string    `param:"KeyId,required"`
	KeyVersionID   string    `param:"KeyVersionId,required"`
	Algorithm      Algorithm `param:"Algorithm,required"`
	CiphertextBlob []byte    `param:"CiphertextBlob,required"`
	DryRun         bool      `param:"DryRun"`
}

type AsymmetricDecryptResponse = DecryptResponse

type AsymmetricSignRequest struct {
	KeyID        string    `param:"KeyId,required"`
	KeyVersionID string    `param:"KeyVersionId,required"`
	Algorithm    Algorithm `param:"Algorithm,required"`
	Digest       []byte    `param:"Digest,required"`
	DryRun       bool      `param:"DryRun"`
}

type AsymmetricSignResponse struct {
	Answer
	KeyID        string `json:"KeyId"`
	KeyVersionID string `json:"KeyVersionId"`
	Value        []byte
}

type AsymmetricVerifyRequest struct {
	KeyID        string    `param:"KeyId,required"`
	KeyVersionID string    `param:"KeyVersionId,required"`
	Algorithm    Algorithm `param:"Algorithm,required"`
	Digest       []byte    `param:"Digest,required"`
	Value        []byte    `param:"Value,required"`
	DryRun       bool      `param:"DryRun"`
}

type AsymmetricVerifyResponse struct {
	Answer
	KeyID        string `json:"KeyId"`
	KeyVersionID string `json:"KeyVersionId"`
	Value        bool
}
