package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/policy"
)

func (c *cli) policyCmd() *cobra.Command {
	return group("policy", "Say who may do what",
		`A key policy belongs to a key, and says who may do what with it. An identity policy belongs to a principal, and says what it may
do with which keys. What either denies is denied. For principals of the account that owns the key it is enough that one of the
two allows; those of another account need both. keywardctl policy simulate tells how a call would be decided, and why.
`+principalForms,
		`  keywardctl policy set alias/app/db --administrators role/ops --users user/app --exclusive
  keywardctl policy attach user/alice --name make-keys --preset create-keys
  keywardctl policy simulate --principal user/app --action kms:Encrypt --key alias/app/db`,
		c.policyShowCmd(), c.policySetCmd(), c.policyResetCmd(), c.policyAttachCmd(), c.policyDetachCmd(), c.policyListCmd(), c.policySimulateCmd())
}

// policyFlags are the flags that say what the policy of a key shall be.
type policyFlags struct {
	file                                         string
	administrators, users, signers, otherAccount []string
	exclusive                                    bool
}

func (f *policyFlags) add(c *cli, cmd *cobra.Command, fileFlag string) {
	flags := cmd.Flags()
	flags.StringVar(&f.file, fileFlag, "", "the policy as a JSON document; - reads stdin")
	flags.StringSliceVar(&f.administrators, "administrators", nil, "principals who manage the key and can't use it")
	flags.StringSliceVar(&f.users, "users", nil, "principals who encrypt and decrypt with it")
	flags.StringSliceVar(&f.signers, "signers", nil, "principals who sign and verify with it")
	flags.StringSliceVar(&f.otherAccount, "other-account-users", nil, "principals of other accounts who encrypt and decrypt with it; whole ARNs")
	flags.BoolVar(&f.exclusive, "exclusive", false, "besides roots, only who has a role may do anything")
	must(cmd.MarkFlagFilename(fileFlag, "json"))
	for _, name := range []string{"administrators", "users", "signers"} {
		must(cmd.RegisterFlagCompletionFunc(name, c.completePrincipals))
	}
}

// roleFlags names the flags of the roles as policy.Build does.
var roleFlags = strings.NewReplacer("Administrators[", "--administrators[", "Users[", "--users[", "Signers[", "--signers[", "OtherAccountUsers[", "--other-account-users[")

func (f *policyFlags) hasRoles() bool {
	return len(f.administrators)+len(f.users)+len(f.signers)+len(f.otherAccount) > 0 || f.exclusive
}

// check refuses flags that contradict one another.
func (f *policyFlags) check(fileFlag string) error {
	if f.file != "" && f.hasRoles() {
		return usagef("--%s is the whole policy, and roles make one; give either", fileFlag)
	}
	return nil
}

// document reads the policy that a file has, nil if there is none. Nobody is asked for that.
func (f *policyFlags) document(ctx context.Context, c *cli, fileFlag string) ([]byte, error) {
	if err := f.check(fileFlag); err != nil || f.file == "" {
		return nil, err
	}
	return c.readPolicy(ctx, f.file, policy.LoadKey)
}

// build makes the policy of a key of owner out of the roles.
func (f *policyFlags) build(ctx context.Context, c *cli, owner policy.KeyOwner) ([]byte, error) {
	names := &principalNames{c: c}
	roles := policy.Roles{Exclusive: f.exclusive}
	for _, role := range []struct {
		given []string
		arns  *[]string
	}{{f.administrators, &roles.Administrators}, {f.users, &roles.Users}, {f.signers, &roles.Signers}, {f.otherAccount, &roles.OtherAccountUsers}} {
		var err error
		if *role.arns, err = names.arns(ctx, role.given); err != nil {
			return nil, err
		}
	}
	text, err := policy.Build(owner, roles)
	if e, ok := errors.AsType[*policy.Error](err); ok {
		return nil, usagef("%s: %s", roleFlags.Replace(e.Path), strings.NewReplacer("one of Users", "one of --users", "one of OtherAccountUsers", "one of --other-account-users").Replace(e.Reason))
	}
	return text, err
}

