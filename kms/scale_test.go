package kms

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/keystore/boltstore"
	"github.com/keyward/keyward/kms/kmswire"
)

// scaleKeys is how many keys BenchmarkScale has.
const scaleKeys = 100_000

// fill makes keys of which each has an alias, a third the tag team=red, and one in a thousand the tag rare; a tenth are disabled.
func (f *fixture) fill(n int) {
	f.t.Helper()
	for i := 0; i < n; {
		ch := f.db.Change()
		for range min(1000, n-i) {
			k := &keystore.Key{
				ID: newKeyID(), Account: testAccount, Creator: testAccount, Instance: "kst-software", Spec: string(kmswire.AES256), Usage: string(kmswire.EncryptDecrypt),
				Origin: kmswire.OriginKMS, Protection: kmswire.ProtectionSoftware, State: string(kmswire.Enabled), Description: fmt.Sprint("key number ", i),
				Created: f.now(), LastRotation: f.now(), Versions: 1,
			}
			k.Primary = newVersionID(k.ID)
			switch {
			case i%10 == 0:
				k.State = string(kmswire.Disabled)
			case i%3 == 0:
				k.Tags = []keystore.Tag{{Key: "team", Value: "red"}, {Key: "env", Value: "prod"}}
			}
			if i%1000 == 1 {
				k.Tags = append(k.Tags, keystore.Tag{Key: "rare", Value: "yes"})
			}
			ch.CreateKey(k).CreateVersion(&keystore.Version{ID: k.Primary, KeyID: k.ID, Created: k.Created, Sealed: make([]byte, 61)})
			ch.CreateAlias(&keystore.Alias{Account: testAccount, Name: fmt.Sprint("alias/app/", i), KeyID: k.ID, Created: k.Created})
			i++
		}
		if err := ch.Commit(context.Background()); err != nil {
			f.t.Fatal(err)
		}
	}
}

// BenchmarkScale measures what lists and look-ups cost among very many keys, in a store on disk.
func BenchmarkScale(b *testing.B) {
	path := filepath.Join(b.TempDir(), "store")
	open := func() keystore.Store {
		store, err := boltstore.Open(path, boltstore.Options{})
		if err != nil {
			b.Fatal(err)
		}
		return store
	}
	ctx := context.Background()
	f := newSoftFixture(b, open())
	f.fill(scaleKeys)
	f.audit = forgetful{} // the fixture's keeps everything, and would be what is measured

	list := func(name string, number, size, total int, filters string) {
		b.Run(name, func(b *testing.B) {
			req := &kmswire.ListKeysRequest{Page: kmswire.Page{PageNumber: number, PageSize: size}, Filters: json.RawMessage(filters)}
			for b.Loop() {
				r, err := f.ListKeys(ctx, root, req)
				if err != nil || r.TotalCount != total || len(r.Keys.Key) != size {
					b.Fatalf("%d of %d keys, %v", len(r.Keys.Key), r.TotalCount, err)
				}
			}
		})
	}
	const red = scaleKeys/3 + 1 - (scaleKeys/30 + 1)
	list("list/start", 1, 100, scaleKeys, "")
	list("list/middle", scaleKeys/200, 100, scaleKeys, "")
	list("list/end", scaleKeys/100, 100, scaleKeys, "")
	list("tag/start", 1, 100, red, `[{"Key":"TagKey","Values":["team"]}]`)
	list("tag/middle", red/200, 100, red, `[{"Key":"TagKey","Values":["team"]},{"Key":"TagValue","Values":["red"]}]`)
	list("tag+state/rare", 1, 100, scaleKeys/1000, `[{"Key":"TagKey","Values":["rare"]},{"Key":"KeyState","Values":["Enabled"]}]`)
	list("tag+state/many", 1, 100, red, `[{"Key":"TagKey","Values":["team"]},{"Key":"KeyState","Values":["Enabled"]}]`)
	list("walk/state", 1, 100, scaleKeys/10, `[{"Key":"KeyState","Values":["Disabled"]}]`)
	list("walk/all", scaleKeys/100, 100, scaleKeys, `[{"Key":"CreatorType","Values":["User"]}]`)
	list("alias", 1, 1, 1, `[{"Key":"AliasName","Values":["alias/app/77777"]}]`)

	b.Run("tags/walk", func(b *testing.B) {
		req := &kmswire.ListTagResourcesRequest{RegionID: "local", ResourceType: "key"}
		for b.Loop() {
			if r, err := f.ListTagResources(ctx, root, req); err != nil || len(r.TagResources.TagResource) != tagRows {
				b.Fatal(err)
			}
		}
	})
	b.Run("tags/filtered", func(b *testing.B) {
		req := &kmswire.ListTagResourcesRequest{RegionID: "local", ResourceType: "key", Tags: []kmswire.TagParam{{Key: "team", Value: "red"}}}
		for b.Loop() {
			if r, err := f.ListTagResources(ctx, root, req); err != nil || len(r.TagResources.TagResource) != tagRows {
				b.Fatal(err)
			}
		}
	})
	b.Run("describe/any", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := f.DescribeKey(ctx, root, &kmswire.DescribeKeyRequest{KeyID: fmt.Sprint("alias/app/", i*7919%scaleKeys)}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("describe/cached", func(b *testing.B) {
		for b.Loop() {
			if _, err := f.DescribeKey(ctx, root, &kmswire.DescribeKeyRequest{KeyID: "alias/app/7"}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("create", func(b *testing.B) {
		for b.Loop() {
			if _, err := f.createWith(root, "", nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("start", func(b *testing.B) {
		for b.Loop() {
			f.Service.Close()
			if err := f.db.Close(); err != nil {
				b.Fatal(err)
			}
			f.reopen(open())
		}
	})
}
