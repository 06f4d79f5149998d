package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// errReplan says that somebody else committed while a plan was being made.
var errReplan = errors.New("keystore: the store changed meanwhile")

// commitTries bounds how often a change is planned anew because somebody else committed first.
const commitTries = 256

// plan is what a commit will write: records as they are, and as they shall be. It is made and used under
// DB.committing.
type plan struct {
	ctx     context.Context
	db      *DB
	slots   map[string]*slot
	heads   map[string]*listHead // decoded heads of lists, which are ahead of their slots until encodeHeads
	root    rootState            // to commit on
	counted map[string]int       // of full: records below a prefix in the store
	now     time.Time
}

// slot is one record in a plan.
type slot struct {
	was     stored // revision 0 when there was none
	payload []byte // now; nil when there is none
	changed bool
}

// slot reads a record once per plan.
func (p *plan) slot(name string) (*slot, error) {
	if s := p.slots[name]; s != nil {
		return s, nil
	}
	s := new(slot)
	switch st, err := p.db.fetch(p.ctx, name); {
	case err == nil:
		s.was, s.payload = st, st.payload
	case !errors.Is(err, ErrNotFound):
		return nil, err
	}
	p.slots[name] = s
	return s, nil
}

// put writes a record, new or not.
func (p *plan) put(name string, v any) error {
	s, err := p.slot(name)
	if err != nil {
		return err
	}
	payload, err := encode(v)
	if err != nil {
		return err
	}
	s.payload, s.changed = payload, true
	return nil
}

// create writes a record that must not exist.
func (p *plan) create(name string, v any) error {
	s, err := p.slot(name)
	if err != nil {
		return err
	}
	if s.payload != nil {
		return fmt.Errorf("%w: %q exists", ErrConflict, name)
	}
	return p.put(name, v)
}

// expect gives ErrConflict unless the record is as DB handed it out. Then what is cached of it may be old too, if the watch
// is late: whoever tries again must not get it again.
func (p *plan) expect(name string, old recordState) error {
	s, err := p.slot(name)
	if err != nil {
		return err
	}
	if s.payload == nil || old.revision == 0 || s.was.state() != old {
		p.db.evict(name)
		return fmt.Errorf("%w: %q", ErrConflict, name)
	}
	return nil
}

// remove deletes a record, if it is there.
func (p *plan) remove(name string) error {
	s, err := p.slot(name)
	if err != nil {
		return err
	}
	s.payload, s.changed = nil, true
	return nil
}

// removeAll deletes every record below prefix, and calls each for them first, if given.
func (p *plan) removeAll(prefix string, each func(name string, payload []byte) error) error {
	for after := ""; ; {
		rs, err := p.db.store.Scan(p.ctx, prefix, after, bucketRows)
		if err != nil {
			return err
		}
		for _, r := range rs {
			after = r.Name
			if _, err := p.slot(r.Name); err != nil {
				return err
			}
		}
		if len(rs) < bucketRows {
			break
		}
	}
	// Rows that this plan added go too.
	var names []string
	for name, s := range p.slots {
		if strings.HasPrefix(name, prefix) && s.payload != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if each != nil {
			if err := each(name, p.slots[name].payload); err != nil {
				return err
			}
		}
		if err := p.remove(name); err != nil {
			return err
		}
	}
	return nil
}

