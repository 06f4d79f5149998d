package kms

import (
	"strings"

	"github.com/keyward/keyward/kms/kmswire"
)

// maxExternalID bounds an External Key ID, in characters.
const maxExternalID = 128

// draftExternal reads the External Key ID: what another key manager calls the key. Keys of external instances have one, and no
// others; several keys may have the same one.
func (c *call) draftExternal(d *draft, req *kmswire.CreateKeyRequest) error {
	const param = "ExternalKeyId"
	id := req.ExternalKeyID
	if d.instance.Type != ExternalInstance {
		if id != "" {
			return Invalid(param, "only keys of external instances have one; name such an instance in DKMSInstanceId")
		}
		return nil
	}
	switch {
	case id == "":
		e := Missing(param)
		e.Detail = "a key of " + d.instance.ID + " is one of another key manager; make it there first, and name it by the ID that it has there"
		return e
	case len(id) > maxExternalID || strings.Trim(id, idCharacters+strings.ToUpper(idCharacters)+"-._") != "":
		return Invalid(param, "it has 1 to %d letters, digits, hyphens, dots and underscores", maxExternalID)
	case d.spec.name != kmswire.AES256:
		return Invalid("KeySpec", "keys of external instances are %s, not %s", kmswire.AES256, d.spec.name)
	case req.Origin != "" && req.Origin != kmswire.OriginKMS:
		return Invalid("Origin", "the material of an external key stays where it is; nothing is imported")
	case req.EnableAutomaticRotation || req.RotationInterval != "":
		return Errorf(OperationRejected, "an external key is rotated by the key manager that has it")
	}
	d.key.ExternalID = id
	return Errorf(KeyUnavailable, "the key manager behind %s can't be reached: no proxy to it is configured", d.instance.ID)
}
