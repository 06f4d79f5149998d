package softkey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"testing"

	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/kms/rsapad"
)

var rsaHashes = []crypto.Hash{crypto.SHA1, crypto.SHA224, crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA512_224, crypto.SHA512_256,
	crypto.SHA3_224, crypto.SHA3_256, crypto.SHA3_384, crypto.SHA3_512}

// goPrivate is a key as Go's crypto knows it.
func goPrivate(t testing.TB, k *PrivateKey) any {
	t.Helper()
	der, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// signsBy checks that a signature verifies, by us and by another, and that nothing else does.
func signsBy(t *testing.T, k *PrivateKey, m *mechanism.Mechanism, in []byte, other func(signature []byte) bool) {
	t.Helper()
	signature, err := k.SignBy(m, in)
	if err != nil {
		t.Errorf("%+v: %v", m, err)
		return
	}
	if ok, err := k.Public().VerifyBy(m, in, signature); !ok || err != nil {
		t.Errorf("%+v: %v, %v", m, ok, err)
	}
	if !other(signature) {
		t.Errorf("%+v: Go's crypto does not accept it", m)
	}
	changed := slices.Clone(in)
	changed[0] ^= 0x80
	if ok, err := k.Public().VerifyBy(m, changed, signature); ok || err != nil {
		t.Errorf("%+v: another input: %v, %v", m, ok, err)
	}
	for _, wrong := range [][]byte{nil, signature[1:], append(slices.Clone(signature), 0), append([]byte{0}, signature...), make([]byte, len(signature)), bytes.Repeat([]byte{0xff}, len(signature))} {
		if ok, err := k.Public().VerifyBy(m, in, wrong); ok || err != nil {
			t.Errorf("%+v: wrong signature: %v, %v", m, ok, err)
		}
	}
	signature[len(signature)/2] ^= 1
	if ok, err := k.Public().VerifyBy(m, in, signature); ok || err != nil {
		t.Errorf("%+v: flipped bit: %v, %v", m, ok, err)
	}
}

func wantSize(t *testing.T, k *PrivateKey, m *mechanism.Mechanism, sizes ...int) {
	t.Helper()
	for _, n := range sizes {
		if _, err := k.SignBy(m, make([]byte, n)); err != ErrSize {
			t.Errorf("%+v: sign %d octets: %v", m, n, err)
		}
		if _, err := k.Public().VerifyBy(m, make([]byte, n), make([]byte, 256)); err != ErrSize {
			t.Errorf("%+v: verify %d octets: %v", m, n, err)
		}
	}
}

func TestBareRSA(t *testing.T) {
	for _, spec := range []kmswire.KeySpec{kmswire.RSA2048, kmswire.RSA3072} {
		k := testKey(t, spec)
		size := specs[spec].bits / 8
		g := goPrivate(t, k).(*rsa.PrivateKey)

		pkcs1 := &mechanism.Mechanism{Kind: mechanism.RSAPKCS1}
		for _, n := range []int{1, 20, 36, size - 11} { // 36: MD5 and SHA-1, as TLS 1.1 signs
			in := random(n)
			signsBy(t, k, pkcs1, in, func(s []byte) bool { return rsa.VerifyPKCS1v15(&g.PublicKey, 0, in, s) == nil })
		}
		wantSize(t, k, pkcs1, 0, size-10, size, 5000)
		digest := random(32)
		api, err := k.Sign(kmswire.RSAPKCS1SHA256, digest)
		if err != nil {
			t.Fatal(err)
		}
		bare, err := k.SignBy(pkcs1, digestInfo(t, crypto.SHA256, digest))
		if err != nil || !bytes.Equal(bare, api) {
			t.Errorf("%s: the API's signature is another: %v", spec, err)
		}

		raw := &mechanism.Mechanism{Kind: mechanism.RSARaw}
		in := random(size)
		in[0] = 0
		signsBy(t, k, raw, in, func(s []byte) bool {
			return new(big.Int).Exp(new(big.Int).SetBytes(s), big.NewInt(int64(g.E)), g.N).Cmp(new(big.Int).SetBytes(in)) == 0
		})
		wantSize(t, k, raw, 0, 1, size-1, size+1)
		n := g.N.FillBytes(make([]byte, size))
		for what, large := range map[string][]byte{"n": n, "all ones": bytes.Repeat([]byte{0xff}, size)} {
			if _, err := k.SignBy(raw, large); err != ErrSize {
				t.Errorf("sign %s: %v", what, err)
			}
			if _, err := k.Public().EncryptBy(raw, large); err != ErrSize {
				t.Errorf("encrypt %s: %v", what, err)
			}
			if _, err := k.DecryptBy(raw, large); err != ErrDecrypt {
				t.Errorf("decrypt %s: %v", what, err)
			}
		}
		c, err := k.Public().EncryptBy(raw, in)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := k.DecryptBy(raw, c); err != nil || !bytes.Equal(p, in) {
			t.Errorf("raw decryption: %v", err)
		}
		if _, err := k.DecryptBy(raw, c[1:]); err != ErrDecrypt {
			t.Errorf("a short ciphertext: %v", err)
		}

		for _, n := range []int{0, 1, 48, size - 11} {
			p := random(n)
			c, err := k.Public().EncryptBy(pkcs1, p)
			if err != nil {
				t.Fatal(err)
			}
			em := new(big.Int).Exp(new(big.Int).SetBytes(c), g.D, g.N).FillBytes(make([]byte, size))
			if got := rsapad.Unpad(em, c, []byte("secret")); !bytes.Equal(got, p) {
				t.Errorf("PKCS #1 v1.5 encryption of %d: %x", n, got)
			}
		}
		if _, err := k.Public().EncryptBy(pkcs1, make([]byte, size-10)); err != ErrSize {
			t.Errorf("too long: %v", err)
		}
		if _, err := k.DecryptBy(pkcs1, c); err != ErrAlgorithm {
			t.Errorf("PKCS #1 v1.5 is decrypted by kms/rsapad only: %v", err)
		}
	}
}

func TestBarePSS(t *testing.T) {
	k := testKey(t, kmswire.RSA2048)
	g := goPrivate(t, k).(*rsa.PrivateKey)
	for _, h := range rsaHashes {
		digest := random(h.Size())
		for _, salt := range []int{0, 1, h.Size(), 256 - h.Size() - 2} {
			m := &mechanism.Mechanism{Kind: mechanism.RSAPSS, Hash: h, MGF: h, Salt: salt}
			options := &rsa.PSSOptions{SaltLength: salt}
			if salt == 0 {
				options.SaltLength = rsa.PSSSaltLengthAuto // 0 is Auto in Go
			}
			signsBy(t, k, m, digest, func(s []byte) bool { return rsa.VerifyPSS(&g.PublicKey, h, digest, s, options) == nil })
			if salt != 0 {
				s, err := rsa.SignPSS(rand.Reader, g, h, digest, options)
				if err != nil {
					t.Fatal(err)
				}
				if ok, err := k.Public().VerifyBy(m, digest, s); !ok || err != nil {
					t.Errorf("%+v: Go's signature: %v, %v", m, ok, err)
				}
				other := *m
				other.Salt--
				if ok, err := k.Public().VerifyBy(&other, digest, s); ok || err != nil {
					t.Errorf("%+v: another salt: %v, %v", m, ok, err)
				}
			}
			wantSize(t, k, m, 0, h.Size()-1, h.Size()+1)
		}
	}
	for _, m := range []mechanism.Mechanism{
		{Kind: mechanism.RSAPSS, Hash: crypto.SHA256, MGF: crypto.SHA256, Salt: -1}, // OpenSSL's word for "as long as the digest"
		{Kind: mechanism.RSAPSS, Hash: crypto.SHA256, MGF: crypto.SHA256, Salt: -2},
		{Kind: mechanism.RSAPSS, Hash: crypto.SHA256, MGF: crypto.SHA256, Salt: 256 - 32 - 1},
		{Kind: mechanism.RSAPSS, Hash: crypto.SHA256, MGF: crypto.SHA256, Salt: 1 << 20},
		{Kind: mechanism.RSAPSS, Hash: crypto.SHA256},
		{Kind: mechanism.RSAPSS, MGF: crypto.SHA256},
		{Kind: mechanism.RSAPSS, Hash: crypto.MD5, MGF: crypto.SHA256},
		{Kind: mechanism.RSAPSS, Hash: crypto.SHA256, MGF: crypto.RIPEMD160},
		{Kind: mechanism.RSAPSS, Hash: 200, MGF: crypto.SHA256},
		{Kind: mechanism.RSAOAEP, Hash: crypto.SHA256, MGF: crypto.SHA256},
		{Kind: mechanism.ECDSA},
		{Kind: mechanism.AESGCM},
		{Kind: 99},
		{},
	} {
		if _, err := k.SignBy(&m, make([]byte, 32)); err != ErrAlgorithm {
			t.Errorf("%+v: sign: %v", m, err)
		}
		if _, err := k.Public().VerifyBy(&m, make([]byte, 32), make([]byte, 256)); err != ErrAlgorithm {
			t.Errorf("%+v: verify: %v", m, err)
		}
	}
}

// PSS with another MGF1 hash goes both ways between us and the openssl program.
func TestOpenSSLPSS(t *testing.T) {
	k := testKey(t, kmswire.RSA2048)
	dir := t.TempDir()
	der, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	digest := random(48)
	writeFile(t, dir, "digest", digest)
	writeFile(t, dir, "key.der", der)
	for _, mgf := range []crypto.Hash{crypto.SHA1, crypto.SHA512, crypto.SHA3_256} {
		name := map[crypto.Hash]string{crypto.SHA1: "sha1", crypto.SHA512: "sha512", crypto.SHA3_256: "sha3-256"}[mgf]
		m := &mechanism.Mechanism{Kind: mechanism.RSAPSS, Hash: crypto.SHA384, MGF: mgf, Salt: 7}
		options := []string{"-inkey", "key.der", "-keyform", "DER", "-in", "digest", "-pkeyopt", "digest:sha384", "-pkeyopt", "rsa_padding_mode:pss",
			"-pkeyopt", "rsa_pss_saltlen:7", "-pkeyopt", "rsa_mgf1_md:" + name}
		s, err := k.SignBy(m, digest)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir, "ours", s)
		openssl(t, dir, append([]string{"pkeyutl", "-verify", "-sigfile", "ours"}, options...)...)
		openssl(t, dir, append([]string{"pkeyutl", "-sign", "-out", "theirs"}, options...)...)
		if ok, err := k.Public().VerifyBy(m, digest, readFile(t, dir, "theirs")); !ok || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
	}
}

