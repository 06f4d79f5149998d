package daemon

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// TestConfirmClock takes an operator's word for the clock, and keeps that.
func TestConfirmClock(t *testing.T) {
	a := newAppliance(t)
	before := time.Now()
	answer, err := a.client.ConfirmClock(t.Context())
	if err != nil || answer.Time.Before(before) || answer.Time.After(time.Now()) {
		t.Errorf("%+v, %v", answer, err)
	}
	if rec := a.as(4242, http.MethodPost, "/v1/clock/confirm", ""); rec.Code != http.StatusForbidden {
		t.Errorf("a user's word: %d, %s", rec.Code, rec.Body)
	}
	if got := fmt.Sprint(a.audited(t, "ConfirmClock")); got != "[begun ok denied by policy]" {
		t.Errorf("the audit has %s", got)
	}
}

func TestBuiltAt(t *testing.T) {
	defer func(was string) { built = was }(built)
	for text, want := range map[string]string{"": "2026-01-01", "2031-02-03": "2031-02-03", "yesterday": "2026-01-01"} {
		built = text
		if got := builtAt().Format(time.DateOnly); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
}
