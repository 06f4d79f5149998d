package kms

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/policy"
)

// Instance is where keys are created. It belongs to an account, which may share it with others.
type Instance struct {
	ID         string   // kst-…
	Type       string   // software, hardware or external
	Name       string   // for people
	Account    string   // the owner; empty: Config.Account
	SharedWith []string // other accounts that may make keys in it
	Keys       int      // key versions that it may hold; 0: no limit
	Access     int      // other accounts that may share it or be let in by key policies
	QPS        int      // cryptographic operations a second; 0: no limit
	Default    bool     // where its owner's keys are made when no instance is named
}

// The types of instance.
const (
	SoftwareInstance = "software"
	HardwareInstance = "hardware"
	ExternalInstance = "external" // its keys are in another key manager
)

// sees says whether an account may know of the instance, and make keys in it.
func (in *Instance) sees(account string) bool {
	return in.Account == account || slices.Contains(in.SharedWith, account)
}

// instanceTable is the instances as they are configured. It is immutable but for the state of the limits.
type instanceTable struct {
	all    []Instance            // in order of configuration
	byID   map[string]*Instance  // into all
	limits map[string]*rateLimit // by ID; of those that have one
}

// validInstances checks instances, of which those that name no owner belong to first.
func validInstances(first string, all []Instance) error {
	seen, defaults := map[string]bool{}, map[string]bool{}
	for _, in := range all {
		if in.Type != SoftwareInstance && in.Type != HardwareInstance && in.Type != ExternalInstance {
			return fmt.Errorf("kms: instance %s has type %q; it must be %s, %s or %s", in.ID, in.Type, SoftwareInstance, HardwareInstance, ExternalInstance)
		}
		if seen[in.ID] {
			return fmt.Errorf("kms: instance %s is configured twice", in.ID)
		}
		owner := cmp.Or(in.Account, first)
		if in.Default && defaults[owner] {
			return fmt.Errorf("kms: account %s has two default instances, one of them %s", owner, in.ID)
		}
		seen[in.ID] = true
		defaults[owner] = defaults[owner] || in.Default
	}
	return nil
}

// CheckInstances says why SetInstances may not be called with all: they make no sense in themselves, or keys would be left without
// their instance, or in one of another owner or type.
func (s *Service) CheckInstances(ctx context.Context, all []Instance) error {
	if err := validInstances(s.account, all); err != nil {
		return err
	}
	next := s.newInstanceTable(all)
	for _, was := range s.instances.Load().all {
		is := next.byID[was.ID]
		if is != nil && is.Type == was.Type && is.Account == was.Account {
			continue
		}
		use, err := s.store.InstanceUse(ctx, was.ID)
		if err != nil {
			return fmt.Errorf("kms: looking for keys in instance %s: %w", was.ID, err)
		}
		switch {
		case use.Versions == 0:
		case is == nil:
			return fmt.Errorf("instance %s can't be removed: there are %d key versions in it; delete its keys first (keywardctl key delete), or leave its [[instance]] in", was.ID, use.Versions)
		default:
			return fmt.Errorf("type and account of instance %s can't change: there are %d key versions in it; make another instance", was.ID, use.Versions)
		}
	}
	return nil
}

// SetInstances replaces the instances. Calls that run go on with the old ones. CheckInstances must have agreed to them. A limit
// that stays goes on counting.
func (s *Service) SetInstances(all []Instance) {
	next := s.newInstanceTable(all)
	if was := s.instances.Load(); was != nil {
		for id, l := range next.limits {
			if old := was.limits[id]; old != nil {
				l.earned.Store(old.earned.Load())
			}
		}
	}
	s.instances.Store(next)
}

func (s *Service) newInstanceTable(all []Instance) *instanceTable {
	t := &instanceTable{all: slices.Clone(all), byID: map[string]*Instance{}, limits: map[string]*rateLimit{}}
	for i := range t.all {
		in := &t.all[i]
		in.SharedWith = slices.Clone(in.SharedWith)
		in.Account = cmp.Or(in.Account, s.account)
		t.byID[in.ID] = in
		if in.QPS > 0 {
			t.limits[in.ID] = &rateLimit{perSecond: in.QPS}
		}
	}
	return t
}

