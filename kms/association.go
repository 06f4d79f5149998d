package kms

import (
	"context"

	"github.com/keyward/keyward/kms/kmswire"
)

// StartKeyAssociationCheck starts to look up who uses a key.
func (s *Service) StartKeyAssociationCheck(ctx context.Context, actor *Actor, req *kmswire.StartKeyAssociationCheckRequest) (*kmswire.StartKeyAssociationCheckResponse, error) {
	return audited(s, ctx, actor, actStartKeyAssociationCheck, false, notAvailable[kmswire.StartKeyAssociationCheckResponse])
}

// ListKeyAssociations lists who uses a key, as the last check found it.
func (s *Service) ListKeyAssociations(ctx context.Context, actor *Actor, req *kmswire.ListKeyAssociationsRequest) (*kmswire.ListKeyAssociationsResponse, error) {
	return audited(s, ctx, actor, actListKeyAssociations, false, notAvailable[kmswire.ListKeyAssociationsResponse])
}
