package daemon

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/keyward/keyward/daemon/config"
)

// Files of a directory of keywardd dev.
const (
	devBegun  = "dev-begun" // the directory is ours
	devReady  = "dev-ready" // everything in it was made
	devConfig = "keyward.toml"
	devSocket = "admin.sock"
	devPKCS11 = "pkcs11.sock"
)

// devTokens are the two tokens. No label is the beginning of the other, so that a search that takes prefixes for matches
// would be noticed.
var devTokens = []string{"east", "west"}

func cmdDev(args []string) error {
	var dir, module string
	err := parse("dev", args, func(fs *flag.FlagSet) {
		fs.StringVar(&dir, "dir", ".keyward", "the `directory` for everything")
		fs.StringVar(&module, "module", "", "the PKCS#11 module `file` of SoftHSM2, if it is not where distributions put it")
	})
	if err != nil {
		return err
	}
	if err := harden(); err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if err := prepareDev(dir, module); err != nil {
		return err
	}
	return run(filepath.Join(dir, devConfig), runOptions{
		ready: func() { devWelcome(os.Stdout, dir) },
		// A trial in a container is welcome; its own user is the only one that is mapped.
		userNamespaces: true,
	})
}

// prepareDev makes the directory, or checks that an earlier start made it whole.
func prepareDev(dir, module string) error {
	if strings.ContainsAny(dir, "\n\"\\") {
		return fmt.Errorf("the path %q has characters that do not fit into a configuration file; choose another --dir", dir)
	}
	if n := len(filepath.Join(dir, devPKCS11)); n > 107 {
		return fmt.Errorf("%s is too long a path: the kernel takes at most 107 octets for a socket, and it would have %d; choose a shorter --dir", dir, n)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	if exists(filepath.Join(dir, devReady)) {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	if len(entries) > 0 {
		if exists(filepath.Join(dir, devBegun)) {
			return fmt.Errorf("%s is half made: an earlier start was cut off before it held any key; remove it (rm -r %s) and start again", dir, dir)
		}
		return fmt.Errorf("%s is not empty and was not made by keywardd dev; choose another --dir", dir)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	if module, err = findSoftHSM(module); err != nil {
		return err
	}
	return makeDevApart(dir, module)
}

// makeDevApart has a process of its own make the directory, for this one goes on as the daemon, which loads no HSM's library.
func makeDevApart(dir, module string) error {
	var said strings.Builder
	cmd := exec.Command(ownProgram, devMakeCommand, "--dir", dir, "--module", module)
	cmd.Stderr = &said
	err := cmd.Run()
	if err == nil {
		return nil
	}
	var why []string
	for line := range strings.Lines(said.String()) {
		why = append(why, strings.TrimPrefix(strings.TrimSpace(line), "keywardd: "))
	}
	if len(why) == 0 {
		why = []string{err.Error()}
	}
	return fmt.Errorf("making %s: %s", dir, strings.Join(why, "\n"))
}

// cmdDevMake is the process of makeDevApart.
func cmdDevMake(args []string) error {
	var dir, module string
	err := parse(devMakeCommand, args, func(fs *flag.FlagSet) {
		fs.StringVar(&dir, "dir", "", "the `directory`, which exists and is empty")
		fs.StringVar(&module, "module", "", "the PKCS#11 module `file`")
	})
	if err != nil {
		return err
	}
	if err := harden(); err != nil {
		return err
	}
	return makeDev(dir, module)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// makeDev makes tokens, configuration, master keys and store.
func makeDev(dir, module string) error {
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := writeNew(in(devBegun), nil, 0o600); err != nil {
		return err
	}
	if err := softHSMConfig(in("softhsm2.conf"), in("tokens")); err != nil {
		return err
	}
	if err := os.Setenv("SOFTHSM2_CONF", in("softhsm2.conf")); err != nil {
		return err
	}
	for _, name := range devTokens {
		soPIN, err := newPIN(in(name + ".so-pin"))
		if err != nil {
			return err
		}
		pin, err := newPIN(in(name + ".pin"))
		if err != nil {
			return err
		}
		if err := makeToken(module, name+"-keyward", soPIN, pin); err != nil {
			return fmt.Errorf("token %s: %w", name, err)
		}
	}
	if err := writeNew(in(devConfig), []byte(devConfigText(dir, module)), 0o600); err != nil {
		return err
	}
	c, err := config.Load(in(devConfig))
	if err != nil {
		return err
	}
	if err := initialize(c, initOptions{sharesDir: in("shares"), shares: 3, threshold: 2}, io.Discard); err != nil {
		return err
	}
	return errors.Join(writeNew(in(devReady), nil, 0o600), syncDir(dir))
}

// devConfigText is a configuration as an appliance has one, with everything in dir.
func devConfigText(dir, module string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Made by keywardd dev. The two HSM members are SoftHSM2 tokens: good for trying out, not for real keys.
region = "dev"
state_dir = "%[1]s/state"

[sockets]
admin = "%[1]s/%[2]s"
private = true

[pkcs11]
socket = "%[1]s/%[3]s"

[audit]
file = "%[1]s/audit.log"

[[instance]]
id = "kst-software"
type = "software"
name = "keys in keyward's own store, used by the daemon"

[[instance]]
id = "kst-hardware"
type = "hardware"
name = "keys made and used in the HSMs"
`, dir, devSocket, devPKCS11)
	for _, name := range devTokens {
		fmt.Fprintf(&b, `
[[member]]
name = "%[2]s"
module = "%[3]s"
token_label = "%[2]s-keyward"
pin_file = "%[1]s/%[2]s.pin"
environment = { SOFTHSM2_CONF = "%[1]s/softhsm2.conf" }
`, dir, name, module)
	}
	// Unix root is the root of the account without a row.
	if uid := os.Getuid(); uid != 0 {
		fmt.Fprintf(&b, `
[[peer]]
uid = %d
principal = "acs:ram::%s:root"
`, uid, config.DefaultAccount)
	}
	return b.String()
}

// devWelcome says what can be done now, in commands to paste.
func devWelcome(w io.Writer, dir string) {
	ctl := "keywardctl"
	// In a source tree the programs are not installed.
	if self, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(self), ctl); exists(beside) {
			ctl = beside
			if cwd, err := os.Getwd(); err == nil {
				if rel, err := filepath.Rel(cwd, beside); err == nil && len(rel) < len(beside) {
					ctl = rel
				}
			}
		}
	}
	fmt.Fprintf(w, `keyward runs, with everything in %[1]s. In another terminal:

  export KEYWARD_SOCKET=%[2]s
  %[3]s status
  %[3]s key create --instance kst-software --spec Aliyun_AES_256 --alias alias/files
  %[3]s encrypt --key alias/files FILE
  %[3]s key create --instance kst-hardware --spec EC_P256 --usage SIGN/VERIFY --alias alias/release
  %[3]s sign --key alias/release FILE

Programs that know PKCS#11 find the same keys at %[4]s.

Stop it with Ctrl-C. Start it again with the same command: the keys stay.
`, dir, strconv.Quote(filepath.Join(dir, devSocket)), ctl, filepath.Join(dir, devPKCS11))
}
