package ctl

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/daemon/admin"
)

func (c *cli) xkiCmd() *cobra.Command {
	return group("xki", "Let other key management services use keys here, and use keys of others",
		`External keys, both ways. A prefix serves keys of keyward to another key management service (AWS KMS by its XKS protocol, Alibaba Cloud
KMS by XKI, or another keyward), which never gets the keys. A connection is the other end: the way to the key manager
whose keys an external instance has. What a prefix needs beside is a [[listener]] of the configuration with serves = "xki".`,
		`  keywardctl xki prefix create ks1 --key orders=alias/orders
  keywardctl xki credential create ks1
  keywardctl xki export-config ks1 --out ks1.json
  keywardctl xki connect kst-external --config ks1.json --endpoint https://keys.example.com:8443
  keywardctl key create --instance kst-external --external-key-id orders --alias orders`,
		c.xkiPrefixCmd(), c.xkiCredentialCmd(), c.xkiExportCmd(), c.xkiListenersCmd(), c.xkiConnectCmd(), c.xkiConnectionsCmd(), c.xkiDisconnectCmd())
}

func (c *cli) xkiCredentialCmd() *cobra.Command {
	return group("credential", "Manage what requests to a prefix are signed with",
		`A credential is an ID and a secret with which the other side signs its requests. A prefix should have two, so that they can be
exchanged one after the other: make a new one, give it to the other side, and delete the old one when nothing uses it. Secrets are kept
sealed; keywardctl xki export-config gives one out.`,
		`  keywardctl xki credential create ks1
  keywardctl xki credential list ks1
  keywardctl xki credential delete ks1 ABCDEFGHIJKLMNOPQRSTUVWXYZ`,
		&cobra.Command{
			Use:               "create PREFIX",
			Short:             "Make a credential, and print its ID",
			Example:           "  keywardctl xki credential create ks1",
			Args:              args("PREFIX"),
			ValidArgsFunction: firstOnly(c.completePrefixes),
			RunE: func(cmd *cobra.Command, a []string) error {
				k, err := askAdmin(cmd.Context(), c, 0, func(ctx context.Context, client *admin.Client) (*admin.NewAccessKey, error) {
					return client.CreateXKICredential(ctx, a[0])
				})
				if err != nil {
					return err
				}
				clear(k.Secret)
				c.say("next: keywardctl xki export-config %s --out FILE writes it, with its secret, for the other side", a[0])
				return c.print(struct {
					ID string `json:"id"`
				}{k.ID}, func() error { return c.line(k.ID) })
			},
		},
		&cobra.Command{
			Use:               "list PREFIX",
			Short:             "List the credentials of a prefix, without their secrets",
			Example:           "  keywardctl xki credential list ks1",
			Args:              args("PREFIX"),
			ValidArgsFunction: firstOnly(c.completePrefixes),
			RunE: func(cmd *cobra.Command, a []string) error {
				p, err := c.prefix(cmd.Context(), a[0])
				if err != nil {
					return err
				}
				return rows(c, p.Credentials, []string{"ID", "CREATED"}, func(k admin.XKICredential) []string {
					return []string{k.ID, k.Created.UTC().Format(time.RFC3339)}
				})
			},
		},
		&cobra.Command{
			Use:               "delete PREFIX ID",
			Short:             "Refuse requests that are signed with a credential, for good",
			Example:           "  keywardctl xki credential delete ks1 ABCDEFGHIJKLMNOPQRSTUVWXYZ --yes",
			Args:              args("PREFIX", "ID"),
			ValidArgsFunction: firstOnly(c.completePrefixes),
			RunE: func(cmd *cobra.Command, a []string) error {
				if err := c.confirm(cmd.Context(), stops(a[1])); err != nil {
					return err
				}
				return c.adminDone(cmd.Context(), a[1]+" is removed", func(ctx context.Context, client *admin.Client) error {
					return client.DeleteXKICredential(ctx, a[0], a[1])
				})
			},
		})
}

func (c *cli) listeners(ctx context.Context) ([]admin.XKIListener, error) {
	all, err := askAdmin(ctx, c, 0, func(ctx context.Context, client *admin.Client) (*admin.XKIListeners, error) {
		return client.XKIListeners(ctx)
	})
	if err != nil {
		return nil, err
	}
	return all.Listeners, nil
}

