package ctl

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/keyward/keyward/kms/kmswire"
)

// The generator of secp256k1 as a public key, and its coordinates (SEC 2 section 2.4.1).
const (
	koblitzPEM = `-----BEGIN PUBLIC KEY-----
MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEeb5mfvncu6xVoGKVzocLBwKb/NstzijZWfKBWxb4F5hIOtp3JqPEZV2k+/wOEQio/Re0SKaFVBmcR9CP+xDUuA==
-----END PUBLIC KEY-----
`
	koblitzX = "eb5mfvncu6xVoGKVzocLBwKb_NstzijZWfKBWxb4F5g"
	koblitzY = "SDradyajxGVdpPv8DhEIqP0XtEimhVQZnEfQj_sQ1Lg"
)

// TestPublicKeyFormats goes through the forms of an RSA and an EC key, and reads each with another reader.
func TestPublicKeyFormats(t *testing.T) {
	d := startFake(t)
	d.must(t, "key", "create", "--alias", "rsa", "--spec", "RSA_2048", "--usage", "ENCRYPT/DECRYPT")
	d.must(t, "key", "create", "--alias", "ec", "--spec", "EC_P256")
	for i, alias := range []string{"alias/rsa", "alias/ec"} {
		public := d.keys[i].versions[0].signer.Public()
		spki, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		if out, _ := d.must(t, "key", "public-key", alias); out != string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})) {
			t.Errorf("%s in PEM: %s", alias, out)
		}
		if out, _ := d.must(t, "key", "public-key", alias, "--format", "der"); out != string(spki) {
			t.Errorf("%s in DER: %x", alias, out)
		}
		out, _ := d.must(t, "key", "public-key", alias, "--format", "ssh")
		key, comment, _, rest, err := ssh.ParseAuthorizedKey([]byte(out))
		if err != nil || len(rest) > 0 || comment != d.keys[i].versions[0].id || !key.(ssh.CryptoPublicKey).CryptoPublicKey().(interface{ Equal(crypto.PublicKey) bool }).Equal(public) {
			t.Errorf("%s for SSH: %q %v", alias, out, err)
		}
		out, _ = d.must(t, "key", "public-key", alias, "--format", "jwk")
		var k map[string]string
		if err := json.Unmarshal([]byte(out), &k); err != nil {
			t.Fatal(err)
		}
		if got := fromJWK(t, k); !got.(interface{ Equal(crypto.PublicKey) bool }).Equal(public) || k["kid"] != d.keys[i].versions[0].id {
			t.Errorf("%s as a JWK: %s", alias, out)
		}
	}
	out, _ := d.must(t, "key", "public-key", "alias/ec", "--format", "jwk")
	lines := strings.Split(out, "\n")
	for i, want := range []string{"{", `  "kty": "EC",`, `  "kid": "key-2-v1",`, `  "use": "sig",`, `  "alg": "ES256",`, `  "crv": "P-256",`, `  "x": "`, `  "y": "`, "}", ""} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], want) {
			t.Fatalf("line %d: want %q in\n%s", i, want, out)
		}
	}
}

// fromJWK reads a public key as RFC 7518 section 6 says.
func fromJWK(t *testing.T, k map[string]string) crypto.PublicKey {
	t.Helper()
	number := func(name string) *big.Int {
		b, err := base64.RawURLEncoding.DecodeString(k[name])
		if err != nil || len(b) == 0 {
			t.Fatalf("%s is %q", name, k[name])
		}
		return new(big.Int).SetBytes(b)
	}
	if k["kty"] == "RSA" {
		return &rsa.PublicKey{N: number("n"), E: int(number("e").Int64())}
	}
	if len(k["x"]) != 43 || len(k["y"]) != 43 || k["crv"] != "P-256" {
		t.Fatalf("%v", k)
	}
	point := append([]byte{4}, append(number("x").FillBytes(make([]byte, 32)), number("y").FillBytes(make([]byte, 32))...)...)
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		t.Fatal(err)
	}
	return public
}

