package kms

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// The bounds of PendingWindowInDays.
const (
	minWindowDays = 7
	maxWindowDays = 366
)

const day = 24 * time.Hour

// ScheduleKeyDeletion takes a key out of use and destroys it when the waiting time is over. It works on a full disk.
func (s *Service) ScheduleKeyDeletion(ctx context.Context, actor *Actor, req *kmswire.ScheduleKeyDeletionRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actScheduleKeyDeletion, false, func(c *call) (*kmswire.EmptyResponse, error) {
		days := req.PendingWindowInDays
		if days < minWindowDays || days > maxWindowDays {
			return nil, Invalid("PendingWindowInDays", "%d; a deletion waits %d to %d days", days, minWindowDays, maxWindowDays)
		}
		return &kmswire.EmptyResponse{}, c.scheduleDeletion(req.KeyID, days, func(*keystore.Key) error { return nil })
	})
}

// scheduleDeletion takes a key out of use, unless check refuses it as it is.
func (c *call) scheduleDeletion(keyID string, days int, check func(*keystore.Key) error) error {
	window := time.Duration(days) * day
	asked := c.now().UTC().Round(0) // the window begins with the request, not with the commit
	at, after := asked.Add(window), c.clock.after(window)
	k, err := c.changeKey(keyID, func(_ grant, k *keystore.Key) error {
		if err := check(k); err != nil {
			return err
		}
		if k.Protected {
			return Errorf(KeyProtected, "%s is protected%s; switch that off with SetDeletionProtection first", k.ID, because(k.ProtectedReason))
		}
		k.State, k.DeleteAt, k.DeleteAfter, k.ScheduledBy = string(kmswire.PendingDeletion), &at, after, c.actor.Principal
		c.event.Detail = "to be destroyed at " + formatTime(at)
		return nil
	})
	if err != nil {
		return err
	}
	c.dropMaterials(c.ctx, k.ID)
	return nil
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return fmt.Sprintf(" (%q)", reason)
}

// CancelKeyDeletion takes a scheduled deletion back. The key is Enabled after it, whatever it was before; an imported key whose
// material is gone is PendingImport.
func (s *Service) CancelKeyDeletion(ctx context.Context, actor *Actor, req *kmswire.CancelKeyDeletionRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actCancelKeyDeletion, false, func(c *call) (*kmswire.EmptyResponse, error) {
		_, err := c.changeKey(req.KeyID, func(_ grant, k *keystore.Key) error {
			if k.Deleting {
				return Errorf(StateNotAllowed, "the destruction of %s has begun and can't be taken back", k.ID)
			}
			state, err := c.stateByMaterial(k)
			if err != nil {
				return err
			}
			k.State, k.DeleteAt, k.DeleteAfter, k.ScheduledBy = string(state), nil, 0, ""
			return nil
		})
		if err != nil {
			return nil, err
		}
		s.schedule.poke() // a rotation may be overdue
		return &kmswire.EmptyResponse{}, nil
	})
}

// stateByMaterial is Enabled for a key that can be used and PendingImport for one that waits for its material. Whoever removes
// or sets material changes the key's record in the same commit, so that a change that relies on this answer is refused then.
func (c *call) stateByMaterial(k *keystore.Key) (kmswire.KeyState, error) {
	if k.Origin != kmswire.OriginExternal {
		return kmswire.Enabled, nil
	}
	versions, _, err := c.store.Versions(c.ctx, k.ID, 0, 1) // an imported key has one at most
	if err != nil {
		return "", storeError(err)
	}
	if len(versions) == 0 || !hasMaterial(versions[0]) {
		return kmswire.PendingImport, nil
	}
	return kmswire.Enabled, nil
}

func hasMaterial(v *keystore.Version) bool {
	return v.Sealed != nil || v.Wrapped != nil || v.Member != ""
}

