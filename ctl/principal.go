package ctl

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/kms/policy"
)

// principalForms is what a PRINCIPAL can be, for help texts.
const principalForms = `A PRINCIPAL is user/NAME, role/NAME or root of your own account, or a whole ARN (acs:ram::ACCOUNT:user/NAME).`

func (c *cli) principalCmd() *cobra.Command {
	return group("principal", "Manage users and roles",
		`A principal is who keyward knows a caller as: a user or a role of an account, or its root. Which Unix user, group or unit is
which principal, [[peer]] rows of the daemon's configuration say, with or without a record here; a record is for what is
attached to it: identity policies and access keys.
`+principalForms,
		`  keywardctl principal create user/alice --description "Alice, operations"
  keywardctl policy attach user/alice --name make-keys --preset create-keys
  keywardctl principal list`,
		c.principalListCmd(), c.principalShowCmd(), c.principalCreateCmd(), c.principalDeleteCmd(), c.principalPINCmd())
}

// principalNames turns the names of principals into ARNs, and finds out about the caller's account when one is short.
type principalNames struct {
	c   *cli
	own string // the caller's account, once it was needed
}

// account gives the caller's account.
func (n *principalNames) account(ctx context.Context) (string, error) {
	if n.own != "" {
		return n.own, nil
	}
	s, err := askAdmin(ctx, n.c, 0, func(ctx context.Context, client *admin.Client) (*admin.Status, error) { return client.Status(ctx) })
	if err != nil {
		return "", err
	}
	me, err := policy.ParsePrincipal(s.Principal)
	if err != nil {
		return "", fmt.Errorf("the daemon says that you are %q, which is no principal", s.Principal)
	}
	n.own = me.Account()
	return n.own, nil
}

// arn gives the ARN of one.
func (n *principalNames) arn(ctx context.Context, text string) (string, error) {
	if !strings.HasPrefix(text, "acs:") {
		if kind, _, _ := strings.Cut(text, "/"); kind != "user" && kind != "role" && text != "root" {
			return "", usagef("%q is no principal; write user/NAME, role/NAME, root, or a whole ARN such as acs:ram::ACCOUNT:user/NAME", text)
		}
		account, err := n.account(ctx)
		if err != nil {
			return "", err
		}
		text = "acs:ram::" + account + ":" + text
	}
	if _, err := policy.ParsePrincipal(text); err != nil {
		return "", usagef("%s", strings.TrimPrefix(err.Error(), "policy: Principal: "))
	}
	return text, nil
}

// arns gives the ARNs of several.
func (n *principalNames) arns(ctx context.Context, texts []string) ([]string, error) {
	var all []string
	for _, text := range texts {
		arn, err := n.arn(ctx, text)
		if err != nil {
			return nil, err
		}
		all = append(all, arn)
	}
	return all, nil
}

// principal gives the ARN of a principal that is an argument.
func (c *cli) principal(ctx context.Context, text string) (string, error) {
	return (&principalNames{c: c}).arn(ctx, text)
}

// principalPages walks over the principals of an account.
func (c *cli) principalPages(ctx context.Context, account string, visit func(admin.Principal) error) error {
	for offset := 0; ; {
		page, err := askAdmin(ctx, c, 0, func(ctx context.Context, client *admin.Client) (*admin.Principals, error) {
			return client.Principals(ctx, account, offset, admin.MaxPrincipalsPage)
		})
		if err != nil {
			return err
		}
		for _, p := range page.Principals {
			if err := visit(p); err != nil {
				return err
			}
		}
		if offset += len(page.Principals); len(page.Principals) == 0 || offset >= page.Total {
			return nil
		}
	}
}

// completePrincipals offers the principals of the caller's account, in the short form.
func (c *cli) completePrincipals(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return c.offer(func(ctx context.Context) (names []string, err error) {
		err = c.ownPrincipals(ctx, func(p admin.Principal) {
			names = append(names, strings.TrimPrefix(p.ARN, "acs:ram::"+p.Account+":"))
		})
		return names, err
	})
}

// ownPrincipals visits the first page of the principals of the caller's account, for completions.
func (c *cli) ownPrincipals(ctx context.Context, visit func(admin.Principal)) error {
	client := c.admin()
	defer client.Close()
	page, err := client.Principals(ctx, "", 0, admin.MaxPrincipalsPage)
	if err != nil {
		return err
	}
	for _, p := range page.Principals {
		visit(p)
	}
	return nil
}

// firstOnly completes the first argument only.
func firstOnly(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(given) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, given, begun)
	}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

func (c *cli) principalListCmd() *cobra.Command {
	var account string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the principals of an account",
		Long: `List the principals of your account, or of another: first those that were created, then those that only the configuration names.
MAPPED says whether a [[peer]] row of the configuration makes some Unix user, group or unit this principal.`,
		Example: "  keywardctl principal list\n  keywardctl principal list --account 1000000000000002 -o json",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := newList(c, []string{"PRINCIPAL", "RECORDED", "MAPPED", "POLICIES", "ACCESS KEYS", "DESCRIPTION"}, func(p admin.Principal) []string {
				return []string{p.ARN, yes(p.Recorded), yes(p.Mapped), strings.Join(p.Policies, " "), strings.Join(p.AccessKeys, " "), p.Description}
			})
			if err := c.principalPages(cmd.Context(), account, out.row); err != nil {
				return err
			}
			return out.end("no principals; keywardctl principal create makes one")
		},
	}
	cmd.Flags().StringVar(&account, "account", "", "of this account; your own if not given")
	must(cmd.RegisterFlagCompletionFunc("account", c.completeAccounts))
	return cmd
}

