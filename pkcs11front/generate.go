package pkcs11front

import (
	"errors"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/sessionkey"
)

// generateKey is C_GenerateKey. A key for the token is a key of the KMS.
func (q *request) generateKey() ck.RV {
	m := q.in.Mechanism()
	given := q.in.Template()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	row := mechanismRows[m.Type]
	switch {
	case m.Null || row == nil || row.flags&ck.CKF_GENERATE == 0:
		return ck.CKR_MECHANISM_INVALID
	case m.Param != nil:
		return ck.CKR_MECHANISM_PARAM_INVALID
	}
	v, rv := readTemplate(given)
	if rv != ck.CKR_OK {
		return rv
	}
	table := tableOf(ck.CKO_SECRET_KEY, row.keyType)
	if rv := table.check(v, byGenerate); rv != ck.CKR_OK {
		return rv
	}
	if rv := q.mayMake(table, v); rv != ck.CKR_OK {
		return rv
	}
	return q.answerHandle(q.generateSecret(table, v, m.Type))
}

func (q *request) generateSecret(table *classTable, v values, by ck.Mechanism) (handle, ck.RV) {
	in, rv := q.whereTo(v)
	if rv != ck.CKR_OK {
		return 0, rv
	}
	u, rv := wishOf(v).choose(table.keyType, in, halves[table.class])
	if rv != ck.CKR_OK {
		return 0, rv
	}
	size := v.number(ck.CKA_VALUE_LEN, 0)
	if size > maxSecret {
		return 0, ck.CKR_KEY_SIZE_RANGE
	}
	if in == inSession {
		secret, err := sessionkey.GenerateSecret(secretKind(table.keyType), int(size))
		if err != nil {
			return 0, generateError(err)
		}
		return q.addSessionKey(table, v, material{secret: secret}, u, keyOrigin{generated: true, by: by})
	}
	if rv := forKMS(v); rv != ck.CKR_OK {
		return 0, rv
	}
	req := &kms.NewTokenKey{Instance: q.session.instance, Spec: specOf(table.keyType, int(8*size), ""), Names: namesIn(map[kms.ObjectClass]values{kms.ClassSecretKey: v})}
	req.Usage, req.Secondary = kmsUsages(u)
	if req.Spec == "" {
		return 0, ck.CKR_KEY_SIZE_RANGE
	}
	key, err := q.front.cfg.Service.CreateTokenKey(q.ctx, q.actor(), req)
	if err != nil {
		return 0, rvOf(err, aboutTemplate)
	}
	return keyHandle(table.class, key.KeyPlace), ck.CKR_OK
}

func generateError(err error) ck.RV {
	if errors.Is(err, sessionkey.ErrSize) {
		return ck.CKR_KEY_SIZE_RANGE
	}
	return ck.CKR_FUNCTION_FAILED
}

// pairRequest is what C_GenerateKeyPair is to make.
type pairRequest struct {
	by              ck.Mechanism
	tables          [2]*classTable // public, private
	public, private values
	bits            int              // of RSA
	curve           sessionkey.Curve // of EC
	usage           usage            // of both halves together
	in              place            // of the private key
}

// generateKeyPair is C_GenerateKeyPair. A pair whose private key is for the token is a key of the KMS.
func (q *request) generateKeyPair() ck.RV {
	m := q.in.Mechanism()
	givenPublic, givenPrivate := q.in.Template(), q.in.Template()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	row := mechanismRows[m.Type]
	switch {
	case m.Null || row == nil || row.flags&ck.CKF_GENERATE_KEY_PAIR == 0:
		return ck.CKR_MECHANISM_INVALID
	case m.Param != nil:
		return ck.CKR_MECHANISM_PARAM_INVALID
	}
	p := &pairRequest{by: m.Type, tables: [2]*classTable{tableOf(ck.CKO_PUBLIC_KEY, row.keyType), tableOf(ck.CKO_PRIVATE_KEY, row.keyType)}}
	var rv ck.RV
	if p.public, rv = readTemplate(givenPublic); rv != ck.CKR_OK {
		return rv
	}
	if p.private, rv = readTemplate(givenPrivate); rv != ck.CKR_OK {
		return rv
	}
	if rv := q.checkPair(p); rv != ck.CKR_OK {
		return rv
	}
	public, private, rv := q.makePair(p)
	if rv != ck.CKR_OK {
		return rv
	}
	q.out.Ulong(uint64(public))
	q.out.Ulong(uint64(private))
	return ck.CKR_OK
}

func (q *request) checkPair(p *pairRequest) (rv ck.RV) {
	for i, v := range []values{p.public, p.private} {
		if rv := p.tables[i].check(v, byGenerate); rv != ck.CKR_OK {
			return rv
		}
		if rv := q.mayMake(p.tables[i], v); rv != ck.CKR_OK {
			return rv
		}
	}
	if p.tables[0].keyType == ck.CKK_RSA {
		bits := p.public.number(ck.CKA_MODULUS_BITS, 0)
		if bits < minRSA || bits > maxRSA {
			return ck.CKR_KEY_SIZE_RANGE
		}
		p.bits = int(bits)
		if e := p.public.octets(ck.CKA_PUBLIC_EXPONENT); len(e) > 0 && trimZeros(e) != "\x01\x00\x01" {
			return ck.CKR_ATTRIBUTE_VALUE_INVALID // nobody wants another one, and small ones are dangerous
		}
	} else if p.curve, rv = curveIn(p.public); rv != ck.CKR_OK {
		return rv
	}
	if p.in, rv = q.whereTo(p.private); rv != ck.CKR_OK {
		return rv
	}
	p.usage, rv = ofPair(wishOf(p.private), wishOf(p.public)).choose(p.tables[0].keyType, p.in, halves[ck.CKO_PRIVATE_KEY]|halves[ck.CKO_PUBLIC_KEY])
	return rv
}

