package policy

import (
	"encoding/json"
	"fmt"
	"slices"
)

// The limits of a document.
const (
	// MaxSize is the longest text of a document, in octets. It bounds the number of everything in it too.
	MaxSize = 32768
	maxSid  = 128 // characters
	// maxStars is how many * the StringLike values and the Resources of a document may have together. It bounds the time
	// that one evaluation can take.
	maxStars = 256
)

const version = "1" // of the policy language; the only one

// Effect is what a document says to a request.
type Effect uint8

// The effects.
const (
	NoMatch Effect = iota // no statement fits
	Allow
	Deny // wins over Allow
)

// String gives the word that documents use; NoMatch has none there.
func (e Effect) String() string { return [...]string{"NoMatch", "Allow", "Deny"}[e] }

// Document is a compiled policy. It is immutable. The zero Document has no statements: it says nothing to any request,
// and stands for the key policy where there can't be one (aliases and containers).
type Document struct {
	statements []statement
}

type statement struct {
	sid        string
	effect     Effect
	principals []principalPattern // of a key policy; an identity policy has none and is its holder's
	ofIdentity bool
	actions    []actionPattern
	resources  []resourcePattern // of an identity policy; the Resource of a key policy is that key
	conditions []condition
}

// Error says why a text is no policy document. kms answers it as an invalid parameter.
type Error struct {
	Path   string // what is wrong, such as Statement[1].Principal.RAM[0]; empty for the document as a whole
	Reason string // why, and what would be right
}

func (e *Error) Error() string {
	if e.Path == "" {
		return "policy: " + e.Reason
	}
	return "policy: " + e.Path + ": " + e.Reason
}

func wrong(path, format string, args ...any) *Error {
	return &Error{path, fmt.Sprintf(format, args...)}
}

// KeyOwner says who a key belongs to.
type KeyOwner struct {
	Account string // the account that made the key: 16 digits
	// CoOwners are the other accounts that own the keys of a shared instance. For its policies they are like the owner,
	// but that the protection against locking oneself out is for the owner's root only.
	CoOwners []string
}

func (o *KeyOwner) has(account string) bool {
	return account == o.Account || slices.Contains(o.CoOwners, account)
}

func (o *KeyOwner) accounts() []string { return append([]string{o.Account}, o.CoOwners...) }

// OtherAccounts gives the accounts, sorted, that an Allow statement of a key policy names and that are not of owner:
// what the access management quota counts.
func (d *Document) OtherAccounts(owner KeyOwner) []string {
	var others []string
	for i := range d.statements {
		if d.statements[i].effect != Allow {
			continue
		}
		for _, p := range d.statements[i].principals {
			if !owner.has(p.account) {
				others = append(others, p.account)
			}
		}
	}
	slices.Sort(others)
	return slices.Compact(others)
}

// The document as JSON. The order of the fields is that of the documented samples.
type (
	documentJSON struct {
		Version   string
		Statement []statementJSON
	}
	statementJSON struct {
		Sid       string `json:",omitempty"`
		Effect    string
		Principal *principalJSON `json:",omitempty"`
		Action    []string
		Resource  []string
		Condition map[string]map[string][]string `json:",omitempty"`
	}
	principalJSON struct{ RAM []string }
)

// MarshalJSON gives the document in one form: arrays everywhere, values as text. What was read from it decides as d
// does, but it can be longer than the text that d was read from, and so longer than MaxSize.
func (d *Document) MarshalJSON() ([]byte, error) {
	doc := documentJSON{version, make([]statementJSON, len(d.statements))}
	for i := range d.statements {
		st := &d.statements[i]
		out := statementJSON{Sid: st.sid, Effect: st.effect.String()}
		if !st.ofIdentity {
			out.Principal = &principalJSON{}
			for _, p := range st.principals {
				out.Principal.RAM = append(out.Principal.RAM, p.String())
			}
		}
		for _, a := range st.actions {
			out.Action = append(out.Action, a.text)
		}
		if !st.ofIdentity {
			out.Resource = []string{"*"}
		}
		for _, r := range st.resources {
			out.Resource = append(out.Resource, r.text)
		}
		for _, c := range st.conditions {
			if out.Condition == nil {
				out.Condition = map[string]map[string][]string{}
			}
			if out.Condition[c.op.name] == nil {
				out.Condition[c.op.name] = map[string][]string{}
			}
			out.Condition[c.op.name][c.keyName()] = c.texts
		}
		doc.Statement[i] = out
	}
	return json.Marshal(doc)
}
