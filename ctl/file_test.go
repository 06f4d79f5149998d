package ctl

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"filippo.io/age"
)

// inDir works in a directory of its own.
func inDir(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// names lists the directory, hidden files too.
func names(t *testing.T) string {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func random(n int) []byte {
	data := make([]byte, n)
	rand.Read(data)
	return data
}

func TestEncryptFile(t *testing.T) {
	d := startFake(t)
	inDir(t)
	d.must(t, "key", "create", "--alias", "a")
	data := random(3 << 20)
	write(t, "my file", data)
	_, talk := d.must(t, "encrypt", "--key", "alias/a", "--context", "app=db", "my file")
	if want := "my file.age: 3.0 MiB under key-1\nnext: keywardctl decrypt 'my file.age'\n"; talk != want {
		t.Errorf("%q", talk)
	}
	if bytes.Contains(read(t, "my file.age"), data[:32]) {
		t.Error("the plaintext is in the file")
	}
	os.Remove("my file")
	d.must(t, "decrypt", "my file.age")
	if !bytes.Equal(read(t, "my file"), data) {
		t.Error("another file came back")
	}
	if info, err := os.Stat("my file"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if got := names(t); got != "my file my file.age" {
		t.Errorf("the directory has %q", got)
	}
}

func TestEncryptStreams(t *testing.T) {
	d := startFake(t)
	inDir(t)
	d.must(t, "key", "create", "--alias", "a")
	data := random(200_000)
	code, sealed, talk := d.ctlFrom(t, bytes.NewReader(data), "encrypt", "-k", "alias/a")
	if code != exitOK || talk != "" {
		t.Fatalf("%d %q", code, talk)
	}
	code, opened, _ := d.ctl(t, sealed, "decrypt", "-")
	if code != exitOK || opened != string(data) {
		t.Errorf("exit code %d, %d octets", code, len(opened))
	}
	write(t, "f.age", []byte(sealed))
	if out, _ := d.must(t, "decrypt", "--out", "-", "f.age"); out != string(data) {
		t.Error("to stdout")
	}
	d.must(t, "decrypt", "--out", "other", "f.age")
	d.must(t, "decrypt", "--out", os.DevNull, "f.age")
	if !bytes.Equal(read(t, "other"), data) {
		t.Error("to another name")
	}
	// What was written before the cut was authenticated; that it is not all is told.
	code, opened, talk = d.ctl(t, sealed[:len(sealed)-100], "decrypt")
	if code != exitFailure || !strings.HasPrefix(string(data), opened) || !strings.Contains(talk, "do not use what was written so far") {
		t.Errorf("cut: %d, %d octets, %q", code, len(opened), talk)
	}
}

// TestNothingHalfWritten walks the ways in which encrypt and decrypt fail; none may leave or touch a file.
func TestNothingHalfWritten(t *testing.T) {
	d := startFake(t)
	inDir(t)
	d.must(t, "key", "create", "--alias", "a")
	d.must(t, "key", "create", "--alias", "b")
	write(t, "f", random(300_000))
	d.must(t, "encrypt", "--key", "alias/a", "--context", "app=db", "f")
	good := read(t, "f.age")
	os.Remove("f")
	// The payload comes after the header's MAC (43 characters and a line end) and a nonce.
	payload := bytes.Index(good, []byte("\n--- ")) + 5 + 44 + 16
	change := func(at int) []byte {
		bad := bytes.Clone(good)
		bad[at] ^= 1
		return bad
	}
	for name, row := range map[string]struct {
		data []byte
		args string
		code int
		want string
	}{
		"cut":             {good[:200_000], "", 1, "nothing was written"},
		"cut at a chunk":  {good[:payload+2*(64<<10+16)], "", 1, "the file is cut: its end is missing; nothing was written"},
		"changed header":  {change(bytes.Index(good, []byte("\n--- ")) + 8), "", 1, ""},
		"changed payload": {change(len(good) - 5), "", 1, "g.age: the file is damaged: it was changed, or its end is missing; nothing was written"},
		"trailing data":   {append(bytes.Clone(good), 'x'), "", 1, "nothing was written"},
		"empty":           {nil, "", 1, "file is empty"},
		"no age file":     {[]byte("hello"), "", 1, "g.age: this is not an encrypted file of keywardctl"},
		"other context":   {good, "--context app=web", 1, `app="db"`},
		"other key":       {good, "--key alias/b", 1, "under key key-1, not key-2"},
		"no such key":     {good, "--key alias/c", 4, "alias list"},
	} {
		write(t, "g.age", row.data)
		args := append([]string{"decrypt"}, strings.Fields(row.args)...)
		code, _, stderr := d.ctl(t, "", append(args, "g.age")...)
		if code != row.code || !strings.Contains(stderr, row.want) {
			t.Errorf("%s: exit code %d, %q", name, code, stderr)
		}
		os.Remove("g.age")
		if got := names(t); got != "f.age" {
			t.Fatalf("%s: the directory has %q", name, got)
		}
	}
	write(t, "g.age", good)
	d.keys[0].KeyState = "Disabled"
	if code, _, stderr := d.ctl(t, "", "decrypt", "g.age"); code != exitState || names(t) != "f.age g.age" {
		t.Errorf("disabled: %d %q", code, stderr)
	}
	d.keys[0].KeyState = "Enabled"

	write(t, "g", []byte("precious"))
	if code, _, stderr := d.ctl(t, "", "decrypt", "g.age"); code != exitFailure || !strings.Contains(stderr, "g is already there") || string(read(t, "g")) != "precious" {
		t.Errorf("a file in the way: %d %q", code, stderr)
	}
	if code, _, _ := d.ctl(t, "", "encrypt", "--key", "alias/a", "--out", "g", "f.age"); code != exitFailure || string(read(t, "g")) != "precious" {
		t.Errorf("encrypt onto a file: %d", code)
	}
	write(t, "bad.age", good[:1000])
	if code, _, _ := d.ctl(t, "", "decrypt", "--force", "--out", "g", "bad.age"); code != exitFailure || string(read(t, "g")) != "precious" {
		t.Errorf("a bad file with --force: %d, %q", code, read(t, "g"))
	}
	d.must(t, "decrypt", "--force", "g.age")
	if len(read(t, "g")) != 300_000 {
		t.Error("--force does not replace")
	}
	for _, args := range [][]string{{"decrypt", "g"}, {"decrypt", ".age"}} {
		if args[1] == ".age" {
			write(t, ".age", good)
		}
		if code, _, stderr := d.ctl(t, "", args...); code != exitUsage || !strings.Contains(stderr, "--out") {
			t.Errorf("%v: %d %q", args, code, stderr)
		}
	}
	for _, args := range [][]string{{"encrypt", "--key", "alias/a", "nothing"}, {"encrypt", "--key", "alias/a", "."}, {"encrypt", "--key", "alias/a", "--out", "no/such/dir", "g"}} {
		if code, _, stderr := d.ctl(t, "", args...); code == exitOK || stderr == "" || strings.Contains(stderr, ".partial") {
			t.Errorf("%v: %d %q", args, code, stderr)
		}
	}
	if got := names(t); got != ".age bad.age f.age g g.age" {
		t.Errorf("the directory has %q", got)
	}
}

// TestJSONOfFiles makes files under -o json: stdout says what was made, or has the data itself and nothing else.
func TestJSONOfFiles(t *testing.T) {
	d := startFake(t)
	inDir(t)
	d.must(t, "key", "create", "--alias", "a")
	d.must(t, "key", "create", "--alias", "s", "--spec", "EC_P256")
	write(t, "f", []byte("data"))
	for _, row := range []struct{ line, want string }{
		{"encrypt --key alias/a f", `{"File":"f.age","KeyId":"key-1","PlaintextOctets":4}`},
		{"decrypt --force f.age", `{"File":"f","KeyId":"key-1","PlaintextOctets":4}`},
		{"decrypt --out - f.age", "data"},
		{"sign --key alias/s f", `{"File":"f.sig","KeyId":"key-2","KeyVersionId":"key-2-v1","Algorithm":"ECDSA_SHA_256"}`},
		{"encrypt --direct --key alias/a --out f.kms f", `{"File":"f.kms","KeyId":"key-1"}`},
		{"decrypt --direct --out f2 f.kms", `{"File":"f2","KeyId":"key-1","PlaintextOctets":4}`},
	} {
		out, _ := d.must(t, append(strings.Fields(row.line), "-o", "json")...)
		got := out
		var compact bytes.Buffer
		if json.Compact(&compact, []byte(out)) == nil {
			got = compact.String()
		}
		if strings.TrimSpace(got) != row.want {
			t.Errorf("%s: %s", row.line, got)
		}
	}
}

// TestOutputFails writes to a full disk, which is what /dev/full is. The error names the output and not the input.
func TestOutputFails(t *testing.T) {
	d := startFake(t)
	inDir(t)
	d.must(t, "key", "create", "--alias", "a")
	d.must(t, "key", "create", "--alias", "s", "--spec", "EC_P256")
	write(t, "f", random(300_000))
	d.must(t, "encrypt", "--key", "alias/a", "f")
	for _, line := range []string{"encrypt --key alias/a f", "decrypt f.age", "sign --key alias/s f", "encrypt --key alias/a --direct g"} {
		write(t, "g", []byte("secret"))
		args := strings.Fields(line)
		code, _, stderr := d.ctl(t, "", append(args, "--out", "/dev/full")...)
		if want := "keywardctl " + args[0] + ": /dev/full: no space left on device\n"; code != exitFailure || stderr != want {
			t.Errorf("%s: exit code %d, %q", line, code, stderr)
		}
	}
}

// TestLongName encrypts a file whose name is as long as a name can be.
func TestLongName(t *testing.T) {
	d := startFake(t)
	inDir(t)
	d.must(t, "key", "create", "--alias", "a")
	name := strings.Repeat("n", 255-len(suffix))
	write(t, name, []byte("data"))
	d.must(t, "encrypt", "--key", "alias/a", name)
	os.Remove(name)
	d.must(t, "decrypt", name+suffix)
}

// TestInterrupted stops an encryption in its middle.
func TestInterrupted(t *testing.T) {
	d := startFake(t)
	inDir(t)
	d.must(t, "key", "create", "--alias", "a")
	ctx, cancel := context.WithCancel(t.Context())
	source := readerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	var out, talk bytes.Buffer
	code := run(ctx, []string{"--socket", d.socket, "encrypt", "--key", "alias/a", "--out", "f.age"}, source, &out, &talk)
	if code != exitFailure || !strings.Contains(talk.String(), "interrupted") || names(t) != "" {
		t.Errorf("%d %q, the directory has %q", code, talk.String(), names(t))
	}
	fault := errors.New("disk on fire")
	code, _, stderr := d.ctlFrom(t, readerFunc(func(p []byte) (int, error) { return 0, fault }), "encrypt", "--key", "alias/a", "--out", "f.age")
	if code != exitFailure || !strings.Contains(stderr, "disk on fire") || names(t) != "" {
		t.Errorf("%d %q", code, stderr)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestPublishRace: a file that came while we worked is not replaced.
func TestPublishRace(t *testing.T) {
	inDir(t)
	c := &cli{}
	o, err := c.createOutput("f", 0o600, false, true)
	if err != nil {
		t.Fatal(err)
	}
	defer o.discard()
	write(t, "f", []byte("theirs"))
	if err := o.commit(); err == nil || string(read(t, "f")) != "theirs" {
		t.Errorf("%v, %q", err, read(t, "f"))
	}
	o.discard()
	if got := names(t); got != "f" {
		t.Errorf("the directory has %q", got)
	}
}

// TestPlainAge: a file of the age tool is told apart, and one of ours is a valid age file.
func TestPlainAge(t *testing.T) {
	d := startFake(t)
	inDir(t)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var theirs bytes.Buffer
	w, err := age.Encrypt(&theirs, id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "x")
	w.Close()
	if code, _, stderr := d.ctl(t, theirs.String(), "decrypt"); code != exitFailure || !strings.Contains(stderr, "encrypted without keyward, for X25519") {
		t.Errorf("%d %q", code, stderr)
	}
	d.must(t, "key", "create", "--alias", "a")
	_, ours, _ := d.ctl(t, "data", "encrypt", "-k", "alias/a")
	_, err = age.Decrypt(strings.NewReader(ours), id)
	if e, ok := errors.AsType[*age.NoIdentityMatchError](err); !ok || len(e.StanzaTypes) != 1 || e.StanzaTypes[0] != "keyward" {
		t.Errorf("%v", err)
	}
}

func TestDirect(t *testing.T) {
	d := startFake(t)
	inDir(t)
	d.must(t, "key", "create", "--alias", "a")
	d.must(t, "key", "create", "--alias", "b")
	code, blob, stderr := d.ctl(t, "secret", "encrypt", "--direct", "--key", "alias/a", "--context", "app=db")
	if code != exitOK || !strings.HasSuffix(blob, "\n") || strings.Count(blob, "\n") != 1 {
		t.Fatalf("%d %q %q", code, blob, stderr)
	}
	wrapped := blob[:10] + "\n  " + blob[10:]
	if code, out, stderr := d.ctl(t, wrapped, "decrypt", "--direct", "--context", "app=db", "--key", "alias/a"); code != exitOK || out != "secret" {
		t.Errorf("%d %q %q", code, out, stderr)
	}
	for args, want := range map[string]string{
		"":                            "CiphertextBlob",
		"--context app=web":           "CiphertextBlob",
		"--context app=db --key b":    "Forbidden.KeyNotFound",
		"--context app=db -k alias/b": "under key key-1, not key-2",
		"--algorithm x":               "go with --key",
		"--binary --context app=db":   "CiphertextBlob",
		"-k alias/a --key-version 1":  "symmetric key",
	} {
		if code, out, stderr := d.ctl(t, blob, append([]string{"decrypt", "--direct"}, strings.Fields(args)...)...); code == exitOK || out != "" || !strings.Contains(stderr, want) {
			t.Errorf("%q: %d %q %q", args, code, out, stderr)
		}
	}
	if code, _, stderr := d.ctl(t, "!!", "decrypt", "--direct"); code != exitFailure || !strings.Contains(stderr, "not base64") {
		t.Errorf("%d %q", code, stderr)
	}
	if code, _, stderr := d.ctl(t, strings.Repeat("x", 6145), "encrypt", "--direct", "-k", "alias/a"); code != exitFailure || !strings.Contains(stderr, "more than 6144 octets") {
		t.Errorf("%d %q", code, stderr)
	}
	// re-encrypt moves it.
	code, moved, stderr := d.ctl(t, blob, "re-encrypt", "--to", "alias/b", "--context", "app=db")
	if code != exitOK {
		t.Fatal(stderr)
	}
	if code, out, stderr := d.ctl(t, moved, "decrypt", "--direct", "-k", "alias/b"); code != exitOK || out != "secret" {
		t.Errorf("%d %q %q", code, out, stderr)
	}
}

// TestDirectRSA decrypts what OpenSSL encrypted under the exported public key.
func TestDirectRSA(t *testing.T) {
	d := startFake(t)
	inDir(t)
	d.must(t, "key", "create", "--alias", "rsa", "--spec", "RSA_2048", "--usage", "encrypt")
	pemText, _ := d.must(t, "key", "public-key", "alias/rsa")
	write(t, "pub.pem", []byte(pemText))
	write(t, "secret", []byte("for the RSA key"))
	if out, err := exec.Command("openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", "pub.pem", "-pkeyopt", "rsa_padding_mode:oaep",
		"-pkeyopt", "rsa_oaep_md:sha256", "-in", "secret", "-out", "secret.rsa").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, _ := d.must(t, "decrypt", "--direct", "--binary", "--key", "alias/rsa", "secret.rsa"); out != "for the RSA key" {
		t.Errorf("%q", out)
	}
	d.must(t, "encrypt", "--direct", "--key", "alias/rsa", "--out", "ours", "secret")
	if out, _ := d.must(t, "decrypt", "--direct", "--key", "alias/rsa", "ours"); out != "for the RSA key" {
		t.Errorf("%q", out)
	}
	if code, _, stderr := d.ctl(t, "x", "encrypt", "--direct", "-k", "alias/rsa", "--context", "a=b"); code != exitUsage || !strings.Contains(stderr, "asymmetric") {
		t.Errorf("%d %q", code, stderr)
	}
}

func TestDataKey(t *testing.T) {
	d := startFake(t)
	inDir(t)
	d.must(t, "key", "create", "--alias", "a")
	out, _ := d.must(t, "data-key", "generate", "--key", "alias/a", "--bytes", "48", "--context", "a=b")
	fields := strings.Fields(out)
	if len(fields) != 4 || fields[0] != "Plaintext" || fields[2] != "CiphertextBlob" {
		t.Fatalf("%q", out)
	}
	want, err := base64.StdEncoding.DecodeString(fields[1])
	if err != nil || len(want) != 48 {
		t.Errorf("%v, %d octets", err, len(want))
	}
	if code, got, stderr := d.ctl(t, fields[3], "decrypt", "--direct", "--context", "a=b"); code != exitOK || got != string(want) {
		t.Errorf("%d %q", code, stderr)
	}
	if out, _ = d.must(t, "data-key", "generate", "-k", "alias/a", "--without-plaintext"); len(strings.Fields(out)) != 1 {
		t.Errorf("%q", out)
	}
	write(t, "no.pem", []byte("nothing"))
	if code, _, stderr := d.ctl(t, "", "data-key", "generate", "-k", "alias/a", "--export-to", "no.pem"); code != exitFailure || !strings.Contains(stderr, "openssl pkey") {
		t.Errorf("%d %q", code, stderr)
	}
}

// TestSign has OpenSSL check what sign writes, with the very commands that sign prints.
func TestSign(t *testing.T) {
	d := startFake(t)
	inDir(t)
	write(t, "app.tar", random(2<<20))
	write(t, "other", []byte("other"))
	d.must(t, "key", "create", "--alias", "rsa", "--spec", "RSA_2048")
	d.must(t, "key", "create", "--alias", "ec", "--spec", "EC_P256")
	for _, row := range []struct{ key, flags string }{
		{"rsa", ""},
		{"rsa", "--algorithm rsa_pss_sha_256"},
		{"rsa", "--format raw --algorithm RSA_PKCS1_SHA_256"},
		{"ec", ""},
		{"ec", "--format der"},
		{"ec", "--key-version key-2-v1"},
	} {
		os.Remove("app.tar.sig")
		args := append([]string{"sign", "--key", "alias/" + row.key}, strings.Fields(row.flags)...)
		_, talk := d.must(t, append(args, "app.tar")...)
		pub, _ := d.must(t, "key", "public-key", "alias/"+row.key)
		write(t, "public.pem", []byte(pub))
		at := strings.Index(talk, "openssl dgst")
		if at < 0 {
			t.Fatalf("%v: no command in %q", row, talk)
		}
		command := strings.TrimSpace(talk[at:])
		if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil || !strings.Contains(string(out), "Verified OK") {
			t.Errorf("%v: %s: %v %s", row, command, err, out)
		}
		verify := append([]string{"verify", "--key", "alias/" + row.key, "--signature", "app.tar.sig"}, strings.Fields(row.flags)...)
		if _, talk := d.must(t, append(verify, "app.tar")...); !strings.Contains(talk, "the signature is good") {
			t.Errorf("%v: %q", row, talk)
		}
		if code, _, stderr := d.ctl(t, "", append(verify, "other")...); code != exitFailure || !strings.Contains(stderr, "NOT good") {
			t.Errorf("%v: another file: %d %q", row, code, stderr)
		}
	}
	// raw ECDSA: r and s. The other versions of the key are tried too.
	_, raw, _ := d.ctl(t, "message", "sign", "--key", "alias/ec", "--format", "raw")
	if len(raw) != 64 {
		t.Errorf("%d octets", len(raw))
	}
	d.must(t, "key", "rotate", "alias/ec")
	write(t, "raw.sig", []byte(raw))
	if code, _, talk := d.ctl(t, "message", "verify", "--key", "alias/ec", "--format", "raw", "--signature", "raw.sig"); code != exitOK || !strings.Contains(talk, "signed by key-2-v1") {
		t.Errorf("%d %q", code, talk)
	}
	if code, out, _ := d.ctl(t, "message", "verify", "-o", "json", "--key", "alias/ec", "--format", "raw", "--signature", "raw.sig", "--key-version", "key-2-v2"); code != exitFailure || !strings.Contains(out, `"Value": false`) {
		t.Errorf("a version that did not sign: %d %q", code, out)
	}
	d.must(t, "key", "create", "--alias", "aes")
	os.Remove("app.tar.sig")
	for args, want := range map[string]string{
		"--key alias/aes": "can't sign",
		"--key alias/rsa --algorithm ECDSA_SHA_256":             "not for RSA_2048 keys",
		"--key alias/rsa --format der":                          "one plain form",
		"--key alias/rsa --format x":                            "one of raw, der, cms",
		"--key alias/rsa --key-version nothing":                 "KeyVersionNotFound",
		"--key alias/rsa --out app.tar":                         "already there",
		"--key alias/rsa --format cms --certificate public.pem": "no certificate",
	} {
		if code, _, stderr := d.ctl(t, "", append(append([]string{"sign"}, strings.Fields(args)...), "app.tar")...); code == exitOK || !strings.Contains(stderr, want) {
			t.Errorf("sign %s: %d %q", args, code, stderr)
		}
	}
}

// TestSignCMS goes from a certificate request to openssl cms -verify.
func TestSignCMS(t *testing.T) {
	d := startFake(t)
	inDir(t)
	write(t, "app.tar", random(100_000))
	write(t, "empty.crt", nil)
	for _, spec := range []string{"RSA_2048", "EC_P256"} {
		alias := strings.ToLower(spec)
		d.must(t, "key", "create", "--alias", alias, "--spec", spec)
		pub, _ := d.must(t, "key", "public-key", "alias/"+alias)
		write(t, "public.pem", []byte(pub))
		// A throw-away CA certifies the public key.
		for _, command := range []string{
			"openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=CA -days 2",
			"openssl req -new -newkey rsa:2048 -nodes -keyout tmp.key -out tmp.csr -subj /CN=release",
			"openssl x509 -req -in tmp.csr -force_pubkey public.pem -CA ca.crt -CAkey ca.key -CAcreateserial -out release.crt -days 2",
		} {
			if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v %s", command, err, out)
			}
		}
		algorithms := []string{""}
		if spec == "RSA_2048" {
			algorithms = append(algorithms, "RSA_PSS_SHA_256")
		}
		for _, algorithm := range algorithms {
			_, talk := d.must(t, "sign", "--force", "--key", "alias/"+alias, "--algorithm", algorithm, "--format", "cms", "--certificate", "release.crt", "app.tar")
			at := strings.Index(talk, "openssl cms")
			if at < 0 {
				t.Fatalf("no command in %q", talk)
			}
			command, _, _ := strings.Cut(strings.Replace(talk[at:], "CA.pem", "ca.crt", 1), "\n")
			if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
				t.Errorf("%s %s: %s: %v %s", spec, algorithm, command, err, out)
			}
		}
		if code, _, stderr := d.ctl(t, "", "sign", "--key", "alias/"+alias, "--format", "cms", "--certificate", "ca.crt", "--out", "x", "app.tar"); code != exitFailure || !strings.Contains(stderr, "is not for version") {
			t.Errorf("another key's certificate: %d %q", code, stderr)
		}
	}
}

func TestECDSAForms(t *testing.T) {
	raw := append(make([]byte, 31), 1)
	raw = append(raw, bytes.Repeat([]byte{0xff}, 32)...)
	der, err := ecdsaDER(raw)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := ecdsaRaw(der); err != nil || !bytes.Equal(back, raw) {
		t.Errorf("%x, %v", back, err)
	}
	if _, err := ecdsaDER(raw[:63]); err == nil {
		t.Error("63 octets are accepted")
	}
	for name, bad := range map[string][]byte{"trailing": append(bytes.Clone(der), 0), "empty": nil, "zero": {0x30, 6, 2, 1, 0, 2, 1, 1}, "negative": {0x30, 6, 2, 1, 0xff, 2, 1, 1}} {
		if _, err := ecdsaRaw(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestConstantMemory sends a large stream through and looks at how much was kept.
func TestConstantMemory(t *testing.T) {
	d := startFake(t)
	inDir(t)
	d.must(t, "key", "create", "--alias", "a")
	const size = 64 << 20
	h := sha256.New()
	source := io.TeeReader(io.LimitReader(readerFunc(func(p []byte) (int, error) {
		for i := range p {
			p[i] = byte(i)
		}
		return len(p), nil
	}), size), h)
	if code, _, stderr := d.ctlFrom(t, source, "encrypt", "-k", "alias/a", "--out", "big.age"); code != exitOK {
		t.Fatal(stderr)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	d.must(t, "decrypt", "big.age")
	runtime.ReadMemStats(&after)
	// age makes garbage for each chunk; what counts is that the heap does not grow with the file.
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > size/3 {
		t.Errorf("decrypting %d octets made the heap %d larger", size, grown)
	}
	back := sha256.Sum256(read(t, "big"))
	if !bytes.Equal(back[:], h.Sum(nil)) {
		t.Error("another file came back")
	}
}