// trimZeros takes leading zeros off a number.
func trimZeros(b []byte) string {
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	return string(b)
}

func (q *request) makePair(p *pairRequest) (public, private handle, rv ck.RV) {
	if p.in != inSession {
		return q.makeKMSPair(p)
	}
	var key *sessionkey.Private
	rv = q.compute(func() ck.RV {
		var err error
		if p.bits != 0 {
			key, err = sessionkey.GenerateRSA(p.bits)
		} else {
			key, err = sessionkey.GenerateEC(p.curve)
		}
		if err != nil {
			return generateError(err)
		}
		return ck.CKR_OK
	})
	if rv != ck.CKR_OK {
		return 0, 0, rv
	}
	half, err := sessionkey.ParsePublic(key.Public().Marshal())
	if err != nil {
		key.Close()
		return 0, 0, ck.CKR_FUNCTION_FAILED
	}
	from := keyOrigin{generated: true, by: p.by}
	if public, rv = q.addPublic(p.tables[0], p.public, half, p.usage&halves[ck.CKO_PUBLIC_KEY], from); rv != ck.CKR_OK {
		key.Close()
		return 0, 0, rv
	}
	if private, rv = q.addSessionKey(p.tables[1], p.private, material{priv: key}, p.usage&halves[ck.CKO_PRIVATE_KEY], from); rv != ck.CKR_OK {
		q.undoPublic(public)
		return 0, 0, rv
	}
	return public, private, ck.CKR_OK
}

// undoPublic takes back the public half of a pair that was not made.
func (q *request) undoPublic(h handle) {
	if n, ok := h.tokenObject(); ok {
		if err := q.front.cfg.Service.DeleteTokenObject(q.ctx, q.actor(), q.session.instance, n); err != nil {
			q.front.cfg.Log.Warn().Err(err).Uint64("object", n).Msg("a public key stays in a token though its private key was not made")
		}
		return
	}
	q.app.removeObject(q.session.instance, h)
}

// makeKMSPair makes a key of the KMS. Its public half is an object of the token; if the template wants a session object there is one besides.
func (q *request) makeKMSPair(p *pairRequest) (public, private handle, rv ck.RV) {
	if rv := forKMS(p.private); rv != ck.CKR_OK {
		return 0, 0, rv
	}
	inToken := p.public.is(ck.CKA_TOKEN, false)
	templates := map[kms.ObjectClass]values{kms.ClassPrivateKey: p.private, kms.ClassPublicKey: p.public}
	if !inToken {
		templates[kms.ClassPublicKey] = p.private
	} else if rv := forKMS(p.public); rv != ck.CKR_OK {
		return 0, 0, rv
	} else if p.public.is(ck.CKA_PRIVATE, false) {
		return 0, 0, ck.CKR_TEMPLATE_INCONSISTENT
	}
	req := &kms.NewTokenKey{Instance: q.session.instance, Spec: specOf(p.tables[0].keyType, max(p.bits, p.curve.Bits()), p.curve), Names: namesIn(templates)}
	req.Usage, req.Secondary = kmsUsages(p.usage)
	if req.Spec == "" {
		if p.curve != "" {
			return 0, 0, ck.CKR_CURVE_NOT_SUPPORTED
		}
		return 0, 0, ck.CKR_KEY_SIZE_RANGE
	}
	unreserve := func() {}
	if !inToken {
		if unreserve, rv = q.app.reserve(); rv != ck.CKR_OK {
			return 0, 0, rv
		}
		defer unreserve()
	}
	key, err := q.front.cfg.Service.CreateTokenKey(q.ctx, q.actor(), req)
	if err != nil {
		return 0, 0, rvOf(err, aboutTemplate)
	}
	public, private = keyHandle(ck.CKO_PUBLIC_KEY, key.KeyPlace), keyHandle(ck.CKO_PRIVATE_KEY, key.KeyPlace)
	if inToken {
		return public, private, ck.CKR_OK
	}
	unreserve()
	half, err := sessionkey.ParsePublic(key.PublicKey)
	if rv = localError(err); rv == ck.CKR_OK {
		public, rv = q.addPublic(p.tables[0], p.public, half, p.usage&halves[ck.CKO_PUBLIC_KEY], keyOrigin{generated: true, by: p.by})
	}
	if rv != ck.CKR_OK {
		if err := q.front.cfg.Service.DestroyTokenKey(q.ctx, q.actor(), q.session.instance, key.KeyPlace); err != nil {
			q.front.cfg.Log.Warn().Err(err).Str("key", key.KeyID).Msg("a key stays in a token though its maker could not be given the public half")
		}
	}
	return public, private, rv
}
