package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/keystore/boltstore"
	"github.com/keyward/keyward/kms"
)

// Files of the state directory.
const (
	storeFile    = "store.db"  // the key store
	groupFile    = "hsm-group" // name of the HSM group, as the ceremony gave it
	recoveryFile = "recovery"  // the master keys under the recovery key; worthless without the shares
)

// openTimeout bounds how long the HSMs and the store may take at start.
const openTimeout = 60 * time.Second

// parts are what the doors stand on.
type parts struct {
	pool  *hsmpool.Pool
	store *keystore.DB
	audit *auditLog
	svc   *kms.Service
}

// openParts opens HSMs, store and service, in that order. The caller closes the parts.
func openParts(ctx context.Context, c *config.Config, log zerolog.Logger) (_ *parts, err error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	p := &parts{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	group, err := readGroup(c)
	if err != nil {
		return nil, err
	}
	if p.audit, err = openAudit(c.Audit.File, auditFallback); err != nil {
		return nil, err
	}
	isolated := c.Pool.Isolation == config.Process
	if !isolated {
		if err := setEnvironment(c); err != nil {
			return nil, err
		}
	}
	pool, err := poolConfig(c, group, isolated)
	if err != nil {
		return nil, err
	}
	if p.pool, err = hsmpool.Open(ctx, pool); err != nil {
		return nil, fmt.Errorf("opening the HSMs: %w", err)
	}
	if p.store, err = openStore(ctx, c, p.pool); err != nil {
		return nil, err
	}
	p.svc, err = kms.New(ctx, kms.Config{
		Store: p.store, Pool: p.pool, Region: c.Region, Account: c.FirstAccount(), Accounts: c.Accounts,
		Instances: serviceInstances(c), Services: declaredServices(c), Audit: p.audit, Log: log, Now: time.Now, Built: builtAt(),
	})
	if err != nil {
		return nil, fmt.Errorf("starting the service: %w", err)
	}
	return p, nil
}

// auditFallback is where audit events go without audit.file: to the log's own stream.
var auditFallback = os.Stderr

// Close closes what was opened, the last first.
func (p *parts) Close() error {
	var errs []error
	if p.svc != nil {
		p.svc.Close()
	}
	if p.store != nil {
		errs = append(errs, p.store.Close())
	}
	if p.pool != nil {
		errs = append(errs, p.pool.Close())
	}
	if p.audit != nil {
		errs = append(errs, p.audit.Close())
	}
	return errors.Join(errs...)
}

func serviceInstances(c *config.Config) []kms.Instance {
	var all []kms.Instance
	for _, in := range c.Instances {
		all = append(all, kms.Instance{ID: in.ID, Type: in.Type, Name: in.Name, Account: in.Account, SharedWith: in.SharedWith,
			Keys: in.Keys, Access: in.Access, QPS: in.QPS, Default: in.Default})
	}
	return all
}

// declaredServices words the [[service]] rows for the service.
func declaredServices(c *config.Config) []kms.ServicePrincipal {
	var all []kms.ServicePrincipal
	for _, d := range c.Services {
		all = append(all, kms.ServicePrincipal{Code: d.Code, Name: d.Name, Entry: d.Entry, Principals: d.Principals, Unit: d.Unit})
	}
	return all
}

// poolConfig words the configured members and shares for hsmpool. Without isolation the members' environment must be set in
// this process; see setEnvironment.
func poolConfig(c *config.Config, group string, isolated bool) (hsmpool.Config, error) {
	pool := hsmpool.Config{Queue: c.Pool.Queue, Group: group, Shares: map[string]hsmpool.Share{}}
	if isolated {
		pool.Worker = []string{ownProgram, workerCommand}
	}
	for _, s := range c.Shares {
		pool.Shares[s.Principal] = hsmpool.Share{Weight: s.Weight, Queue: s.Queue}
	}
	for i := range c.Members {
		m := &c.Members[i]
		if err := checkModule(m); err != nil {
			return pool, err
		}
		member := hsmpool.MemberConfig{
			Name: m.Name, Module: m.Module, TokenLabel: m.TokenLabel, TokenSerial: m.TokenSerial,
			MaxSessions: m.MaxSessions, Workers: 1, Environment: m.Environment, CallTimeout: time.Duration(m.CallTimeout),
		}
		if isolated {
			member.Workers = m.Workers
		}
		if m.Unit && isolated {
			member.Socket = m.Socket()
		}
		withPIN(c, m, &member)
		pool.Members = append(pool.Members, member)
	}
	return pool, nil
}

// setEnvironment sets what the members' modules read from the environment, for a process that loads them itself.
func setEnvironment(c *config.Config) error {
	owner := map[string]string{} // of a variable: the member that set it
	for i := range c.Members {
		m := &c.Members[i]
		for name, value := range m.Environment {
			if other, ok := owner[name]; ok && os.Getenv(name) != value {
				return fmt.Errorf("members %q and %q set %s differently, and here one process loads all libraries; leave one of them out of the "+
					"configuration for now, and give it the master keys when the daemon runs: keywardctl hsm enroll", other, m.Name, name)
			}
			if err := os.Setenv(name, value); err != nil {
				return fmt.Errorf("member %q: setting %s: %w", m.Name, name, err)
			}
			owner[name] = m.Name
		}
	}
	return nil
}

// environmentIsSet says whether this process has the environment that the members want. It can't be changed once libraries
// are loaded, which read it from threads of their own.
func environmentIsSet(c *config.Config) error {
	for i := range c.Members {
		m := &c.Members[i]
		for name, value := range m.Environment {
			if is, ok := os.LookupEnv(name); !ok || is != value {
				return fmt.Errorf("member %q: without isolation its environment (%s) can be changed by a restart only", m.Name, name)
			}
		}
	}
	return nil
}

// checkModule looks whether the member's library is there.
func checkModule(m *config.Member) error {
	if _, err := os.Stat(m.Module); err != nil {
		return fmt.Errorf("member %q: the PKCS#11 module can't be used: %w", m.Name, err)
	}
	return nil
}

// readGroup reads the name of the HSM group that the store belongs to.
func readGroup(c *config.Config) (string, error) {
	text, err := os.ReadFile(filepath.Join(c.StateDir, groupFile))
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("%s holds no key store yet; make master keys and store once with: keywardd init --config %s --shares-dir DIR", c.StateDir, c.Path)
	}
	if err != nil {
		return "", fmt.Errorf("the state directory: %w", err)
	}
	group := strings.TrimSpace(string(text))
	if group == "" {
		return "", fmt.Errorf("%s is empty; take it from a backup", filepath.Join(c.StateDir, groupFile))
	}
	return group, nil
}

