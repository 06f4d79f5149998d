package kms

import (
	"bytes"
	"context"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/keyward/keyward/kms/kmswire"
)

// since gives the events after the first n.
func (e *events) since(n int) []AuditEvent {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]AuditEvent(nil), e.all[n:]...)
}

func (e *events) len() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.all)
}

// A key that a call used must be in the audit, also where the call used another key besides.
func testEveryKeyIsInTheAudit(t *testing.T, f *fixture) {
	ctx := context.Background()
	encrypt := func(keyID string) []byte {
		t.Helper()
		e, err := f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: keyID, Plaintext: []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		return e.CiphertextBlob
	}
	a, b := f.create(software, kmswire.AES256, "").KeyID, f.create(wrapped, kmswire.AES256, "").KeyID
	off := f.create(software, kmswire.AES256, "").KeyID
	blobA, blobB, blobOff := encrypt(a), encrypt(b), encrypt(off)
	if _, err := f.DisableKey(ctx, root, &kmswire.DisableKeyRequest{KeyID: off}); err != nil {
		t.Fatal(err)
	}
	find := func(all []AuditEvent, action, keyID string) AuditEvent {
		t.Helper()
		for _, e := range all {
			if e.Action == action && e.KeyID == keyID {
				return e
			}
		}
		t.Errorf("no event of %s with %s in %+v", action, keyID, all)
		return AuditEvent{}
	}

	n := f.events.len()
	if _, err := f.BatchDecrypt(ctx, user, &kmswire.BatchDecryptRequest{Items: []kmswire.BatchDecryptItem{
		{CiphertextBlob: blobA}, {CiphertextBlob: blobA[:len(blobA)-1]}, {CiphertextBlob: blobOff}, {CiphertextBlob: []byte("rubbish")}, {CiphertextBlob: blobB},
	}}); err != nil {
		t.Fatal(err)
	}
	all := f.events.since(n)
	if e := find(all, "Decrypt", a); e.Items != 2 || e.Outcome != "ok" || e.Detail != "1 of 2 items failed" || e.VersionID == "" {
		t.Errorf("first key: %+v", e)
	}
	if e := find(all, "Decrypt", b); e.Items != 1 || e.Outcome != "ok" || e.Detail != "" {
		t.Errorf("second key: %+v", e)
	}
	if e := find(all, "Decrypt", off); e.Items != 1 || e.Outcome != KeyDisabled.Error() {
		t.Errorf("refused key: %+v", e)
	}
	if e := find(all, "Decrypt", ""); len(all) != 4 || e.Items != 5 || e.Detail != "3 of 5 items failed" {
		t.Errorf("the call: %+v", e)
	}

	n = f.events.len()
	if _, err := f.BatchDecrypt(ctx, user, &kmswire.BatchDecryptRequest{Items: []kmswire.BatchDecryptItem{{CiphertextBlob: blobA}, {CiphertextBlob: blobA}}}); err != nil {
		t.Fatal(err)
	}
	if all := f.events.since(n); len(all) != 1 || all[0].KeyID != a || all[0].Items != 2 {
		t.Errorf("one key: %+v", all)
	}

	n = f.events.len()
	if _, err := f.ReEncrypt(ctx, user, &kmswire.ReEncryptRequest{CiphertextBlob: blobA, DestinationKeyID: b}); err != nil {
		t.Fatal(err)
	}
	all = f.events.since(n)
	if e := find(all, "ReEncryptFrom", a); e.Outcome != "ok" || !strings.HasPrefix(e.VersionID, a) {
		t.Errorf("source: %+v", e)
	}
	if e := find(all, "ReEncrypt", b); len(all) != 2 || e.Outcome != "ok" || !strings.HasPrefix(e.VersionID, b) {
		t.Errorf("destination: %+v", e)
	}
	n = f.events.len()
	if _, err := f.ReEncrypt(ctx, user, &kmswire.ReEncryptRequest{CiphertextBlob: blobOff, DestinationKeyID: b}); err == nil {
		t.Error("re-encrypted from a disabled key")
	}
	if e := find(f.events.since(n), "ReEncryptFrom", off); e.Outcome != KeyDisabled.Error() {
		t.Errorf("refused source: %+v", e)
	}

	gone := bytes.Replace(blobA, []byte(a), []byte("key-00000000000000000000"), 1)
	if _, err := f.Decrypt(ctx, user, &kmswire.DecryptRequest{CiphertextBlob: gone}); err == nil {
		t.Error("decrypted with a key that is not there")
	}
	if e := f.events.last(); e.KeyID != "key-00000000000000000000" {
		t.Errorf("a key that is not there: %+v", e)
	}
}