// txn turns the plan into a Txn and the root record after it. It also returns what changes about the census for each
// name, for a scan under way. An empty plan gives no Puts.
func (p *plan) txn(urgent bool) (tx Txn, next rootState, moved map[string]movement, err error) {
	if err := p.encodeHeads(); err != nil {
		return Txn{}, rootState{}, nil, err
	}
	next = p.root
	next.generation++
	tx = Txn{Checks: []Check{{Name: nameRoot, Revision: p.root.revision}}, Urgent: urgent}
	moved = make(map[string]movement)
	names := make([]string, 0, len(p.slots))
	for name, s := range p.slots {
		if s.changed && (s.payload != nil || s.was.revision != 0) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return Txn{}, p.root, nil, nil
	}
	slices.Sort(names)
	for _, name := range names {
		s := p.slots[name]
		var m movement
		tx.Checks = append(tx.Checks, Check{Name: name, Revision: s.was.revision})
		if s.was.revision != 0 {
			e, err := p.db.secrets.element(name, s.was.tag)
			if err != nil {
				return Txn{}, rootState{}, nil, err
			}
			m.sum = m.sum.minus(e)
			m.records--
		}
		if s.payload != nil {
			tag, err := p.db.secrets.tag(name, next.generation, s.payload)
			if err != nil {
				return Txn{}, rootState{}, nil, err
			}
			e, err := p.db.secrets.element(name, tag)
			if err != nil {
				return Txn{}, rootState{}, nil, err
			}
			m.sum = m.sum.plus(e)
			m.records++
			st := stored{tag: tag, generation: next.generation, payload: s.payload}
			tx.Puts = append(tx.Puts, Put{Name: name, Value: st.value()})
		} else {
			tx.Deletes = append(tx.Deletes, name)
		}
		moved[name] = m
		next.census = next.census.plus(m.sum)
		next.records += uint64(m.records)
		if strings.HasPrefix(name, prefixKey) {
			next.keys += uint64(m.records)
		}
	}
	root, err := p.db.secrets.putRoot(next)
	tx.Puts = append(tx.Puts, root)
	return tx, next, moved, err
}

// commit plans with ops and commits, again when somebody else was faster.
func (db *DB) commit(ctx context.Context, urgent bool, ops func(*plan) error) error {
	if db.closed.Load() {
		return ErrClosed
	}
	select {
	case <-db.committing:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { db.committing <- struct{}{} }()
	for range commitTries {
		if err := db.commitOnce(ctx, urgent, ops); !errors.Is(err, errReplan) {
			return err
		}
	}
	return fmt.Errorf("%w: others committed %d times in a row", ErrConflict, commitTries)
}

func (db *DB) commitOnce(ctx context.Context, urgent bool, ops func(*plan) error) error {
	if db.root.Load() == nil {
		return fmt.Errorf("%w: %s", ErrReadOnly, db.rootErr)
	}
	if r, ok := db.store.(Reporter); ok && r.Problem() != "" { // else planning stumbles over what is not there
		return fmt.Errorf("%w: %s", ErrReadOnly, r.Problem())
	}
	if lost := db.census.Load(); lost != nil && !urgent {
		return fmt.Errorf("%w: %s", ErrReadOnly, lost.problem)
	}
	if db.stale {
		if _, err := db.reloadRoot(ctx); err != nil {
			return err
		}
	}
	p := &plan{ctx: ctx, db: db, slots: make(map[string]*slot), heads: make(map[string]*listHead), root: *db.root.Load()}
	if err := ops(p); err != nil {
		// A plan is read record by record. If somebody else committed in between, it saw parts of two states, and what it
		// stumbled over may not be so.
		if changed, e := db.reloadRoot(ctx); e == nil && changed {
			return errReplan
		}
		return err
	}
	tx, next, moved, err := p.txn(urgent)
	if err != nil || len(moved) == 0 {
		return err
	}
	err = db.store.Commit(ctx, tx)
	defer func() { // own changes are seen by readers before Commit returns
		for name := range moved {
			db.evict(name)
		}
	}()
	switch {
	case err == nil:
		return db.committed(ctx, next, moved)
	case errors.Is(err, ErrConflict):
		changed, reloadErr := db.reloadRoot(ctx)
		if reloadErr != nil {
			db.stale = true
			return reloadErr
		}
		if changed {
			return errReplan
		}
		return err
	case errors.Is(err, ErrFull), errors.Is(err, ErrLimit), errors.Is(err, ErrClosed):
		return err // nothing was written
	}
	db.stale = true // it may have been written
	return err
}

// committed notes the new root and tells a scan under way. Caller holds committing.
func (db *DB) committed(ctx context.Context, next rootState, moved map[string]movement) error {
	if db.scan != nil {
		for name, m := range moved {
			db.scan.moved(name, m)
		}
	}
	// The revision that the backend gave to the root is not known without looking.
	r, err := db.store.Get(ctx, nameRoot)
	if err != nil {
		db.stale = true
		return nil // what was asked for is done
	}
	st, err := db.secrets.check(r)
	if err != nil || st.generation != next.generation {
		db.stale = true // somebody has already committed on top
		return nil
	}
	next.revision = r.Revision
	db.root.Store(&next)
	return nil
}
