package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/hsmpool/hsmtest/faulty/control"
)

// faultyLibrary gives the path of a module that has its control file and nothing else: what the fake daemon does is not in it.
func faultyLibrary(t *testing.T) (string, *control.File) {
	t.Helper()
	library := filepath.Join(t.TempDir(), "m.so")
	f, err := control.Create(control.Path(library), "/inner.so")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return library, f
}

// TestBenchFaults: with faults, calls that fail are counted and gone on after, and how long calls took is told in every mode.
func TestBenchFaults(t *testing.T) {
	d := startFake(t)
	library, f := faultyLibrary(t)
	if err := f.Hang("C_Login"); err != nil { // of a run that was killed
		t.Fatal(err)
	}
	line := []string{"bench", "--row", "software encrypt", "--duration", "300ms", "--clients", "3", "--fault-every", "100ms", "-o", "json",
		"--fault", library + ":delay=C_Sign:2ms", "--fault", library + ":fail=C_Sign:ckr_device_error", "--fault", library + ":hang=C_Encrypt"}
	for what, c := range map[string]struct {
		refuse bool
		failed bool
	}{"all well": {}, "refused": {true, true}} {
		if c.refuse {
			for _, action := range []string{"Encrypt", "BatchEncrypt"} {
				d.mu.Lock()
				d.refuse[action] = problem(503, "ServiceUnavailableTemporary", "no HSM")
				d.mu.Unlock()
			}
		}
		code, out, talk := d.ctl(t, "", line...)
		if code != exitOK || !strings.Contains(talk, "no process has it open") {
			t.Fatalf("%s: exit code %d, %s", what, code, talk)
		}
		var whole struct {
			Orders []string `json:"fault_orders"`
			Rows   []benchResult
		}
		if err := json.Unmarshal([]byte(out), &whole); err != nil || len(whole.Rows) != 6 || len(whole.Orders) != 3 {
			t.Fatalf("%s: %v %s", what, err, out)
		}
		var failed, clients uint64
		for _, r := range whole.Rows {
			if r.P50 <= 0 || r.P99 > r.Max*1.02 || (r.Failed > 0) != c.failed || (r.Error != "") != c.failed || r.Faults != 0 {
				t.Errorf("%s: %+v", what, r)
			}
			if !strings.HasSuffix(r.Name, " octets") { // with a stream all fails that was under way in it
				failed, clients = failed+r.Failed, clients+uint64(r.Clients)
			}
		}
		// Clients that go on fail more than once. In which row, the machine decides.
		if (failed > clients) != c.failed {
			t.Errorf("%s: %d calls of %d clients failed: %+v", what, failed, clients, whole.Rows)
		}
		if f.Ordered() {
			t.Errorf("%s: an order was left", what)
		}
		d.mu.Lock() // a stream that was given up may still be at it
		delete(d.refuse, "Encrypt")
		delete(d.refuse, "BatchEncrypt")
		d.mu.Unlock()
	}
	if code, _, talk := d.ctl(t, "", "bench", "--fault", "none.so:serialise"); code != exitFailure || !strings.Contains(talk, "make faulty") {
		t.Errorf("exit code %d, %s", code, talk)
	}
	if out, _ := d.must(t, "bench", "--row", "software encrypt 1KiB single", "--duration", "10ms", "--fault", library+":serialise"); !strings.Contains(out, "MAX") || !strings.Contains(out, "FAULTS") {
		t.Error(out)
	}
}

// TestBenchFaultsInterrupted: an interrupt takes the orders back too.
func TestBenchFaultsInterrupted(t *testing.T) {
	d := startFake(t)
	library, f := faultyLibrary(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan int, 1)
	var talk bytes.Buffer
	go func() {
		ended <- run(ctx, []string{"--socket", d.socket, "bench", "--row", "software encrypt", "--duration", "5m",
			"--fault", library + ":slow=C_Sign:100", "--fault", library + ":crash=C_Sign"}, strings.NewReader(""), &bytes.Buffer{}, &talk)
	}()
	for end := time.Now().Add(30 * time.Second); !f.Ordered(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing was ordered")
		}
	}
	cancel()
	if code := <-ended; code == exitOK || !strings.Contains(talk.String(), "interrupted") {
		t.Errorf("exit code %d, %s", code, &talk)
	}
	if f.Ordered() {
		t.Error("an order was left")
	}
}
