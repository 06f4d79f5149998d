package kms

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

type filterEntry struct {
	Key    string
	Values []string
}

func filtersJSON(entries ...filterEntry) json.RawMessage {
	text, err := json.Marshal(append([]filterEntry{}, entries...))
	if err != nil {
		panic(err)
	}
	return text
}

func (f *fixture) list(a *Actor, page kmswire.Page, entries ...filterEntry) ([]string, int, error) {
	r, err := f.ListKeys(context.Background(), a, &kmswire.ListKeysRequest{Page: page, Filters: filtersJSON(entries...)})
	if err != nil {
		return nil, 0, err
	}
	ids := []string{}
	for _, k := range r.Keys.Key {
		ids = append(ids, k.KeyID)
		if k.KeyArn != "acs:kms:local:"+a.Account+":key/"+k.KeyID {
			f.t.Errorf("ARN %s", k.KeyArn)
		}
	}
	return ids, r.TotalCount, nil
}

// Random filters over random keys give what looking at every key gives, page by page.
func TestFilters(t *testing.T) {
	ctx := context.Background()
	f := newSoftFixture(t, keystore.NewMem())
	r := rand.New(rand.NewPCG(5, 6))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	states := []string{"Enabled", "Disabled", "PendingDeletion", "PendingImport"}
	var keys []*keystore.Key
	aliases := map[string]string{}
	for i := range 300 {
		k := keystore.Key{
			State: pick(states...), Spec: pick("Aliyun_AES_256", "RSA_2048", "EC_P256"), Usage: pick("ENCRYPT/DECRYPT", "SIGN/VERIFY"),
			Protection: pick("SOFTWARE", "HSM"), Instance: pick("", "kst-software", "kst-hardware"), Description: pick("", `a "quoted" \ text`),
		}
		if i < 3 {
			k.Role, k.Creator = keystore.RoleService, fmt.Sprint("svc", i)
		}
		for _, n := range r.Perm(4)[:r.IntN(4)] {
			k.Tags = append(k.Tags, keystore.Tag{Key: fmt.Sprint("t", n), Value: pick("", "x", "y", "a b")})
		}
		made := f.put(k)
		keys = append(keys, made)
		if i%3 == 0 {
			name := fmt.Sprint("alias/n", i)
			aliases[name] = made.ID
			if err := f.db.Change().CreateAlias(&keystore.Alias{Account: testAccount, Name: name, KeyID: made.ID}).Commit(ctx); err != nil {
				t.Fatal(err)
			}
		}
		k.Account, k.Creator, k.Role = other.Account, "", ""
		f.put(k)
	}
	attribute := map[string]func(*keystore.Key) []string{
		"KeyState":        func(k *keystore.Key) []string { return []string{k.State} },
		"KeySpec":         func(k *keystore.Key) []string { return []string{k.Spec} },
		"KeyUsage":        func(k *keystore.Key) []string { return []string{k.Usage} },
		"ProtectionLevel": func(k *keystore.Key) []string { return []string{k.Protection} },
		"DKMSInstanceId":  func(k *keystore.Key) []string { return []string{k.Instance} },
		"KeyId":           func(k *keystore.Key) []string { return []string{k.ID} },
		"Creator":         func(k *keystore.Key) []string { return []string{k.Creator} },
		"CreatorType": func(k *keystore.Key) []string {
			if k.Role == keystore.RoleService {
				return []string{"Service"}
			}
			return []string{"User"}
		},
		"AliasName": func(k *keystore.Key) (names []string) {
			for name, id := range aliases {
				if id == k.ID {
					names = append(names, name)
				}
			}
			return names
		},
	}
	meets := func(have, want []string) bool {
		return slices.ContainsFunc(have, func(v string) bool { return slices.Contains(want, v) })
	}
	oracle := func(entries []filterEntry) []string {
		want := map[string][]string{}
		for _, e := range entries {
			name := e.Key
			if name == "keyId" {
				name = "KeyId"
			}
			want[name] = append(want[name], e.Values...)
		}
		ids := []string{}
	next:
		for _, k := range keys {
			for name, values := range want {
				if of := attribute[name]; of != nil && !meets(of(k), values) {
					continue next
				}
			}
			tagKeys, tagValues := want["TagKey"], want["TagValue"]
			if tagKeys != nil || tagValues != nil {
				found := false
				for _, tag := range k.Tags {
					found = found || (tagKeys == nil || slices.Contains(tagKeys, tag.Key)) && (tagValues == nil || slices.Contains(tagValues, tag.Value))
				}
				if !found {
					continue
				}
			}
			ids = append(ids, k.ID)
		}
		return ids
	}
	values := map[string]func() string{
		"KeyState":        func() string { return pick(states...) },
		"KeySpec":         func() string { return pick("Aliyun_AES_256", "RSA_2048", "EC_P256", "DES3", "") },
		"KeyUsage":        func() string { return pick("ENCRYPT/DECRYPT", "SIGN/VERIFY", "MAC") },
		"ProtectionLevel": func() string { return pick("SOFTWARE", "HSM", "hsm") },
		"DKMSInstanceId":  func() string { return pick("kst-software", "kst-hardware", "kst-x", "") },
		"KeyId":           func() string { return pick(keys[r.IntN(300)].ID, keys[r.IntN(300)].ID, "key-x", "a/b") },
		"keyId":           func() string { return keys[r.IntN(300)].ID },
		"Creator":         func() string { return pick(testAccount, "svc1", other.Account) },
		"CreatorType":     func() string { return pick("User", "Service") },
		"AliasName":       func() string { return pick(fmt.Sprint("alias/n", 3*r.IntN(100)), "alias/none", "") },
		"TagKey":          func() string { return pick("t0", "t1", "t2", "t3", "none") },
		"TagValue":        func() string { return pick("", "x", "y", "a b", "none") },
	}
	for name := range attribute {
		if values[name] == nil || !slices.Contains(filterNames(), name) {
			t.Errorf("%s is not tried", name)
		}
	}
	names := slices.Sorted(maps.Keys(values))
	some := 0
	for range 400 {
		var entries []filterEntry
		for range r.IntN(4) {
			name := pick(names...)
			e := filterEntry{Key: name}
			for range 1 + r.IntN(3) {
				e.Values = append(e.Values, values[name]())
			}
			entries = append(entries, e)
		}
		want := oracle(entries)
		if len(want) > 0 && len(entries) > 0 {
			some++
		}
		size := 1 + r.IntN(100)
		last := (len(want) + size - 1) / size
		for _, number := range []int{1, 1 + r.IntN(last+1), last + 1, last + 2} {
			got, total, err := f.list(user, kmswire.Page{PageNumber: number, PageSize: size}, entries...)
			from := min((number-1)*size, len(want))
			if err != nil || total != len(want) || !slices.Equal(got, want[from:min(from+size, len(want))]) {
				t.Fatalf("%v, page %d of %d: %d keys of %d (%v), want %d", entries, number, size, len(got), total, err, len(want))
			}
		}
	}
	if some < 50 {
		t.Errorf("only %d of the filters found anything", some)
	}
	// A deleted key is in no list, though an alias or an index was read before.
	if err := f.db.Change().DeleteKey(keys[0], keys[0].Created).Commit(ctx); err != nil {
		t.Fatal(err)
	}
	keys = keys[1:]
	if got, total, err := f.list(root, kmswire.Page{}, filterEntry{"AliasName", []string{"alias/n0"}}); err != nil || total != 0 || len(got) != 0 {
		t.Errorf("a deleted key: %v %d %v", got, total, err)
	}
}

