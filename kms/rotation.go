package kms

import (
	"context"
	"time"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// maxVersions bounds the versions of one key (reference section 6.2).
const maxVersions = 50

// CreateKeyVersion makes a new version. Of a symmetric key it becomes the primary one.
func (s *Service) CreateKeyVersion(ctx context.Context, actor *Actor, req *kmswire.CreateKeyVersionRequest) (*kmswire.CreateKeyVersionResponse, error) {
	return audited(s, ctx, actor, actCreateKeyVersion, false, func(c *call) (*kmswire.CreateKeyVersionResponse, error) {
		g, err := c.authorizeRef(req.KeyID)
		if err != nil {
			return nil, err
		}
		if g.key.Origin != kmswire.OriginKMS {
			return nil, Errorf(UnsupportedOrigin, "%s has imported material and keeps one version", g.key.ID)
		}
		if g.key.Storage == kmswire.HsmInternal {
			return nil, Errorf(OperationRejected, "%s lives inside one HSM (%s) and keeps one version", g.key.ID, kmswire.HsmInternal)
		}
		if g.key.Versions >= maxVersions {
			return nil, Errorf(LimitExceeded, "%s has %d versions, the most that a key may have", g.key.ID, g.key.Versions)
		}
		if err := c.begun(); err != nil {
			return nil, err
		}
		next := *g.key
		next.LastRotation = s.now().UTC().Truncate(time.Second)
		next.Versions++
		v, err := c.makeVersion(&next, g.spec, intentCreateVersion, func(ch *keystore.Change, v *keystore.Version) {
			if g.spec.symmetric() {
				next.Primary = v.ID
			}
			ch.UpdateKey(g.key, &next).CreateVersion(v)
		})
		if err != nil {
			return nil, storeError(err)
		}
		c.event.VersionID = v.ID
		return &kmswire.CreateKeyVersionResponse{KeyVersion: versionInfo(v)}, nil
	})
}

// UpdateRotationPolicy switches the automatic rotation of a key on or off.
func (s *Service) UpdateRotationPolicy(ctx context.Context, actor *Actor, req *kmswire.UpdateRotationPolicyRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actUpdateRotationPolicy, false, notAvailable[kmswire.EmptyResponse])
}

// draftRotation reads the rotation policy of a new key.
func (c *call) draftRotation(_ *draft, req *kmswire.CreateKeyRequest) error {
	if req.EnableAutomaticRotation || req.RotationInterval != "" {
		return Errorf(UnsupportedOperation, "automatic rotation is not available in this version; CreateKeyVersion rotates by hand")
	}
	return nil
}
