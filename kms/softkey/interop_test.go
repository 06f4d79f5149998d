package softkey

import (
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/keyward/keyward/kms/kmswire"
)

// openssl runs the openssl program in dir.
func openssl(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// opensslKey makes key.pem and, as PKCS #8, key.der.
func opensslKey(t *testing.T, dir string, options []string) {
	t.Helper()
	openssl(t, dir, append([]string{"genpkey", "-quiet", "-out", "key.pem"}, options...)...)
	openssl(t, dir, "pkcs8", "-topk8", "-nocrypt", "-in", "key.pem", "-outform", "DER", "-out", "key.der")
}

func writeFile(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What openssl's command needs besides the key, for dgst (on a message) and pkeyutl (on a digest).
var (
	dgstOptions = map[kmswire.Algorithm][]string{
		kmswire.RSAPKCS1SHA256: nil,
		kmswire.RSAPSSSHA256:   {"-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32", "-sigopt", "rsa_mgf1_md:sha256"},
		kmswire.ECDSASHA256:    nil,
	}
	oaepOptions = map[kmswire.Algorithm][]string{
		kmswire.RSAOAEPSHA1:   {"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha1", "-pkeyopt", "rsa_mgf1_md:sha1"},
		kmswire.RSAOAEPSHA256: {"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256"},
	}
)

// Signatures go both ways between softkey and the openssl program, and openssl reads our keys.
func TestOpenSSLSignatures(t *testing.T) {
	message := []byte("a message for openssl\n")
	digest := sha256.Sum256(message)
	for _, spec := range asymmetric {
		dir := t.TempDir()
		key := testKey(t, spec)
		der, err := key.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir, "message", message)
		writeFile(t, dir, "digest", digest[:])
		writeFile(t, dir, "pub.pem", []byte(key.Public().PEM()))
		writeFile(t, dir, "key.der", der)
		for alg, options := range dgstOptions {
			if !signs(spec, alg) {
				continue
			}
			signature, err := key.Sign(alg, digest[:])
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, dir, "sig", signature)
			args := append([]string{"dgst", "-sha256", "-verify", "pub.pem", "-signature", "sig"}, options...)
			if out := openssl(t, dir, append(args, "message")...); out != "Verified OK\n" {
				t.Errorf("%s %s: dgst: %s", spec, alg, out)
			}
			args = []string{"pkeyutl", "-verify", "-pubin", "-inkey", "pub.pem", "-in", "digest", "-sigfile", "sig", "-pkeyopt", "digest:sha256"}
			for i := 1; i < len(options); i += 2 {
				args = append(args, "-pkeyopt", options[i])
			}
			if out := openssl(t, dir, args...); out != "Signature Verified Successfully\n" {
				t.Errorf("%s %s: pkeyutl: %s", spec, alg, out)
			}
			args = append([]string{"dgst", "-sha256", "-keyform", "DER", "-sign", "key.der", "-out", "theirs"}, options...)
			openssl(t, dir, append(args, "message")...)
			if ok, err := key.Public().Verify(alg, digest[:], readFile(t, dir, "theirs")); !ok || err != nil {
				t.Errorf("%s %s: openssl's signature: %v, %v", spec, alg, ok, err)
			}
		}
	}
}

// Keys made by openssl are read, and what it encrypts for them is decrypted.
func TestOpenSSLKeys(t *testing.T) {
	genpkey := map[kmswire.KeySpec][]string{
		kmswire.RSA2048: {"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"},
		kmswire.ECP256:  {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"},
		kmswire.ECP256K: {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"},
	}
	for spec, options := range genpkey {
		dir := t.TempDir()
		opensslKey(t, dir, options)
		openssl(t, dir, "pkey", "-in", "key.pem", "-pubout", "-out", "pub.pem")
		key, err := ParsePrivateKey(spec, readFile(t, dir, "key.der"))
		if err != nil {
			t.Fatalf("%s: %v", spec, err)
		}
		if err := key.Check(); err != nil {
			t.Errorf("%s: check: %v", spec, err)
		}
		want := readFile(t, dir, "pub.pem")
		if key.Public().PEM() != string(want) {
			t.Errorf("%s: PEM\n%swant\n%s", spec, key.Public().PEM(), want)
		}
		block, _ := pem.Decode(want)
		if k, err := ParsePublicKey(block.Bytes); err != nil || k.Spec() != spec {
			t.Errorf("%s: public key: %v", spec, err)
		}
	}
	for _, spec := range []kmswire.KeySpec{kmswire.RSA2048, kmswire.RSA3072, kmswire.RSA4096} {
		dir := t.TempDir()
		key := testKey(t, spec)
		writeFile(t, dir, "pub.pem", []byte(key.Public().PEM()))
		for alg, options := range oaepOptions {
			plaintext := bytes.Repeat([]byte{0xa7}, key.Public().MaxPlaintext(alg))
			writeFile(t, dir, "plain", plaintext)
			openssl(t, dir, append([]string{"pkeyutl", "-encrypt", "-pubin", "-inkey", "pub.pem", "-in", "plain", "-out", "cipher"}, options...)...)
			got, err := key.Decrypt(alg, readFile(t, dir, "cipher"))
			if err != nil || !bytes.Equal(got, plaintext) {
				t.Errorf("%s %s: %d octets, %v", spec, alg, len(got), err)
			}
		}
	}
}

// Keys that are not ours, as openssl makes them.
func TestOpenSSLKeysRefused(t *testing.T) {
	for name, options := range map[string][]string{
		"RSA of 1024 bits":    {"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"},
		"RSA of 2056 bits":    {"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2056"},
		"RSA-PSS":             {"-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"},
		"three primes":        {"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-pkeyopt", "rsa_keygen_primes:3"},
		"P-384":               {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"},
		"explicit curve":      {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit"},
		"Ed25519":             {"-algorithm", "ED25519"},
		"SM2":                 {"-algorithm", "SM2"},
		"explicit P-256K":     {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1", "-pkeyopt", "ec_param_enc:explicit"},
		"brainpool, 256 bits": {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:brainpoolP256r1"},
	} {
		dir := t.TempDir()
		opensslKey(t, dir, options)
		openssl(t, dir, "pkey", "-in", "key.pem", "-pubout", "-outform", "DER", "-out", "pub.der")
		for _, spec := range asymmetric {
			if _, err := ParsePrivateKey(spec, readFile(t, dir, "key.der")); err != ErrMalformed {
				t.Errorf("%s as %s: %v", name, spec, err)
			}
		}
		// Two primes or three does not show in a public key.
		if _, err := ParsePublicKey(readFile(t, dir, "pub.der")); err != ErrMalformed && name != "three primes" {
			t.Errorf("%s: public key: %v", name, err)
		}
	}
}
