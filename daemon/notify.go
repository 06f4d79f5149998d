package daemon

import (
	"context"
	"time"

	sdnotify "github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"
)

// notify tells systemd how the daemon is. Without systemd it does nothing.
func notify(log zerolog.Logger, state string) {
	if _, err := sdnotify.SdNotify(false, state); err != nil {
		log.Warn().Err(err).Msg("systemd could not be told " + state)
	}
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
