package keystore

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"
)

// Change is a set of changes that are committed together. Its methods only note what is wanted; nothing is read or
// written before Commit. A Change is for one goroutine and one Commit.
type Change struct {
	db     *DB
	urgent bool
	now    time.Time
	ops    []func(*plan) error
}

// Change begins one.
func (db *DB) Change() *Change { return &Change{db: db} }

// At says what time it is, for what a change notes by itself; else it is the machine's.
func (c *Change) At(now time.Time) *Change {
	c.now = now
	return c
}

func (c *Change) note(op func(*plan) error) *Change {
	c.ops = append(c.ops, op)
	return c
}

// Urgent lets the change use the space kept in reserve, and go on in a store whose census does not match.
func (c *Change) Urgent() *Change {
	c.urgent = true
	return c
}

// CreateKey adds a key. It must not exist, nor have existed.
func (c *Change) CreateKey(k *Key) *Change {
	key := *k
	return c.note(func(p *plan) error {
		if err := checkPart("key", key.ID); err != nil {
			return err
		}
		if err := checkPart("account", key.Account); err != nil {
			return err
		}
		gone, err := p.slot(nameGone(key.ID))
		if err != nil {
			return err
		}
		if gone.payload != nil {
			return fmt.Errorf("%w: the key %q was deleted, and its ID is not used again", ErrConflict, key.ID)
		}
		created := key // the plan may be made more than once
		if created.Sequence, err = p.append(keysOf(key.Account), key.ID); err != nil {
			return err
		}
		if err := p.create(nameKey(key.ID), created); err != nil {
			return err
		}
		return p.reindex(nil, &created)
	})
}

// UpdateKey replaces old, which DB handed out, by k. Commit gives ErrConflict when old is not the newest. ID, Account,
// Instance, Role and Sequence stay as they are.
func (c *Change) UpdateKey(old, k *Key) *Change {
	was, key := *old, *k
	return c.note(func(p *plan) error {
		if key.ID != was.ID || key.Account != was.Account || key.Instance != was.Instance || key.Role != was.Role {
			return fmt.Errorf("keystore: ID, account, instance and role of the key %q cannot change", was.ID)
		}
		if err := p.expect(nameKey(was.ID), was.record); err != nil {
			return err
		}
		updated := key
		updated.Sequence = was.Sequence
		if err := p.put(nameKey(was.ID), updated); err != nil {
			return err
		}
		return p.reindex(&was, &updated)
	})
}

// DeleteKey removes old, which DB handed out, with its versions, their counts, its aliases, its names in tokens and its places in lists,
// and leaves a Tombstone that says deleted: the caller has the clocks. Commit gives ErrConflict when old is not the newest.
func (c *Change) DeleteKey(old *Key, deleted time.Time) *Change {
	was := *old
	return c.note(func(p *plan) error {
		if err := p.expect(nameKey(was.ID), was.record); err != nil {
			return err
		}
		err := p.removeAll(nameVer(was.ID, ""), func(name string, _ []byte) error {
			return p.remove(nameCalls(strings.TrimPrefix(name, nameVer(was.ID, ""))))
		})
		if err != nil {
			return err
		}
		of, vers := aliasesOfKey(was.ID), versionsOf(was.ID)
		err = p.removeAll(of.rows, func(name string, payload []byte) error {
			var row aliasRow
			if err := p.db.decodeRecord(stored{name: name, payload: payload}, &row); err != nil {
				return err
			}
			if err := p.uncount(aliasesIn(row.Account), row.Name); err != nil {
				return err
			}
			return p.remove(nameAlias(row.Account, row.Name))
		})
		if err != nil {
			return err
		}
		if err := p.removeAll(vers.rows, nil); err != nil {
			return err
		}
		all := keysOf(was.Account)
		row := sequenceRow(was.Sequence)
		if err := p.uncount(all, row); err != nil {
			return err
		}
		for _, l := range []list{of, vers} {
			if err := p.dropHead(l); err != nil {
				return err
			}
		}
		if err := p.reindex(&was, nil); err != nil {
			return err
		}
		if err := p.removeAll(nameUse(was.ID, ""), nil); err != nil {
			return err
		}
		if err := p.dropTokenNames(&was); err != nil {
			return err
		}
		for _, name := range []string{all.rows + row, nameKey(was.ID), nameCheck(was.ID)} {
			if err := p.remove(name); err != nil {
				return err
			}
		}
		return p.create(nameGone(was.ID), Tombstone{
			ID: was.ID, Account: was.Account, Creator: was.Creator, Instance: was.Instance, Spec: was.Spec,
			Created: was.Created, Deleted: deleted.UTC(), ScheduledBy: was.ScheduledBy, Fingerprint: was.Fingerprint,
		})
	})
}

