package kms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/policy"
)

const otherAccount = "2000000000000002"

var (
	bob        = &Actor{Principal: "acs:ram::" + testAccount + ":user/bob", Account: testAccount, Unit: "backup.service", UID: 1000}
	otherUser  = &Actor{Principal: "acs:ram::" + otherAccount + ":user/eve", Account: otherAccount}
	remoteUser = &Actor{Principal: "acs:ram::" + testAccount + ":user/alice", Account: testAccount, SourceIP: netip.MustParseAddr("10.1.2.3"), RemoteAddr: "10.1.2.3:5"}
)

// newPolicyFixture is a service of two accounts, without HSMs.
func newPolicyFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{t: t, events: &events{}, db: newStore(t, keystore.NewMem(), testSealer)}
	var err error
	f.Service, err = New(context.Background(), Config{
		Store: f.db, Region: "local", Account: testAccount, Accounts: []string{testAccount, otherAccount}, Audit: f.events, Log: zerolog.Nop(),
		Instances: []Instance{{ID: "kst-software", Type: SoftwareInstance, Access: 8}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Service.Close)
	return f
}

func (f *fixture) setPolicy(keyID, text string) {
	f.t.Helper()
	if _, err := f.SetKeyPolicy(context.Background(), root, &kmswire.SetKeyPolicyRequest{KeyID: keyID, Policy: json.RawMessage(text)}); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) attach(arn, text string) {
	f.t.Helper()
	if err := f.Principals().AttachPolicy(context.Background(), root, arn, "test", text); err != nil {
		f.t.Fatal(err)
	}
}

func statement(effect, principal, action, more string) string {
	return fmt.Sprintf(`{"Effect":%q,"Principal":{"RAM":[%q]},"Action":[%q],"Resource":["*"]%s}`, effect, principal, action, more)
}

func keyPolicyText(statements ...string) string {
	return `{"Version":"1","Statement":[` + strings.Join(statements, ",") + `]}`
}

func identityPolicyText(effect, action, resource string) string {
	return fmt.Sprintf(`{"Version":"1","Statement":[{"Effect":%q,"Action":[%q],"Resource":[%q]}]}`, effect, action, resource)
}

// TestAccess asks the service, not the policy package: each policy as it is set must decide the next call.
func TestAccess(t *testing.T) {
	ctx := context.Background()
	f := newPolicyFixture(t)
	for _, arn := range []string{user.Principal, bob.Principal, otherUser.Principal} {
		if _, err := f.Principals().Create(ctx, root, arn, ""); err != nil {
			t.Fatal(err)
		}
	}
	k := f.create(software, kmswire.AES256, "")
	encrypt := func(a *Actor) error {
		_, err := f.Encrypt(ctx, a, &kmswire.EncryptRequest{KeyID: k.Arn, Plaintext: []byte("x")})
		return err
	}
	expect := func(what string, a *Actor, want Code) {
		t.Helper()
		if err := encrypt(a); want == pass && err != nil || want != pass && !errors.Is(err, want) {
			t.Errorf("%s: %s got %v", what, a.Principal, err)
		}
	}
	own := "acs:ram::" + testAccount
	expect("the default policy", user, pass)
	expect("the default policy", otherUser, KeyNotFound)

	f.setPolicy(k.KeyID, keyPolicyText(statement("Allow", own+":root", "kms:*", ""), statement("Allow", bob.Principal, "kms:Encrypt", "")))
	expect("a policy without it", user, Denied)
	expect("a policy with it", bob, pass)
	expect("a policy with it", root, pass)
	if _, err := f.DisableKey(ctx, bob, &kmswire.DisableKeyRequest{KeyID: k.KeyID}); !errors.Is(err, Denied) {
		t.Errorf("bob may disable the key: %v", err)
	}

	f.attach(user.Principal, identityPolicyText("Allow", "kms:Encrypt", "acs:kms:*:"+testAccount+":key/"+k.KeyID))
	expect("an identity policy", user, pass)
	f.attach(user.Principal, identityPolicyText("Allow", "kms:Encrypt", "acs:kms:*:"+testAccount+":key/key-other"))
	expect("an identity policy for another key", user, Denied)
	f.attach(bob.Principal, identityPolicyText("Deny", "kms:Enc*", "*"))
	expect("an identity policy that denies", bob, Denied)
	if err := f.Principals().DetachPolicy(ctx, root, bob.Principal, "test"); err != nil {
		t.Fatal(err)
	}
	expect("after it was taken away", bob, pass)

	// Another account: both sides.
	f.setPolicy(k.KeyID, keyPolicyText(statement("Allow", own+":*", "kms:*", ""), statement("Allow", otherUser.Principal, "kms:Encrypt", "")))
	expect("one side of two", otherUser, KeyNotFound)
	f.attach(otherUser.Principal, identityPolicyText("Allow", "kms:*", "*"))
	expect("both sides", otherUser, pass)
	if _, err := f.DescribeKey(ctx, otherUser, &kmswire.DescribeKeyRequest{KeyID: k.Arn}); !errors.Is(err, KeyNotFound) {
		t.Errorf("eve sees the key: %v", err)
	}
	if got, err := f.db.Key(ctx, k.KeyID); err != nil || len(got.OtherAccounts) != 1 || got.OtherAccounts[0] != otherAccount {
		t.Errorf("the other account is not counted: %+v, %v", got, err)
	}

	// An explicit Deny holds for the root too, and it can still mend that.
	f.setPolicy(k.KeyID, keyPolicyText(statement("Allow", own+":*", "kms:*", ""), statement("Deny", own+":*", "kms:*", "")))
	expect("a Deny for all", root, Denied)
	expect("a Deny for all", user, Denied)
	if _, err := f.GetKeyPolicy(ctx, user, &kmswire.GetKeyPolicyRequest{KeyID: k.KeyID}); !errors.Is(err, Denied) {
		t.Errorf("a denied user sees the policy: %v", err)
	}

	// Conditions.
	for _, c := range []struct {
		condition string
		actor     *Actor
		want      Code
	}{
		{`"StringEquals":{"kms:tag/team":"x"}`, user, Denied},
		{`"StringEquals":{"kms:EncryptionAlgorithm":"SYMMETRIC_DEFAULT"}`, user, pass},
		{`"StringEquals":{"keyward:Unit":"backup.service"}`, bob, pass},
		{`"StringEquals":{"keyward:Unit":"backup.service"}`, user, Denied},
		{`"NumericEquals":{"keyward:Uid":"1000"}`, bob, pass},
		{`"NumericEquals":{"keyward:Uid":"0"}`, remoteUser, Denied}, // no local user at all
		{`"IpAddress":{"acs:SourceIp":"10.0.0.0/8"}`, remoteUser, pass},
		{`"IpAddress":{"acs:SourceIp":"10.0.0.0/8"}`, user, Denied},
		{`"IpAddress":{"acs:SourceIp":"192.168.0.0/16"}`, remoteUser, Denied},
		{`"DateLessThan":{"acs:CurrentTime":"2020-01-01T00:00:00Z"}`, user, Denied},
	} {
		f.setPolicy(k.KeyID, keyPolicyText(statement("Allow", own+":*", "kms:*", `,"Condition":{`+c.condition+`}`)))
		if err := f.Principals().DetachPolicy(ctx, root, user.Principal, "test"); err != nil && !errors.Is(err, ResourceNotFound) {
			t.Fatal(err)
		}
		expect(c.condition, c.actor, c.want)
	}
}

// TestAccessToLists: who may make keys, see lists and name keys.
func TestAccessToLists(t *testing.T) {
	ctx := context.Background()
	f := newPolicyFixture(t)
	if _, err := f.Principals().Create(ctx, root, user.Principal, ""); err != nil {
		t.Fatal(err)
	}
	create := func() error {
		_, err := f.CreateKey(ctx, user, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software"})
		return err
	}
	list := func() error {
		_, err := f.ListKeys(ctx, user, &kmswire.ListKeysRequest{})
		return err
	}
	wantCode(t, "CreateKey without a policy", create(), Denied)
	if err := list(); err != nil {
		t.Error(err)
	}
	f.attach(user.Principal, identityPolicyText("Allow", "kms:CreateKey", "acs:kms:local:"+testAccount+":key"))
	if err := create(); err != nil {
		t.Error(err)
	}
	f.attach(user.Principal, identityPolicyText("Deny", "kms:ListKeys", "*"))
	wantCode(t, "ListKeys, denied", list(), Denied)

	k := f.create(software, kmswire.AES256, "")
	f.attach(user.Principal, identityPolicyText("Deny", "kms:CreateAlias", "acs:kms:*:*:alias/prod/*"))
	name := func(alias string) error {
		_, err := f.CreateAlias(ctx, user, &kmswire.CreateAliasRequest{AliasName: alias, KeyID: k.KeyID})
		return err
	}
	wantCode(t, "an alias that is denied", name("alias/prod/db"), Denied)
	if err := name("alias/test/db"); err != nil {
		t.Error(err)
	}
}

func TestKeyPolicies(t *testing.T) {
	ctx := context.Background()
	f := newPolicyFixture(t)
	k := f.create(software, kmswire.AES256, "")
	get := func() string {
		r, err := f.GetKeyPolicy(ctx, root, &kmswire.GetKeyPolicyRequest{KeyID: k.Arn})
		if err != nil {
			t.Fatal(err)
		}
		return r.Policy
	}
	if want := string(policy.Default(policy.KeyOwner{Account: testAccount})); get() != want {
		t.Errorf("the default policy is %s, want %s", get(), want)
	}
	for text, want := range map[string]string{
		`{"Version":"1"}`: "Statement",
		`{"Version":"2","Statement":[` + statement("Allow", root.Principal, "kms:*", "") + `]}`: "Version",
		keyPolicyText(statement("Maybe", root.Principal, "kms:*", "")):                          "Statement[0].Effect",
		keyPolicyText(statement("Allow", otherUser.Principal, "kms:DisableKey", "")):            "administrators",
	} {
		_, err := f.SetKeyPolicy(ctx, root, &kmswire.SetKeyPolicyRequest{KeyID: k.KeyID, Policy: json.RawMessage(text)})
		if e := AsError(err); e.Code != InvalidParameter || e.Param != "Policy" || !strings.Contains(e.Detail, want) {
			t.Errorf("%s: %v, want a word of %s", text, err, want)
		}
	}
	text := keyPolicyText(statement("Allow", root.Principal, "kms:*", ""))
	f.setPolicy(k.KeyID, text)
	if get() != text {
		t.Errorf("the policy came back as %s", get())
	}
	// The default policy is no policy of the key's own: what owns the key later counts.
	f.setPolicy(k.KeyID, string(policy.Default(policy.KeyOwner{Account: testAccount})))
	if kept, err := f.db.Key(ctx, k.KeyID); err != nil || kept.Policy != "" {
		t.Errorf("the default policy is kept as %+v, %v", kept, err)
	}
	f.setPolicy(k.KeyID, text)
	_, err := f.GetKeyPolicy(ctx, root, &kmswire.GetKeyPolicyRequest{KeyID: k.KeyID, PolicyName: "other"})
	wantCode(t, "another name", err, ResourceNotFound)
	_, err = f.SetKeyPolicy(ctx, root, &kmswire.SetKeyPolicyRequest{KeyID: k.KeyID, PolicyName: "other", Policy: json.RawMessage(text)})
	wantCode(t, "another name", err, InvalidParameter)
	made, err := f.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", Policy: json.RawMessage(text)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Encrypt(ctx, user, &kmswire.EncryptRequest{KeyID: made.KeyMetadata.KeyID, Plaintext: []byte("x")})
	wantCode(t, "a key made with a policy", err, Denied)
}

// TestDamagedPolicy: a policy that can't be read closes the key, but for who can mend it.
func TestDamagedPolicy(t *testing.T) {
	ctx := context.Background()
	f := newPolicyFixture(t)
	k := f.create(software, kmswire.AES256, "")
	old, err := f.db.Key(ctx, k.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	next := *old
	next.Policy = `{"Version":"9"}`
	if err := f.db.Change().UpdateKey(old, &next).Commit(ctx); err != nil {
		t.Fatal(err)
	}
	for _, a := range []*Actor{root, user} {
		_, err := f.Encrypt(ctx, a, &kmswire.EncryptRequest{KeyID: k.KeyID, Plaintext: []byte("x")})
		wantCode(t, "Encrypt with a damaged policy", err, KeyUnavailable)
	}
	_, err = f.SetKeyPolicy(ctx, user, &kmswire.SetKeyPolicyRequest{KeyID: k.KeyID, Policy: policy.Default(policy.KeyOwner{Account: testAccount})})
	wantCode(t, "a user mends it", err, KeyUnavailable)
	f.setPolicy(k.KeyID, string(policy.Default(policy.KeyOwner{Account: testAccount})))
	if _, err := f.Encrypt(ctx, user, &kmswire.EncryptRequest{KeyID: k.KeyID, Plaintext: []byte("x")}); err != nil {
		t.Error(err)
	}
}

func TestPrincipalAdministration(t *testing.T) {
	ctx := context.Background()
	f := newPolicyFixture(t)
	p := f.Principals()
	otherRoot := &Actor{Principal: "acs:ram::" + otherAccount + ":root", Account: otherAccount}

	// Who may.
	_, err := p.Create(ctx, user, "acs:ram::"+testAccount+":user/x", "")
	wantCode(t, "a user makes a user", err, Denied)
	_, err = p.Create(ctx, otherRoot, "acs:ram::"+testAccount+":user/x", "")
	wantCode(t, "another account's root", err, Denied)
	_, err = p.Create(ctx, root, "acs:ram::3000000000000003:user/x", "")
	wantCode(t, "an account that is not there", err, ResourceNotFound)
	for _, arn := range []string{"acs:ram::" + testAccount + ":root", "acs:ram::" + testAccount + ":*", "x", ""} {
		if _, err := p.Create(ctx, root, arn, ""); err == nil {
			t.Errorf("%q was made", arn)
		}
	}
	if _, err := p.Create(ctx, root, otherUser.Principal, "of the other account"); err != nil {
		t.Error(err)
	}
	if _, err := p.Create(ctx, otherRoot, "acs:ram::"+otherAccount+":role/ops", ""); err != nil {
		t.Error(err)
	}
	_, err = p.Create(ctx, otherRoot, otherUser.Principal, "")
	wantCode(t, "twice", err, OperationRejected)

	// Access keys: two, the secret once, and what becomes of them.
	key, err := p.CreateAccessKey(ctx, otherRoot, otherUser.Principal)
	if err != nil {
		t.Fatal(err)
	}
	secret, principal, account, active, err := f.AccessKey(ctx, key.ID)
	if err != nil || string(secret) != string(key.Secret) || len(secret) != accessSecretLen || principal != otherUser.Principal || account != otherAccount || !active {
		t.Errorf("access key: %q %s %s %t %v", secret, principal, account, active, err)
	}
	if _, err := p.CreateAccessKey(ctx, root, otherUser.Principal); err != nil {
		t.Error(err)
	}
	_, err = p.CreateAccessKey(ctx, root, otherUser.Principal)
	wantCode(t, "a third access key", err, LimitExceeded)
	wantCode(t, "a stranger disables it", p.SetAccessKeyActive(ctx, user, key.ID, false), ResourceNotFound)
	if err := p.SetAccessKeyActive(ctx, otherRoot, key.ID, false); err != nil {
		t.Error(err)
	}
	if _, _, _, active, _ := f.AccessKey(ctx, key.ID); active {
		t.Error("a disabled access key is active")
	}
	if err := p.DeleteAccessKey(ctx, otherRoot, key.ID); err != nil {
		t.Error(err)
	}
	_, _, _, _, err = f.AccessKey(ctx, key.ID)
	wantCode(t, "a deleted access key", err, ResourceNotFound)
	if _, err := p.CreateAccessKey(ctx, root, root.Principal); err != nil {
		t.Errorf("an access key of the root: %v", err)
	}

	// The audit names whom it was about, and never a secret.
	for _, e := range f.events.all {
		if strings.Contains(e.Detail, string(key.Secret)) {
			t.Errorf("the event of %s has the secret", e.Action)
		}
	}
	if e := f.events.last(); e.Action != "CreateAccessKey" || !strings.Contains(e.Detail, root.Principal) {
		t.Errorf("event: %+v", e)
	}

	if err := p.Delete(ctx, otherRoot, otherUser.Principal); err != nil {
		t.Error(err)
	}
	list, total, err := p.List(ctx, root, otherAccount, 0, 10)
	if err != nil || total != 1 || list[0].ARN != "acs:ram::"+otherAccount+":role/ops" {
		t.Errorf("list: %v %d %v", list, total, err)
	}
	_, _, err = p.List(ctx, otherRoot, testAccount, 0, 10)
	wantCode(t, "a list of another account", err, Denied)
	if got := fmt.Sprint(p.Accounts(root), p.Accounts(otherRoot), p.Accounts(user)); got != fmt.Sprint([]string{testAccount, otherAccount}, []string{otherAccount}, []string(nil)) {
		t.Errorf("accounts: %s", got)
	}
}

func TestAttachPolicyLimits(t *testing.T) {
	ctx := context.Background()
	f := newPolicyFixture(t)
	p := f.Principals()
	doc := identityPolicyText("Allow", "kms:Encrypt", "*")
	wantCode(t, "nobody", p.AttachPolicy(ctx, root, user.Principal, "a", doc), ResourceNotFound)
	if _, err := p.Create(ctx, root, user.Principal, ""); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "a b", "a/b", strings.Repeat("a", maxPolicyName+1)} {
		if err := p.AttachPolicy(ctx, root, user.Principal, name, doc); err == nil {
			t.Errorf("a policy called %q", name)
		}
	}
	wantCode(t, "a key policy", p.AttachPolicy(ctx, root, user.Principal, "a", keyPolicyText(statement("Allow", root.Principal, "kms:*", ""))), InvalidParameter)
	for i := range maxIdentityPolicies {
		if err := p.AttachPolicy(ctx, root, user.Principal, fmt.Sprint("p", i), doc); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, "one more", p.AttachPolicy(ctx, root, user.Principal, "more", doc), LimitExceeded)
	if err := p.AttachPolicy(ctx, root, user.Principal, "p3", doc); err != nil {
		t.Errorf("in place of one: %v", err)
	}
	wantCode(t, "detach none", p.DetachPolicy(ctx, root, user.Principal, "more"), ResourceNotFound)
}

func TestSimulate(t *testing.T) {
	ctx := context.Background()
	f := newPolicyFixture(t)
	k := f.create(software, kmswire.AES256, "")
	ask := func(who, action, text string) *Simulated {
		t.Helper()
		d, err := f.Principals().Simulate(ctx, root, &Simulation{Principal: who, Action: action, Key: k.KeyID, Policy: text})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if d := ask(user.Principal, "kms:Encrypt", ""); !d.Allowed || d.Reason == "" {
		t.Errorf("under the default policy: %+v", d)
	}
	if d := ask(user.Principal, "kms:Encrypt", keyPolicyText(statement("Allow", root.Principal, "kms:*", ""))); d.Allowed || d.Reason == "" {
		t.Errorf("under a policy that is tried: %+v", d)
	}
	if _, err := f.Encrypt(ctx, user, &kmswire.EncryptRequest{KeyID: k.KeyID, Plaintext: []byte("x")}); err != nil {
		t.Errorf("trying a policy changed the key: %v", err)
	}
	_, err := f.Principals().Simulate(ctx, user, &Simulation{Principal: user.Principal, Action: "kms:Encrypt", Key: k.KeyID})
	wantCode(t, "a user simulates", err, Denied)
	_, err = f.Principals().Simulate(ctx, root, &Simulation{Principal: user.Principal, Action: "Encrypt", Key: k.KeyID})
	wantCode(t, "no action", err, InvalidParameter)
	// What is about the token of an instance.
	if _, err := f.Principals().Create(ctx, root, user.Principal, ""); err != nil {
		t.Fatal(err)
	}
	f.attach(user.Principal, identityPolicyText("Allow", "kms:CreateTokenObject", "acs:kms:*:*:keystore/kst-software"))
	for action, rows := range map[string]map[string]bool{
		"kms:CreateTokenObject":   {"kst-software": true, "kst-hardware": false},
		"kms:DeleteTokenObject":   {"kst-software": false},
		"kms:DescribeTokenObject": {"kst-software": true},
	} {
		for instance, want := range rows {
			d, err := f.Principals().Simulate(ctx, root, &Simulation{Principal: user.Principal, Action: action, Key: instance})
			if err != nil || d.Allowed != want || d.Reason == "" {
				t.Errorf("%s in %s: %+v %v", action, instance, d, err)
			}
		}
	}
	_, err = f.Principals().Simulate(ctx, root, &Simulation{Principal: user.Principal, Action: "kms:CreateTokenObject"})
	wantCode(t, "in no instance", err, MissingParameter)
}

// TestSimulateRoles: what is told of keys with a role is what happens to them.
func TestSimulateRoles(t *testing.T) {
	ctx := context.Background()
	f := newPolicyFixture(t)
	service := &Actor{Principal: "acs:ram::" + testAccount + ":role/volumes", Account: testAccount}
	f.SetServices([]ServicePrincipal{{Code: "volumes", Name: "Volumes", Principals: []string{service.Principal}}})
	own, err := f.EnableDefaultKey(ctx, service, &kmswire.EnableDefaultKeyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	shared, err := f.EnableDefaultKey(ctx, root, &kmswire.EnableDefaultKeyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		key     kmswire.KeyMetadata
		who     string
		action  string
		allowed bool
		reason  string
	}{
		{own.KeyMetadata, service.Principal, "kms:Encrypt", true, "needs no policy"},
		{own.KeyMetadata, service.Principal, "kms:DisableKey", false, "which may use it"},
		{own.KeyMetadata, user.Principal, "kms:Encrypt", false, "belongs to service"},
		{own.KeyMetadata, user.Principal, "kms:DescribeKey", true, ""},
		{shared.KeyMetadata, user.Principal, "kms:Encrypt", true, ""},
		{shared.KeyMetadata, root.Principal, "kms:SetKeyPolicy", false, "default key"},
	} {
		d, err := f.Principals().Simulate(ctx, root, &Simulation{Principal: row.who, Action: row.action, Key: row.key.KeyID})
		if err != nil {
			t.Fatal(err)
		}
		if d.Allowed != row.allowed || !strings.Contains(d.Reason, row.reason) {
			t.Errorf("%s %s: %t, %s", row.who, row.action, d.Allowed, d.Reason)
		}
	}
}
