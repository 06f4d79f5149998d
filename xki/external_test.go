package xki

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
)

// caller is a service with an external instance whose proxy is that of a world, over TLS.
type caller struct {
	*kms.Service
	t        *testing.T
	external *External
	audit    *testAudit
}

func (w *world) caller(d *Dialect, prefix string) *caller {
	w.t.Helper()
	server := httptest.NewTLSServer(w.proxy)
	w.t.Cleanup(server.Close)
	c := &caller{t: w.t, audit: &testAudit{}}
	c.external = &External{NewConnection(clientOf(w.t, server, d, prefix)), "kst-external"}
	c.Service = newService(w.t, testPool(), c.audit, kms.Instance{ID: "kst-external", Type: kms.ExternalInstance}, kms.Instance{ID: "kst-software", Type: kms.SoftwareInstance})
	c.SetExternal(map[string]kms.ExternalKeys{"kst-external": c.external})
	return c
}

func (c *caller) create(externalID string) (string, error) {
	k, err := c.CreateKey(c.t.Context(), root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-external", ExternalKeyID: externalID})
	if err != nil {
		return "", err
	}
	return k.KeyMetadata.KeyID, nil
}

func (c *caller) status() string {
	c.t.Helper()
	in, err := c.GetKmsInstance(c.t.Context(), root, &kmswire.GetKmsInstanceRequest{KmsInstanceID: "kst-external"})
	if err != nil {
		c.t.Fatal(err)
	}
	return in.KmsInstance.Status
}

// External keys through the API of the caller, in both dialects.
func TestExternalKeys(t *testing.T) {
	w := newWorld(t)
	for prefix, d := range map[string]*Dialect{"/ks1": XKSv1, "": XKIv1} {
		t.Run(d.Name(), func(t *testing.T) {
			w.t = t
			c, ctx := w.caller(d, prefix), t.Context()
			if _, err := c.create("hardware"); err != nil || c.status() != "Connected" {
				t.Fatalf("before the proxy was asked: %v, %s", err, c.status())
			}
			if err := c.external.Probe(ctx); err != nil || c.status() != "Connected" {
				t.Fatalf("%v, %s", err, c.status())
			}
			for id, want := range map[string]kms.Code{"none": kms.InvalidParameter, "signs": kms.InvalidParameter, "": kms.MissingParameter, "a/b": kms.InvalidParameter} {
				if _, err := c.create(id); !errors.Is(err, want) {
					t.Errorf("%q: %v", id, err)
				}
			}
			a, err := c.create("hardware")
			if err != nil {
				t.Fatal(err)
			}
			b, err := c.create("hardware")
			if err != nil {
				t.Fatal(err)
			}
			m, err := c.DescribeKey(ctx, root, &kmswire.DescribeKeyRequest{KeyID: a})
			if err != nil || m.KeyMetadata.ExternalKeyID != "hardware" || m.KeyMetadata.ProtectionLevel != kmswire.ProtectionExternal || m.KeyMetadata.KeyState != kmswire.Enabled {
				t.Errorf("%+v, %v", m, err)
			}
			// Sizes of contexts around what a proxy takes.
			for _, n := range []int{0, 100, 8000, 9000, 20000} {
				bound := map[string]string{"order": strings.Repeat("x", n)}
				e, err := c.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: a, Plaintext: []byte("kept elsewhere"), EncryptionContext: bound})
				if err != nil {
					t.Fatal(err)
				}
				p, err := c.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: e.CiphertextBlob, EncryptionContext: bound})
				if err != nil || string(p.Plaintext) != "kept elsewhere" || p.KeyID != a {
					t.Errorf("%+v, %v", p, err)
				}
				for what, spoil := range map[string]func([]byte) map[string]string{
					"another context": func([]byte) map[string]string { return map[string]string{"order": strings.Repeat("x", n+1)} },
					"the other key":   func(blob []byte) map[string]string { copy(blob[3:], b); return bound },
					"a bit":           func(blob []byte) map[string]string { blob[len(blob)-1] ^= 1; return bound },
					"another name":    func(blob []byte) map[string]string { copy(blob[39:], "software"); return bound },
				} {
					blob := bytes.Clone(e.CiphertextBlob)
					if _, err := c.Decrypt(ctx, root, &kmswire.DecryptRequest{EncryptionContext: spoil(blob), CiphertextBlob: blob}); err == nil {
						t.Errorf("%s: it opens", what)
					}
				}
			}
			dk, err := c.GenerateDataKey(ctx, root, &kmswire.GenerateDataKeyRequest{KeyID: a})
			if err != nil || len(dk.Plaintext) != 32 {
				t.Fatal(err)
			}
			if _, err := c.GenerateDataKeyWithoutPlaintext(ctx, root, &kmswire.GenerateDataKeyWithoutPlaintextRequest{KeyID: a}); err != nil {
				t.Error(err)
			}
			mine, err := c.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software"})
			if err != nil {
				t.Fatal(err)
			}
			for _, to := range []string{mine.KeyMetadata.KeyID, b} {
				re, err := c.ReEncrypt(ctx, root, &kmswire.ReEncryptRequest{CiphertextBlob: dk.CiphertextBlob, DestinationKeyID: to})
				if err != nil {
					t.Fatal(err)
				}
				p, err := c.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: re.CiphertextBlob})
				if err != nil || !bytes.Equal(p.Plaintext, dk.Plaintext) || p.KeyID != to {
					t.Errorf("%+v, %v", p, err)
				}
			}
			c.batches(a, mine.KeyMetadata.KeyID)
			c.refusals(a)
			c.states(w, a, dk.CiphertextBlob)
		})
	}
}

