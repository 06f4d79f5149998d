package softkey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"hash"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keyward/keyward/kms/kmswire"
)

var (
	asymmetric = []kmswire.KeySpec{kmswire.RSA2048, kmswire.RSA3072, kmswire.RSA4096, kmswire.ECP256, kmswire.ECP256K}
	algorithms = []kmswire.Algorithm{kmswire.RSAPSSSHA256, kmswire.RSAPKCS1SHA256, kmswire.ECDSASHA256, kmswire.RSAOAEPSHA1, kmswire.RSAOAEPSHA256}
)

// testKeys makes each key once: a 4096-bit key takes a second.
var testKeys = func() map[kmswire.KeySpec]func() (*PrivateKey, error) {
	m := map[kmswire.KeySpec]func() (*PrivateKey, error){}
	for _, spec := range asymmetric {
		m[spec] = sync.OnceValues(func() (*PrivateKey, error) { return GenerateKey(spec) })
	}
	return m
}()

func testKey(t testing.TB, spec kmswire.KeySpec) *PrivateKey {
	t.Helper()
	k, err := testKeys[spec]()
	if err != nil {
		t.Fatal(spec, err)
	}
	return k
}

func isRSA(spec kmswire.KeySpec) bool { return strings.HasPrefix(string(spec), "RSA") }

func signs(spec kmswire.KeySpec, alg kmswire.Algorithm) bool {
	if isRSA(spec) {
		return alg == kmswire.RSAPSSSHA256 || alg == kmswire.RSAPKCS1SHA256
	}
	return alg == kmswire.ECDSASHA256
}

func encrypts(spec kmswire.KeySpec, alg kmswire.Algorithm) bool {
	return isRSA(spec) && (alg == kmswire.RSAOAEPSHA1 || alg == kmswire.RSAOAEPSHA256)
}

// The tables know every asymmetric spec and algorithm.
func TestTablesComplete(t *testing.T) {
	if len(specs) != len(asymmetric) || len(schemes) != len(algorithms) {
		t.Errorf("%d specs, %d schemes", len(specs), len(schemes))
	}
	for _, spec := range asymmetric {
		if specs[spec].kind == 0 {
			t.Errorf("%s has no row", spec)
		}
	}
	for _, alg := range algorithms {
		if schemes[alg] == nil {
			t.Errorf("%s has no row", alg)
		}
	}
}

func TestGenerateOther(t *testing.T) {
	for _, spec := range []kmswire.KeySpec{kmswire.AES256, "", "RSA_1024"} {
		if _, err := GenerateKey(spec); err != ErrAlgorithm {
			t.Errorf("%q: %v", spec, err)
		}
	}
}

