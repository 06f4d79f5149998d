package pkcs11front

import (
	"bytes"
	"crypto"
	"crypto/sha1" // what CKA_CHECK_VALUE of a certificate is made with (2.40 §4.6.3)
	"crypto/x509"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
	"github.com/keyward/keyward/pkcs11front/sessionkey"
)

// createObject is C_CreateObject. Private and secret keys for the token are imported into the KMS.
func (q *request) createObject() ck.RV {
	given := q.in.Template()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	v, rv := readTemplate(given)
	if rv != ck.CKR_OK {
		return rv
	}
	table, rv := tableFor(v)
	if rv != ck.CKR_OK {
		return rv
	}
	if rv := table.check(v, byCreate); rv != ck.CKR_OK {
		return rv
	}
	return q.answerHandle(q.create(table, v))
}

// answerHandle writes the handle of what was made.
func (q *request) answerHandle(h handle, rv ck.RV) ck.RV {
	if rv == ck.CKR_OK {
		q.out.Ulong(uint64(h))
	}
	return rv
}

// tableFor finds what kind of object a template of C_CreateObject is for. What there is not, such as NSS's objects of trust, is refused
// as a value that is not valid: programs then keep such things elsewhere.
func tableFor(v values) (*classTable, ck.RV) {
	class, ok := v.get(ck.CKA_CLASS)
	if !ok {
		return nil, ck.CKR_TEMPLATE_INCOMPLETE
	}
	keyType := noKey
	switch ck.Class(class.Number) {
	case ck.CKO_PUBLIC_KEY, ck.CKO_PRIVATE_KEY, ck.CKO_SECRET_KEY:
		t, ok := v.get(ck.CKA_KEY_TYPE)
		if !ok {
			return nil, ck.CKR_TEMPLATE_INCOMPLETE
		}
		keyType = ck.KeyType(t.Number)
	case ck.CKO_CERTIFICATE:
		if v.number(ck.CKA_CERTIFICATE_TYPE, ck.CKC_X_509) != ck.CKC_X_509 {
			return nil, ck.CKR_ATTRIBUTE_VALUE_INVALID
		}
	}
	table := tableOf(ck.Class(class.Number), keyType)
	if table == nil {
		return nil, ck.CKR_ATTRIBUTE_VALUE_INVALID
	}
	return table, ck.CKR_OK
}

// secretClass says whether objects of a class are private unless the template says otherwise.
func secretClass(c ck.Class) bool { return c == ck.CKO_PRIVATE_KEY || c == ck.CKO_SECRET_KEY }

// mayMake says whether the session may make an object of the table with these attributes.
func (q *request) mayMake(table *classTable, v values) ck.RV {
	switch {
	case v.is(ck.CKA_TOKEN, false) && !q.session.rw:
		return ck.CKR_SESSION_READ_ONLY
	case (v.is(ck.CKA_PRIVATE, secretClass(table.class)) || secretClass(table.class) && v.is(ck.CKA_TOKEN, false)) && !q.privateAllowed():
		return ck.CKR_USER_NOT_LOGGED_IN
	}
	return ck.CKR_OK
}

// create makes an object that a client brings along.
func (q *request) create(table *classTable, v values) (handle, ck.RV) {
	if rv := q.mayMake(table, v); rv != ck.CKR_OK {
		return 0, rv
	}
	switch table.class {
	case ck.CKO_DATA:
		return q.keep(table, v.clone(), nil)
	case ck.CKO_CERTIFICATE:
		own, rv := completeCertificate(v)
		if rv != ck.CKR_OK {
			return 0, rv
		}
		return q.keep(table, own, nil)
	case ck.CKO_PUBLIC_KEY:
		public, rv := publicFrom(table, v)
		if rv != ck.CKR_OK {
			return 0, rv
		}
		u, rv := wishOf(v).choosePublic(table.keyType, v.is(ck.CKA_TOKEN, false))
		if rv != ck.CKR_OK {
			public.Close()
			return 0, rv
		}
		return q.addPublic(table, v, public, u, keyOrigin{})
	}
	return q.bring(table, v)
}

