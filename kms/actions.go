package kms

import (
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/policy"
)

// action is what the service needs to know of an API action before it looks at the parameters.
type action struct {
	name string
	perm policy.Action // the right that it needs
	kind actionKind
	// states says what each state of the key does to the action (reference section 5.2). Unused when there is no key.
	states stateRow
}

type actionKind uint8

const (
	kindRead      actionKind = iota // reads metadata
	kindCrypto                      // uses key material
	kindManage                      // changes something: audited before and after
	kindContainer                   // is about no key yet: for an account's root and whom an identity policy lets
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
	anyState            = stateRow{pass, pass, pass, pass}
	useOfKey            = stateRow{pass, KeyDisabled, KeyPendingDeletion, KeyPendingImport}
	editRecord          = stateRow{pass, pass, KeyPendingDeletion, pass}
	onOff               = stateRow{pass, pass, StateNotAllowed, StateNotAllowed}
	notPendingDeletion  = stateRow{pass, pass, StateNotAllowed, pass}
	onlyPendingDeletion = stateRow{StateNotAllowed, StateNotAllowed, pass, StateNotAllowed}
)

// The actions. Every method of Service has its row; a test says so. The permission of an action is "kms:" and its name,
// with the two exceptions reEncryptFrom and reEncryptTo. Batch forms need the permission of the single action.
var (
	actCreateKey            = row("CreateKey", kindContainer, anyState)
	actDescribeKey          = row("DescribeKey", kindRead, anyState)
	actListKeys             = row("ListKeys", kindRead, anyState)
	actUpdateKeyDescription = row("UpdateKeyDescription", kindManage, editRecord)
	actEnableKey            = row("EnableKey", kindManage, onOff)
	actDisableKey           = row("DisableKey", kindManage, onOff)

	actScheduleKeyDeletion   = row("ScheduleKeyDeletion", kindManage, notPendingDeletion)
	actCancelKeyDeletion     = row("CancelKeyDeletion", kindManage, onlyPendingDeletion)
	actSetDeletionProtection = row("SetDeletionProtection", kindManage, editRecord)
	actEnableDefaultKey      = row("EnableDefaultKey", kindContainer, anyState)

	actGetParametersForImport = row("GetParametersForImport", kindManage, anyState)
	actImportKeyMaterial      = row("ImportKeyMaterial", kindManage, notPendingDeletion)
	actDeleteKeyMaterial      = row("DeleteKeyMaterial", kindManage, anyState)

	actSetKeyPolicy = row("SetKeyPolicy", kindManage, editRecord)
	actGetKeyPolicy = row("GetKeyPolicy", kindRead, anyState)

	actTagResource      = row("TagResource", kindManage, editRecord)
	actUntagResource    = row("UntagResource", kindManage, editRecord)
	actListResourceTags = row("ListResourceTags", kindRead, anyState)
	actTagResources     = row("TagResources", kindManage, editRecord)
	actUntagResources   = row("UntagResources", kindManage, editRecord)
	actListTagResources = row("ListTagResources", kindRead, anyState)

	actCreateKeyVersion     = row("CreateKeyVersion", kindManage, useOfKey)
	actDescribeKeyVersion   = row("DescribeKeyVersion", kindRead, anyState)
	actListKeyVersions      = row("ListKeyVersions", kindRead, anyState)
	actUpdateRotationPolicy = row("UpdateRotationPolicy", kindManage, useOfKey)

	actCreateAlias        = row("CreateAlias", kindManage, notPendingDeletion)
	actUpdateAlias        = row("UpdateAlias", kindManage, editRecord)
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
	actGenerateCsr       = row("GenerateCsr", kindCrypto, useOfKey)

	actStartKeyAssociationCheck = row("StartKeyAssociationCheck", kindRead, anyState)
	actListKeyAssociations      = row("ListKeyAssociations", kindRead, anyState)

	// What clients keep in tokens. They are no actions of the API; the door for PKCS #11 has them.
	actSetTokenNames       = row("SetTokenNames", kindManage, editRecord)
	actDescribeTokenObject = row("DescribeTokenObject", kindRead, anyState)
	actCreateTokenObject   = row("CreateTokenObject", kindContainer, anyState)
	actUpdateTokenObject   = row("UpdateTokenObject", kindContainer, anyState)
	actDeleteTokenObject   = row("DeleteTokenObject", kindContainer, anyState)

	actGetRandomPassword = row("GetRandomPassword", kindRead, anyState)

	actListKmsInstances         = row("ListKmsInstances", kindRead, anyState)
	actGetKmsInstance           = row("GetKmsInstance", kindRead, anyState)
	actGetDefaultKmsInstance    = row("GetDefaultKmsInstance", kindRead, anyState)
	actGetKmsInstanceQuotaInfos = row("GetKmsInstanceQuotaInfos", kindRead, anyState)
	actDescribeRegions          = row("DescribeRegions", kindRead, anyState)
	actOpenKmsService           = row("OpenKmsService", kindContainer, anyState)
	actDescribeAccountKmsStatus = row("DescribeAccountKmsStatus", kindRead, anyState)
)

// actions collects the rows by name, for Simulate and for tests.
var actions = map[string]*action{}

func row(name string, kind actionKind, states stateRow) *action {
	a := &action{name, policy.MustAction("kms:" + name), kind, states}
	if actions == nil {
		actions = map[string]*action{}
	}
	actions[name] = a
	return a
}
