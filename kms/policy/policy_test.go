package policy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// keySamples are key policies in the documented forms.
var keySamples = []string{
	// The default policy, and that of a shared instance.
	`{"Statement":[{"Action":["kms:*"],"Effect":"Allow","Principal":{"RAM":["acs:ram::1000000000000001:*"]},"Resource":["*"],"Sid":"kms default key policy"}],"Version":"1"}`,
	`{"Statement":[{"Action":["kms:*"],"Effect":"Allow","Principal":{"RAM":["acs:ram::1000000000000001:*","acs:ram::1000000000000002:*"]},"Resource":["*"],"Sid":"kms default key policy"}],"Version":"1"}`,
	// With roles.
	`{"Version":"1","Statement":[{"Sid":"kms default key policy","Effect":"Allow","Principal":{"RAM":["acs:ram::1000000000000001:*"]},"Action":["kms:*"],"Resource":["*"]},
	 {"Effect":"Allow","Principal":{"RAM":["acs:ram::1000000000000001:user/alice","acs:ram::1000000000000001:role/ops"]},"Action":["kms:List*","kms:Describe*","kms:Create*","kms:Enable*","kms:Disable*","kms:Get*","kms:Set*","kms:Update*","kms:Delete*","kms:Cancel*","kms:TagResource","kms:UntagResource","kms:ImportKeyMaterial","kms:ScheduleKeyDeletion"],"Resource":["*"]},
	 {"Effect":"Allow","Principal":{"RAM":"acs:ram::2000000000000003:user/bob"},"Action":["kms:Encrypt","kms:Decrypt","kms:ReEncrypt*"],"Resource":"*"}]}`,
	// With conditions.
	`{"Version":"1","Statement":[{"Effect":"Deny","Principal":{"RAM":["acs:ram::1000000000000001:*"]},"Action":"kms:Decrypt","Resource":"*","Condition":{"NotIpAddress":{"acs:SourceIp":["192.0.2.0/24","2001:db8::/32"]},"StringEquals":{"kms:tag/team":"blue"},"DateLessThan":{"acs:CurrentTime":"2026-12-31T23:59:59+08:00"},"Bool":{"acs:SecureTransport":true},"NumericLessThan":{"keyward:Uid":1000},"StringLike":{"keyward:Executable":["/usr/*bin/w?b*"]},"StringEqualsIgnoreCase":{"keyward:Door":"api"}}}]}`,
}

var identitySamples = []string{
	`{"Version":"1","Statement":[{"Effect":"Allow","Action":"kms:*","Resource":"*"}]}`,
	`{"Version":"1","Statement":[{"Effect":"Allow","Action":["kms:List*","kms:Describe*"],"Resource":["acs:kms:*:*:key","acs:kms:*:*:key/*","acs:kms:*:1000000000000001:alias/app/*","acs:kms:local:*:alias"]},{"Effect":"Deny","Action":"*","Resource":"acs:kms:local:1000000000000001:keystore/ks-1"}]}`,
	`{"Version":"1","Statement":[{"Effect":"Allow","Action":["kms:Encrypt"],"Resource":["acs:kms:*:*:*"],"Condition":{"StringNotLike":{"kms:tag/a b":["x*","?"]}}}]}`,
}

type badPolicy struct{ text, path, reason string }

const (
	goodPrincipal = "acs:ram::1000000000000001:user/alice"
	badOther      = "acs:ram::2000000000000003:user/bob"
)

func conditionText(condition string) string {
	return keyText(statementText("Allow", goodPrincipal, "kms:Encrypt", `,"Condition":`+condition))
}

