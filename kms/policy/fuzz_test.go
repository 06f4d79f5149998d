package policy

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

const (
	ownerAccount = "1000000000000001"
	coAccount    = "1000000000000002"
	otherAccount = "2000000000000003"
)

var testOwner = KeyOwner{Account: ownerAccount, CoOwners: []string{coAccount}}

// questions are asked of every document that a fuzzer finds.
var questions = []question{
	{"acs:ram::1000000000000001:user/alice", "kms:Encrypt", "acs:kms:local:1000000000000001:key/key-1", map[string]string{
		"acs:SourceIp": "192.0.2.7", "acs:SourceVpc": "vpc-1", "acs:CurrentTime": "2026-01-31T18:00:00Z", "acs:SecureTransport": "true",
		"kms:EncryptionAlgorithm": "SYMMETRIC_DEFAULT", "kms:tag/team": "blue", "keyward:Unit": "web.service", "keyward:Executable": "/usr/bin/w\u00e9b",
		"keyward:Door": "API", "keyward:Uid": "33"}},
	{"acs:ram::1000000000000002:role/ops", "kms:GetKeyPolicy", "acs:kms:local:1000000000000001:key/key-2", map[string]string{"acs:SourceIp": "2001:db8::1", "kms:tag/team": ""}},
	{"acs:ram::2000000000000003:user/bob", "kms:Decrypt", "acs:kms:local:1000000000000001:alias/app/db", map[string]string{"keyward:Door": "PKCS11", "keyward:Uid": "0"}},
	{"acs:ram::1000000000000001:root", "kms:ListKeys", "acs:kms:local:1000000000000001:key", nil},
}

// checkDocument holds an accepted document to what each of them must be: the naive evaluator agrees, and the canonical
// form is accepted, is canonical, and decides the same.
func checkDocument(t *testing.T, text []byte, d *Document, parse func([]byte) (*Document, error), questions ...question) {
	canonical, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	again := d
	if len(canonical) <= MaxSize {
		if again, err = parse(canonical); err != nil {
			t.Fatalf("%s\nof %s: %v", canonical, text, err)
		}
		if second, err := json.Marshal(again); err != nil || string(second) != string(canonical) {
			t.Fatalf("%s\nbecame %s, %v", canonical, second, err)
		}
	}
	for _, q := range questions {
		r := q.request(t)
		got := d.Evaluate(r)
		if want := naive(t, text, q); got != want {
			t.Fatalf("%s\n%+v: %s, the naive evaluator says %s", text, q, got, want)
		}
		if second := again.Evaluate(r); second != got {
			t.Fatalf("%s\n%+v: %s, but %s for %s", text, q, got, second, canonical)
		}
		trace := d.trace(r)
		if trace.Effect != got || (trace.decisive() == "no statement") != (got == NoMatch) {
			t.Fatalf("%s\n%+v: %s, explained as %+v", text, q, got, trace)
		}
	}
}

func checkError(t *testing.T, text []byte, d *Document, err error) {
	e, ok := err.(*Error)
	if !ok || d != nil || e.Reason == "" || len(e.Error()) > 4096 || strings.Contains(e.Error(), "can't be read") {
		t.Fatalf("%q: %+v, %v", text, d, err)
	}
}

func FuzzParseKey(f *testing.F) {
	for _, s := range keySamples {
		f.Add([]byte(s))
	}
	for _, c := range badKeyPolicies {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		parse := func(text []byte) (*Document, error) { return ParseKey(text, testOwner) }
		d, err := parse(text)
		if err != nil {
			checkError(t, text, d, err)
			return
		}
		checkDocument(t, text, d, parse, questions...)
		if _, err := LoadKey(text); err != nil {
			t.Fatal(err)
		}
		for _, q := range questions {
			r := q.request(t)
			if d.Evaluate(r) == Allow && !testOwner.has(r.Principal.Account()) && !r.Action.use {
				t.Fatalf("%s\nallows %+v", text, q)
			}
		}
	})
}

func FuzzParseIdentity(f *testing.F) {
	for _, s := range identitySamples {
		f.Add([]byte(s))
	}
	for _, c := range badIdentityPolicies {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := ParseIdentity(text)
		if err != nil {
			checkError(t, text, d, err)
			return
		}
		checkDocument(t, text, d, ParseIdentity, questions...)
	})
}

// dice makes choices out of a fuzzer's octets.
type dice struct{ octets []byte }

func (d *dice) roll(n int) int {
	if len(d.octets) == 0 {
		return 0
	}
	v := int(d.octets[0])
	d.octets = d.octets[1:]
	return v % n
}

func (d *dice) of(list []string) string { return list[d.roll(len(list))] }

