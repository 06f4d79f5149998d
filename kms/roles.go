package kms

import "github.com/keyward/keyward/keystore"

// who may do something with a key that has a role.
type who uint8

const (
	nobody  who = iota
	users       // the principals of the key's account, as policies say
	service     // the service whose key it is, whatever policies say
	anybody     // either
)

// roleRule says who may do an action with the default key of an account, and with the key of a service (reference section 6.8).
type roleRule struct{ defaultKey, serviceKey who }

// roleRules has a row for each action about a key, by name. What has none is refused.
var roleRules = map[string]roleRule{
	actDescribeKey.name:          {users, anybody},
	actUpdateKeyDescription.name: {users, nobody},
	actEnableKey.name:            {users, nobody},
	actDisableKey.name:           {users, nobody},

	actScheduleKeyDeletion.name:   {users, nobody},
	actCancelKeyDeletion.name:     {users, nobody},
	actSetDeletionProtection.name: {users, nobody},

	actGetParametersForImport.name: {users, nobody},
	actImportKeyMaterial.name:      {users, nobody},
	actDeleteKeyMaterial.name:      {users, nobody},

	actSetKeyPolicy.name: {nobody, nobody},
	actGetKeyPolicy.name: {nobody, nobody},

	actTagResource.name:      {users, nobody},
	actUntagResource.name:    {users, nobody},
	actTagResources.name:     {users, nobody},
	actUntagResources.name:   {users, nobody},
	actListResourceTags.name: {users, anybody},
	actListTagResources.name: {users, anybody},

	actCreateKeyVersion.name:     {users, nobody},
	actDescribeKeyVersion.name:   {users, anybody},
	actListKeyVersions.name:      {users, anybody},
	actUpdateRotationPolicy.name: {users, nobody},

	actCreateAlias.name:        {users, nobody},
	actUpdateAlias.name:        {users, nobody},
	actDeleteAlias.name:        {users, nobody},
	actListAliasesByKeyID.name: {users, anybody},

	actEncrypt.name:                         {users, service},
	actDecrypt.name:                         {users, service},
	actReEncrypt.name:                       {users, service},
	actReEncryptFrom.name:                   {users, service},
	actReEncryptTo.name:                     {users, service},
	actGenerateDataKey.name:                 {users, service},
	actGenerateDataKeyWithoutPlaintext.name: {users, service},
	actGenerateAndExportDataKey.name:        {users, nobody},
	actExportDataKey.name:                   {users, nobody},

	actAsymmetricEncrypt.name: {nobody, nobody},
	actAsymmetricDecrypt.name: {nobody, nobody},
	actAsymmetricSign.name:    {nobody, nobody},
	actAsymmetricVerify.name:  {nobody, nobody},
	actGetPublicKey.name:      {nobody, nobody},
	actGenerateCsr.name:       {nobody, nobody},

	actStartKeyAssociationCheck.name: {users, anybody},
	actListKeyAssociations.name:      {users, anybody},
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
		if rule.defaultKey&users != 0 {
			return nil
		}
		return Errorf(OperationRejected, "%s is the default key of account %s, which is in no instance and does not take %s; make a key in an instance for that", k.ID, k.Account, act.name)
	case keystore.RoleService:
		if c.isServiceOf(k) {
			if rule.serviceKey&service != 0 {
				return nil
			}
			return Errorf(Denied, "%s is the key of service %s, which may use it and not do kms:%s with it", k.ID, k.Creator, act.name)
		}
		if rule.serviceKey&users != 0 {
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
