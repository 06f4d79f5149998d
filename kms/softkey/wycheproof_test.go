package softkey

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	_ "crypto/sha3"
	_ "crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"

	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/kms/rsapad"
)

// Every vector of the kinds that keyward does is either run or counted here under the reason why not. When a new release
// of Wycheproof brings vectors, these numbers say where to look.
var wycheproofRun = map[string]int{
	"AES-GCM":                               307,
	"RSAES-OAEP decrypt":                    134,
	"RSAES-OAEP decrypt by mechanism":       913,
	"RSAES-PKCS1-v1_5 decrypt":              201,
	"RSASSA-PSS verify":                     325,
	"RSASSA-PSS verify by mechanism":        1626,
	"RSASSA-PKCS1-v1_5 verify":              776,
	"RSASSA-PKCS1-v1_5 verify by mechanism": 5426,
	"RSASSA-PKCS1-v1_5 sign":                24,
	"ECDSA P-256 verify":                    484,
	"ECDSA secp256r1 verify by mechanism":   594,
	"ECDSA secp256k1 verify":                937,
	"ECDSA secp256k1 verify by mechanism":   574,
	"SubjectPublicKeyInfo EC_P256":          612,
	"SubjectPublicKeyInfo EC_P256K":         752,
}

var wycheproofSkipped = map[string]int{
	otherHash:   6308,
	otherSize:   1026,
	otherCurve:  21850,
	otherIV:     9,
	pssKey:      1091,
	threePrimes: 110,
	noPrimes:    3,
	bitcoinRule: 2,
}

// Reasons for skipping. Those marked "refused" are checked: softkey must not take the key.
const (
	otherHash   = "digest is not SHA-256, and the signature in DER; or is none of SHA-1, SHA-2 and SHA-3"
	otherSize   = "RSA modulus is not of 2048, 3072 or 4096 bits: refused"
	otherCurve  = "curve is neither P-256 nor secp256k1: refused"
	otherIV     = "GCM IV is empty, or over 256 octets: refused"
	pssKey      = "key has the RSASSA-PSS identifier: refused"
	threePrimes = "private key has three primes: refused"
	noPrimes    = "private key has only the modulus and the exponents: refused"
	bitcoinRule = "refusal of s over n/2 is Bitcoin's rule"
)

type vectorFile struct {
	Algorithm     string        `json:"algorithm"`
	NumberOfTests int           `json:"numberOfTests"`
	TestGroups    []vectorGroup `json:"testGroups"`
}

type vectorGroup struct {
	Type            string          `json:"type"`
	KeySize         int             `json:"keySize"`
	IVSize          int             `json:"ivSize"`
	TagSize         int             `json:"tagSize"`
	Sha             string          `json:"sha"`
	MgfSha          string          `json:"mgfSha"`
	SaltLen         int             `json:"sLen"`
	PublicKeyDER    string          `json:"publicKeyDer"`
	PrivateKeyPKCS8 string          `json:"privateKeyPkcs8"`
	PublicKey       json.RawMessage `json:"publicKey"`
	Curve           string          `json:"curve"`
	Tests           []vector        `json:"tests"`
}

type vector struct {
	ID      int      `json:"tcId"`
	Comment string   `json:"comment"`
	Flags   []string `json:"flags"`
	Result  string   `json:"result"` // valid, invalid or acceptable
	Key     string   `json:"key"`
	IV      string   `json:"iv"`
	AAD     string   `json:"aad"`
	Msg     string   `json:"msg"`
	CT      string   `json:"ct"`
	Tag     string   `json:"tag"`
	Label   string   `json:"label"`
	Sig     string   `json:"sig"`
	Public  string   `json:"public"`
}

// wycheproofTally counts what was done, by name or reason.
type wycheproofTally struct {
	*testing.T
	file         string
	run, skipped map[string]int
}

