package sessionkey

import (
	"crypto"
	"crypto/sha256"
	"sync"
	"sync/atomic"

	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/kms/rsapad"
	"github.com/keyward/keyward/kms/softkey"
	"github.com/keyward/keyward/kms/softkey/libcrypto"
)

// Private is a private key: RSA or EC.
type Private struct {
	key    *libcrypto.Key
	public *Public

	gave *atomic.Bool // a copy has the same; see GiveSecret

	mu        sync.Mutex // guards rejection
	rejection []byte     // secret of implicit rejection; by RejectBy, or made by the first RSAPKCS1 decryption
}

// GenerateRSA makes a key pair with the exponent 65537. It takes a second at 4096 bits, now and then several. ErrSize for sizes that are
// not 1024 to 4096 bits in steps of 64.
func GenerateRSA(bits int) (*Private, error) {
	key, err := libcrypto.GenerateRSA(bits)
	if err != nil {
		return nil, softkey.Translate(err)
	}
	return newPrivate(key)
}

// GenerateEC makes a key pair on a curve. ErrAlgorithm if there is no such curve.
func GenerateEC(curve Curve) (*Private, error) {
	row, ok := curves[curve]
	if !ok {
		return nil, ErrAlgorithm
	}
	key, err := libcrypto.GenerateEC(row.kind)
	if err != nil {
		return nil, softkey.Translate(err)
	}
	return newPrivate(key)
}

// ParsePrivate reads DER PKCS #8, PrivateKeyInfo, and checks that its parts fit each other; that the primes of an RSA key are prime it
// does not check: it takes 36 ms at 2048 bits and 250 ms at 4096, and a client who brings a bad key fools himself. ErrMalformed as
// ParsePublic, and for RSA keys without their primes or with more than two. The caller wipes der.
func ParsePrivate(der []byte) (*Private, error) {
	key, err := libcrypto.ParsePKCS8(der)
	if err != nil {
		return nil, softkey.Translate(err)
	}
	return newPrivate(key)
}

// NewRSAPrivate makes a key of its numbers, all of which must be there. ErrMalformed as ParsePrivate. The caller wipes the numbers.
func NewRSAPrivate(n *RSANumbers) (*Private, error) {
	key, err := libcrypto.NewRSA([][]byte{n.Modulus, n.PublicExponent, n.PrivateExponent, n.Prime1, n.Prime2, n.Exponent1, n.Exponent2, n.Coefficient})
	if err != nil {
		return nil, softkey.Translate(err)
	}
	return newPrivate(key)
}

// NewECPrivate makes a key of its number and, if that is not empty, its point, in either form that Curve.Point takes. ErrMalformed if the
// number is not from 1 to the order less one, or the point is not its own. The caller wipes value.
func NewECPrivate(curve Curve, value, point []byte) (*Private, error) {
	if len(value) == 0 {
		return nil, ErrMalformed
	}
	if len(point) != 0 {
		var err error
		if point, err = curve.Point(point); err != nil {
			return nil, err
		}
	}
	key, err := libcrypto.NewEC(curves[curve].kind, value, point)
	if err != nil {
		return nil, softkey.Translate(err)
	}
	return newPrivate(key)
}

// newPrivate takes ownership of key.
func newPrivate(key *libcrypto.Key) (*Private, error) {
	spki, err := key.MarshalSPKI()
	if err == nil {
		var public *Public
		if public, err = ParsePublic(spki); err == nil {
			return &Private{key: key, public: public, gave: new(atomic.Bool)}, nil
		}
	}
	key.Close()
	return nil, softkey.Translate(err)
}

// Copy makes another key of the same numbers.
func (k *Private) Copy() (*Private, error) {
	der, err := k.Marshal()
	if err != nil {
		return nil, err
	}
	defer clear(der)
	next, err := ParsePrivate(der)
	if err != nil {
		return nil, err
	}
	next.gave = k.gave
	return next, nil
}

// GiveSecret notes that a secret was derived from the key which nobody is to read; GaveSecret says so of the key and of its copies.
func (k *Private) GiveSecret() { k.gave.Store(true) }

// GaveSecret is GiveSecret's answer.
func (k *Private) GaveSecret() bool { return k.gave.Load() }

// Kind is RSA or EC.
func (k *Private) Kind() Kind { return kindOf(k.key) }

// Bits is the size of the modulus, or of the order of the curve.
func (k *Private) Bits() int { return k.key.Bits() }

