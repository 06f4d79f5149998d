package keystore_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/keystore"
)

const instance = "kst-software"

var roomy = keystore.ObjectQuota{Objects: 1000, Octets: 1 << 20}

func createIn(t testing.TB, db *keystore.DB, i int) *keystore.Key {
	t.Helper()
	k := newKey(i)
	k.Instance = instance
	must(t, db.Change().CreateKey(k).CreateVersion(newVersion(k, 1)).Commit(t.Context()))
	got, err := db.Key(t.Context(), k.ID)
	must(t, err)
	return got
}

func namesOf(k *keystore.Key, class uint8, id, label string) *keystore.TokenNames {
	octets := []byte(id)
	return &keystore.TokenNames{Account: k.Account, Instance: k.Instance, KeyID: k.ID, Version: newVersion(k, 1).ID, Ordinal: 1,
		Names: []keystore.ClassNames{{Class: class, ID: &octets, Label: &label}}}
}

func newObject(label string) *keystore.TokenObject {
	return &keystore.TokenObject{Account: account, Instance: instance, Class: 1, Owner: alice, Modifiable: true, ID: []byte("id of " + label),
		Label: label, Value: []byte("value of " + label), Created: deletedAt}
}

func anyObject(*keystore.TokenObject) bool { return true }

func TestPlaces(t *testing.T) {
	db, _ := newDB(t)
	ctx := t.Context()
	first := create(t, db, 1)
	second := create(t, db, 2)
	for n := 2; n <= 5; n++ {
		must(t, db.Change().CreateVersion(newVersion(second, n)).Commit(ctx))
	}
	id, err := db.KeyAt(ctx, account, second.Sequence)
	if err != nil || id != second.ID {
		t.Errorf("the second key is %q, %v", id, err)
	}
	for n := uint64(1); n <= 5; n++ {
		id, err := db.VersionAt(ctx, second.ID, n)
		if err != nil || id != newVersion(second, int(n)).ID {
			t.Errorf("version %d is %q, %v", n, id, err)
		}
	}
	for what, ask := range map[string]func() (string, error){
		"no such key":      func() (string, error) { return db.KeyAt(ctx, account, 3) },
		"key 0":            func() (string, error) { return db.KeyAt(ctx, account, 0) },
		"no such account":  func() (string, error) { return db.KeyAt(ctx, "2", 1) },
		"a bad account":    func() (string, error) { return db.KeyAt(ctx, account+"/", 1) },
		"no such version":  func() (string, error) { return db.VersionAt(ctx, second.ID, 6) },
		"version 0":        func() (string, error) { return db.VersionAt(ctx, second.ID, 0) },
		"of no key at all": func() (string, error) { return db.VersionAt(ctx, "", 1) },
	} {
		_, err := ask()
		wantErr(t, what, err, keystore.ErrNotFound)
	}
	must(t, db.Change().DeleteKey(first, deletedAt).Commit(ctx))
	_, err = db.KeyAt(ctx, account, first.Sequence)
	wantErr(t, "a deleted key", err, keystore.ErrNotFound)
	if third := create(t, db, 3); third.Sequence != 3 {
		t.Errorf("the third key has the number %d", third.Sequence)
	}
}

func TestOldestAlias(t *testing.T) {
	store := shared{keystore.NewMem()}
	must(t, keystore.Create(t.Context(), store, sealer))
	here, there := openDB(t, store), openDB(t, store)
	ctx := t.Context()
	k, o := create(t, here, 1), create(t, here, 2)
	want := func(db *keystore.DB, k *keystore.Key, name string) {
		t.Helper()
		if db == there {
			waitFor(t, func() bool { a, err := db.OldestAlias(ctx, k); return err == nil && a.Name == name })
		}
		a, err := db.OldestAlias(ctx, k)
		if err != nil || a.Name != name {
			t.Errorf("the oldest alias is %q, %v; want %q", a.Name, err, name)
		}
	}
	alias := func(name string, age int) *keystore.Alias {
		return &keystore.Alias{Account: account, Name: "alias/" + name, KeyID: k.ID, Created: deletedAt.AddDate(0, 0, -age)}
	}
	want(here, k, "")
	must(t, here.Change().CreateAlias(alias("young", 1)).Commit(ctx))
	want(here, k, "alias/young")
	want(there, k, "alias/young")
	must(t, here.Change().CreateAlias(alias("a", 0)).CreateAlias(alias("old", 2)).CreateAlias(alias("same", 2)).Commit(ctx))
	want(here, k, "alias/old")
	a, err := here.Alias(ctx, account, "alias/old")
	must(t, err)
	must(t, here.Change().UpdateAlias(a, o.ID).Commit(ctx))
	for _, db := range []*keystore.DB{here, there} {
		want(db, k, "alias/same")
		want(db, o, "alias/old")
	}
	// What is in memory is handed out again as it is.
	one, err := here.OldestAlias(ctx, k)
	must(t, err)
	if two, err := here.OldestAlias(ctx, k); err != nil || one != two {
		t.Errorf("%p and %p, %v", one, two, err)
	}
	must(t, here.Change().DeleteKey(k, deletedAt).Commit(ctx))
	want(here, k, "")
}

