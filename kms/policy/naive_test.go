package policy

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// question is a request in plain texts, for the naive evaluator; request makes the real one of it. A condition key that
// is not in context is absent.
type question struct {
	principal, action, resource string
	context                     map[string]string
}

type tagMap map[string]string

func (m tagMap) Tag(key string) (string, bool) {
	v, ok := m[key]
	return v, ok
}

func (q question) request(t testing.TB) *Request {
	t.Helper()
	p, err := ParsePrincipal(q.principal)
	if err != nil {
		t.Fatal(err)
	}
	r := &Request{Principal: p, Action: MustAction(q.action)}
	parts := strings.Split(q.resource, ":")
	kind, id, _ := strings.Cut(parts[4], "/")
	r.Resource = Resource{Region: parts[2], Account: parts[3], ID: id}
	for k := Key; k <= Keystore; k++ {
		if k.String() == kind {
			r.Resource.Kind = k
		}
	}
	if r.Resource.String() != q.resource || p.String() != q.principal {
		t.Fatalf("%s and %s became %s and %s", q.resource, q.principal, &r.Resource, p)
	}
	tags := tagMap{}
	for key, v := range q.context {
		switch key {
		case "acs:SourceIp":
			r.Context.SourceIP = netip.MustParseAddr(v)
		case "acs:SourceVpc":
			r.Context.SourceVPC = v
		case "acs:CurrentTime":
			if r.Context.Time, err = time.Parse(time.RFC3339, v); err != nil {
				t.Fatal(err)
			}
		case "acs:SecureTransport":
			r.Context.SecureTransport = v == "true"
		case "kms:EncryptionAlgorithm":
			r.Context.EncryptionAlgorithm = v
		case "keyward:Unit":
			r.Context.Unit = v
		case "keyward:Executable":
			r.Context.Executable = v
		case "keyward:Door":
			r.Context.Door = v
		case "keyward:Uid":
			n, err := strconv.ParseUint(v, 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			r.Context.UID, r.Context.HasUID = uint32(n), true
		default:
			tag, ok := strings.CutPrefix(key, "kms:tag/")
			if !ok {
				t.Fatalf("context has %q", key)
			}
			tags[tag] = v
			r.Context.Tags = tags
		}
	}
	return r
}

// naive evaluates the text of a document that is known to be a good one, as simply as can be: parsed anew each time, by
// regular expressions, without any code of the package.
func naive(t testing.TB, text []byte, q question) Effect {
	t.Helper()
	var doc struct {
		Statement []struct {
			Effect           string
			Principal        map[string]any
			Action, Resource any
			Condition        map[string]map[string]any
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	effect := NoMatch
	for _, st := range doc.Statement {
		match := slices.ContainsFunc(naiveList(st.Action), func(a string) bool { return naiveGlob(strings.ToLower(a), strings.ToLower(q.action), ".") })
		if st.Principal != nil {
			match = match && slices.ContainsFunc(naiveList(st.Principal["RAM"]), func(p string) bool { return naiveGlob(p, q.principal, ".") })
		} else {
			match = match && slices.ContainsFunc(naiveList(st.Resource), func(r string) bool { return r == "*" || naiveGlob(r, q.resource, "[^:]") })
		}
		for op, keys := range st.Condition {
			for key, values := range keys {
				match = match && naiveCondition(t, op, key, naiveList(values), q.context)
			}
		}
		if match && st.Effect == "Deny" {
			return Deny
		}
		if match {
			effect = Allow
		}
	}
	return effect
}

func naiveList(v any) []string {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	var out []string
	for _, e := range list {
		if f, ok := e.(float64); ok {
			e = strconv.FormatFloat(f, 'f', -1, 64)
		}
		out = append(out, fmt.Sprint(e))
	}
	return out
}

// naiveGlob has * for any number of what the class matches; in conditions ? is one character.
func naiveGlob(pattern, text, class string) bool {
	re := strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, class+"*")
	return regexp.MustCompile(`(?s)\A` + re + `\z`).MatchString(text)
}

func naiveLike(pattern, text string) bool {
	re := strings.ReplaceAll(strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*"), `\?`, ".")
	return regexp.MustCompile(`(?s)\A` + re + `\z`).MatchString(text)
}

func naiveCondition(t testing.TB, op, key string, values []string, context map[string]string) bool {
	t.Helper()
	negated := strings.Contains(op, "Not")
	have, present := context[key]
	if key == "acs:SecureTransport" && !present {
		have, present = "false", true
	}
	if !present {
		return negated
	}
	fits := slices.ContainsFunc(values, func(want string) bool {
		switch plain := strings.Replace(op, "Not", "", 1); plain {
		case "StringEquals", "Bool":
			return have == want
		case "StringEqualsIgnoreCase":
			return strings.EqualFold(have, want)
		case "StringLike":
			return naiveLike(want, have)
		case "IpAddress":
			ip := net.ParseIP(have)
			if _, n, err := net.ParseCIDR(want); err == nil {
				return n.Contains(ip)
			}
			return net.ParseIP(want).Equal(ip)
		default:
			var a, b int64
			if rest, ok := strings.CutPrefix(plain, "Date"); ok {
				plain = rest
				x, err := time.Parse(time.RFC3339, have)
				y, err2 := time.Parse(time.RFC3339, want)
				if err != nil {
					t.Fatal(err)
				}
				if err2 != nil {
					if y, err2 = time.Parse("2006-01-02T15:04Z07:00", want); err2 != nil {
						t.Fatal(err2)
					}
				}
				a, b = x.Unix(), y.Unix()
			} else {
				plain = strings.TrimPrefix(plain, "Numeric")
				a, _ = strconv.ParseInt(have, 10, 64)
				b, _ = strconv.ParseInt(want, 10, 64)
			}
			switch plain {
			case "Equals":
				return a == b
			case "LessThan":
				return a < b
			case "LessThanEquals":
				return a <= b
			case "GreaterThan":
				return a > b
			case "GreaterThanEquals":
				return a >= b
			}
			t.Fatalf("operator %s", op)
			return false
		}
	})
	return fits != negated
}
