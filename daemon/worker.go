package daemon

import (
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	sdnotify "github.com/coreos/go-systemd/v22/daemon"
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

// workerSocket is the file by which a worker speaks with the daemon, or, for a unit of systemd, at which it waits for it.
const workerSocket = 3

// acceptDaemon waits for the daemon at the listening socket that systemd passed, and puts the connection in its place. The socket's mode says who may
// connect. One connection is one life of the worker: the next one finds a new process.
func acceptDaemon() error {
	conn, _, err := unix.Accept4(workerSocket, unix.SOCK_CLOEXEC)
	for errors.Is(err, unix.EINTR) {
		conn, _, err = unix.Accept4(workerSocket, unix.SOCK_CLOEXEC)
	}
	if err != nil {
		return fmt.Errorf("the daemon's connection: %w", err)
	}
	if err := unix.Dup3(conn, workerSocket, unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("the daemon's connection: %w", err)
	}
	if err := unix.Close(conn); err != nil {
		return err
	}
	// systemd's watchdog sees a process that was stopped, which its library can't tell.
	interval, err := sdnotify.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return err
	}
	go func() { // ends with the process
		for range time.Tick(interval / 3) {
			_, _ = sdnotify.SdNotify(false, sdnotify.SdNotifyWatchdog) // if it can't be told, systemd ends the process
		}
	}()
	return nil
}

// cmdWorker is the process that loads an HSM's library. It ends with the daemon, whose end of the socket is its life.
func cmdWorker(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: keywardd %s takes no argument %q", errUsage, workerCommand, args[0])
	}
	var st unix.Stat_t
	if err := unix.Fstat(workerSocket, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%w: keywardd %s is started by the daemon or by systemd, not by people", errUsage, workerCommand)
	}
	if err := harden(); err != nil {
		return err
	}
	tuneMemory()
	if listens, err := unix.GetsockoptInt(workerSocket, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listens != 0 {
		if err := acceptDaemon(); err != nil {
			return err
		}
	}
	// A Ctrl-C in a terminal, and a stop of the whole unit, reach every process at once; the calls that run then still need
	// their HSM.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if code := hsmpool.WorkerMain(); code != 0 {
		return exitStatus(code)
	}
	return nil
}