// badKeyPolicies has, for each rule, a document that breaks it, and what the error must name.
var badKeyPolicies = []badPolicy{
	{"", "", "not JSON"},
	{"{", "", "at octet 1"},
	{"[]", "", "must be an object"},
	{"null", "", "it is null"},
	{"{}", "Version", "missing"},
	{"\xff", "", "UTF-8"},
	{strings.Repeat(" ", MaxSize+1), "", "32769 octets"},
	{strings.Repeat("[", MaxSize), "", "not JSON"},
	{`{"Version":"1"}`, "Statement", "missing"},
	{`{"Version":"1","Statement":[]}`, "Statement", "at least one"},
	{`{"Version":"1","Statement":{}}`, "Statement", "must be an array"},
	{`{"Version":"2","Statement":[]}`, "Version", `always "1"`},
	{`{"Version":1,"Statement":[]}`, "Version", "must be text"},
	{`{"version":"1"}`, "version", "Version is, in this spelling"},
	{`{"Version":"1","Version":"1"}`, "Version", "twice"},
	{`{"Version":"1","Id":"x"}`, "Id", "there is Version, Statement"},
	{keyText(statementText("Allow", goodPrincipal, "kms:Encrypt", "")) + "x", "", "not JSON"},
	{keyText(`{}`), "Statement[0].Effect", "missing"},
	{keyText(`"x"`), "Statement[0]", "must be an object"},
	{keyText(`{"Effect":"Allow","Action":"kms:*","Resource":"*"}`), "Statement[0].Principal", "missing"},
	{keyText(statementText("allow", goodPrincipal, "kms:Encrypt", "")), "Statement[0].Effect", "Allow or Deny"},
	{keyText(statementText("Allow", goodPrincipal, "kms:Encrypt", `,"Sid":"a,b"`)), "Statement[0].Sid", "','"},
	{keyText(statementText("Allow", goodPrincipal, "kms:Encrypt", `,"Sid":"`+strings.Repeat("a", 129)+`"`)), "Statement[0].Sid", "129"},
	{keyText(statementText("Allow", goodPrincipal, "kms:Encrypt", `,"Sid":null`)), "Statement[0].Sid", "null"},
	{keyText(statementText("Allow", goodPrincipal, "kms:Encrypt", `,"\u0053id":"a","Sid":"b"`)), "Statement[0].Sid", "twice"},
	{keyText(statementText("Allow", goodPrincipal, "kms:Encrypt", `,"NotAction":"kms:*"`)), "Statement[0].NotAction", "Deny"},
	{keyText(statementText("Allow", goodPrincipal, "kms:Encrypt", `,"a\nb":1`)), `Statement[0]."a\nb"`, "there is no"},
	{keyText(statementText("Allow", "*", "kms:Encrypt", "")), "Statement[0].Principal.RAM[0]", "acs:ram::<account>:root"},
	{keyText(statementText("Allow", "acs:ram::*:root", "kms:Encrypt", "")), "Statement[0].Principal.RAM[0]", "16 digits"},
	{keyText(statementText("Allow", "acs:ram::100000000000000\u0661:root", "kms:Encrypt", "")), "Statement[0].Principal.RAM[0]", "16 digits"},
	{keyText(statementText("Allow", "acs:ram::1000000000000001:user/*", "kms:Encrypt", "")), "Statement[0].Principal.RAM[0]", "acs:ram::1000000000000001:*"},
	{keyText(statementText("Allow", "acs:ram::1000000000000001:user/", "kms:Encrypt", "")), "Statement[0].Principal.RAM[0]", "no name"},
	{keyText(statementText("Allow", "acs:ram::1000000000000001:group/x", "kms:Encrypt", "")), "Statement[0].Principal.RAM[0]", "user/<name>"},
	{keyText(`{"Effect":"Allow","Principal":"*"}`), "Statement[0].Principal", "RAM"},
	{keyText(`{"Effect":"Allow","Principal":{"AWS":"*"}}`), "Statement[0].Principal.AWS", "RAM"},
	{keyText(`{"Effect":"Allow","Principal":{"RAM":[["x"]]}}`), "Statement[0].Principal.RAM[0]", "an array"},
	{keyText(`{"Effect":"Allow","Principal":{"RAM":[]}}`), "Statement[0].Principal.RAM", "empty"},
	{keyText(statementText("Allow", goodPrincipal, "*", "")), "Statement[0].Action[0]", "kms:*"},
	{keyText(statementText("Allow", goodPrincipal, "ecs:Run", "")), "Statement[0].Action[0]", "begin with kms:"},
	{keyText(statementText("Allow", goodPrincipal, "kms:", "")), "Statement[0].Action[0]", "kms:*"},
	{keyText(statementText("Allow", goodPrincipal, "kms:*Key", "")), "Statement[0].Action[0]", "at the end"},
	{keyText(statementText("Allow", goodPrincipal, "kms:Enc**", "")), "Statement[0].Action[0]", "at the end"},
	{keyText(statementText("Allow", goodPrincipal, "kms:\u212aey", "")), "Statement[0].Action[0]", "letters"},
	{keyText(`{"Resource":"acs:kms:*:*:key/k"}`), "Statement[0].Resource", "written *"},
	{conditionText(`{}`), "Statement[0].Condition", "empty"},
	{conditionText(`{"StringEquals":{}}`), "Statement[0].Condition.StringEquals", "empty"},
	{conditionText(`{"StringEquals":{"acs:SourceVpc":[]}}`), "Statement[0].Condition.StringEquals.acs:SourceVpc", "empty"},
	{conditionText(`{"StringEquals":{"acs:SourceVpc":1}}`), "Statement[0].Condition.StringEquals.acs:SourceVpc", "a number"},
	{conditionText(`{"StringEquals":{"acs:SourceVpc":"a","acs:SourceVpc":"b"}}`), "Statement[0].Condition.StringEquals.acs:SourceVpc", "twice"},
	{conditionText(`{"stringequals":{"acs:SourceVpc":"a"}}`), "Statement[0].Condition.stringequals", "StringEquals is"},
	{conditionText(`{"StringEqualsIfExists":{"acs:SourceVpc":"a"}}`), "Statement[0].Condition.StringEqualsIfExists", "NotIpAddress"},
	{conditionText(`{"IpAddress":{"acs:sourceip":"::"}}`), "Statement[0].Condition.IpAddress.acs:sourceip", "acs:SourceIp is"},
	{conditionText(`{"StringEquals":{"acs:Other":"::"}}`), "Statement[0].Condition.StringEquals.acs:Other", "kms:tag/<tag-key>"},
	{conditionText(`{"NumericEquals":{"acs:SourceIp":1}}`), "Statement[0].Condition.NumericEquals.acs:SourceIp", "use IpAddress, NotIpAddress"},
	{conditionText(`{"StringLike":{"keyward:Uid":"1*"}}`), "Statement[0].Condition.StringLike.keyward:Uid", "NumericLessThan"},
	{conditionText(`{"StringLike":{"kms:tag/":"1*"}}`), "Statement[0].Condition.StringLike.kms:tag/", "must follow"},
	{conditionText(`{"StringLike":{"kms:tag/acs:x":"1*"}}`), "Statement[0].Condition.StringLike.kms:tag/acs:x", "do not begin"},
	{conditionText(`{"StringLike":{"kms:tag/a*":"1*"}}`), `Statement[0].Condition.StringLike."kms:tag/a*"`, "letters"},
	{conditionText(`{"IpAddress":{"acs:SourceIp":["192.0.2.1","192.0.2.256"]}}`), "Statement[0].Condition.IpAddress.acs:SourceIp[1]", "192.0.2.0/24"},
	{conditionText(`{"IpAddress":{"acs:SourceIp":"fe80::1%eth0"}}`), "Statement[0].Condition.IpAddress.acs:SourceIp", "no address"},
	{conditionText(`{"IpAddress":{"acs:SourceIp":"::ffff:0.0.0.0/90"}}`), "Statement[0].Condition.IpAddress.acs:SourceIp", "0.0.0.0/0"},
	{conditionText(`{"DateEquals":{"acs:CurrentTime":"2026-01-31"}}`), "Statement[0].Condition.DateEquals.acs:CurrentTime", "with its zone"},
	{conditionText(`{"DateEquals":{"acs:CurrentTime":"2026-01-31T18:00:00.5Z"}}`), "Statement[0].Condition.DateEquals.acs:CurrentTime", "by the second"},
	{conditionText(`{"Bool":{"acs:SecureTransport":"True"}}`), "Statement[0].Condition.Bool.acs:SecureTransport", "true nor false"},
	{conditionText(`{"NumericEquals":{"keyward:Uid":-1}}`), "Statement[0].Condition.NumericEquals.keyward:Uid", "from 0"},
	{conditionText(`{"NumericEquals":{"keyward:Uid":1e3}}`), "Statement[0].Condition.NumericEquals.keyward:Uid", "from 0"},
	{conditionText(`{"StringEquals":{"keyward:Door":"api"}}`), "Statement[0].Condition.StringEquals.keyward:Door", "API, PKCS11, XKI"},
	{conditionText(`{"StringLike":{"keyward:Unit":"*` + strings.Repeat("?", maxLoosePiece+1) + `*"}}`), "Statement[0].Condition.StringLike.keyward:Unit", "16"},
	{conditionText(`{"StringLike":{"keyward:Unit":["a` + strings.Repeat("*a", maxStars+1) + `"]}}`), "Statement[0].Condition.StringLike.keyward:Unit[0]", "256"},
	// What other accounts may not be given.
	{keyText(statementText("Allow", badOther, "kms:*", "")), "Statement[0].Action[0]", "kms:* covers actions that are for administrators"},
	{keyText(statementText("Allow", badOther, "kms:scheduleKeyDeletion", "")), "Statement[0].Action[0]", "kms:scheduleKeyDeletion is for administrators"},
	{keyText(statementText("Allow", badOther, "kms:Describe*", "")), "Statement[0].Action[0]", badOther},
	{keyText(statementText("Allow", badOther, "kms:DescribeKey*", "")), "Statement[0].Action[0]", "by their names"},
	{keyText(statementText("Allow", badOther, "kms:GetKeyPolicy", "")), "Statement[0].Action[0]", "is for administrators"},
	{keyText(statementText("Allow", badOther, "kms:Tag*", "")), "Statement[0].Action[0]", "covers"},
	{keyText(statementText("Allow", badOther, "kms:G*", "")), "Statement[0].Action[0]", "covers"},
	{keyText(statementText("Allow", badOther, "kms:Nothing", "")), "Statement[0].Action[0]", "no action that uses a key"},
	{keyText(statementText("Allow", badOther, "kms:Nothing*", "")), "Statement[0].Action[0]", "no action that uses a key"},
	{keyText(statementText("Allow", goodPrincipal, "kms:*", ""), `{"Effect":"Allow","Principal":{"RAM":["`+goodPrincipal+`","`+badOther+`"]},"Action":["kms:Encrypt","kms:SetKeyPolicy"],"Resource":"*"}`), "Statement[1].Action[1]", "SetKeyPolicy"},
}

