package boltstore

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// ballast is a file that only takes up space. Giving it up makes room for the changes that must work on a full disk; the
// others are made only while it is there. Owned by whoever holds the writing token.
type ballast struct {
	path string
	size int64 // octets; not above 0 means that there is none
}

// open makes the file anew if it has holes, as a copy of it may have, and so keeps nothing in reserve. That is looked at
// once only, because some file systems count the blocks of a new file late.
func (b *ballast) open() error {
	var st unix.Stat_t
	if b.size > 0 && unix.Stat(b.path, &st) == nil && st.Blocks*512 < st.Size {
		if err := os.Remove(b.path); err != nil {
			return err
		}
	}
	return b.fill()
}

// fill makes the file, unless it is there. Nothing is done to make the file itself durable: what is missing after a crash
// is made again.
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
		err = writeNoise(f, b.size)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		// Half a ballast would take the space that is so short.
		return errors.Join(err, os.Remove(b.path))
	}
	return nil
}

// writeNoise writes what a file system that compresses can't make smaller.
func writeNoise(f *os.File, size int64) error {
	noise := rand.NewChaCha8([32]byte{})
	_, err := io.CopyN(f, noise, size)
	return err
}

// release gives the space up. It reports whether there was any.
func (b *ballast) release() bool { return b.size > 0 && os.Remove(b.path) == nil }
