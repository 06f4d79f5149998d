package kmswire

import "encoding/json"

// The actions that make keys, show them, and move them through their life. EnableDefaultKey is keyward's own.

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

// ScheduleKeyDeletionRequest asks for the key to be destroyed when PendingWindowInDays, 7 to 366, are over.
type ScheduleKeyDeletionRequest struct {
	KeyID               string `param:"KeyId,required"`
	PendingWindowInDays int    `param:"PendingWindowInDays,required"`
}

type CancelKeyDeletionRequest struct {
	KeyID string `param:"KeyId,required"`
}

// SetDeletionProtectionRequest names exactly one of ProtectedResourceArn, KeyID and KmsInstanceID.
type SetDeletionProtectionRequest struct {
	ProtectedResourceArn          string `param:"ProtectedResourceArn"` // of a key
	KeyID                         string `param:"KeyId"`
	KmsInstanceID                 string `param:"KmsInstanceId"`
	EnableDeletionProtection      bool   `param:"EnableDeletionProtection,required"`
	DeletionProtectionDescription string `param:"DeletionProtectionDescription"` // only when it is switched on
}

type EnableDefaultKeyRequest struct{}

type EnableDefaultKeyResponse struct {
	Answer
	KeyMetadata KeyMetadata
}
