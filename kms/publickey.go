package kms

import (
	"context"

	"github.com/keyward/keyward/kms/kmswire"
)

// GetPublicKey gives the public key of a version of an asymmetric key.
func (s *Service) GetPublicKey(ctx context.Context, actor *Actor, req *kmswire.GetPublicKeyRequest) (*kmswire.GetPublicKeyResponse, error) {
	return audited(s, ctx, actor, actGetPublicKey, req.DryRun, func(c *call) (*kmswire.GetPublicKeyResponse, error) {
		g, err := c.authorizeRef(req.KeyID)
		if err != nil {
			return nil, err
		}
		if req.KeyVersionID == "" {
			return nil, Missing("KeyVersionId")
		}
		if g.spec.symmetric() {
			return nil, Errorf(OperationRejected, "%s is a symmetric key and has no public key", g.key.ID)
		}
		m, err := c.materials.get(ctx, g, req.KeyVersionID)
		if err != nil {
			return nil, err
		}
		defer m.release()
		c.event.VersionID = m.version.ID
		if err := c.dryRunEnd(); err != nil {
			return nil, err
		}
		return &kmswire.GetPublicKeyResponse{KeyID: g.key.ID, KeyVersionID: m.version.ID, PublicKey: m.public.PEM()}, nil
	})
}
