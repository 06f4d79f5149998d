package keystore_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/keystore/boltstore"
)

// onBolt returns a DB over a file with n keys.
func onBolt(b testing.TB, n int) *keystore.DB {
	store, err := boltstore.Open(filepath.Join(b.TempDir(), "store"), boltstore.Options{})
	must(b, err)
	must(b, keystore.Create(b.Context(), store, sealer))
	db := openDB(b, store)
	for i := 0; i < n; {
		c := db.Change()
		for range min(1000, n-i) {
			c.CreateKey(newKey(i))
			i++
		}
		must(b, c.Commit(b.Context()))
	}
	return db
}

// TestCachedKeyAllocatesNothing holds the hot path to its promise.
func TestCachedKeyAllocatesNothing(t *testing.T) {
	db, _ := newDB(t)
	k := create(t, db, 1)
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		if _, err := db.Key(ctx, k.ID); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("a cached Key allocates %v times", n)
	}
}

func BenchmarkKeyCached(b *testing.B) {
	db := onBolt(b, 1000)
	id := newKey(500).ID
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := db.Key(b.Context(), id); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkKeyUncached(b *testing.B) {
	db := onBolt(b, 1000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		id := newKey(i % 1000).ID
		db.Forget(keystore.NameKey(id))
		if _, err := db.Key(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCommit(b *testing.B) {
	db := onBolt(b, 1000)
	for b.Loop() {
		k, err := db.Key(b.Context(), newKey(7).ID)
		must(b, err)
		changed := *k
		must(b, db.Change().UpdateKey(k, &changed).Commit(b.Context()))
	}
}

func BenchmarkCreateKey(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint("with ", n), func(b *testing.B) {
			db := onBolt(b, n)
			for i := n; b.Loop(); i++ {
				k := newKey(i)
				must(b, db.Change().CreateKey(k).CreateVersion(newVersion(k, 1)).Commit(b.Context()))
			}
		})
	}
}

func BenchmarkKeys(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		db := onBolt(b, n)
		for _, at := range []int{0, n/2 - 50, n - 100} {
			b.Run(fmt.Sprintf("page at %d of %d", at, n), func(b *testing.B) {
				for b.Loop() {
					ids, _, err := db.Keys(b.Context(), account, at, 100)
					if err != nil || len(ids) != 100 {
						b.Fatal(len(ids), err)
					}
				}
			})
		}
	}
}