// batches does the batch forms, with items that are bad between good ones.
func (c *caller) batches(external, own string) {
	t, ctx := c.t, c.t.Context()
	var items []kmswire.BatchEncryptItem
	for i := range 100 {
		items = append(items, kmswire.BatchEncryptItem{Plaintext: fmt.Append(nil, "item ", i)})
	}
	items[7].Plaintext = nil
	made, err := c.BatchEncrypt(ctx, root, &kmswire.BatchEncryptRequest{KeyID: external, Items: items})
	if err != nil || made.Items[7].ItemError == nil {
		t.Fatalf("%v", err)
	}
	var back []kmswire.BatchDecryptItem
	for i := range made.Items {
		back = append(back, kmswire.BatchDecryptItem{CiphertextBlob: made.Items[i].CiphertextBlob})
	}
	e, err := c.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: own, Plaintext: []byte("own")})
	if err != nil {
		t.Fatal(err)
	}
	back[7].CiphertextBlob = e.CiphertextBlob
	back[8].CiphertextBlob[len(back[8].CiphertextBlob)-1] ^= 1
	got, err := c.BatchDecrypt(ctx, root, &kmswire.BatchDecryptRequest{Items: back})
	if err != nil {
		t.Fatal(err)
	}
	for i := range got.Items {
		want := fmt.Sprint("item ", i)
		if i == 7 {
			want = "own"
		}
		if bad := got.Items[i].ItemError != nil; bad != (i == 8) || !bad && string(got.Items[i].Plaintext) != want {
			t.Errorf("item %d: %q, %v", i, got.Items[i].Plaintext, got.Items[i].ItemError)
		}
	}
	keys, err := c.BatchGenerateDataKey(ctx, root, &kmswire.BatchGenerateDataKeyRequest{KeyID: external, Count: 30})
	if err != nil || len(keys.Items) != 30 || keys.Items[29].ItemError != nil {
		t.Errorf("%v", err)
	}
}

