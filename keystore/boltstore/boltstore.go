// Package boltstore is the keystore.Store of a single appliance: one file, kept by bbolt.
//
// bbolt has no checksums on its pages apart from the two meta pages, so this package checks the structure of the file
// itself before bbolt sees it (see check.go); contents are checked by keystore.DB. All reading is by a reader of our own
// that checks every step (see image.go); bbolt gives it snapshots, and writes. A file that fails the check opens read-only,
// without bbolt, until somebody restores a backup.
package boltstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/keystore"
)

// ErrInUse means that another process has the store open.
var ErrInUse = errors.New("boltstore: the store is in use by another process")

const (
	bucketName   = "records"
	revisionSize = 8 // octets of revision, big-endian, before each value

	defaultBallast  = 16 << 20
	defaultCheckNow = 64 << 20
	bigMap          = 64 << 20 // files above are mapped with room to grow, see openBolt
)

// Options of Open. The zero value is what a daemon wants.
type Options struct {
	// Ballast is the size in octets of the file beside the store that keeps space in reserve for Txn.Urgent. 0 means
	// 16 MiB, negative means none.
	Ballast int64
	// CheckNow is the size in octets up to which the file is checked before Open returns; a larger one is checked in the
	// background, and read meanwhile; only "no such record" waits for it. 0 means 64 MiB,
	// negative means always in the background.
	CheckNow int64
}

// Store is a keystore.Store in a file.
type Store struct {
	path string
	file *os.File // also bbolt's; locked against other processes
	db   *bolt.DB // nil when the file was damaged at open

	life   sync.RWMutex // read-held during each call, held to close
	closed bool         // guarded by life

	writing  chan struct{} // holds one token: whoever has it may commit, and owns the fields down to the blank line
	ballast  ballast
	watchers keystore.Watchers

	jammed    atomic.Bool            // bbolt panicked, and may hold its own locks for ever
	problem   atomic.Pointer[string] // why nothing is written; set once
	unchecked atomic.Bool            // the background check is not done
	damaged   atomic.Bool            // the structure is damaged: read frozen
	frozen    atomic.Pointer[tree]   // the records of a damaged file, which nobody writes any more

	stop    chan struct{} // closed by Close: ends the background check
	checked chan struct{} // closed when the background check is done; nothing waits for it when there is none
	tasks   sync.WaitGroup
}

var _ keystore.Reporter = (*Store)(nil)

// Open opens the store at path, and makes it if there is nothing there. It waits up to a second for another process to
// let go of it, then gives ErrInUse. A damaged file opens read-only if anything can be read: Problem says so.
func Open(path string, o Options) (*Store, error) {
	if o.Ballast == 0 {
		o.Ballast = defaultBallast
	}
	if o.CheckNow == 0 {
		o.CheckNow = defaultCheckNow
	}
	file, err := openFile(path)
	if err != nil {
		return nil, err
	}
	s := &Store{path: path, file: file, writing: make(chan struct{}, 1), stop: make(chan struct{}), checked: make(chan struct{})}
	s.ballast = ballast{path: path + ".ballast", size: o.Ballast}
	if err := s.start(o); err != nil {
		file.Close()
		return nil, err
	}
	s.writing <- struct{}{}
	return s, nil
}

// start checks the file and hands it to bbolt, or freezes it.
func (s *Store) start(o Options) error {
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	m, damage, err := readMeta(s.file, info.Size())
	if err != nil {
		return fmt.Errorf("%w: %s: %w; restore it from a backup", keystore.ErrDamaged, s.path, err)
	}
	now := info.Size() <= o.CheckNow
	if damage == "" && now {
		if err := check(s.file, m, bucketName, s.stop); err != nil {
			damage = err.Error()
		}
	}
	if damage != "" {
		s.breakDown(damage)
		return s.freeze()
	}
	if err := s.openBolt(info.Size()); err != nil {
		return err
	}
	// Without room for the reserve the store opens all the same: urgent changes may have what little there is.
	if err := s.ballast.open(); err != nil && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return errors.Join(fmt.Errorf("the reserve of the store: %w", err), s.guard(s.db.Close))
	}
	if !now {
		s.unchecked.Store(true)
		s.tasks.Go(s.checkLater)
	}
	return nil
}

