package policy

import (
	"fmt"
	"strings"
	"testing"
)

// TestDecideMatrix goes through all of: what the key policy says, what identity policies say, who asks, and for what.
func TestDecideMatrix(t *testing.T) {
	statement := func(effect string, e Effect, identity bool) string {
		if e == NoMatch {
			return "" // added by the caller: a statement that does not match
		}
		if identity {
			return fmt.Sprintf(`{"Effect":%q,"Action":"kms:*","Resource":"*"}`, effect)
		}
		return fmt.Sprintf(`{"Effect":%q,"Principal":{"RAM":["acs:ram::%s:*","acs:ram::%s:*","acs:ram::%s:*"]},"Action":"kms:*","Resource":"*"}`, effect, ownerAccount, coAccount, otherAccount)
	}
	unmatched := map[bool]string{
		false: `{"Effect":"Deny","Principal":{"RAM":["acs:ram::9000000000000009:*"]},"Action":"kms:*","Resource":"*"}`,
		true:  `{"Effect":"Deny","Action":"kms:*","Resource":"acs:kms:elsewhere:*:*"}`,
	}
	documents := func(identity bool) map[Effect][]*Document {
		out := map[Effect][]*Document{}
		for _, effects := range [][]Effect{{NoMatch}, {Allow}, {Deny}, {Allow, Deny}, {Deny, Allow}, {Allow, Allow}} {
			total := NoMatch
			parts := []string{unmatched[identity]}
			for _, e := range effects {
				total = max(total, e)
				if s := statement(e.String(), e, identity); s != "" {
					parts = append(parts, s)
				}
			}
			parse := LoadKey
			if identity {
				parse = ParseIdentity
			}
			d, err := parse([]byte(keyText(parts...)))
			if err != nil {
				t.Fatal(err)
			}
			out[total] = append(out[total], d)
		}
		return out
	}
	keys, identities := documents(false), documents(true)
	cases := 0
	for _, account := range []string{ownerAccount, coAccount, otherAccount, "4000000000000004"} {
		for _, who := range []string{"root", "user/alice", "role/ops"} {
			for _, action := range []string{"kms:Encrypt", "kms:ScheduleKeyDeletion", "kms:GetKeyPolicy", "kms:SetKeyPolicy", "kms:DescribeKey", "kms:describekey", "kms:GetPublicKey", "kms:Unknown"} {
				q := question{"acs:ram::" + account + ":" + who, action, "acs:kms:r:" + ownerAccount + ":key/k", nil}
				r := q.request(t)
				for a, docs := range keys {
					if account == "4000000000000004" {
						a = NoMatch // no document names it
					}
					for _, key := range docs {
						for b, docs := range identities {
							for _, identity := range docs {
								for _, list := range [][]*Document{{identity}, {identities[NoMatch][0], identity}, {identity, identities[NoMatch][0]}, {identities[Allow][0], identity}, {identity, identities[Deny][0]}} {
									cases++
									total := b
									for _, d := range list {
										total = max(total, d.Evaluate(r))
									}
									want := oracle(q.principal, action, a, total)
									if got := Decide(testOwner, key, list, r); got != want {
										t.Errorf("%s %s, key policy %s, identity %s: %v", q.principal, action, a, total, got)
									}
									e := Explain(testOwner, key, list, []string{"a", "b"}[:len(list)], r)
									if e.Allowed != want || e.KeyPolicy.Effect != a || !strings.HasPrefix(e.Reason, q.principal) || strings.Contains(e.Reason, "no statement") {
										t.Errorf("%s %s, key policy %s, identity %s: explained as %+v", q.principal, action, a, total, e)
									}
								}
							}
						}
					}
				}
			}
		}
	}
	if cases != 4*3*8*6*6*5 {
		t.Errorf("%d cases", cases)
	}
}

