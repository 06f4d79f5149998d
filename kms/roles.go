package kms

import "github.com/keyward/keyward/keystore"

// who may do something with a key that has a role.
type who uint8

const (
	byNobody  who = iota
	byUsers       // the principals of the key's account, as policies say
	byService     // the service whose key it is, whatever policies say
	byAnybody     // either
)

// roleRule says who may do an action with the default key of an account, and with the key of a service (reference section 6.8).
type roleRule struct{ defaultKey, serviceKey who }

// roleRules has a row for each action about a key, by name. What has none is refused.
var roleRules = map[string]roleRule{
	actDescribeKey.name:          {byUsers, byAnybody},
	actUpdateKeyDescription.name: {byUsers, byNobody},
	actEnableKey.name:            {byUsers, byNobody},
	actDisableKey.name:           {byUsers, byNobody},

	actScheduleKeyDeletion.name:   {byUsers, byNobody},
	actCancelKeyDeletion.name:     {byUsers, byNobody},
	actSetDeletionProtection.name: {byUsers, byNobody},

	actGetParametersForImport.name: {byUsers, byNobody},
	actImportKeyMaterial.name:      {byUsers, byNobody},
	actDeleteKeyMaterial.name:      {byUsers, byNobody},

	actSetKeyPolicy.name: {byNobody, byNobody},
	actGetKeyPolicy.name: {byNobody, byNobody},

	actTagResource.name:      {byUsers, byNobody},
	actUntagResource.name:    {byUsers, byNobody},
	actTagResources.name:     {byUsers, byNobody},
	actUntagResources.name:   {byUsers, byNobody},
	actListResourceTags.name: {byUsers, byAnybody},
	actListTagResources.name: {byUsers, byAnybody},

	actCreateKeyVersion.name:     {byUsers, byNobody},
	actDescribeKeyVersion.name:   {byUsers, byAnybody},
	actListKeyVersions.name:      {byUsers, byAnybody},
	actUpdateRotationPolicy.name: {byUsers, byNobody},

	actCreateAlias.name:        {byUsers, byNobody},
	actUpdateAlias.name:        {byUsers, byNobody},
	actDeleteAlias.name:        {byUsers, byNobody},
	actListAliasesByKeyID.name: {byUsers, byAnybody},

	actEncrypt.name:                         {byUsers, byService},
	actDecrypt.name:                         {byUsers, byService},
	actReEncrypt.name:                       {byUsers, byService},
	actReEncryptFrom.name:                   {byUsers, byService},
	actReEncryptTo.name:                     {byUsers, byService},
	actGenerateDataKey.name:                 {byUsers, byService},
	actGenerateDataKeyWithoutPlaintext.name: {byUsers, byService},
	actGenerateAndExportDataKey.name:        {byUsers, byNobody},
	actExportDataKey.name:                   {byUsers, byNobody},

	actAsymmetricEncrypt.name: {byNobody, byNobody},
	actAsymmetricDecrypt.name: {byNobody, byNobody},
	actAsymmetricSign.name:    {byNobody, byNobody},
	actAsymmetricVerify.name:  {byNobody, byNobody},
	actGetPublicKey.name:      {byNobody, byNobody},
	actGenerateCsr.name:       {byNobody, byNobody},

	actSetTokenNames.name: {byNobody, byNobody}, // keys without an instance are in no token

	actStartKeyAssociationCheck.name: {byUsers, byAnybody},
	actListKeyAssociations.name:      {byUsers, byAnybody},
}

// isServiceOf says whether the caller is the service whose key k is.
func (c *call) isServiceOf(k *keystore.Key) bool {
	if k.Role != keystore.RoleService || k.Account != c.actor.Account {
		return false
	}
	s, ok := c.serviceOf(c.actor)
	return ok && s.Code == k.Creator
}

// checkRole refuses what a key's role does not allow. Whether the caller may at all was decided before.
func (c *call) checkRole(k *keystore.Key, act *action) error {
	if k.Role == "" {
		return nil
	}
	rule := roleRules[act.name]
	switch k.Role {
	case keystore.RoleDefault:
		if rule.defaultKey&byUsers != 0 {
			return nil
		}
		return Errorf(OperationRejected, "%s is the default key of account %s, which is in no instance and does not take %s; make a key in an instance for that", k.ID, k.Account, act.name)
	case keystore.RoleService:
		if c.isServiceOf(k) {
			if rule.serviceKey&byService != 0 {
				return nil
			}
			return Errorf(Denied, "%s is the key of service %s, which may use it and not do kms:%s with it", k.ID, k.Creator, act.name)
		}
		if rule.serviceKey&byUsers != 0 {
			return nil
		}
		name := k.Creator
		if s, ok := c.serviceNamed(k.Creator); ok && s.Name != s.Code {
			name += " (" + s.Name + ")"
		}
		return Errorf(Denied, "%s belongs to service %s: it alone uses the key, keyward rotates it, and nobody else may do kms:%s with it", k.ID, name, act.name)
	}
	return Errorf(KeyUnavailable, "%s has the role %q, which this version of keyward does not know", k.ID, k.Role)
}
