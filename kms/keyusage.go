package kms

import (
	"slices"

	"github.com/keyward/keyward/kms/kmswire"
)

// setSecondaryUsage gives the draft the second usage that its maker asks for. Only keys inside an HSM can have one, and only of a spec
// that can do both: one key for two purposes is what the maker must want, never what they get by leaving something out.
func (d *draft) setSecondaryUsage(usage kmswire.KeyUsage) error {
	const param = "SecondaryKeyUsage"
	fitting := d.spec.usages()
	switch {
	case usage == "":
		return nil
	case len(fitting) < 2:
		return Invalid(param, "%s keys are for %s only", d.spec.name, fitting[0])
	case !slices.Contains(fitting, usage):
		return Invalid(param, "%q is none of %v", usage, fitting)
	case string(usage) == d.key.Usage:
		return Invalid(param, "%s is what the key is for already (KeyUsage); name the other one or leave this out", usage)
	case d.instance.Type != HardwareInstance:
		return Invalid(param, "only keys of hardware instances have one; name such an instance in DKMSInstanceId")
	}
	d.key.SecondaryUsage = string(usage)
	return nil
}

// fits says whether the caller may use the key for usage. A secondary usage is not there for services that use keys for others.
func (c *call) fits(g grant, usage kmswire.KeyUsage) error {
	switch string(usage) {
	case g.key.Usage:
		return nil
	case g.key.SecondaryUsage:
		if s, ok := c.serviceOf(c.actor); ok {
			return Errorf(OperationRejected, "%s is a %s key with %s as its secondary usage, which services such as %s have no part in; give the service a key of its own",
				g.key.ID, g.key.Usage, usage, s.Code)
		}
		return nil
	}
	return errUsage(g)
}

func errUsage(g grant) *Error {
	return Errorf(OperationRejected, "%s is a %s key", g.key.ID, g.key.Usage)
}
