package cms

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/kms/kmswire"
)

// selfSigned makes a certificate for key and writes it as PEM.
func selfSigned(t *testing.T, key crypto.Signer) (*x509.Certificate, string) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes([]byte{0xff, 0x01, 0x02, 0x03}),
		Subject:      pkix.Name{CommonName: "Rélease signing", Organization: []string{"Example, Inc."}},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return cert, path
}

// TestOpenSSLVerifies has OpenSSL judge what Sign writes, over the right content and over a changed one.
func TestOpenSSLVerifies(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pss := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	rows := []struct {
		algorithm kmswire.Algorithm
		key       crypto.Signer
		opts      crypto.SignerOpts
	}{
		{kmswire.RSAPKCS1SHA256, rsaKey, crypto.SHA256},
		{kmswire.RSAPSSSHA256, rsaKey, pss},
		{kmswire.ECDSASHA256, ecKey, crypto.SHA256},
	}
	for _, row := range rows {
		t.Run(string(row.algorithm), func(t *testing.T) {
			dir := t.TempDir()
			content := []byte(strings.Repeat("release 1.2.3\n", 10000))
			digest := sha256.Sum256(content)
			cert, certPath := selfSigned(t, row.key)
			der, err := Sign(Request{
				Digest: digest[:], Algorithm: row.algorithm, Certificates: []*x509.Certificate{cert}, SigningTime: time.Now(),
				Sign: func(d []byte) ([]byte, error) { return row.key.Sign(rand.Reader, d, row.opts) },
			})
			if err != nil {
				t.Fatal(err)
			}
			good, bad, sig := filepath.Join(dir, "good"), filepath.Join(dir, "bad"), filepath.Join(dir, "sig.p7s")
			changed := append([]byte{'x'}, content[1:]...)
			for path, data := range map[string][]byte{good: content, bad: changed, sig: der} {
				if err := os.WriteFile(path, data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			verify := func(content string) (string, error) {
				out, err := exec.Command("openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", sig, "-content", content,
					"-CAfile", certPath, "-purpose", "any", "-out", os.DevNull).CombinedOutput()
				return string(out), err
			}
			if out, err := verify(good); err != nil {
				t.Fatalf("openssl refuses the signature: %v\n%s", err, out)
			}
			if out, err := verify(bad); err == nil {
				t.Fatalf("openssl accepts other content:\n%s", out)
			}
		})
	}
}

// TestRefusals walks what Sign must not make a signature of.
func TestRefusals(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := selfSigned(t, key)
	fault := errors.New("no HSM")
	good := Request{Digest: make([]byte, 32), Algorithm: kmswire.ECDSASHA256, Certificates: []*x509.Certificate{cert},
		SigningTime: time.Now(), Sign: func([]byte) ([]byte, error) { return nil, fault }}
	if _, err := Sign(good); !errors.Is(err, fault) {
		t.Errorf("the signer's error is lost: %v", err)
	}
	for name, change := range map[string]func(*Request){
		"short digest":   func(r *Request) { r.Digest = r.Digest[:31] },
		"no certificate": func(r *Request) { r.Certificates = nil },
		"OAEP":           func(r *Request) { r.Algorithm = kmswire.RSAOAEPSHA256 },
	} {
		bad := good
		bad.Sign = func([]byte) ([]byte, error) { t.Errorf("%s: reached the signer", name); return nil, nil }
		change(&bad)
		if _, err := Sign(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
