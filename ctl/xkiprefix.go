package ctl

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/daemon/admin"
)

func (c *cli) xkiPrefixCmd() *cobra.Command {
	return group("prefix", "Manage the prefixes under which keys are served",
		`A prefix is a path of URLs, and all that goes with it: the protocol, the keys that can be used, each under a name of its own, the
credentials that requests are signed with, how many a second, and rules that deny some.`,
		`  keywardctl xki prefix create ks1 --key orders=alias/orders
  keywardctl xki prefix update ks1 --add-key more=alias/more --per-second 1800
  keywardctl xki prefix list`,
		c.prefixCreateCmd(), c.prefixListCmd(), c.prefixDescribeCmd(), c.prefixUpdateCmd(), c.prefixDeleteCmd())
}

func (c *cli) prefixes(ctx context.Context) ([]admin.XKIPrefix, error) {
	all, err := askAdmin(ctx, c, 0, func(ctx context.Context, client *admin.Client) (*admin.XKIPrefixes, error) {
		return client.XKIPrefixes(ctx)
	})
	if err != nil {
		return nil, err
	}
	return all.Prefixes, nil
}

func (c *cli) prefix(ctx context.Context, name string) (*admin.XKIPrefix, error) {
	all, err := c.prefixes(ctx)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Name == name {
			return &all[i], nil
		}
	}
	return nil, &codedError{code: exitNotFound, err: fmt.Errorf("there is no prefix %q that you may manage", name), next: "keywardctl xki prefix list shows them"}
}

func (c *cli) completePrefixes(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return c.offer(func(ctx context.Context) (names []string, err error) {
		all, err := c.prefixes(ctx)
		for _, p := range all {
			names = append(names, p.Name)
		}
		return names, err
	})
}

func (c *cli) prefixCreateCmd() *cobra.Command {
	var req admin.XKIPrefixRequest
	var keys []string
	var path string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Serve keys under a new prefix",
		Long: `Serve keys under a new prefix. --key gives a key the name that the other side knows it by, its External Key ID, of 1 to 128 letters,
digits, hyphens, dots and underscores: a key of 256 bits for ENCRYPT/DECRYPT, in an instance. Other keys can't be used, whatever
the principal may that uses them.
The dialect is xks-v1, AWS's External Key Store proxy API, or xki-v1, Alibaba Cloud's, which is experimental: nobody published it.`,
		Example: `  keywardctl xki prefix create ks1 --key orders=alias/orders
  keywardctl xki prefix create aws --key 1=alias/one --key 2=alias/two --region eu-west-1 --per-second 1800`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, a []string) error {
			req.Name = a[0]
			if cmd.Flags().Changed("prefix") {
				req.Prefix = &path
			}
			var err error
			if req.Keys, err = pairs("key", keys); err != nil {
				return err
			}
			if req.Principal != "" {
				if req.Principal, err = c.principal(cmd.Context(), req.Principal); err != nil {
					return err
				}
			}
			p, err := askAdmin(cmd.Context(), c, 0, func(ctx context.Context, client *admin.Client) (*admin.XKIPrefix, error) {
				return client.CreateXKIPrefix(ctx, &req)
			})
			if err != nil {
				return err
			}
			c.say("served at %s, keys: %d", p.Path, len(p.Keys))
			if p.Warning != "" {
				c.say("%s", p.Warning)
			}
			c.say("next: keywardctl xki credential create %s", p.Name)
			return c.print(p, func() error { return c.line(p.Name) })
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&keys, "key", nil, "EXTERNAL-KEY-ID=KEY: a key that can be used, and what the other side calls it; may be repeated")
	f.StringVar(&req.Dialect, "dialect", "xks-v1", "the protocol: xks-v1 or xki-v1")
	f.StringVar(&path, "prefix", "", "what the path of URLs begins with; if it is not given, / and the name")
	f.StringVar(&req.Region, "region", "", "the region that signatures must be for; if it is not given, any")
	f.IntVar(&req.PerSecond, "per-second", 0, "requests a second; 0 is no limit")
	f.StringVar(&req.Principal, "principal", "", "as whom the keys are used, for policies and the audit; if it is not given, the root of the account")
	f.StringVar(&req.Account, "account", "", "whose keys they are; if it is not given, your own")
	choices(cmd, "dialect", "xks-v1", "xki-v1")
	return cmd
}

