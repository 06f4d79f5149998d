package kms

import (
	"context"
	"crypto/rand"
	"errors"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/blob"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/softkey"
)

// badBlob is the one answer to a ciphertext that does not open: cut, changed, of another key, or with another context.
// It does not say which.
func badBlob() *Error {
	return Invalid("CiphertextBlob", "it is damaged, or was made with another key or EncryptionContext")
}

func checkPlaintext(p []byte) error {
	if len(p) == 0 {
		return Missing("Plaintext")
	}
	if len(p) > kmswire.MaxPlaintext {
		return Invalid("Plaintext", "%d octets, at most %d are allowed; encrypt more with a data key (GenerateDataKey)", len(p), kmswire.MaxPlaintext)
	}
	return nil
}

// primary opens the version that encrypts.
func (c *call) primary(g grant) (*material, error) {
	if g.key.Primary == "" {
		return nil, Errorf(KeyUnavailable, "%s has no primary version", g.key.ID)
	}
	if err := c.charge(g, max(1, c.event.Items)); err != nil {
		return nil, err
	}
	return c.materials.get(c.ctx, g, g.key.Primary)
}

// sealing is one message on its way into a blob: the header is in place, the body follows.
type sealing struct {
	out   []byte // the header; grows into the blob
	aad   []byte
	nonce []byte // a part of out
}

// prepare writes the header of a new blob and what its tag covers.
func (m *material) prepare(plaintextLen int, encryptionContext map[string]string) (sealing, error) {
	alg := m.algorithm()
	// One piece of memory takes the blob and, behind it, what the tag covers, if there is no context. Nothing of it is
	// ever written by another call: an HSM may still read it when its caller has given up.
	size := alg.Size(plaintextLen)
	memory := make([]byte, size+aadRoom)
	var random [maxNonce]byte
	nonce := random[:alg.NonceSize()]
	rand.Read(nonce) // never fails
	out, err := blob.AppendHeader(memory[:0:size],
		blob.Header{Algorithm: alg, KeyID: m.version.KeyID, VersionID: m.version.ID, Nonce: nonce})
	if err != nil {
		return sealing{}, &Error{Code: Internal, Err: err}
	}
	aad, err := associated(memory[size:size], out, encryptionContext)
	return sealing{out, aad, out[len(out)-len(nonce):]}, err
}

// Sizes in octets: of the longest nonce, and of what the tag of a blob without a context covers, or a little more.
const (
	maxNonce = softkey.NonceSize
	aadRoom  = 80
)

// associated appends to dst what a blob's tag covers besides the ciphertext.
func associated(dst, header []byte, encryptionContext map[string]string) ([]byte, error) {
	aad, err := blob.AppendAAD(dst, header, encryptionContext)
	if err != nil {
		return nil, Invalid("EncryptionContext", "it is not valid UTF-8")
	}
	return aad, nil
}

// encrypt makes one blob.
func (c *call) encrypt(m *material, plaintext []byte, encryptionContext map[string]string) ([]byte, error) {
	if m.outside != nil {
		return c.encryptOutside(m, plaintext, encryptionContext)
	}
	if m.hsm != nil {
		if err := m.calls.take(c.ctx, 1); err != nil {
			return nil, err
		}
	}
	st, err := m.prepare(len(plaintext), encryptionContext)
	if err != nil {
		return nil, err
	}
	if m.aes != nil {
		return m.aes.Seal(st.out, st.nonce, plaintext, st.aad), nil
	}
	j := m.encryptJob(c.actor, st, plaintext)
	if err := c.pool.Do(c.ctx, j); err != nil {
		return nil, poolError(err, nil)
	}
	return append(st.out, j.Out...), nil
}

func (m *material) encryptJob(a *Actor, st sealing, plaintext []byte) *hsmpool.Job {
	return &hsmpool.Job{Op: hsmpool.EncryptGCM, Key: m.hsm, In: plaintext, Nonce: st.nonce, AAD: st.aad, Principal: a.Principal}
}

// opened is a parsed blob and its key, authorized.
type opened struct {
	grant
	header blob.Header
	head   []byte // the header's octets
	body   []byte
}

