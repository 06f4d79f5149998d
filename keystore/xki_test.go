package keystore_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/keyward/keyward/keystore"
)

func TestXKIRecords(t *testing.T) {
	store := shared{keystore.NewMem()}
	must(t, keystore.Create(t.Context(), store, sealer))
	db := openDB(t, store)
	ctx := t.Context()
	for _, name := range []string{"b", "a", "c"} {
		must(t, db.Change().PutXKIPrefix(nil, &keystore.XKIPrefix{Name: name, Account: account, Dialect: "xks-v1", Keys: map[string]string{"k": "key-1"}}).Commit(ctx))
		must(t, db.Change().PutXKIConnection(nil, &keystore.XKIConnection{Instance: "kst-" + name, Endpoint: "https://x", Budget: time.Second}).Commit(ctx))
	}
	wantErr(t, "twice", db.Change().PutXKIPrefix(nil, &keystore.XKIPrefix{Name: "a"}).Commit(ctx), keystore.ErrConflict)
	wantErr(t, "twice", db.Change().PutXKIConnection(nil, &keystore.XKIConnection{Instance: "kst-a"}).Commit(ctx), keystore.ErrConflict)
	for _, bad := range []string{"", "a/b", "a\x00"} {
		if err := db.Change().PutXKIPrefix(nil, &keystore.XKIPrefix{Name: bad}).Commit(ctx); err == nil {
			t.Errorf("%q is a name", bad)
		}
		_, err := db.XKIPrefix(ctx, bad)
		wantErr(t, bad, err, keystore.ErrNotFound)
	}
	// Another process's change is seen, and who did not see it changes nothing.
	other := openDB(t, store)
	was, err := db.XKIPrefix(ctx, "a")
	must(t, err)
	theirs, err := other.XKIPrefix(ctx, "a")
	must(t, err)
	next := *was
	next.PerSecond, next.Rules = 5, []keystore.XKIRule{{Name: "r", Unless: map[string][]string{"awsPrincipalArn": {"x", "y"}}}}
	must(t, db.Change().PutXKIPrefix(was, &next).Commit(ctx))
	wantErr(t, "a stale change", other.Change().PutXKIPrefix(theirs, theirs).Commit(ctx), keystore.ErrConflict)
	wantErr(t, "a stale removal", other.Change().PutXKIPrefix(theirs, nil).Commit(ctx), keystore.ErrConflict)
	waitFor(t, func() bool {
		p, err := other.XKIPrefix(ctx, "a")
		return err == nil && p.PerSecond == 5 && slices.Equal(p.Rules[0].Unless["awsPrincipalArn"], []string{"x", "y"}) && p.Keys["k"] == "key-1"
	})
	renamed := next
	renamed.Name = "z"
	was, err = db.XKIPrefix(ctx, "a")
	must(t, err)
	if err := db.Change().PutXKIPrefix(was, &renamed).Commit(ctx); err == nil {
		t.Error("a prefix is renamed")
	}
	// What is handed out is the caller's own.
	was.Keys["k"] = "another"
	if p, err := db.XKIPrefix(ctx, "a"); err != nil || p.Keys["k"] != "key-1" {
		t.Errorf("%+v, %v", p, err)
	}
	names := func() (all string) {
		prefixes, err := db.XKIPrefixes(ctx)
		must(t, err)
		for _, p := range prefixes {
			all += " " + p.Name
		}
		connections, err := db.XKIConnections(ctx)
		must(t, err)
		for _, c := range connections {
			all += " " + c.Instance
		}
		return all
	}
	if got := names(); got != " a b c kst-a kst-b kst-c" {
		t.Errorf("the lists are%s", got)
	}
	conn, err := db.XKIConnection(ctx, "kst-b")
	must(t, err)
	if conn.Budget != time.Second || conn.Endpoint != "https://x" {
		t.Errorf("%+v", conn)
	}
	must(t, db.Change().PutXKIConnection(conn, nil).Commit(ctx))
	prefix, err := db.XKIPrefix(ctx, "c")
	must(t, err)
	must(t, db.Change().PutXKIPrefix(prefix, nil).Urgent().Commit(ctx))
	if got := names(); got != " a b kst-a kst-c" {
		t.Errorf("the lists are%s", got)
	}
	wantErr(t, "a removal again", db.Change().PutXKIPrefix(prefix, nil).Commit(ctx), keystore.ErrConflict)
	_, err = db.XKIConnection(ctx, "kst-b")
	wantErr(t, "a removed connection", err, keystore.ErrNotFound)
}

// A record that was changed from outside is refused, and hides no other.
func TestDamagedXKIRecords(t *testing.T) {
	store := shared{keystore.NewMem()}
	must(t, keystore.Create(t.Context(), store, sealer))
	db := openDB(t, store)
	ctx := t.Context()
	for _, name := range []string{"a", "b"} {
		must(t, db.Change().PutXKIPrefix(nil, &keystore.XKIPrefix{Name: name}).Commit(ctx))
		must(t, db.Change().PutXKIConnection(nil, &keystore.XKIConnection{Instance: name}).Commit(ctx))
	}
	for _, kind := range []string{"xki-prefix/", "xki-connection/"} {
		rows, err := store.Scan(ctx, kind, "", 10)
		must(t, err)
		if len(rows) != 2 {
			t.Fatalf("%s has %d rows", kind, len(rows))
		}
		// The record of one under the name of the other, too, is none.
		must(t, store.Commit(context.Background(), keystore.Txn{Puts: []keystore.Put{{Name: rows[0].Name, Value: rows[1].Value}}}))
	}
	waitFor(t, func() bool { _, err := db.XKIPrefix(ctx, "a"); return errors.Is(err, keystore.ErrDamaged) })
	waitFor(t, func() bool { _, err := db.XKIConnection(ctx, "a"); return errors.Is(err, keystore.ErrDamaged) })
	prefixes, err := db.XKIPrefixes(ctx)
	wantErr(t, "the list of prefixes", err, keystore.ErrDamaged)
	connections, err2 := db.XKIConnections(ctx)
	wantErr(t, "the list of connections", err2, keystore.ErrDamaged)
	if len(prefixes) != 1 || prefixes[0].Name != "b" || len(connections) != 1 || connections[0].Instance != "b" {
		t.Errorf("what is left is %+v and %+v", prefixes, connections)
	}
}
