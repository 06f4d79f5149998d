package keystore_test

import (
	"context"
	"sync"
	"testing"

	"github.com/keyward/keyward/keystore"
)

// held is a store in which a scan of everything waits for release.
type held struct {
	shared
	began   chan struct{}
	once    *sync.Once
	release chan struct{}
}

func (h held) Scan(ctx context.Context, prefix, after string, limit int) ([]keystore.Record, error) {
	if prefix == "" {
		h.once.Do(func() { close(h.began) })
		select {
		case <-h.release:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return h.shared.Scan(ctx, prefix, after, limit)
}

// TestNotFoundWaitsForTheScan loses records of a store that is scanned in the background. While the scan runs, what is
// there is served, and nobody hears that a lost key does not exist; after it they hear that it may be lost.
func TestNotFoundWaitsForTheScan(t *testing.T) {
	for _, lose := range []bool{true, false} {
		mem := shared{keystore.NewMem()}
		must(t, keystore.Create(t.Context(), mem, sealer))
		db := openDB(t, mem)
		there, lost := create(t, db, 1), newKey(2)
		want := keystore.ErrNotFound
		if lose {
			create(t, db, 2)
			must(t, mem.Commit(t.Context(), keystore.Txn{Deletes: []string{keystore.NameKey(lost.ID)}}))
			want = keystore.ErrDamaged
		}
		store := held{mem, make(chan struct{}), new(sync.Once), make(chan struct{})}
		db, err := keystore.OpenScan(t.Context(), store, sealer, 0)
		must(t, err)
		<-store.began
		if _, err := db.Key(t.Context(), there.ID); err != nil {
			t.Errorf("a key that is there: %v", err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for what, ask := range map[string]func(ctx context.Context) error{
			"key":       func(ctx context.Context) error { _, err := db.Key(ctx, lost.ID); return err },
			"version":   func(ctx context.Context) error { _, err := db.Version(ctx, "key-9", "key-9-1"); return err },
			"alias":     func(ctx context.Context) error { _, err := db.Alias(ctx, account, "alias/x"); return err },
			"tombstone": func(ctx context.Context) error { _, err := db.Tombstone(ctx, lost.ID); return err },
			"list":      func(ctx context.Context) error { _, _, err := db.Keys(ctx, "2", 0, 1); return err },
		} {
			// Mem answers an ended context with its error, so the context has to end after the look.
			ctx := &endsLater{Context: t.Context(), done: ended.Done()}
			wantErr(t, what+" during the scan", ask(ctx), context.Canceled)
		}
		answers := make(chan error)
		go func() { _, err := db.Key(t.Context(), lost.ID); answers <- err }()
		close(store.release)
		wantErr(t, "after the scan", <-answers, want)
		must(t, db.Close())
	}
}

// endsLater is a context that is over for those who wait, and not for those who ask.
type endsLater struct {
	context.Context
	done   <-chan struct{}
	waited bool
}

func (c *endsLater) Done() <-chan struct{} { c.waited = true; return c.done }

func (c *endsLater) Err() error {
	if c.waited {
		return context.Canceled
	}
	return nil
}

// TestCloseDuringTheScan: who waits for the scan hears of Close.
func TestCloseDuringTheScan(t *testing.T) {
	mem := shared{keystore.NewMem()}
	must(t, keystore.Create(t.Context(), mem, sealer))
	create(t, openDB(t, mem), 1) // an empty store is scanned at once
	store := held{mem, make(chan struct{}), new(sync.Once), make(chan struct{})}
	db, err := keystore.OpenScan(t.Context(), store, sealer, 0)
	must(t, err)
	<-store.began
	answers := make(chan error)
	go func() { _, err := db.Key(t.Context(), "key-none"); answers <- err }()
	must(t, db.Close())
	wantErr(t, "a reader that waited", <-answers, keystore.ErrClosed)
}
