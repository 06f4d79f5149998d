package kms

import (
	"context"
	"fmt"

	"github.com/keyward/keyward/kms/kmswire"
)

// ListKmsInstances lists the instances that keys can be created in.
func (s *Service) ListKmsInstances(ctx context.Context, actor *Actor, req *kmswire.ListKmsInstancesRequest) (*kmswire.ListKmsInstancesResponse, error) {
	return audited(s, ctx, actor, actListKmsInstances, false, func(c *call) (*kmswire.ListKmsInstancesResponse, error) {
		if len(req.Filters) > 0 {
			return nil, Errorf(UnsupportedOperation, "Filters are not available in this version")
		}
		p := req.Page
		if p.PageSize == 0 {
			p.PageSize = 20 // this action's own default
		}
		offset, limit, paged, err := page(p)
		if err != nil {
			return nil, err
		}
		out := &kmswire.ListKmsInstancesResponse{Paged: paged}
		out.TotalCount = len(s.instances)
		out.KmsInstances.KmsInstance = []kmswire.KmsInstanceSummary{}
		for i := offset; i < min(offset+limit, len(s.instances)); i++ {
			in := s.instances[i]
			out.KmsInstances.KmsInstance = append(out.KmsInstances.KmsInstance, kmswire.KmsInstanceSummary{
				KmsInstanceID: in.ID, KmsInstanceType: in.Type,
				KmsInstanceArn: fmt.Sprintf("%s%s:%s:keystore/%s", arnServiceKMS, s.region, s.account, in.ID),
			})
		}
		return out, nil
	})
}

// DescribeRegions names the one region that this keyward is.
func (s *Service) DescribeRegions(ctx context.Context, actor *Actor, _ *kmswire.DescribeRegionsRequest) (*kmswire.DescribeRegionsResponse, error) {
	return audited(s, ctx, actor, actDescribeRegions, false, func(*call) (*kmswire.DescribeRegionsResponse, error) {
		out := &kmswire.DescribeRegionsResponse{}
		out.Regions.Region = []kmswire.Region{{RegionID: s.region}}
		return out, nil
	})
}

// GetKmsInstance describes an instance.
func (s *Service) GetKmsInstance(ctx context.Context, actor *Actor, req *kmswire.GetKmsInstanceRequest) (*kmswire.GetKmsInstanceResponse, error) {
	return audited(s, ctx, actor, actGetKmsInstance, false, notAvailable[kmswire.GetKmsInstanceResponse])
}

// GetDefaultKmsInstance names the instance that a key is made in when none is given.
func (s *Service) GetDefaultKmsInstance(ctx context.Context, actor *Actor, req *kmswire.GetDefaultKmsInstanceRequest) (*kmswire.GetDefaultKmsInstanceResponse, error) {
	return audited(s, ctx, actor, actGetDefaultKmsInstance, false, notAvailable[kmswire.GetDefaultKmsInstanceResponse])
}

// GetKmsInstanceQuotaInfos tells how much an instance may hold, and how much it holds.
func (s *Service) GetKmsInstanceQuotaInfos(ctx context.Context, actor *Actor, req *kmswire.GetKmsInstanceQuotaInfosRequest) (*kmswire.GetKmsInstanceQuotaInfosResponse, error) {
	return audited(s, ctx, actor, actGetKmsInstanceQuotaInfos, false, notAvailable[kmswire.GetKmsInstanceQuotaInfosResponse])
}

// OpenKmsService is what an account calls once in the original before it may use the service.
func (s *Service) OpenKmsService(ctx context.Context, actor *Actor, req *kmswire.OpenKmsServiceRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actOpenKmsService, false, notAvailable[kmswire.EmptyResponse])
}

// DescribeAccountKmsStatus tells whether the account may use the service.
func (s *Service) DescribeAccountKmsStatus(ctx context.Context, actor *Actor, req *kmswire.DescribeAccountKmsStatusRequest) (*kmswire.DescribeAccountKmsStatusResponse, error) {
	return audited(s, ctx, actor, actDescribeAccountKmsStatus, false, notAvailable[kmswire.DescribeAccountKmsStatusResponse])
}
