package hsmpool_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"sort"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"
	"github.com/miekg/pkcs11"

	"github.com/keyward/keyward/hsmpool"
)

// octets is hexadecimal in JSON.
type octets []byte

func (o *octets) UnmarshalText(text []byte) error {
	*o = make([]byte, hex.DecodedLen(len(text)))
	_, err := hex.Decode(*o, text)
	return err
}

// number takes the sign octet off.
func (o octets) number() []byte { return bytes.TrimLeft(o, "\x00") }

type vectorFile struct {
	NumberOfTests int
	TestGroups    []vectorGroup
}

type vectorGroup struct {
	IvSize, KeySize, TagSize, SLen int
	Sha, MgfSha                    string
	PrivateKey                     struct {
		Modulus, PublicExponent, PrivateExponent, Prime1, Prime2, Exponent1, Exponent2, Coefficient octets
		OtherPrimeInfos                                                                             []any
	}
	PublicKey struct {
		Modulus, PublicExponent, Uncompressed octets
	}
	Tests []vector
}

type vector struct {
	TcId                                   int
	Comment, Result                        string
	Key, Iv, Aad, Msg, Ct, Tag, Label, Sig octets
}

// tally counts what became of the vectors.
type tally struct {
	done    int
	skipped map[string]int
}

func (y *tally) skip(reason string, n int) {
	if y.skipped == nil {
		y.skipped = map[string]int{}
	}
	y.skipped[reason] += n
}

// check prints the tally and holds it against what is known of the vectors: a change of either must be looked at.
func (y *tally) check(t *testing.T, done int, skipped map[string]int) {
	t.Helper()
	var reasons []string
	for r, n := range y.skipped {
		reasons = append(reasons, fmt.Sprintf("%d %s", n, r))
	}
	sort.Strings(reasons)
	t.Logf("%d vectors; skipped: %s", y.done, strings.Join(reasons, "; "))
	if y.done != done || fmt.Sprint(y.skipped) != fmt.Sprint(skipped) {
		t.Errorf("%d vectors done and %v skipped, want %d and %v", y.done, y.skipped, done, skipped)
	}
}

func vectors(t *testing.T, name string) []vectorGroup {
	t.Helper()
	b, err := fs.ReadFile(wycheproof.TestVectors, name+".json")
	if err != nil {
		t.Fatal(err)
	}
	var f vectorFile
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(name, err)
	}
	n := 0
	for _, g := range f.TestGroups {
		n += len(g.Tests)
	}
	if n != f.NumberOfTests || n == 0 {
		t.Fatalf("%s: %d tests, not %d", name, n, f.NumberOfTests)
	}
	return f.TestGroups
}

func testWycheproofGCM(t *testing.T, p *hsmpool.Pool) {
	types := map[int]hsmpool.KeyType{128: hsmpool.AES128, 192: hsmpool.AES192, 256: hsmpool.AES256}
	var y tally
	for _, g := range vectors(t, "aes_gcm_test") {
		if g.IvSize != 96 || g.TagSize != 128 {
			y.skip("nonces that are not 96 bits long", len(g.Tests))
			continue
		}
		for _, v := range g.Tests {
			k := importKey(t, p, "a", types[g.KeySize], hsmpool.UseEncrypt, []*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
				pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
				pkcs11.NewAttribute(pkcs11.CKA_VALUE, []byte(v.Key)),
			})
			sealed := append(bytes.Clone(v.Ct), v.Tag...)
			d := &hsmpool.Job{Op: hsmpool.DecryptGCM, Key: k, In: sealed, Nonce: v.Iv, AAD: v.Aad}
			err := p.Do(testContext(t), d)
			e := &hsmpool.Job{Op: hsmpool.EncryptGCM, Key: k, In: v.Msg, Nonce: v.Iv, AAD: v.Aad}
			if err := p.Do(testContext(t), e); err != nil {
				t.Errorf("%d %s: encrypt: %v", v.TcId, v.Comment, err)
			}
			switch v.Result {
			case "valid":
				if err != nil || !bytes.Equal(d.Out, v.Msg) || !bytes.Equal(e.Out, sealed) {
					t.Errorf("%d %s: decrypted %x, %v; encrypted %x", v.TcId, v.Comment, d.Out, err, e.Out)
				}
			case "invalid":
				if hsmpool.KindOf(err) != hsmpool.KindBadData || bytes.Equal(e.Out, sealed) {
					t.Errorf("%d %s: decrypted %x, %v", v.TcId, v.Comment, d.Out, err)
				}
			default:
				t.Errorf("%d: result %q", v.TcId, v.Result)
			}
			y.done++
		}
	}
	y.check(t, wycheproofGCM, wycheproofGCMSkipped)
}

