package kms

import (
	"context"
	"math/big"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/kms/kmswire"
)

// version opens one version of an asymmetric key for a use and an algorithm. The caller releases it.
func (c *call) version(g grant, versionID, versionParam string, usage kmswire.KeyUsage, alg kmswire.Algorithm, algParam string) (*material, error) {
	if versionID == "" {
		return nil, Missing(versionParam)
	}
	c.event.VersionID = versionID
	if g.spec.symmetric() {
		return nil, Errorf(OperationRejected, "%s is a symmetric key", g.key.ID)
	}
	if err := c.fits(g, usage); err != nil {
		return nil, err
	}
	fitting := g.spec.sign
	if usage == kmswire.EncryptDecrypt {
		fitting = g.spec.encrypt
	}
	if alg == "" {
		return nil, Missing(algParam)
	}
	if !slices.Contains(fitting, alg) {
		return nil, Invalid(algParam, "%q does not fit: %s keys take %v", alg, g.key.Spec, fitting)
	}
	if !c.dryRun {
		if err := c.charge(g, max(1, c.event.Items)); err != nil {
			return nil, err
		}
	}
	return c.materials.get(c.ctx, g, versionID)
}

func checkDigest(d []byte) error {
	if len(d) == 0 {
		return Missing("Digest")
	}
	if len(d) != kmswire.DigestSize {
		return Invalid("Digest", "%d octets, a SHA-256 digest has %d", len(d), kmswire.DigestSize)
	}
	return nil
}

func checkVerify(digest, value []byte) error {
	if err := checkDigest(digest); err != nil {
		return err
	}
	if len(value) == 0 {
		return Missing("Value")
	}
	return nil
}

// AsymmetricSign signs a SHA-256 digest.
func (s *Service) AsymmetricSign(ctx context.Context, actor *Actor, req *kmswire.AsymmetricSignRequest) (*kmswire.AsymmetricSignResponse, error) {
	return audited(s, ctx, actor, actAsymmetricSign, req.DryRun, func(c *call) (*kmswire.AsymmetricSignResponse, error) {
		if err := checkDigest(req.Digest); err != nil {
			return nil, err
		}
		g, m, err := c.signWith(req.KeyID, req.KeyVersionID, req.Algorithm)
		if err != nil {
			return nil, err
		}
		defer m.release()
		value, err := c.sign(m, req.Algorithm, req.Digest)
		if err != nil {
			return nil, err
		}
		return &kmswire.AsymmetricSignResponse{KeyID: g.key.ID, KeyVersionID: m.version.ID, Value: value}, nil
	})
}

// signWith authorizes the call's action on a signing key and opens a version. It ends a dry run. The caller releases the
// material.
func (c *call) signWith(keyID, versionID string, alg kmswire.Algorithm) (grant, *material, error) {
	g, err := c.authorizeRef(keyID)
	if err != nil {
		return g, nil, err
	}
	m, err := c.version(g, versionID, "KeyVersionId", kmswire.SignVerify, alg, "Algorithm")
	if err != nil {
		return g, nil, err
	}
	if err := c.dryRunEnd(); err != nil {
		m.release()
		return g, nil, err
	}
	return g, m, nil
}

// sign makes one signature.
func (c *call) sign(m *material, alg kmswire.Algorithm, digest []byte) ([]byte, error) {
	if m.private != nil {
		value, err := m.private.Sign(alg, digest)
		if err != nil {
			return nil, &Error{Code: Internal, Err: err}
		}
		return value, nil
	}
	j := m.signJob(c.actor, alg, digest)
	if err := c.pool.Do(c.ctx, j); err != nil {
		return nil, poolError(err, nil)
	}
	return m.signature(alg, digest, j.Out)
}

func (m *material) signJob(a *Actor, alg kmswire.Algorithm, digest []byte) *hsmpool.Job {
	return &hsmpool.Job{Op: signOps[alg], Key: m.hsm, In: digest, Principal: a.Principal}
}

// signature turns what an HSM gave into what the API gives. An RSA signature is checked first, because one that was
// computed wrongly by a faulty HSM can give the private key away (Boneh, DeMillo, Lipton), and checking costs a thirtieth
// of signing.
func (m *material) signature(alg kmswire.Algorithm, digest, out []byte) ([]byte, error) {
	if alg == kmswire.ECDSASHA256 {
		return ecdsaDER(out)
	}
	if ok, err := m.public.Verify(alg, digest, out); err != nil || !ok {
		return nil, &Error{Code: Internal, Detail: "the HSM gave a wrong signature", Err: err}
	}
	return out, nil
}

// ecdsaDER turns r and s, each half of rs, into the ASN.1 form of RFC 3279 section 2.2.3.
func ecdsaDER(rs []byte) ([]byte, error) {
	if len(rs) == 0 || len(rs)%2 != 0 {
		return nil, Errorf(Internal, "an HSM gave an ECDSA signature of %d octets", len(rs))
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(rs[:len(rs)/2]))
		b.AddASN1BigInt(new(big.Int).SetBytes(rs[len(rs)/2:]))
	})
	return b.Bytes()
}

