package keystore_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/keyward/keyward/keystore"
)

// TestIndexesAgainstModel changes keys at random, and after each commit compares tags, what is due, and how full instances are
// with what the keys themselves say.
func TestIndexesAgainstModel(t *testing.T) {
	store := shared{keystore.NewMem()}
	must(t, keystore.Create(t.Context(), store, sealer))
	db := openDB(t, store)
	ctx := t.Context()
	random := rand.New(rand.NewPCG(4, 4))
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	keys := map[string]*keystore.Key{}
	released := map[string]map[string]time.Time{"kst-a": {}, "kst-b": {}}

	change := func(k *keystore.Key) {
		k.Tags = nil
		for _, name := range []string{"team", "team/a", "stage", ""}[:random.IntN(4)] {
			k.Tags = append(k.Tags, keystore.Tag{Key: name, Value: []string{"x", "y", ""}[random.IntN(3)]})
		}
		k.State = []string{"Enabled", "Disabled", "PendingDeletion"}[random.IntN(3)]
		k.DeleteAt, k.MaterialExpires = nil, nil
		at := now.Add(time.Duration(random.IntN(100)-50) * 24 * time.Hour)
		if k.State == "PendingDeletion" {
			k.DeleteAt = &at
		}
		if random.IntN(4) == 0 {
			k.MaterialExpires = &at
		}
		k.AutoRotate, k.RotationInterval = random.IntN(2) == 0, time.Duration(random.IntN(3))*7*24*time.Hour
		k.LastRotation = now.Add(-time.Duration(random.IntN(30)) * 24 * time.Hour)
		k.OtherAccounts = nil
		k.OtherAccounts = append(k.OtherAccounts, []string{"2000000000000002", "3000000000000003"}[:random.IntN(3)]...)
	}
	check := func() {
		t.Helper()
		tagged := map[string][]string{}
		due := map[keystore.DueKind][]keystore.Due{}
		versions := map[string]int{}
		others := map[string]map[string]int{"kst-a": {}, "kst-b": {}}
		for _, id := range slices.Sorted(maps.Keys(keys)) {
			k := keys[id]
			for _, tag := range k.Tags {
				tagged[tag.Key] = append(tagged[tag.Key], id)
				tagged[tag.Key+"="+tag.Value] = append(tagged[tag.Key+"="+tag.Value], id)
			}
			add := func(kind keystore.DueKind, at time.Time) {
				if !at.After(now) {
					due[kind] = append(due[kind], keystore.Due{KeyID: id, At: at})
				}
			}
			if k.DeleteAt != nil {
				add(keystore.DueDelete, *k.DeleteAt)
			}
			if k.MaterialExpires != nil {
				add(keystore.DueExpire, *k.MaterialExpires)
			}
			if next := k.NextRotation(); !next.IsZero() && k.State == "Enabled" {
				add(keystore.DueRotate, next)
			}
			versions[k.Instance] += k.Versions
			for _, a := range k.OtherAccounts {
				others[k.Instance][a]++
			}
		}
		for _, name := range []string{"team", "team/a", "stage"} {
			for _, value := range []string{"*", "x", "y", ""} {
				set, want := keystore.TagValueKeys(account, keystore.Tag{Key: name, Value: value}), tagged[name+"="+value]
				if value == "*" {
					set, want = keystore.TaggedKeys(account, name), tagged[name]
				}
				page, total, err := db.KeyPage(ctx, set, 0, 1000)
				must(t, err)
				rows, err := db.KeyRows(ctx, set, 0, 1000)
				must(t, err)
				if got := ids(rows); total != len(want) || !slices.Equal(got, want) || !slices.Equal(page, rows) {
					t.Fatalf("tag %s=%s: %v (%d), want %v", name, value, got, total, want)
				}
			}
		}
		for _, kind := range []keystore.DueKind{keystore.DueDelete, keystore.DueExpire, keystore.DueRotate} {
			want := due[kind]
			slices.SortStableFunc(want, func(a, b keystore.Due) int { return a.At.Compare(b.At) })
			var got []keystore.Due
			var last *keystore.Due
			for {
				some, err := db.Due(ctx, kind, now, last, 3)
				must(t, err)
				got = append(got, some...)
				if len(some) < 3 {
					break
				}
				last = &some[2]
			}
			if !slices.Equal(got, want) {
				t.Fatalf("due for %s: %v, want %v", kind, got, want)
			}
		}
		for _, instance := range []string{"kst-a", "kst-b"} {
			u, err := db.InstanceUse(ctx, instance)
			must(t, err)
			want := len(others[instance])
			for a, at := range released[instance] {
				if others[instance][a] == 0 && now.Before(at.Add(5*time.Minute)) {
					want++
				}
			}
			if u.Versions != versions[instance] || u.OtherAccounts(now) != want {
				t.Fatalf("instance %s: %d versions, %d accounts; want %d, %d", instance, u.Versions, u.OtherAccounts(now), versions[instance], want)
			}
		}
	}
	dropped := func(k *keystore.Key, was []string) {
		for _, a := range was {
			if !slices.Contains(k.OtherAccounts, a) {
				released[k.Instance][a] = now
			}
		}
	}
	for i := range 400 {
		now = now.Add(time.Duration(random.IntN(200)) * time.Second)
		switch list := slices.Sorted(maps.Keys(keys)); {
		case len(keys) < 20 || random.IntN(4) == 0:
			k := newKey(i)
			k.Instance = []string{"kst-a", "kst-b"}[random.IntN(2)]
			change(k)
			must(t, db.Change().At(now).CreateKey(k).Commit(ctx))
			keys[k.ID] = k
		case random.IntN(4) == 0:
			id := list[random.IntN(len(list))]
			old, err := db.Key(ctx, id)
			must(t, err)
			must(t, db.Change().At(now).DeleteKey(old, now).Commit(ctx))
			gone := *old
			gone.OtherAccounts = nil
			dropped(&gone, old.OtherAccounts)
			delete(keys, id)
		default:
			id := list[random.IntN(len(list))]
			old, err := db.Key(ctx, id)
			must(t, err)
			next := *old
			change(&next)
			next.Versions += random.IntN(2)
			must(t, db.Change().At(now).UpdateKey(old, &next).Commit(ctx))
			dropped(&next, old.OtherAccounts)
			keys[id] = &next
		}
		check()
	}
	must(t, db.Close())
	db = openDB(t, store)
	check()
	if h := db.Health(); h.Problem != "" || len(h.Damaged) > 0 {
		t.Errorf("after all that the store is not well: %+v", h)
	}
}

