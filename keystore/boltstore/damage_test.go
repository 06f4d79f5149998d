package boltstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/keystore/storetest"
)

const account = "1000000000000001"

var sealer = storetest.Sealer("kcv-1")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newKey(i int) *keystore.Key {
	return &keystore.Key{
		ID: fmt.Sprintf("key-%020d", i), Account: account, Creator: account, Spec: "EC_P256", Usage: "SIGN/VERIFY",
		Origin: "Aliyun_KMS", Protection: "SOFTWARE", State: "Enabled", Description: strings.Repeat(fmt.Sprint(i, " "), 20),
		Created: time.Date(2026, 11, 25, 0, 0, i, 0, time.UTC), Versions: 1,
	}
}

func versionID(i int) string { return newKey(i).ID + "-0000000001" }

func aliasName(i int) string { return fmt.Sprintf("alias/%d", i) }

// addKey commits a key with a version and an alias.
func addKey(ctx context.Context, db *keystore.DB, i int) error {
	k := newKey(i)
	sealed, err := db.Seal(versionID(i), bytes.Repeat([]byte{byte(i)}, 32))
	if err != nil {
		return err
	}
	return db.Change().CreateKey(k).
		CreateVersion(&keystore.Version{ID: versionID(i), KeyID: k.ID, Created: k.Created, Sealed: sealed}).
		CreateAlias(&keystore.Alias{Account: account, Name: aliasName(i), KeyID: k.ID, Created: k.Created}).
		Commit(ctx)
}

// lookAt reads key i with its version and alias. err is ErrDamaged or ErrNotFound; anything wrong fails the test.
func lookAt(t *testing.T, db *keystore.DB, what string, i int) error {
	t.Helper()
	k, err := db.Key(t.Context(), newKey(i).ID)
	if err != nil {
		return err
	}
	want := newKey(i)
	want.Sequence = uint64(i + 1)
	got, _ := json.Marshal(k)
	wanted, _ := json.Marshal(want)
	if !bytes.Equal(got, wanted) {
		t.Errorf("%s: key %d came back changed: %s", what, i, got)
	}
	v, err := db.Version(t.Context(), k.ID, versionID(i))
	if err != nil {
		return err
	}
	material, err := db.Unseal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(material, bytes.Repeat([]byte{byte(i)}, 32)) {
		t.Errorf("%s: the material of key %d came back changed", what, i)
	}
	a, err := db.Alias(t.Context(), account, aliasName(i))
	if err != nil {
		return err
	}
	if a.KeyID != k.ID {
		t.Errorf("%s: the alias of key %d points at %s", what, i, a.KeyID)
	}
	return nil
}

// build makes a store with n keys and returns its file.
func build(t *testing.T, n int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store")
	s := open(t, path, Options{Ballast: -1})
	must(t, keystore.Create(t.Context(), s, sealer))
	db, err := keystore.Open(t.Context(), s, sealer)
	must(t, err)
	for i := range n {
		must(t, addKey(t.Context(), db, i))
	}
	must(t, db.Close())
	file, err := os.ReadFile(path)
	must(t, err)
	return file
}

// memoryDir is a directory on a file system in memory where there is one.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "keyward-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// verdict counts what became of damaged files.
type verdict struct {
	harmless, records, structure, unopened, kept, lost atomic.Int64
}

