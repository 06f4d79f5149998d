package kms

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

func index(pool *hsmpool.Pool, member string) int {
	return slices.IndexFunc(pool.Status(), func(m hsmpool.Status) bool { return m.Name == member })
}

// waitFor waits for something that happens by itself.
func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
	}
}

// TestLifeInHSMs is about keys whose material is in HSMs: what is destroyed there, and when the HSM is away.
func TestLifeInHSMs(t *testing.T) {
	ctx := context.Background()
	hsm := hsmtest.New(t, "north", "south")
	hsm.Ceremony(t)
	pool := hsm.Open(t)
	pinnedKey := func(w *world) (string, *keystore.Version) {
		t.Helper()
		// Making a token object is the one thing that the pool does not try again by itself: its caller does.
		var r *kmswire.CreateKeyResponse
		err := error(HSMUnavailable)
		for try := 0; errors.Is(err, HSMUnavailable) && try < 3; try++ {
			r, err = w.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware", KeyStorageMechanism: kmswire.HsmInternal})
		}
		if err != nil {
			t.Fatal(err)
		}
		id := r.KeyMetadata.KeyID
		versions, _, err := w.db.Versions(ctx, id, 0, 1)
		if err != nil || len(versions) != 1 || versions[0].Member == "" {
			t.Fatalf("%+v, %v", versions, err)
		}
		return id, versions[0]
	}
	objects := func(v *keystore.Version) int {
		t.Helper()
		n, err := pool.DestroyPinned(ctx, v.Member, v.ObjectID) // destroys what it finds, so it is asked last
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	take := func(member string) {
		t.Helper()
		hsm.Remove(t, member)
		waitFor(t, func() bool { return pool.Status()[index(pool, member)].State == "down" })
	}
	back := func(member string) {
		t.Helper()
		hsm.Restore(t, member)
		waitFor(t, func() bool { return pool.Status()[index(pool, member)].State == "up" })
	}

	t.Run("rotation", func(t *testing.T) {
		w := newWorld(t, pool)
		m := w.create(kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware", EnableAutomaticRotation: true, RotationInterval: "7d"})
		blob := w.encrypt(m.KeyID, "first")
		w.live(7 * day)
		if w.describe(m.KeyID).PrimaryKeyVersion == m.PrimaryKeyVersion {
			t.Error("not rotated")
		}
		w.wantDecrypts(blob, "first")
		w.wantDecrypts(w.encrypt(m.KeyID, "second"), "second")
	})

	t.Run("deletion while the HSM is away", func(t *testing.T) {
		w := newWorld(t, pool)
		id, v := pinnedKey(w)
		other := w.create(kmswire.CreateKeyRequest{}).KeyID
		for _, id := range []string{id, other} {
			if err := w.schedule(id, 7); err != nil {
				t.Fatal(err)
			}
		}
		w.live(7*day - time.Hour)
		take(v.Member)
		w.live(2 * time.Hour)
		if w.gone(id) {
			t.Fatal("the key is gone, and its object is not")
		}
		k, err := w.db.Key(ctx, id)
		if err != nil || !k.Deleting {
			t.Fatalf("%+v, %v", k, err)
		}
		_, err = w.CancelKeyDeletion(ctx, root, &kmswire.CancelKeyDeletionRequest{KeyID: id})
		wantCode(t, "cancelling what has begun", err, StateNotAllowed)
		if !w.gone(other) {
			t.Error("another key waits for an HSM that it does not need")
		}
		w.live(2 * day)
		if p := w.Problems(); len(p) != 1 {
			t.Errorf("problems %q", p)
		}
		w.restart()
		back(v.Member)
		w.live(2 * time.Hour)
		if !w.gone(id) {
			t.Error("the deletion did not go on")
		}
		if _, err := w.db.Tombstone(ctx, id); err != nil {
			t.Error(err)
		}
		if n := objects(v); n != 0 {
			t.Errorf("%d objects are left", n)
		}
	})

	// A process that dies at any commit of it: once there is a tombstone there is no object, and there will be none.
	t.Run("torn deletion", func(t *testing.T) {
		for budget := 1; budget < 5; budget++ {
			w := newWorld(t, pool)
			id, v := pinnedKey(w)
			if err := w.schedule(id, 7); err != nil {
				t.Fatal(err)
			}
			w.live(7*day - time.Hour)
			w.disk.mu.Lock()
			w.disk.budget = budget
			w.disk.mu.Unlock()
			w.live(time.Hour + time.Minute)
			w.end()
			w.start()
			if k, err := w.db.Key(ctx, id); err == nil && !k.Deleting {
				w.wantState(id, kmswire.PendingDeletion)
			}
			w.live(2 * time.Hour)
			if !w.gone(id) {
				t.Errorf("budget %d: the deletion did not go on", budget)
			}
			if n := objects(v); n != 0 {
				t.Errorf("budget %d: %d objects are left", budget, n)
			}
		}
	})

	t.Run("expiry while the HSM is away", func(t *testing.T) {
		w := newWorld(t, pool)
		id, v := pinnedKey(w)
		at := w.now().Add(10 * day)
		w.edit(id, func(k *keystore.Key) {
			k.Origin, k.MaterialExpires, k.MaterialAfter = kmswire.OriginExternal, &at, w.clock.after(10*day)
		})
		take(v.Member)
		w.live(10*day + time.Minute)
		w.wantState(id, kmswire.PendingImport)
		if i, err := w.db.Intents(ctx); err != nil || len(i) != 1 {
			t.Errorf("intents %v, %v", i, err)
		}
		back(v.Member)
		w.live(2 * time.Hour)
		if i, err := w.db.Intents(ctx); err != nil || len(i) != 0 {
			t.Errorf("intents %v, %v", i, err)
		}
		if n := objects(v); n != 0 {
			t.Errorf("%d objects are left", n)
		}
	})
}
