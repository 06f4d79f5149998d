package keystore_test

import (
	"context"
	"strings"
	"testing"

	"github.com/keyward/keyward/keystore"
)

// deaf is a store whose watch never reports anything, as one that is far behind.
type deaf struct{ shared }

func (deaf) Watch(ctx context.Context, _ string) (<-chan keystore.Event, error) {
	events := make(chan keystore.Event)
	context.AfterFunc(ctx, func() { close(events) })
	return events, nil
}

// TestConflictForgets: whoever got ErrConflict reads the newest record next, however late the watch is.
func TestConflictForgets(t *testing.T) {
	store := shared{keystore.NewMem()}
	must(t, keystore.Create(t.Context(), store, sealer))
	here, there := openDB(t, deaf{store}), openDB(t, store)
	k := create(t, here, 1)
	must(t, here.Change().CreateAlias(&keystore.Alias{Account: account, Name: "alias/a", KeyID: k.ID}).Commit(t.Context()))
	a, err := here.Alias(t.Context(), account, "alias/a")
	must(t, err)
	disable := func(db *keystore.DB, k *keystore.Key) error {
		disabled := *k
		disabled.State = "Disabled"
		return db.Change().UpdateKey(k, &disabled).Commit(t.Context())
	}
	mine, err := there.Key(t.Context(), k.ID)
	must(t, err)
	must(t, disable(there, mine))
	gone, err := there.Alias(t.Context(), account, "alias/a")
	must(t, err)
	must(t, there.Change().DeleteAlias(gone).Commit(t.Context()))

	wantErr(t, "a stale key", disable(here, k), keystore.ErrConflict)
	now, err := here.Key(t.Context(), k.ID)
	must(t, err)
	if now.State != "Disabled" {
		t.Errorf("after the conflict the key is still %s", now.State)
	}
	must(t, disable(here, now))
	wantErr(t, "a stale alias", here.Change().DeleteAlias(a).Commit(t.Context()), keystore.ErrConflict)
	_, err = here.Alias(t.Context(), account, "alias/a")
	wantErr(t, "the alias", err, keystore.ErrNotFound)
}

// TestStoreGoesBack puts an older state of the whole store under an open DB, as a restored backup or a lost disk of
// another appliance does. It is sound in itself, and acknowledged changes are gone.
func TestStoreGoesBack(t *testing.T) {
	store := shared{keystore.NewMem()}
	must(t, keystore.Create(t.Context(), store, sealer))
	db := openDB(t, store)
	create(t, db, 1)
	before, err := store.Scan(t.Context(), "", "", 1000)
	must(t, err)
	create(t, db, 2)
	goBack := func() {
		after, err := store.Scan(t.Context(), "", "", 1000)
		must(t, err)
		var tx keystore.Txn
		old := map[string]bool{}
		for _, r := range before {
			tx.Puts = append(tx.Puts, keystore.Put{Name: r.Name, Value: r.Value})
			old[r.Name] = true
		}
		for _, r := range after {
			if !old[r.Name] {
				tx.Deletes = append(tx.Deletes, r.Name)
			}
		}
		must(t, store.Commit(t.Context(), tx))
	}
	goBack()
	err = db.Change().CreateKey(newKey(3)).Commit(t.Context())
	if err == nil {
		t.Error("a change went on from the older state")
	}
	if p := db.Health().Problem; !strings.Contains(p, "older") {
		t.Errorf("problem %q", p)
	}
	_, err = db.Key(t.Context(), newKey(3).ID)
	wantErr(t, "a key that may have been lost", err, keystore.ErrDamaged)
	must(t, db.Scan(t.Context()))
	if db.Health().Problem == "" {
		t.Error("a scan forgot it")
	}
	wantErr(t, "another change", db.Change().CreateKey(newKey(3)).Commit(t.Context()), keystore.ErrReadOnly)
}
