package kms

import (
	"context"

	"github.com/keyward/keyward/kms/kmswire"
)

// GetParametersForImport makes a key pair to wrap key material with, and a token that belongs to it.
func (s *Service) GetParametersForImport(ctx context.Context, actor *Actor, req *kmswire.GetParametersForImportRequest) (*kmswire.GetParametersForImportResponse, error) {
	return audited(s, ctx, actor, actGetParametersForImport, false, notAvailable[kmswire.GetParametersForImportResponse])
}

// ImportKeyMaterial gives a key the material that the caller has wrapped.
func (s *Service) ImportKeyMaterial(ctx context.Context, actor *Actor, req *kmswire.ImportKeyMaterialRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actImportKeyMaterial, false, notAvailable[kmswire.EmptyResponse])
}

// DeleteKeyMaterial destroys the imported material of a key; the same may be imported again.
func (s *Service) DeleteKeyMaterial(ctx context.Context, actor *Actor, req *kmswire.DeleteKeyMaterialRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actDeleteKeyMaterial, false, notAvailable[kmswire.EmptyResponse])
}

// draftOrigin decides where the material comes from.
func (c *call) draftOrigin(_ *draft, req *kmswire.CreateKeyRequest) error {
	switch req.Origin {
	case "", kmswire.OriginKMS:
		return nil
	case kmswire.OriginExternal:
		return Errorf(UnsupportedOperation, "importing key material (Origin %s) is not available in this version", req.Origin)
	}
	return Invalid("Origin", "%q is neither %s nor %s", req.Origin, kmswire.OriginKMS, kmswire.OriginExternal)
}
