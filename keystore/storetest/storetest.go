// Package storetest is the suite that every keystore.Store passes.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/keystore"
)

// patience bounds the waiting for an event that must come.
const patience = 10 * time.Second

// Test runs the suite. create returns a new empty store for one subtest; the suite closes it.
func Test(t *testing.T, create func(t *testing.T) keystore.Store) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, s keystore.Store)
	}{
		{"get and put", getAndPut},
		{"compare and swap", compareAndSwap},
		{"revisions grow", revisionsGrow},
		{"all or nothing", allOrNothing},
		{"limits", limits},
		{"values are copies", valuesAreCopies},
		{"odd names and values", oddOnes},
		{"scan", scan},
		{"scan large", scanLarge},
		{"watch", watch},
		{"watch loses", watchLoses},
		{"watch ends", watchEnds},
		{"one of many wins", oneWins},
		{"concurrent readers", concurrentReaders},
		{"context", contextEnds},
		{"closed", closed},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := create(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil && !errors.Is(err, keystore.ErrClosed) {
					t.Errorf("Close: %v", err)
				}
			})
			c.run(t, s)
		})
	}
}

// Reopen tests that a store keeps its records, revisions and order over Close and open. open opens the same place again.
func Reopen(t *testing.T, open func(t *testing.T) keystore.Store) {
	s := open(t)
	for i := range 20 {
		put(t, s, fmt.Sprintf("a/%02d", i), fmt.Sprint("value ", i))
	}
	must(t, s.Commit(t.Context(), keystore.Txn{Deletes: []string{"a/07"}}))
	before := get(t, s, "a/19")
	must(t, s.Close())

	s = open(t)
	after := get(t, s, "a/19")
	if string(after.Value) != "value 19" || after.Revision != before.Revision {
		t.Errorf("after reopening: %q at %d, want %q at %d", after.Value, after.Revision, before.Value, before.Revision)
	}
	if _, err := s.Get(t.Context(), "a/07"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("a deleted record after reopening: %v, want ErrNotFound", err)
	}
	if rs, err := s.Scan(t.Context(), "a/", "", 100); err != nil || len(rs) != 19 {
		t.Errorf("scan after reopening: %d records, %v; want 19", len(rs), err)
	}
	put(t, s, "a/19", "again")
	if now := get(t, s, "a/19"); now.Revision <= before.Revision {
		t.Errorf("revision %d after reopening and writing, not above %d", now.Revision, before.Revision)
	}
	must(t, s.Close())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func put(t *testing.T, s keystore.Store, name, value string) {
	t.Helper()
	must(t, s.Commit(t.Context(), keystore.Txn{Puts: []keystore.Put{{Name: name, Value: []byte(value)}}}))
}

func get(t *testing.T, s keystore.Store, name string) keystore.Record {
	t.Helper()
	r, err := s.Get(t.Context(), name)
	must(t, err)
	return r
}

func getAndPut(t *testing.T, s keystore.Store) {
	_, err := s.Get(t.Context(), "key/1")
	wantErr(t, "Get of nothing", err, keystore.ErrNotFound)
	put(t, s, "key/1", "one")
	put(t, s, "key/2", "two")
	r := get(t, s, "key/1")
	if r.Name != "key/1" || string(r.Value) != "one" || r.Revision == 0 {
		t.Errorf("got %q %q at %d", r.Name, r.Value, r.Revision)
	}
	put(t, s, "key/1", "uno")
	if r := get(t, s, "key/1"); string(r.Value) != "uno" {
		t.Errorf("after replacing: %q", r.Value)
	}
	must(t, s.Commit(t.Context(), keystore.Txn{Deletes: []string{"key/1", "never/was"}}))
	_, err = s.Get(t.Context(), "key/1")
	wantErr(t, "Get of a deleted record", err, keystore.ErrNotFound)
	if r := get(t, s, "key/2"); string(r.Value) != "two" {
		t.Errorf("the neighbour: %q", r.Value)
	}
	_, err = s.Get(t.Context(), "key/")
	wantErr(t, "Get of a prefix", err, keystore.ErrNotFound)
}

func compareAndSwap(t *testing.T, s keystore.Store) {
	swap := func(revision uint64, value string) error {
		return s.Commit(t.Context(), keystore.Txn{
			Checks: []keystore.Check{{Name: "a", Revision: revision}},
			Puts:   []keystore.Put{{Name: "a", Value: []byte(value)}},
		})
	}
	wantErr(t, "a revision of nothing", swap(1, "x"), keystore.ErrConflict)
	must(t, swap(0, "first"))
	wantErr(t, "creating twice", swap(0, "second"), keystore.ErrConflict)
	first := get(t, s, "a")
	must(t, swap(first.Revision, "second"))
	wantErr(t, "an old revision", swap(first.Revision, "third"), keystore.ErrConflict)
	wantErr(t, "a future revision", swap(first.Revision+1000, "third"), keystore.ErrConflict)
	if r := get(t, s, "a"); string(r.Value) != "second" {
		t.Errorf("value %q after conflicts", r.Value)
	}
	must(t, s.Commit(t.Context(), keystore.Txn{Deletes: []string{"a"}}))
	must(t, swap(0, "new"))

	// A check may be on a record that is not written.
	r := get(t, s, "a")
	must(t, s.Commit(t.Context(), keystore.Txn{
		Checks: []keystore.Check{{Name: "a", Revision: r.Revision}, {Name: "b"}},
		Puts:   []keystore.Put{{Name: "c", Value: []byte("c")}},
	}))
	wantErr(t, "a check elsewhere", s.Commit(t.Context(), keystore.Txn{
		Checks: []keystore.Check{{Name: "c"}},
		Puts:   []keystore.Put{{Name: "d", Value: []byte("d")}},
	}), keystore.ErrConflict)
}

func revisionsGrow(t *testing.T, s keystore.Store) {
	var last uint64
	for i := range 5 {
		put(t, s, "a", fmt.Sprint(i))
		put(t, s, "b", fmt.Sprint(i))
		r := get(t, s, "a")
		if r.Revision <= last {
			t.Errorf("revision %d after %d", r.Revision, last)
		}
		last = r.Revision
	}
	must(t, s.Commit(t.Context(), keystore.Txn{Deletes: []string{"a"}}))
	put(t, s, "a", "again")
	if r := get(t, s, "a"); r.Revision <= last {
		t.Errorf("revision %d of a record made again, was %d: a stale check would hold", r.Revision, last)
	}
}

func allOrNothing(t *testing.T, s keystore.Store) {
	put(t, s, "old", "old")
	tx := keystore.Txn{
		Checks:  []keystore.Check{{Name: "old", Revision: 1 << 60}},
		Puts:    []keystore.Put{{Name: "new/1", Value: []byte("1")}, {Name: "new/2", Value: []byte("2")}},
		Deletes: []string{"old"},
	}
	wantErr(t, "a commit with a false check", s.Commit(t.Context(), tx), keystore.ErrConflict)
	if rs, err := s.Scan(t.Context(), "", "", 10); err != nil || len(rs) != 1 || rs[0].Name != "old" {
		t.Errorf("a refused commit left %v, %v", rs, err)
	}
	tx.Checks[0].Revision = get(t, s, "old").Revision
	must(t, s.Commit(t.Context(), tx))
	rs, err := s.Scan(t.Context(), "", "", 10)
	if err != nil || len(rs) != 2 || rs[0].Name != "new/1" || rs[1].Name != "new/2" {
		t.Errorf("a commit left %v, %v", rs, err)
	}
}

func limits(t *testing.T, s keystore.Store) {
	long := strings.Repeat("n", keystore.MaxName)
	big := bytes.Repeat([]byte("v"), keystore.MaxValue)
	must(t, s.Commit(t.Context(), keystore.Txn{Puts: []keystore.Put{{Name: long, Value: big}}}))
	if r := get(t, s, long); !bytes.Equal(r.Value, big) {
		t.Error("the largest record came back changed")
	}
	for what, tx := range map[string]keystore.Txn{
		"an empty name":         {Puts: []keystore.Put{{Name: ""}}},
		"an empty checked name": {Checks: []keystore.Check{{}}},
		"an empty deleted name": {Deletes: []string{""}},
		"a long name":           {Puts: []keystore.Put{{Name: long + "n"}}},
		"a large value":         {Puts: []keystore.Put{{Name: "n", Value: append(big, 'v')}}},
		"two puts of one name":  {Puts: []keystore.Put{{Name: "n"}, {Name: "n"}}},
		"a put and a delete":    {Puts: []keystore.Put{{Name: "n"}}, Deletes: []string{"n"}},
	} {
		wantErr(t, what, s.Commit(t.Context(), tx), keystore.ErrLimit)
	}
	_, err := s.Get(t.Context(), "n")
	wantErr(t, "after refused commits", err, keystore.ErrNotFound)
	must(t, s.Commit(t.Context(), keystore.Txn{}))
}

func valuesAreCopies(t *testing.T, s keystore.Store) {
	value := []byte("value")
	must(t, s.Commit(t.Context(), keystore.Txn{Puts: []keystore.Put{{Name: "a", Value: value}}}))
	value[0] = 'X'
	r := get(t, s, "a")
	if string(r.Value) != "value" {
		t.Errorf("the store kept the caller's slice: %q", r.Value)
	}
	r.Value[0] = 'Y'
	rs, err := s.Scan(t.Context(), "a", "", 1)
	must(t, err)
	if string(rs[0].Value) != "value" {
		t.Errorf("the store handed out its own slice: %q", rs[0].Value)
	}
	rs[0].Value[0] = 'Z'
	if r := get(t, s, "a"); string(r.Value) != "value" {
		t.Errorf("the store handed out its own slice in a scan: %q", r.Value)
	}
}

func oddOnes(t *testing.T, s keystore.Store) {
	names := []string{"\x00", " ", "a", "a\x00b", "a/", "a/b", "a0", "å", "\xff", "\xff\xff"}
	for _, n := range names {
		put(t, s, n, "v"+n)
	}
	put(t, s, "empty", "")
	if r := get(t, s, "empty"); len(r.Value) != 0 || r.Revision == 0 {
		t.Errorf("an empty value came back as %q at %d", r.Value, r.Revision)
	}
	must(t, s.Commit(t.Context(), keystore.Txn{Deletes: []string{"empty"}}))
	rs, err := s.Scan(t.Context(), "", "", 100)
	must(t, err)
	slices.Sort(names)
	if len(rs) != len(names) {
		t.Fatalf("%d records, want %d", len(rs), len(names))
	}
	for i, r := range rs {
		if r.Name != names[i] || string(r.Value) != "v"+names[i] {
			t.Errorf("record %d is %q %q, want %q", i, r.Name, r.Value, names[i])
		}
	}
}

func scanNames(t *testing.T, s keystore.Store, prefix, after string, limit int) string {
	t.Helper()
	rs, err := s.Scan(t.Context(), prefix, after, limit)
	must(t, err)
	var names []string
	for _, r := range rs {
		if r.Revision == 0 || string(r.Value) != "v" {
			t.Errorf("record %q has value %q, revision %d", r.Name, r.Value, r.Revision)
		}
		names = append(names, r.Name)
	}
	return strings.Join(names, " ")
}

func scan(t *testing.T, s keystore.Store) {
	if got := scanNames(t, s, "", "", 10); got != "" {
		t.Errorf("an empty store has %q", got)
	}
	for _, n := range []string{"b/2", "a", "b/1", "b", "b/10", "c/1", "b0"} {
		put(t, s, n, "v")
	}
	for _, c := range []struct {
		prefix, after string
		limit         int
		want          string
	}{
		{"", "", 10, "a b b/1 b/10 b/2 b0 c/1"},
		{"b/", "", 10, "b/1 b/10 b/2"},
		{"b/", "", 2, "b/1 b/10"},
		{"b/", "b/10", 2, "b/2"},
		{"b/", "b/1", 1, "b/10"},
		{"b/", "b/11", 9, "b/2"}, // the name after need not be there
		{"b/", "b/2", 9, ""},
		{"b/", "a", 9, "b/1 b/10 b/2"},
		{"b/", "c", 9, ""},
		{"b", "", 9, "b b/1 b/10 b/2 b0"},
		{"b", "b", 9, "b/1 b/10 b/2 b0"},
		{"d", "", 9, ""},
		{"", "b/2", 1, "b0"},
		{"", "zz", 1, ""},
		{"", "", 0, ""},
	} {
		if got := scanNames(t, s, c.prefix, c.after, c.limit); got != c.want {
			t.Errorf("Scan(%q, %q, %d) = %q, want %q", c.prefix, c.after, c.limit, got, c.want)
		}
	}
}

func scanLarge(t *testing.T, s keystore.Store) {
	const n = 3000
	value := bytes.Repeat([]byte("v"), 300)
	for i := 0; i < n; i += 100 {
		var tx keystore.Txn
		for j := i; j < i+100; j++ {
			// 7919 is prime to n: the names come in no order.
			tx.Puts = append(tx.Puts, keystore.Put{Name: fmt.Sprintf("row/%06d", j*7919%n), Value: value})
		}
		must(t, s.Commit(t.Context(), tx))
	}
	var after string
	for i := 0; ; {
		rs, err := s.Scan(t.Context(), "row/", after, 77)
		must(t, err)
		for _, r := range rs {
			if want := fmt.Sprintf("row/%06d", i); r.Name != want || !bytes.Equal(r.Value, value) {
				t.Fatalf("record %d is %q with %d octets, want %q", i, r.Name, len(r.Value), want)
			}
			i++
			after = r.Name
		}
		if len(rs) < 77 {
			if i != n {
				t.Errorf("the scan ended after %d records, want %d", i, n)
			}
			break
		}
	}
}

func next(t *testing.T, events <-chan keystore.Event) keystore.Event {
	t.Helper()
	select {
	case e, ok := <-events:
		if !ok {
			t.Fatal("the watch ended")
		}
		return e
	case <-time.After(patience):
		t.Fatal("no event came")
	}
	panic("unreachable")
}

func watch(t *testing.T, s keystore.Store) {
	put(t, s, "a/before", "x")
	under, err := s.Watch(t.Context(), "a/")
	must(t, err)
	all, err := s.Watch(t.Context(), "")
	must(t, err)
	put(t, s, "a/1", "x")
	put(t, s, "b/1", "x")
	wantErr(t, "a conflict", s.Commit(t.Context(), keystore.Txn{
		Checks: []keystore.Check{{Name: "a/1"}}, Puts: []keystore.Put{{Name: "a/refused"}},
	}), keystore.ErrConflict)
	must(t, s.Commit(t.Context(), keystore.Txn{Puts: []keystore.Put{{Name: "a/2"}}, Deletes: []string{"a/1"}}))
	if e := next(t, under); e.Name != "a/1" || e.Lost {
		t.Errorf("first event %+v", e)
	}
	one, two := next(t, under).Name, next(t, under).Name
	if min(one, two) != "a/1" || max(one, two) != "a/2" {
		t.Errorf("events of one commit: %q and %q", one, two)
	}
	seen := map[string]int{}
	for range 4 {
		seen[next(t, all).Name]++
	}
	if seen["a/1"] != 2 || seen["b/1"] != 1 || seen["a/2"] != 1 {
		t.Errorf("the watch of everything saw %v", seen)
	}
}

func watchLoses(t *testing.T, s keystore.Store) {
	events, err := s.Watch(t.Context(), "n/")
	must(t, err)
	const commits, each = 80, 100
	for i := range commits {
		var tx keystore.Txn
		for j := range each {
			tx.Puts = append(tx.Puts, keystore.Put{Name: fmt.Sprintf("n/%d", i*each+j)})
		}
		must(t, s.Commit(t.Context(), tx))
	}
	put(t, s, "n/last", "x")
	seen, lost := map[string]bool{}, false
	for !lost && !seen["n/last"] {
		e := next(t, events)
		lost = lost || e.Lost
		seen[e.Name] = true
	}
	if !lost && len(seen) != commits*each+1 {
		t.Errorf("%d of %d names were reported, and no loss", len(seen), commits*each+1)
	}
	// After the loss the watch goes on. Lost may come again for the same gap.
	put(t, s, "n/after", "x")
	for e := next(t, events); e.Name != "n/after"; e = next(t, events) {
		if !e.Lost && !seen[e.Name] && !lost {
			t.Errorf("unexpected event %+v", e)
		}
	}
}

func watchEnds(t *testing.T, s keystore.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	events, err := s.Watch(ctx, "")
	must(t, err)
	kept, err := s.Watch(t.Context(), "")
	must(t, err)
	cancel()
	waitClosed(t, events)
	put(t, s, "a", "x")
	if e := next(t, kept); e.Name != "a" {
		t.Errorf("the other watch saw %+v", e)
	}
	must(t, s.Close())
	waitClosed(t, kept)
	_, err = s.Watch(t.Context(), "")
	wantErr(t, "Watch after Close", err, keystore.ErrClosed)
}

func waitClosed(t *testing.T, events <-chan keystore.Event) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case _, ok := <-events:
			if !ok {
				return
			}
		case <-deadline:
			t.Fatal("the channel was not closed")
		}
	}
}

