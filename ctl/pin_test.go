package ctl

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/daemon/admin"
)

func TestPINCommands(t *testing.T) {
	d := startFake(t)
	d.must(t, "principal", "create", "user/alice")
	inDir(t)
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	const pin = "alice's PIN"
	for _, c := range []struct{ stdin, file string }{{pin, ""}, {pin + "\n", ""}, {pin + "\r\n", "-"}, {"", write("pin", pin+"\n", 0o600)}} {
		d.pin = ""
		args := []string{"principal", "pin", "set", "user/alice"}
		if c.file != "" {
			args = append(args, "--pin-file", c.file)
		}
		code, out, talk := d.ctl(t, c.stdin, args...)
		if code != exitOK || d.pin != pin || strings.Contains(out+talk, pin) || !strings.Contains(talk, fakeAlice) {
			t.Errorf("%q: %d, %q, %q, %q", c, code, out, talk, d.pin)
		}
	}
	d.pin = ""
	for what, c := range map[string]struct{ stdin, file, want string }{
		"nothing":          {"", "", "stdin is empty"},
		"an empty line":    {"\n", "", "stdin is empty"},
		"two lines":        {pin + "\n" + pin + "\n", "", "several lines"},
		"a very long line": {strings.Repeat("x", admin.MaxPINBody+1), "", "more than 256 octets"},
		"everybody's file": {"", write("open", pin, 0o644), "chmod 0600 open"},
		"no file":          {"", "none", "none"},
	} {
		code, _, talk := d.ctl(t, c.stdin, "principal", "pin", "set", "user/alice", "--pin-file="+c.file)
		if code == exitOK || d.pin != "" || !strings.Contains(talk, c.want) || strings.Contains(talk, pin) {
			t.Errorf("%s: %d, %q, %q", what, code, talk, d.pin)
		}
	}
	if code, _, _ := d.ctl(t, "", "principal", "pin", "set", "user/alice", pin); code != exitUsage || d.pin != "" {
		t.Errorf("as an argument: %d", code)
	}
	p := d.principals[0]
	for want, state := range map[string]*admin.PIN{
		"2030-01-02T03:04:05Z\n": {}, "wrong 3 times": {Failures: 3}, "locked after 10 wrong": {Failures: 10, Locked: true},
	} {
		state.Set = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
		p.PIN = state
		if out, _ := d.must(t, "principal", "show", "user/alice"); !strings.Contains(out, want) {
			t.Errorf("show: %s", out)
		}
	}
	d.must(t, "principal", "pin", "remove", "user/alice")
	if out, _ := d.must(t, "principal", "show", "user/alice"); p.PIN != nil || strings.Contains(out, "PIN") {
		t.Errorf("show without one: %s", out)
	}
}

// TestPINFromTerminal types a PIN at a terminal: twice, without an echo, and interrupted.
func TestPINFromTerminal(t *testing.T) {
	d := startFake(t)
	d.must(t, "principal", "create", "user/alice")
	for _, c := range []struct {
		second, want string
		code         int
	}{{"alice's PIN", "has this PIN now", exitOK}, {"alice's pin", "two different PINs", exitFailure}, {"", "interrupted", exitFailure}} {
		d.pin = ""
		person, terminal := openTerminal(t)
		ctx, cancel := context.WithCancel(t.Context())
		prompts := make(chan string, 10)
		ended := make(chan int, 1)
		go func() {
			ended <- run(ctx, []string{"--socket", d.socket, "principal", "pin", "set", "user/alice"}, terminal, io.Discard, talker(prompts))
		}()
		var said strings.Builder
		hear := func(want string) {
			t.Helper()
			for !strings.Contains(said.String(), want) {
				said.WriteString(<-prompts)
			}
		}
		hear("New PIN of " + fakeAlice)
		waitNoEcho(t, terminal)
		fmt.Fprintln(person, "alice's PIN")
		hear("Once more")
		if c.second == "" {
			waitNoEcho(t, terminal)
			cancel()
		} else {
			waitNoEcho(t, terminal)
			fmt.Fprintln(person, c.second)
		}
		code := <-ended
		close(prompts)
		for text := range prompts {
			said.WriteString(text)
		}
		if code != c.code || !strings.Contains(said.String(), c.want) || strings.Contains(said.String(), "alice's") || (d.pin == "alice's PIN") != (c.code == exitOK) {
			t.Errorf("%q: %d, %q, %q", c.second, code, said.String(), d.pin)
		}
		if !echoes(t, terminal) {
			t.Error("the terminal does not show what is typed any more")
		}
		cancel()
		person.Close()
		terminal.Close()
	}
}

// talker is a stderr that is heard.
type talker chan string

func (c talker) Write(b []byte) (int, error) {
	c <- string(b)
	return len(b), nil
}

// openTerminal makes a pair of a person's end and a program's.
func openTerminal(t *testing.T) (person, terminal *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return person, terminal
}

func echoes(t *testing.T, terminal *os.File) bool {
	t.Helper()
	mode, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return mode.Lflag&unix.ECHO != 0
}

// waitNoEcho waits until the program has told the terminal not to show what is typed.
func waitNoEcho(t *testing.T, terminal *os.File) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); echoes(t, terminal) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}
