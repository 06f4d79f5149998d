package kms

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// newXKIFixture has two accounts, an instance of each kind but hardware, and a key that may be served.
func newXKIFixture(t *testing.T) (f *storeFixture, key string) {
	t.Helper()
	f = newStoreFixture(t, Instance{ID: "kst-a", Type: SoftwareInstance}, Instance{ID: "kst-x", Type: ExternalInstance},
		Instance{ID: "kst-theirs", Type: ExternalInstance, Account: sharerAccount})
	f.config.Accounts = []string{testAccount, sharerAccount}
	f.Service = f.start()
	return f, f.make("kst-a", root).KeyID
}

func TestXKIPrefixes(t *testing.T) {
	ctx := t.Context()
	f, key := newXKIFixture(t)
	x := f.XKI()
	if _, err := f.CreateAlias(ctx, root, &kmswire.CreateAliasRequest{AliasName: "alias/orders", KeyID: key}); err != nil {
		t.Fatal(err)
	}
	p, err := x.CreatePrefix(ctx, root, &keystore.XKIPrefix{Name: "ks1", Dialect: "xks-v1", Path: "/ks1", Keys: map[string]string{"orders": "alias/orders"}})
	if err != nil || p.Account != testAccount || p.Principal != root.Principal || p.Keys["orders"] != key || len(p.Credentials) != 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	rsa, err := f.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-a", KeySpec: kmswire.ECP256, KeyUsage: kmswire.SignVerify})
	if err != nil {
		t.Fatal(err)
	}
	defaultKey, err := f.EnableDefaultKey(ctx, root, &kmswire.EnableDefaultKeyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	many := map[string]string{}
	for i := range maxXKIKeys + 1 {
		many[fmt.Sprint("k", i)] = key
	}
	for what, row := range map[string]struct {
		want Code
		p    keystore.XKIPrefix
	}{
		"the name again":           {OperationRejected, keystore.XKIPrefix{Name: "ks1", Dialect: "xks-v1", Path: "/other"}},
		"the path again":           {OperationRejected, keystore.XKIPrefix{Name: "ks2", Dialect: "xks-v1", Path: "/ks1"}},
		"no name":                  {InvalidParameter, keystore.XKIPrefix{}},
		"capitals":                 {InvalidParameter, keystore.XKIPrefix{Name: "KS"}},
		"a long name":              {InvalidParameter, keystore.XKIPrefix{Name: strings.Repeat("x", maxXKIName+1)}},
		"a key of nobody":          {KeyNotFound, keystore.XKIPrefix{Name: "n", Keys: map[string]string{"k": "key-aaaaaaaaaaaaaaaaaaaa"}}},
		"an alias of nobody":       {AliasNotFound, keystore.XKIPrefix{Name: "n", Keys: map[string]string{"k": "alias/none"}}},
		"a key that signs":         {InvalidParameter, keystore.XKIPrefix{Name: "n", Keys: map[string]string{"k": rsa.KeyMetadata.KeyID}}},
		"the default key":          {InvalidParameter, keystore.XKIPrefix{Name: "n", Keys: map[string]string{"k": defaultKey.KeyMetadata.KeyID}}},
		"an ID with a slash":       {InvalidParameter, keystore.XKIPrefix{Name: "n", Keys: map[string]string{"a/b": key}}},
		"an ID of 129":             {InvalidParameter, keystore.XKIPrefix{Name: "n", Keys: map[string]string{strings.Repeat("x", 129): key}}},
		"nobody's principal":       {ResourceNotFound, keystore.XKIPrefix{Name: "n", Principal: "acs:ram::" + testAccount + ":user/nobody"}},
		"another's principal":      {InvalidParameter, keystore.XKIPrefix{Name: "n", Principal: sharer.Principal}},
		"a principal that is none": {InvalidParameter, keystore.XKIPrefix{Name: "n", Principal: "root"}},
		"an account of nobody":     {ResourceNotFound, keystore.XKIPrefix{Name: "n", Account: thirdAccount}},
		"our key in their account": {KeyNotFound, keystore.XKIPrefix{Name: "n", Account: sharerAccount, Keys: map[string]string{"k": key}}},
	} {
		_, err := x.CreatePrefix(ctx, root, &row.p)
		wantCode(t, what, err, row.want)
	}
	if _, err := x.UpdatePrefix(ctx, root, "ks1", &XKIPrefixUpdate{AddKeys: many}); AsError(err).Code != LimitExceeded {
		t.Errorf("more keys than may be: %v", err)
	}

	// A tenant's root has prefixes of its own, and sees and changes no other. No user does.
	if _, err := x.CreatePrefix(ctx, sharer, &keystore.XKIPrefix{Name: "theirs", Dialect: "xks-v1", Path: "/theirs"}); err != nil {
		t.Fatal(err)
	}
	for who, want := range map[*Actor]string{root: " ks1 theirs", sharer: " theirs"} {
		list, err := x.Prefixes(ctx, who)
		got := ""
		for _, p := range list {
			got += " " + p.Name
		}
		if err != nil || got != want {
			t.Errorf("%s sees%s, %v", who.Principal, got, err)
		}
	}
	if err := x.Refuse(ctx, sharer); err != nil {
		t.Error(err)
	}
	for _, who := range []*Actor{sharer, user, sharerUser} {
		want := Denied
		if who == sharer {
			want = ResourceNotFound // of what is there it is not told
		} else {
			_, err := x.Prefixes(ctx, who)
			wantCode(t, "a list for "+who.Principal, err, Denied)
			wantCode(t, who.Principal, x.Refuse(ctx, who), Denied)
			if e := f.events.last(); e.Action != "ManageXKI" || e.Outcome != "denied by policy" {
				t.Errorf("%+v", e)
			}
		}
		_, err := x.CreateCredential(ctx, who, "ks1")
		wantCode(t, "a credential for "+who.Principal, err, want)
		_, _, err = x.ExportCredential(ctx, who, "ks1", "")
		wantCode(t, "a secret for "+who.Principal, err, want)
		_, err = x.UpdatePrefix(ctx, who, "ks1", &XKIPrefixUpdate{})
		wantCode(t, "a change by "+who.Principal, err, want)
		wantCode(t, "a removal by "+who.Principal, x.DeletePrefix(ctx, who, "ks1"), want)
		wantCode(t, "a removal of a credential by "+who.Principal, x.DeleteCredential(ctx, who, "ks1", "x"), want)
	}

	// Many change it at once, and no change is lost.
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			if _, err := x.UpdatePrefix(ctx, root, "ks1", &XKIPrefixUpdate{AddKeys: map[string]string{fmt.Sprint("more", i): key}}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	p, err = x.UpdatePrefix(ctx, root, "ks1", &XKIPrefixUpdate{RemoveKeys: []string{"orders"}})
	if err != nil || len(p.Keys) != 4 {
		t.Errorf("%+v, %v", p, err)
	}
	if e := f.events.last(); e.Action != "UpdateXKIPrefix" || e.Detail != "ks1 -orders" || e.Outcome != "ok" {
		t.Errorf("%+v", e)
	}
	_, err = x.UpdatePrefix(ctx, root, "ks1", &XKIPrefixUpdate{RemoveKeys: []string{"orders"}})
	wantCode(t, "a key that is not served", err, ResourceNotFound)
	if err := x.DeletePrefix(ctx, root, "theirs"); err != nil {
		t.Error(err)
	}
	wantCode(t, "again", x.DeletePrefix(ctx, root, "theirs"), ResourceNotFound)
	if _, err := f.DescribeKey(ctx, root, &kmswire.DescribeKeyRequest{KeyID: key}); err != nil {
		t.Error(err)
	}
}

func TestXKICredentials(t *testing.T) {
	ctx := t.Context()
	f, _ := newXKIFixture(t)
	x := f.XKI()
	if _, err := x.CreatePrefix(ctx, root, &keystore.XKIPrefix{Name: "ks1", Dialect: "xks-v1", Path: "/ks1"}); err != nil {
		t.Fatal(err)
	}
	_, _, err := x.ExportCredential(ctx, root, "ks1", "")
	wantCode(t, "a secret before there is one", err, ResourceNotFound)
	made := map[string][]byte{}
	newest := ""
	for range maxXKICredentials {
		k, err := x.CreateCredential(ctx, root, "ks1")
		if err != nil {
			t.Fatal(err)
		}
		// What AWS takes: reference xki-proxy.md §2.10.
		if n := len(k.ID); n < 20 || n > 30 || strings.Trim(k.ID, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
			t.Errorf("the ID %q", k.ID)
		}
		if n := len(k.Secret); n < 43 || n > 64 || strings.Trim(string(k.Secret), "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") != "" {
			t.Errorf("a secret of %d", n)
		}
		if e := f.events.last(); e.Detail != "ks1 "+k.ID {
			t.Errorf("%+v", e)
		}
		made[k.ID], newest = k.Secret, k.ID
	}
	if len(made) != maxXKICredentials {
		t.Fatal("two have one ID")
	}
	_, err = x.CreateCredential(ctx, root, "ks1")
	wantCode(t, "one more", err, LimitExceeded)
	for id, secret := range made {
		k, p, err := x.ExportCredential(ctx, root, "ks1", id)
		if err != nil || !bytes.Equal(k.Secret, secret) || p.Name != "ks1" {
			t.Errorf("%s: %v", id, err)
		}
	}
	if k, _, err := x.ExportCredential(ctx, root, "ks1", ""); err != nil || k.ID != newest {
		t.Errorf("the newest is not %+v, %v", k, err)
	}
	prefixes, secrets, err := f.OpenXKIPrefixes(ctx)
	if err != nil || len(prefixes) != 1 || len(secrets) != len(made) || !bytes.Equal(secrets[newest], made[newest]) {
		t.Errorf("%d prefixes, %d secrets, %v", len(prefixes), len(secrets), err)
	}
	// A sealed secret is one of its credential only: moved, it opens nothing, and only that prefix is not served.
	if _, err := x.CreatePrefix(ctx, root, &keystore.XKIPrefix{Name: "ks2", Dialect: "xks-v1", Path: "/ks2"}); err != nil {
		t.Fatal(err)
	}
	to, err := f.db.XKIPrefix(ctx, "ks2")
	if err != nil {
		t.Fatal(err)
	}
	next := *to
	next.Credentials = prefixes[0].Credentials[:1]
	if err := f.db.Change().PutXKIPrefix(to, &next).Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if prefixes, _, err := f.OpenXKIPrefixes(ctx); err == nil || len(prefixes) != 1 || prefixes[0].Name != "ks1" {
		t.Errorf("%+v, %v", prefixes, err)
	}
	if err := x.DeleteCredential(ctx, root, "ks1", newest); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "again", x.DeleteCredential(ctx, root, "ks1", newest), ResourceNotFound)
	_, _, err = x.ExportCredential(ctx, root, "ks1", newest)
	wantCode(t, "a removed one", err, ResourceNotFound)
	for _, e := range f.events.since(0) {
		for _, secret := range made {
			if strings.Contains(fmt.Sprintf("%+v", e), string(secret)) {
				t.Errorf("the audit has a secret: %+v", e)
			}
		}
	}
}

func TestXKIConnections(t *testing.T) {
	ctx := t.Context()
	f, _ := newXKIFixture(t)
	x := f.XKI()
	conn := func(instance string) *keystore.XKIConnection {
		return &keystore.XKIConnection{Instance: instance, Endpoint: "https://proxy", Path: "/ks1", Dialect: "xks-v1", AccessKeyID: "AK"}
	}
	for instance, who := range map[string]*Actor{"kst-a": root, "kst-none": root, "kst-x": sharer, "": root} {
		wantCode(t, instance, x.Connect(ctx, who, conn(instance), []byte("secret"), nil), ResourceNotFound)
	}
	wantCode(t, "a user", x.Connect(ctx, user, conn("kst-x"), []byte("secret"), nil), ResourceNotFound)
	if err := x.Connect(ctx, root, conn("kst-x"), []byte("secret"), []byte("key")); err != nil {
		t.Fatal(err)
	}
	if e := f.events.last(); e.Action != "ConnectXKI" || e.Detail != "kst-x https://proxy/ks1 as AK" || e.Outcome != "ok" {
		t.Errorf("%+v", e)
	}
	if err := x.Connect(ctx, sharer, conn("kst-theirs"), []byte("other"), nil); err != nil {
		t.Fatal(err)
	}
	for who, want := range map[*Actor]int{root: 2, sharer: 1} {
		if list, err := x.Connections(ctx, who); err != nil || len(list) != want {
			t.Errorf("%s sees %d, %v", who.Principal, len(list), err)
		}
	}
	all, err := f.XKIConnections(ctx)
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	byName := map[string]*keystore.XKIConnection{all[0].Instance: all[0], all[1].Instance: all[1]}
	ours, theirs := byName["kst-x"], byName["kst-theirs"]
	if bytes.Contains(ours.Sealed, []byte("secret")) || bytes.Contains(ours.SealedKey, []byte("key")) {
		t.Error("secrets are kept in clear")
	}
	secret, key, err := f.OpenXKIConnection(ours)
	if err != nil || string(secret) != "secret" || string(key) != "key" {
		t.Errorf("%q, %q, %v", secret, key, err)
	}
	if secret, key, err = f.OpenXKIConnection(theirs); err != nil || string(secret) != "other" || key != nil {
		t.Errorf("%q, %q, %v", secret, key, err)
	}
	// Moved to another instance, or in place of the other secret, they open nothing.
	for what, change := range map[string]func(*keystore.XKIConnection){
		"of another instance": func(c *keystore.XKIConnection) { c.Sealed = theirs.Sealed },
		"swapped":             func(c *keystore.XKIConnection) { c.Sealed, c.SealedKey = c.SealedKey, c.Sealed },
	} {
		moved := *ours
		change(&moved)
		if _, _, err := f.OpenXKIConnection(&moved); err == nil {
			t.Errorf("secrets %s open", what)
		}
	}
	// A new one replaces the old, with its key.
	if err := x.Connect(ctx, root, conn("kst-x"), []byte("second"), nil); err != nil {
		t.Fatal(err)
	}
	now, err := f.db.XKIConnection(ctx, "kst-x")
	if err != nil {
		t.Fatal(err)
	}
	if secret, key, err = f.OpenXKIConnection(now); err != nil || string(secret) != "second" || key != nil {
		t.Errorf("%q, %q, %v", secret, key, err)
	}
	wantCode(t, "another's", x.Disconnect(ctx, sharer, "kst-x"), ResourceNotFound)
	wantCode(t, "a user's", x.Disconnect(ctx, user, "kst-x"), Denied)
	if err := x.Disconnect(ctx, root, "kst-x"); err != nil {
		t.Error(err)
	}
	wantCode(t, "again", x.Disconnect(ctx, root, "kst-x"), ResourceNotFound)
	if list, err := x.Connections(ctx, root); err != nil || len(list) != 1 {
		t.Errorf("%d are left, %v", len(list), err)
	}
}
