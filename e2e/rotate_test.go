package e2e

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

// TestKillWhileRotating kills the daemon with -9 in the middle of rotations. After each start every version that was
// acknowledged is there, the primary one is among them, and everything that was encrypted is decrypted.
func TestKillWhileRotating(t *testing.T) {
	dir := shortDir(t)
	p := startDev(t, "keywardd", dir)
	versions := map[string][]string{
		createKey(t, p, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software"}): nil,
		createKey(t, p, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware"}): nil,
	}
	var mu sync.Mutex // over versions and blobs
	var blobs [][]byte
	made := 0
	for range 6 {
		var group sync.WaitGroup
		for _, key := range slices.Collect(maps.Keys(versions)) { // the map changes while the last ones begin
			group.Go(func() {
				for {
					var answer kmswire.CreateKeyVersionResponse
					if kmsclient.Call(context.Background(), p.client, "CreateKeyVersion", &kmswire.CreateKeyVersionRequest{KeyID: key}, &answer) != nil {
						return
					}
					mu.Lock()
					versions[key] = append(versions[key], answer.KeyVersion.KeyVersionID)
					made++
					mu.Unlock()
				}
			})
			group.Go(func() {
				for {
					var answer kmswire.EncryptResponse
					if kmsclient.Call(context.Background(), p.client, "Encrypt", &kmswire.EncryptRequest{KeyID: key, Plaintext: []byte("kept")}, &answer) != nil {
						return
					}
					mu.Lock()
					if len(blobs) < 2000 {
						blobs = append(blobs, []byte(answer.CiphertextBlob))
					}
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(20+rand.IntN(300)) * time.Millisecond) // the moment of the kill is any moment
		p.kill()
		group.Wait()

		p = startDev(t, "keywardd", dir)
		for key, acknowledged := range versions {
			var all []string
			for page := 1; ; page++ {
				l := call[kmswire.ListKeyVersionsResponse](t, p, "ListKeyVersions", &kmswire.ListKeyVersionsRequest{KeyID: key, Page: kmswire.Page{PageNumber: page, PageSize: 100}})
				for _, v := range l.KeyVersions.KeyVersion {
					all = append(all, v.KeyVersionID)
				}
				if len(l.KeyVersions.KeyVersion) == 0 {
					break
				}
			}
			for _, v := range acknowledged {
				if !slices.Contains(all, v) {
					t.Errorf("the version %s is lost", v)
				}
			}
			k := call[kmswire.DescribeKeyResponse](t, p, "DescribeKey", &kmswire.DescribeKeyRequest{KeyID: key}).KeyMetadata
			if i := slices.Index(all, k.PrimaryKeyVersion); i != len(all)-1 {
				t.Errorf("the primary version is number %d of %d", i+1, len(all))
			}
			p.mustServe(key)
		}
		for _, blob := range blobs {
			if d := call[kmswire.DecryptResponse](t, p, "Decrypt", &kmswire.DecryptRequest{CiphertextBlob: blob}); string(d.Plaintext) != "kept" {
				t.Fatalf("a blob holds %q", d.Plaintext)
			}
		}
	}
	p.stop()
	if made < 6 || len(blobs) < 6 {
		t.Errorf("%d versions and %d blobs: the kills came too early to mean anything", made, len(blobs))
	}
}
