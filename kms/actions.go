package kms

import "github.com/keyward/keyward/kms/kmswire"

// action is what the service needs to know of an API action before it looks at the parameters.
type action struct {
	name string
	kind actionKind
	// states says what each state of the key does to the action (reference section 5.2). Unused when there is no key.
	states stateRow
}

type actionKind uint8

const (
	kindRead      actionKind = iota // reads metadata
	kindCrypto                      // uses key material
	kindManage                      // changes something: audited before and after
	kindContainer                   // is about no key yet: only an account's root may
)

// stateRow gives, by state, the code of the refusal, or pass.
type stateRow struct {
	enabled, disabled, pendingDeletion, pendingImport Code
}

// pass is "this state does not stand in the way". It is no Code.
const pass = numCodes

func (r stateRow) check(state kmswire.KeyState) Code {
	switch state {
	case kmswire.Enabled:
		return r.enabled
	case kmswire.Disabled:
		return r.disabled
	case kmswire.PendingDeletion:
		return r.pendingDeletion
	case kmswire.PendingImport:
		return r.pendingImport
	}
	return KeyUnavailable // a state of a newer version of the store: closed
}

var (
	anyState   = stateRow{pass, pass, pass, pass}
	useOfKey   = stateRow{pass, KeyDisabled, KeyPendingDeletion, KeyPendingImport}
	changeName = stateRow{pass, pass, KeyPendingDeletion, pass}
	onOff      = stateRow{pass, pass, StateNotAllowed, StateNotAllowed}
	newAlias   = stateRow{pass, pass, StateNotAllowed, pass}
)

// The actions. Every method of Service has its row; a test says so. The permission of an action is "kms:" and its name,
// with the two exceptions reEncryptFrom and reEncryptTo. Batch forms need the permission of the single action.
var (
	actCreateKey            = row("CreateKey", kindContainer, anyState)
	actDescribeKey          = row("DescribeKey", kindRead, anyState)
	actListKeys             = row("ListKeys", kindRead, anyState)
	actUpdateKeyDescription = row("UpdateKeyDescription", kindManage, changeName)
	actEnableKey            = row("EnableKey", kindManage, onOff)
	actDisableKey           = row("DisableKey", kindManage, onOff)
	actListResourceTags     = row("ListResourceTags", kindRead, anyState)

	actCreateKeyVersion   = row("CreateKeyVersion", kindManage, useOfKey)
	actDescribeKeyVersion = row("DescribeKeyVersion", kindRead, anyState)
	actListKeyVersions    = row("ListKeyVersions", kindRead, anyState)

	actCreateAlias        = row("CreateAlias", kindManage, newAlias)
	actUpdateAlias        = row("UpdateAlias", kindManage, changeName)
	actDeleteAlias        = row("DeleteAlias", kindManage, anyState)
	actListAliases        = row("ListAliases", kindRead, anyState)
	actListAliasesByKeyID = row("ListAliasesByKeyId", kindRead, anyState)

	actEncrypt                         = row("Encrypt", kindCrypto, useOfKey)
	actDecrypt                         = row("Decrypt", kindCrypto, useOfKey)
	actReEncrypt                       = row("ReEncrypt", kindCrypto, useOfKey)
	actReEncryptFrom                   = row("ReEncryptFrom", kindCrypto, useOfKey)
	actReEncryptTo                     = row("ReEncryptTo", kindCrypto, useOfKey)
	actGenerateDataKey                 = row("GenerateDataKey", kindCrypto, useOfKey)
	actGenerateDataKeyWithoutPlaintext = row("GenerateDataKeyWithoutPlaintext", kindCrypto, useOfKey)
	actGenerateAndExportDataKey        = row("GenerateAndExportDataKey", kindCrypto, useOfKey)
	actExportDataKey                   = row("ExportDataKey", kindCrypto, useOfKey)

	actAsymmetricEncrypt = row("AsymmetricEncrypt", kindCrypto, useOfKey)
	actAsymmetricDecrypt = row("AsymmetricDecrypt", kindCrypto, useOfKey)
	actAsymmetricSign    = row("AsymmetricSign", kindCrypto, useOfKey)
	actAsymmetricVerify  = row("AsymmetricVerify", kindCrypto, useOfKey)
	actGetPublicKey      = row("GetPublicKey", kindCrypto, useOfKey)

	actGetRandomPassword = row("GetRandomPassword", kindRead, anyState)
	actListKmsInstances  = row("ListKmsInstances", kindRead, anyState)
	actDescribeRegions   = row("DescribeRegions", kindRead, anyState)
)

// actions collects the rows, for tests.
var actions = map[string]*action{}

func row(name string, kind actionKind, states stateRow) *action {
	a := &action{name, kind, states}
	if actions == nil {
		actions = map[string]*action{}
	}
	actions[name] = a
	return a
}
