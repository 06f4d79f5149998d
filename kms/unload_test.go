package kms

import (
	"context"
	"testing"
	"time"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// TestUnload takes keys out of use in every way: afterwards no HSM has them loaded.
func TestUnload(t *testing.T) {
	ctx := context.Background()
	hsm := hsmtest.New(t, "north", "south")
	hsm.Ceremony(t)
	pool := hsm.Open(t)
	loaded := func() (n int) {
		for _, m := range pool.Status() {
			n += m.Keys
		}
		return n
	}
	want := func(t *testing.T, what string, n int) {
		t.Helper()
		if got := loaded(); got != n {
			t.Fatalf("%s: %d keys are loaded, want %d", what, got, n)
		}
	}
	// everywhere runs use with each member alone.
	everywhere := func(t *testing.T, use func()) {
		t.Helper()
		for _, m := range []string{"north", "south"} {
			if err := pool.Drain(ctx, m); err != nil {
				t.Fatal(err)
			}
			use()
			if err := pool.Undrain(m); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A key with two versions that both members have loaded, beside one that stays.
	world := func(t *testing.T) (w *world, id string, versions []*keystore.Version, use func()) {
		t.Helper()
		w = newWorld(t, pool)
		id = w.create(kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware"}).KeyID
		old := w.encrypt(id, "old")
		if _, err := w.CreateKeyVersion(ctx, root, &kmswire.CreateKeyVersionRequest{KeyID: id}); err != nil {
			t.Fatal(err)
		}
		use = func() {
			t.Helper()
			w.wantDecrypts(old, "old")
			w.wantDecrypts(w.encrypt(id, "new"), "new")
		}
		versions, _, err := w.db.Versions(ctx, id, 0, 10)
		if err != nil || len(versions) != 2 || versions[0].Wrapped == nil {
			t.Fatalf("%+v, %v", versions, err)
		}
		if err := pool.Forget(ctx, versions[0].ID, versions[1].ID); err != nil {
			t.Fatal(err)
		}
		return w, id, versions, use
	}

	t.Run("disabled, scheduled, destroyed", func(t *testing.T) {
		w, id, versions, use := world(t)
		base := loaded()
		everywhere(t, use)
		want(t, "in use", base+4)
		if _, err := w.DisableKey(ctx, root, &kmswire.DisableKeyRequest{KeyID: id}); err != nil {
			t.Fatal(err)
		}
		want(t, "disabled", base)
		if _, err := w.EnableKey(ctx, root, &kmswire.EnableKeyRequest{KeyID: id}); err != nil {
			t.Fatal(err)
		}
		everywhere(t, use)
		want(t, "enabled", base+4)
		if err := w.schedule(id, 7); err != nil {
			t.Fatal(err)
		}
		want(t, "scheduled", base)
		// However it was loaded meanwhile.
		everywhere(t, func() {
			j := &hsmpool.Job{Op: hsmpool.EncryptGCM, In: []byte("x"), Nonce: make([]byte, 12),
				Key: &hsmpool.Key{ID: versions[0].ID, Type: hsmpool.AES256, Usage: hsmpool.UseEncrypt, Wrapped: versions[0].Wrapped}}
			if err := pool.Do(ctx, j); err != nil {
				t.Fatal(err)
			}
		})
		want(t, "loaded again", base+2)
		w.live(7*day + time.Hour)
		if !w.gone(id) {
			t.Fatal("it is not destroyed")
		}
		want(t, "destroyed", base)
	})

	t.Run("material deleted", func(t *testing.T) {
		w, id, _, use := world(t)
		base := loaded()
		everywhere(t, use)
		at := w.now().Add(10 * day)
		w.edit(id, func(k *keystore.Key) {
			k.Origin, k.MaterialExpires, k.MaterialAfter = kmswire.OriginExternal, &at, w.clock.after(10*day)
		})
		w.live(10*day + time.Minute)
		w.wantState(id, kmswire.PendingImport)
		want(t, "expired", base)
	})

	// A call that has the key when it is disabled loads it afterwards: it takes it along when it ends.
	t.Run("disabled in use", func(t *testing.T) {
		w, id, versions, _ := world(t)
		base := loaded()
		k, err := w.db.Key(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		m, err := w.materials.get(ctx, grant{key: k, spec: specs[kmswire.AES256]}, versions[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.DisableKey(ctx, root, &kmswire.DisableKeyRequest{KeyID: id}); err != nil {
			t.Fatal(err)
		}
		everywhere(t, func() {
			if err := pool.Do(ctx, &hsmpool.Job{Op: hsmpool.EncryptGCM, Key: m.hsm, In: []byte("x"), Nonce: make([]byte, 12)}); err != nil {
				t.Fatal(err)
			}
		})
		want(t, "in use", base+2)
		m.release()
		want(t, "no longer", base)
	})
}
