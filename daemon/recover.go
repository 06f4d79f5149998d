package daemon

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/hsmpool"
)

// cmdRecover gives the group's master keys to the tokens of the configuration when none has them any more, so that no daemon can run that hsm enroll could ask. It is
// not for a token that has some.
func cmdRecover(args []string) error {
	var path string
	var shares [][]byte
	defer func() {
		for _, s := range shares {
			clear(s)
		}
	}()
	err := parse("recover", args, func(fs *flag.FlagSet) {
		configFlag(fs, &path)
		fs.Func("share", "a `file` with one recovery share; once for each", func(name string) error {
			share, err := readShare(name)
			shares = append(shares, share)
			return err
		})
	})
	if err != nil {
		return err
	}
	if len(shares) == 0 {
		return fmt.Errorf("%w: --share is needed, once for each recovery share", errUsage)
	}
	if err := harden(); err != nil {
		return err
	}
	c, err := config.Load(path)
	if err != nil {
		return err
	}
	return recoverGroup(c, shares, os.Stdout)
}

// maxShareFile is how many octets of a share's file are read: more than any share has, and than an editor puts around it.
const maxShareFile = 1024

// readShare reads the file of one share. The caller wipes what it gives.
func readShare(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text := make([]byte, maxShareFile+1)
	n, err := io.ReadFull(f, text)
	switch {
	case err == nil:
		return text, fmt.Errorf("%s is longer than a recovery share", name)
	case err != io.EOF && err != io.ErrUnexpectedEOF:
		return text, err
	}
	return bytes.TrimSpace(text[:n]), nil
}

// recoverGroup recovers all members, and then sees that the store opens.
func recoverGroup(c *config.Config, shares [][]byte, out io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	lock, err := lockDir(c.StateDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	recovery, failed := readRecovery(c.StateDir)
	if failed != nil {
		return errors.New(failed.message)
	}
	group, err := os.ReadFile(filepath.Join(c.StateDir, groupFile))
	if err != nil {
		return fmt.Errorf("the group of the store: %w", err)
	}
	if err := setEnvironment(c); err != nil {
		return err
	}
	pool, err := poolConfig(c, "", false)
	if err != nil {
		return err
	}
	for i := range pool.Members {
		m := pool.Members[i]
		got, err := hsmpool.Recover(ctx, m, recovery, shares)
		if err != nil {
			return fmt.Errorf("the member %s: %w", m.Name, err)
		}
		if want := strings.TrimSpace(string(group)); got != want {
			return fmt.Errorf("the member %s has the master keys of the group %s now, and the store is of %s: the recovery file is another store's", m.Name, got, want)
		}
		fmt.Fprintf(out, "%s has the master keys of the group %s.\n", m.Name, got)
	}
	return nil
}