func TestWycheproof(t *testing.T) {
	tally := &wycheproofTally{T: t, run: map[string]int{}, skipped: map[string]int{}}
	files, err := fs.Glob(wycheproof.TestVectors, "*.json")
	if err != nil || len(files) == 0 {
		t.Fatal(err, len(files))
	}
	for _, name := range files {
		if !wycheproofFile(name) {
			continue
		}
		tally.file = name
		var f vectorFile
		data, err := fs.ReadFile(wycheproof.TestVectors, name)
		if err == nil {
			err = json.Unmarshal(data, &f)
		}
		if err != nil {
			t.Fatal(name, err)
		}
		for i := range f.TestGroups {
			tally.group(&f.TestGroups[i])
		}
	}
	compareCounts(t, "run", tally.run, wycheproofRun)
	compareCounts(t, "skipped", tally.skipped, wycheproofSkipped)
}

// wycheproofFile says whether a file has vectors of a kind that keyward does.
func wycheproofFile(name string) bool {
	for _, prefix := range []string{"aes_gcm_test", "rsa_oaep_", "rsa_three_primes_oaep_", "rsa_pss_", "rsa_signature_", "ecdsa_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	if name == "ecdh_secp256r1_test.json" || name == "ecdh_secp256k1_test.json" { // for their public keys
		return true
	}
	return strings.HasPrefix(name, "rsa_pkcs1_")
}

func compareCounts(t *testing.T, what string, got, want map[string]int) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(got)) {
		t.Logf("%s: %5d %s", what, got[name], name)
	}
	if !maps.Equal(got, want) {
		t.Errorf("%s: the counts have changed: got\n%#v\nwant\n%#v", what, got, want)
	}
}

func (t *wycheproofTally) group(g *vectorGroup) {
	skip := func(reason string) { t.skipped[reason] += len(g.Tests) }
	ourSize := g.KeySize == 2048 || g.KeySize == 3072 || g.KeySize == 4096
	switch g.Type {
	case "AeadTest":
		t.aesGCM(g)
	case "RsaesOaepDecrypt":
		switch {
		case strings.HasPrefix(t.file, "rsa_three_primes"):
			t.refusePrivate(g)
			skip(threePrimes)
			return
		case !ourSize:
			t.refusePrivate(g)
			skip(otherSize)
			return
		}
		t.oaep(g, rsaSpec(g.KeySize))
	case "RsaesPkcs1Decrypt":
		t.pkcs1Decrypt(g, rsaSpec(g.KeySize))
	case "RsassaPssWithParametersVerify":
		t.refusePublic(g)
		skip(pssKey)
	case "RsassaPssVerify", "RsassaPkcs1Verify", "RsassaPkcs1Generate":
		switch {
		case !ourSize:
			t.refusePublic(g)
			skip(otherSize)
		case hashes[g.Sha] == 0 || g.Type == "RsassaPssVerify" && hashes[g.MgfSha] == 0:
			skip(otherHash)
		case g.Type == "RsassaPssVerify":
			m := &mechanism.Mechanism{Kind: mechanism.RSAPSS, Hash: hashes[g.Sha], MGF: hashes[g.MgfSha], Salt: g.SaltLen}
			t.verifyBy(g, m, hashes[g.Sha], "RSASSA-PSS verify by mechanism", func(digest []byte) []byte { return digest })
			if g.Sha == "SHA-256" && g.MgfSha == "SHA-256" && g.SaltLen == 32 {
				t.verify(g, rsaSpec(g.KeySize), kmswire.RSAPSSSHA256, "RSASSA-PSS verify")
			}
		case g.Type == "RsassaPkcs1Verify":
			m := &mechanism.Mechanism{Kind: mechanism.RSAPKCS1}
			t.verifyBy(g, m, hashes[g.Sha], "RSASSA-PKCS1-v1_5 verify by mechanism", func(digest []byte) []byte { return digestInfo(t.T, hashes[g.Sha], digest) })
			if g.Sha == "SHA-256" {
				t.verify(g, rsaSpec(g.KeySize), kmswire.RSAPKCS1SHA256, "RSASSA-PKCS1-v1_5 verify")
			}
		case g.Sha != "SHA-256":
			skip(otherHash)
		case slices.Contains(g.Tests[0].Flags, "SmallPublicKey"):
			t.refusePrivate(g)
			skip(noPrimes)
		default:
			t.sign(g, rsaSpec(g.KeySize))
		}
	case "EcdsaVerify", "EcdsaBitcoinVerify", "EcdsaP1363Verify":
		var key struct{ Curve string }
		if err := json.Unmarshal(g.PublicKey, &key); err != nil {
			t.Fatal(t.file, err)
		}
		spec := curveSpecs[key.Curve]
		switch {
		case spec == "":
			t.refusePublic(g)
			skip(otherCurve)
		case g.Type == "EcdsaP1363Verify" && hashes[g.Sha] == 0:
			skip(otherHash)
		case g.Type == "EcdsaP1363Verify":
			m := &mechanism.Mechanism{Kind: mechanism.ECDSA}
			t.verifyBy(g, m, hashes[g.Sha], "ECDSA "+key.Curve+" verify by mechanism", func(digest []byte) []byte { return digest })
		case g.Sha != "SHA-256":
			skip(otherHash)
		case spec == kmswire.ECP256:
			t.verify(g, spec, kmswire.ECDSASHA256, "ECDSA P-256 verify")
		default:
			t.verify(g, spec, kmswire.ECDSASHA256, "ECDSA secp256k1 verify")
		}
	case "EcdhTest":
		t.publicKeys(g)
	default:
		t.Errorf("%s: unknown type %s", t.file, g.Type)
	}
}

