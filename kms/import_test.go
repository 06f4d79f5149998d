package kms

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/keywrap"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/softkey"
)

// TestImport runs what importing needs HSMs for.
func TestImport(t *testing.T) {
	withHSMs(t, []hsmTest{
		{"Symmetric", testImportSymmetric},
		{"Private", testImportPrivate},
		{"BadMaterial", testImportBadMaterial},
		{"BadPrivateKeys", testImportBadPrivateKeys},
		{"PaddingOracle", testImportPaddingOracle},
		{"Tokens", testImportTokens},
		{"States", testImportStates},
		{"Expiry", testImportExpiry},
		{"SameMaterialTwice", testSameMaterialInTwoKeys},
		{"AtTheSameTime", testImportAtTheSameTime},
		{"Crash", testImportCrash},
		{"Draft", testDraftOrigin},
	}...)
}

var (
	blockWrappings = []kmswire.Algorithm{kmswire.WrapPKCS1, kmswire.RSAOAEPSHA1, kmswire.RSAOAEPSHA256}
	kwpWrappings   = []kmswire.Algorithm{kmswire.WrapOAEPSHA1KWP, kmswire.WrapOAEPSHA256KWP}
)

// external makes a key that waits for its material.
func (f *fixture) external(k kind, spec kmswire.KeySpec) kmswire.KeyMetadata {
	f.t.Helper()
	r, err := f.CreateKey(context.Background(), root, &kmswire.CreateKeyRequest{
		DKMSInstanceID: k.instance, KeyStorageMechanism: k.storage, KeySpec: spec, Origin: kmswire.OriginExternal,
	})
	if err != nil {
		f.t.Fatalf("CreateKey %s %s: %v", k, spec, err)
	}
	m := r.KeyMetadata
	if m.KeyState != kmswire.PendingImport || m.PrimaryKeyVersion != "" || m.Origin != kmswire.OriginExternal {
		f.t.Fatalf("a key without material is %+v", m)
	}
	return m
}

func (f *fixture) parameters(keyID string, alg kmswire.Algorithm) *kmswire.GetParametersForImportResponse {
	f.t.Helper()
	p, err := f.GetParametersForImport(context.Background(), root, &kmswire.GetParametersForImportRequest{
		KeyID: keyID, WrappingAlgorithm: alg, WrappingKeySpec: kmswire.RSA2048})
	if err != nil {
		f.t.Fatalf("GetParametersForImport: %v", err)
	}
	return p
}

// wrapFor wraps material with Go's library.
func wrapFor(t testing.TB, p *kmswire.GetParametersForImportResponse, alg kmswire.Algorithm, material []byte) []byte {
	t.Helper()
	parsed, err := x509.ParsePKIXPublicKey(p.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	block, rest := material, []byte(nil)
	if slices.Contains(kwpWrappings, alg) {
		block = make([]byte, 32)
		rand.Read(block)
		if rest, err = keywrap.Wrap(block, material); err != nil {
			t.Fatal(err)
		}
	}
	var h hash.Hash
	switch alg {
	case kmswire.WrapPKCS1:
		//lint:ignore SA1019 what is tested
		out, err := rsa.EncryptPKCS1v15(rand.Reader, parsed.(*rsa.PublicKey), block)
		if err != nil {
			t.Fatal(err)
		}
		return out
	case kmswire.RSAOAEPSHA1, kmswire.WrapOAEPSHA1KWP:
		h = sha1.New()
	default:
		h = sha256.New()
	}
	out, err := rsa.EncryptOAEP(h, rand.Reader, parsed.(*rsa.PublicKey), block, nil)
	if err != nil {
		t.Fatal(err)
	}
	return append(out, rest...)
}

func (f *fixture) tryImport(keyID string, alg kmswire.Algorithm, material []byte) error {
	f.t.Helper()
	return f.importer(keyID, alg)(material)
}

// importer wraps and imports, with one token.
func (f *fixture) importer(keyID string, alg kmswire.Algorithm) func(material []byte) error {
	f.t.Helper()
	p := f.parameters(keyID, alg)
	return func(material []byte) error {
		f.t.Helper()
		return f.importWrapped(keyID, p.ImportToken, wrapFor(f.t, p, alg, material))
	}
}

func (f *fixture) importWrapped(keyID string, token, wrapped []byte) error {
	_, err := f.ImportKeyMaterial(context.Background(), root, &kmswire.ImportKeyMaterialRequest{
		KeyID: keyID, ImportToken: token, EncryptedKeyMaterial: wrapped})
	return err
}

func (f *fixture) describe(keyID string) kmswire.KeyMetadata {
	f.t.Helper()
	d, err := f.DescribeKey(context.Background(), root, &kmswire.DescribeKeyRequest{KeyID: keyID})
	if err != nil {
		f.t.Fatal(err)
	}
	return d.KeyMetadata
}

func (f *fixture) wantState(keyID string, want kmswire.KeyState) {
	f.t.Helper()
	if got := f.describe(keyID).KeyState; got != want {
		f.t.Errorf("%s is %s, want %s", keyID, got, want)
	}
}

func (f *fixture) wantNoIntents() {
	f.t.Helper()
	if left, err := f.db.Intents(context.Background()); err != nil || len(left) != 0 {
		f.t.Errorf("intents left: %v %v", left, err)
	}
}

func randomOctets(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func testImportSymmetric(t *testing.T, f *fixture) {
	ctx := context.Background()
	for _, k := range kinds {
		for spec, size := range map[kmswire.KeySpec]int{kmswire.AES256: 32, kmswire.AES192: 24, kmswire.AES128: 16} {
			if k == software && size != 32 {
				continue
			}
			for i, alg := range slices.Concat(blockWrappings, kwpWrappings) {
				if k != software && size != 32 && i != size%5 || k == pinned && i%2 == 1 {
					continue // one way each is enough for the small ones
				}
				t.Run(fmt.Sprint(k, " ", spec, " ", alg), func(t *testing.T) {
					m := f.external(k, spec)
					_, err := f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: m.KeyID, Plaintext: []byte("x")})
					wantCode(t, "Encrypt without material", err, KeyPendingImport)
					material := randomOctets(size)
					try := f.importer(m.KeyID, alg)
					if err := try(material); err != nil {
						t.Fatal(err)
					}
					d := f.describe(m.KeyID)
					version := f.onlyVersion(m.KeyID)
					if d.KeyState != kmswire.Enabled || d.PrimaryKeyVersion != version {
						t.Fatalf("after the import: %+v", d)
					}
					e, err := f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: m.KeyID, Plaintext: []byte("attack at dawn")})
					if err != nil {
						t.Fatal(err)
					}
					opens := func(when string) {
						t.Helper()
						d, err := f.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: e.CiphertextBlob})
						if err != nil || string(d.Plaintext) != "attack at dawn" {
							t.Fatalf("Decrypt %s: %v", when, err)
						}
					}
					opens("after the first import")
					changed := bytes.Clone(material)
					changed[0] ^= 1
					wantCode(t, "other material", try(changed), InvalidKeyMaterial)
					opens("after other material was refused")
					if err := try(material); err != nil {
						t.Fatalf("the same again: %v", err)
					}
					opens("after the same was imported again")
					if _, err := f.DeleteKeyMaterial(ctx, root, &kmswire.DeleteKeyMaterialRequest{KeyID: m.KeyID}); err != nil {
						t.Fatal(err)
					}
					f.wantState(m.KeyID, kmswire.PendingImport)
					_, err = f.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: e.CiphertextBlob})
					wantCode(t, "Decrypt without material", err, KeyPendingImport)
					v, err := f.db.Version(ctx, m.KeyID, version)
					if err != nil || hasMaterial(v) {
						t.Fatalf("material was left: %v", err)
					}
					wantCode(t, "other material after deletion", try(changed), InvalidKeyMaterial)
					if err := try(material); err != nil {
						t.Fatalf("the same after deletion: %v", err)
					}
					opens("after material came back")
					if got := f.onlyVersion(m.KeyID); got != version {
						t.Errorf("the version is %s, was %s", got, version)
					}
					f.wantNoIntents()
				})
			}
		}
	}
}

