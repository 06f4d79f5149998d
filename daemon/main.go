// Package daemon assembles keyward and runs it: configuration, HSM pool, key store, service and listeners, and the
// program keywardd around them.
package daemon

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/daemon/config"
)

// command is one of the program's. run gets the arguments after the command's name. One without a short text is started by
// the daemon itself, and is not in the help.
type command struct {
	name, args, short string
	run               func(args []string) error
}

// commands lists them in the order of the help.
func commands() []command {
	return []command{
		{"run", "[--config FILE]", "run the daemon (the default)", cmdRun},
		{"dev", "[--dir DIR] [--module FILE] [--xki ADDRESS]", "run a daemon for trying keyward out, with HSMs in software", cmdDev},
		{"init", "[--config FILE] --shares-dir DIR", "make the master keys in the HSMs and an empty key store, once", cmdInit},
		{"recover", "[--config FILE] --share FILE...", "give the master keys to new HSMs when none has them any more", cmdRecover},
		{"check-config", "[--config FILE]", "say whether the configuration is right", cmdCheckConfig},
		{"reference", "[--seconds N]", "measure SoftHSM2 and libcrypto without keyward, for comparison", cmdReference},
		{admin.TokensCommand, "--module FILE", "list the tokens of a PKCS#11 library, as JSON", cmdTokens},
		{"version", "", "print the version", cmdVersion},
		{workerCommand, "", "", cmdWorker},
		{devMakeCommand, "", "", cmdDevMake},
	}
}

// errUsage marks a mistake in the arguments: exit code 2.
var errUsage = errors.New("usage")

// exitConfig says that a person has to act before the daemon can start: its configuration is wrong, or an HSM refused its PIN, which starting again would
// try again, and HSMs lock. The unit has it in RestartPreventExitStatus=. The number is sysexits.h's EX_CONFIG.
const exitConfig = 78

// misconfigured is the error of a daemon whose configuration has a mistake.
type misconfigured struct{ error }

// pinRefused says whether an HSM's refusal of a PIN is among the causes of err.
func pinRefused(err error) bool {
	return errors.Is(err, errPINRefused) || slices.ContainsFunc([]pkcs11.Error{pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_PIN_LOCKED},
		func(code pkcs11.Error) bool { return errors.Is(err, code) })
}

// Main is the program keywardd. It returns the exit code: 0, 1 for an error, 2 for wrong usage, or exitConfig.
func Main() int {
	err := dispatch(os.Args[1:])
	if status, ok := errors.AsType[exitStatus](err); ok {
		return int(status)
	}
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "keywardd: "+strings.TrimPrefix(err.Error(), errUsage.Error()+": "))
		return 2
	}
	// A list of errors, as of a configuration, has a line for each.
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(os.Stderr, "keywardd: "+strings.TrimSpace(line))
	}
	if _, wrong := errors.AsType[misconfigured](err); wrong || pinRefused(err) {
		return exitConfig
	}
	return 1
}

func dispatch(args []string) error {
	name := "run"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	} else if len(args) > 0 && (args[0] == "-h" || args[0] == "--help" || args[0] == "-help") {
		name = "help"
	}
	if name == "help" {
		help(os.Stdout)
		return nil
	}
	for _, c := range commands() {
		if c.name == name {
			return c.run(args)
		}
	}
	return fmt.Errorf("%w: there is no command %q; see keywardd help", errUsage, name)
}

func help(w io.Writer) {
	fmt.Fprint(w, "keywardd is the key management daemon of keyward.\n\n")
	for _, c := range commands() {
		if c.short == "" {
			continue
		}
		fmt.Fprintf(w, "  keywardd %s\n        %s\n", strings.TrimSpace(c.name+" "+c.args), c.short)
	}
	fmt.Fprintf(w, "\nThe configuration is %s unless --config says otherwise. To use the keys, see keywardctl.\n", config.DefaultPath)
}

// parse reads a command's flags. Nothing may be left over.
func parse(name string, args []string, define func(*flag.FlagSet)) error {
	fs := flag.NewFlagSet("keywardd "+name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // Main says what is wrong
	define(fs)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fs.SetOutput(os.Stdout)
			fs.Usage()
			return err
		}
		return fmt.Errorf("%w: %w; see keywardd %s --help", errUsage, err, name)
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("%w: keywardd %s takes no argument %q", errUsage, name, fs.Arg(0))
	}
	return nil
}

func configFlag(fs *flag.FlagSet, path *string) {
	fs.StringVar(path, "config", config.DefaultPath, "the configuration `file`")
}

func cmdRun(args []string) error {
	var path string
	if err := parse("run", args, func(fs *flag.FlagSet) { configFlag(fs, &path) }); err != nil {
		return err
	}
	return run(path, runOptions{})
}

func cmdCheckConfig(args []string) error {
	var path string
	if err := parse("check-config", args, func(fs *flag.FlagSet) { configFlag(fs, &path) }); err != nil {
		return err
	}
	c, err := config.Load(path)
	if err != nil {
		return err
	}
	if err := checkMachine(c); err != nil {
		return err
	}
	fmt.Printf("%s: all right (members: %d, instances: %d, peers: %d)\n", strings.Join(c.Files, ", "), len(c.Members), len(c.Instances), len(c.Peers))
	return nil
}

// checkMachine checks what the configuration needs of this machine: users, groups, libraries.
func checkMachine(c *config.Config) error {
	_, err := newPeerTable(c)
	errs := []error{err}
	if c.Sockets.Group != "" {
		if _, err := groupID(c.Sockets.Group); err != nil {
			errs = append(errs, err)
		}
	}
	for _, m := range c.Members {
		errs = append(errs, checkModule(&m))
	}
	for _, l := range c.Listeners {
		if l.KeyFile != "" { // a key of keyward is known to the daemon only
			_, err := readCertificate(&l)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func cmdVersion(args []string) error {
	if err := parse("version", args, func(*flag.FlagSet) {}); err != nil {
		return err
	}
	fmt.Println(Version())
	return nil
}
