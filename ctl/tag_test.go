package ctl

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/keyward/keyward/kms/kmswire"
)

func TestTags(t *testing.T) {
	d := startFake(t)
	d.must(t, "key", "create", "--alias", "app")
	d.must(t, "tag", "add", "alias/app", "team=red", "formula=a=b", "empty=")
	if want := []kmswire.Tag{{TagKey: "team", TagValue: "red"}, {TagKey: "formula", TagValue: "a=b"}, {TagKey: "empty"}}; !slices.Equal(d.keys[0].tags, want) {
		t.Errorf("tags %v", d.keys[0].tags)
	}
	out, _ := d.must(t, "tag", "list", "alias/app")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); len(lines) != 4 || strings.Fields(lines[2])[1] != "a=b" || strings.Fields(lines[3])[1] != "-" {
		t.Errorf("list:\n%s", out)
	}
	var listed []kmswire.ResourceTag
	out, _ = d.must(t, "-o", "json", "tag", "list", "key-1")
	if err := json.Unmarshal([]byte(out), &listed); err != nil || len(listed) != 3 || listed[0].TagKey != "team" {
		t.Errorf("list as JSON: %v\n%s", err, out)
	}
	d.must(t, "tag", "remove", "key-1", "team", "not there")
	if len(d.keys[0].tags) != 2 {
		t.Errorf("tags %v", d.keys[0].tags)
	}
	d.must(t, "tag", "remove", "alias/app", "formula", "empty")
	if out, talk := d.must(t, "tag", "list", "alias/app"); out != "" || !strings.Contains(talk, "tag add") {
		t.Errorf("no tags: %q, %q", out, talk)
	}
	for _, line := range []string{"tag add key-1", "tag add key-1 team", "tag add key-1 =red", "tag add key-1 a=b a=c", "tag remove key-1", "tag list", "tag list key-1 more"} {
		if code, _, stderr := d.ctl(t, "", strings.Fields(line)...); code != exitUsage || stderr == "" {
			t.Errorf("%s: %d, %q", line, code, stderr)
		}
	}
	if code, _, _ := d.ctl(t, "", "tag", "add", "alias/none", "a=b"); code != exitNotFound {
		t.Errorf("no such key: %d", code)
	}
}

func TestFilterFlags(t *testing.T) {
	d := startFake(t)
	d.must(t, "key", "create", "--client-token", "order-17")
	if !slices.Equal(d.tokens, []string{"order-17"}) {
		t.Errorf("tokens %q", d.tokens)
	}
	for line, want := range map[string]string{
		"":                               "",
		"--state disabled,ENABLED":       `[{"Key":"KeyState","Values":["Disabled","Enabled"]}]`,
		"--spec aes_256 --usage sign":    `[{"Key":"KeySpec","Values":["Aliyun_AES_256"]},{"Key":"KeyUsage","Values":["SIGN/VERIFY"]}]`,
		"--tag env":                      `[{"Key":"TagKey","Values":["env"]}]`,
		"--tag env=":                     `[{"Key":"TagKey","Values":["env"]},{"Key":"TagValue","Values":[""]}]`,
		"--tag formula=a=b":              `[{"Key":"TagKey","Values":["formula"]},{"Key":"TagValue","Values":["a=b"]}]`,
		"--instance kst-a,kst-b":         `[{"Key":"DKMSInstanceId","Values":["kst-a","kst-b"]}]`,
		"--creator service --creator 12": `[{"Key":"CreatorType","Values":["Service"]},{"Key":"Creator","Values":["12"]}]`,
		"--filter AliasName=alias/a,alias/b --filter Newer=x": `[{"Key":"AliasName","Values":["alias/a","alias/b"]},{"Key":"Newer","Values":["x"]}]`,
	} {
		d.must(t, append([]string{"key", "list", "--ids"}, strings.Fields(line)...)...)
		if got := d.filters[len(d.filters)-1]; got != want {
			t.Errorf("%s: %s", line, got)
		}
	}
	for _, line := range []string{"--tag =x", "--filter KeyState", "--filter =x"} {
		if code, _, stderr := d.ctl(t, "", append([]string{"key", "list"}, strings.Fields(line)...)...); code != exitUsage || stderr == "" {
			t.Errorf("%s: %d, %q", line, code, stderr)
		}
	}
}

func TestTagCompletion(t *testing.T) {
	d := startFake(t)
	d.must(t, "key", "create", "--alias", "app", "--tag", "team=red", "--tag", "env=prod")
	for line, want := range map[string][]string{
		"tag remove":                {"alias/app"},
		"tag remove alias/app":      {"team", "env"},
		"tag remove alias/app team": {"env"},
		"tag add":                   {"alias/app"},
		"tag add alias/app":         nil,
		"tag list":                  {"alias/app"},
		"alias create":              nil,
		"alias create name":         {"alias/app"},
		"key list --state":          {"Disabled", "Enabled", "PendingDeletion", "PendingImport"},
	} {
		out, _ := d.must(t, append(append([]string{"__complete"}, strings.Fields(line)...), "")...)
		var got []string
		for word := range strings.FieldsSeq(out) {
			if !strings.HasPrefix(word, ":") {
				got = append(got, word)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q", line, got)
		}
	}
}