func TestBareOAEP(t *testing.T) {
	k := testKey(t, kmswire.RSA2048)
	g := goPrivate(t, k).(*rsa.PrivateKey)
	for _, h := range rsaHashes {
		for _, mgf := range []crypto.Hash{h, crypto.SHA1, crypto.SHA3_512} {
			for _, label := range [][]byte{nil, []byte("label"), random(1000)} {
				m := &mechanism.Mechanism{Kind: mechanism.RSAOAEP, Hash: h, MGF: mgf, Label: label}
				limit := 256 - 2*h.Size() - 2
				if n := k.Public().MaxPlaintextBy(m); n != limit {
					t.Errorf("%+v: at most %d octets, want %d", m, n, limit)
				}
				p := random(limit)
				c, err := k.Public().EncryptBy(m, p)
				if err != nil {
					t.Fatal(err)
				}
				got, err := g.Decrypt(nil, c, &rsa.OAEPOptions{Hash: h, MGFHash: mgf, Label: label})
				if err != nil || !bytes.Equal(got, p) {
					t.Errorf("%+v: Go decrypts: %v", m, err)
				}
				c, err = rsa.EncryptOAEPWithOptions(rand.Reader, &g.PublicKey, p[:1], &rsa.OAEPOptions{Hash: h, MGFHash: mgf, Label: label})
				if err != nil {
					t.Fatal(err)
				}
				if got, err := k.DecryptBy(m, c); err != nil || !bytes.Equal(got, p[:1]) {
					t.Errorf("%+v: decrypt Go's: %v", m, err)
				}
				other := *m
				other.Label = []byte("another")
				if got, err := k.DecryptBy(&other, c); err != ErrDecrypt || got != nil {
					t.Errorf("%+v: another label: %v", m, err)
				}
				if _, err := k.Public().EncryptBy(m, make([]byte, limit+1)); err != ErrSize {
					t.Errorf("%+v: too long: %v", m, err)
				}
			}
		}
	}
	m := &mechanism.Mechanism{Kind: mechanism.RSAOAEP, Hash: crypto.SHA256, MGF: crypto.SHA256, Label: make([]byte, 4097)}
	if _, err := k.DecryptBy(m, make([]byte, 256)); err != ErrAlgorithm {
		t.Errorf("a huge label: %v", err)
	}
}

