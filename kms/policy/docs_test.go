package policy

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestDocumentation reads every document of docs/policies.md, and holds its example of roles against what Build makes, and its
// table of conditions against what there is.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	owner := KeyOwner{Account: "1000000000000001"}
	var built bytes.Buffer
	example, err := Build(owner, Roles{Administrators: []string{"acs:ram::1000000000000001:role/ops"}, Users: []string{"acs:ram::1000000000000001:user/app"}, Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Compact(&built, example); err != nil {
		t.Fatal(err)
	}
	count, shown := 0, false
	for i, part := range strings.Split(string(text), "```") {
		document, ok := strings.CutPrefix(part, "json\n")
		if !ok || i%2 == 0 {
			continue
		}
		count++
		_, err := ParseIdentity([]byte(document))
		if strings.Contains(document, `"Principal"`) {
			_, err = ParseKey([]byte(document), owner)
		}
		if err != nil {
			t.Errorf("%v:\n%s", err, document)
			continue
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, []byte(document)); err != nil {
			t.Error(err)
		}
		shown = shown || compact.String() == built.String()
	}
	if count < 4 || !shown {
		t.Errorf("%d documents; what Build makes is among them: %t", count, shown)
	}
	for _, k := range conditionKeys {
		if !strings.Contains(string(text), "\n| `"+k.name) {
			t.Errorf("the condition key %s is not in the table", k.name)
		}
	}
	for _, p := range PresetNames() {
		if !strings.Contains(string(text), "`"+p+"`") {
			t.Errorf("the preset %s is not told of", p)
		}
	}
}
