package keystore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/keystore/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const account = "1000000000000001"

var deletedAt = time.Date(2027, 1, 2, 3, 4, 5, 6, time.UTC)

var sealer = storetest.Sealer("kcv-1")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func newDB(t testing.TB) (*keystore.DB, *keystore.Mem) {
	t.Helper()
	store := keystore.NewMem()
	must(t, keystore.Create(t.Context(), store, sealer))
	return openDB(t, store), store
}

func openDB(t testing.TB, store keystore.Store) *keystore.DB {
	t.Helper()
	db, err := keystore.Open(t.Context(), store, sealer)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// shared is a store that stays open when a DB closes it, for several DBs over one store.
type shared struct{ *keystore.Mem }

func (shared) Close() error { return nil }

func newKey(i int) *keystore.Key {
	return &keystore.Key{
		ID: fmt.Sprintf("key-%020d", i), Account: account, Creator: account, Spec: "Aliyun_AES_256", Usage: "ENCRYPT/DECRYPT",
		Origin: "Aliyun_KMS", Protection: "SOFTWARE", State: "Enabled", Versions: 1,
		Created: time.Date(2026, 11, 25, 0, 0, i, 0, time.UTC),
	}
}

func newVersion(k *keystore.Key, n int) *keystore.Version {
	return &keystore.Version{ID: fmt.Sprintf("%s-%010d", k.ID, n), KeyID: k.ID, Created: k.Created, Sealed: []byte("sealed")}
}

func create(t testing.TB, db *keystore.DB, i int) *keystore.Key {
	t.Helper()
	k := newKey(i)
	must(t, db.Change().CreateKey(k).CreateVersion(newVersion(k, 1)).Commit(t.Context()))
	got, err := db.Key(t.Context(), k.ID)
	must(t, err)
	return got
}

func TestKeys(t *testing.T) {
	db, store := newDB(t)
	ctx := t.Context()
	_, err := db.Key(ctx, "key-1")
	wantErr(t, "no key", err, keystore.ErrNotFound)
	k := create(t, db, 1)
	if k.Spec != "Aliyun_AES_256" || k.Sequence != 1 || !k.Created.Equal(newKey(1).Created) {
		t.Errorf("the key came back as %+v", k)
	}
	wantErr(t, "creating twice", db.Change().CreateKey(newKey(1)).Commit(ctx), keystore.ErrConflict)

	changed := *k
	changed.State, changed.Sequence = "Disabled", 77
	must(t, db.Change().UpdateKey(k, &changed).Commit(ctx))
	now, err := db.Key(ctx, k.ID)
	must(t, err)
	if now.State != "Disabled" || now.Sequence != 1 || k.State != "Enabled" {
		t.Errorf("after the update %+v; what was handed out before is %+v", now, k)
	}
	wantErr(t, "an old key", db.Change().UpdateKey(k, &changed).Commit(ctx), keystore.ErrConflict)
	wantErr(t, "a key that DB did not hand out", db.Change().UpdateKey(newKey(1), &changed).Commit(ctx), keystore.ErrConflict)
	other := *now
	other.Account = "2"
	if err := db.Change().UpdateKey(now, &other).Commit(ctx); err == nil {
		t.Error("a key changed its account")
	}

	v, err := db.Version(ctx, k.ID, k.ID+"-0000000001")
	must(t, err)
	if string(v.Sealed) != "sealed" {
		t.Errorf("the version came back as %+v", v)
	}
	_, err = db.Version(ctx, "key-2", v.ID)
	wantErr(t, "a version of another key", err, keystore.ErrNotFound)
	_, err = db.Version(ctx, k.ID, "nonsense")
	wantErr(t, "no version", err, keystore.ErrNotFound)
	orphan := newKey(2)
	wantErr(t, "a version without a key", db.Change().CreateVersion(newVersion(orphan, 1)).Commit(ctx), keystore.ErrConflict)
	// A change that fails in part changes nothing.
	wantErr(t, "half a change", db.Change().CreateKey(orphan).CreateKey(newKey(1)).Commit(ctx), keystore.ErrConflict)
	_, err = db.Key(ctx, orphan.ID)
	wantErr(t, "half a change", err, keystore.ErrNotFound)
	must(t, db.Change().Commit(ctx)) // nothing at all

	h := db.Health()
	if h.Keys != 1 || h.Sequence != 2 || h.Problem != "" || len(h.Damaged) != 0 || h.Verified.IsZero() {
		t.Errorf("health %+v", h)
	}
	must(t, db.Scan(ctx))
	if h := db.Health(); h.Problem != "" {
		t.Errorf("after a scan: %+v", h)
	}
	must(t, db.Close())
	_, err = db.Key(ctx, k.ID)
	wantErr(t, "Key after Close", err, keystore.ErrClosed)
	_, err = db.Seal(v.ID, []byte("m"))
	wantErr(t, "Seal after Close", err, keystore.ErrClosed)
	wantErr(t, "Commit after Close", db.Change().CreateKey(orphan).Commit(ctx), keystore.ErrClosed)
	wantErr(t, "Close after Close", db.Close(), keystore.ErrClosed)
	_, err = store.Get(ctx, "root")
	wantErr(t, "the store under a closed DB", err, keystore.ErrClosed)
}

func TestNamesFromOutside(t *testing.T) {
	db, _ := newDB(t)
	k := create(t, db, 1)
	must(t, db.Change().CreateAlias(&keystore.Alias{Account: account, Name: "alias/a/b", KeyID: k.ID}).Commit(t.Context()))
	if _, err := db.Alias(t.Context(), account, "alias/a/b"); err != nil {
		t.Errorf("an alias with slashes: %v", err)
	}
	_, err := db.Alias(t.Context(), account+"/alias", "a/b")
	wantErr(t, "slashes moved from the name to the account", err, keystore.ErrNotFound)
	for _, id := range []string{"", "a/b", "a b", "a\x00", strings.Repeat("k", 200), "ключ"} {
		bad := newKey(2)
		bad.ID = id
		if err := db.Change().CreateKey(bad).Commit(t.Context()); err == nil {
			t.Errorf("the key ID %q was taken", id)
		}
		bad = newKey(2)
		bad.Account = id
		if err := db.Change().CreateKey(bad).Commit(t.Context()); err == nil {
			t.Errorf("the account %q was taken", id)
		}
	}
	for _, name := range []string{"", strings.Repeat("a", 600)} {
		if err := db.Change().CreateAlias(&keystore.Alias{Account: account, Name: name, KeyID: k.ID}).Commit(t.Context()); err == nil {
			t.Errorf("the alias of %d octets was taken", len(name))
		}
	}
	wrong := newVersion(k, 2)
	wrong.ID = "key-other-0000000002"
	if err := db.Change().CreateVersion(wrong).Commit(t.Context()); err == nil {
		t.Error("a version named after another key was taken")
	}
}

func TestSeal(t *testing.T) {
	db, _ := newDB(t)
	sealed, err := db.Seal("key-1-1", []byte("material"))
	must(t, err)
	if bytes.Contains(sealed, []byte("material")) {
		t.Error("the material is in the clear")
	}
	again, err := db.Seal("key-1-1", []byte("material"))
	must(t, err)
	if bytes.Equal(sealed, again) {
		t.Error("sealing twice gave the same")
	}
	got, err := db.Unseal(&keystore.Version{ID: "key-1-1", Sealed: sealed})
	if err != nil || string(got) != "material" {
		t.Errorf("Unseal: %q, %v", got, err)
	}
	_, err = db.Unseal(&keystore.Version{ID: "key-1-2", Sealed: sealed})
	wantErr(t, "another version", err, keystore.ErrDamaged)
	for bit := range len(sealed) * 8 {
		flipped := slices.Clone(sealed)
		flipped[bit/8] ^= 1 << (bit % 8)
		_, err := db.Unseal(&keystore.Version{ID: "key-1-1", Sealed: flipped})
		wantErr(t, fmt.Sprint("bit ", bit), err, keystore.ErrDamaged)
	}
	for n := range len(sealed) {
		_, err := db.Unseal(&keystore.Version{ID: "key-1-1", Sealed: sealed[:n]})
		wantErr(t, fmt.Sprint("the first octets, ", n), err, keystore.ErrDamaged)
	}
	elsewhere, _ := newDB(t)
	_, err = elsewhere.Unseal(&keystore.Version{ID: "key-1-1", Sealed: sealed})
	wantErr(t, "another store", err, keystore.ErrDamaged)
}

func TestAliases(t *testing.T) {
	db, _ := newDB(t)
	ctx := t.Context()
	one, two := create(t, db, 1), create(t, db, 2)
	for _, n := range []string{"alias/b", "alias/a", "alias/c"} {
		must(t, db.Change().CreateAlias(&keystore.Alias{Account: account, Name: n, KeyID: one.ID}).Commit(ctx))
	}
	wantErr(t, "a name that is taken", db.Change().CreateAlias(&keystore.Alias{Account: account, Name: "alias/a", KeyID: two.ID}).Commit(ctx), keystore.ErrConflict)
	wantErr(t, "a key that is not there", db.Change().CreateAlias(&keystore.Alias{Account: account, Name: "alias/x", KeyID: "key-x"}).Commit(ctx), keystore.ErrConflict)
	must(t, db.Change().CreateAlias(&keystore.Alias{Account: "2", Name: "alias/a", KeyID: two.ID}).Commit(ctx))

	names := func(as []*keystore.Alias, total int, err error) string {
		t.Helper()
		must(t, err)
		s := fmt.Sprint(total, ":")
		for _, a := range as {
			s += " " + a.Account[:1] + a.Name[len("alias/"):]
		}
		return s
	}
	check := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	list := func(offset, limit int) string { return names(db.Aliases(ctx, account, offset, limit)) }
	of := func(k *keystore.Key) string { return names(db.AliasesOf(ctx, k.ID, 0, 10)) }
	check("all", list(0, 10), "3: 1a 1b 1c")
	check("a page", list(1, 1), "3: 1b")
	check("past the end", list(3, 1), "3:")
	check("none", list(0, 0), "3:")
	check("of one", of(one), "3: 1a 1b 1c")
	check("of two", of(two), "1: 2a")

	b, err := db.Alias(ctx, account, "alias/b")
	must(t, err)
	must(t, db.Change().UpdateAlias(b, two.ID).Commit(ctx))
	wantErr(t, "an old alias", db.Change().UpdateAlias(b, one.ID).Commit(ctx), keystore.ErrConflict)
	wantErr(t, "an old alias", db.Change().DeleteAlias(b).Commit(ctx), keystore.ErrConflict)
	check("of one", of(one), "2: 1a 1c")
	check("of two", of(two), "2: 1b 2a")
	b, err = db.Alias(ctx, account, "alias/b")
	if err != nil || b.KeyID != two.ID {
		t.Errorf("the alias points at %+v, %v", b, err)
	}
	must(t, db.Change().UpdateAlias(b, two.ID).Commit(ctx)) // to where it points already
	b, err = db.Alias(ctx, account, "alias/b")
	must(t, err)
	must(t, db.Change().DeleteAlias(b).Commit(ctx))
	_, err = db.Alias(ctx, account, "alias/b")
	wantErr(t, "a deleted alias", err, keystore.ErrNotFound)
	check("all", list(0, 10), "2: 1a 1c")

	must(t, db.Change().DeleteKey(one, deletedAt).Commit(ctx))
	check("all after deleting the key", list(0, 10), "0:")
	_, err = db.Alias(ctx, account, "alias/a")
	wantErr(t, "an alias of a deleted key", err, keystore.ErrNotFound)
	must(t, db.Scan(ctx))
	if h := db.Health(); h.Problem != "" || h.Keys != 1 {
		t.Errorf("health %+v", h)
	}
}

func TestDeleteKey(t *testing.T) {
	db, store := newDB(t)
	ctx := t.Context()
	before, err := store.Scan(ctx, "", "", 100)
	must(t, err)
	k := create(t, db, 1)
	must(t, db.Change().CreateVersion(newVersion(k, 2)).CreateAlias(&keystore.Alias{Account: account, Name: "alias/a", KeyID: k.ID}).Commit(ctx))
	_, err = db.ReserveCalls(ctx, k.ID+"-0000000002", 10)
	must(t, err)
	stale := *k
	must(t, db.Change().DeleteKey(k, deletedAt).Commit(ctx))
	wantErr(t, "deleting twice", db.Change().DeleteKey(k, deletedAt).Commit(ctx), keystore.ErrConflict)
	wantErr(t, "changing a deleted key", db.Change().UpdateKey(k, &stale).Commit(ctx), keystore.ErrConflict)
	wantErr(t, "the ID again", db.Change().CreateKey(newKey(1)).Commit(ctx), keystore.ErrConflict)
	_, err = db.Key(ctx, k.ID)
	wantErr(t, "the key", err, keystore.ErrNotFound)
	_, err = db.Version(ctx, k.ID, k.ID+"-0000000001")
	wantErr(t, "a version", err, keystore.ErrNotFound)
	_, err = db.ReserveCalls(ctx, k.ID+"-0000000002", 10)
	wantErr(t, "calls of a version", err, keystore.ErrNotFound)
	gone, err := db.Tombstone(ctx, k.ID)
	if err != nil || gone.Account != account || !gone.Deleted.Equal(deletedAt) {
		t.Errorf("tombstone %+v, %v", gone, err)
	}
	after, err := store.Scan(ctx, "", "", 100)
	must(t, err)
	var names []string
	for _, r := range after {
		if !slices.ContainsFunc(before, func(b keystore.Record) bool { return b.Name == r.Name }) {
			names = append(names, r.Name)
		}
	}
	if want := []string{"gone/" + k.ID, "list/keys/" + account}; !slices.Equal(names, want) {
		t.Errorf("left after deleting: %q, want %q", names, want)
	}
	must(t, db.Scan(ctx))
	if h := db.Health(); h.Problem != "" || h.Keys != 0 {
		t.Errorf("health %+v", h)
	}
}

func TestIntents(t *testing.T) {
	db, _ := newDB(t)
	ctx := t.Context()
	var want []string
	for n := range 300 {
		i := &keystore.Intent{ID: fmt.Sprintf("%032x", n), Kind: "create-key", KeyID: "key-1", Version: "key-1-1"}
		must(t, db.Change().PutIntent(i).Commit(ctx))
		want = append(want, i.ID)
	}
	found, err := db.Intents(ctx)
	must(t, err)
	var got []string
	for _, i := range found {
		got = append(got, i.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d intents, want %d", len(got), len(want))
	}
	var wins, conflicts int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 4 { // of those who end the same work one wins
		wg.Go(func() {
			err := db.Change().DeleteIntent(found[7]).Commit(ctx)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				wins++
			} else if errors.Is(err, keystore.ErrConflict) {
				conflicts++
			}
		})
	}
	wg.Wait()
	if wins != 1 || conflicts != 3 {
		t.Errorf("%d winners, %d conflicts", wins, conflicts)
	}
	if found, err = db.Intents(ctx); err != nil || len(found) != 299 {
		t.Errorf("%d intents are left, %v", len(found), err)
	}
}

func TestReserveCalls(t *testing.T) {
	db, _ := newDB(t)
	k := create(t, db, 1)
	const workers, each = 8, 10
	seen := make([]map[uint64]bool, workers)
	var wg sync.WaitGroup
	for w := range workers {
		seen[w] = map[uint64]bool{}
		wg.Go(func() {
			for range each {
				total, err := db.ReserveCalls(t.Context(), k.ID+"-0000000001", 100)
				if err != nil {
					t.Error(err)
				}
				seen[w][total] = true
			}
		})
	}
	wg.Wait()
	all := map[uint64]bool{}
	for _, s := range seen {
		for total := range s {
			if all[total] || total%100 != 0 || total == 0 || total > workers*each*100 {
				t.Errorf("the total %d was given twice or is out of range", total)
			}
			all[total] = true
		}
	}
	_, err := db.ReserveCalls(t.Context(), "key-9-1", 1)
	wantErr(t, "no version", err, keystore.ErrNotFound)
	_, err = db.ReserveCalls(t.Context(), k.ID+"-0000000001", 1<<64-1)
	if err == nil {
		t.Error("the count went round")
	}
}

// TestForeignGroup opens a store with other master keys.
func TestForeignGroup(t *testing.T) {
	store := shared{keystore.NewMem()}
	_, err := keystore.Open(t.Context(), store, sealer)
	wantErr(t, "an empty store", err, keystore.ErrNotFound)
	must(t, keystore.Create(t.Context(), store, sealer))
	wantErr(t, "creating twice", keystore.Create(t.Context(), store, sealer), keystore.ErrConflict)
	_, err = keystore.Open(t.Context(), store, storetest.Sealer("kcv-2"))
	wantErr(t, "another group", err, keystore.ErrForeign)
	if err == nil || !strings.Contains(err.Error(), "kcv-1") || !strings.Contains(err.Error(), "kcv-2") {
		t.Errorf("the error does not name both groups: %v", err)
	}
	openDB(t, store) // the failed Open left the store to us
}

// TestTwoAppliances has two DBs over one store: all commits count, and caches follow.
func TestTwoAppliances(t *testing.T) {
	store := shared{keystore.NewMem()}
	must(t, keystore.Create(t.Context(), store, sealer))
	dbs := []*keystore.DB{openDB(t, store), openDB(t, store)}
	const each = 40
	var wg sync.WaitGroup
	for n, db := range dbs {
		wg.Go(func() {
			for i := range each {
				k := newKey(n*1000 + i)
				if err := db.Change().CreateKey(k).Commit(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, db := range dbs {
		if ids, total, err := db.Keys(t.Context(), account, 0, 1000); err != nil || total != 2*each || len(ids) != total {
			t.Errorf("%d keys of %d, %v; want %d", len(ids), total, err, 2*each)
		}
		must(t, db.Scan(t.Context()))
		if h := db.Health(); h.Problem != "" || h.Keys != 2*each {
			t.Errorf("health %+v", h)
		}
	}
	// A change here is seen there within the watch's delay, and the stale copy cannot be written.
	old, err := dbs[1].Key(t.Context(), newKey(0).ID)
	must(t, err)
	mine, err := dbs[0].Key(t.Context(), old.ID)
	must(t, err)
	disabled := *mine
	disabled.State = "Disabled"
	must(t, dbs[0].Change().UpdateKey(mine, &disabled).Commit(t.Context()))
	wantErr(t, "a stale copy", dbs[1].Change().UpdateKey(old, &disabled).Commit(t.Context()), keystore.ErrConflict)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for {
		k, err := dbs[1].Key(ctx, old.ID)
		must(t, err)
		if k.State == "Disabled" {
			break
		}
		must(t, ctx.Err())
	}
}
