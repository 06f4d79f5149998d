package hsmpool_test

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/x509"
	"fmt"
	"math/big"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	koblitz "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"github.com/miekg/pkcs11"

	"github.com/keyward/keyward/hsmpool"
)

// allHashes are those that a Job may name.
var allHashes = []crypto.Hash{crypto.SHA1, crypto.SHA224, crypto.SHA256, crypto.SHA384, crypto.SHA512}

// digestInfos are what PKCS#1 v1.5 puts before a digest (RFC 8017 §9.2, note 1).
var digestInfos = map[crypto.Hash][]byte{
	crypto.SHA1:   {0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14},
	crypto.SHA384: {0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0x04, 0x30},
}

func drawn(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// must does a job that has to go well.
func must(t *testing.T, p *hsmpool.Pool, j *hsmpool.Job) []byte {
	t.Helper()
	if err := p.Do(testContext(t), j); err != nil {
		t.Fatalf("%v: %v", j.Op, err)
	}
	return j.Out
}

// refused does a job that has to fail.
func refused(t *testing.T, p *hsmpool.Pool, j *hsmpool.Job, want hsmpool.Kind) {
	t.Helper()
	if err := p.Do(testContext(t), j); hsmpool.KindOf(err) != want || err == nil || j.Out != nil {
		t.Errorf("%v: %v, want %v", j.Op, err, want)
	}
}

// testChoices does what has more choices than the API, and holds it against Go's cryptography.
func testChoices(t *testing.T, p *hsmpool.Pool) {
	sign, spki := wrappedKey(t, p, hsmpool.RSA2048, hsmpool.UseSign)
	testRSASignatures(t, p, sign, rsaPublic(t, spki.PublicKey))
	open, spki := wrappedKey(t, p, hsmpool.RSA2048, hsmpool.UseEncrypt)
	testRSADecryptions(t, p, open, rsaPublic(t, spki.PublicKey))
	testDigests(t, p)
	k, _ := wrappedKey(t, p, hsmpool.AES192, hsmpool.UseEncrypt)
	testModes(t, p, k, nil)
	// Nothing of it was held against the members.
	for _, s := range p.Status() {
		if s.State != hsmpool.StateUp || s.Restarts != 0 {
			t.Errorf("%s: %+v", s.Name, s)
		}
	}
}

func testRSASignatures(t *testing.T, p *hsmpool.Pool, k *hsmpool.Key, pub *rsa.PublicKey) {
	for hash, info := range digestInfos {
		digest := drawn(hash.Size())
		sig := must(t, p, &hsmpool.Job{Op: hsmpool.SignPKCS1, Key: k, In: append(bytes.Clone(info), digest...)})
		if err := rsa.VerifyPKCS1v15(pub, hash, digest, sig); err != nil {
			t.Errorf("PKCS#1 v1.5 with %v: %v", hash, err)
		}
	}
	for _, n := range []int{1, pub.Size() - 11} {
		in := drawn(n)
		sig := must(t, p, &hsmpool.Job{Op: hsmpool.SignPKCS1, Key: k, In: in})
		if err := rsa.VerifyPKCS1v15(pub, 0, in, sig); err != nil {
			t.Errorf("PKCS#1 v1.5 of %d octets: %v", n, err)
		}
	}
	for _, hash := range allHashes {
		for _, salt := range []int{0, hash.Size(), pub.Size() - hash.Size() - 2} {
			digest := drawn(hash.Size())
			sig := must(t, p, &hsmpool.Job{Op: hsmpool.SignPSS, Key: k, In: digest, Hash: hash, MGF: hash, Salt: salt})
			opts := &rsa.PSSOptions{SaltLength: salt}
			if salt == 0 {
				opts.SaltLength = rsa.PSSSaltLengthAuto // 0 is that
			}
			if err := rsa.VerifyPSS(pub, hash, digest, sig, opts); err != nil {
				t.Errorf("PSS with %v and a salt of %d octets: %v", hash, salt, err)
			}
		}
	}
	// SoftHSM has no PSS with two hashes, and that is not the caller's mistake.
	for range 4 {
		refused(t, p, &hsmpool.Job{Op: hsmpool.SignPSS, Key: k, In: drawn(32), Hash: crypto.SHA256, MGF: crypto.SHA1, Salt: 32}, hsmpool.KindUnsupported)
	}
	refused(t, p, &hsmpool.Job{Op: hsmpool.SignPSS, Key: k, In: drawn(32), Hash: crypto.SHA3_256, MGF: crypto.SHA3_256, Salt: 32}, hsmpool.KindUnsupported)
	refused(t, p, &hsmpool.Job{Op: hsmpool.SignPSS, Key: k, In: drawn(31), Hash: crypto.SHA256, MGF: crypto.SHA256, Salt: 32}, hsmpool.KindInternal)

	in := drawn(pub.Size())
	in[0] = 0
	sig := must(t, p, &hsmpool.Job{Op: hsmpool.SignRaw, Key: k, In: in})
	if !bytes.Equal(rsaRaw(pub, sig), in) {
		t.Error("a raw signature is not one")
	}
}

// rsaRaw is the bare operation with a public key.
func rsaRaw(pub *rsa.PublicKey, in []byte) []byte {
	c := new(big.Int).Exp(new(big.Int).SetBytes(in), big.NewInt(int64(pub.E)), pub.N)
	return c.FillBytes(make([]byte, pub.Size()))
}

func testRSADecryptions(t *testing.T, p *hsmpool.Pool, k *hsmpool.Key, pub *rsa.PublicKey) {
	for _, hash := range allHashes {
		for _, mgf := range []crypto.Hash{hash, crypto.SHA1, crypto.SHA384} {
			for _, label := range [][]byte{nil, []byte("label")} {
				in := drawn(pub.Size() - 2*hash.Size() - 2)
				c, err := rsa.EncryptOAEPWithOptions(rand.Reader, pub, in, &rsa.OAEPOptions{Hash: hash, MGFHash: mgf, Label: label})
				if err != nil {
					t.Fatal(err)
				}
				j := hsmpool.Job{Op: hsmpool.DecryptOAEP, Key: k, In: c, Hash: hash, MGF: mgf, Label: label}
				if got := must(t, p, &j); !bytes.Equal(got, in) {
					t.Errorf("OAEP with %v, %v and label %q: wrong", hash, mgf, label)
				}
				j.Label = []byte("another")
				refused(t, p, &j, hsmpool.KindBadData)
				j.Label, j.In = label, bytes.Clone(c)
				j.In[9] ^= 1
				j.In[0] = 0
				refused(t, p, &j, hsmpool.KindBadData)
			}
		}
	}
	for _, first := range []byte{0, 1} { // 0: a module may take zeros off
		in := drawn(pub.Size())
		in[0], in[1] = 0, first
		if got := must(t, p, &hsmpool.Job{Op: hsmpool.DecryptRaw, Key: k, In: rsaRaw(pub, in)}); !bytes.Equal(got, in) {
			t.Error("a raw decryption is not one")
		}
	}
	// A number that is no ciphertext is bad data, and nothing that a member is blamed for.
	for range 4 {
		refused(t, p, &hsmpool.Job{Op: hsmpool.DecryptRaw, Key: k, In: bytes.Repeat([]byte{0xff}, pub.Size())}, hsmpool.KindBadData)
	}
	refused(t, p, &hsmpool.Job{Op: hsmpool.DecryptRaw, Key: k, In: make([]byte, pub.Size()-1)}, hsmpool.KindBadData)
	refused(t, p, &hsmpool.Job{Op: hsmpool.DecryptOAEP, Key: k, In: make([]byte, pub.Size()), Hash: crypto.MD5, MGF: crypto.SHA1}, hsmpool.KindUnsupported)
}

// testDigests signs digests of all lengths: the leftmost 32 octets count, and what is shorter is a smaller number.
func testDigests(t *testing.T, p *hsmpool.Pool) {
	p256, made := wrappedKey(t, p, hsmpool.P256, hsmpool.UseSign)
	pub, err := x509.ParsePKIXPublicKey(made.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	k1, made := wrappedKey(t, p, hsmpool.Secp256k1, hsmpool.UseSign)
	point, err := secp256k1.ParsePubKey(made.PublicKey[len(made.PublicKey)-65:])
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 20, 28, 31, 32, 33, 48, 64} {
		digest := drawn(n)
		sig := must(t, p, &hsmpool.Job{Op: hsmpool.SignECDSA, Key: p256, In: digest})
		if !ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), digest, derSignature(t, sig)) {
			t.Errorf("P-256 and a digest of %d octets", n)
		}
		sig = must(t, p, &hsmpool.Job{Op: hsmpool.SignECDSA, Key: k1, In: digest})
		var r, s secp256k1.ModNScalar
		r.SetByteSlice(sig[:32])
		s.SetByteSlice(sig[32:])
		if !koblitz.NewSignature(&r, &s).Verify(digest, point) {
			t.Errorf("secp256k1 and a digest of %d octets", n)
		}
	}
}

