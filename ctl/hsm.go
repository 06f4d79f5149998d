package ctl

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/daemon/admin"
)

func (c *cli) hsmCmd() *cobra.Command {
	return group("hsm", "Look after the HSM members",
		"A member is one token of one PKCS#11 module. All members of the group hold the same two master keys, so that any of them can serve a key.",
		"  keywardctl hsm list\n  keywardctl hsm status\n  keywardctl hsm drain hsm-a",
		c.hsmListCmd(), c.hsmStatusCmd(), c.hsmDrainCmd(), c.hsmUndrainCmd(), c.hsmEnrollCmd())
}

// askAdmin makes one call of the administration within --timeout, and more if the call itself is meant to wait.
func askAdmin[T any](ctx context.Context, c *cli, more time.Duration, ask func(context.Context, *admin.Client) (T, error)) (T, error) {
	client := c.admin()
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, c.timeout+more)
	defer cancel()
	answer, err := ask(ctx, client)
	return answer, c.reached(err)
}

func (c *cli) members(ctx context.Context) (*admin.Members, error) {
	return askAdmin(ctx, c, 0, func(ctx context.Context, client *admin.Client) (*admin.Members, error) { return client.Members(ctx) })
}

// completeMembers offers the names of members where one is wanted.
func (c *cli) completeMembers(_ *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.offer(func(ctx context.Context) (names []string, err error) {
		all, err := c.members(ctx)
		if err != nil {
			return nil, err
		}
		for _, m := range all.Members {
			names = append(names, m.Name)
		}
		return names, nil
	})
}

func (c *cli) hsmListCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the members: which token of which module",
		Example: "  keywardctl hsm list",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.members(cmd.Context())
			if err != nil {
				return err
			}
			return rows(c, all.Members, []string{"MEMBER", "STATE", "TOKEN", "SERIAL", "MODULE", "REASON"}, func(m admin.Member) []string {
				return []string{m.Name, string(m.State), m.Token, m.Serial, m.Module, m.Reason}
			})
		},
	}
}

func (c *cli) hsmStatusCmd() *cobra.Command {
	var workers bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell how the members are and what they do",
		Long: `Tell how the members are and what they do: jobs in their hands of how many at most (WINDOW), open sessions, keys they hold
loaded, jobs that wait, and what they did so far. FAILOVERS are jobs that another member was given, RESTARTS worker processes
that were started again, P99 the time that all but one of a hundred calls took at most.
-o json has everything, also the PKCS#11 errors and the workers.

The exit code is 0 when all serve (up or half-open), 7 when some do, 6 when none does.`,
		Example: "  keywardctl hsm status\n  keywardctl hsm status --workers\n  keywardctl hsm status -o json | jq '.members[] | {name, codes}'",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.members(cmd.Context())
			if err != nil {
				return err
			}
			table := c.membersTable
			if workers {
				table = c.workersTable
			}
			if err := c.print(all, func() error { return table(all) }); err != nil {
				return err
			}
			serving := 0
			for _, m := range all.Members {
				if m.State.Serves() {
					serving++
				}
			}
			switch {
			case serving == len(all.Members):
				return nil
			case serving == 0:
				return &codedError{code: exitUnavailable, err: errQuiet}
			}
			return &codedError{code: exitDegraded, err: errQuiet}
		},
	}
	cmd.Flags().BoolVar(&workers, "workers", false, "show the workers of each member instead")
	return cmd
}

func (c *cli) membersTable(all *admin.Members) error {
	columns := []string{"MEMBER", "STATE", "FOR", "WINDOW", "IN-FLIGHT", "SESSIONS", "KEYS", "QUEUE", "DONE", "FAILED", "FAILOVERS", "RESTARTS", "P99", "REASON"}
	err := rows(c, all.Members, columns, func(m admin.Member) []string {
		return []string{m.Name, string(m.State), span(time.Since(m.Since)), strconv.Itoa(m.Window), strconv.Itoa(m.InFlight), strconv.Itoa(m.Sessions),
			strconv.Itoa(m.Keys), strconv.Itoa(m.Queue), count(m.Done), count(m.Failed), count(m.Failovers), count(m.Restarts), micros(m.Latency), m.Reason}
	})
	if err != nil {
		return err
	}
	p := all.Pool
	if err := c.line(""); err != nil {
		return err
	}
	return c.line(fmt.Sprintf("%d of at most %d jobs wait, of %d principals; %d were refused for want of room, %d given up by their callers, %d tried again.",
		p.Waiting, p.Room, p.Principals, p.Throttled, p.Abandoned, p.Retries))
}