func testWycheproofOAEP(t *testing.T, p *hsmpool.Pool) {
	types := map[int]hsmpool.KeyType{2048: hsmpool.RSA2048, 3072: hsmpool.RSA3072, 4096: hsmpool.RSA4096}
	ops := map[string]hsmpool.Op{"SHA-1": hsmpool.DecryptOAEPSHA1, "SHA-256": hsmpool.DecryptOAEPSHA256}
	hashes := map[string]crypto.Hash{"SHA-1": crypto.SHA1, "SHA-224": crypto.SHA224, "SHA-256": crypto.SHA256, "SHA-384": crypto.SHA384, "SHA-512": crypto.SHA512}
	var y tally
	for _, name := range []string{"rsa_oaep_2048_sha1_mgf1sha1_test", "rsa_oaep_2048_sha256_mgf1sha256_test",
		"rsa_oaep_3072_sha256_mgf1sha256_test", "rsa_oaep_4096_sha256_mgf1sha256_test", "rsa_oaep_misc_test",
		"rsa_oaep_2048_sha224_mgf1sha1_test", "rsa_oaep_2048_sha384_mgf1sha384_test", "rsa_oaep_2048_sha512_mgf1sha512_test"} {
		for _, g := range vectors(t, name) {
			hash, mgf := hashes[g.Sha], hashes[g.MgfSha]
			if hash == 0 || mgf == 0 {
				y.skip("other hashes", len(g.Tests))
				continue
			}
			op, ofAPI := ops[g.Sha]
			if ofAPI = ofAPI && hash == mgf; ofAPI {
				hash, mgf = 0, 0
			} else {
				op = hsmpool.DecryptOAEP
			}
			kt, ok := types[len(g.PrivateKey.Modulus.number())*8]
			if !ok {
				y.skip("other key sizes", len(g.Tests))
				continue
			}
			if e := g.PrivateKey.PublicExponent.number(); !bytes.Equal(e, []byte{1, 0, 1}) {
				y.skip("public exponents that keyward does not make", len(g.Tests))
				continue
			}
			k := importKey(t, p, "a", kt, hsmpool.UseEncrypt, rsaPrivate(&g))
			for _, v := range g.Tests {
				j := &hsmpool.Job{Op: op, Key: k, In: v.Ct, Hash: hash, MGF: mgf}
				if len(v.Label) > 0 {
					j.Op, j.Hash, j.MGF, j.Label = hsmpool.DecryptOAEP, hashes[g.Sha], hashes[g.MgfSha], v.Label
				}
				err := p.Do(testContext(t), j)
				switch v.Result {
				case "valid":
					if err != nil || !bytes.Equal(j.Out, v.Msg) {
						t.Errorf("%s %d %s: %x, %v", name, v.TcId, v.Comment, j.Out, err)
					}
				case "invalid":
					if hsmpool.KindOf(err) != hsmpool.KindBadData {
						t.Errorf("%s %d %s: %x, %v", name, v.TcId, v.Comment, j.Out, err)
					}
				default:
					t.Errorf("%d: result %q", v.TcId, v.Result)
				}
				y.done++
			}
		}
	}
	y.check(t, wycheproofOAEP, wycheproofOAEPSkipped)
}

func rsaPrivate(g *vectorGroup) []*pkcs11.Attribute {
	k := &g.PrivateKey
	a := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
	}
	for _, n := range []struct {
		attr  uint
		value octets
	}{
		{pkcs11.CKA_MODULUS, k.Modulus}, {pkcs11.CKA_PUBLIC_EXPONENT, k.PublicExponent},
		{pkcs11.CKA_PRIVATE_EXPONENT, k.PrivateExponent}, {pkcs11.CKA_PRIME_1, k.Prime1}, {pkcs11.CKA_PRIME_2, k.Prime2},
		{pkcs11.CKA_EXPONENT_1, k.Exponent1}, {pkcs11.CKA_EXPONENT_2, k.Exponent2}, {pkcs11.CKA_COEFFICIENT, k.Coefficient},
	} {
		a = append(a, pkcs11.NewAttribute(n.attr, n.value.number()))
	}
	return a
}