func ids(rows []keystore.KeyRow) (all []string) {
	for _, r := range rows {
		all = append(all, r.ID)
	}
	return all
}

func TestQuota(t *testing.T) {
	db, _ := newDB(t)
	ctx := t.Context()
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	make := func(i, versions, accounts int, others ...string) error {
		k := newKey(i)
		k.Instance, k.OtherAccounts = "kst-a", others
		return db.Change().At(now).CreateKey(k).Quota("kst-a", versions, accounts).Commit(ctx)
	}
	must(t, make(1, 2, 1, "2000000000000002"))
	must(t, make(2, 2, 1, "2000000000000002"))
	wantErr(t, "a third version", make(3, 2, 1), keystore.ErrQuota)
	wantErr(t, "a second account", make(4, -1, 1, "3000000000000003"), keystore.ErrAccessQuota)
	if _, err := db.Key(ctx, newKey(3).ID); err == nil {
		t.Error("a key was made over the quota")
	}
	// What does not make the instance fuller goes through, even over a quota that was made smaller.
	k, err := db.Key(ctx, newKey(1).ID)
	must(t, err)
	next := *k
	next.OtherAccounts = nil
	must(t, db.Change().At(now).UpdateKey(k, &next).Quota("kst-a", 1, 0).Commit(ctx))
	k2, err := db.Key(ctx, newKey(2).ID)
	must(t, err)
	next2 := *k2
	next2.OtherAccounts = nil
	must(t, db.Change().At(now).UpdateKey(k2, &next2).Quota("kst-a", 1, 0).Commit(ctx))
	// The unit comes back after five minutes.
	wantErr(t, "an account right after another", make(5, -1, 1, "3000000000000003"), keystore.ErrAccessQuota)
	now = now.Add(5 * time.Minute)
	must(t, make(5, -1, 1, "3000000000000003"))
}

