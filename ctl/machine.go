package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/kms/kmswire"
)

// machine is what init and doctor know of the machine that keyward is installed on.
type machine struct {
	etc, state string // directories of configuration and store
	units      string // of drop-ins
	keywardd   string // the program
	uid, gid   uint32 // of the daemon
	groups     []uint32
	groupNames []string // of those of the user keyward beside its own
}

// daemonUser is as whom the daemon runs.
const daemonUser = "keyward"

// unitNames are keyward's own.
var unitNames = []string{"keywardd.socket", "keywardd-pkcs11.socket", "keywardd.service"}

// installed is where everything is. keywardd is the one beside this program.
func installed() machine {
	m := machine{etc: "/etc/keyward", state: "/var/lib/keyward", units: "/etc/systemd/system", keywardd: "/usr/bin/keywardd"}
	if self, err := os.Executable(); err == nil {
		m.keywardd = filepath.Join(filepath.Dir(self), "keywardd")
	}
	return m
}

// thisMachine looks at it. It is for root.
func thisMachine() (*machine, error) {
	if os.Geteuid() != 0 {
		return nil, &codedError{code: exitDenied, err: errors.New("only root can set keyward up"), next: "sudo keywardctl init"}
	}
	m := installed()
	if _, err := os.Stat(m.keywardd); err != nil {
		return nil, fmt.Errorf("keywardd is not beside keywardctl: %w; install the package", err)
	}
	u, err := user.Lookup(daemonUser)
	if err != nil {
		return nil, fmt.Errorf("there is no user %s, as whom the daemon runs: install the package, which makes it", daemonUser)
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("the groups of the user %s: %w", daemonUser, err)
	}
	ids := []string{u.Uid, u.Gid}
	for _, id := range groups {
		if id == u.Gid {
			continue
		}
		g, err := user.LookupGroupId(id)
		if err != nil {
			return nil, fmt.Errorf("a group of the user %s: %w", daemonUser, err)
		}
		ids, m.groupNames = append(ids, id), append(m.groupNames, g.Name)
	}
	// SoftHSM2's tokens are for its group in Debian.
	if g, err := user.LookupGroup("softhsm"); err == nil && !slices.Contains(ids[1:], g.Gid) {
		ids = append(ids, g.Gid)
	}
	numbers := make([]uint32, len(ids))
	for i, id := range ids {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("the ID %q of the user or a group of %s: %w", id, daemonUser, err)
		}
		numbers[i] = uint32(n)
	}
	m.uid, m.gid, m.groups = numbers[0], numbers[1], numbers[1:]
	return &m, nil
}

func (m *machine) hsmConfig() string { return filepath.Join(m.etc, "conf.d", "hsm.toml") }

// initState is how far an init has come.
type initState int

const (
	madeNothing initState = iota
	madeKeys              // the master keys, but no store
	madeStore             // all but what can be done again
)

// begun says how far an earlier init came.
func (m *machine) begun() initState {
	if _, err := os.Lstat(filepath.Join(m.state, "store.db")); err == nil {
		return madeStore
	}
	if _, err := os.Lstat(filepath.Join(m.state, "hsm-group")); err == nil {
		return madeKeys
	}
	return madeNothing
}

// runs gives an error if the service does.
func (m *machine) runs() error {
	if exec.Command("systemctl", "is-active", "--quiet", "keywardd.service").Run() != nil {
		return nil
	}
	return &codedError{code: exitFailure, err: errors.New("keyward is set up here already, and runs; nothing was changed"), next: "keywardctl doctor says how it is"}
}

// sharesMark is a file that outlives a restart, while the shares do not.
func (m *machine) sharesMark() string { return filepath.Join(m.state, admin.SharesNotGiven) }

func (m *machine) sharesNotGiven() bool {
	_, err := os.Lstat(m.sharesMark())
	return err == nil
}

// sharesLost is what there is to say when the shares were not given and are not there.
func (m *machine) sharesLost() *codedError {
	return &codedError{code: exitFailure, err: errors.New("the recovery shares were never given, and are lost: this machine restarted before"),
		next: fmt.Sprintf("as long as no key matters begin again: systemctl stop keywardd, initialize the tokens anew, rm -rf %s/*, keywardctl init. Else no other HSM can get these master keys, ever; if you accept that, or enough shares were written down: rm %s", m.state, m.sharesMark())}
}