// waitFor waits until another DB has learned of a commit.
func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok() && time.Now().Before(end); {
		time.Sleep(100 * time.Microsecond)
	}
}

func TestTokenNames(t *testing.T) {
	db, store := newDB(t)
	ctx := t.Context()
	k := createIn(t, db, 1)
	n := namesOf(k, 3, "id", "label")
	version := n.Version
	if got, err := db.TokenNames(ctx, account, instance, version); got != nil || err != nil {
		t.Errorf("names before any: %+v, %v", got, err)
	}
	must(t, db.Change().SetTokenNames(nil, n).Commit(ctx))
	wantErr(t, "twice as new", db.Change().SetTokenNames(nil, n).Commit(ctx), keystore.ErrConflict)
	got, err := db.TokenNames(ctx, account, instance, version)
	must(t, err)
	if got == nil || !reflect.DeepEqual(got.Names, n.Names) || got.Ordinal != 1 || got.KeyID != k.ID {
		t.Fatalf("%+v", got)
	}
	for _, find := range []func() ([]*keystore.TokenNames, error){
		func() ([]*keystore.TokenNames, error) { return db.TokenNamesByID(ctx, account, instance, []byte("id")) },
		func() ([]*keystore.TokenNames, error) { return db.TokenNamesByLabel(ctx, account, instance, "label") },
	} {
		if found, err := find(); err != nil || len(found) != 1 || found[0] != got {
			t.Errorf("%+v, %v", found, err)
		}
	}
	next := namesOf(k, 2, "", "")
	must(t, db.Change().SetTokenNames(got, next).Commit(ctx))
	wantErr(t, "stale", db.Change().SetTokenNames(got, next).Commit(ctx), keystore.ErrConflict)
	if found, err := db.TokenNamesByLabel(ctx, account, instance, "label"); err != nil || len(found) != 0 {
		t.Errorf("a label that was replaced is still found: %+v, %v", found, err)
	}
	if found, err := db.TokenNamesByID(ctx, account, instance, nil); err != nil || len(found) != 1 {
		t.Errorf("an ID that was set to nothing is not found: %+v, %v", found, err)
	}
	if got, err = db.TokenNames(ctx, account, instance, version); err != nil || got.Names[0].ID == nil || got.Names[0].Label == nil {
		t.Fatalf("what was set to nothing is not set: %+v, %v", got, err)
	}
	must(t, db.Change().SetTokenNames(got, &keystore.TokenNames{Account: account, Instance: instance, KeyID: k.ID, Version: version}).Commit(ctx))
	if got, err := db.TokenNames(ctx, account, instance, version); got != nil || err != nil {
		t.Errorf("names that were taken away: %+v, %v", got, err)
	}
	// Names that make no sense.
	for what, edit := range map[string]func(*keystore.TokenNames){
		"another account":  func(n *keystore.TokenNames) { n.Account = "2000000000000002" },
		"another instance": func(n *keystore.TokenNames) { n.Instance = "kst-other" },
		"another version":  func(n *keystore.TokenNames) { n.Version += "x" },
		"another key":      func(n *keystore.TokenNames) { n.KeyID += "x" },
	} {
		bad := namesOf(k, 3, "id", "label")
		edit(bad)
		if err := db.Change().SetTokenNames(nil, bad).Commit(ctx); err == nil {
			t.Errorf("%s was named", what)
		}
	}
	// The names go with the key, and only that key's.
	o := createIn(t, db, 2)
	must(t, db.Change().SetTokenNames(nil, namesOf(k, 3, "id", "label")).SetTokenNames(nil, namesOf(o, 3, "id", "label")).Commit(ctx))
	must(t, db.Change().DeleteKey(k, deletedAt).Commit(ctx))
	found, err := db.TokenNamesByLabel(ctx, account, instance, "label")
	if err != nil || len(found) != 1 || found[0].KeyID != o.ID {
		t.Errorf("after a deletion: %+v, %v", found, err)
	}
	rows, err := store.Scan(ctx, "names/", "", 10)
	if err != nil || len(rows) != 1 {
		t.Errorf("%d records of names, %v", len(rows), err)
	}
	wantErr(t, "names of a deleted key", db.Change().SetTokenNames(nil, namesOf(k, 3, "", "")).Commit(ctx), keystore.ErrConflict)
}

