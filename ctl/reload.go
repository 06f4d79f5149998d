package ctl

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/daemon/admin"
)

func (c *cli) reloadCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Have the daemon read its configuration again",
		Long: `Have the daemon read its configuration again, and wait until it has. All of it is taken over or, when there is a mistake, nothing: then the
daemon goes on with what it has, and the command says what is wrong. HSM members that are down are tried again.`,
		Example: "  keywardctl reload",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := askAdmin(cmd.Context(), c, 0, func(ctx context.Context, client *admin.Client) (*admin.Reloaded, error) { return client.Reload(ctx) })
			if err != nil {
				return err
			}
			if err := c.print(r, func() error { return c.line("reloaded") }); err != nil {
				return err
			}
			if len(r.NeedRestart) > 0 {
				c.say("changed too, and waiting for a restart of the daemon: %s", strings.Join(r.NeedRestart, ", "))
			}
			return nil
		},
	}
}

func (c *cli) metricsCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "Print the figures that Prometheus reads",
		Long: `Print the figures that Prometheus reads, in its text format. Prometheus itself can't read from a Unix socket: let a timer write them to a file
for node_exporter's textfile collector, or put a proxy in front of GET /metrics.`,
		Example: "  keywardctl metrics\n  keywardctl metrics > /var/lib/node_exporter/keyward.prom.new",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := askAdmin(cmd.Context(), c, 0, func(ctx context.Context, client *admin.Client) ([]byte, error) { return client.Metrics(ctx) })
			if err != nil {
				return err
			}
			_, err = c.stdout.Write(text)
			return err
		},
	}
}
