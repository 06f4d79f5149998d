package kms

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	koblitz "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/mechanism"
)

// TestKeyUsesInHSM runs what needs HSMs.
func TestKeyUsesInHSM(t *testing.T) {
	withHSMs(t, []hsmTest{
		{"Signatures", testSignaturesBy},
		{"Decryptions", testDecryptionsBy},
		{"Modes", testModesBy},
		{"Rejection", testRejection},
		{"HSMLimits", testHSMLimits},
		{"WriterReads", testWriterReads},
		{"RawOfBoth", testRawOfBoth},
		{"GCMIsCounted", testGCMIsCounted},
	}...)
}

func drawn(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// user of one key.
type keyUser struct {
	*fixture
	use KeyUse
}

func (f *fixture) userOf(k kmswire.KeyMetadata) *keyUser {
	return &keyUser{f, KeyUse{KeyID: k.KeyID, VersionID: f.onlyVersion(k.KeyID)}}
}

func (u *keyUser) by(m *mechanism.Mechanism, in []byte) *KeyUse {
	use := u.use
	use.Mechanism, use.Input = m, in
	return &use
}

func (u *keyUser) sign(m *mechanism.Mechanism, in []byte) []byte {
	u.t.Helper()
	out, err := u.SignWith(context.Background(), user, u.by(m, in))
	if err != nil {
		u.t.Fatalf("%+v: %v", m, err)
	}
	// What is signed verifies here too, and nothing else does.
	for _, bad := range []bool{false, true} {
		use := u.by(m, in)
		use.Signature = bytes.Clone(out)
		if bad {
			use.Signature[len(out)-1] ^= 1
		}
		if ok, err := u.VerifyWith(context.Background(), user, use); err != nil || ok == bad {
			u.t.Errorf("%+v, changed %v: verified %v, %v", m, bad, ok, err)
		}
	}
	use := u.by(m, in)
	use.Signature = out[1:]
	if ok, err := u.VerifyWith(context.Background(), user, use); err != nil || ok {
		u.t.Errorf("%+v, cut: verified %v, %v", m, ok, err)
	}
	return out
}

func (u *keyUser) encrypt(m *mechanism.Mechanism, in []byte) []byte {
	u.t.Helper()
	out, err := u.EncryptWith(context.Background(), user, u.by(m, in))
	if err != nil {
		u.t.Fatalf("%+v: %v", m, err)
	}
	return out
}

func (u *keyUser) decrypt(m *mechanism.Mechanism, in []byte) []byte {
	u.t.Helper()
	out, err := u.DecryptWith(context.Background(), user, u.by(m, in))
	if err != nil {
		u.t.Fatalf("%+v: %v", m, err)
	}
	return out
}

// badCiphertext wants the one error of ciphertexts.
func (u *keyUser) badCiphertext(m *mechanism.Mechanism, in []byte) {
	u.t.Helper()
	out, err := u.DecryptWith(context.Background(), user, u.by(m, in))
	want := badCiphertext(&material{version: versionOf(u)})
	if e := AsError(err); out != nil || err == nil || e.Code != want.Code || e.Param != want.Param || e.Detail != want.Detail {
		u.t.Errorf("%+v and a bad ciphertext: %x, %v", m, out, err)
	}
}

func (u *keyUser) publicRSA() *rsa.PublicKey {
	u.t.Helper()
	pub, err := x509.ParsePKIXPublicKey(versionOf(u).PublicKey)
	if err != nil {
		u.t.Fatal(err)
	}
	return pub.(*rsa.PublicKey)
}

var plainPKCS1 = &mechanism.Mechanism{Kind: mechanism.RSAPKCS1}

func pssBy(hash, mgf crypto.Hash, salt int) *mechanism.Mechanism {
	return &mechanism.Mechanism{Kind: mechanism.RSAPSS, Hash: hash, MGF: mgf, Salt: salt}
}

// rsaPublic is the bare operation with a public key.
func rsaPublic(pub *rsa.PublicKey, in []byte) []byte {
	c := new(big.Int).Exp(new(big.Int).SetBytes(in), big.NewInt(int64(pub.E)), pub.N)
	return c.FillBytes(make([]byte, pub.Size()))
}

func testSignaturesBy(t *testing.T, f *fixture) {
	ctx := context.Background()
	for _, k := range []kind{software, wrapped, pinned} {
		u := f.userOf(f.create(k, kmswire.RSA2048, kmswire.SignVerify))
		pub := u.publicRSA()
		for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA224, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			digest := drawn(hash.Size())
			if err := rsa.VerifyPSS(pub, hash, digest, u.sign(pssBy(hash, hash, hash.Size()), digest), &rsa.PSSOptions{SaltLength: hash.Size()}); err != nil {
				t.Errorf("%s: PSS with %v: %v", k, hash, err)
			}
		}
		for _, n := range []int{1, 20, 245} {
			in := drawn(n)
			if err := rsa.VerifyPKCS1v15(pub, 0, in, u.sign(plainPKCS1, in)); err != nil {
				t.Errorf("%s: PKCS#1 v1.5 of %d octets: %v", k, n, err)
			}
		}
		in := append([]byte{0}, drawn(255)...)
		if !bytes.Equal(rsaPublic(pub, u.sign(rawRSA, in)), in) {
			t.Errorf("%s: a raw signature is not one", k)
		}
		// A token must not be asked for what it gives an error for that looks like its own; three of them would put it out of use.
		for range 4 {
			_, err := u.SignWith(ctx, user, u.by(rawRSA, bytes.Repeat([]byte{0xff}, 256)))
			wantCode(t, "a number above the modulus", err, InvalidParameter)
		}
		for what, c := range map[string]struct {
			by *mechanism.Mechanism
			n  int
		}{
			"nothing by PKCS#1": {plainPKCS1, 0}, "too much by PKCS#1": {plainPKCS1, 246}, "a short digest": {pssBy(crypto.SHA256, crypto.SHA256, 32), 31},
			"a short block": {rawRSA, 255}, "a long block": {rawRSA, 257},
		} {
			_, err := u.SignWith(ctx, user, u.by(c.by, make([]byte, c.n)))
			wantCode(t, k.String()+": "+what, err, InvalidParameter)
			_, err = u.VerifyWith(ctx, user, u.by(c.by, make([]byte, c.n)))
			wantCode(t, k.String()+": "+what+" to verify", err, InvalidParameter)
		}
		for what, by := range map[string]*mechanism.Mechanism{
			"too much salt": pssBy(crypto.SHA256, crypto.SHA256, 223), "less than none": pssBy(crypto.SHA256, crypto.SHA256, -1), "no hash": pssBy(0, crypto.SHA256, 0),
			"a strange hash": pssBy(crypto.MD5, crypto.SHA256, 0), "a hash that is none": pssBy(250, 250, 0), "an IV": {Kind: mechanism.RSAPKCS1, IV: []byte{1}},
			"a label": {Kind: mechanism.RSAPKCS1, Label: []byte{1}}, "a hash for PKCS#1": {Kind: mechanism.RSAPKCS1, Hash: crypto.SHA256}, "a tag": {Kind: mechanism.RSARaw, TagBits: 128},
		} {
			wantCode(t, k.String()+": "+what, u.MayUse(ctx, user, Sign, u.by(by, nil)), InvalidParameter)
		}
		// SoftHSM has no PSS with two hashes; other HSMs may. SHA-3 no HSM is asked for.
		mixed, sha3 := pssBy(crypto.SHA256, crypto.SHA1, 20), pssBy(crypto.SHA3_256, crypto.SHA3_256, 32)
		if k == software {
			opensslPSS(t, u, mixed)
			opensslPSS(t, u, sha3)
		} else {
			_, err := u.SignWith(ctx, user, u.by(mixed, make([]byte, 32)))
			wantCode(t, "two hashes", err, UnsupportedOperation)
			wantCode(t, "SHA-3", u.MayUse(ctx, user, Sign, u.by(sha3, nil)), UnsupportedOperation)
			if err := u.MayUse(ctx, user, Verify, u.by(sha3, nil)); err != nil {
				t.Errorf("SHA-3 to verify: %v", err) // needs no HSM
			}
		}
	}
	for _, k := range kinds {
		p256, k1 := f.userOf(f.create(k, kmswire.ECP256, "")), f.userOf(f.create(k, kmswire.ECP256K, ""))
		for _, n := range []int{1, 20, 28, 32, 48, 64} {
			digest := drawn(n)
			sig := p256.sign(&mechanism.Mechanism{Kind: mechanism.ECDSA}, digest)
			der, err := ecdsaDER(sig)
			if err != nil || len(sig) != 64 {
				t.Fatal(len(sig), err)
			}
			pub, err := x509.ParsePKIXPublicKey(versionOf(p256).PublicKey)
			if err != nil {
				t.Fatal(err)
			}
			if !ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), digest, der) {
				t.Errorf("%s: P-256 and a digest of %d octets", k, n)
			}
			sig = k1.sign(&mechanism.Mechanism{Kind: mechanism.ECDSA}, digest)
			spki := versionOf(k1).PublicKey
			point, err := secp256k1.ParsePubKey(spki[len(spki)-65:])
			if err != nil {
				t.Fatal(err)
			}
			var r, s secp256k1.ModNScalar
			r.SetByteSlice(sig[:32])
			s.SetByteSlice(sig[32:])
			if !koblitz.NewSignature(&r, &s).Verify(digest, point) {
				t.Errorf("%s: secp256k1 and a digest of %d octets", k, n)
			}
		}
		for _, n := range []int{0, 65} {
			_, err := p256.SignWith(ctx, user, p256.by(&mechanism.Mechanism{Kind: mechanism.ECDSA}, make([]byte, n)))
			wantCode(t, fmt.Sprint("a digest of ", n), err, InvalidParameter)
		}
	}
}

