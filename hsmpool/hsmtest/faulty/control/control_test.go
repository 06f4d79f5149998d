package control

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func create(t *testing.T) (*File, string) {
	t.Helper()
	path := Path(filepath.Join(t.TempDir(), "m.so"))
	f, err := Create(path, "/inner.so")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f, path
}

func TestFunctionNames(t *testing.T) {
	if len(functions) != functionsCount || functions[12] != "C_OpenSession" || functions[functionsCount-1] != "C_WaitForSlotEvent" {
		t.Errorf("%d functions: %v", len(functions), functions)
	}
}

// TestSecondHand: a file that is open twice is one file, and its orders come whole from either hand.
func TestSecondHand(t *testing.T) {
	a, path := create(t)
	if _, err := Create(path, "/inner.so"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made over another: %v", err)
	}
	b, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Inner() != "/inner.so" {
		t.Errorf("inner %q", b.Inner())
	}
	var wg sync.WaitGroup
	for _, f := range []*File{a, b, a, b} {
		wg.Go(func() {
			for range 500 {
				if err := f.Fail("C_Sign", 5, Before, 3); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	r := &a.c.rules[43]
	if functions[43] != "C_Sign" || r.ticket.Load() != (2*4*500)<<32|3 {
		t.Errorf("%s: ticket %x", functions[43], r.ticket.Load())
	}
	// A writer that died left an odd version, for which calls wait.
	r.ticket.Store(7 << 32)
	if err := b.Hang("C_Sign"); err != nil || r.ticket.Load() != 8<<32|math.MaxUint32 {
		t.Errorf("after a writer that died: %x, %v", r.ticket.Load(), err)
	}
}

func TestRefusals(t *testing.T) {
	f, path := create(t)
	long := strings.Repeat("x", 1024)
	for what, err := range map[string]error{
		"no function":      f.Hang("C_Nothing"),
		"times":            f.Fail("C_Sign", 5, Before, -2),
		"every 0":          f.FailEvery("C_Sign", 5, After, 0),
		"when":             f.Fail("C_Sign", 5, 3, 1),
		"manufacturer":     f.Manufacturer(strings.Repeat("x", 33)),
		"slow":             f.Slow("C_Sign", 0.5),
		"slow NaN":         f.Slow("C_Sign", math.NaN()),
		"delay":            f.Delay("C_Nothing", 1, 0),
		"a long path":      second(Create(path+"2", long)),
		"no inner":         second(Create(path+"2", "")),
		"not there":        second(Open(path + "2")),
		"not a file of us": second(Open("control_test.go")),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if _, err := os.Stat(path + "2"); err == nil {
		t.Error("a file was left")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+"3", append([]byte("KWFAULT0"), text[8:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path + "3"); err == nil || !strings.Contains(err.Error(), "of this version") {
		t.Errorf("another version: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestOrdered: Reset leaves nothing of any order, in the file of another hand either.
func TestOrdered(t *testing.T) {
	f, path := create(t)
	other, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for what, order := range map[string]func() error{
		"fail":      func() error { return f.Fail("C_Sign", 5, After, 1) },
		"every":     func() error { return f.FailEvery("C_Sign", 5, After, 2) },
		"hang":      func() error { return f.Hang("C_Sign") },
		"crash":     func() error { return f.Crash("C_Sign") },
		"exit":      func() error { return f.Exit("C_Sign", 1) },
		"delay":     func() error { return f.Delay("C_Sign", 1, 0) },
		"jitter":    func() error { return f.Delay("C_Sign", 0, 1) },
		"slow":      func() error { return f.Slow("C_Sign", 2) },
		"sessions":  func() error { f.SessionLimit(1); return nil },
		"serialise": func() error { f.Serialise(true); return nil },
	} {
		if err := order(); err != nil || !other.Ordered() {
			t.Errorf("%s: %v, ordered %v", what, err, other.Ordered())
		}
		if err := other.Reset(); err != nil || f.Ordered() {
			t.Errorf("after %s and Reset: %v, ordered %v", what, err, f.Ordered())
		}
	}
}
