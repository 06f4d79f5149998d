package kms

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/softkey"
)

// Kinds of intent. What a later version of keyward writes besides is left to that.
const (
	intentCreateKey     = "create-key"
	intentCreateVersion = "create-version"
	intentImport        = "import"
	intentUndo          = "undo"          // one of the above whose token object is being destroyed: see takeOver
	intentDropMaterial  = "drop-material" // token objects are to be destroyed whose version does not name them any more
	intentDeleteKey     = "delete-key"    // not undone, but gone on with: see purge
)

// recoverEvery is how often unfinished work is looked at again while an HSM that it needs is away.
const recoverEvery = 10 * time.Second

// makeVersion makes the material of a new version of k and commits it together with what add puts into the change. Work
// in an HSM is announced by an intent that the same commit removes (two phases: what a crash leaves is undone at the
// next start).
func (c *call) makeVersion(k *keystore.Key, sp *spec, kind string, add func(*keystore.Change, *keystore.Version)) (*keystore.Version, error) {
	// A full instance is told before an HSM works for nothing. The commit decides.
	if err := c.roomForKey(c.ctx, k); err != nil {
		return nil, err
	}
	v := &keystore.Version{ID: newVersionID(k.ID), KeyID: k.ID, Created: k.LastRotation}
	if k.Protection != kmswire.ProtectionHSM {
		if k.ExternalID == "" { // of an external key there is nothing to make
			if err := c.softwareMaterial(v, sp); err != nil {
				return nil, err
			}
		}
		ch := c.store.Change()
		add(ch, v)
		return v, c.commitError(k, c.limitKeys(ch, k).Commit(c.ctx))
	}

	err := c.announced(k, v, kind, func(intent *keystore.Intent) error {
		return c.hardwareMaterial(v, k, sp, intent)
	}, func(ch *keystore.Change) { add(ch, v) })
	if err != nil {
		return nil, err
	}
	return v, nil
}

// announced writes an intent, makes the material of v in an HSM, and commits what add puts into the change together with the
// intent's removal.
func (c *call) announced(k *keystore.Key, v *keystore.Version, kind string, work func(*keystore.Intent) error, add func(*keystore.Change)) error {
	intent := &keystore.Intent{ID: newIntentID(), Kind: kind, KeyID: k.ID, Version: v.ID, Started: c.now().UTC()}
	if k.Storage == kmswire.HsmInternal {
		member, err := c.pool.PinTarget()
		if err != nil {
			return poolError(err, nil)
		}
		intent.Member = member
	}
	if err := c.store.Change().PutIntent(intent).Commit(c.ctx); err != nil {
		return storeError(err)
	}
	// From here on the caller's going away must not leave half the work: only its deadline for the HSM counts.
	if err := c.onceMore(intent, work); err != nil {
		c.abandon(intent)
		return err
	}
	ch := c.store.Change()
	add(ch)
	if err := c.limitKeys(ch, k).DeleteIntent(intent).Commit(context.WithoutCancel(c.ctx)); err != nil {
		// After any other error the commit may have happened all the same. The next start knows: it happened exactly if
		// the intent is gone.
		if errors.Is(err, keystore.ErrConflict) || errors.Is(err, keystore.ErrFull) || errors.Is(err, keystore.ErrQuota) || errors.Is(err, keystore.ErrAccessQuota) {
			c.abandon(intent)
		}
		return c.commitError(k, err)
	}
	return nil
}

// onceMore does the work of an intent. The pool does nothing again by itself that may have made a token object, as there would be two
// of them; here it is known under which ID it would be, so it is destroyed, and the work is done once more.
func (c *call) onceMore(intent *keystore.Intent, work func(*keystore.Intent) error) error {
	err := work(intent)
	if intent.Member == "" || !errors.Is(err, HSMUnavailable) && !errors.Is(err, Internal) || c.ctx.Err() != nil {
		return err
	}
	if _, gone := c.pool.DestroyPinned(c.ctx, intent.Member, intentObjectID(intent)); gone != nil {
		return err
	}
	return work(intent)
}

// commitError words the error of a commit that adds a version to k. It leaves ErrConflict to the caller, who knows what it means.
func (s *Service) commitError(k *keystore.Key, err error) error {
	switch {
	case err == nil || errors.Is(err, keystore.ErrConflict):
		return err
	case errors.Is(err, keystore.ErrQuota):
		return s.quotaError(k)
	case errors.Is(err, keystore.ErrAccessQuota):
		return s.accessQuotaUsed(k.Instance, err)
	}
	return storeError(err)
}

func (s *Service) softwareMaterial(v *keystore.Version, sp *spec) error {
	var secret []byte
	if sp.symmetric() {
		secret = make([]byte, sp.aesBytes)
		rand.Read(secret) // never fails
	} else {
		private, err := softkey.GenerateKey(sp.name)
		if err != nil {
			return &Error{Code: Internal, Err: err}
		}
		defer private.Close()
		if secret, err = private.Marshal(); err != nil {
			return &Error{Code: Internal, Err: err}
		}
		v.PublicKey = private.Public().Marshal()
	}
	defer clear(secret)
	var err error
	if v.Sealed, err = s.store.Seal(v.ID, secret); err != nil {
		return storeError(err)
	}
	return nil
}