// completeAccounts offers the accounts that the caller may manage the principals of.
func (c *cli) completeAccounts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return c.offer(func(ctx context.Context) ([]string, error) {
		client := c.admin()
		defer client.Close()
		all, err := client.Accounts(ctx)
		if err != nil {
			return nil, err
		}
		return all.Accounts, nil
	})
}

func (c *cli) principalShowCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "show PRINCIPAL",
		Short:             "Show one principal: what is attached to it",
		Long:              "Show one principal: what is attached to it.\n" + principalForms,
		Example:           "  keywardctl principal show user/alice",
		Args:              args("PRINCIPAL"),
		ValidArgsFunction: firstOnly(c.completePrincipals),
		RunE: func(cmd *cobra.Command, a []string) error {
			arn, err := c.principal(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			p, err := askAdmin(cmd.Context(), c, 0, func(ctx context.Context, client *admin.Client) (*admin.Principal, error) {
				return client.Principal(ctx, arn)
			})
			if err != nil {
				return err
			}
			if !p.Recorded && !p.Mapped {
				return &codedError{code: exitNotFound, err: fmt.Errorf("there is no principal %s", arn), next: "keywardctl principal list shows those that there are"}
			}
			return c.print(p, func() error {
				created := ""
				if p.Recorded {
					created = p.Created.UTC().Format(time.RFC3339)
				}
				mapped := "no [[peer]] row names it"
				if p.Mapped {
					mapped = "by a [[peer]] row, or as the Unix user root"
				}
				return c.fields(
					[2]string{"Principal", p.ARN},
					[2]string{"Description", p.Description},
					[2]string{"Created", created},
					[2]string{"Known here", mapped},
					[2]string{"Identity policies", strings.Join(p.Policies, " ")},
					[2]string{"Access keys", strings.Join(p.AccessKeys, " ")},
					[2]string{"PIN", pinState(p.PIN)},
				)
			})
		},
	}
}

func (c *cli) principalCreateCmd() *cobra.Command {
	var description string
	cmd := &cobra.Command{
		Use:   "create PRINCIPAL",
		Short: "Make a user or role",
		Long: `Make a user or role, so that identity policies and access keys can be attached to it. It may do nothing yet, but what key
policies say. ` + principalForms,
		Example: `  keywardctl principal create user/alice --description "Alice, operations"
  keywardctl principal create role/backup`,
		Args: args("PRINCIPAL"),
		RunE: func(cmd *cobra.Command, a []string) error {
			arn, err := c.principal(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			p, err := askAdmin(cmd.Context(), c, 0, func(ctx context.Context, client *admin.Client) (*admin.Principal, error) {
				return client.CreatePrincipal(ctx, &admin.PrincipalRequest{ARN: arn, Description: description})
			})
			if err != nil {
				return err
			}
			if err := c.print(p, func() error { return c.line(p.ARN) }); err != nil {
				return err
			}
			c.say("made %s", p.ARN)
			if !p.Mapped {
				c.say("next: an access key for programs elsewhere: keywardctl access-key create %s", a[0])
				c.say("      or a [[peer]] row in keyward.toml that says which Unix user it is, and keywardctl reload")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&description, "description", "", "who or what it is")
	return cmd
}

func (c *cli) principalDeleteCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "delete PRINCIPAL",
		Short: "Remove a user or role, with its identity policies and access keys",
		Long: `Remove a user or role, with its identity policies and access keys. A [[peer]] row that names it goes on doing so, and key
policies that name it too: take it out of them as well.
` + principalForms,
		Example:           "  keywardctl principal delete user/alice --yes",
		Args:              args("PRINCIPAL"),
		ValidArgsFunction: firstOnly(c.completePrincipals),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx := cmd.Context()
			arn, err := c.principal(ctx, a[0])
			if err != nil {
				return err
			}
			p, err := askAdmin(ctx, c, 0, func(ctx context.Context, client *admin.Client) (*admin.Principal, error) {
				return client.Principal(ctx, arn)
			})
			if err != nil {
				return err
			}
			if p.Recorded {
				with := "no identity policies and no access keys"
				if len(p.Policies)+len(p.AccessKeys) > 0 {
					with = fmt.Sprintf("identity policies (%d) and access keys (%d), which go with it; what signs requests with them stops working", len(p.Policies), len(p.AccessKeys))
				}
				if err := c.confirm(ctx, fmt.Sprintf("%s has %s. Remove it?", arn, with)); err != nil {
					return err
				}
			}
			return c.adminDone(ctx, fmt.Sprintf("%s is removed", arn), func(ctx context.Context, client *admin.Client) error {
				return client.DeletePrincipal(ctx, arn)
			})
		},
	}
}

// adminDone makes a call of the administration that answers nothing, and tells what was done.
func (c *cli) adminDone(ctx context.Context, told string, do func(context.Context, *admin.Client) error) error {
	_, err := askAdmin(ctx, c, 0, func(ctx context.Context, client *admin.Client) (struct{}, error) { return struct{}{}, do(ctx, client) })
	if err != nil {
		return err
	}
	c.say("%s", told)
	return c.print(struct{}{}, func() error { return nil })
}