// locate parses a blob and authorizes act on the key that it names.
func (c *call) locate(ciphertext []byte, act *action) (opened, error) {
	if len(ciphertext) == 0 {
		return opened{}, Missing("CiphertextBlob")
	}
	h, n, err := blob.Parse(ciphertext)
	if err != nil {
		return opened{}, badBlob()
	}
	g, err := c.grantOf(h, act)
	return opened{g, h, ciphertext[:n], ciphertext[n:]}, err
}

// grantOf authorizes act on the key that a blob names.
func (c *call) grantOf(h blob.Header, act *action) (grant, error) {
	c.event.KeyID, c.event.VersionID = h.KeyID, h.VersionID
	k, err := c.store.Key(c.ctx, h.KeyID)
	if errors.Is(err, keystore.ErrNotFound) {
		return grant{}, keyNotFound(h.KeyID)
	} else if err != nil {
		return grant{}, storeError(err)
	}
	g, err := c.authorize(k, act)
	if err != nil {
		return grant{}, err
	}
	return g, g.symmetric(act)
}

// blobVersion opens the material of the version that a blob names.
func (c *call) blobVersion(g grant, h blob.Header) (*material, error) {
	m, err := c.materials.get(c.ctx, g, h.VersionID)
	if errors.Is(err, VersionNotFound) {
		return nil, badBlob()
	}
	return m, err
}

// made says whether a blob with this header can have been made with the material.
func (m *material) made(h blob.Header) bool {
	return h.Algorithm == m.algorithm() && (m.outside == nil || m.outside.externalID == h.ExternalID)
}

// algorithm is that of blobs that are made with the material.
func (m *material) algorithm() blob.Algorithm {
	switch {
	case m.outside != nil:
		return blob.External
	case m.hsm != nil:
		return blob.HSM
	}
	return blob.Software
}

// decrypt opens one blob for act. The caller wipes the plaintext if it does not leave the daemon.
func (c *call) decrypt(ciphertext []byte, encryptionContext map[string]string, act *action) (opened, []byte, error) {
	o, err := c.locate(ciphertext, act)
	if err != nil {
		return o, nil, err
	}
	if err := c.dryRunEnd(); err != nil {
		return o, nil, err
	}
	if err := c.charge(o.grant, 1); err != nil {
		return o, nil, err
	}
	m, err := c.blobVersion(o.grant, o.header)
	if err != nil {
		return o, nil, err
	}
	defer m.release()
	if !m.made(o.header) {
		return o, nil, badBlob()
	}
	aad, err := associated(nil, o.head, encryptionContext)
	if err != nil {
		return o, nil, err
	}
	if m.aes != nil {
		plaintext, err := m.aes.Open(nil, o.header.Nonce, o.body, aad)
		if err != nil {
			return o, nil, badBlob()
		}
		return o, plaintext, nil
	}
	if m.outside != nil {
		plaintext, err := c.decryptOutside(m, o.body, aad)
		return o, plaintext, err
	}
	j := m.decryptJob(c.actor, o, aad)
	if err := c.pool.Do(c.ctx, j); err != nil {
		return o, nil, poolError(err, badBlob())
	}
	return o, j.Out, nil
}

func (m *material) decryptJob(a *Actor, o opened, aad []byte) *hsmpool.Job {
	return &hsmpool.Job{Op: hsmpool.DecryptGCM, Key: m.hsm, In: o.body, Nonce: o.header.Nonce, AAD: aad, Principal: a.Principal}
}

// sealWith authorizes the call's action on a symmetric key and opens its primary version. The caller releases it.
func (c *call) sealWith(keyID string) (grant, *material, error) {
	g, err := c.authorizeRef(keyID)
	if err != nil {
		return g, nil, err
	}
	return c.openPrimary(g)
}

func (c *call) openPrimary(g grant) (grant, *material, error) {
	if err := g.symmetric(c.action); err != nil {
		return g, nil, err
	}
	c.event.VersionID = g.key.Primary
	if err := c.dryRunEnd(); err != nil {
		return g, nil, err
	}
	m, err := c.primary(g)
	return g, m, err
}