func TestBareECDSA(t *testing.T) {
	m := &mechanism.Mechanism{Kind: mechanism.ECDSA}
	for _, spec := range []kmswire.KeySpec{kmswire.ECP256, kmswire.ECP256K} {
		k := testKey(t, spec)
		for n := 1; n <= 64; n++ {
			digest := random(n)
			signsBy(t, k, m, digest, func(s []byte) bool {
				if len(s) != 64 {
					return false
				}
				if spec == kmswire.ECP256K { // OpenSSL verifies what decred did, and signed it itself
					ok, err := k.Public().key.Verify(m, digest, s)
					return ok && err == nil
				}
				g := goPrivate(t, k).(*ecdsa.PrivateKey)
				return ecdsa.Verify(&g.PublicKey, digest, new(big.Int).SetBytes(s[:32]), new(big.Int).SetBytes(s[32:]))
			})
		}
		wantSize(t, k, m, 0, 65, 1000)
		// A signature of the API is the same in DER.
		digest := random(32)
		der, err := k.Sign(kmswire.ECDSASHA256, digest)
		if err != nil {
			t.Fatal(err)
		}
		bare := slices.Concat(leftPad(der[4:4+der[3]], 32), leftPad(der[6+der[3]:], 32))
		if ok, err := k.Public().VerifyBy(m, digest, bare); !ok || err != nil {
			t.Errorf("%s: %v, %v", spec, ok, err)
		}
		for _, wrong := range []mechanism.Mechanism{{Kind: mechanism.RSAPKCS1}, {Kind: mechanism.RSARaw}, {}} {
			if _, err := k.SignBy(&wrong, digest); err != ErrAlgorithm {
				t.Errorf("%s %+v: %v", spec, wrong, err)
			}
			if _, err := k.Public().VerifyBy(&wrong, digest, bare); err != ErrAlgorithm {
				t.Errorf("%s %+v: %v", spec, wrong, err)
			}
			if _, err := k.DecryptBy(&wrong, digest); err != ErrAlgorithm {
				t.Errorf("%s %+v: %v", spec, wrong, err)
			}
			if _, err := k.Public().EncryptBy(&wrong, digest); err != ErrAlgorithm {
				t.Errorf("%s %+v: %v", spec, wrong, err)
			}
		}
	}
}