// AsymmetricVerify checks a signature. One that is wrong, in whatever way, gives Value false and no error.
func (s *Service) AsymmetricVerify(ctx context.Context, actor *Actor, req *kmswire.AsymmetricVerifyRequest) (*kmswire.AsymmetricVerifyResponse, error) {
	return audited(s, ctx, actor, actAsymmetricVerify, req.DryRun, func(c *call) (*kmswire.AsymmetricVerifyResponse, error) {
		if err := checkVerify(req.Digest, req.Value); err != nil {
			return nil, err
		}
		g, m, err := c.signWith(req.KeyID, req.KeyVersionID, req.Algorithm)
		if err != nil {
			return nil, err
		}
		defer m.release()
		ok, err := m.public.Verify(req.Algorithm, req.Digest, req.Value)
		if err != nil {
			return nil, &Error{Code: Internal, Err: err}
		}
		return &kmswire.AsymmetricVerifyResponse{KeyID: g.key.ID, KeyVersionID: m.version.ID, Value: ok}, nil
	})
}

// AsymmetricEncrypt encrypts with the public key: RSA-OAEP, the bare block.
func (s *Service) AsymmetricEncrypt(ctx context.Context, actor *Actor, req *kmswire.AsymmetricEncryptRequest) (*kmswire.AsymmetricEncryptResponse, error) {
	return audited(s, ctx, actor, actAsymmetricEncrypt, req.DryRun, func(c *call) (*kmswire.AsymmetricEncryptResponse, error) {
		if len(req.Plaintext) == 0 {
			return nil, Missing("Plaintext")
		}
		c.algorithm = req.Algorithm
		g, err := c.authorizeRef(req.KeyID)
		if err != nil {
			return nil, err
		}
		m, err := c.version(g, req.KeyVersionID, "KeyVersionId", kmswire.EncryptDecrypt, req.Algorithm, "Algorithm")
		if err != nil {
			return nil, err
		}
		defer m.release()
		if n := m.public.MaxPlaintext(req.Algorithm); len(req.Plaintext) > n {
			return nil, Invalid("Plaintext", "%d octets, %s takes at most %d with %s", len(req.Plaintext), g.key.Spec, n, req.Algorithm)
		}
		if err := c.dryRunEnd(); err != nil {
			return nil, err
		}
		out, err := m.public.Encrypt(req.Algorithm, req.Plaintext)
		if err != nil {
			return nil, &Error{Code: Internal, Err: err}
		}
		return &kmswire.AsymmetricEncryptResponse{KeyID: g.key.ID, KeyVersionID: m.version.ID, CiphertextBlob: out}, nil
	})
}

// AsymmetricDecrypt decrypts with the private key.
func (s *Service) AsymmetricDecrypt(ctx context.Context, actor *Actor, req *kmswire.AsymmetricDecryptRequest) (*kmswire.AsymmetricDecryptResponse, error) {
	return audited(s, ctx, actor, actAsymmetricDecrypt, req.DryRun, func(c *call) (*kmswire.AsymmetricDecryptResponse, error) {
		c.algorithm = req.Algorithm
		g, err := c.authorizeRef(req.KeyID)
		if err != nil {
			return nil, err
		}
		plaintext, err := c.asymmetricDecrypt(g, req.KeyVersionID, "KeyVersionId", req.Algorithm, "Algorithm", req.CiphertextBlob)
		if err != nil {
			return nil, err
		}
		return &kmswire.AsymmetricDecryptResponse{KeyID: g.key.ID, KeyVersionID: req.KeyVersionID, Plaintext: plaintext}, nil
	})
}

// asymmetricDecrypt opens an RSA-OAEP ciphertext. Whatever is wrong with it, there is one answer.
func (c *call) asymmetricDecrypt(g grant, versionID, versionParam string, alg kmswire.Algorithm, algParam string, ciphertext []byte) ([]byte, error) {
	if len(ciphertext) == 0 {
		return nil, Missing("CiphertextBlob")
	}
	m, err := c.version(g, versionID, versionParam, kmswire.EncryptDecrypt, alg, algParam)
	if err != nil {
		return nil, err
	}
	defer m.release()
	if err := c.dryRunEnd(); err != nil {
		return nil, err
	}
	bad := badCiphertext(m)
	if m.private != nil {
		plaintext, err := m.private.Decrypt(alg, ciphertext)
		if err != nil {
			return nil, bad
		}
		return plaintext, nil
	}
	if !m.belowModulus(ciphertext) {
		return nil, bad
	}
	j := &hsmpool.Job{Op: decryptOps[alg], Key: m.hsm, In: ciphertext, Principal: c.actor.Principal}
	if err := c.pool.Do(c.ctx, j); err != nil {
		return nil, poolError(err, bad)
	}
	return j.Out, nil
}