// Who moves an alias decides which key others encrypt with: the audit must say which alias, and from where.
func testAliasesAreInTheAudit(t *testing.T, f *fixture) {
	ctx := context.Background()
	one, two := f.create(software, kmswire.AES256, "").KeyID, f.create(software, kmswire.AES256, "").KeyID
	check := func(err error, keyID, detail string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range f.events.since(f.events.len() - 2) { // begun, ok
			if e.KeyID != keyID || e.Detail != detail {
				t.Errorf("%+v, want %s with %q", e, keyID, detail)
			}
		}
	}
	_, err := f.CreateAlias(ctx, root, &kmswire.CreateAliasRequest{AliasName: "alias/x", KeyID: one})
	check(err, one, "alias/x")
	_, err = f.UpdateAlias(ctx, root, &kmswire.UpdateAliasRequest{AliasName: "alias/x", KeyID: two})
	check(err, two, "alias/x named "+one+" before")
	_, err = f.DeleteAlias(ctx, root, &kmswire.DeleteAliasRequest{AliasName: "alias/x"})
	check(err, two, "alias/x")
	made, err := f.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", AliasName: "alias/y"})
	if err != nil {
		t.Fatal(err)
	}
	check(nil, made.KeyMetadata.KeyID, "alias/y")
}

// An item whose header was changed fails alone, wherever it stands among items of the same version.
func testOneBadItemOfAVersion(t *testing.T, f *fixture) {
	ctx := context.Background()
	for _, k := range []kind{software, wrapped} {
		e, err := f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: f.create(k, kmswire.AES256, "").KeyID, Plaintext: make([]byte, 100)})
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Clone(e.CiphertextBlob)
		changed[1] ^= 3 // the other algorithm
		d, err := f.BatchDecrypt(ctx, root, &kmswire.BatchDecryptRequest{Items: []kmswire.BatchDecryptItem{{CiphertextBlob: changed}, {CiphertextBlob: e.CiphertextBlob}}})
		if err != nil {
			t.Fatal(err)
		}
		if d.Items[0].ItemError == nil || d.Items[1].ItemError != nil || len(d.Items[1].Plaintext) != 100 {
			t.Errorf("%s: %+v", k, d.Items)
		}
	}
}

// What a caller makes up must not fill the audit or come back without bound.
func testLongNames(t *testing.T, f *fixture) {
	ctx := context.Background()
	long := strings.Repeat("\x01é", 100_000)
	digest := sha256.Sum256(nil)
	ec := f.create(software, kmswire.ECP256, "").KeyID
	check := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Fatalf("%s: no error", what)
		}
		if e := f.events.last(); len(e.KeyID)+len(e.VersionID)+len(e.Detail) > 4096 || len(AsError(err).Detail) > 4096 {
			t.Errorf("%s: event of %d, %d and %d octets, error of %d", what, len(e.KeyID), len(e.VersionID), len(e.Detail), len(AsError(err).Detail))
		}
	}
	_, err := f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: long, Plaintext: []byte("x")})
	check("key", err)
	_, err = f.AsymmetricSign(ctx, root, &kmswire.AsymmetricSignRequest{KeyID: ec, KeyVersionID: long, Algorithm: kmswire.ECDSASHA256, Digest: digest[:]})
	check("version", err)
	_, err = f.AsymmetricSign(ctx, root, &kmswire.AsymmetricSignRequest{KeyID: ec, KeyVersionID: ec + "-0000000000", Algorithm: kmswire.Algorithm(long), Digest: digest[:]})
	check("algorithm", err)
	_, err = f.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: long})
	check("instance", err)
}
