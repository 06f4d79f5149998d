package softkey

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"testing"

	"github.com/keyward/keyward/kms/kmswire"
)

// Run with -cpu 1,2 to see what goroutines on one key cost each other.

func benchmarkSign(b *testing.B, spec kmswire.KeySpec, alg kmswire.Algorithm) {
	key := testKey(b, spec)
	digest := sha256.Sum256([]byte("x"))
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := key.Sign(alg, digest[:]); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func benchmarkVerify(b *testing.B, spec kmswire.KeySpec, alg kmswire.Algorithm) {
	key := testKey(b, spec)
	digest := sha256.Sum256([]byte("x"))
	signature, err := key.Sign(alg, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if ok, err := key.Public().Verify(alg, digest[:], signature); !ok || err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkSignRSA2048PKCS1(b *testing.B) {
	benchmarkSign(b, kmswire.RSA2048, kmswire.RSAPKCS1SHA256)
}
func BenchmarkSignRSA2048PSS(b *testing.B) { benchmarkSign(b, kmswire.RSA2048, kmswire.RSAPSSSHA256) }
func BenchmarkSignP256(b *testing.B)       { benchmarkSign(b, kmswire.ECP256, kmswire.ECDSASHA256) }
func BenchmarkSignSecp256k1(b *testing.B)  { benchmarkSign(b, kmswire.ECP256K, kmswire.ECDSASHA256) }

func BenchmarkVerifyRSA2048PSS(b *testing.B) {
	benchmarkVerify(b, kmswire.RSA2048, kmswire.RSAPSSSHA256)
}
func BenchmarkVerifyP256(b *testing.B)      { benchmarkVerify(b, kmswire.ECP256, kmswire.ECDSASHA256) }
func BenchmarkVerifySecp256k1(b *testing.B) { benchmarkVerify(b, kmswire.ECP256K, kmswire.ECDSASHA256) }

// Go's own crypto, to compare.

func BenchmarkSignRSA2048PKCS1InGo(b *testing.B) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	digest := sha256.Sum256([]byte("x"))
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:]); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkSignP256InGo(b *testing.B) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	digest := sha256.Sum256([]byte("x"))
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkDecryptRSA2048OAEP(b *testing.B) {
	key := testKey(b, kmswire.RSA2048)
	c, err := key.Public().Encrypt(kmswire.RSAOAEPSHA256, make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := key.Decrypt(kmswire.RSAOAEPSHA256, c); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkSeal1KiB(b *testing.B) {
	key, nonce := testAES(b)
	plaintext, aad := make([]byte, 1024), make([]byte, 70)
	b.SetBytes(1024)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		dst := make([]byte, 0, 2048)
		for pb.Next() {
			key.Seal(dst, nonce, plaintext, aad)
		}
	})
}

func BenchmarkOpen1KiB(b *testing.B) {
	key, nonce := testAES(b)
	aad := make([]byte, 70)
	sealed := key.Seal(nil, nonce, make([]byte, 1024), aad)
	b.SetBytes(1024)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		dst := make([]byte, 0, 2048)
		for pb.Next() {
			if _, err := key.Open(dst, nonce, sealed, aad); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkParsePrivateKey(b *testing.B) {
	for _, spec := range []kmswire.KeySpec{kmswire.RSA2048, kmswire.RSA4096, kmswire.ECP256, kmswire.ECP256K} {
		der, err := testKey(b, spec).Marshal()
		if err != nil {
			b.Fatal(err)
		}
		b.Run(string(spec), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k, err := ParsePrivateKey(spec, der)
				if err != nil {
					b.Fatal(err)
				}
				k.Close()
			}
		})
	}
}
