package kmswire

import "encoding/json"

// ErrorBody is the body of every error answer (reference section 1.10).
type ErrorBody struct {
	RequestID  string `json:"RequestId"`
	HostID     string `json:"HostId"`
	Code       string
	Message    string
	Recommend  string
	HTTPStatus int `json:"HttpStatus"`
}

// --- keys

type CreateKeyRequest struct {
	DKMSInstanceID          string          `param:"DKMSInstanceId"`
	KeySpec                 KeySpec         `param:"KeySpec"`
	KeyUsage                KeyUsage        `param:"KeyUsage"`
	Origin                  string          `param:"Origin"`
	ProtectionLevel         string          `param:"ProtectionLevel"`
	KeyStorageMechanism     string          `param:"KeyStorageMechanism"`
	Description             string          `param:"Description"`
	EnableAutomaticRotation bool            `param:"EnableAutomaticRotation"`
	RotationInterval        string          `param:"RotationInterval"`
	Policy                  json.RawMessage `param:"Policy"`
	Tags                    json.RawMessage `param:"Tags"`
	AliasName               string          `param:"AliasName"`         // keyward: create and name in one step
	SecondaryKeyUsage       KeyUsage        `param:"SecondaryKeyUsage"` // keyward
	ExternalKeyID           string          `param:"ExternalKeyId"`     // keyward
	ClientToken             string          `param:"ClientToken"`       // keyward: same token, same key, for 24 h
}

type CreateKeyResponse struct {
	Answer
	KeyMetadata KeyMetadata
}

type DescribeKeyRequest struct {
	KeyID string `param:"KeyId,required"`
}

type DescribeKeyResponse struct {
	Answer
	KeyMetadata KeyMetadata
}

type ListKeysRequest struct {
	Page
	Filters json.RawMessage `param:"Filters"`
}

type KeySummary struct {
	KeyID  string `json:"KeyId"`
	KeyArn string
}

type ListKeysResponse struct {
	Answer
	Paged
	Keys struct{ Key []KeySummary }
}

type UpdateKeyDescriptionRequest struct {
	KeyID       string `param:"KeyId,required"`
	Description string `param:"Description,present"` // empty clears it
}

type EnableKeyRequest struct {
	KeyID string `param:"KeyId,required"`
}

type DisableKeyRequest struct {
	KeyID string `param:"KeyId,required"`
}

type ListResourceTagsRequest struct {
	KeyID string `param:"KeyId,required"`
}

type ResourceTag struct {
	KeyID    string `json:"KeyId"`
	TagKey   string
	TagValue string
}

type ListResourceTagsResponse struct {
	Answer
	Tags struct{ Tag []ResourceTag }
}

// --- versions

type CreateKeyVersionRequest struct {
	KeyID string `param:"KeyId,required"`
}

type CreateKeyVersionResponse struct {
	Answer
	KeyVersion KeyVersion
}

type DescribeKeyVersionRequest struct {
	KeyID        string `param:"KeyId,required"`
	KeyVersionID string `param:"KeyVersionId,required"`
}

type DescribeKeyVersionResponse struct {
	Answer
	KeyVersion KeyVersion
}

type ListKeyVersionsRequest struct {
	KeyID string `param:"KeyId,required"`
	Page
}

type ListKeyVersionsResponse struct {
	Answer
	Paged
	KeyVersions struct{ KeyVersion []KeyVersion }
}

// --- aliases

type CreateAliasRequest struct {
	AliasName string `param:"AliasName,required"`
	KeyID     string `param:"KeyId,required"`
}

type UpdateAliasRequest struct {
	AliasName string `param:"AliasName,required"`
	KeyID     string `param:"KeyId,required"`
}

type DeleteAliasRequest struct {
	AliasName string `param:"AliasName,required"`
}

type ListAliasesRequest struct {
	Page
}

type ListAliasesByKeyIDRequest struct {
	KeyID string `param:"KeyId,required"`
	Page
}

type ListAliasesResponse struct {
	Answer
	Paged
	Aliases struct{ Alias []Alias }
}

// --- symmetric use

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

// --- asymmetric use

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

type GetPublicKeyRequest struct {
	KeyID        string `param:"KeyId,required"`
	KeyVersionID string `param:"KeyVersionId,required"`
	DryRun       bool   `param:"DryRun"`
}

type GetPublicKeyResponse struct {
	Answer
	KeyID        string `json:"KeyId"`
	KeyVersionID string `json:"KeyVersionId"`
	PublicKey    string // PEM SubjectPublicKeyInfo
}

type GetRandomPasswordRequest struct {
	PasswordLength          *int   `param:"PasswordLength"` // 8..128, default 32
	ExcludeCharacters       string `param:"ExcludeCharacters"`
	ExcludeLowercase        bool   `param:"ExcludeLowercase"`
	ExcludeUppercase        bool   `param:"ExcludeUppercase"`
	ExcludeNumbers          bool   `param:"ExcludeNumbers"`
	ExcludePunctuation      bool   `param:"ExcludePunctuation"`
	RequireEachIncludedType bool   `param:"RequireEachIncludedType"`
}

type GetRandomPasswordResponse struct {
	Answer
	RandomPassword string
}

// --- batches (keyward): Items travel in the body, everything else as parameters

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

// --- instances

type ListKmsInstancesRequest struct {
	Page
}

type KmsInstanceSummary struct {
	KmsInstanceID   string `json:"KmsInstanceId"`
	KmsInstanceArn  string
	KmsInstanceType string // keyward: software, hardware or external
}

type ListKmsInstancesResponse struct {
	Answer
	Paged
	KmsInstances struct{ KmsInstance []KmsInstanceSummary }
}

type DescribeRegionsRequest struct{}

type DescribeRegionsResponse struct {
	Answer
	Regions struct{ Region []Region }
}

type Region struct {
	RegionID string `json:"RegionId"`
}

// EmptyResponse is the answer of actions that only say that they worked.
type EmptyResponse struct {
	Answer
}
