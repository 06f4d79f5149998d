package e2e

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/xki"
)

// externalPair is two keywards: proxy has the keys, and caller uses them.
type externalPair struct {
	t             *testing.T
	proxy, caller *process
	dir           string
	keywardd      string
	tls, mutual   string // addresses of the proxy
	api, ca       string // of the caller
}

// startPair starts both. The proxy has a listener without and one with mTLS, the caller an external instance for each dialect through each.
func startPair(t *testing.T) *externalPair {
	t.Helper()
	programs, err := build()
	if err != nil {
		t.Fatal(err)
	}
	p := &externalPair{t: t, dir: shortDir(t), keywardd: programs.keywardd, tls: freeAddress(t), mutual: freeAddress(t), api: freeAddress(t)}
	for _, side := range []string{"proxy", "caller"} {
		dir := filepath.Join(p.dir, side)
		conf := filepath.Join(dir, "k", "conf.d")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		startDev(t, p.keywardd, dir).stop()
		ca := serverCertificate(t, dir)
		row := func(address string, rest ...string) string {
			return fmt.Sprintf("[[listener]]\naddress = %q\ncert_file = \"%[2]s/cert.pem\"\nkey_file = \"%[2]s/key.pem\"\n%[3]s\n", address, dir, strings.Join(rest, "\n"))
		}
		var text string
		if side == "caller" {
			p.ca = ca
			text = row(p.api)
			for _, instance := range []string{"kst-xks", "kst-xks-mtls", "kst-xki", "kst-xki-mtls"} {
				text += fmt.Sprintf("[[instance]]\nid = %q\ntype = \"external\"\n", instance)
			}
		} else {
			// The certificate of the caller's own listener is what it shows, too.
			text = row(p.tls, `serves = "xki"`) +
				row(p.mutual, `serves = "xki"`, fmt.Sprintf("client_ca_file = %q", filepath.Join(p.dir, "caller", "cert.pem")), `client_names = ["keyward"]`)
		}
		if err := os.MkdirAll(conf, 0o700); err != nil {
			t.Fatal(err)
		}
		p.write(filepath.Join(side, "k", "conf.d", "external.toml"), text)
	}
	p.caller = startDev(t, p.keywardd, filepath.Join(p.dir, "caller"))
	p.startProxy()
	return p
}

func (p *externalPair) startProxy() {
	p.t.Helper()
	p.proxy = startDev(p.t, p.keywardd, filepath.Join(p.dir, "proxy"))
}

func (p *externalPair) write(name, text string) {
	p.t.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(p.dir, name)), 0o700); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// ctl runs keywardctl, which must end with that exit code.
func (p *externalPair) ctl(at *process, code int, args ...string) string {
	p.t.Helper()
	got, said := keywardctl(p.t, at, args...)
	if got != code {
		p.t.Fatalf("keywardctl %s: exit code %d, want %d\n%s", strings.Join(args, " "), got, code, said)
	}
	return said
}

// serve has the proxy serve a key, in a prefix of each dialect, and the caller connect to both ways.
func (p *externalPair) serve(key string) {
	p.t.Helper()
	certFile := func(side, name string) string { return filepath.Join(p.dir, side, name) }
	for dialect, instance := range map[string]string{"xks-v1": "kst-xks", "xki-v1": "kst-xki"} {
		name := strings.TrimPrefix(instance, "kst-")
		file := filepath.Join(p.dir, name+".json")
		p.ctl(p.proxy, 0, "xki", "prefix", "create", name, "--dialect", dialect, "--key", "theirs="+key)
		p.ctl(p.proxy, 0, "xki", "credential", "create", name)
		p.ctl(p.proxy, 0, "xki", "export-config", name, "--out", file)
		common := []string{"--config", file, "--budget", "10s"}
		p.ctl(p.caller, 0, append([]string{"xki", "connect", instance, "--endpoint", "https://" + p.tls, "--roots", certFile("proxy", "cert.pem")}, common...)...)
		p.ctl(p.caller, 0, append([]string{"xki", "connect", instance + "-mtls", "--endpoint", "https://" + p.mutual, "--pin", p.fingerprint(),
			"--certificate", certFile("caller", "cert.pem"), "--private-key", certFile("caller", "key.pem")}, common...)...)
		// Without its certificate, and with a proxy of another certificate, it stays as it was told, and says why it does not work.
		said := p.ctl(p.caller, 6, append([]string{"xki", "connect", instance + "-mtls", "--endpoint", "https://" + p.mutual, "--pin", p.fingerprint()}, common...)...)
		mustSay(p.t, said, "Disconnected", "wants a certificate of ours")
		said = p.ctl(p.caller, 6, append([]string{"xki", "connect", instance + "-mtls", "--endpoint", "https://" + p.tls, "--pin", "sha256-" + strings.Repeat("0", 64)}, common...)...)
		mustSay(p.t, said, "Disconnected", "fingerprint")
		p.ctl(p.caller, 0, append([]string{"xki", "connect", instance + "-mtls", "--endpoint", "https://" + p.mutual, "--pin", p.fingerprint(),
			"--certificate", certFile("caller", "cert.pem"), "--private-key", certFile("caller", "key.pem")}, common...)...)
	}
}

