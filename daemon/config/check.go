package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
)

// maxSocketPath is what the kernel takes: sun_path has 108 octets with the closing zero.
const maxSocketPath = 107

var (
	accountForm   = regexp.MustCompile(`^[0-9]{16}$`)
	principalForm = regexp.MustCompile(`^acs:ram::([0-9]{16}):(root|user/[A-Za-z0-9._@-]{1,64}|role/[A-Za-z0-9._@-]{1,64})$`)
	instanceForm  = regexp.MustCompile(`^kst-[a-z0-9][a-z0-9-]{0,59}$`)
	nameForm      = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	regionForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	variableForm  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// Levels are the values of log.level, from most to least talk.
var Levels = []string{"debug", "info", "warn", "error"}

// The types of instances.
const (
	Software = "software"
	Hardware = "hardware"
	External = "external"
)

// checker collects what is wrong.
type checker struct {
	c     *Config
	where places
	errs  []error
}

func (k *checker) bad(key, format string, args ...any) {
	k.errs = append(k.errs, fmt.Errorf("%s: %s", k.where.at(k.c, key), fmt.Sprintf(format, args...)))
}

// path complains about a path that depends on where the daemon was started.
func (k *checker) path(key, value string) bool {
	if value != "" && !filepath.IsAbs(value) {
		k.bad(key, "%s = %q is a relative path; write the whole path, beginning with /", lastOf(key), value)
		return false
	}
	return value != ""
}

func lastOf(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

// check looks at everything that can be known without HSM, store and network: the form of values, and PIN files. It
// gives one error for each thing that is wrong.
func (c *Config) check(where places) []error {
	k := &checker{c: c, where: where}
	if !regionForm.MatchString(c.Region) {
		k.bad("region", "region = %q; use lower-case letters, digits and hyphens, such as %q", c.Region, DefaultRegion)
	}
	if len(c.Accounts) == 0 {
		k.bad("accounts", "accounts is empty; there must be at least one, such as %q", DefaultAccount)
	}
	for i, a := range c.Accounts {
		if !accountForm.MatchString(a) {
			k.bad("accounts", "account %q must be 16 digits", a)
		}
		if slices.Contains(c.Accounts[:i], a) {
			k.bad("accounts", "account %q is there twice", a)
		}
	}
	if c.StateDir == "" {
		k.bad("state_dir", "state_dir is empty; the store needs a directory, such as %q", DefaultStateDir)
	}
	k.path("state_dir", c.StateDir)
	if d := time.Duration(c.ShutdownTimeout); d <= 0 || d > 10*time.Minute {
		k.bad("shutdown_timeout", "shutdown_timeout must be more than 0 and at most 10m")
	}
	k.sockets()
	k.pkcs11()
	if !slices.Contains(Levels, c.Log.Level) {
		k.bad("log.level", "level = %q; known are %s", c.Log.Level, strings.Join(Levels, ", "))
	}
	k.path("audit.file", c.Audit.File)
	if c.Pool.Queue < 1 || c.Pool.Queue > 1<<20 {
		k.bad("pool.queue", "queue = %d; it must be 1 to 1048576", c.Pool.Queue)
	}
	if i := c.Pool.Isolation; i != Process && i != None {
		k.bad("pool.isolation", "isolation = %q; known are %s (a crashing HSM library takes only its own process along) and %s", i, Process, None)
	}
	k.members()
	k.shares()
	k.instances()
	for i := range c.Peers {
		key := fmt.Sprintf("peer[%d]", i)
		c.Peers[i].At = where.at(c, key)
		k.peer(key, &c.Peers[i])
	}
	k.services()
	k.listeners()
	return k.errs
}

func (k *checker) sockets() {
	s := &k.c.Sockets
	if s.Admin == "" {
		k.bad("sockets.admin", "admin is empty; without it nobody could reach the daemon. The default is %q", DefaultAdminSocket)
	}
	if k.path("sockets.admin", s.Admin) && len(s.Admin) > maxSocketPath {
		k.bad("sockets.admin", "admin = %q has %d octets, but the kernel takes at most %d for a socket; choose a shorter directory",
			s.Admin, len(s.Admin), maxSocketPath)
	}
	if s.MaxConnections < 1 || s.MaxConnections > 100_000 {
		k.bad("sockets.max_connections", "max_connections = %d; it must be 1 to 100000", s.MaxConnections)
	}
	if s.Private && s.Group != "" {
		k.bad("sockets.group", "group is given, but private = true lets only the daemon's own user in; drop one of them")
	}
}

func (k *checker) pkcs11() {
	p := &k.c.PKCS11
	if k.path("pkcs11.socket", p.Socket) && len(p.Socket) > maxSocketPath {
		k.bad("pkcs11.socket", "socket = %q has %d octets, but the kernel takes at most %d for a socket; choose a shorter directory",
			p.Socket, len(p.Socket), maxSocketPath)
	}
	if p.Socket != "" && p.Socket == k.c.Sockets.Admin {
		k.bad("pkcs11.socket", "socket is sockets.admin too; each needs a path of its own")
	}
	if p.MaxConnections < 1 || p.MaxConnections > 100_000 {
		k.bad("pkcs11.max_connections", "max_connections = %d; it must be 1 to 100000", p.MaxConnections)
	}
	if p.MaxConnectionsPerUser < 1 || p.MaxConnectionsPerUser > p.MaxConnections {
		k.bad("pkcs11.max_connections_per_user", "max_connections_per_user = %d; it must be 1 to max_connections", p.MaxConnectionsPerUser)
	}
}

func (k *checker) members() {
	names, tokens := map[string]bool{}, map[string]string{}
	environment := map[string]string{}
	for i := range k.c.Members {
		m := &k.c.Members[i]
		key := fmt.Sprintf("member[%d]", i)
		who := fmt.Sprintf("member %q", m.Name)
		if m.Name == "" {
			who = "this member"
		}
		if !nameForm.MatchString(m.Name) {
			k.bad(key+".name", "%s needs a name of lower-case letters, digits and hyphens, at most 32", who)
		} else if names[m.Name] {
			k.bad(key+".name", "member %q is there twice; each needs a name of its own", m.Name)
		}
		names[m.Name] = true
		if m.Module == "" {
			k.bad(key+".module", "%s has no module, the path of the HSM's PKCS#11 library", who)
		}
		k.path(key+".module", m.Module)
		switch {
		case (m.TokenLabel == "") == (m.TokenSerial == ""):
			k.bad(key+".token_label", "%s needs exactly one of token_label and token_serial", who)
		case len(m.TokenLabel) > 32 || len(m.TokenSerial) > 16:
			k.bad(key+".token_label", "%s: a token label has at most 32 octets and a serial at most 16", who)
		default:
			token := m.Module + " " + m.TokenLabel + m.TokenSerial
			if other, ok := tokens[token]; ok {
				k.bad(key+".token_label", "%s names the same token as member %q; a token can be one member only", who, other)
			}
			tokens[token] = m.Name
		}
		if m.MaxSessions < 0 || m.MaxSessions > 4096 {
			k.bad(key+".max_sessions", "%s: max_sessions = %d; it must be 0 (what the token says) to 4096", who, m.MaxSessions)
		}
		switch {
		case m.Workers < 1 || m.Workers > maxWorkers:
			k.bad(key+".workers", "%s: workers = %d; it must be 1 to %d", who, m.Workers, maxWorkers)
		case m.Workers > 1 && k.c.Pool.Isolation == None:
			k.bad(key+".workers", "%s: workers = %d, but isolation = %q in [pool] means that there are no worker processes; drop one of the two", who, m.Workers, None)
		}
		if m.Unit && (m.Workers != 1 || m.PINCredential == "" || k.c.Pool.Isolation == None) {
			k.bad(key+".unit", "%s: with unit = true there is one worker, with a pin_credential, and isolation = %q", who, Process)
		}
		if d := time.Duration(m.CallTimeout); d != 0 && (d < minCallTimeout || d > maxCallTimeout) {
			k.bad(key+".call_timeout", "%s: call_timeout = %v; it must be 0 (by the kind of operation), or 100ms to 10m", who, d)
		}
		k.pin(key, who, m)
		for name, value := range m.Environment {
			if !variableForm.MatchString(name) {
				k.bad(key+".environment", "%s: %q is no name of an environment variable", who, name)
			}
			// Without isolation the modules live in one process, so they share its environment.
			if other, ok := environment[name]; ok && other != value && k.c.Pool.Isolation == None {
				k.bad(key+".environment."+name, "%s sets %s to another value than an earlier member; with isolation = %q they share one process, so it must be the same", who, name, None)
			}
			environment[name] = value
		}
	}
}

// The bounds of a member's workers and call_timeout.
const (
	maxWorkers     = 16
	minCallTimeout = 100 * time.Millisecond
	maxCallTimeout = 10 * time.Minute
)

func (k *checker) shares() {
	seen := map[string]bool{}
	for i, s := range k.c.Shares {
		key := fmt.Sprintf("share[%d]", i)
		k.principal(key, "this share", s.Principal)
		if seen[s.Principal] && s.Principal != "" {
			k.bad(key+".principal", "principal %q has two shares; drop one", s.Principal)
		}
		seen[s.Principal] = true
		if s.Weight < 1 || s.Weight > 1000 {
			k.bad(key+".weight", "weight = %d; it must be 1 to 1000", s.Weight)
		}
		if s.Queue < 0 || s.Queue > 1<<20 {
			k.bad(key+".queue", "queue = %d; it must be 0 (as many as places are free) to 1048576", s.Queue)
		}
	}
}

// pin checks that the PIN can be had, without reading it.
func (k *checker) pin(key, who string, m *Member) {
	switch {
	case m.PINFile != "" && m.PINCredential != "":
		k.bad(key+".pin_credential", "%s has both pin_file and pin_credential; drop one", who)
	case m.PINFile == "" && m.PINCredential == "":
		k.bad(key, "%s has no PIN: set pin_credential (a systemd credential) or pin_file (a file that only the daemon can read). The PIN itself never stands in the configuration", who)
	case m.PINFile != "":
		if !k.path(key+".pin_file", m.PINFile) {
			return
		}
		if err := checkPINFile(m.PINFile); err != nil {
			k.bad(key+".pin_file", "%s: %v", who, err)
		}
	default:
		if strings.ContainsRune(m.PINCredential, '/') {
			k.bad(key+".pin_credential", "%s: pin_credential is the name of a systemd credential, not a path; use pin_file for a path", who)
		}
		// Whether the credential is there is asked when the PIN is needed, because check-config also runs outside the unit.
	}
}

func (k *checker) instances() {
	seen := map[string]bool{}
	defaults := map[string]string{} // by account
	if len(k.c.Instances) == 0 {
		k.bad("instance", "there is no [[instance]], so no key could be created; add one with id, type and name")
	}
	for i, in := range k.c.Instances {
		key := fmt.Sprintf("instance[%d]", i)
		if !instanceForm.MatchString(in.ID) {
			k.bad(key+".id", "id = %q; an instance's id is kst- and lower-case letters, digits and hyphens, such as kst-hardware", in.ID)
		}
		if seen[in.ID] {
			k.bad(key+".id", "instance %q is there twice", in.ID)
		}
		seen[in.ID] = true
		switch in.Type {
		case Software, Hardware:
		case External:
			if len(in.SharedWith) > 0 {
				k.bad(key+".shared_with", "instance %q is external; only software and hardware instances can be shared", in.ID)
			}
		default:
			k.bad(key+".type", "instance %q: type = %q; known are %s, %s, %s", in.ID, in.Type, Software, Hardware, External)
		}
		k.quotas(key, &in)
		k.sharing(key, &in)
		if other, ok := defaults[in.Account]; ok && in.Default {
			k.bad(key+".default", "instances %q and %q are both the default of account %s; it can have one", other, in.ID, in.Account)
		}
		if in.Default {
			defaults[in.Account] = in.ID
		}
	}
	if len(k.c.Members) == 0 {
		k.bad("member", "there is no [[member]]; keyward needs at least one HSM token, also for software keys, whose store key it holds")
	}
}

// Limits of an instance's quotas. They only keep typing mistakes out.
const (
	maxKeys   = 100_000_000
	maxAccess = 10_000
	maxQPS    = 1_000_000
)

func (k *checker) quotas(key string, in *Instance) {
	for _, q := range []struct {
		name            string
		value, from, to int
	}{{"keys", in.Keys, 1, maxKeys}, {"access", in.Access, 0, maxAccess}, {"qps", in.QPS, 0, maxQPS}} {
		if q.value < q.from || q.value > q.to {
			k.bad(key+"."+q.name, "instance %q: %s = %d; it must be %d to %d", in.ID, q.name, q.value, q.from, q.to)
		}
	}
}

// sharing checks the accounts of an instance.
func (k *checker) sharing(key string, in *Instance) {
	if in.Account != "" && !slices.Contains(k.c.Accounts, in.Account) {
		k.bad(key+".account", "instance %q: account %q is not among accounts", in.ID, in.Account)
	}
	for i, a := range in.SharedWith {
		switch {
		case a == in.Account:
			k.bad(key+".shared_with", "instance %q: account %q owns it and need not be in shared_with", in.ID, a)
		case !slices.Contains(k.c.Accounts, a):
			k.bad(key+".shared_with", "instance %q: account %q in shared_with is not among accounts", in.ID, a)
		case slices.Contains(in.SharedWith[:i], a):
			k.bad(key+".shared_with", "instance %q: account %q is in shared_with twice", in.ID, a)
		}
	}
	if n := len(in.SharedWith); n > in.Access && in.Access >= 0 {
		k.bad(key+".shared_with", "instance %q: %d accounts share it, and access = %d lets no more in; raise access", in.ID, n, in.Access)
	}
}

func (k *checker) listeners() {
	seen := map[string]bool{}
	for i := range k.c.Listeners {
		l := &k.c.Listeners[i]
		key := fmt.Sprintf("listener[%d]", i)
		addr, err := netip.ParseAddrPort(l.Address)
		switch {
		case err != nil:
			k.bad(key+".address", "address = %q; it must be an IP address and a port, such as \"0.0.0.0:8443\", \"[::]:8443\" or \"10.0.0.1:8443\"", l.Address)
		case seen[addr.String()] && addr.Port() != 0:
			k.bad(key+".address", "address %q is there twice", l.Address)
		}
		seen[addr.String()] = true
		if l.CertFile == "" {
			k.bad(key, "listener %q has no cert_file: there is TLS only, so it needs a certificate", l.Address)
		}
		if (l.KeyFile == "") == (l.Key == "") {
			k.bad(key, "listener %q needs exactly one of key_file (the certificate's private key in a file) and key (the ID or alias of a key of keyward)", l.Address)
		}
		k.path(key+".cert_file", l.CertFile)
		k.path(key+".key_file", l.KeyFile)
		k.path(key+".client_ca_file", l.ClientCAFile)
		if l.Serves != KMS && l.Serves != XKI {
			k.bad(key+".serves", "serves = %q; known are %s (the KMS API) and %s (external keys of other key management services)", l.Serves, KMS, XKI)
		}
		if len(l.ClientNames) > 0 && l.ClientCAFile == "" {
			k.bad(key+".client_names", "client_names without client_ca_file: a name counts only in a certificate that somebody you trust has signed")
		}
		if l.PingAddress != "" {
			ping, err := netip.ParseAddrPort(l.PingAddress)
			switch {
			case err != nil:
				k.bad(key+".ping_address", "ping_address = %q; it must be an IP address and a port, such as \"0.0.0.0:8080\"", l.PingAddress)
			case l.Serves != XKI:
				k.bad(key+".ping_address", "ping_address is of listeners that serve %s only", XKI)
			case seen[ping.String()] && ping.Port() != 0:
				k.bad(key+".ping_address", "the address %q is there twice", l.PingAddress)
			}
			seen[ping.String()] = true
		}
		if slices.Contains(l.ClientNames, "") {
			k.bad(key+".client_names", "an empty name in client_names")
		}
		if l.MaxConnections < 1 || l.MaxConnections > 100_000 {
			k.bad(key+".max_connections", "max_connections = %d; it must be 1 to 100000", l.MaxConnections)
		}
		if l.MaxPerAddress < 1 || l.MaxPerAddress > 100_000 {
			k.bad(key+".max_connections_per_address", "max_connections_per_address = %d; it must be 1 to 100000", l.MaxPerAddress)
		}
	}
}

func (k *checker) peer(key string, p *Peer) {
	if p.User != "" && p.UID != nil {
		k.bad(key+".uid", "this peer has both user and uid; drop one")
	}
	if p.Group != "" && p.GID != nil {
		k.bad(key+".gid", "this peer has both group and gid; drop one")
	}
	if p.User == "" && p.UID == nil && p.Group == "" && p.GID == nil {
		if p.Unit != "" {
			k.bad(key+".unit", "this peer names only a unit; add the user that it runs as. The kernel vouches for a caller's user and group, not for its process")
		} else {
			k.bad(key, "this peer says of nobody who it is; give user, uid, group or gid")
		}
	}
	for _, id := range []*uint32{p.UID, p.GID} {
		if id != nil && *id == 65534 {
			k.bad(key, "65534 is nobody: the kernel shows it for every caller that it can't name, so it can't be mapped")
		}
	}
	k.principal(key, "this peer", p.Principal)
}

// services checks the [[service]] rows. A unit alone makes nobody a service, for the same reason as in [[peer]].
func (k *checker) services() {
	codes, rows := map[string]bool{}, map[[2]string]string{}
	for i := range k.c.Services {
		s := &k.c.Services[i]
		key := fmt.Sprintf("service[%d]", i)
		who := fmt.Sprintf("service %q", s.Code)
		if s.Code == "" {
			who = "this service"
		}
		if !nameForm.MatchString(s.Code) {
			k.bad(key+".code", "%s needs a code of lower-case letters, digits and hyphens, at most 32", who)
		} else if codes[s.Code] {
			k.bad(key+".code", "%s is there twice; each needs a code of its own", who)
		}
		codes[s.Code] = true
		k.line(key+".name", who, s.Name, 64)
		k.line(key+".entry", who, s.Entry, 512)
		if len(s.Principals) == 0 {
			k.bad(key+".principals", "%s has no principals, such as [\"acs:ram::%s:role/storage\"]; they say which callers are this service", who, k.c.FirstAccount())
		}
		for _, p := range s.Principals {
			k.principalAt(key+".principals", who, p)
			if m := principalForm.FindStringSubmatch(p); m != nil && m[2] == "root" && s.Unit == "" {
				k.bad(key+".principals", "%s is recognised by %s, which every administrator is; give it a user or role of its own, or name its unit", who, p)
			}
			if other, ok := rows[[2]string{p, s.Unit}]; ok {
				k.bad(key+".principals", "%s is recognised by %s, and so is service %q; a caller can be one of them only", who, p, other)
			}
			rows[[2]string{p, s.Unit}] = s.Code
		}
	}
}

// line checks a text that is shown to people in one line.
func (k *checker) line(key, who, text string, most int) {
	if len(text) > most || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		k.bad(key, "%s: %s must be one line of at most %d octets", who, lastOf(key), most)
	}
}

// principal checks the principal of a table.
func (k *checker) principal(key, who, principal string) {
	k.principalAt(key+".principal", who, principal)
}

func (k *checker) principalAt(key, who, principal string) {
	m := principalForm.FindStringSubmatch(principal)
	switch {
	case principal == "":
		k.bad(key, "%s has no principal, such as acs:ram::%s:user/deploy", who, k.c.FirstAccount())
	case m == nil:
		k.bad(key, "principal = %q; it must be acs:ram::ACCOUNT:root, acs:ram::ACCOUNT:user/NAME or acs:ram::ACCOUNT:role/NAME, without wildcards", principal)
	case !slices.Contains(k.c.Accounts, m[1]):
		k.bad(key, "principal = %q is of account %s, which is not among accounts", principal, m[1])
	}
}

// FirstAccount is the account that the Unix user root is the root of.
func (c *Config) FirstAccount() string {
	if len(c.Accounts) == 0 {
		return DefaultAccount
	}
	return c.Accounts[0]
}

// AccountOf is the account of a principal that Load has checked.
func AccountOf(principal string) string {
	if m := principalForm.FindStringSubmatch(principal); m != nil {
		return m[1]
	}
	return ""
}
