package keystore

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// randomKey has any field set or not, and texts that JSON has to escape.
func randomKey(r *rand.Rand, i int) *Key {
	text := func() string {
		if r.IntN(4) > 0 {
			return []string{"", "a", "Enabled", "日本", "}],{["}[r.IntN(5)]
		}
		return []string{"", "a", "Enabled", `a "quoted" \ text`, "<b>&", "日本", "x\ny", "}],{[", `\"`}[r.IntN(9)]
	}
	at := time.Unix(r.Int64N(1<<32), 0).UTC()
	k := &Key{
		ID: fmt.Sprintf("key-%d", i), Account: text(), Creator: text(), Instance: text(), Spec: text(), Usage: text(), SecondaryUsage: text(),
		Origin: text(), Protection: text(), State: text(), Description: text(), Created: at, Versions: r.IntN(3), Policy: text(), Role: text(),
		OtherAccounts: []string{text(), text()}, Sequence: r.Uint64(), Fingerprint: []byte(text()), AutoRotate: r.IntN(2) == 0, ProtectedReason: text(),
	}
	for range r.IntN(3) {
		k.Tags = append(k.Tags, Tag{text(), text()})
	}
	if r.IntN(2) == 0 {
		k.DeleteAt = &at
	}
	return k
}

// The facts of a record are those of the key that it holds, whenever scan is sure of them; and it is sure of plain ones.
func TestScanFacts(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	known := texts{}
	var f KeyFacts
	sure := 0
	for i := range 5000 {
		k := randomKey(r, i)
		payload, err := encode(k)
		if err != nil {
			t.Fatal(err)
		}
		if !f.scan(payload, known) {
			continue
		}
		sure++
		got := f
		if len(got.Tags) == 0 {
			got.Tags = nil
		}
		if want := k.Facts(); !reflect.DeepEqual(&got, want) {
			t.Fatalf("%s\ngave %+v\nwant %+v", payload, got, *want)
		}
	}
	if sure < 100 {
		t.Errorf("only %d records were scanned", sure)
	}
	plain, err := encode(&Key{ID: "key-1", Account: "1", State: "Enabled", Description: "a \"quoted\" \\ text}", Tags: []Tag{{"a b", ""}}, Sequence: 1<<64 - 1})
	if err != nil || !f.scan(plain, known) || f.Sequence != 1<<64-1 || f.Tags[0] != (Tag{"a b", ""}) {
		t.Errorf("%s gave %+v, %v", plain, f, err)
	}
	for n := range plain {
		if f.scan(plain[:n], known) {
			t.Errorf("%s passes as a record", plain[:n])
		}
	}
	if len(known) > maxTexts {
		t.Errorf("%d texts are kept", len(known))
	}
}

func FuzzScanFacts(f *testing.F) {
	for i := range 20 {
		payload, err := encode(randomKey(rand.New(rand.NewPCG(1, uint64(i))), i))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		// What is stored has been encoded: anything that decodes is encoded first.
		var k Key
		if decode(payload, &k) != nil {
			new(KeyFacts).scan(payload, texts{}) // ends, and does not panic
			return
		}
		again, err := encode(&k)
		if err != nil {
			return
		}
		var got KeyFacts
		if !got.scan(again, texts{}) {
			return
		}
		if want := k.Facts(); len(got.Tags) != len(want.Tags) || got.ID != want.ID || got.State != want.State || got.Role != want.Role || got.Sequence != want.Sequence {
			t.Errorf("%s gave %+v", again, got)
		}
	})
}
