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
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
	"github.com/keyward/keyward/pkcs11front/p11rpc/p11rpctest"
)

// TestSystemd plays systemd's part: it passes both sockets, hears that the daemon is ready and alive, asks it to reload and
// to stop, and finds the sockets still there.
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
	pkcs11Socket := filepath.Join(dir, "pkcs11.sock")
	pkcs11Listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: pkcs11Socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer pkcs11Listener.Close()
	if err := os.Chmod(pkcs11Socket, 0o600); err != nil { // as sockets.private wants it
		t.Fatal(err)
	}
	pkcs11File, err := pkcs11Listener.File()
	if err != nil {
		t.Fatal(err)
	}
	defer pkcs11File.Close()
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
	cmd.Env = append(os.Environ(), "LISTEN_FDS=2", "LISTEN_FDNAMES=admin:pkcs11", "NOTIFY_SOCKET="+notifyPath, "WATCHDOG_USEC=600000")
	cmd.ExtraFiles = []*os.File{file, pkcs11File}
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
	if slots := pkcs11Slots(t, pkcs11Socket); slots != 2 {
		t.Errorf("there are %d slots", slots)
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
	for _, passed := range []string{socket, pkcs11Socket} {
		if _, err := os.Stat(passed); err != nil {
			t.Errorf("a passed socket is gone: %v", err)
		}
	}
	for _, own := range []string{"admin.sock", "pkcs11.sock"} {
		if _, err := os.Stat(filepath.Join(dir, "k", own)); err == nil {
			t.Errorf("the daemon made %s of its own too", own)
		}
	}
}

// pkcs11Slots asks how many slots there are, over a connection that stays open.
func pkcs11Slots(t *testing.T, socket string) int {
	t.Helper()
	c, err := p11rpctest.Dial(socket, p11rpc.OfferKeyward)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if rv, err := c.Initialize("00112233445566778899aabbccddeeff"); err != nil || rv != ck.CKR_OK {
		t.Fatal("C_Initialize:", rv, err)
	}
	r, rv, err := c.Call(4, func(w *p11rpc.Writer) { // C_GetSlotList
		w.Byte(1)
		w.Room(p11rpc.Room{Null: true})
	})
	if err != nil || rv != ck.CKR_OK {
		t.Fatal("C_GetSlotList:", rv, err)
	}
	_, n := r.Ulongs()
	return n
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
