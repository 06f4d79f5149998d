package ctl

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/kms/kmswire"
)

func (c *cli) aliasCmd() *cobra.Command {
	return group("alias", "Name keys",
		"An alias is a second name of a key. Programs that use the alias follow it when it moves to another key.",
		`  keywardctl alias create app/db key-1a2b3c
  keywardctl alias move app/db key-4d5e6f
  keywardctl alias list`,
		c.aliasCreateCmd(), c.aliasMoveCmd(), c.aliasDeleteCmd(), c.aliasListCmd())
}

func (c *cli) aliasCreateCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "create ALIAS KEY",
		Short:   "Give a key a name",
		Example: "  keywardctl alias create app/db key-1a2b3c",
		Args:    args("ALIAS", "KEY"),

		ValidArgsFunction: c.completeSecond(c.completeKeys),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.setAlias(cmd, "CreateAlias", a[0], a[1])
		},
	}
}

func (c *cli) aliasMoveCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "move ALIAS KEY",
		Short:   "Point an alias at another key",
		Long:    "Point an alias at another key. What was encrypted under the old key still opens: a ciphertext names its key itself.",
		Example: "  keywardctl alias move app/db key-4d5e6f",
		Args:    args("ALIAS", "KEY"),

		ValidArgsFunction: c.completeKeys,
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.setAlias(cmd, "UpdateAlias", a[0], a[1])
		},
	}
}

func (c *cli) setAlias(cmd *cobra.Command, action, name, key string) error {
	ctx := cmd.Context()
	id, err := c.keyID(ctx, key)
	if err != nil {
		return err
	}
	name = aliasNamed(name)
	var req any = &kmswire.CreateAliasRequest{AliasName: name, KeyID: id}
	if action == "UpdateAlias" {
		req = &kmswire.UpdateAliasRequest{AliasName: name, KeyID: id}
	}
	var answer kmswire.EmptyResponse
	if err := c.call(ctx, action, req, &answer); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	c.say("%s is a name of %s", name, id)
	return c.print(answer, func() error { return nil })
}

func (c *cli) aliasDeleteCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "delete ALIAS",
		Short:   "Take a name away; the key stays",
		Example: "  keywardctl alias delete app/db --yes",
		Args:    args("ALIAS"),

		ValidArgsFunction: c.completeKeys,
		RunE: func(cmd *cobra.Command, a []string) error {
			name := aliasNamed(a[0])
			if err := c.confirm(cmd.Context(), fmt.Sprintf("Whatever uses the name %s stops working; the key stays. Delete the name?", name)); err != nil {
				return err
			}
			var answer kmswire.EmptyResponse
			if err := c.call(cmd.Context(), "DeleteAlias", &kmswire.DeleteAliasRequest{AliasName: name}, &answer); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			c.say("%s is gone; its key stays", name)
			return c.print(answer, func() error { return nil })
		},
	}
}

func (c *cli) aliasListCmd() *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the aliases, or those of one key",
		Example: "  keywardctl alias list\n  keywardctl alias list --key key-1a2b3c",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			action := "ListAliases"
			request := func(page kmswire.Page) any { return &kmswire.ListAliasesRequest{Page: page} }
			if key != "" {
				id, err := c.keyID(ctx, key)
				if err != nil {
					return err
				}
				action = "ListAliasesByKeyId"
				request = func(page kmswire.Page) any { return &kmswire.ListAliasesByKeyIDRequest{KeyID: id, Page: page} }
			}
			out := newList(c, []string{"ALIAS", "KEY"}, func(a kmswire.Alias) []string { return []string{a.AliasName, a.KeyID} })
			err := pages(func(page kmswire.Page) ([]kmswire.Alias, int, error) {
				var answer kmswire.ListAliasesResponse
				err := c.call(ctx, action, request(page), &answer)
				return answer.Aliases.Alias, answer.TotalCount, err
			}, out.row)
			if err != nil {
				return err
			}
			return out.end("no aliases; keywardctl alias create ALIAS KEY makes one")
		},
	}
	c.keyFlag(cmd, &key, "only the aliases of this key")
	return cmd
}
