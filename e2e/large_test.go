package e2e

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyward/keyward/kms/kmswire"
)

// maxResident is what any of the programs may hold in memory, however large the file, in KiB.
const maxResident = 100 << 10

// TestLargeFile sends a file through encrypt | decrypt: bit for bit, with constant memory. It has 256 MiB, and 1 GiB when
// KEYWARD_TEST_LONG is set. The programs are those that are shipped, because the race detector takes memory of its own.
func TestLargeFile(t *testing.T) {
	size := int64(256 << 20)
	if os.Getenv("KEYWARD_TEST_LONG") != "" {
		size = 1 << 30
	}
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	p := startDev(t, bin.keywardd, shortDir(t))
	key := createKey(t, p, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware"})

	encrypt := exec.Command(bin.keywardctl, "--socket", p.socket, "encrypt", "--key", key)
	decrypt := exec.Command(bin.keywardctl, "--socket", p.socket, "decrypt")
	in, out := sha256.New(), sha256.New()
	source := rand.NewChaCha8([32]byte{7})
	// The memory is read while the programs still run, just before the end of the file: what the kernel tells of a process
	// that has ended includes this test's own memory, from the moment between fork and exec.
	resident := map[*exec.Cmd]int64{}
	encrypt.Stdin = &endReader{r: io.TeeReader(io.LimitReader(source, size), in), atEnd: func() {
		for _, cmd := range []*exec.Cmd{encrypt, decrypt} {
			resident[cmd] = peakResident(t, cmd.Process.Pid)
		}
	}}
	encrypt.Stderr, decrypt.Stderr = p.log, p.log
	pipe, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	encrypt.Stdout, decrypt.Stdin = write, pipe
	decrypt.Stdout = out
	// The reader first: when the writer sees the end of its input, both run.
	for _, cmd := range []*exec.Cmd{decrypt, encrypt} {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	// The programs have their own copies; the reader must see the end when the writer is done.
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	if err := pipe.Close(); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range []*exec.Cmd{encrypt, decrypt} {
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, p.log)
		}
		kib := resident[cmd]
		t.Logf("%s: %d MiB resident at most", cmd.Args[3], kib>>10)
		if kib == 0 || kib > maxResident {
			t.Errorf("%s took %d MiB of memory, want under %d", cmd.Args[3], kib>>10, maxResident>>10)
		}
	}
	if string(in.Sum(nil)) != string(out.Sum(nil)) {
		t.Error("the decrypted file differs")
	}
	if kib := peakResident(t, p.cmd.Process.Pid); kib > maxResident {
		t.Errorf("keywardd took %d MiB of memory, want under %d", kib>>10, maxResident>>10)
	} else {
		t.Logf("keywardd: %d MiB resident at most", kib>>10)
	}
}

// endReader calls atEnd once, before it tells of the end.
type endReader struct {
	r     io.Reader
	atEnd func()
}

// Read reads.
func (e *endReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err == io.EOF && e.atEnd != nil {
		e.atEnd()
		e.atEnd = nil
	}
	return n, err
}

// peakResident is the most memory that a running process held, in KiB; 0 when that is not known, which is an error.
func peakResident(t *testing.T, pid int) int64 {
	status, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "status"))
	if err != nil {
		t.Error(err)
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Error(err)
	}
	return kib
}

func readTrimmed(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}