// group is the name of the group of the master keys.
func (m *machine) group() (string, error) {
	path := filepath.Join(m.state, "hsm-group")
	text, err := readOwned(path, m.uid)
	if err != nil {
		return "", err
	}
	name := strings.TrimSpace(string(text))
	if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(name) {
		return "", fmt.Errorf("%s has no name of a group of HSMs", path)
	}
	return name, nil
}

// secretDirs is where an init has what must be on no disk.
const secretDirs = "/run/keyward-init-"

// shares lists the recovery shares that nobody has seen yet.
func (m *machine) shares() ([]string, error) {
	files, err := filepath.Glob(secretDirs + "*/shares/share-*")
	slices.Sort(files)
	return files, err
}

func (m *machine) removeSecretDirs() error {
	dirs, err := filepath.Glob(secretDirs + "*")
	for _, dir := range dirs {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// command makes a command that runs as the daemon's user would.
func (m *machine) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, m.keywardd, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: m.uid, Gid: m.gid, Groups: m.groups}}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"} // what the units will not have must not help here; the members' environment is in the configuration
	return cmd
}

// tokens lists those that the daemon's user sees.
func (m *machine) tokens(ctx context.Context, module string, environment map[string]string) ([]admin.Token, error) {
	cmd := m.command(ctx, admin.TokensCommand, "--module", module)
	for name, value := range environment {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("the tokens of %s: %s", module, told(&said, err))
	}
	var all admin.Tokens
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, fmt.Errorf("the tokens of %s: %w", module, err)
	}
	return all.Tokens, nil
}

// told is what a program said, or how it ended.
func told(said *bytes.Buffer, err error) string {
	if text := strings.TrimSpace(said.String()); text != "" {
		return strings.TrimPrefix(text, "keywardd: ")
	}
	return err.Error()
}

// secretDir makes a directory in memory for what must be on no disk. It is root's; the daemon's user may open what it is given there.
func (m *machine) secretDir() (string, error) {
	dir, err := os.MkdirTemp(filepath.Dir(secretDirs), filepath.Base(secretDirs))
	if err != nil {
		return "", err
	}
	// The daemon's user may not write it, so that no name in it becomes that of another file. People are in the group too: the files are not for them.
	return dir, errors.Join(os.Chown(dir, 0, int(m.gid)), os.Chmod(dir, 0o710))
}

// sealPINs has systemd keep the PINs, each for the worker of its HSM alone, and puts them into dir for the ceremony. It says how they are kept.
func (m *machine) sealPINs(plan *initPlan, dir string) (how string, err error) {
	kept := filepath.Join(m.etc, "credentials")
	if err := os.MkdirAll(kept, 0o700); err != nil {
		return "", err
	}
	if err := m.forgetOthers(plan); err != nil {
		return "", err
	}
	var unencrypted error
	for i := range plan.Members {
		member := &plan.Members[i]
		// A PIN that was given now is a new one, to be tried once, whatever was refused before.
		if err := errors.Join(os.RemoveAll(m.refusedMark(member)), m.lendSecret(filepath.Join(dir, member.Name), member.pin)); err != nil {
			return "", err
		}
		if err := m.removeCredentials(member.Name); err != nil {
			return "", err
		}
		file, verb := filepath.Join(kept, member.Name+".cred"), "LoadCredentialEncrypted"
		if err := encryptCredential(member.pin, file); err != nil {
			unencrypted, file, verb = err, filepath.Join(kept, member.Name+".pin"), "LoadCredential"
			if err := writeSecret(file, member.pin); err != nil {
				return "", err
			}
		}
		clear(member.pin)
		text := writtenByInit + "what the worker of this HSM has and no other.\n[Service]\n" + fmt.Sprintf("%s=pin:%s\n", verb, file) + member.workerRights(m.groupNames)
		if err := m.writeDropIn("keyward-hsm@"+member.Name+".service", "hsm.conf", text); err != nil {
			return "", err
		}
	}
	sockets := strings.Join(m.memberUnits(), " ")
	if err := errors.Join(m.writeDropIn("keywardd.service", "network.conf", noNetwork),
		m.writeDropIn("keywardd.service", "hsm.conf", "# Written by keywardctl init: the workers of the HSMs.\n[Unit]\nWants="+sockets+"\nAfter="+sockets+"\n")); err != nil {
		return "", err
	}
	if unencrypted != nil {
		return kept + ", as files that only root can read, because systemd-creds can't encrypt them: " + unencrypted.Error(), nil
	}
	return "encrypted by systemd, in " + kept, nil
}

