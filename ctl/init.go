package ctl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"

	"github.com/keyward/keyward/daemon/admin"
)

// The first start of an appliance. keywardctl loads no library: what has to, keywardd does, as the daemon's own user, so that what works here works there.

// initPlan is all that is decided before anything is made.
type initPlan struct {
	Shares    int          `toml:"shares"`
	Threshold int          `toml:"threshold"`
	SharesDir string       `toml:"shares_dir"` // for answers: where the shares go, instead of the screen
	Members   []initMember `toml:"member"`
}

type initMember struct {
	Name        string            `toml:"name"`
	Module      string            `toml:"module"`
	TokenLabel  string            `toml:"token_label"` // or
	TokenSerial string            `toml:"token_serial"`
	PINFile     string            `toml:"pin_file"` // for answers
	Environment map[string]string `toml:"environment"`

	pin []byte // wiped when it is sealed
}

// token is what the token is known by.
func (m *initMember) token() string {
	if m.TokenSerial != "" {
		return "serial " + m.TokenSerial
	}
	return m.TokenLabel
}

// knownModules are where makers and distributions put their libraries, and the variables that those read. SoftHSM2 is the one that keyward is tested with.
var knownModules = []struct {
	path      string
	variables []string
}{
	{"/usr/lib/softhsm/libsofthsm2.so", []string{"SOFTHSM2_CONF"}},
	{"/usr/lib64/pkcs11/libsofthsm2.so", []string{"SOFTHSM2_CONF"}},
	{"/usr/safenet/lunaclient/lib/libCryptoki2_64.so", []string{"ChrystokiConfigurationPath"}},                      // Thales Luna
	{"/opt/nfast/toolkits/pkcs11/libcknfast.so", []string{"CKNFAST_FAKE_ACCELERATOR_LOGIN", "CKNFAST_LOADSHARING"}}, // Entrust nShield
	{"/opt/cloudhsm/lib/libcloudhsm_pkcs11.so", nil},                                                                // AWS CloudHSM
	{"/usr/lib/x86_64-linux-gnu/pkcs11/yubihsm_pkcs11.so", []string{"YUBIHSM_PKCS11_CONF"}},                         // YubiHSM 2
	{"/usr/lib/aarch64-linux-gnu/pkcs11/yubihsm_pkcs11.so", []string{"YUBIHSM_PKCS11_CONF"}},
	{"/usr/lib64/pkcs11/yubihsm_pkcs11.so", []string{"YUBIHSM_PKCS11_CONF"}},
	{"/opt/utimaco/lib/libcs_pkcs11_R3.so", []string{"CS_PKCS11_R3_CFG"}}, // Utimaco
	{"/usr/lib/libcs_pkcs11_R3.so", []string{"CS_PKCS11_R3_CFG"}},
}

// moduleVariables are those that a library reads, as far as that is known.
func moduleVariables(module string) []string {
	for _, known := range knownModules {
		if filepath.Base(known.path) == filepath.Base(module) {
			return known.variables
		}
	}
	return nil
}

// initSources are where a plan comes from.
type initSources struct {
	answers     string   // a file; empty: a person is asked
	modules     []string // to look for tokens in besides those that are known
	environment []string // of all members, each NAME=VALUE
}