// keep keeps an object with its attributes, which it takes over: in the token if they say so, else in the application. k is its key, if it is one.
func (q *request) keep(table *classTable, v values, k *sessionKey) (handle, ck.RV) {
	if v.is(ck.CKA_TOKEN, false) {
		if k != nil {
			k.destroy() // the token keeps what it is made of
		}
		return q.keepInToken(table, v)
	}
	v = v.set(ck.CKA_TOKEN, boolValue(false)).set(ck.CKA_PRIVATE, boolValue(v.is(ck.CKA_PRIVATE, secretClass(table.class))))
	var o sessionObject
	if k == nil {
		data := newSessionData(table, v)
		o = &data
	} else {
		k.sessionData = newSessionData(table, v)
		o = k
	}
	h, rv := q.app.addObject(q.session, o)
	if rv != ck.CKR_OK {
		o.destroy()
	}
	return h, rv
}

func (q *request) keepInToken(table *classTable, v values) (handle, ck.RV) {
	o := &kms.TokenObject{Instance: q.session.instance, Class: kms.ObjectClass(table.class), Private: v.is(ck.CKA_PRIVATE, false),
		Modifiable: v.is(ck.CKA_MODIFIABLE, true), ObjectNames: kms.ObjectNames{ID: v.octets(ck.CKA_ID), Label: string(v.octets(ck.CKA_LABEL))}}
	var err error
	if o.Value, err = encodeStored(v.without(fieldsOf...)); err != nil {
		return 0, ck.CKR_ATTRIBUTE_VALUE_INVALID
	}
	if rv := q.checkNames(table.class, o.ObjectNames, v.octets(ck.CKA_PUBLIC_KEY_INFO)); rv != ck.CKR_OK {
		return 0, rv
	}
	kept, err := q.front.cfg.Service.CreateTokenObject(q.ctx, q.actor(), o)
	if err != nil {
		return 0, rvOf(err, aboutTemplate)
	}
	return tokenObjectHandle(kept.Number), ck.CKR_OK
}

// checkNames refuses names under which an object would pass for a key of the KMS that the caller sees: a certificate or public key with its CKA_ID and
// another public key, and a public key with its label.
func (q *request) checkNames(class ck.Class, names kms.ObjectNames, publicKey []byte) ck.RV {
	if class != ck.CKO_CERTIFICATE && class != ck.CKO_PUBLIC_KEY {
		return ck.CKR_OK
	}
	check := func(names kms.SomeNames) ck.RV {
		keys, err := q.front.cfg.Service.TokenKeysNamed(q.ctx, q.actor(), q.session.instance, names)
		if err != nil {
			return q.failed(err, aboutToken)
		}
		if len(keys) > 0 && !slices.ContainsFunc(keys, func(k *kms.TokenKey) bool { return samePublicKey(k.PublicKey, publicKey) }) {
			return ck.CKR_ATTRIBUTE_VALUE_INVALID
		}
		return ck.CKR_OK
	}
	if len(names.ID) > 0 {
		if rv := check(kms.SomeNames{ID: names.ID}); rv != ck.CKR_OK {
			return rv
		}
	}
	if class == ck.CKO_PUBLIC_KEY && names.Label != "" {
		return check(kms.SomeNames{Label: &names.Label})
	}
	return ck.CKR_OK
}

// samePublicKey compares two public keys, DER SubjectPublicKeyInfo, which may have been encoded in different ways.
func samePublicKey(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	if p, err := readPublic(a); err != nil || p.modulus != nil { // x509 knows no keys that are for RSASSA-PSS only
		q, errOther := readPublic(b)
		return err == nil && errOther == nil && bytes.Equal(p.modulus, q.modulus) && bytes.Equal(p.exponent, q.exponent)
	}
	x, err := x509.ParsePKIXPublicKey(a)
	if err != nil {
		return false
	}
	y, err := x509.ParsePKIXPublicKey(b)
	if err != nil {
		return false
	}
	k, ok := x.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(y)
}