// versionOf is what the store has of a user's key.
func versionOf(u *keyUser) *keystore.Version {
	u.t.Helper()
	v, err := u.db.Version(context.Background(), u.use.KeyID, u.use.VersionID)
	if err != nil {
		u.t.Fatal(err)
	}
	return v
}

// opensslPSS has the openssl program verify a signature: Go knows PSS with one hash only, and none of SHA-3.
func opensslPSS(t *testing.T, u *keyUser, by *mechanism.Mechanism) {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	digest := drawn(by.Hash.Size())
	names := map[crypto.Hash]string{crypto.SHA1: "sha1", crypto.SHA256: "sha256", crypto.SHA3_256: "sha3-256"}
	out, err := exec.Command("openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", write("key", versionOf(u).PublicKey), "-in", write("in", digest),
		"-sigfile", write("sig", u.sign(by, digest)), "-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", "digest:"+names[by.Hash],
		"-pkeyopt", "rsa_mgf1_md:"+names[by.MGF], "-pkeyopt", fmt.Sprint("rsa_pss_saltlen:", by.Salt)).CombinedOutput()
	if err != nil {
		t.Errorf("openssl does not verify %+v: %v\n%s", by, err, out)
	}
}

func testDecryptionsBy(t *testing.T, f *fixture) {
	ctx := context.Background()
	for _, k := range []kind{software, wrapped, pinned} {
		u := f.userOf(f.create(k, kmswire.RSA2048, kmswire.EncryptDecrypt))
		pub := u.publicRSA()
		for _, c := range []struct {
			hash, mgf crypto.Hash
			label     string
		}{{crypto.SHA1, crypto.SHA1, ""}, {crypto.SHA256, crypto.SHA256, ""}, {crypto.SHA384, crypto.SHA384, "label"}, {crypto.SHA512, crypto.SHA1, ""}, {crypto.SHA1, crypto.SHA1, "label"}} {
			by := &mechanism.Mechanism{Kind: mechanism.RSAOAEP, Hash: c.hash, MGF: c.mgf, Label: []byte(c.label)}
			in := drawn(256 - 2*c.hash.Size() - 2)
			theirs, err := rsa.EncryptOAEPWithOptions(rand.Reader, pub, in, &rsa.OAEPOptions{Hash: c.hash, MGFHash: c.mgf, Label: []byte(c.label)})
			if err != nil {
				t.Fatal(err)
			}
			for _, ciphertext := range [][]byte{theirs, u.encrypt(by, in)} {
				if got := u.decrypt(by, ciphertext); !bytes.Equal(got, in) {
					t.Errorf("%s: OAEP %+v: wrong", k, c)
				}
			}
			theirs[200] ^= 1
			u.badCiphertext(by, theirs)
			u.badCiphertext(by, theirs[1:])
			u.badCiphertext(by, nil)
			_, err = u.EncryptWith(ctx, user, u.by(by, append(in, 0)))
			wantCode(t, k.String()+": one octet too many", err, InvalidParameter)
		}
		for _, n := range []int{0, 1, 48, 245} {
			in := drawn(n)
			//lint:ignore SA1019 what is tested
			theirs, err := rsa.EncryptPKCS1v15(rand.Reader, pub, in)
			if err != nil {
				t.Fatal(err)
			}
			for _, ciphertext := range [][]byte{theirs, u.encrypt(plainPKCS1, in)} {
				if got := u.decrypt(plainPKCS1, ciphertext); !bytes.Equal(got, in) {
					t.Errorf("%s: PKCS#1 v1.5 of %d octets: %x, want %x", k, n, got, in)
				}
			}
		}
		_, err := u.EncryptWith(ctx, user, u.by(plainPKCS1, make([]byte, 246)))
		wantCode(t, k.String()+": one octet too many", err, InvalidParameter)
		in := append([]byte{0, 0}, drawn(254)...)
		if ciphertext := u.encrypt(rawRSA, in); !bytes.Equal(ciphertext, rsaPublic(pub, in)) || !bytes.Equal(u.decrypt(rawRSA, ciphertext), in) {
			t.Errorf("%s: raw: wrong", k)
		}
		_, err = u.EncryptWith(ctx, user, u.by(rawRSA, bytes.Repeat([]byte{0xff}, 256)))
		wantCode(t, k.String()+": a number above the modulus", err, InvalidParameter)
		for _, by := range []*mechanism.Mechanism{rawRSA, plainPKCS1} {
			u.badCiphertext(by, bytes.Repeat([]byte{0xff}, 256))
			u.badCiphertext(by, make([]byte, 255))
		}
	}
}