func (c *cli) xkiListenersCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "listeners",
		Short: "Show where prefixes are served, and the fingerprints of the certificates",
		Long: `Show where prefixes are served: the addresses of the [[listener]] rows with serves = "xki", and the fingerprints of their certificates,
of which some clouds are told one: of the whole certificate or of its public key, by SHA-256 or SM3. A cloud that pins one stops
connecting when it changes; tell it the new one before.`,
		Example: "  keywardctl xki listeners",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.listeners(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(all, func() error {
				if len(all) == 0 {
					c.say(`nothing serves prefixes: a [[listener]] row of the configuration with serves = "xki" does`)
				}
				for _, l := range all {
					clients := "need no certificate"
					if l.MutualTLS {
						clients = "must show a certificate"
						if len(l.ClientNames) > 0 {
							clients += " for " + strings.Join(l.ClientNames, " or ")
						}
					}
					fields := [][2]string{{"Address", l.Address}, {"Clients", clients}}
					for _, cert := range l.Certificates {
						fields = append(fields, [2]string{"Certificate", cert.Subject + ", until " + cert.NotAfter.UTC().Format(time.RFC3339)},
							[2]string{"  certificate", cert.CertificateSHA256}, [2]string{"  public key", cert.KeySHA256},
							[2]string{"  certificate", cert.CertificateSM3}, [2]string{"  public key", cert.KeySM3})
					}
					if err := c.fields(fields...); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func (c *cli) xkiExportCmd() *cobra.Command {
	var id, file string
	cmd := &cobra.Command{
		Use:   "export-config PREFIX",
		Short: "Write what the other side needs: path, credential and its secret",
		Long: `Write what the other side needs to use a prefix: a file that the AWS console takes for an external key store (xks-v1), and
keywardctl xki connect on another keyward takes for both dialects. For xki-v1 it also has the fingerprint of the certificate.
The file has the secret of the credential: keep it where only you can read it, and delete it when the other side has it.`,
		Example:           "  keywardctl xki export-config ks1 --out ks1.json",
		Args:              args("PREFIX"),
		ValidArgsFunction: firstOnly(c.completePrefixes),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx := cmd.Context()
			p, err := c.prefix(ctx, a[0])
			if err != nil {
				return err
			}
			all, err := c.listeners(ctx)
			if err != nil {
				return err
			}
			fingerprint := ""
			if len(all) > 0 {
				fingerprint = all[0].Certificates[0].CertificateSHA256
			} else {
				c.say(`nothing serves prefixes yet: a [[listener]] row of the configuration with serves = "xki" does`)
			}
			out, err := c.createOutput(file, 0o600, false, false)
			if err != nil {
				return hint(err, "--out names another file")
			}
			defer out.discard()
			k, err := askAdmin(ctx, c, 0, func(ctx context.Context, client *admin.Client) (*admin.NewAccessKey, error) {
				return client.ExportXKI(ctx, a[0], id)
			})
			if err != nil {
				return err
			}
			defer clear(k.Secret)
			text, err := (&xkiFile{path: p.Path, fingerprint: fingerprint, accessKeyID: k.ID, secret: k.Secret}).text(p.Dialect)
			if err != nil {
				return err
			}
			defer clear(text)
			if _, err := out.Write(text); err != nil {
				return err
			}
			if err := out.commit(); err != nil {
				return err
			}
			c.lint(p, all)
			if out.name != stdio {
				c.say("%s has the secret of %s: delete it when the other side has it", out.name, k.ID)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&id, "credential", "", "ID of the credential; if it is not given, the newest")
	outFlag(cmd, &file)
	return cmd
}

// lint says what AWS would refuse of a prefix and where it is served (reference xki-proxy.md §2.1).
func (c *cli) lint(p *admin.XKIPrefix, served []admin.XKIListener) {
	if p.Dialect != "xks-v1" {
		return
	}
	if len(served) > 0 && !slices.ContainsFunc(served, func(l admin.XKIListener) bool { return strings.HasSuffix(l.Address, ":443") }) {
		c.say("AWS connects to port 443 of a DNS name, over IPv4; %s needs something in front of it for that", served[0].Address)
	}
	if n := len(p.Path); n < 10 || n > 128 {
		c.say("AWS takes paths of 10 to 128 characters, and %s has %d", p.Path, n)
	}
	if len(p.Credentials) > 0 && p.Region == "" {
		c.say("signatures for any region are taken; keywardctl xki prefix create --region limits them to one")
	}
}

// errNoSecret says that a configuration file has none.
var errNoSecret = errors.New("it has no access key ID and secret; write it with keywardctl xki export-config")
