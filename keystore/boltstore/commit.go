package boltstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"syscall"

	bolt "go.etcd.io/bbolt"

	"github.com/keyward/keyward/keystore"
)

// Commit implements keystore.Store. ctx bounds the wait for other commits; once begun, a commit runs to its end.
func (s *Store) Commit(ctx context.Context, tx keystore.Txn) error {
	if err := tx.Validate(); err != nil {
		return err
	}
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	select {
	case <-s.writing:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { s.writing <- struct{}{} }()

	if p := s.problem.Load(); p != nil {
		return fmt.Errorf("%w: %s", keystore.ErrReadOnly, *p)
	}
	if !tx.Urgent {
		if err := s.ballast.fill(); err != nil {
			return fmt.Errorf("%w: %s: only disabling and deleting go on, for there is no room in reserve (%w); make room on its file system", keystore.ErrFull, s.path, err)
		}
	}
	err = s.update(tx)
	if errors.Is(err, keystore.ErrFull) && tx.Urgent && s.ballast.release() {
		err = s.update(tx)
	}
	if err == nil {
		s.watchers.Committed(tx)
	}
	return err
}

// update is one transaction of bbolt: one write and one fsync of the pages, then the same of the meta page. Caller holds
// the writing token.
func (s *Store) update(tx keystore.Txn) error {
	var txid int
	var refused error // by us, before anything was written
	err := s.guard(func() error {
		return s.db.Update(func(b *bolt.Tx) error {
			txid = b.ID()
			if refused = s.inspect(b, tx); refused == nil {
				refused = apply(b, tx)
			}
			return refused
		})
	})
	switch {
	case err == nil:
		return nil
	case refused != nil:
		return refused
	case errors.Is(err, keystore.ErrDamaged): // a panic, which guard has dealt with
		return err
	case isFull(err) && s.unchanged(txid):
		return fmt.Errorf("%w: %s: %w", keystore.ErrFull, s.path, err)
	}
	s.refuse(fmt.Sprintf("the store %s could not be written (%v): all changes are refused until the daemon is started again. "+
		"Look at the disk first", s.path, err))
	return fmt.Errorf("%w: %s", keystore.ErrReadOnly, *s.problem.Load())
}

// inspect checks the pages that bbolt will read to apply tx. A page that was damaged since the store was opened could make
// it free half the file, or run out of memory over a page count, which nobody can recover from.
func (s *Store) inspect(b *bolt.Tx, tx keystore.Txn) error {
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	m, damage, err := readMeta(s.file, info.Size())
	if err == nil && damage != "" {
		err = errors.New(damage)
	}
	if err == nil && m.txid+1 != uint64(b.ID()) {
		err = errors.New("the file is not at the last commit")
	}
	if err == nil {
		err = inspectPages(s.mapped(b), m, tx)
	}
	if err != nil {
		s.breakDown(err.Error())
		return fmt.Errorf("%w: %s: %w", keystore.ErrDamaged, s.path, err)
	}
	return nil
}

func inspectPages(im image, m meta, tx keystore.Txn) error {
	free, err := im.page(m.freelist)
	if err != nil {
		return err
	}
	n := uint64(free.count)
	if n == 0xFFFF { // then the first entry is the count
		n = le.Uint64(free.data[pageHeader:]) + 1
	}
	// It was given room for the entries that it has and for those of the pages that it then took.
	if room := pageHeader + 8*(n+free.overflow+1); free.flags != flagFreelist || free.overflow*im.pageSize > room {
		return fmt.Errorf("page %d should be the list of free pages", m.freelist)
	}
	seen := make(map[uint64]bool)
	if err := (tree{image: im, top: m.root}).inspect(bucketName, seen); err != nil {
		return err
	}
	t, err := openTree(im, m.root, bucketName)
	if err != nil {
		return err
	}
	for _, p := range tx.Puts {
		if err := t.inspect(p.Name, seen); err != nil {
			return err
		}
	}
	for _, d := range tx.Deletes {
		if err := t.inspect(d, seen); err != nil {
			return err
		}
	}
	return nil
}

// apply checks and changes inside a transaction of bbolt.
func apply(b *bolt.Tx, tx keystore.Txn) error {
	records := b.Bucket([]byte(bucketName))
	if records == nil {
		return fmt.Errorf("%w: the bucket of records is missing", keystore.ErrDamaged)
	}
	// Above every revision handed out before: the sequence is kept in the file, and the transaction id keeps it honest
	// when a bit of the sequence has flipped.
	revision := max(records.Sequence()+1, uint64(b.ID()))
	for _, c := range tx.Checks {
		var have uint64
		if value := records.Get([]byte(c.Name)); value != nil {
			r, err := parseRecord(0, []byte(c.Name), value)
			if err != nil {
				return err
			}
			have = r.Revision
		}
		if have != c.Revision {
			return keystore.ErrConflict
		}
		revision = max(revision, have+1)
	}
	if revision == 0 || revision == math.MaxUint64 {
		return fmt.Errorf("%w: revisions are used up", keystore.ErrDamaged)
	}
	if err := records.SetSequence(revision); err != nil {
		return err
	}
	for _, p := range tx.Puts {
		value := make([]byte, revisionSize, revisionSize+len(p.Value))
		binary.BigEndian.PutUint64(value, revision)
		if err := records.Put([]byte(p.Name), append(value, p.Value...)); err != nil {
			return err
		}
	}
	for _, d := range tx.Deletes {
		if err := records.Delete([]byte(d)); err != nil {
			return err
		}
	}
	return nil
}

// isFull tells a write that found no space from everything else. A full disk that fsync reports is not among it: what
// fsync failed on is lost, and bbolt gives its error without a path.
func isFull(err error) bool {
	var failed *fs.PathError
	return errors.As(err, &failed) && failed.Op == "write" &&
		(errors.Is(failed.Err, syscall.ENOSPC) || errors.Is(failed.Err, syscall.EDQUOT))
}

// unchanged tells whether the file is still at the transaction before txid.
func (s *Store) unchanged(txid int) bool {
	info, err := s.file.Stat()
	if err != nil {
		return false
	}
	m, damage, err := readMeta(s.file, info.Size())
	return err == nil && damage == "" && m.txid+1 == uint64(txid)
}
