package hsmpool_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"hash"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/keyward/keyward/hsmpool"
)

// opensslVerify has the openssl program verify a DER signature of message under a SubjectPublicKeyInfo.
func opensslVerify(t *testing.T, spki, message, signature []byte, opts ...string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	args := append([]string{"dgst", "-sha256", "-keyform", "DER", "-verify", write("key", spki), "-signature", write("sig", signature)}, opts...)
	out, err := exec.Command("openssl", append(args, write("msg", message))...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Verified OK") {
		t.Errorf("openssl does not verify: %v\n%s", err, out)
	}
}

func derSignature(t *testing.T, rs []byte) []byte {
	t.Helper()
	if len(rs) != 64 {
		t.Fatalf("a signature of %d octets", len(rs))
	}
	b, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(rs[:32]), new(big.Int).SetBytes(rs[32:])})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// makeKey makes a key, wrapped or pinned.
func makeKey(t *testing.T, p *hsmpool.Pool, kt hsmpool.KeyType, u hsmpool.Usage, pinned bool) (*hsmpool.Key, []byte) {
	t.Helper()
	if !pinned {
		k, g := wrappedKey(t, p, kt, u)
		return k, g.PublicKey
	}
	id := []byte(fmt.Sprintf("id-%v-%d", kt, u))
	g, err := p.GeneratePinned(testContext(t), kt, u, id, "b")
	if err != nil {
		t.Fatal(err)
	}
	return &hsmpool.Key{ID: "pinned-" + string(id), Type: kt, Usage: u, Member: g.Member, ObjectID: g.ObjectID}, g.PublicKey
}

func testAllOps(t *testing.T, p *hsmpool.Pool) {
	const encrypt, sign = hsmpool.UseEncrypt, hsmpool.UseSign
	for _, pinned := range []bool{false, true} {
		for _, c := range []struct {
			t hsmpool.KeyType
			u hsmpool.Usage
		}{
			{hsmpool.AES128, encrypt}, {hsmpool.AES192, encrypt}, {hsmpool.AES256, encrypt},
			{hsmpool.RSA2048, encrypt}, {hsmpool.RSA2048, sign}, {hsmpool.RSA2048, encrypt | sign}, {hsmpool.RSA3072, sign},
			{hsmpool.P256, sign}, {hsmpool.Secp256k1, sign},
		} {
			if pinned && c.t == hsmpool.RSA3072 {
				c.t, c.u = hsmpool.RSA4096, encrypt|sign // one is enough: it takes seconds
			}
			t.Run(fmt.Sprintf("pinned=%v/%v/%d", pinned, c.t, c.u), func(t *testing.T) {
				k, spki := makeKey(t, p, c.t, c.u, pinned)
				testOps(t, p, k, spki)
				if pinned {
					n, err := p.DestroyPinned(testContext(t), k.Member, k.ObjectID)
					if err != nil || n == 0 {
						t.Errorf("DestroyPinned: %d, %v", n, err)
					}
					if n, err := p.DestroyPinned(testContext(t), k.Member, k.ObjectID); err != nil || n != 0 {
						t.Errorf("DestroyPinned again: %d, %v", n, err)
					}
					j := &hsmpool.Job{Op: hsmpool.SignECDSA, Key: k, In: make([]byte, 32)}
					switch {
					case c.t <= hsmpool.AES256:
						j = &hsmpool.Job{Op: hsmpool.EncryptGCM, Key: k, Nonce: make([]byte, 12)}
					case c.t <= hsmpool.RSA4096 && c.u&sign != 0:
						j.Op = hsmpool.SignPSSSHA256
					case c.t <= hsmpool.RSA4096:
						j = &hsmpool.Job{Op: hsmpool.DecryptOAEPSHA1, Key: k, In: make([]byte, 256)}
					}
					if err := p.Do(testContext(t), j); hsmpool.KindOf(err) != hsmpool.KindKeyMissing {
						t.Errorf("use of a destroyed key: %v", err)
					}
				}
			})
		}
	}
}