// Every spec with every algorithm: it works and Go's own crypto agrees, or it is ErrAlgorithm.
func TestSignVerify(t *testing.T) {
	digest := sha256.Sum256([]byte("message"))
	other := sha256.Sum256([]byte("another"))
	for _, spec := range asymmetric {
		key := testKey(t, spec)
		public := key.Public()
		for _, alg := range algorithms {
			signature, err := key.Sign(alg, digest[:])
			if !signs(spec, alg) {
				if err != ErrAlgorithm || signature != nil {
					t.Errorf("%s %s: sign: %v", spec, alg, err)
				}
				if ok, err := public.Verify(alg, digest[:], make([]byte, 256)); ok || err != ErrAlgorithm {
					t.Errorf("%s %s: verify: %v, %v", spec, alg, ok, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s %s: %v", spec, alg, err)
			}
			if ok, err := public.Verify(alg, digest[:], signature); !ok || err != nil {
				t.Errorf("%s %s: verify: %v, %v", spec, alg, ok, err)
			}
			if spec != kmswire.ECP256K && !goVerifies(t, public, alg, digest[:], signature) {
				t.Errorf("%s %s: Go's crypto does not accept the signature", spec, alg)
			}
			wrong := [][]byte{nil, {}, signature[1:], signature[:len(signature)-1], append(slices.Clone(signature), 0), make([]byte, len(signature))}
			for _, bit := range []int{0, 7, 8*len(signature)/2 + 3, 8*len(signature) - 1} {
				s := slices.Clone(signature)
				s[bit/8] ^= 1 << (bit % 8)
				wrong = append(wrong, s)
			}
			for i, s := range wrong {
				if ok, err := public.Verify(alg, digest[:], s); ok || err != nil {
					t.Errorf("%s %s: wrong signature %d: %v, %v", spec, alg, i, ok, err)
				}
			}
			if ok, err := public.Verify(alg, other[:], signature); ok || err != nil {
				t.Errorf("%s %s: another digest: %v, %v", spec, alg, ok, err)
			}
			for _, n := range []int{0, 20, 31, 33, 64} {
				if _, err := key.Sign(alg, make([]byte, n)); err != ErrSize {
					t.Errorf("%s %s: sign a digest of %d: %v", spec, alg, n, err)
				}
				if ok, err := public.Verify(alg, make([]byte, n), signature); ok || err != ErrSize {
					t.Errorf("%s %s: verify a digest of %d: %v", spec, alg, n, err)
				}
			}
		}
		if _, err := key.Sign("RSA_PKCS1_SHA_1", digest[:]); err != ErrAlgorithm {
			t.Errorf("%s: unknown algorithm: %v", spec, err)
		}
	}
}

func goVerifies(t *testing.T, k *PublicKey, alg kmswire.Algorithm, digest, signature []byte) bool {
	t.Helper()
	key, err := x509.ParsePKIXPublicKey(k.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	switch alg {
	case kmswire.RSAPKCS1SHA256:
		return rsa.VerifyPKCS1v15(key.(*rsa.PublicKey), crypto.SHA256, digest, signature) == nil
	case kmswire.RSAPSSSHA256:
		return rsa.VerifyPSS(key.(*rsa.PublicKey), crypto.SHA256, digest, signature, &rsa.PSSOptions{SaltLength: 32}) == nil
	}
	return ecdsa.VerifyASN1(key.(*ecdsa.PublicKey), digest, signature)
}

func TestEncryptDecrypt(t *testing.T) {
	hashes := map[kmswire.Algorithm]func() hash.Hash{kmswire.RSAOAEPSHA1: sha1.New, kmswire.RSAOAEPSHA256: sha256.New}
	for _, spec := range asymmetric {
		key := testKey(t, spec)
		public := key.Public()
		for _, alg := range algorithms {
			if !encrypts(spec, alg) {
				if _, err := public.Encrypt(alg, []byte("x")); err != ErrAlgorithm {
					t.Errorf("%s %s: encrypt: %v", spec, alg, err)
				}
				if _, err := key.Decrypt(alg, make([]byte, 256)); err != ErrAlgorithm {
					t.Errorf("%s %s: decrypt: %v", spec, alg, err)
				}
				if n := public.MaxPlaintext(alg); n != 0 {
					t.Errorf("%s %s: MaxPlaintext %d", spec, alg, n)
				}
				continue
			}
			k := specs[spec].bits / 8
			limit := k - 2*hashes[alg]().Size() - 2
			if n := public.MaxPlaintext(alg); n != limit {
				t.Errorf("%s %s: MaxPlaintext %d, want %d", spec, alg, n, limit)
			}
			for _, n := range []int{0, 1, 32, limit} {
				plaintext := bytes.Repeat([]byte{0x5a}, n)
				c, err := public.Encrypt(alg, plaintext)
				if err != nil || len(c) != k {
					t.Fatalf("%s %s: encrypt %d: %d octets, %v", spec, alg, n, len(c), err)
				}
				got, err := key.Decrypt(alg, c)
				if err != nil || !bytes.Equal(got, plaintext) {
					t.Errorf("%s %s: decrypt %d: %d octets, %v", spec, alg, n, len(got), err)
				}
				goKey, err := x509.ParsePKIXPublicKey(public.Marshal())
				if err != nil {
					t.Fatal(err)
				}
				c, err = rsa.EncryptOAEP(hashes[alg](), rand.Reader, goKey.(*rsa.PublicKey), plaintext, nil)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := key.Decrypt(alg, c); err != nil || !bytes.Equal(got, plaintext) {
					t.Errorf("%s %s: decrypt Go's %d: %d octets, %v", spec, alg, n, len(got), err)
				}
			}
			if _, err := public.Encrypt(alg, make([]byte, limit+1)); err != ErrSize {
				t.Errorf("%s %s: too long: %v", spec, alg, err)
			}
			c, err := public.Encrypt(alg, []byte("secret"))
			if err != nil {
				t.Fatal(err)
			}
			flipped := slices.Clone(c)
			flipped[k/2] ^= 1
			wrong := [][]byte{nil, c[1:], append(slices.Clone(c), 0), append([]byte{0}, c...), flipped, make([]byte, k), bytes.Repeat([]byte{0xff}, k)}
			for i, c := range wrong {
				if got, err := key.Decrypt(alg, c); err != ErrDecrypt || got != nil {
					t.Errorf("%s %s: wrong ciphertext %d: %x, %v", spec, alg, i, got, err)
				}
			}
			for _, other := range algorithms {
				if encrypts(spec, other) && other != alg {
					if got, err := key.Decrypt(other, c); err != ErrDecrypt {
						t.Errorf("%s %s as %s: %x, %v", spec, alg, other, got, err)
					}
				}
			}
		}
	}
}

func TestMarshalParse(t *testing.T) {
	digest := sha256.Sum256([]byte("x"))
	for _, spec := range asymmetric {
		key := testKey(t, spec)
		der, err := key.Marshal()
		if err != nil {
			t.Fatal(spec, err)
		}
		if spec != kmswire.ECP256K {
			if _, err := x509.ParsePKCS8PrivateKey(der); err != nil {
				t.Errorf("%s: Go reads the key: %v", spec, err)
			}
		}
		for _, as := range asymmetric {
			got, err := ParsePrivateKey(as, der)
			if as != spec {
				if err != ErrMalformed {
					t.Errorf("%s as %s: %v", spec, as, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v", spec, err)
			}
			again, err := got.Marshal()
			if err != nil || !bytes.Equal(again, der) {
				t.Errorf("%s: written differently, %v", spec, err)
			}
			if !bytes.Equal(got.Public().Marshal(), key.Public().Marshal()) || got.Public().Spec() != spec {
				t.Errorf("%s: another public key", spec)
			}
			if err := got.Check(); err != nil {
				t.Errorf("%s: check: %v", spec, err)
			}
			got.Close()
			got.Close()
			alg := kmswire.ECDSASHA256
			if isRSA(spec) {
				alg = kmswire.RSAPSSSHA256
			}
			if _, err := got.Sign(alg, digest[:]); err != ErrClosed {
				t.Errorf("%s: sign when closed: %v", spec, err)
			}
			if _, err := got.Marshal(); err != ErrClosed {
				t.Errorf("%s: marshal when closed: %v", spec, err)
			}
			if got.Public().PEM() != key.Public().PEM() {
				t.Errorf("%s: the public half is gone with the private one", spec)
			}
		}
		if _, err := ParsePrivateKey(kmswire.AES256, der); err != ErrMalformed {
			t.Errorf("%s as AES: %v", spec, err)
		}
		for i := 0; i < len(der); i += 7 {
			if _, err := ParsePrivateKey(spec, der[:i]); err != ErrMalformed {
				t.Errorf("%s: cut at %d: %v", spec, i, err)
			}
		}
		if _, err := ParsePrivateKey(spec, append(slices.Clone(der), 0)); err != ErrMalformed {
			t.Errorf("%s: octets after: %v", spec, err)
		}
	}
}

// No flipped bit in a private key makes another key that is taken for good, save in what holds no key material.
func TestPrivateKeyFlipped(t *testing.T) {
	for _, spec := range []kmswire.KeySpec{kmswire.RSA2048, kmswire.ECP256, kmswire.ECP256K} {
		der, err := testKey(t, spec).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		for i := range der {
			b := slices.Clone(der)
			b[i] ^= 1 << (i % 8)
			k, err := ParsePrivateKey(spec, b)
			if err == nil {
				if again, _ := k.Marshal(); !bytes.Equal(again, der) {
					t.Errorf("%s: octet %d flipped: another key was taken", spec, i)
				}
				k.Close()
			} else if err != ErrMalformed {
				t.Errorf("%s: octet %d: %v", spec, i, err)
			}
		}
	}
}

func TestPublicKey(t *testing.T) {
	for _, spec := range asymmetric {
		der := testKey(t, spec).Public().Marshal()
		k, err := ParsePublicKey(der)
		if err != nil || k.Spec() != spec || !bytes.Equal(k.Marshal(), der) {
			t.Fatalf("%s: %v", spec, err)
		}
		block, rest := pem.Decode([]byte(k.PEM()))
		if block == nil || block.Type != "PUBLIC KEY" || !bytes.Equal(block.Bytes, der) || len(rest) != 0 || strings.Contains(k.PEM(), "\r") {
			t.Errorf("%s: PEM %q", spec, k.PEM())
		}
		k.Marshal()[0] = 0
		if !bytes.Equal(k.Marshal(), der) {
			t.Errorf("%s: Marshal gives its own memory away", spec)
		}
		for i := range der {
			if _, err := ParsePublicKey(der[:i]); err != ErrMalformed {
				t.Errorf("%s: cut at %d: %v", spec, i, err)
			}
		}
		if _, err := ParsePublicKey(append(slices.Clone(der), 0)); err != ErrMalformed {
			t.Errorf("%s: octets after: %v", spec, err)
		}
		if isRSA(spec) {
			continue
		}
		for i := range 65 * 8 { // the point
			b := slices.Clone(der)
			b[len(b)-65+i/8] ^= 1 << (i % 8)
			if _, err := ParsePublicKey(b); err != ErrMalformed {
				t.Errorf("%s: bit %d of the point flipped: %v", spec, i, err)
			}
		}
	}
}

// A context that is used again draws new randomness each time: with the nonce of ECDSA used twice, the key is public.
func TestSignaturesAreRandom(t *testing.T) {
	digest := sha256.Sum256([]byte("x"))
	for _, spec := range asymmetric {
		alg := kmswire.ECDSASHA256
		if isRSA(spec) {
			alg = kmswire.RSAPSSSHA256
		}
		seen := map[string]bool{}
		for range 20 {
			s, err := testKey(t, spec).Sign(alg, digest[:])
			if err != nil {
				t.Fatal(err)
			}
			part := string(s)
			if !isRSA(spec) {
				part = string(s[4 : 4+s[3]]) // r, which is made of the nonce alone
			}
			if seen[part] {
				t.Fatalf("%s: the same randomness twice", spec)
			}
			seen[part] = true
		}
	}
}

func TestPublicKeyClose(t *testing.T) {
	digest := make([]byte, 32)
	for spec, alg := range map[kmswire.KeySpec]kmswire.Algorithm{kmswire.RSA2048: kmswire.RSAPSSSHA256, kmswire.ECP256: kmswire.ECDSASHA256} {
		k, err := ParsePublicKey(testKey(t, spec).Public().Marshal())
		if err != nil {
			t.Fatal(err)
		}
		s, err := testKey(t, spec).Sign(alg, digest)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := k.Verify(alg, digest, s); !ok || err != nil {
			t.Errorf("%s: %v, %v", spec, ok, err)
		}
		k.Close()
		k.Close()
		if ok, err := k.Verify(alg, digest, s); ok || err != ErrClosed {
			t.Errorf("%s: verify when closed: %v, %v", spec, ok, err)
		}
		if k.PEM() != testKey(t, spec).Public().PEM() || k.Spec() != spec {
			t.Errorf("%s: spec or encoding is gone", spec)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	digest := sha256.Sum256([]byte("x"))
	for _, spec := range []kmswire.KeySpec{kmswire.RSA2048, kmswire.ECP256, kmswire.ECP256K} {
		alg := kmswire.ECDSASHA256
		if isRSA(spec) {
			alg = kmswire.RSAPSSSHA256
		}
		der, err := testKey(t, spec).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		key, err := ParsePrivateKey(spec, der)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 24 { // more than a key keeps contexts for
			wg.Go(func() {
				for {
					s, err := key.Sign(alg, digest[:])
					if err == ErrClosed {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					if ok, err := key.Public().Verify(alg, digest[:], s); !ok || err != nil {
						t.Errorf("%v, %v", ok, err)
						return
					}
				}
			})
		}
		for range 20 {
			if _, err := key.Sign(alg, digest[:]); err != nil {
				t.Error(err)
			}
		}
		key.Close() // the others are in the middle
		wg.Wait()
	}
}
