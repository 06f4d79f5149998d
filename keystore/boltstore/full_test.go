package boltstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/keystore"
)

// smallDisk mounts a file system of size octets. It needs root, as the tests of a full disk do.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatalf("mounting a small file system (this test needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return dir
}

// TestFullDisk fills the disk under a store: nothing acknowledged is lost, disabling and deleting go on, and with room
// everything does.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, 2<<20)
	path, filler := filepath.Join(dir, "store"), filepath.Join(dir, "filler")
	o := Options{Ballast: 256 << 10}
	s := open(t, path, o)
	must(t, keystore.Create(t.Context(), s, sealer))
	db, err := keystore.Open(t.Context(), s, sealer)
	must(t, err)
	must(t, addKey(t.Context(), db, 0))
	must(t, os.WriteFile(filler, make([]byte, 1<<20), 0o600))

	keys := 1
	for ; ; keys++ {
		if err = addKey(t.Context(), db, keys); err != nil {
			break
		}
		if keys > 2000 {
			t.Fatal("the disk does not get full")
		}
	}
	if !errors.Is(err, keystore.ErrFull) {
		t.Fatalf("on a full disk: %v", err)
	}
	all := func(db *keystore.DB, when string) {
		t.Helper()
		for i := range keys {
			if err := lookAt(t, db, when, i); err != nil {
				t.Errorf("%s: key %d: %v", when, i, err)
			}
		}
		if _, err := db.Key(t.Context(), newKey(keys).ID); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("%s: the refused key: %v", when, err)
		}
		if h := db.Health(); h.Problem != "" || h.Keys != keys {
			t.Errorf("%s: health %+v", when, h)
		}
	}
	all(db, "full")
	if _, err := os.Stat(path + ".ballast"); err != nil {
		t.Errorf("an ordinary change took the reserve: %v", err)
	}

	// Fill the last octets too, so that an urgent change finds nothing but the reserve.
	stuff(t, filepath.Join(dir, "stuffing"))
	describe := func(db *keystore.DB, i int, text string) error {
		k, err := db.Key(t.Context(), newKey(i).ID)
		must(t, err)
		c := *k
		c.Description = text
		return db.Change().Urgent().UpdateKey(k, &c).Commit(t.Context())
	}
	long := strings.Repeat("x", 20_000)
	for i := range 5 {
		if err := describe(db, i, long); err != nil {
			t.Fatalf("an urgent change on a full disk: %v", err)
		}
	}
	if _, err := os.Stat(path + ".ballast"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the reserve was not needed: %v; the test proves nothing", err)
	}
	if err := addKey(t.Context(), db, keys); !errors.Is(err, keystore.ErrFull) {
		t.Errorf("an ordinary change in the space of the reserve: %v", err)
	}

	// Opening works while it is full.
	must(t, db.Close())
	s = open(t, path, o)
	if db, err = keystore.Open(t.Context(), s, sealer); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if k, err := db.Key(t.Context(), newKey(i).ID); err != nil || k.Description != long {
			t.Errorf("after opening again: key %d: %v", i, err)
		}
		must(t, describe(db, i, newKey(i).Description))
	}
	if err := addKey(t.Context(), db, keys); !errors.Is(err, keystore.ErrFull) {
		t.Errorf("an ordinary change after opening a full disk: %v", err)
	}

	// Room again: ordinary changes go on, and the reserve is back.
	must(t, os.Remove(filler))
	all(db, "with room")
	must(t, addKey(t.Context(), db, keys))
	keys++
	all(db, "with room")
	if info, err := os.Stat(path + ".ballast"); err != nil || info.Size() != o.Ballast {
		t.Errorf("the reserve: %v", err)
	}
	must(t, db.Close())
}

// stuff writes a file until there is no room.
func stuff(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
			break
		}
	}
	must(t, f.Close())
}

// TestFullFromTheStart opens and creates a store where there is no room for the reserve, or for anything.
func TestFullFromTheStart(t *testing.T) {
	dir := smallDisk(t, 256<<10)
	path := filepath.Join(dir, "store")
	s := open(t, path, Options{}) // 16 MiB of reserve do not fit
	put := keystore.Txn{Puts: []keystore.Put{{Name: "a", Value: []byte("a")}}}
	if err := s.Commit(t.Context(), put); !errors.Is(err, keystore.ErrFull) {
		t.Errorf("an ordinary change without a reserve: %v", err)
	}
	put.Urgent = true
	must(t, s.Commit(t.Context(), put))
	must(t, s.Close())

	stuff(t, filepath.Join(dir, "stuffing"))
	if _, err := Open(filepath.Join(dir, "other"), Options{}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("creating a store on a full disk: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "other*")); err != nil || len(left) > 0 {
		t.Errorf("creating left %q, %v", left, err)
	}
}

// TestReserveComesBack takes the reserve away under an open store, or makes it hollow under a closed one: the next ordinary change restores
// it, or is refused while that is not possible.
func TestReserveComesBack(t *testing.T) {
	const size = 1 << 20
	dir := t.TempDir()
	path := filepath.Join(dir, "store")
	s := open(t, path, Options{Ballast: size})
	ballast := path + ".ballast"
	put := func(name string) error {
		return s.Commit(t.Context(), keystore.Txn{Puts: []keystore.Put{{Name: name}}})
	}
	whole := func(when string) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(ballast, &st); err != nil || st.Size != size || st.Blocks*512 < size {
			t.Errorf("%s: the reserve has %d octets in %d blocks, %v", when, st.Size, st.Blocks, err)
		}
	}
	whole("after opening")
	must(t, os.Remove(ballast))
	must(t, put("a"))
	whole("after it was removed")
	must(t, os.Truncate(ballast, 0))
	must(t, put("b"))
	whole("after it was cut")
	must(t, s.Close())
	must(t, os.Truncate(ballast, 0))
	must(t, os.Truncate(ballast, size))
	s = open(t, path, Options{Ballast: size})
	whole("after it was hollow")
	must(t, os.Remove(ballast))
	must(t, os.Mkdir(ballast, 0o700))
	if err := put("c"); !errors.Is(err, keystore.ErrFull) {
		t.Errorf("without a reserve: %v", err)
	}
	must(t, s.Commit(t.Context(), keystore.Txn{Urgent: true, Puts: []keystore.Put{{Name: "d"}}}))
	must(t, os.Remove(ballast))
	must(t, put("c"))
	whole("in the end")
	must(t, s.Close())
}

func TestNoise(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "noise"))
	must(t, err)
	must(t, writeNoise(f, 100_001))
	if info, err := f.Stat(); err != nil || info.Size() != 100_001 {
		t.Errorf("%v, %v", info.Size(), err)
	}
	must(t, f.Close())
}
