package pkcs11front

import (
	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// objectArgument reads a handle, the call's second argument, and the rest by f, and finds the object.
func (q *request) objectArgument(f func()) (object, ck.RV) {
	h := handle(q.in.Ulong())
	f()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return nil, rv
	}
	return q.lookup(h)
}

// inToken says whether an object is one of the token.
func inToken(o object) bool { _, ok := o.(sessionObject); return !ok }

// attributeOf is o.attribute for attributes that are there and no secrets.
func attributeOf(o object, a ck.Attribute) p11rpc.Value {
	v, _ := o.attribute(a)
	return v
}

// destroyObject is C_DestroyObject. Of a key of the KMS it schedules the deletion, by its private or secret key; a public key is only an object less.
func (q *request) destroyObject() ck.RV {
	h := handle(q.in.Ulong())
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	o, rv := q.lookup(h)
	switch {
	case rv == ck.CKR_OBJECT_HANDLE_INVALID && q.app.hasDestroyed(h):
		return ck.CKR_OK
	case rv != ck.CKR_OK:
		return rv
	case inToken(o) && !q.session.rw:
		return ck.CKR_SESSION_READ_ONLY
	case attributeOf(o, ck.CKA_DESTROYABLE).Number == 0:
		return ck.CKR_ACTION_PROHIBITED
	}
	service, instance := q.front.cfg.Service, q.session.instance
	switch o := o.(type) {
	case *kmsKey:
		if o.class() == ck.CKO_PUBLIC_KEY {
			rv = rvOf(service.DestroyTokenPublicKey(q.ctx, q.actor(), instance, o.KeyPlace), aboutObject)
		} else if rv = rvOf(service.DestroyTokenKey(q.ctx, q.actor(), instance, o.KeyPlace), aboutObject); rv == ck.CKR_OK {
			q.app.noteDestroyed(o.KeyPlace)
		}
	case sessionObject:
		if !q.app.removeObject(instance, o.handle()) {
			rv = ck.CKR_OBJECT_HANDLE_INVALID
		}
	default:
		n, _ := o.handle().tokenObject()
		rv = rvOf(service.DeleteTokenObject(q.ctx, q.actor(), instance, n), aboutObject)
	}
	if rv == ck.CKR_OK {
		q.session.ops.endKey(o.handle())
	}
	return rv
}

// getObjectSize is C_GetObjectSize: what its attributes take in a client's memory.
func (q *request) getObjectSize() ck.RV {
	o, rv := q.objectArgument(func() {})
	if rv != ck.CKR_OK {
		return rv
	}
	size := uint64(0)
	for _, row := range tableOfObject(o).rows {
		if !row.secret {
			if v, rv := o.attribute(row.attribute); rv == ck.CKR_OK {
				size += clientSize(v)
			}
		}
	}
	q.out.Ulong(size)
	return ck.CKR_OK
}

// clientSize is the length of a value in a client's memory, in octets.
func clientSize(v p11rpc.Value) uint64 {
	switch v.Kind {
	case p11rpc.Bool:
		return 1
	case p11rpc.Ulong:
		return 8
	case p11rpc.Ulongs:
		return 8 * uint64(len(v.Numbers))
	}
	return uint64(len(v.Octets))
}

func tableOfObject(o object) *classTable {
	keyType := noKey
	if k, ok := o.(key); ok {
		keyType = k.facts().keyType
	}
	return tableOf(o.class(), keyType)
}

// getAttributeValue is C_GetAttributeValue (2.40 §5.7). Each attribute is answered by itself; what the client's call returns follows from all of them
// (Writer.Results).
func (q *request) getAttributeValue() ck.RV {
	var wanted []p11rpc.Wanted
	o, rv := q.objectArgument(func() { wanted = q.in.Wanted() })
	if rv != ck.CKR_OK {
		return rv
	}
	results := make([]p11rpc.Result, len(wanted))
	for i := range wanted {
		r := &results[i]
		r.Type = wanted[i].Type
		r.Value, r.RV = o.attribute(r.Type)
		if r.RV != ck.CKR_OK && r.RV != ck.CKR_ATTRIBUTE_SENSITIVE && r.RV != ck.CKR_ATTRIBUTE_TYPE_INVALID {
			rv = r.RV // the object is gone
		}
	}
	if rv == ck.CKR_OK {
		rv = q.out.Results(wanted, results)
	}
	if k, ok := o.(*sessionKey); ok { // what is secret was copied
		for i := range results {
			if row := k.table.byType[results[i].Type]; row != nil && row.secret {
				clear(results[i].Octets)
			}
		}
	}
	return rv
}