// instanceFor finds an instance that an account may know of.
func (s *Service) instanceFor(account, id string) (Instance, error) {
	if in := s.instances.Load().byID[id]; in != nil && in.sees(account) {
		return *in, nil
	}
	return Instance{}, Errorf(ResourceNotFound, "there is no instance %q in account %s; there are %s", id, account, s.instanceList(account))
}

// ownInstance finds an instance of the caller's account, for what its owner alone may see.
func (c *call) ownInstance(id string) (Instance, error) {
	if id == "" {
		return Instance{}, Missing("KmsInstanceId")
	}
	in, err := c.instanceFor(c.actor.Account, id)
	if err == nil && in.Account != c.actor.Account {
		err = Errorf(Denied, "%s belongs to account %s, and only that sees its details; account %s may make keys in it", id, in.Account, c.actor.Account)
	}
	return in, err
}

// defaultInstance is where an account's keys are made when no instance is named.
func (s *Service) defaultInstance(account string) (Instance, bool) {
	for _, in := range s.instances.Load().all {
		if in.Default && in.Account == account {
			return in, true
		}
	}
	return Instance{}, false
}

// instanceList names the instances that an account may make keys in, for advice.
func (s *Service) instanceList(account string) string {
	var ids []string
	for _, in := range s.instances.Load().all {
		if in.sees(account) {
			ids = append(ids, in.ID)
		}
	}
	if len(ids) == 0 {
		return "none"
	}
	return strings.Join(ids, ", ")
}

// coOwner is the account that owns a key beside the key's own: that of its instance, if another. Empty: nobody.
func (s *Service) coOwner(k *keystore.Key) string {
	if in := s.instances.Load().byID[k.Instance]; in != nil && in.Account != k.Account {
		return in.Account
	}
	return ""
}

// owners lists the accounts that manage and use a key by its default policy: the key's own, then the owner of its instance if that is
// another (joint ownership, reference section 7.4).
func (s *Service) owners(k *keystore.Key) []string {
	if other := s.coOwner(k); other != "" {
		return []string{k.Account, other}
	}
	return []string{k.Account}
}

// accessQuota is how many accounts the key policies of an instance may let in, besides those that it is shared with. An
// instance that is not configured lets nobody in.
func (s *Service) accessQuota(instance string) int {
	in := s.instances.Load().byID[instance]
	if in == nil {
		return 0
	}
	return max(0, in.Access-len(in.SharedWith)) // below 0 would be no limit
}

// limitKeys refuses a change with keystore.ErrQuota that would put more key versions into k's instance than may be in it. It
// counts what is in the change so far.
func (s *Service) limitKeys(ch *keystore.Change, k *keystore.Key) *keystore.Change {
	if in := s.instances.Load().byID[k.Instance]; in != nil && in.Keys > 0 {
		ch.Quota(in.ID, in.Keys, -1)
	}
	return ch
}

// roomForKey is limitKeys before any work: it may be outdated by the time of the commit.
func (s *Service) roomForKey(ctx context.Context, k *keystore.Key) error {
	in := s.instances.Load().byID[k.Instance]
	if in == nil || in.Keys == 0 {
		return nil
	}
	use, err := s.store.InstanceUse(ctx, in.ID)
	if err != nil {
		return storeError(err)
	}
	if use.Versions >= in.Keys {
		return keyQuotaError(in, use.Versions)
	}
	return nil
}

func keyQuotaError(in *Instance, have int) *Error {
	return Errorf(LimitExceeded, "%s holds %d key versions and may hold %d, counting every version of every key; delete keys that nobody needs, or have keys raised in its [[instance]] row",
		in.ID, have, in.Keys)
}

// quotaError words keystore.ErrQuota for the key quota. Others came first, so the instance is full.
func (s *Service) quotaError(k *keystore.Key) error {
	in := s.instances.Load().byID[k.Instance]
	if in == nil {
		in = &Instance{ID: k.Instance}
	}
	return keyQuotaError(in, in.Keys)
}