// some gives one to three of the list.
func (d *dice) some(list []string) []string {
	out := []string{d.of(list)}
	for len(out) < 3 && d.roll(3) == 2 {
		out = append(out, d.of(list))
	}
	return out
}

var vocabulary = struct {
	principals, actions, resources []string
	values                         [5][]string // by keyType
	patterns, tags                 []string
	askers, asked, about           []string
}{
	principals: []string{"acs:ram::1000000000000001:*", "acs:ram::1000000000000001:root", "acs:ram::1000000000000001:user/alice", "acs:ram::1000000000000001:role/alice",
		"acs:ram::1000000000000002:*", "acs:ram::2000000000000003:user/bob", "acs:ram::2000000000000003:*", "acs:ram::2000000000000003:root"},
	actions:   []string{"kms:*", "kms:Encrypt", "kms:encrypt", "kms:En*", "kms:ReEncrypt*", "kms:ReEncryptTo", "kms:Get*", "KMS:GETKEYPOLICY", "kms:Generate*", "kms:DescribeKey*", "kms:Nothing"},
	resources: []string{"*", "acs:kms:*:*:*", "acs:kms:*:*:key/*", "acs:kms:local:1000000000000001:key/key-1", "acs:kms:lo*:*:key/*1", "acs:kms:*:2000000000000003:key/*", "acs:kms:*:*:alias/app/*", "acs:kms:*:*:key", "acs:kms:*:*:alias", "acs:kms:*:*:keystore/*"},
	values: [5][]string{
		stringKey:  {"blue", "Blue", "", "vpc-1", "SYMMETRIC_DEFAULT", "aaab"},
		numericKey: {"0", "33", "1000", "4294967295"},
		dateKey:    {"2026-01-31T18:00:00Z", "2026-01-31T19:00:00+01:00", "2026-01-31T18:00Z", "2026-01-31T18:00:01Z", "1969-12-31T23:59:59Z"},
		boolKey:    {"true", "false"},
		ipKey:      {"192.0.2.7", "192.0.2.0/24", "0.0.0.0/0", "2001:db8::/32", "::ffff:192.0.2.0/120", "10.0.0.1/8", "::/0"},
	},
	patterns: []string{"*", "?", "b*", "*e", "b?ue", "*l?e*", "**", "a*a*b", "*?", "", "*a?b*", "?*?*?", "*\u00fc?e"},
	tags:     []string{"team", "Team", "cost center"},
	askers:   []string{"acs:ram::1000000000000001:root", "acs:ram::1000000000000001:user/alice", "acs:ram::1000000000000001:role/alice", "acs:ram::1000000000000002:user/alice", "acs:ram::2000000000000003:user/bob", "acs:ram::2000000000000003:root"},
	asked:    []string{"kms:Encrypt", "kms:ReEncryptTo", "kms:GetKeyPolicy", "kms:GenerateDataKey", "kms:DescribeKey", "kms:ScheduleKeyDeletion"},
	about:    []string{"acs:kms:local:1000000000000001:key/key-1", "acs:kms:far:2000000000000003:key/key-21", "acs:kms:local:1000000000000001:alias/app/db", "acs:kms:local:1000000000000001:key", "acs:kms:local:1000000000000001:alias"},
}

// document makes a document that is almost always a good one.
func (d *dice) document(identity bool) []byte {
	doc := documentJSON{Version: version}
	for n := 1 + d.roll(4); n > 0; n-- {
		st := statementJSON{Effect: d.of([]string{"Allow", "Deny"}), Action: d.some(vocabulary.actions), Resource: []string{"*"}}
		if identity {
			st.Resource = d.some(vocabulary.resources)
		} else {
			st.Principal = &principalJSON{d.some(vocabulary.principals)}
		}
		for n := d.roll(3); n > 0; n-- {
			op := operators[d.roll(len(operators))]
			var keys []string
			for _, k := range conditionKeys {
				if k.typ == op.typ && k.values == nil {
					keys = append(keys, k.name)
				}
			}
			key := d.of(keys)
			if key == tagPrefix {
				key += d.of(vocabulary.tags)
			}
			values := vocabulary.values[op.typ]
			if op.compare == like {
				values = vocabulary.patterns
			}
			if st.Condition == nil {
				st.Condition = map[string]map[string][]string{}
			}
			st.Condition[op.name] = map[string][]string{key: d.some(values)}
		}
		doc.Statement = append(doc.Statement, st)
	}
	text, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	return text
}

