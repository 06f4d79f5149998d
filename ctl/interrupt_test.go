package ctl

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
)

// silent is a stdin at which nobody types.
type silent struct{ asked, closed chan struct{} }

func (s silent) Read([]byte) (int, error) {
	close(s.asked)
	<-s.closed
	return 0, io.EOF
}

// TestInterruptedWait interrupts commands that wait for a stdin which says nothing. None may go on waiting, and none may
// leave a file.
func TestInterruptedWait(t *testing.T) {
	d := startFake(t)
	inDir(t)
	d.must(t, "key", "create", "--alias", "a")
	d.must(t, "key", "create", "--alias", "s", "--spec", "EC_P256")
	for _, line := range []string{
		"encrypt --key alias/a --out x", "encrypt --key alias/a --direct --out x", "decrypt --out x", "decrypt --direct --out x",
		"sign --key alias/s --out x", "batch encrypt --key alias/a", "principal pin set user/alice",
	} {
		stdin := silent{asked: make(chan struct{}), closed: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan int, 1)
		var talk bytes.Buffer
		go func() {
			ended <- run(ctx, append([]string{"--socket", d.socket}, strings.Fields(line)...), stdin, &bytes.Buffer{}, &talk)
		}()
		<-stdin.asked
		cancel()
		// Without an end of its own the test's time limit ends it.
		if code := <-ended; code == exitOK || !strings.Contains(talk.String(), "interrupted") {
			t.Errorf("%s: exit code %d, %q", line, code, &talk)
		}
		if got := names(t); got != "" {
			t.Errorf("%s left %q", line, got)
		}
		close(stdin.closed)
	}
}
