package ctl

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/daemon/admin"
)

func (c *cli) accountCmd() *cobra.Command {
	list := &cobra.Command{
		Use:     "list",
		Short:   "List the accounts whose principals you may manage",
		Example: "  keywardctl account list",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := askAdmin(cmd.Context(), c, 0, func(ctx context.Context, client *admin.Client) (*admin.Accounts, error) { return client.Accounts(ctx) })
			if err != nil {
				return err
			}
			out := newList(c, []string{"ACCOUNT"}, func(account string) []string { return []string{account} })
			for _, account := range all.Accounts {
				if err := out.row(account); err != nil {
					return err
				}
			}
			return out.end("none: only the root of an account manages principals")
		},
	}
	return group("account", "Show the accounts",
		"An account owns keys, and has a root, users and roles. Accounts are made in the daemon's configuration.",
		"  keywardctl account list", list)
}
