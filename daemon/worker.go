package daemon

import (
	"fmt"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/hsmpool"
)

// ownProgram is this very program, even when another file was installed in its place since it started: a daemon and its children
// must be of one version.
const ownProgram = "/proc/self/exe"

// Commands that the daemon starts itself.
const (
	workerCommand  = "hsm-worker" // one worker of an HSM member
	devMakeCommand = "dev-make"   // makes the directory of keywardd dev
)

// exitStatus is an exit code without a message: whoever ended with it has said what there is to say.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// cmdWorker is the process that loads an HSM's library. It ends with the daemon, whose end of the socket is its life.
func cmdWorker(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: keywardd %s takes no argument %q", errUsage, workerCommand, args[0])
	}
	var st unix.Stat_t
	if err := unix.Fstat(3, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%w: keywardd %s is started by the daemon, not by people", errUsage, workerCommand)
	}
	if err := harden(); err != nil {
		return err
	}
	tuneMemory()
	// A Ctrl-C in a terminal, and a stop of the whole unit, reach every process at once; the calls that run then still need
	// their HSM.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if code := hsmpool.WorkerMain(); code != 0 {
		return exitStatus(code)
	}
	return nil
}
