package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

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
	var dir, module, xki string
	err := parse("dev", args, func(fs *flag.FlagSet) {
		fs.StringVar(&dir, "dir", ".keyward", "the `directory` for everything")
		fs.StringVar(&module, "module", "", "the PKCS#11 module `file` of SoftHSM2, if it is not where distributions put it")
		fs.StringVar(&xki, "xki", "", "when the directory is made: the `address` where other key management services may use keys, such as 127.0.0.1:8443, with a certificate for localhost")
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
	if err := prepareDev(dir, module, xki); err != nil {
		return err
	}
	return run(filepath.Join(dir, devConfig), runOptions{
		ready: func() { devWelcome(os.Stdout, dir) },
		// A trial in a container is welcome; its own user is the only one that is mapped.
		userNamespaces: true,
	})
}

// prepareDev makes the directory, or checks that an earlier start made it whole.
func prepareDev(dir, module, xki string) error {
	if strings.ContainsAny(dir, "\n\"\\") {
		return fmt.Errorf("the path %q has characters that do not fit into a configuration file; choose another --dir", dir)
	}
	if _, err := netip.ParseAddrPort(xki); xki != "" && err != nil {
		return fmt.Errorf("--xki %q: it is an IP address and a port, such as 127.0.0.1:8443", xki)
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
	return makeDevApart(dir, module, xki)
}

// makeDevApart has a process of its own make the directory, for this one goes on as the daemon, which loads no HSM's library.
func makeDevApart(dir, module, xki string) error {
	var said strings.Builder
	cmd := exec.Command(ownProgram, devMakeCommand, "--dir", dir, "--module", module, "--xki", xki)
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
	var dir, module, xki string
	err := parse(devMakeCommand, args, func(fs *flag.FlagSet) {
		fs.StringVar(&dir, "dir", "", "the `directory`, which exists and is empty")
		fs.StringVar(&module, "module", "", "the PKCS#11 module `file`")
		fs.StringVar(&xki, "xki", "", "the `address` where other key management services may use keys; empty: nowhere")
	})
	if err != nil {
		return err
	}
	if err := harden(); err != nil {
		return err
	}
	return makeDev(dir, module, xki)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// makeDev makes tokens, configuration, master keys and store. xki is an address, or empty.
func makeDev(dir, module, xki string) error {
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
	if err := writeNew(in(devConfig), []byte(devConfigText(dir, module, xki)), 0o600); err != nil {
		return err
	}
	if xki != "" {
		if err := devCertificate(in("xki-cert.pem"), in("xki-key.pem")); err != nil {
			return err
		}
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
func devConfigText(dir, module, xki string) string {
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
	if xki != "" {
		fmt.Fprintf(&b, `
[[listener]]
address = "%s"
serves = "xki"
cert_file = "%[2]s/xki-cert.pem"
key_file = "%[2]s/xki-key.pem"
`, xki, dir)
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

// devCertificate writes a certificate for this machine under its loopback names, which signs itself, and its private key.
func devCertificate(certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	defer clear(private)
	return errors.Join(writeNew(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		writeNew(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
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