// Encrypt encrypts up to 6,144 octets under the primary version.
func (s *Service) Encrypt(ctx context.Context, actor *Actor, req *kmswire.EncryptRequest) (*kmswire.EncryptResponse, error) {
	return audited(s, ctx, actor, actEncrypt, req.DryRun, func(c *call) (*kmswire.EncryptResponse, error) {
		if err := checkPlaintext(req.Plaintext); err != nil {
			return nil, err
		}
		g, m, err := c.sealWith(req.KeyID)
		if err != nil {
			return nil, err
		}
		defer m.release()
		out, err := c.encrypt(m, req.Plaintext, req.EncryptionContext)
		if err != nil {
			return nil, err
		}
		return &kmswire.EncryptResponse{KeyID: g.key.ID, KeyVersionID: m.version.ID, CiphertextBlob: out}, nil
	})
}

// Decrypt opens a blob. The key and version are found from it.
func (s *Service) Decrypt(ctx context.Context, actor *Actor, req *kmswire.DecryptRequest) (*kmswire.DecryptResponse, error) {
	return audited(s, ctx, actor, actDecrypt, req.DryRun, func(c *call) (*kmswire.DecryptResponse, error) {
		if err := noRecipient(req.Recipient); err != nil {
			return nil, err
		}
		o, plaintext, err := c.decrypt(req.CiphertextBlob, req.EncryptionContext, actDecrypt)
		if err != nil {
			return nil, err
		}
		return &kmswire.DecryptResponse{KeyID: o.key.ID, KeyVersionID: o.header.VersionID, Plaintext: plaintext}, nil
	})
}

func noRecipient(r string) error {
	if r != "" {
		return Errorf(UnsupportedOperation, "Recipient (attested environments) is not supported")
	}
	return nil
}

// ReEncrypt turns a ciphertext into a blob of another key; the plaintext does not leave the daemon. The source is a blob
// or, with the three Source parameters, an RSA ciphertext.
func (s *Service) ReEncrypt(ctx context.Context, actor *Actor, req *kmswire.ReEncryptRequest) (*kmswire.ReEncryptResponse, error) {
	return audited(s, ctx, actor, actReEncrypt, req.DryRun, func(c *call) (*kmswire.ReEncryptResponse, error) {
		c.event.KeyID = req.DestinationKeyID
		ref, err := c.parseReference("DestinationKeyId", req.DestinationKeyID, actor)
		if err != nil {
			return nil, err
		}
		// The destination first: what can't be written needs no decryption.
		to, err := c.authorizeFound(ref, actReEncryptTo)
		if err != nil {
			return nil, err
		}
		if err := to.symmetric(actReEncrypt); err != nil {
			return nil, err
		}
		c.event.KeyID = "" // now the source's
		plaintext, err := c.reEncryptSource(req)
		if c.event.KeyID != "" {
			from := c.event
			from.Action = actReEncryptFrom.name
			c.also(from, err)
		}
		c.event.KeyID, c.event.VersionID = to.key.ID, to.key.Primary
		if err != nil {
			return nil, err
		}
		defer clear(plaintext)
		m, err := c.primary(to)
		if err != nil {
			return nil, err
		}
		defer m.release()
		out, err := c.encrypt(m, plaintext, req.DestinationEncryptionContext)
		if err != nil {
			return nil, err
		}
		return &kmswire.ReEncryptResponse{KeyID: to.key.ID, KeyVersionID: m.version.ID, CiphertextBlob: out}, nil
	})
}

// reEncryptSource gives the plaintext of ReEncrypt's source. The caller wipes it.
func (c *call) reEncryptSource(req *kmswire.ReEncryptRequest) ([]byte, error) {
	if req.SourceKeyID == "" && req.SourceKeyVersionID == "" && req.SourceEncryptionAlgorithm == "" {
		_, plaintext, err := c.decrypt(req.CiphertextBlob, req.SourceEncryptionContext, actReEncryptFrom)
		return plaintext, err
	}
	c.event.KeyID = req.SourceKeyID
	ref, err := c.parseReference("SourceKeyId", req.SourceKeyID, c.actor)
	if err != nil {
		return nil, err
	}
	c.algorithm = req.SourceEncryptionAlgorithm
	g, err := c.authorizeFound(ref, actReEncryptFrom)
	if err != nil {
		return nil, err
	}
	return c.asymmetricDecrypt(g, req.SourceKeyVersionID, "SourceKeyVersionId", req.SourceEncryptionAlgorithm, "SourceEncryptionAlgorithm", req.CiphertextBlob)
}