func TestJWKMembers(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	rsaPEM := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
	for _, row := range []struct {
		what, pem string
		of        kmswire.KeyMetadata
		want      jwk
	}{
		{"secp256k1", koblitzPEM, kmswire.KeyMetadata{KeyUsage: kmswire.SignVerify}, jwk{Type: "EC", ID: "v", Use: "sig", Algorithm: "ES256K", Curve: "secp256k1", X: koblitzX, Y: koblitzY}},
		{"RSA that signs", rsaPEM, kmswire.KeyMetadata{KeyUsage: kmswire.SignVerify}, jwk{Type: "RSA", ID: "v", Use: "sig", E: "AQAB"}},
		{"RSA that encrypts", rsaPEM, kmswire.KeyMetadata{KeyUsage: kmswire.EncryptDecrypt}, jwk{Type: "RSA", ID: "v", Use: "enc", E: "AQAB"}},
		{"RSA for both", rsaPEM, kmswire.KeyMetadata{KeyUsage: kmswire.EncryptDecrypt, SecondaryKeyUsage: kmswire.SignVerify}, jwk{Type: "RSA", ID: "v", E: "AQAB"}},
	} {
		public, err := parsePublic(row.pem)
		if err != nil {
			t.Fatalf("%s: %v", row.what, err)
		}
		got := public.jwk("v", &row.of)
		if row.want.Type == "RSA" {
			row.want.N = base64.RawURLEncoding.EncodeToString(private.N.Bytes())
		}
		if *got != row.want {
			t.Errorf("%s: %+v, want %+v", row.what, *got, row.want)
		}
	}
	public, err := parsePublic(koblitzPEM)
	if err != nil {
		t.Fatal(err)
	}
	if line, err := public.ssh("v"); line != nil || err == nil || !strings.Contains(err.Error(), "SSH has no keys on the curve secp256k1") {
		t.Errorf("secp256k1 for SSH: %s %v", line, err)
	}
}

// TestParsePublicRefusals: what is not what keyward gives is refused and never rendered.
func TestParsePublicRefusals(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := x509.MarshalPKIXPublicKey(other.Public())
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(koblitzPEM))
	compressed := bytes.Clone(block.Bytes)
	compressed[len(compressed)-65] = 2
	for what, der := range map[string][]byte{"another curve": p384, "a compressed point": compressed, "nothing": nil, "half": block.Bytes[:40], "more": append(bytes.Clone(block.Bytes), 0),
		"an RSA key without numbers": {0x30, 0x12, 0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0, 3, 1, 0}} {
		if p, err := parsePublic(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))); err == nil {
			t.Errorf("%s: %+v", what, p)
		}
	}
	if p, err := parsePublic("no PEM"); err == nil {
		t.Errorf("no PEM: %+v", p)
	}
}

func TestPublicKeyFiles(t *testing.T) {
	d := startFake(t)
	d.must(t, "key", "create", "--alias", "ec", "--spec", "EC_P256")
	d.must(t, "key", "rotate", "alias/ec")
	file := filepath.Join(t.TempDir(), "jwks.json")
	out, talk := d.must(t, "key", "public-key", "alias/ec", "--format", "jwk", "--all-versions", "--out", file)
	if out != "" || !strings.Contains(talk, "public key of key-1") {
		t.Errorf("%q %q", out, talk)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(data, &set); err != nil || len(set.Keys) != 2 || set.Keys[0]["kid"] != "key-1-v1" || set.Keys[1]["kid"] != "key-1-v2" {
		t.Errorf("%s %v", data, err)
	}
	for i, k := range set.Keys {
		if !d.keys[0].versions[i].signer.Public().(*ecdsa.PublicKey).Equal(fromJWK(t, k)) {
			t.Errorf("key %d is another one", i)
		}
	}
	if code, _, talk := d.ctl(t, "", "key", "public-key", "alias/ec", "--out", file); code == exitOK || !strings.Contains(talk, "--force") {
		t.Errorf("a file that is there: %d %s", code, talk)
	}
	out, _ = d.must(t, "key", "public-key", "alias/ec", "--key-version", "key-1-v1", "--format", "der", "--out", file, "--force", "-o", "json")
	var made madeFile
	if err := json.Unmarshal([]byte(out), &made); err != nil || made != (madeFile{File: file, KeyID: "key-1", KeyVersionID: "key-1-v1"}) {
		t.Errorf("%s %v", out, err)
	}
	out, _ = d.must(t, "key", "public-key", "alias/ec", "-o", "json")
	var answer kmswire.GetPublicKeyResponse
	if err := json.Unmarshal([]byte(out), &answer); err != nil || answer.KeyVersionID != "key-1-v2" || !strings.HasPrefix(answer.PublicKey, "-----BEGIN") {
		t.Errorf("%s %v", out, err)
	}
	for _, wrong := range [][]string{{"--format", "xml"}, {"--all-versions"}, {"--format", "jwk", "--all-versions", "--key-version", "key-1-v1"}, {"--format", "jwk", "-o", "json"}} {
		if code, _, talk := d.ctl(t, "", append([]string{"key", "public-key", "alias/ec"}, wrong...)...); code != exitUsage {
			t.Errorf("%v: %d %s", wrong, code, talk)
		}
	}
}

// csr makes a request with the parts of the subject that tests look at.
func (d *fakeDaemon) csr(q url.Values) (any, *kmswire.ErrorBody) {
	req := into[kmswire.GenerateCsrRequest](q)
	k, v, no := d.use(req.KeyID, req.KeyVersionID)
	if no != nil {
		return nil, no
	}
	d.csrs = append(d.csrs, req)
	name, err := asn1.Marshal(pkix.Name{CommonName: req.CommonName}.ToRDNSequence())
	if err != nil {
		panic(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: name}, v.signer)
	if err != nil {
		panic(err)
	}
	return kmswire.GenerateCsrResponse{KeyID: k.KeyID, KeyVersionID: v.id, Csr: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))}, nil
}