// setAttributeValue is C_SetAttributeValue.
func (q *request) setAttributeValue() ck.RV {
	var given []p11rpc.Attribute
	o, rv := q.objectArgument(func() { given = q.in.Template() })
	switch {
	case rv != ck.CKR_OK:
		return rv
	case inToken(o) && !q.session.rw:
		return ck.CKR_SESSION_READ_ONLY
	case attributeOf(o, ck.CKA_MODIFIABLE).Number == 0:
		return ck.CKR_ACTION_PROHIBITED
	}
	v, rv := readTemplate(given)
	if rv != ck.CKR_OK {
		return rv
	}
	if rv := tableOfObject(o).check(v, bySet); rv != ck.CKR_OK {
		return rv
	}
	if rv := checkRange(v); rv != ck.CKR_OK {
		return rv
	}
	if rv := oneWay(o, v); rv != ck.CKR_OK {
		return rv
	}
	if len(v) == 0 {
		return ck.CKR_OK
	}
	switch o := o.(type) {
	case *kmsKey:
		return q.nameKey(o, v)
	case sessionObject:
		return q.changeSessionObject(o, v)
	case *storedKey:
		return q.changeStored(&o.storedObject, v)
	case *storedObject:
		return q.changeStored(o, v)
	}
	return ck.CKR_GENERAL_ERROR
}

// oneWay refuses changes that would make an object less safe than it was made (attack P4), or let a key do more (P1).
func oneWay(o object, v values) ck.RV {
	for i := range v {
		now, there := o.attribute(v[i].Type)
		was, will := now.Number != 0, v[i].Number != 0
		if there != ck.CKR_OK || was == will {
			continue
		}
		switch v[i].Type {
		case ck.CKA_SENSITIVE, ck.CKA_WRAP_WITH_TRUSTED: // they stay true
			if was {
				return ck.CKR_ATTRIBUTE_READ_ONLY
			}
		case ck.CKA_EXTRACTABLE, ck.CKA_COPYABLE, ck.CKA_SIGN_RECOVER, ck.CKA_VERIFY_RECOVER: // they stay false
			if will {
				return ck.CKR_ATTRIBUTE_READ_ONLY
			}
		default:
			if usageOf(v[i].Type) != 0 && will {
				return ck.CKR_ATTRIBUTE_READ_ONLY
			}
		}
	}
	return ck.CKR_OK
}

// nameKey changes the names of a key of the KMS. Nothing else of it can be changed here, but what would stay as it is may be said.
func (q *request) nameKey(k *kmsKey, v values) ck.RV {
	var names kms.SomeNames
	for i := range v {
		switch v[i].Type {
		case ck.CKA_ID:
			names.ID = append([]byte{}, v[i].Octets...)
		case ck.CKA_LABEL:
			text := string(v[i].Octets)
			names.Label = &text
		case ck.CKA_SUBJECT:
			names.Subject = append([]byte{}, v[i].Octets...)
		default:
			if now, rv := k.attribute(v[i].Type); rv != ck.CKR_OK || !sameValue(now, v[i].Value) {
				return ck.CKR_ATTRIBUTE_READ_ONLY
			}
		}
	}
	if names.ID == nil && names.Label == nil && names.Subject == nil {
		return ck.CKR_OK
	}
	return rvOf(k.service.NameTokenKey(q.ctx, q.actor(), q.session.instance, k.KeyPlace, kms.ObjectClass(k.class()), names), aboutObject)
}

func (q *request) changeSessionObject(o sessionObject, changes values) ck.RV {
	v := o.attributes().clone()
	for _, c := range changes.clone() {
		v = v.set(c.Type, c.Value)
	}
	return q.app.replaceObject(q.session.instance, o, o.changed(v))
}

func (q *request) changeStored(o *storedObject, changes values) ck.RV {
	v, err := o.values()
	if err != nil {
		return q.failed(err, aboutObject)
	}
	next := &kms.TokenObject{ObjectNames: o.ObjectNames}
	for i := range changes {
		c := &changes[i]
		switch c.Type {
		case ck.CKA_ID:
			next.ID = append([]byte(nil), c.Octets...)
		case ck.CKA_LABEL:
			next.Label = string(c.Octets)
		default:
			v = v.set(c.Type, c.Value)
		}
	}
	if next.Value, err = encodeStored(v); err != nil {
		return ck.CKR_ATTRIBUTE_VALUE_INVALID
	}
	if rv := q.checkNames(o.class(), next.ObjectNames, v.octets(ck.CKA_PUBLIC_KEY_INFO)); rv != ck.CKR_OK {
		return rv
	}
	_, err = q.front.cfg.Service.UpdateTokenObject(q.ctx, q.actor(), o.TokenObject, next)
	return rvOf(err, aboutObject)
}