func oneWins(t *testing.T, s keystore.Store) {
	const rounds, writers = 10, 8
	for round := range rounds {
		var revision uint64
		if round > 0 {
			revision = get(t, s, "a").Revision
		}
		var wins, conflicts atomic.Int32
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				err := s.Commit(t.Context(), keystore.Txn{
					Checks: []keystore.Check{{Name: "a", Revision: revision}},
					Puts:   []keystore.Put{{Name: "a", Value: []byte(fmt.Sprint(w))}},
				})
				switch {
				case err == nil:
					wins.Add(1)
				case errors.Is(err, keystore.ErrConflict):
					conflicts.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if wins.Load() != 1 || conflicts.Load() != writers-1 {
			t.Fatalf("round %d: %d winners, %d conflicts", round, wins.Load(), conflicts.Load())
		}
	}
}

// concurrentReaders moves one coin between two records: a scan always sees exactly one.
func concurrentReaders(t *testing.T, s keystore.Store) {
	put(t, s, "coin/0", "x")
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				rs, err := s.Scan(t.Context(), "coin/", "", 10)
				if err != nil || len(rs) != 1 {
					t.Errorf("a scan saw %d coins, %v", len(rs), err)
					return
				}
			}
		})
	}
	for i := range 200 {
		must(t, s.Commit(t.Context(), keystore.Txn{
			Puts:    []keystore.Put{{Name: fmt.Sprintf("coin/%d", (i+1)%5)}},
			Deletes: []string{fmt.Sprintf("coin/%d", i%5)},
		}))
	}
	close(done)
	wg.Wait()
}