func TestKeyCsr(t *testing.T) {
	d := startFake(t)
	d.must(t, "key", "create", "--alias", "rsa", "--spec", "RSA_2048")
	d.must(t, "key", "create", "--alias", "ec", "--spec", "EC_P256")
	d.must(t, "key", "create", "--alias", "aes")
	d.must(t, "key", "rotate", "alias/ec")
	out, talk := d.must(t, "key", "csr", "alias/ec", "--cn", "www.example.org")
	if block, rest := pem.Decode([]byte(out)); block == nil || block.Type != "CERTIFICATE REQUEST" || len(rest) > 0 {
		t.Errorf("%q", out)
	}
	for _, want := range []string{"openssl req -in FILE -noout -verify -text", "send it to your certification authority", "without --san"} {
		if !strings.Contains(talk, want) {
			t.Errorf("no %q in %s", want, talk)
		}
	}
	if got := *d.csrs[0]; got != (kmswire.GenerateCsrRequest{KeyID: "key-2", Algorithm: kmswire.ECDSASHA256, CommonName: "www.example.org"}) {
		t.Errorf("asked for %+v", got)
	}
	file := filepath.Join(t.TempDir(), "a request.csr")
	out, talk = d.must(t, "key", "csr", "alias/rsa", "--cn", "a", "--o", "Müller & Söhne", "--ou", "R-D", "--st", "東京", "--l", "千代田区", "--c", "jp", "--email", "a@example.org",
		"--san", "DNS:a.example,IP:192.0.2.1", "--san", "URI:urn:a:b", "--algorithm", "rsa_pss_sha_256", "--key-version", "key-1-v1", "--out", file, "-o", "json")
	if got := *d.csrs[1]; got != (kmswire.GenerateCsrRequest{KeyID: "key-1", KeyVersionID: "key-1-v1", Algorithm: kmswire.RSAPSSSHA256, CommonName: "a", OrganizationName: "Müller & Söhne",
		OrganizationalUnit: "R-D", Province: "東京", Locality: "千代田区", Country: "JP", EmailAddress: "a@example.org", SubjectAlternativeNames: "DNS:a.example,IP:192.0.2.1,URI:urn:a:b"}) {
		t.Errorf("asked for %+v", got)
	}
	var made madeFile
	if err := json.Unmarshal([]byte(out), &made); err != nil || made != (madeFile{File: file, KeyID: "key-1", KeyVersionID: "key-1-v1", Algorithm: "RSA_PSS_SHA_256"}) {
		t.Errorf("%s %v", out, err)
	}
	if !strings.Contains(talk, "openssl req -in '"+file+"' -noout") || strings.Contains(talk, "--san") {
		t.Errorf("talk %s", talk)
	}
	if data, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(data), "-----BEGIN CERTIFICATE REQUEST-----\n") {
		t.Errorf("%q %v", data, err)
	}
	out, _ = d.must(t, "key", "csr", "alias/rsa", "--cn", "a", "-o", "json")
	var answer kmswire.GenerateCsrResponse
	if err := json.Unmarshal([]byte(out), &answer); err != nil || answer.KeyVersionID != "key-1-v1" || !strings.HasPrefix(answer.Csr, "-----BEGIN") {
		t.Errorf("%s %v", out, err)
	}
	asked := len(d.csrs)
	for _, row := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"alias/ec"}, exitUsage, "--cn is missing"},
		{[]string{"--cn", "a"}, exitUsage, "KEY"},
		{[]string{"alias/ec", "--cn", "a", "--algorithm", "RSA_PSS_SHA_256"}, exitUsage, "they have ECDSA_SHA_256"},
		{[]string{"alias/aes", "--cn", "a"}, exitFailure, "can't sign"},
		{[]string{"alias/none", "--cn", "a"}, exitNotFound, "alias/none"},
		{[]string{"alias/ec", "--cn", "a", "--out", file}, exitFailure, "--force"},
	} {
		code, out, talk := d.ctl(t, "", append([]string{"key", "csr"}, row.args...)...)
		if code != row.code && !(row.says == "--force" && code != exitOK) || out != "" || !strings.Contains(talk, row.says) {
			t.Errorf("%v: %d %q %s", row.args, code, out, talk)
		}
	}
	if len(d.csrs) != asked {
		t.Errorf("%d requests were made all the same", len(d.csrs)-asked)
	}
}
