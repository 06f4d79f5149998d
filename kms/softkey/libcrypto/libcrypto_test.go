package libcrypto

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var testRSA = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func goRSA(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	k, err := testRSA()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// rsaPrivate is RSAPrivateKey of RFC 8017 appendix A.1.2, so that tests can break one part.
type rsaPrivate struct {
	Version                   int
	N, E, D, P, Q, DP, DQ, QI *big.Int
}

func parts(k *rsa.PrivateKey) rsaPrivate {
	return rsaPrivate{0, k.N, big.NewInt(int64(k.E)), k.D, k.Primes[0], k.Primes[1],
		k.Precomputed.Dp, k.Precomputed.Dq, k.Precomputed.Qinv}
}

var rsaAlgorithm = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, Parameters: asn1.NullRawValue}

func pkcs8(t testing.TB, p rsaPrivate) []byte {
	t.Helper()
	inner, err := asn1.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}{0, rsaAlgorithm, inner})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func spki(t testing.TB, n, e *big.Int) []byte {
	t.Helper()
	inner, err := asn1.Marshal(struct{ N, E *big.Int }{n, e})
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}{rsaAlgorithm, asn1.BitString{Bytes: inner, BitLength: 8 * len(inner)}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// quiet checks that nothing is left in the thread's error queue. The caller has locked its thread.
func quiet(t *testing.T, what string) {
	t.Helper()
	if e := pendingError(); e != 0 {
		t.Errorf("%s left error %#x behind", what, e)
	}
}

func TestPrivatePartsMustAgree(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	one, two := big.NewInt(1), big.NewInt(2)
	k := goRSA(t)
	p1, q1 := new(big.Int).Sub(k.Primes[0], one), new(big.Int).Sub(k.Primes[1], one)
	lambda := new(big.Int).Div(new(big.Int).Mul(p1, q1), new(big.Int).GCD(nil, nil, p1, q1))
	phi := new(big.Int).Mul(p1, q1)
	add := func(a, b *big.Int) *big.Int { return new(big.Int).Add(a, b) }
	tests := []struct {
		name   string
		change func(*rsaPrivate)
		ok     bool
	}{
		{"as it is", func(p *rsaPrivate) {}, true},
		{"d mod lambda(n)", func(p *rsaPrivate) { p.D = new(big.Int).Mod(p.D, lambda) }, true},
		{"d mod phi(n)", func(p *rsaPrivate) { p.D = new(big.Int).ModInverse(p.E, phi) }, true},
		{"d over n", func(p *rsaPrivate) {
			p.D = add(p.D, new(big.Int).Mul(lambda, new(big.Int).Div(add(p.N, lambda), lambda)))
		}, false},
		{"d and one", func(p *rsaPrivate) { p.D = add(p.D, one) }, false},
		{"n and two", func(p *rsaPrivate) { p.N = add(p.N, two) }, false},
		{"another e", func(p *rsaPrivate) { p.E = big.NewInt(3) }, false},
		{"dp and one", func(p *rsaPrivate) { p.DP = add(p.DP, one) }, false},
		{"dp and p-1", func(p *rsaPrivate) { p.DP = add(p.DP, p1) }, false},
		{"dq and one", func(p *rsaPrivate) { p.DQ = add(p.DQ, one) }, false},
		{"qi and one", func(p *rsaPrivate) { p.QI = add(p.QI, one) }, false},
		{"qi and p", func(p *rsaPrivate) { p.QI = add(p.QI, p.P) }, false},
		{"p and q exchanged", func(p *rsaPrivate) { p.P, p.Q = p.Q, p.P }, false},
		{"negative d", func(p *rsaPrivate) { p.D = new(big.Int).Neg(p.D) }, false},
		{"negative p and q", func(p *rsaPrivate) { p.P, p.Q = new(big.Int).Neg(p.P), new(big.Int).Neg(p.Q) }, false},
		{"no primes", func(p *rsaPrivate) {
			z := new(big.Int)
			p.P, p.Q, p.DP, p.DQ, p.QI = z, z, z, z, z
		}, false},
		{"p is one", func(p *rsaPrivate) { p.P, p.Q = one, p.N }, false},
		{"zero n", func(p *rsaPrivate) { p.N = new(big.Int) }, false},
		{"version 1", func(p *rsaPrivate) { p.Version = 1 }, false},
		{"version 7", func(p *rsaPrivate) { p.Version = 7 }, false},
	}
	for _, tt := range tests {
		p := parts(k)
		tt.change(&p)
		key, err := ParsePKCS8(pkcs8(t, p))
		if (err == nil) != tt.ok || err != nil && err != ErrKey {
			t.Errorf("%s: %v", tt.name, err)
		}
		if key != nil {
			if err := key.Check(); err != nil {
				t.Errorf("%s: check: %v", tt.name, err)
			}
			key.Close()
		}
		quiet(t, tt.name)
	}
}

// A product of numbers that are not prime passes the arithmetic of parsing if it is built for it, and fails Check.
func TestCheckFindsComposites(t *testing.T) {
	one := big.NewInt(1)
	e := big.NewInt(65537)
	composite := func() *big.Int {
		for {
			a, err := rand.Prime(rand.Reader, 512)
			if err != nil {
				t.Fatal(err)
			}
			b, err := rand.Prime(rand.Reader, 512)
			if err != nil {
				t.Fatal(err)
			}
			if c := new(big.Int).Mul(a, b); c.BitLen() == 1024 {
				return c
			}
		}
	}
	for {
		p, q := composite(), composite()
		p1, q1 := new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)
		d := new(big.Int).ModInverse(e, new(big.Int).Mul(p1, q1))
		n := new(big.Int).Mul(p, q)
		if d == nil || n.BitLen() != 2048 {
			continue
		}
		key, err := ParsePKCS8(pkcs8(t, rsaPrivate{0, n, e, d, p, q, new(big.Int).Mod(d, p1), new(big.Int).Mod(d, q1), new(big.Int).ModInverse(q, p)}))
		if err != nil {
			t.Fatal(err)
		}
		if err := key.Check(); err != ErrKey {
			t.Errorf("composite primes: %v", err)
		}
		return
	}
}