func (c *cli) prefixListCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the prefixes",
		Example: "  keywardctl xki prefix list",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.prefixes(cmd.Context())
			if err != nil {
				return err
			}
			return rows(c, all, []string{"NAME", "DIALECT", "PATH", "KEYS", "CREDENTIALS", "PER SECOND", "RULES", "ACCOUNT"}, func(p admin.XKIPrefix) []string {
				return []string{p.Name, p.Dialect, p.Path, strconv.Itoa(len(p.Keys)), strconv.Itoa(len(p.Credentials)), orNone(p.PerSecond), strconv.Itoa(len(p.Rules)), p.Account}
			})
		},
	}
}

func orNone(n int) string {
	if n == 0 {
		return "no limit"
	}
	return strconv.Itoa(n)
}

func (c *cli) prefixDescribeCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "describe NAME",
		Short:             "Show a prefix: its keys, credentials and rules",
		Example:           "  keywardctl xki prefix describe ks1",
		Args:              args("NAME"),
		ValidArgsFunction: firstOnly(c.completePrefixes),
		RunE: func(cmd *cobra.Command, a []string) error {
			p, err := c.prefix(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			return c.print(p, func() error {
				fields := [][2]string{{"Name", p.Name}, {"Dialect", p.Dialect}, {"Path", p.Path}, {"Region", cmp.Or(p.Region, "any")}, {"Account", p.Account}, {"Used as", p.Principal},
					{"Requests a second", orNone(p.PerSecond)}, {"Created", p.Created.UTC().Format(time.RFC3339)}, {"Warning", p.Warning}}
				for _, id := range slices.Sorted(maps.Keys(p.Keys)) {
					fields = append(fields, [2]string{"Key", id + " is " + p.Keys[id]})
				}
				for _, k := range p.Credentials {
					fields = append(fields, [2]string{"Credential", k.ID + " of " + k.Created.UTC().Format(time.RFC3339)})
				}
				for _, rule := range p.Rules {
					fields = append(fields, [2]string{"Rule", ruleText(rule)})
				}
				return c.fields(fields...)
			})
		},
	}
}

// ruleText words a rule.
func ruleText(r admin.XKIRule) string {
	text := r.Name + ": denies " + cmp.Or(strings.Join(r.Operations, ", "), "all operations")
	if len(r.Keys) > 0 {
		text += " with " + strings.Join(r.Keys, ", ")
	}
	for i, name := range slices.Sorted(maps.Keys(r.Unless)) {
		if i == 0 {
			text += ", unless "
		} else {
			text += " and "
		}
		text += name + " is " + strings.Join(r.Unless[name], " or ")
	}
	return text
}

