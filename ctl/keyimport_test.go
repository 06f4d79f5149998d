package ctl

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"hash"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/kms/keywrap"
	"github.com/keyward/keyward/kms/kmswire"
)

// transport is the pair with which material comes to the fake.
var transport = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// imports is the fake's half of an import. A token names the key and the algorithm.
func (d *fakeDaemon) imports(action string, q url.Values) (any, *kmswire.ErrorBody) {
	k, no := d.key(q.Get("KeyId"))
	if no != nil {
		return nil, no
	}
	switch action {
	case "GetParametersForImport":
		req := into[kmswire.GetParametersForImportRequest](q)
		public, err := x509.MarshalPKIXPublicKey(&transport().PublicKey)
		if err != nil {
			panic(err)
		}
		return kmswire.GetParametersForImportResponse{KeyID: k.KeyID, PublicKey: public, ImportToken: []byte("\x01" + k.KeyID + " " + string(req.WrappingAlgorithm)),
			TokenExpireTime: "2026-01-02T00:00:00Z"}, nil
	case "DeleteKeyMaterial":
		delete(d.imported, k.KeyID)
		k.KeyState = kmswire.PendingImport
		return kmswire.EmptyResponse{}, nil
	}
	req := into[kmswire.ImportKeyMaterialRequest](q)
	id, alg, ok := strings.Cut(strings.TrimPrefix(string(req.ImportToken), "\x01"), " ")
	if !ok || id != k.KeyID {
		return nil, problem(400, "InvalidImportToken", "The import token is not valid.")
	}
	material, err := unwrapForTest(kmswire.Algorithm(alg), req.EncryptedKeyMaterial)
	if err != nil {
		return nil, problem(400, "InvalidKeyMaterial", "The key material is not valid.")
	}
	if d.imported == nil {
		d.imported = map[string][]byte{}
	}
	d.imported[k.KeyID] = material
	if k.KeyState == kmswire.PendingImport {
		k.KeyState = kmswire.Enabled
	}
	if at := *req.KeyMaterialExpireUnix; at != 0 {
		k.MaterialExpireTime = time.Unix(int64(at), 0).UTC().Format(time.RFC3339)
	}
	k.addVersion()
	return kmswire.EmptyResponse{}, nil
}

func unwrapForTest(alg kmswire.Algorithm, wrapped []byte) ([]byte, error) {
	if len(wrapped) < 256 {
		return nil, errors.New("short")
	}
	var h hash.Hash = sha256.New()
	if alg == kmswire.RSAOAEPSHA1 || alg == kmswire.WrapOAEPSHA1KWP {
		h = sha1.New()
	}
	if alg == kmswire.WrapPKCS1 {
		//lint:ignore SA1019 what is tested
		return rsa.DecryptPKCS1v15(nil, transport(), wrapped)
	}
	block, err := rsa.DecryptOAEP(h, nil, transport(), wrapped[:256], nil)
	if err != nil || !hybrid(alg) {
		return block, err
	}
	return keywrap.Unwrap(block, wrapped[256:])
}

