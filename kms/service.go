package kms

import (
	"context"

	"github.com/keyward/keyward/kms/kmswire"
)

// Service is the key management service. All its methods may be called at the same time.
type Service struct{}

// CreateKey is the action of that name.
func (s *Service) CreateKey(ctx context.Context, actor *Actor, req *kmswire.CreateKeyRequest) (*kmswire.CreateKeyResponse, error) {
	panic("contract")
}

// DescribeKey is the action of that name.
func (s *Service) DescribeKey(ctx context.Context, actor *Actor, req *kmswire.DescribeKeyRequest) (*kmswire.DescribeKeyResponse, error) {
	panic("contract")
}

// ListKeys is the action of that name.
func (s *Service) ListKeys(ctx context.Context, actor *Actor, req *kmswire.ListKeysRequest) (*kmswire.ListKeysResponse, error) {
	panic("contract")
}

// UpdateKeyDescription is the action of that name.
func (s *Service) UpdateKeyDescription(ctx context.Context, actor *Actor, req *kmswire.UpdateKeyDescriptionRequest) (*kmswire.EmptyResponse, error) {
	panic("contract")
}

// EnableKey is the action of that name.
func (s *Service) EnableKey(ctx context.Context, actor *Actor, req *kmswire.EnableKeyRequest) (*kmswire.EmptyResponse, error) {
	panic("contract")
}

// DisableKey is the action of that name.
func (s *Service) DisableKey(ctx context.Context, actor *Actor, req *kmswire.DisableKeyRequest) (*kmswire.EmptyResponse, error) {
	panic("contract")
}

// ListResourceTags is the action of that name.
func (s *Service) ListResourceTags(ctx context.Context, actor *Actor, req *kmswire.ListResourceTagsRequest) (*kmswire.ListResourceTagsResponse, error) {
	panic("contract")
}

// CreateKeyVersion is the action of that name.
func (s *Service) CreateKeyVersion(ctx context.Context, actor *Actor, req *kmswire.CreateKeyVersionRequest) (*kmswire.CreateKeyVersionResponse, error) {
	panic("contract")
}

// DescribeKeyVersion is the action of that name.
func (s *Service) DescribeKeyVersion(ctx context.Context, actor *Actor, req *kmswire.DescribeKeyVersionRequest) (*kmswire.DescribeKeyVersionResponse, error) {
	panic("contract")
}

// ListKeyVersions is the action of that name.
func (s *Service) ListKeyVersions(ctx context.Context, actor *Actor, req *kmswire.ListKeyVersionsRequest) (*kmswire.ListKeyVersionsResponse, error) {
	panic("contract")
}

// CreateAlias is the action of that name.
func (s *Service) CreateAlias(ctx context.Context, actor *Actor, req *kmswire.CreateAliasRequest) (*kmswire.EmptyResponse, error) {
	panic("contract")
}

// UpdateAlias is the action of that name.
func (s *Service) UpdateAlias(ctx context.Context, actor *Actor, req *kmswire.UpdateAliasRequest) (*kmswire.EmptyResponse, error) {
	panic("contract")
}

// DeleteAlias is the action of that name.
func (s *Service) DeleteAlias(ctx context.Context, actor *Actor, req *kmswire.DeleteAliasRequest) (*kmswire.EmptyResponse, error) {
	panic("contract")
}

// ListAliases is the action of that name.
func (s *Service) ListAliases(ctx context.Context, actor *Actor, req *kmswire.ListAliasesRequest) (*kmswire.ListAliasesResponse, error) {
	panic("contract")
}

// ListAliasesByKeyID is the action of that name.
func (s *Service) ListAliasesByKeyID(ctx context.Context, actor *Actor, req *kmswire.ListAliasesByKeyIDRequest) (*kmswire.ListAliasesResponse, error) {
	panic("contract")
}

// Encrypt is the action of that name.
func (s *Service) Encrypt(ctx context.Context, actor *Actor, req *kmswire.EncryptRequest) (*kmswire.EncryptResponse, error) {
	panic("contract")
}

// Decrypt is the action of that name.
func (s *Service) Decrypt(ctx context.Context, actor *Actor, req *kmswire.DecryptRequest) (*kmswire.DecryptResponse, error) {
	panic("contract")
}

// ReEncrypt is the action of that name.
func (s *Service) ReEncrypt(ctx context.Context, actor *Actor, req *kmswire.ReEncryptRequest) (*kmswire.ReEncryptResponse, error) {
	panic("contract")
}

