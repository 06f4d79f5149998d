// Package ctl is the command line of keyward: the program keywardctl. It speaks to keywardd over its Unix socket and
// holds no key. It has no cgo, so that it is one static file which still runs when an HSM's library is broken.
//
// A file per noun; output.go has the rules of what is printed, exit.go the exit codes.
package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/kms/kmsclient"
)

// Main is the program keywardctl. It returns the exit code.
func Main() int {
	// An interrupt, or the terminal's end, ends the call in hand and takes half-written files away. A second one ends the
	// program at once, whatever it waits for.
	// What nohup, or a shell for its background jobs, has switched off stays off.
	signals := slices.DeleteFunc([]os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}, signal.Ignored)
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	defer stop()
	context.AfterFunc(ctx, stop)
	return run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}

// cli is what the commands of one run share. It is made by run and filled in by the global flags.
type cli struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	socket     string
	format     string // table or json
	timeout    time.Duration
	yes        bool
	quiet      bool
	noProgress bool

	client *kmsclient.Client // made when the flags are known
}

// run does one command line and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &cli{stdin: stdin, stdout: stdout, stderr: stderr}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil && !errors.Is(err, errQuiet) {
		interrupted := &codedError{code: exitFailure, err: errors.New("interrupted")}
		if e, ok := errors.AsType[*codedError](err); ok {
			interrupted.next = e.next // what is half done
		}
		err = interrupted
	}
	return c.fail(cmd, err)
}

// root makes the whole tree of commands.
func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "keywardctl",
		Short: "Use and manage the keys that keyward keeps",
		Long: `keywardctl makes keys, uses them, and looks after keyward, the key management service on this machine.

Who you are is known by the Unix user, group or systemd unit that runs keywardctl: there is nothing to log in to.
A KEY is a key id (key-...), an alias (alias/...) or an ARN.

Exit codes: ` + exitText() + ".",
		Example: `  keywardctl key create --alias app/db
  keywardctl encrypt --key alias/app/db backup.tar
  keywardctl decrypt backup.tar.age
  keywardctl status`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		PersistentPreRunE: func(*cobra.Command, []string) error { return c.prepare() },
		Args:              cobra.ArbitraryArgs,
		RunE:              runGroup,
	}
	socket := os.Getenv("KEYWARD_SOCKET")
	if socket == "" {
		socket = kmsclient.DefaultSocket
	}
	f := root.PersistentFlags()
	f.StringVar(&c.socket, "socket", socket, "keywardd's socket; also KEYWARD_SOCKET")
	f.StringVarP(&c.format, "output", "o", "table", "what data looks like on stdout: table or json")
	f.DurationVar(&c.timeout, "timeout", 30*time.Second, "how long one call may take")
	f.BoolVar(&c.yes, "yes", false, "do not ask before changes that stop something from working")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "say nothing on stderr but errors")
	f.BoolVar(&c.noProgress, "no-progress", false, "show no progress bar")
	choices(root, "output", "table", "json")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		// What is wrong with a number is told by a function's name and the number once more.
		text, _, _ := strings.Cut(err.Error(), ": strconv.")
		if errors.Is(err, strconv.ErrRange) {
			text += ": it is out of range"
		}
		return usagef("%s", text)
	})

	root.AddGroup(
		&cobra.Group{ID: "use", Title: "Use keys:"},
		&cobra.Group{ID: "manage", Title: "Manage keys:"},
		&cobra.Group{ID: "people", Title: "Manage who may do what:"},
		&cobra.Group{ID: "service", Title: "Look after keyward:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, cmd := range cmds {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	add("use", c.encryptCmd(), c.decryptCmd(), c.signCmd(), c.verifyCmd(), c.dataKeyCmd(), c.batchCmd(), c.reEncryptCmd(), c.randomPasswordCmd())
	add("manage", c.keyCmd(), c.aliasCmd(), c.tagCmd(), c.instanceCmd(), c.xkiCmd())
	add("people", c.policyCmd(), c.principalCmd(), c.accessKeyCmd(), c.accountCmd())
	add("service", c.initCmd(), c.doctorCmd(), c.statusCmd(), c.hsmCmd(), c.reloadCmd(), c.clockCmd(), c.metricsCmd(), c.benchCmd(), c.apiCmd(), c.completionCmd(), c.versionCmd())
	return root
}

// prepare checks the global flags and makes the client. It runs before every command.
func (c *cli) prepare() error {
	if c.format != "table" && c.format != "json" {
		return usagef("--output is table or json, not %q", c.format)
	}
	if c.timeout <= 0 {
		return usagef("--timeout must be more than nothing")
	}
	if c.socket == "" {
		return usagef("--socket is empty; leave it out for %s", kmsclient.DefaultSocket)
	}
	c.client = &kmsclient.Client{Socket: c.socket}
	return nil
}

// call does one action within --timeout.
func (c *cli) call(ctx context.Context, action string, req, resp any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return kmsclient.Call(ctx, c.client, action, req, resp)
}

// admin makes a client of the daemon's administration. The caller closes it.
func (c *cli) admin() *admin.Client { return admin.NewClient(c.socket) }

// group makes a command that only holds others.
func group(use, short, long, example string, cmds ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, Long: long, Example: example, Args: cobra.ArbitraryArgs, RunE: runGroup}
	g.AddCommand(cmds...)
	return g
}

// runGroup answers a noun without a verb, or with one that does not exist.
func runGroup(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		cmd.SetOut(cmd.ErrOrStderr())
		if err := cmd.Help(); err != nil {
			return err
		}
		return &codedError{code: exitUsage, err: errQuiet}
	}
	cmd.SuggestionsMinimumDistance = 2
	msg := fmt.Sprintf("there is no command %q", cmd.CommandPath()+" "+args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		msg += fmt.Sprintf("; did you mean %s?", `"`+strings.Join(near, `" or "`)+`"`)
	}
	return usagef("%s", msg)
}

// args wants exactly the named arguments.
func args(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		switch {
		case len(given) < len(names):
			return usagef("%s is missing", strings.Join(names[len(given):], " and "))
		case len(given) > len(names) && len(names) == 0:
			return usagef("%q is too much: this command takes no arguments", given[0])
		case len(given) > len(names):
			return usagef("%q is too much: this command takes %s", given[len(names)], strings.Join(names, " and "))
		}
		for i, g := range given {
			if g == "" {
				return usagef("%s is empty", names[i])
			}
		}
		return nil
	}
}

// atMostOne takes one argument or none.
func atMostOne(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if len(given) > 1 {
			return usagef("%q is too much: this command takes one %s", given[1], name)
		}
		return nil
	}
}

// required says that a flag must be given.
func required(cmd *cobra.Command, flag string) error {
	if f := cmd.Flags().Lookup(flag); f == nil || f.Value.String() == "" {
		return usagef("--%s is missing", flag)
	}
	return nil
}

// Command gives the tree of commands, for what is made of it: manual pages. It must not be executed.
func Command() *cobra.Command {
	return (&cli{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}).root()
}