// bring makes a key of material that the test knows.
func (f *fixture) bring(k kind, spec kmswire.KeySpec, usage kmswire.KeyUsage, m []byte) *keyUser {
	f.t.Helper()
	made, err := f.CreateTokenKey(context.Background(), root, &NewTokenKey{Instance: k.instance, Spec: spec, Usage: usage, Pinned: k == pinned, Material: bytes.Clone(m)})
	if err != nil {
		f.t.Fatal(err)
	}
	return &keyUser{f, KeyUse{KeyID: made.KeyID, VersionID: made.VersionID}}
}

func testModesBy(t *testing.T, f *fixture) {
	ctx := context.Background()
	secret := drawn(32)
	for _, c := range []struct {
		kind
		spec kmswire.KeySpec
		n    int
	}{{software, kmswire.AES256, 32}, {wrapped, kmswire.AES256, 32}, {wrapped, kmswire.AES128, 16}} {
		u := f.bring(c.kind, c.spec, kmswire.EncryptDecrypt, secret[:c.n])
		block, err := aes.NewCipher(secret[:c.n])
		if err != nil {
			t.Fatal(err)
		}
		same := func(by *mechanism.Mechanism, in, want []byte) {
			t.Helper()
			if got := u.encrypt(by, in); !bytes.Equal(got, want) {
				t.Errorf("%s, %+v, %d octets: encrypts wrongly", c.kind, by, len(in))
			}
			if got := u.decrypt(by, want); !bytes.Equal(got, in) {
				t.Errorf("%s, %+v, %d octets: decrypts wrongly", c.kind, by, len(in))
			}
		}
		for _, n := range []int{0, 16, 17, 1024, 64 << 10} {
			in, iv, out := drawn(n), drawn(16), make([]byte, n)
			cipher.NewCTR(block, iv).XORKeyStream(out, in)
			same(&mechanism.Mechanism{Kind: mechanism.AESCTR, IV: iv}, in, out)
			for tag := 12; tag <= 16; tag += 4 {
				gcm, err := cipher.NewGCMWithTagSize(block, tag)
				if err != nil {
					t.Fatal(err)
				}
				by := &mechanism.Mechanism{Kind: mechanism.AESGCM, IV: iv[:12], AAD: iv, TagBits: 8 * tag}
				sealed := gcm.Seal(nil, iv[:12], in, iv)
				same(by, in, sealed)
				sealed[len(sealed)-1] ^= 1
				u.badCiphertext(by, sealed)
				u.badCiphertext(by, sealed[:tag-1])
				own := *by
				own.IV = nil
				made := u.encrypt(&own, in)
				if got, err := gcm.Open(nil, made[:12], made[12:], iv); err != nil || !bytes.Equal(got, in) {
					t.Errorf("%s: GCM with an IV that was drawn: %v", c.kind, err)
				}
				if again := u.encrypt(&own, in); bytes.Equal(again[:12], made[:12]) {
					t.Error("the same IV twice")
				}
				wantCode(t, "to decrypt without an IV", u.MayUse(ctx, user, Decrypt, u.by(&own, nil)), InvalidParameter)
			}
			ecb, cbc := &mechanism.Mechanism{Kind: mechanism.AESECB}, &mechanism.Mechanism{Kind: mechanism.AESCBC, IV: iv}
			if n%16 != 0 {
				for _, by := range []*mechanism.Mechanism{ecb, cbc} {
					_, err := u.EncryptWith(ctx, user, u.by(by, in))
					wantCode(t, "half a block", err, InvalidParameter)
					u.badCiphertext(by, in)
				}
				continue
			}
			for i := 0; i < n; i += 16 {
				block.Encrypt(out[i:], in[i:])
			}
			same(ecb, in, out)
			cipher.NewCBCEncrypter(block, iv).CryptBlocks(out, in)
			same(cbc, in, out)
		}
		// The counter runs over.
		iv, in, out := bytes.Repeat([]byte{0xff}, 16), drawn(40), make([]byte, 40)
		cipher.NewCTR(block, iv).XORKeyStream(out, in)
		same(&mechanism.Mechanism{Kind: mechanism.AESCTR, IV: iv}, in, out)
		for what, by := range map[string]*mechanism.Mechanism{
			"no IV": {Kind: mechanism.AESCBC}, "a short IV": {Kind: mechanism.AESCTR, IV: iv[:12]}, "an IV for ECB": {Kind: mechanism.AESECB, IV: iv},
			"AAD for CTR": {Kind: mechanism.AESCTR, IV: iv, AAD: iv}, "no tag": {Kind: mechanism.AESGCM, IV: iv[:12]}, "a short tag": {Kind: mechanism.AESGCM, IV: iv[:12], TagBits: 88},
			"a long tag": {Kind: mechanism.AESGCM, IV: iv[:12], TagBits: 136}, "odd bits": {Kind: mechanism.AESGCM, IV: iv[:12], TagBits: 100},
			"a long IV": {Kind: mechanism.AESGCM, IV: make([]byte, 257), TagBits: 128}, "a hash": {Kind: mechanism.AESECB, Hash: crypto.SHA256, MGF: crypto.SHA256},
		} {
			wantCode(t, c.kind.String()+": "+what, u.MayUse(ctx, user, Encrypt, u.by(by, nil)), InvalidParameter)
		}
	}
}

