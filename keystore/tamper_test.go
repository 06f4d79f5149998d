package keystore_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/keystore/storetest"
)

// tampered returns a store with ten keys after tamper has had it, opened.
func tampered(t *testing.T, tamper func(store keystore.Store)) *keystore.DB {
	t.Helper()
	store := shared{keystore.NewMem()}
	must(t, keystore.Create(t.Context(), store, sealer))
	db, err := keystore.Open(t.Context(), store, sealer)
	must(t, err)
	for i := range 10 {
		create(t, db, i)
	}
	must(t, db.Close())
	tamper(store)
	return openDB(t, store)
}

func write(t *testing.T, store keystore.Store, name string, value []byte) {
	t.Helper()
	must(t, store.Commit(t.Context(), keystore.Txn{Puts: []keystore.Put{{Name: name, Value: value}}}))
}

func read(t *testing.T, store keystore.Store, name string) []byte {
	t.Helper()
	r, err := store.Get(t.Context(), name)
	must(t, err)
	return r.Value
}

func othersWork(t *testing.T, db *keystore.DB, except int) {
	t.Helper()
	for i := range 10 {
		if i == except {
			continue
		}
		k, err := db.Key(t.Context(), newKey(i).ID)
		if err != nil || k.Spec != "Aliyun_AES_256" {
			t.Errorf("key %d: %+v, %v", i, k, err)
		}
	}
}

// headerBits is the tag and the generation.
const headerBits = 40 * 8

// TestDamagedRecord flips bits of one key's record: all of the header, and every seventh after it. The key fails closed, by name; nothing else changes.
func TestDamagedRecord(t *testing.T) {
	name := keystore.NameKey(newKey(3).ID)
	var size int
	tampered(t, func(s keystore.Store) { size = len(read(t, s, name)) })
	for bit := range size * 8 {
		if bit%7 != 0 && bit > headerBits {
			continue
		}
		db := tampered(t, func(s keystore.Store) {
			v := read(t, s, name)
			v[bit/8] ^= 1 << (bit % 8)
			write(t, s, name, v)
		})
		_, err := db.Key(t.Context(), newKey(3).ID)
		wantErr(t, fmt.Sprint("bit ", bit), err, keystore.ErrDamaged)
		othersWork(t, db, 3)
		h := db.Health()
		if !slices.Equal(h.Damaged, []string{name}) || h.Problem != "" {
			t.Fatalf("bit %d: health %+v", bit, h)
		}
		// The names are all right, so "no such key" can be trusted and work goes on.
		_, err = db.Key(t.Context(), "key-none")
		wantErr(t, "no such key", err, keystore.ErrNotFound)
		must(t, db.Change().CreateKey(newKey(20)).Commit(t.Context()))
		must(t, db.Scan(t.Context()))
		if h := db.Health(); h.Problem != "" {
			t.Fatalf("bit %d: health after a commit %+v", bit, h)
		}
		must(t, db.Close())
	}
}

// TestIncomplete takes records away, rolls one back, swaps two: a scan notices what no tag can show.
func TestIncomplete(t *testing.T) {
	key3, key4 := keystore.NameKey(newKey(3).ID), keystore.NameKey(newKey(4).ID)
	for name, tamper := range map[string]func(s keystore.Store){
		"lost": func(s keystore.Store) {
			must(t, s.Commit(t.Context(), keystore.Txn{Deletes: []string{key3}}))
		},
		"rolled back": func(s keystore.Store) {
			before := read(t, s, key3)
			db, err := keystore.Open(t.Context(), s, sealer)
			must(t, err)
			k, err := db.Key(t.Context(), newKey(3).ID)
			must(t, err)
			disabled := *k
			disabled.State = "Disabled"
			must(t, db.Change().UpdateKey(k, &disabled).Commit(t.Context()))
			must(t, db.Close())
			write(t, s, key3, before)
		},
		"swapped": func(s keystore.Store) {
			three, four := read(t, s, key3), read(t, s, key4)
			write(t, s, key3, four)
			write(t, s, key4, three)
		},
		"renamed": func(s keystore.Store) {
			v := read(t, s, key3)
			must(t, s.Commit(t.Context(), keystore.Txn{Puts: []keystore.Put{{Name: key3[:len(key3)-1] + "x", Value: v}}, Deletes: []string{key3}}))
		},
		"cut off": func(s keystore.Store) { write(t, s, key3, read(t, s, key3)[:20]) },
		"root rolled back": func(s keystore.Store) {
			before := read(t, s, "root")
			db, err := keystore.Open(t.Context(), s, sealer)
			must(t, err)
			create(t, db, 11)
			must(t, db.Close())
			write(t, s, "root", before)
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := tampered(t, tamper)
			if h := db.Health(); h.Problem == "" || !h.Verified.IsZero() {
				t.Errorf("health %+v", h)
			}
			_, err := db.Key(t.Context(), "key-none")
			wantErr(t, "a key that may have been lost", err, keystore.ErrDamaged)
			wantErr(t, "a change", db.Change().CreateKey(newKey(20)).Commit(t.Context()), keystore.ErrReadOnly)
			// Disabling still works, and does not heal the finding.
			k, err := db.Key(t.Context(), newKey(5).ID)
			must(t, err)
			disabled := *k
			disabled.State = "Disabled"
			must(t, db.Change().Urgent().UpdateKey(k, &disabled).Commit(t.Context()))
			must(t, db.Scan(t.Context()))
			if db.Health().Problem == "" {
				t.Error("an urgent commit healed the finding")
			}
		})
	}
}

