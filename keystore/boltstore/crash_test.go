package boltstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/keystore"
)

// The test program is also the child that gets killed, or limited. What it has to do stands in childTask.
const (
	childTask = "KEYWARD_TEST_CHILD"
	childPath = "KEYWARD_TEST_PATH"
)

func TestMain(m *testing.M) {
	switch os.Getenv(childTask) {
	case "":
		os.Exit(m.Run())
	case "commit":
		fmt.Println("ended:", commitForEver(os.Getenv(childPath)))
	case "hold":
		s, err := Open(os.Getenv(childPath), Options{Ballast: -1})
		fmt.Println("open:", err)
		time.Sleep(time.Minute) // until killed
		fmt.Println("close:", s.Close())
	case "scrub":
		fmt.Println("ended:", scrubForEver(os.Getenv(childPath)))
	case "limit":
		fmt.Println("ended:", commitToTheLimit(os.Getenv(childPath)))
	}
	os.Exit(1)
}

func child(t *testing.T, task, path string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0])
	c.Env = append(os.Environ(), childTask+"="+task, childPath+"="+path)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	return c, bufio.NewScanner(out)
}

// commitForEver adds keys and prints the number of each when its commit is acknowledged.
func commitForEver(path string) error {
	s, err := Open(path, Options{Ballast: -1})
	if err != nil {
		return err
	}
	db, err := keystore.Open(context.Background(), s, sealer)
	if err != nil {
		return err
	}
	for i := db.Health().Keys; ; i++ {
		if err := addKey(context.Background(), db, i); err != nil {
			return err
		}
		fmt.Println(i)
	}
}

// TestKill kills a process that commits, at any moment, and looks for every change that was acknowledged.
func TestKill(t *testing.T) {
	rounds := 30
	if raceDetector {
		rounds = 10
	}
	path := filepath.Join(t.TempDir(), "store")
	s := open(t, path, Options{Ballast: -1})
	must(t, keystore.Create(t.Context(), s, sealer))
	must(t, s.Close())
	random := rand.New(rand.NewPCG(3, 3))
	acknowledged := -1
	for round := range rounds {
		c, lines := child(t, "commit", path)
		var killer *time.Timer
		for lines.Scan() {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Fatalf("round %d: the child says %q", round, lines.Text())
			}
			acknowledged = n
			if killer == nil { // at any moment after the first, a commit under way or not
				killer = time.AfterFunc(time.Duration(random.IntN(20_000))*time.Microsecond, func() { c.Process.Kill() })
			}
		}
		err := c.Wait()
		if status, ok := c.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Fatalf("round %d: the child ended by itself: %v", round, err)
		}
		killer.Stop()
		s := open(t, path, Options{Ballast: -1})
		if p := s.Problem(); p != "" {
			t.Fatalf("round %d: %s", round, p)
		}
		db, err := keystore.Open(t.Context(), s, sealer)
		must(t, err)
		h := db.Health()
		if h.Problem != "" || len(h.Damaged) > 0 {
			t.Fatalf("round %d: health %+v", round, h)
		}
		// At most one change was under way and not acknowledged.
		if h.Keys != acknowledged+1 && h.Keys != acknowledged+2 {
			t.Errorf("round %d: %d keys, acknowledged were %d", round, h.Keys, acknowledged+1)
		}
		for i := range h.Keys {
			if err := lookAt(t, db, fmt.Sprint("round ", round), i); err != nil {
				t.Errorf("round %d: key %d: %v", round, i, err)
			}
		}
		must(t, db.Close())
		acknowledged = h.Keys - 1
	}
	t.Logf("%d kills, %d keys", rounds, acknowledged+1)
}

// TestInUse opens a store that another process has open.
func TestInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	c, lines := child(t, "hold", path)
	if !lines.Scan() || lines.Text() != "open: <nil>" {
		t.Fatalf("the child says %q", lines.Text())
	}
	began := time.Now()
	_, err := Open(path, Options{Ballast: -1})
	if took := time.Since(began); !errors.Is(err, ErrInUse) || took > 10*lockPatience || !strings.Contains(err.Error(), path) {
		t.Errorf("after %v: %v", took, err)
	}
	must(t, c.Process.Kill())
	if err := c.Wait(); err == nil {
		t.Error("the child was not killed")
	}
	s := open(t, path, Options{Ballast: -1})
	_, err = Open(path, Options{Ballast: -1})
	if !errors.Is(err, ErrInUse) {
		t.Errorf("in the same process: %v", err)
	}
	must(t, s.Close())
}

// commitToTheLimit writes until the file may not grow, which is a write error like any that is not a full disk.
func commitToTheLimit(path string) error {
	signal.Ignore(syscall.SIGXFSZ)
	s, err := Open(path, Options{Ballast: -1})
	if err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}); err != nil {
		return err
	}
	for i := 0; ; i++ {
		name := fmt.Sprintf("%06d", i)
		put := keystore.Txn{Urgent: true, Puts: []keystore.Put{{Name: name, Value: make([]byte, 10_000)}}}
		if err = s.Commit(context.Background(), put); err != nil {
			break
		}
		fmt.Println(name)
	}
	if !errors.Is(err, keystore.ErrReadOnly) || s.Problem() == "" {
		return fmt.Errorf("the failed write gave %v, problem %q", err, s.Problem())
	}
	if err := s.Commit(context.Background(), keystore.Txn{Deletes: []string{"000000"}}); !errors.Is(err, keystore.ErrReadOnly) {
		return fmt.Errorf("a write after the failed one gave %v", err)
	}
	if _, err := s.Get(context.Background(), "000000"); err != nil {
		return fmt.Errorf("a read after the failed write: %v", err)
	}
	fmt.Println("as it should be")
	return s.Close()
}

// TestWriteError makes a write fail: the store serves reads, refuses writes, and is whole when it is opened again.
func TestWriteError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	c, lines := child(t, "limit", path)
	var acknowledged []string
	for lines.Scan() && len(lines.Text()) == 6 {
		acknowledged = append(acknowledged, lines.Text())
	}
	if lines.Text() != "as it should be" {
		t.Errorf("the child says %q", lines.Text())
	}
	for lines.Scan() {
		if lines.Text() != "ended: <nil>" {
			t.Errorf("the child says %q", lines.Text())
		}
	}
	if err := c.Wait(); err == nil {
		t.Error("the child did not say that it is a child")
	}
	if len(acknowledged) < 10 {
		t.Errorf("only %d commits before the limit", len(acknowledged))
	}
	s := open(t, path, Options{Ballast: -1})
	for _, name := range acknowledged {
		if _, err := s.Get(t.Context(), name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, s.Commit(t.Context(), keystore.Txn{Puts: []keystore.Put{{Name: "more"}}}))
	must(t, s.Close())
}

// TestCreation: what is left of a creation that was cut off does no harm, and the file is for its owner only.
func TestCreation(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "store")
	must(t, os.WriteFile(path+".new-123", []byte("half a file"), 0o600))
	s := open(t, path, Options{Ballast: 1 << 16})
	must(t, s.Commit(t.Context(), keystore.Txn{Puts: []keystore.Put{{Name: "a"}}}))
	for _, name := range []string{path, path + ".ballast"} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	must(t, s.Close())
	if left, err := filepath.Glob(path + "*"); err != nil || len(left) != 3 {
		t.Errorf("files are %q, %v", left, err)
	}
	if _, err := Open(filepath.Join(dir, "no", "store"), Options{}); err == nil {
		t.Error("a store in no directory opened")
	}
}
