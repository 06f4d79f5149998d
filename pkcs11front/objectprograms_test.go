package pkcs11front

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// programTest is a command line of a real program, in which @ stands for a directory with files and $M for p11-kit's client.
type programTest struct {
	command string
	says    string // a word that what it says must have, with ! one that it must not; empty: nothing is looked at
	fails   bool
}

// runPrograms runs programs one after the other.
func (e *testEnv) runPrograms(t *testing.T, dir string, tests []programTest) {
	t.Helper()
	for _, test := range tests {
		words := strings.Fields(strings.NewReplacer("@", dir+"/", "$M", p11kitClient).Replace(test.command))
		out, err := e.program(words[0], words[1:]...)
		if (err != nil) != test.fails {
			t.Errorf("%s: %v\n%s", test.command, err, out)
			continue
		}
		for _, word := range strings.Fields(test.says) {
			if bare, not := strings.CutPrefix(word, "!"); strings.Contains(out, bare) == not {
				t.Errorf("%s: %q in\n%s", test.command, word, out)
			}
		}
	}
}

// programFiles makes a directory with a certificate, keys and data.
func programFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	put := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key := testRSA()
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	info, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	ec := mustEC(t)
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	put("cert.der", testCertificate(t))
	put("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: testCertificate(t)}))
	put("rsa.der", x509.MarshalPKCS1PrivateKey(key))
	put("rsa.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	put("ec.der", sec1)
	put("public.der", info)
	put("public.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: info}))
	put("secret.bin", secret)
	put("noise", secret)
	return dir
}

// TestPKCS11Tool has OpenSC's tool make, bring along, list and destroy objects.
func TestPKCS11Tool(t *testing.T) {
	e := newEnv(t)
	const soft, hard = "pkcs11-tool --module $M --token-label kst-software ", "pkcs11-tool --module $M --token-label kst-hardware "
	e.runPrograms(t, programFiles(t), []programTest{
		{command: soft + "--keypairgen --key-type EC:prime256v1 --label ec --id 01", says: "Usage: sign never !derive"},
		{command: soft + "--keypairgen --key-type rsa:2048 --label rsa --id 02", says: "sign verify !decrypt"},
		{command: hard + "--keypairgen --key-type rsa:2048 --label both --id 03", says: "decrypt,"},
		{command: soft + "--keygen --key-type AES:32 --label aes --id 04", says: "encrypt, decrypt sensitive, local"},
		{command: hard + "--keygen --key-type AES:16 --label aes --id 04", says: "length 16"},
		{command: soft + "--keygen --key-type AES:32 --label aes --id 05 --extractable", says: "CKR_TEMPLATE_INCONSISTENT", fails: true},
		{command: soft + "--write-object @cert.der --type cert --label brought --id 06", says: "Certificate CN=test"},
		{command: soft + "--write-object @rsa.der --type privkey --label brought --id 06", says: "sensitive !local"},
		{command: hard + "--write-object @ec.der --type privkey --label brought --id 06", says: "sensitive !local"},
		{command: soft + "--write-object @public.der --type pubkey --label other --id 07", says: "verify"},
		{command: soft + "--write-object @secret.bin --type secrkey --key-type AES:32 --label brought --id 08", says: "32"},
		{command: soft + "--write-object @secret.bin --type data --label note --application-label app", says: "note app"},
		{command: soft + "--read-object --type data --label note --output-file @back.bin"},
		{command: "cmp @back.bin @secret.bin"},
		{command: soft + "--read-object --type cert --id 06 --output-file @back.der"},
		{command: "cmp @back.der @cert.der"},
		{command: soft + "-O", says: "ec rsa aes brought other note"},
		{command: soft + "--delete-object --type privkey --id 01"},
		{command: soft + "--delete-object --type secrkey --id 08"},
		{command: soft + "--delete-object --type pubkey --id 02"},
		{command: soft + "--delete-object --type pubkey --id 07"},
		{command: soft + "--delete-object --type cert --id 06"},
		{command: soft + "--delete-object --type data --label note"},
		{command: soft + "-O", says: "!Certificate !note !other !EC rsa aes"},
	})
}

// TestP11Tool has GnuTLS's tool do the same.
func TestP11Tool(t *testing.T) {
	e := newEnv(t)
	const tool, token = "p11tool --batch --provider $M ", " pkcs11:token=kst-software"
	e.runPrograms(t, programFiles(t), []programTest{
		{command: tool + "--generate-privkey=rsa --bits 2048 --label rsa --id 0a --outfile @a.pem" + token},
		{command: tool + "--generate-privkey=ecdsa --curve secp256r1 --label ec --outfile @b.pem" + token},
		{command: tool + "--write --load-certificate @cert.pem --label brought --id 0c" + token},
		{command: tool + "--write --load-privkey @rsa.pem --label brought --id 0c" + token},
		{command: tool + "--write --load-pubkey @public.pem --label other --id 0d" + token},
		{command: tool + "--write --load-certificate @cert.pem --label trusted --mark-trusted" + token, fails: true},
		{command: tool + "--list-all" + token, says: "rsa;type=private rsa;type=public ec;type=private brought;type=cert brought;type=private other;type=public !trusted CKA_NEVER_EXTRACTABLE"},
		{command: tool + "--export-pubkey" + token + ";object=ec;type=private", says: "BEGIN"},
		{command: tool + "--set-id=0e" + token + ";object=ec;type=private"},
		{command: tool + "--set-label=renamed" + token + ";object=rsa;type=private"},
		{command: tool + "--list-all" + token, says: "id=%0E;object=ec object=renamed"},
		{command: tool + "--delete" + token + ";object=ec", says: "2 objects"},
		{command: tool + "--delete" + token + ";object=brought", says: "objects"},
		{command: tool + "--list-all" + token, says: "!object=ec; !object=brought renamed"},
	})
}

// TestCertutil has NSS make a key and a certificate for it, and destroy both.
func TestCertutil(t *testing.T) {
	e := newEnv(t)
	const nss = "certutil -d sql:@nss -h kst-software "
	dir := programFiles(t)
	if err := os.Mkdir(filepath.Join(dir, "nss"), 0o700); err != nil {
		t.Fatal(err)
	}
	e.runPrograms(t, dir, []programTest{
		{command: "certutil -N -d sql:@nss --empty-password"},
		{command: "modutil -dbdir sql:@nss -add keyward -libfile $M -force"},
		{command: nss + "-S -n self -s CN=self -x -t ,, -k ec -q nistp256 -z @noise -m 77"},
		{command: nss + "-A -n brought -t ,, -a -i @cert.pem"},
		{command: nss + "-L", says: "kst-software:self kst-software:brought"},
		{command: nss + "-K", says: "ec"},
		{command: nss + "-F -n kst-software:self"},
		{command: nss + "-L", says: "!kst-software:self kst-software:brought"},
		{command: nss + "-D -n kst-software:brought"},
		{command: nss + "-L", says: "!kst-software"},
	})
	if left := e.user(t, p11rpc.Keyward, softwareID).find(10, class(ck.CKO_PRIVATE_KEY)); len(left) != 0 {
		t.Errorf("keys are left: %x", left)
	}
}

// TestKeytool has Java keep a key and its certificate in the token: one that Java itself made, and one of a session that C_CopyObject brings there.
func TestKeytool(t *testing.T) {
	e := newEnv(t)
	dir := programFiles(t)
	config := "name = keyward\nlibrary = " + p11kitClient + "\nslotListIndex = 0\n"
	if err := os.WriteFile(filepath.Join(dir, "java.cfg"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	const keytool = "keytool -J-XX:TieredStopAtLevel=1 -J-Xshare:auto -keystore NONE -storetype PKCS11 -storepass x -providerClass sun.security.pkcs11.SunPKCS11 -providerArg @java.cfg "
	e.runPrograms(t, dir, []programTest{
		{command: keytool + "-genkeypair -alias ec -keyalg EC -groupname secp256r1 -dname CN=ec"},
		{command: keytool + "-changealias -alias ec -destalias renamed"},
		{command: keytool + "-list", says: "renamed, PrivateKeyEntry"},
		{command: keytool + "-delete -alias renamed"},
	})
	if left := e.user(t, p11rpc.Keyward, softwareID).find(10); len(left) != 0 {
		t.Errorf("objects are left: %x", left)
	}
}
