package e2e

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

// TestSystemd plays systemd's part: it passes a socket, hears that the daemon is ready and alive, asks it to reload and
// to stop, and finds the socket still there.
func TestSystemd(t *testing.T) {
	dir := shortDir(t)
	startDev(t, "keywardd", dir).stop()
	conf := filepath.Join(dir, "k", "keyward.toml")

	socket := filepath.Join(dir, "passed.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	notifyPath := filepath.Join(dir, "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notifyPath, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	if err := notify.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		t.Fatal(err)
	}
	hear := func(word string) {
		t.Helper()
		var heard []string
		buf := make([]byte, 4096)
		for {
			n, err := notify.Read(buf)
			if err != nil {
				t.Fatalf("no %q came, only %q: %v", word, heard, err)
			}
			if heard = append(heard, string(buf[:n])); strings.Contains(heard[len(heard)-1], word) {
				return
			}
		}
	}

	log := &text{}
	cmd := exec.Command("sh", "-c", `export LISTEN_PID=$$ WATCHDOG_PID=$$; exec keywardd run --config "$1"`, "sh", conf)
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=admin", "NOTIFY_SOCKET="+notifyPath, "WATCHDOG_USEC=600000")
	cmd.ExtraFiles = []*os.File{file}
	cmd.Stderr = log
	// A caller that comes before the daemon waits, and is served.
	early := make(chan error, 1)
	client := &kmsclient.Client{Socket: socket}
	go func() {
		var answer kmswire.DescribeRegionsResponse
		early <- kmsclient.Call(context.Background(), client, "DescribeRegions", &kmswire.DescribeRegionsRequest{}, &answer)
	}()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	hear("READY=1")
	if err := <-early; err != nil {
		t.Errorf("the early caller: %v", err)
	}
	hear("WATCHDOG=1")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	hear("RELOADING=1")
	hear("READY=1")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	hear("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("the daemon ended with %v\n%s", err, log)
	}
	client.CloseIdle()
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("the passed socket is gone: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "k", "admin.sock")); err == nil {
		t.Error("the daemon made a socket of its own too")
	}
}

// TestDrain stops the daemon while a call runs: the call ends well, new ones are refused, and the daemon ends well.
func TestDrain(t *testing.T) {
	p := startDev(t, "keywardd", shortDir(t))
	key := createKey(t, p, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware"})
	batch, err := p.client.OpenOctets(context.Background(), "BatchEncrypt", &kmswire.BatchEncryptRequest{KeyID: key})
	if err != nil {
		t.Fatal(err)
	}
	defer batch.Close()
	exchange := func() {
		t.Helper()
		if err := batch.Send([]byte("item")); err != nil {
			t.Fatal(err)
		}
		if err := batch.Flush(); err != nil {
			t.Fatal(err)
		}
		if result, failed, err := batch.Recv(); err != nil || failed != nil || len(result) == 0 {
			t.Fatalf("the result is %d octets, %v, %v", len(result), failed, err)
		}
	}
	exchange()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// The socket goes first; then nobody new comes in.
	deadline := time.Now().Add(startTimeout)
	for {
		c, err := net.Dial("unix", p.socket)
		if err != nil {
			break
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatal("the socket stays open")
		}
	}
	exchange()
	if err := batch.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := batch.Recv(); err != io.EOF {
		t.Errorf("the stream ended with %v", err)
	}
	if err := <-p.ended; err != nil {
		t.Errorf("keywardd ended with %v\n%s", err, p.log)
	}
	p.cmd = nil
	if strings.Contains(p.log.String(), "cut off") {
		t.Errorf("calls were cut off:\n%s", p.log)
	}
}
