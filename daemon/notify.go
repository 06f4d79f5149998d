package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	sdnotify "github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// notify tells systemd how the daemon is. Without systemd it does nothing.
func notify(log zerolog.Logger, state string) {
	if _, err := sdnotify.SdNotify(false, state); err != nil {
		log.Warn().Err(err).Msg("systemd could not be told " + state)
	}
}

// The names of what systemd keeps of the PKCS #11 door while there is no daemon.
const (
	heldName      = "pkcs11-held"
	heldStateName = "pkcs11-held-state"
)

// maxRights is how many files one message may carry (SCM_MAX_FD of the kernel is 253).
const maxRights = 200

// barrierTime is how long systemd may take to read what it was told.
const barrierTime = 5 * time.Second

// keepFiles has systemd keep files for the next start of the daemon under a name, if the unit lets it (FileDescriptorStoreMax=). They stay open here.
func keepFiles(name string, files []*os.File) error {
	for part := range slices.Chunk(files, maxRights) {
		fds := make([]int, len(part))
		for i, f := range part {
			fds[i] = int(f.Fd())
		}
		if err := notifyWith("FDSTORE=1\nFDNAME="+name, fds); err != nil {
			return err
		}
	}
	return nil
}

// notifyBarrier returns when systemd has read all that it was told so far: of a process that is gone by then it would not know whose it was.
func notifyBarrier() error {
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	err = notifyWith("BARRIER=1", []int{int(write.Fd())})
	if err := errors.Join(err, write.Close()); err != nil {
		return err
	}
	poll := []unix.PollFd{{Fd: int32(read.Fd())}}
	if n, err := unix.Poll(poll, int(barrierTime/time.Millisecond)); err != nil || n == 0 {
		return fmt.Errorf("systemd does not read what it is told: %w", cmp.Or(err, error(context.DeadlineExceeded)))
	}
	return nil
}

// notifyWith sends systemd a message with files, which go-systemd does not.
func notifyWith(message string, fds []int) error {
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = unix.Sendmsg(socket, []byte(message), unix.UnixRights(fds...), &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}, 0)
	return errors.Join(err, unix.Close(socket))
}

// watchdog tells systemd that the daemon lives, as long as check returns in time and without error, until ctx ends. If
// it does not, systemd restarts the daemon. It returns at once if systemd did not ask for it.
func watchdog(ctx context.Context, log zerolog.Logger, check func(context.Context) error) {
	interval, err := sdnotify.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn().Err(err).Msg("systemd's watchdog settings can't be read")
		return
	}
	if interval == 0 {
		return
	}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		bounded, cancel := context.WithTimeout(ctx, interval/3)
		err := check(bounded)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			log.Error().Err(err).Msg("the watchdog's check failed")
			continue
		}
		notify(log, sdnotify.SdNotifyWatchdog)
	}
}
