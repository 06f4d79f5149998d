package keystore

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	scanPage  = 256            // records read at a time, with commits held off: about half a millisecond
	scanTries = 5              // how often a scan begins anew because another appliance committed
	scanEvery = 24 * time.Hour // between scans of a running store
)

// movement is what a commit does to the census for one name.
type movement struct {
	sum     census
	records int
}

// scanState is a scan of all records under way. It is owned by whoever holds DB.committing, so it and the commits of
// this DB always agree on what lies behind the cursor.
type scanState struct {
	cursor  string // the last name that was read
	sum     census
	records uint64
	damaged []stored // records that fail their check; their tags are in sum as they stand
	foreign uint64   // DB.foreign at the start
}

// moved brings the part behind the cursor up to date with a commit.
func (s *scanState) moved(name string, m movement) {
	if name <= s.cursor {
		s.sum = s.sum.plus(m.sum)
		s.records += uint64(m.records)
	}
}

// scanLater scans after wait and then every scanEvery, until db.ctx ends.
func (db *DB) scanLater(wait time.Duration) {
	for {
		select {
		case <-time.After(wait):
			wait = db.scanAgain()
		case <-db.ctx.Done():
			return
		}
	}
}

// scanAgain scans in the background and returns the time until the next scan.
func (db *DB) scanAgain() time.Duration {
	if err := db.scanAll(db.ctx); err != nil {
		// What is damaged is in Health already; this is about being unable to look, as when the backend is away.
		// Health.Verified stays where it was, and the next round looks again.
		return time.Minute
	}
	return scanEvery
}

var errForeignCommit = errors.New("keystore: another appliance committed during the scan")

// scanAll reads every record, checks its tag, and compares the whole with what the root record promises. The finding
// goes to Health; the error is about being unable to look.
func (db *DB) scanAll(ctx context.Context) error {
	for try := 1; ; try++ {
		err := db.scanOnce(ctx)
		if !errors.Is(err, errForeignCommit) {
			return err
		}
		if try == scanTries {
			return nil // Health.Verified stays where it was
		}
	}
}

func (db *DB) scanOnce(ctx context.Context) error {
	s := &scanState{}
	for first := true; ; first = false {
		select {
		case <-db.committing:
		case <-ctx.Done():
			return ctx.Err()
		}
		if first {
			s.foreign, db.scan = db.foreign, s
		}
		done, err := db.scanStep(ctx, s)
		if done || err != nil {
			db.scan = nil
		}
		db.committing <- struct{}{}
		if done || err != nil {
			return err
		}
	}
}

// scanStep reads one page, and ends the scan after the last. Caller holds committing.
func (db *DB) scanStep(ctx context.Context, s *scanState) (done bool, err error) {
	rs, err := db.store.Scan(ctx, "", s.cursor, scanPage)
	if errors.Is(err, ErrDamaged) {
		db.census.Store(&censusFail{fmt.Sprintf("the store cannot be read as a whole (%v): keys can be used as far as they pass their checks. Restore the newest backup", err)})
		return true, nil
	}
	if err != nil {
		return false, err
	}
	for _, r := range rs {
		s.cursor = r.Name
		switch r.Name {
		case nameRoot, nameBootstrap, nameBootstrap2:
			continue
		}
		s.records++
		st, err := db.secrets.check(r)
		if errors.Is(err, ErrDamaged) {
			db.noteDamaged(r.Name)
			if st, err = split(r); err != nil {
				s.damaged = append(s.damaged, stored{name: r.Name})
				continue // too short to have a tag: the census will not match
			}
			s.damaged = append(s.damaged, st)
		} else if err != nil {
			return false, err
		}
		e, err := db.secrets.element(r.Name, st.tag)
		if err != nil {
			return false, err
		}
		s.sum = s.sum.plus(e)
	}
	if len(rs) < scanPage {
		return true, db.conclude(ctx, s)
	}
	return false, nil
}

// conclude compares a complete scan with the root record. Caller holds committing.
func (db *DB) conclude(ctx context.Context, s *scanState) error {
	if db.root.Load() == nil {
		return nil // said by Open
	}
	if _, err := db.reloadRoot(ctx); err != nil {
		if errors.Is(err, ErrDamaged) {
			db.census.CompareAndSwap(nil, &censusFail{fmt.Sprintf("the root record was damaged while the store was open (%v). Restore the newest backup", err)})
			return nil
		}
		return err
	}
	if db.foreign != s.foreign {
		return errForeignCommit
	}
	root := db.root.Load()
	whole := s.records == root.records && s.sum == root.census
	if !whole && s.records == root.records && len(s.damaged) == 1 {
		// Was it the tag itself that changed? With the tag that it should have the sum must be right, and then nothing
		// else is missing.
		mended, err := db.mendedSum(s.sum, s.damaged[0])
		if err != nil {
			return err
		}
		whole = mended == root.census
	}
	db.health.Lock()
	if whole && len(s.damaged) == 0 {
		db.health.verified = time.Now()
	}
	db.health.Unlock()
	if whole {
		db.census.Store(nil)
		return nil
	}
	db.census.Store(&censusFail{fmt.Sprintf("the store is not complete: the root record promises %d records and %d are there, or some were replaced by older ones. "+
		"Keys that pass their checks can be used, disabled and updated urgently; all other changes are refused. Restore the newest backup", root.records, s.records)})
	return nil
}

// mendedSum is sum with the stored tag of one record replaced by the right one.
func (db *DB) mendedSum(sum census, st stored) (census, error) {
	tag, err := db.secrets.tag(st.name, st.generation, st.payload)
	if err != nil {
		return census{}, err
	}
	right, err := db.secrets.element(st.name, tag)
	if err != nil {
		return census{}, err
	}
	wrong, err := db.secrets.element(st.name, st.tag)
	return sum.minus(wrong).plus(right), err
}
