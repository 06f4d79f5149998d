package kmsclient

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/keyward/keyward/kms/kmswire"
)

// SignTimeout bounds one signature of a Signer: crypto.Signer has no context.
const SignTimeout = 30 * time.Second

// Signer is a crypto.Signer whose private key stays with keyward: each Sign is one AsymmetricSign. It serves RSA
// (PKCS #1 v1.5, and PSS with a salt of 32 octets) and P-256, with SHA-256 only. It may be used by many goroutines.
type Signer struct {
	client         *Client
	keyID, version string
	public         crypto.PublicKey
}

var _ crypto.Signer = (*Signer)(nil)

// NewSigner makes a Signer for a version of a key. keyID may be an alias; an empty version means the newest one, as it
// is now.
func NewSigner(ctx context.Context, c *Client, keyID, version string) (*Signer, error) {
	if version == "" {
		var err error
		if version, err = NewestVersion(ctx, c, keyID); err != nil {
			return nil, err
		}
	}
	var answer kmswire.GetPublicKeyResponse
	if err := Call(ctx, c, "GetPublicKey", &kmswire.GetPublicKeyRequest{KeyID: keyID, KeyVersionID: version}, &answer); err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(answer.PublicKey))
	if block == nil {
		return nil, fmt.Errorf("kmsclient: GetPublicKey: the public key of %s is not PEM", version)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("kmsclient: the public key of %s cannot be used by a Signer: %w", version, err)
	}
	switch k := public.(type) {
	case *rsa.PublicKey:
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return nil, fmt.Errorf("kmsclient: a Signer has no curve %s", k.Curve.Params().Name)
		}
	default:
		return nil, fmt.Errorf("kmsclient: a Signer has no keys of type %T", public)
	}
	return &Signer{client: c, keyID: answer.KeyID, version: answer.KeyVersionID, public: public}, nil
}

// Public gives the public key: an *rsa.PublicKey or an *ecdsa.PublicKey.
func (s *Signer) Public() crypto.PublicKey { return s.public }

// KeyVersion says which version of which key signs.
func (s *Signer) KeyVersion() (keyID, versionID string) { return s.keyID, s.version }

// Sign signs a SHA-256 digest. The random source is not used: keyward has its own. With *rsa.PSSOptions the salt length
// must be 32, rsa.PSSSaltLengthEqualsHash or rsa.PSSSaltLengthAuto, which all mean 32 here.
func (s *Signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	algorithm, err := s.algorithm(opts)
	if err != nil {
		return nil, err
	}
	if len(digest) != kmswire.DigestSize {
		return nil, fmt.Errorf("kmsclient: a SHA-256 digest has %d octets, this one has %d", kmswire.DigestSize, len(digest))
	}
	ctx, cancel := context.WithTimeout(context.Background(), SignTimeout)
	defer cancel()
	return Sign(ctx, s.client, s.keyID, s.version, algorithm, digest)
}

func (s *Signer) algorithm(opts crypto.SignerOpts) (kmswire.Algorithm, error) {
	if opts == nil || opts.HashFunc() != crypto.SHA256 {
		return "", errors.New("kmsclient: keyward signs SHA-256 digests only")
	}
	if _, ok := s.public.(*ecdsa.PublicKey); ok {
		return kmswire.ECDSASHA256, nil
	}
	pss, ok := opts.(*rsa.PSSOptions)
	if !ok {
		return kmswire.RSAPKCS1SHA256, nil
	}
	switch pss.SaltLength {
	case kmswire.DigestSize, rsa.PSSSaltLengthEqualsHash, rsa.PSSSaltLengthAuto:
		return kmswire.RSAPSSSHA256, nil
	}
	return "", fmt.Errorf("kmsclient: keyward makes PSS signatures with a salt of 32 octets, not %d", pss.SaltLength)
}

// Sign is AsymmetricSign over a digest of 32 octets. The signature is the plain standard form: an RSA block, or ECDSA in
// DER.
func Sign(ctx context.Context, c *Client, keyID, version string, algorithm kmswire.Algorithm, digest []byte) ([]byte, error) {
	var answer kmswire.AsymmetricSignResponse
	err := Call(ctx, c, "AsymmetricSign", &kmswire.AsymmetricSignRequest{
		KeyID: keyID, KeyVersionID: version, Algorithm: algorithm, Digest: digest,
	}, &answer)
	if err != nil {
		return nil, err
	}
	if len(answer.Value) == 0 {
		return nil, errors.New("kmsclient: AsymmetricSign: the answer holds no signature")
	}
	return answer.Value, nil
}

// Versions calls visit for every version of a key, in the order of the list, which is that of their creation.
func Versions(ctx context.Context, c *Client, keyID string, visit func(kmswire.KeyVersion) error) error {
	seen := 0
	for page := 1; ; page++ {
		var answer kmswire.ListKeyVersionsResponse
		err := Call(ctx, c, "ListKeyVersions", &kmswire.ListKeyVersionsRequest{
			KeyID: keyID, Page: kmswire.Page{PageNumber: page, PageSize: kmswire.MaxPageSize},
		}, &answer)
		if err != nil {
			return err
		}
		for _, v := range answer.KeyVersions.KeyVersion {
			if err := visit(v); err != nil {
				return err
			}
		}
		n := len(answer.KeyVersions.KeyVersion)
		if seen += n; n == 0 || seen >= answer.TotalCount {
			return nil
		}
	}
}

// NewestVersion gives the ID of the version that was made last. Asymmetric keys have no primary version, so somebody
// has to choose: this is keywardctl's choice when signing.
func NewestVersion(ctx context.Context, c *Client, keyID string) (string, error) {
	var newest kmswire.KeyVersion
	err := Versions(ctx, c, keyID, func(v kmswire.KeyVersion) error {
		// Times have whole seconds and one fixed form, so text order is time order; the list's order decides a tie.
		if newest.KeyVersionID == "" || v.CreationDate >= newest.CreationDate {
			newest = v
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	if newest.KeyVersionID == "" {
		return "", fmt.Errorf("kmsclient: key %s has no version", keyID)
	}
	return newest.KeyVersionID, nil
}
