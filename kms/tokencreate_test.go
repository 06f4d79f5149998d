package kms

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keyward/keyward/kms/kmswire"
)

func keyNames(class ObjectClass, id, label string) map[ObjectClass]ObjectNames {
	n := ObjectNames{Label: label}
	if id != "" {
		n.ID = []byte(id)
	}
	return map[ObjectClass]ObjectNames{class: n}
}

func privateDER(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func newP256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestCreateTokenKey(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	made, err := w.CreateTokenKey(ctx, root, &NewTokenKey{Instance: "kst-software", Spec: kmswire.ECP256, Usage: kmswire.SignVerify,
		Names: map[ObjectClass]ObjectNames{ClassPrivateKey: {ID: []byte{1}, Label: "tls"}, ClassPublicKey: {Label: "its public half"}}})
	if err != nil {
		t.Fatal(err)
	}
	byDefault := w.tokens.ids.of(testAccount, made.KeyPlace)
	want := map[ObjectClass]ObjectNames{ClassPrivateKey: {ID: []byte{1}, Label: "tls"}, ClassPublicKey: {ID: byDefault, Label: "its public half"}}
	if !reflect.DeepEqual(made.Names, want) || !made.Newest || made.Imported || made.Hardware || len(made.PublicKey) == 0 {
		t.Errorf("%+v", made)
	}
	if a, err := w.db.Alias(ctx, testAccount, "alias/tls"); err != nil || a.KeyID != made.KeyID {
		t.Errorf("the alias: %+v %v", a, err)
	}
	if n := w.count("CreateKey", "begun"); n != 1 {
		t.Errorf("%d begun", n)
	}
	// A label that is taken, or that can't be an alias, is a label all the same.
	for _, label := range []string{"tls", "my key", "acs/oss", "über", strings.Repeat("a", MaxObjectLabel), ""} {
		k, err := w.CreateTokenKey(ctx, root, &NewTokenKey{Instance: "kst-software", Spec: kmswire.AES256, Usage: kmswire.EncryptDecrypt,
			Names: keyNames(ClassSecretKey, "", label)})
		if err != nil {
			t.Fatalf("%q: %v", label, err)
		}
		if label == "" {
			label = k.KeyID
		}
		if got := k.Names[ClassSecretKey].Label; got != label {
			t.Errorf("%q became %q", label, got)
		}
		if _, total, err := w.db.AliasesOf(ctx, k.KeyID, 0, 9); err != nil || total != 0 {
			t.Errorf("%q: %d aliases, %v", label, total, err)
		}
	}
	label := "tls"
	found, err := w.TokenKeysNamed(ctx, root, "kst-software", SomeNames{Label: &label})
	if err != nil || len(found) != 2 {
		t.Errorf("%d objects called tls, %v", len(found), err)
	}
	if found, err = w.TokenKeysNamed(ctx, root, "kst-software", SomeNames{ID: []byte{1}, Label: &label}); err != nil || len(found) != 1 || found[0].KeyID != made.KeyID {
		t.Errorf("by both: %v %v", found, err)
	}
	if found, err = w.TokenKeysNamed(ctx, root, "kst-software", SomeNames{ID: byDefault, Label: &label}); err != nil || len(found) != 0 {
		t.Errorf("ID and label of different objects: %v %v", found, err)
	}
	for what, c := range map[string]struct {
		actor *Actor
		edit  func(*NewTokenKey)
		want  Code
	}{
		"by a user":        {user, func(*NewTokenKey) {}, Denied},
		"in no instance":   {root, func(r *NewTokenKey) { r.Instance = "" }, MissingParameter},
		"in none known":    {root, func(r *NewTokenKey) { r.Instance = "kst-none" }, InvalidParameter},
		"pinned software":  {root, func(r *NewTokenKey) { r.Pinned = true }, InvalidParameter},
		"of no spec":       {root, func(r *NewTokenKey) { r.Spec = "EC_P999" }, InvalidParameter},
		"of a wrong usage": {root, func(r *NewTokenKey) { r.Usage = kmswire.EncryptDecrypt }, InvalidParameter},
		"a secret key":     {root, func(r *NewTokenKey) { r.Names = keyNames(ClassSecretKey, "", "x") }, InvalidParameter},
		"a long ID":        {root, func(r *NewTokenKey) { r.Names = keyNames(ClassPrivateKey, strings.Repeat("x", MaxObjectID+1), "") }, InvalidParameter},
		"a long label": {root, func(r *NewTokenKey) {
			r.Names = keyNames(ClassPrivateKey, "", strings.Repeat("x", MaxObjectLabel+1))
		}, InvalidParameter},
		"no UTF-8":        {root, func(r *NewTokenKey) { r.Names = keyNames(ClassPrivateKey, "", "\xff") }, InvalidParameter},
		"no material":     {root, func(r *NewTokenKey) { r.Material = []byte{} }, InvalidKeyMaterial},
		"bad material":    {root, func(r *NewTokenKey) { r.Material = []byte("x") }, InvalidKeyMaterial},
		"another's curve": {root, func(r *NewTokenKey) { r.Spec, r.Material = kmswire.ECP256K, privateDER(t, newP256(t)) }, InvalidKeyMaterial},
		"31 octets": {root, func(r *NewTokenKey) {
			r.Spec, r.Usage, r.Material = kmswire.AES256, kmswire.EncryptDecrypt, make([]byte, 31)
		}, InvalidKeyMaterial},
	} {
		before := w.keyIDs()
		req := &NewTokenKey{Instance: "kst-software", Spec: kmswire.ECP256, Usage: kmswire.SignVerify}
		c.edit(req)
		_, err := w.CreateTokenKey(ctx, c.actor, req)
		wantCode(t, what, err, c.want)
		if after := w.keyIDs(); !slices.Equal(before, after) {
			t.Errorf("%s left %v", what, after)
		}
	}
}

func (w *world) keyIDs() []string {
	w.t.Helper()
	ids, _, err := w.db.Keys(context.Background(), testAccount, 0, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	return ids
}

// A key that is brought along is an imported key with its material from the first moment.
func TestBringTokenKey(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	secret := make([]byte, 32)
	rand.Read(secret)
	k, err := w.CreateTokenKey(ctx, root, &NewTokenKey{Instance: "kst-software", Spec: kmswire.AES256, Usage: kmswire.EncryptDecrypt, Material: secret,
		Names: keyNames(ClassSecretKey, "own id", "mine")})
	if err != nil {
		t.Fatal(err)
	}
	if !k.Imported || k.State != kmswire.Enabled {
		t.Errorf("%+v", k)
	}
	v, err := w.db.Version(ctx, k.KeyID, k.VersionID)
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := w.db.Unseal(v); err != nil || !bytes.Equal(kept, secret) {
		t.Errorf("the material is another, %v", err)
	}
	if n := w.count("ImportKeyMaterial", "ok"); n != 1 {
		t.Errorf("%d imports in the audit", n)
	}
	if e := w.lastOf("ImportKeyMaterial"); e.KeyID != k.KeyID || e.VersionID != k.VersionID {
		t.Errorf("%+v", e)
	}
	// It is bound to its material: the API imports the same again, and no other.
	private := newP256(t)
	e, err := w.CreateTokenKey(ctx, root, &NewTokenKey{Instance: "kst-software", Spec: kmswire.ECP256, Usage: kmswire.SignVerify, Material: privateDER(t, private)})
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.ParsePKIXPublicKey(e.PublicKey)
	if err != nil || !private.PublicKey.Equal(public) {
		t.Errorf("the public key is another, %v", err)
	}
	f := &fixture{Service: w.Service, t: t, db: w.db}
	if err := f.tryImport(k.KeyID, kmswire.RSAOAEPSHA256, secret); err != nil {
		t.Errorf("the same once more: %v", err)
	}
	wantCode(t, "another", f.tryImport(k.KeyID, kmswire.RSAOAEPSHA256, make([]byte, 32)), InvalidKeyMaterial)
	// Both permissions are needed.
	if _, err := w.Principals().Create(ctx, root, user.Principal, ""); err != nil {
		t.Fatal(err)
	}
	before := w.keyIDs()
	for _, text := range []string{
		identityPolicyText("Allow", "kms:CreateKey", "*"),
		`{"Version":"1","Statement":[{"Effect":"Allow","Action":["kms:CreateKey"],"Resource":["*"]},{"Effect":"Deny","Action":["kms:ImportKeyMaterial"],"Resource":["*"]}]}`,
	} {
		if err := w.Principals().AttachPolicy(ctx, root, user.Principal, "p", text); err != nil {
			t.Fatal(err)
		}
		k, err := w.CreateTokenKey(ctx, user, &NewTokenKey{Instance: "kst-software", Spec: kmswire.AES256, Usage: kmswire.EncryptDecrypt, Material: secret})
		if strings.Contains(text, "Deny") {
			wantCode(t, "without import", err, Denied)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		before = append(before, k.KeyID)
	}
	if after := w.keyIDs(); !slices.Equal(before, after) {
		t.Errorf("a refusal left %v", after)
	}
}

// The process dies at each commit of making a key: it is there with all that belongs to it, or nothing is.
func TestCreateTokenKeyDies(t *testing.T) {
	ctx := context.Background()
	for _, material := range [][]byte{nil, privateDER(t, newP256(t))} {
		for _, torn := range []bool{false, true} {
			for budget := 1; ; budget++ {
				w := newWorld(t, nil)
				w.disk.mu.Lock()
				w.disk.budget, w.disk.torn = budget, torn
				w.disk.mu.Unlock()
				_, err := w.CreateTokenKey(ctx, root, &NewTokenKey{Instance: "kst-software", Spec: kmswire.ECP256, Usage: kmswire.SignVerify,
					Names: keyNames(ClassPrivateKey, "id", "label"), Material: material})
				w.restart()
				keys := allTokenKeys(t, w.Service, root, "kst-software", 10)
				_, aliasErr := w.db.Alias(ctx, testAccount, "alias/label")
				named, namesErr := w.db.TokenNamesByLabel(ctx, testAccount, "kst-software", "label")
				if there := len(keys) == 1; there != (aliasErr == nil) || there != (len(named) == 1) || namesErr != nil || err == nil && !there {
					t.Fatalf("budget %d, torn %t, %v: %d keys, alias %v, %d names", budget, torn, err, len(keys), aliasErr, len(named))
				}
				if ids := w.keyIDs(); len(ids) != len(keys) {
					t.Fatalf("budget %d, torn %t: %d keys, %d of them objects", budget, torn, len(ids), len(keys))
				}
				if err == nil {
					break
				}
			}
		}
	}
}

func TestNameTokenKey(t *testing.T) {
	w := newWorld(t, nil)
	w.onDisk()
	ctx := context.Background()
	id := w.createNamed("kst-software", kmswire.ECP256, "alias/x")
	place := KeyPlace{1, 1}
	label, empty := "called so", ""
	name := func(actor *Actor, class ObjectClass, id []byte, label *string) error {
		return w.NameTokenKey(ctx, actor, "kst-software", place, class, SomeNames{ID: id, Label: label})
	}
	if err := name(user, ClassPrivateKey, nil, &label); err != nil {
		t.Fatal(err)
	}
	if err := name(user, ClassPrivateKey, []byte("id"), nil); err != nil {
		t.Fatal(err)
	}
	if err := name(user, ClassPublicKey, []byte{}, &empty); err != nil {
		t.Fatal(err)
	}
	want := map[ObjectClass]ObjectNames{ClassPrivateKey: {ID: []byte("id"), Label: label}, ClassPublicKey: {ID: []byte{}}}
	for range 2 {
		k, err := w.TokenKey(ctx, user, "kst-software", place)
		if err != nil || !reflect.DeepEqual(k.Names, want) {
			t.Fatalf("%+v %v", k.Names, err)
		}
		for _, c := range []struct {
			id    []byte
			label *string
			found bool
		}{{nil, &label, true}, {[]byte("id"), nil, true}, {[]byte{}, nil, true}, {nil, &empty, true}, {[]byte("id"), &label, true}, {[]byte{}, &label, false},
			{w.tokens.ids.of(testAccount, place), nil, false}} {
			found, err := w.TokenKeysNamed(ctx, user, "kst-software", SomeNames{ID: c.id, Label: c.label})
			if err != nil || (len(found) == 1) != c.found {
				t.Errorf("%q %v: %d, %v", c.id, c.label, len(found), err)
			}
		}
		w.restart()
	}
	if e := w.lastOf("SetTokenNames"); e.KeyID != id || e.Outcome != "ok" || w.count("SetTokenNames", "begun") != 3 {
		t.Errorf("%+v", e)
	}
	wantCode(t, "no such class", name(user, ClassSecretKey, nil, &label), InvalidParameter)
	wantCode(t, "no such version", w.NameTokenKey(ctx, root, "kst-software", KeyPlace{1, 2}, ClassPrivateKey, SomeNames{Label: &label}), KeyNotFound)
	wantCode(t, "another account", w.NameTokenKey(ctx, other, "kst-software", place, ClassPrivateKey, SomeNames{Label: &label}), KeyNotFound)
	policyText := fmt.Sprintf(`{"Version":"1","Statement":[{"Effect":"Allow","Principal":{"RAM":["%s"]},"Action":["kms:*"],"Resource":["*"]},
		{"Effect":"Allow","Principal":{"RAM":["%s"]},"Action":["kms:DescribeKey"],"Resource":["*"]}]}`, root.Principal, user.Principal)
	if _, err := w.SetKeyPolicy(ctx, root, &kmswire.SetKeyPolicyRequest{KeyID: id, Policy: []byte(policyText)}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "who may look", name(user, ClassPrivateKey, nil, &label), Denied)
	wantCode(t, "who may not", name(bob, ClassPrivateKey, nil, &label), KeyNotFound)
	// Deleted with the key.
	if err := w.schedule(id, 7); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "a key that waits", name(root, ClassPrivateKey, nil, &label), KeyNotFound)
	w.live(8 * day)
	if !w.gone(id) {
		t.Fatal("the key is still there")
	}
	if left, err := w.db.TokenNamesByLabel(ctx, testAccount, "kst-software", label); err != nil || len(left) > 0 {
		t.Errorf("names of a deleted key: %v %v", left, err)
	}
	wantCode(t, "a place that is gone", name(root, ClassPrivateKey, nil, &label), KeyNotFound)
}

// Many name one key at the same time, each another class and part: all of it is kept.
func TestNameTokenKeyAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	w.createNamed("kst-software", kmswire.ECP256, "")
	place, label := KeyPlace{1, 1}, "label"
	var done sync.WaitGroup
	for _, class := range []ObjectClass{ClassPrivateKey, ClassPublicKey} {
		done.Go(func() {
			if err := w.NameTokenKey(ctx, root, "kst-software", place, class, SomeNames{ID: []byte{byte(class)}}); err != nil {
				t.Error(err)
			}
		})
		done.Go(func() {
			if err := w.NameTokenKey(ctx, root, "kst-software", place, class, SomeNames{Label: &label}); err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	k, err := w.TokenKey(ctx, root, "kst-software", place)
	if err != nil || !reflect.DeepEqual(k.Names, map[ObjectClass]ObjectNames{ClassPrivateKey: {ID: []byte{3}, Label: label}, ClassPublicKey: {ID: []byte{2}, Label: label}}) {
		t.Errorf("%+v %v", k.Names, err)
	}
}

func TestDestroyTokenKey(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	id := w.createNamed("kst-software", kmswire.AES256, "alias/x")
	place := KeyPlace{1, 1}
	protect := func(on bool) {
		if _, err := w.SetDeletionProtection(ctx, root, &kmswire.SetDeletionProtectionRequest{KeyID: id, EnableDeletionProtection: on}); err != nil {
			t.Fatal(err)
		}
	}
	protect(true)
	wantCode(t, "a protected key", w.DestroyTokenKey(ctx, root, "kst-software", place), KeyProtected)
	protect(false)
	wantCode(t, "another instance", w.DestroyTokenKey(ctx, root, "kst-hardware", place), KeyNotFound)
	wantCode(t, "another account", w.DestroyTokenKey(ctx, other, "kst-software", place), KeyNotFound)
	if err := w.DestroyTokenKey(ctx, root, "kst-software", place); err != nil {
		t.Fatal(err)
	}
	d := w.describe(id)
	if d.KeyState != kmswire.PendingDeletion || d.DeleteDate != formatTime(w.now().Add(tokenWindowDays*day)) {
		t.Errorf("%+v", d)
	}
	wantCode(t, "once more", w.DestroyTokenKey(ctx, root, "kst-software", place), KeyNotFound)
	if _, err := w.CancelKeyDeletion(ctx, root, &kmswire.CancelKeyDeletionRequest{KeyID: id}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.CreateKeyVersion(ctx, root, &kmswire.CreateKeyVersionRequest{KeyID: id}); err != nil {
		t.Fatal(err)
	}
	err := w.DestroyTokenKey(ctx, root, "kst-software", place)
	wantCode(t, "one of two versions", err, StateNotAllowed)
	if !strings.Contains(fmt.Sprint(err), "keywardctl key delete "+id) {
		t.Error(err)
	}
	if e := w.lastOf("ScheduleKeyDeletion"); e.KeyID != id || e.Outcome == "ok" {
		t.Errorf("%+v", e)
	}
}

// Keys of HSMs: made and brought along, wrapped and pinned.
func testCreateTokenKeyInHSM(t *testing.T, f *fixture) {
	ctx := context.Background()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	secret := randomOctets(16)
	private := newP256(t)
	for _, c := range []struct {
		spec     kmswire.KeySpec
		usage    kmswire.KeyUsage
		material []byte
	}{
		{kmswire.AES128, kmswire.EncryptDecrypt, nil}, {kmswire.AES128, kmswire.EncryptDecrypt, secret}, {kmswire.ECP256, kmswire.SignVerify, nil},
		{kmswire.ECP256, kmswire.SignVerify, privateDER(t, private)}, {kmswire.RSA2048, kmswire.EncryptDecrypt, privateDER(t, rsaKey)},
	} {
		for _, pin := range []bool{false, true} {
			what := fmt.Sprint(c.spec, " brought ", c.material != nil, " pinned ", pin)
			class := keyClasses(c.spec)[0]
			k, err := f.CreateTokenKey(ctx, root, &NewTokenKey{Instance: "kst-hardware", Spec: c.spec, Usage: c.usage, Pinned: pin, Material: c.material,
				Names: keyNames(class, what, what)})
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if !k.Hardware || k.Imported != (c.material != nil) || k.Names[class].Label != what || k.Instance != "kst-hardware" {
				t.Errorf("%s: %+v", what, k)
			}
			record, err := f.db.Key(ctx, k.KeyID)
			if err != nil || (record.Storage == kmswire.HsmInternal) != pin || record.Usage != string(c.usage) {
				t.Errorf("%s: %+v %v", what, record, err)
			}
			switch {
			case c.spec == kmswire.AES128 && c.material != nil:
				e, err := f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: k.KeyID, Plaintext: []byte("attack at dawn")})
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if d, err := f.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: e.CiphertextBlob}); err != nil || string(d.Plaintext) != "attack at dawn" {
					t.Errorf("%s: %v", what, err)
				}
			case c.spec == kmswire.ECP256:
				digest := randomOctets(32)
				s, err := f.AsymmetricSign(ctx, root, &kmswire.AsymmetricSignRequest{KeyID: k.KeyID, KeyVersionID: k.VersionID, Algorithm: kmswire.ECDSASHA256, Digest: digest})
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				public, err := x509.ParsePKIXPublicKey(k.PublicKey)
				if err != nil || c.material != nil && !private.PublicKey.Equal(public) || !ecdsa.VerifyASN1(public.(*ecdsa.PublicKey), digest, s.Value) {
					t.Errorf("%s: the signature is another key's, %v", what, err)
				}
			}
			if _, err := f.TokenKey(ctx, root, "kst-hardware", k.KeyPlace); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	keys := allTokenKeys(t, f.Service, root, "kst-hardware", 3)
	if len(keys) != 10 {
		t.Errorf("%d keys", len(keys))
	}
	// What can't be imported leaves nothing, in the store and in the HSMs.
	for _, pin := range []bool{false, true} {
		for _, material := range [][]byte{{}, secret[:15], bytes.Repeat(secret, 1000)} {
			_, err := f.CreateTokenKey(ctx, root, &NewTokenKey{Instance: "kst-hardware", Spec: kmswire.AES128, Usage: kmswire.EncryptDecrypt, Pinned: pin, Material: material})
			wantCode(t, fmt.Sprint(len(material), " octets"), err, InvalidKeyMaterial)
		}
		for _, material := range [][]byte{secret, privateDER(t, private)[:50], privateDER(t, rsaKey)} {
			_, err := f.CreateTokenKey(ctx, root, &NewTokenKey{Instance: "kst-hardware", Spec: kmswire.ECP256, Usage: kmswire.SignVerify, Pinned: pin, Material: material})
			wantCode(t, fmt.Sprint(len(material), " octets"), err, InvalidKeyMaterial)
		}
	}
	if after := allTokenKeys(t, f.Service, root, "kst-hardware", 100); len(after) != 10 {
		t.Errorf("%d keys", len(after))
	}
	f.wantNoIntents()
	dieBringing(t, f, secret)
}

// dieBringing has the process die at each commit of bringing a key along as an object of an HSM: it is there and works, or nothing is left.
func dieBringing(t *testing.T, f *fixture, secret []byte) {
	ctx := context.Background()
	for _, torn := range []bool{false, true} {
		w := newWorld(t, f.pool)
		for budget := 1; budget <= 3; budget++ {
			w.disk.mu.Lock()
			w.disk.budget, w.disk.torn = budget, torn
			w.disk.mu.Unlock()
			label := fmt.Sprint("budget ", budget)
			_, err := w.CreateTokenKey(ctx, root, &NewTokenKey{Instance: "kst-hardware", Spec: kmswire.AES128, Usage: kmswire.EncryptDecrypt, Pinned: true,
				Material: secret, Names: keyNames(ClassSecretKey, "", label)})
			if (err == nil) != (budget == 3) {
				t.Errorf("torn %t, budget %d: %v", torn, budget, err)
			}
			w.restart()
			if left, err := w.db.Intents(ctx); err != nil || len(left) > 0 {
				t.Errorf("torn %t, budget %d: intents %v, %v", torn, budget, left, err)
			}
			found, err := w.TokenKeysNamed(ctx, root, "kst-hardware", SomeNames{Label: &label})
			if want := budget == 3 || budget == 2 && torn; err != nil || (len(found) == 1) != want || len(found) > 1 {
				t.Errorf("torn %t, budget %d: %d keys, %v", torn, budget, len(found), err)
			}
			for _, k := range found {
				if _, err := w.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: k.KeyID, Plaintext: []byte("x")}); err != nil {
					t.Errorf("torn %t, budget %d: %v", torn, budget, err)
				}
			}
		}
		if ids := w.keyIDs(); len(ids) != 1 && !torn || len(ids) != 2 && torn {
			t.Errorf("torn %t: %d keys", torn, len(ids))
		}
	}
}
