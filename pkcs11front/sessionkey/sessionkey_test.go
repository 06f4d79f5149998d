package sessionkey

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keyward/keyward/kms/mechanism"
)

var allCurves = []Curve{P256, P384, P521, Secp256k1}

var testRSA = sync.OnceValues(func() (*Private, error) { return GenerateRSA(2048) })

func rsaKey(t testing.TB) *Private {
	t.Helper()
	k, err := testRSA()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// copyOf is another object with the same key.
func copyOf(t testing.TB, k *Private) *Private {
	t.Helper()
	der, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParsePrivate(der)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func ecKey(t testing.TB, c Curve) *Private {
	t.Helper()
	k, err := GenerateEC(c)
	if err != nil {
		t.Fatal(c, err)
	}
	return k
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// openssl runs the openssl program, and gives what it prints without space around it.
func openssl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("openssl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

var ecdsaBare = &mechanism.Mechanism{Kind: mechanism.ECDSA}

// goPublic is a public key as Go's crypto knows it; it has no secp256k1.
func goPublic(t testing.TB, k *Public) any {
	t.Helper()
	key, err := x509.ParsePKIXPublicKey(k.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestECKeys(t *testing.T) {
	for _, c := range allCurves {
		k := ecKey(t, c)
		public := k.Public()
		if k.Kind() != EC || k.Curve() != c || k.Bits() != c.Bits() || public.Curve() != c || public.Bits() != c.Bits() || public.Modulus() != nil {
			t.Errorf("%s: %d %s %d, %s %d", c, k.Kind(), k.Curve(), k.Bits(), public.Curve(), public.Bits())
		}
		for _, n := range []int{1, 20, 32, 48, 64} {
			digest := random(n)
			s, err := k.SignBy(ecdsaBare, digest)
			if err != nil || len(s) != 2*c.Size() {
				t.Fatalf("%s: %d octets, %v", c, len(s), err)
			}
			if ok, err := public.VerifyBy(ecdsaBare, digest, s); !ok || err != nil {
				t.Errorf("%s: %v, %v", c, ok, err)
			}
			if c != Secp256k1 {
				r, sig := new(big.Int).SetBytes(s[:c.Size()]), new(big.Int).SetBytes(s[c.Size():])
				if !ecdsa.Verify(goPublic(t, public).(*ecdsa.PublicKey), digest, r, sig) {
					t.Errorf("%s: Go does not accept the signature of %d octets", c, n)
				}
			}
			s[3] ^= 1
			if ok, err := public.VerifyBy(ecdsaBare, digest, s); ok || err != nil {
				t.Errorf("%s: a changed signature: %v, %v", c, ok, err)
			}
		}
		value, err := k.Value()
		if err != nil || len(value) != c.Size() {
			t.Fatalf("%s: value of %d, %v", c, len(value), err)
		}
		for name, point := range map[string][]byte{"none": nil, "uncompressed": public.Point(), "DER": EncodePoint(public.Point())} {
			again, err := NewECPrivate(c, append([]byte{0, 0}, value...), point)
			if err != nil {
				t.Fatalf("%s, point %s: %v", c, name, err)
			}
			if !bytes.Equal(again.Public().Marshal(), public.Marshal()) {
				t.Errorf("%s: another public key", c)
			}
			again.Close()
		}
		other := ecKey(t, c)
		if _, err := NewECPrivate(c, value, other.Public().Point()); err != ErrMalformed {
			t.Errorf("%s: the point of another key: %v", c, err)
		}
		for name, bad := range map[string][]byte{"zero": make([]byte, c.Size()), "too large": bytes.Repeat([]byte{0xff}, c.Size()), "too long": append([]byte{1}, value...), "none": nil} {
			if _, err := NewECPrivate(c, bad, nil); err != ErrMalformed {
				t.Errorf("%s: value %s: %v", c, name, err)
			}
		}
		if _, err := k.Numbers(); err != ErrAlgorithm {
			t.Errorf("%s: RSA numbers: %v", c, err)
		}
		same := copyOf(t, k)
		if again, err := same.Value(); err != nil || !bytes.Equal(again, value) {
			t.Errorf("%s: PKCS #8 has another value: %v", c, err)
		}
		if c != Secp256k1 {
			der, err := k.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			g, err := x509.ParsePKCS8PrivateKey(der)
			if err != nil {
				t.Fatalf("%s: Go reads the PKCS #8: %v", c, err)
			}
			if d, err := g.(*ecdsa.PrivateKey).Bytes(); err != nil || !bytes.Equal(d, value) {
				t.Errorf("%s: Go reads another value: %v", c, err)
			}
		}
	}
	if _, err := GenerateEC("P-224"); err != ErrAlgorithm {
		t.Errorf("P-224: %v", err)
	}
	if _, err := NewECPublic("P-224", make([]byte, 57)); err != ErrMalformed {
		t.Errorf("P-224: %v", err)
	}
	if _, err := NewECPrivate("", []byte{1}, nil); err != ErrMalformed {
		t.Errorf("no curve: %v", err)
	}
}

func TestPointsAndParams(t *testing.T) {
	for _, c := range allCurves {
		got, err := CurveOf(c.Params())
		if err != nil || got != c {
			t.Errorf("%s: %s, %v", c, got, err)
		}
		for _, bad := range [][]byte{nil, c.Params()[1:], append(c.Params(), 0), {0x13, 5, 'P', '-', '2', '5', '6'}} {
			if _, err := CurveOf(bad); err != ErrMalformed {
				t.Errorf("%s: %x: %v", c, bad, err)
			}
		}
		point := ecKey(t, c).Public().Point()
		for _, form := range [][]byte{point, EncodePoint(point)} {
			if got, err := c.Point(form); err != nil || !bytes.Equal(got, point) {
				t.Errorf("%s: %x, %v", c, got, err)
			}
			k, err := NewECPublic(c, form)
			if err != nil {
				t.Errorf("%s: %v", c, err)
				continue
			}
			if !bytes.Equal(k.Point(), point) {
				t.Errorf("%s: another point", c)
			}
			again, err := ParsePublic(k.Marshal())
			if err != nil || !bytes.Equal(again.Point(), point) {
				t.Errorf("%s: SubjectPublicKeyInfo: %v", c, err)
			}
		}
		compressed := append([]byte{2 + point[len(point)-1]&1}, point[1:1+c.Size()]...)
		off := slices.Clone(point)
		off[len(off)-1] ^= 1
		for name, bad := range map[string][]byte{
			"none": nil, "compressed": compressed, "infinity": {0}, "short": point[:len(point)-1], "long": append(slices.Clone(point), 0),
			"DER of nothing": {4, 0}, "DER with octets after": append(EncodePoint(point), 0), "hybrid": append([]byte{6}, point[1:]...),
		} {
			if _, err := c.Point(bad); err != ErrMalformed {
				t.Errorf("%s: %s: %v", c, name, err)
			}
			if _, err := NewECPublic(c, bad); err != ErrMalformed {
				t.Errorf("%s: %s: %v", c, name, err)
			}
		}
		if _, err := NewECPublic(c, off); err != ErrMalformed {
			t.Errorf("%s: off the curve: %v", c, err)
		}
	}
}

func TestRSAKeys(t *testing.T) {
	k := rsaKey(t)
	g := goPublic(t, k.Public()).(*rsa.PublicKey)
	if k.Kind() != RSA || k.Bits() != 2048 || k.Curve() != "" || k.Public().Point() != nil || new(big.Int).SetBytes(k.Public().Modulus()).Cmp(g.N) != 0 ||
		new(big.Int).SetBytes(k.Public().Exponent()).Int64() != 65537 || len(k.Public().Modulus()) != 256 {
		t.Error("the key does not say what it is")
	}
	digest := random(32)
	pss := &mechanism.Mechanism{Kind: mechanism.RSAPSS, Hash: crypto.SHA256, MGF: crypto.SHA256, Salt: 32}
	s, err := k.SignBy(pss, digest)
	if err != nil || rsa.VerifyPSS(g, crypto.SHA256, digest, s, nil) != nil {
		t.Errorf("PSS: %v", err)
	}
	n, err := k.Numbers()
	if err != nil {
		t.Fatal(err)
	}
	again, err := NewRSAPrivate(n)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Public().Marshal(), k.Public().Marshal()) {
		t.Error("another key")
	}
	public, err := NewRSAPublic(append([]byte{0}, n.Modulus...), n.PublicExponent)
	if err != nil || !bytes.Equal(public.Marshal(), k.Public().Marshal()) {
		t.Errorf("public key of its numbers: %v", err)
	}
	if ok, err := public.VerifyBy(pss, digest, s); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if _, err := k.Value(); err != ErrAlgorithm {
		t.Errorf("EC value: %v", err)
	}
	if _, err := k.ECDH(make([]byte, 65), 0, nil, 0); err != ErrAlgorithm {
		t.Errorf("ECDH: %v", err)
	}

	fields := map[string]*[]byte{"modulus": &n.Modulus, "public exponent": &n.PublicExponent, "private exponent": &n.PrivateExponent, "prime 1": &n.Prime1,
		"prime 2": &n.Prime2, "exponent 1": &n.Exponent1, "exponent 2": &n.Exponent2, "coefficient": &n.Coefficient}
	for name, f := range fields {
		was := *f
		changed := slices.Clone(was)
		changed[len(changed)-1] ^= 2
		for what, bad := range map[string][]byte{"none": nil, "zero": {0}, "changed": changed, "huge": bytes.Repeat([]byte{0xff}, 1<<20)} {
			*f = bad
			if _, err := NewRSAPrivate(n); err != ErrMalformed {
				t.Errorf("%s %s: %v", name, what, err)
			}
		}
		*f = was
	}
	n.Wipe()
	for name, f := range fields {
		if !bytes.Equal(*f, make([]byte, len(*f))) {
			t.Errorf("%s is not wiped", name)
		}
	}
	if _, err := NewRSAPublic(bytes.Repeat([]byte{0xff}, 120), []byte{1, 0, 1}); err != ErrMalformed {
		t.Errorf("960 bits: %v", err)
	}
	for _, bits := range []int{0, 512, 960, 1023, 1025, 2047, 2049, 4160, 1 << 30, -1} {
		if _, err := GenerateRSA(bits); err != ErrSize {
			t.Errorf("%d bits: %v", bits, err)
		}
	}
	odd, err := GenerateRSA(2112)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := odd.SignBy(pss, digest); err != nil || len(s) != 264 {
		t.Errorf("2112 bits: %d octets, %v", len(s), err)
	}
	odd.Close()
}

var pkcs1 = &mechanism.Mechanism{Kind: mechanism.RSAPKCS1}

// P7: whatever is wrong with PKCS #1 v1.5 padding, a message comes out. It is the same each time, and the same from another object with
// the same key: who asks two objects learns nothing either.
func TestImplicitRejection(t *testing.T) {
	k := rsaKey(t)
	other := copyOf(t, k)
	defer other.Close()
	message := random(48)
	c, err := k.Public().EncryptBy(pkcs1, message)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := k.DecryptBy(pkcs1, c); err != nil || !bytes.Equal(got, message) {
			t.Errorf("%x, %v", got, err)
		}
	}
	lengths := map[int]bool{}
	for i := range 40 {
		bad := random(256)
		bad[0] = 0
		bad[255] = byte(i)
		one, err1 := k.DecryptBy(pkcs1, bad)
		two, err2 := k.DecryptBy(pkcs1, bad)
		three, err3 := other.DecryptBy(pkcs1, bad)
		if err1 != nil || err2 != nil || err3 != nil || !bytes.Equal(one, two) || !bytes.Equal(one, three) {
			t.Fatalf("%x %v, %x %v, %x %v", one, err1, two, err2, three, err3)
		}
		lengths[len(one)] = true
	}
	if len(lengths) < 10 {
		t.Errorf("%d lengths of 40 fakes", len(lengths))
	}
	for _, visible := range [][]byte{nil, c[1:], append(slices.Clone(c), 0), bytes.Repeat([]byte{0xff}, 256), k.Public().Modulus()} {
		if got, err := k.DecryptBy(pkcs1, visible); err != ErrDecrypt || got != nil {
			t.Errorf("%d octets: %x, %v", len(visible), got, err)
		}
	}
	if _, err := ecKey(t, P256).DecryptBy(pkcs1, c); err != ErrAlgorithm {
		t.Errorf("EC: %v", err)
	}
	other.Close()
	if _, err := other.DecryptBy(pkcs1, c); err != ErrClosed {
		t.Errorf("closed: %v", err)
	}
	if !bytes.Equal(other.rejection, make([]byte, 32)) {
		t.Error("the secret is not wiped")
	}
}

func TestECDH(t *testing.T) {
	for _, c := range allCurves {
		a, b := ecKey(t, c), ecKey(t, c)
		z, err := a.ECDH(b.Public().Point(), 0, nil, 0)
		if err != nil || len(z) != c.Size() {
			t.Fatalf("%s: %d octets, %v", c, len(z), err)
		}
		same, err := b.ECDH(EncodePoint(a.Public().Point()), 0, nil, 0)
		if err != nil || !bytes.Equal(same, z) {
			t.Errorf("%s: the other side has %x, %v", c, same, err)
		}
		if g := map[Curve]ecdh.Curve{P256: ecdh.P256(), P384: ecdh.P384(), P521: ecdh.P521()}[c]; g != nil {
			value, err := a.Value()
			if err != nil {
				t.Fatal(err)
			}
			key, err := g.NewPrivateKey(value)
			if err != nil {
				t.Fatal(err)
			}
			peer, err := g.NewPublicKey(b.Public().Point())
			if err != nil {
				t.Fatal(err)
			}
			if want, err := key.ECDH(peer); err != nil || !bytes.Equal(z, want) {
				t.Errorf("%s: Go has %x, %v", c, want, err)
			}
		}
		// CKD_NULL cuts in front.
		for _, n := range []int{MinDerived, 24, c.Size()} {
			if got, err := a.ECDH(b.Public().Point(), 0, nil, n); err != nil || !bytes.Equal(got, z[len(z)-n:]) {
				t.Errorf("%s: %d octets: %x, %v", c, n, got, err)
			}
		}
		for h, name := range map[crypto.Hash]string{crypto.SHA1: "SHA1", crypto.SHA224: "SHA224", crypto.SHA256: "SHA256", crypto.SHA384: "SHA384", crypto.SHA512: "SHA512"} {
			if c != P256 && h != crypto.SHA256 {
				continue // each run of openssl takes time
			}
			got, err := a.ECDH(b.Public().Point(), h, []byte("shared"), 100)
			if err != nil || len(got) != 100 {
				t.Fatalf("%s %s: %d octets, %v", c, name, len(got), err)
			}
			want := openssl(t, "kdf", "-keylen", "100", "-kdfopt", "digest:"+name, "-kdfopt", "hexkey:"+hex.EncodeToString(z),
				"-kdfopt", "hexinfo:"+hex.EncodeToString([]byte("shared")), "X963KDF")
			if strings.ReplaceAll(strings.ToLower(want), ":", "") != hex.EncodeToString(got) {
				t.Errorf("%s %s: %x, openssl has %s", c, name, got, want)
			}
			one, err := a.ECDH(b.Public().Point(), h, []byte("shared"), 1)
			if err != nil || !bytes.Equal(one, got[:1]) {
				t.Errorf("%s %s: one octet: %x, %v", c, name, one, err)
			}
		}
		for _, tt := range []struct {
			name   string
			point  []byte
			kdf    crypto.Hash
			shared []byte
			size   int
			want   error
		}{
			{"one octet without KDF", b.Public().Point(), 0, nil, 1, ErrSize},
			{"15 octets without KDF", b.Public().Point(), 0, nil, 15, ErrSize},
			{"more than there is", b.Public().Point(), 0, nil, c.Size() + 1, ErrSize},
			{"less than nothing", b.Public().Point(), 0, nil, -1, ErrSize},
			{"less than nothing, KDF", b.Public().Point(), crypto.SHA256, nil, -1, ErrSize},
			{"huge", b.Public().Point(), crypto.SHA256, nil, MaxSecret + 1, ErrSize},
			{"shared data without KDF", b.Public().Point(), 0, []byte{1}, 0, ErrAlgorithm},
			{"huge shared data", b.Public().Point(), crypto.SHA256, make([]byte, MaxShared+1), 32, ErrAlgorithm},
			{"MD5", b.Public().Point(), crypto.MD5, nil, 16, ErrAlgorithm},
			{"SHA-3", b.Public().Point(), crypto.SHA3_256, nil, 32, ErrAlgorithm},
			{"no point", nil, 0, nil, 0, ErrMalformed},
			{"infinity", []byte{0}, 0, nil, 0, ErrMalformed},
			{"zeros", append([]byte{4}, make([]byte, 2*c.Size())...), 0, nil, 0, ErrMalformed},
			{"another curve's", ecKey(t, map[Curve]Curve{P256: Secp256k1, Secp256k1: P256, P384: P521, P521: P384}[c]).Public().Point(), 0, nil, 0, ErrMalformed},
		} {
			if got, err := a.ECDH(tt.point, tt.kdf, tt.shared, tt.size); err != tt.want || got != nil {
				t.Errorf("%s, %s: %x, %v", c, tt.name, got, err)
			}
		}
		a.Close()
		if _, err := a.ECDH(b.Public().Point(), 0, nil, 0); err != ErrClosed {
			t.Errorf("%s: closed: %v", c, err)
		}
	}
}

// The examples of SP 800-38B (RFC 4493 has those of AES-128), and of lengths around blocks what openssl makes.
func TestCMAC(t *testing.T) {
	message := unhex(t, "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")
	for key, tags := range map[string]map[int]string{
		"2b7e151628aed2a6abf7158809cf4f3c": {
			0: "bb1d6929e95937287fa37d129b756746", 16: "070a16b46b4d4144f79bdd9dd04a287c", 40: "dfa66747de9ae63030ca32611497c827", 64: "51f0bebf7e3b9d92fc49741779363cfe"},
		"8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b": {
			0: "d17ddf46adaacde531cac483de7a9367", 16: "9e99a7bf31e710900662f65e617c5184", 40: "8a1de5be2eb31aad089a82e6ee908b0e", 64: "a1d5df0eed790f794d77589659f39a11"},
		"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4": {
			0: "028962f61b7bf89efc6b551f4667d983", 16: "28a7023f452e8f82bd4bf28d8c37c35c", 40: "aaf3d8f1de5640c232f5b169b9c911e6", 64: "e1992190549f6ed5696a2c056c315410"},
	} {
		k, err := NewSecret(AES, unhex(t, key))
		if err != nil {
			t.Fatal(err)
		}
		mac, err := k.CMAC()
		if err != nil {
			t.Fatal(err)
		}
		for n, want := range tags {
			for _, part := range []int{1, 5, 16, 17, 64} {
				mac.Reset()
				for p := range slices.Chunk(message[:n], part) {
					mac.Write(p)
				}
				if got := mac.Sum([]byte{9}); got[0] != 9 || hex.EncodeToString(got[1:]) != want {
					t.Errorf("%d octets in parts of %d: %x, want %s", n, part, got, want)
				}
			}
		}
		if mac.Size() != 16 || mac.BlockSize() != 16 {
			t.Error("sizes")
		}
	}
	generic, err := NewSecret(Generic, make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := generic.CMAC(); err != ErrAlgorithm {
		t.Errorf("a generic secret: %v", err)
	}
}

func TestSecrets(t *testing.T) {
	for kind, sizes := range map[Kind]map[bool][]int{
		AES:     {true: {16, 24, 32}, false: {-1, 0, 1, 15, 17, 33, 512, 1 << 40}},
		Generic: {true: {1, 16, 100, 512}, false: {-1, 0, 513, 1 << 40}},
		RSA:     {false: {16, 256}},
		0:       {false: {16}},
	} {
		for _, n := range sizes[true] {
			k, err := GenerateSecret(kind, n)
			if err != nil {
				t.Errorf("%d of %d: %v", kind, n, err)
				continue
			}
			octets, err := k.Marshal()
			if err != nil || len(octets) != n || k.Size() != n || k.Kind() != kind || n > 8 && bytes.Equal(octets, make([]byte, n)) {
				t.Errorf("%d of %d: %x, %v", kind, n, octets, err)
			}
			octets[0] ^= 1
			if again, _ := k.Marshal(); bytes.Equal(again, octets) {
				t.Error("Marshal gives its own memory away")
			}
			octets[0] ^= 1
			same, err := NewSecret(kind, octets)
			if err != nil {
				t.Fatal(err)
			}
			clear(octets) // the caller's
			a, b := hmacOf(t, k), hmacOf(t, same)
			if !bytes.Equal(a, b) {
				t.Errorf("%d of %d: another key", kind, n)
			}
		}
		for _, n := range sizes[false] {
			if _, err := GenerateSecret(kind, n); err != ErrSize {
				t.Errorf("%d of %d: %v", kind, n, err)
			}
			if n < 0 || n > 1000 {
				continue
			}
			if _, err := NewSecret(kind, make([]byte, n)); err != ErrSize {
				t.Errorf("%d of %d: %v", kind, n, err)
			}
		}
	}
	k, err := NewSecret(AES, unhex(t, "000102030405060708090a0b0c0d0e0f"))
	if err != nil {
		t.Fatal(err)
	}
	if v, err := k.CheckValue(); err != nil || hex.EncodeToString(v) != "c6a13b" { // openssl enc -aes-128-ecb of zeros
		t.Errorf("check value %x, %v", v, err)
	}
	gcm := &mechanism.Mechanism{Kind: mechanism.AESGCM, IV: random(12), TagBits: 96}
	c, err := k.EncryptBy(gcm, []byte("plaintext"))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := k.DecryptBy(gcm, c); err != nil || string(p) != "plaintext" {
		t.Errorf("%q, %v", p, err)
	}
	if _, err := k.HMAC(crypto.MD5); err != ErrAlgorithm {
		t.Errorf("HMAC-MD5: %v", err)
	}
	if _, err := k.HMAC(0); err != ErrAlgorithm {
		t.Errorf("HMAC of nothing: %v", err)
	}
	for _, bad := range [][]byte{nil, make([]byte, 7), make([]byte, 8), make([]byte, 17)} {
		if _, err := k.Wrap(false, bad); err != ErrSize {
			t.Errorf("wrap %d: %v", len(bad), err)
		}
		if _, err := k.Unwrap(false, bad); err != ErrDecrypt {
			t.Errorf("unwrap %d: %v", len(bad), err)
		}
	}
	if _, err := k.Wrap(true, nil); err != ErrSize {
		t.Errorf("wrap nothing: %v", err)
	}
	generic, err := GenerateSecret(Generic, 32)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"encrypt":     second(generic.EncryptBy(gcm, nil)),
		"decrypt":     second(generic.DecryptBy(gcm, make([]byte, 16))),
		"wrap":        second(generic.Wrap(true, []byte{1})),
		"unwrap":      second(generic.Unwrap(false, make([]byte, 24))),
		"check value": second(generic.CheckValue()),
	} {
		if err != ErrAlgorithm {
			t.Errorf("a generic secret, %s: %v", name, err)
		}
	}
	octets := k.octets
	k.Close()
	k.Close()
	if !bytes.Equal(octets, make([]byte, 16)) {
		t.Error("the key is not wiped")
	}
	for name, err := range map[string]error{
		"encrypt": second(k.EncryptBy(gcm, nil)),
		"decrypt": second(k.DecryptBy(gcm, c)),
		"wrap":    second(k.Wrap(true, []byte{1})),
		"marshal": second(k.Marshal()),
		"HMAC":    second(k.HMAC(crypto.SHA256)),
		"CMAC":    second(k.CMAC()),
	} {
		if err != ErrClosed {
			t.Errorf("closed, %s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func hmacOf(t *testing.T, k *Secret) []byte {
	t.Helper()
	mac, err := k.HMAC(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	mac.Write([]byte("message"))
	return mac.Sum(nil)
}

// A secret key goes to another owner under a public key, and a private one under a secret key.
func TestWrapKeys(t *testing.T) {
	k := rsaKey(t)
	secret := random(32)
	for _, m := range []*mechanism.Mechanism{pkcs1, {Kind: mechanism.RSAOAEP, Hash: crypto.SHA1, MGF: crypto.SHA1}} {
		c, err := k.Public().EncryptBy(m, secret)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.DecryptBy(m, c); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%d: %x, %v", m.Kind, got, err)
		}
	}
	wrapping, err := NewSecret(AES, secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []*Private{k, ecKey(t, P521), ecKey(t, Secp256k1)} {
		der, err := k.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		wrapped, err := wrapping.Wrap(true, der)
		if err != nil {
			t.Fatal(err)
		}
		back, err := wrapping.Unwrap(true, wrapped)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParsePrivate(back)
		if err != nil || !bytes.Equal(again.Public().Marshal(), k.Public().Marshal()) {
			t.Errorf("%s: %v", k.Curve(), err)
		}
	}
}

// Keys of Go and of openssl are read.
func TestForeignKeys(t *testing.T) {
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		g, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(g)
		if err != nil {
			t.Fatal(err)
		}
		k, err := ParsePrivate(der)
		if err != nil {
			t.Fatal(c.Params().Name, err)
		}
		s, err := k.SignBy(ecdsaBare, []byte("digest"))
		if err != nil {
			t.Fatal(err)
		}
		n := k.Curve().Size()
		if !ecdsa.Verify(&g.PublicKey, []byte("digest"), new(big.Int).SetBytes(s[:n]), new(big.Int).SetBytes(s[n:])) {
			t.Errorf("%s: the signature is wrong", c.Params().Name)
		}
	}
	for _, name := range []string{"P-384", "P-521", "secp256k1"} {
		pem, der := filepath.Join(t.TempDir(), "pem"), filepath.Join(t.TempDir(), "der")
		openssl(t, "genpkey", "-quiet", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:"+name, "-out", pem)
		openssl(t, "pkcs8", "-topk8", "-nocrypt", "-in", pem, "-outform", "DER", "-out", der)
		octets, err := os.ReadFile(der)
		if err != nil {
			t.Fatal(err)
		}
		if k, err := ParsePrivate(octets); err != nil || string(k.Curve()) != name {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Close comes amid uses of every kind: each works or says that the key is closed.
func TestConcurrentClose(t *testing.T) {
	secret, err := GenerateSecret(AES, 32)
	if err != nil {
		t.Fatal(err)
	}
	private, curve := copyOf(t, rsaKey(t)), ecKey(t, P256)
	c, err := private.Public().EncryptBy(pkcs1, []byte("message"))
	if err != nil {
		t.Fatal(err)
	}
	point := ecKey(t, P256).Public().Point()
	uses := []func() error{
		func() error { return second(secret.Wrap(true, []byte{1})) },
		func() error {
			return second(secret.EncryptBy(&mechanism.Mechanism{Kind: mechanism.AESECB}, make([]byte, 16)))
		},
		func() error { return second(secret.HMAC(crypto.SHA256)) },
		func() error { return second(secret.CMAC()) },
		func() error { return second(secret.Marshal()) },
		func() error {
			p, err := private.DecryptBy(pkcs1, c)
			if err == nil && string(p) != "message" {
				err = fmt.Errorf("decrypted %q", p)
			}
			return err
		},
		func() error { return second(private.Numbers()) },
		func() error { return second(curve.SignBy(ecdsaBare, []byte{1})) },
		func() error { return second(curve.ECDH(point, 0, nil, 0)) },
		func() error { return second(curve.Value()) },
	}
	var wg, started sync.WaitGroup
	for _, use := range uses {
		started.Add(1)
		wg.Go(func() {
			for n := 0; ; n++ {
				err := use()
				if n == 5 {
					started.Done()
				}
				if errors.Is(err, ErrClosed) && n >= 5 {
					return
				}
				if err != nil && !errors.Is(err, ErrClosed) {
					t.Error(err)
					return
				}
			}
		})
	}
	started.Wait()
	secret.Close()
	private.Close()
	curve.Close()
	wg.Wait()
}
