package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/daemon/admin"
)

// finding is what one examination of doctor found.
type finding struct {
	Examined string `json:"examined"`
	Good     bool   `json:"good"`
	Found    string `json:"found"`
	Next     string `json:"next,omitempty"` // what to do; empty if it is good
}

// examination looks at one thing. It changes nothing.
type examination struct {
	what string
	look func(d *doctor, ctx context.Context) (found, next string) // next: something is wrong
}

// examinations are all, in the order in which one rests on those before.
var examinations = []examination{
	{"programs", (*doctor).programs},
	{"user", (*doctor).user},
	{"directories", (*doctor).directories},
	{"configuration", (*doctor).configuration},
	{"master keys", (*doctor).masterKeys},
	{"disk", (*doctor).disk},
	{"PINs", (*doctor).pins},
	{"units", (*doctor).unitStates},
	{"daemon", (*doctor).daemon},
	{"HSM members", (*doctor).members},
	{"PKCS#11 socket", (*doctor).pkcs11Socket},
	{"PKCS#11 module", (*doctor).module},
	{"external keys", (*doctor).external},
}

// doctor is one run. status is what the daemon said, nil before it was asked or if it did not answer.
type doctor struct {
	c      *cli
	m      machine
	status *admin.Status
}

func (c *cli) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Examine the whole installation, and say what to do about what is wrong",
		Long: `Examine the whole installation: programs, user, directories, configuration, master keys, room on the disk, PINs, units, the daemon, its HSMs,
the sockets and the PKCS#11 module. Nothing is changed. Some of it only root can see.
The exit code is 0 when all is good, else 7.`,
		Example: "  sudo keywardctl doctor\n  sudo keywardctl doctor -o json | jq '.[] | select(.good | not)'",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &doctor{c: c, m: installed()}
			all, bad := []finding{}, 0
			for _, e := range examinations {
				found, next := e.look(d, cmd.Context())
				all = append(all, finding{e.what, next == "", found, next})
				if next != "" {
					bad++
				}
			}
			err := c.print(all, func() error {
				for _, f := range all {
					verdict := "good"
					if !f.Good {
						verdict = "BAD "
					}
					if err := c.line(fmt.Sprintf("%s  %-15s %s", verdict, f.Examined, f.Found)); err != nil {
						return err
					}
					if !f.Good {
						if err := c.line("      next:           " + f.Next); err != nil {
							return err
						}
					}
				}
				return nil
			})
			if err == nil && bad > 0 {
				err = &codedError{code: exitDegraded, err: errQuiet}
			}
			return err
		},
	}
}

func (d *doctor) programs(ctx context.Context) (found, next string) {
	out, err := exec.CommandContext(ctx, d.m.keywardd, "version").Output()
	if err != nil {
		return "keywardd can't be run: " + err.Error(), "install the package"
	}
	if daemon := strings.TrimSpace(string(out)); daemon != Version {
		return fmt.Sprintf("keywardd is %s, keywardctl %s", daemon, Version), "install both from one package"
	}
	return "keywardd and keywardctl " + Version, ""
}

func (d *doctor) user(context.Context) (found, next string) {
	u, err := user.Lookup(daemonUser)
	if err != nil {
		return "there is no user " + daemonUser, "systemd-sysusers keyward.conf makes it"
	}
	return fmt.Sprintf("%s, uid %s", daemonUser, u.Uid), ""
}