// CreateVersion adds a version. It must not exist, and its key must. Its ID begins with the key's and a hyphen.
func (c *Change) CreateVersion(v *Version) *Change {
	version := *v
	return c.note(func(p *plan) error {
		if err := checkPart("version", version.ID); err != nil {
			return err
		}
		if key, ok := keyOfVersion(version.ID); !ok || key != version.KeyID {
			return fmt.Errorf("keystore: the version %q is not named after its key %q", version.ID, version.KeyID)
		}
		if err := p.needKey(version.KeyID); err != nil {
			return err
		}
		if _, err := p.append(versionsOf(version.KeyID), version.ID); err != nil {
			return err
		}
		return p.create(nameVer(version.KeyID, version.ID), version)
	})
}

// UpdateVersion replaces the material of old, which DB handed out: by other material, or by none. Everything else of v must
// be as in old.
func (c *Change) UpdateVersion(old, v *Version) *Change {
	was, version := *old, *v
	return c.note(func(p *plan) error {
		if version.ID != was.ID || version.KeyID != was.KeyID || !version.Created.Equal(was.Created) {
			return fmt.Errorf("keystore: only the material of the version %q can change", was.ID)
		}
		name := nameVer(was.KeyID, was.ID)
		if err := p.expect(name, was.record); err != nil {
			return err
		}
		return p.put(name, version)
	})
}

// needKey gives ErrConflict when the key is not there.
func (p *plan) needKey(id string) error {
	s, err := p.slot(nameKey(id))
	if err == nil && s.payload == nil {
		err = fmt.Errorf("%w: the key %q is not there", ErrConflict, id)
	}
	return err
}

// CreateAlias adds an alias. Commit gives ErrConflict when the name is taken or the key is not there.
func (c *Change) CreateAlias(a *Alias) *Change {
	alias := *a
	return c.note(func(p *plan) error {
		if err := checkAlias(&alias); err != nil {
			return err
		}
		if err := p.needKey(alias.KeyID); err != nil {
			return err
		}
		if err := p.create(nameAlias(alias.Account, alias.Name), alias); err != nil {
			return err
		}
		if err := p.count(aliasesIn(alias.Account), alias.Name); err != nil {
			return err
		}
		return p.point(&alias)
	})
}

// point adds the row of an alias to the list of its key.
func (p *plan) point(a *Alias) error {
	l, row := aliasesOfKey(a.KeyID), aliasRowName(a)
	if err := p.create(l.rows+row, aliasRow{Account: a.Account, Name: a.Name}); err != nil {
		return err
	}
	return p.count(l, row)
}

// unpoint undoes point.
func (p *plan) unpoint(a *Alias) error {
	l, row := aliasesOfKey(a.KeyID), aliasRowName(a)
	if err := p.remove(l.rows + row); err != nil {
		return err
	}
	return p.uncount(l, row)
}

