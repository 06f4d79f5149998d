package boltstore

import (
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/keystore"
)

// TestCloseUnderLoad closes a DB while it is read, written, sealed with and scanned: each call ends with its answer or
// ErrClosed, and what was acknowledged is there afterwards.
func TestCloseUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	s := open(t, path, Options{Ballast: -1})
	must(t, keystore.Create(t.Context(), s, sealer))
	var acknowledged sync.Map
	var next atomic.Int64
	for range 5 {
		db, err := keystore.Open(t.Context(), s, sealer)
		must(t, err)
		var running sync.WaitGroup
		var writes atomic.Int32
		enough := make(chan struct{})
		running.Go(func() { // adds
			for {
				i := int(next.Add(1))
				err := addKey(t.Context(), db, i)
				if errors.Is(err, keystore.ErrClosed) {
					return
				}
				if err != nil {
					t.Errorf("adding: %v", err)
					return
				}
				acknowledged.Store(i, true)
				if writes.Add(1) == 5 {
					close(enough)
				}
			}
		})
		running.Go(func() { // looks at everything
			for {
				_, err := db.Key(t.Context(), newKey(int(next.Load())).ID)
				db.Health()
				if errors.Is(err, keystore.ErrClosed) {
					return
				}
				if err != nil && !errors.Is(err, keystore.ErrNotFound) {
					t.Errorf("reading: %v", err)
				}
				if _, _, err := db.Aliases(t.Context(), account, 0, 5); err != nil && !errors.Is(err, keystore.ErrClosed) {
					t.Errorf("listing: %v", err)
				}
				if _, err := db.Seal("key-1-1", []byte("m")); err != nil && !errors.Is(err, keystore.ErrClosed) {
					t.Errorf("sealing: %v", err)
				}
			}
		})
		select {
		case <-enough:
		case <-time.After(10 * time.Second):
			t.Fatal("nothing is written")
		}
		must(t, db.Close())
		running.Wait()
		s = open(t, path, Options{Ballast: -1})
	}
	db, err := keystore.Open(t.Context(), s, sealer)
	must(t, err)
	acknowledged.Range(func(i, _ any) bool {
		if _, err := db.Key(t.Context(), newKey(i.(int)).ID); err != nil {
			t.Errorf("the acknowledged key %d: %v", i, err)
		}
		return true
	})
	if h := db.Health(); h.Problem != "" || len(h.Damaged) > 0 {
		t.Errorf("health %+v", h)
	}
	must(t, db.Close())
}
