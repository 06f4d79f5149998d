package pkcs11front

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/keyward/keyward/kms"
)

// TestSlots says what programs rely on: numbers and labels that stay, and an order in which the label that begins another comes first.
func TestSlots(t *testing.T) {
	tokensOf := func(ids ...string) (all []kms.Token) {
		for _, id := range ids {
			all = append(all, kms.Token{Instance: id})
		}
		return all
	}
	order := func(slots []slot) (ids []string) {
		for _, s := range slots {
			ids = append(ids, s.Instance)
		}
		return ids
	}
	for _, test := range []struct{ configured, want []string }{
		{nil, nil},
		{[]string{"kst-b", "kst-a"}, []string{"kst-b", "kst-a"}}, // as configured
		{[]string{"kst-ab", "kst-c", "kst-a", "kst-abc"}, []string{"kst-a", "kst-ab", "kst-c", "kst-abc"}},
		{[]string{"kst-abc", "kst-ab", "kst-a"}, []string{"kst-a", "kst-ab", "kst-abc"}},
	} {
		if got := order(slotsOf(tokensOf(test.configured...))); !slices.Equal(got, test.want) {
			t.Errorf("%v come as %v, not %v", test.configured, got, test.want)
		}
	}

	// What a program finds by the beginning of a label is the token whose whole label it gave.
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		seen, ids := map[string]bool{}, []string{}
		for range 12 {
			id := "kst-"
			for range 1 + r.IntN(4) {
				id += string("ab"[r.IntN(2)])
			}
			if !seen[id] {
				seen[id] = true
				ids = append(ids, id)
			}
		}
		all := slotsOf(tokensOf(ids...))
		numbers := map[slotID]bool{}
		for _, want := range all {
			first := slices.IndexFunc(all, func(s slot) bool { return strings.HasPrefix(s.label(), want.label()) })
			if all[first].Instance != want.Instance {
				t.Fatalf("%q finds %q in %v", want.label(), all[first].label(), order(all))
			}
			if numbers[want.id] || want.id > maxSlotID {
				t.Fatalf("slot %d", want.id)
			}
			numbers[want.id] = true
		}
	}

	// Numbers and serial numbers stay when others come and go.
	alone := slotsOf(tokensOf("kst-software"))[0]
	among := slotsOf(tokensOf("kst-a", "kst-soft", "kst-hardware", "kst-software"))[3]
	if alone.id != among.id || alone.serial() != among.serial() || alone.label() != among.label() {
		t.Errorf("%+v became %+v", alone, among)
	}
	if alone.id != 0x4c6326e6 {
		t.Errorf("kst-software is slot %#x: programs that were told its number have lost it", alone.id)
	}

	// Long IDs fit and differ.
	long := strings.Repeat("x", 40)
	labels := map[string]bool{}
	for i := range 100 {
		s := slot{Token: kms.Token{Instance: fmt.Sprintf("kst-%s%d", long, i)}}
		if l := s.label(); len(l) != widthLabel || labels[l] {
			t.Errorf("label %q", l)
		} else {
			labels[l] = true
		}
		if len(s.serial()) != widthSerial {
			t.Errorf("serial number %q", s.serial())
		}
	}
}

// TestSlotCollision makes two IDs that fall on one number: the one that comes first in the alphabet keeps it, whatever the configuration's order.
func TestSlotCollision(t *testing.T) {
	seen := map[slotID]string{}
	for i := 0; ; i++ {
		id := fmt.Sprintf("kst-%d", i)
		n := slotNumber(id)
		other, ok := seen[n]
		if !ok {
			seen[n] = id
			continue
		}
		for _, ids := range [][]string{{id, other}, {other, id}} {
			for _, s := range slotsOf([]kms.Token{{Instance: ids[0]}, {Instance: ids[1]}}) {
				want := n
				if s.Instance == max(id, other) {
					want = (n + 1) & maxSlotID
				}
				if s.id != want {
					t.Errorf("%s has slot %d, not %d", s.Instance, s.id, want)
				}
			}
		}
		return
	}
}
