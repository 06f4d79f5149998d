package e2e

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
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/kms/kmsapi"
)

const devAccount = "1000000000000001"

// TestVendorSDKs takes each of the vendor's SDKs, with each of its signatures, through every action: over TLS, where the signature
// says who calls, and over admin.sock, where the kernel does and the signature does not matter.
func TestVendorSDKs(t *testing.T) {
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	first := startDev(t, bin.keywardd, dir)
	first.stop()
	address, ca := freeAddress(t), serverCertificate(t, dir)
	conf := filepath.Join(dir, "k", "conf.d")
	if err := os.MkdirAll(conf, 0o700); err != nil {
		t.Fatal(err)
	}
	listener := fmt.Sprintf("[[listener]]\naddress = %q\ncert_file = %q\nkey_file = %q\n", address, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err := os.WriteFile(filepath.Join(conf, "tls.toml"), []byte(listener), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startDev(t, bin.keywardd, dir)
	id, secret := accessKey(t, p.socket)
	local := forward(t, p.socket)

	for _, v := range []struct {
		name   string
		vendor vendor
	}{
		{"Tea ACS3 TLS", newTea(t, address, true, id, secret, "", ca)},
		{"Tea RPC TLS", newTea(t, address, true, id, secret, "v2", ca)},
		{"Tea ACS4 TLS", newTea(t, address, true, id, secret, "v4", ca)},
		{"old TLS", newOld(t, address, true, id, secret, ca)},
		{"Tea socket", newTea(t, local, false, "nobody", "nothing", "", "")},
		{"old socket", newOld(t, local, false, "nobody", "nothing", "")},
	} {
		t.Run(v.name, func(t *testing.T) {
			s := &sdkStory{t: t, vendor: v.vendor, name: strings.ReplaceAll(strings.ToLower(v.name), " ", "-"), called: map[string]bool{}, untyped: map[string]bool{}}
			s.awake()
			s.tell()
		})
	}
	t.Run("wrong secret", func(t *testing.T) {
		for name, v := range map[string]vendor{
			"Tea": newTea(t, address, true, id, "wrong", "", ca), "old": newOld(t, address, true, id, "wrong", ca),
		} {
			_, _, err := v.call("DescribeRegions", nil)
			if err == nil || !strings.Contains(err.Error(), "SignatureDoesNotMatch") {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("unknown access key", func(t *testing.T) {
		_, _, err := newTea(t, address, true, "KWAKNOBODY", secret, "", ca).call("DescribeRegions", nil)
		if apiCode(err) != "InvalidAccessKeyId.NotFound" {
			t.Errorf("%v", err)
		}
	})
}

// accessKey makes one for the account's root.
func accessKey(t *testing.T, socket string) (id, secret string) {
	t.Helper()
	client := admin.NewClient(socket)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	key, err := client.CreateAccessKey(ctx, "acs:ram::"+devAccount+":root")
	if err != nil {
		t.Fatal(err)
	}
	return key.ID, string(key.Secret)
}

// freeAddress is a loopback address at which nobody listens.
func freeAddress(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", freePort(t))
}

// serverCertificate writes cert.pem and key.pem for 127.0.0.1 into dir, and gives the certificate.
func serverCertificate(t testing.TB, dir string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "keyward"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, text := range map[string][]byte{"cert.pem": cert, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return string(cert)
}

// forward makes a socket reachable by TCP, for SDKs that can't dial one. It ends with the test.
func forward(t *testing.T, socket string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	open.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer in.Close()
				out, err := net.Dial("unix", socket)
				if err != nil {
					return
				}
				defer out.Close()
				stop := context.AfterFunc(ctx, func() { in.Close(); out.Close() })
				defer stop()
				open.Go(func() { _, _ = io.Copy(out, in); out.Close() })
				_, _ = io.Copy(in, out)
			})
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); open.Wait() })
	return l.Addr().String()
}

// sdkStory is one SDK on its way through all actions.
type sdkStory struct {
	t      testing.TB
	vendor vendor
	name   string // for aliases, which are unique
	called map[string]bool
	// untyped are the actions that the SDK has no types for.
	untyped map[string]bool
}

// awake waits until the daemon takes signed requests: those from before its start, which it can't tell from replays, it sends back.
func (s *sdkStory) awake() {
	s.t.Helper()
	for deadline := time.Now().Add(startTimeout); ; {
		_, _, err := s.vendor.call("DescribeRegions", nil)
		if err == nil {
			return
		}
		if apiCode(err) != "ServiceUnavailableTemporary" || time.Now().After(deadline) {
			s.t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // between two looks
	}
}

// do does an action that must work.
func (s *sdkStory) do(action string, p params) map[string]any {
	s.t.Helper()
	s.called[action] = true
	m, untyped, err := s.vendor.call(action, p)
	if untyped {
		s.untyped[action] = true
	}
	if err != nil {
		s.t.Fatalf("%s: %v", action, err)
	}
	if id, _ := m["RequestId"].(string); len(id) != 36 {
		s.t.Errorf("%s: the RequestId is %q", action, id)
	}
	return m
}

// refused does an action that must be refused with a code.
func (s *sdkStory) refused(code, action string, p params) {
	s.t.Helper()
	if _, _, err := s.vendor.call(action, p); apiCode(err) != code {
		s.t.Errorf("%s: %v, want %s", action, err, code)
	}
}

// want compares a part of an answer.
func (s *sdkStory) want(m map[string]any, path string, want any) {
	s.t.Helper()
	if got := at(m, path); fmt.Sprint(got) != fmt.Sprint(want) {
		s.t.Errorf("%s is %v, want %v", path, got, want)
	}
}

func (s *sdkStory) text(m map[string]any, path string) string {
	s.t.Helper()
	text, _ := at(m, path).(string)
	if text == "" {
		s.t.Fatalf("%s is %v", path, at(m, path))
	}
	return text
}

func (s *sdkStory) octets(m map[string]any, path string) []byte {
	s.t.Helper()
	b, err := base64.StdEncoding.DecodeString(s.text(m, path))
	if err != nil {
		s.t.Fatalf("%s: %v", path, err)
	}
	return b
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// tell is the story.
func (s *sdkStory) tell() {
	s.service()
	key := s.keys()
	s.symmetric(key)
	s.tags(key)
	s.rotation(key)
	s.policy(key)
	s.asymmetric()
	s.imports()
	s.associations(key)
	s.life(key)

	// What is keyward's own, or younger than these SDKs.
	known := []string{"BatchGenerateDataKey", "EnableDefaultKey", "GenerateCsr", "GetDefaultKmsInstance", "GetKmsInstanceQuotaInfos", "ListKeyAssociations", "StartKeyAssociationCheck"}
	if got := slices.Sorted(maps.Keys(s.untyped)); !slices.Equal(got, known) {
		s.t.Errorf("without the SDK's types: %v, want %v", got, known)
	}
	for _, a := range kmsapi.Actions() {
		if !a.Items && !s.called[a.Name] {
			s.t.Errorf("%s was never called", a.Name)
		}
	}
}

func (s *sdkStory) service() {
	s.want(s.do("DescribeRegions", nil), "Regions.Region.0.RegionId", "dev")
	s.do("OpenKmsService", nil)
	s.want(s.do("DescribeAccountKmsStatus", nil), "AccountStatus", "Enabled")
	m := s.do("ListKmsInstances", params{"PageNumber": 1, "PageSize": 10})
	s.want(m, "TotalCount", 2)
	s.want(m, "KmsInstances.KmsInstance.0.KmsInstanceId", "kst-software")
	m = s.do("GetKmsInstance", params{"KmsInstanceId": "kst-software"})
	s.want(m, "KmsInstance.InstanceId", "kst-software")
	s.want(m, "KmsInstance.Status", "Connected")
	s.do("GetDefaultKmsInstance", nil)
	m = s.do("GetKmsInstanceQuotaInfos", params{"KmsInstanceId": "kst-software", "ResourceType": "key"})
	s.want(m, "KmsInstanceQuotaInfos.0.ResourceType", "key")
	if got := s.text(s.do("GetRandomPassword", params{"PasswordLength": "40"}), "RandomPassword"); len(got) != 40 {
		s.t.Errorf("a password of %d", len(got))
	}
	one := s.text(s.do("EnableDefaultKey", nil), "KeyMetadata.KeyId")
	s.want(s.do("EnableDefaultKey", nil), "KeyMetadata.KeyId", one)
}

// keys makes a key with a name, and gives its ID.
func (s *sdkStory) keys() string {
	m := s.do("CreateKey", params{"DKMSInstanceId": "kst-software", "Description": "a + b = c & d, äöü 鍵", "Tags": `[{"TagKey":"sdk","TagValue":"` + s.name + `"}]`})
	key := s.text(m, "KeyMetadata.KeyId")
	s.want(m, "KeyMetadata.KeySpec", "Aliyun_AES_256")
	alias, other := "alias/sdk/"+s.name, "alias/sdk/other-"+s.name
	s.do("CreateAlias", params{"AliasName": alias, "KeyId": key})
	s.do("CreateAlias", params{"AliasName": other, "KeyId": key})
	s.refused("AliasAlreadyExists", "CreateAlias", params{"AliasName": alias, "KeyId": key})
	s.do("UpdateAlias", params{"AliasName": alias, "KeyId": key})
	s.want(s.do("ListAliasesByKeyId", params{"KeyId": key}), "TotalCount", 2)
	if at(s.do("ListAliases", params{"PageSize": 100}), "Aliases.Alias.0.AliasArn") == nil {
		s.t.Error("no aliases are listed")
	}
	s.do("DeleteAlias", params{"AliasName": other})
	s.do("UpdateKeyDescription", params{"KeyId": key, "Description": "changed"})
	m = s.do("DescribeKey", params{"KeyId": alias})
	s.want(m, "KeyMetadata.KeyId", key)
	s.want(m, "KeyMetadata.Description", "changed")
	m = s.do("ListKeys", params{"PageSize": 100, "Filters": `[{"Key":"TagValue","Values":["` + s.name + `"]},{"Key":"KeyState","Values":["Enabled"]}]`})
	s.want(m, "TotalCount", 1)
	s.want(m, "Keys.Key.0.KeyId", key)
	s.refused("Forbidden.KeyNotFound", "DescribeKey", params{"KeyId": "key-aaaaaaaaaaaaaaaaaaaa"})
	s.refused("Forbidden.AliasNotFound", "DescribeKey", params{"KeyId": "alias/nothing"})
	return key
}

func (s *sdkStory) symmetric(key string) {
	plain := bytes.Repeat([]byte("~*+/= "), 1000) // long, and full of what is escaped
	context := map[string]any{"purpose": "test", "ключ": "знач"}
	blob := s.text(s.do("Encrypt", params{"KeyId": key, "Plaintext": b64(plain), "EncryptionContext": context}), "CiphertextBlob")
	m := s.do("Decrypt", params{"CiphertextBlob": blob, "EncryptionContext": context})
	if !bytes.Equal(s.octets(m, "Plaintext"), plain) {
		s.t.Error("it decrypts to something else")
	}
	s.refused("InvalidParameter", "Decrypt", params{"CiphertextBlob": blob})
	m = s.do("GenerateDataKey", params{"KeyId": key, "KeySpec": "AES_128"})
	secret := s.octets(m, "Plaintext")
	if len(secret) != 16 {
		s.t.Errorf("a data key of %d octets", len(secret))
	}
	m = s.do("Decrypt", params{"CiphertextBlob": s.text(m, "CiphertextBlob")})
	if !bytes.Equal(s.octets(m, "Plaintext"), secret) {
		s.t.Error("the data key comes back as another")
	}
	m = s.do("GenerateDataKeyWithoutPlaintext", params{"KeyId": key, "NumberOfBytes": 64})
	m = s.do("ReEncrypt", params{"CiphertextBlob": s.text(m, "CiphertextBlob"), "DestinationKeyId": key})

	wrapping, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		s.t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(wrapping.Public())
	if err != nil {
		s.t.Fatal(err)
	}
	export := params{"PublicKeyBlob": b64(spki), "WrappingKeySpec": "RSA_2048", "WrappingAlgorithm": "RSAES_OAEP_SHA_256"}
	open := func(m map[string]any) []byte {
		secret, err := rsa.DecryptOAEP(sha256.New(), nil, wrapping, s.octets(m, "ExportedDataKey"), nil)
		if err != nil {
			s.t.Fatal(err)
		}
		return secret
	}
	export["CiphertextBlob"] = s.text(m, "CiphertextBlob")
	if got := open(s.do("ExportDataKey", export)); len(got) != 64 {
		s.t.Errorf("an exported data key of %d octets", len(got))
	}
	delete(export, "CiphertextBlob")
	export["KeyId"] = key
	m = s.do("GenerateAndExportDataKey", export)
	if !bytes.Equal(open(m), s.octets(s.do("Decrypt", params{"CiphertextBlob": s.text(m, "CiphertextBlob")}), "Plaintext")) {
		s.t.Error("the exported data key is another")
	}
	s.want(s.do("BatchGenerateDataKey", params{"KeyId": key, "Count": 3}), "Items.3", nil)
}

func (s *sdkStory) tags(key string) {
	s.do("TagResource", params{"KeyId": key, "Tags": `[{"TagKey":"a b","TagValue":"x\\y"},{"TagKey":"c","TagValue":""}]`})
	m := s.do("ListResourceTags", params{"KeyId": key})
	s.want(m, "Tags.Tag.2.TagKey", "c")
	s.do("UntagResource", params{"KeyId": key, "TagKeys": `["c"]`})
	s.do("TagResources", params{"RegionId": "dev", "ResourceType": "key", "ResourceId": []string{key}, "Tag": []params{{"Key": "env", "Value": "test"}, {"Key": "n", "Value": "1"}}})
	m = s.do("ListTagResources", params{"RegionId": "dev", "ResourceType": "key", "ResourceId": []string{key}})
	tags, _ := at(m, "TagResources.TagResource").([]any)
	if len(tags) != 4 {
		s.t.Errorf("tags: %v", tags)
	}
	s.do("UntagResources", params{"RegionId": "dev", "ResourceType": "key", "ResourceId": []string{key}, "TagKey": []string{"env", "n"}})
	s.want(s.do("ListResourceTags", params{"KeyId": key}), "Tags.Tag.2", nil)
	s.refused("InvalidParameter", "TagResource", params{"KeyId": key, "Tags": `[{"TagKey":"aliyun-x","TagValue":"1"}]`})
}

func (s *sdkStory) rotation(key string) {
	s.do("UpdateRotationPolicy", params{"KeyId": key, "EnableAutomaticRotation": true, "RotationInterval": "30d"})
	m := s.do("DescribeKey", params{"KeyId": key})
	s.want(m, "KeyMetadata.AutomaticRotation", "Enabled")
	s.want(m, "KeyMetadata.RotationInterval", "2592000s")
	s.refused("InvalidParameter", "UpdateRotationPolicy", params{"KeyId": key, "EnableAutomaticRotation": true, "RotationInterval": "6d"})
	version := s.text(s.do("CreateKeyVersion", params{"KeyId": key}), "KeyVersion.KeyVersionId")
	s.want(s.do("DescribeKey", params{"KeyId": key}), "KeyMetadata.PrimaryKeyVersion", version)
	s.want(s.do("ListKeyVersions", params{"KeyId": key}), "TotalCount", 2)
	s.want(s.do("DescribeKeyVersion", params{"KeyId": key, "KeyVersionId": version}), "KeyVersion.KeyId", key)
	s.do("UpdateRotationPolicy", params{"KeyId": key, "EnableAutomaticRotation": false})
}

func (s *sdkStory) policy(key string) {
	text := s.text(s.do("GetKeyPolicy", params{"KeyId": key, "PolicyName": "default"}), "Policy")
	var doc map[string]any
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		s.t.Fatal(err)
	}
	s.want(doc, "Statement.0.Sid", "kms default key policy")
	s.do("SetKeyPolicy", params{"KeyId": key, "PolicyName": "default", "Policy": text})
	s.refused("InvalidParameter", "SetKeyPolicy", params{"KeyId": key, "PolicyName": "default", "Policy": `{"Version":"1","Statement":[]}`})
}

func (s *sdkStory) asymmetric() {
	signing := s.text(s.do("CreateKey", params{"DKMSInstanceId": "kst-hardware", "KeySpec": "EC_P256", "KeyUsage": "SIGN/VERIFY"}), "KeyMetadata.KeyId")
	version := s.text(s.do("ListKeyVersions", params{"KeyId": signing}), "KeyVersions.KeyVersion.0.KeyVersionId")
	which := params{"KeyId": signing, "KeyVersionId": version}
	block, _ := pem.Decode([]byte(s.text(s.do("GetPublicKey", which), "PublicKey")))
	if block == nil {
		s.t.Fatal("the public key is no PEM")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		s.t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("message"))
	with := func(p params, more params) params {
		all := params{}
		for _, m := range []params{p, more} {
			for k, v := range m {
				all[k] = v
			}
		}
		return all
	}
	value := s.octets(s.do("AsymmetricSign", with(which, params{"Algorithm": "ECDSA_SHA_256", "Digest": b64(digest[:])})), "Value")
	if !ecdsa.VerifyASN1(public.(*ecdsa.PublicKey), digest[:], value) {
		s.t.Error("the signature is wrong")
	}
	verify := with(which, params{"Algorithm": "ECDSA_SHA_256", "Digest": b64(digest[:]), "Value": b64(value)})
	s.want(s.do("AsymmetricVerify", verify), "Value", true)
	csr, _ := pem.Decode([]byte(s.text(s.do("GenerateCsr", params{"KeyId": signing, "Algorithm": "ECDSA_SHA_256", "CommonName": "example.org", "SubjectAlternativeNames": "DNS:example.org"}), "Csr")))
	if csr == nil {
		s.t.Fatal("the CSR is no PEM")
	}
	if request, err := x509.ParseCertificateRequest(csr.Bytes); err != nil || request.CheckSignature() != nil || !slices.Equal(request.DNSNames, []string{"example.org"}) {
		s.t.Errorf("CSR: %+v, %v", request, err)
	}

	sealing := s.text(s.do("CreateKey", params{"DKMSInstanceId": "kst-software", "KeySpec": "RSA_2048", "KeyUsage": "ENCRYPT/DECRYPT"}), "KeyMetadata.KeyId")
	which = params{"KeyId": sealing, "KeyVersionId": s.text(s.do("ListKeyVersions", params{"KeyId": sealing}), "KeyVersions.KeyVersion.0.KeyVersionId"), "Algorithm": "RSAES_OAEP_SHA_256"}
	blob := s.text(s.do("AsymmetricEncrypt", with(which, params{"Plaintext": b64([]byte("secret"))})), "CiphertextBlob")
	if got := s.octets(s.do("AsymmetricDecrypt", with(which, params{"CiphertextBlob": blob})), "Plaintext"); string(got) != "secret" {
		s.t.Errorf("decrypted to %q", got)
	}
	s.refused("Rejected.UnsupportedOperation", "AsymmetricSign", with(which, params{"Algorithm": "RSA_PSS_SHA_256", "Digest": b64(digest[:])}))
}

func (s *sdkStory) imports() {
	m := s.do("CreateKey", params{"DKMSInstanceId": "kst-software", "Origin": "EXTERNAL"})
	key := s.text(m, "KeyMetadata.KeyId")
	s.want(m, "KeyMetadata.KeyState", "PendingImport")
	s.refused("Rejected.PendingImport", "Encrypt", params{"KeyId": key, "Plaintext": b64([]byte("x"))})
	m = s.do("GetParametersForImport", params{"KeyId": key, "WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"})
	public, err := x509.ParsePKIXPublicKey(s.octets(m, "PublicKey"))
	if err != nil {
		s.t.Fatal(err)
	}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public.(*rsa.PublicKey), bytes.Repeat([]byte{7}, 32), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	material := params{"KeyId": key, "EncryptedKeyMaterial": b64(wrapped), "ImportToken": s.text(m, "ImportToken"), "KeyMaterialExpireUnix": 0}
	s.do("ImportKeyMaterial", material)
	s.do("Encrypt", params{"KeyId": key, "Plaintext": b64([]byte("x"))})
	s.do("DeleteKeyMaterial", params{"KeyId": key})
	s.want(s.do("DescribeKey", params{"KeyId": key}), "KeyMetadata.KeyState", "PendingImport")
	material["ImportToken"] = b64([]byte("nonsense"))
	s.refused("InvalidImportToken", "ImportKeyMaterial", material)
}

func (s *sdkStory) associations(key string) {
	s.do("StartKeyAssociationCheck", params{"KeyId": key})
	for deadline := time.Now().Add(startTimeout); ; {
		m := s.do("ListKeyAssociations", params{"KeyId": key})
		if at(m, "CheckStatus") == "Success" {
			if calls, _ := at(m, "Associations.Association.0.Calls").(float64); calls < 1 {
				s.t.Errorf("nobody has used the key: %v", m)
			}
			return
		}
		if at(m, "CheckStatus") != "Checking" || time.Now().After(deadline) {
			s.t.Fatalf("the check is %v", at(m, "CheckStatus"))
		}
		time.Sleep(20 * time.Millisecond) // between two looks
	}
}

func (s *sdkStory) life(key string) {
	s.do("DisableKey", params{"KeyId": key})
	s.refused("Rejected.Disabled", "Encrypt", params{"KeyId": key, "Plaintext": b64([]byte("x"))})
	s.do("EnableKey", params{"KeyId": key})
	arn := s.text(s.do("DescribeKey", params{"KeyId": key}), "KeyMetadata.Arn")
	s.do("SetDeletionProtection", params{"ProtectedResourceArn": arn, "EnableDeletionProtection": true, "DeletionProtectionDescription": "in use"})
	s.refused("Rejected.StateModifiedFailed", "ScheduleKeyDeletion", params{"KeyId": key, "PendingWindowInDays": 7})
	s.do("SetDeletionProtection", params{"ProtectedResourceArn": arn, "EnableDeletionProtection": false})
	s.do("ScheduleKeyDeletion", params{"KeyId": key, "PendingWindowInDays": 7})
	m := s.do("DescribeKey", params{"KeyId": key})
	s.want(m, "KeyMetadata.KeyState", "PendingDeletion")
	s.text(m, "KeyMetadata.DeleteDate")
	s.refused("Rejected.PendingDeletion", "Encrypt", params{"KeyId": key, "Plaintext": b64([]byte("x"))})
	s.do("CancelKeyDeletion", params{"KeyId": key})
	s.want(s.do("DescribeKey", params{"KeyId": key}), "KeyMetadata.KeyState", "Enabled")
}
