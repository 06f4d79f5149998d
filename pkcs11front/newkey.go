package pkcs11front

import (
	"bytes"
	"slices"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
	"github.com/keyward/keyward/pkcs11front/sessionkey"
)

// keyOrigin is how a key came to be. The zero value: it was brought along.
type keyOrigin struct {
	generated bool
	by        ck.Mechanism
	// history is the key that it is a copy of.
	history *sessionKey
}

// material is a key that is to become an object: one of the three.
type material struct {
	secret *sessionkey.Secret
	priv   *sessionkey.Private
	public *sessionkey.Public
}

func (m material) close() {
	(&sessionKey{secret: m.secret, priv: m.priv, public: m.public}).destroy()
}

// secretParts are attributes that an object does not keep with the others: the key has them.
var secretParts = []ck.Attribute{ck.CKA_VALUE, ck.CKA_PRIVATE_EXPONENT, ck.CKA_PRIME_1, ck.CKA_PRIME_2, ck.CKA_EXPONENT_1, ck.CKA_EXPONENT_2, ck.CKA_COEFFICIENT}

// addPublic keeps a public key, which it takes over, in the token or the application.
func (q *request) addPublic(table *classTable, given values, public *sessionkey.Public, u usage, from keyOrigin) (handle, ck.RV) {
	v, rv := q.publicValues(table, given, public, u, from)
	if rv != ck.CKR_OK {
		public.Close()
		return 0, rv
	}
	k := &sessionKey{public: public, f: publicFacts(func(a ck.Attribute) (p11rpc.Value, ck.RV) {
		value, _ := v.get(a)
		return value, ck.CKR_OK
	}, false, q.front.cfg.RawRSA)}
	k.f.only = restriction(given)
	return q.keep(table, v, k)
}

// publicValues are the attributes of a public key: those of the template, and what the key says.
func (q *request) publicValues(table *classTable, given values, public *sessionkey.Public, u usage, from keyOrigin) (values, ck.RV) {
	info := public.Marshal()
	parts, err := readPublic(info)
	if err != nil {
		return nil, ck.CKR_ATTRIBUTE_VALUE_INVALID
	}
	if said := given.octets(ck.CKA_PUBLIC_KEY_INFO); len(said) > 0 && string(said) != string(info) {
		return nil, ck.CKR_TEMPLATE_INCONSISTENT
	}
	v := withKey(table, given.clone(), u, from)
	v = withPublicParts(table, v, parts)
	facts := keyFacts{keyType: table.keyType, bits: public.Bits(), curve: string(public.Curve()), usage: u, only: restriction(given), token: v.is(ck.CKA_TOKEN, false), rawRSA: q.front.cfg.RawRSA}
	if facts.token && facts.only != nil {
		return nil, ck.CKR_TEMPLATE_INCONSISTENT // what clients keep has no place for it
	}
	v = v.without(ck.CKA_ALLOWED_MECHANISMS)
	if !facts.token {
		v = v.set(ck.CKA_ALLOWED_MECHANISMS, mechanismsValue(&facts))
	}
	return v, ck.CKR_OK
}

// withPublicParts adds the attributes of the public key that objects of the table have.
func withPublicParts(table *classTable, v values, parts *publicParts) values {
	for _, a := range []ck.Attribute{ck.CKA_PUBLIC_KEY_INFO, ck.CKA_MODULUS, ck.CKA_MODULUS_BITS, ck.CKA_PUBLIC_EXPONENT, ck.CKA_EC_PARAMS, ck.CKA_EC_POINT} {
		if value, ok := parts.attribute(a); ok && table.byType[a] != nil {
			v = v.set(a, value)
		}
	}
	return v
}

