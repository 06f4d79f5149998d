package hsmpool_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/hsmpool/hsmtest/faulty"
)

// transportKey makes a transport key.
func transportKey(t testing.TB, p *hsmpool.Pool) (*hsmpool.Key, *rsa.PublicKey) {
	t.Helper()
	g, err := p.GenerateTransport(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.ParsePKIXPublicKey(g.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return &hsmpool.Key{ID: fmt.Sprint("transport-", importCount()), Type: hsmpool.RSA2048, Usage: hsmpool.UseUnwrap, Wrapped: g.Wrapped},
		pub.(*rsa.PublicKey)
}

// keyWrapPad is RFC 5649 in the words of the RFC.
func keyWrapPad(t testing.TB, key, material []byte) []byte {
	t.Helper()
	b, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	a := binary.BigEndian.AppendUint32([]byte{0xa6, 0x59, 0x59, 0xa6}, uint32(len(material)))
	r := append(a, material...)
	r = append(r, make([]byte, (8-len(material)%8)%8)...)
	n := len(r)/8 - 1
	if n == 1 {
		b.Encrypt(r, r)
		return r
	}
	var block [16]byte
	for j := range 6 {
		for i := 1; i <= n; i++ {
			copy(block[:8], r[:8])
			copy(block[8:], r[8*i:])
			b.Encrypt(block[:], block[:])
			binary.BigEndian.PutUint64(r, binary.BigEndian.Uint64(block[:8])^uint64(n*j+i))
			copy(r[8*i:], block[8:])
		}
	}
	return r
}

func isKWP(a hsmpool.ImportAlgorithm) bool { return a >= hsmpool.ImportOAEPSHA1KWP }

// encryptMaterial encrypts material for an import with Go's library.
func encryptMaterial(t testing.TB, pub *rsa.PublicKey, a hsmpool.ImportAlgorithm, material []byte) []byte {
	t.Helper()
	block, rest := material, []byte(nil)
	if isKWP(a) {
		block = make([]byte, 32)
		rand.Read(block)
		rest = keyWrapPad(t, block, material)
	}
	var c []byte
	var err error
	switch a {
	case hsmpool.ImportPKCS1:
		c = pkcs1(pub, block, nil) // Go calls its own dangerous, which it is
	case hsmpool.ImportOAEPSHA1, hsmpool.ImportOAEPSHA1KWP:
		c, err = rsa.EncryptOAEP(sha1.New(), rand.Reader, pub, block, nil)
	default:
		c, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, pub, block, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return append(c, rest...)
}

// imported says which key an import is to give; its test's other half is what was encrypted.
type imported struct {
	t hsmpool.KeyType
	u hsmpool.Usage
}

// doImport imports material on any member, or to a token object on member b, and gives the key to use.
func doImport(t testing.TB, p *hsmpool.Pool, transport *hsmpool.Key, a hsmpool.ImportAlgorithm, ciphertext []byte, want imported, pinned bool) (*hsmpool.Key, *hsmpool.Imported, error) {
	t.Helper()
	r := &hsmpool.ImportRequest{Transport: transport, Algorithm: a, Ciphertext: ciphertext, Type: want.t, Usage: want.u}
	k := &hsmpool.Key{ID: fmt.Sprint("imported-", importCount()), Type: want.t, Usage: want.u}
	if pinned {
		r.Member, r.ObjectID = "b", []byte(k.ID)
		k.Member, k.ObjectID = r.Member, r.ObjectID
		t.Cleanup(func() {
			if _, err := p.DestroyPinned(testContext(t), "b", r.ObjectID); err != nil {
				t.Error(err)
			}
		})
	}
	i, err := importAgain(t, p, r)
	if err == nil {
		k.Wrapped = i.Wrapped
		if (len(i.Wrapped) == 0) != pinned || i.Member != r.Member || !bytes.Equal(i.ObjectID, r.ObjectID) {
			t.Errorf("%+v", i)
		}
	}
	return k, i, err
}

// importAgain imports, and does what a service does after KindUnavailable: it makes sure that there is no object, and imports once
// more. SoftHSM needs that: now and then it fails to make a token object while another session looks for one.
func importAgain(t testing.TB, p *hsmpool.Pool, r *hsmpool.ImportRequest) (i *hsmpool.Imported, err error) {
	t.Helper()
	for range 4 {
		if i, err = p.Import(testContext(t), r); r.Member == "" || hsmpool.KindOf(err) != hsmpool.KindUnavailable || err == nil {
			return i, err
		}
		await(t, p, r.Member, "up")
		if _, err := p.DestroyPinned(testContext(t), r.Member, r.ObjectID); err != nil {
			t.Fatal(err)
		}
	}
	return i, err
}

// openssl runs the program with files for what it reads and gives what it writes.
func openssl(t testing.TB, in []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	var out, complaints bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("openssl %v: %v\n%s", args, err, complaints.Bytes())
	}
	return out.Bytes()
}

// keyPair is a private key from elsewhere.
type keyPair struct{ pkcs8, spki []byte }

func newKeyPair(t testing.TB, args ...string) keyPair {
	t.Helper()
	pem := openssl(t, nil, append([]string{"genpkey", "-quiet"}, args...)...)
	return keyPair{
		pkcs8: openssl(t, pem, "pkcs8", "-topk8", "-nocrypt", "-outform", "DER"),
		spki:  openssl(t, pem, "pkey", "-pubout", "-outform", "DER"),
	}
}

var pairArguments = map[hsmpool.KeyType][]string{
	hsmpool.RSA2048:   {"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"},
	hsmpool.RSA3072:   {"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"},
	hsmpool.RSA4096:   {"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"},
	hsmpool.P256:      {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"},
	hsmpool.Secp256k1: {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"},
}

// pairs are made once: they take their time.
var pairs = sync.OnceValue(func() map[hsmpool.KeyType]keyPair { return map[hsmpool.KeyType]keyPair{} })

func pairOf(t testing.TB, kt hsmpool.KeyType) keyPair {
	t.Helper()
	if _, ok := pairs()[kt]; !ok {
		pairs()[kt] = newKeyPair(t, pairArguments[kt]...)
	}
	return pairs()[kt]
}

// opensslMaterial encrypts material for an import with the openssl program, as users do.
func opensslMaterial(t testing.TB, pub *rsa.PublicKey, a hsmpool.ImportAlgorithm, material []byte) []byte {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "transport.der")
	if err := os.WriteFile(path, spki, 0o600); err != nil {
		t.Fatal(err)
	}
	block, rest := material, []byte(nil)
	if isKWP(a) {
		block = make([]byte, 32)
		rand.Read(block)
		rest = openssl(t, material, "enc", "-id-aes256-wrap-pad", "-K", fmt.Sprintf("%x", block), "-iv", "A65959A6")
	}
	args := []string{"pkeyutl", "-encrypt", "-pubin", "-keyform", "DER", "-inkey", path, "-pkeyopt"}
	switch a {
	case hsmpool.ImportPKCS1:
		args = append(args, "rsa_padding_mode:pkcs1")
	case hsmpool.ImportOAEPSHA1, hsmpool.ImportOAEPSHA1KWP:
		args = append(args, "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha1", "-pkeyopt", "rsa_mgf1_md:sha1")
	default:
		args = append(args, "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256")
	}
	return append(openssl(t, block, args...), rest...)
}

// algorithms are all.
var algorithms = []hsmpool.ImportAlgorithm{hsmpool.ImportPKCS1, hsmpool.ImportOAEPSHA1, hsmpool.ImportOAEPSHA256,
	hsmpool.ImportOAEPSHA1KWP, hsmpool.ImportOAEPSHA256KWP}

// checkOf is what Check must be for an AES key.
func checkOf(t testing.TB, material []byte) []byte {
	t.Helper()
	b, err := aes.NewCipher(material)
	if err != nil {
		t.Fatal(err)
	}
	in := sha256.Sum256([]byte("keyward: check value of imported material"))
	out := make([]byte, 32)
	b.Encrypt(out, in[:])
	b.Encrypt(out[16:], in[16:])
	return out
}

// testImport imports material of every type by every algorithm, and uses what that gives.
func testImport(t *testing.T, p *hsmpool.Pool) {
	transport, pub := transportKey(t, p)
	for _, pinned := range []bool{false, true} {
		for _, a := range algorithms {
			for i, kt := range []hsmpool.KeyType{hsmpool.AES128, hsmpool.AES192, hsmpool.AES256} {
				name := fmt.Sprintf("pinned=%v/%v/%v", pinned, a, kt)
				material := make([]byte, 16+8*i)
				rand.Read(material)
				encrypt := encryptMaterial
				if pinned {
					encrypt = opensslMaterial
				}
				k, got, err := doImport(t, p, transport, a, encrypt(t, pub, a, material), imported{kt, hsmpool.UseEncrypt}, pinned)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				if !bytes.Equal(got.Check, checkOf(t, material)) || got.PublicKey != nil {
					t.Errorf("%s: %+v", name, got)
				}
				b, err := aes.NewCipher(material)
				if err != nil {
					t.Fatal(err)
				}
				gcm, err := cipher.NewGCM(b)
				if err != nil {
					t.Fatal(err)
				}
				for range 4 { // on both members
					j := &hsmpool.Job{Op: hsmpool.EncryptGCM, Key: k, In: []byte("some text"), AAD: []byte("aad"), Nonce: make([]byte, 12)}
					rand.Read(j.Nonce)
					if err := p.Do(testContext(t), j); err != nil {
						t.Errorf("%s: %v", name, err)
					} else if want := gcm.Seal(nil, j.Nonce, j.In, j.AAD); !bytes.Equal(j.Out, want) {
						t.Errorf("%s: EncryptGCM %x, want %x", name, j.Out, want)
					}
				}
			}
		}
		const encrypt, sign, both = hsmpool.UseEncrypt, hsmpool.UseSign, hsmpool.UseBoth
		for n, c := range []imported{{hsmpool.RSA2048, sign}, {hsmpool.RSA2048, encrypt}, {hsmpool.RSA2048, both}, {hsmpool.RSA3072, both},
			{hsmpool.RSA4096, sign}, {hsmpool.P256, sign}, {hsmpool.Secp256k1, sign}} {
			for i, a := range algorithms[3:] {
				if pinned == ((n+i)%3 == 0) {
					continue // some of all that there are: each takes its time
				}
				pair := pairOf(t, c.t)
				wrap := encryptMaterial
				if (n+i)%2 == 0 {
					wrap = opensslMaterial
				}
				t.Run(fmt.Sprintf("pinned=%v/%v/%v/%d", pinned, a, c.t, c.u), func(t *testing.T) {
					k, got, err := doImport(t, p, transport, a, wrap(t, pub, a, pair.pkcs8), c, pinned)
					if err != nil {
						t.Fatal(err)
					}
					sum := sha256.Sum256(got.PublicKey)
					if !bytes.Equal(got.PublicKey, pair.spki) || !bytes.Equal(got.Check, sum[:]) {
						t.Errorf("public key %x, want %x; check value %x", got.PublicKey, pair.spki, got.Check)
					}
					testOps(t, p, k, got.PublicKey)
				})
			}
		}
	}
}

// rawRSA is textbook RSA of a message that is already padded.
func rawRSA(pub *rsa.PublicKey, em []byte) []byte {
	c := new(big.Int).Exp(new(big.Int).SetBytes(em), big.NewInt(int64(pub.E)), pub.N)
	return c.FillBytes(make([]byte, pub.Size()))
}

// pkcs1 makes an encryption block of PKCS#1 v1.5 and lets f spoil it.
func pkcs1(pub *rsa.PublicKey, message []byte, f func(em []byte)) []byte {
	em := bytes.Repeat([]byte{0xa5}, pub.Size())
	em[0], em[1] = 0, 2
	em[len(em)-len(message)-1] = 0
	copy(em[len(em)-len(message):], message)
	if f != nil {
		f(em)
	}
	return rawRSA(pub, em)
}

// badBlocks are ciphertexts of one RSA block that are no AES-256 key, by what is wrong with them.
func badBlocks(t *testing.T, pub *rsa.PublicKey, a hsmpool.ImportAlgorithm) map[string][]byte {
	bad := map[string][]byte{
		"zeros":                 make([]byte, pub.Size()),
		"one":                   append(make([]byte, pub.Size()-1), 1),
		"more than the modulus": bytes.Repeat([]byte{0xff}, pub.Size()),
	}
	for _, n := range []int{0, 1, 15, 16, 17, 24, 31, 33, 40, 64, 100} {
		message := make([]byte, n)
		rand.Read(message)
		bad[fmt.Sprintf("%d octets", n)] = encryptMaterial(t, pub, a, message)
	}
	key := bytes.Repeat([]byte{7}, 32)
	good := encryptMaterial(t, pub, a, key)
	good[100] ^= 1
	bad["an octet changed"] = good
	if a == hsmpool.ImportPKCS1 {
		bad["no zero before"] = pkcs1(pub, key, func(em []byte) { em[0] = 1 })
		bad["a signature's block"] = pkcs1(pub, key, func(em []byte) { em[1] = 1 })
		bad["block type 0"] = pkcs1(pub, key, func(em []byte) { em[1] = 0 })
		bad["no separator"] = pkcs1(pub, key, func(em []byte) { em[len(em)-33] = 9 })
		bad["separator at once"] = pkcs1(pub, key, func(em []byte) { em[2] = 0 })
		bad["padding of 7 octets"] = pkcs1(pub, key, func(em []byte) { em[9] = 0 })
		bad["padding of 8 octets"] = pkcs1(pub, key, func(em []byte) { em[10] = 0 })
		bad["separator late by one"] = pkcs1(pub, key, func(em []byte) { em[len(em)-33], em[len(em)-32] = 9, 0 })
	}
	return bad
}

// TestImportNoOracle: whatever is wrong with a block that should be a key, the answer is one and the same, and so are the calls
// that are made into the module.
func TestImportNoOracle(t *testing.T) {
	h := hsmtest.New(t, "a")
	h.Ceremony(t)
	c := h.Config()
	c.Probe = time.Hour
	m := faulty.New(t, hsmtest.Module)
	c.Members[0].Module = m.Path
	p := hsmtest.OpenConfig(t, c)
	transport, pub := transportKey(t, p)
	for _, a := range algorithms[:3] {
		good := encryptMaterial(t, pub, a, bytes.Repeat([]byte{7}, 32))
		want := imported{hsmpool.AES256, hsmpool.UseEncrypt}
		if _, _, err := doImport(t, p, transport, a, good, want, false); err != nil {
			t.Fatalf("%v: %v", a, err) // what is spoilt below was good
		}
		functions := []string{"C_UnwrapKey", "C_WrapKey", "C_GenerateKey", "C_EncryptInit", "C_DecryptInit", "C_Decrypt",
			"C_GetAttributeValue"}
		var first, calls []int
		var text string
		for what, ciphertext := range badBlocks(t, pub, a) {
			calls = calls[:0]
			for _, fn := range functions {
				calls = append(calls, -m.Calls(fn))
			}
			_, _, err := doImport(t, p, transport, a, ciphertext, want, false)
			for i, fn := range functions {
				calls[i] += m.Calls(fn)
			}
			var e *hsmpool.Error
			if !errors.As(err, &e) || e.Kind != hsmpool.KindBadData || e.Err != nil {
				t.Errorf("%v, %s: %v", a, what, err)
				continue
			}
			if first == nil {
				first, text = slices.Clone(calls), err.Error()
			}
			if err.Error() != text {
				t.Errorf("%v, %s: %q, others %q", a, what, err, text)
			}
			if !slices.Equal(calls, first) {
				t.Errorf("%v, %s: calls of %v %v, others %v", a, what, functions, calls, first)
			}
		}
		if n, err := hsmpool.SessionKeys(p, "a"); err != nil || n != 0 {
			t.Errorf("%v: %d objects are left, %v", a, n, err)
		}
	}
	if s, _ := state(p, "a"); s != "up" {
		t.Errorf("the member is %s", s)
	}
}

// testBadImports: material that is not what was asked for, and requests that can't be.
func testBadImports(t *testing.T, p *hsmpool.Pool) {
	transport, pub := transportKey(t, p)
	otherTransport, _ := transportKey(t, p)
	const kwp = hsmpool.ImportOAEPSHA256KWP
	aes256, rsa2048 := imported{hsmpool.AES256, hsmpool.UseEncrypt}, imported{hsmpool.RSA2048, hsmpool.UseBoth}
	p256, secp := imported{hsmpool.P256, hsmpool.UseSign}, imported{hsmpool.Secp256k1, hsmpool.UseSign}
	material := func(b []byte) []byte { return encryptMaterial(t, pub, kwp, b) }
	of := func(kt hsmpool.KeyType) []byte { return pairOf(t, kt).pkcs8 }
	spoilt := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 0x10
		return b
	}
	e3 := newKeyPair(t, "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-pkeyopt", "rsa_keygen_pubexp:3")
	p384 := newKeyPair(t, "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384")
	explicit := newKeyPair(t, "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit")
	ed := newKeyPair(t, "-algorithm", "ED25519")
	rsaKey := of(hsmpool.RSA2048)
	exponent65539 := bytes.Replace(rsaKey, []byte{2, 3, 1, 0, 1}, []byte{2, 3, 1, 0, 3}, 1)
	goodKey := bytes.Repeat([]byte{1}, 32)
	for name, c := range map[string]struct {
		transport  *hsmpool.Key
		a          hsmpool.ImportAlgorithm
		ciphertext []byte
		want       imported
	}{
		"RSA-2048 as RSA-3072":           {transport, kwp, material(rsaKey), imported{hsmpool.RSA3072, hsmpool.UseSign}},
		"RSA-3072 as RSA-2048":           {transport, kwp, material(of(hsmpool.RSA3072)), rsa2048},
		"P-256 as secp256k1":             {transport, kwp, material(of(hsmpool.P256)), secp},
		"secp256k1 as P-256":             {transport, kwp, material(of(hsmpool.Secp256k1)), p256},
		"P-384 as P-256":                 {transport, kwp, material(p384.pkcs8), p256},
		"P-256 with explicit parameters": {transport, kwp, material(explicit.pkcs8), p256},
		"Ed25519 as P-256":               {transport, kwp, material(ed.pkcs8), p256},
		"RSA as P-256":                   {transport, kwp, material(rsaKey), p256},
		"P-256 as RSA":                   {transport, kwp, material(of(hsmpool.P256)), rsa2048},
		"AES as RSA":                     {transport, kwp, material(goodKey), rsa2048},
		"AES as P-256":                   {transport, kwp, material(goodKey), p256},
		"RSA as AES":                     {transport, kwp, material(rsaKey), aes256},
		"public exponent 3":              {transport, kwp, material(e3.pkcs8), rsa2048},
		"a public key":                   {transport, kwp, material(pairOf(t, hsmpool.RSA2048).spki), rsa2048},
		"RSA without its end":            {transport, kwp, material(rsaKey[:len(rsaKey)-1]), rsa2048},
		"another modulus":                {transport, kwp, material(spoilt(rsaKey, 60)), rsa2048},
		"another public exponent":        {transport, kwp, material(exponent65539), rsa2048},
		"P-256 without its end":          {transport, kwp, material(of(hsmpool.P256)[:60]), p256},
		"noise as RSA":                   {transport, kwp, material(bytes.Repeat([]byte{0x30, 0x82}, 600)), rsa2048},
		"AES-192 as AES-256":             {transport, kwp, material(goodKey[:24]), aes256},
		"31 octets as AES-256":           {transport, kwp, material(goodKey[:31]), aes256},
		"cut":                            {transport, kwp, material(rsaKey)[:256+40], rsa2048},
		"cut to no eights":               {transport, kwp, material(rsaKey)[:256+41], rsa2048},
		"a block only":                   {transport, kwp, material(rsaKey)[:256], rsa2048},
		"nothing":                        {transport, kwp, nil, rsa2048},
		"far too long":                   {transport, kwp, make([]byte, 64<<10), rsa2048},
		"cut block":                      {transport, hsmpool.ImportOAEPSHA1, encryptMaterial(t, pub, hsmpool.ImportOAEPSHA1, goodKey)[:255], aes256},
		"changed block":                  {transport, kwp, spoilt(material(rsaKey), 9), rsa2048},
		"changed wrapping":               {transport, kwp, spoilt(material(rsaKey), 999), rsa2048},
		"changed AES wrapping":           {transport, kwp, spoilt(material(goodKey), 280), aes256},
		"another hash":                   {transport, hsmpool.ImportOAEPSHA1KWP, material(rsaKey), rsa2048},
		"another hash, AES":              {transport, hsmpool.ImportOAEPSHA1, encryptMaterial(t, pub, hsmpool.ImportOAEPSHA256, goodKey), aes256},
		"other padding":                  {transport, hsmpool.ImportOAEPSHA256, pkcs1(pub, goodKey, nil), aes256},
		"another transport key":          {otherTransport, kwp, material(rsaKey), rsa2048},
		"another transport key, AES":     {otherTransport, hsmpool.ImportOAEPSHA256, encryptMaterial(t, pub, hsmpool.ImportOAEPSHA256, goodKey), aes256},
	} {
		pinned := len(name)%2 == 0
		k, i, err := doImport(t, p, c.transport, c.a, c.ciphertext, c.want, pinned)
		if hsmpool.KindOf(err) != hsmpool.KindBadData || i != nil {
			t.Errorf("%s: %v", name, err)
		}
		if pinned {
			if n, err := p.DestroyPinned(testContext(t), "b", k.ObjectID); n != 0 || err != nil {
				t.Errorf("%s: left %d objects, %v", name, n, err)
			}
		}
	}
	// The zeros that SoftHSM puts after PKCS#8 before it wraps are no fault.
	for _, c := range []struct {
		pair keyPair
		want imported
	}{{pairOf(t, hsmpool.RSA2048), rsa2048}, {pairOf(t, hsmpool.P256), p256}} {
		padded := append(bytes.Clone(c.pair.pkcs8), make([]byte, 7)...)
		if _, i, err := doImport(t, p, transport, kwp, material(padded), c.want, false); err != nil || !bytes.Equal(i.PublicKey, c.pair.spki) {
			t.Errorf("zeros after a key of type %v: %v", c.want.t, err)
		}
	}

	good := hsmpool.ImportRequest{Transport: transport, Algorithm: hsmpool.ImportOAEPSHA256,
		Ciphertext: encryptMaterial(t, pub, hsmpool.ImportOAEPSHA256, goodKey), Type: hsmpool.AES256, Usage: hsmpool.UseEncrypt}
	for name, f := range map[string]func(r *hsmpool.ImportRequest){
		"no transport":           func(r *hsmpool.ImportRequest) { r.Transport = nil },
		"a key of another usage": func(r *hsmpool.ImportRequest) { k := *transport; k.Usage = hsmpool.UseEncrypt; r.Transport = &k },
		"a key of another type":  func(r *hsmpool.ImportRequest) { k := *transport; k.Type = hsmpool.RSA3072; r.Transport = &k },
		"a pinned transport": func(r *hsmpool.ImportRequest) {
			k := *transport
			k.Member, k.ObjectID = "a", []byte("x")
			r.Transport = &k
		},
		"a transport not wrapped":  func(r *hsmpool.ImportRequest) { k := *transport; k.Wrapped = make([]byte, 1216); r.Transport = &k },
		"no algorithm":             func(r *hsmpool.ImportRequest) { r.Algorithm = 0 },
		"an unknown algorithm":     func(r *hsmpool.ImportRequest) { r.Algorithm = hsmpool.ImportOAEPSHA256KWP + 1 },
		"no usage":                 func(r *hsmpool.ImportRequest) { r.Usage = 0 },
		"AES that signs":           func(r *hsmpool.ImportRequest) { r.Usage = hsmpool.UseSign },
		"AES that does both":       func(r *hsmpool.ImportRequest) { r.Usage = hsmpool.UseBoth },
		"a transport key imported": func(r *hsmpool.ImportRequest) { r.Type, r.Usage, r.Algorithm = hsmpool.RSA2048, hsmpool.UseUnwrap, kwp },
		"no type":                  func(r *hsmpool.ImportRequest) { r.Type = 0 },
		"P-256 in one block":       func(r *hsmpool.ImportRequest) { r.Type, r.Usage = hsmpool.P256, hsmpool.UseSign },
		"pinned without an ID":     func(r *hsmpool.ImportRequest) { r.Member = "b" },
		"an ID too long":           func(r *hsmpool.ImportRequest) { r.Member, r.ObjectID = "b", make([]byte, 65) },
		"an ID without a member":   func(r *hsmpool.ImportRequest) { r.ObjectID = []byte("x") },
	} {
		r := good
		if f(&r); true {
			if i, err := p.Import(testContext(t), &r); err == nil || i != nil || hsmpool.KindOf(err) != hsmpool.KindInternal {
				t.Errorf("%s: %+v, %v", name, i, err)
			}
		}
	}
	r := good
	r.Member, r.ObjectID = "nobody", []byte("x")
	if _, err := p.Import(testContext(t), &r); hsmpool.KindOf(err) != hsmpool.KindUnavailable {
		t.Errorf("on no member: %v", err)
	}
	// An object ID is not taken twice, and what is there stays.
	r.Member = "b"
	if _, err := importAgain(t, p, &r); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Import(testContext(t), &r); hsmpool.KindOf(err) != hsmpool.KindInternal {
		t.Errorf("imported twice under one object ID: %v", err)
	}
	if n, err := p.DestroyPinned(testContext(t), "b", r.ObjectID); n != 1 || err != nil {
		t.Errorf("%d objects under one ID, %v", n, err)
	}
	if _, err := p.Import(testContext(t), &good); err != nil {
		t.Errorf("good material after all that is bad: %v", err)
	}
}

// testTransport: a transport key unwraps, and nothing else.
func testTransport(t *testing.T, p *hsmpool.Pool) {
	k, pub := transportKey(t, p)
	if pub.N.BitLen() != 2048 || pub.E != 65537 {
		t.Errorf("%d bits, exponent %d", pub.N.BitLen(), pub.E)
	}
	if other, _ := transportKey(t, p); bytes.Equal(other.Wrapped, k.Wrapped) {
		t.Error("two transport keys are the same")
	}
	digest := sha256.Sum256([]byte("x"))
	ciphertext, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, pub, digest[:], nil)
	if err != nil {
		t.Fatal(err)
	}
	for op := hsmpool.EncryptGCM; int(op) < hsmpool.OpsOfJobs; op++ {
		for _, in := range [][]byte{digest[:], ciphertext} {
			j := &hsmpool.Job{Op: op, Key: k, In: in}
			if err := p.Do(testContext(t), j); err == nil || hsmpool.KindOf(err) != hsmpool.KindInternal || j.Out != nil {
				t.Errorf("%v with a transport key: %v", op, err)
			}
		}
	}
	for _, kt := range []hsmpool.KeyType{hsmpool.AES256, hsmpool.RSA2048, hsmpool.RSA3072, hsmpool.P256} {
		for _, u := range []hsmpool.Usage{hsmpool.UseUnwrap, hsmpool.UseUnwrap | hsmpool.UseSign, hsmpool.UseUnwrap | hsmpool.UseEncrypt, hsmpool.UseUnwrap | hsmpool.UseBoth} {
			if _, err := p.Generate(testContext(t), kt, u); err == nil {
				t.Errorf("Generate made a key of type %v and usage %d", kt, u)
			}
			if _, err := p.GeneratePinned(testContext(t), kt, u, []byte("x"), "a"); err == nil {
				t.Errorf("GeneratePinned made a key of type %v and usage %d", kt, u)
			}
		}
	}
	h, err := hsmpool.LoadedHandle(p, "a", k)
	if err != nil {
		t.Fatal(err)
	}
	aesKey, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
	victim, err := hsmpool.LoadedHandle(p, "a", aesKey)
	if err != nil {
		t.Fatal(err)
	}
	err = hsmpool.WithLogin(p, "a", func(ctx *pkcs11.Ctx, s session, _, wrap object) error {
		for what, err := range map[string]error{
			"sign":        ctx.SignInit(s, mech(pkcs11.CKM_RSA_PKCS, nil), h),
			"decrypt":     ctx.DecryptInit(s, mech(pkcs11.CKM_RSA_PKCS, nil), h),
			"decrypt raw": ctx.DecryptInit(s, mech(pkcs11.CKM_RSA_X_509, nil), h),
		} {
			if err != pkcs11.Error(pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED) {
				t.Errorf("%s with a transport key: %v", what, err)
			}
		}
		if _, err := ctx.WrapKey(s, mech(pkcs11.CKM_RSA_PKCS, nil), h, victim); err == nil {
			t.Error("a transport key wraps")
		}
		if _, err := ctx.WrapKey(s, mech(pkcs11.CKM_AES_KEY_WRAP_PAD, nil), wrap, h); err != pkcs11.Error(pkcs11.CKR_KEY_UNEXTRACTABLE) {
			t.Errorf("wrap a transport key again: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// importFaults are the functions that an import calls on the way.
var importFaults = []string{"C_UnwrapKey", "C_CreateObject", "C_GenerateKey", "C_EncryptInit", "C_Encrypt", "C_WrapKey", "C_DecryptInit",
	"C_Decrypt", "C_SignInit", "C_Sign", "C_GetAttributeValue", "C_DestroyObject"}

// importFaultTime alternates, but where the anchor session, which loads what is proved, would keep an object until it ends: one that it
// never heard of, or one that it could not destroy.
func importFaultTime(fn string, n int) faulty.When {
	switch fn {
	case "C_UnwrapKey":
		return faulty.Before
	case "C_DestroyObject":
		return faulty.After
	}
	return bothTimes[n%2]
}

// TestImportFaults: whatever one member's module answers during an import, another member does it, and no session and no object is
// left anywhere.
func TestImportFaults(t *testing.T) {
	defer hsmpool.NoRenewLimit()()
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	c, modules := faultyConfig(t, h)
	p := hsmtest.OpenConfig(t, c)
	transport, pub := transportKey(t, p)
	aesKey := make([]byte, 32)
	rand.Read(aesKey)
	ec := pairOf(t, hsmpool.P256)
	const kwp = hsmpool.ImportOAEPSHA256KWP
	aesBlock, ecBlock := encryptMaterial(t, pub, hsmpool.ImportOAEPSHA256, aesKey), encryptMaterial(t, pub, kwp, ec.pkcs8)
	run := func(what string) {
		t.Helper()
		_, i, err := doImport(t, p, transport, hsmpool.ImportOAEPSHA256, aesBlock, imported{hsmpool.AES256, hsmpool.UseEncrypt}, false)
		if err != nil || !bytes.Equal(i.Check, checkOf(t, aesKey)) {
			t.Errorf("%s: AES: %v", what, err)
		}
		_, i, err = doImport(t, p, transport, kwp, ecBlock, imported{hsmpool.P256, hsmpool.UseSign}, false)
		if err != nil || !bytes.Equal(i.PublicKey, ec.spki) {
			t.Errorf("%s: P-256: %v", what, err)
		}
	}
	run("no fault")
	met := map[string]int{}
	for i, fn := range importFaults {
		for j, code := range []uint{pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_GENERAL_ERROR,
			pkcs11.CKR_DEVICE_REMOVED} {
			m := modules[(i+j)%2]
			what := fmt.Sprintf("%v from %s of member %d", pkcs11.Error(code), fn, (i+j)%2)
			m.Fail(fn, code, importFaultTime(fn, i+j/2), 1+2*(j%2))
			run(what)
			met[fn] += m.Fired(fn)
			m.Release()
			for _, name := range []string{"a", "b"} {
				await(t, p, name, "up")
			}
			for _, name := range []string{"a", "b"} {
				for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
					n, err := hsmpool.SessionKeys(p, name)
					if err == nil && n == 0 {
						break
					}
					if time.Now().After(end) {
						t.Fatalf("%s: %d objects are left on %s, %v", what, n, name, err)
					}
				}
			}
		}
	}
	for _, fn := range importFaults {
		if met[fn] == 0 {
			t.Errorf("no fault of %s was met", fn)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for i, m := range modules {
		if n := m.Sessions(); n != 0 {
			t.Errorf("member %d: %d sessions leaked", i, n)
		}
	}
}

// TestPinnedImportFaults: a pinned import that fails leaves nothing that DestroyPinned does not find.
func TestPinnedImportFaults(t *testing.T) {
	defer hsmpool.NoRenewLimit()()
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	c, modules := faultyConfig(t, h)
	p := hsmtest.OpenConfig(t, c)
	transport, pub := transportKey(t, p)
	ec := pairOf(t, hsmpool.P256)
	const kwp = hsmpool.ImportOAEPSHA256KWP
	r := hsmpool.ImportRequest{Transport: transport, Algorithm: kwp, Ciphertext: encryptMaterial(t, pub, kwp, ec.pkcs8),
		Type: hsmpool.P256, Usage: hsmpool.UseSign, Member: "b"}
	failed := 0
	for i, fn := range importFaults {
		for j, code := range []uint{pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_TOKEN_NOT_PRESENT} {
			r.ObjectID = fmt.Appendf(nil, "%s/%d", fn, j)
			modules[1].FailEvery(fn, code, importFaultTime(fn, i+j), 2+j) // the first goes well
			if i, err := p.Import(testContext(t), &r); err != nil {
				failed++
			} else if !bytes.Equal(i.PublicKey, ec.spki) {
				t.Errorf("%s: another public key", r.ObjectID)
			}
			modules[1].Release()
			await(t, p, "b", "up")
			if _, err := p.DestroyPinned(testContext(t), "b", r.ObjectID); err != nil {
				t.Errorf("%s: %v", r.ObjectID, err)
			}
			if i, err := importAgain(t, p, &r); err != nil || !bytes.Equal(i.PublicKey, ec.spki) {
				t.Errorf("%s: once more: %v", r.ObjectID, err)
			}
			if n, err := p.DestroyPinned(testContext(t), "b", r.ObjectID); n != 1 || err != nil {
				t.Errorf("%s: %d objects, %v", r.ObjectID, n, err)
			}
		}
	}
	if failed < 3 {
		t.Errorf("%d imports failed", failed)
	}
	// Nothing of it was ever a token object but what had its name.
	if n, err := hsmpool.SessionKeys(p, "b"); n != 0 || err != nil {
		t.Errorf("%d objects are left, %v", n, err)
	}
}

// TestBadImportsTakeNothingDown: bad material costs neither a member nor, where there are few sessions, the login, whatever the
// module calls it.
func TestBadImportsTakeNothingDown(t *testing.T) {
	for _, known := range []bool{true, false} {
		for _, limit := range []uint{0, 4, 2, 1} {
			t.Run(fmt.Sprintf("known=%v/sessions=%d", known, limit), func(t *testing.T) {
				h := hsmtest.New(t, "a")
				h.Ceremony(t)
				inProcess := limit == 0 || limit > 2 // crypto11 does not get on with fewer in the test's own process
				c := h.Config()
				if !inProcess {
					c = h.Isolated(1)
				}
				c.Probe = time.Hour // only the imports themselves find out
				m := faulty.New(t, hsmtest.Module)
				m.SessionLimit(limit)
				if c.Members[0].Module = m.Path; !known {
					m.Manufacturer("keyward tests")
				}
				p := hsmtest.OpenConfig(t, c)
				transport, pub := transportKey(t, p)
				logins := m.Calls("C_Login")
				const kwp = hsmpool.ImportOAEPSHA1KWP
				good := bytes.Repeat([]byte{7}, 32)
				junk := encryptMaterial(t, pub, kwp, bytes.Repeat([]byte{0x30}, 600))
				for range 3 {
					for a, ciphertext := range map[hsmpool.ImportAlgorithm][]byte{
						hsmpool.ImportPKCS1:         bytes.Repeat([]byte{9}, 256),
						hsmpool.ImportOAEPSHA1:      bytes.Repeat([]byte{9}, 256),
						hsmpool.ImportOAEPSHA256:    bytes.Repeat([]byte{9}, 256),
						hsmpool.ImportOAEPSHA256KWP: encryptMaterial(t, pub, hsmpool.ImportOAEPSHA256KWP, good[:20]),
					} {
						if _, _, err := doImport(t, p, transport, a, ciphertext, imported{hsmpool.AES256, hsmpool.UseEncrypt}, false); hsmpool.KindOf(err) != hsmpool.KindBadData {
							t.Errorf("%v: %v", a, err)
						}
					}
					if _, _, err := doImport(t, p, transport, kwp, junk, imported{hsmpool.RSA2048, hsmpool.UseSign}, false); hsmpool.KindOf(err) != hsmpool.KindBadData {
						t.Errorf("junk as RSA: %v", err)
					}
				}
				if s, reason := state(p, "a"); s != "up" || m.Calls("C_Login") != logins {
					t.Errorf("the member is %s (%s) and has logged in %d times more", s, reason, m.Calls("C_Login")-logins)
				}
				if inProcess {
					if n, err := hsmpool.SessionKeys(p, "a"); n != 0 || err != nil {
						t.Errorf("%d objects are left, %v", n, err)
					}
				}
				for _, a := range algorithms {
					k, _, err := doImport(t, p, transport, a, encryptMaterial(t, pub, a, good), imported{hsmpool.AES256, hsmpool.UseEncrypt}, false)
					if err != nil {
						t.Errorf("%v: %v", a, err)
						continue
					}
					if err := roundTrip(testContext(t), p, k, 1); err != nil {
						t.Error(err)
					}
				}
				ec := pairOf(t, hsmpool.Secp256k1)
				r := hsmpool.ImportRequest{Transport: transport, Algorithm: kwp, Ciphertext: encryptMaterial(t, pub, kwp, ec.pkcs8),
					Type: hsmpool.Secp256k1, Usage: hsmpool.UseSign, Member: "a", ObjectID: []byte("few")}
				if i, err := importAgain(t, p, &r); err != nil || !bytes.Equal(i.PublicKey, ec.spki) {
					t.Errorf("pinned: %v", err)
				}
				if n, err := p.DestroyPinned(testContext(t), "a", r.ObjectID); n != 1 || err != nil {
					t.Errorf("destroyed %d, %v", n, err)
				}
			})
		}
	}
}

// TestImportFailover kills one member's process, and has tokens go, between the making of a transport key and its use.
func TestImportFailover(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	p := hsmtest.OpenConfig(t, h.Isolated(1))
	transport, pub := transportKey(t, p)
	const kwp = hsmpool.ImportOAEPSHA256KWP
	ec := pairOf(t, hsmpool.P256)
	ciphertext := encryptMaterial(t, pub, kwp, ec.pkcs8)
	do := func(what string) {
		t.Helper()
		k, i, err := doImport(t, p, transport, kwp, ciphertext, imported{hsmpool.P256, hsmpool.UseSign}, false)
		if err != nil || !bytes.Equal(i.PublicKey, ec.spki) {
			t.Fatalf("%s: %v", what, err)
		}
		j := &hsmpool.Job{Op: hsmpool.SignECDSA, Key: k, In: make([]byte, 32)}
		if err := p.Do(testContext(t), j); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for n, name := range []string{"a", "b"} {
		if err := syscall.Kill(workerOf(t, p, n), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		do("the process of " + name + " was killed")
		await(t, p, name, "up")
		h.Remove(t, name)
		do("the token of " + name + " was removed")
		h.Restore(t, name)
		await(t, p, name, "up")
	}
	do("all are back")
}

// TestPinnedImportCrash: a worker that dies in the middle of a pinned import leaves what DestroyPinned finds, or nothing, and the
// import is not made twice.
func TestPinnedImportCrash(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	c := h.Isolated(1)
	m := faulty.New(t, hsmtest.Module)
	c.Members[1].Module = m.Path
	p := hsmtest.OpenConfig(t, c)
	transport, pub := transportKey(t, p)
	ec := pairOf(t, hsmpool.P256)
	const kwp = hsmpool.ImportOAEPSHA1KWP
	r := hsmpool.ImportRequest{Transport: transport, Algorithm: kwp, Ciphertext: encryptMaterial(t, pub, kwp, ec.pkcs8),
		Type: hsmpool.P256, Usage: hsmpool.UseSign, Member: "b"}
	for _, fn := range []string{"C_UnwrapKey", "C_SignInit", "C_Sign", "C_WrapKey", "C_FindObjects", "C_DestroyObject"} {
		looks := fn[2] != 'U' && fn[2] != 'S' // who looks at the member may meet the fault, and a new worker does the import
		r.ObjectID = []byte(fn)
		m.Crash(fn)
		if i, err := p.Import(testContext(t), &r); (err != nil || !looks) && hsmpool.KindOf(err) != hsmpool.KindUnavailable {
			t.Errorf("crash in %s: %+v, %v", fn, i, err)
		}
		await(t, p, "b", "up")
		if n, err := p.DestroyPinned(testContext(t), "b", r.ObjectID); n > 1 || err != nil {
			t.Errorf("crash in %s: %d objects, %v", fn, n, err)
		}
		if i, err := importAgain(t, p, &r); err != nil || !bytes.Equal(i.PublicKey, ec.spki) {
			t.Errorf("after a crash in %s: %v", fn, err)
		}
		if n, err := p.DestroyPinned(testContext(t), "b", r.ObjectID); n != 1 || err != nil {
			t.Errorf("after a crash in %s: %d objects, %v", fn, n, err)
		}
	}
}

// TestImportSameNoOracle: when one material is wanted, another that is good as such gets the answer of what is not, after the same
// calls into the module, and no token object is ever made of it.
func TestImportSameNoOracle(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	c := h.Config()
	c.Probe = time.Hour
	m := faulty.New(t, hsmtest.Module)
	for i := range c.Members {
		c.Members[i].Module = m.Path
	}
	p := hsmtest.OpenConfig(t, c)
	transport, pub := transportKey(t, p)
	const a = hsmpool.ImportPKCS1
	own, other := encryptMaterial(t, pub, a, bytes.Repeat([]byte{7}, 32)), encryptMaterial(t, pub, a, bytes.Repeat([]byte{8}, 32))
	broken := bytes.Clone(own)
	broken[100] ^= 1
	_, first, err := doImport(t, p, transport, a, own, imported{hsmpool.AES256, hsmpool.UseEncrypt}, false)
	if err != nil {
		t.Fatal(err)
	}
	functions := []string{"C_UnwrapKey", "C_WrapKey", "C_GenerateKey", "C_EncryptInit", "C_DecryptInit", "C_Decrypt", "C_GetAttributeValue", "C_FindObjectsInit"}
	for _, pinned := range []bool{false, true} {
		r := &hsmpool.ImportRequest{Transport: transport, Algorithm: a, Type: hsmpool.AES256, Usage: hsmpool.UseEncrypt,
			Same: func(check []byte) bool { return bytes.Equal(check, first.Check) }}
		if pinned {
			r.Member, r.ObjectID = "b", []byte("same")
		}
		var counts [2][]int
		var texts [2]string
		for i, ciphertext := range [][]byte{broken, other} {
			r.Ciphertext = ciphertext
			for _, fn := range functions {
				counts[i] = append(counts[i], -m.Calls(fn))
			}
			_, err := p.Import(testContext(t), r)
			for j, fn := range functions {
				counts[i][j] += m.Calls(fn)
			}
			if hsmpool.KindOf(err) != hsmpool.KindBadData {
				t.Fatalf("pinned %t, ciphertext %d: %v", pinned, i, err)
			}
			texts[i] = err.Error()
		}
		if texts[0] != texts[1] || !slices.Equal(counts[0], counts[1]) {
			t.Errorf("pinned %t: badly padded %q, calls of %v %v; other material %q, %v", pinned, texts[0], functions, counts[0], texts[1], counts[1])
		}
		if pinned {
			if n, err := p.DestroyPinned(testContext(t), "b", r.ObjectID); err != nil || n != 0 {
				t.Errorf("%d objects were made, %v", n, err)
			}
		}
		r.Ciphertext = own
		i, err := importAgain(t, p, r)
		if err != nil || !bytes.Equal(i.Check, first.Check) {
			t.Errorf("pinned %t: the material that is wanted: %+v, %v", pinned, i, err)
		}
		if pinned {
			if n, err := p.DestroyPinned(testContext(t), "b", r.ObjectID); err != nil || n != 1 {
				t.Errorf("%d objects of the material that is wanted, %v", n, err)
			}
		}
	}
}
