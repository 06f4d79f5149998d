package ctl

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/daemon/admin"
)

func (c *cli) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Tell how keyward is",
		Long: `Tell how keyward is: who you are to it, the store, the PKCS#11 door, the instances and the HSM members.
The exit code is 0 when all is well, 7 when it serves but needs a person,
6 when no HSM member is up and there is no software instance whose keys go on.`,
		Example: "  keywardctl status\n  keywardctl status -o json | jq .state",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := askAdmin(cmd.Context(), c, 0, func(ctx context.Context, client *admin.Client) (*admin.Status, error) { return client.Status(ctx) })
			if err != nil {
				return err
			}
			if err := c.print(s, func() error { return c.statusTable(s) }); err != nil {
				return err
			}
			for _, problem := range s.Problems {
				c.say("problem: %s", problem)
			}
			switch s.State {
			case admin.OK:
				return nil
			case admin.Unavailable:
				return &codedError{code: exitUnavailable, err: errQuiet}
			case admin.Degraded:
				return &codedError{code: exitDegraded, err: errQuiet}
			}
			return fmt.Errorf("the daemon says it is %q, which this keywardctl does not know", s.State)
		},
	}
}

func (c *cli) statusTable(s *admin.Status) error {
	store := fmt.Sprintf("%d keys, %d commits", s.Store.Keys, s.Store.Sequence)
	if n := len(s.Store.Damaged); n > 0 {
		store += fmt.Sprintf(", %d damaged records", n)
	}
	if s.Store.Problem != "" {
		store += ": " + s.Store.Problem
	}
	up := 0
	for _, m := range s.Members {
		if m.State.Serves() {
			up++
		}
	}
	pairs := [][2]string{
		{"State", string(s.State)},
		{"Version", s.Version},
		{"Region", s.Region},
		{"You are", s.Principal},
		{"Running for", span(time.Duration(s.Uptime * float64(time.Second)))},
		{"Store", store},
		{"HSM members", fmt.Sprintf("%d of %d up", up, len(s.Members))},
	}
	if p := s.PKCS11; p != nil {
		pairs = append(pairs, [2]string{"PKCS#11", fmt.Sprintf("%s: %d programs, %d connections, %d sessions", p.Socket, p.Applications, p.Connections, p.Sessions)})
	}
	for _, i := range s.Instances {
		pairs = append(pairs, [2]string{"Instance", i.ID + " (" + i.Type + ")"})
	}
	for _, m := range s.Members {
		text := fmt.Sprintf("%s is %s for %s", m.Name, m.State, span(time.Since(m.Since)))
		if m.Reason != "" {
			text += ": " + m.Reason
		}
		pairs = append(pairs, [2]string{"Member", text})
	}
	return c.fields(pairs...)
}

// span gives a length of time to about two figures: what a person wants.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// rows prints a list that is already here.
func rows[T any](c *cli, items []T, columns []string, cells func(T) []string) error {
	out := newList(c, columns, cells)
	for _, item := range items {
		if err := out.row(item); err != nil {
			return err
		}
	}
	return out.end("none")
}