// withKey sets the attributes of a key that follow from what it may do and where it is from. What a template asked for beyond that is gone.
func withKey(table *classTable, v values, u usage, from keyOrigin) values {
	for _, a := range usageAttributes {
		if table.byType[a.attribute] != nil {
			v = v.set(a.attribute, boolValue(u&a.may != 0))
		}
	}
	v = v.without(ck.CKA_SIGN_RECOVER, ck.CKA_VERIFY_RECOVER)
	v = v.set(ck.CKA_KEY_TYPE, ulongValue(uint64(table.keyType)))
	v = v.set(ck.CKA_PRIVATE, boolValue(v.is(ck.CKA_PRIVATE, secretClass(table.class))))
	v = v.set(ck.CKA_LOCAL, boolValue(from.generated))
	mechanism := ck.Unavailable
	if from.generated {
		mechanism = uint64(from.by)
	}
	v = v.set(ck.CKA_KEY_GEN_MECHANISM, ulongValue(mechanism))
	if !secretClass(table.class) {
		return v
	}
	sensitive, extractable := v.is(ck.CKA_SENSITIVE, true), v.is(ck.CKA_EXTRACTABLE, false)
	v = v.set(ck.CKA_SENSITIVE, boolValue(sensitive)).set(ck.CKA_EXTRACTABLE, boolValue(extractable))
	always, never := from.generated && sensitive, from.generated && !extractable
	if h := from.history; h != nil {
		always, never = h.v.is(ck.CKA_ALWAYS_SENSITIVE, false) && sensitive, h.v.is(ck.CKA_NEVER_EXTRACTABLE, false) && !extractable
		v = v.set(ck.CKA_LOCAL, boolValue(h.v.is(ck.CKA_LOCAL, false)))
		v = v.set(ck.CKA_KEY_GEN_MECHANISM, ulongValue(h.v.number(ck.CKA_KEY_GEN_MECHANISM, ck.Unavailable)))
	}
	return v.set(ck.CKA_ALWAYS_SENSITIVE, boolValue(always)).set(ck.CKA_NEVER_EXTRACTABLE, boolValue(never))
}

// addSessionKey makes a session object of a secret or private key, which it takes over.
func (q *request) addSessionKey(table *classTable, given values, m material, u usage, from keyOrigin) (handle, ck.RV) {
	v := withKey(table, given.without(secretParts...).clone(), u, from)
	k := &sessionKey{secret: m.secret, priv: m.priv, f: keyFacts{keyType: table.keyType, usage: u, only: restriction(given), extractable: v.is(ck.CKA_EXTRACTABLE, false), rawRSA: q.front.cfg.RawRSA}}
	if m.secret != nil {
		k.f.bits = 8 * m.secret.Size()
		v = v.without(ck.CKA_CHECK_VALUE).set(ck.CKA_VALUE_LEN, ulongValue(uint64(m.secret.Size())))
		if check, err := m.secret.CheckValue(); err == nil {
			said := given.octets(ck.CKA_CHECK_VALUE)
			if len(said) > 0 && string(said) != string(check) {
				m.close()
				return 0, ck.CKR_ATTRIBUTE_VALUE_INVALID
			}
			v = v.set(ck.CKA_CHECK_VALUE, octetsValue(check))
		}
	} else {
		k.f.bits, k.f.curve = m.priv.Bits(), string(m.priv.Curve())
		parts, err := readPublic(m.priv.Public().Marshal())
		if err != nil {
			m.close()
			return 0, ck.CKR_ATTRIBUTE_VALUE_INVALID
		}
		v = withPublicParts(table, v, parts)
		if table.keyType == ck.CKK_RSA {
			secret, err := q.front.rejection(m.priv.Public().Marshal())
			if err != nil {
				m.close()
				return 0, q.failed(err, aboutToken)
			}
			m.priv.RejectBy(secret)
			clear(secret)
		}
	}
	v = v.set(ck.CKA_ALLOWED_MECHANISMS, mechanismsValue(&k.f))
	return q.keep(table, v, k)
}

// newSessionKey makes a session object of the octets of a secret key, or the PKCS #8 DER of a private one, that C_UnwrapKey or C_DeriveKey made. The
// caller wipes them.
func (q *request) newSessionKey(octets []byte, template []p11rpc.Attribute) (handle, ck.RV) {
	given, rv := readTemplate(template)
	if rv != ck.CKR_OK {
		return 0, rv
	}
	table, rv := tableFor(given)
	if rv != ck.CKR_OK {
		return 0, rv
	}
	if !secretClass(table.class) {
		return 0, ck.CKR_TEMPLATE_INCONSISTENT
	}
	if rv := table.check(given, byUnwrap); rv != ck.CKR_OK {
		return 0, rv
	}
	if given.is(ck.CKA_TOKEN, false) {
		return 0, ck.CKR_TEMPLATE_INCONSISTENT // what was outside does not become a key of the KMS this way
	}
	if rv := q.mayMake(table, given); rv != ck.CKR_OK {
		return 0, rv
	}
	u, rv := wishOf(given).choose(table.keyType, inSession, halves[table.class])
	if rv != ck.CKR_OK {
		return 0, rv
	}
	if u&^dataUsage != 0 { // a template that denies all others
		return 0, ck.CKR_TEMPLATE_INCONSISTENT
	}
	m, rv := materialOf(table, octets)
	if rv != ck.CKR_OK {
		return 0, rv
	}
	return q.addSessionKey(table, given, m, u, keyOrigin{})
}