// leftPad makes a number of a DER INTEGER n octets long.
func leftPad(b []byte, n int) []byte {
	if len(b) > n {
		return b[len(b)-n:]
	}
	return append(make([]byte, n-len(b)), b...)
}

// The examples of SP 800-38A: F.1, F.2 and F.5, all of AES-128 and AES-256.
func TestBareAESVectors(t *testing.T) {
	const (
		key128 = "2b7e151628aed2a6abf7158809cf4f3c"
		key256 = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"
		plain  = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
		iv     = "000102030405060708090a0b0c0d0e0f"
		ctr    = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
	)
	for _, v := range []struct {
		kind            mechanism.Kind
		key, iv, cipher string
	}{
		{mechanism.AESECB, key128, "", "3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf43b1cd7f598ece23881b00e3ed0306887b0c785e27e8ad3f8223207104725dd4"},
		{mechanism.AESECB, key256, "", "f3eed1bdb5d2a03c064b5a7e3db181f8591ccb10d410ed26dc5ba74a31362870b6ed21b99ca6f4f9f153e7b1beafed1d23304b7a39f9f3ff067d8d8f9e24ecc7"},
		{mechanism.AESCBC, key128, iv, "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b273bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7"},
		{mechanism.AESCBC, key256, iv, "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b"},
		{mechanism.AESCTR, key128, ctr, "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"},
		{mechanism.AESCTR, key256, ctr, "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c52b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"},
	} {
		key, err := NewBareAES(unhex(t, v.key))
		if err != nil {
			t.Fatal(err)
		}
		m := &mechanism.Mechanism{Kind: v.kind, IV: unhex(t, v.iv)}
		c, err := key.EncryptBy(m, unhex(t, plain))
		if err != nil || hex.EncodeToString(c) != v.cipher {
			t.Errorf("%d: %x, %v", v.kind, c, err)
		}
		p, err := key.DecryptBy(m, c)
		if err != nil || hex.EncodeToString(p) != plain {
			t.Errorf("%d: %x, %v", v.kind, p, err)
		}
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Every IV from 1 to 256 octets with every tag opens what it sealed, and nothing else.
func TestBareGCM(t *testing.T) {
	k, err := NewAES(random(32))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 7, 11, 12, 13, 16, 17, 60, 255, 256} {
		for bits := 96; bits <= 128; bits += 8 {
			m := &mechanism.Mechanism{Kind: mechanism.AESGCM, IV: random(n), AAD: random(n % 20), TagBits: bits}
			p := random(n)
			c, err := k.EncryptBy(m, p)
			if err != nil || len(c) != len(p)+bits/8 {
				t.Fatalf("%d %d: %d octets, %v", n, bits, len(c), err)
			}
			if got, err := k.DecryptBy(m, c); err != nil || !bytes.Equal(got, p) {
				t.Errorf("%d %d: %v", n, bits, err)
			}
			wrong := [][]byte{nil, c[:bits/8-1], c[1:], c[:len(c)-1]}
			for i := range c {
				b := slices.Clone(c)
				b[i] ^= 0x10
				wrong = append(wrong, b)
			}
			for _, b := range wrong {
				if got, err := k.DecryptBy(m, b); err != ErrDecrypt || got != nil {
					t.Fatalf("%d %d: a changed ciphertext: %v", n, bits, err)
				}
			}
			other := *m
			other.AAD = []byte("another")
			if _, err := k.DecryptBy(&other, c); err != ErrDecrypt {
				t.Errorf("%d %d: another AAD: %v", n, bits, err)
			}
		}
	}
}

func TestBareAESRefuses(t *testing.T) {
	k, err := NewAES(random(32))
	if err != nil {
		t.Fatal(err)
	}
	iv := make([]byte, 16)
	for _, m := range []mechanism.Mechanism{
		{}, {Kind: mechanism.RSARaw}, {Kind: mechanism.AESCBC}, {Kind: mechanism.AESCBC, IV: iv[1:]}, {Kind: mechanism.AESCTR},
		{Kind: mechanism.AESCTR, IV: append(iv, 0)}, {Kind: mechanism.AESGCM, IV: iv}, {Kind: mechanism.AESGCM, TagBits: 128},
		{Kind: mechanism.AESGCM, IV: iv, TagBits: 88}, {Kind: mechanism.AESGCM, IV: iv, TagBits: 64}, {Kind: mechanism.AESGCM, IV: iv, TagBits: 97},
		{Kind: mechanism.AESGCM, IV: iv, TagBits: 136}, {Kind: mechanism.AESGCM, IV: iv, TagBits: -128},
		{Kind: mechanism.AESGCM, IV: make([]byte, 257), TagBits: 128},
	} {
		if _, err := k.EncryptBy(&m, iv); err != ErrAlgorithm {
			t.Errorf("%+v: encrypt: %v", m, err)
		}
		if _, err := k.DecryptBy(&m, iv); err != ErrAlgorithm {
			t.Errorf("%+v: decrypt: %v", m, err)
		}
	}
	for _, m := range []mechanism.Mechanism{{Kind: mechanism.AESECB}, {Kind: mechanism.AESCBC, IV: iv}} {
		for _, n := range []int{1, 15, 17} {
			if _, err := k.EncryptBy(&m, make([]byte, n)); err != ErrSize {
				t.Errorf("%+v: encrypt %d: %v", m, n, err)
			}
			if _, err := k.DecryptBy(&m, make([]byte, n)); err != ErrDecrypt {
				t.Errorf("%+v: decrypt %d: %v", m, n, err)
			}
		}
	}
	ecb := &mechanism.Mechanism{Kind: mechanism.AESECB}
	k.Close()
	if _, err := k.EncryptBy(ecb, iv); err != ErrClosed {
		t.Errorf("closed: %v", err)
	}
	if k.key != [32]byte{} {
		t.Error("the key is still there")
	}
}

// Close comes amid bare modes and signatures by mechanisms: each call works or says that the key is closed.
func TestBareConcurrentUse(t *testing.T) {
	a, err := NewAES(random(32))
	if err != nil {
		t.Fatal(err)
	}
	der, err := testKey(t, kmswire.RSA2048).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParsePrivateKey(kmswire.RSA2048, der)
	if err != nil {
		t.Fatal(err)
	}
	ecb := &mechanism.Mechanism{Kind: mechanism.AESECB}
	want, err := a.EncryptBy(ecb, make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	var wg, started sync.WaitGroup
	for i := range 12 {
		started.Add(1)
		wg.Go(func() {
			for n := 0; ; n++ {
				got, err := a.EncryptBy(ecb, make([]byte, 16))
				if err == nil && !bytes.Equal(got, want) {
					t.Error("another result")
				}
				m := &mechanism.Mechanism{Kind: mechanism.RSAPSS, Hash: crypto.SHA256, MGF: crypto.SHA256, Salt: (i + n) % 20}
				_, err2 := r.SignBy(m, make([]byte, 32))
				if n == 3 {
					started.Done()
				}
				if err == ErrClosed && err2 == ErrClosed {
					return
				}
				if err != nil && err != ErrClosed || err2 != nil && err2 != ErrClosed {
					t.Error(err, err2)
					return
				}
			}
		})
	}
	started.Wait()
	a.Close()
	r.Close()
	wg.Wait()
}

func BenchmarkSignBy(b *testing.B) {
	for _, v := range []struct {
		spec kmswire.KeySpec
		m    mechanism.Mechanism
		size int
	}{
		{kmswire.ECP256, mechanism.Mechanism{Kind: mechanism.ECDSA}, 32},
		{kmswire.ECP256K, mechanism.Mechanism{Kind: mechanism.ECDSA}, 32},
		{kmswire.RSA2048, mechanism.Mechanism{Kind: mechanism.RSAPKCS1}, 51},
		{kmswire.RSA2048, mechanism.Mechanism{Kind: mechanism.RSAPSS, Hash: crypto.SHA256, MGF: crypto.SHA256, Salt: 32}, 32},
		{kmswire.RSA2048, mechanism.Mechanism{Kind: mechanism.RSARaw}, 256},
	} {
		b.Run(fmt.Sprint(v.spec, v.m.Kind), func(b *testing.B) {
			key := testKey(b, v.spec)
			in := make([]byte, v.size)
			in[len(in)-1] = 2
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := key.SignBy(&v.m, in); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func BenchmarkBareGCM1KiB(b *testing.B) {
	k, err := NewAES(random(32))
	if err != nil {
		b.Fatal(err)
	}
	in := make([]byte, 1024)
	m := &mechanism.Mechanism{Kind: mechanism.AESGCM, IV: make([]byte, 12), TagBits: 128}
	b.SetBytes(1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.EncryptBy(m, in); err != nil {
			b.Fatal(err)
		}
	}
}
