package keystore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Usage is what is known of one caller's use of one key.
type Usage struct {
	KeyID      string
	Caller     string // a hash of all that tells callers apart, at most 64 letters and digits
	Principal  string
	Service    string  `json:",omitempty"` // code of a configured service
	Unit       string  `json:",omitempty"`
	Executable string  `json:",omitempty"`
	UID        *uint32 `json:",omitempty"` // of a local caller
	Door       string
	First      time.Time
	Last       time.Time
	Calls      uint64
}

// OtherCallers is the Caller of the one Usage that stands for all that a key's ledger had no room for. Nothing else is
// known of them.
const OtherCallers = "others"

func nameUse(key, caller string) string { return prefixUse + key + "/" + caller }

// AddUsage adds calls to what is known: First and Last widen, Calls add up. A key that is gone is passed over. When its ledger
// has max callers, the calls of a new one are added to OtherCallers.
func (c *Change) AddUsage(u *Usage, max int) *Change {
	added := *u
	return c.note(func(p *plan) error {
		if err := checkPart("caller", added.Caller); err != nil {
			return err
		}
		key, err := p.slot(nameKey(added.KeyID))
		if err != nil || key.payload == nil {
			return err
		}
		sum := added
		name := nameUse(sum.KeyID, sum.Caller)
		s, err := p.slot(name)
		if err != nil {
			return err
		}
		if s.payload == nil && sum.Caller != OtherCallers {
			full, err := p.full(nameUse(sum.KeyID, ""), max)
			if err != nil {
				return err
			}
			if full {
				sum = Usage{KeyID: sum.KeyID, Caller: OtherCallers, First: sum.First, Last: sum.Last, Calls: sum.Calls}
				name = nameUse(sum.KeyID, sum.Caller)
				if s, err = p.slot(name); err != nil {
					return err
				}
			}
		}
		if s.payload != nil {
			var known Usage
			if err := p.db.decodeRecord(stored{name: name, payload: s.payload}, &known); err != nil {
				return err
			}
			sum.Calls += known.Calls
			if known.First.Before(sum.First) {
				sum.First = known.First
			}
			if known.Last.After(sum.Last) {
				sum.Last = known.Last
			}
		}
		return p.put(name, sum)
	})
}

// full says whether there are max records below prefix, in the store or in the plan.
func (p *plan) full(prefix string, max int) (bool, error) {
	n, known := p.counted[prefix]
	if !known {
		rows, err := p.db.store.Scan(p.ctx, prefix, "", max)
		if err != nil {
			return false, err
		}
		n = len(rows)
		if p.counted == nil {
			p.counted = map[string]int{}
		}
		p.counted[prefix] = n
	}
	for name, s := range p.slots {
		if strings.HasPrefix(name, prefix) && s.payload != nil && s.was.revision == 0 {
			n++
		}
	}
	return n >= max, nil
}

// DropUsage forgets a caller's use of a key.
func (c *Change) DropUsage(u *Usage) *Change {
	name := nameUse(u.KeyID, u.Caller)
	return c.note(func(p *plan) error { return p.remove(name) })
}

// Usage lists what is known of a key's callers, in no order that means anything, at most max of them.
func (db *DB) Usage(ctx context.Context, keyID string, max int) ([]*Usage, error) {
	if err := checkPart("key", keyID); err != nil {
		return nil, ErrNotFound
	}
	if db.closed.Load() {
		return nil, ErrClosed
	}
	rows, err := db.store.Scan(ctx, nameUse(keyID, ""), "", max)
	if err != nil {
		return nil, err
	}
	var found []*Usage
	for _, r := range rows {
		st, err := db.checked(r)
		if err != nil {
			return nil, err
		}
		u := new(Usage)
		if err := db.decodeRecord(st, u); err != nil {
			return nil, err
		}
		found = append(found, u)
	}
	return found, nil
}

// AssociationCheck is the last look at who uses a key.
type AssociationCheck struct {
	ID      string
	KeyID   string
	Status  string // Checking, Success, Failed
	Started time.Time
	Ended   *time.Time `json:",omitempty"`
}

func nameCheck(key string) string { return prefixCheck + key }

// PutAssociationCheck replaces the last check of a key, which must be there.
func (c *Change) PutAssociationCheck(a *AssociationCheck) *Change {
	check := *a
	return c.note(func(p *plan) error {
		if err := p.needKey(check.KeyID); err != nil {
			return err
		}
		return p.put(nameCheck(check.KeyID), check)
	})
}

// AssociationCheck returns the last check of a key, or ErrNotFound.
func (db *DB) AssociationCheck(ctx context.Context, keyID string) (*AssociationCheck, error) {
	return readOne[AssociationCheck](ctx, db, nameCheck(keyID))
}

