package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyward/keyward/daemon/config"
)

// TestDevDirectory has a row for each kind of directory that keywardd dev can meet and must not touch.
func TestDevDirectory(t *testing.T) {
	for name, row := range map[string]struct {
		files []string
		want  string // in the error; empty: the directory is taken as it is
	}{
		"whole":          {[]string{devBegun, devReady, devConfig}, ""},
		"half made":      {[]string{devBegun, devConfig}, "half made"},
		"somebody's":     {[]string{"letter.txt"}, "was not made by keywardd dev"},
		"an appliance's": {[]string{devConfig}, "was not made by keywardd dev"},
	} {
		dir := t.TempDir()
		for _, f := range row.files {
			if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := prepareDev(dir, "", "")
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v", name, err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != len(row.files) {
			t.Errorf("%s: the directory was changed: %v, %v", name, entries, err)
		}
	}
	if err := prepareDev("/"+strings.Repeat("x", 107), "", ""); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a long path: %v", err)
	}
}

// TestDevConfig sees that what dev writes is what config takes.
func TestDevConfig(t *testing.T) {
	dir := t.TempDir()
	for _, name := range devTokens {
		if _, err := newPIN(filepath.Join(dir, name+".pin")); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, devConfig)
	if err := writeNew(path, []byte(devConfigText(dir, "/usr/lib/softhsm/libsofthsm2.so", "127.0.0.1:8443")), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Members) != 2 || len(c.Instances) != 2 || !c.Sockets.Private {
		t.Errorf("loaded %+v", c)
	}
	for i, a := range c.Members {
		for j, b := range c.Members {
			if i != j && strings.HasPrefix(a.TokenLabel, b.TokenLabel) {
				t.Errorf("the label %q begins with %q", a.TokenLabel, b.TokenLabel)
			}
		}
	}
	tab, err := newPeerTable(c)
	if err != nil {
		t.Fatal(err)
	}
	if id := tab.identify(&peer{uid: uint32(os.Getuid())}); id.actor == nil || id.actor.Principal != "acs:ram::1000000000000001:root" {
		t.Errorf("its maker is %+v", id)
	}
}

// TestMakeToken makes tokens in a real SoftHSM2: the PIN that is set logs in, and tokens don't disturb each other.
func TestMakeToken(t *testing.T) {
	module, err := findSoftHSM("")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := softHSMConfig(conf, filepath.Join(dir, "tokens")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	for _, label := range []string{"one", "two"} {
		if err := makeToken(module, label, "so-"+label, "pin-"+label); err != nil {
			t.Fatal(err)
		}
	}
	if err := tryPINs(module, map[string]string{"one": "pin-one", "two": "pin-two"}); err != nil {
		t.Error(err)
	}
	if err := tryPINs(module, map[string]string{"one": "pin-two"}); err == nil {
		t.Error("a wrong PIN logs in")
	}
}
