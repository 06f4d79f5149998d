package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// storeFixture is a service without HSMs, with a clock that stands still.
type storeFixture struct {
	*Service
	t      testing.TB
	events *events
	db     *keystore.DB
	config Config

	mu  sync.Mutex
	at  time.Time
	ran time.Duration
}

func newStoreFixture(t testing.TB, instances ...Instance) *storeFixture {
	t.Helper()
	db := newStore(t, keystore.NewMem(), testSealer)
	f := &storeFixture{t: t, events: &events{}, db: db, at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	f.config = Config{Store: db, Region: "local", Account: testAccount, Instances: instances, Audit: f.events, Log: zerolog.Nop(), Now: f.clock}
	f.Service = f.start()
	return f
}

// start makes a service over the fixture's store, as a new process would.
func (f *storeFixture) start() *Service {
	f.t.Helper()
	s, err := New(context.Background(), f.config)
	if err != nil {
		f.t.Fatal(err)
	}
	s.uptime = func() time.Duration {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.ran
	}
	f.t.Cleanup(s.Close)
	return s
}

func (f *storeFixture) clock() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at
}

func (f *storeFixture) pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.ran = f.at.Add(d), f.ran+d
}

func (f *storeFixture) make(instance string, actor *Actor) kmswire.KeyMetadata {
	f.t.Helper()
	r, err := f.CreateKey(context.Background(), actor, &kmswire.CreateKeyRequest{DKMSInstanceID: instance})
	if err != nil {
		f.t.Fatalf("CreateKey in %q: %v", instance, err)
	}
	return r.KeyMetadata
}

func (f *storeFixture) encrypt(actor *Actor, key string) error {
	_, err := f.Encrypt(context.Background(), actor, &kmswire.EncryptRequest{KeyID: key, Plaintext: []byte("x")})
	return err
}

// quota gives one row of GetKmsInstanceQuotaInfos.
func (f *storeFixture) quota(instance, resource string) kmswire.KmsInstanceQuotaInfo {
	f.t.Helper()
	r, err := f.GetKmsInstanceQuotaInfos(context.Background(), root, &kmswire.GetKmsInstanceQuotaInfosRequest{KmsInstanceID: instance, ResourceType: resource})
	if err != nil || len(r.KmsInstanceQuotaInfos) != 1 {
		f.t.Fatalf("GetKmsInstanceQuotaInfos: %+v %v", r, err)
	}
	return r.KmsInstanceQuotaInfos[0]
}

const (
	sharerAccount = "2000000000000002"
	thirdAccount  = "3000000000000003"
)

var (
	sharer     = &Actor{Principal: "acs:ram::" + sharerAccount + ":root", Account: sharerAccount}
	sharerUser = &Actor{Principal: "acs:ram::" + sharerAccount + ":user/bob", Account: sharerAccount}
	third      = &Actor{Principal: "acs:ram::" + thirdAccount + ":root", Account: thirdAccount}
)

func TestKeyQuota(t *testing.T) {
	ctx := t.Context()
	f := newStoreFixture(t, Instance{ID: "kst-a", Type: SoftwareInstance, Keys: 3}, Instance{ID: "kst-b", Type: SoftwareInstance, Keys: 1})
	m := f.make("kst-a", root)
	f.make("kst-a", root)
	if _, err := f.CreateKeyVersion(ctx, root, &kmswire.CreateKeyVersionRequest{KeyID: m.KeyID}); err != nil {
		t.Fatal(err)
	}
	_, err := f.CreateKeyVersion(ctx, root, &kmswire.CreateKeyVersionRequest{KeyID: m.KeyID})
	wantCode(t, "the version after the last", err, LimitExceeded)
	_, err = f.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-a", AliasName: "alias/one-more"})
	wantCode(t, "the key after the last", err, LimitExceeded)
	if d := AsError(err).Detail; !strings.Contains(d, "kst-a holds 3 key versions and may hold 3") {
		t.Errorf("the refusal is %q", d)
	}
	if _, err := f.db.Alias(ctx, testAccount, "alias/one-more"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("the refused key left its alias: %v", err)
	}
	if q := f.quota("kst-a", "key"); q.ResourceQuota != 3 || q.UsedQuantity != 3 {
		t.Errorf("the quota is told as %+v", q)
	}
	f.make("kst-b", root) // each instance has its own
	// A quota that is lowered below what is there keeps what is there, and lets nothing in.
	f.SetInstances([]Instance{{ID: "kst-a", Type: SoftwareInstance, Keys: 2}, {ID: "kst-b", Type: SoftwareInstance, Keys: 2}})
	if err := f.encrypt(root, m.KeyID); err != nil {
		t.Error(err)
	}
	_, err = f.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-a"})
	wantCode(t, "a key above a lowered quota", err, LimitExceeded)
	f.make("kst-b", root)
}