func (c *call) hardwareMaterial(v *keystore.Version, k *keystore.Key, sp *spec, intent *keystore.Intent) error {
	usage := hsmUsage(k)
	var made *hsmpool.Generated
	var err error
	if intent.Member != "" {
		made, err = c.pool.GeneratePinned(c.ctx, sp.hsm, usage, intentObjectID(intent), intent.Member)
	} else {
		made, err = c.pool.Generate(c.ctx, sp.hsm, usage)
	}
	if err != nil {
		return poolError(err, nil)
	}
	v.Wrapped, v.Member, v.ObjectID, v.PublicKey = made.Wrapped, made.Member, made.ObjectID, made.PublicKey
	return nil
}

// abandon undoes what an intent announced, now if it can be done, in the background otherwise.
func (s *Service) abandon(intent *keystore.Intent) {
	if err := s.undoInTime(context.Background(), intent); err != nil {
		s.log.Warn().Err(err).Str("intent", intent.ID).Str("key", intent.KeyID).
			Msg("unfinished work could not be undone now; it is tried again")
		s.schedule.leave(intent)
		s.schedule.poke()
	}
}

func (s *Service) undoInTime(ctx context.Context, intent *keystore.Intent) error {
	ctx, cancel := context.WithTimeout(ctx, recoverEvery)
	defer cancel()
	return s.undo(ctx, intent)
}

// deletionIntent is the ID of the intent to delete a key: always the same, as a key is deleted once.
func deletionIntent(keyID string) string {
	sum := sha256.Sum256([]byte(intentDeleteKey + " " + keyID))
	return hex.EncodeToString(sum[:16])
}

// undo removes what an unfinished intent may have left: nothing for a wrapped key, a token object for a pinned one.
func (s *Service) undo(ctx context.Context, intent *keystore.Intent) error {
	var err error
	switch {
	case intent.Kind == intentDropMaterial:
		err = s.destroyObject(ctx, intent.Member, intentObjectID(intent))
	case intent.Member != "":
		if err = s.takeOver(ctx, intent); err == nil {
			err = s.destroyUnfinished(ctx, intent)
		}
	}
	if err == nil {
		err = s.store.Change().DeleteIntent(intent).Commit(ctx)
	}
	if errors.Is(err, keystore.ErrConflict) {
		return nil // somebody else ended it
	}
	return err
}

// takeOver makes an intent one to undo. From then on whoever announced it, such as another appliance that is still at work, can't
// commit it: else its key could become valid while its token object is being destroyed. It gives keystore.ErrConflict when
// the work was ended, or taken over by another.
func (s *Service) takeOver(ctx context.Context, intent *keystore.Intent) error {
	if intent.Kind == intentUndo {
		return nil
	}
	taken := *intent
	taken.Kind = intentUndo
	if err := s.store.Change().DeleteIntent(intent).PutIntent(&taken).Commit(ctx); err != nil {
		return err
	}
	intent.Kind = intentUndo
	return nil
}

func (s *Service) destroyUnfinished(ctx context.Context, intent *keystore.Intent) error {
	n, err := s.pool.DestroyPinned(ctx, intent.Member, intentObjectID(intent))
	if err != nil {
		return err
	}
	if n > 0 {
		s.log.Info().Str("intent", intent.ID).Str("member", intent.Member).Int("objects", n).
			Msg("objects of an unfinished key destroyed")
	}
	return nil
}

// recover undoes what an earlier process left: nobody was told that it had worked. What can't be undone yet is left to the
// schedule, and so are deletions, which go on. Nobody here knows what an intent of an unknown kind wants: it stays.
func (s *Service) recover(ctx context.Context) error {
	intents, err := s.store.Intents(ctx)
	if err != nil {
		return fmt.Errorf("kms: reading unfinished work: %w", err)
	}
	for _, i := range intents {
		switch i.Kind {
		case intentDeleteKey:
			s.schedule.condemn(i.KeyID)
		case intentCreateKey, intentCreateVersion, intentImport, intentUndo, intentDropMaterial:
			if err := s.undo(ctx, i); err != nil {
				s.log.Warn().Err(err).Str("intent", i.ID).Str("member", i.Member).Msg("unfinished work can't be undone yet")
				s.schedule.leave(i)
			}
		default:
			s.log.Warn().Str("intent", i.ID).Str("kind", i.Kind).Str("key", i.KeyID).
				Msg("there is unfinished work of a kind that this version of keyward does not know; it is left as it is")
		}
	}
	return nil
}

func newIntentID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// intentObjectID is the CKA_ID of what an intent makes. An ID that is no hexadecimal names nothing.
func intentObjectID(i *keystore.Intent) []byte {
	b, err := hex.DecodeString(i.ID)
	if err != nil {
		return []byte(i.ID)
	}
	return b
}
