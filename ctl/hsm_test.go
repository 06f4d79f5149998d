package ctl

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/daemon/admin"
)

func TestHSMStatus(t *testing.T) {
	d := startFake(t)
	m := &d.status.Members[1]
	*m = admin.Member{Name: "hsm-b", State: admin.HalfOpen, Reason: "it is back", Since: time.Now().Add(-2 * time.Hour), Window: 8, InFlight: 5, Sessions: 4, Keys: 3,
		Queue: 2, Done: 1000, Failed: 20, Failovers: 19, Restarts: 1, Codes: map[string]uint64{"CKR_DEVICE_ERROR": 7}, Latency: admin.Latency{Count: 9, P99: 1234.5},
		Workers: []admin.Worker{{PID: 4711, State: admin.Up, Window: 6}, {State: admin.Down, Reason: "it crashed", Restarts: 1}}}
	// One that is half open serves, so all is well.
	out, _ := d.must(t, "hsm", "status")
	row := "hsm-b   half-open  2h00m    8       5          4         3     2      1000  20      19         1         1.2ms  it is back"
	if !strings.Contains(out, "MEMBER  STATE      FOR") || !strings.Contains(out, row) || !strings.Contains(out, "3 of at most 4096 jobs wait, of 2 principals") {
		t.Errorf("want %q in\n%s", row, out)
	}
	out, _ = d.must(t, "hsm", "status", "--workers")
	if !strings.Contains(out, "hsm-b   4711  up") || !strings.Contains(out, "hsm-b   -     down   0       0          0         0      0     1         it crashed") {
		t.Errorf("workers:\n%s", out)
	}
	out, _ = d.must(t, "hsm", "status", "-o", "json")
	var all admin.Members
	if err := json.Unmarshal([]byte(out), &all); err != nil || all.Members[1].Codes["CKR_DEVICE_ERROR"] != 7 || all.Members[1].Latency != m.Latency ||
		len(all.Members[1].Workers) != 2 || all.Pool.Room != 4096 {
		t.Errorf("%v, %s", err, out)
	}
	m.State = admin.Draining
	if code, _, _ := d.ctl(t, "", "hsm", "status"); code != exitDegraded {
		t.Errorf("draining: %d", code)
	}
	d.status.Members[0].State = admin.Down
	if code, _, _ := d.ctl(t, "", "hsm", "status"); code != exitUnavailable {
		t.Errorf("none serves: %d", code)
	}
}

func TestMicros(t *testing.T) {
	for us, want := range map[float64]string{3.4: "3µs", 999: "999µs", 1234: "1.2ms", 45678: "45.7ms", 1234567: "1.23s"} {
		if got := micros(admin.Latency{Count: 1, P99: us}); got != want {
			t.Errorf("%v: %q", us, got)
		}
	}
	if got := micros(admin.Latency{P99: 5}); got != "" {
		t.Errorf("nothing measured: %q", got)
	}
}