func writeTemp(t *testing.T, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "material")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestKeyImport(t *testing.T) {
	d := startFake(t)
	material := bytes.Repeat([]byte{0, 0xa5}, 16)
	file := writeTemp(t, material)
	_, said := d.must(t, "key", "create", "--alias", "db", "--origin", "external")
	if !strings.Contains(said, "keywardctl key import alias/db --material FILE") {
		t.Errorf("create does not tell how to go on:\n%s", said)
	}
	for _, wrap := range append([]kmswire.Algorithm{""}, wrapAlgorithms...) {
		clear(d.imported)
		_, said := d.must(t, "key", "import", "alias/db", "--material", file, "--wrap", strings.ToLower(string(wrap)))
		if !bytes.Equal(d.imported["key-1"], material) {
			t.Errorf("--wrap %s: %x came to the daemon", wrap, d.imported["key-1"])
		}
		if !strings.Contains(said, "keep your own copy") || !strings.Contains(said, "keywardctl encrypt --key alias/db") {
			t.Errorf("--wrap %s said\n%s", wrap, said)
		}
	}
	code, _, said := d.ctl(t, string(material), "key", "import", "alias/db", "--material", "-", "--expires", "2999-12-31")
	if code != exitOK || !strings.Contains(said, "expires at 2999-12-31T00:00:00Z") {
		t.Errorf("from stdin: %d\n%s", code, said)
	}
	d.keys[0].KeyState = kmswire.Disabled
	if _, said := d.must(t, "key", "import", "alias/db", "--material", file); !strings.Contains(said, "keywardctl key enable alias/db") {
		t.Errorf("a disabled key:\n%s", said)
	}
	if stdout, _ := d.must(t, "-o", "json", "key", "import", "alias/db", "--material", file); !strings.Contains(stdout, "RequestId") {
		t.Errorf("json: %q", stdout)
	}
	d.must(t, "key", "create", "--alias", "ours")
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"nothing":             {[]string{"alias/db"}, exitUsage, "--material is missing"},
		"both":                {[]string{"alias/db", "--material", file, "--wrapped", file, "--token", file}, exitUsage, "give one of them"},
		"no token":            {[]string{"alias/db", "--wrapped", file}, exitUsage, "belong together"},
		"two from stdin":      {[]string{"alias/db", "--wrapped", "-", "--token", "-"}, exitUsage, "can't both"},
		"format of wrapped":   {[]string{"alias/db", "--wrapped", file, "--token", file, "--format", "hex"}, exitUsage, "--format"},
		"expired":             {[]string{"alias/db", "--material", file, "--expires", "2001-01-01"}, exitUsage, "over already"},
		"no date":             {[]string{"alias/db", "--material", file, "--expires", "soon"}, exitUsage, "--expires is a date"},
		"unknown wrap":        {[]string{"alias/db", "--material", file, "--wrap", "ROT13"}, exitUsage, "not known"},
		"no such file":        {[]string{"alias/db", "--material", file + "x"}, exitFailure, "no such file"},
		"a key of the daemon": {[]string{"alias/ours", "--material", file}, exitFailure, "was made by keyward"},
		"no such key":         {[]string{"alias/none", "--material", file}, exitNotFound, "alias/none"},
	} {
		code, _, said := d.ctl(t, "", append([]string{"key", "import"}, c.args...)...)
		if code != c.code || !strings.Contains(said, c.want) {
			t.Errorf("%s: exit code %d\n%s", name, code, said)
		}
	}
}

func TestKeyCreateImport(t *testing.T) {
	d := startFake(t)
	material := bytes.Repeat([]byte{1, 0xfe}, 16)
	stdout, said := d.must(t, "key", "create", "--alias", "db", "--import", writeTemp(t, material), "--expires", "12h")
	if stdout != "key-1\n" || !bytes.Equal(d.imported["key-1"], material) || !strings.Contains(said, "keywardctl encrypt --key alias/db") {
		t.Errorf("%q %x\n%s", stdout, d.imported["key-1"], said)
	}
	if k := d.keys[0]; k.MaterialExpireTime == "" || k.Origin != kmswire.OriginExternal {
		t.Errorf("%+v", k.KeyMetadata)
	}
	// A bad file makes no key.
	if code, _, said := d.ctl(t, "", "key", "create", "--import", writeTemp(t, material[1:])); code != exitFailure || len(d.keys) != 1 || !strings.Contains(said, "made of 32 octets, and this has 31") {
		t.Errorf("%d, %d keys\n%s", code, len(d.keys), said)
	}
	for _, bad := range [][]string{{"--expires", "1h"}, {"--origin", "Aliyun_KMS", "--import", "x"}} {
		if code, _, said := d.ctl(t, "", append([]string{"key", "create"}, bad...)...); code != exitUsage || len(d.keys) != 1 {
			t.Errorf("%v: %d\n%s", bad, code, said)
		}
	}
	// An import that fails leaves a key, and the words to go on.
	d.refuse["ImportKeyMaterial"] = problem(503, "ServiceUnavailableTemporary", "no HSM")
	file := writeTemp(t, material)
	code, stdout, said := d.ctl(t, "", "key", "create", "--import", file)
	if code != exitUnavailable || stdout != "" || !strings.Contains(said, "key-2 is made, but") || !strings.Contains(said, "keywardctl key import key-2 --material "+file) {
		t.Errorf("%d %q\n%s", code, stdout, said)
	}
	if d.keys[1].KeyState != kmswire.PendingImport {
		t.Errorf("%+v", d.keys[1].KeyMetadata)
	}
}

