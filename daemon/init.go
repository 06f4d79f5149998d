package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/keystore/boltstore"
)

// initOptions are what an operator decides about the ceremony.
type initOptions struct {
	sharesDir string
	shares    int
	threshold int
	resume    bool // the ceremony was done, but the store is missing
}

func cmdInit(args []string) error {
	var path string
	var opt initOptions
	err := parse("init", args, func(fs *flag.FlagSet) {
		configFlag(fs, &path)
		fs.StringVar(&opt.sharesDir, "shares-dir", "", "a new or empty `directory` for the recovery shares, one file each")
		fs.IntVar(&opt.shares, "shares", 3, "how many recovery shares to make")
		fs.IntVar(&opt.threshold, "threshold", 2, "how many of them open the recovery")
		fs.BoolVar(&opt.resume, "continue", false, "the master keys were made, but no store: make only that")
	})
	if err != nil {
		return err
	}
	if err := harden(); err != nil {
		return err
	}
	c, err := config.Load(path)
	if err != nil {
		return err
	}
	return initialize(c, opt, os.Stdout)
}

// initialize makes the master keys in every member, writes the recovery shares, and makes an empty store under the seal
// key. What can be checked before the first master key exists is checked before, because a ceremony can't be undone.
func initialize(c *config.Config, opt initOptions, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return fmt.Errorf("the state directory: %w", err)
	}
	lock, err := lockDir(c.StateDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	// An operator runs this as root, the daemon has a user of its own.
	defer func() { err = errors.Join(err, giveToOwner(c.StateDir)) }()
	// The ceremony carries the master keys from member to member, so this process loads the libraries itself.
	if err := setEnvironment(c); err != nil {
		return err
	}
	store := filepath.Join(c.StateDir, storeFile)
	if _, err := os.Lstat(store); err == nil {
		return fmt.Errorf("%s is there already: this appliance has its master keys and store. Nothing was changed", store)
	}
	groupPath := filepath.Join(c.StateDir, groupFile)
	group, err := os.ReadFile(groupPath)
	switch {
	case err == nil && !opt.resume:
		return fmt.Errorf("%s is there, but no store: an earlier init made the master keys and was cut off; check that its shares are kept, then go on with: keywardd init --config %s --continue", groupPath, c.Path)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("the state directory: %w", err)
	case err != nil && opt.resume:
		return fmt.Errorf("%s is not there, so there is nothing to continue; leave --continue out", groupPath)
	}
	if !opt.resume {
		if group, err = ceremony(ctx, c, opt, out); err != nil {
			return err
		}
	}
	return createStore(ctx, c, string(group), store, out)
}

// ceremony makes the master keys and writes down what remains of it. It returns the group's name.
func ceremony(ctx context.Context, c *config.Config, opt initOptions, out io.Writer) ([]byte, error) {
	if opt.threshold < 2 || opt.shares < opt.threshold || opt.shares > 255 {
		return nil, fmt.Errorf("%w: --threshold must be at least 2 and --shares at least as many, at most 255", errUsage)
	}
	if err := prepareShares(opt.sharesDir); err != nil {
		return nil, err
	}
	pool, err := poolConfig(c, "", false)
	if err != nil {
		return nil, err
	}
	result, err := hsmpool.Ceremony(ctx, pool, opt.shares, opt.threshold)
	if err != nil {
		return nil, fmt.Errorf("making the master keys: %w", err)
	}
	defer func() {
		for _, s := range result.Shares {
			clear(s)
		}
	}()
	fmt.Fprintf(out, "The master keys are made, in %d HSM members. Group %s.\n", len(c.Members), result.Group)
	for i, share := range result.Shares {
		path := filepath.Join(opt.sharesDir, fmt.Sprintf("share-%d-of-%d", i+1, len(result.Shares)))
		if err := writeNew(path, share, 0o600); err != nil {
			return nil, fmt.Errorf("a recovery share could not be written, and it is nowhere else: clear the HSM tokens and begin again: %w", err)
		}
		sum := sha256.Sum256(share)
		fmt.Fprintf(out, "  %s  fingerprint %s\n", path, hex.EncodeToString(sum[:8]))
	}
	if err := writeNew(filepath.Join(c.StateDir, recoveryFile), result.Recovery, 0o600); err != nil {
		return nil, fmt.Errorf("the recovery file: %w", err)
	}
	if err := writeNew(filepath.Join(c.StateDir, groupFile), []byte(result.Group+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("the state directory: %w", err)
	}
	if err := syncDir(c.StateDir); err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "Any %d of these shares, with %s, bring the master keys back into a new HSM.\nGive each share to another person, and then delete the files.\n",
		opt.threshold, filepath.Join(c.StateDir, recoveryFile))
	return []byte(result.Group), nil
}

// prepareShares makes the directory of the shares, and makes sure that it can be written.
func prepareShares(dir string) error {
	if dir == "" {
		return fmt.Errorf("%w: --shares-dir is needed: a new or empty directory for the recovery shares, best on a removable medium", errUsage)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("the directory of the shares: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("the directory of the shares: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty; the recovery shares need a directory of their own", dir)
	}
	probe := filepath.Join(dir, "probe")
	if err := writeNew(probe, make([]byte, 4096), 0o600); err != nil {
		return fmt.Errorf("the directory of the shares can't be written: %w", err)
	}
	return os.Remove(probe)
}

// createStore makes the store under the group's seal key. A store appears under its name only when it is whole.
func createStore(ctx context.Context, c *config.Config, group, path string, out io.Writer) (err error) {
	pc, err := poolConfig(c, strings.TrimSpace(group), false)
	if err != nil {
		return err
	}
	pool, err := hsmpool.Open(ctx, pc)
	if err != nil {
		return fmt.Errorf("opening the HSMs: %w", err)
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	partial := path + ".new"
	if err := os.RemoveAll(partial); err != nil {
		return fmt.Errorf("the store: %w", err)
	}
	backend, err := boltstore.Open(partial, boltstore.Options{Ballast: -1})
	if err != nil {
		return fmt.Errorf("making the store: %w", err)
	}
	if err := errors.Join(keystore.Create(ctx, backend, pool), backend.Close()); err != nil {
		return fmt.Errorf("making the store: %w", err)
	}
	if err := os.Rename(partial, path); err != nil {
		return fmt.Errorf("making the store: %w", err)
	}
	if err := syncDir(c.StateDir); err != nil {
		return err
	}
	fmt.Fprintf(out, "The key store is made: %s\n", path)
	return nil
}

// writeNew writes a file that must not exist, and makes it durable.
func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// giveToOwner gives what root made in a directory to the directory's owner.
func giveToOwner(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	var owner unix.Stat_t
	if err := unix.Stat(dir, &owner); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		var file unix.Stat_t
		// Only what can't be another file by another name: the directory is in the hands of its owner already.
		if err := unix.Lstat(path, &file); err != nil || file.Mode&unix.S_IFMT != unix.S_IFREG || file.Nlink != 1 {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, os.Lchown(path, int(owner.Uid), int(owner.Gid)))
	}
	return errors.Join(errs...)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
