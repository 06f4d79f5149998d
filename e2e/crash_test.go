package e2e

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/keystore/boltstore"
	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

// kills is how often the daemon is killed.
const kills = 12

// TestKill kills the daemon with -9 in the middle of creates, again and again. After each restart every key that was
// acknowledged works; at the end the store holds no intent, and the tokens hold no object that the store does not know.
func TestKill(t *testing.T) {
	dir := shortDir(t)
	requests := []kmswire.CreateKeyRequest{
		{DKMSInstanceID: "kst-software"},
		{DKMSInstanceID: "kst-hardware"},
		{DKMSInstanceID: "kst-hardware", KeyStorageMechanism: kmswire.HsmInternal},
		{DKMSInstanceID: "kst-hardware", KeyStorageMechanism: kmswire.HsmInternal, KeySpec: kmswire.ECP256, KeyUsage: kmswire.SignVerify},
	}
	var all []string
	for range kills {
		p := startDev(t, "keywardd", dir)
		var mu sync.Mutex
		var acknowledged []string // guarded by mu
		var group sync.WaitGroup
		for _, req := range requests {
			group.Go(func() {
				for {
					var answer kmswire.CreateKeyResponse
					if kmsclient.Call(context.Background(), p.client, "CreateKey", &req, &answer) != nil {
						return // it is dead
					}
					mu.Lock()
					acknowledged = append(acknowledged, answer.KeyMetadata.KeyID)
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(20+rand.IntN(400)) * time.Millisecond) // the moment of the kill is any moment
		p.kill()
		group.Wait()

		p = startDev(t, "keywardd", dir)
		for _, key := range acknowledged {
			p.mustServe(key)
		}
		all = append(all, acknowledged...)
		p.stop()
	}
	if len(all) < kills {
		t.Errorf("only %d keys were made: the kills came too early to mean anything", len(all))
	}
	p := startDev(t, "keywardd", dir)
	for _, key := range all {
		p.mustServe(key)
	}
	p.stop()
	t.Logf("%d keys were acknowledged around %d kills", len(all), kills)
	noOrphans(t, filepath.Join(dir, "k"), all)
}

// mustServe sees that a key of either usage does its work.
func (p *process) mustServe(key string) {
	p.t.Helper()
	if call[kmswire.DescribeKeyResponse](p.t, p, "DescribeKey", &kmswire.DescribeKeyRequest{KeyID: key}).KeyMetadata.KeyUsage == kmswire.EncryptDecrypt {
		p.mustWork(key)
		return
	}
	version, err := kmsclient.NewestVersion(context.Background(), p.client, key)
	if err != nil {
		p.t.Fatal(err)
	}
	digest := make([]byte, 32)
	signature, err := kmsclient.Sign(context.Background(), p.client, key, version, kmswire.ECDSASHA256, digest)
	if err != nil {
		p.t.Fatal(err)
	}
	if !call[kmswire.AsymmetricVerifyResponse](p.t, p, "AsymmetricVerify", &kmswire.AsymmetricVerifyRequest{
		KeyID: key, KeyVersionID: version, Algorithm: kmswire.ECDSASHA256, Digest: digest, Value: signature}).Value {
		p.t.Errorf("the signature of %s does not verify", key)
	}
}

// noOrphans opens the store and the tokens of a stopped daemon and compares them.
func noOrphans(t *testing.T, k string, acknowledged []string) {
	t.Helper()
	ctx := context.Background()
	c, err := config.Load(filepath.Join(k, "keyward.toml"))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", c.Members[0].Environment["SOFTHSM2_CONF"])
	pool := hsmpool.Config{Group: readTrimmed(t, filepath.Join(c.StateDir, "hsm-group"))}
	for i := range c.Members {
		m := &c.Members[i]
		pool.Members = append(pool.Members, hsmpool.MemberConfig{Name: m.Name, Module: m.Module, TokenLabel: m.TokenLabel, PIN: m.PIN})
	}
	hsm, err := hsmpool.Open(ctx, pool)
	if err != nil {
		t.Fatal(err)
	}
	backend, err := boltstore.Open(filepath.Join(c.StateDir, "store.db"), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	db, err := keystore.Open(ctx, backend, hsm)
	if err != nil {
		t.Fatal(err)
	}
	intents, err := db.Intents(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range intents {
		t.Errorf("an intent is left: %+v", i)
	}
	pinned := map[string]bool{} // member and CKA_ID of every pinned version
	var stored []string
	for {
		page, total, err := db.Keys(ctx, c.FirstAccount(), len(stored), 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range page {
			versions, _, err := db.Versions(ctx, id, 0, 100)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range versions {
				if v.Member != "" {
					pinned[v.Member+string(v.ObjectID)] = true
				}
			}
		}
		if stored = append(stored, page...); len(stored) >= total || len(page) == 0 {
			break
		}
	}
	for _, key := range acknowledged {
		if !slices.Contains(stored, key) {
			t.Errorf("%s was acknowledged and is not in the store", key)
		}
	}
	if len(pinned) == 0 {
		t.Error("the store knows no pinned key, so this test says nothing")
	}
	if err := errors.Join(db.Close(), hsm.Close()); err != nil {
		t.Fatal(err)
	}
	for i := range c.Members {
		m := &c.Members[i]
		found, err := tokenKeys(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range found {
			known := pinned[m.Name+o.id]
			if !known && !strings.HasPrefix(o.label, "keyward ") {
				t.Errorf("%s holds an object that no key of the store owns: CKA_ID %x, label %q", m.Name, o.id, o.label)
			}
		}
	}
}

type object struct{ id, label string }

// tokenKeys lists the secret and private keys of a token.
func tokenKeys(m *config.Member) (found []object, err error) {
	ctx := pkcs11.New(m.Module)
	if ctx == nil {
		return nil, errors.New("the module can't be loaded")
	}
	defer ctx.Destroy()
	if err := ctx.Initialize(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ctx.Finalize()) }()
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		return nil, err
	}
	for _, slot := range slots {
		info, err := ctx.GetTokenInfo(slot)
		if err != nil {
			return nil, err
		}
		if strings.TrimRight(info.Label, " \x00") != m.TokenLabel {
			continue
		}
		s, err := ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
		if err != nil {
			return nil, err
		}
		pin, err := m.PIN()
		if err != nil {
			return nil, err
		}
		if err := ctx.Login(s, pkcs11.CKU_USER, string(pin)); err != nil {
			return nil, err
		}
		for _, class := range []uint{pkcs11.CKO_SECRET_KEY, pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY} {
			if err := ctx.FindObjectsInit(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)}); err != nil {
				return nil, err
			}
			handles, _, err := ctx.FindObjects(s, 100_000)
			if err = errors.Join(err, ctx.FindObjectsFinal(s)); err != nil {
				return nil, err
			}
			for _, h := range handles {
				a, err := ctx.GetAttributeValue(s, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, nil), pkcs11.NewAttribute(pkcs11.CKA_LABEL, nil)})
				if err != nil {
					return nil, err
				}
				found = append(found, object{string(a[0].Value), string(a[1].Value)})
			}
		}
		return found, nil
	}
	return nil, errors.New("no token " + m.TokenLabel)
}