func TestPublicBounds(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	n := goRSA(t).N
	shifted := func(bits uint) *big.Int { return new(big.Int).SetBit(new(big.Int).Lsh(big.NewInt(1), bits-1), 0, 1) }
	tests := []struct {
		name string
		n, e *big.Int
		ok   bool
	}{
		{"usual", n, big.NewInt(65537), true},
		{"e 3", n, big.NewInt(3), true},
		{"e 1", n, big.NewInt(1), false},
		{"e 0", n, big.NewInt(0), false},
		{"e 2", n, big.NewInt(2), false},
		{"e 65536", n, big.NewInt(65536), false},
		{"e -3", n, big.NewInt(-3), false},
		{"e of 64 bits", n, shifted(64), true},
		{"e of 65 bits", n, shifted(65), false},
		{"e as long as n", n, shifted(2048), false},
		{"even n", new(big.Int).Add(n, big.NewInt(1)), big.NewInt(65537), false},
		{"negative n", new(big.Int).Neg(n), big.NewInt(65537), false},
		{"n of 2047 bits", shifted(2047), big.NewInt(65537), false},
		{"n of 2048 bits", shifted(2048), big.NewInt(65537), true},
		{"n of 2049 bits", shifted(2049), big.NewInt(65537), false},
		{"n of 1024 bits", shifted(1024), big.NewInt(65537), false},
		{"n of 3072 bits", shifted(3072), big.NewInt(65537), true},
		{"n of 4096 bits", shifted(4096), big.NewInt(65537), true},
		{"n of 8192 bits", shifted(8192), big.NewInt(65537), false},
		{"n of 16384 bits", shifted(16384), big.NewInt(65537), false},
		{"n 0", new(big.Int), big.NewInt(65537), false},
	}
	for _, tt := range tests {
		key, err := ParseSPKI(spki(t, tt.n, tt.e))
		if (err == nil) != tt.ok || err != nil && err != ErrKey {
			t.Errorf("%s: %v", tt.name, err)
		}
		if key != nil && (key.Bits() != tt.n.BitLen() || key.Kind() != RSA || key.Private()) {
			t.Errorf("%s: %d bits, kind %d, private %v", tt.name, key.Bits(), key.Kind(), key.Private())
		}
		quiet(t, tt.name)
	}
}

