package kms

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/kms/softkey"
)

// KeyUse is one use of one version of a key by a mechanism, for callers who know PKCS #11. The rules are those of the API: policy,
// state, usage of the key, quota, audit. Which permissions a mechanism needs is in the table keyUses.
type KeyUse struct {
	KeyID     string // an ID, of the caller's own account
	VersionID string
	Mechanism *mechanism.Mechanism
	Input     []byte // must not change before the call returns
	Signature []byte // of VerifyWith

	// Continued marks a later part of an operation whose first part has its event in the audit: policy and state are asked
	// again, but there is no event of success, and it counts as no use in the ledger. PartsEnded tells the audit how many there were.
	Continued bool
}

// PartsEnded keeps an event of an operation in parts that has ended, however it did: how many uses of the key it was, and of how many octets.
func (s *Service) PartsEnded(ctx context.Context, actor *Actor, verb Verb, use *KeyUse, parts int, octets int64) error {
	row, entry := rowOf(verb, use.Mechanism)
	if entry == nil {
		return Errorf(UnsupportedOperation, "no key does that by this mechanism")
	}
	e := AuditEvent{Time: s.now(), Actor: actor, Action: entry.rightsFor(verb, use.Mechanism)[0].name, KeyID: use.KeyID, VersionID: use.VersionID}
	e.RequestID, _ = ctx.Value(requestIDKey{}).(string)
	e.end(nil)
	e.Detail = fmt.Sprintf("%s, ended after %d parts of %d octets in all", row.nameOf(use.Mechanism), parts, octets)
	if err := s.audit.Record(context.WithoutCancel(ctx), &e); err != nil {
		return s.noAudit("how much was done is not in the audit", err)
	}
	return nil
}

// Verb is what a KeyUse does.
type Verb uint8

// The verbs.
const (
	Sign Verb = iota + 1
	Verify
	Encrypt
	Decrypt
)

// UseRefused keeps an event of a use that a door refused by itself, as the key is not for that. The refusal stands whether the event could be kept or not; if not, the
// log has it.
func (s *Service) UseRefused(ctx context.Context, actor *Actor, verb Verb, use *KeyUse, why string) {
	act := verbActions[verb]
	if _, entry := rowOf(verb, use.Mechanism); entry != nil {
		act = entry.rights[0]
	}
	e := AuditEvent{Time: s.now(), Actor: actor, Action: act.name, KeyID: use.KeyID, VersionID: use.VersionID}
	e.RequestID, _ = ctx.Value(requestIDKey{}).(string)
	e.end(Errorf(OperationRejected, "%s", why))
	if err := s.audit.Record(context.WithoutCancel(ctx), &e); err != nil {
		s.log.Error().Err(err).Msg("an audit event of a refused call could not be kept")
	}
}

// MayUse says whether a use would be allowed now: key, policy, state, usage and mechanism, but not the input. A refusal is audited,
// a permission is not: the use will be. It charges nothing.
func (s *Service) MayUse(ctx context.Context, actor *Actor, verb Verb, use *KeyUse) error {
	_, err := s.useKey(ctx, actor, verb, use, nil)
	return err
}

// SignWith makes a signature: AsymmetricSign by any mechanism of the key.
func (s *Service) SignWith(ctx context.Context, actor *Actor, use *KeyUse) ([]byte, error) {
	return s.useKey(ctx, actor, Sign, use, (*call).signBy)
}

// VerifyWith checks a signature: AsymmetricVerify by any mechanism of the key. A wrong signature is false and no error.
func (s *Service) VerifyWith(ctx context.Context, actor *Actor, use *KeyUse) (bool, error) {
	ok := false
	_, err := s.useKey(ctx, actor, Verify, use, func(c *call, m *material, use *KeyUse) (_ []byte, err error) {
		ok, err = m.public.VerifyBy(use.Mechanism, use.Input, use.Signature)
		return nil, softkeyError(err, nil)
	})
	return ok && err == nil, err
}

// EncryptWith encrypts: AsymmetricEncrypt with a public key, or with a symmetric key the bare mode, which is no blob of the API.
// By AES-GCM without an IV it draws one, which comes before the ciphertext; that alone of the bare modes needs kms:Encrypt only, as an IV
// that the caller chooses turns encryption into decryption.
func (s *Service) EncryptWith(ctx context.Context, actor *Actor, use *KeyUse) ([]byte, error) {
	return s.useKey(ctx, actor, Encrypt, use, (*call).encryptBy)
}

