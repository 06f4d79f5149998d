package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/kms"
)

// auditLog keeps audit events as JSON lines. It is a kms.Auditor.
//
// Each event has a logger of its own into a buffer, and the line then is one write whose error the caller gets: a
// logger's level could hide an event, and a logger swallows errors.
type auditLog struct {
	path    string
	file    atomic.Pointer[os.File] // at path; nil when there is none configured
	other   io.Writer               // what is written to instead
	buffers sync.Pool               // of *bytes.Buffer

	recorded atomic.Uint64 // events
	reserved atomic.Int64  // octets after the end of file that the disk has set aside, about
}

// auditReserve is how much of the disk is set aside for events to come, so that on a full disk keys can still be used and,
// above all, disabled: some 40,000 calls. It is filled up when half of it is used.
const auditReserve = 16 << 20

// openAudit opens the audit file for appending, or uses other when there is none configured.
func openAudit(file string, other io.Writer) (*auditLog, error) {
	a := &auditLog{path: file, other: other, buffers: sync.Pool{New: func() any { return new(bytes.Buffer) }}}
	return a, a.reopen()
}

// reopen opens the file at the path, makes it if it is not there, and writes to that from then on: whoever rotates the file renames it, and has the
// daemon reload. Events that are being written go to the old file, which is closed after them. On an error the old one stays.
// One reopen runs at a time.
func (a *auditLog) reopen() error {
	if a.path == "" {
		return nil
	}
	f, err := os.OpenFile(a.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("the audit file: %w", err)
	}
	old := a.file.Swap(f)
	a.reserve()
	if old == nil {
		return nil
	}
	if err := old.Close(); err != nil {
		return fmt.Errorf("the audit file that was: %w", err)
	}
	return nil
}

// write appends a line. A file that was closed by reopen meanwhile has its successor already.
func (a *auditLog) write(line []byte) error {
	for {
		f := a.file.Load()
		if f == nil {
			_, err := a.other.Write(line)
			return err
		}
		if _, err := f.Write(line); !errors.Is(err, os.ErrClosed) || a.file.Load() == f {
			return err
		}
	}
}

// reserve sets disk space aside. That it can't, on a full disk or a file system that knows no such thing, is no error: then
// the write will say so.
func (a *auditLog) reserve() {
	f := a.file.Load()
	info, err := f.Stat()
	if err != nil {
		return
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) { // fails for a file that reopen has closed
		if unix.Fallocate(int(fd), unix.FALLOC_FL_KEEP_SIZE, info.Size(), auditReserve) == nil {
			a.reserved.Store(auditReserve)
		}
	})
}

// Record writes e as one line. It returns when the kernel has it.
func (a *auditLog) Record(_ context.Context, e *kms.AuditEvent) error {
	buf := a.buffers.Get().(*bytes.Buffer)
	defer a.buffers.Put(buf)
	buf.Reset()
	logger := zerolog.New(buf)
	// Log has no level, so that none can hide it.
	line := logger.Log().Str("event", "audit").Time("time", e.Time).Str("action", e.Action).Str("outcome", e.Outcome)
	optional := func(name, value string) {
		if value != "" {
			line.Str(name, value)
		}
	}
	optional("detail", e.Detail)
	optional("request", e.RequestID)
	optional("key", e.KeyID)
	optional("version", e.VersionID)
	if e.Items > 0 {
		line.Int("items", e.Items)
	}
	if p := e.Actor; p != nil {
		line.Str("principal", p.Principal).Str("account", p.Account).Stringer("door", p.Door)
		if p.RemoteAddr == "" {
			line.Uint32("uid", p.UID).Uint32("gid", p.GID).Int32("pid", p.PID)
		}
		optional("unit", p.Unit)
		optional("executable", p.Executable)
		optional("remote", p.RemoteAddr)
		optional("access_key", p.AccessKeyID)
	}
	line.Dur("ms", e.Duration).Send()
	if buf.Len() == 0 {
		return fmt.Errorf("the audit event of %s was hidden by a log level", e.Action)
	}
	if err := a.write(buf.Bytes()); err != nil {
		return fmt.Errorf("the audit: %w", err)
	}
	a.recorded.Add(1)
	// Whoever brings it to the half fills it up. On a full disk that fails, and is tried again every MiB.
	n := int64(buf.Len())
	if left := a.reserved.Add(-n); a.path != "" && left < auditReserve/2 && left>>20 != (left+n)>>20 {
		a.reserve()
	}
	return nil
}

// Close closes the file. No Record may run any more.
func (a *auditLog) Close() error {
	if f := a.file.Load(); f != nil {
		return f.Close()
	}
	return nil
}
