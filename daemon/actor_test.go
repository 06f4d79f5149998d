package daemon

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/kms"
)

const (
	deploy      = "acs:ram::1000000000000001:user/deploy"
	releaseRole = "acs:ram::1000000000000001:role/release"
	web         = "acs:ram::1000000000000002:role/web"
)

func number(n uint32) *uint32 { return &n }

func table(t *testing.T, peers ...config.Peer) *peerTable {
	t.Helper()
	tab, err := newPeerTable(&config.Config{Path: "/etc/keyward/keyward.toml", Accounts: []string{"1000000000000001"}, Peers: peers})
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func TestIdentify(t *testing.T) {
	tab := table(t,
		config.Peer{UID: number(33), Unit: "nginx.service", Principal: web},
		config.Peer{UID: number(1001), Principal: deploy},
		config.Peer{GID: number(2100), Principal: releaseRole},
		config.Peer{User: "root", GID: number(5), Principal: deploy},
	)
	rows := []struct {
		name string
		peer *peer
		want string // principal; empty: nobody
	}{
		{"root needs no row and no row changes it", &peer{uid: 0, gid: 5}, "acs:ram::1000000000000001:root"},
		{"a uid", &peer{uid: 1001, gid: 7}, deploy},
		{"the first row that fits", &peer{uid: 1001, gid: 2100}, deploy},
		{"a primary group", &peer{uid: 1002, gid: 2100}, releaseRole},
		{"a supplementary group", &peer{uid: 1002, gid: 7, groups: []uint32{4, 2100}}, releaseRole},
		{"a unit narrows", &peer{uid: 33, gid: 33, unit: "nginx.service"}, web},
		{"another unit of that user", &peer{uid: 33, gid: 33, unit: "cron.service"}, ""},
		{"another user of that unit", &peer{uid: 34, gid: 33, unit: "nginx.service"}, ""},
		{"a stranger", &peer{uid: 1003, gid: 7}, ""},
		{"nobody, whatever its groups", &peer{uid: nobody, gid: 2100, groups: []uint32{2100}}, ""},
	}
	for _, row := range rows {
		id := tab.identify(row.peer)
		if row.want == "" {
			if id.actor != nil || id.why == "" {
				t.Errorf("%s: became %v", row.name, id.actor)
			}
			continue
		}
		if id.actor == nil || id.actor.Principal != row.want || id.actor.UID != row.peer.uid {
			t.Errorf("%s: became %+v, want %s", row.name, id.actor, row.want)
			continue
		}
		if want := config.AccountOf(row.want); id.actor.Account != want {
			t.Errorf("%s: account %s, want %s", row.name, id.actor.Account, want)
		}
	}
}

// TestIdentifyAfterReload sees that a connection that is open gets no more than the newest table gives it.
func TestIdentifyAfterReload(t *testing.T) {
	p := &peer{uid: 1001}
	before := table(t, config.Peer{UID: number(1001), Principal: deploy})
	first := before.identify(p)
	if first.actor == nil || before.identify(p) != first {
		t.Fatalf("got %+v, then another", first)
	}
	if id := table(t).identify(p); id.actor != nil {
		t.Errorf("after its row went, the peer is still %s", id.actor.Principal)
	}
}

func TestUnmappedIsToldWhatToDo(t *testing.T) {
	why := table(t).identify(&peer{uid: 4242}).why
	for _, want := range []string{"uid 4242", "/etc/keyward/keyward.toml", "[[peer]]", "reload"} {
		if !strings.Contains(why, want) {
			t.Errorf("%q does not say %q", why, want)
		}
	}
}

func TestPeerNamesMustExist(t *testing.T) {
	for _, p := range []config.Peer{{User: "no-such-user-here", Principal: deploy}, {Group: "no-such-group-here", Principal: deploy}, {User: "nobody", Principal: deploy}} {
		if _, err := newPeerTable(&config.Config{Accounts: []string{"1000000000000001"}, Peers: []config.Peer{p}}); err == nil {
			t.Errorf("%+v is accepted", p)
		}
	}
}

// TestPeerOf asks the real kernel about a real connection: this process's own.
func TestPeerOf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	server, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	p, err := peerOf(server, kms.DoorAPI)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if p.uid != uint32(os.Getuid()) || p.gid != uint32(os.Getgid()) || p.pid != int32(os.Getpid()) || p.exe != self || len(p.groups) != len(groups) {
		t.Errorf("got %+v; this is uid %d, gid %d, pid %d, %s, groups %v", p, os.Getuid(), os.Getgid(), os.Getpid(), self, groups)
	}
}

// TestExecutableOf sees what is known of a process whose executable may be seen, may not be seen, and of one that is gone.
func TestExecutableOf(t *testing.T) {
	dir := t.TempDir()
	if got := executableOf(dir); got != "" {
		t.Errorf("a process that is gone is %q", got)
	}
	// A process may call itself what it likes.
	if err := os.WriteFile(filepath.Join(dir, "comm"), []byte("/usr/bin/nginx\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := executableOf(dir); got != "[/usr/bin/nginx]" {
		t.Errorf("another user's process is %q", got)
	}
	if err := os.Symlink("/usr/sbin/nginx", filepath.Join(dir, "exe")); err != nil {
		t.Fatal(err)
	}
	if got := executableOf(dir); got != "/usr/sbin/nginx" {
		t.Errorf("our own process is %q", got)
	}
}

func TestUnitInCgroup(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/nginx.service\n":                                           "nginx.service",
		"0::/system.slice/system-getty.slice/getty@tty1.service\n":                   "getty@tty1.service",
		"0::/user.slice/user-1000.slice/session-3.scope\n":                           "session-3.scope",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service\n": "user@1000.service",
		"0::/system.slice/build.service/nginx.service\n":                             "build.service",
		"4:memory:/x.service\n1:name=systemd:/system.slice/old.service\n0::/\n":      "old.service",
		"0::/\n":     "",
		"":           "",
		"nonsense\n": "",
	} {
		if got := unitInCgroup(text); got != want {
			t.Errorf("%q gave %q, want %q", text, got, want)
		}
	}
}

func TestIdentityMap(t *testing.T) {
	for text, want := range map[string]bool{
		"         0          0 4294967295\n": true,
		"         0       1000          1\n": false,
		"         0     100000      65536\n": false,
		"  0 0 1000\n  1000 100000 1\n":      false,
		"":                                   false,
	} {
		if identityMap([]byte(text)) != want {
			t.Errorf("%q: not %v", text, want)
		}
	}
}
