package keystore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// tokenName is whose token an index is of.
type tokenName struct{ account, instance string }

// tokenIndexes are the tokens that were looked at, whole in memory. The caches' rules hold for them: a commit of this DB is seen by
// readers before it returns, one of another appliance as soon as the watch tells, and without a watch nothing is kept.
type tokenIndexes struct {
	mu  sync.RWMutex // guards what follows
	all map[tokenName]*tokenIndex
	off bool // nothing is kept
}

// tokenIndex is what clients keep in one token. Whoever reads it first loads it; what changes afterwards is noted, and read again by the
// next reader.
type tokenIndex struct {
	name    tokenName
	reading chan struct{} // one token: its holder reads the store, and changes what follows mu
	loaded  atomic.Bool   // set by the holder of reading
	pending atomic.Int64  // len(changed)

	changes sync.Mutex        // guards changed; held for moments, as whoever commits wants it
	changed map[string]uint64 // names of records that are to be read again, with how often they changed

	mu    sync.RWMutex // guards what follows; nothing is read from the store under it
	names struct {
		byVersion                map[string]*TokenNames
		byID, byLabel, bySubject map[string][]*TokenNames
	}
	objects struct { // each slice by number
		all           []*TokenObject
		byNumber      map[uint64]*TokenObject
		byID, byLabel map[string][]*TokenObject
	}
}

func newTokenIndex(name tokenName) *tokenIndex {
	x := &tokenIndex{name: name, reading: make(chan struct{}, 1), changed: map[string]uint64{}}
	x.reading <- struct{}{}
	x.names.byVersion, x.names.byID, x.names.byLabel, x.names.bySubject = map[string]*TokenNames{}, map[string][]*TokenNames{}, map[string][]*TokenNames{}, map[string][]*TokenNames{}
	x.objects.byNumber, x.objects.byID, x.objects.byLabel = map[uint64]*TokenObject{}, map[string][]*TokenObject{}, map[string][]*TokenObject{}
	return x
}

