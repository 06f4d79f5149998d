package boltstore

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyward/keyward/keystore"
)

// TestDamagedWhileOpen damages the file under an open store, as a failing disk does. bbolt panics or faults; the process
// goes on, what comes out is right or ErrDamaged, and nothing is written any more once it was noticed.
func TestDamagedWhileOpen(t *testing.T) {
	const keys = 50
	file := build(t, keys)
	size := os.Getpagesize()
	noticed := 0
	for n := 2; n < len(file)/size; n++ {
		path := filepath.Join(t.TempDir(), "store")
		must(t, os.WriteFile(path, file, 0o600))
		s := open(t, path, Options{Ballast: -1})
		db, err := keystore.Open(t.Context(), s, sealer)
		must(t, err)
		noise := make([]byte, size)
		rand.NewChaCha8([32]byte{byte(n)}).Read(noise)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt(noise, int64(n*size))
		must(t, err)
		must(t, f.Close())

		damaged := 0
		for i := range keys {
			switch err := lookAt(t, db, fmt.Sprint("page ", n), i); {
			case errors.Is(err, keystore.ErrDamaged):
				damaged++
			case err != nil:
				t.Errorf("page %d, key %d: %v", n, i, err)
			}
		}
		err = addKey(t.Context(), db, keys)
		if err != nil && !errors.Is(err, keystore.ErrDamaged) && !errors.Is(err, keystore.ErrReadOnly) {
			t.Errorf("page %d: a change: %v", n, err)
		}
		if h := db.Health(); damaged > 0 {
			noticed++
			if h.Problem == "" && len(h.Damaged) == 0 {
				t.Errorf("page %d: %d keys fail and Health knows nothing", n, damaged)
			}
		}
		must(t, db.Close())
	}
	if noticed == 0 {
		t.Error("nothing was noticed: the test has no teeth")
	}
}

// TestCutWhileOpen cuts the file short under an open store: reading the map past the end is a fault of the process,
// which must not end it.
func TestCutWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	must(t, os.WriteFile(path, build(t, 50), 0o600))
	s := open(t, path, Options{Ballast: -1})
	must(t, os.Truncate(path, int64(os.Getpagesize())))
	for i := range 50 {
		if _, err := s.Get(t.Context(), "key/"+newKey(i).ID); !errors.Is(err, keystore.ErrDamaged) {
			t.Fatalf("key %d: %v", i, err)
		}
	}
	err := s.Commit(t.Context(), keystore.Txn{Urgent: true, Puts: []keystore.Put{{Name: "a"}}})
	if !errors.Is(err, keystore.ErrReadOnly) {
		t.Errorf("a change: %v", err)
	}
	if p := s.Problem(); !strings.Contains(p, path) || !strings.Contains(p, "backup") {
		t.Errorf("problem: %q", p)
	}
	must(t, s.Close())
}