func identityText(action, resource, rest string) string {
	return fmt.Sprintf(`{"Version":"1","Statement":[{"Effect":"Allow","Action":%q,"Resource":%q%s}]}`, action, resource, rest)
}

var badIdentityPolicies = []badPolicy{
	{keySamples[0], "Statement[0].Principal", "Leave it out"},
	{identityText("ecs:Run", "*", ""), "Statement[0].Action", "kms:"},
	{identityText("**", "*", ""), "Statement[0].Action", "kms:"},
	{identityText("kms:*", "", ""), "Statement[0].Resource", "no resource"},
	{identityText("kms:*", "acs:oss:*:*:b", ""), "Statement[0].Resource", "no resource"},
	{identityText("kms:*", "acs:kms:*:*:key:x", ""), "Statement[0].Resource", "no resource"},
	{identityText("kms:*", "acs:kms::*:key", ""), "Statement[0].Resource", "region"},
	{identityText("kms:*", "acs:kms:*:1*:key", ""), "Statement[0].Resource", "account"},
	{identityText("kms:*", "acs:kms:*:*:secret/x", ""), "Statement[0].Resource", "key, alias and keystore"},
	{identityText("kms:*", "acs:kms:*:*:", ""), "Statement[0].Resource", "key, alias and keystore"},
	{identityText("kms:*", "acs:kms:*:*:key/", ""), "Statement[0].Resource", "no key"},
	{identityText("kms:*", "acs:kms:*:*:alias/a?", ""), "Statement[0].Resource", "no alias"},
	{identityText("kms:*", "acs:kms:*:*:key/"+strings.Repeat("*a", maxStars), ""), "Statement[0].Resource", "256"},
	{identityText("*", "*", `,"Condition":{"StringEquals":{"acs:SourceVpc":"v"}}`), "Statement[0].Action", "write kms:*"},
}

