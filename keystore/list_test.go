package keystore_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/keyward/keyward/keystore"
)

// TestListsAgainstModel makes and deletes keys and aliases at random, over several buckets, and compares every kind of
// page with a plain slice.
func TestListsAgainstModel(t *testing.T) {
	db, store := newDB(t)
	ctx := t.Context()
	random := rand.New(rand.NewPCG(5, 5))
	const keys = 2*1024 + 300
	var ids []string
	var aliases []*keystore.Alias // by name
	for i := 0; i < keys; {
		c := db.Change()
		for range 100 { // many rows in one commit cross the borders of buckets too
			k := newKey(i)
			c.CreateKey(k)
			ids = append(ids, k.ID)
			a := &keystore.Alias{Account: account, Name: fmt.Sprintf("alias/%06x-%s", random.IntN(1<<24), strings.Repeat("x", random.IntN(3))), KeyID: ids[random.IntN(len(ids))]}
			if !slices.ContainsFunc(aliases, func(b *keystore.Alias) bool { return b.Name == a.Name }) {
				c.CreateAlias(a)
				aliases = append(aliases, a)
			}
			i++
		}
		must(t, c.Commit(ctx))
	}
	for range 600 {
		i := random.IntN(len(ids))
		if random.IntN(3) == 0 {
			i = len(ids) - 1 - random.IntN(min(len(ids), 3)) // at the end too
		}
		k, err := db.Key(ctx, ids[i])
		must(t, err)
		must(t, db.Change().DeleteKey(k, deletedAt).Commit(ctx))
		aliases = slices.DeleteFunc(aliases, func(a *keystore.Alias) bool { return a.KeyID == ids[i] })
		ids = slices.Delete(ids, i, i+1)
	}
	for i := range 50 { // what comes after holes goes to the end
		k := newKey(keys + 1000 + i)
		must(t, db.Change().CreateKey(k).Commit(ctx))
		ids = append(ids, k.ID)
	}
	slices.SortFunc(aliases, func(a, b *keystore.Alias) int { return cmp.Compare(a.Name, b.Name) })

	window := func(n, offset, limit int) (int, int) { return min(offset, n), min(offset+limit, n) }
	for range 300 {
		offset, limit := random.IntN(len(ids)+50), random.IntN(120)
		got, total, err := db.Keys(ctx, account, offset, limit)
		must(t, err)
		from, to := window(len(ids), offset, limit)
		if total != len(ids) || !slices.Equal(got, ids[from:to]) {
			t.Fatalf("Keys(%d, %d): %d of %d, want %d of %d", offset, limit, len(got), total, to-from, len(ids))
		}
		as, total, err := db.Aliases(ctx, account, offset, limit)
		must(t, err)
		from, to = window(len(aliases), offset, limit)
		same := slices.EqualFunc(as, aliases[from:to], func(a, b *keystore.Alias) bool { return a.Name == b.Name && a.KeyID == b.KeyID })
		if total != len(aliases) || !same {
			t.Fatalf("Aliases(%d, %d): %d of %d, want %d of %d", offset, limit, len(as), total, to-from, len(aliases))
		}
	}
	for range 50 {
		id := ids[random.IntN(len(ids))]
		got, total, err := db.AliasesOf(ctx, id, 0, 1000)
		must(t, err)
		var want []string
		for _, a := range aliases {
			if a.KeyID == id {
				want = append(want, a.Name)
			}
		}
		if total != len(want) || !slices.EqualFunc(got, want, func(a *keystore.Alias, name string) bool { return a.Name == name }) {
			t.Fatalf("AliasesOf(%s): %d of %d, want %q", id, len(got), total, want)
		}
	}
	if _, _, err := db.Keys(ctx, account, -1, 1); err == nil {
		t.Error("a negative offset was taken")
	}
	must(t, db.Scan(ctx))
	if h := db.Health(); h.Problem != "" || h.Keys != len(ids) {
		t.Errorf("health %+v, want %d keys", h, len(ids))
	}

	// Every last key goes, and all that belonged to it.
	for _, id := range ids {
		k, err := db.Key(ctx, id)
		must(t, err)
		must(t, db.Change().DeleteKey(k, deletedAt).Commit(ctx))
	}
	left, err := store.Scan(ctx, "", "", 1<<20)
	must(t, err)
	for _, r := range left {
		if !strings.HasPrefix(r.Name, "gone/") && !slices.Contains([]string{"root", "store", "~store", "list/keys/" + account}, r.Name) {
			t.Errorf("left: %s", r.Name)
		}
	}
	if _, total, err := db.Keys(ctx, account, 0, 10); err != nil || total != 0 {
		t.Errorf("%d keys are left, %v", total, err)
	}
}

// TestVersionsInOrder lists versions by creation, whatever their IDs and clocks say.
func TestVersionsInOrder(t *testing.T) {
	db, _ := newDB(t)
	k := newKey(1)
	must(t, db.Change().CreateKey(k).Commit(t.Context()))
	var want []string
	for n := range 30 {
		v := newVersion(k, (n*7)%30)
		v.Created = k.Created.AddDate(0, 0, -n)
		want = append(want, v.ID)
		must(t, db.Change().CreateVersion(v).Commit(t.Context()))
	}
	got, total, err := db.Versions(t.Context(), k.ID, 10, 15)
	must(t, err)
	if total != 30 || !slices.EqualFunc(got, want[10:25], func(v *keystore.Version, id string) bool { return v.ID == id }) {
		t.Errorf("%d of %d versions", len(got), total)
	}
}

// TestLostRow takes a row of a list away under an open DB: the page says so, though no scan has run since.
func TestLostRow(t *testing.T) {
	db, store := newDB(t)
	for i := range 10 {
		create(t, db, i)
	}
	must(t, store.Commit(t.Context(), keystore.Txn{Deletes: []string{"row/keys/" + account + "/0000000000000004"}}))
	_, _, err := db.Keys(t.Context(), account, 0, 10)
	wantErr(t, "a page with a hole", err, keystore.ErrDamaged)
}