// GenerateDataKey is the action of that name.
func (s *Service) GenerateDataKey(ctx context.Context, actor *Actor, req *kmswire.GenerateDataKeyRequest) (*kmswire.GenerateDataKeyResponse, error) {
	panic("contract")
}

// GenerateDataKeyWithoutPlaintext is the action of that name.
func (s *Service) GenerateDataKeyWithoutPlaintext(ctx context.Context, actor *Actor, req *kmswire.GenerateDataKeyWithoutPlaintextRequest) (*kmswire.GenerateDataKeyWithoutPlaintextResponse, error) {
	panic("contract")
}

// GenerateAndExportDataKey is the action of that name.
func (s *Service) GenerateAndExportDataKey(ctx context.Context, actor *Actor, req *kmswire.GenerateAndExportDataKeyRequest) (*kmswire.GenerateAndExportDataKeyResponse, error) {
	panic("contract")
}

// ExportDataKey is the action of that name.
func (s *Service) ExportDataKey(ctx context.Context, actor *Actor, req *kmswire.ExportDataKeyRequest) (*kmswire.ExportDataKeyResponse, error) {
	panic("contract")
}

// AsymmetricEncrypt is the action of that name.
func (s *Service) AsymmetricEncrypt(ctx context.Context, actor *Actor, req *kmswire.AsymmetricEncryptRequest) (*kmswire.AsymmetricEncryptResponse, error) {
	panic("contract")
}

// AsymmetricDecrypt is the action of that name.
func (s *Service) AsymmetricDecrypt(ctx context.Context, actor *Actor, req *kmswire.AsymmetricDecryptRequest) (*kmswire.AsymmetricDecryptResponse, error) {
	panic("contract")
}

// AsymmetricSign is the action of that name.
func (s *Service) AsymmetricSign(ctx context.Context, actor *Actor, req *kmswire.AsymmetricSignRequest) (*kmswire.AsymmetricSignResponse, error) {
	panic("contract")
}

// AsymmetricVerify is the action of that name.
func (s *Service) AsymmetricVerify(ctx context.Context, actor *Actor, req *kmswire.AsymmetricVerifyRequest) (*kmswire.AsymmetricVerifyResponse, error) {
	panic("contract")
}

// GetPublicKey is the action of that name.
func (s *Service) GetPublicKey(ctx context.Context, actor *Actor, req *kmswire.GetPublicKeyRequest) (*kmswire.GetPublicKeyResponse, error) {
	panic("contract")
}

// GetRandomPassword is the action of that name.
func (s *Service) GetRandomPassword(ctx context.Context, actor *Actor, req *kmswire.GetRandomPasswordRequest) (*kmswire.GetRandomPasswordResponse, error) {
	panic("contract")
}

// BatchEncrypt is the action of that name.
func (s *Service) BatchEncrypt(ctx context.Context, actor *Actor, req *kmswire.BatchEncryptRequest) (*kmswire.BatchEncryptResponse, error) {
	panic("contract")
}

// BatchDecrypt is the action of that name.
func (s *Service) BatchDecrypt(ctx context.Context, actor *Actor, req *kmswire.BatchDecryptRequest) (*kmswire.BatchDecryptResponse, error) {
	panic("contract")
}

// BatchSign is the action of that name.
func (s *Service) BatchSign(ctx context.Context, actor *Actor, req *kmswire.BatchSignRequest) (*kmswire.BatchSignResponse, error) {
	panic("contract")
}

// BatchVerify is the action of that name.
func (s *Service) BatchVerify(ctx context.Context, actor *Actor, req *kmswire.BatchVerifyRequest) (*kmswire.BatchVerifyResponse, error) {
	panic("contract")
}

// BatchGenerateDataKey is the action of that name.
func (s *Service) BatchGenerateDataKey(ctx context.Context, actor *Actor, req *kmswire.BatchGenerateDataKeyRequest) (*kmswire.BatchGenerateDataKeyResponse, error) {
	panic("contract")
}

// ListKmsInstances is the action of that name.
func (s *Service) ListKmsInstances(ctx context.Context, actor *Actor, req *kmswire.ListKmsInstancesRequest) (*kmswire.ListKmsInstancesResponse, error) {
	panic("contract")
}

// DescribeRegions is the action of that name.
func (s *Service) DescribeRegions(ctx context.Context, actor *Actor, req *kmswire.DescribeRegionsRequest) (*kmswire.DescribeRegionsResponse, error) {
	panic("contract")
}
