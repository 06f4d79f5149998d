package pkcs11front

import (
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
	"github.com/keyward/keyward/pkcs11front/sessionkey"
)

// copyObject is C_CopyObject. Keys of the KMS are not copied: their material stays where it is. A session key may become one of the KMS: so Java's
// keytool keeps what it has made.
func (q *request) copyObject() ck.RV {
	var given []p11rpc.Attribute
	o, rv := q.objectArgument(func() { given = q.in.Template() })
	switch {
	case rv != ck.CKR_OK:
		return rv
	case attributeOf(o, ck.CKA_COPYABLE).Number == 0:
		return ck.CKR_ACTION_PROHIBITED
	}
	changes, rv := readTemplate(given)
	if rv != ck.CKR_OK {
		return rv
	}
	table := tableOfObject(o)
	if rv := table.check(changes, byCopy); rv != ck.CKR_OK {
		return rv
	}
	if class, ok := changes.get(ck.CKA_CLASS); ok && ck.Class(class.Number) != table.class {
		return ck.CKR_ATTRIBUTE_READ_ONLY
	}
	if rv := oneWay(o, changes); rv != ck.CKR_OK {
		return ck.CKR_TEMPLATE_INCONSISTENT // what C_SetAttributeValue calls read-only (2.40 §5.7)
	}
	v, rv := copied(o, changes)
	if rv != ck.CKR_OK {
		return rv
	}
	if rv := table.checkFixed(v); rv != ck.CKR_OK {
		return rv
	}
	if rv := q.mayMake(table, v); rv != ck.CKR_OK {
		return rv
	}
	return q.answerHandle(q.copy(table, o, v))
}

// copied are the attributes of the copy, which are its own.
func copied(o object, changes values) (values, ck.RV) {
	var v values
	switch o := o.(type) {
	case sessionObject:
		v = o.attributes().clone()
		if k, ok := o.(*sessionKey); ok && k.f.only == nil {
			v = v.without(ck.CKA_ALLOWED_MECHANISMS)
		}
	default:
		for _, row := range tableOfObject(o).rows {
			if value, rv := o.attribute(row.attribute); rv == ck.CKR_OK && !row.secret && row.kind != asList {
				v = append(v, p11rpc.Attribute{Type: row.attribute, Value: value})
			}
		}
		v = v.without(ck.CKA_CLASS, ck.CKA_UNIQUE_ID).clone()
	}
	for _, c := range changes.without(ck.CKA_CLASS).clone() {
		v = v.set(c.Type, c.Value)
	}
	return v, ck.CKR_OK
}

func (q *request) copy(table *classTable, o object, v values) (handle, ck.RV) {
	k, isKey := o.(key)
	if !isKey {
		return q.keep(table, v, nil)
	}
	if table.class == ck.CKO_PUBLIC_KEY {
		info := attributeOf(o, ck.CKA_PUBLIC_KEY_INFO)
		public, err := sessionkey.ParsePublic(info.Octets)
		if err != nil {
			return 0, localError(err)
		}
		from := keyOrigin{generated: attributeOf(o, ck.CKA_LOCAL).Number != 0, by: ck.Mechanism(attributeOf(o, ck.CKA_KEY_GEN_MECHANISM).Number)}
		return q.addPublic(table, v, public, usageIn(v)&k.facts().usage, from)
	}
	original, ok := o.(*sessionKey)
	if !ok {
		return 0, ck.CKR_ACTION_PROHIBITED
	}
	m, rv := original.clone()
	if rv != ck.CKR_OK {
		return 0, rv
	}
	u := usageIn(v) & original.f.usage
	if !v.is(ck.CKA_TOKEN, false) {
		return q.addSessionKey(table, v, m, u, keyOrigin{history: original})
	}
	defer m.close()
	in, rv := q.whereTo(v)
	if rv != ck.CKR_OK {
		return 0, rv
	}
	// In the KMS it does what it did here and nothing else.
	granted, rv := wish{asked: u, denied: halves[table.class] &^ u}.choose(table.keyType, in, halves[table.class])
	if rv != ck.CKR_OK || granted != u {
		return 0, ck.CKR_TEMPLATE_INCONSISTENT
	}
	return q.importKey(table, v, m, u)
}

// clone makes another key of the same material.
func (k *sessionKey) clone() (m material, rv ck.RV) {
	var octets []byte
	var err error
	if k.secret != nil {
		if octets, err = k.secret.Marshal(); err == nil {
			m.secret, err = sessionkey.NewSecret(k.secret.Kind(), octets)
		}
	} else {
		m.priv, err = k.priv.Copy()
	}
	clear(octets)
	return m, localError(err)
}
