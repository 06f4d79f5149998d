package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ParseKey reads the key policy that somebody wants a key of owner to have. Errors are *Error.
//
// Statements that allow something to a principal of another account may name actions that use a key and no others: see
// Decide.
func ParseKey(text []byte, owner KeyOwner) (*Document, error) {
	for i, a := range owner.accounts() {
		if !isAccount(a) {
			return nil, wrong("", "the key's owner %d is account %.100q, which has not %d digits", i, a, accountSize)
		}
	}
	d, err := parse(text, false)
	if err != nil {
		return nil, err
	}
	for i := range d.statements {
		if err := d.statements[i].checkOthers(i, &owner); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// LoadKey reads a key policy that ParseKey has accepted before. Who owns the key may have changed since; Decide keeps
// what was allowed to a former co-owner within bounds. Errors are *Error.
func LoadKey(text []byte) (*Document, error) { return parse(text, false) }

// ParseIdentity reads a policy of a user, role or group: without Principal, and with ARNs as Resource. Errors are *Error.
func ParseIdentity(text []byte) (*Document, error) { return parse(text, true) }

// checkOthers holds an Allow statement to what other accounts may be given.
func (st *statement) checkOthers(i int, owner *KeyOwner) error {
	if st.effect != Allow {
		return nil
	}
	for _, p := range st.principals {
		if owner.has(p.account) {
			continue
		}
		for j := range st.actions {
			if why := st.actions[j].foreign(); why != "" {
				return wrong(fmt.Sprintf("Statement[%d].Action[%d]", i, j), "%s, but the statement allows it to %s of another account, whose principals can be users of the key only; "+
					"give it a statement of its own with actions of users, such as %s, by their names", why, p, strings.Join(userActions[:4], ", "))
			}
		}
	}
	return nil
}

// parser reads a document token by token, against the one form that it can have: it never goes deeper than that form,
// and ends at the first thing that does not belong there.
type parser struct {
	dec      *json.Decoder
	identity bool
	stars    int // so far, see maxStars
}

func parse(text []byte, identity bool) (*Document, error) {
	if len(text) > MaxSize {
		return nil, wrong("", "it has %d octets, and may have %d", len(text), MaxSize)
	}
	if !utf8.Valid(text) {
		return nil, wrong("", "it is not UTF-8")
	}
	// The whole is checked first, so that below only the form can be wrong.
	var raw json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, wrong("", "it is not JSON: %v, at octet %d", err, syntax.Offset)
		}
		return nil, wrong("", "it is not JSON: %v", err)
	}
	p := parser{dec: json.NewDecoder(bytes.NewReader(text)), identity: identity}
	p.dec.UseNumber()
	return p.document()
}

