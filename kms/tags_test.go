package kms

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/keystore/storetest"
	"github.com/keyward/keyward/kms/kmswire"
)

var testSealer = storetest.Sealer("kcv-1")

// newSoftFixture is a fixture without HSMs: hardware keys can't be made in it.
func newSoftFixture(t testing.TB, store keystore.Store) *fixture {
	t.Helper()
	if err := keystore.Create(context.Background(), store, testSealer); err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, events: &events{}}
	f.reopen(store)
	return f
}

// reopen makes a service over a store that is there, as a new process would.
func (f *fixture) reopen(store keystore.Store) {
	f.t.Helper()
	db, err := keystore.Open(context.Background(), store, testSealer)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { db.Close() })
	f.db = db
	f.Service = f.start()
}

func (f *fixture) setNow(now time.Time) { f.set.Store(&now) }

// put makes the record of a key, without material.
func (f *fixture) put(k keystore.Key) *keystore.Key {
	f.t.Helper()
	if k.ID == "" {
		k.ID = newKeyID()
	}
	if k.Account == "" {
		k.Account = testAccount
	}
	if k.Creator == "" {
		k.Creator = k.Account
	}
	if k.Spec == "" {
		k.Spec, k.Usage = string(kmswire.AES256), string(kmswire.EncryptDecrypt)
	}
	if k.State == "" {
		k.State = string(kmswire.Enabled)
	}
	if k.Protection == "" {
		k.Protection = kmswire.ProtectionSoftware
	}
	k.Created = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := f.db.Change().CreateKey(&k).Commit(context.Background()); err != nil {
		f.t.Fatal(err)
	}
	got, err := f.db.Key(context.Background(), k.ID)
	if err != nil {
		f.t.Fatal(err)
	}
	return got
}

func (f *fixture) tags(id string) []keystore.Tag {
	f.t.Helper()
	k, err := f.db.Key(context.Background(), id)
	if err != nil {
		f.t.Fatal(err)
	}
	return k.Tags
}

func tagsJSON(tags ...keystore.Tag) json.RawMessage {
	wire := []kmswire.Tag{}
	for _, t := range tags {
		wire = append(wire, kmswire.Tag{TagKey: t.Key, TagValue: t.Value})
	}
	text, err := json.Marshal(wire)
	if err != nil {
		panic(err)
	}
	return text
}

func numbered(n int) (tags []keystore.Tag) {
	for i := range n {
		tags = append(tags, keystore.Tag{Key: fmt.Sprintf("k%02d", i), Value: "v"})
	}
	return tags
}

// Every ASCII character, in a key and in a value, in both forms that tags come in.
func TestTagCharacters(t *testing.T) {
	const allowed = `abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/\_-.+=:@ `
	check := func(text string, want bool) {
		t.Helper()
		for _, tag := range []keystore.Tag{{Key: text, Value: "v"}, {Key: "k", Value: text}} {
			got, err := parseTags("Tags", tagsJSON(tag))
			if want != (err == nil) || err == nil && !slices.Equal(got, []keystore.Tag{tag}) {
				t.Errorf("JSON %q=%q: %v %v", tag.Key, tag.Value, got, err)
			}
			if err != nil {
				wantCode(t, text, err, InvalidParameter)
			}
			got, err = numberedTags("Tag", []kmswire.TagParam{{Key: tag.Key, Value: tag.Value}})
			if want != (err == nil) || err == nil && !slices.Equal(got, []keystore.Tag{tag}) {
				t.Errorf("numbered %q=%q: %v %v", tag.Key, tag.Value, got, err)
			}
		}
	}
	for c := rune(0); c < 128; c++ {
		check(string(c), strings.ContainsRune(allowed, c))
	}
	for _, text := range []string{"ä", "日本", "é", "\u200b", "ａ", "٣", "😀"} {
		check(text, false)
	}
	check(strings.Repeat("x", 128), true)
	check(strings.Repeat("x", 129), false)
	check(strings.Repeat("日", 128), false)
	// Characters are counted, not octets: 128 of three octets are refused for what they are, 129 for how many.
	for n, word := range map[int]string{128: "may not stand", 129: "129 characters"} {
		if err := checkTagText("Tags", strings.Repeat("日", n)); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%d: %v", n, err)
		}
	}
}

