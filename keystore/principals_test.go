package keystore_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/keyward/keyward/keystore"
)

const alice = "acs:ram::" + account + ":user/alice"

func TestPrincipalsAndAccessKeys(t *testing.T) {
	store := shared{keystore.NewMem()}
	must(t, keystore.Create(t.Context(), store, sealer))
	db := openDB(t, store)
	ctx := t.Context()
	p, err := db.Principal(ctx, alice)
	must(t, err)
	if !p.Absent || p.Account != account {
		t.Errorf("an unknown user came as %+v", p)
	}
	wantErr(t, "keys for nobody", db.Change().CreateAccessKey(&keystore.AccessKey{ID: "AK1", Principal: alice, Account: account}).Commit(ctx), keystore.ErrConflict)
	must(t, db.Change().CreatePrincipal(&keystore.Principal{ARN: alice, Account: account, Created: deletedAt}).Commit(ctx))
	for _, arn := range []string{"acs:ram::" + account + ":role/ops", "acs:ram::" + account + ":root", "acs:ram::2000000000000002:user/alice"} {
		must(t, db.Change().CreatePrincipal(&keystore.Principal{ARN: arn, Account: arn[len("acs:ram::"):][:16], Created: deletedAt}).Commit(ctx))
	}
	wantErr(t, "twice", db.Change().CreatePrincipal(&keystore.Principal{ARN: alice, Account: account}).Commit(ctx), keystore.ErrConflict)
	for _, bad := range []string{"", "acs:ram::" + account + ":*", "acs:ram::" + account + ":user/", "acs:ram::" + account + ":user/a/b", "acs:ram::x y:root", "acs:ram:" + account + ":root", "acs:ram::" + account + ":group/x"} {
		if err := db.Change().CreatePrincipal(&keystore.Principal{ARN: bad, Account: account}).Commit(ctx); err == nil {
			t.Errorf("%q was taken for a principal", bad)
		}
	}
	list, total, err := db.Principals(ctx, account, 0, 10)
	must(t, err)
	var arns []string
	for _, p := range list {
		arns = append(arns, p.ARN)
	}
	if total != 3 || !slices.Equal(arns, []string{"acs:ram::" + account + ":role/ops", "acs:ram::" + account + ":root", alice}) {
		t.Errorf("principals: %d %v", total, arns)
	}
	// What was known as absent is known now.
	p, err = db.Principal(ctx, alice)
	must(t, err)
	if p.Absent {
		t.Fatal("the user is there and still known as absent")
	}
	sealed, err := db.SealSecret(keystore.AccessSecretName("AK1"), []byte("very secret"))
	must(t, err)
	must(t, db.Change().CreateAccessKey(&keystore.AccessKey{ID: "AK1", Principal: alice, Account: account, Sealed: sealed, Active: true}).Commit(ctx))
	wantErr(t, "a stale principal", db.Change().UpdatePrincipal(p, p).Commit(ctx), keystore.ErrConflict)
	p, err = db.Principal(ctx, alice)
	must(t, err)
	next := *p
	next.Policies, next.AccessKeys = []keystore.IdentityPolicy{{Name: "all", Document: "{}"}}, nil
	must(t, db.Change().UpdatePrincipal(p, &next).Commit(ctx))
	p, err = db.Principal(ctx, alice)
	must(t, err)
	if !slices.Equal(p.AccessKeys, []string{"AK1"}) || len(p.Policies) != 1 {
		t.Errorf("after an update: %+v", p)
	}
	k, err := db.AccessKey(ctx, "AK1")
	must(t, err)
	secret, err := db.OpenSecret(keystore.AccessSecretName("AK1"), k.Sealed)
	if err != nil || string(secret) != "very secret" {
		t.Errorf("the secret came back as %q, %v", secret, err)
	}
	if _, err := db.OpenSecret(keystore.AccessSecretName("AK2"), k.Sealed); err == nil {
		t.Error("a secret opened under another name")
	}
	if _, err := db.Unseal(&keystore.Version{ID: keystore.AccessSecretName("AK1"), Sealed: k.Sealed}); err == nil {
		t.Error("a secret opened as material")
	}
	off := *k
	off.Active = false
	must(t, db.Change().UpdateAccessKey(k, &off).Commit(ctx))
	wantErr(t, "a stale access key", db.Change().DeleteAccessKey(k).Commit(ctx), keystore.ErrConflict)
	k, err = db.AccessKey(ctx, "AK1")
	must(t, err)
	if k.Active {
		t.Error("it is still active")
	}
	must(t, db.Change().DeleteAccessKey(k).Commit(ctx))
	_, err = db.AccessKey(ctx, "AK1")
	wantErr(t, "a deleted access key", err, keystore.ErrNotFound)
	must(t, db.Change().CreateAccessKey(&keystore.AccessKey{ID: "AK2", Principal: alice, Account: account}).Commit(ctx))
	p, err = db.Principal(ctx, alice)
	must(t, err)
	must(t, db.Change().DeletePrincipal(p).Commit(ctx))
	_, err = db.AccessKey(ctx, "AK2")
	wantErr(t, "the access key of a deleted user", err, keystore.ErrNotFound)
	if p, err = db.Principal(ctx, alice); err != nil || !p.Absent {
		t.Errorf("a deleted user: %+v, %v", p, err)
	}
	must(t, db.Close())
	db = openDB(t, store)
	if _, total, err := db.Principals(ctx, account, 0, 10); err != nil || total != 2 {
		t.Errorf("after a restart: %d, %v", total, err)
	}
	if h := db.Health(); h.Problem != "" {
		t.Error(h.Problem)
	}
}

