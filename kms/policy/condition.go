package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// comparison is what an operator does with one value.
type comparison uint8

const (
	equals comparison = iota
	equalsIgnoreCase
	like
	less
	lessOrEqual
	greater
	greaterOrEqual
)

type operator struct {
	name    string
	typ     keyType
	compare comparison
	negated bool // holds if no value fits, and if the request does not have the key
}

var operators = []operator{
	{"StringEquals", stringKey, equals, false},
	{"StringNotEquals", stringKey, equals, true},
	{"StringEqualsIgnoreCase", stringKey, equalsIgnoreCase, false},
	{"StringNotEqualsIgnoreCase", stringKey, equalsIgnoreCase, true},
	{"StringLike", stringKey, like, false},
	{"StringNotLike", stringKey, like, true},
	{"NumericEquals", numericKey, equals, false},
	{"NumericNotEquals", numericKey, equals, true},
	{"NumericLessThan", numericKey, less, false},
	{"NumericLessThanEquals", numericKey, lessOrEqual, false},
	{"NumericGreaterThan", numericKey, greater, false},
	{"NumericGreaterThanEquals", numericKey, greaterOrEqual, false},
	{"DateEquals", dateKey, equals, false},
	{"DateNotEquals", dateKey, equals, true},
	{"DateLessThan", dateKey, less, false},
	{"DateLessThanEquals", dateKey, lessOrEqual, false},
	{"DateGreaterThan", dateKey, greater, false},
	{"DateGreaterThanEquals", dateKey, greaterOrEqual, false},
	{"Bool", boolKey, equals, false},
	{"IpAddress", ipKey, equals, false},
	{"NotIpAddress", ipKey, equals, true},
}

// operatorsFor lists the operators that fit a type, for messages.
func operatorsFor(t keyType) string {
	var names []string
	for i := range operators {
		if operators[i].typ == t {
			names = append(names, operators[i].name)
		}
	}
	return strings.Join(names, ", ")
}

// condition is one operator on one key.
type condition struct {
	op    *operator
	key   *conditionKey
	tag   string   // the tag key, if key is kms:tag/
	texts []string // the values as they were written
	// The values as the operator wants them: one of these, or texts itself. Dates are seconds of Unix time, and Bool is
	// 0 or 1.
	patterns []pattern
	numbers  []int64
	networks []netip.Prefix
}

func (c *condition) keyName() string { return c.key.name + c.tag }

func (c *condition) holds(x *Context) bool {
	fits, present := c.fits(x)
	if c.op.negated {
		return !present || !fits
	}
	return present && fits
}

// fits says whether one of the values fits that of the request, and whether the request has one.
func (c *condition) fits(x *Context) (fits, present bool) {
	switch c.key.typ {
	case stringKey:
		s, ok := c.key.text(x, c.tag)
		return ok && c.fitsText(s), ok
	case ipKey:
		if !x.SourceIP.IsValid() {
			return false, false
		}
		// An IPv4 address in IPv6's form or one with a zone would be in no network.
		ip := x.SourceIP.WithZone("").Unmap()
		for _, n := range c.networks {
			if n.Contains(ip) {
				return true, true
			}
		}
		return false, true
	}
	var n int64
	switch c.key.typ {
	case dateKey:
		if x.Time.IsZero() {
			return false, false
		}
		n = x.Time.Unix()
	case boolKey:
		if x.SecureTransport {
			n = 1
		}
	case numericKey:
		if !x.HasUID {
			return false, false
		}
		n = int64(x.UID)
	}
	return c.fitsNumber(n), true
}

func (c *condition) fitsText(s string) bool {
	switch c.op.compare {
	case like:
		for i := range c.patterns {
			if c.patterns[i].matches(s) {
				return true
			}
		}
	case equalsIgnoreCase:
		for _, want := range c.texts {
			if strings.EqualFold(s, want) {
				return true
			}
		}
	default:
		for _, want := range c.texts {
			if s == want {
				return true
			}
		}
	}
	return false
}

func (c *condition) fitsNumber(n int64) bool {
	for _, want := range c.numbers {
		var ok bool
		switch c.op.compare {
		case equals:
			ok = n == want
		case less:
			ok = n < want
		case lessOrEqual:
			ok = n <= want
		case greater:
			ok = n > want
		case greaterOrEqual:
			ok = n >= want
		}
		if ok {
			return true
		}
	}
	return false
}

// value gives the request's value for an explanation.
func (c *condition) value(x *Context) string {
	switch c.key.typ {
	case stringKey:
		if s, ok := c.key.text(x, c.tag); ok {
			return strconv.Quote(s)
		}
	case ipKey:
		if x.SourceIP.IsValid() {
			return x.SourceIP.String()
		}
	case dateKey:
		if !x.Time.IsZero() {
			return x.Time.UTC().Format(time.RFC3339)
		}
	case boolKey:
		return strconv.FormatBool(x.SecureTransport)
	case numericKey:
		if x.HasUID {
			return strconv.FormatUint(uint64(x.UID), 10)
		}
	}
	return ""
}

