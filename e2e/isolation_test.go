package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/kms/kmswire"
)

// TestLibrariesStayOutside looks at what is mapped: the daemon has no PKCS#11 library, each of its workers has one. It
// looks at a first start of keywardd dev, which makes tokens, and at a second.
func TestLibrariesStayOutside(t *testing.T) {
	dir := shortDir(t)
	for range 2 {
		p := startDev(t, "keywardd", dir)
		p.mustWork(createKey(t, p, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware"}))
		daemon := p.cmd.Process.Pid
		if mapsSoftHSM(t, daemon) {
			t.Error("the daemon has SoftHSM2 in it")
		}
		workers := childrenOf(t, daemon)
		if len(workers) != 2 {
			t.Errorf("two members have the processes %v", workers)
		}
		for _, pid := range workers {
			if !mapsSoftHSM(t, pid) {
				t.Errorf("the worker %d has no SoftHSM2 in it", pid)
			}
			if command := procFile(t, pid, "cmdline"); !bytes.Contains(command, []byte("\x00hsm-worker\x00")) {
				t.Errorf("the child %d is %q", pid, command)
			}
			if limits := string(procFile(t, pid, "limits")); !strings.Contains(strings.Join(strings.Fields(limits), " "), "Max core file size 0 0") {
				t.Errorf("the worker %d may dump its memory:\n%s", pid, limits)
			}
		}
		p.stop()
		mustEnd(t, workers)
	}
}

// TestWorkersEndWithDaemon kills the daemon with no chance to end its workers.
func TestWorkersEndWithDaemon(t *testing.T) {
	p := startDev(t, "keywardd", shortDir(t))
	workers := childrenOf(t, p.cmd.Process.Pid)
	if len(workers) == 0 {
		t.Fatal("there are no workers")
	}
	p.kill()
	mustEnd(t, workers)
}

// TestWorkerKilled kills a worker, as the crash of a library would: calls go on, the daemon stays, and the worker comes back.
func TestWorkerKilled(t *testing.T) {
	p := startDev(t, "keywardd", shortDir(t))
	key := createKey(t, p, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware"})
	for _, pid := range childrenOf(t, p.cmd.Process.Pid) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		p.mustWork(key)
		client := admin.NewClient(p.socket)
		for deadline := time.Now().Add(startTimeout); ; {
			all, err := client.Members(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			back := true
			for _, m := range all.Members {
				back = back && m.State.Serves()
				for _, w := range m.Workers {
					back = back && w.PID != pid && w.PID != 0
				}
			}
			if back {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the worker %d does not come back: %+v\n%s", pid, all.Members, p.log)
			}
			time.Sleep(20 * time.Millisecond) // between two looks
		}
		client.Close()
	}
	p.mustWork(key)
}

// TestWorkerUnit plays systemd's part for a worker that is a unit: it waits at the socket that it was passed for the daemon, serves one connection, and ends with it.
func TestWorkerUnit(t *testing.T) {
	path := filepath.Join(shortDir(t), "worker.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for range 2 { // the next connection finds a new process at the same socket
		cmd := exec.Command("keywardd", "hsm-worker")
		cmd.ExtraFiles = []*os.File{file}
		log := &text{}
		cmd.Stderr = log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			t.Fatalf("it did not wait: %v\n%s", err, log)
		case <-time.After(200 * time.Millisecond): // it is there
		}
		conn.Close()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("%v\n%s", err, log)
			}
		case <-time.After(startTimeout):
			_ = cmd.Process.Kill()
			t.Fatal("it lives longer than its connection")
		}
	}
}

// procFile reads a file of /proc/PID. Processes that can't be dumped show theirs to root only.
func procFile(t *testing.T, pid int, name string) []byte {
	t.Helper()
	path := filepath.Join("/proc", strconv.Itoa(pid), name)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrPermission) && os.Getuid() != 0 {
		text, err = exec.Command("sudo", "-n", "cat", path).Output()
	}
	if err != nil {
		t.Fatalf("%v (this test needs root, or sudo without a password)", err)
	}
	return text
}

func mapsSoftHSM(t *testing.T, pid int) bool {
	t.Helper()
	maps := procFile(t, pid, "maps")
	if !bytes.Contains(maps, []byte("[stack]")) {
		t.Fatalf("the maps of %d say nothing: %q", pid, maps)
	}
	return bytes.Contains(maps, []byte("softhsm"))
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(t *testing.T, pid int) (children []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has just ended
		}
		// pid (name) state ppid ...; the name may hold anything.
		var state string
		var parent, child int
		if _, err := fmt.Sscan(string(text[bytes.LastIndexByte(text, ')')+1:]), &state, &parent); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if _, err := fmt.Sscan(string(text), &child); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if parent == pid && state != "Z" {
			children = append(children, child)
		}
	}
	return children
}

// mustEnd waits until processes have ended.
func mustEnd(t *testing.T, pids []int) {
	t.Helper()
	deadline := time.Now().Add(startTimeout)
	for _, pid := range pids {
		for syscall.Kill(pid, 0) == nil {
			if time.Now().After(deadline) {
				t.Fatalf("the process %d is still there", pid)
			}
			time.Sleep(20 * time.Millisecond) // between two looks
		}
	}
}
