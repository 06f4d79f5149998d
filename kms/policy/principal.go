package policy

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	ramPrefix    = "acs:ram::"
	accountSize  = 16 // digits
	maxName      = 64 // characters of a user's or role's name
	nameElements = "letters, digits and . _ @ -"
)

type principalKind uint8

const (
	anyOfAccount principalKind = iota + 1 // in documents only
	rootOfAccount
	userOfAccount
	roleOfAccount
)

// Principal is who asks: the root, a user or a role of an account. The zero Principal is nobody and is allowed nothing.
type Principal struct {
	kind    principalKind
	account string
	number  uint64 // account as a number, which is compared faster
	name    string
}

// ParsePrincipal reads acs:ram::<account>:root, acs:ram::<account>:user/<name> or acs:ram::<account>:role/<name>.
func ParsePrincipal(arn string) (Principal, error) {
	p, why := parsePrincipal(arn)
	if why == "" && p.kind == anyOfAccount {
		why = fmt.Sprintf("%.100q stands for many; one that asks is acs:ram::%s:root, :user/<name> or :role/<name>", arn, p.account)
	}
	if why != "" {
		return Principal{}, wrong("Principal", "%s", why)
	}
	return Principal(p), nil
}

// Account gives the account that the principal belongs to.
func (p Principal) Account() string { return p.account }

// String gives the ARN.
func (p Principal) String() string { return principalPattern(p).String() }

// principalPattern is a value of a document's Principal: a Principal, or all of an account.
type principalPattern Principal

func (p *principalPattern) matches(r *Principal) bool {
	return p.number == r.number && (p.kind == anyOfAccount || p.kind == r.kind && p.name == r.name)
}

func (p principalPattern) String() string {
	switch p.kind {
	case anyOfAccount:
		return ramPrefix + p.account + ":*"
	case rootOfAccount:
		return ramPrefix + p.account + ":root"
	case userOfAccount:
		return ramPrefix + p.account + ":user/" + p.name
	case roleOfAccount:
		return ramPrefix + p.account + ":role/" + p.name
	}
	return "nobody"
}

// parsePrincipal reads a value of Principal, or says what is wrong with it.
func parsePrincipal(text string) (principalPattern, string) {
	const form = "acs:ram::<account>:root, acs:ram::<account>:*, acs:ram::<account>:user/<name> or acs:ram::<account>:role/<name>"
	rest, ok := strings.CutPrefix(text, ramPrefix)
	account, who, found := strings.Cut(rest, ":")
	if !ok || !found {
		return principalPattern{}, fmt.Sprintf("%.100q is no principal; write %s", text, form)
	}
	if !isAccount(account) {
		return principalPattern{}, fmt.Sprintf("%.100q is no account; an account has %d digits, and no wildcards", account, accountSize)
	}
	p := ofAccount(0, account)
	switch who {
	case "*":
		p.kind = anyOfAccount
		return p, ""
	case "root":
		p.kind = rootOfAccount
		return p, ""
	}
	kind, name, _ := strings.Cut(who, "/")
	switch kind {
	case "user":
		p.kind = userOfAccount
	case "role":
		p.kind = roleOfAccount
	default:
		return principalPattern{}, fmt.Sprintf("%.100q is no principal; write %s", text, form)
	}
	if len(name) == 0 || len(name) > maxName || strings.ContainsFunc(name, func(c rune) bool { return !isLetterOrDigit(c) && !strings.ContainsRune("._@-", c) }) {
		return principalPattern{}, fmt.Sprintf("%.100q is no name of a %s: it has 1 to %d %s; all principals of an account are acs:ram::%s:*", name, kind, maxName, nameElements, account)
	}
	p.name = name
	return p, ""
}

// ofAccount makes a value that has no name. An account that is no number is 0, which no principal has.
func ofAccount(kind principalKind, account string) principalPattern {
	n, _ := strconv.ParseUint(account, 10, 64)
	return principalPattern{kind: kind, account: account, number: n}
}

func isAccount(s string) bool {
	return len(s) == accountSize && strings.Trim(s, "0123456789") == ""
}

func isLetter(c rune) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func isLetterOrDigit(c rune) bool { return isLetter(c) || c >= '0' && c <= '9' }