// TestLoopWhileOpen makes a branch page its own child under an open store. bbolt would go round for ever and take the
// process with it.
func TestLoopWhileOpen(t *testing.T) {
	const keys = 50
	file := build(t, keys)
	size := os.Getpagesize()
	loops := 0
	for n := 2; n < len(file)/size; n++ {
		p, err := parsePage(bytes.Clone(file[n*size : (n+1)*size]))
		if err != nil || p.flags != flagBranch {
			continue
		}
		loops++
		path := filepath.Join(t.TempDir(), "store")
		must(t, os.WriteFile(path, file, 0o600))
		s := open(t, path, Options{Ballast: -1})
		want, err := s.Scan(t.Context(), "", "", 10_000)
		must(t, err)
		for i := range p.count {
			le.PutUint64(p.data[pageHeader+i*elementSize+8:], p.id)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt(p.data, int64(n*size))
		must(t, err)
		must(t, f.Close())
		for _, r := range want {
			got, err := s.Get(t.Context(), r.Name)
			if err == nil && string(got.Value) != string(r.Value) || err != nil && !errors.Is(err, keystore.ErrDamaged) {
				t.Errorf("page %d: %s: %q, %v", n, r.Name, got.Value, err)
			}
		}
		if _, err := s.Scan(t.Context(), "key/", "", 10_000); err != nil && !errors.Is(err, keystore.ErrDamaged) {
			t.Errorf("page %d: a scan: %v", n, err)
		}
		err = s.Commit(t.Context(), keystore.Txn{Puts: []keystore.Put{{Name: "key/x"}}})
		if err != nil && !errors.Is(err, keystore.ErrReadOnly) && !errors.Is(err, keystore.ErrDamaged) {
			t.Errorf("page %d: a change: %v", n, err)
		}
		must(t, s.Close())
	}
	if loops == 0 {
		t.Error("no branch page: the test has no teeth")
	}
}

// TestOverflowWhileOpen makes a page claim the one after it under an open store. A commit that changes it would free both,
// and the next ones would write over pages in use: what was there must stay, or the change be refused.
func TestOverflowWhileOpen(t *testing.T) {
	const keys = 50
	file := build(t, keys)
	size := os.Getpagesize()
	refused := 0
	for n := 2; n < len(file)/size-1; n++ {
		p, err := parsePage(file[n*size : (n+1)*size])
		if err != nil {
			continue // not the head of a page
		}
		path := filepath.Join(t.TempDir(), "store")
		must(t, os.WriteFile(path, file, 0o600))
		s := open(t, path, Options{Ballast: -1})
		want, err := s.Scan(t.Context(), "", "", 10_000)
		must(t, err)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt([]byte{byte(p.overflow) ^ 1}, int64(n*size+12))
		must(t, err)
		must(t, f.Close())
		taken := 0
		for round := range 5 {
			var tx keystore.Txn
			for _, r := range want {
				tx.Puts = append(tx.Puts, keystore.Put{Name: r.Name, Value: r.Value})
			}
			tx.Puts = append(tx.Puts, keystore.Put{Name: fmt.Sprint("new", round), Value: make([]byte, 3*size)})
			if err := s.Commit(t.Context(), tx); errors.Is(err, keystore.ErrDamaged) {
				refused++
			} else if err != nil && !errors.Is(err, keystore.ErrReadOnly) {
				t.Errorf("page %d: %v", n, err)
			} else if err == nil {
				taken++
			}
		}
		if s.jammed.Load() {
			t.Errorf("page %d: bbolt saw it first: %s", n, s.Problem())
		}
		must(t, s.Close())
		if s = open(t, path, Options{Ballast: -1}); s.Problem() != "" && taken > 0 {
			t.Errorf("page %d: a damaged page did more damage: %s", n, s.Problem())
		}
		must(t, s.Close())
	}
	if refused == 0 {
		t.Error("nothing was refused: the test has no teeth")
	}
}

// TestFreelistOverflow makes the list of free pages claim pages in use: the next commit would free them.
func TestFreelistOverflow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	s := open(t, path, Options{Ballast: -1})
	var m meta
	for round := 0; m.freelist+1 >= m.pages; round++ { // until something comes after the list
		if round == 100 {
			t.Fatal("the list stays at the end: the test has no teeth")
		}
		must(t, s.Commit(t.Context(), keystore.Txn{Puts: []keystore.Put{{Name: fmt.Sprint(round), Value: make([]byte, 3000)}}}))
		info, err := s.file.Stat()
		must(t, err)
		m, _, err = readMeta(s.file, info.Size())
		must(t, err)
	}
	must(t, s.Close())
	file, err := os.ReadFile(path)
	must(t, err)
	im := image{mapped: file, pageSize: uint64(m.pageSize), pages: m.pages}
	for overflow := uint64(1); overflow < 4 && m.freelist+overflow < m.pages; overflow++ {
		path := filepath.Join(t.TempDir(), "store")
		must(t, os.WriteFile(path, file, 0o600))
		s := open(t, path, Options{Ballast: -1})
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt([]byte{byte(overflow)}, int64(m.freelist*im.pageSize+12))
		must(t, err)
		must(t, f.Close())
		err = s.Commit(t.Context(), keystore.Txn{Puts: []keystore.Put{{Name: "a"}}})
		if !errors.Is(err, keystore.ErrDamaged) || s.jammed.Load() {
			t.Errorf("overflow %d: %v; bbolt saw it first: %v", overflow, err, s.jammed.Load())
		}
		must(t, s.Close())
	}
}

// TestWrongChild points the elements of a branch page at other sound pages under an open store: a record that is there
// must not be answered with "no such record".
func TestWrongChild(t *testing.T) {
	const keys = 50
	file := build(t, keys)
	size := os.Getpagesize()
	m, _, err := readMeta(bytes.NewReader(file), int64(len(file)))
	must(t, err)
	tr, err := openTree(image{mapped: file, pageSize: uint64(size), pages: m.pages}, m.root, bucketName)
	must(t, err)
	top, err := tr.rootPage()
	must(t, err)
	if top.flags != flagBranch || top.count < 3 {
		t.Fatalf("the top page has %d elements: the test has no teeth", top.count)
	}
	for i := range top.count {
		damaged := bytes.Clone(file)
		at := int(top.id)*size + pageHeader + elementSize*i + 8
		_, other, err := top.branch((i + 1) % top.count)
		must(t, err)
		le.PutUint64(damaged[at:], other)
		path := filepath.Join(t.TempDir(), "store")
		must(t, os.WriteFile(path, file, 0o600))
		s := open(t, path, Options{Ballast: -1})
		want, err := s.Scan(t.Context(), "", "", 10_000)
		must(t, err)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt(damaged, 0)
		must(t, err)
		must(t, f.Close())
		for _, r := range want {
			if _, err := s.Get(t.Context(), r.Name); errors.Is(err, keystore.ErrNotFound) {
				t.Fatalf("element %d: %s: %v", i, r.Name, err)
			}
		}
		if s.Problem() == "" {
			t.Errorf("element %d: nobody noticed", i)
		}
		must(t, s.Close())
	}
}
