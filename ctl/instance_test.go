package ctl

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyward/keyward/kms/kmswire"
)

// fakeInstances are one of the caller's account and one that is shared with it.
var fakeInstances = []kmswire.KmsInstanceSummary{
	{KmsInstanceID: "kst-software", KmsInstanceType: "software", KmsInstanceArn: "acs:kms:local:1000000000000001:keystore/kst-software"},
	{KmsInstanceID: "kst-theirs", KmsInstanceType: "software", KmsInstanceArn: "acs:kms:local:2000000000000002:keystore/kst-theirs"},
}

// instance answers what only the owner may ask.
func (d *fakeDaemon) instance(action, id string) (any, *kmswire.ErrorBody) {
	switch {
	case id == "kst-theirs":
		return nil, problem(403, "Forbidden.NoPermission", "This operation is forbidden by permission system: it belongs to account 2000000000000002.")
	case id != "kst-software":
		return nil, problem(404, "Forbidden.ResourceNotFound", "The specified resource is not found.")
	case action == "GetKmsInstanceQuotaInfos":
		return kmswire.GetKmsInstanceQuotaInfosResponse{KmsInstanceID: id, KmsInstanceQuotaInfos: []kmswire.KmsInstanceQuotaInfo{
			{ResourceType: "key", ResourceQuota: 100, UsedQuantity: 7}, {ResourceType: "secret"}, {ResourceType: "qps"}, {ResourceType: "vpc", ResourceQuota: 8, UsedQuantity: 2},
		}}, nil
	}
	answer := kmswire.GetKmsInstanceResponse{KmsInstance: kmswire.KmsInstance{InstanceID: id, InstanceName: "Mine", KmsInstanceType: "software", Status: "Connected", KeyNum: 100, VpcNum: 8, Default: true}}
	answer.KmsInstance.SharedWith.Account = []string{"3000000000000003", "4000000000000004"}
	return answer, nil
}

// defaultKey makes the default key once.
func (d *fakeDaemon) defaultKey() *fakeKey {
	for _, k := range d.keys {
		if k.KeyID == "key-default" {
			return k
		}
	}
	k := &fakeKey{KeyMetadata: kmswire.KeyMetadata{KeyID: "key-default", KeySpec: kmswire.AES256, KeyUsage: kmswire.EncryptDecrypt, KeyState: kmswire.Enabled, Creator: "1000000000000001", Arn: "acs:kms:local:1000000000000001:key/key-default"}}
	k.addVersion()
	d.keys = append(d.keys, k)
	return k
}

func TestInstances(t *testing.T) {
	d := startFake(t)
	out, _ := d.must(t, "instance", "list")
	rows := [][]string{}
	for line := range strings.Lines(out) {
		rows = append(rows, strings.Fields(line))
	}
	want := "[[INSTANCE TYPE OWNER DEFAULT KEYS ACCESS SHARED WITH]" +
		" [kst-software software 1000000000000001 yes 7 of 100 2 of 8 3000000000000003 4000000000000004]" +
		" [kst-theirs software 2000000000000002 - - - -]]"
	if got := fmt.Sprint(rows); got != want {
		t.Errorf("the list is\n%s\nwant\n%s", got, want)
	}
	out, _ = d.must(t, "-o", "json", "instance", "list")
	var list []instanceRow
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 2 || list[0].Details.KeyNum != 100 || len(list[0].Quotas) != 4 || list[1].Details != nil {
		t.Errorf("%s\n%v", out, err)
	}

	out, _ = d.must(t, "instance", "describe", "kst-software")
	for _, want := range []string{"Mine", "Connected", "yes: keys are made in it", "3000000000000003 4000000000000004", "7 of 100", "2 of 8", "0 of no limit"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	out, _ = d.must(t, "instance", "quota", "kst-software")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 5 || !slices.Equal(strings.Fields(lines[1]), []string{"key", "versions", "7", "100"}) || !strings.HasSuffix(lines[3], "no limit") {
		t.Errorf("the quotas are\n%s", out)
	}
	for id, want := range map[string]int{"kst-theirs": exitDenied, "kst-none": exitNotFound} {
		for _, verb := range []string{"describe", "quota"} {
			if code, out, talk := d.ctl(t, "", "instance", verb, id); code != want || out != "" || !strings.Contains(talk, id) {
				t.Errorf("%s %s: %d %q %q", verb, id, code, out, talk)
			}
		}
	}
}

func TestKeyEnableDefault(t *testing.T) {
	d := startFake(t)
	code, _, talk := d.ctl(t, "", "key", "enable-default")
	if code != exitUsage || !strings.Contains(talk, "one AES-256 software key for your whole account") || slices.Contains(d.calls, "EnableDefaultKey") {
		t.Errorf("unasked: %d %q %v", code, talk, d.calls)
	}
	for range 2 {
		out, talk := d.must(t, "--yes", "key", "enable-default")
		if out != "key-default\n" || !strings.Contains(talk, "default key of account 1000000000000001 (Enabled)") {
			t.Errorf("%q %q", out, talk)
		}
	}
}

// Without --instance a key is made where the daemon says.
func TestKeyCreateDefaultInstance(t *testing.T) {
	d := startFake(t)
	for _, row := range []struct {
		daemon string
		flags  []string
		want   string
	}{{"", nil, "kst-software"}, {"kst-own", nil, "kst-own"}, {"kst-own", []string{"--instance", "kst-hardware"}, "kst-hardware"}} {
		d.defaultInstance = row.daemon
		out, _ := d.must(t, append([]string{"-o", "json", "key", "create"}, row.flags...)...)
		var answer kmswire.CreateKeyResponse
		if err := json.Unmarshal([]byte(out), &answer); err != nil || answer.KeyMetadata.DKMSInstanceID != row.want {
			t.Errorf("daemon %q, flags %v: made in %q (%v)", row.daemon, row.flags, answer.KeyMetadata.DKMSInstanceID, err)
		}
	}
	d.refuse["GetDefaultKmsInstance"] = problem(503, "ServiceUnavailableTemporary", "Try again.")
	if code, _, _ := d.ctl(t, "", "key", "create"); code != exitUnavailable {
		t.Errorf("exit code %d", code)
	}
}
