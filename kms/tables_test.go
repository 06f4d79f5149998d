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
		if name == "Close" {
			continue
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
		if name == "ReEncryptFrom" || name == "ReEncryptTo" { // permissions, not actions
			continue
		}
		if !methods[name] {
			t.Errorf("row %s has no method", name)
		}
	}
}

// The state table of reference section 5.2, written out once more, by hand.
func TestStateTable(t *testing.T) {
	states := []kmswire.KeyState{kmswire.Enabled, kmswire.Disabled, kmswire.PendingDeletion, kmswire.PendingImport}
	want := map[string][4]Code{}
	for _, n := range strings.Fields(`CreateKey ListKeys DescribeKey ListAliases DeleteAlias ListAliasesByKeyId ListResourceTags
		DescribeKeyVersion ListKeyVersions ListKmsInstances DescribeRegions GetRandomPassword`) {
		want[n] = [4]Code{pass, pass, pass, pass}
	}
	for _, n := range strings.Fields(`Encrypt Decrypt GenerateDataKey GenerateDataKeyWithoutPlaintext ReEncrypt ReEncryptFrom ReEncryptTo
		ExportDataKey GenerateAndExportDataKey AsymmetricEncrypt AsymmetricDecrypt AsymmetricSign AsymmetricVerify GetPublicKey
		CreateKeyVersion`) {
		want[n] = [4]Code{pass, KeyDisabled, KeyPendingDeletion, KeyPendingImport}
	}
	want["UpdateKeyDescription"] = [4]Code{pass, pass, KeyPendingDeletion, pass}
	want["UpdateAlias"] = [4]Code{pass, pass, KeyPendingDeletion, pass}
	want["CreateAlias"] = [4]Code{pass, pass, StateNotAllowed, pass}
	want["EnableKey"] = [4]Code{pass, pass, StateNotAllowed, StateNotAllowed}
	want["DisableKey"] = [4]Code{pass, pass, StateNotAllowed, StateNotAllowed}

	for name, act := range actions {
		row, ok := want[name]
		if !ok {
			t.Errorf("%s is not in this test", name)
			continue
		}
		for i, state := range states {
			if got := act.states.check(state); got != row[i] {
				t.Errorf("%s in %s: got %d, want %d", name, state, got, row[i])
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
