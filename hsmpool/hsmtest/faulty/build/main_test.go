package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/hsmpool/hsmtest/faulty/control"
)

// TestBuild: a control file that is in use is kept and freed of orders, and one that is of no use is made again.
func TestBuild(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "faulty")
	if err := build(dir, hsmtest.Module, []string{"east", "west"}); err != nil {
		t.Fatal(err)
	}
	east, west := filepath.Join(dir, "east.so"), filepath.Join(dir, "west.so")
	f, err := control.Open(control.Path(east))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Inner() != hsmtest.Module {
		t.Errorf("it wraps %s", f.Inner())
	}
	if err := f.Hang("C_Sign"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(control.Path(west), []byte("of an older version"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := build(dir, hsmtest.Module, []string{"east", "west"}); err != nil {
		t.Fatal(err)
	}
	if f.Ordered() {
		t.Error("the control file that is in use was made anew, or keeps its orders")
	}
	again, err := control.Open(control.Path(west))
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 4 {
		t.Errorf("%v, %v", entries, err)
	}
	if err := build(dir, filepath.Join(dir, "none.so"), []string{"east"}); err == nil || !strings.Contains(err.Error(), "softhsm2") {
		t.Errorf("nothing to wrap: %v", err)
	}
}
