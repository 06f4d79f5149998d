package kms

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/policy"
)

func TestRotateAccessKey(t *testing.T) {
	ctx := context.Background()
	f := newPolicyFixture(t)
	p := f.Principals()
	if _, err := p.Create(ctx, root, user.Principal, ""); err != nil {
		t.Fatal(err)
	}
	old, err := p.CreateAccessKey(ctx, root, user.Principal)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.RotateAccessKey(ctx, user, old.ID, true)
	wantCode(t, "by a user", err, ResourceNotFound)
	_, err = p.RotateAccessKey(ctx, root, "KWAKNONE", true)
	wantCode(t, "none", err, ResourceNotFound)

	next, err := p.RotateAccessKey(ctx, root, old.ID, false)
	if err != nil {
		t.Fatal(err)
	}
	if next.ID == old.ID || bytes.Equal(next.Secret, old.Secret) || next.Principal != user.Principal {
		t.Errorf("the second is %s of %s", next.ID, next.Principal)
	}
	if e := f.events.last(); e.Action != "RotateAccessKey" || !strings.Contains(e.Detail, old.ID+" to "+next.ID) || strings.Contains(e.Detail, string(next.Secret)) {
		t.Errorf("event: %+v", e)
	}
	if _, _, _, active, err := f.AccessKey(ctx, old.ID); err != nil || !active {
		t.Errorf("the old one: %t, %v", active, err)
	}

	// There is no room for a third, and nothing is disabled then.
	_, err = p.RotateAccessKey(ctx, root, old.ID, true)
	wantCode(t, "a third", err, LimitExceeded)
	if _, _, _, active, err := f.AccessKey(ctx, old.ID); err != nil || !active {
		t.Errorf("the old one after a rotation that failed: %t, %v", active, err)
	}

	if err := p.DeleteAccessKey(ctx, root, old.ID); err != nil {
		t.Fatal(err)
	}
	third, err := p.RotateAccessKey(ctx, root, next.ID, true)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{next.ID: false, third.ID: true} {
		if _, who, _, active, err := f.AccessKey(ctx, id); err != nil || active != want || who != user.Principal {
			t.Errorf("%s: %s, %t, %v", id, who, active, err)
		}
	}
}

// TestSimulateAsCalled holds Simulate against what the calls themselves say.
func TestSimulateAsCalled(t *testing.T) {
	ctx := context.Background()
	f := newPolicyFixture(t)
	k := f.create(software, kmswire.AES256, "")
	f.setPolicy(k.KeyID, keyPolicyText(
		statement("Allow", root.Principal, "kms:*", ""),
		statement("Allow", user.Principal, "kms:Encrypt", `,"Condition":{"StringEquals":{"kms:EncryptionAlgorithm":["SYMMETRIC_DEFAULT"]}}`)))
	for _, a := range []*Actor{user, bob} {
		if _, err := f.Principals().Create(ctx, root, a.Principal, ""); err != nil {
			t.Fatal(err)
		}
	}
	f.attach(bob.Principal, identityPolicyText("Deny", "kms:ListKeys", "*"))
	f.attach(user.Principal, identityPolicyText("Allow", "kms:CreateKey", "*"))
	for _, row := range []struct {
		actor  *Actor
		action string
		call   func(*Actor) error
	}{
		{user, "kms:Encrypt", func(a *Actor) error {
			_, err := f.Encrypt(ctx, a, &kmswire.EncryptRequest{KeyID: k.KeyID, Plaintext: []byte("x")})
			return err
		}},
		{user, "kms:DisableKey", func(a *Actor) error {
			_, err := f.DisableKey(ctx, a, &kmswire.DisableKeyRequest{KeyID: k.KeyID})
			return err
		}},
		{user, "kms:ListKeys", func(a *Actor) error {
			_, err := f.ListKeys(ctx, a, &kmswire.ListKeysRequest{})
			return err
		}},
		{bob, "kms:listkeys", func(a *Actor) error {
			_, err := f.ListKeys(ctx, a, &kmswire.ListKeysRequest{})
			return err
		}},
		{bob, "kms:ListAliases", func(a *Actor) error {
			_, err := f.ListAliases(ctx, a, &kmswire.ListAliasesRequest{})
			return err
		}},
		{user, "kms:CreateKey", func(a *Actor) error {
			_, err := f.CreateKey(ctx, a, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software"})
			return err
		}},
		{bob, "kms:CreateKey", func(a *Actor) error {
			_, err := f.CreateKey(ctx, a, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software"})
			return err
		}},
	} {
		q := &Simulation{Principal: row.actor.Principal, Action: row.action}
		if strings.HasSuffix(row.action, "crypt") || strings.HasSuffix(row.action, "DisableKey") {
			q.Key = k.KeyID
		}
		d, err := f.Principals().Simulate(ctx, root, q)
		if err != nil {
			t.Errorf("%s %s: %v", row.actor.Principal, row.action, err)
			continue
		}
		if err := row.call(row.actor); d.Allowed != (err == nil) || d.Reason == "" {
			t.Errorf("%s %s: simulated %t (%s), and the call says %v", row.actor.Principal, row.action, d.Allowed, d.Reason, err)
		}
		if len(d.Policies) != len(d.Identity) || len(d.Policies) != 1 {
			t.Errorf("identity policies %q and %d decisions", d.Policies, len(d.Identity))
		}
	}
	for _, q := range []Simulation{
		{Action: "kms:Encript", Key: k.KeyID}, {Action: "kms:BatchEncrypt", Key: k.KeyID}, {Action: "kms:ReEncrypt", Key: k.KeyID}, {Action: "kms:ListKeys", Key: k.KeyID},
	} {
		q.Principal = user.Principal
		_, err := f.Principals().Simulate(ctx, root, &q)
		wantCode(t, q.Action, err, InvalidParameter)
	}
	_, err := f.Principals().Simulate(ctx, root, &Simulation{Principal: user.Principal, Action: "kms:Encrypt"})
	wantCode(t, "no key", err, MissingParameter)
}

// TestPresetsFitTheActions holds the ready-made identity policies against the table of actions: what looks, and what uses a key.
func TestPresetsFitTheActions(t *testing.T) {
	who, err := policy.ParsePrincipal(user.Principal)
	if err != nil {
		t.Fatal(err)
	}
	doc := map[string]*policy.Document{}
	for _, name := range []string{"read-only", "crypto"} {
		text, err := policy.Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		if doc[name], err = policy.ParseIdentity(text); err != nil {
			t.Fatal(err)
		}
	}
	// GetRandomPassword and the check are asked of no key policy, or make something; GenerateCsr signs with a name of the caller's choice.
	aside := map[*action]bool{actGetRandomPassword: true, actStartKeyAssociationCheck: true, actGenerateCsr: true, actReEncrypt: true}
	for _, a := range actions {
		if aside[a] {
			continue
		}
		r := &policy.Request{Principal: who, Action: a.perm, Resource: policy.Resource{Region: "local", Account: testAccount, Kind: policy.Key, ID: "key-1"}}
		if got, want := doc["read-only"].Evaluate(r) == policy.Allow, a.kind == kindRead || a == actGetPublicKey; got != want {
			t.Errorf("read-only allows %s: %t", a.name, got)
		}
		if got := doc["crypto"].Evaluate(r) == policy.Allow; got != (a.kind == kindCrypto) && a.kind != kindRead {
			t.Errorf("crypto allows %s: %t", a.name, got)
		}
	}
}