func TestTagKeys(t *testing.T) {
	for key, want := range map[string]bool{
		"": false, "aliyun": false, "aliyun-x": false, "aliyunx": false, "ALIYUN": false, "AliYun:x": false, "acs:": false, "acs:x": false, "ACS:x": false,
		"acs": true, "acsx": true, "xaliyun": true, "aliyu": true, " acs:": true, " ": true,
	} {
		if _, err := parseTags("Tags", tagsJSON(keystore.Tag{Key: key})); (err == nil) != want {
			t.Errorf("%q: %v", key, err)
		}
		if _, err := parseTags("Tags", tagsJSON(keystore.Tag{Key: "k", Value: key})); err != nil {
			t.Errorf("value %q: %v", key, err)
		}
	}
	if tags, err := parseTags("Tags", tagsJSON(numbered(20)...)); err != nil || len(tags) != 20 {
		t.Errorf("20 tags: %v", err)
	}
	_, err := parseTags("Tags", tagsJSON(numbered(21)...))
	wantCode(t, "21 tags", err, InvalidParameter)
	for _, text := range []string{
		`{}`, `[`, `[{}]`, `[{"TagKey":1}]`, `[{"TagKey":"a","TagValue":null}]`, `[{"tagkey":"a"}]`, `["a"]`, `[{"TagKey":"a"},]`, `null`, `[{"TagKey":"a"}] x`,
		`[{"TagKey":"a"},{"TagKey":"a"}]`, `[{"TagKey":"a","TagKey":"b"}]`, `[{"TagKey":"a","x":"y"}]`, `[` + strings.Repeat(" ", maxTagsJSON) + `]`,
	} {
		_, err := parseTags("Tags", json.RawMessage(text))
		wantCode(t, cut(text, 40), err, InvalidParameter)
	}
	for text, want := range map[string]string{
		`["a","b"]`: "a|b", `a`: "a", `a,b`: "a|b", ` a , b c `: "a|b c", ` ["a , b"]`: "", `[" a"]`: " a", `[]`: "", `["a"`: "", `a,`: "", `,`: "", `[""]`: "", `[1]`: "",
		`["\u0061"]`: "a", `a;b`: "", `["a"]x`: "", `ä`: "",
	} {
		got, err := parseTagKeys("TagKeys", text)
		if strings.Join(got, "|") != want || (want == "") != (err != nil) {
			t.Errorf("%q: %q %v", text, got, err)
		}
	}
	twenty := strings.TrimSuffix(strings.Repeat("a,", 20), ",")
	if keys, err := parseTagKeys("TagKeys", twenty); err != nil || len(keys) != 20 {
		t.Errorf("20 keys: %v", err)
	}
	_, err = parseTagKeys("TagKeys", twenty+",b")
	wantCode(t, "21 keys", err, InvalidParameter)
}