// testHSMLimits has what a key in an HSM does not take and one in memory does.
func testHSMLimits(t *testing.T, f *fixture) {
	ctx := context.Background()
	soft, hard := f.userOf(f.create(software, kmswire.AES256, "")), f.userOf(f.create(wrapped, kmswire.AES256, ""))
	long := make([]byte, 64<<10+16)
	failed := func() (n uint64) {
		for _, s := range f.pool.Status() {
			n += s.Failed
		}
		return n
	}
	before := failed()
	for what, use := range map[string]struct {
		by *mechanism.Mechanism
		in []byte
	}{
		"a long IV":        {&mechanism.Mechanism{Kind: mechanism.AESGCM, IV: make([]byte, 16), TagBits: 128}, nil},
		"much AAD":         {&mechanism.Mechanism{Kind: mechanism.AESGCM, IV: make([]byte, 12), AAD: long, TagBits: 128}, nil},
		"much text":        {&mechanism.Mechanism{Kind: mechanism.AESGCM, IV: make([]byte, 12), TagBits: 128}, long},
		"many blocks":      {&mechanism.Mechanism{Kind: mechanism.AESECB}, long},
		"a long keystream": {&mechanism.Mechanism{Kind: mechanism.AESCTR, IV: make([]byte, 16)}, long},
	} {
		if _, err := soft.EncryptWith(ctx, user, soft.by(use.by, use.in)); err != nil {
			t.Errorf("%s, in memory: %v", what, err)
		}
		_, err := hard.EncryptWith(ctx, user, hard.by(use.by, use.in))
		wantCode(t, what, err, InvalidParameter)
	}
	hard.badCiphertext(&mechanism.Mechanism{Kind: mechanism.AESCTR, IV: make([]byte, 16)}, long)
	if n := failed() - before; n != 0 {
		t.Errorf("the HSMs were asked for %d of that", n)
	}
}

