package ctl

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/daemon/admin"
)

func (c *cli) accessKeyCmd() *cobra.Command {
	return group("access-key", "Manage what programs sign requests with",
		`An access key is an ID and a secret, with which a program on another machine signs its requests as a principal. The secret is
shown once, when the access key is made. A principal has at most two: one in use, and one to change over to.
`+principalForms,
		`  keywardctl access-key create user/alice --out alice.json
  keywardctl access-key list user/alice
  keywardctl access-key rotate KWAK1A2B3C`,
		c.accessKeyCreateCmd(), c.accessKeyListCmd(), c.accessKeyRotateCmd(), c.accessKeyStateCmd(true), c.accessKeyStateCmd(false), c.accessKeyDeleteCmd())
}

// completeAccessKeys offers the access keys of the principals of the caller's account.
func (c *cli) completeAccessKeys(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return c.offer(func(ctx context.Context) (ids []string, err error) {
		err = c.ownPrincipals(ctx, func(p admin.Principal) { ids = append(ids, p.AccessKeys...) })
		return ids, err
	})
}

// newAccessKey makes an access key and hands its secret over: in a file, or else on stdout.
func (c *cli) newAccessKey(ctx context.Context, file string, make func(context.Context, *admin.Client) (*admin.NewAccessKey, error)) error {
	var out *output
	if file != "" {
		var err error // before there is a secret that would be lost
		if out, err = c.createOutput(file, 0o600, false, false); err != nil {
			return hint(err, "--out names another file")
		}
		defer out.discard()
	}
	k, err := askAdmin(ctx, c, 0, make)
	if err != nil {
		return err
	}
	defer clear(k.Secret)
	if err := c.handOver(k, out); err != nil {
		return hint(fmt.Errorf("the secret of %s could not be written, and nothing can show it again: %w", k.ID, err), "keywardctl access-key delete %s, and make another", k.ID)
	}
	if k.Advice != "" {
		c.say("%s", k.Advice)
	}
	return nil
}

// handOver writes an access key to out, or to stdout if that is nil.
func (c *cli) handOver(k *admin.NewAccessKey, out *output) error {
	text, err := k.Text()
	if err != nil {
		return err
	}
	defer clear(text)
	if out != nil {
		if _, err := out.Write(text); err != nil {
			return err
		}
		if err := out.commit(); err != nil {
			return err
		}
		if out.name == stdio {
			return nil
		}
		c.say("the ID and the secret are in %s; the secret is nowhere else in the clear, and nothing can show it again", out.name)
		if c.format == "json" {
			return c.json(struct{ File, ID, Principal string }{out.name, k.ID, k.Principal})
		}
		return c.line(k.ID)
	}
	if c.format != "json" {
		clear(text)
		text = append(text[:0], "ID      "...)
		text = append(append(text, k.ID...), "\nSecret  "...)
		text = append(append(text, k.Secret...), '\n')
	}
	if _, err := c.stdout.Write(text); err != nil {
		return err
	}
	c.say("this is the only time that the secret is shown: keep it where only the program of %s can read it", k.Principal)
	return nil
}

func (c *cli) accessKeyCreateCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "create PRINCIPAL",
		Short: "Make an access key, and show its secret once",
		Long: `Make an access key for a principal, and print its ID and secret. The secret is shown this once, and kept sealed in the store.
--out writes both to a new file that only you can read, as JSON, and prints the ID alone.
` + principalForms,
		Example:           "  keywardctl access-key create user/alice --out alice.json",
		Args:              args("PRINCIPAL"),
		ValidArgsFunction: firstOnly(c.completePrincipals),
		RunE: func(cmd *cobra.Command, a []string) error {
			arn, err := c.principal(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			return c.newAccessKey(cmd.Context(), file, func(ctx context.Context, client *admin.Client) (*admin.NewAccessKey, error) {
				return client.CreateAccessKey(ctx, arn)
			})
		},
	}
	outFlag(cmd, &file)
	return cmd
}

func outFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "out", "", "write ID and secret to this new file, which only you can read")
	must(cmd.MarkFlagFilename("out"))
}