func (c *cli) initCmd() *cobra.Command {
	var from initSources
	var shares []string
	var recovers bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Set keyward up on this machine, once: HSMs, master keys, recovery shares, service",
		Long: `Set keyward up on this machine, once, as root. It finds the tokens of the HSMs whose libraries are installed, asks which of them to use
and for their PINs, writes the configuration, has the PINs kept by systemd, encrypted where it can, makes the master keys in all tokens,
shows the recovery shares one by one, starts the service, and signs something to prove it.

Libraries have nothing of this shell's environment, as in the service later: --environment gives them what they need, and known variables of
makers that are set here (SOFTHSM2_CONF and the like) are asked about.

Nothing is made before all is asked. What was made is kept if a later step fails, and a second init goes on from there.

--recover is for when no HSM of the group is left: new tokens get its master keys from recovery shares (--share, once for each), and the store of
/var/lib/keyward, which must be there with its recovery file, goes on with them.

--answers is a TOML file that answers instead of a person:

  shares = 3
  threshold = 2
  shares_dir = "/media/usb/shares"     # one file each, in place of the screen; root's, mode 0700
  [[member]]
  name = "hsm-a"
  module = "/usr/lib/softhsm/libsofthsm2.so"
  token_label = "keyward-a"           # or token_serial, where labels don't tell tokens apart
  pin_file = "/media/usb/hsm-a.pin"    # with the PIN and nothing else, mode 0600
  environment = { SOFTHSM2_CONF = "/etc/keyward/softhsm2.conf" }`,
		Example: "  keywardctl init\n  keywardctl init --module /opt/vendor/libpkcs11.so --environment VENDOR_CONF=/etc/vendor.conf\n  keywardctl init --answers appliance.toml\n  keywardctl init --recover --share /media/anna/share-1-of-3 --share /media/ben/share-3-of-3",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from.answers != "" && (len(from.modules) > 0 || len(from.environment) > 0) {
				return usagef("--answers says the modules and their environment: leave --module and --environment out")
			}
			m, err := thisMachine()
			if err != nil {
				return err
			}
			if recovers {
				return c.recoverOn(cmd.Context(), m, from, shares)
			}
			if len(shares) > 0 {
				return usagef("--share is for --recover")
			}
			return c.initialize(cmd.Context(), m, from)
		},
	}
	cmd.Flags().StringVar(&from.answers, "answers", "", "file that answers what would be asked")
	cmd.Flags().StringArrayVar(&from.modules, "module", nil, "a PKCS#11 library to look for tokens in, besides those that are known; may be repeated")
	cmd.Flags().StringArrayVar(&from.environment, "environment", nil, "NAME=VALUE that the libraries find in their environment; may be repeated")
	cmd.Flags().BoolVar(&recovers, "recover", false, "give the master keys of the store that is there to new tokens, from recovery shares")
	cmd.Flags().StringArrayVar(&shares, "share", nil, "with --recover: a file with one recovery share; once for each")
	must(cmd.MarkFlagFilename("share"))
	must(cmd.MarkFlagFilename("answers"))
	must(cmd.MarkFlagFilename("module"))
	return cmd
}

// recoverOn has new tokens take the place of all that are lost.
func (c *cli) recoverOn(ctx context.Context, m *machine, from initSources, shares []string) error {
	if len(shares) == 0 {
		return usagef("--recover takes --share FILE, once for each recovery share")
	}
	if m.begun() != madeStore {
		return &codedError{code: exitFailure, err: fmt.Errorf("there is no store in %s that could be recovered", m.state), next: "put back the last copy of that directory"}
	}
	if err := m.runs(); err != nil {
		return err
	}
	texts, err := readShares(shares)
	defer func() {
		for _, text := range texts {
			clear(text)
		}
	}()
	if err != nil {
		return err
	}
	plan, err := c.makePlan(ctx, m, from)
	if plan != nil {
		defer plan.wipe()
	}
	if err != nil {
		return err
	}
	if err := m.stopService(ctx); err != nil {
		return err
	}
	secrets, err := m.secretDir()
	if err != nil {
		return err
	}
	defer os.RemoveAll(secrets) // in memory; what was in it is wiped by then
	sealed, err := m.sealPINs(plan, secrets)
	if err != nil {
		return err
	}
	c.say("PINs:           %s", sealed)
	if err := m.writeConfiguration(plan); err != nil {
		return err
	}
	c.say("configuration:  %s", m.hsmConfig())
	args := []string{"recover"}
	for i, text := range texts {
		path := filepath.Join(secrets, fmt.Sprint("share-", i))
		if err := m.lendSecret(path, text); err != nil {
			return err
		}
		args = append(args, "--share", path)
	}
	if err := m.withPINs(ctx, plan, secrets, args); err != nil {
		return err
	}
	c.say("master keys:    recovered, in %d tokens", len(plan.Members))
	if err := os.RemoveAll(m.sharesMark()); err != nil { // somebody has them
		return err
	}
	return c.start(ctx, m)
}