// testWycheproofVerify asks the module itself to verify: keyward verifies in software, but its signatures must be what
// a correct verifier takes, and a module that verifies wrongly is not to be trusted with signing.
func testWycheproofVerify(t *testing.T, p *hsmpool.Pool) {
	var y tally
	pss := ulongs(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, 32)
	info, err := hex.DecodeString("3031300d060960864801650304020105000420")
	if err != nil {
		t.Fatal(err)
	}
	curves := map[string][]byte{
		"ecdsa_secp256r1_sha256_p1363_test": {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07},
		"ecdsa_secp256k1_sha256_p1363_test": {0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a},
	}
	for _, name := range []string{"rsa_pss_2048_sha256_mgf1_32_test", "rsa_pss_3072_sha256_mgf1_32_test",
		"rsa_pss_4096_sha256_mgf1_32_test", "rsa_pss_misc_test", "rsa_signature_2048_sha256_test", "rsa_signature_3072_sha256_test",
		"rsa_signature_4096_sha256_test", "ecdsa_secp256r1_sha256_p1363_test", "ecdsa_secp256k1_sha256_p1363_test"} {
		for _, g := range vectors(t, name) {
			a := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
				pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true)}
			m, size := mech(pkcs11.CKM_RSA_PKCS, nil), len(g.PublicKey.Modulus.number())
			if curve, ok := curves[name]; ok {
				m, size = mech(pkcs11.CKM_ECDSA, nil), 64
				a = append(a, pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC), pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, curve),
					pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, append([]byte{0x04, 65}, g.PublicKey.Uncompressed...)))
			} else {
				a = append(a, pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
					pkcs11.NewAttribute(pkcs11.CKA_MODULUS, g.PublicKey.Modulus.number()),
					pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, g.PublicKey.PublicExponent.number()))
			}
			isPSS := strings.HasPrefix(name, "rsa_pss")
			if isPSS {
				if g.Sha != "SHA-256" || g.MgfSha != "SHA-256" || g.SLen != 32 {
					y.skip("other hashes or salts", len(g.Tests))
					continue
				}
				m = mech(pkcs11.CKM_RSA_PKCS_PSS, pss)
			}
			err := hsmpool.WithLogin(p, "a", func(ctx *pkcs11.Ctx, s session, _, _ object) error {
				h, err := ctx.CreateObject(s, a)
				if err != nil {
					return err
				}
				for _, v := range g.Tests {
					y.done++
					digest := sha256.Sum256(v.Msg)
					in := digest[:]
					if !isPSS && curves[name] == nil {
						in = append(bytes.Clone(info), in...)
					}
					ok := false
					if len(v.Sig) == size { // what keyward checks before a call
						if err := ctx.VerifyInit(s, m, h); err != nil {
							return err
						}
						ok = ctx.Verify(s, in, v.Sig) == nil
					}
					if v.Result == "valid" && !ok || v.Result == "invalid" && ok {
						t.Errorf("%s %d %s: %v for %s", name, v.TcId, v.Comment, ok, v.Result)
					}
				}
				return ctx.DestroyObject(s, h)
			})
			if err != nil {
				t.Fatal(name, err)
			}
		}
	}
	y.check(t, wycheproofVerify, wycheproofVerifySkipped)
}

// What the vectors' present version gives.
var (
	wycheproofGCM           = 197
	wycheproofGCMSkipped    = map[string]int{"nonces that are not 96 bits long": 119}
	wycheproofOAEP          = 455
	wycheproofOAEPSkipped   = map[string]int{"other key sizes": 185}
	wycheproofVerify        = 1615
	wycheproofVerifySkipped = map[string]int{"other hashes or salts": 149}
)

func ulongs(v ...uint64) []byte {
	var b []byte
	for _, x := range v {
		for i := range 8 {
			b = append(b, byte(x>>(8*i)))
		}
	}
	return b
}
