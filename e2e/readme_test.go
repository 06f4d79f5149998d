package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadmeTour runs the commands of the README's five minutes as one script, in a folder laid out as the README says:
// programs in bin, the daemon of keywardd dev in .keyward.
func TestReadmeTour(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, tour, ok := strings.Cut(string(readme), "<!-- tour")
	tour, _, ok2 := strings.Cut(tour, "\n## ")
	if !ok || !ok2 {
		t.Fatal("the README has no tour")
	}
	var script strings.Builder
	script.WriteString("set -euo pipefail\n")
	for i, part := range strings.Split(tour, "```") {
		if commands, ok := strings.CutPrefix(part, "sh\n"); ok && i%2 == 1 {
			script.WriteString(commands)
		}
	}
	if n := strings.Count(script.String(), "\nkeywardctl "); n < 15 {
		t.Fatalf("only %d keywardctl commands in the README's tour", n)
	}

	programs, err := build()
	if err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	if err := os.Symlink(filepath.Dir(programs.keywardctl), filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	dot := filepath.Join(dir, ".keyward")
	p := start(t, filepath.Join(dot, "admin.sock"), programs.keywardd, "dev", "--dir", dot)
	cmd := exec.Command("bash")
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(script.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, p.log)
	}
	for _, want := range []string{"State        ok", "Verified OK", "correct horse", "alias/docs is disabled", `"KeyStorageMechanism": "HsmEncryptedDatabase"`, `"RandomPassword": "`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the tour does not print %q:\n%s", want, out)
		}
	}
}