// TestBootstrapCopy damages one copy of the first record, then both.
func TestBootstrapCopy(t *testing.T) {
	for _, name := range []string{"store", "~store"} {
		db := tampered(t, func(s keystore.Store) {
			v := read(t, s, name)
			v[len(v)/2] ^= 1
			write(t, s, name, v)
		})
		othersWork(t, db, -1)
		if h := db.Health(); !slices.Equal(h.Damaged, []string{name}) {
			t.Errorf("health %+v", h)
		}
	}
	// A copy of another store's is sound, and still not this store's.
	db := tampered(t, func(s keystore.Store) {
		other := keystore.NewMem()
		must(t, keystore.Create(t.Context(), other, sealer))
		write(t, s, "~store", read(t, other, "~store"))
	})
	othersWork(t, db, -1)
	if h := db.Health(); !slices.Equal(h.Damaged, []string{"~store"}) {
		t.Errorf("health %+v", h)
	}
	store := keystore.NewMem()
	must(t, keystore.Create(t.Context(), store, sealer))
	// A flipped group name must not look like another group's store.
	for _, name := range []string{"store", "~store"} {
		v := read(t, store, name)
		i := slices.Index(v, 'k')
		v[i] ^= 1
		write(t, store, name, v)
	}
	_, err := keystore.Open(t.Context(), store, sealer)
	wantErr(t, "both copies flipped", err, keystore.ErrDamaged)
}

// wrongSealer opens to something else than it sealed.
type wrongSealer struct{ keystore.Sealer }

func (wrongSealer) Open(context.Context, []byte, []byte) ([]byte, error) {
	return make([]byte, 32), nil
}

// TestCreateOpensAgain: a store is not made under a key that would not come back.
func TestCreateOpensAgain(t *testing.T) {
	store := keystore.NewMem()
	err := keystore.Create(t.Context(), store, wrongSealer{sealer})
	if err == nil || strings.Contains(err.Error(), "nil") {
		t.Errorf("Create: %v", err)
	}
	if there, err := store.Scan(t.Context(), "", "", 1); err != nil || len(there) > 0 {
		t.Errorf("it left %v, %v", there, err)
	}
}

// TestDamagedRoot: without its root record the store can be read, with care, and not written.
func TestDamagedRoot(t *testing.T) {
	for name, tamper := range map[string]func(s keystore.Store){
		"flipped": func(s keystore.Store) {
			v := read(t, s, "root")
			v[50] ^= 4
			write(t, s, "root", v)
		},
		"missing": func(s keystore.Store) { must(t, s.Commit(t.Context(), keystore.Txn{Deletes: []string{"root"}})) },
	} {
		t.Run(name, func(t *testing.T) {
			db := tampered(t, tamper)
			othersWork(t, db, -1)
			_, err := db.Key(t.Context(), "key-none")
			wantErr(t, "no such key", err, keystore.ErrDamaged)
			wantErr(t, "a change", db.Change().CreateKey(newKey(20)).Commit(t.Context()), keystore.ErrReadOnly)
			wantErr(t, "an urgent change", db.Change().Urgent().CreateKey(newKey(20)).Commit(t.Context()), keystore.ErrReadOnly)
			if db.Health().Problem == "" {
				t.Error("health says nothing")
			}
		})
	}
}

// TestScanDuringCommits scans a store in the background while it changes behind and before the cursor.
func TestScanDuringCommits(t *testing.T) {
	store := shared{keystore.NewMem()}
	must(t, keystore.Create(t.Context(), store, sealer))
	db, err := keystore.OpenScan(t.Context(), store, sealer, 0)
	must(t, err)
	defer db.Close()
	for i := range 600 {
		create(t, db, i)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 20 {
			if err := db.Scan(t.Context()); err != nil {
				t.Error(err)
			}
			if h := db.Health(); h.Problem != "" {
				t.Errorf("health %+v", h)
				return
			}
		}
	}()
	for i := 0; ; i++ {
		select {
		case <-done:
			if i < 20 {
				t.Errorf("only %d commits came between", i)
			}
			return
		default:
		}
		k, err := db.Key(t.Context(), newKey(i%600).ID)
		must(t, err)
		switch i % 3 {
		case 0:
			changed := *k
			changed.Description = fmt.Sprint(i)
			must(t, db.Change().UpdateKey(k, &changed).Commit(t.Context()))
		case 1:
			create(t, db, 1000+i)
		case 2:
			last, err := db.Key(t.Context(), newKey(1000+i-1).ID)
			must(t, err)
			must(t, db.Change().DeleteKey(last, deletedAt).Commit(t.Context()))
		}
	}
}