// SetDeletionProtection switches the protection of a key against deletion on or off.
func (s *Service) SetDeletionProtection(ctx context.Context, actor *Actor, req *kmswire.SetDeletionProtectionRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actSetDeletionProtection, false, func(c *call) (*kmswire.EmptyResponse, error) {
		id, err := c.protectedKey(req)
		if err != nil {
			return nil, err
		}
		reason := req.DeletionProtectionDescription
		switch n := utf8.RuneCountInString(reason); {
		case reason != "" && !req.EnableDeletionProtection:
			return nil, Invalid("DeletionProtectionDescription", "it goes with a protection that is switched on")
		case !utf8.ValidString(reason):
			return nil, Invalid("DeletionProtectionDescription", "it is not valid UTF-8")
		case n > kmswire.MaxDescription:
			return nil, Invalid("DeletionProtectionDescription", "%d characters, at most %d are allowed", n, kmswire.MaxDescription)
		}
		_, err = c.changeKey(id, func(_ grant, k *keystore.Key) error {
			k.Protected, k.ProtectedReason = req.EnableDeletionProtection, reason
			c.event.Detail = "off"
			if k.Protected {
				c.event.Detail = "on"
			}
			return nil
		})
		return &kmswire.EmptyResponse{}, err
	})
}

// protectedKey finds out which key a SetDeletionProtection is about.
func (c *call) protectedKey(req *kmswire.SetDeletionProtectionRequest) (string, error) {
	given := 0
	for _, text := range []string{req.ProtectedResourceArn, req.KeyID, req.KmsInstanceID} {
		if text != "" {
			given++
		}
	}
	switch {
	case given == 0:
		return "", Missing("ProtectedResourceArn")
	case given > 1:
		return "", Invalid("ProtectedResourceArn", "give one of ProtectedResourceArn, KeyId and KmsInstanceId")
	case req.KmsInstanceID != "":
		return "", Errorf(UnsupportedOperation, "instances are part of the configuration, which no call deletes, so there is nothing to protect them from; protect keys")
	case req.KeyID != "":
		return req.KeyID, nil
	}
	c.event.KeyID = req.ProtectedResourceArn
	if ref, err := c.parseReference("ProtectedResourceArn", req.ProtectedResourceArn, c.actor); err != nil {
		return "", err
	} else if ref.id == "" || !strings.HasPrefix(req.ProtectedResourceArn, arnServiceKMS) {
		return "", Invalid("ProtectedResourceArn", "it is the ARN of a key, acs:kms:<region>:<account>:key/<key id>")
	}
	return req.ProtectedResourceArn, nil
}

// versionPage is how many versions of a key are looked at at a time.
const versionPage = 100

// eachVersion calls visit for all versions of a key, in order of creation.
func (s *Service) eachVersion(ctx context.Context, keyID string, visit func(*keystore.Version)) error {
	for offset := 0; ; offset += versionPage {
		versions, _, err := s.store.Versions(ctx, keyID, offset, versionPage)
		if err != nil {
			return err
		}
		for _, v := range versions {
			visit(v)
		}
		if len(versions) < versionPage {
			return nil
		}
	}
}

// unloadWithin is how long a call waits until HSMs have destroyed what they have loaded of a key.
const unloadWithin = 5 * time.Second

// unload destroys what HSMs have loaded of wrapped versions of a key that is out of use, for ctx's caller or when it has given up.
// What can't be told is no reason to fail: these are session objects, which an HSM loses when it needs room and when its worker ends.
func (s *Service) unload(ctx context.Context, keyID string, versions ...string) {
	if s.pool == nil || len(versions) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unloadWithin)
	defer cancel()
	if err := s.pool.Forget(ctx, versions...); err != nil {
		s.log.Warn().Err(err).Str("key", keyID).Msg("a key that is out of use may stay loaded in an HSM until it is evicted or the HSM's worker ends")
	}
}

// dropMaterials takes the open secrets of a key that is out of use out of memory, and out of the HSMs that have it loaded. Calls that
// have them finish.
func (s *Service) dropMaterials(ctx context.Context, keyID string) {
	var loaded []string
	err := s.eachVersion(ctx, keyID, func(v *keystore.Version) {
		s.materials.drop(v.ID)
		if v.Wrapped != nil {
			loaded = append(loaded, v.ID)
		}
	})
	s.unload(ctx, keyID, loaded...)
	if err != nil {
		s.log.Warn().Err(err).Str("key", keyID).Msg("the open material of a key that is out of use stays in memory until it is evicted")
	}
}

// dropObject is the intent to destroy the token object of a version. Its ID is the object's, as that of the intent was that made it.
func (c *call) dropObject(v *keystore.Version) *keystore.Intent {
	return &keystore.Intent{ID: hex.EncodeToString(v.ObjectID), Kind: intentDropMaterial, KeyID: v.KeyID, Version: v.ID,
		Member: v.Member, Started: c.now().UTC(), Actor: c.actor.Principal}
}