// testRejection has Bleichenbacher's question asked: bad padding has the answer, the event and the ledger of good padding, and one answer
// in each copy of the key.
func testRejection(t *testing.T, f *fixture) {
	ctx := context.Background()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der := privateDER(t, private)
	soft, again := f.bring(software, kmswire.RSA2048, kmswire.EncryptDecrypt, der), f.bring(software, kmswire.RSA2048, kmswire.EncryptDecrypt, der)
	hard := f.bring(wrapped, kmswire.RSA2048, kmswire.EncryptDecrypt, der)
	other := f.userOf(f.create(software, kmswire.RSA2048, kmswire.EncryptDecrypt))
	//lint:ignore SA1019 what is tested
	good, err := rsa.EncryptPKCS1v15(rand.Reader, &private.PublicKey, []byte("a session key"))
	if err != nil {
		t.Fatal(err)
	}
	lengths := map[int]bool{}
	for i := range 24 {
		em := append([]byte{0, byte(i % 4)}, bytes.Repeat([]byte{7}, 254)...) // no zero after the padding, and mostly no 2
		em[255] = byte(i)
		c := rsaPublic(&private.PublicKey, em)
		fake := soft.decrypt(plainPKCS1, c)
		if len(fake) > 245 || bytes.Contains(em, fake) && len(fake) > 3 {
			t.Errorf("%x", fake)
		}
		lengths[len(fake)] = true
		if i < 6 {
			for name, u := range map[string]*keyUser{"again": soft, "another copy": again, "in an HSM": hard} {
				if got := u.decrypt(plainPKCS1, c); !bytes.Equal(got, fake) {
					t.Errorf("%s: another message for the same ciphertext", name)
				}
			}
		}
	}
	same := 0
	for i := range 8 { // of one ciphertext the messages of both may be empty by chance
		c := make([]byte, 256)
		c[255] = byte(i)
		if bytes.Equal(other.decrypt(plainPKCS1, c), soft.decrypt(plainPKCS1, c)) {
			same++
		}
	}
	if same == 8 {
		t.Error("another key has the same messages")
	}
	if len(lengths) < 8 {
		t.Errorf("fakes have %d lengths", len(lengths))
	}
	// A restart changes nothing.
	if got, err := f.start().DecryptWith(ctx, user, soft.by(plainPKCS1, make([]byte, 256))); err != nil || !bytes.Equal(got, soft.decrypt(plainPKCS1, make([]byte, 256))) {
		t.Errorf("after a restart: %x, %v", got, err)
	}
	for _, u := range []*keyUser{soft, hard} {
		var events [2]AuditEvent
		for i, c := range [][]byte{good, make([]byte, 256)} {
			n := f.events.len()
			u.decrypt(plainPKCS1, c)
			all := f.events.since(n)
			if len(all) != 1 {
				t.Fatalf("%d events", len(all))
			}
			events[i] = all[0]
			events[i].Time, events[i].Duration = events[0].Time, 0
			events[0].Duration = 0
		}
		if events[0] != events[1] || events[0].Outcome != "ok" || events[0].uses() != 1 {
			t.Errorf("good padding %+v\nbad padding %+v", events[0], events[1])
		}
	}
}

