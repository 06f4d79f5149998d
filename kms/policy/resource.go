package policy

import (
	"fmt"
	"strings"
)

// ResourceKind is what a Resource is.
type ResourceKind uint8

// The kinds. In identity policies they are written as in an ARN.
const (
	Key      ResourceKind = iota + 1 // key/<id>, or key for all of them: CreateKey, ListKeys
	Alias                            // alias/<name>, or alias: ListAliases
	Keystore                         // keystore/<id>, or keystore
)

// String gives the word of an ARN.
func (k ResourceKind) String() string { return [...]string{"", "key", "alias", "keystore"}[k] }

// Resource is what a request is about: the parts of acs:kms:<region>:<account>:<kind>/<id>. The account is that of the
// resource's owner. Only identity policies look at it.
type Resource struct {
	Region  string
	Account string
	Kind    ResourceKind
	ID      string // of an alias: its name without alias/. Empty for the container of the kind
}

// String gives the ARN.
func (r *Resource) String() string {
	s := "acs:kms:" + r.Region + ":" + r.Account + ":" + r.Kind.String()
	if r.ID != "" {
		s += "/" + r.ID
	}
	return s
}

// resourcePattern is a value of an identity policy's Resource. A * stands for characters of its own part only, so that
// no pattern reaches further than it looks.
type resourcePattern struct {
	text    string
	all     bool // *
	region  pattern
	account string       // "*" for all
	kind    ResourceKind // 0 for all
	bare    bool         // the container
	id      pattern
}

func (p *resourcePattern) matches(r *Resource) bool {
	if p.all {
		return true
	}
	if p.account != "*" && p.account != r.Account || !p.region.matches(r.Region) {
		return false
	}
	if p.kind == 0 {
		return true
	}
	if p.kind != r.Kind || p.bare != (r.ID == "") {
		return false
	}
	return p.bare || p.id.matches(r.ID)
}

// parseResource reads a value of an identity policy's Resource, or says what is wrong with it.
func parseResource(text string) (resourcePattern, string) {
	const form = "acs:kms:<region>:<account>:key/<id>, :alias/<name> or :keystore/<id>; a container is :key, :alias or :keystore; * is a wildcard"
	p := resourcePattern{text: text}
	if text == "*" {
		p.all = true
		return p, ""
	}
	parts := strings.Split(text, ":")
	if len(parts) != 5 || parts[0] != "acs" || parts[1] != "kms" {
		return p, fmt.Sprintf("%.100q is no resource; write * or %s", text, form)
	}
	if parts[2] == "" || strings.ContainsFunc(parts[2], func(c rune) bool { return !isLetterOrDigit(c) && c != '-' && c != '*' }) {
		return p, fmt.Sprintf("%.100q is no region: it has letters, digits, hyphens and *", parts[2])
	}
	p.region, _ = compilePattern(parts[2]) // refuses nothing that has no ?
	if p.account = parts[3]; p.account != "*" && !isAccount(p.account) {
		return p, fmt.Sprintf("%.100q is no account: it has %d digits, or is * for all", p.account, accountSize)
	}
	if parts[4] == "*" {
		return p, ""
	}
	kind, id, found := strings.Cut(parts[4], "/")
	for p.kind = Key; p.kind.String() != kind; p.kind++ {
		if p.kind == Keystore {
			return p, fmt.Sprintf("%.100q is no kind of resource; there are key, alias and keystore", kind)
		}
	}
	if p.bare = !found; p.bare {
		return p, ""
	}
	if id == "" || strings.ContainsFunc(id, func(c rune) bool { return !isLetterOrDigit(c) && !strings.ContainsRune("_-/*", c) }) {
		return p, fmt.Sprintf("%.100q is no %s: it has letters, digits, hyphens, underscores, slashes and *", id, kind)
	}
	p.id, _ = compilePattern(id)
	return p, ""
}