// refusals are what external keys may not do.
func (c *caller) refusals(id string) {
	t, ctx := c.t, c.t.Context()
	for what, row := range map[string]struct {
		want kms.Code
		do   func() error
	}{
		"rotate": {kms.OperationRejected, func() error {
			_, err := c.CreateKeyVersion(ctx, root, &kmswire.CreateKeyVersionRequest{KeyID: id})
			return err
		}},
		"rotate it": {kms.OperationRejected, func() error {
			_, err := c.UpdateRotationPolicy(ctx, root, &kmswire.UpdateRotationPolicyRequest{KeyID: id, EnableAutomaticRotation: true, RotationInterval: "30d"})
			return err
		}},
		"import": {kms.UnsupportedOrigin, func() error {
			_, err := c.GetParametersForImport(ctx, root, &kmswire.GetParametersForImportRequest{KeyID: id, WrappingAlgorithm: "RSAES_OAEP_SHA_256", WrappingKeySpec: "RSA_2048"})
			return err
		}},
		"versions": {kms.UnsupportedOperation, func() error {
			_, err := c.ListKeyVersions(ctx, root, &kmswire.ListKeyVersionsRequest{KeyID: id})
			return err
		}},
		"public": {kms.OperationRejected, func() error {
			_, err := c.GetPublicKey(ctx, root, &kmswire.GetPublicKeyRequest{KeyID: id, KeyVersionID: "x"})
			return err
		}},
		"by PKCS #11, or as a proxy": {kms.UnsupportedOperation, func() error {
			_, _, err := c.ProxiedSeal(ctx, root, id, []byte("x"), func(uint32) []byte { return nil })
			return err
		}},
		"origin": {kms.InvalidParameter, func() error {
			_, err := c.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-external", ExternalKeyID: "hardware", Origin: kmswire.OriginExternal})
			return err
		}},
		"spec": {kms.InvalidParameter, func() error {
			_, err := c.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-external", ExternalKeyID: "hardware", KeySpec: kmswire.RSA2048})
			return err
		}},
		"elsewhere": {kms.InvalidParameter, func() error {
			_, err := c.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", ExternalKeyID: "hardware"})
			return err
		}},
	} {
		if err := row.do(); !errors.Is(err, row.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// states are the three conditions under which an external key works: it is enabled here, its instance is connected, and it is enabled there.
func (c *caller) states(w *world, id string, ciphertext []byte) {
	t, ctx := c.t, c.t.Context()
	use := func() error {
		_, err := c.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: id, Plaintext: []byte("x")})
		_, err2 := c.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: ciphertext})
		if (err == nil) != (err2 == nil) {
			t.Errorf("%v, but %v", err, err2)
		}
		return err
	}
	if err := use(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DisableKey(ctx, root, &kmswire.DisableKeyRequest{KeyID: id}); err != nil || !errors.Is(use(), kms.KeyDisabled) {
		t.Errorf("%v, %v", err, use())
	}
	if _, err := c.EnableKey(ctx, root, &kmswire.EnableKeyRequest{KeyID: id}); err != nil || use() != nil {
		t.Errorf("%v, %v", err, use())
	}
	if _, err := w.service.DisableKey(ctx, root, &kmswire.DisableKeyRequest{KeyID: w.keys["hardware"]}); err != nil {
		t.Fatal(err)
	}
	if err := use(); !errors.Is(err, kms.KeyUnavailable) || !strings.Contains(err.Error(), "enable it there") {
		t.Errorf("disabled there: %v", err)
	}
	if _, err := c.create("hardware"); !errors.Is(err, kms.InvalidParameter) {
		t.Errorf("a key that is disabled there: %v", err)
	}
	if _, err := w.service.EnableKey(ctx, root, &kmswire.EnableKeyRequest{KeyID: w.keys["hardware"]}); err != nil || use() != nil {
		t.Errorf("%v, %v", err, use())
	}
	// The proxy takes our key no more.
	stores := w.stores
	w.proxy.SetStores(nil)
	if err := use(); err == nil {
		t.Error("there is no prefix, and it works")
	}
	for range lostAfter {
		if c.external.Probe(ctx) == nil {
			t.Error("a probe went well")
		}
	}
	if err := use(); c.status() != "Disconnected" || !errors.Is(err, kms.KeyUnavailable) || c.external.Status().Trouble == "" {
		t.Errorf("%s, %v, %+v", c.status(), err, c.external.Status())
	}
	w.proxy.SetStores(stores)
	if err := c.external.Probe(ctx); err != nil || use() != nil {
		t.Errorf("%v, %v", err, use())
	}
	if _, err := c.ScheduleKeyDeletion(ctx, root, &kmswire.ScheduleKeyDeletionRequest{KeyID: id, PendingWindowInDays: 7}); err != nil || !errors.Is(use(), kms.KeyPendingDeletion) {
		t.Errorf("%v, %v", err, use())
	}
}

// Each code has a meaning for the service.
func TestTroubles(t *testing.T) {
	for code := Validation; code < numCodes; code++ {
		if troubles[code].code == kms.Internal {
			t.Errorf("%v has no meaning", code)
		}
	}
}

// A proxy is known by roots, by pins of its own certificate or of one that signed it, and by nothing else.
func TestPins(t *testing.T) {
	w := newWorld(t)
	server := httptest.NewTLSServer(w.proxy)
	defer server.Close()
	cert := server.Certificate()
	f := FingerprintsOf(cert)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	if all, err := Certificates(text); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
	other := "sha256-" + strings.Repeat("0", 64)
	for what, row := range map[string]struct {
		roots []byte
		pins  []string
		good  bool
	}{
		"nothing":               {nil, nil, false},
		"roots":                 {text, nil, true},
		"the certificate":       {nil, []string{other, f.CertificateSHA256}, true},
		"its key":               {nil, []string{f.KeySHA256}, true},
		"by SM3":                {nil, []string{f.CertificateSM3}, true},
		"its key, by SM3":       {nil, []string{f.KeySM3}, true},
		"another":               {nil, []string{other}, false},
		"roots and another pin": {text, []string{other}, false},
		"roots and pin":         {text, []string{f.KeySHA256}, true},
	} {
		c, err := ClientTLS(row.roots, row.pins, nil)
		if err != nil {
			t.Fatal(err)
		}
		client := clientOf(t, server, XKSv1, "/ks1", func(cfg *ClientConfig) { cfg.TLS = c })
		if _, err := client.Do(t.Context(), &Request{Op: OpHealth, Metadata: meta}); (err == nil) != row.good {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, bad := range []string{"", "sha256-", "sha256-00", "md5-" + strings.Repeat("0", 64), strings.ToUpper(f.KeySHA256)} {
		if _, err := ClientTLS(nil, []string{bad}, &tls.Certificate{}); err == nil {
			t.Errorf("%q is a pin", bad)
		}
	}
}