func TestTagResource(t *testing.T) {
	ctx := context.Background()
	f := newSoftFixture(t, keystore.NewMem())
	k := f.put(keystore.Key{})
	tag := func(id string, tags ...keystore.Tag) error {
		_, err := f.TagResource(ctx, user, &kmswire.TagResourceRequest{KeyID: id, Tags: tagsJSON(tags...)})
		return err
	}
	untag := func(id, keys string) error {
		_, err := f.UntagResource(ctx, user, &kmswire.UntagResourceRequest{KeyID: id, TagKeys: keys})
		return err
	}
	if err := tag(k.ID, numbered(19)...); err != nil {
		t.Fatal(err)
	}
	// 19 there, one of them again and one new: 20.
	if err := tag("acs:kms:local:"+testAccount+":key/"+k.ID, keystore.Tag{Key: "k03", Value: "other"}, keystore.Tag{Key: `a \b`}); err != nil {
		t.Fatal(err)
	}
	if got := f.tags(k.ID); len(got) != 20 || got[3].Value != "other" {
		t.Errorf("tags are %v", got)
	}
	if e := f.events.last(); e.KeyID != k.ID || e.Outcome != "ok" || e.Detail != `tagged with k03, a \b` {
		t.Errorf("event %+v", e)
	}
	wantCode(t, "the 21st", tag(k.ID, keystore.Tag{Key: "one", Value: "more"}), LimitExceeded)
	wantCode(t, "one that is there and the 21st", tag(k.ID, keystore.Tag{Key: "k01", Value: "changed"}, keystore.Tag{Key: "one"}), LimitExceeded)
	if got := f.tags(k.ID); len(got) != 20 || got[1].Value != "v" {
		t.Errorf("a refused call left %v", got)
	}
	if err := untag(k.ID, `k00,k01,not there,a \b`); err != nil {
		t.Fatal(err)
	}
	if err := untag(k.ID, `["not there"]`); err != nil {
		t.Fatal(err)
	}
	if got := f.tags(k.ID); len(got) != 17 || got[0].Key != "k02" {
		t.Errorf("tags are %v", got)
	}
	wantCode(t, "no tags", tag(k.ID), InvalidParameter)
	wantCode(t, "no key", tag("", numbered(1)...), MissingParameter)
	wantCode(t, "no such key", tag("key-x", numbered(1)...), KeyNotFound)
	wantCode(t, "an alias", tag("alias/x", numbered(1)...), UnsupportedAlias)
	pending := f.put(keystore.Key{State: "PendingDeletion", Tags: numbered(1)})
	wantCode(t, "tagged in PendingDeletion", tag(pending.ID, numbered(1)...), KeyPendingDeletion)
	wantCode(t, "untagged in PendingDeletion", untag(pending.ID, "k00"), KeyPendingDeletion)
	if r, err := f.ListResourceTags(ctx, user, &kmswire.ListResourceTagsRequest{KeyID: pending.ID}); err != nil || len(r.Tags.Tag) != 1 {
		t.Errorf("listed in PendingDeletion: %v %v", r, err)
	}
	service := f.put(keystore.Key{Role: keystore.RoleService, Creator: "OSS"})
	wantCode(t, "a service key", tag(service.ID, numbered(1)...), Denied)
	wantCode(t, "a service key", untag(service.ID, "a"), Denied)
	_, err := f.UpdateKeyDescription(ctx, root, &kmswire.UpdateKeyDescriptionRequest{KeyID: service.ID, Description: "mine"})
	wantCode(t, "the description of a service key", err, Denied)
	_, err = f.TagResource(ctx, other, &kmswire.TagResourceRequest{KeyID: "acs:kms:local:" + testAccount + ":key/" + k.ID, Tags: tagsJSON(numbered(1)...)})
	wantCode(t, "another account", err, KeyNotFound)

	for name, c := range map[string]struct {
		req  kmswire.TagResourceRequest
		want Code
	}{
		"nothing":     {kmswire.TagResourceRequest{}, MissingParameter},
		"a secret":    {kmswire.TagResourceRequest{SecretName: "s"}, UnsupportedOperation},
		"certificate": {kmswire.TagResourceRequest{CertificateID: "c"}, UnsupportedOperation},
		"two":         {kmswire.TagResourceRequest{KeyID: k.ID, SecretName: "s"}, InvalidParameter},
	} {
		c.req.Tags = tagsJSON(numbered(1)...)
		_, err := f.TagResource(ctx, root, &c.req)
		wantCode(t, name, err, c.want)
		_, err = f.UntagResource(ctx, root, &kmswire.UntagResourceRequest{KeyID: c.req.KeyID, SecretName: c.req.SecretName, CertificateID: c.req.CertificateID, TagKeys: "a"})
		wantCode(t, name, err, c.want)
	}
}