func (c *cli) prefixUpdateCmd() *cobra.Command {
	var u admin.XKIPrefixUpdate
	var add []string
	var perSecond int
	var rules string
	cmd := &cobra.Command{
		Use:   "update NAME",
		Short: "Change the keys, the quota or the rules of a prefix",
		Long: `Change the keys, the quota or the rules of a prefix. It is in force from the next request on, and none is dropped.
--rules is a file with a JSON array of rules, in place of all that there were; [] takes them away. A rule denies requests of its
operations (metadata, encrypt, decrypt, random) with its keys, all if none are given, unless each of the members that it names in
"unless" is what it says, or one of a list; * at the end of a value stands for any rest. Members: awsPrincipalArn, awsSourceVpc, awsSourceVpce, kmsKeyArn,
kmsOperation, kmsViaService, sourceIp, kmsInstanceId. Rules are not held against health checks.`,
		Example: `  keywardctl xki prefix update ks1 --add-key more=alias/more --remove-key orders
  echo '[{"name": "ours only", "unless": {"awsPrincipalArn": ["arn:aws:iam::123456789012:*", "arn:aws:sts::123456789012:*"]}}]' | keywardctl xki prefix update ks1 --rules -`,
		Args:              args("NAME"),
		ValidArgsFunction: firstOnly(c.completePrefixes),
		RunE: func(cmd *cobra.Command, a []string) error {
			var err error
			if u.AddKeys, err = pairs("add-key", add); err != nil {
				return err
			}
			if cmd.Flags().Changed("per-second") {
				u.PerSecond = &perSecond
			}
			if rules != "" {
				if u.Rules, err = c.readRules(cmd.Context(), rules); err != nil {
					return err
				}
			}
			if u.AddKeys == nil && u.RemoveKeys == nil && u.PerSecond == nil && u.Rules == nil {
				return usagef("nothing to change: give --add-key, --remove-key, --per-second or --rules")
			}
			if len(u.RemoveKeys) > 0 {
				if err := c.confirm(cmd.Context(), fmt.Sprintf("Whatever uses %s through %s can't decrypt any more. Remove it?", strings.Join(u.RemoveKeys, ", "), a[0])); err != nil {
					return err
				}
			}
			p, err := askAdmin(cmd.Context(), c, 0, func(ctx context.Context, client *admin.Client) (*admin.XKIPrefix, error) {
				return client.UpdateXKIPrefix(ctx, a[0], &u)
			})
			if err != nil {
				return err
			}
			c.say("%s is changed, keys: %d, rules: %d, requests a second: %s", p.Name, len(p.Keys), len(p.Rules), orNone(p.PerSecond))
			return c.print(p, func() error { return nil })
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&add, "add-key", nil, "EXTERNAL-KEY-ID=KEY: one more key that can be used; may be repeated")
	f.StringArrayVar(&u.RemoveKeys, "remove-key", nil, "an External Key ID that can't be used any more; may be repeated")
	f.IntVar(&perSecond, "per-second", 0, "requests a second; 0 is no limit")
	f.StringVar(&rules, "rules", "", "file with the rules; - for stdin")
	must(cmd.MarkFlagFilename("rules"))
	return cmd
}

func (c *cli) readRules(ctx context.Context, file string) (*[]admin.XKIRule, error) {
	in, err := c.openInput(ctx, file)
	if err != nil {
		return nil, err
	}
	defer in.close()
	text, err := readSmall(in, admin.MaxXKIBody)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields() // a word that is not known would be a rule that does not hold
	rules := []admin.XKIRule{}
	if err := d.Decode(&rules); err != nil {
		return nil, fmt.Errorf(`%s is not a JSON array of rules like [{"name": "…", "operations": ["decrypt"], "unless": {"awsPrincipalArn": "…"}}]: %w`, in, err)
	}
	return &rules, nil
}

func (c *cli) prefixDeleteCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "delete NAME",
		Short:             "Serve nothing under a prefix any more, and remove its credentials; keys stay",
		Example:           "  keywardctl xki prefix delete ks1 --yes",
		Args:              args("NAME"),
		ValidArgsFunction: firstOnly(c.completePrefixes),
		RunE: func(cmd *cobra.Command, a []string) error {
			p, err := c.prefix(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			if err := c.confirm(cmd.Context(), fmt.Sprintf("Whatever uses keys of %s can't decrypt any more (there are %d). Delete it?", p.Name, len(p.Keys))); err != nil {
				return err
			}
			return c.adminDone(cmd.Context(), a[0]+" is deleted; its keys stay", func(ctx context.Context, client *admin.Client) error {
				return client.DeleteXKIPrefix(ctx, a[0])
			})
		},
	}
}