func TestBadPolicies(t *testing.T) {
	check := func(c badPolicy, d *Document, err error) {
		t.Helper()
		e, ok := err.(*Error)
		if !ok || d != nil {
			t.Errorf("%.200s: %v, want an *Error", c.text, err)
			return
		}
		if e.Path != c.path || !strings.Contains(e.Reason, c.reason) {
			t.Errorf("%.200s:\ngot  %s: %s\nwant %s: ...%s...", c.text, e.Path, e.Reason, c.path, c.reason)
		}
		if c.path != "" && !strings.HasPrefix(e.Error(), "policy: "+c.path+": ") {
			t.Errorf("%v", e)
		}
	}
	for _, c := range badKeyPolicies {
		d, err := ParseKey([]byte(c.text), testOwner)
		check(c, d, err)
	}
	for _, c := range badIdentityPolicies {
		d, err := ParseIdentity([]byte(c.text))
		check(c, d, err)
	}
	d, err := ParseKey([]byte(keySamples[0]), KeyOwner{Account: "1"})
	check(badPolicy{"", "", "16 digits"}, d, err)
}

// A long wrong value does not come back whole.
func TestErrorsAreShort(t *testing.T) {
	long := strings.Repeat("x", 20000)
	for _, text := range []string{
		keyText(statementText("Allow", long, "kms:*", "")), keyText(statementText("Allow", goodPrincipal, long, "")), keyText(`{"` + long + `":1}`), keyText(statementText(long, goodPrincipal, "kms:*", "")),
		keyText(statementText("Allow", badOther, "kms:"+long, "")), conditionText(`{"` + long + `":{}}`), conditionText(`{"StringEquals":{"` + long + `":"x"}}`), conditionText(`{"StringEquals":{"keyward:Door":"` + long + `"}}`),
	} {
		if _, err := ParseKey([]byte(text), testOwner); err == nil || len(err.Error()) > 1500 {
			t.Errorf("%.100s: %d octets of error", text, len(fmt.Sprint(err)))
		}
	}
}

