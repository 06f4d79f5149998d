package policy

import (
	"strings"
	"testing"
)

// TestPresets holds each preset to what its name promises.
func TestPresets(t *testing.T) {
	const account = "1000000000000001"
	who, err := ParsePrincipal("acs:ram::" + account + ":user/alice")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ preset, allowed, not string }{
		{"full", "Encrypt DisableKey CreateKey GetParametersForImport", ""},
		{"read-only", "ListKeys DescribeKey GetKeyPolicy GetPublicKey ListKeyAssociations", "Encrypt AsymmetricSign GetParametersForImport SetKeyPolicy DisableKey GenerateCsr"},
		{"crypto", "Encrypt Decrypt ReEncryptFrom ReEncryptTo AsymmetricSign AsymmetricVerify GenerateDataKey GenerateDataKeyWithoutPlaintext ExportDataKey DescribeKey",
			"TagResource DisableKey SetKeyPolicy CreateKey ScheduleKeyDeletion GetKeyPolicy"},
		{"pkcs11", "DescribeKey DescribeTokenObject AsymmetricSign AsymmetricVerify AsymmetricEncrypt AsymmetricDecrypt Encrypt Decrypt",
			"GenerateDataKey GetKeyPolicy CreateKey ImportKeyMaterial ScheduleKeyDeletion SetTokenNames CreateTokenObject DeleteTokenObject"},
		{"token-objects", "", "Encrypt AsymmetricSign CreateKey SetTokenNames CreateTokenObject"}, // what they allow is no key
		{"create-keys", "", "Encrypt CreateAlias DeleteAlias DisableKey EnableDefaultKey SetKeyPolicy"},
	} {
		text, err := Preset(row.preset)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := ParseIdentity(text)
		if err != nil {
			t.Errorf("%s: %v", row.preset, err)
			continue
		}
		ask := func(action, id string) Effect {
			return doc.Evaluate(&Request{Principal: who, Action: MustAction("kms:" + action),
				Resource: Resource{Region: "local", Account: account, Kind: Key, ID: id}})
		}
		for _, a := range strings.Fields(row.allowed) {
			if ask(a, "key-1") != Allow {
				t.Errorf("%s does not allow %s", row.preset, a)
			}
		}
		for _, a := range strings.Fields(row.not) {
			if ask(a, "key-1") != NoMatch {
				t.Errorf("%s allows %s", row.preset, a)
			}
		}
		if creates := ask("CreateKey", "") == Allow; creates != (row.preset == "full" || row.preset == "create-keys") {
			t.Errorf("%s lets create keys: %t", row.preset, creates)
		}
		if DescribePreset(row.preset) == "" {
			t.Errorf("%s is not described", row.preset)
		}
	}
	text, err := Preset("token-objects")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := ParseIdentity(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"CreateTokenObject", "UpdateTokenObject", "DeleteTokenObject"} {
		if doc.Evaluate(&Request{Principal: who, Action: MustAction("kms:" + a), Resource: Resource{Region: "local", Account: account, Kind: Keystore, ID: "kst-1"}}) != Allow {
			t.Errorf("token-objects does not allow %s", a)
		}
	}
	if n := len(PresetNames()); n != 6 {
		t.Errorf("%d presets, and 6 are tested", n)
	}
	if _, err := Preset("all"); err == nil || !strings.Contains(err.Error(), "read-only") || DescribePreset("all") != "" {
		t.Errorf("no such preset: %v", err)
	}
}