func TestDefaultAndServiceKeys(t *testing.T) {
	db, _ := newDB(t)
	ctx := t.Context()
	_, err := db.DefaultKey(ctx, account)
	wantErr(t, "no default key", err, keystore.ErrNotFound)
	for i, role := range []string{keystore.RoleDefault, keystore.RoleService} {
		k, again := newKey(2*i), newKey(2*i+1)
		k.Role, again.Role = role, role
		if role == keystore.RoleService {
			k.Creator, again.Creator = "oss", "oss"
		}
		must(t, db.Change().CreateKey(k).Commit(ctx))
		wantErr(t, "a second one", db.Change().CreateKey(again).Commit(ctx), keystore.ErrConflict)
		read := func() (string, error) {
			if role == keystore.RoleDefault {
				return db.DefaultKey(ctx, account)
			}
			return db.ServiceKey(ctx, account, "oss")
		}
		if id, err := read(); err != nil || id != k.ID {
			t.Errorf("%s: %q, %v", role, id, err)
		}
		old, err := db.Key(ctx, k.ID)
		must(t, err)
		must(t, db.Change().DeleteKey(old, deletedAt).Commit(ctx))
		_, err = read()
		wantErr(t, role+" after deletion", err, keystore.ErrNotFound)
		must(t, db.Change().CreateKey(again).Commit(ctx))
	}
}

func TestUpdateVersion(t *testing.T) {
	db, _ := newDB(t)
	ctx := t.Context()
	k := create(t, db, 1)
	v, err := db.Version(ctx, k.ID, newVersion(k, 1).ID)
	must(t, err)
	gone := *v
	gone.Sealed = nil
	must(t, db.Change().UpdateVersion(v, &gone).Commit(ctx))
	wantErr(t, "an old version", db.Change().UpdateVersion(v, &gone).Commit(ctx), keystore.ErrConflict)
	if v, err = db.Version(ctx, k.ID, v.ID); err != nil || v.Sealed != nil {
		t.Errorf("the material is still there: %v, %v", v, err)
	}
	moved := *v
	moved.KeyID = newKey(2).ID
	if err := db.Change().UpdateVersion(v, &moved).Commit(ctx); err == nil {
		t.Error("a version was moved to another key")
	}
}

// TestTagFilterAtScale makes enough keys with one tag to fill several buckets.
func TestTagFilterAtScale(t *testing.T) {
	db, _ := newDB(t)
	ctx := t.Context()
	var want []string
	for i := range 3 {
		c := db.Change()
		for j := range 700 {
			k := newKey(i*700 + j)
			if j%2 == 0 {
				k.Tags = []keystore.Tag{{Key: "a", Value: fmt.Sprint(j % 3)}}
				if j%3 == 0 {
					want = append(want, k.ID)
				}
			}
			c.CreateKey(k)
		}
		must(t, c.Commit(ctx))
	}
	set := keystore.TagValueKeys(account, keystore.Tag{Key: "a", Value: "0"})
	for offset := 0; offset < len(want); offset += 90 {
		page, total, err := db.KeyPage(ctx, set, offset, 100)
		must(t, err)
		if got := ids(page); total != len(want) || !slices.Equal(got, want[offset:min(offset+100, len(want))]) {
			t.Fatalf("from %d: %d rows of %d, want %d", offset, len(got), total, len(want))
		}
	}
	if rows, err := db.KeyRows(ctx, keystore.AccountKeys(account), 2000, 50); err != nil || len(rows) != 50 || rows[0].Sequence != 2001 {
		t.Errorf("rows after 2000: %d, %v", len(rows), err)
	}
	if k, err := db.PeekKey(ctx, want[3]); err != nil || k.ID != want[3] {
		t.Errorf("peek: %v, %v", k, err)
	}
}