func TestHSMDrain(t *testing.T) {
	d := startFake(t)
	_, talk := d.must(t, "hsm", "drain", "hsm-a", "--wait", "90s")
	if len(d.managed) != 1 || d.managed[0] != `drain hsm-a {"timeout_seconds":90}` || !strings.Contains(talk, "hsm undrain hsm-a") {
		t.Errorf("%v, %q", d.managed, talk)
	}
	// The last one that is up is not drained without a question.
	if code, _, talk := d.ctl(t, "", "hsm", "drain", "hsm-b"); code != exitUsage || !strings.Contains(talk, "last member") || !strings.Contains(talk, "--yes") || len(d.managed) != 1 {
		t.Errorf("the last one: %d, %q, %v", code, talk, d.managed)
	}
	d.busy = true
	d.status.Members[1].InFlight = 4
	if code, _, talk := d.ctl(t, "", "hsm", "drain", "hsm-b", "--yes", "--wait", "0s"); code != exitFailure || !strings.Contains(talk, "still has 4") || !strings.Contains(talk, "next: ") {
		t.Errorf("busy: %d, %q", code, talk)
	}
	// One that is down already needs no question.
	d.busy = false
	if out, _ := d.must(t, "hsm", "drain", "hsm-a", "-o", "json"); !strings.Contains(out, `"idle": true`) {
		t.Errorf("%s", out)
	}
	if _, talk := d.must(t, "hsm", "undrain", "hsm-a"); talk != "hsm-a is half-open\n" {
		t.Errorf("undrain: %q", talk)
	}
	if code, _, talk := d.ctl(t, "", "hsm", "undrain", "hsm-x"); code != exitNotFound || !strings.Contains(talk, "hsm-x") {
		t.Errorf("no such member: %d, %q", code, talk)
	}
	for _, args := range [][]string{{"hsm", "drain"}, {"hsm", "drain", "hsm-a", "--wait", "2h"}, {"hsm", "undrain", "a", "b"}} {
		if code, _, _ := d.ctl(t, "", args...); code != exitUsage {
			t.Errorf("%v: %d", args, code)
		}
	}
}

func TestHSMEnroll(t *testing.T) {
	d := startFake(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one, two := file("share-1-of-3", "kws1-ONE"), file("share-2-of-3", " kws1-TWO\n")
	readme := file("README", "not a share")
	want := `enroll hsm-b {"shares":["kws1-ONE","kws1-TWO"]}`
	for _, from := range [][]string{{"--share", one, "--share", two}, {"--shares-dir", dir}} {
		d.managed = nil
		out, talk := d.must(t, append([]string{"hsm", "enroll", "hsm-b"}, from...)...)
		if len(d.managed) != 1 || d.managed[0] != want || !strings.Contains(talk, "group g-1") || strings.Contains(out+talk, "kws1") {
			t.Errorf("%v: %v, %q%q", from, d.managed, out, talk)
		}
	}
	d.managed = nil
	for _, row := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "--share or --shares-dir is missing"},
		{[]string{"--share", one, "--shares-dir", dir}, exitUsage, "drop one"},
		{[]string{"--share", readme}, exitFailure, "README is not the file of one share"},
		{[]string{"--share", file("empty", "\n")}, exitFailure, "empty is not"},
		{[]string{"--share", file("long", strings.Repeat("x", 2000))}, exitFailure, "long is not"},
		{[]string{"--share", file("quote", `a"b`)}, exitFailure, "share 1 is not the text of a share"},
		{[]string{"--share", filepath.Join(dir, "none")}, exitFailure, "no such file"},
		{[]string{"--shares-dir", t.TempDir()}, exitFailure, "has no files share-"},
	} {
		code, _, talk := d.ctl(t, "", append([]string{"hsm", "enroll", "hsm-b"}, row.args...)...)
		if code != row.code || !strings.Contains(talk, row.want) || len(d.managed) != 0 {
			t.Errorf("%v: %d, %q, %v", row.args, code, talk, d.managed)
		}
	}
}

func TestReload(t *testing.T) {
	d := startFake(t)
	if out, talk := d.must(t, "reload"); out != "reloaded\n" || talk != "" {
		t.Errorf("%q, %q", out, talk)
	}
	d.needRestart = []string{"region", "pool.isolation"}
	if out, talk := d.must(t, "reload"); out != "reloaded\n" || !strings.Contains(talk, "restart of the daemon: region, pool.isolation") {
		t.Errorf("%q, %q", out, talk)
	}
	d.refusal = &admin.Failure{Message: "keyward.toml:7: unknown key"}
	if code, out, talk := d.ctl(t, "", "reload"); code != exitFailure || out != "" || talk != "keywardctl reload: keyward.toml:7: unknown key\n" {
		t.Errorf("%d, %q, %q", code, out, talk)
	}
	if out, _ := d.must(t, "metrics"); out != "keyward_hsm_up 1\n" {
		t.Errorf("metrics: %q", out)
	}
}
