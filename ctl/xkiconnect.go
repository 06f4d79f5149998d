package ctl

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/daemon/admin"
)

// The caller's end of external keys: the connections of external instances.

func (c *cli) xkiConnectCmd() *cobra.Command {
	var req admin.XKIConnectRequest
	var config, roots, cert, key string
	var names []string
	var budget time.Duration
	cmd := &cobra.Command{
		Use:   "connect INSTANCE",
		Short: "Set the way to the key manager behind an external instance",
		Long: `Set the way to the proxy of the key manager whose keys an external instance has, in place of an earlier one, and try it. --config is
a file that keywardctl xki export-config wrote, or that AWS's console takes: path and credential. The secret is kept sealed.
The proxy is known by the machine's own certificate authorities, or by those in --roots, or by --pin: a fingerprint, sha256-… or
sm3-…, of a certificate that it shows or of its public key, as keywardctl xki listeners prints it. A fingerprint in the file counts
if neither is given.
--certificate and --private-key are what we show a proxy that asks for it.
--budget is how long one call may take, with the new try of one that failed.
--member-name is for proxies of xki-v1, of which nobody published the names: what a member of requests and answers is called there.`,
		Example: `  keywardctl xki connect kst-external --config ks1.json --endpoint https://keys.example.com
  keywardctl xki connect kst-external --config ks1.json --endpoint https://10.0.0.7:8443 --pin sha256-0123… --budget 1s`,
		Args:              args("INSTANCE"),
		ValidArgsFunction: firstOnly(c.completeInstances),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx := cmd.Context()
			if config == "" || req.Endpoint == "" {
				return usagef("--config and --endpoint are needed")
			}
			if (cert == "") != (key == "") {
				return usagef("--certificate and --private-key go together")
			}
			file, err := c.readXKI(ctx, config)
			if err != nil {
				return err
			}
			defer clear(file.secret)
			req.Path, req.AccessKeyID = file.path, file.accessKeyID
			if req.Names, err = pairs("member-name", names); err != nil {
				return err
			}
			req.Budget = float64(budget) / float64(time.Millisecond)
			if roots == "" && len(req.Pins) == 0 && file.fingerprint != "" {
				req.Pins = []string{file.fingerprint}
			}
			var secretKey []byte
			for _, f := range []struct {
				name string
				to   func([]byte)
			}{{roots, func(b []byte) { req.Roots = string(b) }}, {cert, func(b []byte) { req.Certificate = string(b) }}, {key, func(b []byte) { secretKey = b }}} {
				if f.name == "" {
					continue
				}
				text, err := c.readPEM(ctx, f.name)
				if err != nil {
					return err
				}
				f.to(text)
			}
			defer clear(secretKey)
			conn, err := askAdmin(ctx, c, 0, func(ctx context.Context, client *admin.Client) (*admin.XKIConnection, error) {
				return client.ConnectXKI(ctx, a[0], &req, file.secret, secretKey)
			})
			if err != nil {
				return err
			}
			if err := c.print(conn, func() error { return nil }); err != nil {
				return err
			}
			if !conn.Connected {
				return &codedError{code: exitUnavailable, err: fmt.Errorf("the connection is set, but %s is Disconnected: %s", conn.Instance, cmp.Or(conn.Trouble, "the proxy was not asked yet")),
					next: "keyward goes on trying; keywardctl xki connections shows when it works"}
			}
			c.say("%s is Connected to %s", conn.Instance, proxyName(conn))
			c.say("next: keywardctl key create --instance %s --external-key-id ID", conn.Instance)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", "", "file with path and credential; - for stdin")
	f.StringVar(&req.Endpoint, "endpoint", "", "where the proxy is: https://HOST or https://HOST:PORT")
	f.StringVar(&req.Region, "region", "local", "the region that signatures are for")
	f.StringVar(&roots, "roots", "", "file with the certificates that the proxy's must be signed by, PEM")
	f.StringArrayVar(&req.Pins, "pin", nil, "fingerprint of a certificate of the proxy; may be repeated")
	f.StringVar(&cert, "certificate", "", "file with our certificate, PEM")
	f.StringVar(&key, "private-key", "", "file with its private key, PEM")
	f.StringArrayVar(&names, "member-name", nil, "MEMBER=NAME: what the proxy calls a member, such as Aad=AdditionalData; may be repeated")
	f.DurationVar(&budget, "budget", 250*time.Millisecond, "how long one call may take: 20ms to 30s")
	for _, flag := range []string{"config", "roots", "certificate", "private-key"} {
		must(cmd.MarkFlagFilename(flag))
	}
	return cmd
}

// readPEM reads certificates or a key, of which the daemon takes no more than MaxXKIBody octets.
func (c *cli) readPEM(ctx context.Context, name string) ([]byte, error) {
	in, err := c.openInput(ctx, name)
	if err != nil {
		return nil, err
	}
	defer in.close()
	return readSmall(in, admin.MaxXKIBody)
}

// readXKI reads a configuration file.
func (c *cli) readXKI(ctx context.Context, name string) (*xkiFile, error) {
	in, err := c.openInput(ctx, name)
	if err != nil {
		return nil, err
	}
	defer in.close()
	text, err := readSmall(in, admin.MaxXKIBody)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	f, err := readXKIFile(bytes.TrimSpace(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in, err)
	}
	return f, nil
}

// proxyName is what a proxy says that it is. Many say their vendor's name with the model's.
func proxyName(conn *admin.XKIConnection) string {
	if strings.HasPrefix(strings.ToLower(conn.Model), strings.ToLower(conn.Vendor)) {
		return conn.Model
	}
	return strings.TrimSpace(conn.Vendor + " " + conn.Model)
}

func (c *cli) xkiConnectionsCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "connections",
		Short: "Show the connections of external instances, and how they are",
		Long: `Show the connections of external instances, and how they are. A proxy is asked once a minute; after three times without an answer, or when
it refuses the access key, the instance is Disconnected, and its keys can't be used until the proxy answers again. It is asked
every few seconds then.
The exit code is 6 when one is.`,
		Example: "  keywardctl xki connections",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := askAdmin(cmd.Context(), c, 0, func(ctx context.Context, client *admin.Client) (*admin.XKIConnections, error) {
				return client.XKIConnections(ctx)
			})
			if err != nil {
				return err
			}
			lost := false
			err = rows(c, all.Connections, []string{"INSTANCE", "STATE", "FOR", "PROXY", "DIALECT", "ENDPOINT", "ACCESS KEY", "KNOWN BY", "TROUBLE"}, func(conn admin.XKIConnection) []string {
				state, known := "Connected", "the machine's authorities"
				if !conn.Connected {
					state = "Disconnected"
				}
				switch {
				case len(conn.Pins) > 0:
					known = strings.Join(conn.Pins, " ")
				case conn.Roots:
					known = "authorities of its own"
				}
				return []string{conn.Instance, state, span(time.Since(conn.Since)), proxyName(&conn), conn.Dialect, conn.Endpoint + conn.Path, conn.AccessKeyID, known, conn.Trouble}
			})
			for _, conn := range all.Connections {
				lost = lost || !conn.Connected
			}
			if err == nil && lost {
				err = &codedError{code: exitUnavailable, err: errQuiet}
			}
			return err
		},
	}
}

func (c *cli) xkiDisconnectCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "disconnect INSTANCE",
		Short:             "Forget the way to the key manager behind an external instance; its keys stay",
		Example:           "  keywardctl xki disconnect kst-external --yes",
		Args:              args("INSTANCE"),
		ValidArgsFunction: firstOnly(c.completeInstances),
		RunE: func(cmd *cobra.Command, a []string) error {
			if err := c.confirm(cmd.Context(), fmt.Sprintf("The keys of %s can't be used until it is connected again. Disconnect it?", a[0])); err != nil {
				return err
			}
			return c.adminDone(cmd.Context(), a[0]+" is Disconnected", func(ctx context.Context, client *admin.Client) error {
				return client.DisconnectXKI(ctx, a[0])
			})
		},
	}
}