// ClientToken remembers which key a token of CreateKey made, so that the same call made again gives the same key.
type ClientToken struct {
	Account string
	Hash    string // of the token, hex
	Request []byte // fingerprint of the other parameters
	KeyID   string
	Expires time.Time
}

// dueToken is the DueKind of client tokens. They are no keys, so Due does not list them.
const dueToken DueKind = "token"

func nameToken(account, hash string) string { return prefixToken + account + "/" + hash }

// CreateClientToken adds one. Commit gives ErrConflict when there is one of that account and hash, unless it expired before the
// time of the change (At): then it is replaced.
func (c *Change) CreateClientToken(t *ClientToken) *Change {
	token := *t
	return c.note(func(p *plan) error {
		if err := errors.Join(checkPart("account", token.Account), checkPart("token", token.Hash)); err != nil {
			return err
		}
		name := nameToken(token.Account, token.Hash)
		s, err := p.slot(name)
		if err != nil {
			return err
		}
		if s.payload != nil {
			var old ClientToken
			if err := p.db.decodeRecord(stored{name: name, payload: s.payload}, &old); err != nil {
				return err
			}
			if p.now.Before(old.Expires) {
				return fmt.Errorf("%w: %q exists", ErrConflict, name)
			}
			if err := p.remove(nameDue(dueToken, old.Expires, token.Account+"/"+token.Hash)); err != nil {
				return err
			}
		}
		if err := p.put(name, token); err != nil {
			return err
		}
		return p.put(nameDue(dueToken, token.Expires, token.Account+"/"+token.Hash), dueRow{})
	})
}

// ClientToken returns one, or ErrNotFound. It may have expired.
func (db *DB) ClientToken(ctx context.Context, account, hash string) (*ClientToken, error) {
	if err := errors.Join(checkPart("account", account), checkPart("token", hash)); err != nil {
		return nil, ErrNotFound
	}
	return readOne[ClientToken](ctx, db, nameToken(account, hash))
}

// DropClientTokens removes up to limit tokens that expired before now, and says how many it removed.
func (db *DB) DropClientTokens(ctx context.Context, now time.Time, limit int) (int, error) {
	due, err := db.Due(ctx, dueToken, now, nil, limit)
	if err != nil || len(due) == 0 {
		return 0, err
	}
	c := db.Change()
	for _, d := range due {
		account, hash, ok := strings.Cut(d.KeyID, "/")
		if !ok {
			return 0, fmt.Errorf("%w: a client token is called %q", ErrDamaged, d.KeyID)
		}
		c.note(func(p *plan) error {
			if err := p.remove(nameDue(dueToken, d.At, d.KeyID)); err != nil {
				return err
			}
			return p.remove(nameToken(account, hash))
		})
	}
	return len(due), c.Commit(ctx)
}

// Clock is what the services over a store know of time over their restarts.
type Clock struct {
	Wall        time.Time  // the latest that the wall clock was seen at
	Observed    uint64     // seconds that the service has been running, by a clock that nobody sets
	Frozen      *time.Time `json:",omitempty"` // nothing irreversible happens by the clock before this
	FrozenAfter uint64     `json:",omitempty"` // nor before this Observed
	Reason      string     `json:",omitempty"` // of Frozen
}

// EditClock changes the clock: edit gets what was last put, or zero. It may be called more than once for a Commit, and the
// last one counts.
func (c *Change) EditClock(edit func(*Clock)) *Change {
	return c.note(func(p *plan) error {
		s, err := p.slot(nameClock)
		if err != nil {
			return err
		}
		var clock Clock
		if s.payload != nil {
			if err := p.db.decodeRecord(stored{name: nameClock, payload: s.payload}, &clock); err != nil {
				return err
			}
		}
		edit(&clock)
		return p.put(nameClock, clock)
	})
}

// Clock returns what was last put; zero if nothing was. It does not wait for the first scan: a record that was lost means
// less time observed, and so that things happen later.
func (db *DB) Clock(ctx context.Context) (*Clock, error) {
	if db.closed.Load() {
		return nil, ErrClosed
	}
	k := new(Clock)
	st, err := db.fetch(ctx, nameClock)
	if errors.Is(err, ErrNotFound) {
		return k, nil
	}
	if err != nil {
		return nil, err
	}
	return k, db.decodeRecord(st, k)
}

// readOne reads a record that is not cached.
func readOne[T any](ctx context.Context, db *DB, name string) (*T, error) {
	if db.closed.Load() {
		return nil, ErrClosed
	}
	st, err := db.lookUp(ctx, name)
	if err != nil {
		return nil, err
	}
	v := new(T)
	return v, db.decodeRecord(st, v)
}