func TestTokenObjects(t *testing.T) {
	store := shared{keystore.NewMem()}
	must(t, keystore.Create(t.Context(), store, sealer))
	db := openDB(t, store)
	ctx := t.Context()
	a := newObject("a")
	must(t, db.Change().CreateTokenObject(a, roomy).Commit(ctx))
	b := newObject("b")
	must(t, db.Change().CreateTokenObject(b, roomy).Commit(ctx))
	if a.Number != 1 || b.Number != 2 {
		t.Errorf("numbers %d and %d", a.Number, b.Number)
	}
	got, err := db.TokenObject(ctx, account, instance, 1)
	must(t, err)
	if string(got.Value) != "value of a" || got.Label != "a" || got.Owner != alice || !got.Created.Equal(deletedAt) || got.Sealed != nil {
		t.Errorf("%+v", got)
	}
	if rows, err := store.Scan(ctx, "object/", "", 10); err != nil || len(rows) != 2 || bytes.Contains(rows[0].Value, []byte("value of")) {
		t.Errorf("%d records, %v: %s", len(rows), err, rows[0].Value)
	}
	next := *got
	next.Value, next.Label, next.Class, next.Owner, next.Number = []byte("new"), "c", 9, "nobody", 77
	must(t, db.Change().UpdateTokenObject(got, &next, roomy).Commit(ctx))
	wantErr(t, "stale", db.Change().UpdateTokenObject(got, &next, roomy).Commit(ctx), keystore.ErrConflict)
	wantErr(t, "stale", db.Change().DeleteTokenObject(got).Commit(ctx), keystore.ErrConflict)
	if got, err = db.TokenObject(ctx, account, instance, 1); err != nil || string(got.Value) != "new" || got.Label != "c" || got.Class != 1 || got.Owner != alice {
		t.Errorf("%+v %v", got, err)
	}
	must(t, db.Change().DeleteTokenObject(got).Commit(ctx))
	_, err = db.TokenObject(ctx, account, instance, 1)
	wantErr(t, "a deleted object", err, keystore.ErrNotFound)
	// Quotas: of objects, and of octets. What makes it smaller works above them.
	must(t, db.Change().CreateTokenObject(newObject("d"), keystore.ObjectQuota{Objects: 2, Octets: 1000}).Commit(ctx))
	wantErr(t, "a third", db.Change().CreateTokenObject(newObject("e"), keystore.ObjectQuota{Objects: 2, Octets: 1000}).Commit(ctx), keystore.ErrObjectQuota)
	large := newObject("f")
	large.Value = make([]byte, 500)
	wantErr(t, "a large one", db.Change().CreateTokenObject(large, keystore.ObjectQuota{Objects: 9, Octets: 500}).Commit(ctx), keystore.ErrObjectQuota)
	if got, err = db.TokenObject(ctx, account, instance, 2); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "one that grows", db.Change().UpdateTokenObject(got, large, keystore.ObjectQuota{Objects: 9, Octets: 500}).Commit(ctx), keystore.ErrObjectQuota)
	small := *got
	small.Value = nil
	must(t, db.Change().UpdateTokenObject(got, &small, keystore.ObjectQuota{}).Commit(ctx))
	must(t, db.Close())
	db = openDB(t, store)
	all, err := db.TokenObjects(ctx, account, instance, nil, nil, anyObject)
	if err != nil || len(all) != 2 || all[0].Number != 2 || all[1].Number != 3 || len(all[0].Value) != 0 {
		t.Errorf("after a restart: %+v %v", all, err)
	}
	must(t, db.Change().DeleteTokenObject(all[0]).DeleteTokenObject(all[1]).Commit(ctx))
	e := newObject("e")
	must(t, db.Change().CreateTokenObject(e, roomy).Commit(ctx))
	if e.Number != 4 {
		t.Errorf("a number was used again: %d", e.Number)
	}
	if h := db.Health(); h.Problem != "" || len(h.Damaged) > 0 {
		t.Errorf("%+v", h)
	}
}

