// Package config is keyward's configuration file: its keys, their defaults, and a strict way of reading them. It knows
// nothing of what the values are for; package daemon turns them into the parts that run.
//
// The file is TOML. A key that is not known is an error, with the place and the nearest known key, because a typo in a
// security setting must not pass as its default. Files in conf.d beside the main file are read after it in order of
// name: a value set there replaces the earlier one, a table in double brackets ([[member]], [[share]], [[instance]],
// [[peer]], [[service]], [[listener]]) is added to the earlier ones.
package config

import (
	"fmt"
	"time"
)

// Config is everything the file can say. Load fills in the defaults, so that every field of a loaded Config can be used
// as it is.
type Config struct {
	Region          string     `toml:"region"`
	Accounts        []string   `toml:"accounts"`
	StateDir        string     `toml:"state_dir"`
	ShutdownTimeout Duration   `toml:"shutdown_timeout"`
	Sockets         Sockets    `toml:"sockets"`
	PKCS11          PKCS11     `toml:"pkcs11"`
	Log             Log        `toml:"log"`
	Audit           Audit      `toml:"audit"`
	Pool            Pool       `toml:"pool"`
	Members         []Member   `toml:"member"`
	Shares          []Share    `toml:"share"`
	Instances       []Instance `toml:"instance"`
	Peers           []Peer     `toml:"peer"`
	Services        []Service  `toml:"service"`
	Listeners       []Listener `toml:"listener"`

	// Path is the main file, absolute. Files are all files that were read, in order.
	Path  string   `toml:"-"`
	Files []string `toml:"-"`
}

// Sockets says where local programs reach the daemon.
type Sockets struct {
	Admin          string `toml:"admin"`           // path of the socket of the KMS API and the administration
	Group          string `toml:"group"`           // group that may connect; empty: the daemon's own
	Private        bool   `toml:"private"`         // only the daemon's own user may connect (keywardd dev)
	MaxConnections int    `toml:"max_connections"` // at the same time
}

// PKCS11 says how programs that know PKCS #11 are served.
type PKCS11 struct {
	Socket                string `toml:"socket"`                   // path; empty: they are not
	RawRSA                bool   `toml:"raw_rsa"`                  // CKM_RSA_X_509 is offered
	RawAES                bool   `toml:"raw_aes"`                  // AES keys in HSMs encrypt and decrypt in all modes
	MaxConnections        int    `toml:"max_connections"`          // at the same time
	MaxConnectionsPerUser int    `toml:"max_connections_per_user"` // of one Unix user
}

// Log says what is logged. Where to is not a choice: the journal under systemd, else standard error.
type Log struct {
	Level string `toml:"level"` // debug, info, warn, error
}

// Audit says where audit events go.
type Audit struct {
	File string `toml:"file"` // one JSON object a line; empty: with the log
}

// Pool says how the HSM members are used together.
type Pool struct {
	Queue     int    `toml:"queue"`     // jobs that may wait
	Isolation string `toml:"isolation"` // Process or None: where the members' libraries are loaded
}

// The values of pool.isolation.
const (
	Process = "process" // each worker of a member is a process, which alone loads the member's library
	None    = "none"    // the daemon loads all libraries into itself
)

// Member is one token of one PKCS#11 module.
type Member struct {
	Name          string            `toml:"name"`
	Module        string            `toml:"module"`
	TokenLabel    string            `toml:"token_label"`
	TokenSerial   string            `toml:"token_serial"`
	PINFile       string            `toml:"pin_file"`
	PINCredential string            `toml:"pin_credential"` // name of a systemd credential
	MaxSessions   int               `toml:"max_sessions"`   // of all its workers together; 0: what the token says
	Workers       int               `toml:"workers"`        // processes that drive it
	Unit          bool              `toml:"unit"`           // the process is systemd's unit keyward-hsm@NAME, which has the PIN
	CallTimeout   Duration          `toml:"call_timeout"`   // of one call into the module; 0: by the kind of operation
	Environment   map[string]string `toml:"environment"`    // for the module, set before it is loaded
}

// Socket is where the worker of a member with Unit serves.
func (m *Member) Socket() string { return "/run/keyward/hsm/" + m.Name + ".sock" }

// Share is what a principal gets of the HSMs while others want them too.
type Share struct {
	Principal string `toml:"principal"`
	Weight    int    `toml:"weight"` // jobs in turn, against 1 of a principal without a share
	Queue     int    `toml:"queue"`  // jobs of it that may wait; 0: as many as places are free
}

