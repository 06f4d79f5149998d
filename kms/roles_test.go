package kms

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// The table of reference section 6.8, written out by hand: whether the account may do it with its default key, whether it may with
// a service's key, and whether the service may.
const roleTable = `
	DescribeKey ListKeyVersions DescribeKeyVersion ListAliasesByKeyId ListResourceTags ListTagResources    yes yes yes
	StartKeyAssociationCheck ListKeyAssociations                                                           yes yes yes
	EnableKey DisableKey                                                                                   yes no  no
	ScheduleKeyDeletion CancelKeyDeletion                                                                  yes no  no
	SetDeletionProtection                                                                                  yes no  no
	CreateAlias UpdateAlias DeleteAlias UpdateKeyDescription                                               yes no  no
	TagResource UntagResource TagResources UntagResources                                                  yes no  no
	SetKeyPolicy GetKeyPolicy                                                                              no  no  no
	GetParametersForImport ImportKeyMaterial DeleteKeyMaterial                                             yes no  no
	CreateKeyVersion UpdateRotationPolicy                                                                  yes no  no
	AsymmetricEncrypt AsymmetricDecrypt AsymmetricSign AsymmetricVerify GetPublicKey GenerateCsr           no  no  no
	SetTokenNames                                                                                          no  no  no
	Encrypt Decrypt GenerateDataKey GenerateDataKeyWithoutPlaintext ReEncrypt ReEncryptFrom ReEncryptTo    yes no  yes
	GenerateAndExportDataKey ExportDataKey                                                                 yes no  no`

var (
	oss      = ServicePrincipal{Code: "oss", Name: "Object storage", Principals: []string{"acs:ram::" + testAccount + ":role/oss", "acs:ram::" + sharerAccount + ":role/oss"}}
	ossHere  = &Actor{Principal: oss.Principals[0], Account: testAccount}
	ossThere = &Actor{Principal: oss.Principals[1], Account: sharerAccount}
	ecsHere  = &Actor{Principal: "acs:ram::" + testAccount + ":role/ecs", Account: testAccount}
)

func newServicesFixture(t *testing.T) *storeFixture {
	f := newStoreFixture(t, Instance{ID: "kst-a", Type: SoftwareInstance, Keys: 1}, Instance{ID: "kst-d", Type: SoftwareInstance, Default: true})
	f.config.Services = []ServicePrincipal{oss, {Code: "ecs", Principals: []string{ecsHere.Principal}}}
	f.SetServices(f.config.Services)
	return f
}

