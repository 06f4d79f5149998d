package sessionkey

import (
	"bytes"
	"crypto"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"hash"
	"io/fs"
	"slices"
	"testing"

	"github.com/c2sp/wycheproof"

	"github.com/keyward/keyward/kms/mechanism"
)

// vectors is a file of Wycheproof, as far as it is read here.
type vectors struct {
	TestGroups []struct {
		TagSize   int    `json:"tagSize"`
		Curve     string `json:"curve"`
		Sha       string `json:"sha"`
		PublicKey struct {
			Uncompressed string `json:"uncompressed"`
		} `json:"publicKey"`
		Tests []vector `json:"tests"`
	} `json:"testGroups"`
}

type vector struct {
	ID      int      `json:"tcId"`
	Comment string   `json:"comment"`
	Flags   []string `json:"flags"`
	Result  string   `json:"result"` // valid, invalid or acceptable
	Key     octets   `json:"key"`
	Msg     octets   `json:"msg"`
	Tag     octets   `json:"tag"`
	CT      octets   `json:"ct"`
	Sig     octets   `json:"sig"`
	Public  octets   `json:"public"`
	Private octets   `json:"private"`
	Shared  octets   `json:"shared"`
}

type octets []byte

func (o *octets) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	*o = b
	return err
}

func readVectors(t *testing.T, name string) *vectors {
	t.Helper()
	data, err := fs.ReadFile(wycheproof.TestVectors, name+"_test.json")
	if err != nil {
		t.Fatal(err)
	}
	var f vectors
	if err := json.Unmarshal(data, &f); err != nil {
		t.Fatal(name, err)
	}
	return &f
}

// judge checks a yes or no against what the vector wants. "acceptable" may go either way.
func judge(t *testing.T, v *vector, got bool) {
	t.Helper()
	if v.Result == "valid" && !got || v.Result == "invalid" && got {
		t.Errorf("%d (%s %s): %v, want %s", v.ID, v.Comment, v.Flags, got, v.Result)
	}
}

func TestWycheproofMACs(t *testing.T) {
	macs := map[string]func(k *Secret) (hash.Hash, error){
		"aes_cmac": func(k *Secret) (hash.Hash, error) { return k.CMAC() },
	}
	for name, h := range map[string]crypto.Hash{
		"hmac_sha1": crypto.SHA1, "hmac_sha224": crypto.SHA224, "hmac_sha256": crypto.SHA256, "hmac_sha384": crypto.SHA384, "hmac_sha512": crypto.SHA512,
		"hmac_sha512_224": crypto.SHA512_224, "hmac_sha512_256": crypto.SHA512_256,
		"hmac_sha3_224": crypto.SHA3_224, "hmac_sha3_256": crypto.SHA3_256, "hmac_sha3_384": crypto.SHA3_384, "hmac_sha3_512": crypto.SHA3_512,
	} {
		macs[name] = func(k *Secret) (hash.Hash, error) { return k.HMAC(h) }
	}
	for name, start := range macs {
		t.Run(name, func(t *testing.T) {
			kind := Generic
			if name == "aes_cmac" {
				kind = AES
			}
			for _, g := range readVectors(t, name).TestGroups {
				for _, v := range g.Tests {
					k, err := NewSecret(kind, v.Key)
					if kind == AES && !slices.Contains([]int{16, 24, 32}, len(v.Key)) || len(v.Key) == 0 {
						if err != ErrSize {
							t.Errorf("%d: key of %d octets: %v", v.ID, len(v.Key), err)
						}
						continue
					}
					if err != nil {
						t.Fatal(v.ID, err)
					}
					mac, err := start(k)
					k.Close() // what is started goes on
					if err != nil {
						t.Fatal(v.ID, err)
					}
					for part := range slices.Chunk([]byte(v.Msg), 7) {
						mac.Write(part)
						mac.Sum(nil) // changes nothing
					}
					judge(t, &v, subtle.ConstantTimeCompare(mac.Sum(nil)[:g.TagSize/8], v.Tag) == 1)
					mac.Reset()
					mac.Write(v.Msg)
					judge(t, &v, subtle.ConstantTimeCompare(mac.Sum(nil)[:g.TagSize/8], v.Tag) == 1)
				}
			}
		})
	}
}

