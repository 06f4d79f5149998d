package kms

import (
	"context"

	"github.com/keyward/keyward/kms/kmswire"
)

// ScheduleKeyDeletion takes a key out of use and destroys it when the waiting time is over.
func (s *Service) ScheduleKeyDeletion(ctx context.Context, actor *Actor, req *kmswire.ScheduleKeyDeletionRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actScheduleKeyDeletion, false, notAvailable[kmswire.EmptyResponse])
}

// CancelKeyDeletion takes a scheduled deletion back.
func (s *Service) CancelKeyDeletion(ctx context.Context, actor *Actor, req *kmswire.CancelKeyDeletionRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actCancelKeyDeletion, false, notAvailable[kmswire.EmptyResponse])
}

// SetDeletionProtection switches the protection of a key, or of an instance, against deletion on or off.
func (s *Service) SetDeletionProtection(ctx context.Context, actor *Actor, req *kmswire.SetDeletionProtectionRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actSetDeletionProtection, false, notAvailable[kmswire.EmptyResponse])
}