// Every action about a key is in the table, and what each role allows is exactly what the reference says.
func TestRoleTable(t *testing.T) {
	f := newServicesFixture(t)
	defaultKey := &keystore.Key{ID: "key-d", Account: testAccount, Role: keystore.RoleDefault}
	serviceKey := &keystore.Key{ID: "key-s", Account: testAccount, Creator: "oss", Role: keystore.RoleService}
	may := func(actor *Actor, k *keystore.Key, act *action) error {
		c := &call{Service: f.Service, ctx: t.Context(), actor: actor, action: act}
		return c.checkRole(k, act)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(strings.TrimSpace(roleTable)) {
		cells := strings.Fields(line)
		n := len(cells) - 3
		for _, name := range cells[:n] {
			act := actions[name]
			if act == nil || seen[name] {
				t.Fatalf("%s is no action, or is there twice", name)
			}
			seen[name] = true
			for i, row := range []struct {
				actor   *Actor
				key     *keystore.Key
				refusal Code
			}{{root, defaultKey, OperationRejected}, {root, serviceKey, Denied}, {ossHere, serviceKey, Denied}} {
				err := may(row.actor, row.key, act)
				if want := cells[n+i] == "yes"; (err == nil) != want || err != nil && !errors.Is(err, row.refusal) {
					t.Errorf("%s by %s with %s: %v, want %s", name, row.actor.Principal, row.key.ID, err, cells[n+i])
				}
			}
			// Another service is a user of the account like others.
			if a, b := may(ecsHere, serviceKey, act), may(root, serviceKey, act); (a == nil) != (b == nil) {
				t.Errorf("%s by another service: %v, by root: %v", name, a, b)
			}
			if err := may(root, &keystore.Key{ID: "key-n", Account: testAccount, Role: "newer"}, act); !errors.Is(err, KeyUnavailable) {
				t.Errorf("%s with a key of a role that nobody knows: %v", name, err)
			}
			if err := may(root, &keystore.Key{ID: "key-o", Account: testAccount}, act); err != nil {
				t.Errorf("%s with a key without a role: %v", name, err)
			}
		}
	}
	for name := range actions {
		_, ruled := roleRules[name]
		if aboutKey := !slices.Contains(strings.Fields(aboutNoKey), name); aboutKey != ruled || aboutKey != seen[name] {
			t.Errorf("%s: has a rule %v, is in this test %v", name, ruled, seen[name])
		}
	}
	for name := range roleRules {
		if actions[name] == nil {
			t.Errorf("the rule of %q is of no action", name)
		}
	}
}

func TestServiceKey(t *testing.T) {
	ctx := t.Context()
	f := newServicesFixture(t)
	made := f.make("", ossHere)
	if made.Creator != "oss" || made.DKMSInstanceID != "" || made.KeySpec != kmswire.AES256 || made.ProtectionLevel != kmswire.ProtectionSoftware {
		t.Errorf("the service's key is %+v", made)
	}
	k, err := f.db.Key(ctx, made.KeyID)
	if err != nil || k.Account != testAccount || !k.AutoRotate || k.RotationInterval != roleInterval || k.NextRotation() != f.clock().Add(roleInterval) {
		t.Errorf("its record is %+v, %v", k, err)
	}
	// It is made once in an account, by either action, and by a new process too.
	f.Service = f.start()
	if again, enabled := f.make("", ossHere), f.enableDefault(ossHere); again.KeyID != made.KeyID || enabled.KeyID != made.KeyID {
		t.Errorf("asked again it is %s, then %s, was %s", again.KeyID, enabled.KeyID, made.KeyID)
	}
	if there := f.make("", ossThere); there.KeyID == made.KeyID || there.Arn != "acs:kms:local:"+sharerAccount+":key/"+there.KeyID {
		t.Errorf("in another account it is %+v", there)
	}
	if ecs := f.make("", ecsHere); ecs.KeyID == made.KeyID {
		t.Error("two services have one key")
	}
	if m := f.enableDefault(root); m.KeyID == made.KeyID || m.Creator != testAccount {
		t.Errorf("the account's default key is the service's: %+v", m)
	}
	for name, req := range map[string]*kmswire.CreateKeyRequest{
		"a name":     {AliasName: "alias/mine"},
		"asymmetric": {KeySpec: kmswire.ECP256},
	} {
		_, err := f.CreateKey(ctx, ossHere, req)
		wantCode(t, name, err, InvalidParameter)
	}
	// In an instance a service makes keys like anybody else: not without a policy.
	_, err = f.CreateKey(ctx, ossHere, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-a"})
	wantCode(t, "a service in an instance", err, Denied)

	// The service uses it, by its name, ID and blobs, and can't change it.
	e, err := f.Encrypt(ctx, ossHere, &kmswire.EncryptRequest{KeyID: "alias/acs/oss", Plaintext: []byte("x")})
	if err != nil || e.KeyID != made.KeyID {
		t.Fatalf("%+v %v", e, err)
	}
	if d, err := f.Decrypt(ctx, ossHere, &kmswire.DecryptRequest{CiphertextBlob: e.CiphertextBlob}); err != nil || string(d.Plaintext) != "x" {
		t.Errorf("%+v %v", d, err)
	}
	if _, err := f.ReEncrypt(ctx, ossHere, &kmswire.ReEncryptRequest{CiphertextBlob: e.CiphertextBlob, DestinationKeyID: made.KeyID}); err != nil {
		t.Error(err)
	}
	if _, err := f.GenerateDataKey(ctx, ossHere, &kmswire.GenerateDataKeyRequest{KeyID: made.KeyID}); err != nil {
		t.Error(err)
	}
	for _, actor := range []*Actor{ossHere, root, user, ecsHere} {
		_, err := f.DisableKey(ctx, actor, &kmswire.DisableKeyRequest{KeyID: made.KeyID})
		wantCode(t, actor.Principal+" disables it", err, Denied)
		_, err = f.CreateKeyVersion(ctx, actor, &kmswire.CreateKeyVersionRequest{KeyID: made.KeyID})
		wantCode(t, actor.Principal+" rotates it", err, Denied)
		_, err = f.CreateAlias(ctx, actor, &kmswire.CreateAliasRequest{KeyID: made.KeyID, AliasName: "alias/x"})
		wantCode(t, actor.Principal+" names it", err, Denied)
	}
	_, err = f.DeleteAlias(ctx, root, &kmswire.DeleteAliasRequest{AliasName: "alias/acs/oss"})
	wantCode(t, "its name", err, InvalidParameter)

	// Everybody else in the account sees it, and is told whose it is when it is not for them.
	for _, actor := range []*Actor{root, user, ecsHere} {
		err := f.encrypt(actor, made.KeyID)
		wantCode(t, actor.Principal+" uses it", err, Denied)
		if d := AsError(err).Detail; !strings.Contains(d, "belongs to service oss (Object storage)") {
			t.Errorf("the refusal is %q", d)
		}
		_, err = f.Decrypt(ctx, actor, &kmswire.DecryptRequest{CiphertextBlob: e.CiphertextBlob})
		wantCode(t, actor.Principal+" opens a blob of it", err, Denied)
		if d, err := f.DescribeKey(ctx, actor, &kmswire.DescribeKeyRequest{KeyID: "alias/acs/oss"}); err != nil || d.KeyMetadata.Creator != "oss" {
			t.Errorf("%+v %v", d, err)
		}
		if l, err := f.ListAliasesByKeyID(ctx, actor, &kmswire.ListAliasesByKeyIDRequest{KeyID: made.KeyID}); err != nil || l.TotalCount != 1 || l.Aliases.Alias[0].AliasName != "alias/acs/oss" {
			t.Errorf("%+v %v", l, err)
		}
		if l, err := f.ListKeyVersions(ctx, actor, &kmswire.ListKeyVersionsRequest{KeyID: made.KeyID}); err != nil || l.TotalCount != 1 {
			t.Errorf("%+v %v", l, err)
		}
		if _, err := f.ListResourceTags(ctx, actor, &kmswire.ListResourceTagsRequest{KeyID: made.KeyID}); err != nil {
			t.Error(err)
		}
	}
	if l, err := f.ListKeys(ctx, user, &kmswire.ListKeysRequest{}); err != nil || l.TotalCount != 3 { // of two services, and the default key
		t.Errorf("%+v %v", l, err)
	}
	// In another account it does not exist, also for the service itself.
	for _, actor := range []*Actor{third, sharer, ossThere} {
		wantCode(t, actor.Principal, f.encrypt(actor, made.Arn), KeyNotFound)
	}
	// A service that is declared no more is a user like others.
	f.SetServices(nil)
	wantCode(t, "a service that was", f.encrypt(ossHere, made.KeyID), Denied)
	_, err = f.CreateKey(ctx, ossHere, &kmswire.CreateKeyRequest{})
	wantCode(t, "a service that was, making a key", err, Denied)
}

// A service that starts many times at once gets one key.
func TestServiceKeyAtOnce(t *testing.T) {
	f := newServicesFixture(t)
	const callers = 16
	ids := make(chan string, callers)
	for range callers {
		go func() {
			for {
				r, err := f.CreateKey(context.Background(), ossHere, &kmswire.CreateKeyRequest{})
				if errors.Is(err, Throttled) {
					continue
				}
				if err != nil {
					t.Errorf("CreateKey: %v", err)
					ids <- ""
					return
				}
				ids <- r.KeyMetadata.KeyID
				return
			}
		}()
	}
	want := <-ids
	for range callers - 1 {
		if id := <-ids; id != want {
			t.Errorf("two keys: %q and %q", id, want)
		}
	}
}
