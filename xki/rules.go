package xki

import (
	"slices"
	"strings"
)

// Rule denies requests (§2.13): of an operation, by what their metadata say. A request is denied by the first rule that all of its conditions fit. Nothing in the
// metadata is proven but by the signature of the cloud that sent it.
type Rule struct {
	Name       string
	Operations []Operation       // that it is about; empty: all, but health, which rules never deny
	Keys       []string          // External Key IDs that it is about; empty: all
	Unless     map[string]string // metadata members, by their names in xks-v1, and what they must be; * at the end fits any rest. Empty: it always denies
}

// ruleMembers are the members of request metadata that rules look at.
var ruleMembers = map[string]func(*RequestMetadata) string{
	"awsPrincipalArn": func(m *RequestMetadata) string { return m.PrincipalARN },
	"awsSourceVpc":    func(m *RequestMetadata) string { return m.SourceVPC },
	"awsSourceVpce":   func(m *RequestMetadata) string { return m.SourceVPCE },
	"kmsKeyArn":       func(m *RequestMetadata) string { return m.KeyARN },
	"kmsOperation":    func(m *RequestMetadata) string { return m.Operation },
	"kmsViaService":   func(m *RequestMetadata) string { return m.ViaService },
	"sourceIp":        func(m *RequestMetadata) string { return m.SourceIP },
	"kmsInstanceId":   func(m *RequestMetadata) string { return m.InstanceID },
}

// denying names the rule that denies a request; empty: none does.
func denying(rules []Rule, r *Request) string {
	if r.Op == OpHealth {
		return ""
	}
	for i := range rules {
		if rules[i].denies(r) {
			return rules[i].Name
		}
	}
	return ""
}

func (rule *Rule) denies(r *Request) bool {
	if len(rule.Operations) > 0 && !slices.Contains(rule.Operations, r.Op) || len(rule.Keys) > 0 && !slices.Contains(rule.Keys, r.KeyID) {
		return false
	}
	for name, want := range rule.Unless {
		if member := ruleMembers[name]; member == nil || !fits(member(&r.Metadata), want) {
			return true
		}
	}
	return len(rule.Unless) == 0
}

// fits compares a value with a pattern: one that ends with * fits whatever begins so.
func fits(value, pattern string) bool {
	if begin, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(value, begin)
	}
	return value == pattern
}
