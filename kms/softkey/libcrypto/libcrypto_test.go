package libcrypto

import (
	"bytes"
	"crypto"
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

	"github.com/keyward/keyward/kms/mechanism"
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
		{"n of 1024 bits", shifted(1024), big.NewInt(65537), true},
		{"n of 1023 bits", shifted(1023), big.NewInt(65537), false},
		{"n of 960 bits", shifted(960), big.NewInt(65537), false},
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
	for _, bits := range []int{0, -1, 960, 1023, 2047, 2056, 8192} {
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
	for _, kind := range []Kind{P256, Secp256k1, P384, P521} {
		k, err := GenerateEC(kind)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	for _, k := range keys[:5] {
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

// mechanisms is one of each kind, and those with more choices.
var mechanisms = []*mechanism.Mechanism{
	{},
	{Kind: mechanism.RSAPKCS1},
	{Kind: mechanism.RSARaw},
	pss,
	{Kind: mechanism.RSAPSS, Hash: crypto.SHA256, MGF: crypto.SHA3_512, Salt: 222},
	{Kind: mechanism.RSAOAEP, Hash: crypto.SHA1, MGF: crypto.SHA256},
	{Kind: mechanism.RSAOAEP, Hash: crypto.SHA512, MGF: crypto.SHA512, Label: []byte("label")},
	{Kind: mechanism.ECDSA},
	{Kind: mechanism.AESECB},
}

var pss = &mechanism.Mechanism{Kind: mechanism.RSAPSS, Hash: crypto.SHA256, MGF: crypto.SHA256, Salt: 32}

// Every key with every scheme and every operation, good input and bad, leaves the error queue empty and gives one of the
// errors of this package.
func TestEveryCombination(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, k := range allKeys(t) {
		for _, m := range mechanisms {
			in := make([]byte, 32)
			if m.Kind == mechanism.RSARaw {
				in = bytes.Repeat([]byte{1}, 256)
			}
			isRSA := k.Kind() == RSA
			canSign := isRSA == (m.Kind != mechanism.ECDSA) && m.Kind != mechanism.RSAOAEP && m.Kind != mechanism.AESECB && m.Kind != 0
			canEncrypt := isRSA && (m.Kind == mechanism.RSAOAEP || m.Kind == mechanism.RSAPKCS1 || m.Kind == mechanism.RSARaw)

			signature, err := k.Sign(m, in)
			wantErr(t, err, canSign && k.Private(), ErrScheme)
			if err == nil {
				if ok, err := k.Verify(m, in, signature); !ok || err != nil {
					t.Errorf("kind %d %+v: %v, %v", k.Kind(), m, ok, err)
				}
			}
			for _, n := range []int{0, 1, 63, 64, 65, 96, 132, 255, 256, 257, 512} {
				for _, fill := range []byte{0, 0x30, 0xff} {
					ok, err := k.Verify(m, in, bytes.Repeat([]byte{fill}, n))
					wantErr(t, err, canSign, ErrScheme)
					if ok {
						t.Errorf("kind %d %+v: %d octets of nonsense verify", k.Kind(), m, n)
					}
					quiet(t, "verify")
				}
			}
			if m.Kind != mechanism.RSARaw {
				in = nil
			}
			c, err := k.Encrypt(m, in)
			wantErr(t, err, canEncrypt, ErrScheme)
			canDecrypt := canEncrypt && m.Kind != mechanism.RSAPKCS1 && k.Private()
			if err == nil && canDecrypt {
				if p, err := k.Decrypt(m, c); err != nil || !bytes.Equal(p, in) {
					t.Errorf("kind %d %+v: %x, %v", k.Kind(), m, p, err)
				}
			}
			_, err = k.Decrypt(m, bytes.Repeat([]byte{0xff}, 256))
			if canDecrypt {
				wantErr(t, err, false, ErrDecrypt)
			} else {
				wantErr(t, err, false, ErrScheme)
			}
			quiet(t, "decrypt")
		}
		digest := make([]byte, DigestSize)
		signature, err := k.SignDER(digest)
		wantErr(t, err, k.Kind() != RSA && k.Private(), ErrScheme)
		for _, n := range []int{0, 1, 70, 72, 73, 104, 140, 256} {
			ok, err := k.VerifyDER(digest, bytes.Repeat([]byte{0x30}, n))
			wantErr(t, err, k.Kind() != RSA, ErrScheme)
			if ok {
				t.Errorf("kind %d: %d octets of nonsense verify", k.Kind(), n)
			}
		}
		if err == nil {
			if ok, err := k.VerifyDER(digest, signature); !ok || err != nil {
				t.Errorf("kind %d: %v, %v", k.Kind(), ok, err)
			}
		}
		for _, n := range []int{0, 1, 33, 65, 97, 133} {
			_, err := k.ECDH(make([]byte, n))
			if k.Kind() != RSA && k.Private() {
				wantErr(t, err, false, ErrKey)
			} else {
				wantErr(t, err, false, ErrScheme)
			}
		}
		quiet(t, "curves")
		_, err = k.MarshalPKCS8()
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
		m := &ecdsa
		if k.Kind() == RSA {
			m = pss
		}
		if k.Private() {
			if _, err := k.Sign(m, digest); err != nil {
				t.Error(err)
			}
		}
		k.Close()
		k.Close()
		if k.handle.key != nil {
			t.Error("the key is not freed")
		}
		if len(k.handle.shelves) != 0 {
			t.Error("contexts are left")
		}
		size := 2 * k.Kind().ScalarSize()
		if k.Kind() == RSA {
			size = 256
		}
		_, err := k.Verify(m, digest, make([]byte, size))
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
		if _, err := k.SignDER(make([]byte, DigestSize)); err != nil {
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
	s, ok := k.plan(opSign, &ecdsa)
	if !ok {
		t.Fatal("no plan")
	}
	var contexts []func()
	for range maxIdle + 5 {
		ctx, err := k.handle.borrow(&s, nil)
		if err != nil {
			t.Fatal(err)
		}
		contexts = append(contexts, func() { k.handle.giveBack(&s, ctx) })
	}
	for _, done := range contexts {
		done()
	}
	if n := len(k.handle.shelf(&s).idle); n != maxIdle || k.handle.users != 0 {
		t.Errorf("%d contexts are kept, %d users", n, k.handle.users)
	}
}

// At most maxShelves setups stay, and those in use stay longest; labels never do.
func TestShelvesBounded(t *testing.T) {
	k, err := ParsePKCS8(pkcs8(t, parts(goRSA(t))))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	digest := make([]byte, 32)
	for salt := range 40 {
		for _, n := range []int{32, salt} {
			m := *pss
			m.Salt = n
			if _, err := k.Sign(&m, digest); err != nil {
				t.Fatal(err)
			}
		}
		if s, _ := k.plan(opSign, pss); k.handle.shelf(&s) == nil {
			t.Fatal("the setup that is used all the time is gone")
		}
	}
	if n := len(k.handle.shelves); n != maxShelves {
		t.Errorf("%d setups are kept", n)
	}
	for _, label := range []string{"a", "b", ""} {
		m := &mechanism.Mechanism{Kind: mechanism.RSAOAEP, Hash: crypto.SHA256, MGF: crypto.SHA256, Label: []byte(label)}
		c, err := k.Encrypt(m, digest)
		if err != nil {
			t.Fatal(err)
		}
		other := *m
		other.Label = []byte("c")
		if _, err := k.Decrypt(&other, c); err != ErrDecrypt {
			t.Errorf("%q: decrypted with another label: %v", label, err)
		}
		if p, err := k.Decrypt(m, c); err != nil || !bytes.Equal(p, digest) {
			t.Errorf("%q: %v", label, err)
		}
		s, _ := k.plan(opDecrypt, m)
		if kept := k.handle.shelf(&s) != nil; kept != (label == "") {
			t.Errorf("%q: kept %v", label, kept)
		}
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
	der, err := k.SignDER(digest)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := k.Sign(&ecdsa, digest)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(){
		"SignDER": func() { _, _ = k.SignDER(digest) },
		"Sign":    func() { _, _ = k.Sign(&ecdsa, digest) },
	} {
		if n := testing.AllocsPerRun(50, f); n > 1 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	for name, f := range map[string]func(){
		"VerifyDER": func() { _, _ = k.VerifyDER(digest, der) },
		"Verify":    func() { _, _ = k.Verify(&ecdsa, digest, signature) },
	} {
		if n := testing.AllocsPerRun(50, f); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