func TestParseGarbage(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	good := pkcs8(t, parts(goRSA(t)))
	public := spki(t, goRSA(t).N, big.NewInt(3))
	for name, der := range map[string][]byte{
		"nothing":      nil,
		"empty":        {},
		"one octet":    {0x30},
		"text":         []byte("-----BEGIN PRIVATE KEY-----"),
		"octets after": append(slices.Clone(good), 0),
		"public after": append(slices.Clone(public), 0),
		"cut":          good[:len(good)-1],
		"cut public":   public[:len(public)-1],
		"huge":         make([]byte, maxDER+1),
		"bare RSA key": x509.MarshalPKCS1PrivateKey(goRSA(t)),
		"bare public":  x509.MarshalPKCS1PublicKey(&goRSA(t).PublicKey),
	} {
		if _, err := ParsePKCS8(der); err != ErrKey {
			t.Errorf("%s: private: %v", name, err)
		}
		if _, err := ParseSPKI(der); err != ErrKey {
			t.Errorf("%s: public: %v", name, err)
		}
		quiet(t, name)
	}
	if _, err := ParseSPKI(good); err != ErrKey {
		t.Errorf("private as public: %v", err)
	}
	if _, err := ParsePKCS8(public); err != ErrKey {
		t.Errorf("public as private: %v", err)
	}
	for _, bits := range []int{0, -1, 1024, 2047, 2056, 8192} {
		if _, err := GenerateRSA(bits); err != ErrSize {
			t.Errorf("generate %d bits: %v", bits, err)
		}
	}
	if _, err := GenerateEC(RSA); err != ErrKey {
		t.Errorf("generate RSA as a curve: %v", err)
	}
}

// allKeys is a key of each kind: private and public.
func allKeys(t testing.TB) []*Key {
	t.Helper()
	rsaKey, err := ParsePKCS8(pkcs8(t, parts(goRSA(t))))
	if err != nil {
		t.Fatal(err)
	}
	keys := []*Key{rsaKey}
	for _, kind := range []Kind{P256, Secp256k1} {
		k, err := GenerateEC(kind)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	for _, k := range keys[:3] {
		der, err := k.MarshalSPKI()
		if err != nil {
			t.Fatal(err)
		}
		public, err := ParseSPKI(der)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, public)
	}
	return keys
}

// Every key with every scheme and every operation, good input and bad, leaves the error queue empty and gives one of the
// errors of this package.
func TestEveryCombination(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	digest := make([]byte, DigestSize)
	for _, k := range allKeys(t) {
		for s := Scheme(0); s <= OAEPSHA256+1; s++ {
			row := schemes[s]
			fits := row.rsa == (k.Kind() == RSA) && (s >= PKCS1SHA256 && s <= OAEPSHA256)
			canSign, canEncrypt := fits && row.sign >= 0, fits && row.encrypt >= 0

			signature, err := k.Sign(s, digest)
			wantErr(t, err, canSign && k.Private(), ErrScheme)
			if err == nil {
				if ok, err := k.Verify(s, digest, signature); !ok || err != nil {
					t.Errorf("kind %d scheme %d: %v, %v", k.Kind(), s, ok, err)
				}
			}
			for _, n := range []int{0, 1, 70, 72, 73, 255, 256, 257, 512} {
				ok, err := k.Verify(s, digest, bytes.Repeat([]byte{0x30}, n))
				wantErr(t, err, canSign, ErrScheme)
				if ok {
					t.Errorf("kind %d scheme %d: %d octets of nonsense verify", k.Kind(), s, n)
				}
				quiet(t, "verify")
			}
			c, err := k.Encrypt(s, nil)
			wantErr(t, err, canEncrypt, ErrScheme)
			if err == nil && k.Private() {
				if p, err := k.Decrypt(s, c); err != nil || len(p) != 0 {
					t.Errorf("kind %d scheme %d: %x, %v", k.Kind(), s, p, err)
				}
			}
			if canEncrypt && k.Private() {
				_, err = k.Decrypt(s, make([]byte, 256))
				wantErr(t, err, false, ErrDecrypt)
			} else {
				_, err = k.Decrypt(s, make([]byte, 256))
				wantErr(t, err, false, ErrScheme)
			}
			quiet(t, "decrypt")
		}
		_, err := k.MarshalPKCS8()
		wantErr(t, err, k.Private(), ErrScheme)
		wantErr(t, k.Check(), k.Private(), ErrScheme)
		quiet(t, "marshal")
	}
}