func TestImportParameters(t *testing.T) {
	d := startFake(t)
	d.must(t, "key", "create", "--alias", "db", "--origin", "external")
	dir := filepath.Join(t.TempDir(), "new")
	_, said := d.must(t, "key", "import-parameters", "alias/db", "--out", dir)
	for _, want := range []string{"rsa_oaep_md:sha256", "keywardctl key import alias/db --wrapped wrapped --token " + filepath.Join(dir, "import-token.b64"), "good until 2026-01-02T00:00:00Z"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not said:\n%s", want, said)
		}
	}
	der, err := os.ReadFile(filepath.Join(dir, "wrapping-key.der"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "wrapping-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode(text); block == nil || !bytes.Equal(block.Bytes, der) {
		t.Errorf("PEM and DER differ: %s", text)
	}
	material := bytes.Repeat([]byte{9}, 32)
	wrapped, err := wrapMaterial(der, kmswire.RSAOAEPSHA256, material)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range [][]byte{wrapped, []byte(base64.StdEncoding.EncodeToString(wrapped) + "\n")} {
		clear(d.imported)
		d.must(t, "key", "import", "alias/db", "--wrapped", writeTemp(t, file), "--token", filepath.Join(dir, "import-token.b64"))
		if !bytes.Equal(d.imported["key-1"], material) {
			t.Errorf("%x came to the daemon", d.imported["key-1"])
		}
	}
	if code, _, said := d.ctl(t, "", "key", "import-parameters", "alias/db", "--out", dir); code != exitFailure || !strings.Contains(said, "already there") {
		t.Errorf("over files that are there: %d\n%s", code, said)
	}
	d.must(t, "key", "import-parameters", "alias/db", "--out", dir, "--force")
	d.must(t, "key", "create", "--alias", "sig", "--spec", "EC_P256", "--origin", "external")
	if _, said := d.must(t, "key", "import-parameters", "alias/sig", "--out", filepath.Join(dir, "2")); !strings.Contains(said, "id-aes256-wrap-pad") {
		t.Errorf("for a private key:\n%s", said)
	}
	if code, _, _ := d.ctl(t, "", "key", "import-parameters", "alias/db"); code != exitUsage {
		t.Errorf("without --out: %d", code)
	}
}

func TestDeleteMaterial(t *testing.T) {
	d := startFake(t)
	d.must(t, "key", "create", "--alias", "db", "--import", writeTemp(t, bytes.Repeat([]byte{9}, 32)))
	if code, _, said := d.ctl(t, "", "key", "delete-material", "alias/db"); code != exitUsage || len(d.imported) != 1 || !strings.Contains(said, "--yes") {
		t.Errorf("unasked: %d\n%s", code, said)
	}
	if _, said := d.must(t, "--yes", "key", "delete-material", "alias/db"); len(d.imported) != 0 || !strings.Contains(said, "keywardctl key import alias/db") {
		t.Errorf("%x\n%s", d.imported, said)
	}
	d.must(t, "key", "create", "--alias", "ours")
	if code, _, said := d.ctl(t, "", "--yes", "key", "delete-material", "alias/ours"); code != exitFailure || !strings.Contains(said, "made by keyward") {
		t.Errorf("a key of the daemon: %d\n%s", code, said)
	}
}

