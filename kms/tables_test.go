package kms

import (
	"reflect"
	"strings"
	"testing"

	"github.com/keyward/keyward/kms/kmswire"
)

// Every action method of Service has a row, and every row a method. Batch forms share the row of the single action.
func TestEveryActionHasARow(t *testing.T) {
	methods := map[string]bool{}
	typ := reflect.TypeFor[*Service]()
	for i := range typ.NumMethod() {
		name := typ.Method(i).Name
		switch name {
		case "Close", "ClockStatus", "ClockTrusted", "ConfirmClock", "Problems", "SetServices", "Principals", "AccessKey",
			"CheckInstances", "SetInstances", "SetExternal", "XKI", "OpenXKIPrefixes", "XKIConnections", "OpenXKIConnection": // the daemon's
			continue
		case "TokenKeys", "TokenKey", "TokenKeysNamed", "Tokens", "TokenObjects", "TokenObject", "CheckPIN", "CreateTokenKey", "DestroyTokenKey", "DestroyTokenPublicKey",
			"MayUse", "SignWith", "VerifyWith", "EncryptWith", "DecryptWith", "PartsEnded", "UseRefused", "RejectionSecret",
			"ProxiedKey", "ProxiedSeal", "ProxiedOpen": // of the doors for PKCS #11 and external keys: by other actions, or none
			continue
		case "NameTokenKey":
			name = "SetTokenNames"
		}
		name = strings.Replace(name, "KeyID", "KeyId", 1)
		methods[name] = true
		if single, ok := strings.CutPrefix(name, "Batch"); ok {
			if single == "Sign" || single == "Verify" {
				single = "Asymmetric" + single
			}
			name = single
		}
		if actions[name] == nil {
			t.Errorf("method %s has no row in actions", name)
		}
	}
	for name := range actions {
		if name == "ReEncryptFrom" || name == "ReEncryptTo" || name == "DescribeTokenObject" { // permissions, not actions
			continue
		}
		if !methods[name] {
			t.Errorf("row %s has no method", name)
		}
	}
}

// The state table of reference section 5.2, written out once more, by hand: the action in Enabled, Disabled,
// PendingDeletion and PendingImport.
const stateTable = `
	DescribeKey                      ok  ok  ok  ok
	UpdateKeyDescription             ok  ok  PD  ok
	EnableKey                        ok  ok  SMF SMF
	DisableKey                       ok  ok  SMF SMF
	ScheduleKeyDeletion              ok  ok  SMF ok
	CancelKeyDeletion                SMF SMF ok  SMF
	SetDeletionProtection            ok  ok  PD  ok
	GetParametersForImport           ok  ok  ok  ok
	ImportKeyMaterial                ok  ok  SMF ok
	DeleteKeyMaterial                ok  ok  ok  ok
	SetKeyPolicy                     ok  ok  PD  ok
	GetKeyPolicy                     ok  ok  ok  ok
	TagResource                      ok  ok  PD  ok
	UntagResource                    ok  ok  PD  ok
	TagResources                     ok  ok  PD  ok
	UntagResources                   ok  ok  PD  ok
	ListResourceTags                 ok  ok  ok  ok
	ListTagResources                 ok  ok  ok  ok
	CreateAlias                      ok  ok  SMF ok
	UpdateAlias                      ok  ok  PD  ok
	DeleteAlias                      ok  ok  ok  ok
	ListAliasesByKeyId               ok  ok  ok  ok
	CreateKeyVersion                 ok  D   PD  PI
	DescribeKeyVersion               ok  ok  ok  ok
	ListKeyVersions                  ok  ok  ok  ok
	UpdateRotationPolicy             ok  D   PD  PI
	Encrypt                          ok  D   PD  PI
	Decrypt                          ok  D   PD  PI
	ReEncrypt                        ok  D   PD  PI
	ReEncryptFrom                    ok  D   PD  PI
	ReEncryptTo                      ok  D   PD  PI
	GenerateDataKey                  ok  D   PD  PI
	GenerateDataKeyWithoutPlaintext  ok  D   PD  PI
	GenerateAndExportDataKey         ok  D   PD  PI
	ExportDataKey                    ok  D   PD  PI
	AsymmetricEncrypt                ok  D   PD  PI
	AsymmetricDecrypt                ok  D   PD  PI
	AsymmetricSign                   ok  D   PD  PI
	AsymmetricVerify                 ok  D   PD  PI
	GetPublicKey                     ok  D   PD  PI
	GenerateCsr                      ok  D   PD  PI
	SetTokenNames                    ok  ok  PD  ok
	StartKeyAssociationCheck         ok  ok  ok  ok
	ListKeyAssociations              ok  ok  ok  ok`

// aboutNoKey are the actions that no key's state can stand in the way of.
const aboutNoKey = `CreateKey EnableDefaultKey ListKeys ListAliases GetRandomPassword ListKmsInstances GetKmsInstance GetDefaultKmsInstance
	GetKmsInstanceQuotaInfos DescribeRegions OpenKmsService DescribeAccountKmsStatus
	DescribeTokenObject CreateTokenObject UpdateTokenObject DeleteTokenObject`

