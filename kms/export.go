package kms

import (
	"context"
	"encoding/pem"

	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/softkey"
)

// wrapping is the caller's public key, and how to encrypt a data key with it.
type wrapping struct {
	key *softkey.PublicKey
	alg kmswire.Algorithm
}

// maxPublicKeyBlob bounds a PublicKeyBlob, in octets: RSA-4096 in PEM takes 800.
const maxPublicKeyBlob = 4096

// parseWrapping checks the three parameters that name the caller's public key (reference section 4.8). The caller closes
// the key.
func parseWrapping(publicKey []byte, alg kmswire.Algorithm, spec kmswire.KeySpec) (wrapping, error) {
	if spec != kmswire.RSA2048 {
		return wrapping{}, Invalid("WrappingKeySpec", "%q is not supported, %s is", spec, kmswire.RSA2048)
	}
	if alg != kmswire.RSAOAEPSHA256 && alg != kmswire.RSAOAEPSHA1 {
		return wrapping{}, Invalid("WrappingAlgorithm", "%q is neither %s nor %s", alg, kmswire.RSAOAEPSHA256, kmswire.RSAOAEPSHA1)
	}
	if len(publicKey) == 0 {
		return wrapping{}, Missing("PublicKeyBlob")
	}
	if len(publicKey) > maxPublicKeyBlob {
		return wrapping{}, Invalid("PublicKeyBlob", "longer than %d octets", maxPublicKeyBlob)
	}
	der := publicKey
	if block, _ := pem.Decode(publicKey); block != nil && block.Type == "PUBLIC KEY" {
		der = block.Bytes
	}
	key, err := softkey.ParsePublicKey(der)
	if err != nil {
		return wrapping{}, Invalid("PublicKeyBlob", "it is no DER SubjectPublicKeyInfo, nor PEM of one")
	}
	if got := key.Spec(); got != spec {
		key.Close()
		return wrapping{}, Invalid("PublicKeyBlob", "it is a key of spec %s, WrappingKeySpec says %s", got, spec)
	}
	return wrapping{key, alg}, nil
}

// fits says whether a data key of size octets can be wrapped.
func (w wrapping) fits(size int) error {
	if n := w.key.MaxPlaintext(w.alg); size > n {
		return Invalid("WrappingAlgorithm", "a data key of %d octets does not fit: at most %d do", size, n)
	}
	return nil
}

// wrap encrypts a data key for the caller's public key.
func (w wrapping) wrap(dataKey []byte) ([]byte, error) {
	if err := w.fits(len(dataKey)); err != nil {
		return nil, err
	}
	out, err := w.key.Encrypt(w.alg, dataKey)
	if err != nil {
		return nil, &Error{Code: Internal, Err: err}
	}
	return out, nil
}

// GenerateAndExportDataKey makes a random key and gives it as a blob and encrypted for the caller's public key, never in
// the clear.
func (s *Service) GenerateAndExportDataKey(ctx context.Context, actor *Actor, req *kmswire.GenerateAndExportDataKeyRequest) (*kmswire.GenerateAndExportDataKeyResponse, error) {
	return audited(s, ctx, actor, actGenerateAndExportDataKey, req.DryRun, func(c *call) (*kmswire.GenerateAndExportDataKeyResponse, error) {
		w, err := parseWrapping(req.PublicKeyBlob, req.WrappingAlgorithm, req.WrappingKeySpec)
		if err != nil {
			return nil, err
		}
		defer w.key.Close()
		size, err := dataKeySize(req.KeySpec, req.NumberOfBytes)
		if err == nil {
			err = w.fits(size)
		}
		if err != nil {
			return nil, err
		}
		k, err := c.newDataKey(req.KeyID, size, req.EncryptionContext)
		if err != nil {
			return nil, err
		}
		defer clear(k.plaintext)
		exported, err := w.wrap(k.plaintext)
		if err != nil {
			return nil, err
		}
		return &kmswire.GenerateAndExportDataKeyResponse{KeyID: k.keyID, KeyVersionID: k.versionID, CiphertextBlob: k.ciphertext, ExportedDataKey: exported}, nil
	})
}

// ExportDataKey opens a data key's blob and gives it encrypted for the caller's public key.
func (s *Service) ExportDataKey(ctx context.Context, actor *Actor, req *kmswire.ExportDataKeyRequest) (*kmswire.ExportDataKeyResponse, error) {
	return audited(s, ctx, actor, actExportDataKey, req.DryRun, func(c *call) (*kmswire.ExportDataKeyResponse, error) {
		w, err := parseWrapping(req.PublicKeyBlob, req.WrappingAlgorithm, req.WrappingKeySpec)
		if err != nil {
			return nil, err
		}
		defer w.key.Close()
		o, plaintext, err := c.decrypt(req.CiphertextBlob, req.EncryptionContext, actExportDataKey)
		if err != nil {
			return nil, err
		}
		defer clear(plaintext)
		exported, err := w.wrap(plaintext)
		if err != nil {
			return nil, err
		}
		return &kmswire.ExportDataKeyResponse{KeyID: o.key.ID, KeyVersionID: o.header.VersionID, ExportedDataKey: exported}, nil
	})
}
