package kmswire

// Batches are keyward's own: Items travel in the body, everything else as parameters.

// ItemError stands in an item's place when that item failed. Its neighbours are not touched by it. The service sets
// Err only; the API door renders it as Code and Message, from the table that it has for whole calls.
type ItemError struct {
	Code    string
	Message string
	Err     error `json:"-"`
}

type BatchEncryptRequest struct {
	KeyID             string            `param:"KeyId,required"`
	EncryptionContext map[string]string `param:"EncryptionContext"` // for items that carry none
	DryRun            bool              `param:"DryRun"`
	Items             []BatchEncryptItem
}

type BatchEncryptItem struct {
	Plaintext         []byte
	EncryptionContext map[string]string `json:",omitempty"`
}

// BatchEncryptResult has either CiphertextBlob or an error.
type BatchEncryptResult struct {
	CiphertextBlob []byte `json:",omitempty"`
	*ItemError
}

type BatchEncryptResponse struct {
	Answer
	KeyID        string `json:"KeyId"`
	KeyVersionID string `json:"KeyVersionId"`
	Items        []BatchEncryptResult
}

type BatchDecryptRequest struct {
	EncryptionContext map[string]string `param:"EncryptionContext"`
	DryRun            bool              `param:"DryRun"`
	Items             []BatchDecryptItem
}

type BatchDecryptItem struct {
	CiphertextBlob    []byte
	EncryptionContext map[string]string `json:",omitempty"`
}

type BatchDecryptResult struct {
	KeyID        string `json:"KeyId,omitempty"`
	KeyVersionID string `json:"KeyVersionId,omitempty"`
	Plaintext    []byte `json:",omitempty"`
	*ItemError
}

type BatchDecryptResponse struct {
	Answer
	Items []BatchDecryptResult
}

type BatchSignRequest struct {
	KeyID        string    `param:"KeyId,required"`
	KeyVersionID string    `param:"KeyVersionId,required"`
	Algorithm    Algorithm `param:"Algorithm,required"`
	DryRun       bool      `param:"DryRun"`
	Items        []BatchSignItem
}

type BatchSignItem struct {
	Digest []byte
}

type BatchSignResult struct {
	Value []byte `json:",omitempty"`
	*ItemError
}

type BatchSignResponse struct {
	Answer
	KeyID        string `json:"KeyId"`
	KeyVersionID string `json:"KeyVersionId"`
	Items        []BatchSignResult
}

type BatchVerifyRequest struct {
	KeyID        string    `param:"KeyId,required"`
	KeyVersionID string    `param:"KeyVersionId,required"`
	Algorithm    Algorithm `param:"Algorithm,required"`
	DryRun       bool      `param:"DryRun"`
	Items        []BatchVerifyItem
}

type BatchVerifyItem struct {
	Digest []byte
	Value  []byte
}

// BatchVerifyResult has Value, or an error and no Value.
type BatchVerifyResult struct {
	Value *bool `json:",omitempty"`
	*ItemError
}

type BatchVerifyResponse struct {
	Answer
	Items []BatchVerifyResult
}

type BatchGenerateDataKeyRequest struct {
	KeyID             string            `param:"KeyId,required"`
	KeySpec           string            `param:"KeySpec"`
	NumberOfBytes     *int              `param:"NumberOfBytes"`
	Count             int               `param:"Count,required"` // 1..1000
	EncryptionContext map[string]string `param:"EncryptionContext"`
	WithoutPlaintext  bool              `param:"WithoutPlaintext"`
	DryRun            bool              `param:"DryRun"`
}

type BatchDataKey struct {
	Plaintext      []byte `json:",omitempty"`
	CiphertextBlob []byte `json:",omitempty"`
	*ItemError
}

type BatchGenerateDataKeyResponse struct {
	Answer
	KeyID        string `json:"KeyId"`
	KeyVersionID string `json:"KeyVersionId"`
	Items        []BatchDataKey
}