// survive opens a damaged file of keys keys and checks that nothing wrong comes out of it.
func survive(t *testing.T, v *verdict, what, path string, keys int, o Options) {
	s, err := Open(path, o)
	if err != nil {
		if !errors.Is(err, keystore.ErrDamaged) {
			t.Errorf("%s: Open: %v", what, err)
		}
		v.unopened.Add(1)
		return
	}
	db, err := keystore.Open(t.Context(), s, sealer)
	if err != nil {
		if !errors.Is(err, keystore.ErrDamaged) {
			t.Errorf("%s: keystore.Open: %v", what, err)
		}
		v.unopened.Add(1)
		s.Close()
		return
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Errorf("%s: Close: %v", what, err)
		}
	}()
	var failed []int
	look := func() {
		failed = failed[:0]
		for i := range keys {
			err := lookAt(t, db, what, i)
			if err != nil && !errors.Is(err, keystore.ErrDamaged) {
				t.Errorf("%s: key %d: %v", what, i, err)
			}
			if err != nil {
				failed = append(failed, i)
			}
		}
	}
	look()
	s.tasks.Wait() // the check in the background, if there is one
	h := db.Health()
	ids, total, err := db.Keys(t.Context(), account, 0, keys)
	switch {
	case err == nil && (total != keys || len(ids) != keys):
		t.Errorf("%s: %d of %d keys are listed", what, len(ids), total)
	case err != nil && !errors.Is(err, keystore.ErrDamaged):
		t.Errorf("%s: listing: %v", what, err)
	case err != nil && h.Problem == "" && len(h.Damaged) == 0:
		t.Errorf("%s: listing fails and Health knows nothing: %v", what, err)
	}
	switch {
	case h.Problem != "":
		v.structure.Add(1)
		v.kept.Add(int64(keys - len(failed)))
		v.lost.Add(int64(len(failed)))
		err := addKey(t.Context(), db, keys)
		if !errors.Is(err, keystore.ErrReadOnly) && !errors.Is(err, keystore.ErrDamaged) {
			t.Errorf("%s: a change of a damaged store: %v", what, err)
		}
		return
	case len(h.Damaged) > 0:
		v.records.Add(1)
		if len(h.Damaged) > 1 || len(failed) > 1 {
			t.Errorf("%s: one bit, and damaged are %q, failed are %d keys", what, h.Damaged, len(failed))
		}
		if len(failed) == 1 && !strings.Contains(h.Damaged[0], newKey(failed[0]).ID) && !strings.HasSuffix(h.Damaged[0], aliasName(failed[0])) {
			t.Errorf("%s: damaged is %q, failed is key %d", what, h.Damaged[0], failed[0])
		}
	default:
		v.harmless.Add(1)
		if len(failed) > 0 {
			t.Errorf("%s: keys %v fail and Health knows nothing", what, failed)
		}
		must(t, addKey(t.Context(), db, keys)) // and the file can be written
	}
	before := slices.Clone(failed)
	if look(); !slices.Equal(before, failed) {
		t.Errorf("%s: failed were %v, are %v", what, before, failed)
	}
}

// raceDetector is set when the race detector runs, which makes a flip cost ten times as much.
var raceDetector bool

// TestBitFlips flips one bit of a store file at a time. Each flip must be noticed before use or be harmless: no wrong
// data, no wrong "no such key", no crash, and the other keys go on. KEYWARD_TEST_LONG asks for 10,000 flips.
func TestBitFlips(t *testing.T) {
	flips := 1500
	if raceDetector {
		flips = 200
	}
	if os.Getenv("KEYWARD_TEST_LONG") != "" {
		flips = 10_000
	}
	const keys = 50
	file := build(t, keys)
	dir := memoryDir(t)
	var v verdict
	var next atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(flips) && !t.Failed(); n = next.Add(1) {
				bit := rand.New(rand.NewPCG(1, uint64(n))).IntN(len(file) * 8)
				flipped := slices.Clone(file)
				flipped[bit/8] ^= 1 << (bit % 8)
				path := filepath.Join(dir, fmt.Sprint(n))
				if err := os.WriteFile(path, flipped, 0o600); err != nil {
					t.Error(err)
					return
				}
				o := Options{Ballast: -1}
				if n%4 == 0 {
					o.CheckNow = -1
				}
				survive(t, &v, fmt.Sprintf("flip %d, bit %d of octet %#x", n, bit%8, bit/8), path, keys, o)
				if err := os.Remove(path); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d flips in a file of %d octets, %.1f s: %d harmless, %d damaged one record, %d the structure (%d keys served, %d not), %d not opened",
		flips, len(file), time.Since(began).Seconds(), v.harmless.Load(), v.records.Load(), v.structure.Load(), v.kept.Load(), v.lost.Load(), v.unopened.Load())
	if v.records.Load() == 0 || v.structure.Load() == 0 {
		t.Error("the flips hit no record or no structure: the test has no teeth")
	}
}

