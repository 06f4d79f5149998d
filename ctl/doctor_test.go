package ctl

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLastWords(t *testing.T) {
	for journal, want := range map[string]string{
		"": "",
		"Started keywardd.service.\n{\"level\":\"info\",\"message\":\"ready\"}\n":                                                                                   "",
		"keywardd: an old one\nkeywardd: no member has a token: enroll one\nkeywardd.service: Main process exited, status=1\nkey\n":                                 "no member has a token: enroll one",
		"keywardd: old\n{\"level\":\"error\",\"error\":\"line 4: no\",\"message\":\"the configuration is not taken over\"}\n{\"level\":\"info\",\"error\":\"x\"}\n": "the configuration is not taken over: line 4: no",
		"{\"level\":\"fatal\",\"message\":\"gone\"}": "gone: ",
	} {
		if got := lastWords(journal); strings.TrimSuffix(got, ": ") != strings.TrimSuffix(want, ": ") {
			t.Errorf("%q: %q, want %q", journal, got, want)
		}
	}
}

// A PIN that is gone is told of with the file, the unit and the commands, and the others are not looked over.
func TestDoctorPINs(t *testing.T) {
	d := &doctor{m: machine{units: t.TempDir()}}
	if found, next := d.pins(t.Context()); next != "" {
		t.Error(found, next)
	}
	kept := t.TempDir()
	unit := func(name, text string) {
		dir := filepath.Join(d.m.units, "keyward-hsm@"+name+".service.d")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "hsm.conf"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, b := filepath.Join(kept, "a.cred"), filepath.Join(kept, "b.pin")
	unit("a", "[Service]\nLoadCredentialEncrypted=pin:"+a+"\n")
	unit("b", "# LoadCredential=pin:/none\n[Service]\nLoadCredential=pin:"+b+"\nEnvironment=A=b:/c\n")
	for _, step := range []struct{ write, found, next string }{
		{a, a + ", the PIN of keyward-hsm@a", "systemd-creds encrypt --name=pin - " + a},
		{b, b + ", the PIN of keyward-hsm@b", "systemctl restart keyward-hsm@b.socket"},
	} {
		if found, next := d.pins(t.Context()); !strings.Contains(found, step.found) || !strings.Contains(next, step.next) {
			t.Errorf("%q, %q", found, next)
		}
		if err := os.WriteFile(step.write, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if found, next := d.pins(t.Context()); next != "" || !strings.HasPrefix(found, "2,") {
		t.Errorf("%q, %q", found, next)
	}
	if got := credentialFiles("LoadCredential=pin:relative\nLoadCredential=pin\nLoadCredential=pin:/a b\n"); !slices.Equal(got, []string{"/a b"}) {
		t.Errorf("%q", got)
	}
}

func TestDoctorRoom(t *testing.T) {
	if found, next := roomFound("/x", leastFree); next != "" || found != "64 MiB free for /x" {
		t.Errorf("%q, %q", found, next)
	}
	if _, next := roomFound("/x", leastFree-1); next == "" {
		t.Error("too little room is enough")
	}
}
