package daemon

import (
	"errors"
	"reflect"

	sdnotify "github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"

	"github.com/keyward/keyward/daemon/config"
)

// reloadNow reads the configuration again. What can change while running is changed as a whole; a file with a mistake
// changes nothing, and the daemon goes on with what it has. It gives the keys that have changed too and wait for a restart.
// One reload runs at a time.
func (s *server) reloadNow() (waiting []string, err error) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	notify(s.log, sdnotify.SdNotifyReloading)
	defer func() { notify(s.log, sdnotify.SdNotifyReady) }()
	defer s.reloads.Add(1)
	waiting, err = s.reload()
	if err != nil {
		why := err.Error()
		s.refused.Store(&why)
		s.log.Error().Err(err).Msg("the configuration is not taken over and nothing was changed; the daemon goes on with the old one")
		return nil, err
	}
	s.refused.Store(nil)
	s.log.Info().Msg("configuration reloaded")
	if len(waiting) > 0 {
		s.log.Warn().Strs("keys", waiting).Msg("these have changed too, and wait for a restart")
	}
	return waiting, nil
}

// reload does all that can fail before it changes anything. The pool is the last of that: it takes its part as a whole or
// not at all.
func (s *server) reload() (waiting []string, err error) {
	old := s.config.Load()
	c, err := config.Load(old.Path)
	if err != nil {
		return nil, err
	}
	peers, err := newPeerTable(c)
	if err != nil {
		return nil, err
	}
	level, err := zerolog.ParseLevel(c.Log.Level)
	if err != nil {
		return nil, err
	}
	// What waits for a restart stays as it is in all parts: isolation, and the state directory with its marks of PINs.
	running := *old
	running.Log, running.Peers, running.Files, running.ShutdownTimeout = c.Log, c.Peers, c.Files, c.ShutdownTimeout
	running.Members, running.Shares, running.Pool.Queue = c.Members, c.Shares, c.Pool.Queue
	running.Instances = c.Instances
	running.Services = c.Services
	isolated := old.Pool.Isolation == config.Process
	if !isolated {
		if err := environmentIsSet(&running); err != nil {
			return nil, err
		}
	}
	pool, err := poolConfig(&running, s.pool.Group(), isolated)
	if err != nil {
		return nil, err
	}
	instances := serviceInstances(&running)
	if err := s.svc.CheckInstances(s.stopping, instances); err != nil {
		return nil, &partRefusal{err}
	}
	takeOver, err := s.readCertificates(&running, c)
	if err != nil {
		return nil, err
	}
	if err := s.audit.reopen(); err != nil {
		return nil, err
	}
	if err := s.pool.Update(pool); err != nil {
		return nil, &partRefusal{err}
	}
	takeOver()
	zerolog.SetGlobalLevel(level)
	s.peers.Store(peers)
	s.svc.SetInstances(instances)
	s.svc.SetServices(declaredServices(&running))
	if err := s.external.refresh(s.stopping); err != nil {
		s.log.Error().Err(err).Msg("external keys stay as they were")
	}
	// The next reload compares with what runs.
	s.config.Store(&running)
	return needRestart(&running, c), nil
}

// partRefusal is why the HSM pool or the service does not take a configuration that has no mistake in itself.
type partRefusal struct{ err error }

func (e *partRefusal) Error() string { return e.err.Error() }
func (e *partRefusal) Unwrap() error { return e.err }

// isPartRefusal says whether err is one.
func isPartRefusal(err error) bool {
	_, ok := errors.AsType[*partRefusal](err)
	return ok
}

// needRestart names the keys in which a and b differ. A table in double brackets is one key.
func needRestart(a, b *config.Config) []string {
	return differing("", reflect.ValueOf(*a), reflect.ValueOf(*b))
}

func differing(table string, a, b reflect.Value) (names []string) {
	for i := range a.NumField() {
		name := a.Type().Field(i).Tag.Get("toml")
		if name == "-" || reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			continue
		}
		if a.Field(i).Kind() == reflect.Struct {
			names = append(names, differing(table+name+".", a.Field(i), b.Field(i))...)
			continue
		}
		names = append(names, table+name)
	}
	return names
}
