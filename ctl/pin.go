package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/keyward/keyward/daemon/admin"
)

func (c *cli) principalPINCmd() *cobra.Command {
	return group("pin", "Set and remove the PIN of a principal, for programs that know PKCS #11",
		`A principal can have a PIN as a second factor. Programs that know PKCS #11 give it when they log in, and without it keys can't
be used through PKCS #11. Without a PIN nobody is asked: the kernel says who is calling. After 10 wrong ones in a row a PIN is locked
until it is set again. keywardctl principal show tells whether there is one.`,
		"  keywardctl principal pin set user/app\n  keywardctl principal pin remove user/app",
		c.pinSetCmd(), c.pinRemoveCmd())
}

func (c *cli) pinSetCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "set PRINCIPAL",
		Short: "Set the PIN of a principal, and unlock it",
		Long: `Set the PIN of a principal, in place of an earlier one, and unlock it. It has 8 to 256 octets, and is read twice from the terminal
without being shown, or once from stdin or a file: one line end after it is dropped. It is never an argument, which everybody on the
machine could read.
` + principalForms,
		Example:           "  keywardctl principal pin set user/app\n  keywardctl principal pin set user/app --pin-file app.pin",
		Args:              args("PRINCIPAL"),
		ValidArgsFunction: firstOnly(c.completePrincipals),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx := cmd.Context()
			arn, err := c.principal(ctx, a[0])
			if err != nil {
				return err
			}
			pin, err := c.readPIN(ctx, file, arn)
			if err != nil {
				return err
			}
			defer clear(pin)
			return c.adminDone(ctx, fmt.Sprintf("%s has this PIN now", arn), func(ctx context.Context, client *admin.Client) error {
				return client.SetPIN(ctx, arn, pin)
			})
		},
	}
	cmd.Flags().StringVar(&file, "pin-file", "", "file with the PIN and nothing else; - for stdin")
	return cmd
}

func (c *cli) pinRemoveCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "remove PRINCIPAL",
		Short:             "Remove the PIN of a principal, so that none is asked for",
		Long:              "Remove the PIN of a principal, so that none is asked for.\n" + principalForms,
		Example:           "  keywardctl principal pin remove user/app",
		Args:              args("PRINCIPAL"),
		ValidArgsFunction: firstOnly(c.completePrincipals),
		RunE: func(cmd *cobra.Command, a []string) error {
			arn, err := c.principal(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			return c.adminDone(cmd.Context(), fmt.Sprintf("%s has no PIN any more", arn), func(ctx context.Context, client *admin.Client) error {
				return client.RemovePIN(ctx, arn)
			})
		},
	}
}

// pinState words what is known of a PIN.
func pinState(p *admin.PIN) string {
	if p == nil {
		return ""
	}
	text := "set " + p.Set.UTC().Format(time.RFC3339)
	switch {
	case p.Locked:
		return text + fmt.Sprintf(", locked after %d wrong ones in a row", p.Failures)
	case p.Failures > 0:
		return text + fmt.Sprintf(", wrong %d times since it was right", p.Failures)
	}
	return text
}

// readPIN reads a new PIN from a file, from the terminal, or from stdin if that is none. The caller wipes it.
func (c *cli) readPIN(ctx context.Context, file, of string) ([]byte, error) {
	if terminal, ok := c.stdin.(*os.File); ok && file == "" && isTerminal(terminal) {
		first, err := c.typePIN(ctx, terminal, "New PIN of "+of+": ")
		if err != nil {
			return nil, err
		}
		second, err := c.typePIN(ctx, terminal, "Once more: ")
		defer clear(second)
		if err == nil && !bytes.Equal(first, second) {
			err = fmt.Errorf("these are two different PINs; nothing was changed")
		}
		if err != nil {
			clear(first)
			return nil, err
		}
		return first, nil
	}
	in, err := c.openInput(ctx, file)
	if err != nil {
		return nil, err
	}
	defer in.close()
	if in.file != nil {
		if info, err := in.file.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o007 != 0 {
			return nil, fmt.Errorf("%s has mode %04o, so that everybody on this machine may touch it; run: chmod 0600 %s, and choose another PIN", file, info.Mode().Perm(), file)
		}
	}
	buf := make([]byte, admin.MaxPINBody+3) // one buffer, so that it can be wiped; a PIN, its line end, and one more
	n, err := io.ReadFull(in, buf)
	pin := buf[:n]
	if line, ok := bytes.CutSuffix(pin, []byte("\n")); ok {
		pin = bytes.TrimSuffix(line, []byte("\r"))
	}
	switch {
	case err != nil && err != io.EOF && err != io.ErrUnexpectedEOF:
		err = fmt.Errorf("%s: %w", in, err)
	case len(pin) > admin.MaxPINBody:
		err = fmt.Errorf("%s has more than %d octets, which is no PIN", in, admin.MaxPINBody)
	case len(pin) == 0:
		err = fmt.Errorf("%s is empty", in)
	case bytes.ContainsAny(pin, "\r\n"):
		err = fmt.Errorf("%s has several lines; a PIN is one", in)
	default:
		return pin, nil
	}
	clear(buf)
	return nil, err
}

// typePIN reads a line from the terminal that does not show it. If it is interrupted the terminal is as before.
func (c *cli) typePIN(ctx context.Context, terminal *os.File, prompt string) ([]byte, error) {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	fmt.Fprint(c.stderr, prompt)
	defer fmt.Fprintln(c.stderr)
	type line struct {
		text []byte
		err  error
	}
	typed := make(chan line, 1)
	go func() { // ends with the line, or with the program
		text, err := term.ReadPassword(fd)
		typed <- line{text, err}
	}()
	select {
	case l := <-typed:
		if l.err == io.EOF {
			l.err = errors.New("nothing was typed")
		}
		return l.text, l.err
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), term.Restore(fd, before))
	}
}