// testGCMIsCounted holds that messages by AES-GCM count together with those of the API.
func testGCMIsCounted(t *testing.T, f *fixture) {
	ctx := context.Background()
	drawn := &mechanism.Mechanism{Kind: mechanism.AESGCM, TagBits: 128}
	for _, k := range []kind{software, wrapped} {
		u := f.userOf(f.create(k, kmswire.AES256, ""))
		u.encrypt(drawn, nil)
		if n, err := f.db.ReserveCalls(ctx, u.use.VersionID, 0); err != nil || n != minBlock {
			t.Errorf("%s: %d reserved, %v", k, n, err)
		}
		if _, err := f.db.ReserveCalls(ctx, u.use.VersionID, maxCalls); err != nil {
			t.Fatal(err)
		}
		f.materials.drop(u.use.VersionID)
		_, err := u.EncryptWith(ctx, user, u.by(drawn, nil))
		wantCode(t, k.String()+": after the last message", err, LimitExceeded)
		// With an IV of the caller's a software key counts nothing: the API's blobs are under other keys. In an HSM they are not.
		chosen := &mechanism.Mechanism{Kind: mechanism.AESGCM, IV: make([]byte, 12), TagBits: 128}
		_, err = u.EncryptWith(ctx, user, u.by(chosen, nil))
		if k == software && err != nil || k == wrapped && !errors.Is(err, LimitExceeded) {
			t.Errorf("%s: with an IV: %v", k, err)
		}
		if _, err := u.DecryptWith(ctx, user, u.by(chosen, make([]byte, 16))); !errors.Is(err, InvalidParameter) {
			t.Errorf("%s: decryption is counted: %v", k, err)
		}
	}
}

