package daemon

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadShareIsBounded(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	if share, err := readShare(file("share", "\n KEYWARD-1 \r\n")); err != nil || !bytes.Equal(share, []byte("KEYWARD-1")) {
		t.Errorf("%q, %v", share, err)
	}
	if share, err := readShare(file("most", strings.Repeat("A", maxShareFile))); err != nil || len(share) != maxShareFile {
		t.Errorf("%d octets, %v", len(share), err)
	}
	for _, name := range []string{file("long", strings.Repeat("A", maxShareFile+1)), "/dev/zero"} {
		if _, err := readShare(name); err == nil || !strings.Contains(err.Error(), "longer than a recovery share") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := readShare(filepath.Join(dir, "none")); !os.IsNotExist(err) {
		t.Errorf("no file: %v", err)
	}
}
