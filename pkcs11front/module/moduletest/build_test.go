package moduletest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The ways in which the module and the programs are built for tests.
var variants = map[string][]string{
	"plain":     {"-O2", "-g"},
	"address":   {"-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"},
	"thread":    {"-O1", "-g", "-fsanitize=thread"},
	"impatient": {"-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DANSWER_SECONDS=1"},
}

var (
	buildDir string
	builds   sync.Map // by variant and program: func() error
)

func TestMain(m *testing.M) {
	var err error
	if buildDir, err = os.MkdirTemp("", "module"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(buildDir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// built gives the path of the module (module.so) or of a program of ../test in a variant.
func built(t testing.TB, variant, name string) string {
	t.Helper()
	path := filepath.Join(buildDir, variant+"-"+name)
	build, _ := builds.LoadOrStore(path, sync.OnceValue(func() error {
		args := append([]string{"-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", path}, variants[variant]...)
		sources, err := filepath.Glob("../*.c")
		if err != nil {
			return err
		}
		switch name {
		case "module.so":
			args = append(args, "-shared", "-fPIC", "-fvisibility=hidden", "-Wl,--version-script=../module.map")
			args = append(args, sources...)
		case "fuzz", "kinds": // they have what they test in them
			args = append(args, "../test/"+name+".c", "../calls.c", "../wire.c", "../attribute.c", "../mechanism.c")
		default:
			args = append(args, "../test/"+name+".c", "-ldl")
		}
		if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("gcc: %w\n%s", err, out)
		}
		return nil
	}))
	if err := build.(func() error)(); err != nil {
		t.Fatal(err)
	}
	return path
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// environment is what a program of these tests is run with.
func environment(d *daemon, timeout int) []string {
	return append(os.Environ(), "KEYWARD_PKCS11_SOCKET="+d.path, fmt.Sprintf("KEYWARD_PKCS11_TIMEOUT=%d", timeout),
		"ASAN_OPTIONS=detect_leaks=1:abort_on_error=0", "UBSAN_OPTIONS=print_stacktrace=1", "TSAN_OPTIONS=halt_on_error=1")
}

// driver is a running program that makes the calls that it is told of: see ../test/driver.c.
type driver struct {
	t     testing.TB
	d     *daemon
	pid   int
	in    io.Writer
	lines chan string
}

// drive starts a driver. When the test ends it must end well: a sanitizer, or valgrind, would not let it.
func drive(t testing.TB, d *daemon, variant string, under ...string) *driver {
	t.Helper()
	return driveFor(t, d, variant, 10, under...)
}

func driveFor(t testing.TB, d *daemon, variant string, timeout int, under ...string) *driver {
	t.Helper()
	args := append(append([]string{}, under...), built(t, variant, "driver"), built(t, variant, "module.so"))
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = environment(d, timeout)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 64)
	go func() { // ends with the program
		defer close(lines)
		s := bufio.NewScanner(out)
		s.Buffer(nil, 16<<20)
		for s.Scan() {
			lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		in.Close()
		kill := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		defer kill.Stop()
		for range lines {
		}
		if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
			t.Errorf("the driver ended with %v\n%s", err, stderr.Bytes())
		}
	})
	return &driver{t, d, cmd.Process.Pid, in, lines}
}

// tell gives the driver a line; answer waits for what comes of it.
func (v *driver) tell(format string, args ...any) {
	v.t.Helper()
	if _, err := fmt.Fprintf(v.in, format+"\n", args...); err != nil {
		v.t.Fatal(err)
	}
}

func (v *driver) answer() string {
	v.t.Helper()
	select {
	case line, ok := <-v.lines:
		if !ok {
			v.t.Fatal("the driver is gone")
		}
		return line
	case <-time.After(30 * time.Second):
		v.t.Fatal("the driver does not answer")
	}
	return ""
}

// do makes a call and gives what came of it.
func (v *driver) do(format string, args ...any) string {
	v.t.Helper()
	v.tell(format, args...)
	return v.answer()
}

// want makes a call that must have a result.
func (v *driver) want(result, format string, args ...any) {
	v.t.Helper()
	if got := v.do(format, args...); got != result {
		v.t.Errorf("%s: %s, not %s", fmt.Sprintf(format, args...), got, result)
	}
}

// sent says what the daemon must have got since it was last asked.
func (v *driver) sent(batches string) {
	v.t.Helper()
	if got := v.d.took(); got != batches {
		v.t.Errorf("the daemon got %q, not %q", got, batches)
	}
}

// open initializes and opens a session.
func (v *driver) open(slot int) string {
	v.t.Helper()
	v.want("0", "C_Initialize")
	return v.session(slot)
}

func (v *driver) session(slot int) string {
	v.t.Helper()
	s, ok := strings.CutPrefix(v.do("C_OpenSession %d 6 =", slot), "0 ")
	if !ok {
		v.t.Fatal("no session: ", s)
	}
	v.d.took()
	return s
}