// makePlan takes the plan from the answers or a person, and checks it.
func (c *cli) makePlan(ctx context.Context, m *machine, from initSources) (plan *initPlan, err error) {
	if from.answers != "" {
		plan, err = c.readAnswers(ctx, from.answers)
	} else {
		plan, err = c.askPlan(ctx, m, from)
	}
	if err == nil {
		err = plan.check()
	}
	return plan, err
}

func (c *cli) initialize(ctx context.Context, m *machine, from initSources) (err error) {
	made := m.begun()
	shares, err := m.shares()
	if err != nil {
		return err
	}
	if made == madeNothing && len(shares) > 0 {
		return &codedError{code: exitFailure, err: fmt.Errorf("recovery shares of an earlier init are in %s, and neither its store nor its group is in %s", filepath.Dir(shares[0]), m.state),
			next: "if its master keys shall be given up: rm -rf " + secretDirs + "*, and initialize the tokens anew"}
	}
	if made != madeNothing && len(shares) == 0 {
		if m.sharesNotGiven() {
			return m.sharesLost()
		}
		if made == madeStore {
			if err := m.runs(); err != nil {
				return err
			}
		}
	}
	plan := &initPlan{}
	if made != madeStore || from.answers != "" { // else only shares are left to be shown, if anything
		plan, err = c.makePlan(ctx, m, from)
		if plan != nil {
			defer plan.wipe()
		}
		if err != nil {
			return err
		}
	}
	if plan.SharesDir != "" {
		if err := checkSharesDir(plan.SharesDir); err != nil {
			return err
		}
	}
	if made != madeStore {
		if from.answers == "" {
			if err := c.confirmPlan(ctx, plan); err != nil {
				return err
			}
		}
		if err := c.makeKeys(ctx, m, plan, made); err != nil {
			return err
		}
	}
	if err := c.giveShares(ctx, m, plan); err != nil {
		return hint(err, "the master keys are made; keywardctl init goes on with the shares, which are in memory (/run) and lost when this machine restarts")
	}
	return c.start(ctx, m)
}

// start starts the service, and has it sign something.
func (c *cli) start(ctx context.Context, m *machine) error {
	started, err := m.startService(ctx)
	if err != nil {
		return err
	}
	if !started {
		c.say("There is no systemd here that could start the service: keywardd run does.")
		return nil
	}
	if err := c.proveIt(ctx); err != nil {
		return hint(err, "keywardctl doctor says what is wrong")
	}
	c.say("keyward runs. next: keywardctl key create --instance kst-hardware --alias NAME")
	return nil
}

// makeKeys does all that ends with master keys, shares in memory, and a store.
func (c *cli) makeKeys(ctx context.Context, m *machine, plan *initPlan, made initState) error {
	secrets, err := m.secretDir()
	if err != nil {
		return err
	}
	sealed, err := m.sealPINs(plan, secrets)
	if err == nil {
		c.say("PINs:           %s", sealed)
		err = m.writeConfiguration(plan)
	}
	if err == nil {
		c.say("configuration:  %s", m.hsmConfig())
		err = m.ceremony(ctx, plan, secrets, made == madeKeys)
	}
	if err != nil {
		// If the master keys are made, their shares are nowhere else.
		if shares, globErr := m.shares(); globErr != nil || len(shares) == 0 {
			err = errors.Join(err, os.RemoveAll(secrets))
		}
		return err
	}
	c.say("master keys:    made, in %d tokens", len(plan.Members))
	return nil
}

