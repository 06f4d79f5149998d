package pkcs11front

import (
	"math/big"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/sessionkey"
)

// bring makes a private or secret key of what a template of C_CreateObject has: for the token it is imported into the KMS.
func (q *request) bring(table *classTable, v values) (handle, ck.RV) {
	in, rv := q.whereTo(v)
	if rv != ck.CKR_OK {
		return 0, rv
	}
	u, rv := wishOf(v).choose(table.keyType, in, halves[table.class])
	if rv != ck.CKR_OK {
		return 0, rv
	}
	var m material
	rv = q.compute(func() (rv ck.RV) { // the numbers of a bad key can keep the processor busy for a second
		m, rv = materialFrom(table, v)
		return rv
	})
	if rv != ck.CKR_OK {
		return 0, rv
	}
	if in == inSession {
		return q.addSessionKey(table, v, m, u, keyOrigin{})
	}
	defer m.close()
	return q.importKey(table, v, m, u)
}

// importKey makes a key of the KMS of a key that is here.
func (q *request) importKey(table *classTable, v values, m material, u usage) (handle, ck.RV) {
	if rv := forKMS(v); rv != ck.CKR_OK {
		return 0, rv
	}
	req := &kms.NewTokenKey{Instance: q.session.instance}
	req.Usage, req.Secondary = kmsUsages(u)
	var octets []byte
	var err error
	if m.secret != nil {
		req.Spec = specOf(table.keyType, 8*m.secret.Size(), "")
		octets, err = m.secret.Marshal()
		req.Names = namesIn(map[kms.ObjectClass]values{kms.ClassSecretKey: v})
	} else {
		req.Spec = specOf(table.keyType, m.priv.Bits(), m.priv.Curve())
		octets, err = m.priv.Marshal()
		// The public key is an object too then, by the same names.
		req.Names = namesIn(map[kms.ObjectClass]values{kms.ClassPrivateKey: v, kms.ClassPublicKey: v})
	}
	defer clear(octets)
	switch {
	case err != nil:
		return 0, ck.CKR_FUNCTION_FAILED
	case req.Spec == "":
		return 0, ck.CKR_KEY_SIZE_RANGE
	}
	req.Material = octets
	key, err := q.front.cfg.Service.CreateTokenKey(q.ctx, q.actor(), req)
	if err != nil {
		return 0, rvOf(err, aboutTemplate)
	}
	return keyHandle(table.class, key.KeyPlace), ck.CKR_OK
}

// materialFrom makes a private or secret key of the numbers or octets of a template.
func materialFrom(table *classTable, v values) (m material, rv ck.RV) {
	var err error
	switch {
	case table.class == ck.CKO_SECRET_KEY:
		value := v.octets(ck.CKA_VALUE)
		if n, said := v.get(ck.CKA_VALUE_LEN); said && n.Number != uint64(len(value)) {
			return m, ck.CKR_TEMPLATE_INCONSISTENT
		}
		m.secret, err = sessionkey.NewSecret(secretKind(table.keyType), value)
	case table.keyType == ck.CKK_RSA:
		var n *sessionkey.RSANumbers
		if n, rv = rsaNumbers(v); rv != ck.CKR_OK {
			return m, rv
		}
		defer n.Wipe()
		m.priv, err = sessionkey.NewRSAPrivate(n)
	default:
		var curve sessionkey.Curve
		if curve, rv = curveIn(v); rv != ck.CKR_OK {
			return m, rv
		}
		m.priv, err = sessionkey.NewECPrivate(curve, v.octets(ck.CKA_VALUE), v.octets(ck.CKA_EC_POINT))
	}
	if err != nil {
		return m, ck.CKR_ATTRIBUTE_VALUE_INVALID
	}
	return m, ck.CKR_OK
}

