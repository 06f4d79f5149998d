package e2e

import (
	"context"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

// TestBadInput has a row for each way to call the API wrongly: each has its code and says what is wrong, and the daemon
// goes on.
func TestBadInput(t *testing.T) {
	p := startDev(t, "keywardd", shortDir(t))
	b64 := base64.StdEncoding.EncodeToString
	aes := createKey(t, p, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software"})
	hard := createKey(t, p, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware"})
	off := createKey(t, p, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software"})
	ec := createKey(t, p, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", KeySpec: kmswire.ECP256, KeyUsage: kmswire.SignVerify})
	rsa := createKey(t, p, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware", KeySpec: kmswire.RSA2048, KeyUsage: kmswire.EncryptDecrypt})
	version := func(key string) string {
		v, err := kmsclient.NewestVersion(context.Background(), p.client, key)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	blobOf := func(key string, ec map[string]string) []byte {
		return call[kmswire.EncryptResponse](t, p, "Encrypt", &kmswire.EncryptRequest{KeyID: key, Plaintext: []byte("secret"), EncryptionContext: ec}).CiphertextBlob
	}
	blob, hardBlob := blobOf(aes, nil), blobOf(hard, nil)
	bound := blobOf(aes, map[string]string{"a": "b"})
	offBlob := blobOf(off, nil)
	call[kmswire.EmptyResponse](t, p, "DisableKey", &kmswire.DisableKeyRequest{KeyID: off})
	changed := func(b []byte, at int) string {
		c := append([]byte{}, b...)
		if at < 0 {
			at += len(c)
		}
		c[at] ^= 1
		return b64(c)
	}
	digest := b64(make([]byte, 32))

	rows := []struct {
		name, action string
		params       url.Values
		code         string
	}{
		{"unknown action", "MakeCoffee", nil, "InvalidAction.NotFound"},
		{"action of another product", "CreateSecret", nil, "UnsupportedOperation"},
		{"missing parameter", "Encrypt", url.Values{"KeyId": {aes}}, "MissingParameter"},
		{"unknown spec", "CreateKey", url.Values{"DKMSInstanceId": {"kst-software"}, "KeySpec": {"DES"}}, "InvalidParameter"},
		{"unknown usage", "CreateKey", url.Values{"DKMSInstanceId": {"kst-software"}, "KeyUsage": {"LOOK"}}, "InvalidParameter"},
		{"usage that the spec can't have", "CreateKey", url.Values{"DKMSInstanceId": {"kst-software"}, "KeySpec": {"EC_P256"}, "KeyUsage": {"ENCRYPT/DECRYPT"}}, "InvalidParameter"},
		{"wrong base64", "Encrypt", url.Values{"KeyId": {aes}, "Plaintext": {"c2VjcmV0*"}}, "InvalidParameter"},
		{"plaintext of 6145 octets", "Encrypt", url.Values{"KeyId": {aes}, "Plaintext": {b64(make([]byte, 6145))}}, "InvalidParameter"},
		{"number that is none", "GenerateDataKey", url.Values{"KeyId": {aes}, "NumberOfBytes": {"many"}}, "InvalidParameter"},
		{"number that is too large", "GenerateDataKey", url.Values{"KeyId": {aes}, "NumberOfBytes": {"1025"}}, "InvalidParameter"},
		{"context that is no object of strings", "Encrypt", url.Values{"KeyId": {aes}, "Plaintext": {"YQ=="}, "EncryptionContext": {`{"a":1}`}}, "InvalidParameter"},
		{"digest of 31 octets", "AsymmetricSign", url.Values{"KeyId": {ec}, "KeyVersionId": {version(ec)}, "Algorithm": {"ECDSA_SHA_256"}, "Digest": {b64(make([]byte, 31))}}, "InvalidParameter"},
		{"algorithm of another kind of key", "AsymmetricSign", url.Values{"KeyId": {ec}, "KeyVersionId": {version(ec)}, "Algorithm": {"RSA_PSS_SHA_256"}, "Digest": {digest}}, "InvalidParameter"},
		{"algorithm that is none", "AsymmetricSign", url.Values{"KeyId": {ec}, "KeyVersionId": {version(ec)}, "Algorithm": {"ROT13"}, "Digest": {digest}}, "InvalidParameter"},
		{"sign with a key for encryption", "AsymmetricSign", url.Values{"KeyId": {rsa}, "KeyVersionId": {version(rsa)}, "Algorithm": {"RSA_PSS_SHA_256"}, "Digest": {digest}}, "Rejected.UnsupportedOperation"},
		{"encrypt with a key for signing", "Encrypt", url.Values{"KeyId": {ec}, "Plaintext": {"YQ=="}}, "UnsupportedOperation"},
		{"version that is not there", "GetPublicKey", url.Values{"KeyId": {ec}, "KeyVersionId": {ec + "-aaaaaaaaaa"}}, "Forbidden.KeyVersionNotFound"},
		{"RSA ciphertext of a wrong length", "AsymmetricDecrypt", url.Values{"KeyId": {rsa}, "KeyVersionId": {version(rsa)}, "Algorithm": {"RSAES_OAEP_SHA_256"}, "CiphertextBlob": {"YQ=="}}, "InvalidParameter"},
		{"RSA ciphertext of nobody", "AsymmetricDecrypt", url.Values{"KeyId": {rsa}, "KeyVersionId": {version(rsa)}, "Algorithm": {"RSAES_OAEP_SHA_256"}, "CiphertextBlob": {b64(make([]byte, 256))}}, "InvalidParameter"},
		{"blob that is none", "Decrypt", url.Values{"CiphertextBlob": {b64([]byte("hello"))}}, "InvalidParameter"},
		{"blob that is cut", "Decrypt", url.Values{"CiphertextBlob": {b64(blob[:len(blob)-1])}}, "InvalidParameter"},
		{"blob with a changed end", "Decrypt", url.Values{"CiphertextBlob": {changed(blob, -1)}}, "InvalidParameter"},
		{"blob with a changed middle", "Decrypt", url.Values{"CiphertextBlob": {changed(blob, len(blob)/2)}}, "InvalidParameter"},
		{"hardware blob with a changed end", "Decrypt", url.Values{"CiphertextBlob": {changed(hardBlob, -1)}}, "InvalidParameter"},
		{"wrong context", "Decrypt", url.Values{"CiphertextBlob": {b64(bound)}, "EncryptionContext": {`{"a":"c"}`}}, "InvalidParameter"},
		{"no context", "Decrypt", url.Values{"CiphertextBlob": {b64(bound)}}, "InvalidParameter"},
		{"unknown key", "DescribeKey", url.Values{"KeyId": {"key-aaaaaaaaaaaaaaaaaaaa"}}, "Forbidden.KeyNotFound"},
		{"unknown alias", "Encrypt", url.Values{"KeyId": {"alias/nothing"}, "Plaintext": {"YQ=="}}, "Forbidden.AliasNotFound"},
		{"unknown instance", "CreateKey", url.Values{"DKMSInstanceId": {"kst-nowhere"}}, "InvalidParameter"},
		{"disabled key", "Encrypt", url.Values{"KeyId": {off}, "Plaintext": {"YQ=="}}, "Rejected.Disabled"},
		{"blob of a disabled key", "Decrypt", url.Values{"CiphertextBlob": {b64(offBlob)}}, "Rejected.Disabled"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			_, err := kmsclient.CallParams(context.Background(), p.client, row.action, row.params)
			var got *kmsclient.Error
			if !errors.As(err, &got) {
				t.Fatalf("got %v", err)
			}
			if got.Code != row.code {
				t.Errorf("code %s, want %s (%s)", got.Code, row.code, got.Message)
			}
			if got.Message == "" || got.RequestID == "" || got.HTTPStatus < 400 || got.HTTPStatus >= 500 {
				t.Errorf("the error is poor: %+v", got)
			}
		})
	}
	p.mustWork(aes)
	p.mustWork(hard)
	if log := p.log.String(); strings.Contains(log, `"level":"error"`) || strings.Contains(log, "panic") {
		t.Errorf("bad input is an error of the daemon:\n%s", log)
	}
}
