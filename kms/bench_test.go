package kms

import (
	"context"
	"crypto/sha256"
	"testing"

	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/mechanism"
)

type forgetful struct{}

func (forgetful) Record(context.Context, *AuditEvent) error { return nil }

// BenchmarkService measures the service without a door: policy, state, cryptography and audit hook. A batch has 100
// items, and an operation of it is one batch.
func BenchmarkService(b *testing.B) {
	hsm := hsmtest.New(b, "north", "south")
	hsm.Ceremony(b)
	f := newFixture(b, hsm.Open(b))
	f.audit = forgetful{} // the fixture's keeps everything, and would be what is measured
	ctx := context.Background()
	digest := sha256.Sum256(nil)
	for _, k := range []kind{software, wrapped} {
		aes := f.create(k, kmswire.AES256, "").KeyID
		b.Run(k.String()+"/Encrypt1KiB", func(b *testing.B) {
			req := &kmswire.EncryptRequest{KeyID: aes, Plaintext: make([]byte, 1024)}
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := f.Encrypt(ctx, root, req); err != nil {
						b.Error(err)
					}
				}
			})
		})
		b.Run(k.String()+"/BatchEncrypt1KiBx100", func(b *testing.B) {
			req := &kmswire.BatchEncryptRequest{KeyID: aes, Items: make([]kmswire.BatchEncryptItem, 100)}
			for i := range req.Items {
				req.Items[i].Plaintext = make([]byte, 1024)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.BatchEncrypt(ctx, root, req); err != nil {
					b.Fatal(err)
				}
			}
		})
		for _, s := range []struct {
			spec kmswire.KeySpec
			alg  kmswire.Algorithm
			by   *mechanism.Mechanism
		}{{kmswire.RSA2048, kmswire.RSAPKCS1SHA256, &mechanism.Mechanism{Kind: mechanism.RSAPKCS1}}, {kmswire.ECP256, kmswire.ECDSASHA256, &mechanism.Mechanism{Kind: mechanism.ECDSA}}} {
			key := f.create(k, s.spec, "").KeyID
			version := f.onlyVersion(key)
			b.Run(k.String()+"/Sign"+string(s.spec), func(b *testing.B) {
				req := &kmswire.AsymmetricSignRequest{KeyID: key, KeyVersionID: version, Algorithm: s.alg, Digest: digest[:]}
				b.ReportAllocs()
				b.RunParallel(func(p *testing.PB) {
					for p.Next() {
						if _, err := f.AsymmetricSign(ctx, root, req); err != nil {
							b.Error(err)
						}
					}
				})
			})
			b.Run(k.String()+"/SignWith"+string(s.spec), func(b *testing.B) { // the same by a mechanism
				use := &KeyUse{KeyID: key, VersionID: version, Mechanism: s.by, Input: digest[:]}
				b.ReportAllocs()
				b.RunParallel(func(p *testing.PB) {
					for p.Next() {
						if _, err := f.SignWith(ctx, root, use); err != nil {
							b.Error(err)
						}
					}
				})
			})
			b.Run(k.String()+"/BatchSign"+string(s.spec)+"x100", func(b *testing.B) {
				req := &kmswire.BatchSignRequest{KeyID: key, KeyVersionID: version, Algorithm: s.alg, Items: make([]kmswire.BatchSignItem, 100)}
				for i := range req.Items {
					req.Items[i].Digest = digest[:]
				}
				for b.Loop() {
					if _, err := f.BatchSign(ctx, root, req); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkPolicies is Encrypt by a user whom the default policy lets, a key policy, or both that and an identity policy.
func BenchmarkPolicies(b *testing.B) {
	ctx := context.Background()
	f := newPolicyFixture(b)
	f.audit = forgetful{}
	measure := func(name string) {
		b.Run(name, func(b *testing.B) {
			req := &kmswire.EncryptRequest{KeyID: f.create(software, kmswire.AES256, "").KeyID, Plaintext: make([]byte, 1024)}
			if name != "default" {
				own := "acs:ram::" + testAccount
				f.setPolicy(req.KeyID, keyPolicyText(statement("Allow", own+":root", "kms:*", ""), statement("Allow", bob.Principal, "kms:Decrypt", ""),
					statement("Allow", user.Principal, "kms:Encrypt", "")))
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Encrypt(ctx, user, req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	measure("default")
	measure("key")
	if _, err := f.Principals().Create(ctx, root, user.Principal, ""); err != nil {
		b.Fatal(err)
	}
	f.attach(user.Principal, identityPolicyText("Deny", "kms:ScheduleKeyDeletion", "*"))
	measure("key+identity")
}