func TestFilterLimits(t *testing.T) {
	many := func(n int) (values []string) {
		for i := range n {
			values = append(values, fmt.Sprint(i))
		}
		return values
	}
	entries := func(n int) (all []filterEntry) {
		for range n {
			all = append(all, filterEntry{"KeySpec", many(10)})
		}
		return all
	}
	if f, err := parseFilters(filtersJSON(entries(10)...)); err != nil || len(f["KeySpec"]) != 10 {
		t.Errorf("10 entries of 10 values: %v %v", f, err)
	}
	_, err := parseFilters(filtersJSON(entries(11)...))
	wantCode(t, "11 entries", err, InvalidParameter)
	_, err = parseFilters(filtersJSON(filterEntry{"KeySpec", many(11)}))
	wantCode(t, "11 values", err, InvalidParameter)
	_, err = parseFilters(filtersJSON(filterEntry{"KeySpecs", many(1)}))
	wantCode(t, "an unknown key", err, InvalidParameter)
	for _, name := range []string{"KeyState", "KeySpec", "KeyUsage", "ProtectionLevel", "CreatorType", "DKMSInstanceId", "KeyId", "AliasName", "Creator", "TagKey", "TagValue"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not offer %s", err, name)
		}
	}
	for _, text := range []string{
		`{}`, `[`, `[{}]`, `[{"Key":"KeySpec"}]`, `[{"Values":["a"]}]`, `[{"Key":"KeySpec","Values":[]}]`, `[{"Key":"KeySpec","Values":"a"}]`, `[{"Key":"KeySpec","Values":[1]}]`,
		`[{"key":"KeySpec","Values":["a"]}]`, `[{"Key":"KeySpec","Values":["a"],"More":1}]`, `[{"Key":"KeySpec","Key":"KeySpec","Values":["a"]}]`, `[{"Key":"KeySpec","Values":["a"],"Values":["b"]}]`,
		`null`, `["KeySpec"]`, `[{"Key":"KeyState","Values":["enabled"]}]`, `[{"Key":"CreatorType","Values":["Root"]}]`, `[{"Key":"KEYID","Values":["a"]}]`,
		`[{"Key":"KeySpec","Values":["` + strings.Repeat("a", maxReference+1) + `"]}]`, `[` + strings.Repeat(" ", maxFiltersJSON) + `]`,
	} {
		_, err := parseFilters(json.RawMessage(text))
		wantCode(t, cut(text, 60), err, InvalidParameter)
	}
	if f, err := parseFilters(json.RawMessage(`[]`)); err != nil || len(f) != 0 {
		t.Errorf("no filters: %v %v", f, err)
	}
}