func TestSamples(t *testing.T) {
	parseKey := func(text []byte) (*Document, error) { return ParseKey(text, testOwner) }
	for _, s := range keySamples {
		d, err := parseKey([]byte(s))
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		checkDocument(t, []byte(s), d, parseKey, questions...)
	}
	for _, s := range identitySamples {
		d, err := ParseIdentity([]byte(s))
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		checkDocument(t, []byte(s), d, ParseIdentity, questions...)
	}
	// The policy of a shared instance is refused once the second account is no owner any more; it can still be loaded.
	alone := KeyOwner{Account: ownerAccount}
	if _, err := ParseKey([]byte(keySamples[1]), alone); err == nil {
		t.Error("another account was given kms:*")
	}
	d, err := LoadKey([]byte(keySamples[1]))
	if err != nil {
		t.Fatal(err)
	}
	if got := d.OtherAccounts(alone); !slices.Equal(got, []string{coAccount}) {
		t.Errorf("other accounts: %v", got)
	}
	if got := d.OtherAccounts(testOwner); len(got) != 0 {
		t.Errorf("other accounts: %v", got)
	}
	d, err = ParseKey([]byte(keyText(statementText("Deny", "acs:ram::3000000000000003:*", "kms:*", ""),
		statementText("Allow", badOther, "kms:Encrypt", ""), statementText("Allow", badOther, "kms:Decrypt", ""), statementText("Allow", "acs:ram::1500000000000003:*", "kms:Decrypt", ""))), testOwner)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.OtherAccounts(testOwner); !slices.Equal(got, []string{"1500000000000003", otherAccount}) {
		t.Errorf("other accounts: %v", got)
	}
}

// A document may have as many * as the limit says.
func TestStars(t *testing.T) {
	if _, err := ParseIdentity([]byte(identityText("kms:*", "acs:kms:*:*:key/"+strings.Repeat("*a", maxStars-1), ""))); err != nil {
		t.Error(err)
	}
}

// Every Sid that the rules allow, and the longest.
func TestSid(t *testing.T) {
	for _, sid := range []string{"", "azAZ09_/+=.@- ", strings.Repeat("a", maxSid)} {
		if _, err := ParseKey([]byte(keyText(statementText("Allow", goodPrincipal, "kms:Encrypt", `,"Sid":"`+sid+`"`))), testOwner); err != nil {
			t.Error(err)
		}
	}
}

// Every use of a key may be given to another account by its name, and nothing else.
func TestOtherAccountActions(t *testing.T) {
	for _, list := range [][]string{userActions, signerActions, cryptoActions, {"kms:ReEncrypt*", "kms:Encrypt*", "kms:Asymmetric*", "kms:Generate*"}} {
		for _, a := range list {
			if _, err := ParseKey([]byte(keyText(statementText("Allow", badOther, a, ""))), testOwner); err != nil {
				t.Errorf("%s: %v", a, err)
			}
		}
	}
	for _, a := range append([]string{"kms:CreateAlias", "kms:DeleteKeyMaterial", "kms:GetParametersForImport", "kms:UpdateRotationPolicy", "kms:SetDeletionProtection"}, administratorActions...) {
		if slices.Contains(userActions, a) {
			continue
		}
		if _, err := ParseKey([]byte(keyText(statementText("Allow", badOther, a, ""))), testOwner); err == nil {
			t.Errorf("%s was given to another account", a)
		}
		if _, err := ParseKey([]byte(keyText(statementText("Deny", badOther, a, ""))), testOwner); err != nil {
			t.Errorf("Deny %s: %v", a, err)
		}
		if _, err := ParseKey([]byte(keyText(statementText("Allow", "acs:ram::"+coAccount+":*", a, ""))), testOwner); err != nil {
			t.Errorf("co-owner: %s: %v", a, err)
		}
	}
}