// TestTokenIndexAgainstModel changes tokens at random through two DBs over one store, and after each commit asks the one that made it.
func TestTokenIndexAgainstModel(t *testing.T) {
	store := shared{keystore.NewMem()}
	must(t, keystore.Create(t.Context(), store, sealer))
	dbs := []*keystore.DB{openDB(t, store), openDB(t, store)}
	ctx := t.Context()
	random := rand.New(rand.NewPCG(5, 6))
	model := map[uint64]keystore.TokenObject{}
	named := map[string]string{} // label by version
	var keys []*keystore.Key
	for i := range 5 {
		keys = append(keys, createIn(t, dbs[0], i))
	}
	// fresh tries again until the DB, which learns of the other's commits a little later, has the newest.
	fresh := func(try func() error) {
		t.Helper()
		for {
			if err := try(); err == nil {
				return
			} else if !strings.Contains(err.Error(), keystore.ErrConflict.Error()) && !strings.Contains(err.Error(), keystore.ErrNotFound.Error()) {
				t.Fatal(err)
			}
		}
	}
	label := func() string { return fmt.Sprint("label ", random.IntN(4)) }
	for range 600 {
		db := dbs[random.IntN(2)]
		var number uint64
		for number = range model {
			break
		}
		switch k := keys[random.IntN(len(keys))]; random.IntN(4) {
		case 0:
			o := newObject(label())
			must(t, db.Change().CreateTokenObject(o, roomy).Commit(ctx))
			model[o.Number] = *o
		case 1:
			if number == 0 {
				continue
			}
			var next keystore.TokenObject
			fresh(func() error {
				was, err := db.TokenObject(ctx, account, instance, number)
				if err != nil {
					return err
				}
				next = *was
				next.Label, next.Value = label(), []byte("changed")
				return db.Change().UpdateTokenObject(was, &next, roomy).Commit(ctx)
			})
			model[number] = next
		case 2:
			if number == 0 {
				continue
			}
			fresh(func() error {
				was, err := db.TokenObject(ctx, account, instance, number)
				if err != nil {
					return err
				}
				return db.Change().DeleteTokenObject(was).Commit(ctx)
			})
			delete(model, number)
		case 3:
			n := namesOf(k, 3, "id", label())
			fresh(func() error {
				was, err := db.TokenNames(ctx, account, instance, n.Version)
				if err != nil {
					return err
				}
				return db.Change().SetTokenNames(was, n).Commit(ctx)
			})
			named[n.Version] = *n.Names[0].Label
		}
		// The one that committed sees its own change at once, and both see all of it in the end.
		db = dbs[random.IntN(2)]
		for i := range 4 {
			want := fmt.Sprint("label ", i)
			agree := func() bool {
				found, err := db.TokenObjects(ctx, account, instance, nil, &want, anyObject)
				must(t, err)
				names, err := db.TokenNamesByLabel(ctx, account, instance, want)
				must(t, err)
				var got, ought []uint64
				for _, o := range found {
					got = append(got, o.Number)
				}
				for n, o := range model {
					if o.Label == want {
						ought = append(ought, n)
					}
				}
				slices.Sort(ought)
				count := 0
				for _, l := range named {
					if l == want {
						count++
					}
				}
				return slices.Equal(got, ought) && count == len(names)
			}
			waitFor(t, agree)
			if !agree() {
				t.Fatalf("%q differs from the model", want)
			}
		}
	}
}

// What was committed before a look is in it, while many look and change at the same time.
func TestTokenIndexAtOnce(t *testing.T) {
	db, _ := newDB(t)
	ctx := t.Context()
	var done sync.WaitGroup
	var made atomic.Uint64
	for w := range 4 {
		done.Go(func() {
			for i := range 50 {
				o := newObject(fmt.Sprint(w, " ", i))
				if err := db.Change().CreateTokenObject(o, roomy).Commit(ctx); err != nil {
					t.Error(err)
					return
				}
				made.Add(1)
				got, err := db.TokenObject(ctx, account, instance, o.Number)
				if err != nil || got.Label != o.Label {
					t.Errorf("%d: %+v %v", o.Number, got, err)
				}
				least := made.Load()
				if all, err := db.TokenObjects(ctx, account, instance, nil, nil, anyObject); err != nil || uint64(len(all)) < least {
					t.Errorf("%d objects, %d were made, %v", len(all), least, err)
				}
				if i%10 == 0 {
					db.Lose()
				}
			}
		})
	}
	done.Wait()
}

// A damaged object is told and left out, and the rest can be used.
func TestDamagedTokenObject(t *testing.T) {
	store := shared{keystore.NewMem()}
	must(t, keystore.Create(t.Context(), store, sealer))
	db := openDB(t, store)
	ctx := t.Context()
	for _, label := range []string{"a", "b"} {
		must(t, db.Change().CreateTokenObject(newObject(label), roomy).Commit(ctx))
	}
	rows, err := store.Scan(ctx, "object/", "", 1)
	must(t, err)
	rows[0].Value[len(rows[0].Value)-3] ^= 1
	must(t, store.Commit(context.Background(), keystore.Txn{Puts: []keystore.Put{{Name: rows[0].Name, Value: rows[0].Value}}}))
	waitFor(t, func() bool { _, err := db.TokenObject(ctx, account, instance, 1); return err != nil })
	_, err = db.TokenObject(ctx, account, instance, 1)
	wantErr(t, "the damaged one", err, keystore.ErrNotFound)
	if o, err := db.TokenObject(ctx, account, instance, 2); err != nil || o.Label != "b" {
		t.Errorf("the other: %+v %v", o, err)
	}
	if h := db.Health(); !slices.Contains(h.Damaged, rows[0].Name) {
		t.Errorf("damaged: %v", h.Damaged)
	}
}
