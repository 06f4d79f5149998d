package hsmpool

import (
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"math/big"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// recoveryDigests are what an imported EC key signs so that its public key can be computed.
var recoveryDigests = [3][sha256.Size]byte{
	sha256.Sum256([]byte("keyward: first proof of an imported key")),
	sha256.Sum256([]byte("keyward: second proof of an imported key")),
	sha256.Sum256([]byte("keyward: third proof of an imported key")),
}

// recoverECPublic computes the SubjectPublicKeyInfo of the key that has made signatures (r and s) of recoveryDigests. One ECDSA
// signature fits two keys: r is the abscissa of a point R, whose ordinate may be either root, and Q = (sR - zG)/r (SEC 1, §4.1.6).
// The second signature tells which it is, and the third confirms it. That r may have been reduced modulo the order, which
// one signature in 2^127 was, is left out.
func recoverECPublic(kt KeyType, signatures [len(recoveryDigests)][]byte) ([]byte, error) {
	c := curveOf(kt)
	size := keyTypes[kt].octets
	if len(signatures[0]) != 2*size {
		return nil, errors.New("a signature that is not r and s")
	}
	r, s := new(big.Int).SetBytes(signatures[0][:size]), new(big.Int).SetBytes(signatures[0][size:])
	if r.Sign() == 0 || s.Sign() == 0 || r.Cmp(c.n) >= 0 || s.Cmp(c.n) >= 0 {
		return nil, errors.New("a signature with r or s out of range")
	}
	y := c.ordinate(r)
	if y == nil {
		return nil, errors.New("a signature that no point of the curve can have given")
	}
	inverse := new(big.Int).ModInverse(r, c.n)
	z := new(big.Int).SetBytes(recoveryDigests[0][:])
	u := z.Mul(z, inverse).Neg(z)
	u.Mod(u, c.n)
	v := s.Mul(s, inverse)
	v.Mod(v, c.n)
	var found []byte
	for _, y := range []*big.Int{y, new(big.Int).Sub(c.p, y)} {
		q := c.combine(u, &affine{c.gx, c.gy}, v, &affine{r, y})
		if q == nil {
			continue
		}
		point := make([]byte, 1+2*size)
		point[0] = 4
		q.x.FillBytes(point[1 : 1+size])
		q.y.FillBytes(point[1+size:])
		spki, err := marshalECPublic(kt, point)
		if err != nil {
			return nil, err
		}
		if verifySignature(kt, spki, recoveryDigests[1][:], signatures[1]) != nil {
			continue
		}
		if found != nil {
			return nil, errors.New("the signatures fit two keys")
		}
		found = spki
	}
	if found == nil {
		return nil, errors.New("the signatures fit no key")
	}
	if err := verifySignature(kt, found, recoveryDigests[2][:], signatures[2]); err != nil {
		return nil, err
	}
	return found, nil
}

// curve is y² = x³ + ax + b over p with a generator of order n. Its arithmetic takes times that depend on the values: it is for
// public ones.
type curve struct{ p, n, a, b, gx, gy *big.Int }

func curveOf(kt KeyType) *curve {
	if kt == P256 {
		c := elliptic.P256().Params()
		return &curve{c.P, c.N, big.NewInt(-3), c.B, c.Gx, c.Gy}
	}
	c := secp256k1.Params()
	return &curve{c.P, c.N, new(big.Int), big.NewInt(7), c.Gx, c.Gy}
}

// affine is a point; nil is the point at infinity.
type affine struct{ x, y *big.Int }

// ordinate gives one of the two for an abscissa, or nil.
func (c *curve) ordinate(x *big.Int) *big.Int {
	y := new(big.Int).Mul(x, x)
	y.Add(y, c.a).Mul(y, x).Add(y, c.b).Mod(y, c.p)
	return y.ModSqrt(y, c.p)
}

func (c *curve) add(g, h *affine) *affine {
	switch {
	case g == nil:
		return h
	case h == nil:
		return g
	}
	up, down := new(big.Int), new(big.Int)
	if g.x.Cmp(h.x) != 0 {
		up.Sub(h.y, g.y)
		down.Sub(h.x, g.x)
	} else {
		if g.y.Cmp(h.y) != 0 || g.y.Sign() == 0 {
			return nil
		}
		up.Mul(g.x, g.x).Mul(up, big.NewInt(3)).Add(up, c.a)
		down.Lsh(g.y, 1)
	}
	slope := down.ModInverse(down.Mod(down, c.p), c.p)
	slope.Mul(slope, up).Mod(slope, c.p)
	x := new(big.Int).Mul(slope, slope)
	x.Sub(x, g.x).Sub(x, h.x).Mod(x, c.p)
	y := new(big.Int).Sub(g.x, x)
	y.Mul(y, slope).Sub(y, g.y).Mod(y, c.p)
	return &affine{x, y}
}

// combine is ug + vh, by one chain of doublings.
func (c *curve) combine(u *big.Int, g *affine, v *big.Int, h *affine) (sum *affine) {
	both := c.add(g, h)
	for i := max(u.BitLen(), v.BitLen()) - 1; i >= 0; i-- {
		sum = c.add(sum, sum)
		switch u.Bit(i) | v.Bit(i)<<1 {
		case 1:
			sum = c.add(sum, g)
		case 2:
			sum = c.add(sum, h)
		case 3:
			sum = c.add(sum, both)
		}
	}
	return sum
}
