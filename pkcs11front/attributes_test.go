package pkcs11front

import (
	"strings"
	"testing"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// allAttributes are those that ck has names for.
func allAttributes() (all []ck.Attribute) {
	for _, from := range []ck.Attribute{0, 0x40000000} {
		for a := from; a < from+0x1000; a++ {
			if strings.HasPrefix(a.String(), "CKA_") {
				all = append(all, a)
			}
		}
	}
	return all
}

// TestAttributesComplete says that every attribute of the standard is in a table, or is listed as one that no object has.
func TestAttributesComplete(t *testing.T) {
	all := allAttributes()
	if len(all) < 100 {
		t.Fatalf("only %d attributes", len(all))
	}
	where := map[ck.Attribute]int{}
	for why, attributes := range notHere {
		for _, a := range attributes {
			where[a] = -1
			if why == "" {
				t.Errorf("%v has no reason", a)
			}
		}
	}
	for _, table := range classTables {
		seen := map[ck.Attribute]bool{}
		for _, row := range table.rows {
			if where[row.attribute] < 0 {
				t.Errorf("%v is here and not here", row.attribute)
			}
			where[row.attribute]++
			if seen[row.attribute] {
				t.Errorf("%v is twice in the table of %v, %v", row.attribute, table.class, table.keyType)
			}
			seen[row.attribute] = true
			if kind := p11rpc.KindOf(row.attribute); row.kind != kind {
				t.Errorf("%v is of kind %d here and %d on the wire", row.attribute, row.kind, kind)
			}
			if row.needed&^row.given != 0 {
				t.Errorf("%v is needed where it may not be given", row.attribute)
			}
			if row.secret && row.given&bySet != 0 {
				t.Errorf("%v of %v can be changed", row.attribute, table.class)
			}
		}
	}
	for _, a := range all {
		if where[a] == 0 {
			t.Errorf("%v is nowhere", a)
		}
	}
}

// TestSecretParts says that what is secret in a table is what objects do not keep with their attributes.
func TestSecretParts(t *testing.T) {
	parts := map[ck.Attribute]bool{}
	for _, a := range secretParts {
		parts[a] = true
	}
	for _, table := range classTables {
		for _, row := range table.rows {
			if want := secretClass(table.class) && parts[row.attribute]; row.secret != want {
				t.Errorf("%v of %v: secret is %v", row.attribute, table.class, row.secret)
			}
		}
	}
}