func TestParseOctets(t *testing.T) {
	raw := append(bytes.Repeat([]byte{0xe1}, 31), '\n')
	text := []byte("0123456789abcdef0123456789abcdef")
	for name, c := range map[string]struct {
		file   []byte
		format string
		want   []byte
		err    string
	}{
		"raw":                   {raw, "auto", raw, ""},
		"hex":                   {[]byte(hex.EncodeToString(raw) + "\n"), "auto", raw, ""},
		"hex in groups":         {[]byte(strings.ToUpper(hex.EncodeToString(raw[:16])) + " " + hex.EncodeToString(raw[16:])), "auto", raw, ""},
		"base64":                {[]byte(base64.StdEncoding.EncodeToString(raw)), "auto", raw, ""},
		"text of the size":      {text, "auto", nil, "say --format"},
		"text, meant":           {text, "raw", text, ""},
		"text, of fewer octets": {text, "hex", nil, "is hex of 16"},
		"a newline more":        {append(bytes.Clone(raw), '\n'), "auto", nil, "newline"},
		"short":                 {raw[:31], "auto", nil, "made of 32 octets, and this has 31"},
		"no hex":                {raw, "hex", nil, "it is not hex"},
		"no base64":             {raw, "base64", nil, "it is not base64"},
		"pem":                   {[]byte("-----BEGIN PRIVATE KEY-----\n"), "auto", nil, "--spec"},
		"another format":        {raw, "pem", nil, "not one for a symmetric key"},
	} {
		got, err := parseMaterial(c.file, kmswire.AES256, c.format)
		if c.err == "" && (err != nil || !bytes.Equal(got, c.want)) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %x %v, want %x %s", name, got, err, c.want, c.err)
		}
	}
}