// Of many who make keys at once exactly as many are let in as there is room for.
func TestKeyQuotaAtOnce(t *testing.T) {
	const quota, callers = 7, 32
	f := newStoreFixture(t, Instance{ID: "kst-a", Type: SoftwareInstance, Keys: quota})
	var mu sync.Mutex
	var made int
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for {
				_, err := f.CreateKey(context.Background(), root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-a"})
				if errors.Is(err, Throttled) { // others committed too often in a row
					continue
				}
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					made++
				case !errors.Is(err, LimitExceeded):
					t.Errorf("CreateKey: %v", err)
				}
				return
			}
		})
	}
	wg.Wait()
	if q := f.quota("kst-a", "key"); made != quota || q.UsedQuantity != quota {
		t.Errorf("%d keys were made, %d are counted, want %d", made, q.UsedQuantity, quota)
	}
}

// A full instance leaves nothing in the HSMs, also when it becomes full while a key is being made.
func TestKeyQuotaOfHardware(t *testing.T) {
	hsm := hsmtest.New(t, "north")
	hsm.Ceremony(t)
	f := newFixture(t, hsm.Open(t))
	const quota, callers = 2, 6
	f.SetInstances([]Instance{{ID: "kst-hardware", Type: HardwareInstance, Keys: quota}})
	results := make(chan error, callers)
	for i := range callers {
		go func() {
			storage := []string{kmswire.HsmInternal, kmswire.HsmEncryptedDatabase}[i%2]
			_, err := f.CreateKey(context.Background(), root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware", KeyStorageMechanism: storage})
			results <- err
		}()
	}
	made := 0
	for range callers {
		if err := <-results; err == nil {
			made++
		} else if !errors.Is(err, LimitExceeded) {
			t.Errorf("CreateKey: %v", err)
		}
	}
	if made != quota {
		t.Errorf("%d keys were made, want %d", made, quota)
	}
	if left, err := f.db.Intents(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("intents are left: %v %v", left, err)
	}
	r, err := f.GetKmsInstance(t.Context(), root, &kmswire.GetKmsInstanceRequest{KmsInstanceID: "kst-hardware"})
	if err != nil || r.KmsInstance.Status != "Connected" {
		t.Errorf("%+v %v", r, err)
	}
}

// An account that key policies let in takes a unit of the access management quota until five minutes after the last of them.
func TestAccessQuota(t *testing.T) {
	ctx := t.Context()
	in := Instance{ID: "kst-a", Type: SoftwareInstance, Access: 3, SharedWith: []string{sharerAccount}}
	f := newStoreFixture(t, in)
	m := f.make("kst-a", root)
	letIn := func(accounts ...string) error {
		k, err := f.db.Key(ctx, m.KeyID)
		if err != nil {
			t.Fatal(err)
		}
		next := *k
		next.OtherAccounts = accounts
		return f.db.Change().At(f.clock()).UpdateKey(k, &next).Quota("kst-a", -1, f.accessQuota("kst-a")).Commit(ctx)
	}
	used := func(want int) {
		t.Helper()
		if q := f.quota("kst-a", "vpc"); q.ResourceQuota != 3 || q.UsedQuantity != want {
			t.Errorf("the quota is told as %+v, want %d in use", q, want)
		}
	}
	used(1) // the account that it is shared with
	if err := letIn(thirdAccount, "4000000000000004"); err != nil {
		t.Fatal(err)
	}
	used(3)
	if err := letIn(thirdAccount, "4000000000000004", "5000000000000005"); !errors.Is(err, keystore.ErrAccessQuota) {
		t.Errorf("a third account: %v", err)
	}
	if err := letIn(thirdAccount); err != nil {
		t.Fatal(err)
	}
	used(3) // not yet given back
	f.pass(5*time.Minute - time.Second)
	used(3)
	if err := letIn(thirdAccount, "5000000000000005"); !errors.Is(err, keystore.ErrAccessQuota) {
		t.Errorf("before five minutes are over: %v", err)
	}
	f.pass(time.Second)
	used(2)
	if err := letIn(thirdAccount, "5000000000000005"); err != nil {
		t.Error(err)
	}
	// A quota below what is shared is none left, and not no limit.
	in.Access = 0
	f.SetInstances([]Instance{in})
	if got := f.accessQuota("kst-a"); got != 0 {
		t.Errorf("%d accounts may be let in", got)
	}
	if got := f.accessQuota("kst-unknown"); got != 0 {
		t.Errorf("%d accounts may be let into an instance that is not there", got)
	}
}

// What an instance's owner, an account that it is shared with, and a stranger see and can do.
func TestSharing(t *testing.T) {
	ctx := t.Context()
	f := newStoreFixture(t, Instance{ID: "kst-own", Type: SoftwareInstance, Access: 8},
		Instance{ID: "kst-shared", Type: SoftwareInstance, Name: "Shared", Access: 8, Keys: 100, SharedWith: []string{sharerAccount}},
		Instance{ID: "kst-third", Type: SoftwareInstance, Account: thirdAccount})

	for _, row := range []struct {
		actor *Actor
		want  string
	}{{root, "[kst-own kst-shared]"}, {user, "[kst-own kst-shared]"}, {sharer, "[kst-shared]"}, {sharerUser, "[kst-shared]"}, {third, "[kst-third]"}} {
		r, err := f.ListKmsInstances(ctx, row.actor, &kmswire.ListKmsInstancesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		ids := []string{}
		for _, in := range r.KmsInstances.KmsInstance {
			ids = append(ids, in.KmsInstanceID)
			if in.KmsInstanceID == "kst-shared" && in.KmsInstanceArn != "acs:kms:local:"+testAccount+":keystore/kst-shared" {
				t.Errorf("the ARN is %s", in.KmsInstanceArn)
			}
		}
		if fmt.Sprint(ids) != row.want || r.TotalCount != len(ids) {
			t.Errorf("%s sees %v of %d", row.actor.Principal, ids, r.TotalCount)
		}
	}
	page, err := f.ListKmsInstances(ctx, root, &kmswire.ListKmsInstancesRequest{Page: kmswire.Page{PageNumber: 2, PageSize: 1}})
	if err != nil || page.TotalCount != 2 || len(page.KmsInstances.KmsInstance) != 1 || page.KmsInstances.KmsInstance[0].KmsInstanceID != "kst-shared" {
		t.Errorf("the second page is %+v %v", page, err)
	}
	_, err = f.ListKmsInstances(ctx, root, &kmswire.ListKmsInstancesRequest{Filters: []byte(`[]`)})
	wantCode(t, "Filters", err, UnsupportedOperation)

	for _, row := range []struct {
		actor *Actor
		want  Code
	}{{root, pass}, {user, pass}, {sharer, Denied}, {sharerUser, Denied}, {third, ResourceNotFound}} {
		r, err := f.GetKmsInstance(ctx, row.actor, &kmswire.GetKmsInstanceRequest{KmsInstanceID: "kst-shared"})
		q, quotaErr := f.GetKmsInstanceQuotaInfos(ctx, row.actor, &kmswire.GetKmsInstanceQuotaInfosRequest{KmsInstanceID: "kst-shared"})
		if row.want != pass {
			wantCode(t, row.actor.Principal+" GetKmsInstance", err, row.want)
			wantCode(t, row.actor.Principal+" GetKmsInstanceQuotaInfos", quotaErr, row.want)
			continue
		}
		if err != nil || quotaErr != nil {
			t.Fatal(err, quotaErr)
		}
		in := r.KmsInstance
		if in.InstanceName != "Shared" || in.KeyNum != 100 || in.VpcNum != 8 || in.Status != "Connected" || in.SecretNum != "0" ||
			!slices.Equal(in.SharedWith.Account, []string{sharerAccount}) || in.BindVpcs.BindVpc == nil {
			t.Errorf("the instance is %+v", in)
		}
		if got := fmt.Sprint(q.KmsInstanceQuotaInfos); got != "[{key 100 0} {secret 0 0} {qps 0 0} {vpc 8 1}]" {
			t.Errorf("the quotas are %s", got)
		}
	}
	_, err = f.GetKmsInstanceQuotaInfos(ctx, root, &kmswire.GetKmsInstanceQuotaInfosRequest{KmsInstanceID: "kst-shared", ResourceType: "disk"})
	wantCode(t, "an unknown resource", err, InvalidParameter)
	_, err = f.GetKmsInstanceQuotaInfos(ctx, root, &kmswire.GetKmsInstanceQuotaInfosRequest{})
	wantCode(t, "no instance", err, MissingParameter)

	// Who can make keys in it. A user needs an identity policy, as everywhere.
	_, err = f.CreateKey(ctx, sharer, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-own"})
	wantCode(t, "a key in what is not shared", err, InvalidParameter)
	if d := AsError(err).Detail; !strings.Contains(d, "kst-shared") || strings.Contains(d, "kst-third") {
		t.Errorf("the advice is %q", d)
	}
	_, err = f.CreateKey(ctx, third, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-shared"})
	wantCode(t, "a stranger's key", err, InvalidParameter)
	_, err = f.CreateKey(ctx, sharerUser, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-shared"})
	wantCode(t, "a user's key", err, Denied)
	theirs, ours := f.make("kst-shared", sharer), f.make("kst-shared", root)
	if theirs.Creator != sharerAccount || theirs.Arn != "acs:kms:local:"+sharerAccount+":key/"+theirs.KeyID {
		t.Errorf("the sharer's key is %+v", theirs)
	}

	// Joint ownership: the key of the sharer is also the instance owner's; the other way round it is not.
	for _, row := range []struct {
		actor *Actor
		key   kmswire.KeyMetadata
		want  Code
	}{
		{root, ours, pass}, {user, ours, pass}, {sharer, ours, KeyNotFound}, {sharerUser, ours, KeyNotFound}, {third, ours, KeyNotFound},
		{root, theirs, pass}, {user, theirs, pass}, {sharer, theirs, pass}, {sharerUser, theirs, pass}, {third, theirs, KeyNotFound},
	} {
		_, describe := f.DescribeKey(ctx, row.actor, &kmswire.DescribeKeyRequest{KeyID: row.key.Arn})
		_, manage := f.UpdateKeyDescription(ctx, row.actor, &kmswire.UpdateKeyDescriptionRequest{KeyID: row.key.Arn, Description: "x"})
		for what, err := range map[string]error{"describe": describe, "manage": manage, "use": f.encrypt(row.actor, row.key.Arn)} {
			if row.want == pass && err != nil || row.want != pass && !errors.Is(err, row.want) {
				t.Errorf("%s: %s the key of %s: %v", row.actor.Principal, what, row.key.Creator, err)
			}
		}
	}
	// Another account's key goes by its ARN only.
	wantCode(t, "the sharer's key by its ID", f.encrypt(root, theirs.KeyID), KeyNotFound)

	for _, row := range []struct {
		id   string
		want []string
	}{{theirs.KeyID, []string{sharerAccount, testAccount}}, {ours.KeyID, []string{testAccount}}} {
		k, err := f.db.Key(ctx, row.id)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.owners(k); !slices.Equal(got, row.want) {
			t.Errorf("owners of %s are %v, want %v", row.id, got, row.want)
		}
	}
	// Whoever sees the policy is told whose the key is.
	if r, err := f.GetKeyPolicy(ctx, root, &kmswire.GetKeyPolicyRequest{KeyID: theirs.Arn}); err != nil || !slices.Equal(r.Owners.Account, []string{sharerAccount, testAccount}) {
		t.Errorf("GetKeyPolicy of the sharer's key: %+v, %v", r, err)
	}
	// Names are each account's own, also in a shared instance.
	for _, actor := range []*Actor{root, sharer} {
		if _, err := f.CreateKey(ctx, actor, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-shared", AliasName: "alias/db"}); err != nil {
			t.Error(err)
		}
	}

	// An account that shares it no more keeps its keys and makes no new ones.
	f.SetInstances([]Instance{{ID: "kst-own", Type: SoftwareInstance}, {ID: "kst-shared", Type: SoftwareInstance}, {ID: "kst-third", Type: SoftwareInstance, Account: thirdAccount}})
	if err := f.encrypt(sharer, theirs.KeyID); err != nil {
		t.Error(err)
	}
	if err := f.encrypt(root, theirs.Arn); err != nil {
		t.Error(err)
	}
	_, err = f.CreateKey(ctx, sharer, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-shared"})
	wantCode(t, "a key after the sharing", err, InvalidParameter)
}

func TestCheckInstances(t *testing.T) {
	ctx := t.Context()
	a, b := Instance{ID: "kst-a", Type: SoftwareInstance}, Instance{ID: "kst-b", Type: HardwareInstance}
	f := newStoreFixture(t, a, b)
	f.make("kst-a", root)
	moved, turned := a, a
	moved.Account = thirdAccount
	turned.Type = HardwareInstance
	shared := a
	shared.SharedWith, shared.Keys, shared.Name = []string{thirdAccount}, 5, "new"
	for name, row := range map[string]struct {
		next []Instance
		want string // empty: accepted
	}{
		"the same":           {[]Instance{a, b}, ""},
		"an empty one goes":  {[]Instance{a}, ""},
		"a new one":          {[]Instance{a, b, {ID: "kst-c", Type: SoftwareInstance}}, ""},
		"quotas and sharing": {[]Instance{shared, b}, ""},
		"one with keys goes": {[]Instance{b}, "kst-a can't be removed: there are 1 key versions"},
		"another owner":      {[]Instance{moved, b}, "account of instance kst-a can't change"},
		"another type":       {[]Instance{turned, b}, "type and account of instance kst-a"},
		"twice":              {[]Instance{a, a}, "twice"},
		"two defaults":       {[]Instance{{ID: "kst-a", Type: SoftwareInstance, Default: true}, {ID: "kst-b", Type: SoftwareInstance, Default: true, Account: testAccount}}, "two default"},
		"no type":            {[]Instance{{ID: "kst-a"}}, "type"},
	} {
		err := f.CheckInstances(ctx, row.next)
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestQPS(t *testing.T) {
	ctx := t.Context()
	in := Instance{ID: "kst-a", Type: SoftwareInstance, QPS: 4, SharedWith: []string{sharerAccount}, Access: 8}
	f := newStoreFixture(t, in, Instance{ID: "kst-free", Type: SoftwareInstance})
	m, free := f.make("kst-a", root), f.make("kst-free", root)
	f.pass(time.Hour)
	used := func(want int) {
		t.Helper()
		if q := f.quota("kst-a", "qps"); q.ResourceQuota != 4 || q.UsedQuantity != want {
			t.Errorf("the quota is told as %+v, want %d in use", q, want)
		}
	}
	// Neither metadata, nor refusals, nor a dry run cost anything.
	for range 10 {
		if _, err := f.DescribeKey(ctx, root, &kmswire.DescribeKeyRequest{KeyID: m.KeyID}); err != nil {
			t.Fatal(err)
		}
		wantCode(t, "a stranger", f.encrypt(third, m.Arn), KeyNotFound)
		_, err := f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: m.KeyID, Plaintext: []byte("x"), DryRun: true})
		wantCode(t, "a dry run", err, DryRunSucceeded)
	}
	used(0)
	e, err := f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: m.KeyID, Plaintext: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	used(1)
	if _, err := f.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: e.CiphertextBlob}); err != nil {
		t.Fatal(err)
	}
	used(2)
	// A batch is as many as its items, all or none.
	items := func(n int) []kmswire.BatchEncryptItem {
		return slices.Repeat([]kmswire.BatchEncryptItem{{Plaintext: []byte("x")}}, n)
	}
	_, err = f.BatchEncrypt(ctx, root, &kmswire.BatchEncryptRequest{KeyID: m.KeyID, Items: items(3)})
	wantCode(t, "a batch of 3 where 2 are left", err, Throttled)
	if d := AsError(err).Detail; !strings.Contains(d, "kst-a do at most 4 operations a second") {
		t.Errorf("the refusal is %q", d)
	}
	used(2)
	// Items of a batch of blobs fail alone.
	blobs := slices.Repeat([]kmswire.BatchDecryptItem{{CiphertextBlob: e.CiphertextBlob}}, 3)
	d, err := f.BatchDecrypt(ctx, root, &kmswire.BatchDecryptRequest{Items: blobs})
	if err != nil {
		t.Fatal(err)
	}
	if d.Items[0].ItemError != nil || d.Items[1].ItemError != nil || d.Items[2].ItemError == nil || !errors.Is(d.Items[2].ItemError.Err, Throttled) {
		t.Errorf("of three blobs where 2 are left: %+v", d.Items)
	}
	used(4)
	wantCode(t, "one more", f.encrypt(root, m.KeyID), Throttled)
	_, err = f.ReEncrypt(ctx, root, &kmswire.ReEncryptRequest{CiphertextBlob: e.CiphertextBlob, DestinationKeyID: free.KeyID})
	wantCode(t, "ReEncrypt from there", err, Throttled)
	if err := f.encrypt(root, free.KeyID); err != nil {
		t.Errorf("an instance without a limit: %v", err)
	}
	// A reload does not give it back.
	f.SetInstances([]Instance{in, {ID: "kst-free", Type: SoftwareInstance}})
	wantCode(t, "after a reload", f.encrypt(root, m.KeyID), Throttled)
	f.pass(time.Second)
	if _, err := f.BatchEncrypt(ctx, root, &kmswire.BatchEncryptRequest{KeyID: m.KeyID, Items: items(4)}); err != nil {
		t.Errorf("a second later: %v", err)
	}
	// Signatures are charged too.
	f.pass(time.Second)
	r, err := f.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-a", KeySpec: kmswire.ECP256})
	if err != nil {
		t.Fatal(err)
	}
	v, err := f.ListKeyVersions(ctx, root, &kmswire.ListKeyVersionsRequest{KeyID: r.KeyMetadata.KeyID})
	if err != nil {
		t.Fatal(err)
	}
	sign := &kmswire.AsymmetricSignRequest{KeyID: r.KeyMetadata.KeyID, KeyVersionID: v.KeyVersions.KeyVersion[0].KeyVersionID, Algorithm: kmswire.ECDSASHA256, Digest: make([]byte, 32)}
	for range 4 {
		if _, err := f.AsymmetricSign(ctx, root, sign); err != nil {
			t.Fatal(err)
		}
	}
	_, err = f.AsymmetricSign(ctx, root, sign)
	wantCode(t, "a signature too many", err, Throttled)
}

func TestAccountStatus(t *testing.T) {
	ctx := t.Context()
	f := newStoreFixture(t, Instance{ID: "kst-a", Type: SoftwareInstance, Default: true})
	if _, err := f.OpenKmsService(ctx, root, &kmswire.OpenKmsServiceRequest{}); err != nil {
		t.Error(err)
	}
	_, err := f.OpenKmsService(ctx, user, &kmswire.OpenKmsServiceRequest{})
	wantCode(t, "a user", err, Denied)
	if r, err := f.DescribeAccountKmsStatus(ctx, user, &kmswire.DescribeAccountKmsStatusRequest{}); err != nil || r.AccountStatus != "Enabled" {
		t.Errorf("%+v %v", r, err)
	}
	for actor, want := range map[*Actor]string{root: "kst-a", third: ""} {
		if r, err := f.GetDefaultKmsInstance(ctx, actor, &kmswire.GetDefaultKmsInstanceRequest{}); err != nil || r.DefaultKmsInstanceID != want {
			t.Errorf("the default of %s: %+v %v", actor.Account, r, err)
		}
	}
}
