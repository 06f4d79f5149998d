package policy

import (
	"encoding/json"
	"fmt"
)

// Roles says who gets which role of a key. All are ARNs as in a document's Principal.
type Roles struct {
	Administrators    []string // of the owner's or a co-owner's account
	Users             []string // of the owner's or a co-owner's account; they can't sign
	Signers           []string // of the owner's or a co-owner's account; they sign and verify
	OtherAccountUsers []string // of any other account, which must allow them as well
	// Exclusive has the first statement name the root of each owning account instead of all its principals, so that,
	// besides identity policies, only who has a role may do anything with the key.
	Exclusive bool
}

// The Sids of the statements that Build makes. They do not change.
const (
	sidDefault        = "kms default key policy"
	sidExclusive      = "kms account root"
	sidAdministrators = "kms key administrators"
	sidUsers          = "kms key users"
	sidSigners        = "kms key signers"
	sidOtherUsers     = "kms key users of other accounts"
)

// Default gives the policy of a key that has none of its own: all principals of the owner's and the co-owners' accounts
// may do everything.
func Default(owner KeyOwner) []byte {
	text, err := json.Marshal(documentJSON{version, []statementJSON{firstStatement(owner, false)}})
	if err != nil {
		panic(err) // strings only: can't be
	}
	return text
}

// defaultDocument is Default, compiled.
func defaultDocument(owner KeyOwner) *Document {
	st := statement{sid: sidDefault, effect: Allow, actions: mustPatterns([]string{"kms:*"})}
	for _, a := range owner.accounts() {
		st.principals = append(st.principals, ofAccount(anyOfAccount, a))
	}
	return &Document{[]statement{st}}
}

func firstStatement(owner KeyOwner, exclusive bool) statementJSON {
	sid, kind := sidDefault, anyOfAccount
	if exclusive {
		sid, kind = sidExclusive, rootOfAccount
	}
	st := allowStatement(sid, nil, []string{"kms:*"})
	for _, a := range owner.accounts() {
		st.Principal.RAM = append(st.Principal.RAM, ofAccount(kind, a).String())
	}
	return st
}

func allowStatement(sid string, principals, actions []string) statementJSON {
	return statementJSON{Sid: sid, Effect: Allow.String(), Principal: &principalJSON{principals}, Action: actions, Resource: []string{"*"}}
}

// Build makes the text of a key policy: the default statement, then one for each role that somebody has. Errors are
// *Error with the role and the place in it as Path, or for the whole if the text would be longer than MaxSize.
func Build(owner KeyOwner, roles Roles) ([]byte, error) {
	doc := documentJSON{version, []statementJSON{firstStatement(owner, roles.Exclusive)}}
	for _, role := range []struct {
		name, sid  string
		principals []string
		actions    []string
		others     bool
	}{
		{"Administrators", sidAdministrators, roles.Administrators, administratorActions, false},
		{"Users", sidUsers, roles.Users, userActions, false},
		{"Signers", sidSigners, roles.Signers, signerActions, false},
		{"OtherAccountUsers", sidOtherUsers, roles.OtherAccountUsers, userActions, true},
	} {
		for i, arn := range role.principals {
			path := fmt.Sprintf("%s[%d]", role.name, i)
			p, why := parsePrincipal(arn)
			switch {
			case why != "":
				return nil, wrong(path, "%s", why)
			case role.others && owner.has(p.account):
				return nil, wrong(path, "%s is of an account that owns the key; make it one of Users", arn)
			case !role.others && !owner.has(p.account):
				return nil, wrong(path, "%s is of another account; make it one of OtherAccountUsers, who may use the key but not manage it", arn)
			}
		}
		if len(role.principals) > 0 {
			doc.Statement = append(doc.Statement, allowStatement(role.sid, role.principals, role.actions))
		}
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, wrong("", "%v", err)
	}
	if _, err := ParseKey(text, owner); err != nil {
		return nil, err
	}
	return text, nil
}