// Each condition key can be evaluated, is of use to some operator, and each operator has a key; each operator says what
// it should when there is a value that fits, one that does not, and none.
func TestConditionTables(t *testing.T) {
	for i := range conditionKeys {
		k := &conditionKeys[i]
		if (k.text != nil) != (k.typ == stringKey) {
			t.Errorf("%s: an accessor for text, or none", k.name)
		}
		if operatorsFor(k.typ) == "" {
			t.Errorf("%s has no operators", k.name)
		}
	}
	type row struct{ key, value, fits, fails string }
	rows := map[keyType]row{
		stringKey:  {"acs:SourceVpc", "vpc-1", "vpc-1", "vpc-2"},
		numericKey: {"keyward:Uid", "33", "33", "34"},
		dateKey:    {"acs:CurrentTime", "2026-01-31T18:00:00Z", "2026-01-31T18:00:00Z", "2026-01-31T18:00:01Z"},
		boolKey:    {"acs:SecureTransport", "true", "true", "false"},
		ipKey:      {"acs:SourceIp", "192.0.2.0/24", "192.0.2.9", "192.0.3.9"},
	}
	special := map[string]row{
		"NumericLessThan":           {"keyward:Uid", "33", "32", "33"},
		"NumericLessThanEquals":     {"keyward:Uid", "33", "33", "34"},
		"NumericGreaterThan":        {"keyward:Uid", "33", "34", "33"},
		"NumericGreaterThanEquals":  {"keyward:Uid", "33", "33", "32"},
		"DateLessThan":              {"acs:CurrentTime", "2026-01-31T18:00:00Z", "2026-01-31T17:59:59Z", "2026-01-31T18:00:00Z"},
		"DateLessThanEquals":        {"acs:CurrentTime", "2026-01-31T18:00:00Z", "2026-01-31T18:00:00Z", "2026-01-31T18:00:01Z"},
		"DateGreaterThan":           {"acs:CurrentTime", "2026-01-31T18:00:00Z", "2026-01-31T18:00:01Z", "2026-01-31T18:00:00Z"},
		"DateGreaterThanEquals":     {"acs:CurrentTime", "2026-01-31T18:00:00Z", "2026-01-31T18:00:00Z", "2026-01-31T17:59:59Z"},
		"StringEqualsIgnoreCase":    {"acs:SourceVpc", "VPC-1", "vpc-1", "vpc-2"},
		"StringNotEqualsIgnoreCase": {"acs:SourceVpc", "VPC-1", "vpc-1", "vpc-2"},
		"StringLike":                {"kms:tag/team", "b?u*", "blue", "glue"},
		"StringNotLike":             {"kms:tag/team", "b?u*", "blue", "glue"},
	}
	for _, op := range operators {
		c, ok := special[op.name]
		if !ok {
			c = rows[op.typ]
		}
		d, err := LoadKey([]byte(conditionText(fmt.Sprintf(`{%q:{%q:%q}}`, op.name, c.key, c.value))))
		if err != nil {
			t.Fatal(err)
		}
		ask := func(context map[string]string) bool {
			return d.Evaluate(question{goodPrincipal, "kms:Encrypt", "acs:kms:r:1:key/k", context}.request(t)) == Allow
		}
		negated := strings.Contains(op.name, "Not")
		if ask(map[string]string{c.key: c.fits}) == negated || ask(map[string]string{c.key: c.fails}) != negated || ask(nil) != negated {
			t.Errorf("%s: %v for %s, %v for %s, %v for none", op.name, ask(map[string]string{c.key: c.fits}), c.fits, ask(map[string]string{c.key: c.fails}), c.fails, ask(nil))
		}
	}
}

// Every key is read from the field that it stands for.
func TestConditionKeys(t *testing.T) {
	context := questions[0].context
	seen := 0
	for key, value := range context {
		op := "StringEquals"
		switch {
		case key == "acs:SourceIp":
			op = "IpAddress"
		case key == "acs:CurrentTime":
			op = "DateEquals"
		case key == "acs:SecureTransport":
			op = "Bool"
		case key == "keyward:Uid":
			op = "NumericEquals"
		}
		d, err := LoadKey([]byte(conditionText(fmt.Sprintf(`{%q:{%q:%q}}`, op, key, value))))
		if err != nil {
			t.Fatal(err)
		}
		q := question{goodPrincipal, "kms:Encrypt", "acs:kms:r:1:key/k", map[string]string{key: value}}
		if d.Evaluate(q.request(t)) != Allow {
			t.Errorf("%s %s %s does not match", key, op, value)
		}
		q.context = map[string]string{}
		for k, v := range context {
			if k != key {
				q.context[k] = v
			}
		}
		if d.Evaluate(q.request(t)) != NoMatch {
			t.Errorf("%s %s %s matches without", key, op, value)
		}
		seen++
	}
	if seen != len(conditionKeys) {
		t.Errorf("%d keys tried, there are %d", seen, len(conditionKeys))
	}
}

// A caller can't get out of a Deny of its network by the form of its address.
func TestAddressForms(t *testing.T) {
	d, err := LoadKey([]byte(keyText(statementText("Deny", goodPrincipal, "kms:*", `,"Condition":{"IpAddress":{"acs:SourceIp":["192.0.2.0/24","fe80::/10","::ffff:10.1.2.3/104"]}}`))))
	if err != nil {
		t.Fatal(err)
	}
	r := question{goodPrincipal, "kms:Encrypt", "acs:kms:r:1:key/k", nil}.request(t)
	for _, ip := range []string{"192.0.2.1", "::ffff:192.0.2.1", "::ffff:192.0.2.1%x", "fe80::1", "fe80::1%eth0", "10.200.0.1"} {
		r.Context.SourceIP = netip.MustParseAddr(ip)
		if d.Evaluate(r) != Deny {
			t.Errorf("%s gets through", ip)
		}
	}
	for _, ip := range []string{"192.0.3.1", "2001:db8::1", "::c000:201"} {
		r.Context.SourceIP = netip.MustParseAddr(ip)
		if d.Evaluate(r) != NoMatch {
			t.Errorf("%s is denied", ip)
		}
	}
}