func (c *cli) accessKeyListCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "list PRINCIPAL",
		Short:             "List the access keys of a principal, without their secrets",
		Long:              "List the access keys of a principal, without their secrets.\n" + principalForms,
		Example:           "  keywardctl access-key list user/alice",
		Args:              args("PRINCIPAL"),
		ValidArgsFunction: firstOnly(c.completePrincipals),
		RunE: func(cmd *cobra.Command, a []string) error {
			arn, err := c.principal(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			all, err := askAdmin(cmd.Context(), c, 0, func(ctx context.Context, client *admin.Client) (*admin.AccessKeys, error) {
				return client.AccessKeys(ctx, arn)
			})
			if err != nil {
				return err
			}
			return rows(c, all.AccessKeys, []string{"ID", "STATE", "CREATED"}, func(k admin.AccessKey) []string {
				state := "disabled"
				if k.Active {
					state = "enabled"
				}
				return []string{k.ID, state, k.Created.UTC().Format(time.RFC3339)}
			})
		},
	}
}

func (c *cli) accessKeyRotateCmd() *cobra.Command {
	var file string
	var disable bool
	cmd := &cobra.Command{
		Use:   "rotate ID",
		Short: "Make another access key for the same principal, and show its secret once",
		Long: `Make another access key for the principal of the access key ID, and print its ID and secret. Both work then: give the new one to
every program that uses the old one, disable the old one, and delete it when nothing has failed.
With --disable-old the old one stops working in the same step in which the new one is kept; that is for a secret that was lost
to somebody else.`,
		Example:           "  keywardctl access-key rotate KWAK1A2B3C --out alice.json\n  keywardctl access-key rotate KWAK1A2B3C --disable-old --yes",
		Args:              args("ID"),
		ValidArgsFunction: firstOnly(c.completeAccessKeys),
		RunE: func(cmd *cobra.Command, a []string) error {
			if disable {
				if err := c.confirm(cmd.Context(), stops(a[0])); err != nil {
					return err
				}
			}
			return c.newAccessKey(cmd.Context(), file, func(ctx context.Context, client *admin.Client) (*admin.NewAccessKey, error) {
				return client.RotateAccessKey(ctx, a[0], disable)
			})
		},
	}
	outFlag(cmd, &file)
	cmd.Flags().BoolVar(&disable, "disable-old", false, "disable the old one in the same step")
	return cmd
}

func stops(id string) string {
	return fmt.Sprintf("Whatever signs its requests with %s stops working until it is enabled again. Disable it?", id)
}

func (c *cli) accessKeyStateCmd(active bool) *cobra.Command {
	verb, short := "disable", "Refuse requests that are signed with an access key"
	if active {
		verb, short = "enable", "Let requests be signed with an access key again"
	}
	return &cobra.Command{
		Use:               verb + " ID",
		Short:             short,
		Example:           "  keywardctl access-key " + verb + " KWAK1A2B3C",
		Args:              args("ID"),
		ValidArgsFunction: firstOnly(c.completeAccessKeys),
		RunE: func(cmd *cobra.Command, a []string) error {
			if !active {
				if err := c.confirm(cmd.Context(), stops(a[0])); err != nil {
					return err
				}
			}
			return c.adminDone(cmd.Context(), fmt.Sprintf("%s is %sd", a[0], verb), func(ctx context.Context, client *admin.Client) error {
				return client.SetAccessKeyActive(ctx, a[0], active)
			})
		},
	}
}

func (c *cli) accessKeyDeleteCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "delete ID",
		Short:             "Remove an access key for good",
		Example:           "  keywardctl access-key delete KWAK1A2B3C --yes",
		Args:              args("ID"),
		ValidArgsFunction: firstOnly(c.completeAccessKeys),
		RunE: func(cmd *cobra.Command, a []string) error {
			if err := c.confirm(cmd.Context(), fmt.Sprintf("Whatever signs its requests with %s stops working for good. Remove it?", a[0])); err != nil {
				return err
			}
			return c.adminDone(cmd.Context(), fmt.Sprintf("%s is removed", a[0]), func(ctx context.Context, client *admin.Client) error {
				return client.DeleteAccessKey(ctx, a[0])
			})
		},
	}
}
