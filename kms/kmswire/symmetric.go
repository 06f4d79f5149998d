package kmswire

// The actions that use symmetric keys.

type EncryptRequest struct {
	KeyID             string            `param:"KeyId,required"`
	Plaintext         []byte            `param:"Plaintext,required"`
	EncryptionContext map[string]string `param:"EncryptionContext"`
	DryRun            bool              `param:"DryRun"`
}

type EncryptResponse struct {
	Answer
	KeyID          string `json:"KeyId"`
	KeyVersionID   string `json:"KeyVersionId"`
	CiphertextBlob []byte
}

type DecryptRequest struct {
	CiphertextBlob    []byte            `param:"CiphertextBlob,required"`
	EncryptionContext map[string]string `param:"EncryptionContext"`
	Recipient         string            `param:"Recipient"` // not supported
	DryRun            bool              `param:"DryRun"`
}

type DecryptResponse struct {
	Answer
	KeyID        string `json:"KeyId"`
	KeyVersionID string `json:"KeyVersionId"`
	Plaintext    []byte
}

type ReEncryptRequest struct {
	CiphertextBlob               []byte            `param:"CiphertextBlob,required"`
	DestinationKeyID             string            `param:"DestinationKeyId,required"`
	DestinationEncryptionContext map[string]string `param:"DestinationEncryptionContext"`
	SourceEncryptionContext      map[string]string `param:"SourceEncryptionContext"`
	SourceKeyID                  string            `param:"SourceKeyId"`               // public-key sources only
	SourceKeyVersionID           string            `param:"SourceKeyVersionId"`        // public-key sources only
	SourceEncryptionAlgorithm    Algorithm         `param:"SourceEncryptionAlgorithm"` // public-key sources only
	DryRun                       bool              `param:"DryRun"`
}

type ReEncryptResponse = EncryptResponse

type GenerateDataKeyRequest struct {
	KeyID             string            `param:"KeyId,required"`
	KeySpec           string            `param:"KeySpec"`       // AES_256 or AES_128
	NumberOfBytes     *int              `param:"NumberOfBytes"` // 1..1024; wins over KeySpec
	EncryptionContext map[string]string `param:"EncryptionContext"`
	Recipient         string            `param:"Recipient"` // not supported
	DryRun            bool              `param:"DryRun"`
}

type GenerateDataKeyResponse struct {
	Answer
	KeyID          string `json:"KeyId"`
	KeyVersionID   string `json:"KeyVersionId"`
	Plaintext      []byte
	CiphertextBlob []byte
}

type GenerateDataKeyWithoutPlaintextRequest struct {
	KeyID             string            `param:"KeyId,required"`
	KeySpec           string            `param:"KeySpec"`
	NumberOfBytes     *int              `param:"NumberOfBytes"`
	EncryptionContext map[string]string `param:"EncryptionContext"`
	DryRun            bool              `param:"DryRun"`
}

type GenerateDataKeyWithoutPlaintextResponse = EncryptResponse

type GenerateAndExportDataKeyRequest struct {
	KeyID             string            `param:"KeyId,required"`
	PublicKeyBlob     []byte            `param:"PublicKeyBlob,required"` // DER SubjectPublicKeyInfo, or PEM of it
	WrappingAlgorithm Algorithm         `param:"WrappingAlgorithm,required"`
	WrappingKeySpec   KeySpec           `param:"WrappingKeySpec,required"`
	KeySpec           string            `param:"KeySpec"`
	NumberOfBytes     *int              `param:"NumberOfBytes"`
	EncryptionContext map[string]string `param:"EncryptionContext"`
	DryRun            bool              `param:"DryRun"`
}

type GenerateAndExportDataKeyResponse struct {
	Answer
	KeyID           string `json:"KeyId"`
	KeyVersionID    string `json:"KeyVersionId"`
	CiphertextBlob  []byte
	ExportedDataKey []byte
}

type ExportDataKeyRequest struct {
	CiphertextBlob    []byte            `param:"CiphertextBlob,required"`
	PublicKeyBlob     []byte            `param:"PublicKeyBlob,required"`
	WrappingAlgorithm Algorithm         `param:"WrappingAlgorithm,required"`
	WrappingKeySpec   KeySpec           `param:"WrappingKeySpec,required"`
	EncryptionContext map[string]string `param:"EncryptionContext"`
	DryRun            bool              `param:"DryRun"`
}

type ExportDataKeyResponse struct {
	Answer
	KeyID           string `json:"KeyId"`
	KeyVersionID    string `json:"KeyVersionId"`
	ExportedDataKey []byte
}