func TestResources(t *testing.T) {
	for _, c := range []struct {
		pattern  string
		yes, not []string
	}{
		{"*", []string{"acs:kms:r:1:key/k", "acs:kms:r:1:alias"}, nil},
		{"acs:kms:*:*:*", []string{"acs:kms:r:1:key/k", "acs:kms:r:1:alias"}, nil},
		{"acs:kms:*:*:key/*", []string{"acs:kms:r:1:key/k"}, []string{"acs:kms:r:1:key", "acs:kms:r:1:alias/k", "acs:kms:r:1:keystore/k"}},
		{"acs:kms:*:*:key", []string{"acs:kms:r:1:key"}, []string{"acs:kms:r:1:key/k", "acs:kms:r:1:alias"}},
		{"acs:kms:r-1:1000000000000001:alias/app/*", []string{"acs:kms:r-1:1000000000000001:alias/app/a/b"}, []string{"acs:kms:r-1:1000000000000001:alias/app", "acs:kms:r-2:1000000000000001:alias/app/a", "acs:kms:r-1:1000000000000002:alias/app/a"}},
		{"acs:kms:*:*:keystore/k*1", []string{"acs:kms:r:1:keystore/k1", "acs:kms:r:1:keystore/ks-1"}, []string{"acs:kms:r:1:keystore/k2", "acs:kms:r:1:keystore"}},
	} {
		d, err := ParseIdentity([]byte(identityText("kms:*", c.pattern, "")))
		if err != nil {
			t.Fatal(err)
		}
		for _, arn := range append(c.yes, c.not...) {
			want := NoMatch
			if slices.Contains(c.yes, arn) {
				want = Allow
			}
			if got := d.Evaluate(question{goodPrincipal, "kms:Encrypt", arn, nil}.request(t)); got != want {
				t.Errorf("%s on %s: %s", c.pattern, arn, got)
			}
		}
	}
}

// A pattern of many pieces on a long text that almost fits: whatever tries pieces again does not come back from this.
func TestPatternHasNoBacktracking(t *testing.T) {
	pieces := 100
	p, why := compilePattern(strings.Repeat("*a?a", pieces) + "*b")
	if why != "" {
		t.Fatal(why)
	}
	text := strings.Repeat("a", 100000)
	if p.matches(text) {
		t.Error("matches")
	}
	if !p.matches(text + "b") {
		t.Error("does not match")
	}
}

func TestPrincipalAndActionNames(t *testing.T) {
	for _, bad := range []string{"", "acs:ram::1000000000000001:*", "acs:ram::1:root", "root", "acs:ram::1000000000000001:user/a/b"} {
		if p, err := ParsePrincipal(bad); err == nil || p != (Principal{}) {
			t.Errorf("%q: %v, %v", bad, p, err)
		}
	}
	for _, bad := range []string{"", "kms:", "kms:*", "kms:List*", "Encrypt", "*"} {
		if a, err := ParseAction(bad); err == nil || a != (Action{}) {
			t.Errorf("%q: %v, %v", bad, a, err)
		}
	}
	p, err := ParsePrincipal(goodPrincipal)
	if err != nil || p.Account() != ownerAccount || p.String() != goodPrincipal || MustAction("kms:Encrypt").String() != "kms:Encrypt" {
		t.Errorf("%v, %v", p, err)
	}
	if (Principal{}).String() == "" {
		t.Error("the zero Principal has no name")
	}
	defer func() {
		if recover() == nil {
			t.Error("MustAction took kms:*")
		}
	}()
	MustAction("kms:*")
}