// opensslVerify has OpenSSL verify a signature of a digest.
func opensslVerify(t *testing.T, publicPEM string, digest, signature []byte, rsaKey bool) {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string][]byte{"pub.pem": []byte(publicPEM), "digest": digest, "sig": signature} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"pkeyutl", "-verify", "-pubin", "-inkey", "pub.pem", "-in", "digest", "-sigfile", "sig"}
	if rsaKey {
		args = append(args, "-pkeyopt", "digest:sha256", "-pkeyopt", "rsa_padding_mode:pkcs1")
	}
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("openssl: %v\n%s", err, out)
	}
}

func testImportPrivate(t *testing.T, f *fixture) {
	ctx := context.Background()
	for _, spec := range []kmswire.KeySpec{kmswire.RSA2048, kmswire.RSA3072, kmswire.RSA4096, kmswire.ECP256, kmswire.ECP256K} {
		own, err := softkey.GenerateKey(spec)
		if err != nil {
			t.Fatal(err)
		}
		der, err := own.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		another, err := softkey.GenerateKey(spec)
		if err != nil {
			t.Fatal(err)
		}
		otherDER, err := another.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		alg := specs[spec].sign[len(specs[spec].sign)-1] // PKCS#1 v1.5, or ECDSA
		for _, k := range kinds {
			for _, wrap := range kwpWrappings {
				if large := spec == kmswire.RSA3072 || spec == kmswire.RSA4096; wrap == kmswire.WrapOAEPSHA1KWP && spec != kmswire.ECP256 || large && k == pinned {
					continue // what is left out differs in nothing but size, which costs much
				}
				t.Run(fmt.Sprint(spec, " ", k, " ", wrap), func(t *testing.T) {
					m := f.external(k, spec)
					try := f.importer(m.KeyID, wrap)
					if err := try(der); err != nil {
						t.Fatal(err)
					}
					version := f.onlyVersion(m.KeyID)
					if d := f.describe(m.KeyID); d.KeyState != kmswire.Enabled || d.PrimaryKeyVersion != "" {
						t.Errorf("after the import: %+v", d)
					}
					signs := func(when string) {
						t.Helper()
						p, err := f.GetPublicKey(ctx, root, &kmswire.GetPublicKeyRequest{KeyID: m.KeyID, KeyVersionID: version})
						if err != nil || p.PublicKey != own.Public().PEM() {
							t.Fatalf("public key %s: %v\n%s", when, err, own.Public().PEM())
						}
						digest := sha256.Sum256([]byte(when))
						s, err := f.AsymmetricSign(ctx, root, &kmswire.AsymmetricSignRequest{KeyID: m.KeyID, KeyVersionID: version, Algorithm: alg, Digest: digest[:]})
						if err != nil {
							t.Fatalf("sign %s: %v", when, err)
						}
						opensslVerify(t, own.Public().PEM(), digest[:], s.Value, strings.HasPrefix(string(spec), "RSA"))
					}
					signs("after the first import")
					wantCode(t, "another key", try(otherDER), InvalidKeyMaterial)
					signs("after another key was refused")
					if _, err := f.DeleteKeyMaterial(ctx, root, &kmswire.DeleteKeyMaterialRequest{KeyID: m.KeyID}); err != nil {
						t.Fatal(err)
					}
					_, err := f.GetPublicKey(ctx, root, &kmswire.GetPublicKeyRequest{KeyID: m.KeyID, KeyVersionID: version})
					wantCode(t, "public key without material", err, KeyPendingImport)
					wantCode(t, "another key after deletion", try(otherDER), InvalidKeyMaterial)
					for range 2 {
						if err := try(der); err != nil {
							t.Fatal(err)
						}
					}
					signs("after material came back")
					if got := f.onlyVersion(m.KeyID); got != version {
						t.Errorf("the version is %s, was %s", got, version)
					}
					f.wantNoIntents()
				})
			}
		}
	}
}