// TestDamagedPages zeroes, repeats and swaps whole pages.
func TestDamagedPages(t *testing.T) {
	const keys = 50
	file := build(t, keys)
	dir := memoryDir(t)
	size := os.Getpagesize()
	pageAt := func(f []byte, n int) []byte { return f[n*size : (n+1)*size] }
	var v verdict
	for n := range len(file) / size {
		for kind, damage := range map[string]func(f []byte){
			"zeroed":   func(f []byte) { clear(pageAt(f, n)) },
			"repeated": func(f []byte) { copy(pageAt(f, n), pageAt(file, (n+1)%(len(file)/size))) },
			"noise":    func(f []byte) { rand.NewChaCha8([32]byte{byte(n)}).Read(pageAt(f, n)) },
			"cut off":  func(f []byte) { clear(pageAt(f, n)[size/2:]) },
		} {
			damaged := slices.Clone(file)
			damage(damaged)
			path := filepath.Join(dir, "store")
			must(t, os.WriteFile(path, damaged, 0o600))
			what := fmt.Sprintf("page %d %s", n, kind)
			s, err := Open(path, Options{Ballast: -1})
			if err != nil {
				if !errors.Is(err, keystore.ErrDamaged) {
					t.Errorf("%s: %v", what, err)
				}
				v.unopened.Add(1)
				continue
			}
			db, err := keystore.Open(t.Context(), s, sealer)
			if err != nil {
				if !errors.Is(err, keystore.ErrDamaged) {
					t.Errorf("%s: %v", what, err)
				}
				v.unopened.Add(1)
				must(t, s.Close())
				continue
			}
			failed := 0
			for i := range keys {
				if err := lookAt(t, db, what, i); err != nil {
					failed++
					if !errors.Is(err, keystore.ErrDamaged) {
						t.Errorf("%s: key %d: %v", what, i, err)
					}
				}
			}
			if h := db.Health(); failed > 0 && h.Problem == "" && len(h.Damaged) == 0 {
				t.Errorf("%s: %d keys fail and Health knows nothing", what, failed)
			}
			must(t, db.Close())
		}
	}
}

// TestMetaPages flips every bit of both meta pages. bbolt would go back to the transaction before when the newest one is
// hit; the last change must be seen all the same, and nothing may be written.
func TestMetaPages(t *testing.T) {
	const keys = 3
	file := build(t, keys)
	path := filepath.Join(t.TempDir(), "store")
	for m := range 2 {
		for bit := range metaSize * 8 {
			flipped := slices.Clone(file)
			flipped[m*os.Getpagesize()+pageHeader+bit/8] ^= 1 << (bit % 8)
			must(t, os.WriteFile(path, flipped, 0o600))
			what := fmt.Sprintf("meta page %d, bit %d", m, bit)
			s, err := Open(path, Options{Ballast: -1})
			must(t, err)
			db, err := keystore.Open(t.Context(), s, sealer)
			must(t, err)
			if err := lookAt(t, db, what, keys-1); err != nil {
				t.Errorf("%s: the last change is not seen: %v", what, err)
			}
			if db.Health().Problem == "" {
				t.Errorf("%s: Health knows nothing", what)
			}
			if err := addKey(t.Context(), db, keys); !errors.Is(err, keystore.ErrReadOnly) {
				t.Errorf("%s: a change: %v", what, err)
			}
			must(t, db.Close())
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, flipped) {
				t.Fatalf("%s: the file was written, %v", what, err)
			}
		}
	}
	// Beyond mending: it still opens, at the state of the other page, and says so.
	for m := range 2 {
		flipped := slices.Clone(file)
		clear(flipped[m*os.Getpagesize() : (m+1)*os.Getpagesize()])
		must(t, os.WriteFile(path, flipped, 0o600))
		s, err := Open(path, Options{Ballast: -1})
		must(t, err)
		if p := s.Problem(); !strings.Contains(p, "the last change may be missing") {
			t.Errorf("meta page %d zeroed: %q", m, p)
		}
		must(t, s.Close())
	}
}

