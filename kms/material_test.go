package kms

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/blob"
)

func grantFor(keyID string) grant { return grant{key: &keystore.Key{ID: keyID}} }

// A caller with a grant for its own key asks for a version of another key while that is being loaded for its owner, and
// the other way round: neither may see the other's outcome.
func TestMaterialOfAnotherKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		c := newMaterialCache(func(_ context.Context, g grant, versionID string) (*material, error) {
			<-goOn
			if !strings.HasPrefix(versionID, g.key.ID) {
				return nil, versionNotFound(g, versionID)
			}
			return &material{version: &keystore.Version{ID: versionID, KeyID: g.key.ID}}, nil
		})
		ask := func(keyID string, err *error) {
			m, got := c.get(context.Background(), grantFor(keyID), "key-a-1")
			if got == nil {
				m.release()
			}
			*err = got
		}
		var stranger, owner error
		go ask("key-b", &stranger)
		synctest.Wait()
		go ask("key-a", &owner)
		synctest.Wait()
		close(goOn)
		synctest.Wait()
		if !errors.Is(stranger, VersionNotFound) {
			t.Errorf("the stranger got %v", stranger)
		}
		if owner != nil {
			t.Errorf("the owner got %v", owner)
		}
		for _, id := range []string{"", "key-a", "key-a1", "key-"} {
			if _, err := c.get(context.Background(), grantFor("key-a"), id); !errors.Is(err, VersionNotFound) {
				t.Errorf("version %q: %v", id, err)
			}
		}
	})
}

// What was dropped while it was loading is good for the call that loaded it, and is not kept.
func TestMaterialDroppedWhileLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		loads := 0
		c := newMaterialCache(func(_ context.Context, g grant, versionID string) (*material, error) {
			loads++
			<-goOn
			return &material{version: &keystore.Version{ID: versionID, KeyID: g.key.ID}}, nil
		})
		var first *material
		go func() { first, _ = c.get(context.Background(), grantFor("key-a"), "key-a-1") }()
		synctest.Wait()
		c.drop("key-a-1")
		close(goOn)
		synctest.Wait()
		if first == nil || first.users.Load() != 1 {
			t.Fatalf("the loader's material: %+v", first)
		}
		if first.release(); first.acquire() {
			t.Error("it outlived its last user")
		}
		second, err := c.get(context.Background(), grantFor("key-a"), "key-a-1")
		if err != nil || loads != 2 || second.users.Load() != 2 {
			t.Errorf("%d loads, %v", loads, err)
		}
	})
}

// A load that panics fails the calls that wait for it, and the next one tries again.
func TestMaterialLoadPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		c := newMaterialCache(func(_ context.Context, g grant, versionID string) (*material, error) {
			<-goOn
			panic("test")
		})
		get := func() (err error) {
			defer func() {
				if p := recover(); p != nil {
					err = errors.New("panic")
				}
			}()
			_, err = c.get(context.Background(), grantFor("key-a"), "key-a-1")
			return err
		}
		var loader, waiter error
		go func() { loader = get() }()
		synctest.Wait()
		go func() { waiter = get() }()
		synctest.Wait()
		close(goOn)
		synctest.Wait()
		if loader == nil || !errors.Is(waiter, Internal) {
			t.Errorf("loader %v, waiter %v", loader, waiter)
		}
		if len(c.loading) != 0 {
			t.Error("a load is still noted")
		}
	})
}

// A blob and what its tag covers are one piece of memory: this is on the way of every Encrypt.
func TestPrepareAllocatesOnce(t *testing.T) {
	keyID := "key-0123456789abcdefghij"
	m := &material{version: &keystore.Version{ID: keyID + "-0123456789", KeyID: keyID}}
	if allocs := testing.AllocsPerRun(100, func() {
		st, err := m.prepare(1024, nil)
		if err != nil || cap(st.out) != blob.Software.Size(1024) || &st.aad[0] == &st.out[0] {
			t.Errorf("%d octets of room, %v", cap(st.out), err)
		}
	}); allocs > 2 { // one more than needed under the race detector
		t.Errorf("%v allocations", allocs)
	}
}