// Whatever is wrong with wrapped material, the answer is the same to the letter, and nothing changes.
func testImportBadMaterial(t *testing.T, f *fixture) {
	for _, k := range kinds {
		for _, alg := range slices.Concat(blockWrappings, kwpWrappings) {
			if k == pinned && alg != kmswire.WrapPKCS1 && alg != kmswire.WrapOAEPSHA256KWP {
				continue // refused before anything is pinned
			}
			t.Run(fmt.Sprint(k, " ", alg), func(t *testing.T) {
				m := f.external(k, kmswire.AES256)
				p, other := f.parameters(m.KeyID, alg), f.parameters(m.KeyID, alg)
				if bytes.Equal(p.PublicKey, other.PublicKey) || bytes.Equal(p.ImportToken, other.ImportToken) {
					t.Fatal("two calls gave the same")
				}
				good := wrapFor(t, p, alg, randomOctets(32))
				flipped := func(i int) []byte {
					b := bytes.Clone(good)
					b[i] ^= 1
					return b
				}
				for name, wrapped := range map[string][]byte{
					"nothing":       nil,
					"one octet":     {1},
					"garbage":       append([]byte{0}, randomOctets(len(good)-1)...),
					"zeros":         make([]byte, len(good)),
					"ones":          bytes.Repeat([]byte{0xff}, len(good)),
					"truncated":     good[:len(good)-1],
					"half":          good[:len(good)/2],
					"longer":        append(bytes.Clone(good), 0),
					"much longer":   append(bytes.Clone(good), make([]byte, 20000)...),
					"first octet":   flipped(1),
					"last octet":    flipped(len(good) - 1),
					"another pair":  wrapFor(t, other, alg, randomOctets(32)),
					"31 octets":     wrapFor(t, p, alg, randomOctets(31)),
					"33 octets":     wrapFor(t, p, alg, randomOctets(33)),
					"16 octets":     wrapFor(t, p, alg, randomOctets(16)),
					"64 octets":     wrapFor(t, p, alg, randomOctets(64)),
					"one that fits": wrapFor(t, p, alg, []byte{7}),
				} {
					err := f.importWrapped(m.KeyID, p.ImportToken, wrapped)
					wantCode(t, name, err, InvalidKeyMaterial)
					if want := errMaterial(grant{&keystore.Key{ID: m.KeyID}, specs[kmswire.AES256]}).Detail; AsError(err).Detail != want {
						t.Errorf("%s: %q, want %q", name, AsError(err).Detail, want)
					}
				}
				key, err := f.db.Key(context.Background(), m.KeyID)
				if err != nil || key.State != string(kmswire.PendingImport) || key.Fingerprint != nil || key.Versions != 0 {
					t.Fatalf("refused material changed the key: %+v %v", key, err)
				}
				f.wantNoIntents()
				if err := f.importWrapped(m.KeyID, p.ImportToken, good); err != nil {
					t.Errorf("good material after all that: %v", err)
				}
			})
		}
	}
}