func wantErr(t *testing.T, err error, ok bool, want error) {
	t.Helper()
	if ok && err != nil || !ok && !errors.Is(err, want) {
		t.Errorf("got %v, want success %v or %v", err, ok, want)
	}
}

func TestClose(t *testing.T) {
	digest := make([]byte, DigestSize)
	for _, k := range allKeys(t) {
		s := ECDSASHA256
		if k.Kind() == RSA {
			s = PSSSHA256
		}
		if k.Private() {
			if _, err := k.Sign(s, digest); err != nil {
				t.Error(err)
			}
		}
		k.Close()
		k.Close()
		if k.handle.key != nil {
			t.Error("the key is not freed")
		}
		for _, list := range k.handle.idle {
			if len(list) != 0 {
				t.Error("contexts are left")
			}
		}
		size := 70
		if k.Kind() == RSA {
			size = 256
		}
		_, err := k.Verify(s, digest, make([]byte, size))
		wantErr(t, err, false, ErrClosed)
		_, err = k.MarshalSPKI()
		wantErr(t, err, false, ErrClosed)
	}
}

// A key that nobody holds any more gives its memory back by itself.
func TestUnreachableKeyIsFreed(t *testing.T) {
	handle := func() *handle {
		k, err := GenerateEC(P256)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Sign(ECDSASHA256, make([]byte, DigestSize)); err != nil {
			t.Fatal(err)
		}
		return k.handle
	}()
	freed := func() bool {
		handle.mu.Lock()
		defer handle.mu.Unlock()
		return handle.key == nil
	}
	for deadline := time.Now().Add(10 * time.Second); !freed(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the key was not freed")
		}
		runtime.GC()
	}
}

// At most maxIdle contexts stay, however many goroutines there were.
func TestIdleContextsBounded(t *testing.T) {
	k, err := GenerateEC(P256)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	var contexts []func()
	for range maxIdle + 5 {
		ctx, err := k.handle.borrow(signECDSA)
		if err != nil {
			t.Fatal(err)
		}
		contexts = append(contexts, func() { k.handle.giveBack(signECDSA, ctx, true) })
	}
	for _, done := range contexts {
		done()
	}
	if n := len(k.handle.idle[signECDSA]); n != maxIdle || k.handle.users != 0 {
		t.Errorf("%d contexts are kept, %d users", n, k.handle.users)
	}
}

func TestFailureText(t *testing.T) {
	err := failure("doing this", 0)
	if !errors.Is(err, ErrOperation) || err.Error() != "libcrypto: OpenSSL failed: doing this" {
		t.Error(err)
	}
	// ERR_LIB_RSA, RSA_R_DATA_TOO_LARGE.
	err = failure("doing this", 4<<23|109)
	if !errors.Is(err, ErrOperation) || !strings.Contains(err.Error(), "data too large") || strings.Contains(err.Error(), "\x00") {
		t.Error(err)
	}
}

// One object of Go's memory per operation: the result.
func TestAllocations(t *testing.T) {
	digest := make([]byte, DigestSize)
	k, err := GenerateEC(P256)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := k.Sign(ECDSASHA256, digest)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(50, func() { _, _ = k.Sign(ECDSASHA256, digest) }); n > 1 {
		t.Errorf("Sign: %v allocations", n)
	}
	if n := testing.AllocsPerRun(50, func() { _, _ = k.Verify(ECDSASHA256, digest, signature) }); n > 0 {
		t.Errorf("Verify: %v allocations", n)
	}
}
