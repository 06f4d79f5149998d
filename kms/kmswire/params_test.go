package kmswire

import (
	"encoding/json"
	"errors"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

// everything has a field of every kind, embedded fields, and fields that are not parameters.
type everything struct {
	Page
	Text      string            `param:"Text"`
	Spec      KeySpec           `param:"Spec"`
	Data      []byte            `param:"Data"`
	Count     *int              `param:"Count"`
	Flag      bool              `param:"Flag"`
	Context   map[string]string `param:"Context"`
	Policy    json.RawMessage   `param:"Policy"`
	Names     []string          `param:"Name"`
	Tags      []labelled        `param:"Tag"`
	Items     []BatchSignItem
	NotOnWire string
}

type labelled struct {
	Key   string `param:"Key,required"`
	Value string `param:"Value"`
	Data  []byte `param:"Data"`
	N     *int   `param:"N"`
}

func ptr[T any](v T) *T { return &v }

func TestRoundTrip(t *testing.T) {
	for _, want := range []everything{
		{},
		{Text: "a b+c/=&%~é\n", Spec: AES256, Page: Page{PageNumber: -3, PageSize: 7}},
		{Data: []byte{0, 0xFB, 0xEF, 0xBE}, Count: ptr(0), Flag: true},
		{Context: map[string]string{"a": "1", "<&>": "\u2028\"\\\x00", "": ""}, Policy: json.RawMessage(`{"a": [1, null]}`)},
		{Names: []string{"x", "", "z"}, Tags: []labelled{{Key: "k"}, {Key: "l", Value: "v", Data: []byte{1}, N: ptr(0)}}},
	} {
		values, err := Encode(&want)
		if err != nil {
			t.Fatal(err)
		}
		var got everything
		if err := Decode(values, &got); err != nil {
			t.Fatalf("%v: %v", values, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v:\n got %+v\nwant %+v", values, got, want)
		}
	}
}

func TestEncodeLeavesZeroValuesOut(t *testing.T) {
	values, err := Encode(everything{NotOnWire: "x", Items: []BatchSignItem{{}}, Context: map[string]string{}, Data: []byte{}})
	if err != nil || len(values) != 0 {
		t.Fatalf("got %v, %v", values, err)
	}
	values, err = Encode(EncryptRequest{KeyID: "key-1", Plaintext: []byte("hello>?"), EncryptionContext: map[string]string{"b": "2", "a": "<1>"}})
	want := "EncryptionContext=%7B%22a%22%3A%22%3C1%3E%22%2C%22b%22%3A%222%22%7D&KeyId=key-1&Plaintext=aGVsbG8%2BPw%3D%3D"
	if err != nil || values.Encode() != want {
		t.Fatalf("got %v, %v", values.Encode(), err)
	}
}

func TestDecodeErrors(t *testing.T) {
	long := `{"a":"` + strings.Repeat("é", MaxContextText-8) + `"}`
	for _, c := range []struct {
		query   string
		param   string // "" means no error
		missing bool
	}{
		{"KeyId=k&Plaintext=aGk%3D", "", false},
		{"KeyId=k&Plaintext=aGk%3D&KeyId=k", "", false},
		{"KeyId=k&Plaintext=aGk%3D&Other=1&Other=2", "", false},
		{"KeyId=k&Plaintext=aGk%3D&DryRun=&EncryptionContext=", "", false},
		{"KeyId=k&Plaintext=aG%0D%0Ak%3D+%0A", "", false},
		{"KeyId=k&Plaintext=aGk%3D&EncryptionContext=" + url.QueryEscape(long), "", false},
		{"KeyId=k&Plaintext=aGk%3D&EncryptionContext=" + url.QueryEscape(long+" "), "EncryptionContext", false},
		{"Plaintext=aGk%3D", "KeyId", true},
		{"KeyId=&Plaintext=aGk%3D", "KeyId", true},
		{"keyid=k&Plaintext=aGk%3D", "KeyId", true},
		{"KeyId=k", "Plaintext", true},
		{"KeyId=k&Plaintext=+%0A", "Plaintext", true},
		{"KeyId=k&KeyId=l&Plaintext=aGk%3D", "KeyId", false},
		{"KeyId=k%00&Plaintext=aGk%3D", "KeyId", false},
		{"KeyId=k%ff&Plaintext=aGk%3D", "KeyId", false},
		{"KeyId=k&Plaintext=aGk", "Plaintext", false},          // no padding
		{"KeyId=k&Plaintext=aGl%3D", "Plaintext", false},       // trailing bits
		{"KeyId=k&Plaintext=_-__", "Plaintext", false},         // the URL alphabet
		{"KeyId=k&Plaintext=a++++GVs", "Plaintext", false},     // plus signs that were not escaped
		{"KeyId=k&Plaintext=aGk%3D%00", "Plaintext", false},    // NUL
		{"KeyId=k&Plaintext=aGk%3DaGk%3D", "Plaintext", false}, // text after the padding
		{"KeyId=k&Plaintext=aGk%3D&DryRun=True", "DryRun", false},
		{"KeyId=k&Plaintext=aGk%3D&DryRun=1", "DryRun", false},
		{"KeyId=k&Plaintext=aGk%3D&EncryptionContext=[]", "EncryptionContext", false},
		{"KeyId=k&Plaintext=aGk%3D&EncryptionContext=null", "EncryptionContext", false},
		{"KeyId=k&Plaintext=aGk%3D&EncryptionContext={\"a\":1}", "EncryptionContext", false},
		{"KeyId=k&Plaintext=aGk%3D&EncryptionContext={\"a\":\"1\",\"a\":\"1\"}", "EncryptionContext", false},
		{"KeyId=k&Plaintext=aGk%3D&EncryptionContext={\"a\":\"1\"}{}", "EncryptionContext", false},
		{"KeyId=k&Plaintext=aGk%3D&EncryptionContext={\"a\":\"%ff\"}", "EncryptionContext", false},
		{"KeyId=k&Plaintext=aGk%3D&EncryptionContext={\"a\":\"\\ud800\"}", "EncryptionContext", false},
	} {
		values, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		err = Decode(values, &EncryptRequest{})
		var pe *ParamError
		switch {
		case c.param == "" && err == nil:
		case !errors.As(err, &pe) || pe.Param != c.param || pe.Missing != c.missing:
			t.Errorf("%.80s: got %v, want an error about %q", c.query, err, c.param)
		}
	}
	for query, param := range map[string]string{
		"Count=+1": "Count", "Count=%2B1": "Count", "Count=0x1": "Count", "Count=99999999999999999999": "Count", "PageSize=1.0": "PageSize", "PageSize=0": "PageSize", "PageNumber=-0": "PageNumber",
		"Name.0=a": "Name", "Name.01=a": "Name", "Name.2=a": "Name", "Name.1.Key=a": "Name", "Name.9999999999=a": "Name", "Name.1=%ff": "Name.1",
		"Tag.1=a": "Tag", "Tag.1.Value=a": "Tag.1.Key", "Tag.1.Key=a&Tag.1.Data=a": "Tag.1.Data", "Policy={": "Policy", "Policy=%22%ff%22": "Policy",
	} {
		values, _ := url.ParseQuery(query)
		var pe *ParamError
		if err := Decode(values, &everything{}); !errors.As(err, &pe) || pe.Param != param {
			t.Errorf("%s: got %v", query, err)
		}
	}
}

// An empty description clears, so one that was forgotten must not.
func TestPresentMayBeEmpty(t *testing.T) {
	values, err := Encode(&UpdateKeyDescriptionRequest{KeyID: "k"})
	if err != nil || values.Encode() != "Description=&KeyId=k" {
		t.Errorf("got %v, %v", values, err)
	}
	var req UpdateKeyDescriptionRequest
	if err := Decode(values, &req); err != nil {
		t.Error(err)
	}
	var pe *ParamError
	if err := Decode(url.Values{"KeyId": {"k"}}, &req); !errors.As(err, &pe) || pe.Param != "Description" || !pe.Missing {
		t.Errorf("left out: %v", err)
	}
	params, err := Parameters(req)
	if err != nil || !params[1].Required {
		t.Errorf("%+v, %v", params, err)
	}
}

// A switch that was forgotten must not be taken for one that is off.
func TestRequiredBoolean(t *testing.T) {
	for _, on := range []bool{true, false} {
		values, err := Encode(&SetDeletionProtectionRequest{KeyID: "k", EnableDeletionProtection: on})
		if err != nil {
			t.Fatal(err)
		}
		var req SetDeletionProtectionRequest
		if err := Decode(values, &req); err != nil || req.EnableDeletionProtection != on {
			t.Errorf("%v: %v, %v", values, req, err)
		}
	}
	for _, values := range []url.Values{{"KeyId": {"k"}}, {"KeyId": {"k"}, "EnableDeletionProtection": {""}}} {
		var pe *ParamError
		if err := Decode(values, &SetDeletionProtectionRequest{}); !errors.As(err, &pe) || pe.Param != "EnableDeletionProtection" || !pe.Missing {
			t.Errorf("%v: %v", values, err)
		}
	}
}

// Lists come numbered or as JSON.
func TestListsAsJSON(t *testing.T) {
	for query, want := range map[string]everything{
		`Name=["a","","\u00e9"]`: {Names: []string{"a", "", "é"}},
		`Name= [ ] `:             {},
		`Name=`:                  {},
		`Name=&Name.1=a`:         {Names: []string{"a"}},
		`Tag=[{"Key":"a","Value":"b"},{"Value":"","Key":"c","Other":"x"}]`: {Tags: []labelled{{Key: "a", Value: "b"}, {Key: "c"}}},
		`Tag=[{"Key":"a","N":"3","Data":"AQ=="}]`:                          {Tags: []labelled{{Key: "a", N: ptr(3), Data: []byte{1}}}},
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		var got everything
		if err := Decode(values, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v", query, got, err)
		}
	}
	for query, param := range map[string]string{
		`Name=a`: "Name", `Name="a"`: "Name", `Name=["a"]x`: "Name", `Name=["a",]`: "Name", `Name=[1]`: "Name", `Name=[null]`: "Name", `Name=["a"`: "Name",
		`Name=[["a"]]`: "Name", `Name=[{"Key":"a"}]`: "Name", `Name=["a"]&Name.2=b`: "Name", `Name=["a"]&Name=["b"]`: "Name", `Name=["\u0000"]`: "Name.1",
		`Tag=["a"]`: "Tag", `Tag=[{}]`: "Tag", `Tag=[{"Key":1}]`: "Tag", `Tag=[{"Key":"a","Key":"b"}]`: "Tag", `Tag=[{"Value":"a"}]`: "Tag.1.Key",
		`Tag=[{"Key":"a"},{"Key":"b","N":"x"}]`: "Tag.2.N", `Tag={"Key":"a"}`: "Tag",
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		var pe *ParamError
		if err := Decode(values, &everything{}); !errors.As(err, &pe) || pe.Param != param {
			t.Errorf("%s: got %v", query, err)
		}
	}
	var pe *ParamError
	if err := Decode(url.Values{"RegionId": {"r"}, "ResourceType": {"key"}, "ResourceId": {"[]"}}, &TagResourcesRequest{}); !errors.As(err, &pe) || pe.Param != "ResourceId" || !pe.Missing {
		t.Errorf("an empty list that is required: %v", err)
	}
}

func TestEncodeRefusesWhatDecodeWould(t *testing.T) {
	for _, bad := range []everything{
		{Text: "\xff"}, {Spec: "a\x00"}, {Names: []string{"\x00"}}, {Policy: json.RawMessage("{")},
		{Context: map[string]string{"\xff": ""}}, {Context: map[string]string{"a": strings.Repeat("x", MaxContextText)}},
	} {
		var pe *ParamError
		if values, err := Encode(bad); !errors.As(err, &pe) {
			t.Errorf("%+v: got %v, %v", bad, values, err)
		}
	}
}

func TestNotRequests(t *testing.T) {
	for _, bad := range []any{nil, 1, (*EncryptRequest)(nil), struct {
		A float64 `param:"A"`
	}{}, struct {
		A string `param:"A,must"`
	}{}, struct {
		A, B string `param:"A"`
	}{}, struct {
		A [][]string `param:"A"`
	}{}} {
		if _, err := Encode(bad); err == nil {
			t.Errorf("Encode(%T) worked", bad)
		}
		if err := Decode(nil, bad); err == nil {
			t.Errorf("Decode(%T) worked", bad)
		}
		if _, err := Parameters(bad); err == nil && reflect.TypeOf(bad) != reflect.TypeFor[*EncryptRequest]() {
			t.Errorf("Parameters(%T) worked", bad)
		}
	}
}

func TestParameters(t *testing.T) {
	got, err := Parameters(everything{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range got {
		names = append(names, p.Name+":"+p.Type)
	}
	want := "PageNumber:integer PageSize:integer Text:string Spec:string Data:base64 Count:integer Flag:boolean Context:map Policy:JSON Name:list Tag:list"
	if s := strings.Join(names, " "); s != want {
		t.Errorf("got %s", s)
	}
	if e := got[len(got)-1].Elements; len(e) != 4 || e[0].Name != "Key" || !e[0].Required || e[1].Required {
		t.Errorf("elements are %+v", e)
	}
}

func FuzzRoundTrip(f *testing.F) {
	f.Add("text", "Aliyun_AES_256", []byte("data"), 7, true, "a", "1", `{"a":1}`, 2)
	f.Add("", "\x00", []byte{}, 0, false, "\xff", "\u2028", "", 0)
	f.Fuzz(func(t *testing.T, text, spec string, data []byte, n int, flag bool, name, value, policy string, count int) {
		want := everything{Text: text, Spec: KeySpec(spec), Data: data, Flag: flag, Page: Page{PageSize: n}, Policy: json.RawMessage(policy)}
		if flag {
			want.Count = &n
			want.Context = map[string]string{name: value, value: name}
		}
		for i := range min(max(count, 0), 12) {
			want.Names = append(want.Names, text[:i%(len(text)+1)])
			want.Tags = append(want.Tags, labelled{Key: "k" + name, Value: value})
		}
		values, err := Encode(want)
		if err != nil {
			var pe *ParamError
			if !errors.As(err, &pe) {
				t.Fatalf("not a ParamError: %v", err)
			}
			return
		}
		parsed, err := url.ParseQuery(values.Encode())
		if err != nil {
			t.Fatal(err)
		}
		var got everything
		if err := Decode(parsed, &got); err != nil {
			t.Fatalf("%v: %v", values, err)
		}
		if len(want.Data) == 0 {
			want.Data = nil
		}
		if len(want.Policy) == 0 {
			want.Policy = nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%v:\n got %+v\nwant %+v", values, got, want)
		}
	})
}

// What any query decodes to must survive being encoded again.
func FuzzDecode(f *testing.F) {
	f.Add("KeyId=k&Plaintext=aGk%3D&EncryptionContext={\"a\":\"b\"}&DryRun=true&NumberOfBytes=3&Tag.1.Key=a&Name.1=b&Text=x&Data=AA==&Policy=1")
	f.Add(`Name=["a","b"]&Tag=[{"Key":"a","Value":"b"}]`)
	f.Fuzz(func(t *testing.T, query string) {
		values, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		var first, second everything
		if Decode(values, &first) != nil {
			return
		}
		again, err := Encode(first)
		if err != nil {
			var pe *ParamError
			if errors.As(err, &pe) && pe.Param == "Context" {
				return // escaping can make a context text longer than it came
			}
			t.Fatal(err)
		}
		if err := Decode(again, &second); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(first, second) {
			t.Fatalf("%+v\n%+v", first, second)
		}
	})
}