// openBolt hands the locked file to bbolt.
func (s *Store) openBolt(size int64) error {
	room := 0
	if size > bigMap {
		// Mapping anew needs all readers to be gone, and the background check reads for long.
		room = int(2 * size)
	}
	return s.guard(func() (err error) {
		s.db, err = bolt.Open(s.path, 0o600, &bolt.Options{
			Timeout:         lockPatience,
			FreelistType:    bolt.FreelistMapType,
			InitialMmapSize: room,
			NoStatistics:    true,
			OpenFile:        func(string, int, os.FileMode) (*os.File, error) { return s.file, nil },
		})
		return err
	})
}

// guard runs access to bbolt. A page that makes bbolt panic, or that cannot be read, is damage and not the end of the
// process.
func (s *Store) guard(access func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			s.jammed.Store(true)
			s.breakDown(fmt.Sprint(p))
			err = fmt.Errorf("%w: %s: %v", keystore.ErrDamaged, s.path, p)
		}
	}()
	return access()
}

// refuse stops all writing from now on. The first reason is kept.
func (s *Store) refuse(reason string) { s.problem.CompareAndSwap(nil, &reason) }

// breakDown notes that the structure of the file is damaged.
func (s *Store) breakDown(damage string) {
	s.refuse(fmt.Sprintf("the store %s is damaged (%s): what can still be read is served, and all changes are refused. "+
		"Stop the daemon, keep a copy of the file, and restore the newest backup", s.path, damage))
	s.damaged.Store(true)
}

// freeze finds the records of a damaged file. Caller holds the writing token or is Open, so that nobody writes.
func (s *Store) freeze() error {
	if s.frozen.Load() != nil {
		return nil
	}
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	m, _, err := readMeta(s.file, info.Size())
	if err != nil {
		return fmt.Errorf("%w: %s: %w", keystore.ErrDamaged, s.path, err)
	}
	t, err := openTree(image{f: s.file, pageSize: uint64(m.pageSize), pages: m.pages}, m.root, bucketName)
	if err != nil {
		return fmt.Errorf("%w: %s: %w; restore it from a backup", keystore.ErrDamaged, s.path, err)
	}
	s.frozen.Store(&t)
	return nil
}

// checkLater is the check of a large file, on a snapshot that bbolt keeps for it.
func (s *Store) checkLater() {
	<-s.writing // the newest meta page and the snapshot must be of one transaction
	var tx *bolt.Tx
	var m meta
	err := s.guard(func() (err error) {
		info, err := s.file.Stat()
		if err != nil {
			return err
		}
		if m, _, err = readMeta(s.file, info.Size()); err != nil {
			return err
		}
		tx, err = s.db.Begin(false)
		return err
	})
	s.writing <- struct{}{}
	if err == nil {
		err = check(s.file, m, bucketName, s.stop)
		err = errors.Join(err, s.guard(tx.Rollback))
	}
	if err != nil && !errors.Is(err, errStopped) {
		s.breakDown(err.Error())
	}
	s.unchecked.Store(false)
	close(s.checked)
}

// Problem implements keystore.Reporter.
func (s *Store) Problem() string {
	if p := s.problem.Load(); p != nil {
		return *p
	}
	return ""
}

// enter begins a call; leave ends it.
func (s *Store) enter(ctx context.Context) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.life.RLock()
	if s.closed {
		s.life.RUnlock()
		return nil, keystore.ErrClosed
	}
	return s.life.RUnlock, nil
}

// Get implements keystore.Store.
func (s *Store) Get(ctx context.Context, name string) (keystore.Record, error) {
	rs, err := s.read(ctx, name, func(found string) bool { return found == name }, 1, false)
	if err != nil {
		return keystore.Record{}, fmt.Errorf("%q: %w", name, err)
	}
	if len(rs) == 0 && s.unchecked.Load() {
		// A damaged page may hide it. This answer waits for the check; what is found does not.
		select {
		case <-s.checked:
		case <-ctx.Done():
			return keystore.Record{}, ctx.Err()
		}
		return s.Get(ctx, name)
	}
	if len(rs) == 0 {
		if s.damaged.Load() {
			return keystore.Record{}, fmt.Errorf("%w: %q is not there, and may have been lost", keystore.ErrDamaged, name)
		}
		return keystore.Record{}, keystore.ErrNotFound
	}
	return rs[0], nil
}

