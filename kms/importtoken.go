package kms

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"math/big"
	"slices"
	"time"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/keywrap"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/softkey"
)

// wrapRow is one way to wrap material.
type wrapRow struct {
	algorithm kmswire.Algorithm
	oaep      kmswire.Algorithm // of the RSA block; empty: PKCS#1 v1.5
	kwp       bool              // the block has a temporary AES key, which wraps the material
	hsm       hsmpool.ImportAlgorithm
}

// wrappings has a row for each WrappingAlgorithm. Tokens hold a row's index: the order never changes.
var wrappings = []*wrapRow{
	{kmswire.WrapPKCS1, "", false, hsmpool.ImportPKCS1},
	{kmswire.RSAOAEPSHA1, kmswire.RSAOAEPSHA1, false, hsmpool.ImportOAEPSHA1},
	{kmswire.RSAOAEPSHA256, kmswire.RSAOAEPSHA256, false, hsmpool.ImportOAEPSHA256},
	{kmswire.WrapOAEPSHA1KWP, kmswire.RSAOAEPSHA1, true, hsmpool.ImportOAEPSHA1KWP},
	{kmswire.WrapOAEPSHA256KWP, kmswire.RSAOAEPSHA256, true, hsmpool.ImportOAEPSHA256KWP},
}

const (
	tokenVersion  = 1
	tokenHead     = 1 + 1 + 1 + 8 // version, wrapping, where, expiry
	tokenLifetime = 24 * time.Hour
	tokenSecret   = "import token " // tokens are sealed under this and the key's ID

	transportSpec = kmswire.RSA2048      // of the pair whose public half material is wrapped with
	transportSize = 2048 / 8             // octets of its RSA block
	maxWrapped    = transportSize + 8192 // octets of wrapped material; PKCS#8 of an RSA-4096 key has 2,400
)

// Where the private key of a token can be used.
const (
	inSoftware = iota // it is PKCS#8 DER
	inHSM             // it is wrapped by the wrap key
)

// importToken is what an import token holds: the private half of the pair that belongs to it. The caller has it, sealed for one key,
// so nothing is kept here and nothing is left when it expires.
type importToken struct {
	wrapping *wrapRow
	where    byte // inSoftware or inHSM
	expires  time.Time
	private  []byte
}

// wipe wipes the private key. One that only an HSM can use is no secret, and the pool may look at it for a moment after a call has ended.
func (t *importToken) wipe() {
	if t.where == inSoftware {
		clear(t.private)
	}
}

// marshal writes the token. The caller wipes it.
//
//	token = version 1 | index in wrappings 1 | where 1 | expiry, Unix seconds, big-endian 8 | private key
func (t *importToken) marshal() []byte {
	b := make([]byte, 0, tokenHead+len(t.private))
	b = append(b, tokenVersion, byte(slices.Index(wrappings, t.wrapping)), t.where)
	b = binary.BigEndian.AppendUint64(b, uint64(t.expires.Unix()))
	return append(b, t.private...)
}

// parseImportToken reads what marshal gave. The private key is a part of b.
func parseImportToken(b []byte) (*importToken, bool) {
	if len(b) <= tokenHead || b[0] != tokenVersion || int(b[1]) >= len(wrappings) || b[2] > inHSM {
		return nil, false
	}
	expires := binary.BigEndian.Uint64(b[3:])
	if expires > maxUnixTime {
		return nil, false
	}
	return &importToken{wrappings[b[1]], b[2], time.Unix(int64(expires), 0).UTC(), b[tokenHead:]}, true
}

// sealToken seals a token for a key. It opens for no other, in no other store.
func (s *Service) sealToken(k *keystore.Key, t *importToken) ([]byte, error) {
	b := t.marshal()
	defer clear(b)
	sealed, err := s.store.SealSecret(tokenSecret+k.ID, b)
	if err == nil && len(sealed) > kmswire.MaxImportToken {
		err = errors.New("kms: an import token is too long")
	}
	return sealed, err
}

// openToken undoes sealToken. The caller wipes the token.
func (s *Service) openToken(k *keystore.Key, sealed []byte) (*importToken, error) {
	bad := Errorf(InvalidImportToken, "it is not one that GetParametersForImport gave for %s", k.ID)
	if len(sealed) > kmswire.MaxImportToken {
		return nil, bad
	}
	b, err := s.store.OpenSecret(tokenSecret+k.ID, sealed)
	if errors.Is(err, keystore.ErrDamaged) {
		return nil, bad
	}
	if err != nil {
		return nil, storeError(err)
	}
	t, ok := parseImportToken(b)
	if !ok || (t.where == inHSM) != (k.Protection == kmswire.ProtectionHSM) {
		clear(b)
		return nil, bad
	}
	if !s.now().Before(t.expires) {
		t.wipe()
		return nil, Errorf(ExpiredImportToken, "it was good until %s; wrap the material anew with what GetParametersForImport gives now", formatTime(t.expires))
	}
	return t, nil
}

