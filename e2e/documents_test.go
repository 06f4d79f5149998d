package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keyward/keyward/kms/kmswire"
)

// TestDocuments runs the shell commands of documents as they stand, each document as one script, in a folder laid out as
// the README says: programs in bin, the daemon of keywardd dev in .keyward.
func TestDocuments(t *testing.T) {
	programs, err := build()
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range []struct {
		file, begin, end string // the part of it that is run
		commands         int    // at least
		want             []string
	}{
		{"../README.md", "<!-- tour", "\n## ", 15, []string{"State        ok", "Verified OK", "correct horse", "alias/docs is disabled",
			`"KeyStorageMechanism": "HsmEncryptedDatabase"`, `"RandomPassword": "`}},
		{"../docs/api.md", "<!-- run", "\x00", 5, []string{`"KeyState":"Enabled"`, `"Plaintext":"aGVsbG8="`, `"Code":"InvalidParameter"`,
			`"Items":[{"CiphertextBlob":"`, `},{"Code":"InvalidParameter"`}},
		{"../docs/pkcs11.md", "<!-- run", "\x00", 4, []string{"Certificate request self-signature verify OK", "Verified OK", "hello CN=me", "ecdsa-sha2-nistp256", "CN = by GnuTLS",
			"java, PrivateKeyEntry", "kst-hardware:web"}},
		{"../docs/external-keys.md", "<!-- run", "\n## keyward as the proxy", 5, []string{"kst-external is Connected to keyward", "enable it there", "as it should",
			"as it should\nalias/orders is enabled\ncorrect horse", "kst-external  Connected", "orders is key-"}},
	} {
		t.Run(filepath.Base(doc.file), func(t *testing.T) {
			text, err := os.ReadFile(doc.file)
			if err != nil {
				t.Fatal(err)
			}
			_, part, found := strings.Cut(string(text), doc.begin)
			if !found {
				t.Fatalf("there is no %q", doc.begin)
			}
			part, _, _ = strings.Cut(part, doc.end)
			script := "set -euo pipefail\n" + shell(part)
			for _, port := range []string{"18443", "8443"} { // others may have these
				script = strings.ReplaceAll(script, ":"+port, fmt.Sprint(":", freePort(t)))
			}
			if n := strings.Count(script, "\nkeywardctl ") + strings.Count(script, "\nkms "); n < doc.commands {
				t.Fatalf("only %d commands", n)
			}
			dir := shortDir(t)
			if err := os.Symlink(filepath.Dir(programs.keywardctl), filepath.Join(dir, "bin")); err != nil {
				t.Fatal(err)
			}
			dot := filepath.Join(dir, ".keyward")
			p := start(t, filepath.Join(dot, "admin.sock"), programs.keywardd, "dev", "--dir", dot)
			// The keys that make run's tour has made by then: no command may take the first key in a token for its own.
			for _, spec := range []kmswire.CreateKeyRequest{{KeySpec: kmswire.ECP256, KeyUsage: kmswire.SignVerify}, {}} {
				for _, instance := range []string{"kst-hardware", "kst-software"} {
					spec.DKMSInstanceID = instance
					createKey(t, p, spec)
				}
			}
			cmd := exec.Command("bash")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "KEYWARD_SOCKET="+p.socket)
			cmd.Stdin = strings.NewReader(script)
			// What a script that fails leaves behind ends with it.
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			cmd.WaitDelay = startTimeout
			out, err := cmd.CombinedOutput()
			if cmd.Process != nil {
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // there may be nothing left
			}
			if err != nil {
				t.Fatalf("%v\n%s\n%s", err, out, p.log)
			}
			for _, want := range doc.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("%q is not printed:\n%s", want, out)
				}
			}
		})
	}
}

// shell gives the shell blocks of a Markdown text.
func shell(markdown string) string {
	var script strings.Builder
	for i, part := range strings.Split(markdown, "```") {
		if commands, ok := strings.CutPrefix(part, "sh\n"); ok && i%2 == 1 {
			script.WriteString(commands)
		}
	}
	return script.String()
}
