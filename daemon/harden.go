package daemon

import (
	"fmt"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// harden makes it harder to take keys out of this process's memory. It is called before any secret is read.
//
// The traceback of a crash stays on, for the crashing goroutine alone: without it a fault could not be found, and it
// shows addresses and lengths, not what they point to. GOTRACEBACK=crash in the environment can't dump anything, because
// core dumps are off twice.
func harden() error {
	debug.SetTraceback("single")
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_DUMPABLE: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("RLIMIT_CORE: %w", err)
	}
	unix.Umask(0o027) // nothing that keyward makes is for everybody
	return nil
}