func (p *parser) document() (*Document, error) {
	d := &Document{}
	err := p.object("", "Version and Statement", func(name, path string) error {
		switch name {
		case "Version":
			v, err := p.text(path)
			if err == nil && v != version {
				err = wrong(path, "%.100q is no version; it is always \"1\"", v)
			}
			return err
		case "Statement":
			return p.array(path, func(path string) error {
				st, err := p.statement(path)
				d.statements = append(d.statements, st)
				return err
			})
		}
		return unknown(path, name, "Version", "Statement")
	}, "Version", "Statement")
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (p *parser) statement(path string) (statement, error) {
	st := statement{ofIdentity: p.identity}
	required := []string{"Effect", "Principal", "Action", "Resource"}
	if p.identity {
		required = []string{"Effect", "Action", "Resource"}
	}
	anyService := "" // where there is an Action *
	err := p.object(path, "a statement", func(name, path string) error {
		switch name {
		case "Sid":
			var err error
			if st.sid, err = p.text(path); err != nil {
				return err
			}
			return checkSid(path, st.sid)
		case "Effect":
			v, err := p.text(path)
			switch {
			case err != nil:
				return err
			case v == "Allow":
				st.effect = Allow
			case v == "Deny":
				st.effect = Deny
			default:
				return wrong(path, "%.100q is no effect; write Allow or Deny", v)
			}
			return nil
		case "Principal":
			if p.identity {
				return wrong(path, "an identity policy has no Principal: it is for who holds it. Leave it out")
			}
			return p.object(path, `{"RAM": [...]}`, func(name, path string) error {
				if name != "RAM" {
					return unknown(path, name, "RAM")
				}
				return p.texts(path, false, func(path, v string) error {
					pr, why := parsePrincipal(v)
					st.principals = append(st.principals, pr)
					return because(path, why)
				})
			}, "RAM")
		case "Action":
			return p.texts(path, false, func(path, v string) error {
				if v == "*" && p.identity {
					anyService = path
					st.actions = append(st.actions, actionPattern{text: v, wild: true})
					return nil
				}
				a, why := parseAction(v)
				st.actions = append(st.actions, a)
				return because(path, why)
			})
		case "Resource":
			return p.texts(path, false, func(path, v string) error {
				if !p.identity {
					if v != "*" {
						return wrong(path, "%.100q is not possible in a key policy: the only resource is the key itself, which is written *", v)
					}
					return nil
				}
				r, why := parseResource(v)
				st.resources = append(st.resources, r)
				if why == "" {
					why = p.count(r.region.stars() + r.id.stars())
				}
				return because(path, why)
			})
		case "Condition":
			return p.conditions(path, &st)
		}
		switch name {
		case "NotAction", "NotResource", "NotPrincipal":
			return wrong(path, "there is no %s here; list what is meant in %s, in a statement with Effect Deny if it shall not be", name, strings.TrimPrefix(name, "Not"))
		}
		return unknown(path, name, "Sid", "Effect", "Principal", "Action", "Resource", "Condition")
	}, required...)
	if err != nil {
		return st, err
	}
	if anyService != "" {
		for i := range st.conditions {
			if st.conditions[i].key.name == "acs:SourceVpc" {
				return st, wrong(anyService, "with a condition on acs:SourceVpc, all actions must begin with kms:; write kms:*")
			}
		}
	}
	return st, nil
}

func (p *parser) conditions(path string, st *statement) error {
	return p.object(path, "a condition, such as {\"IpAddress\": {\"acs:SourceIp\": [\"192.0.2.0/24\"]}}", func(op, path string) error {
		if findOperator(op) == nil {
			for i := range operators {
				if strings.EqualFold(operators[i].name, op) {
					return wrong(path, "%.100q is no operator; %s is, in this spelling", op, operators[i].name)
				}
			}
			var names []string
			for i := range operators {
				names = append(names, operators[i].name)
			}
			return wrong(path, "%.100q is no operator; there are %s", op, strings.Join(names, ", "))
		}
		return p.object(path, "an object with condition keys", func(key, path string) error {
			c, why := newCondition(op, key)
			if why != "" {
				return wrong(path, "%s", why)
			}
			err := p.texts(path, c.key.typ == numericKey || c.key.typ == boolKey, func(path, v string) error {
				why := c.add(v)
				if n := len(c.patterns); why == "" && n > 0 {
					why = p.count(c.patterns[n-1].stars())
				}
				return because(path, why)
			})
			st.conditions = append(st.conditions, c)
			return err
		})
	})
}

func (p *parser) count(stars int) string {
	if p.stars += stars; p.stars > maxStars {
		return fmt.Sprintf("the document has more than %d * in its resources and StringLike values; use fewer patterns", maxStars)
	}
	return ""
}

func checkSid(path, sid string) error {
	if n := utf8.RuneCountInString(sid); n > maxSid {
		return wrong(path, "it has %d characters, and may have %d", n, maxSid)
	}
	for _, c := range sid {
		if !isLetterOrDigit(c) && !strings.ContainsRune("_/+=.@- ", c) {
			return wrong(path, "%.100q is not possible in a Sid; it has letters, digits, spaces and _ / + = . @ -", c)
		}
	}
	return nil
}

func because(path, why string) error {
	if why == "" {
		return nil
	}
	return wrong(path, "%s", why)
}

// unknown is the error for an element that is not among known.
func unknown(path, name string, known ...string) error {
	for _, k := range known {
		if strings.EqualFold(k, name) {
			return wrong(path, "there is no %.100q; %s is, in this spelling", name, k)
		}
	}
	return wrong(path, "there is no %.100q; there is %s", name, strings.Join(known, ", "))
}

// object reads an object and calls member for each of its members, whose value member must read. None may be there
// twice: which of two counts is what readers of JSON disagree about. It must have the required ones, or at least one.
func (p *parser) object(path, what string, member func(name, path string) error, required ...string) error {
	t, err := p.token(path)
	if err != nil {
		return err
	}
	if t != json.Delim('{') {
		return wrong(path, "it is %s; it must be an object: %s", kindOf(t), what)
	}
	seen := map[string]bool{}
	for p.dec.More() {
		t, err := p.token(path)
		if err != nil {
			return err
		}
		name, _ := t.(string) // JSON has no other names
		at := memberPath(path, name)
		if seen[name] {
			return wrong(at, "it is there twice")
		}
		seen[name] = true
		if err := member(name, at); err != nil {
			return err
		}
	}
	if _, err := p.token(path); err != nil { // }
		return err
	}
	for _, r := range required {
		if !seen[r] {
			return wrong(memberPath(path, r), "it is missing")
		}
	}
	if len(seen) == 0 {
		return wrong(path, "it is empty; it must be %s, or be left out", what)
	}
	return nil
}

// memberPath quotes names that are not plain, so that a path is always one line and can't be mistaken.
func memberPath(path, name string) string {
	if len(name) > 100 {
		name = strings.ToValidUTF8(name[:100], "") + "..."
	}
	if name == "" || strings.ContainsFunc(name, func(c rune) bool { return !isLetterOrDigit(c) && !strings.ContainsRune("_:/-", c) }) {
		name = strconv.Quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

// array reads an array of at least one element, each by element.
func (p *parser) array(path string, element func(path string) error) error {
	t, err := p.token(path)
	if err != nil {
		return err
	}
	if t != json.Delim('[') {
		return wrong(path, "it is %s; it must be an array", kindOf(t))
	}
	return p.elements(path, element)
}

// elements reads the rest of an array.
func (p *parser) elements(path string, element func(path string) error) error {
	n := 0
	for ; p.dec.More(); n++ {
		if err := element(path + "[" + strconv.Itoa(n) + "]"); err != nil {
			return err
		}
	}
	if n == 0 {
		return wrong(path, "it is empty; it must have at least one element")
	}
	_, err := p.token(path) // ]
	return err
}

// texts reads a string, or an array of at least one. With literals, numbers, true and false will do for strings.
func (p *parser) texts(path string, literals bool, each func(path, v string) error) error {
	t, err := p.token(path)
	if err != nil {
		return err
	}
	if t == json.Delim('[') {
		return p.elements(path, func(path string) error {
			t, err := p.token(path)
			if err != nil {
				return err
			}
			return textOf(path, t, literals, each)
		})
	}
	return textOf(path, t, literals, each)
}

func (p *parser) text(path string) (text string, err error) {
	t, err := p.token(path)
	if err != nil {
		return "", err
	}
	err = textOf(path, t, false, func(_, v string) error {
		text = v
		return nil
	})
	return text, err
}

func textOf(path string, t json.Token, literals bool, use func(path, v string) error) error {
	switch t := t.(type) {
	case string:
		return use(path, t)
	case json.Number:
		if literals {
			return use(path, t.String())
		}
	case bool:
		if literals {
			return use(path, strconv.FormatBool(t))
		}
	}
	return wrong(path, "it is %s; it must be text", kindOf(t))
}

func (p *parser) token(path string) (json.Token, error) {
	t, err := p.dec.Token()
	if err != nil {
		return nil, wrong(path, "it can't be read: %v", err)
	}
	return t, nil
}

func kindOf(t json.Token) string {
	switch t.(type) {
	case nil:
		return "null"
	case bool:
		return "true or false"
	case json.Number:
		return "a number"
	case string:
		return "text"
	}
	if t == json.Delim('[') {
		return "an array"
	}
	return "an object"
}