// pkcs8 puts a private key's own encoding into a PrivateKeyInfo.
func pkcs8(t testing.TB, algorithm asn1.RawValue, key []byte) []byte {
	t.Helper()
	der, err := asn1.Marshal(struct {
		Version   int
		Algorithm asn1.RawValue
		Key       []byte
	}{0, algorithm, key})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func mustDER(t testing.TB) func(der []byte, err error) []byte {
	return func(der []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
}

// rsaWith makes the PKCS#1 form of a key from its primes, which need not be primes, and its exponent.
func rsaWith(t testing.TB, p, q *big.Int, e int64) []byte {
	t.Helper()
	one := big.NewInt(1)
	p1, q1 := new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)
	d := new(big.Int).ModInverse(big.NewInt(e), new(big.Int).Mul(p1, q1))
	if d == nil {
		t.Fatal("the exponent does not fit the primes")
	}
	return mustDER(t)(asn1.Marshal([]*big.Int{new(big.Int), new(big.Int).Mul(p, q), big.NewInt(e), d, p, q,
		new(big.Int).Mod(d, p1), new(big.Int).Mod(d, q1), new(big.Int).ModInverse(q, p)}))
}

// primes gives two of 1,024 bits for which e is invertible.
func primes(t testing.TB, e int64) (p, q *big.Int) {
	t.Helper()
	find := func() *big.Int {
		for {
			n, err := rand.Prime(rand.Reader, 1024)
			if err != nil {
				t.Fatal(err)
			}
			if new(big.Int).GCD(nil, nil, new(big.Int).Sub(n, big.NewInt(1)), big.NewInt(e)).Int64() == 1 {
				return n
			}
		}
	}
	return find(), find()
}

var (
	rsaID  = asn1.RawValue{FullBytes: []byte{0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0}}
	p256ID = asn1.RawValue{FullBytes: []byte{0x30, 19, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}}
)

// ecWith makes the SEC 1 form of a key of the scalar d, with a public key if there is one.
func ecWith(t testing.TB, d, point []byte) []byte {
	t.Helper()
	return mustDER(t)(asn1.Marshal(struct {
		Version int
		D       []byte
		Public  asn1.BitString `asn1:"optional,explicit,tag:1"`
	}{1, d, asn1.BitString{Bytes: point, BitLength: 8 * len(point)}}))
}

// encodings are bad keys of badPrivateKeys that a token may take all the same: how exact it is in reading is its own affair, and
// what it made of them has proved itself.
var encodings = []string{"one octet more", "a wrong part", "more than the order", "another's point"}

// badPrivateKeys are keys that must not be imported, by spec.
func badPrivateKeys(t testing.TB) map[kmswire.KeySpec]map[string][]byte {
	p, q := primes(t, 65537)
	composite := new(big.Int).Mul(new(big.Int).SetBit(new(big.Int).Lsh(big.NewInt(1), 511), 0, 1), new(big.Int).SetBit(new(big.Int).Lsh(big.NewInt(3), 511), 0, 1))
	for composite.BitLen() < 1024 || new(big.Int).GCD(nil, nil, new(big.Int).Sub(composite, big.NewInt(1)), big.NewInt(65537)).Int64() != 1 {
		composite.Add(composite, big.NewInt(2))
	}
	p3, q3 := primes(t, 3)
	goodRSA := rsaWith(t, p, q, 65537)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec2, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d := mustDER(t)(ec.Bytes())
	wrongPoint := mustDER(t)(ec2.PublicKey.Bytes())
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	order := elliptic.P256().Params().N
	twisted := bytes.Clone(goodRSA)
	twisted[len(twisted)-1] ^= 1 // of q^-1
	return map[kmswire.KeySpec]map[string][]byte{
		kmswire.RSA2048: {
			"octets":               randomOctets(32),
			"PKCS#1":               goodRSA,
			"a key on P-256":       mustDER(t)(x509.MarshalPKCS8PrivateKey(ec)),
			"1024 bits":            mustDER(t)(x509.MarshalPKCS8PrivateKey(small)),
			"exponent 3":           pkcs8(t, rsaID, rsaWith(t, p3, q3, 3)),
			"a prime that is none": pkcs8(t, rsaID, rsaWith(t, p, composite, 65537)),
			"a wrong part":         pkcs8(t, rsaID, twisted),
			"one octet more":       append(pkcs8(t, rsaID, goodRSA), 0),
			"one octet less":       pkcs8(t, rsaID, goodRSA)[:100],
			"labelled as EC":       pkcs8(t, p256ID, goodRSA),
		},
		kmswire.ECP256: {
			"SEC 1":               ecWith(t, d, nil),
			"P-384":               mustDER(t)(x509.MarshalPKCS8PrivateKey(p384)),
			"RSA":                 pkcs8(t, rsaID, goodRSA),
			"zero":                pkcs8(t, p256ID, ecWith(t, make([]byte, 32), nil)),
			"the order":           pkcs8(t, p256ID, ecWith(t, order.Bytes(), nil)),
			"more than the order": pkcs8(t, p256ID, ecWith(t, bytes.Repeat([]byte{0xff}, 32), nil)),
			"labelled as RSA":     pkcs8(t, rsaID, ecWith(t, d, nil)),
			"another's point":     pkcs8(t, p256ID, ecWith(t, d, wrongPoint)),
		},
	}
}

func testImportBadPrivateKeys(t *testing.T, f *fixture) {
	for spec, bad := range badPrivateKeys(t) {
		for _, k := range kinds {
			m := f.external(k, spec)
			p := f.parameters(m.KeyID, kmswire.WrapOAEPSHA256KWP)
			for name, der := range bad {
				if k != software && slices.Contains(encodings, name) {
					continue
				}
				err := f.importWrapped(m.KeyID, p.ImportToken, wrapFor(t, p, kmswire.WrapOAEPSHA256KWP, der))
				wantCode(t, fmt.Sprint(k, " ", spec, ": ", name), err, InvalidKeyMaterial)
				if want := errMaterial(grant{&keystore.Key{ID: m.KeyID}, specs[spec]}).Detail; err != nil && AsError(err).Detail != want {
					t.Errorf("%s: %q, want %q", name, AsError(err).Detail, want)
				}
			}
			f.wantState(m.KeyID, kmswire.PendingImport)
			f.wantNoIntents()
		}
	}
}

// The attack of Bleichenbacher: whoever has somebody's wrapped material and its token asks about changed ciphertexts. A good padding
// around something else must look like a bad one, go the same way, and bring no key: least of all the random octets that
// stand in for what could not be unwrapped.
func testImportPaddingOracle(t *testing.T, f *fixture) {
	ctx := context.Background()
	m := f.external(software, kmswire.AES256)
	p := f.parameters(m.KeyID, kmswire.WrapPKCS1)
	conforming := wrapFor(t, p, kmswire.WrapPKCS1, randomOctets(31))
	broken := bytes.Clone(conforming)
	broken[100] ^= 1
	one := func(wrapped []byte) (sealed, print []byte, good int) {
		t.Helper()
		key, err := f.db.Key(ctx, m.KeyID)
		if err != nil {
			t.Fatal(err)
		}
		tok, err := f.openToken(key, p.ImportToken)
		if err != nil {
			t.Fatal(err)
		}
		c := &call{Service: f.Service, ctx: ctx, actor: root}
		im := &importedMaterial{grant: grant{key, specs[kmswire.AES256]}, token: tok, wrapped: wrapped, key: *key,
			version: keystore.Version{ID: newVersionID(key.ID), KeyID: key.ID}}
		good, err = c.importSecret(im)
		if err != nil {
			t.Fatal(err)
		}
		return im.version.Sealed, im.key.Fingerprint, good
	}
	for name, wrapped := range map[string][]byte{"conforming": conforming, "broken": broken} {
		sealed, print, good := one(wrapped)
		again, printAgain, _ := one(wrapped)
		if good != 0 {
			t.Fatalf("%s material is good", name)
		}
		if len(sealed) == 0 || len(sealed) != len(again) || len(print) == 0 || bytes.Equal(print, printAgain) {
			t.Errorf("%s material did not go the whole way with octets of its own", name)
		}
	}
	a, b := f.importWrapped(m.KeyID, p.ImportToken, conforming), f.importWrapped(m.KeyID, p.ImportToken, broken)
	wantCode(t, "conforming", a, InvalidKeyMaterial)
	if a.Error() != b.Error() {
		t.Errorf("%q and %q", a, b)
	}
	f.wantState(m.KeyID, kmswire.PendingImport)

	// What was imported closes the door: conforming ciphertexts of the right length get the same answer from then on.
	if err := f.importWrapped(m.KeyID, p.ImportToken, wrapFor(t, p, kmswire.WrapPKCS1, randomOctets(32))); err != nil {
		t.Fatal(err)
	}
	c := f.importWrapped(m.KeyID, p.ImportToken, wrapFor(t, p, kmswire.WrapPKCS1, randomOctets(32)))
	if c == nil || c.Error() != b.Error() {
		t.Errorf("%v and %v", c, b)
	}
}

func testImportTokens(t *testing.T, f *fixture) {
	ctx := context.Background()
	for _, k := range []kind{software, wrapped} {
		m, o := f.external(k, kmswire.AES256), f.external(k, kmswire.AES256)
		material := randomOctets(32)
		p, q := f.parameters(m.KeyID, kmswire.RSAOAEPSHA256), f.parameters(o.KeyID, kmswire.RSAOAEPSHA256)
		if len(p.ImportToken) > kmswire.MaxImportToken {
			t.Errorf("%s: a token has %d octets", k, len(p.ImportToken))
		}
		good := wrapFor(t, p, kmswire.RSAOAEPSHA256, material)
		wantCode(t, "another key's token", f.importWrapped(m.KeyID, q.ImportToken, wrapFor(t, q, kmswire.RSAOAEPSHA256, material)), InvalidImportToken)
		wantCode(t, "another token of the key", f.importWrapped(m.KeyID, f.parameters(m.KeyID, kmswire.RSAOAEPSHA256).ImportToken, good), InvalidKeyMaterial)
		for i := range p.ImportToken {
			changed := bytes.Clone(p.ImportToken)
			changed[i] ^= 0x10
			if err := f.importWrapped(m.KeyID, changed, good); !errors.Is(err, InvalidImportToken) {
				t.Fatalf("octet %d changed: %v", i, err)
			}
		}
		for _, n := range []int{0, 1, 24, 25, 40, len(p.ImportToken) - 1} {
			wantCode(t, fmt.Sprint("cut to ", n), f.importWrapped(m.KeyID, p.ImportToken[:n], good), InvalidImportToken)
		}
		wantCode(t, "too long", f.importWrapped(m.KeyID, make([]byte, kmswire.MaxImportToken+1), good), InvalidImportToken)
		// A secret of ours that is no token, under a token's name.
		for name, content := range map[string][]byte{"empty": {}, "another version": append([]byte{9}, make([]byte, 40)...),
			"no such wrapping": append([]byte{1, 99}, make([]byte, 40)...), "nowhere": append([]byte{1, 0, 7}, make([]byte, 40)...)} {
			sealed, err := f.db.SealSecret(tokenSecret+m.KeyID, content)
			if err != nil {
				t.Fatal(err)
			}
			wantCode(t, name, f.importWrapped(m.KeyID, sealed, good), InvalidImportToken)
		}

		expires, err := time.Parse(time.RFC3339, p.TokenExpireTime)
		if err != nil || time.Until(expires) > tokenLifetime || time.Until(expires) < tokenLifetime-time.Minute {
			t.Errorf("the token expires at %s: %v", p.TokenExpireTime, err)
		}
		import_ := func(now time.Time) error {
			_, err := f.at(now).ImportKeyMaterial(ctx, root, &kmswire.ImportKeyMaterialRequest{KeyID: m.KeyID, ImportToken: p.ImportToken, EncryptedKeyMaterial: good})
			return err
		}
		wantCode(t, "an old token", import_(expires), ExpiredImportToken)
		if err := import_(expires.Add(-time.Second)); err != nil {
			t.Errorf("in its last second: %v", err)
		}
		if err := f.importWrapped(m.KeyID, p.ImportToken, good); err != nil {
			t.Errorf("used twice: %v", err)
		}
	}
}

// at makes a service over the fixture's store for which it is always the same time.
func (f *fixture) at(now time.Time) *Service {
	f.t.Helper()
	s, err := New(context.Background(), Config{
		Store: f.db, Pool: f.pool, Region: "local", Account: testAccount, Audit: f.events, Log: zerolog.Nop(), Now: func() time.Time { return now },
		Instances: []Instance{{ID: "kst-software", Type: SoftwareInstance}, {ID: "kst-hardware", Type: HardwareInstance}},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(s.Close)
	return s
}

// setState puts a key into a state.
func (f *fixture) setState(keyID string, state kmswire.KeyState) {
	f.t.Helper()
	old, err := f.db.Key(context.Background(), keyID)
	if err != nil {
		f.t.Fatal(err)
	}
	k := *old
	k.State = string(state)
	if err := f.db.Change().UpdateKey(old, &k).Commit(context.Background()); err != nil {
		f.t.Fatal(err)
	}
}

func testImportStates(t *testing.T, f *fixture) {
	ctx := context.Background()
	material := randomOctets(32)
	remove := func(s *Service, id string) error {
		_, err := s.DeleteKeyMaterial(ctx, root, &kmswire.DeleteKeyMaterialRequest{KeyID: id})
		return err
	}
	m := f.external(software, kmswire.AES256)
	if err := remove(f.Service, m.KeyID); err != nil {
		t.Errorf("deleting what is not there: %v", err)
	}
	if err := f.tryImport(m.KeyID, kmswire.RSAOAEPSHA256, material); err != nil {
		t.Fatal(err)
	}
	_, err := f.CreateKeyVersion(ctx, root, &kmswire.CreateKeyVersionRequest{KeyID: m.KeyID})
	wantCode(t, "rotate", err, UnsupportedOrigin)
	f.setState(m.KeyID, kmswire.Disabled)
	if err := f.tryImport(m.KeyID, kmswire.RSAOAEPSHA256, material); err != nil {
		t.Fatal(err)
	}
	f.wantState(m.KeyID, kmswire.Disabled)
	if err := remove(f.Service, m.KeyID); err != nil {
		t.Fatal(err)
	}
	f.wantState(m.KeyID, kmswire.PendingImport)
	if err := f.tryImport(m.KeyID, kmswire.RSAOAEPSHA256, material); err != nil {
		t.Fatal(err)
	}
	f.wantState(m.KeyID, kmswire.Enabled)
	f.setState(m.KeyID, kmswire.PendingDeletion)
	wantCode(t, "PendingDeletion", f.tryImport(m.KeyID, kmswire.RSAOAEPSHA256, material), StateNotAllowed)
	if err := remove(f.Service, m.KeyID); err != nil {
		t.Fatal(err)
	}
	f.wantState(m.KeyID, kmswire.PendingDeletion)

	ours := f.create(software, kmswire.AES256, "")
	_, err = f.GetParametersForImport(ctx, root, &kmswire.GetParametersForImportRequest{KeyID: ours.KeyID, WrappingAlgorithm: kmswire.RSAOAEPSHA256, WrappingKeySpec: kmswire.RSA2048})
	wantCode(t, "parameters for a key of ours", err, UnsupportedOrigin)
	wantCode(t, "import into a key of ours", f.importWrapped(ours.KeyID, []byte("x"), []byte("x")), UnsupportedOrigin)
	wantCode(t, "delete the material of a key of ours", remove(f.Service, ours.KeyID), UnsupportedOrigin)
	wantCode(t, "an alias", remove(f.Service, "alias/x"), UnsupportedAlias)
	_, err = f.DeleteKeyMaterial(ctx, other, &kmswire.DeleteKeyMaterialRequest{KeyID: m.KeyID})
	wantCode(t, "somebody else", err, KeyNotFound)

	private := f.external(software, kmswire.ECP256)
	for name, c := range map[string]struct {
		key  string
		alg  kmswire.Algorithm
		spec kmswire.KeySpec
	}{
		"SM2":                   {m.KeyID, "SM2PKE", "EC_SM2"},
		"RSA_4096":              {m.KeyID, kmswire.RSAOAEPSHA256, kmswire.RSA4096},
		"no such wrapping":      {m.KeyID, "RSAES_OAEP_SHA_512", kmswire.RSA2048},
		"a signature":           {m.KeyID, kmswire.RSAPSSSHA256, kmswire.RSA2048},
		"a block for a private": {private.KeyID, kmswire.RSAOAEPSHA256, kmswire.RSA2048},
	} {
		_, err := f.GetParametersForImport(ctx, root, &kmswire.GetParametersForImportRequest{KeyID: c.key, WrappingAlgorithm: c.alg, WrappingKeySpec: c.spec})
		wantCode(t, name, err, InvalidParameter)
	}
}

func testImportExpiry(t *testing.T, f *fixture) {
	ctx := context.Background()
	now := time.Date(2030, 1, 2, 3, 4, 5, 600, time.UTC)
	s := f.at(now)
	m := f.external(software, kmswire.AES256)
	material := randomOctets(32)
	p, err := s.GetParametersForImport(ctx, root, &kmswire.GetParametersForImportRequest{KeyID: m.KeyID, WrappingAlgorithm: kmswire.RSAOAEPSHA256, WrappingKeySpec: kmswire.RSA2048})
	if err != nil {
		t.Fatal(err)
	}
	until := func(unix int) error {
		_, err := s.ImportKeyMaterial(ctx, root, &kmswire.ImportKeyMaterialRequest{KeyID: m.KeyID, ImportToken: p.ImportToken,
			EncryptedKeyMaterial: wrapFor(t, p, kmswire.RSAOAEPSHA256, material), KeyMaterialExpireUnix: &unix})
		return err
	}
	for _, unix := range []int{-1, 1, int(now.Unix()) - 1, int(now.Unix()), maxUnixTime + 1} {
		wantCode(t, fmt.Sprint(unix), until(unix), InvalidParameter)
	}
	f.wantState(m.KeyID, kmswire.PendingImport)
	due := func(at int64) int {
		list, err := f.db.Due(ctx, keystore.DueExpire, time.Unix(at, 0), nil, 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	soon := now.Unix() + 1
	if err := until(int(soon)); err != nil {
		t.Fatal(err)
	}
	if got := f.describe(m.KeyID).MaterialExpireTime; got != "2030-01-02T03:04:06Z" || due(soon) != 1 {
		t.Errorf("it expires at %q, %d due", got, due(soon))
	}
	if k, err := f.db.Key(ctx, m.KeyID); err != nil || k.MaterialAfter == 0 {
		t.Errorf("it would expire by the wall clock alone: %+v %v", k, err)
	}
	if err := until(int(soon) + 3600); err != nil {
		t.Fatal(err)
	}
	if got := f.describe(m.KeyID).MaterialExpireTime; got != "2030-01-02T04:04:06Z" || due(soon) != 0 {
		t.Errorf("it expires at %q, %d due", got, due(soon))
	}
	if err := until(0); err != nil {
		t.Fatal(err)
	}
	if got := f.describe(m.KeyID).MaterialExpireTime; got != "" || due(soon+7200) != 0 {
		t.Errorf("it expires at %q, %d due", got, due(soon+7200))
	}
	if err := until(int(soon)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.DeleteKeyMaterial(ctx, root, &kmswire.DeleteKeyMaterialRequest{KeyID: m.KeyID}); err != nil {
		t.Fatal(err)
	}
	if got := f.describe(m.KeyID).MaterialExpireTime; got != "" || due(soon) != 0 {
		t.Errorf("deleted material expires at %q, %d due", got, due(soon))
	}
}

// The same material in two keys makes two keys: a blob of one, relabelled, does not open with the other.
func testSameMaterialInTwoKeys(t *testing.T, f *fixture) {
	ctx := context.Background()
	material := randomOctets(32)
	for _, k := range kinds {
		a, b := f.external(k, kmswire.AES256), f.external(k, kmswire.AES256)
		for _, m := range []kmswire.KeyMetadata{a, b} {
			if err := f.tryImport(m.KeyID, kmswire.RSAOAEPSHA256, material); err != nil {
				t.Fatal(err)
			}
		}
		e, err := f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: a.KeyID, Plaintext: []byte("for a only")})
		if err != nil {
			t.Fatal(err)
		}
		other := bytes.Clone(e.CiphertextBlob)
		av, bv := strings.TrimPrefix(f.onlyVersion(a.KeyID), a.KeyID+"-"), strings.TrimPrefix(f.onlyVersion(b.KeyID), b.KeyID+"-")
		at, av2 := strings.TrimPrefix(a.KeyID, "key-"), strings.TrimPrefix(b.KeyID, "key-")
		other = bytes.ReplaceAll(bytes.ReplaceAll(other, []byte(at), []byte(av2)), []byte(av), []byte(bv))
		if bytes.Equal(other, e.CiphertextBlob) {
			t.Fatal("the blob does not hold the names in the clear; this test needs another way to relabel it")
		}
		_, err = f.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: other})
		wantCode(t, fmt.Sprint(k, ": a relabelled blob"), err, InvalidParameter)
		ka, err := f.db.Key(ctx, a.KeyID)
		if err != nil {
			t.Fatal(err)
		}
		kb, err := f.db.Key(ctx, b.KeyID)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(ka.Fingerprint, kb.Fingerprint) || len(ka.Fingerprint) == 0 {
			t.Errorf("%s: the fingerprints tell that two keys have the same material", k)
		}
	}
}

// Of first imports at the same time one decides what the key is.
func testImportAtTheSameTime(t *testing.T, f *fixture) {
	for _, k := range kinds {
		m := f.external(k, kmswire.AES256)
		p := f.parameters(m.KeyID, kmswire.RSAOAEPSHA256)
		var wg sync.WaitGroup
		errs := make([]error, 4)
		for i := range errs {
			wrapped := wrapFor(t, p, kmswire.RSAOAEPSHA256, randomOctets(32))
			wg.Go(func() { errs[i] = f.importWrapped(m.KeyID, p.ImportToken, wrapped) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else if !errors.Is(err, InvalidKeyMaterial) {
				t.Errorf("%s: %v", k, err)
			}
		}
		if won != 1 {
			t.Errorf("%s: %d imports won", k, won)
		}
		f.onlyVersion(m.KeyID)
		f.wantNoIntents()
	}
}

// What a process that died in an import left in an HSM is destroyed at the next start, and the key is as it was.
func testImportCrash(t *testing.T, f *fixture) {
	ctx := context.Background()
	m := f.external(pinned, kmswire.AES256)
	p := f.parameters(m.KeyID, kmswire.RSAOAEPSHA256)
	key, err := f.db.Key(ctx, m.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := f.openToken(key, p.ImportToken)
	if err != nil {
		t.Fatal(err)
	}
	member, err := f.pool.PinTarget()
	if err != nil {
		t.Fatal(err)
	}
	material := randomOctets(32)
	begun := &keystore.Intent{ID: newIntentID(), Kind: intentImport, KeyID: m.KeyID, Member: member}
	if err := f.db.Change().PutIntent(begun).Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := f.pool.Import(ctx, &hsmpool.ImportRequest{Transport: &hsmpool.Key{ID: "t", Type: hsmpool.RSA2048, Usage: hsmpool.UseUnwrap, Wrapped: tok.private},
		Algorithm: hsmpool.ImportOAEPSHA256, Ciphertext: wrapFor(t, p, kmswire.RSAOAEPSHA256, material), Type: hsmpool.AES256, Usage: hsmpool.UseEncrypt,
		Member: member, ObjectID: intentObjectID(begun)}); err != nil {
		t.Fatal(err)
	}
	f.Service = f.start()
	f.wantNoIntents()
	f.wantState(m.KeyID, kmswire.PendingImport)
	if n, err := f.pool.DestroyPinned(ctx, member, intentObjectID(begun)); err != nil || n != 0 {
		t.Errorf("%d objects left, %v", n, err)
	}
	if err := f.tryImport(m.KeyID, kmswire.RSAOAEPSHA256, material); err != nil {
		t.Fatal(err)
	}

	// The object that a version named before a second import is gone, and so is the one whose material was deleted.
	first, err := f.db.Version(ctx, m.KeyID, f.onlyVersion(m.KeyID))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.tryImport(m.KeyID, kmswire.RSAOAEPSHA256, material); err != nil {
		t.Fatal(err)
	}
	second, err := f.db.Version(ctx, m.KeyID, first.ID)
	if err != nil || bytes.Equal(second.ObjectID, first.ObjectID) {
		t.Fatalf("the second import made no object of its own: %v", err)
	}
	if n, err := f.pool.DestroyPinned(ctx, first.Member, first.ObjectID); err != nil || n != 0 {
		t.Errorf("%d objects of the first import left, %v", n, err)
	}
	if _, err := f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: m.KeyID, Plaintext: []byte("x")}); err != nil {
		t.Errorf("after the second import: %v", err)
	}
	// A crash after the commit that dropped the material, and before its object was destroyed.
	c := &call{Service: f.Service, ctx: ctx, actor: root}
	if err := f.db.Change().PutIntent(c.dropObject(second)).Commit(ctx); err != nil {
		t.Fatal(err)
	}
	f.Service = f.start()
	f.wantNoIntents()
	if n, err := f.pool.DestroyPinned(ctx, second.Member, second.ObjectID); err != nil || n != 0 {
		t.Errorf("%d objects of dropped material left, %v", n, err)
	}
}

func testDraftOrigin(t *testing.T, f *fixture) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		req  kmswire.CreateKeyRequest
		want Code
	}{
		"no such origin": {kmswire.CreateKeyRequest{Origin: "Elsewhere"}, InvalidParameter},
		"external key":   {kmswire.CreateKeyRequest{Origin: kmswire.OriginExternal, ExternalKeyID: "x"}, InvalidParameter},
		"rotation":       {kmswire.CreateKeyRequest{Origin: kmswire.OriginExternal, EnableAutomaticRotation: true, RotationInterval: "30d"}, UnsupportedOrigin},
	} {
		c.req.DKMSInstanceID = "kst-software"
		_, err := f.CreateKey(ctx, root, &c.req)
		wantCode(t, name, err, c.want)
	}
	r, err := f.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", Origin: kmswire.OriginExternal, AliasName: "alias/byok"})
	if err != nil {
		t.Fatal(err)
	}
	k, err := f.db.Key(ctx, r.KeyMetadata.KeyID)
	if err != nil || k.Versions != 0 || k.Primary != "" {
		t.Errorf("%+v %v", k, err)
	}
	_, err = f.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", Origin: kmswire.OriginExternal, AliasName: "alias/byok"})
	wantCode(t, "the alias again", err, AliasExists)
	f.wantNoIntents()
}

// FuzzImportToken: what parses is written the same again.
func FuzzImportToken(f *testing.F) {
	f.Add((&importToken{wrappings[0], inSoftware, time.Unix(1, 0), []byte("key")}).marshal())
	f.Add((&importToken{wrappings[4], inHSM, time.Unix(maxUnixTime, 0), []byte{0}}).marshal())
	f.Add([]byte{tokenVersion, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		tok, ok := parseImportToken(b)
		if !ok {
			return
		}
		if again := tok.marshal(); !bytes.Equal(again, b) {
			t.Fatalf("read %x, wrote %x", b, again)
		}
	})
}

// FuzzParseImported: a private key that is taken is of its spec and signs; others are refused without another error.
func FuzzParseImported(f *testing.F) {
	of := []kmswire.KeySpec{kmswire.ECP256, kmswire.ECP256K, kmswire.RSA2048}
	for i, spec := range of {
		k, err := softkey.GenerateKey(spec)
		if err != nil {
			f.Fatal(err)
		}
		der, err := k.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), der)
	}
	for _, d := range [][]byte{make([]byte, 32), elliptic.P256().Params().N.Bytes(), {31: 1}} {
		f.Add(uint8(0), pkcs8(f, p256ID, ecWith(f, d, nil)))
		f.Add(uint8(2), pkcs8(f, rsaID, ecWith(f, d, nil)))
	}
	f.Fuzz(func(t *testing.T, i uint8, der []byte) {
		spec := of[int(i)%len(of)]
		k, public, ok, err := parseImported(spec, der)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return
		}
		defer k.Close()
		p, err := softkey.ParsePublicKey(public)
		if err != nil || p.Spec() != spec {
			t.Fatalf("public half: %v", err)
		}
		alg, digest := specs[spec].sign[0], make([]byte, 32)
		sig, err := k.Sign(alg, digest)
		if err != nil {
			t.Fatal(err)
		}
		if good, err := p.Verify(alg, digest, sig); err != nil || !good {
			t.Fatalf("its signature does not verify: %v", err)
		}
	})
}

