package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/keyward/keyward/keystore"
)

// bbolt writes changed pages to new places and leaves the old ones as they are, on its list of free pages: what was deleted
// stays in the file until its page happens to be used again. Writing the whole file anew would end that, and mean to
// take the file away below bbolt, its readers and its lock. It is simpler and safer to overwrite the pages that
// nothing refers to, in place: a crash at any moment leaves a sound file.

var _ keystore.Scrubber = (*Store)(nil)

// scrubPages is how many pages are looked at while all calls wait: about a millisecond's work, seldom more.
const scrubPages = 1024

// Scrub implements keystore.Scrubber. A page counts as free when it is on the lists of both meta pages, for a file whose
// newest commit was torn is read by the one before. So what a commit deleted is gone after the next commit and a Scrub.
func (s *Store) Scrub(ctx context.Context) error {
	if s.unchecked.Load() {
		select { // the check reads a snapshot whose pages are on the list already
		case <-s.checked:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for from, more := uint64(0), true; more; from += scrubPages {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if more, err = s.scrub(from); err != nil {
			return err
		}
	}
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err := s.file.Sync(); err != nil {
		// It may have been about pages of a commit.
		s.refuse(fmt.Sprintf("the store %s could not be written (%v): all changes are refused until the daemon is started again. Look at the disk first", s.path, err))
		return fmt.Errorf("%w: %s", keystore.ErrReadOnly, *s.problem.Load())
	}
	return nil
}

// scrub overwrites the free ones of scrubPages pages. more says that there are pages behind them.
func (s *Store) scrub(from uint64) (more bool, err error) {
	s.life.Lock() // without it, readers may be in snapshots that are older than both meta pages
	defer s.life.Unlock()
	if s.closed {
		return false, keystore.ErrClosed
	}
	if p := s.problem.Load(); p != nil {
		return false, fmt.Errorf("%w: %s", keystore.ErrReadOnly, *p)
	}
	newest, before, err := s.metas()
	if err != nil {
		return false, err
	}
	free := make(map[uint64]bool)
	for _, m := range []meta{before, newest} {
		c := &checker{image: image{f: s.file, pageSize: uint64(m.pageSize), pages: m.pages}, bucket: bucketName, used: make([]bool, m.pages), stop: s.stop}
		ids, err := c.freelist(m.freelist)
		if err != nil && m == before {
			// A commit that was cut off wrote its pages here, as it may: then there is no commit before to go back to.
			return false, fmt.Errorf("%w: the last commit was cut off; after the next one the store can be scrubbed (%w)", keystore.ErrConflict, err)
		}
		if err != nil {
			return false, fmt.Errorf("%w: %s: %w", keystore.ErrDamaged, s.path, err)
		}
		both := make(map[uint64]bool)
		for _, id := range ids {
			if id >= from && id < from+scrubPages && (m == before || free[id]) {
				both[id] = true
			}
		}
		free = both
	}
	zero, have := make([]byte, newest.pageSize), make([]byte, newest.pageSize)
	for id := range free {
		at := int64(id) * int64(newest.pageSize)
		if _, err := s.file.ReadAt(have, at); err != nil {
			return false, err
		}
		if bytes.Equal(have, zero) {
			continue
		}
		if _, err := s.file.WriteAt(zero, at); err != nil {
			return false, err
		}
	}
	return from+scrubPages < newest.pages, nil
}

// metas reads both meta pages, which must be sound.
func (s *Store) metas() (newest, before meta, err error) {
	info, err := s.file.Stat()
	if err != nil {
		return meta{}, meta{}, err
	}
	newest, damage, err := readMeta(s.file, info.Size())
	if err == nil && damage != "" {
		err = errors.New(damage)
	}
	if err != nil {
		return meta{}, meta{}, fmt.Errorf("%w: %s: %w", keystore.ErrDamaged, s.path, err)
	}
	raw := make([]byte, metaSize)
	for _, at := range []int64{0, int64(newest.pageSize)} {
		if _, err := s.file.ReadAt(raw, at+pageHeader); err != nil {
			return meta{}, meta{}, err
		}
		if m, err := parseMeta(raw); err != nil {
			return meta{}, meta{}, fmt.Errorf("%w: %s: %w", keystore.ErrDamaged, s.path, err)
		} else if m.txid != newest.txid {
			before = m
		}
	}
	if before.pageSize == 0 {
		return meta{}, meta{}, fmt.Errorf("%w: %s: both meta pages are of the same commit", keystore.ErrDamaged, s.path)
	}
	return newest, before, nil
}
