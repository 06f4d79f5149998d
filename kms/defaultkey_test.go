package kms

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

func (f *storeFixture) enableDefault(actor *Actor) kmswire.KeyMetadata {
	f.t.Helper()
	r, err := f.EnableDefaultKey(context.Background(), actor, &kmswire.EnableDefaultKeyRequest{})
	if err != nil {
		f.t.Fatalf("EnableDefaultKey: %v", err)
	}
	return r.KeyMetadata
}

func TestDefaultKey(t *testing.T) {
	ctx := t.Context()
	f := newStoreFixture(t, Instance{ID: "kst-a", Type: SoftwareInstance, Keys: 1})
	m := f.enableDefault(root)
	if m.DKMSInstanceID != "" || m.KeySpec != kmswire.AES256 || m.KeyUsage != kmswire.EncryptDecrypt || m.Origin != kmswire.OriginKMS ||
		m.ProtectionLevel != kmswire.ProtectionSoftware || m.KeyState != kmswire.Enabled || m.Creator != testAccount || !strings.HasPrefix(m.KeyID, "key-") {
		t.Errorf("the default key is %+v", m)
	}
	if begun := f.events.all[0]; begun.Outcome != "begun" || begun.KeyID != m.KeyID {
		t.Errorf("the first event is %+v", begun)
	}
	// Enabling again gives the same key, also to a new process, and makes nothing.
	f.Service = f.start()
	if again := f.enableDefault(root); again.KeyID != m.KeyID {
		t.Errorf("enabled again it is %s, was %s", again.KeyID, m.KeyID)
	}
	if e := f.events.last(); e.KeyID != m.KeyID || e.Outcome != "ok" || e.VersionID != "" {
		t.Errorf("the event is %+v", e)
	}
	if l, err := f.ListKeys(ctx, root, &kmswire.ListKeysRequest{}); err != nil || l.TotalCount != 1 {
		t.Errorf("%+v %v", l, err)
	}
	_, err := f.EnableDefaultKey(ctx, user, &kmswire.EnableDefaultKeyRequest{})
	wantCode(t, "a user", err, Denied)
	// Each account has its own, and none costs an instance anything.
	if other := f.enableDefault(third); other.KeyID == m.KeyID {
		t.Error("two accounts have one default key")
	}
	if q := f.quota("kst-a", "key"); q.UsedQuantity != 0 {
		t.Errorf("the instance counts %d versions", q.UsedQuantity)
	}
	f.make("kst-a", root)
	if _, err := f.CreateKeyVersion(ctx, root, &kmswire.CreateKeyVersionRequest{KeyID: m.KeyID}); err != nil {
		t.Errorf("a version of the default key in front of a full instance: %v", err)
	}
	wantCode(t, "another account's use", f.encrypt(third, m.Arn), KeyNotFound)
	if err := f.encrypt(user, m.KeyID); err != nil {
		t.Error(err)
	}
	_, err = f.AsymmetricSign(ctx, root, &kmswire.AsymmetricSignRequest{KeyID: m.KeyID, KeyVersionID: "x", Algorithm: kmswire.ECDSASHA256, Digest: make([]byte, 32)})
	wantCode(t, "a signature", err, OperationRejected)

	// When it is deleted another may be enabled.
	k, err := f.db.Key(ctx, m.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.db.Change().DeleteKey(k, f.clock()).Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if next := f.enableDefault(root); next.KeyID == m.KeyID {
		t.Error("the deleted key is given")
	}
}

func TestCreateKeyWithoutInstance(t *testing.T) {
	ctx := t.Context()
	f := newStoreFixture(t, Instance{ID: "kst-a", Type: SoftwareInstance})
	for name, row := range map[string]struct {
		req  kmswire.CreateKeyRequest
		want Code
	}{
		"asymmetric":       {kmswire.CreateKeyRequest{KeySpec: kmswire.RSA2048}, InvalidParameter},
		"a short key":      {kmswire.CreateKeyRequest{KeySpec: kmswire.AES128}, InvalidParameter},
		"another use":      {kmswire.CreateKeyRequest{KeyUsage: kmswire.SignVerify}, InvalidParameter},
		"HSM":              {kmswire.CreateKeyRequest{ProtectionLevel: kmswire.ProtectionHSM}, UnsupportedProtection},
		"storage":          {kmswire.CreateKeyRequest{KeyStorageMechanism: kmswire.HsmInternal}, InvalidParameter},
		"unknown instance": {kmswire.CreateKeyRequest{DKMSInstanceID: "kst-x"}, InvalidParameter},
	} {
		_, err := f.CreateKey(ctx, root, &row.req)
		wantCode(t, name, err, row.want)
	}
	_, err := f.CreateKey(ctx, user, &kmswire.CreateKeyRequest{})
	wantCode(t, "a user", err, Denied)

	r, err := f.CreateKey(ctx, root, &kmswire.CreateKeyRequest{ProtectionLevel: kmswire.ProtectionSoftware, Description: "for all", AliasName: "alias/mine", Tags: []byte(`[{"TagKey":"a","TagValue":"b"}]`)})
	if err != nil {
		t.Fatal(err)
	}
	if m := f.enableDefault(root); m.KeyID != r.KeyMetadata.KeyID || m.Description != "for all" {
		t.Errorf("the default key is %+v, made was %+v", m, r.KeyMetadata)
	}
	if err := f.encrypt(root, "alias/mine"); err != nil {
		t.Error(err)
	}
	// It can't be made twice, and the second try leaves nothing.
	_, err = f.CreateKey(ctx, root, &kmswire.CreateKeyRequest{AliasName: "alias/other"})
	wantCode(t, "a second default key", err, LimitExceeded)
	if d := AsError(err).Detail; !strings.Contains(d, r.KeyMetadata.KeyID) || !strings.Contains(d, "kst-a") {
		t.Errorf("the refusal is %q", d)
	}
	wantCode(t, "its name", f.encrypt(root, "alias/other"), AliasNotFound)

	// With a default instance there is no need of the default key, which can still be had.
	f.SetInstances([]Instance{{ID: "kst-a", Type: SoftwareInstance}, {ID: "kst-d", Type: SoftwareInstance, Default: true, Account: thirdAccount}})
	if m := f.make("", third); m.DKMSInstanceID != "kst-d" {
		t.Errorf("made in %q", m.DKMSInstanceID)
	}
	if m := f.enableDefault(third); m.DKMSInstanceID != "" {
		t.Errorf("the default key is in %q", m.DKMSInstanceID)
	}
	f.make("", third)
}

// Of many who enable the default key at once all get the same one.
func TestDefaultKeyAtOnce(t *testing.T) {
	const callers = 24
	f := newStoreFixture(t, Instance{ID: "kst-a", Type: SoftwareInstance})
	ids := make(chan string, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			if i%3 == 0 {
				_, err := f.CreateKey(context.Background(), root, &kmswire.CreateKeyRequest{AliasName: fmt.Sprint("alias/", i)})
				if err != nil && !errors.Is(err, LimitExceeded) && !errors.Is(err, Throttled) {
					t.Errorf("CreateKey: %v", err)
				}
				return
			}
			for {
				r, err := f.EnableDefaultKey(context.Background(), root, &kmswire.EnableDefaultKeyRequest{})
				if errors.Is(err, Throttled) {
					continue
				}
				if err != nil {
					t.Errorf("EnableDefaultKey: %v", err)
				} else {
					ids <- r.KeyMetadata.KeyID
				}
				return
			}
		})
	}
	wg.Wait()
	close(ids)
	want := f.enableDefault(root).KeyID
	for id := range ids {
		if id != want {
			t.Errorf("somebody got %s, the default key is %s", id, want)
		}
	}
	l, err := f.ListKeys(t.Context(), root, &kmswire.ListKeysRequest{})
	if err != nil || l.TotalCount != 1 {
		t.Errorf("%d keys were made, %v", l.TotalCount, err)
	}
	a, err := f.ListAliases(t.Context(), root, &kmswire.ListAliasesRequest{})
	if err != nil || a.TotalCount > 1 {
		t.Errorf("%d aliases were made, %v", a.TotalCount, err)
	}
}

func TestRoleInterval(t *testing.T) {
	for every, ok := range map[time.Duration]bool{365 * 24 * time.Hour: true, 365*24*time.Hour - time.Second: false, 366 * 24 * time.Hour: false, 0: false} {
		if err := checkRoleInterval(every); (err == nil) != ok {
			t.Errorf("%v: %v", every, err)
		}
	}
	c := &call{Service: newStoreFixture(t).Service}
	d := &draft{spec: specs[kmswire.AES256], key: &keystore.Key{Role: keystore.RoleDefault, AutoRotate: true, RotationInterval: 30 * 24 * time.Hour}}
	wantCode(t, "30 days", c.draftRole(d, &kmswire.CreateKeyRequest{}), InvalidParameter)
	d.key.RotationInterval = roleInterval
	if err := c.draftRole(d, &kmswire.CreateKeyRequest{}); err != nil {
		t.Error(err)
	}
	wantCode(t, "a policy", c.draftRole(d, &kmswire.CreateKeyRequest{Policy: []byte(`{}`)}), InvalidParameter)
}