// forgetMaterial removes the material of an imported key: from the store in one commit, then from memory and, for a pinned
// key, from its HSM, at once or as soon as that HSM is there. The key becomes PendingImport, or stays PendingDeletion; it
// keeps its version and its fingerprint, so that only the same material can be imported again. It works on a full disk.
// It returns keystore.ErrConflict when k is not the newest: the caller looks again.
func (c *call) forgetMaterial(k *keystore.Key) error {
	next := *k
	next.MaterialExpires, next.MaterialAfter = nil, 0
	if next.State != string(kmswire.PendingDeletion) {
		next.State = string(kmswire.PendingImport)
	}
	ch := c.store.Change().At(c.now()).Urgent().UpdateKey(k, &next)
	var gone, loaded []string
	var objects []*keystore.Intent
	err := c.eachVersion(c.ctx, k.ID, func(v *keystore.Version) {
		if !hasMaterial(v) {
			return
		}
		gone = append(gone, v.ID)
		if v.Wrapped != nil {
			loaded = append(loaded, v.ID)
		}
		bare := *v
		bare.Sealed, bare.Wrapped, bare.Member, bare.ObjectID = nil, nil, "", nil
		ch.UpdateVersion(v, &bare)
		if v.Member != "" {
			i := c.dropObject(v)
			objects = append(objects, i)
			ch.PutIntent(i)
		}
	})
	if err != nil {
		return storeError(err)
	}
	if err := ch.Commit(c.ctx); err != nil {
		return c.commitError(k, err)
	}
	c.schedule.destroyed()
	for _, id := range gone {
		c.materials.drop(id)
	}
	c.unload(c.ctx, k.ID, loaded...)
	for _, i := range objects {
		c.abandon(i)
	}
	return nil
}

// destroyObject destroys the token object of a pinned version. An object that is not there is looked for a second time, some time
// later, before that is believed: a token that is just being taken away may seem to be empty.
func (s *Service) destroyObject(ctx context.Context, member string, objectID []byte) error {
	n, err := s.pool.DestroyPinned(ctx, member, objectID)
	if err != nil {
		s.schedule.missed(objectID, false)
		return poolError(err, nil)
	}
	if n == 0 && !s.schedule.missed(objectID, true) {
		return Errorf(HSMUnavailable, "the object %x is not on %s, and is looked for again before that is believed", objectID, member)
	}
	s.schedule.missed(objectID, false)
	return nil
}

// purge destroys a key whose time has come, in two steps: first it is written down that its destruction has begun, from where
// there is no way back; then what is in HSMs is destroyed, and when all of it is gone the key's records go. What
// interrupts it leaves a key that can't be used and whose destruction goes on later.
func (c *call) purge(k *keystore.Key) error {
	intent := &keystore.Intent{ID: deletionIntent(k.ID), Kind: intentDeleteKey, KeyID: k.ID, Started: c.now().UTC(), Actor: k.ScheduledBy}
	if !k.Deleting {
		begun := *k
		begun.Deleting = true
		err := c.store.Change().At(c.now()).Urgent().UpdateKey(k, &begun).PutIntent(intent).Commit(c.ctx)
		if err != nil {
			return c.commitError(k, err)
		}
		if k, err = c.store.Key(c.ctx, k.ID); err != nil {
			return storeError(err)
		}
	}
	c.schedule.condemn(k.ID)
	var failed error
	var loaded []string
	err := c.eachVersion(c.ctx, k.ID, func(v *keystore.Version) {
		c.materials.drop(v.ID)
		if v.Wrapped != nil {
			loaded = append(loaded, v.ID)
		}
		if v.Member != "" && failed == nil {
			failed = c.destroyObject(c.ctx, v.Member, v.ObjectID)
		}
	})
	if err != nil {
		return storeError(err)
	}
	c.unload(c.ctx, k.ID, loaded...)
	if failed != nil {
		return failed
	}
	// The intent is put once more: the key's record alone says that its destruction goes on, should the intent be lost.
	ch := c.store.Change().At(c.now()).Urgent().DeleteKey(k, c.now()).PutIntent(intent).DeleteIntent(intent)
	if err := ch.Commit(c.ctx); err != nil {
		return c.commitError(k, err)
	}
	c.schedule.destroyed()
	return nil
}
