package policy

import (
	"fmt"
	"slices"
	"strings"
)

const actionPrefix = "kms:"

// Action is a permission that a request needs. It is kms:<name of the API action>, but kms:ReEncryptFrom for the source
// key and kms:ReEncryptTo for the destination key of a ReEncrypt; CreateAlias, UpdateAlias and DeleteAlias need theirs
// for the alias and for the key. The zero Action is allowed to nobody.
type Action struct {
	name     string
	folded   string // in lower case, without kms:
	first    byte   // of folded
	use      bool   // can be given to another account
	unlocked bool   // can't be denied to the owner's root
}

// ParseAction reads kms:<name>.
func ParseAction(name string) (Action, error) {
	a, why := parseAction(name)
	if why == "" && a.wild {
		why = fmt.Sprintf("%.100q stands for many; one permission is such as kms:Encrypt", name)
	}
	if why != "" {
		return Action{}, wrong("Action", "%s", why)
	}
	return Action{name: name, folded: a.folded, first: a.first, use: a.foreign() == "", unlocked: slices.Contains(foldedUnlocked, a.folded)}, nil
}

// MustAction is ParseAction for names that are written in the program; it panics if name is none.
func MustAction(name string) Action {
	a, err := ParseAction(name)
	if err != nil {
		panic(err)
	}
	return a
}

// String gives the name as it was parsed.
func (a Action) String() string { return a.name }

// actionPattern is a value of a document's Action.
type actionPattern struct {
	text   string
	folded string // in lower case, without kms: and the *
	first  byte   // of folded, 0 if that is empty: most patterns are passed over by it
	wild   bool
}

func (p *actionPattern) matches(a *Action) bool {
	if p.first != 0 && p.first != a.first {
		return false
	}
	if p.wild {
		return strings.HasPrefix(a.folded, p.folded)
	}
	return a.folded == p.folded
}

// parseAction reads kms:<letters>, kms:<letters>* or kms:*, or says what is wrong with it.
func parseAction(text string) (actionPattern, string) {
	if len(text) < len(actionPrefix) || !strings.EqualFold(text[:len(actionPrefix)], actionPrefix) {
		return actionPattern{}, fmt.Sprintf("%.100q does not begin with kms:; write an action such as kms:Encrypt, kms:List* or kms:*", text)
	}
	name, wild := strings.CutSuffix(text[len(actionPrefix):], "*")
	if strings.ContainsFunc(name, func(c rune) bool { return !isLetter(c) }) {
		return actionPattern{}, fmt.Sprintf("%.100q is no action: after kms: there are letters, and a * at the end at most", text)
	}
	if name == "" && !wild {
		return actionPattern{}, fmt.Sprintf("%.100q names no action; all actions are kms:*", text)
	}
	p := actionPattern{text: text, folded: strings.ToLower(name), wild: wild}
	if p.folded != "" {
		p.first = p.folded[0]
	}
	return p, ""
}

// The actions of the roles that the console offers.
var (
	administratorActions = []string{
		"kms:List*", "kms:Describe*", "kms:Create*", "kms:Enable*", "kms:Disable*", "kms:Get*", "kms:Set*", "kms:Update*",
		"kms:Delete*", "kms:Cancel*", "kms:TagResource", "kms:UntagResource", "kms:ImportKeyMaterial", "kms:ScheduleKeyDeletion",
	}
	// userActions are those of users, of the key's own and of other accounts alike. They can't sign.
	userActions = []string{
		"kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:GenerateAndExportDataKey", "kms:AsymmetricEncrypt",
		"kms:AsymmetricDecrypt", "kms:DescribeKey", "kms:DescribeKeyVersion", "kms:ListKeyVersions", "kms:ListAliasesByKeyId",
		"kms:TagResource",
	}
	signerActions = []string{
		"kms:AsymmetricSign", "kms:AsymmetricVerify", "kms:GetPublicKey", "kms:DescribeKey", "kms:DescribeKeyVersion",
		"kms:ListKeyVersions", "kms:ListAliasesByKeyId",
	}
	// cryptoActions use a key without being in a role.
	cryptoActions = []string{
		"kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKeyWithoutPlaintext", "kms:ExportDataKey", "kms:GenerateMac",
		"kms:VerifyMac",
	}
	// unlockedActions are what the owner's root needs to see a key's policy and to replace it. A document that could deny
	// them would make a key that nobody can use, repair or delete any more.
	unlockedActions = []string{"kms:GetKeyPolicy", "kms:SetKeyPolicy", "kms:DescribeKey"}

	foldedAdministrator = mustPatterns(administratorActions)
	foldedUse           = foldAll(userActions, signerActions, cryptoActions)
	foldedUnlocked      = foldAll(unlockedActions)
)

// foreign says why the pattern can't be given to another account, which may use a key but not manage it; "" if it can.
// What is not known to be a use is refused, and so is a wildcard that touches any right of administrators: a later
// version may know more actions.
func (p *actionPattern) foreign() string {
	uses := slices.ContainsFunc(foldedUse, func(use string) bool {
		return use == p.folded || p.wild && strings.HasPrefix(use, p.folded)
	})
	if !p.wild && uses {
		return ""
	}
	for _, a := range foldedAdministrator {
		switch {
		case !p.wild && !a.wild && p.folded == a.folded, !p.wild && a.wild && strings.HasPrefix(p.folded, a.folded):
			return fmt.Sprintf("%.100s is for administrators", p.text)
		case p.wild && (strings.HasPrefix(a.folded, p.folded) || a.wild && strings.HasPrefix(p.folded, a.folded)):
			return fmt.Sprintf("%.100s covers actions that are for administrators (%s)", p.text, a.text)
		}
	}
	if !uses {
		return fmt.Sprintf("%.100s is no action that uses a key", p.text)
	}
	return ""
}

func mustPatterns(actions []string) []actionPattern {
	out := make([]actionPattern, len(actions))
	for i, a := range actions {
		p, why := parseAction(a)
		if why != "" {
			panic(why)
		}
		out[i] = p
	}
	return out
}

func foldAll(lists ...[]string) []string {
	var out []string
	for _, l := range lists {
		for _, a := range l {
			out = append(out, strings.ToLower(strings.TrimPrefix(a, actionPrefix)))
		}
	}
	return out
}
