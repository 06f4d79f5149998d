package kms

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	encodingasn1 "encoding/asn1"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/kms/kmswire"
)

// wholeSubject has every part, in what scripts and signs companies are called.
var wholeSubject = kmswire.GenerateCsrRequest{
	CommonName: "www.example.org", OrganizationName: "Müller & Söhne-Werke, Ltd.", OrganizationalUnit: "R+D", Province: "東京",
	Locality: "千代田区", Country: "JP", EmailAddress: "tls@example.org",
	SubjectAlternativeNames: "DNS:www.example.org, dns:*.example.org,DNS:xn--r8jz45g.jp,IP:192.0.2.7,IP:2001:db8::7,URI:spiffe://example.org/web,URI:urn:uuid:2f1c,email:tls@example.org",
}

// openssl runs OpenSSL in dir.
func openssl(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func writeFile(t testing.TB, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCertificateRequests has every kind of key that signs make a request. OpenSSL reads it and checks its signature, and a
// certification authority made with OpenSSL gives a certificate for it.
func TestCertificateRequests(t *testing.T) {
	hsm := hsmtest.New(t, "north", "south")
	hsm.Ceremony(t)
	f := newFixture(t, hsm.Open(t))
	ctx := context.Background()
	dir := t.TempDir()
	openssl(t, dir, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=Test CA")

	for _, k := range kinds {
		for _, spec := range []kmswire.KeySpec{kmswire.RSA2048, kmswire.RSA3072, kmswire.RSA4096, kmswire.ECP256, kmswire.ECP256K} {
			if testing.Short() && spec == kmswire.RSA4096 {
				continue
			}
			key := f.create(k, spec, "")
			version := f.onlyVersion(key.KeyID)
			public, err := f.GetPublicKey(ctx, root, &kmswire.GetPublicKeyRequest{KeyID: key.KeyID, KeyVersionID: version})
			if err != nil {
				t.Fatal(err)
			}
			for _, alg := range specs[spec].sign {
				t.Run(fmt.Sprint(k, " ", spec, " ", alg), func(t *testing.T) {
					f := &fixture{Service: f.Service, t: t, events: f.events}
					req := wholeSubject
					req.KeyID, req.Algorithm = key.KeyID, alg
					r, err := f.GenerateCsr(ctx, root, &req)
					if err != nil {
						t.Fatal(err)
					}
					if r.KeyID != key.KeyID || r.KeyVersionID != version {
						t.Errorf("the request is for %s of %s", r.KeyVersionID, r.KeyID)
					}
					if e := f.events.last(); e.Action != "GenerateCsr" || e.KeyID != key.KeyID || e.VersionID != version || e.Outcome != "ok" || e.Detail != "CN=www.example.org" {
						t.Errorf("the audit has %+v", e)
					}
					checkRequest(t, dir, r.Csr, public.PublicKey, spec, alg)
				})
			}
		}
	}
}

// checkRequest has others look at a request for wholeSubject.
func checkRequest(t *testing.T, dir, csr, public string, spec kmswire.KeySpec, alg kmswire.Algorithm) {
	writeFile(t, dir, "r.csr", csr)
	if got := openssl(t, dir, "req", "-in", "r.csr", "-noout", "-verify"); !strings.Contains(got, "verify OK") {
		t.Errorf("openssl req -verify: %s", got)
	}
	if got := openssl(t, dir, "req", "-in", "r.csr", "-noout", "-pubkey"); got != public {
		t.Errorf("the request is for another key:\n%s", got)
	}
	subject := openssl(t, dir, "req", "-in", "r.csr", "-noout", "-subject", "-nameopt", "RFC2253,utf8,-esc_msb")
	if want := "subject=emailAddress=tls@example.org,CN=www.example.org,OU=R\\+D,O=Müller & Söhne-Werke\\, Ltd.,L=千代田区,ST=東京,C=JP\n"; subject != want {
		t.Errorf("openssl shows\n%swant\n%s", subject, want)
	}
	text := openssl(t, dir, "req", "-in", "r.csr", "-noout", "-text")
	for _, want := range map[kmswire.Algorithm][]string{
		kmswire.RSAPKCS1SHA256: {"Signature Algorithm: sha256WithRSAEncryption"},
		kmswire.RSAPSSSHA256:   {"Signature Algorithm: rsassaPss", "Hash Algorithm: sha256", "Mask Algorithm: mgf1 with sha256", "Salt Length: 0x20"},
		kmswire.ECDSASHA256:    {"Signature Algorithm: ecdsa-with-SHA256"},
	}[alg] {
		if !strings.Contains(text, want) {
			t.Errorf("openssl shows no %q in\n%s", want, text)
		}
	}
	const names = "DNS:www.example.org, DNS:*.example.org, DNS:xn--r8jz45g.jp, IP Address:192.0.2.7, IP Address:2001:DB8:0:0:0:0:0:7, URI:spiffe://example.org/web, URI:urn:uuid:2f1c, email:tls@example.org"
	if !strings.Contains(text, names) {
		t.Errorf("openssl shows other names in\n%s", text)
	}

	openssl(t, dir, "x509", "-req", "-in", "r.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1", "-copy_extensions", "copyall", "-out", "r.crt")
	openssl(t, dir, "verify", "-CAfile", "ca.crt", "r.crt")
	if got := openssl(t, dir, "x509", "-in", "r.crt", "-noout", "-pubkey"); got != public {
		t.Error("the certificate is for another key")
	}
	if got := openssl(t, dir, "x509", "-in", "r.crt", "-noout", "-ext", "subjectAltName"); !strings.Contains(got, names) || strings.Contains(got, "critical") {
		t.Errorf("the certificate has %s", got)
	}

	if spec == kmswire.ECP256K {
		return // crypto/x509 does not know it
	}
	block, _ := pem.Decode([]byte(csr))
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := parsed.CheckSignature(); err != nil {
		t.Error(err)
	}
	if alg == kmswire.RSAPSSSHA256 && parsed.SignatureAlgorithm != x509.SHA256WithRSAPSS {
		t.Errorf("crypto/x509 sees %s", parsed.SignatureAlgorithm)
	}
}

func TestGenerateCsrRefusals(t *testing.T) {
	f := newUseFixture(t)
	ctx := context.Background()
	sign := f.create(software, kmswire.RSA2048, kmswire.SignVerify)
	ec := f.create(software, kmswire.ECP256, "")
	secret := f.create(software, kmswire.AES256, "")
	encrypt := f.create(software, kmswire.RSA2048, kmswire.EncryptDecrypt)
	for _, row := range []struct {
		what  string
		actor *Actor
		req   kmswire.GenerateCsrRequest
		want  Code
		param string
	}{
		{"no name", root, kmswire.GenerateCsrRequest{KeyID: sign.KeyID, Algorithm: kmswire.RSAPKCS1SHA256}, MissingParameter, "CommonName"},
		{"no algorithm", root, kmswire.GenerateCsrRequest{KeyID: sign.KeyID, CommonName: "a"}, MissingParameter, "Algorithm"},
		{"an algorithm of other keys", root, kmswire.GenerateCsrRequest{KeyID: sign.KeyID, CommonName: "a", Algorithm: kmswire.ECDSASHA256}, InvalidParameter, "Algorithm"},
		{"an algorithm that encrypts", root, kmswire.GenerateCsrRequest{KeyID: sign.KeyID, CommonName: "a", Algorithm: kmswire.RSAOAEPSHA256}, InvalidParameter, "Algorithm"},
		{"RSA with an EC key", root, kmswire.GenerateCsrRequest{KeyID: ec.KeyID, CommonName: "a", Algorithm: kmswire.RSAPSSSHA256}, InvalidParameter, "Algorithm"},
		{"a symmetric key", root, kmswire.GenerateCsrRequest{KeyID: secret.KeyID, CommonName: "a", Algorithm: kmswire.RSAPSSSHA256}, OperationRejected, ""},
		{"a key that encrypts", root, kmswire.GenerateCsrRequest{KeyID: encrypt.KeyID, CommonName: "a", Algorithm: kmswire.RSAPSSSHA256}, OperationRejected, ""},
		{"a version of another key", root, kmswire.GenerateCsrRequest{KeyID: sign.KeyID, KeyVersionID: f.onlyVersion(ec.KeyID), CommonName: "a", Algorithm: kmswire.RSAPSSSHA256}, VersionNotFound, ""},
		{"no such key", root, kmswire.GenerateCsrRequest{KeyID: "key-none", CommonName: "a", Algorithm: kmswire.RSAPSSSHA256}, KeyNotFound, ""},
		{"a stranger", other, kmswire.GenerateCsrRequest{KeyID: sign.KeyID, CommonName: "a", Algorithm: kmswire.RSAPSSSHA256}, KeyNotFound, ""},
	} {
		r, err := f.GenerateCsr(ctx, row.actor, &row.req)
		if wantCode(t, row.what, err, row.want); r != nil || err != nil && AsError(err).Param != row.param {
			t.Errorf("%s: the parameter at fault is %q, want %q (%v)", row.what, AsError(err).Param, row.param, r)
		}
		if e := f.events.last(); e.Action != "GenerateCsr" || e.Outcome != row.want.Error() {
			t.Errorf("%s: the audit has %+v", row.what, e)
		}
	}
	if _, err := f.DisableKey(ctx, root, &kmswire.DisableKeyRequest{KeyID: ec.KeyID}); err != nil {
		t.Fatal(err)
	}
	_, err := f.GenerateCsr(ctx, root, &kmswire.GenerateCsrRequest{KeyID: ec.KeyID, CommonName: "a", Algorithm: kmswire.ECDSASHA256})
	wantCode(t, "a disabled key", err, KeyDisabled)
}

// Who may sign may not ask for a certificate by that, nor the other way around.
func TestGenerateCsrPermission(t *testing.T) {
	f := newUseFixture(t)
	ctx := context.Background()
	key := f.create(software, kmswire.ECP256, "")
	version := f.onlyVersion(key.KeyID)
	csr := func() error {
		_, err := f.GenerateCsr(ctx, user, &kmswire.GenerateCsrRequest{KeyID: key.KeyID, CommonName: "a", Algorithm: kmswire.ECDSASHA256})
		return err
	}
	sign := func() error {
		_, err := f.AsymmetricSign(ctx, user, &kmswire.AsymmetricSignRequest{KeyID: key.KeyID, KeyVersionID: version, Algorithm: kmswire.ECDSASHA256, Digest: make([]byte, 32)})
		return err
	}
	allow := func(action string) {
		doc := fmt.Sprintf(`{"Version":"1","Statement":[{"Effect":"Allow","Principal":{"RAM":["%s"]},"Action":["kms:*"],"Resource":["*"]},
			{"Effect":"Allow","Principal":{"RAM":["%s"]},"Action":["%s"],"Resource":["*"]}]}`, root.Principal, user.Principal, action)
		if _, err := f.SetKeyPolicy(ctx, root, &kmswire.SetKeyPolicyRequest{KeyID: key.KeyID, PolicyName: "default", Policy: []byte(doc)}); err != nil {
			t.Fatal(err)
		}
	}
	allow("kms:AsymmetricSign")
	wantCode(t, "a request by who may sign", csr(), Denied)
	if err := sign(); err != nil {
		t.Error(err)
	}
	allow("kms:GenerateCsr")
	wantCode(t, "a signature by who may make requests", sign(), Denied)
	if err := csr(); err != nil {
		t.Error(err)
	}
}

func TestGenerateCsrTakesTheNewestVersion(t *testing.T) {
	f := newUseFixture(t)
	ctx := context.Background()
	key := f.create(software, kmswire.ECP256, "")
	old := f.onlyVersion(key.KeyID)
	for range 2 {
		made, err := f.CreateKeyVersion(ctx, root, &kmswire.CreateKeyVersionRequest{KeyID: key.KeyID})
		if err != nil {
			t.Fatal(err)
		}
		for given, want := range map[string]string{"": made.KeyVersion.KeyVersionID, old: old} {
			r, err := f.GenerateCsr(ctx, root, &kmswire.GenerateCsrRequest{KeyID: key.KeyID, KeyVersionID: given, CommonName: "a", Algorithm: kmswire.ECDSASHA256})
			if err != nil || r.KeyVersionID != want {
				t.Fatalf("asked for %q: %+v %v, want %s", given, r, err, want)
			}
			public, err := f.GetPublicKey(ctx, root, &kmswire.GetPublicKeyRequest{KeyID: key.KeyID, KeyVersionID: want})
			if err != nil {
				t.Fatal(err)
			}
			block, _ := pem.Decode([]byte(r.Csr))
			info, _ := pem.Decode([]byte(public.PublicKey))
			if parsed, err := x509.ParseCertificateRequest(block.Bytes); err != nil || !bytes.Equal(parsed.RawSubjectPublicKeyInfo, info.Bytes) {
				t.Errorf("the request holds the public key of another version (%v)", err)
			}
		}
	}
}

// setPart sets one part of a subject by its parameter's name.
func setPart(r *kmswire.GenerateCsrRequest, param, value string) {
	for name, at := range map[string]*string{
		"CommonName": &r.CommonName, "OrganizationName": &r.OrganizationName, "OrganizationalUnit": &r.OrganizationalUnit, "Province": &r.Province,
		"Locality": &r.Locality, "Country": &r.Country, "EmailAddress": &r.EmailAddress, "SubjectAlternativeNames": &r.SubjectAlternativeNames,
	} {
		if name == param {
			*at = value
		}
	}
}

func TestSubjectRefusals(t *testing.T) {
	texts := map[string]int{"CommonName": 64, "OrganizationName": 64, "OrganizationalUnit": 64, "Province": 128, "Locality": 128}
	bad := map[string][]string{
		"Country": {"jp", "J", "JPN", "UK", "EU", "XX", "日", "J\x00", " JP"},
		"EmailAddress": {"tls", "@example.org", "tls@", "tls@-example.org", "a@b@example.org", "a b@example.org", "a..b@example.org", ".a@example.org",
			"\"a b\"@example.org", "Ann <ann@example.org>", "ann@例え.jp", "änn@example.org", "a\n@example.org", "a,b@example.org", "a@192.0.2.1", "a@[192.0.2.1]",
			strings.Repeat("a", 65) + "@example.org", "a@" + strings.Repeat("a.", 126) + "org"},
	}
	for param, limit := range texts {
		bad[param] = append([]string{
			"a\x00b", "a\nb", "a\x7fb", "a\u0085b", "a\u202eb", "a\u2066b", "a\u2028b", "a\ufffdb", "a\xffb", " a", "a ", "\u3000a", " ", strings.Repeat("a", limit+1), strings.Repeat("京", limit+1),
		}, bad[param]...)
		for _, good := range []string{strings.Repeat("a", limit), strings.Repeat("京", limit), "A & B - C", "*.example.org", "o'neil", "ﻢﺤﻣﺩ"} {
			req := kmswire.GenerateCsrRequest{CommonName: "a"}
			setPart(&req, param, good)
			if _, err := parseSubject(&req); err != nil {
				t.Errorf("%s %q: %v", param, good, err)
			}
		}
	}
	for param, values := range bad {
		for _, value := range values {
			req := kmswire.GenerateCsrRequest{CommonName: "a"}
			setPart(&req, param, value)
			_, err := parseSubject(&req)
			if e := AsError(err); err == nil || e.Code != InvalidParameter || e.Param != param || e.Detail == "" || strings.ContainsAny(e.Detail, "\x00\n\u202e") {
				t.Errorf("%s %q: %v", param, value, err)
			}
		}
	}
}

func TestAlternativeNameRefusals(t *testing.T) {
	label := strings.Repeat("a", 63)
	for _, bad := range []string{
		",", "DNS:a,", ",DNS:a", "a.example.org", "DNS", "DNS=a", "IPv4:192.0.2.1", "otherName:1.2.3;UTF8:x", "DNS :a", "dirName:x", "RID:1.2.3", "DNS:a;DNS:b",
		"DNS:", "DNS:.", "DNS:a.", "DNS:.a", "DNS:a..b", "DNS:-a", "DNS:a-", "DNS:a_b.example.org", "DNS:a b", "DNS:*", "DNS:*.", "DNS:a.*.org", "DNS:*a.org", "DNS:**.org",
		"DNS:*.*.org", "DNS:例え.jp", "DNS:a\x00.org", "DNS:a\n", "DNS:192.0.2.1", "DNS:example.1", "DNS:a/b", "DNS:a:443", "DNS:" + label + "a.org",
		"DNS:" + strings.Repeat(label+".", 3) + label, "IP:", "IP:192.0.2", "IP:192.0.2.256", "IP:192.0.2.0/24", "IP:01.2.3.4", "IP:::ffff:192.0.2.1", "IP:fe80::1%eth0", "IP:[2001:db8::1]", "IP:a",
		"URI:", "URI:/a", "URI:a", "URI://example.org/", "URI:https:", "URI:https://", "URI:https://a b/", "URI:https://user@example.org/", "URI:https://user:secret@example.org/",
		"URI:https://例え.jp/", "URI:https://example.org/例", "URI:HTTPS://example.org/", "URI:https://exa_mple.org/", "URI:https://example.org/\x00", "URI:https://example.org:x/",
		"URI:https://example.org/%zz", "URI:https://example.org/a,b", "URI:https://example.org/" + strings.Repeat("a", 2048),
		"email:", "email:a", "email:@a", "email:a@", "email:ä@example.org", "email:Ann <a@example.org>", "email:a@b@c",
		strings.Repeat("DNS:a,", 100) + "DNS:a",
	} {
		names, err := parseAlternativeNames(bad)
		if e := AsError(err); err == nil || names != nil || e.Code != InvalidParameter || e.Param != "SubjectAlternativeNames" || e.Detail == "" {
			t.Errorf("%.80q: %v %v", bad, names, err)
		}
	}
	for _, good := range []string{
		"", "DNS:a", "DNS:A.example", "DNS:*.a", "DNS:1.example.org", "DNS:" + label + ".org", "DNS:" + strings.Repeat(label+".", 3) + strings.Repeat("a", 61),
		"IP:0.0.0.0", "IP:::", "ip:::1", "URI:https://example.org", "URI:https://example.org:8443/a?b=c%2Cd#e", "URI:https://[2001:db8::1]:1/", "URI:https://192.0.2.1/",
		"URI:urn:oid:1.2.3", "URI:file:///etc", "EMAIL:a.b+c@example.org", "DNS:a ,  DNS:b", strings.TrimSuffix(strings.Repeat("DNS:a,", 100), ","),
	} {
		if _, err := parseAlternativeNames(good); err != nil {
			t.Errorf("%.80q: %v", good, err)
		}
	}
}

// signInfo makes a request out of an info with a key of its own, as the service does.
func signInfo(t testing.TB, key *ecdsa.PrivateKey, info []byte) []byte {
	digest := sha256.Sum256(info)
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(info)
		signatureAlgorithms[kmswire.ECDSASHA256](b)
		b.AddASN1BitString(signature)
	})
	return b.BytesOrPanic()
}

// FuzzCertificateRequest holds that whatever is accepted is read again, with the same values, by another reader.
func FuzzCertificateRequest(f *testing.F) {
	w := wholeSubject
	f.Add(w.CommonName, w.OrganizationName, w.OrganizationalUnit, w.Province, w.Locality, w.Country, w.EmailAddress, w.SubjectAlternativeNames)
	f.Add("a", "", "", "", "", "", "", "")
	f.Add("*", "&", "'", "\u3000x", "\x00", "GB", "a@b", "URI:https://example.org:8443/a?b=c%2Cd#e,IP:::1")
	f.Add("a", "", "", "", "", "", "", "URI:a://[::1],URI:x:y,URI:a:/,DNS:0,email:!@a,DNS:A--b")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, cn, o, ou, st, l, c, email, san string) {
		req := &kmswire.GenerateCsrRequest{CommonName: cn, OrganizationName: o, OrganizationalUnit: ou, Province: st, Locality: l, Country: c, EmailAddress: email}
		subject, err := parseSubject(req)
		if err != nil {
			return
		}
		names, err := parseAlternativeNames(san)
		if err != nil {
			return
		}
		info, err := requestInfo(subject, spki, names)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := x509.ParseCertificateRequest(signInfo(t, key, info))
		if err != nil {
			t.Fatalf("%+v, %q is not read: %v", req, san, err)
		}
		if err := parsed.CheckSignature(); err != nil {
			t.Fatal(err)
		}
		compareSubject(t, req, parsed)
		compareNames(t, san, parsed)
	})
}