// whoseFiles adds what to do to an error that says that a file of dir may not be opened: it then belongs to another user.
func whoseFiles(dir string, err error) error {
	file, ok := errors.AsType[*fs.PathError](err)
	if !ok || !errors.Is(file, fs.ErrPermission) || filepath.Dir(file.Path) != filepath.Clean(dir) {
		return err
	}
	return fmt.Errorf("%w; keywardd runs here as uid %d, and this directory and all in it must belong to that user: chown -R %[2]d %[3]s", err, os.Geteuid(), dir)
}

// openStore opens the store with the group's seal key.
func openStore(ctx context.Context, c *config.Config, pool *hsmpool.Pool) (*keystore.DB, error) {
	path := filepath.Join(c.StateDir, storeFile)
	if _, err := os.Stat(path); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%s is not there, though the HSMs have master keys; restore it from a backup, or, if there never was one: keywardd init --config %s --continue", path, c.Path)
		}
		return nil, fmt.Errorf("the store: %w", err)
	}
	backend, err := boltstore.Open(path, boltstore.Options{})
	if err != nil {
		return nil, fmt.Errorf("opening the store %s: %w", path, err)
	}
	db, err := keystore.Open(ctx, backend, pool)
	if err != nil {
		err = errors.Join(err, backend.Close())
		if errors.Is(err, keystore.ErrForeign) {
			return nil, fmt.Errorf("the store %s belongs to other master keys than these HSMs hold (group %s); connect the HSMs it was made with, or point state_dir at the store of these: %w", path, pool.Group(), err)
		}
		return nil, fmt.Errorf("opening the store %s: %w", path, err)
	}
	return db, nil
}