func rsaSpec(bits int) kmswire.KeySpec {
	return map[int]kmswire.KeySpec{2048: kmswire.RSA2048, 3072: kmswire.RSA3072, 4096: kmswire.RSA4096}[bits]
}

var curveSpecs = map[string]kmswire.KeySpec{"secp256r1": kmswire.ECP256, "secp256k1": kmswire.ECP256K}

// publicKeys takes the public keys of ECDH vectors. Only the valid ones may be read as keys of the curve: "acceptable"
// ones are compressed, or not DER, or spell the curve out.
func (t *wycheproofTally) publicKeys(g *vectorGroup) {
	spec := curveSpecs[g.Curve]
	for i := range g.Tests {
		v := &g.Tests[i]
		der := t.octets(v.Public)
		key, err := ParsePublicKey(der)
		got := err == nil && key.Spec() == spec
		if got != (v.Result == "valid") || err != nil && err != ErrMalformed {
			t.Errorf("%s %d (%s %s): %v, %v", t.file, v.ID, v.Comment, v.Flags, got, err)
		}
		if got && !bytes.Equal(key.Marshal(), der) {
			t.Errorf("%s %d: written differently", t.file, v.ID)
		}
		t.run["SubjectPublicKeyInfo "+string(spec)]++
	}
}

func (t *wycheproofTally) octets(s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(t.file, err)
	}
	return b
}

func (t *wycheproofTally) refusePublic(g *vectorGroup) {
	if g.PublicKeyDER == "" {
		return
	}
	if _, err := ParsePublicKey(t.octets(g.PublicKeyDER)); err != ErrMalformed {
		t.Errorf("%s: key of %d bits: %v", t.file, g.KeySize, err)
	}
}

func (t *wycheproofTally) refusePrivate(g *vectorGroup) {
	for spec := range specs {
		if _, err := ParsePrivateKey(spec, t.octets(g.PrivateKeyPKCS8)); err != ErrMalformed {
			t.Errorf("%s: key of %d bits as %s: %v", t.file, g.KeySize, spec, err)
		}
	}
}

// judge checks a yes or no against what the vector wants. "acceptable" may go either way.
func (t *wycheproofTally) judge(v *vector, got bool) {
	t.Helper()
	if v.Result == "valid" && !got || v.Result == "invalid" && got {
		t.Errorf("%s %d (%s %s): %v, want %s", t.file, v.ID, v.Comment, v.Flags, got, v.Result)
	}
}

// hashes by Wycheproof's names.
var hashes = map[string]crypto.Hash{
	"SHA-1": crypto.SHA1, "SHA-224": crypto.SHA224, "SHA-256": crypto.SHA256, "SHA-384": crypto.SHA384, "SHA-512": crypto.SHA512,
	"SHA-512/224": crypto.SHA512_224, "SHA-512/256": crypto.SHA512_256,
	"SHA3-224": crypto.SHA3_224, "SHA3-256": crypto.SHA3_256, "SHA3-384": crypto.SHA3_384, "SHA3-512": crypto.SHA3_512,
}

