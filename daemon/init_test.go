package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGiveToOwner makes files as an init does that root runs in the directory of the daemon's user. Without root the
// directory belongs to the test's own user, and nothing may change.
func TestGiveToOwner(t *testing.T) {
	dir := t.TempDir()
	uid := os.Geteuid()
	if uid == 0 {
		uid = 12345
		if err := os.Chown(dir, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	for _, path := range []string{elsewhere, filepath.Join(dir, storeFile), filepath.Join(dir, "lock")} {
		if err := writeNew(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// What the directory's owner may have put there leads nowhere.
	if err := os.Link(elsewhere, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, filepath.Join(dir, "symlink")); err != nil {
		t.Fatal(err)
	}
	if err := giveToOwner(dir); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{filepath.Join(dir, storeFile): uid, filepath.Join(dir, "lock"): uid, elsewhere: os.Geteuid()} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || int(st.Uid) != want {
			t.Errorf("%s belongs to %d, not %d: %v", path, st.Uid, want, err)
		}
	}
}

// TestWhoseFiles adds the advice to a file of the state directory that may not be opened, and to nothing else.
func TestWhoseFiles(t *testing.T) {
	for path, want := range map[string]bool{"/state/store.db": true, "/etc/x.pin": false} {
		for _, cause := range []error{unix.EACCES, unix.EIO} {
			err := whoseFiles("/state/", fmt.Errorf("opening: %w", &fs.PathError{Op: "open", Path: path, Err: cause}))
			if got := strings.Contains(err.Error(), "chown -R "); got != (want && cause == unix.EACCES) || !errors.Is(err, cause) {
				t.Errorf("%s, %v: %v", path, cause, err)
			}
		}
	}
}

// TestUnit sees that systemd does not start a daemon again whose PIN was refused, and leaves its workers to it.
func TestUnit(t *testing.T) {
	unit, err := os.ReadFile("../systemd/keywardd.service")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(unit), "\nKillMode=mixed\n") {
		t.Error("a stop of the unit ends the workers before the calls that need them")
	}
	if exitConfig != 78 || !strings.Contains(string(unit), "\nRestartPreventExitStatus=78\n") {
		t.Error("the unit starts a daemon again that ended with exitConfig")
	}
}
