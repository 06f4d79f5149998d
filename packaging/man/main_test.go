package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/keyward/keyward/ctl"
)

// Every command has its page, with all its flags; man has nothing to say against any; and the same sources give the same pages.
func TestPages(t *testing.T) {
	config, err := os.ReadFile("../../configs/keyward.toml")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("KEYWARD_SOCKET", "/somewhere/else.sock") // whose makes the pages is not in them
	pages, err := render("1.0", "2026-01-02", string(config))
	if err != nil {
		t.Fatal(err)
	}
	again, err := render("1.0", "2026-01-02", string(config))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range pages {
		if !bytes.Equal(text, again[name]) {
			t.Errorf("%s is another each time", name)
		}
		if bytes.Contains(text, []byte("/somewhere/else")) {
			t.Errorf("%s has the environment of who made it", name)
		}
		cmd := exec.Command("man", "--warnings=w", "-E", "UTF-8", "-l", "-Tutf8", "-P", "cat", "-")
		cmd.Stdin = bytes.NewReader(text)
		cmd.Env = append(os.Environ(), "MANROFFSEQ=", "MANWIDTH=100", "LC_ALL=C.UTF-8")
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil || said.Len() > 0 {
			t.Errorf("man, of %s: %v\n%s", name, err, &said)
		}
		if len(out) < 300 || bytes.Contains(out, []byte("<!--")) {
			t.Errorf("%s is %d octets:\n%s", name, len(out), out)
		}
	}
	for _, cmd := range ctl.Command().Commands() {
		if !cmd.IsAvailableCommand() {
			continue
		}
		text := string(pages["keywardctl-"+cmd.Name()+".1"])
		for _, c := range runnable(cmd) {
			if !strings.Contains(text, strings.ReplaceAll(c.CommandPath(), "-", `\-`)) && !strings.Contains(text, c.CommandPath()) {
				t.Errorf("the page of %s does not know %s", cmd.Name(), c.CommandPath())
			}
		}
	}
	for page, words := range map[string][]string{"keyward.toml.5": {"pin_credential", "client_names", "max_connections"}, "keywardd.8": {"SIGHUP", "check-config"}, "keywardctl.1": {"KEYWARD_SOCKET", "keywardctl-xki"}} {
		for _, w := range words {
			if !strings.Contains(strings.ReplaceAll(string(pages[page]), `\-`, "-"), w) {
				t.Errorf("%s does not say %s", page, w)
			}
		}
	}
}