func (t *wycheproofTally) aesGCM(g *vectorGroup) {
	for i := range g.Tests {
		v := &g.Tests[i]
		key, err := NewBareAES(t.octets(v.Key))
		if err != nil {
			t.Fatal(err)
		}
		m := &mechanism.Mechanism{Kind: mechanism.AESGCM, IV: t.octets(v.IV), AAD: t.octets(v.AAD), TagBits: g.TagSize}
		msg, sealed := t.octets(v.Msg), t.octets(v.CT+v.Tag)
		_, err = key.DecryptBy(m, sealed)
		if len(m.IV) == 0 || len(m.IV) > MaxIV {
			if err != ErrAlgorithm {
				t.Errorf("%s %d: IV of %d octets: %v", t.file, v.ID, len(m.IV), err)
			}
			t.skipped[otherIV]++
			continue
		}
		t.judge(v, err == nil)
		if v.Result == "valid" {
			for bits := 96; bits <= 128; bits += 8 { // a shorter tag is the beginning of the longer
				m.TagBits = bits
				short := sealed[:len(sealed)-16+bits/8]
				again, err := key.EncryptBy(m, msg)
				if err != nil || !bytes.Equal(again, short) {
					t.Errorf("%s %d: tag of %d: %v, %x", t.file, v.ID, bits, err, again)
				}
				got, err := key.DecryptBy(m, short)
				if err != nil || !bytes.Equal(got, msg) {
					t.Errorf("%s %d: tag of %d: %v, %x", t.file, v.ID, bits, err, got)
				}
				wrong := slices.Clone(short)
				wrong[len(wrong)-1] ^= 1
				if got, err := key.DecryptBy(m, wrong); err != ErrDecrypt || got != nil {
					t.Errorf("%s %d: wrong tag of %d: %v, %x", t.file, v.ID, bits, err, got)
				}
			}
		}
		t.run["AES-GCM"]++
	}
}

func (t *wycheproofTally) oaep(g *vectorGroup, spec kmswire.KeySpec) {
	key, err := ParsePrivateKey(spec, t.octets(g.PrivateKeyPKCS8))
	if err != nil {
		t.Errorf("%s: %d: %v", t.file, g.Tests[0].ID, err)
		return
	}
	defer key.Close()
	alg := map[string]kmswire.Algorithm{"SHA-1": kmswire.RSAOAEPSHA1, "SHA-256": kmswire.RSAOAEPSHA256}[g.Sha]
	for i := range g.Tests {
		v := &g.Tests[i]
		m := &mechanism.Mechanism{Kind: mechanism.RSAOAEP, Hash: hashes[g.Sha], MGF: hashes[g.MgfSha], Label: t.octets(v.Label)}
		got, err := key.DecryptBy(m, t.octets(v.CT))
		t.judge(v, err == nil)
		if err == nil && !bytes.Equal(got, t.octets(v.Msg)) {
			t.Errorf("%s %d: other octets", t.file, v.ID)
		}
		if err != nil && err != ErrDecrypt {
			t.Errorf("%s %d: %v", t.file, v.ID, err)
		}
		t.run["RSAES-OAEP decrypt by mechanism"]++
		if v.Label == "" && g.Sha == g.MgfSha && alg != "" {
			same, sameErr := key.Decrypt(alg, t.octets(v.CT))
			if sameErr != err || !bytes.Equal(same, got) {
				t.Errorf("%s %d: another result by the API's algorithm: %v", t.file, v.ID, sameErr)
			}
			t.run["RSAES-OAEP decrypt"]++
		}
	}
}