// The rules of pages, in every list that has them.
func TestPages(t *testing.T) {
	ctx := context.Background()
	f := newSoftFixture(t, keystore.NewMem())
	k := f.put(keystore.Key{Tags: numbered(1)})
	for i := range 104 {
		f.put(keystore.Key{Tags: numbered(1)})
		if _, err := f.CreateAlias(ctx, root, &kmswire.CreateAliasRequest{KeyID: k.ID, AliasName: fmt.Sprintf("alias/%03d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	lists := map[string]func(kmswire.Page) (int, kmswire.Paged, error){
		"ListKeys": func(p kmswire.Page) (int, kmswire.Paged, error) {
			r, err := f.ListKeys(ctx, root, &kmswire.ListKeysRequest{Page: p, Filters: json.RawMessage(`[{"Key":"CreatorType","Values":["User"]}]`)})
			if err != nil {
				return 0, kmswire.Paged{}, err
			}
			return len(r.Keys.Key) + 1, r.Paged, nil
		},
		"ListAliases": func(p kmswire.Page) (int, kmswire.Paged, error) {
			r, err := f.ListAliases(ctx, root, &kmswire.ListAliasesRequest{Page: p})
			if err != nil {
				return 0, kmswire.Paged{}, err
			}
			return len(r.Aliases.Alias) + 1, r.Paged, nil
		},
		"ListAliasesByKeyId": func(p kmswire.Page) (int, kmswire.Paged, error) {
			r, err := f.ListAliasesByKeyID(ctx, root, &kmswire.ListAliasesByKeyIDRequest{KeyID: k.ID, Page: p})
			if err != nil {
				return 0, kmswire.Paged{}, err
			}
			return len(r.Aliases.Alias) + 1, r.Paged, nil
		},
	}
	for name, list := range lists {
		all := 104
		if name == "ListKeys" {
			all = 105
		}
		for p, want := range map[kmswire.Page]int{
			{}: 10, {PageNumber: 2}: 10, {PageNumber: 11}: all - 100, {PageNumber: 12}: 0, {PageSize: 1}: 1, {PageSize: 100}: 100, {PageNumber: 2, PageSize: 100}: all - 100,
			{PageNumber: 3, PageSize: 100}: 0, {PageNumber: 21474836, PageSize: 100}: 0, {PageNumber: all, PageSize: 1}: 1,
		} {
			n, paged, err := list(p)
			number, size := max(p.PageNumber, 1), p.PageSize
			if size == 0 {
				size = 10
			}
			if err != nil || n-1 != want || paged != (kmswire.Paged{PageNumber: number, PageSize: size, TotalCount: all}) {
				t.Errorf("%s %+v: %d of %+v, %v; want %d of %d", name, p, n-1, paged, err, want, all)
			}
		}
		for _, p := range []kmswire.Page{{PageNumber: -1}, {PageSize: -1}, {PageSize: 101}, {PageNumber: 21474837}} {
			_, _, err := list(p)
			wantCode(t, fmt.Sprint(name, p), err, InvalidParameter)
		}
	}
}

func FuzzParseFilters(f *testing.F) {
	f.Add([]byte(`[{"Key":"KeyState","Values":["Enabled","Disabled"]},{"Values":["a"],"Key":"TagKey"}]`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`[{"Key":"keyId","Values":["\u0061"]}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		filters, err := parseFilters(text)
		if err != nil {
			if AsError(err).Code != InvalidParameter {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		n := 0
		for name, values := range filters {
			n += len(values)
			if len(values) == 0 || !slices.Contains(filterNames(), name) {
				t.Errorf("%q gave %v", text, filters)
			}
		}
		if n > maxFilters*maxFilterValues {
			t.Errorf("%q gave %d values", text, n)
		}
		filters.fit(&keystore.KeyFacts{})
	})
}