// warn tells of roles that add nothing.
func (f *policyFlags) warn(c *cli) {
	if !f.exclusive && len(f.administrators)+len(f.users)+len(f.signers) > 0 {
		c.say("note: the default statement stays in the policy, so every principal of the account may still do everything with the key and these roles add nothing; --exclusive takes it out")
	}
}

// readPolicy reads a policy document, and sees that it is one before anybody is asked.
func (c *cli) readPolicy(ctx context.Context, file string, parse func([]byte) (*policy.Document, error)) ([]byte, error) {
	in, err := c.openInput(ctx, file)
	if err != nil {
		return nil, err
	}
	defer in.close()
	text, err := readSmall(in, policy.MaxSize)
	if err != nil {
		return nil, err
	}
	if _, err := parse(text); err != nil {
		return nil, fmt.Errorf("%s: %s", in, strings.TrimPrefix(err.Error(), "policy: "))
	}
	return text, nil
}

func (c *cli) policyShowCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "show KEY",
		Short:             "Print the policy of a key",
		Long:              "Print the policy of a key, as a document that policy set takes. Of a key that was given none it is the default policy.",
		Example:           "  keywardctl policy show alias/app/db > db.json",
		Args:              args("KEY"),
		ValidArgsFunction: firstOnly(c.completeKeys),
		RunE: func(cmd *cobra.Command, a []string) error {
			id, err := c.keyID(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			var answer kmswire.GetKeyPolicyResponse
			if err := c.call(cmd.Context(), "GetKeyPolicy", &kmswire.GetKeyPolicyRequest{KeyID: id}, &answer); err != nil {
				return fmt.Errorf("%s: %w", a[0], err)
			}
			return c.print(answer, func() error {
				var pretty bytes.Buffer
				if err := json.Indent(&pretty, []byte(answer.Policy), "", "  "); err != nil {
					return fmt.Errorf("the policy is no JSON: %w", err)
				}
				return c.line(strings.TrimSpace(pretty.String()))
			})
		},
	}
}

func (c *cli) policySetCmd() *cobra.Command {
	var f policyFlags
	cmd := &cobra.Command{
		Use:   "set KEY",
		Short: "Replace the policy of a key",
		Long: `Replace the policy of a key: by a document, or by one that is made of roles. Administrators manage the key and can't use it; users
encrypt and decrypt; signers sign and verify; users of other accounts encrypt and decrypt if their own account lets them too.
The policy counts from the next call on.

The root of the account that owns the key can always show and replace the policy, whatever it says.
` + principalForms + ` Several are separated by commas.`,
		Example: `  keywardctl policy set alias/app/db --administrators role/ops --users user/app,user/batch --exclusive
  keywardctl policy set alias/app/db --file db.json
  keywardctl policy simulate --principal user/app --action kms:Encrypt --key alias/app/db --file db.json`,
		Args:              args("KEY"),
		ValidArgsFunction: firstOnly(c.completeKeys),
		RunE: func(cmd *cobra.Command, a []string) error {
			if f.file == "" && !f.hasRoles() {
				return usagef("--file or a role is missing; keywardctl policy reset KEY goes back to the default policy")
			}
			document, err := f.document(cmd.Context(), c, "file")
			if err != nil {
				return err
			}
			return c.setPolicy(cmd.Context(), a[0], func(ctx context.Context, id string) ([]byte, error) {
				if document != nil {
					return document, nil
				}
				owner, err := c.ownerOfKey(ctx, id)
				if err != nil {
					return nil, err
				}
				return f.build(ctx, c, owner)
			}, func() {
				c.say("%s has a new policy", a[0])
				f.warn(c)
			})
		},
	}
	f.add(c, cmd, "file")
	return cmd
}

// setPolicy gives a key the policy that text makes, and tells.
func (c *cli) setPolicy(ctx context.Context, key string, text func(ctx context.Context, id string) ([]byte, error), tell func()) error {
	id, err := c.keyID(ctx, key)
	if err != nil {
		return err
	}
	document, err := text(ctx, id)
	if err != nil {
		return err
	}
	var answer kmswire.EmptyResponse
	if err := c.call(ctx, "SetKeyPolicy", &kmswire.SetKeyPolicyRequest{KeyID: id, Policy: document}, &answer); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	tell()
	return c.print(answer, func() error { return nil })
}