// materialOf makes a key of octets that were wrapped or derived.
func materialOf(table *classTable, octets []byte) (material, ck.RV) {
	var m material
	var err error
	if table.class == ck.CKO_SECRET_KEY {
		m.secret, err = sessionkey.NewSecret(secretKind(table.keyType), octets)
		if err != nil {
			return material{}, ck.CKR_KEY_SIZE_RANGE
		}
		return m, ck.CKR_OK
	}
	m.priv, err = sessionkey.ParsePrivate(octets)
	if err != nil {
		return material{}, ck.CKR_WRAPPED_KEY_INVALID
	}
	if (m.priv.Kind() == sessionkey.RSA) != (table.keyType == ck.CKK_RSA) {
		m.close()
		return material{}, ck.CKR_TEMPLATE_INCONSISTENT
	}
	return m, ck.CKR_OK
}

func secretKind(t ck.KeyType) sessionkey.Kind {
	if t == ck.CKK_AES {
		return sessionkey.AES
	}
	return sessionkey.Generic
}

// mechanismsFor is allowedMechanisms as numbers.
func mechanismsFor(f *keyFacts) []uint64 {
	allowed := allowedMechanisms(f)
	numbers := make([]uint64, len(allowed))
	for i, m := range allowed {
		numbers[i] = uint64(m)
	}
	return numbers
}

// restriction is the list of mechanisms in a template, nil if there is none. An empty list restricts nothing, as with other tokens.
func restriction(v values) []uint64 {
	list, _ := v.get(ck.CKA_ALLOWED_MECHANISMS)
	only := slices.Clone(list.Numbers)
	slices.Sort(only)
	if only = slices.Compact(only); len(only) == 0 {
		return nil
	}
	return only
}

func mechanismsValue(f *keyFacts) p11rpc.Value {
	return p11rpc.Value{Kind: p11rpc.Ulongs, Numbers: mechanismsFor(f)}
}

// whereTo says where a key with these attributes will be.
func (q *request) whereTo(v values) (place, ck.RV) {
	if !v.is(ck.CKA_TOKEN, false) {
		return inSession, ck.CKR_OK
	}
	t, rv := q.token(q.session.instance)
	if rv != ck.CKR_OK {
		return 0, rv
	}
	if t.Type == kms.HardwareInstance {
		return inHardware, ck.CKR_OK
	}
	return inSoftware, ck.CKR_OK
}

// forKMS says whether a key of the KMS can be as the template wants it: never to be taken out, changed by nobody, or for a time only. That it be less
// protected than it is, not sensitive or not private, is what pkcs11-tool wants of every secret key that it makes, so that is taken, and the object
// says what it is. For usage see usage.go.
func forKMS(v values) ck.RV {
	switch {
	case !v.is(ck.CKA_MODIFIABLE, true), !v.is(ck.CKA_DESTROYABLE, true), // names and the life of a key are the KMS's affair
		v.is(ck.CKA_EXTRACTABLE, false), len(v.octets(ck.CKA_START_DATE)) > 0, len(v.octets(ck.CKA_END_DATE)) > 0:
		return ck.CKR_TEMPLATE_INCONSISTENT
	}
	return ck.CKR_OK
}

// namesIn are the names that a template gives; of classes without any there is no entry.
func namesIn(templates map[kms.ObjectClass]values) map[kms.ObjectClass]kms.ObjectNames {
	names := map[kms.ObjectClass]kms.ObjectNames{}
	for class, v := range templates {
		n := kms.ObjectNames{Label: string(v.octets(ck.CKA_LABEL))}
		if id := v.octets(ck.CKA_ID); len(id) > 0 {
			n.ID = append([]byte(nil), id...)
		}
		if subject := v.octets(ck.CKA_SUBJECT); len(subject) > 0 {
			n.Subject = bytes.Clone(subject)
		}
		n.Mechanisms = restriction(v)
		if n.ID != nil || n.Label != "" || n.Subject != nil || n.Mechanisms != nil {
			names[class] = n
		}
	}
	return names
}