// Curve is the key's, "" for RSA.
func (k *Private) Curve() Curve { return curveOf(k.key.Kind()) }

// Public is the public half. It lives on when the private key is closed.
func (k *Private) Public() *Public { return k.public }

// Marshal gives the key as DER PKCS #8, which is what is wrapped. The caller wipes it.
func (k *Private) Marshal() ([]byte, error) {
	der, err := k.key.MarshalPKCS8()
	return der, softkey.Translate(err)
}

// SignBy signs by RSAPKCS1, RSARaw, RSAPSS or ECDSA. ErrAlgorithm if the mechanism does not fit the key, ErrSize if the input does not
// fit the mechanism.
func (k *Private) SignBy(m *mechanism.Mechanism, in []byte) ([]byte, error) {
	out, err := k.key.Sign(m, in)
	return out, softkey.Translate(err)
}

// DecryptBy is RSAOAEP, RSARaw, and RSAPKCS1 with implicit rejection: of that, nobody learns whether the padding was good, see
// rsapad.Unpad; ErrDecrypt is for ciphertexts that are not as long as the modulus and below it. Also what unwraps a secret key. The caller
// wipes the plaintext.
func (k *Private) DecryptBy(m *mechanism.Mechanism, in []byte) ([]byte, error) {
	if m.Kind != mechanism.RSAPKCS1 {
		out, err := k.key.Decrypt(m, in)
		return out, softkey.Translate(err)
	}
	if k.Kind() != RSA {
		return nil, ErrAlgorithm
	}
	secret, err := k.rejectionSecret()
	if err != nil {
		return nil, err
	}
	defer clear(secret[:])
	em, err := k.key.Decrypt(&rawRSA, in)
	if err != nil {
		return nil, softkey.Translate(err)
	}
	return rsapad.Unpad(em, in, secret[:]), nil
}

// RejectBy gives the key the secret of implicit rejection, rsapad.SecretSize octets, of which it takes a copy. It must depend on the key only. Without,
// it is the hash of the private exponent.
func (k *Private) RejectBy(secret []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.rejection)
	k.rejection = append([]byte(nil), secret...)
}

var rawRSA = mechanism.Mechanism{Kind: mechanism.RSARaw}

// rejectionSecret is a copy of the secret of implicit rejection: the hash of the private exponent, as draft-irtf-cfrg-rsa-guidance has it.
// It must depend on the key only, and not be drawn for the object: with a copy of the object, or one unwrapped a second time, somebody
// could ask twice, and see that only good padding gives the same message both times.
func (k *Private) rejectionSecret() (secret [rsapad.SecretSize]byte, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.rejection == nil {
		n, err := k.Numbers()
		if err != nil {
			return secret, err
		}
		defer n.Wipe()
		d := make([]byte, k.Bits()/8)
		defer clear(d)
		copy(d[len(d)-len(n.PrivateExponent):], n.PrivateExponent)
		sum := sha256.Sum256(d)
		k.rejection = sum[:]
	}
	copy(secret[:], k.rejection)
	return secret, nil
}

// ECDH agrees on a secret with the owner of a point, in either form that Curve.Point takes: the x coordinate of the product, and with a
// hash (CKD_SHA1_KDF and its kin) what the KDF of ANSI X9.63 makes of it and shared. It gives size octets: any number up to MaxSecret
// with a hash, and without one (CKD_NULL) the last of the coordinate, at least MinDerived of them; 0 is all of them. ErrMalformed if the
// point is not on the curve, ErrAlgorithm if there is no such KDF or it takes no shared data, ErrSize. The caller wipes the result.
func (k *Private) ECDH(point []byte, kdf crypto.Hash, shared []byte, size int) ([]byte, error) {
	if k.Kind() != EC {
		return nil, ErrAlgorithm
	}
	size, err := derivedSize(kdf, shared, size, k.Curve().Size())
	if err != nil {
		return nil, err
	}
	point, err = k.Curve().Point(point)
	if err != nil {
		return nil, err
	}
	z, err := k.key.ECDH(point)
	if err != nil {
		return nil, softkey.Translate(err)
	}
	defer clear(z)
	return derive(z, kdf, shared, size), nil
}

// Close wipes the key and frees its memory, with the end of the last call that is using it.
func (k *Private) Close() {
	k.key.Close()
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.rejection)
}