// Callers who tag one key at the same time all get their tag.
func TestTagsAtTheSameTime(t *testing.T) {
	f := newSoftFixture(t, keystore.NewMem())
	k := f.put(keystore.Key{})
	errs := make(chan error)
	for i := range 4 {
		go func() {
			_, err := f.TagResource(context.Background(), root, &kmswire.TagResourceRequest{KeyID: k.ID, Tags: tagsJSON(keystore.Tag{Key: fmt.Sprint("k", i)})})
			errs <- err
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := f.tags(k.ID); len(got) != 4 {
		t.Errorf("tags are %v", got)
	}
}

func TestTagResources(t *testing.T) {
	ctx := context.Background()
	f := newSoftFixture(t, keystore.NewMem())
	var ids []string
	for range 50 {
		ids = append(ids, f.put(keystore.Key{}).ID)
	}
	tag := func(tags []keystore.Tag, ids ...string) error {
		req := &kmswire.TagResourcesRequest{RegionID: "local", ResourceType: "KEY", ResourceIDs: ids}
		for _, t := range tags {
			req.Tags = append(req.Tags, kmswire.TagParam{Key: t.Key, Value: t.Value})
		}
		_, err := f.TagResources(ctx, user, req)
		return err
	}
	// The largest call there is.
	if err := tag(numbered(20), ids...); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if got := f.tags(id); len(got) != 20 {
			t.Fatalf("%s has %v", id, got)
		}
	}
	var begun, ended []string
	for _, e := range f.events.all {
		switch e.Outcome {
		case "begun":
			begun = append(begun, e.KeyID)
		case "ok":
			ended = append(ended, e.KeyID)
		}
	}
	if !slices.Equal(begun, ids) || !slices.Equal(ended, append(slices.Clone(ids), "")) {
		t.Errorf("events of %d keys begin and of %d end", len(begun), len(ended))
	}

	// All or nothing: a key that refuses anywhere in the list keeps the others as they are.
	full := f.put(keystore.Key{Tags: numbered(20)})
	for name, c := range map[string]struct {
		bad  string
		want Code
	}{
		"forbidden":  {f.put(keystore.Key{Policy: keyPolicyText(statement("Allow", root.Principal, "kms:*", ""))}).ID, Denied},
		"foreign":    {f.put(keystore.Key{Account: "2000000000000002"}).ID, KeyNotFound},
		"by ARN":     {"acs:kms:local:2000000000000002:key/" + f.put(keystore.Key{Account: "2000000000000002"}).ID, KeyNotFound},
		"pending":    {f.put(keystore.Key{State: "PendingDeletion"}).ID, KeyPendingDeletion},
		"full":       {full.ID, LimitExceeded},
		"service":    {f.put(keystore.Key{Role: keystore.RoleService, Creator: "OSS"}).ID, Denied},
		"alias":      {"alias/a", UnsupportedAlias},
		"other ARN":  {"acs:kms:elsewhere:" + testAccount + ":key/" + ids[0], InvalidParameter},
		"empty":      {"", MissingParameter},
		"a long one": {strings.Repeat("x", 600), InvalidParameter},
	} {
		a, b := f.put(keystore.Key{}), f.put(keystore.Key{Tags: numbered(2)})
		for at := range 3 {
			list := slices.Insert([]string{a.ID, b.ID}, at, c.bad)
			wantCode(t, name, tag([]keystore.Tag{{Key: "new", Value: "tag"}}, list...), c.want)
			if e := f.events.last(); e.Outcome == "ok" || c.bad != "" && !strings.HasSuffix(cut(c.bad, maxReference), e.KeyID) {
				t.Errorf("%s: event %+v", name, e)
			}
			if len(f.tags(a.ID)) != 0 || len(f.tags(b.ID)) != 2 {
				t.Fatalf("%s at %d: %v %v", name, at, f.tags(a.ID), f.tags(b.ID))
			}
			if name == "full" {
				continue // nothing can be too much to remove
			}
			_, err := f.UntagResources(ctx, user, &kmswire.UntagResourcesRequest{RegionID: "local", ResourceType: "key", ResourceIDs: list, All: true})
			wantCode(t, name, err, c.want)
			if len(f.tags(b.ID)) != 2 {
				t.Fatalf("%s at %d: the tags of another key are gone", name, at)
			}
		}
	}

	// The same key twice is one key.
	if err := tag([]keystore.Tag{{Key: "k00", Value: "w"}}, ids[0], "acs:kms:local:"+testAccount+":key/"+ids[0]); err != nil || f.tags(ids[0])[0].Value != "w" {
		t.Errorf("%v %v", f.tags(ids[0]), err)
	}
	wantCode(t, "51 keys", tag(numbered(1), append(slices.Clone(ids), "key-x")...), InvalidParameter)
	wantCode(t, "no keys", tag(numbered(1)), MissingParameter)
	wantCode(t, "no tags", tag(nil, ids[0]), MissingParameter)
	wantCode(t, "21 tags", tag(numbered(21), ids[0]), InvalidParameter)
	for name, c := range map[string]struct {
		region, kind string
		want         Code
	}{"region": {"elsewhere", "key", InvalidParameter}, "secret": {"local", "Secret", UnsupportedOperation}, "type": {"local", "disk", InvalidParameter}} {
		_, err := f.TagResources(ctx, root, &kmswire.TagResourcesRequest{RegionID: c.region, ResourceType: c.kind, ResourceIDs: ids[:1], Tags: []kmswire.TagParam{{Key: "a"}}})
		wantCode(t, name, err, c.want)
		_, err = f.UntagResources(ctx, root, &kmswire.UntagResourcesRequest{RegionID: c.region, ResourceType: c.kind, ResourceIDs: ids[:1], All: true})
		wantCode(t, name, err, c.want)
		_, err = f.ListTagResources(ctx, root, &kmswire.ListTagResourcesRequest{RegionID: c.region, ResourceType: c.kind})
		wantCode(t, name, err, c.want)
	}

	untag := func(all bool, keys ...string) error {
		_, err := f.UntagResources(ctx, user, &kmswire.UntagResourcesRequest{RegionID: "local", ResourceType: "key", ResourceIDs: ids[:2], TagKeys: keys, All: all})
		return err
	}
	wantCode(t, "neither tag keys nor All", untag(false), MissingParameter)
	if err := untag(true, "k00", "absent"); err != nil || len(f.tags(ids[0])) != 19 || len(f.tags(ids[1])) != 19 {
		t.Errorf("All beside tag keys: %v, %d and %d are left", err, len(f.tags(ids[0])), len(f.tags(ids[1])))
	}
	if err := untag(true); err != nil || len(f.tags(ids[0])) != 0 || len(f.tags(ids[1])) != 0 || len(f.tags(ids[2])) != 20 {
		t.Errorf("All: %v", err)
	}
}

// collect reads all pages, and does something between them.
func (f *fixture) collect(a *Actor, req kmswire.ListTagResourcesRequest, between func(page int)) (rows []string, pages int) {
	f.t.Helper()
	req.RegionID, req.ResourceType = "local", "key"
	for {
		r, err := f.ListTagResources(context.Background(), a, &req)
		if err != nil {
			f.t.Fatal(err)
		}
		pages++
		if n := len(r.TagResources.TagResource); n > tagRows || n < tagRows && r.NextToken != "" {
			f.t.Fatalf("a page of %d rows", n)
		}
		for _, row := range r.TagResources.TagResource {
			rows = append(rows, row.ResourceID+" "+row.TagKey+"="+row.TagValue)
		}
		if r.NextToken == "" {
			return rows, pages
		}
		if between != nil {
			between(pages)
		}
		req.NextToken = r.NextToken
	}
}

func TestListTagResources(t *testing.T) {
	ctx := context.Background()
	f := newSoftFixture(t, keystore.NewMem())
	if rows, _ := f.collect(root, kmswire.ListTagResourcesRequest{}, nil); len(rows) != 0 {
		t.Errorf("no keys give %v", rows)
	}
	r := rand.New(rand.NewPCG(3, 4))
	var keys []*keystore.Key
	for range 120 {
		var tags []keystore.Tag
		for _, i := range r.Perm(12)[:r.IntN(9)] {
			tags = append(tags, keystore.Tag{Key: fmt.Sprintf("k%02d", i), Value: fmt.Sprint(r.IntN(3))})
		}
		k := keystore.Key{Tags: tags}
		if r.IntN(5) == 0 {
			k.Policy = keyPolicyText(statement("Allow", root.Principal, "kms:*", "")) // closed to all but root
		}
		keys = append(keys, f.put(k))
		f.put(keystore.Key{Account: "2000000000000002", Tags: tags})
	}
	oracle := func(a *Actor, ids []string, wanted ...keystore.Tag) (rows []string) {
		for _, k := range keys {
			if k.Policy != "" && !isRoot(a) || ids != nil && !slices.Contains(ids, k.ID) || !hasTags(k.Tags, wanted) {
				continue
			}
			tags := slices.Clone(k.Tags)
			slices.SortFunc(tags, func(x, y keystore.Tag) int { return strings.Compare(x.Key, y.Key) })
			for _, t := range tags {
				rows = append(rows, k.ID+" "+t.Key+"="+t.Value)
			}
		}
		return rows
	}
	for _, a := range []*Actor{root, user} {
		for _, wanted := range [][]keystore.Tag{nil, {{Key: "k01"}}, {{Key: "k01", Value: "2"}}, {{Key: "k01"}, {Key: "k02", Value: "1"}}, {{Key: "none"}}} {
			req := kmswire.ListTagResourcesRequest{}
			for _, w := range wanted {
				req.Tags = append(req.Tags, kmswire.TagParam{Key: w.Key, Value: w.Value})
			}
			got, pages := f.collect(a, req, nil)
			if want := oracle(a, nil, wanted...); !slices.Equal(got, want) || pages != max(1, (len(want)+tagRows-1)/tagRows) {
				t.Errorf("%s %v: %d rows on %d pages, want %d", a.Principal, wanted, len(got), pages, len(want))
			}
		}
	}
	var ids []string
	for _, i := range r.Perm(len(keys))[:50] {
		ids = append(ids, keys[i].ID)
	}
	if got, _ := f.collect(root, kmswire.ListTagResourcesRequest{ResourceIDs: ids}, nil); !slices.Equal(got, oracle(root, ids)) {
		t.Errorf("50 keys by name: %d rows, want %d", len(got), len(oracle(root, ids)))
	}
	closed := slices.IndexFunc(keys, func(k *keystore.Key) bool { return k.Policy != "" })
	for name, id := range map[string]string{"closed": keys[closed].ID, "unknown": "key-x"} {
		_, err := f.ListTagResources(ctx, user, &kmswire.ListTagResourcesRequest{RegionID: "local", ResourceType: "key", ResourceIDs: []string{keys[0].ID, id}})
		if err == nil {
			t.Errorf("%s: it is listed", name)
		}
	}

	// What comes and goes between the pages moves nothing else.
	want := oracle(root, nil)
	got, _ := f.collect(root, kmswire.ListTagResourcesRequest{}, func(page int) {
		f.put(keystore.Key{ID: fmt.Sprint("key-new-", page), Tags: numbered(3)})
		for i, k := range keys { // and the key that the page ended in gets and loses tags
			if i%7 == 0 {
				now, err := f.db.Key(ctx, k.ID)
				if err != nil {
					t.Fatal(err)
				}
				next := *now
				next.Tags = append([]keystore.Tag{{Key: fmt.Sprint("a", page)}, {Key: fmt.Sprint("z", page)}}, k.Tags...)
				if err := f.db.Change().UpdateKey(now, &next).Commit(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
	got = slices.DeleteFunc(got, func(row string) bool {
		return strings.Contains(row, " a") || strings.Contains(row, " z") || strings.Contains(row, "key-new-")
	})
	if !slices.Equal(got, want) {
		t.Errorf("%d rows that were there all the time are listed as %d", len(want), len(got))
	}
}

// A NextToken is good for the request, account and store that it was made for, as a whole.
func TestNextToken(t *testing.T) {
	ctx := context.Background()
	f := newSoftFixture(t, keystore.NewMem())
	for range 20 {
		f.put(keystore.Key{Tags: numbered(20)})
		f.put(keystore.Key{Tags: numbered(20), Account: other.Account})
	}
	list := func(f *fixture, a *Actor, token string, tags ...kmswire.TagParam) (*kmswire.ListTagResourcesResponse, error) {
		return f.ListTagResources(ctx, a, &kmswire.ListTagResourcesRequest{RegionID: "local", ResourceType: "key", NextToken: token, Tags: tags})
	}
	first, err := list(f, root, "")
	if err != nil || first.NextToken == "" || len(first.NextToken) > maxNextToken {
		t.Fatalf("%v %v", first, err)
	}
	token := first.NextToken
	if r, err := list(f, root, token); err != nil || len(r.TagResources.TagResource) != 200 || r.NextToken != "" {
		t.Fatalf("second page: %v", err)
	}
	bad := func(what string, err error) {
		t.Helper()
		wantCode(t, what, err, InvalidParameter)
		if e := AsError(err); e.Param != "NextToken" {
			t.Errorf("%s: %v", what, e)
		}
	}
	for i := range token {
		for _, c := range []byte("Aa0_ =") {
			changed := token[:i] + string(c) + token[i+1:]
			if changed == token {
				continue
			}
			_, err := list(f, root, changed)
			bad(changed, err)
		}
		if i > 0 {
			_, err := list(f, root, token[:i])
			bad(token[:i], err)
		}
	}
	_, err = list(f, root, token+"A")
	bad("longer", err)
	_, err = list(f, root, strings.Repeat("A", 1<<16))
	bad("very long", err)
	_, err = list(f, other, token)
	bad("another account's", err)
	_, err = list(f, root, token, kmswire.TagParam{Key: "k01"})
	bad("of another request", err)
	strange := newSoftFixture(t, keystore.NewMem())
	_, err = list(strange, root, token)
	bad("of another store", err)
}

func FuzzParseTags(f *testing.F) {
	for _, text := range []string{`[{"TagKey":"a","TagValue":"b"}]`, `[]`, `["a","b"]`, `a,b`, `[{"TagKey":"\u0061"}]`, `[{"TagKey":"a"},{"TagKey":"b"}]`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if tags, err := parseTags("Tags", json.RawMessage(text)); err == nil {
			again, err := parseTags("Tags", tagsJSON(tags...))
			if err != nil || !slices.Equal(again, tags) || len(tags) > maxTags {
				t.Errorf("%q: %v, then %v %v", text, tags, again, err)
			}
		} else if AsError(err).Code != InvalidParameter {
			t.Errorf("%q: %v", text, err)
		}
		if keys, err := parseTagKeys("TagKeys", text); err == nil {
			if len(keys) == 0 || len(keys) > maxTags {
				t.Errorf("%q: %d keys", text, len(keys))
			}
			for _, k := range keys {
				if err := checkTagText("TagKeys", k); err != nil || k == "" {
					t.Errorf("%q: %q %v", text, k, err)
				}
			}
		} else if AsError(err).Code != InvalidParameter {
			t.Errorf("%q: %v", text, err)
		}
	})
}

func FuzzNextToken(f *testing.F) {
	fix := newSoftFixture(f, keystore.NewMem())
	c := &call{Service: fix.Service, ctx: context.Background(), actor: root, action: actListTagResources}
	token, err := c.nextToken("r", tagPlace{7, "key-a", "k"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Add("AQ")
	f.Fuzz(func(t *testing.T, text string) {
		place, err := c.parseNextToken("r", text)
		switch {
		case text == token && (err != nil || place != tagPlace{7, "key-a", "k"}):
			t.Errorf("%v %v", place, err)
		case text == "" && (err != nil || place != tagPlace{}):
			t.Errorf("%v %v", place, err)
		case text != token && text != "" && (err == nil || AsError(err).Code != InvalidParameter):
			t.Errorf("%q passes as %v (%v)", text, place, err)
		}
	})
}