func TestFingerprint(t *testing.T) {
	db, _ := newDB(t)
	other, _ := newDB(t)
	print := func(db *keystore.DB, purpose string, parts ...string) []byte {
		var b [][]byte
		for _, p := range parts {
			b = append(b, []byte(p))
		}
		sum, err := db.Fingerprint(purpose, b...)
		must(t, err)
		return sum
	}
	same := print(db, "a", "b", "c")
	if !bytes.Equal(same, print(db, "a", "b", "c")) || len(same) != 32 {
		t.Error("a fingerprint is not the same again")
	}
	for i, differs := range [][]byte{print(db, "a", "bc"), print(db, "ab", "c"), print(db, "a", "b", "d"), print(other, "a", "b", "c")} {
		if bytes.Equal(same, differs) {
			t.Errorf("fingerprint %d is the same as another's", i)
		}
	}
}

func TestLedger(t *testing.T) {
	db, _ := newDB(t)
	ctx := t.Context()
	k := create(t, db, 1)
	at := func(day int) time.Time { return time.Date(2027, 1, day, 0, 0, 0, 0, time.UTC) }
	use := func(caller string, first, last int, calls uint64) *keystore.Usage {
		return &keystore.Usage{KeyID: k.ID, Caller: caller, Principal: alice, Door: "API", First: at(first), Last: at(last), Calls: calls}
	}
	must(t, db.Change().AddUsage(use("a", 5, 6, 3), 2).AddUsage(use("b", 1, 1, 1), 2).AddUsage(use("c", 1, 1, 1), 2).Commit(ctx))
	must(t, db.Change().AddUsage(use("a", 4, 5, 2), 2).AddUsage(use("c", 1, 1, 1), 2).Commit(ctx))
	list, err := db.Usage(ctx, k.ID, 10)
	must(t, err)
	if len(list) != 3 || list[0].Calls != 5 || !list[0].First.Equal(at(4)) || !list[0].Last.Equal(at(6)) || list[1].Calls != 1 {
		t.Errorf("ledger: %+v", list)
	}
	if o := list[2]; o.Caller != keystore.OtherCallers || o.Principal != "" || o.Door != "" || o.Calls != 2 || !o.First.Equal(at(1)) {
		t.Errorf("those without room: %+v", o)
	}
	must(t, db.Change().AddUsage(use("b", 2, 2, 1), 2).Commit(ctx))
	if again, err := db.Usage(ctx, k.ID, 10); err != nil || len(again) != 3 || again[1].Calls != 2 {
		t.Errorf("who has room keeps it: %+v, %v", again, err)
	}
	must(t, db.Change().DropUsage(list[1]).Commit(ctx))
	must(t, db.Change().AddUsage(&keystore.Usage{KeyID: newKey(9).ID, Caller: "a"}, 2).Commit(ctx))
	if list, err = db.Usage(ctx, newKey(9).ID, 10); err != nil || len(list) != 0 {
		t.Errorf("a key that is not there was used: %v, %v", list, err)
	}
	check := &keystore.AssociationCheck{ID: "c1", KeyID: k.ID, Status: "Checking", Started: at(1)}
	must(t, db.Change().PutAssociationCheck(check).Commit(ctx))
	if got, err := db.AssociationCheck(ctx, k.ID); err != nil || got.ID != "c1" {
		t.Errorf("check: %v, %v", got, err)
	}
	k, err = db.Key(ctx, k.ID)
	must(t, err)
	must(t, db.Change().DeleteKey(k, deletedAt).Commit(ctx))
	if list, err = db.Usage(ctx, k.ID, 10); err != nil || len(list) != 0 {
		t.Errorf("the ledger outlived its key: %v, %v", list, err)
	}
	_, err = db.AssociationCheck(ctx, k.ID)
	wantErr(t, "the check of a deleted key", err, keystore.ErrNotFound)
}