func (c *cli) workersTable(all *admin.Members) error {
	out := newList(c, []string{"MEMBER", "PID", "STATE", "WINDOW", "IN-FLIGHT", "SESSIONS", "LANES", "KEYS", "RESTARTS", "REASON"}, func(cells []string) []string { return cells })
	for _, m := range all.Members {
		for _, w := range m.Workers {
			pid := ""
			if w.PID != 0 {
				pid = strconv.Itoa(w.PID)
			}
			err := out.row([]string{m.Name, pid, string(w.State), strconv.Itoa(w.Window), strconv.Itoa(w.InFlight), strconv.Itoa(w.Sessions), strconv.Itoa(w.Lanes),
				strconv.Itoa(w.Keys), count(w.Restarts), w.Reason})
			if err != nil {
				return err
			}
		}
	}
	return out.end("no workers")
}

func count(n uint64) string { return strconv.FormatUint(n, 10) }

// micros is the P99 of a latency to two or three figures, "" when nothing was measured.
func micros(l admin.Latency) string {
	d := time.Duration(l.P99 * float64(time.Microsecond))
	switch {
	case l.Count == 0:
		return ""
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

func (c *cli) hsmDrainCmd() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "drain NAME",
		Short: "Take a member out of service, so that it can be taken away",
		Long: `Take a member out of service: it gets no new jobs, and the command waits until it has done those that it has. Other members go on.
The drain lasts until keywardctl hsm undrain, or until the daemon ends. Keys that live in this member alone (storage HsmInternal) can't be
used meanwhile.`,
		Example:           "  keywardctl hsm drain hsm-a\n  keywardctl hsm drain hsm-a --wait 5m",
		Args:              args("NAME"),
		ValidArgsFunction: c.completeMembers,
		RunE: func(cmd *cobra.Command, a []string) error {
			if wait < 0 || wait > time.Hour {
				return usagef("--wait is 0s to 1h, not %v", wait)
			}
			all, err := c.members(cmd.Context())
			if err != nil {
				return err
			}
			serves := func(m admin.Member) bool { return m.State.Serves() && m.Name != a[0] }
			last := slices.ContainsFunc(all.Members, func(m admin.Member) bool { return m.State.Serves() && m.Name == a[0] })
			if last && !slices.ContainsFunc(all.Members, serves) {
				if err := c.confirm(cmd.Context(), a[0]+" is the last member that is up: without it hardware keys stop working. Drain it?"); err != nil {
					return err
				}
			}
			d, err := askAdmin(cmd.Context(), c, wait, func(ctx context.Context, client *admin.Client) (*admin.Drained, error) {
				return client.Drain(ctx, a[0], wait)
			})
			if err != nil {
				return err
			}
			if err := c.print(d, func() error { return nil }); err != nil {
				return err
			}
			if !d.Idle {
				return &codedError{code: exitFailure, err: fmt.Errorf("%s gets no more jobs, but still has %d after %v", a[0], d.Member.InFlight, wait),
					next: "wait on with the same command, or go back with: keywardctl hsm undrain " + a[0]}
			}
			c.say("%s is drained and has no jobs; keywardctl hsm undrain %s takes it back", a[0], a[0])
			return nil
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 30*time.Second, "how long to wait for the jobs that the member has, at most 1h")
	return cmd
}

func (c *cli) hsmUndrainCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "undrain NAME",
		Short:             "Take a drained member back into service",
		Example:           "  keywardctl hsm undrain hsm-a",
		Args:              args("NAME"),
		ValidArgsFunction: c.completeMembers,
		RunE: func(cmd *cobra.Command, a []string) error {
			m, err := askAdmin(cmd.Context(), c, 0, func(ctx context.Context, client *admin.Client) (*admin.Member, error) {
				return client.Undrain(ctx, a[0])
			})
			if err != nil {
				return err
			}
			if err := c.print(m, func() error { return nil }); err != nil {
				return err
			}
			c.say("%s is %s", m.Name, m.State)
			return nil
		},
	}
}