// dataKeySize applies the rules of reference section 4.8: NumberOfBytes wins, then KeySpec, then 32.
func dataKeySize(spec string, numberOfBytes *int) (int, error) {
	if numberOfBytes != nil {
		if *numberOfBytes < 1 || *numberOfBytes > kmswire.MaxDataKey {
			return 0, Invalid("NumberOfBytes", "it must be 1 to %d", kmswire.MaxDataKey)
		}
		return *numberOfBytes, nil
	}
	switch spec {
	case "", "AES_256":
		return 32, nil
	case "AES_128":
		return 16, nil
	}
	return 0, Invalid("KeySpec", "%q is neither AES_256 nor AES_128", spec)
}

// newDataKey is what the three ways of making a data key have in common: it authorizes the call's action, draws
// size octets and encrypts them. The caller wipes dataKey.plaintext if it does not leave the daemon.
func (c *call) newDataKey(keyID string, size int, encryptionContext map[string]string) (dataKey, error) {
	g, m, err := c.sealWith(keyID)
	if err != nil {
		return dataKey{}, err
	}
	defer m.release()
	k := dataKey{keyID: g.key.ID, versionID: m.version.ID, plaintext: make([]byte, size)}
	rand.Read(k.plaintext) // never fails
	if k.ciphertext, err = c.encrypt(m, k.plaintext, encryptionContext); err != nil {
		clear(k.plaintext)
		return dataKey{}, err
	}
	return k, nil
}

// dataKey is a new data key in both forms, and what it was encrypted with.
type dataKey struct {
	keyID, versionID      string
	plaintext, ciphertext []byte
}

// GenerateDataKey makes a random key, given in the clear and as a blob. keyward keeps neither.
func (s *Service) GenerateDataKey(ctx context.Context, actor *Actor, req *kmswire.GenerateDataKeyRequest) (*kmswire.GenerateDataKeyResponse, error) {
	return audited(s, ctx, actor, actGenerateDataKey, req.DryRun, func(c *call) (*kmswire.GenerateDataKeyResponse, error) {
		if err := noRecipient(req.Recipient); err != nil {
			return nil, err
		}
		size, err := dataKeySize(req.KeySpec, req.NumberOfBytes)
		if err != nil {
			return nil, err
		}
		k, err := c.newDataKey(req.KeyID, size, req.EncryptionContext)
		if err != nil {
			return nil, err
		}
		return &kmswire.GenerateDataKeyResponse{KeyID: k.keyID, KeyVersionID: k.versionID, Plaintext: k.plaintext, CiphertextBlob: k.ciphertext}, nil
	})
}

// GenerateDataKeyWithoutPlaintext makes a random key and gives its blob only.
func (s *Service) GenerateDataKeyWithoutPlaintext(ctx context.Context, actor *Actor, req *kmswire.GenerateDataKeyWithoutPlaintextRequest) (*kmswire.GenerateDataKeyWithoutPlaintextResponse, error) {
	return audited(s, ctx, actor, actGenerateDataKeyWithoutPlaintext, req.DryRun, func(c *call) (*kmswire.GenerateDataKeyWithoutPlaintextResponse, error) {
		size, err := dataKeySize(req.KeySpec, req.NumberOfBytes)
		if err != nil {
			return nil, err
		}
		k, err := c.newDataKey(req.KeyID, size, req.EncryptionContext)
		if err != nil {
			return nil, err
		}
		clear(k.plaintext)
		return &kmswire.GenerateDataKeyWithoutPlaintextResponse{KeyID: k.keyID, KeyVersionID: k.versionID, CiphertextBlob: k.ciphertext}, nil
	})
}

// newDataKeys draws count data keys of size octets at once.
func newDataKeys(count, size int) [][]byte {
	all := make([]byte, count*size)
	rand.Read(all) // never fails
	keys := make([][]byte, count)
	for i := range keys {
		keys[i] = all[i*size : (i+1)*size : (i+1)*size]
	}
	return keys
}
