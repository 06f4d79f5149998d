package daemon

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/keyward/keyward"

// imports are the rules that keep the packages' arrows one way: what a package (and those below it) may not reach, and
// why. The first column ends in /... for a whole tree.
var imports = []struct{ from, to, why string }{
	{"hsmpool/...", "keystore/...", "the pool knows HSMs only"},
	{"hsmpool/...", "kms/...", "the pool knows HSMs only"},
	{"hsmpool/...", "daemon/...", "the pool is given its configuration"},
	{"keystore/...", "hsmpool/...", "the store is given a Sealer"},
	{"keystore/...", "kms/...", "the store knows records, not the API"},
	{"keystore/...", "daemon/...", "the store is given its configuration"},
	{"kms/softkey/...", "kms", "cryptography knows the vocabulary (kmswire) only"},
	{"kms/softkey/...", "keystore/...", "cryptography keeps nothing"},
	{"kms/softkey/...", "hsmpool/...", "software keys need no HSM"},
	{"kms/keywrap/...", "kms", "a mode of AES knows nobody"},
	{"kms/keywrap/...", "kms/softkey/...", "it is free of cgo, for keywardctl"},
	{"pkcs11front/sessionkey/...", "kms", "keys in memory know mechanisms and octets; who may use them the door asks"},
	{"pkcs11front/p11rpc/...", "kms/...", "the protocol knows octets and the standard's numbers, not what they are for"},
	{"pkcs11front/p11rpc/...", "pkcs11front", "what a call means the door knows"},
	{"pkcs11front/ck/...", "pkcs11front/p11rpc/...", "the standard's numbers stand below everything"},
	{"pkcs11front/...", "daemon/...", "a door knows the service only"},
	{"pkcs11front/...", "kms/kmsapi/...", "doors don't know each other"},
	{"kms/...", "pkcs11front/...", "the service has no transport in it"},
	{"kms/...", "xki/...", "the service has no transport in it"},
	{"xki/...", "daemon/...", "a door knows the service only"},
	{"xki/...", "pkcs11front/...", "doors don't know each other"},
	{"xki/...", "kms/kmsapi/...", "doors don't know each other"},
	{"xki/xkisign", "kms/...", "signatures know nobody"},
	{"kms", "kms/kmsapi/...", "the service has no transport in it"},
	{"kms", "kms/kmsclient/...", "the service has no transport in it"},
	{"kms", "daemon/...", "the service is given its configuration"},
	{"kms/kmsapi/...", "daemon/...", "a door knows the service only"},
	{"kms/kmsapi/...", "keystore/boltstore/...", "which backend there is, the daemon decides"},
	{"kms/kmsclient/...", "kms", "clients know the vocabulary (kmswire) only"},
	{"kms/kmsclient/...", "hsmpool/...", "clients are free of cgo"},
	{"kms/kmswire/...", "kms", "the vocabulary stands below everything"},
	{"kms/policy/...", "kms", "policies are decided without the service"},
	{"kms/policy/...", "kms/kmswire/...", "a permission's name is all that policies know of an action"},
	{"kms/kmssign/...", "kms", "clients sign too, and are free of cgo"},
	{"kms", "kms/kmssign", "the service has no transport in it"},
	{"daemon/admin/...", "kms/...", "keywardctl must not pull the service in"},
	{"daemon/admin/...", "hsmpool/...", "keywardctl is free of cgo"},
	{"daemon/config/...", "hsmpool/...", "the file's types are not the parts' types"},
	{"daemon/config/...", "kms/...", "the file's types are not the parts' types"},
	{"daemon", "ctl/...", "the daemon does not need its command line"},
	{"ctl/...", "hsmpool/...", "keywardctl is free of cgo: it must run when an HSM library is broken"},
	{"ctl/...", "keystore/...", "keywardctl asks the daemon"},
	{"ctl/...", "kms", "keywardctl knows the vocabulary and the policies, not the service"},
	{"ctl/...", "kms/softkey/...", "keywardctl is free of cgo"},
}

// exceptions are single packages that a rule of imports does not mean, and why.
var exceptions = []struct{ from, to, why string }{
	{"ctl/...", "hsmpool/hsmtest/faulty/control", "keywardctl bench orders faults by a file; this package alone has no cgo, see TestPureGo"},
}

type listed struct {
	ImportPath string
	Deps       []string
	Standard   bool
}

// TestImportDirection keeps ARCHITECTURE.md's picture of the packages true.
func TestImportDirection(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Deps,Standard", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p listed
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	for _, rule := range imports {
		from, to := 0, 0
		for _, p := range all {
			if matches(p.ImportPath, rule.to) {
				to++
			}
			if !matches(p.ImportPath, rule.from) {
				continue
			}
			from++
			for _, d := range p.Deps {
				if matches(d, rule.to) && !excepted(p.ImportPath, d) {
					t.Errorf("%s reaches %s: %s", p.ImportPath, d, rule.why)
				}
			}
		}
		if from == 0 || to == 0 {
			t.Errorf("the rule %s, %s fits no packages; was one renamed?", rule.from, rule.to)
		}
	}
	for _, e := range exceptions {
		if !slices.ContainsFunc(all, func(p listed) bool {
			return matches(p.ImportPath, e.from) && slices.Contains(p.Deps, module+"/"+e.to)
		}) {
			t.Errorf("nothing in %s needs the exception for %s; take it away (it was: %s)", e.from, e.to, e.why)
		}
	}
}

func excepted(from, to string) bool {
	for _, e := range exceptions {
		if matches(from, e.from) && to == module+"/"+e.to {
			return true
		}
	}
	return false
}

// TestPureGo holds packages to the standard library where they promise it.
func TestPureGo(t *testing.T) {
	for _, name := range []string{"daemon/admin", "kms/kmswire", "kms/policy", "kms/kmssign", "kms/keywrap", "kms/mechanism", "kms/rsapad", "kms/turns", "hsmpool/hsmtest/faulty/control"} {
		out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", module+"/"+name).Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		for _, dep := range strings.Fields(string(out)) {
			if !matches(dep, name+"/...") {
				t.Errorf("%s imports %s; it promises the standard library only", name, dep)
			}
		}
	}
}

func matches(path, pattern string) bool {
	tree, all := strings.CutSuffix(pattern, "/...")
	return path == module+"/"+tree || all && strings.HasPrefix(path, module+"/"+tree+"/")
}

// TestSlowTestsRun holds the Makefile to running every test: one that the race detector's run leaves out must be where the other run looks.
func TestSlowTestsRun(t *testing.T) {
	text, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	_, names, found := strings.Cut(string(text), "\nSLOW      := ^Test(")
	names, _, ended := strings.Cut(names, ")$$\n")
	_, dirs, foundDirs := strings.Cut(string(text), "\nSLOW_DIRS := ")
	dirs, _, _ = strings.Cut(dirs, "\n")
	if !found || !ended || !foundDirs {
		t.Fatal("the Makefile has no SLOW and SLOW_DIRS as this test knows them")
	}
	for name := range strings.SplitSeq(names, "|") {
		out, err := exec.Command("git", "-C", "..", "grep", "-l", "-F", "func Test"+name+"(", "--", "*_test.go").Output()
		if err != nil {
			t.Errorf("there is no Test%s: %v", name, err)
		}
		for file := range strings.FieldsSeq(string(out)) {
			if !slices.Contains(strings.Fields(dirs), "./"+path.Dir(file)) {
				t.Errorf("Test%s of %s never runs: rename it, or add its package to SLOW_DIRS", name, file)
			}
		}
	}
}