// readAnswers reads a plan, with the PINs.
func (c *cli) readAnswers(ctx context.Context, file string) (*initPlan, error) {
	plan := &initPlan{Shares: defaultShares, Threshold: defaultThreshold}
	meta, err := toml.DecodeFile(file, plan)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("%s: there is nothing called %s; keywardctl init --help shows what there is", file, unknown[0])
	}
	if plan.SharesDir == "" {
		return nil, fmt.Errorf("%s: shares_dir is needed: where the recovery shares go, best a removable medium", file)
	}
	for i := range plan.Members {
		m := &plan.Members[i]
		if m.PINFile == "" {
			return plan, fmt.Errorf("%s: pin_file of %s is missing", file, m.Name)
		}
		if m.pin, err = c.readPIN(ctx, m.PINFile, m.Name); err != nil {
			return plan, fmt.Errorf("%s: pin_file of %s: %w", file, m.Name, err)
		}
	}
	return plan, nil
}

const (
	defaultShares    = 3
	defaultThreshold = 2
)

func (p *initPlan) wipe() {
	for i := range p.Members {
		clear(p.Members[i].pin)
	}
}

var memberName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// check finds what can be known to be wrong before anything is made.
func (p *initPlan) check() error {
	if len(p.Members) == 0 {
		return errors.New("there is no token to use: keyward needs at least one, and two or more so that one may fail; docs/install.md says how to make them")
	}
	if p.Threshold < 2 || p.Shares < p.Threshold || p.Shares > 64 {
		return fmt.Errorf("%d of %d shares: at least 2 must be needed, and at most 64 can be made", p.Threshold, p.Shares)
	}
	names := map[string]bool{}
	for i := range p.Members {
		m := &p.Members[i]
		switch {
		case !memberName.MatchString(m.Name):
			return fmt.Errorf("%q is no name for a member: it has up to 32 of a-z, 0-9 and -", m.Name)
		case names[m.Name]:
			return fmt.Errorf("two members are called %s", m.Name)
		case m.Module == "" || (m.TokenLabel == "") == (m.TokenSerial == ""):
			return fmt.Errorf("the member %s needs module, and token_label or token_serial", m.Name)
		case len(m.pin) == 0:
			return fmt.Errorf("the PIN of %s is empty", m.Name)
		}
		names[m.Name] = true
		for j := range p.Members {
			if o := &p.Members[j]; i != j && m.TokenLabel != "" && o.Module == m.Module && strings.HasPrefix(o.TokenLabel, m.TokenLabel) {
				return fmt.Errorf("the label %q is how %q begins, and some programs would take one token for the other: give one of them another label", m.TokenLabel, o.TokenLabel)
			}
		}
	}
	return nil
}

// askPlan asks a person.
func (c *cli) askPlan(ctx context.Context, m *machine, from initSources) (*initPlan, error) {
	if !isTerminal(c.stdin) {
		return nil, &codedError{code: exitUsage, err: errors.New("nobody can be asked here"), next: "--answers FILE answers; keywardctl init --help shows how"}
	}
	given := map[string]string{}
	for _, text := range from.environment {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, usagef("--environment takes NAME=VALUE, not %q", text)
		}
		given[name] = value
	}
	plan, modules := &initPlan{}, slices.Clone(from.modules)
	for _, known := range knownModules {
		if _, err := os.Stat(known.path); err == nil && !slices.Contains(modules, known.path) {
			modules = append(modules, known.path)
		}
	}
	if len(modules) == 0 {
		return nil, errors.New("no library of an HSM is where it is known to be: install it, or name it with --module")
	}
	for _, module := range modules {
		environment, err := c.askEnvironment(ctx, module, given)
		if err != nil {
			return plan, err
		}
		tokens, err := m.tokens(ctx, module, environment)
		if err != nil {
			return plan, err
		}
		c.say("%s has %d tokens", module, len(tokens))
		for _, t := range tokens {
			if !usable(&t) {
				c.say("  %q, serial %s: %s", t.Label, t.Serial, why(&t))
				continue
			}
			yes, err := c.ask(ctx, fmt.Sprintf("  Use %q (%s, serial %s)?", t.Label, t.Model, t.Serial), "yes")
			if err != nil {
				return plan, err
			}
			if !strings.HasPrefix(strings.ToLower(yes), "y") {
				continue
			}
			member := initMember{Module: module, TokenLabel: t.Label, Environment: environment}
			if slices.ContainsFunc(tokens, func(o admin.Token) bool { return o.Label == t.Label && o.Serial != t.Serial }) {
				member.TokenLabel, member.TokenSerial = "", t.Serial // the label does not tell them apart
			}
			if member.Name, err = c.ask(ctx, "  What shall keyward call it?", suggestName(t.Label, len(plan.Members))); err != nil {
				return plan, err
			}
			terminal, _ := c.stdin.(*os.File) // it is one
			if member.pin, err = c.typePIN(ctx, terminal, "  PIN of "+t.Label+": "); err != nil {
				return plan, err
			}
			plan.Members = append(plan.Members, member)
		}
	}
	if len(plan.Members) == 0 {
		return plan, nil // which check refuses
	}
	for _, q := range []struct {
		to        *int
		text      string
		suggested int // what is suggested
	}{{&plan.Shares, "How many people get a recovery share?", defaultShares}, {&plan.Threshold, "How many of them together bring the master keys back?", defaultThreshold}} {
		text, err := c.ask(ctx, q.text, strconv.Itoa(q.suggested))
		if err != nil {
			return plan, err
		}
		if *q.to, err = strconv.Atoi(text); err != nil {
			return plan, fmt.Errorf("%q is no number", text)
		}
	}
	return plan, nil
}