func TestBuild(t *testing.T) {
	roles := Roles{
		Administrators:    []string{"acs:ram::1000000000000001:user/admin"},
		Users:             []string{"acs:ram::1000000000000001:user/user", "acs:ram::1000000000000002:role/user"},
		Signers:           []string{"acs:ram::1000000000000001:role/signer"},
		OtherAccountUsers: []string{badOther},
	}
	may := func(d *Document, principal, action string) bool {
		return Decide(testOwner, d, nil, question{principal, action, "acs:kms:r:1000000000000001:key/k", nil}.request(t))
	}
	for _, exclusive := range []bool{false, true} {
		roles.Exclusive = exclusive
		text, err := Build(testOwner, roles)
		if err != nil {
			t.Fatal(err)
		}
		d, err := ParseKey(text, testOwner)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := json.Marshal(d); err != nil || string(again) != string(text) {
			t.Errorf("%s\nis not canonical: %s", text, again)
		}
		for _, c := range []struct {
			principal, action string
			inRole            bool
		}{
			{"acs:ram::1000000000000001:root", "kms:Encrypt", true},
			{"acs:ram::1000000000000001:user/admin", "kms:ScheduleKeyDeletion", true},
			{"acs:ram::1000000000000001:user/admin", "kms:CreateKeyVersion", true},
			{"acs:ram::1000000000000001:user/admin", "kms:Encrypt", false},
			{"acs:ram::1000000000000001:user/user", "kms:Encrypt", true},
			{"acs:ram::1000000000000002:role/user", "kms:Decrypt", true},
			{"acs:ram::1000000000000001:user/user", "kms:AsymmetricSign", false},
			{"acs:ram::1000000000000001:role/signer", "kms:AsymmetricSign", true},
			{"acs:ram::1000000000000001:role/signer", "kms:Decrypt", false},
			{"acs:ram::1000000000000001:user/nobody", "kms:Encrypt", false},
		} {
			if got := may(d, c.principal, c.action); got != (c.inRole || !exclusive) {
				t.Errorf("exclusive %v: %s %s: %v", exclusive, c.principal, c.action, got)
			}
		}
		r := question{badOther, "kms:Encrypt", "acs:kms:r:1000000000000001:key/k", nil}.request(t)
		if d.Evaluate(r) != Allow || Decide(testOwner, d, nil, r) {
			t.Error("the other account's user is not allowed by the key policy, or by it alone")
		}
		if got := d.OtherAccounts(testOwner); !slices.Equal(got, []string{otherAccount}) {
			t.Errorf("other accounts: %v", got)
		}
	}
	want := `{"Version":"1","Statement":[{"Sid":"kms default key policy","Effect":"Allow","Principal":{"RAM":["acs:ram::1000000000000001:*"]},"Action":["kms:*"],"Resource":["*"]},` +
		`{"Sid":"kms key signers","Effect":"Allow","Principal":{"RAM":["acs:ram::1000000000000001:user/s"]},"Action":["kms:AsymmetricSign","kms:AsymmetricVerify","kms:GetPublicKey","kms:DescribeKey","kms:DescribeKeyVersion","kms:ListKeyVersions","kms:ListAliasesByKeyId"],"Resource":["*"]}]}`
	if got, err := Build(KeyOwner{Account: ownerAccount}, Roles{Signers: []string{"acs:ram::1000000000000001:user/s"}}); err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
	many := make([]string, 1000)
	for i := range many {
		many[i] = fmt.Sprintf("acs:ram::1000000000000001:user/%d", i)
	}
	for _, c := range []struct {
		roles Roles
		path  string
	}{
		{Roles{Administrators: []string{badOther}}, "Administrators[0]"},
		{Roles{Users: []string{goodPrincipal, badOther}}, "Users[1]"},
		{Roles{Signers: []string{badOther}}, "Signers[0]"},
		{Roles{OtherAccountUsers: []string{goodPrincipal}}, "OtherAccountUsers[0]"},
		{Roles{Users: []string{"alice"}}, "Users[0]"},
		{Roles{Users: many}, ""},
	} {
		_, err := Build(testOwner, c.roles)
		if e, ok := err.(*Error); !ok || e.Path != c.path {
			t.Errorf("%s: %v", c.path, err)
		}
	}
}

// The roles are the seed's, to the letter.
func TestRoleActions(t *testing.T) {
	for _, c := range []struct {
		got  []string
		want string
	}{
		{administratorActions, "List* Describe* Create* Enable* Disable* Get* Set* Update* Delete* Cancel* TagResource UntagResource ImportKeyMaterial ScheduleKeyDeletion"},
		{userActions, "Encrypt Decrypt GenerateDataKey GenerateAndExportDataKey AsymmetricEncrypt AsymmetricDecrypt DescribeKey DescribeKeyVersion ListKeyVersions ListAliasesByKeyId TagResource"},
		{signerActions, "AsymmetricSign AsymmetricVerify GetPublicKey DescribeKey DescribeKeyVersion ListKeyVersions ListAliasesByKeyId"},
	} {
		if got := strings.ReplaceAll(strings.Join(c.got, " "), "kms:", ""); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestDefault(t *testing.T) {
	if got, want := string(Default(KeyOwner{Account: ownerAccount})), `{"Version":"1","Statement":[{"Sid":"kms default key policy","Effect":"Allow","Principal":{"RAM":["acs:ram::1000000000000001:*"]},"Action":["kms:*"],"Resource":["*"]}]}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	d, err := ParseKey(Default(testOwner), testOwner)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(defaultDocument(testOwner))
	want, _ := json.Marshal(d)
	if string(got) != string(want) {
		t.Errorf("the compiled default is %s, the text %s", got, want)
	}
	for _, q := range questions {
		r := q.request(t)
		if Decide(testOwner, nil, nil, r) != Decide(testOwner, d, nil, r) {
			t.Errorf("%+v: a key without a policy decides otherwise than one with the default", q)
		}
	}
}

func TestTimeBySecond(t *testing.T) {
	d, err := LoadKey([]byte(conditionText(`{"DateEquals":{"acs:CurrentTime":"1969-12-31T23:59:59Z"}}`)))
	if err != nil {
		t.Fatal(err)
	}
	r := question{goodPrincipal, "kms:Encrypt", "acs:kms:r:1:key/k", nil}.request(t)
	r.Context.Time = time.Unix(-1, 999999999)
	if d.Evaluate(r) != Allow {
		t.Error("a part of a second makes another second")
	}
}