func TestClientTokensAndClock(t *testing.T) {
	store := shared{keystore.NewMem()}
	must(t, keystore.Create(t.Context(), store, sealer))
	db := openDB(t, store)
	ctx := t.Context()
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, hash := range []string{"aa", "bb", "cc"} {
		tok := &keystore.ClientToken{Account: account, Hash: hash, KeyID: "key-1", Expires: now.Add(time.Duration(i) * time.Hour)}
		before := now.Add(-time.Hour)
		must(t, db.Change().At(before).CreateClientToken(tok).Commit(ctx))
		wantErr(t, "twice", db.Change().At(before).CreateClientToken(tok).Commit(ctx), keystore.ErrConflict)
	}
	// An expired one makes room for another of its name, and leaves nothing behind that would drop that one early.
	later := &keystore.ClientToken{Account: account, Hash: "aa", KeyID: "key-2", Expires: now.Add(9 * time.Hour)}
	must(t, db.Change().At(now).CreateClientToken(later).Commit(ctx))
	if tok, err := db.ClientToken(ctx, account, "aa"); err != nil || tok.KeyID != "key-2" {
		t.Errorf("token: %v, %v", tok, err)
	}
	if n, err := db.DropClientTokens(ctx, now.Add(time.Hour), 10); n != 1 || err != nil {
		t.Errorf("dropped %d, %v", n, err)
	}
	_, err := db.ClientToken(ctx, account, "bb")
	wantErr(t, "an expired token", err, keystore.ErrNotFound)
	if tok, err := db.ClientToken(ctx, account, "cc"); err != nil || tok.KeyID != "key-1" {
		t.Errorf("token: %v, %v", tok, err)
	}
	if c, err := db.Clock(ctx); err != nil || c.Observed != 0 || !c.Wall.IsZero() {
		t.Errorf("first clock: %v, %v", c, err)
	}
	edit := func(c *keystore.Clock) { c.Wall, c.Observed = now, 7+2*c.Observed }
	must(t, db.Change().EditClock(edit).Commit(ctx))
	must(t, db.Change().EditClock(edit).Commit(ctx))
	must(t, db.Close())
	if c, err := openDB(t, store).Clock(ctx); err != nil || c.Observed != 21 || !c.Wall.Equal(now) {
		t.Errorf("clock: %v, %v", c, err)
	}
}