// PKCS#1 v1.5: where a good import can't be kept, well padded or not has one answer too. Else a key that is never bound would
// say it as often as anybody likes.
func TestImportPaddingOracleWithoutCommit(t *testing.T) {
	ctx := context.Background()
	ask := func(t *testing.T, s *Service, instance string, before func()) {
		t.Helper()
		made, err := s.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: instance, Origin: kmswire.OriginExternal})
		if err != nil {
			t.Fatal(err)
		}
		id := made.KeyMetadata.KeyID
		p, err := s.GetParametersForImport(ctx, root, &kmswire.GetParametersForImportRequest{KeyID: id, WrappingAlgorithm: kmswire.WrapPKCS1, WrappingKeySpec: kmswire.RSA2048})
		if err != nil {
			t.Fatal(err)
		}
		good := wrapFor(t, p, kmswire.WrapPKCS1, randomOctets(32))
		broken := bytes.Clone(good)
		broken[100] ^= 1
		var answers []string
		for _, wrapped := range [][]byte{good, broken} {
			before()
			_, err := s.ImportKeyMaterial(ctx, root, &kmswire.ImportKeyMaterialRequest{KeyID: id, ImportToken: p.ImportToken, EncryptedKeyMaterial: wrapped})
			answers = append(answers, fmt.Sprint(err))
		}
		if answers[0] != answers[1] || answers[0] == "<nil>" {
			t.Errorf("well padded: %s; not: %s", answers[0], answers[1])
		}
	}
	t.Run("full instance", func(t *testing.T) {
		f := newStoreFixture(t, Instance{ID: "kst-a", Type: SoftwareInstance, Keys: 1})
		f.make("kst-a", root)
		ask(t, f.Service, "kst-a", func() {})
	})
	t.Run("no commits", func(t *testing.T) {
		w := newWorld(t, nil)
		ask(t, w.Service, "kst-software", func() {
			w.disk.mu.Lock()
			defer w.disk.mu.Unlock()
			w.disk.budget = 0
		})
	})
}