// pkcs1Decrypt is the raw operation and then rsapad. Whatever is wrong with the padding gives a message like any other.
func (t *wycheproofTally) pkcs1Decrypt(g *vectorGroup, spec kmswire.KeySpec) {
	key, err := ParsePrivateKey(spec, t.octets(g.PrivateKeyPKCS8))
	if err != nil {
		t.Errorf("%s: %d: %v", t.file, g.Tests[0].ID, err)
		return
	}
	defer key.Close()
	for i := range g.Tests {
		v := &g.Tests[i]
		c := t.octets(v.CT)
		em, err := key.DecryptBy(&mechanism.Mechanism{Kind: mechanism.RSARaw}, c)
		if visible := slices.Contains(v.Flags, "InvalidCiphertextFormat"); visible || err != nil {
			if !visible || err != ErrDecrypt {
				t.Errorf("%s %d (%s): %v", t.file, v.ID, v.Comment, err)
			}
		} else if got := bytes.Equal(rsapad.Unpad(em, c, []byte("secret")), t.octets(v.Msg)); got != (v.Result == "valid") {
			t.Errorf("%s %d (%s): %v", t.file, v.ID, v.Comment, got)
		}
		t.run["RSAES-PKCS1-v1_5 decrypt"]++
	}
}

// digestInfo wraps a digest as RFC 8017 section 9.2 has it.
func digestInfo(t *testing.T, h crypto.Hash, digest []byte) []byte {
	t.Helper()
	nist := map[crypto.Hash]int{crypto.SHA256: 1, crypto.SHA384: 2, crypto.SHA512: 3, crypto.SHA224: 4, crypto.SHA512_224: 5,
		crypto.SHA512_256: 6, crypto.SHA3_224: 7, crypto.SHA3_256: 8, crypto.SHA3_384: 9, crypto.SHA3_512: 10}
	oid := asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26} // SHA-1
	if n := nist[h]; n != 0 {
		oid = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, n}
	}
	der, err := asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}{pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: asn1.NullRawValue}, digest})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (t *wycheproofTally) verifyBy(g *vectorGroup, m *mechanism.Mechanism, h crypto.Hash, name string, input func(digest []byte) []byte) {
	der := g.PublicKeyDER
	key, err := ParsePublicKey(t.octets(der))
	if err != nil {
		t.Errorf("%s: %d: %v", t.file, g.Tests[0].ID, err)
		return
	}
	defer key.Close()
	for i := range g.Tests {
		v := &g.Tests[i]
		d := h.New()
		d.Write(t.octets(v.Msg))
		ok, err := key.VerifyBy(m, input(d.Sum(nil)), t.octets(v.Sig))
		if err != nil {
			t.Errorf("%s %d: %v", t.file, v.ID, err)
		}
		t.judge(v, ok)
		t.run[name]++
	}
}

func (t *wycheproofTally) verify(g *vectorGroup, spec kmswire.KeySpec, alg kmswire.Algorithm, name string) {
	key, err := ParsePublicKey(t.octets(g.PublicKeyDER))
	if err != nil || key.Spec() != spec {
		t.Errorf("%s: %d: key is %v, %v", t.file, g.Tests[0].ID, key, err)
		return
	}
	for i := range g.Tests {
		v := &g.Tests[i]
		if g.Type == "EcdsaBitcoinVerify" && v.Result == "invalid" && strings.Contains(strings.ToLower(v.Comment), "malleability") {
			t.skipped[bitcoinRule]++
			continue
		}
		digest := sha256.Sum256(t.octets(v.Msg))
		ok, err := key.Verify(alg, digest[:], t.octets(v.Sig))
		if err != nil {
			t.Errorf("%s %d: %v", t.file, v.ID, err)
		}
		t.judge(v, ok)
		t.run[name]++
	}
}

// sign makes the signatures again: PKCS #1 v1.5 has no randomness.
func (t *wycheproofTally) sign(g *vectorGroup, spec kmswire.KeySpec) {
	key, err := ParsePrivateKey(spec, t.octets(g.PrivateKeyPKCS8))
	if err != nil {
		t.Errorf("%s: %d: %v", t.file, g.Tests[0].ID, err)
		return
	}
	defer key.Close()
	for i := range g.Tests {
		v := &g.Tests[i]
		digest := sha256.Sum256(t.octets(v.Msg))
		got, err := key.Sign(kmswire.RSAPKCS1SHA256, digest[:])
		if err != nil || !bytes.Equal(got, t.octets(v.Sig)) {
			t.Errorf("%s %d: %v, other octets", t.file, v.ID, err)
		}
		t.run["RSASSA-PKCS1-v1_5 sign"]++
	}
}