// Who may not, what is not there, and what the key is not for.
func TestKeyUseRefusals(t *testing.T) {
	ctx := context.Background()
	f := newPolicyFixture(t)
	rsa := f.userOf(f.create(software, kmswire.RSA2048, kmswire.SignVerify))
	open := f.userOf(f.create(software, kmswire.RSA2048, kmswire.EncryptDecrypt))
	ec := f.userOf(f.create(software, kmswire.ECP256, ""))
	sym := f.userOf(f.create(software, kmswire.AES256, ""))
	off := f.userOf(f.create(software, kmswire.ECP256, ""))
	if _, err := f.DisableKey(ctx, root, &kmswire.DisableKeyRequest{KeyID: off.use.KeyID}); err != nil {
		t.Fatal(err)
	}
	doomed := f.userOf(f.create(software, kmswire.ECP256, ""))
	if _, err := f.ScheduleKeyDeletion(ctx, root, &kmswire.ScheduleKeyDeletionRequest{KeyID: doomed.use.KeyID, PendingWindowInDays: 7}); err != nil {
		t.Fatal(err)
	}
	shared := f.create(software, kmswire.AES256, "")
	f.setPolicy(shared.KeyID, keyPolicyText(statement("Allow", "acs:ram::"+testAccount+":*", "kms:*", ""), statement("Allow", "acs:ram::"+otherAccount+":root", "kms:Encrypt", "")))
	sharedVersion := f.onlyVersion(shared.KeyID)
	if _, err := f.Encrypt(ctx, other, &kmswire.EncryptRequest{KeyID: shared.Arn, Plaintext: []byte("x")}); err != nil {
		t.Fatal(err) // it is shared indeed
	}
	ecdsa, ownIV := &mechanism.Mechanism{Kind: mechanism.ECDSA}, &mechanism.Mechanism{Kind: mechanism.AESGCM, TagBits: 128}
	digest := sha256.Sum256(nil)
	for _, c := range []struct {
		what  string
		actor *Actor
		verb  Verb
		use   KeyUse
		want  Code
	}{
		{"good", user, Sign, *ec.by(ecdsa, digest[:]), pass},
		{"nobody", nil, Sign, *ec.by(ecdsa, digest[:]), Denied},
		{"no mechanism", user, Sign, *ec.by(nil, digest[:]), UnsupportedOperation},
		{"a mechanism of no kind", user, Sign, *ec.by(&mechanism.Mechanism{}, digest[:]), UnsupportedOperation},
		{"a kind that nobody knows", user, Sign, *ec.by(&mechanism.Mechanism{Kind: 200}, digest[:]), UnsupportedOperation},
		{"to encrypt by ECDSA", user, Encrypt, *ec.by(ecdsa, digest[:]), UnsupportedOperation},
		{"to sign by GCM", user, Sign, *sym.by(anyUse(mechanism.AESGCM), digest[:]), UnsupportedOperation},
		{"a verb of none", user, 9, *ec.by(ecdsa, digest[:]), Internal},
		{"another family", user, Sign, *rsa.by(ecdsa, digest[:]), OperationRejected},
		{"RSA with a curve", user, Sign, *ec.by(plainPKCS1, digest[:]), OperationRejected},
		{"AES with RSA", user, Encrypt, *open.by(anyUse(mechanism.AESECB), make([]byte, 16)), OperationRejected},
		{"RSA with AES", user, Encrypt, *sym.by(plainPKCS1, make([]byte, 16)), OperationRejected},
		{"another usage, to decrypt", user, Decrypt, *rsa.by(plainPKCS1, make([]byte, 256)), OperationRejected},
		{"another usage, to encrypt", user, Encrypt, *rsa.by(plainPKCS1, digest[:]), OperationRejected},
		{"another usage, to sign", user, Sign, *open.by(plainPKCS1, digest[:]), OperationRejected},
		{"another usage, to verify", user, Verify, *open.by(plainPKCS1, digest[:]), OperationRejected},
		{"a disabled key", user, Sign, *off.by(ecdsa, digest[:]), KeyDisabled},
		{"a disabled key, to verify", user, Verify, *off.by(ecdsa, digest[:]), KeyDisabled},
		{"a key that goes", user, Sign, *doomed.by(ecdsa, digest[:]), KeyPendingDeletion},
		{"no key", user, Sign, KeyUse{Mechanism: ecdsa, Input: digest[:]}, KeyNotFound},
		{"no such key", user, Sign, KeyUse{KeyID: "key-x", VersionID: "key-x-1", Mechanism: ecdsa, Input: digest[:]}, KeyNotFound},
		{"an alias", user, Sign, KeyUse{KeyID: "alias/x", VersionID: ec.use.VersionID, Mechanism: ecdsa, Input: digest[:]}, KeyNotFound},
		{"no version", user, Sign, KeyUse{KeyID: ec.use.KeyID, Mechanism: ecdsa, Input: digest[:]}, VersionNotFound},
		{"a version of another key", user, Sign, KeyUse{KeyID: ec.use.KeyID, VersionID: off.use.VersionID, Mechanism: ecdsa, Input: digest[:]}, VersionNotFound},
		// Not even one that is shared: tokens have the keys of their own account.
		{"another account", other, Encrypt, KeyUse{KeyID: shared.KeyID, VersionID: sharedVersion, Mechanism: ownIV, Input: digest[:]}, KeyNotFound},
		{"another account, by ARN", other, Encrypt, KeyUse{KeyID: shared.Arn, VersionID: sharedVersion, Mechanism: ownIV, Input: digest[:]}, KeyNotFound},
	} {
		may := f.MayUse(ctx, c.actor, c.verb, &c.use)
		var err error
		switch c.verb {
		case Sign:
			_, err = f.SignWith(ctx, c.actor, &c.use)
		case Verify:
			_, err = f.VerifyWith(ctx, c.actor, &c.use)
		case Encrypt:
			_, err = f.EncryptWith(ctx, c.actor, &c.use)
		case Decrypt:
			_, err = f.DecryptWith(ctx, c.actor, &c.use)
		default:
			err = may
		}
		for _, err := range []error{may, err} {
			if c.want == pass && err != nil || c.want != pass && !errors.Is(err, c.want) {
				t.Errorf("%s: %v", c.what, err)
			}
		}
	}
}

