package boltstore

import (
	"path/filepath"
	"testing"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/keystore/storetest"
)

func open(t *testing.T, path string, o Options) *Store {
	t.Helper()
	s, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	for name, o := range map[string]Options{
		"checked":    {Ballast: -1},
		"background": {Ballast: -1, CheckNow: -1},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Test(t, func(t *testing.T) keystore.Store {
				return open(t, filepath.Join(t.TempDir(), "store"), o)
			})
			path := filepath.Join(t.TempDir(), "store")
			storetest.Reopen(t, func(t *testing.T) keystore.Store { return open(t, path, o) })
		})
	}
}
