package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/hsmpool"
)

// errPINRefused says that an HSM refused its PIN in an earlier run.
var errPINRefused = errors.New("the PIN was refused")

// withPIN gives a member its PIN, and makes a refusal last: a mark in the state directory keeps the same PIN from being
// tried once more by every restart, because HSMs lock after a few. Only an operator takes the mark away. A worker of a unit (to has its socket) has
// the PIN itself.
func withPIN(c *config.Config, m *config.Member, to *hsmpool.MemberConfig) {
	mark := filepath.Join(c.StateDir, "pin-refused-"+m.Name)
	to.PINName = "file " + m.PINFile
	again := "keywardctl reload (or start keywardd, if it does not run)"
	if to.Socket != "" {
		to.PINName = "unit keyward-hsm@" + m.Name
		again = "systemctl restart keyward-hsm@" + m.Name + ".socket keywardd"
	} else if m.PINCredential != "" {
		to.PINName = "credential " + m.PINCredential
		again = "systemctl restart keywardd, for systemd gives a unit its credentials at the start"
	}
	to.PIN = func() ([]byte, error) {
		info, err := os.Lstat(mark)
		if err == nil {
			return nil, fmt.Errorf("%w on %s and is not tried again, because HSMs lock; put the right PIN in its place, then: rm %s, and %s",
				errPINRefused, info.ModTime().UTC().Format(time.RFC3339), mark, again)
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		if to.Socket != "" {
			return []byte{}, nil
		}
		return m.PIN()
	}
	to.Refused = func() (string, error) {
		err := writeNew(mark, nil, 0o600)
		if errors.Is(err, os.ErrExist) {
			err = nil
		}
		return "put the right PIN in its place, then: rm " + mark + ", and " + again, errors.Join(err, syncDir(c.StateDir))
	}
}
