// Package hsmtest makes SoftHSM2 tokens in temporary folders, for the tests of every package that needs an HSM.
//
//	h := hsmtest.New(t, "a", "b")
//	h.Ceremony(t)
//	pool := h.Open(t)
//
// SoftHSM2 reads its configuration from the environment when it is initialised, and knows only the tokens that were there
// then; both are the process's. So tests of one process that use this package must not run in parallel, must make all
// tokens of a test with one New, and must close their pools (Open does so itself) before the next New.
package hsmtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/hsmpool"
)

// Module is where Debian has the library.
const Module = "/usr/lib/softhsm/libsofthsm2.so"

// PINs of the tokens.
const (
	PIN   = "2468-user"
	SOPIN = "1357-officer"
)

// HSM is a set of tokens.
type HSM struct {
	Result  *hsmpool.CeremonyResult // of Ceremony
	members []hsmpool.MemberConfig
	dirs    map[string]string // token folder by member name
	base    string
}

// home is the folder of the tokens of this process. Guarded by mu.
var (
	mu    sync.Mutex
	home  string
	users int
	made  int
)

// New makes a token for each member name. They go with the test.
func New(t testing.TB, names ...string) *HSM {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	if users == 0 {
		var err error
		if home, err = os.MkdirTemp("", "keyward-hsmtest-"); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(home, "tokens"), 0o700); err != nil {
			t.Fatal(err)
		}
		conf := filepath.Join(home, "softhsm2.conf")
		text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
			filepath.Join(home, "tokens"))
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		// With cgo this reaches the C library's environment too.
		if err := os.Setenv("SOFTHSM2_CONF", conf); err != nil {
			t.Fatal(err)
		}
	}
	users++
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		if users--; users == 0 {
			os.RemoveAll(home)
		}
	})
	h := &HSM{dirs: map[string]string{}, base: home}
	for _, name := range names {
		made++
		// A fixed width first, so that no label is the beginning of another.
		label := fmt.Sprintf("%06d %s", made, name)
		before := tokenDirs(t, home)
		cmd := exec.Command("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", SOPIN)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("softhsm2-util (Debian package softhsm2): %v\n%s", err, out)
		}
		for dir := range tokenDirs(t, home) {
			if !before[dir] {
				h.dirs[name] = dir
			}
		}
		if h.dirs[name] == "" {
			t.Fatalf("softhsm2-util made no token folder for %q", label)
		}
		h.members = append(h.members, hsmpool.MemberConfig{
			Name: name, Module: Module, TokenLabel: label,
			PIN:         func() ([]byte, error) { return []byte(PIN), nil },
			Environment: map[string]string{"SOFTHSM2_CONF": filepath.Join(home, "softhsm2.conf")},
		})
	}
	return h
}

func tokenDirs(t testing.TB, base string) map[string]bool {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(base, "tokens", "*"))
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]bool{}
	for _, d := range dirs {
		set[d] = true
	}
	return set
}

// Members gives the members' configurations, as copies that the test may change.
func (h *HSM) Members() []hsmpool.MemberConfig {
	return append([]hsmpool.MemberConfig(nil), h.members...)
}

// Config gives a configuration of all members, of the group of Ceremony, that looks after them often.
func (h *HSM) Config() hsmpool.Config {
	c := hsmpool.Config{Members: h.Members(), Probe: 100 * time.Millisecond}
	if h.Result != nil {
		c.Group = h.Result.Group
	}
	return c
}

// Isolated is Config with worker processes, so many for each member. The test's program must be one: its TestMain begins with
// WorkerMain.
func (h *HSM) Isolated(workers int) hsmpool.Config {
	c := h.Config()
	c.Worker = []string{"/proc/self/exe", workerArgument}
	for i := range c.Members {
		c.Members[i].Workers = workers
	}
	return c
}

const workerArgument = "hsm-worker"

// WorkerMain turns a test's program into a worker process if it was started as one.
func WorkerMain() {
	if len(os.Args) == 2 && os.Args[1] == workerArgument {
		os.Exit(hsmpool.WorkerMain())
	}
}

// Ceremony makes the master keys, with 2 of 3 recovery shares.
func (h *HSM) Ceremony(t testing.TB) *hsmpool.CeremonyResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := hsmpool.Ceremony(ctx, hsmpool.Config{Members: h.Members()}, 3, 2)
	if err != nil {
		t.Fatal(err)
	}
	h.Result = r
	return r
}

// Open opens a pool of all members. It is closed with the test.
func (h *HSM) Open(t testing.TB) *hsmpool.Pool {
	t.Helper()
	return OpenConfig(t, h.Config())
}

// OpenConfig opens a pool, which is closed with the test.
func OpenConfig(t testing.TB, c hsmpool.Config) *hsmpool.Pool {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p, err := hsmpool.Open(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// Remove takes a member's token away, as if its files or its cable were gone.
func (h *HSM) Remove(t testing.TB, name string) {
	t.Helper()
	if err := os.Rename(h.dirs[name], h.away(name)); err != nil {
		t.Fatal(err)
	}
}

// Restore brings it back.
func (h *HSM) Restore(t testing.TB, name string) {
	t.Helper()
	if err := os.Rename(h.away(name), h.dirs[name]); err != nil {
		t.Fatal(err)
	}
}

func (h *HSM) away(name string) string {
	return filepath.Join(h.base, "away-"+filepath.Base(h.dirs[name]))
}

// Snapshot reads all files of a member's token, for tests that nothing of a secret is in them or that nothing changed.
func (h *HSM) Snapshot(t testing.TB, name string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	entries, err := os.ReadDir(h.dirs[name])
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(h.dirs[name], e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = bytes.Clone(b)
	}
	return files
}