// writtenByInit begins the drop-ins that are init's to remove.
const writtenByInit = "# Written by keywardctl init: "

// removeCredentials removes the PIN of a member, in either form.
func (m *machine) removeCredentials(name string) error {
	path := filepath.Join(m.etc, "credentials", name)
	return errors.Join(os.RemoveAll(path+".cred"), os.RemoveAll(path+".pin"))
}

// forgetOthers removes what an earlier init made for members that the plan has not: their PINs must not stay, nor their units be waited for.
func (m *machine) forgetOthers(plan *initPlan) error {
	for _, unit := range m.memberUnits() {
		worker := strings.TrimSuffix(unit, ".socket") + ".service"
		name := strings.TrimSuffix(strings.TrimPrefix(worker, "keyward-hsm@"), ".service")
		if slices.ContainsFunc(plan.Members, func(member initMember) bool { return member.Name == name }) {
			continue
		}
		dir := filepath.Join(m.units, worker+".d")
		text, err := os.ReadFile(filepath.Join(dir, "hsm.conf"))
		if err != nil {
			return err
		}
		if !strings.HasPrefix(string(text), writtenByInit) {
			continue // an administrator's
		}
		if m.hasSystemd() {
			if out, err := exec.Command("systemctl", "disable", "--now", unit, worker).CombinedOutput(); err != nil {
				return fmt.Errorf("systemctl disable --now %s %s: %s", unit, worker, told(bytes.NewBuffer(out), err))
			}
		}
		if err := errors.Join(m.removeCredentials(name), os.RemoveAll(filepath.Join(dir, "hsm.conf"))); err != nil {
			return err
		}
	}
	return nil
}

// noNetwork is a drop-in for the daemon, which loads no library of an HSM.
const noNetwork = `# Written by keywardctl init: without a [[listener]] and without external keys the daemon needs no network. Delete this file before you configure either, then:
# systemctl daemon-reload, systemctl restart keywardd.
[Service]
PrivateNetwork=yes
IPAddressDeny=any
RestrictAddressFamilies=
RestrictAddressFamilies=AF_UNIX
`

// writeDropIn writes a file for a unit.
func (m *machine) writeDropIn(unit, name, text string) error {
	dir := filepath.Join(m.units, unit+".d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)
}

// credentialName is what the unit of a worker calls its PIN; systemd-creds seals it in.
const credentialName = "pin"

// encryptCredential has systemd-creds encrypt a secret for this machine, with its TPM if it has one.
func encryptCredential(secret []byte, file string) error {
	cmd := exec.Command("systemd-creds", "encrypt", "--name="+credentialName, "-", file)
	cmd.Stdin = bytes.NewReader(secret)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return errors.New(told(&said, err))
	}
	return os.Chmod(file, 0o600)
}

// workerRights are the lines of the unit of a member's worker that are for its library. groups are those that the user keyward is in, in which the library worked for init.
func (member *initMember) workerRights(groups []string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(member.Environment)) {
		fmt.Fprintf(&b, "Environment=%s\n", strings.ReplaceAll(strconv.Quote(name+"="+member.Environment[name]), "%", "%%"))
	}
	if !strings.Contains(filepath.Base(member.Module), "softhsm") {
		if len(groups) > 0 {
			fmt.Fprintf(&b, "SupplementaryGroups=%s\n", strings.Join(groups, " "))
		}
		return b.String()
	}
	// The tokens of SoftHSM2 are files, of the user who made them, which the ceremony changes too. It needs no network.
	b.WriteString("User=keyward\nGroup=keyward\nPrivateNetwork=yes\nIPAddressDeny=any\nRestrictAddressFamilies=\nRestrictAddressFamilies=AF_UNIX\n")
	conf := member.Environment["SOFTHSM2_CONF"]
	if conf == "" { // Debian's own: its files are for a group
		conf = "/etc/softhsm/softhsm2.conf"
		if _, err := user.LookupGroup("softhsm"); err == nil {
			b.WriteString("SupplementaryGroups=softhsm\n")
		}
	}
	text, err := os.ReadFile(conf)
	if err != nil {
		return b.String() // the ceremony says what is wrong
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, "=")
		if strings.TrimSpace(name) == "directories.tokendir" {
			fmt.Fprintf(&b, "ReadWritePaths=%s\n", strings.TrimSpace(value))
		}
	}
	return b.String()
}

