package kms

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// TestStrangersLearnNothing asks for a key of another account, in whatever state that is, and for one that is not there: the answers are
// the same but for the name that was asked for.
func TestStrangersLearnNothing(t *testing.T) {
	ctx := context.Background()
	f := newPolicyFixture(t)
	stranger := &Actor{Principal: "acs:ram::" + otherAccount + ":root", Account: otherAccount}
	answer := func(id string, call func(id string) error) string {
		err := call(id)
		if err == nil {
			return "ok"
		}
		e := AsError(err)
		return fmt.Sprint(e.Code, "|", e.Param, "|", strings.ReplaceAll(e.Detail, id, "KEY"))
	}
	calls := map[string]func(id string) error{
		"DescribeKey": func(id string) error {
			_, err := f.DescribeKey(ctx, stranger, &kmswire.DescribeKeyRequest{KeyID: "acs:kms:local:" + testAccount + ":key/" + id})
			return err
		},
		"DescribeKey by ID": func(id string) error {
			_, err := f.DescribeKey(ctx, stranger, &kmswire.DescribeKeyRequest{KeyID: id})
			return err
		},
		"Encrypt": func(id string) error {
			_, err := f.Encrypt(ctx, stranger, &kmswire.EncryptRequest{KeyID: "acs:kms:local:" + testAccount + ":key/" + id, Plaintext: []byte("x")})
			return err
		},
		"dry run": func(id string) error {
			_, err := f.Encrypt(ctx, stranger, &kmswire.EncryptRequest{KeyID: "acs:kms:local:" + testAccount + ":key/" + id, Plaintext: []byte("x"), DryRun: true})
			return err
		},
		"GetKeyPolicy": func(id string) error {
			_, err := f.GetKeyPolicy(ctx, stranger, &kmswire.GetKeyPolicyRequest{KeyID: "acs:kms:local:" + testAccount + ":key/" + id, PolicyName: "default"})
			return err
		},
		"ListTagResources": func(id string) error {
			_, err := f.ListTagResources(ctx, stranger, &kmswire.ListTagResourcesRequest{RegionID: "local", ResourceType: "key", ResourceIDs: []string{"acs:kms:local:" + testAccount + ":key/" + id}})
			return err
		},
		"Simulate": func(id string) error {
			_, err := f.Principals().Simulate(ctx, stranger, &Simulation{Principal: stranger.Principal, Action: "kms:Encrypt", Key: "acs:kms:local:" + testAccount + ":key/" + id})
			return err
		},
	}
	edit := func(change func(*keystore.Key)) string {
		id := f.create(software, kmswire.AES256, "").KeyID
		k, err := f.db.Key(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		next := *k
		change(&next)
		if err := f.db.Change().UpdateKey(k, &next).Commit(ctx); err != nil {
			t.Fatal(err)
		}
		return id
	}
	keys := map[string]string{
		"a usual key":                     edit(func(*keystore.Key) {}),
		"one that waits to be deleted":    edit(func(k *keystore.Key) { k.State = string(kmswire.PendingDeletion) }),
		"one with a policy nobody reads":  edit(func(k *keystore.Key) { k.Policy = "{" }),
		"one of a later version's policy": edit(func(k *keystore.Key) { k.Policy = `{"Version":"2","Statement":[]}` }),
		"one of a later version's spec":   edit(func(k *keystore.Key) { k.Spec = "Aliyun_Later" }),
	}
	try := func(what string) {
		for name, call := range calls {
			want := answer("key-aaaaaaaaaaaaaaaaaaaa", call)
			for kind, id := range keys {
				if got := answer(id, call); got != want || got == "ok" {
					t.Errorf("%s%s of %s: %q, of none: %q", name, what, kind, got, want)
				}
			}
		}
	}
	try("")
	// Nor does a caller whose own policy is broken.
	p, err := f.db.Principal(ctx, stranger.Principal)
	if err != nil {
		t.Fatal(err)
	}
	record := *p
	record.Policies = []keystore.IdentityPolicy{{Name: "broken", Document: "{"}}
	if err := f.db.Change().CreatePrincipal(&record).Commit(ctx); err != nil {
		t.Fatal(err)
	}
	delete(calls, "Simulate") // which says so first
	try(" with a broken policy")
}

// TestAccessKeysOfAnAccountThatIsGone: nobody can manage the principals of an account that the configuration no longer has, so what
// they signed with must not work either.
func TestAccessKeysOfAnAccountThatIsGone(t *testing.T) {
	ctx := context.Background()
	f := newPolicyFixture(t)
	made, err := f.Principals().CreateAccessKey(ctx, root, "acs:ram::"+otherAccount+":root")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, active, err := f.AccessKey(ctx, made.ID); err != nil || !active {
		t.Fatalf("%t %v", active, err)
	}
	without, err := New(ctx, Config{Store: f.db, Region: "local", Account: testAccount, Accounts: []string{testAccount}, Audit: f.events, Log: zerolog.Nop(), Instances: f.instances.Load().all})
	if err != nil {
		t.Fatal(err)
	}
	defer without.Close()
	if secret, _, _, active, err := without.AccessKey(ctx, made.ID); !errors.Is(err, ResourceNotFound) || active || secret != nil {
		t.Errorf("it goes on working: %t %v", active, err)
	}
}
