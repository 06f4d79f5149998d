package kms

import (
	"context"

	"github.com/keyward/keyward/kms/kmswire"
)

// EnableDefaultKey makes the default key of the caller's account, or gives the one that is there.
func (s *Service) EnableDefaultKey(ctx context.Context, actor *Actor, req *kmswire.EnableDefaultKeyRequest) (*kmswire.EnableDefaultKeyResponse, error) {
	return audited(s, ctx, actor, actEnableDefaultKey, false, notAvailable[kmswire.EnableDefaultKeyResponse])
}