func (d *doctor) directories(context.Context) (found, next string) {
	for path, mode := range map[string]os.FileMode{d.m.state: 0o700, "/run/keyward": 0o755} {
		info, err := os.Stat(path)
		if err != nil {
			return err.Error(), "systemd-tmpfiles --create keyward.conf makes it"
		}
		if got := info.Mode().Perm(); got != mode {
			return fmt.Sprintf("%s has mode %04o", path, got), fmt.Sprintf("chmod %04o %s", mode, path)
		}
	}
	owner, err := user.Lookup(daemonUser)
	if err != nil {
		return d.m.state + " and /run/keyward", "" // said already
	}
	inside, err := os.ReadDir(d.m.state)
	if errors.Is(err, os.ErrPermission) {
		return d.m.state + " and /run/keyward", ""
	} else if err != nil {
		return err.Error(), "sudo keywardctl doctor"
	}
	paths := []string{d.m.state}
	for _, entry := range inside {
		paths = append(paths, filepath.Join(d.m.state, entry.Name()))
	}
	for _, path := range paths {
		info, err := os.Lstat(path)
		if err != nil {
			continue // it is gone
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && fmt.Sprint(stat.Uid) != owner.Uid {
			return path + " is not " + daemonUser + "'s", "chown --no-dereference keyward:keyward " + path
		}
	}
	return d.m.state + " and /run/keyward", ""
}

// leastFree is how much room the key store should have at least, in octets.
const leastFree = 64 << 20

func (d *doctor) disk(context.Context) (found, next string) {
	var fs unix.Statfs_t
	if err := unix.Statfs(d.m.state, &fs); err != nil {
		return d.m.state + ": " + err.Error(), "systemd-tmpfiles --create keyward.conf makes it"
	}
	return roomFound(d.m.state, int64(fs.Bavail)*fs.Bsize)
}

func roomFound(path string, free int64) (found, next string) {
	found = fmt.Sprintf("%d MiB free for %s", free>>20, path)
	if free < leastFree {
		return found, "make room: on a full disk no key can be made or changed"
	}
	return found, ""
}

// pins looks for the files of the PINs that the workers' units name.
func (d *doctor) pins(context.Context) (found, next string) {
	n := 0
	for _, socket := range d.m.memberUnits() {
		unit := strings.TrimSuffix(socket, ".socket")
		files, _ := filepath.Glob(filepath.Join(d.m.units, unit+".service.d", "*.conf"))
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return err.Error(), "sudo keywardctl doctor"
			}
			for _, path := range credentialFiles(string(text)) {
				_, err := os.Stat(path)
				switch {
				case errors.Is(err, os.ErrPermission):
					return "only root can look at them", "sudo keywardctl doctor"
				case err != nil && strings.HasSuffix(path, ".cred"):
					return fmt.Sprintf("%s, the PIN of %s, is not there", path, unit), fmt.Sprintf("systemd-creds encrypt --name=pin - %s, type the PIN and Ctrl-D twice, then systemctl restart %s", path, socket)
				case err != nil:
					return fmt.Sprintf("%s, the PIN of %s, is not there", path, unit), fmt.Sprintf("write it there, for root alone, then systemctl restart %s", socket)
				}
				n++
			}
		}
	}
	if n == 0 {
		return "no unit of a worker names one", ""
	}
	return fmt.Sprintf("%d, where the units of the workers look for them", n), ""
}

// credentialFiles gives the files that a unit has its credentials from.
func credentialFiles(unit string) (files []string) {
	for line := range strings.Lines(unit) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || name != "LoadCredential" && name != "LoadCredentialEncrypted" {
			continue
		}
		if _, path, ok := strings.Cut(value, ":"); ok && filepath.IsAbs(path) {
			files = append(files, path)
		}
	}
	return files
}

func (d *doctor) configuration(ctx context.Context) (found, next string) {
	out, err := exec.CommandContext(ctx, d.m.keywardd, "check-config").CombinedOutput()
	text := strings.TrimPrefix(strings.TrimSpace(string(out)), "keywardd: ")
	if err != nil {
		return text, "mend that line; keywardd check-config looks again. Without any [[member]], keywardctl init writes them"
	}
	return text, ""
}

func (d *doctor) masterKeys(context.Context) (found, next string) {
	_, err := os.Stat(filepath.Join(d.m.state, "store.db"))
	switch {
	case errors.Is(err, os.ErrPermission):
		return "only root can look into " + d.m.state, "sudo keywardctl doctor"
	case err != nil:
		return "there is no key store yet", "keywardctl init makes master keys and store"
	}
	if !d.m.sharesNotGiven() {
		return "there is a key store", ""
	}
	shares, err := d.m.shares()
	switch {
	case err != nil:
		return "the recovery shares: " + err.Error(), "sudo keywardctl doctor"
	case len(shares) > 0:
		return "the recovery shares were given to nobody yet", "keywardctl init goes on with them; they are in memory until this machine restarts"
	}
	lost := d.m.sharesLost()
	return lost.Error(), lost.next
}

func (d *doctor) unitStates(ctx context.Context) (found, next string) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return "systemd does not run here", "start keywardd run yourself, as " + daemonUser
	}
	units := slices.Concat(d.m.memberUnits(), unitNames)
	var states, todo []string
	for _, ask := range []struct{ verb, to string }{{"is-enabled", "enable"}, {"is-active", "start"}} {
		var wrong []string
		for _, unit := range units {
			if out, err := exec.CommandContext(ctx, "systemctl", ask.verb, unit).CombinedOutput(); err != nil {
				states = append(states, unit+" is "+told(bytes.NewBuffer(out), err))
				wrong = append(wrong, unit)
			}
		}
		if len(wrong) > 0 {
			todo = append(todo, "systemctl "+ask.to+" "+strings.Join(wrong, " "))
		}
	}
	if len(states) > 0 {
		return strings.Join(states, ", "), strings.Join(todo, "; ") + "; what does not start, journalctl -u UNIT tells of"
	}
	return strings.Join(units, ", ") + " are enabled and run", ""
}

