package kms

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// TestSecondaryUsage runs what a second usage needs HSMs for.
func TestSecondaryUsage(t *testing.T) {
	withHSMs(t, []hsmTest{
		{"EveryUse", testSecondaryEveryUse},
		{"Imported", testSecondaryImported},
		{"Services", testSecondaryServices},
		{"Refusals", testSecondaryRefusals},
		{"OneUsageStaysOne", testOneUsageStaysOne},
	}...)
}

// createBoth makes a key that signs and decrypts.
func (f *fixture) createBoth(k kind, spec kmswire.KeySpec, first kmswire.KeyUsage, origin string) kmswire.KeyMetadata {
	f.t.Helper()
	second := kmswire.EncryptDecrypt
	if first == second {
		second = kmswire.SignVerify
	}
	r, err := f.CreateKey(context.Background(), root, &kmswire.CreateKeyRequest{
		DKMSInstanceID: k.instance, KeyStorageMechanism: k.storage, KeySpec: spec, KeyUsage: first, SecondaryKeyUsage: second, Origin: origin,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	if m := r.KeyMetadata; m.KeyUsage != first || m.SecondaryKeyUsage != second {
		f.t.Fatalf("made for %s and %s, want %s and %s", m.KeyUsage, m.SecondaryKeyUsage, first, second)
	}
	if d := f.describe(r.KeyMetadata.KeyID); d != r.KeyMetadata {
		f.t.Errorf("DescribeKey tells %+v", d)
	}
	return r.KeyMetadata
}

// useBoth goes through every action that uses an asymmetric key.
func (f *fixture) useBoth(what string, a *Actor, keyID, version string) {
	f.t.Helper()
	ctx := context.Background()
	digest := bytes.Repeat([]byte{7}, 32)
	for _, alg := range rsaSign {
		s, err := f.AsymmetricSign(ctx, a, &kmswire.AsymmetricSignRequest{KeyID: keyID, KeyVersionID: version, Algorithm: alg, Digest: digest})
		if err != nil {
			f.t.Fatalf("%s: %v", what, err)
		}
		v, err := f.AsymmetricVerify(ctx, a, &kmswire.AsymmetricVerifyRequest{KeyID: keyID, KeyVersionID: version, Algorithm: alg, Digest: digest, Value: s.Value})
		if err != nil || !v.Value {
			f.t.Errorf("%s: %v", what, err)
		}
		if _, err := f.GenerateCsr(ctx, a, &kmswire.GenerateCsrRequest{KeyID: keyID, KeyVersionID: version, Algorithm: alg, CommonName: "a"}); err != nil {
			f.t.Errorf("%s: %v", what, err)
		}
	}
	batch, err := f.BatchSign(ctx, a, &kmswire.BatchSignRequest{KeyID: keyID, KeyVersionID: version, Algorithm: kmswire.RSAPSSSHA256, Items: []kmswire.BatchSignItem{{Digest: digest}}})
	if err != nil || len(batch.Items) != 1 || batch.Items[0].Value == nil {
		f.t.Errorf("%s: %+v %v", what, batch, err)
	}
	for _, alg := range rsaEncrypt {
		e, err := f.AsymmetricEncrypt(ctx, a, &kmswire.AsymmetricEncryptRequest{KeyID: keyID, KeyVersionID: version, Algorithm: alg, Plaintext: []byte("hello")})
		if err != nil {
			f.t.Fatalf("%s: %v", what, err)
		}
		d, err := f.AsymmetricDecrypt(ctx, a, &kmswire.AsymmetricDecryptRequest{KeyID: keyID, KeyVersionID: version, Algorithm: alg, CiphertextBlob: e.CiphertextBlob})
		if err != nil || string(d.Plaintext) != "hello" {
			f.t.Errorf("%s: %v", what, err)
		}
	}
}

func testSecondaryEveryUse(t *testing.T, f *fixture) {
	ctx := context.Background()
	for _, k := range []kind{wrapped, pinned} {
		for _, first := range []kmswire.KeyUsage{kmswire.SignVerify, kmswire.EncryptDecrypt} {
			m := f.createBoth(k, kmswire.RSA2048, first, "")
			version := f.onlyVersion(m.KeyID)
			what := k.String() + " " + string(first)
			f.useBoth(what, user, m.KeyID, version)
			// As a new process finds it.
			f.dropMaterials(ctx, m.KeyID)
			f.useBoth(what+", loaded again", user, m.KeyID, version)
			if k == wrapped {
				made, err := f.CreateKeyVersion(ctx, root, &kmswire.CreateKeyVersionRequest{KeyID: m.KeyID})
				if err != nil {
					t.Fatal(err)
				}
				f.useBoth(what+", a new version", user, m.KeyID, made.KeyVersion.KeyVersionID)
			}
		}
	}
	m := f.createBoth(wrapped, kmswire.RSA3072, kmswire.SignVerify, "")
	// What anybody encrypts for it can be encrypted again for another key.
	version := f.onlyVersion(m.KeyID)
	e, err := f.AsymmetricEncrypt(ctx, user, &kmswire.AsymmetricEncryptRequest{KeyID: m.KeyID, KeyVersionID: version, Algorithm: kmswire.RSAOAEPSHA256, Plaintext: []byte("hello")})
	if err != nil {
		t.Fatal(err)
	}
	to := f.create(wrapped, kmswire.AES256, "")
	if _, err := f.ReEncrypt(ctx, user, &kmswire.ReEncryptRequest{CiphertextBlob: e.CiphertextBlob, SourceKeyID: m.KeyID, SourceKeyVersionID: version,
		SourceEncryptionAlgorithm: kmswire.RSAOAEPSHA256, DestinationKeyID: to.KeyID}); err != nil {
		t.Error(err)
	}
}

func testSecondaryImported(t *testing.T, f *fixture) {
	private := mustRSA(t)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []kind{wrapped, pinned} {
		m := f.createBoth(k, kmswire.RSA2048, kmswire.SignVerify, kmswire.OriginExternal)
		if err := f.tryImport(m.KeyID, kmswire.WrapOAEPSHA256KWP, der); err != nil {
			t.Fatal(err)
		}
		version := f.onlyVersion(m.KeyID)
		f.useBoth(k.String()+", imported", user, m.KeyID, version)
		p, err := f.GetPublicKey(context.Background(), user, &kmswire.GetPublicKeyRequest{KeyID: m.KeyID, KeyVersionID: version})
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode([]byte(p.PublicKey))
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil || !public.(*rsa.PublicKey).Equal(private.Public()) {
			t.Errorf("the public key is another one (%v)", err)
		}
	}
}

// A service that uses keys for others has the primary usage only.
func testSecondaryServices(t *testing.T, f *fixture) {
	ctx := context.Background()
	m := f.createBoth(wrapped, kmswire.RSA2048, kmswire.SignVerify, "")
	n := f.createBoth(wrapped, kmswire.RSA2048, kmswire.EncryptDecrypt, "")
	mv, nv := f.onlyVersion(m.KeyID), f.onlyVersion(n.KeyID)
	f.useBoth("before it is declared a service", user, m.KeyID, mv)
	f.SetServices([]ServicePrincipal{{Code: "volumes", Principals: []string{user.Principal}, Unit: "volumes.service"}})
	f.useBoth("the same principal elsewhere", user, m.KeyID, mv)
	service := &Actor{Principal: user.Principal, Account: user.Account, Unit: "volumes.service"}
	digest := make([]byte, 32)

	encrypt := func(key, version string) error {
		_, err := f.AsymmetricEncrypt(ctx, service, &kmswire.AsymmetricEncryptRequest{KeyID: key, KeyVersionID: version, Algorithm: kmswire.RSAOAEPSHA256, Plaintext: []byte("x")})
		return err
	}
	decrypt := func(key, version string) error {
		e, err := f.AsymmetricEncrypt(ctx, root, &kmswire.AsymmetricEncryptRequest{KeyID: key, KeyVersionID: version, Algorithm: kmswire.RSAOAEPSHA256, Plaintext: []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.AsymmetricDecrypt(ctx, service, &kmswire.AsymmetricDecryptRequest{KeyID: key, KeyVersionID: version, Algorithm: kmswire.RSAOAEPSHA256, CiphertextBlob: e.CiphertextBlob})
		return err
	}
	reEncrypt := func(key, version string) error {
		e, err := f.AsymmetricEncrypt(ctx, root, &kmswire.AsymmetricEncryptRequest{KeyID: key, KeyVersionID: version, Algorithm: kmswire.RSAOAEPSHA256, Plaintext: []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.ReEncrypt(ctx, service, &kmswire.ReEncryptRequest{CiphertextBlob: e.CiphertextBlob, SourceKeyID: key, SourceKeyVersionID: version,
			SourceEncryptionAlgorithm: kmswire.RSAOAEPSHA256, DestinationKeyID: f.create(wrapped, kmswire.AES256, "").KeyID})
		return err
	}
	sign := func(key, version string) error {
		_, err := f.AsymmetricSign(ctx, service, &kmswire.AsymmetricSignRequest{KeyID: key, KeyVersionID: version, Algorithm: kmswire.RSAPSSSHA256, Digest: digest})
		return err
	}
	verify := func(key, version string) error {
		_, err := f.AsymmetricVerify(ctx, service, &kmswire.AsymmetricVerifyRequest{KeyID: key, KeyVersionID: version, Algorithm: kmswire.RSAPSSSHA256, Digest: digest, Value: digest})
		return err
	}
	signs := func(key, version string) error {
		_, err := f.BatchSign(ctx, service, &kmswire.BatchSignRequest{KeyID: key, KeyVersionID: version, Algorithm: kmswire.RSAPSSSHA256, Items: []kmswire.BatchSignItem{{Digest: digest}}})
		return err
	}
	csr := func(key, version string) error {
		_, err := f.GenerateCsr(ctx, service, &kmswire.GenerateCsrRequest{KeyID: key, KeyVersionID: version, Algorithm: kmswire.RSAPSSSHA256, CommonName: "a"})
		return err
	}
	for _, row := range []struct {
		what          string
		do            func(key, version string) error
		key, version  string
		other, other1 string
	}{
		{"encrypt", encrypt, m.KeyID, mv, n.KeyID, nv},
		{"decrypt", decrypt, m.KeyID, mv, n.KeyID, nv},
		{"re-encrypt", reEncrypt, m.KeyID, mv, n.KeyID, nv},
		{"sign", sign, n.KeyID, nv, m.KeyID, mv},
		{"verify", verify, n.KeyID, nv, m.KeyID, mv},
		{"sign a batch", signs, n.KeyID, nv, m.KeyID, mv},
		{"make a request", csr, n.KeyID, nv, m.KeyID, mv},
	} {
		err := row.do(row.key, row.version)
		if wantCode(t, row.what, err, OperationRejected); err != nil && !strings.Contains(AsError(err).Detail, "services such as volumes") {
			t.Errorf("%s: %v", row.what, err)
		}
		if err := row.do(row.other, row.other1); err != nil {
			t.Errorf("%s with the primary usage: %v", row.what, err)
		}
	}
}

func testSecondaryRefusals(t *testing.T, f *fixture) {
	for _, row := range []struct {
		what string
		req  kmswire.CreateKeyRequest
		says string
	}{
		{"a software key", kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", KeySpec: kmswire.RSA2048, SecondaryKeyUsage: kmswire.EncryptDecrypt}, "only keys of hardware instances"},
		{"an EC key", kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware", KeySpec: kmswire.ECP256, SecondaryKeyUsage: kmswire.EncryptDecrypt}, "EC_P256 keys are for SIGN/VERIFY only"},
		{"the other curve", kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware", KeySpec: kmswire.ECP256K, SecondaryKeyUsage: kmswire.SignVerify}, "EC_P256K keys are for SIGN/VERIFY only"},
		{"a symmetric key", kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware", SecondaryKeyUsage: kmswire.SignVerify}, "Aliyun_AES_256 keys are for ENCRYPT/DECRYPT only"},
		{"twice the same", kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware", KeySpec: kmswire.RSA2048, KeyUsage: kmswire.EncryptDecrypt, SecondaryKeyUsage: kmswire.EncryptDecrypt}, "for already"},
		{"the default's own", kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware", KeySpec: kmswire.RSA2048, SecondaryKeyUsage: kmswire.SignVerify}, "for already"},
		{"a usage that nobody knows", kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware", KeySpec: kmswire.RSA2048, SecondaryKeyUsage: "WRAP"}, "is none of"},
	} {
		r, err := f.CreateKey(context.Background(), root, &row.req)
		if e := AsError(err); err == nil || e.Code != InvalidParameter || e.Param != "SecondaryKeyUsage" || !strings.Contains(e.Detail, row.says) {
			t.Errorf("%s: %+v %v", row.what, r, err)
		}
	}
	if l, err := f.ListKeys(context.Background(), root, &kmswire.ListKeysRequest{}); err != nil || l.TotalCount != 0 {
		t.Errorf("refused creates left keys: %+v %v", l, err)
	}
}

// testOneUsageStaysOne holds that the HSM itself refuses what a key was not made for, whatever the service asks for.
func testOneUsageStaysOne(t *testing.T, f *fixture) {
	for _, row := range []struct {
		key  keystore.Key
		want hsmpool.Usage
	}{
		{keystore.Key{Usage: "SIGN/VERIFY"}, hsmpool.UseSign},
		{keystore.Key{Usage: "ENCRYPT/DECRYPT"}, hsmpool.UseEncrypt},
		{keystore.Key{Usage: "SIGN/VERIFY", SecondaryUsage: "ENCRYPT/DECRYPT"}, hsmpool.UseSign | hsmpool.UseEncrypt},
		{keystore.Key{Usage: "ENCRYPT/DECRYPT", SecondaryUsage: "SIGN/VERIFY"}, hsmpool.UseSign | hsmpool.UseEncrypt},
		{keystore.Key{Usage: "SOMETHING NEW"}, 0},
	} {
		if got := hsmUsage(&row.key); got != row.want {
			t.Errorf("%s and %s: %d, want %d", row.key.Usage, row.key.SecondaryUsage, got, row.want)
		}
	}
	ctx := context.Background()
	m := f.create(pinned, kmswire.RSA2048, kmswire.SignVerify)
	v, err := f.db.Version(ctx, m.KeyID, f.onlyVersion(m.KeyID))
	if err != nil {
		t.Fatal(err)
	}
	both := &hsmpool.Key{ID: v.ID + "-both", Type: hsmpool.RSA2048, Usage: hsmpool.UseSign | hsmpool.UseEncrypt, Member: v.Member, ObjectID: v.ObjectID}
	public, err := x509.ParsePKIXPublicKey(v.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	ciphertext, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public.(*rsa.PublicKey), []byte("hello"), nil)
	if err != nil {
		t.Fatal(err)
	}
	j := &hsmpool.Job{Op: hsmpool.DecryptOAEPSHA256, Key: both, In: ciphertext, Principal: root.Principal}
	if err := f.pool.Do(ctx, j); err == nil {
		t.Errorf("a key that was made to sign decrypts: %x", j.Out)
	}
	// It is not for want of anything else.
	m = f.createBoth(pinned, kmswire.RSA2048, kmswire.SignVerify, "")
	f.useBoth("a key that was made for both", root, m.KeyID, f.onlyVersion(m.KeyID))
}
