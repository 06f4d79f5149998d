package keystore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What is kept beside the records of keys, so that nobody has to read them all: which keys have a tag, which want
// something done at some time, which are the account's default and service keys, and how full instances are. A Change that
// touches a key keeps all of it in step, in the same commit.

// reindex brings the indexes from the key as it was to the key as it is. Either may be nil.
func (p *plan) reindex(was, is *Key) error {
	for _, step := range []func(was, is *Key) error{p.reindexTags, p.reindexDue, p.reindexRole, p.recount} {
		if err := step(was, is); err != nil {
			return err
		}
	}
	return nil
}

// --- sets of keys

// KeySet names a set of an account's keys, in order of creation.
type KeySet struct{ l list }

// AccountKeys are all keys of an account.
func AccountKeys(account string) KeySet { return KeySet{l: keysOf(account)} }

// TaggedKeys are the keys with a tag of that key, whatever its value.
func TaggedKeys(account, tagKey string) KeySet {
	return KeySet{l: tagList(account, tagKey)}
}

// TagValueKeys are the keys with that very tag.
func TagValueKeys(account string, t Tag) KeySet {
	return KeySet{l: tagList(account, t.Key, t.Value)}
}

// tagList is a list whose rows have the numbers of keysOf. Its name is a hash, as a tag may have any length and slashes.
func tagList(account string, tag ...string) list {
	h := sha256.New()
	for _, part := range append([]string{account}, tag...) {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	name := hex.EncodeToString(h.Sum(nil)[:16])
	return list{head: "list/tag/" + name, rows: "row/tag/" + name + "/"}
}

// tagLists are the lists that a key's tags put it into.
func tagLists(k *Key) map[string]list {
	lists := map[string]list{}
	if k == nil {
		return lists
	}
	for _, t := range k.Tags {
		for _, l := range []list{tagList(k.Account, t.Key), tagList(k.Account, t.Key, t.Value)} {
			lists[l.head] = l
		}
	}
	return lists
}

func (p *plan) reindexTags(was, is *Key) error {
	before, after := tagLists(was), tagLists(is)
	for head, l := range before {
		if _, stays := after[head]; stays {
			continue
		}
		row := sequenceRow(was.Sequence)
		if err := p.remove(l.rows + row); err != nil {
			return err
		}
		if err := p.uncount(l, row); err != nil {
			return err
		}
	}
	for head, l := range after {
		if _, stayed := before[head]; stayed {
			continue
		}
		row := sequenceRow(is.Sequence)
		if err := p.create(l.rows+row, listRow{ID: is.ID}); err != nil {
			return err
		}
		if err := p.count(l, row); err != nil {
			return err
		}
	}
	return nil
}

// KeyRow is a key's place in a set.
type KeyRow struct {
	Sequence uint64 // of the key, see Key
	ID       string
}

// KeyPage returns limit rows of a set from offset, and how many there are. A page costs the same wherever it lies.
func (db *DB) KeyPage(ctx context.Context, set KeySet, offset, limit int) ([]KeyRow, int, error) {
	rows, total, err := db.page(ctx, set.l, offset, limit)
	if err != nil {
		return nil, 0, err
	}
	found, err := db.keyRows(set, rows)
	return found, total, err
}

// KeyRows returns up to limit rows of a set that come after the sequence number after; fewer are the end.
func (db *DB) KeyRows(ctx context.Context, set KeySet, after uint64, limit int) ([]KeyRow, error) {
	if db.closed.Load() {
		return nil, ErrClosed
	}
	from := ""
	if after > 0 {
		from = set.l.rows + sequenceRow(after)
	}
	rows, err := db.store.Scan(ctx, set.l.rows, from, limit)
	if err != nil {
		return nil, err
	}
	return db.keyRows(set, rows)
}

func (db *DB) keyRows(set KeySet, rows []Record) ([]KeyRow, error) {
	found := make([]KeyRow, 0, len(rows))
	for _, r := range rows {
		id, err := db.rowID(r)
		if err != nil {
			return nil, err
		}
		n, err := strconv.ParseUint(strings.TrimPrefix(r.Name, set.l.rows), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("%w: the row %q has no number", ErrDamaged, r.Name)
		}
		found = append(found, KeyRow{Sequence: n, ID: id})
	}
	return found, nil
}

// PeekKey is Key for somebody who looks at very many: what is not in memory is read and not kept, so that a walk over all
// keys does not push out those that are used.
func (db *DB) PeekKey(ctx context.Context, id string) (*Key, error) {
	if db.closed.Load() {
		return nil, ErrClosed
	}
	if k := db.keys.get(id); k != nil {
		return k, nil
	}
	st, err := db.lookUp(ctx, nameKey(id))
	if err != nil {
		return nil, err
	}
	k := &Key{record: st.state()}
	return k, db.decodeRecord(st, k)
}

// --- what is due

// DueKind is what is to be done with a key at some time.
type DueKind string

// The kinds.
const (
	DueDelete DueKind = "delete" // DeleteAt
	DueExpire DueKind = "expire" // MaterialExpires
	DueRotate DueKind = "rotate" // NextRotation, while the key is Enabled
)

// dueTimes are the times at which something is to be done with k.
func dueTimes(k *Key) map[DueKind]time.Time {
	times := map[DueKind]time.Time{}
	if k == nil {
		return times
	}
	if k.DeleteAt != nil {
		times[DueDelete] = *k.DeleteAt
	}
	if k.MaterialExpires != nil {
		times[DueExpire] = *k.MaterialExpires
	}
	if next := k.NextRotation(); !next.IsZero() && k.State == "Enabled" {
		times[DueRotate] = next
	}
	return times
}

type dueRow struct{}

func nameDue(kind DueKind, at time.Time, key string) string {
	return prefixDue + string(kind) + "/" + dueTime(at) + "/" + key
}

// dueTime is an instant such that the order of texts is the order of time. What is before 1970 is due since then.
func dueTime(at time.Time) string { return fmt.Sprintf("%016x", max(0, at.Unix())) }

func (p *plan) reindexDue(was, is *Key) error {
	before, after := dueTimes(was), dueTimes(is)
	for kind, at := range before {
		if then, stays := after[kind]; !stays || dueTime(then) != dueTime(at) {
			if err := p.remove(nameDue(kind, at, was.ID)); err != nil {
				return err
			}
		}
	}
	for kind, at := range after {
		if then, stayed := before[kind]; !stayed || dueTime(then) != dueTime(at) {
			if err := p.put(nameDue(kind, at, is.ID), dueRow{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Due is one thing to be done.
type Due struct {
	KeyID string
	At    time.Time
}

// Due lists up to limit keys with which something of the kind is to be done at until or before, after the one called after,
// the oldest first; nil begins with the first, and fewer than limit are the end. The key's record decides: by the time that it is
// read things may have changed.
func (db *DB) Due(ctx context.Context, kind DueKind, until time.Time, after *Due, limit int) ([]Due, error) {
	if db.closed.Load() {
		return nil, ErrClosed
	}
	prefix, from := prefixDue+string(kind)+"/", ""
	if after != nil {
		from = nameDue(kind, after.At, after.KeyID)
	}
	rows, err := db.store.Scan(ctx, prefix, from, limit)
	if err != nil {
		return nil, err
	}
	var found []Due
	for _, r := range rows {
		if _, err := db.checked(r); err != nil {
			return nil, err
		}
		at, key, ok := strings.Cut(strings.TrimPrefix(r.Name, prefix), "/")
		seconds, err := strconv.ParseUint(at, 16, 63)
		if !ok || err != nil {
			return nil, fmt.Errorf("%w: the row %q has no time", ErrDamaged, r.Name)
		}
		d := Due{KeyID: key, At: time.Unix(int64(seconds), 0).UTC()}
		if d.At.After(until) {
			break
		}
		found = append(found, d)
	}
	return found, nil
}

// --- default and service keys

type roleRow struct{ KeyID string }

func nameRole(k *Key) string {
	if k.Role == RoleDefault {
		return prefixDefault + k.Account
	}
	return prefixService + k.Account + "/" + k.Creator
}

func (p *plan) reindexRole(was, is *Key) error {
	switch {
	case was == nil && is.Role != "":
		if err := checkPart("creator", is.Creator); err != nil {
			return err
		}
		return p.create(nameRole(is), roleRow{KeyID: is.ID}) // ErrConflict: there is one
	case is == nil && was.Role != "":
		return p.remove(nameRole(was))
	}
	return nil
}

// DefaultKey returns the ID of an account's default CMK, or ErrNotFound.
func (db *DB) DefaultKey(ctx context.Context, account string) (string, error) {
	return db.roleKey(ctx, &Key{Account: account, Role: RoleDefault})
}

// ServiceKey returns the ID of the key that a service has in an account, or ErrNotFound.
func (db *DB) ServiceKey(ctx context.Context, account, service string) (string, error) {
	return db.roleKey(ctx, &Key{Account: account, Creator: service, Role: RoleService})
}

func (db *DB) roleKey(ctx context.Context, k *Key) (string, error) {
	if db.closed.Load() {
		return "", ErrClosed
	}
	st, err := db.lookUp(ctx, nameRole(k))
	if err != nil {
		return "", err
	}
	var row roleRow
	return row.KeyID, db.decodeRecord(st, &row)
}

// --- how full instances are

// InstanceUse is how much of an instance's quotas is used.
type InstanceUse struct {
	ID       string
	Versions int                   // of all keys in it: each takes a unit of the key quota
	Accounts map[string]AccountUse `json:",omitempty"` // other accounts that key policies let in
}

// AccountUse is one other account in an instance's key policies.
type AccountUse struct {
	Keys     int        // whose policies name it
	Released *time.Time `json:",omitempty"` // Keys is 0 since then
}

// accessReturn is how long an account that no policy names any more still takes its unit of the access management quota
// (reference section 7.5).
const accessReturn = 5 * time.Minute

// OtherAccounts counts the units of the access management quota that key policies take at now.
func (u *InstanceUse) OtherAccounts(now time.Time) (n int) {
	for _, a := range u.Accounts {
		if a.Keys > 0 || a.Released != nil && now.Before(a.Released.Add(accessReturn)) {
			n++
		}
	}
	return n
}

func nameInstance(id string) string { return prefixInstance + id }

func (p *plan) recount(was, is *Key) error {
	k := is
	if is == nil {
		k = was
	}
	if k.Instance == "" {
		return nil
	}
	var before, after Key
	if was != nil {
		before = *was
	}
	if is != nil {
		after = *is
	}
	if before.Versions == after.Versions && slices.Equal(before.OtherAccounts, after.OtherAccounts) {
		return nil
	}
	u, err := p.instanceUse(k.Instance)
	if err != nil {
		return err
	}
	u.Versions += after.Versions - before.Versions
	for _, account := range before.OtherAccounts {
		if !slices.Contains(after.OtherAccounts, account) {
			a := u.Accounts[account]
			if a.Keys--; a.Keys <= 0 {
				released := p.now.UTC().Truncate(time.Second)
				a = AccountUse{Released: &released}
			}
			u.Accounts[account] = a
		}
	}
	for _, account := range after.OtherAccounts {
		if !slices.Contains(before.OtherAccounts, account) {
			u.Accounts[account] = AccountUse{Keys: u.Accounts[account].Keys + 1}
		}
	}
	for account, a := range u.Accounts {
		if a.Keys == 0 && (a.Released == nil || !p.now.Before(a.Released.Add(accessReturn))) {
			delete(u.Accounts, account)
		}
	}
	return p.put(nameInstance(k.Instance), u)
}

func (p *plan) instanceUse(id string) (*InstanceUse, error) {
	if err := checkPart("instance", id); err != nil {
		return nil, err
	}
	s, err := p.slot(nameInstance(id))
	if err != nil {
		return nil, err
	}
	u := &InstanceUse{ID: id}
	if s.payload != nil {
		if err := p.db.decodeRecord(stored{name: nameInstance(id), payload: s.payload}, u); err != nil {
			return nil, err
		}
	}
	if u.Accounts == nil {
		u.Accounts = map[string]AccountUse{}
	}
	return u, nil
}

// The errors of Quota. Nothing was changed.
var (
	ErrQuota       = errors.New("keystore: the key quota of the instance is used up")
	ErrAccessQuota = errors.New("keystore: the access management quota of the instance is used up")
)

// Quota refuses the change, with ErrQuota for versions and ErrAccessQuota for accounts, if the changes noted before it would fill the instance above a quota, and it is not
// made emptier by them. A negative quota is none.
func (c *Change) Quota(instance string, versions, accounts int) *Change {
	return c.note(func(p *plan) error {
		s, err := p.slot(nameInstance(instance))
		if err != nil || !s.changed || s.payload == nil {
			return err
		}
		u, err := p.instanceUse(instance)
		if err != nil {
			return err
		}
		before := InstanceUse{}
		if s.was.revision != 0 {
			if err := p.db.decodeRecord(s.was, &before); err != nil {
				return err
			}
		}
		if versions >= 0 && u.Versions > versions && u.Versions > before.Versions {
			return fmt.Errorf("%w: it has %d key versions and may have %d", ErrQuota, before.Versions, versions)
		}
		if have := u.OtherAccounts(p.now); accounts >= 0 && have > accounts && have > before.OtherAccounts(p.now) {
			return fmt.Errorf("%w: %d other accounts are let in by key policies, and %d may be", ErrAccessQuota, before.OtherAccounts(p.now), accounts)
		}
		return nil
	})
}

// InstanceUse tells how full an instance is.
func (db *DB) InstanceUse(ctx context.Context, id string) (*InstanceUse, error) {
	if db.closed.Load() {
		return nil, ErrClosed
	}
	u := &InstanceUse{ID: id}
	st, err := db.lookUp(ctx, nameInstance(id))
	if errors.Is(err, ErrNotFound) {
		return u, nil
	}
	if err != nil {
		return nil, err
	}
	return u, db.decodeRecord(st, u)
}
