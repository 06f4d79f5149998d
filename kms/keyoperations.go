package kms

import (
	"crypto/rand"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/kms/rsapad"
)

// rawRSA is the bare operation.
var rawRSA = &mechanism.Mechanism{Kind: mechanism.RSARaw}

// job is a use as the pool does it.
func (m *material) job(a *Actor, verb Verb, by *mechanism.Mechanism, in []byte) *hsmpool.Job {
	return &hsmpool.Job{Op: keyUses[by.Kind].verbs[verb].op, Key: m.hsm, In: in, Nonce: by.IV, AAD: by.AAD, Hash: by.Hash, MGF: by.MGF,
		Salt: by.Salt, Label: by.Label, TagBits: by.TagBits, Principal: a.Principal}
}

// belowModulus says whether RSA takes in, of k octets, as a number. A token that gets a larger one may give an error that looks like its
// own, and is put out of use after some. It costs one operation with the public key.
func (m *material) belowModulus(in []byte) bool {
	_, err := m.public.EncryptBy(rawRSA, in)
	return err == nil
}

// signBy is SignWith. An RSA signature of an HSM is checked first, as for AsymmetricSign: see signature.
func (c *call) signBy(m *material, use *KeyUse) ([]byte, error) {
	by := use.Mechanism
	if m.private != nil {
		out, err := m.private.SignBy(by, use.Input)
		return out, softkeyError(err, nil)
	}
	if by.Kind == mechanism.RSARaw && !m.belowModulus(use.Input) {
		return nil, Invalid("Input", "the number is not below the modulus")
	}
	out, err := c.inHSM(m, Sign, by, use.Input)
	if err != nil || by.Kind == mechanism.ECDSA {
		return out, err
	}
	if ok, err := m.public.VerifyBy(by, use.Input, out); err != nil || !ok {
		return nil, &Error{Code: Internal, Detail: "the HSM gave a wrong signature", Err: err}
	}
	return out, nil
}

// encryptBy is EncryptWith.
func (c *call) encryptBy(m *material, use *KeyUse) ([]byte, error) {
	by := use.Mechanism
	if m.public != nil {
		out, err := m.public.EncryptBy(by, use.Input)
		return out, softkeyError(err, nil)
	}
	drawn := draws(Encrypt, by)
	if by.Kind == mechanism.AESGCM && (drawn || m.hsm != nil) {
		// In an HSM the blobs of the API have their IVs under the same key, and they count together.
		if err := m.calls.take(c.ctx, 1); err != nil {
			return nil, err
		}
	}
	if !drawn {
		return c.cipher(m, Encrypt, by, use.Input)
	}
	own := *by
	own.IV = make([]byte, gcmIV, gcmIV+len(use.Input)+by.TagBits/8)
	rand.Read(own.IV) // never fails
	sealed, err := c.cipher(m, Encrypt, &own, use.Input)
	if err != nil {
		return nil, err
	}
	return append(own.IV, sealed...), nil
}

// decryptBy is DecryptWith.
func (c *call) decryptBy(m *material, use *KeyUse) ([]byte, error) {
	by := use.Mechanism
	switch {
	case m.public == nil:
		return c.cipher(m, Decrypt, by, use.Input)
	case by.Kind == mechanism.RSAPKCS1:
		em, err := c.decryptRSA(m, rawRSA, use.Input)
		if err != nil {
			return nil, err
		}
		return rsapad.Unpad(em, use.Input, m.rejection), nil // the rest of em is zero now
	}
	return c.decryptRSA(m, by, use.Input)
}

func (c *call) decryptRSA(m *material, by *mechanism.Mechanism, ciphertext []byte) ([]byte, error) {
	if m.private != nil {
		out, err := m.private.DecryptBy(by, ciphertext)
		if err != nil {
			return nil, softkeyError(err, badCiphertext(m))
		}
		return out, nil
	}
	if !m.belowModulus(ciphertext) {
		return nil, badCiphertext(m)
	}
	return c.inHSM(m, Decrypt, by, ciphertext)
}

// inHSM does a use with a key in an HSM.
func (c *call) inHSM(m *material, verb Verb, by *mechanism.Mechanism, in []byte) ([]byte, error) {
	j := m.job(c.actor, verb, by, in)
	err := c.pool.Do(c.ctx, j)
	switch {
	case err == nil:
		return j.Out, nil
	case verb == Decrypt:
		return nil, poolError(err, badCiphertext(m))
	}
	return nil, poolError(err, nil)
}

// cipher encrypts or decrypts by a mode of AES.
func (c *call) cipher(m *material, verb Verb, by *mechanism.Mechanism, in []byte) ([]byte, error) {
	switch {
	case m.aes != nil && verb == Encrypt:
		out, err := m.aes.EncryptBy(by, in)
		return out, softkeyError(err, nil)
	case m.aes != nil:
		out, err := m.aes.DecryptBy(by, in)
		if err != nil {
			return nil, softkeyError(err, badCiphertext(m))
		}
		return out, nil
	case len(in) == 0 && by.Kind != mechanism.AESGCM:
		return []byte{}, nil // there is nothing for an HSM to do
	}
	return c.inHSM(m, verb, by, in)
}