// testModes uses a key in all modes of AES. Without block the modes are held against ECB with the same key.
func testModes(t *testing.T, p *hsmpool.Pool, k *hsmpool.Key, block cipher.Block) {
	if block == nil {
		block = hsmBlock{t, p, k}
	}
	for _, n := range []int{16, 32, 160} {
		in, iv := drawn(n), drawn(16)
		want := make([]byte, n)
		for i := 0; i < n; i += 16 {
			block.Encrypt(want[i:], in[i:])
		}
		both := func(encrypt, decrypt hsmpool.Op, iv []byte) {
			t.Helper()
			got := must(t, p, &hsmpool.Job{Op: encrypt, Key: k, In: in, Nonce: iv})
			if !bytes.Equal(got, want) {
				t.Errorf("%v of %d octets: wrong", encrypt, n)
			}
			if got := must(t, p, &hsmpool.Job{Op: decrypt, Key: k, In: got, Nonce: iv}); !bytes.Equal(got, in) {
				t.Errorf("%v of %d octets: wrong", decrypt, n)
			}
		}
		both(hsmpool.EncryptECB, hsmpool.DecryptECB, nil)
		cipher.NewCBCEncrypter(block, iv).CryptBlocks(want, in)
		both(hsmpool.EncryptCBC, hsmpool.DecryptCBC, iv)
	}
	last := bytes.Repeat([]byte{0xff}, 16)
	before := append(bytes.Repeat([]byte{0xff}, 15), 0xfd)
	carry := append(make([]byte, 8), bytes.Repeat([]byte{0xff}, 8)...)
	for _, n := range []int{1, 15, 16, 17, 48, 49, 100} {
		for _, iv := range [][]byte{drawn(16), make([]byte, 16), last, before, carry} {
			in, want := drawn(n), make([]byte, n)
			cipher.NewCTR(block, iv).XORKeyStream(want, in)
			got := must(t, p, &hsmpool.Job{Op: hsmpool.CryptCTR, Key: k, In: in, Nonce: iv})
			if !bytes.Equal(got, want) {
				t.Errorf("%d octets by counter %x: wrong", n, iv)
			}
		}
	}
	in := drawn(64 << 10) // the most that a job takes
	for encrypt, decrypt := range map[hsmpool.Op]hsmpool.Op{hsmpool.EncryptECB: hsmpool.DecryptECB, hsmpool.EncryptCBC: hsmpool.DecryptCBC,
		hsmpool.CryptCTR: hsmpool.CryptCTR} {
		iv := last
		if encrypt == hsmpool.EncryptECB {
			iv = nil
		}
		out := must(t, p, &hsmpool.Job{Op: encrypt, Key: k, In: in, Nonce: iv})
		if got := must(t, p, &hsmpool.Job{Op: decrypt, Key: k, In: out, Nonce: iv}); !bytes.Equal(got, in) {
			t.Errorf("%v of 64 KiB: wrong", encrypt)
		}
		refused(t, p, &hsmpool.Job{Op: encrypt, Key: k, In: append(in, drawn(16)...), Nonce: iv}, hsmpool.KindInternal)
	}
	refused(t, p, &hsmpool.Job{Op: hsmpool.EncryptECB, Key: k, In: in[:17]}, hsmpool.KindInternal)
	refused(t, p, &hsmpool.Job{Op: hsmpool.DecryptCBC, Key: k, In: in[:17], Nonce: last}, hsmpool.KindBadData)
	refused(t, p, &hsmpool.Job{Op: hsmpool.DecryptCBC, Key: k, In: in[:16], Nonce: last[:15]}, hsmpool.KindInternal)

	nonce, aad := drawn(12), []byte("aad")
	whole := must(t, p, &hsmpool.Job{Op: hsmpool.EncryptGCM, Key: k, In: in, Nonce: nonce, AAD: aad})
	for _, bits := range []int{96, 104, 112, 120, 128} {
		job := hsmpool.Job{Op: hsmpool.EncryptGCM, Key: k, In: in, Nonce: nonce, AAD: aad, TagBits: bits}
		out := must(t, p, &job)
		if !bytes.Equal(out, whole[:len(in)+bits/8]) {
			t.Errorf("a tag of %d bits is not the beginning of one of 128", bits)
		}
		job.Op, job.In = hsmpool.DecryptGCM, out
		if got := must(t, p, &job); !bytes.Equal(got, in) {
			t.Errorf("a message with a tag of %d bits: wrong", bits)
		}
		job.In = bytes.Clone(out)
		job.In[len(out)-1] ^= 1
		refused(t, p, &job, hsmpool.KindBadData)
		job.In = out[:bits/8-1]
		refused(t, p, &job, hsmpool.KindBadData)
	}
	refused(t, p, &hsmpool.Job{Op: hsmpool.EncryptGCM, Key: k, In: in, Nonce: nonce, TagBits: 64}, hsmpool.KindInternal)
}