func compareSubject(t *testing.T, req *kmswire.GenerateCsrRequest, parsed *x509.CertificateRequest) {
	var want []string
	for _, row := range subjectRows {
		if v := row.of(req); v != "" {
			want = append(want, row.oid.String()+"="+v)
		}
	}
	var got []string
	var rdns pkix.RDNSequence
	if rest, err := encodingasn1.Unmarshal(parsed.RawSubject, &rdns); err != nil || len(rest) > 0 {
		t.Fatal(err)
	}
	for _, set := range rdns {
		for _, a := range set {
			got = append(got, fmt.Sprint(a.Type.String(), "=", a.Value))
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func compareNames(t *testing.T, san string, parsed *x509.CertificateRequest) {
	want := map[string][]string{}
	if san != "" {
		for part := range strings.SplitSeq(san, ",") {
			kind, value, _ := strings.Cut(strings.Trim(part, " "), ":")
			kind = strings.ToLower(kind)
			if kind == "ip" {
				value = net.ParseIP(value).String()
			}
			want[kind] = append(want[kind], value)
		}
	}
	got := map[string][]string{"dns": parsed.DNSNames, "email": parsed.EmailAddresses}
	for _, ip := range parsed.IPAddresses {
		got["ip"] = append(got["ip"], ip.String())
	}
	for _, u := range parsed.URIs {
		got["uri"] = append(got["uri"], u.String())
	}
	for kind, values := range got {
		if !slices.Equal(values, want[kind]) {
			t.Fatalf("%s: got %q, want %q", kind, values, want[kind])
		}
	}
	if len(want) == 0 && len(parsed.Extensions) != 0 {
		t.Fatalf("nobody asked for %v", parsed.Extensions)
	}
}

// TestRequestWithoutNames holds that nothing is asked for that the caller did not ask for.
func TestRequestWithoutNames(t *testing.T) {
	f := newUseFixture(t)
	key := f.create(software, kmswire.RSA2048, "")
	r, err := f.GenerateCsr(context.Background(), root, &kmswire.GenerateCsrRequest{KeyID: key.KeyID, CommonName: "www.example.org", EmailAddress: "a@example.org", Algorithm: kmswire.RSAPSSSHA256})
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode([]byte(r.Csr))
	if block.Type != "CERTIFICATE REQUEST" || len(rest) != 0 {
		t.Errorf("%q and %d octets more", block.Type, len(rest))
	}
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || parsed.CheckSignature() != nil {
		t.Fatal(err, parsed)
	}
	if len(parsed.Extensions) != 0 || len(parsed.DNSNames) != 0 || len(parsed.EmailAddresses) != 0 {
		t.Errorf("it asks for %v", parsed.Extensions)
	}
	if want := []string{"www.example.org", "a@example.org"}; len(parsed.Subject.Names) != 2 || parsed.Subject.Names[0].Value != want[0] || parsed.Subject.Names[1].Value != want[1] {
		t.Errorf("the subject is %s", parsed.Subject)
	}
	// What crypto/x509 makes of the same has the same octets up to the signature.
	own, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: parsed.RawSubject, SignatureAlgorithm: x509.SHA256WithRSAPSS}, mustRSA(t))
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := x509.ParseCertificateRequest(own)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := algorithmOf(t, block.Bytes), algorithmOf(t, own); !bytes.Equal(got, want) {
		t.Errorf("the AlgorithmIdentifier is %x, crypto/x509 writes %x", got, want)
	}
	if got, want := len(parsed.RawTBSCertificateRequest), len(theirs.RawTBSCertificateRequest); got != want {
		t.Errorf("the request has %d octets, that of crypto/x509 %d", got, want)
	}
}

func mustRSA(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func algorithmOf(t *testing.T, csr []byte) []byte {
	t.Helper()
	var outer struct{ Info, Algorithm, Signature encodingasn1.RawValue }
	if rest, err := encodingasn1.Unmarshal(csr, &outer); err != nil || len(rest) > 0 {
		t.Fatal(err)
	}
	return outer.Algorithm.FullBytes
}