// UpdateAlias points old, which DB handed out, at another key.
func (c *Change) UpdateAlias(old *Alias, keyID string) *Change {
	was := *old
	return c.note(func(p *plan) error {
		alias := was
		alias.KeyID = keyID
		if err := checkAlias(&alias); err != nil {
			return err
		}
		if err := p.expect(nameAlias(was.Account, was.Name), was.record); err != nil {
			return err
		}
		if err := p.needKey(keyID); err != nil {
			return err
		}
		if err := p.unpoint(&was); err != nil {
			return err
		}
		if err := p.point(&alias); err != nil {
			return err
		}
		return p.put(nameAlias(was.Account, was.Name), alias)
	})
}

// DeleteAlias removes old, which DB handed out.
func (c *Change) DeleteAlias(old *Alias) *Change {
	was := *old
	return c.note(func(p *plan) error {
		if err := p.expect(nameAlias(was.Account, was.Name), was.record); err != nil {
			return err
		}
		if err := p.uncount(aliasesIn(was.Account), was.Name); err != nil {
			return err
		}
		if err := p.unpoint(&was); err != nil {
			return err
		}
		return p.remove(nameAlias(was.Account, was.Name))
	})
}

// PutIntent writes an intent, new or not.
func (c *Change) PutIntent(i *Intent) *Change {
	intent := *i
	return c.note(func(p *plan) error {
		if err := checkPart("intent", intent.ID); err != nil {
			return err
		}
		return p.put(nameIntent(intent.ID), intent)
	})
}

// DeleteIntent removes one. It must still be there and of the same kind, so that of two who end the same work, or take it
// over, one gets ErrConflict.
func (c *Change) DeleteIntent(i *Intent) *Change {
	id, kind := i.ID, i.Kind
	return c.note(func(p *plan) error {
		name := nameIntent(id)
		s, err := p.slot(name)
		if err != nil {
			return err
		}
		var now Intent
		if s.payload != nil {
			if err := p.db.decodeRecord(stored{name: name, payload: s.payload}, &now); err != nil {
				return err
			}
		}
		if now.Kind != kind || s.payload == nil {
			return fmt.Errorf("%w: the intent %q was ended by somebody else", ErrConflict, id)
		}
		return p.remove(name)
	})
}

// Commit makes the changes durable and visible to readers of this DB before it returns. After ErrConflict, ErrFull and
// ErrReadOnly nothing was changed, unless the words of ErrReadOnly say that this write failed; after other errors, as
// those of ctx, the change may have happened or not. ctx bounds the wait for other commits.
func (c *Change) Commit(ctx context.Context) error {
	return c.db.commit(ctx, c.urgent, func(p *plan) error {
		if p.now = c.now; p.now.IsZero() {
			p.now = time.Now()
		}
		for _, op := range c.ops {
			if err := op(p); err != nil {
				return err
			}
		}
		return nil
	})
}

// callCount is the durable upper bound of the calls that a version was used for.
type callCount struct{ Calls uint64 }

// ReserveCalls durably adds n to the count of a version's calls and returns the new total: the caller may make n calls
// up to it. A crash loses the rest of a reservation, never a call that was made. ErrNotFound when there is no such
// version.
func (db *DB) ReserveCalls(ctx context.Context, versionID string, n uint64) (uint64, error) {
	var total uint64
	err := db.commit(ctx, false, func(p *plan) error {
		key, ok := keyOfVersion(versionID)
		if !ok {
			return ErrNotFound
		}
		version, err := p.slot(nameVer(key, versionID))
		if err != nil {
			return err
		}
		if version.payload == nil {
			return ErrNotFound
		}
		name := nameCalls(versionID)
		s, err := p.slot(name)
		if err != nil {
			return err
		}
		var count callCount
		if s.payload != nil {
			if err := p.db.decodeRecord(s.was, &count); err != nil {
				return err
			}
		}
		if count.Calls > math.MaxUint64-n {
			return fmt.Errorf("keystore: the calls of %q cannot be counted any more", versionID)
		}
		count.Calls += n
		total = count.Calls
		return p.put(name, count)
	})
	if err != nil {
		return 0, err
	}
	return total, nil
}