// What the audit and the ledger have of uses: a use one event, a refusal too, a question none, and later parts none either.
func TestKeyUseEvents(t *testing.T) {
	ctx := context.Background()
	f := newPolicyFixture(t)
	rsa, sym := f.userOf(f.create(software, kmswire.RSA2048, kmswire.SignVerify)), f.userOf(f.create(software, kmswire.AES256, ""))
	expect := func(what string, do func() error, failure Code, want ...AuditEvent) {
		t.Helper()
		n := f.events.len()
		if err := do(); failure == pass && err != nil || failure != pass && !errors.Is(err, failure) {
			t.Errorf("%s: %v", what, err)
		}
		all := f.events.since(n)
		if len(all) != len(want) {
			t.Errorf("%s: %d events, want %d", what, len(all), len(want))
			return
		}
		for i, e := range all {
			w := want[i]
			if e.Action != w.Action || e.Detail != w.Detail || e.Outcome != w.Outcome || e.KeyID != w.KeyID || e.VersionID != w.VersionID || e.Actor != user {
				t.Errorf("%s: %+v, want %+v", what, e, w)
			}
		}
	}
	ok := func(u *keyUser, action, detail string) AuditEvent {
		return AuditEvent{Action: action, Detail: detail, Outcome: "ok", KeyID: u.use.KeyID, VersionID: u.use.VersionID}
	}
	sign := func(u *keyUser, by *mechanism.Mechanism, n int) func() error {
		return func() error { _, err := f.SignWith(ctx, user, u.by(by, make([]byte, n))); return err }
	}
	expect("PSS", sign(rsa, pssBy(crypto.SHA384, crypto.SHA384, 48), 48), pass, ok(rsa, "AsymmetricSign", "RSA-PSS-SHA-384"))
	expect("two hashes", sign(rsa, pssBy(crypto.SHA256, crypto.SHA1, 48), 32), pass, ok(rsa, "AsymmetricSign", "RSA-PSS-SHA-256-MGF1-SHA-1"))
	expect("SHA-3", sign(rsa, pssBy(crypto.SHA3_512, crypto.SHA3_512, 48), 64), pass, ok(rsa, "AsymmetricSign", "RSA-PSS-SHA3-512"))
	expect("PKCS#1", sign(rsa, plainPKCS1, 32), pass, ok(rsa, "AsymmetricSign", "RSA-PKCS1"))
	expect("a wrong signature", func() error {
		use := rsa.by(plainPKCS1, make([]byte, 32))
		use.Signature = make([]byte, 256)
		good, err := f.VerifyWith(ctx, user, use)
		if good {
			t.Error("it verifies")
		}
		return err
	}, pass, ok(rsa, "AsymmetricVerify", "RSA-PKCS1"))
	for action, do := range map[string]func(context.Context, *Actor, *KeyUse) ([]byte, error){"Encrypt": f.EncryptWith, "Decrypt": f.DecryptWith} {
		cbc := sym.by(anyUse(mechanism.AESCBC), make([]byte, 32))
		use := func() error { _, err := do(ctx, user, cbc); return err }
		expect("CBC", use, pass, ok(sym, action, "AES-CBC"))
		cbc.Continued = true
		expect("a later part", use, pass)
		cbc.Input = cbc.Input[:31]
		failed := ok(sym, action, "31 octets are no whole blocks, or too many")
		if action == "Decrypt" {
			failed.Detail = "it does not decrypt with " + sym.use.VersionID
		}
		failed.Outcome = InvalidParameter.Error()
		expect("a later part that is bad", use, InvalidParameter, failed)
	}
	expect("a question", func() error { return f.MayUse(ctx, user, Sign, rsa.by(plainPKCS1, nil)) }, pass)
	refused := ok(rsa, "AsymmetricDecrypt", rsa.use.KeyID+" is a SIGN/VERIFY key")
	refused.Outcome = OperationRejected.Error()
	expect("a question with no for an answer", func() error { return f.MayUse(ctx, user, Decrypt, rsa.by(plainPKCS1, nil)) }, OperationRejected, refused)

	// No event, no answer; and nobody is told less for it.
	f.events.setFail(errors.New("the disk is full"))
	out, err := f.DecryptWith(ctx, user, sym.by(anyUse(mechanism.AESECB), make([]byte, 16)))
	if wantCode(t, "without an audit", err, AuditUnavailable); out != nil {
		t.Errorf("%x", out)
	}
	f.events.setFail(nil)

	f.saveUse()
	for u, want := range map[*keyUser]uint64{rsa: 5, sym: 2} {
		all, err := f.db.Usage(ctx, u.use.KeyID, 10)
		if err != nil || len(all) != 1 || all[0].Calls != want {
			t.Errorf("the ledger has %+v, want %d uses, %v", all, want, err)
		}
	}
}

// A use is one operation of the instance's quota, whatever it does, and a question none.
func TestKeyUseQuota(t *testing.T) {
	ctx := context.Background()
	s := newStoreFixture(t, Instance{ID: "kst-limited", Type: SoftwareInstance, QPS: 3})
	k := s.make("kst-limited", root)
	versions, err := s.ListKeyVersions(ctx, root, &kmswire.ListKeyVersionsRequest{KeyID: k.KeyID})
	if err != nil {
		t.Fatal(err)
	}
	use := &KeyUse{KeyID: k.KeyID, VersionID: versions.KeyVersions.KeyVersion[0].KeyVersionID, Mechanism: anyUse(mechanism.AESCTR), Input: make([]byte, 1024)}
	for range 9 {
		if err := s.MayUse(ctx, root, Encrypt, use); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		use.Continued = i > 0
		if _, err := s.EncryptWith(ctx, root, use); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.EncryptWith(ctx, root, use)
	wantCode(t, "a later part beyond the quota", err, Throttled)
	if err := s.MayUse(ctx, root, Encrypt, use); err != nil {
		t.Errorf("a question when the quota is used up: %v", err)
	}
}
