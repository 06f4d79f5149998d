package pkcs11front

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
)

// p11kitClient is where Debian has p11-kit's client (package p11-kit-modules).
const p11kitClient = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so"

// program runs a program that uses p11-kit's client with the door, and gives what it says.
func (e *testEnv) program(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "P11_KIT_SERVER_ADDRESS=unix:path="+e.path, "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestP11Kit has programs of Debian look at the tokens, through p11-kit's own client.
func TestP11Kit(t *testing.T) {
	e := newEnv(t)
	for _, test := range []struct {
		command string
		says    []string
	}{
		{"pkcs11-tool --module " + p11kitClient + " -L", []string{"keyward kst-software", "keyward kst-hardware", "token label        : kst-software", "token model        : hardware",
			"token manufacturer : keyward", "firmware version   : 1.2", "pin min/max        : 0/256"}},
		{"pkcs11-tool --module " + p11kitClient + " -I", []string{"Cryptoki version 2.40", "Manufacturer     keyward", "Library          keyward PKCS #11 (ver 1.2)"}},
		{"p11tool --provider " + p11kitClient + " --list-tokens", []string{"model=software;manufacturer=keyward;serial=", "token=kst-software", "token=kst-hardware", "Type: Generic token", "Type: Hardware token"}},
	} {
		words := strings.Fields(test.command)
		out, err := e.program(words[0], words[1:]...)
		if err != nil {
			t.Errorf("%s: %v\n%s", test.command, err, out)
			continue
		}
		for _, want := range test.says {
			if !strings.Contains(out, want) {
				t.Errorf("%s does not say %q:\n%s", test.command, want, out)
			}
		}
	}
}

// TestTokenLabel has pkcs11-tool find a token whose label is the beginning of another's.
func TestTokenLabel(t *testing.T) {
	var opened atomic.Uint64
	handleWith(t, 10, func(q *request) ck.RV {
		opened.Store(q.in.Ulong())
		return ck.CKR_FUNCTION_FAILED
	})
	e := newEnv(t)
	e.service.SetInstances([]kms.Instance{{ID: "kst-abc", Type: kms.SoftwareInstance}, {ID: "kst-ab", Type: kms.SoftwareInstance}, {ID: "kst-a", Type: kms.SoftwareInstance}})
	for _, label := range []string{"kst-a", "kst-ab", "kst-abc"} {
		opened.Store(0)
		if out, err := e.program("pkcs11-tool", "--module", p11kitClient, "--token-label", label, "-O"); err == nil || opened.Load() != slotIDOf(label) {
			t.Errorf("%s: slot %#x was opened: %v\n%s", label, opened.Load(), err, out)
		}
	}
}