func TestParsePrivateKeys(t *testing.T) {
	check := func(der []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey := transport()
	ecSEC1, ec8 := check(x509.MarshalECPrivateKey(ec)), check(x509.MarshalPKCS8PrivateKey(ec))
	rsa1, rsa8 := x509.MarshalPKCS1PrivateKey(rsaKey), check(x509.MarshalPKCS8PrivateKey(rsaKey))
	curve := check(asn1.Marshal(oidP256))
	bare := check(asn1.Marshal(struct {
		Version int
		D       []byte
	}{1, check(ec.Bytes())}))
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	locked := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: rsa1, Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}}))
	public := check(x509.MarshalPKIXPublicKey(&ec.PublicKey))
	for name, c := range map[string]struct {
		file string
		spec kmswire.KeySpec
		key  any
		err  string
	}{
		"PKCS#8 PEM":           {"a comment\n" + block("PRIVATE KEY", ec8), kmswire.ECP256, ec, ""},
		"PKCS#8 DER":           {string(ec8), kmswire.ECP256, ec, ""},
		"SEC 1 PEM":            {block("EC PRIVATE KEY", ecSEC1), kmswire.ECP256, ec, ""},
		"with EC PARAMETERS":   {block("EC PARAMETERS", curve) + block("EC PRIVATE KEY", ecSEC1), kmswire.ECP256, ec, ""},
		"the curve from there": {block("EC PARAMETERS", curve) + block("EC PRIVATE KEY", bare), kmswire.ECP256, ec, ""},
		"no curve":             {block("EC PRIVATE KEY", bare), kmswire.ECP256, nil, "does not say its curve"},
		"SEC 1 DER":            {string(ecSEC1), kmswire.ECP256, ec, ""},
		"PKCS#1 PEM":           {block("RSA PRIVATE KEY", rsa1), kmswire.RSA2048, rsaKey, ""},
		"PKCS#1 DER":           {string(rsa1), kmswire.RSA2048, rsaKey, ""},
		"PKCS#8 of RSA":        {block("PRIVATE KEY", rsa8) + block("CERTIFICATE", public), kmswire.RSA2048, rsaKey, ""},
		"hex":                  {hex.EncodeToString(ec8), kmswire.ECP256, nil, "neither PEM nor DER"},
		"another size":         {string(rsa1), kmswire.RSA4096, nil, "is RSA_2048, and the key was made as RSA_4096"},
		"another kind":         {string(ec8), kmswire.RSA2048, nil, "is EC_P256, and"},
		"another curve":        {string(check(x509.MarshalPKCS8PrivateKey(p384))), kmswire.ECP256, nil, "another curve (1.3.132.0.34)"},
		"two keys":             {block("PRIVATE KEY", ec8) + block("PRIVATE KEY", rsa8), kmswire.ECP256, nil, "two private keys"},
		"a public key":         {block("PUBLIC KEY", public), kmswire.ECP256, nil, "only a PUBLIC KEY"},
		"a public key in DER":  {string(public), kmswire.ECP256, nil, "no private key in the clear"},
		"encrypted PKCS#8":     {block("ENCRYPTED PRIVATE KEY", ec8), kmswire.ECP256, nil, "encrypted with a passphrase"},
		"encrypted PKCS#1":     {locked, kmswire.RSA2048, nil, "encrypted with a passphrase"},
		"octets":               {"0123456789abcdef0123456789abcdef", kmswire.ECP256, nil, "neither PEM nor DER"},
		"PEM without a key":    {"-----BEGIN ", kmswire.ECP256, nil, "no key material"},
		"more behind":          {string(ec8) + "x", kmswire.ECP256, nil, "neither PEM nor DER"},
		"unknown spec":         {string(ec8), "EC_P999", nil, "does not know what a key of spec EC_P999"},
	} {
		got, err := parseMaterial([]byte(c.file), c.spec, "auto")
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", name, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		parsed, err := x509.ParsePKCS8PrivateKey(got)
		switch key := parsed.(type) {
		case *rsa.PrivateKey:
			if !key.Equal(c.key.(*rsa.PrivateKey)) {
				t.Errorf("%s: another key", name)
			}
		case *ecdsa.PrivateKey:
			if !key.Equal(c.key.(*ecdsa.PrivateKey)) {
				t.Errorf("%s: another key", name)
			}
		default:
			t.Errorf("%s: %T %v", name, parsed, err)
		}
	}
	if got, err := parseMaterial([]byte(base64.StdEncoding.EncodeToString(ec8)), kmswire.ECP256, "base64"); err != nil || !bytes.Equal(got, ec8) {
		t.Errorf("base64: %v", err)
	}
	if _, err := parseMaterial(ec8, kmswire.ECP256, "raw"); err == nil {
		t.Error("a private key as raw octets")
	}
}

func TestParseExpiry(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]string{
		"never": "0", "": "0", "Never": "0",
		"2026-01-03": "2026-01-03T00:00:00Z", "2026-01-02T03:04:06Z": "2026-01-02T03:04:06Z", "2026-01-02T05:04:06+02:00": "2026-01-02T03:04:06Z",
		"90d": "2026-04-02T03:04:05Z", "12h": "2026-01-02T15:04:05Z",
		"2026-01-02": "", "0d": "", "-1d": "", "-1h": "", "tomorrow": "", "d": "", "99999999999d": "",
	} {
		got, err := (&importFlags{expires: text}).expiry(now)
		is := "0"
		if got != 0 {
			is = time.Unix(int64(got), 0).UTC().Format(time.RFC3339)
		}
		if (err != nil) != (want == "") || err == nil && is != want {
			t.Errorf("%s: %s %v, want %q", strconv.Quote(text), is, err, want)
		}
	}
}

// FuzzParsePrivateKey: whatever is in a file, there is an answer, and what is taken is PKCS#8 that is taken again.
func FuzzParsePrivateKey(f *testing.F) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sec1)
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}))
	f.Add(x509.MarshalPKCS1PrivateKey(transport()))
	f.Fuzz(func(t *testing.T, file []byte) {
		for spec := range signAlgorithms {
			got, err := parseMaterial(file, spec, "auto")
			if err != nil {
				continue
			}
			again, err := parseMaterial(got, spec, "der")
			if err != nil || !bytes.Equal(again, got) {
				t.Fatalf("%x: %v", got, err)
			}
		}
	})
}
