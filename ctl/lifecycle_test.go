package ctl

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/keyward/keyward/kms/kmswire"
)

func rotationOf(req *kmswire.CreateKeyRequest) string {
	if req.EnableAutomaticRotation {
		return "Enabled"
	}
	return "Disabled"
}

// life are the fake's actions about the life of keys.
func (d *fakeDaemon) life(action string, q url.Values) (answer any, no *kmswire.ErrorBody, known bool) {
	switch action {
	case "UpdateRotationPolicy", "SetDeletionProtection", "ScheduleKeyDeletion", "CancelKeyDeletion":
	default:
		return nil, nil, false
	}
	if strings.HasPrefix(q.Get("KeyId"), "alias/") {
		return nil, problem(400, "Unsupported.Alias", "An alias is not accepted by this action."), true
	}
	k, no := d.key(q.Get("KeyId"))
	if no != nil {
		return nil, no, true
	}
	switch action {
	case "UpdateRotationPolicy":
		req := into[kmswire.UpdateRotationPolicyRequest](q)
		k.AutomaticRotation, k.RotationInterval = "Disabled", ""
		if req.EnableAutomaticRotation {
			k.AutomaticRotation, k.RotationInterval = "Enabled", req.RotationInterval
		}
	case "SetDeletionProtection":
		req := into[kmswire.SetDeletionProtectionRequest](q)
		k.DeletionProtection, k.DeletionProtectionDescription = "Disabled", req.DeletionProtectionDescription
		if req.EnableDeletionProtection {
			k.DeletionProtection = "Enabled"
		}
	case "ScheduleKeyDeletion":
		if k.DeletionProtection == "Enabled" {
			return nil, problem(409, "Rejected.StateModifiedFailed", "Keystate modified failed, because deletion protection is on."), true
		}
		k.KeyState, k.DeleteDate = kmswire.PendingDeletion, "2027-01-01T00:00:00Z"
	case "CancelKeyDeletion":
		k.KeyState, k.DeleteDate = kmswire.Enabled, ""
	}
	return kmswire.EmptyResponse{}, nil, true
}

func TestRotationOfKeys(t *testing.T) {
	d := startFake(t)
	for _, c := range []struct {
		flags, rotation, interval string
	}{
		{"", "Enabled", "365d"},
		{"--no-rotation", "Disabled", ""},
		{"--rotate-every 12w", "Enabled", "84d"},
		{"--rotate-every 1y", "Enabled", "365d"},
		{"--rotate-every 169h", "Enabled", "169h"},
		{"--spec EC_P256", "Disabled", ""},
		{"--instance kst-hardware", "Disabled", ""},
		{"--instance kst-hardware --rotate-every 90d", "Enabled", "90d"},
	} {
		d.must(t, append([]string{"key", "create"}, strings.Fields(c.flags)...)...)
		if k := d.keys[len(d.keys)-1]; k.AutomaticRotation != c.rotation || k.RotationInterval != c.interval {
			t.Errorf("create %s: %s %q", c.flags, k.AutomaticRotation, k.RotationInterval)
		}
	}
	d.aliases["alias/app"] = "key-1"
	if _, talk := d.must(t, "key", "rotation", "alias/app", "--every", "90d"); d.keys[0].RotationInterval != "90d" || !strings.Contains(talk, "alias/app is rotated every 90d") {
		t.Errorf("%+v, %q", d.keys[0].KeyMetadata, talk)
	}
	d.keys[0].RotationInterval = "7776000s"
	for _, verb := range []string{"rotation", "describe"} {
		if out, _ := d.must(t, "key", verb, "alias/app"); !strings.Contains(out, "Enabled, every 90 days") {
			t.Errorf("%s:\n%s", verb, out)
		}
	}
	if out, _ := d.must(t, "key", "rotation", "key-1", "-o", "json"); !strings.Contains(out, `"RotationInterval": "7776000s"`) {
		t.Errorf("as JSON: %s", out)
	}
	d.must(t, "key", "rotation", "key-1", "--off")
	if d.keys[0].AutomaticRotation != "Disabled" {
		t.Errorf("%+v", d.keys[0].KeyMetadata)
	}
}

func TestDeletionOfKeys(t *testing.T) {
	d := startFake(t)
	d.usage.rows = someUsers
	d.must(t, "key", "create", "--alias", "old", "--description", "the old one")
	d.must(t, "key", "create")

	d.must(t, "key", "protect", "alias/old", "--reason", "payroll")
	if k := d.keys[0]; k.DeletionProtection != "Enabled" || k.DeletionProtectionDescription != "payroll" {
		t.Errorf("%+v", k.KeyMetadata)
	}
	code, _, talk := d.ctl(t, "", "key", "delete", "alias/old", "--days", "30", "--yes")
	if code != exitState || !strings.Contains(talk, "next: keywardctl key unprotect alias/old") {
		t.Errorf("a protected key: %d, %s", code, talk)
	}
	d.must(t, "key", "unprotect", "alias/old")
	_, talk = d.must(t, "key", "delete", "alias/old", "--days", "30", "--yes")
	for _, want := range []string{"key-1", "Aliyun_AES_256", "the old one", "alias/old", "nginx.service (/usr/sbin/nginx) as acs:ram::1:role/web", "disable it first", "destroyed at 2027-01-01T00:00:00Z", "key cancel-deletion alias/old"} {
		if !strings.Contains(talk, want) {
			t.Errorf("delete does not say %q:\n%s", want, talk)
		}
	}
	if d.keys[0].KeyState != kmswire.PendingDeletion {
		t.Errorf("%+v", d.keys[0].KeyMetadata)
	}
	if out, _ := d.must(t, "key", "describe", "alias/old"); !strings.Contains(out, "2027-01-01T00:00:00Z") {
		t.Errorf("describe:\n%s", out)
	}
	d.must(t, "key", "cancel-deletion", "alias/old")
	if d.keys[0].KeyState != kmswire.Enabled {
		t.Errorf("%+v", d.keys[0].KeyMetadata)
	}

	d.usage.rows = nil
	if _, talk = d.must(t, "key", "delete", "key-2", "--days", "7", "--yes"); !strings.Contains(talk, "no use of key-2 was recorded") {
		t.Errorf("a key without users: %s", talk)
	}
	// A daemon that can't say who uses a key is no reason not to delete it.
	d.refuse["StartKeyAssociationCheck"] = problem(400, "UnsupportedOperation", "This action is not supported.")
	d.must(t, "key", "create")
	if _, talk = d.must(t, "key", "delete", "key-3", "--days", "7", "--yes"); !strings.Contains(talk, "This action is not supported") {
		t.Errorf("unknown users: %s", talk)
	}
}

func TestClockConfirm(t *testing.T) {
	d := startFake(t)
	if _, talk := d.must(t, "clock", "confirm", "--yes"); !strings.Contains(talk, "1970-01-01T00:00:00Z") || !slices.Contains(d.managed, "clock confirm") {
		t.Errorf("%q, %v", talk, d.managed)
	}
}