// askEnvironment gives the environment of a module: what was given, and what this shell has for it if the person wants that too.
func (c *cli) askEnvironment(ctx context.Context, module string, given map[string]string) (map[string]string, error) {
	environment := maps.Clone(given)
	for _, name := range moduleVariables(module) {
		value, here := os.LookupEnv(name)
		if _, ok := given[name]; ok || !here {
			continue
		}
		yes, err := c.ask(ctx, fmt.Sprintf("%s=%s is set here. Shall %s find it in its environment, now and in the service?", name, value, module), "yes")
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(strings.ToLower(yes), "y") {
			environment[name] = value
		}
	}
	return environment, nil
}

func usable(t *admin.Token) bool { return t.Initialized && t.UserPIN && !t.Locked && t.Label != "" }

// why says why a token can't be used.
func why(t *admin.Token) string {
	switch {
	case !t.Initialized:
		return "it is not initialized, so it can't be used"
	case !t.UserPIN:
		return "it has no user PIN yet, so it can't be used"
	case t.Locked:
		return "its PIN is locked, so it can't be used"
	}
	return "it has no label, so it can't be used"
}

// suggestName makes a member's name of a label.
func suggestName(label string, n int) string {
	name := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(label), "-"), "-")
	if memberName.MatchString(name) {
		return name
	}
	return fmt.Sprintf("hsm-%d", n+1)
}

