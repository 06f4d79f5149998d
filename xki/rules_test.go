package xki

import (
	"strings"
	"testing"
)

// A member may be any of a list's values, and every member that a rule names must fit.
func TestRules(t *testing.T) {
	ours := Rule{Name: "ours", Unless: map[string][]string{"awsPrincipalArn": {"arn:aws:iam::111111111111:*", "arn:aws:iam::222222222222:role/shop"}, "kmsViaService": {"ebs"}}}
	if err := ours.Check(); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		principal, via string
		denied         bool
	}{
		{"arn:aws:iam::111111111111:role/x", "ebs", false},
		{"arn:aws:iam::222222222222:role/shop", "ebs", false},
		{"arn:aws:iam::222222222222:role/shop", "s3", true},
		{"arn:aws:iam::222222222222:role/shopper", "ebs", true},
		{"arn:aws:iam::333333333333:role/x", "ebs", true},
		{"", "", true},
	} {
		r := &Request{Op: OpDecrypt, KeyID: "k", Metadata: RequestMetadata{PrincipalARN: row.principal, ViaService: row.via}}
		if got := denying([]Rule{ours}, r) == "ours"; got != row.denied {
			t.Errorf("%s by %s: denied is %t", row.principal, row.via, got)
		}
	}
	ours.Unless["kmsViaService"] = nil
	if err := ours.Check(); err == nil || !strings.Contains(err.Error(), `"kmsViaService" has no value`) {
		t.Errorf("an empty list: %v", err)
	}
}
