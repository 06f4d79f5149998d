package kms

import (
	"context"

	"github.com/keyward/keyward/kms/kmswire"
)

// GenerateCsr makes a certificate signing request for a version of an asymmetric key.
func (s *Service) GenerateCsr(ctx context.Context, actor *Actor, req *kmswire.GenerateCsrRequest) (*kmswire.GenerateCsrResponse, error) {
	return audited(s, ctx, actor, actGenerateCsr, false, notAvailable[kmswire.GenerateCsrResponse])
}