// Who or what is missing from a request is allowed nothing, whatever the policies say.
func TestZeroRequest(t *testing.T) {
	all, err := ParseIdentity([]byte(`{"Version":"1","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParsePrincipal("acs:ram::1000000000000001:root")
	if err != nil {
		t.Fatal(err)
	}
	for _, owner := range []KeyOwner{testOwner, {}} {
		for _, r := range []*Request{{}, {Principal: p}, {Action: MustAction("kms:DescribeKey")}} {
			if Decide(owner, nil, []*Document{all}, r) || Explain(owner, nil, []*Document{all}, []string{"all"}, r).Allowed {
				t.Errorf("%+v is allowed", r)
			}
		}
	}
}

// A root that denies itself everything keeps what it needs to take that back, and nothing more.
func TestLockOut(t *testing.T) {
	d, err := ParseKey([]byte(keyText(statementText("Deny", "acs:ram::1000000000000001:*", "kms:*", ""), statementText("Deny", "acs:ram::1000000000000002:*", "kms:*", ""))), testOwner)
	if err != nil {
		t.Fatal(err)
	}
	for _, action := range []string{"kms:GetKeyPolicy", "kms:SetKeyPolicy", "kms:DescribeKey", "kms:Decrypt", "kms:ScheduleKeyDeletion", "kms:DescribeKeyVersion"} {
		for _, who := range []string{"acs:ram::1000000000000001:root", "acs:ram::1000000000000001:user/root", "acs:ram::1000000000000002:root"} {
			want := who == "acs:ram::1000000000000001:root" && strings.Contains("kms:GetKeyPolicy kms:SetKeyPolicy kms:DescribeKey ", action+" ")
			if got := Decide(testOwner, d, nil, question{who, action, "acs:kms:r:1000000000000001:key/k", nil}.request(t)); got != want {
				t.Errorf("%s %s: %v", who, action, got)
			}
		}
	}
}

// An account that was a co-owner when the policy was written can't manage the key with it any more.
func TestFormerCoOwner(t *testing.T) {
	d, err := ParseKey(Default(testOwner), testOwner)
	if err != nil {
		t.Fatal(err)
	}
	all, err := ParseIdentity([]byte(identitySamples[0]))
	if err != nil {
		t.Fatal(err)
	}
	for action, want := range map[string]bool{"kms:SetKeyPolicy": false, "kms:ScheduleKeyDeletion": false, "kms:Encrypt": true} {
		for _, who := range []string{":root", ":user/a"} {
			r := question{"acs:ram::" + coAccount + who, action, "acs:kms:r:1000000000000001:key/k", nil}.request(t)
			if got := Decide(KeyOwner{Account: ownerAccount}, d, []*Document{all}, r); got != want {
				t.Errorf("%s %s: %v", who, action, got)
			}
			if !Decide(testOwner, d, nil, r) {
				t.Errorf("%s %s: denied to a co-owner", who, action)
			}
		}
	}
}

// A container has no key policy: the root may, others need an identity policy.
func TestContainer(t *testing.T) {
	all, err := ParseIdentity([]byte(identityText("kms:CreateKey", "acs:kms:*:*:key", "")))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(who string, identity ...*Document) bool {
		return Decide(KeyOwner{Account: ownerAccount}, &Document{}, identity, question{"acs:ram::" + who, "kms:CreateKey", "acs:kms:r:1000000000000001:key", nil}.request(t))
	}
	if !ask(ownerAccount+":root") || ask(ownerAccount+":user/a") || !ask(ownerAccount+":user/a", all) || ask(otherAccount+":root", all) {
		t.Error("CreateKey is allowed to the wrong ones")
	}
}

func TestExplain(t *testing.T) {
	key, err := ParseKey([]byte(keyText(
		statementText("Allow", "acs:ram::1000000000000001:user/bob", "kms:*", `,"Sid":"first one"`),
		statementText("Allow", goodPrincipal, "kms:List*", ""),
		statementText("Deny", goodPrincipal, "kms:*", `,"Condition":{"StringEquals":{"kms:tag/team":["red","green"]},"NotIpAddress":{"acs:SourceIp":"192.0.2.0/24"}}`),
		statementText("Deny", goodPrincipal, "kms:*", `,"Condition":{"StringEquals":{"acs:SourceVpc":"vpc-2"}}`),
		statementText("Allow", goodPrincipal, "kms:Encrypt", `,"Sid":"fits"`))), testOwner)
	if err != nil {
		t.Fatal(err)
	}
	identity, err := ParseIdentity([]byte(identityText("kms:*", "acs:kms:*:*:alias/*", "")))
	if err != nil {
		t.Fatal(err)
	}
	d := Explain(testOwner, key, []*Document{identity}, []string{"aliases"}, questions[0].request(t))
	if want := `acs:ram::1000000000000001:user/alice may do kms:Encrypt: Statement[4] ("fits") of the key policy allows it`; !d.Allowed || d.Reason != want {
		t.Errorf("got  %s\nwant %s", d.Reason, want)
	}
	for i, want := range []StatementTrace{
		{"first one", Allow, false, MissedPrincipal, "acs:ram::1000000000000001:user/alice is not among acs:ram::1000000000000001:user/bob"},
		{"", Allow, false, MissedAction, "kms:Encrypt is not among kms:List*"},
		{"", Deny, false, MissedCondition, `kms:tag/team StringEquals red, green: the request has "blue"`},
		{"", Deny, false, MissedCondition, `acs:SourceVpc StringEquals vpc-2: the request has "vpc-1"`},
		{"fits", Allow, true, "", ""},
	} {
		if got := d.KeyPolicy.Statements[i]; got != want {
			t.Errorf("%d: got  %+v\nwant %+v", i, got, want)
		}
	}
	if got, want := d.Identity[0].Statements[0], (StatementTrace{"", Allow, false, MissedResource, "acs:kms:local:1000000000000001:key/key-1 is not among acs:kms:*:*:alias/*"}); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	q := questions[0]
	q.context = nil
	d = Explain(testOwner, key, nil, nil, q.request(t))
	if got := d.KeyPolicy.Statements[3].Why; !strings.HasSuffix(got, ": the request has none") {
		t.Error(got)
	}
	d = Explain(testOwner, nil, nil, nil, q.request(t))
	if !d.Allowed || !strings.Contains(d.Reason, `Statement[0] ("kms default key policy") of the default key policy`) {
		t.Error(d.Reason)
	}
	never, err := ParseIdentity([]byte(strings.Replace(identityText("kms:*", "*", ""), "Allow", "Deny", 1)))
	if err != nil {
		t.Fatal(err)
	}
	d = Explain(testOwner, nil, []*Document{identity, never}, []string{"aliases", "never"}, q.request(t))
	if want := `Statement[0] of the identity policy never denies it`; d.Allowed || !strings.HasSuffix(d.Reason, want) {
		t.Errorf("got  %s\nwant %s", d.Reason, want)
	}
}

// fiveStatements has something of everything, and the statement that decides is the last.
func fiveStatements(t testing.TB) (*Document, *Request) {
	t.Helper()
	d, err := ParseKey([]byte(keyText(
		statementText("Allow", "acs:ram::1000000000000001:root", "kms:*", ""),
		`{"Effect":"Allow","Principal":{"RAM":["acs:ram::1000000000000001:user/admin","acs:ram::1000000000000001:user/alice"]},"Action":["kms:List*","kms:Describe*","kms:Create*","kms:Enable*","kms:Disable*","kms:Get*","kms:Set*","kms:Update*","kms:Delete*","kms:Cancel*"],"Resource":"*"}`,
		statementText("Deny", "acs:ram::1000000000000001:*", "kms:*", `,"Condition":{"NotIpAddress":{"acs:SourceIp":["10.0.0.0/8","192.0.2.0/24"]}}`),
		statementText("Deny", "acs:ram::1000000000000001:*", "kms:Encrypt", `,"Condition":{"StringNotLike":{"keyward:Executable":"/usr/*bin/w?b*"},"StringNotEquals":{"kms:tag/team":"blue"}}`),
		`{"Effect":"Allow","Principal":{"RAM":["acs:ram::1000000000000001:role/web","acs:ram::1000000000000001:user/alice"]},"Action":["kms:Decrypt","kms:GenerateDataKey","kms:Encrypt"],"Resource":"*"}`)), testOwner)
	if err != nil {
		t.Fatal(err)
	}
	r := questions[0].request(t)
	r.Context.Executable = "/usr/local/bin/web"
	return d, r
}

func TestNoAllocations(t *testing.T) {
	key, r := fiveStatements(t)
	identity, err := ParseIdentity([]byte(identitySamples[1]))
	if err != nil {
		t.Fatal(err)
	}
	list := []*Document{identity, identity}
	every, err := ParseKey([]byte(keySamples[3]), testOwner)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if key.Evaluate(r) != Allow || every.Evaluate(r) != NoMatch || !Decide(testOwner, key, list, r) || !Decide(testOwner, nil, list, r) {
			t.Error("not what it was")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkEvaluate has documents of five statements: one with all roles, and one with conditions of all kinds.
func BenchmarkEvaluate(b *testing.B) {
	conditions, r := fiveStatements(b)
	for _, c := range []struct {
		name string
		d    *Document
	}{{"roles", allRoles(b)}, {"conditions", conditions}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if c.d.Evaluate(r) != Allow {
					b.Fatal("not allowed")
				}
			}
		})
	}
}

func allRoles(t testing.TB) *Document {
	t.Helper()
	text, err := Build(testOwner, Roles{
		Administrators: []string{"acs:ram::1000000000000001:user/admin", goodPrincipal}, Users: []string{"acs:ram::1000000000000001:user/bob", goodPrincipal},
		Signers: []string{goodPrincipal}, OtherAccountUsers: []string{badOther}, Exclusive: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	d, err := ParseKey(text, testOwner)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func BenchmarkDecide(b *testing.B) {
	d, r := allRoles(b), questions[0].request(b)
	identity, err := ParseIdentity([]byte(identitySamples[1]))
	if err != nil {
		b.Fatal(err)
	}
	list := []*Document{identity}
	b.ReportAllocs()
	for b.Loop() {
		if !Decide(testOwner, d, list, r) {
			b.Fatal("not allowed")
		}
	}
}

func BenchmarkParseKey(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseKey([]byte(keySamples[2]), testOwner); err != nil {
			b.Fatal(err)
		}
	}
}