// writeConfiguration writes the rows of the members, and has the daemon look at them.
func (m *machine) writeConfiguration(plan *initPlan) error {
	if err := os.MkdirAll(filepath.Join(m.etc, "conf.d"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(m.hsmConfig(), []byte(plan.memberRows()), 0o644); err != nil {
		return err
	}
	var said bytes.Buffer
	cmd := m.command(context.Background(), "check-config")
	cmd.Stdout, cmd.Stderr = io.Discard, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the configuration: %s", told(&said, err))
	}
	return nil
}

// ceremony makes the master keys and the store.
func (m *machine) ceremony(ctx context.Context, plan *initPlan, secrets string, resume bool) error {
	if resume {
		return m.withPINs(ctx, plan, secrets, []string{"init", "--continue"})
	}
	dir := filepath.Join(secrets, "shares")
	if !m.sharesNotGiven() {
		if err := errors.Join(writeSecret(m.sharesMark(), []byte("Removed by keywardctl init when the recovery shares were given.\n")), syncDir(m.state)); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, int(m.uid), int(m.gid))); err != nil {
		return err
	}
	err := m.withPINs(ctx, plan, secrets, []string{"init", "--shares-dir", dir, "--shares", strconv.Itoa(plan.Shares), "--threshold", strconv.Itoa(plan.Threshold)})
	return errors.Join(err, os.Chown(dir, 0, 0)) // from now on they are root's to give
}

// withPINs runs a command of keywardd that gets the PINs, which are wiped then.
func (m *machine) withPINs(ctx context.Context, plan *initPlan, secrets string, args []string) error {
	cmd := m.command(ctx, args...)
	cmd.Env = append(cmd.Env, "CREDENTIALS_DIRECTORY="+secrets)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &said
	err := cmd.Run()
	for i := range plan.Members {
		err = errors.Join(err, wipeFile(filepath.Join(secrets, plan.Members[i].Name), m.uid))
	}
	if err == nil {
		return nil
	}
	for i := range plan.Members {
		member := &plan.Members[i]
		if _, statErr := os.Lstat(m.refusedMark(member)); statErr != nil {
			continue
		}
		whence := "that you typed"
		if member.PINFile != "" {
			whence = "in " + member.PINFile
		}
		return &codedError{code: exitFailure, err: fmt.Errorf("the PIN %s for %s was refused by its HSM, which counts the refusals", whence, member.Name), next: "run keywardctl init again, as before, with the right PIN"}
	}
	return fmt.Errorf("the master keys: %s", told(&said, err))
}

// refusedMark is a file that keywardd makes when a member's HSM refused its PIN.
func (m *machine) refusedMark(member *initMember) string {
	return filepath.Join(m.state, "pin-refused-"+member.Name)
}

// hasSystemd says whether systemd runs here.
func (m *machine) hasSystemd() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

// stopService stops what runs, if there is systemd.
func (m *machine) stopService(ctx context.Context) error {
	if !m.hasSystemd() {
		return nil
	}
	out, err := exec.CommandContext(ctx, "systemctl", "stop", "keywardd.service").CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl stop keywardd.service: %s", told(bytes.NewBuffer(out), err))
	}
	return nil
}

// memberUnits are the sockets of the workers that have a drop-in.
func (m *machine) memberUnits() []string {
	files, _ := filepath.Glob(filepath.Join(m.units, "keyward-hsm@*.service.d", "hsm.conf")) // the pattern is a good one
	var all []string
	for _, file := range files {
		all = append(all, strings.TrimSuffix(filepath.Base(filepath.Dir(file)), ".service.d")+".socket")
	}
	return all
}

// startService enables and starts the units. false: there is no systemd.
func (m *machine) startService(ctx context.Context) (bool, error) {
	if !m.hasSystemd() {
		return false, nil
	}
	for _, args := range [][]string{{"daemon-reload"}, slices.Concat([]string{"enable", "--now"}, m.memberUnits(), unitNames)} {
		out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
		if err != nil {
			return true, fmt.Errorf("systemctl %s: %s", strings.Join(args, " "), told(bytes.NewBuffer(out), err))
		}
	}
	return true, nil
}

