package daemon

import (
	"reflect"

	sdnotify "github.com/coreos/go-systemd/v22/daemon"

	"github.com/keyward/keyward/daemon/config"
)

// reloadNow reads the configuration again. What can change while running is changed as a whole; a file with a mistake
// changes nothing, and the daemon goes on with what it has.
func (s *server) reloadNow() {
	notify(s.log, sdnotify.SdNotifyReloading)
	defer func() { notify(s.log, sdnotify.SdNotifyReady+"\nSTATUS="+s.summary()) }()
	defer s.reloads.Add(1)
	err := s.reload()
	if err == nil {
		s.refused.Store(nil)
	} else {
		why := err.Error()
		s.refused.Store(&why)
		s.log.Error().Err(err).Msg("the configuration has a mistake, so nothing was changed; the daemon goes on with the old one")
	}
}

func (s *server) reload() error {
	old := s.config.Load()
	c, err := config.Load(old.Path)
	if err != nil {
		return err
	}
	peers, err := newPeerTable(c)
	if err != nil {
		return err
	}
	if err := setLevel(c.Log.Level); err != nil {
		return err
	}
	s.peers.Store(peers)
	// The next reload compares with what runs, so the parts that wait for a restart stay the old ones.
	running := *old
	running.Log, running.Peers, running.Files, running.ShutdownTimeout = c.Log, c.Peers, c.Files, c.ShutdownTimeout
	s.config.Store(&running)
	s.log.Info().Msg("configuration reloaded")
	if waiting := needRestart(&running, c); len(waiting) > 0 {
		s.log.Warn().Strs("keys", waiting).Msg("these have changed too, and wait for a restart")
	}
	return nil
}

// needRestart names the keys of the main table in which a and b differ.
func needRestart(a, b *config.Config) []string {
	var names []string
	va, vb := reflect.ValueOf(*a), reflect.ValueOf(*b)
	for i := range va.NumField() {
		name := va.Type().Field(i).Tag.Get("toml")
		if name != "-" && !reflect.DeepEqual(va.Field(i).Interface(), vb.Field(i).Interface()) {
			names = append(names, name)
		}
	}
	return names
}