func (c *cli) hsmEnrollCmd() *cobra.Command {
	var files []string
	var dir string
	cmd := &cobra.Command{
		Use:   "enroll NAME",
		Short: "Put the master keys on a new member",
		Long: `Put the group's master keys on a member whose token has none: a new HSM, or one that was initialised again. The member must stand in the
configuration and be taken over (keywardctl reload). As many recovery shares are needed as keywardd init said; they are read from files, one share
each, and sent to the daemon on this machine only, which forgets them at once. Other members go on meanwhile.`,
		Example: "  keywardctl hsm enroll hsm-c --share /media/anna/share-1-of-3 --share /media/ben/share-3-of-3\n" +
			"  keywardctl hsm enroll hsm-c --shares-dir /media/usb/shares",
		Args:              args("NAME"),
		ValidArgsFunction: c.completeMembers,
		RunE: func(cmd *cobra.Command, a []string) error {
			switch {
			case dir == "" && len(files) == 0:
				return usagef("--share or --shares-dir is missing")
			case dir != "" && len(files) > 0:
				return usagef("--share and --shares-dir are both given; drop one")
			case dir != "":
				var err error
				if files, err = sharesIn(dir); err != nil {
					return err
				}
			}
			shares, err := readShares(files)
			defer func() {
				for _, share := range shares {
					clear(share)
				}
			}()
			if err != nil {
				return err
			}
			e, err := askAdmin(cmd.Context(), c, 0, func(ctx context.Context, client *admin.Client) (*admin.Enrolled, error) {
				return client.Enroll(ctx, a[0], shares)
			})
			if err != nil {
				return err
			}
			if err := c.print(e, func() error { return nil }); err != nil {
				return err
			}
			c.say("%s has the master keys of group %s, and serves soon: keywardctl hsm status", e.Member, e.Group)
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&files, "share", nil, "a file with one recovery share; once for each")
	cmd.Flags().StringVar(&dir, "shares-dir", "", "a directory of share files, as keywardd init made it")
	must(cmd.MarkFlagFilename("share"))
	must(cmd.MarkFlagDirname("shares-dir"))
	return cmd
}

// sharesIn lists the files of a directory that keywardd init wrote shares to.
func sharesIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "share-") {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no files share-…, as keywardd init makes them; name the files with --share", dir)
	}
	return files, nil
}

// maxShare is far more than a share has, in octets.
const maxShare = 1024

// readShares reads one share of each file. The caller wipes the shares, also with an error.
func readShares(files []string) (shares [][]byte, err error) {
	if len(files) > admin.MaxShares {
		return nil, usagef("%d shares are more than %d", len(files), admin.MaxShares)
	}
	for _, name := range files {
		share, err := readShare(name)
		if err != nil {
			return shares, err
		}
		shares = append(shares, share)
	}
	return shares, nil
}

// readShare reads a file of one share, without what stands around it.
func readShare(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := make([]byte, maxShare+1)
	n, err := io.ReadFull(f, buf)
	share := bytes.TrimSpace(buf[:n])
	switch {
	case err != nil && err != io.EOF && err != io.ErrUnexpectedEOF:
		err = fmt.Errorf("%s: %w", name, reason(err))
	case n > maxShare || len(share) == 0 || bytes.ContainsAny(share, " \t\r\n"):
		err = fmt.Errorf("%s is not the file of one share", name)
	default:
		return share, nil
	}
	clear(buf)
	return nil, err
}