func contextEnds(t *testing.T, s keystore.Store) {
	put(t, s, "a", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Get(ctx, "a")
	wantErr(t, "Get", err, context.Canceled)
	_, err = s.Scan(ctx, "", "", 1)
	wantErr(t, "Scan", err, context.Canceled)
	_, err = s.Watch(ctx, "")
	wantErr(t, "Watch", err, context.Canceled)
	wantErr(t, "Commit", s.Commit(ctx, keystore.Txn{Deletes: []string{"a"}}), context.Canceled)
	if r := get(t, s, "a"); string(r.Value) != "x" {
		t.Errorf("a cancelled commit changed the record: %q", r.Value)
	}
}

func closed(t *testing.T, s keystore.Store) {
	put(t, s, "a", "x")
	var wg sync.WaitGroup
	for range 4 { // calls that run while Close comes either succeed or give ErrClosed
		wg.Go(func() {
			for {
				_, err := s.Get(t.Context(), "a")
				if err == nil {
					err = s.Commit(t.Context(), keystore.Txn{Puts: []keystore.Put{{Name: "b"}}})
				}
				if err != nil {
					wantErr(t, "a call during Close", err, keystore.ErrClosed)
					return
				}
			}
		})
	}
	must(t, s.Close())
	wg.Wait()
	_, err := s.Get(t.Context(), "a")
	wantErr(t, "Get", err, keystore.ErrClosed)
	_, err = s.Scan(t.Context(), "", "", 1)
	wantErr(t, "Scan", err, keystore.ErrClosed)
	wantErr(t, "Commit", s.Commit(t.Context(), keystore.Txn{}), keystore.ErrClosed)
	wantErr(t, "Close", s.Close(), keystore.ErrClosed)
}
