package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keyward/keyward/ctl"
	"github.com/keyward/keyward/daemon"
	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/hsmpool/hsmtest/faulty"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"keywardd":   func() { os.Exit(daemon.Main()) },
		"keywardctl": func() { os.Exit(ctl.Main()) },
		// The daemon starts its children as /proc/self/exe, and which program that is goes by the last part of the name.
		"exe": func() { os.Exit(daemon.Main()) },
	})
}

// startTimeout is how long a daemon may take to its first answer. It is generous: the race detector is on, and
// keywardd dev makes two HSM tokens.
const startTimeout = 60 * time.Second

// TestStories runs the stories. Each has a directory $WORK of its own; keywardctl talks to the daemon of $WORK/k. $EAST and
// $WEST are modules that fail on order, for the one story that has them in use.
func TestStories(t *testing.T) {
	east, west := faulty.New(t, hsmtest.Module), faulty.New(t, hsmtest.Module)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("KEYWARD_SOCKET", filepath.Join(env.WorkDir, "k", "admin.sock"))
			env.Setenv("EAST", east.Path)
			env.Setenv("WEST", west.Path)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ready":      scriptReady,
			"reload":     scriptReload,
			"code":       scriptCode,
			"eventually": scriptEventually,
			"removehsm":  scriptRemoveHSM,
			"random":     scriptRandom,
			"flip":       scriptFlip,
			"trim":       scriptTrim,
		},
	})
}

// scriptReady waits until the daemon of a directory answers: ready DIR.
func scriptReady(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: ready DIR")
	}
	ts.Check(waitReady(filepath.Join(ts.MkAbs(args[0]), "admin.sock"), startTimeout))
}

// scriptReload has the daemon of a dev directory read its configuration again, and waits until it did: reload DIR.
func scriptReload(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: reload DIR")
	}
	dir := ts.MkAbs(args[0])
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	client := admin.NewClient(filepath.Join(dir, "admin.sock"))
	defer client.Close()
	before, err := client.Status(ctx)
	ts.Check(err)
	text, err := os.ReadFile(filepath.Join(dir, "state", "lock"))
	ts.Check(err)
	var pid int
	_, err = fmt.Sscan(string(text), &pid)
	ts.Check(err)
	ts.Check(syscall.Kill(pid, syscall.SIGHUP))
	for {
		after, err := client.Status(ctx)
		ts.Check(err)
		if after.Reloads > before.Reloads {
			return
		}
	}
}

// scriptCode runs a program that must end with that exit code: code N PROGRAM ARGUMENT...
func scriptCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N PROGRAM ARGUMENT...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		got = -1
		if exit, ok := err.(*exec.ExitError); ok {
			got = exit.ExitCode()
		}
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit code %d, want %s (%v)", got, args[0], err)
	}
}

// scriptEventually runs a program again and again until it ends well: eventually PROGRAM ARGUMENT...
func scriptEventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: eventually PROGRAM ARGUMENT...")
	}
	deadline := time.Now().Add(startTimeout)
	for {
		err := ts.Exec(args[0], args[1:]...)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v never ended well: %v", args, err)
		}
		time.Sleep(50 * time.Millisecond) // between two looks
	}
}

// scriptRandom writes a file of random octets: random FILE SIZE.
func scriptRandom(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: random FILE SIZE")
	}
	ts.Check(ts.Exec("sh", "-c", `head -c "$2" /dev/urandom > "$1"`, "sh", ts.MkAbs(args[0]), args[1]))
}

// scriptFlip changes one bit in the middle of a file: flip FILE.
func scriptFlip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: flip FILE")
	}
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	data[len(data)/2] ^= 1
	ts.Check(os.WriteFile(path, data, 0o600))
}

// scriptTrim cuts the last octets off a file: trim FILE N.
func scriptTrim(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: trim FILE N")
	}
	path := ts.MkAbs(args[0])
	info, err := os.Stat(path)
	ts.Check(err)
	var n int64
	_, err = fmt.Sscan(args[1], &n)
	ts.Check(err)
	ts.Check(os.Truncate(path, info.Size()-n))
}

// scriptRemoveHSM moves the token of one member away, as pulling its plug would: removehsm DIR LABEL.
func scriptRemoveHSM(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: removehsm DIR LABEL")
	}
	ts.Check(moveToken(ts.MkAbs(args[0]), args[1]))
}

// moveToken moves the directory of the SoftHSM2 token with that label out of the tokens of a dev directory.
func moveToken(dir, label string) error {
	tokens, err := filepath.Glob(filepath.Join(dir, "tokens", "*", "token.object"))
	if err != nil {
		return err
	}
	for _, file := range tokens {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if bytes.Contains(text, []byte(label)) {
			return os.Rename(filepath.Dir(file), filepath.Join(dir, "removed-"+label))
		}
	}
	return fmt.Errorf("no token called %s in %s", label, dir)
}

// waitReady waits until a daemon answers at the socket.
func waitReady(socket string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	client := admin.NewClient(socket)
	defer client.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := client.Status(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer at %s: %w", socket, err)
		case <-tick.C:
		}
	}
}