// rsaNumbers gives the numbers of an RSA private key. Only modulus and private exponent must be there (Current Mechanisms 2.40 §2.1.3): the others are
// computed. They are copies, which the caller wipes.
func rsaNumbers(v values) (*sessionkey.RSANumbers, ck.RV) {
	num := func(a ck.Attribute) *big.Int { return new(big.Int).SetBytes(v.octets(a)) }
	n, e, d, p, q := num(ck.CKA_MODULUS), num(ck.CKA_PUBLIC_EXPONENT), num(ck.CKA_PRIVATE_EXPONENT), num(ck.CKA_PRIME_1), num(ck.CKA_PRIME_2)
	scratch := []*big.Int{d, p, q}
	defer func() { wipeNumbers(scratch) }()
	// Whatever is computed is so for a key of a size that there is, or a template could keep the processor busy.
	if n.BitLen() < minRSA || n.BitLen() > maxRSA || d.BitLen() > n.BitLen() || e.BitLen() > 64 || p.BitLen() > n.BitLen() || q.BitLen() > n.BitLen() {
		return nil, ck.CKR_ATTRIBUTE_VALUE_INVALID
	}
	if e.Sign() == 0 {
		e.SetInt64(65537)
	}
	if p.Sign() == 0 || q.Sign() == 0 {
		var ok bool
		if p, q, ok = factor(n, e, d); !ok {
			return nil, ck.CKR_ATTRIBUTE_VALUE_INVALID
		}
		scratch = append(scratch, p, q)
	}
	one := big.NewInt(1)
	p1, q1 := new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)
	scratch = append(scratch, p1, q1)
	if p1.Sign() <= 0 || q1.Sign() <= 0 {
		return nil, ck.CKR_ATTRIBUTE_VALUE_INVALID
	}
	part := func(a ck.Attribute, f func(*big.Int) *big.Int) *big.Int {
		x := num(a)
		if x.Sign() == 0 && f(x) == nil {
			x.SetInt64(0) // there is none: what reads the numbers will say so
		}
		scratch = append(scratch, x)
		return x
	}
	dp := part(ck.CKA_EXPONENT_1, func(x *big.Int) *big.Int { return x.Mod(d, p1) })
	dq := part(ck.CKA_EXPONENT_2, func(x *big.Int) *big.Int { return x.Mod(d, q1) })
	inverse := part(ck.CKA_COEFFICIENT, func(x *big.Int) *big.Int { return x.ModInverse(q, p) })
	return &sessionkey.RSANumbers{Modulus: n.Bytes(), PublicExponent: e.Bytes(), PrivateExponent: d.Bytes(), Prime1: p.Bytes(), Prime2: q.Bytes(),
		Exponent1: dp.Bytes(), Exponent2: dq.Bytes(), Coefficient: inverse.Bytes()}, ck.CKR_OK
}

func wipeNumbers(all []*big.Int) {
	for _, x := range all {
		clear(x.Bits())
	}
}

// factor finds the primes of a modulus by a pair of exponents (NIST SP 800-56B, appendix C). Bases are the small primes in turn: each finds them with
// a probability of at least one half, and the first one tells exponents that do not fit. It is not constant in time, which a key that its owner just
// sent need not be.
func factor(n, e, d *big.Int) (p, q *big.Int, ok bool) {
	one := big.NewInt(1)
	k := new(big.Int).Mul(d, e)
	k.Sub(k, one)
	if k.Sign() <= 0 || k.Bit(0) != 0 || n.Bit(0) == 0 || n.ProbablyPrime(1) {
		return nil, nil, false
	}
	t := k.TrailingZeroBits()
	r := new(big.Int).Rsh(k, t)
	last := new(big.Int).Sub(n, one)
	x, square := new(big.Int), new(big.Int)
	defer func() { wipeNumbers([]*big.Int{k, r, x, square}) }()
	for _, base := range smallPrimes {
		x.Exp(big.NewInt(base), r, n)
		trivial := false
		for i := uint(0); i < t && !trivial; i++ {
			if x.Cmp(one) == 0 || x.Cmp(last) == 0 {
				trivial = true
				continue
			}
			square.Mul(x, x)
			square.Mod(square, n)
			if square.Cmp(one) == 0 { // x is a root of 1 that is neither 1 nor -1
				p = new(big.Int).GCD(nil, nil, x.Sub(x, one), n)
				q = new(big.Int).Div(n, p)
				if p.Cmp(q) < 0 {
					p, q = q, p
				}
				return p, q, true
			}
			x, square = square, x
		}
		if !trivial {
			return nil, nil, false // base to the power of d*e is not base
		}
	}
	return nil, nil, false
}

// smallPrimes are enough: all of them fail for one good key in 2^20. A modulus that is a power of a prime keeps the processor busy for a
// second.
var smallPrimes = []int64{2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71}