// TestNotAStore opens what is no store at all: an error, and the file stays as it is.
func TestNotAStore(t *testing.T) {
	file := build(t, 3)
	for what, content := range map[string][]byte{
		"an empty file": {}, "a short file": []byte("hello"), "a text": bytes.Repeat([]byte("hello "), 10_000),
		"half a store": file[:len(file)/2/4096*4096], "two pages": file[:8192], "a page and a bit": file[:5000],
	} {
		path := filepath.Join(t.TempDir(), "store")
		must(t, os.WriteFile(path, content, 0o600))
		s, err := Open(path, Options{Ballast: -1})
		if err == nil {
			if s.Problem() == "" {
				t.Errorf("%s opened without a word", what)
			}
			must(t, s.Close())
		} else if !errors.Is(err, keystore.ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, content) {
			t.Errorf("%s was written, %v", what, err)
		}
	}
}

// TestCheckAgrees compares check with bbolt's own on sound files in many shapes.
func TestCheckAgrees(t *testing.T) {
	random := rand.New(rand.NewPCG(2, 2))
	path := filepath.Join(t.TempDir(), "store")
	s := open(t, path, Options{Ballast: -1})
	for round := range 60 {
		var tx keystore.Txn
		for range random.IntN(60) + 1 {
			name := fmt.Sprintf("%0*d", 1+random.IntN(200), random.IntN(400))
			if slices.ContainsFunc(tx.Puts, func(p keystore.Put) bool { return p.Name == name }) || slices.Contains(tx.Deletes, name) {
				continue
			}
			if random.IntN(3) == 0 {
				tx.Deletes = append(tx.Deletes, name)
			} else {
				tx.Puts = append(tx.Puts, keystore.Put{Name: name, Value: make([]byte, random.IntN(1<<random.IntN(15)))})
			}
		}
		must(t, s.Commit(t.Context(), tx))
		info, err := s.file.Stat()
		must(t, err)
		m, damage, err := readMeta(s.file, info.Size())
		if err != nil || damage != "" {
			t.Fatalf("round %d: %q, %v", round, damage, err)
		}
		if err := check(s.file, m, bucketName, nil); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		must(t, s.db.View(func(tx *bolt.Tx) error {
			for err := range tx.Check() {
				t.Errorf("round %d: bbolt: %v", round, err)
			}
			return nil
		}))
		// The reader for damaged files sees what bbolt sees.
		want, err := s.Scan(t.Context(), "", "", 10_000)
		must(t, err)
		tr, err := openTree(image{f: s.file, pageSize: uint64(m.pageSize), pages: m.pages}, m.root, bucketName)
		must(t, err)
		for from := range len(want) {
			var got []keystore.Record
			must(t, tr.walk(want[from].Name, func(flags uint32, name, value []byte) (bool, error) {
				r, err := parseRecord(flags, name, value)
				got = append(got, r)
				return len(got) < 3, err
			}))
			if !slices.EqualFunc(got, want[from:min(from+3, len(want))], func(a, b keystore.Record) bool {
				return a.Name == b.Name && a.Revision == b.Revision && bytes.Equal(a.Value, b.Value)
			}) {
				t.Fatalf("round %d: the walk from %q differs", round, want[from].Name)
			}
		}
	}
	must(t, s.Close())
}