// fingerprint is that of the proxy's certificate.
func (p *externalPair) fingerprint() string {
	p.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, "proxy", "cert.pem"))
	if err != nil {
		p.t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		p.t.Fatal(err)
	}
	return xki.FingerprintsOf(cert).CertificateSHA256
}

// TestExternalKeys has the vendor's own SDKs use keys that another keyward has: in both dialects, over TLS and mTLS.
func TestExternalKeys(t *testing.T) {
	p := startPair(t)
	theirs := createKey(t, p.proxy, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware"})
	p.serve(theirs)
	id, secret := accessKey(t, p.caller.socket)

	tea, old := newTea(t, p.api, true, id, secret, "", p.ca), newOld(t, p.api, true, id, secret, p.ca)
	var keys []string
	for i, instance := range []string{"kst-xks", "kst-xks-mtls", "kst-xki", "kst-xki-mtls"} {
		for name, v := range map[string]vendor{"Tea": tea, "old": old} {
			t.Run(instance+" "+name, func(t *testing.T) {
				s := &sdkStory{t: t, vendor: v, name: fmt.Sprint("external-", i, "-", strings.ToLower(name)), called: map[string]bool{}, untyped: map[string]bool{}}
				s.awake()
				keys = append(keys, s.external(instance))
			})
		}
	}
	// Keys with one External Key ID don't open each other's ciphertexts, though the key behind them is one.
	blobs := map[string][]byte{}
	for _, key := range keys {
		blobs[key] = call[kmswire.EncryptResponse](t, p.caller, "Encrypt", &kmswire.EncryptRequest{KeyID: key, Plaintext: []byte("of " + key)}).CiphertextBlob
		other := bytes.Replace(blobs[keys[0]], []byte(keys[0]), []byte(key), 1)
		if _, err := p.decrypt(other); key != keys[0] && err == nil {
			t.Errorf("%s opens what is another's", key)
		}
	}
	// The key rotates at the proxy, and the proxy starts again: all that was encrypted before still opens.
	call[kmswire.CreateKeyVersionResponse](t, p.proxy, "CreateKeyVersion", &kmswire.CreateKeyVersionRequest{KeyID: theirs})
	p.proxy.stop()
	if _, err := p.decrypt(blobs[keys[0]]); err == nil {
		t.Error("there is no proxy, and it decrypts")
	}
	p.startProxy()
	for key, blob := range blobs {
		var got string
		eventually(t, func() (err error) {
			got, err = p.decrypt(blob)
			return err
		})
		if got != "of "+key {
			t.Errorf("%s gives %q after its proxy started again", key, got)
		}
	}
	// A key that is disabled there can't be used here, and who uses it is told where it is disabled.
	call[kmswire.EmptyResponse](t, p.proxy, "DisableKey", &kmswire.DisableKeyRequest{KeyID: theirs})
	for _, key := range keys {
		if _, err := p.decrypt(blobs[key]); err == nil || !strings.Contains(err.Error(), "enable it there") {
			t.Errorf("%s is disabled at the proxy: %v", key, err)
		}
	}
	call[kmswire.EmptyResponse](t, p.proxy, "EnableKey", &kmswire.EnableKeyRequest{KeyID: theirs})
	p.caller.mustWork(keys[0])
	// A refused credential disconnects at once.
	said := p.ctl(p.proxy, 0, "xki", "credential", "list", "xks", "-o", "json")
	credential := strings.Split(strings.SplitN(said, `"id":`, 2)[1], `"`)[1]
	p.ctl(p.proxy, 0, "xki", "credential", "delete", "xks", credential, "--yes")
	if _, err := p.decrypt(blobs[keys[0]]); err == nil || !strings.Contains(err.Error(), "Disconnected") {
		t.Errorf("without a credential: %v", err)
	}
	said = p.ctl(p.caller, 6, "xki", "connections")
	mustSay(t, said, "Disconnected", "authentication failed")
	said = p.ctl(p.caller, 7, "status")
	mustSay(t, said, "kst-xks", "Disconnected")
	p.ctl(p.proxy, 0, "xki", "credential", "create", "xks")
	again := filepath.Join(p.dir, "again.json")
	p.ctl(p.proxy, 0, "xki", "export-config", "xks", "--out", again)
	p.ctl(p.caller, 0, "xki", "connect", "kst-xks", "--config", again, "--endpoint", "https://"+p.tls, "--roots", filepath.Join(p.dir, "proxy", "cert.pem"), "--budget", "10s")
	p.caller.mustWork(keys[0])
	// It started with words about the dialect that nobody published.
	for _, log := range []*text{p.proxy.log, p.caller.log} {
		mustSay(t, log.String(), "experimental")
	}
}

// external is what the SDKs do with the keys of an instance, the first of which it gives.
func (s *sdkStory) external(instance string) string {
	m := s.do("CreateKey", params{"DKMSInstanceId": instance, "ExternalKeyId": "theirs", "Description": "somebody else's"})
	key := s.text(m, "KeyMetadata.KeyId")
	m = s.do("DescribeKey", params{"KeyId": key})
	s.want(m, "KeyMetadata.ProtectionLevel", "EXTERNAL")
	s.want(m, "KeyMetadata.KeySpec", "Aliyun_AES_256")
	s.want(m, "KeyMetadata.KeyState", "Enabled")
	s.want(m, "KeyMetadata.DKMSInstanceId", instance)
	s.want(s.do("GetKmsInstance", params{"KmsInstanceId": instance}), "KmsInstance.Status", "Connected")
	alias := "alias/" + s.name
	s.do("CreateAlias", params{"KeyId": key, "AliasName": alias})
	s.do("TagResource", params{"KeyId": key, "Tags": `[{"TagKey":"team","TagValue":"outside"}]`})
	s.symmetric(alias)
	// From a key of our own and back.
	own := s.text(s.do("CreateKey", params{"DKMSInstanceId": "kst-software"}), "KeyMetadata.KeyId")
	blob := s.text(s.do("Encrypt", params{"KeyId": own, "Plaintext": b64([]byte("moves"))}), "CiphertextBlob")
	blob = s.text(s.do("ReEncrypt", params{"CiphertextBlob": blob, "DestinationKeyId": key}), "CiphertextBlob")
	m = s.do("Decrypt", params{"CiphertextBlob": blob})
	s.want(m, "KeyId", key)
	s.want(m, "Plaintext", b64([]byte("moves")))
	blob = s.text(s.do("ReEncrypt", params{"CiphertextBlob": blob, "DestinationKeyId": own}), "CiphertextBlob")
	s.want(s.do("Decrypt", params{"CiphertextBlob": blob}), "KeyId", own)
	for action, p := range map[string]params{
		"CreateKeyVersion":       {"KeyId": key},
		"UpdateRotationPolicy":   {"KeyId": key, "EnableAutomaticRotation": true, "RotationInterval": "30d"},
		"ListKeyVersions":        {"KeyId": key},
		"GetParametersForImport": {"KeyId": key, "WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"},
	} {
		if _, _, err := s.vendor.call(action, p); apiCode(err) == "" || strings.HasPrefix(apiCode(err), "Internal") {
			s.t.Errorf("%s of an external key: %v", action, err)
		}
	}
	s.refused("InvalidParameter", "CreateKey", params{"DKMSInstanceId": instance, "ExternalKeyId": "nobody-has-it"})
	s.refused("Rejected.Disabled", "Encrypt", func() params {
		s.do("DisableKey", params{"KeyId": key})
		return params{"KeyId": key, "Plaintext": b64([]byte("x"))}
	}())
	s.do("EnableKey", params{"KeyId": key})
	return key
}

// decrypt asks the caller to open a ciphertext.
func (p *externalPair) decrypt(blob []byte) (string, error) {
	p.t.Helper()
	a := &kmswire.DecryptResponse{}
	ctx, cancel := context.WithTimeout(p.t.Context(), startTimeout)
	defer cancel()
	err := kmsclient.Call(ctx, p.caller.client, "Decrypt", &kmswire.DecryptRequest{CiphertextBlob: blob}, a)
	return string(a.Plaintext), err
}

// eventually tries again until it works.
func eventually(t *testing.T, what func() error) {
	t.Helper()
	for deadline := time.Now().Add(startTimeout); ; {
		err := what()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // between two looks
	}
}
