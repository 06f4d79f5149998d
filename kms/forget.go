package kms

import (
	"encoding/hex"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

func hasMaterial(v *keystore.Version) bool {
	return v.Sealed != nil || v.Wrapped != nil || v.Member != ""
}

// intentDropMaterial is the kind of intent that token objects are to be destroyed whose version does not name them any more.
const intentDropMaterial = "drop-material"

// dropObject is the intent to destroy the token object of a version. Its ID is the object's, as that of the intent was that made it.
func (c *call) dropObject(v *keystore.Version) *keystore.Intent {
	return &keystore.Intent{ID: hex.EncodeToString(v.ObjectID), Kind: intentDropMaterial, KeyID: v.KeyID, Version: v.ID,
		Member: v.Member, Started: c.now().UTC(), Actor: c.actor.Principal}
}

// forgetMaterial removes the material of an imported key: from the store in one commit, then from memory and, for a pinned
// key, from its HSM. The key becomes PendingImport, or stays PendingDeletion; it keeps its version and its fingerprint, so that
// only the same material can be imported again. It works on a full disk.
// It returns keystore.ErrConflict when k is not the newest: the caller looks again.
func (c *call) forgetMaterial(k *keystore.Key) error {
	next := *k
	next.MaterialExpires, next.MaterialAfter = nil, 0
	if next.State != string(kmswire.PendingDeletion) {
		next.State = string(kmswire.PendingImport)
	}
	versions, _, err := c.store.Versions(c.ctx, k.ID, 0, maxVersions)
	if err != nil {
		return storeError(err)
	}
	ch := c.store.Change().At(c.now()).Urgent().UpdateKey(k, &next)
	var objects []*keystore.Intent
	for _, v := range versions {
		if !hasMaterial(v) {
			continue
		}
		bare := *v
		bare.Sealed, bare.Wrapped, bare.Member, bare.ObjectID = nil, nil, "", nil
		ch.UpdateVersion(v, &bare)
		if v.Member != "" {
			objects = append(objects, c.dropObject(v))
			ch.PutIntent(objects[len(objects)-1])
		}
	}
	if err := ch.Commit(c.ctx); err != nil {
		return commitError(err)
	}
	for _, v := range versions {
		c.materials.drop(v.ID)
	}
	for _, i := range objects {
		c.abandon(i)
	}
	return nil
}
