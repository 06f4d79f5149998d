// Command build makes copies of the faulty PKCS#11 module, each with its control file, for trying out what HSMs do wrong:
// make faulty runs it. What it makes is never installed.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/hsmpool/hsmtest/faulty"
	"github.com/keyward/keyward/hsmpool/hsmtest/faulty/control"
)

func main() {
	dir := flag.String("dir", "bin/faulty", "the `directory` for the copies")
	inner := flag.String("inner", hsmtest.Module, "the PKCS#11 module `file` to wrap")
	flag.Parse()
	if err := build(*dir, *inner, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n", err)
		os.Exit(1)
	}
}

func build(dir, inner string, names []string) error {
	inner, err := filepath.Abs(inner)
	if err != nil {
		return err
	}
	if _, err := os.Stat(inner); err != nil {
		return fmt.Errorf("the module to wrap: %w; install the package softhsm2, or name another with -inner", err)
	}
	library, err := faulty.Compile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.Join(dir, name+".so")
		if err := orders(control.Path(path), inner); err != nil {
			return err
		}
		// Renamed over the old one, which a process may be running.
		if err := os.WriteFile(path+".new", library, 0o755); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return nil
}

// orders makes a control file, or frees the one that is there of all orders: a daemon that has it open goes on to obey it.
func orders(path, inner string) error {
	f, err := control.Open(path)
	if err == nil && f.Inner() == inner {
		return errors.Join(f.Reset(), f.Close())
	}
	if err == nil {
		if err := f.Close(); err != nil {
			return err
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if f, err = control.Create(path, inner); err != nil {
		return err
	}
	return f.Close()
}
