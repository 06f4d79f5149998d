package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/kms"
)

var anEvent = &kms.AuditEvent{
	Time: time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC), RequestID: "r-1", Action: "Encrypt", KeyID: "key-1", VersionID: "key-1-1",
	Items: 3, Outcome: "ok", Duration: 1500 * time.Microsecond,
	Actor: &kms.Actor{Principal: deploy, Account: "1000000000000001", UID: 1001, GID: 7, PID: 99, Unit: "a.service", Executable: "/bin/a\nb"},
}

// TestAuditCannotBeHidden writes an event while the log shows errors only.
func TestAuditCannotBeHidden(t *testing.T) {
	if err := setLevel("error"); err != nil {
		t.Fatal(err)
	}
	defer zerolog.SetGlobalLevel(zerolog.TraceLevel)
	path := filepath.Join(t.TempDir(), "audit.log")
	a, err := openAudit(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.Record(context.Background(), anEvent); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines:\n%s", len(lines), text)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(lines[1]), &got); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"event": "audit", "action": "Encrypt", "outcome": "ok", "request": "r-1", "key": "key-1", "version": "key-1-1", "items": 3.0,
		"principal": deploy, "door": "API", "uid": 1001.0, "gid": 7.0, "pid": 99.0, "unit": "a.service", "executable": "/bin/a\nb", "ms": 1.5,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

// TestAuditTellsOfFailure uses a file that takes nothing.
func TestAuditTellsOfFailure(t *testing.T) {
	a, err := openAudit("/dev/full", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := a.Record(context.Background(), anEvent); err == nil {
		t.Error("a full disk is no error")
	}
}

// TestAuditReopen renames the file away, as logrotate does, while events are written: each is in one of the two, whole.
func TestAuditReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	a, err := openAudit(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	const writers, each = 4, 500
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range each {
				if err := a.Record(context.Background(), anEvent); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 20 {
		if err := errors.Join(os.Rename(path, fmt.Sprint(path, ".", i)), a.reopen()); err != nil {
			t.Error(err)
		}
	}
	all.Wait()
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != 21 {
		t.Fatal(files, err)
	}
	lines := 0
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if lines++; !json.Valid([]byte(line)) {
				t.Errorf("%s has %q", f, line)
			}
		}
	}
	if lines != writers*each {
		t.Errorf("%d events of %d", lines, writers*each)
	}
	// A place that can't be opened changes nothing.
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := a.reopen(); err == nil {
		t.Error("a directory was opened")
	}
	if err := a.Record(context.Background(), anEvent); err != nil {
		t.Error(err)
	}
}

func BenchmarkAudit(b *testing.B) {
	a, err := openAudit(filepath.Join(b.TempDir(), "audit.log"), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	b.ReportAllocs()
	for b.Loop() {
		if err := a.Record(context.Background(), anEvent); err != nil {
			b.Fatal(err)
		}
	}
}

// TestAuditOnFullDisk fills a disk beside an audit file: what was set aside takes events, is used up in the end, and the end
// is an error.
func TestAuditOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Fatalf("mounting a tmpfs (needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	a, err := openAudit(filepath.Join(dir, "audit.log"), nil)
	if err != nil {
		t.Fatal(err)
	}
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 64<<10); err == nil; {
		_, err = filler.Write(block)
	}
	if err := filler.Close(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	kept := 0
	for err = a.Record(context.Background(), anEvent); err == nil; err = a.Record(context.Background(), anEvent) {
		kept++
	}
	if kept < 20_000 || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%d events were kept on a full disk, then: %v", kept, err)
	}
	// With space again it goes on.
	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Record(context.Background(), anEvent), a.Close()); err != nil {
		t.Error(err)
	}
}
