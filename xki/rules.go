package xki

import (
	"maps"
	"slices"
	"strings"
)

// Rule denies requests (§2.13): of an operation, by what their metadata say. A request is denied by the first rule that all of its conditions fit. Nothing in the
// metadata is proven but by the signature of the cloud that sent it.
type Rule struct {
	Name       string
	Operations []Operation         // that it is about; empty: all, but health, which rules never deny
	Keys       []string            // External Key IDs that it is about; empty: all
	Unless     map[string][]string // metadata members, by their names in xks-v1, and one of which each must be; * at the end fits any rest. Empty: it always denies
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
	for name, patterns := range rule.Unless {
		member := ruleMembers[name]
		if member == nil || !slices.ContainsFunc(patterns, func(pattern string) bool { return fits(member(&r.Metadata), pattern) }) {
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

// Check says what is wrong with a rule, or nil.
func (rule *Rule) Check() error {
	if rule.Name == "" || len(rule.Name) > 64 {
		return Errorf(Validation, "a rule has a name of 1 to 64 octets")
	}
	for _, op := range rule.Operations {
		if op == OpHealth {
			return Errorf(Validation, "the rule %s: rules are not applied to health", rule.Name)
		}
	}
	for _, id := range rule.Keys {
		if !goodKeyID(id) {
			return Errorf(Validation, "the rule %s: %.140q is no External Key ID", rule.Name, id)
		}
	}
	for name, patterns := range rule.Unless {
		if len(patterns) == 0 {
			return Errorf(Validation, "the rule %s: %.80q has no value that it may be", rule.Name, name)
		}
		if ruleMembers[name] == nil {
			return Errorf(Validation, "the rule %s: there is no member %.80q; there are %s", rule.Name, name, strings.Join(slices.Sorted(maps.Keys(ruleMembers)), ", "))
		}
	}
	return nil
}

// OperationNamed finds an operation by the name that String gives.
func OperationNamed(name string) (Operation, error) {
	for op := OpMetadata; op < numOperations; op++ {
		if op.String() == name {
			return op, nil
		}
	}
	return 0, Errorf(Validation, "there is no operation %.80q; there are metadata, encrypt, decrypt, random", name)
}

// CheckPath says what is wrong with the path of a prefix, or nil: it is empty, or /x, of the characters that AWS takes (§2.1).
func CheckPath(path string) error {
	const most = 100
	if path == "" {
		return nil
	}
	if len(path) > most || path[0] != '/' || strings.HasSuffix(path, "/") || strings.Contains(path, "//") || strings.Contains(path+"/", "/kms/") ||
		strings.Trim(path, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_/") != "" {
		return Errorf(Validation, "the path %.120q must be / and up to %d letters, digits, hyphens, underscores and slashes, with something between slashes, and without /kms/", path, most-1)
	}
	return nil
}