// ownerOfKey asks whose a key is. The root of its account may ask whatever the key's policy says, so that it can replace that.
func (c *cli) ownerOfKey(ctx context.Context, id string) (policy.KeyOwner, error) {
	var answer kmswire.GetKeyPolicyResponse
	if err := c.call(ctx, "GetKeyPolicy", &kmswire.GetKeyPolicyRequest{KeyID: id}, &answer); err != nil {
		return policy.KeyOwner{}, fmt.Errorf("%s: %w", id, err)
	}
	owners := answer.Owners.Account
	if len(owners) == 0 {
		return policy.KeyOwner{}, fmt.Errorf("the daemon does not say who owns %s; is it an older one?", id)
	}
	return policy.KeyOwner{Account: owners[0], CoOwners: owners[1:]}, nil
}

func (c *cli) policyResetCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "reset KEY",
		Short: "Give a key the default policy again",
		Long: `Give a key the default policy again: every principal of the account that owns it may do everything with it. A key in a shared instance
is owned by the instance's owner too.`,
		Example:           "  keywardctl policy reset alias/app/db",
		Args:              args("KEY"),
		ValidArgsFunction: firstOnly(c.completeKeys),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.setPolicy(cmd.Context(), a[0], func(ctx context.Context, id string) ([]byte, error) {
				owner, err := c.ownerOfKey(ctx, id)
				if err != nil {
					return nil, err
				}
				of := "account " + owner.Account
				if len(owner.CoOwners) > 0 {
					of = "accounts " + strings.Join(append([]string{owner.Account}, owner.CoOwners...), " and ")
				}
				err = c.confirm(ctx, fmt.Sprintf("Every principal of %s may then do everything with %s, and nobody else anything. Go on?", of, a[0]))
				return policy.Default(owner), err
			}, func() { c.say("%s has the default policy", a[0]) })
		},
	}
}

