package kms

import (
	"context"
	"errors"
	"slices"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/policy"
)

// metadata renders a key for the wire (reference section 4.1).
func (s *Service) metadata(k *keystore.Key) kmswire.KeyMetadata {
	m := kmswire.KeyMetadata{
		KeyID: k.ID, Arn: s.keyARN(k), Creator: k.Creator, CreationDate: formatTime(k.Created),
		Description: k.Description, KeySpec: kmswire.KeySpec(k.Spec), KeyUsage: kmswire.KeyUsage(k.Usage),
		KeyState: s.state(k), Origin: k.Origin, ProtectionLevel: k.Protection,
		DKMSInstanceID: k.Instance, PrimaryKeyVersion: k.Primary, AutomaticRotation: rotationState(k),
		LastRotationDate: formatTime(k.LastRotation), DeletionProtection: "Disabled",
		KeyStorageMechanism: k.Storage, SecondaryKeyUsage: kmswire.KeyUsage(k.SecondaryUsage), ExternalKeyID: k.ExternalID,
	}
	if k.Protected {
		m.DeletionProtection, m.DeletionProtectionDescription = "Enabled", k.ProtectedReason
	}
	if k.AutoRotate {
		m.RotationInterval, m.NextRotationDate = formatRotation(k.RotationInterval), formatTime(k.NextRotation())
	}
	if k.MaterialExpires != nil {
		m.MaterialExpireTime = formatTime(*k.MaterialExpires)
	}
	if k.DeleteAt != nil {
		m.DeleteDate = formatTime(*k.DeleteAt)
	}
	return m
}

// DescribeKey tells what there is to know about a key. It works in every state.
func (s *Service) DescribeKey(ctx context.Context, actor *Actor, req *kmswire.DescribeKeyRequest) (*kmswire.DescribeKeyResponse, error) {
	return audited(s, ctx, actor, actDescribeKey, false, func(c *call) (*kmswire.DescribeKeyResponse, error) {
		g, err := c.authorizeRef(req.KeyID)
		if err != nil {
			return nil, err
		}
		return &kmswire.DescribeKeyResponse{KeyMetadata: s.metadata(g.key)}, nil
	})
}

// page turns the parameters of a list into an offset and a limit.
func page(p kmswire.Page) (offset, limit int, paged kmswire.Paged, err error) {
	if p.PageNumber == 0 {
		p.PageNumber = 1
	}
	if p.PageSize == 0 {
		p.PageSize = kmswire.DefaultPageSize
	}
	if p.PageNumber < 1 || p.PageNumber > 1<<31/kmswire.MaxPageSize {
		return 0, 0, paged, Invalid("PageNumber", "it must be 1 to %d", 1<<31/kmswire.MaxPageSize)
	}
	if p.PageSize < 1 || p.PageSize > kmswire.MaxPageSize {
		return 0, 0, paged, Invalid("PageSize", "it must be 1 to %d", kmswire.MaxPageSize)
	}
	return (p.PageNumber - 1) * p.PageSize, p.PageSize, kmswire.Paged{PageNumber: p.PageNumber, PageSize: p.PageSize}, nil
}

// ListKeys lists the keys of the caller's account that have what Filters ask for, in order of creation.
func (s *Service) ListKeys(ctx context.Context, actor *Actor, req *kmswire.ListKeysRequest) (*kmswire.ListKeysResponse, error) {
	return audited(s, ctx, actor, actListKeys, false, func(c *call) (*kmswire.ListKeysResponse, error) {
		offset, limit, paged, err := page(req.Page)
		if err != nil {
			return nil, err
		}
		filters, err := parseFilters(req.Filters)
		if err != nil {
			return nil, err
		}
		if err := c.authorizeContainer(policy.Key); err != nil {
			return nil, err
		}
		rows, total, err := c.filterKeys(filters, offset, limit)
		if err != nil {
			return nil, err
		}
		out := &kmswire.ListKeysResponse{Paged: paged}
		out.TotalCount = total
		out.Keys.Key = make([]kmswire.KeySummary, 0, len(rows))
		for _, row := range rows {
			out.Keys.Key = append(out.Keys.Key, kmswire.KeySummary{KeyID: row.ID, KeyArn: s.keyARN(&keystore.Key{ID: row.ID, Account: actor.Account})})
		}
		return out, nil
	})
}

// updateKey is changeKey for an edit that is always possible.
func (c *call) updateKey(keyID string, edit func(*keystore.Key)) (*keystore.Key, error) {
	return c.changeKey(keyID, func(_ grant, k *keystore.Key) error {
		edit(k)
		return nil
	})
}