func TestStateTable(t *testing.T) {
	codes := map[string]Code{"ok": pass, "D": KeyDisabled, "PD": KeyPendingDeletion, "PI": KeyPendingImport, "SMF": StateNotAllowed}
	states := []kmswire.KeyState{kmswire.Enabled, kmswire.Disabled, kmswire.PendingDeletion, kmswire.PendingImport}
	want := map[string][]string{}
	for line := range strings.Lines(strings.TrimSpace(stateTable)) {
		cells := strings.Fields(line)
		want[cells[0]] = cells[1:]
	}
	for _, name := range strings.Fields(aboutNoKey) {
		want[name] = []string{"ok", "ok", "ok", "ok"}
	}
	for name := range want {
		if actions[name] == nil {
			t.Errorf("%s has no row in actions", name)
		}
	}
	for name, act := range actions {
		row, ok := want[name]
		if !ok || len(row) != len(states) {
			t.Errorf("%s is not in this test with %d states", name, len(states))
			continue
		}
		for i, state := range states {
			code, ok := codes[row[i]]
			if got := act.states.check(state); !ok || got != code {
				t.Errorf("%s in %s: got %d, want %s", name, state, got, row[i])
			}
		}
		if got := act.states.check("SomethingNew"); got != KeyUnavailable {
			t.Errorf("%s in a state that nobody knows: got %d", name, got)
		}
	}
}

func TestEveryCodeHasAName(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Codes() {
		if c.Error() == "" || seen[c.Error()] {
			t.Errorf("code %d has the name %q, which is empty or another's", c, c)
		}
		seen[c.Error()] = true
	}
}

func TestSpecsAgreeWithThemselves(t *testing.T) {
	for name, s := range specs {
		if s.name != name || s.hsm == 0 {
			t.Errorf("%s: bad row", name)
		}
		if s.symmetric() != (len(s.sign) == 0) {
			t.Errorf("%s: a key either is symmetric or signs", name)
		}
		for _, a := range s.sign {
			if signOps[a] == 0 {
				t.Errorf("%s: no HSM operation for %s", name, a)
			}
		}
		for _, a := range s.encrypt {
			if decryptOps[a] == 0 {
				t.Errorf("%s: no HSM operation for %s", name, a)
			}
		}
	}
}

func TestReferences(t *testing.T) {
	s := &Service{region: "local"}
	actor := &Actor{Account: "1"}
	for _, c := range []struct {
		text string
		want reference
		code Code
	}{
		{"key-abc", reference{"1", "key-abc", ""}, pass},
		{"alias/a b", reference{"1", "", "alias/a b"}, pass},
		{"acs:kms:local:2:key/key-abc", reference{"2", "key-abc", ""}, pass},
		{"acs:kms:local:2:alias/x", reference{"2", "", "alias/x"}, pass},
		{"", reference{}, MissingParameter},
		{"acs:kms:mars:2:key/key-abc", reference{}, InvalidParameter},
		{"acs:kms:local:2:secret/x", reference{}, InvalidParameter},
		{"acs:kms:local", reference{}, InvalidParameter},
		{strings.Repeat("k", maxReference+1), reference{}, InvalidParameter},
	} {
		got, err := s.parseReference("KeyId", c.text, actor)
		if c.code != pass {
			if AsError(err).Code != c.code || err == nil {
				t.Errorf("%.40q: got %v, want %v", c.text, err, c.code)
			}
		} else if err != nil || got != c.want {
			t.Errorf("%q: got %+v %v", c.text, got, err)
		}
	}
}

func TestAliasNames(t *testing.T) {
	for name, want := range map[string]Code{
		"alias/a":                           pass,
		"alias/A-b_c/9":                     pass,
		"alias/" + strings.Repeat("a", 255): pass,
		"alias/" + strings.Repeat("a", 256): InvalidParameter,
		"alias/":                            InvalidParameter,
		"alias/ä":                           InvalidParameter,
		"alias/a b":                         InvalidParameter,
		"a":                                 InvalidParameter,
		"":                                  MissingParameter,
		"alias/acs/ecs":                     InvalidParameter,
	} {
		err := checkAlias(name)
		if (err == nil) != (want == pass) || err != nil && AsError(err).Code != want {
			t.Errorf("%.20q: got %v, want code %d", name, err, want)
		}
	}
}

func TestNewIDsAreUniform(t *testing.T) {
	const n = 36 * 4000
	count := map[byte]int{}
	for _, c := range []byte(newID(n)) {
		count[c]++
	}
	if len(count) != 36 {
		t.Fatalf("%d different characters", len(count))
	}
	for c, k := range count {
		if k < 3500 || k > 4500 { // eight standard deviations
			t.Errorf("%c occurs %d times in %d", c, k, n)
		}
	}
}
