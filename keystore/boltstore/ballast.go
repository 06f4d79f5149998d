package boltstore

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ballast is a file that only takes up space. Giving it up makes room for the changes that must work on a full disk.
// Owned by whoever holds the writing token.
type ballast struct {
	path string
	size int64 // octets; not above 0 means that there is none
	used bool  // it was given up, and what it freed is for urgent changes
}

// fill makes the file, unless it is there.
func (b *ballast) fill() error {
	if b.size <= 0 {
		return nil
	}
	if info, err := os.Stat(b.path); err == nil && info.Size() == b.size {
		return nil
	}
	f, err := os.OpenFile(b.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, b.size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = writeZeros(f, b.size)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		// Half a ballast would take the space that is so short.
		return errors.Join(err, os.Remove(b.path))
	}
	return nil
}

func writeZeros(f *os.File, size int64) error {
	zeros := make([]byte, 1<<16)
	for size > 0 {
		n, err := f.Write(zeros[:min(size, int64(len(zeros)))])
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// release gives the space up. It reports whether there was any.
func (b *ballast) release() bool {
	if b.size <= 0 || b.used {
		return false
	}
	err := os.Remove(b.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	b.used = true
	return err == nil
}

// refill reports whether changes that are not urgent may use the disk: always, except after release until the disk has
// room for the ballast again.
func (b *ballast) refill() bool {
	if b.used && b.fill() == nil {
		b.used = false
	}
	return !b.used
}
