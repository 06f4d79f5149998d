package daemon

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/daemon/admin"
)

// TestRefusedBeforeAnything has a row for each request that must not reach the administration. The server has no store
// and no pool: whatever got through would crash.
func TestRefusedBeforeAnything(t *testing.T) {
	s := &server{log: zerolog.Nop()}
	s.peers.Store(table(t))
	for _, row := range []struct {
		method, path, header string
		want                 int
	}{
		{http.MethodGet, admin.StatusPath, "", http.StatusForbidden}, // no peer: it did not come over the Unix socket
		{http.MethodGet, admin.MembersPath, "", http.StatusForbidden},
		{http.MethodGet, admin.StatusPath, "Origin", http.StatusForbidden},
		{http.MethodGet, admin.StatusPath, "Referer", http.StatusForbidden},
		{http.MethodGet, admin.StatusPath, "Sec-Fetch-Site", http.StatusForbidden},
		{http.MethodPost, admin.StatusPath, "", http.StatusNotFound},
		{http.MethodGet, admin.MetricsPath, "", http.StatusForbidden},
		{http.MethodPost, admin.ReloadPath, "", http.StatusForbidden},
		{http.MethodPost, admin.ReloadPath, "Origin", http.StatusForbidden},
		{http.MethodPost, "/v1/members/a/drain", "", http.StatusForbidden},
		{http.MethodPost, "/v1/members/a/undrain", "", http.StatusForbidden},
		{http.MethodPost, "/v1/members/a/enroll", "", http.StatusForbidden},
		{http.MethodGet, admin.ReloadPath, "", http.StatusNotFound},
		{http.MethodGet, "/v1/keys", "", http.StatusNotFound},
	} {
		req := httptest.NewRequest(row.method, row.path, nil)
		if row.header != "" {
			req.Header.Set(row.header, "https://page.example")
		}
		rec := httptest.NewRecorder()
		s.handler().ServeHTTP(rec, req)
		if rec.Code != row.want {
			t.Errorf("%s %s %s: status %d, want %d", row.method, row.path, row.header, rec.Code, row.want)
		}
		var f admin.Failure
		if err := json.Unmarshal(rec.Body.Bytes(), &f); err != nil || f.Message == "" {
			t.Errorf("%s %s %s: the body %q is no Failure", row.method, row.path, row.header, rec.Body)
		}
	}
}