// lastWords is what the daemon said last of an error, as the journal has it since the machine started; empty if that can't be found.
func lastWords(journal string) string {
	lines := strings.Split(journal, "\n")
	for _, line := range slices.Backward(lines) {
		if text, ok := strings.CutPrefix(line, "keywardd: "); ok {
			return text
		}
		var event struct{ Level, Error, Message string }
		if json.Unmarshal([]byte(line), &event) == nil && (event.Level == "error" || event.Level == "fatal") {
			return strings.TrimPrefix(event.Message+": "+event.Error, ": ")
		}
	}
	return ""
}

func (d *doctor) daemon(ctx context.Context) (found, next string) {
	s, err := askAdmin(ctx, d.c, 0, func(ctx context.Context, client *admin.Client) (*admin.Status, error) { return client.Status(ctx) })
	if err != nil {
		if journal, failed := exec.CommandContext(ctx, "journalctl", "--unit", "keywardd", "--boot", "--output", "cat", "--no-pager", "--lines", "200").Output(); failed == nil {
			if said := lastWords(string(journal)); said != "" {
				return err.Error() + ". It last said: " + said, "mend that; journalctl -u keywardd has the rest"
			}
		}
		return err.Error(), "journalctl -u keywardd says what it is up to"
	}
	d.status = s
	switch {
	case s.Version != Version:
		return fmt.Sprintf("it runs as %s, and %s is installed", s.Version, Version), "systemctl restart keywardd"
	case len(s.Problems) > 0:
		return strings.Join(s.Problems, "; "), "keywardctl status shows more"
	case s.State != admin.OK:
		return "it is " + string(s.State), "keywardctl status shows more"
	}
	return fmt.Sprintf("it answers at %s: ok, %d keys", d.c.socket, s.Store.Keys), ""
}

// unasked is what is found where the daemon does not answer.
const unasked = "not known, as the daemon does not answer"

func (d *doctor) members(context.Context) (found, next string) {
	if d.status == nil {
		return unasked, "mend what is above"
	}
	for _, m := range d.status.Members {
		if !m.State.Serves() {
			return fmt.Sprintf("%s is %s: %s", m.Name, m.State, m.Reason), "keywardctl hsm status shows more"
		}
	}
	n := len(d.status.Members)
	if n == 1 {
		return "one, and it serves; if it fails, hardware keys can't be used", ""
	}
	return fmt.Sprintf("%d, and all serve", n), ""
}

func (d *doctor) pkcs11Socket(ctx context.Context) (found, next string) {
	if d.status == nil || d.status.PKCS11 == nil {
		if d.status == nil {
			return unasked, "mend what is above"
		}
		return "it is turned off", ""
	}
	path := d.status.PKCS11.Socket
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return err.Error(), "systemctl stop keywardd.service; systemctl restart keywardd-pkcs11.socket keywardd.service"
	}
	return path, errorText(conn.Close())
}

func errorText(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

// moduleDirs are where packages put the module.
var moduleDirs = []string{"/usr/lib/x86_64-linux-gnu/pkcs11", "/usr/lib/aarch64-linux-gnu/pkcs11", "/usr/lib64/pkcs11"}

func (d *doctor) module(context.Context) (found, next string) {
	for _, dir := range moduleDirs {
		path := filepath.Join(dir, "libkeyward-pkcs11.so")
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if _, err := os.Stat("/usr/share/p11-kit/modules/keyward.module"); err != nil {
			return path + ", which p11-kit does not know", "install the package again"
		}
		return path, ""
	}
	return "libkeyward-pkcs11.so is not where packages put it", "install the package"
}

func (d *doctor) external(ctx context.Context) (found, next string) {
	if d.status == nil {
		return unasked, "mend what is above"
	}
	all, err := askAdmin(ctx, d.c, 0, func(ctx context.Context, client *admin.Client) (*admin.XKIConnections, error) {
		return client.XKIConnections(ctx)
	})
	if err != nil {
		return err.Error(), "sudo keywardctl doctor"
	}
	for i := range all.Connections {
		if conn := &all.Connections[i]; !conn.Connected {
			return conn.Instance + " is Disconnected: " + conn.Trouble, "keywardctl xki connections shows more"
		}
	}
	return fmt.Sprintf("%d connections, and all work", len(all.Connections)), ""
}