// newCondition finds operator and key, or says what is wrong with which of them.
func newCondition(op, key string) (condition, string) {
	var c condition
	c.op = findOperator(op)
	if c.key, c.tag = findKey(key); c.key == nil {
		for i := range conditionKeys {
			if k := conditionKeys[i].name; strings.EqualFold(k, key) && k != tagPrefix {
				return c, fmt.Sprintf("%.100q is no condition key; %s is, in this spelling", key, k)
			}
		}
		return c, fmt.Sprintf("%.100q is no condition key; there are %s", key, strings.Join(keyNames(), ", "))
	}
	if c.key.name == tagPrefix {
		if why := checkTagKey(c.tag); why != "" {
			return c, why
		}
	}
	if c.op.typ != c.key.typ {
		return c, fmt.Sprintf("%s does not fit %s; use %s", op, key, operatorsFor(c.key.typ))
	}
	return c, ""
}

func findOperator(name string) *operator {
	for i := range operators {
		if operators[i].name == name {
			return &operators[i]
		}
	}
	return nil
}

func findKey(name string) (*conditionKey, string) {
	for i := range conditionKeys {
		k := &conditionKeys[i]
		if k.name == name && name != tagPrefix {
			return k, ""
		}
		if tag, ok := strings.CutPrefix(name, tagPrefix); ok && k.name == tagPrefix {
			return k, tag
		}
	}
	return nil, ""
}

func keyNames() []string {
	names := make([]string, len(conditionKeys))
	for i := range conditionKeys {
		names[i] = conditionKeys[i].name
		if names[i] == tagPrefix {
			names[i] += "<tag-key>"
		}
	}
	return names
}

// checkTagKey holds a tag key against the rules that tags have when they are made: a condition on a tag that can't be is
// a mistake.
func checkTagKey(tag string) string {
	const maxTag = 128 // characters
	if tag == "" || len(tag) > maxTag {
		return fmt.Sprintf("a tag key of 1 to %d characters must follow %s", maxTag, tagPrefix)
	}
	if strings.HasPrefix(tag, "aliyun") || strings.HasPrefix(tag, "acs:") {
		return fmt.Sprintf("no key has a tag %.100q: tag keys do not begin with aliyun or acs:", tag)
	}
	for _, c := range tag {
		if !isLetterOrDigit(c) && !strings.ContainsRune(`/\_-.+=:@ `, c) {
			return fmt.Sprintf("no key has a tag %.100q: a tag key has letters, digits, spaces and / \\ _ - . + = : @", tag)
		}
	}
	return ""
}

// add compiles one more value, or says what is wrong with it.
func (c *condition) add(text string) string {
	switch c.key.typ {
	case stringKey:
		if c.op.compare == like {
			p, why := compilePattern(text)
			if why != "" {
				return why
			}
			c.patterns = append(c.patterns, p)
		} else if c.key.values != nil && !slices.ContainsFunc(c.key.values, func(v string) bool {
			return v == text || c.op.compare == equalsIgnoreCase && strings.EqualFold(v, text)
		}) {
			return fmt.Sprintf("%s is never %.100q; it is one of %s", c.key.name, text, strings.Join(c.key.values, ", "))
		}
	case numericKey:
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return fmt.Sprintf("%.100q is no number from 0 to 4294967295", text)
		}
		c.numbers = append(c.numbers, int64(n))
	case boolKey:
		if text != "true" && text != "false" {
			return fmt.Sprintf("%.100q is neither true nor false", text)
		}
		n := int64(0)
		if text == "true" {
			n = 1
		}
		c.numbers = append(c.numbers, n)
	case dateKey:
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t, err = time.Parse("2006-01-02T15:04Z07:00", text)
		}
		if err != nil || t.Nanosecond() != 0 {
			return fmt.Sprintf("%.100q is no time; write it by the second and with its zone, such as 2026-01-31T18:00:00Z or 2026-01-31T18:00:00+08:00", text)
		}
		c.numbers = append(c.numbers, t.Unix())
	case ipKey:
		n, why := parseNetwork(text)
		if why != "" {
			return why
		}
		c.networks = append(c.networks, n)
	}
	c.texts = append(c.texts, text)
	return ""
}

// parseNetwork reads an address or a network. IPv4 in IPv6's form becomes IPv4, as does the request's address.
func parseNetwork(text string) (netip.Prefix, string) {
	n, err := netip.ParsePrefix(text)
	if addr, err2 := netip.ParseAddr(text); err2 == nil && addr.Zone() == "" {
		n, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if err != nil {
		return n, fmt.Sprintf("%.100q is no address or network; write it such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32", text)
	}
	if n.Addr().Is4In6() {
		const mapped = 96 // bits before the IPv4 address
		if n.Bits() < mapped {
			return n, fmt.Sprintf("%.100q has IPv4 addresses and others; write the IPv4 network by itself, such as 0.0.0.0/0", text)
		}
		n = netip.PrefixFrom(n.Addr().Unmap(), n.Bits()-mapped)
	}
	return n.Masked(), ""
}