// hsmBlock is a key of an HSM as a cipher.Block.
type hsmBlock struct {
	t *testing.T
	p *hsmpool.Pool
	k *hsmpool.Key
}

func (b hsmBlock) BlockSize() int { return 16 }

func (b hsmBlock) Encrypt(dst, src []byte) {
	copy(dst, must(b.t, b.p, &hsmpool.Job{Op: hsmpool.EncryptECB, Key: b.k, In: bytes.Clone(src[:16])}))
}

func (b hsmBlock) Decrypt(dst, src []byte) {
	copy(dst, must(b.t, b.p, &hsmpool.Job{Op: hsmpool.DecryptECB, Key: b.k, In: bytes.Clone(src[:16])}))
}

// testModesAgainstGo brings a plain key in, so that Go's own AES can look at what the HSM makes.
func testModesAgainstGo(t *testing.T, p *hsmpool.Pool) {
	for size, kt := range map[int]hsmpool.KeyType{16: hsmpool.AES128, 24: hsmpool.AES192, 32: hsmpool.AES256} {
		raw := drawn(size)
		k := importKey(t, p, "a", kt, hsmpool.UseEncrypt, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
			pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE, raw),
		})
		block, err := aes.NewCipher(raw)
		if err != nil {
			t.Fatal(err)
		}
		testModes(t, p, k, block)
		for tag := 12; tag <= 16; tag++ {
			gcm, err := cipher.NewGCMWithTagSize(block, tag)
			if err != nil {
				t.Fatal(err)
			}
			nonce, aad, in := drawn(12), drawn(20), drawn(100)
			got := must(t, p, &hsmpool.Job{Op: hsmpool.EncryptGCM, Key: k, In: in, Nonce: nonce, AAD: aad, TagBits: 8 * tag})
			if want := gcm.Seal(nil, nonce, in, aad); subtle.ConstantTimeCompare(got, want) != 1 {
				t.Errorf("AES-%d-GCM with a tag of %d octets: %x, want %x", 8*size, tag, got, want)
			}
		}
	}
}

// TestLongestHash keeps the room for digests as large as the longest hash.
func TestLongestHash(t *testing.T) {
	for _, h := range allHashes {
		if h.Size() > sha512.Size || !h.Available() {
			t.Error(fmt.Sprint(h))
		}
	}
}