// Scan implements keystore.Store.
func (s *Store) Scan(ctx context.Context, prefix, after string, limit int) ([]keystore.Record, error) {
	from := prefix
	if after >= prefix && after != "" {
		from = after + "\x00" // the next name in octet order
	}
	return s.read(ctx, from, func(found string) bool { return strings.HasPrefix(found, prefix) }, limit, prefix == "")
}

// read returns up to limit records from the name from on, as long as wanted. past reads past bbolt's map: whoever goes
// through everything would make the whole file resident.
func (s *Store) read(ctx context.Context, from string, wanted func(string) bool, limit int, past bool) ([]keystore.Record, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	var found []keystore.Record
	visit := func(flags uint32, name, value []byte) (bool, error) {
		if len(found) >= limit || !wanted(string(name)) {
			return false, nil
		}
		r, err := parseRecord(flags, name, value)
		if err != nil {
			return false, err
		}
		found = append(found, r)
		return len(found) < limit, nil
	}
	if !s.damaged.Load() {
		err = s.guard(func() error {
			return s.db.View(func(tx *bolt.Tx) error {
				return s.walkSnapshot(tx, past, from, visit)
			})
		})
		if err == nil || !s.damaged.Load() {
			return found, err
		}
	}
	if s.frozen.Load() == nil {
		select {
		case <-s.writing:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		err := s.freeze()
		s.writing <- struct{}{}
		if err != nil {
			return nil, err
		}
	}
	found = nil
	if err := s.frozen.Load().walk(from, visit); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", keystore.ErrDamaged, s.path, err)
	}
	return found, nil
}

// mapped is the file as tx sees it, in bbolt's map. It may be used until tx ends, and before tx changes anything.
func (s *Store) mapped(tx *bolt.Tx) image {
	info := s.db.Info()
	return image{
		f: s.file, pageSize: uint64(info.PageSize), pages: uint64(tx.Size()) / uint64(info.PageSize),
		// The address comes as a number, and this is the conversion that vet lets pass: the map is none of the collector's.
		mapped: unsafe.Slice(*(**byte)(unsafe.Pointer(&info.Data)), tx.Size()),
	}
}

// walkSnapshot reads the snapshot of tx: from bbolt's map, or past it from the file. bbolt keeps its pages as they are
// until tx ends, and its map where it is; it looks at none of them itself.
func (s *Store) walkSnapshot(tx *bolt.Tx, past bool, from string, visit func(uint32, []byte, []byte) (bool, error)) error {
	im := s.mapped(tx)
	if past {
		im.mapped = nil
	}
	t, err := openTree(im, uint64(tx.Cursor().Bucket().Root()), bucketName)
	if err == nil {
		err = t.walk(from, visit)
	}
	if err != nil && !errors.Is(err, keystore.ErrDamaged) { // ErrDamaged is about one record, and the structure is sound
		s.breakDown(err.Error())
		err = fmt.Errorf("%w: %s: %w", keystore.ErrDamaged, s.path, err)
	}
	return err
}

// parseRecord copies an element of the file.
func parseRecord(flags uint32, name, value []byte) (keystore.Record, error) {
	if flags != 0 || len(value) < revisionSize || binary.BigEndian.Uint64(value) == 0 {
		return keystore.Record{}, fmt.Errorf("%w: the record %q has no revision", keystore.ErrDamaged, name)
	}
	return keystore.Record{
		Name:     string(name),
		Value:    slices.Clone(value[revisionSize:]),
		Revision: binary.BigEndian.Uint64(value),
	}, nil
}

// Watch implements keystore.Store. There are no other processes to report.
func (s *Store) Watch(ctx context.Context, prefix string) (<-chan keystore.Event, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return s.watchers.Watch(ctx, prefix)
}

// Close implements keystore.Store.
func (s *Store) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return keystore.ErrClosed
	}
	s.closed = true
	close(s.stop)
	s.tasks.Wait()
	s.watchers.Close()
	if s.db == nil || s.jammed.Load() {
		// With jammed, bbolt would wait for its own lock. Its map stays until the process ends and would keep the file's lock.
		return errors.Join(unix.Flock(int(s.file.Fd()), unix.LOCK_UN), s.file.Close())
	}
	return s.guard(s.db.Close)
}
