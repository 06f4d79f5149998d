package kms

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/keystore/boltstore"
)

// tokenScale is how many keys and how many objects are in the token of BenchmarkToken.
const tokenScale = 10_000

// counting is a store that counts what is read from it for a context that is counted: not what the service reads by itself.
type counting struct {
	keystore.Store
	reads  atomic.Int64
	settle chan struct{} // asks the watch to tell when its reader has dealt with all that was committed; made by newCounting
}

func newCounting(s keystore.Store) *counting {
	return &counting{Store: s, settle: make(chan struct{})}
}

// Watch hands on each event when the one before was dealt with.
func (c *counting) Watch(ctx context.Context, prefix string) (<-chan keystore.Event, error) {
	events, err := c.Store.Watch(ctx, prefix)
	if err != nil {
		return nil, err
	}
	out := make(chan keystore.Event)
	go func() { // ends with events, which end with ctx
		defer close(out)
		hand := func(e keystore.Event) {
			select {
			case out <- e:
			case <-ctx.Done():
			}
		}
		for {
			select {
			case e, ok := <-events:
				if !ok {
					return
				}
				hand(e)
			case <-c.settle:
				for len(events) > 0 {
					hand(<-events)
				}
				hand(keystore.Event{Name: "nothing"}) // taken when all before was dealt with
				c.settle <- struct{}{}
			}
		}
	}()
	return out, nil
}

// settled waits until what was committed is told to the service: what the watch tells late is read again.
func (c *counting) settled() {
	c.settle <- struct{}{}
	<-c.settle
}

type countedKey struct{}

// counted is a context of which reads count.
var counted = context.WithValue(context.Background(), countedKey{}, true)

func (c *counting) count(ctx context.Context) {
	if ctx.Value(countedKey{}) != nil {
		c.reads.Add(1)
	}
}

func (c *counting) Get(ctx context.Context, name string) (keystore.Record, error) {
	c.count(ctx)
	return c.Store.Get(ctx, name)
}

func (c *counting) Scan(ctx context.Context, prefix, after string, limit int) ([]keystore.Record, error) {
	c.count(ctx)
	return c.Store.Scan(ctx, prefix, after, limit)
}

// fillToken makes that many keys, and puts in that many objects and names of every tenth key.
func fillToken(t testing.TB, size int) (*fixture, *counting) {
	t.Helper()
	bolt, err := boltstore.Open(filepath.Join(t.TempDir(), "store"), boltstore.Options{Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	store := newCounting(bolt)
	f := newSoftFixture(t, store)
	f.fill(size)
	f.audit = forgetful{}
	ctx := context.Background()
	value := make([]byte, 1500) // of a usual certificate
	for i := 0; i < size; {
		ch := f.db.Change()
		for range min(1000, size) {
			ch.CreateTokenObject(&keystore.TokenObject{Account: testAccount, Instance: "kst-software", Class: uint8(ClassCertificate), Owner: root.Principal,
				ID: fmt.Append(nil, "certificate ", i), Label: fmt.Sprint("certificate ", i), Value: value, Created: f.now()}, tokenQuota)
			if i%10 == 0 {
				id, err := f.db.KeyAt(ctx, testAccount, uint64(i+1))
				if err != nil {
					t.Fatal(err)
				}
				k, err := f.db.Key(ctx, id)
				if err != nil {
					t.Fatal(err)
				}
				label := fmt.Sprint("named ", i)
				ch.SetTokenNames(nil, &keystore.TokenNames{Account: testAccount, Instance: "kst-software", KeyID: id, Version: k.Primary, Ordinal: 1,
					Names: []keystore.ClassNames{{Class: uint8(ClassSecretKey), Label: &label}}})
			}
			i++
		}
		if err := ch.Commit(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return f, store
}

// tokenSearches are the searches, the i-th for one object of its own.
func tokenSearches(t testing.TB, f *fixture, size int) map[string]func(i int) {
	ctx := counted
	keys := func(id []byte, label *string) {
		if found, err := f.TokenKeysNamed(ctx, user, "kst-software", SomeNames{ID: id, Label: label}); err != nil || len(found) != 1 {
			t.Fatalf("%q %v: %d keys, %v", id, label, len(found), err)
		}
	}
	return map[string]func(i int){
		"key by place": func(i int) {
			if _, err := f.TokenKey(ctx, user, "kst-software", KeyPlace{uint64(i%size + 1), 1}); err != nil {
				t.Fatal(err)
			}
		},
		"key by ID":        func(i int) { keys(f.tokens.ids.of(testAccount, KeyPlace{uint64(i%size + 1), 1}), nil) },
		"key by alias":     func(i int) { label := fmt.Sprint("app/", i%size/10*10+1); keys(nil, &label) },
		"key by set label": func(i int) { label := fmt.Sprint("named ", i%size/10*10); keys(nil, &label) },
		"object by label": func(i int) {
			label := fmt.Sprint("certificate ", i%size)
			if found, err := f.TokenObjects(ctx, user, "kst-software", nil, &label, nil); err != nil || len(found) != 1 {
				t.Fatalf("%q: %d objects, %v", label, len(found), err)
			}
		},
		"object by number": func(i int) {
			if _, err := f.TokenObject(ctx, user, "kst-software", uint64(i%size+1)); err != nil {
				t.Fatal(err)
			}
		},
	}
}

// A search reads indexes: a few records, however many keys and objects there are, and none of what was looked at before.
func TestTokenSearchReadsLittle(t *testing.T) {
	for _, size := range []int{100, 1000} {
		f, store := fillToken(t, size)
		searches := tokenSearches(t, f, size)
		store.settled()
		searches["object by number"](0) // loads the token
		// At most: two rows of the place, key, version, head and rows of its aliases, the alias, and twice an alias that is not there.
		for name, search := range searches {
			for i := range 20 {
				i *= 7
				before := store.reads.Load()
				search(i)
				cold := store.reads.Load() - before
				search(i)
				warm := store.reads.Load() - before - cold
				if cold > 12 || warm > 2 || strings.HasPrefix(name, "object") && cold > 0 {
					t.Errorf("of %d, %s reads %d records, and %d once more", size, name, cold, warm)
				}
			}
		}
		if n := len(allTokenKeys(t, f.Service, user, "kst-software", 77)); n != size {
			t.Errorf("%d keys", n)
		}
	}
}

// BenchmarkToken measures looks at a token that are warm.
func BenchmarkToken(b *testing.B) {
	f, _ := fillToken(b, tokenScale)
	for name, search := range tokenSearches(b, f, tokenScale) {
		for i := range tokenScale {
			search(i)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i += 97 {
				search(i)
			}
		})
	}
	b.Run("one key by place", func(b *testing.B) {
		b.ReportAllocs()
		ctx, place := context.Background(), KeyPlace{5, 1}
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if _, err := f.TokenKey(ctx, user, "kst-software", place); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