// charge takes n operations from the rate quota of a key's instance. It costs nothing where there is none. It takes a grant, so that
// nobody uses up the quota of keys that they may not use.
func (s *Service) charge(g grant, n int) error {
	t := s.instances.Load()
	if len(t.limits) == 0 {
		return nil
	}
	l := t.limits[g.key.Instance]
	if l == nil || l.take(s.uptime(), n) {
		return nil
	}
	return Errorf(Throttled, "the keys of %s do at most %d operations a second together, and these are used up; have qps raised in its [[instance]] row",
		g.key.Instance, l.perSecond)
}

func (s *Service) instanceARN(in *Instance) string {
	return fmt.Sprintf("%s%s:%s:keystore/%s", arnServiceKMS, s.region, in.Account, in.ID)
}

// ListKmsInstances lists the instances that the caller's account can create keys in: its own, and those that are shared with it.
func (s *Service) ListKmsInstances(ctx context.Context, actor *Actor, req *kmswire.ListKmsInstancesRequest) (*kmswire.ListKmsInstancesResponse, error) {
	return audited(s, ctx, actor, actListKmsInstances, false, func(c *call) (*kmswire.ListKmsInstancesResponse, error) {
		if len(req.Filters) > 0 {
			// What may stand in it is documented nowhere. To leave it out of account would give a wrong list.
			return nil, Errorf(UnsupportedOperation, "Filters are not supported here; ask without them")
		}
		p := req.Page
		if p.PageSize == 0 {
			p.PageSize = 20 // this action's own default
		}
		offset, limit, paged, err := page(p)
		if err != nil {
			return nil, err
		}
		if err := c.authorizeContainer(policy.Keystore); err != nil {
			return nil, err
		}
		out := &kmswire.ListKmsInstancesResponse{Paged: paged}
		out.KmsInstances.KmsInstance = []kmswire.KmsInstanceSummary{}
		for _, in := range s.instances.Load().all {
			if !in.sees(actor.Account) {
				continue
			}
			if i := out.TotalCount; i >= offset && i < offset+limit {
				out.KmsInstances.KmsInstance = append(out.KmsInstances.KmsInstance,
					kmswire.KmsInstanceSummary{KmsInstanceID: in.ID, KmsInstanceType: in.Type, KmsInstanceArn: s.instanceARN(&in)})
			}
			out.TotalCount++
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

// GetKmsInstance describes an instance to its owner.
func (s *Service) GetKmsInstance(ctx context.Context, actor *Actor, req *kmswire.GetKmsInstanceRequest) (*kmswire.GetKmsInstanceResponse, error) {
	return audited(s, ctx, actor, actGetKmsInstance, false, func(c *call) (*kmswire.GetKmsInstanceResponse, error) {
		in, err := c.ownInstance(req.KmsInstanceID)
		if err != nil {
			return nil, err
		}
		if err := c.authorizeContainer(policy.Keystore); err != nil {
			return nil, err
		}
		out := &kmswire.GetKmsInstanceResponse{KmsInstance: kmswire.KmsInstance{
			InstanceID: in.ID, InstanceName: in.Name, KmsInstanceType: in.Type, Status: s.instanceStatus(&in),
			Spec: in.QPS, KeyNum: in.Keys, SecretNum: "0", VpcNum: in.Access, Default: in.Default,
		}}
		out.KmsInstance.BindVpcs.BindVpc = []kmswire.BindVpc{}
		out.KmsInstance.SharedWith.Account = append([]string{}, in.SharedWith...)
		return out, nil
	})
}

// instanceStatus is Disconnected for hardware while there is no HSM to do anything, and for external keys while their proxy does not answer, or refuses
// our access key.
func (s *Service) instanceStatus(in *Instance) string {
	if in.Type == ExternalInstance {
		if _, err := s.externalKeys(in.ID); err != nil {
			return "Disconnected"
		}
		return "Connected"
	}
	if in.Type == HardwareInstance && !slices.ContainsFunc(s.pool.Status(), func(m hsmpool.Status) bool {
		return m.State == hsmpool.StateUp || m.State == hsmpool.StateHalfOpen
	}) {
		return "Disconnected"
	}
	return "Connected"
}

// GetDefaultKmsInstance names the instance that a key of the caller's account is made in when none is given; empty if there is
// none, and such a key becomes the account's default key.
func (s *Service) GetDefaultKmsInstance(ctx context.Context, actor *Actor, _ *kmswire.GetDefaultKmsInstanceRequest) (*kmswire.GetDefaultKmsInstanceResponse, error) {
	return audited(s, ctx, actor, actGetDefaultKmsInstance, false, func(c *call) (*kmswire.GetDefaultKmsInstanceResponse, error) {
		if err := c.authorizeContainer(policy.Keystore); err != nil {
			return nil, err
		}
		in, _ := s.defaultInstance(actor.Account)
		return &kmswire.GetDefaultKmsInstanceResponse{DefaultKmsInstanceID: in.ID}, nil
	})
}

// Types of resource that an instance has a quota of, in the order of answers.
const (
	resourceKey    = "key"    // key versions
	resourceSecret = "secret" // keyward keeps none
	resourceQPS    = "qps"
	resourceVPC    = "vpc" // other accounts: the access management quota
)

// GetKmsInstanceQuotaInfos tells an instance's owner how much it may hold, and how much it holds.
func (s *Service) GetKmsInstanceQuotaInfos(ctx context.Context, actor *Actor, req *kmswire.GetKmsInstanceQuotaInfosRequest) (*kmswire.GetKmsInstanceQuotaInfosResponse, error) {
	return audited(s, ctx, actor, actGetKmsInstanceQuotaInfos, false, func(c *call) (*kmswire.GetKmsInstanceQuotaInfosResponse, error) {
		in, err := c.ownInstance(req.KmsInstanceID)
		if err != nil {
			return nil, err
		}
		if err := c.authorizeContainer(policy.Keystore); err != nil {
			return nil, err
		}
		use, err := s.store.InstanceUse(ctx, in.ID)
		if err != nil {
			return nil, storeError(err)
		}
		all := []kmswire.KmsInstanceQuotaInfo{
			{ResourceType: resourceKey, ResourceQuota: in.Keys, UsedQuantity: use.Versions},
			{ResourceType: resourceSecret},
			{ResourceType: resourceQPS, ResourceQuota: in.QPS},
			{ResourceType: resourceVPC, ResourceQuota: in.Access, UsedQuantity: len(in.SharedWith) + use.OtherAccounts(s.now())},
		}
		if l := s.instances.Load().limits[in.ID]; l != nil {
			all[2].UsedQuantity = l.used(s.uptime())
		}
		if t := req.ResourceType; t != "" {
			i := slices.IndexFunc(all, func(q kmswire.KmsInstanceQuotaInfo) bool { return q.ResourceType == t })
			if i < 0 {
				return nil, Invalid("ResourceType", "%q is none of %s, %s, %s, %s", t, resourceKey, resourceSecret, resourceQPS, resourceVPC)
			}
			all = all[i : i+1]
		}
		return &kmswire.GetKmsInstanceQuotaInfosResponse{KmsInstanceID: in.ID, KmsInstanceQuotaInfos: all}, nil
	})
}

// OpenKmsService is what an account calls once in the original before it may use the service. Here it is always open.
func (s *Service) OpenKmsService(ctx context.Context, actor *Actor, _ *kmswire.OpenKmsServiceRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actOpenKmsService, false, func(c *call) (*kmswire.EmptyResponse, error) {
		return &kmswire.EmptyResponse{}, c.authorizeContainer(policy.Keystore)
	})
}

// DescribeAccountKmsStatus tells whether the account may use the service. Whoever is known here may.
func (s *Service) DescribeAccountKmsStatus(ctx context.Context, actor *Actor, _ *kmswire.DescribeAccountKmsStatusRequest) (*kmswire.DescribeAccountKmsStatusResponse, error) {
	return audited(s, ctx, actor, actDescribeAccountKmsStatus, false, func(c *call) (*kmswire.DescribeAccountKmsStatusResponse, error) {
		if err := c.authorizeContainer(policy.Keystore); err != nil {
			return nil, err
		}
		return &kmswire.DescribeAccountKmsStatusResponse{AccountStatus: "Enabled"}, nil
	})
}