// failing is a Store whose Commit does or does not happen, and whose answer is lost.
type failing struct {
	*keystore.Mem
	fail   error
	before bool // fail before the change is made, or after
}

func (f *failing) Commit(ctx context.Context, tx keystore.Txn) error {
	err := f.fail
	f.fail = nil
	if err != nil && f.before {
		return err
	}
	if e := f.Mem.Commit(ctx, tx); e != nil {
		return e
	}
	return err
}

// TestUnknownOutcome loses the answer to a commit, before and after it took effect.
func TestUnknownOutcome(t *testing.T) {
	for _, before := range []bool{true, false} {
		for _, lost := range []error{context.DeadlineExceeded, keystore.ErrReadOnly, keystore.ErrFull} {
			if lost == keystore.ErrFull && !before {
				continue // ErrFull promises that nothing was written
			}
			t.Run(fmt.Sprint(before, " ", lost), func(t *testing.T) {
				store := &failing{Mem: keystore.NewMem(), before: before}
				must(t, keystore.Create(t.Context(), store, sealer))
				db := openDB(t, store)
				k := create(t, db, 1)
				store.fail = lost
				disabled := *k
				disabled.State = "Disabled"
				wantErr(t, "the commit", db.Change().UpdateKey(k, &disabled).Commit(t.Context()), lost)
				now, err := db.Key(t.Context(), k.ID)
				must(t, err)
				if (now.State == "Disabled") == before {
					t.Errorf("the key is %s", now.State)
				}
				create(t, db, 2) // the next commit finds the right root
				must(t, db.Scan(t.Context()))
				if h := db.Health(); h.Problem != "" || h.Keys != 2 {
					t.Errorf("health %+v", h)
				}
			})
		}
	}
}

// FuzzRecord decodes what a store might hold, into every kind of record. What decodes must encode and decode to the
// same again.
func FuzzRecord(f *testing.F) {
	for _, s := range []string{
		`{"ID":"key-1","Account":"1","Created":"2026-11-25T00:00:00Z","Versions":1,"Sequence":7,"Tags":[{"Key":"a","Value":"b"}]}`,
		`{"ID":"key-1-1","KeyID":"key-1","Created":"2026-11-25T00:00:00Z","Sealed":"AAEC"}`,
		`{"Account":"1","Name":"alias/a","KeyID":"key-1","Created":"2026-11-25T00:00:00Z"}`,
		`{"Last":1024,"After":["","0000000000000400"],"Rows":[1024,3]}`,
		`{"ID":"key-1"} {}`, `{"Unknown":1}`, `{`, `[]`, `null`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		for _, kind := range keystore.RecordKinds {
			v := kind()
			if keystore.Decode(payload, v) != nil {
				continue
			}
			once, err := keystore.Encode(v)
			if err != nil {
				t.Fatalf("%T decoded and does not encode: %v", v, err)
			}
			w := kind()
			if err := keystore.Decode(once, w); err != nil {
				t.Fatalf("%T does not decode again: %v\n%s", v, err, once)
			}
			if twice, err := keystore.Encode(w); err != nil || string(twice) != string(once) {
				t.Fatalf("%T changed:\n%s\n%s", v, once, twice)
			}
		}
	})
}

// FuzzStored gives DB a value that somebody else wrote: it is refused, whatever it is.
func FuzzStored(f *testing.F) {
	store := keystore.NewMem()
	must(f, keystore.Create(f.Context(), store, storetest.Sealer("kcv-1")))
	db, err := keystore.Open(f.Context(), store, storetest.Sealer("kcv-1"))
	must(f, err)
	f.Cleanup(func() { db.Close() })
	create(f, db, 1)
	name := keystore.NameKey(newKey(1).ID)
	good, err := store.Get(f.Context(), name)
	must(f, err)
	f.Add([]byte{})
	f.Add(good.Value[:39])
	f.Add(make([]byte, 200))
	f.Fuzz(func(t *testing.T, value []byte) {
		if string(value) == string(good.Value) {
			return
		}
		must(t, store.Commit(t.Context(), keystore.Txn{Puts: []keystore.Put{{Name: name, Value: value}}}))
		fresh, err := keystore.OpenScan(t.Context(), shared{store}, storetest.Sealer("kcv-1"), 1<<40)
		must(t, err)
		defer fresh.Close()
		_, err = fresh.Key(t.Context(), newKey(1).ID)
		wantErr(t, "a value from elsewhere", err, keystore.ErrDamaged)
	})
}
