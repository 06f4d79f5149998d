package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// presets are identity policies for usual wants. A preset is for all keys of all accounts, which is as far as the policies of
// these keys let it reach: of another account's key it gives nothing that the key policy does not give too.
var presets = []struct {
	name, what string
	actions    []string
	resources  []string
}{
	{"full", "everything", []string{"kms:*"}, []string{"*"}},
	{"read-only", "look at keys and their policies, and use none", readActions, []string{"*"}},
	{"crypto", "use keys: encrypt, decrypt, sign, verify, data keys", useActions(), []string{"*"}},
	{"pkcs11", "see and use keys through PKCS #11: sign, verify, encrypt, decrypt", tokenActions, []string{"*"}},
	{"token-objects", "keep certificates and data in tokens, beside keys", []string{"kms:CreateTokenObject", "kms:UpdateTokenObject", "kms:DeleteTokenObject"},
		[]string{"acs:kms:*:*:keystore/*"}},
	{"create-keys", "make keys, and name them as they are made", []string{"kms:CreateKey"}, []string{"acs:kms:*:*:key"}},
}

// tokenActions are all that the door for PKCS #11 asks for when a program finds a key and uses it.
var tokenActions = []string{
	"kms:DescribeKey", "kms:DescribeTokenObject", "kms:AsymmetricSign", "kms:AsymmetricVerify", "kms:AsymmetricEncrypt", "kms:AsymmetricDecrypt",
	"kms:Encrypt", "kms:Decrypt",
}

// readActions look and change nothing. kms:Get* would be too much: it covers kms:GetParametersForImport.
var readActions = []string{
	"kms:List*", "kms:Describe*", "kms:GetPublicKey", "kms:GetKeyPolicy", "kms:GetKmsInstance", "kms:GetKmsInstanceQuotaInfos",
	"kms:GetDefaultKmsInstance",
}

// useActions are those of users and signers, and the ones that use a key and are in no role, but for what changes the key.
func useActions() []string {
	all := slices.Concat(userActions, signerActions, cryptoActions)
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(a string) bool { return a == "kms:TagResource" })
}

// PresetNames lists the identity policies that Preset makes.
func PresetNames() []string {
	var names []string
	for _, p := range presets {
		names = append(names, p.name)
	}
	return names
}

// DescribePreset says in a few words what a preset allows, "" if there is none of that name.
func DescribePreset(name string) string {
	for _, p := range presets {
		if p.name == name {
			return p.what
		}
	}
	return ""
}

// Preset gives the text of a ready-made identity policy. It fails for a name that is not among PresetNames.
func Preset(name string) ([]byte, error) {
	for _, p := range presets {
		if p.name == name {
			return json.Marshal(documentJSON{version, []statementJSON{{
				Sid: "kms preset " + p.name, Effect: Allow.String(), Action: p.actions, Resource: p.resources,
			}}})
		}
	}
	return nil, fmt.Errorf("policy: there is no preset %.100q; there are %s", name, strings.Join(PresetNames(), ", "))
}