func testOps(t *testing.T, p *hsmpool.Pool, k *hsmpool.Key, spki []byte) {
	do := func(op hsmpool.Op, in, nonce, aad []byte) []byte {
		t.Helper()
		j := &hsmpool.Job{Op: op, Key: k, In: in, Nonce: nonce, AAD: aad}
		if err := p.Do(testContext(t), j); err != nil {
			t.Fatalf("%v: %v", op, err)
		}
		return j.Out
	}
	bad := func(op hsmpool.Op, in, nonce, aad []byte) {
		t.Helper()
		j := &hsmpool.Job{Op: op, Key: k, In: in, Nonce: nonce, AAD: aad}
		if err := p.Do(testContext(t), j); hsmpool.KindOf(err) != hsmpool.KindBadData || j.Out != nil {
			t.Errorf("%v of bad data: %v, out %x", op, err, j.Out)
		}
	}
	message := []byte("the message that is signed")
	digest := sha256.Sum256(message)
	if k.Usage&hsmpool.UseSign != 0 {
		switch k.Type {
		case hsmpool.P256, hsmpool.Secp256k1:
			for range 4 {
				opensslVerify(t, spki, message, derSignature(t, do(hsmpool.SignECDSA, digest[:], nil, nil)))
			}
		default:
			pub := rsaPublic(t, spki)
			for range 4 {
				sig := do(hsmpool.SignPKCS1SHA256, digest[:], nil, nil)
				if err := rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest[:], sig); err != nil {
					t.Error(err)
				}
				sig = do(hsmpool.SignPSSSHA256, digest[:], nil, nil)
				if err := rsa.VerifyPSS(pub, crypto.SHA256, digest[:], sig, &rsa.PSSOptions{SaltLength: 32}); err != nil {
					t.Error(err)
				}
			}
			opensslVerify(t, spki, message, do(hsmpool.SignPKCS1SHA256, digest[:], nil, nil))
			opensslVerify(t, spki, message, do(hsmpool.SignPSSSHA256, digest[:], nil, nil),
				"-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32")
		}
	}
	if k.Usage&hsmpool.UseEncrypt == 0 {
		return
	}
	if k.Type <= hsmpool.AES256 {
		nonce := make([]byte, 12)
		for _, n := range []int{0, 1, 15, 16, 17, 1024, 6144, 64 << 10} {
			for _, aad := range [][]byte{nil, []byte("aad")} {
				in := make([]byte, n)
				rand.Read(in)
				rand.Read(nonce)
				out := do(hsmpool.EncryptGCM, in, nonce, aad)
				if len(out) != n+16 {
					t.Fatalf("%d octets from %d", len(out), n)
				}
				if got := do(hsmpool.DecryptGCM, out, nonce, aad); !bytes.Equal(got, in) {
					t.Fatalf("a wrong decryption of %d octets", n)
				}
				bad(hsmpool.DecryptGCM, out, nonce, []byte("AAD"))
				out[len(out)/2] ^= 0x40
				bad(hsmpool.DecryptGCM, out, nonce, aad)
				bad(hsmpool.DecryptGCM, out[:len(out)-1], nonce, aad)
			}
		}
		return
	}
	pub := rsaPublic(t, spki)
	for _, c := range []struct {
		op   hsmpool.Op
		hash func() hash.Hash
		max  int
	}{{hsmpool.DecryptOAEPSHA1, sha1.New, pub.Size() - 42}, {hsmpool.DecryptOAEPSHA256, sha256.New, pub.Size() - 66}} {
		for _, n := range []int{0, 1, 32, c.max} {
			in := make([]byte, n)
			rand.Read(in)
			ct, err := rsa.EncryptOAEP(c.hash(), rand.Reader, pub, in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := do(c.op, ct, nil, nil); !bytes.Equal(got, in) {
				t.Errorf("%v of %d octets: wrong", c.op, n)
			}
			ct[len(ct)-1] ^= 1
			bad(c.op, ct, nil, nil)
			bad(c.op, ct[1:], nil, nil)
			bad(c.op, nil, nil, nil)
			bad(c.op, bytes.Repeat([]byte{0xff}, pub.Size()), nil, nil)
			bad(c.op, make([]byte, pub.Size()), nil, nil)
		}
		labelled, err := rsa.EncryptOAEP(c.hash(), rand.Reader, pub, []byte("x"), []byte("label"))
		if err != nil {
			t.Fatal(err)
		}
		bad(c.op, labelled, nil, nil)
	}
}

func rsaPublic(t *testing.T, spki []byte) *rsa.PublicKey {
	t.Helper()
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		t.Fatal(err)
	}
	return pub.(*rsa.PublicKey)
}

// importKey makes an extractable session object of plain key attributes and wraps it, as a key from elsewhere would be.
func importKey(t testing.TB, p *hsmpool.Pool, member string, kt hsmpool.KeyType, u hsmpool.Usage, a []*pkcs11.Attribute) *hsmpool.Key {
	t.Helper()
	k := &hsmpool.Key{ID: fmt.Sprintf("imported-%s-%d", t.Name(), importCount()), Type: kt, Usage: u}
	a = append(a, pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true))
	err := hsmpool.WithLogin(p, member, func(ctx *pkcs11.Ctx, s pkcs11.SessionHandle, _, wrap pkcs11.ObjectHandle) error {
		o, err := ctx.CreateObject(s, a)
		if err != nil {
			return err
		}
		k.Wrapped, err = ctx.WrapKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP_PAD, nil)}, wrap, o)
		if err != nil {
			return err
		}
		return ctx.DestroyObject(s, o)
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var imports struct {
	sync.Mutex
	n int
}

func importCount() int {
	imports.Lock()
	defer imports.Unlock()
	imports.n++
	return imports.n
}

// testKeysDiffer makes sure that the verifiers are not fooled: another key's signature does not verify.
func testKeysDiffer(t *testing.T, p *hsmpool.Pool) {
	ctx := testContext(t)
	var keys []*hsmpool.Key
	var pubs []*ecdsa.PublicKey
	for i := range 2 {
		g, err := p.Generate(ctx, hsmpool.P256, hsmpool.UseSign)
		if err != nil {
			t.Fatal(err)
		}
		pub, err := x509.ParsePKIXPublicKey(g.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		pubs = append(pubs, pub.(*ecdsa.PublicKey))
		keys = append(keys, &hsmpool.Key{ID: fmt.Sprint("k", i), Type: hsmpool.P256, Usage: hsmpool.UseSign, Wrapped: g.Wrapped})
	}
	digest := sha256.Sum256([]byte("x"))
	for i, k := range keys {
		j := &hsmpool.Job{Op: hsmpool.SignECDSA, Key: k, In: digest[:]}
		if err := p.Do(ctx, j); err != nil {
			t.Fatal(err)
		}
		der := derSignature(t, j.Out)
		if !ecdsa.VerifyASN1(pubs[i], digest[:], der) || ecdsa.VerifyASN1(pubs[1-i], digest[:], der) {
			t.Errorf("key %d does not sign as itself", i)
		}
	}
}
