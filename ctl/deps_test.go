package ctl

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoCgo holds that keywardctl is one static file, which still runs when the library of an HSM is broken.
func TestNoCgo(t *testing.T) {
	const program = "github.com/keyward/keyward/ctl/keywardctl"
	// Outside of the standard library nothing may have cgo files; what the library has is not used without cgo.
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}} {{len .CgoFiles}}{{end}}", program).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) < 10 {
		t.Fatalf("only %d packages: %s", len(lines), out)
	}
	unwanted := map[string]string{
		"github.com/miekg/pkcs11":                        "it loads an HSM's library into this process",
		"github.com/prometheus/client_golang/prometheus": "keywardctl prints what the daemon measured",
		"github.com/keyward/keyward/hsmpool":             "keywardctl speaks to the daemon, not to HSMs",
		"github.com/keyward/keyward/kms/softkey":         "keywardctl holds no key",
		"github.com/keyward/keyward/keystore":            "keywardctl reads no store",
		"github.com/keyward/keyward/kms":                 "it brings the whole service; kms/kmswire has the words",
		"github.com/keyward/keyward/daemon":              "it is the other program; daemon/admin has the client",
		"github.com/keyward/keyward/daemon/config":       "keywardctl reads no configuration",
	}
	for _, line := range lines {
		path, cgo, _ := strings.Cut(line, " ")
		if cgo != "0" {
			t.Errorf("%s needs cgo", path)
		}
		if why, bad := unwanted[path]; bad {
			t.Errorf("%s is a part of keywardctl: %s", path, why)
		}
	}
	build := exec.Command("go", "build", "-o", filepath.Join(t.TempDir(), "keywardctl"), program)
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Errorf("it does not build without cgo: %v\n%s", err, out)
	}
}

// TestClientDeps holds that the client of the API needs the standard library and the wire types only.
func TestClientDeps(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "github.com/keyward/keyward/kms/kmsclient").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Fields(string(out)) {
		if path != "github.com/keyward/keyward/kms/kmsclient" && !strings.HasPrefix(path, "github.com/keyward/keyward/kms/kmswire") {
			t.Errorf("kmsclient depends on %s", path)
		}
	}
}