// newTransport makes a key pair for wrapping material, and gives its public half as DER SubjectPublicKeyInfo.
func (s *Service) newTransport(ctx context.Context, k *keystore.Key, w *wrapRow) (t *importToken, public []byte, err error) {
	t = &importToken{wrapping: w, expires: s.now().UTC().Truncate(time.Second).Add(tokenLifetime)}
	if k.Protection == kmswire.ProtectionHSM {
		made, err := s.pool.GenerateTransport(ctx)
		if err != nil {
			return nil, nil, poolError(err, nil)
		}
		t.where, t.private = inHSM, made.Wrapped
		return t, made.PublicKey, nil
	}
	pair, err := softkey.GenerateKey(transportSpec)
	if err != nil {
		return nil, nil, &Error{Code: Internal, Err: err}
	}
	defer pair.Close()
	t.where = inSoftware
	if t.private, err = pair.Marshal(); err != nil {
		return nil, nil, &Error{Code: Internal, Err: err}
	}
	return t, pair.Public().Marshal(), nil
}

// errMaterial is the one answer to material that can't be imported. Which check failed is not told: with PKCS#1 v1.5 that
// would let others decrypt what was wrapped (Bleichenbacher).
func errMaterial(g grant) *Error {
	if g.spec.symmetric() {
		return Errorf(InvalidKeyMaterial, "it must be %d octets, wrapped for this import token, and after the first import of %s the same as then",
			g.spec.aesBytes, g.key.ID)
	}
	return Errorf(InvalidKeyMaterial, "it must be the PKCS#8 DER of a good %s private key, wrapped for this import token, and after the first import of %s the same as then",
		g.spec.name, g.key.ID)
}

// unwrapSecret gives size octets whatever happens: the material, and 1, or random octets that nobody knows, and 0. It does the same work
// in both cases, and so does its caller, up to the moment when all that it knows is put together.
func (t *importToken) unwrapSecret(wrapped []byte, size int) (secret []byte, good int, err error) {
	secret = make([]byte, size)
	rand.Read(secret) // never fails
	if t.wrapping.oaep == "" {
		good, err = t.unwrapPKCS1(wrapped, secret)
		return secret, good, err
	}
	got, err := t.unwrap(wrapped)
	if err != nil {
		return nil, 0, err
	}
	defer clear(got)
	if len(got) == size {
		copy(secret, got)
		good = 1
	}
	return secret, good, nil
}

// unwrapPKCS1 puts the material into secret, which is random, if the padding is good and it has that length. Neither the call nor its
// time says so: that secret has changed does.
func (t *importToken) unwrapPKCS1(wrapped, secret []byte) (good int, err error) {
	parsed, err := x509.ParsePKCS8PrivateKey(t.private)
	private, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return 0, &Error{Code: Internal, Detail: "the key of an import token can't be read", Err: err}
	}
	defer wipeRSA(private)
	before := append([]byte(nil), secret...)
	defer clear(before)
	//lint:ignore SA1019 the API has this padding, and this is the call that gives no oracle
	if err := rsa.DecryptPKCS1v15SessionKey(nil, private, wrapped, secret); err != nil {
		return 0, nil // of the wrong length, or no smaller than the modulus: everybody sees that
	}
	return 1 - subtle.ConstantTimeCompare(before, secret), nil
}

// wipeRSA wipes what can be reached of a key.
func wipeRSA(k *rsa.PrivateKey) {
	clear(k.D.Bits())
	for _, p := range k.Primes {
		clear(p.Bits())
	}
	for _, n := range []*big.Int{k.Precomputed.Dp, k.Precomputed.Dq, k.Precomputed.Qinv} {
		clear(n.Bits())
	}
}

// unwrap undoes OAEP, and the key wrap if there is one. It gives nil when something is wrong. The caller wipes the result.
func (t *importToken) unwrap(wrapped []byte) ([]byte, error) {
	if len(wrapped) < transportSize || len(wrapped) > maxWrapped {
		return nil, nil
	}
	private, err := softkey.ParsePrivateKey(transportSpec, t.private)
	if err != nil {
		return nil, &Error{Code: Internal, Detail: "the key of an import token can't be read", Err: err}
	}
	defer private.Close()
	block, rest := wrapped[:transportSize], wrapped[transportSize:]
	if t.wrapping.kwp != (len(rest) > 0) {
		return nil, nil
	}
	opened, err := private.Decrypt(t.wrapping.oaep, block)
	if err != nil && !errors.Is(err, softkey.ErrDecrypt) {
		return nil, &Error{Code: Internal, Err: err}
	}
	if !t.wrapping.kwp {
		return opened, nil
	}
	defer clear(opened)
	switch len(opened) {
	case 16, 24, 32:
	default: // the same work is done with a key that fits nothing
		opened = make([]byte, 32)
		rand.Read(opened)
	}
	material, err := keywrap.Unwrap(opened, rest)
	if err != nil {
		return nil, nil
	}
	return material, nil
}