// Instance is a place where keys are created.
type Instance struct {
	ID         string   `toml:"id"`
	Type       string   `toml:"type"` // software, hardware or external
	Name       string   `toml:"name"`
	Account    string   `toml:"account"`     // its owner; empty: the first account
	SharedWith []string `toml:"shared_with"` // other accounts that may make keys in it
	Keys       int      `toml:"keys"`        // key versions that it may hold
	Access     int      `toml:"access"`      // other accounts that may share it, or be let in by key policies
	QPS        int      `toml:"qps"`         // cryptographic operations a second; 0: no limit
	Default    bool     `toml:"default"`     // where its owner's keys are made when no instance is named
}

// Peer maps local callers to a principal. All conditions that are given must hold; the first row that fits wins.
type Peer struct {
	User      string  `toml:"user"`
	UID       *uint32 `toml:"uid"`
	Group     string  `toml:"group"`
	GID       *uint32 `toml:"gid"`
	Unit      string  `toml:"unit"` // systemd unit; narrows a row, never enough alone
	Principal string  `toml:"principal"`

	At string `toml:"-"` // file:line, for messages
}

// Service is a program that uses keys for others. It is recognised by the principal that it is for policies too.
type Service struct {
	Code       string   `toml:"code"`
	Name       string   `toml:"name"`
	Entry      string   `toml:"entry"`      // where a person sees what it protects with a key
	Principals []string `toml:"principals"` // the callers that are this service
	Unit       string   `toml:"unit"`       // narrows them to a systemd unit; needed for the root of an account
}

// Listener is a place where other machines are served with TLS: the KMS API, to requests that are signed with an access key, or external keys, to key
// management services that have a credential of a prefix.
type Listener struct {
	Address        string `toml:"address"`   // IP and port; port 0: one that is free
	Serves         string `toml:"serves"`    // KMS or XKI
	CertFile       string `toml:"cert_file"` // PEM: the certificate, and the ones between it and the root
	KeyFile        string `toml:"key_file"`  // PEM: its private key, or else
	Key            string `toml:"key"`       // ID or alias of the key of keyward that is its private key
	MaxConnections int    `toml:"max_connections"`
	MaxPerAddress  int    `toml:"max_connections_per_address"`

	ClientCAFile string   `toml:"client_ca_file"` // PEM: who must have signed the certificate that clients show; empty: they show none
	ClientNames  []string `toml:"client_names"`   // one of which it must be for; empty: any

	PingAddress string `toml:"ping_address"` // IP and port for GET /ping without TLS; empty: nowhere
}

// The values of listener.serves.
const (
	KMS = "kms" // the KMS API
	XKI = "xki" // the protocols of external key proxies
)

// Duration is a time span in Go's notation, such as 10s or 2m.
type Duration time.Duration

// UnmarshalText reads a Duration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a span of time; write a number and its unit, such as \"15s\" or \"2m\"", text)
	}
	*d = Duration(v)
	return nil
}

// Defaults of the keys that have one.
const (
	DefaultPath           = "/etc/keyward/keyward.toml"
	DefaultRegion         = "local"
	DefaultAccount        = "1000000000000001"
	DefaultStateDir       = "/var/lib/keyward"
	DefaultAdminSocket    = "/run/keyward/admin.sock"
	DefaultMaxConnections = 1024
	DefaultPKCS11Socket   = "/run/keyward/pkcs11.sock"
	DefaultPKCS11Max      = 4096
	DefaultPKCS11PerUser  = 256
	DefaultMaxPerAddress  = 128
	DefaultXKIPerAddress  = 512 // AWS sends 1,800 requests a second and waits 250 ms for each, so 450 can be under way, all from one load balancer
	DefaultQueue          = 4096
	DefaultIsolation      = Process
	DefaultWorkers        = 1
	DefaultWeight         = 1
	DefaultKeys           = 1_000_000
	DefaultAccess         = 8
	DefaultLogLevel       = "info"
	DefaultShutdown       = 15 * time.Second
)

// defaults is where reading begins.
func defaults() *Config {
	return &Config{
		Region:          DefaultRegion,
		Accounts:        []string{DefaultAccount},
		StateDir:        DefaultStateDir,
		ShutdownTimeout: Duration(DefaultShutdown),
		Sockets:         Sockets{Admin: DefaultAdminSocket, MaxConnections: DefaultMaxConnections},
		PKCS11:          PKCS11{Socket: DefaultPKCS11Socket, RawAES: true, MaxConnections: DefaultPKCS11Max, MaxConnectionsPerUser: DefaultPKCS11PerUser},
		Log:             Log{Level: DefaultLogLevel},
		Pool:            Pool{Queue: DefaultQueue, Isolation: DefaultIsolation},
	}
}