// DecryptWith undoes EncryptWith. The caller wipes the plaintext. Whatever is wrong with a ciphertext is one error, InvalidParameter
// of CiphertextBlob; RSAPKCS1 gives a random message instead (implicit rejection).
func (s *Service) DecryptWith(ctx context.Context, actor *Actor, use *KeyUse) ([]byte, error) {
	return s.useKey(ctx, actor, Decrypt, use, (*call).decryptBy)
}

// useKey does something with a key for which all the rights of a use are there; do is nil for MayUse.
func (s *Service) useKey(ctx context.Context, actor *Actor, verb Verb, use *KeyUse, do func(*call, *material, *KeyUse) ([]byte, error)) (out []byte, err error) {
	if verb < Sign || verb > Decrypt {
		return nil, Errorf(Internal, "verb %d is not known", verb)
	}
	row, entry := rowOf(verb, use.Mechanism)
	act := verbActions[verb]
	if entry != nil {
		act = entry.rightsFor(verb, use.Mechanism)[0]
	}
	_, err = audited(s, ctx, actor, act, false, func(c *call) (_ *struct{}, err error) {
		c.event.KeyID, c.event.VersionID = use.KeyID, use.VersionID
		c.unseen = use.Continued || do == nil
		if entry == nil {
			return nil, Errorf(UnsupportedOperation, "no key does that by this mechanism")
		}
		g, err := c.authorizeUse(verb, use, row, entry)
		if err != nil {
			return nil, err
		}
		if do != nil {
			if err := c.charge(g, 1); err != nil {
				return nil, err
			}
		}
		m, err := c.materials.get(c.ctx, g, use.VersionID)
		if err != nil {
			return nil, err
		}
		defer m.release()
		inHSM := m.hsm != nil && entry.op != 0
		if err := row.checkFor(use.Mechanism, m.spec, inHSM); err != nil || do == nil {
			return nil, err
		}
		c.event.Detail = row.nameOf(use.Mechanism)
		if err := checkInput(verb, use.Mechanism, m, inHSM, len(use.Input)); err != nil {
			return nil, err
		}
		out, err = do(c, m, use)
		return nil, err
	})
	if err != nil {
		clear(out) // its event could not be kept
		return nil, err
	}
	return out, nil
}

// authorizeUse gives a grant for all the rights that a use needs, if the key is one for it.
func (c *call) authorizeUse(verb Verb, use *KeyUse, row *mechanismRow, entry *keyUse) (g grant, err error) {
	// Parameters come first: conditions of policies look at the algorithm, and what is wrong with them tells nothing of the key.
	if err := row.checkParameters(verb, use.Mechanism); err != nil {
		return g, err
	}
	if verb == Encrypt || verb == Decrypt {
		c.algorithm = row.algorithmOf(use.Mechanism)
	}
	k, err := c.find(c.ctx, reference{account: c.actor.Account, id: use.KeyID})
	if err != nil {
		return g, err
	}
	rights := entry.rightsFor(verb, use.Mechanism)
	both := k.SecondaryUsage != "" && entry.bothUsages != nil
	if both {
		rights = entry.bothUsages
	}
	for _, right := range rights {
		if g, err = c.authorize(k, right); err != nil {
			return g, err
		}
	}
	switch {
	case k.Instance == "":
		return g, Errorf(OperationRejected, "%s is in no instance, and so in no token", k.ID)
	case k.ExternalID != "":
		return g, Errorf(UnsupportedOperation, "%s is kept by another key manager, and keyward uses it through the API only", k.ID)
	case g.spec.family() != row.keys:
		return g, Errorf(OperationRejected, "%s is a key of another type than %s works with", k.ID, row.name)
	case both:
		if err := c.fits(g, kmswire.KeyUsage(k.SecondaryUsage)); err != nil {
			return g, err
		}
	}
	return g, c.fits(g, verbUsages[verb])
}

// badCiphertext is the one answer to a ciphertext that is wrong in whatever way.
func badCiphertext(m *material) *Error {
	return Invalid("CiphertextBlob", "it does not decrypt with %s", m.version.ID)
}

// softkeyError renders an error of softkey for the caller. bad is what ErrDecrypt means here; lengths were checked before, so that ErrSize
// is a number that is not below the modulus.
func softkeyError(err error, bad *Error) error {
	switch {
	case err == nil:
		return nil
	case bad != nil && (errors.Is(err, softkey.ErrDecrypt) || errors.Is(err, softkey.ErrSize)):
		return bad
	case errors.Is(err, softkey.ErrSize):
		return Invalid("Input", "the key does not take a number as large as this")
	case errors.Is(err, softkey.ErrAlgorithm):
		return &Error{Code: UnsupportedOperation, Detail: "keys here do not do that by this mechanism", Err: err}
	}
	return &Error{Code: Internal, Err: err}
}