func TestWycheproofKeyWrap(t *testing.T) {
	for name, padded := range map[string]bool{"aes_wrap": false, "aes_kwp": true} {
		t.Run(name, func(t *testing.T) {
			for _, g := range readVectors(t, name).TestGroups {
				for _, v := range g.Tests {
					k, err := NewSecret(AES, v.Key)
					if err != nil {
						t.Fatal(v.ID, err)
					}
					got, err := k.Unwrap(padded, v.CT)
					judge(t, &v, err == nil && bytes.Equal(got, v.Msg))
					if err != nil && (err != ErrDecrypt || got != nil) {
						t.Errorf("%d: %v", v.ID, err)
					}
					again, err := k.Wrap(padded, v.Msg)
					if v.Result == "valid" && (err != nil || !bytes.Equal(again, v.CT)) {
						t.Errorf("%d: wrapped: %x, %v", v.ID, again, err)
					}
				}
			}
		})
	}
}

// The vectors of P-256, P-384 and P-521 give points, those of secp256k1 SubjectPublicKeyInfo.
func TestWycheproofECDH(t *testing.T) {
	for name, curve := range map[string]Curve{"ecdh_secp256r1_ecpoint": P256, "ecdh_secp384r1_ecpoint": P384, "ecdh_secp521r1_ecpoint": P521, "ecdh_secp256k1": Secp256k1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys := map[string]*Private{}
			for _, g := range readVectors(t, name).TestGroups {
				for _, v := range g.Tests {
					k := keys[string(v.Private)]
					if k == nil {
						var err error
						if k, err = NewECPrivate(curve, v.Private, nil); err != nil {
							t.Fatal(v.ID, err)
						}
						keys[string(v.Private)] = k
					}
					point := []byte(v.Public)
					if curve == Secp256k1 {
						public, err := ParsePublic(v.Public)
						if err != nil {
							judge(t, &v, false)
							continue
						}
						point = public.Point()
						public.Close()
					}
					got, err := k.ECDH(point, 0, nil, 0)
					if slices.Contains(v.Flags, "CompressedPoint") || slices.Contains(v.Flags, "CompressedPublic") {
						if err != ErrMalformed {
							t.Errorf("%d: a compressed point: %v", v.ID, err)
						}
						continue
					}
					judge(t, &v, err == nil && bytes.Equal(got, v.Shared))
					if err != nil && err != ErrMalformed {
						t.Errorf("%d: %v", v.ID, err)
					}
				}
			}
			for _, k := range keys {
				k.Close()
			}
		})
	}
}

func TestWycheproofECDSA(t *testing.T) {
	for name, curve := range map[string]Curve{"ecdsa_secp384r1_sha384_p1363": P384, "ecdsa_secp384r1_sha512_p1363": P384, "ecdsa_secp521r1_sha512_p1363": P521,
		"ecdsa_secp256k1_sha512_p1363": Secp256k1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, g := range readVectors(t, name).TestGroups {
				point, err := hex.DecodeString(g.PublicKey.Uncompressed)
				if err != nil {
					t.Fatal(err)
				}
				k, err := NewECPublic(curve, point)
				if err != nil {
					t.Fatal(err)
				}
				h := map[string]crypto.Hash{"SHA-384": crypto.SHA384, "SHA-512": crypto.SHA512}[g.Sha]
				for _, v := range g.Tests {
					d := h.New()
					d.Write(v.Msg)
					ok, err := k.VerifyBy(&mechanism.Mechanism{Kind: mechanism.ECDSA}, d.Sum(nil), v.Sig)
					if err != nil {
						t.Errorf("%d: %v", v.ID, err)
					}
					judge(t, &v, ok)
				}
				k.Close()
			}
		})
	}
}
