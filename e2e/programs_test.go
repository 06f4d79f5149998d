package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// p11kitClient is p11-kit's own client module.
func p11kitClient(t *testing.T) string {
	t.Helper()
	clients, err := filepath.Glob("/usr/lib/*/pkcs11/p11-kit-client.so")
	if err != nil || len(clients) != 1 {
		t.Fatal(clients, err)
	}
	return clients[0]
}

// TestPrograms has the programs of Debian do all that they can, through keyward's module and through p11-kit's client, with a daemon that asks for no
// PIN and then with a principal that has one: the programs give it either way.
func TestPrograms(t *testing.T) {
	script, err := os.ReadFile("testdata/programs.sh")
	if err != nil {
		t.Fatal(err)
	}
	s := startShared(t, "")
	for name, module := range map[string]string{"module": s.module, "p11kit": p11kitClient(t)} {
		s.t = t
		cmd := s.command(string(script))
		cmd.Env = append(cmd.Env, "MODULE="+module, "NAME="+name, "P11_KIT_SERVER_ADDRESS=unix:path="+filepath.Join(s.dir, "k", "pkcs11.sock"))
		cmd.Dir = filepath.Join(s.dir, name)
		if err := os.Mkdir(cmd.Dir, 0o755); err != nil {
			t.Fatal(err)
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("through %s: %v\n%s\n%s", name, err, out, s.log)
		}
	}
}