func (d *dice) question() question {
	q := question{d.of(vocabulary.askers), d.of(vocabulary.asked), d.of(vocabulary.about), map[string]string{}}
	for _, k := range conditionKeys {
		if d.roll(4) == 0 {
			continue
		}
		name := k.name
		if name == tagPrefix {
			name += d.of(vocabulary.tags)
		}
		switch k.typ {
		case stringKey:
			v := d.of([]string{"blue", "BLUE", "vpc-1", "aaab", "b", "SYMMETRIC_DEFAULT", "bl\u00fce", "glue factory", "aabab"})
			q.context[name] = v
		case numericKey:
			q.context[name] = d.of(vocabulary.values[numericKey])
		case dateKey:
			q.context[name] = d.of([]string{"2026-01-31T18:00:00Z", "2026-01-31T18:00:00.5Z", "2026-01-31T17:59:59.999Z", "1960-01-01T00:00:00Z"})
		case boolKey:
			q.context[name] = d.of([]string{"true", "false"})
		case ipKey:
			q.context[name] = d.of([]string{"192.0.2.7", "192.0.3.7", "2001:db8::1", "::ffff:192.0.2.7", "10.9.9.9"})
		}
	}
	return q
}

// FuzzEvaluate makes documents and requests of the fuzzer's octets and holds both evaluators against each other, and
// Decide against the oracle.
func FuzzEvaluate(f *testing.F) {
	f.Add([]byte{})
	for i := range 64 {
		seed := make([]byte, 160)
		for j := range seed {
			seed[j] = byte((i*131 + j*j*17 + j*i*7) >> 1)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, octets []byte) {
		d := &dice{octets}
		key, identity := d.document(false), d.document(true)
		q := d.question()
		a, err := LoadKey(key)
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		b, err := ParseIdentity(identity)
		if err != nil && strings.Contains(err.Error(), "acs:SourceVpc") {
			return
		} else if err != nil {
			t.Fatalf("%s: %v", identity, err)
		}
		checkDocument(t, key, a, LoadKey, q)
		checkDocument(t, identity, b, ParseIdentity, q)
		r := q.request(t)
		want := oracle(q.principal, q.action, a.Evaluate(r), b.Evaluate(r))
		if got := Decide(testOwner, a, []*Document{b}, r); got != want {
			t.Fatalf("%s\n%s\n%+v: %v, the oracle says %v", key, identity, q, got, want)
		}
		if e := Explain(testOwner, a, []*Document{b}, []string{"b"}, r); e.Allowed != want || e.Reason == "" {
			t.Fatalf("%s\n%s\n%+v: %v, explained as %+v", key, identity, q, want, e)
		}
	})
}

// FuzzPattern holds patterns against regular expressions.
func FuzzPattern(f *testing.F) {
	for _, p := range vocabulary.patterns {
		for _, s := range []string{"", "blue", "bl\u00fce", "aaab", "\xff\xfe", "\xe2\x82"} {
			f.Add(p, s)
		}
	}
	f.Fuzz(func(t *testing.T, text, s string) {
		p, why := compilePattern(text)
		if why != "" || strings.ToValidUTF8(text, "") != text {
			return // documents are UTF-8
		}
		if got, want := p.matches(s), naiveLike(text, s); got != want {
			t.Fatalf("%q on %q: %v, want %v", text, s, got, want)
		}
	})
}

// oracle is the rule of Decide once more, as a list of what is said about it.
func oracle(principal, action string, a, b Effect) bool {
	account := principal[len("acs:ram::"):][:16]
	root := strings.HasSuffix(principal, ":root")
	if account == ownerAccount && root {
		for _, free := range []string{"kms:GetKeyPolicy", "kms:SetKeyPolicy", "kms:DescribeKey"} {
			if strings.EqualFold(action, free) {
				return true
			}
		}
	}
	if a == Deny || b == Deny {
		return false
	}
	allowA, allowB := a == Allow, b == Allow || root
	if account == ownerAccount || account == coAccount {
		return allowA || allowB
	}
	management := true
	for _, use := range strings.Fields("Encrypt Decrypt GenerateDataKey GenerateAndExportDataKey AsymmetricEncrypt AsymmetricDecrypt DescribeKey DescribeKeyVersion ListKeyVersions ListAliasesByKeyId TagResource " +
		"AsymmetricSign AsymmetricVerify GetPublicKey ReEncryptFrom ReEncryptTo GenerateDataKeyWithoutPlaintext ExportDataKey GenerateMac VerifyMac") {
		if strings.EqualFold(action, "kms:"+use) {
			management = false
		}
	}
	return !management && allowA && allowB
}

func statementText(effect, principal, action, rest string) string {
	return fmt.Sprintf(`{"Effect":%q,"Principal":{"RAM":[%q]},"Action":[%q],"Resource":["*"]%s}`, effect, principal, action, rest)
}

func keyText(statements ...string) string {
	return `{"Version":"1","Statement":[` + strings.Join(statements, ",") + `]}`
}
