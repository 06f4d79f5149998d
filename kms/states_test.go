package kms

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// stateCodes are the codes that a key's state gives.
var stateCodes = []Code{KeyDisabled, KeyPendingDeletion, KeyPendingImport, StateNotAllowed}

// TestEveryActionInEveryState does all that can be done with a key, in each of its states, and holds the answers against the
// table that is written out by hand in stateTable.
func TestEveryActionInEveryState(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, nil)
	spare := w.create(kmswire.CreateKeyRequest{}).KeyID
	spareBlob := w.encrypt(spare, "spare")
	digest := make([]byte, kmswire.DigestSize)
	n := 10

	// subject is a key of each kind, and what was made with it while it could be used.
	type subject struct {
		id, arn, version  string // symmetric
		blob, dataKey     []byte
		signer, signerVer string
		signature         []byte
		cipher, cipherVer string
		ciphertext        []byte
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	newest := func(id string) string {
		l, err := w.ListKeyVersions(ctx, root, &kmswire.ListKeyVersionsRequest{KeyID: id})
		must(err)
		return l.KeyVersions.KeyVersion[0].KeyVersionID
	}
	recipient := w.create(kmswire.CreateKeyRequest{KeySpec: kmswire.RSA2048, KeyUsage: kmswire.EncryptDecrypt}).KeyID
	p, err := w.GetPublicKey(ctx, root, &kmswire.GetPublicKeyRequest{KeyID: recipient, KeyVersionID: newest(recipient)})
	must(err)
	publicKey := p.PublicKey
	bring := func(id string, state kmswire.KeyState) {
		t.Helper()
		switch state {
		case kmswire.Disabled:
			_, err := w.DisableKey(ctx, root, &kmswire.DisableKeyRequest{KeyID: id})
			must(err)
		case kmswire.PendingDeletion:
			must(w.schedule(id, 7))
		case kmswire.PendingImport:
			w.edit(id, func(k *keystore.Key) { k.State = string(kmswire.PendingImport) })
		}
		w.wantState(id, state)
	}
	// The asymmetric ones are made once for each state: nothing here changes them.
	asymmetric := func(state kmswire.KeyState) (s subject) {
		s.signer = w.create(kmswire.CreateKeyRequest{KeySpec: kmswire.ECP256}).KeyID
		s.signerVer = newest(s.signer)
		sig, err := w.AsymmetricSign(ctx, root, &kmswire.AsymmetricSignRequest{KeyID: s.signer, KeyVersionID: s.signerVer, Algorithm: kmswire.ECDSASHA256, Digest: digest})
		must(err)
		s.signature = sig.Value
		s.cipher = w.create(kmswire.CreateKeyRequest{KeySpec: kmswire.RSA2048, KeyUsage: kmswire.EncryptDecrypt}).KeyID
		s.cipherVer = newest(s.cipher)
		enc, err := w.AsymmetricEncrypt(ctx, root, &kmswire.AsymmetricEncryptRequest{KeyID: s.cipher, KeyVersionID: s.cipherVer, Algorithm: kmswire.RSAOAEPSHA256, Plaintext: []byte("x")})
		must(err)
		s.ciphertext = enc.CiphertextBlob
		bring(s.signer, state)
		bring(s.cipher, state)
		return s
	}
	enter := func(s subject, state kmswire.KeyState) *subject {
		m := w.create(kmswire.CreateKeyRequest{Description: "x"})
		s.id, s.arn, s.version = m.KeyID, m.Arn, m.PrimaryKeyVersion
		s.blob = w.encrypt(s.id, "x")
		d, err := w.GenerateDataKeyWithoutPlaintext(ctx, root, &kmswire.GenerateDataKeyWithoutPlaintextRequest{KeyID: s.id})
		must(err)
		s.dataKey = []byte(d.CiphertextBlob)
		bring(s.id, state)
		return &s
	}
	alias := func(target string) string {
		name := "alias/states-" + newID(8)
		_, err := w.CreateAlias(ctx, root, &kmswire.CreateAliasRequest{AliasName: name, KeyID: target})
		must(err)
		return name
	}
	list := json.RawMessage(`[{"TagKey":"a","TagValue":"b"}]`)
	names := `["a"]`

	acts := map[string]func(*subject) error{
		"DescribeKey": func(s *subject) error {
			return errOf(w.DescribeKey(ctx, root, &kmswire.DescribeKeyRequest{KeyID: s.id}))
		},
		"UpdateKeyDescription": func(s *subject) error {
			return errOf(w.UpdateKeyDescription(ctx, root, &kmswire.UpdateKeyDescriptionRequest{KeyID: s.id, Description: "y"}))
		},
		"EnableKey":           func(s *subject) error { return errOf(w.EnableKey(ctx, root, &kmswire.EnableKeyRequest{KeyID: s.id})) },
		"DisableKey":          func(s *subject) error { return errOf(w.DisableKey(ctx, root, &kmswire.DisableKeyRequest{KeyID: s.id})) },
		"ScheduleKeyDeletion": func(s *subject) error { return w.schedule(s.id, 7) },
		"CancelKeyDeletion": func(s *subject) error {
			return errOf(w.CancelKeyDeletion(ctx, root, &kmswire.CancelKeyDeletionRequest{KeyID: s.id}))
		},
		"SetDeletionProtection": func(s *subject) error {
			return errOf(w.SetDeletionProtection(ctx, root, &kmswire.SetDeletionProtectionRequest{ProtectedResourceArn: s.arn, EnableDeletionProtection: true}))
		},
		"GetParametersForImport": func(s *subject) error {
			return errOf(w.GetParametersForImport(ctx, root, &kmswire.GetParametersForImportRequest{KeyID: s.id, WrappingAlgorithm: "RSAES_OAEP_SHA_256", WrappingKeySpec: kmswire.RSA2048}))
		},
		"ImportKeyMaterial": func(s *subject) error {
			return errOf(w.ImportKeyMaterial(ctx, root, &kmswire.ImportKeyMaterialRequest{KeyID: s.id, EncryptedKeyMaterial: []byte("x"), ImportToken: []byte("x")}))
		},
		"DeleteKeyMaterial": func(s *subject) error {
			return errOf(w.DeleteKeyMaterial(ctx, root, &kmswire.DeleteKeyMaterialRequest{KeyID: s.id}))
		},
		"SetKeyPolicy": func(s *subject) error {
			return errOf(w.SetKeyPolicy(ctx, root, &kmswire.SetKeyPolicyRequest{KeyID: s.id, Policy: json.RawMessage(`{}`)}))
		},
		"GetKeyPolicy": func(s *subject) error {
			return errOf(w.GetKeyPolicy(ctx, root, &kmswire.GetKeyPolicyRequest{KeyID: s.id}))
		},
		"TagResource": func(s *subject) error {
			return errOf(w.TagResource(ctx, root, &kmswire.TagResourceRequest{KeyID: s.id, Tags: list}))
		},
		"UntagResource": func(s *subject) error {
			return errOf(w.UntagResource(ctx, root, &kmswire.UntagResourceRequest{KeyID: s.id, TagKeys: names}))
		},
		"ListResourceTags": func(s *subject) error {
			return errOf(w.ListResourceTags(ctx, root, &kmswire.ListResourceTagsRequest{KeyID: s.id}))
		},
		"CreateAlias": func(s *subject) error {
			return errOf(w.CreateAlias(ctx, root, &kmswire.CreateAliasRequest{AliasName: "alias/states-" + newID(8), KeyID: s.id}))
		},
		"UpdateAlias": func(s *subject) error {
			return errOf(w.UpdateAlias(ctx, root, &kmswire.UpdateAliasRequest{AliasName: alias(spare), KeyID: s.id}))
		},
		"DeleteAlias": func(s *subject) error {
			name := alias(spare)
			a, err := w.db.Alias(ctx, testAccount, name)
			must(err)
			must(w.db.Change().UpdateAlias(a, s.id).Commit(ctx))
			return errOf(w.DeleteAlias(ctx, root, &kmswire.DeleteAliasRequest{AliasName: name}))
		},
		"ListAliasesByKeyId": func(s *subject) error {
			return errOf(w.ListAliasesByKeyID(ctx, root, &kmswire.ListAliasesByKeyIDRequest{KeyID: s.id}))
		},
		"CreateKeyVersion": func(s *subject) error {
			return errOf(w.CreateKeyVersion(ctx, root, &kmswire.CreateKeyVersionRequest{KeyID: s.id}))
		},
		"DescribeKeyVersion": func(s *subject) error {
			return errOf(w.DescribeKeyVersion(ctx, root, &kmswire.DescribeKeyVersionRequest{KeyID: s.id, KeyVersionID: s.version}))
		},
		"ListKeyVersions": func(s *subject) error {
			return errOf(w.ListKeyVersions(ctx, root, &kmswire.ListKeyVersionsRequest{KeyID: s.id}))
		},
		"UpdateRotationPolicy": func(s *subject) error {
			return errOf(w.UpdateRotationPolicy(ctx, root, &kmswire.UpdateRotationPolicyRequest{KeyID: s.id, EnableAutomaticRotation: true, RotationInterval: "30d"}))
		},
		"Encrypt": func(s *subject) error {
			return errOf(w.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: s.id, Plaintext: []byte("x")}))
		},
		"Decrypt": func(s *subject) error {
			return errOf(w.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: s.blob}))
		},
		"ReEncrypt": func(s *subject) error { // from it: the table has both ends
			return errOf(w.ReEncrypt(ctx, root, &kmswire.ReEncryptRequest{CiphertextBlob: s.blob, DestinationKeyID: spare}))
		},
		"ReEncryptTo": func(s *subject) error {
			return errOf(w.ReEncrypt(ctx, root, &kmswire.ReEncryptRequest{CiphertextBlob: spareBlob, DestinationKeyID: s.id}))
		},
		"GenerateDataKey": func(s *subject) error {
			return errOf(w.GenerateDataKey(ctx, root, &kmswire.GenerateDataKeyRequest{KeyID: s.id, NumberOfBytes: &n}))
		},
		"GenerateDataKeyWithoutPlaintext": func(s *subject) error {
			return errOf(w.GenerateDataKeyWithoutPlaintext(ctx, root, &kmswire.GenerateDataKeyWithoutPlaintextRequest{KeyID: s.id, NumberOfBytes: &n}))
		},
		"GenerateAndExportDataKey": func(s *subject) error {
			return errOf(w.GenerateAndExportDataKey(ctx, root, &kmswire.GenerateAndExportDataKeyRequest{KeyID: s.id, NumberOfBytes: &n,
				PublicKeyBlob: []byte(publicKey), WrappingKeySpec: kmswire.RSA2048, WrappingAlgorithm: "RSAES_OAEP_SHA_256"}))
		},
		"ExportDataKey": func(s *subject) error {
			return errOf(w.ExportDataKey(ctx, root, &kmswire.ExportDataKeyRequest{CiphertextBlob: s.dataKey,
				PublicKeyBlob: []byte(publicKey), WrappingKeySpec: kmswire.RSA2048, WrappingAlgorithm: "RSAES_OAEP_SHA_256"}))
		},
		"AsymmetricEncrypt": func(s *subject) error {
			return errOf(w.AsymmetricEncrypt(ctx, root, &kmswire.AsymmetricEncryptRequest{KeyID: s.cipher, KeyVersionID: s.cipherVer, Algorithm: kmswire.RSAOAEPSHA256, Plaintext: []byte("x")}))
		},
		"AsymmetricDecrypt": func(s *subject) error {
			return errOf(w.AsymmetricDecrypt(ctx, root, &kmswire.AsymmetricDecryptRequest{KeyID: s.cipher, KeyVersionID: s.cipherVer, Algorithm: kmswire.RSAOAEPSHA256, CiphertextBlob: s.ciphertext}))
		},
		"AsymmetricSign": func(s *subject) error {
			return errOf(w.AsymmetricSign(ctx, root, &kmswire.AsymmetricSignRequest{KeyID: s.signer, KeyVersionID: s.signerVer, Algorithm: kmswire.ECDSASHA256, Digest: digest}))
		},
		"AsymmetricVerify": func(s *subject) error {
			return errOf(w.AsymmetricVerify(ctx, root, &kmswire.AsymmetricVerifyRequest{KeyID: s.signer, KeyVersionID: s.signerVer, Algorithm: kmswire.ECDSASHA256, Digest: digest, Value: s.signature}))
		},
		"GetPublicKey": func(s *subject) error {
			return errOf(w.GetPublicKey(ctx, root, &kmswire.GetPublicKeyRequest{KeyID: s.signer, KeyVersionID: s.signerVer}))
		},
		"GenerateCsr": func(s *subject) error {
			return errOf(w.GenerateCsr(ctx, root, &kmswire.GenerateCsrRequest{KeyID: s.signer, Algorithm: kmswire.ECDSASHA256, CommonName: "x"}))
		},
		"StartKeyAssociationCheck": func(s *subject) error {
			return errOf(w.StartKeyAssociationCheck(ctx, root, &kmswire.StartKeyAssociationCheckRequest{KeyID: s.id}))
		},
		"ListKeyAssociations": func(s *subject) error {
			return errOf(w.ListKeyAssociations(ctx, root, &kmswire.ListKeyAssociationsRequest{KeyID: s.id}))
		},
	}
	// Other reasons than the state refuse these here: the keys are no imported ones, the policy and the wrapped material are none.
	// TagResources and its like name several resources, and are about the same rows as TagResource. Keys that wait are
	// no objects of a token, so their names are not set.
	refused := []string{"GetParametersForImport", "ImportKeyMaterial", "DeleteKeyMaterial", "SetKeyPolicy"}
	elsewhere := []string{"ReEncryptFrom", "TagResources", "UntagResources", "ListTagResources", "SetTokenNames"}

	codes := map[string]Code{"D": KeyDisabled, "PD": KeyPendingDeletion, "PI": KeyPendingImport, "SMF": StateNotAllowed}
	states := []kmswire.KeyState{kmswire.Enabled, kmswire.Disabled, kmswire.PendingDeletion, kmswire.PendingImport}
	table := map[string][]string{}
	for line := range strings.Lines(strings.TrimSpace(stateTable)) {
		cells := strings.Fields(line)
		table[cells[0]] = cells[1:]
		if acts[cells[0]] == nil && !slices.Contains(elsewhere, cells[0]) {
			t.Errorf("nobody does %s here", cells[0])
		}
	}
	for i, state := range states {
		var s *subject
		pairs := asymmetric(state)
		for name, act := range acts {
			row := table[name]
			if row == nil {
				t.Fatalf("%s is not in the table", name)
			}
			if s == nil {
				s = enter(pairs, state)
			}
			err := act(s)
			switch want := row[i]; {
			case want != "ok":
				wantCode(t, name+" in "+string(state), err, codes[want])
			case err == nil:
				s = nil // it may have changed the key
			case !slices.Contains(refused, name) || slices.ContainsFunc(stateCodes, func(c Code) bool { return errors.Is(err, c) }):
				t.Errorf("%s in %s: %v", name, state, err)
			}
		}
	}
}

// errOf leaves the answer away.
func errOf[T any](_ *T, err error) error { return err }