// proveIt has the service sign something with a key in the HSMs, which is made for that and waits for its deletion then.
func (c *cli) proveIt(ctx context.Context) error {
	var key kmswire.CreateKeyResponse
	err := c.call(ctx, "CreateKey", &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware", KeySpec: kmswire.ECP256, KeyUsage: kmswire.SignVerify, Description: "made by keywardctl init, for its test"}, &key)
	if err != nil {
		return err
	}
	id := key.KeyMetadata.KeyID
	digest := bytes.Repeat([]byte{0x5a}, 32) // of nothing in particular
	use := kmswire.AsymmetricSignRequest{KeyID: id, Algorithm: kmswire.ECDSASHA256, Digest: digest}
	var versions kmswire.ListKeyVersionsResponse
	if err := c.call(ctx, "ListKeyVersions", &kmswire.ListKeyVersionsRequest{KeyID: id}, &versions); err != nil {
		return err
	}
	if n := len(versions.KeyVersions.KeyVersion); n != 1 {
		return fmt.Errorf("the new key %s has %d versions", id, n)
	}
	use.KeyVersionID = versions.KeyVersions.KeyVersion[0].KeyVersionID
	var signed kmswire.AsymmetricSignResponse
	if err := c.call(ctx, "AsymmetricSign", &use, &signed); err != nil {
		return err
	}
	var verified kmswire.AsymmetricVerifyResponse
	if err := c.call(ctx, "AsymmetricVerify", &kmswire.AsymmetricVerifyRequest{KeyID: id, KeyVersionID: use.KeyVersionID, Algorithm: use.Algorithm, Digest: digest, Value: signed.Value}, &verified); err != nil {
		return err
	}
	if !verified.Value {
		return fmt.Errorf("the signature of %s does not verify", id)
	}
	if err := c.call(ctx, "ScheduleKeyDeletion", &kmswire.ScheduleKeyDeletionRequest{KeyID: id, PendingWindowInDays: 7}, &kmswire.EmptyResponse{}); err != nil {
		return err
	}
	c.say("signed test:    good, by a key in the HSMs, which is deleted in 7 days")
	return nil
}

// writeSecret writes a file that must not exist.
func writeSecret(path string, secret []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(secret)
	return errors.Join(err, f.Sync(), f.Close())
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lendSecret writes a file into a secretDir, for the daemon's user alone.
func (m *machine) lendSecret(path string, secret []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o400)
	if err != nil {
		return err
	}
	_, err = f.Write(secret)
	return errors.Join(err, f.Chown(int(m.uid), int(m.gid)), f.Close())
}

// keepSecret writes a file that is there with the same content, or not at all. It is durable then.
func keepSecret(path string, secret []byte) error {
	err := writeSecret(path, secret)
	if errors.Is(err, os.ErrExist) {
		is, readErr := os.ReadFile(path)
		defer clear(is)
		if readErr != nil {
			return readErr
		}
		if !bytes.Equal(is, secret) {
			return fmt.Errorf("%s is there with something else in it: move it away", path)
		}
		err = nil
	}
	return errors.Join(err, syncDir(filepath.Dir(path)))
}

// replaceSecret writes a file, whatever was there.
func replaceSecret(path string, secret []byte) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return writeSecret(path, secret)
}

// openOwned opens a file that the user uid could write, for reading and writing. It must be that user's and have no other name, so that root is not given another's file
// in its place.
func openOwned(path string, uid uint32) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = unix.Fstat(int(f.Fd()), &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 || st.Uid != uid) {
		err = fmt.Errorf("it is not a file of the user %d that has one name only: somebody put it there", uid)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return f, nil
}

// readOwned reads a file of the user uid, of no more than a share has. The caller wipes it.
func readOwned(path string, uid uint32) ([]byte, error) {
	f, err := openOwned(path, uid)
	if err != nil {
		return nil, err
	}
	text := make([]byte, maxShare+1)
	n, err := io.ReadFull(f, text)
	switch {
	case err == nil:
		err = fmt.Errorf("%s has more than %d octets", path, maxShare)
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		err = nil
	}
	return text[:n], errors.Join(err, f.Close())
}

// wipeFile writes over a file in memory that is the user uid's, and removes it. Its directory must be root's.
func wipeFile(path string, uid uint32) error {
	f, err := openOwned(path, uid)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.WriteAt(make([]byte, info.Size()), 0)
	}
	return errors.Join(err, f.Close(), os.Remove(path))
}