// get gives the index of a token. It must be there before the store is read for it, so that it learns of every change.
func (t *tokenIndexes) get(name tokenName) *tokenIndex {
	t.mu.RLock()
	x := t.all[name]
	t.mu.RUnlock()
	if x != nil {
		return x
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if x := t.all[name]; x != nil {
		return x
	}
	x = newTokenIndex(name)
	if !t.off {
		if t.all == nil {
			t.all = map[tokenName]*tokenIndex{}
		}
		t.all[name] = x
	}
	return x
}

func (t *tokenIndexes) purge(off bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.off = off
	clear(t.all)
}

// evict notes that a record of a token changed.
func (t *tokenIndexes) evict(token tokenName, record string) {
	t.mu.RLock()
	x := t.all[token]
	t.mu.RUnlock()
	if x == nil {
		return
	}
	x.changes.Lock()
	defer x.changes.Unlock()
	x.changed[record]++
	x.pending.Store(int64(len(x.changed)))
}

// token gives the index of a token, with all in it that was committed before the call.
func (db *DB) token(ctx context.Context, account, instance string) (*tokenIndex, error) {
	if db.closed.Load() {
		return nil, ErrClosed
	}
	x := db.tokens.get(tokenName{account, instance})
	if x.loaded.Load() && x.pending.Load() == 0 {
		return x, nil
	}
	select {
	case <-x.reading:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { x.reading <- struct{}{} }()
	if !x.loaded.Load() {
		for _, prefix := range []string{nameTokenNames(account, instance, ""), prefixObject + account + "/" + instance + "/"} {
			if err := db.loadToken(ctx, x, prefix); err != nil {
				return nil, err
			}
		}
		x.loaded.Store(true)
	}
	x.changes.Lock()
	changed := maps.Clone(x.changed)
	x.changes.Unlock()
	for name := range changed {
		r, err := db.store.Get(ctx, name)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		if err := db.indexToken(x, name, r, err == nil); err != nil {
			return nil, err
		}
	}
	x.changes.Lock()
	defer x.changes.Unlock()
	for name, n := range changed {
		if x.changed[name] == n { // else it changed once more, perhaps after it was read
			delete(x.changed, name)
		}
	}
	x.pending.Store(int64(len(x.changed)))
	return x, nil
}

// loadToken puts all records below prefix into an index. The caller holds its reading.
func (db *DB) loadToken(ctx context.Context, x *tokenIndex, prefix string) error {
	for after := ""; ; {
		rows, err := db.store.Scan(ctx, prefix, after, bucketRows)
		if err != nil {
			return err
		}
		for _, r := range rows {
			after = r.Name
			if err := db.indexToken(x, r.Name, r, true); err != nil {
				return err
			}
		}
		if len(rows) < bucketRows {
			return nil
		}
	}
}

// indexToken puts a record into an index as it is now, or takes it out. One that fails its check is not in it: Health has it, and the
// others are not held up. The caller holds the index's reading.
func (db *DB) indexToken(x *tokenIndex, name string, r Record, there bool) error {
	objectName, isObject := strings.CutPrefix(name, prefixObject+x.name.account+"/"+x.name.instance+"/")
	var o *TokenObject
	var n *TokenNames
	if there {
		var err error
		if isObject {
			o, err = db.readTokenObject(r)
		} else {
			n, err = db.readTokenNames(r)
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			return err
		}
		if err != nil {
			o, n = nil, nil
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if isObject {
		x.putObject(objectName, o)
	} else {
		x.putNames(strings.TrimPrefix(name, nameTokenNames(x.name.account, x.name.instance, "")), n)
	}
	return nil
}

func (db *DB) readTokenNames(r Record) (*TokenNames, error) {
	st, err := db.checked(r)
	if err != nil {
		return nil, err
	}
	n := &TokenNames{record: st.state()}
	return n, db.decodeRecord(st, n)
}

func (db *DB) readTokenObject(r Record) (*TokenObject, error) {
	st, err := db.checked(r)
	if err != nil {
		return nil, err
	}
	o := &TokenObject{record: st.state()}
	if err := db.decodeRecord(st, o); err != nil {
		return nil, err
	}
	if o.Value, err = db.OpenSecret(tokenObjectName(o.Account, o.Number), o.Sealed); errors.Is(err, ErrDamaged) {
		db.noteDamaged(r.Name)
	}
	o.Sealed = nil
	return o, err
}

// putNames sets what is known of a version's names; nil is nothing. Caller holds mu.
func (x *tokenIndex) putNames(version string, n *TokenNames) {
	if was := x.names.byVersion[version]; was != nil {
		if n != nil && n.record == was.record {
			return // the watch tells of own commits too
		}
		delete(x.names.byVersion, version)
		for _, c := range was.Names {
			if c.ID != nil {
				drop(x.names.byID, string(*c.ID), was, compareNames)
			}
			if c.Label != nil {
				drop(x.names.byLabel, *c.Label, was, compareNames)
			}
			if c.Subject != nil {
				drop(x.names.bySubject, string(*c.Subject), was, compareNames)
			}
		}
	}
	if n == nil {
		return
	}
	x.names.byVersion[version] = n
	for _, c := range n.Names {
		if c.ID != nil {
			keep(x.names.byID, string(*c.ID), n, compareNames)
		}
		if c.Label != nil {
			keep(x.names.byLabel, *c.Label, n, compareNames)
		}
		if c.Subject != nil {
			keep(x.names.bySubject, string(*c.Subject), n, compareNames)
		}
	}
}

// putObject sets what is known of the object with a number, as it is in the name of its record; nil is nothing. Caller holds mu.
func (x *tokenIndex) putObject(number string, o *TokenObject) {
	i, there := slices.BinarySearchFunc(x.objects.all, number, func(o *TokenObject, number string) int {
		return cmp.Compare(sequenceRow(o.Number), number)
	})
	if there {
		was := x.objects.all[i]
		if o != nil && o.record == was.record {
			return
		}
		x.objects.all = slices.Delete(x.objects.all, i, i+1)
		delete(x.objects.byNumber, was.Number)
		drop(x.objects.byID, string(was.ID), was, compareObjects)
		drop(x.objects.byLabel, was.Label, was, compareObjects)
	}
	if o == nil || sequenceRow(o.Number) != number {
		return
	}
	x.objects.all = slices.Insert(x.objects.all, i, o)
	x.objects.byNumber[o.Number] = o
	keep(x.objects.byID, string(o.ID), o, compareObjects)
	keep(x.objects.byLabel, o.Label, o, compareObjects)
}

func compareNames(a, b *TokenNames) int    { return cmp.Compare(a.Version, b.Version) }
func compareObjects(a, b *TokenObject) int { return cmp.Compare(a.Number, b.Number) }

// keep adds a value to a sorted slice of a map, unless it is there.
func keep[T any](m map[string][]*T, key string, v *T, compare func(a, b *T) int) {
	if i, there := slices.BinarySearchFunc(m[key], v, compare); !there {
		m[key] = slices.Insert(m[key], i, v)
	}
}

// drop takes a value out of a sorted slice of a map, if it is there.
func drop[T any](m map[string][]*T, key string, v *T, compare func(a, b *T) int) {
	i, there := slices.BinarySearchFunc(m[key], v, compare)
	if !there {
		return
	}
	if m[key] = slices.Delete(m[key], i, i+1); len(m[key]) == 0 {
		delete(m, key)
	}
}

// TokenNames gives the names that clients have set for a version, nil if there are none. The value is the same one as long as they are
// the same and the token is kept in memory.
func (db *DB) TokenNames(ctx context.Context, account, instance, version string) (*TokenNames, error) {
	x, err := db.token(ctx, account, instance)
	if err != nil {
		return nil, err
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.names.byVersion[version], nil
}

// TokenNamesByID gives the names of versions for which clients have set this ID in any class.
func (db *DB) TokenNamesByID(ctx context.Context, account, instance string, id []byte) ([]*TokenNames, error) {
	x, err := db.token(ctx, account, instance)
	if err != nil {
		return nil, err
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.Clone(x.names.byID[string(id)]), nil
}

// TokenNamesByLabel gives the names of versions for which clients have set this label in any class.
func (db *DB) TokenNamesByLabel(ctx context.Context, account, instance, label string) ([]*TokenNames, error) {
	x, err := db.token(ctx, account, instance)
	if err != nil {
		return nil, err
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.Clone(x.names.byLabel[label]), nil
}

// TokenNamesBySubject gives the names of versions for which clients have set this subject in any class.
func (db *DB) TokenNamesBySubject(ctx context.Context, account, instance string, subject []byte) ([]*TokenNames, error) {
	x, err := db.token(ctx, account, instance)
	if err != nil {
		return nil, err
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.Clone(x.names.bySubject[string(subject)]), nil
}

// TokenObject gives an object by its number, or ErrNotFound.
func (db *DB) TokenObject(ctx context.Context, account, instance string, number uint64) (*TokenObject, error) {
	x, err := db.token(ctx, account, instance)
	if err != nil {
		return nil, err
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	if o := x.objects.byNumber[number]; o != nil {
		return o, nil
	}
	return nil, ErrNotFound
}

// TokenObjects gives the objects with this ID and this label, nil for any, for which want is true, by number. want is quick and calls
// nothing of DB.
func (db *DB) TokenObjects(ctx context.Context, account, instance string, id []byte, label *string, want func(*TokenObject) bool) ([]*TokenObject, error) {
	x, err := db.token(ctx, account, instance)
	if err != nil {
		return nil, err
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	candidates := x.objects.all
	if id != nil {
		candidates = x.objects.byID[string(id)]
	}
	if label != nil {
		if labelled := x.objects.byLabel[*label]; len(labelled) < len(candidates) || id == nil {
			candidates = labelled
		}
	}
	var found []*TokenObject
	for _, o := range candidates {
		if (id == nil || bytes.Equal(id, o.ID)) && (label == nil || *label == o.Label) && want(o) {
			found = append(found, o)
		}
	}
	return found, nil
}