// ask asks for a line; an empty one is what is suggested.
func (c *cli) ask(ctx context.Context, question, suggested string) (string, error) {
	fmt.Fprintf(c.stderr, "%s [%s] ", question, suggested)
	type line struct {
		text string
		err  error
	}
	read := make(chan line, 1)
	go func() { // ends with the line, or with the program
		var text []byte
		one := make([]byte, 1) // no more than the line, as a PIN may follow
		for {
			n, err := c.stdin.Read(one)
			if n == 1 && one[0] == '\n' || err != nil {
				read <- line{strings.TrimSpace(string(text)), err}
				return
			}
			text = append(text, one[:n]...)
		}
	}()
	select {
	case l := <-read:
		if l.err == nil && l.text == "" {
			l.text = suggested
		}
		return l.text, l.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// confirmPlan shows what will be made.
func (c *cli) confirmPlan(ctx context.Context, plan *initPlan) error {
	c.say("The master keys will be made in:")
	for _, m := range plan.Members {
		c.say("  %-12s %s of %s", m.Name, m.token(), m.Module)
	}
	c.say("Any %d of %d recovery shares will bring them back into a new HSM. This is done once, and can't be undone.", plan.Threshold, plan.Shares)
	if c.yes {
		return nil
	}
	// Not by confirm, which may read ahead of what is asked next.
	yes, err := c.ask(ctx, "Make them?", "no")
	if err == nil && !strings.HasPrefix(strings.ToLower(yes), "y") {
		err = errors.New("nothing was changed")
	}
	return err
}

// giveShares shows the shares that are there one by one, or writes them where the answers say. Each is wiped when all were seen.
func (c *cli) giveShares(ctx context.Context, m *machine, plan *initPlan) error {
	files, err := m.shares()
	if err != nil || len(files) == 0 {
		return err // none: an init before this one has shown them
	}
	if plan.SharesDir == "" && !isTerminal(c.stdin) {
		return errors.New("nobody is here to see the recovery shares; run it in a terminal, or with answers that have shares_dir")
	}
	group, err := m.group()
	if err != nil {
		return err
	}
	for i, file := range files {
		text, err := readOwned(file, m.uid)
		if err != nil {
			return err
		}
		if plan.SharesDir != "" {
			err = keepSecret(filepath.Join(plan.SharesDir, filepath.Base(file)+"-"+group[:8]), text) // one directory may hold the shares of several groups
		} else {
			fmt.Fprintf(c.stderr, "\n\x1b[2J\x1b[HRecovery share %d of %d. Write it down, for one person and nobody else:\n\n  %s\n\n", i+1, len(files), text)
			_, err = c.ask(ctx, "When it is written down, press Enter; the screen is cleared then.", "done")
			fmt.Fprint(c.stderr, "\x1b[2J\x1b[3J\x1b[H")
		}
		clear(text)
		if err != nil {
			return err
		}
	}
	if err := errors.Join(os.RemoveAll(m.sharesMark()), syncDir(m.state)); err != nil {
		return err
	}
	for _, file := range files {
		if err := wipeFile(file, m.uid); err != nil {
			return err
		}
	}
	if plan.SharesDir != "" {
		c.say("shares:         %d files in %s: give each to another person, and delete them", len(files), plan.SharesDir)
	}
	return m.removeSecretDirs()
}

// checkSharesDir sees, before there are shares, that they can be written to dir and be read by root only.
func checkSharesDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return hint(fmt.Errorf("shares_dir: %w", err), "mount the medium, or: mkdir -m 700 %s", dir)
	}
	stat, _ := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || stat == nil || stat.Uid != uint32(os.Geteuid()) || info.Mode().Perm()&0o077 != 0 {
		return hint(fmt.Errorf("shares_dir: %s has mode %v and may be used by others than root", dir, info.Mode()), "chown root %s, chmod 0700 %[1]s; a medium without owners is mounted with -o uid=0,umask=077", dir)
	}
	probe := filepath.Join(dir, ".keyward-init")
	if err := errors.Join(replaceSecret(probe, make([]byte, maxShare)), os.Remove(probe)); err != nil {
		return fmt.Errorf("shares_dir: it can't be written: %w", err)
	}
	return nil
}

// memberRows are the [[member]] rows of the configuration.
func (p *initPlan) memberRows() string {
	var b strings.Builder
	b.WriteString("# Written by keywardctl init. keyward.toml says what these keys mean, and what others there are.\n")
	for _, m := range p.Members {
		key, token := "token_label", m.TokenLabel
		if m.TokenSerial != "" {
			key, token = "token_serial", m.TokenSerial
		}
		fmt.Fprintf(&b, "\n[[member]]\nname = %q\nmodule = %q\n%s = %q\npin_credential = %[1]q\nunit = true\n", m.Name, m.Module, key, token)
		if len(m.Environment) > 0 {
			var all []string
			for _, name := range slices.Sorted(maps.Keys(m.Environment)) {
				all = append(all, fmt.Sprintf("%s = %q", name, m.Environment[name]))
			}
			fmt.Fprintf(&b, "environment = { %s }\n", strings.Join(all, ", "))
		}
	}
	return b.String()
}