func (c *cli) policyAttachCmd() *cobra.Command {
	var name, file, preset string
	var presets []string
	for _, p := range policy.PresetNames() {
		presets = append(presets, fmt.Sprintf("  %-13s %s", p, policy.DescribePreset(p)))
	}
	cmd := &cobra.Command{
		Use:   "attach PRINCIPAL",
		Short: "Give a principal an identity policy",
		Long: `Give a principal an identity policy, in place of an earlier one of that name. It counts from the next call on. The presets are for
all keys:
` + strings.Join(presets, "\n") + "\n\n" + principalForms,
		Example: `  keywardctl policy attach user/alice --name make-keys --preset create-keys
  keywardctl policy attach role/backup --name backup --file backup.json`,
		Args:              args("PRINCIPAL"),
		ValidArgsFunction: firstOnly(c.completePrincipals),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx := cmd.Context()
			var document []byte
			var err error
			switch {
			case file == "" && preset == "":
				return usagef("--file or --preset is missing")
			case file != "" && preset != "":
				return usagef("--file and --preset are both given; drop one")
			case preset != "":
				if document, err = policy.Preset(preset); err != nil {
					return usagef("there is no preset %q; there are %s", preset, strings.Join(policy.PresetNames(), ", "))
				}
				if name == "" {
					name = preset
				}
			}
			if name == "" {
				return usagef("--name is missing")
			}
			if file != "" {
				if document, err = c.readPolicy(ctx, file, policy.ParseIdentity); err != nil {
					return err
				}
			}
			arn, err := c.principal(ctx, a[0])
			if err != nil {
				return err
			}
			return c.adminDone(ctx, fmt.Sprintf("%s has the identity policy %s", arn, name), func(ctx context.Context, client *admin.Client) error {
				return client.AttachPolicy(ctx, arn, name, document)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "of the policy; that of the preset if not given")
	f.StringVar(&file, "file", "", "the policy as a JSON document; - reads stdin")
	f.StringVar(&preset, "preset", "", "a ready-made policy: "+strings.Join(policy.PresetNames(), ", "))
	must(cmd.MarkFlagFilename("file", "json"))
	choices(cmd, "preset", policy.PresetNames()...)
	return cmd
}

// completePolicies offers principals, and then the names of the identity policies of the one that was chosen.
func (c *cli) completePolicies(cmd *cobra.Command, given []string, begun string) ([]string, cobra.ShellCompDirective) {
	switch len(given) {
	case 0:
		return c.completePrincipals(cmd, given, begun)
	case 1:
		return c.offer(func(ctx context.Context) ([]string, error) {
			arn, err := c.principal(ctx, given[0])
			if err != nil {
				return nil, err
			}
			client := c.admin()
			defer client.Close()
			p, err := client.Principal(ctx, arn)
			if err != nil {
				return nil, err
			}
			return p.Policies, nil
		})
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func (c *cli) policyDetachCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "detach PRINCIPAL NAME",
		Short:             "Take an identity policy away from a principal",
		Long:              "Take an identity policy away from a principal. It counts from the next call on.\n" + principalForms,
		Example:           "  keywardctl policy detach user/alice make-keys",
		Args:              args("PRINCIPAL", "NAME"),
		ValidArgsFunction: c.completePolicies,
		RunE: func(cmd *cobra.Command, a []string) error {
			arn, err := c.principal(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			return c.adminDone(cmd.Context(), fmt.Sprintf("%s no longer has the identity policy %s", arn, a[1]), func(ctx context.Context, client *admin.Client) error {
				return client.DetachPolicy(ctx, arn, a[1])
			})
		},
	}
}

func (c *cli) policyListCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "list PRINCIPAL",
		Short:             "List the identity policies of a principal",
		Long:              "List the identity policies of a principal; -o json has the whole documents.\n" + principalForms,
		Example:           "  keywardctl policy list user/alice\n  keywardctl policy list user/alice -o json | jq '.[0].document'",
		Args:              args("PRINCIPAL"),
		ValidArgsFunction: firstOnly(c.completePrincipals),
		RunE: func(cmd *cobra.Command, a []string) error {
			arn, err := c.principal(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			all, err := askAdmin(cmd.Context(), c, 0, func(ctx context.Context, client *admin.Client) (*admin.Policies, error) {
				return client.Policies(ctx, arn)
			})
			if err != nil {
				return err
			}
			return rows(c, all.Policies, []string{"NAME", "DOCUMENT"}, func(p admin.IdentityPolicy) []string {
				const most = 120
				text := []rune(strings.Join(strings.Fields(string(p.Document)), " "))
				if len(text) > most {
					text = append(text[:most], '…')
				}
				return []string{p.Name, string(text)}
			})
		},
	}
}

func (c *cli) policySimulateCmd() *cobra.Command {
	var q admin.Simulation
	var ip, at, file string
	var uid uint32
	doors := []string{"API", "PKCS11", "XKI"}
	cmd := &cobra.Command{
		Use:   "simulate --principal PRINCIPAL --action ACTION",
		Short: "Tell how a call would be decided, and why",
		Long: `Tell how a call would be decided, and why: what each statement of the key policy and of the principal's identity policies says. Nothing
is done. What is not given, the call would not have, but for the time, which is now, and the key's tags; --file tries a key policy
before it is set. Only the root of an account may ask, about its own principals.

The exit code is 0 when it is allowed, 3 when it is denied.
` + principalForms,
		Example: `  keywardctl policy simulate --principal user/app --action kms:Encrypt --key alias/app/db
  keywardctl policy simulate --principal user/app --action kms:Decrypt --key alias/app/db --source-ip 192.0.2.7 --file new.json
  keywardctl policy simulate --principal user/alice --action kms:CreateKey`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			for _, name := range []string{"principal", "action"} {
				if err := required(cmd, name); err != nil {
					return err
				}
			}
			if err := readSimulation(&q, ip, at); err != nil {
				return err
			}
			if q.Door = anyCase(q.Door, doors); cmd.Flags().Changed("uid") {
				q.UID = &uid
			}
			if file != "" {
				if q.Key == "" {
					return usagef("--file is the policy of a key; name that with --key")
				}
				text, err := c.readPolicy(ctx, file, policy.LoadKey)
				if err != nil {
					return err
				}
				q.Policy = string(text)
			}
			var err error
			if q.Principal, err = c.principal(ctx, q.Principal); err != nil {
				return err
			}
			d, err := askAdmin(ctx, c, 0, func(ctx context.Context, client *admin.Client) (*admin.Simulated, error) {
				return client.Simulate(ctx, &q)
			})
			if err != nil {
				return err
			}
			if err := c.print(d, func() error { return c.simulatedTable(d) }); err != nil {
				return err
			}
			if !d.Allowed {
				return &codedError{code: exitDenied, err: errQuiet}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Principal, "principal", "", "who would call")
	f.StringVar(&q.Action, "action", "", "the right that is asked for, such as kms:Encrypt")
	c.keyFlag(cmd, &q.Key, "the key; none for actions such as kms:CreateKey that are about no key")
	f.StringVar(&file, "file", "", "a key policy to try in place of the one that is set; - reads stdin")
	f.StringVar(&ip, "source-ip", "", "the address of the caller (acs:SourceIp)")
	f.StringVar(&q.SourceVPC, "source-vpc", "", "its network (acs:SourceVpc)")
	f.StringVar(&at, "time", "", "when, such as 2026-01-31T18:00:00Z (acs:CurrentTime)")
	f.StringVar(&q.Algorithm, "algorithm", "", "the algorithm of an encryption (kms:EncryptionAlgorithm)")
	f.StringVar(&q.Unit, "unit", "", "the systemd unit of a local caller (keyward:Unit)")
	f.StringVar(&q.Executable, "executable", "", "the path of a local caller's program (keyward:Executable)")
	f.Uint32Var(&uid, "uid", 0, "the Unix user of a local caller (keyward:Uid)")
	f.StringVar(&q.Door, "door", "", "where the call comes in: API, PKCS11 or XKI (keyward:Door)")
	must(cmd.RegisterFlagCompletionFunc("principal", c.completePrincipals))
	must(cmd.MarkFlagFilename("file", "json"))
	choices(cmd, "door", doors...)
	rights := []string{"kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:SetTokenNames", "kms:DescribeTokenObject", "kms:CreateTokenObject", "kms:UpdateTokenObject",
		"kms:DeleteTokenObject"}
	for name := range actions {
		if !strings.HasPrefix(name, "Batch") && name != "ReEncrypt" { // they need the rights of others
			rights = append(rights, "kms:"+name)
		}
	}
	choices(cmd, "action", rights...)
	return cmd
}

// readSimulation reads the flags whose values have a form.
func readSimulation(q *admin.Simulation, ip, at string) error {
	var err error
	if ip != "" {
		if q.SourceIP, err = netip.ParseAddr(ip); err != nil {
			return usagef("--source-ip is an address such as 192.0.2.7, not %q", ip)
		}
	}
	if at != "" {
		if q.Time, err = time.Parse(time.RFC3339, at); err != nil {
			return usagef("--time is written like 2026-01-31T18:00:00Z, not %q", at)
		}
	}
	return nil
}

func (c *cli) simulatedTable(d *admin.Simulated) error {
	verdict := "DENIED"
	if d.Allowed {
		verdict = "ALLOWED"
	}
	if err := c.line(verdict + ": " + plain(d.Reason)); err != nil {
		return err
	}
	out := newList(c, []string{"POLICY", "STATEMENT", "EFFECT", "MATCHES", "WHY NOT"}, func(cells []string) []string { return cells })
	for _, p := range d.Policies {
		for i, st := range p.Statements {
			if out.count == 0 {
				if err := c.line(""); err != nil {
					return err
				}
			}
			name := fmt.Sprint(i)
			if st.Sid != "" {
				name += " " + st.Sid
			}
			matches, why := "yes", ""
			if !st.Matched {
				matches, why = "no", st.Missed+": "+st.Why
			}
			if err := out.row([]string{p.Policy, name, st.Effect, matches, why}); err != nil {
				return err
			}
		}
	}
	return out.end("no statements")
}
