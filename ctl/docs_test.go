package ctl

import (
	"os"
	"regexp"
	"testing"
)

// TestActionsDocumented sees that docs/api.md tells what each action is for.
func TestActionsDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range actions {
		if !regexp.MustCompile(`\b` + name + `\b`).Match(text) {
			t.Errorf("docs/api.md says nothing of %s", name)
		}
	}
}