// changeKey changes a key's record by edit, which gets a copy and may refuse. Of changes at the same time one wins and the
// others are decided anew, from permission and state on.
func (c *call) changeKey(keyID string, edit func(grant, *keystore.Key) error) (*keystore.Key, error) {
	for try := 0; ; try++ {
		g, err := c.authorizeManage(keyID)
		if err != nil {
			return nil, err
		}
		next := *g.key
		if err := edit(g, &next); err != nil {
			return nil, err
		}
		if try == 0 {
			if err := c.begun(); err != nil {
				return nil, err
			}
		}
		ch := c.store.Change().At(c.now()).UpdateKey(g.key, &next)
		if !slices.Equal(next.OtherAccounts, g.key.OtherAccounts) {
			ch.Quota(next.Instance, -1, c.accessQuota(next.Instance))
		}
		if next.State != g.key.State && kmswire.KeyState(next.State) != kmswire.Enabled {
			ch.Urgent() // taking a key out of use works on a full disk
		}
		err = ch.Commit(c.ctx)
		if errors.Is(err, keystore.ErrConflict) && try < 5 {
			continue
		}
		if errors.Is(err, keystore.ErrAccessQuota) {
			return nil, c.accessQuotaUsed(next.Instance, err)
		}
		if err != nil {
			return nil, storeError(err)
		}
		return &next, nil
	}
}

// UpdateKeyDescription replaces the description; an empty one clears it.
func (s *Service) UpdateKeyDescription(ctx context.Context, actor *Actor, req *kmswire.UpdateKeyDescriptionRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actUpdateKeyDescription, false, func(c *call) (*kmswire.EmptyResponse, error) {
		if err := checkDescription(req.Description); err != nil {
			return nil, err
		}
		_, err := c.updateKey(req.KeyID, func(k *keystore.Key) { k.Description = req.Description })
		return &kmswire.EmptyResponse{}, err
	})
}

// EnableKey lets a disabled key be used again. On an enabled key it changes nothing.
func (s *Service) EnableKey(ctx context.Context, actor *Actor, req *kmswire.EnableKeyRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actEnableKey, false, func(c *call) (*kmswire.EmptyResponse, error) {
		_, err := c.updateKey(req.KeyID, func(k *keystore.Key) { k.State = string(kmswire.Enabled) })
		s.schedule.poke() // a rotation may be overdue
		return &kmswire.EmptyResponse{}, err
	})
}

// DisableKey takes a key out of use. Calls that begin after it has answered are refused.
func (s *Service) DisableKey(ctx context.Context, actor *Actor, req *kmswire.DisableKeyRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actDisableKey, false, func(c *call) (*kmswire.EmptyResponse, error) {
		k, err := c.updateKey(req.KeyID, func(k *keystore.Key) { k.State = string(kmswire.Disabled) })
		if err != nil {
			return nil, err
		}
		s.dropMaterials(ctx, k.ID)
		return &kmswire.EmptyResponse{}, nil
	})
}

func versionInfo(v *keystore.Version) kmswire.KeyVersion {
	return kmswire.KeyVersion{KeyID: v.KeyID, KeyVersionID: v.ID, CreationDate: formatTime(v.Created)}
}

// DescribeKeyVersion tells about one version. It works in every state.
func (s *Service) DescribeKeyVersion(ctx context.Context, actor *Actor, req *kmswire.DescribeKeyVersionRequest) (*kmswire.DescribeKeyVersionResponse, error) {
	return audited(s, ctx, actor, actDescribeKeyVersion, false, func(c *call) (*kmswire.DescribeKeyVersionResponse, error) {
		g, err := c.authorizeRef(req.KeyID)
		if err != nil {
			return nil, err
		}
		if err := ownVersions(g.key); err != nil {
			return nil, err
		}
		c.event.VersionID = req.KeyVersionID
		v, err := s.store.Version(ctx, g.key.ID, req.KeyVersionID)
		if errors.Is(err, keystore.ErrNotFound) {
			return nil, versionNotFound(g, req.KeyVersionID)
		} else if err != nil {
			return nil, storeError(err)
		}
		return &kmswire.DescribeKeyVersionResponse{KeyVersion: versionInfo(v)}, nil
	})
}

// ListKeyVersions lists a key's versions in order of creation.
func (s *Service) ListKeyVersions(ctx context.Context, actor *Actor, req *kmswire.ListKeyVersionsRequest) (*kmswire.ListKeyVersionsResponse, error) {
	return audited(s, ctx, actor, actListKeyVersions, false, func(c *call) (*kmswire.ListKeyVersionsResponse, error) {
		offset, limit, paged, err := page(req.Page)
		if err != nil {
			return nil, err
		}
		g, err := c.authorizeRef(req.KeyID)
		if err != nil {
			return nil, err
		}
		if err := ownVersions(g.key); err != nil {
			return nil, err
		}
		versions, total, err := s.store.Versions(ctx, g.key.ID, offset, limit)
		if err != nil {
			return nil, storeError(err)
		}
		out := &kmswire.ListKeyVersionsResponse{Paged: paged}
		out.TotalCount = total
		out.KeyVersions.KeyVersion = make([]kmswire.KeyVersion, 0, len(versions))
		for _, v := range versions {
			out.KeyVersions.KeyVersion = append(out.KeyVersions.KeyVersion, versionInfo(v))
		}
		return out, nil
	})
}
