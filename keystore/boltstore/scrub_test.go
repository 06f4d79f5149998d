package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/keystore"
)

// secret is what nobody may find in the file after it was deleted. It is longer than a page.
func secret(i int) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("<sealed octets of %06d>", i)), 200)
}

func put(i int) keystore.Txn {
	return keystore.Txn{Puts: []keystore.Put{{Name: fmt.Sprintf("ver/%06d", i), Value: secret(i)}}}
}

// mentions tells which of the secrets below n are somewhere in the file.
func mentions(t *testing.T, path string, n int) map[int]bool {
	t.Helper()
	file, err := os.ReadFile(path)
	must(t, err)
	found := map[int]bool{}
	for rest, more := file, true; more; {
		if _, rest, more = bytes.Cut(rest, []byte("<sealed octets of ")); more && len(rest) >= 6 {
			if i, err := strconv.Atoi(string(rest[:6])); err == nil && i < n {
				found[i] = true
			}
		}
	}
	return found
}

// TestScrub looks for what was deleted in the octets of the file.
func TestScrub(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "store")
	s := open(t, path, Options{Ballast: -1})
	const n = 600 // more pages than are scrubbed at a time
	var all, even keystore.Txn
	for i := range n {
		all.Puts = append(all.Puts, put(i).Puts...)
		if i%2 == 0 {
			even.Deletes = append(even.Deletes, put(i).Puts[0].Name)
		}
	}
	must(t, s.Commit(ctx, all))
	must(t, s.Commit(ctx, even))
	if len(mentions(t, path, n)) < n {
		t.Fatal("the file holds nothing of what was deleted; then this is not needed")
	}
	must(t, s.Commit(ctx, keystore.Txn{Puts: []keystore.Put{{Name: "clock"}}}))

	// Others read and write meanwhile.
	stop := make(chan struct{})
	var others sync.WaitGroup
	for range 2 {
		others.Go(func() {
			for i := 1; ; i = (i + 2) % n {
				select {
				case <-stop:
					return
				default:
				}
				if r, err := s.Get(ctx, fmt.Sprintf("ver/%06d", i)); err != nil || !bytes.Equal(r.Value, secret(i)) {
					t.Errorf("record %d: %v", i, err)
					return
				}
			}
		})
	}
	others.Go(func() {
		for i := range 50 {
			if err := s.Commit(ctx, keystore.Txn{Puts: []keystore.Put{{Name: "clock", Value: []byte{byte(i)}}}}); err != nil {
				t.Error(err)
			}
		}
	})
	must(t, s.Scrub(ctx))
	close(stop)
	others.Wait()

	found := mentions(t, path, n)
	for i := range n {
		if found[i] != (i%2 == 1) {
			t.Fatalf("record %d: found in the file: %v", i, found[i])
		}
	}
	// An update leaves its old value behind too.
	must(t, s.Commit(ctx, keystore.Txn{Puts: []keystore.Put{{Name: "ver/000001", Value: []byte("bare")}}}))
	must(t, s.Commit(ctx, keystore.Txn{Puts: []keystore.Put{{Name: "clock"}}}))
	must(t, s.Scrub(ctx))
	if mentions(t, path, n)[1] {
		t.Error("a value that was replaced is still in the file")
	}

	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Scrub(ended); err == nil {
		t.Error("it went on after its end")
	}
	must(t, s.Close())
	if err := s.Scrub(ctx); err == nil {
		t.Error("a closed store was scrubbed")
	}
	s = open(t, path, Options{Ballast: -1})
	defer s.Close()
	if p := s.Problem(); p != "" {
		t.Fatal(p)
	}
	for i := 3; i < n; i += 2 {
		if r, err := s.Get(ctx, fmt.Sprintf("ver/%06d", i)); err != nil || !bytes.Equal(r.Value, secret(i)) {
			t.Fatalf("record %d: %v", i, err)
		}
	}
}

// TestScrubSparesTheCommitBefore: a file that loses its newest commit must be whole as it was before it.
func TestScrubSparesTheCommitBefore(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "store")
	s := open(t, path, Options{Ballast: -1})
	for i := range 20 {
		must(t, s.Commit(ctx, put(i)))
	}
	must(t, s.Commit(ctx, keystore.Txn{Deletes: []string{"ver/000007"}}))
	newest, before, err := s.metas()
	must(t, err)
	must(t, s.Scrub(ctx))
	must(t, s.Close())
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	for _, m := range []meta{newest, before} {
		if err := check(f, m, bucketName, nil); err != nil {
			t.Errorf("as of commit %d: %v", m.txid, err)
		}
	}
	tree, err := openTree(image{f: f, pageSize: uint64(before.pageSize), pages: before.pages}, before.root, bucketName)
	must(t, err)
	found := false
	must(t, tree.walk("ver/000007", func(_ uint32, name, value []byte) (bool, error) {
		found = string(name) == "ver/000007" && bytes.Equal(value[revisionSize:], secret(7))
		return false, nil
	}))
	if !found {
		t.Error("the record is not whole as of the commit before its deletion")
	}
}

// scrubForEver adds and deletes records and scrubs the file; it prints the number of each that stays.
func scrubForEver(path string) error {
	s, err := Open(path, Options{Ballast: -1})
	if err != nil {
		return err
	}
	ctx := context.Background()
	records, err := s.Scan(ctx, "ver/", "", 1<<20)
	if err != nil {
		return err
	}
	next := 0
	for _, r := range records {
		if n, err := strconv.Atoi(r.Name[len("ver/"):]); err == nil {
			next = max(next, n+1)
		}
	}
	var scrubbing sync.WaitGroup
	scrubbing.Go(func() {
		for {
			if err := s.Scrub(ctx); err != nil && !errors.Is(err, keystore.ErrConflict) {
				fmt.Println("scrub:", err)
				return
			}
		}
	})
	for i := next; ; i++ {
		tx := put(i)
		if i%3 > 0 {
			tx.Deletes = []string{fmt.Sprintf("ver/%06d", i-1)} // the multiples of 3 go, and those one below
		}
		if err := s.Commit(ctx, tx); err != nil {
			return err
		}
		if i%3 == 2 {
			fmt.Println(i)
		}
	}
}

// TestKillWhileScrubbing kills a process in the middle of it.
func TestKillWhileScrubbing(t *testing.T) {
	rounds := 20
	if raceDetector {
		rounds = 6
	}
	path := filepath.Join(t.TempDir(), "store")
	random := rand.New(rand.NewPCG(5, 5))
	var kept []int
	for round := range rounds {
		c, lines := child(t, "scrub", path)
		var killer *time.Timer
		for lines.Scan() {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Fatalf("round %d: the child says %q", round, lines.Text())
			}
			kept = append(kept, n)
			if killer == nil {
				killer = time.AfterFunc(time.Duration(random.IntN(50_000))*time.Microsecond, func() { c.Process.Kill() })
			}
		}
		c.Wait()
		s := open(t, path, Options{Ballast: -1})
		if p := s.Problem(); p != "" {
			t.Fatalf("round %d: %s", round, p)
		}
		for _, i := range kept {
			if r, err := s.Get(t.Context(), fmt.Sprintf("ver/%06d", i)); err != nil || !bytes.Equal(r.Value, secret(i)) {
				t.Fatalf("round %d: record %d: %v", round, i, err)
			}
		}
		must(t, s.Close())
	}
	if len(kept) < rounds {
		t.Errorf("only %d records in %d rounds", len(kept), rounds)
	}
}