// completeCertificate gives the attributes of a certificate: those of the template, and what it leaves out and the certificate says. A
// certificate that can't be read is kept as it is, if the template says whose it is; it is the client's affair.
func completeCertificate(given values) (values, ck.RV) {
	v := given.clone()
	value := v.octets(ck.CKA_VALUE)
	if len(value) == 0 && len(v.octets(ck.CKA_URL)) == 0 {
		return nil, ck.CKR_TEMPLATE_INCOMPLETE
	}
	if len(value) > 0 {
		sum := sha1.Sum(value)
		check, said := v.get(ck.CKA_CHECK_VALUE)
		if said && len(check.Octets) > 0 && string(check.Octets) != string(sum[:3]) {
			return nil, ck.CKR_ATTRIBUTE_VALUE_INVALID
		}
		if !said { // one without octets is a wish to have none (2.40 §4.6.3)
			v = v.set(ck.CKA_CHECK_VALUE, octetsValue(sum[:3:3]))
		}
	}
	if parts, ok := readCertificate(value); ok {
		for i := range parts {
			if p := &parts[i]; len(v.octets(p.Type)) == 0 {
				v = v.set(p.Type, octetsValue(p.Octets))
			}
		}
	}
	if !v.has(ck.CKA_SUBJECT) {
		return nil, ck.CKR_TEMPLATE_INCOMPLETE
	}
	for _, a := range []ck.Attribute{ck.CKA_ISSUER, ck.CKA_SERIAL_NUMBER, ck.CKA_PUBLIC_KEY_INFO, ck.CKA_CHECK_VALUE} {
		if !v.has(a) {
			v = v.set(a, octetsValue(nil))
		}
	}
	return v.set(ck.CKA_CERTIFICATE_TYPE, ulongValue(ck.CKC_X_509)), ck.CKR_OK
}

// readCertificate finds the parts of an X.509 certificate that are attributes (RFC 5280 §4.1). They are parts of der.
func readCertificate(der []byte) ([]p11rpc.Attribute, bool) {
	var in, outer, tbs, serial, issuer, subject, key cryptobyte.String = der, nil, nil, nil, nil, nil, nil
	ok := in.ReadASN1(&outer, asn1.SEQUENCE) && outer.ReadASN1(&tbs, asn1.SEQUENCE) &&
		tbs.SkipOptionalASN1(asn1.Tag(0).ContextSpecific().Constructed()) && tbs.ReadASN1Element(&serial, asn1.INTEGER) &&
		tbs.SkipASN1(asn1.SEQUENCE) && tbs.ReadASN1Element(&issuer, asn1.SEQUENCE) && tbs.SkipASN1(asn1.SEQUENCE) &&
		tbs.ReadASN1Element(&subject, asn1.SEQUENCE) && tbs.ReadASN1Element(&key, asn1.SEQUENCE)
	if !ok {
		return nil, false
	}
	return []p11rpc.Attribute{
		{Type: ck.CKA_SERIAL_NUMBER, Value: octetsValue(serial)},
		{Type: ck.CKA_ISSUER, Value: octetsValue(issuer)},
		{Type: ck.CKA_SUBJECT, Value: octetsValue(subject)},
		{Type: ck.CKA_PUBLIC_KEY_INFO, Value: octetsValue(key)},
	}, true
}

// publicFrom makes a public key of the attributes of a template.
func publicFrom(table *classTable, v values) (*sessionkey.Public, ck.RV) {
	var public *sessionkey.Public
	var err error
	if table.keyType == ck.CKK_RSA {
		public, err = sessionkey.NewRSAPublic(v.octets(ck.CKA_MODULUS), v.octets(ck.CKA_PUBLIC_EXPONENT))
	} else {
		curve, rv := curveIn(v)
		if rv != ck.CKR_OK {
			return nil, rv
		}
		public, err = sessionkey.NewECPublic(curve, v.octets(ck.CKA_EC_POINT))
	}
	if err != nil {
		return nil, ck.CKR_ATTRIBUTE_VALUE_INVALID
	}
	return public, ck.CKR_OK
}

// curveNames are the names of curves in CKA_EC_PARAMS that is a PrintableString (PKCS #11 3.0 §2.3.3).
var curveNames = map[string]sessionkey.Curve{
	"prime256v1": sessionkey.P256, "secp256r1": sessionkey.P256, "P-256": sessionkey.P256,
	"secp384r1": sessionkey.P384, "P-384": sessionkey.P384,
	"secp521r1": sessionkey.P521, "P-521": sessionkey.P521,
	"secp256k1": sessionkey.Secp256k1,
}

// curveIn reads CKA_EC_PARAMS of a template.
func curveIn(v values) (sessionkey.Curve, ck.RV) {
	params := v.octets(ck.CKA_EC_PARAMS)
	if curve, err := sessionkey.CurveOf(params); err == nil {
		return curve, ck.CKR_OK
	}
	in, name := cryptobyte.String(params), cryptobyte.String(nil)
	if in.ReadASN1(&name, asn1.PrintableString) && in.Empty() {
		if curve, ok := curveNames[string(name)]; ok {
			return curve, ck.CKR_OK
		}
	}
	return "", ck.CKR_CURVE_NOT_SUPPORTED
}
